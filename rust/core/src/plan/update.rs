//! Updates: the last phase of a step. A weight whose gradient is one product is updated block by block as the
//! block's gradient is finished, so that the gradient is never stored.

use std::ops::Range;

use ferrograd_kernels::gemm::MatRef;
use ferrograd_kernels::gemm::panels::{GRADIENT_ROWS, Gradients, Panels, gradient_panels};
use ferrograd_kernels::math::Math;
use ferrograd_kernels::update::{Rule, Update as _, penalise};

use super::compile::Trained;
use super::weights::Weight;
use crate::buffer::{Array, Write, parallel_chunks};
use crate::dtype::Element;
use crate::error::Result;
use crate::for_float;

/// Guards of at most three states, without an allocation.
pub(super) fn write_all<'a, T: Element>(
    states: impl IntoIterator<Item = &'a Array>,
) -> [Option<Write<'a, T>>; 3] {
    let mut guards = [const { None }; 3];
    for (slot, state) in guards.iter_mut().zip(states) {
        *slot = Some(state.write::<T>());
    }
    guards
}

/// A parameter whose gradient is a value of the plan.
pub(super) struct Update {
    pub(super) weight: Array,
    pub(super) gradient: Array,
    pub(super) rule: usize,
    pub(super) state: Vec<Array>,
}

/// Updates a contiguous parameter and its states, of the same shape, with a contiguous gradient, on all threads.
///
/// # Errors
/// `DType` when the parameter is not floating.
pub fn update(rule: &Rule, weight: &Array, gradient: &Array, states: &[Array]) -> Result<()> {
    for_float!("update", weight.dtype(), T => update_typed::<T>(rule, weight, gradient, states))
}

/// Elements that one task updates: 64 KiB of float32 for each operand.
const UPDATE_CHUNK: usize = 16 * 1024;

impl Update {
    /// Runs on all threads.
    pub(super) fn run(&self, rules: &[Rule]) -> Result<()> {
        update(&rules[self.rule], &self.weight, &self.gradient, &self.state)
    }
}

fn update_typed<T: Math + Element>(
    rule: &Rule,
    weight: &Array,
    gradient: &Array,
    states: &[Array],
) -> Result<()> {
    let gradient = gradient.read::<T>();
    let mut weight = weight.write::<T>();
    let mut guards = write_all::<T>(states);
    let [first, second, third] = guards.each_mut().map(|g| g.as_deref_mut().unwrap_or_default());
    let given = states.len();
    let gradient: &[T] = &gradient;
    let chunk = if rule.is_element_wise() { UPDATE_CHUNK } else { gradient.len().max(1) };
    parallel_chunks([&mut weight, first, second, third], chunk, |range, [weight, first, second, third]| {
        let states =
            [(given > 0).then_some(first), (given > 1).then_some(second), (given > 2).then_some(third)];
        rule.apply(weight, &gradient[range], states);
    });
    Ok(())
}

/// The update of a vector that is added to the rows of a product, whose gradient is the sum of D's rows.
#[derive(Clone)]
pub(super) struct BiasUpdate {
    pub(super) bias: Array,
    pub(super) rule: usize,
    pub(super) state: Vec<Array>,
}

impl BiasUpdate {
    pub(super) fn new(of: &Trained) -> BiasUpdate {
        BiasUpdate { bias: of.weight.clone(), rule: of.rule, state: of.state.clone() }
    }
}

/// Some rows of one panel of a packed weight, with what changes with them.
struct Segment {
    weight: Array,
    states: Vec<Array>,
    /// The parts of the transposed copy, one for each of its panels.
    transposed: Vec<(Range<usize>, Array)>,
}

/// A block of a packed weight with the operands of its gradient `a^T d`.
pub(super) struct BlockUpdate {
    weight: usize,
    rule: usize,
    a: Array,
    d: Array,
    /// What a penalty adds: the weight times the factor, times the element.
    pull: Option<(f64, Array)>,
    panels: Range<usize>,
    rows: Range<usize>,
    /// Updated with the panels' sums of D, where this block has the first rows.
    bias: Option<BiasUpdate>,
    /// By block of rows, then panel.
    segments: Vec<Segment>,
}

impl BlockUpdate {
    pub(super) fn new(
        (number, weight): (usize, &Weight),
        rule: usize,
        (a, d): (&Array, &Array),
        pull: &Option<(f64, Array)>,
        bias: &Option<BiasUpdate>,
        panels: Range<usize>,
        rows: Range<usize>,
    ) -> BlockUpdate {
        let layout = weight.packed.layout;
        let mut segments = Vec::new();
        for block in blocks(rows.clone()) {
            for panel in panels.clone() {
                let range = layout.segment(panel, block.clone());
                let mut transposed = Vec::new();
                if let Some(packed) = &weight.transposed {
                    for first in block.clone().step_by(packed.layout.width()) {
                        let part = first..block.end.min(first + packed.layout.width());
                        let range = layout.transposed_segment(&packed.layout, panel, part.clone());
                        let rows = part.start - block.start..part.end - block.start;
                        transposed.push((rows, packed.segment(range)));
                    }
                }
                segments.push(Segment {
                    weight: weight.packed.segment(range.clone()),
                    states: weight.states.iter().map(|(_, packed)| packed.segment(range.clone())).collect(),
                    transposed,
                });
            }
        }
        let (a, d, pull) = (a.clone(), d.clone(), pull.clone());
        let bias = bias.clone().filter(|_| rows.start == 0);
        BlockUpdate { weight: number, rule, a, d, pull, bias, panels, rows, segments }
    }

