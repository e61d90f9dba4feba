//! Indexing: slices as views, integer arrays and masks as a gather of rows; its adjoint adds rows up.

use smallvec::{SmallVec, smallvec};

use super::select::Compare;
use super::shape::Region;
use super::{Gradients, Meta, Op};
use crate::backward::Vjp;
use crate::buffer::Array;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::{Dims, MAX_RANK};
use crate::tensor::Tensor;
use crate::{for_any, for_float};

/// One entry of an index expression.
#[derive(Clone)]
pub enum Index {
    /// `x[3]`
    Int(i64),
    /// `x[start:stop:step]` with numpy's clamping already done: first, length, step.
    Slice {
        /// First index.
        start: usize,
        /// Number of elements.
        length: usize,
        /// At least 1.
        step: usize,
    },
    /// `x[None]`
    NewAxis,
    /// An int64 tensor of indices, or a bool mask.
    Tensor(Tensor),
}

pub(super) fn infer_gather(source: Meta, index: Meta) -> Result<Meta> {
    Ok(Meta { shape: Dims::from_slice(&[index.shape[0], source.shape[1]]), ..source })
}

pub(super) fn infer_scatter(rows: usize, source: Meta) -> Result<Meta> {
    Ok(Meta { shape: Dims::from_slice(&[rows, source.shape[1]]), ..source })
}

pub(super) fn run_gather(source: &Array, index: &Array, out: &Array) -> Result<()> {
    let (source, index) = (super::reduce::contiguous(source)?, super::reduce::contiguous(index)?);
    let (rows, width) = (source.shape()[0], source.shape()[1]);
    let index = index.read::<i64>();
    index.iter().try_for_each(|&i| check(i, rows))?;
    for_any!(source.dtype(), T => {
        let (source, mut out) = (source.read::<T>(), out.write::<T>());
        for (target, &i) in out.chunks_exact_mut(width.max(1)).zip(index.iter()) {
            target.copy_from_slice(&source[i as usize * width..][..width]);
        }
    });
    Ok(())
}

pub(super) fn run_scatter(source: &Array, index: &Array, out: &Array) -> Result<()> {
    let (source, index) = (super::reduce::contiguous(source)?, super::reduce::contiguous(index)?);
    let (rows, width) = (out.shape()[0], out.shape()[1]);
    let index = index.read::<i64>();
    index.iter().try_for_each(|&i| check(i, rows))?;
    for_float!("scatter_add_rows", source.dtype(), T => {
        let (source, mut out) = (source.read::<T>(), out.write::<T>());
        out.fill(0.0);
        // In the order of the index: the sum's order is fixed.
        for (row, &i) in source.chunks_exact(width.max(1)).zip(index.iter()) {
            for (o, &v) in out[i as usize * width..][..width].iter_mut().zip(row) {
                *o += v;
            }
        }
        Ok(())
    })
}

fn check(index: i64, rows: usize) -> Result<()> {
    if (0..rows as i64).contains(&index) {
        return Ok(());
    }
    Err(Error::Index { op: "gather_rows", index, dim: 0, size: rows })
}

pub(super) fn vjp_gather(cx: &Vjp) -> Result<Gradients> {
    let rows = cx.shape(0)[0];
    let grad = Tensor::apply(Op::ScatterAddRows { rows }, &[cx.grad(), &cx.input(1)])?;
    Ok(smallvec![Some(grad), None])
}

pub(super) fn vjp_scatter(cx: &Vjp) -> Result<Gradients> {
    Ok(smallvec![Some(Tensor::apply(Op::GatherRows, &[cx.grad(), &cx.input(1)])?), None])
}

impl Tensor {
    /// `x[i, a:b, None, idx, mask]` with numpy's rules.
    ///
    /// # Errors
    /// `Index` out of range, `Shape` for too many indices or a mask that does not fit, `Broadcast` for
    /// index arrays that do not broadcast.
    pub fn index(&self, indices: &[Index]) -> Result<Tensor> {
        let has_mask =
            indices.iter().any(|i| matches!(i, Index::Tensor(mask) if mask.dtype() == DType::Bool));
        let expanded = if has_mask { self.expand_masks(indices)? } else { Vec::new() };
        let indices = if has_mask { &expanded } else { indices };
        let used = indices.iter().filter(|i| !matches!(i, Index::NewAxis)).count();
        if used > self.shape().rank() {
            return Err(Error::Shape {
                op: "index",
                expected: format!("at most {} indices for shape {}", self.shape().rank(), self.shape()),
                got: used.to_string(),
            });
        }
        let (view, arrays) = self.basic_index(indices)?;
        if arrays.is_empty() { Ok(view) } else { view.pick(&arrays) }
    }

