//! Reductions, products and normalising activations of `Tensor`.

use ferrograd_core::op::{Binary, Compare};
use ferrograd_core::shape::Dims;
use ferrograd_core::tensor::Tensor;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::argument;
use crate::array;
use crate::error::{Kind, Result, enter, raise};
use crate::operand::{self, dims, integers};
use crate::tensor::PyTensor;
use crate::tensor_arithmetic::long;

static VALUES_INDICES: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// The named tuple that `max` and `min` along a dimension return.
///
/// # Errors
/// Python's.
pub fn values_indices(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    let class = VALUES_INDICES.get_or_try_init(py, || {
        let make = py.import("collections")?.getattr("namedtuple")?;
        let class = make.call1(("ValuesIndices", ("values", "indices")))?;
        class.setattr("__module__", "ferrograd._core")?;
        class.setattr("__doc__", "The extreme values along a dimension, and where they stand.")?;
        PyResult::Ok(class.cast_into::<PyType>()?.unbind())
    })?;
    Ok(class.bind(py))
}

macro_rules! reductions {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        #[pymethods]
        impl PyTensor {
            $(
                $(#[$doc])*
                ///
                /// `dim` is an int, several ints or None for all; `keepdim` leaves them as 1.
                #[pyo3(signature = (dim = None, keepdim = false))]
                fn $name(&self, py: Python<'_>, dim: Option<&Bound<'_, PyAny>>, #[pyo3(from_py_with = argument::keepdim)] keepdim: bool) -> Result<PyTensor> {
                    enter(|| {
                        let (x, dims) = (self.live()?, dims("dim", dim)?);
                        Ok(long(py, x.shape().elements(), || x.$name(&dims, keepdim))?.into())
                    })
                }
            )*
        }
    };
}
reductions! {
    /// Sum over dimensions; derivative 1. Integers and bools are added up as int64.
    sum,
    /// Mean over dimensions; derivative 1/n. Raises DTypeError for integers.
    mean,
    /// Largest element; the gradient is shared evenly by the winners. NaN wins.
    amax,
    /// Smallest element; the gradient is shared evenly by the winners. NaN wins.
    amin,
    /// Whether any element is true.
    any,
    /// Whether all elements are true.
    all,
}

fn extreme<'py>(
    x: &Tensor,
    py: Python<'py>,
    max: bool,
    dim: Option<isize>,
    keepdim: bool,
) -> Result<Bound<'py, PyAny>> {
    match dim {
        None => {
            let value = if max { x.amax(&[], keepdim)? } else { x.amin(&[], keepdim)? };
            Ok(Bound::new(py, PyTensor::from(value))?.into_any())
        }
        Some(dim) => {
            let (values, indices) = x.extreme_along(max, dim, keepdim)?;
            Ok(values_indices(py)?.call1((PyTensor::from(values), PyTensor::from(indices)))?)
        }
    }
}

/// Whether a tensor has this many dimensions.
///
/// # Errors
/// `ShapeError`.
pub fn check_rank(op: &str, tensor: &Tensor, rank: usize) -> Result<()> {
    if tensor.shape().rank() == rank {
        return Ok(());
    }
    let text = format!("{op}: expected {rank} dimensions, got shape {}", tensor.shape());
    Err(raise(Kind::Shape, text).into())
}

/// The matrix product.
///
/// # Errors
/// `ShapeError`.
pub fn product(py: Python<'_>, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    long(py, a.shape().elements().max(b.shape().elements()), || a.matmul(b))
}

