//! Gradient descent whose weights are averaged over the steps.

use std::ops::RangeInclusive;

use super::{Step, Update, decayed, sweep};
use crate::math::Math;

/// One step of averaged gradient descent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asgd {
    /// Learning rate at the start.
    pub lr: f64,
    /// The shrinking of weights, times the rate; also how fast the rate falls.
    pub lambd: f64,
    /// Power with which the rate falls.
    pub alpha: f64,
    /// The step after which weights are averaged.
    pub t0: f64,
    /// L2 penalty.
    pub weight_decay: f64,
    /// The number of this step, from 1.
    pub step: u64,
    /// The rate of this step and the share of its weights in the average, both from the step before.
    pub eta_and_mu: [f64; 2],
}

/// `weight = (1 - lambd eta) weight - eta g`, `average += mu (weight - average)`; then
/// `eta = lr / (1 + lambd lr t)^alpha` and `mu = 1 / max(1, t - t0)`.
impl Update for Asgd {
    fn apply<T: Math>(&self, weight: &mut [T], grad: &[T], states: [Option<&mut [T]>; 3]) {
        let [eta, mu] = self.eta_and_mu;
        let step = Averaged {
            eta: T::from_f64(eta),
            mu: T::from_f64(mu),
            // A share of 1 would not give the weight to the bit.
            replaces: mu == 1.0,
            shrink: T::from_f64(1.0 - self.lambd * eta),
            decay: T::from_f64(self.weight_decay),
        };
        sweep(step, weight, grad, states);
    }

    fn advance(&mut self) {
        let t = self.step as f64;
        let eta = self.lr / libm::pow(1.0 + self.lambd * self.lr * t, self.alpha);
        let after = t - self.t0;
        self.eta_and_mu = [eta, 1.0 / if after > 1.0 { after } else { 1.0 }];
        self.step += 1;
    }

    fn rate(&mut self) -> &mut f64 {
        &mut self.lr
    }

    fn states(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn carried(&self) -> &[f64] {
        &self.eta_and_mu
    }
}

#[derive(Clone, Copy)]
struct Averaged<T> {
    eta: T,
    mu: T,
    replaces: bool,
    shrink: T,
    decay: T,
}

impl<T: Math> Step<T, 2> for Averaged<T> {
    #[inline(always)]
    fn step(self, [w, average]: [T; 2], grad: T) -> [T; 2] {
        let g = decayed::<T, true>(self.decay, w, grad);
        let w = w * self.shrink - self.eta * g;
        [w, if self.replaces { w } else { (w - average).mul_add(self.mu, average) }]
    }
}
