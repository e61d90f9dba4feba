//! Walks over strided operands: dimensions are merged where the memory allows it, then visited row
//! by row. The output is always contiguous and row-major.

/// The most dimensions that a view may have.
pub const MAX_RANK: usize = 8;

/// Elements that are worked on together: 64 or 128 bytes, which the compiler keeps in registers.
pub(crate) const BLOCK: usize = 16;

/// Whole multiples of this go through a plain loop: vector width times unrolling divides it on every level, so
/// the compiler's scalar remainder never runs. (A loop over blocks would be turned into gathers.)
const FLAT: usize = 64;

/// A function of one element. A trait instead of a closure, because `#[inline(always)]` on `apply`
/// makes sure that it is compiled for the instruction set of its caller.
pub(crate) trait Map<S, O>: Copy {
    fn apply(self, x: S) -> O;
}

/// A function of two elements; see [`Map`].
pub(crate) trait Zip<A, B, O>: Copy {
    fn apply(self, a: A, b: B) -> O;
}

/// `N` operands of one shape, without dimensions of size 1 and with neighbours merged.
pub(super) struct Walk<const N: usize> {
    rank: usize,
    shape: [usize; MAX_RANK],
    strides: [[usize; N]; MAX_RANK],
}

impl<const N: usize> Walk<N> {
    /// `None` where the shape holds no element. Panics where an operand is too short for its strides.
    pub(super) fn new(shape: &[usize], strides: [&[usize]; N], lengths: [usize; N]) -> Option<Self> {
        assert!(shape.len() <= MAX_RANK, "at most {MAX_RANK} dimensions, got {}", shape.len());
        let mut walk = Walk { rank: 0, shape: [1; MAX_RANK], strides: [[1; N]; MAX_RANK] };
        let mut last = [0; N];
        for (dim, &size) in shape.iter().enumerate() {
            if size == 0 {
                return None;
            }
            if size == 1 {
                continue;
            }
            let mut step = [0; N];
            let mut merges = walk.rank > 0;
            for k in 0..N {
                step[k] = strides[k][dim];
                last[k] += (size - 1) * step[k];
                merges = merges && walk.strides[walk.rank - 1][k] == size * step[k];
            }
            if merges {
                walk.shape[walk.rank - 1] *= size;
            } else {
                walk.shape[walk.rank] = size;
                walk.rank += 1;
            }
            walk.strides[walk.rank - 1] = step;
        }
        for k in 0..N {
            assert!(last[k] < lengths[k], "operand {k} is shorter than its shape and strides say");
        }
        walk.rank = walk.rank.max(1);
        Some(walk)
    }

    /// Elements of a row.
    #[inline(always)]
    pub(super) fn inner(&self) -> usize {
        self.shape[self.rank - 1]
    }

    /// The operands' steps inside a row.
    #[inline(always)]
    pub(super) fn inner_strides(&self) -> [usize; N] {
        self.strides[self.rank - 1]
    }

    /// Elements of the whole walk.
    pub(super) fn len(&self) -> usize {
        self.shape[..self.rank].iter().product()
    }

    /// Takes the last two dimensions off, as (size, steps); a row of the walk then is one such matrix.
    pub(super) fn split_matrix(&mut self) -> Option<[(usize, [usize; N]); 2]> {
        if self.rank < 2 {
            return None;
        }
        let [rows, columns] = [self.rank - 2, self.rank - 1].map(|dim| (self.shape[dim], self.strides[dim]));
        self.rank -= 1;
        self.shape[self.rank - 1] = 1;
        Some([rows, columns])
    }

    /// Starts at the first row.
    #[inline(always)]
    pub(super) fn cursor(&self) -> Cursor<N> {
        Cursor { index: [0; MAX_RANK], offset: [0; N] }
    }
}

/// The place of a row: the operands' offsets of its first element.
pub(super) struct Cursor<const N: usize> {
    index: [usize; MAX_RANK],
    pub(super) offset: [usize; N],
}

