//! Gradients of a packed matrix, block by block, each handed over while it is in cache.

use std::ops::Range;

use super::{K_BLOCK, PackBlock, Panels, pack_tiles, run_tiles};
use crate::gemm::MatRef;
use crate::gemm::blocking::{Line, RowTiles, SCRATCH, balanced, reserve};
use crate::gemm::pack::{SPILL, Source, pack};
use crate::gemm::tile::{Ahead, End, MAX_WIDTH, Operands, most_lanes};
use crate::isa::{Isa, Job, Level, dispatch};
use crate::lanes::{Lanes, Real};
use crate::math::Math;
use crate::reduce::{COLUMN_BLOCK, ColumnTree, Sum, fold_columns};

/// What becomes of a gradient.
pub trait Gradients<T> {
    /// Takes a finished block of it: the panel, its rows, and the values, laid out as those of the packed weight.
    fn block(&mut self, panel: usize, rows: Range<usize>, values: &mut [T]);
    /// Whether to sum the columns of D too, which is the gradient of a bias.
    fn wants_sums(&self) -> bool;
    /// Takes the sums of a panel's columns: what [`crate::reduce::reduce_columns`] makes of them, to the bit.
    fn sums(&mut self, panel: usize, sums: &[T]);
}

/// The gradient of a packed weight: `A^T D` for some rows and panels of it, where A is `batch x k`
/// and D is `batch x n`, on this thread. `gradients` get each finished block. `rows` are cut into blocks of
/// [`GRADIENT_ROWS`], so they should begin at a multiple of it. The sums are those of [`super::gemm`], to the bit.
///
/// `near` holds the addresses of packed arrays of the weight's layout that `gradients` work on: what belongs to a
/// tile is asked for while the tile is computed.
///
/// # Panics
/// When a slice is too short.
pub fn gradient_panels<T: Math>(
    batch: usize,
    a: MatRef<'_, T>,
    d: MatRef<'_, T>,
    layout: &Panels,
    panels: Range<usize>,
    rows: Range<usize>,
    near: &[usize],
    gradients: &mut dyn Gradients<T>,
) {
    let Panels { k, n, .. } = *layout;
    assert!(a.holds(batch, k) && d.holds(batch, n) && panels.end <= layout.count() && rows.end <= k);
    let mut scratch = SCRATCH.take();
    dispatch(Gradient { batch, a, d, layout: *layout, panels, rows, near, gradients, scratch: &mut scratch });
    SCRATCH.set(scratch);
}

/// Rows of a weight's gradient that are finished together: a multiple of every tile's rows and panel's width.
pub const GRADIENT_ROWS: usize = 96;

struct Gradient<'a, T> {
    batch: usize,
    a: MatRef<'a, T>,
    d: MatRef<'a, T>,
    layout: Panels,
    panels: Range<usize>,
    rows: Range<usize>,
    near: &'a [usize],
    gradients: &'a mut dyn Gradients<T>,
    scratch: &'a mut Vec<Line>,
}

/// Sums of a lane array of D's columns, on the way.
type Tree<T> = ColumnTree<<T as Real>::Lanes, 1>;

/// Columns of C from which packing A pays for itself.
const PACK_A_COLUMNS: usize = 256;

/// Samples from which packing D pays for itself.
const PACK_D_SAMPLES: usize = 64;

/// Bytes of a weight above which what the update works on is asked for ahead: a smaller one is in L1 anyway.
const ASK_BYTES: usize = 32 << 10;

/// Bytes of unfinished sums; few in tests, so that small matrices take several turns.
const C_BYTES: usize = if cfg!(test) { 1 << 14 } else { 1 << 20 };

/// Bytes of D that are used together: half of the L2 cache that CPUs with the instruction set have at least.
const fn d_bytes(level: Level) -> usize {
    match level {
        _ if cfg!(test) => 1 << 16,
        Level::Avx512 => 1 << 19,
        _ => 1 << 18,
    }
}

/// Panels of D as the tiles read them: packed where that pays, where columns are missing, or where they do not lie
/// side by side.
struct DPanels<'a, T> {
    d: MatRef<'a, T>,
    layout: Panels,
    packs_all: bool,
    /// Room for `len` elements a panel.
    packed: *mut T,
    len: usize,
}

