//! Every fusion: that it fires, that it keeps the bits of its ops run one at a time, and that it stays away from
//! graphs where it would be wrong.

mod common;

use std::sync::atomic::Ordering;

use common::*;
use ferrograd_core::buffer::Array;
use ferrograd_core::dtype::DType;
use ferrograd_core::error::Result;
use ferrograd_core::op::{Distribution, Draw, Generator, Loss, Unary};
use ferrograd_core::shape::Dims;
use ferrograd_core::tensor::Tensor;
use ferrograd_core::train::Rule;
use ferrograd_kernels::update::Sgd;

const SAMPLES: usize = 45;
const BATCH: usize = 33;
const CLASSES: usize = 4;

/// How a layer keeps its weight.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    /// (outputs, inputs), as PyTorch.
    OutIn,
    /// (inputs, outputs), as the lectures.
    InOut,
}

fn product(x: &Tensor, weight: &Tensor, form: Form) -> Result<Tensor> {
    if form == Form::OutIn { x.linear(weight, None) } else { x.matmul(weight) }
}

/// Layers of these widths: a weight and, perhaps, a bias for each.
struct Mlp {
    widths: Vec<usize>,
    form: Form,
    bias: bool,
    activation: Unary,
}

impl Mlp {
    fn new(activation: Unary) -> Mlp {
        Mlp { widths: vec![7, 19, 33, CLASSES], form: Form::OutIn, bias: true, activation }
    }

    fn parameters(&self) -> Vec<Array> {
        let mut parameters = Vec::new();
        for (seed, w) in (10..).zip(self.widths.windows(2)) {
            let shape = if self.form == Form::OutIn { [w[1], w[0]] } else { [w[0], w[1]] };
            parameters.push(normal(seed, DType::F32, &shape, 0.4));
            if self.bias {
                parameters.push(normal(seed + 10, DType::F32, &[w[1]], 0.4));
            }
        }
        parameters
    }

    fn scores(&self, x: &Tensor, parameters: &[Tensor]) -> Result<Tensor> {
        let per_layer = 1 + usize::from(self.bias);
        let last = parameters.len() / per_layer - 1;
        let mut h = x.clone();
        for (i, layer) in parameters.chunks(per_layer).enumerate() {
            h = product(&h, &layer[0], self.form)?;
            if self.bias {
                h = h.add(&layer[1])?;
            }
            if i < last {
                h = h.unary(self.activation)?;
            }
        }
        Ok(h)
    }

    fn job(self, optimizer: Optimizer) -> Job<'static> {
        let parameters = self.parameters();
        let model = move |inputs: &[Tensor], parameters: &[Tensor]| {
            let scores = self.scores(&inputs[0], parameters)?;
            let loss = scores.loss(CROSS_ENTROPY, &inputs[1], None)?.mean(&[], false)?;
            Ok((scores, loss))
        };
        job(parameters, optimizer, model)
    }
}

/// Class labels for the 7 inputs of each sample.
fn job<'a>(
    parameters: Vec<Array>,
    optimizer: Optimizer,
    model: impl Fn(&[Tensor], &[Tensor]) -> Result<(Tensor, Tensor)> + 'a,
) -> Job<'a> {
    Job {
        tables: vec![normal(1, DType::F32, &[SAMPLES, 7], 1.0), labels(SAMPLES, CLASSES)],
        trained: parameters.len(),
        parameters,
        optimizer,
        clip_grad_norm: None,
        batch: BATCH,
        epochs: 3,
        model: Box::new(model),
    }
}

