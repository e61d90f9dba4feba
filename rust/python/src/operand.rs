//! What the other operand of an op may be: a tensor, an array, or a Python number, which is weak.

use ferrograd_core::buffer::Array;
use ferrograd_core::dtype::DType;
use ferrograd_core::shape::Dims;
use ferrograd_core::tensor::Tensor;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyTuple};

use crate::array;
use crate::error::{Kind, Result, raise};
use crate::tensor::PyTensor;

/// An operand as it came. Python numbers take their dtype from the tensor beside them.
pub enum Operand {
    /// A tensor, or an array as a constant.
    Tensor(Tensor),
    /// A Python float (also `np.float64`, its subclass).
    Float(f64),
    /// A Python int.
    Int(i64),
    /// A Python bool.
    Bool(bool),
}

impl Operand {
    /// Reads an operand.
    ///
    /// # Errors
    /// Those of [`array::read`].
    #[inline]
    pub fn of(object: &Bound<'_, PyAny>) -> Result<Operand> {
        if let Ok(tensor) = object.cast::<PyTensor>() {
            return Ok(Operand::Tensor(tensor.get().live()?.clone()));
        }
        if object.is_instance_of::<PyFloat>() {
            return Ok(Operand::Float(object.extract()?));
        }
        if object.is_exact_instance_of::<PyBool>() {
            return Ok(Operand::Bool(object.is_truthy()?));
        }
        if object.is_instance_of::<PyInt>() {
            return Ok(match object.extract::<i64>() {
                Ok(value) => Operand::Int(value),
                Err(_) => Operand::Float(object.extract()?),
            });
        }
        Ok(Operand::Tensor(Tensor::constant(array::read(object, None)?)))
    }

    /// The number, if it is one.
    pub fn number(&self) -> Option<f64> {
        match *self {
            Operand::Tensor(_) => None,
            Operand::Float(value) => Some(value),
            Operand::Int(value) => Some(value as f64),
            Operand::Bool(value) => Some(value.into()),
        }
    }

    /// As a tensor beside one of `dtype`: a number of rank 0 that promotion then gives way to it.
    ///
    /// # Errors
    /// `ConfigError` where an int does not fit uint8; `Memory`.
    pub fn beside(self, dtype: DType) -> Result<Tensor> {
        let array = match self {
            Operand::Tensor(tensor) => return Ok(tensor),
            Operand::Float(value) if dtype.is_float() => Array::scalar(dtype, value)?,
            Operand::Float(value) => Array::scalar(DType::F32, value)?,
            Operand::Int(value) if dtype.is_float() => Array::scalar(dtype, value as f64)?,
            // Promotion would squeeze it into uint8: 0 would equal -100.
            Operand::Int(value) if dtype == DType::U8 && u8::try_from(value).is_err() => {
                let text = format!("operand: {value} does not fit uint8, convert the tensor with .long()");
                return Err(raise(Kind::Config, text).into());
            }
            Operand::Int(value) => Array::from_slice(DType::I64, Dims::scalar(), &[value])?,
            Operand::Bool(value) => Array::scalar(DType::Bool, value.into())?,
        };
        Ok(Tensor::constant(array))
    }
}

/// A tensor from anything array-like; numbers get their default dtypes.
///
/// # Errors
/// Those of [`array::read`].
pub fn tensor(object: &Bound<'_, PyAny>) -> Result<Tensor> {
    match object.cast::<PyTensor>() {
        Ok(tensor) => Ok(tensor.get().live()?.clone()),
        Err(_) => Ok(Tensor::constant(array::read(object, None)?)),
    }
}

/// As [`tensor`], with numbers and lists in the given float dtype.
///
/// # Errors
/// Those of [`array::read`].
pub fn tensor_beside(object: &Bound<'_, PyAny>, dtype: DType) -> Result<Tensor> {
    if object.cast::<PyTensor>().is_ok() || array::is_numpy(object)? && !object.is_instance_of::<PyFloat>() {
        return tensor(object);
    }
    Ok(Tensor::constant(array::read(object, dtype.is_float().then_some(dtype))?))
}

/// Dimensions of a reduction: `None` is all of them.
///
/// # Errors
/// `TypeError` for anything but ints.
pub fn dims(dim: Option<&Bound<'_, PyAny>>) -> Result<Vec<isize>> {
    match dim {
        None => Ok(Vec::new()),
        Some(dim) => match dim.extract::<isize>() {
            Ok(one) => Ok(vec![one]),
            Err(_) => Ok(dim.extract()?),
        },
    }
}

/// Sizes that were given as ints or as one sequence.
///
/// # Errors
/// `TypeError` for anything but ints.
pub fn sizes(arguments: &Bound<'_, PyTuple>) -> Result<Vec<isize>> {
    if arguments.len() == 1
        && let first = arguments.get_item(0)?
        && first.extract::<isize>().is_err()
    {
        return Ok(first.extract()?);
    }
    Ok(arguments.extract()?)
}

/// A shape from sizes that must not be negative.
///
/// # Errors
/// `ShapeError`.
pub fn shape(op: &'static str, sizes: &[isize]) -> Result<Dims> {
    let dims: Option<Vec<usize>> = sizes.iter().map(|&size| usize::try_from(size).ok()).collect();
    match dims {
        Some(dims) => Ok(Dims::new(op, &dims)?),
        None => Err(raise(Kind::Shape, format!("{op}: expected sizes of at least 0, got {sizes:?}")).into()),
    }
}
