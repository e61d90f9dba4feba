//! Softmax and its relatives over the rows of a matrix. Rows are handled in groups, so that exponentials of
//! short rows (ten classes, say) still fill whole lane arrays; a row's bits do not depend on its group.

use super::{Max, Pairwise, ROW_BLOCK, Sum, fold_block, fold_row};
use crate::elementwise::{function as f, map_in_place};
use crate::isa::{Isa, Job, dispatch};
use crate::math::Math;

/// The most rows of a group.
pub(crate) const GROUP_ROWS: usize = 64;

/// Rows of a group: as many as fit a block of [`ROW_BLOCK`] elements, at least one.
#[inline(always)]
pub(crate) fn rows_per_group(cols: usize) -> usize {
    (ROW_BLOCK / cols.max(1)).clamp(1, GROUP_ROWS)
}

/// For each row: `e = exp(x - shift)` and the sum of `e`.
#[inline(always)]
fn shifted_exponentials<T: Math>(cols: usize, x: &[T], shift: &[T], e: &mut [T], sum: &mut [T]) {
    for (r, &shift) in shift.iter().enumerate() {
        for (e, &x) in e[r * cols..(r + 1) * cols].iter_mut().zip(&x[r * cols..(r + 1) * cols]) {
            *e = x - shift;
        }
    }
    map_in_place(f::Exp {}, e);
    for (r, sum) in sum.iter_mut().enumerate() {
        *sum = fold_row(Sum, &e[r * cols..(r + 1) * cols]);
    }
}

#[inline(always)]
fn row_maxima<T: Math>(cols: usize, x: &[T], max: &mut [T]) {
    for (r, max) in max.iter_mut().enumerate() {
        *max = fold_row(Max, &x[r * cols..(r + 1) * cols]);
    }
}

/// For each row of a group: its largest value, `e = exp(x - max)` and the sum of `e`.
#[inline(always)]
pub(crate) fn exponentials<T: Math>(cols: usize, x: &[T], e: &mut [T], max: &mut [T], sum: &mut [T]) {
    row_maxima(cols, x, max);
    shifted_exponentials(cols, x, max, e, sum);
}

/// The maxima and sums of [`exponentials`], bit for bit, without room for the exponentials.
#[inline(always)]
pub(crate) fn exp_sums<T: Math>(cols: usize, x: &[T], max: &mut [T], sum: &mut [T]) {
    row_maxima(cols, x, max);
    shifted_sums(cols, x, max, sum);
}

#[inline(always)]
fn shifted_sums<T: Math>(cols: usize, x: &[T], shift: &[T], sum: &mut [T]) {
    let mut e = [T::ZERO; ROW_BLOCK];
    if cols <= ROW_BLOCK {
        shifted_exponentials(cols, x, shift, &mut e[..x.len()], sum);
        return;
    }
    let mut blocks = Pairwise::new();
    for block in x.chunks(ROW_BLOCK) {
        let e = &mut e[..block.len()];
        for (e, &x) in e.iter_mut().zip(block) {
            *e = x - shift[0];
        }
        map_in_place(f::Exp {}, e);
        blocks.push(Sum, fold_block(Sum, e));
    }
    sum[0] = blocks.finish(Sum);
}

/// What [`RowsJob`] makes of the exponentials.
trait Finish: Copy {
    /// Turns a row of exponentials (in `out`) into the result.
    fn finish<T: Math>(x: &[T], max: T, sum: T, log_sum: T, out: &mut [T]);
}

#[derive(Clone, Copy)]
struct Softmax;

impl Finish for Softmax {
    #[inline(always)]
    fn finish<T: Math>(_x: &[T], _max: T, sum: T, _log_sum: T, out: &mut [T]) {
        for out in out {
            *out = *out / sum;
        }
    }
}

#[derive(Clone, Copy)]
struct LogSoftmax;

impl Finish for LogSoftmax {
    #[inline(always)]
    fn finish<T: Math>(x: &[T], max: T, _sum: T, log_sum: T, out: &mut [T]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = x - max - log_sum;
        }
    }
}

struct RowsJob<'a, T, F> {
    finish: std::marker::PhantomData<F>,
    cols: usize,
    x: &'a [T],
    out: &'a mut [T],
}

impl<T: Math, F: Finish> Job for RowsJob<'_, T, F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let cols = self.cols;
        let step = rows_per_group(cols) * cols;
        for (x, out) in self.x.chunks(step).zip(self.out.chunks_mut(step)) {
            let rows = x.len() / cols;
            let (mut max, mut sum) = ([T::ZERO; GROUP_ROWS], [T::ZERO; GROUP_ROWS]);
            exponentials(cols, x, out, &mut max[..rows], &mut sum[..rows]);
            let mut log_sum = sum;
            map_in_place(f::Log {}, &mut log_sum[..rows]);
            for r in 0..rows {
                let row = r * cols..(r + 1) * cols;
                F::finish(&x[row.clone()], max[r], sum[r], log_sum[r], &mut out[row]);
            }
        }
    }
}

/// `out = exp(x) / sum(exp(x))` in each row. A row with `inf` or NaN, or of `-inf` alone, becomes NaN.
pub fn softmax_rows<T: Math>(rows: usize, cols: usize, x: &[T], out: &mut [T]) {
    assert!(x.len() == rows * cols && out.len() == x.len(), "contiguous (rows, cols) twice");
    if !x.is_empty() {
        dispatch(RowsJob::<T, Softmax> { finish: std::marker::PhantomData, cols, x, out });
    }
}

/// `out = x - log(sum(exp(x)))` in each row, with the special cases of [`softmax_rows`].
pub fn log_softmax_rows<T: Math>(rows: usize, cols: usize, x: &[T], out: &mut [T]) {
    assert!(x.len() == rows * cols && out.len() == x.len(), "contiguous (rows, cols) twice");
    if !x.is_empty() {
        dispatch(RowsJob::<T, LogSoftmax> { finish: std::marker::PhantomData, cols, x, out });
    }
}

struct LogSumExpJob<'a, T> {
    cols: usize,
    x: &'a [T],
    out: &'a mut [T],
}

impl<T: Math> Job for LogSumExpJob<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let cols = self.cols;
        let group = rows_per_group(cols);
        for (g, out) in self.out.chunks_mut(group).enumerate() {
            let rows = out.len();
            let x = &self.x[g * group * cols..][..rows * cols];
            let mut shift = [T::ZERO; GROUP_ROWS];
            let shift = &mut shift[..rows];
            row_maxima(cols, x, shift);
            for shift in &mut *shift {
                // inf - inf would be NaN; the sum is then 0 or infinite by itself.
                *shift = if shift.abs() == T::INFINITY { T::ZERO } else { *shift };
            }
            shifted_sums(cols, x, shift, out);
            map_in_place(f::Log {}, out);
            for (out, &shift) in out.iter_mut().zip(&*shift) {
                *out += shift;
            }
        }
    }
}

/// `log(sum(exp(x)))` of each row; `-inf` where a row holds nothing but `-inf`.
pub fn logsumexp_rows<T: Math>(rows: usize, cols: usize, x: &[T], out: &mut [T]) {
    assert!(x.len() == rows * cols && out.len() == rows, "contiguous (rows, cols) to (rows,)");
    dispatch(LogSumExpJob { cols, x, out });
}
