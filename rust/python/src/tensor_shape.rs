//! Methods of `Tensor` that change its shape: views where strides allow.

use ferrograd_core::op::Op;
use ferrograd_core::shape::{Dims, MAX_RANK};
use ferrograd_core::tensor::Tensor;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use smallvec::SmallVec;

use crate::argument;
use crate::error::{Kind, Result, enter, raise};
use crate::operand::{Sizes, shape, sizes};
use crate::tensor::PyTensor;

#[pymethods]
impl PyTensor {
    /// The same elements in row-major order under another shape; one size may be -1. A view where
    /// strides allow, else a copy. Raises ShapeError where the number of elements differs.
    #[pyo3(signature = (*shape))]
    fn reshape(&self, shape: &Bound<'_, PyTuple>) -> Result<PyTensor> {
        enter(|| {
            let x = self.live()?;
            Ok(x.reshape(&x.inferred_shape("reshape", &sizes("shape", shape)?)?)?.into())
        })
    }

    /// As `reshape`, but never a copy: raises ShapeError where strides do not allow a view.
    #[pyo3(signature = (*shape))]
    fn view(&self, shape: &Bound<'_, PyTuple>) -> Result<PyTensor> {
        enter(|| {
            let x = self.live()?;
            let target = x.inferred_shape("view", &sizes("shape", shape)?)?;
            if Op::Reshape(target).view(x.array()).is_none() {
                let text = format!(
                    "view: shape {target} does not fit the strides of this tensor of shape {}; use reshape",
                    x.shape()
                );
                return Err(raise(Kind::Shape, text).into());
            }
            Ok(x.reshape(&target)?.into())
        })
    }

    /// Dimensions `start_dim` to `end_dim` as one.
    #[pyo3(signature = (start_dim = 0, end_dim = -1), text_signature = "($self, start_dim=0, end_dim=-1)")]
    fn flatten(
        &self,
        #[pyo3(from_py_with = argument::start_dim)] start_dim: isize,
        #[pyo3(from_py_with = argument::end_dim)] end_dim: isize,
    ) -> Result<PyTensor> {
        enter(|| Ok(self.live()?.flatten(start_dim, end_dim)?.into()))
    }

    /// Without dimension `dim` if it is 1, or without all dimensions of 1.
    #[pyo3(signature = (dim = None))]
    fn squeeze(&self, #[pyo3(from_py_with = argument::dim)] dim: Option<isize>) -> Result<PyTensor> {
        enter(|| Ok(self.live()?.squeeze(dim.as_slice())?.into()))
    }

    /// With a new dimension of 1 at `dim`.
    fn unsqueeze(&self, #[pyo3(from_py_with = argument::dim)] dim: isize) -> Result<PyTensor> {
        enter(|| Ok(self.live()?.unsqueeze(dim)?.into()))
    }

    /// Two dimensions exchanged, as a view.
    fn transpose(
        &self,
        #[pyo3(from_py_with = argument::dim0)] dim0: isize,
        #[pyo3(from_py_with = argument::dim1)] dim1: isize,
    ) -> Result<PyTensor> {
        enter(|| Ok(self.live()?.transpose(dim0, dim1)?.into()))
    }

    /// A matrix transposed; fewer dimensions stay as they are.
    fn t(&self) -> Result<PyTensor> {
        enter(|| {
            let x = self.live()?;
            if x.shape().rank() > 2 {
                let text = format!("t: expected at most 2 dimensions, got shape {}", x.shape());
                return Err(raise(Kind::Shape, text).into());
            }
            Ok(x.t()?.into())
        })
    }

    /// All dimensions reversed, as a view.
    #[getter(T)]
    fn reversed(&self) -> Result<PyTensor> {
        enter(|| Ok(self.live()?.t()?.into()))
    }

    /// Dimensions in another order, as a view.
    #[pyo3(signature = (*dims))]
    fn permute(&self, dims: &Bound<'_, PyTuple>) -> Result<PyTensor> {
        enter(|| {
            let x = self.live()?;
            let order = sizes("dims", dims)?
                .iter()
                .map(|&d| x.shape().dim("permute", d))
                .collect::<Result<SmallVec<[_; MAX_RANK]>, _>>()?;
            Ok(x.permute(&Dims::new("permute", &order)?)?.into())
        })
    }

    /// Dimensions of 1 repeated to the given sizes, as a view; -1 leaves a size as it is.
    #[pyo3(signature = (*sizes))]
    fn expand(&self, sizes: &Bound<'_, PyTuple>) -> Result<PyTensor> {
        enter(|| Ok(expand(self.live()?, crate::operand::sizes("sizes", sizes)?)?.into()))
    }

    /// Broadcast to a shape, as a view.
    fn broadcast_to(&self, #[pyo3(from_py_with = argument::size)] size: Vec<isize>) -> Result<PyTensor> {
        enter(|| Ok(self.live()?.broadcast_to(&shape("broadcast_to", &size)?)?.into()))
    }
}

fn expand(x: &Tensor, mut sizes: Sizes) -> Result<Tensor> {
    let lead = sizes.len().saturating_sub(x.shape().rank());
    for (at, size) in sizes.iter_mut().enumerate() {
        if *size == -1 && at >= lead {
            *size = x.shape()[at - lead] as isize;
        }
    }
    Ok(x.broadcast_to(&shape("expand", &sizes)?)?)
}
