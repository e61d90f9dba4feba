//! Ops along one dimension: running sums, elements picked or added by index, order.

use ferrograd_kernels::along::{self as kernel, Around};
use smallvec::smallvec;

use super::reduce::contiguous;
use super::shape::Region;
use super::{Gradients, Meta, Op, Saves};
use crate::backward::Vjp;
use crate::buffer::Array;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::Dims;
use crate::tensor::{Tensor, is_tracing};
use crate::{for_any, for_float};

/// What is done along the dimension. Operands of two have the same sizes elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Along {
    /// Sums of the elements up to each one, from the end where `reverse`.
    CumSum {
        /// Whether from the end.
        reverse: bool,
    },
    /// Elements of the first operand at the positions that the second holds.
    Gather,
    /// Zeros of this size with the first operand's elements added at the positions that the second holds.
    ScatterAdd {
        /// Of the dimension in the result.
        size: usize,
    },
    /// Positions of the first `count` elements in order.
    ArgSort {
        /// Whether the largest comes first.
        descending: bool,
        /// How many.
        count: usize,
    },
}

fn around(shape: &Dims, dim: usize) -> Around {
    let product = |sizes: &[usize]| sizes.iter().product();
    Around { outer: product(&shape[..dim]), n: shape[dim], inner: product(&shape[dim + 1..]) }
}

fn check(op: &'static str, dim: usize, size: usize, index: &[i64]) -> Result<()> {
    match kernel::outside(size, index) {
        Some(index) => Err(Error::Index { op, index, dim, size }),
        None => Ok(()),
    }
}

impl Along {
    pub(super) fn name(self) -> &'static str {
        match self {
            Along::CumSum { .. } => "cumsum",
            Along::Gather => "gather",
            Along::ScatterAdd { .. } => "scatter_add",
            Along::ArgSort { .. } => "argsort",
        }
    }

    pub(super) fn infer(self, dim: usize, inputs: &[Meta]) -> Meta {
        let (mut shape, dtype) = (inputs[0].shape, inputs[0].dtype);
        match self {
            Along::CumSum { .. } => inputs[0],
            Along::Gather => Meta { dtype, shape: inputs[1].shape },
            Along::ScatterAdd { size } => {
                shape[dim] = size;
                Meta { dtype, shape }
            }
            Along::ArgSort { count, .. } => {
                shape[dim] = count;
                Meta { dtype: DType::I64, shape }
            }
        }
    }

    pub(super) fn run(self, dim: usize, inputs: &[&Array], out: &Array) -> Result<()> {
        let x = contiguous(inputs[0])?;
        let form = around(x.shape(), dim);
        match self {
            Along::CumSum { reverse } if x.dtype() == DType::I64 => {
                kernel::cumsum(reverse, form, &x.read(), &mut out.write(), i64::wrapping_add);
            }
            Along::CumSum { reverse } => for_float!("cumsum", x.dtype(), T => {
                kernel::cumsum(reverse, form, &x.read::<T>(), &mut out.write::<T>(), |a, b| a + b);
                Ok(())
            })?,
            Along::Gather => {
                let index = contiguous(inputs[1])?;
                let (m, index) = (index.shape()[dim], index.read::<i64>());
                check("gather", dim, form.n, &index)?;
                for_any!(x.dtype(), T => kernel::gather(form, m, &x.read::<T>(), &index, &mut out.write::<T>()));
            }
            Along::ScatterAdd { size } => {
                let (index, form) = (contiguous(inputs[1])?, around(out.shape(), dim));
                let (m, index) = (index.shape()[dim], index.read::<i64>());
                check("scatter_add", dim, size, &index)?;
                if x.dtype() == DType::I64 {
                    let mut out = out.write::<i64>();
                    out.fill(0);
                    kernel::scatter_add(form, m, &x.read(), &index, &mut out, i64::wrapping_add);
                    return Ok(());
                }
                for_float!("scatter_add", x.dtype(), T => {
                    let mut out = out.write::<T>();
                    out.fill(0.0);
                    kernel::scatter_add(form, m, &x.read::<T>(), &index, &mut out, |a, b| a + b);
                    Ok(())
                })?;
            }
            Along::ArgSort { descending, count } => for_any!(x.dtype(), T => {
                kernel::argsort(descending, form, count, &x.read::<T>(), &mut out.write::<i64>());
            }),
        }
        Ok(())
    }

    pub(super) fn saves(self) -> Saves {
        match self {
            Along::Gather | Along::ScatterAdd { .. } => Saves::one(1),
            Along::CumSum { .. } | Along::ArgSort { .. } => Saves::NOTHING,
        }
    }

    pub(super) fn vjp(self, dim: usize, cx: &Vjp) -> Result<Gradients> {
        let g = cx.grad();
        Ok(match self {
            // x_k is part of every sum from k on.
            Along::CumSum { reverse } => {
                smallvec![Some(apply(Along::CumSum { reverse: !reverse }, dim, &[g])?)]
            }
            Along::Gather => {
                let scatter = Along::ScatterAdd { size: cx.shape(0)[dim] };
                smallvec![Some(apply(scatter, dim, &[g, &cx.input(1)])?), None]
            }
            Along::ScatterAdd { .. } => smallvec![Some(apply(Along::Gather, dim, &[g, &cx.input(1)])?), None],
            Along::ArgSort { .. } => smallvec![None],
        })
    }
}

