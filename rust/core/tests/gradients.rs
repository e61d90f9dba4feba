//! Every op's gradient, and the gradient of its gradient, against centred differences in float64.

use ferrograd_core::backward::grad;
use ferrograd_core::buffer::Array;
use ferrograd_core::dtype::DType;
use ferrograd_core::error::Result;
use ferrograd_core::op::{Binary, Curve, Generator, Index, Loss, Unary};
use ferrograd_core::shape::Dims;
use ferrograd_core::tensor::Tensor;

fn dims(d: &[usize]) -> Dims {
    Dims::from_slice(d)
}

fn random(seed: u64, shape: &[usize], low: f64, high: f64) -> Tensor {
    let array = Generator::new(seed).uniform(DType::F64, dims(shape), low, high).unwrap();
    Tensor::leaf(array, true)
}

fn integers(values: &[i64]) -> Tensor {
    Tensor::constant(Array::from_slice(DType::I64, dims(&[values.len()]), values).unwrap())
}

/// sum(f(x) * weights): a scalar whose gradient sees every element of f.
fn probe(f: &dyn Fn(&[Tensor]) -> Result<Tensor>, inputs: &[Tensor]) -> Result<Tensor> {
    let y = f(inputs)?;
    let weights = Tensor::constant(Generator::new(99).uniform(DType::F64, *y.shape(), 0.5, 1.5)?);
    y.mul(&weights)?.sum(&[], false)
}

fn shifted(t: &Tensor, at: usize, step: f64) -> Tensor {
    let mut values = t.to_vec::<f64>();
    values[at] += step;
    Tensor::leaf(Array::from_slice(DType::F64, *t.shape(), &values).unwrap(), true)
}

fn check(name: &str, f: &dyn Fn(&[Tensor]) -> Result<Tensor>, inputs: &[Tensor]) {
    let analytic = |inputs: &[Tensor], create_graph: bool| {
        let value = probe(f, inputs).unwrap();
        grad(&[value], inputs, &[], create_graph, create_graph).unwrap()
    };
    let step = 1e-6;
    let first = analytic(inputs, true);
    // Second derivatives through the same harness: the probe of the first gradients.
    let slope = |inputs: &[Tensor]| -> f64 {
        let grads = analytic(inputs, false);
        grads.iter().flatten().map(probe_sum).sum()
    };
    let mut total: Option<Tensor> = None;
    for g in first.iter().flatten() {
        let weights = Generator::new(7).uniform(DType::F64, *g.shape(), 0.5, 1.5).unwrap();
        let part = g.mul(&Tensor::constant(weights)).unwrap().sum(&[], false).unwrap();
        total = Some(match total {
            Some(t) => t.add(&part).unwrap(),
            None => part,
        });
    }
    let total = total.expect("some gradient");
    let second = if total.requires_grad() {
        grad(&[total], inputs, &[], false, false).unwrap()
    } else {
        vec![None; inputs.len()]
    };
    for (i, input) in inputs.iter().enumerate() {
        let zeros = vec![0.0; input.shape().elements()];
        let exact = first[i].as_ref().map_or(zeros.clone(), |g| g.to_vec::<f64>());
        let exact2 = second[i].as_ref().map_or(zeros, |g| g.to_vec::<f64>());
        for at in 0..input.shape().elements() {
            let at_step = |h: f64| {
                let mut moved = inputs.to_vec();
                moved[i] = shifted(input, at, h);
                moved
            };
            let (up, down) = (at_step(step), at_step(-step));
            let value = |x: &[Tensor]| probe(f, x).unwrap().item().unwrap();
            let numeric = (value(&up) - value(&down)) / (2.0 * step);
            let close = |a: f64, n: f64| (a - n).abs() <= 1e-6 + 1e-5 * n.abs();
            assert!(close(exact[at], numeric), "{name}: input {i}[{at}] {} against {numeric}", exact[at]);
            let numeric2 = (slope(&up) - slope(&down)) / (2.0 * step);
            assert!(
                close(exact2[at], numeric2),
                "{name}: second, input {i}[{at}] {} against {numeric2}",
                exact2[at]
            );
        }
    }
}

