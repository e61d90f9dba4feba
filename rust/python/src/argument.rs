//! Arguments that are plain numbers and flags. What is none is refused under the name of the argument, which the
//! conversions of pyo3 do not know.

use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList, PyTuple};

use crate::error::{Kind, raise};

/// What an argument may be, in words.
pub trait Argument: Sized {
    /// The words.
    const EXPECTED: &'static str;
    /// Reads one.
    ///
    /// # Errors
    /// Python's.
    fn read(object: &Bound<'_, PyAny>) -> PyResult<Self>;
}

macro_rules! kinds {
    ($($kind:ty: $expected:literal;)*) => {$(
        impl Argument for $kind {
            const EXPECTED: &'static str = $expected;
            fn read(object: &Bound<'_, PyAny>) -> PyResult<Self> {
                object.extract()
            }
        }
    )*};
}
kinds! {
    bool: "True or False";
    String: "text";
    i32: "an integer of 32 bits";
    Option<bool>: "True, False or None";
    Option<String>: "text or None";
    f64: "a number";
    i64: "an integer";
    isize: "an integer";
    usize: "an integer of at least 0";
    Vec<isize>: "a sequence of integers";
    Option<f64>: "a number or None";
    Option<isize>: "an integer or None";
    Option<Vec<isize>>: "a sequence of integers or None";
}

/// Reads the argument of this name.
///
/// # Errors
/// `DTypeError` where it is of another kind, `ConfigError` for an integer out of range.
pub fn named<T: Argument>(name: &str, object: &Bound<'_, PyAny>) -> PyResult<T> {
    T::read(object).map_err(|error| refused(name, T::EXPECTED, object, &error))
}

/// Goes through an argument of several things.
///
/// # Errors
/// `DTypeError` where it is none.
pub fn each<'py>(name: &str, expected: &str, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyIterator>> {
    object.try_iter().map_err(|error| refused(name, expected, object, &error))
}

/// The error for integers that could not be read: it shows the first element that is none.
#[cold]
pub fn refused_integers(name: &str, object: &Bound<'_, PyAny>, error: &PyErr) -> PyErr {
    let is_listed = object.is_instance_of::<PyTuple>() || object.is_instance_of::<PyList>();
    let parts = if is_listed { object.try_iter().ok() } else { None };
    let wrong = |part: Bound<'_, PyAny>| part.extract::<isize>().err().map(|error| (part.unbind(), error));
    match parts.and_then(|parts| parts.flatten().find_map(wrong)) {
        Some((part, error)) => refused(name, "integers", part.bind(object.py()), &error),
        None => refused(name, "integers", object, error),
    }
}

/// The error for an argument that could not be read.
#[cold]
pub fn refused(name: &str, expected: &str, object: &Bound<'_, PyAny>, error: &PyErr) -> PyErr {
    if error.is_instance_of::<PyOverflowError>(object.py()) {
        return raise(Kind::Config, format!("{name}: expected {expected} in range, got {object}"));
    }
    let kind = object.get_type().name().map_or_else(|_| "something else".into(), |kind| kind.to_string());
    let got = if object.is_none() { "None".into() } else { kind };
    raise(Kind::DType, format!("{name}: expected {expected}, got {got}"))
}

/// Readers for `from_py_with`, each of the name of its argument.
macro_rules! readers {
    ($($name:ident)*) => {$(
        pub fn $name<T: Argument>(object: &Bound<'_, PyAny>) -> PyResult<T> {
            named(stringify!($name), object)
        }
    )*};
}
readers! {
    a allow_unused alpha b beta chunks correction create_graph decimals descending dim dim0 dim1 divide_by_classes end
    end_dim equation high ignore_index index k keepdim label_smoothing largest length low m margin mean mode n name
    negative_slope normal num_classes p pieces requires_grad retain_graph shape size slot sorted stable start start_dim std
    step steps threads threshold unbiased value
}
