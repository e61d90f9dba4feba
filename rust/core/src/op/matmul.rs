//! The matrix product, alone and with the bias and activation that a plan fuses into it.

use ferrograd_kernels::dense as kernel;
use ferrograd_kernels::gemm::panels::{self, Panels};
use ferrograd_kernels::gemm::{self, MatRef};
use smallvec::smallvec;

use super::elementwise::{self, Activation, Binary, broadcast_strides};
use super::{Gradients, Meta, Op};
use crate::backward::Vjp;
use crate::buffer::Array;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::for_float;
use crate::forward::Jvp;
use crate::shape::Dims;
use crate::tensor::{Tensor, is_tracing};

/// What happens to a tile of a matrix product before it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dense {
    /// Whether a third operand is added to every row.
    pub bias: bool,
    /// What is applied last.
    pub activation: Option<Activation>,
    /// The derivative of an activation that is applied instead; its result is the last operand.
    pub derivative: Option<Binary>,
}

impl Dense {
    pub(crate) fn name(&self) -> String {
        let mut name = "matmul".to_owned();
        let activation = self.activation.map(elementwise::unary_name);
        let derivative = self.derivative.map(elementwise::binary_name);
        for part in self.bias.then_some("bias").into_iter().chain(activation).chain(derivative) {
            name += "+";
            name += part;
        }
        name
    }
}

pub(super) fn infer(left: Meta, right: Meta) -> Result<Meta> {
    if !left.dtype.is_float() {
        return Err(Error::DType { op: "matmul", expected: "float32 or float64", got: left.dtype });
    }
    let (l, r) = (left.shape, right.shape);
    if l.rank() < 2 || r.rank() < 2 || l[l.rank() - 1] != r[r.rank() - 2] {
        return Err(Error::MatMul { left: l, right: r });
    }
    let batch = Dims::broadcast(
        "matmul",
        &Dims::from_slice(&l[..l.rank() - 2]),
        &Dims::from_slice(&r[..r.rank() - 2]),
    )?;
    let shape: Dims = batch.iter().copied().chain([l[l.rank() - 2], r[r.rank() - 1]]).collect();
    Ok(Meta { dtype: left.dtype, shape: Dims::new("matmul", &shape)? })
}

pub(super) fn infer_linear(x: Meta, weight: Meta) -> Meta {
    Meta { dtype: x.dtype, shape: Dims::from_slice(&[x.shape[0], weight.shape[0]]) }
}

pub(super) fn run(a: &Array, b: &Array, out: &Array) -> Result<()> {
    for_float!("matmul", a.dtype(), T => {
        batches::<T>(a, b, out, &gemm::NoEpilogue);
        Ok(())
    })
}

/// One product per batch index: rows of C never depend on other rows, whatever the batch.
fn batches<T: ferrograd_kernels::math::Math + Element>(
    a: &Array,
    b: &Array,
    out: &Array,
    epilogue: &impl gemm::Epilogue<T>,
) {
    let shape = out.shape();
    let rank = shape.rank();
    let (m, n, k) = (shape[rank - 2], shape[rank - 1], a.shape()[a.shape().rank() - 1]);
    let batch = Dims::from_slice(&shape[..rank - 2]);
    let matrix = |x: &Array| (x.strides()[x.shape().rank() - 2], x.strides()[x.shape().rank() - 1]);
    let ((a_rs, a_cs), (b_rs, b_cs)) = (matrix(a), matrix(b));
    let (a_batch, b_batch) = (batch_strides(a, &batch), batch_strides(b, &batch));
    let (a, b, mut c) = (a.read::<T>(), b.read::<T>(), out.write::<T>());
    for i in 0..batch.elements() {
        let (mut at_a, mut at_b, mut rest) = (0, 0, i);
        for d in (0..batch.rank()).rev() {
            at_a += rest % batch[d] * a_batch[d];
            at_b += rest % batch[d] * b_batch[d];
            rest /= batch[d];
        }
        let c = &mut c[i * m * n..(i + 1) * m * n];
        let a = MatRef::new(&a[at_a.min(a.len())..], a_rs, a_cs);
        let b = MatRef::new(&b[at_b.min(b.len())..], b_rs, b_cs);
        gemm::gemm(m, n, k, a, b, c, n, false, epilogue);
    }
}

