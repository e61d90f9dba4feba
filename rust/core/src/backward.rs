//! Reverse mode: the one place where gradients are added up.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::iter::once;
use std::sync::Arc;

use crate::buffer::Array;
use crate::error::{Error, Result};
use crate::op::{Gradients, Op};
use crate::shape::Dims;
use crate::tensor::{Node, Operands, Tensor, with_grad_mode};
use crate::{anomaly, count};

/// What a vjp rule sees: the node's operands, its result and the upstream gradient. A jvp rule sees the same,
/// with the tangent of an operand for the gradient.
#[derive(Clone, Copy)]
pub struct Vjp<'a> {
    pub(crate) node: &'a Arc<Node>,
    pub(crate) values: &'a Values,
    pub(crate) grad: &'a Tensor,
}

/// The saved operands and the saved result.
pub(crate) type Values = (Operands<Option<Array>>, Option<Array>);

impl Vjp<'_> {
    /// The gradient of the output.
    pub fn grad(&self) -> &Tensor {
        self.grad
    }

    /// Operand `i`, connected to the graph. The op's `saves` must list it.
    pub fn input(&self, i: usize) -> Tensor {
        let array = self.values.0[i].clone().expect("the op declares which operands its vjp reads");
        Tensor::from_parts(self.node.parents()[i].clone(), array)
    }

    /// The output, connected to the graph. The op's `saves` must list it.
    pub fn output(&self) -> Tensor {
        let array = self.values.1.clone().expect("the op declares that its vjp reads the output");
        Tensor::from_parts(self.node.clone(), array)
    }

    /// Shape of operand `i`.
    pub fn shape(&self, i: usize) -> &Dims {
        self.node.parents()[i].shape()
    }

    /// Shape of the result.
    pub fn result_shape(&self) -> &Dims {
        self.node.shape()
    }

    /// Dtype of operand `i`.
    pub fn dtype(&self, i: usize) -> crate::dtype::DType {
        self.node.parents()[i].dtype()
    }

    /// Whether operand `i` wants a gradient.
    pub fn needs(&self, i: usize) -> bool {
        self.node.parents()[i].requires_grad()
    }

    /// Number of operands.
    pub fn arity(&self) -> usize {
        self.node.parents().len()
    }
}

/// A contribution that waits for its node's turn: the heap hands out the latest node first, and a
/// node's contributions in the order of their making.
struct Pending {
    node: Arc<Node>,
    made: usize,
    grad: Tensor,
}

impl Pending {
    fn key(&self) -> (u64, Reverse<usize>) {
        (self.node.id(), Reverse(self.made))
    }
}

