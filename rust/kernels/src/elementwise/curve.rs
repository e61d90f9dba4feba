//! Activations whose derivative needs the operand, each with that derivative: plans keep them apart from the
//! products, whose tiles end in the activations of `function` only.
//!
//! Conditions are written such that NaN falls through to the function's own value, and such that no end of the
//! range meets `infinity * 0`.

use super::walk::{Map, Zip};
use crate::math::Math;

/// An activation. Where it has a kink the derivative there is that of the flat side, as in PyTorch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Curve {
    /// `x` where positive, else `alpha (e^(x / alpha) - 1)`.
    Celu(f64),
    /// `scale x` where positive, else `scale alpha (e^x - 1)`, with the constants of self-normalising networks.
    Selu,
    /// `x Phi(x)`, Phi the normal distribution function.
    Gelu,
    /// `x (1 + tanh u) / 2` with `u = sqrt(2 / pi) (x + 0.044715 x^3)`.
    GeluTanh,
    /// `x sigmoid(x)`
    Silu,
    /// `x tanh(log(1 + e^x))`
    Mish,
    /// `x / (1 + |x|)`
    Softsign,
    /// `-log(1 + e^-x)`
    LogSigmoid,
    /// `x` limited to an interval; derivative 0 at its ends.
    Hardtanh {
        /// Lower end.
        min: f64,
        /// Upper end.
        max: f64,
    },
    /// `x + 3` limited to [0, 6], divided by 6.
    Hardsigmoid,
    /// `x` times [`Curve::Hardsigmoid`].
    Hardswish,
    /// `x` where `|x|` is larger, else 0.
    Hardshrink(f64),
    /// `x` moved towards 0 by so much, at most to 0.
    Softshrink(f64),
    /// `x - tanh x`
    Tanhshrink,
    /// `x` where larger than the threshold, else a value.
    Threshold {
        /// What x must exceed.
        threshold: f64,
        /// What stands for the others.
        value: f64,
    },
    /// `log(cosh(x))`
    LogCosh,
    /// `x`, whose gradient is `-g` times this.
    Reversed(f64),
    /// `x`, whose gradient is `g` and this times the sign of x.
    Penalised(f64),
}

/// `scale` and `alpha` of [`Curve::Selu`]: Klambauer et al., "Self-Normalizing Neural Networks", 2017.
pub const SELU: (f64, f64) = (1.050_700_987_355_480_5, 1.673_263_242_354_377_2);
/// `sqrt(8 / pi)` and the cubic's factor: [`Curve::GeluTanh`] is `x sigmoid(2 u)`.
pub const GELU_TANH: (f64, f64) = (1.595_769_121_605_730_8, 0.044_715);
/// `1 / sqrt(2 pi)`
pub const NORMAL_PEAK: f64 = 0.398_942_280_401_432_7;

/// Beyond this [`Curve::Gelu`] and its like equal 0 or x, and so do their derivatives.
pub const FLAT: f64 = 1000.0;

/// Defines activations: parameters, value of `x`, and gradient `g` times the derivative.
macro_rules! curves {
    ($($name:ident [$($T:ident)?] { $($p:ident),* } |$x:ident| $value:expr, |$g:ident| $gradient:expr;)*) => {$(
        #[derive(Clone, Copy)]
        pub(crate) struct $name<$($T)?> { $(pub(crate) $p: T),* }
        impl<T: Math> Map<T, T> for $name<$($T)?> {
            #[inline(always)]
            #[allow(unused_variables, reason = "value and gradient each take what they need")]
            fn apply(self, $x: T) -> T {
                $(let $p = self.$p;)*
                $value
            }
        }
        impl<T: Math> Zip<T, T, T> for $name<$($T)?> {
            #[inline(always)]
            #[allow(unused_variables, reason = "value and gradient each take what they need")]
            fn apply(self, $g: T, $x: T) -> T {
                $(let $p = self.$p;)*
                $gradient
            }
        }
    )*};
}

