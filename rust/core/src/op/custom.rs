//! Gates written by the user: an object with `forward` and `backward`, as one op and its gradient.
//!
//! An op has one result, a gate may have several: the op's result is all of them flat, one after the
//! other, and each output is a reshaped slice of it. The gradients of the operands come back the same way.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Gradients, Op};
use crate::anomaly;
use crate::backward::{self, Vjp};
use crate::buffer::Array;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::forward::Jvp;
use crate::shape::Dims;
use crate::tensor::{Tensor, is_grad_enabled, is_tracing, with_grad_mode};

/// A backward that is to be differentiated again.
pub enum Recorded {
    /// The gradients of the inputs, connected.
    Gradients(Vec<Option<Tensor>>),
    /// The plain values will do: an error comes only where they are differentiated.
    Once,
    /// `backward` works on plain values, and nobody said that this will do.
    Refused,
}

/// What the user's object does, on plain values.
pub trait Gate: Send + Sync {
    /// A name for messages.
    fn name(&self) -> &str;
    /// The outputs for these inputs; may cache what `backward` needs.
    ///
    /// # Errors
    /// Whatever the user's code fails with.
    fn forward(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>>;
    /// The gradients of the inputs of the last `forward`.
    ///
    /// # Errors
    /// Whatever the user's code fails with.
    fn backward(&self, output_grads: &[Tensor]) -> Result<Vec<Option<Tensor>>>;
    /// The gradients of the inputs, computed from connected tensors, so that they can be differentiated again.
    ///
    /// # Errors
    /// Whatever the user's code fails with.
    fn backward_recorded(
        &self,
        _inputs: &[Tensor],
        _outputs: &[Tensor],
        _output_grads: &[Tensor],
    ) -> Result<Recorded> {
        Ok(Recorded::Refused)
    }
    /// Number of the last `forward` call: the cache belongs to it.
    fn last_call(&self) -> &AtomicU64;
}

static NEXT_CALL: AtomicU64 = AtomicU64::new(1);

/// An op that is not built in.
pub trait CustomOp: Send + Sync + fmt::Debug {
    /// A name for messages.
    fn name(&self) -> &str;
    /// Computes the flat result.
    ///
    /// # Errors
    /// Whatever the user's code fails with.
    fn run(&self, inputs: &[Tensor], output: &Array) -> Result<()>;
    /// The gradient rule.
    ///
    /// # Errors
    /// `Graph` where there is none.
    fn vjp(&self, cx: &Vjp) -> Result<Gradients>;
}

pub(super) fn run(op: &dyn CustomOp, inputs: &[&Array], output: &Array) -> Result<()> {
    let inputs: Vec<Tensor> = inputs.iter().map(|array| Tensor::constant((*array).clone())).collect();
    op.run(&inputs, output)
}

pub(super) fn vjp(op: &Arc<dyn CustomOp>, cx: &Vjp) -> Result<Gradients> {
    op.vjp(cx)
}

/// The tangent without a rule of its own: `<J^T v, t>` is linear in v, and its gradient by v is `J t`.
pub(super) fn jvp(op: &Arc<dyn CustomOp>, cx: &Jvp) -> Result<Option<Tensor>> {
    let Some(dtype) = (0..cx.arity()).find_map(|i| cx.tangent(i)).map(Tensor::dtype) else { return Ok(None) };
    let v = Tensor::leaf(Array::zeros(dtype, *cx.result_shape())?, true);
    let product = with_grad_mode(true, || {
        let mut product: Option<Tensor> = None;
        for (i, pulled) in op.vjp(&cx.with(&v))?.into_iter().enumerate() {
            let (Some(pulled), Some(tangent)) = (pulled, cx.tangent(i)) else { continue };
            let part = pulled.mul(tangent)?.sum(&[], false)?;
            product = Some(match product {
                Some(product) => product.add(&part)?,
                None => part,
            });
        }
        Ok::<_, Error>(product)
    })?;
    let Some(product) = product.filter(Tensor::requires_grad) else { return Ok(None) };
    Ok(backward::grad(&[product], &[v], &[], true, is_grad_enabled())?.swap_remove(0))
}

/// One use of a gate in a graph.
struct Forward {
    gate: Arc<dyn Gate>,
    outputs: Vec<Dims>,
    dtype: DType,
    /// Number of this node's last `forward`.
    call: Arc<AtomicU64>,
    /// The module that uses it, if somebody looks for anomalies.
    layer: Option<Arc<str>>,
}

/// Its gradient: operands are the inputs, then the flat gradient of the outputs.
struct Backward {
    gate: Arc<dyn Gate>,
    outputs: Vec<Dims>,
    inputs: Vec<Dims>,
    call: Arc<AtomicU64>,
}

fn call(gate: &dyn Gate, number: &AtomicU64, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    let this = NEXT_CALL.fetch_add(1, Ordering::Relaxed);
    let outputs = gate.forward(inputs)?;
    number.store(this, Ordering::Relaxed);
    gate.last_call().store(this, Ordering::Relaxed);
    Ok(outputs)
}

/// Writes tensors one after the other.
fn flatten(tensors: &[Tensor], output: &Array) -> Result<()> {
    let mut start = 0;
    for tensor in tensors {
        let length = tensor.shape().elements();
        let part = output.view(Dims::from_slice(&[length]), Dims::from_slice(&[1]), output.offset() + start);
        Tensor::constant(part).copy_(&tensor.detach().reshape(&Dims::from_slice(&[length]))?)?;
        start += length;
    }
    Ok(())
}

/// The pieces of a flat tensor.
fn unflatten(flat: &Tensor, shapes: &[Dims]) -> Result<Vec<Tensor>> {
    let mut start = 0;
    shapes
        .iter()
        .map(|shape| {
            let piece = flat.narrow(0, start, shape.elements())?.reshape(shape);
            start += shape.elements();
            piece
        })
        .collect()
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate({})", self.gate.name())
    }
}

