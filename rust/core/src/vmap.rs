//! Many examples at once: a graph that was traced for one is computed again with a leading dimension.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use crate::buffer::Array;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Along, Compare, Loss, Op, Reduce, Region};
use crate::plan::without_assignments;
use crate::shape::Dims;
use crate::tensor::{Node, Tensor, set_tracing, with_grad_mode};

/// What becomes of random numbers that the function draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Randomness {
    /// They are refused.
    Error,
    /// Each example has numbers of its own.
    Different,
    /// All examples have the same.
    Same,
}

thread_local! {
    static RANDOMNESS: Cell<Option<Randomness>> = const { Cell::new(None) };
}

/// What holds for the function that is being traced on this thread; `None` outside.
pub fn randomness() -> Option<Randomness> {
    RANDOMNESS.get()
}

fn refused() -> Error {
    let text = "vmap: the function draws random numbers; give randomness='different' or 'same', or draw them \
                outside, for the whole batch";
    Error::Graph(text.into())
}

/// # Errors
/// `Graph` where random numbers are refused.
pub fn check_randomness() -> Result<()> {
    if randomness() == Some(Randomness::Error) { Err(refused()) } else { Ok(()) }
}

/// Runs `f` with every op of this thread recorded, on examples; a trace around it goes on afterwards. Says too
/// whether `f` assigned to buffers, which cannot be done for many examples at once.
pub fn traced<R>(randomness: Randomness, f: impl FnOnce() -> R) -> (R, bool) {
    struct Restore(bool, Option<Randomness>);
    impl Drop for Restore {
        fn drop(&mut self) {
            set_tracing(self.0);
            RANDOMNESS.set(self.1);
        }
    }
    let _restore = Restore(set_tracing(true), RANDOMNESS.replace(Some(randomness)));
    without_assignments(f)
}

/// The batch in pieces of at most `chunk` examples, which are computed one after the other. The numbers are the same.
///
/// # Errors
/// Those of [`replay`].
pub fn replay_in_chunks(
    outputs: &[Tensor],
    examples: &[Tensor],
    values: &[Tensor],
    size: usize,
    chunk: usize,
    randomness: Randomness,
) -> Result<Vec<(Tensor, bool)>> {
    if chunk >= size {
        return replay(outputs, examples, values, 0..size, randomness);
    }
    let mut parts: Vec<Vec<(Tensor, bool)>> = Vec::new();
    for start in (0..size).step_by(chunk) {
        let range = start..size.min(start + chunk);
        let piece = |x: &Tensor| x.narrow(0, start, range.len());
        let pieces = values.iter().map(piece).collect::<Result<Vec<_>>>()?;
        parts.push(replay(outputs, examples, &pieces, range, randomness)?);
    }
    let joined = |number: usize| {
        let (first, is_batched) = &parts[0][number];
        if !is_batched {
            return Ok((first.clone(), false));
        }
        let pieces: Vec<Tensor> = parts.iter().map(|part| part[number].0.clone()).collect();
        Ok((Tensor::cat(&pieces, 0)?, true))
    };
    (0..outputs.len()).map(joined).collect()
}

/// Whether `node` was computed from one of the leaves `inputs`.
pub fn depends(node: &Arc<Node>, inputs: &[u64]) -> bool {
    let oldest = inputs.iter().copied().min().unwrap_or(u64::MAX);
    let mut seen = std::collections::HashSet::new();
    let mut pending = vec![node.clone()];
    while let Some(node) = pending.pop() {
        if inputs.contains(&node.id()) {
            return true;
        }
        pending.extend(node.parents().iter().filter(|p| p.id() >= oldest && seen.insert(p.id())).cloned());
    }
    false
}

/// The traced `outputs` for the examples of these numbers: `values` have one more dimension, of as many, in front of that
/// of their examples. Each result comes with whether it has that dimension too; one that depends on no input has not.
///
/// # Errors
/// `Graph` for random numbers and for ops without a rule; those of the ops.
pub fn replay(
    outputs: &[Tensor],
    examples: &[Tensor],
    values: &[Tensor],
    range: Range<usize>,
    randomness: Randomness,
) -> Result<Vec<(Tensor, bool)>> {
    let size = range.len();
    let oldest = examples.iter().map(|x| x.node().id()).min().unwrap_or(u64::MAX);
    let mut nodes: BTreeMap<u64, Arc<Node>> = BTreeMap::new();
    let mut pending: Vec<Arc<Node>> = outputs.iter().map(|y| y.node().clone()).collect();
    while let Some(node) = pending.pop() {
        if node.id() >= oldest && nodes.insert(node.id(), node.clone()).is_none() {
            pending.extend(node.parents().iter().cloned());
        }
    }
    let mut batched: HashMap<u64, Tensor> =
        examples.iter().zip(values).map(|(x, value)| (x.node().id(), value.clone())).collect();
    for node in nodes.values() {
        let Some(op) = node.op() else { continue };
        if let Op::Draw(draw) = op {
            match randomness {
                Randomness::Error => return Err(refused()),
                Randomness::Different => {
                    batched.insert(node.id(), draw.for_examples(range.start, size)?);
                }
                Randomness::Same => {}
            }
            continue;
        }
        if !node.parents().iter().any(|parent| batched.contains_key(&parent.id())) {
            continue;
        }
        let operands: Vec<Operand> = node
            .parents()
            .iter()
            .enumerate()
            .map(|(i, parent)| match batched.get(&parent.id()) {
                Some(value) => Ok(Operand { value: value.clone(), is_batched: true, size }),
                None => Ok(Operand { value: known(node, i, parent)?, is_batched: false, size }),
            })
            .collect::<Result<_>>()?;
        // Where the function recorded nothing, as inside no_grad(), nothing is recorded now.
        let result = with_grad_mode(node.requires_grad(), || apply(op, node.shape(), &operands, size))?;
        batched.insert(node.id(), result);
    }
    let result = |y: &Tensor| match batched.get(&y.node().id()) {
        Some(value) => (value.clone(), true),
        None => (y.clone(), false),
    };
    Ok(outputs.iter().map(result).collect())
}

