//! The primitive ops: name, shape rule, kernel and vjp rule, a file a family.

mod activation;
mod along;
mod arrange;
mod custom;
mod einsum;
mod elementwise;
mod index;
mod loss;
mod matmul;
mod random;
mod reduce;
mod select;
mod shape;

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

pub use activation::{Curve, curve};
pub use along::Along;
pub use arrange::PadMode;
pub use custom::{CustomOp, Gate, Recorded, apply_gate};
pub use elementwise::{Activation, Binary, Unary};
pub use index::Index;
pub use loss::Loss;
pub use matmul::Dense;
pub(crate) use matmul::run_packed;
pub use random::{DEFAULT as DEFAULT_GENERATOR, Distribution, Draw, Generator};
pub use reduce::{Axes, Kind as ReduceKind, Reduce};
pub use select::Compare;
pub use shape::Region;

use crate::backward::Vjp;
use crate::buffer::Array;
use crate::dtype::DType;
use crate::error::Result;
use crate::forward::Jvp;
use crate::shape::Dims;
use crate::tensor::Tensor;

/// Dtype and shape: all that a shape rule sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub shape: Dims,
}

impl Meta {
    /// Of an array.
    pub fn of(array: &Array) -> Meta {
        Meta { dtype: array.dtype(), shape: *array.shape() }
    }
}

/// One gradient, or explicitly none, for each operand.
pub type Gradients = SmallVec<[Option<Tensor>; 3]>;

/// Which values a vjp rule reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saves {
    /// A bit for each operand.
    pub inputs: u32,
    /// The result.
    pub output: bool,
}

impl Saves {
    /// Nothing: the rule needs shapes only.
    pub const NOTHING: Saves = Saves { inputs: 0, output: false };
    /// The operands.
    pub const INPUTS: Saves = Saves { inputs: !0, output: false };
    /// The result.
    pub const OUTPUT: Saves = Saves { inputs: 0, output: true };
    /// Everything.
    pub const ALL: Saves = Saves { inputs: !0, output: true };

    /// Operand `i` only.
    pub const fn one(i: u32) -> Saves {
        Saves { inputs: 1 << i, output: false }
    }

    pub(crate) fn input(self, i: usize) -> bool {
        self.inputs >> i.min(31) & 1 == 1
    }
}

/// A primitive op with its parameters.
#[derive(Clone, Debug)]
pub enum Op {
    /// One operand, element by element.
    Unary(Unary),
    /// Two operands, broadcast.
    Binary(Binary),
    /// Two operands to bool, broadcast.
    Compare(Compare),
    /// `condition ? a : b`, broadcast.
    Where,
    /// Another dtype.
    Cast(DType),
    /// `(..., m, k) @ (..., k, n)`.
    MatMul,
    /// `x W^T + b`, or without b, for matrices x and W. Eager only: a trace has the product and the sum apart,
    /// which a plan fuses with what follows.
    Linear,
    /// Matrix product, bias and activation in one pass: made by the plan only.
    Dense(Dense),
    /// A reduction over axes.
    Reduce(Reduce),
    /// `exp(x) / sum exp(x)` along a dimension, or its logarithm.
    Softmax {
        /// The dimension.
        dim: usize,
        /// Whether to take the logarithm.
        log: bool,
    },
    /// Another shape, same elements in row-major order.
    Reshape(Dims),
    /// The same values, row-major in memory of their own.
    Copy,
    /// The same values, without a gradient. Traces only: elsewhere a detached tensor has no history.
    Detach,
    /// Dimensions in another order.
    Permute(Dims),
    /// Broadcast to a larger shape.
    Expand(Dims),
    /// A region with steps.
    Slice(Box<Region>),
    /// Zeros with the operand in a region: the adjoint of a slice.
    Embed(Box<Region>),
    /// Operands one after the other along a dimension.
    Cat {
        /// The dimension.
        dim: usize,
    },
    /// Rows of the first operand named by the second.
    GatherRows,
    /// Zeros of so many rows with the operand's rows added where the second operand says.
    ScatterAddRows {
        /// Rows of the result.
        rows: usize,
    },
    /// Something along one dimension.
    Along {
        /// What.
        along: Along,
        /// The dimension.
        dim: usize,
    },
    /// A loss, a value for each row or element.
    Loss(Loss),
    /// Its derivative with respect to the first operand.
    LossGrad(Loss),
    /// How many integers are not `ignored`, as a scalar of this dtype: what the mean of a loss divides by.
    CountLabels {
        /// What is not counted.
        ignored: i64,
        /// Of the result.
        dtype: DType,
    },
    /// Random numbers.
    Draw(Draw),
    /// A gate written by the user.
    Custom(Arc<dyn CustomOp>),
}