#[test]
fn products_take_in_bias_activation_and_derivative() {
    let fused = [
        (Unary::Relu, "relu"),
        (Unary::LeakyRelu(0.01), "leaky_relu"),
        (Unary::Elu(1.0), "elu"),
        (Unary::Sigmoid, "sigmoid"),
        (Unary::Tanh, "tanh"),
    ];
    // Their derivatives need the operand.
    let apart = [(Unary::Softplus { beta: 1.0, threshold: 20.0 }, "softplus"), (Unary::Sin, "sin")];
    for (activations, is_fused) in [(&fused[..], true), (&apart[..], false)] {
        for &(activation, name) in activations {
            for form in [Form::OutIn, Form::InOut] {
                for bias in [false, true] {
                    let what = format!("{activation:?}, {form:?}, bias {bias}");
                    let job = Mlp { form, bias, ..Mlp::new(activation) }.job(sgd(0.0, false, 0.0));
                    let sum = if bias { "matmul+bias" } else { "matmul" };
                    let session = job.start(How::fused(1));
                    let names = session.step().instruction_names();
                    let both = usize::from(is_fused) * 2;
                    assert_eq!(session.count(&format!("{sum}+{name}")), both, "{what}: {names:?}");
                    assert_eq!(session.count(&format!("matmul+{name}_grad")), both, "{what}: {names:?}");
                    assert_eq!(session.count(name), 2 - both, "{what}: {names:?}");
                    drop(session);
                    let names = job.start(How::unfused(1)).step().instruction_names();
                    assert!(names.iter().all(|name| !name.contains('+')), "{what}, not fused: {names:?}");
                    job.assert_fusion_keeps_bits(&what);
                }
            }
        }
    }
}

#[test]
fn a_slope_that_loses_the_sign_keeps_the_operand() {
    let job = Mlp::new(Unary::LeakyRelu(-0.1)).job(sgd(0.0, false, 0.0));
    let session = job.start(How::fused(1));
    assert_eq!((session.count("matmul+bias"), session.count("leaky_relu")), (3, 2));
    drop(session);
    job.assert_fusion_keeps_bits("leaky_relu(-0.1)");
}

#[test]
fn weight_gradients_are_updates_and_are_never_stored() {
    for optimizer in optimizers() {
        for form in [Form::OutIn, Form::InOut] {
            for bias in [false, true] {
                let what = format!("{optimizer:?}, {form:?}, bias {bias}");
                let job = Mlp { form, bias, ..Mlp::new(Unary::Relu) }.job(optimizer);
                let session = job.start(How::fused(1));
                let names = session.step().instruction_names();
                let fused = if bias { "matmul+sum+update" } else { "matmul+update" };
                assert_eq!(session.count(fused), 3, "{what}: {names:?}");
                assert_eq!(session.count("update") + session.count("sum+update"), 0, "{what}: {names:?}");
                assert!(session.stored().iter().all(|is_stored| !is_stored), "{what}");
                drop(session);
                job.assert_fusion_keeps_bits(&what);
            }
        }
    }
}

#[test]
fn losses_come_with_their_gradient() {
    let multi_margin =
        |p, divide_by_classes, weighted| Loss::MultiMargin { p, margin: 1.0, divide_by_classes, weighted };
    let losses = [
        CROSS_ENTROPY,
        Loss::CrossEntropy { label_smoothing: 0.1, ignore_index: 2, weighted: true },
        Loss::SoftCrossEntropy { label_smoothing: 0.0, weighted: false },
        Loss::SoftCrossEntropy { label_smoothing: 0.1, weighted: true },
        multi_margin(1, false, false),
        multi_margin(1, true, true),
        multi_margin(2, false, true),
        multi_margin(2, true, false),
        Loss::NegativeLogLikelihood { ignore_index: -100, weighted: false },
        Loss::NegativeLogLikelihood { ignore_index: 2, weighted: true },
        Loss::SquaredError,
        Loss::BinaryCrossEntropy,
        Loss::BinaryCrossEntropyWithLogits { weighted: false },
        Loss::BinaryCrossEntropyWithLogits { weighted: true },
    ];
    let weights =
        Tensor::constant(Array::from_slice(DType::F32, dims(&[CLASSES]), &[0.5f32, 2.0, 1.0, 3.0]).unwrap());
    for loss in losses {
        let (name, weighted, takes_labels) = match loss {
            Loss::CrossEntropy { weighted, .. } => ("cross_entropy", weighted, true),
            Loss::SoftCrossEntropy { weighted, .. } => ("cross_entropy", weighted, false),
            Loss::MultiMargin { weighted, .. } => ("multi_margin", weighted, true),
            Loss::NegativeLogLikelihood { weighted, .. } => ("nll_loss", weighted, true),
            Loss::SquaredError => ("mse", false, false),
            Loss::BinaryCrossEntropy => ("bce", false, false),
            Loss::BinaryCrossEntropyWithLogits { weighted } => ("bce_with_logits", weighted, false),
        };
        for by_sample in [false, true] {
            let mlp = Mlp::new(Unary::Relu);
            let model = |inputs: &[Tensor], parameters: &[Tensor]| {
                let mut scores = mlp.scores(&inputs[0], parameters)?;
                if loss == Loss::BinaryCrossEntropy {
                    scores = scores.unary(Unary::Sigmoid)?;
                }
                let each = scores.loss(loss, &inputs[1], weighted.then_some(&weights))?;
                let loss = if by_sample {
                    let each = if each.shape().rank() == 2 { each.mean(&[1], false)? } else { each };
                    each.mul(&inputs[2])?.sum(&[], false)?.div(&inputs[2].sum(&[], false)?)?
                } else {
                    each.mean(&[], false)?
                };
                Ok((scores, loss))
            };
            let mut job = job(mlp.parameters(), sgd(0.9, false, 0.0), model);
            if !takes_labels {
                let probabilities = Tensor::constant(normal(3, DType::F32, &[SAMPLES, CLASSES], 1.0));
                job.tables[1] = probabilities.softmax(1).unwrap().array().clone();
            }
            if by_sample {
                let uniform = Generator::new(4).uniform(DType::F32, dims(&[SAMPLES]), 0.1, 2.0);
                job.tables.push(uniform.unwrap());
            }
            let what = format!("{loss:?}, sample weights {by_sample}");
            let session = job.start(How::fused(1));
            let names = session.step().instruction_names();
            assert_eq!(session.count(&format!("{name}+grad")), 1, "{what}: {names:?}");
            assert_eq!(session.count(name) + session.count(&format!("{name}_grad")), 0, "{what}: {names:?}");
            // What a mean divides by goes into the same pass, by sample or for all.
            let after = names.iter().skip_while(|n| !n.ends_with("+grad")).filter(|n| *n == "mul").count();
            assert_eq!(after, usize::from(by_sample), "{what}: {names:?}");
            drop(session);
            job.assert_fusion_keeps_bits(&what);
        }
    }
}