/// `x` within `[-FLAT, FLAT]`.
#[inline(always)]
fn held<T: Math>(x: T) -> T {
    let flat = T::from_f64(FLAT);
    let x = if x < -flat { -flat } else { x };
    if x > flat { flat } else { x }
}

/// `x` times a factor that is 0 far to the left, where x may be infinite.
#[inline(always)]
fn faded<T: Math>(x: T, factor: T) -> T {
    let flat = T::from_f64(-FLAT);
    let x = if x < flat { flat } else { x };
    x * factor
}

/// The argument of the sigmoid in [`Curve::GeluTanh`], and its derivative.
#[inline(always)]
fn cubic<T: Math>(x: T) -> (T, T) {
    let (scale, factor) = (T::from_f64(GELU_TANH.0), T::from_f64(GELU_TANH.1));
    let square = factor * x * x;
    (scale * x * (T::ONE + square), scale * (T::ONE + (square + square + square)))
}

/// `tanh(log(1 + e^x))` and 1 minus that, by powers of `w = e^-|x|`.
#[inline(always)]
fn mish_parts<T: Math>(x: T) -> (T, T) {
    let two = T::from_f64(2.0);
    let w = (-x.abs()).exp();
    let (left, right) = (w * (w + two), T::ONE + (w + w));
    let lost = if x > T::ZERO { two * w * w } else { two };
    let kept = if x > T::ZERO { right } else { left };
    (kept / (kept + lost), lost / (kept + lost))
}

curves! {
    ScaledElu[T] { alpha, scale, rate } |x| {
        let negative = scale * alpha * (rate * x).expm1();
        if x > T::ZERO { scale * x } else { negative }
    }, |g| {
        let negative = g * (scale * alpha * rate * (rate * x).exp());
        if x > T::ZERO { g * scale } else { negative }
    };
    Gelu[] {} |x| faded(x, x.normal_cdf()), |g| {
        let x = held(x);
        let density = T::from_f64(NORMAL_PEAK) * (T::from_f64(-0.5) * x * x).exp();
        g * x.mul_add(density, x.normal_cdf())
    };
    GeluTanh[] {} |x| faded(x, cubic(x).0.sigmoid()), |g| {
        let x = held(x);
        let (u, slope) = cubic(x);
        let s = u.sigmoid();
        g * (s * (x * slope).mul_add((-u).sigmoid(), T::ONE))
    };
    Silu[] {} |x| faded(x, x.sigmoid()), |g| {
        let x = held(x);
        g * (x.sigmoid() * x.mul_add((-x).sigmoid(), T::ONE))
    };
    Mish[] {} |x| faded(x, mish_parts(x).0), |g| {
        let x = held(x);
        let (t, rest) = mish_parts(x);
        g * (x * (rest * (T::ONE + t))).mul_add(x.sigmoid(), t)
    };
    Softsign[] {} |x| {
        let finite = x / (T::ONE + x.abs());
        let end = if x > T::ZERO { T::ONE } else { -T::ONE };
        if x.abs() == T::INFINITY { end } else { finite }
    }, |g| {
        let d = T::ONE + x.abs();
        g / d / d
    };
    LogSigmoid[] {} |x| {
        let low = if x > T::ZERO { T::ZERO } else { x };
        low - (-x.abs()).exp().log1p()
    }, |g| g * (-x).sigmoid();
    Hardtanh[T] { min, max } |x| {
        let x = if x < min { min } else { x };
        if x > max { max } else { x }
    }, |g| if (x > min) & (x < max) { g } else { T::ZERO };
    Hardsigmoid[] {} |x| {
        let six = T::from_f64(6.0);
        let y = x + T::from_f64(3.0);
        let y = if y < T::ZERO { T::ZERO } else { y };
        (if y > six { six } else { y }) / six
    }, |g| {
        let three = T::from_f64(3.0);
        if (x > -three) & (x < three) { g / T::from_f64(6.0) } else { T::ZERO }
    };
    Hardswish[] {} |x| {
        let three = T::from_f64(3.0);
        let middle = x * (x + three) / T::from_f64(6.0);
        let right = if x >= three { x } else { middle };
        if x <= -three { T::ZERO } else { right }
    }, |g| {
        let three = T::from_f64(3.0);
        let middle = g * (x / three + T::from_f64(0.5));
        let right = if x >= three { g } else { middle };
        if x <= -three { T::ZERO } else { right }
    };
    Hardshrink[T] { lambd } |x| if x.abs() <= lambd { T::ZERO } else { x },
        |g| if x.abs() <= lambd { T::ZERO } else { g };
    Softshrink[T] { lambd } |x| {
        let left = if x.abs() <= lambd { T::ZERO } else { x + lambd };
        if x > lambd { x - lambd } else { left }
    }, |g| if x.abs() <= lambd { T::ZERO } else { g };
    Tanhshrink[] {} |x| x - x.tanh(), |g| {
        let t = x.tanh();
        g * (t * t)
    };
    Threshold[T] { threshold, value } |x| if x <= threshold { value } else { x },
        |g| if x <= threshold { T::ZERO } else { g };
    LogCosh[] {} |x| {
        let a = x.abs();
        // cosh a - 1 = (e^a - 1)^2 / (2 e^a), which does not cancel near 0.
        let e = a.expm1();
        let near = (e * e / (T::from_f64(2.0) * (T::ONE + e))).log1p();
        let far = a + ((-(a + a)).exp().log1p() - T::from_f64(std::f64::consts::LN_2));
        if a < T::ONE { near } else { far }
    }, |g| g * x.tanh();
    Reversed[T] { scale } |x| x, |g| -(scale * g);
    Penalised[T] { strength } |x| x, |g| {
        let pull = if x > T::ZERO { strength } else { T::ZERO };
        g + if x < T::ZERO { -strength } else { pull }
    };
}

