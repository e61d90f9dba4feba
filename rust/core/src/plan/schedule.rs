//! When each instruction runs: in phases, with the threads meeting between them.
//!
//! Even phases hold instructions that see the whole batch, one after the other, each split over the threads
//! as its kernel sees fit. Odd phases hold instructions that work row by row: the threads take blocks of rows
//! through all of them, with activations hot in cache and nothing to wait for. A dense network makes one odd
//! phase of forward, loss and data gradients; the updates, which come last, are split by `update`.

use super::memory::Views;
use super::rows::{self, Use};
use super::trace::{Definition, Leaf, Program, ValueId};
use crate::buffer::Array;
use crate::op::Op;

/// The phases of a program.
pub(super) struct Schedule {
    /// The phase in which each value is written; leaves from outside and absorbed values have none.
    pub(super) phase: Vec<Option<usize>>,
    /// How each instruction of an odd phase reads its operands.
    pub(super) uses: Vec<Option<Vec<Use>>>,
    /// Number of phases.
    pub(super) count: usize,
}

impl Schedule {
    /// Everything in order in one even phase.
    pub(super) fn sequential(program: &Program, views: &Views) -> Schedule {
        let count = program.definitions.len();
        let mut schedule = Schedule { phase: vec![None; count], uses: vec![None; count], count: 1 };
        for value in 0..count {
            let is_outside =
                matches!(program.definitions[value], Definition::Leaf(Leaf::External(_) | Leaf::Constant(_)));
            let is_written = matches!(program.definitions[value], Definition::Written);
            if views.owner[value] == value && !is_outside && !is_written {
                schedule.set(program, value, 0);
            }
        }
        schedule
    }

    /// As few phases as the dependencies allow, for a batch of `rows`.
    pub(super) fn by_rows(program: &Program, views: &Views, rows: usize) -> Schedule {
        let count = program.definitions.len();
        let mut schedule = Schedule { phase: vec![None; count], uses: vec![None; count], count: 1 };
        for value in 0..count {
            let phase = match &program.definitions[value] {
                // Labels and weights come first, so that what counts them need not wait.
                Definition::Leaf(Leaf::Input(_)) => usize::from(program.metas[value].shape.rank() > 1),
                Definition::Leaf(_) | Definition::Written => continue,
                _ if views.owner[value] != value => continue,
                _ => schedule.earliest(program, value, views, rows),
            };
            schedule.set(program, value, phase);
        }
        schedule
    }

    fn set(&mut self, program: &Program, value: ValueId, phase: usize) {
        self.phase[value] = Some(phase);
        if let Definition::LossWithGradient { gradient, .. } = program.definitions[value] {
            self.phase[gradient] = Some(phase);
        }
        self.count = self.count.max(phase + 1);
    }

    /// Whether a value is written block by block.
    pub(super) fn is_by_rows(&self, value: ValueId) -> bool {
        self.phase[value].is_some_and(|phase| phase % 2 == 1)
    }

    /// The first phase in which a value's operands are there; notes how it reads them where that is an odd one.
    fn earliest(&mut self, program: &Program, value: ValueId, views: &Views, rows: usize) -> usize {
        let operands = program.operands(value);
        let written = |operand: &ValueId| self.phase[views.owner[*operand]];
        let is_draw = matches!(&program.definitions[value], Definition::Op { op: Op::Draw(_), .. });
        let uses = rows::uses(program, value).filter(|uses| {
            let is_by_rows = |operand: &ValueId| written(operand).is_some_and(|phase| phase % 2 == 1);
            let by_rows = || uses.iter().zip(operands).filter(|(how, o)| **how == Use::Rows && is_by_rows(o));
            program.metas[value].shape.first() == Some(&rows)
                && (by_rows().count() > 0 || is_draw)
                && by_rows().all(|(_, &o)| is_aligned(&views.stand_ins[views.owner[o]], &views.stand_ins[o]))
        });
        let Some(uses) = uses else {
            return operands.iter().filter_map(written).map(|p| p.next_multiple_of(2)).max().unwrap_or(0);
        };
        let phases = uses.iter().zip(operands).filter_map(|(how, o)| {
            // All rows of a value are there when its phase is over.
            written(o).map(|phase| if *how == Use::Whole { (phase + 1) | 1 } else { phase | 1 })
        });
        let phase = phases.max().unwrap_or(1);
        self.uses[value] = Some(uses);
        phase
    }
}

/// Whether row i of a view lies in row i of its owner.
fn is_aligned(owner: &Array, view: &Array) -> bool {
    let (rows, pitch) = (owner.shape().first(), owner.row_stride());
    view.shape().first() == rows
        && (rows == Some(&1) || view.strides()[0] == pitch)
        && view.offset() < pitch.max(1)
}
