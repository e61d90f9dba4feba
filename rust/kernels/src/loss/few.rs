//! Batches of few classes, with rows side by side in lanes: ten scores of one row fill no lane array, and twenty
//! leave most of the second empty.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::class::{CrossEntropy, CrossEntropyJob};
use crate::elementwise::function as f;
use crate::elementwise::map_in_place;
use crate::gemm::pack::{GROUP, Source, transpose};
use crate::isa::{Isa, Job, dispatch};
use crate::lanes::Lanes;
use crate::math::Math;
use crate::pool::parallel;
use crate::reduce::{Combine, Max};

/// Lanes of the type that has more, and so rows of a block.
const ROWS: usize = 16;
/// Classes up to which rows stand side by side.
pub(super) const MOST_CLASSES: usize = 64;

/// Scores of some rows, class by class: class `c` of row `r` at `c * LANES + r` of the flat array.
#[derive(Clone, Copy)]
struct Block<T, const CLASSES: usize>([[T; ROWS]; CLASSES]);

impl<T: Math, const CLASSES: usize> Block<T, CLASSES> {
    #[inline(always)]
    fn new() -> Self {
        Block([[T::ZERO; ROWS]; CLASSES])
    }

    #[inline(always)]
    fn class(&self, class: usize) -> T::Lanes {
        T::Lanes::load(&self.0.as_flattened()[class * T::LANES..])
    }

    #[inline(always)]
    fn set(&mut self, class: usize, lanes: T::Lanes) {
        lanes.store(&mut self.0.as_flattened_mut()[class * T::LANES..]);
    }

    /// Reads rows that lie one after the other. Lanes beyond them hold what they held, or repeat the last.
    #[inline(always)]
    fn read<I: Isa>(&mut self, classes: usize, rows: &[T]) {
        let count = rows.len() / classes;
        assert!((1..=T::LANES).contains(&count) && rows.len() == count * classes && classes <= CLASSES);
        let source = Source { start: rows.as_ptr(), column: classes, step: 1 };
        // SAFETY: the rows hold the classes, and the block has lane arrays for them.
        unsafe {
            transpose::<I, T>(classes, count, T::LANES, source, self.0.as_flattened_mut().as_mut_ptr())
        };
    }

    /// Writes rows one after the other, through `room`.
    #[inline(always)]
    fn write<I: Isa>(&self, classes: usize, rows: &mut [T], room: &mut Self) {
        let count = rows.len() / classes;
        assert!((1..=T::LANES).contains(&count) && rows.len() == count * classes && classes <= CLASSES);
        let source = Source { start: self.0.as_flattened().as_ptr(), column: T::LANES, step: 1 };
        let room = room.0.as_flattened_mut();
        const { assert!(CLASSES.is_multiple_of(GROUP)) };
        // SAFETY: the block holds a lane of each class for each row. What is written beyond the last row's classes, up
        // to a whole group of them, still lies in the room, which has that for each row.
        unsafe { transpose::<I, T>(count, classes, classes, source, room.as_mut_ptr()) };
        rows.copy_from_slice(&room[..rows.len()]);
    }
}

/// The numbers of at most a lane array of labels, NaN for those without a class; lanes beyond them are NaN.
#[inline(always)]
fn numbers<T: Math>(labels: &[i64], ignored: Option<i64>) -> T::Lanes {
    let mut numbers = [T::NAN; ROWS];
    for (number, &label) in numbers.iter_mut().zip(labels) {
        *number = if Some(label) == ignored { T::NAN } else { T::from_f64(label as f64) };
    }
    T::Lanes::load(&numbers)
}

/// `value` where the label is this class, 0 elsewhere.
#[inline(always)]
fn of_class<T: Math>(numbers: T::Lanes, class: usize, value: T::Lanes) -> T::Lanes {
    let class = T::from_f64(class as f64);
    numbers.zip(value, |number, value| if number == class { value } else { T::ZERO })
}

