//! Random numbers from a counter: Philox 4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random
//! numbers: as easy as 1, 2, 3", 2011). Element `i` of a fill depends on the key, the counter and
//! `i` alone, so any part can be filled by any thread.
//!
//! A block is identified by 128 bits: the caller's counter (one per fill) and the number of the
//! block inside the fill.

use crate::isa::{Isa, Job, dispatch};
use crate::math::Math;

const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
const ROUNDS: usize = 10;

/// The generator of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Philox {
    /// The seed.
    pub key: u64,
}

impl Philox {
    /// The four words of a 128-bit counter, lowest word first.
    #[inline(always)]
    pub fn words(self, counter: [u32; 4]) -> [u32; 4] {
        let mut key = [self.key as u32, (self.key >> 32) as u32];
        let mut c = counter;
        for _ in 0..ROUNDS {
            let first = u64::from(c[0]) * u64::from(MULTIPLIERS[0]);
            let second = u64::from(c[2]) * u64::from(MULTIPLIERS[1]);
            c = [
                (second >> 32) as u32 ^ c[1] ^ key[0],
                second as u32,
                (first >> 32) as u32 ^ c[3] ^ key[1],
                first as u32,
            ];
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        c
    }

    /// The words of block `block` of fill `counter`.
    #[inline(always)]
    fn block(self, counter: u64, block: u64) -> [u32; 4] {
        self.words([block as u32, (block >> 32) as u32, counter as u32, (counter >> 32) as u32])
    }
}

/// Blocks that are computed together, one per lane.
const GROUP: usize = 16;

/// The words of 16 consecutive blocks, by word: `words[w][j]` is word `w` of block `16 group + j`.
#[inline(always)]
fn group_words(philox: Philox, counter: u64, group: u64) -> [[u32; GROUP]; 4] {
    let first = group * GROUP as u64;
    // 16 divides 2^32, so the upper word is the same in all lanes.
    let mut c =
        [[0; GROUP], [(first >> 32) as u32; GROUP], [counter as u32; GROUP], [(counter >> 32) as u32; GROUP]];
    for j in 0..GROUP {
        c[0][j] = first as u32 + j as u32;
    }
    let mut key = [philox.key as u32, (philox.key >> 32) as u32];
    for _ in 0..ROUNDS {
        let [c0, c1, c2, c3] = &mut c;
        for j in 0..GROUP {
            let first = u64::from(c0[j]) * u64::from(MULTIPLIERS[0]);
            let second = u64::from(c2[j]) * u64::from(MULTIPLIERS[1]);
            c0[j] = (second >> 32) as u32 ^ c1[j] ^ key[0];
            c1[j] = second as u32;
            c2[j] = (first >> 32) as u32 ^ c3[j] ^ key[1];
            c3[j] = first as u32;
        }
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    c
}

/// Uniform values in `[0, 1)` made of random words.
pub trait Random: Math {
    /// Values that 16 blocks of four words give: the elements of a group, which are computed together.
    const PER_GROUP: usize;
    /// The `i`th value of a group, a multiple of `2^-24` (`f32`) or `2^-53` (`f64`): the lanes of the first word
    /// (pair of words), then those of the next.
    fn uniform(words: &[[u32; 16]; 4], i: usize) -> Self;
}

impl Random for f32 {
    const PER_GROUP: usize = 4 * GROUP;
    #[inline(always)]
    fn uniform(words: &[[u32; 16]; 4], i: usize) -> f32 {
        // Signed, because baseline instruction sets convert only signed integers.
        ((words[i / GROUP][i % GROUP] >> 8) as i32 as f32) * (1.0 / 16_777_216.0)
    }
}

impl Random for f64 {
    const PER_GROUP: usize = 2 * GROUP;
    #[inline(always)]
    fn uniform(words: &[[u32; 16]; 4], i: usize) -> f64 {
        let (pair, lane) = (i / GROUP * 2, i % GROUP);
        let bits = (u64::from(words[pair + 1][lane]) << 32 | u64::from(words[pair][lane])) >> 11;
        (bits as i64 as f64) * (1.0 / 9_007_199_254_740_992.0)
    }
}

/// The uniform values of a group; `f64` uses the first half of the array.
#[inline(always)]
fn uniform_group<T: Random>(philox: Philox, counter: u64, group: u64) -> [T; 4 * GROUP] {
    let words = group_words(philox, counter, group);
    let mut values = [T::ZERO; 4 * GROUP];
    for i in 0..T::PER_GROUP {
        values[i] = T::uniform(&words, i);
    }
    values
}

/// What becomes of a group of uniform values.
trait FromUniform<T>: Copy {
    fn apply(self, values: &mut [T]);
}

#[derive(Clone, Copy)]
struct Itself;

impl<T: Math> FromUniform<T> for Itself {
    #[inline(always)]
    fn apply(self, _values: &mut [T]) {}
}

#[derive(Clone, Copy)]
struct Keep<T> {
    drop_below: T,
    scale: T,
}

impl<T: Math> FromUniform<T> for Keep<T> {
    #[inline(always)]
    fn apply(self, values: &mut [T]) {
        for value in values {
            *value = if *value < self.drop_below { T::ZERO } else { self.scale };
        }
    }
}

/// Box and Muller, 1958: the first half of a group gives the radii, the second half the angles.
#[derive(Clone, Copy)]
struct Normal;

impl<T: Math> FromUniform<T> for Normal {
    #[inline(always)]
    fn apply(self, values: &mut [T]) {
        let (minus_two, two_pi) = (T::from_f64(-2.0), T::from_f64(2.0 * std::f64::consts::PI));
        let (radii, angles) = values.split_at_mut(values.len() / 2);
        for radius in &mut *radii {
            // 1 - u is in (0, 1], where the logarithm is finite.
            *radius = (minus_two * (T::ONE - *radius).log()).sqrt();
        }
        for (first, second) in radii.iter_mut().zip(angles) {
            let (radius, angle) = (*first, two_pi * *second);
            *first = radius * angle.cos();
            *second = radius * angle.sin();
        }
    }
}

/// What a fill depends on, and which of its elements comes first: a fill in parts is the fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The seed.
    pub key: u64,
    /// Number of the fill.
    pub counter: u64,
    /// The element to begin with.
    pub first: usize,
}

impl Stream {
    /// A fill from its first element on.
    pub fn new(key: u64, counter: u64) -> Stream {
        Stream { key, counter, first: 0 }
    }
}

struct FillJob<'a, T, F> {
    stream: Stream,
    out: &'a mut [T],
    map: F,
}