impl PartialEq for Pending {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Pending {}
impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Pending {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// Walks from `roots` in reverse creation order and calls `arrive` with each node's whole gradient.
///
/// Contributions wait in a heap keyed by creation order; when a node comes up all its consumers are
/// done, and its contributions are added in the order of their making. Its hooks see the sum.
fn walk(
    roots: Vec<(Tensor, Tensor)>,
    retain_graph: bool,
    wanted: &dyn Fn(&Node) -> bool,
    arrive: &mut dyn FnMut(&Arc<Node>, &Tensor) -> Result<()>,
) -> Result<()> {
    let mut made = roots.len();
    let mut heap: BinaryHeap<Pending> = roots
        .into_iter()
        .enumerate()
        .map(|(made, (root, grad))| Pending { node: root.node().clone(), made, grad })
        .collect();
    while let Some(Pending { node, grad: mut total, .. }) = heap.pop() {
        total = anomaly::in_pass(&node, || {
            while heap.peek().is_some_and(|next| next.node.id() == node.id()) {
                let next = heap.pop().expect("peeked").grad;
                total = count::as_sum(|| total.add(&next))?;
            }
            node.pass_hooks(total)
        })?;
        anomaly::derivative("backward", &node, &total, [])?;
        anomaly::in_pass(&node, || arrive(&node, &total))?;
        let Some(op) = node.op() else { continue };
        if !node.parents().iter().any(|parent| parent.requires_grad() && wanted(parent)) {
            continue;
        }
        let gradients = vjp(&node, op, &total, retain_graph)?;
        debug_assert_eq!(gradients.len(), node.parents().len(), "{}", op.name());
        for (parent, gradient) in node.parents().iter().zip(gradients) {
            if let Some(gradient) = gradient
                && parent.requires_grad()
            {
                debug_assert_eq!(gradient.shape(), parent.shape(), "gradient of {}", op.name());
                made += 1;
                heap.push(Pending { node: parent.clone(), made, grad: gradient });
            }
        }
    }
    Ok(())
}

fn vjp(node: &Arc<Node>, op: &Op, grad: &Tensor, retain_graph: bool) -> Result<Gradients> {
    let values = &saved("backward", node, op, retain_graph)?;
    let gradients = anomaly::in_pass(node, || op.vjp(&Vjp { node, values, grad }))?;
    if anomaly::check().is_some() {
        for (parent, gradient) in node.parents().iter().zip(&gradients) {
            if let Some(gradient) = gradient
                && parent.requires_grad()
            {
                let known = values.0.iter().flatten().chain(&values.1);
                anomaly::derivative("backward", node, gradient, once(grad.array()).chain(known))?;
            }
        }
    }
    Ok(gradients)
}

/// What the node saved for its rule, kept there if `retain`.
pub(crate) fn saved(pass: &str, node: &Node, op: &Op, retain: bool) -> Result<Values> {
    let mut slot = node.saved();
    let saved = slot.as_ref().ok_or_else(|| {
        Error::Graph(format!(
            "{pass}: the values saved by {} were freed by an earlier backward; pass retain_graph=True there",
            op.name()
        ))
    })?;
    if !saved.is_intact() {
        return Err(Error::Graph(format!(
            "{pass}: a value that the gradient of {} needs was changed in place after it was used",
            op.name()
        )));
    }
    if retain {
        return Ok((saved.inputs.clone(), saved.output.clone()));
    }
    let saved = slot.take().expect("checked above");
    Ok((saved.inputs, saved.output))
}

impl Tensor {
    /// Accumulates gradients into the leaves (and into results that retain theirs).
    ///
    /// # Errors
    /// `Graph` when nothing requires a gradient, when the tensor has several elements and no
    /// `gradient`, or when the graph was freed; `Shape` when `gradient` does not fit. No gradient has changed then.
    pub fn backward(&self, gradient: Option<&Tensor>, retain_graph: bool, create_graph: bool) -> Result<()> {
        self.backward_to(None, gradient, retain_graph, create_graph)
    }

    /// As [`Tensor::backward`], into `inputs` alone where given.
    ///
    /// # Errors
    /// As [`Tensor::backward`].
    pub fn backward_to(
        &self,
        inputs: Option<&[Tensor]>,
        gradient: Option<&Tensor>,
        retain_graph: bool,
        create_graph: bool,
    ) -> Result<()> {
        let seed = seed("backward", self, gradient)?;
        let wanted: Option<Vec<u64>> = inputs
            .map(|inputs| between(inputs, std::slice::from_ref(self)).iter().map(|node| node.id()).collect());
        let passes = |node: &Node| wanted.as_ref().is_none_or(|ids| ids.binary_search(&node.id()).is_ok());
        let inputs = inputs.map(ids);
        let keeps = |node: &Node| match &inputs {
            Some(inputs) => inputs.contains(&node.id()),
            None => node.keeps_grad(),
        };
        // Added at the end: an error on the way, such as a hook's, leaves every gradient as it was.
        let mut arrived = Vec::new();
        with_grad_mode(create_graph, || {
            walk(vec![(self.clone(), seed)], retain_graph, &passes, &mut |node, grad| {
                if keeps(node) {
                    arrived.push((node.clone(), grad.clone()));
                }
                Ok(())
            })?;
            let total = |(node, grad): (Arc<Node>, Tensor)| {
                let before = node.grad_slot().as_ref().map(|before| before.as_ref().clone());
                let sum = before.map(|before| count::as_sum(|| before.add(&grad))).transpose()?;
                let total = sum.unwrap_or(grad);
                // A gradient that is user-visible owns its memory: the seed and views are shared.
                Ok((node, if create_graph { total } else { total.owned()? }))
            };
            let totals = arrived.into_iter().map(total).collect::<Result<Vec<_>>>()?;
            totals.into_iter().for_each(|(node, total)| *node.grad_slot() = Some(Box::new(total)));
            Ok(())
        })
    }
}

/// The gradients of `outputs` with respect to `inputs`, without touching `.grad`.
///
/// An input that no output depends on gives `None`.
///
/// # Errors
/// As [`Tensor::backward`].
pub fn grad(
    outputs: &[Tensor],
    inputs: &[Tensor],
    grad_outputs: &[Option<Tensor>],
    retain_graph: bool,
    create_graph: bool,
) -> Result<Vec<Option<Tensor>>> {
    let mut roots = Vec::new();
    for (i, output) in outputs.iter().enumerate() {
        let seed = seed("grad", output, grad_outputs.get(i).and_then(Option::as_ref))?;
        roots.push((output.clone(), seed));
    }
    let mut found: HashMap<u64, Tensor> = HashMap::with_capacity(inputs.len());
    let of = ids(inputs);
    let wanted: Vec<u64> = between(inputs, outputs).iter().map(|node| node.id()).collect();
    with_grad_mode(create_graph, || {
        walk(roots, retain_graph, &|node| wanted.binary_search(&node.id()).is_ok(), &mut |node, grad| {
            if of.contains(&node.id()) {
                found.insert(node.id(), if create_graph { grad.clone() } else { grad.detach() });
            }
            Ok(())
        })
    })?;
    Ok(inputs.iter().map(|input| found.get(&input.node().id()).cloned()).collect())
}

/// The numbers of their nodes.
fn ids(tensors: &[Tensor]) -> HashSet<u64> {
    tensors.iter().map(|tensor| tensor.node().id()).collect()
}

/// Whether a gradient of `outputs` flows to a leaf that is not one of `inputs`, or past them.
pub fn reaches_beyond(outputs: &[Tensor], inputs: &[Tensor]) -> bool {
    let inputs = ids(inputs);
    let is_leaf = |node: &Node| node.requires_grad() && node.op().is_none();
    reached(outputs, 0).iter().any(|node| is_leaf(node) && !inputs.contains(&node.id()))
}

/// The nodes between `inputs` and `outputs`, oldest first: gradients and tangents flow only through them.
pub(crate) fn between(inputs: &[Tensor], outputs: &[Tensor]) -> Vec<Arc<Node>> {
    let inputs = ids(inputs);
    let oldest = inputs.iter().copied().min().unwrap_or(0);
    // A node leads to an input if it is one or a parent does.
    let mut wanted: Vec<Arc<Node>> = Vec::new();
    for node in reached(outputs, oldest).into_iter().rev() {
        let is_wanted = |id: u64| wanted.binary_search_by_key(&id, |node| node.id()).is_ok();
        if inputs.contains(&node.id()) || node.parents().iter().any(|parent| is_wanted(parent.id())) {
            wanted.push(node);
        }
    }
    wanted
}

/// The nodes that gradients of `outputs` flow to and that are not older than `oldest`, latest first.
fn reached(outputs: &[Tensor], oldest: u64) -> Vec<Arc<Node>> {
    let mut nodes: Vec<Arc<Node>> = Vec::new();
    let mut heap: BinaryHeap<(u64, usize)> = BinaryHeap::new();
    let mut arena: Vec<Arc<Node>> = Vec::new();
    for output in outputs {
        heap.push((output.node().id(), arena.len()));
        arena.push(output.node().clone());
    }
    let mut last = None;
    while let Some((id, at)) = heap.pop() {
        if last == Some(id) {
            continue;
        }
        last = Some(id);
        let node = arena[at].clone();
        for parent in node.parents() {
            if parent.requires_grad() && parent.id() >= oldest {
                heap.push((parent.id(), arena.len()));
                arena.push(parent.clone());
            }
        }
        nodes.push(node);
    }
    nodes
}

fn seed(op: &'static str, output: &Tensor, gradient: Option<&Tensor>) -> Result<Tensor> {
    if !output.requires_grad() {
        return Err(Error::Graph(format!("{op}: the output does not require a gradient")));
    }
    match gradient {
        Some(gradient) if gradient.shape() != output.shape() => Err(Error::Shape {
            op,
            expected: format!("a gradient of shape {}", output.shape()),
            got: gradient.shape().to_string(),
        }),
        Some(gradient) => gradient.cast(output.dtype()),
        None if output.shape().elements() != 1 => Err(Error::Graph(format!(
            "{op}: a gradient must be given for an output of shape {}; only a scalar needs none",
            output.shape()
        ))),
        None => Ok(Tensor::constant(Array::full(output.dtype(), *output.shape(), 1.0)?)),
    }
}