impl<const N: usize> Cursor<N> {
    /// Goes to the next row (after the last: back to the first).
    #[inline(always)]
    pub(super) fn advance(&mut self, walk: &Walk<N>) {
        for dim in (0..walk.rank - 1).rev() {
            self.index[dim] += 1;
            for k in 0..N {
                self.offset[k] += walk.strides[dim][k];
            }
            if self.index[dim] < walk.shape[dim] {
                return;
            }
            for k in 0..N {
                self.offset[k] -= walk.shape[dim] * walk.strides[dim][k];
            }
            self.index[dim] = 0;
        }
    }
}

#[inline(always)]
fn map_block<S: Copy, O: Copy + Default>(f: impl Map<S, O>, x: [S; BLOCK]) -> [O; BLOCK] {
    let mut out = [O::default(); BLOCK];
    for j in 0..BLOCK {
        out[j] = f.apply(x[j]);
    }
    out
}

#[inline(always)]
fn zip_block<A: Copy, B: Copy, O: Copy + Default>(
    f: impl Zip<A, B, O>,
    a: [A; BLOCK],
    b: [B; BLOCK],
) -> [O; BLOCK] {
    let mut out = [O::default(); BLOCK];
    for j in 0..BLOCK {
        out[j] = f.apply(a[j], b[j]);
    }
    out
}

/// Up to [`BLOCK`] elements at a stride; what follows `count` elements is arbitrary.
#[inline(always)]
fn gather_block<T: Copy>(x: &[T], stride: usize, count: usize) -> [T; BLOCK] {
    // A short row mostly has other rows behind it: reading on costs less than a copy of variable length.
    if stride == 1
        && let Some(block) = x.first_chunk()
    {
        return *block;
    }
    let mut block = [x[0]; BLOCK];
    if stride > 0 {
        for j in 1..count {
            block[j] = x[j * stride];
        }
    }
    block
}

/// Writes the first elements of a block.
#[inline(always)]
fn store_block<T: Copy>(block: [T; BLOCK], out: &mut [T]) {
    match out.first_chunk_mut() {
        Some(out) => *out = block,
        None => {
            for (out, value) in out.iter_mut().zip(block) {
                *out = value;
            }
        }
    }
}

/// `out[i] = f(x[i * stride])`. Whole blocks of a contiguous row go straight through registers, all
/// else through a gathered block, so that every element meets the same code.
#[inline(always)]
pub(super) fn map_row<S: Copy, O: Copy + Default>(f: impl Map<S, O>, x: &[S], stride: usize, out: &mut [O]) {
    let n = out.len();
    if stride == 0 {
        out.fill(map_block(f, [x[0]; BLOCK])[0]);
        return;
    }
    let mut i = 0;
    if stride == 1 {
        i = n - n % FLAT;
        for (o, &x) in out[..i].iter_mut().zip(&x[..i]) {
            *o = f.apply(x);
        }
    }
    while i < n {
        let count = BLOCK.min(n - i);
        let block = map_block(f, gather_block(&x[i * stride..], stride, count));
        store_block(block, &mut out[i..i + count]);
        i += count;
    }
}

/// [`map_row`] by blocks alone: for functions so long that a second copy of them costs more than it saves.
#[inline(always)]
pub(super) fn map_blocks<T: Copy + Default>(f: impl Map<T, T>, x: &[T], stride: usize, out: &mut [T]) {
    for (number, out) in out.chunks_mut(BLOCK).enumerate() {
        let block = gather_block(&x[number * BLOCK * stride..], stride, out.len());
        store_block(map_block(f, block), out);
    }
}