/// Operand i, which depends on no input.
fn known(node: &Arc<Node>, i: usize, parent: &Arc<Node>) -> Result<Tensor> {
    let array = node.saved().as_ref().and_then(|saved| saved.inputs.get(i).cloned().flatten());
    let lost = || Error::Graph("vmap: a value of the function was freed while it was traced".into());
    array.map(|array| Tensor::from_parts(parent.clone(), array)).ok_or_else(lost)
}

/// An operand of one op.
struct Operand {
    value: Tensor,
    is_batched: bool,
    size: usize,
}

impl Operand {
    /// With the leading dimension, and ones behind it up to the rank of the example's result.
    fn aligned(&self, rank: usize) -> Result<Tensor> {
        if !self.is_batched {
            // Shorter shapes are extended in front.
            return Ok(self.value.clone());
        }
        let own = &self.value.shape()[1..];
        let ones = vec![1; rank.saturating_sub(own.len())];
        let shape: Vec<usize> = [self.size].into_iter().chain(ones).chain(own.iter().copied()).collect();
        self.value.reshape(&Dims::new("vmap", &shape)?)
    }

    /// With the leading dimension, repeated where it has none.
    fn spread(&self) -> Result<Tensor> {
        if self.is_batched {
            return Ok(self.value.clone());
        }
        self.value.broadcast_to(&leading("vmap", self.size, self.value.shape())?)
    }

    /// Leading and first dimension as one.
    fn joined(&self) -> Result<Tensor> {
        let whole = self.spread()?;
        let mut shape = whole.shape()[1..].to_vec();
        shape[0] *= self.size;
        whole.reshape(&Dims::new("vmap", &shape)?)
    }

    /// Row numbers of the joined tables of `rows` rows each, as a vector.
    fn row_numbers(&self, rows: usize) -> Result<Tensor> {
        let index = self.spread()?;
        let first: Vec<i64> = (0..self.size).map(|i| (i * rows) as i64).collect();
        let first = Array::from_slice(DType::I64, Dims::from_slice(&[self.size, 1]), &first)?;
        let count = index.shape().elements();
        index.add(&Tensor::constant(first))?.reshape(&Dims::from_slice(&[count]))
    }
}

/// A shape with a dimension in front.
fn leading(op: &'static str, size: usize, shape: &[usize]) -> Result<Dims> {
    let shape: Vec<usize> = [size].into_iter().chain(shape.iter().copied()).collect();
    Dims::new(op, &shape)
}

