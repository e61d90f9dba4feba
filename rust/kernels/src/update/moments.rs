//! Other uses of Adam's means: Nesterov's momentum, a rectified rate, the largest gradient.

use std::ops::RangeInclusive;

use super::adam::Means;
use super::{Step, Update, decayed, flush, power, sweep};
use crate::math::Math;

/// One step of `NAdam`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NAdam {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// L2 penalty, or the shrinking of weights where decoupled.
    pub weight_decay: f64,
    /// How fast the momentum grows towards `beta1`.
    pub momentum_decay: f64,
    /// Whether weight decay shrinks the weights instead of adding to the gradient.
    pub decoupled: bool,
    /// The number of this step, from 1.
    pub step: u64,
    /// The product of the momenta of all steps before.
    pub mu_product: f64,
}

impl NAdam {
    /// The momentum of a step: `beta1 (1 - 0.96^(step momentum_decay) / 2)`.
    fn mu(&self, step: u64) -> f64 {
        self.beta1 * (1.0 - 0.5 * libm::pow(0.96, step as f64 * self.momentum_decay))
    }
}

/// `mu` is the momentum of this step, `nu` of the next, `p` the product of all up to this step:
/// `weight -= lr ((1 - mu) / (1 - p) g + nu / (1 - p nu) m) / (sqrt(v / (1 - beta2^t)) + eps)`.
impl Update for NAdam {
    fn apply<T: Math>(&self, weight: &mut [T], grad: &[T], states: [Option<&mut [T]>; 3]) {
        let (mu, next) = (self.mu(self.step), self.mu(self.step + 1));
        let product = self.mu_product * mu;
        let correction2 = 1.0 - power(self.beta2, self.step);
        let step = Nesterov {
            means: means(self.beta1, self.beta2, self.lr, self.weight_decay, self.decoupled),
            of_gradient: T::from_f64(self.lr * (1.0 - mu) / (1.0 - product)),
            of_mean: T::from_f64(self.lr * next / (1.0 - product * next)),
            inverse_root: T::from_f64(1.0 / libm::sqrt(correction2)),
            eps: T::from_f64(self.eps),
        };
        sweep(step, weight, grad, states);
    }

    fn advance(&mut self) {
        self.mu_product *= self.mu(self.step);
        self.step += 1;
    }

    fn rate(&mut self) -> &mut f64 {
        &mut self.lr
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        Some(&mut self.beta1)
    }

    fn states(&self) -> RangeInclusive<usize> {
        2..=2
    }

    fn carried(&self) -> &[f64] {
        std::slice::from_ref(&self.mu_product)
    }
}

/// The means, with a decay of 0 or a factor of 1 where there is none: neither changes a bit.
fn means<T: Math>(
    beta1: f64,
    beta2: f64,
    lr: f64,
    weight_decay: f64,
    decoupled: bool,
) -> Means<T, true, true> {
    Means {
        fresh1: T::from_f64(1.0 - beta1),
        beta2: T::from_f64(beta2),
        fresh2: T::from_f64(1.0 - beta2),
        decay: T::from_f64(if decoupled { 0.0 } else { weight_decay }),
        shrink: T::from_f64(if decoupled { 1.0 - lr * weight_decay } else { 1.0 }),
    }
}

#[derive(Clone, Copy)]
struct Nesterov<T> {
    means: Means<T, true, true>,
    of_gradient: T,
    of_mean: T,
    inverse_root: T,
    eps: T,
}

impl<T: Math> Step<T, 3> for Nesterov<T> {
    #[inline(always)]
    fn step(self, [w, m, v]: [T; 3], grad: T) -> [T; 3] {
        let [w, g, m, v] = self.means.after(w, m, v, grad);
        let root = v.sqrt().mul_add(self.inverse_root, self.eps);
        [w - self.of_mean.mul_add(m, self.of_gradient * g) / root, m, v]
    }
}

/// One step of `RAdam`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RAdam {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// L2 penalty, or the shrinking of weights where decoupled.
    pub weight_decay: f64,
    /// Whether weight decay shrinks the weights instead of adding to the gradient.
    pub decoupled: bool,
    /// The number of this step, from 1.
    pub step: u64,
}

