//! Shapes and strides of rank 0 to 8, by value: no allocation on the way of an op.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::error::{Error, Result};

/// The largest rank.
pub const MAX_RANK: usize = 8;

/// A shape, strides (in elements, 0 = broadcast), or a permutation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dims {
    rank: u8,
    dims: [usize; MAX_RANK],
}

impl Dims {
    /// From a slice.
    ///
    /// # Errors
    /// More than 8 dimensions, or a product that overflows.
    pub fn new(op: &'static str, dims: &[usize]) -> Result<Dims> {
        if dims.len() > MAX_RANK {
            return Err(Error::Shape {
                op,
                expected: format!("at most {MAX_RANK} dimensions"),
                got: format!("{}", dims.len()),
            });
        }
        // The bound leaves room for strides and byte counts in isize.
        let elements = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)));
        if elements.is_none_or(|n| n > 1 << 48) {
            return Err(Error::Shape {
                op,
                expected: "at most 2^48 elements".into(),
                got: format!("{dims:?}"),
            });
        }
        Ok(Dims::from_slice(dims))
    }

    /// From a slice that is known to be valid.
    pub fn from_slice(dims: &[usize]) -> Dims {
        let mut out = Dims { rank: dims.len() as u8, dims: [0; MAX_RANK] };
        out.dims[..dims.len()].copy_from_slice(dims);
        out
    }

    /// Rank 0.
    pub const fn scalar() -> Dims {
        Dims { rank: 0, dims: [0; MAX_RANK] }
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.rank as usize
    }

    /// Product of the dimensions; 1 for rank 0.
    pub fn elements(&self) -> usize {
        self.iter().product()
    }

    /// Row-major strides.
    pub fn contiguous_strides(&self) -> Dims {
        let mut strides = *self;
        let mut step = 1;
        for i in (0..self.rank()).rev() {
            strides[i] = step;
            step *= self[i];
        }
        strides
    }

    /// The dimension that a possibly negative index names.
    ///
    /// # Errors
    /// `Dim` when it is out of range. Rank 0 takes 0 and -1, as PyTorch does.
    pub fn dim(&self, op: &'static str, dim: isize) -> Result<usize> {
        let rank = self.rank().max(1) as isize;
        if (-rank..rank).contains(&dim) {
            Ok(dim.rem_euclid(rank) as usize)
        } else {
            Err(Error::Dim { op, dim, shape: *self })
        }
    }

    /// With `value` put in front of dimension `at`.
    pub fn inserted(&self, at: usize, value: usize) -> Dims {
        self[..at].iter().copied().chain([value]).chain(self[at..].iter().copied()).collect()
    }

    /// Without dimension `at`.
    pub fn removed(&self, at: usize) -> Dims {
        self[..at].iter().chain(&self[at + 1..]).copied().collect()
    }

    /// The shape both operands broadcast to, by numpy's rule.
    ///
    /// # Errors
    /// `Broadcast` when a dimension differs and neither is 1.
    pub fn broadcast(op: &'static str, left: &Dims, right: &Dims) -> Result<Dims> {
        let rank = left.rank().max(right.rank());
        let mut out = Dims { rank: rank as u8, dims: [0; MAX_RANK] };
        for i in 0..rank {
            let l = if i + left.rank() >= rank { left[i + left.rank() - rank] } else { 1 };
            let r = if i + right.rank() >= rank { right[i + right.rank() - rank] } else { 1 };
            out[i] = match (l, r) {
                _ if l == r => l,
                (1, r) => r,
                (l, 1) => l,
                _ => return Err(Error::Broadcast { op, left: *left, right: *right }),
            };
        }
        Ok(out)
    }
}

/// From at most 8 sizes.
impl FromIterator<usize> for Dims {
    fn from_iter<I: IntoIterator<Item = usize>>(sizes: I) -> Dims {
        let mut out = Dims::scalar();
        for size in sizes {
            out.dims[out.rank()] = size;
            out.rank += 1;
        }
        out
    }
}

impl Deref for Dims {
    type Target = [usize];
    #[inline]
    fn deref(&self) -> &[usize] {
        &self.dims[..self.rank as usize]
    }
}

impl DerefMut for Dims {
    #[inline]
    fn deref_mut(&mut self) -> &mut [usize] {
        &mut self.dims[..self.rank as usize]
    }
}

/// As Python writes a tuple: `(3, 4)`, `(3,)`, `()`.
impl fmt::Display for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self[..] {
            [one] => write!(f, "({one},)"),
            many => {
                let parts: Vec<_> = many.iter().map(usize::to_string).collect();
                write!(f, "({})", parts.join(", "))
            }
        }
    }
}

impl fmt::Debug for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(d: &[usize]) -> Dims {
        Dims::from_slice(d)
    }

    #[test]
    fn broadcast_follows_numpy() {
        assert_eq!(Dims::broadcast("add", &dims(&[3, 1]), &dims(&[4])).unwrap(), dims(&[3, 4]));
        assert_eq!(Dims::broadcast("add", &dims(&[]), &dims(&[0, 2])).unwrap(), dims(&[0, 2]));
        assert!(Dims::broadcast("add", &dims(&[3]), &dims(&[4])).is_err());
        assert!(Dims::broadcast("add", &dims(&[0]), &dims(&[4])).is_err());
    }

    #[test]
    fn shapes_print_as_tuples() {
        assert_eq!(dims(&[]).to_string(), "()");
        assert_eq!(dims(&[3]).to_string(), "(3,)");
        assert_eq!(dims(&[3, 4]).to_string(), "(3, 4)");
    }

    #[test]
    fn too_many_dimensions_or_elements_are_refused() {
        assert!(Dims::new("zeros", &[1; 9]).is_err());
        assert!(Dims::new("zeros", &[usize::MAX, 2]).is_err());
    }
}
