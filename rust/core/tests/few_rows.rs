//! Steps of at most four rows: a weight's update computes the gradient of its layer's input in the same pass. That it
//! does, that it keeps the bits of the ops, and that it does not where something else needs the weight or the gradient.

mod common;

use common::*;
use ferrograd_core::backward;
use ferrograd_core::buffer::Array;
use ferrograd_core::dtype::DType;
use ferrograd_core::error::Result;
use ferrograd_core::op::{Curve, Unary};
use ferrograd_core::tensor::Tensor;
use ferrograd_kernels::isa::Level;

const CLASSES: usize = 4;

/// Layers of these widths, a weight (outputs, inputs) and a bias each.
fn parameters(dtype: DType, widths: &[usize]) -> Vec<Array> {
    let layer = |(seed, w): (u64, &[usize])| {
        let weight = normal(seed, dtype, &[w[1], w[0]], 1.0 / (w[0] as f64).sqrt());
        [weight, normal(seed + 50, dtype, &[w[1]], 0.4)]
    };
    (10..).zip(widths.windows(2)).flat_map(layer).collect()
}

fn layers(x: &Tensor, parameters: &[Tensor], activation: Unary) -> Result<Tensor> {
    let last = parameters.len() / 2 - 1;
    let mut h = x.clone();
    for (i, layer) in parameters.chunks(2).enumerate() {
        h = h.linear(&layer[0], Some(&layer[1]))?;
        if i < last {
            h = h.unary(activation)?;
        }
    }
    Ok(h)
}

fn cross_entropy(scores: &Tensor, labels: &Tensor) -> Result<Tensor> {
    scores.loss(CROSS_ENTROPY, labels, None)?.mean(&[], false)
}

/// Two batches and a short one, where that is not whole.
fn job<'a>(
    (dtype, batch): (DType, usize),
    widths: &[usize],
    optimizer: Optimizer,
    model: impl Fn(&[Tensor], &[Tensor]) -> Result<(Tensor, Tensor)> + 'a,
) -> Job<'a> {
    let samples = 2 * batch + batch / 2;
    let parameters = parameters(dtype, widths);
    Job {
        tables: vec![normal(1, dtype, &[samples, widths[0]], 1.0), labels(samples, CLASSES)],
        trained: parameters.len(),
        parameters,
        optimizer,
        clip_grad_norm: None,
        batch,
        epochs: 2,
        model: Box::new(model),
    }
}

fn mlp(
    dtype: DType,
    batch: usize,
    widths: &[usize],
    optimizer: Optimizer,
    activation: Unary,
) -> Job<'static> {
    job((dtype, batch), widths, optimizer, move |inputs, parameters| {
        let scores = layers(&inputs[0], parameters, activation)?;
        let loss = cross_entropy(&scores, &inputs[1])?;
        Ok((scores, loss))
    })
}

/// The passes that update a weight, and how many of them compute a data gradient.
fn passes(job: &Job) -> (usize, usize) {
    let session = job.start(How::fused(1));
    let names = session.step().instruction_names();
    let updates = names.iter().filter(|name| name.ends_with("matmul+sum+update"));
    let both = updates.clone().filter(|name| name.matches("matmul").count() == 2);
    (updates.count(), both.count())
}

#[test]
fn every_rule_updates_and_goes_back_in_one_pass() {
    for (i, optimizer) in optimizers().into_iter().enumerate() {
        let (batch, dtype) = (1 + i % 4, if i % 3 == 0 { DType::F64 } else { DType::F32 });
        let activation = [Unary::Relu, Unary::Tanh, Unary::Sigmoid][i % 3];
        let job = mlp(dtype, batch, &[7, 19, 133, CLASSES], optimizer, activation);
        assert_eq!(passes(&job), (3, 2), "{optimizer:?}");
        assert!(job.start(How::fused(1)).stored().iter().all(|is_stored| !is_stored));
        job.assert_fusion_keeps_bits(&format!("{optimizer:?}, {batch} rows"));
    }
}

#[test]
fn threads_and_instruction_sets_keep_the_bits() {
    for (batch, widths, dtype, optimizer) in [
        (1, [600, 500, 300, CLASSES], DType::F32, sgd(0.0, false, 0.0)),
        (2, [257, 300, 129, CLASSES], DType::F64, sgd(0.9, true, 0.01)),
        (3, [2, 700, 97, CLASSES], DType::F32, adam(false, true, 0.01)),
        (4, [97, 193, 700, CLASSES], DType::F32, adam(true, false, 0.01)),
    ] {
        let job = mlp(dtype, batch, &widths, optimizer, Unary::LeakyRelu(0.01));
        let want = job.run(How::unfused(1));
        for threads in [1, 2, 3, 7] {
            for level in Level::supported() {
                let how = How { threads, level, fused: true };
                assert!(job.run(how) == want, "{batch} rows of {widths:?}: other bits with {how:?}");
            }
        }
    }
}

