//! Comparisons, selection by them, and conversion to another dtype.

use ferrograd_kernels::elementwise as kernel;
pub use ferrograd_kernels::elementwise::Compare;
use smallvec::smallvec;

use super::elementwise::{by_rows, from_row, strides_in};
use super::{Gradients, Meta, Op};
use crate::backward::Vjp;
use crate::buffer::Array;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::for_any;
use crate::forward::Jvp;
use crate::shape::Dims;
use crate::tensor::Tensor;

pub(super) fn compare_name(op: Compare) -> &'static str {
    match op {
        Compare::Eq => "eq",
        Compare::Ne => "ne",
        Compare::Lt => "lt",
        Compare::Le => "le",
        Compare::Gt => "gt",
        Compare::Ge => "ge",
    }
}

pub(super) fn infer_compare(op: Compare, left: Meta, right: Meta) -> Result<Meta> {
    let shape = Dims::broadcast(compare_name(op), &left.shape, &right.shape)?;
    Ok(Meta { dtype: DType::Bool, shape })
}

pub(super) fn infer_where(condition: Meta, a: Meta, b: Meta) -> Result<Meta> {
    if condition.dtype != DType::Bool {
        return Err(Error::DType { op: "where", expected: "a bool condition", got: condition.dtype });
    }
    let shape = Dims::broadcast("where", &a.shape, &b.shape)?;
    Ok(Meta { dtype: a.dtype, shape: Dims::broadcast("where", &condition.shape, &shape)? })
}

pub(super) fn run_compare(op: Compare, a: &Array, b: &Array, out: &Array) -> Result<()> {
    let shape = out.shape();
    let (sa, sb) = (strides_in(a, shape), strides_in(b, shape));
    for_any!(a.dtype(), T => {
        let (a, b): (&[T], &[T]) = (&a.read::<T>(), &b.read::<T>());
        by_rows(shape, &mut out.write::<u8>(), |shape, row, out| {
            kernel::compare(op, shape, from_row(a, &sa, row), &sa, from_row(b, &sb, row), &sb, out);
        });
    });
    Ok(())
}

pub(super) fn run_where(condition: &Array, a: &Array, b: &Array, out: &Array) -> Result<()> {
    let shape = out.shape();
    let sc = strides_in(condition, shape);
    let (sa, sb) = (strides_in(a, shape), strides_in(b, shape));
    let condition: &[u8] = &condition.read::<u8>();
    for_any!(a.dtype(), T => {
        let (a, b): (&[T], &[T]) = (&a.read::<T>(), &b.read::<T>());
        by_rows(shape, &mut out.write::<T>(), |shape, row, out| {
            let (c, a, b) = (from_row(condition, &sc, row), from_row(a, &sa, row), from_row(b, &sb, row));
            kernel::select(shape, c, &sc, a, &sa, b, &sb, out);
        });
    });
    Ok(())
}

pub(super) fn run_cast(x: &Array, out: &Array) -> Result<()> {
    let strides = x.strides();
    let is_truth = out.dtype() == DType::Bool;
    for_any!(x.dtype(), S => for_any!(out.dtype(), T => {
        let x: &[S] = &x.read::<S>();
        by_rows(out.shape(), &mut out.write::<T>(), |shape, row, out| {
            let x = from_row(x, strides, row);
            if is_truth {
                kernel::cast(shape, x, strides, out, |v| T::from_f64(f64::from(v.to_f64() != 0.0)));
            } else {
                kernel::cast(shape, x, strides, out, |v| T::from_f64(v.to_f64()));
            }
        });
    }));
    Ok(())
}

pub(super) fn vjp_where(cx: &Vjp) -> Result<Gradients> {
    let (condition, zero) = (cx.input(0), Tensor::scalar(cx.grad().dtype(), 0.0)?);
    let a = cx.needs(1).then(|| condition.select(cx.grad(), &zero)?.sum_to(cx.shape(1)));
    let b = cx.needs(2).then(|| condition.select(&zero, cx.grad())?.sum_to(cx.shape(2)));
    Ok(smallvec![None, a.transpose()?, b.transpose()?])
}

/// Each tangent where its operand is taken.
pub(super) fn jvp_where(cx: &Jvp) -> Result<Option<Tensor>> {
    let Some(moved) = cx.tangent(1).or(cx.tangent(2)) else { return Ok(None) };
    let (condition, zero) = (cx.input(0), Tensor::scalar(moved.dtype(), 0.0)?);
    let (a, b) = (cx.tangent(1).unwrap_or(&zero), cx.tangent(2).unwrap_or(&zero));
    condition.select(a, b)?.broadcast_to(cx.result_shape()).map(Some)
}

impl Tensor {
    /// A comparison: a bool tensor without gradient.
    ///
    /// # Errors
    /// `Broadcast`.
    pub fn compare(&self, op: Compare, other: &Tensor) -> Result<Tensor> {
        let dtype =
            DType::promote(self.dtype(), self.shape().rank() == 0, other.dtype(), other.shape().rank() == 0);
        Tensor::apply(Op::Compare(op), &[&self.cast(dtype)?, &other.cast(dtype)?])
    }

    /// Logical and of two bool tensors: the smaller of 0 and 1.
    pub(crate) fn and(&self, other: &Tensor) -> Result<Tensor> {
        let falsehood = Tensor::scalar(DType::Bool, 0.0)?;
        self.select(other, &falsehood)
    }

    /// `self ? a : b` for a bool tensor, broadcast, on promoted operands.
    ///
    /// # Errors
    /// `Broadcast`, or `DType` when `self` is not bool.
    pub fn select(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let dtype = DType::promote(a.dtype(), a.shape().rank() == 0, b.dtype(), b.shape().rank() == 0);
        Tensor::apply(Op::Where, &[self, &a.cast(dtype)?, &b.cast(dtype)?])
    }

    /// Another dtype; the same tensor when it already has it.
    ///
    /// # Errors
    /// `Memory`.
    pub fn cast(&self, dtype: DType) -> Result<Tensor> {
        if self.dtype() == dtype { Ok(self.clone()) } else { Tensor::apply(Op::Cast(dtype), &[self]) }
    }
}
