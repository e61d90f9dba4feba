//! What the tests of plans share: arrays, tables, and training jobs that run in every way a plan can.

// Every test binary compiles this file and uses a part of it.
#![allow(dead_code)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ferrograd_core::buffer::Array;
use ferrograd_core::dtype::{DType, Element};
use ferrograd_core::error::Result;
use ferrograd_core::op::{Generator, Loss};
use ferrograd_core::plan::Tracing;
use ferrograd_core::shape::Dims;
use ferrograd_core::tensor::Tensor;
use ferrograd_core::train::{Engine, Parameter, Rows, Rule, Step, StepSpec};
use ferrograd_kernels::isa::{self, Level};
use ferrograd_kernels::{pool, update};

pub const CROSS_ENTROPY: Loss =
    Loss::CrossEntropy { label_smoothing: 0.0, ignore_index: -100, weighted: false };

pub fn dims(d: &[usize]) -> Dims {
    Dims::from_slice(d)
}

pub fn normal(seed: u64, dtype: DType, shape: &[usize], std: f64) -> Array {
    Generator::new(seed).normal(dtype, dims(shape), 0.0, std).unwrap()
}

pub fn labels(n: usize, classes: usize) -> Array {
    Generator::new(5).integers(dims(&[n]), 0, classes as i64).unwrap()
}

/// The bits of every element, whatever the dtype.
pub fn bits(array: &Array) -> Vec<u64> {
    let tensor = Tensor::constant(array.clone());
    match array.dtype() {
        DType::F32 => tensor.to_vec::<f32>().into_iter().map(|v| v.to_bits().into()).collect(),
        _ => tensor.to_vec::<f64>().into_iter().map(f64::to_bits).collect(),
    }
}

fn copied(array: &Array) -> Array {
    Tensor::constant(array.clone()).copied().unwrap().array().clone()
}

/// Samples that a plan gathers; counts the blocks of rows that it is asked for.
pub struct Table(pub Array, pub AtomicUsize);

impl Table {
    pub fn new(array: Array) -> Table {
        Table(array, AtomicUsize::new(0))
    }
}

impl Rows for Table {
    fn gather(&self, rows: &[u32], out: &Array) -> Result<()> {
        fn typed<T: Element, U: Element>(table: &Array, rows: &[u32], out: &Array, convert: fn(T) -> U) {
            let width: usize = table.shape()[1..].iter().product();
            let (source, mut target) = (table.read::<T>(), out.write::<U>());
            for (i, &row) in rows.iter().enumerate() {
                let row = source[row as usize * width..][..width].iter();
                target[i * out.row_stride()..][..width]
                    .iter_mut()
                    .zip(row)
                    .for_each(|(t, &s)| *t = convert(s));
            }
        }
        self.1.fetch_add(1, Ordering::Relaxed);
        match (self.0.dtype(), out.dtype()) {
            (DType::I64, _) => typed::<i64, i64>(&self.0, rows, out, |v| v),
            (DType::F64, DType::F32) => typed::<f64, f32>(&self.0, rows, out, |v| v as f32),
            (DType::F64, _) => typed::<f64, f64>(&self.0, rows, out, |v| v),
            _ => typed::<f32, f32>(&self.0, rows, out, |v| v),
        }
        Ok(())
    }
}

/// An optimizer: its rule and the number of states it keeps for a parameter.
#[derive(Clone, Copy, Debug)]
pub struct Optimizer {
    pub name: &'static str,
    pub rule: Rule,
    pub states: usize,
}

pub fn sgd(momentum: f64, nesterov: bool, weight_decay: f64) -> Optimizer {
    let rule = update::Sgd {
        lr: 0.05,
        momentum,
        dampening: 0.0,
        weight_decay,
        nesterov,
        first_step: true,
        velocity: false,
    };
    let name = match (momentum != 0.0, nesterov) {
        (false, _) => "sgd",
        (true, false) => "momentum",
        (true, true) => "nesterov",
    };
    Optimizer { name, rule: Rule::Sgd(rule), states: usize::from(momentum != 0.0) }
}

pub fn adam(decoupled: bool, amsgrad: bool, weight_decay: f64) -> Optimizer {
    let rule = update::Adam {
        lr: 1e-2,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay,
        decoupled,
        eps_hat: false,
        step: 1,
    };
    let name = match (decoupled, amsgrad) {
        (false, false) => "adam",
        (true, false) => "adamw",
        (_, true) => "amsgrad",
    };
    Optimizer { name, rule: Rule::Adam(rule), states: 2 + usize::from(amsgrad) }
}

