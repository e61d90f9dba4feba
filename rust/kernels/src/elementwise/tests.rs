//! Every path (contiguous, repeated, strided, tails) against one element at a time, on every level.

use super::*;
use crate::isa;

const PLAIN: [Unary; 28] = [
    Unary::Neg,
    Unary::Exp,
    Unary::Expm1,
    Unary::Log,
    Unary::Log1p,
    Unary::Sqrt,
    Unary::Square,
    Unary::Reciprocal,
    Unary::Abs,
    Unary::Sign,
    Unary::Sin,
    Unary::Cos,
    Unary::Relu,
    Unary::LeakyRelu(0.01),
    Unary::Elu(1.5),
    Unary::Sigmoid,
    Unary::Tanh,
    Unary::Softplus { beta: 2.0, threshold: 20.0 },
    Unary::PowScalar(2.0),
    Unary::PowScalar(3.0),
    Unary::PowScalar(-0.5),
    Unary::PowScalar(1.7),
    Unary::PowScalar(0.0),
    Unary::PowScalar(1.0),
    Unary::Clamp { min: -0.5, max: f64::INFINITY },
    Unary::AddScalar(0.1),
    Unary::MulScalar(0.1),
    Unary::DivScalar(3.0),
];

const CURVES: [Curve; 18] = [
    Curve::Celu(1.3),
    Curve::Selu,
    Curve::Gelu,
    Curve::GeluTanh,
    Curve::Silu,
    Curve::Mish,
    Curve::Softsign,
    Curve::LogSigmoid,
    Curve::Hardtanh { min: -0.5, max: 0.5 },
    Curve::Hardsigmoid,
    Curve::Hardswish,
    Curve::Hardshrink(0.4),
    Curve::Softshrink(0.4),
    Curve::Tanhshrink,
    Curve::Threshold { threshold: 0.1, value: -2.0 },
    Curve::LogCosh,
    Curve::Reversed(0.5),
    Curve::Penalised(0.25),
];

fn unary_ops() -> impl Iterator<Item = Unary> {
    PLAIN.into_iter().chain(CURVES.map(Unary::Curve))
}

fn binary_ops() -> impl Iterator<Item = Binary> {
    BINARY.into_iter().chain(CURVES.map(Binary::CurveGrad))
}

const BINARY: [Binary; 14] = [
    Binary::Add,
    Binary::Sub,
    Binary::Mul,
    Binary::Div,
    Binary::Pow,
    Binary::Maximum,
    Binary::Minimum,
    Binary::ReluGrad,
    Binary::LeakyReluGrad(0.01),
    Binary::EluGrad(1.5),
    Binary::SigmoidGrad,
    Binary::TanhGrad,
    Binary::SoftplusGrad { beta: 2.0, threshold: 20.0 },
    Binary::ClampGrad { min: -0.5, max: 0.5 },
];

/// A few hundred values of all magnitudes with the special ones in front.
fn values(count: usize) -> Vec<f64> {
    let special =
        [0.0, -0.0, 1.0, -1.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e-40, -1e-40, 100.0, -100.0, 0.5];
    (0..count)
        .map(|i| {
            if i < special.len() {
                special[i]
            } else {
                (i as f64 * 0.7).sin() * 10f64.powi((i % 5) as i32 - 2)
            }
        })
        .collect()
}

/// Bits, with all NaNs alike: their payloads are not specified.
fn bits(x: &[f64]) -> Vec<u64> {
    x.iter().map(|v| if v.is_nan() { f64::NAN.to_bits() } else { v.to_bits() }).collect()
}

fn bits_f32(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| if v.is_nan() { f32::NAN.to_bits() } else { v.to_bits() }).collect()
}

fn unary_vec(op: Unary, x: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; x.len()];
    unary(op, &[x.len()], x, &[1], &mut out);
    out
}

fn binary_vec(op: Binary, a: &[f64], b: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; a.len()];
    binary(op, &[a.len()], a, &[1], b, &[1], &mut out);
    out
}

