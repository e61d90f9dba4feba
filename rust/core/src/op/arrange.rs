//! Ops that are composed of primitive ones: roll, pad, products, norms, standard deviation.

use super::select::Compare;
use crate::buffer::Array;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::Dims;
use crate::tensor::Tensor;

/// What stands beyond the border of a padded tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PadMode {
    /// A number.
    Constant(f64),
    /// The elements beside the border, in reverse.
    Reflect,
    /// The border.
    Replicate,
    /// The elements from the other end.
    Circular,
}

impl Tensor {
    /// As [`Tensor::narrow`], from `start` counted from the end where it is negative.
    ///
    /// # Errors
    /// As [`Tensor::narrow`].
    pub fn narrow_from(&self, dim: isize, start: isize, length: usize) -> Result<Tensor> {
        let at = self.shape().dim("narrow", dim)?;
        let size = self.shape().get(at).copied().unwrap_or(1);
        match usize::try_from(if start < 0 { start.saturating_add_unsigned(size) } else { start }) {
            Ok(first) if first <= size && self.shape().rank() > 0 => self.narrow(dim, first, length),
            _ => Err(Error::Shape {
                op: "narrow",
                expected: format!("a start within dimension {at} of {}", self.shape()),
                got: start.to_string(),
            }),
        }
    }

    /// The slice at `index` of `dim`, as a view.
    ///
    /// # Errors
    /// `Dim`, or `Index` for a position outside.
    pub fn select_at(&self, dim: isize, index: isize) -> Result<Tensor> {
        let at = self.shape().dim("select", dim)?;
        let Some(&size) = self.shape().get(at) else {
            return Err(Error::Dim { op: "select", dim, shape: *self.shape() });
        };
        if !(-(size as isize)..size as isize).contains(&index) {
            return Err(Error::Index { op: "select", index: index as i64, dim: at, size });
        }
        self.narrow(at as isize, index.rem_euclid(size as isize) as usize, 1)?
            .reshape(&self.shape().removed(at))
    }

    /// Elements shifted along `dims`, those past the end back to the front; without `dims` in row-major order.
    ///
    /// # Errors
    /// `Dim`, or `Shape` where there is not a shift for each dimension.
    pub fn roll(&self, shifts: &[isize], dims: &[isize]) -> Result<Tensor> {
        if dims.is_empty() && shifts.len() == 1 {
            let flat = self.reshape(&Dims::from_slice(&[self.shape().elements()]))?;
            return flat.roll(shifts, &[0])?.reshape(self.shape());
        }
        if shifts.len() != dims.len() || shifts.is_empty() {
            return Err(Error::Shape {
                op: "roll",
                expected: format!("a shift for each of the {} dims", dims.len()),
                got: format!("{} shifts", shifts.len()),
            });
        }
        let mut x = self.copied()?;
        for (&shift, &dim) in shifts.iter().zip(dims) {
            let dim = self.shape().dim("roll", dim)?;
            let size = self.shape().get(dim).map_or(0, |&size| size as isize);
            let back = if size == 0 { 0 } else { shift.rem_euclid(size) };
            if back > 0 {
                let (at, kept) = (dim as isize, size - back);
                let parts = [x.narrow(at, kept as usize, back as usize)?, x.narrow(at, 0, kept as usize)?];
                x = Tensor::cat(&parts, at)?;
            }
        }
        Ok(x)
    }

