//! The loops around the microkernel for one thread: k-blocks, packed panels of B, row tiles of A.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::pack::{SPILL, Source, pack};
use super::tile::{self, Ahead, End, MAX_TILE, Operands};
use super::{FinishTile, FinishedTile};
use crate::isa::{Isa, dispatch};
use crate::lanes::Real;

/// Bytes of a panel of B, kept in L1 while the tiles of A pass: this bounds the steps of k in a block.
/// Partial sums rest in C between blocks, which loses no bits.
const B_PANEL: usize = 32 << 10;
/// Bytes of a block of A, kept in L2 while the panels of B pass.
const A_BLOCK: usize = 256 << 10;
/// Bytes of a block of B, when several blocks of A use it.
const B_BLOCK: usize = 1 << 20;

/// Pointers and strides of `C = A B`, checked by the public entry.
pub(super) struct Product<'a, T> {
    pub k: usize,
    pub a: *const T,
    pub a_row: usize,
    pub a_k: usize,
    pub b: *const T,
    pub b_k: usize,
    pub b_col: usize,
    pub c: *mut T,
    pub c_row: usize,
    pub accumulate: bool,
    pub finish: Option<&'a dyn FinishTile<T>>,
}

// SAFETY: A and B are only read, and each thread writes its own rectangle of C.
unsafe impl<T: Sync> Sync for Product<'_, T> {}

/// A 64-byte line, so that panels begin on one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line([u8; 64]);

