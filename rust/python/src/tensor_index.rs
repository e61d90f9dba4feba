//! `x[...]`, `x[...] = value` and iteration.

use ferrograd_core::dtype::DType;
use ferrograd_core::op::Index;
use ferrograd_core::shape::Dims;
use ferrograd_core::tensor::{Tensor, is_grad_enabled};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyEllipsis, PyInt, PySlice, PyTuple};
use smallvec::SmallVec;

use crate::array;
use crate::error::{Kind, Result, enter, raise};
use crate::operand::Operand;
use crate::tensor::PyTensor;

/// The entries of an index expression on a tensor of the given shape.
fn parse(shape: &Dims, index: &Bound<'_, PyAny>) -> Result<Entries<Index>> {
    if let Ok(entries) = index.cast::<PyTuple>() {
        let entries: Entries<_> = entries.iter().collect();
        return parse_entries(shape, &entries);
    }
    parse_entries(shape, std::slice::from_ref(index))
}

/// Something for each entry: most index expressions have few.
type Entries<T> = SmallVec<[T; 4]>;

fn parse_entries(shape: &Dims, entries: &[Bound<'_, PyAny>]) -> Result<Entries<Index>> {
    let parsed: Entries<Entry> = entries.iter().map(Entry::of).collect::<Result<_>>()?;
    let used: usize = parsed.iter().map(Entry::dims).sum();
    if used > shape.rank() {
        let text = format!("index: expected at most {} indices for shape {shape}, got {used}", shape.rank());
        return Err(raise(Kind::OutOfRange, text).into());
    }
    if parsed.iter().filter(|entry| matches!(entry, Entry::Ellipsis)).count() > 1 {
        return Err(raise(Kind::OutOfRange, "index: expected one ellipsis at most").into());
    }
    let mut indices = Entries::new();
    let mut dim = 0;
    for entry in parsed {
        let dims = entry.dims();
        match entry {
            Entry::Index(index) => indices.push(index),
            Entry::Slice(slice) => {
                let range = slice.indices(shape[dim] as isize)?;
                if range.step < 1 {
                    let text = format!("index: expected a slice step of at least 1, got {}", range.step);
                    return Err(raise(Kind::Shape, text).into());
                }
                indices.push(Index::Slice {
                    start: range.start as usize,
                    length: range.slicelength,
                    step: range.step as usize,
                });
            }
            Entry::Ellipsis => {
                for d in dim..dim + shape.rank() - used {
                    indices.push(Index::Slice { start: 0, length: shape[d], step: 1 });
                }
                dim += shape.rank() - used;
            }
        }
        dim += dims;
    }
    Ok(indices)
}

/// One entry, before the sizes of the dimensions are known to it.
enum Entry<'a, 'py> {
    Index(Index),
    Slice(&'a Bound<'py, PySlice>),
    Ellipsis,
}

impl<'a, 'py> Entry<'a, 'py> {
    fn of(entry: &'a Bound<'py, PyAny>) -> Result<Entry<'a, 'py>> {
        if entry.is_none() {
            return Ok(Entry::Index(Index::NewAxis));
        }
        if let Ok(slice) = entry.cast::<PySlice>() {
            return Ok(Entry::Slice(slice));
        }
        if entry.cast::<PyEllipsis>().is_ok() {
            return Ok(Entry::Ellipsis);
        }
        if let Ok(tensor) = entry.cast::<PyTensor>() {
            return Ok(Entry::Index(Index::Tensor(indices(tensor.get().live()?.detach())?)));
        }
        if entry.is_instance_of::<PyBool>() {
            return Err(raise(Kind::DType, "index: expected an int, slice or array, got a bool").into());
        }
        let is_scalar = entry.is_instance_of::<PyInt>() || !entry.hasattr("__len__")?;
        if is_scalar && let Ok(index) = entry.extract::<i64>() {
            return Ok(Entry::Index(Index::Int(index)));
        }
        let values = Tensor::constant(array::read("index", entry, None)?);
        if values.shape().elements() == 0 && values.dtype().is_float() {
            return Ok(Entry::Index(Index::Tensor(values.cast(DType::I64)?)));
        }
        Ok(Entry::Index(Index::Tensor(indices(values)?)))
    }

    /// How many dimensions of the tensor it takes up.
    fn dims(&self) -> usize {
        match self {
            Entry::Index(Index::NewAxis) | Entry::Ellipsis => 0,
            Entry::Index(Index::Tensor(mask)) if mask.dtype() == DType::Bool => mask.shape().rank(),
            _ => 1,
        }
    }
}

fn indices(tensor: Tensor) -> Result<Tensor> {
    if tensor.dtype().is_float() {
        let text = format!("index: expected integers or bools, got {}", tensor.dtype());
        return Err(raise(Kind::DType, text).into());
    }
    Ok(tensor)
}

#[pymethods]
impl PyTensor {
    fn __getitem__(&self, index: &Bound<'_, PyAny>) -> Result<PyTensor> {
        enter(|| {
            let x = self.live()?;
            Ok(x.index(&parse(x.shape(), index)?)?.into())
        })
    }

    fn __setitem__(&self, index: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> Result<()> {
        enter(|| {
            let x = self.live()?;
            let value = Operand::of("value", value)?.beside(x.dtype())?;
            check_source("setitem", x, &value)?;
            Ok(x.set_index(&parse(x.shape(), index)?, &value)?)
        })
    }

    fn __iter__(slf: &Bound<'_, Self>) -> Result<PyRowIterator> {
        match slf.get().shape().first() {
            Some(&length) => Ok(PyRowIterator { tensor: slf.clone().unbind(), next: 0, length }),
            None => Err(PyTypeError::new_err("iter: a tensor of shape () cannot be iterated over").into()),
        }
    }
}

/// Whether `value` may be written into `target`: a gradient would be lost, and floats do not fit ints.
///
/// # Errors
/// `GraphError`, `DTypeError`.
pub fn check_source(op: &str, target: &Tensor, value: &Tensor) -> Result<()> {
    if value.requires_grad() && is_grad_enabled() {
        let text = format!(
            "{op}: the value requires a gradient, which an in-place change would lose; write x = x + value, or do it inside no_grad()"
        );
        return Err(raise(Kind::Graph, text).into());
    }
    if value.dtype().is_float() && !target.dtype().is_float() {
        let text = format!("{op}: {} values cannot go into a tensor of {}", value.dtype(), target.dtype());
        return Err(raise(Kind::DType, text).into());
    }
    Ok(())
}

/// The slices of a tensor along dimension 0.
#[pyclass(name = "RowIterator", module = "ferrograd._core")]
pub struct PyRowIterator {
    tensor: Py<PyTensor>,
    next: usize,
    length: usize,
}

#[pymethods]
impl PyRowIterator {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&mut self) -> Result<Option<PyTensor>> {
        enter(|| {
            if self.next == self.length {
                return Ok(None);
            }
            self.next += 1;
            Ok(Some(self.tensor.get().live()?.index(&[Index::Int(self.next as i64 - 1)])?.into()))
        })
    }
}
