//! Optimizer updates by number of weights, in weights per second.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ferrograd_kernels::update::{Adam, Sgd, adam, sgd};

/// Weights in the first cache, those of 784-128-10, and more than the caches hold.
const SIZES: [usize; 3] = [1 << 10, 100_480, 1 << 23];

const PLAIN: Sgd = Sgd {
    lr: 1e-3,
    momentum: 0.0,
    dampening: 0.0,
    weight_decay: 0.0,
    nesterov: false,
    first_step: false,
    velocity: false,
};
const MOMENTUM: Sgd = Sgd { momentum: 0.9, ..PLAIN };
const NESTEROV: Sgd = Sgd { nesterov: true, ..MOMENTUM };
const ADAM: Adam = Adam {
    lr: 1e-3,
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weight_decay: 0.0,
    decoupled: false,
    eps_hat: false,
    step: 10,
};
const ADAMW: Adam = Adam { weight_decay: 1e-2, decoupled: true, ..ADAM };

fn updates(c: &mut Criterion) {
    let mut group = c.benchmark_group("update");
    for n in SIZES {
        let g: Vec<f32> = (0..n).map(|i| ((i * 37 % 1001) as f32 - 500.0) / 250.0).collect();
        let (mut w, mut m, mut v) = (g.clone(), vec![0.0; n], vec![0.0; n]);
        group.throughput(Throughput::Elements(n as u64));
        for (name, rule) in [("sgd", PLAIN), ("momentum", MOMENTUM), ("nesterov", NESTEROV)] {
            group.bench_function(BenchmarkId::new(name, n), |b| {
                b.iter(|| sgd(&rule, &mut w, black_box(&g), Some(&mut m)));
            });
        }
        for (name, rule) in [("adam", ADAM), ("adamw", ADAMW)] {
            group.bench_function(BenchmarkId::new(name, n), |b| {
                b.iter(|| adam(&rule, &mut w, black_box(&g), &mut m, &mut v, None));
            });
        }
    }
}

criterion_group!(benches, updates);
criterion_main!(benches);
