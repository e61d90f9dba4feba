//! From recorded nodes to a program: leaves are told apart, constants folded, dead nodes left out.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::anomaly::Place;
use crate::buffer::Array;
use crate::error::{Error, Result};
use crate::op::{Meta, Op};
use crate::tensor::{Node, Tensor, is_tracing, set_tracing};

/// Position of a value in its program; operands come before results.
pub type ValueId = usize;

/// Where a value without operands comes from.
#[derive(Clone)]
pub enum Leaf {
    /// Placeholder number i, filled before each run.
    Input(usize),
    /// Memory that lives outside the plan and is read anew in each run: parameters, buffers.
    External(Array),
    /// A value that never changes.
    Constant(Array),
}

/// How a value comes about.
#[derive(Clone)]
pub enum Definition {
    /// From outside.
    Leaf(Leaf),
    /// By an op.
    Op {
        /// The op.
        op: Op,
        /// Its operands.
        operands: Vec<ValueId>,
    },
    /// A loss with its derivative in one pass: this value is the loss, `gradient` the other result.
    LossWithGradient {
        /// The loss.
        loss: crate::op::Loss,
        /// Its operands.
        operands: Vec<ValueId>,
        /// The value that holds the derivative.
        gradient: ValueId,
        /// Whether the last operand, a factor for each row or for all, multiplies the derivative.
        is_scaled: bool,
    },
    /// Written by the instruction of another value.
    Written,
}

/// A traced graph: values in an order in which they can be computed.
pub struct Program {
    /// Dtype and shape of each value.
    pub metas: Vec<Meta>,
    /// How each comes about.
    pub definitions: Vec<Definition>,
    /// The values that the caller wants.
    pub outputs: Vec<ValueId>,
    /// Where each was made, if somebody asked for that then.
    pub places: Vec<Option<Place>>,
    /// The number of each one's node.
    pub ids: Vec<u64>,
}

thread_local! {
    /// What `assign` was called with in this thread's trace: target, then value.
    static WRITES: RefCell<Vec<(Tensor, Tensor)>> = const { RefCell::new(Vec::new()) };
}

/// Sets the elements of `target`, a leaf of the model such as a running mean: now, or, in a trace, at the end
/// of each training step that the plan makes.
///
/// # Errors
/// `Shape` or `DType` when value and target differ, `Graph` when the target is no leaf.
pub fn assign(target: &Tensor, value: &Tensor) -> Result<()> {
    if value.shape() != target.shape() {
        return Err(Error::Shape {
            op: "assign",
            expected: format!("shape {}", target.shape()),
            got: format!("shape {}", value.shape()),
        });
    }
    if !is_tracing() {
        return target.copy_(value);
    }
    target.check_in_place("assign")?;
    let value = value.detach().cast(target.dtype())?.contiguous()?;
    let target = target.clone();
    WRITES.with_borrow_mut(|writes| {
        writes.retain(|(other, _)| other.node().id() != target.node().id());
        writes.push((target, value));
    });
    Ok(())
}

/// What a tensor holds after the assignments of this trace so far: the value of the last one, or the tensor.
pub fn latest(target: &Tensor) -> Tensor {
    WRITES.with_borrow(|writes| {
        let last = writes.iter().find(|(other, _)| other.node().id() == target.node().id());
        last.map_or(target, |(_, value)| value).clone()
    })
}

/// Runs `f`; forgets what it assigned in a trace, and says whether that was anything.
pub(crate) fn without_assignments<R>(f: impl FnOnce() -> R) -> (R, bool) {
    let before = WRITES.with_borrow(Vec::len);
    let result = f();
    WRITES.with_borrow_mut(|writes| {
        let assigned = writes.len() > before;
        writes.truncate(before);
        (result, assigned)
    })
}

/// Marks what a thread records as a trace, until it is dropped.
pub struct Tracing {
    before: bool,
    start: u64,
}

