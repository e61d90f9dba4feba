//! Element by element: arithmetic, functions, activations, and their broadcast rule.

use ferrograd_kernels::elementwise as kernel;
pub use ferrograd_kernels::elementwise::{Binary, Unary};
use smallvec::smallvec;

use super::activation;
use super::select::Compare;
use super::{Gradients, Meta, Op, Saves};
use crate::backward::Vjp;
use crate::buffer::{Array, parallel_chunks};
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::for_float;
use crate::shape::Dims;
use crate::tensor::Tensor;

/// A unary op that a dense layer can end in: its derivative follows from its result.
pub type Activation = Unary;

pub(super) fn unary_name(op: Unary) -> &'static str {
    match op {
        Unary::Neg => "neg",
        Unary::Exp => "exp",
        Unary::Expm1 => "expm1",
        Unary::Log => "log",
        Unary::Log1p => "log1p",
        Unary::Sqrt => "sqrt",
        Unary::Square => "square",
        Unary::Reciprocal => "reciprocal",
        Unary::Abs => "abs",
        Unary::Sign => "sign",
        Unary::Floor => "floor",
        Unary::Ceil => "ceil",
        Unary::Round => "round",
        Unary::Erf => "erf",
        Unary::Sin => "sin",
        Unary::Cos => "cos",
        Unary::Relu => "relu",
        Unary::LeakyRelu(_) => "leaky_relu",
        Unary::Elu(_) => "elu",
        Unary::Sigmoid => "sigmoid",
        Unary::Tanh => "tanh",
        Unary::Softplus { .. } => "softplus",
        Unary::PowScalar(_) => "pow",
        Unary::Clamp { .. } => "clamp",
        Unary::AddScalar(_) => "add",
        Unary::MulScalar(_) => "mul",
        Unary::DivScalar(_) => "div",
        Unary::Curve(curve) => activation::names(curve).0,
    }
}

pub(super) fn binary_name(op: Binary) -> &'static str {
    match op {
        Binary::Add => "add",
        Binary::Sub => "sub",
        Binary::Mul => "mul",
        Binary::Div => "div",
        Binary::Pow => "pow",
        Binary::Maximum => "maximum",
        Binary::Minimum => "minimum",
        Binary::Heaviside => "heaviside",
        Binary::ReluGrad => "relu_grad",
        Binary::LeakyReluGrad(_) => "leaky_relu_grad",
        Binary::EluGrad(_) => "elu_grad",
        Binary::SigmoidGrad => "sigmoid_grad",
        Binary::TanhGrad => "tanh_grad",
        Binary::SoftplusGrad { .. } => "softplus_grad",
        Binary::ClampGrad { .. } => "clamp_grad",
        Binary::CurveGrad(curve) => activation::names(curve).1,
    }
}

pub(super) fn infer_float(op: &'static str, input: Meta) -> Result<Meta> {
    if input.dtype.is_float() {
        Ok(input)
    } else {
        Err(Error::DType { op, expected: "float32 or float64", got: input.dtype })
    }
}

pub(super) fn infer_unary(op: Unary, input: Meta) -> Result<Meta> {
    let is_integer = matches!(input.dtype, DType::I64) && matches!(op, Unary::Neg | Unary::Abs | Unary::Sign);
    if is_integer { Ok(input) } else { infer_float(unary_name(op), input) }
}

pub(super) fn infer_binary(op: Binary, left: Meta, right: Meta) -> Result<Meta> {
    let name = binary_name(op);
    debug_assert_eq!(left.dtype, right.dtype, "{name}: operands are promoted before");
    let is_integer = matches!(left.dtype, DType::I64 | DType::U8)
        && matches!(op, Binary::Add | Binary::Sub | Binary::Mul | Binary::Maximum | Binary::Minimum);
    if !is_integer {
        infer_float(name, left)?;
    }
    Ok(Meta { dtype: left.dtype, shape: Dims::broadcast(name, &left.shape, &right.shape)? })
}

