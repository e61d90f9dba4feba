//! What was built, what the machine has, and how many threads to use.

use ferrograd_kernels::{isa, peak, pool};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::argument;
use crate::error::{Kind, Result, enter, raise};

/// More than any machine of this kind has; each thread costs a stack.
const MAX_THREADS: usize = 1024;

/// Sets the number of threads of later operations, from 1 to 1024. Results do not depend on it.
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> before = fg.get_num_threads()
/// >>> fg.set_num_threads(1)
/// >>> fg.get_num_threads()
/// 1
/// >>> fg.set_num_threads(before)
#[pyfunction]
pub fn set_num_threads(#[pyo3(from_py_with = argument::threads)] threads: isize) -> Result<()> {
    enter(|| match usize::try_from(threads) {
        Ok(count @ 1..=MAX_THREADS) => {
            pool::set_num_threads(count);
            Ok(())
        }
        _ => {
            let text = format!("threads: expected 1 to {MAX_THREADS}, got {threads}");
            Err(raise(Kind::Config, text).into())
        }
    })
}

/// The number of threads that operations use.
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> fg.get_num_threads() >= 1
/// True
#[pyfunction]
pub fn get_num_threads() -> usize {
    pool::num_threads()
}

/// Sets the number of threads of later operations in the calling thread alone; 0 goes by that of all threads
/// again. Returns what was set before.
#[pyfunction]
pub fn set_own_threads(threads: usize) -> Result<usize> {
    enter(|| match threads {
        0..=MAX_THREADS => Ok(pool::set_own_threads(threads)),
        _ => {
            let text = format!("threads: expected 0 to {MAX_THREADS}, got {threads}");
            Err(raise(Kind::Config, text).into())
        }
    })
}

/// Version, instruction set, threads and build.
///
/// Examples
/// --------
/// >>> import ferrograd as fg
/// >>> fg.info()["version"] == fg.__version__
/// True
#[pyfunction]
pub fn info(py: Python<'_>) -> Result<Bound<'_, PyDict>> {
    enter(|| {
        let info = PyDict::new(py);
        info.set_item("version", env!("CARGO_PKG_VERSION"))?;
        info.set_item("isa", isa::active().name())?;
        let supported: Vec<_> = isa::Level::supported().map(isa::Level::name).collect();
        info.set_item("isa_supported", supported)?;
        info.set_item("threads", pool::num_threads())?;
        info.set_item("profile", env!("FERROGRAD_PROFILE"))?;
        info.set_item("target", env!("FERROGRAD_TARGET"))?;
        info.set_item("rustc", env!("FERROGRAD_RUSTC"))?;
        Ok(info)
    })
}

/// What the machine can do with the present threads and instruction set, measured in a fifth of a second:
/// `fma_float32` and `fma_float64` in operations per second; with `memory`, which needs 400 MB, also `triad`
/// in bytes per second.
#[pyfunction]
#[pyo3(signature = (memory = false))]
pub fn machine_peak(py: Python<'_>, memory: bool) -> Result<Bound<'_, PyDict>> {
    enter(|| {
        let threads = pool::num_threads();
        let (single, double, triad) = py.detach(|| {
            let triad = memory.then(|| peak::triad_rate(threads));
            (peak::fma_rate::<f32>(threads), peak::fma_rate::<f64>(threads), triad)
        });
        let rates = PyDict::new(py);
        rates.set_item("fma_float32", single)?;
        rates.set_item("fma_float64", double)?;
        if let Some(triad) = triad {
            rates.set_item("triad", triad)?;
        }
        Ok(rates)
    })
}

/// Joins the worker threads: `fork` would not copy them.
#[pyfunction]
pub fn _before_fork() {
    pool::shutdown();
}

/// Chooses the instruction set, and keeps `fork` from losing threads.
///
/// # Errors
/// `ConfigError` when `FERROGRAD_ISA` names a level that this CPU lacks.
pub fn start(module: &Bound<'_, PyModule>) -> PyResult<()> {
    isa::init().map_err(|error| raise(Kind::Config, error.to_string()))?;
    let os = module.py().import("os")?;
    if let Some(register) = os.getattr_opt("register_at_fork")? {
        let options = PyDict::new(module.py());
        options.set_item("before", module.getattr("_before_fork")?)?;
        register.call((), Some(&options))?;
    }
    Ok(())
}