    /// Work in proportion to that of other blocks of the same weight.
    pub(super) fn cost(&self) -> usize {
        self.a.shape()[0] * self.panels.len() * self.rows.len()
    }

    /// Number of the weight.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// What is one pass.
    pub(super) fn name(&self) -> String {
        name(self.pull.is_some(), self.bias.is_some())
    }

    /// Multiply-adds of the gradient's blocks.
    pub(super) fn multiply_adds(&self, layout: &Panels) -> u64 {
        let columns: usize = self.panels.clone().map(|panel| layout.columns(panel).len()).sum();
        (self.a.shape()[0] * columns * self.rows.len()) as u64
    }

    /// Runs on this thread.
    pub(super) fn run(&self, weights: &[Weight], rules: &[Rule]) -> Result<()> {
        for_float!("update", self.a.dtype(), T => self.run_typed::<T>(&weights[self.weight], rules))
    }

    fn run_typed<T: Math + Element>(&self, weight: &Weight, rules: &[Rule]) -> Result<()> {
        let layout = &weight.packed.layout;
        let (a, d) = (self.a.read::<T>(), self.d.read::<T>());
        let matrix = |array: &Array| (array.strides()[0], array.strides()[1]);
        let ((a_row, a_col), (d_row, d_col)) = (matrix(&self.a), matrix(&self.d));
        let batch = self.a.shape()[0];
        let (a, d) = (MatRef::new(&a, a_row, a_col), MatRef::new(&d, d_row, d_col));
        let mut near = [weight.packed.whole.address(); 4];
        let states = weight.states.iter().map(|(_, packed)| packed.whole.address());
        near[1..].iter_mut().zip(states).for_each(|(slot, address)| *slot = address);
        let near = &near[..1 + weight.states.len().min(3)];
        let (panels, rows) = (self.panels.clone(), self.rows.clone());
        let pull = self
            .pull
            .as_ref()
            .map(|(factor, scale)| (<T as Element>::from_f64(*factor), scale.read::<T>()[0]));
        let mut updates = Updates { of: self, layout, rules, pull };
        gradient_panels(batch, a, d, layout, panels, rows, near, &mut updates);
        Ok(())
    }
}

/// Updates with what a block's gradients are.
struct Updates<'a, T> {
    of: &'a BlockUpdate,
    layout: &'a Panels,
    rules: &'a [Rule],
    pull: Option<(T, T)>,
}

impl<T: Math + Element> Gradients<T> for Updates<'_, T> {
    fn block(&mut self, panel: usize, rows: Range<usize>, gradient: &mut [T]) {
        let of = self.of;
        let block = (rows.start - of.rows.start) / GRADIENT_ROWS;
        let segment = &of.segments[block * of.panels.len() + panel - of.panels.start];
        let mut weight = segment.weight.write::<T>();
        let mut guards = write_all::<T>(&segment.states);
        if let Some((factor, scale)) = self.pull {
            penalise(&weight, gradient, factor, scale);
        }
        self.rules[of.rule].apply(&mut weight, gradient, guards.each_mut().map(Option::as_deref_mut));
        let stride = self.layout.stride(panel);
        for (rows, part) in &segment.transposed {
            let block = &weight[rows.start * stride..rows.end * stride];
            self.layout.pack_transposed(panel, rows.len(), block, &mut part.write::<T>());
        }
    }

    fn wants_sums(&self) -> bool {
        self.of.bias.is_some()
    }

    fn sums(&mut self, panel: usize, sums: &[T]) {
        let Some(BiasUpdate { bias, rule, state }) = &self.of.bias else { return };
        let columns = self.layout.columns(panel);
        let (mut bias, mut guards) = (bias.write::<T>(), write_all::<T>(state));
        let states = guards.each_mut().map(|guard| guard.as_deref_mut().map(|all| &mut all[columns.clone()]));
        self.rules[*rule].apply(&mut bias[columns.clone()], sums, states);
    }
}

/// What the gradient of a weight and its update are called, perhaps with a penalty and a bias.
pub(super) fn name(has_penalty: bool, has_sum: bool) -> String {
    let (penalty, sum) = (if has_penalty { "+penalty" } else { "" }, if has_sum { "+sum" } else { "" });
    format!("matmul{penalty}{sum}+update")
}

/// The blocks in which rows of a gradient are finished.
fn blocks(rows: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = rows.end;
    rows.step_by(GRADIENT_ROWS).map(move |first| first..end.min(first + GRADIENT_ROWS))
}
