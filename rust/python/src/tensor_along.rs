//! Methods of `Tensor` that pick, order, cut up and move elements along dimensions; `einsum`, `pad`, `one_hot`.

use ferrograd_core::dtype::DType;
use ferrograd_core::op::{PadMode, Unary};
use ferrograd_core::tensor::Tensor;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyTuple};

use crate::argument::{self, named};
use crate::error::{Kind, Result, enter, raise};
use crate::operand::{self, Operand, integers, sizes};
use crate::tensor::PyTensor;
use crate::tensor_arithmetic::long;
use crate::tensor_reduce::{check_rank, product, values_indices};

/// Indices from a tensor or anything array-like; an empty list is one of integers.
fn index(object: &Bound<'_, PyAny>) -> Result<Tensor> {
    let index = operand::tensor("index", object)?;
    let is_empty_list = index.shape().elements() == 0 && !object.is_instance_of::<PyTensor>();
    Ok(if is_empty_list { index.cast(DType::I64)? } else { index })
}

fn pair<'py>(py: Python<'py>, (values, indices): (Tensor, Tensor)) -> Result<Bound<'py, PyAny>> {
    Ok(values_indices(py)?.call1((PyTensor::from(values), PyTensor::from(indices)))?)
}

/// Views of these lengths along a dimension, one after the other.
fn pieces<'py>(
    py: Python<'py>,
    x: &Tensor,
    dim: usize,
    lengths: impl Iterator<Item = usize>,
) -> Result<Bound<'py, PyTuple>> {
    let mut start = 0;
    let views = lengths.map(|length| {
        start += length;
        Ok(PyTensor::from(x.narrow(dim as isize, start - length, length)?))
    });
    Ok(PyTuple::new(py, views.collect::<Result<Vec<_>>>()?)?)
}

/// The size of a dimension that must be there.
fn size_of(op: &'static str, x: &Tensor, dim: isize) -> Result<(usize, usize)> {
    let at = x.shape().dim(op, dim)?;
    match x.shape().get(at) {
        Some(&size) => Ok((at, size)),
        None => {
            Err(raise(Kind::Shape, format!("{op}: expected at least one dimension, got shape ()")).into())
        }
    }
}

fn length(op: &str, argument: &str, value: isize, least: isize) -> Result<usize> {
    match usize::try_from(value) {
        Ok(length) if value >= least => Ok(length),
        _ => {
            let text = format!("{op}: {argument} must be at least {least}, got {value}");
            Err(raise(Kind::Config, text).into())
        }
    }
}

#[pymethods]
impl PyTensor {
    /// Sums of the elements up to each one along `dim`; derivative 1 for each. Integers and bools give int64.
    fn cumsum(&self, py: Python<'_>, #[pyo3(from_py_with = argument::dim)] dim: isize) -> Result<PyTensor> {
        enter(|| {
            let x = self.live()?;
            Ok(long(py, x.shape().elements(), || x.cumsum(dim))?.into())
        })
    }

    /// Products of the elements up to each one along `dim`; the derivative is the product of the others. Integers
    /// and bools give int64.
    fn cumprod(&self, py: Python<'_>, #[pyo3(from_py_with = argument::dim)] dim: isize) -> Result<PyTensor> {
        enter(|| {
            let x = self.live()?;
            Ok(long(py, x.shape().elements(), || x.cumprod(dim))?.into())
        })
    }

