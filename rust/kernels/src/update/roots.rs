//! Rates divided by the root of squared gradients.

use std::ops::RangeInclusive;

use super::{Step, Update, decayed, flush, sweep};
use crate::math::Math;

/// One step of Adagrad.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adagrad {
    /// Learning rate.
    pub lr: f64,
    /// The rate is divided by `1 + (step - 1) lr_decay`.
    pub lr_decay: f64,
    /// L2 penalty.
    pub weight_decay: f64,
    /// Added to the root.
    pub eps: f64,
    /// The number of this step, from 1.
    pub step: u64,
}

/// `s += g^2`, `weight -= lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)`.
impl Update for Adagrad {
    fn apply<T: Math>(&self, weight: &mut [T], grad: &[T], states: [Option<&mut [T]>; 3]) {
        let step = AllSquares {
            lr: T::from_f64(self.lr / (1.0 + (self.step as f64 - 1.0) * self.lr_decay)),
            eps: T::from_f64(self.eps),
            decay: T::from_f64(self.weight_decay),
        };
        sweep(step, weight, grad, states);
    }

    fn advance(&mut self) {
        self.step += 1;
    }

    fn rate(&mut self) -> &mut f64 {
        &mut self.lr
    }

    fn states(&self) -> RangeInclusive<usize> {
        1..=1
    }
}

#[derive(Clone, Copy)]
struct AllSquares<T> {
    lr: T,
    eps: T,
    decay: T,
}

impl<T: Math> Step<T, 2> for AllSquares<T> {
    #[inline(always)]
    fn step(self, [w, sum]: [T; 2], grad: T) -> [T; 2] {
        let g = decayed::<T, true>(self.decay, w, grad);
        let sum = g.mul_add(g, sum);
        [w - self.lr * g / (sum.sqrt() + self.eps), sum]
    }
}

/// One step of Adadelta.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adadelta {
    /// Factor of the step.
    pub lr: f64,
    /// Decay of both means.
    pub rho: f64,
    /// Added to both mean squares.
    pub eps: f64,
    /// L2 penalty.
    pub weight_decay: f64,
}

/// `v = rho v + (1 - rho) g^2`, `d = sqrt(u + eps) / sqrt(v + eps) g`, `u = rho u + (1 - rho) d^2`,
/// `weight -= lr d`.
impl Update for Adadelta {
    fn apply<T: Math>(&self, weight: &mut [T], grad: &[T], states: [Option<&mut [T]>; 3]) {
        let step = OwnUnits {
            lr: T::from_f64(self.lr),
            rho: T::from_f64(self.rho),
            fresh: T::from_f64(1.0 - self.rho),
            eps: T::from_f64(self.eps),
            decay: T::from_f64(self.weight_decay),
        };
        sweep(step, weight, grad, states);
    }

    fn rate(&mut self) -> &mut f64 {
        &mut self.lr
    }

    fn states(&self) -> RangeInclusive<usize> {
        2..=2
    }
}

#[derive(Clone, Copy)]
struct OwnUnits<T> {
    lr: T,
    rho: T,
    fresh: T,
    eps: T,
    decay: T,
}

impl<T: Math> Step<T, 3> for OwnUnits<T> {
    #[inline(always)]
    fn step(self, [w, v, u]: [T; 3], grad: T) -> [T; 3] {
        let g = decayed::<T, true>(self.decay, w, grad);
        let v = flush((self.fresh * g).mul_add(g, self.rho * v));
        let delta = (u + self.eps).sqrt() / (v + self.eps).sqrt() * g;
        let u = flush((self.fresh * delta).mul_add(delta, self.rho * u));
        [w - self.lr * delta, v, u]
    }
}

/// One step of `RMSprop`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsProp {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the means.
    pub alpha: f64,
    /// Added to the root.
    pub eps: f64,
    /// L2 penalty.
    pub weight_decay: f64,
    /// Factor of the old momentum buffer; without momentum there is none.
    pub momentum: f64,
    /// Whether the squared mean gradient is taken off the mean square.
    pub centered: bool,
}