fn probe_sum(g: &Tensor) -> f64 {
    let weights = Tensor::constant(Generator::new(7).uniform(DType::F64, *g.shape(), 0.5, 1.5).unwrap());
    g.detach().mul(&weights).unwrap().sum(&[], false).unwrap().item().unwrap()
}

#[test]
fn unary_gradients() {
    let ops = [
        Unary::Neg,
        Unary::Exp,
        Unary::Expm1,
        Unary::Square,
        Unary::Sin,
        Unary::Cos,
        Unary::Sigmoid,
        Unary::Tanh,
        Unary::Relu,
        Unary::Abs,
        Unary::LeakyRelu(0.1),
        Unary::LeakyRelu(-0.2),
        Unary::Elu(1.3),
        Unary::Softplus { beta: 2.0, threshold: 20.0 },
        Unary::PowScalar(3.0),
        Unary::Clamp { min: -0.5, max: 0.7 },
        Unary::AddScalar(2.0),
        Unary::MulScalar(-3.0),
        Unary::DivScalar(4.0),
    ];
    for op in ops {
        check(&format!("{op:?}"), &|x| x[0].unary(op), &[random(1, &[3, 4], -1.5, 1.5)]);
    }
    for op in [Unary::Log, Unary::Log1p, Unary::Sqrt, Unary::Reciprocal, Unary::PowScalar(-1.5)] {
        check(&format!("{op:?}"), &|x| x[0].unary(op), &[random(2, &[3, 4], 0.5, 2.0)]);
    }
}

#[test]
fn curve_gradients() {
    let curves = [
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
    ];
    for curve in curves {
        let op = Unary::Curve(curve);
        check(&format!("{curve:?}"), &|x| x[0].unary(op), &[random(1, &[5, 4], -4.0, 4.0)]);
        // Second derivatives as a value, so that `check` sees the third and fourth.
        let slope = |x: &[Tensor]| x[0].binary(Binary::CurveGrad(curve), &x[1]);
        let inputs = [random(3, &[4], 0.5, 1.5), random(2, &[3, 4], -2.0, 2.0)];
        check(&format!("{curve:?} slope"), &slope, &inputs);
        // Far out nothing becomes infinity * 0.
        let ends = Array::from_slice(DType::F64, dims(&[2]), &[-1e300, 1e300]).unwrap();
        let ends = Tensor::leaf(ends, true);
        let y = ends.unary(op).unwrap().sum(&[], false).unwrap();
        let first = grad(&[y], std::slice::from_ref(&ends), &[], true, true).unwrap()[0].clone().unwrap();
        let second = grad(&[first.sum(&[], false).unwrap()], &[ends], &[], false, false).unwrap();
        let second = second[0].as_ref().map_or(vec![0.0], Tensor::to_vec::<f64>);
        assert!(first.to_vec::<f64>().iter().chain(&second).all(|v| v.is_finite()), "{curve:?}");
    }
}

#[test]
fn curves_that_change_the_gradient_alone() {
    let x = random(1, &[4], -2.0, 2.0);
    for (curve, want) in [
        (Curve::Reversed(0.5), x.mul_scalar(0.0).unwrap().add_scalar(-1.5).unwrap()),
        (Curve::Penalised(0.25), x.sign().unwrap().mul_scalar(0.25).unwrap().add_scalar(3.0).unwrap()),
    ] {
        let y = x.unary(Unary::Curve(curve)).unwrap();
        assert_eq!(y.to_vec::<f64>(), x.to_vec::<f64>());
        let y = y.mul_scalar(3.0).unwrap().sum(&[], false).unwrap();
        let got = grad(&[y], std::slice::from_ref(&x), &[], false, false).unwrap()[0].clone().unwrap();
        assert_eq!(got.to_vec::<f64>(), want.to_vec::<f64>(), "{curve:?}");
    }
}

