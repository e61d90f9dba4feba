//! Shapes, tensors, ops, the graph with its backward pass, plans, training and model files.
//!
//! Knows nothing of Python or CUDA; arithmetic is in `ferrograd-kernels`.

#![deny(unsafe_code)]

pub mod accumulate;
pub mod anomaly;
pub mod backward;
#[allow(unsafe_code)]
mod block;
#[allow(unsafe_code)]
pub mod buffer;
pub mod count;
pub mod dtype;
pub mod epochs;
pub mod error;
pub mod file;
pub mod forward;
pub mod graph;
pub mod hook;
pub mod lbfgs;
pub mod op;
pub mod plan;
pub mod record;
pub mod shape;
pub mod steps;
pub mod tensor;
pub mod train;
mod training_step;
pub mod vmap;
