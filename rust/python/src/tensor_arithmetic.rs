//! Elementwise methods and operators of `Tensor`.

use ferrograd_core::dtype::DType;
use ferrograd_core::op::{Binary, Compare, Unary};
use ferrograd_core::tensor::Tensor;
use pyo3::prelude::*;

use crate::argument;
use crate::error::{Failure, Kind, Result, enter, enter_detached, raise};
use crate::operand::{self, Operand};
use crate::tensor::PyTensor;

/// Elements from which an op lets other Python threads run: below, handing the lock over costs more.
const DETACH_FROM: usize = 1 << 15;

/// An op on two tensors, with the interpreter lock released where it takes long.
pub fn long<T: Send>(
    py: Python<'_>,
    elements: usize,
    body: impl FnOnce() -> ferrograd_core::error::Result<T> + Send,
) -> Result<T> {
    if elements >= DETACH_FROM { enter_detached(py, body) } else { Ok(body()?) }
}

/// `x op other`, with a Python number in the dtype of `x`.
pub fn binary(py: Python<'_>, op: Binary, x: &Tensor, other: Operand) -> Result<Tensor> {
    if x.dtype().is_float()
        && let Some(c) = other.number()
    {
        // One operand fewer to allocate and to record than with a tensor of rank 0.
        match op {
            Binary::Add => return Ok(x.add_scalar(c)?),
            Binary::Sub => return Ok(x.add_scalar(-c)?),
            Binary::Mul => return Ok(x.mul_scalar(c)?),
            Binary::Div => return Ok(x.div_scalar(c)?),
            Binary::Pow => return Ok(x.pow_scalar(c)?),
            _ => {}
        }
    }
    let is_power = op == Binary::Pow && !x.dtype().is_float();
    let is_whole_number = matches!(other, Operand::Int(0..));
    let other = other.beside(x.dtype())?;
    if is_power && !other.dtype().is_float() {
        // Integers stay integers, as in PyTorch; float64 is exact for results below 2^53.
        if !is_whole_number && other.cast(DType::I64)?.to_vec::<i64>().iter().any(|&e| e < 0) {
            return Err(
                raise(Kind::Config, "pow: integers to negative integer powers are not integers").into()
            );
        }
        return Ok(x.cast(DType::F64)?.pow(&other.cast(DType::F64)?)?.cast(DType::I64)?);
    }
    long(py, x.shape().elements().max(other.shape().elements()), || x.binary(op, &other))
}

/// `other op x`.
fn reflected(py: Python<'_>, op: Binary, x: &Tensor, other: Operand) -> Result<Tensor> {
    match (op, other.number()) {
        (Binary::Add | Binary::Mul, _) => binary(py, op, x, other),
        // -x + c has the bits of c - x.
        (Binary::Sub, Some(c)) if x.dtype().is_float() => Ok(x.neg()?.add_scalar(c)?),
        _ => {
            let left = other.beside(x.dtype())?;
            binary(py, op, &left, Operand::Tensor(x.clone()))
        }
    }
}

/// A comparison with a tensor or number.
pub fn compare(op: Compare, x: &Tensor, other: Operand) -> Result<Tensor> {
    let other = other.beside(x.dtype())?;
    Ok(x.compare(op, &other)?)
}

