//! The explicit graph of the lectures: `Graph` and its `Node`s.

use std::sync::Arc;

use ferrograd_core::dtype::DType;
use ferrograd_core::error::{Error, Result as CoreResult};
use ferrograd_core::graph::{Action, Builtin, Graph, NodeId, Port};
use ferrograd_core::tensor::Tensor;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple};

use crate::argument;
use crate::error::{Kind, Result, enter, raise};
use crate::gate::{PyGate, Scalars};
use crate::operand;
use crate::tensor::PyTensor;

/// How many operands a built-in op takes.
#[derive(Clone, Copy)]
enum Arity {
    One,
    Two,
    /// Two or more, combined from left to right.
    Many,
}

type Unary = fn(&Tensor) -> CoreResult<Tensor>;
type Binary = fn(&Tensor, &Tensor) -> CoreResult<Tensor>;

/// Every op's name that a gate can have.
fn builtin(name: &str) -> Option<(Arity, Builtin)> {
    let one: Option<Unary> = match name {
        "neg" => Some(Tensor::neg),
        "exp" => Some(Tensor::exp),
        "expm1" => Some(Tensor::expm1),
        "log" => Some(Tensor::log),
        "log1p" => Some(Tensor::log1p),
        "sqrt" => Some(Tensor::sqrt),
        "square" => Some(Tensor::square),
        "reciprocal" => Some(Tensor::reciprocal),
        "abs" => Some(Tensor::abs),
        "sign" => Some(Tensor::sign),
        "sin" => Some(Tensor::sin),
        "cos" => Some(Tensor::cos),
        "relu" => Some(Tensor::relu),
        "sigmoid" => Some(Tensor::sigmoid),
        "tanh" => Some(Tensor::tanh),
        "softplus" => Some(|x| x.unary(ferrograd_core::op::Unary::Softplus { beta: 1.0, threshold: 20.0 })),
        "leaky_relu" => Some(|x| x.unary(ferrograd_core::op::Unary::LeakyRelu(0.01))),
        "elu" => Some(|x| x.unary(ferrograd_core::op::Unary::Elu(1.0))),
        "softmax" => Some(|x| x.softmax(-1)),
        "log_softmax" => Some(|x| x.log_softmax(-1)),
        "logsumexp" => Some(|x| x.logsumexp(&[], false)),
        "sum" => Some(|x| x.sum(&[], false)),
        "mean" => Some(|x| x.mean(&[], false)),
        "amax" => Some(|x| x.amax(&[], false)),
        "amin" => Some(|x| x.amin(&[], false)),
        "var" => Some(|x| x.var(&[], 1.0, false)),
        "t" | "T" => Some(Tensor::t),
        "flatten" => Some(|x| x.flatten(0, -1)),
        _ => None,
    };
    if let Some(function) = one {
        return Some((Arity::One, Arc::new(move |x: &[Tensor]| function(&x[0]))));
    }
    let many: Option<Binary> = match name {
        "add" => Some(Tensor::add),
        "mul" => Some(Tensor::mul),
        "max" | "maximum" => Some(|a, b| a.binary(ferrograd_core::op::Binary::Maximum, b)),
        "min" | "minimum" => Some(|a, b| a.binary(ferrograd_core::op::Binary::Minimum, b)),
        _ => None,
    };
    if let Some(function) = many {
        let fold =
            move |x: &[Tensor]| x[1..].iter().try_fold(x[0].clone(), |left, right| function(&left, right));
        return Some((Arity::Many, Arc::new(fold)));
    }
    let two: Option<Binary> = match name {
        "sub" => Some(Tensor::sub),
        "div" => Some(Tensor::div),
        "pow" => Some(Tensor::pow),
        "matmul" | "mm" | "mv" | "dot" => Some(Tensor::matmul),
        _ => None,
    };
    two.map(|function| -> (Arity, Builtin) {
        (Arity::Two, Arc::new(move |x: &[Tensor]| function(&x[0], &x[1])))
    })
}

/// A built-in gate that checks how many operands it got.
fn checked(name: &str, arity: Arity, op: Builtin) -> Builtin {
    let name = name.to_owned();
    Arc::new(move |operands: &[Tensor]| {
        let (fits, expected) = match arity {
            Arity::One => (operands.len() == 1, "1 source"),
            Arity::Two => (operands.len() == 2, "2 sources"),
            Arity::Many => (operands.len() >= 2, "at least 2 sources"),
        };
        if fits {
            op(operands)
        } else {
            Err(Error::Graph(format!("graph: {name} takes {expected}, got {}", operands.len())))
        }
    })
}

