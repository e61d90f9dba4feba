//! The eager executor: a tensor computes at once and remembers its op and parents.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use crate::buffer::{Array, WeakArray};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::hook::Hooks;
use crate::op::{Meta, Op};
use crate::shape::Dims;
use crate::{anomaly, count};

/// Values with their place in the graph. Cloning shares both.
#[derive(Clone)]
pub struct Tensor {
    node: Arc<Node>,
    array: Array,
}

/// A node of the graph. It outlives the values: ops, parents and shapes stay walkable after backward
/// has freed what it saved.
pub struct Node {
    /// Creation order, which is a topological order.
    id: u64,
    op: Option<Op>,
    parents: Operands<Arc<Node>>,
    meta: Meta,
    requires_grad: AtomicBool,
    retains_grad: AtomicBool,
    grad: Mutex<Option<Box<Tensor>>>,
    saved: Mutex<Option<Saved>>,
    value: WeakArray,
    /// The value of a small constant: the count that a mean divides by and the like, which nobody else holds once
    /// backward has freed what it saved.
    _constant: Option<Array>,
    hooks: Hooks,
}

/// Bytes of a constant that its node keeps, at most.
const SMALL_CONSTANT: usize = 64;

/// Something for each operand of an op. Nearly every op has three at most: they need no allocation.
pub(crate) type Operands<T> = SmallVec<[T; 3]>;

/// Values that the op's vjp rule will read.
pub(crate) struct Saved {
    pub(crate) inputs: Operands<Option<Array>>,
    pub(crate) output: Option<Array>,
    /// Sum of the storages' versions at the time of saving. Versions only grow: it tells any change.
    versions: u64,
}

impl Saved {
    fn new(inputs: Operands<Option<Array>>, output: Option<Array>) -> Saved {
        let mut saved = Saved { inputs, output, versions: 0 };
        saved.versions = saved.present_versions();
        saved
    }

    fn present_versions(&self) -> u64 {
        let arrays = self.inputs.iter().flatten().chain(&self.output);
        arrays.map(|array| u64::from(array.storage().version())).sum()
    }

    /// Whether no saved value was changed in place since.
    pub(crate) fn is_intact(&self) -> bool {
        self.present_versions() == self.versions
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// The number of the latest node of all threads.
pub fn last_id() -> u64 {
    NEXT_ID.load(Ordering::Relaxed).saturating_sub(1)
}

thread_local! {
    static GRAD_MODE: Cell<bool> = const { Cell::new(true) };
    static TRACING: Cell<bool> = const { Cell::new(false) };
}

/// Whether ops of this thread are recorded for backward.
pub fn is_grad_enabled() -> bool {
    GRAD_MODE.get()
}

/// Sets whether ops of this thread are recorded; returns the mode before.
pub fn set_grad_enabled(mode: bool) -> bool {
    GRAD_MODE.replace(mode)
}

/// Whether a plan is being traced on this thread: every op is recorded with all its values.
pub fn is_tracing() -> bool {
    TRACING.get()
}

/// Starts or ends tracing on this thread; returns the state before.
pub fn set_tracing(mode: bool) -> bool {
    TRACING.replace(mode)
}

/// Runs `f` with grad mode set to `mode`.
pub fn with_grad_mode<R>(mode: bool, f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            set_grad_enabled(self.0);
        }
    }
    let _restore = Restore(set_grad_enabled(mode));
    f()
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let op = self.node.op.as_ref().map_or("leaf", Op::name);
        write!(f, "Tensor({op}, {}, {})", self.dtype(), self.shape())
    }
}