    /// A mask becomes the integer arrays of its true positions.
    fn expand_masks(&self, indices: &[Index]) -> Result<Vec<Index>> {
        let mut out = Vec::new();
        let mut dim = 0;
        for index in indices {
            match index {
                Index::Tensor(mask) if mask.dtype() == DType::Bool => {
                    let rank = mask.shape().rank();
                    let covered = self.shape().get(dim..dim + rank);
                    if covered != Some(&mask.shape()[..]) || rank == 0 {
                        return Err(Error::Shape {
                            op: "index",
                            expected: format!("a mask that fits shape {} from dimension {dim}", self.shape()),
                            got: format!("shape {}", mask.shape()),
                        });
                    }
                    if crate::tensor::is_tracing() {
                        return Err(Error::Graph(
                            "index: a boolean mask gives a shape that depends on data; a plan cannot hold it"
                                .into(),
                        ));
                    }
                    out.extend(mask.nonzero()?.into_iter().map(Index::Tensor));
                    dim += rank;
                }
                Index::NewAxis => out.push(Index::NewAxis),
                other => {
                    out.push(other.clone());
                    dim += 1;
                }
            }
        }
        Ok(out)
    }

    /// The positions of true elements, an int64 vector for each dimension.
    ///
    /// # Errors
    /// `Memory`.
    pub fn nonzero(&self) -> Result<Vec<Tensor>> {
        let flat = self.to_vec::<u8>();
        let hits: Vec<usize> = (0..flat.len()).filter(|&i| flat[i] != 0).collect();
        let strides = self.shape().contiguous_strides();
        (0..self.shape().rank())
            .map(|d| {
                let at: Vec<i64> =
                    hits.iter().map(|&i| (i / strides[d].max(1) % self.shape()[d].max(1)) as i64).collect();
                Ok(Tensor::constant(Array::from_slice(DType::I64, Dims::from_slice(&[at.len()]), &at)?))
            })
            .collect()
    }

    /// Slices, ints and new axes as one view; integer arrays are left, with the dimension of the view
    /// that each one indexes.
    fn basic_index(&self, indices: &[Index]) -> Result<(Tensor, Vec<(usize, Tensor)>)> {
        let full = *self.shape();
        let (mut start, mut step, mut shape) = (full, full, full);
        start.fill(0);
        step.fill(1);
        let mut dims: SmallVec<[usize; MAX_RANK]> = SmallVec::new();
        let mut arrays = Vec::new();
        let mut dim = 0;
        for index in indices {
            match index {
                Index::NewAxis => {
                    dims.push(1);
                    continue;
                }
                Index::Int(i) => {
                    start[dim] = wrap(*i, dim, full[dim])?;
                    shape[dim] = 1;
                }
                Index::Slice { start: first, length, step: by } => {
                    (start[dim], shape[dim], step[dim]) = (*first, *length, *by);
                    dims.push(*length);
                }
                Index::Tensor(index) => {
                    arrays.push((dims.len(), index.clone()));
                    dims.push(full[dim]);
                }
            }
            dim += 1;
        }
        dims.extend_from_slice(&full[dim..]);
        let region = Region { start, step, shape, full };
        let view =
            if shape == full && step.iter().all(|&s| s == 1) { self.clone() } else { self.slice(&region)? };
        Ok((view.reshape(&Dims::new("index", &dims)?)?, arrays))
    }