impl fmt::Debug for Backward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GateGrad({})", self.gate.name())
    }
}

fn wrong_shapes(gate: &dyn Gate, what: &'static str, expected: &[Dims], got: &[Dims]) -> Error {
    Error::Shape {
        op: "gate",
        expected: format!("{}'s {what} of shapes {expected:?}", gate.name()),
        got: format!("{got:?}"),
    }
}

/// Whether there is a gradient, or none, of the right shape for each input.
fn check_gradients(gate: &dyn Gate, inputs: &[Dims], grads: &[Option<Tensor>]) -> Result<()> {
    if grads.len() != inputs.len() {
        return Err(Error::Shape {
            op: "gate",
            expected: format!("{} gradients from {}'s backward", inputs.len(), gate.name()),
            got: grads.len().to_string(),
        });
    }
    let got: Vec<Dims> =
        grads.iter().zip(inputs).map(|(grad, shape)| grad.as_ref().map_or(*shape, |g| *g.shape())).collect();
    if got == inputs { Ok(()) } else { Err(wrong_shapes(gate, "input gradients", inputs, &got)) }
}

fn shapes(tensors: &[Tensor]) -> Vec<Dims> {
    tensors.iter().map(|t| *t.shape()).collect()
}

impl CustomOp for Forward {
    fn name(&self) -> &str {
        self.gate.name()
    }

    fn run(&self, inputs: &[Tensor], output: &Array) -> Result<()> {
        let outputs = call(self.gate.as_ref(), &self.call, inputs)
            .map_err(|error| anomaly::in_layer(error, &self.layer))?;
        let got = shapes(&outputs);
        if got != self.outputs {
            return Err(wrong_shapes(self.gate.as_ref(), "outputs", &self.outputs, &got));
        }
        flatten(&outputs, output)
    }