thread_local! {
    /// Packing space of this thread. It only grows, so a steady loop does not allocate.
    pub(super) static SCRATCH: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Multiplies the rectangle `rows x cols` of C on this thread.
///
/// # Safety
/// A, B and C must hold the rectangle's operands, and no other thread may touch the rectangle.
pub(super) unsafe fn multiply<T: Real>(product: &Product<'_, T>, rows: Range<usize>, cols: Range<usize>) {
    // Taken, not borrowed: an epilogue that multiplies matrices itself finds an empty buffer.
    let mut scratch = SCRATCH.take();
    dispatch(Rectangle { product, rows, cols, scratch: &mut scratch });
    SCRATCH.set(scratch);
}

/// One thread's part of a product.
pub(super) struct Rectangle<'p, 'a, T> {
    product: &'p Product<'a, T>,
    rows: Range<usize>,
    cols: Range<usize>,
    scratch: &'p mut Vec<Line>,
}

/// `total` in parts of at most `most`, as equal as they can be: a part and how many there are.
pub(super) fn balanced(total: usize, most: usize) -> (usize, usize) {
    let parts = total.div_ceil(most).max(1);
    (total.div_ceil(parts), parts)
}

impl<T: Real> Rectangle<'_, '_, T> {
    /// # Safety
    /// As [`multiply`].
    #[inline(always)]
    pub(super) unsafe fn run_blocks<I: Isa>(self) {
        let Rectangle { product: p, rows, cols, scratch } = self;
        let (m, n) = (rows.len(), cols.len());
        let tiles = RowTiles::new(m, I::TILE_ROWS);
        let panel_lanes = if tiles.count == 1 { tile::most_lanes::<I>(m) } else { I::TILE_LANES };
        let nr = panel_lanes * T::LANES;
        // B must have unit stride along n for the tile. Where it has, a copy pays off only if enough
        // tiles use it.
        let packs_b = p.b_col != 1 || tiles.count > PACK_B_TILES;
        let packs_a = tiles.count > 1 && n > PACK_A_PANELS * nr;
        let (kc, k_blocks) = balanced(p.k, B_PANEL / (nr * size_of::<T>()));
        let tiles_per_block = (A_BLOCK / (kc.max(1) * size_of::<T>() * I::TILE_ROWS)).max(1);
        // With one block of A each panel of B is packed just before its only use, and stays in L1:
        // all panels share the space of one.
        let is_one_block = tiles.count <= tiles_per_block;
        let nc = if is_one_block { n } else { (B_BLOCK / (kc.max(1) * size_of::<T>()) / nr).max(1) * nr };
        let a_len = if packs_a { tiles_per_block.min(tiles.count) * I::TILE_ROWS * kc + SPILL } else { 0 };
        let a_len = a_len.next_multiple_of(T::LANES);
        let b_len = if is_one_block { nr } else { nc.min(n.next_multiple_of(nr)) } * kc + SPILL;
        let a_pack = reserve::<T>(scratch, a_len + b_len);
        // SAFETY: `a_len` elements of the buffer come before the panels of B.
        let b_pack = unsafe { a_pack.add(a_len) };

        for block in 0..k_blocks {
            let first = block * kc;
            let kc = kc.min(p.k - first);
            let resume = p.accumulate || block > 0;
            let finish = if block + 1 == k_blocks { p.finish } else { None };
            for col in (0..n).step_by(nc) {
                let nc = nc.min(n - col);
                for tile_start in (0..tiles.count).step_by(tiles_per_block) {
                    let block_tiles = tile_start..(tile_start + tiles_per_block).min(tiles.count);
                    if packs_a {
                        let mut target = a_pack;
                        for t in block_tiles.clone() {
                            let (start, r) = tiles.get(t);
                            // SAFETY: the rows and steps are in A; the buffer has `a_len` elements.
                            unsafe {
                                let start = p.a.add((rows.start + start) * p.a_row + first * p.a_k);
                                let source = Source { start, column: p.a_row, step: p.a_k };
                                pack::<I, T>(kc, r, r, source, target);
                                target = target.add(r * kc);
                            }
                        }
                    }
                    let mut j = 0;
                    while j < nc {
                        // The last panels halve until what is left fits.
                        let left = (nc - j).div_ceil(T::LANES);
                        let lanes = if left >= panel_lanes { panel_lanes } else { 1 << left.ilog2() };
                        let width = (lanes * T::LANES).min(nc - j);
                        let padded = lanes * T::LANES;
                        let column = cols.start + col + j;
                        let has_panel = packs_b || width != padded;
                        // SAFETY: the panel is in B. Packed panels that are kept start at j * kc,
                        // because all before are nr wide or fill their lanes; they fit in `b_len`.
                        let (b, b_k) = unsafe {
                            let b = p.b.add(first * p.b_k + column * p.b_col);
                            if has_panel {
                                let panel = b_pack.add(if is_one_block { 0 } else { j * kc });
                                if tile_start == 0 {
                                    let source = Source { start: b, column: p.b_col, step: p.b_k };
                                    pack::<I, T>(kc, width, padded, source, panel);
                                }
                                (panel.cast_const(), padded)
                            } else {
                                (b, p.b_k)
                            }
                        };
                        let mut a_panel = a_pack.cast_const();
                        for t in block_tiles.clone() {
                            let (start, r) = tiles.get(t);
                            let row = rows.start + start;
                            // SAFETY: the tile is in C and its rows are in A (or in the packed block).
                            unsafe {
                                let (a, a_row, a_k) = if packs_a {
                                    (a_panel, 1, r)
                                } else {
                                    (p.a.add(row * p.a_row + first * p.a_k), p.a_row, p.a_k)
                                };
                                a_panel = a_panel.wrapping_add(r * kc);
                                let c = p.c.add(row * p.c_row + column);
                                let operands = Operands {
                                    k: kc,
                                    a,
                                    a_row,
                                    a_k,
                                    b,
                                    b_k,
                                    c,
                                    c_row: p.c_row,
                                    resume,
                                    ahead: Ahead::NOTHING,
                                    end: End::NOTHING,
                                    tiles: 1,
                                    a_tile: 0,
                                    c_tile: 0,
                                };
                                run_tile::<I, T>(r, width, lanes, operands);
                                if let Some(finish) = finish {
                                    let c_row = p.c_row;
                                    finish.finish_tile(FinishedTile {
                                        row,
                                        column,
                                        rows: r,
                                        cols: width,
                                        c,
                                        c_row,
                                    });
                                }
                            }
                        }
                        j += width;
                    }
                }
            }
        }
    }
}

/// Row tiles from which packing B pays for itself.
const PACK_B_TILES: usize = 4;
/// Column panels from which packing A pays for itself.
const PACK_A_PANELS: usize = 2;

/// Room for `len` elements at the start of a line.
pub(super) fn reserve<T>(scratch: &mut Vec<Line>, len: usize) -> *mut T {
    let lines = (len * size_of::<T>()).div_ceil(size_of::<Line>());
    if scratch.len() < lines {
        scratch.resize(lines, Line([0; 64]));
    }
    scratch.as_mut_ptr().cast()
}

/// A tile of `width` columns; one that does not fill its lanes goes through a buffer, because C has
/// no room for the padding.
///
/// # Safety
/// The operands must hold a tile of `rows x width`, and B's panel the full `lanes`.
#[inline(always)]
unsafe fn run_tile<I: Isa, T: Real>(rows: usize, width: usize, lanes: usize, o: Operands<'_, T>) {
    let padded = lanes * T::LANES;
    let mut buffer = [const { MaybeUninit::<T>::uninit() }; MAX_TILE];
    let buffer = buffer.as_mut_ptr().cast::<T>();
    let is_partial = width != padded;
    if is_partial && o.resume {
        for i in 0..rows {
            for j in 0..padded {
                // SAFETY: (i, j) is in the tile, and the buffer holds the largest.
                unsafe { *buffer.add(i * padded + j) = *o.c.add(i * o.c_row + j.min(width - 1)) };
            }
        }
    }
    let (c, c_row) = if is_partial { (buffer, padded) } else { (o.c, o.c_row) };
    // SAFETY: passed on from the caller; the buffer holds the largest tile.
    unsafe { tile::run::<I, T>(rows, lanes, Operands { c, c_row, ..o }) };
    if is_partial {
        for i in 0..rows {
            for j in 0..width {
                // SAFETY: (i, j) is in the tile, which has been written.
                unsafe { *o.c.add(i * o.c_row + j) = *buffer.add(i * padded + j) };
            }
        }
    }
}

/// Rows cut into tiles that differ by one row at most: 13 rows are 7 + 6, not 12 + 1, because a tile
/// of few rows leaves the multipliers waiting for each other.
#[derive(Clone, Copy)]
pub(super) struct RowTiles {
    pub count: usize,
    short: usize,
    /// Tiles that have `short + 1` rows; they come first.
    long_count: usize,
}

impl RowTiles {
    pub fn new(rows: usize, most: usize) -> RowTiles {
        let count = rows.div_ceil(most);
        RowTiles { count, short: rows / count, long_count: rows % count }
    }

    /// The first row and the number of rows of a tile.
    #[inline(always)]
    pub fn get(self, tile: usize) -> (usize, usize) {
        (tile * self.short + tile.min(self.long_count), self.short + usize::from(tile < self.long_count))
    }

    /// The tiles from `tile` on that have as many rows, at most `most`: the first row, the rows of each, and how
    /// many there are.
    #[inline(always)]
    pub fn run(self, tile: usize, most: usize) -> (usize, usize, usize) {
        let (start, rows) = self.get(tile);
        let end = if tile < self.long_count { self.long_count } else { self.count };
        (start, rows, most.min(end - tile))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_tiles_cover_all_rows_and_differ_by_one_at_most() {
        for most in [6, 12] {
            for rows in 1..200 {
                let tiles = RowTiles::new(rows, most);
                let mut next = 0;
                for t in 0..tiles.count {
                    let (start, len) = tiles.get(t);
                    assert_eq!(start, next);
                    assert!(len <= most && (len == tiles.short || len == tiles.short + 1));
                    next += len;
                }
                assert_eq!(next, rows);
                for most in [1, 3, usize::MAX] {
                    let (mut tile, mut next) = (0, 0);
                    while tile < tiles.count {
                        let (start, len, count) = tiles.run(tile, most);
                        assert!((1..=most).contains(&count) && start == next);
                        assert!((tile..tile + count).all(|t| tiles.get(t).1 == len));
                        (tile, next) = (tile + count, next + len * count);
                    }
                    assert_eq!((tile, next), (tiles.count, rows));
                }
            }
        }
    }
}
