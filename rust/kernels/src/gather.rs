//! Mini-batches: rows of a foreign array (any element type, strides and alignment) converted into a contiguous
//! batch. `index` names the rows, so shuffling never moves the data set.

use std::any::TypeId;
use std::ptr::copy_nonoverlapping;

/// An element type of a source array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned, 1 byte.
    U8,
    /// Signed, 1 byte.
    I8,
    /// Unsigned, 2 bytes.
    U16,
    /// Signed, 2 bytes.
    I16,
    /// Unsigned, 4 bytes.
    U32,
    /// Signed, 4 bytes.
    I32,
    /// Unsigned, 8 bytes.
    U64,
    /// Signed, 8 bytes.
    I64,
    /// Binary floating point, 4 bytes.
    F32,
    /// Binary floating point, 8 bytes.
    F64,
}

impl Source {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Source::Bool | Source::U8 | Source::I8 => 1,
            Source::U16 | Source::I16 => 2,
            Source::U32 | Source::I32 | Source::F32 => 4,
            Source::U64 | Source::I64 | Source::F64 => 8,
        }
    }
}

/// Conversion of a source element; to integers it truncates and saturates, as `as` does.
pub trait Convert<T>: Copy {
    /// The value as `T`.
    fn convert(self) -> T;
}

macro_rules! convert {
    ($($source:ident)*) => {$(
        convert!(@ $source, f32 f64 i64);
    )*};
    (@ $source:ident, $($target:ident)*) => {$(
        impl Convert<$target> for $source {
            #[inline(always)]
            fn convert(self) -> $target {
                self as $target
            }
        }
    )*};
}
convert!(u8 i8 u16 i16 u32 i32 u64 i64 f32 f64);

/// `out[i][j] = source[index[i]][j]`, where rows of `out` begin every `out_stride` elements.
///
/// # Safety
/// For every row `r` in `index` and every column `j`, the bytes of an `S` at
/// `source + r * row_stride + j * col_stride` must be readable and inside one allocation.
pub unsafe fn gather_rows<S: Convert<T> + 'static, T: Copy + 'static>(
    source: *const u8,
    row_stride: isize,
    col_stride: isize,
    index: &[u32],
    cols: usize,
    out: &mut [T],
    out_stride: usize,
) {
    if cols == 0 || index.is_empty() {
        return;
    }
    assert!(
        out_stride >= cols && out.len() >= (index.len() - 1) * out_stride + cols,
        "a row of the batch for each index"
    );
    let size = size_of::<S>() as isize;
    // SAFETY: the caller's promise, and the assertion; the elements of a row lie side by side, or there is one.
    unsafe {
        match cols {
            1 => return gather_short::<S, T, 1>(source, row_stride, index, out, out_stride),
            2 if col_stride == size => {
                return gather_short::<S, T, 2>(source, row_stride, index, out, out_stride);
            }
            3 if col_stride == size => {
                return gather_short::<S, T, 3>(source, row_stride, index, out, out_stride);
            }
            4 if col_stride == size => {
                return gather_short::<S, T, 4>(source, row_stride, index, out, out_stride);
            }
            _ => {}
        }
    }
    for (i, (row, &r)) in out.chunks_mut(out_stride).zip(index).enumerate() {
        let row = &mut row[..cols];
        if let Some(&next) = index.get(i + PREFETCH_ROWS) {
            let bytes = (cols * size_of::<S>()).min(PREFETCH_BYTES);
            prefetch(source.wrapping_offset(next as isize * row_stride), bytes);
        }
        // SAFETY: the caller vouches for every element of row r.
        let start = unsafe { source.offset(r as isize * row_stride) }.cast::<S>();
        if col_stride == size && cols > CALL_ELEMENTS && TypeId::of::<S>() == TypeId::of::<T>() {
            // SAFETY: `cols` elements of one type on both sides; nothing else refers to `row`.
            unsafe { copy_nonoverlapping(start.cast::<u8>(), row.as_mut_ptr().cast(), size_of_val(row)) };
        } else if col_stride == size {
            for (j, o) in row.iter_mut().enumerate() {
                // SAFETY: as above; elements lie side by side.
                *o = unsafe { start.add(j).read_unaligned() }.convert();
            }
        } else {
            for (j, o) in row.iter_mut().enumerate() {
                // SAFETY: as above.
                *o = unsafe { start.byte_offset(j as isize * col_stride).read_unaligned() }.convert();
            }
        }
    }
}