    /// Larger, or smaller for negative pads, at both ends of dimensions: `pads` holds (before, after) for the
    /// last dimension first.
    ///
    /// # Errors
    /// `Shape` for more pairs than dimensions, crops of more than there is, or pads wider than what fills them.
    pub fn pad(&self, pads: &[(isize, isize)], mode: PadMode) -> Result<Tensor> {
        let rank = self.shape().rank();
        if pads.len() > rank {
            return Err(Error::Shape {
                op: "pad",
                expected: format!("at most {rank} pairs for shape {}", self.shape()),
                got: pads.len().to_string(),
            });
        }
        // All are checked first: nothing is computed for a call that fails.
        for (i, &(before, after)) in pads.iter().enumerate() {
            let size = self.shape()[rank - 1 - i] as isize;
            let widest = match mode {
                PadMode::Constant(_) => isize::MAX,
                PadMode::Reflect => size - 1,
                PadMode::Replicate if size > 0 => isize::MAX,
                PadMode::Replicate | PadMode::Circular => size,
            };
            let is_crop_of_more = before.min(after) < -size || before.saturating_add(after) < -size;
            if before.max(after) > widest.max(0) || is_crop_of_more {
                return Err(Error::Shape {
                    op: "pad",
                    expected: format!("pads that fit dimension {} of {}", rank - 1 - i, self.shape()),
                    got: format!("({before}, {after})"),
                });
            }
        }
        let mut full = *self.shape();
        for (i, &(before, after)) in pads.iter().enumerate() {
            full[rank - 1 - i] =
                full[rank - 1 - i].saturating_add_signed(before).saturating_add_signed(after);
        }
        Dims::new("pad", &full)?;
        let mut x = self.copied()?;
        for (i, &(before, after)) in pads.iter().enumerate().filter(|(_, pad)| **pad != (0, 0)) {
            let dim = rank - 1 - i;
            x = match mode {
                PadMode::Constant(value) => x.pad_constant(dim, before, after, value)?,
                _ => x.index_select(dim as isize, &border(mode, x.shape()[dim] as isize, before, after)?)?,
            };
        }
        Ok(x)
    }

    fn pad_constant(&self, dim: usize, before: isize, after: isize, value: f64) -> Result<Tensor> {
        // A negative pad crops.
        let (start, crop) = ((-before).max(0) as usize, (-after).max(0) as usize);
        let kept = self.narrow(dim as isize, start, self.shape()[dim] - start - crop)?;
        let block = |width: isize| {
            let mut shape = *self.shape();
            shape[dim] = width.max(0) as usize;
            Ok(Tensor::constant(Array::full(self.dtype(), Dims::new("pad", &shape)?, value)?))
        };
        Tensor::cat(&[block(before)?, kept, block(after)?], dim as isize)
    }

    /// Product over one dimension, or all; derivative the product of the other elements, zeros or not. Halves
    /// are multiplied until one slice is left, so that no quotient is needed for the gradient.
    ///
    /// # Errors
    /// `Dim`.
    pub fn prod(&self, dim: Option<isize>, keepdim: bool) -> Result<Tensor> {
        let x = if self.dtype().is_float() { self.clone() } else { self.cast(DType::I64)? };
        let rank = x.shape().rank();
        let Some(dim) = dim else {
            let all = x.reshape(&Dims::from_slice(&[x.shape().elements()]))?.prod(Some(0), false)?;
            let shape = if keepdim { vec![1; rank] } else { vec![] };
            return all.reshape(&Dims::from_slice(&shape));
        };
        let at = x.shape().dim("prod", dim)?;
        let Some(&size) = x.shape().get(at) else { return Ok(x) };
        if size == 0 {
            return x.sum(&[dim], keepdim)?.add(&Tensor::scalar(x.dtype(), 1.0)?);
        }
        let (mut product, mut left, mut odd): (_, _, Option<Tensor>) = (x, size, None);
        while left > 1 {
            let (along, half) = (at as isize, left / 2);
            if left % 2 == 1 {
                let last = product.narrow(along, left - 1, 1)?;
                odd = Some(match odd {
                    Some(odd) => odd.mul(&last)?,
                    None => last,
                });
            }
            product = product.narrow(along, 0, half)?.mul(&product.narrow(along, half, half)?)?;
            left = half;
        }
        let product = match odd {
            Some(odd) => product.mul(&odd)?,
            None => product,
        };
        if keepdim { Ok(product) } else { product.reshape(&product.shape().removed(at)) }
    }

