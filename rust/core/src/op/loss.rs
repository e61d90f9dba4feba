//! Losses: one primitive each, unreduced, with their derivative as a second op so that a plan can
//! compute both in one pass.

use ferrograd_kernels::loss as kernel;
use ferrograd_kernels::math::Math;
use smallvec::smallvec;

use super::reduce::contiguous;
use super::select::Compare;
use super::{Gradients, Meta, Op};
use crate::backward::Vjp;
use crate::buffer::Array;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::for_float;
use crate::forward::Jvp;
use crate::shape::Dims;
use crate::tensor::{Operands, Tensor};

/// A loss with its parameters. Operands: scores, targets and, where `weighted`, class weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Softmax cross-entropy with class indices: a value a row.
    CrossEntropy {
        /// Share of the target spread over all classes.
        label_smoothing: f64,
        /// Rows with this target count nothing.
        ignore_index: i64,
        /// Whether a third operand holds class weights.
        weighted: bool,
    },
    /// Softmax cross-entropy with class probabilities: a value a row.
    SoftCrossEntropy {
        /// Share of the target spread over all classes.
        label_smoothing: f64,
        /// Whether a third operand holds class weights.
        weighted: bool,
    },
    /// Multiclass hinge: sum over j != y of max(0, margin - s_y + s_j)^p, a value a row.
    MultiMargin {
        /// 1 or 2.
        p: u32,
        /// The margin.
        margin: f64,
        /// Whether to divide by the number of classes, as PyTorch; the lectures do not.
        divide_by_classes: bool,
        /// Whether a third operand holds class weights.
        weighted: bool,
    },
    /// Minus the label's column of log-probabilities: a value a row.
    NegativeLogLikelihood {
        /// Rows with this target count nothing.
        ignore_index: i64,
        /// Whether a third operand holds class weights.
        weighted: bool,
    },
    /// Squared difference, a value an element. The target gets a gradient too.
    SquaredError,
    /// Binary cross-entropy of probabilities, a value an element.
    BinaryCrossEntropy,
    /// Binary cross-entropy of logits, a value an element.
    BinaryCrossEntropyWithLogits {
        /// Whether a third operand weighs the positives.
        weighted: bool,
    },
}

