//! Products of rows with a packed matrix, and what is done to their tiles.

use std::hint::black_box;
use std::marker::PhantomData;
use std::ops::Range;

use super::{K_BLOCK, PackBlock, Panels, Target, cut, pack_tiles, run_tiles};
use crate::gemm::blocking::{Line, RowTiles, SCRATCH, balanced, reserve};
use crate::gemm::pack::{SPILL, Source};
use crate::gemm::tile::{Ahead, End, MAX_WIDTH, Operands};
use crate::gemm::{MatRef, span};
use crate::isa::{Isa, Job, dispatch};
use crate::lanes::{Lanes, Real};
use crate::pool;

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
    /// Sums from `(row, column)` on, as many rows and lane arrays, where they lie and every so many elements.
    ///
    /// # Safety
    /// The elements must be there, and nothing else refer to them while there is a `Tile`.
    #[inline(always)]
    pub(super) unsafe fn new(
        (row, column): (usize, usize),
        (rows, lanes): (usize, usize),
        (start, stride): (*mut T, usize),
    ) -> Self {
        Tile { row, column, rows, lanes, start, stride, values: PhantomData }
    }

    /// Replaces each lane array by what `f` makes of it.
    #[inline(always)]
    pub fn map(&mut self, f: impl TileMap<T>) {
        // Hidden from the compiler: where it sees that an element is written where it was read, it turns a choice
        // between the old value and another one into a masked store, which is slow on many CPUs.
        let source = black_box(self.start.cast_const());
        for v in 0..self.lanes {
            let column = self.column + v * T::LANES;
            let common = f.common(column);
            for i in 0..self.rows {
                let at = i * self.stride + v * T::LANES;
                // SAFETY: who makes a `Tile` vouches for its elements, and lends them to it alone.
                let x = T::Lanes::load(unsafe { std::slice::from_raw_parts(source.add(at), T::LANES) });
                let y = f.apply(self.row + i, column, common, x);
                // SAFETY: as above.
                y.store(unsafe { std::slice::from_raw_parts_mut(self.start.add(at), T::LANES) });
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

/// What can be done to sums while they are in registers: all of it, in the order of the fields.
#[derive(Clone, Copy, Debug)]
pub struct InRegisters<'a, T> {
    /// A value for each column of C, added.
    pub bias: Option<&'a [T]>,
    /// Whether zero takes the place of what is not above it; NaN stays.
    pub rectifies: bool,
    /// Zero takes the place of elements where that of this matrix, whose rows begin every so many elements, is not
    /// above zero, nor NaN.
    pub gate: Option<(&'a [T], usize)>,
}

impl<T: Real> InRegisters<'_, T> {
    /// The same for the tiles of some rows of a panel of `width` columns, padding included, with room for its bias.
    /// None where the gate, which is read in whole lane arrays, has no room behind its last row, `end - 1`.
    #[inline(always)]
    fn of(
        self,
        rows: &Range<usize>,
        end: usize,
        columns: &Range<usize>,
        width: usize,
        padded_bias: &mut [T],
    ) -> Option<End<T>> {
        let (mut bias, mut gate, mut gate_row) = (std::ptr::null(), std::ptr::null(), 0);
        if let Some((values, row)) = self.gate {
            if (end - 1) * row + columns.start + width > values.len() {
                return None;
            }
            (gate, gate_row) = (values[rows.start * row + columns.start..].as_ptr(), row);
        }
        if let Some(values) = self.bias {
            padded_bias[..columns.len()].copy_from_slice(&values[columns.clone()]);
            bias = padded_bias.as_ptr();
        }
        Some(End { bias, rectifies: self.rectifies, gate, gate_row })
    }
}

/// What is done to the elements of a product once their sums are complete.
pub trait Finish<T>: Sync {
    /// The same as [`Finish::finish`] does, where it is simple enough.
    fn in_registers(&self) -> Option<InRegisters<'_, T>> {
        None
    }
    /// Finishes a tile. Mark it `#[inline(always)]`: it is compiled for each instruction set.
    fn finish(&self, tile: Tile<'_, T>);
}

/// The right operand of a product: a packed matrix or its transpose.
#[derive(Clone, Copy)]
pub struct Factor<'a, T> {
    values: &'a [T],
    layout: Panels,
    is_transposed: bool,
}

impl<'a, T> Factor<'a, T> {
    /// The matrix that is packed in `values`.
    ///
    /// # Panics
    /// When the slice is too short.
    pub fn new(values: &'a [T], layout: Panels) -> Factor<'a, T> {
        assert!(values.len() >= layout.len(), "a packed {layout:?}");
        Factor { values, layout, is_transposed: false }
    }

    /// Its transpose. A product turns the panels once for each block of rows, which costs less than the memory
    /// traffic of a packed copy where the matrix is larger than the caches and the blocks are few.
    pub fn transposed(self) -> Factor<'a, T> {
        Factor { is_transposed: !self.is_transposed, ..self }
    }

    /// How the operand would be packed.
    fn shape(&self) -> Panels {
        if self.is_transposed { self.layout.transposed() } else { self.layout }
    }
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
    b: Factor<'_, T>,
    c: &mut [T],
    c_stride: usize,
    finish: &impl Finish<T>,
    threads: usize,
) {
    let shape = b.shape();
    let Panels { k, n, .. } = shape;
    assert!(a.holds(m, k), "operands of {shape:?}");
    assert!(span(m, c_stride, n, 1).is_some_and(|span| span <= c.len()) && (m <= 1 || c_stride >= n));
    if m == 0 || n == 0 {
        return;
    }
    let target = Target { start: c.as_mut_ptr(), len: c.len(), stride: c_stride };
    let part = |panels: Range<usize>, rows: Range<usize>| {
        let mut scratch = SCRATCH.take();
        dispatch(Multiply { rows, a, b, panels, c: &target, finish, scratch: &mut scratch });
        SCRATCH.set(scratch);
    };
    let by_panels = threads.min(shape.count());
    let by_rows = (threads / by_panels).min(m);
    if by_panels * by_rows == 1 {
        return part(0..shape.count(), 0..m);
    }
    pool::parallel(by_panels * by_rows, &|task| {
        let (i, j) = (task / by_rows, task % by_rows);
        part(cut(shape.count(), by_panels, i), cut(m, by_rows, j));
    });
}

struct Multiply<'a, T, F> {
    rows: Range<usize>,
    a: MatRef<'a, T>,
    b: Factor<'a, T>,
    panels: Range<usize>,
    c: &'a Target<T>,
    finish: &'a F,
    scratch: &'a mut Vec<Line>,
}

