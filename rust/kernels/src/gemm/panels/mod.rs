//! Products with a matrix that is packed once and used many times, as the weights of a layer are.
//!
//! A packed `k x n` matrix is a row of panels. Each holds `k` steps of as many columns as the tile of
//! the active instruction set is wide; the last panel ends with the lane array that holds column `n - 1`.
//! Lanes beyond `n` are zeros when it is packed; nothing reads what becomes of them.
mod few;
mod gradient;
mod multiply;
#[cfg(test)]
mod tests;

pub use few::{DataGradient, FEW_ROWS, FewRows, Tuned, update_panels};
pub use gradient::{GRADIENT_ROWS, Gradients, gradient_panels};
pub use multiply::{Factor, Finish, InRegisters, Tile, TileMap, multiply_panels};

use std::ops::Range;

use super::blocking::RowTiles;
use super::pack::{self, Source, pack};
use super::tile::{self, End, Operands};
use super::{MatRef, span};
use crate::isa::{self, Isa, Job, dispatch};
use crate::lanes::{Lanes, Real};
use crate::math::Math;
use crate::pool;
use crate::reduce::{SquareSum, fold_columns};

/// Steps of k in a block: a panel of them stays in L1 while the rows of A pass.
const K_BLOCK: usize = 384;

/// Where the elements of a packed `k x n` matrix lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panels {
    k: usize,
    n: usize,
    /// Elements in a lane array.
    lane: usize,
    /// Columns of a full panel.
    nr: usize,
}

impl Panels {
    /// The layout that suits the active instruction set. Products accept a layout made for another one.
    pub fn new<T: Real>(k: usize, n: usize) -> Panels {
        Panels { k, n, lane: T::LANES, nr: isa::active().tile_lanes() * T::LANES }
    }

    /// The layout of the transpose.
    pub fn transposed(&self) -> Panels {
        Panels { k: self.n, n: self.k, ..*self }
    }

    /// Rows of the matrix.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of the matrix.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns of a full panel.
    pub fn width(&self) -> usize {
        self.nr
    }

    /// Columns with the padding of the last panel.
    pub fn padded(&self) -> usize {
        self.n.next_multiple_of(self.lane)
    }

    /// Elements of the packed matrix.
    pub fn len(&self) -> usize {
        self.k * self.padded()
    }

    /// Whether there is nothing to pack.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of panels.
    pub fn count(&self) -> usize {
        self.n.div_ceil(self.nr)
    }

    /// The columns of a panel.
    pub fn columns(&self, panel: usize) -> Range<usize> {
        panel * self.nr..self.n.min((panel + 1) * self.nr)
    }

    /// The elements of some rows of a panel: each row is [`Panels::stride`] long.
    pub fn segment(&self, panel: usize, rows: Range<usize>) -> Range<usize> {
        let (start, stride) = (panel * self.nr * self.k, self.stride(panel));
        start + rows.start * stride..start + rows.end * stride
    }

    /// Elements from a row of a panel to the next.
    pub fn stride(&self, panel: usize) -> usize {
        self.columns(panel).len().next_multiple_of(self.lane)
    }

    /// Packs `source`, a matrix of `k x n`.
    ///
    /// # Panics
    /// When a slice is too short.
    pub fn pack<T: Real>(&self, source: MatRef<'_, T>, packed: &mut [T]) {
        assert!(source.holds(self.k, self.n) && packed.len() >= self.len(), "a matrix and room for {self:?}");
        let target = Target { start: packed.as_mut_ptr(), len: packed.len(), stride: 0 };
        let pack = |panel: usize| {
            // By reference as a whole: the pointer alone is not for other threads.
            let target = &target;
            let (columns, segment) = (self.columns(panel), self.segment(panel, 0..self.k));
            assert!(segment.end <= target.len);
            // SAFETY: in bounds, and each panel is packed once.
            let panel =
                unsafe { std::slice::from_raw_parts_mut(target.start.add(segment.start), segment.len()) };
            let start = source.data[(columns.start * source.col_stride).min(source.data.len())..].as_ptr();
            let source = Source { start, column: source.col_stride, step: source.row_stride };
            dispatch(PackBlock { k: self.k, width: columns.len(), source, panel });
        };
        if self.len() < PARALLEL_PACK {
            (0..self.count()).for_each(pack);
        } else {
            pool::parallel(self.count(), &pack);
        }
    }

