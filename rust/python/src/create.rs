//! Functions that make tensors from data, sizes and ranges.

use ferrograd_core::buffer::Array;
use ferrograd_core::dtype::{DType, Element};
use ferrograd_core::for_any;
use ferrograd_core::op::Distribution;
use ferrograd_core::shape::Dims;
use ferrograd_core::tensor::Tensor;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt, PyTuple};

use crate::argument;
use crate::dtype::{self, check_device};
use crate::error::{Kind, Result, enter, raise};
use crate::operand::{self, sizes};
use crate::random::{drawn, drawn_integers};
use crate::tensor::{PyTensor, construct};

/// A shape from ints or from one sequence.
///
/// # Errors
/// `ShapeError`.
pub fn size(op: &'static str, size: &Bound<'_, PyTuple>) -> Result<Dims> {
    operand::shape(op, &sizes("size", size)?)
}

/// A leaf on the CPU.
///
/// # Errors
/// `DeviceError`; `DTypeError` for a gradient of integers.
pub fn finish(array: Array, device: Option<&Bound<'_, PyAny>>, requires_grad: bool) -> Result<PyTensor> {
    check_device(device)?;
    let tensor = Tensor::constant(array);
    if requires_grad {
        tensor.set_requires_grad(true)?;
    }
    Ok(tensor.into())
}

/// A tensor with a copy of the data: numpy arrays and scalars keep their dtype, Python floats become
/// float32, ints int64.
///
/// Raises DTypeError for data that are not real numbers, ShapeError for ragged lists.
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> fg.tensor([[1.0, 2.0], [3.0, 4.0]])
/// tensor([[1., 2.],
///         [3., 4.]])
/// >>> fg.tensor([1, 2]).dtype, fg.tensor([1.0], requires_grad=True).requires_grad
/// (ferrograd.int64, True)
#[pyfunction]
#[pyo3(signature = (data, dtype = None, requires_grad = false, device = None))]
pub fn tensor(
    data: &Bound<'_, PyAny>,
    dtype: Option<&Bound<'_, PyAny>>,
    #[pyo3(from_py_with = argument::requires_grad)] requires_grad: bool,
    device: Option<&Bound<'_, PyAny>>,
) -> Result<PyTensor> {
    enter(|| {
        check_device(device)?;
        Ok(construct(data, dtype::parse_optional(dtype)?, requires_grad, true)?.into())
    })
}

/// What an operation was given as the argument of this name, as a tensor.
#[pyfunction]
#[pyo3(name = "operand")]
pub fn named_operand(name: &str, value: &Bound<'_, PyAny>) -> Result<PyTensor> {
    enter(|| Ok(crate::operand::tensor(name, value)?.into()))
}

