//! A compiled program: phases of instructions over arrays that are fixed when the plan is made, then updates.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use ferrograd_kernels::elementwise::scale_rows;
use ferrograd_kernels::pool;
use ferrograd_kernels::update::Rule;

use super::compile::{self, Trained};
use super::few::Late;
use super::outline::Outline;
use super::trace::Program;
use super::update::{BlockUpdate, Update};
use super::weights::{Kept, Weight};
use crate::anomaly::{self, Check, Place};
use crate::buffer::Array;
use crate::error::{Error, Result};
use crate::for_float;
use crate::op::{Dense, Loss, Op, run_packed};

/// A compiled program.
pub struct Plan {
    pub(super) phases: Vec<Phase>,
    /// What comes before all other updates, one after the other.
    pub(super) late: Vec<Late>,
    /// Updates that one thread makes: the share of each thread, all of one length, one after the other.
    pub(super) tasks: Vec<Task>,
    /// Updates that are spread over the threads.
    pub(super) updates: Vec<Update>,
    pub(super) weights: Vec<Weight>,
    pub(super) inputs: Vec<Option<Array>>,
    pub(super) outputs: Vec<Array>,
    pub(super) gradients: Vec<Option<Array>>,
    pub(super) outline: Outline,
    /// Phase, block and number of each instruction that draws. Its stream's lower 16 bits number the draw.
    pub(super) draws: Vec<(usize, usize, usize)>,
    /// Threads that the phases were cut for.
    pub(super) threads: usize,
}

/// What runs between two meetings of the threads.
pub(super) enum Phase {
    /// One instruction after the other.
    Whole(Vec<Instruction>),
    /// All instructions for one block of rows, by block.
    Rows(Vec<Vec<Instruction>>),
}

impl Phase {
    /// The instructions by block; those of a whole phase are one.
    pub(super) fn blocks(&self) -> &[Vec<Instruction>] {
        match self {
            Phase::Whole(instructions) => std::slice::from_ref(instructions),
            Phase::Rows(blocks) => blocks,
        }
    }
}

/// Where the instructions that draw are.
pub(super) fn draws(phases: &[Phase]) -> Vec<(usize, usize, usize)> {
    let mut found = Vec::new();
    for (i, phase) in phases.iter().enumerate() {
        for (j, block) in phase.blocks().iter().enumerate() {
            let is_draw = |instruction: &Instruction| matches!(instruction.action, Action::Op(Op::Draw(_)));
            found.extend((0..block.len()).filter(|&k| is_draw(&block[k])).map(|k| (i, j, k)));
        }
    }
    found
}

pub(super) struct Instruction {
    pub(super) action: Action,
    pub(super) operands: Vec<Array>,
    pub(super) output: Array,
}

pub(super) enum Action {
    Op(Op),
    /// An op whose result is looked at.
    Checked(Box<(Op, Check, Place)>),
    /// The gradient, and what its rows are multiplied by.
    LossWithGradient(Loss, Array, Option<Array>),
    /// A product with a packed weight, which is not among the operands, on so many threads.
    Product {
        dense: Dense,
        weight: usize,
        transposed: bool,
        threads: usize,
    },
    /// Sums of a packed weight's squared columns, on so many threads.
    SquareSums {
        weight: usize,
        threads: usize,
    },
    /// These rows of the batch of an input.
    Gather(usize, Range<usize>),
}

pub(super) enum Task {
    Block(BlockUpdate),
    /// A gradient and its update.
    Small(Box<(Instruction, Update)>),
    /// Fills a thread's share.
    Nothing,
}

/// A table of samples that lives outside: a numpy array of any dtype and strides.
pub trait Rows: Sync {
    /// Writes the named rows, converted, to `out`: a row for each, every [`Array::row_stride`] elements.
    ///
    /// # Errors
    /// `Shape` when a row does not have the size of a row of `out`.
    fn gather(&self, rows: &[u32], out: &Array) -> Result<()>;
}

/// The rows of a mini-batch and where they come from, by input.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// Names of the rows.
    pub rows: &'a [u32],
    /// A table for each input; an input without one keeps what was written to it.
    pub tables: &'a [&'a dyn Rows],
}