    fn vjp(&self, cx: &Vjp) -> Result<Gradients> {
        let inputs: Vec<Tensor> = (0..cx.arity()).map(|i| cx.input(i)).collect();
        let finished = |grads: Vec<Option<Tensor>>| {
            let cast = |(i, grad): (usize, Option<Tensor>)| grad.map(|g| g.cast(cx.dtype(i))).transpose();
            grads.into_iter().enumerate().map(cast).collect()
        };
        if is_grad_enabled() && !is_tracing() {
            let (outputs, grads) =
                (unflatten(&cx.output(), &self.outputs)?, unflatten(cx.grad(), &self.outputs)?);
            match self.gate.backward_recorded(&inputs, &outputs, &grads)? {
                Recorded::Gradients(grads) => {
                    check_gradients(self.gate.as_ref(), &shapes(&inputs), &grads)?;
                    return finished(grads);
                }
                Recorded::Once => {}
                Recorded::Refused => {
                    return Err(Error::Graph(format!(
                        "{}: a gate's backward works on plain numbers, so neither create_graph=True nor forward \
                         mode can pass through it",
                        self.gate.name()
                    )));
                }
            }
        }
        let backward = Backward {
            gate: self.gate.clone(),
            outputs: self.outputs.clone(),
            inputs: shapes(&inputs),
            call: self.call.clone(),
        };
        let total: usize = backward.inputs.iter().map(Dims::elements).sum();
        let flat = Array::zeros(self.dtype, Dims::from_slice(&[total]))?;
        let mut operands = inputs.clone();
        operands.push(cx.grad().clone());
        backward.run(&operands, &flat)?;
        let shapes = backward.inputs.clone();
        let flat = Tensor::record(Op::Custom(Arc::new(backward)), &operands.iter().collect::<Vec<_>>(), flat);
        if is_tracing() {
            // A plan looks at what its instructions make, and the pieces are views.
            anomaly::mark_whole(&flat);
        }
        let pieces = unflatten(&flat, &shapes)?;
        finished(pieces.into_iter().enumerate().map(|(i, piece)| cx.needs(i).then_some(piece)).collect())
    }
}

impl CustomOp for Backward {
    fn name(&self) -> &str {
        self.gate.name()
    }

    fn run(&self, operands: &[Tensor], output: &Array) -> Result<()> {
        let (flat, inputs) = operands.split_last().expect("the gradient is the last operand");
        // The object may have been used again since: its cache must belong to this node's inputs.
        if self.gate.last_call().load(Ordering::Relaxed) != self.call.load(Ordering::Relaxed) {
            call(self.gate.as_ref(), &self.call, inputs)?;
        }
        // The whole gradient is looked at; its parts may be masked.
        let grads = anomaly::unwatched(|| self.gate.backward(&unflatten(flat, &self.outputs)?))?;
        check_gradients(self.gate.as_ref(), &self.inputs, &grads)?;
        let grads: Vec<Tensor> = grads
            .into_iter()
            .zip(&self.inputs)
            .map(|(grad, shape)| match grad {
                Some(grad) => Ok(grad),
                None => Ok(Tensor::constant(Array::zeros(output.dtype(), *shape)?)),
            })
            .collect::<Result<_>>()?;
        flatten(&grads, output)
    }

    fn vjp(&self, _: &Vjp) -> Result<Gradients> {
        Err(Error::Graph(format!(
            "{}: its backward works on plain numbers and has no derivative",
            self.gate.name()
        )))
    }
}

/// Uses `gate` in tensor code.
///
/// # Errors
/// What the gate fails with; `Config` when it returns nothing.
pub fn apply_gate(gate: &Arc<dyn Gate>, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    let number = Arc::new(AtomicU64::new(0));
    let detached: Vec<Tensor> = inputs.iter().map(Tensor::detach).collect();
    let outputs = call(gate.as_ref(), &number, &detached)?;
    if outputs.is_empty() {
        return Err(Error::Config {
            argument: "gate",
            expected: "at least one output".into(),
            got: "none".into(),
        });
    }
    let dtype = outputs.iter().map(Tensor::dtype).find(|d| d.is_float()).unwrap_or(DType::F32);
    let layer = anomaly::layer();
    let op = Forward { gate: gate.clone(), outputs: shapes(&outputs), dtype, call: number, layer };
    let total = op.outputs.iter().map(Dims::elements).sum();
    let flat = Array::zeros(dtype, Dims::from_slice(&[total]))?;
    flatten(&outputs, &flat)?;
    anomaly::forward(op.name(), &inputs.iter().collect::<Vec<_>>(), &flat)?;
    let shapes = op.outputs.clone();
    let flat = Tensor::record(Op::Custom(Arc::new(op)), &inputs.iter().collect::<Vec<_>>(), flat);
    unflatten(&flat, &shapes)
}