impl Node {
    fn new(op: Option<Op>, parents: Operands<Arc<Node>>, array: &Array, requires_grad: bool) -> Node {
        let is_small = || array.storage().bytes() <= SMALL_CONSTANT;
        let is_kept = op.is_none() && !requires_grad && is_small();
        Node {
            _constant: is_kept.then(|| array.clone()),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            op,
            parents,
            meta: Meta { dtype: array.dtype(), shape: *array.shape() },
            requires_grad: AtomicBool::new(requires_grad),
            retains_grad: AtomicBool::new(false),
            grad: Mutex::new(None),
            saved: Mutex::new(None),
            value: array.downgrade(),
            hooks: Hooks::default(),
        }
    }

    /// Unique, and larger than every parent's.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The op that made the value; `None` for a leaf.
    pub fn op(&self) -> Option<&Op> {
        self.op.as_ref()
    }

    /// The operands, in order.
    pub fn parents(&self) -> &[Arc<Node>] {
        &self.parents
    }

    /// Shape of the value.
    pub fn shape(&self) -> &Dims {
        &self.meta.shape
    }

    /// Element type of the value.
    pub fn dtype(&self) -> DType {
        self.meta.dtype
    }

    /// Whether a gradient flows to or through this node.
    pub fn requires_grad(&self) -> bool {
        self.requires_grad.load(Ordering::Relaxed)
    }

    /// Whether backward keeps the gradient here: leaves, and nodes that were asked to.
    pub fn keeps_grad(&self) -> bool {
        self.op.is_none() || self.retains_grad.load(Ordering::Relaxed)
    }

    /// The value, if somebody still holds it.
    pub fn value(self: &Arc<Node>) -> Option<Tensor> {
        Array::upgrade(&self.value).map(|array| Tensor { node: self.clone(), array })
    }

