//! L-BFGS: steps along an approximation of Newton's direction, made from the last differences of points and
//! gradients (Nocedal, 1980), each as long as a search for the strong Wolfe conditions says. The rules are those
//! of PyTorch; numbers are `f64` whatever the parameters' dtype.

use std::collections::VecDeque;

/// What a step may do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Length of a step, or the first that the line search tries.
    pub lr: f64,
    /// Iterations in a step.
    pub max_iter: u64,
    /// Evaluations in a step after which no iteration begins.
    pub max_eval: u64,
    /// A gradient whose largest element is smaller ends the step.
    pub tolerance_grad: f64,
    /// A smaller change of loss or parameters ends the step.
    pub tolerance_change: f64,
    /// Differences that are kept.
    pub history_size: usize,
    /// Whether to search along the direction.
    pub strong_wolfe: bool,
    /// Relative accuracy of a loss: the machine epsilon of its dtype.
    pub loss_eps: f64,
}

/// A difference of gradients with that of the points, and the inverse of their product.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Of the gradients.
    pub y: Vec<f64>,
    /// Of the points.
    pub s: Vec<f64>,
    /// `1 / (y s)`.
    pub ro: f64,
}

/// What goes from step to step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// The last direction.
    pub direction: Vec<f64>,
    /// How far it was followed.
    pub t: f64,
    /// The gradient where it began.
    pub gradient: Vec<f64>,
    /// The last differences, oldest first.
    pub history: VecDeque<Difference>,
    /// The first approximation of the inverse second derivatives is this times one.
    pub scale: f64,
    /// Iterations so far.
    pub iterations: u64,
    /// Evaluations so far.
    pub evaluations: u64,
}

/// Moves to a point and computes loss and gradient there.
pub type Evaluate<'a, E> = dyn FnMut(&[f64], &mut [f64]) -> Result<f64, E> + 'a;

/// Makes a step from `x`, which becomes the point that was reached; returns the loss before it. Where that is not
/// finite there is no step. `evaluate` was not always called last at the point that was reached.
///
/// # Errors
/// Those of `evaluate`; `x` and `memory` are then as they were.
pub fn step<E>(
    options: &Options,
    memory: &mut Memory,
    x: &mut [f64],
    evaluate: &mut Evaluate<E>,
) -> Result<f64, E> {
    let (memory_now, g) = (memory.clone(), vec![0.0; x.len()]);
    let mut new = Step { memory: memory_now, x: x.to_vec(), g, noise: 0.0, evaluate };
    let loss = new.run(options)?;
    x.copy_from_slice(&new.x);
    *memory = new.memory;
    Ok(loss)
}

/// Lanes of a sum: what it adds in which order depends on its length only.
const LANES: usize = 8;

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, v| if v.abs() > largest { v.abs() } else { largest })
}

fn add(target: &mut [f64], factor: f64, values: &[f64]) {
    for (t, v) in target.iter_mut().zip(values) {
        *t += factor * v;
    }
}

struct Step<'a, 'b, E> {
    memory: Memory,
    x: Vec<f64>,
    /// The gradient at `x`.
    g: Vec<f64>,
    /// A difference of losses that may be rounding alone.
    noise: f64,
    evaluate: &'a mut Evaluate<'b, E>,
}

/// A point of a line: how far it is, its loss, the slope along the line and the gradient.
#[derive(Clone)]
struct Point {
    t: f64,
    f: f64,
    slope: f64,
    g: Vec<f64>,
}