impl Loss {
    pub(super) fn name(self) -> &'static str {
        match self {
            Loss::CrossEntropy { .. } | Loss::SoftCrossEntropy { .. } => "cross_entropy",
            Loss::MultiMargin { .. } => "multi_margin",
            Loss::NegativeLogLikelihood { .. } => "nll_loss",
            Loss::SquaredError => "mse",
            Loss::BinaryCrossEntropy => "bce",
            Loss::BinaryCrossEntropyWithLogits { .. } => "bce_with_logits",
        }
    }

    pub(super) fn grad_name(self) -> &'static str {
        match self {
            Loss::CrossEntropy { .. } | Loss::SoftCrossEntropy { .. } => "cross_entropy_grad",
            Loss::MultiMargin { .. } => "multi_margin_grad",
            Loss::NegativeLogLikelihood { .. } => "nll_loss_grad",
            Loss::SquaredError => "mse_grad",
            Loss::BinaryCrossEntropy => "bce_grad",
            Loss::BinaryCrossEntropyWithLogits { .. } => "bce_with_logits_grad",
        }
    }

    fn is_by_row(self) -> bool {
        self.takes_labels() || matches!(self, Loss::SoftCrossEntropy { .. })
    }

    fn takes_labels(self) -> bool {
        matches!(
            self,
            Loss::CrossEntropy { .. } | Loss::MultiMargin { .. } | Loss::NegativeLogLikelihood { .. }
        )
    }

    /// Scores (rows, classes) give (rows,); elements keep their shape.
    pub(super) fn infer(self, inputs: &[Meta]) -> Result<Meta> {
        let (scores, target) = (inputs[0], inputs[1]);
        if !scores.dtype.is_float() {
            return Err(Error::DType { op: self.name(), expected: "float32 or float64", got: scores.dtype });
        }
        let shape = scores.shape;
        let expected = match (self.is_by_row(), self.takes_labels()) {
            (true, _) if shape.rank() != 2 => {
                return Err(Error::Shape {
                    op: self.name(),
                    expected: "scores of shape (batch, classes)".into(),
                    got: shape.to_string(),
                });
            }
            (true, true) => Dims::from_slice(&shape[..1]),
            _ => shape,
        };
        if target.shape != expected {
            return Err(Error::Shape {
                op: self.name(),
                expected: format!("a target of shape {expected} for input of shape {shape}"),
                got: target.shape.to_string(),
            });
        }
        if let Some(weight) = inputs.get(2) {
            let classes = shape.last().copied().unwrap_or(1);
            if weight.shape != Dims::from_slice(&[classes]) {
                return Err(Error::Shape {
                    op: self.name(),
                    expected: format!("weights of shape ({classes},)"),
                    got: weight.shape.to_string(),
                });
            }
        }
        Ok(if self.is_by_row() { Meta { shape: Dims::from_slice(&shape[..1]), ..scores } } else { scores })
    }

    /// Value, derivative, or both in one pass: the same bits either way.
    pub(crate) fn run(self, inputs: &[&Array], loss: Option<&Array>, grad: Option<&Array>) -> Result<()> {
        for_float!(self.name(), inputs[0].dtype(), T => self.run_typed::<T>(inputs, loss, grad))
    }

    fn run_typed<T: Math + Element>(
        self,
        inputs: &[&Array],
        loss: Option<&Array>,
        grad: Option<&Array>,
    ) -> Result<()> {
        let (scores, target) = (contiguous(inputs[0])?, contiguous(inputs[1])?);
        let weight = inputs.get(2).map(|w| contiguous(w)).transpose()?;
        let weight = weight.as_ref().map(Array::read::<T>);
        let weight = weight.as_deref();
        let x = scores.read::<T>();
        let mut loss = loss.map(Array::write::<T>);
        let mut grad = grad.map(Array::write::<T>);
        let (loss, grad) = (loss.as_deref_mut(), grad.as_deref_mut());
        let rows = scores.shape().first().copied().unwrap_or(1);
        let classes = scores.shape().last().copied().unwrap_or(1);
        match self {
            Loss::CrossEntropy { label_smoothing, ignore_index, .. } => {
                let labels = target.read::<i64>();
                check_labels(self.name(), &labels, classes, Some(ignore_index))?;
                let p = kernel::CrossEntropy { weight, label_smoothing, ignore_index };
                kernel::cross_entropy_rows(&p, rows, classes, &x, &labels, loss, grad);
            }
            Loss::SoftCrossEntropy { label_smoothing, .. } => {
                let t = target.read::<T>();
                kernel::soft_cross_entropy_rows(weight, label_smoothing, rows, classes, &x, &t, loss, grad);
            }
            Loss::MultiMargin { p, margin, divide_by_classes, .. } => {
                let labels = target.read::<i64>();
                check_labels(self.name(), &labels, classes, None)?;
                let scale = if divide_by_classes { 1.0 / classes as f64 } else { 1.0 };
                kernel::multi_margin_rows(p, margin, scale, weight, rows, classes, &x, &labels, loss, grad);
            }
            Loss::NegativeLogLikelihood { ignore_index, .. } => {
                let labels = target.read::<i64>();
                check_labels(self.name(), &labels, classes, Some(ignore_index))?;
                let (x, y): (&[T], &[i64]) = (&x, &labels);
                kernel::negative_log_likelihood_rows(weight, ignore_index, rows, classes, x, y, loss, grad);
            }
            Loss::SquaredError => kernel::squared_error(&x, &target.read::<T>(), loss, grad),
            Loss::BinaryCrossEntropy => kernel::bce(&x, &target.read::<T>(), loss, grad),
            Loss::BinaryCrossEntropyWithLogits { .. } => {
                let weight = weight.map(|w| (w, classes));
                kernel::bce_with_logits(&x, &target.read::<T>(), weight, loss, grad);
            }
        }
        Ok(())
    }

    /// Whether scores and targets change places without a change of the value.
    fn is_symmetric(self) -> bool {
        self == Loss::SquaredError
    }

    /// dL/dx = g * loss'(x), g spread over the row. Weights get no gradient, and targets only where the loss is
    /// symmetric.
    pub(super) fn vjp(self, cx: &Vjp) -> Result<Gradients> {
        let operands: Operands<Tensor> = (0..cx.arity()).map(|i| cx.input(i)).collect();
        let slope = Tensor::apply(Op::LossGrad(self), &operands.iter().collect::<Operands<_>>())?;
        let g = if self.is_by_row() { cx.grad().unsqueeze(1)? } else { cx.grad().clone() };
        let mut grads: Gradients = smallvec![None; cx.arity()];
        let grad = slope.mul(&g)?;
        grads[1] = self.is_symmetric().then(|| grad.neg()).filter(|_| cx.needs(1)).transpose()?;
        grads[0] = Some(grad);
        Ok(grads)
    }

    /// loss'(x) t, summed over a row's scores; minus it for targets where the loss is symmetric.
    pub(super) fn jvp(self, cx: &Jvp) -> Result<Option<Tensor>> {
        let operands: Operands<Tensor> = (0..cx.arity()).map(|i| cx.input(i)).collect();
        cx.sum(|i, t| {
            if i > usize::from(self.is_symmetric()) {
                return Ok(None);
            }
            let slope = Tensor::apply(Op::LossGrad(self), &operands.iter().collect::<Operands<_>>())?;
            let moved = slope.mul(t)?;
            let moved = if self.is_by_row() { moved.sum(&[1], false)? } else { moved };
            if i == 1 { moved.neg().map(Some) } else { Ok(Some(moved)) }
        })
    }

    /// The second derivative is symmetric in the scores; minus it for targets where the loss is symmetric.
    pub(super) fn jvp_of_grad(self, cx: &Jvp) -> Result<Option<Tensor>> {
        cx.sum(|i, t| {
            if i > usize::from(self.is_symmetric()) {
                return Ok(None);
            }
            let moved = self.bend(&cx.with(t))?;
            if i == 1 { moved.neg().map(Some) } else { Ok(Some(moved)) }
        })
    }

    /// The gradients of the derivative, times u.
    pub(super) fn vjp_of_grad(self, cx: &Vjp) -> Result<Gradients> {
        let grad = self.bend(cx)?;
        let mut grads: Gradients = smallvec![None; cx.arity()];
        grads[1] = self.is_symmetric().then(|| grad.neg()).filter(|_| cx.needs(1)).transpose()?;
        grads[0] = Some(grad);
        Ok(grads)
    }

    /// The second derivative, times u.
    fn bend(self, cx: &Vjp) -> Result<Tensor> {
        let (u, x) = (cx.grad(), cx.input(0));
        Ok(match self {
            // total * s (u - <u, s>), total the sum of the row's effective target
            Loss::CrossEntropy { .. } | Loss::SoftCrossEntropy { .. } => {
                let total = self.effective_target(cx)?.sum(&[1], true)?;
                let s = x.softmax(1)?;
                total.mul(&s.mul(&u.sub(&u.mul(&s)?.sum(&[1], true)?)?)?)?
            }
            // Linear, or in pieces.
            Loss::MultiMargin { p: 1, .. } | Loss::NegativeLogLikelihood { .. } => u.mul_scalar(0.0)?,
            // The derivative is 2 c max(0, margin - s_y + s_j): slope 2 c where it is active.
            Loss::MultiMargin { divide_by_classes, weighted, .. } => {
                let zero = Tensor::scalar(x.dtype(), 0.0)?;
                let own = one_hot(&cx.input(1), x.shape()[1], x.dtype())?;
                let slope = Tensor::apply(
                    Op::LossGrad(self),
                    &(0..cx.arity()).map(|i| cx.input(i)).collect::<Vec<_>>().iter().collect::<Vec<_>>(),
                )?;
                let mut scale = Tensor::scalar(
                    x.dtype(),
                    if divide_by_classes { 2.0 / x.shape()[1] as f64 } else { 2.0 },
                )?;
                if weighted {
                    scale = scale.mul(&own.mul(&cx.input(2))?.sum(&[1], true)?)?;
                }
                let active = slope.detach().compare(Compare::Gt, &zero)?.cast(x.dtype())?.mul(&scale)?;
                let pull = active.mul(&u.sub(&u.mul(&own)?.sum(&[1], true)?)?)?;
                pull.sub(&own.mul(&pull.sum(&[1], true)?)?)?
            }
            Loss::SquaredError => u.mul_scalar(2.0)?,
            // d/dx (x - t) / q = 1/q - (x - t)(1 - 2x) / q^2 with q = x (1 - x)
            Loss::BinaryCrossEntropy => {
                let one = Tensor::scalar(x.dtype(), 1.0)?;
                let q =
                    x.mul(&one.sub(&x)?)?.unary(super::Unary::Clamp { min: 1e-12, max: f64::INFINITY })?;
                let bend = x.sub(&cx.input(1))?.mul(&one.sub(&x.mul_scalar(2.0)?)?)?.div(&q.square()?)?;
                u.mul(&q.reciprocal()?.sub(&bend)?)?
            }
            // s (1 - s) (1 + (w - 1) t)
            Loss::BinaryCrossEntropyWithLogits { weighted } => {
                let bend = u.binary(super::Binary::SigmoidGrad, &x.sigmoid()?)?;
                if weighted {
                    let share = cx.input(1).mul(&cx.input(2).add_scalar(-1.0)?)?.add_scalar(1.0)?;
                    bend.mul(&share)?
                } else {
                    bend
                }
            }
        })
    }

    /// The matrix t with loss_i = sum_c t_ic (logsumexp_i - x_ic).
    fn effective_target(self, cx: &Vjp) -> Result<Tensor> {
        let (shape, dtype) = (*cx.shape(0), cx.dtype(0));
        let (target, smoothing, weighted) = match self {
            Loss::CrossEntropy { label_smoothing, weighted, ignore_index, .. } => {
                // An ignored label may be a class too.
                let ignored = Array::from_slice(DType::I64, Dims::scalar(), &[ignore_index])?;
                let ignored = Tensor::constant(ignored);
                let counts = cx.input(1).compare(Compare::Ne, &ignored)?.unsqueeze(1)?.cast(dtype)?;
                (one_hot(&cx.input(1), shape[1], dtype)?.mul(&counts)?, label_smoothing, weighted)
            }
            Loss::SoftCrossEntropy { label_smoothing, weighted } => (cx.input(1), label_smoothing, weighted),
            _ => unreachable!("cross-entropies only"),
        };
        let mut mixed = target.mul_scalar(1.0 - smoothing)?;
        if smoothing != 0.0 {
            let share = smoothing / shape[1] as f64;
            mixed = match self {
                // An ignored row stays zero.
                Loss::CrossEntropy { .. } => mixed.add(&target.sum(&[1], true)?.mul_scalar(share)?)?,
                _ => mixed.add_scalar(share)?,
            };
        }
        if weighted { mixed.mul(&cx.input(2)) } else { Ok(mixed) }
    }
}

