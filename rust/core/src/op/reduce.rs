//! Reductions over axes, softmax, and what is composed of them: mean, variance, log-sum-exp.

use ferrograd_kernels::reduce as kernel;
use ferrograd_kernels::reduce::Reduction;
use smallvec::smallvec;

use super::select::Compare;
use super::{Gradients, Meta, Op, Saves};
use crate::backward::Vjp;
use crate::buffer::Array;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::Dims;
use crate::tensor::Tensor;
use crate::{for_any, for_float};

/// A set of axes, a bit each.
pub type Axes = u8;

/// What a reduction computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sum.
    Sum,
    /// Largest.
    Max,
    /// Smallest.
    Min,
    /// log sum exp.
    LogSumExp,
    /// Index of the largest.
    ArgMax,
    /// Index of the smallest.
    ArgMin,
    /// Whether any is true.
    Any,
    /// Whether all are true.
    All,
}

/// A reduction with its axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reduce {
    /// What is computed.
    pub kind: Kind,
    /// Over which axes.
    pub axes: Axes,
    /// Whether they stay, as 1.
    pub keepdim: bool,
}

impl Reduce {
    pub(super) fn name(self) -> &'static str {
        match self.kind {
            Kind::Sum => "sum",
            Kind::Max => "amax",
            Kind::Min => "amin",
            Kind::LogSumExp => "logsumexp",
            Kind::ArgMax => "argmax",
            Kind::ArgMin => "argmin",
            Kind::Any => "any",
            Kind::All => "all",
        }
    }

    pub(super) fn infer(self, input: Meta) -> Result<Meta> {
        let shape = &input.shape;
        for i in 0..shape.rank() {
            let is_empty = self.axes >> i & 1 == 1 && shape[i] == 0;
            if is_empty && !matches!(self.kind, Kind::Sum | Kind::Any | Kind::All) {
                return Err(Error::Shape {
                    op: self.name(),
                    expected: "at least one element to reduce".into(),
                    got: format!("shape {}", input.shape),
                });
            }
        }
        let dtype = match (self.kind, input.dtype) {
            (Kind::Sum, DType::U8 | DType::Bool) | (Kind::ArgMax | Kind::ArgMin, _) => DType::I64,
            (Kind::Any | Kind::All, _) => DType::Bool,
            (_, dtype) => dtype,
        };
        Ok(Meta { dtype, shape: left(shape, self.axes, self.keepdim) })
    }

    pub(super) fn run(self, x: &Array, out: &Array) -> Result<()> {
        let form = Form::of(x, self.axes)?;
        match self.kind {
            Kind::Sum => match x.dtype() {
                DType::I64 => {
                    let x = form.rows_last()?;
                    kernel::sum_rows_i64(
                        form.outer * form.cols,
                        form.rows,
                        &x.read::<i64>(),
                        &mut out.write::<i64>(),
                    );
                    Ok(())
                }
                _ => for_float!("sum", x.dtype(), T => form.fold::<T>(Reduction::Sum, out)),
            },
            Kind::Max | Kind::Min if x.dtype() == DType::I64 => {
                let x = form.rows_last()?;
                let (x, mut out) = (x.read::<i64>(), out.write::<i64>());
                let mut at = vec![0; out.len()];
                kernel::arg_rows(self.kind == Kind::Max, out.len(), form.rows, &x, &mut at);
                for (row, (out, at)) in out.iter_mut().zip(at).enumerate() {
                    *out = x[row * form.rows + at as usize];
                }
                Ok(())
            }
            Kind::Max => for_float!("amax", x.dtype(), T => form.fold::<T>(Reduction::Max, out)),
            Kind::Min => for_float!("amin", x.dtype(), T => form.fold::<T>(Reduction::Min, out)),
            Kind::LogSumExp => for_float!("logsumexp", x.dtype(), T => {
                let x = form.rows_last()?;
                kernel::logsumexp_rows(form.outer * form.cols, form.rows, &x.read::<T>(), &mut out.write::<T>());
                Ok(())
            }),
            Kind::ArgMax | Kind::ArgMin => {
                let x = form.rows_last()?;
                for_any!(x.dtype(), T => kernel::arg_rows(
                    self.kind == Kind::ArgMax,
                    form.outer * form.cols,
                    form.rows,
                    &x.read::<T>(),
                    &mut out.write::<i64>(),
                ));
                Ok(())
            }
            Kind::Any | Kind::All => {
                let x = form.rows_last()?;
                let f = if self.kind == Kind::Any { kernel::any_rows } else { kernel::all_rows };
                f(form.outer * form.cols, form.rows, &x.read::<u8>(), &mut out.write::<u8>());
                Ok(())
            }
        }
    }

    pub(super) fn saves(self) -> Saves {
        match self.kind {
            Kind::Sum => Saves::NOTHING,
            _ => Saves::ALL,
        }
    }

    /// The tangents in place of the gradient, weighed as the gradient is shared and summed.
    pub(super) fn jvp(self, cx: &Vjp) -> Result<Option<Tensor>> {
        let sum = |x: &Tensor| Tensor::apply(Op::Reduce(Reduce { kind: Kind::Sum, ..self }), &[x]);
        let t = cx.grad();
        let tangent = match self.kind {
            Kind::Sum => sum(t)?,
            Kind::Max | Kind::Min | Kind::LogSumExp => {
                let kept = left(cx.shape(0), self.axes, true);
                let ones =
                    Tensor::constant(Array::full(t.dtype(), *cx.result_shape(), 1.0)?).reshape(&kept)?;
                sum(&t.mul(&self.weights(cx, &ones)?)?)?
            }
            Kind::ArgMax | Kind::ArgMin | Kind::Any | Kind::All => return Ok(None),
        };
        Ok(Some(tangent))
    }

    /// A maximum's, minimum's or logsumexp's derivatives times g, which has 1 for the reduced axes.
    fn weights(self, cx: &Vjp, g: &Tensor) -> Result<Tensor> {
        let (x, y) = (cx.input(0), cx.output().reshape(&left(cx.shape(0), self.axes, true))?);
        match self.kind {
            // softmax(x)
            Kind::LogSumExp => g.mul(&x.sub(&y)?.exp()?),
            // Shared by the winners, as PyTorch's amax
            _ => {
                let winners = x.compare(Compare::Eq, &y)?.cast(g.dtype())?;
                winners.mul(&g.div(&winners.sum_axes(self.axes)?)?)
            }
        }
    }

    pub(super) fn vjp(self, cx: &Vjp) -> Result<Gradients> {
        // As if the axes had stayed, so that operand and result broadcast.
        let g = &cx.grad().reshape(&left(cx.shape(0), self.axes, true))?;
        let grad = match self.kind {
            Kind::Sum => g.broadcast_to(cx.shape(0))?,
            Kind::Max | Kind::Min | Kind::LogSumExp => self.weights(cx, g)?,
            Kind::ArgMax | Kind::ArgMin | Kind::Any | Kind::All => return Ok(smallvec![None]),
        };
        Ok(smallvec![Some(grad)])
    }
}

