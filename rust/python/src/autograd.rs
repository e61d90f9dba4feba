//! Gradients as functions, and the modes of a thread: recording, looking for anomalies, counting.

use ferrograd_core::anomaly::{self, Check};
use ferrograd_core::buffer::Array;
use ferrograd_core::shape::Dims;
use ferrograd_core::tensor::{self, Tensor};
use ferrograd_core::vmap::Randomness;
use ferrograd_core::{backward, count, forward, record, steps as core_steps, vmap as core_vmap};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::argument;
use crate::error::{Kind, Result, enter, enter_detached, raise};
use crate::operand;
use crate::tensor::PyTensor;

/// One tensor, or several, of the argument of this name.
fn tensors(name: &str, objects: &Bound<'_, PyAny>) -> Result<Vec<Tensor>> {
    let read = |object: Bound<'_, PyAny>| match object.cast::<PyTensor>() {
        Ok(one) => Ok(one.get().live()?.clone()),
        Err(error) => Err(argument::refused(name, "a Tensor or several", &object, &error.into()).into()),
    };
    if objects.is_instance_of::<PyTensor>() {
        return Ok(vec![read(objects.clone())?]);
    }
    argument::each(name, "a Tensor or several", objects)?.map(|object| read(object?)).collect()
}

/// What gradients are wanted of.
///
/// # Errors
/// `GraphError` for a tensor that does not require one.
pub fn inputs(op: &str, objects: &Bound<'_, PyAny>) -> Result<Vec<Tensor>> {
    let inputs = tensors("inputs", objects)?;
    if let Some(at) = inputs.iter().position(|input| !input.requires_grad()) {
        return Err(raise(Kind::Graph, format!("{op}: input {at} does not require a gradient")).into());
    }
    Ok(inputs)
}

/// The gradients of the sum of `outputs` (weighed by `grad_outputs`) with respect to `inputs`, without
/// touching `.grad`.
///
/// Raises GraphError for an input that does not require a gradient or, unless `allow_unused`, that no
/// output depends on.
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> x = fg.tensor(3.0, requires_grad=True)
/// >>> (slope,) = fg.autograd.grad(x**3, x, create_graph=True)
/// >>> slope.item(), fg.autograd.grad(slope, x)[0].item()
/// (27.0, 18.0)
#[pyfunction]
#[pyo3(signature = (outputs, inputs, grad_outputs = None, retain_graph = None, create_graph = false, allow_unused = None))]
pub fn grad<'py>(
    py: Python<'py>,
    outputs: &Bound<'py, PyAny>,
    inputs: &Bound<'py, PyAny>,
    grad_outputs: Option<&Bound<'py, PyAny>>,
    #[pyo3(from_py_with = argument::retain_graph)] retain_graph: Option<bool>,
    #[pyo3(from_py_with = argument::create_graph)] create_graph: bool,
    #[pyo3(from_py_with = argument::allow_unused)] allow_unused: Option<bool>,
) -> Result<Bound<'py, PyTuple>> {
    enter(|| {
        let seeds = match grad_outputs {
            None => Vec::new(),
            Some(seed) if outputs.cast::<PyTensor>().is_ok() && !is_list(seed) => {
                vec![Some(operand::tensor("grad_outputs", seed)?)]
            }
            Some(seeds) => seeds
                .try_iter()?
                .map(|seed| {
                    let seed = seed?;
                    if seed.is_none() { Ok(None) } else { Ok(Some(operand::tensor("grad_outputs", &seed)?)) }
                })
                .collect::<Result<Vec<_>>>()?,
        };
        let outputs = tensors("outputs", outputs)?;
        if !seeds.is_empty() && seeds.len() != outputs.len() {
            let text = format!("grad: expected {} grad_outputs, got {}", outputs.len(), seeds.len());
            return Err(raise(Kind::Graph, text).into());
        }
        let inputs = self::inputs("grad", inputs)?;
        let retain = retain_graph.unwrap_or(create_graph);
        let found = enter_detached(py, || backward::grad(&outputs, &inputs, &seeds, retain, create_graph))?;
        if let Some(at) = found.iter().position(Option::is_none)
            && !allow_unused.unwrap_or(false)
        {
            let text =
                format!("grad: no output depends on input {at}; pass allow_unused=True to get None for it");
            return Err(raise(Kind::Graph, text).into());
        }
        let found: Vec<Option<PyTensor>> = found.into_iter().map(|g| g.map(PyTensor::from)).collect();
        Ok(PyTuple::new(py, found)?)
    })
}