/// [`gather_rows`] for rows of `N` elements side by side: the loop over so few would take longer than they do.
///
/// # Safety
/// As [`gather_rows`], and `out` must have a row for each index.
unsafe fn gather_short<S: Convert<T>, T: Copy, const N: usize>(
    source: *const u8,
    row_stride: isize,
    index: &[u32],
    out: &mut [T],
    out_stride: usize,
) {
    let out = out.as_mut_ptr();
    for (i, &r) in index.iter().enumerate() {
        // SAFETY: the caller's promises.
        unsafe {
            let row = source.offset(r as isize * row_stride).cast::<[S; N]>().read_unaligned();
            out.add(i * out_stride).cast::<[T; N]>().write(row.map(Convert::convert));
        }
    }
}

/// Elements of a row from which a call of `memcpy` is quicker than a loop.
const CALL_ELEMENTS: usize = 16;
/// Rows ahead of the one that is copied, whose first lines are asked for: shuffled rows start on pages that the
/// hardware does not foresee.
const PREFETCH_ROWS: usize = 2;
/// Bytes of a row that are asked for, at most; reading it then runs ahead by itself.
const PREFETCH_BYTES: usize = 512;

/// Asks for bytes that will be read or written soon; any address may be named.
#[inline(always)]
pub(crate) fn prefetch(start: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..bytes).step_by(64) {
        // SAFETY: a prefetch reads nothing and never faults; SSE is x86-64's baseline.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (start, bytes);
}

