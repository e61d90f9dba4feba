//! Matrix products of the layers of a network: FLOP/s by shape, beside the `gemm` and `matrixmultiply`
//! crates, and as a part of the FMA peak that is measured in the same run.
//!
//! `cargo bench -p ferrograd-kernels --bench gemm -- --table` prints the comparison as one table in a minute; without
//! `--table` criterion runs its statistics.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use ferrograd_kernels::gemm::{MatRef, NoEpilogue, gemm};
use ferrograd_kernels::isa::{self, Level};
use ferrograd_kernels::peak::fma_rate;
use ferrograd_kernels::pool;

/// `a_t`, `b_t`: whether the operand lies transposed in memory.
struct Shape {
    name: &'static str,
    m: usize,
    n: usize,
    k: usize,
    a_t: bool,
    b_t: bool,
}

const fn shape(name: &'static str, m: usize, n: usize, k: usize, a_t: bool, b_t: bool) -> Shape {
    Shape { name, m, n, k, a_t, b_t }
}

/// Forward `X W^T`, data gradient `dZ W`, weight gradient `dZ^T X`, with W of `outputs x inputs`: the layers of
/// the networks that `ferrograd bench` times, and a few of other sizes.
const SHAPES: &[Shape] = &[
    shape("square", 512, 512, 512, false, false),
    shape("square W^T", 512, 512, 512, false, true),
    shape("forward", 1, 128, 784, false, true),
    shape("forward", 4, 16, 16, false, true),
    shape("forward", 32, 16, 16, false, true),
    shape("forward", 32, 4096, 4096, false, true),
    shape("forward", 64, 10, 64, false, true),
    shape("forward", 64, 64, 64, false, true),
    shape("forward", 64, 128, 784, false, true),
    shape("forward", 64, 256, 256, false, true),
    shape("forward", 128, 512, 784, false, true),
    shape("forward", 128, 512, 512, false, true),
    shape("forward", 512, 2048, 2048, false, true),
    shape("forward", 1024, 512, 784, false, true),
    shape("forward", 1024, 10, 512, false, true),
    shape("data gradient", 64, 64, 10, false, false),
    shape("data gradient", 64, 128, 10, false, false),
    shape("data gradient", 64, 256, 256, false, false),
    shape("data gradient", 128, 512, 512, false, false),
    shape("data gradient", 512, 2048, 2048, false, false),
    shape("data gradient", 1024, 512, 512, false, false),
    shape("weight gradient", 16, 16, 32, true, false),
    shape("weight gradient", 10, 128, 64, true, false),
    shape("weight gradient", 64, 64, 64, true, false),
    shape("weight gradient", 128, 784, 64, true, false),
    shape("weight gradient", 256, 256, 64, true, false),
    shape("weight gradient", 512, 784, 128, true, false),
    shape("weight gradient", 512, 784, 1024, true, false),
    shape("weight gradient", 2048, 2048, 512, true, false),
    shape("weight gradient", 4096, 4096, 32, true, false),
];

struct Operands {
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}

impl Shape {
    fn flop(&self) -> f64 {
        2.0 * (self.m * self.n * self.k) as f64
    }

    fn operands(&self) -> Operands {
        let values = |len| (0..len).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        Operands { a: values(self.m * self.k), b: values(self.k * self.n), c: vec![0.0; self.m * self.n] }
    }

    /// Row and column strides of A and of B.
    fn strides(&self) -> [usize; 4] {
        let (m, n, k) = (self.m, self.n, self.k);
        let (a_row, a_col) = if self.a_t { (1, m) } else { (k, 1) };
        let (b_row, b_col) = if self.b_t { (1, k) } else { (n, 1) };
        [a_row, a_col, b_row, b_col]
    }

    fn ours(&self, o: &mut Operands) {
        let [a_row, a_col, b_row, b_col] = self.strides();
        let (a, b) = (MatRef::new(&o.a, a_row, a_col), MatRef::new(&o.b, b_row, b_col));
        gemm(self.m, self.n, self.k, a, b, &mut o.c, self.n, false, &NoEpilogue);
    }

