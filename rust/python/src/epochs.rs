//! scikit-learn's training loops: epochs whose shuffles numpy's legacy generator draws, and the loss with its
//! gradient for an optimizer that lives outside.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ferrograd_core::buffer::Array;
use ferrograd_core::dtype::DType;
use ferrograd_core::epochs::{Epochs, Falling, Patience};
use ferrograd_core::shape::Dims;
use ferrograd_core::train::Rows;
use ferrograd_kernels::mt19937::{Mt19937, WORDS};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::{Kind, Result, enter, raise};
use crate::sparse::Data;
use crate::trainer::{PyEngine, watched};
use crate::{argument, array, operand};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// numpy's MT19937, continued.
#[pyclass(name = "MT19937", module = "ferrograd._core", frozen)]
pub struct PyMt19937(Mutex<Mt19937>);

#[pymethods]
impl PyMt19937 {
    /// From the bytes of the 624 words and the position that `RandomState.get_state()` gives.
    #[new]
    fn new(words: &[u8], position: usize) -> Result<PyMt19937> {
        enter(|| {
            let (parts, rest) = words.as_chunks::<4>();
            let words: Option<[u32; WORDS]> =
                parts.iter().map(|part| u32::from_ne_bytes(*part)).collect::<Vec<_>>().try_into().ok();
            let generator = words.filter(|_| rest.is_empty()).and_then(|words| Mt19937::new(words, position));
            let generator = generator.ok_or_else(|| {
                raise(Kind::Config, "MT19937: expected 624 words and a position among them")
            })?;
            Ok(PyMt19937(Mutex::new(generator)))
        })
    }

    /// Words and position, as the constructor takes them.
    fn state<'py>(&self, py: Python<'py>) -> (Bound<'py, PyBytes>, usize) {
        let generator = lock(&self.0);
        let (words, position) = generator.state();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        (PyBytes::new(py, &bytes), position)
    }

    /// What `RandomState.uniform(low, high, shape)` gives for numbers whose difference is finite.
    fn uniform<'py>(
        &self,
        py: Python<'py>,
        low: f64,
        high: f64,
        #[pyo3(from_py_with = argument::shape)] shape: Vec<isize>,
    ) -> Result<Bound<'py, PyAny>> {
        enter(|| {
            let values = Array::stale(DType::F64, operand::shape("uniform", &shape)?)?;
            lock(&self.0).uniform(low, high, &mut values.write::<f64>());
            array::to_numpy(py, &values)
        })
    }

    /// The order that `RandomState.permutation` gives so many rows.
    fn permutation<'py>(&self, py: Python<'py>, rows: u32) -> Result<Bound<'py, PyAny>> {
        enter(|| {
            let mut order: Vec<i64> = (0..i64::from(rows)).collect();
            lock(&self.0).shuffle(&mut order);
            let order = Array::from_slice(DType::I64, Dims::from_slice(&[order.len()]), &order)?;
            array::to_numpy(py, &order)
        })
    }
}

/// A run of epochs over the same rows.
#[pyclass(name = "Epochs", module = "ferrograd._core", frozen)]
pub struct PyEpochs(Mutex<Epochs>);

#[pymethods]
impl PyEpochs {
    /// A run over `rows` rows, `batch` at a time. `patience = (lowest loss so far, bad epochs so far, tolerance,
    /// bad epochs in a row that are borne)` ends it; with `falling = (first rate, power, rows seen so far)` the
    /// rate falls after each epoch. After `seconds` from now no epoch begins.
    #[new]
    #[pyo3(signature = (rows, batch, patience = None, falling = None, seconds = None))]
    fn new(
        rows: u32,
        batch: usize,
        patience: Option<(f64, u64, f64, f64)>,
        falling: Option<(f64, f64, u64)>,
        seconds: Option<f64>,
    ) -> PyEpochs {
        let mut epochs = Epochs::new(rows, batch);
        epochs.patience =
            patience.map(|(best, bad, tolerance, limit)| Patience { best, bad, tolerance, limit });
        epochs.falling = falling.map(|(rate, power, seen)| Falling { rate, power, seen });
        // More than the clock can tell is without end.
        let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        epochs.deadline = time.and_then(|time| Instant::now().checked_add(time));
        PyEpochs(Mutex::new(epochs))
    }

