//! The plan executor: a traced graph compiled once for a batch shape, run without allocation.
//!
//! `trace` turns recorded nodes into a program, `fuse` rewrites patterns, `memory` lays values out in
//! one arena, `run` executes. Numbers never depend on any of it: a fused or reused value has the bits
//! of the same op run alone.

mod fuse;
mod memory;
mod run;
mod trace;

pub use run::Plan;
pub use trace::{Definition, Leaf, Program, Tracing, ValueId};