    fn gemm_crate(&self, o: &mut Operands) {
        let (m, n, k) = (self.m, self.n, self.k);
        let [a_row, a_col, b_row, b_col] = self.strides().map(|stride| stride as isize);
        // SAFETY: the strides are those of the three slices.
        unsafe {
            ::gemm::gemm(
                m,
                n,
                k,
                o.c.as_mut_ptr(),
                1,
                n as isize,
                false,
                o.a.as_ptr(),
                a_col,
                a_row,
                o.b.as_ptr(),
                b_col,
                b_row,
                0.0,
                1.0,
                false,
                false,
                false,
                ::gemm::Parallelism::None,
            );
        }
    }

    fn matrixmultiply(&self, o: &mut Operands) {
        let (m, n, k) = (self.m, self.n, self.k);
        let [a_row, a_col, b_row, b_col] = self.strides().map(|stride| stride as isize);
        let (a, b, c) = (o.a.as_ptr(), o.b.as_ptr(), o.c.as_mut_ptr());
        // SAFETY: the strides are those of the three slices.
        unsafe {
            matrixmultiply::sgemm(m, k, n, 1.0, a, a_row, a_col, b, b_row, b_col, 0.0, c, n as isize, 1)
        };
    }
}

type Product = fn(&Shape, &mut Operands);

/// The best rate of several short runs, in GF/s.
fn rate(shape: &Shape, operands: &mut Operands, product: Product) -> f64 {
    let calls = ((2e7 / shape.flop()) as usize).clamp(1, 20_000);
    let mut best = Duration::MAX;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(150) {
        let start = Instant::now();
        for _ in 0..calls {
            product(shape, black_box(operands));
        }
        best = best.min(start.elapsed());
    }
    shape.flop() * calls as f64 / best.as_secs_f64() * 1e-9
}

fn print_table() {
    for level in Level::supported().filter(|&level| level != Level::Portable) {
        isa::force(level).expect("a supported level");
        let peak = fma_rate::<f32>(1) * 1e-9;
        println!("\n{level}: FMA peak {peak:.0} GF/s on one thread");
        println!("{:36} {:>7} {:>5} {:>7} {:>7} {:>7}", "", "ours", "peak", "2 thr", "gemm", "matmul");
        for shape in SHAPES {
            let operands = &mut shape.operands();
            pool::set_num_threads(2);
            let two = rate(shape, operands, Shape::ours);
            pool::set_num_threads(1);
            let rivals = [Shape::ours, Shape::gemm_crate, Shape::matrixmultiply];
            let [ours, gemm, matmul] = rivals.map(|product| rate(shape, operands, product));
            let name = format!("{} {} x {} x {}", shape.name, shape.m, shape.k, shape.n);
            println!("{name:36} {ours:7.1} {:4.0}% {two:7.1} {gemm:7.1} {matmul:7.1}", 100.0 * ours / peak);
        }
    }
}

fn run_criterion() {
    let mut criterion = Criterion::default().configure_from_args();
    pool::set_num_threads(1);
    let rivals: [(&str, Product); 3] =
        [("ours", Shape::ours), ("gemm", Shape::gemm_crate), ("matrixmultiply", Shape::matrixmultiply)];
    for shape in SHAPES {
        let name = format!("{} {}x{}x{}", shape.name, shape.m, shape.k, shape.n);
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(shape.flop() as u64));
        for (rival, product) in rivals {
            let mut operands = shape.operands();
            group.bench_function(BenchmarkId::from_parameter(rival), |bencher| {
                bencher.iter(|| product(shape, black_box(&mut operands)));
            });
        }
        group.finish();
    }
    criterion.final_summary();
}

fn main() {
    if std::env::args().any(|argument| argument == "--table") {
        print_table();
    } else {
        run_criterion();
    }
}
