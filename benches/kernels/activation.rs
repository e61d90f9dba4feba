//! Activations and their derivatives by shape, in elements per second.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ferrograd_kernels::elementwise::{Binary, Unary, binary, unary};
use ferrograd_kernels::reduce::softmax_rows;

/// Rows and columns: a batch of a small, a middling and a wide layer.
const SHAPES: [(usize, usize); 3] = [(64, 10), (128, 128), (512, 1024)];

const FORWARD: [(&str, Unary); 6] = [
    ("relu", Unary::Relu),
    ("leaky_relu", Unary::LeakyRelu(0.01)),
    ("elu", Unary::Elu(1.0)),
    ("sigmoid", Unary::Sigmoid),
    ("tanh", Unary::Tanh),
    ("softplus", Unary::Softplus { beta: 1.0, threshold: 20.0 }),
];

const BACKWARD: [(&str, Binary); 6] = [
    ("relu", Binary::ReluGrad),
    ("leaky_relu", Binary::LeakyReluGrad(0.01)),
    ("elu", Binary::EluGrad(1.0)),
    ("sigmoid", Binary::SigmoidGrad),
    ("tanh", Binary::TanhGrad),
    ("softplus", Binary::SoftplusGrad { beta: 1.0, threshold: 20.0 }),
];

fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 % 1001) as f32 - 500.0) / 250.0).collect()
}

fn forward(c: &mut Criterion) {
    let mut group = c.benchmark_group("activation");
    for (rows, cols) in SHAPES {
        let (x, mut out) = (values(rows * cols), vec![0.0; rows * cols]);
        group.throughput(Throughput::Elements((rows * cols) as u64));
        for (name, op) in FORWARD {
            group.bench_function(BenchmarkId::new(name, format!("{rows}x{cols}")), |b| {
                b.iter(|| unary(op, &[rows, cols], black_box(&x), &[cols, 1], &mut out));
            });
        }
        group.bench_function(BenchmarkId::new("softmax", format!("{rows}x{cols}")), |b| {
            b.iter(|| softmax_rows(rows, cols, black_box(&x), &mut out));
        });
    }
}

fn backward(c: &mut Criterion) {
    let mut group = c.benchmark_group("activation gradient");
    for (rows, cols) in SHAPES {
        let (x, g, mut out) = (values(rows * cols), values(rows * cols), vec![0.0; rows * cols]);
        let strides = [cols, 1];
        group.throughput(Throughput::Elements((rows * cols) as u64));
        for (name, op) in BACKWARD {
            group.bench_function(BenchmarkId::new(name, format!("{rows}x{cols}")), |b| {
                b.iter(|| {
                    binary(op, &[rows, cols], black_box(&g), &strides, black_box(&x), &strides, &mut out)
                });
            });
        }
    }
}

criterion_group!(benches, forward, backward);
criterion_main!(benches);