    /// Writes the matrix to element `(i, j)` at `i * row_stride + j * col_stride`.
    ///
    /// # Panics
    /// When a slice is too short.
    pub fn unpack<T: Real>(&self, packed: &[T], target: &mut [T], row_stride: usize, col_stride: usize) {
        let span = span(self.k, row_stride, self.n, col_stride);
        assert!(span.is_some_and(|span| span <= target.len()), "room for {self:?}");
        assert!(packed.len() >= self.len(), "a packed {self:?}");
        let target = Target { start: target.as_mut_ptr(), len: target.len(), stride: row_stride };
        let unpack = |panel: usize| {
            dispatch(UnpackPanel { layout: *self, panel, packed, target: &target, col_stride });
        };
        if self.len() < PARALLEL_PACK {
            (0..self.count()).for_each(unpack);
        } else {
            pool::parallel(self.count(), &unpack);
        }
    }

    /// The sums of squares of the columns: what [`crate::reduce::reduce_columns`] makes of the squares, to the bit.
    /// On all threads if `parallel`.
    ///
    /// # Panics
    /// When a slice is too short.
    pub fn square_sums<T: Math>(&self, packed: &[T], out: &mut [T], parallel: bool) {
        assert!(packed.len() >= self.len() && out.len() >= self.n, "a packed {self:?} and its columns");
        let target = Target { start: out.as_mut_ptr(), len: self.n, stride: 0 };
        let sum = |panel: usize| {
            // By reference as a whole, as in `pack`.
            let (target, columns) = (&target, self.columns(panel));
            // SAFETY: the columns are among the first n elements, and each panel has its own.
            let out =
                unsafe { std::slice::from_raw_parts_mut(target.start.add(columns.start), columns.len()) };
            let x = &packed[self.segment(panel, 0..self.k)];
            dispatch(SquareSums { k: self.k, stride: self.stride(panel), x, out });
        };
        if parallel {
            pool::parallel(self.count(), &sum);
        } else {
            (0..self.count()).for_each(sum);
        }
    }

    /// Packs the transpose of a block of this matrix, `rows` of `panel` as they lie in `block`, into
    /// `transposed`, the packed `n x k` matrix: the part that begins at [`Panels::transposed_segment`].
    /// `rows` begin at a panel of the transpose and end within it.
    ///
    /// # Panics
    /// When a slice is too short.
    pub fn pack_transposed<T: Real>(&self, panel: usize, rows: usize, block: &[T], transposed: &mut [T]) {
        let (stride, steps) = (self.stride(panel), self.columns(panel).len());
        let padded = rows.next_multiple_of(self.lane);
        assert!(rows <= self.nr && block.len() >= rows * stride && transposed.len() >= steps * padded);
        let source = Source { start: block.as_ptr(), column: stride, step: 1 };
        dispatch(PackBlock { k: steps, width: rows, source, panel: transposed });
    }

    /// Where [`Panels::pack_transposed`] writes in the packed transpose, whose layout is `of`.
    pub fn transposed_segment(&self, of: &Panels, panel: usize, rows: Range<usize>) -> Range<usize> {
        of.segment(rows.start / of.nr, self.columns(panel))
    }
}

/// Rows that are unpacked together, so that both sides stay in cache whichever of them is walked across.
const UNPACK_ROWS: usize = 64;

/// Elements from which panels are packed by all threads: about 10 us.
const PARALLEL_PACK: usize = 1 << 15;

/// Packs one panel, and fills its padding.
struct PackBlock<'a, T> {
    k: usize,
    width: usize,
    source: Source<T>,
    panel: &'a mut [T],
}

impl<T: Real> Job for PackBlock<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let PackBlock { k, width, source, panel } = self;
        let stride = width.next_multiple_of(T::LANES);
        assert!(panel.len() >= k * stride);
        // SAFETY: the makers of a `PackBlock` checked the source. A panel whose stride is whole lane arrays
        // is written within `k * stride`.
        unsafe { pack::<I, T>(k, width, stride, source, panel.as_mut_ptr()) };
        if width < stride {
            for step in panel.chunks_exact_mut(stride).take(k) {
                step[width..].fill(T::ZERO);
            }
        }
    }
}
/// Writes one panel back to a strided matrix, whose rows begin every `target.stride` elements.
struct UnpackPanel<'a, T> {
    layout: Panels,
    panel: usize,
    packed: &'a [T],
    target: &'a Target<T>,
    col_stride: usize,
}

