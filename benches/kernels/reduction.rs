//! Sums over rows (losses) and columns (bias gradients) by shape, in elements per second.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ferrograd_kernels::reduce::{Reduction, reduce_columns, reduce_rows};

/// Rows and columns: a batch of a small, a middling and a wide layer.
const SHAPES: [(usize, usize); 3] = [(64, 10), (128, 128), (512, 1024)];

fn sums(c: &mut Criterion) {
    let mut group = c.benchmark_group("sum");
    for (rows, cols) in SHAPES {
        let x: Vec<f32> = (0..rows * cols).map(|i| (i * 37 % 1001) as f32 / 250.0 - 2.0).collect();
        let (mut by_row, mut by_column) = (vec![0.0; rows], vec![0.0; cols]);
        group.throughput(Throughput::Elements((rows * cols) as u64));
        group.bench_function(BenchmarkId::new("rows", format!("{rows}x{cols}")), |b| {
            b.iter(|| reduce_rows(Reduction::Sum, rows, cols, black_box(&x), &mut by_row));
        });
        group.bench_function(BenchmarkId::new("columns", format!("{rows}x{cols}")), |b| {
            b.iter(|| reduce_columns(Reduction::Sum, 1, rows, cols, black_box(&x), &mut by_column));
        });
    }
}

criterion_group!(benches, sums);
criterion_main!(benches);
