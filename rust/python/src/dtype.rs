//! Element types and devices as Python objects.

use ferrograd_core::dtype::DType;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;

use crate::array;
use crate::error::{Failure, Kind, Result, enter, raise};

/// An element type: float32, float64, int64, uint8 or bool.
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> fg.zeros(1).dtype
/// ferrograd.float32
/// >>> fg.float32.name, fg.float32.is_floating_point
/// ('float32', True)
#[pyclass(name = "DType", module = "ferrograd", frozen)]
pub struct PyDType(pub DType);

const ALL: [DType; 5] = [DType::F32, DType::F64, DType::I64, DType::U8, DType::Bool];

static OBJECTS: PyOnceLock<[Py<PyDType>; 5]> = PyOnceLock::new();

/// The one object of a dtype, so that `x.dtype is fg.float32` holds.
pub fn object(py: Python<'_>, dtype: DType) -> PyResult<Py<PyDType>> {
    let objects = OBJECTS.get_or_try_init(py, || {
        let mut made = Vec::new();
        for dtype in ALL {
            made.push(Py::new(py, PyDType(dtype))?);
        }
        made.try_into().map_err(|_| raise(Kind::Internal, "five dtypes"))
    })?;
    let at = ALL.iter().position(|&d| d == dtype).unwrap_or(0);
    Ok(objects[at].clone_ref(py))
}

/// Puts the dtype objects into the module; bool is `bool_` there, as `bool` would hide Python's.
///
/// # Errors
/// Python's.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for dtype in ALL {
        let name = if dtype == DType::Bool { "bool_" } else { dtype.name() };
        module.add(name, object(module.py(), dtype)?)?;
    }
    Ok(())
}

/// The dtype that a dtype object, a numpy dtype or type, or a name stands for.
///
/// # Errors
/// `DTypeError` for one that tensors do not have.
pub fn parse(object: &Bound<'_, PyAny>) -> Result<DType> {
    if let Ok(dtype) = object.cast::<PyDType>() {
        return Ok(dtype.get().0);
    }
    let name = array::dtype_name(object).unwrap_or_else(|_| object.to_string());
    ALL.into_iter().find(|dtype| dtype.name() == name).ok_or_else(|| {
        let known: Vec<_> = ALL.iter().map(|dtype| dtype.name()).collect();
        Failure::Python(raise(
            Kind::DType,
            format!("dtype: expected one of {}, got {name}", known.join(", ")),
        ))
    })
}

/// As [`parse`], `None` for `None`.
///
/// # Errors
/// As [`parse`].
pub fn parse_optional(object: Option<&Bound<'_, PyAny>>) -> Result<Option<DType>> {
    object.map(parse).transpose()
}

#[pymethods]
impl PyDType {
    /// numpy's name.
    #[getter]
    fn name(&self) -> &'static str {
        self.0.name()
    }

    /// Bytes of one element.
    #[getter]
    fn itemsize(&self) -> usize {
        self.0.size()
    }

    /// Whether gradients can flow through it.
    #[getter]
    fn is_floating_point(&self) -> bool {
        self.0.is_float()
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<PyDType>().is_ok_and(|other| other.get().0 == self.0)
    }

    fn __ne__(&self, other: &Bound<'_, PyAny>) -> bool {
        !self.__eq__(other)
    }

    fn __hash__(&self) -> u64 {
        self.0 as u64
    }

    fn __repr__(&self) -> String {
        format!("ferrograd.{}", self.0.name())
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (&'static str,))> {
        Ok((py.import("ferrograd._core")?.getattr("_rebuild_dtype")?, (self.0.name(),)))
    }
}

/// The dtype object of a name: what pickle calls.
#[pyfunction]
pub fn _rebuild_dtype(py: Python<'_>, name: &Bound<'_, PyString>) -> Result<Py<PyDType>> {
    enter(|| Ok(object(py, parse(name.as_any())?)?))
}

/// Where tensors live: "cpu".
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> fg.zeros(1).device
/// device(type='cpu')
/// >>> fg.device("cpu") == fg.zeros(1).device
/// True
#[pyclass(name = "Device", module = "ferrograd", frozen)]
pub struct PyDevice;

/// Checks a device argument.
///
/// # Errors
/// `DeviceError` for anything but the CPU.
pub fn check_device(device: Option<&Bound<'_, PyAny>>) -> Result<()> {
    match device {
        None => Ok(()),
        Some(device) if device.cast::<PyDevice>().is_ok() => Ok(()),
        Some(device) => match device.extract::<String>() {
            Ok(name) if name == "cpu" => Ok(()),
            _ => Err(raise(Kind::Device, format!("device: expected \"cpu\", got {}", device.repr()?)).into()),
        },
    }
}

#[pymethods]
impl PyDevice {
    #[new]
    #[pyo3(signature = (r#type = None), text_signature = "(type='cpu')")]
    fn new(r#type: Option<&Bound<'_, PyAny>>) -> Result<PyDevice> {
        enter(|| check_device(r#type).map(|()| PyDevice))
    }

    /// "cpu".
    #[getter]
    fn r#type(&self) -> &'static str {
        "cpu"
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<PyDevice>().is_ok()
    }

    fn __ne__(&self, other: &Bound<'_, PyAny>) -> bool {
        !self.__eq__(other)
    }

    fn __hash__(&self) -> u64 {
        1
    }

    fn __repr__(&self) -> &'static str {
        "device(type='cpu')"
    }

    fn __str__(&self) -> &'static str {
        "cpu"
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (&'static str,))> {
        Ok((py.get_type::<PyDevice>().into_any(), ("cpu",)))
    }
}
