//! A training step: the traced batch with its gradients and updates, compiled to a plan.

use ferrograd_kernels::elementwise::scatter_into;
use ferrograd_kernels::loss::count_correct;
use ferrograd_kernels::pool;

use crate::anomaly::{self, Check};
use crate::backward;
use crate::buffer::Array;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::lbfgs;
use crate::op::{Op, Unary};
use crate::plan::{Batch, Kept, Plan, Program, Tracing, Trained, reads_after};
use crate::shape::Dims;
use crate::tensor::Tensor;
use crate::{for_any, for_float};

/// A parameter with its place in the optimizer.
#[derive(Clone)]
pub struct Parameter {
    /// The leaf.
    pub tensor: Tensor,
    /// Which rule updates it.
    pub rule: usize,
    /// What the optimizer remembers of each element, at most three arrays in the order of the rule.
    pub state: Vec<Tensor>,
    /// Whether its rule needs the whole gradient at once.
    pub whole: bool,
}

impl Parameter {
    /// As a plan updates it, with the gradient that is its output of this number.
    pub(crate) fn trained(&self, output: usize) -> Trained {
        Trained {
            weight: self.tensor.array().clone(),
            output,
            rule: self.rule,
            state: self.state.iter().map(|s| s.array().clone()).collect(),
            whole: self.whole,
        }
    }
}

/// What one batch gave.
pub(crate) struct Outcome {
    pub(crate) loss: f64,
    pub(crate) weight: f64,
    pub(crate) correct: usize,
}

/// A compiled step for one batch size: forward, and where there are parameters to update, backward and
/// update.
pub struct Step {
    pub(crate) plan: Plan,
    /// What the model assigned to parameters, and the number of the output with the value: set before the update,
    /// which comes after the model in eager steps too.
    pub(crate) rewrites: Vec<(Tensor, usize)>,
    /// What else a step sets, after it.
    pub(crate) writes: Vec<(Tensor, usize)>,
    pub(crate) batch: usize,
    /// Threads of the pool when it was compiled.
    pub(crate) threads: usize,
    pub(crate) updated: Vec<usize>,
    /// The parameters that are updated.
    pub(crate) weights: Vec<Array>,
    has_loss: bool,
    counts_classes: bool,
    /// What was looked for when it was compiled.
    pub(crate) check: Option<Check>,
}

/// What a step is made from: the tensors of one traced batch.
pub struct StepSpec<'a> {
    /// Placeholders: x, then y, then sample weights.
    pub inputs: &'a [Tensor],
    /// The model's result.
    pub scores: &'a Tensor,
    /// The scalar loss.
    pub loss: Option<&'a Tensor>,
    /// What is updated; empty for evaluation and prediction.
    pub parameters: Vec<Parameter>,
    /// Largest norm of the whole gradient.
    pub clip_grad_norm: Option<f64>,
    /// Whether patterns are fused; the numbers are the same.
    pub fused: bool,
    /// What the engine that the step is added to has packed already; nothing by default.
    pub kept: Kept,
}

impl Step {
    /// Appends gradients and updates to the trace and compiles it.
    ///
    /// # Errors
    /// `Graph` when the loss does not depend on any parameter, `Shape` when the loss is no scalar,
    /// `Config` when a parameter is not contiguous.
    pub fn build(tracing: &Tracing, spec: StepSpec) -> Result<Step> {
        Step::adding(tracing, spec, &[])
    }

