//! Optimizer updates, in place on the values of lists of tensors.

use ferrograd_core::anomaly;
use ferrograd_core::buffer::Array;
use ferrograd_core::dtype::DType;
use ferrograd_core::error::Error;
use ferrograd_core::shape::Dims;
use ferrograd_core::tensor::{Tensor, with_grad_mode};
use ferrograd_core::train::{Rule, flat, write_flat};
use ferrograd_core::{lbfgs, plan};
use ferrograd_kernels::update::{self, Update as _};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::{Failure, Kind, Result, enter, enter_detached, raise};
use crate::tensor::PyTensor;

fn tensors(objects: &Bound<'_, PyAny>) -> Result<Vec<Tensor>> {
    objects.try_iter()?.map(|object| Ok(object?.cast::<PyTensor>()?.get().live()?.clone())).collect()
}

/// The operands of one parameter's update: itself, its gradient, its states.
struct Update {
    parameter: Tensor,
    grad: Tensor,
    states: Vec<Tensor>,
}

/// Checks everything before anything is changed.
fn updates(op: &'static str, lists: &[Vec<Tensor>]) -> Result<Vec<Update>> {
    let [parameters, grads, states @ ..] = lists else { unreachable!("parameters and gradients") };
    if let Some(odd) = lists.iter().find(|list| list.len() != parameters.len()) {
        let text = format!("{op}: expected {} tensors in each list, got {}", parameters.len(), odd.len());
        return Err(raise(Kind::Config, text).into());
    }
    (0..parameters.len())
        .map(|i| {
            let parameter = parameters[i].clone();
            with_grad_mode(false, || parameter.check_in_place(op))?;
            let all = lists[1..].iter().map(|list| &list[i]);
            for other in all {
                if other.shape() != parameter.shape() {
                    let expected = format!("shape {} beside parameter {i}", parameter.shape());
                    return Err(Error::Shape { op, expected, got: format!("shape {}", other.shape()) }.into());
                }
                if other.dtype() != parameter.dtype() || !parameter.dtype().is_float() {
                    return Err(
                        Error::DType { op, expected: parameter.dtype().name(), got: other.dtype() }.into()
                    );
                }
            }
            // The kernels want dense operands of their own: a view or a shared storage is copied.
            let own = |tensor: &Tensor| -> Result<Tensor> {
                let is_own =
                    tensor.array().is_contiguous() && !tensor.array().shares_storage(parameter.array());
                Ok(if is_own { tensor.detach() } else { tensor.detach().copied()? })
            };
            let states: Vec<Tensor> = states.iter().map(|list| list[i].clone()).collect();
            for (k, state) in states.iter().enumerate() {
                let is_shared = state.array().shares_storage(parameter.array())
                    || states[..k].iter().any(|other| other.array().shares_storage(state.array()));
                if is_shared || !state.array().is_contiguous() {
                    let text = format!(
                        "{op}: expected contiguous states with memory of their own beside parameter {i}"
                    );
                    return Err(raise(Kind::Config, text).into());
                }
            }
            Ok(Update { grad: own(&grads[i])?, states, parameter })
        })
        .collect()
}

/// Runs `step` on a dense parameter; a strided one is copied, updated and written back.
fn with_dense(
    parameter: &Tensor,
    step: impl FnOnce(&Tensor) -> ferrograd_core::error::Result<()>,
) -> ferrograd_core::error::Result<()> {
    if parameter.array().is_contiguous() {
        step(parameter)?;
        parameter.array().storage().bump_version();
        return Ok(());
    }
    let dense = parameter.detach().copied()?;
    step(&dense)?;
    with_grad_mode(false, || parameter.copy_(&dense))
}

fn option<'py, T: for<'a> FromPyObject<'a, 'py>>(options: &Bound<'py, PyDict>, name: &str) -> Result<T> {
    let value = options.get_item(name)?;
    let value = value.ok_or_else(|| raise(Kind::Internal, format!("rule without {name:?}")))?;
    value.extract().map_err(|error: <T as FromPyObject<'_, 'py>>::Error| Failure::Python(error.into()))
}

