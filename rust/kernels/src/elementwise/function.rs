//! The functions of one and two elements, each written once for all layouts and instruction sets.
//! A comparison with NaN is false, so each condition is written such that NaN falls through.

use super::walk::{Map, Zip};
use crate::math::Math;

/// The nearest integer, the even one halfway. Adding and taking away 2^mantissa drops the fraction in the
/// rounding of the hardware; from there on every value is an integer.
#[inline(always)]
fn round<T: Math>(x: T) -> T {
    let (magnitude, whole) = (x.abs(), T::ONE / T::EPSILON);
    let rounded = (magnitude + whole) - whole;
    let rounded = if magnitude < whole { rounded } else { magnitude };
    let signed = if x < T::ZERO { -rounded } else { rounded };
    // Keeps the sign of -0.
    if x == T::ZERO { x } else { signed }
}

#[inline(always)]
fn floor<T: Math>(x: T) -> T {
    let nearest = round(x);
    if nearest > x { nearest - T::ONE } else { nearest }
}

/// Defines functions of one element: `Name[T if it has parameters] { parameters } |x| value`.
macro_rules! unary {
    ($($name:ident [$($g:ident)?] { $($p:ident),* } |$x:ident| $body:expr;)*) => {$(
        #[derive(Clone, Copy)]
        pub(crate) struct $name<$($g)?> { $(pub(crate) $p: T),* }
        impl<T: Math> Map<T, T> for $name<$($g)?> {
            #[inline(always)]
            fn apply(self, $x: T) -> T {
                let Self { $($p),* } = self;
                $body
            }
        }
    )*};
}

/// Defines functions of two elements, as `unary` does.
macro_rules! binary {
    ($($name:ident [$($g:ident)?] { $($p:ident),* } |$a:ident, $b:ident| $body:expr;)*) => {$(
        #[derive(Clone, Copy)]
        pub(crate) struct $name<$($g)?> { $(pub(crate) $p: T),* }
        impl<T: Math> Zip<T, T, T> for $name<$($g)?> {
            #[inline(always)]
            fn apply(self, $a: T, $b: T) -> T {
                let Self { $($p),* } = self;
                $body
            }
        }
    )*};
}

unary! {
    Neg[] {} |x| -x;
    Exp[] {} |x| x.exp();
    Expm1[] {} |x| x.expm1();
    Log[] {} |x| x.log();
    Log1p[] {} |x| x.log1p();
    Sqrt[] {} |x| x.sqrt();
    Square[] {} |x| x * x;
    Cube[] {} |x| x * x * x;
    Reciprocal[] {} |x| T::ONE / x;
    ReciprocalSqrt[] {} |x| T::ONE / x.sqrt();
    ReciprocalSquare[] {} |x| T::ONE / (x * x);
    Abs[] {} |x| x.abs();
    Sign[] {} |x| {
        let zero_or_nan = if x == T::ZERO { T::ZERO } else { x };
        let negative = if x < T::ZERO { -T::ONE } else { zero_or_nan };
        if x > T::ZERO { T::ONE } else { negative }
    };
    Floor[] {} |x| floor(x);
    Ceil[] {} |x| -floor(-x);
    Round[] {} |x| round(x);
    Erf[] {} |x| x.erf();
    Sin[] {} |x| x.sin();
    Cos[] {} |x| x.cos();
    Relu[] {} |x| if x <= T::ZERO { T::ZERO } else { x };
    LeakyRelu[T] { slope } |x| if x > T::ZERO { x } else { slope * x };
    Elu[T] { alpha } |x| {
        let negative = alpha * x.expm1();
        if x > T::ZERO { x } else { negative }
    };
    Sigmoid[] {} |x| x.sigmoid();
    Tanh[] {} |x| x.tanh();
    Softplus[T] { beta, threshold } |x| {
        let smooth = (beta * x).exp().log1p() / beta;
        if beta * x > threshold { x } else { smooth }
    };
    PowScalar[T] { exponent } |x| x.pow(exponent);
    Clamp[T] { min, max } |x| {
        let x = if x < min { min } else { x };
        if x > max { max } else { x }
    };
    AddScalar[T] { value } |x| x + value;
    MulScalar[T] { value } |x| x * value;
    DivScalar[T] { value } |x| x / value;
}

binary! {
    Add[] {} |a, b| a + b;
    Sub[] {} |a, b| a - b;
    Mul[] {} |a, b| a * b;
    Div[] {} |a, b| a / b;
    Pow[] {} |a, b| a.pow(b);
    Maximum[] {} |a, b| a.maximum(b);
    Minimum[] {} |a, b| a.minimum(b);
    Heaviside[] {} |a, b| {
        let positive_or_nan = if a > T::ZERO { T::ONE } else { a };
        let not_zero = if a < T::ZERO { T::ZERO } else { positive_or_nan };
        if a == T::ZERO { b } else { not_zero }
    };
    ReluGrad[] {} |g, y| if y <= T::ZERO { T::ZERO } else { g };
    LeakyReluGrad[T] { slope } |g, x| if x > T::ZERO { g } else { slope * g };
    EluGrad[T] { alpha } |g, y| if y > T::ZERO { g } else { g * (y + alpha) };
    SigmoidGrad[] {} |g, y| g * ((T::ONE - y) * y);
    TanhGrad[] {} |g, y| g * (T::ONE - y * y);
    SoftplusGrad[T] { beta, threshold } |g, x| {
        let smooth = g * (beta * x).sigmoid();
        if beta * x > threshold { g } else { smooth }
    };
    ClampGrad[T] { min, max } |g, x| if (x >= min) & (x <= max) { g } else { T::ZERO };
}

/// Defines comparisons, which give 0 or 1.
macro_rules! compare {
    ($($name:ident $operator:tt;)*) => {$(
        #[derive(Clone, Copy)]
        pub(super) struct $name;
        impl<T: PartialOrd> Zip<T, T, u8> for $name {
            #[inline(always)]
            fn apply(self, a: T, b: T) -> u8 {
                u8::from(a $operator b)
            }
        }
    )*};
}

compare! { Eq ==; Ne !=; Lt <; Le <=; Gt >; Ge >=; }