    /// x^exponent for x that are not negative, with the derivative 0 at 0.
    fn power_from_zero(&self, exponent: f64) -> Result<Tensor> {
        let (zero, one) = (Tensor::scalar(self.dtype(), 0.0)?, Tensor::scalar(self.dtype(), 1.0)?);
        let is_zero = self.compare(Compare::Eq, &zero)?;
        is_zero.select(&zero, &is_zero.select(&one, self)?.unary(super::Unary::PowScalar(exponent))?)
    }

    /// Standard deviation: the root of [`Tensor::var`]; derivative (x - mean) / ((n - correction) std), 0 where
    /// all are equal.
    ///
    /// # Errors
    /// As [`Tensor::var`].
    pub fn std(&self, dims: &[isize], correction: f64, keepdim: bool) -> Result<Tensor> {
        self.expect_float("std")?;
        self.axes("std", dims)?;
        self.var(dims, correction, keepdim)?.power_from_zero(0.5)
    }

    fn expect_float(&self, op: &'static str) -> Result<()> {
        match self.dtype() {
            DType::F32 | DType::F64 => Ok(()),
            got => Err(Error::DType { op, expected: "float32 or float64", got }),
        }
    }

    /// (sum |x|^p)^(1/p) over `dims` (all when empty); the largest or smallest |x| for an infinite p, the number
    /// of elements that are not 0 for p = 0. Derivative sign(x) (|x| / norm)^(p - 1), 0 where the norm is.
    ///
    /// # Errors
    /// `DType`, `Dim`, `Config` for p = NaN, `Shape` when an infinite p has nothing to reduce.
    pub fn norm(&self, p: f64, dims: &[isize], keepdim: bool) -> Result<Tensor> {
        self.expect_float("norm")?;
        let axes = self.axes("norm", dims)?;
        let is_empty = (0..self.shape().rank()).any(|d| axes >> d & 1 == 1 && self.shape()[d] == 0);
        if p.is_nan() {
            return Err(Error::Config { argument: "p", expected: "a number".into(), got: "NaN".into() });
        }
        if is_empty && (p.is_infinite() || p < 0.0) {
            let expected = format!("at least one element to reduce for p = {p}");
            return Err(Error::Shape { op: "norm", expected, got: format!("shape {}", self.shape()) });
        }
        if p == 2.0 {
            return self.square()?.sum(dims, keepdim)?.power_from_zero(0.5);
        }
        let size = self.abs()?;
        if p == f64::INFINITY {
            size.amax(dims, keepdim)
        } else if p == f64::NEG_INFINITY {
            size.amin(dims, keepdim)
        } else if p == 0.0 {
            size.sign()?.sum(dims, keepdim)
        } else if p == 1.0 {
            size.sum(dims, keepdim)
        } else if p < 0.0 {
            size.pow_scalar(p)?.sum(dims, keepdim)?.pow_scalar(1.0 / p)
        } else {
            // From 2 on the power itself has derivatives at 0, the first and the second.
            let powers = if p >= 2.0 { size.pow_scalar(p)? } else { size.power_from_zero(p)? };
            powers.sum(dims, keepdim)?.power_from_zero(1.0 / p)
        }
    }
}

/// Where the elements of a padded dimension come from.
fn border(mode: PadMode, size: isize, before: isize, after: isize) -> Result<Tensor> {
    let places: Vec<i64> = (-before..size + after)
        .map(|place| match mode {
            PadMode::Circular => place.rem_euclid(size),
            PadMode::Reflect if place < 0 => -place,
            PadMode::Reflect if place >= size => 2 * (size - 1) - place,
            _ => place.clamp(0, size - 1),
        } as i64)
        .collect();
    Ok(Tensor::constant(Array::from_slice(DType::I64, Dims::new("pad", &[places.len()])?, &places)?))
}
