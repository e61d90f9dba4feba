use super::*;
use crate::dense::{Dense, Derivative, Layer, Then};
use crate::elementwise::{Binary, Unary};
use crate::gemm::{NoEpilogue, gemm};
use crate::isa::on_every_level;
use crate::lanes::Lanes;
use crate::reduce::{Reduction, reduce_columns};
use crate::update::{Adam, Rule, Sgd, Update, penalise};

fn wave(len: usize, step: f32) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * step).sin()).collect()
}

fn wave_of<T: Math>(len: usize, step: f64) -> Vec<T> {
    (0..len).map(|i| T::from_f64((i as f64 * step).sin())).collect()
}

fn product(m: usize, n: usize, k: usize, a: MatRef<'_, f32>, b: MatRef<'_, f32>) -> Vec<f32> {
    let mut c = vec![0.0; m * n];
    gemm(m, n, k, a, b, &mut c, n, false, &NoEpilogue);
    c
}

#[derive(Clone, Copy)]
struct Twice;
impl<T: Real> TileMap<T> for Twice {
    type Common = ();
    fn common(self, _column: usize) {}
    fn apply(self, _row: usize, _column: usize, (): (), x: T::Lanes) -> T::Lanes {
        x.map(|x| x + x)
    }
}
impl<T: Real> Finish<T> for Twice {
    #[inline(always)]
    fn finish(&self, mut tile: Tile<'_, T>) {
        tile.map(Twice);
    }
}

/// Leaves the sums as they are.
struct Keep;

impl<T> Finish<T> for Keep {
    #[inline(always)]
    fn finish(&self, _tile: Tile<'_, T>) {}
}

const SHAPES: [(usize, usize, usize); 11] = [
    (1, 1, 1),
    (3, 10, 0),
    (7, 16, 5),
    (13, 33, 40),
    (64, 10, 128),
    (30, 100, 257),
    (200, 70, 9),
    (2, 64, 600),
    (20, 3, 100),
    (9, 23, 101),
    (500, 1, 37),
];

#[test]
fn packing_keeps_every_element_and_zeros_the_rest() {
    on_every_level(|level| {
        for (_, n, k) in SHAPES {
            let layout = Panels::new::<f32>(k, n);
            let source = wave(k * n, 0.7);
            for (row, col) in [(n, 1), (1, k)] {
                let mut packed = vec![f32::NAN; layout.len()];
                layout.pack(MatRef::new(&source, row, col), &mut packed);
                let mut back = vec![0.0; k * n];
                layout.unpack(&packed, &mut back, row, col);
                assert_eq!(back, source, "{level} {k} x {n}");
                // Elements between those of the matrix stay as they are.
                let gap = 3;
                let (row, col) = if col == 1 { (n + gap, 1) } else { (1, k + gap) };
                let mut apart = vec![7.0; (k + gap) * (n + gap)];
                layout.unpack(&packed, &mut apart, row, col);
                let mut want = vec![7.0; apart.len()];
                for i in 0..k {
                    for j in 0..n {
                        want[i * row + j * col] = source[if col == 1 { i * n + j } else { i + j * k }];
                    }
                }
                assert_eq!(apart, want, "{level} {k} x {n}");
                let zeros = packed.iter().filter(|&&v| v == 0.0).count();
                let real = source.iter().filter(|&&v| v == 0.0).count();
                assert_eq!(zeros, real + k * (layout.padded() - n), "{level} {k} x {n}");
            }
        }
    });
}

#[test]
fn square_sums_have_the_bits_of_a_reduction_of_the_squares() {
    on_every_level(|level| {
        for (_, n, k) in SHAPES.into_iter().chain([(0, 77, 3000)]) {
            let layout = Panels::new::<f32>(k, n);
            let source = wave(k * n, 0.7);
            let squares: Vec<f32> = source.iter().map(|x| x * x).collect();
            let (mut want, mut got) = (vec![0.0; n], vec![f32::NAN; n]);
            reduce_columns(Reduction::Sum, 1, k, n, &squares, &mut want);
            let mut packed = vec![f32::NAN; layout.len()];
            layout.pack(MatRef::rows(&source, n), &mut packed);
            for parallel in [false, true] {
                layout.square_sums(&packed, &mut got, parallel);
                assert_eq!(got, want, "{level} {k} x {n}");
            }
        }
    });
}

#[test]
fn the_transpose_is_packed_block_by_block() {
    on_every_level(|level| {
        for (_, n, k) in SHAPES {
            let (layout, transpose) = (Panels::new::<f32>(k, n), Panels::new::<f32>(n, k));
            let source = wave(k * n, 0.7);
            let (mut packed, mut want) = (vec![0.0; layout.len()], vec![0.0; transpose.len()]);
            layout.pack(MatRef::rows(&source, n), &mut packed);
            transpose.pack(MatRef::rows(&source, n).transposed(), &mut want);
            let mut got = vec![f32::NAN; transpose.len()];
            for panel in 0..layout.count() {
                for first in (0..k).step_by(transpose.width()) {
                    let rows = first..k.min(first + transpose.width());
                    let block = &packed[layout.segment(panel, rows.clone())];
                    let target = layout.transposed_segment(&transpose, panel, rows.clone());
                    layout.pack_transposed(panel, rows.len(), block, &mut got[target]);
                }
            }
            assert_eq!(got, want, "{level} {k} x {n}");
        }
    });
}

#[test]
fn products_have_the_bits_of_gemm_with_and_without_room_for_padding() {
    on_every_level(|level| {
        for (m, n, k) in SHAPES {
            let (a, b) = (wave(m * k, 0.37), wave(k * n, 0.73));
            let want = product(m, n, k, MatRef::rows(&a, k), MatRef::rows(&b, n));
            let layout = Panels::new::<f32>(k, n);
            let mut packed = vec![0.0; layout.len()];
            layout.pack(MatRef::rows(&b, n), &mut packed);
            let turned = Panels::new::<f32>(n, k);
            let mut packed_turned = vec![0.0; turned.len()];
            turned.pack(MatRef::rows(&b, n).transposed(), &mut packed_turned);
            let factors = [Factor::new(&packed, layout), Factor::new(&packed_turned, turned).transposed()];
            for (stride, b) in [n, layout.padded() + 16].into_iter().flat_map(|s| factors.map(|b| (s, b))) {
                let mut c = vec![f32::NAN; m * stride];
                let a = MatRef::rows(&a, k);
                multiply_panels(m, a, b, &mut c, stride, &Twice, 1 + m % 3);
                for (row, want) in c.chunks(stride).zip(want.chunks(n)) {
                    let twice: Vec<f32> = want.iter().map(|v| v + v).collect();
                    assert_eq!(&row[..n], twice, "{level} {m} x {n} x {k}");
                }
            }
        }
    });
}

/// Hides that a layer's end can be made in registers.
struct Apart<'a, T>(Layer<'a, T>);

