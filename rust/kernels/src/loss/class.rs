//! Losses of a row of class scores: cross-entropy of class indices or probabilities, and multi-class hinge.

use super::few;
use crate::elementwise::{function as f, map_in_place};
use crate::isa::{Isa, Job, dispatch};
use crate::math::Math;
use crate::reduce::{
    GROUP_ROWS, Pairwise, ROW_BLOCK, Sum, exp_sums, exponentials, fold_block, rows_per_group,
};

/// Options of [`cross_entropy_rows`].
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy<'a, T> {
    /// A factor for each class.
    pub weight: Option<&'a [T]>,
    /// The share of the target that is spread over all classes.
    pub label_smoothing: f64,
    /// Rows with this target have loss and gradient 0.
    pub ignore_index: i64,
}

/// Rows of a group with their softmax parts.
struct Group<T> {
    max: [T; GROUP_ROWS],
    sum: [T; GROUP_ROWS],
    log_sum: [T; GROUP_ROWS],
}

impl<T: Math> Group<T> {
    /// With `grad`, the exponentials are left in it.
    #[inline(always)]
    fn new(classes: usize, logits: &[T], grad: Option<&mut [T]>, wants_log: bool) -> Self {
        let rows = logits.len() / classes;
        let (mut max, mut sum) = ([T::ZERO; GROUP_ROWS], [T::ZERO; GROUP_ROWS]);
        match grad {
            Some(e) => exponentials(classes, logits, e, &mut max[..rows], &mut sum[..rows]),
            None => exp_sums(classes, logits, &mut max[..rows], &mut sum[..rows]),
        }
        let mut log_sum = sum;
        if wants_log {
            map_in_place(f::Log {}, &mut log_sum[..rows]);
        }
        Group { max, sum, log_sum }
    }
}

/// A term of a sum over classes.
trait Term<T>: Copy {
    fn at(self, class: usize) -> T;
}

/// The sum of a term over all classes: blocks in pairs, as all row sums.
#[inline(always)]
fn sum_terms<T: Math>(classes: usize, term: impl Term<T>) -> T {
    if classes < T::LANES {
        // The order of `fold_block`, without its buffer: clearing that took longer than a whole row.
        return (0..classes).fold(T::ZERO, |sum, class| sum + term.at(class));
    }
    let mut terms = [T::ZERO; ROW_BLOCK];
    let mut blocks = Pairwise::new();
    for first in (0..classes).step_by(ROW_BLOCK) {
        let terms = &mut terms[..ROW_BLOCK.min(classes - first)];
        for (j, out) in terms.iter_mut().enumerate() {
            *out = term.at(first + j);
        }
        blocks.push(Sum, fold_block(Sum, terms));
    }
    blocks.finish(Sum)
}

/// `w_c * (log_sum - (z_c - max))`: the weighted negative log-probability of a class.
#[derive(Clone, Copy)]
struct NegativeLog<'a, T> {
    weight: Option<&'a [T]>,
    logits: &'a [T],
    max: T,
    log_sum: T,
}

impl<T: Math> Term<T> for NegativeLog<'_, T> {
    #[inline(always)]
    fn at(self, class: usize) -> T {
        let value = self.log_sum - (self.logits[class] - self.max);
        match self.weight {
            Some(weight) => weight[class] * value,
            None => value,
        }
    }
}

#[derive(Clone, Copy)]
struct Weighted<'a, T> {
    weight: Option<&'a [T]>,
    target: Smoothed<'a, T>,
}

/// Target probabilities, smoothed: `t (1 - s) + s / classes`.
#[derive(Clone, Copy)]
struct Smoothed<'a, T> {
    target: &'a [T],
    keep: T,
    spread: T,
}

impl<T: Math> Smoothed<'_, T> {
    #[inline(always)]
    fn at(self, class: usize) -> T {
        self.target[class].mul_add(self.keep, self.spread)
    }
}

impl<T: Math> Term<T> for Weighted<'_, T> {
    #[inline(always)]
    fn at(self, class: usize) -> T {
        let target = self.target.at(class);
        match self.weight {
            Some(weight) => weight[class] * target,
            None => target,
        }
    }
}