    /// Elements along `dim` at the positions in `index`, whose other sizes are at most this tensor's. The
    /// gradient is added up there. Raises OutOfRangeError for a position outside.
    fn gather(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::dim)] dim: isize,
        index: &Bound<'_, PyAny>,
    ) -> Result<PyTensor> {
        enter(|| {
            let (x, index) = (self.live()?, self::index(index)?);
            Ok(long(py, index.shape().elements(), || x.gather(dim, &index))?.into())
        })
    }

    /// With elements of `src` added along `dim` at the positions in `index`. The gradient of `src` is picked
    /// there. Raises OutOfRangeError for a position outside.
    fn scatter_add(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::dim)] dim: isize,
        index: &Bound<'_, PyAny>,
        src: &Bound<'_, PyAny>,
    ) -> Result<PyTensor> {
        enter(|| {
            let (x, index) = (self.live()?, self::index(index)?);
            let src = operand::tensor_beside("src", src, x.dtype())?;
            Ok(long(py, x.shape().elements(), || x.scatter_add(dim, &index, &src))?.into())
        })
    }

    /// Slices along `dim` in the order of `index`, a vector. The gradient is added up at its positions. Raises
    /// OutOfRangeError for a position outside.
    fn index_select(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::dim)] dim: isize,
        index: &Bound<'_, PyAny>,
    ) -> Result<PyTensor> {
        enter(|| {
            let (x, index) = (self.live()?, self::index(index)?);
            Ok(long(py, x.shape().elements(), || x.index_select(dim, &index))?.into())
        })
    }

    /// The elements where the bool `mask` is true, as a vector; both broadcast. Its shape depends on data: not
    /// for a model that a Trainer runs.
    fn masked_select(&self, mask: &Bound<'_, PyAny>) -> Result<PyTensor> {
        enter(|| Ok(self.live()?.masked_select(&operand::tensor("mask", mask)?)?.into()))
    }

    /// `length` slices from `start` on along `dim`, as a view.
    fn narrow(
        &self,
        #[pyo3(from_py_with = argument::dim)] dim: isize,
        #[pyo3(from_py_with = argument::start)] start: isize,
        #[pyo3(from_py_with = argument::length)] length: isize,
    ) -> Result<PyTensor> {
        enter(|| {
            let length = self::length("narrow", "length", length, 0)?;
            Ok(self.live()?.narrow_from(dim, start, length)?.into())
        })
    }

    /// The slice at `index` of `dim`, as a view.
    fn select(
        &self,
        #[pyo3(from_py_with = argument::dim)] dim: isize,
        #[pyo3(from_py_with = argument::index)] index: isize,
    ) -> Result<PyTensor> {
        enter(|| Ok(self.live()?.select_at(dim, index)?.into()))
    }

    /// The elements along `dim` in order (`values`, `indices`); equal ones keep theirs, NaN is the largest. The
    /// gradient goes back to the positions.
    #[pyo3(signature = (dim = -1, descending = false, stable = false), text_signature = "($self, dim=-1, descending=False, stable=False)")]
    fn sort<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = argument::dim)] dim: isize,
        #[pyo3(from_py_with = argument::descending)] descending: bool,
        #[pyo3(from_py_with = argument::stable)] stable: bool,
    ) -> Result<Bound<'py, PyAny>> {
        enter(|| {
            // Every sort is stable.
            let _ = stable;
            let x = self.live()?;
            pair(py, long(py, x.shape().elements(), || x.sort(dim, descending))?)
        })
    }

    /// The positions along `dim` in the order of their elements, as `sort` gives them.
    #[pyo3(signature = (dim = -1, descending = false, stable = false), text_signature = "($self, dim=-1, descending=False, stable=False)")]
    fn argsort(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::dim)] dim: isize,
        #[pyo3(from_py_with = argument::descending)] descending: bool,
        #[pyo3(from_py_with = argument::stable)] stable: bool,
    ) -> Result<PyTensor> {
        enter(|| {
            let _ = stable;
            let x = self.live()?;
            Ok(long(py, x.shape().elements(), || x.argsort(dim, descending))?.into())
        })
    }

    /// The `k` largest (or smallest) elements along `dim` in order (`values`, `indices`). The gradient goes back
    /// to the positions.
    #[pyo3(signature = (k, dim = -1, largest = true, sorted = true), text_signature = "($self, k, dim=-1, largest=True, sorted=True)")]
    fn topk<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = argument::k)] k: isize,
        #[pyo3(from_py_with = argument::dim)] dim: isize,
        #[pyo3(from_py_with = argument::largest)] largest: bool,
        #[pyo3(from_py_with = argument::sorted)] sorted: bool,
    ) -> Result<Bound<'py, PyAny>> {
        enter(|| {
            // Without `sorted` any order will do.
            let _ = sorted;
            let (x, k) = (self.live()?, length("topk", "k", k, 0)?);
            pair(py, long(py, x.shape().elements(), || x.topk(k, dim, largest))?)
        })
    }

    /// Pieces along `dim` as views: of `split_size` slices each, the last of what is left, or of the given sizes.
    #[pyo3(signature = (split_size, dim = 0))]
    fn split<'py>(
        &self,
        py: Python<'py>,
        split_size: &Bound<'py, PyAny>,
        #[pyo3(from_py_with = argument::dim)] dim: isize,
    ) -> Result<Bound<'py, PyTuple>> {
        enter(|| {
            let x = self.live()?;
            let (at, size) = size_of("split", x, dim)?;
            if split_size.is_instance_of::<PyInt>() {
                let each =
                    length("split", "split_size", named("split_size", split_size)?, isize::from(size > 0))?;
                let count = if size == 0 { 1 } else { size.div_ceil(each) };
                return pieces(py, x, at, (0..count).map(|i| each.min(size - i * each)));
            }
            let given = integers("split_size", split_size)?;
            let lengths = given.iter().map(|&one| length("split", "each section", one, 0));
            let lengths = lengths.collect::<Result<Vec<_>>>()?;
            if lengths.iter().try_fold(0usize, |sum, &one| sum.checked_add(one)) != Some(size) {
                let text = format!("split: expected sections that add up to {size}, got {lengths:?}");
                return Err(raise(Kind::Shape, text).into());
            }
            pieces(py, x, at, lengths.into_iter())
        })
    }

    /// At most `chunks` pieces along `dim` as views, all of one size but for the last.
    #[pyo3(signature = (chunks, dim = 0))]
    fn chunk<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = argument::chunks)] chunks: isize,
        #[pyo3(from_py_with = argument::dim)] dim: isize,
    ) -> Result<Bound<'py, PyTuple>> {
        enter(|| {
            let (x, chunks) = (self.live()?, length("chunk", "chunks", chunks, 1)?);
            let (at, size) = size_of("chunk", x, dim)?;
            let each = size.div_ceil(chunks);
            let count = if each == 0 { chunks } else { size.div_ceil(each) };
            pieces(py, x, at, (0..count).map(|i| each.min(size - i * each)))
        })
    }

    /// Elements shifted by `shifts` along `dims`, those past the end back to the front; without `dims` in
    /// row-major order.
    #[pyo3(signature = (shifts, dims = None))]
    fn roll(
        &self,
        py: Python<'_>,
        shifts: &Bound<'_, PyAny>,
        dims: Option<&Bound<'_, PyAny>>,
    ) -> Result<PyTensor> {
        enter(|| {
            let (x, shifts, dims) = (self.live()?, integers("shifts", shifts)?, operand::dims("dims", dims)?);
            Ok(long(py, x.shape().elements(), || x.roll(&shifts, &dims))?.into())
        })
    }

    /// The elements along each of `dims` in reverse order.
    #[pyo3(signature = (*dims))]
    fn flip(&self, py: Python<'_>, dims: &Bound<'_, PyTuple>) -> Result<PyTensor> {
        enter(|| {
            let (x, dims) = (self.live()?, sizes("dims", dims)?);
            Ok(long(py, x.shape().elements(), || x.flip(&dims))?.into())
        })
    }

    /// 0 below 0, 1 above, `values` at 0. The derivative is 0, by definition, and 1 for `values` at 0.
    fn heaviside(&self, values: &Bound<'_, PyAny>) -> Result<PyTensor> {
        enter(|| {
            let x = self.live()?;
            Ok(x.heaviside(&Operand::of("values", values)?.beside(x.dtype())?)?.into())
        })
    }

    /// The next integer below; derivative 0.
    fn floor(&self, py: Python<'_>) -> Result<PyTensor> {
        enter(|| {
            let x = self.live()?;
            Ok(long(py, x.shape().elements(), || x.rounded(Unary::Floor))?.into())
        })
    }

    /// The next integer above; derivative 0.
    fn ceil(&self, py: Python<'_>) -> Result<PyTensor> {
        enter(|| {
            let x = self.live()?;
            Ok(long(py, x.shape().elements(), || x.rounded(Unary::Ceil))?.into())
        })
    }

    /// The nearest number of `decimals` decimal places, the even one halfway; derivative 0.
    #[pyo3(signature = (*, decimals = 0))]
    fn round(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::decimals)] decimals: i32,
    ) -> Result<PyTensor> {
        enter(|| {
            let x = self.live()?;
            if decimals != 0 && !x.dtype().is_float() {
                let text = format!(
                    "round: expected float32 or float64 for decimals = {decimals}, got {}",
                    x.dtype()
                );
                return Err(raise(Kind::DType, text).into());
            }
            let scale = 10f64.powi(decimals.abs());
            Ok(long(py, x.shape().elements(), || match decimals {
                0 => x.rounded(Unary::Round),
                1.. => x.mul_scalar(scale)?.rounded(Unary::Round)?.div_scalar(scale),
                _ => x.div_scalar(scale)?.rounded(Unary::Round)?.mul_scalar(scale),
            })?
            .into())
        })
    }

    /// The products of two batches of matrices, (b, m, k) and (b, k, n).
    fn bmm(&self, py: Python<'_>, mat2: &Bound<'_, PyAny>) -> Result<PyTensor> {
        enter(|| {
            let (a, b) = (self.live()?, operand::tensor("mat2", mat2)?);
            check_rank("bmm", a, 3)?;
            check_rank("bmm", &b, 3)?;
            if a.shape()[0] != b.shape()[0] {
                let text = format!(
                    "bmm: expected as many matrices on both sides, got {} and {}",
                    a.shape(),
                    b.shape()
                );
                return Err(raise(Kind::Shape, text).into());
            }
            Ok(product(py, a, &b)?.into())
        })
    }
}