#[test]
fn what_lies_between_two_layers_goes_back_too() {
    // A derivative that needs the operand, and a layer that is not trained, last among the parameters.
    let gelu = Unary::Curve(Curve::Gelu);
    let job = mlp(DType::F32, 3, &[7, 33, 40, CLASSES], sgd(0.9, false, 0.0), gelu);
    assert_eq!(passes(&job), (3, 2));
    job.assert_fusion_keeps_bits("gelu");

    let mut job = self::job((DType::F32, 2), &[7, 33, CLASSES], adam(false, false, 0.0), |inputs, p| {
        let h = inputs[0].linear(&p[0], Some(&p[1]))?.relu()?.matmul(&p[4])?.unary(Unary::Tanh)?;
        let scores = h.linear(&p[2], Some(&p[3]))?;
        let loss = cross_entropy(&scores, &inputs[1])?;
        Ok((scores, loss))
    });
    job.parameters.push(normal(3, DType::F32, &[33, 33], 0.2));
    assert_eq!(passes(&job), (2, 1));
    job.assert_fusion_keeps_bits("frozen");
}

#[test]
fn it_stays_away_where_it_would_be_wrong() {
    let widths = [7, 33, 33, CLASSES];
    let rule = sgd(0.9, false, 0.0);
    let job = mlp(DType::F32, 5, &widths, rule, Unary::Relu);
    assert_eq!(passes(&job), (3, 0), "more rows");

    let mut job = mlp(DType::F32, 2, &widths, rule, Unary::Relu);
    job.clip_grad_norm = Some(0.1);
    assert_eq!(passes(&job), (0, 0), "clipped");
    assert!(job.start(How::fused(1)).stored().iter().all(|is_stored| *is_stored));
    job.assert_fusion_keeps_bits("clipped");

    // The loss looks at the gradient of the first layer's result, which both layers above it are needed for.
    let job = self::job((DType::F32, 2), &widths, rule, |inputs, p| {
        let h = inputs[0].linear(&p[0], Some(&p[1]))?.unary(Unary::Tanh)?;
        let scores = layers(&h, &p[2..], Unary::Tanh)?;
        let loss = cross_entropy(&scores, &inputs[1])?;
        let slope =
            backward::grad(std::slice::from_ref(&loss), &[h], &[], true, true)?.remove(0).expect("a slope");
        let loss = loss.add(&slope.square()?.sum(&[], false)?)?;
        Ok((scores, loss))
    });
    assert_eq!(passes(&job).1, 0, "inspected");
    job.assert_fusion_keeps_bits("inspected");

    // The second weight is used twice. The layer above it goes back through both uses.
    let job = self::job((DType::F32, 2), &widths, rule, |inputs, p| {
        let h = inputs[0].linear(&p[0], Some(&p[1]))?.relu()?;
        let h = h.linear(&p[2], Some(&p[3]))?.relu()?.matmul(&p[2])?.relu()?;
        let scores = h.linear(&p[4], Some(&p[5]))?;
        let loss = cross_entropy(&scores, &inputs[1])?;
        Ok((scores, loss))
    });
    assert_eq!(passes(&job).1, 0, "shared");
    job.assert_fusion_keeps_bits("shared");
}

#[test]
fn gradients_of_repeated_columns_and_empty_weights_keep_the_bits() {
    // The gradient of a sum along the rows has one column, shown many times.
    let rule = adam(false, false, 0.0);
    for batch in [2, 3] {
        let job = self::job((DType::F32, batch), &[7, 33, CLASSES], rule, |inputs, p| {
            let scores = layers(&inputs[0], p, Unary::Tanh)?;
            let loss = scores.sum(&[1], false)?.square()?.mean(&[], false)?;
            Ok((scores, loss))
        });
        assert_eq!(passes(&job), (2, 1), "{batch} rows");
        job.assert_fusion_keeps_bits("repeated columns");
    }
    // A weight without rows: its bias is trained all the same.
    for batch in [2, 9] {
        let job = Job {
            parameters: vec![
                normal(1, DType::F32, &[0, CLASSES], 1.0),
                normal(2, DType::F32, &[CLASSES], 0.4),
            ],
            trained: 2,
            ..self::job((DType::F32, batch), &[3, CLASSES], rule, |inputs, p| {
                let scores = inputs[0].narrow(1, 0, 0)?.matmul(&p[0])?.add(&p[1])?;
                let loss = cross_entropy(&scores, &inputs[1])?;
                Ok((scores, loss))
            })
        };
        job.assert_fusion_keeps_bits("no rows");
    }
}
