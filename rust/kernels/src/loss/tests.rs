//! Values against closed forms, gradients against centred differences, and equal bits on every level and
//! for every combination of outputs.

use super::*;
use crate::isa;
use crate::math::Math;

fn wave(n: usize, phase: f64) -> Vec<f64> {
    (0..n).map(|i| ((i * i) as f64 * 0.37 + phase).sin() * 2.0).collect()
}

type Outputs<'a, T> = (Option<&'a mut [T]>, Option<&'a mut [T]>);

/// Checks a row loss: `run(x, outputs)` with `rows` losses of `x.len() / rows` inputs each.
fn check(name: &str, rows: usize, x: &[f64], run: impl Fn(&[f64], Outputs<f64>)) {
    let n = x.len();
    let (mut loss, mut grad) = (vec![0.0; rows], vec![0.0; n]);
    run(x, (Some(&mut loss), Some(&mut grad)));
    let (mut only_loss, mut only_grad) = (vec![9.0; rows], vec![9.0; n]);
    run(x, (Some(&mut only_loss), None));
    run(x, (None, Some(&mut only_grad)));
    assert!(loss == only_loss && grad == only_grad, "{name}: bits depend on the outputs asked for");
    let h = 1e-5;
    for i in 0..n.min(60) {
        let at = |delta: f64| {
            let mut x = x.to_vec();
            x[i] += delta;
            let mut loss = vec![0.0; rows];
            run(&x, (Some(&mut loss), None));
            loss[i / (n / rows)]
        };
        let want = (at(h) - at(-h)) / (2.0 * h);
        assert!((grad[i] - want).abs() < 1e-7 * want.abs().max(1.0), "{name}[{i}]: {} and {want}", grad[i]);
    }
    isa::on_every_level(|level| {
        let (mut other_loss, mut other_grad) = (vec![0.0; rows], vec![0.0; n]);
        run(x, (Some(&mut other_loss), Some(&mut other_grad)));
        assert!(loss == other_loss && grad == other_grad, "{name} {level}");
    });
}

/// Options: weight, smoothing, ignored class.
fn options(weight: Option<&[f64]>, label_smoothing: f64) -> CrossEntropy<'_, f64> {
    CrossEntropy { weight, label_smoothing, ignore_index: -100 }
}

#[test]
fn cross_entropy_gradients_are_the_derivatives() {
    for classes in [1, 2, 7, 16, 17, 64, 65, 1500] {
        let rows = 19;
        let x = wave(rows * classes, 0.1);
        let weights: Vec<f64> = wave(classes, 0.2).iter().map(|v| v.abs() + 0.1).collect();
        let target: Vec<i64> =
            (0..rows).map(|r| if r == 3 { -100 } else { (r * 7 % classes) as i64 }).collect();
        for weight in [None, Some(&weights[..])] {
            for smoothing in [0.0, 0.2] {
                let p = options(weight, smoothing);
                check(&format!("{classes} {smoothing}"), rows, &x, |x, (loss, grad)| {
                    cross_entropy_rows(&p, rows, classes, x, &target, loss, grad);
                });
            }
        }
    }
}

#[test]
fn few_classes_have_the_bits_of_one_row_at_a_time() {
    // Added classes of score -inf have no share, and make the row too long for the path of few classes.
    for classes in [5, 16, 17, 64] {
        few_classes(21, classes, 80);
    }
}

fn few_classes(rows: usize, classes: usize, more: usize) {
    let x = wave(rows * classes, 0.3);
    let wide: Vec<f64> = x
        .chunks(classes)
        .flat_map(|row| row.iter().copied().chain(vec![f64::NEG_INFINITY; more - classes]))
        .collect();
    let target: Vec<i64> = (0..rows).map(|r| if r == 4 { -100 } else { (r % classes) as i64 }).collect();
    let run = |classes: usize, x: &[f64]| {
        let (mut loss, mut grad) = (vec![0.0; rows], vec![0.0; x.len()]);
        let p = options(None, 0.0);
        cross_entropy_rows(&p, rows, classes, x, &target, Some(&mut loss), Some(&mut grad));
        (loss, grad)
    };
    let (loss, grad) = run(classes, &x);
    let (wide_loss, wide_grad) = run(more, &wide);
    for r in 0..rows {
        // The sums of the two paths are added in different orders.
        assert!((loss[r] - wide_loss[r]).abs() <= 4e-16 * loss[r].abs().max(1.0), "row {r}");
        for c in 0..classes {
            let (few, many) = (grad[r * classes + c], wide_grad[r * more + c]);
            assert!((few - many).abs() <= 4e-16, "row {r}, class {c}: {few} and {many}");
        }
        // Whatever rows stand beside it.
        let (mut one, mut slope) = ([0.0], vec![0.0; classes]);
        let row = &x[r * classes..(r + 1) * classes];
        let p = options(None, 0.0);
        cross_entropy_rows(&p, 1, classes, row, &target[r..=r], Some(&mut one), Some(&mut slope));
        assert!(one[0] == loss[r] && slope == grad[r * classes..(r + 1) * classes], "row {r}");
    }
}

