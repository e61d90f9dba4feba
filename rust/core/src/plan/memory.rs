//! Where values lie: one arena, bytes reused as soon as their last reader has run.

use std::ops::Range;

use super::schedule::Schedule;
use super::trace::{Definition, Leaf, Program, ValueId};
use crate::buffer::{ALIGNMENT, Arena, Array};
use crate::error::Result;
use crate::op::Op;
use crate::shape::Dims;

/// Where values lie.
pub(super) struct Placement {
    /// The array of every value; `None` for those that a fusion has absorbed.
    pub(super) arrays: Vec<Option<Array>>,
    /// Placeholders by number; `None` where the program does not read one.
    pub(super) inputs: Vec<Option<Array>>,
    /// The value whose bytes each value shows.
    owner: Vec<ValueId>,
    /// Byte offsets of the owners in the arena.
    offsets: Vec<Option<usize>>,
    /// Whether an owner is written block by block.
    is_by_rows: Vec<bool>,
    arena: Arena,
}

impl Placement {
    /// Some rows of a value. What is written block by block gets a storage for the block, so that threads with
    /// different blocks do not wait for each other.
    pub(super) fn rows(&self, value: ValueId, rows: Range<usize>) -> Array {
        let full = self.array(value);
        let mut shape = *full.shape();
        shape[0] = rows.len();
        let owner = self.owner[value];
        match self.offsets[owner] {
            Some(offset) if self.is_by_rows[owner] => {
                let pitch = self.array(owner).row_stride();
                let start = offset + rows.start * pitch * full.dtype().size();
                let block = self.arena.array(start, full.dtype(), Dims::from_slice(&[rows.len() * pitch]));
                block.view(shape, *full.strides(), full.offset())
            }
            _ => full.view(shape, *full.strides(), full.offset() + rows.start * full.strides()[0]),
        }
    }

    /// Some rows of a value that a fused product writes, with their padding.
    pub(super) fn frame(&self, value: ValueId, rows: Range<usize>) -> Array {
        let pitch = self.array(value).row_stride();
        let block = self.rows(value, rows.clone());
        block.view(Dims::from_slice(&[rows.len(), pitch]), Dims::from_slice(&[pitch, 1]), block.offset())
    }

    /// All of a value.
    ///
    /// # Panics
    /// When a fusion absorbed it: a bug in the caller.
    pub(super) fn array(&self, value: ValueId) -> &Array {
        self.arrays[value].as_ref().expect("an operand is never absorbed")
    }
}

/// Whose bytes each value shows, and an array of the strides that it will have.
pub(super) struct Views {
    /// The value itself, or the owner of a view's operand.
    pub(super) owner: Vec<ValueId>,
    /// Untouched zeroed memory, which costs address space only.
    pub(super) stand_ins: Vec<Array>,
}

impl Views {
    /// Of a program whose values are contiguous but for those with padded rows.
    pub(super) fn new(program: &Program, padded: &[bool]) -> Result<Views> {
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
                None if padded[value] => {
                    let (rows, width) = (meta.shape[0], meta.shape[1]);
                    let pitch = padded_width(width, meta.dtype.size());
                    Array::zeros(meta.dtype, Dims::from_slice(&[rows * pitch]))?.view(
                        meta.shape,
                        Dims::from_slice(&[pitch, 1]),
                        0,
                    )
                }
                None => Array::zeros(meta.dtype, meta.shape)?,
            });
        }
        Ok(Views { owner, stand_ins })
    }
}

/// An odd number of cache lines: walking down a column then visits all sets of a cache, not a few.
fn padded_width(width: usize, size: usize) -> usize {
    ((width * size).div_ceil(ALIGNMENT) | 1) * ALIGNMENT / size
}

/// Which values get padded rows: matrices that fused products write or that are gathered, and that are read by
/// instructions which take any strides.
pub(super) fn padded(
    program: &Program,
    views: &Views,
    schedule: &Schedule,
    is_product: &[bool],
) -> Vec<bool> {
    let count = program.metas.len();
    let mut padded: Vec<bool> = (0..count)
        .map(|value| {
            let is_source =
                is_product[value] || matches!(program.definitions[value], Definition::Leaf(Leaf::Input(_)));
            let meta = &program.metas[value];
            is_source && schedule.is_by_rows(value) && meta.shape.rank() == 2 && meta.dtype.is_float()
        })
        .collect();
    for value in 0..count {
        let takes_strides = match &program.definitions[value] {
            Definition::Op { op, .. } => {
                use Op::{Binary, Dense, Detach, MatMul, Permute, Unary};
                matches!(op, MatMul | Dense(_) | Unary(_) | Binary(_) | Detach | Permute(_))
            }
            _ => false,
        };
        if !takes_strides {
            for &operand in program.operands(value) {
                padded[views.owner[operand]] = false;
            }
        }
    }
    for &output in &program.outputs {
        padded[views.owner[output]] = false;
    }
    padded
}