/// The op on operands of which one at least has a leading dimension; `shape` is the example's.
fn apply(op: &Op, shape: &Dims, operands: &[Operand], size: usize) -> Result<Tensor> {
    let whole = leading("vmap", size, shape)?;
    let run = |op: Op, operands: &[Tensor]| Tensor::apply(op, &operands.iter().collect::<Vec<_>>());
    let aligned = || operands.iter().map(|x| x.aligned(shape.rank())).collect::<Result<Vec<_>>>();
    let spread = || operands.iter().map(Operand::spread).collect::<Result<Vec<_>>>();
    let first = &operands[0];
    match op {
        Op::Detach => Ok(first.value.detach()),
        Op::Unary(_) | Op::Cast(_) | Op::Copy => Tensor::apply(op.clone(), &[&first.value]),
        Op::Binary(_) | Op::Compare(_) | Op::Where | Op::MatMul => run(op.clone(), &aligned()?),
        Op::Reduce(reduce) => {
            Tensor::apply(Op::Reduce(Reduce { axes: reduce.axes << 1, ..*reduce }), &[&first.value])
        }
        Op::Softmax { dim, log } => Tensor::apply(Op::Softmax { dim: dim + 1, log: *log }, &[&first.value]),
        Op::Reshape(_) => first.value.reshape(&whole),
        Op::Expand(_) => first.aligned(shape.rank())?.broadcast_to(&whole),
        Op::Permute(order) => {
            let order: Vec<usize> = [0].into_iter().chain(order.iter().map(|d| d + 1)).collect();
            first.value.permute(&Dims::new("vmap", &order)?)
        }
        Op::Slice(region) => first.value.slice(&extended(region, size)?),
        Op::Embed(region) => first.value.embed(&extended(region, size)?),
        Op::Cat { dim } => run(Op::Cat { dim: dim + 1 }, &spread()?),
        Op::GatherRows => {
            let numbers = if first.is_batched {
                operands[1].row_numbers(first.value.shape()[1])?
            } else {
                operands[1].row_numbers(0)?
            };
            let table = if first.is_batched { first.joined()? } else { first.value.clone() };
            run(Op::GatherRows, &[table, numbers])?.reshape(&whole)
        }
        Op::ScatterAddRows { rows } => {
            let op = Op::ScatterAddRows { rows: rows * size };
            run(op, &[first.joined()?, operands[1].row_numbers(*rows)?])?.reshape(&whole)
        }
        Op::Along { along, dim } => {
            let op = Op::Along { along: *along, dim: dim + 1 };
            let operands = if matches!(along, Along::CumSum { .. } | Along::ArgSort { .. }) {
                vec![first.value.clone()]
            } else {
                spread()?
            };
            run(op, &operands)
        }
        Op::Loss(loss) | Op::LossGrad(loss) => {
            if operands.get(2).is_some_and(|weights| weights.is_batched) {
                return Err(Error::Graph(format!("vmap: {} with weights for each example", op.name())));
            }
            let by_element = matches!(
                loss,
                Loss::SquaredError | Loss::BinaryCrossEntropy | Loss::BinaryCrossEntropyWithLogits { .. }
            );
            let of_rank_0 = by_element && shape.rank() == 0;
            let operands: Vec<Tensor> = operands
                .iter()
                .enumerate()
                .map(|(i, operand)| match (i, by_element) {
                    (2, _) => Ok(operand.value.clone()),
                    // Weights go with the last dimension, which these examples lack.
                    (_, true) if of_rank_0 => operand.spread()?.reshape(&Dims::from_slice(&[size, 1])),
                    (_, true) => operand.spread(),
                    (_, false) => operand.joined(),
                })
                .collect::<Result<_>>()?;
            run(op.clone(), &operands)?.reshape(&whole)
        }
        Op::CountLabels { ignored, dtype } => {
            let ignored = Array::from_slice(DType::I64, Dims::scalar(), &[*ignored])?;
            let is_counted = first.value.compare(Compare::Ne, &Tensor::constant(ignored))?;
            let dims: Vec<isize> = (1..first.value.shape().rank() as isize).collect();
            let counted = is_counted.cast(*dtype)?;
            if dims.is_empty() { Ok(counted) } else { counted.sum(&dims, false) }
        }
        Op::Linear | Op::Dense(_) | Op::Draw(_) | Op::Custom(_) => {
            Err(Error::Graph(format!("vmap: {} has no rule for many examples at once", op.name())))
        }
    }
}

/// The region in each example.
fn extended(region: &Region, size: usize) -> Result<Region> {
    Ok(Region {
        start: leading("vmap", 0, &region.start)?,
        step: leading("vmap", 1, &region.step)?,
        shape: leading("vmap", size, &region.shape)?,
        full: leading("vmap", size, &region.full)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(shape: &[usize], values: &[f64]) -> Tensor {
        Tensor::leaf(Array::from_slice(DType::F64, Dims::from_slice(shape), values).unwrap(), true)
    }

    #[test]
    fn a_graph_of_one_example_is_computed_for_all_and_differentiated() {
        let weight = leaf(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let batch = leaf(&[3, 1, 2], &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
        let example = leaf(&[1, 2], &[1.0, 0.0]);
        let ((y, constant), _) = traced(Randomness::Error, || {
            let y = example.matmul(&weight).unwrap().exp().unwrap().sum(&[], false).unwrap();
            (y, weight.neg().unwrap())
        });
        assert!(
            depends(y.node(), &[example.node().id()]) && !depends(constant.node(), &[example.node().id()])
        );
        let found = replay(&[y, constant], &[example], std::slice::from_ref(&batch), 0..3, Randomness::Error)
            .unwrap();
        assert!(found[0].1 && !found[1].1);
        let expected: Vec<f64> =
            [[1.0f64, 2.0], [3.0, 4.0], [4.0, 6.0]].map(|[a, b]| a.exp() + b.exp()).to_vec();
        let got = found[0].0.to_vec::<f64>();
        assert!(got.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12 * b), "{got:?}");
        found[0].0.sum(&[], false).unwrap().backward(None, false, false).unwrap();
        let by_weight = weight.grad().unwrap().to_vec::<f64>();
        let e = |x: f64| x.exp();
        let expected = [e(1.0) + e(4.0), e(2.0) + e(6.0), e(3.0) + e(4.0), e(4.0) + e(6.0)];
        assert!(by_weight.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12 * b), "{by_weight:?}");
        assert!(batch.grad().is_some());
    }
}
