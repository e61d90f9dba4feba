//! Matrix product `C = A B` with any strides, an optional epilogue on the finished tiles, and the
//! split over threads. Blocking is in `blocking.rs`, packing in `pack.rs`, the microkernel in `tile.rs`.
//!
//! Promise: `C[i][j]` is the chain `c = fma(A[i][p], B[p][j], c)` for `p` ascending, from 0 (from the
//! old C when accumulating). No block size, instruction set or thread count changes a bit of it, and a
//! zero factor skips nothing: `0 * inf` is NaN.

mod blocking;
pub(crate) mod pack;
pub mod panels;
mod tile;

use std::ops::Range;

use crate::isa::{Isa, Job, dispatch};
use crate::lanes::Real;
use crate::pool;
use blocking::{Product, Rectangle};

/// A read-only matrix on a slice: element `(i, j)` is at `i * row_stride + j * col_stride`.
/// A stride of 0 repeats a row or column.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a, T> {
    data: &'a [T],
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T> MatRef<'a, T> {
    /// A view with explicit strides.
    pub fn new(data: &'a [T], row_stride: usize, col_stride: usize) -> Self {
        MatRef { data, row_stride, col_stride }
    }

    /// A view of rows that follow each other every `row_stride` elements.
    pub fn rows(data: &'a [T], row_stride: usize) -> Self {
        MatRef::new(data, row_stride, 1)
    }

    /// The transposed view of the same elements.
    pub fn transposed(self) -> Self {
        MatRef::new(self.data, self.col_stride, self.row_stride)
    }

    fn holds(&self, rows: usize, cols: usize) -> bool {
        span(rows, self.row_stride, cols, self.col_stride).is_some_and(|span| span <= self.data.len())
    }
}

/// Elements from the first to the last of a strided matrix; `None` where that overflows.
fn span(rows: usize, row_stride: usize, cols: usize, col_stride: usize) -> Option<usize> {
    if rows == 0 || cols == 0 {
        return Some(0);
    }
    let last = (rows - 1).checked_mul(row_stride)?.checked_add((cols - 1).checked_mul(col_stride)?)?;
    last.checked_add(1)
}

/// What happens to the elements of C once, after their sum is complete and while they are in L1.
pub trait Epilogue<T>: Sync {
    /// Finishes `values`, the elements of C from `(row, column)` rightwards. Mark it
    /// `#[inline(always)]`: it is compiled once per instruction set.
    ///
    /// Each element is passed exactly once; how a row is cut into segments is not specified, so the
    /// result for an element must depend only on its value and its place.
    fn finish(&self, row: usize, column: usize, values: &mut [T]);

    /// Whether `finish` does nothing, so that it need not be called.
    fn is_identity(&self) -> bool {
        false
    }
}

/// Leaves C as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEpilogue;

impl<T> Epilogue<T> for NoEpilogue {
    #[inline(always)]
    fn finish(&self, _row: usize, _column: usize, _values: &mut [T]) {}

    fn is_identity(&self) -> bool {
        true
    }
}

/// Adds `bias[column]` to every row. The slice holds a value for each column of C.
#[derive(Clone, Copy, Debug)]
pub struct Bias<'a, T>(pub &'a [T]);

impl<T: Real> Epilogue<T> for Bias<'_, T> {
    #[inline(always)]
    fn finish(&self, _row: usize, column: usize, values: &mut [T]) {
        let bias = &self.0[column..column + values.len()];
        for j in 0..values.len() {
            values[j] += bias[j];
        }
    }
}

/// `C = A B`, or `C += A B` with `accumulate`, for A of `m x k`, B of `k x n` and C of `m x n` whose
/// rows begin every `c_stride` elements; then `epilogue` on each element of C. With `k = 0` the sums
/// are empty: C is 0 (or unchanged) before the epilogue. Elements of `c` between rows are not touched.
///
/// # Panics
/// When a slice is too short for its shape, or rows of C overlap.
pub fn gemm<T: Real>(
    m: usize,
    n: usize,
    k: usize,
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    c: &mut [T],
    c_stride: usize,
    accumulate: bool,
    epilogue: &impl Epilogue<T>,
) {
    assert!(a.holds(m, k), "gemm: A of {m} x {k} exceeds its slice of {}", a.data.len());
    assert!(b.holds(k, n), "gemm: B of {k} x {n} exceeds its slice of {}", b.data.len());
    let c_span = span(m, c_stride, n, 1);
    assert!(c_span.is_some_and(|s| s <= c.len()), "gemm: C of {m} x {n} exceeds its slice of {}", c.len());
    assert!(m <= 1 || c_stride >= n, "gemm: rows of C overlap, stride {c_stride} for {n} columns");
    if m == 0 || n == 0 {
        return;
    }
    let product = Product {
        k,
        a: a.data.as_ptr(),
        a_row: a.row_stride,
        a_k: a.col_stride,
        b: b.data.as_ptr(),
        b_k: b.row_stride,
        b_col: b.col_stride,
        c: c.as_mut_ptr(),
        c_row: c_stride,
        accumulate,
        finish: if epilogue.is_identity() { None } else { Some(epilogue) },
    };
    let flop = 2.0 * m as f64 * n as f64 * k as f64;
    if flop < PARALLEL_FLOP || pool::num_threads() == 1 {
        // SAFETY: the operands were checked against their slices above.
        unsafe { blocking::multiply(&product, 0..m, 0..n) };
        return;
    }
    let grid = Grid::choose::<T>(m, n, flop, pool::num_threads());
    pool::parallel(grid.rows * grid.cols, &|unit| {
        let (rows, cols) = grid.unit::<T>(m, n, unit);
        // SAFETY: as above; the units are disjoint rectangles of C.
        unsafe { blocking::multiply(&product, rows, cols) };
    });
}