/// A rule of every other element-wise kind, with the largest number of states that it has.
fn others() -> [Optimizer; 9] {
    let (lr, beta1, beta2, eps, weight_decay, step) = (1e-2, 0.9, 0.99, 1e-8, 0.02, 1);
    let (momentum_decay, mu_product, decoupled) = (0.004, 1.0, false);
    [
        (
            "nadam",
            2,
            Rule::NAdam(update::NAdam {
                lr,
                beta1,
                beta2,
                eps,
                weight_decay,
                momentum_decay,
                decoupled,
                step,
                mu_product,
            }),
        ),
        ("radam", 2, Rule::RAdam(update::RAdam { lr, beta1, beta2, eps, weight_decay, decoupled, step })),
        ("adamax", 2, Rule::Adamax(update::Adamax { lr, beta1, beta2, eps, weight_decay, step })),
        ("adagrad", 1, Rule::Adagrad(update::Adagrad { lr, lr_decay: 0.1, weight_decay, eps, step })),
        ("adadelta", 2, Rule::Adadelta(update::Adadelta { lr: 1.0, rho: 0.9, eps: 1e-6, weight_decay })),
        (
            "rmsprop",
            3,
            Rule::RmsProp(update::RmsProp {
                lr,
                alpha: 0.9,
                eps,
                weight_decay,
                momentum: 0.5,
                centered: true,
            }),
        ),
        (
            "rprop",
            2,
            Rule::Rprop(update::Rprop { lr, eta_minus: 0.5, eta_plus: 1.2, smallest: 1e-6, largest: 50.0 }),
        ),
        ("lion", 1, Rule::Lion(update::Lion { lr, beta1, beta2, weight_decay })),
        (
            "asgd",
            1,
            Rule::Asgd(update::Asgd {
                lr,
                lambd: 1e-2,
                alpha: 0.75,
                t0: 2.0,
                weight_decay,
                step,
                eta_and_mu: [lr, 1.0],
            }),
        ),
    ]
    .map(|(name, states, rule)| Optimizer { name, rule, states })
}

pub fn optimizers() -> Vec<Optimizer> {
    let mut all = Vec::new();
    for decay in [0.0, 0.02] {
        all.extend([sgd(0.0, false, decay), sgd(0.9, false, decay), sgd(0.9, true, decay)]);
        all.extend([adam(false, false, decay), adam(false, true, decay)]);
    }
    all.push(adam(true, false, 0.02));
    all.push(adam(true, true, 0.02));
    all.extend(others());
    all
}

/// From a batch of every table and the parameters to scores and the loss.
pub type Model<'a> = dyn Fn(&[Tensor], &[Tensor]) -> Result<(Tensor, Tensor)> + 'a;

/// A training run, described so that it can be repeated in every way.
pub struct Job<'a> {
    /// Inputs, targets and, perhaps, sample weights.
    pub tables: Vec<Array>,
    /// Initial values.
    pub parameters: Vec<Array>,
    /// Parameters from this one on are not updated.
    pub trained: usize,
    pub optimizer: Optimizer,
    pub clip_grad_norm: Option<f64>,
    pub batch: usize,
    pub epochs: usize,
    pub model: Box<Model<'a>>,
}

/// How a job runs.
#[derive(Clone, Copy, Debug)]
pub struct How {
    pub threads: usize,
    pub level: Level,
    pub fused: bool,
}

impl How {
    /// Fused, on the best instruction set or that of `FERROGRAD_ISA`.
    pub fn fused(threads: usize) -> How {
        How { threads, level: isa::init().unwrap(), fused: true }
    }

    /// One op at a time, on the same instruction set.
    pub fn unfused(threads: usize) -> How {
        How { fused: false, ..How::fused(threads) }
    }
}

/// What must not depend on how a job runs.
#[derive(Debug, PartialEq)]
pub struct Numbers {
    pub losses: Vec<u64>,
    pub parameters: Vec<Vec<u64>>,
    pub states: Vec<Vec<u64>>,
    pub scores: Vec<u64>,
}

/// A job under way.
pub struct Session {
    pub engine: Engine,
    pub parameters: Vec<Tensor>,
    pub states: Vec<Vec<Tensor>>,
    pub tables: Vec<Table>,
    pub order: Vec<u32>,
    batch: usize,
    scores: Option<Array>,
    losses: Vec<u64>,
    _settings: MutexGuard<'static, ()>,
}