#[test]
fn unary_bits_depend_on_neither_layout_nor_level() {
    let x = values(90);
    let x32: Vec<f32> = x.iter().map(|&v| v as f32).collect();
    for op in unary_ops() {
        let mut want: Option<(Vec<u64>, Vec<u32>)> = None;
        isa::on_every_level(|level| {
            let one_by_one: Vec<f64> = x.iter().map(|&v| unary_vec(op, &[v])[0]).collect();
            assert_eq!(bits(&unary_vec(op, &x)), bits(&one_by_one), "{op:?} {level}");

            let (mut got, mut strided) = (vec![0.0; 90], vec![0.0; 90]);
            copy(&[9, 10], &x, &[1, 9], &mut got);
            let got = unary_vec(op, &got);
            unary(op, &[9, 10], &x, &[1, 9], &mut strided);
            assert_eq!(bits(&got), bits(&strided), "{op:?} {level}");

            let mut repeated = vec![0.0; 40];
            unary(op, &[40], &x[11..], &[0], &mut repeated);
            assert_eq!(bits(&repeated), bits(&[one_by_one[11]; 40]), "{op:?} {level}");

            let mut in_place = x.clone();
            activate(op, &mut in_place);
            assert_eq!(bits(&in_place), bits(&one_by_one), "{op:?} {level}");
            let mut inline = x.clone();
            activate_inline(op, &mut inline);
            assert_eq!(bits(&inline), bits(&one_by_one), "{op:?} {level}");

            let mut single = vec![0.0; 90];
            unary(op, &[90], &x32, &[1], &mut single);
            let bits = (bits(&one_by_one), bits_f32(&single));
            assert_eq!(*want.get_or_insert(bits.clone()), bits, "{op:?} {level}");
        });
    }
}

#[test]
fn binary_bits_depend_on_neither_layout_nor_level() {
    let a = values(90);
    let b: Vec<f64> = a.iter().rev().copied().collect();
    for op in binary_ops() {
        let mut want = None;
        isa::on_every_level(|level| {
            let one_by_one: Vec<f64> =
                a.iter().zip(&b).map(|(&a, &b)| binary_vec(op, &[a], &[b])[0]).collect();
            assert_eq!(bits(&binary_vec(op, &a, &b)), bits(&one_by_one), "{op:?} {level}");

            // Rows, columns and scalars repeated on either side, and both transposed.
            for (a_strides, b_strides) in [
                ([10, 1], [0, 1]),
                ([0, 1], [10, 1]),
                ([1, 0], [10, 1]),
                ([0, 0], [10, 1]),
                ([1, 9], [1, 9]),
                ([10, 1], [0, 0]),
            ] {
                let (mut got, mut left, mut right) = (vec![0.0; 90], vec![0.0; 90], vec![0.0; 90]);
                binary(op, &[9, 10], &a, &a_strides, &b, &b_strides, &mut got);
                copy(&[9, 10], &a, &a_strides, &mut left);
                copy(&[9, 10], &b, &b_strides, &mut right);
                assert_eq!(bits(&got), bits(&binary_vec(op, &left, &right)), "{op:?} {level}");
            }
            let bits = bits(&one_by_one);
            assert_eq!(*want.get_or_insert(bits.clone()), bits, "{op:?} {level}");
        });
    }
}