fn batch_strides(x: &Array, batch: &Dims) -> Dims {
    let rank = x.shape().rank() - 2;
    broadcast_strides(&x.shape()[..rank], &x.strides()[..rank], batch)
}

pub(super) fn run_dense(dense: &Dense, inputs: &[&Array], out: &Array) -> Result<()> {
    for_float!("dense", out.dtype(), T => {
        let bias = dense.bias.then(|| inputs[2].read::<T>());
        let result = dense.derivative.map(|op| (op, inputs[inputs.len() - 1]));
        let result_values = result.map(|(_, y)| y.read::<T>());
        let derivative = result.zip(result_values.as_deref()).map(|((op, y), values)| {
            kernel::Derivative { op, y: values, row: y.strides()[0], column: y.strides()[1] }
        });
        let epilogue = kernel::Dense { bias: bias.as_deref(), activation: dense.activation, derivative };
        batches::<T>(inputs[0], inputs[1], out, &epilogue);
        Ok(())
    })
}

/// The bits of a product with the transposed weight and a sum after it.
pub(super) fn run_linear(inputs: &[&Array], out: &Array) -> Result<()> {
    let weight = super::shape::permute_view(inputs[1], &Dims::from_slice(&[1, 0]));
    let dense = Dense { bias: inputs.len() > 2, ..Dense::default() };
    match *inputs {
        [x, _, bias] => run_dense(&dense, &[x, &weight, bias], out),
        _ => run_dense(&dense, &[inputs[0], &weight], out),
    }
}

/// Y = X W^T + b: dX = G W, dW = G^T X, db = G summed over the rows. Each as it would come from the three
/// ops, but for dW: computed in W's layout instead of transposed, from the same products in the same order.
pub(super) fn vjp_linear(cx: &Vjp) -> Result<Gradients> {
    let g = cx.grad();
    let x = cx.needs(0).then(|| Tensor::apply(Op::MatMul, &[g, &cx.input(1)])).transpose()?;
    let weight =
        cx.needs(1).then(|| Tensor::apply(Op::MatMul, &[&g.transpose(0, 1)?, &cx.input(0)])).transpose()?;
    let mut grads: Gradients = smallvec![x, weight];
    if cx.arity() > 2 {
        grads.push(cx.needs(2).then(|| g.sum_to(cx.shape(2))).transpose()?);
    }
    Ok(grads)
}

/// dX W^T + X dW^T + db.
pub(super) fn jvp_linear(cx: &Jvp) -> Result<Option<Tensor>> {
    cx.sum(|i, t| match i {
        0 => Tensor::apply(Op::Linear, &[t, &cx.input(1)]).map(Some),
        1 => Tensor::apply(Op::Linear, &[&cx.input(0), &t.contiguous()?]).map(Some),
        _ => t.broadcast_to(cx.result_shape()).map(Some),
    })
}

/// As [`run_dense`] or [`run`], for a right operand that is packed, or whose transpose is. Rows of the result may be
/// padded.
pub(crate) fn run_packed(
    dense: &Dense,
    inputs: &[&Array],
    (layout, packed, is_turned): (&Panels, &Array, bool),
    out: &Array,
    threads: usize,
) -> Result<()> {
    for_float!("dense", out.dtype(), T => {
        let x = inputs[0];
        let (rows, a) = (x.shape()[0], x.read::<T>());
        let a = MatRef::new(&a, x.strides()[0], x.strides()[1]);
        let bias = dense.bias.then(|| inputs[1].read::<T>());
        let y = inputs[inputs.len() - 1];
        let y_values = dense.derivative.map(|_| y.read::<T>());
        let then = match (dense.activation, dense.derivative, &y_values) {
            (Some(activation), ..) => kernel::Then::Activate(activation),
            (_, Some(derivative), Some(values)) => kernel::Then::Derivative(derivative, values, y.row_stride()),
            _ => kernel::Then::Nothing,
        };
        let layer = kernel::Layer { bias: bias.as_deref(), then };
        let stride = out.row_stride();
        let (packed, mut c) = (packed.read::<T>(), out.write::<T>());
        let b = panels::Factor::new(&packed, *layout);
        let b = if is_turned { b.transposed() } else { b };
        panels::multiply_panels(rows, a, b, &mut c, stride, &layer, threads);
        Ok(())
    })
}