impl<T: Real> DPanels<'_, T> {
    #[inline(always)]
    fn is_packed(&self, panel: usize) -> bool {
        let is_partial = self.layout.columns(panel).len() < self.layout.stride(panel);
        self.packs_all || is_partial || self.d.col_stride != 1
    }

    /// Packs some samples of panels, where they are packed, the first panel in the first room.
    #[inline(always)]
    fn pack<I: Isa>(&self, panels: Range<usize>, samples: Range<usize>) {
        let d = self.d;
        for (i, panel) in panels.enumerate().filter(|(_, panel)| self.is_packed(*panel)) {
            let columns = self.layout.columns(panel);
            // SAFETY: the sample and the column are in D.
            let start =
                unsafe { d.data.as_ptr().add(samples.start * d.row_stride + columns.start * d.col_stride) };
            let source = Source { start, column: d.col_stride, step: d.row_stride };
            // SAFETY: the room of the panel.
            let panel = unsafe { std::slice::from_raw_parts_mut(self.packed.add(i * self.len), self.len) };
            PackBlock { k: samples.len(), width: columns.len(), source, panel }.run::<I>();
        }
    }

    /// Where a panel begins that was packed in room `i` if at all, from a sample on, and the elements from a sample
    /// to the next.
    #[inline(always)]
    fn get(&self, panel: usize, i: usize, sample: usize) -> (*const T, usize) {
        if self.is_packed(panel) {
            // SAFETY: the room of the panel.
            (unsafe { self.packed.add(i * self.len) }.cast_const(), self.layout.stride(panel))
        } else {
            let column = self.layout.columns(panel).start;
            // SAFETY: the sample and the column are in D.
            (unsafe { self.d.data.as_ptr().add(sample * self.d.row_stride + column) }, self.d.row_stride)
        }
    }
}

/// The gradient of a weight with few columns, made as its transpose: the lanes then hold columns of A, which are many,
/// and D's elements are what is spread over them. Its own lane arrays would be filled by three quarters at most.
struct Narrow<'a, T> {
    batch: usize,
    a: MatRef<'a, T>,
    d: MatRef<'a, T>,
    layout: Panels,
    c: *mut T,
    space: *mut T,
}

/// Columns of a block's transpose: whole lane arrays.
const NARROW_ROW: usize = GRADIENT_ROWS.next_multiple_of(MAX_WIDTH);

impl<T: Real> Narrow<'_, T> {
    /// Whether the transpose takes three quarters of the operations at most.
    fn suits(layout: &Panels, a: MatRef<'_, T>) -> bool {
        layout.count() == 1 && 4 * layout.n <= 3 * layout.padded() && a.col_stride == 1
    }

    /// Elements of the transpose of a block and of a lane array of A's columns.
    fn len(batch: usize, layout: &Panels) -> usize {
        layout.n * NARROW_ROW + (batch * T::LANES + SPILL).next_multiple_of(T::LANES)
    }

    /// # Safety
    /// `c` must have room for a block of [`GRADIENT_ROWS`], `space` for [`Narrow::len`] elements.
    #[inline(always)]
    unsafe fn run<I: Isa>(self, rows: Range<usize>, gradients: &mut dyn Gradients<T>) {
        let Narrow { batch, a, d, layout, c, space } = self;
        let (n, stride) = (layout.n, layout.padded());
        let tiles = RowTiles::new(n, I::TILE_ROWS);
        let most = most_lanes::<I>(tiles.get(0).1);
        // SAFETY: within the space.
        let edge = unsafe { space.add(n * NARROW_ROW) };
        for first in rows.clone().step_by(GRADIENT_ROWS) {
            let rows = first..rows.end.min(first + GRADIENT_ROWS);
            let mut column = rows.start;
            while column < rows.end {
                let whole = (rows.end - column) / T::LANES;
                // What does not fill a lane array is copied into one: behind A's last element there may be nothing.
                let (lanes, b, b_k) = if whole == 0 {
                    let width = rows.end - column;
                    // SAFETY: the columns are in A, and the edge has room.
                    let edge = unsafe {
                        let source =
                            Source { start: a.data.as_ptr().add(column), column: 1, step: a.row_stride };
                        pack::<I, T>(batch, width, T::LANES, source, edge);
                        edge
                    };
                    (1, edge.cast_const(), T::LANES)
                } else {
                    let lanes = if whole >= most { most } else { 1 << whole.ilog2() };
                    // SAFETY: the columns are in A.
                    (lanes, unsafe { a.data.as_ptr().add(column) }, a.row_stride)
                };
                for t in 0..tiles.count {
                    let (start, r) = tiles.get(t);
                    let operands = Operands {
                        k: batch,
                        a: d.data.as_ptr().wrapping_add(start * d.col_stride),
                        a_row: d.col_stride,
                        a_k: d.row_stride,
                        b,
                        b_k,
                        c: space.wrapping_add(start * NARROW_ROW + column - rows.start),
                        c_row: NARROW_ROW,
                        resume: false,
                        ahead: Ahead::NOTHING,
                        end: End::NOTHING,
                        tiles: 1,
                        a_tile: 0,
                        c_tile: 0,
                    };
                    // SAFETY: the columns of D and A are there, and the transpose has room for whole lane arrays.
                    unsafe { run_tiles::<I, T>(r, lanes, operands) };
                }
                column += lanes * T::LANES;
            }
            let source = Source { start: space.cast_const(), column: NARROW_ROW, step: 1 };
            // SAFETY: the rows of the block were written to the transpose, and C has room for them.
            let panel = unsafe { std::slice::from_raw_parts_mut(c, rows.len() * stride) };
            PackBlock { k: rows.len(), width: n, source, panel: &mut *panel }.run::<I>();
            gradients.block(0, rows, panel);
        }
    }
}