    /// Integer arrays: their dimensions go to the front, are joined to rows, and rows are gathered.
    fn pick(&self, arrays: &[(usize, Tensor)]) -> Result<Tensor> {
        let mut shape = Dims::scalar();
        for (_, index) in arrays {
            if index.dtype() != DType::I64 && index.dtype() != DType::U8 {
                return Err(Error::DType {
                    op: "index",
                    expected: "int64 or bool indices",
                    got: index.dtype(),
                });
            }
            shape = Dims::broadcast("index", &shape, index.shape())?;
        }
        let rows = if crate::tensor::is_tracing() {
            self.linear_rows(arrays, &shape)?
        } else {
            let mut rows = vec![0i64; shape.elements()];
            for (dim, index) in arrays {
                let size = self.shape()[*dim];
                let values = index.detach().cast(DType::I64)?.broadcast_to(&shape)?.to_vec::<i64>();
                for (row, value) in rows.iter_mut().zip(values) {
                    *row = *row * size as i64 + wrap(value, *dim, size)? as i64;
                }
            }
            Tensor::constant(Array::from_slice(DType::I64, Dims::from_slice(&[rows.len()]), &rows)?)
        };
        let chosen = |d: usize| arrays.iter().any(|(dim, _)| *dim == d);
        let rest: Vec<usize> = (0..self.shape().rank()).filter(|&d| !chosen(d)).collect();
        let order: Vec<usize> = arrays.iter().map(|(dim, _)| *dim).chain(rest.iter().copied()).collect();
        let height = arrays.iter().map(|(dim, _)| self.shape()[*dim]).product();
        let width = rest.iter().map(|&d| self.shape()[d]).product();
        let table = self.permute(&Dims::from_slice(&order))?.reshape(&Dims::from_slice(&[height, width]))?;
        let picked = Tensor::apply(Op::GatherRows, &[&table, &rows])?;
        // numpy: adjacent index arrays leave their dimensions in place, others put them in front.
        let adjacent = arrays.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1);
        let before = if adjacent { rest.iter().filter(|&&d| d < arrays[0].0).count() } else { 0 };
        let mut dims = shape.to_vec();
        dims.extend(rest.iter().map(|&d| self.shape()[d]));
        let picked = picked.reshape(&Dims::new("index", &dims)?)?;
        let rank = shape.rank();
        let order: Vec<usize> =
            (rank..rank + before).chain(0..rank).chain(rank + before..dims.len()).collect();
        if before == 0 { Ok(picked) } else { picked.permute(&Dims::from_slice(&order)) }
    }

    /// The joined row numbers of integer arrays, by ops: in a plan the indices may change from run to run.
    fn linear_rows(&self, arrays: &[(usize, Tensor)], shape: &Dims) -> Result<Tensor> {
        let integer =
            |v: usize| Array::from_slice(DType::I64, Dims::scalar(), &[v as i64]).map(Tensor::constant);
        let mut rows: Option<Tensor> = None;
        for (dim, index) in arrays {
            let (size, zero) = (integer(self.shape()[*dim])?, integer(0)?);
            let index = index.cast(DType::I64)?;
            let wrapped = index.compare(Compare::Lt, &zero)?.select(&index.add(&size)?, &index)?;
            rows = Some(match rows {
                Some(rows) => rows.mul(&size)?.add(&wrapped)?,
                None => wrapped,
            });
        }
        let rows = rows.expect("called with index arrays").broadcast_to(shape)?;
        rows.reshape(&Dims::from_slice(&[shape.elements()]))
    }

    /// `x[indices] = value` on a leaf, under the rules of in-place changes.
    ///
    /// # Errors
    /// `Graph`, and those of [`Tensor::index`].
    pub fn set_index(&self, indices: &[Index], value: &Tensor) -> Result<()> {
        self.check_in_place("setitem")?;
        let indices = self.expand_masks(indices)?;
        let (view, arrays) = self.detach().basic_index(&indices)?;
        if arrays.is_empty() && view.array().shares_storage(self.array()) {
            return view.detach().copy_(value);
        }
        // Element by element through a table of positions.
        let count = self.shape().elements();
        let all: Vec<i64> = (0..count as i64).collect();
        let all = Tensor::constant(Array::from_slice(DType::I64, *self.shape(), &all)?);
        let at = all.index(&indices)?;
        let value = value.detach().cast(self.dtype())?.broadcast_to(at.shape())?;
        let fresh = self.contiguous_copy()?;
        for_any!(self.dtype(), T => {
            let (values, mut target) = (value.to_vec::<T>(), fresh.array().write::<T>());
            for (position, v) in at.to_vec::<i64>().into_iter().zip(values) {
                target[position as usize] = v;
            }
        });
        self.copy_(&fresh)
    }
}

fn wrap(index: i64, dim: usize, size: usize) -> Result<usize> {
    let n = size as i64;
    if (-n..n).contains(&index) {
        Ok(if index < 0 { index + n } else { index } as usize)
    } else {
        Err(Error::Index { op: "index", index, dim, size })
    }
}
