//! Whether dicts and lists hold the same objects still: what tells a cached plan that nothing was assigned since.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use pyo3::{PyTraverseError, PyVisit};

use crate::error::{Result, enter};

enum Seen {
    Dict(Py<PyDict>, Vec<(Py<PyAny>, Py<PyAny>)>),
    List(Py<PyList>, Vec<Py<PyAny>>),
}

impl Seen {
    fn new(container: &Bound<'_, PyAny>) -> Result<Seen> {
        if let Ok(list) = container.cast::<PyList>() {
            return Ok(Seen::List(list.clone().unbind(), list.iter().map(Bound::unbind).collect()));
        }
        let dict = container.cast::<PyDict>()?;
        let entries = dict.iter().map(|(key, value)| (key.unbind(), value.unbind())).collect();
        Ok(Seen::Dict(dict.clone().unbind(), entries))
    }

    fn holds(&self, py: Python<'_>) -> bool {
        match self {
            Seen::Dict(dict, entries) => {
                let dict = dict.bind(py);
                let same = |((key, value), seen): ((Bound<'_, PyAny>, _), &(Py<PyAny>, Py<PyAny>))| {
                    let value: Bound<'_, PyAny> = value;
                    key.is(&seen.0) && value.is(&seen.1)
                };
                dict.len() == entries.len() && dict.iter().zip(entries).all(same)
            }
            Seen::List(list, items) => {
                let list = list.bind(py);
                list.len() == items.len() && list.iter().zip(items).all(|(item, seen)| item.is(seen))
            }
        }
    }
}

/// The present content of dicts and lists.
#[pyclass(name = "Watch", module = "ferrograd._core", frozen)]
pub struct PyWatch(Vec<Seen>);

#[pymethods]
impl PyWatch {
    #[new]
    fn new(containers: Vec<Bound<'_, PyAny>>) -> Result<PyWatch> {
        enter(|| Ok(PyWatch(containers.iter().map(Seen::new).collect::<Result<_>>()?)))
    }

    /// Whether each holds the same objects still, in the same order.
    fn holds(&self, py: Python<'_>) -> bool {
        self.0.iter().all(|seen| seen.holds(py))
    }

    /// For the cycle collector: a module may lead back to the trainer that watches it.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for seen in &self.0 {
            match seen {
                Seen::Dict(dict, entries) => {
                    visit.call(dict)?;
                    for (key, value) in entries {
                        visit.call(key)?;
                        visit.call(value)?;
                    }
                }
                Seen::List(list, items) => {
                    visit.call(list)?;
                    items.iter().try_for_each(|item| visit.call(item))?;
                }
            }
        }
        Ok(())
    }
}
