//! From a program to a plan: patterns fused, weights packed, values placed, phases cut into blocks.

use std::ops::Range;

use ferrograd_kernels::gemm::panels::{FEW_ROWS, GRADIENT_ROWS, cut};
use ferrograd_kernels::pool;

use super::few;
use super::fuse;
use super::memory::{self, Placement, Views};
use super::outline::{self, Outline, Part};
use super::products::{Gradient, Product, Products, READ_ROWS, absorb_bias, find_products};
use super::run::{self, Action, Instruction, Phase, Plan, Task};
use super::schedule::Schedule;
use super::trace::{Definition, Leaf, Program, ValueId};
use super::update::{self, BiasUpdate, BlockUpdate, Update};
use super::weights::Kept;
use crate::anomaly::{self, Check};
use crate::buffer::Array;
use crate::error::Result;
use crate::op::{Dense, Op};

/// A parameter that the plan updates with one of the program's outputs as its gradient.
pub struct Trained {
    /// The parameter, contiguous.
    pub weight: Array,
    /// Which of the program's outputs is its gradient.
    pub output: usize,
    /// Which rule updates it.
    pub rule: usize,
    /// What the rule remembers of each element.
    pub state: Vec<Array>,
    /// Whether the rule needs the whole gradient at once.
    pub whole: bool,
}

/// Cost of a step, in multiply-adds, below which the calling thread works alone: about 60 us. Meetings cost 1 us;
/// the lines that the threads' caches hand each other cost more.
const PARALLEL_COST: usize = 3_000_000;
/// Multiply-adds of a product below which it is not worth a meeting.
const PANELS_COST: usize = 250_000;
/// Rows of a block, at most: their activations stay in L2.
const BLOCK_ROWS: usize = 128;
/// Rows of a block, at least, where threads ask for more blocks.
const LEAST_ROWS: usize = 4;
/// Tasks of the updates for each thread, so that a late one takes fewer.
const TASKS_PER_THREAD: usize = 4;

