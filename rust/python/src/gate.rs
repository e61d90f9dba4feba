//! Gates written in Python: objects with `forward(*inputs)` and `backward(dout)`.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ferrograd_core::dtype::DType;
use ferrograd_core::error::Result as CoreResult;
use ferrograd_core::op::{Gate, Recorded, apply_gate};
use ferrograd_core::tensor::Tensor;
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyTuple};

use crate::array;
use crate::error::{Kind, Result, enter, raise};
use crate::operand;
use crate::tensor::{self, PyTensor};

/// How a gate sees values of rank 0.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scalars {
    /// As Python floats: in the explicit graph.
    Float,
    /// As numpy arrays like all others: in tensor code.
    Array,
}

/// A user's object as a gate of the core.
pub struct PyGate {
    object: Py<PyAny>,
    name: String,
    scalars: Scalars,
    last_call: AtomicU64,
}

impl PyGate {
    /// Wraps an object with `forward` and `backward`.
    ///
    /// # Errors
    /// `GraphError` where one of them is missing.
    pub fn wrap(object: &Bound<'_, PyAny>, scalars: Scalars) -> Result<Arc<dyn Gate>> {
        let name = object.get_type().name()?.to_string();
        for method in ["forward", "backward"] {
            if !object.getattr_opt(method)?.is_some_and(|m| m.is_callable()) {
                let text =
                    format!("gate: expected an op's name or an object with forward and backward, got {name}");
                return Err(raise(Kind::Graph, text).into());
            }
        }
        Ok(Arc::new(PyGate { object: object.clone().unbind(), name, scalars, last_call: AtomicU64::new(0) }))
    }

    fn to_python<'py>(&self, py: Python<'py>, value: &Tensor) -> Result<Bound<'py, PyAny>> {
        if self.scalars == Scalars::Float && value.shape().rank() == 0 {
            return Ok(PyFloat::new(py, value.item()?).into_any());
        }
        array::to_numpy(py, value.array())
    }
}

/// The dtype that Python numbers take: that of the first float beside them.
fn float_beside(values: &[Tensor]) -> DType {
    values.iter().map(Tensor::dtype).find(|dtype| dtype.is_float()).unwrap_or(DType::F32)
}

impl Gate for PyGate {
    fn name(&self) -> &str {
        &self.name
    }

    fn forward(&self, inputs: &[Tensor]) -> CoreResult<Vec<Tensor>> {
        let run = |py: Python<'_>| -> Result<Vec<Tensor>> {
            let values = inputs.iter().map(|x| self.to_python(py, x)).collect::<Result<Vec<_>>>()?;
            let returned = self.object.bind(py).call_method1("forward", PyTuple::new(py, values)?)?;
            let dtype = float_beside(inputs);
            match returned.cast::<PyTuple>() {
                Ok(outputs) => outputs.iter().map(|value| from_python(&value, dtype)).collect(),
                Err(_) => Ok(vec![from_python(&returned, dtype)?]),
            }
        };
        Ok(Python::attach(run)?)
    }

    fn backward(&self, output_grads: &[Tensor]) -> CoreResult<Vec<Option<Tensor>>> {
        let run = |py: Python<'_>| -> Result<Vec<Option<Tensor>>> {
            let values = output_grads.iter().map(|x| self.to_python(py, x)).collect::<Result<Vec<_>>>()?;
            let dout = match values.as_slice() {
                [one] => one.clone(),
                several => PyTuple::new(py, several)?.into_any(),
            };
            let returned = self.object.bind(py).call_method1("backward", (dout,))?;
            let dtype = float_beside(output_grads);
            let read = |value: Bound<'_, PyAny>| -> Result<Option<Tensor>> {
                if value.is_none() { Ok(None) } else { Ok(Some(from_python(&value, dtype)?)) }
            };
            match returned.cast::<PyTuple>() {
                Ok(grads) => grads.iter().map(read).collect(),
                Err(_) => Ok(vec![read(returned)?]),
            }
        };
        Ok(Python::attach(run)?)
    }

    fn backward_recorded(
        &self,
        inputs: &[Tensor],
        outputs: &[Tensor],
        output_grads: &[Tensor],
    ) -> CoreResult<Recorded> {
        let run = |py: Python<'_>| -> Result<Recorded> {
            let Some(method) = self.object.bind(py).getattr_opt("backward_recorded")? else {
                return Ok(Recorded::Refused);
            };
            let [inputs, outputs, grads] = [inputs, outputs, output_grads]
                .map(|tensors| PyTuple::new(py, tensors.iter().cloned().map(PyTensor::from)));
            let returned = tensor::recording_all(|| method.call1((inputs?, outputs?, grads?)))?;
            let read = |value: Bound<'_, PyAny>| -> Result<Option<Tensor>> {
                if value.is_none() { Ok(None) } else { Ok(Some(operand::tensor("backward", &value)?)) }
            };
            if returned.is_none() {
                return Ok(Recorded::Once);
            }
            Ok(Recorded::Gradients(returned.try_iter()?.map(|value| read(value?)).collect::<Result<_>>()?))
        };
        Ok(Python::attach(run)?)
    }

    fn last_call(&self) -> &AtomicU64 {
        &self.last_call
    }
}

fn from_python(value: &Bound<'_, PyAny>, dtype: DType) -> Result<Tensor> {
    Ok(operand::tensor_beside("gate", value, dtype)?.detach())
}

/// A gate that is called with tensors.
#[pyclass(name = "GateFunction", module = "ferrograd._core", frozen)]
pub struct PyGateFunction(Arc<dyn Gate>);

#[pymethods]
impl PyGateFunction {
    #[pyo3(signature = (*tensors))]
    fn __call__<'py>(&self, py: Python<'py>, tensors: &Bound<'py, PyTuple>) -> Result<Bound<'py, PyAny>> {
        enter(|| {
            let inputs = tensors.iter().map(|x| operand::tensor("gate", &x)).collect::<Result<Vec<_>>>()?;
            let outputs = apply_gate(&self.0, &inputs)?;
            let mut outputs: Vec<PyTensor> = outputs.into_iter().map(PyTensor::from).collect();
            match outputs.pop() {
                Some(only) if outputs.is_empty() => Ok(Bound::new(py, only)?.into_any()),
                Some(last) => {
                    outputs.push(last);
                    Ok(PyTuple::new(py, outputs)?.into_any())
                }
                None => Err(raise(Kind::Graph, "gate: forward returned nothing").into()),
            }
        })
    }

    fn __repr__(&self) -> String {
        format!("gate({})", self.0.name())
    }
}

/// The user's object as a function of tensors: `forward` and `backward` get and return numpy arrays
/// on the calling thread, so each use costs two conversions and runs at Python's speed.
///
/// `create_graph=True` or forward mode through it raises GraphError: its backward works on plain numbers.
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> class Square:
/// ...     def forward(self, x):
/// ...         self.x = x
/// ...         return x * x
/// ...     def backward(self, g):
/// ...         return 2 * self.x * g
/// >>> x = fg.tensor([3.0], requires_grad=True)
/// >>> fg.gate(Square())(x).backward()
/// >>> x.grad
/// tensor([6.])
#[pyfunction]
pub fn gate(obj: &Bound<'_, PyAny>) -> Result<PyGateFunction> {
    enter(|| Ok(PyGateFunction(PyGate::wrap(obj, Scalars::Array)?)))
}
