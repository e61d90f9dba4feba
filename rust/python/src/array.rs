//! The one conversion between Python's arrays and ours, and the only `unsafe` of this crate.
//!
//! Native arrays of our dtypes are read in place through the buffer protocol, with any strides;
//! everything else goes through numpy's own conversions first.

use ferrograd_core::buffer::Array;
use ferrograd_core::dtype::{DType, Element};
use ferrograd_core::for_any;
use ferrograd_core::shape::Dims;
use ferrograd_kernels::elementwise;
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyFloat, PyInt, PyList, PyTuple, PyType};

use crate::error::{Failure, Kind, Result, raise};
use crate::tensor::PyTensor;

/// What this module needs of numpy.
pub struct Numpy {
    ndarray: Py<PyType>,
    generic: Py<PyType>,
    masked: Py<PyType>,
    asarray: Py<PyAny>,
    empty: Py<PyAny>,
    dtype: Py<PyAny>,
    /// `numbers.Real`
    real: Py<PyAny>,
}

static NUMPY: PyOnceLock<Numpy> = PyOnceLock::new();

fn numpy(py: Python<'_>) -> PyResult<&Numpy> {
    NUMPY.get_or_try_init(py, || {
        let module = py.import("numpy")?;
        Ok(Numpy {
            ndarray: module.getattr("ndarray")?.cast_into::<PyType>()?.unbind(),
            generic: module.getattr("generic")?.cast_into::<PyType>()?.unbind(),
            masked: module.getattr("ma")?.getattr("MaskedArray")?.cast_into::<PyType>()?.unbind(),
            asarray: module.getattr("asarray")?.unbind(),
            empty: module.getattr("empty")?.unbind(),
            dtype: module.getattr("dtype")?.unbind(),
            real: py.import("numbers")?.getattr("Real")?.unbind(),
        })
    })
}

/// numpy's name for a dtype-like object.
///
/// # Errors
/// numpy's.
pub fn dtype_name(object: &Bound<'_, PyAny>) -> PyResult<String> {
    numpy(object.py())?.dtype.bind(object.py()).call1((object,))?.getattr("name")?.extract()
}

/// Whether the object is a numpy array or numpy scalar.
///
/// # Errors
/// Python's.
pub fn is_numpy(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let numpy = numpy(object.py())?;
    Ok(object.is_instance(numpy.ndarray.bind(object.py()))?
        || object.is_instance(numpy.generic.bind(object.py()))?)
}

/// The values of anything array-like, copied: arrays and numpy scalars keep their dtype where we have
/// it, Python floats become float32, ints int64. `dtype` overrides.
///
/// # Errors
/// `DTypeError` for values that are not real numbers, `ShapeError` for ragged lists.
pub fn read(object: &Bound<'_, PyAny>, dtype: Option<DType>) -> Result<Array> {
    if object.is_exact_instance_of::<PyFloat>() {
        return Ok(Array::scalar(dtype.unwrap_or(DType::F32), object.extract()?)?);
    }
    if object.is_exact_instance_of::<PyBool>() {
        let value = object.is_truthy()? as u8;
        return Ok(Array::scalar(dtype.unwrap_or(DType::Bool), value.into())?);
    }
    if object.is_exact_instance_of::<PyInt>()
        && let Ok(value) = object.extract::<i64>()
    {
        return match dtype.unwrap_or(DType::I64) {
            DType::I64 => Ok(Array::from_slice(DType::I64, Dims::scalar(), &[value])?),
            other => Ok(Array::scalar(other, value as f64)?),
        };
    }
    let py = object.py();
    let numpy = numpy(py)?;
    if object.get_type().is(numpy.ndarray.bind(py))
        && let Some(array) = read_buffer(object, dtype)?
    {
        return Ok(array);
    }
    read_through_numpy(object, dtype)
}