#[test]
fn activations_have_their_values_and_pass_nan_on() {
    let x = [-2.0, -0.0, 0.5, f64::NAN];
    assert_eq!(unary_vec(Unary::Relu, &x)[..3], [0.0, 0.0, 0.5]);
    assert_eq!(unary_vec(Unary::LeakyRelu(0.1), &x)[..3], [-0.2, -0.0, 0.5]);
    assert_eq!(unary_vec(Unary::Elu(2.0), &x)[..3], [2.0 * (-2f64).exp_m1(), 0.0, 0.5]);
    assert_eq!(unary_vec(Unary::Sign, &x)[..3], [-1.0, 0.0, 1.0]);
    assert_eq!(unary_vec(Unary::Clamp { min: -1.0, max: 0.25 }, &x)[..3], [-1.0, 0.0, 0.25]);
    let softplus = unary_vec(Unary::Softplus { beta: 2.0, threshold: 20.0 }, &[-3.0, 0.0, 1.0, 10.5]);
    for (got, x) in softplus.iter().zip([-3.0f64, 0.0, 1.0]) {
        assert!((got - (2.0 * x).exp().ln_1p() / 2.0).abs() < 1e-15);
    }
    assert_eq!(softplus[3], 10.5);
    for op in unary_ops() {
        if op != Unary::PowScalar(0.0) {
            assert!(unary_vec(op, &x)[3].is_nan(), "{op:?}");
        }
    }
    for op in [Binary::Maximum, Binary::Minimum, Binary::Add, Binary::Mul] {
        assert!(binary_vec(op, &[f64::NAN, 1.0], &[1.0, f64::NAN]).iter().all(|v| v.is_nan()), "{op:?}");
    }
}

#[test]
fn powers_with_small_exponents_agree_with_the_general_power() {
    for exponent in [0.0, 1.0, 2.0, 3.0, 0.5, -0.5, -1.0, -2.0, 2.5] {
        for x in [0.3f64, 1.0, 7.5] {
            let got = unary_vec(Unary::PowScalar(exponent), &[x])[0];
            assert!((got / x.powf(exponent) - 1.0).abs() < 1e-15, "{x}^{exponent} = {got}");
        }
    }
    assert_eq!(unary_vec(Unary::PowScalar(0.0), &[f64::NAN, 0.0, f64::INFINITY]), [1.0; 3]);
}

#[test]
fn activation_gradients_are_the_derivatives() {
    let pairs = [
        (Unary::Relu, Binary::ReluGrad, true),
        (Unary::LeakyRelu(0.1), Binary::LeakyReluGrad(0.1), false),
        (Unary::Elu(1.5), Binary::EluGrad(1.5), true),
        (Unary::Sigmoid, Binary::SigmoidGrad, true),
        (Unary::Tanh, Binary::TanhGrad, true),
        (
            Unary::Softplus { beta: 2.0, threshold: 3.0 },
            Binary::SoftplusGrad { beta: 2.0, threshold: 3.0 },
            false,
        ),
        (Unary::Clamp { min: -0.5, max: 0.5 }, Binary::ClampGrad { min: -0.5, max: 0.5 }, false),
    ];
    let x = [-3.0, -0.6, -0.3, 0.2, 0.7, 2.5];
    let h = 1e-6;
    for (op, gradient, takes_output) in pairs {
        let y = unary_vec(op, &x);
        let got = binary_vec(gradient, &[2.0; 6], if takes_output { &y } else { &x });
        let high = unary_vec(op, &x.map(|v| v + h));
        let low = unary_vec(op, &x.map(|v| v - h));
        for i in 0..6 {
            let want = (high[i] - low[i]) / h;
            assert!((got[i] - want).abs() < 1e-8, "{op:?} at {}: {} and {want}", x[i], got[i]);
        }
    }
    assert_eq!(binary_vec(Binary::ReluGrad, &[1.0], &[0.0]), [0.0]);
    assert_eq!(binary_vec(Binary::ClampGrad { min: 0.0, max: 1.0 }, &[1.0, 1.0], &[0.0, 1.0]), [1.0, 1.0]);
}