/// Strides of an array of shape `own` as if it had the broadcast shape.
pub(super) fn broadcast_strides(own: &[usize], own_strides: &[usize], shape: &Dims) -> Dims {
    let mut strides = *shape;
    let lead = shape.rank() - own.len();
    for i in 0..shape.rank() {
        let j = i.checked_sub(lead).filter(|&j| own[j] != 1 || shape[i] == 1);
        strides[i] = j.map_or(0, |j| own_strides[j]);
    }
    strides
}

pub(super) fn strides_in(array: &Array, shape: &Dims) -> Dims {
    broadcast_strides(array.shape(), array.strides(), shape)
}

/// Elements that a task computes, at least: some microseconds of work, well above the cost of waking a thread.
const TASK: usize = 32 * 1024;

/// Calls `body(part of the shape, its first row, its part of the output)` for blocks of rows of the
/// first dimension, spread over the threads. Elements do not depend on each other, so neither do bits.
pub(super) fn by_rows<T: Element>(shape: &Dims, out: &mut [T], body: impl Fn(&Dims, usize, &mut [T]) + Sync) {
    let rows = shape.first().copied().unwrap_or(1);
    if out.len() < 2 * TASK || rows < 2 {
        return body(shape, 0, out);
    }
    let width = out.len() / rows;
    let block = TASK.div_ceil(width);
    parallel_chunks([out], block * width, |range, [out]| {
        let mut part = *shape;
        part[0] = out.len() / width;
        body(&part, range.start / width, out);
    });
}

/// The elements from a row of the first dimension on.
pub(super) fn from_row<'a, T>(values: &'a [T], strides: &Dims, row: usize) -> &'a [T] {
    let start = if row == 0 { 0 } else { row * strides[0] };
    &values[start..]
}

pub(super) fn run_unary(op: Unary, x: &Array, out: &Array) -> Result<()> {
    let strides = x.strides();
    if x.dtype() == DType::I64 {
        let op = match op {
            Unary::Neg => kernel::IntUnary::Neg,
            Unary::Abs => kernel::IntUnary::Abs,
            _ => kernel::IntUnary::Sign,
        };
        kernel::unary_int(op, out.shape(), &x.read::<i64>(), strides, &mut out.write::<i64>());
        return Ok(());
    }
    for_float!(unary_name(op), x.dtype(), T => {
        let x: &[T] = &x.read::<T>();
        by_rows(out.shape(), &mut out.write::<T>(), |shape, row, out| {
            kernel::unary(op, shape, from_row(x, strides, row), strides, out);
        });
        Ok(())
    })
}

pub(super) fn run_binary(op: Binary, a: &Array, b: &Array, out: &Array) -> Result<()> {
    let shape = out.shape();
    let (sa, sb) = (strides_in(a, shape), strides_in(b, shape));
    let int = match op {
        Binary::Add => Some(kernel::IntBinary::Add),
        Binary::Sub => Some(kernel::IntBinary::Sub),
        Binary::Mul => Some(kernel::IntBinary::Mul),
        Binary::Maximum => Some(kernel::IntBinary::Maximum),
        Binary::Minimum => Some(kernel::IntBinary::Minimum),
        _ => None,
    };
    match (a.dtype(), int) {
        (DType::I64, Some(op)) => {
            kernel::binary_int(
                op,
                shape,
                &a.read::<i64>(),
                &sa,
                &b.read::<i64>(),
                &sb,
                &mut out.write::<i64>(),
            );
            Ok(())
        }
        (DType::U8, Some(op)) => {
            kernel::binary_int(op, shape, &a.read::<u8>(), &sa, &b.read::<u8>(), &sb, &mut out.write::<u8>());
            Ok(())
        }
        _ => for_float!(binary_name(op), a.dtype(), T => {
            let (a, b): (&[T], &[T]) = (&a.read::<T>(), &b.read::<T>());
            by_rows(shape, &mut out.write::<T>(), |shape, row, out| {
                kernel::binary(op, shape, from_row(a, &sa, row), &sa, from_row(b, &sb, row), &sb, out);
            });
            Ok(())
        }),
    }
}