impl Job<'_> {
    /// Compiles the steps. Threads and instruction set belong to the process: one session lives at a time.
    pub fn start(&self, how: How) -> Session {
        static SETTINGS: Mutex<()> = Mutex::new(());
        let settings = SETTINGS.lock().unwrap_or_else(PoisonError::into_inner);
        pool::set_num_threads(how.threads);
        isa::force(how.level).unwrap();
        let parameters: Vec<Tensor> = (0..self.parameters.len())
            .map(|i| Tensor::leaf(copied(&self.parameters[i]), i < self.trained))
            .collect();
        let zeros = |p: &Tensor| Tensor::constant(Array::zeros(p.dtype(), *p.shape()).unwrap());
        let states: Vec<Vec<Tensor>> = parameters[..self.trained]
            .iter()
            .map(|p| (0..self.optimizer.states).map(|_| zeros(p)).collect())
            .collect();
        let samples = self.tables[0].shape()[0];
        let sizes = [self.batch, samples % self.batch];
        let mut engine = Engine::new(vec![self.optimizer.rule], 3);
        let scores_shape = self.compile(&mut engine, &parameters, &states, &sizes, how.fused);
        let shortest = match samples % self.batch {
            0 => self.batch,
            rest => rest,
        };
        let is_by_sample = scores_shape.rank() == 2 && scores_shape[0] == shortest;
        let scores = is_by_sample
            .then(|| Array::zeros(parameters[0].dtype(), dims(&[samples, scores_shape[1]])).unwrap());
        Session {
            engine,
            parameters,
            states,
            tables: self.tables.iter().cloned().map(Table::new).collect(),
            order: (0..samples as u32).rev().collect(),
            batch: self.batch,
            scores,
            losses: Vec::new(),
            _settings: settings,
        }
    }

    /// Adds the steps for these batch sizes, but for 0; returns the last one's shape of scores.
    pub fn compile(
        &self,
        engine: &mut Engine,
        parameters: &[Tensor],
        states: &[Vec<Tensor>],
        sizes: &[usize],
        fused: bool,
    ) -> Dims {
        let mut scores_shape = dims(&[]);
        for &batch in sizes.iter().filter(|&&batch| batch > 0) {
            let tracing = Tracing::start();
            let first = |table: &Array| {
                let rows = Tensor::constant(table.clone()).narrow(0, 0, batch).unwrap();
                Tensor::constant(copied(rows.array()))
            };
            let inputs: Vec<Tensor> = self.tables.iter().map(first).collect();
            let (scores, loss) = (self.model)(&inputs, parameters).unwrap();
            scores_shape = *scores.shape();
            let parameters = parameters[..self.trained].iter().zip(states);
            let parameters = parameters.map(|(p, s)| Parameter {
                tensor: p.clone(),
                rule: 0,
                state: s.clone(),
                whole: false,
            });
            let spec = StepSpec {
                inputs: &inputs,
                scores: &scores,
                loss: Some(&loss),
                parameters: parameters.collect(),
                clip_grad_norm: self.clip_grad_norm,
                fused,
                kept: engine.kept(),
            };
            engine.add(Step::build(&tracing, spec).unwrap());
        }
        scores_shape
    }

    /// Runs the job.
    pub fn run(&self, how: How) -> Numbers {
        let mut session = self.start(how);
        for _ in 0..self.epochs {
            session.epoch();
        }
        session.numbers()
    }

    /// Whether the job has the same numbers fused, on one thread and three, and one op at a time.
    pub fn assert_fusion_keeps_bits(&self, what: &str) {
        let want = self.run(How::unfused(1));
        let is_finite = want.losses.iter().all(|&loss| f64::from_bits(loss).is_finite());
        assert!(is_finite && want.losses.len() == self.epochs, "{what}: the losses compare something");
        let before: Vec<_> = self.parameters[..self.trained].iter().map(bits).collect();
        assert!(want.parameters.iter().zip(&before).any(|(now, before)| now != before), "{what}: it learns");
        for threads in [1, 3] {
            assert!(self.run(How::fused(threads)) == want, "{what}: other bits fused, {threads} threads");
        }
    }
}

impl Session {
    /// One pass over the samples, in the opposite order; its mean loss.
    pub fn epoch(&mut self) -> f64 {
        let tables: Vec<&dyn Rows> = self.tables.iter().map(|table| table as &dyn Rows).collect();
        let scores = self.scores.as_ref();
        let epoch = self.engine.epoch(&self.order, self.batch, &tables, scores, &mut || Ok(())).unwrap();
        let loss = epoch.loss / epoch.weight;
        self.losses.push(loss.to_bits());
        loss
    }

    pub fn numbers(self) -> Numbers {
        Numbers {
            losses: self.losses,
            parameters: self.parameters.iter().map(|p| bits(p.array())).collect(),
            states: self.states.iter().flatten().map(|s| bits(s.array())).collect(),
            scores: self.scores.iter().flat_map(bits).collect(),
        }
    }

    /// The step for whole batches.
    pub fn step(&self) -> &Step {
        self.engine.step(self.batch).unwrap()
    }

    /// How many of its instructions have this name.
    pub fn count(&self, name: &str) -> usize {
        self.step().instruction_names().iter().filter(|n| *n == name).count()
    }

    /// Which parameters have a gradient in memory.
    pub fn stored(&self) -> Vec<bool> {
        self.step().plan().gradients().iter().map(Option::is_some).collect()
    }
}
