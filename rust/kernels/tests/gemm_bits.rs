//! The matrix product has the bits of the naive loop, whatever the shape, strides, instruction set and
//! number of threads. A process of its own, because it forces levels and thread counts.

use std::sync::Mutex;

use ferrograd_kernels::gemm::{Bias, Epilogue, MatRef, NoEpilogue, gemm};
use ferrograd_kernels::isa::{self, Level};
use ferrograd_kernels::lanes::Real;
use ferrograd_kernels::pool;

/// The level and the thread count belong to the process: one test at a time.
static SETTINGS: Mutex<()> = Mutex::new(());

const UNTOUCHED: f64 = -7.5;

/// Values of mixed sign and magnitude whose sums round differently in every order.
fn values<T: Real>(len: usize, seed: u64) -> Vec<T> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        T::from_f64((state >> 11) as f64 / (1u64 << 53) as f64 - 0.4)
    };
    (0..len).map(|_| next()).collect()
}

fn same<T: Real>(a: T, b: T) -> bool {
    // Widening is exact, so equal bits there are equal bits here; any NaN equals any NaN.
    (a.is_nan() && b.is_nan()) || a.to_f64().to_bits() == b.to_f64().to_bits()
}

struct Case<T> {
    shape: (usize, usize, usize),
    form: usize,
    accumulate: bool,
    a: Vec<T>,
    b: Vec<T>,
    c: Vec<T>,
    c_stride: usize,
    expected: Vec<T>,
}

impl<T: Real> Case<T> {
    /// `form` bit 0 transposes A in memory, bit 1 B. All slices end at their last element.
    fn new((m, n, k): (usize, usize, usize), form: usize, accumulate: bool) -> Case<T> {
        let c_stride = n + if n % 2 == 1 { 3 } else { 0 };
        let c_len = if m == 0 || n == 0 { 0 } else { (m - 1) * c_stride + n };
        let (a, b) = (values(m * k, 1 + m as u64), values(k * n, 99 + n as u64));
        let mut c = values(c_len, 5);
        for i in 0..c_len {
            if i % c_stride >= n {
                c[i] = T::from_f64(UNTOUCHED);
            }
        }
        let mut case = Case { shape: (m, n, k), form, accumulate, a, b, expected: c.clone(), c, c_stride };
        case.expected = case.naive();
        case
    }

    fn views(&self) -> (MatRef<'_, T>, MatRef<'_, T>) {
        let (m, n, k) = self.shape;
        let view = |data, rows, cols, is_transposed| match is_transposed {
            true => MatRef::rows(data, rows).transposed(),
            false => MatRef::rows(data, cols),
        };
        (view(&self.a[..], m, k, self.form & 1 != 0), view(&self.b[..], k, n, self.form & 2 != 0))
    }

    fn naive(&self) -> Vec<T> {
        let (m, n, k) = self.shape;
        let mut c = self.c.clone();
        for i in 0..m {
            for j in 0..n {
                let mut sum = if self.accumulate { c[i * self.c_stride + j] } else { T::ZERO };
                for p in 0..k {
                    let a = if self.form & 1 != 0 { self.a[p * m + i] } else { self.a[i * k + p] };
                    let b = if self.form & 2 != 0 { self.b[j * k + p] } else { self.b[p * n + j] };
                    sum = a.mul_add(b, sum);
                }
                c[i * self.c_stride + j] = sum;
            }
        }
        c
    }

    fn check(&self) {
        let (m, n, k) = self.shape;
        let (a, b) = self.views();
        let mut c = self.c.clone();
        gemm(m, n, k, a, b, &mut c, self.c_stride, self.accumulate, &NoEpilogue);
        for i in 0..c.len() {
            assert!(
                same(c[i], self.expected[i]),
                "{m} x {n} x {k}, form {}, accumulate {}, {}, {} threads: element {i} is {:?}, expected {:?}",
                self.form,
                self.accumulate,
                isa::active(),
                pool::num_threads(),
                c[i],
                self.expected[i],
            );
        }
    }
}

fn on_every_level(check: impl Fn()) {
    let _settings = SETTINGS.lock().unwrap_or_else(|e| e.into_inner());
    for level in Level::supported() {
        isa::force(level).unwrap();
        check();
        assert_eq!(isa::active(), level);
    }
}

fn shapes_match<T: Real>() {
    const SIZES: [usize; 16] = [0, 1, 2, 3, 5, 7, 8, 13, 16, 17, 31, 33, 47, 64, 65, 100];
    let mut cases = Vec::new();
    for (x, &m) in SIZES.iter().enumerate() {
        for (y, &n) in SIZES.iter().enumerate() {
            // Every pair (m, n) with three k: over all pairs each k meets each residue of the tile.
            for step in [0, 5, 10] {
                let k = SIZES[(x + 3 * y + step) % SIZES.len()];
                cases.push(Case::<T>::new((m, n, k), (x + y + step) % 4, (x + step) % 2 == 0));
            }
        }
    }
    for form in 0..4 {
        for accumulate in [false, true] {
            for shape in [(13, 33, 17), (64, 10, 64), (7, 47, 5), (100, 100, 100), (31, 16, 1), (1, 65, 31)] {
                cases.push(Case::new(shape, form, accumulate));
            }
        }
    }
    on_every_level(|| cases.iter().for_each(Case::check));
}

