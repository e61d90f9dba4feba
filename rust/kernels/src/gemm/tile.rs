//! The microkernel: a tile of C kept in registers over a run of k.
//!
//! The one kernel of this crate that names registers. Written over lane arrays, LLVM takes the 6 x 16
//! AVX2 accumulators apart into scalars and groups them anew across registers: 29 GF/s where this has 75
//! (Rust 1.95). Each operation is the lane array's, so the bits are the same.

use std::any::TypeId;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::hint::black_box;

use crate::gather::prefetch_far;
use crate::isa::{Isa, Job, Level};
use crate::lanes::{Lanes, Real};

/// The largest tile of any instruction set, in elements of the type with the most lanes.
pub(super) const MAX_TILE: usize = 12 * 2 * 16;

/// Elements in a row of the widest tile: 4 lane arrays of 16.
pub(super) const MAX_WIDTH: usize = 64;

/// The operands of a run of tiles, one below the other. `a` broadcasts from any strides, `b` is read in lane arrays.
#[derive(Clone, Copy)]
pub(super) struct Operands<'a, T> {
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
    pub ahead: Ahead<'a>,
    pub end: End<T>,
    /// Tiles in the run. One call for all: making it takes as long as the sums of a small tile.
    pub tiles: usize,
    /// Elements from a tile of A, and of C, to the next.
    pub a_tile: usize,
    pub c_tile: usize,
}

/// What is done to the sums before they leave the registers, in the order of the fields.
#[derive(Clone, Copy)]
pub(super) struct End<T> {
    /// Added to each row; null where nothing is.
    pub bias: *const T,
    /// Put zero in place of what is not above it.
    pub rectifies: bool,
    /// Put zero where the element of this matrix is not above it; null where there is none.
    pub gate: *const T,
    /// Elements from a row of it to the next.
    pub gate_row: usize,
}

impl<T> End<T> {
    pub const NOTHING: End<T> =
        End { bias: std::ptr::null(), rectifies: false, gate: std::ptr::null(), gate_row: 0 };
}

/// Memory that will be needed after this tile, asked for line by line between the steps of k. All at once would fill
/// the buffers through which the present operands come: products with a weight of 16 MiB ran at 76 % of the peak so,
/// at 61 to 70 % without, and run at 90 % with this.
#[derive(Clone, Copy)]
pub(super) struct Ahead<'a> {
    /// Addresses of arrays; any will do.
    pub arrays: &'a [usize],
    /// Which bytes of each for the first tile; those of the next tile follow.
    pub start: usize,
    pub bytes: usize,
}

impl Ahead<'_> {
    pub const NOTHING: Ahead<'static> = Ahead { arrays: &[], start: 0, bytes: 0 };
}

/// Bytes of a cache line.
const LINE: usize = 64;

impl<'a, T> Operands<'a, T> {
    /// The same operands under the name that `T` has after `is::<T, U>()`.
    #[inline(always)]
    fn cast<U>(self) -> Operands<'a, U> {
        let Operands { k, a, a_row, a_k, b, b_k, c, c_row, resume, ahead, end, tiles, a_tile, c_tile } = self;
        let (a, b, c) = (a.cast(), b.cast(), c.cast());
        let End { bias, rectifies, gate, gate_row } = end;
        let end = End { bias: bias.cast(), rectifies, gate: gate.cast(), gate_row };
        Operands { k, a, a_row, a_k, b, b_k, c, c_row, resume, ahead, end, tiles, a_tile, c_tile }
    }
}

/// `T::LANES` elements in the registers of an instruction set.
trait Vector<T>: Copy {
    /// Steps of k in an iteration over operands of any strides.
    const STEPS: usize;
    /// # Safety
    /// The CPU must have the instruction set; so for all that follow.
    unsafe fn splat(value: T) -> Self;
    /// # Safety
    /// `source` must be readable for the lanes.
    unsafe fn load(source: *const T) -> Self;
    /// # Safety
    /// `target` must be writable for the lanes.
    unsafe fn store(self, target: *mut T);
    /// `self * a + b`, rounded once.
    ///
    /// # Safety
    /// See `splat`.
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;
    /// # Safety
    /// See `splat`.
    unsafe fn add(self, other: Self) -> Self;
    /// The lanes of self, zero where that of `gate` is not above zero and not NaN.
    ///
    /// # Safety
    /// See `splat`.
    unsafe fn gated(self, gate: Self) -> Self;
}

/// Lane arrays, for the portable path.
#[derive(Clone, Copy)]
struct Array<L>(L);

