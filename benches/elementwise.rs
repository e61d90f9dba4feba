//! Activations, losses, reductions and updates by shape, in elements per second.
//!
//! `cargo bench -p ferrograd-kernels --bench elementwise`

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ferrograd_kernels::elementwise::{Binary, Unary, binary, unary};
use ferrograd_kernels::loss::{CrossEntropy, cross_entropy_rows, multi_margin_rows};
use ferrograd_kernels::reduce::{Reduction, reduce_columns, reduce_rows};
use ferrograd_kernels::update::{Adam, Sgd, adam, sgd};

/// Rows and columns: a batch of a small, a middling and a wide layer.
const SHAPES: [(usize, usize); 3] = [(64, 10), (128, 128), (512, 1024)];

fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 % 1001) as f32 - 500.0) / 250.0).collect()
}

fn activations(c: &mut Criterion) {
    let mut group = c.benchmark_group("activation");
    for (rows, cols) in SHAPES {
        let (x, g, mut out) = (values(rows * cols), values(rows * cols), vec![0.0; rows * cols]);
        let shape = [rows, cols];
        group.throughput(Throughput::Elements((rows * cols) as u64));
        for (name, op) in [
            ("relu", Unary::Relu),
            ("tanh", Unary::Tanh),
            ("sigmoid", Unary::Sigmoid),
            ("elu", Unary::Elu(1.0)),
            ("exp", Unary::Exp),
            ("log1p", Unary::Log1p),
        ] {
            group.bench_function(BenchmarkId::new(name, format!("{rows}x{cols}")), |b| {
                b.iter(|| unary(op, &shape, black_box(&x), &[cols, 1], &mut out));
            });
        }
        for (name, op) in [("add", Binary::Add), ("tanh_grad", Binary::TanhGrad)] {
            group.bench_function(BenchmarkId::new(name, format!("{rows}x{cols}")), |b| {
                b.iter(|| binary(op, &shape, black_box(&g), &[cols, 1], black_box(&x), &[cols, 1], &mut out));
            });
        }
    }
}

fn losses(c: &mut Criterion) {
    let mut group = c.benchmark_group("loss with gradient");
    for (rows, classes) in SHAPES {
        let x = values(rows * classes);
        let labels: Vec<i64> = (0..rows).map(|i| (i % classes) as i64).collect();
        let (mut loss, mut grad) = (vec![0.0; rows], vec![0.0; rows * classes]);
        let p = CrossEntropy { weight: None, label_smoothing: 0.0, ignore_index: -100 };
        group.throughput(Throughput::Elements((rows * classes) as u64));
        group.bench_function(BenchmarkId::new("cross_entropy", format!("{rows}x{classes}")), |b| {
            b.iter(|| {
                cross_entropy_rows(
                    &p,
                    rows,
                    classes,
                    black_box(&x),
                    &labels,
                    Some(&mut loss),
                    Some(&mut grad),
                );
            });
        });
        group.bench_function(BenchmarkId::new("multi_margin", format!("{rows}x{classes}")), |b| {
            b.iter(|| {
                let (loss, grad) = (Some(&mut loss[..]), Some(&mut grad[..]));
                multi_margin_rows(1, 1.0, 1.0, None, rows, classes, black_box(&x), &labels, loss, grad);
            });
        });
    }
}

fn reductions(c: &mut Criterion) {
    let mut group = c.benchmark_group("sum");
    for (rows, cols) in SHAPES {
        let x = values(rows * cols);
        group.throughput(Throughput::Elements((rows * cols) as u64));
        let mut by_row = vec![0.0; rows];
        group.bench_function(BenchmarkId::new("rows", format!("{rows}x{cols}")), |b| {
            b.iter(|| reduce_rows(Reduction::Sum, rows, cols, black_box(&x), &mut by_row));
        });
        let mut by_column = vec![0.0; cols];
        group.bench_function(BenchmarkId::new("columns", format!("{rows}x{cols}")), |b| {
            b.iter(|| reduce_columns(Reduction::Sum, 1, rows, cols, black_box(&x), &mut by_column));
        });
    }
}

fn updates(c: &mut Criterion) {
    let mut group = c.benchmark_group("update");
    for n in [1 << 10, 100_480, 1 << 20] {
        let (g, mut w, mut m, mut v) = (values(n), values(n), vec![0.0; n], vec![0.0; n]);
        group.throughput(Throughput::Elements(n as u64));
        let plain = Sgd {
            lr: 1e-3,
            momentum: 0.0,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
            first_step: false,
        };
        group.bench_function(BenchmarkId::new("sgd", n), |b| {
            b.iter(|| sgd(&plain, &mut w, black_box(&g), None))
        });
        let heavy = Sgd { momentum: 0.9, ..plain };
        group.bench_function(BenchmarkId::new("momentum", n), |b| {
            b.iter(|| sgd(&heavy, &mut w, black_box(&g), Some(&mut m)));
        });
        let h = Adam {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            decoupled: false,
            step: 10,
        };
        group.bench_function(BenchmarkId::new("adam", n), |b| {
            b.iter(|| adam(&h, &mut w, black_box(&g), &mut m, &mut v, None));
        });
    }
}

criterion_group!(benches, activations, losses, reductions, updates);
criterion_main!(benches);