#[test]
fn f32_product_equals_naive_loop_on_every_level() {
    shapes_match::<f32>();
}

#[test]
fn f64_product_equals_naive_loop_on_every_level() {
    shapes_match::<f64>();
}

#[test]
fn blocks_of_k_rows_and_columns_change_no_bit() {
    let mut cases = Vec::new();
    for form in 0..4 {
        cases.push(Case::<f32>::new((20, 40, 700), form, form % 2 == 0));
        cases.push(Case::<f32>::new((300, 50, 530), form, form % 2 == 1));
    }
    // More rows than a block of A and more columns than a block of B.
    cases.push(Case::new((290, 1100, 257), 3, false));
    cases.push(Case::new((290, 1100, 257), 1, true));
    on_every_level(|| {
        let is_slow = isa::active() == Level::Portable;
        cases.iter().filter(|case| !is_slow || case.shape.1 < 100).for_each(Case::check);
    });
}

#[test]
fn threads_change_no_bit() {
    let cases: Vec<_> = [(128, 100, 65), (65, 257, 64), (3, 700, 300), (700, 3, 300), (97, 130, 600)]
        .into_iter()
        .flat_map(|shape| (0..4).map(move |form| Case::<f32>::new(shape, form, form == 1)))
        .collect();
    on_every_level(|| {
        for threads in [1, 2, 3, 7] {
            pool::set_num_threads(threads);
            let is_slow = isa::active() == Level::Portable;
            cases.iter().step_by(if is_slow { 5 } else { 1 }).for_each(Case::check);
        }
    });
    pool::set_num_threads(0);
}

#[test]
fn zero_times_infinity_is_nan_and_nothing_is_skipped() {
    on_every_level(|| {
        for special in [f32::NAN, f32::INFINITY] {
            for (m, n, k) in [(1, 1, 1), (5, 17, 9), (13, 40, 300)] {
                let a = vec![0.0; m * k];
                let mut b = vec![1.0; k * n];
                b[(k - 1) * n + n - 1] = special;
                let mut c = vec![0.0; m * n];
                gemm(m, n, k, MatRef::rows(&a, k), MatRef::rows(&b, n), &mut c, n, false, &NoEpilogue);
                for (i, value) in c.iter().enumerate() {
                    assert_eq!(value.is_nan(), i % n == n - 1, "{m} x {n} x {k}: {value}");
                }
            }
        }
    });
}

#[test]
fn stride_zero_repeats_a_row_and_a_column() {
    on_every_level(|| {
        let (m, n, k) = (14, 35, 20);
        let (a, b) = (values::<f64>(k, 3), values::<f64>(k, 4));
        let expected = a.iter().zip(&b).fold(0.0, |sum, (&a, &b)| a.mul_add(b, sum));
        let mut c = vec![1.0; m * n];
        gemm(m, n, k, MatRef::new(&a, 0, 1), MatRef::new(&b, 1, 0), &mut c, n, false, &NoEpilogue);
        assert!(c.iter().all(|&value| same(value, expected)));
    });
}

/// Records how often each element was finished.
struct Count;

impl Epilogue<f32> for Count {
    #[inline(always)]
    fn finish(&self, row: usize, column: usize, values: &mut [f32]) {
        for (j, value) in values.iter_mut().enumerate() {
            *value += 1.0 + (row * 1000 + column + j) as f32;
        }
    }
}

#[test]
fn epilogue_sees_each_element_once_with_its_place() {
    on_every_level(|| {
        for (m, n, k) in [(1, 1, 0), (13, 45, 0), (40, 33, 3), (30, 600, 600)] {
            if isa::active() == Level::Portable && k > 100 {
                continue;
            }
            let (a, b) = (vec![0.0; m * k], vec![1.0; k * n]);
            let mut c = vec![9.0; m * n];
            gemm(m, n, k, MatRef::rows(&a, k), MatRef::rows(&b, n), &mut c, n, false, &Count);
            for (i, &value) in c.iter().enumerate() {
                assert_eq!(value, 1.0 + (i / n * 1000 + i % n) as f32);
            }
        }
    });
}

#[test]
fn bias_is_added_after_the_sum() {
    on_every_level(|| {
        let case = Case::<f32>::new((17, 37, 300), 2, false);
        let (m, n, k) = case.shape;
        let bias = values::<f32>(n, 77);
        let (a, b) = case.views();
        let mut c = case.c.clone();
        gemm(m, n, k, a, b, &mut c, case.c_stride, false, &Bias(&bias));
        for i in 0..m {
            for j in 0..n {
                let at = i * case.c_stride + j;
                assert!(same(c[at], case.expected[at] + bias[j]), "({i}, {j})");
            }
        }
    });
}

#[test]
#[should_panic(expected = "B of 3 x 4 exceeds its slice of 11")]
fn short_operand_is_refused() {
    let mut c = [0.0; 8];
    gemm(2, 4, 3, MatRef::rows(&[0.0; 6], 3), MatRef::rows(&[0.0; 11], 4), &mut c, 4, false, &NoEpilogue);
}

#[test]
#[should_panic(expected = "rows of C overlap")]
fn overlapping_rows_of_c_are_refused() {
    let mut c = [0.0; 8];
    gemm(2, 4, 1, MatRef::rows(&[0.0; 2], 1), MatRef::rows(&[0.0; 4], 4), &mut c, 3, false, &NoEpilogue);
}
