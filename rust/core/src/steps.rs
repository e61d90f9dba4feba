//! The steps of a computation, for those who look at it. A plain backward frees the values in between, but the ops
//! and their operands stay: the values are computed anew.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::buffer::Array;
use crate::error::{Error, Result};
use crate::op::{Op, Unary};
use crate::tensor::{Node, Operands, Tensor, with_grad_mode};

/// An op or a leaf.
pub struct Step {
    /// The value, connected to those of the operands.
    pub tensor: Tensor,
    /// Places of the operands among the steps.
    pub sources: Vec<usize>,
    /// The number of its node in the graph that was looked at.
    pub id: u64,
    /// The number that is part of the op, as 1 is of `x + 1`.
    pub number: Option<f64>,
}

/// The steps behind `roots`, operands first. With `anew` the values are computed once more, from the leaves as they
/// are now; otherwise they are those that the graph keeps.
///
/// # Errors
/// `Graph` where a value that is needed is kept nowhere; those of the ops.
pub fn steps(roots: &[Tensor], anew: bool) -> Result<Vec<Step>> {
    let mut nodes: BTreeMap<u64, Arc<Node>> = BTreeMap::new();
    let mut pending: Vec<Arc<Node>> = roots.iter().map(|root| root.node().clone()).collect();
    while let Some(node) = pending.pop() {
        if nodes.insert(node.id(), node.clone()).is_none() {
            pending.extend(node.parents().iter().cloned());
        }
    }
    let kept = kept(roots, &nodes);
    let place: HashMap<u64, usize> = nodes.keys().enumerate().map(|(place, &id)| (id, place)).collect();
    let mut steps: Vec<Step> = Vec::with_capacity(nodes.len());
    for (&id, node) in &nodes {
        let sources: Vec<usize> = node.parents().iter().map(|parent| place[&parent.id()]).collect();
        let at_hand = || {
            kept.get(&id).cloned().ok_or_else(|| {
                let name = node.op().map_or("an operand", Op::name);
                Error::Graph(format!(
                    "draw: the value of {name} of shape {} was freed by backward; pass retain_graph=True there, or \
                     a function that computes it",
                    node.shape()
                ))
            })
        };
        let tensor = match node.op() {
            Some(op) if anew && !sources.is_empty() => {
                let inputs: Operands<&Tensor> = sources.iter().map(|&source| &steps[source].tensor).collect();
                again(op, &inputs, node)?
            }
            _ if anew => Tensor::leaf(at_hand()?, node.requires_grad()),
            _ => Tensor::from_parts(node.clone(), at_hand()?),
        };
        steps.push(Step { tensor, sources, id, number: node.op().and_then(number) });
    }
    Ok(steps)
}

/// The result of an op that made a node, of the same operands computed anew.
fn again(op: &Op, inputs: &[&Tensor], node: &Node) -> Result<Tensor> {
    let output = match op.view(inputs[0].array()) {
        Some(view) => view,
        None => {
            let output = Array::stale(node.dtype(), *node.shape())?;
            op.run(&inputs.iter().map(|input| input.array()).collect::<Vec<_>>(), &output)?;
            output
        }
    };
    Ok(with_grad_mode(true, || Tensor::record(op.clone(), inputs, output)))
}

/// The values that somebody holds, by node: whoever made them, or a node that saved them for backward.
fn kept(roots: &[Tensor], nodes: &BTreeMap<u64, Arc<Node>>) -> HashMap<u64, Array> {
    let mut kept: HashMap<u64, Array> =
        roots.iter().map(|root| (root.node().id(), root.array().clone())).collect();
    for (&id, node) in nodes {
        if let Some(value) = node.value() {
            kept.insert(id, value.array().clone());
        }
        let saved = node.saved();
        let Some(saved) = saved.as_ref() else { continue };
        for (parent, array) in node.parents().iter().zip(&saved.inputs) {
            if let Some(array) = array {
                kept.entry(parent.id()).or_insert_with(|| array.clone());
            }
        }
        if let Some(output) = &saved.output {
            kept.entry(id).or_insert_with(|| output.clone());
        }
    }
    kept
}

fn number(op: &Op) -> Option<f64> {
    match op {
        Op::Unary(
            Unary::AddScalar(number)
            | Unary::MulScalar(number)
            | Unary::DivScalar(number)
            | Unary::PowScalar(number),
        ) => Some(*number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::shape::Dims;

    fn scalar(value: f64) -> Tensor {
        Tensor::leaf(Array::scalar(DType::F64, value).unwrap(), true)
    }

    fn values(steps: &[Step]) -> Vec<f64> {
        steps.iter().map(|step| step.tensor.item().unwrap()).collect()
    }

    #[test]
    fn values_that_backward_freed_are_computed_anew() {
        let (x, y) = (scalar(3.0), scalar(-2.0));
        let root = x.mul(&y).unwrap().add_scalar(1.0).unwrap().exp().unwrap();
        let result = root.item().unwrap();
        root.backward(None, false, false).unwrap();
        assert!(steps(std::slice::from_ref(&root), false).is_err());
        let found = steps(std::slice::from_ref(&root), true).unwrap();
        assert_eq!(values(&found), [3.0, -2.0, -6.0, -5.0, result]);
        let numbers: Vec<Option<f64>> = found.iter().map(|step| step.number).collect();
        assert_eq!(numbers, [None, None, None, Some(1.0), None]);
        assert_eq!(found[2].sources, [0, 1]);
        assert_eq!((found[0].id, found[4].id), (x.node().id(), root.node().id()));
        // The new graph can be differentiated, and the old leaves' gradients stay.
        let before = x.grad().unwrap().item().unwrap();
        found[4].tensor.backward(None, false, false).unwrap();
        assert_eq!(found[0].tensor.grad().unwrap().item().unwrap(), before);
        assert_eq!(x.grad().unwrap().item().unwrap(), before);
    }

    #[test]
    fn a_constant_that_nobody_holds_is_named_unless_it_is_small() {
        let x = scalar(2.0);
        let fives = Array::full(DType::F64, Dims::from_slice(&[9]), 5.0).unwrap();
        let root = x.mul(&Tensor::constant(fives)).unwrap().mean(&[], false).unwrap();
        // The count that the mean divides by is kept.
        let found = steps(std::slice::from_ref(&root), true).unwrap();
        assert_eq!(found.last().unwrap().tensor.item().unwrap(), 10.0);
        drop(found);
        root.backward(None, false, false).unwrap();
        let error = steps(&[root], true).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("retain_graph=True"), "{error}");
    }
}
