//! The training loop: gather rows, run the plan, update, batch after batch, without Python.

use std::time::{Duration, Instant};

use ferrograd_kernels::pool;
pub use ferrograd_kernels::update::Rule;
use ferrograd_kernels::update::Update;

use crate::accumulate::Accumulation;
use crate::anomaly;
use crate::buffer::Array;
use crate::error::{Error, Result};
use crate::for_float;
use crate::lbfgs;
pub use crate::plan::Rows;
use crate::plan::{Batch, Kept, Part};
pub(crate) use crate::training_step::clip;
pub use crate::training_step::{Parameter, Step, StepSpec, flat, write_flat};

/// Sums over the batches of one pass through the data.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epoch {
    /// Sum of batch losses, each times its weight.
    pub loss: f64,
    /// Sum of batch losses, each times its rows.
    pub loss_of_rows: f64,
    /// Sum of the weights: rows, or sample weights.
    pub weight: f64,
    /// Rows whose largest score was their label's.
    pub correct: usize,
    /// Rows seen.
    pub rows: usize,
    /// Number and loss of the batch whose loss was not finite; its update was not made.
    pub diverged: Option<(usize, f64)>,
}

/// Compiled steps by batch size, with the optimizer's rules.
pub struct Engine {
    steps: Vec<Step>,
    /// A rule for each parameter group.
    pub rules: Vec<Rule>,
    /// Learning rate and momentum of each rule in each update of the next epoch, update after update; a momentum
    /// of NaN stays what it is. Empty where the rules keep theirs.
    pub rates: Vec<[f64; 2]>,
    /// Makes the steps in place of the rules. The parameters must have been given as `whole`.
    pub minimizer: Option<(lbfgs::Options, lbfgs::Memory)>,
    /// Where an update is that of several batches: what they are added to. Steps must have been built with it.
    pub accumulation: Option<Accumulation>,
    /// Key of the random streams inside the plan.
    pub key: u64,
    /// Steps made so far: the random streams' number.
    pub steps_made: u64,
    /// Updates made so far, which is how often every rule was applied.
    pub updates_made: u64,
    /// Whether a loss that is not finite stops nothing, a batch whose sample weights are all 0 is an error, and
    /// nobody asks how many rows were correct.
    pub is_steadfast: bool,
}

/// A step that takes longer than this can be interrupted about as often.
const SLOW_STEP: Duration = Duration::from_millis(10);
/// Steps that take less than this are not asked one by one whether to stop.
const QUICK_STEPS: Duration = Duration::from_millis(1);

/// Compiled batch sizes that are kept: an epoch needs two.
const MAX_STEPS: usize = 16;

impl Engine {
    /// Without steps.
    pub fn new(rules: Vec<Rule>, key: u64) -> Engine {
        Engine {
            steps: Vec::new(),
            rules,
            rates: Vec::new(),
            minimizer: None,
            accumulation: None,
            key,
            steps_made: 0,
            updates_made: 0,
            is_steadfast: false,
        }
    }

    /// Adds the step for a batch size; of many sizes the oldest is forgotten.
    pub fn add(&mut self, step: Step) {
        self.steps.retain(|s| s.batch != step.batch);
        if self.steps.len() == MAX_STEPS {
            self.steps.remove(0);
        }
        self.steps.push(step);
    }

    /// Whether a batch size is compiled for as many threads as there are now.
    pub fn has(&self, batch: usize) -> bool {
        self.steps.iter().any(|s| s.batch == batch && s.threads == pool::num_threads())
    }

    /// The step for a batch size.
    pub fn step(&self, batch: usize) -> Option<&Step> {
        self.steps.iter().find(|s| s.batch == batch)
    }

    /// What the steps keep packed, for another one of this engine, which runs one at a time.
    pub fn kept(&self) -> Kept {
        let mut kept = Kept::default();
        self.steps.iter().for_each(|step| step.plan.add_to(&mut kept));
        kept
    }