/// C = A B: dA = G B^T, dB = A^T G, summed over broadcast batches.
pub(super) fn vjp(cx: &Vjp) -> Result<Gradients> {
    let g = cx.grad();
    let a = cx.needs(0).then(|| {
        let b = cx.input(1).transpose(-1, -2)?;
        Tensor::apply(Op::MatMul, &[g, &b])?.sum_to(cx.shape(0))
    });
    let b = cx.needs(1).then(|| {
        let a = cx.input(0).transpose(-1, -2)?;
        Tensor::apply(Op::MatMul, &[&a, g])?.sum_to(cx.shape(1))
    });
    Ok(smallvec![a.transpose()?, b.transpose()?])
}

impl Tensor {
    /// The matrix product with numpy's rules: a vector on the left is a row, on the right a column,
    /// leading dimensions are batches and broadcast.
    ///
    /// # Errors
    /// `MatMul` when inner dimensions differ, `Broadcast` when batches do.
    pub fn matmul(&self, other: &Tensor) -> Result<Tensor> {
        let (left, right) = (*self.shape(), *other.shape());
        if left.rank() == 0 || right.rank() == 0 {
            return Err(Error::MatMul { left, right });
        }
        let dtype = DType::promote(self.dtype(), false, other.dtype(), false);
        let (mut a, mut b) = (self.cast(dtype)?, other.cast(dtype)?);
        if left.rank() == 1 {
            a = a.unsqueeze(0)?;
        }
        if right.rank() == 1 {
            b = b.unsqueeze(1)?;
        }
        // A shared right operand needs one product, not one per batch; whatever the strides, so that the sum over
        // the rows, which is its gradient, has one order.
        let folds = a.shape().rank() > 2 && b.shape().rank() == 2;
        let product = if folds {
            let (rank, full) = (a.shape().rank(), *a.shape());
            if full[rank - 1] != b.shape()[0] {
                return Err(Error::MatMul { left, right });
            }
            let mut shape = full;
            shape[rank - 1] = b.shape()[1];
            Tensor::apply(Op::MatMul, &[&a.flatten(0, rank as isize - 2)?, &b])?.reshape(&shape)
        } else {
            Tensor::apply(Op::MatMul, &[&a, &b])
        };
        let product = product.map_err(|error| match error {
            Error::MatMul { .. } => Error::MatMul { left, right },
            error => error,
        })?;
        let product = if right.rank() == 1 { product.squeeze(&[-1])? } else { product };
        if left.rank() == 1 {
            let at = if right.rank() == 1 { -1 } else { -2 };
            if product.shape().rank() > 0 {
                return product.squeeze(&[at]);
            }
        }
        Ok(product)
    }

    /// x W^T + b for weights of shape (outputs, inputs).
    ///
    /// # Errors
    /// `Shape` when the widths differ.
    pub fn linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let (x, w) = (self.shape(), weight.shape());
        if w.rank() != 2 || x.rank() == 0 || x[x.rank() - 1] != w[1] {
            return Err(Error::Shape {
                op: "linear",
                expected: format!("input of shape (..., {}) for weight of shape {w}", w.last().unwrap_or(&0)),
                got: x.to_string(),
            });
        }
        let fits = |t: &Tensor| t.dtype() == self.dtype() && t.array().is_contiguous();
        let is_one_pass = !is_tracing()
            && self.dtype().is_float()
            && x.rank() == 2
            && fits(weight)
            && bias.is_none_or(|bias| fits(bias) && *bias.shape() == Dims::from_slice(&w[..1]));
        if is_one_pass {
            return match bias {
                Some(bias) => Tensor::apply(Op::Linear, &[self, weight, bias]),
                None => Tensor::apply(Op::Linear, &[self, weight]),
            };
        }
        let product = self.matmul(&weight.transpose(0, 1)?)?;
        match bias {
            Some(bias) => product.add(bias),
            None => Ok(product),
        }
    }
}