/// Compiles a program. Without `fused` its ops run one by one: the numbers are the same. So they do where anomalies
/// are looked for, each result on its way.
pub(super) fn compile(
    mut program: Program,
    trained: Vec<Trained>,
    fused: bool,
    shared: &Kept,
) -> Result<Plan> {
    let check = anomaly::looked_for();
    let fused = fused && check.is_none();
    let none = vec![false; program.metas.len()];
    let draws = program.definitions.iter_mut().filter_map(|definition| match definition {
        Definition::Op { op: Op::Draw(draw), .. } => Some(draw),
        _ => None,
    });
    draws.enumerate().for_each(|(i, draw)| draw.stream = i as u64);
    if fused {
        fuse::fuse(&mut program)?;
    }
    let views = Views::new(&program, &none)?;
    let rows =
        program.definitions.iter().zip(&program.metas).find_map(|(definition, meta)| match definition {
            Definition::Leaf(Leaf::Input(_)) => meta.shape.first().copied(),
            _ => None,
        });
    let schedule = |program: &Program, views: &Views| match rows {
        Some(rows) if fused => Schedule::by_rows(program, views, rows),
        _ => Schedule::sequential(program, views),
    };
    let first = schedule(&program, &views);
    let mut products = find_products(&program, &views, &first)?;
    let mut gradients = vec![None; trained.len()];
    if fused {
        for (gradient, trained) in gradients.iter_mut().zip(&trained) {
            *gradient = products.absorb_gradient(&mut program, &views, &first, trained)?;
        }
    }
    let mut is_beside = vec![false; trained.len()];
    if fused {
        for (i, trained) in trained.iter().enumerate() {
            is_beside[i] =
                gradients[i].is_none() && absorb_bias(&mut program, &views, &mut gradients, trained, i);
        }
    }
    // Without the absorbed gradients fewer values are outputs.
    let shown = program.outputs.len() - trained.len();
    let scale = |g: &Gradient| g.pull.map(|pull| pull.scale);
    let mut kept: Vec<ValueId> =
        gradients.iter().flatten().flat_map(|g| [g.a, g.d].into_iter().chain(scale(g))).collect();
    let is_left = |i: &usize| gradients[*i].is_none() && !is_beside[*i];
    let left: Vec<usize> = (0..trained.len()).filter(is_left).collect();
    let all = std::mem::take(&mut program.outputs);
    let stored = left.iter().map(|&i| all[trained[i].output]);
    program.outputs = all[..shown].iter().copied().chain(stored).collect();
    let is_few = fused && rows.is_some_and(|rows| (1..=FEW_ROWS).contains(&rows));
    let few = if is_few { &gradients[..] } else { &[] };
    let late = few::find(&program, &views, &products, few, &trained, &program.outputs);
    for (gradient, _) in gradients.iter().zip(&late.data).filter(|(_, data)| data.is_some()) {
        gradient.iter().for_each(|gradient| products.weights[gradient.weight].transposed = None);
    }
    products.weights.iter_mut().for_each(|weight| weight.share(shared));
    for value in (0..program.metas.len()).filter(|&value| late.is_late[value]) {
        kept.push(value);
        kept.extend(program.operands(value));
    }
    let schedule = schedule(&program, &views);
    // A bias gradient and the like: one thread reduces and updates while others update blocks.
    let uses = program.uses();
    let mut is_moved = vec![false; uses.len()];
    for trained in left.iter().map(|&i| &trained[i]).filter(|trained| fused && !trained.whole) {
        // Perhaps seen through a reshape.
        let value = views.owner[all[trained.output]];
        let is_reduction = matches!(program.definitions[value], Definition::Op { op: Op::Reduce(_), .. });
        if is_reduction
            && uses[value] == 1
            && schedule.phase[value].is_some_and(|phase| phase.is_multiple_of(2))
        {
            is_moved[value] = true;
            kept.extend(program.operands(value));
        }
    }
    let is_product: Vec<bool> = products.of.iter().map(Option::is_some).collect();
    let padded = memory::padded(&program, &views, &schedule, &is_product);
    let views = Views::new(&program, &padded)?;
    let owner = views.owner.clone();
    let placement = memory::place(&program, views, &schedule, &kept)?;

    let cost = products.cost(&program)
        + gradients
            .iter()
            .flatten()
            .map(|g| products.size(g.weight) * rows.unwrap_or(1).max(READ_ROWS))
            .sum::<usize>();
    let threads = if cost < PARALLEL_COST { 1 } else { pool::num_threads() };
    let mut builder =
        Builder { program, schedule, placement, padded, products, check, owner, parts: Vec::new() };
    let mut shares: Vec<Vec<(usize, Task)>> = (0..threads).map(|_| Vec::new()).collect();
    let (mut updates, mut last) = (Vec::new(), Vec::new());
    let steps = builder.late(&late, &gradients, &trained, threads);
    let is_elsewhere: Vec<bool> = (0..is_moved.len()).map(|v| is_moved[v] || late.is_late[v]).collect();
    for (i, parameter) in trained.iter().enumerate().filter(|&(i, _)| !is_beside[i]) {
        let value = all[parameter.output];
        match gradients[i] {
            Some(_) if is_few => {}
            Some(gradient) => {
                let bias = gradient.bias.map(|bias| &trained[bias]);
                builder.add_blocks(gradient, parameter.rule, bias, cost, &mut shares);
                let updates = std::iter::once(i).chain(gradient.bias).collect();
                builder.parts.push(builder.block_part(gradient, updates));
            }
            None => {
                let update = Update {
                    weight: parameter.weight.clone(),
                    gradient: builder.placement.array(value).clone(),
                    rule: parameter.rule,
                    state: parameter.state.clone(),
                };
                let source = builder.owner[value];
                if is_moved[source] {
                    let instruction = builder.instruction(source, None, 1);
                    let part = builder.part(source);
                    let name = format!("{}+update", part.name);
                    builder.parts.push(Part { name, writes: Vec::new(), updates: vec![i], ..part });
                    let least = shares.iter_mut().min_by_key(|share| share.len()).expect("a thread");
                    least.push((0, Task::Small(Box::new((instruction, update)))));
                } else {
                    updates.push(update);
                    let name = "update".to_owned();
                    last.push(Part { name, reads: vec![source], writes: Vec::new(), updates: vec![i] });
                }
            }
        }
    }
    let length = shares.iter().map(Vec::len).max().unwrap_or(0);
    let tasks = shares.into_iter().flat_map(|mut share| {
        // The longest first.
        share.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        let fill = length - share.len();
        share.into_iter().map(|(_, task)| task).chain((0..fill).map(|_| Task::Nothing))
    });
    let tasks = tasks.collect();
    let updated = std::mem::take(&mut builder.parts);
    let phases: Vec<_> = (0..builder.schedule.count)
        .flat_map(|number| builder.phases(number, &is_elsewhere, rows.unwrap_or(1), threads))
        .collect();
    let parts: Vec<Part> = builder.parts.into_iter().chain(updated).chain(last).collect();
    let shown_values = all[..shown].iter().map(|&value| builder.owner[value]).collect();
    let outline = Outline { parts, values: outline::values(&builder.program), outputs: shown_values };
    let outputs = all[..shown].iter().map(|&o| builder.placement.array(o).clone()).collect();
    let gradients = all[shown..].iter().map(|&o| builder.placement.arrays[o].clone()).collect();
    let inputs = builder.placement.inputs;
    Ok(Plan {
        draws: run::draws(&phases),
        phases,
        late: steps,
        tasks,
        updates,
        weights: builder.products.weights,
        inputs,
        outputs,
        gradients,
        outline,
        threads,
    })
}

