//! How many operations a thread makes.

use std::cell::Cell;

use crate::op::{Along, Binary, Meta, Op};
use crate::shape::Dims;

/// Operations so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// All but those below.
    pub operations: u64,
    /// Multiplications followed by an addition in matrix products, 2 operations each.
    pub multiply_adds: u64,
    /// Additions where several gradients arrive at one value, or several tangents at one result.
    pub sums: u64,
}

thread_local! {
    static COUNT: Cell<Option<Count>> = const { Cell::new(None) };
    static IS_SUM: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread counts.
pub(crate) fn is_on() -> bool {
    COUNT.get().is_some()
}

/// Counts what `f` makes on this thread; a count around this one goes on.
pub fn counted<R>(f: impl FnOnce() -> R) -> (R, Count) {
    struct Outer(Option<Count>);
    impl Drop for Outer {
        fn drop(&mut self) {
            let inner = COUNT.replace(self.0.take()).unwrap_or_default();
            COUNT.set(COUNT.get().map(|outer| Count {
                operations: outer.operations + inner.operations,
                multiply_adds: outer.multiply_adds + inner.multiply_adds,
                sums: outer.sums + inner.sums,
            }));
        }
    }
    let outer = Outer(COUNT.replace(Some(Count::default())));
    let result = f();
    let count = COUNT.get().unwrap_or_default();
    drop(outer);
    (result, count)
}

/// What the innermost `counted` of this thread has counted so far, ended ones inside it included; zeros outside.
pub fn so_far() -> Count {
    COUNT.get().unwrap_or_default()
}

/// Counts what `f` makes as sums of gradients.
pub(crate) fn as_sum<R>(f: impl FnOnce() -> R) -> R {
    let before = IS_SUM.replace(true);
    let result = f();
    IS_SUM.set(before);
    result
}

pub(crate) fn add(op: &Op, operands: &[Meta], result: &Meta) {
    let made = operations(op, operands, result);
    COUNT.set(COUNT.get().map(|mut count| {
        count.multiply_adds += multiply_adds(op, operands.first().map(|meta| &meta.shape), &result.shape);
        *(if IS_SUM.get() { &mut count.sums } else { &mut count.operations }) += made;
        count
    }));
}

/// Of a matrix product, by the shapes of its first operand and its result; other ops have none.
pub(crate) fn multiply_adds(op: &Op, first: Option<&Dims>, result: &Dims) -> u64 {
    match op {
        Op::MatMul | Op::Linear => {
            (result.elements() * first.and_then(|shape| shape.last()).copied().unwrap_or(1)) as u64
        }
        _ => 0,
    }
}

/// A multiply-add is two; an elementwise op is one an element, a reduction one an element of its operand; moving
/// values is none.
fn operations(op: &Op, operands: &[Meta], result: &Meta) -> u64 {
    let elements = |meta: &Meta| meta.shape.elements() as u64;
    let first = || operands.first().map_or(0, elements);
    match op {
        Op::MatMul | Op::Linear => {
            let products = multiply_adds(op, operands.first().map(|meta| &meta.shape), &result.shape);
            // The bias is added.
            2 * products + elements(result) * u64::from(operands.len() > 2)
        }
        // g y (1 - y) and the like
        Op::Binary(
            Binary::SigmoidGrad
            | Binary::TanhGrad
            | Binary::EluGrad(_)
            | Binary::SoftplusGrad { .. }
            | Binary::CurveGrad(_),
        ) => 3 * elements(result),
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Where | Op::LossGrad(_) => elements(result),
        Op::Reduce(_)
        | Op::Softmax { .. }
        | Op::Loss(_)
        | Op::ScatterAddRows { .. }
        | Op::Along { along: Along::CumSum { .. } | Along::ScatterAdd { .. }, .. } => first(),
        Op::Cast(_)
        | Op::Reshape(_)
        | Op::Copy
        | Op::Detach
        | Op::Permute(_)
        | Op::Expand(_)
        | Op::Slice(_)
        | Op::Embed(_)
        | Op::Cat { .. }
        | Op::GatherRows
        | Op::Along { .. }
        | Op::CountLabels { .. }
        | Op::Draw(_)
        | Op::Dense(_)
        | Op::Custom(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Array;
    use crate::dtype::DType;
    use crate::tensor::Tensor;

    #[test]
    fn products_elements_and_sums_are_counted_apart() {
        let leaf = |shape: &[usize]| {
            Tensor::leaf(Array::full(DType::F64, Dims::from_slice(shape), 1.0).unwrap(), true)
        };
        let (x, w) = (leaf(&[5, 3]), leaf(&[3, 2]));
        let (y, count) = counted(|| x.matmul(&w).unwrap().exp().unwrap());
        assert_eq!(count, Count { operations: 2 * 30 + 10, multiply_adds: 30, sums: 0 });
        let (z, outer) = counted(|| {
            let (z, inner) = counted(|| y.mul(&y).unwrap());
            assert_eq!(inner, Count { operations: 10, multiply_adds: 0, sums: 0 });
            let z = z.neg().unwrap();
            assert_eq!(so_far().operations, 20);
            z
        });
        assert_eq!(outer.operations, 20);
        assert_eq!(so_far(), Count::default());
        let (_, count) = counted(|| z.sum(&[], false).unwrap().backward(None, false, false).unwrap());
        // neg, twice mul with one sum, exp, two products; and the sum forward.
        assert_eq!(count, Count { operations: 10 + 10 + 20 + 10 + 2 * (60), multiply_adds: 60, sums: 10 });
        assert!(!is_on());
    }
}
