use super::*;
use crate::isa;

const PLAIN: Sgd = Sgd {
    lr: 0.1,
    momentum: 0.0,
    dampening: 0.0,
    weight_decay: 0.0,
    nesterov: false,
    first_step: false,
    velocity: false,
};

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

#[test]
fn a_velocity_keeps_the_rate_of_each_gradient() {
    let h = Sgd { momentum: 0.9, weight_decay: 0.1, velocity: true, ..PLAIN };
    for (nesterov, ahead) in [(false, 0.0), (true, 1.0)] {
        let (mut weight, mut velocity, mut want) = ([1.0f64], [0.0], (1.0, 0.0));
        for (lr, g) in [(0.1, 0.5), (0.02, -0.3)] {
            sgd(&Sgd { lr, nesterov, ..h }, &mut weight, &[g], Some(&mut velocity));
            let v = 0.9 * want.1 - lr * g;
            want = (want.0 * (1.0 - lr * 0.1) + v + ahead * (0.9 * v - lr * g - v), v);
            assert!((weight[0] - want.0).abs() < 1e-15 && (velocity[0] - want.1).abs() < 1e-15);
        }
    }
}

#[test]
fn adam_adds_a_hatted_epsilon_to_the_uncorrected_root() {
    let h = Adam { eps: 0.1, eps_hat: true, step: 2, ..ADAM };
    let (mut w, mut m, mut v) = ([1.0f64], [0.3], [0.04]);
    adam(&h, &mut w, &[0.5], &mut m, &mut v, None);
    let (m, v) = (0.9 * 0.3 + 0.1 * 0.5, 0.99 * 0.04 + 0.01 * 0.25);
    let rate = 0.1 * f64::sqrt(1.0 - 0.99 * 0.99) / (1.0 - 0.9 * 0.9);
    assert!((w[0] - (1.0 - rate * m / (f64::sqrt(v) + 0.1))).abs() < 1e-15);
}

const ADAM: Adam = Adam {
    lr: 0.1,
    beta1: 0.9,
    beta2: 0.99,
    eps: 1e-8,
    weight_decay: 0.0,
    decoupled: false,
    eps_hat: false,
    step: 1,
};

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
    let heavy = Sgd {
        lr: 0.1,
        momentum: 0.5,
        dampening: 0.0,
        weight_decay: 0.0,
        nesterov: false,
        first_step: false,
        velocity: false,
    };
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

/// One rule of each kind beside SGD and Adam, with several states.
fn rules() -> Vec<Rule> {
    let (lr, beta1, beta2, eps, weight_decay, step) = (0.1, 0.9, 0.99, 1e-8, 0.01, 7);
    let (momentum_decay, mu_product, decoupled) = (0.004, 0.3, true);
    vec![
        Rule::NAdam(NAdam {
            lr,
            beta1,
            beta2,
            eps,
            weight_decay,
            momentum_decay,
            decoupled,
            step,
            mu_product,
        }),
        Rule::RAdam(RAdam { lr, beta1, beta2, eps, weight_decay, decoupled, step }),
        Rule::RAdam(RAdam { lr, beta1, beta2, eps, weight_decay, decoupled, step: 2 }),
        Rule::Adamax(Adamax { lr, beta1, beta2, eps, weight_decay, step }),
        Rule::Adagrad(Adagrad { lr, lr_decay: 0.1, weight_decay, eps, step }),
        Rule::Adadelta(Adadelta { lr, rho: 0.9, eps, weight_decay }),
        Rule::RmsProp(RmsProp { lr, alpha: 0.9, eps, weight_decay, momentum: 0.0, centered: false }),
        Rule::RmsProp(RmsProp { lr, alpha: 0.9, eps, weight_decay, momentum: 0.5, centered: false }),
        Rule::RmsProp(RmsProp { lr, alpha: 0.9, eps, weight_decay, momentum: 0.0, centered: true }),
        Rule::RmsProp(RmsProp { lr, alpha: 0.9, eps, weight_decay, momentum: 0.5, centered: true }),
        Rule::Rprop(Rprop { lr, eta_minus: 0.5, eta_plus: 1.2, smallest: 1e-6, largest: 50.0 }),
        Rule::Lion(Lion { lr, beta1, beta2, weight_decay }),
        Rule::Asgd(Asgd { lr, lambd: 0.1, alpha: 0.75, t0: 2.0, weight_decay, step, eta_and_mu: [lr, 0.2] }),
    ]
}

