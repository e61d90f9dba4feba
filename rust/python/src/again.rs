//! Running the plan of the last call once more: what a call from Python costs beyond the plan is a look at each
//! object that the plan depends on, and one at the batch.
//!
//! Whatever is not exactly as it was gives `None`; the caller then takes the long way, which also names errors.

use ferrograd_core::anomaly;
use ferrograd_core::buffer::Array;
use ferrograd_core::shape::Dims;
use ferrograd_core::train::Rows;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{PyTraverseError, PyVisit};

use crate::array::{self, Table};
use crate::dtype;
use crate::error::{Result, enter};
use crate::trainer::PyEngine;
use crate::watch::PyWatch;

/// Shape of a row, and whether its elements are integers, where that makes a difference.
type Kind = (Vec<usize>, Option<bool>);

/// The array as a table that needs no conversion, of rows as before.
fn table(object: &Bound<'_, PyAny>, (row, is_integer): &Kind) -> Result<Option<Table>> {
    if !array::is_exact_array(object)? {
        return Ok(None);
    }
    let Ok(table) = Table::new(object) else { return Ok(None) };
    let fits = table.shape()[1..] == row[..]
        && is_integer.is_none_or(|wanted| table.is_integer() == wanted)
        && !table.is_u64();
    Ok(fits.then_some(table))
}

/// Prediction by an engine's step for as many rows.
#[pyclass(name = "PredictAgain", module = "ferrograd._core", frozen)]
pub struct PyPredictAgain {
    engine: Py<PyEngine>,
    watch: Py<PyWatch>,
    row: Kind,
    scores: (Vec<usize>, ferrograd_core::dtype::DType),
}

#[pymethods]
impl PyPredictAgain {
    #[new]
    fn new(
        engine: Py<PyEngine>,
        watch: Py<PyWatch>,
        row: Vec<usize>,
        score_shape: Vec<usize>,
        score_dtype: &Bound<'_, PyAny>,
    ) -> Result<PyPredictAgain> {
        enter(|| {
            let scores = (score_shape, dtype::parse(score_dtype)?);
            Ok(PyPredictAgain { engine, watch, row: (row, None), scores })
        })
    }

    /// The model's scores; `None` where the model or the rows have to be looked at more closely.
    fn __call__<'py>(&self, rows: &Bound<'py, PyAny>) -> Result<Option<Bound<'py, PyAny>>> {
        enter(|| {
            if anomaly::check().is_some() {
                return Ok(None);
            }
            let py = rows.py();
            let Some(table) = table(rows, &self.row)? else { return Ok(None) };
            let engine = self.engine.get();
            // How many rows there are comes first: strides of zero make any number of them.
            if !self.watch.get().holds(py) || !engine.knows(table.rows())? || !table.is_finite() {
                return Ok(None);
            }
            let mut shape = self.scores.0.clone();
            shape.insert(0, table.rows());
            let scores = Array::stale(self.scores.1, Dims::new("predict", &shape)?)?;
            engine.batch(py, &[&table], table.rows(), Some(&scores))?;
            Ok(Some(array::to_numpy(py, &scores)?))
        })
    }

    /// For the cycle collector.
    fn __traverse__(&self, visit: PyVisit<'_>) -> std::result::Result<(), PyTraverseError> {
        visit.call(&self.engine)?;
        visit.call(&self.watch)
    }
}

/// A training step by an engine's step for as many rows, with the rules as they have advanced.
#[pyclass(name = "StepAgain", module = "ferrograd._core", frozen)]
pub struct PyStepAgain {
    engine: Py<PyEngine>,
    watch: Py<PyWatch>,
    own: Py<PyTuple>,
    kinds: (Kind, Kind),
    /// Classes, and the label that counts nothing.
    labels: Option<(u64, Option<i64>)>,
}

#[pymethods]
impl PyStepAgain {
    #[new]
    fn new(
        engine: Py<PyEngine>,
        watch: Py<PyWatch>,
        own: Py<PyTuple>,
        kinds: (Kind, Kind),
        labels: Option<(u64, Option<i64>)>,
    ) -> PyStepAgain {
        PyStepAgain { engine, watch, own, kinds, labels }
    }

    /// Makes a step and returns the loss before it, which is not finite if the step was not made; `None` where
    /// anything has to be looked at more closely. `own` are the trainer's options.
    fn __call__(
        &self,
        inputs: &Bound<'_, PyAny>,
        targets: &Bound<'_, PyAny>,
        own: &Bound<'_, PyTuple>,
    ) -> Result<Option<f64>> {
        enter(|| {
            let py = inputs.py();
            let is_own = own.iter().zip(self.own.bind(py)).all(|(option, seen)| option.is(&seen));
            if !is_own || !self.watch.get().holds(py) {
                return Ok(None);
            }
            let Some(x) = table(inputs, &self.kinds.0)? else { return Ok(None) };
            let Some(y) = table(targets, &self.kinds.1)? else { return Ok(None) };
            let engine = self.engine.get();
            if x.rows() != y.rows() || !engine.knows(x.rows())? || !x.is_finite() || !y.is_finite() {
                return Ok(None);
            }
            let are_labels = self.labels.is_none_or(|(classes, ignored)| y.are_labels(classes, ignored));
            if !are_labels {
                return Ok(None);
            }
            let tables: [&dyn Rows; 2] = [&x, &y];
            let epoch = engine.batch(py, &tables, x.rows(), None)?;
            if let Some((_, loss)) = epoch.diverged {
                return Ok(Some(loss));
            }
            self.watch.get().count(py, engine)?;
            Ok(Some(epoch.loss / epoch.weight))
        })
    }

    /// For the cycle collector.
    fn __traverse__(&self, visit: PyVisit<'_>) -> std::result::Result<(), PyTraverseError> {
        visit.call(&self.engine)?;
        visit.call(&self.watch)?;
        visit.call(&self.own)
    }
}