/// A dict's form of a rule: "kind" and the fields of the kernel's struct.
pub fn rule(options: &Bound<'_, PyDict>) -> Result<Rule> {
    macro_rules! read {
        ($name:ident { $($field:ident),* }) => {
            Rule::$name(update::$name { $($field: option(options, stringify!($field))?),* })
        };
    }
    let kind: String = option(options, "kind")?;
    Ok(match kind.as_str() {
        "sgd" => read!(Sgd { lr, momentum, dampening, weight_decay, nesterov, first_step, velocity }),
        "adam" => read!(Adam { lr, beta1, beta2, eps, weight_decay, decoupled, eps_hat, step }),
        "nadam" => {
            read!(NAdam { lr, beta1, beta2, eps, weight_decay, momentum_decay, decoupled, step, mu_product })
        }
        "radam" => read!(RAdam { lr, beta1, beta2, eps, weight_decay, decoupled, step }),
        "adamax" => read!(Adamax { lr, beta1, beta2, eps, weight_decay, step }),
        "adagrad" => read!(Adagrad { lr, lr_decay, weight_decay, eps, step }),
        "adadelta" => read!(Adadelta { lr, rho, eps, weight_decay }),
        "rmsprop" => read!(RmsProp { lr, alpha, eps, weight_decay, momentum, centered }),
        "rprop" => read!(Rprop { lr, eta_minus, eta_plus, smallest, largest }),
        "lion" => read!(Lion { lr, beta1, beta2, weight_decay }),
        "muon" => {
            read!(Muon { lr, ratio, weight_decay, momentum, nesterov, coefficients, eps, ns_steps, shape })
        }
        "asgd" => read!(Asgd { lr, lambd, alpha, t0, weight_decay, step, eta_and_mu }),
        other => {
            let text = format!("rule: expected an optimizer's name, got {other:?}");
            return Err(raise(Kind::Config, text).into());
        }
    })
}

/// Makes one step of an optimizer on the parameters; `states` holds a list of tensors for each buffer that the
/// optimizer keeps. Returns the scalars that its next step takes over.
#[pyfunction]
pub fn optimizer_update(
    rule: &Bound<'_, PyDict>,
    parameters: &Bound<'_, PyAny>,
    grads: &Bound<'_, PyAny>,
    states: &Bound<'_, PyAny>,
) -> Result<Vec<f64>> {
    enter(|| {
        let py = rule.py();
        let mut rule = self::rule(rule)?;
        let mut lists = vec![tensors(parameters)?, tensors(grads)?];
        for buffers in states.try_iter()? {
            lists.push(tensors(&buffers?)?);
        }
        let given = lists.len() - 2;
        if !rule.states().contains(&given) {
            let text = format!("optimizer_update: expected {:?} lists of states, got {given}", rule.states());
            return Err(raise(Kind::Config, text).into());
        }
        let updates = updates("optimizer_update", &lists)?;
        enter_detached(py, || {
            updates.iter().try_for_each(|u| {
                let states: Vec<Array> = u.states.iter().map(|state| state.array().clone()).collect();
                with_dense(&u.parameter, |parameter| {
                    plan::update(&rule, parameter.array(), u.grad.array(), &states)
                })
            })
        })?;
        rule.advance();
        Ok(rule.carried().to_vec())
    })
}

fn floats(memory: &Bound<'_, PyDict>, name: &str) -> Result<Vec<f64>> {
    let value: Bound<'_, PyTensor> = option(memory, name)?;
    Ok(flat(&[value.get().live()?.detach().copied()?.array().clone()])?)
}

/// A dict's form of what L-BFGS may do.
pub fn lbfgs_options(options: &Bound<'_, PyDict>) -> Result<lbfgs::Options> {
    Ok(lbfgs::Options {
        lr: option(options, "lr")?,
        max_iter: option(options, "max_iter")?,
        max_eval: option(options, "max_eval")?,
        tolerance_grad: option(options, "tolerance_grad")?,
        tolerance_change: option(options, "tolerance_change")?,
        history_size: option(options, "history_size")?,
        strong_wolfe: option(options, "strong_wolfe")?,
        loss_eps: option(options, "loss_eps")?,
    })
}

/// A dict's form of what L-BFGS remembers: empty before the first step, else tensors and numbers.
pub fn lbfgs_memory(memory: &Bound<'_, PyDict>) -> Result<lbfgs::Memory> {
    if memory.is_empty() {
        return Ok(lbfgs::Memory::default());
    }
    let (direction, gradient) = (floats(memory, "d")?, floats(memory, "prev_flat_grad")?);
    let (ys, ss, ros) = (floats(memory, "old_dirs")?, floats(memory, "old_stps")?, floats(memory, "ro")?);
    let n = direction.len();
    if gradient.len() != n || ys.len() != n * ros.len() || ss.len() != ys.len() {
        return Err(raise(Kind::Shape, "lbfgs: expected a memory of one number of parameters").into());
    }
    let part = |values: &[f64], i: usize| values[i * n..(i + 1) * n].to_vec();
    let history =
        (0..ros.len()).map(|i| lbfgs::Difference { y: part(&ys, i), s: part(&ss, i), ro: ros[i] }).collect();
    Ok(lbfgs::Memory {
        direction,
        gradient,
        history,
        t: option(memory, "t")?,
        scale: option(memory, "H_diag")?,
        iterations: option(memory, "n_iter")?,
        evaluations: option(memory, "func_evals")?,
    })
}