/// The shape after a reduction.
fn left(shape: &Dims, axes: Axes, keepdim: bool) -> Dims {
    let is_reduced = |i: &usize| axes >> i & 1 == 1;
    (0..shape.rank())
        .filter(|i| keepdim || !is_reduced(i))
        .map(|i| if is_reduced(&i) { 1 } else { shape[i] })
        .collect()
}

/// A reduction seen as (outer, rows, cols) -> (outer, cols). Which form a shape takes depends on the
/// shape and the axes alone, so the order of the additions does too.
struct Form {
    array: Array,
    outer: usize,
    rows: usize,
    cols: usize,
}

impl Form {
    fn of(x: &Array, axes: Axes) -> Result<Form> {
        let shape = x.shape();
        let reduced = |i: usize| axes >> i & 1 == 1;
        let counts = |i: &usize| shape[*i] != 1;
        // Axes of size 1 change neither the order nor the result.
        let first = (0..shape.rank()).filter(counts).find(|&i| reduced(i));
        let last = (0..shape.rank()).filter(counts).rfind(|&i| reduced(i));
        let (Some(first), Some(last)) = (first, last) else {
            let array = contiguous(x)?;
            return Ok(Form { array, outer: shape.elements(), rows: 1, cols: 1 });
        };
        if (first..=last).filter(counts).all(reduced) {
            let product = |range: std::ops::Range<usize>| shape[range].iter().product();
            return Ok(Form {
                array: contiguous(x)?,
                outer: product(0..first),
                rows: product(first..last + 1),
                cols: product(last + 1..shape.rank()),
            });
        }
        let order: Dims = (0..shape.rank())
            .filter(|&i| !reduced(i))
            .chain((0..shape.rank()).filter(|&i| reduced(i)))
            .collect();
        let moved = super::shape::permute_view(x, &order);
        let rows = (0..shape.rank()).filter(|&i| reduced(i)).map(|i| shape[i]).product::<usize>();
        let outer = (0..shape.rank()).filter(|&i| !reduced(i)).map(|i| shape[i]).product();
        Ok(Form { array: contiguous(&moved)?, outer, rows, cols: 1 })
    }

