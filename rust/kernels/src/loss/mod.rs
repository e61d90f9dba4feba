//! Losses over logits or probabilities, each with its gradient in one pass. `loss` and `grad` are optional:
//! one kernel serves value, gradient or both, with the same bits.
//!
//! Row losses are not reduced here; rows are independent and may be split anywhere.

mod class;
mod few;
mod point;

pub use class::{
    CrossEntropy, cross_entropy_rows, multi_margin_rows, negative_log_likelihood_rows,
    soft_cross_entropy_rows,
};
pub use few::count_correct;
pub use point::{bce, bce_with_logits, squared_error};

#[cfg(test)]
mod tests;