impl<E> Step<'_, '_, E> {
    fn run(&mut self, options: &Options) -> Result<f64, E> {
        let first = (self.evaluate)(&self.x, &mut self.g)?;
        self.memory.evaluations += 1;
        let mut evaluations = 1;
        let mut loss = first;
        if !first.is_finite() || largest(&self.g) <= options.tolerance_grad {
            return Ok(first);
        }
        // The terms of a loss may cancel: the first one of the step is nearest to their size.
        self.noise = 2.0 * options.loss_eps * first.abs();
        for iteration in 1..=options.max_iter {
            self.memory.iterations += 1;
            let is_first = self.memory.iterations == 1;
            self.turn(options);
            self.memory.gradient.clone_from(&self.g);
            let before = loss;
            let norm: f64 = self.g.iter().map(|g| g.abs()).sum();
            self.memory.t = if is_first { f64::min(1.0, 1.0 / norm) * options.lr } else { options.lr };
            let slope = dot(&self.g, &self.memory.direction);
            if slope > -options.tolerance_change || slope.is_nan() {
                break;
            }
            let mut made = 0;
            if options.strong_wolfe {
                let start = Point { t: 0.0, f: loss, slope, g: self.g.clone() };
                let (found, tried) = self.search(start, options.tolerance_change)?;
                made = tried;
                loss = found.f;
                self.memory.t = found.t;
                self.g = found.g;
            } else if iteration != options.max_iter {
                let found = self.point(self.memory.t, (loss, slope))?;
                loss = found.f;
                self.g = found.g;
                made = 1;
            }
            add(&mut self.x, self.memory.t, &self.memory.direction);
            evaluations += made;
            self.memory.evaluations += made;
            if evaluations >= options.max_eval
                || largest(&self.g) <= options.tolerance_grad
                || largest(&self.memory.direction) * self.memory.t.abs() <= options.tolerance_change
                || (loss - before).abs() < options.tolerance_change
                || !loss.is_finite()
            {
                break;
            }
        }
        Ok(first)
    }

    /// Takes the last difference into the history, and sets the next direction.
    fn turn(&mut self, options: &Options) {
        let memory = &mut self.memory;
        let mut q: Vec<f64> = self.g.iter().map(|g| -g).collect();
        if memory.iterations == 1 {
            memory.history.clear();
            memory.scale = 1.0;
            memory.direction = q;
            return;
        }
        let y: Vec<f64> = self.g.iter().zip(&memory.gradient).map(|(new, old)| new - old).collect();
        let s: Vec<f64> = memory.direction.iter().map(|d| d * memory.t).collect();
        let product = dot(&y, &s);
        // Else the approximation would not stay positive.
        if product > 1e-10 {
            while memory.history.len() >= options.history_size.max(1) {
                memory.history.pop_front();
            }
            memory.scale = product / dot(&y, &y);
            memory.history.push_back(Difference { y, s, ro: 1.0 / product });
        }
        let mut shares = vec![0.0; memory.history.len()];
        for (share, difference) in shares.iter_mut().zip(&memory.history).rev() {
            *share = dot(&difference.s, &q) * difference.ro;
            add(&mut q, -*share, &difference.y);
        }
        q.iter_mut().for_each(|q| *q *= memory.scale);
        for (share, difference) in shares.iter().zip(&memory.history) {
            let of_y = dot(&difference.y, &q) * difference.ro;
            add(&mut q, share - of_y, &difference.s);
        }
        memory.direction = q;
    }

    /// The point at `t`. Where its loss and slope differ from those of the start by no more than rounding explains,
    /// the difference is that of the parabola through both slopes, which are known far better there: the minimum is
    /// then found to the accuracy of the gradient, not to its square root (Hager and Zhang, "A new conjugate gradient
    /// method with guaranteed descent and an efficient line search", 2005, whose approximate Wolfe conditions this
    /// makes of the exact ones).
    fn point(&mut self, t: f64, (start, start_slope): (f64, f64)) -> Result<Point, E> {
        let mut x = self.x.clone();
        add(&mut x, t, &self.memory.direction);
        let mut g = vec![0.0; x.len()];
        let mut f = (self.evaluate)(&x, &mut g)?;
        let slope = dot(&g, &self.memory.direction);
        let rise = 0.5 * t * (start_slope + slope);
        if f64::max((f - start).abs(), rise.abs()) <= self.noise {
            f = start + rise;
        }
        Ok(Point { t, f, slope, g })
    }