impl<T: Random, F: FromUniform<T>> Job for FillJob<'_, T, F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Stream { key, counter, first } = self.stream;
        let (mut group, mut skipped) = (first / T::PER_GROUP, first % T::PER_GROUP);
        let mut out = self.out;
        while !out.is_empty() {
            let mut values = uniform_group::<T>(Philox { key }, counter, group as u64);
            self.map.apply(&mut values[..T::PER_GROUP]);
            let (part, rest) = out.split_at_mut(out.len().min(T::PER_GROUP - skipped));
            part.copy_from_slice(&values[skipped..skipped + part.len()]);
            (group, skipped, out) = (group + 1, 0, rest);
        }
    }
}

/// Fills with uniform values in `[0, 1)`.
pub fn fill_uniform<T: Random>(stream: Stream, out: &mut [T]) {
    dispatch(FillJob { stream, out, map: Itself });
}

/// Fills with 0 (with probability `p`) or `1 / (1 - p)`.
pub fn fill_dropout_mask<T: Random>(stream: Stream, p: f64, out: &mut [T]) {
    // At p = 1 nothing is kept, and the scale is never used.
    let scale = if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 };
    let map = Keep { drop_below: T::from_f64(p), scale: T::from_f64(scale) };
    dispatch(FillJob { stream, out, map });
}

/// Fills with standard normal values.
pub fn fill_normal<T: Random>(stream: Stream, out: &mut [T]) {
    dispatch(FillJob { stream, out, map: Normal });
}

/// A number below `bound` (which is not 0) without bias: Lemire, "Fast random integer generation in an
/// interval", 2019. A rejected draw goes on with the next block of the same element.
fn below(philox: Philox, counter: u64, element: u64, bound: u64) -> u64 {
    let threshold = bound.wrapping_neg() % bound;
    let mut attempt = 0;
    loop {
        // The element takes the lower 48 bits of the block's number, the attempt those above.
        let words = philox.block(counter, element | attempt << 48);
        let random = u64::from(words[1]) << 32 | u64::from(words[0]);
        let product = u128::from(random) * u128::from(bound);
        if product as u64 >= threshold {
            return (product >> 64) as u64;
        }
        attempt += 1;
    }
}

/// Fills with integers in `[low, high)`; `low < high`.
pub fn fill_integers(key: u64, counter: u64, low: i64, high: i64, out: &mut [i64]) {
    assert!(low < high, "an empty range");
    let span = high.wrapping_sub(low) as u64;
    for (i, out) in out.iter_mut().enumerate() {
        *out = low.wrapping_add(below(Philox { key }, counter, i as u64, span) as i64);
    }
}

