//! What the other operand of an op may be: a tensor, an array, or a Python number, which is weak.

use ferrograd_core::buffer::Array;
use ferrograd_core::dtype::DType;
use ferrograd_core::shape::{Dims, MAX_RANK};
use ferrograd_core::tensor::Tensor;
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyTuple};
use smallvec::{SmallVec, smallvec};

use crate::argument;
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
    /// Reads the operand of this name.
    ///
    /// # Errors
    /// Those of [`array::read`].
    #[inline]
    pub fn of(name: &str, object: &Bound<'_, PyAny>) -> Result<Operand> {
        match Operand::simple(object)? {
            Some(operand) => Ok(operand),
            None => Operand::array(name, object),
        }
    }

    /// As [`Operand::of`] for an operator: `None` for what is left to the other operand's class.
    ///
    /// # Errors
    /// Those of [`array::read`].
    #[inline]
    pub fn of_operator(name: &str, object: &Bound<'_, PyAny>) -> Result<Option<Operand>> {
        match Operand::simple(object)? {
            None if array::is_operand(object)? => Operand::array(name, object).map(Some),
            operand => Ok(operand),
        }
    }

    /// A tensor or a Python number.
    #[inline]
    fn simple(object: &Bound<'_, PyAny>) -> Result<Option<Operand>> {
        Ok(Some(if let Ok(tensor) = object.cast::<PyTensor>() {
            Operand::Tensor(tensor.get().live()?.clone())
        } else if object.is_instance_of::<PyFloat>() {
            Operand::Float(object.extract()?)
        } else if object.is_exact_instance_of::<PyBool>() {
            Operand::Bool(object.is_truthy()?)
        } else if object.is_instance_of::<PyInt>() {
            match object.extract::<i64>() {
                Ok(value) => Operand::Int(value),
                Err(_) => Operand::Float(object.extract()?),
            }
        } else {
            return Ok(None);
        }))
    }

    fn array(name: &str, object: &Bound<'_, PyAny>) -> Result<Operand> {
        Ok(Operand::Tensor(Tensor::constant(array::read(name, object, None)?)))
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
pub fn tensor(name: &str, object: &Bound<'_, PyAny>) -> Result<Tensor> {
    match object.cast::<PyTensor>() {
        Ok(tensor) => Ok(tensor.get().live()?.clone()),
        Err(_) => Ok(Tensor::constant(array::read(name, object, None)?)),
    }
}

/// As [`tensor`], with numbers and lists in the given float dtype.
///
/// # Errors
/// Those of [`array::read`].
pub fn tensor_beside(name: &str, object: &Bound<'_, PyAny>, dtype: DType) -> Result<Tensor> {
    if object.cast::<PyTensor>().is_ok() || array::is_numpy(object)? && !object.is_instance_of::<PyFloat>() {
        return tensor(name, object);
    }
    Ok(Tensor::constant(array::read(name, object, dtype.is_float().then_some(dtype))?))
}

/// Dimensions of a reduction: `None` is all of them.
///
/// # Errors
/// Those of [`integers`].
pub fn dims(name: &str, dim: Option<&Bound<'_, PyAny>>) -> Result<Sizes> {
    match dim {
        None => Ok(Sizes::new()),
        Some(dim) => integers(name, dim),
    }
}

/// Sizes or dimensions, on the stack.
pub type Sizes = SmallVec<[isize; MAX_RANK]>;

/// One int, or a sequence of them, of the argument of this name.
///
/// # Errors
/// `DTypeError` for anything else, `ConfigError` for an integer out of range.
pub fn integers(name: &str, object: &Bound<'_, PyAny>) -> Result<Sizes> {
    let read = match object.cast::<PyTuple>() {
        Ok(tuple) => tuple.iter().map(|size| size.extract()).collect(),
        Err(_) => match object.extract::<isize>() {
            Ok(one) => Ok(smallvec![one]),
            // An integer, but too large a one.
            Err(error) if error.is_instance_of::<PyOverflowError>(object.py()) => Err(error),
            Err(_) => object.extract::<Vec<isize>>().map(Sizes::from),
        },
    };
    Ok(read.map_err(|error| argument::refused_integers(name, object, &error))?)
}

/// Sizes that were given as ints or as one sequence.
///
/// # Errors
/// Those of [`integers`].
pub fn sizes(name: &str, arguments: &Bound<'_, PyTuple>) -> Result<Sizes> {
    if arguments.len() == 1 {
        integers(name, &arguments.get_item(0)?)
    } else {
        integers(name, arguments.as_any())
    }
}

/// A shape from sizes that must not be negative.
///
/// # Errors
/// `ShapeError`.
pub fn shape(op: &'static str, sizes: &[isize]) -> Result<Dims> {
    let dims: Option<SmallVec<[usize; MAX_RANK]>> =
        sizes.iter().map(|&size| usize::try_from(size).ok()).collect();
    match dims {
        Some(dims) => Ok(Dims::new(op, &dims)?),
        None => Err(raise(Kind::Shape, format!("{op}: expected sizes of at least 0, got {sizes:?}")).into()),
    }
}
