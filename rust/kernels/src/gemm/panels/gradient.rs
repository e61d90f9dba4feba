//! Gradients of a packed matrix, block by block, each handed over while it is in cache.

use std::ops::Range;

use super::{K_BLOCK, PackBlock, Panels, pack_tiles, run_tiles};
use crate::gather::prefetch;
use crate::gemm::MatRef;
use crate::gemm::blocking::{Line, RowTiles, SCRATCH, balanced, reserve};
use crate::gemm::pack::{SPILL, Source};
use crate::gemm::tile::Operands;
use crate::isa::{Isa, Job, Level, dispatch};
use crate::lanes::Real;

/// Takes a finished block of a gradient: its panel, its rows, and its values, laid out as those of the packed weight.
pub type GradientBlock<'a, T> = dyn FnMut(usize, Range<usize>, &mut [T]) + 'a;

/// The gradient of a packed weight: `A^T D` for some rows and panels of it, where A is `batch x k`
/// and D is `batch x n`, on this thread. `update` gets each finished block. `rows` are cut into blocks of
/// [`GRADIENT_ROWS`], so they should begin at a multiple of it. The sums are those of [`super::gemm`], to the bit.
///
/// `near` holds the addresses of packed arrays of the weight's layout that `update` works on: what belongs to a tile
/// is asked for while the tile is computed, worth 3 to 5 % where the weight is larger than the caches.
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

/// Columns of C from which packing A pays for itself.
const PACK_A_COLUMNS: usize = 256;

/// Samples from which packing D pays for itself.
const PACK_D_SAMPLES: usize = 64;

/// Bytes of D that are used together: half of the L2 cache that CPUs with the instruction set have at least.
const fn d_bytes(level: Level) -> usize {
    match level {
        Level::Avx512 => 1 << 19,
        _ => 1 << 18,
    }
}

impl<T: Real> Job for Gradient<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Gradient { batch, a, d, layout, panels: all_panels, rows: all_rows, near, update, scratch } =
            self;
        let (kc, k_blocks) = balanced(batch, K_BLOCK);
        let nr = layout.nr;
        let a_len = (GRADIENT_ROWS * kc + SPILL).next_multiple_of(T::LANES);
        let c_len = GRADIENT_ROWS * nr;
        // As many panels at a time as leave D in L2 while the rows pass.
        let group =
            (d_bytes(I::LEVEL) / (batch * nr * size_of::<T>()).max(1)).clamp(1, all_panels.len().max(1));
        let d_len = (nr * batch + SPILL).next_multiple_of(T::LANES);
        // With several blocks the sums of all panels rest while the next block is packed.
        let c_count = if k_blocks > 1 { group } else { 1 };
        let c_all = reserve::<T>(scratch, c_len * c_count + d_len * group + a_len);
        // SAFETY: the parts lie side by side in the buffer.
        let (d_pack, a_pack) =
            unsafe { (c_all.add(c_len * c_count), c_all.add(c_len * c_count + d_len * group)) };
        let packs_d = batch >= PACK_D_SAMPLES && all_rows.len() > GRADIENT_ROWS;
        for first_panel in all_panels.clone().step_by(group) {
            let panels = first_panel..all_panels.end.min(first_panel + group);
            let packs_a = panels.len() * nr >= PACK_A_COLUMNS;
            // Where a panel of D begins, and the elements from a sample to the next.
            let panel_of_d = |panel: usize| {
                let (columns, stride) = (layout.columns(panel), layout.stride(panel));
                if packs_d || columns.len() < stride || d.col_stride != 1 {
                    // SAFETY: `group` panels of `d_len`.
                    (unsafe { d_pack.add((panel - panels.start) * d_len) }.cast_const(), stride, true)
                } else {
                    // SAFETY: the column is in D.
                    (unsafe { d.data.as_ptr().add(columns.start) }, d.row_stride, false)
                }
            };
            for panel in panels.clone() {
                let (start, _, is_packed) = panel_of_d(panel);
                if is_packed {
                    let columns = layout.columns(panel);
                    // SAFETY: the column is in D.
                    let from = unsafe { d.data.as_ptr().add(columns.start * d.col_stride) };
                    let source = Source { start: from, column: d.col_stride, step: d.row_stride };
                    // SAFETY: `d_len` elements of the buffer are the panel's.
                    let target = unsafe { std::slice::from_raw_parts_mut(start.cast_mut(), d_len) };
                    PackBlock { k: batch, width: columns.len(), source, panel: target }.run::<I>();
                }
            }
            for first_row in all_rows.clone().step_by(GRADIENT_ROWS) {
                let rows = first_row..all_rows.end.min(first_row + GRADIENT_ROWS);
                let tiles = RowTiles::new(rows.len(), I::TILE_ROWS);
                for block in 0..k_blocks {
                    let first = block * kc;
                    let kc = kc.min(batch - first);
                    // SAFETY: the sample and the column are in A.
                    let a_block =
                        unsafe { a.data.as_ptr().add(first * a.row_stride + rows.start * a.col_stride) };
                    if packs_a {
                        let source = Source { start: a_block, column: a.col_stride, step: a.row_stride };
                        // SAFETY: the columns and samples are in A; the buffer has `a_len` elements.
                        unsafe { pack_tiles::<I, T>(tiles, kc, source, a_pack) };
                    }
                    for panel in panels.clone() {
                        let stride = layout.stride(panel);
                        let (b, b_k, _) = panel_of_d(panel);
                        // SAFETY: the sample is in D or its packed panel.
                        let b = unsafe { b.add(first * b_k) };
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
                            let operands = Operands {
                                k: kc,
                                a,
                                a_row,
                                a_k,
                                b,
                                b_k,
                                c,
                                c_row: stride,
                                resume: block > 0,
                            };
                            // SAFETY: the packed operands or A and D hold the tile's; `b_k` is the panel's stride
                            // or D's, whose rows hold the whole panel.
                            unsafe { run_tiles::<I, T>(r, stride / T::LANES, operands) };
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
}
