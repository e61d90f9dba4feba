//! What each part of a step takes: one part after the other on one thread, with a look at the clock between them.

use std::time::Instant;

use ferrograd_kernels::update::Rule;

use super::few::Late;
use super::run::{Action, Batch, Instruction, Plan, Task};
use crate::error::Result;
use crate::op::Op;

/// An instruction over all rows, or the gradient of a parameter with its update.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it computes; a `+` joins what is one pass.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
    /// Multiplications followed by an addition in its matrix product.
    pub multiply_adds: u64,
}

/// Parts in the order in which a step meets them first.
struct Clock<'a> {
    parts: &'a mut Vec<Part>,
}

impl Clock<'_> {
    /// Adds what `run` takes to part `number`.
    fn time(
        &mut self,
        number: usize,
        instruction: impl FnOnce() -> (String, u64),
        run: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let start = Instant::now();
        run()?;
        let seconds = start.elapsed().as_secs_f64();
        let (name, multiply_adds) = instruction();
        match self.parts.get_mut(number) {
            Some(part) => {
                part.seconds += seconds;
                part.multiply_adds += multiply_adds;
            }
            None => self.parts.push(Part { name, seconds, multiply_adds }),
        }
        Ok(())
    }
}

impl Plan {
    /// Runs a step and its updates on this thread and adds what each part takes to `parts`, which are empty or those
    /// of an earlier step. The numbers are those of a run; what a model assigns to buffers is not kept.
    ///
    /// # Errors
    /// Those of the ops and the tables.
    pub fn profile(&mut self, batch: Batch, rules: &[Rule], parts: &mut Vec<Part>) -> Result<()> {
        let (mut clock, mut first) = (Clock { parts }, 0);
        for phase in &self.phases {
            let blocks = phase.blocks();
            for block in blocks {
                for (i, instruction) in block.iter().enumerate() {
                    let run = || instruction.run(batch, &self.weights);
                    clock.time(first + i, || self.described(instruction), run)?;
                }
            }
            first += blocks.first().map_or(0, Vec::len);
        }
        for (i, late) in self.late.iter().enumerate() {
            let described = || match late {
                Late::Instruction(instruction) => self.described(instruction),
                Late::Update(update) => (update.name.clone(), update.multiply_adds(&self.weights)),
            };
            clock.time(first + i, described, || late.run(&self.weights, rules))?;
        }
        first += self.late.len();
        // The blocks of a weight are a part, as many threads as they were cut for.
        let mut places = vec![None; self.weights.len()];
        let mut next = first;
        let mut new = || {
            next += 1;
            next - 1
        };
        for task in &self.tasks {
            match task {
                Task::Block(block) => {
                    let place = *places[block.weight()].get_or_insert_with(&mut new);
                    let run = || block.run(&self.weights, rules);
                    clock.time(
                        place,
                        || (block.name(), block.multiply_adds(&self.weights[block.weight()].packed.layout)),
                        run,
                    )?;
                }
                Task::Small(small) => {
                    let (instruction, update) = &**small;
                    let run = || {
                        instruction.run(Batch { rows: &[], tables: &[] }, &self.weights)?;
                        update.run(rules)
                    };
                    let (name, multiply_adds) = self.described(instruction);
                    clock.time(new(), || (format!("{name}+update"), multiply_adds), run)?;
                }
                Task::Nothing => {}
            }
        }
        for update in &self.updates {
            clock.time(new(), || ("update".to_owned(), 0), || update.run(rules))?;
        }
        self.set_ahead();
        Ok(())
    }

    /// The name of an instruction and the multiply-adds of its product.
    fn described(&self, instruction: &Instruction) -> (String, u64) {
        match &instruction.action {
            Action::Op(op) => (op.name().to_owned(), 0),
            Action::Checked(checked) => (checked.0.name().to_owned(), 0),
            Action::LossWithGradient(loss, ..) => (format!("{}+grad", Op::Loss(*loss).name()), 0),
            Action::Product { dense, weight, .. } => {
                let layout = self.weights[*weight].packed.layout;
                let rows = instruction.operands[0].shape()[0];
                (dense.name(), (rows * layout.k() * layout.n()) as u64)
            }
            Action::SquareSums { .. } => ("sum".to_owned(), 0),
            Action::Gather(..) => ("gather".to_owned(), 0),
        }
    }
}