/// An operator: what cannot be an operand is left to the other class.
#[inline]
fn operator(
    other: &Bound<'_, PyAny>,
    body: impl FnOnce(Python<'_>, Operand) -> Result<Tensor>,
) -> Result<Py<PyAny>> {
    enter(|| {
        let py = other.py();
        Ok(match Operand::of_operator("other", other)? {
            Some(operand) => Py::new(py, PyTensor::from(body(py, operand)?))?.into_any(),
            None => py.NotImplemented(),
        })
    })
}

// Written out: pyo3's slots do not accept method names from a macro.
#[pymethods]
impl PyTensor {
    fn __add__(&self, other: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
        operator(other, |py, other| binary(py, Binary::Add, self.live()?, other))
    }

    fn __radd__(&self, other: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
        operator(other, |py, other| reflected(py, Binary::Add, self.live()?, other))
    }

    fn __sub__(&self, other: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
        operator(other, |py, other| binary(py, Binary::Sub, self.live()?, other))
    }

    fn __rsub__(&self, other: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
        operator(other, |py, other| reflected(py, Binary::Sub, self.live()?, other))
    }

    fn __mul__(&self, other: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
        operator(other, |py, other| binary(py, Binary::Mul, self.live()?, other))
    }

    fn __rmul__(&self, other: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
        operator(other, |py, other| reflected(py, Binary::Mul, self.live()?, other))
    }

    fn __truediv__(&self, other: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
        operator(other, |py, other| binary(py, Binary::Div, self.live()?, other))
    }

    fn __rtruediv__(&self, other: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
        operator(other, |py, other| reflected(py, Binary::Div, self.live()?, other))
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
        operator(other, |_, other| compare(Compare::Eq, self.live()?, other))
    }

    fn __ne__(&self, other: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
        operator(other, |_, other| compare(Compare::Ne, self.live()?, other))
    }

    fn __lt__(&self, other: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
        operator(other, |_, other| compare(Compare::Lt, self.live()?, other))
    }

    fn __le__(&self, other: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
        operator(other, |_, other| compare(Compare::Le, self.live()?, other))
    }

    fn __gt__(&self, other: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
        operator(other, |_, other| compare(Compare::Gt, self.live()?, other))
    }

    fn __ge__(&self, other: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
        operator(other, |_, other| compare(Compare::Ge, self.live()?, other))
    }
}

macro_rules! comparisons {
    ($($(#[$doc:meta])* $name:ident => $op:ident),* $(,)?) => {
        #[pymethods]
        impl PyTensor {
            $(
                $(#[$doc])*
                ///
                /// A bool tensor without gradient. Raises ShapeError where shapes do not broadcast.
                fn $name(&self, other: &Bound<'_, PyAny>) -> Result<PyTensor> {
                    enter(|| Ok(compare(Compare::$op, self.live()?, Operand::of("other", other)?)?.into()))
                }
            )*
        }
    };
}
comparisons! {
    /// Elementwise x == other.
    eq => Eq,
    /// Elementwise x != other.
    ne => Ne,
    /// Elementwise x < other.
    lt => Lt,
    /// Elementwise x <= other.
    le => Le,
    /// Elementwise x > other.
    gt => Gt,
    /// Elementwise x >= other.
    ge => Ge,
}

macro_rules! binary_methods {
    ($($(#[$doc:meta])* $name:ident => $op:ident),* $(,)?) => {
        #[pymethods]
        impl PyTensor {
            $(
                $(#[$doc])*
                ///
                /// Shapes broadcast; raises ShapeError where they do not.
                fn $name(&self, other: &Bound<'_, PyAny>) -> Result<PyTensor> {
                    enter(|| Ok(binary(other.py(), Binary::$op, self.live()?, Operand::of("other", other)?)?.into()))
                }
            )*
        }
    };
}
binary_methods! {
    /// a + b; derivatives 1 and 1.
    add => Add,
    /// a - b; derivatives 1 and -1.
    sub => Sub,
    /// a b; derivatives b and a.
    mul => Mul,
    /// a / b, always floating point; derivatives 1/b and -a/b^2.
    div => Div,
    /// The larger of a and b; the derivative is 1 for the winner, 1/2 each at a tie. NaN wins.
    maximum => Maximum,
    /// The smaller of a and b; the derivative is 1 for the winner, 1/2 each at a tie. NaN wins.
    minimum => Minimum,
}

macro_rules! unary_methods {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        #[pymethods]
        impl PyTensor {
            $(
                $(#[$doc])*
                fn $name(&self, py: Python<'_>) -> Result<PyTensor> {
                    enter(|| {
                        let x = self.live()?;
                        Ok(long(py, x.shape().elements(), || x.$name())?.into())
                    })
                }
            )*
        }
    };
}
unary_methods! {
    /// -x; derivative -1.
    neg,
    /// e^x; derivative e^x.
    exp,
    /// e^x - 1, exact near 0; derivative e^x.
    expm1,
    /// Natural logarithm; derivative 1/x. NaN below 0, -inf at 0.
    log,
    /// log(1 + x), exact near 0; derivative 1/(1 + x).
    log1p,
    /// Square root; derivative 1/(2 sqrt x). NaN below 0.
    sqrt,
    /// x^2; derivative 2x.
    square,
    /// 1/x; derivative -1/x^2.
    reciprocal,
    /// |x|; derivative sign(x), 0 at 0.
    abs,
    /// -1, 0 or 1; derivative 0.
    sign,
    /// Error function, 2/sqrt(pi) times the integral of e^(-t^2) from 0 to x; derivative 2/sqrt(pi) e^(-x^2).
    erf,
    /// Sine of x in radians; derivative cos x.
    sin,
    /// Cosine of x in radians; derivative -sin x.
    cos,
    /// max(0, x); derivative 1 where x > 0, 0 at 0.
    relu,
    /// s = 1/(1 + e^-x); derivative s (1 - s).
    sigmoid,
    /// Hyperbolic tangent t; derivative 1 - t^2.
    tanh,
}

#[pymethods]
impl PyTensor {
    /// x^exponent; derivative exponent x^(exponent - 1), and x^exponent log x for a tensor exponent.
    fn pow(&self, exponent: &Bound<'_, PyAny>) -> Result<PyTensor> {
        enter(|| {
            Ok(binary(exponent.py(), Binary::Pow, self.live()?, Operand::of("exponent", exponent)?)?.into())
        })
    }

    fn __pow__(&self, other: &Bound<'_, PyAny>, modulo: Option<&Bound<'_, PyAny>>) -> Result<Py<PyAny>> {
        match modulo {
            None => operator(other, |py, other| binary(py, Binary::Pow, self.live()?, other)),
            Some(_) => Ok(other.py().NotImplemented()),
        }
    }

    fn __rpow__(&self, other: &Bound<'_, PyAny>, modulo: Option<&Bound<'_, PyAny>>) -> Result<Py<PyAny>> {
        match modulo {
            None => operator(other, |py, other| reflected(py, Binary::Pow, self.live()?, other)),
            Some(_) => Ok(other.py().NotImplemented()),
        }
    }

    fn __neg__(&self, py: Python<'_>) -> Result<PyTensor> {
        self.neg(py)
    }

    fn __abs__(&self, py: Python<'_>) -> Result<PyTensor> {
        self.abs(py)
    }

    fn __invert__(&self) -> Result<PyTensor> {
        enter(|| match self.live()? {
            x if x.dtype() == DType::Bool => not(x),
            x if x.dtype() == DType::I64 => Ok(x.neg()?.sub(&Operand::Int(1).beside(DType::I64)?)?.into()),
            x => Err(wrong_dtype("invert", "bool or int64", x.dtype())),
        })
    }

    fn __and__(&self, other: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
        operator(other, |_, other| {
            let (a, b) = masks("and", self.live()?, other)?;
            Ok(a.select(&b, &Operand::Bool(false).beside(DType::Bool)?)?)
        })
    }

    fn __or__(&self, other: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
        operator(other, |_, other| {
            let (a, b) = masks("or", self.live()?, other)?;
            Ok(a.select(&Operand::Bool(true).beside(DType::Bool)?, &b)?)
        })
    }

    fn __xor__(&self, other: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
        operator(other, |_, other| {
            let (a, b) = masks("xor", self.live()?, other)?;
            Ok(a.compare(Compare::Ne, &b)?)
        })
    }

    fn __rand__(&self, other: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
        self.__and__(other)
    }

    fn __ror__(&self, other: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
        self.__or__(other)
    }

    fn __rxor__(&self, other: &Bound<'_, PyAny>) -> Result<Py<PyAny>> {
        self.__xor__(other)
    }

    /// Whether each element is 0 or false, as bool.
    fn logical_not(&self) -> Result<PyTensor> {
        enter(|| not(self.live()?))
    }

    /// x held within [min, max]; derivative 1 inside and at the bounds, 0 outside.
    ///
    /// Raises ConfigError where both bounds are missing.
    #[pyo3(signature = (min = None, max = None))]
    fn clamp(
        &self,
        py: Python<'_>,
        min: Option<&Bound<'_, PyAny>>,
        max: Option<&Bound<'_, PyAny>>,
    ) -> Result<PyTensor> {
        enter(|| {
            let x = self.live()?;
            if min.is_none() && max.is_none() {
                return Err(raise(Kind::Config, "clamp: expected min or max, got neither").into());
            }
            let bounds = [
                min.map(|min| Operand::of("min", min)).transpose()?,
                max.map(|max| Operand::of("max", max)).transpose()?,
            ];
            let is_number = bounds.iter().flatten().all(|bound| bound.number().is_some());
            let [min, max] = bounds;
            if x.dtype().is_float() && is_number {
                let min = min.and_then(|b| b.number()).unwrap_or(f64::NEG_INFINITY);
                let max = max.and_then(|b| b.number()).unwrap_or(f64::INFINITY);
                return Ok(long(py, x.shape().elements(), || x.unary(Unary::Clamp { min, max }))?.into());
            }
            let mut held = x.clone();
            if let Some(min) = min {
                held = binary(py, Binary::Maximum, &held, min)?;
            }
            if let Some(max) = max {
                held = binary(py, Binary::Minimum, &held, max)?;
            }
            Ok(held.into())
        })
    }

    /// x where the condition holds, else other; the gradient goes where the value came from.
    #[pyo3(name = "where")]
    fn py_where(&self, condition: &Bound<'_, PyAny>, other: &Bound<'_, PyAny>) -> Result<PyTensor> {
        enter(|| {
            let condition = operand::tensor("condition", condition)?;
            Ok(select(&condition, Operand::Tensor(self.live()?.clone()), Operand::of("other", other)?)?
                .into())
        })
    }

    /// x where x > 0, else negative_slope x.
    #[pyo3(signature = (negative_slope = 0.01))]
    fn leaky_relu(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::negative_slope)] negative_slope: f64,
    ) -> Result<PyTensor> {
        enter(|| {
            let x = self.live()?;
            Ok(long(py, x.shape().elements(), || x.unary(Unary::LeakyRelu(negative_slope)))?.into())
        })
    }

    /// x where x > 0, else alpha (e^x - 1).
    #[pyo3(signature = (alpha = 1.0))]
    fn elu(&self, py: Python<'_>, #[pyo3(from_py_with = argument::alpha)] alpha: f64) -> Result<PyTensor> {
        enter(|| {
            let x = self.live()?;
            Ok(long(py, x.shape().elements(), || x.unary(Unary::Elu(alpha)))?.into())
        })
    }

    /// log(1 + e^(beta x)) / beta, and x itself where beta x > threshold; derivative sigmoid(beta x).
    #[pyo3(signature = (beta = 1.0, threshold = 20.0))]
    fn softplus(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::beta)] beta: f64,
        #[pyo3(from_py_with = argument::threshold)] threshold: f64,
    ) -> Result<PyTensor> {
        enter(|| {
            let x = self.live()?;
            let op = Unary::Softplus { beta, threshold };
            Ok(long(py, x.shape().elements(), || x.unary(op))?.into())
        })
    }
}

fn wrong_dtype(op: &str, expected: &str, got: DType) -> Failure {
    raise(Kind::DType, format!("{op}: expected {expected}, got {got}")).into()
}

fn masks(op: &str, a: &Tensor, b: Operand) -> Result<(Tensor, Tensor)> {
    let b = b.beside(a.dtype())?;
    let odd = [a.dtype(), b.dtype()].into_iter().find(|&dtype| dtype != DType::Bool);
    match odd {
        Some(odd) => Err(wrong_dtype(op, "bool tensors", odd)),
        None => Ok((a.clone(), b)),
    }
}

fn not(x: &Tensor) -> Result<PyTensor> {
    Ok(compare(Compare::Eq, x, Operand::Int(0))?.into())
}

/// `condition ? a : b`; a number takes the dtype of the tensor on the other side.
pub fn select(condition: &Tensor, a: Operand, b: Operand) -> Result<Tensor> {
    let dtype = [&a, &b].into_iter().find_map(|side| match side {
        Operand::Tensor(tensor) => Some(tensor.dtype()),
        _ => None,
    });
    // Two numbers: float32 unless both are whole.
    let whole = [&a, &b].iter().all(|side| matches!(side, Operand::Int(_) | Operand::Bool(_)));
    let dtype = dtype.unwrap_or(if whole { DType::I64 } else { DType::F32 });
    Ok(condition.select(&a.beside(dtype)?, &b.beside(dtype)?)?)
}