/// Panels of a packed matrix that a block of k in its transpose has at most: those of the narrowest tile.
const MOST_SOURCES: usize = 48;

/// Some rows of packed panels turned into a block of k of a panel of the transpose.
struct Turn<'a, T> {
    values: &'a [T],
    layout: Panels,
    /// The panels that are the steps of the block.
    steps: Range<usize>,
}

impl<T: Real> Turn<'_, T> {
    /// Turns `rows` of the matrix.
    #[inline(always)]
    fn run<I: Isa>(&self, rows: Range<usize>, target: &mut [T]) {
        let stride = rows.len().next_multiple_of(T::LANES);
        for (panel, target) in self.steps.clone().zip(target.chunks_mut(self.layout.nr * stride)) {
            let block = &self.values[self.layout.segment(panel, rows.clone())];
            let source = Source { start: block.as_ptr(), column: self.layout.stride(panel), step: 1 };
            let k = self.layout.columns(panel).len();
            PackBlock { k, width: rows.len(), source, panel: target }.run::<I>();
        }
    }

    /// Writes the addresses of what is turned for `rows`, one a step panel, and returns the bytes of each.
    #[inline(always)]
    fn sources(&self, rows: Range<usize>, addresses: &mut [usize]) -> usize {
        for (slot, panel) in addresses.iter_mut().zip(self.steps.clone()) {
            *slot = self.values.as_ptr().wrapping_add(self.layout.segment(panel, rows.clone()).start).addr();
        }
        rows.len() * self.layout.nr * size_of::<T>()
    }
}