/// Sums of products by labelled dimensions: `einsum("ij,jk->ik", a, b)` is a matrix product.
#[pyfunction]
#[pyo3(signature = (equation, *operands))]
pub fn einsum(
    py: Python<'_>,
    #[pyo3(from_py_with = argument::equation)] equation: String,
    operands: &Bound<'_, PyTuple>,
) -> Result<PyTensor> {
    enter(|| {
        let operands =
            operands.iter().map(|one| operand::tensor("operands", &one)).collect::<Result<Vec<_>>>()?;
        let size = operands.iter().map(|one| one.shape().elements()).max().unwrap_or(0);
        Ok(long(py, size, || Tensor::einsum(&equation, &operands))?.into())
    })
}

/// `input` made larger at the ends of its last dimensions: `pad` holds (before, after) for the last one first.
#[pyfunction]
#[pyo3(signature = (input, pad, mode = "constant", value = None))]
pub fn pad(
    py: Python<'_>,
    input: &Bound<'_, PyAny>,
    pad: &Bound<'_, PyAny>,
    mode: &str,
    #[pyo3(from_py_with = argument::value)] value: Option<f64>,
) -> Result<PyTensor> {
    enter(|| {
        let (x, ends) = (operand::tensor("input", input)?, integers("pad", pad)?);
        let mode = match (mode, value) {
            ("constant", value) => PadMode::Constant(value.unwrap_or(0.0)),
            ("reflect", None) => PadMode::Reflect,
            ("replicate", None) => PadMode::Replicate,
            ("circular", None) => PadMode::Circular,
            ("reflect" | "replicate" | "circular", Some(value)) => {
                let text = format!("pad: value must be None for mode {mode:?}, got {value}");
                return Err(raise(Kind::Config, text).into());
            }
            _ => {
                let text = format!(
                    "pad: mode must be 'constant', 'reflect', 'replicate' or 'circular', got {mode:?}"
                );
                return Err(raise(Kind::Config, text).into());
            }
        };
        if ends.len() % 2 == 1 {
            let text = format!("pad: expected pairs (before, after), got {} numbers", ends.len());
            return Err(raise(Kind::Shape, text).into());
        }
        let pads: Vec<_> = ends.chunks_exact(2).map(|ends| (ends[0], ends[1])).collect();
        Ok(long(py, x.shape().elements(), || x.pad(&pads, mode))?.into())
    })
}

/// Integers as int64 vectors with a 1 at their place; -1 takes one class more than the largest.
#[pyfunction]
#[pyo3(signature = (tensor, num_classes = -1), text_signature = "(tensor, num_classes=-1)")]
pub fn one_hot(
    tensor: &Bound<'_, PyAny>,
    #[pyo3(from_py_with = argument::num_classes)] num_classes: isize,
) -> Result<PyTensor> {
    enter(|| {
        let classes = match num_classes {
            -1 => None,
            _ => Some(length("one_hot", "num_classes", num_classes, 1)?),
        };
        Ok(operand::tensor("tensor", tensor)?.one_hot(classes)?.into())
    })
}
