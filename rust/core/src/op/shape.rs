//! Views and copies: reshape, permute, expand, slice, cat, and their adjoints.

use ferrograd_kernels::elementwise as kernel;
use smallvec::{SmallVec, smallvec};

use super::{Gradients, Meta, Op};
use crate::backward::Vjp;
use crate::buffer::Array;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::for_any;
use crate::forward::Jvp;
use crate::shape::{Dims, MAX_RANK};
use crate::tensor::Tensor;

/// A region of a tensor: where it starts, its steps and its shape, in a tensor of shape `full`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// First index of each dimension.
    pub start: Dims,
    /// Step of each dimension, at least 1.
    pub step: Dims,
    /// Shape of the region.
    pub shape: Dims,
    /// Shape of the whole.
    pub full: Dims,
}

/// The reshaped view, when no data has to move.
pub(super) fn reshape_view(x: &Array, shape: &Dims) -> Option<Array> {
    if x.is_contiguous() {
        return Some(x.view(*shape, shape.contiguous_strides(), x.offset()));
    }
    // Group the dimensions of both shapes into runs of equal size; a run of the old shape must be
    // evenly strided to be cut differently.
    let mut strides = *shape;
    let (mut i, mut j) = (0, 0);
    let old: Vec<(usize, usize)> =
        x.shape().iter().copied().zip(x.strides().iter().copied()).filter(|&(d, _)| d != 1).collect();
    while j < shape.rank() {
        if shape[j] == 1 {
            strides[j] = 0;
            j += 1;
            continue;
        }
        let (mut have, mut want) = (old.get(i)?.0, shape[j]);
        let (first_old, first_new) = (i, j);
        while have != want {
            if have < want {
                i += 1;
                have *= old.get(i)?.0;
            } else {
                j += 1;
                want *= shape.get(j)?;
            }
        }
        for k in first_old..i {
            if old[k].1 != old[k + 1].0 * old[k + 1].1 {
                return None;
            }
        }
        let mut step = old[i].1;
        for k in (first_new..=j).rev() {
            strides[k] = step;
            step *= shape[k];
        }
        i += 1;
        j += 1;
    }
    Some(x.view(*shape, strides, x.offset()))
}

pub(super) fn permute_view(x: &Array, order: &Dims) -> Array {
    let (mut shape, mut strides) = (*order, *order);
    for (i, &from) in order.iter().enumerate() {
        shape[i] = x.shape()[from];
        strides[i] = x.strides()[from];
    }
    x.view(shape, strides, x.offset())
}

pub(super) fn expand_view(x: &Array, shape: &Dims) -> Array {
    x.view(*shape, super::elementwise::broadcast_strides(x.shape(), x.strides(), shape), x.offset())
}

/// Where a region of an array with these strides begins, and its own strides.
fn slice_layout(strides: &Dims, region: &Region) -> (usize, Dims) {
    let mut own = *strides;
    let mut offset = 0;
    for i in 0..own.rank() {
        offset += region.start[i] * own[i];
        own[i] *= region.step[i];
    }
    // An empty region may start one past the end.
    (if region.shape.elements() == 0 { 0 } else { offset }, own)
}

pub(super) fn slice_view(x: &Array, region: &Region) -> Array {
    let (offset, strides) = slice_layout(x.strides(), region);
    x.view(region.shape, strides, x.offset() + offset)
}

/// Writes contiguous `x` into a region of contiguous `out`.
fn write_region(region: &Region, x: &Array, out: &Array) {
    let (offset, strides) = slice_layout(out.strides(), region);
    for_any!(x.dtype(), T => {
        kernel::scatter_into(&region.shape, &x.read::<T>(), &mut out.write::<T>()[offset..], &strides);
    });
}

pub(super) fn run_copy(x: &Array, out: &Array) -> Result<()> {
    let strides = x.strides();
    for_any!(x.dtype(), T => {
        let values: &[T] = &x.read::<T>();
        super::elementwise::by_rows(x.shape(), &mut out.write::<T>(), |shape, row, out| {
            kernel::copy(shape, &values[if row == 0 { 0 } else { row * strides[0] }..], strides, out);
        });
    });
    Ok(())
}