pub(super) fn unary_saves(op: Unary) -> Saves {
    match op {
        Unary::Exp | Unary::Expm1 | Unary::Sqrt | Unary::Reciprocal | Unary::Relu | Unary::Elu(_) => {
            Saves::OUTPUT
        }
        Unary::Sigmoid | Unary::Tanh => Saves::OUTPUT,
        // With a slope above zero the result's sign is the operand's.
        Unary::LeakyRelu(slope) if slope > 0.0 => Saves::OUTPUT,
        Unary::Neg | Unary::Sign | Unary::AddScalar(_) | Unary::MulScalar(_) | Unary::DivScalar(_) => {
            Saves::NOTHING
        }
        Unary::Floor | Unary::Ceil | Unary::Round => Saves::NOTHING,
        _ => Saves::INPUTS,
    }
}

/// d op(x) / dx, times the upstream gradient g. y is the result.
pub(super) fn vjp_unary(op: Unary, cx: &Vjp) -> Result<Gradients> {
    let g = cx.grad();
    let grad = match op {
        Unary::Neg => g.neg()?,
        Unary::Exp => g.mul(&cx.output())?,
        Unary::Expm1 => g.mul(&cx.output().add_scalar(1.0)?)?,
        Unary::Log => g.div(&cx.input(0))?,
        Unary::Log1p => g.div(&cx.input(0).add_scalar(1.0)?)?,
        // 1 / (2 y)
        Unary::Sqrt => g.div(&cx.output().mul_scalar(2.0)?)?,
        Unary::Square => g.mul(&cx.input(0).mul_scalar(2.0)?)?,
        // -y^2
        Unary::Reciprocal => g.mul(&cx.output().square()?)?.neg()?,
        // sign(x): 0 at 0
        Unary::Abs => g.mul(&cx.input(0).sign()?)?,
        // Flat on both sides of the step: zero by definition.
        Unary::Sign | Unary::Floor | Unary::Ceil | Unary::Round => {
            Tensor::constant(Array::zeros(g.dtype(), *g.shape())?)
        }
        // 2 e^(-x^2) / sqrt(pi)
        Unary::Erf => {
            let bell = cx.input(0).square()?.neg()?.exp()?;
            g.mul(&bell.mul_scalar(std::f64::consts::FRAC_2_SQRT_PI)?)?
        }
        Unary::Sin => g.mul(&cx.input(0).cos()?)?,
        Unary::Cos => g.mul(&cx.input(0).sin()?)?.neg()?,
        // 1 where x > 0: 0 at 0
        Unary::Relu => g.binary(Binary::ReluGrad, &cx.output())?,
        // 1 where x > 0, slope elsewhere
        Unary::LeakyRelu(slope) if slope > 0.0 => g.binary(Binary::LeakyReluGrad(slope), &cx.output())?,
        Unary::LeakyRelu(slope) => g.binary(Binary::LeakyReluGrad(slope), &cx.input(0))?,
        // 1 where x > 0, y + alpha elsewhere
        Unary::Elu(alpha) => g.binary(Binary::EluGrad(alpha), &cx.output())?,
        // y (1 - y)
        Unary::Sigmoid => g.binary(Binary::SigmoidGrad, &cx.output())?,
        // 1 - y^2
        Unary::Tanh => g.binary(Binary::TanhGrad, &cx.output())?,
        // sigmoid(beta x), 1 past the threshold
        Unary::Softplus { beta, threshold } => {
            g.binary(Binary::SoftplusGrad { beta, threshold }, &cx.input(0))?
        }
        // e x^(e-1); for e = 0 the derivative is 0 even at 0
        Unary::PowScalar(0.0) => g.mul_scalar(0.0)?,
        Unary::PowScalar(e) => g.mul(&cx.input(0).pow_scalar(e - 1.0)?.mul_scalar(e)?)?,
        // 1 inside the bounds, bounds included
        Unary::Clamp { min, max } => g.binary(Binary::ClampGrad { min, max }, &cx.input(0))?,
        Unary::AddScalar(_) => g.clone(),
        Unary::MulScalar(c) => g.mul_scalar(c)?,
        Unary::DivScalar(c) => g.div_scalar(c)?,
        Unary::Curve(curve) => g.binary(Binary::CurveGrad(curve), &cx.input(0))?,
    };
    Ok(smallvec![Some(grad)])
}