impl<T: Math> Job for Gradient<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Gradient { batch, a, d, layout, panels: all_panels, rows: all_rows, near, gradients, scratch } =
            self;
        if all_panels.is_empty() || all_rows.is_empty() {
            return;
        }
        let (mut kc, mut k_blocks) = balanced(batch, K_BLOCK);
        if k_blocks > 1 {
            // Blocks of samples are added up as they come.
            kc = kc.next_multiple_of(COLUMN_BLOCK);
            k_blocks = batch.div_ceil(kc);
        }
        let nr = layout.nr;
        // As many panels of D at a time as stay in L2 while the rows pass, and as many rows as leave sums there:
        // with several blocks of samples they rest until the last.
        let (group, _) =
            balanced(all_panels.len(), (d_bytes(I::LEVEL) / (kc * nr * size_of::<T>()).max(1)).max(1));
        let most_rows = match k_blocks {
            1 => all_rows.len(),
            _ => C_BYTES / (group * nr * size_of::<T>()) / GRADIENT_ROWS * GRADIENT_ROWS,
        };
        let most_rows = most_rows.max(GRADIENT_ROWS);
        let c_len = GRADIENT_ROWS * nr;
        let is_narrow = Narrow::suits(&layout, a);
        let c_count = match k_blocks {
            2.. if !is_narrow => group * most_rows.min(all_rows.len()).div_ceil(GRADIENT_ROWS),
            _ => 1,
        };
        let d_len = (nr * kc + SPILL).next_multiple_of(T::LANES);
        let a_len = (GRADIENT_ROWS * kc + SPILL).next_multiple_of(T::LANES);
        let narrow_len = if is_narrow { Narrow::<T>::len(batch, &layout) } else { 0 };
        let tree_len = size_of::<Tree<T>>() / size_of::<T>();
        let trees_len =
            if gradients.wants_sums() && k_blocks > 1 { group * nr / T::LANES * tree_len } else { 0 };
        let c_all = reserve::<T>(scratch, c_len * c_count + d_len * group + a_len + trees_len + narrow_len);
        // SAFETY: the parts lie side by side in the buffer, each of whole lane arrays.
        let (d_pack, a_pack, trees, narrow) = unsafe {
            let d_pack = c_all.add(c_len * c_count);
            let a_pack = d_pack.add(d_len * group);
            let trees = a_pack.add(a_len);
            (d_pack, a_pack, trees.cast::<Tree<T>>(), trees.add(trees_len))
        };
        let a_step = a.row_stride;
        let packs_all = batch >= PACK_D_SAMPLES && all_rows.len() > GRADIENT_ROWS;
        let asks_ahead = layout.len() * size_of::<T>() > ASK_BYTES;
        let d_panels = DPanels { d, layout, packs_all, packed: d_pack, len: d_len };
        for first_panel in all_panels.clone().step_by(group) {
            let panels = first_panel..all_panels.end.min(first_panel + group);
            let packs_a = panels.len() * nr >= PACK_A_COLUMNS;
            for first_row in all_rows.clone().step_by(most_rows) {
                let some_rows = first_row..all_rows.end.min(first_row + most_rows);
                for block in 0..k_blocks {
                    let first = block * kc;
                    let kc = kc.min(batch - first);
                    let sums_columns = gradients.wants_sums() && first_row == all_rows.start;
                    if !is_narrow || sums_columns {
                        d_panels.pack::<I>(panels.clone(), first..first + kc);
                    }
                    if sums_columns {
                        for (i, panel) in panels.clone().enumerate() {
                            let (d, stride) = d_panels.get(panel, i, first);
                            let (columns, width) = (layout.columns(panel).len(), layout.stride(panel));
                            let len = if kc == 0 { 0 } else { (kc - 1) * stride + width };
                            // SAFETY: the samples of the whole panel are in the packed one or in D.
                            let d = unsafe { std::slice::from_raw_parts(d, len) };
                            let mut sums = [T::ZERO; MAX_WIDTH];
                            for lane in 0..width / T::LANES {
                                let d = &d[(lane * T::LANES).min(len)..];
                                let [sum] = if k_blocks == 1 {
                                    fold_columns::<T, Sum, 1>(Sum, kc, stride, d)
                                } else {
                                    // SAFETY: there is a tree for each lane array of the group's panels, and it is
                                    // made with the first block.
                                    let tree = unsafe {
                                        let tree = trees.add(i * nr / T::LANES + lane);
                                        if block == 0 {
                                            tree.write(Tree::<T>::new(Sum));
                                        }
                                        &mut *tree
                                    };
                                    tree.push(Sum, kc, stride, d);
                                    if block + 1 < k_blocks {
                                        continue;
                                    }
                                    tree.finish(Sum)
                                };
                                sum.store(&mut sums[lane * T::LANES..]);
                            }
                            if block + 1 == k_blocks {
                                gradients.sums(panel, &sums[..columns]);
                            }
                        }
                    }
                    for (i, first_row) in some_rows.clone().step_by(GRADIENT_ROWS).enumerate() {
                        if is_narrow {
                            break;
                        }
                        let rows = first_row..some_rows.end.min(first_row + GRADIENT_ROWS);
                        let tiles = RowTiles::new(rows.len(), I::TILE_ROWS);
                        // SAFETY: the sample and the column are in A.
                        let a_block =
                            unsafe { a.data.as_ptr().add(first * a.row_stride + rows.start * a.col_stride) };
                        // As in a product: where the columns begin, and the elements from one to the next.
                        let (a_start, a_row, a_pitch) = if packs_a {
                            let source = Source { start: a_block, column: a.col_stride, step: a.row_stride };
                            // SAFETY: the columns and samples are in A; the buffer has `a_len` elements.
                            unsafe { pack_tiles::<I, T>(tiles, kc, source, a_pack) };
                            (a_pack.cast_const(), 1, kc)
                        } else {
                            (a_block, a.col_stride, a.col_stride)
                        };
                        for panel in panels.clone() {
                            let stride = layout.stride(panel);
                            let (b, b_k) = d_panels.get(panel, panel - panels.start, first);
                            let at = if k_blocks > 1 { i * group + panel - panels.start } else { 0 };
                            // SAFETY: `c_count` blocks of `c_len` elements.
                            let c = unsafe { c_all.add(at * c_len) };
                            let mut t = 0;
                            while t < tiles.count {
                                let (start, r, count) = tiles.run(t, usize::MAX);
                                let ahead = if asks_ahead && block + 1 == k_blocks {
                                    let tile = rows.start + start..rows.start + start + r;
                                    let tile = layout.segment(panel, tile);
                                    let size = size_of::<T>();
                                    Ahead { arrays: near, start: tile.start * size, bytes: tile.len() * size }
                                } else {
                                    Ahead::NOTHING
                                };
                                // SAFETY: the tile is in this block of C, and its columns in the packed ones or A.
                                let (c, a) = unsafe { (c.add(start * stride), a_start.add(start * a_pitch)) };
                                let operands = Operands {
                                    k: kc,
                                    a,
                                    a_row,
                                    a_k: if packs_a { r } else { a_step },
                                    b,
                                    b_k,
                                    c,
                                    c_row: stride,
                                    resume: block > 0,
                                    ahead,
                                    end: End::NOTHING,
                                    tiles: count,
                                    a_tile: r * a_pitch,
                                    c_tile: r * stride,
                                };
                                // SAFETY: the packed operands or A and D hold the tiles'; `b_k` is the panel's
                                // stride or D's, whose rows hold the whole panel.
                                unsafe { run_tiles::<I, T>(r, stride / T::LANES, operands) };
                                t += count;
                            }
                            if block + 1 == k_blocks {
                                // SAFETY: the block's rows were written, and nothing else refers to them now.
                                let gradient =
                                    unsafe { std::slice::from_raw_parts_mut(c, rows.len() * stride) };
                                gradients.block(panel, rows.clone(), gradient);
                            }
                        }
                    }
                }
            }
        }
        if is_narrow {
            // SAFETY: C has room for a block, and the space behind all else for what the blocks need.
            unsafe { Narrow { batch, a, d, layout, c: c_all, space: narrow }.run::<I>(all_rows, gradients) };
        }
    }
}