/// Operands of all but the widest `cat` fit on the stack.
const INLINE_OPERANDS: usize = 16;

impl Plan {
    /// Compiles a program that updates nothing, with or without fusion: the numbers are the same.
    ///
    /// # Errors
    /// `Memory`.
    pub fn compile(program: Program, fused: bool) -> Result<Plan> {
        compile::compile(program, Vec::new(), fused, &Kept::default())
    }

    /// Compiles a training step. The gradients are the last outputs of the program, in the order of `trained`.
    /// Weights that are `kept` by plans of the same engine lie where those have them.
    ///
    /// # Errors
    /// `Memory`.
    pub fn compile_training(
        program: Program,
        trained: Vec<Trained>,
        fused: bool,
        kept: &Kept,
    ) -> Result<Plan> {
        compile::compile(program, trained, fused, kept)
    }

    /// Placeholder i; `None` when the program does not read it.
    pub fn input(&self, i: usize) -> Option<&Array> {
        self.inputs.get(i).and_then(Option::as_ref)
    }

    /// The results, valid until the next run.
    pub fn outputs(&self) -> &[Array] {
        &self.outputs
    }

    /// The gradients, in the order of the trained parameters; `None` for those that are never stored.
    pub fn gradients(&self) -> &[Option<Array>] {
        &self.gradients
    }

    /// What reads what, to be drawn.
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// Names of the instructions, in order: what fused is visible here.
    pub fn instruction_names(&self) -> Vec<String> {
        self.outline.parts.iter().map(|part| part.name.clone()).collect()
    }

    /// Sets the random streams of this run: draw i of run `step` has stream `step * 2^16 + i`.
    pub fn reseed(&mut self, key: u64, step: u64) {
        for &(phase, block, number) in &self.draws {
            let instructions = match &mut self.phases[phase] {
                Phase::Whole(instructions) => instructions,
                Phase::Rows(blocks) => &mut blocks[block],
            };
            if let Action::Op(Op::Draw(draw)) = &mut instructions[number].action {
                (draw.key, draw.stream) = (key, step << 16 | draw.stream & 0xffff);
            }
        }
    }

    /// Takes over what was written to the parameters. To be called before a run whenever that may be.
    ///
    /// # Errors
    /// None that a compiled plan can have.
    pub fn load(&mut self) -> Result<()> {
        self.weights.iter().try_for_each(Weight::load)
    }

    /// Writes the parameters and their state to the arrays that the plan was made with.
    ///
    /// # Errors
    /// None that a compiled plan can have.
    pub fn store(&mut self) -> Result<()> {
        self.weights.iter().try_for_each(Weight::store)
    }

    /// As [`Plan::store`], for the weights that `next` has not in the same place.
    pub(crate) fn store_for(&self, next: &Plan) -> Result<()> {
        let apart = |weight: &&Weight| !next.weights.iter().any(|other| other.is(weight));
        self.weights.iter().filter(apart).try_for_each(Weight::store)
    }

    /// Adds the weights that it has packed.
    pub(crate) fn add_to(&self, kept: &mut Kept) {
        kept.0.extend_from_slice(&self.weights);
    }