/// Rows of A for which one panel is read: their packed block and unfinished sums stay in L2.
const ROW_BLOCK: usize = 128;
/// Bytes of packed weights above which the next panel is asked for in advance: more than an L2 cache holds.
const FAR_BYTES: usize = 2 << 20;
/// Bytes of a block of a panel that leaves results of a block of rows in L1.
const SMALL_PANEL: usize = 16 << 10;
/// Columns of C from which packing A pays for itself.
const PACK_A_COLUMNS: usize = 256;

impl<T: Real, F: Finish<T>> Job for Multiply<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Multiply { rows: all_rows, a, b, panels, c, finish, scratch } = self;
        let (layout, stored) = (b.shape(), b.layout);
        let (k, m, c_stride, a_step) = (layout.k, all_rows.len(), c.stride, a.col_stride);
        let (mut kc, mut k_blocks) = balanced(k, K_BLOCK);
        if b.is_transposed {
            // Whole panels of what is turned.
            kc = kc.next_multiple_of(stored.nr);
            k_blocks = k.div_ceil(kc.max(1)).max(1);
        }
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
        let turned_len = if b.is_transposed { kc * layout.nr } else { 0 };
        let a_pack = reserve::<T>(scratch, a_len + edge_len.next_multiple_of(T::LANES) + turned_len);
        // SAFETY: `a_len` elements of the buffer come before the edge, and the turned panel comes behind it.
        let (edge, turned) =
            unsafe { (a_pack.add(a_len), a_pack.add(a_len + edge_len.next_multiple_of(T::LANES))) };
        let is_far = layout.len() * size_of::<T>() > FAR_BYTES;
        let in_registers = finish.in_registers();
        let mut bias = [T::ZERO; MAX_WIDTH];
        let mut next = [0; MOST_SOURCES];
        for i in 0..row_blocks {
            let rows = all_rows.start + i * row_block..all_rows.end.min(all_rows.start + (i + 1) * row_block);
            let tiles = RowTiles::new(rows.len(), I::TILE_ROWS);
            for block in 0..k_blocks {
                let first = block * kc;
                let kc = kc.min(k - first);
                // SAFETY: row `rows.start` and step `first` are in A.
                let a_block =
                    unsafe { a.data.as_ptr().add(rows.start * a.row_stride + first * a.col_stride) };
                // Where the rows begin, the elements from a row to the next in a tile, and in the first of tiles.
                let (a_start, a_row, a_pitch) = if packs_a {
                    let source = Source { start: a_block, column: a.row_stride, step: a.col_stride };
                    // SAFETY: the rows and steps are in A; the buffer has `a_len` elements.
                    unsafe { pack_tiles::<I, T>(tiles, kc, source, a_pack) };
                    (a_pack.cast_const(), 1, kc)
                } else {
                    (a_block, a.row_stride, a.row_stride)
                };
                let is_last = block + 1 == k_blocks;
                let turn = Turn {
                    values: b.values,
                    layout: stored,
                    steps: first / stored.nr..(first + kc).div_ceil(stored.nr),
                };
                for panel in panels.clone() {
                    let (columns, b_k) = (layout.columns(panel), layout.stride(panel));
                    let (b_panel, sources, next_bytes) = if b.is_transposed {
                        // SAFETY: the buffer has room for `kc` steps of a panel, and nothing else refers to it now.
                        let target = unsafe { std::slice::from_raw_parts_mut(turned, kc * b_k) };
                        turn.run::<I>(columns.clone(), target);
                        let bytes = turn.sources(layout.columns((panel + 1).min(last)), &mut next);
                        (turned.cast_const(), turn.steps.len(), bytes)
                    } else {
                        let b_start = layout.segment(panel, first..first).start;
                        let b_panel = b.values[b_start..b_start + kc * b_k].as_ptr();
                        next[0] = b_panel.wrapping_add(k * b_k).addr();
                        (b_panel, 1, kc * b_k * size_of::<T>())
                    };
                    let in_edge = !fits && panel == last;
                    let end = in_registers.filter(|_| is_last);
                    let end = end.and_then(|end| end.of(&rows, all_rows.end, &columns, b_k, &mut bias));
                    let is_apart = is_last && end.is_none();
                    let end = end.unwrap_or(End::NOTHING);
                    // Results are finished while they are in L1, where the panel passes for each tile.
                    let is_small = kc * layout.nr * size_of::<T>() <= SMALL_PANEL;
                    let together = if is_small || !is_apart { tiles.count } else { 1 };
                    // SAFETY: row `rows.start` of the columns is in C.
                    let in_c = || unsafe { c.start.add(rows.start * c_stride + columns.start) };
                    let (c_start, c_row) = if in_edge { (edge, edge_stride) } else { (in_c(), c_stride) };
                    let mut t = 0;
                    while t < tiles.count {
                        let (start, r, count) = tiles.run(t, together);
                        let ahead = if is_far {
                            let bytes = next_bytes.div_ceil(tiles.count);
                            Ahead { arrays: &next[..sources], start: t * bytes, bytes }
                        } else {
                            Ahead::NOTHING
                        };
                        // SAFETY: the edge or C has the row, and so have the packed rows or A.
                        let (c, a) = unsafe { (c_start.add(start * c_row), a_start.add(start * a_pitch)) };
                        let operands = Operands {
                            k: kc,
                            a,
                            a_row,
                            a_k: if packs_a { r } else { a_step },
                            b: b_panel,
                            b_k,
                            c,
                            c_row,
                            resume: block > 0,
                            ahead,
                            end: End { gate: end.gate.wrapping_add(start * end.gate_row), ..end },
                            tiles: count,
                            a_tile: r * a_pitch,
                            c_tile: r * c_row,
                        };
                        // SAFETY: A and B hold the tiles' operands; C or the edge has room for the whole panel, the
                        // bias was padded, and the gate has it.
                        unsafe { run_tiles::<I, T>(r, b_k / T::LANES, operands) };
                        if is_apart {
                            let at = (rows.start + start, columns.start);
                            // SAFETY: these elements of C or of the edge were just written, and nothing else refers
                            // to them now.
                            let tile = unsafe { Tile::new(at, (r * count, b_k / T::LANES), (c, c_row)) };
                            finish.finish(tile);
                        }
                        t += count;
                    }
                    if in_edge && is_last {
                        // SAFETY: the rows of the edge were written; its columns are in C.
                        unsafe {
                            let shape = (rows.len(), columns.len());
                            copy_edge(shape, (edge, edge_stride), (in_c(), c_stride), panel == 0);
                        }
                    }
                }
            }
        }
    }
}