impl Tracing {
    /// Starts recording every op of this thread.
    pub fn start() -> Tracing {
        let before = set_tracing(true);
        WRITES.take();
        let start = Tensor::scalar(crate::dtype::DType::F32, 0.0).map_or(0, |t| t.node().id());
        Tracing { before, start }
    }
}

impl Tracing {
    /// What was assigned since the start: target, then value.
    pub fn writes(&self) -> Vec<(Tensor, Tensor)> {
        WRITES.with_borrow(Clone::clone)
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        set_tracing(self.before);
        WRITES.take();
    }
}

impl Program {
    /// The program that computes `outputs` from the placeholders `inputs`. Must be called while `tracing`
    /// is alive and the leaves of the graph are.
    ///
    /// # Errors
    /// `Graph` when a value was lost or nothing was recorded.
    pub fn trace(tracing: &Tracing, outputs: &[Tensor], inputs: &[Tensor]) -> Result<Program> {
        debug_assert!(is_tracing());
        let nodes = reachable(outputs);
        let mut ids: HashMap<u64, ValueId> = HashMap::with_capacity(nodes.len());
        let mut program = Program {
            metas: Vec::new(),
            definitions: Vec::new(),
            outputs: Vec::new(),
            places: Vec::new(),
            ids: Vec::new(),
        };
        let mut is_constant: Vec<bool> = Vec::new();
        let arrays = leaf_arrays(&nodes, outputs);
        for node in &nodes {
            let (definition, constant) = match node.op() {
                None => {
                    let input = inputs.iter().position(|t| t.node().id() == node.id());
                    let array = || {
                        arrays.get(&node.id()).cloned().ok_or_else(|| {
                            Error::Graph("plan: a constant of the model was freed while it was traced".into())
                        })
                    };
                    // What was made while tracing cannot change later; what was there before can.
                    let constant = node.id() > tracing.start && input.is_none();
                    let leaf = match input {
                        Some(i) => Leaf::Input(i),
                        None if constant => Leaf::Constant(array()?),
                        None => Leaf::External(array()?),
                    };
                    (Definition::Leaf(leaf), constant)
                }
                Some(op) => {
                    let operands: Vec<ValueId> = node.parents().iter().map(|p| ids[&p.id()]).collect();
                    let foldable = !matches!(op, Op::Draw(_) | Op::Custom(_));
                    let value = node.saved().as_ref().and_then(|saved| saved.output.clone());
                    match value {
                        Some(value) if foldable && operands.iter().all(|&o| is_constant[o]) => {
                            (Definition::Leaf(Leaf::Constant(value)), true)
                        }
                        _ => (Definition::Op { op: op.clone(), operands }, false),
                    }
                }
            };
            ids.insert(node.id(), program.metas.len());
            program.metas.push(Meta { dtype: node.dtype(), shape: *node.shape() });
            program.definitions.push(definition);
            program.places.push(node.place());
            program.ids.push(node.id());
            is_constant.push(constant);
        }
        program.outputs = outputs.iter().map(|t| ids[&t.node().id()]).collect();
        program.remove_dead();
        Ok(program)
    }

    /// Operands of a value's instruction.
    pub fn operands(&self, value: ValueId) -> &[ValueId] {
        match &self.definitions[value] {
            Definition::Op { operands, .. } | Definition::LossWithGradient { operands, .. } => operands,
            Definition::Leaf(_) | Definition::Written => &[],
        }
    }