/// Writes the form that `lbfgs_memory` reads.
pub fn lbfgs_remember(memory: &lbfgs::Memory, target: &Bound<'_, PyDict>) -> Result<()> {
    let py = target.py();
    let tensor = |values: &[f64], shape: &[usize]| -> Result<Py<PyTensor>> {
        let array = Array::zeros(DType::F64, Dims::new("lbfgs", shape)?)?;
        array.write::<f64>().copy_from_slice(values);
        Ok(Py::new(py, PyTensor::from(Tensor::leaf(array, false)))?)
    };
    let (n, k) = (memory.direction.len(), memory.history.len());
    let all = |of: fn(&lbfgs::Difference) -> &[f64]| -> Vec<f64> {
        memory.history.iter().flat_map(of).copied().collect()
    };
    target.set_item("d", tensor(&memory.direction, &[n])?)?;
    target.set_item("prev_flat_grad", tensor(&memory.gradient, &[memory.gradient.len()])?)?;
    target.set_item("old_dirs", tensor(&all(|d| &d.y), &[k, n])?)?;
    target.set_item("old_stps", tensor(&all(|d| &d.s), &[k, n])?)?;
    target.set_item("ro", tensor(&all(|d| std::slice::from_ref(&d.ro)), &[k])?)?;
    target.set_item("t", memory.t)?;
    target.set_item("H_diag", memory.scale)?;
    target.set_item("n_iter", memory.iterations)?;
    target.set_item("func_evals", memory.evaluations)?;
    Ok(())
}

/// Makes one step of L-BFGS on the parameters and updates its memory. `evaluate()` computes the loss at the
/// parameters as they are and returns it with their gradients, None for zeros. Returns the loss before the step.
#[pyfunction]
pub fn lbfgs_step(
    options: &Bound<'_, PyDict>,
    memory: &Bound<'_, PyDict>,
    parameters: &Bound<'_, PyAny>,
    evaluate: &Bound<'_, PyAny>,
) -> Result<f64> {
    enter(|| {
        let (limits, mut state) = (lbfgs_options(options)?, lbfgs_memory(memory)?);
        let parameters = tensors(parameters)?;
        let dense: Vec<Tensor> =
            parameters.iter().map(|p| Ok(p.detach().copied()?)).collect::<Result<_>>()?;
        let arrays: Vec<Array> = dense.iter().map(|p| p.array().clone()).collect();
        let mut x = flat(&arrays)?;
        if !state.direction.is_empty() && state.direction.len() != x.len() {
            let text = format!("lbfgs: expected {} parameters, got {}", state.direction.len(), x.len());
            return Err(raise(Kind::Shape, text).into());
        }
        let move_to = |x: &[f64]| -> Result<()> {
            write_flat(x, &arrays)?;
            let write = || parameters.iter().zip(&dense).try_for_each(|(p, d)| p.copy_(d));
            // The update is looked at when it is made.
            anomaly::unwatched(|| with_grad_mode(false, write))?;
            Ok(())
        };
        let mut at: Vec<f64> = x.clone();
        let made = lbfgs::step(&limits, &mut state, &mut x, &mut |x, gradient| -> Result<f64> {
            // A parameter that is where it was is not written to.
            if at != x {
                move_to(x)?;
                at.copy_from_slice(x);
            }
            let (loss, grads): (f64, Vec<Option<Bound<'_, PyTensor>>>) = evaluate.call0()?.extract()?;
            let mut rest = gradient;
            for (array, grad) in arrays.iter().zip(&grads) {
                let (own, others) = rest.split_at_mut(array.shape().elements());
                rest = others;
                match grad {
                    None => own.fill(0.0),
                    Some(grad) => {
                        let grad = grad.get().live()?.detach();
                        let dense = anomaly::unwatched(|| grad.copied())?;
                        own.copy_from_slice(&flat(&[dense.array().clone()])?);
                    }
                }
            }
            Ok(loss)
        });
        // Where it has got to; where it began after an error.
        if at != x {
            move_to(&x)?;
        }
        let loss = made?;
        lbfgs_remember(&state, memory)?;
        Ok(loss)
    })
}