/// Asks for the line of an address, which may be any, for the L2 cache: it will be used later than what L1 holds.
#[inline(always)]
pub(crate) fn prefetch_far(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as in [`prefetch`].
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// An element type of a batch: `f32` and `f64` for inputs, `i64` for labels.
pub trait Target: Copy {
    /// [`gather_rows`] for a source type known at run time.
    ///
    /// # Safety
    /// As for [`gather_rows`], with elements of type `kind`.
    unsafe fn gather(
        kind: Source,
        source: *const u8,
        row_stride: isize,
        col_stride: isize,
        index: &[u32],
        cols: usize,
        out: &mut [Self],
        out_stride: usize,
    );
}

macro_rules! target {
    ($($type:ident)*) => {$(
        impl Target for $type {
            unsafe fn gather(
                kind: Source,
                source: *const u8,
                row_stride: isize,
                col_stride: isize,
                index: &[u32],
                cols: usize,
                out: &mut [Self],
                out_stride: usize,
            ) {
                let gather = match kind {
                    Source::Bool | Source::U8 => gather_rows::<u8, $type>,
                    Source::I8 => gather_rows::<i8, $type>,
                    Source::U16 => gather_rows::<u16, $type>,
                    Source::I16 => gather_rows::<i16, $type>,
                    Source::U32 => gather_rows::<u32, $type>,
                    Source::I32 => gather_rows::<i32, $type>,
                    Source::U64 => gather_rows::<u64, $type>,
                    Source::I64 => gather_rows::<i64, $type>,
                    Source::F32 => gather_rows::<f32, $type>,
                    Source::F64 => gather_rows::<f64, $type>,
                };
                // SAFETY: the caller's promise.
                unsafe { gather(source, row_stride, col_stride, index, cols, out, out_stride) }
            }
        }
    )*};
}
target!(f32 f64 i64);

/// [`gather_rows`] for a source type known at run time, into `f32`, `f64` or (labels) `i64`.
///
/// # Safety
/// As for [`gather_rows`], with elements of type `kind`.
pub unsafe fn gather<T: Target>(
    kind: Source,
    source: *const u8,
    row_stride: isize,
    col_stride: isize,
    index: &[u32],
    cols: usize,
    out: &mut [T],
    out_stride: usize,
) {
    // SAFETY: the caller's promise.
    unsafe { T::gather(kind, source, row_stride, col_stride, index, cols, out, out_stride) }
}

/// Elements between two looks at what was found.
const SCAN: usize = 4096;

macro_rules! is_finite_run {
    ($name:ident, $float:ident) => {
        /// Whether `count` elements side by side are finite.
        ///
        /// # Safety
        /// They must be readable; nothing is required of their alignment.
        unsafe fn $name(start: *const u8, count: usize) -> bool {
            let start = start.cast::<$float>();
            (0..count).step_by(SCAN).all(|first| {
                let mut bits = 0;
                for j in first..count.min(first + SCAN) {
                    // SAFETY: the caller's promise.
                    let value = unsafe { start.add(j).read_unaligned() };
                    // Zero for a finite number, else NaN: one integer reduction, which the compiler vectorises.
                    bits |= (value - value).to_bits();
                }
                bits == 0
            })
        }
    };
}
is_finite_run!(is_finite_f32, f32);
is_finite_run!(is_finite_f64, f64);

/// Whether no element of a matrix is NaN or infinite; integers never are.
///
/// # Safety
/// The bytes of every element of `rows` rows and `cols` columns must be readable and inside one allocation.
pub unsafe fn is_finite(
    kind: Source,
    source: *const u8,
    row_stride: isize,
    col_stride: isize,
    rows: usize,
    cols: usize,
) -> bool {
    let run = match kind {
        Source::F32 => is_finite_f32,
        Source::F64 => is_finite_f64,
        _ => return true,
    };
    let size = kind.size() as isize;
    let is_dense_row = col_stride == size || cols == 1;
    if is_dense_row && (row_stride == cols as isize * size || rows == 1) {
        // SAFETY: without gaps, all elements are one run.
        return unsafe { run(source, rows * cols) };
    }
    (0..rows).all(|row| {
        // SAFETY: the start of a row, and elements of it.
        unsafe {
            let start = source.offset(row as isize * row_stride);
            if is_dense_row {
                run(start, cols)
            } else {
                (0..cols).all(|col| run(start.offset(col as isize * col_stride), 1))
            }
        }
    })
}

/// Whether every one of `rows` integers is in `0..classes`, or is `ignored`.
///
/// # Safety
/// The bytes of every element, `stride` apart, must be readable and inside one allocation.
pub unsafe fn are_labels(
    kind: Source,
    source: *const u8,
    stride: isize,
    rows: usize,
    classes: u64,
    ignored: Option<i64>,
) -> bool {
    macro_rules! scan {
        ($type:ident) => {
            (0..rows as isize).fold(true, |all, row| {
                // SAFETY: the caller's promise.
                let value = unsafe { source.offset(row * stride).cast::<$type>().read_unaligned() };
                let label: i64 = value.convert();
                all & ((label as u64) < classes || Some(label) == ignored)
            })
        };
    }
    match kind {
        Source::Bool | Source::U8 => scan!(u8),
        Source::I8 => scan!(i8),
        Source::U16 => scan!(u16),
        Source::I16 => scan!(i16),
        Source::U32 => scan!(u32),
        Source::I32 => scan!(i32),
        Source::I64 => scan!(i64),
        // The largest have no counterpart among labels; floats are none.
        Source::U64 | Source::F32 | Source::F64 => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<S: Convert<f32> + Convert<i64>>(kind: Source, from: fn(i32) -> S) {
        assert_eq!(kind.size(), size_of::<S>());
        let values: Vec<S> = (0..12).map(from).collect();
        // One byte in front makes every wider element unaligned.
        let mut bytes = vec![0u8];
        for value in &values {
            let pointer: *const S = value;
            // SAFETY: the bytes of a number.
            bytes.extend(unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), size_of::<S>()) });
        }
        let size = size_of::<S>() as isize;
        // SAFETY: rows 0 to 2 of four elements behind the first byte.
        unsafe {
            let source = bytes.as_ptr().add(1);
            let mut out = [0f32; 8];
            gather(kind, source, 4 * size, size, &[2, 0], 4, &mut out, 4);
            assert_eq!(out, [8.0, 9.0, 10.0, 11.0, 0.0, 1.0, 2.0, 3.0], "{kind:?}");
            // The same array, transposed and with its columns reversed.
            for cols in 1..=4 {
                let (mut out, mut want) = ([-1f32; 15], [-1f32; 15]);
                gather(kind, source, 4 * size, size, &[2, 0, 1], cols, &mut out, 5);
                for (row, first) in want.chunks_mut(5).zip([8, 0, 4]) {
                    row.iter_mut().zip(first..).take(cols).for_each(|(to, v)| *to = v as f32);
                }
                assert_eq!(out, want, "{kind:?}, {cols} columns");
            }
            let mut labels = [0i64; 4];
            gather(kind, source.offset(8 * size), size, -4 * size, &[3, 1], 2, &mut labels, 2);
            assert_eq!(labels, [11, 7, 9, 5], "{kind:?}");
        }
    }

    #[test]
    fn every_source_type_is_read_unaligned_and_strided() {
        check::<u8>(Source::U8, |v| v as u8);
        check::<u8>(Source::Bool, |v| v as u8);
        check::<i8>(Source::I8, |v| v as i8);
        check::<u16>(Source::U16, |v| v as u16);
        check::<i16>(Source::I16, |v| v as i16);
        check::<u32>(Source::U32, |v| v as u32);
        check::<i32>(Source::I32, |v| v);
        check::<u64>(Source::U64, |v| v as u64);
        check::<i64>(Source::I64, |v| v as i64);
        check::<f32>(Source::F32, |v| v as f32);
        check::<f64>(Source::F64, |v| v as f64);
    }

    #[test]
    fn empty_batches_and_rows_read_nothing() {
        // SAFETY: no element is read.
        unsafe {
            gather::<f32>(Source::F64, std::ptr::null(), 8, 8, &[], 3, &mut [], 3);
            gather::<f32>(Source::F64, std::ptr::null(), 8, 8, &[1, 2], 0, &mut [], 0);
        }
    }

    #[test]
    fn a_number_that_is_not_finite_is_found_anywhere() {
        let (rows, cols) = (5, 1700);
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for at in [None, Some(0), Some(cols - 1), Some(4 * cols + 3), Some(rows * cols - 1)] {
                let mut wide = vec![f64::MAX; rows * cols];
                let mut narrow = vec![f32::MAX; rows * cols];
                if let Some(at) = at {
                    (wide[at], narrow[at]) = (bad, bad as f32);
                }
                let ends = [(Source::F64, wide.as_ptr().cast(), 8), (Source::F32, narrow.as_ptr().cast(), 4)];
                for (kind, start, size) in ends {
                    let row = cols as isize * size;
                    // SAFETY: the whole matrix, then its transpose, then every second column.
                    unsafe {
                        assert_eq!(is_finite(kind, start, row, size, rows, cols), at.is_none());
                        assert_eq!(is_finite(kind, start, size, row, cols, rows), at.is_none());
                        let seen = at.is_some_and(|at| at % cols % 2 == 0);
                        assert_eq!(is_finite(kind, start, row, 2 * size, rows, cols / 2), !seen);
                    }
                }
            }
        }
    }

    #[test]
    fn labels_are_classes_or_ignored() {
        let labels = [0i32, 5, 2, -100, 4];
        let start = labels.as_ptr().cast::<u8>();
        // SAFETY: some elements of the slice.
        unsafe {
            assert!(are_labels(Source::I32, start, 4, 3, 6, None));
            assert!(!are_labels(Source::I32, start, 4, 3, 5, None));
            assert!(!are_labels(Source::I32, start, 4, 5, 6, None));
            assert!(are_labels(Source::I32, start, 4, 5, 6, Some(-100)));
            assert!(are_labels(Source::I32, start, 8, 3, 5, None));
            assert!(!are_labels(Source::F32, start, 4, 1, 5, None));
        }
    }
}