#[test]
fn binary_gradients_with_broadcasting() {
    for op in
        [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Pow, Binary::Maximum, Binary::Minimum]
    {
        for (left, right) in [([2, 3].as_slice(), [2, 3].as_slice()), (&[2, 1], &[3]), (&[], &[2, 2])] {
            let inputs = [random(3, left, 0.5, 2.0), random(4, right, 0.5, 2.0)];
            check(&format!("{op:?} {left:?} {right:?}"), &|x| x[0].binary(op, &x[1]), &inputs);
        }
    }
}

#[test]
fn matmul_gradients() {
    for (left, right) in [
        ([2, 3].as_slice(), [3, 4].as_slice()),
        (&[3], &[3, 2]),
        (&[2, 3], &[3]),
        (&[3], &[3]),
        (&[2, 2, 3], &[2, 3, 2]),
        (&[2, 1, 2, 3], &[2, 3, 2]),
        (&[2, 2, 3], &[3, 2]),
    ] {
        let inputs = [random(5, left, -1.0, 1.0), random(6, right, -1.0, 1.0)];
        check(&format!("matmul {left:?} {right:?}"), &|x| x[0].matmul(&x[1]), &inputs);
    }
    let inputs = [random(1, &[4, 3], -1.0, 1.0), random(2, &[2, 3], -1.0, 1.0), random(3, &[2], -1.0, 1.0)];
    check("linear", &|x| x[0].linear(&x[1], Some(&x[2])), &inputs);
}

#[test]
fn reduction_gradients() {
    type Reduction = fn(&Tensor, &[isize]) -> Result<Tensor>;
    let reductions: [(&str, Reduction); 6] = [
        ("sum", |x, d| x.sum(d, false)),
        ("mean", |x, d| x.mean(d, true)),
        ("amax", |x, d| x.amax(d, false)),
        ("amin", |x, d| x.amin(d, true)),
        ("var", |x, d| x.var(d, 1.0, false)),
        ("logsumexp", |x, d| x.logsumexp(d, false)),
    ];
    for (name, f) in reductions {
        for d in [[].as_slice(), &[0], &[1], &[-1], &[0, 2], &[1, 2]] {
            check(&format!("{name} {d:?}"), &|x| f(&x[0], d), &[random(8, &[2, 3, 2], -2.0, 2.0)]);
        }
    }
    for dim in [0, 1, 2] {
        check("softmax", &|x| x[0].softmax(dim), &[random(9, &[2, 3, 2], -2.0, 2.0)]);
        check("log_softmax", &|x| x[0].log_softmax(dim), &[random(9, &[2, 3, 2], -2.0, 2.0)]);
        let extreme = |x: &[Tensor]| Ok(x[0].extreme_along(true, dim, false)?.0);
        check("max along", &extreme, &[random(9, &[2, 3, 2], -2.0, 2.0)]);
    }
}

