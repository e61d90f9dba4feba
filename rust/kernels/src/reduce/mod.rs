//! Reductions in an order that depends on the shape alone: not on the instruction set, the threads or the
//! neighbouring rows. Sums are pairwise over blocks, so their error grows with the logarithm of the length.

mod softmax;

pub(crate) use softmax::{GROUP_ROWS, exp_sums, exponentials, rows_per_group};
pub use softmax::{log_softmax_rows, logsumexp_rows, softmax_rows};

use crate::isa::{Isa, Job, dispatch};
use crate::lanes::Lanes;
use crate::math::Math;

/// How values are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Sum; 0 over nothing.
    Sum,
    /// Largest value, or NaN where there is one; `-inf` over nothing.
    Max,
    /// Smallest value, or NaN where there is one; `inf` over nothing.
    Min,
}

/// A [`Reduction`] as a type, so that loops are compiled for each.
pub(crate) trait Combine<T>: Copy {
    fn identity(self) -> T;
    fn combine(self, a: T, b: T) -> T;
    /// What is combined of an element of a column.
    #[inline(always)]
    fn element(self, x: T) -> T {
        x
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Sum;
/// The sum of squares.
#[derive(Clone, Copy)]
pub(crate) struct SquareSum;
#[derive(Clone, Copy)]
pub(crate) struct Max;
#[derive(Clone, Copy)]
pub(crate) struct Min;

impl<T: Math> Combine<T> for Sum {
    #[inline(always)]
    fn identity(self) -> T {
        T::ZERO
    }
    #[inline(always)]
    fn combine(self, a: T, b: T) -> T {
        a + b
    }
}

impl<T: Math> Combine<T> for SquareSum {
    #[inline(always)]
    fn identity(self) -> T {
        T::ZERO
    }
    #[inline(always)]
    fn combine(self, a: T, b: T) -> T {
        a + b
    }
    #[inline(always)]
    fn element(self, x: T) -> T {
        x * x
    }
}

impl<T: Math> Combine<T> for Max {
    #[inline(always)]
    fn identity(self) -> T {
        -T::INFINITY
    }
    #[inline(always)]
    fn combine(self, a: T, b: T) -> T {
        a.maximum(b)
    }
}

impl<T: Math> Combine<T> for Min {
    #[inline(always)]
    fn identity(self) -> T {
        T::INFINITY
    }
    #[inline(always)]
    fn combine(self, a: T, b: T) -> T {
        a.minimum(b)
    }
}

/// Elements that one block of a row reduces before blocks are combined in pairs.
pub(crate) const ROW_BLOCK: usize = 1024;

/// Combines block results in a fixed binary tree, as they come: a binary counter whose digits hold results.
#[derive(Clone, Copy)]
pub(crate) struct Pairwise<T> {
    partial: [T; 48],
    count: u64,
}

impl<T: Math> Pairwise<T> {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Pairwise { partial: [T::ZERO; 48], count: 0 }
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, op: impl Combine<T>, mut value: T) {
        let full = self.count.trailing_ones() as usize;
        for level in 0..full {
            value = op.combine(self.partial[level], value);
        }
        self.partial[full] = value;
        self.count += 1;
    }

    #[inline(always)]
    pub(crate) fn finish(&self, op: impl Combine<T>) -> T {
        let mut left = self.count;
        let mut total = None;
        while left != 0 {
            let partial = self.partial[left.trailing_zeros() as usize];
            total = Some(total.map_or(partial, |total| op.combine(partial, total)));
            left &= left - 1;
        }
        total.unwrap_or(op.identity())
    }
}

/// Reduces up to [`ROW_BLOCK`] elements: in order where they do not fill a lane array, else in four lane arrays.
#[inline(always)]
pub(crate) fn fold_block<T: Math>(op: impl Combine<T>, x: &[T]) -> T {
    if x.len() < T::LANES {
        let mut total = op.identity();
        for &x in x {
            total = op.combine(total, x);
        }
        return total;
    }
    let mut acc = [T::Lanes::splat(op.identity()); 4];
    let mut quads = x.chunks_exact(4 * T::LANES);
    for quad in &mut quads {
        for v in 0..4 {
            acc[v] = acc[v].zip(T::Lanes::load(&quad[v * T::LANES..]), |a, b| op.combine(a, b));
        }
    }
    for (v, lanes) in quads.remainder().chunks(T::LANES).enumerate() {
        acc[v] = acc[v].zip(load_padded(lanes, op.identity()), |a, b| op.combine(a, b));
    }
    let low = acc[0].zip(acc[1], |a, b| op.combine(a, b));
    let high = acc[2].zip(acc[3], |a, b| op.combine(a, b));
    low.zip(high, |a, b| op.combine(a, b)).fold(|a, b| op.combine(a, b))
}

/// Reduces a row.
#[inline(always)]
pub(crate) fn fold_row<T: Math>(op: impl Combine<T>, x: &[T]) -> T {
    if x.len() <= ROW_BLOCK {
        return fold_block(op, x);
    }
    let mut blocks = Pairwise::new();
    for block in x.chunks(ROW_BLOCK) {
        blocks.push(op, fold_block(op, block));
    }
    blocks.finish(op)
}

/// The first elements of `x` as a lane array, filled up where `x` ends.
#[inline(always)]
pub(crate) fn load_padded<T: Math>(x: &[T], fill: T) -> T::Lanes {
    if x.len() >= T::LANES {
        return T::Lanes::load(x);
    }
    // 16 elements are at least a lane array of either type.
    let mut padded = [fill; 16];
    padded[..x.len()].copy_from_slice(x);
    T::Lanes::load(&padded)
}

struct RowsJob<'a, T, C> {
    op: C,
    cols: usize,
    x: &'a [T],
    out: &'a mut [T],
}