fn apply(along: Along, dim: usize, inputs: &[&Tensor]) -> Result<Tensor> {
    Tensor::apply(Op::Along { along, dim }, inputs)
}

/// Positions as int64.
fn positions(op: &'static str, index: &Tensor) -> Result<Tensor> {
    match index.dtype() {
        DType::I64 | DType::U8 => index.detach().cast(DType::I64),
        got => Err(Error::DType { op, expected: "int64 indices", got }),
    }
}

/// The corner of `full` that has this shape.
fn corner(shape: &Dims, full: &Dims) -> Region {
    let (mut start, mut step) = (*full, *full);
    start.fill(0);
    step.fill(1);
    Region { start, step, shape: *shape, full: *full }
}

impl Tensor {
    /// At least one dimension: a scalar as a vector of one element.
    fn lined(&self) -> Result<Tensor> {
        if self.shape().rank() == 0 { self.reshape(&Dims::from_slice(&[1])) } else { Ok(self.clone()) }
    }

    /// Cut down to the sizes of `shape`, but for `dim`.
    fn cut(&self, shape: &Dims, dim: usize) -> Result<Tensor> {
        let mut shape = *shape;
        shape[dim] = self.shape()[dim];
        if shape == *self.shape() { Ok(self.clone()) } else { self.slice(&corner(&shape, self.shape())) }
    }

    /// Sums of the elements up to each one along `dim`; derivative 1 for each of them.
    ///
    /// # Errors
    /// `Dim`.
    pub fn cumsum(&self, dim: isize) -> Result<Tensor> {
        let at = self.shape().dim("cumsum", dim)?;
        let x = if self.dtype().is_float() { self.clone() } else { self.cast(DType::I64)? };
        apply(Along::CumSum { reverse: false }, at, &[&x.lined()?])?.reshape(self.shape())
    }

    /// Products of the elements up to each one along `dim`. In rounds, each of which multiplies products of twice as
    /// many neighbours: no element is divided by, so that zeros have gradients of every order.
    ///
    /// # Errors
    /// `Dim`.
    pub fn cumprod(&self, dim: isize) -> Result<Tensor> {
        let at = self.shape().dim("cumprod", dim)?;
        let length = self.shape().get(at).copied().unwrap_or(1);
        let mut product = if self.dtype().is_float() { self.copied()? } else { self.cast(DType::I64)? };
        let (at, mut reach) = (at as isize, 1);
        while reach < length {
            let left = product.narrow(at, 0, length - reach)?;
            let longer = product.narrow(at, reach, length - reach)?.mul(&left)?;
            product = Tensor::cat(&[product.narrow(at, 0, reach)?, longer], at)?;
            reach *= 2;
        }
        Ok(product)
    }

    /// Elements along `dim` at the positions that `index` holds; its other sizes are at most this tensor's.
    /// The gradient is added up at those positions.
    ///
    /// # Errors
    /// `Dim`, `DType`, `Shape` for an index that does not fit, `Index` for a position outside.
    pub fn gather(&self, dim: isize, index: &Tensor) -> Result<Tensor> {
        let at = self.shape().dim("gather", dim)?;
        let positions = positions("gather", index)?;
        check_index("gather", "the input's", self.shape(), index.shape(), Some(at))?;
        let (x, positions) = (self.lined()?, positions.lined()?);
        apply(Along::Gather, at, &[&x.cut(positions.shape(), at)?, &positions])?.reshape(index.shape())
    }