/// The directional derivatives of the recorded `outputs` where `inputs` move along `tangents`, in one pass.
///
/// None for an output that depends on no input. Raises ShapeError for a tangent that does not fit and
/// GraphError where an operation has no forward rule.
#[pyfunction]
#[pyo3(signature = (outputs, inputs, tangents, create_graph = false))]
pub fn jvp<'py>(
    py: Python<'py>,
    outputs: &Bound<'py, PyAny>,
    inputs: &Bound<'py, PyAny>,
    tangents: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = argument::create_graph)] create_graph: bool,
) -> Result<Bound<'py, PyTuple>> {
    enter(|| {
        let (outputs, inputs, tangents) =
            (tensors("outputs", outputs)?, tensors("inputs", inputs)?, tensors("tangents", tangents)?);
        if inputs.len() != tangents.len() {
            let text = format!("jvp: expected {} tangents, got {}", inputs.len(), tangents.len());
            return Err(raise(Kind::Graph, text).into());
        }
        let found = enter_detached(py, || forward::jvp(&outputs, &inputs, &tangents, create_graph))?;
        let found: Vec<Option<PyTensor>> = found.into_iter().map(|t| t.map(PyTensor::from)).collect();
        Ok(PyTuple::new(py, found)?)
    })
}

/// Whether a gradient of `outputs` flows to a leaf that is not one of `inputs`.
#[pyfunction]
pub fn reaches_beyond(outputs: &Bound<'_, PyAny>, inputs: &Bound<'_, PyAny>) -> Result<bool> {
    enter(|| Ok(backward::reaches_beyond(&tensors("outputs", outputs)?, &tensors("inputs", inputs)?)))
}

fn is_list(object: &Bound<'_, PyAny>) -> bool {
    object.is_instance_of::<pyo3::types::PyList>() || object.is_instance_of::<PyTuple>()
}

/// Whether operations of this thread are recorded for backward.
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> with fg.no_grad():
/// ...     fg.is_grad_enabled()
/// False
#[pyfunction]
pub fn is_grad_enabled() -> bool {
    tensor::is_grad_enabled()
}

/// Turns recording on or off on this thread; returns the mode before.
#[pyfunction]
pub fn set_grad_enabled(#[pyo3(from_py_with = argument::mode)] mode: bool) -> bool {
    tensor::set_grad_enabled(mode)
}

/// Looks, in `anomaly_mode`, at parameters after an update. Raises AnomalyError, whose layer is the parameter's number.
#[pyfunction]
pub fn watch_update(parameters: &Bound<'_, PyAny>) -> Result<()> {
    enter(|| {
        let parameters = tensors("parameters", parameters)?;
        Ok(anomaly::update(anomaly::check(), parameters.iter().map(Tensor::array).enumerate())?)
    })
}

/// The ops recorded behind tensors, in creation order: number, multiply-adds of a matrix product, bytes kept for
/// backward that no older op keeps.
#[pyfunction]
pub fn recorded(outputs: &Bound<'_, PyAny>) -> Result<Vec<(u64, u64, u64)>> {
    enter(|| {
        let found = record::recorded(&tensors("outputs", outputs)?);
        Ok(found.iter().map(|op| (op.id, op.multiply_adds, op.kept_bytes)).collect())
    })
}

/// A value, the places of its operands, the number of its node, and the number that is part of the op.
type Step = (PyTensor, Vec<usize>, u64, Option<f64>);

/// The ops and leaves behind tensors, operands first; with `anew` with values that are computed once more.
///
/// Raises GraphError where a value that is needed was freed.
#[pyfunction]
pub fn steps(outputs: &Bound<'_, PyAny>, anew: bool) -> Result<Vec<Step>> {
    enter(|| {
        let found = core_steps::steps(&tensors("outputs", outputs)?, anew)?;
        Ok(found.into_iter().map(|step| (step.tensor.into(), step.sources, step.id, step.number)).collect())
    })
}

