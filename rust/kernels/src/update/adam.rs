//! Adam, `AdamW` and AMSGrad.

use std::ops::RangeInclusive;

use super::{Step, Sweep, Update, decayed, flush, power};
use crate::isa::dispatch;
use crate::math::Math;

/// One step of Adam or, decoupled, of `AdamW`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
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
    /// Whether `eps` is added before the second moment is corrected, as in the last lines of section 2 of Kingma
    /// and Ba (2015) and in scikit-learn.
    pub eps_hat: bool,
    /// The number of this step, from 1.
    pub step: u64,
}

impl Update for Adam {
    fn apply<T: Math>(&self, weight: &mut [T], grad: &[T], [m, v, v_max]: [Option<&mut [T]>; 3]) {
        adam(self, weight, grad, m.unwrap_or_default(), v.unwrap_or_default(), v_max);
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
        2..=3
    }
}

/// `m = beta1 m + (1 - beta1) g`, `v = beta2 v + (1 - beta2) g^2`,
/// `weight -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)`. With `v_max` (AMSGrad) the
/// largest `v` so far takes the place of `v`. With `eps_hat` the step is
/// `weight -= lr sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps)`.
pub fn adam<T: Math>(
    h: &Adam,
    weight: &mut [T],
    grad: &[T],
    m: &mut [T],
    v: &mut [T],
    v_max: Option<&mut [T]>,
) {
    let n = weight.len();
    assert!(grad.len() == n && m.len() == n && v.len() == n, "one gradient and two moments per weight");
    assert!(v_max.as_ref().is_none_or(|v_max| v_max.len() == n), "one maximum per weight");
    let correction1 = 1.0 - power(h.beta1, h.step);
    let root2 = libm::sqrt(1.0 - power(h.beta2, h.step));
    let (lr, root2) = if h.eps_hat { (h.lr * root2, 1.0) } else { (h.lr, root2) };
    macro_rules! run {
        ($decays:literal, $shrinks:literal) => {{
            let means = Means::<T, $decays, $shrinks> {
                fresh1: T::from_f64(1.0 - h.beta1),
                beta2: T::from_f64(h.beta2),
                fresh2: T::from_f64(1.0 - h.beta2),
                decay: T::from_f64(h.weight_decay),
                shrink: T::from_f64(1.0 - h.lr * h.weight_decay),
            };
            let step = Moments {
                means,
                step_size: T::from_f64(lr / correction1),
                // A product in place of PyTorch's quotient: one division an element is what this waits for.
                inverse_root: T::from_f64(1.0 / root2),
                eps: T::from_f64(h.eps),
            };
            match v_max {
                Some(v_max) => dispatch(Sweep { step, arrays: [weight, m, v, v_max], grad }),
                None => dispatch(Sweep { step, arrays: [weight, m, v], grad }),
            }
        }};
    }
    match (h.weight_decay != 0.0, h.decoupled) {
        (false, _) => run!(false, false),
        (true, false) => run!(true, false),
        (true, true) => run!(false, true),
    }
}

/// What Adam's means take. `SHRINKS`: decoupled weight decay.
#[derive(Clone, Copy)]
pub(super) struct Means<T, const DECAYS: bool, const SHRINKS: bool> {
    pub(super) fresh1: T,
    pub(super) beta2: T,
    pub(super) fresh2: T,
    pub(super) decay: T,
    pub(super) shrink: T,
}

impl<T: Math, const DECAYS: bool, const SHRINKS: bool> Means<T, DECAYS, SHRINKS> {
    /// The shrunk weight, the decayed gradient and the new moments.
    #[inline(always)]
    pub(super) fn after(self, w: T, m: T, v: T, grad: T) -> [T; 4] {
        let w = if SHRINKS { w * self.shrink } else { w };
        let g = decayed::<T, DECAYS>(self.decay, w, grad);
        let m = flush((g - m).mul_add(self.fresh1, m));
        let v = flush((self.fresh2 * g).mul_add(g, self.beta2 * v));
        [w, g, m, v]
    }
}

#[derive(Clone, Copy)]
struct Moments<T, const DECAYS: bool, const SHRINKS: bool> {
    means: Means<T, DECAYS, SHRINKS>,
    step_size: T,
    inverse_root: T,
    eps: T,
}

impl<T: Math, const DECAYS: bool, const SHRINKS: bool> Moments<T, DECAYS, SHRINKS> {
    #[inline(always)]
    fn moved(self, w: T, m: T, scale: T) -> T {
        w - self.step_size * m / scale.sqrt().mul_add(self.inverse_root, self.eps)
    }
}

impl<T: Math, const DECAYS: bool, const SHRINKS: bool> Step<T, 3> for Moments<T, DECAYS, SHRINKS> {
    #[inline(always)]
    fn step(self, [w, m, v]: [T; 3], grad: T) -> [T; 3] {
        let [w, _, m, v] = self.means.after(w, m, v, grad);
        [self.moved(w, m, v), m, v]
    }
}

/// AMSGrad.
impl<T: Math, const DECAYS: bool, const SHRINKS: bool> Step<T, 4> for Moments<T, DECAYS, SHRINKS> {
    #[inline(always)]
    fn step(self, [w, m, v, v_max]: [T; 4], grad: T) -> [T; 4] {
        let [w, _, m, v] = self.means.after(w, m, v, grad);
        let v_max = v_max.maximum(v);
        [self.moved(w, m, v_max), m, v, v_max]
    }
}