pub(super) struct Builder {
    pub(super) program: Program,
    pub(super) schedule: Schedule,
    pub(super) placement: Placement,
    padded: Vec<bool>,
    products: Products,
    check: Option<Check>,
    /// What each value shows.
    pub(super) owner: Vec<ValueId>,
    pub(super) parts: Vec<Part>,
}

impl Builder {
    /// Updates of the blocks of a weight, in about as many tasks as its share of the step's cost asks for. A thread
    /// gets the panels that it also takes in a product that is split by panels.
    fn add_blocks(
        &mut self,
        Gradient { weight, a, d, pull, .. }: Gradient,
        rule: usize,
        bias: Option<&Trained>,
        total: usize,
        shares: &mut [Vec<(usize, Task)>],
    ) {
        let bias = bias.map(BiasUpdate::new);
        let threads = shares.len();
        let layout = self.products.weights[weight].packed.layout;
        let (a, d) = (self.placement.array(a).clone(), self.placement.array(d).clone());
        let pull = pull.map(|pull| (pull.factor, self.placement.array(pull.scale).clone()));
        let blocks = layout.k().div_ceil(GRADIENT_ROWS);
        let cost = layout.k() * layout.n() * a.shape()[0];
        let by_panels = threads.min(layout.count());
        let tasks = if threads == 1 { 1 } else { (cost * TASKS_PER_THREAD).div_ceil(total.max(1)) };
        let by_rows =
            if by_panels < threads { tasks * threads.div_ceil(by_panels) } else { tasks }.clamp(1, blocks);
        let row = |i: usize| (blocks * i / by_rows * GRADIENT_ROWS).min(layout.k());
        for i in 0..by_panels {
            for j in 0..by_rows {
                let source = (weight, &self.products.weights[weight]);
                let panels = cut(layout.count(), by_panels, i);
                let block =
                    BlockUpdate::new(source, rule, (&a, &d), &pull, &bias, panels, row(j)..row(j + 1));
                let thread =
                    if by_panels < threads { (i * by_rows + j) * threads / (by_panels * by_rows) } else { i };
                shares[thread].push((block.cost(), Task::Block(block)));
            }
        }
    }

    /// What runs in a phase: by rows, interrupted by products that are split by panels.
    fn phases(&mut self, number: usize, is_moved: &[bool], rows: usize, threads: usize) -> Vec<Phase> {
        let values: Vec<ValueId> = (0..self.program.metas.len())
            .filter(|&v| self.schedule.phase[v] == Some(number) && !is_moved[v])
            .filter(|&v| !matches!(self.program.definitions[v], Definition::Written))
            .collect();
        for &value in &values {
            if !matches!(self.program.definitions[value], Definition::Leaf(_)) {
                self.parts.push(self.part(value));
            }
        }
        if number.is_multiple_of(2) {
            let instructions: Vec<_> = values.iter().map(|&v| self.instruction(v, None, threads)).collect();
            return if instructions.is_empty() { Vec::new() } else { vec![Phase::Whole(instructions)] };
        }
        let mut phases = Vec::new();
        for part in values.chunk_by(|&a, &b| !self.is_by_panels(a, threads) && !self.is_by_panels(b, threads))
        {
            if self.is_by_panels(part[0], threads) {
                phases.push(Phase::Whole(vec![self.instruction(part[0], None, threads)]));
                continue;
            }
            let least = rows.div_ceil(BLOCK_ROWS).next_multiple_of(threads);
            let blocks = least.min((rows / LEAST_ROWS).max(1));
            let block =
                |i: usize| part.iter().map(|&v| self.instruction(v, Some(cut(rows, blocks, i)), 1)).collect();
            phases.push(Phase::Rows((0..blocks).map(block).collect()));
        }
        phases
    }