#[test]
fn a_squared_error_of_ops_keeps_its_bits() {
    let mlp = Mlp { widths: vec![7, 19, 3], ..Mlp::new(Unary::Tanh) };
    let parameters = mlp.parameters();
    let model = move |inputs: &[Tensor], parameters: &[Tensor]| {
        let scores = mlp.scores(&inputs[0], parameters)?;
        let loss = scores.sub(&inputs[1])?.square()?.mean(&[], false)?;
        Ok((scores, loss))
    };
    let mut job = job(parameters, adam(false, false, 0.0), model);
    job.tables[1] = normal(2, DType::F32, &[SAMPLES, 3], 1.0);
    assert_eq!(job.start(How::fused(1)).stored(), [false; 4]);
    job.assert_fusion_keeps_bits("squared error");
}

#[test]
fn a_bias_without_a_weight_gradient_of_its_own_is_summed_apart() {
    // Of two layers, of a layer whose weight is frozen, and of a single column, whose sum has another order.
    for (what, outputs, trained, stored) in [
        ("shared", CLASSES, 4, vec![true, false, false, false]),
        ("frozen", CLASSES, 1, vec![true]),
        ("one column", 1, 4, vec![false, false, false, true]),
    ] {
        let is_shared = what == "shared";
        let shapes: [&[usize]; 5] = [&[7], &[7, 7], &[outputs, 7], &[outputs], &[7, 7]];
        let parameters = (40..).zip(shapes).map(|(seed, s)| normal(seed, DType::F32, s, 0.4)).collect();
        let mut job = job(parameters, sgd(0.9, false, 0.0), move |inputs, p| {
            let second = is_shared.then_some(&p[0]);
            let h = inputs[0].linear(&p[1], Some(&p[0]))?.relu()?.linear(&p[4], second)?.relu()?;
            let scores = h.linear(&p[2], Some(&p[3]))?;
            let loss = scores.square()?.mean(&[], false)?;
            Ok((scores, loss))
        });
        job.trained = trained;
        let session = job.start(How::fused(1));
        let names = session.step().instruction_names();
        assert_eq!(session.stored(), stored, "{what}: {names:?}");
        drop(session);
        job.assert_fusion_keeps_bits(what);
    }
}

