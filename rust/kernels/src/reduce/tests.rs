//! Values against plain loops in `f64`, special values, and equal bits on every level and in any grouping.

use super::*;
use crate::isa;

fn wave(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * i) as f64 * 0.37).sin() as f32 * 3.0).collect()
}

/// Lengths around lane arrays, blocks and levels.
const LENGTHS: [usize; 14] = [1, 2, 7, 10, 15, 16, 17, 31, 64, 65, 100, 1000, 1025, 5000];

#[test]
fn row_sums_and_extremes_have_their_values() {
    for cols in LENGTHS {
        let x = wave(3 * cols);
        let mut out = [0.0; 3];
        reduce_rows(Reduction::Sum, 3, cols, &x, &mut out);
        for r in 0..3 {
            let row = &x[r * cols..(r + 1) * cols];
            let want: f64 = row.iter().map(|&v| v as f64).sum();
            let size: f64 = row.iter().map(|v| v.abs() as f64).sum();
            assert!((out[r] as f64 - want).abs() <= 20.0 * 6e-8 * size, "{cols}: {} {want}", out[r]);
        }
        let mut doubles = [0.0; 3];
        let wide: Vec<f64> = x.iter().map(|&v| v as f64).collect();
        reduce_rows(Reduction::Sum, 3, cols, &wide, &mut doubles);
        let want: f64 = wide[cols..2 * cols].iter().sum();
        assert!((doubles[1] - want).abs() < 1e-11, "{cols}");
        reduce_rows(Reduction::Max, 3, cols, &x, &mut out);
        assert_eq!(out[2], x[2 * cols..].iter().copied().fold(f32::MIN, f32::max));
        reduce_rows(Reduction::Min, 3, cols, &x, &mut out);
        assert_eq!(out[0], x[..cols].iter().copied().fold(f32::MAX, f32::min));
        for at in [0, cols / 2, cols - 1] {
            let mut x = x.clone();
            x[cols + at] = f32::NAN;
            for op in [Reduction::Sum, Reduction::Max, Reduction::Min] {
                reduce_rows(op, 3, cols, &x, &mut out);
                assert!(out[1].is_nan() && !out[0].is_nan() && !out[2].is_nan(), "{op:?} {cols} {at}");
            }
        }
    }
}

#[test]
fn nothing_reduces_to_the_identity() {
    let mut out = [9.0f32; 2];
    reduce_rows(Reduction::Sum, 2, 0, &[], &mut out);
    assert_eq!(out, [0.0; 2]);
    reduce_columns(Reduction::Max, 1, 0, 2, &[], &mut out);
    assert_eq!(out, [f32::NEG_INFINITY; 2]);
    logsumexp_rows(2, 0, &[], &mut out);
    assert_eq!(out, [f32::NEG_INFINITY; 2]);
    softmax_rows::<f32>(0, 3, &[], &mut []);
}

#[test]
fn a_million_equal_values_sum_without_drift() {
    let x = vec![0.1f32; 1 << 20];
    let want = 0.1f32 as f64 * (1 << 20) as f64;
    let mut out = [0.0];
    reduce_rows(Reduction::Sum, 1, 1 << 20, &x, &mut out);
    assert!((out[0] as f64 / want - 1.0).abs() < 1e-6, "{}", out[0]);
    reduce_columns(Reduction::Sum, 1, 1 << 20, 1, &x, &mut out);
    assert!((out[0] as f64 / want - 1.0).abs() < 2e-6, "{}", out[0]);
}

#[test]
fn columns_reduce_alike_in_every_tile() {
    for rows in [1, 2, 63, 64, 65, 200, 300] {
        for cols in [1, 3, 8, 10, 16, 17, 33, 64, 70, 130] {
            let x = wave(2 * rows * cols);
            for op in [Reduction::Sum, Reduction::Max, Reduction::Min] {
                let mut out = vec![0.0; 2 * cols];
                reduce_columns(op, 2, rows, cols, &x, &mut out);
                for j in 0..cols {
                    let column: Vec<f32> = (0..rows).map(|r| x[(rows + r) * cols + j]).collect();
                    let mut alone = [0.0];
                    reduce_columns(op, 1, rows, 1, &column, &mut alone);
                    assert_eq!(out[cols + j], alone[0], "{op:?} {rows} {cols}");
                    let mut by_row = [0.0];
                    reduce_rows(op, 1, rows, &column, &mut by_row);
                    assert!((by_row[0] - alone[0]).abs() < 1e-3, "{op:?} {rows} {cols}");
                }
            }
        }
    }
}

