//! Steps of few rows, whose time is that of reading the weights: a weight's gradient, its update and the gradient of
//! its layer's input are one pass over it. What needs such a gradient then runs after the phases too.

use ferrograd_kernels::gemm::MatRef;
use ferrograd_kernels::gemm::panels::{DataGradient, FewRows, Tuned, update_panels};
use ferrograd_kernels::math::Math;
use ferrograd_kernels::update::Rule;

use super::compile::{Builder, Trained};
use super::memory::Views;
use super::outline::Part;
use super::products::{Gradient, Products};
use super::run::{Batch, Instruction};
use super::trace::{Definition, Leaf, Program, ValueId};
use super::update::{BiasUpdate, write_all};
use super::weights::Weight;
use crate::buffer::Array;
use crate::dtype::Element;
use crate::error::Result;
use crate::for_float;
use crate::op::{Binary, Dense, Op};

/// What follows the phases of a step: in this order, before all other updates.
pub(super) enum Late {
    /// What needs a data gradient.
    Instruction(Instruction),
    Update(Box<FewUpdate>),
}

/// The update of a packed weight with the gradient `a^T d` of few rows.
pub(super) struct FewUpdate {
    pub(super) weight: usize,
    pub(super) rule: usize,
    pub(super) a: Array,
    pub(super) d: Array,
    /// What a penalty adds: the weight times the factor, times the element.
    pub(super) pull: Option<(f64, Array)>,
    /// Updated with the sums of d's rows.
    pub(super) bias: Option<BiasUpdate>,
    /// The gradient of a, and what is applied to it with the result of an activation.
    pub(super) data: Option<(Array, Option<(Binary, Array)>)>,
    pub(super) threads: usize,
    pub(super) name: String,
}

impl FewUpdate {
    /// Multiply-adds of both gradients.
    pub(super) fn multiply_adds(&self, weights: &[Weight]) -> u64 {
        let layout = weights[self.weight].packed.layout;
        let products = 1 + u64::from(self.data.is_some());
        products * (self.a.shape()[0] * layout.k() * layout.n()) as u64
    }

    pub(super) fn run(&self, weights: &[Weight], rules: &[Rule]) -> Result<()> {
        for_float!("update", self.a.dtype(), T => self.run_typed::<T>(&weights[self.weight], rules))
    }

    fn run_typed<T: Math + Element>(&self, weight: &Weight, rules: &[Rule]) -> Result<()> {
        let (a, d) = (self.a.read::<T>(), self.d.read::<T>());
        let matrix = |array: &Array| (array.strides()[0], array.strides()[1]);
        let ((a_row, a_col), (d_row, d_col)) = (matrix(&self.a), matrix(&self.d));
        let mut values = weight.packed.whole.write::<T>();
        let states = weight.states.iter().map(|(_, packed)| &packed.whole);
        let mut states = write_all::<T>(states);
        let mut turned = weight.transposed.as_ref().map(|packed| (packed.layout, packed.whole.write::<T>()));
        let pull = self
            .pull
            .as_ref()
            .map(|(factor, scale)| (<T as Element>::from_f64(*factor), scale.read::<T>()[0]));
        let mut bias = self.bias.as_ref().map(|bias| (bias.bias.write::<T>(), write_all::<T>(&bias.state)));
        let bias_rule = self.bias.as_ref().map_or(self.rule, |bias| bias.rule);
        let y = self.data.as_ref().and_then(|(_, derivative)| derivative.as_ref());
        let y = y.map(|(op, y)| (*op, y.read::<T>(), y.row_stride()));
        let derivative = y.as_ref().map(|(op, y, stride)| (*op, &y[..], *stride));
        let mut data = self.data.as_ref().map(|(data, _)| (data.write::<T>(), data.row_stride()));
        let of = FewRows {
            batch: self.a.shape()[0],
            a: MatRef::new(&a, a_row, a_col),
            d: MatRef::new(&d, d_row, d_col),
            layout: weight.packed.layout,
            weight: Tuned {
                values: &mut values,
                states: states.each_mut().map(|state| state.as_deref_mut()),
                rule: &rules[self.rule],
            },
            transposed: turned.as_mut().map(|(layout, values)| (*layout, &mut values[..])),
            pull,
            bias: bias.as_mut().map(|(values, states)| Tuned {
                values,
                states: states.each_mut().map(|state| state.as_deref_mut()),
                rule: &rules[bias_rule],
            }),
            data: data.as_mut().map(|(values, stride)| DataGradient { values, stride: *stride, derivative }),
        };
        update_panels(of, self.threads);
        Ok(())
    }
}

