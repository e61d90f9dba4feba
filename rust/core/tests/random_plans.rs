//! Random networks, trained for a few steps in every way that a plan can run: fused or not, on 1, 2, 3 and 7 threads,
//! on every instruction set. Parameters, optimizer states, losses and scores must have the same bits.
//!
//! `FERROGRAD_PLAN_SEED=17` runs one seed; `FERROGRAD_PLANS=1000` runs so many instead of a few.

mod common;

use std::sync::atomic::Ordering;

use common::*;
use ferrograd_core::buffer::Array;
use ferrograd_core::dtype::DType;
use ferrograd_core::error::Result;
use ferrograd_core::op::{self, Curve, Distribution, Generator, Loss, Unary};
use ferrograd_core::tensor::Tensor;
use ferrograd_kernels::isa::Level;

/// A sequence of draws that a seed fixes (splitmix64).
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % n as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Around the edges of tiles and panels, or anything.
    fn width(&mut self) -> usize {
        let edge = self.one_of(&[1, 2, 15, 16, 17, 31, 32, 33, 95, 96, 97]);
        let any = 1 + self.below(300);
        self.one_of(&[edge, any])
    }
}

#[derive(Clone, Copy, Debug)]
enum After {
    Nothing,
    Activation(Unary),
    Softmax,
    /// Less its row's mean: a reduction by rows.
    Centre,
    /// Less the batch's mean: rows that depend on each other.
    CentreBatch,
}

/// A product with what follows it.
#[derive(Clone, Copy, Debug)]
struct Layer {
    outputs: usize,
    /// Weight of shape (inputs, outputs) instead of (outputs, inputs).
    is_in_out: bool,
    bias: bool,
    after: After,
    dropout: bool,
    /// Adds the input, where the widths are the same.
    residual: bool,
    /// Puts the input beside the result.
    concat: bool,
    /// Where the weight is square: takes it again, as it is or transposed.
    again: Option<bool>,
    /// An L2 penalty on the weight.
    penalty: Option<Penalty>,
}

/// How the squares of a weight are summed.
#[derive(Clone, Copy, Debug)]
enum Penalty {
    Whole,
    /// By columns of the factor of a product first, as packed weights are.
    Columns,
}

#[derive(Clone, Copy, Debug)]
enum Target {
    Loss(Loss),
    /// Of probabilities.
    Binary,
    SquaredError,
}

#[derive(Clone, Debug)]
struct Network {
    dtype: DType,
    inputs: usize,
    layers: Vec<Layer>,
    target: Target,
    sample_weights: bool,
    /// Parameters that are not trained, at the end.
    frozen: usize,
    optimizer: Optimizer,
    clip_grad_norm: Option<f64>,
    batch: usize,
    samples: usize,
}

fn draw(seed: u64) -> Network {
    let mut d = Draw(seed);
    let activations = [
        Unary::Relu,
        Unary::LeakyRelu(0.01),
        Unary::Elu(1.0),
        Unary::Sigmoid,
        Unary::Tanh,
        Unary::Softplus { beta: 1.0, threshold: 20.0 },
        Unary::LeakyRelu(-0.1),
        Unary::Curve(Curve::Gelu),
        Unary::Curve(Curve::Hardswish),
    ];
    let any = 1 + d.below(300);
    let batch = d.one_of(&[1, 2, 3, 8, 16, 127, 128, 129, any, any, any]);
    let depth = 1 + d.below(5);
    let mut previous = d.width();
    let inputs = previous;
    let mut layers: Vec<Layer> = (0..depth)
        .map(|_| {
            let width = d.width();
            // A width that is the batch's tells rows from columns.
            let outputs = d.one_of(&[width, width, width, previous, previous, batch]);
            previous = outputs;
            let activation = After::Activation(d.one_of(&activations));
            let after = [activation, activation, activation, After::Nothing, After::Softmax, After::Centre];
            Layer {
                outputs,
                is_in_out: d.percent(30),
                bias: d.percent(75),
                after: if d.percent(8) { After::CentreBatch } else { d.one_of(&after) },
                dropout: d.percent(20),
                residual: d.percent(30),
                concat: d.percent(15),
                again: d.one_of(&[None, None, Some(false), Some(true)]),
                penalty: d
                    .percent(20)
                    .then(|| d.one_of(&[Penalty::Whole, Penalty::Columns, Penalty::Columns])),
            }
        })
        .collect();
    if let Some(last) = layers.last_mut() {
        // Scores.
        let classes = 2 + d.below(20);
        *last = Layer { outputs: classes, after: After::Nothing, dropout: false, concat: false, ..*last };
    }
    let p = d.one_of(&[1, 2]);
    let target = d.one_of(&[
        Target::Loss(CROSS_ENTROPY),
        Target::Loss(Loss::CrossEntropy { label_smoothing: 0.1, ignore_index: 1, weighted: false }),
        Target::Loss(Loss::SoftCrossEntropy { label_smoothing: 0.0, weighted: false }),
        Target::Loss(Loss::MultiMargin { p, margin: 1.0, divide_by_classes: p == 1, weighted: false }),
        Target::Loss(Loss::BinaryCrossEntropyWithLogits { weighted: false }),
        Target::Binary,
        Target::SquaredError,
    ]);
    let optimizer = d.one_of(&optimizers());
    let tensors: usize = layers.iter().map(|layer| 1 + usize::from(layer.bias)).sum();
    Network {
        dtype: if d.percent(25) { DType::F64 } else { DType::F32 },
        inputs,
        layers,
        target,
        sample_weights: d.percent(20),
        frozen: if d.percent(15) { d.below(tensors) } else { 0 },
        optimizer,
        clip_grad_norm: d.percent(20).then_some(0.1),
        batch,
        samples: batch * (1 + d.below(2)) + d.below(batch),
    }
}

