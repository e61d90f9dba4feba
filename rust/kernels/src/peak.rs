//! What the machine can do at most: fused multiply-adds and memory traffic, for benchmarks to compare with.

use std::hint::black_box;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::{Duration, Instant};

use crate::isa::{Isa, Job, Level, active, dispatch};
use crate::lanes::{Lanes, Real};
use crate::pool::parallel;

/// Operations of a [`fma_rate`] run per thread: a fifth of a millisecond or more, so that starting the
/// threads does not count.
const STEPS: usize = 200_000;
/// Elements of each of the three arrays of [`triad_rate`]: 128 MiB, more than a last-level cache.
const ELEMENTS: usize = 1 << 25;

/// The FMA peak of the active instruction set in floating-point operations per second: the best of short
/// runs of independent chains in registers on all of `threads` threads at once.
pub fn fma_rate<T: Real>(threads: usize) -> f64 {
    let chains = if active() == Level::Avx512 { 2 * CHAINS } else { CHAINS };
    let flop = 2.0 * (threads * STEPS * chains * T::LANES) as f64;
    let chain = |_: usize| {
        black_box(dispatch(Chains(black_box(T::from_f64(0.5)))));
    };
    flop / best_of(30, || parallel(threads, &chain)).as_secs_f64()
}

/// Bytes per second of `a = b + s * c` on arrays that no cache holds, the three streams counted once each.
pub fn triad_rate(threads: usize) -> f64 {
    let (mut a, b, c) = (vec![1.0f32; ELEMENTS], vec![1.0f32; ELEMENTS], vec![1.0f32; ELEMENTS]);
    // Several parts per thread: one that is late does not delay the run by its whole share.
    let part = ELEMENTS / (8 * threads);
    let first = AtomicPtr::new(a.as_mut_ptr());
    let body = |task: usize| {
        let range = task * part..(task + 1) * part;
        // SAFETY: the parts are disjoint, inside `a`, and `a` outlives the region.
        let a =
            unsafe { std::slice::from_raw_parts_mut(first.load(Ordering::Relaxed).add(range.start), part) };
        dispatch(Triad { a, b: &b[range.clone()], c: &c[range], s: black_box(0.5) });
    };
    let bytes = (3 * 8 * threads * part * size_of::<f32>()) as f64;
    bytes / best_of(5, || parallel(8 * threads, &body)).as_secs_f64()
}

fn best_of(runs: usize, mut run: impl FnMut()) -> Duration {
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..runs).map(time).min().unwrap_or(Duration::MAX)
}

/// Lane arrays per group: 12 of 16 AVX2 registers; two groups are 12 of 32 AVX-512 registers. Either is more
/// than latency times units.
const CHAINS: usize = 6;

struct Chains<T>(T);

impl<T: Real> Job for Chains<T> {
    type Output = T;

    #[inline(always)]
    fn run<I: Isa>(self) -> T {
        let factor = T::Lanes::splat(self.0);
        let mut first = [T::Lanes::splat(T::ONE); CHAINS];
        let mut second = [T::Lanes::splat(T::ONE); CHAINS];
        for _ in 0..STEPS {
            for i in 0..CHAINS {
                first[i] = factor.mul_add(first[i], factor);
            }
            if I::LEVEL == Level::Avx512 {
                for i in 0..CHAINS {
                    second[i] = factor.mul_add(second[i], factor);
                }
            }
        }
        let sum = first.iter().chain(&second).fold(T::Lanes::splat(T::ZERO), |sum, &x| sum.add(x));
        sum.fold(|a, b| a + b)
    }
}

struct Triad<'a> {
    a: &'a mut [f32],
    b: &'a [f32],
    c: &'a [f32],
    s: f32,
}

impl Job for Triad<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        for ((a, &b), &c) in self.a.iter_mut().zip(self.b).zip(self.c) {
            *a = b + self.s * c;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_finite_and_positive() {
        for rate in [fma_rate::<f32>(1), fma_rate::<f64>(2), triad_rate(2)] {
            assert!(rate.is_finite() && rate > 0.0, "{rate}");
        }
    }
}
