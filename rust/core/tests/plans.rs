//! Plans against eager execution, fused against unfused, threads and instruction sets against each other.

use ferrograd_core::backward::grad;
use ferrograd_core::buffer::Array;
use ferrograd_core::dtype::DType;
use ferrograd_core::error::Result;
use ferrograd_core::op::{Generator, Loss, Unary};
use ferrograd_core::plan::{Batch, Plan, Program, Tracing};
use ferrograd_core::shape::Dims;
use ferrograd_core::tensor::Tensor;
use ferrograd_core::train::{Engine, Parameter, Rows, Rule, Step, StepSpec};
use ferrograd_kernels::isa::{self, Level};
use ferrograd_kernels::{pool, update};

fn dims(d: &[usize]) -> Dims {
    Dims::from_slice(d)
}

fn normal(seed: u64, shape: &[usize], requires_grad: bool) -> Tensor {
    Tensor::leaf(Generator::new(seed).normal(DType::F32, dims(shape), 0.0, 0.5).unwrap(), requires_grad)
}

fn labels(n: usize, classes: i64) -> Array {
    Generator::new(5).integers(dims(&[n]), 0, classes).unwrap()
}

const LOSS: Loss = Loss::CrossEntropy { label_smoothing: 0.0, ignore_index: -100, weighted: false };

struct Net {
    parameters: Vec<Tensor>,
    activation: Unary,
}

impl Net {
    fn new(widths: &[usize], activation: Unary) -> Net {
        let mut parameters = Vec::new();
        for (i, pair) in widths.windows(2).enumerate() {
            parameters.push(normal(10 + i as u64, &[pair[1], pair[0]], true));
            parameters.push(normal(20 + i as u64, &[pair[1]], true));
        }
        Net { parameters, activation }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut h = x.clone();
        let layers = self.parameters.len() / 2;
        for (i, layer) in self.parameters.chunks(2).enumerate() {
            h = h.linear(&layer[0], Some(&layer[1]))?;
            if i + 1 < layers {
                h = h.unary(self.activation)?;
            }
        }
        Ok(h)
    }

    fn loss(&self, x: &Tensor, y: &Tensor) -> Result<(Tensor, Tensor)> {
        let scores = self.forward(x)?;
        let loss = scores.loss(LOSS, y, None)?.mean(&[], false)?;
        Ok((scores, loss))
    }
}

fn bits(t: &Array) -> Vec<u32> {
    Tensor::constant(t.clone()).to_vec::<f32>().into_iter().map(f32::to_bits).collect()
}

#[test]
fn a_plan_has_the_bits_of_eager_execution_fused_or_not() {
    for activation in [Unary::Relu, Unary::Tanh, Unary::Sigmoid, Unary::Elu(1.0), Unary::LeakyRelu(0.01)] {
        let net = Net::new(&[7, 19, 11, 4], activation);
        let (x, y) = (normal(1, &[13, 7], false), Tensor::constant(labels(13, 4)));
        let (_, loss) = net.loss(&x, &y).unwrap();
        let gradients = grad(std::slice::from_ref(&loss), &net.parameters, &[], true, false).unwrap();
        for fused in [false, true] {
            let tracing = Tracing::start();
            let (_, traced) = net.loss(&x, &y).unwrap();
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
            let (x, y) = (Table(x.array().clone()), Table(y.array().clone()));
            let rows: Vec<u32> = (0..13).collect();
            plan.load().unwrap();
            plan.run(Batch { rows: &rows, tables: &[&x, &y] }, &mut || Ok(())).unwrap();
            assert_eq!(bits(&plan.outputs()[0]), bits(loss.array()));
            for (planned, eager) in plan.outputs()[1..].iter().zip(&gradients) {
                assert_eq!(bits(planned), bits(eager.as_ref().unwrap().array()), "{activation:?}");
            }
        }
    }
}

struct Table(Array);