/// Evaluates `$call` with `$f` bound to the functions of `$curve`.
macro_rules! with_curve {
    ($curve:expr, $T:ident, $f:ident => $call:expr) => {{
        use $crate::elementwise::curve as c;
        let t = $T::from_f64;
        macro_rules! call {
            ($function:expr) => {{
                let $f = $function;
                $call
            }};
        }
        match $curve {
            Curve::Celu(alpha) => {
                call!(c::ScaledElu { alpha: t(alpha), scale: $T::ONE, rate: t(1.0 / alpha) })
            }
            Curve::Selu => {
                call!(c::ScaledElu { alpha: t(c::SELU.1), scale: t(c::SELU.0), rate: $T::ONE })
            }
            Curve::Gelu => call!(c::Gelu {}),
            Curve::GeluTanh => call!(c::GeluTanh {}),
            Curve::Silu => call!(c::Silu {}),
            Curve::Mish => call!(c::Mish {}),
            Curve::Softsign => call!(c::Softsign {}),
            Curve::LogSigmoid => call!(c::LogSigmoid {}),
            Curve::Hardtanh { min, max } => call!(c::Hardtanh { min: t(min), max: t(max) }),
            Curve::Hardsigmoid => call!(c::Hardsigmoid {}),
            Curve::Hardswish => call!(c::Hardswish {}),
            Curve::Hardshrink(lambd) => call!(c::Hardshrink { lambd: t(lambd) }),
            Curve::Softshrink(lambd) => call!(c::Softshrink { lambd: t(lambd) }),
            Curve::Tanhshrink => call!(c::Tanhshrink {}),
            Curve::Threshold { threshold, value } => {
                call!(c::Threshold { threshold: t(threshold), value: t(value) })
            }
            Curve::LogCosh => call!(c::LogCosh {}),
            Curve::Reversed(scale) => call!(c::Reversed { scale: t(scale) }),
            Curve::Penalised(strength) => call!(c::Penalised { strength: t(strength) }),
        }
    }};
}
pub(super) use with_curve;