impl Op {
    /// The name, PyTorch's where there is one.
    pub fn name(&self) -> &str {
        match self {
            Op::Unary(op) => elementwise::unary_name(*op),
            Op::Binary(op) => elementwise::binary_name(*op),
            Op::Compare(op) => select::compare_name(*op),
            Op::Where => "where",
            Op::Cast(_) => "to",
            Op::MatMul => "matmul",
            Op::Linear => "linear",
            Op::Dense(_) => "dense",
            Op::Reduce(op) => op.name(),
            Op::Softmax { log: false, .. } => "softmax",
            Op::Softmax { log: true, .. } => "log_softmax",
            Op::Reshape(_) => "reshape",
            Op::Copy => "copy",
            Op::Detach => "detach",
            Op::Permute(_) => "permute",
            Op::Expand(_) => "expand",
            Op::Slice(_) => "slice",
            Op::Embed(_) => "embed",
            Op::Cat { .. } => "cat",
            Op::GatherRows => "gather_rows",
            Op::ScatterAddRows { .. } => "scatter_add_rows",
            Op::Along { along, .. } => along.name(),
            Op::Loss(loss) => loss.name(),
            Op::LossGrad(loss) => loss.grad_name(),
            Op::CountLabels { .. } => "count_labels",
            Op::Draw(draw) => draw.name(),
            Op::Custom(op) => op.name(),
        }
    }

    /// The shape rule.
    pub(crate) fn infer(&self, inputs: &[Meta]) -> Result<Meta> {
        match self {
            Op::Unary(op) => elementwise::infer_unary(*op, inputs[0]),
            Op::Binary(op) => elementwise::infer_binary(*op, inputs[0], inputs[1]),
            Op::Compare(op) => select::infer_compare(*op, inputs[0], inputs[1]),
            Op::Where => select::infer_where(inputs[0], inputs[1], inputs[2]),
            Op::Cast(dtype) => Ok(Meta { dtype: *dtype, ..inputs[0] }),
            Op::MatMul => matmul::infer(inputs[0], inputs[1]),
            Op::Linear => Ok(matmul::infer_linear(inputs[0], inputs[1])),
            Op::Dense(_) => matmul::infer(inputs[0], inputs[1]),
            Op::Reduce(op) => op.infer(inputs[0]),
            Op::Softmax { .. } => elementwise::infer_float(self.static_name(), inputs[0]),
            Op::Reshape(shape) | Op::Expand(shape) => Ok(Meta { shape: *shape, ..inputs[0] }),
            Op::Copy => Ok(inputs[0]),
            Op::Detach | Op::Permute(_) | Op::Slice(_) => unreachable!("always a view"),
            Op::Embed(region) => Ok(Meta { shape: region.full, ..inputs[0] }),
            Op::Cat { dim } => shape::infer_cat(*dim, inputs),
            Op::GatherRows => index::infer_gather(inputs[0], inputs[1]),
            Op::ScatterAddRows { rows } => index::infer_scatter(*rows, inputs[0]),
            Op::Along { along, dim } => Ok(along.infer(*dim, inputs)),
            Op::Loss(loss) => loss.infer(inputs),
            Op::LossGrad(loss) => loss.infer(inputs).map(|_| inputs[0]),
            Op::CountLabels { dtype, .. } => Ok(Meta { dtype: *dtype, shape: Dims::scalar() }),
            Op::Draw(draw) => Ok(draw.meta()),
            Op::Custom(_) => unreachable!("a gate's shapes are known once it has run"),
        }
    }

    /// The result as a view of the operand, where the op moves no data.
    pub fn view(&self, input: &Array) -> Option<Array> {
        match self {
            Op::Reshape(shape) => shape::reshape_view(input, shape),
            Op::Detach => Some(input.clone()),
            Op::Permute(order) => Some(shape::permute_view(input, order)),
            Op::Expand(shape) => Some(shape::expand_view(input, shape)),
            Op::Slice(region) => Some(shape::slice_view(input, region)),
            _ => None,
        }
    }