#[test]
fn correct_rows_are_those_of_numpys_argmax() {
    for classes in [1, 2, 3, 10, 16, 17, 5000] {
        let rows = 37;
        // Few values, so that many scores tie.
        let scores: Vec<f64> = wave(rows * classes, 0.7).iter().map(|v| (v * 2.0).round()).collect();
        let labels: Vec<i64> =
            (0..rows).map(|r| (r * 5 % (classes + 1)) as i64 - i64::from(r % 7 == 0)).collect();
        let want = scores.chunks(classes).zip(&labels).filter(|(row, label)| {
            let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            row.iter().position(|&v| v == largest) == usize::try_from(**label).ok()
        });
        let want = want.count();
        let single: Vec<f32> = scores.iter().map(|&v| v as f32).collect();
        isa::on_every_level(|level| {
            assert_eq!(count_correct(classes, &scores, &labels), want, "{level} {classes}");
            assert_eq!(count_correct(classes, &single, &labels), want, "{level} {classes}");
        });
    }
}

#[test]
fn cross_entropy_has_pytorchs_value() {
    // log p = z - log(e^1 + e^2 + e^3)
    let z = [1.0f64, 2.0, 3.0];
    let log_p = z.map(|v| v - (1f64.exp() + 2f64.exp() + 3f64.exp()).ln());
    let w = [0.5, 2.0, 1.0];
    let mut loss = [0.0];
    cross_entropy_rows(&options(None, 0.0), 1, 3, &z, &[1], Some(&mut loss), None);
    assert!((loss[0] + log_p[1]).abs() < 1e-15);
    cross_entropy_rows(&options(Some(&w), 0.3), 1, 3, &z, &[1], Some(&mut loss), None);
    let all: f64 = (0..3).map(|c| w[c] * log_p[c]).sum();
    assert!((loss[0] + 0.7 * 2.0 * log_p[1] + 0.1 * all).abs() < 1e-14);
}

#[test]
fn ignored_rows_are_zero_and_others_do_not_notice() {
    let x = [f32::NAN, 1.0, 2.0, 3.0];
    let (mut loss, mut grad) = ([9.0; 2], [9.0; 4]);
    let p = CrossEntropy { weight: None, label_smoothing: 0.1, ignore_index: 7 };
    cross_entropy_rows(&p, 2, 2, &x, &[7, 0], Some(&mut loss), Some(&mut grad));
    assert_eq!((loss[0], grad[0], grad[1]), (0.0, 0.0, 0.0));
    assert!(loss[1] > 0.0 && grad[2] < 0.0 && grad[3] > 0.0);
}

#[test]
fn extreme_logits_stay_finite_and_nan_is_passed_on() {
    let x = [1e4f32, -1e4, 0.0, f32::NAN, 0.0, 1.0];
    let (mut loss, mut grad) = ([0.0; 2], [0.0; 6]);
    let p = CrossEntropy { weight: None, label_smoothing: 0.0, ignore_index: -1 };
    cross_entropy_rows(&p, 2, 3, &x, &[1, 1], Some(&mut loss), Some(&mut grad));
    assert_eq!((loss[0], &grad[..3]), (2e4, &[1.0, -1.0, 0.0][..]));
    assert!(loss[1].is_nan() && grad[3..].iter().all(|g| g.is_nan()));
}

#[test]
fn soft_cross_entropy_agrees_with_class_indices() {
    let (rows, classes) = (4, 6);
    let x = wave(rows * classes, 0.3);
    let weights = [0.2, 1.0, 3.0, 0.5, 0.1, 2.0];
    let index = [5, 0, 3, 3];
    let mut one_hot = vec![0.0; rows * classes];
    for (r, &y) in index.iter().enumerate() {
        one_hot[r * classes + y as usize] = 1.0;
    }
    let (mut hard, mut soft) = (vec![0.0; rows], vec![0.0; rows]);
    let (mut hard_grad, mut soft_grad) = (x.clone(), x.clone());
    let p = options(Some(&weights), 0.1);
    cross_entropy_rows(&p, rows, classes, &x, &index, Some(&mut hard), Some(&mut hard_grad));
    let (loss, grad) = (Some(&mut soft[..]), Some(&mut soft_grad[..]));
    soft_cross_entropy_rows(Some(&weights), 0.1, rows, classes, &x, &one_hot, loss, grad);
    assert!(hard.iter().zip(&soft).all(|(a, b)| (a - b).abs() < 1e-14), "{hard:?} {soft:?}");
    assert!(hard_grad.iter().zip(&soft_grad).all(|(a, b)| (a - b).abs() < 1e-14));

    let target: Vec<f64> = wave(rows * classes, 0.4).iter().map(|v| v.abs()).collect();
    check("soft", rows, &x, |x, (loss, grad)| {
        soft_cross_entropy_rows(Some(&weights), 0.2, rows, classes, x, &target, loss, grad);
    });
}

