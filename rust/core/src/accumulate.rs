//! Gradients of several batches added up, and the update with their mean: two plans that share the sums.

use crate::buffer::Array;
use crate::error::{Error, Result};
use crate::for_float;
use crate::plan::{Batch, Kept, Plan, Program, Tracing};
use crate::tensor::{Tensor, with_grad_mode};
use crate::train::{Parameter, Rule, clip};

/// Sums of gradients, to which steps add, and the plan that updates parameters with the means.
pub struct Accumulation {
    /// Batches of an update.
    every: usize,
    clip_grad_norm: Option<f64>,
    /// By parameter.
    sums: Vec<Tensor>,
    /// How many batches have been added.
    added: usize,
    /// The same, where the plan reads it.
    count: Tensor,
    /// Which parameters the plan updates.
    updated: Vec<usize>,
    plan: Option<Plan>,
}

impl Accumulation {
    /// For updates after so many batches each, with a limit of the mean gradient's norm.
    ///
    /// # Errors
    /// `Memory`.
    pub fn new(parameters: &[Parameter], every: usize, clip_grad_norm: Option<f64>) -> Result<Accumulation> {
        let zeros = |p: &Parameter| Array::zeros(p.tensor.dtype(), *p.tensor.shape()).map(Tensor::constant);
        let dtype = parameters.first().map_or(crate::dtype::DType::F64, |p| p.tensor.dtype());
        Ok(Accumulation {
            every,
            clip_grad_norm,
            sums: parameters.iter().map(zeros).collect::<Result<_>>()?,
            added: 0,
            count: Tensor::scalar(dtype, 0.0)?,
            updated: Vec::new(),
            plan: None,
        })
    }

    /// What steps add to, by parameter.
    pub fn sums(&self) -> &[Tensor] {
        &self.sums
    }

    /// Compiles the update of the parameters with these numbers, unless it is.
    ///
    /// # Errors
    /// `Memory`; `Graph` if it is, of other parameters.
    pub fn compile(&mut self, parameters: &[Parameter], updated: &[usize], fused: bool) -> Result<()> {
        if self.plan.is_some() {
            return if self.updated == updated {
                Ok(())
            } else {
                Err(Error::Graph("trainer: batches of different sizes train different parameters".into()))
            };
        }
        let program = with_grad_mode(false, || {
            let tracing = Tracing::start();
            let mut means: Vec<Tensor> =
                updated.iter().map(|&i| self.sums[i].div(&self.count)).collect::<Result<_>>()?;
            if let Some(limit) = self.clip_grad_norm {
                means = clip(&means, limit)?;
            }
            Program::trace(&tracing, &means, &[])
        })?;
        let trained = updated.iter().enumerate().map(|(output, &i)| parameters[i].trained(output));
        self.plan = Some(Plan::compile_training(program, trained.collect(), fused, &Kept::default())?);
        self.updated = updated.to_vec();
        Ok(())
    }

    /// Notes that a batch was added; returns whether it is time for an update.
    pub fn add(&mut self, is_last: bool) -> bool {
        self.added += 1;
        self.added == self.every || is_last
    }

    /// Updates with the mean of what was added, and begins anew.
    ///
    /// # Errors
    /// Those of the ops.
    pub fn update(&mut self, rules: &[Rule]) -> Result<()> {
        if let Some(plan) = &mut self.plan {
            set(&self.count, self.added as f64)?;
            plan.load()?;
            plan.run(Batch { rows: &[], tables: &[] }, 0, &mut || Ok(()))?;
            plan.update(rules)?;
        }
        self.begin()
    }

    /// Forgets what was added.
    ///
    /// # Errors
    /// None that a compiled plan can have.
    pub fn begin(&mut self) -> Result<()> {
        self.added = 0;
        self.sums.iter().try_for_each(|sum| set(sum, 0.0))
    }
}

fn set(tensor: &Tensor, value: f64) -> Result<()> {
    for_float!("accumulate", tensor.dtype(), T => {
        tensor.array().write::<T>().fill(crate::dtype::Element::from_f64(value));
        Ok(())
    })
}
