//! Products with a matrix that is packed once and used many times, as the weights of a layer are.
//!
//! A packed `k x n` matrix is a row of panels. Each holds `k` steps of as many columns as the tile of
//! the active instruction set is wide; the last panel ends with the lane array that holds column `n - 1`.
//! Lanes beyond `n` are zeros and stay zeros.

use std::marker::PhantomData;
use std::ops::Range;

use super::blocking::{Line, RowTiles, SCRATCH, balanced, reserve};
use super::pack::{SPILL, Source, pack};
use super::tile::{self, Operands};
use super::{MatRef, span};
use crate::gather::prefetch;
use crate::isa::{self, Isa, Job, dispatch};
use crate::lanes::{Lanes, Real};
use crate::pool;

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
        // Blocks of rows, so that both sides stay in cache whichever of them is walked across.
        for panel in 0..self.count() {
            let (columns, stride) = (self.columns(panel), self.stride(panel));
            for first in (0..self.k).step_by(UNPACK_ROWS) {
                let rows = first..self.k.min(first + UNPACK_ROWS);
                let block = &packed[self.segment(panel, rows.clone())];
                for (j, column) in columns.clone().enumerate() {
                    for (i, row) in rows.clone().enumerate() {
                        target[row * row_stride + column * col_stride] = block[i * stride + j];
                    }
                }
            }
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

/// Rows that are unpacked together: one line of a row-major matrix's column.
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

/// Finished sums of a product, as they lie in C: whole lane arrays, the padding of the last panel included.
pub struct Tile<'a, T> {
    row: usize,
    column: usize,
    rows: usize,
    lanes: usize,
    /// Where the first lies, and the elements from a row to the next.
    start: *mut T,
    stride: usize,
    values: PhantomData<&'a mut T>,
}

impl<T: Real> Tile<'_, T> {
    /// Replaces each lane array by what `f` makes of it.
    #[inline(always)]
    pub fn map(&mut self, f: impl TileMap<T>) {
        for v in 0..self.lanes {
            let column = self.column + v * T::LANES;
            let common = f.common(column);
            for i in 0..self.rows {
                // SAFETY: who makes a `Tile` vouches for its elements, and lends them to it alone.
                let values = unsafe {
                    std::slice::from_raw_parts_mut(self.start.add(i * self.stride + v * T::LANES), T::LANES)
                };
                f.apply(self.row + i, column, common, T::Lanes::load(values)).store(values);
            }
        }
    }
}

/// A function of lane arrays and their place. A trait, because closures cannot be told to be inlined: a call would
/// leave the code compiled for the instruction set.
pub trait TileMap<T: Real>: Copy {
    /// What lane arrays of the same columns share.
    type Common: Copy;
    /// For the columns from `column` on.
    fn common(self, column: usize) -> Self::Common;
    /// For the lane array whose first element is at `(row, column)`.
    fn apply(self, row: usize, column: usize, common: Self::Common, x: T::Lanes) -> T::Lanes;
}