impl<T: Real> Vector<T> for Array<T::Lanes> {
    // Each step is a call of `fma` per element: there is nothing to hide.
    const STEPS: usize = 1;
    #[inline(always)]
    unsafe fn splat(value: T) -> Self {
        Array(T::Lanes::splat(value))
    }
    #[inline(always)]
    unsafe fn load(source: *const T) -> Self {
        // SAFETY: promised by the caller.
        Array(T::Lanes::load(unsafe { std::slice::from_raw_parts(source, T::LANES) }))
    }
    #[inline(always)]
    unsafe fn store(self, target: *mut T) {
        // SAFETY: promised by the caller.
        self.0.store(unsafe { std::slice::from_raw_parts_mut(target, T::LANES) });
    }
    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        Array(self.0.mul_add(a.0, b.0))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Array(self.0.add(other.0))
    }
    #[inline(always)]
    unsafe fn gated(self, gate: Self) -> Self {
        Array(self.0.zip(gate.0, |x, gate| if gate <= T::ZERO { T::ZERO } else { x }))
    }
}

/// A lane array of `$count` registers.
#[cfg(target_arch = "x86_64")]
macro_rules! registers {
    ($register:ident x $count:literal of $type:ident, $width:literal:
     $splat:ident $load:ident $store:ident $mul_add:ident $add:ident $gated:expr) => {
        impl Vector<$type> for [$register; $count] {
            const STEPS: usize = 2;
            #[inline(always)]
            unsafe fn splat(value: $type) -> Self {
                // SAFETY: the caller promises the instruction set.
                [unsafe { $splat(value) }; $count]
            }
            #[inline(always)]
            unsafe fn load(source: *const $type) -> Self {
                // SAFETY: promised by the caller.
                std::array::from_fn(|i| unsafe { $load(source.add(i * $width)) })
            }
            #[inline(always)]
            unsafe fn store(self, target: *mut $type) {
                for i in 0..$count {
                    // SAFETY: promised by the caller.
                    unsafe { $store(target.add(i * $width), self[i]) };
                }
            }
            #[inline(always)]
            unsafe fn mul_add(self, a: Self, mut b: Self) -> Self {
                for i in 0..$count {
                    // SAFETY: the caller promises the instruction set.
                    b[i] = unsafe { $mul_add(self[i], a[i], b[i]) };
                }
                b
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: the caller promises the instruction set.
                std::array::from_fn(|i| unsafe { $add(self[i], other[i]) })
            }
            #[inline(always)]
            unsafe fn gated(self, gate: Self) -> Self {
                // SAFETY: the caller promises the instruction set.
                std::array::from_fn(|i| unsafe { $gated(self[i], gate[i]) })
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
registers!(__m256 x 2 of f32, 8: _mm256_set1_ps _mm256_loadu_ps _mm256_storeu_ps _mm256_fmadd_ps _mm256_add_ps
    |x, gate| _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LE_OQ>(gate, _mm256_setzero_ps()), x));
#[cfg(target_arch = "x86_64")]
registers!(__m256d x 2 of f64, 4: _mm256_set1_pd _mm256_loadu_pd _mm256_storeu_pd _mm256_fmadd_pd _mm256_add_pd
    |x, gate| _mm256_andnot_pd(_mm256_cmp_pd::<_CMP_LE_OQ>(gate, _mm256_setzero_pd()), x));
#[cfg(target_arch = "x86_64")]
registers!(__m512 x 1 of f32, 16: _mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps _mm512_fmadd_ps _mm512_add_ps
    |x, gate| _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLE_UQ>(gate, _mm512_setzero_ps()), x));
#[cfg(target_arch = "x86_64")]
registers!(__m512d x 1 of f64, 8: _mm512_set1_pd _mm512_loadu_pd _mm512_storeu_pd _mm512_fmadd_pd _mm512_add_pd
    |x, gate| _mm512_maskz_mov_pd(_mm512_cmp_pd_mask::<_CMP_NLE_UQ>(gate, _mm512_setzero_pd()), x));

/// Runs a block for each row below `R`, unrolled by hand: LLVM leaves a loop over many rows rolled,
/// and the accumulators then live in memory (half the speed).
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
/// With `BESIDE` the rows of A lie next to each other, as in a packed tile or in a transposed matrix.
///
/// # Safety
/// `a` must be readable at `i * a_row + p * a_k`, `b` at `p * b_k + j` and `c` writable at
/// `i * c_row + j` for all `i < R`, `j < N * T::LANES`, `p < k`, and so must be what there is of the bias at `j`
/// and of the gate at `i * gate_row + j`; the CPU must have V's instructions.
#[inline(always)]
unsafe fn tile<T: Real, V: Vector<T>, const R: usize, const N: usize, const BESIDE: bool>(
    o: Operands<'_, T>,
) {
    // SAFETY: all that follows is promised by the caller. After the last step `a` and `b` point past
    // the operands, hence `wrapping`, and are not read.
    unsafe {
        let mut acc = [[V::splat(T::ZERO); N]; R];
        // Zeros are loaded too: given a branch here, LLVM compiles everything below twice.
        let zeros = &const { [T::ZERO; MAX_WIDTH] };
        let (start, start_row) = if o.resume { (o.c.cast_const(), o.c_row) } else { (zeros.as_ptr(), 0) };
        each_row!(i < R {
            for v in 0..N {
                acc[i][v] = V::load(start.add(i * start_row + v * T::LANES));
            }
        });
        let mut a = [o.a; 4];
        if !BESIDE {
            // A pointer for three rows each, hidden from the compiler: given one pointer it walks all
            // rows by adding the stride R times, a chain that takes as long as the multiplications.
            for group in 1..R.div_ceil(3) {
                a[group] = black_box(o.a.wrapping_add(3 * group * o.a_row));
            }
        }
        let mut b = o.b;
        // Several steps an iteration: moving the pointers and counting take ports of the multipliers.
        // More than these compile for minutes.
        let steps = if BESIDE { 4 } else { V::STEPS };
        let mut ahead = o.ahead.start;
        let lines = match o.ahead.bytes {
            0 => 0,
            bytes => bytes.div_ceil(LINE).div_ceil((o.k / steps).max(1)),
        };
        for _ in 0..o.k / steps {
            for _ in 0..lines {
                for array in o.ahead.arrays {
                    prefetch_far(array.wrapping_add(ahead) as *const u8);
                }
                ahead += LINE;
            }
            step::<T, V, R, N, BESIDE>(&mut acc, &mut a, &mut b, &o);
            if steps > 1 {
                step::<T, V, R, N, BESIDE>(&mut acc, &mut a, &mut b, &o);
            }
            if steps > 2 {
                step::<T, V, R, N, BESIDE>(&mut acc, &mut a, &mut b, &o);
                step::<T, V, R, N, BESIDE>(&mut acc, &mut a, &mut b, &o);
            }
        }
        if steps > 1 {
            for _ in 0..o.k % steps {
                step::<T, V, R, N, BESIDE>(&mut acc, &mut a, &mut b, &o);
            }
        }
        if !o.end.bias.is_null() {
            let bias: [V; N] = std::array::from_fn(|v| V::load(o.end.bias.add(v * T::LANES)));
            each_row!(i < R {
                for v in 0..N {
                    acc[i][v] = acc[i][v].add(bias[v]);
                }
            });
        }
        if o.end.rectifies {
            each_row!(i < R {
                for v in 0..N {
                    acc[i][v] = acc[i][v].gated(acc[i][v]);
                }
            });
        }
        if !o.end.gate.is_null() {
            each_row!(i < R {
                for v in 0..N {
                    acc[i][v] = acc[i][v].gated(V::load(o.end.gate.add(i * o.end.gate_row + v * T::LANES)));
                }
            });
        }
        each_row!(i < R {
            for v in 0..N {
                acc[i][v].store(o.c.add(i * o.c_row + v * T::LANES));
            }
        });
    }
}

/// Adds one step of k to the tile and moves the pointers to the next.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn step<T: Real, V: Vector<T>, const R: usize, const N: usize, const BESIDE: bool>(
    acc: &mut [[V; N]; R],
    a: &mut [*const T; 4],
    b: &mut *const T,
    o: &Operands<'_, T>,
) {
    // SAFETY: promised by the caller.
    unsafe {
        let row: [V; N] = std::array::from_fn(|v| V::load(b.add(v * T::LANES)));
        each_row!(i < R {
            let x = V::splat(if BESIDE { *a[0].add(i) } else { *a[i / 3].add(i % 3 * o.a_row) });
            for v in 0..N {
                acc[i][v] = x.mul_add(row[v], acc[i][v]);
            }
        });
        for group in 0..if BESIDE { 1 } else { R.div_ceil(3) } {
            a[group] = a[group].wrapping_add(o.a_k);
        }
        *b = b.wrapping_add(o.b_k);
    }
}

/// The lane arrays of the widest tile of `rows` rows: as many accumulators as the full tile has, in a
/// power of two. A tile of few rows then still keeps the multipliers busy.
#[inline(always)]
pub(super) fn most_lanes<I: Isa>(rows: usize) -> usize {
    // Registers for the accumulators, a row of B and a broadcast element; a single row reads B from memory.
    let fits = |lanes: usize| rows == 1 || (rows + 1) * lanes < (I::TILE_ROWS + 2) * I::TILE_LANES;
    match I::TILE_ROWS * I::TILE_LANES / rows {
        4.. if rows <= 4 && has_registers::<I>() && fits(4) => 4,
        2.. if has_registers::<I>() && fits(2) => 2,
        _ => 1,
    }
}

/// Whether there is a tile for rows of A that lie next to each other: for full width and the rows that equal
/// parts have. It saves the arithmetic of strides; other tiles are few.
#[inline(always)]
fn reads_beside<I: Isa>(rows: usize, lanes: usize) -> bool {
    has_registers::<I>() && rows >= I::TILE_ROWS / 2 && lanes == I::TILE_LANES
}

#[inline(always)]
fn has_registers<I: Isa>() -> bool {
    I::LEVEL != Level::Portable
}

/// Runs tiles of `rows` rows and `lanes` lane arrays: 1, 2 or 4, at most [`most_lanes`].
///
/// # Safety
/// As [`tile`] with `R = rows` and `N = lanes`, for each tile; called where the code for `I` is compiled.
#[inline(always)]
pub(super) unsafe fn run<I: Isa, T: Real>(rows: usize, lanes: usize, o: Operands<'_, T>) {
    let is_beside = o.a_row == 1 && reads_beside::<I>(rows, lanes);
    // SAFETY: this runs on I.
    unsafe {
        match (lanes, is_beside) {
            (1, false) => I::call(Tiles::<T, 1, false> { rows, o }),
            (2, false) => I::call(Tiles::<T, 2, false> { rows, o }),
            (4, false) => I::call(Tiles::<T, 4, false> { rows, o }),
            (1, true) => I::call(Tiles::<T, 1, true> { rows, o }),
            (2, true) => I::call(Tiles::<T, 2, true> { rows, o }),
            _ => unreachable!("a tile of {lanes} lane arrays"),
        }
    }
}

/// A call of the tile of `N` lane arrays, whatever its rows. With all tiles in one function the crate
/// compiled for minutes.
struct Tiles<'a, T, const N: usize, const BESIDE: bool> {
    rows: usize,
    o: Operands<'a, T>,
}

