//! How a trainer notices that nothing was assigned since it last looked at a model closely.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};
use pyo3::{PyTraverseError, PyVisit, intern};

use crate::error::{Result, enter};
use crate::tensor::PyTensor;
use crate::trainer::PyEngine;

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

    /// Sets an entry; the new object is the one that was seen.
    fn set(&mut self, key: &Bound<'_, PyString>, value: Bound<'_, PyAny>) -> PyResult<()> {
        let py = key.py();
        self.dict.bind(py).set_item(key, &value)?;
        for (name, seen) in &mut self.entries {
            if name.bind(py).eq(key)? {
                *seen = value.unbind();
                break;
            }
        }
        Ok(())
    }

    /// Adds one to the entry "step", and sets those of the scalars.
    fn count(&mut self, py: Python<'_>, scalars: &[Py<PyString>], carried: &[f64]) -> PyResult<()> {
        let key = intern!(py, "step");
        if let Some(steps) = self.dict.bind(py).get_item(key)? {
            self.set(key, steps.add(1)?)?;
        }
        let mut pairs = scalars.iter().zip(carried);
        pairs.try_for_each(|(name, value)| self.set(name.bind(py), value.into_pyobject(py)?.into_any()))
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
/// `counted` are the states of parameters with the numbers of their rules. Their entry "step" counts updates, and
/// `scalars` are entries that an update hands to the next: the watch itself keeps both there.
#[pyclass(name = "Watch", module = "ferrograd._core", frozen)]
pub struct PyWatch {
    dicts: Vec<SeenDict>,
    lists: Vec<SeenList>,
    tensors: Vec<(Py<PyTensor>, Wanted)>,
    counted: Mutex<Vec<(SeenDict, usize)>>,
    scalars: Vec<Py<PyString>>,
}

impl PyWatch {
    /// Locked with the interpreter attached, and never while anything waits.
    fn counted(&self) -> MutexGuard<'_, Vec<(SeenDict, usize)>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an update by the engine's rules.
    pub fn count(&self, py: Python<'_>, engine: &PyEngine) -> Result<()> {
        let carried = if self.scalars.is_empty() { Vec::new() } else { engine.carried()? };
        self.counted().iter_mut().try_for_each(|(seen, rule)| {
            let carried = carried.get(*rule).map_or(&[][..], Vec::as_slice);
            seen.count(py, &self.scalars, carried)
        })?;
        Ok(())
    }
}

#[pymethods]
impl PyWatch {
    #[new]
    #[pyo3(signature = (dicts, lists = vec![], tensors = vec![], counted = vec![], scalars = vec![]))]
    fn new(
        dicts: Vec<Bound<'_, PyDict>>,
        lists: Vec<Bound<'_, PyList>>,
        tensors: Vec<Bound<'_, PyTensor>>,
        counted: Vec<(Bound<'_, PyDict>, usize)>,
        scalars: Vec<Py<PyString>>,
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
                counted: Mutex::new(
                    counted.iter().map(|(dict, rule)| (SeenDict::new(dict), *rule)).collect(),
                ),
                scalars,
            })
        })
    }

    /// Whether each dict and list holds the same objects still, in the same order, and the same tensors want a
    /// gradient with the same hooks.
    pub fn holds(&self, py: Python<'_>) -> bool {
        self.dicts.iter().all(|seen| seen.holds(py))
            && self.lists.iter().all(|seen| seen.holds(py))
            && self.tensors.iter().all(|(tensor, wanted)| Wanted::of(tensor.get()) == *wanted)
            && self.counted().iter().all(|(seen, _)| seen.holds(py))
    }

    /// For the cycle collector: a module may lead back to the trainer that watches it.
    fn __traverse__(&self, visit: PyVisit<'_>) -> std::result::Result<(), PyTraverseError> {
        // What is in use is not garbage.
        let Ok(counted) = self.counted.try_lock() else { return Ok(()) };
        for seen in self.dicts.iter().chain(counted.iter().map(|(seen, _)| seen)) {
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
