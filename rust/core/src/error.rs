//! The one error type: each variant carries the op or argument, what was expected and what came.

use std::path::PathBuf;

use crate::anomaly::Birth;
use crate::dtype::DType;
use crate::shape::Dims;

/// What can go wrong. Messages are lower case and name the op or argument first.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Two shapes that do not broadcast.
    #[error("{op}: shapes do not broadcast, {left} and {right}")]
    Broadcast {
        /// The op.
        op: &'static str,
        /// First operand.
        left: Dims,
        /// Second operand.
        right: Dims,
    },
    /// A matrix product whose inner dimensions differ.
    #[error("matmul: inner dimensions differ, {left} @ {right}")]
    MatMul {
        /// First operand.
        left: Dims,
        /// Second operand.
        right: Dims,
    },
    /// Any other wrong shape.
    #[error("{op}: expected {expected}, got {got}")]
    Shape {
        /// The op.
        op: &'static str,
        /// What was expected.
        expected: String,
        /// What came.
        got: String,
    },
    /// A dimension outside the tensor's rank.
    #[error("{op}: dimension {dim} is out of range for shape {shape}")]
    Dim {
        /// The op.
        op: &'static str,
        /// The dimension as given.
        dim: isize,
        /// The tensor's shape.
        shape: Dims,
    },
    /// An index outside a dimension.
    #[error("{op}: index {index} is out of range for dimension {dim} of size {size}")]
    Index {
        /// The op.
        op: &'static str,
        /// The index as given.
        index: i64,
        /// The dimension.
        dim: usize,
        /// Its size.
        size: usize,
    },
    /// A dtype that the op does not take.
    #[error("{op}: expected {expected}, got {got}")]
    DType {
        /// The op.
        op: &'static str,
        /// What was expected.
        expected: &'static str,
        /// What came.
        got: DType,
    },
    /// A class index outside the classes.
    #[error("{op}: class index {label} at position {position} must be at least 0 and below {classes}")]
    Label {
        /// The op.
        op: &'static str,
        /// The offending index.
        label: i64,
        /// Where it stands.
        position: usize,
        /// Number of classes.
        classes: usize,
    },
    /// An argument with a value that makes no sense.
    #[error("{argument}: expected {expected}, got {got}")]
    Config {
        /// The argument.
        argument: &'static str,
        /// What was expected.
        expected: String,
        /// What came.
        got: String,
    },
    /// Misuse of the graph.
    #[error("{0}")]
    Graph(String),
    /// A loop in an explicit graph.
    #[error("graph: the nodes {} form a loop", .0.join(" -> "))]
    Cycle(Vec<String>),
    /// A file that is not what it should be.
    #[error("{}: {reason}", path.display())]
    CorruptFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that could not be written or read.
    #[error("{}: {source}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The allocator refused.
    #[error("out of memory: {bytes} bytes for shape {shape}")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// The shape they were for.
        shape: Dims,
    },
    /// A NaN, or an infinity, where `anomaly` looks for one.
    #[error("{0}")]
    NonFinite(Box<Birth>),
    /// A foreign callback (a gate written in Python) failed; the payload is the caller's own error.
    #[error("a gate's callback failed")]
    Foreign(Box<dyn std::any::Any + Send + Sync>),
}

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
