//! What lets a trainer predict a few rows at once: nothing was assigned since the last prediction, and the rows
//! need no conversion.

use ferrograd_core::buffer::Array;
use ferrograd_core::dtype::DType;
use ferrograd_core::shape::Dims;
use ferrograd_core::train::Rows;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3::{PyTraverseError, PyVisit};

use crate::array::{self, Table};
use crate::error::{Result, enter};

/// Rows that are looked at, at most: with more, the time of the usual checks does not show.
const FEW: usize = 16;

/// A dict with the objects that it held.
struct Seen {
    dict: Py<PyDict>,
    entries: Vec<(Py<PyAny>, Py<PyAny>)>,
}

impl Seen {
    fn new(dict: &Bound<'_, PyDict>) -> Seen {
        let entries = dict.iter().map(|(key, value)| (key.unbind(), value.unbind())).collect();
        Seen { dict: dict.clone().unbind(), entries }
    }

    fn holds(&self, py: Python<'_>) -> bool {
        let dict = self.dict.bind(py);
        dict.len() == self.entries.len()
            && dict.iter().zip(&self.entries).all(|((key, value), seen)| key.is(&seen.0) && value.is(&seen.1))
    }
}

/// The content of dicts at one time, and the width of a matrix.
#[pyclass(name = "Watch", module = "ferrograd._core", frozen)]
pub struct PyWatch {
    dicts: Vec<Seen>,
    columns: usize,
}

#[pymethods]
impl PyWatch {
    #[new]
    fn new(dicts: Vec<Bound<'_, PyDict>>, columns: usize) -> PyWatch {
        PyWatch { dicts: dicts.iter().map(Seen::new).collect(), columns }
    }

    /// Whether each dict holds the same objects still, in the same order.
    fn holds(&self, py: Python<'_>) -> bool {
        self.dicts.iter().all(|seen| seen.holds(py))
    }

    /// The number of rows where `table` is a float matrix of few rows, of this width and finite; else 0.
    fn rows(&self, table: &Bound<'_, PyAny>) -> Result<usize> {
        enter(|| {
            if !array::is_exact_array(table)? {
                return Ok(0);
            }
            let Ok(table) = Table::new(table) else { return Ok(0) };
            let rows = match *table.shape() {
                [rows @ 1..=FEW, columns] if columns == self.columns && !table.is_integer() => rows,
                _ => return Ok(0),
            };
            let order: [u32; FEW] = std::array::from_fn(|row| row as u32);
            let values = Array::stale(DType::F64, Dims::from_slice(table.shape()))?;
            table.gather(&order[..rows], &values)?;
            let is_finite = values.read::<f64>().iter().all(|v| v.is_finite());
            Ok(if is_finite { rows } else { 0 })
        })
    }

    /// For the cycle collector: a module may lead back to the trainer that watches it.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for seen in &self.dicts {
            visit.call(&seen.dict)?;
            for (key, value) in &seen.entries {
                visit.call(key)?;
                visit.call(value)?;
            }
        }
        Ok(())
    }
}
