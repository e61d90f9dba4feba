//! Copies of the operands in the order in which the microkernel reads them: panels of `k` steps, each
//! with the elements of one row of B or of one column of A.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::tile::is;
use crate::isa::{Isa, Level};
use crate::lanes::{Lanes, Real};

/// Elements that may be written behind a panel, and that the next panel may therefore lose: panels
/// that lie side by side must be packed in ascending order.
pub(super) const SPILL: usize = 16;

/// Where a panel comes from: element `j` of step `p` is at `j * column + p * step`.
#[derive(Clone, Copy)]
pub(crate) struct Source<T> {
    pub start: *const T,
    pub column: usize,
    pub step: usize,
}

/// Writes `k` steps of `width` elements each, one step every `stride` elements. What is written
/// between `width` and `stride` is unspecified.
///
/// # Safety
/// The source must lie in one slice and hold `k` steps of `width`, `panel` must be writable for
/// `k * stride + SPILL` elements, and `stride` is `width` or `width.next_multiple_of(T::LANES)`.
#[inline(always)]
pub(super) unsafe fn pack<I: Isa, T: Real>(
    k: usize,
    width: usize,
    stride: usize,
    source: Source<T>,
    panel: *mut T,
) {
    // SAFETY: passed on from the caller.
    unsafe {
        if source.column == 1 {
            copy(k, width, stride, source, panel);
        } else if source.step == 1 {
            transpose::<I, T>(k, width, stride, source, panel);
        } else {
            copy_each(0..k, 0..width, stride, source, panel);
        }
    }
}

/// # Safety
/// As [`pack`].
#[inline(always)]
unsafe fn copy_each<T: Real>(
    steps: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
    stride: usize,
    source: Source<T>,
    panel: *mut T,
) {
    for p in steps {
        for j in columns.clone() {
            // SAFETY: promised by the caller.
            unsafe { *panel.add(p * stride + j) = *source.start.add(j * source.column + p * source.step) };
        }
    }
}

/// Copies steps that each lie in one run, in whole lane arrays as long as the slice has them. What a
/// step writes beyond its end the next step corrects.
///
/// # Safety
/// As [`pack`] with `source.column = 1`.
#[inline(always)]
unsafe fn copy<T: Real>(k: usize, width: usize, stride: usize, source: Source<T>, panel: *mut T) {
    let padded = width.next_multiple_of(T::LANES);
    // The last step may be read up to its end only, the one before as far as the last reaches.
    let spare_steps = if source.step == 0 { k } else { (padded - width).div_ceil(source.step).min(k) };
    for p in 0..k - spare_steps {
        for j in (0..padded).step_by(T::LANES) {
            // SAFETY: the slice reaches `spare_steps * source.step >= padded - width` further than
            // this step; the panel has room for a lane array.
            unsafe {
                let from = std::slice::from_raw_parts(source.start.add(p * source.step + j), T::LANES);
                let to = std::slice::from_raw_parts_mut(panel.add(p * stride + j), T::LANES);
                T::Lanes::load(from).store(to);
            }
        }
    }
    // SAFETY: passed on from the caller.
    unsafe { copy_each(k - spare_steps..k, 0..width, stride, source, panel) };
}

/// Columns that are transposed together.
pub(crate) const GROUP: usize = 8;

/// Transposes columns that each lie in one run. Groups of columns go from the last to the first and
/// steps upwards, so that what a group writes beyond the width, the next step's first group corrects.
///
/// # Safety
/// As [`pack`] with `source.step = 1`. Where the width is a multiple of [`GROUP`], any `stride` of at least the
/// width will do, and nothing is written beyond the width.
#[inline(always)]
pub(crate) unsafe fn transpose<I: Isa, T: Real>(
    k: usize,
    width: usize,
    stride: usize,
    source: Source<T>,
    panel: *mut T,
) {
    for j in (0..width).step_by(GROUP).rev() {
        // Beyond the width the last column is repeated.
        let columns: [*const T; GROUP] =
            std::array::from_fn(|v| source.start.wrapping_add((j + v).min(width - 1) * source.column));
        // SAFETY: the columns hold k elements; the rest is promised by the caller, and T has the name
        // under which it is cast. The conditions are constants of I and T.
        unsafe {
            let group = panel.add(j);
            match I::LEVEL {
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 | Level::Avx512 if is::<T, f32>() && k >= STEPS_F32 => {
                    transpose_f32(k, columns.map(|column| column.cast()), group.cast(), stride);
                }
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 | Level::Avx512 if is::<T, f64>() && k >= STEPS_F64 => {
                    transpose_f64(k, columns.map(|column| column.cast()), group.cast(), stride);
                }
                _ => copy_each(0..k, j..width.min(j + GROUP), stride, source, panel),
            }
        }
    }
}