impl<T: Math, C: Combine<T>> Job for RowsJob<'_, T, C> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        for (r, out) in self.out.iter_mut().enumerate() {
            *out = fold_row(self.op, &self.x[r * self.cols..(r + 1) * self.cols]);
        }
    }
}

/// `x` of shape `(rows, cols)` to `out` of shape `(rows,)`.
pub fn reduce_rows<T: Math>(op: Reduction, rows: usize, cols: usize, x: &[T], out: &mut [T]) {
    assert!(x.len() == rows * cols && out.len() == rows, "contiguous (rows, cols) to (rows,)");
    match op {
        Reduction::Sum => dispatch(RowsJob { op: Sum, cols, x, out }),
        Reduction::Max => dispatch(RowsJob { op: Max, cols, x, out }),
        Reduction::Min => dispatch(RowsJob { op: Min, cols, x, out }),
    }
}

/// Rows that are added in order before blocks are combined in pairs.
pub(crate) const COLUMN_BLOCK: usize = 64;
/// Levels of the tree over row blocks; the last one goes on in order, beyond 2^17 rows.
const COLUMN_LEVELS: usize = 12;

/// Results of blocks of [`COLUMN_BLOCK`] rows for `V` lane arrays of columns, combined in pairs as they come.
#[derive(Clone, Copy)]
pub(crate) struct ColumnTree<L, const V: usize> {
    partial: [[L; V]; COLUMN_LEVELS],
    blocks: usize,
}

impl<L: Copy, const V: usize> ColumnTree<L, V> {
    #[inline(always)]
    pub(crate) fn new<T: Math<Lanes = L>>(op: impl Combine<T>) -> Self
    where
        L: Lanes<T>,
    {
        ColumnTree { partial: [[L::splat(op.identity()); V]; COLUMN_LEVELS], blocks: 0 }
    }

    /// Takes rows that are `stride` apart: whole blocks, but for the last ones. What a lane array reads beyond the
    /// columns is dropped by the caller: lanes never meet.
    #[inline(always)]
    pub(crate) fn push<T: Math<Lanes = L>>(
        &mut self,
        op: impl Combine<T>,
        rows: usize,
        stride: usize,
        x: &[T],
    ) where
        L: Lanes<T>,
    {
        for first in (0..rows).step_by(COLUMN_BLOCK) {
            let mut value = fold_column_block(op, first..rows.min(first + COLUMN_BLOCK), stride, x);
            let full = (self.blocks.trailing_ones() as usize).min(COLUMN_LEVELS - 1);
            for lower in &self.partial[..full] {
                value = combine(op, lower, value);
            }
            if full == COLUMN_LEVELS - 1 {
                value = combine(op, &self.partial[full], value);
            }
            self.partial[full] = value;
            self.blocks += 1;
        }
    }

    /// The result of all rows.
    #[inline(always)]
    pub(crate) fn finish<T: Math<Lanes = L>>(&self, op: impl Combine<T>) -> [L; V]
    where
        L: Lanes<T>,
    {
        let mut total = [L::splat(op.identity()); V];
        for (level, partial) in self.partial.iter().enumerate() {
            let used = match level {
                _ if level == COLUMN_LEVELS - 1 => self.blocks >> level != 0,
                _ => self.blocks >> level & 1 == 1,
            };
            if used {
                total = combine(op, partial, total);
            }
        }
        total
    }
}

#[inline(always)]
fn combine<T: Math, const V: usize>(
    op: impl Combine<T>,
    a: &[T::Lanes; V],
    mut b: [T::Lanes; V],
) -> [T::Lanes; V] {
    for v in 0..V {
        b[v] = a[v].zip(b[v], |a, b| op.combine(a, b));
    }
    b
}

/// Reduces one block of rows in order.
#[inline(always)]
fn fold_column_block<T: Math, C: Combine<T>, const V: usize>(
    op: C,
    rows: std::ops::Range<usize>,
    stride: usize,
    x: &[T],
) -> [T::Lanes; V] {
    let mut acc = [T::Lanes::splat(op.identity()); V];
    for r in rows {
        for v in 0..V {
            let x = load_padded(&x[r * stride + v * T::LANES..], T::ZERO);
            acc[v] = acc[v].zip(x, |a, b| op.combine(a, op.element(b)));
        }
    }
    acc
}