    /// This tensor with elements of `src` added along `dim` at the positions that `index` holds. The gradient
    /// of `src` is picked there.
    ///
    /// # Errors
    /// As [`Tensor::gather`], and `DType` where the dtypes differ.
    pub fn scatter_add(&self, dim: isize, index: &Tensor, src: &Tensor) -> Result<Tensor> {
        let at = self.shape().dim("scatter_add", dim)?;
        if src.dtype() != self.dtype() {
            let (op, expected) = ("scatter_add", self.dtype().name());
            return Err(Error::DType { op, expected, got: src.dtype() });
        }
        let positions = positions("scatter_add", index)?;
        check_index("scatter_add", "the input's", self.shape(), index.shape(), Some(at))?;
        check_index("scatter_add", "those of src,", src.shape(), index.shape(), None)?;
        let (x, src, positions) = (self.lined()?, src.lined()?, positions.lined()?);
        let src = if src.shape() == positions.shape() {
            src
        } else {
            src.slice(&corner(positions.shape(), src.shape()))?
        };
        let added = apply(Along::ScatterAdd { size: x.shape()[at] }, at, &[&src, &positions])?;
        let added = if added.shape() == x.shape() {
            added
        } else {
            added.embed(&corner(added.shape(), x.shape()))?
        };
        x.add(&added)?.reshape(self.shape())
    }

    /// Slices along `dim` in the order of a vector of positions. The gradient is added up at those positions.
    ///
    /// # Errors
    /// `Dim`, `DType`, `Shape` for an index that is no vector, `Index` for a position outside.
    pub fn index_select(&self, dim: isize, index: &Tensor) -> Result<Tensor> {
        let at = self.shape().dim("index_select", dim)?;
        if index.shape().rank() > 1 {
            let got = format!("shape {}", index.shape());
            return Err(Error::Shape { op: "index_select", expected: "a vector of indices".into(), got });
        }
        let (x, index) = (self.lined()?, positions("index_select", index)?.lined()?);
        let (size, count, rank) = (x.shape()[at], index.shape()[0], x.shape().rank());
        if !is_tracing() {
            check("index_select", at, size, &index.to_vec())?;
        }
        let order: Dims = [at].into_iter().chain((0..rank).filter(|&d| d != at)).collect();
        let front = if at == 0 { x.clone() } else { x.permute(&order)? };
        let mut shape = *front.shape();
        let width = shape[1..].iter().product();
        shape[0] = count;
        let table = front.reshape(&Dims::from_slice(&[size, width]))?;
        let picked = Tensor::apply(Op::GatherRows, &[&table, &index])?.reshape(&shape)?;
        let back: Dims = (1..=at).chain([0]).chain(at + 1..rank).collect();
        let picked = if at == 0 { picked } else { picked.permute(&back)? };
        // A scalar stays one.
        if self.shape().rank() == 0 && count == 1 { picked.reshape(self.shape()) } else { Ok(picked) }
    }

    /// The elements where `mask` is true, as a vector; both broadcast. The gradient is zero elsewhere.
    ///
    /// # Errors
    /// `DType` for a mask that is not bool, `Broadcast`, `Graph` in a trace.
    pub fn masked_select(&self, mask: &Tensor) -> Result<Tensor> {
        if mask.dtype() != DType::Bool {
            return Err(Error::DType { op: "masked_select", expected: "a bool mask", got: mask.dtype() });
        }
        if is_tracing() {
            let text =
                "masked_select: its shape depends on data; a plan cannot hold it (use where in a model)";
            return Err(Error::Graph(text.into()));
        }
        let shape = Dims::broadcast("masked_select", self.shape(), mask.shape())?;
        let (x, mask) = (self.broadcast_to(&shape)?.lined()?, mask.broadcast_to(&shape)?.lined()?);
        x.index(&[super::Index::Tensor(mask)])
    }

    /// Positions along `dim` in ascending or descending order; equal elements keep theirs, NaN is the largest.
    ///
    /// # Errors
    /// `Dim`.
    pub fn argsort(&self, dim: isize, descending: bool) -> Result<Tensor> {
        let at = self.shape().dim("argsort", dim)?;
        let x = self.lined()?;
        let along = Along::ArgSort { descending, count: x.shape()[at] };
        apply(along, at, &[&x.detach()])?.reshape(self.shape())
    }