fn run(rule: &Rule, range: std::ops::Range<usize>, arrays: &mut [Vec<f32>; 4], grad: &[f32]) {
    let [w, a, b, c] = arrays.each_mut().map(|array| &mut array[range.clone()]);
    let mut states = [Some(a), Some(b), Some(c)];
    states[*rule.states().end()..].fill_with(|| None);
    rule.apply(w, &grad[range], states);
}

#[test]
fn every_rule_has_the_same_bits_on_every_level_and_in_every_part() {
    let n = 45;
    for rule in rules() {
        let start = || [wave(n, 0.2), vec![0.25; n], vec![0.5; n], wave(n, 0.4)];
        let grad = wave(n, 0.1);
        let mut want = None;
        isa::on_every_level(|level| {
            let mut arrays = start();
            run(&rule, 0..n, &mut arrays, &grad);
            assert!(arrays[0] != start()[0] && arrays.iter().flatten().all(|v| v.is_finite()), "{rule:?}");
            assert_eq!(*want.get_or_insert(arrays.clone()), arrays, "{rule:?} {level}");
            let mut parts = start();
            (0..n).for_each(|i| run(&rule, i..i + 1, &mut parts, &grad));
            assert_eq!(parts, arrays, "{rule:?} {level}");
        });
    }
}

#[test]
fn a_gradient_that_is_not_a_number_reaches_the_weight() {
    for rule in rules() {
        let mut arrays = [vec![1.0; 3], vec![0.5; 3], vec![0.5; 3], vec![0.5; 3]];
        run(&rule, 0..3, &mut arrays, &[1.0, f32::NAN, 1.0]);
        let is_nan = arrays[0].iter().map(|w| w.is_nan()).collect::<Vec<_>>();
        assert_eq!(is_nan, [false, true, false], "{rule:?}");
    }
}

#[test]
fn muon_brings_the_singular_values_near_one_and_does_not_depend_on_orientation() {
    let rule = |shape| Muon {
        lr: 1.0,
        ratio: 1.0,
        weight_decay: 0.0,
        momentum: 0.0,
        nesterov: false,
        coefficients: [3.4445, -4.775, 2.0315],
        eps: 1e-7,
        ns_steps: 5,
        shape,
    };
    // Orthogonal columns of length 5, 3 and 2: the nearest orthogonal matrix is a part of the identity.
    let tall: Vec<f64> = (0..12).map(|i| if i % 3 == i / 3 { [5.0, 3.0, 2.0][i % 3] } else { 0.0 }).collect();
    let (mut w, mut mean) = (vec![0.0; 12], vec![0.0; 12]);
    rule([4, 3]).apply(&mut w, &tall, [Some(&mut mean), None, None]);
    for (i, value) in w.iter().enumerate() {
        let near = if i % 3 == i / 3 { -value } else { 1.0 + value };
        assert!((0.65..1.25).contains(&near), "{i} {value}");
    }
    let flip = |m: &[f64]| (0..12).map(|i| m[i % 4 * 3 + i / 4]).collect::<Vec<f64>>();
    let (mut flipped, mut mean) = (vec![0.0; 12], vec![0.0; 12]);
    rule([3, 4]).apply(&mut flipped, &flip(&tall), [Some(&mut mean), None, None]);
    assert_eq!(flipped, flip(&w));
}