/// A step that several threads share.
fn wide(optimizer: Optimizer) -> Job<'static> {
    let mut job = Mlp { widths: vec![7, 150, 120, CLASSES], ..Mlp::new(Unary::Relu) }.job(optimizer);
    job.tables = vec![normal(1, DType::F32, &[200, 7], 1.0), labels(200, CLASSES)];
    job.batch = 160;
    job
}

#[test]
fn rows_are_gathered_and_converted_by_the_thread_that_uses_them() {
    let mut job = wide(sgd(0.0, false, 0.0));
    let doubles = normal(1, DType::F64, &[200, 7], 1.0);
    job.tables[0] = Tensor::constant(doubles.clone()).cast(DType::F32).unwrap().array().clone();
    let want = job.run(How::unfused(1));
    for threads in [1, 2, 3] {
        let mut session = job.start(How::fused(threads));
        session.tables[0] = Table::new(doubles.clone());
        for _ in 0..job.epochs {
            session.epoch();
        }
        // 160 and 40 rows: blocks of at most 128, and as many for each thread.
        let blocks = [3, 4, 6][threads - 1] * job.epochs;
        assert_eq!(session.tables[0].1.load(Ordering::Relaxed), blocks, "{threads} threads");
        assert!(session.numbers() == want, "{threads} threads");
    }
}

#[test]
fn dropout_masks_are_those_of_the_step_whoever_computes_them() {
    let mlp = Mlp { widths: vec![7, 150, 120, CLASSES], ..Mlp::new(Unary::Relu) };
    let parameters = mlp.parameters();
    let model = move |inputs: &[Tensor], parameters: &[Tensor]| {
        let mut h = inputs[0].clone();
        for layer in parameters.chunks(2) {
            let mask =
                Draw::tensor(Distribution::DropoutMask(0.3), DType::F32, *h.shape(), &Generator::new(8))?;
            h = h.mul(&mask)?.linear(&layer[0], Some(&layer[1]))?.unary(mlp.activation)?;
        }
        let loss = h.loss(CROSS_ENTROPY, &inputs[1], None)?.mean(&[], false)?;
        Ok((h, loss))
    };
    let mut job = job(parameters, sgd(0.0, false, 0.0), model);
    job.tables = vec![normal(1, DType::F32, &[200, 7], 1.0), labels(200, CLASSES)];
    job.batch = 160;
    job.assert_fusion_keeps_bits("dropout");
    // Every step draws anew: what learns nothing has another loss in each epoch.
    let mut session = job.start(How::fused(2));
    assert_eq!(session.count("dropout_mask"), 3);
    let Rule::Sgd(rule) = job.optimizer.rule else { unreachable!() };
    session.engine.rules = vec![Rule::Sgd(Sgd { lr: 0.0, ..rule })];
    let losses = [session.epoch(), session.epoch(), session.epoch()];
    assert!(losses[0] != losses[1] && losses[1] != losses[2] && losses[0] != losses[2], "{losses:?}");
}

#[test]
fn clipped_gradients_are_stored() {
    for optimizer in [sgd(0.9, true, 0.01), adam(false, false, 0.0)] {
        let mut job = Mlp::new(Unary::Relu).job(optimizer);
        job.clip_grad_norm = Some(0.05);
        let session = job.start(How::fused(1));
        assert_eq!((session.count("matmul+sum+update"), session.count("sum+update")), (0, 0));
        assert_eq!(session.stored(), [true; 6]);
        drop(session);
        job.assert_fusion_keeps_bits(optimizer.name);
    }
}

/// Two 7 x 7 layers and a third for the classes, with a model of the test's own.
fn square_layers<'a>(
    optimizer: Optimizer,
    model: impl Fn(&Tensor, &[Tensor]) -> Result<(Tensor, Option<Tensor>)> + 'a,
) -> Job<'a> {
    let shapes = [[7, 7], [7, 7], [CLASSES, 7]];
    let parameters = (30..).zip(shapes).map(|(seed, shape)| normal(seed, DType::F32, &shape, 0.4)).collect();
    job(parameters, optimizer, move |inputs, parameters| {
        let (scores, penalty) = model(&inputs[0], parameters)?;
        let loss = scores.loss(CROSS_ENTROPY, &inputs[1], None)?.mean(&[], false)?;
        Ok((scores, penalty.map_or(Ok(loss.clone()), |penalty| loss.add(&penalty))?))
    })
}

