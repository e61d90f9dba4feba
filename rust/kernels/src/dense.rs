//! The end of a dense layer: bias and activation on a finished tile of the matrix product.

use crate::elementwise::{Unary, activate_inline};
use crate::gemm::Epilogue;
use crate::math::Math;

/// `c = activation(c + bias[column])`: the operations, and so the bits, of the separate passes.
#[derive(Clone, Copy, Debug)]
pub struct Dense<'a, T> {
    /// A value for each column of C.
    pub bias: Option<&'a [T]>,
    /// Applied last.
    pub activation: Option<Unary>,
}

impl<T: Math> Epilogue<T> for Dense<'_, T> {
    #[inline(always)]
    fn finish(&self, _row: usize, column: usize, values: &mut [T]) {
        if let Some(bias) = self.bias {
            let bias = &bias[column..column + values.len()];
            for j in 0..values.len() {
                values[j] += bias[j];
            }
        }
        if let Some(activation) = self.activation {
            activate_inline(activation, values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::activate;
    use crate::gemm::{MatRef, NoEpilogue, gemm};
    use crate::isa::{self, Level};

    #[test]
    fn fused_bias_and_activation_have_the_bits_of_separate_passes() {
        let (m, n, k) = (19, 37, 23);
        let a: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.37).sin()).collect();
        let b: Vec<f32> = (0..k * n).map(|i| (i as f32 * 0.73).cos()).collect();
        let bias: Vec<f32> = (0..n).map(|i| i as f32 * 0.1 - 1.5).collect();
        for level in Level::supported() {
            isa::force(level).unwrap();
            for op in [Unary::Relu, Unary::Tanh, Unary::Sigmoid, Unary::Elu(1.0), Unary::LeakyRelu(0.01)] {
                let (a, b) = (MatRef::rows(&a, k), MatRef::rows(&b, n));
                let mut plain = vec![0.0; m * n];
                gemm(m, n, k, a, b, &mut plain, n, false, &NoEpilogue);
                for row in plain.chunks_exact_mut(n) {
                    row.iter_mut().zip(&bias).for_each(|(c, b)| *c += b);
                }
                activate(op, &mut plain);
                let mut fused = vec![0.0; m * n];
                gemm(m, n, k, a, b, &mut fused, n, false, &Dense { bias: Some(&bias), activation: Some(op) });
                assert_eq!(fused, plain, "{level} {op:?}");
            }
        }
    }
}