/// The number of the op or leaf that a tensor is the value of: creation order.
#[pyfunction]
pub fn node_id(tensor: &PyTensor) -> u64 {
    tensor.node().id()
}

/// The number of the latest recorded op or leaf of all threads.
#[pyfunction]
pub fn last_id() -> u64 {
    tensor::last_id()
}

/// What this thread looks for in results: None for nothing, False for NaN, True for infinity too.
#[pyfunction]
pub fn get_anomaly_mode() -> Option<bool> {
    anomaly::check().map(|check| check == Check::NonFinite)
}

/// Sets what this thread looks for; returns what it looked for before.
#[pyfunction]
#[pyo3(signature = (mode))]
pub fn set_anomaly_mode(mode: Option<bool>) -> Option<bool> {
    let check = mode.map(|infinite| if infinite { Check::NonFinite } else { Check::Nan });
    anomaly::set_check(check).map(|check| check == Check::NonFinite)
}

/// Begins the call of a module, whose name anomalies carry.
#[pyfunction]
pub fn enter_layer(name: &str) {
    anomaly::enter_layer(name);
}

/// Ends the innermost call of a module.
#[pyfunction]
pub fn leave_layer() {
    anomaly::leave_layer();
}

/// Calls a function without arguments; returns its result, the operations that this thread made meanwhile, and the
/// additions of backward where gradients meet.
#[pyfunction]
pub fn counted<'py>(function: &Bound<'py, PyAny>) -> Result<(Bound<'py, PyAny>, u64, u64)> {
    enter(|| {
        let (result, count) = count::counted(|| function.call0());
        Ok((result?, count.operations, count.sums))
    })
}

/// The operations and, among them, the multiply-adds that the innermost `counted` has counted so far.
#[pyfunction]
pub fn counted_so_far() -> (u64, u64) {
    let count = count::so_far();
    (count.operations, count.multiply_adds)
}

/// Calls `function` with one example of each of `values`, which have `size` of them along their first dimension, and
/// computes what it returns, a list of tensors, for all, in pieces of `chunk` examples. Each result comes with whether it has that dimension too.
#[pyfunction]
pub fn vmap(
    py: Python<'_>,
    function: &Bound<'_, PyAny>,
    values: &Bound<'_, PyAny>,
    size: usize,
    chunk: usize,
    randomness: &str,
) -> Result<Vec<(PyTensor, bool)>> {
    enter(|| {
        let randomness = match randomness {
            "different" => Randomness::Different,
            "same" => Randomness::Same,
            _ => Randomness::Error,
        };
        let values = tensors("values", values)?;
        let example = |value: &Tensor| -> Result<Tensor> {
            let shape = Dims::from_slice(&value.shape()[1..]);
            let array = match size {
                0 => Array::zeros(value.dtype(), shape)?,
                _ => {
                    let first = Tensor::constant(value.array().clone()).narrow(0, 0, 1)?;
                    first.reshape(&shape)?.copied()?.array().clone()
                }
            };
            Ok(Tensor::leaf(array, value.requires_grad()))
        };
        let examples = values.iter().map(example).collect::<Result<Vec<_>>>()?;
        let given: Vec<PyTensor> = examples.iter().cloned().map(PyTensor::from).collect();
        let call = || core_vmap::traced(randomness, || function.call1((given,)));
        let (result, has_assigned) = crate::tensor::on_examples(&examples, call);
        let outputs = tensors("outputs", &result?)?;
        if has_assigned {
            let text =
                "vmap: the function assigns to buffers, such as running means; put the module in eval() mode";
            return Err(raise(Kind::Graph, text).into());
        }
        let found = enter_detached(py, || {
            core_vmap::replay_in_chunks(&outputs, &examples, &values, size, chunk, randomness)
        })?;
        Ok(found.into_iter().map(|(value, is_batched)| (value.into(), is_batched)).collect())
    })
}