/// Runs a job in which the first weight must not be updated in the tile, but the others are.
fn assert_first_is_stored(what: &str, job: impl Fn(Optimizer) -> Job<'static>) {
    for optimizer in [sgd(0.0, false, 0.0), sgd(0.9, false, 0.02), adam(false, false, 0.0)] {
        let job = job(optimizer);
        let session = job.start(How::fused(1));
        let names = session.step().instruction_names();
        assert_eq!(session.stored(), [true, false, false], "{what}: {names:?}");
        assert_eq!(session.count("matmul+update"), 2, "{what}: {names:?}");
        drop(session);
        job.assert_fusion_keeps_bits(what);
    }
}

#[test]
fn a_weight_of_two_layers_is_updated_once_with_the_sum() {
    assert_first_is_stored("shared", |optimizer| {
        square_layers(optimizer, |x, w| {
            let h = x.linear(&w[0], None)?.relu()?.linear(&w[1], None)?.relu()?;
            Ok((h.linear(&w[0], None)?.relu()?.linear(&w[2], None)?, None))
        })
    });
}

#[test]
fn a_weight_tied_to_its_transpose_is_updated_once_with_the_sum() {
    for first in [Form::OutIn, Form::InOut] {
        assert_first_is_stored("tied", |optimizer| {
            square_layers(optimizer, move |x, w| {
                let second = if first == Form::OutIn { Form::InOut } else { Form::OutIn };
                let h = product(&product(x, &w[0], first)?.tanh()?, &w[0], second)?;
                Ok((h.tanh()?.linear(&w[1], None)?.relu()?.linear(&w[2], None)?, None))
            })
        });
    }
}

#[test]
fn a_penalty_on_a_weight_joins_its_gradient() {
    let three = |x: &Tensor, w: &[Tensor]| -> Result<Tensor> {
        x.linear(&w[0], None)?.relu()?.linear(&w[1], None)?.relu()?.linear(&w[2], None)
    };
    assert_first_is_stored("L2", |optimizer| {
        square_layers(optimizer, move |x, w| {
            Ok((three(x, w)?, Some(w[0].square()?.sum(&[], false)?.mul_scalar(0.01)?)))
        })
    });
    // Read by something else than a product, without a share in the gradient.
    assert_first_is_stored("read", |optimizer| {
        square_layers(optimizer, move |x, w| {
            Ok((three(x, w)?, Some(w[0].detach().square()?.sum(&[], false)?)))
        })
    });
}

#[test]
fn a_penalty_by_columns_leaves_weights_packed() {
    // Of the first weight: 7 x 7, so that its transpose differs by strides alone.
    let columns = |w: &Tensor, is_turned: bool| -> Result<Tensor> {
        let matrix = if is_turned { w.t()? } else { w.clone() };
        matrix.square()?.sum(&[0], false)?.sum(&[], false)?.mul_scalar(0.01)
    };
    for form in [Form::OutIn, Form::InOut] {
        for optimizer in [sgd(0.0, false, 0.0), sgd(0.9, true, 0.02), adam(true, false, 0.1)] {
            for (is_of_data, is_fit) in [(false, true), (true, true), (false, false)] {
                let job = square_layers(optimizer, move |x, w| {
                    let h = product(x, &w[0], form)?.relu()?.linear(&w[1], None)?.relu()?;
                    // By the wrong columns where it does not fit: the rows of what is packed.
                    let penalty = columns(&w[0], (form == Form::OutIn) == is_fit)?;
                    let scale = if is_of_data {
                        x.square()?.sum(&[], false)?
                    } else {
                        Tensor::scalar(x.dtype(), 3.0)?
                    };
                    let last = columns(&w[2], true)?.mul_scalar(0.5)?;
                    Ok((h.linear(&w[2], None)?, Some(penalty.div(&scale)?.add(&last)?)))
                });
                let what = format!("{form:?} {} {is_of_data} {is_fit}", optimizer.name);
                let session = job.start(How::fused(1));
                let names = session.step().instruction_names();
                assert_eq!(session.stored(), [!is_fit, false, false], "{what}: {names:?}");
                let fused = session.count("matmul+penalty+update");
                assert_eq!(fused, 1 + usize::from(is_fit), "{what}: {names:?}");
                drop(session);
                job.assert_fusion_keeps_bits(&what);
            }
        }
    }
}

