//! Forward mode: tangents pushed through a recorded graph, in one pass.

use std::collections::HashMap;

use crate::backward::{Vjp, between, saved};
use crate::error::{Error, Result};
use crate::op::Op;
use crate::shape::Dims;
use crate::tensor::{Operands, Tensor, with_grad_mode};
use crate::{anomaly, count};

/// What a jvp rule sees: values as a vjp rule does, and a tangent, or none, for each operand.
pub(crate) struct Jvp<'a> {
    values: Vjp<'a>,
    tangents: &'a [Option<Tensor>],
}

impl<'a> Jvp<'a> {
    /// The tangent of operand `i`; none where it does not depend on what varies.
    pub(crate) fn tangent(&self, i: usize) -> Option<&'a Tensor> {
        self.tangents[i].as_ref()
    }

    /// The values, with `factor` where a vjp rule has the upstream gradient.
    pub(crate) fn with<'b>(&'b self, factor: &'b Tensor) -> Vjp<'b> {
        Vjp { grad: factor, ..self.values }
    }

    /// Operand `i`, connected to the graph. The op's `saves` must list it.
    pub(crate) fn input(&self, i: usize) -> Tensor {
        self.values.input(i)
    }

    /// Shape of operand `i`.
    pub(crate) fn shape(&self, i: usize) -> &Dims {
        self.values.shape(i)
    }

    /// Shape of the result.
    pub(crate) fn result_shape(&self) -> &Dims {
        self.values.result_shape()
    }

    /// Number of operands.
    pub(crate) fn arity(&self) -> usize {
        self.tangents.len()
    }

    /// What the operands add to the tangent of the result: `part` is asked for each operand that has a
    /// tangent.
    pub(crate) fn sum(
        &self,
        part: impl Fn(usize, &Tensor) -> Result<Option<Tensor>>,
    ) -> Result<Option<Tensor>> {
        let mut total: Option<Tensor> = None;
        for (i, tangent) in self.tangents.iter().enumerate() {
            let Some(tangent) = tangent else { continue };
            total = match (total, part(i, tangent)?) {
                (Some(total), Some(part)) => Some(count::as_sum(|| total.add(&part))?),
                (total, part) => total.or(part),
            };
        }
        Ok(total)
    }
}

/// The directional derivatives of `outputs` where `inputs` move along `tangents`: the product with the
/// Jacobian from the right.
///
/// The graph must be recorded; it is read in the order of its making and kept. An output that depends on no
/// input gives `None`.
///
/// # Errors
/// `Shape` when a tangent does not fit its input; `Graph` when an op has no rule or the graph was freed.
pub fn jvp(
    outputs: &[Tensor],
    inputs: &[Tensor],
    tangents: &[Tensor],
    create_graph: bool,
) -> Result<Vec<Option<Tensor>>> {
    for (input, tangent) in inputs.iter().zip(tangents) {
        if input.shape() != tangent.shape() {
            return Err(Error::Shape {
                op: "jvp",
                expected: format!("a tangent of shape {}", input.shape()),
                got: tangent.shape().to_string(),
            });
        }
    }
    let nodes = between(inputs, outputs);
    // The first where a tensor is given twice.
    let given: HashMap<u64, &Tensor> =
        inputs.iter().zip(tangents).rev().map(|(input, tangent)| (input.node().id(), tangent)).collect();
    let place = |id: u64| nodes.binary_search_by_key(&id, |node| node.id()).ok();
    let found: Vec<Option<Tensor>> = with_grad_mode(create_graph, || {
        let mut found: Vec<Option<Tensor>> = Vec::with_capacity(nodes.len());
        for node in &nodes {
            let tangent = match (given.get(&node.id()), node.op()) {
                (Some(tangent), _) => Some(tangent.cast(node.dtype())?),
                (None, Some(op)) => {
                    let of = |id| place(id).and_then(|at: usize| found[at].clone());
                    let moved: Operands<_> = node.parents().iter().map(|parent| of(parent.id())).collect();
                    match moved.iter().flatten().next() {
                        Some(grad) => {
                            let values = &saved("jvp", node, op, true)?;
                            let rule = Jvp { values: Vjp { node, values, grad }, tangents: &moved };
                            let made = anomaly::in_pass(node, || op.jvp(&rule))?;
                            if let Some(made) = &made {
                                let known = values.0.iter().flatten().chain(&values.1);
                                let inputs = moved.iter().flatten().map(Tensor::array).chain(known);
                                anomaly::derivative("jvp", node, made, inputs)?;
                            }
                            made
                        }
                        None => None,
                    }
                }
                (None, None) => None,
            };
            debug_assert!(
                tangent.as_ref().is_none_or(|t| t.shape() == node.shape() && t.dtype() == node.dtype()),
                "tangent of {}",
                node.op().map_or("leaf", Op::name)
            );
            found.push(tangent);
        }
        Ok::<_, Error>(found)
    })?;
    Ok(outputs.iter().map(|output| place(output.node().id()).and_then(|at| found[at].clone())).collect())
}