/// A graph of gates, wired by hand: forward in topological order, backward in its reverse, each gate
/// multiplying the gradient that arrives by its local derivative.
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> graph = fg.Graph()
/// >>> x, y = graph.input("x"), graph.input("y")
/// >>> product = graph.add("mul", x, y)
/// >>> graph.output(product)
/// >>> graph.forward({"x": 3.0, "y": -4.0}).item()
/// -12.0
/// >>> {name: grad.item() for name, grad in graph.backward().items()}
/// {'x': -4.0, 'y': 3.0}
#[pyclass(name = "Graph", module = "ferrograd")]
#[derive(Default)]
pub struct PyGraph {
    graph: Graph,
    /// What each node does, by name.
    kinds: Vec<String>,
    outputs: Vec<Port>,
}

/// A node of a `Graph`, or one output of it (`node[i]`).
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> graph = fg.Graph()
/// >>> x = graph.input("x")
/// >>> node = graph.add("square", x, name="y")
/// >>> node.name, node.op, node.sources == (x,)
/// ('y', 'square', True)
#[pyclass(name = "Node", module = "ferrograd", frozen)]
pub struct PyNode {
    graph: Py<PyGraph>,
    id: NodeId,
    /// Set where one output was picked.
    output: Option<usize>,
}

impl PyNode {
    fn port(&self) -> Port {
        Port { node: self.id, output: self.output.unwrap_or(0) }
    }
}

impl PyGraph {
    fn push(
        &mut self,
        name: Option<&str>,
        kind: &str,
        action: Action,
        sources: &[Option<Port>],
    ) -> Result<NodeId> {
        let id = self.graph.add(name, kind, action, sources)?;
        self.kinds.push(kind.to_owned());
        Ok(id)
    }

    /// The nodes whose values `forward` returns: the chosen ones, else those that nothing consumes.
    fn result_ports(&self) -> Vec<Port> {
        if !self.outputs.is_empty() {
            return self.outputs.clone();
        }
        let is_consumed = |id: NodeId| {
            (0..self.graph.len()).any(|node| self.graph.sources(node).iter().flatten().any(|s| s.node == id))
        };
        (0..self.graph.len()).filter(|&id| !is_consumed(id)).map(|node| Port { node, output: 0 }).collect()
    }
}

fn known<'a, 'py>(name: &str, node: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyNode>> {
    node.cast().map_err(|error| argument::refused(name, "a node of a graph", node, &error.into()))
}

fn port_of(graph: &Bound<'_, PyGraph>, node: &Bound<'_, PyNode>) -> Result<Port> {
    if node.get().graph.is(graph) {
        return Ok(node.get().port());
    }
    Err(raise(Kind::Graph, "graph: the node belongs to another graph").into())
}

/// The graph for a change of its wiring.
fn edited<'py>(graph: &Bound<'py, PyGraph>) -> Result<PyRefMut<'py, PyGraph>> {
    graph.try_borrow_mut().map_err(|_| raise(Kind::Graph, "graph: it cannot be changed while it runs").into())
}

fn node(graph: &Bound<'_, PyGraph>, id: NodeId) -> PyNode {
    PyNode { graph: graph.clone().unbind(), id, output: None }
}

#[pymethods]
impl PyGraph {
    #[new]
    fn new() -> PyGraph {
        PyGraph::default()
    }

    /// A node whose value `forward` takes from outside.
    fn input(slf: &Bound<'_, Self>, #[pyo3(from_py_with = argument::name)] name: String) -> Result<PyNode> {
        enter(|| {
            let id = edited(slf)?.push(Some(&name), "input", Action::Input, &[])?;
            Ok(node(slf, id))
        })
    }