#[derive(Clone, Copy)]
struct SoftTerm<'a, T> {
    log: NegativeLog<'a, T>,
    target: Smoothed<'a, T>,
}

impl<T: Math> Term<T> for SoftTerm<'_, T> {
    #[inline(always)]
    fn at(self, class: usize) -> T {
        self.log.at(class) * self.target.at(class)
    }
}

#[derive(Clone, Copy)]
struct ClassWeight<'a, T>(&'a [T]);

impl<T: Math> Term<T> for ClassWeight<'_, T> {
    #[inline(always)]
    fn at(self, class: usize) -> T {
        self.0[class]
    }
}

pub(super) struct CrossEntropyJob<'a, T> {
    pub(super) options: &'a CrossEntropy<'a, T>,
    pub(super) classes: usize,
    pub(super) logits: &'a [T],
    pub(super) target: &'a [i64],
    pub(super) loss: Option<&'a mut [T]>,
    pub(super) grad: Option<&'a mut [T]>,
}

impl<T: Math> Job for CrossEntropyJob<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self) {
        // A block of many classes takes longer to clear than some batches to finish.
        if self.classes <= 16 {
            return few::cross_entropy::<I, T, 16>(self);
        }
        if self.classes <= few::MOST_CLASSES {
            return few::cross_entropy::<I, T, { few::MOST_CLASSES }>(self);
        }
        let (classes, weight) = (self.classes, self.options.weight);
        let keep = T::from_f64(1.0 - self.options.label_smoothing);
        let spread = T::from_f64(self.options.label_smoothing / classes as f64);
        let weights = match weight {
            Some(weight) => sum_terms(classes, ClassWeight(weight)),
            None => T::from_f64(classes as f64),
        };
        let group_rows = rows_per_group(classes);
        for (g, target) in self.target.chunks(group_rows).enumerate() {
            let first = g * group_rows;
            let span = first * classes..(first + target.len()) * classes;
            let logits = &self.logits[span.clone()];
            let mut grad = self.grad.as_deref_mut().map(|grad| &mut grad[span]);
            let group = Group::new(classes, logits, grad.as_deref_mut(), self.loss.is_some());
            for (r, &y) in target.iter().enumerate() {
                let is_ignored = y == self.options.ignore_index;
                let z = &logits[r * classes..(r + 1) * classes];
                let class = if is_ignored { 0 } else { y as usize };
                let own = keep * weight.map_or(T::ONE, |weight| weight[class]);
                if let Some(loss) = self.loss.as_deref_mut() {
                    let log =
                        NegativeLog { weight: None, logits: z, max: group.max[r], log_sum: group.log_sum[r] };
                    let mut value = own * log.at(class);
                    if spread != T::ZERO {
                        let all = sum_terms(classes, NegativeLog { weight, ..log });
                        value = spread.mul_add(all, value);
                    }
                    loss[first + r] = if is_ignored { T::ZERO } else { value };
                }
                if let Some(grad) = grad.as_deref_mut() {
                    let grad = &mut grad[r * classes..(r + 1) * classes];
                    if is_ignored {
                        grad.fill(T::ZERO);
                        continue;
                    }
                    // d/dz_j = (own + spread W) p_j - spread w_j - own [j = y], with W the sum of the weights.
                    let scale = spread.mul_add(weights, own) / group.sum[r];
                    match weight {
                        _ if spread == T::ZERO => {
                            for g in grad.iter_mut() {
                                *g *= scale;
                            }
                        }
                        Some(weight) => {
                            for (g, &w) in grad.iter_mut().zip(weight) {
                                *g = *g * scale - spread * w;
                            }
                        }
                        None => {
                            for g in grad.iter_mut() {
                                *g = *g * scale - spread;
                            }
                        }
                    }
                    grad[class] -= own;
                }
            }
        }
    }
}

fn check_rows<T>(
    rows: usize,
    classes: usize,
    scores: &[T],
    weight: Option<&[T]>,
    loss: Option<&mut [T]>,
    grad: Option<&mut [T]>,
) {
    assert!(classes > 0 && scores.len() == rows * classes, "contiguous (rows, classes > 0)");
    assert!(weight.is_none_or(|weight| weight.len() == classes), "a weight for each class");
    assert!(loss.is_none_or(|loss| loss.len() == rows), "a loss for each row");
    assert!(grad.is_none_or(|grad| grad.len() == scores.len()), "a gradient for each score");
}