impl Rows for Table {
    fn gather(&self, rows: &[u32], out: &Array) -> Result<()> {
        fn typed<T: ferrograd_core::dtype::Element>(table: &Array, rows: &[u32], out: &Array) {
            let width: usize = table.shape()[1..].iter().product();
            let (source, mut target) = (table.read::<T>(), out.write::<T>());
            for (i, &row) in rows.iter().enumerate() {
                let row = &source[row as usize * width..][..width];
                target[i * out.row_stride()..][..width].copy_from_slice(row);
            }
        }
        if self.0.dtype() == DType::I64 {
            typed::<i64>(&self.0, rows, out)
        } else {
            typed::<f32>(&self.0, rows, out)
        }
        Ok(())
    }
}

/// Trains and returns the parameters' bits and the losses of the epochs.
fn train(threads: usize, level: Level, adam: bool, fused: bool) -> (Vec<Vec<u32>>, Vec<u64>) {
    pool::set_num_threads(threads);
    isa::force(level).unwrap();
    let net = Net::new(&[20, 150, 70, 5], Unary::Relu);
    let (x, y) = (normal(1, &[100, 20], false), labels(100, 5));
    let state = |t: &Tensor| Tensor::constant(Array::zeros(DType::F32, *t.shape()).unwrap());
    let rule = if adam {
        Rule::Adam(update::Adam {
            lr: 1e-2,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
            decoupled: true,
            step: 1,
        })
    } else {
        Rule::Sgd(update::Sgd {
            lr: 0.1,
            momentum: 0.9,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: true,
            first_step: true,
        })
    };
    let mut engine = Engine::new(vec![rule], 3);
    let states: Vec<Vec<Tensor>> =
        net.parameters.iter().map(|p| (0..if adam { 2 } else { 1 }).map(|_| state(p)).collect()).collect();
    for batch in [64, 36] {
        let tracing = Tracing::start();
        let xb = x.narrow(0, 0, batch).unwrap().detach();
        let yb = Tensor::constant(
            Array::from_slice(DType::I64, dims(&[batch]), &y.read::<i64>()[..batch]).unwrap(),
        );
        let inputs = [xb, yb];
        let (scores, loss) = net.loss(&inputs[0], &inputs[1]).unwrap();
        let parameters = net.parameters.iter().zip(&states);
        let spec = StepSpec {
            inputs: &inputs,
            scores: &scores,
            loss: Some(&loss),
            parameters: parameters
                .map(|(p, s)| Parameter { tensor: p.clone(), rule: 0, state: s.clone() })
                .collect(),
            clip_grad_norm: adam.then_some(1.0),
            fused,
        };
        engine.add(Step::build(&tracing, spec).unwrap());
    }
    let (x, y) = (Table(x.array().clone()), Table(y));
    let order: Vec<u32> = (0..100).map(|i| (i * 37) % 100).collect();
    let mut losses = Vec::new();
    for _ in 0..5 {
        let epoch = engine.epoch(&order, 64, &[&x, &y], None, &mut || Ok(())).unwrap();
        losses.push((epoch.loss / epoch.weight).to_bits());
    }
    (net.parameters.iter().map(|p| bits(p.array())).collect(), losses)
}

#[test]
fn training_has_the_same_bits_for_any_threads_instruction_set_and_fusion() {
    for adam in [false, true] {
        let best = Level::supported().last().unwrap();
        let reference = train(1, best, adam, true);
        let first = f64::from_bits(reference.1[0]);
        let last = f64::from_bits(reference.1[4]);
        assert!(last < first, "the loss falls: {first} to {last}");
        for threads in [2, 3, 7] {
            assert_eq!(train(threads, best, adam, true), reference, "{threads} threads");
        }
        for level in Level::supported() {
            assert_eq!(train(2, level, adam, true), reference, "{level}");
        }
        assert_eq!(train(2, best, adam, false), reference, "not fused");
    }
}
