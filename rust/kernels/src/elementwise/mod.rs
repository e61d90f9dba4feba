//! Elementwise kernels over strided views: a stride of 0 repeats an element (broadcasting), the output is
//! contiguous and row-major. Strides count elements; a slice begins at its view's first element.
//!
//! The element functions are in `function` and `curve`, the loops in `walk`, the copies in `layout`, integers in `integer`.

mod curve;
pub(crate) mod function;
mod integer;
mod layout;
pub(crate) mod walk;

pub use curve::{Curve, FLAT, GELU_TANH, NORMAL_PEAK, SELU};
pub use integer::{Int, IntBinary, IntUnary, binary_int, unary_int};
pub use layout::{cast, copy, scatter_into, select};
pub use walk::MAX_RANK;
pub(crate) use walk::map_in_place;

use crate::isa::{Isa, Job, dispatch};
use crate::math::Math;
use curve::with_curve;
use function as f;
use walk::{Map, Walk, Zip, map_blocks, map_row, zip_blocks, zip_row};

/// A function of one operand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    /// `-x`
    Neg,
    /// `e^x`
    Exp,
    /// `e^x - 1`
    Expm1,
    /// Natural logarithm.
    Log,
    /// `log(1 + x)`
    Log1p,
    /// Square root.
    Sqrt,
    /// `x * x`
    Square,
    /// `1 / x`
    Reciprocal,
    /// Absolute value.
    Abs,
    /// -1, 0 or 1.
    Sign,
    /// The next integer below.
    Floor,
    /// The next integer above.
    Ceil,
    /// The nearest integer, the even one halfway.
    Round,
    /// Error function.
    Erf,
    /// Sine.
    Sin,
    /// Cosine.
    Cos,
    /// `max(x, 0)`
    Relu,
    /// `x` where positive, else `slope * x`.
    LeakyRelu(f64),
    /// `x` where positive, else `alpha * (e^x - 1)`.
    Elu(f64),
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `log(1 + e^(beta x)) / beta`, and `x` where `beta x > threshold`.
    Softplus {
        /// Sharpness.
        beta: f64,
        /// Where the function is taken as linear.
        threshold: f64,
    },
    /// `x^exponent`; the exponents 1, 2, 3, 1/2, -1/2, -1 and -2 take no general power.
    PowScalar(f64),
    /// `x` limited to an interval; an open end is infinite.
    Clamp {
        /// Lower end.
        min: f64,
        /// Upper end.
        max: f64,
    },
    /// `x + value`
    AddScalar(f64),
    /// `x * value`
    MulScalar(f64),
    /// `x / value`
    DivScalar(f64),
    /// An activation whose derivative needs the operand.
    Curve(Curve),
}

/// A function of two operands. In the gradients of activations the first operand is the upstream gradient `g`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
    /// `a^b`
    Pow,
    /// The larger one; NaN where either is.
    Maximum,
    /// The smaller one; NaN where either is.
    Minimum,
    /// 0 where `a < 0`, 1 where `a > 0`, `b` at 0.
    Heaviside,
    /// `(g, y)`: 0 where `y <= 0`, else `g`.
    ReluGrad,
    /// `(g, x)`: `g` where `x > 0`, else `slope * g`.
    LeakyReluGrad(f64),
    /// `(g, y)`: `g` where `y > 0`, else `g * (y + alpha)`.
    EluGrad(f64),
    /// `(g, y)`: `g (1 - y) y`
    SigmoidGrad,
    /// `(g, y)`: `g (1 - y^2)`
    TanhGrad,
    /// `(g, x)`: `g` times the sigmoid of `beta x`; `g` where `beta x > threshold`.
    SoftplusGrad {
        /// Sharpness.
        beta: f64,
        /// Where the function is taken as linear.
        threshold: f64,
    },
    /// `(g, x)`: `g` where `min <= x <= max`, else 0.
    ClampGrad {
        /// Lower end.
        min: f64,
        /// Upper end.
        max: f64,
    },
    /// `(g, x)`: `g` times the activation's derivative at x.
    CurveGrad(Curve),
}

/// A comparison of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// `a == b`
    Eq,
    /// `a != b`
    Ne,
    /// `a < b`
    Lt,
    /// `a <= b`
    Le,
    /// `a > b`
    Gt,
    /// `a >= b`
    Ge,
}

