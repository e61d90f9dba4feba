//! One door between Rust and Python: exception classes, the mapping of errors to them, and the wrapper
//! that keeps panics from crossing.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ferrograd_core::anomaly::Birth;
use ferrograd_core::error::Error;
use pyo3::exceptions as builtin;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};

use crate::tensor::PyTensor;

/// An error on its way to Python.
pub enum Failure {
    /// From the core, not yet translated.
    Core(Box<Error>),
    /// A Python exception.
    Python(PyErr),
}

/// `Result` with [`Failure`].
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Core(Box::new(error))
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Failure {
        Failure::Python(error)
    }
}

impl From<pyo3::CastError<'_, '_>> for Failure {
    fn from(error: pyo3::CastError<'_, '_>) -> Failure {
        Failure::Python(error.into())
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> PyErr {
        match failure {
            Failure::Core(error) => Python::attach(|py| translate(py, *error)),
            Failure::Python(error) => error,
        }
    }
}

/// For a callback: the core carries a Python exception unchanged.
impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure {
            Failure::Core(error) => *error,
            Failure::Python(error) => Python::attach(|py| match born(py, &error) {
                Some(birth) => Error::NonFinite(Box::new(Birth { source: Some(Box::new(error)), ..birth })),
                None => Error::Foreign(Box::new(error)),
            }),
        }
    }
}

/// Runs the body of an entry point. A panic becomes `InternalError`.
#[inline]
pub fn enter<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    // After a panic nothing is left half-changed that a later call could see: tensors are replaced
    // whole, and guards of storages let go when they unwind.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Err(internal(payload.as_ref())))
}

/// Like [`enter`] for work that is long enough to let other Python threads run.
pub fn enter_detached<T: Send>(
    py: Python<'_>,
    body: impl FnOnce() -> ferrograd_core::error::Result<T> + Send,
) -> Result<T> {
    py.detach(|| enter(|| body().map_err(Failure::from)))
}

#[cold]
fn internal(payload: &(dyn Any + Send)) -> Failure {
    let message = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into());
    Failure::Python(raise(Kind::Internal, format!("{message} (a bug in ferrograd: please report it)")))
}

/// The exception classes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The base of all.
    Ferrograd,
    /// Shapes that do not fit.
    Shape,
    /// An index outside its dimension.
    OutOfRange,
    /// A dtype that an op does not take.
    DType,
    /// A class index outside the classes.
    Label,
    /// NaN or infinity where numbers were expected.
    NonFinite,
    /// An argument that makes no sense.
    Config,
    /// Misuse of the graph.
    Graph,
    /// A loop in a graph.
    Cycle,
    /// A damaged file.
    CorruptFile,
    /// A file that cannot be read or written.
    Checkpoint,
    /// A device that is not there.
    Device,
    /// A bug in ferrograd.
    Internal,
    /// A NaN that an operation made.
    Anomaly,
}

/// Class, our base, the built-in that users expect, docstring. In the order of [`Kind`].
const CLASSES: [(&str, Kind, &str, &str); 14] = [
    ("FerrogradError", Kind::Ferrograd, "Exception", "Base class of ferrograd's errors."),
    (
        "ShapeError",
        Kind::Ferrograd,
        "ValueError",
        "Shapes that do not fit together or do not fit the operation.",
    ),
    ("OutOfRangeError", Kind::Ferrograd, "IndexError", "An index outside its dimension."),
    ("DTypeError", Kind::Ferrograd, "TypeError", "An element type that the operation does not take."),
    ("LabelError", Kind::Ferrograd, "ValueError", "A class label outside the classes."),
    ("NonFiniteError", Kind::Ferrograd, "ValueError", "NaN or infinity where finite numbers are needed."),
    ("ConfigError", Kind::Ferrograd, "ValueError", "An argument whose value makes no sense."),
    ("GraphError", Kind::Ferrograd, "RuntimeError", "Misuse of the graph or of backward."),
    ("CycleError", Kind::Graph, "", "The nodes of an explicit graph form a loop."),
    ("CorruptFileError", Kind::Ferrograd, "ValueError", "A file whose content is not what it should be."),
    ("CheckpointError", Kind::Ferrograd, "OSError", "A file that cannot be read or written."),
    ("DeviceError", Kind::Ferrograd, "RuntimeError", "A device that does not exist or is not supported."),
    ("InternalError", Kind::Ferrograd, "RuntimeError", "A bug in ferrograd."),
    ("AnomalyError", Kind::NonFinite, "", "An operation made a NaN, or an infinity, in `anomaly_mode`."),
];

static CLASS_OBJECTS: PyOnceLock<Vec<Py<PyType>>> = PyOnceLock::new();

