//! A plan keeps weights packed between its steps: the user's arrays show every update after a run, and what the user
//! writes to them counts in the next one.

mod common;

use common::*;
use ferrograd_core::dtype::DType;
use ferrograd_core::error::Result;
use ferrograd_core::tensor::{Tensor, with_grad_mode};

const SAMPLES: usize = 40;

fn model(inputs: &[Tensor], parameters: &[Tensor]) -> Result<(Tensor, Tensor)> {
    let h = inputs[0].linear(&parameters[0], Some(&parameters[1]))?.relu()?;
    let scores = h.matmul(&parameters[2])?.add(&parameters[3])?;
    let loss = scores.loss(CROSS_ENTROPY, &inputs[1], None)?.mean(&[], false)?;
    Ok((scores, loss))
}

/// 7-33-5, with whole batches and a short one where `batch` asks for them.
fn job(optimizer: Optimizer, batch: usize) -> Job<'static> {
    let shapes: [&[usize]; 4] = [&[33, 7], &[33], &[33, 5], &[5]];
    let parameters = (10..).zip(shapes).map(|(seed, shape)| normal(seed, DType::F32, shape, 0.4));
    Job {
        tables: vec![normal(1, DType::F32, &[SAMPLES, 7], 1.0), labels(SAMPLES, 5)],
        parameters: parameters.collect(),
        trained: 4,
        optimizer,
        clip_grad_norm: None,
        batch,
        epochs: 1,
        model: Box::new(model),
    }
}

/// The loss of all samples with the parameters as the user sees them.
fn eager_loss(session: &Session) -> f64 {
    let inputs: Vec<Tensor> = session
        .tables
        .iter()
        .map(|table| {
            let row = |row| Tensor::constant(table.0.clone()).narrow(0, row, 1).unwrap();
            Tensor::cat(&(0..SAMPLES).rev().map(row).collect::<Vec<_>>(), 0).unwrap()
        })
        .collect();
    model(&inputs, &session.parameters).unwrap().1.item().unwrap()
}

#[test]
fn the_users_parameters_are_those_of_the_next_step() {
    for optimizer in optimizers() {
        let mut session = job(optimizer, SAMPLES).start(How::fused(1));
        for epoch in 0..4 {
            if epoch == 2 {
                // In the middle, at an edge, and a whole parameter.
                session.parameters[0].array().write::<f32>()[100] = 1.5;
                session.parameters[2].array().write::<f32>()[33 * 5 - 1] = -2.0;
                session.parameters[3].array().write::<f32>().fill(0.25);
            }
            let want = eager_loss(&session);
            assert_eq!(session.epoch(), want, "{optimizer:?}, epoch {epoch}");
        }
    }
}

#[test]
fn parameters_and_states_are_read_and_written_as_without_packing() {
    for optimizer in optimizers() {
        for batch in [SAMPLES, 16] {
            let run = |how| {
                let mut session = job(optimizer, batch).start(how);
                let mut seen = Vec::new();
                for epoch in 0..4 {
                    session.epoch();
                    let states = session.states.iter().flatten();
                    seen.push(
                        session.parameters.iter().chain(states).map(|t| bits(t.array())).collect::<Vec<_>>(),
                    );
                    match epoch {
                        0 => session.parameters[0].array().write::<f32>()[7] = 0.5,
                        1 => {
                            let value = Tensor::scalar(DType::F32, 0.1).unwrap();
                            with_grad_mode(false, || session.parameters[2].copy_(&value)).unwrap();
                            for state in session.states.iter().flatten() {
                                state.array().write::<f32>()[3] = 0.01;
                            }
                        }
                        _ => {}
                    }
                }
                (seen, session.numbers())
            };
            let (want, got) = (run(How::unfused(1)), run(How::fused(1)));
            assert!(got == want, "{optimizer:?}, batches of {batch}");
            assert!(want.0.windows(2).all(|pair| pair[0] != pair[1]), "{optimizer:?}: every epoch shows");
        }
    }
}
