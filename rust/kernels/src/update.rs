//! Optimizer updates in place: PyTorch's formulas for SGD and Adam, one pass over all operands.
//! Scalars that hold for the whole step are computed in `f64` and rounded once.

use crate::isa::{Isa, Job, dispatch};
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
}

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
    /// The number of this step, from 1.
    pub step: u64,
}

/// `weight -= lr * direction`: two roundings, so that `weights += -lr * grad` written by hand gives the same bits.
pub fn sgd<T: Math>(h: &Sgd, weight: &mut [T], grad: &[T], momentum_buffer: Option<&mut [T]>) {
    assert_eq!(weight.len(), grad.len(), "one gradient per weight");
    let (lr, decay) = (T::from_f64(h.lr), T::from_f64(h.weight_decay));
    match momentum_buffer.filter(|_| h.momentum != 0.0) {
        Some(buffer) => {
            assert_eq!(weight.len(), buffer.len(), "one momentum per weight");
            let (momentum, fresh) = (T::from_f64(h.momentum), T::from_f64(1.0 - h.dampening));
            let (nesterov, first) = (h.nesterov, h.first_step);
            if h.weight_decay == 0.0 {
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

/// `m = beta1 m + (1 - beta1) g`, `v = beta2 v + (1 - beta2) g^2`,
/// `weight -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)`. With `v_max` (AMSGrad) the
/// largest `v` so far takes the place of `v`.
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
    let correction1 = 1.0 - libm::pow(h.beta1, h.step as f64);
    let correction2 = 1.0 - libm::pow(h.beta2, h.step as f64);
    macro_rules! run {
        ($decays:literal, $shrinks:literal) => {{
            let step = Moments::<T, $decays, $shrinks> {
                step_size: T::from_f64(h.lr / correction1),
                // A product in place of PyTorch's quotient: one division an element is what this waits for.
                inverse_root: T::from_f64(1.0 / libm::sqrt(correction2)),
                fresh1: T::from_f64(1.0 - h.beta1),
                beta2: T::from_f64(h.beta2),
                fresh2: T::from_f64(1.0 - h.beta2),
                eps: T::from_f64(h.eps),
                decay: T::from_f64(h.weight_decay),
                shrink: T::from_f64(1.0 - h.lr * h.weight_decay),
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

/// An update of one weight and its `N - 1` states. What costs an operation only at times is a constant parameter.
trait Step<T, const N: usize>: Copy {
    fn step(self, values: [T; N], grad: T) -> [T; N];
}

/// A [`Step`] over whole arrays.
struct Sweep<'a, T, S, const N: usize> {
    step: S,
    arrays: [&'a mut [T]; N],
    grad: &'a [T],
}

impl<T: Math, S: Step<T, N>, const N: usize> Job for Sweep<'_, T, S, N> {
    type Output = ();
    // Element by element, which LLVM puts into lanes by itself. From lane arrays it made gathers.
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Sweep { step, arrays, grad } = self;
        let arrays = arrays.map(|array| &mut array[..grad.len()]);
        for i in 0..grad.len() {
            let mut values = [T::ZERO; N];
            for k in 0..N {
                values[k] = arrays[k][i];
            }
            let values = step.step(values, grad[i]);
            for k in 0..N {
                arrays[k][i] = values[k];
            }
        }
    }
}

/// Zero in place of a subnormal. A moment whose gradients have ended decays into the subnormals, where
/// operations cost over a hundred cycles on many CPUs: Adam took 780 to 900 us a step for 100,000 such
/// parameters, and takes 70 to 200 with this. A step that small changes no weight.
#[inline(always)]
fn flush<T: Math>(moment: T) -> T {
    if moment.abs() < T::MIN_POSITIVE { T::ZERO } else { moment }
}

/// The gradient, with the L2 penalty's where there is one.
#[inline(always)]
fn decayed<T: Math, const DECAYS: bool>(decay: T, weight: T, grad: T) -> T {
    if DECAYS { weight.mul_add(decay, grad) } else { grad }
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

/// `SHRINKS`: decoupled weight decay.
#[derive(Clone, Copy)]
struct Moments<T, const DECAYS: bool, const SHRINKS: bool> {
    step_size: T,
    inverse_root: T,
    fresh1: T,
    beta2: T,
    fresh2: T,
    eps: T,
    decay: T,
    shrink: T,
}

impl<T: Math, const DECAYS: bool, const SHRINKS: bool> Moments<T, DECAYS, SHRINKS> {
    /// The shrunk weight and the new moments.
    #[inline(always)]
    fn moments(self, w: T, m: T, v: T, grad: T) -> [T; 3] {
        let w = if SHRINKS { w * self.shrink } else { w };
        let g = decayed::<T, DECAYS>(self.decay, w, grad);
        let m = flush((g - m).mul_add(self.fresh1, m));
        let v = flush((self.fresh2 * g).mul_add(g, self.beta2 * v));
        [w, m, v]
    }

    #[inline(always)]
    fn moved(self, w: T, m: T, scale: T) -> T {
        w - self.step_size * m / scale.sqrt().mul_add(self.inverse_root, self.eps)
    }
}

impl<T: Math, const DECAYS: bool, const SHRINKS: bool> Step<T, 3> for Moments<T, DECAYS, SHRINKS> {
    #[inline(always)]
    fn step(self, [w, m, v]: [T; 3], grad: T) -> [T; 3] {
        let [w, m, v] = self.moments(w, m, v, grad);
        [self.moved(w, m, v), m, v]
    }
}

/// AMSGrad.
impl<T: Math, const DECAYS: bool, const SHRINKS: bool> Step<T, 4> for Moments<T, DECAYS, SHRINKS> {
    #[inline(always)]
    fn step(self, [w, m, v, v_max]: [T; 4], grad: T) -> [T; 4] {
        let [w, m, v] = self.moments(w, m, v, grad);
        let v_max = v_max.maximum(v);
        [self.moved(w, m, v_max), m, v, v_max]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa;

    const PLAIN: Sgd =
        Sgd { lr: 0.1, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false, first_step: false };

    fn wave(n: usize, phase: f64) -> Vec<f32> {
        (0..n).map(|i| ((i as f64 + phase) * 0.37).sin() as f32).collect()
    }

    #[test]
    fn plain_sgd_is_the_lectures_listing_to_the_bit() {
        let (mut weight, grad) = (wave(37, 0.0), wave(37, 0.5));
        let want: Vec<f32> = weight.iter().zip(&grad).map(|(w, g)| w + -0.1f32 * g).collect();
        sgd(&PLAIN, &mut weight, &grad, None);
        assert_eq!(weight, want);
    }

    #[test]
    fn momentum_follows_pytorch() {
        let h = Sgd { momentum: 0.9, dampening: 0.5, weight_decay: 0.01, ..PLAIN };
        let (mut weight, mut buffer) = ([1.0f64], [f64::NAN]);
        sgd(&Sgd { first_step: true, ..h }, &mut weight, &[0.5], Some(&mut buffer));
        // g = 0.5 + 0.01, the buffer starts as g whatever it held.
        assert!((buffer[0] - 0.51).abs() < 1e-15 && (weight[0] - (1.0 - 0.051)).abs() < 1e-15);
        sgd(&h, &mut weight, &[0.5], Some(&mut buffer));
        let g = 0.5 + 0.01 * 0.949;
        let b = 0.9 * 0.51 + 0.5 * g;
        assert!((buffer[0] - b).abs() < 1e-15 && (weight[0] - (0.949 - 0.1 * b)).abs() < 1e-15);
        let mut nesterov = [0.949];
        let mut buffer = [0.51];
        sgd(&Sgd { nesterov: true, ..h }, &mut nesterov, &[0.5], Some(&mut buffer));
        assert!((nesterov[0] - (0.949 - 0.1 * (g + 0.9 * b))).abs() < 1e-15);
    }

    const ADAM: Adam =
        Adam { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0, decoupled: false, step: 1 };

    #[test]
    fn first_adam_step_has_the_length_of_the_learning_rate() {
        let (mut w, mut m, mut v) = ([1.0f64, 1.0], [0.0; 2], [0.0; 2]);
        adam(&ADAM, &mut w, &[3.0, -0.02], &mut m, &mut v, None);
        assert!((w[0] - 0.9).abs() < 1e-7 && (w[1] - 1.1).abs() < 1e-7, "{w:?}");
        assert!((m[0] - 0.3).abs() < 1e-15 && (v[0] - 0.09).abs() < 1e-15);
    }

    #[test]
    fn moments_end_at_zero_and_not_among_the_subnormals() {
        let (mut w, mut m, mut v) = ([1.0f32; 3], [1e-38; 3], [1e-38; 3]);
        let mut buffer = [1e-38f32; 3];
        let heavy = Sgd {
            lr: 0.1,
            momentum: 0.5,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
            first_step: false,
        };
        adam(&Adam { beta1: 0.5, beta2: 0.5, ..ADAM }, &mut w, &[0.0, 0.0, f32::NAN], &mut m, &mut v, None);
        sgd(&heavy, &mut w, &[0.0, 0.0, f32::NAN], Some(&mut buffer));
        for moment in [m, v, buffer] {
            assert!(moment[..2] == [0.0, 0.0] && moment[2].is_nan(), "{moment:?}");
        }
    }

    #[test]
    fn adam_follows_its_formula_with_decay_and_amsgrad() {
        for decoupled in [false, true] {
            let h = Adam { weight_decay: 0.1, decoupled, step: 3, ..ADAM };
            let (mut w, mut m, mut v, mut largest) = ([0.5f64], [0.2], [0.3], [0.7]);
            adam(&h, &mut w, &[1.5], &mut m, &mut v, Some(&mut largest));
            let (g, shrunk) = if decoupled { (1.5, 0.5 * (1.0 - 0.01)) } else { (1.5 + 0.05, 0.5) };
            let (m1, v1) = (0.9 * 0.2 + 0.1 * g, 0.99 * 0.3 + 0.01 * g * g);
            assert!((m[0] - m1).abs() < 1e-15 && (v[0] - v1).abs() < 1e-15 && largest[0] == 0.7);
            let root = (1.0 - 0.99f64.powi(3)).sqrt();
            let want = shrunk - 0.1 / (1.0 - 0.9f64.powi(3)) * m1 / (0.7f64.sqrt() / root + 1e-8);
            assert!((w[0] - want).abs() < 1e-14, "{} {want}", w[0]);
        }
    }

    #[test]
    fn bits_depend_on_neither_level_nor_length() {
        let n = 45;
        let mut want = None;
        let momentum = Sgd { momentum: 0.9, weight_decay: 0.01, nesterov: true, ..PLAIN };
        isa::on_every_level(|level| {
            let (grad, mut w, mut b) = (wave(n, 0.1), wave(n, 0.2), wave(n, 0.3));
            sgd(&momentum, &mut w, &grad, Some(&mut b));
            let (mut m, mut v, mut largest) = (wave(n, 0.4), vec![0.25; n], vec![0.2; n]);
            adam(&Adam { weight_decay: 0.1, ..ADAM }, &mut w, &grad, &mut m, &mut v, Some(&mut largest));
            let got = (w, b, m, v, largest);
            assert_eq!(*want.get_or_insert(got.clone()), got, "{level}");

            let (mut w, mut b) = (wave(n, 0.2), wave(n, 0.3));
            for i in 0..n {
                sgd(&momentum, &mut w[i..=i], &grad[i..=i], Some(&mut b[i..=i]));
            }
            assert_eq!(b, got.1, "{level}");
        });
    }
}