    /// A gate with its sources: nodes, numbers, or None for one that `connect` wires later.
    ///
    /// `op` is an op's name (add, mul, max, sigmoid, ...), or an object with `forward(*inputs)` and
    /// `backward(dout)`, which get numpy arrays (Python floats for values of rank 0) and return
    /// gradients for all inputs, a tuple for several. A `forward` that returns a tuple has several
    /// outputs, picked as `node[i]`; `backward` then gets a tuple.
    ///
    /// A gate keeps (caches) from `forward` what its `backward` needs: `backward` gets only `dout`, and
    /// the local derivative that multiplies it depends on the inputs or the output (the factors of a
    /// product, the winner of a max, s of s (1 - s)). An add keeps nothing.
    #[pyo3(signature = (op, *sources, name = None))]
    fn add(
        slf: &Bound<'_, Self>,
        op: &Bound<'_, PyAny>,
        sources: &Bound<'_, PyTuple>,
        #[pyo3(from_py_with = argument::name)] name: Option<String>,
    ) -> Result<PyNode> {
        enter(|| {
            let (kind, action, slots) = match op.cast::<PyString>() {
                Ok(known) => {
                    let known = known.to_string();
                    let (arity, function) = builtin(&known).ok_or_else(|| {
                        raise(Kind::Graph, format!("graph: {known:?} is no op that a gate can have"))
                    })?;
                    let slots = if matches!(arity, Arity::One) { 1 } else { 2 };
                    let action = Action::Op(checked(&known, arity, function));
                    (known, action, slots)
                }
                Err(_) => {
                    let gate = PyGate::wrap(op, Scalars::Float)?;
                    (gate.name().to_owned(), Action::Gate(gate), 0)
                }
            };
            // All sources are read before the first constant is added.
            let mut ports = Vec::new();
            for source in sources.iter() {
                ports.push(if source.is_none() {
                    Source::Open
                } else if let Ok(node) = source.cast::<PyNode>() {
                    Source::Port(port_of(slf, node)?)
                } else if source.is_instance_of::<PyFloat>() || source.is_instance_of::<PyInt>() {
                    Source::Number(source.extract()?)
                } else {
                    let class = source.get_type().name()?;
                    let text = format!("graph: expected a node, a number or None as source, got {class}");
                    return Err(raise(Kind::Graph, text).into());
                });
            }
            let mut graph = edited(slf)?;
            let mut slots_filled = Vec::new();
            for port in ports {
                slots_filled.push(match port {
                    Source::Open => None,
                    Source::Port(port) => Some(port),
                    Source::Number(value) => {
                        let id = graph.push(None, &format!("{value:?}"), Action::Constant(value), &[])?;
                        Some(Port { node: id, output: 0 })
                    }
                });
            }
            while slots_filled.len() < slots {
                slots_filled.push(None);
            }
            let id = graph.push(name.as_deref(), &kind, action, &slots_filled)?;
            drop(graph);
            Ok(node(slf, id))
        })
    }

