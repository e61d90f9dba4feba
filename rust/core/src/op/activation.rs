//! Activations whose derivative needs the operand: names and rules. Values and first derivatives are kernels,
//! second derivatives are written with ops, so that all others follow.

pub use ferrograd_kernels::elementwise::Curve;
use ferrograd_kernels::elementwise::{FLAT, GELU_TANH, NORMAL_PEAK, SELU};

use super::select::Compare;
use super::{Binary, Unary};
use crate::buffer::Array;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The name of the value, and of the gradient.
pub(super) fn names(curve: Curve) -> (&'static str, &'static str) {
    match curve {
        Curve::Celu(_) => ("celu", "celu_grad"),
        Curve::Selu => ("selu", "selu_grad"),
        Curve::Gelu | Curve::GeluTanh => ("gelu", "gelu_grad"),
        Curve::Silu => ("silu", "silu_grad"),
        Curve::Mish => ("mish", "mish_grad"),
        Curve::Softsign => ("softsign", "softsign_grad"),
        Curve::LogSigmoid => ("logsigmoid", "logsigmoid_grad"),
        Curve::Hardtanh { .. } => ("hardtanh", "hardtanh_grad"),
        Curve::Hardsigmoid => ("hardsigmoid", "hardsigmoid_grad"),
        Curve::Hardswish => ("hardswish", "hardswish_grad"),
        Curve::Hardshrink(_) => ("hardshrink", "hardshrink_grad"),
        Curve::Softshrink(_) => ("softshrink", "softshrink_grad"),
        Curve::Tanhshrink => ("tanhshrink", "tanhshrink_grad"),
        Curve::Threshold { .. } => ("threshold", "threshold_grad"),
        Curve::LogCosh => ("log_cosh", "log_cosh_grad"),
        Curve::Reversed(_) => ("reverse_gradient", "reverse_gradient_grad"),
        Curve::Penalised(_) => ("l1_penalty", "l1_penalty_grad"),
    }
}

/// A curve by its name and parameters, as Python calls it.
///
/// # Errors
/// `Config` for a name or a number of parameters that no curve has.
pub fn curve(name: &str, parameters: &[f64]) -> Result<Curve> {
    match (name, parameters) {
        ("celu", &[alpha]) => Ok(Curve::Celu(alpha)),
        ("selu", []) => Ok(Curve::Selu),
        ("gelu", []) => Ok(Curve::Gelu),
        ("gelu_tanh", []) => Ok(Curve::GeluTanh),
        ("silu", []) => Ok(Curve::Silu),
        ("mish", []) => Ok(Curve::Mish),
        ("softsign", []) => Ok(Curve::Softsign),
        ("logsigmoid", []) => Ok(Curve::LogSigmoid),
        ("hardtanh", &[min, max]) => Ok(Curve::Hardtanh { min, max }),
        ("hardsigmoid", []) => Ok(Curve::Hardsigmoid),
        ("hardswish", []) => Ok(Curve::Hardswish),
        ("hardshrink", &[lambd]) => Ok(Curve::Hardshrink(lambd)),
        ("softshrink", &[lambd]) => Ok(Curve::Softshrink(lambd)),
        ("tanhshrink", []) => Ok(Curve::Tanhshrink),
        ("threshold", &[threshold, value]) => Ok(Curve::Threshold { threshold, value }),
        ("log_cosh", []) => Ok(Curve::LogCosh),
        ("reverse_gradient", &[scale]) => Ok(Curve::Reversed(scale)),
        ("l1_penalty", &[strength]) => Ok(Curve::Penalised(strength)),
        _ => Err(Error::Config {
            argument: "name",
            expected: "an activation with its parameters".into(),
            got: format!("{name:?} with {} parameters", parameters.len()),
        }),
    }
}

/// The gradient of `g f'(x)` by g, times the upstream u.
pub(super) fn partial_by_g(curve: Curve, u: &Tensor, x: impl Fn() -> Tensor) -> Result<Tensor> {
    match curve {
        Curve::Penalised(_) => Ok(u.clone()),
        // Linear in g.
        _ => u.binary(Binary::CurveGrad(curve), &x()),
    }
}

/// The gradient of `g f'(x)` by x, times the upstream u.
pub(super) fn partial_by_x(
    curve: Curve,
    u: &Tensor,
    g: impl Fn() -> Tensor,
    x: impl Fn() -> Tensor,
) -> Result<Tensor> {
    match bend(curve, &x())? {
        Some(bend) => u.mul(&g())?.mul(&bend),
        None => Ok(Tensor::constant(Array::zeros(u.dtype(), *u.shape())?)),
    }
}

