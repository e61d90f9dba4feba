//! A plan keeps weights packed between its steps: the user's arrays show every update after a run, and what the user
//! writes to them counts in the next one. Plans for batches of different sizes keep them in the same place.

mod common;

use common::*;
use ferrograd_core::buffer::Array;
use ferrograd_core::dtype::DType;
use ferrograd_core::error::{Error, Result};
use ferrograd_core::tensor::{Tensor, with_grad_mode};
use ferrograd_core::train::{Engine, Rows};
use ferrograd_kernels::pool;

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

/// How often the matrices and their states, which are packed, have been written to by whom they belong to.
fn writes(session: &Session) -> Vec<u32> {
    let states =
        session.parameters.iter().zip(&session.states).flat_map(|(p, s)| std::iter::once(p).chain(s));
    let matrices = states.filter(|tensor| tensor.shape().rank() == 2);
    matrices.map(|tensor| tensor.array().storage().writes()).collect()
}

/// Parameters, then states.
fn values(session: &Session) -> Vec<Vec<u64>> {
    session.parameters.iter().chain(session.states.iter().flatten()).map(|t| bits(t.array())).collect()
}

/// Gives a session other steps.
fn compile_anew(job: &Job, session: &mut Session, sizes: &[usize], fused: bool) {
    session.engine = Engine::new(vec![job.optimizer.rule], 3);
    job.compile(&mut session.engine, &session.parameters, &session.states, sizes, fused);
}

#[test]
fn a_short_last_batch_copies_no_weights() {
    for optimizer in optimizers() {
        // The second is one of few rows, and so is its rest.
        for (threads, batch) in [(1, 16), (3, 16), (1, 3), (3, 3)] {
            let mut session = job(optimizer, batch).start(How::fused(threads));
            for epoch in 0..3 {
                let before = writes(&session);
                session.epoch();
                let made: Vec<u32> = before.iter().zip(writes(&session)).map(|(b, a)| a - b).collect();
                assert!(
                    made.len() >= 2 && made.iter().all(|&n| n == 1),
                    "{optimizer:?}, batches of {batch}, epoch {epoch}: {made:?}"
                );
            }
        }
    }
}

/// 540-520-530, whose weights take more than a megabyte, with a batch of 300 rows and one of 20: whether a product
/// with the transpose has a copy depends on the rows.
fn wide() -> Job<'static> {
    let shapes: [&[usize]; 4] = [&[520, 540], &[520], &[520, 530], &[530]];
    let parameters = (10..).zip(shapes).map(|(seed, shape)| normal(seed, DType::F32, shape, 0.04));
    Job {
        tables: vec![normal(1, DType::F32, &[320, 540], 1.0), labels(320, 530)],
        parameters: parameters.collect(),
        epochs: 2,
        batch: 300,
        ..job(adam(false, false, 0.0), 1)
    }
}

#[test]
fn plans_that_treat_the_transpose_in_different_ways_have_the_same_bits() {
    let wide = wide();
    let want = wide.run(How::unfused(2));
    for sizes in [[300, 20], [20, 300]] {
        let mut session = wide.start(How::fused(2));
        compile_anew(&wide, &mut session, &sizes, true);
        for epoch in 0..2 {
            let before = writes(&session);
            session.epoch();
            let made: Vec<u32> = before.iter().zip(writes(&session)).map(|(b, a)| a - b).collect();
            // The second weight is multiplied with as its transpose; compiled second, the larger batch wants a copy.
            let apart = if sizes[0] == 20 { [1, 1, 1, 2, 2, 2] } else { [1; 6] };
            assert_eq!(made, apart, "{sizes:?}, epoch {epoch}");
        }
        assert!(session.numbers() == want, "{sizes:?}");
    }
}

#[test]
fn batches_of_any_size_take_turns() {
    for optimizer in [sgd(0.9, true, 0.01), adam(false, true, 0.0)] {
        let run = |fused, threads| {
            let how = if fused { How::fused(threads) } else { How::unfused(threads) };
            let job = job(optimizer, 16);
            let mut session = job.start(how);
            let sizes = [5, 16, 8, 1, 12];
            compile_anew(&job, &mut session, &sizes, fused);
            let mut seen = Vec::new();
            for (rows, batch) in [(40, 16), (8, 8), (5, 5), (16, 16), (13, 12), (1, 1), (21, 16), (17, 16)] {
                let (order, engine) = (&session.order[..rows], &mut session.engine);
                let tables: Vec<&dyn Rows> = session.tables.iter().map(|table| table as &dyn Rows).collect();
                let epoch = engine.epoch(order, batch, &tables, None, &mut || Ok(())).unwrap();
                if rows == 16 {
                    // Two steps by another door.
                    engine.profile(order, &tables, 2).unwrap();
                    session.parameters[2].array().write::<f32>()[30] = 0.75;
                    session.states[0][0].array().write::<f32>()[5] = 0.01;
                }
                seen.push((epoch.loss.to_bits(), values(&session)));
            }
            seen
        };
        let want = run(false, 1);
        for threads in [1, 3] {
            assert!(run(true, threads) == want, "{optimizer:?}, {threads} threads");
        }
    }
}

/// Samples of which one cannot be read.
struct Broken<'a>(&'a Table, u32);

impl Rows for Broken<'_> {
    fn gather(&self, rows: &[u32], out: &Array) -> Result<()> {
        if rows.contains(&self.1) { Err(Error::Graph("broken".into())) } else { self.0.gather(rows, out) }
    }
}

#[test]
fn an_epoch_that_ends_early_leaves_the_weights_of_the_last_step() {
    // The order is the opposite one: row 39 is in the first batch, row 20 in the second, row 3 in the short one.
    for (row, steps) in [(39, 0), (20, 1), (3, 2)] {
        for diverges in [false, true] {
            let run = |how| {
                let mut session = job(adam(false, false, 0.0), 16).start(how);
                session.epoch();
                let before = values(&session);
                let place = row as usize * 7;
                let value = session.tables[0].0.read::<f32>()[place];
                let broken = Broken(&session.tables[0], if diverges { u32::MAX } else { row });
                if diverges {
                    session.tables[0].0.write::<f32>()[place] = f32::INFINITY;
                }
                let tables: [&dyn Rows; 2] = [&broken, &session.tables[1]];
                let epoch = session.engine.epoch(&session.order, 16, &tables, None, &mut || Ok(()));
                assert_eq!(epoch.ok().map(|epoch| epoch.diverged.unwrap().0), diverges.then_some(steps));
                session.tables[0].0.write::<f32>()[place] = value;
                let after = values(&session);
                assert_eq!(after != before, steps > 0);
                session.epoch();
                (after, session.numbers())
            };
            let want = run(How::unfused(1));
            for threads in [1, 3] {
                assert!(run(How::fused(threads)) == want, "row {row}, {diverges}, {threads} threads");
            }
        }
    }
}

#[test]
fn a_step_for_other_threads_goes_on_with_the_same_weights() {
    let run = |fused: bool| {
        let how = if fused { How::fused(1) } else { How::unfused(1) };
        let job = job(adam(true, true, 0.01), 16);
        let mut session = job.start(how);
        session.epoch();
        pool::set_num_threads(3);
        job.compile(&mut session.engine, &session.parameters, &session.states, &[16, 8], fused);
        session.epoch();
        session.numbers()
    };
    assert!(run(true) == run(false));
}