/// `create_exception!` knows one base; two need Python's own `type(name, bases, dict)`.
fn classes(py: Python<'_>) -> PyResult<&Vec<Py<PyType>>> {
    CLASS_OBJECTS.get_or_try_init(py, || {
        let (builtins, make) = (py.import("builtins")?, py.get_type::<PyType>());
        let mut made: Vec<Py<PyType>> = Vec::new();
        for (name, base, builtin, doc) in CLASSES {
            let mut bases: Vec<Bound<'_, PyAny>> = Vec::new();
            if base as usize != made.len() {
                bases.push(made[base as usize].bind(py).clone().into_any());
            }
            if !builtin.is_empty() {
                bases.push(builtins.getattr(builtin)?);
            }
            let dict = PyDict::new(py);
            dict.set_item("__module__", "ferrograd")?;
            dict.set_item("__doc__", doc)?;
            made.push(make.call1((name, PyTuple::new(py, bases)?, dict))?.cast_into::<PyType>()?.unbind());
        }
        Ok(made)
    })
}

/// Puts the classes into the module.
///
/// # Errors
/// Python's.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let made = classes(module.py())?;
    CLASSES.iter().zip(made).try_for_each(|((name, ..), class)| module.add(*name, class))
}

/// An exception of the given class.
pub fn raise(kind: Kind, message: impl Into<String>) -> PyErr {
    let message = message.into();
    Python::attach(|py| match classes(py) {
        Ok(classes) => PyErr::from_type(classes[kind as usize].bind(py).clone(), message),
        Err(error) => error,
    })
}

fn translate(py: Python<'_>, error: Error) -> PyErr {
    let kind = match &error {
        Error::Broadcast { .. } | Error::MatMul { .. } | Error::Shape { .. } | Error::Dim { .. } => {
            Kind::Shape
        }
        Error::Index { .. } => Kind::OutOfRange,
        Error::DType { .. } => Kind::DType,
        Error::Label { .. } => Kind::Label,
        Error::Config { .. } => Kind::Config,
        Error::Graph(_) => Kind::Graph,
        Error::Cycle(_) => Kind::Cycle,
        Error::CorruptFile { .. } => Kind::CorruptFile,
        Error::Checkpoint { path, source } => {
            // OSError(errno, text, filename) fills the attributes that users read.
            let text = match source.raw_os_error() {
                Some(_) => source.to_string(),
                None => format!("{source} ({})", path.display()),
            };
            let arguments = (source.raw_os_error(), text, path.clone());
            return match classes(py) {
                Ok(classes) => {
                    PyErr::from_type(classes[Kind::Checkpoint as usize].bind(py).clone(), arguments)
                }
                Err(error) => error,
            };
        }
        Error::Memory { .. } => return builtin::PyMemoryError::new_err(error.to_string()),
        Error::NonFinite(_) => {
            let Error::NonFinite(birth) = error else { unreachable!("matched above") };
            return anomaly(py, *birth).unwrap_or_else(|error| error);
        }
        Error::Foreign(_) => {
            let Error::Foreign(payload) = error else { unreachable!("matched above") };
            return match payload.downcast::<PyErr>() {
                Ok(original) => *original,
                Err(_) => raise(Kind::Internal, "a callback failed with an unknown error"),
            };
        }
    };
    raise(kind, error.to_string())
}

/// The birth of a NaN, with what is known of it as attributes.
fn anomaly(py: Python<'_>, mut birth: Birth) -> PyResult<PyErr> {
    // The exception that went through the core keeps its traceback.
    let error = match birth.source.take().and_then(|source| source.downcast::<PyErr>().ok()) {
        Some(source) => *source,
        None => raise(Kind::Anomaly, ""),
    };
    let value = error.value(py);
    value.setattr("args", (birth.to_string(),))?;
    value.setattr("at", &birth.at)?;
    value.setattr("value", birth.value)?;
    value.setattr("op", &birth.op)?;
    value.setattr("phase", birth.pass)?;
    value.setattr("layer", birth.layer.as_deref())?;
    value.setattr("epoch", None::<usize>)?;
    value.setattr("batch", birth.batch)?;
    value.setattr("inputs", birth.inputs.iter().cloned().map(PyTensor::from).collect::<Vec<_>>())?;
    Ok(error)
}

/// What an exception of ours, raised by an op inside a gate written in Python, says of a NaN.
fn born(py: Python<'_>, error: &PyErr) -> Option<Birth> {
    const PASSES: [&str; 3] = ["forward", "backward", "jvp"];
    let class = classes(py).ok()?[Kind::Anomaly as usize].bind(py);
    if !error.get_type(py).is(class) {
        return None;
    }
    let value = error.value(py);
    let read = |name: &str| value.getattr(name).ok();
    let pass: String = read("phase")?.extract().ok()?;
    let inputs: Vec<Bound<'_, PyTensor>> = read("inputs")?.extract().ok()?;
    Some(Birth {
        op: read("op")?.extract().ok()?,
        pass: PASSES.into_iter().find(|known| *known == pass)?,
        layer: read("layer")?.extract::<Option<String>>().ok()?.map(Into::into),
        batch: read("batch")?.extract().ok()?,
        inputs: inputs.iter().map(|x| x.get().live().cloned()).collect::<Result<_>>().ok()?,
        at: read("at")?.extract().ok()?,
        value: read("value")?.extract().ok()?,
        source: None,
    })
}