    /// The kernel: writes every element of the contiguous `output`, whatever it holds.
    pub fn run(&self, inputs: &[&Array], output: &Array) -> Result<()> {
        match self {
            Op::Unary(op) => elementwise::run_unary(*op, inputs[0], output),
            Op::Binary(op) => elementwise::run_binary(*op, inputs[0], inputs[1], output),
            Op::Compare(op) => select::run_compare(*op, inputs[0], inputs[1], output),
            Op::Where => select::run_where(inputs[0], inputs[1], inputs[2], output),
            Op::Cast(_) => select::run_cast(inputs[0], output),
            Op::MatMul => matmul::run(inputs[0], inputs[1], output),
            Op::Linear => matmul::run_linear(inputs, output),
            Op::Dense(dense) => matmul::run_dense(dense, inputs, output),
            Op::Reduce(op) => op.run(inputs[0], output),
            Op::Softmax { dim, log } => reduce::run_softmax(*dim, *log, inputs[0], output),
            Op::Reshape(_) | Op::Copy => shape::run_copy(inputs[0], output),
            Op::Detach | Op::Permute(_) | Op::Expand(_) | Op::Slice(_) => unreachable!("always a view"),
            Op::Embed(region) => shape::run_embed(region, inputs[0], output),
            Op::Cat { dim } => shape::run_cat(*dim, inputs, output),
            Op::GatherRows => index::run_gather(inputs[0], inputs[1], output),
            Op::ScatterAddRows { .. } => index::run_scatter(inputs[0], inputs[1], output),
            Op::Along { along, dim } => along.run(*dim, inputs, output),
            Op::Loss(loss) => loss.run(inputs, Some(output), None),
            Op::LossGrad(loss) => loss.run(inputs, None, Some(output)),
            Op::CountLabels { ignored, .. } => loss::run_count(*ignored, inputs[0], output),
            Op::Draw(draw) => draw.run(output),
            Op::Custom(op) => custom::run(op.as_ref(), inputs, output),
        }
    }

    /// Which values the vjp rule reads.
    pub fn saves(&self) -> Saves {
        match self {
            Op::Unary(op) => elementwise::unary_saves(*op),
            Op::Binary(op) => elementwise::binary_saves(*op),
            Op::Where => Saves::one(0),
            Op::Linear => Saves { inputs: 0b11, output: false },
            Op::MatMul | Op::Loss(_) | Op::LossGrad(_) => Saves::INPUTS,
            Op::Reduce(op) => op.saves(),
            Op::Softmax { .. } => Saves::OUTPUT,
            Op::GatherRows | Op::ScatterAddRows { .. } => Saves::one(1),
            Op::Along { along, .. } => along.saves(),
            Op::Custom(_) => Saves::ALL,
            Op::Compare(_)
            | Op::Cast(_)
            | Op::Dense(_)
            | Op::Reshape(_)
            | Op::Copy
            | Op::Detach
            | Op::Permute(_)
            | Op::Expand(_)
            | Op::Slice(_)
            | Op::Embed(_)
            | Op::Cat { .. }
            | Op::CountLabels { .. }
            | Op::Draw(_) => Saves::NOTHING,
        }
    }

