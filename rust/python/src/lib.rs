//! The extension module `ferrograd._core`: Python classes and functions over `ferrograd-core`.
//!
//! Nothing is computed here. Python's view of each name is in `python/ferrograd/_core.pyi`.

mod again;
mod argument;
mod array;
mod autograd;
mod create;
mod dtype;
mod epochs;
mod error;
mod file;
mod function;
mod gate;
mod graph;
mod halt;
mod hook;
mod info;
mod operand;
mod optim;
mod predict;
mod random;
mod sparse;
mod tensor;
mod tensor_along;
mod tensor_arithmetic;
mod tensor_copy;
mod tensor_index;
mod tensor_inplace;
mod tensor_reduce;
mod tensor_shape;
mod tensor_text;
mod trainer;
mod watch;

/// The native module of ferrograd.
#[pyo3::pymodule]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::again::{PyPredictAgain, PyStepAgain};
    #[pymodule_export]
    use crate::autograd::{
        counted, counted_so_far, enter_layer, get_anomaly_mode, grad, is_grad_enabled, jvp, last_id,
        leave_layer, node_id, reaches_beyond, recorded, set_anomaly_mode, set_grad_enabled, steps, vmap,
        watch_update,
    };
    #[pymodule_export]
    use crate::create::{
        arange, empty, empty_like, eye, full, full_like, linspace, named_operand, ones, ones_like, rand_like,
        randint_like, randn_like, tensor, zeros, zeros_like,
    };
    #[pymodule_export]
    use crate::dtype::{_rebuild_dtype, PyDType, PyDevice};
    #[pymodule_export]
    use crate::epochs::{PyEpochs, PyMt19937, loss_and_gradient};
    #[pymodule_export]
    use crate::file::{load_tensors, save_tensors};
    #[pymodule_export]
    use crate::function::{
        activation, bce, bce_with_logits, cat, count_labels, cross_entropy, linear, multi_margin, nll,
        squared_error, stack, r#where,
    };
    #[pymodule_export]
    use crate::gate::gate;
    #[pymodule_export]
    use crate::graph::{PyGraph, PyNode};
    #[pymodule_export]
    use crate::halt::PyHalt;
    #[pymodule_export]
    use crate::hook::PyRemovableHandle;
    #[pymodule_export]
    use crate::info::{_before_fork, get_num_threads, info, machine_peak, set_num_threads, set_own_threads};
    #[pymodule_export]
    use crate::optim::{lbfgs_step, optimizer_update};
    #[pymodule_export]
    use crate::predict::{follow, mean_loss, predict};
    #[pymodule_export]
    use crate::random::{
        PyGenerator, dropout_mask, get_rng_state, manual_seed, noise, rand, randint, randn, set_rng_state,
    };
    #[pymodule_export]
    use crate::tensor::PyTensor;
    #[pymodule_export]
    use crate::tensor_along::{einsum, one_hot, pad};
    #[pymodule_export]
    use crate::tensor_copy::_rebuild_tensor;
    #[pymodule_export]
    use crate::trainer::{PyEngine, are_finite, assign, check_finite, latest};
    #[pymodule_export]
    use crate::watch::PyWatch;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("ValuesIndices", crate::tensor_reduce::values_indices(module.py())?)?;
        crate::error::register(module)?;
        crate::dtype::register(module)?;
        crate::info::start(module)?;
        // pyo3 lists private names in it too; the package's own `__all__` is what users see.
        module.delattr("__all__")
    }
}
