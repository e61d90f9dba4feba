//! The end of a dense layer: bias and activation on a finished tile of the matrix product.

use crate::elementwise::function as f;
use crate::elementwise::walk::{Map, Zip};
use crate::elementwise::{Binary, Unary, activate_inline};
use crate::gemm::Epilogue;
use crate::gemm::panels::{Finish, InRegisters, Tile, TileMap};
use crate::lanes::Lanes;
use crate::math::Math;
use crate::reduce::load_padded;

/// `c = activation(c + bias[column])`: the operations, and so the bits, of the separate passes.
#[derive(Clone, Copy, Debug)]
pub struct Dense<'a, T> {
    /// A value for each column of C.
    pub bias: Option<&'a [T]>,
    /// Applied last.
    pub activation: Option<Unary>,
    /// Applied instead.
    pub derivative: Option<Derivative<'a, T>>,
}

/// The gradient of an activation by its result y, a strided matrix of C's shape; one from
/// [`Binary::ReluGrad`] to [`Binary::TanhGrad`].
#[derive(Clone, Copy, Debug)]
pub struct Derivative<'a, T> {
    /// Takes an element of C and of y.
    pub op: Binary,
    /// The result of the activation.
    pub y: &'a [T],
    /// Elements from a row of y to the next.
    pub row: usize,
    /// Elements from a column of y to the next.
    pub column: usize,
}

/// Evaluates `$call` with `$f` bound to the function of a derivative of an activation.
macro_rules! with_derivative {
    ($op:expr, $T:ident, $f:ident => $call:expr) => {{
        macro_rules! call {
            ($function:expr) => {{
                let $f = $function;
                $call
            }};
        }
        match $op {
            Binary::ReluGrad => call!(f::ReluGrad {}),
            Binary::LeakyReluGrad(slope) => call!(f::LeakyReluGrad { slope: $T::from_f64(slope) }),
            Binary::EluGrad(alpha) => call!(f::EluGrad { alpha: $T::from_f64(alpha) }),
            Binary::SigmoidGrad => call!(f::SigmoidGrad {}),
            Binary::TanhGrad => call!(f::TanhGrad {}),
            other => unreachable!("{other:?} is no derivative of an activation by its result"),
        }
    }};
}

impl<T: Math> Epilogue<T> for Dense<'_, T> {
    #[inline(always)]
    fn finish(&self, row: usize, column: usize, values: &mut [T]) {
        if let Some(Derivative { op, y, row: stride, column: step }) = self.derivative {
            let y = &y[row * stride + column * step..];
            with_derivative!(op, T, f => {
                for (j, value) in values.iter_mut().enumerate() {
                    *value = f.apply(*value, y[j * step]);
                }
            });
        }
        if let Some(bias) = self.bias {
            let bias = &bias[column..column + values.len()];
            for j in 0..values.len() {
                values[j] += bias[j];
            }
        }
        if let Some(activation) = self.activation {
            activate_inline(activation, values);
        }
    }
}

/// What follows the bias in a [`Layer`].
#[derive(Clone, Copy, Debug)]
pub enum Then<'a, T> {
    /// Nothing.
    Nothing,
    /// `c = activation(c)`; an activation proper, from [`Unary::Relu`] to [`Unary::Softplus`].
    Activate(Unary),
    /// `c = derivative(c, y)`: the gradient of an activation with result y, whose rows begin every
    /// `stride` elements; one from [`Binary::ReluGrad`] to [`Binary::TanhGrad`].
    Derivative(Binary, &'a [T], usize),
}

/// The end of a layer on the tiles of a packed product: the operations, and so the bits, of separate passes.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a, T> {
    /// A value for each column of C.
    pub bias: Option<&'a [T]>,
    /// What comes next.
    pub then: Then<'a, T>,
}

/// `f(x + bias)`
#[derive(Clone, Copy)]
struct AddThen<'a, T, F>(&'a [T], F);

impl<T: Math, F: Map<T, T>> TileMap<T> for AddThen<'_, T, F> {
    type Common = T::Lanes;
    #[inline(always)]
    fn common(self, column: usize) -> T::Lanes {
        load_padded(&self.0[column.min(self.0.len())..], T::ZERO)
    }
    #[inline(always)]
    fn apply(self, _row: usize, _column: usize, bias: T::Lanes, x: T::Lanes) -> T::Lanes {
        x.add(bias).map(|x| self.1.apply(x))
    }
}

/// `f(x)`
#[derive(Clone, Copy)]
struct Only<F>(F);

