//! Where values lie: one arena, bytes reused as soon as their last reader has run.

use super::trace::{Definition, Leaf, Program, ValueId};
use crate::buffer::{ALIGNMENT, Arena, Array};
use crate::error::Result;
use crate::op::Op;

/// The array of every value; `None` for those that a fusion has absorbed.
pub(super) fn place(program: &Program, inputs: &mut Vec<Array>) -> Result<Vec<Option<Array>>> {
    let count = program.metas.len();
    let owner = owners(program);
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
    let mut offsets = vec![None; count];
    let mut free = FreeList::default();
    for value in 0..count {
        for result in results(program, value) {
            offsets[result] = Some(free.take(size(program, result)));
        }
        for other in 0..count {
            let ends = last[other] == value && owner[other] == other && other <= value;
            if let (true, Some(offset)) = (ends, offsets[other]) {
                free.give(offset, size(program, other));
            }
        }
        // A second result that nobody reads until later keeps its bytes: `last` is at least itself.
    }
    let arena = Arena::new(free.end)?;
    let mut arrays: Vec<Option<Array>> = vec![None; count];
    for value in 0..count {
        let meta = program.metas[value];
        let array = match &program.definitions[value] {
            Definition::Leaf(Leaf::External(array) | Leaf::Constant(array)) => Some(array.clone()),
            Definition::Leaf(Leaf::Input(i)) => {
                let array = Array::zeros(meta.dtype, meta.shape)?;
                if inputs.len() <= *i {
                    inputs.resize(*i + 1, array.clone());
                }
                inputs[*i] = array.clone();
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
    Ok(arrays)
}

/// The values that an instruction writes.
fn results(program: &Program, value: ValueId) -> Vec<ValueId> {
    match &program.definitions[value] {
        Definition::Op { op, .. } if !is_view(program, value, op) => vec![value],
        Definition::LossWithGradient { gradient, .. } => vec![value, *gradient],
        _ => vec![],
    }
}

/// The value whose bytes each value shows: itself, or the operand of a view.
fn owners(program: &Program) -> Vec<ValueId> {
    let mut owner: Vec<ValueId> = (0..program.metas.len()).collect();
    for value in 0..program.metas.len() {
        if let Definition::Op { op, operands } = &program.definitions[value]
            && is_view(program, value, op)
        {
            owner[value] = owner[operands[0]];
        }
    }
    owner
}

/// Whether a value's op has to run.
pub(super) fn is_instruction(program: &Program, value: ValueId, op: &Op) -> bool {
    !is_view(program, value, op)
}

/// Views are decided on strides; a reshape of a permuted value may have to copy.
fn is_view(program: &Program, value: ValueId, op: &Op) -> bool {
    match op {
        Op::Permute(_) | Op::Expand(_) | Op::Slice(_) => true,
        Op::Reshape(_) => layout(program, value).is_some(),
        _ => false,
    }
}

/// A stand-in array with the strides that the value will have, if it is a view.
fn layout(program: &Program, value: ValueId) -> Option<Array> {
    let Definition::Op { op, operands } = &program.definitions[value] else { return None };
    op.view(&stand_in(program, operands[0])?)
}

fn stand_in(program: &Program, value: ValueId) -> Option<Array> {
    match &program.definitions[value] {
        Definition::Leaf(Leaf::External(array) | Leaf::Constant(array)) => Some(array.clone()),
        Definition::Op { op, .. } if matches!(op, Op::Reshape(_) | Op::Permute(_) | Op::Expand(_) | Op::Slice(_)) => {
            layout(program, value).or_else(|| Array::zeros(program.metas[value].dtype, program.metas[value].shape).ok())
        }
        _ => Array::zeros(program.metas[value].dtype, program.metas[value].shape).ok(),
    }
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
