//! The explicit graph of the lectures: nodes wired by hand, forward in topological order, backward in
//! its reverse. Gates are built-in ops or the user's objects.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backward;
use crate::buffer::Array;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Gate, apply_gate};
use crate::tensor::{Tensor, with_grad_mode};

/// Position of a node in its graph.
pub type NodeId = usize;

/// One output of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The node.
    pub node: NodeId,
    /// Which of its outputs.
    pub output: usize,
}

/// A built-in op: its name and what it computes.
pub type Builtin = Arc<dyn Fn(&[Tensor]) -> Result<Tensor> + Send + Sync>;

/// What a node does.
#[derive(Clone)]
pub enum Action {
    /// Takes a value from outside.
    Input,
    /// A number; like Python's, it takes its dtype from the operands beside it.
    Constant(f64),
    /// A built-in op; its backward is the op's vjp rule.
    Op(Builtin),
    /// A user's object.
    Gate(Arc<dyn Gate>),
}

struct GraphNode {
    name: String,
    action: Action,
    /// A slot for each operand; `None` until it is connected.
    sources: Vec<Option<Port>>,
    run: Mutex<Run>,
}

/// What the last run left at a node. Behind a lock of its own, so that a gate can look at the graph while
/// it runs.
#[derive(Clone, Default)]
struct Run {
    /// Operands as they went into the op, for its local backward.
    operands: Vec<Tensor>,
    outputs: Vec<Tensor>,
    grads: Vec<Option<Tensor>>,
}

impl GraphNode {
    fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A graph of gates.
#[derive(Default)]
pub struct Graph {
    nodes: Vec<GraphNode>,
}

impl Graph {
    /// Adds a node with the given operands.
    ///
    /// # Errors
    /// `Graph` when the name is taken or a source does not exist.
    pub fn add(
        &mut self,
        name: Option<&str>,
        kind: &str,
        action: Action,
        sources: &[Option<Port>],
    ) -> Result<NodeId> {
        let name = match name {
            Some(name) if self.nodes.iter().any(|node| node.name == name) => {
                return Err(Error::Graph(format!("graph: the name {name:?} is taken")));
            }
            Some(name) => name.to_owned(),
            None => (0..)
                .map(|i| if i == 0 { kind.to_owned() } else { format!("{kind}_{i}") })
                .find(|name| self.nodes.iter().all(|node| node.name != *name))
                .expect("an unused number exists"),
        };
        for source in sources.iter().flatten() {
            self.check_port(*source)?;
        }
        self.nodes.push(GraphNode { name, action, sources: sources.to_vec(), run: Mutex::default() });
        Ok(self.nodes.len() - 1)
    }

    fn check_port(&self, port: Port) -> Result<()> {
        if port.node < self.nodes.len() {
            return Ok(());
        }
        Err(Error::Graph(format!("graph: node {} does not exist", port.node)))
    }

    /// Wires `source` into operand `slot` of `node`, now or again.
    ///
    /// # Errors
    /// `Graph` when a node does not exist, or the target is an input.
    pub fn connect(&mut self, source: Port, node: NodeId, slot: usize) -> Result<()> {
        self.check_port(source)?;
        self.check_port(Port { node, output: 0 })?;
        let node = &mut self.nodes[node];
        if matches!(node.action, Action::Input | Action::Constant(_)) {
            return Err(Error::Graph(format!("graph: {:?} is an input and takes no source", node.name)));
        }
        if node.sources.len() <= slot {
            node.sources.resize(slot + 1, None);
        }
        node.sources[slot] = Some(source);
        Ok(())
    }

    /// The name of a node.
    pub fn name(&self, node: NodeId) -> &str {
        &self.nodes[node].name
    }

    /// The operands of a node; `None` until one is connected.
    pub fn sources(&self, node: NodeId) -> &[Option<Port>] {
        &self.nodes[node].sources
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Nodes that take values from outside, in the order of their making.
    pub fn inputs(&self) -> impl Iterator<Item = NodeId> + '_ {
        (0..self.nodes.len()).filter(|&i| matches!(self.nodes[i].action, Action::Input))
    }

