//! Random numbers: the class `Generator`, and tensors drawn from one.

use ferrograd_core::buffer::Array;
use ferrograd_core::dtype::DType;
use ferrograd_core::op::{DEFAULT_GENERATOR, Distribution, Draw, Generator};
use ferrograd_core::shape::Dims;
use ferrograd_core::tensor::Tensor;
use ferrograd_core::vmap::{self, Randomness};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::argument;
use crate::create::{finish, size};
use crate::dtype;
use crate::error::{Kind, Result, enter, raise};
use crate::operand;
use crate::tensor::PyTensor;

/// A stream of random numbers: what the n-th draw gives depends on the seed and on n alone.
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> first, second = fg.Generator().manual_seed(3), fg.Generator().manual_seed(3)
/// >>> bool((fg.rand(4, generator=first) == fg.rand(4, generator=second)).all())
/// True
#[pyclass(name = "Generator", module = "ferrograd", frozen)]
pub struct PyGenerator(Option<Generator>);

impl PyGenerator {
    fn own(&self) -> &Generator {
        self.0.as_ref().unwrap_or(&DEFAULT_GENERATOR)
    }
}

/// The given generator, or the one of `manual_seed`, to draw from.
///
/// # Errors
/// `DTypeError` where it is something else, `GraphError` where nothing may be drawn.
pub fn generator<'a>(given: Option<&'a Bound<'_, PyAny>>) -> Result<&'a Generator> {
    vmap::check_randomness()?;
    let Some(object) = given else { return Ok(&DEFAULT_GENERATOR) };
    match object.cast::<PyGenerator>() {
        Ok(generator) => Ok(generator.get().own()),
        Err(error) => {
            Err(argument::refused("generator", "a Generator or None", object, &error.into()).into())
        }
    }
}

/// As [`generator`], for numbers that are drawn once.
///
/// # Errors
/// Those of [`generator`]; `GraphError` where each example needs numbers of its own.
pub fn single_source<'a>(name: &str, given: Option<&'a Bound<'_, PyAny>>) -> Result<&'a Generator> {
    if vmap::randomness() == Some(Randomness::Different) {
        let text = format!(
            "vmap: {name} draws numbers once, for all examples; with randomness='different' use rand or randn \
             without requires_grad, or draw them outside"
        );
        return Err(raise(Kind::Graph, text).into());
    }
    generator(given)
}

/// Uniform or normal numbers: a plan keeps them, `vmap` may draw them for each example.
///
/// # Errors
/// Those of [`single_source`] and [`finish`]; `DTypeError` for integers. Nothing is drawn then.
pub fn drawn(
    name: &str,
    distribution: Distribution,
    shape: Dims,
    generator: Option<&Bound<'_, PyAny>>,
    dtype: DType,
    device: Option<&Bound<'_, PyAny>>,
    requires_grad: bool,
) -> Result<PyTensor> {
    dtype::check_device(device)?;
    if vmap::randomness() == Some(Randomness::Different) && !requires_grad {
        return Ok(Draw::tensor(distribution, dtype, shape, self::generator(generator)?)?.into());
    }
    let source = single_source(name, generator)?;
    let array = match distribution {
        Distribution::Uniform => source.uniform(dtype, shape, 0.0, 1.0)?,
        _ => source.normal(dtype, shape, 0.0, 1.0)?,
    };
    finish(array, device, requires_grad)
}

fn parse_seed(seed: &Bound<'_, PyAny>) -> Result<u64> {
    seed.extract::<u64>().or_else(|_| {
        let text = format!("seed: expected an integer from 0 to 2**64 - 1, got {}", seed.repr()?);
        Err(raise(Kind::Config, text).into())
    })
}

/// Bytes of a state: key, then draws, each with its lowest byte first.
const STATE: usize = 16;

fn state_of(generator: &Generator) -> Result<PyTensor> {
    let bytes: Vec<u8> = generator.state().into_iter().flat_map(u64::to_le_bytes).collect();
    Ok(Tensor::constant(Array::from_slice(DType::U8, Dims::new("get_state", &[STATE])?, &bytes)?).into())
}