/// 1 where the column is the row's label; a label outside the classes gives a row of zeros.
fn one_hot(labels: &Tensor, classes: usize, dtype: DType) -> Result<Tensor> {
    let columns: Vec<i64> = (0..classes as i64).collect();
    let columns = Tensor::constant(Array::from_slice(DType::I64, Dims::from_slice(&[classes]), &columns)?);
    labels.unsqueeze(1)?.compare(Compare::Eq, &columns)?.cast(dtype)
}

/// The number of labels that are not `ignored`.
pub(super) fn run_count(ignored: i64, labels: &Array, out: &Array) -> Result<()> {
    let labels = contiguous(labels)?;
    let count = labels.read::<i64>().iter().filter(|&&label| label != ignored).count();
    for_float!("count_labels", out.dtype(), T => {
        out.write::<T>()[0] = T::from_f64(count as f64);
        Ok(())
    })
}

fn check_labels(op: &'static str, labels: &[i64], classes: usize, ignore: Option<i64>) -> Result<()> {
    match labels.iter().position(|&label| !(0..classes as i64).contains(&label) && Some(label) != ignore) {
        Some(position) => Err(Error::Label { op, label: labels[position], position, classes }),
        None => Ok(()),
    }
}

impl Tensor {
    /// `(x - t)^2` of tensors of one shape; derivative `2 (x - t)`, and its negative for `t`.
    ///
    /// # Errors
    /// `Shape`, or `DType` for integers.
    pub fn squared_error(&self, target: &Tensor) -> Result<Tensor> {
        let is_scalar = self.shape().rank() == 0;
        let dtype = DType::promote(self.dtype(), is_scalar, target.dtype(), target.shape().rank() == 0);
        Tensor::apply(Op::Loss(Loss::SquaredError), &[&self.cast(dtype)?, &target.cast(dtype)?])
    }