struct UnaryJob<'a, T, F> {
    f: F,
    walk: Walk<1>,
    x: &'a [T],
    out: &'a mut [T],
}

impl<T: Math, F: Map<T, T>> Job for UnaryJob<'_, T, F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let [stride] = self.walk.inner_strides();
        let mut cursor = self.walk.cursor();
        for row in self.out.chunks_exact_mut(self.walk.inner()) {
            map_row(self.f, &self.x[cursor.offset[0]..], stride, row);
            cursor.advance(&self.walk);
        }
    }
}

struct BinaryJob<'a, T, O, F> {
    f: F,
    walk: Walk<2>,
    a: &'a [T],
    b: &'a [T],
    out: &'a mut [O],
}

impl<T: Copy, O: Copy + Default, F: Zip<T, T, O>> Job for BinaryJob<'_, T, O, F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let [a_stride, b_stride] = self.walk.inner_strides();
        let mut cursor = self.walk.cursor();
        for row in self.out.chunks_exact_mut(self.walk.inner()) {
            let [a, b] = cursor.offset;
            zip_row(self.f, (&self.a[a..], a_stride), (&self.b[b..], b_stride), row);
            cursor.advance(&self.walk);
        }
    }
}

struct CurveJob<'a, T, F> {
    f: F,
    walk: Walk<1>,
    x: &'a [T],
    out: &'a mut [T],
}

impl<T: Math, F: Map<T, T>> Job for CurveJob<'_, T, F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let [stride] = self.walk.inner_strides();
        let mut cursor = self.walk.cursor();
        for row in self.out.chunks_exact_mut(self.walk.inner()) {
            map_blocks(self.f, &self.x[cursor.offset[0]..], stride, row);
            cursor.advance(&self.walk);
        }
    }
}

struct CurveGradJob<'a, T, F> {
    f: F,
    walk: Walk<2>,
    g: &'a [T],
    x: &'a [T],
    out: &'a mut [T],
}

impl<T: Math, F: Zip<T, T, T>> Job for CurveGradJob<'_, T, F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let [g_stride, x_stride] = self.walk.inner_strides();
        let mut cursor = self.walk.cursor();
        for row in self.out.chunks_exact_mut(self.walk.inner()) {
            let [g, x] = cursor.offset;
            zip_blocks(self.f, (&self.g[g..], g_stride), (&self.x[x..], x_stride), row);
            cursor.advance(&self.walk);
        }
    }
}

struct InPlaceJob<'a, T, F> {
    f: F,
    row: &'a mut [T],
}

impl<T: Math, F: Map<T, T>> Job for InPlaceJob<'_, T, F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        map_in_place(self.f, self.row);
    }
}