/// `weight -= lr m / (1 - beta1^t) r sqrt(1 - beta2^t) / (sqrt(v) + eps)`, where r rectifies the variance of the
/// rate; while it has none, the step goes along the mean alone.
impl Update for RAdam {
    fn apply<T: Math>(&self, weight: &mut [T], grad: &[T], states: [Option<&mut [T]>; 3]) {
        let t = self.step as f64;
        let (power, step_size) =
            (power(self.beta2, self.step), self.lr / (1.0 - power(self.beta1, self.step)));
        let longest = 2.0 / (1.0 - self.beta2) - 1.0;
        let length = longest - 2.0 * t * power / (1.0 - power);
        let means = means(self.beta1, self.beta2, self.lr, self.weight_decay, self.decoupled);
        let eps = T::from_f64(self.eps);
        // Shorter than this, the variance of the rate does not exist.
        if length > 5.0 {
            let of_length = |rho: f64| (rho - 4.0) * (rho - 2.0) / rho;
            let rectified = libm::sqrt(of_length(length) / of_length(longest) * (1.0 - power));
            let step_size = T::from_f64(step_size * rectified);
            sweep(Rectified::<T, true> { means, step_size, eps }, weight, grad, states);
        } else {
            let step_size = T::from_f64(step_size);
            sweep(Rectified::<T, false> { means, step_size, eps }, weight, grad, states);
        }
    }

    fn advance(&mut self) {
        self.step += 1;
    }

    fn rate(&mut self) -> &mut f64 {
        &mut self.lr
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        Some(&mut self.beta1)
    }

    fn states(&self) -> RangeInclusive<usize> {
        2..=2
    }
}

#[derive(Clone, Copy)]
struct Rectified<T, const DIVIDES: bool> {
    means: Means<T, true, true>,
    step_size: T,
    eps: T,
}

impl<T: Math, const DIVIDES: bool> Step<T, 3> for Rectified<T, DIVIDES> {
    #[inline(always)]
    fn step(self, [w, m, v]: [T; 3], grad: T) -> [T; 3] {
        let [w, _, m, v] = self.means.after(w, m, v, grad);
        let step = self.step_size * m;
        [w - if DIVIDES { step / (v.sqrt() + self.eps) } else { step }, m, v]
    }
}

/// One step of Adamax.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adamax {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the mean gradient.
    pub beta1: f64,
    /// Decay of the largest gradient.
    pub beta2: f64,
    /// Added to the absolute gradient.
    pub eps: f64,
    /// L2 penalty.
    pub weight_decay: f64,
    /// The number of this step, from 1.
    pub step: u64,
}

/// `m = beta1 m + (1 - beta1) g`, `u = max(beta2 u, |g| + eps)`, `weight -= lr / (1 - beta1^t) m / u`.
impl Update for Adamax {
    fn apply<T: Math>(&self, weight: &mut [T], grad: &[T], states: [Option<&mut [T]>; 3]) {
        let step = Largest {
            step_size: T::from_f64(self.lr / (1.0 - power(self.beta1, self.step))),
            fresh: T::from_f64(1.0 - self.beta1),
            beta2: T::from_f64(self.beta2),
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

    fn momentum(&mut self) -> Option<&mut f64> {
        Some(&mut self.beta1)
    }

    fn states(&self) -> RangeInclusive<usize> {
        2..=2
    }
}

#[derive(Clone, Copy)]
struct Largest<T> {
    step_size: T,
    fresh: T,
    beta2: T,
    eps: T,
    decay: T,
}

impl<T: Math> Step<T, 3> for Largest<T> {
    #[inline(always)]
    fn step(self, [w, m, u]: [T; 3], grad: T) -> [T; 3] {
        let g = decayed::<T, true>(self.decay, w, grad);
        let m = flush((g - m).mul_add(self.fresh, m));
        let u = (self.beta2 * u).maximum(g.abs() + self.eps);
        [w - self.step_size * m / u, m, u]
    }
}