/// `v = alpha v + (1 - alpha) g^2`; where centred, `m = alpha m + (1 - alpha) g` and `v - m^2` takes the place of
/// `v`; `d = g / (sqrt(v) + eps)`, with momentum `b = momentum b + d` takes its place; `weight -= lr d`.
/// The states are v, then m, then b, as far as there are.
impl Update for RmsProp {
    fn apply<T: Math>(&self, weight: &mut [T], grad: &[T], states: [Option<&mut [T]>; 3]) {
        let step = MeanSquare {
            lr: T::from_f64(self.lr),
            alpha: T::from_f64(self.alpha),
            fresh: T::from_f64(1.0 - self.alpha),
            eps: T::from_f64(self.eps),
            decay: T::from_f64(self.weight_decay),
            momentum: T::from_f64(self.momentum),
        };
        match (self.centered, self.momentum != 0.0) {
            (false, false) => sweep::<T, _, 2>(step, weight, grad, states),
            (false, true) => sweep(Heavy(step), weight, grad, states),
            (true, false) => sweep(Centered(step), weight, grad, states),
            (true, true) => sweep::<T, _, 4>(step, weight, grad, states),
        }
    }

    fn rate(&mut self) -> &mut f64 {
        &mut self.lr
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        Some(&mut self.momentum)
    }

    fn states(&self) -> RangeInclusive<usize> {
        let n = 1 + usize::from(self.centered) + usize::from(self.momentum != 0.0);
        n..=n
    }
}

#[derive(Clone, Copy)]
struct MeanSquare<T> {
    lr: T,
    alpha: T,
    fresh: T,
    eps: T,
    decay: T,
    momentum: T,
}

/// With momentum.
#[derive(Clone, Copy)]
struct Heavy<T>(MeanSquare<T>);

/// Centred.
#[derive(Clone, Copy)]
struct Centered<T>(MeanSquare<T>);

impl<T: Math> MeanSquare<T> {
    /// The gradient with its penalty, and the new mean square.
    #[inline(always)]
    fn square(self, w: T, v: T, grad: T) -> [T; 2] {
        let g = decayed::<T, true>(self.decay, w, grad);
        [g, flush((self.fresh * g).mul_add(g, self.alpha * v))]
    }

    /// The gradient over the root of its variance, and the new mean.
    #[inline(always)]
    fn centered(self, g: T, v: T, m: T) -> [T; 2] {
        let m = flush((g - m).mul_add(self.fresh, m));
        // Rounding can make the variance of a constant gradient negative.
        let variance = (-m).mul_add(m, v).maximum(T::ZERO);
        [g / (variance.sqrt() + self.eps), m]
    }

    #[inline(always)]
    fn pushed(self, b: T, direction: T) -> T {
        flush(self.momentum.mul_add(b, direction))
    }
}

impl<T: Math> Step<T, 2> for MeanSquare<T> {
    #[inline(always)]
    fn step(self, [w, v]: [T; 2], grad: T) -> [T; 2] {
        let [g, v] = self.square(w, v, grad);
        [w - self.lr * (g / (v.sqrt() + self.eps)), v]
    }
}

impl<T: Math> Step<T, 3> for Heavy<T> {
    #[inline(always)]
    fn step(self, [w, v, b]: [T; 3], grad: T) -> [T; 3] {
        let [g, v] = self.0.square(w, v, grad);
        let b = self.0.pushed(b, g / (v.sqrt() + self.0.eps));
        [w - self.0.lr * b, v, b]
    }
}

impl<T: Math> Step<T, 3> for Centered<T> {
    #[inline(always)]
    fn step(self, [w, v, m]: [T; 3], grad: T) -> [T; 3] {
        let [g, v] = self.0.square(w, v, grad);
        let [direction, m] = self.0.centered(g, v, m);
        [w - self.0.lr * direction, v, m]
    }
}

/// Centred, with momentum.
impl<T: Math> Step<T, 4> for MeanSquare<T> {
    #[inline(always)]
    fn step(self, [w, v, m, b]: [T; 4], grad: T) -> [T; 4] {
        let [g, v] = self.square(w, v, grad);
        let [direction, m] = self.centered(g, v, m);
        let b = self.pushed(b, direction);
        [w - self.lr * b, v, m, b]
    }
}
