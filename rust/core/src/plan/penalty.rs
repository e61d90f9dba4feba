//! The L2 penalty on a weight that the plan keeps packed: `w.square().sum(0)` is read off the panels, and what it
//! adds to the gradient is added as the gradient is finished. Both have the bits of their ops.

use super::memory::Views;
use super::trace::{Definition, Leaf, Program, ValueId};
use crate::buffer::Array;
use crate::op::{Binary, Op, Reduce, ReduceKind, Unary};

/// What a penalty adds to the gradient: `(w factor) scale`.
#[derive(Clone, Copy)]
pub(super) struct Pull {
    pub(super) factor: f64,
    /// A value that is the same everywhere.
    pub(super) scale: ValueId,
    /// The value of `w factor`, which alone reads the weight.
    pub(super) reader: ValueId,
}

/// A gradient that is the sum of another one and a penalty's: the other one, the penalty's, and the values that
/// nothing else needs.
pub(super) fn penalised(
    program: &Program,
    views: &Views,
    leaf: ValueId,
    gradient: ValueId,
) -> Option<(ValueId, Pull, Vec<ValueId>)> {
    let Definition::Op { op: Op::Binary(Binary::Add), operands } = &program.definitions[gradient] else {
        return None;
    };
    let &[a, b] = &operands[..] else { return None };
    let (other, (pull, mut inner)) = pull(program, views, leaf, b)
        .map(|found| (a, found))
        .or_else(|| pull(program, views, leaf, a).map(|found| (b, found)))?;
    inner.push(gradient);
    let uses = program.uses();
    let is_same = program.metas[other].shape == program.metas[gradient].shape;
    (is_same && inner.iter().all(|&value| uses[value] == 1)).then_some((other, pull, inner))
}

fn pull(program: &Program, views: &Views, leaf: ValueId, value: ValueId) -> Option<(Pull, Vec<ValueId>)> {
    let Definition::Leaf(Leaf::External(weight)) = &program.definitions[leaf] else { return None };
    let (product, is_turned) = match &program.definitions[value] {
        Definition::Op { op: Op::Permute(order), operands } if order[..] == [1, 0] => (operands[0], true),
        _ => (value, false),
    };
    let Definition::Op { op: Op::Binary(Binary::Mul), operands } = &program.definitions[product] else {
        return None;
    };
    let &[a, b] = &operands[..] else { return None };
    [(a, b), (b, a)].into_iter().find_map(|(scale, reader)| {
        let Definition::Op { op: Op::Unary(Unary::MulScalar(factor)), operands } =
            &program.definitions[reader]
        else {
            return None;
        };
        let view = &views.stand_ins[operands[0]];
        let view = if is_turned { super::products::transpose(view) } else { view.clone() };
        let spread = &views.stand_ins[scale];
        let is_spread =
            (0..spread.shape().rank()).all(|i| spread.shape()[i] == 1 || spread.strides()[i] == 0);
        let found = Pull { factor: *factor, scale, reader };
        let inner = if is_turned { vec![value, product, reader] } else { vec![product, reader] };
        (views.owner[operands[0]] == leaf && is_same_view(&view, weight) && is_spread)
            .then_some((found, inner))
    })
}

fn is_same_view(a: &Array, b: &Array) -> bool {
    a.shape() == b.shape() && a.strides() == b.strides()
}

/// Sums of the squared columns of `matrix`, a view of a leaf that is packed this way: the sums and the squares,
/// which nothing else reads. A single column is summed in another order.
pub(super) fn square_sums(
    program: &Program,
    views: &Views,
    leaf: ValueId,
    matrix: &Array,
) -> Vec<(ValueId, ValueId)> {
    let uses = program.uses();
    let is_sum = |value: &ValueId| {
        let Definition::Op { op: Op::Reduce(Reduce { kind: ReduceKind::Sum, axes: 1, .. }), operands } =
            &program.definitions[*value]
        else {
            return None;
        };
        let squares = operands[0];
        match &program.definitions[squares] {
            Definition::Op { op: Op::Unary(Unary::Square), operands }
                if views.owner[operands[0]] == leaf
                    && is_same_view(&views.stand_ins[operands[0]], matrix)
                    && matrix.shape()[1] > 1
                    && uses[squares] == 1 =>
            {
                Some((*value, squares))
            }
            _ => None,
        }
    };
    (0..program.metas.len()).filter_map(|value| is_sum(&value)).collect()
}
