//! Elementwise functions of integers, with wrapping arithmetic.

use super::BinaryJob;
use super::walk::{Walk, Zip};
use crate::isa::dispatch;

/// `i64` or `u8`.
pub trait Int: Copy + Default + Ord {
    /// Sum modulo the range.
    fn add(self, other: Self) -> Self;
    /// Difference modulo the range.
    fn sub(self, other: Self) -> Self;
    /// Product modulo the range.
    fn mul(self, other: Self) -> Self;
}

macro_rules! int {
    ($($type:ident)*) => {$(
        impl Int for $type {
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
        }
    )*};
}
int!(i64 u8);

/// A function of two integer operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntBinary {
    /// `a + b`, wrapping.
    Add,
    /// `a - b`, wrapping.
    Sub,
    /// `a * b`, wrapping.
    Mul,
    /// The larger one.
    Maximum,
    /// The smaller one.
    Minimum,
}

/// A function of one integer operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntUnary {
    /// `-x`, wrapping.
    Neg,
    /// Absolute value, wrapping.
    Abs,
    /// -1, 0 or 1.
    Sign,
}

macro_rules! functions {
    ($($name:ident |$a:ident, $b:ident| $body:expr;)*) => {$(
        #[derive(Clone, Copy)]
        struct $name;
        impl<T: Int> Zip<T, T, T> for $name {
            #[inline(always)]
            fn apply(self, $a: T, $b: T) -> T {
                $body
            }
        }
    )*};
}

functions! {
    Add |a, b| a.add(b);
    Sub |a, b| a.sub(b);
    Mul |a, b| a.mul(b);
    Maximum |a, b| if a > b { a } else { b };
    Minimum |a, b| if a < b { a } else { b };
}

/// `out = op(a, b)` on integers.
pub fn binary_int<T: Int>(
    op: IntBinary,
    shape: &[usize],
    a: &[T],
    a_strides: &[usize],
    b: &[T],
    b_strides: &[usize],
    out: &mut [T],
) {
    let Some(walk) = Walk::new(shape, [a_strides, b_strides], [a.len(), b.len()]) else { return };
    assert_eq!(out.len(), walk.len(), "the output is contiguous");
    match op {
        IntBinary::Add => dispatch(BinaryJob { f: Add, walk, a, b, out }),
        IntBinary::Sub => dispatch(BinaryJob { f: Sub, walk, a, b, out }),
        IntBinary::Mul => dispatch(BinaryJob { f: Mul, walk, a, b, out }),
        IntBinary::Maximum => dispatch(BinaryJob { f: Maximum, walk, a, b, out }),
        IntBinary::Minimum => dispatch(BinaryJob { f: Minimum, walk, a, b, out }),
    }
}

/// `out = op(x)` on integers.
pub fn unary_int(op: IntUnary, shape: &[usize], x: &[i64], x_strides: &[usize], out: &mut [i64]) {
    match op {
        IntUnary::Neg => super::cast(shape, x, x_strides, out, i64::wrapping_neg),
        IntUnary::Abs => super::cast(shape, x, x_strides, out, i64::wrapping_abs),
        IntUnary::Sign => super::cast(shape, x, x_strides, out, i64::signum),
    }
}