    /// The elements along `dim` in order, and their positions; the gradient goes back to the positions.
    ///
    /// # Errors
    /// `Dim`.
    pub fn sort(&self, dim: isize, descending: bool) -> Result<(Tensor, Tensor)> {
        let at = self.argsort(dim, descending)?;
        Ok((self.gather(dim, &at)?, at))
    }

    /// The `k` largest or smallest elements along `dim` in order, and their positions; the gradient goes back
    /// to the positions.
    ///
    /// # Errors
    /// `Dim`, or `Shape` where there are fewer than `k`.
    pub fn topk(&self, k: usize, dim: isize, largest: bool) -> Result<(Tensor, Tensor)> {
        let at = self.shape().dim("topk", dim)?;
        let x = self.lined()?;
        let size = x.shape()[at];
        if k > size {
            let expected = format!("k of at most {size} for dimension {at}");
            return Err(Error::Shape { op: "topk", expected, got: k.to_string() });
        }
        let index = apply(Along::ArgSort { descending: largest, count: k }, at, &[&x.detach()])?;
        let index = if self.shape().rank() == 0 && k == 1 { index.reshape(self.shape())? } else { index };
        Ok((self.gather(dim, &index)?, index))
    }

    /// Integers in `0..classes` as vectors with a 1 at that place, int64; `None`: one class more than the
    /// largest.
    ///
    /// # Errors
    /// `DType`, `Label` for an integer outside, `Graph` without `classes` in a trace.
    pub fn one_hot(&self, classes: Option<usize>) -> Result<Tensor> {
        if self.dtype() != DType::I64 && self.dtype() != DType::U8 {
            return Err(Error::DType { op: "one_hot", expected: "int64 classes", got: self.dtype() });
        }
        let index = self.detach().cast(DType::I64)?;
        if is_tracing() && classes.is_none() {
            let text = "one_hot: without num_classes its shape depends on data; a plan cannot hold it";
            return Err(Error::Graph(text.into()));
        }
        let labels = index.to_vec::<i64>();
        let classes = match (classes, labels.iter().max()) {
            (Some(classes), _) => classes,
            (None, Some(&largest)) => usize::try_from(largest).map_or(0, |largest| largest + 1),
            (None, None) => {
                let (expected, got) = ("num_classes for an empty tensor".into(), "none".into());
                return Err(Error::Config { argument: "one_hot", expected, got });
            }
        };
        // A trace runs on samples: only what it computes later is checked, by the kernel.
        let outside = labels.iter().position(|label| !(0..classes as i64).contains(label));
        if let Some(position) = outside.filter(|_| !is_tracing()) {
            return Err(Error::Label { op: "one_hot", label: labels[position], position, classes });
        }
        let rank = self.shape().rank();
        let index = index.unsqueeze(-1)?;
        let ones = Tensor::constant(Array::full(DType::I64, *index.shape(), 1.0)?);
        apply(Along::ScatterAdd { size: classes }, rank, &[&ones, &index])
    }

    /// The elements along each of `dims` in reverse order.
    ///
    /// # Errors
    /// `Dim`, or `Shape` where one stands twice.
    pub fn flip(&self, dims: &[isize]) -> Result<Tensor> {
        let mut x = self.clone();
        if dims.is_empty() {
            return self.copied();
        }
        let axes = self.axes("flip", dims)?;
        for d in (0..self.shape().rank()).filter(|d| axes >> d & 1 == 1) {
            let places: Vec<i64> = (0..self.shape()[d] as i64).rev().collect();
            let index = Array::from_slice(DType::I64, Dims::from_slice(&[places.len()]), &places)?;
            x = x.index_select(d as isize, &Tensor::constant(index))?;
        }
        Ok(x)
    }
}

/// Whether an index has the rank of `shape` and is nowhere larger, but along `free`.
fn check_index(op: &'static str, whose: &str, shape: &Dims, index: &Dims, free: Option<usize>) -> Result<()> {
    let rank = |dims: &Dims| dims.rank().max(1);
    let fits = rank(shape) == rank(index)
        && (0..shape.rank().min(index.rank())).all(|d| Some(d) == free || index[d] <= shape[d]);
    if fits {
        return Ok(());
    }
    let but = free.map_or_else(String::new, |dim| format!(" but for dimension {dim}"));
    let expected = format!("an index of as many dimensions and no larger sizes than {whose} {shape}{but}");
    Err(Error::Shape { op, expected, got: format!("shape {index}") })
}