impl Network {
    fn parameters(&self) -> Vec<Array> {
        let (mut parameters, mut width) = (Vec::new(), self.inputs);
        for (seed, layer) in (10..).zip(&self.layers) {
            let shape = if layer.is_in_out { [width, layer.outputs] } else { [layer.outputs, width] };
            parameters.push(normal(seed, self.dtype, &shape, 1.0 / (width as f64).sqrt()));
            if layer.bias {
                parameters.push(normal(seed + 10, self.dtype, &[layer.outputs], 0.1));
            }
            width = layer.outputs + if layer.concat { width } else { 0 };
        }
        parameters
    }

    fn model(&self, inputs: &[Tensor], parameters: &[Tensor]) -> Result<(Tensor, Tensor)> {
        let mut parameters = parameters.iter();
        let mut next = || parameters.next().expect("as many as `parameters` made");
        let (mut x, mut penalties) = (inputs[0].clone(), Vec::new());
        for layer in &self.layers {
            let weight = next();
            let mut h = if layer.is_in_out { x.matmul(weight)? } else { x.linear(weight, None)? };
            if layer.bias {
                h = h.add(next())?;
            }
            h = match layer.after {
                After::Nothing => h,
                After::Activation(op) => h.unary(op)?,
                After::Softmax => h.softmax(1)?,
                After::Centre => h.sub(&h.mean(&[1], true)?)?,
                After::CentreBatch => h.sub(&h.mean(&[0], true)?)?,
            };
            let is_square = *h.shape() == *x.shape();
            h = match layer.again {
                Some(true) if is_square => h.matmul(weight)?.tanh()?,
                Some(false) if is_square => h.linear(weight, None)?.tanh()?,
                _ => h,
            };
            if layer.dropout {
                h = h.mul(&op::Draw::tensor(
                    Distribution::DropoutMask(0.3),
                    self.dtype,
                    *h.shape(),
                    &Generator::new(8),
                )?)?;
            }
            if layer.residual && is_square {
                h = h.add(&x)?;
            }
            if layer.concat {
                h = Tensor::cat(&[h, x], 1)?;
            }
            penalties.extend(match layer.penalty {
                Some(Penalty::Whole) => Some(weight.square()?.sum(&[], false)?.mul_scalar(1e-3)?),
                Some(Penalty::Columns) => {
                    let matrix = if layer.is_in_out { weight.clone() } else { weight.t()? };
                    let sum = matrix.square()?.sum(&[0], false)?.sum(&[], false)?.mul_scalar(1e-3)?;
                    Some(match inputs.get(2) {
                        Some(weights) => sum.div(&weights.sum(&[], false)?)?,
                        None => sum,
                    })
                }
                None => None,
            });
            x = h;
        }
        let each = match self.target {
            Target::Loss(loss) => x.loss(loss, &inputs[1], None)?,
            Target::Binary => x.sigmoid()?.loss(Loss::BinaryCrossEntropy, &inputs[1], None)?,
            Target::SquaredError => x.sub(&inputs[1])?.square()?,
        };
        let mut loss = match inputs.get(2) {
            Some(weights) => {
                let each = if each.shape().rank() == 2 { each.mean(&[1], false)? } else { each };
                each.mul(weights)?.sum(&[], false)?.div(&weights.sum(&[], false)?)?
            }
            None => each.mean(&[], false)?,
        };
        for penalty in penalties {
            loss = loss.add(&penalty)?;
        }
        Ok((x, loss))
    }

