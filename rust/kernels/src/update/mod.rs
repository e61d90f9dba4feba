//! Optimizer updates in place: PyTorch's formulas, one pass over all operands. Scalars that hold for the whole
//! step are computed in `f64` and rounded once.
//!
//! A file holds a family: `sgd`, `adam`, `moments` (other uses of Adam's means), `roots` (rates divided by the
//! root of squares), `signs` (steps along the gradient's sign), `average`, `muon`.

mod adam;
mod average;
mod moments;
mod muon;
mod roots;
mod sgd;
mod signs;

use std::cell::Cell;
use std::ops::RangeInclusive;

pub use adam::{Adam, adam};
pub use average::Asgd;
pub use moments::{Adamax, NAdam, RAdam};
pub use muon::Muon;
pub use roots::{Adadelta, Adagrad, RmsProp};
pub use sgd::{Sgd, sgd};
pub use signs::{Lion, Rprop};

use crate::isa::{Isa, Job, dispatch};
use crate::math::Math;

/// An optimizer's step with its scalars.
pub trait Update {
    /// Updates weights and what the optimizer remembers of them: the first of `states`, as many as it has.
    ///
    /// # Panics
    /// When an array has another length than the weights.
    fn apply<T: Math>(&self, weight: &mut [T], grad: &[T], states: [Option<&mut [T]>; 3]);
    /// Whether any part of a weight may be updated alone.
    fn is_element_wise(&self) -> bool {
        true
    }
    /// Makes this the step that follows.
    fn advance(&mut self) {}
    /// The learning rate.
    fn rate(&mut self) -> &mut f64;
    /// The momentum, or Adam's first beta.
    fn momentum(&mut self) -> Option<&mut f64> {
        None
    }
    /// How many states it takes.
    fn states(&self) -> RangeInclusive<usize>;
    /// Scalars beside the number of the step that go from step to step.
    fn carried(&self) -> &[f64] {
        &[]
    }
}

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident($kind:ty),)*) => {
        /// How a group of parameters is updated. Rates may change between steps.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub enum Rule {
            $($(#[$doc])* $name($kind),)*
        }

        impl Update for Rule {
            fn apply<T: Math>(&self, weight: &mut [T], grad: &[T], states: [Option<&mut [T]>; 3]) {
                match self {
                    $(Rule::$name(rule) => rule.apply(weight, grad, states),)*
                }
            }
            fn is_element_wise(&self) -> bool {
                match self {
                    $(Rule::$name(rule) => rule.is_element_wise(),)*
                }
            }
            fn advance(&mut self) {
                match self {
                    $(Rule::$name(rule) => rule.advance(),)*
                }
            }
            fn rate(&mut self) -> &mut f64 {
                match self {
                    $(Rule::$name(rule) => rule.rate(),)*
                }
            }
            fn momentum(&mut self) -> Option<&mut f64> {
                match self {
                    $(Rule::$name(rule) => rule.momentum(),)*
                }
            }
            fn states(&self) -> RangeInclusive<usize> {
                match self {
                    $(Rule::$name(rule) => rule.states(),)*
                }
            }
            fn carried(&self) -> &[f64] {
                match self {
                    $(Rule::$name(rule) => rule.carried(),)*
                }
            }
        }
    };
}

rules! {
    /// Stochastic gradient descent, with momentum where there is a buffer.
    Sgd(Sgd),
    /// Adam, `AdamW` and AMSGrad.
    Adam(Adam),
    /// Adam with Nesterov's momentum.
    NAdam(NAdam),
    /// Adam with a rectified rate.
    RAdam(RAdam),
    /// Adam with the largest gradient in place of the root.
    Adamax(Adamax),
    /// Rates divided by the root of all squares.
    Adagrad(Adagrad),
    /// Steps in the weights' own units.
    Adadelta(Adadelta),
    /// Rates divided by the root of the mean square.
    RmsProp(RmsProp),
    /// Step sizes of each weight's own.
    Rprop(Rprop),
    /// The sign of the momentum.
    Lion(Lion),
    /// Gradient descent with averaged weights.
    Asgd(Asgd),
    /// Steps along the orthogonal matrix nearest to the momentum.
    Muon(Muon),
}

