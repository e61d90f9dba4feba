//! Patterns that become one pass. Each keeps the order and rounding of the ops it replaces.

use super::memory::Views;
use super::trace::{Definition, Leaf, Program, ValueId};
use crate::buffer::Array;
use crate::error::Result;
use crate::op::{Activation, Binary, Dense, Op, Unary};

/// Rewrites all patterns.
///
/// # Errors
/// `Memory`.
pub(super) fn fuse(program: &mut Program) -> Result<()> {
    program.put_first_what_rows_share();
    dense(program);
    derivative(program);
    loss_with_gradient(program)
}

/// Activations whose derivative follows from their result: the operand need not be stored.
fn is_activation(op: &Unary) -> bool {
    matches!(op, Unary::Relu | Unary::Sigmoid | Unary::Tanh | Unary::Elu(_))
        || matches!(op, Unary::LeakyRelu(slope) if *slope > 0.0)
}

/// matmul, then + bias, then an activation: applied to each tile of the product.
fn dense(program: &mut Program) {
    let uses = program.uses();
    for value in 0..program.metas.len() {
        let Definition::Op { op, operands } = &program.definitions[value] else { continue };
        match op {
            Op::Binary(Binary::Add) => {
                let &[product, bias] = &operands[..] else { continue };
                let is_product =
                    matches!(program.definitions[product], Definition::Op { op: Op::MatMul, .. });
                let width = program.metas[value].shape.last().copied();
                let is_bias = program.metas[bias].shape.rank() == 1
                    && program.metas[bias].shape.first().copied() == width
                    && is_contiguous_leaf(program, bias);
                if is_product
                    && is_bias
                    && uses[product] == 1
                    && program.metas[product] == program.metas[value]
                {
                    let mut operands = program.operands(product).to_vec();
                    operands.push(bias);
                    absorb(program, value, product, Dense { bias: true, ..Dense::default() }, operands);
                }
            }
            Op::Unary(op) if is_activation(op) => {
                let (op, operand): (Activation, ValueId) = (*op, operands[0]);
                if uses[operand] != 1 {
                    continue;
                }
                let dense = match &program.definitions[operand] {
                    Definition::Op { op: Op::MatMul, .. } => {
                        Dense { activation: Some(op), ..Dense::default() }
                    }
                    Definition::Op { op: Op::Dense(dense), .. } if dense.activation.is_none() => {
                        Dense { activation: Some(op), ..*dense }
                    }
                    _ => continue,
                };
                let operands = program.operands(operand).to_vec();
                absorb(program, value, operand, dense, operands);
            }
            _ => {}
        }
    }
}

fn is_contiguous_leaf(program: &Program, value: ValueId) -> bool {
    match &program.definitions[value] {
        Definition::Leaf(Leaf::External(array) | Leaf::Constant(array)) => array.is_contiguous(),
        _ => false,
    }
}

fn absorb(program: &mut Program, value: ValueId, absorbed: ValueId, dense: Dense, operands: Vec<ValueId>) {
    program.definitions[value] = Definition::Op { op: Op::Dense(dense), operands };
    program.definitions[absorbed] = Definition::Written;
}

/// matmul, then the derivative of the activation below: applied to each tile of the data gradient.
fn derivative(program: &mut Program) {
    let uses = program.uses();
    for value in 0..program.metas.len() {
        let Definition::Op { op: Op::Binary(op), operands } = &program.definitions[value] else { continue };
        let &[product, result] = &operands[..] else { continue };
        let is_derivative = matches!(
            op,
            Binary::ReluGrad
                | Binary::LeakyReluGrad(_)
                | Binary::EluGrad(_)
                | Binary::SigmoidGrad
                | Binary::TanhGrad
        );
        let meta = program.metas[value];
        if is_derivative
            && matches!(program.definitions[product], Definition::Op { op: Op::MatMul, .. })
            && uses[product] == 1
            && program.metas[product] == meta
            && program.metas[result] == meta
            && meta.shape.rank() == 2
        {
            let dense = Dense { derivative: Some(*op), ..Dense::default() };
            let mut operands = program.operands(product).to_vec();
            operands.push(result);
            absorb(program, value, product, dense, operands);
        }
    }
}

/// A loss and its derivative at the same operands, with the factor of the derivative that the rows share or that each
/// row has.
fn loss_with_gradient(program: &mut Program) -> Result<()> {
    let views = Views::new(program, &vec![false; program.metas.len()])?;
    let uses = program.uses();
    for value in 0..program.metas.len() {
        let Definition::Op { op: Op::Loss(loss), operands } = &program.definitions[value] else { continue };
        let twin = (value + 1..program.metas.len()).find(|&other| {
            matches!(&program.definitions[other],
                Definition::Op { op: Op::LossGrad(l), operands: o } if l == loss && o == operands)
        });
        let Some(slope) = twin else { continue };
        let (loss, mut operands) = (*loss, operands.clone());
        let product = (slope + 1..program.metas.len()).find_map(|product| {
            let Definition::Op { op: Op::Binary(Binary::Mul), operands } = &program.definitions[product]
            else {
                return None;
            };
            let &[a, b] = &operands[..] else { return None };
            let factor = if a == slope { b } else { a };
            let is_fit = (a == slope || b == slope)
                && factor < value
                && uses[slope] == 1
                && program.metas[product] == program.metas[slope]
                && is_by_row(&views.stand_ins[factor], program.metas[slope].shape.rank());
            is_fit.then_some((product, factor))
        });
        let is_scaled = product.is_some();
        program.definitions[slope] = Definition::Written;
        let gradient = product.map_or(slope, |(product, factor)| {
            operands.push(factor);
            program.definitions[product] = Definition::Written;
            product
        });
        program.definitions[value] = Definition::LossWithGradient { loss, operands, gradient, is_scaled };
    }
    Ok(())
}

/// Whether a factor of a value of `rank` dimensions is the same for all elements of a row.
fn is_by_row(factor: &Array, rank: usize) -> bool {
    let shape = factor.shape();
    let is_spread = |i: usize| shape[i] == 1 || factor.strides()[i] == 0;
    match shape.rank() {
        0 => true,
        1 => is_spread(0),
        2 => rank == 2 && is_spread(1),
        _ => false,
    }
}