/// `-w_y (1 - s) log p_y - s / classes * sum_c w_c log p_c` for each row, with `p` the softmax of the logits and
/// `s` the smoothing (PyTorch's `cross_entropy` with `reduction="none"`), and its gradient by the logits.
/// Targets are `ignore_index` or in `0..classes`.
pub fn cross_entropy_rows<T: Math>(
    p: &CrossEntropy<T>,
    rows: usize,
    classes: usize,
    logits: &[T],
    target: &[i64],
    mut loss: Option<&mut [T]>,
    mut grad: Option<&mut [T]>,
) {
    check_rows(rows, classes, logits, p.weight, loss.as_deref_mut(), grad.as_deref_mut());
    assert_eq!(target.len(), rows, "a target for each row");
    dispatch(CrossEntropyJob { options: p, classes, logits, target, loss, grad });
}

struct SoftJob<'a, T> {
    weight: Option<&'a [T]>,
    label_smoothing: f64,
    rows: usize,
    classes: usize,
    logits: &'a [T],
    target: &'a [T],
    loss: Option<&'a mut [T]>,
    grad: Option<&'a mut [T]>,
}

impl<T: Math> Job for SoftJob<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self) {
        let (classes, weight) = (self.classes, self.weight);
        let keep = T::from_f64(1.0 - self.label_smoothing);
        let spread = T::from_f64(self.label_smoothing / classes as f64);
        let group_rows = rows_per_group(classes);
        for first in (0..self.rows).step_by(group_rows) {
            let count = group_rows.min(self.rows - first);
            let span = first * classes..(first + count) * classes;
            let logits = &self.logits[span.clone()];
            let mut grad = self.grad.as_deref_mut().map(|grad| &mut grad[span.clone()]);
            let group = Group::new(classes, logits, grad.as_deref_mut(), self.loss.is_some());
            for r in 0..count {
                let row = r * classes..(r + 1) * classes;
                let target = Smoothed { target: &self.target[span.clone()][row.clone()], keep, spread };
                if let Some(loss) = self.loss.as_deref_mut() {
                    let (max, log_sum) = (group.max[r], group.log_sum[r]);
                    let log = NegativeLog { weight, logits: &logits[row.clone()], max, log_sum };
                    loss[first + r] = sum_terms(classes, SoftTerm { log, target });
                }
                if let Some(grad) = grad.as_deref_mut() {
                    // d/dz_j = p_j sum_c w_c t_c - w_j t_j
                    let weighted = Weighted { weight, target };
                    let scale = sum_terms(classes, weighted) / group.sum[r];
                    for (j, g) in grad[row].iter_mut().enumerate() {
                        *g = *g * scale - weighted.at(j);
                    }
                }
            }
        }
    }
}

/// `-sum_c w_c t_c log p_c` for each row, with `t` the smoothed target probabilities, and its gradient by the logits.
pub fn soft_cross_entropy_rows<T: Math>(
    weight: Option<&[T]>,
    label_smoothing: f64,
    rows: usize,
    classes: usize,
    logits: &[T],
    target: &[T],
    mut loss: Option<&mut [T]>,
    mut grad: Option<&mut [T]>,
) {
    check_rows(rows, classes, logits, weight, loss.as_deref_mut(), grad.as_deref_mut());
    assert_eq!(target.len(), logits.len(), "a probability for each logit");
    dispatch(SoftJob { weight, label_smoothing, rows, classes, logits, target, loss, grad });
}

/// `max(0, margin - x_y + x_j)^p * factor` for `j != y`.
#[derive(Clone, Copy)]
struct Hinge<'a, T> {
    is_squared: bool,
    margin: T,
    factor: T,
    scores: &'a [T],
    own: usize,
}

impl<T: Math> Hinge<'_, T> {
    #[inline(always)]
    fn violation(self, class: usize) -> T {
        let z = self.margin - self.scores[self.own] + self.scores[class];
        if (z <= T::ZERO) | (class == self.own) { T::ZERO } else { z }
    }
}