/// Lists, scalars, and arrays of foreign dtypes or classes: numpy brings them to one of our dtypes.
fn read_through_numpy(object: &Bound<'_, PyAny>, dtype: Option<DType>) -> Result<Array> {
    let py = object.py();
    let numpy = numpy(py)?;
    if object.is_instance(numpy.masked.bind(py))? && object.getattr("mask")?.call_method0("any")?.is_truthy()? {
        return Err(raise(Kind::Config, "array: masked elements have no value; fill them with .filled(value)").into());
    }
    let array = numpy.asarray.bind(py).call1((object,)).map_err(|error| explain(py, object, error))?;
    let found = array.getattr("dtype")?;
    let itemsize: usize = found.getattr("itemsize")?.extract()?;
    let kind: String = found.getattr("kind")?.extract()?;
    let natural = match (kind.as_str(), itemsize) {
        ("b", _) => DType::Bool,
        ("u", 1) => DType::U8,
        ("u", 8) => {
            if array.getattr("size")?.is_truthy()? && array.call_method0("max")?.ge(i64::MAX)? {
                let text = "array: expected integers below 2**63, got a larger uint64";
                return Err(raise(Kind::Config, text).into());
            }
            DType::I64
        }
        ("i" | "u", _) => DType::I64,
        ("f", _) if is_weak(object)? => DType::F32,
        ("f", 2 | 4) => DType::F32,
        ("f", _) => DType::F64,
        ("O", _) if holds_numbers(&array)? => DType::F64,
        _ => {
            let class = object.get_type().name()?;
            let text = format!("array: expected real numbers, got dtype {} from {class}", found.str()?);
            return Err(raise(Kind::DType, text).into());
        }
    };
    let target = dtype.unwrap_or(natural);
    let array = numpy.asarray.bind(py).call1((array, target.name()))?;
    let rank: usize = array.getattr("ndim")?.extract()?;
    // The buffer of a 0-d array has no shape to read.
    let flat = if rank == 0 { array.call_method1("reshape", (1,))? } else { array };
    let values = read_buffer(&flat, Some(target))?.ok_or_else(|| raise(Kind::Internal, "array: unreadable buffer"))?;
    Ok(if rank == 0 { values.view(Dims::scalar(), Dims::scalar(), 0) } else { values })
}

/// Whether the numbers are Python's own, whose dtype is ours to choose.
fn is_weak(object: &Bound<'_, PyAny>) -> Result<bool> {
    let mut leaf = object.clone();
    loop {
        let next = if let Ok(list) = leaf.cast::<PyList>() {
            list.iter().next()
        } else if let Ok(tuple) = leaf.cast::<PyTuple>() {
            tuple.iter().next()
        } else {
            return Ok(leaf.is_exact_instance_of::<PyFloat>() || leaf.is_instance_of::<PyInt>());
        };
        match next {
            Some(first) => leaf = first,
            None => return Ok(true),
        }
    }
}

