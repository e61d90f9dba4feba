//! The class `Tensor`: construction, properties, conversion and autograd. Ops are in the `tensor_*` files.

use std::cell::RefCell;
use std::sync::Arc;

use ferrograd_core::dtype::DType;
use ferrograd_core::op::Op;
use ferrograd_core::shape::Dims;
use ferrograd_core::tensor::{Node, Tensor};
use ferrograd_core::vmap;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyTuple};

use crate::argument;
use crate::dtype::{PyDType, PyDevice};
use crate::error::{Kind, Result, enter, enter_detached, raise};
use crate::hook::{self, PyRemovableHandle};
use crate::{array, autograd, dtype, operand};

/// An array with its place in the graph of operations.
///
/// `Tensor(data, dtype=None, requires_grad=False)` shares the values of another Tensor and copies
/// everything else; `ferrograd.tensor` always copies.
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> x = fg.tensor([1.0, 2.0], requires_grad=True)
/// >>> (x * x).sum().backward()
/// >>> x.grad
/// tensor([2., 4.])
#[pyclass(name = "Tensor", module = "ferrograd", subclass, frozen, weakref)]
pub struct PyTensor(Value);

enum Value {
    Live(Tensor),
    /// A node whose values nobody holds any more: ops, parents and shapes stay walkable.
    Freed(Arc<Node>),
}

impl From<Tensor> for PyTensor {
    #[inline]
    fn from(tensor: Tensor) -> PyTensor {
        PyTensor(Value::Live(tensor))
    }
}

impl PyTensor {
    /// A tensor of a node, with its values if they still exist.
    pub fn of_node(node: &Arc<Node>) -> PyTensor {
        PyTensor(match node.value() {
            Some(tensor) => Value::Live(tensor),
            None => Value::Freed(node.clone()),
        })
    }

    /// The tensor with its values.
    ///
    /// # Errors
    /// `GraphError` when they were freed.
    #[inline]
    pub fn live(&self) -> Result<&Tensor> {
        match &self.0 {
            Value::Live(tensor) => Ok(tensor),
            Value::Freed(node) => Err(freed(node)),
        }
    }

    /// The graph side.
    pub fn node(&self) -> &Arc<Node> {
        match &self.0 {
            Value::Live(tensor) => tensor.node(),
            Value::Freed(node) => node,
        }
    }

    /// The shape, which outlives the values.
    pub fn shape(&self) -> &Dims {
        self.node().shape()
    }
}

/// Where values must not leave the graph: there they would be taken for constants.
enum Inside {
    /// A user's backward that is to be differentiated.
    Backward,
    /// A function of one example, which is one of these leaves, that is to be computed for many.
    Examples(Vec<u64>),
}

thread_local! {
    static INSIDE: RefCell<Option<Inside>> = const { RefCell::new(None) };
}

fn inside<R>(place: Inside, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<Inside>);
    impl Drop for Restore {
        fn drop(&mut self) {
            INSIDE.replace(self.0.take());
        }
    }
    let _restore = Restore(INSIDE.replace(Some(place)));
    f()
}

/// Runs a user's backward whose every step must be recorded.
pub fn recording_all<R>(f: impl FnOnce() -> R) -> R {
    inside(Inside::Backward, f)
}

/// Runs a function on examples whose values must not be looked at.
pub fn on_examples<R>(examples: &[Tensor], f: impl FnOnce() -> R) -> R {
    inside(Inside::Examples(examples.iter().map(|x| x.node().id()).collect()), f)
}

/// That the values may be taken for constants here. A `copy` of an example is followed, and so is a `choice` by a
/// value in backward.
fn check_leaving(tensor: &Tensor, is_copy: bool, is_choice: bool) -> Result<()> {
    INSIDE.with_borrow(|inside| {
        let text = match inside {
            Some(Inside::Backward) if !is_choice && tensor.requires_grad() => {
                "backward: values left the graph while their derivative is recorded; use operations on tensors, \
                 or mark backward as once_differentiable"
            }
            Some(Inside::Examples(ids)) if !is_copy && vmap::depends(tensor.node(), ids) => {
                "vmap: the function reads the values of a tensor, which differ from example to example; use \
                 operations on tensors, such as where()"
            }
            _ => return Ok(()),
        };
        Err(raise(Kind::Graph, text).into())
    })
}