/// Evaluates `$call` with `$f` bound to the element function of `$op`, so that the choice is made once per call.
macro_rules! with_unary {
    ($op:expr, $T:ident, $f:ident => $call:expr) => {
        match $op {
            Unary::Neg => with_unary!(@ f::Neg {}, $f, $call),
            Unary::Exp => with_unary!(@ f::Exp {}, $f, $call),
            Unary::Expm1 => with_unary!(@ f::Expm1 {}, $f, $call),
            Unary::Log => with_unary!(@ f::Log {}, $f, $call),
            Unary::Log1p => with_unary!(@ f::Log1p {}, $f, $call),
            Unary::Sqrt => with_unary!(@ f::Sqrt {}, $f, $call),
            Unary::Square => with_unary!(@ f::Square {}, $f, $call),
            Unary::Reciprocal => with_unary!(@ f::Reciprocal {}, $f, $call),
            Unary::Abs => with_unary!(@ f::Abs {}, $f, $call),
            Unary::Sign => with_unary!(@ f::Sign {}, $f, $call),
            Unary::Floor => with_unary!(@ f::Floor {}, $f, $call),
            Unary::Ceil => with_unary!(@ f::Ceil {}, $f, $call),
            Unary::Round => with_unary!(@ f::Round {}, $f, $call),
            Unary::Erf => with_unary!(@ f::Erf {}, $f, $call),
            Unary::Sin => with_unary!(@ f::Sin {}, $f, $call),
            Unary::Cos => with_unary!(@ f::Cos {}, $f, $call),
            Unary::Relu => with_unary!(@ f::Relu {}, $f, $call),
            Unary::LeakyRelu(slope) => with_unary!(@ f::LeakyRelu { slope: $T::from_f64(slope) }, $f, $call),
            Unary::Elu(alpha) => with_unary!(@ f::Elu { alpha: $T::from_f64(alpha) }, $f, $call),
            Unary::Sigmoid => with_unary!(@ f::Sigmoid {}, $f, $call),
            Unary::Tanh => with_unary!(@ f::Tanh {}, $f, $call),
            Unary::Softplus { beta, threshold } => with_unary!(
                @ f::Softplus { beta: $T::from_f64(beta), threshold: $T::from_f64(threshold) }, $f, $call
            ),
            Unary::PowScalar(1.0) => with_unary!(@ f::MulScalar { value: $T::ONE }, $f, $call),
            Unary::PowScalar(2.0) => with_unary!(@ f::Square {}, $f, $call),
            Unary::PowScalar(3.0) => with_unary!(@ f::Cube {}, $f, $call),
            Unary::PowScalar(0.5) => with_unary!(@ f::Sqrt {}, $f, $call),
            Unary::PowScalar(-0.5) => with_unary!(@ f::ReciprocalSqrt {}, $f, $call),
            Unary::PowScalar(-1.0) => with_unary!(@ f::Reciprocal {}, $f, $call),
            Unary::PowScalar(-2.0) => with_unary!(@ f::ReciprocalSquare {}, $f, $call),
            Unary::PowScalar(exponent) => {
                with_unary!(@ f::PowScalar { exponent: $T::from_f64(exponent) }, $f, $call)
            }
            Unary::Clamp { min, max } => {
                with_unary!(@ f::Clamp { min: $T::from_f64(min), max: $T::from_f64(max) }, $f, $call)
            }
            Unary::AddScalar(value) => with_unary!(@ f::AddScalar { value: $T::from_f64(value) }, $f, $call),
            Unary::MulScalar(value) => with_unary!(@ f::MulScalar { value: $T::from_f64(value) }, $f, $call),
            Unary::DivScalar(value) => with_unary!(@ f::DivScalar { value: $T::from_f64(value) }, $f, $call),
            Unary::Curve(curve) => unreachable!("{curve:?} is not among the plain functions"),
        }
    };
    (@ $function:expr, $f:ident, $call:expr) => {{
        let $f = $function;
        $call
    }};
}

/// `out = op(x)`.
pub fn unary<T: Math>(op: Unary, shape: &[usize], x: &[T], x_strides: &[usize], out: &mut [T]) {
    let Some(walk) = Walk::new(shape, [x_strides], [x.len()]) else { return };
    assert_eq!(out.len(), walk.len(), "the output is contiguous");
    if let Unary::Curve(curve) = op {
        return with_curve!(curve, T, f => dispatch(CurveJob { f, walk, x, out }));
    }
    with_unary!(op, T, f => dispatch(UnaryJob { f, walk, x, out }));
}

/// `out = op(a, b)`.
pub fn binary<T: Math>(
    op: Binary,
    shape: &[usize],
    a: &[T],
    a_strides: &[usize],
    b: &[T],
    b_strides: &[usize],
    out: &mut [T],
) {
    let Some(walk) = Walk::new(shape, [a_strides, b_strides], [a.len(), b.len()]) else { return };
    assert_eq!(out.len(), walk.len(), "the output is contiguous");
    macro_rules! run {
        ($f:expr) => {
            dispatch(BinaryJob { f: $f, walk, a, b, out })
        };
    }
    let t = T::from_f64;
    match op {
        Binary::Add => run!(f::Add {}),
        Binary::Sub => run!(f::Sub {}),
        Binary::Mul => run!(f::Mul {}),
        Binary::Div => run!(f::Div {}),
        Binary::Pow => run!(f::Pow {}),
        Binary::Maximum => run!(f::Maximum {}),
        Binary::Minimum => run!(f::Minimum {}),
        Binary::Heaviside => run!(f::Heaviside {}),
        Binary::ReluGrad => run!(f::ReluGrad {}),
        Binary::LeakyReluGrad(slope) => run!(f::LeakyReluGrad { slope: t(slope) }),
        Binary::EluGrad(alpha) => run!(f::EluGrad { alpha: t(alpha) }),
        Binary::SigmoidGrad => run!(f::SigmoidGrad {}),
        Binary::TanhGrad => run!(f::TanhGrad {}),
        Binary::SoftplusGrad { beta, threshold } => {
            run!(f::SoftplusGrad { beta: t(beta), threshold: t(threshold) })
        }
        Binary::ClampGrad { min, max } => run!(f::ClampGrad { min: t(min), max: t(max) }),
        Binary::CurveGrad(curve) => {
            with_curve!(curve, T, f => dispatch(CurveGradJob { f, walk, g: a, x: b, out }))
        }
    }
}