    /// The value of an output after `forward`.
    pub fn value(&self, port: Port) -> Option<Tensor> {
        self.nodes[port.node].run().outputs.get(port.output).map(Tensor::detach)
    }

    /// The gradient of an output after `backward`.
    pub fn grad(&self, port: Port) -> Option<Tensor> {
        self.nodes[port.node].run().grads.get(port.output).cloned().flatten()
    }

    /// Nodes such that each comes after its sources; among the ready ones the earliest made comes first.
    ///
    /// # Errors
    /// `Cycle` naming the nodes of a loop, `Graph` naming an operand that is not connected.
    pub fn nodes_topologically_sorted(&self) -> Result<Vec<NodeId>> {
        let mut waiting = vec![0usize; self.nodes.len()];
        let mut consumers = vec![Vec::new(); self.nodes.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            for (slot, source) in node.sources.iter().enumerate() {
                let Some(source) = source else {
                    return Err(Error::Graph(format!(
                        "graph: input {slot} of {:?} is not connected",
                        node.name
                    )));
                };
                consumers[source.node].push(i);
                waiting[i] += 1;
            }
        }
        let mut ready: BTreeSet<NodeId> = (0..self.nodes.len()).filter(|&i| waiting[i] == 0).collect();
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(node) = ready.pop_first() {
            order.push(node);
            for &consumer in &consumers[node] {
                waiting[consumer] -= 1;
                if waiting[consumer] == 0 {
                    ready.insert(consumer);
                }
            }
        }
        if order.len() == self.nodes.len() { Ok(order) } else { Err(Error::Cycle(self.find_cycle(&waiting))) }
    }

    /// Names along a loop. Every waiting node has a waiting source: following them must come back.
    fn find_cycle(&self, waiting: &[usize]) -> Vec<String> {
        let mut path: Vec<NodeId> = Vec::new();
        let mut node = waiting.iter().position(|&w| w > 0).unwrap_or(0);
        loop {
            if let Some(at) = path.iter().position(|&seen| seen == node) {
                let mut names: Vec<String> =
                    path[at..].iter().rev().map(|&i| self.nodes[i].name.clone()).collect();
                names.push(names[0].clone());
                return names;
            }
            path.push(node);
            let sources = self.nodes[node].sources.iter().flatten();
            node = sources.map(|s| s.node).find(|&s| waiting[s] > 0).expect("a waiting source");
        }
    }

    /// Computes every node and returns `results`. `values` has one value for each input, in their order.
    ///
    /// # Errors
    /// Those of [`Graph::nodes_topologically_sorted`] and of the gates; `Graph` when a gate gives fewer
    /// outputs than its consumers pick. The values stay as they were.
    pub fn forward(&self, values: &[Tensor], results: &[Port]) -> Result<Vec<Tensor>> {
        results.iter().try_for_each(|&port| self.check_port(port))?;
        let order = self.nodes_topologically_sorted()?;
        let inputs: Vec<NodeId> = self.inputs().collect();
        let mut operands: Vec<Vec<Tensor>> = vec![Vec::new(); self.nodes.len()];
        let mut outputs: Vec<Vec<Tensor>> = vec![Vec::new(); self.nodes.len()];
        for (&input, value) in inputs.iter().zip(values) {
            outputs[input].push(value.detach());
        }
        for node in order {
            let action = &self.nodes[node].action;
            match action {
                Action::Input => continue,
                Action::Constant(value) => {
                    outputs[node].push(Tensor::scalar(DType::F32, *value)?);
                    continue;
                }
                Action::Op(_) | Action::Gate(_) => {}
            }
            // Leaves of their own, so that each node's backward is local.
            operands[node] = self.nodes[node]
                .sources
                .iter()
                .flatten()
                .map(|&port| {
                    let value = pick(&self.nodes[port.node].name, &outputs[port.node], port.output)?;
                    Ok(Tensor::leaf(value.array().clone(), value.dtype().is_float()))
                })
                .collect::<Result<_>>()?;
            self.fit_constants(node, &mut operands[node])?;
            outputs[node] = with_grad_mode(true, || match action {
                Action::Op(op) => op(&operands[node]).map(|output| vec![output]),
                Action::Gate(gate) => apply_gate(gate, &operands[node]),
                Action::Input | Action::Constant(_) => unreachable!("skipped above"),
            })?;
        }
        let results = results
            .iter()
            .map(|port| {
                pick(&self.nodes[port.node].name, &outputs[port.node], port.output).map(Tensor::detach)
            })
            .collect::<Result<_>>()?;
        for (node, (operands, outputs)) in self.nodes.iter().zip(operands.into_iter().zip(outputs)) {
            let grads = vec![None; outputs.len()];
            *node.run() = Run { operands, outputs, grads };
        }
        Ok(results)
    }

