//! The birthplace of a NaN: which op made the first one, in which layer, from which operands.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;

use crate::buffer::Array;
use crate::dtype::Element;
use crate::error::{Error, Result};
use crate::for_any;
use crate::shape::Dims;
use crate::tensor::{Node, Tensor, is_tracing};

/// What is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// NaN.
    Nan,
    /// NaN and infinity.
    NonFinite,
    /// Everything is: only the places of nodes are remembered.
    Nothing,
}

impl Check {
    /// Number, in row-major order, and value of the first element that is not allowed.
    fn first(self, array: &Array) -> Option<(usize, f64)> {
        let is_bad = |value: f64| value.is_nan() || self == Check::NonFinite && value.is_infinite();
        if self == Check::Nothing || !array.dtype().is_float() {
            return None;
        }
        for_any!(array.dtype(), T => {
            let copy;
            let guard = array.read::<T>();
            let values: &[T] = if array.is_contiguous() { &guard } else {
                copy = Tensor::constant(array.clone()).to_vec::<T>();
                &copy
            };
            values.iter().map(|value| value.to_f64()).enumerate().find(|(_, value)| is_bad(*value))
        })
    }
}

/// Where in a model a node was made.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Dotted name of the innermost module.
    pub layer: Option<Arc<str>>,
    /// The op whose gradient the value is, or is part of; `None` for values of forward.
    pub gradient_of: Option<Arc<str>>,
    /// Whether it is looked at. Parts of a gradient are not: a rule may mask them.
    pub is_whole: bool,
}

/// What is known of a value that is not allowed.
#[derive(Debug)]
pub struct Birth {
    /// The op; in backward that of forward, whose gradient it is.
    pub op: String,
    /// `forward`, `backward`, `jvp` or `update`.
    pub pass: &'static str,
    /// Dotted name of the innermost module; of an update the number of the parameter.
    pub layer: Option<Arc<str>>,
    /// Number of the batch, in a plan.
    pub batch: Option<usize>,
    /// What the op was computed from; in backward the gradient comes first.
    pub inputs: Vec<Tensor>,
    /// Where in the value, as Python writes a tuple.
    pub at: String,
    /// What is not allowed.
    pub value: f64,
    /// The caller's own error that said so, where it came through code of the caller.
    pub source: Option<Box<dyn Any + Send + Sync>>,
}

impl fmt::Display for Birth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.pass {
            "forward" => "result",
            "backward" => "gradient",
            "jvp" => "tangent",
            _ => "parameter",
        };
        write!(f, "{}: the {what} is {} at {}", self.op, self.value, self.at)?;
        if let Some(layer) = self.layer.as_ref().filter(|_| self.pass != "update") {
            write!(f, ", in layer {layer}")?;
        }
        self.inputs
            .iter()
            .enumerate()
            .try_for_each(|(i, x)| write!(f, "; operand {i}: {}", describe(x.array())))
    }
}

/// Dtype, shape and range of the values.
fn describe(array: &Array) -> String {
    for_any!(array.dtype(), T => {
        let values = Tensor::constant(array.clone()).to_vec::<T>();
        let is_finite = |value: &&T| value.to_f64().is_finite();
        let pick = |best: Option<T>, value: &T, wins: fn(f64, f64) -> bool| match best {
            Some(best) if !wins(value.to_f64(), best.to_f64()) => Some(best),
            _ => Some(*value),
        };
        let least = values.iter().filter(is_finite).fold(None, |best, value| pick(best, value, |a, b| a < b));
        let largest = values.iter().filter(is_finite).fold(None, |best, value| pick(best, value, |a, b| a > b));
        let mut text = format!("{} {}", array.dtype(), array.shape());
        if let (Some(least), Some(largest)) = (least, largest) {
            text += &format!(" from {least:?} to {largest:?}");
        }
        match values.iter().filter(|value| !is_finite(value)).count() {
            0 => text,
            bad => text + &format!(", {bad} of {} not finite", values.len()),
        }
    })
}

thread_local! {
    static CHECK: Cell<Option<Check>> = const { Cell::new(None) };
    /// Names of the modules that are being called.
    static LAYERS: RefCell<Vec<Arc<str>>> = const { RefCell::new(Vec::new()) };
    /// The place of what is being computed in backward.
    static PASS: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// What this thread looks for.
pub fn check() -> Option<Check> {
    CHECK.get()
}

/// Sets what this thread looks for; returns what it looked for before.
pub fn set_check(check: Option<Check>) -> Option<Check> {
    CHECK.replace(check)
}

/// Begins the call of a module.
pub fn enter_layer(name: &str) {
    LAYERS.with_borrow_mut(|layers| layers.push(name.into()));
}

/// Ends the innermost call.
pub fn leave_layer() {
    LAYERS.with_borrow_mut(Vec::pop);
}

/// Remembers where a node was made.
pub(crate) fn mark(node: &Node) {
    let place = PASS.with_borrow(Clone::clone).unwrap_or_else(|| Place {
        layer: layer(),
        gradient_of: None,
        is_whole: true,
    });
    node.set_place(place);
}

/// Looks at the result of an op. A trace computes with samples: its steps are looked at when they run.
pub(crate) fn forward(op: &str, inputs: &[&Tensor], output: &Array) -> Result<()> {
    let Some(check) = check().filter(|_| !is_tracing() && PASS.with_borrow(Option::is_none)) else {
        return Ok(());
    };
    let Some(found) = check.first(output) else { return Ok(()) };
    Err(birth(op, "forward", layer(), output.shape(), found, inputs.iter().map(|x| x.array())))
}

/// Runs a rule of backward or of forward mode for `node`: its parts are not looked at.
pub(crate) fn in_pass<R>(node: &Node, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<Place>);
    impl Drop for Restore {
        fn drop(&mut self) {
            PASS.replace(self.0.take());
        }
    }
    if check().is_none() {
        return f();
    }
    let layer = node.place().and_then(|place| place.layer);
    let gradient_of = Some(node.op().map_or("leaf", |op| op.name()).into());
    let _restore = Restore(PASS.replace(Some(Place { layer, gradient_of, is_whole: false })));
    f()
}

