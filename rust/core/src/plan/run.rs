//! Instructions in order, each over arrays that are fixed when the plan is made.

use super::trace::{Definition, Program};
use super::{fuse, memory};
use crate::buffer::Array;
use crate::error::Result;
use crate::op::{Loss, Op};

/// A compiled program.
pub struct Plan {
    instructions: Vec<Instruction>,
    inputs: Vec<Option<Array>>,
    outputs: Vec<Array>,
}

struct Instruction {
    action: Action,
    operands: Vec<Array>,
    output: Array,
}

enum Action {
    Op(Op),
    LossWithGradient(Loss, Array),
}

/// Operands of all but the widest `cat` fit on the stack.
const INLINE_OPERANDS: usize = 16;

impl Plan {
    /// Compiles a program, with or without fusion: the numbers are the same.
    ///
    /// # Errors
    /// `Memory`.
    pub fn compile(mut program: Program, fused: bool) -> Result<Plan> {
        if fused {
            fuse::fuse(&mut program);
        }
        let placement = memory::place(&program)?;
        let array = |value: usize| placement.arrays[value].clone().expect("an operand is never absorbed");
        let mut instructions = Vec::new();
        for value in (0..program.metas.len()).filter(|&value| placement.is_computed[value]) {
            let operands = program.operands(value).iter().map(|&o| array(o)).collect();
            let action = match &program.definitions[value] {
                Definition::Op { op, .. } => Action::Op(op.clone()),
                Definition::LossWithGradient { loss, gradient, .. } => {
                    Action::LossWithGradient(*loss, array(*gradient))
                }
                Definition::Leaf(_) | Definition::Written => unreachable!("not computed"),
            };
            instructions.push(Instruction { action, operands, output: array(value) });
        }
        let outputs = program.outputs.iter().map(|&o| array(o)).collect();
        Ok(Plan { instructions, inputs: placement.inputs, outputs })
    }

    /// Placeholder i, to be filled before [`Plan::run`]; `None` when the program does not read it.
    pub fn input(&self, i: usize) -> Option<&Array> {
        self.inputs.get(i).and_then(Option::as_ref)
    }

    /// The results, valid until the next run.
    pub fn outputs(&self) -> &[Array] {
        &self.outputs
    }

    /// Names of the instructions, in order: what fused is visible here.
    pub fn instruction_names(&self) -> Vec<String> {
        self.instructions
            .iter()
            .map(|i| match &i.action {
                Action::Op(Op::Dense(dense)) => {
                    let mut name = "matmul".to_owned();
                    if dense.bias {
                        name += "+bias";
                    }
                    if let Some(activation) = dense.activation {
                        name += "+";
                        name += Op::Unary(activation).name();
                    }
                    name
                }
                Action::Op(op) => op.name().to_owned(),
                Action::LossWithGradient(loss, _) => format!("{}+grad", Op::Loss(*loss).name()),
            })
            .collect()
    }

    /// Sets the random streams of this run: mask i of run `step` has stream `step * 2^16 + i`.
    pub fn reseed(&mut self, key: u64, step: u64) {
        let masks = self.instructions.iter_mut().filter_map(|i| match &mut i.action {
            Action::Op(Op::DropoutMask(mask)) => Some(mask),
            _ => None,
        });
        for (i, mask) in masks.enumerate() {
            (mask.key, mask.stream) = (key, step << 16 | i as u64);
        }
    }

    /// Runs all instructions. `poll` is called between them and may stop the run.
    ///
    /// # Errors
    /// Those of the ops, and what `poll` returns.
    pub fn run(&self, poll: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        for instruction in &self.instructions {
            poll()?;
            instruction.run()?;
        }
        Ok(())
    }
}

impl Instruction {
    fn run(&self) -> Result<()> {
        let Some(first) = self.operands.first() else { return self.run_on(&[]) };
        if self.operands.len() > INLINE_OPERANDS {
            return self.run_on(&self.operands.iter().collect::<Vec<_>>());
        }
        let mut operands = [first; INLINE_OPERANDS];
        operands.iter_mut().zip(&self.operands).for_each(|(slot, operand)| *slot = operand);
        self.run_on(&operands[..self.operands.len()])
    }

    fn run_on(&self, operands: &[&Array]) -> Result<()> {
        match &self.action {
            Action::Op(op) => op.run(operands, &self.output),
            Action::LossWithGradient(loss, gradient) => {
                loss.run(operands, Some(&self.output), Some(gradient))
            }
        }
    }
}