impl Late {
    pub(super) fn run(&self, weights: &[Weight], rules: &[Rule]) -> Result<()> {
        match self {
            Late::Instruction(instruction) => instruction.run(Batch { rows: &[], tables: &[] }, weights),
            Late::Update(update) => update.run(weights, rules),
        }
    }
}

/// What runs after the phases.
pub(super) struct Found {
    /// By trained parameter: the data gradient that is made in the pass of its update.
    pub(super) data: Vec<Option<ValueId>>,
    /// By value: whether it is one of them or needs one.
    pub(super) is_late: Vec<bool>,
}

/// The products with a transposed weight that can be left to the weight's update. None whose results, however far
/// they go, come to what is `read` when the phases are over, to a parameter that has changed by then, or to an op
/// that may fail: a step is made as a whole or not at all.
pub(super) fn find(
    program: &Program,
    views: &Views,
    products: &Products,
    gradients: &[Option<Gradient>],
    trained: &[Trained],
    read: &[ValueId],
) -> Found {
    let count = program.metas.len();
    let candidates: Vec<Option<ValueId>> =
        gradients.iter().map(|gradient| candidate(program, products, gradient.as_ref()?)).collect();
    let is_trained = |value: ValueId| match &program.definitions[views.owner[value]] {
        Definition::Leaf(Leaf::External(array)) => trained.iter().any(|t| array.shares_storage(&t.weight)),
        _ => false,
    };
    let mut is_needed = vec![false; count];
    let mut is_candidate = vec![false; count];
    let scales = gradients.iter().flatten().filter_map(|gradient| gradient.pull.map(|pull| pull.scale));
    read.iter().copied().chain(scales).for_each(|value| is_needed[value] = true);
    candidates.iter().flatten().for_each(|&value| is_candidate[value] = true);
    let may_wait = |value: ValueId| {
        let Definition::Op { op, .. } = &program.definitions[value] else { return false };
        let reads_trained = || program.operands(value).iter().any(|&operand| is_trained(operand));
        cannot_fail(op) && !is_needed[value] && (is_candidate[value] || !reads_trained())
    };
    // With all that follows from them.
    let mut may_wait: Vec<bool> = (0..count).map(may_wait).collect();
    for value in (0..count).rev() {
        if !may_wait[value] {
            program.operands(value).iter().for_each(|&operand| may_wait[operand] = false);
        }
    }
    let mut found = Found { data: vec![None; gradients.len()], is_late: vec![false; count] };
    for ((data, candidate), gradient) in found.data.iter_mut().zip(candidates).zip(gradients) {
        // What follows from it is not the other operand of the update.
        let is_before = |value: ValueId| gradient.is_some_and(|g| views.owner[g.a] < value);
        *data = candidate.filter(|&value| may_wait[value] && is_before(value));
        data.iter().for_each(|&value| found.is_late[value] = true);
    }
    for value in 0..count {
        found.is_late[value] |= program.operands(value).iter().any(|&operand| found.is_late[operand]);
    }
    found
}