    /// How many of this tensor's integers are not `ignored`, as a scalar of a float dtype; without gradient.
    ///
    /// # Errors
    /// `DType` when this tensor is not of integers or `dtype` is not of floats.
    pub fn count_labels(&self, ignored: i64, dtype: DType) -> Result<Tensor> {
        if self.dtype().is_float() {
            return Err(Error::DType { op: "count_labels", expected: "integers", got: self.dtype() });
        }
        if !dtype.is_float() {
            return Err(Error::DType { op: "count_labels", expected: "float32 or float64", got: dtype });
        }
        Tensor::apply(Op::CountLabels { ignored, dtype }, &[&self.cast(DType::I64)?])
    }

    /// An unreduced loss of this tensor's scores.
    ///
    /// # Errors
    /// `Shape`, `DType` or `Label` when the target does not fit.
    pub fn loss(&self, loss: Loss, target: &Tensor, weight: Option<&Tensor>) -> Result<Tensor> {
        if loss.takes_labels() {
            if target.dtype() != DType::I64 && target.dtype() != DType::U8 {
                return Err(Error::DType {
                    op: loss.name(),
                    expected: "class indices as int64",
                    got: target.dtype(),
                });
            }
        } else if !target.dtype().is_float() {
            return Err(Error::DType {
                op: loss.name(),
                expected: "a floating-point target",
                got: target.dtype(),
            });
        }
        let target = target.cast(if loss.takes_labels() { DType::I64 } else { self.dtype() })?;
        let weight = weight.map(|w| w.cast(self.dtype())).transpose()?;
        let operands: Operands<&Tensor> = [self, &target].into_iter().chain(&weight).collect();
        Tensor::apply(Op::Loss(loss), &operands)
    }
}
