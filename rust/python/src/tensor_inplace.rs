//! Changes in place: of leaves, under `no_grad` where they require a gradient.

use ferrograd_core::buffer::Array;
use ferrograd_core::op::Binary;
use ferrograd_core::tensor::{Tensor, with_grad_mode};
use pyo3::prelude::*;

use crate::argument;
use crate::error::{Result, enter};
use crate::operand::{self, Operand};
use crate::random::single_source;
use crate::tensor::PyTensor;
use crate::tensor_arithmetic::binary;
use crate::tensor_index::check_source;

/// `x op= other`: the same tensor and storage with new values.
fn update(op: Binary, name: &'static str, x: &Bound<'_, PyTensor>, other: &Bound<'_, PyAny>) -> Result<()> {
    enter(|| {
        let target = x.get().live()?;
        target.check_in_place(name)?;
        let other = Operand::of("other", other)?;
        if let Operand::Tensor(value) = &other {
            check_source(name, target, value)?;
        }
        let result = with_grad_mode(false, || binary(x.py(), op, &target.detach(), other))?;
        check_source(name, target, &result)?;
        Ok(target.copy_(&result)?)
    })
}

fn write(name: &'static str, target: &Tensor, values: Array) -> Result<()> {
    target.check_in_place(name)?;
    Ok(target.copy_(&Tensor::constant(values))?)
}

#[pymethods]
impl PyTensor {
    fn __iadd__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>) -> Result<()> {
        update(Binary::Add, "add_", slf, other)
    }

    fn __isub__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>) -> Result<()> {
        update(Binary::Sub, "sub_", slf, other)
    }

    fn __imul__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>) -> Result<()> {
        update(Binary::Mul, "mul_", slf, other)
    }

    fn __itruediv__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>) -> Result<()> {
        update(Binary::Div, "div_", slf, other)
    }

    /// Adds `other` in place.
    fn add_<'py>(slf: Bound<'py, Self>, other: &Bound<'py, PyAny>) -> Result<Bound<'py, Self>> {
        update(Binary::Add, "add_", &slf, other)?;
        Ok(slf)
    }

    /// Subtracts `other` in place.
    fn sub_<'py>(slf: Bound<'py, Self>, other: &Bound<'py, PyAny>) -> Result<Bound<'py, Self>> {
        update(Binary::Sub, "sub_", &slf, other)?;
        Ok(slf)
    }

    /// Multiplies by `other` in place.
    fn mul_<'py>(slf: Bound<'py, Self>, other: &Bound<'py, PyAny>) -> Result<Bound<'py, Self>> {
        update(Binary::Mul, "mul_", &slf, other)?;
        Ok(slf)
    }

    /// Divides by `other` in place.
    fn div_<'py>(slf: Bound<'py, Self>, other: &Bound<'py, PyAny>) -> Result<Bound<'py, Self>> {
        update(Binary::Div, "div_", &slf, other)?;
        Ok(slf)
    }

    /// Sets every element to 0 in place.
    fn zero_(slf: Bound<'_, Self>) -> Result<Bound<'_, Self>> {
        enter(|| {
            let target = slf.get().live()?;
            write("zero_", target, Array::scalar(target.dtype(), 0.0)?)
        })?;
        Ok(slf)
    }

    /// Sets every element to `value` in place.
    fn fill_<'py>(slf: Bound<'py, Self>, value: &Bound<'py, PyAny>) -> Result<Bound<'py, Self>> {
        enter(|| {
            let target = slf.get().live()?;
            let value = Operand::of("value", value)?.beside(target.dtype())?;
            check_source("fill_", target, &value)?;
            target.check_in_place("fill_")?;
            Ok(target.copy_(&value)?)
        })?;
        Ok(slf)
    }

    /// Copies `src`, broadcast and converted, into this tensor.
    fn copy_<'py>(slf: Bound<'py, Self>, src: &Bound<'py, PyAny>) -> Result<Bound<'py, Self>> {
        enter(|| {
            let target = slf.get().live()?;
            let source = operand::tensor_beside("src", src, target.dtype())?;
            check_source("copy_", target, &source)?;
            Ok(target.copy_(&source)?)
        })?;
        Ok(slf)
    }

    /// Draws every element uniformly from [a, b) in place.
    #[pyo3(signature = (a = 0.0, b = 1.0, generator = None))]
    fn uniform_<'py>(
        slf: Bound<'py, Self>,
        #[pyo3(from_py_with = argument::a)] a: f64,
        #[pyo3(from_py_with = argument::b)] b: f64,
        generator: Option<&Bound<'py, PyAny>>,
    ) -> Result<Bound<'py, Self>> {
        enter(|| {
            let target = slf.get().live()?;
            target.check_in_place("uniform_")?;
            write(
                "uniform_",
                target,
                single_source("uniform_", generator)?.uniform(target.dtype(), *target.shape(), a, b)?,
            )
        })?;
        Ok(slf)
    }

    /// Draws every element from the normal distribution in place.
    #[pyo3(signature = (mean = 0.0, std = 1.0, generator = None))]
    fn normal_<'py>(
        slf: Bound<'py, Self>,
        #[pyo3(from_py_with = argument::mean)] mean: f64,
        #[pyo3(from_py_with = argument::std)] std: f64,
        generator: Option<&Bound<'py, PyAny>>,
    ) -> Result<Bound<'py, Self>> {
        enter(|| {
            let target = slf.get().live()?;
            target.check_in_place("normal_")?;
            write(
                "normal_",
                target,
                single_source("normal_", generator)?.normal(target.dtype(), *target.shape(), mean, std)?,
            )
        })?;
        Ok(slf)
    }
}