/// Copies `rows` rows of `width` elements out of a buffer with room for lane arrays. Where these columns are all that
/// a row has, whole lane arrays are copied as long as the next rows overwrite what is too much.
///
/// # Safety
/// The buffer must have the rows, each of whole lane arrays, and the target the elements; nothing else may refer to
/// either.
#[inline(always)]
unsafe fn copy_edge<T: Real>(
    (rows, width): (usize, usize),
    (edge, edge_stride): (*const T, usize),
    (target, stride): (*mut T, usize),
    is_alone: bool,
) {
    let padded = width.next_multiple_of(T::LANES);
    let end = (rows - 1) * stride + width;
    let mut row = 0;
    // SAFETY: promised by the caller; no lane array ends beyond the last element.
    unsafe {
        while is_alone && row * stride + padded <= end {
            for first in (0..padded).step_by(T::LANES) {
                let source = std::slice::from_raw_parts(edge.add(row * edge_stride + first), T::LANES);
                let target = std::slice::from_raw_parts_mut(target.add(row * stride + first), T::LANES);
                T::Lanes::load(source).store(target);
            }
            row += 1;
        }
        for row in row..rows {
            for j in 0..width {
                *target.add(row * stride + j) = *edge.add(row * edge_stride + j);
            }
        }
    }
}