    /// A point where the loss has fallen enough and the slope is small (Nocedal and Wright, "Numerical
    /// optimization", section 3.5), or the best that was found; and the number of evaluations.
    fn search(&mut self, start: Point, tolerance: f64) -> Result<(Point, u64), E> {
        const SUFFICIENT: f64 = 1e-4;
        const CURVATURE: f64 = 0.9;
        const MOST: u64 = 25;
        let is_too_high = |p: &Point| p.f > start.f + SUFFICIENT * p.t * start.slope || p.f.is_nan();
        let is_flat = |p: &Point| p.slope.abs() <= -CURVATURE * start.slope;
        let at_start = (start.f, start.slope);
        let mut new = self.point(self.memory.t, at_start)?;
        let (mut previous, mut tried) = (start.clone(), 1);
        // First longer and longer steps, until such a point is between two.
        let mut pair = loop {
            if tried > MOST {
                break [start.clone(), new];
            }
            if is_too_high(&new) || (tried > 2 && new.f >= previous.f) {
                break [previous, new];
            }
            if is_flat(&new) {
                return Ok((new, tried));
            }
            if new.slope >= 0.0 {
                break [previous, new];
            }
            let bounds = (new.t + 0.01 * (new.t - previous.t), new.t * 10.0);
            let t = lowest(&previous, &new, bounds);
            previous = std::mem::replace(&mut new, self.point(t, at_start)?);
            tried += 1;
        };
        // Then smaller and smaller intervals.
        let width = largest(&self.memory.direction);
        let mut low = usize::from(pair[1].f < pair[0].f);
        let mut is_slow = false;
        while tried <= MOST && (pair[1].t - pair[0].t).abs() * width >= tolerance {
            let (left, right) = (f64::min(pair[0].t, pair[1].t), f64::max(pair[0].t, pair[1].t));
            let mut t = lowest(&pair[0], &pair[1], (left, right));
            // Twice in a row near an end, or at one: a tenth of the interval away from it.
            let tenth = 0.1 * (right - left);
            let is_near = f64::min(right - t, t - left) < tenth;
            if is_near && (is_slow || t >= right || t <= left) {
                t = if (t - right).abs() < (t - left).abs() { right - tenth } else { left + tenth };
                is_slow = false;
            } else {
                is_slow = is_near;
            }
            let new = self.point(t, at_start)?;
            tried += 1;
            let high = 1 - low;
            if is_too_high(&new) || new.f >= pair[low].f {
                pair[high] = new;
                low = usize::from(pair[1].f < pair[0].f);
                continue;
            }
            let is_done = is_flat(&new);
            if !is_done && new.slope * (pair[high].t - pair[low].t) >= 0.0 {
                pair[high] = pair[low].clone();
            }
            pair[low] = new;
            if is_done {
                break;
            }
        }
        let [first, second] = pair;
        Ok((if low == 0 { first } else { second }, tried))
    }
}