/// Below this the work (about 5 us) is not worth waking a thread for.
const PARALLEL_FLOP: f64 = 0.5e6;
/// Units are not cut finer than this, so that claiming and packing stay cheap beside the work.
const UNIT_FLOP: f64 = 4e6;
/// A multiple of the tile rows of every instruction set.
const UNIT_ROWS: usize = 12;

/// The rectangles into which C is cut for the threads. Every cut is a multiple of the largest tile.
#[derive(Clone, Copy, Debug)]
struct Grid {
    rows: usize,
    cols: usize,
}

impl Grid {
    /// The grid of least modelled time: rounds of units, each its multiplications plus packing, where
    /// packing an element costs about as much as 16 multiply-adds.
    fn choose<T: Real>(m: usize, n: usize, flop: f64, threads: usize) -> Grid {
        const PACK: usize = 16;
        let (bands, panels) = (m.div_ceil(UNIT_ROWS), n.div_ceil(2 * T::LANES));
        let most = threads * 4;
        // Several units a thread where there is enough work: a late or slow thread then takes fewer.
        let wanted = ((flop / UNIT_FLOP) as usize).clamp(threads, most);
        let mut best = (usize::MAX, Grid { rows: 1, cols: 1 });
        for rows in 1..=bands.min(most) {
            let cols = panels.min(wanted.div_ceil(rows));
            let (unit_m, unit_n) = (bands.div_ceil(rows) * UNIT_ROWS, panels.div_ceil(cols) * 2 * T::LANES);
            let rounds = (rows * cols).div_ceil(threads);
            let time = rounds * (unit_m * unit_n + PACK * (unit_m + unit_n));
            if time < best.0 {
                best = (time, Grid { rows, cols });
            }
        }
        best.1
    }

    fn unit<T: Real>(self, m: usize, n: usize, unit: usize) -> (Range<usize>, Range<usize>) {
        let cut = |size: usize, step: usize, parts: usize, part: usize| {
            let steps = size.div_ceil(step);
            (steps * part / parts * step).min(size)..(steps * (part + 1) / parts * step).min(size)
        };
        (cut(m, UNIT_ROWS, self.rows, unit / self.cols), cut(n, 2 * T::LANES, self.cols, unit % self.cols))
    }
}

/// An [`Epilogue`] behind a pointer, so that the blocked product is compiled once per element type and
/// not once per epilogue. The call costs a few cycles for each tile.
trait FinishTile<T>: Sync {
    /// # Safety
    /// The tile must lie in C, and no other thread may touch it.
    unsafe fn finish_tile(&self, tile: FinishedTile<T>);
}

/// A tile of C whose sums are complete.
struct FinishedTile<T> {
    row: usize,
    column: usize,
    rows: usize,
    cols: usize,
    c: *mut T,
    c_row: usize,
}

impl<T: Real, E: Epilogue<T>> FinishTile<T> for E {
    unsafe fn finish_tile(&self, tile: FinishedTile<T>) {
        dispatch(Finish { epilogue: self, tile });
    }
}

struct Finish<'a, T, E> {
    epilogue: &'a E,
    tile: FinishedTile<T>,
}

impl<T: Real, E: Epilogue<T>> Job for Finish<'_, T, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let FinishedTile { row, column, rows, cols, c, c_row } = self.tile;
        for i in 0..rows {
            // SAFETY: `finish_tile` promises the tile; segments of different rows do not overlap.
            let values = unsafe { std::slice::from_raw_parts_mut(c.add(i * c_row), cols) };
            self.epilogue.finish(row + i, column, values);
        }
    }
}

impl<T: Real> Job for Rectangle<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        // SAFETY: `multiply` is the only maker of a `Rectangle` and has the caller's promise.
        unsafe { self.run_blocks::<I>() }
    }
}
