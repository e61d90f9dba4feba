//! Functions of several tensors: joining, choosing, the linear layer, and losses (unreduced).

use ferrograd_core::op::{Loss, Unary, curve};
use ferrograd_core::shape::Dims;
use ferrograd_core::tensor::Tensor;
use pyo3::prelude::*;

use crate::argument;
use crate::dtype;
use crate::error::{Kind, Result, enter, raise};
use crate::operand::{self, Operand};
use crate::tensor::PyTensor;
use crate::tensor_arithmetic::{long, select};

fn tensors(objects: &Bound<'_, PyAny>) -> Result<Vec<Tensor>> {
    argument::each("tensors", "a sequence of tensors", objects)?
        .map(|object| operand::tensor("tensors", &object?))
        .collect()
}

/// Tensors joined along a dimension that they have.
#[pyfunction]
#[pyo3(signature = (tensors, dim = 0))]
pub fn cat(tensors: &Bound<'_, PyAny>, #[pyo3(from_py_with = argument::dim)] dim: isize) -> Result<PyTensor> {
    enter(|| Ok(Tensor::cat(&self::tensors(tensors)?, dim)?.into()))
}

/// Tensors of one shape joined along a new dimension.
#[pyfunction]
#[pyo3(signature = (tensors, dim = 0))]
pub fn stack(
    tensors: &Bound<'_, PyAny>,
    #[pyo3(from_py_with = argument::dim)] dim: isize,
) -> Result<PyTensor> {
    enter(|| Ok(Tensor::stack(&self::tensors(tensors)?, dim)?.into()))
}

/// `input` where the condition holds, else `other`; the gradient goes where the value came from.
#[pyfunction]
pub fn r#where(
    condition: &Bound<'_, PyAny>,
    input: &Bound<'_, PyAny>,
    other: &Bound<'_, PyAny>,
) -> Result<PyTensor> {
    enter(|| {
        let condition = operand::tensor("condition", condition)?;
        Ok(select(&condition, Operand::of("input", input)?, Operand::of("other", other)?)?.into())
    })
}

/// input weight^T + bias, for weights of shape (outputs, inputs).
#[pyfunction]
#[pyo3(signature = (input, weight, bias = None))]
pub fn linear(
    py: Python<'_>,
    input: &Bound<'_, PyAny>,
    weight: &Bound<'_, PyAny>,
    bias: Option<&Bound<'_, PyAny>>,
) -> Result<PyTensor> {
    enter(|| {
        let (input, weight) = (operand::tensor("input", input)?, operand::tensor("weight", weight)?);
        let bias = bias.map(|bias| operand::tensor("bias", bias)).transpose()?;
        let size = input.shape().elements().max(weight.shape().elements());
        Ok(long(py, size, || input.linear(&weight, bias.as_ref()))?.into())
    })
}

fn loss(
    py: Python<'_>,
    input: &Tensor,
    loss: Loss,
    target: &Tensor,
    weight: Option<&Tensor>,
) -> Result<PyTensor> {
    Ok(long(py, input.shape().elements(), || input.loss(loss, target, weight))?.into())
}

/// Softmax cross-entropy of logits (batch, classes), a value a row: with class indices (batch,)
/// -log softmax(x)_y, times the class's weight; with probabilities (batch, classes) the mean under them.
///
/// Raises LabelError for an index outside the classes.
#[pyfunction]
#[pyo3(signature = (input, target, weight = None, ignore_index = -100, label_smoothing = 0.0),
       text_signature = "(input, target, weight=None, ignore_index=-100, label_smoothing=0.0)")]
pub fn cross_entropy(
    py: Python<'_>,
    input: &Bound<'_, PyAny>,
    target: &Bound<'_, PyAny>,
    weight: Option<&Bound<'_, PyAny>>,
    #[pyo3(from_py_with = argument::ignore_index)] ignore_index: i64,
    #[pyo3(from_py_with = argument::label_smoothing)] label_smoothing: f64,
) -> Result<PyTensor> {
    enter(|| {
        if !(0.0..=1.0).contains(&label_smoothing) {
            let text = format!("label_smoothing: expected a number from 0 to 1, got {label_smoothing}");
            return Err(raise(Kind::Config, text).into());
        }
        let (input, target) = (operand::tensor("input", input)?, operand::tensor("target", target)?);
        let weight = weight.map(|weight| operand::tensor("weight", weight)).transpose()?;
        let weighted = weight.is_some();
        let kind = if target.dtype().is_float() {
            Loss::SoftCrossEntropy { label_smoothing, weighted }
        } else {
            Loss::CrossEntropy { label_smoothing, ignore_index, weighted }
        };
        loss(py, &input, kind, &target, weight.as_ref())
    })
}