impl<T: Real, const N: usize, const BESIDE: bool> Job for Tiles<'_, T, N, BESIDE> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Tiles { rows, o } = self;
        // SAFETY: promised to `run`, which alone makes a `Tiles`; T has the name under which it is cast.
        // The conditions are constants of I and T.
        unsafe {
            match I::LEVEL {
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 if is::<T, f32>() => select::<I, f32, [__m512; 1], N, BESIDE>(rows, o.cast()),
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 if is::<T, f64>() => select::<I, f64, [__m512d; 1], N, BESIDE>(rows, o.cast()),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 if is::<T, f32>() => select::<I, f32, [__m256; 2], N, BESIDE>(rows, o.cast()),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 if is::<T, f64>() => select::<I, f64, [__m256d; 2], N, BESIDE>(rows, o.cast()),
                _ => select::<I, T, Array<T::Lanes>, N, BESIDE>(rows, o),
            }
        }
    }
}

#[inline(always)]
pub(super) fn is<T: 'static, U: 'static>() -> bool {
    TypeId::of::<T>() == TypeId::of::<U>()
}

/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn select<I: Isa, T: Real, V: Vector<T>, const N: usize, const BESIDE: bool>(
    rows: usize,
    o: Operands<'_, T>,
) {
    // The comparisons with I's constants fold away, and with them the tiles that I cannot hold.
    macro_rules! variants {
        ($($r:literal)*) => {
            match rows {
                $($r if $r <= I::TILE_ROWS
                    && N <= most_lanes::<I>($r)
                    && (!BESIDE || reads_beside::<I>($r, N)) =>
                {
                    let mut o = o;
                    for _ in 0..o.tiles {
                        // SAFETY: passed on from the caller.
                        unsafe { tile::<T, V, $r, N, BESIDE>(o) };
                        o.a = o.a.wrapping_add(o.a_tile);
                        o.c = o.c.wrapping_add(o.c_tile);
                        o.end.gate = o.end.gate.wrapping_add($r * o.end.gate_row);
                        o.ahead.start += o.ahead.bytes;
                    }
                })*
                _ => unreachable!("a tile of {rows} rows and {N} lane arrays"),
            }
        };
    }
    variants!(1 2 3 4 5 6 7 8 9 10 11 12);
}