pub(super) fn run_embed(region: &Region, x: &Array, out: &Array) -> Result<()> {
    let x = super::reduce::contiguous(x)?;
    for_any!(x.dtype(), T => out.write::<T>().fill(T::default()));
    write_region(region, &x, out);
    Ok(())
}

pub(super) fn infer_cat(dim: usize, inputs: &[Meta]) -> Result<Meta> {
    let mut shape = inputs[0].shape;
    for input in &inputs[1..] {
        let fits = input.shape.rank() == shape.rank()
            && (0..shape.rank()).all(|i| i == dim || input.shape[i] == shape[i]);
        if !fits {
            return Err(Error::Shape {
                op: "cat",
                expected: format!("shapes equal to {} but for dimension {dim}", inputs[0].shape),
                got: input.shape.to_string(),
            });
        }
        shape[dim] += input.shape[dim];
    }
    Ok(Meta { dtype: inputs[0].dtype, shape })
}

/// The part of `full` that operand `start..start + length` fills along `dim`.
fn part(full: &Dims, dim: usize, start: usize, length: usize) -> Region {
    let (mut shape, mut starts, mut step) = (*full, *full, *full);
    starts.fill(0);
    step.fill(1);
    shape[dim] = length;
    starts[dim] = start;
    Region { start: starts, step, shape, full: *full }
}

pub(super) fn run_cat(dim: usize, inputs: &[&Array], out: &Array) -> Result<()> {
    let mut start = 0;
    for input in inputs {
        let region = part(out.shape(), dim, start, input.shape()[dim]);
        write_region(&region, &super::reduce::contiguous(input)?, out);
        start += input.shape()[dim];
    }
    Ok(())
}

pub(super) fn vjp_cat(dim: usize, cx: &Vjp) -> Result<Gradients> {
    let mut start = 0;
    (0..cx.arity())
        .map(|i| {
            let length = cx.shape(i)[dim];
            let region = part(cx.grad().shape(), dim, start, length);
            start += length;
            cx.needs(i).then(|| cx.grad().slice(&region)).transpose()
        })
        .collect()
}

pub(super) fn jvp_cat(dim: usize, cx: &Jvp) -> Result<Option<Tensor>> {
    let Some(dtype) = (0..cx.arity()).find_map(|i| cx.tangent(i)).map(Tensor::dtype) else { return Ok(None) };
    let parts: Vec<Tensor> = (0..cx.arity())
        .map(|i| match cx.tangent(i) {
            Some(tangent) => Ok(tangent.clone()),
            None => Ok(Tensor::constant(Array::zeros(dtype, *cx.shape(i))?)),
        })
        .collect::<Result<_>>()?;
    Tensor::apply(Op::Cat { dim }, &parts.iter().collect::<Vec<_>>()).map(Some)
}

pub(super) fn vjp_permute(order: &Dims, cx: &Vjp) -> Result<Gradients> {
    let mut inverse = *order;
    for (i, &from) in order.iter().enumerate() {
        inverse[from] = i;
    }
    Ok(smallvec![Some(cx.grad().permute(&inverse)?)])
}

impl Tensor {
    /// Same elements in row-major order under another shape; a view where strides allow.
    ///
    /// # Errors
    /// `Shape` when the number of elements differs.
    pub fn reshape(&self, shape: &Dims) -> Result<Tensor> {
        if self.shape() == shape {
            return Ok(self.clone());
        }
        if self.shape().elements() != shape.elements() {
            return Err(Error::Shape {
                op: "reshape",
                expected: format!("{} elements for shape {}", self.shape().elements(), self.shape()),
                got: shape.to_string(),
            });
        }
        Tensor::apply(Op::Reshape(*shape), &[self])
    }

