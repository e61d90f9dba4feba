//! The one conversion between Python's arrays and ours, and the only `unsafe` of this crate.
//!
//! Native arrays of our dtypes are read in place through the buffer protocol, with any strides;
//! everything else goes through numpy's own conversions first.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use ferrograd_core::buffer::Array;
use ferrograd_core::dtype::{DType, Element};
use ferrograd_core::error::Error;
use ferrograd_core::for_any;
use ferrograd_core::shape::Dims;
use ferrograd_core::train::Rows;
use ferrograd_kernels::elementwise;
use ferrograd_kernels::gather::{self, Source};
use ferrograd_kernels::pool;
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
    /// numpy's objects for our dtypes.
    dtypes: [(DType, Py<PyAny>); 5],
}

static NUMPY: PyOnceLock<Numpy> = PyOnceLock::new();

fn numpy(py: Python<'_>) -> PyResult<&Numpy> {
    NUMPY.get_or_try_init(py, || {
        let module = py.import("numpy")?;
        let dtype = module.getattr("dtype")?;
        let object = |of: DType| PyResult::Ok((of, dtype.call1((of.name(),))?.unbind()));
        Ok(Numpy {
            ndarray: module.getattr("ndarray")?.cast_into::<PyType>()?.unbind(),
            generic: module.getattr("generic")?.cast_into::<PyType>()?.unbind(),
            masked: module.getattr("ma")?.getattr("MaskedArray")?.cast_into::<PyType>()?.unbind(),
            asarray: module.getattr("asarray")?.unbind(),
            empty: module.getattr("empty")?.unbind(),
            dtypes: [
                object(DType::F32)?,
                object(DType::F64)?,
                object(DType::I64)?,
                object(DType::U8)?,
                object(DType::Bool)?,
            ],
            dtype: dtype.clone().unbind(),
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

/// Whether the object is a numpy array and of no class derived from it.
///
/// # Errors
/// Python's.
pub fn is_exact_array(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(object.get_type().is(numpy(object.py())?.ndarray.bind(object.py())))
}

/// The values of anything array-like, copied: arrays and numpy scalars keep their dtype where we have
/// it, Python floats become float32, ints int64. `dtype` overrides. Errors begin with `name`, that of the argument.
///
/// # Errors
/// `DTypeError` for values that are not real numbers, `ShapeError` for ragged lists.
pub fn read(name: &str, object: &Bound<'_, PyAny>, dtype: Option<DType>) -> Result<Array> {
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
    if is_exact_array(object)?
        && let Some(array) = read_buffer(object, dtype)?
    {
        return Ok(array);
    }
    read_through_numpy(name, object, dtype)
}

/// Lists, scalars, and arrays of foreign dtypes or classes: numpy brings them to one of our dtypes.
fn read_through_numpy(name: &str, object: &Bound<'_, PyAny>, dtype: Option<DType>) -> Result<Array> {
    let py = object.py();
    let numpy = numpy(py)?;
    if object.is_instance(numpy.masked.bind(py))?
        && object.getattr("mask")?.call_method0("any")?.is_truthy()?
    {
        let text = format!("{name}: masked elements have no value; fill them with .filled(value)");
        return Err(raise(Kind::Config, text).into());
    }
    let array = numpy.asarray.bind(py).call1((object,)).map_err(|error| explain(name, object, error))?;
    let found = array.getattr("dtype")?;
    let itemsize: usize = found.getattr("itemsize")?.extract()?;
    let kind: String = found.getattr("kind")?.extract()?;
    let natural = match (kind.as_str(), itemsize) {
        ("b", _) => DType::Bool,
        ("u", 1) => DType::U8,
        ("u", 8) => {
            if array.getattr("size")?.is_truthy()? && array.call_method0("max")?.gt(i64::MAX)? {
                let text = format!("{name}: expected integers below 2**63, got a larger uint64");
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
            let text = format!("{name}: expected real numbers, got dtype {} from {class}", found.str()?);
            return Err(raise(Kind::DType, text).into());
        }
    };
    let target = dtype.unwrap_or(natural);
    let array = numpy.asarray.bind(py).call1((array, target.name()))?;
    let rank: usize = array.getattr("ndim")?.extract()?;
    // The buffer of a 0-d array has no shape to read.
    let flat = if rank == 0 { array.call_method1("reshape", (1,))? } else { array };
    let values =
        read_buffer(&flat, Some(target))?.ok_or_else(|| raise(Kind::Internal, "array: unreadable buffer"))?;
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
fn explain(name: &str, object: &Bound<'_, PyAny>, error: PyErr) -> Failure {
    let is_sequence = object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>();
    if is_sequence && error.is_instance_of::<PyValueError>(object.py()) {
        let text = format!("{name}: expected nested lists of equal lengths, got ragged ones");
        return raise(Kind::Shape, text).into();
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
    let array = Array::stale(found, shape)?;
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
    let numpy = numpy(py)?;
    let dtype = numpy.dtypes.iter().find(|(dtype, _)| *dtype == array.dtype()).map(|(_, object)| object);
    let made = numpy.empty.bind(py).call1((PyTuple::new(py, dims)?, dtype))?;
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

/// Whether no element from the first to the last is NaN or infinite. Large arrays are read by all threads.
pub fn is_finite(array: &Array) -> bool {
    macro_rules! scan {
        ($type:ident, $source:ident) => {{
            let values: &[$type] = &array.read::<$type>();
            all_tasks(values.len().div_ceil(TASK), &|task| {
                let part = &values[task * TASK..values.len().min((task + 1) * TASK)];
                let (start, size) = (part.as_ptr().cast(), size_of::<$type>() as isize);
                // SAFETY: one row of the slice's elements.
                unsafe { gather::is_finite(gather::Source::$source, start, 0, size, 1, part.len()) }
            })
        }};
    }
    match array.dtype() {
        DType::F32 => scan!(f32, F32),
        DType::F64 => scan!(f64, F64),
        _ => true,
    }
}

/// Elements that a task looks at.
const TASK: usize = 64 * 1024;

/// Whether all tasks say so; once one does not, those that have not begun are left out.
fn all_tasks(tasks: usize, body: &(dyn Fn(usize) -> bool + Sync)) -> bool {
    let all = AtomicBool::new(true);
    pool::parallel(tasks, &|task| {
        if all.load(Ordering::Relaxed) && !body(task) {
            all.store(false, Ordering::Relaxed);
        }
    });
    all.into_inner()
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

/// A table of samples that a training run reads in place: any real dtype, any strides, read-only or
/// not. The buffer protocol keeps it from being resized meanwhile.
pub struct Table {
    buffer: PyUntypedBuffer,
    source: Source,
    row_stride: isize,
    column_stride: isize,
    columns: usize,
}

// SAFETY: the memory is only read, by raw reads that assume nothing of its contents; the buffer is held until
// the table is dropped, which happens with the interpreter attached. Writes by other threads give
// unspecified numbers, never a wrong address.
unsafe impl Sync for Table {}

impl Table {
    /// Borrows a numpy array of rank 1 or more whose inner dimensions are evenly strided.
    ///
    /// # Errors
    /// `DTypeError` for a dtype that is not real and native, `ShapeError` for rank 0 or inner dimensions
    /// that are not evenly strided.
    pub fn new(object: &Bound<'_, PyAny>) -> Result<Table> {
        let buffer = PyUntypedBuffer::get(object)?;
        let format = buffer.format().to_bytes();
        let source = source(format, buffer.item_size()).ok_or_else(|| {
            let format = String::from_utf8_lossy(format).into_owned();
            raise(Kind::DType, format!("data: expected real numbers, got an array of format {format:?}"))
        })?;
        let (shape, strides) = (buffer.shape(), buffer.strides());
        let Some((_, inner)) = shape.split_first() else {
            return Err(raise(Kind::Shape, "data: expected rows, got an array of shape ()").into());
        };
        let wide: Vec<(usize, isize)> =
            inner.iter().copied().zip(strides[1..].iter().copied()).filter(|&(d, _)| d != 1).collect();
        let even = wide.windows(2).all(|pair| pair[0].1 == pair[1].1 * pair[1].0 as isize);
        if !even {
            return Err(raise(
                Kind::Shape,
                "data: expected evenly strided rows; use numpy.ascontiguousarray",
            )
            .into());
        }
        let (row_stride, columns) = (strides[0], inner.iter().product());
        let column_stride = wide.last().map_or(buffer.item_size() as isize, |&(_, stride)| stride);
        Ok(Table { source, row_stride, column_stride, columns, buffer })
    }

    /// Shape of the whole.
    pub fn shape(&self) -> &[usize] {
        self.buffer.shape()
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.buffer.shape()[0]
    }

    /// Number of elements in a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Whether no element is NaN or infinite. Large tables are read by all threads.
    pub fn is_finite(&self) -> bool {
        let rows = TASK.div_ceil(self.columns.max(1));
        self.is_integer()
            || all_tasks(self.rows().div_ceil(rows), &|task| {
                self.are_finite(task * rows..self.rows().min((task + 1) * rows))
            })
    }

    fn are_finite(&self, rows: Range<usize>) -> bool {
        debug_assert!(rows.start <= rows.end && rows.end <= self.rows());
        let start = self.start().wrapping_offset(rows.start as isize * self.row_stride);
        let (row, column) = (self.row_stride, self.column_stride);
        // SAFETY: the rows are in range and have `columns` evenly strided elements of the buffer's format, which
        // `source` names.
        unsafe { gather::is_finite(self.source, start, row, column, rows.len(), self.columns) }
    }

    /// Whether the table has one integer a row, each below `classes` or equal to `ignored`.
    pub fn are_labels(&self, classes: u64, ignored: Option<i64>) -> bool {
        let (rows, stride) = (self.rows(), self.row_stride);
        // SAFETY: as above.
        self.shape().len() == 1
            && unsafe { gather::are_labels(self.source, self.start(), stride, rows, classes, ignored) }
    }

    /// Rows and columns, or one row of all elements where the rows lie side by side.
    pub fn runs(&self) -> (usize, usize) {
        let (rows, columns) = (self.rows(), self.columns);
        let is_dense = self.row_stride == columns as isize * self.column_stride;
        if is_dense { (1, rows * columns) } else { (rows, columns) }
    }

    /// Converts elements of a row of [`Table::runs`], from column `first` on, as many as `out` has.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn read_run<T: gather::Target>(&self, row: usize, first: usize, out: &mut [T]) {
        let (rows, columns) = self.runs();
        assert!(row < rows && first + out.len() <= columns, "a part of a run");
        let start = self.start().wrapping_offset(row as isize * self.row_stride);
        let start = start.wrapping_offset(first as isize * self.column_stride);
        let length = out.len();
        // SAFETY: evenly strided elements of the buffer's format, in range as asserted.
        unsafe { gather::gather(self.source, start, 0, self.column_stride, &[0], length, out, length) }
    }

    /// Converts the first elements of rows, from row `first` on, as many as `out` has.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn read_column<T: gather::Target>(&self, first: usize, out: &mut [T]) {
        assert!(first + out.len() <= self.rows() && self.columns > 0, "a part of a column");
        let start = self.start().wrapping_offset(first as isize * self.row_stride);
        let length = out.len();
        // SAFETY: as above.
        unsafe { gather::gather(self.source, start, 0, self.row_stride, &[0], length, out, length) }
    }

    fn start(&self) -> *const u8 {
        self.buffer.buf_ptr().cast::<u8>().cast_const()
    }

    /// Whether values above `i64::MAX` are possible.
    pub fn is_u64(&self) -> bool {
        self.source == Source::U64
    }

    /// Whether no element can be NaN or infinite.
    pub fn is_integer(&self) -> bool {
        !matches!(self.source, Source::F32 | Source::F64)
    }
}

impl Rows for Table {
    fn gather(&self, rows: &[u32], out: &Array) -> ferrograd_core::error::Result<()> {
        let elements = out.shape().elements();
        if rows.len() * self.columns != elements || rows.iter().any(|&row| row as usize >= self.rows()) {
            return Err(Error::Shape {
                op: "gather",
                expected: format!("{elements} elements for a batch of shape {}", out.shape()),
                got: format!("{} rows of {} of a table of {}", rows.len(), self.columns, self.rows()),
            });
        }
        let start = self.start();
        let out_stride = out.row_stride();
        macro_rules! into {
            ($t:ty) => {{
                // SAFETY: rows are in range and have `columns` evenly strided elements of the buffer's
                // format, which `source` names.
                unsafe {
                    gather::gather::<$t>(
                        self.source,
                        start,
                        self.row_stride,
                        self.column_stride,
                        rows,
                        self.columns,
                        &mut out.write::<$t>(),
                        out_stride,
                    );
                }
                Ok(())
            }};
        }
        match out.dtype() {
            DType::F32 => into!(f32),
            DType::F64 => into!(f64),
            DType::I64 => into!(i64),
            got => Err(Error::DType { op: "gather", expected: "float32, float64 or int64", got }),
        }
    }
}

/// The element type that a native format code stands for.
fn source(format: &[u8], itemsize: usize) -> Option<Source> {
    let code = match format {
        [b'@' | b'=' | b'<' | b'^', code] if cfg!(target_endian = "little") => code,
        [code] => code,
        _ => return None,
    };
    match (code, itemsize) {
        (b'?', 1) => Some(Source::Bool),
        (b'B', 1) => Some(Source::U8),
        (b'b', 1) => Some(Source::I8),
        (b'H', 2) => Some(Source::U16),
        (b'h', 2) => Some(Source::I16),
        (b'I' | b'L', 4) => Some(Source::U32),
        (b'i' | b'l', 4) => Some(Source::I32),
        (b'L' | b'Q', 8) => Some(Source::U64),
        (b'l' | b'q', 8) => Some(Source::I64),
        (b'f', 4) => Some(Source::F32),
        (b'd', 8) => Some(Source::F64),
        _ => None,
    }
}
