//! How a trainer notices that nothing was assigned since it last looked at a model closely.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use pyo3::{PyTraverseError, PyVisit, intern};

use crate::error::{Result, enter};
use crate::tensor::PyTensor;

/// A dict with the objects that it held.
struct SeenDict {
    dict: Py<PyDict>,
    entries: Vec<(Py<PyAny>, Py<PyAny>)>,
}

impl SeenDict {
    fn new(dict: &Bound<'_, PyDict>) -> SeenDict {
        let entries = dict.iter().map(|(key, value)| (key.unbind(), value.unbind())).collect();
        SeenDict { dict: dict.clone().unbind(), entries }
    }

    fn holds(&self, py: Python<'_>) -> bool {
        let dict = self.dict.bind(py);
        dict.len() == self.entries.len()
            && dict.iter().zip(&self.entries).all(|((key, value), seen)| key.is(&seen.0) && value.is(&seen.1))
    }

    /// Adds one to the entry "step"; the new number is the one that was seen.
    fn count(&mut self, py: Python<'_>) -> PyResult<()> {
        let (dict, key) = (self.dict.bind(py), intern!(py, "step"));
        let Some(steps) = dict.get_item(key)? else { return Ok(()) };
        let more = steps.add(1)?;
        dict.set_item(key, &more)?;
        if let Some((_, seen)) = self.entries.iter_mut().find(|(_, seen)| seen.is(&steps)) {
            *seen = more.unbind();
        }
        Ok(())
    }
}

/// A list with the objects that it held.
struct SeenList {
    list: Py<PyList>,
    entries: Vec<Py<PyAny>>,
}

impl SeenList {
    fn new(list: &Bound<'_, PyList>) -> SeenList {
        SeenList { list: list.clone().unbind(), entries: list.iter().map(Bound::unbind).collect() }
    }

    fn holds(&self, py: Python<'_>) -> bool {
        let list = self.list.bind(py);
        list.len() == self.entries.len() && list.iter().zip(&self.entries).all(|(value, seen)| value.is(seen))
    }
}

/// Whether a tensor wants a gradient, and with which hooks.
#[derive(PartialEq, Eq)]
struct Wanted(bool, u64);

impl Wanted {
    fn of(tensor: &PyTensor) -> Wanted {
        Wanted(tensor.node().requires_grad(), tensor.node().hooks_version())
    }
}

/// The content of dicts and lists at one time, and which tensors wanted a gradient.
///
/// `counted` are dicts whose entry "step" counts updates: the watch itself goes on counting there.
#[pyclass(name = "Watch", module = "ferrograd._core", frozen)]
pub struct PyWatch {
    dicts: Vec<SeenDict>,
    lists: Vec<SeenList>,
    tensors: Vec<(Py<PyTensor>, Wanted)>,
    counted: Mutex<Vec<SeenDict>>,
}

impl PyWatch {
    /// Locked with the interpreter attached, and never while anything waits.
    fn counted(&self) -> MutexGuard<'_, Vec<SeenDict>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an update.
    pub fn count(&self, py: Python<'_>) -> Result<()> {
        self.counted().iter_mut().try_for_each(|seen| seen.count(py))?;
        Ok(())
    }
}

#[pymethods]
impl PyWatch {
    #[new]
    #[pyo3(signature = (dicts, lists = vec![], tensors = vec![], counted = vec![]))]
    fn new(
        dicts: Vec<Bound<'_, PyDict>>,
        lists: Vec<Bound<'_, PyList>>,
        tensors: Vec<Bound<'_, PyTensor>>,
        counted: Vec<Bound<'_, PyDict>>,
    ) -> Result<PyWatch> {
        enter(|| {
            Ok(PyWatch {
                dicts: dicts.iter().map(SeenDict::new).collect(),
                lists: lists.iter().map(SeenList::new).collect(),
                tensors: tensors
                    .into_iter()
                    .map(|tensor| {
                        let wanted = Wanted::of(tensor.get());
                        (tensor.unbind(), wanted)
                    })
                    .collect(),
                counted: Mutex::new(counted.iter().map(SeenDict::new).collect()),
            })
        })
    }

    /// Whether each dict and list holds the same objects still, in the same order, and the same tensors want a
    /// gradient with the same hooks.
    pub fn holds(&self, py: Python<'_>) -> bool {
        self.dicts.iter().all(|seen| seen.holds(py))
            && self.lists.iter().all(|seen| seen.holds(py))
            && self.tensors.iter().all(|(tensor, wanted)| Wanted::of(tensor.get()) == *wanted)
            && self.counted().iter().all(|seen| seen.holds(py))
    }

    /// For the cycle collector: a module may lead back to the trainer that watches it.
    fn __traverse__(&self, visit: PyVisit<'_>) -> std::result::Result<(), PyTraverseError> {
        // What is in use is not garbage.
        let Ok(counted) = self.counted.try_lock() else { return Ok(()) };
        for seen in self.dicts.iter().chain(counted.iter()) {
            visit.call(&seen.dict)?;
            for (key, value) in &seen.entries {
                visit.call(key)?;
                visit.call(value)?;
            }
        }
        for seen in &self.lists {
            visit.call(&seen.list)?;
            seen.entries.iter().try_for_each(|value| visit.call(value))?;
        }
        self.tensors.iter().try_for_each(|(tensor, _)| visit.call(tensor))
    }
}