    /// The shape that `dims`, with at most one -1, stands for.
    ///
    /// # Errors
    /// `Shape` when it does not come out.
    pub fn inferred_shape(&self, op: &'static str, dims: &[isize]) -> Result<Dims> {
        let total = self.shape().elements();
        let error = || Error::Shape {
            op,
            expected: format!("{total} elements for shape {}", self.shape()),
            got: format!("{dims:?}"),
        };
        let known = dims.iter().filter(|&&d| d >= 0).try_fold(1usize, |n, &d| n.checked_mul(d as usize));
        let known = known.ok_or_else(error)?;
        if dims.iter().any(|&d| d < -1) || dims.iter().filter(|&&d| d == -1).count() > 1 {
            return Err(error());
        }
        let open = total.checked_div(known).unwrap_or(0);
        let shape: SmallVec<[usize; MAX_RANK]> =
            dims.iter().map(|&d| if d == -1 { open } else { d as usize }).collect();
        let shape = Dims::new(op, &shape)?;
        if shape.elements() == total { Ok(shape) } else { Err(error()) }
    }

    /// Dimensions in another order, as a view.
    ///
    /// # Errors
    /// `Shape` when `order` is no permutation.
    pub fn permute(&self, order: &Dims) -> Result<Tensor> {
        let mut seen = 0u32;
        order.iter().for_each(|&i| seen |= 1 << i.min(31));
        if order.rank() != self.shape().rank() || seen != (1 << order.rank()) - 1 {
            return Err(Error::Shape {
                op: "permute",
                expected: format!("a permutation of the {} dimensions", self.shape().rank()),
                got: order.to_string(),
            });
        }
        Tensor::apply(Op::Permute(*order), &[self])
    }

    /// Two dimensions exchanged, as a view.
    ///
    /// # Errors
    /// `Dim`.
    pub fn transpose(&self, first: isize, second: isize) -> Result<Tensor> {
        let (first, second) = (self.shape().dim("transpose", first)?, self.shape().dim("transpose", second)?);
        if self.shape().rank() == 0 {
            return Ok(self.clone());
        }
        let mut order: Dims = (0..self.shape().rank()).collect();
        order.swap(first, second);
        self.permute(&order)
    }

    /// All dimensions reversed, as a view.
    ///
    /// # Errors
    /// None in practice.
    pub fn t(&self) -> Result<Tensor> {
        self.permute(&(0..self.shape().rank()).rev().collect())
    }

    /// Broadcast to `shape`, as a view.
    ///
    /// # Errors
    /// `Broadcast`.
    pub fn broadcast_to(&self, shape: &Dims) -> Result<Tensor> {
        if self.shape() == shape {
            return Ok(self.clone());
        }
        if Dims::broadcast("broadcast_to", self.shape(), shape)? != *shape {
            return Err(Error::Broadcast { op: "broadcast_to", left: *self.shape(), right: *shape });
        }
        Tensor::apply(Op::Expand(*shape), &[self])
    }

    /// A region, as a view.
    pub(crate) fn slice(&self, region: &Region) -> Result<Tensor> {
        debug_assert_eq!(region.full, *self.shape());
        Tensor::apply(Op::Slice(Box::new(region.clone())), &[self])
    }

    /// Zeros with this tensor in a region.
    pub(crate) fn embed(&self, region: &Region) -> Result<Tensor> {
        Tensor::apply(Op::Embed(Box::new(region.clone())), &[self])
    }

    /// `length` elements from `start` along `dim`, as a view.
    ///
    /// # Errors
    /// `Dim`, or `Shape` when the range leaves the dimension.
    pub fn narrow(&self, dim: isize, start: usize, length: usize) -> Result<Tensor> {
        let dim = self.shape().dim("narrow", dim)?;
        let size = self.shape().get(dim).copied().unwrap_or(1);
        if start.saturating_add(length) > size {
            return Err(Error::Shape {
                op: "narrow",
                expected: format!("a range within {size}"),
                got: format!("{length} from {start} on"),
            });
        }
        self.slice(&part(self.shape(), dim, start, length))
    }

    /// Row-major without gaps: itself, or a copy.
    ///
    /// # Errors
    /// `Memory`.
    pub fn contiguous(&self) -> Result<Tensor> {
        if self.array().is_contiguous() { Ok(self.clone()) } else { self.copied() }
    }

    /// A copy that is recorded: the gradient passes through.
    ///
    /// # Errors
    /// `Memory`.
    pub fn copied(&self) -> Result<Tensor> {
        Tensor::apply(Op::Copy, &[self])
    }