pub(super) fn binary_saves(op: Binary) -> Saves {
    match op {
        Binary::Add | Binary::Sub => Saves::NOTHING,
        // Linear in g: the second derivative needs the mask only.
        Binary::ReluGrad | Binary::LeakyReluGrad(_) | Binary::ClampGrad { .. } => Saves::one(1),
        Binary::Heaviside => Saves::one(0),
        Binary::Div => Saves { inputs: 0b10, output: true },
        Binary::Pow => Saves::ALL,
        _ => Saves::INPUTS,
    }
}

/// Gradients of both operands, summed back to their shapes.
pub(super) fn vjp_binary(op: Binary, cx: &Vjp) -> Result<Gradients> {
    (0..2)
        .map(|i| match cx.needs(i).then(|| partial(op, i, cx)).transpose()?.flatten() {
            Some(grad) => grad.sum_to(cx.shape(i)).map(Some),
            None => Ok(None),
        })
        .collect()
}

/// What the tangent of operand `i`, in place of the gradient, adds to the tangent of the result.
pub(super) fn jvp_binary(op: Binary, i: usize, cx: &Vjp) -> Result<Option<Tensor>> {
    let tangent = cx.grad().broadcast_to(cx.result_shape())?;
    partial(op, i, &Vjp { grad: &tangent, ..*cx })
}

/// d op(a, b) / d operand `i`, element by element, times g of the result's shape. `None`: has no gradient.
fn partial(op: Binary, i: usize, cx: &Vjp) -> Result<Option<Tensor>> {
    let g = cx.grad();
    let (a, b) = (|| cx.input(0), || cx.input(1));
    let zero = || Tensor::scalar(g.dtype(), 0.0);
    let grad = match (op, i) {
        (Binary::Add, _) | (Binary::Sub, 0) => g.clone(),
        (Binary::Sub, _) => g.neg()?,
        (Binary::Mul, 0) => g.mul(&b())?,
        (Binary::Mul, _) => g.mul(&a())?,
        // 1 / b and -y / b
        (Binary::Div, 0) => g.div(&b())?,
        (Binary::Div, _) => g.mul(&cx.output())?.div(&b())?.neg()?,
        // b a^(b-1), 0 where b = 0; y log a, 0 where a = 0 and b >= 0
        (Binary::Pow, 0) => {
            let zero = zero()?;
            let slope = b().mul(&a().pow(&b().add_scalar(-1.0)?)?)?;
            g.mul(&b().compare(Compare::Eq, &zero)?.select(&zero, &slope)?)?
        }
        (Binary::Pow, _) => {
            let zero = zero()?;
            let slope = cx.output().mul(&a().log()?)?;
            let flat = a().compare(Compare::Eq, &zero)?.and(&b().compare(Compare::Ge, &zero)?)?;
            g.mul(&flat.select(&zero, &slope)?)?
        }
        // To the winner; at a tie half to each, as PyTorch
        (Binary::Maximum | Binary::Minimum, _) => {
            let (wins, loses) = if (op == Binary::Maximum) == (i == 0) {
                (Compare::Gt, Compare::Lt)
            } else {
                (Compare::Lt, Compare::Gt)
            };
            let kept = a().compare(wins, &b())?.select(g, &g.mul_scalar(0.5)?)?;
            a().compare(loses, &b())?.select(&zero()?, &kept)?
        }
        // Flat on both sides of the step: zero by definition. The value at 0 is the second operand.
        (Binary::Heaviside, 0) => Tensor::constant(Array::zeros(g.dtype(), *g.shape())?),
        (Binary::Heaviside, _) => a().compare(Compare::Eq, &zero()?)?.select(g, &zero()?)?,
        // Gradients of activations, f(g, s): linear in g, so df/dg is f(u, s) for the upstream u.
        (
            Binary::ReluGrad
            | Binary::LeakyReluGrad(_)
            | Binary::ClampGrad { .. }
            | Binary::EluGrad(_)
            | Binary::SigmoidGrad
            | Binary::TanhGrad
            | Binary::SoftplusGrad { .. },
            0,
        ) => g.binary(op, &b())?,
        (Binary::ReluGrad | Binary::LeakyReluGrad(_) | Binary::ClampGrad { .. }, _) => return Ok(None),
        // g where y <= 0
        (Binary::EluGrad(_), _) => {
            let zero = zero()?;
            b().compare(Compare::Gt, &zero)?.select(&zero, &g.mul(&a())?)?
        }
        // g (1 - 2 y)
        (Binary::SigmoidGrad, _) => g.mul(&a())?.mul(&b().mul_scalar(-2.0)?.add_scalar(1.0)?)?,
        // -2 g y
        (Binary::TanhGrad, _) => g.mul(&a())?.mul(&b().mul_scalar(-2.0)?)?,
        // g beta s (1 - s) with s = sigmoid(beta x), 0 past the threshold
        (Binary::SoftplusGrad { beta, threshold }, _) => {
            let scaled = b().mul_scalar(beta)?;
            let slope = g.mul(&a())?.mul_scalar(beta)?.binary(Binary::SigmoidGrad, &scaled.sigmoid()?)?;
            let past = scaled.compare(Compare::Gt, &Tensor::scalar(g.dtype(), threshold)?)?;
            past.select(&zero()?, &slope)?
        }
        (Binary::CurveGrad(curve), 0) => activation::partial_by_g(curve, g, b)?,
        (Binary::CurveGrad(curve), _) => activation::partial_by_x(curve, g, a, b)?,
    };
    Ok(Some(grad))
}