    fn job(&self) -> Job<'_> {
        let (n, classes) = (self.samples, self.layers.last().map_or(0, |layer| layer.outputs));
        let uniform =
            |seed, shape: &[usize]| Generator::new(seed).uniform(self.dtype, dims(shape), 0.1, 0.9).unwrap();
        let takes_labels =
            matches!(self.target, Target::Loss(Loss::CrossEntropy { .. } | Loss::MultiMargin { .. }));
        let target = if takes_labels { labels(n, classes) } else { uniform(3, &[n, classes]) };
        let mut tables = vec![normal(1, self.dtype, &[n, self.inputs], 1.0), target];
        if self.sample_weights {
            tables.push(uniform(4, &[n]));
        }
        let parameters = self.parameters();
        Job {
            tables,
            trained: parameters.len() - self.frozen,
            parameters,
            optimizer: self.optimizer,
            clip_grad_norm: self.clip_grad_norm,
            batch: self.batch,
            epochs: 2,
            model: Box::new(|inputs, parameters| self.model(inputs, parameters)),
        }
    }

    /// Multiply-adds of the run.
    fn cost(&self) -> usize {
        let weights: usize = self.parameters().iter().map(|p| p.shape().elements()).sum();
        weights * self.samples * 2 * 3
    }
}

/// Multiply-adds up to which the portable path, a library call for each, takes part.
const PORTABLE_COST: usize = 20_000_000;

/// Trains in every way; whether threads shared the rows of the steps.
fn check(seed: u64, network: &Network) -> bool {
    let job = network.job();
    let want = job.run(How::unfused(1));
    let check = |how: How| {
        let mut session = job.start(how);
        for _ in 0..job.epochs {
            session.epoch();
        }
        let blocks = session.tables[0].1.load(Ordering::Relaxed);
        assert!(
            session.numbers() == want,
            "FERROGRAD_PLAN_SEED={seed} has other bits with {how:?}: {network:#?}"
        );
        blocks
    };
    let alone = check(How::fused(1));
    let shared = [2, 3, 7].map(|threads| check(How::fused(threads)));
    check(How::unfused(3));
    let how = How::fused(3);
    for level in Level::supported() {
        if level != how.level && (level != Level::Portable || network.cost() < PORTABLE_COST) {
            check(How { level, ..how });
        }
    }
    shared[2] > alone
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn random_plans_have_the_same_bits_however_they_run() {
    if let Some(seed) = variable("FERROGRAD_PLAN_SEED") {
        check(seed, &draw(seed));
        return;
    }
    let count = variable("FERROGRAD_PLANS").unwrap_or(80);
    let shared = (0..count).filter(|&seed| check(seed, &draw(seed))).count() as u64;
    assert!(shared * 4 >= count, "threads shared the work of {shared} in {count} plans only");
}

#[test]
fn plans_of_few_rows_and_wide_layers_are_split_by_panels() {
    // More weights than activations, and above the cost from which threads take part.
    for (batch, inputs, outputs, dtype) in [
        (8, 300, 300, DType::F32),
        (1, 600, 500, DType::F32),
        (31, 257, 129, DType::F64),
        (5, 97, 1000, DType::F32),
    ] {
        assert!(batch * (inputs + outputs) < inputs * outputs && batch * inputs * outputs >= 250_000);
        let layer = Layer {
            outputs,
            is_in_out: false,
            bias: true,
            after: After::Activation(Unary::Relu),
            dropout: false,
            residual: false,
            concat: false,
            again: None,
            penalty: None,
        };
        let back = Layer { outputs: inputs, is_in_out: true, after: After::Activation(Unary::Tanh), ..layer };
        let network = Network {
            dtype,
            inputs,
            layers: vec![layer, back, Layer { outputs: 10, after: After::Nothing, ..layer }],
            target: Target::Loss(CROSS_ENTROPY),
            sample_weights: false,
            frozen: 0,
            optimizer: adam(false, true, 0.01),
            clip_grad_norm: None,
            batch,
            samples: 2 * batch + batch / 2,
        };
        check(0, &network);
    }
}
