//! Plans against eager execution, fused against unfused, threads and instruction sets against each other.

mod common;

use common::*;
use ferrograd_core::backward::grad;
use ferrograd_core::dtype::DType;
use ferrograd_core::error::Result;
use ferrograd_core::op::Unary;
use ferrograd_core::plan::{Batch, Plan, Program, Tracing};
use ferrograd_core::tensor::Tensor;
use ferrograd_kernels::isa::Level;

struct Net {
    parameters: Vec<Tensor>,
    activation: Unary,
}

fn leaf(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::leaf(normal(seed, DType::F32, shape, 0.5), true)
}

impl Net {
    fn new(widths: &[usize], activation: Unary) -> Net {
        let mut parameters = Vec::new();
        for (i, pair) in widths.windows(2).enumerate() {
            parameters.push(leaf(10 + i as u64, &[pair[1], pair[0]]));
            parameters.push(leaf(20 + i as u64, &[pair[1]]));
        }
        Net { parameters, activation }
    }

    fn loss(&self, x: &Tensor, y: &Tensor, parameters: &[Tensor]) -> Result<(Tensor, Tensor)> {
        let mut h = x.clone();
        let layers = parameters.len() / 2;
        for (i, layer) in parameters.chunks(2).enumerate() {
            h = h.linear(&layer[0], Some(&layer[1]))?;
            if i + 1 < layers {
                h = h.unary(self.activation)?;
            }
        }
        let loss = h.loss(CROSS_ENTROPY, y, None)?.mean(&[], false)?;
        Ok((h, loss))
    }
}

#[test]
fn a_plan_has_the_bits_of_eager_execution_fused_or_not() {
    for activation in [Unary::Relu, Unary::Tanh, Unary::Sigmoid, Unary::Elu(1.0), Unary::LeakyRelu(0.01)] {
        let net = Net::new(&[7, 19, 11, 4], activation);
        let x = Tensor::constant(normal(1, DType::F32, &[13, 7], 0.5));
        let y = Tensor::constant(labels(13, 4));
        let (_, loss) = net.loss(&x, &y, &net.parameters).unwrap();
        let gradients = grad(std::slice::from_ref(&loss), &net.parameters, &[], true, false).unwrap();
        for fused in [false, true] {
            let tracing = Tracing::start();
            let (_, traced) = net.loss(&x, &y, &net.parameters).unwrap();
            let mut outputs = vec![traced.clone()];
            outputs.extend(grad(&[traced], &net.parameters, &[], true, true).unwrap().into_iter().flatten());
            let program = Program::trace(&tracing, &outputs, &[x.clone(), y.clone()]).unwrap();
            drop(tracing);
            let mut plan = Plan::compile(program, fused).unwrap();
            let names = plan.instruction_names();
            let expected = format!(
                "matmul+bias+{}",
                match activation {
                    Unary::Relu => "relu",
                    Unary::Tanh => "tanh",
                    Unary::Sigmoid => "sigmoid",
                    Unary::Elu(_) => "elu",
                    _ => "leaky_relu",
                }
            );
            assert_eq!(
                names.iter().filter(|n| **n == expected).count(),
                if fused { 2 } else { 0 },
                "{names:?}"
            );
            assert_eq!(
                names.iter().filter(|n| *n == "cross_entropy+grad").count(),
                usize::from(fused),
                "{names:?}"
            );
            let (x, y) = (Table::new(x.array().clone()), Table::new(y.array().clone()));
            let rows: Vec<u32> = (0..13).collect();
            plan.load().unwrap();
            plan.run(Batch { rows: &rows, tables: &[&x, &y] }, 0, &mut || Ok(())).unwrap();
            assert_eq!(bits(&plan.outputs()[0]), bits(loss.array()));
            for (planned, eager) in plan.outputs()[1..].iter().zip(&gradients) {
                assert_eq!(bits(planned), bits(eager.as_ref().unwrap().array()), "{activation:?}");
            }
        }
    }
}

#[test]
fn training_has_the_same_bits_for_any_threads_instruction_set_and_fusion() {
    for (optimizer, clip_grad_norm) in [(sgd(0.9, true, 0.0), None), (adam(true, false, 0.01), Some(1.0))] {
        let net = Net::new(&[20, 150, 70, 5], Unary::Relu);
        let job = Job {
            tables: vec![normal(1, DType::F32, &[100, 20], 0.5), labels(100, 5)],
            parameters: net.parameters.iter().map(|p| p.array().clone()).collect(),
            trained: 6,
            optimizer,
            clip_grad_norm,
            batch: 64,
            epochs: 5,
            model: Box::new(move |inputs, parameters| net.loss(&inputs[0], &inputs[1], parameters)),
        };
        let want = job.run(How::fused(1));
        let losses: Vec<f64> = want.losses.iter().copied().map(f64::from_bits).collect();
        assert!(losses[4] < losses[0], "the loss falls: {losses:?}");
        for threads in [2, 3, 7] {
            assert!(job.run(How::fused(threads)) == want, "{threads} threads");
        }
        for level in Level::supported() {
            assert!(job.run(How { level, ..How::fused(2) }) == want, "{level}");
        }
        assert!(job.run(How::unfused(2)) == want, "not fused");
    }
}