fn holds_numbers(array: &Bound<'_, PyAny>) -> Result<bool> {
    let py = array.py();
    let values = array.call_method0("ravel")?.call_method0("tolist")?;
    for value in values.cast::<PyList>()?.iter() {
        if !value.is_instance(numpy(py)?.real.bind(py))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// numpy's word for a ragged list is "inhomogeneous".
fn explain(py: Python<'_>, object: &Bound<'_, PyAny>, error: PyErr) -> Failure {
    let is_sequence = object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>();
    if is_sequence && error.is_instance_of::<PyValueError>(py) {
        return raise(Kind::Shape, "array: expected nested lists of equal lengths, got ragged ones").into();
    }
    error.into()
}

/// The dtype that a buffer's format stands for, if it is native.
fn native_dtype(format: &[u8], itemsize: usize) -> Option<DType> {
    let native_prefix: &[u8] = if cfg!(target_endian = "little") { b"@=^<" } else { b"@=^>!" };
    let code = match format {
        [prefix, code] if native_prefix.contains(prefix) => code,
        [code] => code,
        _ => return None,
    };
    match (code, itemsize) {
        (b'f', 4) => Some(DType::F32),
        (b'd', 8) => Some(DType::F64),
        (b'l' | b'q', 8) => Some(DType::I64),
        (b'B', 1) => Some(DType::U8),
        (b'?', 1) => Some(DType::Bool),
        _ => None,
    }
}

/// An array of one of our dtypes, through the buffer protocol; `None` where numpy has to convert it.
fn read_buffer(object: &Bound<'_, PyAny>, dtype: Option<DType>) -> Result<Option<Array>> {
    let Ok(buffer) = PyUntypedBuffer::get(object) else { return Ok(None) };
    let Some(found) = native_dtype(buffer.format().to_bytes(), buffer.item_size()) else { return Ok(None) };
    if dtype.is_some_and(|wanted| wanted != found) {
        return Ok(None);
    }
    let shape = Dims::new("array", buffer.shape())?;
    let array = Array::zeros(found, shape)?;
    for_any!(found, T => {
        let mut out = array.write::<T>();
        // SAFETY: the exporter promises an element at every index of shape and strides while the buffer
        // is held; `out` has as many elements.
        unsafe { gather(buffer.buf_ptr().cast(), &shape, buffer.strides(), &mut out) };
        if found == DType::Bool {
            // A view can hold any byte; ours are 0 or 1.
            out.iter_mut().for_each(|v| *v = T::from_f64((*v != T::default()) as u8 as f64));
        }
    });
    Ok(Some(array))
}

/// Copies strided elements in row-major order.
///
/// # Safety
/// Every index of `shape` must lie in memory at `source`, with `strides` in bytes. Nothing is required
/// of its alignment.
unsafe fn gather<T: Element>(source: *const u8, shape: &[usize], strides: &[isize], out: &mut [T]) {
    if out.is_empty() {
        return;
    }
    // The dense tail is copied in one run.
    let (mut outer, mut run) = (shape.len(), 1);
    while outer > 0 && (shape[outer - 1] == 1 || strides[outer - 1] == (run * size_of::<T>()) as isize) {
        outer -= 1;
        run *= shape[outer];
    }
    let mut index = [0usize; ferrograd_core::shape::MAX_RANK];
    let mut offset = 0isize;
    for chunk in out.chunks_exact_mut(run) {
        // SAFETY: `offset` is the position of the current index of the outer dimensions; the run after
        // it is dense. Bytes are copied, so alignment does not matter.
        unsafe {
            std::ptr::copy_nonoverlapping(
                source.offset(offset),
                chunk.as_mut_ptr().cast::<u8>(),
                run * size_of::<T>(),
            );
        }
        for d in (0..outer).rev() {
            index[d] += 1;
            offset += strides[d];
            if index[d] < shape[d] {
                break;
            }
            offset -= strides[d] * shape[d] as isize;
            index[d] = 0;
        }
    }
}

/// A new numpy array with the values, C-contiguous.
///
/// # Errors
/// `MemoryError`.
pub fn to_numpy<'py>(py: Python<'py>, array: &Array) -> Result<Bound<'py, PyAny>> {
    let shape = array.shape();
    // The buffer of a 0-d array has no shape to read.
    let dims: &[usize] = if shape.rank() == 0 { &[1] } else { shape };
    let made = numpy(py)?.empty.bind(py).call1((PyTuple::new(py, dims)?, array.dtype().name()))?;
    let buffer = PyUntypedBuffer::get(&made)?;
    for_any!(array.dtype(), T => {
        // SAFETY: `made` is new, so nobody else looks at its memory; it holds `elements` values of the
        // dtype's type, C-contiguous, and numpy aligns what it allocates.
        let out = unsafe { std::slice::from_raw_parts_mut(buffer.buf_ptr().cast::<T>(), shape.elements()) };
        let values = array.read::<T>();
        if array.is_contiguous() { out.copy_from_slice(&values) } else {
            elementwise::copy(shape, &values, array.strides(), out);
        }
    });
    drop(buffer);
    Ok(if shape.rank() == 0 { made.call_method1("reshape", (PyTuple::empty(py),))? } else { made })
}

/// Whether a value is array-like enough for an operator to try it; others leave the operation to the
/// other operand's class.
///
/// # Errors
/// Python's.
pub fn is_operand(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(object.cast::<PyTensor>().is_ok()
        || object.is_instance_of::<PyFloat>()
        || object.is_instance_of::<PyInt>()
        || is_numpy(object)?
        || object.is_instance_of::<PyList>()
        || object.is_instance_of::<PyTuple>())
}
