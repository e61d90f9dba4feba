//! Where values lie: one arena, bytes reused as soon as their last reader has run.

use super::trace::{Definition, Leaf, Program, ValueId};
use crate::buffer::{ALIGNMENT, Arena, Array};
use crate::error::Result;

/// Where values lie.
pub(super) struct Placement {
    /// The array of every value; `None` for those that a fusion has absorbed.
    pub(super) arrays: Vec<Option<Array>>,
    /// Placeholders by number; `None` where the program does not read one.
    pub(super) inputs: Vec<Option<Array>>,
    /// Whether an instruction has to run for the value: it is no leaf, no view, and not absorbed.
    pub(super) is_computed: Vec<bool>,
}

/// Lays the program's values out.
pub(super) fn place(program: &Program) -> Result<Placement> {
    let count = program.metas.len();
    let owner = owners(program)?;
    // The last instruction that reads an owner's bytes, through any view.
    let mut last = (0..count).collect::<Vec<ValueId>>();
    for value in 0..count {
        for &operand in program.operands(value) {
            last[owner[operand]] = last[owner[operand]].max(value);
        }
    }
    for &output in &program.outputs {
        last[owner[output]] = count;
    }
    let mut ending = vec![Vec::new(); count];
    for value in (0..count).filter(|&value| last[value] < count) {
        ending[last[value]].push(value);
    }
    let mut offsets = vec![None; count];
    let mut free = FreeList::default();
    for value in 0..count {
        for result in results(program, value, &owner) {
            offsets[result] = Some(free.take(size(program, result)));
        }
        for &other in &ending[value] {
            if let Some(offset) = offsets[other] {
                free.give(offset, size(program, other));
            }
        }
    }
    let arena = Arena::new(free.end)?;
    let mut arrays: Vec<Option<Array>> = vec![None; count];
    let mut inputs = Vec::new();
    for value in 0..count {
        let meta = program.metas[value];
        let array = match &program.definitions[value] {
            Definition::Leaf(Leaf::External(array) | Leaf::Constant(array)) => Some(array.clone()),
            Definition::Leaf(Leaf::Input(i)) => {
                let array = Array::zeros(meta.dtype, meta.shape)?;
                inputs.resize(inputs.len().max(*i + 1), None);
                inputs[*i] = Some(array.clone());
                Some(array)
            }
            Definition::Op { op, operands } if owner[value] != value => {
                let source = arrays[operands[0]].as_ref().expect("operands come first");
                Some(op.view(source).expect("owners() saw a view"))
            }
            _ => offsets[value].map(|offset| arena.array(offset, meta.dtype, meta.shape)),
        };
        arrays[value] = array;
    }
    let is_computed = (0..count).map(|value| results(program, value, &owner).contains(&value)).collect();
    Ok(Placement { arrays, inputs, is_computed })
}

/// The values that an instruction writes.
fn results(program: &Program, value: ValueId, owner: &[ValueId]) -> Vec<ValueId> {
    match &program.definitions[value] {
        Definition::Op { .. } if owner[value] == value => vec![value],
        Definition::LossWithGradient { gradient, .. } => vec![value, *gradient],
        _ => vec![],
    }
}

/// The value whose bytes each value shows: itself, or the owner of a view's operand.
///
/// Whether a reshape is a view depends on strides, so each value is stood in for by an array of the
/// strides that it will have. Untouched zeroed memory costs address space only.
fn owners(program: &Program) -> Result<Vec<ValueId>> {
    let mut owner: Vec<ValueId> = (0..program.metas.len()).collect();
    let mut stand_ins: Vec<Array> = Vec::with_capacity(owner.len());
    for value in 0..program.metas.len() {
        let view = match &program.definitions[value] {
            Definition::Leaf(Leaf::External(array) | Leaf::Constant(array)) => Some(array.clone()),
            Definition::Op { op, operands } if !operands.is_empty() => {
                let view = op.view(&stand_ins[operands[0]]);
                if view.is_some() {
                    owner[value] = owner[operands[0]];
                }
                view
            }
            _ => None,
        };
        let meta = program.metas[value];
        stand_ins.push(match view {
            Some(view) => view,
            None => Array::zeros(meta.dtype, meta.shape)?,
        });
    }
    Ok(owner)
}

fn size(program: &Program, value: ValueId) -> usize {
    let meta = program.metas[value];
    (meta.shape.elements() * meta.dtype.size()).next_multiple_of(ALIGNMENT).max(ALIGNMENT)
}

/// Free ranges of the arena, sorted; first fit.
#[derive(Default)]
struct FreeList {
    ranges: Vec<(usize, usize)>,
    end: usize,
}

impl FreeList {
    fn take(&mut self, size: usize) -> usize {
        if let Some(i) = self.ranges.iter().position(|&(_, length)| length >= size) {
            let (start, length) = self.ranges[i];
            if length == size {
                self.ranges.remove(i);
            } else {
                self.ranges[i] = (start + size, length - size);
            }
            return start;
        }
        let start = self.end;
        self.end += size;
        start
    }

    fn give(&mut self, start: usize, size: usize) {
        let i = self.ranges.partition_point(|&(s, _)| s < start);
        self.ranges.insert(i, (start, size));
        if i + 1 < self.ranges.len() && start + size == self.ranges[i + 1].0 {
            self.ranges[i].1 += self.ranges.remove(i + 1).1;
        }
        if i > 0 && self.ranges[i - 1].0 + self.ranges[i - 1].1 == start {
            self.ranges[i - 1].1 += self.ranges.remove(i).1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_ranges_are_joined_and_reused() {
        let mut free = FreeList::default();
        let (a, b, c) = (free.take(64), free.take(128), free.take(64));
        free.give(a, 64);
        free.give(c, 64);
        free.give(b, 128);
        assert_eq!(free.ranges, vec![(0, 256)]);
        assert_eq!(free.take(256), 0);
        assert_eq!(free.end, 256);
    }
}