fn set_state_of(generator: &Generator, new_state: &Bound<'_, PyAny>) -> Result<()> {
    let tensor = operand::tensor("new_state", new_state)?;
    if tensor.dtype() != DType::U8 {
        let text = format!("new_state: expected the bytes (uint8) of get_state, got {}", tensor.dtype());
        return Err(raise(Kind::DType, text).into());
    }
    if **tensor.shape() != [STATE] {
        let text =
            format!("new_state: expected the {STATE} bytes of get_state, got shape {}", tensor.shape());
        return Err(raise(Kind::Shape, text).into());
    }
    let bytes = tensor.to_vec::<u8>();
    let [key, draws] = [0, 8].map(|i| u64::from_le_bytes(std::array::from_fn(|j| bytes[i + j])));
    generator.set_state([key, draws]);
    Ok(())
}

#[pymethods]
impl PyGenerator {
    #[new]
    fn new() -> PyGenerator {
        PyGenerator(Some(Generator::new(0)))
    }

    /// Starts again from `seed`; returns the generator.
    fn manual_seed<'py>(slf: Bound<'py, Self>, seed: &Bound<'py, PyAny>) -> Result<Bound<'py, Self>> {
        enter(|| {
            slf.get().own().manual_seed(parse_seed(seed)?);
            Ok(())
        })?;
        Ok(slf)
    }

    /// All that its next draws depend on, 16 bytes (uint8): the seed and the number of draws so far.
    ///
    /// Examples
    /// --------
    /// >>> import ferrograd as fg
    /// >>> generator = fg.Generator().manual_seed(3)
    /// >>> state = generator.get_state()
    /// >>> first = fg.rand(4, generator=generator)
    /// >>> generator.set_state(state)
    /// >>> bool((fg.rand(4, generator=generator) == first).all())
    /// True
    fn get_state(&self) -> Result<PyTensor> {
        enter(|| state_of(self.own()))
    }

    /// Goes on from a state that `get_state` returned.
    ///
    /// Raises DTypeError or ShapeError for what is no such state; the generator then stays as it is.
    fn set_state(&self, new_state: &Bound<'_, PyAny>) -> Result<()> {
        enter(|| set_state_of(self.own(), new_state))
    }

    /// The seed it was started from.
    #[getter]
    fn seed(&self) -> u64 {
        self.own().seed()
    }
}

/// Starts the generator that everything without one of its own draws from; returns it.
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> _ = fg.manual_seed(5)
/// >>> before = fg.rand(3)
/// >>> _ = fg.manual_seed(5)
/// >>> before.tolist() == fg.rand(3).tolist()
/// True
#[pyfunction]
pub fn manual_seed(seed: &Bound<'_, PyAny>) -> Result<PyGenerator> {
    enter(|| {
        DEFAULT_GENERATOR.manual_seed(parse_seed(seed)?);
        Ok(PyGenerator(None))
    })
}

/// The state of the generator that everything without one of its own draws from: 16 bytes (uint8).
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> state = fg.get_rng_state()
/// >>> first = fg.rand(3)
/// >>> fg.set_rng_state(state)
/// >>> first.tolist() == fg.rand(3).tolist()
/// True
#[pyfunction]
pub fn get_rng_state() -> Result<PyTensor> {
    enter(|| state_of(&DEFAULT_GENERATOR))
}

/// Puts the generator that everything without one of its own draws from into a state of `get_rng_state`.
///
/// Raises DTypeError or ShapeError for what is no such state; the generator then stays as it is.
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> fg.set_rng_state(fg.Generator().manual_seed(5).get_state())
/// >>> fg.rand(1).item() == fg.rand(1, generator=fg.Generator().manual_seed(5)).item()
/// True
#[pyfunction]
pub fn set_rng_state(new_state: &Bound<'_, PyAny>) -> Result<()> {
    enter(|| set_state_of(&DEFAULT_GENERATOR, new_state))
}

/// Numbers drawn uniformly from [0, 1).
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> x = fg.rand(1000)
/// >>> bool((x >= 0).all()), bool((x < 1).all())
/// (True, True)
#[pyfunction]
#[pyo3(signature = (*size, generator = None, dtype = None, device = None, requires_grad = false))]
pub fn rand(
    size: &Bound<'_, PyTuple>,
    generator: Option<&Bound<'_, PyAny>>,
    dtype: Option<&Bound<'_, PyAny>>,
    device: Option<&Bound<'_, PyAny>>,
    #[pyo3(from_py_with = argument::requires_grad)] requires_grad: bool,
) -> Result<PyTensor> {
    enter(|| {
        let dtype = dtype::parse_optional(dtype)?.unwrap_or(DType::F32);
        drawn(
            "rand",
            Distribution::Uniform,
            self::size("rand", size)?,
            generator,
            dtype,
            device,
            requires_grad,
        )
    })
}