/// What is done to the elements of a product once their sums are complete.
pub trait Finish<T>: Sync {
    /// Finishes a tile. Mark it `#[inline(always)]`: it is compiled for each instruction set.
    fn finish(&self, tile: Tile<'_, T>);
}

/// Leaves the sums as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep;

impl<T> Finish<T> for Keep {
    #[inline(always)]
    fn finish(&self, _tile: Tile<'_, T>) {}
}

/// `C = A B` for packed B, then `finish`. A has `m` rows. Rows of C begin every `c_stride` elements; where that
/// leaves room for the padding of the last panel, the padding is written too, and where it does not, `finish`
/// sees it in a buffer. The sums are those of [`super::gemm`], to the bit.
///
/// With `threads` above 1 the panels, and where they are too few also the rows, are split over the threads of the
/// pool: the same thread takes the same panels each time, as far as it comes in time.
///
/// # Panics
/// When a slice is too short for its shape, or rows of C overlap.
pub fn multiply_panels<T: Real>(
    m: usize,
    a: MatRef<'_, T>,
    b: &[T],
    layout: &Panels,
    c: &mut [T],
    c_stride: usize,
    finish: &impl Finish<T>,
    threads: usize,
) {
    let Panels { k, n, .. } = *layout;
    assert!(a.holds(m, k) && b.len() >= layout.len(), "operands of {layout:?}");
    assert!(span(m, c_stride, n, 1).is_some_and(|span| span <= c.len()) && (m <= 1 || c_stride >= n));
    if m == 0 || n == 0 {
        return;
    }
    let target = Target { start: c.as_mut_ptr(), len: c.len(), stride: c_stride };
    let part = |panels: Range<usize>, rows: Range<usize>| {
        let mut scratch = SCRATCH.take();
        let layout = *layout;
        dispatch(Multiply { rows, a, b, layout, panels, c: &target, finish, scratch: &mut scratch });
        SCRATCH.set(scratch);
    };
    let by_panels = threads.min(layout.count());
    let by_rows = (threads / by_panels).min(m);
    if by_panels * by_rows == 1 {
        return part(0..layout.count(), 0..m);
    }
    pool::parallel(by_panels * by_rows, &|task| {
        let (i, j) = (task / by_rows, task % by_rows);
        part(cut(layout.count(), by_panels, i), cut(m, by_rows, j));
    });
}

/// Part `i` of `parts` of `count` things.
pub fn cut(count: usize, parts: usize, i: usize) -> Range<usize> {
    count * i / parts..count * (i + 1) / parts
}

/// Where a product is written: threads write different panels or rows of it.
struct Target<T> {
    start: *mut T,
    len: usize,
    stride: usize,
}

// SAFETY: each thread writes its own rectangle.
unsafe impl<T: Send> Sync for Target<T> {}

struct Multiply<'a, T, F> {
    rows: Range<usize>,
    a: MatRef<'a, T>,
    b: &'a [T],
    layout: Panels,
    panels: Range<usize>,
    c: &'a Target<T>,
    finish: &'a F,
    scratch: &'a mut Vec<Line>,
}

/// Steps of k in a block: a panel of them stays in L1 while the rows of A pass.
const K_BLOCK: usize = 384;
/// Rows of A for which one panel is read: their packed block stays in L2.
const ROW_BLOCK: usize = 192;
/// Columns of C from which packing A pays for itself.
const PACK_A_COLUMNS: usize = 256;

impl<T: Real, F: Finish<T>> Job for Multiply<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Multiply { rows: all_rows, a, b, layout, panels, c, finish, scratch } = self;
        let (k, m, c_stride) = (layout.k, all_rows.len(), c.stride);
        let (kc, k_blocks) = balanced(k, K_BLOCK);
        let (row_block, row_blocks) = balanced(m, ROW_BLOCK);
        let packs_a = m > 1 && panels.len() * layout.nr >= PACK_A_COLUMNS;
        let last = panels.end - 1;
        // Where rows of C have no room for the last panel's padding, it gets a C of its own.
        let padded_end = layout.columns(last).start + layout.stride(last);
        let fits = padded_end == layout.columns(last).end
            || span(all_rows.end, c_stride, padded_end, 1).is_some_and(|span| span <= c.len)
                && (all_rows.end <= 1 || c_stride >= padded_end);
        let edge_stride = layout.stride(last);
        let a_len = if packs_a { (row_block * kc + SPILL).next_multiple_of(T::LANES) } else { 0 };
        let edge_len = if fits { 0 } else { row_block * edge_stride };
        let a_pack = reserve::<T>(scratch, a_len + edge_len);
        // SAFETY: `a_len` elements of the buffer come before the edge.
        let edge = unsafe { a_pack.add(a_len) };
        for i in 0..row_blocks {
            let rows = all_rows.start + i * row_block..all_rows.end.min(all_rows.start + (i + 1) * row_block);
            let tiles = RowTiles::new(rows.len(), I::TILE_ROWS);
            for block in 0..k_blocks {
                let first = block * kc;
                let kc = kc.min(k - first);
                // SAFETY: row `rows.start` and step `first` are in A.
                let a_block =
                    unsafe { a.data.as_ptr().add(rows.start * a.row_stride + first * a.col_stride) };
                if packs_a {
                    for t in 0..tiles.count {
                        let (start, r) = tiles.get(t);
                        // SAFETY: the rows and steps are in A; the buffer has `a_len` elements, and tiles
                        // are packed in ascending order.
                        unsafe {
                            let start_at = a_block.add(start * a.row_stride);
                            let source = Source { start: start_at, column: a.row_stride, step: a.col_stride };
                            pack::<I, T>(kc, r, r, source, a_pack.add(start * kc));
                        }
                    }
                }
                for panel in panels.clone() {
                    let (columns, b_k) = (layout.columns(panel), layout.stride(panel));
                    let b_start = layout.segment(panel, first..first).start;
                    let b_panel = b[b_start..b_start + kc * b_k].as_ptr();
                    let in_edge = !fits && panel == last;
                    for t in 0..tiles.count {
                        let (start, r) = tiles.get(t);
                        let row = rows.start + start;
                        let (c_at, c_row) = if in_edge {
                            // SAFETY: `start + r` rows of the edge.
                            (unsafe { edge.add(start * edge_stride) }, edge_stride)
                        } else {
                            // SAFETY: (row, columns.start) is in C.
                            (unsafe { c.start.add(row * c_stride + columns.start) }, c_stride)
                        };
                        let (a, a_row, a_k) = if packs_a {
                            // SAFETY: packed above.
                            (unsafe { a_pack.add(start * kc) }.cast_const(), 1, r)
                        } else {
                            // SAFETY: the row is in A.
                            (unsafe { a_block.add(start * a.row_stride) }, a.row_stride, a.col_stride)
                        };
                        let operands = Operands {
                            k: kc,
                            a,
                            a_row,
                            a_k,
                            b: b_panel,
                            b_k,
                            c: c_at,
                            c_row,
                            resume: block > 0,
                        };
                        // SAFETY: A and B hold the tile's operands; C or the edge has room for the whole panel.
                        unsafe { run_tiles::<I, T>(r, b_k / T::LANES, packs_a, operands) };
                        if block + 1 == k_blocks {
                            // These elements of C or of the edge were just written, and nothing else refers to
                            // them now.
                            finish.finish(Tile {
                                row,
                                column: columns.start,
                                rows: r,
                                lanes: b_k / T::LANES,
                                start: c_at,
                                stride: c_row,
                                values: PhantomData,
                            });
                        }
                    }
                    if in_edge && block + 1 == k_blocks {
                        for (i, row) in rows.clone().enumerate() {
                            for (j, column) in columns.clone().enumerate() {
                                // SAFETY: row i of the edge was written; the element is in C.
                                unsafe {
                                    *c.start.add(row * c_stride + column) = *edge.add(i * edge_stride + j)
                                };
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A row tile over all `lanes` lane arrays of a panel, in as many tiles as the instruction set needs.
///
/// # Safety
/// As [`tile::run`].
#[inline(always)]
unsafe fn run_tiles<I: Isa, T: Real>(rows: usize, lanes: usize, is_packed: bool, o: Operands<T>) {
    if lanes <= tile::most_lanes::<I>(rows) {
        let is_packed = is_packed && tile::reads_panels::<I>(rows, lanes);
        // SAFETY: passed on from the caller.
        unsafe { tile::run::<I, T>(rows, lanes, is_packed, o) };
        return;
    }
    // A layout that was made for wider tiles.
    for lane in 0..lanes {
        // SAFETY: passed on from the caller.
        unsafe {
            let (b, c) = (o.b.add(lane * T::LANES), o.c.add(lane * T::LANES));
            tile::run::<I, T>(rows, 1, false, Operands { b, c, ..o });
        }
    }
}

/// Takes a finished block of a gradient: its panel, its rows, and its values, laid out as those of the packed weight.
pub type GradientBlock<'a, T> = dyn FnMut(usize, Range<usize>, &mut [T]) + 'a;

/// The gradient of a packed weight: `A^T D` for some rows and panels of it, where A is `batch x k`
/// and D is `batch x n`, on this thread. `update` gets each finished block. `rows` are cut into blocks of [`GRADIENT_ROWS`], so they
/// should begin at a multiple of it. The sums are those of [`super::gemm`], to the bit.
///
/// `near` holds the addresses of packed arrays of the weight's layout that `update` works on: what belongs to a tile
/// is asked for while the tile is computed (without that the update of a block waits for the second-level cache:
/// 20 % of the time for a batch of 64).
///
/// # Panics
/// When a slice is too short.
pub fn gradient_panels<T: Real>(
    batch: usize,
    a: MatRef<'_, T>,
    d: MatRef<'_, T>,
    layout: &Panels,
    panels: Range<usize>,
    rows: Range<usize>,
    near: &[usize],
    update: &mut GradientBlock<'_, T>,
) {
    let Panels { k, n, .. } = *layout;
    assert!(a.holds(batch, k) && d.holds(batch, n) && panels.end <= layout.count() && rows.end <= k);
    let mut scratch = SCRATCH.take();
    dispatch(Gradient { batch, a, d, layout: *layout, panels, rows, near, update, scratch: &mut scratch });
    SCRATCH.set(scratch);
}

/// Rows of a weight's gradient that are finished together: a multiple of every tile's rows and panel's width.
pub const GRADIENT_ROWS: usize = 96;

struct Gradient<'a, 'u, T> {
    batch: usize,
    a: MatRef<'a, T>,
    d: MatRef<'a, T>,
    layout: Panels,
    panels: Range<usize>,
    rows: Range<usize>,
    near: &'a [usize],
    update: &'a mut GradientBlock<'u, T>,
    scratch: &'a mut Vec<Line>,
}

/// Samples from which packing a panel of D pays for itself.
const PACK_D_SAMPLES: usize = 256;

impl<T: Real> Job for Gradient<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Gradient { batch, a, d, layout, panels, rows, near, update, scratch } = self;
        let (kc, k_blocks) = balanced(batch, K_BLOCK);
        let nr = layout.nr;
        let a_len = (GRADIENT_ROWS * kc + SPILL).next_multiple_of(T::LANES);
        let d_len = nr * kc + SPILL;
        let c_len = GRADIENT_ROWS * nr;
        // With several blocks the sums of all panels rest while the next block is packed.
        let c_count = if k_blocks > 1 { panels.len() } else { 1 };
        let c_all = reserve::<T>(scratch, c_len * c_count + d_len.next_multiple_of(T::LANES) + a_len);
        // SAFETY: the parts lie side by side in the buffer.
        let (d_pack, a_pack) = unsafe {
            (c_all.add(c_len * c_count), c_all.add(c_len * c_count + d_len.next_multiple_of(T::LANES)))
        };
        for first_row in rows.clone().step_by(GRADIENT_ROWS) {
            let rows = first_row..rows.end.min(first_row + GRADIENT_ROWS);
            let tiles = RowTiles::new(rows.len(), I::TILE_ROWS);
            let packs_a = panels.len() * nr >= PACK_A_COLUMNS;
            for block in 0..k_blocks {
                let first = block * kc;
                let kc = kc.min(batch - first);
                // SAFETY: the sample and the column are in A.
                let a_block =
                    unsafe { a.data.as_ptr().add(first * a.row_stride + rows.start * a.col_stride) };
                if packs_a {
                    for t in 0..tiles.count {
                        let (start, r) = tiles.get(t);
                        // SAFETY: the columns and samples are in A; the buffer has `a_len` elements, and
                        // tiles are packed in ascending order.
                        unsafe {
                            let start_at = a_block.add(start * a.col_stride);
                            let source = Source { start: start_at, column: a.col_stride, step: a.row_stride };
                            pack::<I, T>(kc, r, r, source, a_pack.add(start * kc));
                        }
                    }
                }
                for panel in panels.clone() {
                    let (columns, stride) = (layout.columns(panel), layout.stride(panel));
                    let is_whole = columns.len() == stride && d.col_stride == 1;
                    // SAFETY: the sample and the column are in D.
                    let d_block =
                        unsafe { d.data.as_ptr().add(first * d.row_stride + columns.start * d.col_stride) };
                    let (b, b_k) = if is_whole && batch < PACK_D_SAMPLES {
                        (d_block, d.row_stride)
                    } else {
                        let source = Source { start: d_block, column: d.col_stride, step: d.row_stride };
                        // SAFETY: `d_len` elements of the buffer are the panel's.
                        let target = unsafe { std::slice::from_raw_parts_mut(d_pack, d_len) };
                        PackBlock { k: kc, width: columns.len(), source, panel: target }.run::<I>();
                        (d_pack.cast_const(), stride)
                    };
                    let at = if k_blocks > 1 { panel - panels.start } else { 0 };
                    // SAFETY: `c_count` blocks of `c_len` elements.
                    let c = unsafe { c_all.add(at * c_len) };
                    for t in 0..tiles.count {
                        let (start, r) = tiles.get(t);
                        let (a, a_row, a_k) = if packs_a {
                            // SAFETY: packed above.
                            (unsafe { a_pack.add(start * kc) }.cast_const(), 1, r)
                        } else {
                            // SAFETY: the column is in A.
                            (unsafe { a_block.add(start * a.col_stride) }, a.col_stride, a.row_stride)
                        };
                        if block + 1 == k_blocks {
                            let tile = layout.segment(panel, rows.start + start..rows.start + start + r);
                            for address in near {
                                let start = address.wrapping_add(tile.start * size_of::<T>());
                                prefetch(start as *const u8, tile.len() * size_of::<T>());
                            }
                        }
                        // SAFETY: the tile is in this block of C.
                        let c = unsafe { c.add(start * stride) };
                        let operands =
                            Operands { k: kc, a, a_row, a_k, b, b_k, c, c_row: stride, resume: block > 0 };
                        let is_panel = b_k == stride;
                        // SAFETY: the packed operands or A and D hold the tile's; `b_k` is the panel's stride
                        // or D's, whose rows hold the whole panel.
                        unsafe { run_tiles::<I, T>(r, stride / T::LANES, packs_a && is_panel, operands) };
                    }
                    if block + 1 == k_blocks {
                        // SAFETY: the block's rows were written, and nothing else refers to them now.
                        let gradient = unsafe { std::slice::from_raw_parts_mut(c, rows.len() * stride) };
                        update(panel, rows.clone(), gradient);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::{NoEpilogue, gemm};
    use crate::isa::on_every_level;

    fn wave(len: usize, step: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * step).sin()).collect()
    }

    fn product(m: usize, n: usize, k: usize, a: MatRef<'_, f32>, b: MatRef<'_, f32>) -> Vec<f32> {
        let mut c = vec![0.0; m * n];
        gemm(m, n, k, a, b, &mut c, n, false, &NoEpilogue);
        c
    }

    #[derive(Clone, Copy)]
    struct Twice;
    impl<T: Real> TileMap<T> for Twice {
        type Common = ();
        fn common(self, _column: usize) {}
        fn apply(self, _row: usize, _column: usize, (): (), x: T::Lanes) -> T::Lanes {
            x.map(|x| x + x)
        }
    }
    impl<T: Real> Finish<T> for Twice {
        #[inline(always)]
        fn finish(&self, mut tile: Tile<'_, T>) {
            tile.map(Twice);
        }
    }

    const SHAPES: [(usize, usize, usize); 8] = [
        (1, 1, 1),
        (3, 10, 0),
        (7, 16, 5),
        (13, 33, 40),
        (64, 10, 128),
        (30, 100, 257),
        (200, 70, 9),
        (2, 64, 600),
    ];

    #[test]
    fn packing_keeps_every_element_and_zeros_the_rest() {
        on_every_level(|level| {
            for (_, n, k) in SHAPES {
                let layout = Panels::new::<f32>(k, n);
                let source = wave(k * n, 0.7);
                for (row, col) in [(n, 1), (1, k)] {
                    let mut packed = vec![f32::NAN; layout.len()];
                    layout.pack(MatRef::new(&source, row, col), &mut packed);
                    let mut back = vec![0.0; k * n];
                    layout.unpack(&packed, &mut back, row, col);
                    assert_eq!(back, source, "{level} {k} x {n}");
                    let zeros = packed.iter().filter(|&&v| v == 0.0).count();
                    let real = source.iter().filter(|&&v| v == 0.0).count();
                    assert_eq!(zeros, real + k * (layout.padded() - n), "{level} {k} x {n}");
                }
            }
        });
    }

    #[test]
    fn the_transpose_is_packed_block_by_block() {
        on_every_level(|level| {
            for (_, n, k) in SHAPES {
                let (layout, transpose) = (Panels::new::<f32>(k, n), Panels::new::<f32>(n, k));
                let source = wave(k * n, 0.7);
                let (mut packed, mut want) = (vec![0.0; layout.len()], vec![0.0; transpose.len()]);
                layout.pack(MatRef::rows(&source, n), &mut packed);
                transpose.pack(MatRef::rows(&source, n).transposed(), &mut want);
                let mut got = vec![f32::NAN; transpose.len()];
                for panel in 0..layout.count() {
                    for first in (0..k).step_by(transpose.width()) {
                        let rows = first..k.min(first + transpose.width());
                        let block = &packed[layout.segment(panel, rows.clone())];
                        let target = layout.transposed_segment(&transpose, panel, rows.clone());
                        layout.pack_transposed(panel, rows.len(), block, &mut got[target]);
                    }
                }
                assert_eq!(got, want, "{level} {k} x {n}");
            }
        });
    }

    #[test]
    fn products_have_the_bits_of_gemm_with_and_without_room_for_padding() {
        on_every_level(|level| {
            for (m, n, k) in SHAPES {
                let (a, b) = (wave(m * k, 0.37), wave(k * n, 0.73));
                let want = product(m, n, k, MatRef::rows(&a, k), MatRef::rows(&b, n));
                let layout = Panels::new::<f32>(k, n);
                let mut packed = vec![0.0; layout.len()];
                layout.pack(MatRef::rows(&b, n), &mut packed);
                for stride in [n, layout.padded() + 16] {
                    let mut c = vec![f32::NAN; m * stride];
                    let a = MatRef::rows(&a, k);
                    multiply_panels(m, a, &packed, &layout, &mut c, stride, &Twice, 1 + m % 3);
                    for (row, want) in c.chunks(stride).zip(want.chunks(n)) {
                        let twice: Vec<f32> = want.iter().map(|v| v + v).collect();
                        assert_eq!(&row[..n], twice, "{level} {m} x {n} x {k}");
                    }
                }
            }
        });
    }

    #[test]
    fn gradients_have_the_bits_of_gemm_whatever_the_rectangle() {
        on_every_level(|level| {
            for (k, n, batch) in SHAPES {
                let (a, d) = (wave(batch * k, 0.37), wave(batch * n, 0.73));
                let want = product(k, n, batch, MatRef::rows(&a, k).transposed(), MatRef::rows(&d, n));
                let layout = Panels::new::<f32>(k, n);
                let mut packed = vec![0.0; layout.len()];
                let count = layout.count();
                for panels in [0..count / 2, count / 2..count] {
                    for first in (0..k).step_by(GRADIENT_ROWS) {
                        let rows = first..k.min(first + GRADIENT_ROWS);
                        let (a, d) = (MatRef::rows(&a, k), MatRef::rows(&d, n));
                        let mut update = |panel, rows, gradient: &mut [f32]| {
                            packed[layout.segment(panel, rows)].copy_from_slice(gradient);
                        };
                        gradient_panels(batch, a, d, &layout, panels.clone(), rows, &[], &mut update);
                    }
                }
                let mut got = vec![0.0; k * n];
                layout.unpack(&packed, &mut got, n, 1);
                assert_eq!(got, want, "{level} {k} x {n} over {batch}");
            }
        });
    }

    #[test]
    fn a_layout_made_for_another_instruction_set_gives_the_same_bits() {
        let (m, n, k) = (13, 50, 40);
        let (a, b) = (wave(m * k, 0.37), wave(k * n, 0.73));
        let mut layouts = Vec::new();
        on_every_level(|_| layouts.push(Panels::new::<f32>(k, n)));
        on_every_level(|level| {
            let want = product(m, n, k, MatRef::rows(&a, k), MatRef::rows(&b, n));
            for layout in &layouts {
                let mut packed = vec![0.0; layout.len()];
                layout.pack(MatRef::rows(&b, n), &mut packed);
                let mut c = vec![0.0; m * n];
                let a = MatRef::rows(&a, k);
                multiply_panels(m, a, &packed, layout, &mut c, n, &Keep, 1);
                assert_eq!(c, want, "{level} {layout:?}");
            }
        });
    }
}