    /// One pass over `order`, `batch` rows at a time; the last may be short. Every batch size that
    /// occurs must have been added. `scores`, where given, receives the model's results in this order.
    ///
    /// `poll` is called about once a millisecond, or as often as steps and their parts allow; when it fails, the
    /// parameters are those after the last whole step.
    ///
    /// # Errors
    /// Those of the ops, of the tables, and of `poll`.
    pub fn epoch(
        &mut self,
        order: &[u32],
        batch: usize,
        tables: &[&dyn Rows],
        scores: Option<&Array>,
        poll: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Epoch> {
        let epoch = self.run(order, batch, tables, scores, poll);
        self.rates.clear();
        // Whatever ended the run: the user's arrays hold the parameters after the last whole step.
        self.store()?;
        epoch
    }

    /// Writes the parameters to the user's arrays.
    pub(crate) fn store(&mut self) -> Result<()> {
        self.steps.iter_mut().try_for_each(|step| step.plan.store())
    }

    /// The loss of all rows at `x`, the parameters one after the other, and its gradient there. The step for as
    /// many rows must have been added with its parameters `whole`.
    ///
    /// # Errors
    /// Those of the ops, of the tables, and of `poll`.
    pub fn loss_and_gradient(
        &mut self,
        x: &[f64],
        rows: &[u32],
        tables: &[&dyn Rows],
        poll: &mut dyn FnMut() -> Result<()>,
    ) -> Result<(f64, Vec<f64>)> {
        let step = self.steps.iter_mut().find(|step| step.batch == rows.len());
        let step = step.ok_or_else(|| Error::Graph(format!("plan: no step for {} rows", rows.len())))?;
        step.at(x, Batch { rows, tables }, 1, poll).map(|(outcome, gradient)| (outcome.loss, gradient))
    }

    /// Makes `count` steps of `rows` with their updates, part by part on this thread, and returns the mean of what
    /// each part took. The step for as many rows must have been added.
    ///
    /// # Errors
    /// Those of the ops and of the tables.
    pub fn profile(&mut self, rows: &[u32], tables: &[&dyn Rows], count: usize) -> Result<Vec<Part>> {
        let step = self.steps.iter_mut().find(|step| step.batch == rows.len());
        let step = step.ok_or_else(|| Error::Graph(format!("plan: no step for {} rows", rows.len())))?;
        step.plan.load()?;
        let mut parts = Vec::new();
        let made = (0..count).try_for_each(|_| {
            step.plan.reseed(self.key, self.steps_made);
            step.plan.profile(Batch { rows, tables }, &self.rules, &mut parts)
        });
        step.plan.store()?;
        made?;
        for part in &mut parts {
            part.seconds /= count as f64;
            part.multiply_adds /= count as u64;
        }
        Ok(parts)
    }

    /// An epoch that leaves the parameters packed.
    pub(crate) fn run(
        &mut self,
        order: &[u32],
        batch: usize,
        tables: &[&dyn Rows],
        scores: Option<&Array>,
        poll: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Epoch> {
        let mut epoch = Epoch::default();
        let (batches, before) = (order.len().div_ceil(batch.max(1)), self.updates_made);
        if let Some(accumulation) = &mut self.accumulation {
            accumulation.begin()?;
        }
        // Looking at the clock takes as long as an instruction of a small network.
        let (mut pieces, mut steps_a_poll) = (0, 1);
        let mut current = None;
        for (number, rows) in order.chunks(batch.max(1)).enumerate() {
            let found = self.steps.iter().position(|s| s.batch == rows.len());
            let index =
                found.ok_or_else(|| Error::Graph(format!("plan: no step for {} rows", rows.len())))?;
            // Other steps have the parameters packed, perhaps since the epoch before.
            if current.replace(index) != Some(index) {
                let next = &self.steps[index].plan;
                self.steps.iter().try_for_each(|other| other.plan.store_for(next))?;
            }
            let step = &mut self.steps[index];
            let started = (number == 0 || number.is_power_of_two()).then(Instant::now);
            if number.is_multiple_of(steps_a_poll) {
                poll()?;
            }
            step.plan.load()?;
            step.plan.reseed(self.key, self.steps_made);
            let batch = Batch { rows, tables };
            let minimizer = self.minimizer.as_mut().filter(|_| !step.updated.is_empty());
            let is_minimized = minimizer.is_some();
            let placed = |error| anomaly::in_batch(error, number);
            let outcome = match minimizer {
                Some(minimizer) => step.minimize(minimizer, batch, pieces, poll).map_err(placed)?,
                None => {
                    step.plan.run(batch, pieces, poll).map_err(placed)?;
                    step.outcome(tables.len(), !self.is_steadfast)?
                }
            };
            if let Some(scores) = scores {
                copy_rows(&step.plan.outputs()[0], scores, epoch.rows)?;
            }
            if self.is_steadfast && outcome.weight == 0.0 {
                return Err(Error::Config {
                    argument: "sample_weight",
                    expected: "a weight above 0 in each batch".into(),
                    got: format!("a batch of {} rows without weight", rows.len()),
                });
            }
            if !outcome.loss.is_finite() && !self.is_steadfast {
                epoch.diverged = Some((number, outcome.loss));
                return Ok(epoch);
            }
            if !step.updated.is_empty() {
                let mut sums = self.accumulation.as_mut();
                let is_due = sums.as_mut().is_none_or(|sums| sums.add(number + 1 == batches));
                let rules = if is_due && !is_minimized { &mut self.rules[..] } else { &mut [] };
                let made = (self.updates_made - before) as usize;
                let rates = self.rates.get(made * rules.len()..).unwrap_or_default();
                for (rule, &[rate, momentum]) in rules.iter_mut().zip(rates) {
                    *rule.rate() = rate;
                    if let Some(own) = rule.momentum().filter(|_| !momentum.is_nan()) {
                        *own = momentum;
                    }
                }
                step.write(&step.rewrites)?;
                if sums.is_none() && !is_minimized {
                    step.plan.update(rules)?;
                }
                step.write(&step.writes)?;
                if let Some(sums) = sums.filter(|_| is_due) {
                    sums.update(rules)?;
                }
                rules.iter_mut().for_each(Update::advance);
                self.updates_made += u64::from(is_due);
                let updated = step.updated.iter().copied().zip(&step.weights);
                anomaly::update(step.check.filter(|_| is_due && !is_minimized), updated).map_err(placed)?;
            }
            self.steps_made += 1;
            epoch.loss += outcome.loss * outcome.weight;
            epoch.loss_of_rows += outcome.loss * rows.len() as f64;
            epoch.weight += outcome.weight;
            epoch.correct += outcome.correct;
            epoch.rows += rows.len();
            if let Some(took) = started.map(|started| started.elapsed().as_nanos().max(1)) {
                pieces = (took / SLOW_STEP.as_nanos()) as usize;
                steps_a_poll = (QUICK_STEPS.as_nanos() / took).max(1) as usize;
            }
        }
        Ok(epoch)
    }
}

/// Writes a batch's results behind those of the rows before.
fn copy_rows(source: &Array, target: &Array, row: usize) -> Result<()> {
    let width: usize = target.shape()[1..].iter().product();
    for_float!("predict", source.dtype(), T => {
        let mut target = target.write::<T>();
        let part = &mut target[row * width..][..source.shape().elements()];
        ferrograd_kernels::elementwise::copy(source.shape(), &source.read::<T>(), source.strides(), part);
        Ok(())
    })
}