/// Runs a step over whole arrays.
fn sweep<T: Math, S: Step<T, N>, const N: usize>(
    step: S,
    weight: &mut [T],
    grad: &[T],
    states: [Option<&mut [T]>; 3],
) {
    assert_eq!(weight.len(), grad.len(), "one gradient per weight");
    let mut arrays = std::iter::once(weight).chain(states.into_iter().map(Option::unwrap_or_default));
    let arrays = std::array::from_fn(|_| arrays.next().unwrap_or_default());
    assert!(arrays.iter().all(|array| array.len() == grad.len()), "one state per weight");
    dispatch(Sweep { step, arrays, grad });
}

/// An update of one weight and its `N - 1` states. What costs an operation only at times is a constant parameter.
trait Step<T, const N: usize>: Copy {
    fn step(self, values: [T; N], grad: T) -> [T; N];
}

/// A [`Step`] over whole arrays.
struct Sweep<'a, T, S, const N: usize> {
    step: S,
    arrays: [&'a mut [T]; N],
    grad: &'a [T],
}

impl<T: Math, S: Step<T, N>, const N: usize> Job for Sweep<'_, T, S, N> {
    type Output = ();
    // Element by element, which LLVM puts into lanes by itself. From lane arrays it made gathers.
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Sweep { step, arrays, grad } = self;
        let arrays = arrays.map(|array| &mut array[..grad.len()]);
        for i in 0..grad.len() {
            let mut values = [T::ZERO; N];
            for k in 0..N {
                values[k] = arrays[k][i];
            }
            let values = step.step(values, grad[i]);
            for k in 0..N {
                arrays[k][i] = values[k];
            }
        }
    }
}

/// Adds the gradient `(weight factor) scale` of an L2 penalty to that of the loss, each operation rounded by itself.
///
/// # Panics
/// When there is not one gradient per weight.
pub fn penalise<T: Math>(weight: &[T], grad: &mut [T], factor: T, scale: T) {
    assert_eq!(weight.len(), grad.len(), "one gradient per weight");
    dispatch(Penalise { weight, grad, factor, scale });
}

struct Penalise<'a, T> {
    weight: &'a [T],
    grad: &'a mut [T],
    factor: T,
    scale: T,
}

impl<T: Math> Job for Penalise<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Penalise { weight, grad, factor, scale } = self;
        for (g, &w) in grad.iter_mut().zip(weight) {
            *g += w * factor * scale;
        }
    }
}

/// `base^exponent`. An update asks for the same two powers for each block of a weight, and they take longer than a
/// small block: the last ones are remembered.
fn power(base: f64, exponent: u64) -> f64 {
    thread_local! {
        static LAST: Cell<[(f64, u64, f64); 2]> = const { Cell::new([(0.0, 1, 0.0); 2]) };
    }
    let last = LAST.get();
    let known = last.iter().find(|(b, e, _)| (b.to_bits(), *e) == (base.to_bits(), exponent));
    if let Some((.., value)) = known {
        return *value;
    }
    let value = libm::pow(base, exponent as f64);
    LAST.set([last[1], (base, exponent, value)]);
    value
}

/// Zero in place of a subnormal. A moment whose gradients have ended decays into the subnormals, where
/// operations cost over a hundred cycles on many CPUs: Adam took 780 to 900 us a step for 100,000 such
/// parameters, and takes 70 to 200 with this. A step that small changes no weight.
#[inline(always)]
fn flush<T: Math>(moment: T) -> T {
    if moment.abs() < T::MIN_POSITIVE { T::ZERO } else { moment }
}

/// The gradient, with the L2 penalty's where there is one.
#[inline(always)]
fn decayed<T: Math, const DECAYS: bool>(decay: T, weight: T, grad: T) -> T {
    if DECAYS { weight.mul_add(decay, grad) } else { grad }
}

#[cfg(test)]
mod tests;
