//! How a tensor prints: as PyTorch prints it, numbers formatted by numpy.

use ferrograd_core::dtype::DType;
use ferrograd_core::op::Op;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::array;
use crate::error::{Result, enter};
use crate::tensor::PyTensor;

/// Elements from which the middle is left out, and rows shown at each end.
const SUMMARISE_FROM: usize = 1000;
const EDGE_ITEMS: usize = 3;
/// Digits after the point where numbers are not whole.
const PRECISION: usize = 4;
const LINE_WIDTH: usize = 80;

#[pymethods]
impl PyTensor {
    fn __repr__(&self, py: Python<'_>) -> Result<String> {
        enter(|| {
            let Ok(tensor) = self.live() else {
                let op = self.node().op().map_or("leaf", Op::name);
                return Ok(format!("tensor(<values freed>, shape={}, op={op:?})", self.shape()));
            };
            let (dtype, shape) = (tensor.dtype(), tensor.shape());
            let mut text = String::from("tensor(");
            if shape.elements() == 0 {
                text += "[]";
                if shape.rank() != 1 {
                    text += &format!(", size={shape}");
                }
            } else {
                text += &numbers(py, &array::to_numpy(py, tensor.array())?, dtype)?;
            }
            if !matches!(dtype, DType::F32 | DType::I64 | DType::Bool) {
                text += &format!(", dtype=ferrograd.{dtype}");
            }
            match tensor.node().op() {
                Some(op) => text += &format!(", grad_fn=<{}>", op.name()),
                None if tensor.requires_grad() => text += ", requires_grad=True",
                None => {}
            }
            Ok(text + ")")
        })
    }

    fn __format__<'py>(slf: &Bound<'py, Self>, spec: &str) -> Result<Bound<'py, PyAny>> {
        // f"{loss:.4f}" works on a tensor with one element, as in PyTorch.
        if slf.get().shape().rank() == 0 && slf.get().live().is_ok() {
            return Ok(slf.call_method0("item")?.call_method1("__format__", (spec,))?);
        }
        Ok(slf.str()?.call_method1("__format__", (spec,))?)
    }
}

fn numbers(py: Python<'_>, values: &Bound<'_, PyAny>, dtype: DType) -> Result<String> {
    let options = PyDict::new(py);
    options.set_item("separator", ", ")?;
    options.set_item("prefix", "tensor(")?;
    options.set_item("threshold", SUMMARISE_FROM)?;
    options.set_item("edgeitems", EDGE_ITEMS)?;
    options.set_item("max_line_width", LINE_WIDTH)?;
    if dtype.is_float() {
        let numpy = py.import("numpy")?;
        let finite = values.get_item(numpy.getattr("isfinite")?.call1((values,))?)?;
        let whole = numpy.getattr("trunc")?.call1((&finite,))?;
        let is_whole = numpy.getattr("array_equal")?.call1((&finite, whole))?.is_truthy()?;
        options.set_item("precision", PRECISION)?;
        options.set_item("floatmode", if is_whole { "maxprec" } else { "fixed" })?;
    }
    let format = py.import("numpy")?.getattr("array2string")?;
    Ok(format.call((values,), Some(&options))?.extract()?)
}