    /// Whether the time is over.
    #[getter]
    fn is_late(&self) -> bool {
        lock(&self.0).is_late()
    }

    /// Mean loss of each epoch.
    #[getter]
    fn losses(&self) -> Vec<f64> {
        lock(&self.0).losses.clone()
    }

    /// The lowest loss and the number of bad epochs in a row; may be set.
    #[getter]
    fn patience(&self) -> Option<(f64, u64)> {
        lock(&self.0).patience.map(|patience| (patience.best, patience.bad))
    }

    #[setter]
    fn set_patience(&self, value: (f64, u64)) {
        if let Some(patience) = &mut lock(&self.0).patience {
            (patience.best, patience.bad) = value;
        }
    }

    /// Puts row `permutation[i]` of the present order in place i.
    fn permute(&self, permutation: &Bound<'_, PyAny>) -> Result<()> {
        enter(|| {
            let places = array::read("permutation", permutation, Some(DType::I64))?;
            let places = places.read::<i64>();
            let mut epochs = lock(&self.0);
            let mut is_free = vec![true; epochs.rows()];
            let mut take = |place: &i64| {
                let place = usize::try_from(*place).ok()?;
                std::mem::take(is_free.get_mut(place)?).then_some(place as u32)
            };
            let found: Option<Vec<u32>> = places.iter().map(&mut take).collect();
            let rows = epochs.rows();
            match found.filter(|found| found.len() == rows) {
                Some(places) => {
                    epochs.permute(&places);
                    Ok(())
                }
                None => {
                    Err(raise(Kind::Config, format!("permute: expected a permutation of {rows} rows")).into())
                }
            }
        })
    }

    /// Runs at most `count` epochs, each in a new order where there is a generator; returns whether the patience
    /// is at its end.
    #[pyo3(signature = (engine, tables, count, generator = None))]
    fn run(
        &self,
        py: Python<'_>,
        engine: &PyEngine,
        tables: Vec<Bound<'_, PyAny>>,
        count: usize,
        generator: Option<&PyMt19937>,
    ) -> Result<bool> {
        enter(|| {
            let tables: Vec<Data> = tables.iter().map(Data::new).collect::<Result<_>>()?;
            let mut epochs = lock(&self.0);
            check_rows(&tables, epochs.rows())?;
            let tables: Vec<&dyn Rows> = tables.iter().map(|table| table as &dyn Rows).collect();
            let mut generator = generator.map(|generator| lock(&generator.0));
            let (epochs, generator) = (&mut *epochs, generator.as_deref_mut());
            engine.with_engine(|engine| {
                engine.is_steadfast = true;
                watched(py, |poll| epochs.run(engine, &tables, count, generator, poll))
            })
        })
    }
}

fn check_rows(tables: &[Data], rows: usize) -> Result<()> {
    match tables.iter().find(|table| table.rows() != rows) {
        Some(odd) => {
            Err(raise(Kind::Shape, format!("data: expected {rows} rows, got {}", odd.rows())).into())
        }
        None => Ok(()),
    }
}

/// The loss of all rows at the parameters `x`, one after the other, and its gradient. The engine's step must have
/// been compiled for as many rows with `whole`.
#[pyfunction]
pub fn loss_and_gradient<'py>(
    py: Python<'py>,
    engine: &PyEngine,
    x: &Bound<'py, PyAny>,
    tables: Vec<Bound<'py, PyAny>>,
) -> Result<(f64, Bound<'py, PyAny>)> {
    enter(|| {
        let tables: Vec<Data> = tables.iter().map(Data::new).collect::<Result<_>>()?;
        let rows = tables.first().map_or(0, Data::rows);
        check_rows(&tables, rows)?;
        let order: Vec<u32> = (0..rows as u32).collect();
        let tables: Vec<&dyn Rows> = tables.iter().map(|table| table as &dyn Rows).collect();
        let x = array::read("x", x, Some(DType::F64))?;
        let (loss, gradient) = engine.with_engine(|engine| {
            let x = x.read::<f64>();
            let x: &[f64] = &x;
            watched(py, |poll| engine.loss_and_gradient(x, &order, &tables, poll))
        })?;
        let gradient = Array::from_slice(DType::F64, Dims::from_slice(&[gradient.len()]), &gradient)?;
        Ok((loss, array::to_numpy(py, &gradient)?))
    })
}
