//! Numeric kernels on slices and strides: written once over lane arrays, compiled per instruction set.
//!
//! Knows slices, strides, SIMD and threads; knows nothing of tensors, graphs or Python.

pub mod along;
pub mod dense;
pub mod elementwise;
mod erf;
pub mod gather;
pub mod gemm;
pub mod isa;
pub mod lanes;
pub mod loss;
pub mod math;
pub mod mt19937;
pub mod peak;
pub mod pool;
pub mod reduce;
pub mod rng;
pub mod update;