/// Fills with a uniformly drawn permutation of `0..out.len()` (Fisher and Yates; Durstenfeld, 1964).
pub fn permutation(key: u64, counter: u64, out: &mut [u32]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = i as u32;
    }
    for i in (1..out.len()).rev() {
        let j = below(Philox { key }, counter, i as u64, i as u64 + 1);
        out.swap(i, j as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa;

    #[test]
    fn philox_gives_the_published_vectors() {
        // kat_vectors of Random123, philox4x32 with 10 rounds.
        let zero = Philox { key: 0 }.words([0; 4]);
        assert_eq!(zero, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = Philox { key: u64::MAX }.words([u32::MAX; 4]);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = Philox { key: 0x299f_31d0_a409_3822 };
        let pi = pi.words([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]);
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    fn moments(x: &[f64]) -> (f64, f64) {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        (mean, x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / x.len() as f64)
    }

    #[test]
    fn groups_hold_the_words_of_their_blocks() {
        let philox = Philox { key: 0x0123_4567_89ab_cdef };
        let words = group_words(philox, 1 << 40, (1 << 29) + 3);
        for j in 0..GROUP {
            let block = philox.block(1 << 40, ((1 << 29) + 3) * 16 + j as u64);
            assert_eq!([words[0][j], words[1][j], words[2][j], words[3][j]], block);
        }
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let mut x = vec![0f32; 100_001];
        fill_uniform(Stream::new(1, 2), &mut x);
        assert!(x.iter().all(|v| (0.0..1.0).contains(v)));
        let (mean, variance) = moments(&x.iter().map(|&v| v as f64).collect::<Vec<_>>());
        assert!((mean - 0.5).abs() < 0.004 && (variance - 1.0 / 12.0).abs() < 0.002, "{mean} {variance}");

        let mut x = vec![0f64; 100_001];
        fill_normal(Stream::new(1, 2), &mut x);
        let (mean, variance) = moments(&x);
        assert!((mean).abs() < 0.013 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        let beyond_two = x.iter().filter(|v| v.abs() > 2.0).count();
        assert!((4300..4800).contains(&beyond_two), "{beyond_two}");
    }

    #[test]
    fn a_fill_begins_like_a_shorter_one_and_counters_differ() {
        let (mut long, mut short, mut other) = ([0f64; 101], [0f64; 37], [0f64; 37]);
        for fill in [fill_uniform::<f64>, fill_normal::<f64>] {
            fill(Stream::new(7, 3), &mut long);
            fill(Stream::new(7, 3), &mut short);
            fill(Stream::new(7, 4), &mut other);
            // In parts that end anywhere in a group.
            for first in [1, 31, 32, 33, 64, 100] {
                let mut part = vec![0.0; long.len() - first];
                fill(Stream { first, ..Stream::new(7, 3) }, &mut part);
                assert_eq!(part, long[first..], "from {first}");
            }
            assert_eq!(long[..37], short);
            assert!(short.iter().zip(&other).all(|(a, b)| a != b));
        }
    }

    #[test]
    fn dropout_keeps_the_expected_share_and_scales_it() {
        let mut mask = vec![0f32; 100_000];
        fill_dropout_mask(Stream::new(5, 0), 0.2, &mut mask);
        let kept = mask.iter().filter(|&&v| v != 0.0).count();
        assert!((79_500..80_500).contains(&kept), "{kept}");
        assert!(mask.iter().all(|&v| v == 0.0 || v == 1.25));
        for (p, value) in [(0.0, 1.0), (1.0, 0.0)] {
            fill_dropout_mask(Stream::new(5, 0), p, &mut mask);
            assert!(mask.iter().all(|&v| v == value));
        }
    }

    #[test]
    fn permutations_are_uniform() {
        let mut counts = [0; 6];
        for counter in 0..6000 {
            let mut p = [0; 3];
            permutation(9, counter, &mut p);
            let mut sorted = p;
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2]);
            counts[(p[0] * 2 + u32::from(p[1] > p[2])) as usize] += 1;
        }
        // Standard deviation of each count: 29.
        assert!(counts.iter().all(|c| (880..1120).contains(c)), "{counts:?}");
        permutation(9, 0, &mut []);
    }

    #[test]
    fn integers_cover_their_range_evenly() {
        let mut x = vec![0; 60_000];
        fill_integers(3, 1, -2, 4, &mut x);
        for value in -2..4 {
            let count = x.iter().filter(|&&v| v == value).count();
            assert!((9_600..10_400).contains(&count), "{value}: {count}");
        }
        fill_integers(3, 1, i64::MIN, i64::MAX, &mut x);
        assert!(x.iter().any(|&v| v < i64::MIN / 2) && x.iter().any(|&v| v > i64::MAX / 2));
    }

    #[test]
    fn bits_are_the_same_on_every_level() {
        let mut want = None;
        isa::on_every_level(|level| {
            let (mut single, mut double, mut mask) = ([0f32; 133], [0f64; 133], [0f32; 133]);
            let mut normal = [0f32; 133];
            fill_normal(Stream::new(11, 1), &mut normal);
            fill_uniform(Stream::new(11, 1), &mut single);
            fill_uniform(Stream::new(11, 1), &mut double);
            fill_dropout_mask(Stream::new(11, 1), 0.3, &mut mask);
            assert_eq!(
                *want.get_or_insert((single, double, mask, normal)),
                (single, double, mask, normal),
                "{level}"
            );
        });
    }
}
