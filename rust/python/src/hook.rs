//! Hooks written in Python, and the handles that take them away.

use std::sync::{Arc, Weak};

use ferrograd_core::error::Result as CoreResult;
use ferrograd_core::tensor::{Node, Tensor};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3::{PyTraverseError, PyVisit};

use crate::error::{Kind, Result, enter, raise};
use crate::operand;
use crate::tensor::PyTensor;

enum Place {
    Tensor(Weak<Node>, u64),
    Dict(Py<PyDict>, u64),
}

/// Takes a hook away: by `remove`, or at the end of a `with` block.
#[pyclass(name = "RemovableHandle", module = "ferrograd._core", frozen)]
pub struct PyRemovableHandle(Place);

#[pymethods]
impl PyRemovableHandle {
    /// A handle of the entry `id` of a dict of hooks.
    #[new]
    fn new(hooks: Bound<'_, PyDict>, id: u64) -> PyRemovableHandle {
        PyRemovableHandle(Place::Dict(hooks.unbind(), id))
    }

    /// Takes the hook away; nothing happens if it is gone.
    fn remove(&self, py: Python<'_>) -> Result<()> {
        enter(|| {
            match &self.0 {
                Place::Tensor(node, id) => {
                    if let Some(node) = node.upgrade() {
                        node.remove_hook(*id);
                    }
                }
                Place::Dict(hooks, id) => {
                    hooks.bind(py).call_method1("pop", (*id, py.None()))?;
                }
            }
            Ok(())
        })
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _kind: &Bound<'_, PyAny>,
        _error: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> Result<()> {
        self.remove(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> std::result::Result<(), PyTraverseError> {
        match &self.0 {
            Place::Tensor(..) => Ok(()),
            Place::Dict(hooks, _) => visit.call(hooks),
        }
    }
}

/// Attaches a Python function to a tensor.
///
/// # Errors
/// `GraphError` where no gradient arrives, `ConfigError` where the hook cannot be called.
pub fn attach(tensor: &PyTensor, hook: &Bound<'_, PyAny>) -> Result<PyRemovableHandle> {
    let node = tensor.live()?.node();
    if !node.requires_grad() {
        return Err(raise(Kind::Graph, "register_hook: the tensor does not require a gradient").into());
    }
    if !hook.is_callable() {
        let kind = hook.get_type().name()?;
        return Err(raise(Kind::Config, format!("register_hook: expected a callable, got {kind}")).into());
    }
    let hook = hook.clone().unbind();
    let call = move |grad: &Tensor| -> CoreResult<Option<Tensor>> {
        let run = |py: Python<'_>| -> Result<Option<Tensor>> {
            let found = hook.bind(py).call1((PyTensor::from(grad.clone()),))?;
            if found.is_none() {
                Ok(None)
            } else {
                Ok(Some(operand::tensor_beside("register_hook", &found, grad.dtype())?))
            }
        };
        Ok(Python::attach(run)?)
    };
    let id = node.add_hook(Arc::new(call));
    Ok(PyRemovableHandle(Place::Tensor(Arc::downgrade(node), id)))
}
