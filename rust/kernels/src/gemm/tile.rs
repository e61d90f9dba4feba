//! The microkernel: an `R x V` lane-array tile of C kept in registers over a run of k.

use crate::isa::Isa;
use crate::lanes::{Lanes, Real};

/// The largest tile of any instruction set, in elements of the type with the most lanes.
pub(super) const MAX_TILE: usize = 12 * 2 * 16;

/// The operands of one tile. `a` broadcasts from any strides, `b` is read in lane arrays.
#[derive(Clone, Copy)]
pub(super) struct Operands<T> {
    pub k: usize,
    pub a: *const T,
    pub a_row: usize,
    pub a_k: usize,
    pub b: *const T,
    pub b_k: usize,
    pub c: *mut T,
    pub c_row: usize,
    /// Continue the sums that are in C instead of starting from zero.
    pub resume: bool,
}

/// Runs a block for each row below `R`, unrolled by hand: LLVM does not unroll a loop over 5 rows or
/// more of 2 lane arrays, and the accumulators then live in memory (half the speed).
macro_rules! each_row {
    ($i:ident < $r:ident $body:block) => {
        each_row!(@ $i $r $body 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    (@ $i:ident $r:ident $body:block $($n:literal)*) => {
        $(if $n < $r {
            let $i: usize = $n;
            $body
        })*
    };
}

/// `C[i][j] = fma(A[i][p], B[p][j], C[i][j])` for `p` ascending: one chain per element, in one lane.
///
/// # Safety
/// `a` must be readable at `i * a_row + p * a_k`, `b` at `p * b_k + j` and `c` writable at
/// `i * c_row + j` for all `i < R`, `j < V * T::LANES`, `p < k`.
#[inline(always)]
unsafe fn tile<T: Real, const R: usize, const V: usize>(o: Operands<T>) {
    let mut acc = [[T::Lanes::splat(T::ZERO); V]; R];
    if o.resume {
        each_row!(i < R {
            for v in 0..V {
                // SAFETY: the caller promises row i of C.
                acc[i][v] = unsafe { load(o.c.add(i * o.c_row + v * T::LANES)) };
            }
        });
    }
    let (mut a, mut b) = (o.a, o.b);
    for _ in 0..o.k {
        let mut row = [T::Lanes::splat(T::ZERO); V];
        for v in 0..V {
            // SAFETY: the caller promises row p of B.
            row[v] = unsafe { load(b.add(v * T::LANES)) };
        }
        each_row!(i < R {
            // SAFETY: the caller promises column p of A.
            let x = T::Lanes::splat(unsafe { *a.add(i * o.a_row) });
            for v in 0..V {
                acc[i][v] = x.mul_add(row[v], acc[i][v]);
            }
        });
        // `wrapping`: after the last step these point past the operands and are not read.
        a = a.wrapping_add(o.a_k);
        b = b.wrapping_add(o.b_k);
    }
    each_row!(i < R {
        for v in 0..V {
            // SAFETY: the caller promises row i of C.
            unsafe { store(acc[i][v], o.c.add(i * o.c_row + v * T::LANES)) };
        }
    });
}

/// # Safety
/// `source` must be readable for a lane array.
#[inline(always)]
unsafe fn load<T: Real>(source: *const T) -> T::Lanes {
    // SAFETY: promised by the caller.
    T::Lanes::load(unsafe { std::slice::from_raw_parts(source, T::LANES) })
}

/// # Safety
/// `target` must be writable for a lane array.
#[inline(always)]
unsafe fn store<T: Real>(value: T::Lanes, target: *mut T) {
    // SAFETY: promised by the caller.
    value.store(unsafe { std::slice::from_raw_parts_mut(target, T::LANES) });
}

/// Runs the tile of `rows` rows and `lanes` lane arrays, at most `I`'s tile.
///
/// # Safety
/// As [`tile`] with `R = rows` and `V = lanes`.
#[inline(always)]
pub(super) unsafe fn run<I: Isa, T: Real>(rows: usize, lanes: usize, o: Operands<T>) {
    // The comparisons with I's constants fold away, and with them the tiles that I cannot hold.
    macro_rules! variants {
        ($v:literal: $($r:literal)*) => {
            match rows {
                // SAFETY: passed on from the caller.
                $($r if $r <= I::TILE_ROWS => unsafe { tile::<T, $r, $v>(o) },)*
                _ => unreachable!("a tile of {rows} rows"),
            }
        };
    }
    if I::TILE_LANES == 2 && lanes == 2 {
        variants!(2: 1 2 3 4 5 6 7 8 9 10 11 12);
    } else {
        debug_assert_eq!(lanes, 1);
        variants!(1: 1 2 3 4 5 6 7 8 9 10 11 12);
    }
}
