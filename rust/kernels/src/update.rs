//! Optimizer updates in place: PyTorch's formulas for SGD and Adam, one pass over all operands.
//! Scalars that hold for the whole step are computed in `f64` and rounded once.

use crate::isa::{Isa, Job, dispatch};
use crate::lanes::Lanes;
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
    match momentum_buffer.filter(|_| h.momentum != 0.0) {
        Some(buffer) => {
            assert_eq!(weight.len(), buffer.len(), "one momentum per weight");
            dispatch(MomentumJob { h, weight, grad, buffer });
        }
        None => dispatch(SgdJob { h, weight, grad }),
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
    dispatch(AdamJob { h, weight, grad, m, v, v_max });
}

/// Up to a lane array; missing elements are 0.
#[inline(always)]
fn load<T: Math>(source: &[T]) -> T::Lanes {
    if source.len() >= T::LANES {
        return T::Lanes::load(source);
    }
    // 16 elements are at least a lane array of either type.
    let mut padded = [T::ZERO; 16];
    padded[..source.len()].copy_from_slice(source);
    T::Lanes::load(&padded)
}

/// Up to a lane array.
#[inline(always)]
fn store<T: Math>(lanes: T::Lanes, target: &mut [T]) {
    if target.len() >= T::LANES {
        return lanes.store(target);
    }
    let mut padded = [T::ZERO; 16];
    lanes.store(&mut padded);
    let count = target.len();
    target.copy_from_slice(&padded[..count]);
}

#[inline(always)]
fn decayed<T: Math>(decay: Option<T>, weight: T::Lanes, grad: T::Lanes) -> T::Lanes {
    match decay {
        Some(decay) => weight.mul_add(T::Lanes::splat(decay), grad),
        None => grad,
    }
}

fn decay<T: Math>(weight_decay: f64) -> Option<T> {
    (weight_decay != 0.0).then(|| T::from_f64(weight_decay))
}

/// Zero in place of a subnormal. A moment whose gradients have ended decays into the subnormals, where
/// operations cost over a hundred cycles on many CPUs: Adam took 780 to 900 us a step for 100,000 such
/// parameters, and takes 70 to 200 with this. A step that small changes no weight.
#[inline(always)]
fn flush<T: Math>(moment: T) -> T {
    if moment.abs() < T::MIN_POSITIVE { T::ZERO } else { moment }
}

struct SgdJob<'a, T> {
    h: &'a Sgd,
    weight: &'a mut [T],
    grad: &'a [T],
}

impl<T: Math> Job for SgdJob<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let (lr, decay) = (T::from_f64(self.h.lr), decay::<T>(self.h.weight_decay));
        for (weight, grad) in self.weight.chunks_mut(T::LANES).zip(self.grad.chunks(T::LANES)) {
            let w = load(weight);
            let g = decayed(decay, w, load(grad));
            store(w.zip(g, |w, g| w - lr * g), weight);
        }
    }
}

struct MomentumJob<'a, T> {
    h: &'a Sgd,
    weight: &'a mut [T],
    grad: &'a [T],
    buffer: &'a mut [T],
}

impl<T: Math> Job for MomentumJob<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let h = self.h;
        let (lr, decay, momentum) = (T::from_f64(h.lr), decay::<T>(h.weight_decay), T::from_f64(h.momentum));
        let (fresh, nesterov, first) = (T::from_f64(1.0 - h.dampening), h.nesterov, h.first_step);
        let state = self.weight.chunks_mut(T::LANES).zip(self.buffer.chunks_mut(T::LANES));
        for ((weight, buffer), grad) in state.zip(self.grad.chunks(T::LANES)) {
            let w = load(weight);
            let g = decayed(decay, w, load(grad));
            let b = if first { g } else { load(buffer).zip(g, |b, g| flush(fresh.mul_add(g, momentum * b))) };
            store(b, buffer);
            let direction = if nesterov { b.zip(g, |b, g| momentum.mul_add(b, g)) } else { b };
            store(w.zip(direction, |w, d| w - lr * d), weight);
        }
    }
}

struct AdamJob<'a, T> {
    h: &'a Adam,
    weight: &'a mut [T],
    grad: &'a [T],
    m: &'a mut [T],
    v: &'a mut [T],
    v_max: Option<&'a mut [T]>,
}

impl<T: Math> Job for AdamJob<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let h = self.h;
        let correction1 = 1.0 - libm::pow(h.beta1, h.step as f64);
        let correction2 = 1.0 - libm::pow(h.beta2, h.step as f64);
        let step_size = T::from_f64(h.lr / correction1);
        // A product in place of PyTorch's quotient: one division an element is what this kernel waits for.
        let inverse_root = T::from_f64(1.0 / libm::sqrt(correction2));
        let (fresh1, beta2) = (T::from_f64(1.0 - h.beta1), T::from_f64(h.beta2));
        let (fresh2, eps) = (T::from_f64(1.0 - h.beta2), T::from_f64(h.eps));
        let decay = decay::<T>(h.weight_decay).filter(|_| !h.decoupled);
        let shrink = (h.decoupled && h.weight_decay != 0.0).then(|| T::from_f64(1.0 - h.lr * h.weight_decay));
        let mut v_max = self.v_max.map(|v_max| v_max.chunks_mut(T::LANES));
        let state = self.m.chunks_mut(T::LANES).zip(self.v.chunks_mut(T::LANES));
        let pairs = self.weight.chunks_mut(T::LANES).zip(self.grad.chunks(T::LANES));
        for ((weight, grad), (m_chunk, v_chunk)) in pairs.zip(state) {
            let w = load(weight);
            let w = match shrink {
                Some(shrink) => w.map(|w| w * shrink),
                None => w,
            };
            let g = decayed(decay, w, load(grad));
            let m = load(m_chunk);
            let m = m.zip(g, |m, g| flush((g - m).mul_add(fresh1, m)));
            let v = load(v_chunk).zip(g, |v, g| flush((fresh2 * g).mul_add(g, beta2 * v)));
            store(m, m_chunk);
            store(v, v_chunk);
            let scale = match v_max.as_mut().and_then(Iterator::next) {
                Some(chunk) => {
                    let largest = load(chunk).zip(v, T::maximum);
                    store(largest, chunk);
                    largest
                }
                None => v,
            };
            let step = m.zip(scale, |m, v| step_size * m / v.sqrt().mul_add(inverse_root, eps));
            store(w.zip(step, |w, s| w - s), weight);
        }
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