    /// Wires `source` into input `slot` of `node`, now or again.
    fn connect(
        slf: &Bound<'_, Self>,
        source: &Bound<'_, PyAny>,
        node: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = argument::slot)] slot: usize,
    ) -> Result<()> {
        enter(|| {
            let (source, target) =
                (port_of(slf, known("source", source)?)?, port_of(slf, known("node", node)?)?.node);
            if slot > 1 << 16 {
                return Err(raise(Kind::Graph, format!("graph: slot {slot} is out of range")).into());
            }
            Ok(edited(slf)?.graph.connect(source, target, slot)?)
        })
    }

    /// Names the nodes whose values `forward` returns; without it they are those that nothing consumes.
    #[pyo3(signature = (*nodes))]
    fn output(slf: &Bound<'_, Self>, nodes: &Bound<'_, PyTuple>) -> Result<()> {
        enter(|| {
            let ports =
                nodes.iter().map(|node| port_of(slf, known("nodes", &node)?)).collect::<Result<Vec<_>>>()?;
            edited(slf)?.outputs = ports;
            Ok(())
        })
    }

    /// The nodes, each after its sources; among the ready ones the earliest made comes first.
    ///
    /// Raises CycleError naming the nodes of a loop, GraphError naming an input that is not connected.
    fn nodes_topologically_sorted<'py>(slf: &Bound<'py, Self>) -> Result<Bound<'py, PyList>> {
        enter(|| {
            let order = slf.try_borrow().map_err(PyErr::from)?.graph.nodes_topologically_sorted()?;
            Ok(PyList::new(slf.py(), order.into_iter().map(|id| node(slf, id)))?)
        })
    }

    /// The same nodes, each after all that consume it: the order of backward.
    fn nodes_topologically_sorted_reverse<'py>(slf: &Bound<'py, Self>) -> Result<Bound<'py, PyList>> {
        enter(|| {
            let order = slf.try_borrow().map_err(PyErr::from)?.graph.nodes_topologically_sorted()?;
            Ok(PyList::new(slf.py(), order.into_iter().rev().map(|id| node(slf, id)))?)
        })
    }

    /// Computes every node from the inputs' values; returns the output, a tuple where there are several.
    fn forward<'py>(slf: &Bound<'py, Self>, inputs: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        enter(|| {
            let inputs = inputs
                .cast::<PyMapping>()
                .map_err(|error| argument::refused("inputs", "a dict", inputs, &error.into()))?;
            let (py, graph) = (slf.py(), slf.try_borrow().map_err(PyErr::from)?);
            let mut values = Vec::new();
            let names: Vec<String> = graph.graph.inputs().map(|id| graph.graph.name(id).to_owned()).collect();
            for name in &names {
                if !inputs.contains(name)? {
                    return Err(raise(Kind::Graph, format!("forward: no value for input {name:?}")).into());
                }
                values.push(operand::tensor(name, &inputs.get_item(name)?)?);
            }
            for key in inputs.keys()?.iter() {
                let key: String = key.extract()?;
                if !names.contains(&key) {
                    return Err(raise(Kind::Graph, format!("forward: the graph has no input {key:?}")).into());
                }
            }
            let ports = graph.result_ports();
            let mut results = graph.graph.forward(&values, &ports)?;
            match results.len() {
                1 => Ok(Bound::new(py, PyTensor::from(results.remove(0)))?.into_any()),
                _ => Ok(PyTuple::new(py, results.into_iter().map(PyTensor::from))?.into_any()),
            }
        })
    }

    /// Frees what `forward` and `backward` left at the nodes; `backward` needs another `forward` then. What a
    /// user's gate keeps stays with the gate.
    fn clear_state(slf: &Bound<'_, Self>) -> Result<()> {
        enter(|| {
            slf.try_borrow().map_err(PyErr::from)?.graph.clear_state();
            Ok(())
        })
    }

    /// The gradients of the inputs by name, for the gradient `dout` of the output (a tuple for several
    /// outputs; 1 where missing).
    #[pyo3(signature = (dout = None))]
    fn backward<'py>(slf: &Bound<'py, Self>, dout: Option<&Bound<'py, PyAny>>) -> Result<Bound<'py, PyDict>> {
        enter(|| {
            let (py, graph) = (slf.py(), slf.try_borrow().map_err(PyErr::from)?);
            let ports = graph.result_ports();
            let seeds = match dout {
                None => None,
                Some(dout) => Some(seeds(&graph, &ports, dout)?),
            };
            let grads = graph.graph.backward(&ports, seeds.as_deref())?;
            let result = PyDict::new(py);
            for (id, grad) in graph.graph.inputs().zip(grads) {
                result.set_item(graph.graph.name(id), PyTensor::from(grad))?;
            }
            Ok(result)
        })
    }
}

enum Source {
    Open,
    Port(Port),
    Number(f64),
}

/// The upstream gradients of the outputs.
fn seeds(graph: &PyGraph, ports: &[Port], dout: &Bound<'_, PyAny>) -> Result<Vec<Tensor>> {
    let value = |port: &Port| {
        graph.graph.value(*port).ok_or_else(|| raise(Kind::Graph, "graph: backward before forward"))
    };
    let items: Vec<Bound<'_, PyAny>> = match dout.cast::<PyTuple>() {
        Ok(tuple) => tuple.iter().collect(),
        Err(_) if ports.len() > 1 => dout.try_iter()?.collect::<PyResult<_>>()?,
        Err(_) => vec![dout.clone()],
    };
    if items.len() != ports.len() {
        let text =
            format!("backward: expected {} gradients, one for each output, got {}", ports.len(), items.len());
        return Err(raise(Kind::Graph, text).into());
    }
    ports
        .iter()
        .zip(items)
        .map(|(port, item)| {
            let value = value(port)?;
            if item.is_none() {
                return Ok(Tensor::scalar(value.dtype(), 1.0)?.broadcast_to(value.shape())?.copied()?);
            }
            let dtype = if value.dtype().is_float() { value.dtype() } else { DType::F32 };
            operand::tensor_beside("dout", &item, dtype)
        })
        .collect()
}