    pub(crate) fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    pub(crate) fn saved(&self) -> MutexGuard<'_, Option<Saved>> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn grad_slot(&self) -> MutexGuard<'_, Option<Box<Tensor>>> {
        self.grad.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A chain of a million nodes must not recurse a million times when it is dropped.
impl Drop for Node {
    fn drop(&mut self) {
        let mut stack = std::mem::take(&mut self.parents);
        while let Some(node) = stack.pop() {
            if let Some(mut node) = Arc::into_inner(node) {
                stack.append(&mut node.parents);
            }
        }
    }
}

impl Tensor {
    /// A leaf.
    pub fn leaf(array: Array, requires_grad: bool) -> Tensor {
        let node = Node::new(None, Operands::new(), &array, requires_grad);
        Tensor { node: Arc::new(node), array }
    }

    /// A constant leaf.
    pub fn constant(array: Array) -> Tensor {
        Tensor::leaf(array, false)
    }

    /// A constant of rank 0.
    ///
    /// # Errors
    /// `Memory`.
    pub fn scalar(dtype: DType, value: f64) -> Result<Tensor> {
        Ok(Tensor::constant(Array::scalar(dtype, value)?))
    }

    /// The graph side.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The value side.
    pub fn array(&self) -> &Array {
        &self.array
    }

    /// A tensor of a node whose value is at hand.
    pub(crate) fn from_parts(node: Arc<Node>, array: Array) -> Tensor {
        Tensor { node, array }
    }

    /// The shape.
    pub fn shape(&self) -> &Dims {
        self.array.shape()
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.array.dtype()
    }

    /// Whether a gradient flows to or through this tensor.
    pub fn requires_grad(&self) -> bool {
        self.node.requires_grad()
    }

    /// Whether no recorded op made it.
    pub fn is_leaf(&self) -> bool {
        self.node.op.is_none()
    }

    /// Turns gradient tracking of a leaf on or off.
    ///
    /// # Errors
    /// `DType` for integers, `Graph` for a tensor that an op made.
    pub fn set_requires_grad(&self, value: bool) -> Result<()> {
        if value && !self.dtype().is_float() {
            return Err(Error::DType {
                op: "requires_grad",
                expected: "float32 or float64",
                got: self.dtype(),
            });
        }
        let has_history = !matches!(self.node.op, None | Some(Op::Detach));
        if has_history && !value {
            return Err(Error::Graph(
                "requires_grad: only a leaf's flag can be cleared; use detach() for a result of an op".into(),
            ));
        }
        self.node.requires_grad.store(value, Ordering::Relaxed);
        Ok(())
    }

    /// Asks backward to keep the gradient of a result.
    pub fn retain_grad(&self) {
        self.node.retains_grad.store(true, Ordering::Relaxed);
    }

    /// The accumulated gradient.
    pub fn grad(&self) -> Option<Tensor> {
        self.node.grad_slot().as_deref().cloned()
    }

    /// Replaces the accumulated gradient.
    ///
    /// # Errors
    /// `Shape` or `DType` when it does not fit the tensor.
    pub fn set_grad(&self, grad: Option<Tensor>) -> Result<()> {
        if let Some(grad) = &grad {
            if grad.shape() != self.shape() {
                return Err(Error::Shape {
                    op: "grad",
                    expected: format!("shape {}", self.shape()),
                    got: grad.shape().to_string(),
                });
            }
            if grad.dtype() != self.dtype() {
                return Err(Error::DType { op: "grad", expected: self.dtype().name(), got: grad.dtype() });
            }
        }
        *self.node.grad_slot() = grad.map(Box::new);
        Ok(())
    }

    /// The values as a constant leaf with memory of its own: this memory, where nobody shares it.
    pub(crate) fn owned(&self) -> Result<Tensor> {
        let is_ours = self.array.is_unshared() && self.array.is_contiguous();
        if is_ours { Ok(Tensor::constant(self.array.clone())) } else { self.contiguous_copy() }
    }

    /// The same values as a constant leaf. A trace still follows them: what is computed anew in each run stays
    /// so.
    pub fn detach(&self) -> Tensor {
        if is_tracing() {
            return with_grad_mode(false, || Tensor::record(Op::Detach, &[self], self.array.clone()));
        }
        Tensor::constant(self.array.clone())
    }

    /// Computes `op` and records it where a gradient or a trace needs it. The inputs' dtypes already
    /// fit the op: promotion is the caller's.
    pub(crate) fn apply(op: Op, inputs: &[&Tensor]) -> Result<Tensor> {
        let output = match op.view(inputs[0].array()) {
            Some(view) => view,
            None => {
                let metas: Operands<Meta> = inputs.iter().map(|t| Meta::of(&t.array)).collect();
                let meta = op.infer(&metas)?;
                let output = Array::stale(meta.dtype, meta.shape)?;
                let arrays: Operands<&Array> = inputs.iter().map(|t| &t.array).collect();
                op.run(&arrays, &output)?;
                // A trace computes with samples.
                if count::is_on() && !is_tracing() {
                    count::add(&op, &metas, &meta);
                }
                if anomaly::check().is_some() {
                    anomaly::forward(op.name(), inputs, &output)?;
                }
                output
            }
        };
        Ok(Tensor::record(op, inputs, output))
    }

    /// A node for an output that is already computed.
    pub(crate) fn record(op: Op, inputs: &[&Tensor], output: Array) -> Tensor {
        let flows =
            output.dtype().is_float() && is_grad_enabled() && inputs.iter().any(|t| t.requires_grad());
        if !flows && !is_tracing() {
            return Tensor::constant(output);
        }
        let saves = if is_tracing() { crate::op::Saves::ALL } else { op.saves() };
        let kept = inputs.iter().enumerate().map(|(i, t)| saves.input(i).then(|| t.array.clone())).collect();
        let saved = Saved::new(kept, saves.output.then(|| output.clone()));
        let parents = inputs.iter().map(|t| t.node.clone()).collect();
        let mut node = Node::new(Some(op), parents, &output, flows);
        node.saved = Mutex::new(Some(saved));
        if anomaly::check().is_some() {
            anomaly::mark(&node);
        }
        Tensor { node: Arc::new(node), array: output }
    }

    /// The value of a tensor with one element.
    ///
    /// # Errors
    /// `Shape` when it has another number of elements.
    pub fn item(&self) -> Result<f64> {
        if self.shape().elements() != 1 {
            return Err(Error::Shape {
                op: "item",
                expected: "one element".into(),
                got: format!("shape {}", self.shape()),
            });
        }
        Ok(crate::for_any!(self.dtype(), T => crate::dtype::Element::to_f64(self.array.read::<T>()[0])))
    }

    /// The values in row-major order.
    ///
    /// # Panics
    /// When `T` is not the dtype's type.
    pub fn to_vec<T: crate::dtype::Element>(&self) -> Vec<T> {
        let mut values = vec![T::default(); self.shape().elements()];
        ferrograd_kernels::elementwise::copy(
            self.shape(),
            &self.array.read::<T>(),
            self.array.strides(),
            &mut values,
        );
        values
    }

    /// Copies `source`, broadcast, into this leaf.
    ///
    /// # Errors
    /// `Graph` when the tensor is no leaf, or requires a gradient while gradients are recorded;
    /// `Broadcast` when the shape does not fit.
    pub fn copy_(&self, source: &Tensor) -> Result<()> {
        self.check_in_place("copy_")?;
        if Dims::broadcast("copy_", self.shape(), source.shape())? != *self.shape() {
            return Err(Error::Broadcast { op: "copy_", left: *self.shape(), right: *source.shape() });
        }
        // A cast or a copy also separates the source from this storage.
        let source = with_grad_mode(false, || {
            let source = source.detach().cast(self.dtype())?;
            if source.array.shares_storage(&self.array) { source.contiguous_copy() } else { Ok(source) }
        })?;
        let source = source.broadcast_to(self.shape())?.contiguous()?;
        crate::for_any!(self.dtype(), T => ferrograd_kernels::elementwise::scatter_into(
            self.shape(),
            &source.array.read::<T>(),
            &mut self.array.write::<T>(),
            self.array.strides(),
        ));
        self.array.storage().bump_version();
        Ok(())
    }

    /// Whether in-place writes are allowed now.
    ///
    /// # Errors
    /// `Graph`, saying what to do instead.
    pub fn check_in_place(&self, op: &'static str) -> Result<()> {
        if !self.is_leaf() {
            return Err(Error::Graph(format!(
                "{op}: in-place change of a result of {:?}; only leaves can be changed, use the op's result instead",
                self.node.op.as_ref().map_or("?", Op::name),
            )));
        }
        if self.requires_grad() && is_grad_enabled() {
            return Err(Error::Graph(format!(
                "{op}: in-place change of a leaf that requires a gradient; do it inside no_grad()"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(value: f64) -> Tensor {
        Tensor::leaf(Array::scalar(DType::F64, value).unwrap(), true)
    }

    #[test]
    fn a_million_node_chain_is_built_walked_backward_and_freed_on_a_small_stack() {
        std::thread::Builder::new()
            .stack_size(2 << 20)
            .spawn(|| {
                let x = scalar(1.0);
                let mut y = x.clone();
                for _ in 0..1_000_000 {
                    y = y.add_scalar(1.0).unwrap();
                }
                y.backward(None, false, false).unwrap();
                assert_eq!(x.grad().unwrap().item().unwrap(), 1.0);
                assert_eq!(y.item().unwrap(), 1_000_001.0);
                drop(y);
            })
            .unwrap()
            .join()
            .unwrap();
    }

    #[test]
    fn in_place_changes_are_refused_on_results_and_recorded_leaves() {
        let x = scalar(2.0);
        let y = x.exp().unwrap();
        assert!(y.copy_(&x).unwrap_err().to_string().contains("exp"));
        assert!(x.copy_(&x).unwrap_err().to_string().contains("no_grad"));
        with_grad_mode(false, || x.copy_(&scalar(3.0))).unwrap();
        assert_eq!(x.item().unwrap(), 3.0);
    }
}