macro_rules! filled {
    ($($(#[$doc:meta])* $name:ident = $value:expr),* $(,)?) => {
        $($(#[$doc])*
        #[pyfunction]
        #[pyo3(signature = (*size, dtype = None, device = None, requires_grad = false))]
        pub fn $name(
            size: &Bound<'_, PyTuple>,
            dtype: Option<&Bound<'_, PyAny>>,
            device: Option<&Bound<'_, PyAny>>,
            #[pyo3(from_py_with = argument::requires_grad)] requires_grad: bool,
        ) -> Result<PyTensor> {
            enter(|| {
                let shape = self::size(stringify!($name), size)?;
                let dtype = dtype::parse_optional(dtype)?.unwrap_or(DType::F32);
                finish(Array::full(dtype, shape, $value)?, device, requires_grad)
            })
        })*
    };
}
filled! {
    /// Zeros; the size as ints or as one sequence.
    ///
    /// Examples
    /// --------
    /// >>> import ferrograd as fg
    /// >>> fg.zeros(2, 3)
    /// tensor([[0., 0., 0.],
    ///         [0., 0., 0.]])
    /// >>> fg.zeros((2,), dtype=fg.int64)
    /// tensor([0, 0])
    zeros = 0.0,
    /// Ones; the size as ints or as one sequence.
    ///
    /// Examples
    /// --------
    /// >>> import ferrograd as fg
    /// >>> fg.ones(3)
    /// tensor([1., 1., 1.])
    ones = 1.0,
    /// As `zeros`: this library hands out no memory that was not set.
    ///
    /// Examples
    /// --------
    /// >>> import ferrograd as fg
    /// >>> fg.empty(2, 3).shape
    /// (2, 3)
    empty = 0.0,
}

macro_rules! filled_like {
    ($($(#[$doc:meta])* $name:ident = $value:expr),* $(,)?) => {
        $($(#[$doc])*
        #[pyfunction]
        #[pyo3(signature = (input, *, dtype = None, device = None, requires_grad = false))]
        pub fn $name(
            input: &Bound<'_, PyAny>,
            dtype: Option<&Bound<'_, PyAny>>,
            device: Option<&Bound<'_, PyAny>>,
            #[pyo3(from_py_with = argument::requires_grad)] requires_grad: bool,
        ) -> Result<PyTensor> {
            enter(|| {
                let (shape, dtype) = like(input, dtype)?;
                finish(Array::full(dtype, shape, $value)?, device, requires_grad)
            })
        })*
    };
}
filled_like! {
    /// Zeros with the shape and, by default, the dtype of `input`.
    ///
    /// Examples
    /// --------
    /// >>> import ferrograd as fg
    /// >>> fg.zeros_like(fg.tensor([1, 2]))
    /// tensor([0, 0])
    zeros_like = 0.0,
    /// Ones with the shape and, by default, the dtype of `input`.
    ///
    /// Examples
    /// --------
    /// >>> import ferrograd as fg
    /// >>> fg.ones_like(fg.tensor([1.5, 2.5]))
    /// tensor([1., 1.])
    ones_like = 1.0,
    /// As `zeros_like`: this library hands out no memory that was not set.
    ///
    /// Examples
    /// --------
    /// >>> import ferrograd as fg
    /// >>> fg.empty_like(fg.ones(2, 3)).shape
    /// (2, 3)
    empty_like = 0.0,
}

macro_rules! drawn_like {
    ($($(#[$doc:meta])* $name:ident = $distribution:ident),* $(,)?) => {
        $($(#[$doc])*
        #[pyfunction]
        #[pyo3(signature = (input, *, generator = None, dtype = None, device = None, requires_grad = false))]
        pub fn $name(
            input: &Bound<'_, PyAny>,
            generator: Option<&Bound<'_, PyAny>>,
            dtype: Option<&Bound<'_, PyAny>>,
            device: Option<&Bound<'_, PyAny>>,
            #[pyo3(from_py_with = argument::requires_grad)] requires_grad: bool,
        ) -> Result<PyTensor> {
            enter(|| {
                let (shape, dtype) = like(input, dtype)?;
                let distribution = Distribution::$distribution;
                drawn(stringify!($name), distribution, shape, generator, dtype, device, requires_grad)
            })
        })*
    };
}
drawn_like! {
    /// Numbers drawn uniformly from [0, 1), with the shape and, by default, the dtype of `input`.
    ///
    /// Raises DTypeError for a dtype of integers.
    ///
    /// Examples
    /// --------
    /// >>> import ferrograd as fg
    /// >>> x = fg.rand_like(fg.zeros(1000))
    /// >>> x.shape, bool(((x >= 0) & (x < 1)).all())
    /// ((1000,), True)
    rand_like = Uniform,
    /// Numbers drawn from the normal distribution with mean 0 and standard deviation 1, with the shape and, by
    /// default, the dtype of `input`.
    ///
    /// Raises DTypeError for a dtype of integers.
    ///
    /// Examples
    /// --------
    /// >>> import ferrograd as fg
    /// >>> x = fg.tensor([1.0, 2.0], dtype=fg.float64)
    /// >>> noise = fg.randn_like(x, generator=fg.Generator().manual_seed(0))
    /// >>> noise.shape, noise.dtype
    /// ((2,), ferrograd.float64)
    randn_like = Normal,
}

/// `randint_like(input, high)` or `randint_like(input, low, high)`: integers from `low` (default 0) to
/// `high - 1`, with the shape and, by default, the dtype of `input`.
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> bool((fg.randint_like(fg.zeros(100), 3, 6) - 3 < 3).all())
/// True
#[pyfunction]
#[pyo3(signature = (input, low, high = None, *, generator = None, dtype = None, device = None, requires_grad = false))]
pub fn randint_like(
    input: &Bound<'_, PyAny>,
    #[pyo3(from_py_with = argument::low)] low: i64,
    high: Option<&Bound<'_, PyAny>>,
    generator: Option<&Bound<'_, PyAny>>,
    dtype: Option<&Bound<'_, PyAny>>,
    device: Option<&Bound<'_, PyAny>>,
    #[pyo3(from_py_with = argument::requires_grad)] requires_grad: bool,
) -> Result<PyTensor> {
    enter(|| {
        let range = match high {
            Some(high) => (low, argument::high(high)?),
            None => (0, low),
        };
        let (shape, dtype) = like(input, dtype)?;
        drawn_integers("randint_like", range, shape, generator, dtype, device, requires_grad)
    })
}

/// The shape of `input`, and the given dtype or its own.
fn like(input: &Bound<'_, PyAny>, dtype: Option<&Bound<'_, PyAny>>) -> Result<(Dims, DType)> {
    let input = operand::tensor("input", input)?;
    Ok((*input.shape(), dtype::parse_optional(dtype)?.unwrap_or(input.dtype())))
}

/// One value everywhere; a float gives float32, an int int64, a bool bool.
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> fg.full((2,), 7)
/// tensor([7, 7])
/// >>> fg.full((2,), 0.5)
/// tensor([0.5000, 0.5000])
#[pyfunction]
#[pyo3(signature = (size, fill_value, *, dtype = None, device = None, requires_grad = false))]
pub fn full(
    #[pyo3(from_py_with = argument::size)] size: Vec<isize>,
    fill_value: &Bound<'_, PyAny>,
    dtype: Option<&Bound<'_, PyAny>>,
    device: Option<&Bound<'_, PyAny>>,
    #[pyo3(from_py_with = argument::requires_grad)] requires_grad: bool,
) -> Result<PyTensor> {
    enter(|| {
        let dtype = dtype::parse_optional(dtype)?;
        filled(fill_value, dtype, &operand::shape("full", &size)?, device, requires_grad)
    })
}

/// One value everywhere, with the shape and, by default, the dtype of `input`.
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> fg.full_like(fg.tensor([1.0, 2.0]), 7)
/// tensor([7., 7.])
#[pyfunction]
#[pyo3(signature = (input, fill_value, *, dtype = None, device = None, requires_grad = false))]
pub fn full_like(
    input: &Bound<'_, PyAny>,
    fill_value: &Bound<'_, PyAny>,
    dtype: Option<&Bound<'_, PyAny>>,
    device: Option<&Bound<'_, PyAny>>,
    #[pyo3(from_py_with = argument::requires_grad)] requires_grad: bool,
) -> Result<PyTensor> {
    enter(|| {
        let (shape, dtype) = like(input, dtype)?;
        filled(fill_value, Some(dtype), &shape, device, requires_grad)
    })
}

fn filled(
    fill_value: &Bound<'_, PyAny>,
    dtype: Option<DType>,
    shape: &Dims,
    device: Option<&Bound<'_, PyAny>>,
    requires_grad: bool,
) -> Result<PyTensor> {
    let filled = construct(fill_value, dtype, false, false)?.broadcast_to(shape)?.copied()?;
    finish(filled.array().clone(), device, requires_grad)
}

fn is_whole(value: &Bound<'_, PyAny>) -> bool {
    value.is_instance_of::<PyInt>() && !value.is_instance_of::<PyBool>()
}

/// `arange(end)` or `arange(start, end, step=1)`: start, start + step, ... below end. Ints give int64,
/// anything else float32.
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> fg.arange(3)
/// tensor([0, 1, 2])
/// >>> fg.arange(1.0, 2.0, 0.25)
/// tensor([1.0000, 1.2500, 1.5000, 1.7500])
#[pyfunction]
#[pyo3(signature = (start, end = None, step = None, *, dtype = None, device = None, requires_grad = false),
       text_signature = "(start, end=None, step=1, *, dtype=None, device=None, requires_grad=False)")]
pub fn arange(
    start: &Bound<'_, PyAny>,
    end: Option<&Bound<'_, PyAny>>,
    step: Option<&Bound<'_, PyAny>>,
    dtype: Option<&Bound<'_, PyAny>>,
    device: Option<&Bound<'_, PyAny>>,
    #[pyo3(from_py_with = argument::requires_grad)] requires_grad: bool,
) -> Result<PyTensor> {
    enter(|| {
        let given = [Some(start), end, step];
        let default = if given.into_iter().flatten().all(is_whole) { DType::I64 } else { DType::F32 };
        let dtype = dtype::parse_optional(dtype)?.unwrap_or(default);
        let (start, end): (f64, f64) = match end {
            Some(end) => (argument::start(start)?, argument::end(end)?),
            None => (0.0, argument::end(start)?),
        };
        let step = step.map_or(Ok(1.0), argument::step)?;
        let count = ((end - start) / step).ceil();
        if step == 0.0 || !count.is_finite() || count > (1u64 << 48) as f64 {
            let text = format!(
                "arange: expected a finite range and a step that is not 0, got {start} to {end} by {step}"
            );
            return Err(raise(Kind::Config, text).into());
        }
        let array = Array::zeros(dtype, Dims::from_slice(&[count.max(0.0) as usize]))?;
        for_any!(dtype, T => {
            for (i, value) in array.write::<T>().iter_mut().enumerate() {
                *value = T::from_f64(start + i as f64 * step);
            }
        });
        finish(array, device, requires_grad)
    })
}

/// `steps` numbers from `start` to `end`, both included, evenly spaced.
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> fg.linspace(0.0, 1.0, 5)
/// tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
#[pyfunction]
#[pyo3(signature = (start, end, steps, *, dtype = None, device = None, requires_grad = false))]
pub fn linspace(
    #[pyo3(from_py_with = argument::start)] start: f64,
    #[pyo3(from_py_with = argument::end)] end: f64,
    #[pyo3(from_py_with = argument::steps)] steps: isize,
    dtype: Option<&Bound<'_, PyAny>>,
    device: Option<&Bound<'_, PyAny>>,
    #[pyo3(from_py_with = argument::requires_grad)] requires_grad: bool,
) -> Result<PyTensor> {
    enter(|| {
        let dtype = dtype::parse_optional(dtype)?.unwrap_or(DType::F32);
        let array = Array::zeros(dtype, operand::shape("linspace", &[steps])?)?;
        let gaps = (steps - 1).max(1) as f64;
        for_any!(dtype, T => {
            for (i, value) in array.write::<T>().iter_mut().enumerate() {
                // Weighing both ends meets both exactly.
                let share = i as f64 / gaps;
                *value = T::from_f64(start * (1.0 - share) + end * share);
            }
        });
        finish(array, device, requires_grad)
    })
}

/// Ones on the diagonal of an (n, m) matrix, zeros elsewhere.
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> fg.eye(2, 3)
/// tensor([[1., 0., 0.],
///         [0., 1., 0.]])
#[pyfunction]
#[pyo3(signature = (n, m = None, *, dtype = None, device = None, requires_grad = false))]
pub fn eye(
    #[pyo3(from_py_with = argument::n)] n: isize,
    #[pyo3(from_py_with = argument::m)] m: Option<isize>,
    dtype: Option<&Bound<'_, PyAny>>,
    device: Option<&Bound<'_, PyAny>>,
    #[pyo3(from_py_with = argument::requires_grad)] requires_grad: bool,
) -> Result<PyTensor> {
    enter(|| {
        let dtype = dtype::parse_optional(dtype)?.unwrap_or(DType::F32);
        let shape = operand::shape("eye", &[n, m.unwrap_or(n)])?;
        let array = Array::zeros(dtype, shape)?;
        for_any!(dtype, T => {
            let mut values = array.write::<T>();
            for i in 0..shape[0].min(shape[1]) {
                values[i * shape[1] + i] = T::from_f64(1.0);
            }
        });
        finish(array, device, requires_grad)
    })
}