impl<T: Math> Finish<T> for Apart<'_, T> {
    #[inline(always)]
    fn finish(&self, tile: Tile<'_, T>) {
        self.0.finish(tile);
    }
}

fn ends_in_registers_have_the_bits_of_a_pass_over_tiles<T: Math>(bits: impl Fn(T) -> u64) {
    let wave = wave_of::<T>;
    let odd = [T::NAN, T::from_f64(-0.0), T::ZERO, T::INFINITY, T::from_f64(1e-310), T::from_f64(-1e-42)];
    on_every_level(|level| {
        for (m, n, k) in SHAPES {
            let (mut a, b, mut bias) = (wave(m * k, 0.37), wave(k * n, 0.73), wave(n, 0.9));
            for (i, odd) in odd.into_iter().enumerate() {
                a.iter_mut().skip(5 + i * 7).step_by(61).for_each(|a| *a = odd);
                bias.iter_mut().skip(3 + i).step_by(11).for_each(|b| *b = odd);
            }
            let layout = Panels::new::<T>(k, n);
            let mut packed = vec![T::ZERO; layout.len()];
            layout.pack(MatRef::rows(&b, n), &mut packed);
            for stride in [n, layout.padded() + 16] {
                let mut y = wave(m * stride, 0.51);
                for (i, odd) in odd.into_iter().enumerate() {
                    y.iter_mut().skip(i * 3).step_by(17).for_each(|y| *y = odd);
                }
                let bias = Some(&bias[..]);
                let gate = Then::Derivative(Binary::ReluGrad, &y, stride);
                for layer in [
                    Layer { bias, then: Then::Nothing },
                    Layer { bias, then: Then::Activate(Unary::Relu) },
                    Layer { bias: None, then: Then::Activate(Unary::Relu) },
                    Layer { bias: None, then: gate },
                ] {
                    let (a, b) = (MatRef::rows(&a, k), Factor::new(&packed, layout));
                    let (mut got, mut want) = (vec![T::ONE; m * stride], vec![T::ONE; m * stride]);
                    multiply_panels(m, a, b, &mut got, stride, &layer, 1 + m % 3);
                    multiply_panels(m, a, b, &mut want, stride, &Apart(layer), 1);
                    let bits = |values: &[T]| -> Vec<u64> { values.iter().map(|&v| bits(v)).collect() };
                    assert!(layer.in_registers().is_some() && Apart(layer).in_registers().is_none());
                    for (got, want) in got.chunks(stride).zip(want.chunks(stride)) {
                        assert_eq!(
                            bits(&got[..n]),
                            bits(&want[..n]),
                            "{level} {m} x {n} x {k} {:?}",
                            layer.then
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn ends_in_registers_change_no_bit() {
    // Any NaN is as good as another.
    ends_in_registers_have_the_bits_of_a_pass_over_tiles::<f32>(|v| {
        if v.is_nan() { 1 } else { v.to_bits().into() }
    });
    ends_in_registers_have_the_bits_of_a_pass_over_tiles::<f64>(|v| if v.is_nan() { 1 } else { v.to_bits() });
}

/// Keeps a gradient and the sums.
struct Kept<'a> {
    layout: Panels,
    packed: &'a mut [f32],
    sums: &'a mut [f32],
}

impl Gradients<f32> for Kept<'_> {
    fn block(&mut self, panel: usize, rows: Range<usize>, values: &mut [f32]) {
        self.packed[self.layout.segment(panel, rows)].copy_from_slice(values);
    }
    fn wants_sums(&self) -> bool {
        true
    }
    fn sums(&mut self, panel: usize, sums: &[f32]) {
        self.sums[self.layout.columns(panel)].copy_from_slice(sums);
    }
}

/// The sums of the columns of a `rows x n` matrix.
fn column_sums(rows: usize, n: usize, d: &[f32]) -> Vec<f32> {
    let mut sums = vec![0.0; n];
    reduce_columns(Reduction::Sum, 1, rows, n, d, &mut sums);
    sums
}

#[test]
fn gradients_have_the_bits_of_gemm_whatever_the_rectangle() {
    on_every_level(|level| {
        for (k, n, batch) in SHAPES {
            let (a, d) = (wave(batch * k, 0.37), wave(batch * n, 0.73));
            let want = product(k, n, batch, MatRef::rows(&a, k).transposed(), MatRef::rows(&d, n));
            let layout = Panels::new::<f32>(k, n);
            let (mut packed, mut sums) = (vec![0.0; layout.len()], vec![f32::NAN; n]);
            let count = layout.count();
            for panels in [0..count / 2, count / 2..count] {
                for first in (0..k).step_by(GRADIENT_ROWS) {
                    let rows = first..k.min(first + GRADIENT_ROWS);
                    let (a, d) = (MatRef::rows(&a, k), MatRef::rows(&d, n));
                    let mut kept = Kept { layout, packed: &mut packed, sums: &mut sums };
                    gradient_panels(batch, a, d, &layout, panels.clone(), rows, &[], &mut kept);
                }
            }
            let mut got = vec![0.0; k * n];
            layout.unpack(&packed, &mut got, n, 1);
            assert_eq!(got, want, "{level} {k} x {n} over {batch}");
            assert_eq!(sums, column_sums(batch, n, &d), "{level} {k} x {n} over {batch}");
        }
    });
}

#[test]
fn gradients_of_many_samples_have_the_bits_of_gemm() {
    let (k, n, batch) = (250, 100, 900);
    let (a, d) = (wave(batch * k, 0.37), wave(batch * n, 0.73));
    on_every_level(|level| {
        let want = product(k, n, batch, MatRef::rows(&a, k).transposed(), MatRef::rows(&d, n));
        let want_sums = column_sums(batch, n, &d);
        let layout = Panels::new::<f32>(k, n);
        let mut packed = vec![f32::NAN; layout.len()];
        let (a, d) = (MatRef::rows(&a, k), MatRef::rows(&d, n));
        let mut sums = vec![f32::NAN; n];
        let mut kept = Kept { layout, packed: &mut packed, sums: &mut sums };
        gradient_panels(batch, a, d, &layout, 0..layout.count(), 0..k, &[], &mut kept);
        assert_eq!(sums, want_sums, "{level}");
        let mut got = vec![0.0; k * n];
        layout.unpack(&packed, &mut got, n, 1);
        assert_eq!(got, want, "{level}");
    });
}

#[test]
fn a_layout_made_for_another_instruction_set_gives_the_same_bits() {
    let (m, n, k) = (13, 50, 40);
    let (a, b) = (wave(m * k, 0.37), wave(k * n, 0.73));
    let mut layouts = Vec::new();
    on_every_level(|_| layouts.push(Panels::new::<f32>(k, n)));
    on_every_level(|level| {
        let want = product(m, n, k, MatRef::rows(&a, k), MatRef::rows(&b, n));
        for layout in &layouts {
            let mut packed = vec![0.0; layout.len()];
            layout.pack(MatRef::rows(&b, n), &mut packed);
            let (mut c, b) = (vec![0.0; m * n], Factor::new(&packed, *layout));
            let a = MatRef::rows(&a, k);
            multiply_panels(m, a, b, &mut c, n, &Keep, 1);
            assert_eq!(c, want, "{level} {layout:?}");
            let (bias, y) = (wave(n, 0.9), wave(m * n, 0.51));
            let gate = Then::Derivative(Binary::ReluGrad, &y, n);
            for (bias, then) in [(Some(&bias[..]), Then::Activate(Unary::Relu)), (None, gate)] {
                let (layer, mut want) = (Layer { bias, then }, vec![0.0; m * n]);
                multiply_panels(m, a, b, &mut c, n, &layer, 1);
                multiply_panels(m, a, b, &mut want, n, &Apart(layer), 1);
                assert_eq!(c, want, "{level} {layout:?} {then:?}");
            }
        }
    });
}

fn few_rows_have_the_bits_of_separate_passes<T: Math>() {
    let wave = wave_of::<T>;
    let lr = 0.05;
    let plain = Sgd {
        lr,
        momentum: 0.0,
        dampening: 0.0,
        weight_decay: 0.02,
        nesterov: false,
        first_step: false,
        velocity: false,
    };
    let adam = Adam {
        lr,
        beta1: 0.9,
        beta2: 0.99,
        eps: 1e-8,
        weight_decay: 0.0,
        decoupled: false,
        eps_hat: false,
        step: 3,
    };
    let rules =
        [(Rule::Sgd(plain), 0), (Rule::Sgd(Sgd { momentum: 0.9, ..plain }), 1), (Rule::Adam(adam), 2)];
    // A block of rows, panels in a block, and a weight large enough for threads.
    let shapes = [(1, 1), (2, 482), (7, 16), (40, 33), (97, 10), (250, 100), (330, 129), (5, 7000)];
    on_every_level(|level| {
        for (case, (k, n)) in shapes.into_iter().enumerate() {
            let (layout, turned) = (Panels::new::<T>(k, n), Panels::new::<T>(n, k));
            for batch in 1..=FEW_ROWS {
                let y_row = k + 5;
                let (a, d, y) = (wave(batch * k, 0.37), wave(batch * n, 0.73), wave(batch * y_row, 0.51));
                // Rows, columns, or one column many times.
                let d = match case % 3 {
                    0 => MatRef::rows(&d, n),
                    1 => MatRef::new(&d, 1, batch),
                    _ => MatRef::new(&d, 1, 0),
                };
                let derivative = [None, Some(Binary::ReluGrad), Some(Binary::TanhGrad)][(case + batch) % 3];
                let (rule, states) = rules[(case + batch) % rules.len()];
                let pull = ((case + batch) % 2 == 0).then_some((T::from_f64(0.3), T::from_f64(0.7)));
                let then = Dense {
                    bias: None,
                    activation: None,
                    derivative: derivative.map(|op| Derivative { op, y: &y, row: y_row, column: 1 }),
                };
                let (weight, bias) = (wave(k * n, 0.11), wave(n, 0.2));
                let state = |seed: usize, len: usize| -> Vec<T> {
                    wave(len, 0.1 + seed as f64).iter().map(|v| v.abs()).collect()
                };
                let vectors = |len: usize| (0..states).map(|seed| state(seed, len)).collect::<Vec<_>>();
                fn each<T>(states: &mut [Vec<T>]) -> [Option<&mut [T]>; 3] {
                    let mut states = states.iter_mut();
                    std::array::from_fn(|_| states.next().map(|state| &mut state[..]))
                }

                let mut want_data = vec![T::ZERO; batch * k];
                let w = MatRef::rows(&weight, n).transposed();
                gemm(batch, k, n, d, w, &mut want_data, k, false, &then);
                let mut gradient = vec![T::ZERO; k * n];
                let at = MatRef::rows(&a, k).transposed();
                gemm(k, n, batch, at, d, &mut gradient, n, false, &NoEpilogue);
                if let Some((factor, scale)) = pull {
                    penalise(&weight, &mut gradient, factor, scale);
                }
                let (mut want, mut want_states) = (weight.clone(), vectors(k * n));
                rule.apply(&mut want, &gradient, each(&mut want_states));
                let mut sums = vec![T::ZERO; n];
                let at = |i: usize| d.data[i / n * d.row_stride + i % n * d.col_stride];
                let d_rows: Vec<T> = (0..batch * n).map(at).collect();
                reduce_columns(Reduction::Sum, 1, batch, n, &d_rows, &mut sums);
                let (mut want_bias, mut want_moments) = (bias.clone(), vectors(n));
                rule.apply(&mut want_bias, &sums, each(&mut want_moments));

                for (threads, with_data, with_copy) in [(1, true, false), (3, true, true), (7, false, true)] {
                    let what = format!("{level} {k} x {n}, {batch} rows, {rule:?}, {threads} threads");
                    let pack = |source: &[T]| {
                        let mut packed = vec![T::NAN; layout.len()];
                        layout.pack(MatRef::rows(source, n), &mut packed);
                        packed
                    };
                    let (mut packed, mut packed_states) = (pack(&weight), Vec::new());
                    packed_states.extend(vectors(k * n).iter().map(|state| pack(state)));
                    let (mut bias, mut moments) = (bias.clone(), vectors(n));
                    let (mut copy, mut data) = (vec![T::NAN; turned.len()], vec![T::NAN; batch * (k + 3)]);
                    let of = FewRows {
                        batch,
                        a: MatRef::rows(&a, k),
                        d,
                        layout,
                        weight: Tuned { values: &mut packed, states: each(&mut packed_states), rule: &rule },
                        transposed: with_copy.then_some((turned, &mut copy[..])),
                        pull,
                        bias: Some(Tuned { values: &mut bias, states: each(&mut moments), rule: &rule }),
                        data: with_data.then_some(DataGradient {
                            values: &mut data,
                            stride: k + 3,
                            derivative: derivative.map(|op| (op, &y[..], y_row)),
                        }),
                    };
                    update_panels(of, threads);
                    let unpack = |packed: &[T]| {
                        let mut back = vec![T::NAN; k * n];
                        layout.unpack(packed, &mut back, n, 1);
                        back
                    };
                    assert_eq!(unpack(&packed), want, "{what}");
                    for (got, want) in packed_states.iter().zip(&want_states) {
                        assert_eq!(&unpack(got), want, "{what}");
                    }
                    assert_eq!((bias, moments), (want_bias.clone(), want_moments.clone()), "{what}");
                    if with_data {
                        for (row, want) in data.chunks(k + 3).zip(want_data.chunks(k)) {
                            assert_eq!(&row[..k], want, "{what}");
                        }
                    }
                    if with_copy {
                        let mut want_copy = vec![T::ZERO; turned.len()];
                        turned.pack(MatRef::rows(&want, n).transposed(), &mut want_copy);
                        assert_eq!(copy, want_copy, "{what}");
                    }
                }
            }
        }
    });
}

#[test]
fn few_rows_update_and_go_back_in_one_pass() {
    few_rows_have_the_bits_of_separate_passes::<f32>();
    few_rows_have_the_bits_of_separate_passes::<f64>();
}
