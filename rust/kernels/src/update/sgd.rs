//! Stochastic gradient descent, with momentum if asked for.

use std::ops::RangeInclusive;

use super::{Step, Sweep, Update, decayed, flush};
use crate::isa::dispatch;
use crate::math::Math;

/// One step of stochastic gradient descent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f64,
    /// Factor of the old momentum buffer.
    pub momentum: f64,
    /// What the momentum buffer leaves out of the gradient.
    pub dampening: f64,
    /// L2 penalty, added to the gradient.
    pub weight_decay: f64,
    /// Whether to step along `grad + momentum * buffer` instead of the buffer.
    pub nesterov: bool,
    /// Whether this step starts the momentum buffer: it is then set to the gradient.
    pub first_step: bool,
    /// Whether the buffer is a velocity, in which each gradient keeps the rate of its own step (Sutskever and
    /// others, 2013; scikit-learn). Without dampening; it starts at 0. Weight decay then shrinks the weights.
    pub velocity: bool,
}

impl Update for Sgd {
    fn apply<T: Math>(&self, weight: &mut [T], grad: &[T], [buffer, ..]: [Option<&mut [T]>; 3]) {
        sgd(self, weight, grad, buffer);
    }

    fn advance(&mut self) {
        self.first_step = false;
    }

    fn rate(&mut self) -> &mut f64 {
        &mut self.lr
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        Some(&mut self.momentum)
    }

    fn states(&self) -> RangeInclusive<usize> {
        usize::from(self.momentum != 0.0)..=1
    }
}

/// `weight -= lr * direction`: two roundings, so that `weights += -lr * grad` written by hand gives the same bits.
/// With `velocity`: `v = momentum v - lr g`, then `weight += v` or, with `nesterov`, `weight += momentum v - lr g`,
/// after `weight -= lr weight_decay weight`.
pub fn sgd<T: Math>(h: &Sgd, weight: &mut [T], grad: &[T], momentum_buffer: Option<&mut [T]>) {
    assert_eq!(weight.len(), grad.len(), "one gradient per weight");
    let (lr, decay) = (T::from_f64(h.lr), T::from_f64(h.weight_decay));
    match momentum_buffer.filter(|_| h.momentum != 0.0) {
        Some(buffer) => {
            assert_eq!(weight.len(), buffer.len(), "one momentum per weight");
            let (momentum, fresh) = (T::from_f64(h.momentum), T::from_f64(1.0 - h.dampening));
            let (nesterov, first) = (h.nesterov, h.first_step);
            if h.velocity {
                let shrink = T::from_f64(1.0 - h.lr * h.weight_decay);
                let step = Velocity::<T> { lr, shrink, momentum, nesterov };
                dispatch(Sweep { step, arrays: [weight, buffer], grad });
            } else if h.weight_decay == 0.0 {
                let step = Momentum::<T, false> { lr, decay, momentum, fresh, nesterov, first };
                dispatch(Sweep { step, arrays: [weight, buffer], grad });
            } else {
                let step = Momentum::<T, true> { lr, decay, momentum, fresh, nesterov, first };
                dispatch(Sweep { step, arrays: [weight, buffer], grad });
            }
        }
        None if h.weight_decay == 0.0 => {
            dispatch(Sweep { step: Plain::<T, false> { lr, decay }, arrays: [weight], grad });
        }
        None => dispatch(Sweep { step: Plain::<T, true> { lr, decay }, arrays: [weight], grad }),
    }
}

#[derive(Clone, Copy)]
struct Plain<T, const DECAYS: bool> {
    lr: T,
    decay: T,
}

impl<T: Math, const DECAYS: bool> Step<T, 1> for Plain<T, DECAYS> {
    #[inline(always)]
    fn step(self, [w]: [T; 1], grad: T) -> [T; 1] {
        [w - self.lr * decayed::<T, DECAYS>(self.decay, w, grad)]
    }
}

#[derive(Clone, Copy)]
struct Momentum<T, const DECAYS: bool> {
    lr: T,
    decay: T,
    momentum: T,
    fresh: T,
    nesterov: bool,
    first: bool,
}

impl<T: Math, const DECAYS: bool> Step<T, 2> for Momentum<T, DECAYS> {
    #[inline(always)]
    fn step(self, [w, buffer]: [T; 2], grad: T) -> [T; 2] {
        let g = decayed::<T, DECAYS>(self.decay, w, grad);
        let b = if self.first { g } else { flush(self.fresh.mul_add(g, self.momentum * buffer)) };
        let direction = if self.nesterov { self.momentum.mul_add(b, g) } else { b };
        [w - self.lr * direction, b]
    }
}

#[derive(Clone, Copy)]
struct Velocity<T> {
    lr: T,
    shrink: T,
    momentum: T,
    nesterov: bool,
}

impl<T: Math> Step<T, 2> for Velocity<T> {
    #[inline(always)]
    fn step(self, [w, velocity]: [T; 2], grad: T) -> [T; 2] {
        let v = flush(self.momentum * velocity - self.lr * grad);
        let ahead = if self.nesterov { self.momentum * v - self.lr * grad } else { v };
        [w * self.shrink + ahead, v]
    }
}
