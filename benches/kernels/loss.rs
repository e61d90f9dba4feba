//! Losses with their gradients, as a training step computes them, in elements per second.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ferrograd_kernels::loss::{CrossEntropy, bce_with_logits, cross_entropy_rows, multi_margin_rows};

/// Rows and classes: ten digits, a hundred, and a vocabulary.
const SHAPES: [(usize, usize); 3] = [(64, 10), (128, 100), (512, 1024)];

fn losses(c: &mut Criterion) {
    let mut group = c.benchmark_group("loss with gradient");
    for (rows, classes) in SHAPES {
        let n = rows * classes;
        let x: Vec<f32> = (0..n).map(|i| ((i * 37 % 1001) as f32 - 500.0) / 250.0).collect();
        let labels: Vec<i64> = (0..rows).map(|i| (i % classes) as i64).collect();
        let share: Vec<f32> = (0..n).map(|i| (i % 2) as f32).collect();
        let (mut loss, mut losses, mut grad) = (vec![0.0; rows], vec![0.0; n], vec![0.0; n]);
        let plain = CrossEntropy { weight: None, label_smoothing: 0.0, ignore_index: -100 };
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(BenchmarkId::new("cross_entropy", format!("{rows}x{classes}")), |b| {
            b.iter(|| {
                let (loss, grad) = (Some(&mut loss[..]), Some(&mut grad[..]));
                cross_entropy_rows(&plain, rows, classes, black_box(&x), &labels, loss, grad);
            });
        });
        for (name, power) in [("hinge", 1), ("squared_hinge", 2)] {
            group.bench_function(BenchmarkId::new(name, format!("{rows}x{classes}")), |b| {
                b.iter(|| {
                    let (loss, grad) = (Some(&mut loss[..]), Some(&mut grad[..]));
                    multi_margin_rows(
                        power,
                        1.0,
                        1.0,
                        None,
                        rows,
                        classes,
                        black_box(&x),
                        &labels,
                        loss,
                        grad,
                    );
                });
            });
        }
        group.bench_function(BenchmarkId::new("bce_with_logits", format!("{rows}x{classes}")), |b| {
            b.iter(|| bce_with_logits(black_box(&x), &share, None, Some(&mut losses), Some(&mut grad)));
        });
    }
}

criterion_group!(benches, losses);
criterion_main!(benches);