impl<T: Math> Term<T> for Hinge<'_, T> {
    #[inline(always)]
    fn at(self, class: usize) -> T {
        let z = self.violation(class);
        self.factor * if self.is_squared { z * z } else { z }
    }
}

/// The derivative of [`Hinge`] by `x_j`.
#[derive(Clone, Copy)]
struct HingeSlope<'a, T>(Hinge<'a, T>);

impl<T: Math> Term<T> for HingeSlope<'_, T> {
    #[inline(always)]
    fn at(self, class: usize) -> T {
        let z = self.0.violation(class);
        // NaN stays NaN, and the kink has slope 0.
        let step = if z > T::ZERO { T::ONE } else { z };
        self.0.factor * if self.0.is_squared { z + z } else { step }
    }
}

struct HingeJob<'a, T> {
    is_squared: bool,
    margin: T,
    scale: T,
    weight: Option<&'a [T]>,
    classes: usize,
    scores: &'a [T],
    target: &'a [i64],
    loss: Option<&'a mut [T]>,
    grad: Option<&'a mut [T]>,
}

impl<T: Math> Job for HingeJob<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self) {
        let classes = self.classes;
        for (r, &y) in self.target.iter().enumerate() {
            let (row, own) = (r * classes..(r + 1) * classes, y as usize);
            let factor = self.weight.map_or(self.scale, |weight| self.scale * weight[own]);
            let scores = &self.scores[row.clone()];
            let hinge = Hinge { is_squared: self.is_squared, margin: self.margin, factor, scores, own };
            if let Some(loss) = self.loss.as_deref_mut() {
                loss[r] = sum_terms(classes, hinge);
            }
            if let Some(grad) = self.grad.as_deref_mut() {
                let grad = &mut grad[row];
                for (j, g) in grad.iter_mut().enumerate() {
                    *g = HingeSlope(hinge).at(j);
                }
                grad[own] = -sum_terms(classes, HingeSlope(hinge));
            }
        }
    }
}

/// `scale * w_y * sum_{j != y} max(0, margin - x_y + x_j)^p` for each row (PyTorch: `scale = 1 / classes`) and its
/// gradient by the scores, 0 at the kink. `p` is 1 or 2; targets are in `0..classes`.
pub fn multi_margin_rows<T: Math>(
    p: u32,
    margin: f64,
    scale: f64,
    weight: Option<&[T]>,
    rows: usize,
    classes: usize,
    scores: &[T],
    target: &[i64],
    mut loss: Option<&mut [T]>,
    mut grad: Option<&mut [T]>,
) {
    check_rows(rows, classes, scores, weight, loss.as_deref_mut(), grad.as_deref_mut());
    assert!(p == 1 || p == 2, "p is 1 or 2, got {p}");
    assert_eq!(target.len(), rows, "a target for each row");
    let (margin, scale) = (T::from_f64(margin), T::from_f64(scale));
    dispatch(HingeJob { is_squared: p == 2, margin, scale, weight, classes, scores, target, loss, grad });
}

/// `-w_y x_y` for each row of log-probabilities, and its gradient; 0 where the target is `ignore_index`.
/// Other targets are in `0..classes`.
pub fn negative_log_likelihood_rows<T: Math>(
    weight: Option<&[T]>,
    ignore_index: i64,
    rows: usize,
    classes: usize,
    scores: &[T],
    target: &[i64],
    mut loss: Option<&mut [T]>,
    mut grad: Option<&mut [T]>,
) {
    check_rows(rows, classes, scores, weight, loss.as_deref_mut(), grad.as_deref_mut());
    assert_eq!(target.len(), rows, "a target for each row");
    if let Some(grad) = grad.as_deref_mut() {
        grad.fill(T::ZERO);
    }
    for (r, &y) in target.iter().enumerate() {
        let own = (y != ignore_index).then_some(y as usize);
        let factor = own.map(|own| weight.map_or(-T::ONE, |weight| -weight[own]));
        if let Some(loss) = loss.as_deref_mut() {
            loss[r] = own.zip(factor).map_or(T::ZERO, |(own, factor)| factor * scores[r * classes + own]);
        }
        if let (Some(grad), Some(own), Some(factor)) = (grad.as_deref_mut(), own, factor) {
            grad[r * classes + own] = factor;
        }
    }
}