    /// Frees what the last runs left at the nodes: values, operands and gradients.
    pub fn clear_state(&self) {
        self.nodes.iter().for_each(|node| *node.run() = Run::default());
    }

    /// Gives the constants among a node's operands the dtype of the first float beside them.
    fn fit_constants(&self, node: NodeId, operands: &mut [Tensor]) -> Result<()> {
        let constant = |port: &Port| match self.nodes[port.node].action {
            Action::Constant(value) => Some(value),
            _ => None,
        };
        let constants: Vec<Option<f64>> = self.nodes[node].sources.iter().flatten().map(constant).collect();
        let beside = operands.iter().zip(&constants).filter(|(_, constant)| constant.is_none());
        let Some(dtype) = beside.map(|(value, _)| value.dtype()).find(|dtype| dtype.is_float()) else {
            return Ok(());
        };
        for (operand, constant) in operands.iter_mut().zip(constants) {
            if let Some(value) = constant {
                *operand = Tensor::leaf(Array::scalar(dtype, value)?, true);
            }
        }
        Ok(())
    }

    /// The gradients of the inputs, in their order, for upstream gradients of `results` (1 each when
    /// `None`). Nodes are visited in reverse topological order; each contribution is added to its source's
    /// gradient as it comes, and can be seen there at once.
    ///
    /// # Errors
    /// `Graph` before `forward`, `Shape` for a gradient that does not fit, and those of the gates; the
    /// gradients are then as they were.
    pub fn backward(&self, results: &[Port], upstream: Option<&[Tensor]>) -> Result<Vec<Tensor>> {
        let order = self.nodes_topologically_sorted()?;
        if self.nodes.iter().any(|node| node.run().outputs.is_empty()) {
            return Err(Error::Graph("graph: backward before forward".into()));
        }
        let before: Vec<Vec<Option<Tensor>>> =
            self.nodes.iter().map(|node| node.run().grads.clone()).collect();
        let found = self.flow(&order, results, upstream);
        if found.is_err() {
            for (node, grads) in self.nodes.iter().zip(before) {
                node.run().grads = grads;
            }
        }
        found
    }

