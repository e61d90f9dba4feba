//! Copies of the operands in the order in which the microkernel reads them.

use crate::lanes::{Lanes, Real};

/// Writes `k` steps of `padded` elements each: `width` columns of B and zeros.
///
/// # Safety
/// B must be readable at `p * b_k + j * b_col` for `p < k`, `j < width`, and `panel` writable for
/// `k * padded` elements.
#[inline(always)]
pub(super) unsafe fn pack_b<T: Real>(
    k: usize,
    width: usize,
    padded: usize,
    b: *const T,
    b_k: usize,
    b_col: usize,
    panel: *mut T,
) {
    if b_k == 1 {
        // SAFETY: passed on from the caller.
        unsafe { transpose(k, width, padded, b, b_col, panel) };
        return;
    }
    if b_col == 1 && width == padded {
        for p in 0..k {
            for j in (0..padded).step_by(T::LANES) {
                // SAFETY: step p of the panel and row p of B, promised by the caller.
                unsafe {
                    let source = std::slice::from_raw_parts(b.add(p * b_k + j), T::LANES);
                    let target = std::slice::from_raw_parts_mut(panel.add(p * padded + j), T::LANES);
                    T::Lanes::load(source).store(target);
                }
            }
        }
        return;
    }
    for p in 0..k {
        // SAFETY: step p of the panel and row p of B, promised by the caller.
        let target = unsafe { std::slice::from_raw_parts_mut(panel.add(p * padded), padded) };
        for (j, value) in target[..width].iter_mut().enumerate() {
            // SAFETY: as above.
            *value = unsafe { *b.add(p * b_k + j * b_col) };
        }
        target[width..].fill(T::ZERO);
    }
}

/// Transposes columns that each lie in one run, in blocks of 4 x 4 that stay in registers.
///
/// # Safety
/// As [`pack_b`] with `b_k = 1`.
#[inline(always)]
unsafe fn transpose<T: Real>(
    k: usize,
    width: usize,
    padded: usize,
    b: *const T,
    b_col: usize,
    panel: *mut T,
) {
    let (whole_k, whole_width) = (k / 4 * 4, width / 4 * 4);
    for p in (0..whole_k).step_by(4) {
        for j in (0..whole_width).step_by(4) {
            // SAFETY: columns j to j + 3 and steps p to p + 3 exist.
            unsafe {
                let block: [[T; 4]; 4] =
                    std::array::from_fn(|v| b.add((j + v) * b_col + p).cast::<[T; 4]>().read_unaligned());
                for s in 0..4 {
                    let step = [block[0][s], block[1][s], block[2][s], block[3][s]];
                    panel.add((p + s) * padded + j).cast::<[T; 4]>().write_unaligned(step);
                }
            }
        }
    }
    for p in 0..k {
        let first = if p < whole_k { whole_width } else { 0 };
        for j in first..padded {
            // SAFETY: column j and step p exist; the panel has `padded` elements a step.
            unsafe { *panel.add(p * padded + j) = if j < width { *b.add(j * b_col + p) } else { T::ZERO } };
        }
    }
}

/// Writes `k` steps of `rows` elements each: the columns of a tile of A.
///
/// # Safety
/// A must be readable at `i * a_row + p * a_k` for `i < rows`, `p < k`, and `panel` writable for
/// `rows * k` elements.
#[inline(always)]
pub(super) unsafe fn pack_a<T: Real>(
    rows: usize,
    k: usize,
    a: *const T,
    a_row: usize,
    a_k: usize,
    panel: *mut T,
) {
    if a_k == 1 {
        // SAFETY: passed on from the caller.
        unsafe { transpose(k, rows, rows, a, a_row, panel) };
        return;
    }
    for p in 0..k {
        for i in 0..rows {
            // SAFETY: promised by the caller.
            unsafe { *panel.add(p * rows + i) = *a.add(i * a_row + p * a_k) };
        }
    }
}
