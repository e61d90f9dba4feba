//! What a plan consists of, to be drawn: its instructions in the order of their names, what each reads and gives, and
//! the values from outside.

use super::trace::{Definition, Leaf, Program, ValueId};
use crate::anomaly::Place;
use crate::op::Meta;

/// An instruction.
#[derive(Clone)]
pub struct Part {
    /// What it computes; a `+` joins operations that are one pass.
    pub name: String,
    /// What it reads, views by what they show.
    pub reads: Vec<ValueId>,
    /// What it writes: nothing, if it only updates.
    pub writes: Vec<ValueId>,
    /// Which of the trained parameters it updates.
    pub updates: Vec<usize>,
}

/// Where a value comes from.
#[derive(Clone, Copy)]
pub enum Origin {
    /// Placeholder of this number.
    Input(usize),
    /// The leaf of this node.
    External(u64),
    /// A value that never changes, with its number if it is one.
    Constant(Option<f64>),
    /// An instruction.
    Instruction,
}

/// A value.
#[derive(Clone)]
pub struct Value {
    /// Where it comes from.
    pub origin: Origin,
    /// Its dtype and shape.
    pub meta: Meta,
    /// Where in the model it is computed, if that was asked for.
    pub place: Option<Place>,
}

/// A plan's instructions and values.
#[derive(Clone, Default)]
pub struct Outline {
    /// In the order of the names.
    pub parts: Vec<Part>,
    /// All values, views and those that an instruction keeps to itself, too; none where places were not asked for.
    pub values: Vec<Value>,
    /// The values that the plan's caller gets, views by what they show.
    pub outputs: Vec<ValueId>,
}

impl Part {
    /// The instruction of a value; `owner` has what each value shows.
    pub(super) fn of(program: &Program, owner: &[ValueId], name: String, value: ValueId) -> Part {
        let reads = program.operands(value).iter().map(|&operand| owner[operand]).collect();
        let writes = match program.definitions[value] {
            Definition::LossWithGradient { gradient, .. } => vec![value, gradient],
            _ => vec![value],
        };
        Part { name, reads, writes, updates: Vec::new() }
    }
}

/// The values of a program that is traced to be drawn: with the places of its values.
pub(super) fn values(program: &Program) -> Vec<Value> {
    if program.places.iter().all(Option::is_none) {
        return Vec::new();
    }
    let origin = |value: ValueId| match &program.definitions[value] {
        Definition::Leaf(Leaf::Input(number)) => Origin::Input(*number),
        Definition::Leaf(Leaf::External(_)) => Origin::External(program.ids[value]),
        Definition::Leaf(Leaf::Constant(array)) if array.shape().elements() == 1 => Origin::Constant(Some(
            crate::for_any!(array.dtype(), T => crate::dtype::Element::to_f64(array.read::<T>()[0])),
        )),
        Definition::Leaf(Leaf::Constant(_)) => Origin::Constant(None),
        _ => Origin::Instruction,
    };
    let value =
        |i: ValueId| Value { origin: origin(i), meta: program.metas[i], place: program.places[i].clone() };
    (0..program.metas.len()).map(value).collect()
}