    /// Runs all but the updates. `poll` is called between instructions, and between blocks of rows where the run
    /// is to be cut into so many `pieces`; it may stop the run. With 0 pieces it is never called.
    ///
    /// # Errors
    /// Those of the ops and the tables, and what `poll` returns.
    pub fn run(&self, batch: Batch, pieces: usize, poll: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let mut poll = || if pieces > 0 { poll() } else { Ok(()) };
        for phase in &self.phases {
            match phase {
                Phase::Whole(instructions) => {
                    for instruction in instructions {
                        poll()?;
                        instruction.run(batch, &self.weights)?;
                    }
                }
                Phase::Rows(blocks) => {
                    let together = blocks.len().div_ceil(pieces.max(1)).next_multiple_of(self.threads);
                    for blocks in blocks.chunks(together.max(1)) {
                        poll()?;
                        self.parallel(blocks.len(), &|block| {
                            blocks[block].iter().try_for_each(|i| i.run(batch, &self.weights))
                        })?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Updates the parameters with the gradients of the last run.
    ///
    /// # Errors
    /// Those of the ops.
    pub fn update(&mut self, rules: &[Rule]) -> Result<()> {
        self.late.iter().try_for_each(|late| late.run(&self.weights, rules))?;
        self.parallel(self.tasks.len(), &|task| match &self.tasks[task] {
            Task::Block(block) => block.run(&self.weights, rules),
            Task::Small(small) => {
                small.0.run(Batch { rows: &[], tables: &[] }, &self.weights)?;
                small.1.run(rules)
            }
            Task::Nothing => Ok(()),
        })?;
        self.updates.iter().try_for_each(|update| update.run(rules))?;
        self.set_ahead();
        Ok(())
    }

    /// Notes that the packed weights have been updated.
    pub(super) fn set_ahead(&mut self) {
        self.weights.iter().for_each(Weight::set_ahead);
    }

    /// Runs tasks on the threads, or on this one where the step is short. Returns the error of the first task
    /// that has one.
    fn parallel(&self, tasks: usize, body: &(dyn Fn(usize) -> Result<()> + Sync)) -> Result<()> {
        if self.threads == 1 {
            return (0..tasks).try_for_each(body);
        }
        let failed: Mutex<Option<(usize, Error)>> = Mutex::new(None);
        pool::parallel(tasks, &|task| {
            if let Err(error) = body(task) {
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                if failed.as_ref().is_none_or(|(first, _)| task < *first) {
                    *failed = Some((task, error));
                }
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), |(_, error)| Err(error))
    }
}

impl Instruction {
    pub(super) fn run(&self, batch: Batch, weights: &[Weight]) -> Result<()> {
        let Some(first) = self.operands.first() else { return self.run_on(&[], batch, weights) };
        if self.operands.len() > INLINE_OPERANDS {
            return self.run_on(&self.operands.iter().collect::<Vec<_>>(), batch, weights);
        }
        let mut operands = [first; INLINE_OPERANDS];
        operands.iter_mut().zip(&self.operands).for_each(|(slot, operand)| *slot = operand);
        self.run_on(&operands[..self.operands.len()], batch, weights)
    }

    fn run_on(&self, operands: &[&Array], batch: Batch, weights: &[Weight]) -> Result<()> {
        match &self.action {
            Action::Op(op) => op.run(operands, &self.output),
            Action::Checked(checked) => {
                let (op, check, place) = &**checked;
                op.run(operands, &self.output)?;
                anomaly::instruction(*check, op.name(), place, operands, &self.output)
            }
            Action::LossWithGradient(loss, gradient, factor) => {
                loss.run(operands, Some(&self.output), Some(gradient))?;
                let Some(factor) = factor else { return Ok(()) };
                for_float!("loss", gradient.dtype(), T => {
                    let stride = match factor.shape().first() {
                        Some(1) | None => 0,
                        Some(_) => factor.strides()[0],
                    };
                    let rows = gradient.shape().first().copied().unwrap_or(1);
                    scale_rows(rows, &mut gradient.write::<T>(), &factor.read::<T>(), stride);
                    Ok(())
                })
            }
            Action::Product { dense, weight, transposed, threads } => {
                let weight = &weights[*weight];
                let (packed, is_turned) = match &weight.transposed {
                    Some(packed) if *transposed => (packed, false),
                    _ => (&weight.packed, *transposed),
                };
                let factor = (&packed.layout, &packed.whole, is_turned);
                run_packed(dense, operands, factor, &self.output, *threads)
            }
            Action::SquareSums { weight, threads } => {
                let packed = &weights[*weight].packed;
                for_float!("square_sums", self.output.dtype(), T => {
                    let (x, mut out) = (packed.whole.read::<T>(), self.output.write::<T>());
                    packed.layout.square_sums(&x, &mut out, *threads > 1);
                    Ok(())
                })
            }
            Action::Gather(input, rows) => match batch.tables.get(*input) {
                Some(table) => table.gather(&batch.rows[rows.clone()], &self.output),
                None => Ok(()),
            },
        }
    }
}