/// Steps of which a 128-bit register holds an `f32` each.
#[cfg(target_arch = "x86_64")]
const STEPS_F32: usize = 4;
/// Steps of which a 128-bit register holds an `f64` each.
#[cfg(target_arch = "x86_64")]
const STEPS_F64: usize = 2;

/// Blocks of 4 steps, the last of them over the one before where `k` is no multiple. Two columns share a
/// register from the load on, which leaves only shuffles within 128 bits. Written over arrays LLVM
/// moves single elements.
///
/// # Safety
/// Each column must hold `k >= 4` elements, `panel` be writable at `p * stride` for 8 elements each; the
/// CPU must have AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn transpose_f32(k: usize, columns: [*const f32; GROUP], panel: *mut f32, stride: usize) {
    let mut p = 0;
    while p < k {
        p = p.min(k - STEPS_F32);
        // SAFETY: promised by the caller.
        unsafe {
            let mut pair = [_mm256_setzero_ps(); 4];
            for v in 0..4 {
                let low = _mm256_castps128_ps256(_mm_loadu_ps(columns[v].add(p)));
                pair[v] = _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(columns[v + 4].add(p)));
            }
            let (low_01, high_01) =
                (_mm256_unpacklo_ps(pair[0], pair[1]), _mm256_unpackhi_ps(pair[0], pair[1]));
            let (low_23, high_23) =
                (_mm256_unpacklo_ps(pair[2], pair[3]), _mm256_unpackhi_ps(pair[2], pair[3]));
            let target = panel.add(p * stride);
            _mm256_storeu_ps(target, _mm256_shuffle_ps::<0x44>(low_01, low_23));
            _mm256_storeu_ps(target.add(stride), _mm256_shuffle_ps::<0xEE>(low_01, low_23));
            _mm256_storeu_ps(target.add(2 * stride), _mm256_shuffle_ps::<0x44>(high_01, high_23));
            _mm256_storeu_ps(target.add(3 * stride), _mm256_shuffle_ps::<0xEE>(high_01, high_23));
        }
        p += STEPS_F32;
    }
}

/// As [`transpose_f32`], in blocks of 2 steps.
///
/// # Safety
/// As [`transpose_f32`] with `k >= 2`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn transpose_f64(k: usize, columns: [*const f64; GROUP], panel: *mut f64, stride: usize) {
    let mut p = 0;
    while p < k {
        p = p.min(k - STEPS_F64);
        // SAFETY: promised by the caller.
        unsafe {
            let mut pair = [_mm256_setzero_pd(); 4];
            for (v, first) in [0, 1, 4, 5].into_iter().enumerate() {
                let low = _mm256_castpd128_pd256(_mm_loadu_pd(columns[first].add(p)));
                pair[v] = _mm256_insertf128_pd::<1>(low, _mm_loadu_pd(columns[first + 2].add(p)));
            }
            let target = panel.add(p * stride);
            for step in 0..STEPS_F64 {
                for half in 0..2 {
                    let (even, odd) = (pair[2 * half], pair[2 * half + 1]);
                    let row =
                        if step == 0 { _mm256_unpacklo_pd(even, odd) } else { _mm256_unpackhi_pd(even, odd) };
                    _mm256_storeu_pd(target.add(step * stride + 4 * half), row);
                }
            }
        }
        p += STEPS_F64;
    }
}