#[test]
fn a_weight_that_is_an_output_shows_its_value_before_the_update() {
    let job = square_layers(sgd(0.0, false, 0.0), |x, w| {
        let scores = x.linear(&w[0], None)?.relu()?.linear(&w[1], None)?.relu()?.linear(&w[2], None)?;
        Ok((scores, None))
    });
    let inner = job.model;
    let job = Job {
        model: Box::new(move |inputs, parameters| Ok((parameters[0].clone(), inner(inputs, parameters)?.1))),
        ..job
    };
    assert_eq!(job.start(How::fused(1)).stored(), [true, false, false]);
    job.assert_fusion_keeps_bits("output");
}

#[test]
fn detached_values_are_those_of_the_run() {
    // The second half of a residual layer lets no gradient through.
    let job = square_layers(sgd(0.0, false, 0.0), |x, w| {
        let h = x.linear(&w[0], None)?.relu()?;
        let h = h.add(&h.detach().linear(&w[1].detach(), None)?)?;
        Ok((h.linear(&w[1], None)?.relu()?.linear(&w[2], None)?, None))
    });
    job.assert_fusion_keeps_bits("detached");
    // Computed by hand from the rows of the first batch, not from those that were traced.
    let mut session = job.start(How::fused(1));
    session.order.truncate(BATCH);
    let loss = session.epoch();
    drop(session);
    let rows = |table: &Array| {
        let turned: Vec<Tensor> = (SAMPLES - BATCH..SAMPLES)
            .rev()
            .map(|row| Tensor::constant(table.clone()).narrow(0, row, 1).unwrap())
            .collect();
        Tensor::cat(&turned, 0).unwrap()
    };
    let inputs: Vec<Tensor> = job.tables.iter().map(rows).collect();
    let parameters: Vec<Tensor> = job.parameters.iter().cloned().map(Tensor::constant).collect();
    assert_eq!(loss, (job.model)(&inputs, &parameters).unwrap().1.item().unwrap());
}

#[test]
fn a_detached_leaf_of_a_trace_keeps_its_gradient_to_itself() {
    // The penalty's gradient ends at the detached copy: the weights learn from the scores alone.
    let job = |detaches: bool| {
        square_layers(sgd(0.0, false, 0.0), move |x, w| {
            let h = x.linear(&w[0], None)?.relu()?;
            let copy = h.detach();
            copy.set_requires_grad(true)?;
            let scores = h.linear(&w[1], None)?.relu()?.linear(&w[2], None)?;
            let penalty = copy.square()?.mean(&[], false)?.mul(&Tensor::scalar(copy.dtype(), 1e3)?)?;
            Ok((scores, detaches.then_some(penalty)))
        })
    };
    assert_eq!(job(true).run(How::fused(1)).parameters, job(false).run(How::fused(1)).parameters);
    job(true).assert_fusion_keeps_bits("a detached leaf");
}

#[test]
fn a_permutation_that_changes_nothing_is_no_transpose() {
    let job = square_layers(sgd(0.0, false, 0.0), |x, w| {
        let same = |w: &Tensor| w.permute(&Dims::from_slice(&[0, 1]));
        let h = product(x, &same(&w[0])?, Form::InOut)?.relu()?;
        Ok((product(&h, &same(&w[1])?, Form::InOut)?.relu()?.linear(&w[2], None)?, None))
    });
    job.assert_fusion_keeps_bits("an identical permutation");
}

#[test]
fn frozen_weights_stay_and_the_others_learn() {
    for form in [Form::OutIn, Form::InOut] {
        let mut job = Mlp { form, ..Mlp::new(Unary::Relu) }.job(sgd(0.9, false, 0.0));
        // The last layer is frozen; gradients still pass through it.
        job.trained = 4;
        let session = job.start(How::fused(1));
        assert_eq!(session.stored(), [false; 4]);
        assert_eq!(session.count("matmul+sum+update"), 2);
        drop(session);
        job.assert_fusion_keeps_bits("frozen");
        let after = job.run(How::fused(2)).parameters;
        assert_eq!(after[4..], job.parameters[4..].iter().map(bits).collect::<Vec<_>>()[..]);
    }
}
