//! What a program multiplies with its weights: the products that read them packed, and the gradients and penalties that
//! their updates take out of it.

use std::collections::HashMap;

use super::compile::Trained;
use super::memory::Views;
use super::penalty::{self, Pull};
use super::schedule::Schedule;
use super::trace::{Definition, Leaf, Program, ValueId};
use super::weights::Weight;
use crate::buffer::Array;
use crate::error::Result;
use crate::op::{Meta, Op, Reduce, ReduceKind};
use crate::shape::Dims;

/// Rows whose multiply-adds take as long as reading the weight: with fewer, that is what a product costs.
pub(super) const READ_ROWS: usize = 6;
/// What an element of a product's result costs beside its multiply-adds.
const ELEMENT_COST: usize = 64;

/// A product whose right operand is a packed weight.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) weight: usize,
    pub(super) transposed: bool,
}

/// The gradient `a^T d` of a packed weight, and what a penalty adds to it.
#[derive(Clone, Copy)]
pub(super) struct Gradient {
    pub(super) weight: usize,
    pub(super) a: ValueId,
    pub(super) d: ValueId,
    pub(super) pull: Option<Pull>,
    /// Which of the trained parameters has the sum of d's rows as its gradient, and is updated beside the weight.
    pub(super) bias: Option<usize>,
}

/// The weights of a program and the products that read them.
#[derive(Default)]
pub(super) struct Products {
    pub(super) weights: Vec<Weight>,
    /// By value.
    pub(super) of: Vec<Option<Product>>,
    /// The leaf of each weight.
    leaves: Vec<ValueId>,
    /// Whether a weight's `k x n` is the leaf's transpose.
    flipped: Vec<bool>,
    /// Values that are the sums of a weight's squared columns, read off its panels.
    pub(super) square_sums: Vec<(ValueId, usize)>,
}

/// The products of by-row phases whose right operand is a leaf.
pub(super) fn find_products(program: &Program, views: &Views, schedule: &Schedule) -> Result<Products> {
    let count = program.metas.len();
    let mut products = Products { of: vec![None; count], ..Products::default() };
    let mut known: HashMap<ValueId, usize> = HashMap::new();
    for value in (0..count).filter(|&value| schedule.is_by_rows(value)) {
        let Definition::Op { op: Op::MatMul | Op::Dense(_), operands } = &program.definitions[value] else {
            continue;
        };
        let (leaf, view) = (views.owner[operands[1]], &views.stand_ins[operands[1]]);
        let Definition::Leaf(Leaf::External(array) | Leaf::Constant(array)) = &program.definitions[leaf]
        else {
            continue;
        };
        let elements = array.shape().elements();
        if array.shape().rank() != 2 || elements == 0 || view.shape().elements() != elements {
            continue;
        }
        let flipped_view = Dims::from_slice(&[array.shape()[1], array.shape()[0]]);
        let flipped_strides = Dims::from_slice(&[array.strides()[1], array.strides()[0]]);
        let flipped = match (view.shape(), view.strides()) {
            (shape, strides) if shape == array.shape() && strides == array.strides() => false,
            (shape, strides) if *shape == flipped_view && *strides == flipped_strides => true,
            _ => continue,
        };
        let number = match known.get(&leaf) {
            Some(&number) => number,
            None => {
                products.weights.push(Weight::new(view.clone())?);
                products.leaves.push(leaf);
                products.flipped.push(flipped);
                known.insert(leaf, products.weights.len() - 1);
                products.weights.len() - 1
            }
        };
        // A square matrix that is its own transposed view by shape still differs by strides.
        let transposed = products.flipped[number] != flipped;
        if transposed {
            products.weights[number].transpose(program.metas[value].shape[0])?;
        }
        products.of[value] = Some(Product { weight: number, transposed });
    }
    Ok(products)
}

impl Products {
    /// Elements of a weight.
    pub(super) fn size(&self, weight: usize) -> usize {
        let layout = self.weights[weight].packed.layout;
        layout.k() * layout.n()
    }

    /// What all products cost, in multiply-adds.
    pub(super) fn cost(&self, program: &Program) -> usize {
        let products = self.of.iter().zip(&program.metas);
        let cost = |(product, meta): (&Option<Product>, &Meta)| {
            let elements = meta.shape.elements();
            Some(self.size((*product)?.weight) * meta.shape[0].max(READ_ROWS) + elements * ELEMENT_COST)
        };
        products.filter_map(cost).sum()
    }