    /// How often each value is an operand or an output.
    pub fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.metas.len()];
        for value in 0..self.metas.len() {
            self.operands(value).iter().for_each(|&o| uses[o] += 1);
        }
        self.outputs.iter().for_each(|&o| uses[o] += 1);
        uses
    }

    /// Puts what depends on neither samples of several dimensions nor random numbers before all that does: what a
    /// loss is divided by is then known when the loss is computed.
    pub(super) fn put_first_what_rows_share(&mut self) {
        let count = self.metas.len();
        let mut is_late = vec![false; count];
        for value in 0..count {
            is_late[value] = match &self.definitions[value] {
                Definition::Leaf(Leaf::Input(_)) => self.metas[value].shape.rank() > 1,
                Definition::Op { op: Op::Draw(_), .. } => true,
                _ => self.operands(value).iter().any(|&operand| is_late[operand]),
            };
        }
        let order: Vec<ValueId> =
            (0..count).filter(|&v| !is_late[v]).chain((0..count).filter(|&v| is_late[v])).collect();
        let mut place = vec![0; count];
        order.iter().enumerate().for_each(|(to, &from)| place[from] = to);
        self.metas = order.iter().map(|&v| self.metas[v]).collect();
        self.definitions = order.iter().map(|&v| self.definitions[v].clone()).collect();
        self.places = order.iter().map(|&v| self.places[v].take()).collect();
        self.ids = order.iter().map(|&v| self.ids[v]).collect();
        for definition in &mut self.definitions {
            if let Definition::Op { operands, .. } = definition {
                operands.iter_mut().for_each(|o| *o = place[*o]);
            }
        }
        self.outputs.iter_mut().for_each(|o| *o = place[*o]);
    }

    /// Leaves out what no output needs, such as the operands of a folded constant. Before fusion only.
    fn remove_dead(&mut self) {
        let mut live = vec![false; self.metas.len()];
        self.outputs.iter().for_each(|&o| live[o] = true);
        for value in (0..self.metas.len()).rev() {
            if live[value] {
                for &operand in self.operands(value) {
                    live[operand] = true;
                }
            }
        }
        let mut renamed = vec![0; self.metas.len()];
        let mut next = 0;
        for value in 0..live.len() {
            renamed[value] = next;
            next += usize::from(live[value]);
        }
        let mut keep = live.iter();
        self.metas.retain(|_| *keep.next().expect("one flag a value"));
        let mut keep = live.iter();
        self.definitions.retain(|_| *keep.next().expect("one flag a value"));
        let mut keep = live.iter();
        self.places.retain(|_| *keep.next().expect("one flag a value"));
        let mut keep = live.iter();
        self.ids.retain(|_| *keep.next().expect("one flag a value"));
        for definition in &mut self.definitions {
            if let Definition::Op { operands, .. } = definition {
                operands.iter_mut().for_each(|o| *o = renamed[*o]);
            }
        }
        self.outputs.iter_mut().for_each(|o| *o = renamed[*o]);
    }
}

/// Whether something that `outputs` are made of reads `target` though it was made after `value`, which was assigned
/// to it: in an eager step it would see the value, in a plan what was there before.
pub fn reads_after(outputs: &[Tensor], target: &Tensor, value: &Tensor) -> bool {
    let reads = |node: &Arc<Node>| node.parents().iter().any(|parent| parent.id() == target.node().id());
    reachable(outputs).iter().any(|node| node.id() > value.node().id() && reads(node))
}

/// All ancestors of `outputs`, oldest first.
fn reachable(outputs: &[Tensor]) -> Vec<Arc<Node>> {
    let mut seen = HashSet::new();
    let mut stack: Vec<Arc<Node>> = outputs.iter().map(|t| t.node().clone()).collect();
    let mut nodes = Vec::new();
    while let Some(node) = stack.pop() {
        if seen.insert(node.id()) {
            stack.extend(node.parents().iter().cloned());
            nodes.push(node);
        }
    }
    nodes.sort_by_key(|node| node.id());
    nodes
}

/// Values of leaves: their consumers saved them, or the caller holds them.
fn leaf_arrays(nodes: &[Arc<Node>], outputs: &[Tensor]) -> HashMap<u64, Array> {
    let mut arrays = HashMap::new();
    for node in nodes {
        if let Some(saved) = node.saved().as_ref() {
            for (parent, array) in node.parents().iter().zip(&saved.inputs) {
                if let (None, Some(array)) = (parent.op(), array) {
                    arrays.insert(parent.id(), array.clone());
                }
            }
        }
    }
    for output in outputs {
        arrays.insert(output.node().id(), output.array().clone());
    }
    arrays
}
