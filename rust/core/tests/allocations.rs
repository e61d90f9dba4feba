//! A training step allocates nothing: an epoch of many steps allocates as often as an epoch of few.
//!
//! One test only: the counter sees every thread of the process, the pool's workers with it.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use ferrograd_core::accumulate::Accumulation;
use ferrograd_core::buffer::Array;
use ferrograd_core::dtype::DType;
use ferrograd_core::op::Unary;
use ferrograd_core::plan::Tracing;
use ferrograd_core::tensor::Tensor;
use ferrograd_core::train::{Engine, Parameter, Step, StepSpec};
use ferrograd_kernels::pool;

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
/// The rows of a batch, and of the last, short one: many, and so few that an update goes back in the same pass.
const SIZES: [[usize; 2]; 2] = [[64, 36], [4, 3]];

/// A 20-48-32-5 network with its steps for a whole and a short batch, and an update after so many.
fn engine(sizes: [usize; 2], optimizer: Optimizer, clip_grad_norm: Option<f64>, every: usize) -> Engine {
    let leaf = |seed, shape: &[usize]| Tensor::leaf(normal(seed, DType::F32, shape, 0.3), true);
    let widths = [INPUTS, 48, 32, CLASSES];
    let layers: Vec<[Tensor; 2]> = widths
        .windows(2)
        .zip(1..)
        .map(|(w, seed)| [leaf(seed, &[w[1], w[0]]), leaf(seed + 10, &[w[1]])])
        .collect();
    let states: Vec<Vec<Tensor>> = layers
        .iter()
        .flatten()
        .map(|p| {
            let zeros = || Tensor::constant(Array::zeros(DType::F32, *p.shape()).unwrap());
            (0..optimizer.states).map(|_| zeros()).collect()
        })
        .collect();
    let mut engine = Engine::new(vec![optimizer.rule], 3);
    for batch in sizes {
        let tracing = Tracing::start();
        let inputs = [normal(1, DType::F32, &[batch, INPUTS], 0.3), labels(batch, CLASSES)];
        let inputs = inputs.map(Tensor::constant);
        let mut scores = inputs[0].clone();
        for (i, [weight, bias]) in layers.iter().enumerate() {
            scores = scores.linear(weight, Some(bias)).unwrap();
            if i + 1 < layers.len() {
                scores = scores.unary(Unary::Relu).unwrap();
            }
        }
        let loss = scores.loss(CROSS_ENTROPY, &inputs[1], None).unwrap().mean(&[], false).unwrap();
        let parameters = layers.iter().flatten().zip(&states);
        let parameters = parameters
            .map(|(p, s)| Parameter { tensor: p.clone(), rule: 0, state: s.clone(), whole: false })
            .collect();
        let spec = StepSpec {
            inputs: &inputs,
            scores: &scores,
            loss: Some(&loss),
            parameters,
            clip_grad_norm,
            fused: true,
            kept: engine.kept(),
        };
        let parameters = spec.parameters.clone();
        if every > 1 && engine.accumulation.is_none() {
            engine.accumulation = Some(Accumulation::new(&parameters, every, clip_grad_norm).unwrap());
        }
        let sums = engine.accumulation.as_ref().map(|sums| sums.sums().to_vec()).unwrap_or_default();
        let step = Step::adding(&tracing, spec, &sums).unwrap();
        if let Some(sums) = &mut engine.accumulation {
            sums.compile(&parameters, step.updated(), true).unwrap();
        }
        engine.add(step);
    }
    engine
}

#[test]
fn an_epoch_of_many_steps_allocates_as_often_as_one_of_few() {
    for ([batch, rest], threads) in SIZES.into_iter().flat_map(|sizes| [(sizes, 1), (sizes, 2)]) {
        let samples = 50 * batch + rest;
        let x = Table::new(normal(2, DType::F32, &[samples, INPUTS], 0.3));
        let y = Table::new(labels(samples, CLASSES));
        let order: Vec<u32> = (0..samples as u32).collect();
        pool::set_num_threads(threads);
        let adam = adam(true, false, 0.01);
        let ways = [
            (sgd(0.9, true, 1e-4), None, 1),
            (adam, None, 1),
            (adam, Some(1.0), 1),
            (adam, None, 4),
            (adam, Some(1.0), 4),
        ];
        for (optimizer, clip, every) in ways {
            let mut engine = engine([batch, rest], optimizer, clip, every);
            let mut epoch = |samples: usize| {
                let before = ALLOCATIONS.load(Ordering::SeqCst);
                let seen = engine.epoch(&order[..samples], batch, &[&x, &y], None, &mut || Ok(())).unwrap();
                assert_eq!((seen.rows, seen.diverged), (samples, None));
                ALLOCATIONS.load(Ordering::SeqCst) - before
            };
            // The first runs start threads and fill scratch buffers that stay; a thread may meet its largest
            // task late.
            for _ in 0..20 {
                epoch(samples);
            }
            let few = epoch(batch + rest);
            let many = epoch(samples);
            assert_eq!(
                many, few,
                "{optimizer:?}, {clip:?}, every {every}, {threads} threads, {batch} rows: 51 steps and 2"
            );
        }
    }
}
