//! Random sources: the generator behind `manual_seed`, and the draws that a plan repeats.

use std::sync::atomic::{AtomicU64, Ordering};

use ferrograd_kernels::rng;

use super::{Meta, Op};
use crate::buffer::Array;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::for_float;
use crate::shape::Dims;
use crate::tensor::Tensor;

/// A counter-based generator: a key, and a count of the draws made with it. Each draw, of any size,
/// has its own stream, so what a draw gives depends on the seed and on its number alone.
#[derive(Debug)]
pub struct Generator {
    key: AtomicU64,
    draws: AtomicU64,
}

/// The generator that everything without one of its own draws from.
pub static DEFAULT: Generator = Generator::new(0);

impl Generator {
    /// At draw 0 of a seed.
    pub const fn new(seed: u64) -> Generator {
        Generator { key: AtomicU64::new(seed), draws: AtomicU64::new(0) }
    }

    /// Starts again from `seed`.
    pub fn manual_seed(&self, seed: u64) {
        self.set_state([seed, 0]);
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.key.load(Ordering::Relaxed)
    }

    /// The key and the number of draws, which say all that is drawn from here on.
    pub fn state(&self) -> [u64; 2] {
        [self.seed(), self.draws.load(Ordering::Relaxed)]
    }

    /// Goes on from a state.
    pub fn set_state(&self, [key, draws]: [u64; 2]) {
        self.key.store(key, Ordering::Relaxed);
        self.draws.store(draws, Ordering::Relaxed);
    }

    /// Key and stream of the next draw.
    pub fn next(&self) -> (u64, u64) {
        (self.seed(), self.draws.fetch_add(1, Ordering::Relaxed))
    }

    /// Uniform in [low, high).
    ///
    /// # Errors
    /// `DType` for integers, `Memory`; nothing is drawn then.
    pub fn uniform(&self, dtype: DType, shape: Dims, low: f64, high: f64) -> Result<Array> {
        for_float!("rand", dtype, T => {
            let array = Array::stale(dtype, shape)?;
            let (key, stream) = self.next();
            let mut out = array.write::<T>();
            rng::fill_uniform::<T>(rng::Stream::new(key, stream), &mut out);
            if (low, high) != (0.0, 1.0) {
                let (low, width) = (low as T, (high - low) as T);
                out.iter_mut().for_each(|v| *v = low + width * *v);
            }
            drop(out);
            Ok(array)
        })
    }

    /// Normal with the given mean and standard deviation.
    ///
    /// # Errors
    /// `DType` for integers, `Memory`; nothing is drawn then.
    pub fn normal(&self, dtype: DType, shape: Dims, mean: f64, std: f64) -> Result<Array> {
        for_float!("randn", dtype, T => {
            let array = Array::stale(dtype, shape)?;
            let (key, stream) = self.next();
            let mut out = array.write::<T>();
            rng::fill_normal::<T>(rng::Stream::new(key, stream), &mut out);
            if (mean, std) != (0.0, 1.0) {
                let (mean, std) = (mean as T, std as T);
                out.iter_mut().for_each(|v| *v = mean + std * *v);
            }
            drop(out);
            Ok(array)
        })
    }

    /// Integers in [low, high).
    ///
    /// # Errors
    /// `Config` when the range is empty, `Memory`; nothing is drawn then.
    pub fn integers(&self, shape: Dims, low: i64, high: i64) -> Result<Array> {
        if low >= high {
            return Err(Error::Config {
                argument: "high",
                expected: format!("a value above low = {low}"),
                got: high.to_string(),
            });
        }
        let array = Array::stale(DType::I64, shape)?;
        let (key, stream) = self.next();
        rng::fill_integers(key, stream, low, high, &mut array.write::<i64>());
        Ok(array)
    }
}

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Zeros with this probability, in [0, 1), else `1 / (1 - p)`.
    DropoutMask(f64),
    /// Uniform in [0, 1).
    Uniform,
    /// Mean 0, standard deviation 1.
    Normal,
}

/// Random numbers that a plan draws anew in each step.
#[derive(Clone, Debug, PartialEq)]
pub struct Draw {
    /// What is drawn.
    pub distribution: Distribution,
    /// Dtype of the result.
    pub dtype: DType,
    /// Shape of the result.
    pub shape: Dims,
    /// Seed of the stream.
    pub key: u64,
    /// Number of the draw: a plan counts its steps here.
    pub stream: u64,
    /// The element of the draw that is the first here.
    pub first: usize,
}

impl Draw {
    pub(super) fn name(&self) -> &'static str {
        match self.distribution {
            Distribution::DropoutMask(_) => "dropout_mask",
            Distribution::Uniform => "rand",
            Distribution::Normal => "randn",
        }
    }

    pub(super) fn meta(&self) -> Meta {
        Meta { dtype: self.dtype, shape: self.shape }
    }

    /// Some rows of the draw.
    pub(crate) fn rows(&self, rows: std::ops::Range<usize>) -> Draw {
        let mut shape = self.shape;
        shape[0] = rows.len();
        let width: usize = shape[1..].iter().product();
        Draw { shape, first: rows.start * width, ..self.clone() }
    }

    pub(crate) fn run(&self, out: &Array) -> Result<()> {
        let stream = rng::Stream { key: self.key, counter: self.stream, first: self.first };
        for_float!(self.name(), self.dtype, T => {
            let out = &mut out.write::<T>();
            match self.distribution {
                Distribution::DropoutMask(p) => rng::fill_dropout_mask::<T>(stream, p, out),
                Distribution::Uniform => rng::fill_uniform::<T>(stream, out),
                Distribution::Normal => rng::fill_normal::<T>(stream, out),
            }
            Ok(())
        })
    }

    /// The numbers as a tensor. The draw is recorded while a plan is traced, although it has no operands.
    ///
    /// # Errors
    /// `Config` when a probability is outside [0, 1), `DType`, `Memory`.
    pub fn tensor(
        distribution: Distribution,
        dtype: DType,
        shape: Dims,
        generator: &Generator,
    ) -> Result<Tensor> {
        if let Distribution::DropoutMask(p) = distribution
            && !(0.0..1.0).contains(&p)
        {
            return Err(Error::Config {
                argument: "p",
                expected: "a probability in [0, 1)".into(),
                got: p.to_string(),
            });
        }
        let draw = Draw { distribution, dtype, shape, key: 0, stream: 0, first: 0 };
        if !dtype.is_float() {
            return Err(Error::DType { op: draw.name(), expected: "float32 or float64", got: dtype });
        }
        let (key, stream) = generator.next();
        Draw { key, stream, ..draw }.recorded()
    }

    /// For `size` examples from number `start` on: each has numbers of its own, the first those of this draw.
    pub(crate) fn for_examples(&self, start: usize, size: usize) -> Result<Tensor> {
        let shape: Vec<usize> = [size].into_iter().chain(self.shape.iter().copied()).collect();
        let first = self.first + start * self.shape.elements();
        Draw { shape: Dims::new("vmap", &shape)?, first, ..self.clone() }.recorded()
    }

    fn recorded(self) -> Result<Tensor> {
        let array = Array::stale(self.dtype, self.shape)?;
        self.run(&array)?;
        Ok(Tensor::record(Op::Draw(self), &[], array))
    }
}
