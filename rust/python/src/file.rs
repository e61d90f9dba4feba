//! Model files: names with tensors, and text metadata.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ferrograd_core::file;
use ferrograd_core::tensor::Tensor;
use pyo3::prelude::*;

use crate::error::{Result, enter, enter_detached};
use crate::tensor::PyTensor;

/// Writes tensors and metadata to a safetensors file, through a temporary file beside it: after a crash the
/// old file or the new one is there, never half of one.
#[pyfunction]
pub fn save_tensors(
    py: Python<'_>,
    path: PathBuf,
    tensors: BTreeMap<String, Bound<'_, PyTensor>>,
    metadata: BTreeMap<String, String>,
) -> Result<()> {
    enter(|| {
        let arrays: BTreeMap<_, _> = tensors
            .into_iter()
            .map(|(name, tensor)| Ok((name, tensor.get().live()?.array().clone())))
            .collect::<Result<_>>()?;
        enter_detached(py, || file::save(&path, &arrays, &metadata))
    })
}

/// Reads a safetensors file: (tensors by name, metadata).
#[pyfunction]
pub fn load_tensors(
    py: Python<'_>,
    path: PathBuf,
) -> Result<(BTreeMap<String, PyTensor>, BTreeMap<String, String>)> {
    enter(|| {
        let (arrays, metadata) = enter_detached(py, || file::load(&path))?;
        let tensors =
            arrays.into_iter().map(|(name, array)| (name, Tensor::constant(array).into())).collect();
        Ok((tensors, metadata))
    })
}
