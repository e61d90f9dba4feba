//! Kernels that move elements: copies between layouts, conversions and selection. They are bound by memory,
//! so the baseline instruction set does for them.

use super::walk::Walk;

/// Side of the square that a transposing copy works on: at most 16 lines are read and 16 written at a
/// time, which stay in the first-level cache even where the strides are powers of two.
const SQUARE: usize = 16;

/// `out = x`: a strided view to contiguous memory.
pub fn copy<T: Copy>(shape: &[usize], x: &[T], x_strides: &[usize], out: &mut [T]) {
    let Some(mut walk) = Walk::new(shape, [x_strides], [x.len()]) else { return };
    assert_eq!(out.len(), walk.len(), "the output is contiguous");
    let [column_stride] = walk.inner_strides();
    if column_stride <= 1 {
        return cast_rows(&walk, x, out, |v| v);
    }
    let Some([(rows, [row_stride]), (columns, _)]) = walk.split_matrix() else {
        return cast_rows(&walk, x, out, |v| v);
    };
    let mut cursor = walk.cursor();
    for matrix in out.chunks_exact_mut(rows * columns) {
        transpose(&x[cursor.offset[0]..], (rows, row_stride), (columns, column_stride), matrix);
        cursor.advance(&walk);
    }
}

fn transpose<T: Copy>(
    x: &[T],
    (rows, row_stride): (usize, usize),
    (columns, column_stride): (usize, usize),
    out: &mut [T],
) {
    for first_row in (0..rows).step_by(SQUARE) {
        let last_row = rows.min(first_row + SQUARE);
        for first_column in (0..columns).step_by(SQUARE) {
            let last_column = columns.min(first_column + SQUARE);
            for row in first_row..last_row {
                let x = &x[row * row_stride + first_column * column_stride..];
                let out = &mut out[row * columns + first_column..row * columns + last_column];
                for (j, o) in out.iter_mut().enumerate() {
                    *o = x[j * column_stride];
                }
            }
        }
    }
}

/// `out = convert(x)`: a strided view to contiguous memory.
pub fn cast<S: Copy, T: Copy>(
    shape: &[usize],
    x: &[S],
    x_strides: &[usize],
    out: &mut [T],
    convert: impl Fn(S) -> T,
) {
    let Some(walk) = Walk::new(shape, [x_strides], [x.len()]) else { return };
    assert_eq!(out.len(), walk.len(), "the output is contiguous");
    cast_rows(&walk, x, out, convert);
}

fn cast_rows<S: Copy, T: Copy>(walk: &Walk<1>, x: &[S], out: &mut [T], convert: impl Fn(S) -> T) {
    let [stride] = walk.inner_strides();
    let mut cursor = walk.cursor();
    for row in out.chunks_exact_mut(walk.inner()) {
        let x = &x[cursor.offset[0]..];
        match stride {
            0 => row.fill(convert(x[0])),
            1 => {
                for (o, &x) in row.iter_mut().zip(x) {
                    *o = convert(x);
                }
            }
            _ => {
                for (o, &x) in row.iter_mut().zip(x.iter().step_by(stride)) {
                    *o = convert(x);
                }
            }
        }
        cursor.advance(walk);
    }
}

/// `out = x`: contiguous memory to a strided view, which must not meet an element twice.
pub fn scatter_into<T: Copy>(shape: &[usize], x: &[T], out: &mut [T], out_strides: &[usize]) {
    let Some(walk) = Walk::new(shape, [out_strides], [out.len()]) else { return };
    assert_eq!(x.len(), walk.len(), "the input is contiguous");
    let [stride] = walk.inner_strides();
    let mut cursor = walk.cursor();
    for row in x.chunks_exact(walk.inner()) {
        let out = &mut out[cursor.offset[0]..];
        if stride == 1 {
            out[..row.len()].copy_from_slice(row);
        } else {
            for (j, &x) in row.iter().enumerate() {
                out[j * stride] = x;
            }
        }
        cursor.advance(&walk);
    }
}

/// `out = a` where `cond` is not 0, else `b`.
pub fn select<T: Copy>(
    shape: &[usize],
    cond: &[u8],
    cond_strides: &[usize],
    a: &[T],
    a_strides: &[usize],
    b: &[T],
    b_strides: &[usize],
    out: &mut [T],
) {
    let strides = [cond_strides, a_strides, b_strides];
    let Some(walk) = Walk::new(shape, strides, [cond.len(), a.len(), b.len()]) else { return };
    assert_eq!(out.len(), walk.len(), "the output is contiguous");
    let [cond_stride, a_stride, b_stride] = walk.inner_strides();
    let mut cursor = walk.cursor();
    for row in out.chunks_exact_mut(walk.inner()) {
        let [c, a_offset, b_offset] = cursor.offset;
        let (cond, a, b) = (&cond[c..], &a[a_offset..], &b[b_offset..]);
        if walk.inner_strides() == [1; 3] {
            for (o, ((&c, &a), &b)) in row.iter_mut().zip(cond.iter().zip(a).zip(b)) {
                *o = if c != 0 { a } else { b };
            }
        } else {
            for (j, o) in row.iter_mut().enumerate() {
                *o = if cond[j * cond_stride] != 0 { a[j * a_stride] } else { b[j * b_stride] };
            }
        }
        cursor.advance(&walk);
    }
}