/// Reduces `V` lane arrays of columns that begin at `x`, over rows `stride` apart, as a [`ColumnTree`] does.
#[inline(always)]
pub(crate) fn fold_columns<T: Math, C: Combine<T>, const V: usize>(
    op: C,
    rows: usize,
    stride: usize,
    x: &[T],
) -> [T::Lanes; V] {
    if rows <= COLUMN_BLOCK {
        return fold_column_block(op, 0..rows, stride, x);
    }
    let mut tree = ColumnTree::new(op);
    tree.push(op, rows, stride, x);
    tree.finish(op)
}

struct ColumnsJob<'a, T, C> {
    op: C,
    rows: usize,
    cols: usize,
    x: &'a [T],
    out: &'a mut [T],
}

impl<T: Math, C: Combine<T>> Job for ColumnsJob<'_, T, C> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let (op, rows, cols) = (self.op, self.rows, self.cols);
        for (o, out) in self.out.chunks_exact_mut(cols).enumerate() {
            let x = &self.x[o * rows * cols..];
            let mut first = 0;
            while first + 4 * T::LANES <= cols {
                let total = fold_columns::<T, C, 4>(op, rows, cols, &x[first..]);
                for v in 0..4 {
                    total[v].store(&mut out[first + v * T::LANES..]);
                }
                first += 4 * T::LANES;
            }
            while first < cols {
                // The last lane array overlaps the one before: the same columns give the same bits.
                let at = if cols >= T::LANES { first.min(cols - T::LANES) } else { 0 };
                let [total] = fold_columns::<T, C, 1>(op, rows, cols, &x[at..]);
                let mut lanes = [T::ZERO; 16];
                total.store(&mut lanes);
                let count = T::LANES.min(cols - at);
                out[at..at + count].copy_from_slice(&lanes[..count]);
                first = at + count;
            }
        }
    }
}

/// `x` of shape `(outer, rows, cols)` to `out` of shape `(outer, cols)`.
pub fn reduce_columns<T: Math>(
    op: Reduction,
    outer: usize,
    rows: usize,
    cols: usize,
    x: &[T],
    out: &mut [T],
) {
    assert!(
        x.len() == outer * rows * cols && out.len() == outer * cols,
        "(outer, rows, cols) to (outer, cols)"
    );
    if rows == 0 || cols == 0 {
        out.fill(match op {
            Reduction::Sum => T::ZERO,
            Reduction::Max => -T::INFINITY,
            Reduction::Min => T::INFINITY,
        });
        return;
    }
    match op {
        Reduction::Sum => dispatch(ColumnsJob { op: Sum, rows, cols, x, out }),
        Reduction::Max => dispatch(ColumnsJob { op: Max, rows, cols, x, out }),
        Reduction::Min => dispatch(ColumnsJob { op: Min, rows, cols, x, out }),
    }
}

/// Whether a value of any type compares as NaN does.
fn is_nan<T: PartialOrd>(v: T) -> bool {
    v.partial_cmp(&v).is_none()
}

/// The place of the largest (or smallest) value of each row: the first one where several are equal, the first
/// NaN where there is one. `cols` is not 0.
pub fn arg_rows<T: PartialOrd + Copy>(max: bool, rows: usize, cols: usize, x: &[T], out: &mut [i64]) {
    assert!(
        cols > 0 && x.len() == rows * cols && out.len() == rows,
        "contiguous (rows, cols > 0) to (rows,)"
    );
    for (row, out) in x.chunks_exact(cols).zip(out) {
        let mut best = 0;
        for (j, &v) in row.iter().enumerate() {
            let b = row[best];
            if is_nan(b) {
                break;
            }
            if is_nan(v) || (max && v > b) || (!max && v < b) {
                best = j;
            }
        }
        *out = best as i64;
    }
}

/// 1 where a row holds a value other than 0.
pub fn any_rows(rows: usize, cols: usize, x: &[u8], out: &mut [u8]) {
    assert!(x.len() == rows * cols && out.len() == rows, "contiguous (rows, cols) to (rows,)");
    for (r, out) in out.iter_mut().enumerate() {
        *out = u8::from(x[r * cols..(r + 1) * cols].iter().any(|&v| v != 0));
    }
}

/// 1 where no value of a row is 0.
pub fn all_rows(rows: usize, cols: usize, x: &[u8], out: &mut [u8]) {
    assert!(x.len() == rows * cols && out.len() == rows, "contiguous (rows, cols) to (rows,)");
    for (r, out) in out.iter_mut().enumerate() {
        *out = u8::from(x[r * cols..(r + 1) * cols].iter().all(|&v| v != 0));
    }
}

/// Sums of the rows, wrapping.
pub fn sum_rows_i64(rows: usize, cols: usize, x: &[i64], out: &mut [i64]) {
    assert!(x.len() == rows * cols && out.len() == rows, "contiguous (rows, cols) to (rows,)");
    for (r, out) in out.iter_mut().enumerate() {
        *out = x[r * cols..(r + 1) * cols].iter().fold(0, |sum, &v| sum.wrapping_add(v));
    }
}

#[cfg(test)]
mod tests;