#[pymethods]
impl PyNode {
    /// The given name, or one made from the op.
    #[getter]
    fn name(&self, py: Python<'_>) -> Result<String> {
        Ok(self.graph.bind(py).try_borrow().map_err(PyErr::from)?.graph.name(self.id).to_owned())
    }

    /// The op's name, the class of a user's gate, or "input".
    #[getter]
    fn op(&self, py: Python<'_>) -> Result<String> {
        Ok(self.graph.bind(py).try_borrow().map_err(PyErr::from)?.kinds[self.id].clone())
    }

    /// The value after `forward`, a tuple for several outputs; None before.
    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> Result<Option<Bound<'py, PyAny>>> {
        enter(|| {
            let graph = self.graph.bind(py).try_borrow().map_err(PyErr::from)?;
            let values = self.ports(&graph).map(|port| graph.graph.value(port).map(PyTensor::from));
            let values: Option<Vec<PyTensor>> = values.collect();
            one_or_tuple(py, values.unwrap_or_default())
        })
    }

    /// The gradient after `backward`, a tuple for several outputs; None where none arrived.
    #[getter]
    fn grad<'py>(&self, py: Python<'py>) -> Result<Option<Bound<'py, PyAny>>> {
        enter(|| {
            let graph = self.graph.bind(py).try_borrow().map_err(PyErr::from)?;
            let grads: Vec<Option<PyTensor>> =
                self.ports(&graph).map(|port| graph.graph.grad(port).map(PyTensor::from)).collect();
            if grads.iter().all(Option::is_none) { Ok(None) } else { one_or_tuple(py, grads) }
        })
    }

    /// The nodes that feed this one; None for an input that is not connected.
    #[getter]
    fn sources<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyTuple>> {
        enter(|| {
            let graph = self.graph.bind(py).try_borrow().map_err(PyErr::from)?;
            let sources: Vec<Option<PyNode>> = graph
                .graph
                .sources(self.id)
                .iter()
                .map(|source| {
                    source.map(|port| PyNode {
                        graph: self.graph.clone_ref(py),
                        id: port.node,
                        output: (port.output > 0).then_some(port.output),
                    })
                })
                .collect();
            Ok(PyTuple::new(py, sources)?)
        })
    }

    /// Output `index` of a gate with several.
    fn __getitem__(&self, py: Python<'_>, index: usize) -> Result<PyNode> {
        Ok(PyNode { graph: self.graph.clone_ref(py), id: self.id, output: Some(index) })
    }

    /// How many outputs a gate has is known once it has run: `for part in node` would never end.
    fn __iter__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("a Node is not iterable; pick outputs as node[i]"))
    }

    /// A node is one thing however often it was looked up.
    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<PyNode>().is_ok_and(|other| {
            let other = other.get();
            other.graph.is(&self.graph) && other.id == self.id && other.output == self.output
        })
    }

    fn __ne__(&self, other: &Bound<'_, PyAny>) -> bool {
        !self.__eq__(other)
    }

    fn __hash__(&self) -> usize {
        (self.graph.as_ptr() as usize >> 4) ^ self.id.rotate_left(16) ^ self.output.map_or(0, |o| o + 1)
    }

    fn __repr__(&self, py: Python<'_>) -> Result<String> {
        let picked = self.output.map(|output| format!("[{output}]")).unwrap_or_default();
        Ok(format!("Node({:?}, op={:?}){picked}", self.name(py)?, self.op(py)?))
    }
}

impl PyNode {
    /// The picked output, or all of them.
    fn ports(&self, graph: &PyGraph) -> impl Iterator<Item = Port> + use<> {
        let all =
            (0..).take_while(|&output| graph.graph.value(Port { node: self.id, output }).is_some()).count();
        let range = match self.output {
            Some(output) => output..output + 1,
            None => 0..all,
        };
        let node = self.id;
        range.map(move |output| Port { node, output })
    }
}

fn one_or_tuple<'py, T: IntoPyObject<'py>>(
    py: Python<'py>,
    values: Vec<T>,
) -> Result<Option<Bound<'py, PyAny>>> {
    let tuple = PyTuple::new(py, values)?;
    Ok(match tuple.len() {
        0 => None,
        1 => Some(tuple.get_item(0)?),
        _ => Some(tuple.into_any()),
    })
}