#[cold]
fn freed(node: &Node) -> crate::error::Failure {
    let op = node.op().map_or("leaf", Op::name);
    let text = format!(
        "tensor: the values of this result of {op} were freed with the Tensor that held them; keep that Tensor to read them"
    );
    raise(Kind::Graph, text).into()
}

/// A new tensor from array-like data.
///
/// # Errors
/// Those of [`array::read`]; `DTypeError` for a gradient of integers.
pub fn construct(
    data: &Bound<'_, PyAny>,
    dtype: Option<DType>,
    requires_grad: bool,
    copies: bool,
) -> Result<Tensor> {
    let made = match data.cast::<PyTensor>() {
        Ok(tensor) => {
            let source = tensor.get().live()?;
            check_leaving(source, true, false)?;
            let source = source.detach();
            match dtype {
                Some(dtype) if dtype != source.dtype() => source.cast(dtype)?.detach(),
                _ if copies => source.copied()?.detach(),
                _ => source,
            }
        }
        Err(_) => Tensor::constant(array::read("data", data, dtype)?),
    };
    if requires_grad {
        made.set_requires_grad(true)?;
    }
    Ok(made)
}

#[pymethods]
impl PyTensor {
    #[new]
    #[pyo3(signature = (data, dtype = None, requires_grad = false))]
    fn new(
        data: &Bound<'_, PyAny>,
        dtype: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = argument::requires_grad)] requires_grad: bool,
    ) -> Result<PyTensor> {
        enter(|| Ok(construct(data, dtype::parse_optional(dtype)?, requires_grad, false)?.into()))
    }

    /// `None`: numpy leaves mixed operations to this class.
    #[classattr]
    #[pyo3(name = "__array_ufunc__")]
    const ARRAY_UFUNC: Option<i32> = None;

    /// The sizes of the dimensions.
    #[getter(shape)]
    fn py_shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.shape().iter())
    }

    /// Number of dimensions.
    #[getter]
    fn ndim(&self) -> usize {
        self.shape().rank()
    }

    /// Element type.
    #[getter]
    fn dtype(&self, py: Python<'_>) -> PyResult<Py<PyDType>> {
        dtype::object(py, self.node().dtype())
    }

    /// Where the values are.
    #[getter]
    fn device(&self) -> PyDevice {
        PyDevice
    }

    /// Whether gradients flow to or through this tensor.
    #[getter]
    fn requires_grad(&self) -> bool {
        self.node().requires_grad()
    }

    #[setter]
    fn set_requires_grad(&self, #[pyo3(from_py_with = argument::requires_grad)] value: bool) -> Result<()> {
        enter(|| Ok(self.live()?.set_requires_grad(value)?))
    }

    /// The gradient that `backward` has added up so far; changing it in place changes what is stored.
    #[getter]
    fn grad(&self) -> Result<Option<PyTensor>> {
        enter(|| Ok(self.live()?.grad().map(PyTensor::from)))
    }

    #[setter]
    fn set_grad(&self, value: Option<&Bound<'_, PyAny>>) -> Result<()> {
        enter(|| {
            let grad =
                value.map(|value| operand::tensor_beside("grad", value, self.node().dtype())).transpose()?;
            Ok(self.live()?.set_grad(grad)?)
        })
    }

    /// Whether no recorded operation made it.
    #[getter]
    fn is_leaf(&self) -> bool {
        self.node().op().is_none()
    }

    /// Name of the operation that made it; `None` for a leaf.
    #[getter]
    fn op(&self) -> Option<&str> {
        self.node().op().map(Op::name)
    }

    /// The operands of that operation. They stay walkable after their values are freed.
    #[getter]
    fn parents<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyTuple>> {
        let parents = self.node().parents().iter().map(PyTensor::of_node);
        let parents = parents.map(|parent| Py::new(py, parent)).collect::<PyResult<Vec<_>>>()?;
        Ok(PyTuple::new(py, parents)?)
    }

    /// The values without the graph; shares memory.
    #[getter]
    fn data(&self) -> Result<PyTensor> {
        self.detach()
    }

    /// The values without the graph; shares memory.
    fn detach(&self) -> Result<PyTensor> {
        enter(|| Ok(self.live()?.detach().into()))
    }

    /// A copy through which gradients flow.
    #[pyo3(name = "clone")]
    fn py_clone(&self) -> Result<PyTensor> {
        enter(|| Ok(self.live()?.copied()?.into()))
    }

    /// Adds the gradients of this scalar (or, with `gradient`, of its product with it) to `.grad` of the leaves.
    ///
    /// `retain_graph` (default: `create_graph`) keeps what the graph has saved for another backward;
    /// `create_graph` records the gradients, so that they can be differentiated again. With `inputs`, a tensor or
    /// several, only these get gradients.
    ///
    /// Raises GraphError where nothing requires a gradient, where the graph was freed by an earlier
    /// backward, and for several elements without `gradient`. No gradient has changed then.
    #[pyo3(signature = (gradient = None, retain_graph = None, create_graph = false, inputs = None))]
    fn backward(
        &self,
        py: Python<'_>,
        gradient: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = argument::retain_graph)] retain_graph: Option<bool>,
        #[pyo3(from_py_with = argument::create_graph)] create_graph: bool,
        inputs: Option<&Bound<'_, PyAny>>,
    ) -> Result<()> {
        enter(|| {
            let tensor = self.live()?;
            let gradient =
                gradient.map(|g| operand::tensor_beside("gradient", g, tensor.dtype())).transpose()?;
            let inputs = inputs.map(|inputs| autograd::inputs("backward", inputs)).transpose()?;
            let retain = retain_graph.unwrap_or(create_graph);
            enter_detached(py, || {
                tensor.backward_to(inputs.as_deref(), gradient.as_ref(), retain, create_graph)
            })
        })
    }

    /// Asks `backward` to keep the gradient of this result in `.grad`.
    fn retain_grad(&self) -> Result<()> {
        enter(|| {
            let tensor = self.live()?;
            if !tensor.requires_grad() {
                return Err(raise(Kind::Graph, "retain_grad: the tensor does not require a gradient").into());
            }
            tensor.retain_grad();
            Ok(())
        })
    }

    /// Calls `hook(grad)` with the whole gradient of this tensor in each backward pass, before it is added to
    /// `.grad`; a tensor that it returns takes the gradient's place. Hooks run in the order of their making.
    ///
    /// A `Trainer` calls it once, while the step is traced: its operations are part of every step, its prints are
    /// not.
    ///
    /// The tensor keeps its hooks alive: one that refers to the tensor, or to the model that has it, keeps both
    /// until it is removed.
    ///
    /// Returns a handle whose `remove` takes the hook away. Raises GraphError where the tensor does not require a
    /// gradient; backward raises ShapeError or DTypeError for a returned gradient that does not fit.
    fn register_hook(&self, hook: &Bound<'_, PyAny>) -> Result<PyRemovableHandle> {
        enter(|| hook::attach(self, hook))
    }

    /// A number that changes with each hook that comes or goes; 0 before the first.
    #[getter]
    fn _hooks_version(&self) -> u64 {
        self.node().hooks_version()
    }

    /// Sets `requires_grad` and returns the tensor.
    #[pyo3(signature = (requires_grad = true))]
    fn requires_grad_<'py>(
        slf: Bound<'py, Self>,
        #[pyo3(from_py_with = argument::requires_grad)] requires_grad: bool,
    ) -> Result<Bound<'py, Self>> {
        enter(|| Ok(slf.get().live()?.set_requires_grad(requires_grad)?))?;
        Ok(slf)
    }

    /// A copy of the values as a numpy array.
    fn numpy<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        enter(|| {
            let tensor = self.live()?;
            check_leaving(tensor, false, false)?;
            array::to_numpy(py, tensor.array())
        })
    }

    #[pyo3(signature = (dtype = None, copy = None))]
    fn __array__<'py>(
        &self,
        py: Python<'py>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> Result<Bound<'py, PyAny>> {
        if copy == Some(false) {
            return Err(pyo3::exceptions::PyValueError::new_err(
                "array: a Tensor's values cannot be shared, only copied",
            )
            .into());
        }
        let values = self.numpy(py)?;
        match dtype {
            None => Ok(values),
            Some(dtype) => {
                let options = PyDict::new(py);
                options.set_item("copy", false)?;
                Ok(values.call_method("astype", (dtype,), Some(&options))?)
            }
        }
    }

    /// The value of a tensor with one element as a Python number.
    fn item<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        enter(|| {
            let tensor = self.live()?;
            check_leaving(tensor, false, false)?;
            let value = tensor.item()?;
            Ok(match tensor.dtype() {
                DType::F32 | DType::F64 => PyFloat::new(py, value).into_any(),
                DType::I64 => PyInt::new(py, tensor.to_vec::<i64>()[0]).into_any(),
                DType::U8 => PyInt::new(py, value as u8).into_any(),
                DType::Bool => PyBool::new(py, value != 0.0).to_owned().into_any(),
            })
        })
    }

    /// The values as nested lists of Python numbers.
    fn tolist<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        Ok(self.numpy(py)?.call_method0("tolist")?)
    }

    /// Strides in elements.
    fn stride<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyTuple>> {
        Ok(PyTuple::new(py, self.live()?.array().strides().iter())?)
    }

    /// Whether the elements lie in row-major order without gaps.
    fn is_contiguous(&self) -> Result<bool> {
        Ok(self.live()?.array().is_contiguous())
    }

    /// Row-major without gaps: itself, or a copy.
    fn contiguous(&self) -> Result<PyTensor> {
        enter(|| Ok(self.live()?.contiguous()?.into()))
    }

    /// The shape, or the size of one dimension.
    #[pyo3(signature = (dim = None))]
    fn size<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = argument::dim)] dim: Option<isize>,
    ) -> Result<Bound<'py, PyAny>> {
        enter(|| match dim {
            None => Ok(self.py_shape(py)?.into_any()),
            Some(dim) if self.shape().rank() > 0 => {
                let size = self.shape()[self.shape().dim("size", dim)?];
                Ok(PyInt::new(py, size).into_any())
            }
            Some(_) => Err(raise(Kind::Shape, "size: a tensor of shape () has no dimensions").into()),
        })
    }

    /// Number of dimensions.
    fn dim(&self) -> usize {
        self.shape().rank()
    }

    /// Number of elements.
    fn numel(&self) -> usize {
        self.shape().elements()
    }

    /// Another dtype; the same tensor where it already has it.
    fn to<'py>(slf: &Bound<'py, Self>, dtype: &Bound<'_, PyAny>) -> Result<Bound<'py, PyAny>> {
        enter(|| cast(slf, dtype::parse(dtype)?))
    }

    /// As float32.
    fn float<'py>(slf: &Bound<'py, Self>) -> Result<Bound<'py, PyAny>> {
        enter(|| cast(slf, DType::F32))
    }

    /// As float64.
    fn double<'py>(slf: &Bound<'py, Self>) -> Result<Bound<'py, PyAny>> {
        enter(|| cast(slf, DType::F64))
    }

    /// As int64.
    fn long<'py>(slf: &Bound<'py, Self>) -> Result<Bound<'py, PyAny>> {
        enter(|| cast(slf, DType::I64))
    }

    fn __len__(&self) -> Result<usize> {
        match self.shape().first() {
            Some(&length) => Ok(length),
            None => Err(PyTypeError::new_err("len: a tensor of shape () has no length").into()),
        }
    }

    fn __bool__(&self) -> Result<bool> {
        enter(|| {
            let tensor = self.live()?;
            if tensor.shape().elements() != 1 {
                let text = format!(
                    "bool: the truth value of a tensor of shape {} is ambiguous; use .any() or .all()",
                    tensor.shape()
                );
                return Err(raise(Kind::Shape, text).into());
            }
            check_leaving(tensor, false, true)?;
            Ok(tensor.item()? != 0.0)
        })
    }

    fn __float__(&self) -> Result<f64> {
        enter(|| {
            check_leaving(self.live()?, false, false)?;
            Ok(self.live()?.item()?)
        })
    }

    fn __int__<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        Ok(self.item(py)?.call_method0("__int__")?)
    }

    fn __index__<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyAny>> {
        if self.node().dtype().is_float() {
            return Err(raise(
                Kind::DType,
                format!("index: expected an integer tensor, got {}", self.node().dtype()),
            )
            .into());
        }
        self.__int__(py)
    }

    /// By identity, although `==` is elementwise: tensors can be keys.
    fn __hash__(slf: &Bound<'_, Self>) -> isize {
        // Objects are aligned to 16 bytes: the low bits would be wasted.
        (slf.as_ptr() as usize).rotate_right(4) as isize
    }
}

fn cast<'py>(tensor: &Bound<'py, PyTensor>, dtype: DType) -> Result<Bound<'py, PyAny>> {
    let live = tensor.get().live()?;
    if live.dtype() == dtype {
        return Ok(tensor.clone().into_any());
    }
    Ok(Bound::new(tensor.py(), PyTensor::from(live.cast(dtype)?))?.into_any())
}