/// `out = op(a, b)` as 0 or 1. Every comparison with NaN is 0, except [`Compare::Ne`].
pub fn compare<T: PartialOrd + Copy>(
    op: Compare,
    shape: &[usize],
    a: &[T],
    a_strides: &[usize],
    b: &[T],
    b_strides: &[usize],
    out: &mut [u8],
) {
    let Some(walk) = Walk::new(shape, [a_strides, b_strides], [a.len(), b.len()]) else { return };
    assert_eq!(out.len(), walk.len(), "the output is contiguous");
    match op {
        Compare::Eq => dispatch(BinaryJob { f: f::Eq, walk, a, b, out }),
        Compare::Ne => dispatch(BinaryJob { f: f::Ne, walk, a, b, out }),
        Compare::Lt => dispatch(BinaryJob { f: f::Lt, walk, a, b, out }),
        Compare::Le => dispatch(BinaryJob { f: f::Le, walk, a, b, out }),
        Compare::Gt => dispatch(BinaryJob { f: f::Gt, walk, a, b, out }),
        Compare::Ge => dispatch(BinaryJob { f: f::Ge, walk, a, b, out }),
    }
}

/// `row = op(row)`.
pub fn activate<T: Math>(op: Unary, row: &mut [T]) {
    if let Unary::Curve(_) = op {
        let mut buffer = [T::ZERO; 256];
        for row in row.chunks_mut(buffer.len()) {
            let x = &mut buffer[..row.len()];
            x.copy_from_slice(row);
            unary(op, &[row.len()], x, &[1], row);
        }
        return;
    }
    with_unary!(op, T, f => dispatch(InPlaceJob { f, row }));
}

/// [`activate`] for use inside another [`Job`], such as the epilogue of a matrix product. Activations are
/// compiled into the caller; the other functions, to keep it small, are called.
#[inline(always)]
#[allow(dead_code, reason = "the matrix product's epilogue calls it")]
pub(crate) fn activate_inline<T: Math>(op: Unary, row: &mut [T]) {
    let t = T::from_f64;
    match op {
        Unary::Relu => map_in_place(f::Relu {}, row),
        Unary::LeakyRelu(slope) => map_in_place(f::LeakyRelu { slope: t(slope) }, row),
        Unary::Elu(alpha) => map_in_place(f::Elu { alpha: t(alpha) }, row),
        Unary::Sigmoid => map_in_place(f::Sigmoid {}, row),
        Unary::Tanh => map_in_place(f::Tanh {}, row),
        Unary::Softplus { beta, threshold } => {
            map_in_place(f::Softplus { beta: t(beta), threshold: t(threshold) }, row)
        }
        other => activate(other, row),
    }
}

/// Multiplies row `i` of a contiguous matrix of `rows` by `factor[i * stride]`.
///
/// # Panics
/// When the rows do not divide the matrix, or there is no factor for one of them.
pub fn scale_rows<T: Math>(rows: usize, x: &mut [T], factor: &[T], stride: usize) {
    assert!(rows == 0 && x.is_empty() || rows > 0 && x.len().is_multiple_of(rows), "a matrix of {rows} rows");
    if !x.is_empty() {
        assert!((rows - 1) * stride < factor.len(), "a factor for each of {rows} rows");
        dispatch(ScaleRows { cols: x.len() / rows, x, factor, stride });
    }
}

struct ScaleRows<'a, T> {
    cols: usize,
    x: &'a mut [T],
    factor: &'a [T],
    stride: usize,
}

impl<T: Math> Job for ScaleRows<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let ScaleRows { cols, x, factor, stride } = self;
        if stride == 0 {
            // One factor: rows need no loop of their own.
            x.iter_mut().for_each(|x| *x *= factor[0]);
            return;
        }
        for (i, row) in x.chunks_exact_mut(cols).enumerate() {
            let factor = factor[i * stride];
            row.iter_mut().for_each(|x| *x *= factor);
        }
    }
}

#[cfg(test)]
mod tests;