    fn fold<T: ferrograd_kernels::math::Math + crate::dtype::Element>(
        &self,
        op: Reduction,
        out: &Array,
    ) -> Result<()> {
        let (x, mut out) = (self.array.read::<T>(), out.write::<T>());
        if self.rows == 1 {
            // Every element by itself: side by side, not as a row each.
            kernel::reduce_columns(op, 1, 1, self.outer * self.cols, &x, &mut out);
        } else if self.cols == 1 {
            kernel::reduce_rows(op, self.outer, self.rows, &x, &mut out);
        } else {
            kernel::reduce_columns(op, self.outer, self.rows, self.cols, &x, &mut out);
        }
        Ok(())
    }

    /// (outer, cols, rows), for kernels that know rows only.
    fn rows_last(&self) -> Result<Array> {
        if self.cols == 1 {
            return Ok(self.array.clone());
        }
        let shape = Dims::from_slice(&[self.outer, self.cols, self.rows]);
        let strides = Dims::from_slice(&[self.rows * self.cols, 1, self.cols]);
        contiguous(&self.array.view(shape, strides, self.array.offset()))
    }
}

/// The array itself when it is contiguous, else a copy.
pub(super) fn contiguous(x: &Array) -> Result<Array> {
    if x.is_contiguous() {
        return Ok(x.clone());
    }
    let copy = Array::stale(x.dtype(), *x.shape())?;
    super::shape::run_copy(x, &copy)?;
    Ok(copy)
}

pub(super) fn run_softmax(dim: usize, log: bool, x: &Array, out: &Array) -> Result<()> {
    let shape = x.shape();
    let cols = shape.get(dim).copied().unwrap_or(1);
    let last = (dim + 1..shape.rank()).all(|i| shape[i] == 1);
    let axis = (dim < shape.rank()).then_some(dim);
    let order: Dims = (0..shape.rank()).filter(|&i| i != dim).chain(axis).collect();
    let source = if last { contiguous(x)? } else { contiguous(&super::shape::permute_view(x, &order))? };
    let rows = shape.elements().checked_div(cols).unwrap_or(0);
    for_float!("softmax", x.dtype(), T => {
        let run = if log { kernel::log_softmax_rows::<T> } else { kernel::softmax_rows::<T> };
        if last {
            run(rows, cols, &source.read::<T>(), &mut out.write::<T>());
        } else {
            let result = Array::stale(x.dtype(), *source.shape())?;
            run(rows, cols, &source.read::<T>(), &mut result.write::<T>());
            let target = super::shape::permute_view(out, &order);
            ferrograd_kernels::elementwise::scatter_into(
                target.shape(), &result.read::<T>(), &mut target.write::<T>(), target.strides(),
            );
        }
        Ok(())
    })
}

/// softmax: y (g - sum g y); log_softmax: g - e^y sum g.
pub(super) fn vjp_softmax(dim: usize, log: bool, cx: &Vjp) -> Result<Gradients> {
    let (g, y) = (cx.grad(), cx.output());
    let axes = 1 << dim;
    let grad = if log {
        g.sub(&y.exp()?.mul(&g.sum_axes(axes)?)?)?
    } else {
        y.mul(&g.sub(&g.mul(&y)?.sum_axes(axes)?)?)?
    };
    Ok(smallvec![Some(grad)])
}