/// Where the cubic through two points with their slopes is lowest, within bounds; the middle where there is none.
fn lowest(a: &Point, b: &Point, (left, right): (f64, f64)) -> f64 {
    let (a, b) = if a.t <= b.t { (a, b) } else { (b, a) };
    let d1 = a.slope + b.slope - 3.0 * (a.f - b.f) / (a.t - b.t);
    let square = d1 * d1 - a.slope * b.slope;
    let d2 = square.sqrt();
    let t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2.0 * d2));
    // A loss that is not finite leaves no cubic.
    if t.is_nan() { (left + right) / 2.0 } else { t.clamp(left, right) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: Options = Options {
        lr: 1.0,
        max_iter: 60,
        max_eval: 200,
        tolerance_grad: 1e-9,
        tolerance_change: 1e-14,
        history_size: 5,
        strong_wolfe: true,
        loss_eps: f64::EPSILON,
    };

    fn rosenbrock(x: &[f64], g: &mut [f64]) -> Result<f64, ()> {
        let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
        g.copy_from_slice(&[-2.0 * a - 400.0 * x[0] * b, 200.0 * b]);
        Ok(a * a + 100.0 * b * b)
    }

    #[test]
    fn slopes_stand_for_losses_only_where_they_tell_of_rounding_too() {
        for (start_slope, want) in [(-0.1, -0.05), (-10.0, 0.2)] {
            let memory = Memory { direction: vec![1.0], ..Memory::default() };
            let mut plateau = |_: &[f64], g: &mut [f64]| -> Result<f64, ()> {
                g.fill(0.0);
                Ok(0.2)
            };
            let (x, g) = (vec![0.0], vec![start_slope]);
            let mut step = Step { memory, x, g, noise: 0.24, evaluate: &mut plateau };
            assert_eq!(step.point(1.0, (0.0, start_slope)).unwrap().f, want);
        }
    }

    #[test]
    fn a_banana_is_followed_to_its_end() {
        let (mut memory, mut x) = (Memory::default(), [-1.2, 1.0]);
        let first = step(&OPTIONS, &mut memory, &mut x, &mut rosenbrock).unwrap();
        assert!((first - 24.2).abs() < 1e-12);
        assert!((x[0] - 1.0).abs() < 1e-7 && (x[1] - 1.0).abs() < 1e-7, "{x:?}");
        assert!(memory.history.len() == 5 && memory.evaluations < 80, "{memory:?}");
    }

    #[test]
    fn steps_without_a_search_have_the_length_of_the_rate() {
        let options = Options { strong_wolfe: false, max_iter: 1, lr: 0.25, ..OPTIONS };
        let (mut memory, mut x) = (Memory::default(), [2.0]);
        let mut evaluate = |x: &[f64], g: &mut [f64]| {
            g[0] = 0.5 * x[0];
            Ok::<f64, ()>(0.25 * x[0] * x[0])
        };
        step(&options, &mut memory, &mut x, &mut evaluate).unwrap();
        assert_eq!(x, [1.75]);
        // The second derivative is known now: (y s) / (y y) = 2.
        step(&options, &mut memory, &mut x, &mut evaluate).unwrap();
        assert!((x[0] - (1.75 - 0.25 * 1.75)).abs() < 1e-15, "{x:?}");
    }

    #[test]
    fn a_rounded_loss_costs_no_accuracy_where_the_gradient_has_it() {
        // Terms that cancel: in float32 the loss is flat within 1e-3 of the minimum.
        let mut evaluate = |x: &[f64], g: &mut [f64]| {
            let mut loss = 0.0f32;
            for (i, (x, g)) in x.iter().zip(g).enumerate() {
                let (c, from) = (1.0 + i as f64, x - 0.7 * i as f64);
                *g = f64::from((c * from - x.sin()) as f32);
                loss += (0.5 * c * from * from + x.cos()) as f32;
            }
            Ok::<f64, ()>(f64::from(loss))
        };
        let options = Options { tolerance_change: 1e-12, history_size: 20, ..OPTIONS };
        let mut slopes = |loss_eps, strong_wolfe| {
            let (mut memory, mut x, mut g) = (Memory::default(), [0.3, 2.1, -1.4, 0.1, 3.0, 0.7], [0.0; 6]);
            let options = Options { loss_eps, strong_wolfe, ..options };
            step(&options, &mut memory, &mut x, &mut evaluate).unwrap();
            evaluate(&x, &mut g).unwrap();
            largest(&g)
        };
        assert!(slopes(f64::EPSILON, true) > 1e-5);
        assert!(slopes(f32::EPSILON.into(), true) < 1e-6);
        assert!(slopes(f32::EPSILON.into(), false) < 1e-6);
    }

    #[test]
    fn a_point_without_a_finite_loss_is_too_far() {
        let (mut memory, mut x) = (Memory::default(), [0.5]);
        let mut evaluate = |x: &[f64], g: &mut [f64]| {
            g[0] = 1.0 / (1.0 - x[0]) - 1.0 / x[0] + 1.0;
            Ok::<f64, ()>(if x[0] > 0.0 && x[0] < 1.0 {
                -(x[0].ln() + (1.0 - x[0]).ln()) + x[0]
            } else {
                f64::NAN
            })
        };
        step(&Options { lr: 100.0, ..OPTIONS }, &mut memory, &mut x, &mut evaluate).unwrap();
        // Where -1/x + 1/(1-x) + 1 = 0.
        let want = (3.0 - 5f64.sqrt()) / 2.0;
        assert!((x[0] - want).abs() < 1e-6, "{x:?} {want}");
    }

    #[test]
    fn an_error_changes_nothing() {
        let (mut memory, mut x, mut calls) = (Memory::default(), [-1.2, 1.0], 0);
        let made = step(&OPTIONS, &mut memory, &mut x, &mut |x, g| {
            calls += 1;
            if calls == 4 { Err(()) } else { rosenbrock(x, g) }
        });
        assert_eq!((made, x, memory), (Err(()), [-1.2, 1.0], Memory::default()));
    }
}