#[test]
fn shape_and_index_gradients() {
    let x = || [random(10, &[2, 3, 4], -1.0, 1.0)];
    check("permute and reshape", &|x| x[0].permute(&dims(&[2, 0, 1]))?.reshape(&dims(&[8, 3])), &x());
    check("broadcast", &|x| x[0].narrow(1, 1, 1)?.broadcast_to(&dims(&[5, 2, 3, 4])), &x());
    check("narrow", &|x| x[0].narrow(2, 1, 2), &x());
    check("squeeze", &|x| x[0].unsqueeze(1)?.squeeze(&[1])?.flatten(1, 2), &x());
    check(
        "cat",
        &|x| Tensor::cat(&[x[0].clone(), x[1].clone(), x[0].clone()], 1),
        &[random(1, &[2, 2], -1.0, 1.0), random(2, &[2, 3], -1.0, 1.0)],
    );
    check("stack", &|x| Tensor::stack(&[x[0].clone(), x[0].square()?], -1), &[random(1, &[2, 2], -1.0, 1.0)]);
    let strided = [Index::Int(-1), Index::Slice { start: 0, length: 2, step: 2 }, Index::NewAxis];
    check("slice", &|x| x[0].index(&strided), &x());
    let repeated = [Index::Slice { start: 0, length: 2, step: 1 }, Index::Tensor(integers(&[2, 0, 2]))];
    check("gather", &|x| x[0].index(&repeated), &x());
    check(
        "where",
        &|x| x[0].compare(ferrograd_core::op::Compare::Gt, &x[1])?.select(&x[0], &x[1]),
        &[random(1, &[3, 2], -1.0, 1.0), random(2, &[2], -1.0, 1.0)],
    );
}

#[test]
fn loss_gradients() {
    let labels = integers(&[2, 0, 1, -100]);
    for label_smoothing in [0.0, 0.2] {
        for weight in [None, Some(random(3, &[3], 0.5, 1.5).detach())] {
            let loss = Loss::CrossEntropy { label_smoothing, ignore_index: -100, weighted: weight.is_some() };
            check(
                "cross_entropy",
                &|x| x[0].loss(loss, &labels, weight.as_ref()),
                &[random(1, &[4, 3], -2.0, 2.0)],
            );
            let loss = Loss::SoftCrossEntropy { label_smoothing, weighted: weight.is_some() };
            let target = random(5, &[4, 3], 0.1, 0.9).detach();
            check("soft", &|x| x[0].loss(loss, &target, weight.as_ref()), &[random(1, &[4, 3], -2.0, 2.0)]);
        }
    }
    for weight in [None, Some(random(3, &[3], 0.5, 1.5).detach())] {
        let loss = Loss::NegativeLogLikelihood { ignore_index: -100, weighted: weight.is_some() };
        check("nll", &|x| x[0].loss(loss, &labels, weight.as_ref()), &[random(1, &[4, 3], -2.0, 0.0)]);
    }
    let labels = integers(&[2, 0, 1]);
    for (p, weight) in [(1, None), (2, None), (2, Some(random(3, &[4], 0.5, 1.5).detach()))] {
        let loss =
            Loss::MultiMargin { p, margin: 0.9, divide_by_classes: p == 2, weighted: weight.is_some() };
        check(
            "multi_margin",
            &|x| x[0].loss(loss, &labels, weight.as_ref()),
            &[random(1, &[3, 4], -2.0, 2.0)],
        );
    }
    let target = random(5, &[3, 2], 0.1, 0.9).detach();
    // The target of a squared error gets a gradient too.
    let pair = [random(1, &[3, 2], -1.0, 1.0), random(2, &[3, 2], -1.0, 1.0)];
    check("squared_error", &|x| x[0].squared_error(&x[1]), &pair);
    let bce = Loss::BinaryCrossEntropy;
    check("bce", &|x| x[0].loss(bce, &target, None), &[random(1, &[3, 2], 0.1, 0.9)]);
    for weight in [None, Some(random(3, &[2], 0.5, 1.5).detach())] {
        let loss = Loss::BinaryCrossEntropyWithLogits { weighted: weight.is_some() };
        check(
            "bce_with_logits",
            &|x| x[0].loss(loss, &target, weight.as_ref()),
            &[random(1, &[3, 2], -3.0, 3.0)],
        );
    }
}

#[test]
fn gradients_of_shared_operands_add_up() {
    check("a + a", &|x| x[0].add(&x[0]), &[random(1, &[2], -1.0, 1.0)]);
    check(
        "a (a + b)",
        &|x| x[0].mul(&x[0].add(&x[1])?),
        &[random(1, &[2], -1.0, 1.0), random(2, &[2], -1.0, 1.0)],
    );
}