/// t - sum(softmax t), t the tangent in place of the gradient.
pub(super) fn jvp_log_softmax(dim: usize, cx: &Vjp) -> Result<Tensor> {
    let t = cx.grad();
    t.sub(&cx.output().exp()?.mul(t)?.sum_axes(1 << dim)?)
}

impl Tensor {
    fn reduce(&self, kind: Kind, axes: Axes, keepdim: bool) -> Result<Tensor> {
        Tensor::apply(Op::Reduce(Reduce { kind, axes, keepdim }), &[self])
    }

    /// Sum over a set of axes that stay as 1.
    pub(crate) fn sum_axes(&self, axes: Axes) -> Result<Tensor> {
        self.reduce(Kind::Sum, axes, true)
    }

    /// The set of axes that `dims` names; all when empty.
    ///
    /// # Errors
    /// `Dim` when one is out of range, `Shape` when one stands twice.
    pub fn axes(&self, op: &'static str, dims: &[isize]) -> Result<Axes> {
        if dims.is_empty() {
            return Ok(((1u16 << self.shape().rank()) - 1) as u8);
        }
        let mut axes = 0;
        for &dim in dims {
            let bit = 1 << self.shape().dim(op, dim)?;
            if axes & bit != 0 {
                return Err(Error::Shape {
                    op,
                    expected: "each dimension once".into(),
                    got: format!("dim {dims:?}"),
                });
            }
            axes |= bit;
        }
        Ok(if self.shape().rank() == 0 { 0 } else { axes })
    }

    fn reduced(&self, kind: Kind, op: &'static str, dims: &[isize], keepdim: bool) -> Result<Tensor> {
        self.reduce(kind, self.axes(op, dims)?, keepdim)
    }

    /// Sum over `dims` (all when empty); derivative 1.
    ///
    /// # Errors
    /// `Dim` or `Shape` for wrong dims.
    pub fn sum(&self, dims: &[isize], keepdim: bool) -> Result<Tensor> {
        let x = if matches!(self.dtype(), DType::U8 | DType::Bool) {
            self.cast(DType::I64)?
        } else {
            self.clone()
        };
        x.reduced(Kind::Sum, "sum", dims, keepdim)
    }

    /// Mean over `dims`: sum / n.
    ///
    /// # Errors
    /// `DType` for integers, `Dim` or `Shape` for wrong dims.
    pub fn mean(&self, dims: &[isize], keepdim: bool) -> Result<Tensor> {
        if !self.dtype().is_float() {
            return Err(Error::DType { op: "mean", expected: "float32 or float64", got: self.dtype() });
        }
        let n = self.count(self.axes("mean", dims)?);
        self.sum(dims, keepdim)?.div_scalar(n as f64)
    }

    fn count(&self, axes: Axes) -> usize {
        (0..self.shape().rank()).filter(|i| axes >> i & 1 == 1).map(|i| self.shape()[i]).product()
    }

    /// Variance over `dims`: sum (x - mean)^2 / (n - correction).
    ///
    /// # Errors
    /// As [`Tensor::mean`].
    pub fn var(&self, dims: &[isize], correction: f64, keepdim: bool) -> Result<Tensor> {
        let n = self.count(self.axes("var", dims)?) as f64;
        let centred = self.sub(&self.mean(dims, true)?)?;
        centred.square()?.sum(dims, keepdim)?.div_scalar((n - correction).max(0.0))
    }

    fn extreme(&self, kind: Kind, op: &'static str, dims: &[isize], keepdim: bool) -> Result<Tensor> {
        if self.dtype().is_float() {
            return self.reduced(kind, op, dims, keepdim);
        }
        self.cast(DType::I64)?.reduced(kind, op, dims, keepdim)?.cast(self.dtype())
    }

    /// Largest element; the gradient is shared evenly by the winners.
    ///
    /// # Errors
    /// `Shape` when there is nothing to reduce, `Dim` for wrong dims.
    pub fn amax(&self, dims: &[isize], keepdim: bool) -> Result<Tensor> {
        self.extreme(Kind::Max, "amax", dims, keepdim)
    }

