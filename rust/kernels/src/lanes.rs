//! The two element types of the kernels and their lane arrays: 64 bytes that the compiler keeps in
//! one 512-bit, two 256-bit or four 128-bit registers.

use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

/// `f32` or `f64`.
pub trait Real:
    Copy
    + Debug
    + Default
    + PartialEq
    + PartialOrd
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + 'static
{
    /// 64 bytes of this type.
    type Lanes: Lanes<Self>;
    /// Elements in [`Real::Lanes`].
    const LANES: usize;
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Quiet NaN.
    const NAN: Self;
    /// Positive infinity.
    const INFINITY: Self;
    /// The distance from 1 to the next larger value.
    const EPSILON: Self;
    /// The smallest positive normal value.
    const MIN_POSITIVE: Self;
    /// Rounds to this type.
    fn from_f64(value: f64) -> Self;
    /// Exact.
    fn to_f64(self) -> f64;
    /// `self * a + b` with one rounding, on every instruction set.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// Correctly rounded square root.
    fn sqrt(self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// Whether the value is NaN.
    fn is_nan(self) -> bool;
    /// Whether the value is neither infinite nor NaN.
    fn is_finite(self) -> bool;
}

/// A fixed number of elements that are worked on together. Lane `j` never meets lane `k`.
pub trait Lanes<T>: Copy {
    /// The same value in every lane.
    fn splat(value: T) -> Self;
    /// The first elements of `source`, which must hold at least a lane array.
    fn load(source: &[T]) -> Self;
    /// Writes to the first elements of `target`, which must hold at least a lane array.
    fn store(self, target: &mut [T]);
    /// `self * a + b`, one rounding per lane.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// Lane-wise sum.
    fn add(self, other: Self) -> Self;
    /// `f` on every lane.
    fn map(self, f: impl Fn(T) -> T) -> Self;
    /// `f` on every pair of lanes.
    fn zip(self, other: Self, f: impl Fn(T, T) -> T) -> Self;
    /// Folds the lanes in a fixed tree: halves are combined until one lane is left.
    fn fold(self, f: impl Fn(T, T) -> T) -> T;
}

macro_rules! real {
    ($type:ident, $lanes:literal) => {
        impl Real for $type {
            type Lanes = [$type; $lanes];
            const LANES: usize = $lanes;
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const NAN: Self = $type::NAN;
            const INFINITY: Self = $type::INFINITY;
            const EPSILON: Self = $type::EPSILON;
            const MIN_POSITIVE: Self = $type::MIN_POSITIVE;
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as $type
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                $type::mul_add(self, a, b)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                $type::sqrt(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                $type::abs(self)
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                $type::is_nan(self)
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                $type::is_finite(self)
            }
        }

        impl Lanes<$type> for [$type; $lanes] {
            #[inline(always)]
            fn splat(value: $type) -> Self {
                [value; $lanes]
            }
            #[inline(always)]
            fn load(source: &[$type]) -> Self {
                *source.first_chunk().expect("a lane array")
            }
            #[inline(always)]
            fn store(self, target: &mut [$type]) {
                *target.first_chunk_mut().expect("a lane array") = self;
            }
            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                let mut out = b;
                for j in 0..$lanes {
                    out[j] = $type::mul_add(self[j], a[j], b[j]);
                }
                out
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.zip(other, |a, b| a + b)
            }
            #[inline(always)]
            fn map(mut self, f: impl Fn($type) -> $type) -> Self {
                for j in 0..$lanes {
                    self[j] = f(self[j]);
                }
                self
            }
            #[inline(always)]
            fn zip(mut self, other: Self, f: impl Fn($type, $type) -> $type) -> Self {
                for j in 0..$lanes {
                    self[j] = f(self[j], other[j]);
                }
                self
            }
            #[inline(always)]
            fn fold(mut self, f: impl Fn($type, $type) -> $type) -> $type {
                let mut width = $lanes / 2;
                while width > 0 {
                    for j in 0..width {
                        self[j] = f(self[j], self[j + width]);
                    }
                    width /= 2;
                }
                self[0]
            }
        }
    };
}

real!(f32, 16);
real!(f64, 8);
