//! Steps along the sign of a gradient or of its mean.

use std::ops::RangeInclusive;

use super::{Step, Update, flush, sweep};
use crate::math::Math;

/// -1, 0 or 1; NaN for NaN.
#[inline(always)]
fn sign<T: Math>(value: T) -> T {
    let upper = if value > T::ZERO { T::ONE } else { value };
    if value < T::ZERO { -T::ONE } else { upper }
}

/// One step of Rprop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rprop {
    /// Learning rate: what every step size starts with, and of no effect later.
    pub lr: f64,
    /// Factor of a step size whose gradient changed its sign.
    pub eta_minus: f64,
    /// Factor of a step size whose gradient kept its sign.
    pub eta_plus: f64,
    /// Smallest step size.
    pub smallest: f64,
    /// Largest step size.
    pub largest: f64,
}

/// `s = clamp(s eta, smallest, largest)`, `weight -= s sign(g)`, with `g = 0` where its sign has changed.
/// The states are the last gradient and the step sizes.
impl Update for Rprop {
    fn apply<T: Math>(&self, weight: &mut [T], grad: &[T], states: [Option<&mut [T]>; 3]) {
        let step = Resilient {
            eta_minus: T::from_f64(self.eta_minus),
            eta_plus: T::from_f64(self.eta_plus),
            smallest: T::from_f64(self.smallest),
            largest: T::from_f64(self.largest),
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
struct Resilient<T> {
    eta_minus: T,
    eta_plus: T,
    smallest: T,
    largest: T,
}

impl<T: Math> Step<T, 3> for Resilient<T> {
    #[inline(always)]
    fn step(self, [w, before, size]: [T; 3], grad: T) -> [T; 3] {
        let agreement = sign(grad) * sign(before);
        let has_turned = agreement < T::ZERO;
        let grows = if agreement > T::ZERO { self.eta_plus } else { T::ONE };
        let factor = if has_turned { self.eta_minus } else { grows };
        let size = (size * factor).maximum(self.smallest).minimum(self.largest);
        let g = if has_turned { T::ZERO } else { grad };
        [w - sign(g) * size, g, size]
    }
}

/// One step of Lion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lion {
    /// Learning rate: the length of every step.
    pub lr: f64,
    /// Share of the mean in the direction.
    pub beta1: f64,
    /// Decay of the mean.
    pub beta2: f64,
    /// The shrinking of weights, times the rate.
    pub weight_decay: f64,
}

/// `weight -= lr weight_decay weight`, `weight -= lr sign(beta1 m + (1 - beta1) g)`, `m = beta2 m + (1 - beta2) g`.
impl Update for Lion {
    fn apply<T: Math>(&self, weight: &mut [T], grad: &[T], states: [Option<&mut [T]>; 3]) {
        let step = SignOfMean {
            lr: T::from_f64(self.lr),
            fresh1: T::from_f64(1.0 - self.beta1),
            fresh2: T::from_f64(1.0 - self.beta2),
            shrink: T::from_f64(1.0 - self.lr * self.weight_decay),
        };
        sweep(step, weight, grad, states);
    }

    fn rate(&mut self) -> &mut f64 {
        &mut self.lr
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        Some(&mut self.beta1)
    }

    fn states(&self) -> RangeInclusive<usize> {
        1..=1
    }
}

#[derive(Clone, Copy)]
struct SignOfMean<T> {
    lr: T,
    fresh1: T,
    fresh2: T,
    shrink: T,
}

impl<T: Math> Step<T, 2> for SignOfMean<T> {
    #[inline(always)]
    fn step(self, [w, m]: [T; 2], grad: T) -> [T; 2] {
        let direction = (grad - m).mul_add(self.fresh1, m);
        let m = flush((grad - m).mul_add(self.fresh2, m));
        [w * self.shrink - self.lr * sign(direction), m]
    }
}