    fn flow(&self, order: &[NodeId], results: &[Port], upstream: Option<&[Tensor]>) -> Result<Vec<Tensor>> {
        self.nodes.iter().for_each(|node| node.run().grads.fill(None));
        for (i, &port) in results.iter().enumerate() {
            let node = &self.nodes[port.node];
            let value = pick(&node.name, &node.run().outputs, port.output)?.clone();
            let seed = match upstream {
                Some(upstream) => upstream[i].detach().cast(value.dtype())?,
                None => Tensor::constant(Array::full(value.dtype(), *value.shape(), 1.0)?),
            };
            if seed.shape() != value.shape() {
                return Err(Error::Shape {
                    op: "backward",
                    expected: format!("a gradient of shape {} for {:?}", value.shape(), node.name),
                    got: seed.shape().to_string(),
                });
            }
            accumulate(&mut node.run().grads[port.output], seed)?;
        }
        for &i in order.iter().rev() {
            let node = &self.nodes[i];
            let Run { operands, outputs, grads } = node.run().clone();
            let known = outputs
                .into_iter()
                .zip(grads)
                .filter(|(output, grad)| grad.is_some() && output.requires_grad());
            let (outputs, seeds): (Vec<Tensor>, Vec<Option<Tensor>>) = known.unzip();
            if outputs.is_empty() || operands.is_empty() {
                continue;
            }
            let found = backward::grad(&outputs, &operands, &seeds, true, false)?;
            for (source, gradient) in node.sources.iter().flatten().zip(found) {
                if let Some(gradient) = gradient {
                    accumulate(&mut self.nodes[source.node].run().grads[source.output], gradient)?;
                }
            }
        }
        self.inputs()
            .map(|i| {
                let run = self.nodes[i].run();
                match &run.grads[0] {
                    Some(grad) => Ok(grad.clone()),
                    None => {
                        let value = &run.outputs[0];
                        Ok(Tensor::constant(Array::zeros(value.dtype(), *value.shape())?))
                    }
                }
            })
            .collect()
    }
}

fn pick<'a>(name: &str, outputs: &'a [Tensor], output: usize) -> Result<&'a Tensor> {
    outputs.get(output).ok_or_else(|| {
        Error::Graph(format!("graph: {name:?} has {} outputs, output {output} was asked for", outputs.len()))
    })
}

fn accumulate(slot: &mut Option<Tensor>, gradient: Tensor) -> Result<()> {
    *slot = Some(match slot.take() {
        Some(before) => before.add(&gradient)?,
        None => gradient,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(f: impl Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static) -> Action {
        Action::Op(Arc::new(f))
    }

    fn port(node: NodeId) -> Port {
        Port { node, output: 0 }
    }

    fn scalar(value: f64) -> Tensor {
        Tensor::scalar(DType::F64, value).unwrap()
    }

    #[test]
    fn a_node_with_several_consumers_adds_their_gradients_up() {
        // d = a (a + b) at a = 4, b = 3: dd/da = 11, dd/db = 4
        let mut g = Graph::default();
        let a = g.add(Some("a"), "input", Action::Input, &[]).unwrap();
        let b = g.add(Some("b"), "input", Action::Input, &[]).unwrap();
        let sources = [Some(port(a)), Some(port(b))];
        let c = g.add(Some("c"), "add", op(|x| x[0].add(&x[1])), &sources).unwrap();
        let d = g.add(Some("d"), "mul", op(|x| x[0].mul(&x[1])), &[Some(port(a)), Some(port(c))]).unwrap();
        let values = [scalar(4.0), scalar(3.0)];
        assert_eq!(g.forward(&values, &[port(d)]).unwrap()[0].item().unwrap(), 28.0);
        let grads = g.backward(&[port(d)], None).unwrap();
        assert_eq!(grads[0].item().unwrap(), 11.0);
        assert_eq!(grads[1].item().unwrap(), 4.0);
    }

    #[test]
    fn a_loop_is_an_error_that_names_its_nodes() {
        let mut g = Graph::default();
        let x = g.add(Some("x"), "input", Action::Input, &[]).unwrap();
        let p = g.add(Some("p"), "add", op(|x| x[0].add(&x[1])), &[Some(port(x)), None]).unwrap();
        let q = g.add(Some("q"), "neg", op(|x| x[0].neg()), &[Some(port(p))]).unwrap();
        let message = g.forward(&[scalar(1.0)], &[]).unwrap_err().to_string();
        assert!(message.contains("input 1 of \"p\""), "{message}");
        g.connect(port(q), p, 1).unwrap();
        let message = g.nodes_topologically_sorted().unwrap_err().to_string();
        assert!(message.contains("q") && message.contains("p") && !message.contains('x'), "{message}");
    }
}
