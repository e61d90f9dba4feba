use super::*;
use crate::isa;

const PLAIN: Sgd =
    Sgd { lr: 0.1, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false, first_step: false };

fn wave(n: usize, phase: f64) -> Vec<f32> {
    (0..n).map(|i| ((i as f64 + phase) * 0.37).sin() as f32).collect()
}

#[test]
fn plain_sgd_is_the_lectures_listing_to_the_bit() {
    let (mut weight, grad) = (wave(37, 0.0), wave(37, 0.5));
    let want: Vec<f32> = weight.iter().zip(&grad).map(|(w, g)| w + -0.1f32 * g).collect();
    sgd(&PLAIN, &mut weight, &grad, None);
    assert_eq!(weight, want);
}

#[test]
fn momentum_follows_pytorch() {
    let h = Sgd { momentum: 0.9, dampening: 0.5, weight_decay: 0.01, ..PLAIN };
    let (mut weight, mut buffer) = ([1.0f64], [f64::NAN]);
    sgd(&Sgd { first_step: true, ..h }, &mut weight, &[0.5], Some(&mut buffer));
    // g = 0.5 + 0.01, the buffer starts as g whatever it held.
    assert!((buffer[0] - 0.51).abs() < 1e-15 && (weight[0] - (1.0 - 0.051)).abs() < 1e-15);
    sgd(&h, &mut weight, &[0.5], Some(&mut buffer));
    let g = 0.5 + 0.01 * 0.949;
    let b = 0.9 * 0.51 + 0.5 * g;
    assert!((buffer[0] - b).abs() < 1e-15 && (weight[0] - (0.949 - 0.1 * b)).abs() < 1e-15);
    let mut nesterov = [0.949];
    let mut buffer = [0.51];
    sgd(&Sgd { nesterov: true, ..h }, &mut nesterov, &[0.5], Some(&mut buffer));
    assert!((nesterov[0] - (0.949 - 0.1 * (g + 0.9 * b))).abs() < 1e-15);
}

const ADAM: Adam =
    Adam { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0, decoupled: false, step: 1 };

#[test]
fn first_adam_step_has_the_length_of_the_learning_rate() {
    let (mut w, mut m, mut v) = ([1.0f64, 1.0], [0.0; 2], [0.0; 2]);
    adam(&ADAM, &mut w, &[3.0, -0.02], &mut m, &mut v, None);
    assert!((w[0] - 0.9).abs() < 1e-7 && (w[1] - 1.1).abs() < 1e-7, "{w:?}");
    assert!((m[0] - 0.3).abs() < 1e-15 && (v[0] - 0.09).abs() < 1e-15);
}

#[test]
fn moments_end_at_zero_and_not_among_the_subnormals() {
    let (mut w, mut m, mut v) = ([1.0f32; 3], [1e-38; 3], [1e-38; 3]);
    let mut buffer = [1e-38f32; 3];
    let heavy =
        Sgd { lr: 0.1, momentum: 0.5, dampening: 0.0, weight_decay: 0.0, nesterov: false, first_step: false };
    adam(&Adam { beta1: 0.5, beta2: 0.5, ..ADAM }, &mut w, &[0.0, 0.0, f32::NAN], &mut m, &mut v, None);
    sgd(&heavy, &mut w, &[0.0, 0.0, f32::NAN], Some(&mut buffer));
    for moment in [m, v, buffer] {
        assert!(moment[..2] == [0.0, 0.0] && moment[2].is_nan(), "{moment:?}");
    }
}

#[test]
fn adam_follows_its_formula_with_decay_and_amsgrad() {
    for decoupled in [false, true] {
        let h = Adam { weight_decay: 0.1, decoupled, step: 3, ..ADAM };
        let (mut w, mut m, mut v, mut largest) = ([0.5f64], [0.2], [0.3], [0.7]);
        adam(&h, &mut w, &[1.5], &mut m, &mut v, Some(&mut largest));
        let (g, shrunk) = if decoupled { (1.5, 0.5 * (1.0 - 0.01)) } else { (1.5 + 0.05, 0.5) };
        let (m1, v1) = (0.9 * 0.2 + 0.1 * g, 0.99 * 0.3 + 0.01 * g * g);
        assert!((m[0] - m1).abs() < 1e-15 && (v[0] - v1).abs() < 1e-15 && largest[0] == 0.7);
        let root = (1.0 - 0.99f64.powi(3)).sqrt();
        let want = shrunk - 0.1 / (1.0 - 0.9f64.powi(3)) * m1 / (0.7f64.sqrt() / root + 1e-8);
        assert!((w[0] - want).abs() < 1e-14, "{} {want}", w[0]);
    }
}

#[test]
fn bits_depend_on_neither_level_nor_length() {
    let n = 45;
    let mut want = None;
    let momentum = Sgd { momentum: 0.9, weight_decay: 0.01, nesterov: true, ..PLAIN };
    isa::on_every_level(|level| {
        let (grad, mut w, mut b) = (wave(n, 0.1), wave(n, 0.2), wave(n, 0.3));
        sgd(&momentum, &mut w, &grad, Some(&mut b));
        let (mut m, mut v, mut largest) = (wave(n, 0.4), vec![0.25; n], vec![0.2; n]);
        adam(&Adam { weight_decay: 0.1, ..ADAM }, &mut w, &grad, &mut m, &mut v, Some(&mut largest));
        let got = (w, b, m, v, largest);
        assert_eq!(*want.get_or_insert(got.clone()), got, "{level}");

        let (mut w, mut b) = (wave(n, 0.2), wave(n, 0.3));
        for i in 0..n {
            sgd(&momentum, &mut w[i..=i], &grad[i..=i], Some(&mut b[i..=i]));
        }
        assert_eq!(b, got.1, "{level}");
    });
}
