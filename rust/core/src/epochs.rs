//! Epochs as scikit-learn runs them: the order of the rows goes on from epoch to epoch, the loss is watched, and the
//! rate may fall. All of it natively, so that an epoch over few rows costs no Python.

use std::time::Instant;

use ferrograd_kernels::mt19937::Mt19937;
use ferrograd_kernels::update::Update;

use crate::error::Result;
use crate::plan::Rows;
use crate::train::Engine;

/// A rate that falls with the rows seen: after each epoch it is `rate / (seen + 1)^power`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Falling {
    /// The rate of the first epoch.
    pub rate: f64,
    /// How fast it falls.
    pub power: f64,
    /// Rows seen so far.
    pub seen: u64,
}

/// Epochs whose losses get no better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Patience {
    /// The lowest loss so far.
    pub best: f64,
    /// Epochs in a row whose loss was above `best - tolerance`.
    pub bad: u64,
    /// What counts as better.
    pub tolerance: f64,
    /// How many bad epochs in a row are borne; infinity for any number.
    pub limit: f64,
}

impl Patience {
    /// Takes note of an epoch's loss. A NaN is not worse than anything.
    fn watch(&mut self, loss: f64) {
        self.bad = if loss > self.best - self.tolerance { self.bad + 1 } else { 0 };
        if loss < self.best {
            self.best = loss;
        }
    }

    /// Whether no further epoch is borne.
    fn is_over(&self) -> bool {
        self.bad as f64 > self.limit
    }
}

/// A run of epochs over the same rows.
pub struct Epochs {
    /// The rows in their present order.
    order: Vec<u32>,
    /// Room for their order before a permutation.
    before: Vec<u32>,
    batch: usize,
    /// Mean loss of each epoch: over the rows, of the batches' losses before their updates.
    pub losses: Vec<f64>,
    /// What ends the run early, where something does.
    pub patience: Option<Patience>,
    /// How the rate falls, where it does.
    pub falling: Option<Falling>,
    /// When to begin no further epoch.
    pub deadline: Option<Instant>,
}

impl Epochs {
    /// A run over so many rows, `batch` at a time, in the order of the table.
    pub fn new(rows: u32, batch: usize) -> Epochs {
        Epochs {
            order: (0..rows).collect(),
            before: Vec::new(),
            batch,
            losses: Vec::new(),
            patience: None,
            falling: None,
            deadline: None,
        }
    }

    /// Whether the deadline has passed.
    pub fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Rows that are run over.
    pub fn rows(&self) -> usize {
        self.order.len()
    }

    /// Puts row `permutation[i]` of the present order in place i.
    ///
    /// # Panics
    /// When it is no permutation of the places.
    pub fn permute(&mut self, permutation: &[u32]) {
        assert_eq!(permutation.len(), self.order.len(), "a place for each row");
        self.before.clone_from(&self.order);
        for (row, &place) in self.order.iter_mut().zip(permutation) {
            *row = self.before[place as usize];
        }
    }

    /// Runs at most `count` epochs, each in a new order where there is a generator. Returns whether the patience
    /// is at its end. An epoch that an error ends leaves no loss behind, but its steps are made. The engine's rates
    /// are those of all updates of the run.
    ///
    /// # Errors
    /// Those of [`Engine::epoch`].
    pub fn run(
        &mut self,
        engine: &mut Engine,
        tables: &[&dyn Rows],
        count: usize,
        mut generator: Option<&mut Mt19937>,
        poll: &mut dyn FnMut() -> Result<()>,
    ) -> Result<bool> {
        let mut is_over = false;
        let mut run = || {
            for _ in 0..count {
                if let Some(generator) = &mut generator {
                    // As `sklearn.utils.shuffle`, which takes the rows in the order of a shuffled count.
                    generator.shuffle(&mut self.order);
                }
                let before = engine.updates_made;
                let epoch = engine.run(&self.order, self.batch, tables, None, poll)?;
                // Those of the next epoch come behind.
                let used = (engine.updates_made - before) as usize * engine.rules.len();
                engine.rates.drain(..used.min(engine.rates.len()));
                let loss = epoch.loss_of_rows / epoch.rows as f64;
                self.losses.push(loss);
                if let Some(falling) = &mut self.falling {
                    falling.seen += epoch.rows as u64;
                    let rate = falling.rate / libm::pow((falling.seen + 1) as f64, falling.power);
                    engine.rules.iter_mut().for_each(|rule| *rule.rate() = rate);
                }
                if let Some(patience) = &mut self.patience {
                    patience.watch(loss);
                    is_over = patience.is_over();
                }
                if is_over || self.is_late() {
                    break;
                }
            }
            Ok(())
        };
        let made = run();
        engine.rates.clear();
        engine.store()?;
        made.map(|()| is_over)
    }
}
