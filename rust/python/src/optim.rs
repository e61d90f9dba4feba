//! Optimizer updates, in place on the values of lists of tensors.

use ferrograd_core::error::Error;
use ferrograd_core::for_float;
use ferrograd_core::tensor::{Tensor, with_grad_mode};
use ferrograd_kernels::update::{self, Adam, Sgd};
use pyo3::prelude::*;

use crate::error::{Kind, Result, enter, enter_detached, raise};
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

/// One step of SGD: buffer = momentum buffer + (1 - dampening) g, parameter -= lr buffer, with
/// g = grad + weight_decay parameter. In the first step the buffer is set to g.
#[pyfunction]
#[pyo3(signature = (parameters, grads, momentum_buffers, *, lr, momentum, dampening, weight_decay, nesterov, first_step))]
pub fn sgd_update(
    py: Python<'_>,
    parameters: &Bound<'_, PyAny>,
    grads: &Bound<'_, PyAny>,
    momentum_buffers: Option<&Bound<'_, PyAny>>,
    lr: f64,
    momentum: f64,
    dampening: f64,
    weight_decay: f64,
    nesterov: bool,
    first_step: bool,
) -> Result<()> {
    enter(|| {
        let mut lists = vec![tensors(parameters)?, tensors(grads)?];
        match momentum_buffers {
            Some(buffers) => lists.push(tensors(buffers)?),
            None if momentum != 0.0 => {
                return Err(raise(Kind::Config, "sgd: momentum needs momentum_buffers, got None").into());
            }
            None => {}
        }
        let updates = updates("sgd", &lists)?;
        let h = Sgd { lr, momentum, dampening, weight_decay, nesterov, first_step };
        enter_detached(py, || {
            updates.iter().try_for_each(|u| {
                with_dense(&u.parameter, |parameter| {
                    for_float!("sgd", parameter.dtype(), T => {
                        let mut buffer = u.states.first().map(|state| state.array().write::<T>());
                        let (mut weight, grad) = (parameter.array().write::<T>(), u.grad.array().read::<T>());
                        update::sgd::<T>(&h, &mut weight, &grad, buffer.as_deref_mut());
                        Ok(())
                    })
                })
            })
        })
    })
}

/// One step of Adam (AdamW where `decoupled`): m and v are decaying means of g and g^2,
/// parameter -= lr m' / (sqrt(v') + eps) with both corrected for their start at 0; with
/// `max_exp_avg_sqs` the largest v so far takes the place of v (AMSGrad). `step` counts from 1.
#[pyfunction]
#[pyo3(signature = (parameters, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, *, lr, beta1, beta2, eps, weight_decay, decoupled, step))]
pub fn adam_update(
    py: Python<'_>,
    parameters: &Bound<'_, PyAny>,
    grads: &Bound<'_, PyAny>,
    exp_avgs: &Bound<'_, PyAny>,
    exp_avg_sqs: &Bound<'_, PyAny>,
    max_exp_avg_sqs: Option<&Bound<'_, PyAny>>,
    lr: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    decoupled: bool,
    step: u64,
) -> Result<()> {
    enter(|| {
        let mut lists =
            vec![tensors(parameters)?, tensors(grads)?, tensors(exp_avgs)?, tensors(exp_avg_sqs)?];
        if let Some(largest) = max_exp_avg_sqs {
            lists.push(tensors(largest)?);
        }
        if step == 0 {
            return Err(raise(Kind::Config, "step: expected at least 1, got 0").into());
        }
        let updates = updates("adam", &lists)?;
        let h = Adam { lr, beta1, beta2, eps, weight_decay, decoupled, step };
        enter_detached(py, || {
            updates.iter().try_for_each(|u| {
                with_dense(&u.parameter, |parameter| {
                    for_float!("adam", parameter.dtype(), T => {
                        let mut largest = u.states.get(2).map(|state| state.array().write::<T>());
                        let (mut m, mut v) = (u.states[0].array().write::<T>(), u.states[1].array().write::<T>());
                        let (mut weight, grad) = (parameter.array().write::<T>(), u.grad.array().read::<T>());
                        update::adam::<T>(&h, &mut weight, &grad, &mut m, &mut v, largest.as_deref_mut());
                        Ok(())
                    })
                })
            })
        })
    })
}