#[test]
fn softmax_family_has_its_values() {
    for cols in LENGTHS {
        let rows = 5;
        let x = wave(rows * cols);
        let (mut p, mut log_p, mut lse) = (vec![0.0; rows * cols], vec![0.0; rows * cols], vec![0.0; rows]);
        softmax_rows(rows, cols, &x, &mut p);
        log_softmax_rows(rows, cols, &x, &mut log_p);
        logsumexp_rows(rows, cols, &x, &mut lse);
        for r in 0..rows {
            let row: Vec<f64> = x[r * cols..(r + 1) * cols].iter().map(|&v| v as f64).collect();
            let want = row.iter().map(|v| v.exp()).sum::<f64>().ln();
            assert!((lse[r] as f64 - want).abs() < 2e-6, "{cols}");
            for (j, v) in row.iter().enumerate() {
                assert!((log_p[r * cols + j] as f64 - (v - want)).abs() < 4e-6);
                assert!((p[r * cols + j] as f64 / (v - want).exp() - 1.0).abs() < 2e-6);
            }
        }
    }
}

#[test]
fn softmax_family_handles_infinite_rows_as_pytorch_does() {
    let inf = f32::INFINITY;
    let x = [-inf, -inf, -inf, inf, 0.0, -inf, f32::NAN, 0.0, 0.0, -inf, 0.0, 0.0, 1e30, -1e30, 0.0];
    let (mut p, mut lse) = ([0.0; 15], [0.0; 5]);
    logsumexp_rows(5, 3, &x, &mut lse);
    assert_eq!((lse[0], lse[1], lse[4]), (-inf, inf, 1e30));
    assert!(lse[2].is_nan() && (lse[3] - 2f32.ln()).abs() < 1e-6);
    softmax_rows(5, 3, &x, &mut p);
    assert!(p[..9].iter().all(|v| v.is_nan()));
    assert_eq!(p[9..], [0.0, 0.5, 0.5, 1.0, 0.0, 0.0]);
    log_softmax_rows(5, 3, &x, &mut p);
    assert!(p[..9].iter().all(|v| v.is_nan()));
    assert_eq!(p[9], -inf);
}

#[test]
fn rows_do_not_depend_on_their_neighbours() {
    for cols in [3, 10, 16, 40, 700, 1500] {
        let rows = 70;
        let x = wave(rows * cols);
        let (mut p, mut lse) = (vec![0.0; rows * cols], vec![0.0; rows]);
        softmax_rows(rows, cols, &x, &mut p);
        logsumexp_rows(rows, cols, &x, &mut lse);
        for r in [0, 1, 33, 69] {
            let row = r * cols..(r + 1) * cols;
            let (mut alone, mut alone_lse) = (vec![0.0; cols], [0.0]);
            softmax_rows(1, cols, &x[row.clone()], &mut alone);
            logsumexp_rows(1, cols, &x[row.clone()], &mut alone_lse);
            assert_eq!((&p[row], lse[r]), (&alone[..], alone_lse[0]), "{cols}");
        }
    }
}

#[test]
fn bits_are_the_same_on_every_level() {
    for cols in [1, 10, 33, 300, 2050] {
        let rows = 9;
        let x = wave(rows * cols);
        let wide: Vec<f64> = x.iter().map(|&v| v as f64).collect();
        let mut want = None;
        isa::on_every_level(|level| {
            let mut got = (vec![0.0; rows], vec![0.0; cols], vec![0.0; rows * cols], vec![0.0; rows]);
            reduce_rows(Reduction::Sum, rows, cols, &x, &mut got.0);
            reduce_columns(Reduction::Sum, 1, rows, cols, &x, &mut got.1);
            log_softmax_rows(rows, cols, &x, &mut got.2);
            logsumexp_rows(rows, cols, &wide, &mut got.3);
            assert!(*want.get_or_insert_with(|| got.clone()) == got, "{cols} {level}");
        });
    }
}

#[test]
fn the_first_winner_and_the_first_nan_are_named() {
    let x = [1.0, 3.0, 3.0, 2.0, f64::NAN, 9.0, f64::NAN, 0.0, -1.0, -1.0, 5.0, -1.0];
    let mut out = [0; 3];
    arg_rows(true, 3, 4, &x, &mut out);
    assert_eq!(out, [1, 0, 2]);
    arg_rows(false, 3, 4, &x, &mut out);
    assert_eq!(out, [0, 0, 0]);
    let mut out = [0; 2];
    arg_rows(true, 2, 2, &[4i64, 5, 5, 5], &mut out);
    assert_eq!(out, [1, 0]);
}

#[test]
fn any_all_and_integer_sums() {
    let mut out = [9; 3];
    any_rows(3, 2, &[0, 0, 0, 1, 2, 3], &mut out);
    assert_eq!(out, [0, 1, 1]);
    all_rows(3, 2, &[0, 0, 0, 1, 2, 3], &mut out);
    assert_eq!(out, [0, 0, 1]);
    all_rows(3, 0, &[], &mut out);
    assert_eq!(out, [1, 1, 1]);
    let mut sums = [0; 2];
    sum_rows_i64(2, 2, &[1, 2, i64::MAX, 1], &mut sums);
    assert_eq!(sums, [3, i64::MIN]);
}