/// Numbers drawn from the normal distribution with mean 0 and standard deviation 1.
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> fg.randn(2, 3).shape
/// (2, 3)
#[pyfunction]
#[pyo3(signature = (*size, generator = None, dtype = None, device = None, requires_grad = false))]
pub fn randn(
    size: &Bound<'_, PyTuple>,
    generator: Option<&Bound<'_, PyAny>>,
    dtype: Option<&Bound<'_, PyAny>>,
    device: Option<&Bound<'_, PyAny>>,
    #[pyo3(from_py_with = argument::requires_grad)] requires_grad: bool,
) -> Result<PyTensor> {
    enter(|| {
        let dtype = dtype::parse_optional(dtype)?.unwrap_or(DType::F32);
        drawn(
            "randn",
            Distribution::Normal,
            self::size("randn", size)?,
            generator,
            dtype,
            device,
            requires_grad,
        )
    })
}

/// `randint(high, size)` or `randint(low, high, size)`: integers from `low` (default 0) to `high - 1`.
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> bool((fg.randint(3, 6, (100,)) - 3 < 3).all())
/// True
#[pyfunction]
#[pyo3(signature = (low, high, size = None, *, generator = None, dtype = None, device = None, requires_grad = false))]
pub fn randint(
    #[pyo3(from_py_with = argument::low)] low: i64,
    high: &Bound<'_, PyAny>,
    #[pyo3(from_py_with = argument::size)] size: Option<Vec<isize>>,
    generator: Option<&Bound<'_, PyAny>>,
    dtype: Option<&Bound<'_, PyAny>>,
    device: Option<&Bound<'_, PyAny>>,
    #[pyo3(from_py_with = argument::requires_grad)] requires_grad: bool,
) -> Result<PyTensor> {
    enter(|| {
        let (low, high, size) = match size {
            Some(size) => (low, argument::high(high)?, size),
            None => (0, low, argument::size(high)?),
        };
        let (shape, dtype) = (operand::shape("randint", &size)?, dtype::parse_optional(dtype)?);
        let dtype = dtype.unwrap_or(DType::I64);
        drawn_integers("randint", (low, high), shape, generator, dtype, device, requires_grad)
    })
}

/// Integers from the first of `range` to below the second.
///
/// # Errors
/// Those of [`single_source`] and [`finish`]; `ConfigError` for an empty range. Nothing is drawn then.
pub fn drawn_integers(
    name: &str,
    range: (i64, i64),
    shape: Dims,
    generator: Option<&Bound<'_, PyAny>>,
    dtype: DType,
    device: Option<&Bound<'_, PyAny>>,
    requires_grad: bool,
) -> Result<PyTensor> {
    // What would be refused is, before anything is drawn.
    finish(Array::zeros(dtype, Dims::from_slice(&[0]))?, device, requires_grad)?;
    let values = single_source(name, generator)?.integers(shape, range.0, range.1)?;
    finish(Tensor::constant(values).cast(dtype)?.array().clone(), device, requires_grad)
}

/// 0 with probability `p`, else 1 / (1 - p). A plan draws it anew at each step.
#[pyfunction]
#[pyo3(signature = (shape, p, dtype, generator = None))]
pub fn dropout_mask(
    #[pyo3(from_py_with = argument::shape)] shape: Vec<isize>,
    #[pyo3(from_py_with = argument::p)] p: f64,
    dtype: &Bound<'_, PyAny>,
    generator: Option<&Bound<'_, PyAny>>,
) -> Result<PyTensor> {
    enter(|| {
        let shape = operand::shape("dropout_mask", &shape)?;
        let mask = Distribution::DropoutMask(p);
        Ok(Draw::tensor(mask, dtype::parse(dtype)?, shape, self::generator(generator)?)?.into())
    })
}

/// Uniform numbers in [0, 1), or normal ones. A plan draws them anew at each step; `rand` and `randn` do not.
#[pyfunction]
#[pyo3(signature = (shape, normal, dtype, generator = None))]
pub fn noise(
    #[pyo3(from_py_with = argument::shape)] shape: Vec<isize>,
    #[pyo3(from_py_with = argument::normal)] normal: bool,
    dtype: &Bound<'_, PyAny>,
    generator: Option<&Bound<'_, PyAny>>,
) -> Result<PyTensor> {
    enter(|| {
        let shape = operand::shape("noise", &shape)?;
        let kind = if normal { Distribution::Normal } else { Distribution::Uniform };
        Ok(Draw::tensor(kind, dtype::parse(dtype)?, shape, self::generator(generator)?)?.into())
    })
}