/// [`zip_row`] by blocks alone; see [`map_blocks`].
#[inline(always)]
pub(super) fn zip_blocks<T: Copy + Default>(
    f: impl Zip<T, T, T>,
    (a, a_stride): (&[T], usize),
    (b, b_stride): (&[T], usize),
    out: &mut [T],
) {
    for (number, out) in out.chunks_mut(BLOCK).enumerate() {
        let first = number * BLOCK;
        let a = gather_block(&a[first * a_stride..], a_stride, out.len());
        let b = gather_block(&b[first * b_stride..], b_stride, out.len());
        store_block(zip_block(f, a, b), out);
    }
}

/// `row[i] = f(row[i])`.
#[inline(always)]
pub(crate) fn map_in_place<T: Copy + Default>(f: impl Map<T, T>, row: &mut [T]) {
    let (flat, rest) = row.split_at_mut(row.len() - row.len() % FLAT);
    for x in flat {
        *x = f.apply(*x);
    }
    for rest in rest.chunks_mut(BLOCK) {
        store_block(map_block(f, gather_block(rest, 1, rest.len())), rest);
    }
}

/// `out[i] = f(a[i * a_stride], b[i * b_stride])`; see [`map_row`].
#[inline(always)]
pub(super) fn zip_row<A: Copy, B: Copy, O: Copy + Default>(
    f: impl Zip<A, B, O>,
    (a, a_stride): (&[A], usize),
    (b, b_stride): (&[B], usize),
    out: &mut [O],
) {
    let n = out.len();
    let mut i = 0;
    if a_stride <= 1 && b_stride <= 1 && a_stride + b_stride > 0 {
        i = n - n % FLAT;
        let flat = out[..i].iter_mut();
        if a_stride == 0 {
            let a = a[0];
            for (o, &b) in flat.zip(&b[..i]) {
                *o = f.apply(a, b);
            }
        } else if b_stride == 0 {
            let b = b[0];
            for (o, &a) in flat.zip(&a[..i]) {
                *o = f.apply(a, b);
            }
        } else {
            for (o, (&a, &b)) in flat.zip(a[..i].iter().zip(&b[..i])) {
                *o = f.apply(a, b);
            }
        }
    }
    while i < n {
        let count = BLOCK.min(n - i);
        let a = gather_block(&a[i * a_stride..], a_stride, count);
        let b = gather_block(&b[i * b_stride..], b_stride, count);
        store_block(zip_block(f, a, b), &mut out[i..i + count]);
        i += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets<const N: usize>(walk: &Walk<N>) -> Vec<[usize; N]> {
        let mut cursor = walk.cursor();
        let mut seen = Vec::new();
        for _ in 0..walk.len() / walk.inner() {
            seen.push(cursor.offset);
            cursor.advance(walk);
        }
        seen
    }

    #[test]
    fn contiguous_operands_become_one_row() {
        let walk = Walk::new(&[2, 1, 3, 4], [&[12, 7, 4, 1], &[0, 0, 0, 0]], [24, 1]).unwrap();
        assert_eq!((walk.inner(), walk.inner_strides(), walk.rank), (24, [1, 0], 1));
    }

    #[test]
    fn rows_come_in_row_major_order() {
        let walk = Walk::new(&[2, 3, 4], [&[12, 1, 3]], [24]).unwrap();
        assert_eq!(walk.inner_strides(), [3]);
        assert_eq!(offsets(&walk), [[0], [1], [2], [12], [13], [14]]);
    }

    #[test]
    fn a_shape_without_dimensions_is_one_element() {
        let walk = Walk::new(&[], [&[]], [1]).unwrap();
        assert_eq!((walk.len(), walk.inner()), (1, 1));
    }

    #[test]
    fn an_empty_shape_has_no_walk() {
        assert!(Walk::new(&[3, 0], [&[0, 1]], [0]).is_none());
    }

    #[test]
    #[should_panic(expected = "operand 0 is shorter")]
    fn a_short_operand_is_refused() {
        Walk::new(&[3, 4], [&[4, 1]], [11]);
    }
}