    /// Whether threads split a product by the panels of its weight: where that moves less between their caches. By
    /// rows, each reads what the other updated of the weight, and takes its own part back for the next update; by
    /// panels, operand and result move instead.
    fn is_by_panels(&self, value: ValueId, threads: usize) -> bool {
        let Some(product) = self.products.of[value] else { return false };
        let weight = &self.products.weights[product.weight];
        let layout = weight.packed.layout;
        let layout = if product.transposed { layout.transposed() } else { layout };
        let rows = self.program.metas[value].shape[0];
        let moves = if weight.is_updated { 2 } else { 1 };
        threads > 1
            && layout.count() >= threads
            && rows * (layout.k() + layout.n()) < layout.k() * layout.n() * moves
            && rows.max(READ_ROWS) * layout.k() * layout.n() >= PANELS_COST
    }

    fn name(&self, value: ValueId) -> String {
        match &self.program.definitions[value] {
            Definition::Op { op: Op::Dense(dense), .. } => dense.name(),
            Definition::Op { op, .. } => op.name().to_owned(),
            Definition::LossWithGradient { loss, .. } => format!("{}+grad", Op::Loss(*loss).name()),
            Definition::Leaf(_) | Definition::Written => String::new(),
        }
    }

    /// The instruction of a value, to be drawn.
    pub(super) fn part(&self, value: ValueId) -> Part {
        Part::of(&self.program, &self.owner, self.name(value), value)
    }

    /// The updates of a weight's blocks, to be drawn.
    pub(super) fn block_part(
        &self,
        Gradient { a, d, pull, bias, .. }: Gradient,
        updates: Vec<usize>,
    ) -> Part {
        let read = [a, d].into_iter().chain(pull.map(|pull| pull.scale));
        let reads = read.map(|value| self.owner[value]).collect();
        Part { name: update::name(pull.is_some(), bias.is_some()), reads, writes: Vec::new(), updates }
    }

    /// The instruction of a value for all rows or a block of them.
    pub(super) fn instruction(
        &self,
        value: ValueId,
        rows: Option<Range<usize>>,
        threads: usize,
    ) -> Instruction {
        use super::rows::Use;
        let placement = &self.placement;
        let result = |value: ValueId| match &rows {
            Some(rows) => placement.rows(value, rows.clone()),
            None => placement.array(value).clone(),
        };
        let uses = self.schedule.uses[value].as_ref();
        let mut operands: Vec<Array> = self
            .program
            .operands(value)
            .iter()
            .enumerate()
            .map(|(i, &operand)| match &rows {
                Some(rows) if uses.is_some_and(|uses| uses[i] == Use::Rows) => {
                    placement.rows(operand, rows.clone())
                }
                _ => placement.array(operand).clone(),
            })
            .collect();
        let mut output = result(value);
        if let Some(&(_, weight)) = self.products.square_sums.iter().find(|(sums, _)| *sums == value) {
            let action = Action::SquareSums { weight, threads };
            return Instruction { action, operands: Vec::new(), output };
        }
        let action = match (&self.program.definitions[value], self.products.of[value]) {
            (Definition::Op { op, .. }, Some(Product { weight, transposed })) => {
                operands.remove(1);
                if self.padded[value] {
                    let all = 0..output.shape()[0];
                    output = placement.frame(value, rows.clone().unwrap_or(all));
                }
                let dense = if let Op::Dense(dense) = op { *dense } else { Dense::default() };
                Action::Product { dense, weight, transposed, threads }
            }
            (Definition::Op { op: Op::Draw(draw), .. }, None) => Action::Op(Op::Draw(match rows {
                Some(rows) => draw.rows(rows),
                None => draw.clone(),
            })),
            (Definition::Op { op, .. }, None) => match (self.check, &self.program.places[value]) {
                (Some(check), Some(place)) if place.is_whole => {
                    Action::Checked(Box::new((op.clone(), check, place.clone())))
                }
                _ => Action::Op(op.clone()),
            },
            (Definition::LossWithGradient { loss, gradient, is_scaled, .. }, _) => {
                let factor = if *is_scaled { operands.pop() } else { None };
                Action::LossWithGradient(*loss, result(*gradient), factor)
            }
            (Definition::Leaf(Leaf::Input(number)), _) => {
                Action::Gather(*number, rows.unwrap_or(0..output.shape().first().copied().unwrap_or(0)))
            }
            (Definition::Leaf(_) | Definition::Written, _) => unreachable!("not computed"),
        };
        Instruction { action, operands, output }
    }
}