/// Lays the program's values out. `kept` are read after the last phase.
pub(super) fn place(
    program: &Program,
    views: Views,
    schedule: &Schedule,
    kept: &[ValueId],
) -> Result<Placement> {
    let count = program.metas.len();
    let Views { owner, stand_ins } = views;
    let end = (schedule.count, count);
    // The last instruction, and its phase, that reads an owner's bytes through any view.
    let mut last: Vec<(usize, ValueId)> = (0..count).map(|v| (schedule.phase[v].unwrap_or(0), v)).collect();
    for value in 0..count {
        for &operand in program.operands(value) {
            let at = schedule.phase[value].unwrap_or(0);
            last[owner[operand]] = last[owner[operand]].max((at, value));
        }
    }
    for &value in program.outputs.iter().chain(kept) {
        last[owner[value]] = end;
    }
    // The instruction that writes each value: its own, or the loss's for a gradient.
    let mut writer: Vec<ValueId> = (0..count).collect();
    for value in 0..count {
        if let Definition::LossWithGradient { gradient, .. } = program.definitions[value] {
            writer[gradient] = value;
        }
    }
    let mut order: Vec<ValueId> = (0..count).filter(|&v| schedule.phase[v].is_some()).collect();
    order.sort_by_key(|&v| (schedule.phase[v], writer[v], v));
    let size = |value: ValueId| {
        let array = &stand_ins[value];
        let elements = match array.shape().first() {
            Some(&rows) => rows * array.row_stride(),
            None => 1,
        };
        (elements * array.dtype().size()).next_multiple_of(ALIGNMENT).max(ALIGNMENT)
    };
    let mut offsets = vec![None; count];
    let mut free = FreeList::default();
    let mut alive: Vec<ValueId> = Vec::new();
    for &value in &order {
        let phase = schedule.phase[value].unwrap_or(0);
        // Inside an odd phase blocks are at different instructions: bytes are free when it is over.
        alive.retain(|&other| {
            let (last_phase, reader) = last[other];
            let is_free = last_phase < phase
                || last_phase == phase && phase.is_multiple_of(2) && reader < writer[value];
            if let (true, Some(offset)) = (is_free, offsets[other]) {
                free.give(offset, size(other));
            }
            !is_free
        });
        offsets[value] = Some(free.take(size(value)));
        // Inputs may be filled before the run, by a caller without tables.
        if !matches!(program.definitions[value], Definition::Leaf(_)) {
            alive.push(value);
        }
    }
    let arena = Arena::new(free.end)?;
    let mut arrays: Vec<Option<Array>> = vec![None; count];
    let mut inputs = Vec::new();
    for value in 0..count {
        let stand_in = &stand_ins[value];
        let placed = offsets[value].map(|offset| {
            let elements = Dims::from_slice(&[size(value) / stand_in.dtype().size()]);
            arena.array(offset, stand_in.dtype(), elements).view(*stand_in.shape(), *stand_in.strides(), 0)
        });
        arrays[value] = match &program.definitions[value] {
            Definition::Leaf(Leaf::External(array) | Leaf::Constant(array)) => Some(array.clone()),
            Definition::Leaf(Leaf::Input(i)) => {
                inputs.resize(inputs.len().max(*i + 1), None);
                inputs[*i] = placed.clone();
                placed
            }
            Definition::Op { op, operands } if owner[value] != value => {
                let source = arrays[operands[0]].as_ref().expect("operands come first");
                Some(op.view(source).expect("the stand-in has a view"))
            }
            _ => placed,
        };
    }
    let is_by_rows = (0..count).map(|value| schedule.is_by_rows(value)).collect();
    Ok(Placement { arrays, inputs, owner, offsets, is_by_rows, arena })
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

    #[test]
    fn rows_take_an_odd_number_of_lines() {
        for (width, padded) in [(1, 16), (16, 16), (17, 48), (512, 528), (784, 784), (4096, 4112)] {
            assert_eq!(padded_width(width, 4), padded);
        }
    }
}
