//! Ends native loops of other threads: Ctrl-C reaches the interpreter's main thread only.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ferrograd_core::error::{Error, Result};
use pyo3::prelude::*;

thread_local! {
    static HEEDED: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// A sign at which the native loops of the threads that heed it end, with `GraphError`.
#[pyclass(name = "Halt", module = "ferrograd._core", frozen)]
pub struct PyHalt(Arc<AtomicBool>);

#[pymethods]
impl PyHalt {
    /// A sign that was not given yet.
    #[new]
    fn new() -> PyHalt {
        PyHalt(Arc::default())
    }

    /// Makes the calling thread heed this sign, and no other, from now on.
    fn heed(&self) {
        HEEDED.set(Some(self.0.clone()));
    }

    /// Gives the sign, for good.
    fn give(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was given.
    #[getter]
    fn is_given(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Fails once the calling thread's sign was given.
pub fn look() -> Result<()> {
    let is_given = |sign: &Option<Arc<AtomicBool>>| sign.as_ref().is_some_and(|s| s.load(Ordering::Relaxed));
    if HEEDED.with_borrow(is_given) {
        return Err(Error::Graph("halted by another thread".into()));
    }
    Ok(())
}