    /// Takes the gradient of a weight out of the program, where it is one product of whole matrices that nothing
    /// else reads, perhaps with a penalty's, and where products and penalties alone read the weight.
    pub(super) fn absorb_gradient(
        &mut self,
        program: &mut Program,
        views: &Views,
        schedule: &Schedule,
        trained: &Trained,
    ) -> Result<Option<Gradient>> {
        let is_ours = |leaf: &ValueId| match &program.definitions[*leaf] {
            Definition::Leaf(Leaf::External(array)) => {
                array.shares_storage(&trained.weight) && array.shape() == trained.weight.shape()
            }
            _ => false,
        };
        let Some(number) = self.leaves.iter().position(is_ours) else { return Ok(None) };
        let leaf = self.leaves[number];
        let whole = program.outputs[trained.output];
        let (output, pull, mut absorbed) = match penalty::penalised(program, views, leaf, whole) {
            Some((output, pull, inner)) => (output, Some(pull), inner),
            None => (whole, None, Vec::new()),
        };
        let (gradient, is_transposed) = match transposed(program, output) {
            Some(operand) => (operand, true),
            None => (output, false),
        };
        let Definition::Op { op: Op::MatMul, operands } = &program.definitions[gradient] else {
            return Ok(None);
        };
        let &[left, right] = &operands[..] else { return Ok(None) };
        // The left factor is the transpose of a matrix of the program, by rows of the batch.
        let Some(lower) = transposed(program, left) else { return Ok(None) };
        let upper = right;
        let is_matrix = |value: ValueId| {
            program.metas[value].shape.rank() == 2 && schedule.is_by_rows(views.owner[value])
        };
        let reads = |value: ValueId| {
            program
                .operands(value)
                .iter()
                .filter(|&&o| views.owner[o] == leaf && views.owner[value] == value)
                .count()
        };
        let square_sums = penalty::square_sums(program, views, leaf, &self.weights[number].original);
        let is_penalty = |value: ValueId| {
            pull.is_some_and(|pull| pull.reader == value) || square_sums.iter().any(|&(_, s)| s == value)
        };
        let is_fit_reader = |value: ValueId| self.of[value].is_some() || is_penalty(value);
        let only_products = (0..program.metas.len())
            .all(|value| reads(value) == 0 || reads(value) == 1 && is_fit_reader(value));
        let sharing = (0..program.metas.len()).filter(|&value| match &program.definitions[value] {
            Definition::Leaf(Leaf::External(array)) => array.shares_storage(&trained.weight),
            _ => false,
        });
        let uses = program.uses();
        let fits = !trained.whole
            && uses[gradient] == 1
            && uses[output] == 1
            && !program.outputs.iter().any(|&o| views.owner[o] == leaf)
            && is_matrix(lower)
            && is_matrix(upper)
            && only_products
            && sharing.count() == 1
            && trained.state.iter().all(|s| s.is_contiguous() && s.shape() == trained.weight.shape());
        if !fits {
            return Ok(None);
        }
        absorbed.extend([gradient, output]);
        for (sums, squares) in square_sums {
            // The panels are read in place of the squares.
            let matrix = program.operands(squares)[0];
            if let Definition::Op { operands, .. } = &mut program.definitions[sums] {
                operands[0] = matrix;
            }
            self.square_sums.push((sums, number));
            absorbed.push(squares);
        }
        absorbed.into_iter().for_each(|value| program.definitions[value] = Definition::Written);
        let flipped = self.flipped[number];
        let matrix = |array: &Array| if flipped { transpose(array) } else { array.clone() };
        self.weights[number].update(trained.state.iter().map(matrix).collect())?;
        let (a, d) = if flipped != is_transposed { (upper, lower) } else { (lower, upper) };
        Ok(Some(Gradient { weight: number, a, d, pull, bias: None }))
    }
}

/// Takes the gradient of a bias out of the program, where it is the sum of the rows of what a weight's gradient is
/// made of: the same pass then reads them for both. A single column is summed in another order.
pub(super) fn absorb_bias(
    program: &mut Program,
    views: &Views,
    gradients: &mut [Option<Gradient>],
    trained: &Trained,
    number: usize,
) -> bool {
    let value = program.outputs[trained.output];
    let sum = views.owner[value];
    let Definition::Op { op: Op::Reduce(Reduce { kind: ReduceKind::Sum, axes: 1, .. }), operands } =
        &program.definitions[sum]
    else {
        return false;
    };
    let d = operands[0];
    let uses = program.uses();
    let is_alone = |value: ValueId| uses[value] == 1;
    // The sum, or one view of it.
    let is_near = sum == value || program.operands(value) == [sum] && is_alone(sum);
    let elements = trained.weight.shape().elements();
    let fits = !trained.whole
        && is_near
        && is_alone(value)
        && elements > 1
        && trained.weight.is_contiguous()
        && trained.state.iter().all(|s| s.is_contiguous() && s.shape() == trained.weight.shape());
    let of = gradients.iter_mut().flatten().find(|gradient| gradient.d == d && gradient.bias.is_none());
    let Some(gradient) = of.filter(|_| fits && program.metas[d].shape[1] == elements) else { return false };
    gradient.bias = Some(number);
    program.definitions[value] = Definition::Written;
    program.definitions[sum] = Definition::Written;
    true
}

/// What a value is the transpose of.
fn transposed(program: &Program, value: ValueId) -> Option<ValueId> {
    match &program.definitions[value] {
        Definition::Op { op: Op::Permute(order), operands } if order[..] == [1, 0] => Some(operands[0]),
        _ => None,
    }
}

pub(super) fn transpose(array: &Array) -> Array {
    let (shape, strides) = (array.shape(), array.strides());
    let flip = |dims: &Dims| Dims::from_slice(&[dims[1], dims[0]]);
    array.view(flip(shape), flip(strides), array.offset())
}