#[test]
fn multi_margin_has_its_value_and_gradient() {
    // Scores 3.2, 5.1, -1.7 with class 0: max(0, 5.1 - 3.2 + 1) + max(0, -1.7 - 3.2 + 1) = 2.9
    let mut loss = [0.0];
    multi_margin_rows(1, 1.0, 1.0, None, 1, 3, &[3.2, 5.1, -1.7], &[0], Some(&mut loss), None);
    assert!((loss[0] - 2.9f64).abs() < 1e-15);
    let (rows, classes) = (4, 5);
    let x = wave(rows * classes, 0.5);
    let weight = [0.2, 1.0, 3.0, 0.5, 0.1];
    for p in [1, 2] {
        check(&format!("hinge {p}"), rows, &x, |x, (loss, grad)| {
            multi_margin_rows(p, 0.8, 0.2, Some(&weight), rows, classes, x, &[4, 0, 2, 1], loss, grad);
        });
    }
}

#[test]
fn hinge_slope_is_zero_at_the_kink_and_nan_passes() {
    let mut grad = [9.0f64; 2];
    multi_margin_rows(1, 1.0, 1.0, None, 1, 2, &[2.0, 1.0], &[0], None, Some(&mut grad));
    assert_eq!(grad, [0.0, 0.0]);
    let mut loss = [0.0f64];
    multi_margin_rows(1, 1.0, 1.0, None, 1, 2, &[f64::NAN, 1.0], &[0], Some(&mut loss), Some(&mut grad));
    assert!(loss[0].is_nan() && grad[0].is_nan() && grad[1].is_nan());
}

#[test]
fn binary_cross_entropies_agree_and_have_their_gradients() {
    let n = 37;
    let x = wave(n, 0.6);
    let target: Vec<f64> = wave(n, 0.7).iter().map(|v| v.abs() / 2.0).collect();
    let p: Vec<f64> = x.iter().map(|&v| Math::sigmoid(v)).collect();
    let (mut direct, mut by_logits) = (vec![0.0; n], vec![0.0; n]);
    bce(&p, &target, Some(&mut direct), None);
    bce_with_logits(&x, &target, None, Some(&mut by_logits), None);
    assert!(direct.iter().zip(&by_logits).all(|(a, b)| (a - b).abs() < 1e-14));
    check("squared error", n, &x, |x, (loss, grad)| squared_error(x, &target, loss, grad));
    check("bce", n, &p, |x, (loss, grad)| bce(x, &target, loss, grad));
    check("logits", n, &x, |x, (loss, grad)| bce_with_logits(x, &target, None, loss, grad));
    let weight = [0.5, 2.0, 3.0];
    check("pos_weight", n, &x, |x, (loss, grad)| {
        bce_with_logits(x, &target, Some((&weight, 3)), loss, grad);
    });
    let mut weighted = vec![0.0; n];
    bce_with_logits(&x, &target, Some((&weight, 3)), Some(&mut weighted), None);
    let (x, t) = (x[19], target[19]);
    let want = 2.0 * t * (-x).exp().ln_1p() + (1.0 - t) * x.exp().ln_1p();
    assert!((weighted[19] - want).abs() < 1e-14);
}

#[test]
fn binary_cross_entropy_is_cut_off_and_stable() {
    let (mut loss, mut grad) = ([0.0f32; 4], [0.0; 4]);
    bce(&[0.0, 1.0, 0.0, f32::NAN], &[1.0, 0.0, 0.0, 1.0], Some(&mut loss), Some(&mut grad));
    assert_eq!(loss[..3], [100.0, 100.0, 0.0]);
    assert_eq!(grad[..3], [-1e12, 1e12, 0.0]);
    assert!(loss[3].is_nan() && grad[3].is_nan());
    bce_with_logits(
        &[200.0, -200.0, -90.0, f32::NAN],
        &[0.0, 1.0, 0.0, 1.0],
        None,
        Some(&mut loss),
        Some(&mut grad),
    );
    assert_eq!((loss[0], loss[1]), (200.0, 200.0));
    assert_eq!((grad[0], grad[1], grad[2]), (1.0, -1.0, Math::exp(-90f32)));
    assert!(loss[3].is_nan() && grad[3].is_nan());
}

#[test]
fn negative_log_likelihood_takes_the_labels_column() {
    let (x, weight) = (wave(12, 0.3), [0.5, 2.0, 1.0]);
    let target = [2, -100, 0, 1];
    for weight in [None, Some(&weight[..])] {
        check("nll", 4, &x, |x, (loss, grad)| {
            negative_log_likelihood_rows(weight, -100, 4, 3, x, &target, loss, grad);
        });
    }
    let mut loss = [9.0; 4];
    negative_log_likelihood_rows(Some(&weight), -100, 4, 3, &x, &target, Some(&mut loss), None);
    assert_eq!(loss, [-x[2], 0.0, -0.5 * x[6], -2.0 * x[10]]);
}