/// Cross-entropy of at most `CLASSES` classes. Sums over classes are added in order, so that a row's bits do not
/// depend on the rows beside it.
#[inline(always)]
pub(super) fn cross_entropy<I: Isa, T: Math, const CLASSES: usize>(job: CrossEntropyJob<'_, T>) {
    let CrossEntropyJob { options, classes, logits, target, mut loss, mut grad } = job;
    let CrossEntropy { weight, label_smoothing, ignore_index } = *options;
    let weight_of = |class: usize| weight.map_or(T::ONE, |weight| weight[class]);
    let keep = T::from_f64(1.0 - label_smoothing);
    let spread = T::from_f64(label_smoothing / classes as f64);
    let weights = (0..classes).fold(T::ZERO, |sum, class| sum + weight_of(class));
    let mut scores = Block::<T, CLASSES>::new();
    let mut exponentials = scores;
    for first in (0..target.len()).step_by(T::LANES) {
        let target = &target[first..target.len().min(first + T::LANES)];
        let span = first * classes..(first + target.len()) * classes;
        scores.read::<I>(classes, &logits[span.clone()]);
        let numbers = numbers::<T>(target, Some(ignore_index));
        let without_ignored = |values: T::Lanes| {
            numbers.zip(values, |number, value| if number.is_nan() { T::ZERO } else { value })
        };
        let mut max = T::Lanes::splat(Max.identity());
        // The factor of the logarithm of a row's own class, and its score.
        let (mut own, mut own_score) = (T::Lanes::splat(T::ZERO), T::Lanes::splat(T::ZERO));
        for c in 0..classes {
            let score = scores.class(c);
            max = max.zip(score, |a, b| Max.combine(a, b));
            own_score = own_score.add(of_class::<T>(numbers, c, score));
            own = own.add(of_class::<T>(numbers, c, T::Lanes::splat(keep * weight_of(c))));
        }
        for c in 0..classes {
            exponentials.set(c, scores.class(c).zip(max, |z, max| z - max));
        }
        map_in_place(f::Exp {}, &mut exponentials.0.as_flattened_mut()[..classes * T::LANES]);
        let mut sum = T::Lanes::splat(T::ZERO);
        for c in 0..classes {
            sum = sum.add(exponentials.class(c));
        }
        if let Some(loss) = loss.as_deref_mut() {
            let mut logs = [T::ZERO; ROWS];
            sum.store(&mut logs);
            map_in_place(f::Log {}, &mut logs[..T::LANES]);
            let log_sum = T::Lanes::load(&logs);
            let negative_log =
                |z: T::Lanes| log_sum.zip(z.zip(max, |z, max| z - max), |log_sum, z| log_sum - z);
            let mut value = own.zip(negative_log(own_score), |own, log| own * log);
            if spread != T::ZERO {
                let mut all = T::Lanes::splat(T::ZERO);
                for c in 0..classes {
                    let w = weight_of(c);
                    all = all.add(negative_log(scores.class(c)).map(|log| w * log));
                }
                value = T::Lanes::splat(spread).mul_add(all, value);
            }
            let mut values = [T::ZERO; ROWS];
            without_ignored(value).store(&mut values);
            loss[first..first + target.len()].copy_from_slice(&values[..target.len()]);
        }
        if let Some(grad) = grad.as_deref_mut() {
            // d/dz_j = (own + spread W) p_j - spread w_j - own [j = y], with W the sum of the weights.
            let scale = T::Lanes::splat(spread).mul_add(T::Lanes::splat(weights), own);
            let scale = scale.zip(sum, |scale, sum| scale / sum);
            for c in 0..classes {
                let even = spread * weight_of(c);
                let part = exponentials.class(c).zip(scale, |e, scale| e * scale);
                let part = part.zip(of_class::<T>(numbers, c, own), |g, own| g - even - own);
                exponentials.set(c, without_ignored(part));
            }
            // The scores are not needed any more.
            exponentials.write::<I>(classes, &mut grad[span], &mut scores);
        }
    }
}

struct CorrectJob<'a, T> {
    classes: usize,
    scores: &'a [T],
    labels: &'a [i64],
}

impl<T: Math> Job for CorrectJob<'_, T> {
    type Output = usize;
    #[inline(always)]
    fn run<I: Isa>(self) -> usize {
        let CorrectJob { classes, scores, labels } = self;
        if classes > ROWS {
            let rows = scores.chunks_exact(classes).zip(labels);
            return rows.filter(|(row, label)| is_first_largest(row, **label)).count();
        }
        let mut block = Block::<T, ROWS>::new();
        let mut count = 0;
        for (rows, labels) in scores.chunks(T::LANES * classes.max(1)).zip(labels.chunks(T::LANES)) {
            block.read::<I>(classes, rows);
            let number = numbers::<T>(labels, None);
            // One that is no class has a score that is beaten by itself.
            let mut own = number.map(|number| {
                if number >= T::ZERO && number < T::from_f64(classes as f64) { T::ZERO } else { T::NAN }
            });
            for c in 0..classes {
                own = own.add(of_class::<T>(number, c, block.class(c)));
            }
            let flag = |is: bool| if is { T::ONE } else { T::ZERO };
            let mut beaten = own.map(|own| flag(own.is_nan()));
            for c in 0..classes {
                let (score, class) = (block.class(c), T::from_f64(c as f64));
                let is_later = number.map(|number| flag(class > number));
                let is_earlier = number.map(|number| flag(class < number));
                let is_above = score.zip(own, |score, own| flag(score > own));
                let is_below = score.zip(own, |score, own| flag(score < own));
                beaten = beaten.add(is_later.zip(is_above, |a, b| a * b));
                beaten = beaten.add(is_earlier.zip(is_below, |a, b| a * (T::ONE - b)));
            }
            let mut flags = [T::ZERO; ROWS];
            beaten.store(&mut flags);
            count += flags[..labels.len()].iter().filter(|&&flag| flag == T::ZERO).count();
        }
        count
    }
}

/// Whether the label's score is the largest, and the first of those. All are compared, without a branch.
#[inline(always)]
fn is_first_largest<T: Math>(row: &[T], label: i64) -> bool {
    let Some(&own) = usize::try_from(label).ok().and_then(|label| row.get(label)) else { return false };
    let (before, after) = row.split_at(label as usize);
    let is_beaten = after.iter().fold(own.is_nan(), |any, &v| any | (v > own));
    before.iter().fold(!is_beaten, |all, &v| all & (v < own))
}

/// Scores that a task looks at.
const TASK: usize = 1 << 16;

/// Rows whose label's score is the largest, and the first of those. A label that is no class, or whose score is
/// NaN, counts nothing.
///
/// # Panics
/// When `scores` are not a row of `classes` for each label.
pub fn count_correct<T: Math>(classes: usize, scores: &[T], labels: &[i64]) -> usize {
    assert!(scores.len() == labels.len() * classes, "contiguous (rows, classes)");
    let rows = (TASK / classes.max(1)).next_multiple_of(ROWS);
    let count = AtomicUsize::new(0);
    parallel(labels.len().div_ceil(rows), &|task| {
        let rows = task * rows..labels.len().min((task + 1) * rows);
        let (scores, labels) = (&scores[rows.start * classes..rows.end * classes], &labels[rows]);
        count.fetch_add(dispatch(CorrectJob { classes, scores, labels }), Ordering::Relaxed);
    });
    count.into_inner()
}