    /// The vjp rule: the gradients of the operands, written with ops.
    pub(crate) fn vjp(&self, cx: &Vjp) -> Result<Gradients> {
        match self {
            Op::Unary(op) => elementwise::vjp_unary(*op, cx),
            Op::Binary(op) => elementwise::vjp_binary(*op, cx),
            Op::Where => select::vjp_where(cx),
            Op::Cast(_) => Ok(smallvec![Some(cx.grad().cast(cx.dtype(0))?)]),
            Op::MatMul => matmul::vjp(cx),
            Op::Linear => matmul::vjp_linear(cx),
            Op::Reduce(op) => op.vjp(cx),
            Op::Softmax { dim, log } => reduce::vjp_softmax(*dim, *log, cx),
            Op::Reshape(_) => Ok(smallvec![Some(cx.grad().reshape(cx.shape(0))?)]),
            Op::Permute(order) => shape::vjp_permute(order, cx),
            Op::Copy => Ok(smallvec![Some(cx.grad().clone())]),
            Op::Expand(_) => Ok(smallvec![Some(cx.grad().sum_to(cx.shape(0))?)]),
            Op::Slice(region) => Ok(smallvec![Some(cx.grad().embed(region)?)]),
            Op::Embed(region) => Ok(smallvec![Some(cx.grad().slice(region)?)]),
            Op::Cat { dim } => shape::vjp_cat(*dim, cx),
            Op::GatherRows => index::vjp_gather(cx),
            Op::ScatterAddRows { .. } => index::vjp_scatter(cx),
            Op::Along { along, dim } => along.vjp(*dim, cx),
            Op::Loss(loss) => loss.vjp(cx),
            Op::LossGrad(loss) => loss.vjp_of_grad(cx),
            Op::Custom(op) => custom::vjp(op, cx),
            // Steps, counts and random sources: no gradient, by definition.
            Op::Detach | Op::Compare(_) | Op::CountLabels { .. } | Op::Draw(_) => {
                Ok(smallvec![None; cx.arity()])
            }
            Op::Dense(_) => unreachable!("made by the plan, after gradients"),
        }
    }

    /// The jvp rule: the tangent of the result, written with ops. `None`: the result does not move.
    pub(crate) fn jvp(&self, cx: &Jvp) -> Result<Option<Tensor>> {
        match self {
            // Their Jacobians are symmetric.
            Op::Unary(Unary::Curve(Curve::Penalised(_))) => Ok(cx.tangent(0).cloned()),
            Op::Unary(op) => cx.sum(|_, t| Ok(elementwise::vjp_unary(*op, &cx.with(t))?.swap_remove(0))),
            Op::Softmax { dim, log: false } => {
                cx.sum(|_, t| Ok(reduce::vjp_softmax(*dim, false, &cx.with(t))?.swap_remove(0)))
            }
            Op::Softmax { dim, log: true } => {
                cx.sum(|_, t| reduce::jvp_log_softmax(*dim, &cx.with(t)).map(Some))
            }
            Op::Binary(op) => cx.sum(|i, t| elementwise::jvp_binary(*op, i, &cx.with(t))),
            Op::Where => select::jvp_where(cx),
            Op::MatMul => cx.sum(|i, t| {
                let (a, b) = (|| cx.input(0), || cx.input(1));
                let operands = if i == 0 { [t, &b()] } else { [&a(), t] };
                Tensor::apply(Op::MatMul, &operands).map(Some)
            }),
            Op::Linear => matmul::jvp_linear(cx),
            Op::Reduce(op) => cx.sum(|_, t| op.jvp(&cx.with(t))),
            // Linear in one operand.
            Op::Cast(_)
            | Op::Reshape(_)
            | Op::Copy
            | Op::Permute(_)
            | Op::Expand(_)
            | Op::Slice(_)
            | Op::Embed(_)
            | Op::Along { along: Along::CumSum { .. }, .. } => {
                cx.sum(|_, t| Tensor::apply(self.clone(), &[t]).map(Some))
            }
            // Linear in the first operand; the second holds positions.
            Op::GatherRows
            | Op::ScatterAddRows { .. }
            | Op::Along { along: Along::Gather | Along::ScatterAdd { .. }, .. } => {
                cx.sum(|_, t| Tensor::apply(self.clone(), &[t, &cx.input(1)]).map(Some))
            }
            Op::Cat { dim } => shape::jvp_cat(*dim, cx),
            Op::Loss(loss) => loss.jvp(cx),
            Op::LossGrad(loss) => loss.jvp_of_grad(cx),
            Op::Custom(op) => custom::jvp(op, cx),
            // Steps, counts and random sources do not move, by definition.
            Op::Detach
            | Op::Compare(_)
            | Op::CountLabels { .. }
            | Op::Draw(_)
            | Op::Along { along: Along::ArgSort { .. }, .. } => Ok(None),
            Op::Dense(_) => unreachable!("made by the plan, after gradients"),
        }
    }

    fn static_name(&self) -> &'static str {
        match self {
            Op::Softmax { log: true, .. } => "log_softmax",
            _ => "softmax",
        }
    }
}
