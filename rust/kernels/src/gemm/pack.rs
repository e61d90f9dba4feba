//! Copies of the operands in the order in which the microkernel reads them.

use crate::lanes::Real;

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
    for p in 0..k {
        for i in 0..rows {
            // SAFETY: promised by the caller.
            unsafe { *panel.add(p * rows + i) = *a.add(i * a_row + p * a_k) };
        }
    }
}