#[test]
fn rounding_and_steps_are_those_of_the_standard_library_on_every_level() {
    let mut x = values(200);
    x.extend([2.5, 3.5, -2.5, -3.5, 0.499_999_999_999_999_94, 8_388_607.5, 4_503_599_627_370_495.5, 1e300]);
    type Case = (Unary, fn(f64) -> f64, fn(f32) -> f32);
    let cases: [Case; 3] = [
        (Unary::Floor, f64::floor, f32::floor),
        (Unary::Ceil, f64::ceil, f32::ceil),
        (Unary::Round, f64::round_ties_even, f32::round_ties_even),
    ];
    let x32: Vec<f32> = x.iter().map(|&v| v as f32).collect();
    isa::on_every_level(|level| {
        for (op, double, single) in cases {
            let want: Vec<f64> = x.iter().map(|&v| double(v)).collect();
            assert_eq!(bits(&unary_vec(op, &x)), bits(&want), "{op:?} {level}");
            let want: Vec<f32> = x32.iter().map(|&v| single(v)).collect();
            let mut got = vec![0.0; x32.len()];
            unary(op, &[x32.len()], &x32, &[1], &mut got);
            assert_eq!(bits_f32(&got), bits_f32(&want), "{op:?} {level}");
        }
        let got = binary_vec(Binary::Heaviside, &[-2.0, -0.0, 0.0, 3.0, f64::NAN], &[0.5; 5]);
        assert_eq!(got[..4], [0.0, 0.5, 0.5, 1.0], "{level}");
        assert!(got[4].is_nan(), "{level}");
    });
}

#[test]
fn curve_gradients_are_the_derivatives_and_both_ends_are_finite() {
    let x = [-30.0, -3.1, -1.3, -0.6, -0.45, -0.3, 0.05, 0.2, 0.45, 0.7, 2.5, 3.1, 30.0];
    let h = 1e-6;
    for curve in CURVES {
        let (op, gradient) = (Unary::Curve(curve), Binary::CurveGrad(curve));
        let got = binary_vec(gradient, &[2.0; 13], &x);
        let high = unary_vec(op, &x.map(|v| v + h));
        let low = unary_vec(op, &x.map(|v| v - h));
        for i in 0..x.len() {
            let want = match curve {
                // Not derivatives, by design.
                Curve::Reversed(scale) => -2.0 * scale,
                Curve::Penalised(strength) => 2.0 + strength * x[i].signum(),
                _ => (high[i] - low[i]) / h,
            };
            assert!((got[i] - want).abs() < 1e-7, "{curve:?} at {}: {} and {want}", x[i], got[i]);
        }
        for end in [1e6, f64::MAX, f64::INFINITY] {
            assert!(!unary_vec(op, &[-end, end]).iter().any(|y| y.is_nan()), "{curve:?} at {end}");
            let slopes = binary_vec(gradient, &[1.0, 1.0], &[-end, end]);
            assert!(slopes.iter().all(|y| y.is_finite()), "{curve:?} at {end}: {slopes:?}");
        }
    }
    // Tails keep their relative accuracy: 1 + erf and log(1 + e^x) would give 0 here.
    let tails = [
        (Curve::Gelu, -20.0, -20.0 * 2.753_624_118_606_233_5e-89),
        (Curve::LogSigmoid, 40.0, -4.248_354_255_291_589e-18),
        (Curve::LogCosh, 1e-9, 5e-19),
    ];
    for (curve, x, want) in tails {
        let got = unary_vec(Unary::Curve(curve), &[x])[0];
        assert!((got / want - 1.0).abs() < 1e-13, "{curve:?} at {x}: {got}");
    }
}

#[test]
fn comparisons_with_nan_are_false_except_ne() {
    let (a, b) = ([1.0, 2.0, f64::NAN, 3.0], [2.0, 2.0, 1.0, 1.0]);
    let table = [
        (Compare::Eq, [0, 1, 0, 0]),
        (Compare::Ne, [1, 0, 1, 1]),
        (Compare::Lt, [1, 0, 0, 0]),
        (Compare::Le, [1, 1, 0, 0]),
        (Compare::Gt, [0, 0, 0, 1]),
        (Compare::Ge, [0, 1, 0, 1]),
    ];
    for (op, want) in table {
        let mut got = [9; 4];
        compare(op, &[4], &a, &[1], &b, &[1], &mut got);
        assert_eq!(got, want, "{op:?}");
    }
    let mut got = [9; 3];
    compare(Compare::Lt, &[3], &[1i64, 5, 7], &[1], &[5], &[0], &mut got);
    assert_eq!(got, [1, 0, 0]);
}