macro_rules! unary_methods {
    ($($(#[$doc:meta])* $name:ident => $op:expr),* $(,)?) => {
        $($(#[$doc])*
        ///
        /// # Errors
        /// `DType` when the tensor is not floating point.
        pub fn $name(&self) -> Result<Tensor> {
            self.unary($op)
        })*
    };
}

impl Tensor {
    /// A unary op. Integers become the default float dtype where the op needs one, as in PyTorch.
    ///
    /// # Errors
    /// `DType`.
    pub fn unary(&self, op: Unary) -> Result<Tensor> {
        let stays = self.dtype().is_float()
            || self.dtype() == DType::I64 && matches!(op, Unary::Neg | Unary::Abs | Unary::Sign);
        if stays {
            Tensor::apply(Op::Unary(op), &[self])
        } else {
            Tensor::apply(Op::Unary(op), &[&self.cast(DType::F32)?])
        }
    }

    unary_methods! {
        /// -x; derivative -1.
        neg => Unary::Neg,
        /// e^x; derivative e^x.
        exp => Unary::Exp,
        /// e^x - 1, exact near 0; derivative e^x.
        expm1 => Unary::Expm1,
        /// Natural logarithm; derivative 1/x.
        log => Unary::Log,
        /// log(1 + x), exact near 0; derivative 1/(1 + x).
        log1p => Unary::Log1p,
        /// Square root; derivative 1/(2 sqrt x).
        sqrt => Unary::Sqrt,
        /// x^2; derivative 2x.
        square => Unary::Square,
        /// 1/x; derivative -1/x^2.
        reciprocal => Unary::Reciprocal,
        /// |x|; derivative sign(x), 0 at 0.
        abs => Unary::Abs,
        /// -1, 0 or 1; derivative 0.
        sign => Unary::Sign,
        /// Error function 2/sqrt(pi) times the integral of e^(-t^2) from 0 to x; derivative 2/sqrt(pi) e^(-x^2).
        erf => Unary::Erf,
        /// Sine; derivative cos x.
        sin => Unary::Sin,
        /// Cosine; derivative -sin x.
        cos => Unary::Cos,
        /// max(0, x); derivative 1 where x > 0, 0 at 0.
        relu => Unary::Relu,
        /// 1/(1 + e^-x); derivative s(1 - s).
        sigmoid => Unary::Sigmoid,
        /// Hyperbolic tangent; derivative 1 - tanh^2.
        tanh => Unary::Tanh,
    }

    /// The next integer below or above, or the nearest one; derivative 0. Integers are themselves.
    ///
    /// # Errors
    /// `Memory`.
    pub fn rounded(&self, op: Unary) -> Result<Tensor> {
        debug_assert!(matches!(op, Unary::Floor | Unary::Ceil | Unary::Round));
        if self.dtype().is_float() { self.unary(op) } else { Ok(self.clone()) }
    }

    /// 0 below 0, 1 above, `values` at 0; the derivative is 0, and 1 for `values` at 0.
    ///
    /// # Errors
    /// `Broadcast`.
    pub fn heaviside(&self, values: &Tensor) -> Result<Tensor> {
        self.binary(Binary::Heaviside, values)
    }

    /// x^e; derivative e x^(e-1).
    ///
    /// # Errors
    /// `DType`.
    pub fn pow_scalar(&self, exponent: f64) -> Result<Tensor> {
        match exponent {
            1.0 => self.mul_scalar(1.0),
            2.0 => self.square(),
            _ => self.unary(Unary::PowScalar(exponent)),
        }
    }

    /// x + c.
    ///
    /// # Errors
    /// `DType`.
    pub fn add_scalar(&self, c: f64) -> Result<Tensor> {
        self.unary(Unary::AddScalar(c))
    }

    /// x c.
    ///
    /// # Errors
    /// `DType`.
    pub fn mul_scalar(&self, c: f64) -> Result<Tensor> {
        self.unary(Unary::MulScalar(c))
    }

    /// x / c.
    ///
    /// # Errors
    /// `DType`.
    pub fn div_scalar(&self, c: f64) -> Result<Tensor> {
        self.unary(Unary::DivScalar(c))
    }

    /// Both operands in the promoted dtype.
    fn promoted(&self, other: &Tensor, needs_float: bool) -> Result<(Tensor, Tensor)> {
        let dtype =
            DType::promote(self.dtype(), self.shape().rank() == 0, other.dtype(), other.shape().rank() == 0);
        let dtype = match dtype {
            DType::Bool | DType::U8 | DType::I64 if needs_float => DType::F32,
            // Sums and products of truth values count.
            DType::Bool => DType::I64,
            dtype => dtype,
        };
        Ok((self.cast(dtype)?, other.cast(dtype)?))
    }

    /// A binary op on promoted operands.
    ///
    /// # Errors
    /// `Broadcast` or `DType`.
    pub fn binary(&self, op: Binary, other: &Tensor) -> Result<Tensor> {
        if self.dtype() == other.dtype() && self.dtype().is_float() {
            return Tensor::apply(Op::Binary(op), &[self, other]);
        }
        let needs_float =
            !matches!(op, Binary::Add | Binary::Sub | Binary::Mul | Binary::Maximum | Binary::Minimum);
        let (a, b) = self.promoted(other, needs_float)?;
        Tensor::apply(Op::Binary(op), &[&a, &b])
    }

    /// a + b.
    ///
    /// # Errors
    /// `Broadcast`.
    pub fn add(&self, other: &Tensor) -> Result<Tensor> {
        self.binary(Binary::Add, other)
    }

    /// a - b.
    ///
    /// # Errors
    /// `Broadcast`.
    pub fn sub(&self, other: &Tensor) -> Result<Tensor> {
        self.binary(Binary::Sub, other)
    }

    /// a b.
    ///
    /// # Errors
    /// `Broadcast`.
    pub fn mul(&self, other: &Tensor) -> Result<Tensor> {
        self.binary(Binary::Mul, other)
    }

    /// a / b, always floating point.
    ///
    /// # Errors
    /// `Broadcast`.
    pub fn div(&self, other: &Tensor) -> Result<Tensor> {
        self.binary(Binary::Div, other)
    }

    /// a^b.
    ///
    /// # Errors
    /// `Broadcast`.
    pub fn pow(&self, other: &Tensor) -> Result<Tensor> {
        self.binary(Binary::Pow, other)
    }
}