/// Whether an op that has been checked gives a result for any numbers.
fn cannot_fail(op: &Op) -> bool {
    match op {
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Where | Op::Cast(_) => true,
        Op::MatMul | Op::Linear | Op::Dense(_) | Op::Reduce(_) | Op::Softmax { .. } => true,
        Op::Reshape(_) | Op::Copy | Op::Detach | Op::Permute(_) | Op::Expand(_) | Op::Slice(_) => true,
        Op::Embed(_) | Op::Cat { .. } | Op::Along { .. } => true,
        // Labels and rows that are not there, and what users write. A draw belongs to its step.
        Op::GatherRows | Op::ScatterAddRows { .. } | Op::CountLabels { .. } => false,
        Op::Loss(_) | Op::LossGrad(_) | Op::Draw(_) | Op::Custom(_) => false,
    }
}

/// The one product of a gradient's d with its weight's transpose, where nothing else reads the transpose.
fn candidate(program: &Program, products: &Products, gradient: &Gradient) -> Option<ValueId> {
    let reads = |&value: &ValueId| {
        products.of[value].is_some_and(|product| product.weight == gradient.weight && product.transposed)
    };
    let mut readers = (0..program.metas.len()).filter(reads);
    let (value, other) = (readers.next()?, readers.next());
    let is_plain = matches!(
        &program.definitions[value],
        Definition::Op { op: Op::MatMul | Op::Dense(Dense { bias: false, activation: None, .. }), .. }
    );
    let fits = other.is_none()
        && is_plain
        && program.operands(value)[0] == gradient.d
        && program.metas[value].shape.elements() > 0
        && program.metas[gradient.d].shape.elements() > 0;
    fits.then_some(value)
}

impl Builder {
    /// The updates of a step of few rows, and what runs between them.
    pub(super) fn late(
        &mut self,
        found: &Found,
        gradients: &[Option<Gradient>],
        trained: &[Trained],
        threads: usize,
    ) -> Vec<Late> {
        let mut late = Vec::new();
        let is_instruction = |&value: &ValueId| {
            found.is_late[value] && self.schedule.phase[value].is_some() && !found.data.contains(&Some(value))
        };
        let instructions: Vec<ValueId> = (0..found.is_late.len()).filter(is_instruction).collect();
        let mut order: Vec<(ValueId, Option<usize>)> = instructions.iter().map(|&v| (v, None)).collect();
        // Weights of first layers come last.
        let updates = (0..found.data.len()).filter(|&i| gradients[i].is_some());
        order.extend(updates.map(|i| (found.data[i].unwrap_or(found.is_late.len()), Some(i))));
        order.sort();
        for (value, parameter) in order {
            let Some(i) = parameter else {
                self.parts.push(self.part(value));
                late.push(Late::Instruction(self.instruction(value, None, threads)));
                continue;
            };
            let Some(gradient) = gradients[i] else { continue };
            let Gradient { weight, a, d, pull, bias } = gradient;
            let mut part = self.block_part(gradient, std::iter::once(i).chain(bias).collect());
            let data = found.data[i].map(|value| {
                let (operands, output) = (self.program.operands(value), self.placement.array(value).clone());
                let derivative = match &self.program.definitions[value] {
                    Definition::Op { op: Op::Dense(dense), .. } => dense.derivative,
                    _ => None,
                };
                let y = operands.last().map(|&y| self.placement.array(y).clone());
                (output, derivative.zip(y))
            });
            if let Some(value) = found.data[i] {
                let Part { name, reads, writes, .. } = self.part(value);
                part.name = format!("{name}+{}", part.name);
                part.reads
                    .extend(reads.into_iter().filter(|read| ![a, d].map(|v| self.owner[v]).contains(read)));
                part.writes = writes;
            }
            let name = part.name.clone();
            self.parts.push(part);
            late.push(Late::Update(Box::new(FewUpdate {
                weight,
                rule: trained[i].rule,
                a: self.placement.array(a).clone(),
                d: self.placement.array(d).clone(),
                pull: pull.map(|pull| (pull.factor, self.placement.array(pull.scale).clone())),
                bias: bias.map(|bias| BiasUpdate::new(&trained[bias])),
                data,
                threads,
                name,
            })));
        }
        late
    }
}