    /// As [`Step::build`], for a step that adds each gradient to the parameter's sum in place of an update. Without
    /// sums it updates.
    ///
    /// # Errors
    /// Those of [`Step::build`].
    pub fn adding(tracing: &Tracing, spec: StepSpec, sums: &[Tensor]) -> Result<Step> {
        let mut outputs = vec![spec.scores.clone()];
        if let Some(loss) = spec.loss {
            if loss.shape().elements() != 1 {
                return Err(Error::Shape {
                    op: "loss",
                    expected: "a scalar".into(),
                    got: format!("shape {}", loss.shape()),
                });
            }
            outputs.push(loss.clone());
        }
        let (mut trained, mut updated) = (Vec::<Parameter>::new(), Vec::new());
        let (mut rewrites, mut writes) = (Vec::new(), Vec::new());
        if let (Some(loss), false) = (spec.loss, spec.parameters.is_empty()) {
            let tensors: Vec<Tensor> = spec.parameters.iter().map(|p| p.tensor.clone()).collect();
            let gradients = backward::grad(std::slice::from_ref(loss), &tensors, &[], true, true)?;
            let mut found: Vec<Tensor> = Vec::new();
            for (i, (parameter, gradient)) in spec.parameters.into_iter().zip(gradients).enumerate() {
                let Some(gradient) = gradient else { continue };
                updated.push(i);
                if !parameter.tensor.array().is_contiguous() {
                    return Err(Error::Config {
                        argument: "parameters",
                        expected: "contiguous parameters".into(),
                        got: format!("strides {}", parameter.tensor.array().strides()),
                    });
                }
                trained.push(parameter);
                found.push(gradient);
            }
            if trained.is_empty() {
                return Err(Error::Graph(
                    "trainer: the loss depends on none of the optimizer's parameters".into(),
                ));
            }
            if let Some(limit) = spec.clip_grad_norm.filter(|_| sums.is_empty()) {
                found = clip(&found, limit)?;
            }
            for (target, value) in tracing.writes() {
                let mut is_own = false;
                for parameter in &mut trained {
                    if parameter.tensor.array().shares_storage(target.array()) {
                        // What is written to the parameter's array would not reach a packed copy.
                        (parameter.whole, is_own) = (true, true);
                    }
                }
                if is_own && reads_after(&outputs[..2], &target, &value) {
                    return Err(Error::Graph(
                        "trainer: a parameter is read after the model has changed it, as an embedding with \
                         max_norm does; in a plan that may be the last use only. The trainer's l2 reads every \
                         weight after the model: give weight_decay to the optimizer instead"
                            .into(),
                    ));
                }
                (if is_own { &mut rewrites } else { &mut writes }).push((target, outputs.len()));
                outputs.push(value);
            }
            for (&i, gradient) in updated.iter().zip(found) {
                let gradient = in_memory_order(&gradient)?;
                match sums.get(i) {
                    Some(sum) => {
                        writes.push((sum.clone(), outputs.len()));
                        outputs.push(sum.add(&gradient)?);
                    }
                    None => outputs.push(gradient),
                }
            }
        }
        let weights = trained.iter().map(|parameter| parameter.tensor.array().clone()).collect();
        if !sums.is_empty() {
            trained.clear();
        }
        let program = Program::trace(tracing, &outputs, spec.inputs)?;
        let first = outputs.len() - trained.len();
        let trained = trained.iter().enumerate().map(|(i, parameter)| parameter.trained(first + i));
        let plan = Plan::compile_training(program, trained.collect(), spec.fused, &spec.kept)?;
        let scores = spec.scores.shape();
        let labels = spec.inputs.get(1);
        let counts_classes = scores.rank() == 2
            && labels
                .is_some_and(|y| y.dtype() == DType::I64 && *y.shape() == Dims::from_slice(&scores[..1]));
        let batch = spec.inputs[0].shape().first().copied().unwrap_or(0);
        Ok(Step {
            plan,
            rewrites,
            writes,
            batch,
            threads: pool::num_threads(),
            updated,
            weights,
            has_loss: spec.loss.is_some(),
            counts_classes,
            check: anomaly::looked_for(),
        })
    }

    /// Names of the compiled instructions.
    pub fn instruction_names(&self) -> Vec<String> {
        self.plan.instruction_names()
    }

    /// The compiled plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What the model assigns: the number of each target's node, and that of the output with its value.
    pub fn assigned(&self) -> Vec<(u64, usize)> {
        let all = self.rewrites.iter().chain(&self.writes);
        all.map(|(target, output)| (target.node().id(), *output)).collect()
    }

    /// Which of the given parameters are updated: the loss depends on them.
    pub fn updated(&self) -> &[usize] {
        &self.updated
    }