/// The second derivative; `None` where it is 0 everywhere. At a kink it is that of the flat side.
fn bend(curve: Curve, x: &Tensor) -> Result<Option<Tensor>> {
    let scalar = |value: f64| Tensor::scalar(x.dtype(), value);
    let held = || x.unary(Unary::Clamp { min: -FLAT, max: FLAT });
    let is_left = || x.compare(Compare::Le, &scalar(0.0)?);
    let bend = match curve {
        Curve::Celu(alpha) => scaled_elu_bend(x, 1.0 / alpha, 1.0 / alpha, &is_left()?)?,
        Curve::Selu => scaled_elu_bend(x, 1.0, SELU.0 * SELU.1, &is_left()?)?,
        // phi(x) (2 - x^2)
        Curve::Gelu => {
            let square = held()?.square()?;
            let density = square.mul_scalar(-0.5)?.exp()?.mul_scalar(NORMAL_PEAK)?;
            density.mul(&square.neg()?.add_scalar(2.0)?)?
        }
        // With s = sigmoid(v): s (1 - s) (2 v' + x v'' + x v'^2 (1 - 2 s))
        Curve::GeluTanh => {
            let x = held()?;
            let scaled = x.square()?.mul_scalar(GELU_TANH.1)?;
            let v = x.mul(&scaled.add_scalar(1.0)?)?.mul_scalar(GELU_TANH.0)?;
            let slope = scaled.mul_scalar(3.0)?.add_scalar(1.0)?.mul_scalar(GELU_TANH.0)?;
            // x v''
            let curved = scaled.mul_scalar(6.0 * GELU_TANH.0)?;
            let s = v.sigmoid()?;
            let turned = x.mul(&slope.square()?)?.mul(&s.mul_scalar(-2.0)?.add_scalar(1.0)?)?;
            let sum = slope.mul_scalar(2.0)?.add(&curved)?.add(&turned)?;
            sum.binary(Binary::SigmoidGrad, &s)?
        }
        // s (1 - s) (2 + x (1 - 2 s))
        Curve::Silu => {
            let x = held()?;
            let s = x.sigmoid()?;
            let sum = x.mul(&s.mul_scalar(-2.0)?.add_scalar(1.0)?)?.add_scalar(2.0)?;
            sum.binary(Binary::SigmoidGrad, &s)?
        }
        // With t = tanh(softplus(x)), t' = (1 - t^2) s: t' (2 + x (1 - s - 2 t s))
        Curve::Mish => {
            let x = held()?;
            let s = x.sigmoid()?;
            let t = x.unary(Unary::Softplus { beta: 1.0, threshold: f64::INFINITY })?.tanh()?;
            let turned = t.mul_scalar(2.0)?.add_scalar(1.0)?.mul(&s)?.neg()?.add_scalar(1.0)?;
            x.mul(&turned)?.add_scalar(2.0)?.mul(&s)?.binary(Binary::TanhGrad, &t)?
        }
        // -2 sign(x) / (1 + |x|)^3
        Curve::Softsign => x.sign()?.mul_scalar(-2.0)?.mul(&x.abs()?.add_scalar(1.0)?.pow_scalar(-3.0)?)?,
        // -s (1 - s)
        Curve::LogSigmoid => {
            let s = x.sigmoid()?;
            s.square()?.sub(&s)?
        }
        // 1/3 in (-3, 3)
        Curve::Hardswish => {
            let inside = x.abs()?.compare(Compare::Lt, &scalar(3.0)?)?;
            inside.select(&scalar(1.0 / 3.0)?, &scalar(0.0)?)?
        }
        // 2 t (1 - t^2)
        Curve::Tanhshrink => {
            let t = x.tanh()?;
            t.mul_scalar(2.0)?.binary(Binary::TanhGrad, &t)?
        }
        // 1 - t^2
        Curve::LogCosh => x.tanh()?.square()?.neg()?.add_scalar(1.0)?,
        Curve::Hardtanh { .. }
        | Curve::Hardsigmoid
        | Curve::Hardshrink(_)
        | Curve::Softshrink(_)
        | Curve::Threshold { .. }
        | Curve::Reversed(_)
        | Curve::Penalised(_) => return Ok(None),
    };
    Ok(Some(bend))
}

/// `factor e^(rate x)` where x <= 0, else 0.
fn scaled_elu_bend(x: &Tensor, rate: f64, factor: f64, is_left: &Tensor) -> Result<Tensor> {
    let zero = Tensor::scalar(x.dtype(), 0.0)?;
    // Held at 0: what is not selected must not overflow, or its gradient would be infinity * 0.
    let left = x.unary(Unary::Clamp { min: f64::NEG_INFINITY, max: 0.0 })?;
    is_left.select(&left.mul_scalar(rate)?.exp()?.mul_scalar(factor)?, &zero)
}