/// Multiclass hinge of scores (batch, classes), a value a row: sum over j != y of
/// max(0, margin - s_y + s_j)^p, divided by the number of classes where asked.
#[pyfunction]
#[pyo3(signature = (input, target, p = 1, margin = 1.0, weight = None, divide_by_classes = true))]
pub fn multi_margin(
    py: Python<'_>,
    input: &Bound<'_, PyAny>,
    target: &Bound<'_, PyAny>,
    #[pyo3(from_py_with = argument::p)] p: i64,
    #[pyo3(from_py_with = argument::margin)] margin: f64,
    weight: Option<&Bound<'_, PyAny>>,
    #[pyo3(from_py_with = argument::divide_by_classes)] divide_by_classes: bool,
) -> Result<PyTensor> {
    enter(|| {
        if p != 1 && p != 2 {
            return Err(raise(Kind::Config, format!("p: expected 1 or 2, got {p}")).into());
        }
        let (input, target) = (operand::tensor("input", input)?, operand::tensor("target", target)?);
        let weight = weight.map(|weight| operand::tensor("weight", weight)).transpose()?;
        let kind = Loss::MultiMargin { p: p as u32, margin, divide_by_classes, weighted: weight.is_some() };
        loss(py, &input, kind, &target, weight.as_ref())
    })
}

/// An activation by its name, with its parameters in the order of the class in `ferrograd.nn`.
#[pyfunction]
#[pyo3(signature = (name, input, *parameters))]
pub fn activation(
    py: Python<'_>,
    name: &str,
    input: &Bound<'_, PyAny>,
    parameters: Vec<f64>,
) -> Result<PyTensor> {
    enter(|| {
        let (input, curve) = (operand::tensor("input", input)?, curve(name, &parameters)?);
        Ok(long(py, input.shape().elements(), || input.unary(Unary::Curve(curve)))?.into())
    })
}

/// Minus the target's column of log-probabilities (batch, classes), times the class's weight: a value a row, 0
/// where the target is `ignore_index`.
///
/// Raises LabelError for another index outside the classes.
#[pyfunction]
#[pyo3(signature = (input, target, weight = None, ignore_index = -100),
       text_signature = "(input, target, weight=None, ignore_index=-100)")]
pub fn nll(
    py: Python<'_>,
    input: &Bound<'_, PyAny>,
    target: &Bound<'_, PyAny>,
    weight: Option<&Bound<'_, PyAny>>,
    #[pyo3(from_py_with = argument::ignore_index)] ignore_index: i64,
) -> Result<PyTensor> {
    enter(|| {
        let (input, target) = (operand::tensor("input", input)?, operand::tensor("target", target)?);
        let weight = weight.map(|weight| operand::tensor("weight", weight)).transpose()?;
        let kind = Loss::NegativeLogLikelihood { ignore_index, weighted: weight.is_some() };
        loss(py, &input, kind, &target, weight.as_ref())
    })
}

/// How many class numbers are not `ignore_index`, as a scalar of a float dtype. It has no gradient.
#[pyfunction]
pub fn count_labels(
    target: &Bound<'_, PyAny>,
    #[pyo3(from_py_with = argument::ignore_index)] ignore_index: i64,
    dtype: &Bound<'_, PyAny>,
) -> Result<PyTensor> {
    enter(|| Ok(operand::tensor("target", target)?.count_labels(ignore_index, dtype::parse(dtype)?)?.into()))
}

/// Squared difference of tensors of one shape, a value an element; its derivative is `2 (input - target)`.
#[pyfunction]
pub fn squared_error(
    py: Python<'_>,
    input: &Bound<'_, PyAny>,
    target: &Bound<'_, PyAny>,
) -> Result<PyTensor> {
    enter(|| {
        let (input, target) = (operand::tensor("input", input)?, operand::tensor("target", target)?);
        Ok(long(py, input.shape().elements(), || input.squared_error(&target))?.into())
    })
}

/// Binary cross-entropy of probabilities, a value an element: -(t log x + (1 - t) log(1 - x)), each
/// logarithm at least -100.
#[pyfunction]
pub fn bce(py: Python<'_>, input: &Bound<'_, PyAny>, target: &Bound<'_, PyAny>) -> Result<PyTensor> {
    enter(|| {
        let input = operand::tensor("input", input)?;
        loss(py, &input, Loss::BinaryCrossEntropy, &operand::tensor("target", target)?, None)
    })
}

/// Binary cross-entropy of logits, a value an element; `pos_weight` multiplies the positives' part.
#[pyfunction]
#[pyo3(signature = (input, target, pos_weight = None))]
pub fn bce_with_logits(
    py: Python<'_>,
    input: &Bound<'_, PyAny>,
    target: &Bound<'_, PyAny>,
    pos_weight: Option<&Bound<'_, PyAny>>,
) -> Result<PyTensor> {
    enter(|| {
        let (input, target) = (operand::tensor("input", input)?, operand::tensor("target", target)?);
        let classes = Dims::from_slice(&[input.shape().last().copied().unwrap_or(1)]);
        let weight = pos_weight.map(|w| {
            Ok::<_, crate::error::Failure>(operand::tensor("pos_weight", w)?.broadcast_to(&classes)?)
        });
        let weight = weight.transpose()?;
        let kind = Loss::BinaryCrossEntropyWithLogits { weighted: weight.is_some() };
        loss(py, &input, kind, &target, weight.as_ref())
    })
}