impl<T: Math, F: Map<T, T>> TileMap<T> for Only<F> {
    type Common = ();
    #[inline(always)]
    fn common(self, _column: usize) {}
    #[inline(always)]
    fn apply(self, _row: usize, _column: usize, (): (), x: T::Lanes) -> T::Lanes {
        x.map(|x| self.0.apply(x))
    }
}

/// `f(x, y)` for the element of y at the same place.
#[derive(Clone, Copy)]
struct With<'a, T, F> {
    y: &'a [T],
    stride: usize,
    f: F,
}

impl<T: Math, F: Zip<T, T, T>> TileMap<T> for With<'_, T, F> {
    type Common = ();
    #[inline(always)]
    fn common(self, _column: usize) {}
    #[inline(always)]
    fn apply(self, row: usize, column: usize, (): (), x: T::Lanes) -> T::Lanes {
        let at = row * self.stride + column;
        x.zip(load_padded(&self.y[at.min(self.y.len())..], T::ZERO), |x, y| self.f.apply(x, y))
    }
}

/// `x`
#[derive(Clone, Copy)]
struct Same;

impl<T> Map<T, T> for Same {
    #[inline(always)]
    fn apply(self, x: T) -> T {
        x
    }
}

impl<T: Math> Layer<'_, T> {
    #[inline(always)]
    fn activate(&self, mut tile: Tile<'_, T>, f: impl Map<T, T>) {
        match self.bias {
            Some(bias) => tile.map(AddThen(bias, f)),
            None => tile.map(Only(f)),
        }
    }
}

impl<T: Math> Finish<T> for Layer<'_, T> {
    fn in_registers(&self) -> Option<InRegisters<'_, T>> {
        let end = InRegisters { bias: self.bias, rectifies: false, gate: None };
        match self.then {
            Then::Nothing => Some(end),
            Then::Activate(Unary::Relu) => Some(InRegisters { rectifies: true, ..end }),
            Then::Derivative(Binary::ReluGrad, y, stride) => {
                Some(InRegisters { bias: None, gate: Some((y, stride)), ..end })
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn finish(&self, tile: Tile<'_, T>) {
        let t = T::from_f64;
        match self.then {
            Then::Nothing => {
                if self.bias.is_some() {
                    self.activate(tile, Same);
                }
            }
            Then::Activate(op) => match op {
                Unary::Relu => self.activate(tile, f::Relu {}),
                Unary::LeakyRelu(slope) => self.activate(tile, f::LeakyRelu { slope: t(slope) }),
                Unary::Elu(alpha) => self.activate(tile, f::Elu { alpha: t(alpha) }),
                Unary::Sigmoid => self.activate(tile, f::Sigmoid {}),
                Unary::Tanh => self.activate(tile, f::Tanh {}),
                Unary::Softplus { beta, threshold } => {
                    self.activate(tile, f::Softplus { beta: t(beta), threshold: t(threshold) });
                }
                other => unreachable!("{other:?} is no activation"),
            },
            Then::Derivative(op, y, stride) => differentiate(tile, op, y, stride),
        }
    }
}

/// What [`Then::Derivative`] does.
#[inline(always)]
pub(crate) fn differentiate<T: Math>(mut tile: Tile<'_, T>, op: Binary, y: &[T], stride: usize) {
    with_derivative!(op, T, f => tile.map(With { y, stride, f }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::activate;
    use crate::gemm::{MatRef, NoEpilogue, gemm};
    use crate::isa::{self, Level};

    #[test]
    fn fused_bias_and_activation_have_the_bits_of_separate_passes() {
        let (m, n, k) = (19, 37, 23);
        let a: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.37).sin()).collect();
        let b: Vec<f32> = (0..k * n).map(|i| (i as f32 * 0.73).cos()).collect();
        let bias: Vec<f32> = (0..n).map(|i| i as f32 * 0.1 - 1.5).collect();
        for level in Level::supported() {
            isa::force(level).unwrap();
            for op in [Unary::Relu, Unary::Tanh, Unary::Sigmoid, Unary::Elu(1.0), Unary::LeakyRelu(0.01)] {
                let (a, b) = (MatRef::rows(&a, k), MatRef::rows(&b, n));
                let mut plain = vec![0.0; m * n];
                gemm(m, n, k, a, b, &mut plain, n, false, &NoEpilogue);
                for row in plain.chunks_exact_mut(n) {
                    row.iter_mut().zip(&bias).for_each(|(c, b)| *c += b);
                }
                activate(op, &mut plain);
                let mut fused = vec![0.0; m * n];
                gemm(
                    m,
                    n,
                    k,
                    a,
                    b,
                    &mut fused,
                    n,
                    false,
                    &Dense { bias: Some(&bias), activation: Some(op), derivative: None },
                );
                assert_eq!(fused, plain, "{level} {op:?}");
            }
        }
    }
}