impl<T: Real> Job for UnpackPanel<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let UnpackPanel { layout, panel, packed, target, col_stride } = self;
        let (columns, stride, row_stride) = (layout.columns(panel), layout.stride(panel), target.stride);
        for first in (0..layout.k).step_by(UNPACK_ROWS) {
            let rows = first..layout.k.min(first + UNPACK_ROWS);
            let block = &packed[layout.segment(panel, rows.clone())];
            // Whole groups of rows that lie side by side in a column of the target.
            let turned = if row_stride == 1 { rows.len() / pack::GROUP * pack::GROUP } else { 0 };
            if turned > 0 {
                let source = Source { start: block.as_ptr(), column: stride, step: 1 };
                // SAFETY: the block has the rows; the target has room for the matrix, and whole groups write
                // nothing beyond their rows.
                unsafe {
                    let target = target.start.add(first + columns.start * col_stride);
                    pack::transpose::<I, T>(columns.len(), turned, col_stride, source, target);
                }
            }
            for i in turned..rows.len() {
                for (j, column) in columns.clone().enumerate() {
                    // SAFETY: the target has room for the matrix, and nobody else writes this element.
                    unsafe {
                        *target.start.add((first + i) * row_stride + column * col_stride) =
                            block[i * stride + j];
                    }
                }
            }
        }
    }
}

/// Sums of squares of one panel's columns.
struct SquareSums<'a, T> {
    k: usize,
    stride: usize,
    x: &'a [T],
    out: &'a mut [T],
}

impl<T: Math> Job for SquareSums<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let SquareSums { k, stride, x, out } = self;
        let mut first = 0;
        // Two lane arrays at a time wait less for each other than one.
        while first + 2 * T::LANES <= out.len() {
            let sums = fold_columns::<T, SquareSum, 2>(SquareSum, k, stride, &x[first..]);
            sums.iter().zip(out[first..].chunks_exact_mut(T::LANES)).for_each(|(sums, out)| sums.store(out));
            first += 2 * T::LANES;
        }
        for first in (first..out.len()).step_by(T::LANES) {
            let [sums] = fold_columns::<T, SquareSum, 1>(SquareSum, k, stride, &x[first..]);
            let mut lanes = [T::ZERO; 16];
            sums.store(&mut lanes);
            let count = T::LANES.min(out.len() - first);
            out[first..first + count].copy_from_slice(&lanes[..count]);
        }
    }
}

/// Where threads write different parts.
struct Target<T> {
    start: *mut T,
    len: usize,
    stride: usize,
}

// SAFETY: each thread writes its own part.
unsafe impl<T: Send> Sync for Target<T> {}

/// Part `i` of `parts` of `count` things.
pub fn cut(count: usize, parts: usize, i: usize) -> Range<usize> {
    count * i / parts..count * (i + 1) / parts
}

/// Packs the row tiles of a block of A one after the other: tile `t`, which begins with row `start`, at
/// `start * k`. Row `i` of the block is column `i` of `source`.
///
/// # Safety
/// As [`pack`], for all rows of the tiles.
#[inline(always)]
unsafe fn pack_tiles<I: Isa, T: Real>(tiles: RowTiles, k: usize, source: Source<T>, target: *mut T) {
    for t in 0..tiles.count {
        let (first, rows) = tiles.get(t);
        // SAFETY: passed on from the caller; the tiles are packed in ascending order.
        unsafe {
            let start = source.start.add(first * source.column);
            pack::<I, T>(k, rows, rows, Source { start, ..source }, target.add(first * k));
        }
    }
}

/// A row tile over all `lanes` lane arrays of a panel, in as many tiles as the instruction set needs.
///
/// # Safety
/// As [`tile::run`].
#[inline(always)]
unsafe fn run_tiles<I: Isa, T: Real>(rows: usize, lanes: usize, o: Operands<'_, T>) {
    if lanes <= tile::most_lanes::<I>(rows) {
        // SAFETY: passed on from the caller.
        unsafe { tile::run::<I, T>(rows, lanes, o) };
        return;
    }
    // A layout that was made for wider tiles.
    let beside = |start: *const T| if start.is_null() { start } else { start.wrapping_add(T::LANES) };
    let mut o = o;
    for _ in 0..lanes {
        // SAFETY: passed on from the caller.
        unsafe { tile::run::<I, T>(rows, 1, o) };
        let End { bias, gate, .. } = o.end;
        let end = End { bias: beside(bias), gate: beside(gate), ..o.end };
        o = Operands { b: o.b.wrapping_add(T::LANES), c: o.c.wrapping_add(T::LANES), end, ..o };
    }
}