#[pymethods]
impl PyTensor {
    /// The largest element or, with `dim`, the largest ones along it with their positions
    /// (`values`, `indices`). Without `dim` the gradient is shared by the winners, with it it goes to
    /// the position alone.
    #[pyo3(signature = (dim = None, keepdim = false))]
    fn max<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = argument::dim)] dim: Option<isize>,
        #[pyo3(from_py_with = argument::keepdim)] keepdim: bool,
    ) -> Result<Bound<'py, PyAny>> {
        enter(|| extreme(self.live()?, py, true, dim, keepdim))
    }

    /// The smallest element or, with `dim`, the smallest ones along it with their positions. See `max`.
    #[pyo3(signature = (dim = None, keepdim = false))]
    fn min<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = argument::dim)] dim: Option<isize>,
        #[pyo3(from_py_with = argument::keepdim)] keepdim: bool,
    ) -> Result<Bound<'py, PyAny>> {
        enter(|| extreme(self.live()?, py, false, dim, keepdim))
    }

    /// Position of the first largest element, in row-major order or along `dim`.
    #[pyo3(signature = (dim = None, keepdim = false))]
    fn argmax(
        &self,
        #[pyo3(from_py_with = argument::dim)] dim: Option<isize>,
        #[pyo3(from_py_with = argument::keepdim)] keepdim: bool,
    ) -> Result<PyTensor> {
        enter(|| Ok(self.live()?.arg(true, dim, keepdim)?.into()))
    }

    /// Position of the first smallest element, in row-major order or along `dim`.
    #[pyo3(signature = (dim = None, keepdim = false))]
    fn argmin(
        &self,
        #[pyo3(from_py_with = argument::dim)] dim: Option<isize>,
        #[pyo3(from_py_with = argument::keepdim)] keepdim: bool,
    ) -> Result<PyTensor> {
        enter(|| Ok(self.live()?.arg(false, dim, keepdim)?.into()))
    }

    /// sum (x - mean)^2 / (n - correction); `correction` (default 1, or 0 where not `unbiased`) is
    /// Bessel's.
    #[pyo3(signature = (dim = None, unbiased = true, keepdim = false, *, correction = None))]
    fn var(
        &self,
        py: Python<'_>,
        dim: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = argument::unbiased)] unbiased: bool,
        #[pyo3(from_py_with = argument::keepdim)] keepdim: bool,
        #[pyo3(from_py_with = argument::correction)] correction: Option<f64>,
    ) -> Result<PyTensor> {
        enter(|| {
            let (x, dims) = (self.live()?, dims("dim", dim)?);
            let correction = correction.unwrap_or(if unbiased { 1.0 } else { 0.0 });
            Ok(long(py, x.shape().elements(), || x.var(&dims, correction, keepdim))?.into())
        })
    }

    /// The root of `var`; derivative (x - mean) / ((n - correction) std), 0 where all elements are equal.
    #[pyo3(signature = (dim = None, unbiased = true, keepdim = false, *, correction = None))]
    fn std(
        &self,
        py: Python<'_>,
        dim: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = argument::unbiased)] unbiased: bool,
        #[pyo3(from_py_with = argument::keepdim)] keepdim: bool,
        #[pyo3(from_py_with = argument::correction)] correction: Option<f64>,
    ) -> Result<PyTensor> {
        enter(|| {
            let (x, dims) = (self.live()?, dims("dim", dim)?);
            let correction = correction.unwrap_or(if unbiased { 1.0 } else { 0.0 });
            Ok(long(py, x.shape().elements(), || x.std(&dims, correction, keepdim))?.into())
        })
    }

    /// Product over `dim`, or of all; derivative the product of the others, zeros or not. Integers and bools
    /// give int64.
    #[pyo3(signature = (dim = None, keepdim = false))]
    fn prod(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::dim)] dim: Option<isize>,
        #[pyo3(from_py_with = argument::keepdim)] keepdim: bool,
    ) -> Result<PyTensor> {
        enter(|| {
            let x = self.live()?;
            Ok(long(py, x.shape().elements(), || x.prod(dim, keepdim))?.into())
        })
    }

    /// (sum |x|^p)^(1/p) over `dim`, or of all; `p` is a number, infinite ones too, or "fro", which is 2.
    #[pyo3(signature = (p = None, dim = None, keepdim = false), text_signature = "($self, p='fro', dim=None, keepdim=False)")]
    fn norm(
        &self,
        py: Python<'_>,
        p: Option<&Bound<'_, PyAny>>,
        dim: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = argument::keepdim)] keepdim: bool,
    ) -> Result<PyTensor> {
        enter(|| {
            let p = match p {
                None => 2.0,
                Some(p) if p.extract::<&str>().is_ok_and(|name| name == "fro") => 2.0,
                Some(p) => p.extract::<f64>().map_err(|_| {
                    raise(Kind::Config, format!("norm: p must be a number or 'fro', got {p:?}"))
                })?,
            };
            let (x, dims) = (self.live()?, dims("dim", dim)?);
            Ok(long(py, x.shape().elements(), || x.norm(p, &dims, keepdim))?.into())
        })
    }

    /// log sum e^x over dimensions, without overflow; derivative softmax(x).
    #[pyo3(signature = (dim, keepdim = false))]
    fn logsumexp(
        &self,
        py: Python<'_>,
        dim: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = argument::keepdim)] keepdim: bool,
    ) -> Result<PyTensor> {
        enter(|| {
            let (x, dims) = (self.live()?, integers("dim", dim)?);
            Ok(long(py, x.shape().elements(), || x.logsumexp(&dims, keepdim))?.into())
        })
    }

    /// e^x / sum e^x along `dim`; derivative y_i (delta_ij - y_j).
    fn softmax(&self, py: Python<'_>, #[pyo3(from_py_with = argument::dim)] dim: isize) -> Result<PyTensor> {
        enter(|| {
            let x = self.live()?;
            Ok(long(py, x.shape().elements(), || x.softmax(dim))?.into())
        })
    }

    /// log softmax along `dim`, without overflow; derivative delta_ij - softmax_j.
    fn log_softmax(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::dim)] dim: isize,
    ) -> Result<PyTensor> {
        enter(|| {
            let x = self.live()?;
            Ok(long(py, x.shape().elements(), || x.log_softmax(dim))?.into())
        })
    }

    /// The matrix product: a vector on the left is a row, on the right a column; leading dimensions are
    /// batches and broadcast. For C = A B: dA = dC B^T, dB = A^T dC.
    ///
    /// Raises ShapeError where inner dimensions differ.
    fn matmul(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> Result<PyTensor> {
        enter(|| Ok(product(py, self.live()?, &operand::tensor("other", other)?)?.into()))
    }

    fn __matmul__(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
        enter(|| {
            if !array::is_operand(other)? {
                return Ok(py.NotImplemented());
            }
            Ok(Py::new(py, PyTensor::from(product(py, self.live()?, &operand::tensor("other", other)?)?))?
                .into_any())
        })
    }

    fn __rmatmul__(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
        enter(|| {
            if !array::is_operand(other)? {
                return Ok(py.NotImplemented());
            }
            Ok(Py::new(py, PyTensor::from(product(py, &operand::tensor("other", other)?, self.live()?)?))?
                .into_any())
        })
    }

    /// The inner product of two vectors.
    fn dot(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> Result<PyTensor> {
        enter(|| {
            let (a, b) = (self.live()?, operand::tensor("other", other)?);
            check_rank("dot", a, 1)?;
            check_rank("dot", &b, 1)?;
            Ok(product(py, a, &b)?.into())
        })
    }

    /// The product of two matrices, (m, k) and (k, n).
    fn mm(&self, py: Python<'_>, mat2: &Bound<'_, PyAny>) -> Result<PyTensor> {
        enter(|| {
            let (a, b) = (self.live()?, operand::tensor("mat2", mat2)?);
            check_rank("mm", a, 2)?;
            check_rank("mm", &b, 2)?;
            Ok(product(py, a, &b)?.into())
        })
    }

    /// The product of a matrix and a vector, (m, k) and (k,).
    fn mv(&self, py: Python<'_>, vec: &Bound<'_, PyAny>) -> Result<PyTensor> {
        enter(|| {
            let (a, b) = (self.live()?, operand::tensor("vec", vec)?);
            check_rank("mv", a, 2)?;
            check_rank("mv", &b, 1)?;
            Ok(product(py, a, &b)?.into())
        })
    }

    /// x where x > 0, else weight x; `weight` has one element, or one for each channel (dimension 1).
    fn prelu(&self, py: Python<'_>, weight: &Bound<'_, PyAny>) -> Result<PyTensor> {
        enter(|| {
            let (x, weight) = (self.live()?, operand::tensor_beside("weight", weight, self.live()?.dtype())?);
            let rank = x.shape().rank();
            let channels = if rank > 1 { x.shape()[1] } else { x.shape().elements() };
            let weight = match weight.shape().elements() {
                1 => weight.reshape(&Dims::scalar())?,
                n if n == channels && weight.shape().rank() == 1 && rank > 1 => {
                    let mut shape = vec![1; rank];
                    shape[1] = n;
                    weight.reshape(&Dims::from_slice(&shape))?
                }
                n if n == channels && weight.shape().rank() == 1 => weight,
                _ => {
                    let text = format!(
                        "prelu: expected one weight or {channels} for input of shape {}, got shape {}",
                        x.shape(),
                        weight.shape()
                    );
                    return Err(raise(Kind::Shape, text).into());
                }
            };
            let result = long(py, x.shape().elements(), || {
                let zero = Tensor::scalar(x.dtype(), 0.0)?;
                x.compare(Compare::Gt, &zero)?.select(x, &x.binary(Binary::Mul, &weight)?)
            })?;
            Ok(result.into())
        })
    }

    /// The largest of each group of `pieces` neighbours along `dim`; the gradient goes to the winner.
    ///
    /// Raises ShapeError where `pieces` does not divide the dimension.
    #[pyo3(signature = (pieces, dim = -1), text_signature = "($self, pieces, dim=-1)")]
    fn maxout(
        &self,
        #[pyo3(from_py_with = argument::pieces)] pieces: isize,
        #[pyo3(from_py_with = argument::dim)] dim: isize,
    ) -> Result<PyTensor> {
        enter(|| {
            let x = self.live()?;
            let at = x.shape().dim("maxout", dim)?;
            let size = x.shape().get(at).copied().unwrap_or(0);
            let fits = |&count: &usize| count > 0 && size % count == 0 && x.shape().rank() > 0;
            let Some(pieces) = usize::try_from(pieces).ok().filter(fits) else {
                let text = format!(
                    "maxout: expected a dimension that {pieces} pieces divide, got {dim} of {}",
                    x.shape()
                );
                return Err(raise(Kind::Shape, text).into());
            };
            let mut shape = x.shape().to_vec();
            shape[at] = size / pieces;
            shape.insert(at + 1, pieces);
            Ok(x.reshape(&Dims::new("maxout", &shape)?)?.amax(&[at as isize + 1], false)?.into())
        })
    }
}
