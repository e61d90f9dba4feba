//! A training step allocates nothing: an epoch of many steps allocates as often as an epoch of few.
//!
//! One test only: the counter sees every thread of the process, the pool's workers with it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use ferrograd_core::buffer::Array;
use ferrograd_core::dtype::{DType, Element};
use ferrograd_core::error::Result;
use ferrograd_core::op::{Generator, Loss, Unary};
use ferrograd_core::plan::Tracing;
use ferrograd_core::shape::Dims;
use ferrograd_core::tensor::Tensor;
use ferrograd_core::train::{Engine, Parameter, Rows, Rule, Step, StepSpec};
use ferrograd_kernels::{pool, update};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const INPUTS: usize = 20;
const CLASSES: usize = 5;
const BATCH: usize = 64;
/// The rows of the last, short batch.
const REST: usize = 36;

struct Table(Array);

impl Rows for Table {
    fn gather(&self, rows: &[u32], out: &Array) -> Result<()> {
        fn typed<T: Element>(table: &Array, rows: &[u32], out: &Array) {
            let width: usize = table.shape()[1..].iter().product();
            let (source, mut target) = (table.read::<T>(), out.write::<T>());
            for (i, &row) in rows.iter().enumerate() {
                let row = &source[row as usize * width..][..width];
                target[i * out.row_stride()..][..width].copy_from_slice(row);
            }
        }
        match self.0.dtype() {
            DType::I64 => typed::<i64>(&self.0, rows, out),
            _ => typed::<f32>(&self.0, rows, out),
        }
        Ok(())
    }
}

fn normal(seed: u64, shape: &[usize], requires_grad: bool) -> Tensor {
    let values = Generator::new(seed).normal(DType::F32, Dims::from_slice(shape), 0.0, 0.3).unwrap();
    Tensor::leaf(values, requires_grad)
}

/// A 20-48-32-5 network with its steps for a whole and a short batch.
fn engine(rule: Rule, states: usize, clip_grad_norm: Option<f64>) -> Engine {
    let widths = [INPUTS, 48, 32, CLASSES];
    let layers: Vec<[Tensor; 2]> = widths
        .windows(2)
        .zip(1..)
        .map(|(w, seed)| [normal(seed, &[w[1], w[0]], true), normal(seed + 10, &[w[1]], true)])
        .collect();
    let states: Vec<Vec<Tensor>> = layers
        .iter()
        .flatten()
        .map(|p| {
            let zeros = || Tensor::constant(Array::zeros(DType::F32, *p.shape()).unwrap());
            (0..states).map(|_| zeros()).collect()
        })
        .collect();
    let mut engine = Engine::new(vec![rule], 3);
    for batch in [BATCH, REST] {
        let tracing = Tracing::start();
        let labels = Generator::new(5).integers(Dims::from_slice(&[batch]), 0, CLASSES as i64).unwrap();
        let inputs = [normal(1, &[batch, INPUTS], false), Tensor::constant(labels)];
        let mut scores = inputs[0].clone();
        for (i, [weight, bias]) in layers.iter().enumerate() {
            scores = scores.linear(weight, Some(bias)).unwrap();
            if i + 1 < layers.len() {
                scores = scores.unary(Unary::Relu).unwrap();
            }
        }
        let loss = Loss::CrossEntropy { label_smoothing: 0.0, ignore_index: -100, weighted: false };
        let loss = scores.loss(loss, &inputs[1], None).unwrap().mean(&[], false).unwrap();
        let parameters = layers.iter().flatten().zip(&states);
        let parameters =
            parameters.map(|(p, s)| Parameter { tensor: p.clone(), rule: 0, state: s.clone() }).collect();
        let spec = StepSpec {
            inputs: &inputs,
            scores: &scores,
            loss: Some(&loss),
            parameters,
            clip_grad_norm,
            fused: true,
        };
        engine.add(Step::build(&tracing, spec).unwrap());
    }
    engine
}

#[test]
fn an_epoch_of_many_steps_allocates_as_often_as_one_of_few() {
    let momentum = Rule::Sgd(update::Sgd {
        lr: 0.1,
        momentum: 0.9,
        dampening: 0.0,
        weight_decay: 1e-4,
        nesterov: true,
        first_step: true,
    });
    let adam = Rule::Adam(update::Adam {
        lr: 1e-2,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        decoupled: true,
        step: 1,
    });
    let samples = 50 * BATCH + REST;
    let labels = Generator::new(5).integers(Dims::from_slice(&[samples]), 0, CLASSES as i64).unwrap();
    let (x, y) = (Table(normal(2, &[samples, INPUTS], false).array().clone()), Table(labels));
    let order: Vec<u32> = (0..samples as u32).collect();
    for threads in [1, 2] {
        pool::set_num_threads(threads);
        for (name, rule, states, clip) in
            [("momentum", momentum, 1, None), ("adam", adam, 2, None), ("clipped adam", adam, 2, Some(1.0))]
        {
            let mut engine = engine(rule, states, clip);
            let mut epoch = |samples: usize| {
                let before = ALLOCATIONS.load(Ordering::SeqCst);
                let seen = engine.epoch(&order[..samples], BATCH, &[&x, &y], None, &mut || Ok(())).unwrap();
                assert_eq!((seen.rows, seen.diverged), (samples, None));
                ALLOCATIONS.load(Ordering::SeqCst) - before
            };
            // The first runs start threads and fill scratch buffers that stay; a thread may meet its largest
            // task late.
            for _ in 0..20 {
                epoch(samples);
            }
            let few = epoch(BATCH + REST);
            let many = epoch(samples);
            assert_eq!(many, few, "{name}, {threads} threads: allocations of 51 steps and of 2");
        }
    }
}
