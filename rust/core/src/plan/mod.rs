//! The plan executor: a traced graph compiled once for a batch shape, run without allocation.
//!
//! `trace` turns recorded nodes into a program, `fuse` rewrites patterns, `schedule` orders instructions in
//! phases with `rows` as its knowledge of ops, `memory` lays values out in one arena, `weights` keeps parameters
//! packed, `products` finds what reads and updates them so, `penalty` their sums of squares, `compile` puts all of it
//! together, `run` executes, `update` ends a training step, `few` that of a small batch, `profile` tells what takes
//! how long, `outline` what reads what. Numbers never depend on any of it: a fused, cut or reused value has the bits
//! of the same op run alone.

mod compile;
mod few;
mod fuse;
mod memory;
mod outline;
mod penalty;
mod products;
mod profile;
mod rows;
mod run;
mod schedule;
mod trace;
mod update;
mod weights;

pub use compile::Trained;
pub use outline::{Origin, Outline, Value};
pub use profile::Part;
pub use run::{Batch, Plan, Rows};
pub(crate) use trace::without_assignments;
pub use trace::{Definition, Leaf, Program, Tracing, ValueId, assign, latest, reads_after};
pub use update::update;
pub use weights::Kept;
