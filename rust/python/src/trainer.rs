//! The plan executor's door: steps compiled from Python callables, epochs run without the interpreter.

use std::sync::{Mutex, TryLockError};
use std::time::{Duration, Instant};

use ferrograd_core::accumulate::Accumulation;
use ferrograd_core::anomaly;
use ferrograd_core::buffer::Array;
use ferrograd_core::dtype::DType;
use ferrograd_core::error::Error;
use ferrograd_core::plan::{self, Origin, Tracing};
use ferrograd_core::shape::Dims;
use ferrograd_core::tensor::{Tensor, with_grad_mode};
use ferrograd_core::train::{Engine, Epoch, Parameter, Rows, Step, StepSpec};
use ferrograd_kernels::rng;
use ferrograd_kernels::update::Update;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::array::{self, Table};
use crate::error::{Failure, Kind, Result, enter, raise};
use crate::halt;
use crate::optim;
use crate::tensor::PyTensor;

/// Kind, number, constant, shape, layer, and whose gradient it is.
type DrawnValue = (&'static str, Option<u64>, Option<f64>, Vec<usize>, Option<String>, Option<String>);
/// Name, what is read, what is written, what is updated.
type DrawnPart = (String, Vec<usize>, Vec<usize>, Vec<usize>);
type DrawnPlan = (Vec<DrawnValue>, Vec<DrawnPart>, Vec<usize>, Vec<(u64, usize)>);

/// Compiled steps with the state of their random streams. For `ferrograd.Trainer`.
#[pyclass(name = "Engine", module = "ferrograd._core", frozen)]
pub struct PyEngine(Mutex<State>);

struct State {
    engine: Engine,
    order: Vec<u32>,
}

/// Loss, weight, correct rows, rows, and the batch that diverged: see `PyEngine::epoch`.
type Sums = (f64, f64, usize, usize, Option<(usize, f64)>);

/// Sets the elements of a buffer: now, or, while a step is traced, at the end of each step of the plan.
#[pyfunction]
pub fn assign(target: &Bound<'_, PyTensor>, value: &Bound<'_, PyTensor>) -> Result<()> {
    enter(|| Ok(plan::assign(target.get().live()?, value.get().live()?)?))
}

/// The buffer with what was assigned to it since the trace began.
#[pyfunction]
pub fn latest(target: &Bound<'_, PyTensor>) -> Result<PyTensor> {
    enter(|| Ok(plan::latest(target.get().live()?).into()))
}

/// How often the interpreter is asked whether Ctrl-C was pressed.
const POLL: Duration = Duration::from_millis(50);

/// Rows, at most: an epoch's order is kept as u32.
const MAX_ROWS: usize = u32::MAX as usize;

impl PyEngine {
    /// The engine, for one caller at a time.
    pub fn with_engine<T>(&self, f: impl FnOnce(&mut Engine) -> Result<T>) -> Result<T> {
        self.with(|state| f(&mut state.engine))
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        match self.0.try_lock() {
            Ok(mut state) => f(&mut state),
            Err(TryLockError::Poisoned(poisoned)) => f(&mut poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                Err(raise(Kind::Graph, "trainer: already running in another thread or callback").into())
            }
        }
    }
}

#[pymethods]
impl PyEngine {
    /// An engine without steps whose random streams follow from `key`.
    #[new]
    fn new(key: u64) -> PyEngine {
        PyEngine(Mutex::new(State { engine: Engine::new(Vec::new(), key), order: Vec::new() }))
    }

    /// Traces `function(*inputs) -> (scores, loss or None)` and compiles the step for this batch size.
    ///
    /// `parameters` has a tuple (tensor, number of its rule, list of state tensors) for each parameter that is
    /// updated; none for evaluation. With `whole` their rules need whole gradients. An update is made of the mean
    /// gradient of `accumulate` batches, or of those left at the end of an epoch. With `placed` the outline tells
    /// in which calls of modules values are computed. Returns the positions of the
    /// parameters that the loss depends on: the others are left alone.
    #[pyo3(signature = (function, inputs, parameters, clip_grad_norm = None, fused = true, whole = false, accumulate = 1, placed = false))]
    fn compile(
        &self,
        function: &Bound<'_, PyAny>,
        inputs: Vec<Bound<'_, PyTensor>>,
        parameters: Vec<(Bound<'_, PyTensor>, usize, Vec<Bound<'_, PyTensor>>)>,
        clip_grad_norm: Option<f64>,
        fused: bool,
        whole: bool,
        accumulate: usize,
        placed: bool,
    ) -> Result<Vec<usize>> {
        enter(|| {
            let py = function.py();
            let placeholders: Vec<Tensor> =
                inputs.iter().map(|t| t.get().live().cloned()).collect::<Result<_>>()?;
            let parameters: Vec<Parameter> = parameters
                .iter()
                .map(|(tensor, rule, state)| {
                    let state = state.iter().map(|t| t.get().live().cloned()).collect::<Result<_>>()?;
                    Ok(Parameter { tensor: tensor.get().live()?.clone(), rule: *rule, state, whole })
                })
                .collect::<Result<_>>()?;
            let trains = !parameters.is_empty();
            let learned = if accumulate > 1 { parameters.clone() } else { Vec::new() };
            let (sums, kept) = self.with(|State { engine, .. }| {
                if learned.is_empty() {
                    return Ok((Vec::new(), engine.kept()));
                }
                let sums = match engine.accumulation.take() {
                    Some(sums) => sums,
                    None => Accumulation::new(&learned, accumulate, clip_grad_norm)?,
                };
                Ok((engine.accumulation.insert(sums).sums().to_vec(), engine.kept()))
            })?;
            let made = || {
                let tracing = Tracing::start();
                let result = function.call1(PyTuple::new(py, &inputs)?)?;
                let (scores, loss): (Bound<'_, PyTensor>, Option<Bound<'_, PyTensor>>) = result.extract()?;
                let loss = loss.map(|t| t.get().live().cloned()).transpose()?;
                let spec = StepSpec {
                    inputs: &placeholders,
                    scores: scores.get().live()?,
                    loss: loss.as_ref(),
                    parameters,
                    clip_grad_norm,
                    fused,
                    kept,
                };
                Ok::<_, Failure>(Step::adding(&tracing, spec, &sums)?)
            };
            let step = with_grad_mode(trains, || if placed { anomaly::placed(made) } else { made() })?;
            let updated = step.updated().to_vec();
            self.with(|state| {
                if let Some(sums) = &mut state.engine.accumulation {
                    sums.compile(&learned, &updated, fused)?;
                }
                state.engine.add(step);
                Ok(updated)
            })
        })
    }

    /// Sets the rules of the parameters for the steps to come, and for the next epoch their rates: an array of
    /// shape (updates, parameters, 2) with learning rates and momenta, NaN where a momentum stays.
    #[pyo3(signature = (rules, rates = None))]
    fn set_rules(&self, rules: Vec<Bound<'_, PyDict>>, rates: Option<&Bound<'_, PyTensor>>) -> Result<()> {
        enter(|| {
            let rules = rules.iter().map(optim::rule).collect::<Result<_>>()?;
            let rates = match rates {
                Some(rates) => rates.get().live()?.array().read::<f64>().as_chunks().0.to_vec(),
                None => Vec::new(),
            };
            self.with(|state| {
                state.engine.rules = rules;
                state.engine.rates = rates;
                Ok(())
            })
        })
    }

    /// Makes L-BFGS make the steps to come; without options the rules make them.
    #[pyo3(signature = (options = None, memory = None))]
    fn set_minimizer(
        &self,
        options: Option<&Bound<'_, PyDict>>,
        memory: Option<&Bound<'_, PyDict>>,
    ) -> Result<()> {
        enter(|| {
            let memory = memory.map(optim::lbfgs_memory).transpose()?.unwrap_or_default();
            let minimizer = options.map(optim::lbfgs_options).transpose()?.map(|options| (options, memory));
            self.with(|state| {
                state.engine.minimizer = minimizer;
                Ok(())
            })
        })
    }

    /// Writes what L-BFGS remembers to a dict.
    fn remember(&self, memory: &Bound<'_, PyDict>) -> Result<()> {
        enter(|| {
            self.with(|state| match &state.engine.minimizer {
                Some((_, found)) => optim::lbfgs_remember(found, memory),
                None => Ok(()),
            })
        })
    }

    /// The scalars that each rule carries from step to step, as after the last one.
    pub fn carried(&self) -> Result<Vec<Vec<f64>>> {
        self.with(|state| Ok(state.engine.rules.iter().map(|rule| rule.carried().to_vec()).collect()))
    }

    /// Steps made so far: the number of the next one's random streams.
    #[getter]
    fn steps_made(&self) -> Result<u64> {
        self.with(|state| Ok(state.engine.steps_made))
    }

    /// Updates made so far, which is how often every rule was applied.
    #[getter]
    fn updates_made(&self) -> Result<u64> {
        self.with(|state| Ok(state.engine.updates_made))
    }

    /// Whether the step for a batch size is compiled.
    fn has(&self, batch: usize) -> Result<bool> {
        self.with(|state| Ok(state.engine.has(batch)))
    }

    /// Names of a step's instructions: what was fused shows here.
    fn instructions(&self, batch: usize) -> Result<Vec<String>> {
        self.with(|state| {
            Ok(state.engine.step(batch).map(|step| step.instruction_names()).unwrap_or_default())
        })
    }

    /// What reads what in a step, to be drawn. Of each value its kind, the number of an input or of a leaf's node, a
    /// constant, its shape, the layer that computes it, and whose gradient it is part of; of each instruction its
    /// name, what it reads and writes, and the numbers of the trained parameters that it updates; the outputs;
    /// and what is assigned: nodes and numbers of outputs.
    fn outline(&self, batch: usize) -> Result<DrawnPlan> {
        self.with(|state| {
            let Some(step) = state.engine.step(batch) else { return Ok(Default::default()) };
            let outline = step.plan().outline();
            let value = |value: &plan::Value| {
                let (kind, number, constant) = match value.origin {
                    Origin::Input(number) => ("input", Some(number as u64), None),
                    Origin::External(node) => ("leaf", Some(node), None),
                    Origin::Constant(constant) => ("constant", None, constant),
                    Origin::Instruction => ("op", None, None),
                };
                let (layer, gradient_of) = match &value.place {
                    Some(place) => (place.layer.clone(), place.gradient_of.clone()),
                    None => (None, None),
                };
                let text = |text: Option<std::sync::Arc<str>>| text.map(|text| text.to_string());
                (kind, number, constant, value.meta.shape.to_vec(), text(layer), text(gradient_of))
            };
            let parts = outline.parts.iter().cloned();
            Ok((
                outline.values.iter().map(value).collect(),
                parts.map(|part| (part.name, part.reads, part.writes, part.updates)).collect(),
                outline.outputs.clone(),
                step.assigned(),
            ))
        })
    }

    /// Makes `count` steps of the first `batch` rows on this thread; returns of each part its name, its seconds in a
    /// step, and its multiply-adds.
    fn profile(
        &self,
        py: Python<'_>,
        tables: Vec<Bound<'_, PyAny>>,
        batch: usize,
        count: usize,
    ) -> Result<Vec<(String, f64, u64)>> {
        enter(|| {
            let tables: Vec<Table> = tables.iter().map(Table::new).collect::<Result<_>>()?;
            if let Some(table) = tables.iter().find(|table| table.rows() < batch) {
                let text = format!("data: expected at least {batch} rows, got {}", table.rows());
                return Err(raise(Kind::Shape, text).into());
            }
            let tables: Vec<&dyn Rows> = tables.iter().map(|table| table as &dyn Rows).collect();
            let rows: Vec<u32> = (0..batch as u32).collect();
            self.with(|state| {
                let engine = &mut state.engine;
                let parts = py.detach(|| engine.profile(&rows, &tables, count))?;
                Ok(parts.into_iter().map(|part| (part.name, part.seconds, part.multiply_adds)).collect())
            })
        })
    }

    /// One pass over rows `start..stop` of the tables, shuffled by `shuffle = (seed, number of the epoch)`
    /// where given, `batch` rows at a time; with `drop_last` without a short batch at the end. Returns (sum of
    /// batch losses times their weights, sum of the weights, rows whose largest score was their label's, rows
    /// seen, number and loss of the batch whose loss was not finite or None). `scores` receives the model's
    /// results.
    #[pyo3(signature = (tables, batch, start, stop, shuffle = None, scores = None, drop_last = false))]
    fn epoch(
        &self,
        py: Python<'_>,
        tables: Vec<Bound<'_, PyAny>>,
        batch: usize,
        start: usize,
        stop: usize,
        shuffle: Option<(u64, u64)>,
        scores: Option<&Bound<'_, PyTensor>>,
        drop_last: bool,
    ) -> Result<Sums> {
        enter(|| {
            if stop > MAX_ROWS {
                let text = format!("X: expected at most {MAX_ROWS} rows, got {stop}");
                return Err(raise(Kind::Config, text).into());
            }
            let tables: Vec<Table> = tables.iter().map(Table::new).collect::<Result<_>>()?;
            if let Some(table) = tables.iter().find(|table| table.rows() < stop) {
                let text = format!("data: expected at least {stop} rows, got {}", table.rows());
                return Err(raise(Kind::Shape, text).into());
            }
            let tables: Vec<&dyn Rows> = tables.iter().map(|table| table as &dyn Rows).collect();
            let scores = scores.map(|t| t.get().live().map(|t| t.array().clone())).transpose()?;
            self.with(|state| {
                let State { engine, order } = state;
                order.resize(stop - start, 0);
                match shuffle {
                    Some((seed, number)) => rng::permutation(seed, number, order),
                    None => (0..).zip(order.iter_mut()).for_each(|(i, slot)| *slot = i),
                }
                order.iter_mut().for_each(|row| *row += start as u32);
                let used = if drop_last { order.len() / batch.max(1) * batch } else { order.len() };
                let epoch = run(py, engine, &order[..used], batch, &tables, scores.as_ref())?;
                Ok((epoch.loss, epoch.weight, epoch.correct, epoch.rows, epoch.diverged))
            })
        })
    }
}

impl PyEngine {
    /// Whether a batch of so many rows can be run at once.
    pub fn knows(&self, rows: usize) -> Result<bool> {
        self.with(|state| Ok(state.engine.has(rows)))
    }

    /// Runs the step for all rows of the tables.
    pub fn batch(
        &self,
        py: Python<'_>,
        tables: &[&dyn Rows],
        rows: usize,
        scores: Option<&Array>,
    ) -> Result<Epoch> {
        self.with(|state| {
            let State { engine, order } = state;
            order.clear();
            order.extend(0..rows as u32);
            run(py, engine, order, rows, tables, scores)
        })
    }
}

fn run(
    py: Python<'_>,
    engine: &mut Engine,
    order: &[u32],
    batch: usize,
    tables: &[&dyn Rows],
    scores: Option<&Array>,
) -> Result<Epoch> {
    watched(py, |poll| engine.epoch(order, batch, tables, scores, poll))
}

/// Runs without the interpreter, but for a look at Ctrl-C, and at whether it was halted, now and then.
pub fn watched<T: Send>(
    py: Python<'_>,
    body: impl FnOnce(&mut dyn FnMut() -> ferrograd_core::error::Result<()>) -> ferrograd_core::error::Result<T>
    + Send,
) -> Result<T> {
    let mut asked = Instant::now();
    let mut poll = || {
        halt::look()?;
        if asked.elapsed() < POLL {
            return Ok(());
        }
        asked = Instant::now();
        Python::attach(|py| py.check_signals()).map_err(|error| Error::Foreign(Box::new(error)))
    };
    py.detach(|| enter(|| Ok(body(&mut poll)?)))
}

/// Rows that are checked at a time.
const CHECK_ROWS: usize = 64;

/// Whether no element of the tensors is NaN or infinite.
#[pyfunction]
pub fn are_finite(py: Python<'_>, tensors: Vec<Bound<'_, PyTensor>>) -> Result<bool> {
    enter(|| {
        let arrays: Vec<Array> =
            tensors.iter().map(|t| Ok(t.get().live()?.array().clone())).collect::<Result<_>>()?;
        py.detach(|| enter(|| Ok(arrays.iter().all(array::is_finite))))
    })
}

/// Raises `NonFiniteError` at the first NaN or infinity of a table, naming its place.
#[pyfunction]
pub fn check_finite(py: Python<'_>, table: &Bound<'_, PyAny>, name: &str) -> Result<()> {
    enter(|| {
        let table = Table::new(table)?;
        let bad = py.detach(|| enter(|| Ok(first_non_finite(&table)?)))?;
        match bad {
            Some((row, column, value)) => {
                let text =
                    format!("{name}: expected finite values, got {value} in row {row}, column {column}");
                Err(raise(Kind::NonFinite, text).into())
            }
            None => Ok(()),
        }
    })
}

fn first_non_finite(table: &Table) -> ferrograd_core::error::Result<Option<(usize, usize, f64)>> {
    if table.columns() == 0 || table.is_finite() {
        return Ok(None);
    }
    for start in (0..table.rows()).step_by(CHECK_ROWS) {
        let rows: Vec<u32> = (start..table.rows().min(start + CHECK_ROWS)).map(|row| row as u32).collect();
        let shape = Dims::from_slice(&[rows.len(), table.columns()]);
        let block = Array::zeros(DType::F64, shape)?;
        table.gather(&rows, &block)?;
        let values = block.read::<f64>();
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Ok(Some((start + at / table.columns(), at % table.columns(), values[at])));
        }
    }
    Ok(None)
}
