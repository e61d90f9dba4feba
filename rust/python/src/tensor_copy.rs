//! `copy.deepcopy` and pickle of leaves.

use ferrograd_core::tensor::Tensor;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

use crate::argument;
use crate::array;
use crate::error::{Kind, Result, enter, raise};
use crate::tensor::PyTensor;

/// A tensor of `class` around `values`, made by `Tensor.__new__`: a subclass's own may take other arguments.
fn instance<'py>(
    class: &Bound<'py, PyType>,
    values: Tensor,
    requires_grad: bool,
) -> Result<Bound<'py, PyAny>> {
    let py = class.py();
    let make = py.get_type::<PyTensor>().getattr("__new__")?;
    Ok(make.call1((class, PyTensor::from(values), py.None(), requires_grad))?)
}

/// A tensor from its class, values and flag: what pickle calls.
#[pyfunction]
pub fn _rebuild_tensor<'py>(
    class: &Bound<'py, PyType>,
    values: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = argument::requires_grad)] requires_grad: bool,
) -> Result<Bound<'py, PyAny>> {
    enter(|| instance(class, Tensor::constant(array::read("values", values, None)?), requires_grad))
}

/// Pickle's recipe: what to call, with what, and the attributes to set afterwards.
type Reduced<'py> =
    (Bound<'py, PyAny>, (Bound<'py, PyType>, Bound<'py, PyAny>, bool), Option<Bound<'py, PyAny>>);

fn attributes<'py>(object: &Bound<'py, PyAny>) -> Result<Option<Bound<'py, PyAny>>> {
    match object.getattr_opt("__dict__")? {
        Some(attributes) if attributes.len()? > 0 => Ok(Some(attributes)),
        _ => Ok(None),
    }
}

fn check_leaf(op: &str, tensor: &PyTensor) -> Result<()> {
    match tensor.node().op() {
        None => Ok(()),
        Some(made_by) => {
            let text = format!(
                "{op}: only leaves can be copied with their history, this is a result of {}; use detach() first",
                made_by.name()
            );
            Err(raise(Kind::Graph, text).into())
        }
    }
}

#[pymethods]
impl PyTensor {
    fn __deepcopy__<'py>(slf: &Bound<'py, Self>, memo: &Bound<'py, PyDict>) -> Result<Bound<'py, PyAny>> {
        enter(|| {
            let tensor = slf.get().live()?;
            check_leaf("deepcopy", slf.get())?;
            let key = slf.as_ptr() as usize;
            if let Some(made) = memo.get_item(key)? {
                return Ok(made);
            }
            let copy = instance(&slf.get_type(), tensor.detach().copied()?.detach(), tensor.requires_grad())?;
            memo.set_item(key, &copy)?;
            if let Some(grad) = tensor.grad() {
                copy.cast::<PyTensor>()?.get().live()?.set_grad(Some(grad.detach().copied()?.detach()))?;
            }
            if let Some(attributes) = attributes(slf.as_any())? {
                let deepcopy = slf.py().import("copy")?.getattr("deepcopy")?;
                copy.getattr("__dict__")?.call_method1("update", (deepcopy.call1((attributes, memo))?,))?;
            }
            Ok(copy)
        })
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> Result<Reduced<'py>> {
        enter(|| {
            let (py, tensor) = (slf.py(), slf.get().live()?);
            check_leaf("pickle", slf.get())?;
            let rebuild = py.import("ferrograd._core")?.getattr("_rebuild_tensor")?;
            let values = array::to_numpy(py, tensor.array())?;
            Ok((rebuild, (slf.get_type(), values, tensor.requires_grad()), attributes(slf.as_any())?))
        })
    }
}