/// Has a plan look at a value that is more than a part of a gradient.
pub(crate) fn mark_whole(made: &Tensor) {
    if let Some(place) = made.node().place() {
        made.node().set_place(Place { is_whole: true, ..place });
    }
}

/// Looks at a whole gradient, or tangent, that the rule of `node` made from `inputs`.
pub(crate) fn derivative<'a>(
    pass: &'static str,
    node: &Node,
    made: &Tensor,
    inputs: impl IntoIterator<Item = &'a Array>,
) -> Result<()> {
    let Some(check) = check() else { return Ok(()) };
    if is_tracing() {
        mark_whole(made);
        return Ok(());
    }
    let Some(found) = check.first(made.array()) else { return Ok(()) };
    let (op, layer) = (node.op().map_or("leaf", |op| op.name()), node.place().and_then(|place| place.layer));
    Err(birth(op, pass, layer, made.shape(), found, inputs))
}

/// Looks at what an instruction of a plan made.
pub(crate) fn instruction(
    check: Check,
    op: &str,
    place: &Place,
    operands: &[&Array],
    output: &Array,
) -> Result<()> {
    let Some(found) = check.first(output) else { return Ok(()) };
    let (op, pass) = match &place.gradient_of {
        Some(op) => (&**op, "backward"),
        None => (op, "forward"),
    };
    Err(birth(op, pass, place.layer.clone(), output.shape(), found, operands.iter().copied()))
}

/// Looks at parameters after an update.
///
/// # Errors
/// `NonFinite`, with the number of the parameter as its layer.
pub fn update<'a>(check: Option<Check>, parameters: impl Iterator<Item = (usize, &'a Array)>) -> Result<()> {
    let Some(check) = check else { return Ok(()) };
    for (number, array) in parameters {
        if let Some(found) = check.first(array) {
            let layer = Some(number.to_string().into());
            return Err(birth("update", "update", layer, array.shape(), found, [array]));
        }
    }
    Ok(())
}

#[cold]
fn birth<'a>(
    op: &str,
    pass: &'static str,
    layer: Option<Arc<str>>,
    shape: &Dims,
    (mut number, value): (usize, f64),
    inputs: impl IntoIterator<Item = &'a Array>,
) -> Error {
    let mut at = vec![0; shape.rank()];
    for (place, &size) in at.iter_mut().zip(shape.iter()).rev() {
        (*place, number) = (number % size, number / size);
    }
    let copied = |array: &Array| Tensor::constant(array.clone()).contiguous_copy();
    // The values as they are now: a plan's arrays are written again.
    match inputs.into_iter().map(copied).collect() {
        Ok(inputs) => Error::NonFinite(Box::new(Birth {
            op: op.to_owned(),
            pass,
            layer,
            batch: None,
            inputs,
            at: Dims::from_slice(&at).to_string(),
            value,
            source: None,
        })),
        Err(error) => error,
    }
}

/// The innermost module that is being called.
pub(crate) fn layer() -> Option<Arc<str>> {
    LAYERS.with_borrow(|layers| layers.last().cloned())
}

struct Restore(Option<Check>);

impl Drop for Restore {
    fn drop(&mut self) {
        set_check(self.0);
    }
}

/// Runs `f` without a look at what it makes.
pub fn unwatched<R>(f: impl FnOnce() -> R) -> R {
    let _restore = Restore(set_check(None));
    f()
}

/// Runs `f` with the places of the nodes that it makes remembered.
pub fn placed<R>(f: impl FnOnce() -> R) -> R {
    let _restore = Restore(set_check(Some(Check::Nothing)));
    f()
}

/// What this thread looks for in values.
pub(crate) fn looked_for() -> Option<Check> {
    check().filter(|check| *check != Check::Nothing)
}

/// Adds the layer where none is known.
pub(crate) fn in_layer(error: Error, layer: &Option<Arc<str>>) -> Error {
    match error {
        Error::NonFinite(birth) if birth.layer.is_none() => {
            Error::NonFinite(Box::new(Birth { layer: layer.clone(), ..*birth }))
        }
        other => other,
    }
}

/// Adds the number of the batch.
pub(crate) fn in_batch(error: Error, batch: usize) -> Error {
    match error {
        Error::NonFinite(birth) => Error::NonFinite(Box::new(Birth { batch: Some(batch), ..*birth })),
        other => other,
    }
}