    /// Smallest element; the gradient is shared evenly by the winners.
    ///
    /// # Errors
    /// As [`Tensor::amax`].
    pub fn amin(&self, dims: &[isize], keepdim: bool) -> Result<Tensor> {
        self.extreme(Kind::Min, "amin", dims, keepdim)
    }

    /// log sum exp, without overflow; derivative softmax(x).
    ///
    /// # Errors
    /// `DType` or `Dim`.
    pub fn logsumexp(&self, dims: &[isize], keepdim: bool) -> Result<Tensor> {
        self.reduced(Kind::LogSumExp, "logsumexp", dims, keepdim)
    }

    /// Position of the first largest (or smallest) element along `dim`, or in row-major order.
    ///
    /// # Errors
    /// `Dim`, or `Shape` when there is nothing to reduce.
    pub fn arg(&self, max: bool, dim: Option<isize>, keepdim: bool) -> Result<Tensor> {
        let (kind, op) = if max { (Kind::ArgMax, "argmax") } else { (Kind::ArgMin, "argmin") };
        match dim {
            Some(dim) => self.reduced(kind, op, &[dim], keepdim),
            None => {
                let flat = self.reshape(&Dims::from_slice(&[self.shape().elements()]))?;
                let index = flat.reduced(kind, op, &[0], false)?;
                let kept = if keepdim { vec![1; self.shape().rank()] } else { vec![] };
                index.reshape(&Dims::from_slice(&kept))
            }
        }
    }

    /// The largest (or smallest) elements along `dim` and their positions; the gradient goes to the
    /// position alone.
    ///
    /// # Errors
    /// As [`Tensor::arg`].
    pub fn extreme_along(&self, max: bool, dim: isize, keepdim: bool) -> Result<(Tensor, Tensor)> {
        let at = self.arg(max, Some(dim), true)?;
        let values = self.gather(dim, &at)?;
        let axes = self.axes("max", &[dim])?;
        let shape = left(self.shape(), axes, keepdim);
        Ok((values.reshape(&shape)?, at.reshape(&shape)?))
    }

    /// Whether any element is true.
    ///
    /// # Errors
    /// `Dim`.
    pub fn any(&self, dims: &[isize], keepdim: bool) -> Result<Tensor> {
        self.cast(DType::Bool)?.reduced(Kind::Any, "any", dims, keepdim)
    }

    /// Whether all elements are true.
    ///
    /// # Errors
    /// `Dim`.
    pub fn all(&self, dims: &[isize], keepdim: bool) -> Result<Tensor> {
        self.cast(DType::Bool)?.reduced(Kind::All, "all", dims, keepdim)
    }

    /// e^x / sum e^x along `dim`; derivative y_i (delta_ij - y_j).
    ///
    /// # Errors
    /// `DType` or `Dim`.
    pub fn softmax(&self, dim: isize) -> Result<Tensor> {
        let dim = self.shape().dim("softmax", dim)?;
        Tensor::apply(Op::Softmax { dim, log: false }, &[self])
    }

    /// log softmax along `dim`, without overflow; derivative delta_ij - softmax_j.
    ///
    /// # Errors
    /// `DType` or `Dim`.
    pub fn log_softmax(&self, dim: isize) -> Result<Tensor> {
        let dim = self.shape().dim("log_softmax", dim)?;
        Tensor::apply(Op::Softmax { dim, log: true }, &[self])
    }

    /// Summed over broadcast dimensions, back to `shape`.
    pub(crate) fn sum_to(&self, shape: &Dims) -> Result<Tensor> {
        if self.shape() == shape {
            return Ok(self.clone());
        }
        let lead = self.shape().rank() - shape.rank();
        let axes = (0..self.shape().rank())
            .filter(|&i| i < lead || shape[i - lead] == 1 && self.shape()[i] != 1)
            .fold(0, |axes, i| axes | 1 << i);
        let summed = if axes == 0 { self.clone() } else { self.sum_axes(axes)? };
        summed.reshape(shape)
    }
}
