//! Which instructions work row by row, so that a block of the batch's rows can go through many of them.

use super::trace::{Definition, Program, ValueId};
use crate::op::{Meta, Op};

/// How an instruction that works row by row reads an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Row i of the operand for row i of the result.
    Rows,
    /// All of it for every row.
    Whole,
}

/// How the instruction of a value reads its operands; `None` when its rows depend on one another.
pub(super) fn uses(program: &Program, value: ValueId) -> Option<Vec<Use>> {
    let rows = *program.metas[value].shape.first()?;
    let operands: Vec<Meta> = program.operands(value).iter().map(|&o| program.metas[o]).collect();
    let has_rows = |meta: &Meta| meta.shape.first() == Some(&rows);
    let all = |how: Use| Some(vec![how; operands.len()]);
    match &program.definitions[value] {
        Definition::Op { op, .. } => match op {
            Op::Unary(_) | Op::Cast(_) | Op::Copy => all(Use::Rows),
            Op::Binary(_) | Op::Compare(_) | Op::Where => {
                let rank = program.metas[value].shape.rank();
                // An operand of fewer dimensions, or of one row, is the same for every row.
                let how = |meta: &Meta| {
                    if meta.shape.rank() == rank && has_rows(meta) { Use::Rows } else { Use::Whole }
                };
                Some(operands.iter().map(how).collect())
            }
            Op::MatMul | Op::Dense(_) if operands[0].shape.rank() == 2 && operands[1].shape.rank() == 2 => {
                let mut how = vec![Use::Whole; operands.len()];
                how[0] = Use::Rows;
                if matches!(op, Op::Dense(dense) if dense.derivative.is_some()) {
                    how[operands.len() - 1] = Use::Rows;
                }
                Some(how)
            }
            Op::Reduce(reduce) if reduce.axes & 1 == 0 && has_rows(&operands[0]) => all(Use::Rows),
            Op::Softmax { dim, .. } if *dim != 0 => all(Use::Rows),
            Op::Reshape(_) if has_rows(&operands[0]) => all(Use::Rows),
            Op::Cat { dim } if *dim != 0 => all(Use::Rows),
            Op::Along { dim, .. } if *dim != 0 && operands.iter().all(has_rows) => all(Use::Rows),
            // Each element has a number of its own, whoever draws it.
            Op::Draw(_) => Some(Vec::new()),
            Op::Loss(_) | Op::LossGrad(_) => Some(of_loss(operands.len())),
            _ => None,
        },
        Definition::LossWithGradient { is_scaled, .. } => {
            let mut uses = of_loss(operands.len());
            if let (true, Some(factor)) = (is_scaled, operands.last()) {
                let is_each = factor.shape.rank() == 2 && has_rows(factor);
                uses[operands.len() - 1] = if is_each { Use::Rows } else { Use::Whole };
            }
            Some(uses)
        }
        Definition::Leaf(_) | Definition::Written => None,
    }
}

/// Scores and targets by rows; class weights as they are.
fn of_loss(operands: usize) -> Vec<Use> {
    (0..operands).map(|i| if i < 2 { Use::Rows } else { Use::Whole }).collect()
}