#[test]
fn copies_follow_the_strides() {
    let x: Vec<i64> = (0..24).collect();
    for (shape, strides) in [
        (&[2, 3, 4][..], &[12, 4, 1][..]),
        (&[2, 4, 3], &[12, 1, 4]),
        (&[4, 3, 2], &[1, 4, 12]),
        (&[3, 2, 4], &[4, 12, 1]),
        (&[6, 2], &[4, 2]),
        (&[3, 5], &[4, 0]),
        (&[3, 5], &[0, 2]),
        (&[7], &[3]),
        (&[], &[]),
        (&[5, 0, 2], &[2, 2, 1]),
    ] {
        let mut want = vec![0];
        for (&size, &stride) in shape.iter().zip(strides) {
            want = want.iter().flat_map(|&o| (0..size as i64).map(move |i| o + i * stride as i64)).collect();
        }
        let mut got = vec![-1; want.len()];
        copy(shape, &x, strides, &mut got);
        assert_eq!(got, want, "{shape:?} {strides:?}");
        let mut halves = vec![0.0; want.len()];
        cast(shape, &x, strides, &mut halves, |v| v as f64 / 2.0);
        assert!(halves.iter().zip(&want).all(|(h, &w)| *h == w as f64 / 2.0));

        if !strides.contains(&0) {
            let mut scattered = vec![-1; 24];
            scatter_into(shape, &want, &mut scattered, strides);
            assert!(
                scattered
                    .iter()
                    .enumerate()
                    .all(|(i, &v)| v == if want.contains(&(i as i64)) { i as i64 } else { -1 })
            );
        }
    }
}

#[test]
fn a_large_matrix_is_transposed_in_squares_with_tails() {
    let (rows, columns) = (53, 70);
    let x: Vec<u32> = (0..rows * columns).collect();
    let (rows, columns) = (rows as usize, columns as usize);
    let mut got = vec![0; rows * columns];
    copy(&[columns, rows], &x, &[1, columns], &mut got);
    for i in 0..columns {
        for j in 0..rows {
            assert_eq!(got[i * rows + j] as usize, j * columns + i);
        }
    }
}

#[test]
fn select_takes_a_where_the_condition_holds() {
    let mut got = [0.0; 6];
    select(
        &[2, 3],
        &[1, 0, 1],
        &[0, 1],
        &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        &[3, 1],
        &[-1.0],
        &[0, 0],
        &mut got,
    );
    assert_eq!(got, [1.0, -1.0, 3.0, 4.0, -1.0, 6.0]);
    let mut got = [0; 3];
    select(&[3], &[1, 0, 2], &[1], &[1, 2, 3], &[1], &[7, 8, 9], &[1], &mut got);
    assert_eq!(got, [1, 8, 3]);
}

#[test]
fn integers_wrap() {
    let mut got = [0; 2];
    binary_int(IntBinary::Add, &[2], &[i64::MAX, 1], &[1], &[1], &[0], &mut got);
    assert_eq!(got, [i64::MIN, 2]);
    let mut got = [0; 2];
    binary_int(IntBinary::Sub, &[2], &[1u8, 7], &[1], &[2], &[0], &mut got);
    assert_eq!(got, [255, 5]);
    binary_int(IntBinary::Maximum, &[2], &[1u8, 7], &[1], &[2], &[0], &mut got);
    assert_eq!(got, [2, 7]);
    let mut got = [0; 3];
    unary_int(IntUnary::Abs, &[3], &[-3, 0, i64::MIN], &[1], &mut got);
    assert_eq!(got, [3, 0, i64::MIN]);
    unary_int(IntUnary::Sign, &[3], &[-3, 0, 9], &[1], &mut got);
    assert_eq!(got, [-1, 0, 1]);
}
