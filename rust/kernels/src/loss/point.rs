//! Losses of single values: squared error, binary cross-entropy of probabilities and of logits.

use crate::elementwise::walk::BLOCK;
use crate::isa::{Isa, Job, dispatch};
use crate::math::Math;

/// Loss and gradient of one value; `weight` is the factor of the positive class.
trait Point<T>: Copy {
    fn apply(self, x: T, target: T, weight: T) -> (T, T);
}

#[derive(Clone, Copy)]
struct SquaredError;

impl<T: Math> Point<T> for SquaredError {
    #[inline(always)]
    fn apply(self, x: T, target: T, _weight: T) -> (T, T) {
        let difference = x - target;
        (difference * difference, difference + difference)
    }
}

#[derive(Clone, Copy)]
struct Bce<T> {
    lowest_log: T,
    smallest_variance: T,
}

impl<T: Math> Point<T> for Bce<T> {
    #[inline(always)]
    fn apply(self, x: T, target: T, _weight: T) -> (T, T) {
        // The logarithms are cut off, as in PyTorch, so that a sure and wrong prediction has a finite loss.
        let log = x.log().maximum(self.lowest_log);
        let log_rest = (-x).log1p().maximum(self.lowest_log);
        let loss = (target - T::ONE) * log_rest - target * log;
        let variance = ((T::ONE - x) * x).maximum(self.smallest_variance);
        (loss, (x - target) / variance)
    }
}

#[derive(Clone, Copy)]
struct BceWithLogits;

impl<T: Math> Point<T> for BceWithLogits {
    #[inline(always)]
    fn apply(self, x: T, target: T, weight: T) -> (T, T) {
        let e = (-x.abs()).exp();
        let one_plus_e = T::ONE + e;
        let rest = T::ONE - target;
        // -log sigmoid(x) = max(-x, 0) + log(1 + e^-|x|), and sigmoid(-x) = 1 - sigmoid(x)
        let negative_log = (-x).maximum(T::ZERO) + e.log1p();
        let (high, low) = (T::ONE / one_plus_e, e / one_plus_e);
        let is_negative = x < T::ZERO;
        let (sigmoid, complement) =
            (if is_negative { low } else { high }, if is_negative { high } else { low });
        let positive = weight * target;
        (rest * x + (rest + positive) * negative_log, rest * sigmoid - positive * complement)
    }
}

struct PointJob<'a, T, P> {
    point: P,
    x: &'a [T],
    target: &'a [T],
    weight: Option<(&'a [T], usize)>,
    loss: Option<&'a mut [T]>,
    grad: Option<&'a mut [T]>,
}

#[inline(always)]
fn load_block<T: Math>(source: &[T]) -> [T; BLOCK] {
    match source.first_chunk() {
        Some(block) => *block,
        None => {
            let mut block = [T::ZERO; BLOCK];
            block[..source.len()].copy_from_slice(source);
            block
        }
    }
}

impl<T: Math, P: Point<T>> Job for PointJob<'_, T, P> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self) {
        let n = self.x.len();
        let mut weight = [T::ONE; BLOCK];
        for first in (0..n).step_by(BLOCK) {
            let count = BLOCK.min(n - first);
            let (x, target) = (load_block(&self.x[first..]), load_block(&self.target[first..]));
            if let Some((weights, period)) = self.weight {
                let mut at = first % period;
                for weight in &mut weight {
                    *weight = weights[at];
                    at = if at + 1 == period { 0 } else { at + 1 };
                }
            }
            let (mut loss, mut grad) = ([T::ZERO; BLOCK], [T::ZERO; BLOCK]);
            for j in 0..BLOCK {
                (loss[j], grad[j]) = self.point.apply(x[j], target[j], weight[j]);
            }
            if let Some(out) = self.loss.as_deref_mut() {
                out[first..first + count].copy_from_slice(&loss[..count]);
            }
            if let Some(out) = self.grad.as_deref_mut() {
                out[first..first + count].copy_from_slice(&grad[..count]);
            }
        }
    }
}

fn check<T>(x: &[T], target: &[T], loss: Option<&mut [T]>, grad: Option<&mut [T]>) {
    assert_eq!(x.len(), target.len(), "a target for each value");
    assert!(loss.is_none_or(|loss| loss.len() == x.len()), "a loss for each value");
    assert!(grad.is_none_or(|grad| grad.len() == x.len()), "a gradient for each value");
}

/// `(x - t)^2` and its gradient `2 (x - t)`, which is exact but for the difference's rounding.
pub fn squared_error<T: Math>(x: &[T], target: &[T], mut loss: Option<&mut [T]>, mut grad: Option<&mut [T]>) {
    check(x, target, loss.as_deref_mut(), grad.as_deref_mut());
    dispatch(PointJob { point: SquaredError, x, target, weight: None, loss, grad });
}

/// `-t log x - (1 - t) log(1 - x)` of probabilities `x`, logarithms no less than -100, and its gradient
/// `(x - t) / max(x (1 - x), 1e-12)`: PyTorch's `binary_cross_entropy` with `reduction="none"`.
pub fn bce<T: Math>(x: &[T], target: &[T], mut loss: Option<&mut [T]>, mut grad: Option<&mut [T]>) {
    check(x, target, loss.as_deref_mut(), grad.as_deref_mut());
    let point = Bce { lowest_log: T::from_f64(-100.0), smallest_variance: T::from_f64(1e-12) };
    dispatch(PointJob { point, x, target, weight: None, loss, grad });
}

/// `-w t log sigmoid(x) - (1 - t) log(1 - sigmoid(x))` of logits `x`, and its gradient. `pos_weight` is `w` and the
/// period with which it repeats: the length of the last dimension.
pub fn bce_with_logits<T: Math>(
    x: &[T],
    target: &[T],
    pos_weight: Option<(&[T], usize)>,
    mut loss: Option<&mut [T]>,
    mut grad: Option<&mut [T]>,
) {
    check(x, target, loss.as_deref_mut(), grad.as_deref_mut());
    let weight = pos_weight;
    assert!(weight.is_none_or(|(w, period)| period > 0 && w.len() == period), "a weight for each last index");
    dispatch(PointJob { point: BceWithLogits, x, target, weight, loss, grad });
}
