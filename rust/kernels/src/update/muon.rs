//! Muon: steps along an approximation of the orthogonal matrix nearest to the momentum.

use std::ops::RangeInclusive;

use super::{Step, Update, flush, sweep};
use crate::gemm::{MatRef, NoEpilogue, gemm};
use crate::math::Math;

/// One step of Muon for a matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// Learning rate.
    pub lr: f64,
    /// Factor of the rate in a step, which depends on the shape.
    pub ratio: f64,
    /// The shrinking of weights, times the rate.
    pub weight_decay: f64,
    /// Decay of the mean gradient.
    pub momentum: f64,
    /// Whether to mix the gradient into the mean once more.
    pub nesterov: bool,
    /// Coefficients of `a x + b x^3 + c x^5`, which each iteration applies to the singular values.
    pub coefficients: [f64; 3],
    /// The least norm by which the direction is divided.
    pub eps: f64,
    /// Iterations.
    pub ns_steps: usize,
    /// Shape of the weight.
    pub shape: [usize; 2],
}

/// `m = momentum m + (1 - momentum) g`, `d = m` or `momentum m + (1 - momentum) g` again, and with `x = d / |d|`
/// the iteration `x = a x + (b x x' + c (x x')^2) x`; then `weight -= lr weight_decay weight + lr ratio x`.
impl Update for Muon {
    fn apply<T: Math>(&self, weight: &mut [T], grad: &[T], [mean, ..]: [Option<&mut [T]>; 3]) {
        let [rows, cols] = self.shape;
        assert_eq!(weight.len(), rows * cols, "a matrix as a whole");
        let mut direction = vec![T::ZERO; grad.len()];
        let fresh = T::from_f64(1.0 - self.momentum);
        let mix = if self.nesterov { T::from_f64(self.momentum) } else { T::ONE };
        sweep(Direction { fresh, mix }, &mut direction, grad, [mean, None, None]);
        let step = self.orthogonal(&direction);
        let shrink = T::from_f64(1.0 - self.lr * self.weight_decay);
        sweep(Shrunk { shrink, lr: T::from_f64(self.lr * self.ratio) }, weight, &step, [None, None, None]);
    }

    fn is_element_wise(&self) -> bool {
        false
    }

    fn rate(&mut self) -> &mut f64 {
        &mut self.lr
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        Some(&mut self.momentum)
    }

    fn states(&self) -> RangeInclusive<usize> {
        1..=1
    }
}

impl Muon {
    /// The matrix with its singular values brought near 1, by Newton and Schulz.
    fn orthogonal<T: Math>(&self, direction: &[T]) -> Vec<T> {
        let [rows, cols] = self.shape;
        // Products of the shorter side with itself are the smaller ones.
        let (m, n, is_flipped) = if rows > cols { (cols, rows, true) } else { (rows, cols, false) };
        let norm = libm::sqrt(direction.iter().map(|d| d.to_f64() * d.to_f64()).sum());
        let scale = T::from_f64(1.0 / if norm < self.eps { self.eps } else { norm });
        let mut x: Vec<T> = flipped(direction, cols, is_flipped).map(|d| d * scale).collect();
        let [a, b, c] = self.coefficients.map(T::from_f64);
        let (mut gram, mut update, mut next) =
            (vec![T::ZERO; m * m], vec![T::ZERO; m * m], vec![T::ZERO; m * n]);
        for _ in 0..self.ns_steps {
            let whole = MatRef::rows(&x, n);
            gemm(m, m, n, whole, whole.transposed(), &mut gram, m, false, &NoEpilogue);
            let square = MatRef::rows(&gram, m);
            gemm(m, m, m, square, square, &mut update, m, false, &NoEpilogue);
            for (u, &g) in update.iter_mut().zip(&gram) {
                *u = c.mul_add(*u, b * g);
            }
            gemm(m, n, m, MatRef::rows(&update, m), whole, &mut next, n, false, &NoEpilogue);
            for (x, &y) in x.iter_mut().zip(&next) {
                *x = a.mul_add(*x, y);
            }
        }
        flipped(&x, n, is_flipped).collect()
    }
}

/// The elements of a matrix with rows of `cols`, row by row or, flipped, column by column.
fn flipped<T: Math>(matrix: &[T], cols: usize, is_flipped: bool) -> impl Iterator<Item = T> {
    let (rows, cols) = if is_flipped { (matrix.len() / cols.max(1), cols) } else { (1, matrix.len()) };
    (0..cols).flat_map(move |j| (0..rows).map(move |i| matrix[i * cols + j]))
}

/// The direction, written over what was there, and the new mean.
#[derive(Clone, Copy)]
struct Direction<T> {
    fresh: T,
    mix: T,
}

impl<T: Math> Step<T, 2> for Direction<T> {
    #[inline(always)]
    fn step(self, [_, mean]: [T; 2], grad: T) -> [T; 2] {
        let mean = flush((grad - mean).mul_add(self.fresh, mean));
        [(mean - grad).mul_add(self.mix, grad), mean]
    }
}

#[derive(Clone, Copy)]
struct Shrunk<T> {
    shrink: T,
    lr: T,
}

impl<T: Math> Step<T, 1> for Shrunk<T> {
    #[inline(always)]
    fn step(self, [w]: [T; 1], step: T) -> [T; 1] {
        [w * self.shrink - self.lr * step]
    }
}
