//! What eager mode has recorded behind a result: products made, values kept for backward.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::count;
use crate::tensor::{Node, Tensor};

/// A recorded op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Number of its node: creation order.
    pub id: u64,
    /// Multiplications followed by an addition in its matrix product; 0 for other ops.
    pub multiply_adds: u64,
    /// Bytes that it keeps for backward, without those of leaves and those that an older op keeps.
    pub kept_bytes: u64,
}

/// The ops behind `roots`, in creation order.
pub fn recorded(roots: &[Tensor]) -> Vec<Recorded> {
    let mut nodes: BTreeMap<u64, Arc<Node>> = BTreeMap::new();
    let mut pending: Vec<Arc<Node>> = roots.iter().map(|root| root.node().clone()).collect();
    while let Some(node) = pending.pop() {
        if nodes.insert(node.id(), node.clone()).is_none() {
            pending.extend(node.parents().iter().cloned());
        }
    }
    // Parameters and data live anyway.
    let mut known: HashSet<usize> = nodes
        .values()
        .filter(|node| node.op().is_none())
        .filter_map(|node| node.value().map(|value| value.array().storage_key()))
        .collect();
    let ops = nodes.into_values().filter_map(|node| {
        let first = node.parents().first().map(|parent| parent.shape());
        let multiply_adds = count::multiply_adds(node.op()?, first, node.shape());
        let slot = node.saved();
        let arrays = slot.iter().flat_map(|saved| saved.inputs.iter().flatten().chain(&saved.output));
        let fresh = arrays.filter(|array| known.insert(array.storage_key()));
        let kept_bytes = fresh.map(|array| array.storage().bytes() as u64).sum();
        Some(Recorded { id: node.id(), multiply_adds, kept_bytes })
    });
    ops.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Array;
    use crate::dtype::DType;
    use crate::shape::Dims;

    #[test]
    fn products_are_counted_and_values_kept_once() {
        let ones = |shape: &[usize]| Array::full(DType::F64, Dims::from_slice(shape), 1.0).unwrap();
        let (x, weight) = (Tensor::constant(ones(&[5, 3])), Tensor::leaf(ones(&[3, 2]), true));
        let hidden = x.matmul(&weight).unwrap();
        let square = hidden.mul(&hidden).unwrap();
        let found = recorded(std::slice::from_ref(&square));
        assert_eq!(found.iter().map(|op| op.multiply_adds).collect::<Vec<_>>(), [30, 0]);
        // The product keeps its operands, which are leaves; the square keeps the product, once.
        assert_eq!(found.iter().map(|op| op.kept_bytes).collect::<Vec<_>>(), [0, 80]);
        assert_eq!(found[1].id, square.node().id());
        assert!(crate::tensor::last_id() >= found[1].id);
    }
}