    /// Rows in a batch.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Makes a step of a minimizer that evaluates the batch as often as it likes.
    pub(crate) fn minimize(
        &mut self,
        (options, memory): &mut (lbfgs::Options, lbfgs::Memory),
        batch: Batch,
        pieces: usize,
        poll: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Outcome> {
        if !self.rewrites.is_empty() {
            return Err(Error::Graph("trainer: a model that changes its parameters has no minimum".into()));
        }
        let mut x = flat(&self.weights)?;
        let known = memory.direction.len();
        if known != 0 && known != x.len() {
            return Err(Error::Config {
                argument: "optimizer",
                expected: format!("a memory of {} parameters", x.len()),
                got: known.to_string(),
            });
        }
        let mut first = None;
        let made = lbfgs::step(options, memory, &mut x, &mut |x, gradient| {
            let (outcome, found) = self.at(x, batch, pieces, poll)?;
            let loss = outcome.loss;
            first.get_or_insert(outcome);
            gradient.copy_from_slice(&found);
            Ok(loss)
        });
        // Where it has got to; where it began after an error.
        write_flat(&x, &self.weights)?;
        made?;
        first.ok_or_else(|| Error::Graph("plan: no evaluation".into()))
    }

    /// Runs the batch with the parameters at `x`; returns the gradient there too.
    pub(crate) fn at(
        &mut self,
        x: &[f64],
        batch: Batch,
        pieces: usize,
        poll: &mut dyn FnMut() -> Result<()>,
    ) -> Result<(Outcome, Vec<f64>)> {
        write_flat(x, &self.weights)?;
        poll()?;
        self.plan.load()?;
        self.plan.run(batch, pieces, poll)?;
        let gradients: Vec<Array> = self.plan.gradients().iter().flatten().cloned().collect();
        Ok((self.outcome(batch.tables.len(), true)?, flat(&gradients)?))
    }

    pub(crate) fn outcome(&self, tables: usize, counts: bool) -> Result<Outcome> {
        let loss = if self.has_loss {
            let loss = &self.plan.outputs()[1];
            for_float!("loss", loss.dtype(), T => Ok(loss.read::<T>()[0].to_f64()))?
        } else {
            0.0
        };
        let weight = match self.plan.input(2) {
            Some(weights) if tables > 2 => {
                for_float!("sample_weight", weights.dtype(), T => Ok(weights.read::<T>().iter().map(|w| w.to_f64()).sum()))?
            }
            _ => self.batch as f64,
        };
        Ok(Outcome { loss, weight, correct: if counts { self.correct()? } else { 0 } })
    }

    /// Sets what the model assigned while it was traced.
    pub(crate) fn write(&self, writes: &[(Tensor, usize)]) -> Result<()> {
        writes.iter().try_for_each(|(target, output)| {
            let source = &self.plan.outputs()[*output];
            let target = target.array();
            for_any!(target.dtype(), T => scatter_into(
                target.shape(),
                &source.read::<T>(),
                &mut target.write::<T>(),
                target.strides(),
            ));
            target.storage().bump_version();
            Ok(())
        })
    }

    /// Rows whose largest score is their label's.
    fn correct(&self) -> Result<usize> {
        if !self.counts_classes {
            return Ok(0);
        }
        let (Some(labels), scores) = (self.plan.input(1), &self.plan.outputs()[0]) else { return Ok(0) };
        if !scores.is_contiguous() {
            return Ok(0);
        }
        let labels = labels.read::<i64>();
        let classes = scores.shape()[1];
        for_float!("accuracy", scores.dtype(), T => Ok(count_correct(classes, &scores.read::<T>(), &labels)))
    }
}

/// The elements of contiguous arrays, one array after the other.
///
/// # Errors
/// `DType` when an array is not floating.
pub fn flat(arrays: &[Array]) -> Result<Vec<f64>> {
    let mut values = Vec::with_capacity(arrays.iter().map(|array| array.shape().elements()).sum());
    for array in arrays {
        for_float!("flat", array.dtype(), T => {
            values.extend(array.read::<T>().iter().map(|value| value.to_f64()));
            Ok(())
        })?;
    }
    Ok(values)
}

/// Writes elements to contiguous arrays, one array after the other.
///
/// # Errors
/// `DType` when an array is not floating.
pub fn write_flat(mut values: &[f64], arrays: &[Array]) -> Result<()> {
    for array in arrays {
        let (own, rest) = values.split_at(array.shape().elements());
        values = rest;
        for_float!("flat", array.dtype(), T => {
            array.write::<T>().iter_mut().zip(own).for_each(|(slot, &value)| *slot = T::from_f64(value));
            Ok(())
        })?;
    }
    Ok(())
}

/// The gradient as updates walk it: row-major. A transposed product, which is what a weight of shape
/// (outputs, inputs) gets, is computed the other way round instead of copied: the same products are added
/// in the same order.
fn in_memory_order(gradient: &Tensor) -> Result<Tensor> {
    if gradient.array().is_contiguous() {
        return Ok(gradient.clone());
    }
    let node = gradient.node();
    if let (Some(Op::Permute(order)), [product]) = (node.op(), node.parents())
        && let (Some(Op::MatMul), [left, right], [1, 0]) = (product.op(), product.parents(), &order[..])
        && let (Some(left), Some(right)) = (left.value(), right.value())
    {
        let turned = right.transpose(0, 1)?.matmul(&left.transpose(0, 1)?)?;
        if let Some(place) = node.place() {
            turned.node().set_place(place);
        }
        return Ok(turned);
    }
    gradient.copied()
}

/// Gradients scaled so that their common norm is at most `limit`, as PyTorch's `clip_grad_norm_`.
pub(crate) fn clip(gradients: &[Tensor], limit: f64) -> Result<Vec<Tensor>> {
    let mut total: Option<Tensor> = None;
    for gradient in gradients {
        let squares = gradient.square()?.sum(&[], false)?;
        total = Some(match total {
            Some(total) => total.add(&squares)?,
            None => squares,
        });
    }
    let Some(total) = total else { return Ok(Vec::new()) };
    let factor = Tensor::scalar(total.dtype(), limit)?.div(&total.sqrt()?.add_scalar(1e-6)?)?;
    let factor = factor.unary(Unary::Clamp { min: f64::NEG_INFINITY, max: 1.0 })?;
    gradients.iter().map(|g| g.mul(&factor)).collect()
}