    /// A constant copy with its own memory.
    pub(crate) fn contiguous_copy(&self) -> Result<Tensor> {
        let output = Array::stale(self.dtype(), *self.shape())?;
        run_copy(self.array(), &output)?;
        Ok(Tensor::constant(output))
    }

    /// Joined along `dim`, on promoted operands.
    ///
    /// # Errors
    /// `Config` for an empty list, `Shape` for unequal shapes, `Dim`.
    pub fn cat(tensors: &[Tensor], dim: isize) -> Result<Tensor> {
        let Some(first) = tensors.first() else {
            return Err(Error::Config {
                argument: "tensors",
                expected: "at least one tensor".into(),
                got: "none".into(),
            });
        };
        if first.shape().rank() == 0 {
            return Err(Error::Shape {
                op: "cat",
                expected: "at least one dimension".into(),
                got: "shape ()".into(),
            });
        }
        let dim = first.shape().dim("cat", dim)?;
        let dtype = tensors.iter().fold(first.dtype(), |d, t| DType::promote(d, false, t.dtype(), false));
        let tensors: Vec<Tensor> = tensors.iter().map(|t| t.cast(dtype)).collect::<Result<_>>()?;
        Tensor::apply(Op::Cat { dim }, &tensors.iter().collect::<Vec<_>>())
    }

    /// Joined along a new dimension.
    ///
    /// # Errors
    /// As [`Tensor::cat`].
    pub fn stack(tensors: &[Tensor], dim: isize) -> Result<Tensor> {
        let Some(first) = tensors.first() else {
            return Err(Error::Config {
                argument: "tensors",
                expected: "at least one tensor".into(),
                got: "none".into(),
            });
        };
        if let Some(odd) = tensors.iter().find(|t| t.shape() != first.shape()) {
            return Err(Error::Shape {
                op: "stack",
                expected: format!("equal shapes {}", first.shape()),
                got: odd.shape().to_string(),
            });
        }
        let parts: Vec<Tensor> = tensors.iter().map(|t| t.unsqueeze(dim)).collect::<Result<_>>()?;
        Tensor::cat(&parts, dim)
    }

    /// A new dimension of size 1 at `dim`.
    ///
    /// # Errors
    /// `Dim`.
    pub fn unsqueeze(&self, dim: isize) -> Result<Tensor> {
        let at = Dims::new("unsqueeze", &[1; MAX_RANK + 1][..self.shape().rank() + 1])?.dim("unsqueeze", dim);
        let at = at.map_err(|_| Error::Dim { op: "unsqueeze", dim, shape: *self.shape() })?;
        self.reshape(&self.shape().inserted(at, 1))
    }

    /// Without the dimensions of size 1 (all of them when `dims` is empty).
    ///
    /// # Errors
    /// `Dim`.
    pub fn squeeze(&self, dims: &[isize]) -> Result<Tensor> {
        let axes = self.axes("squeeze", dims)?;
        let left = (0..self.shape().rank())
            .filter(|&i| axes >> i & 1 == 0 || self.shape()[i] != 1)
            .map(|i| self.shape()[i]);
        self.reshape(&left.collect())
    }

    /// Dimensions `start..=end` as one.
    ///
    /// # Errors
    /// `Dim`, or `Shape` when `start` comes after `end`.
    pub fn flatten(&self, start: isize, end: isize) -> Result<Tensor> {
        if self.shape().rank() == 0 {
            return self.reshape(&Dims::from_slice(&[1]));
        }
        let (start, end) = (self.shape().dim("flatten", start)?, self.shape().dim("flatten", end)?);
        if start > end {
            return Err(Error::Shape {
                op: "flatten",
                expected: "start_dim before end_dim".into(),
                got: format!("{start} and {end}"),
            });
        }
        let joined = self.shape()[start..=end].iter().product();
        let (before, after) = (&self.shape()[..start], &self.shape()[end + 1..]);
        self.reshape(&before.iter().copied().chain([joined]).chain(after.iter().copied()).collect())
    }
}
