//! Element types, their promotion, and the dispatch from a [`DType`] to a Rust type.

use std::fmt;

/// The element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// Single precision: the default.
    F32,
    /// Double precision.
    F64,
    /// Indices and class labels.
    I64,
    /// Bytes, such as images.
    U8,
    /// 0 or 1 in a byte.
    Bool,
}

impl DType {
    /// Size of one element in bytes.
    pub fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F64 | DType::I64 => 8,
            DType::U8 | DType::Bool => 1,
        }
    }

    /// numpy's name.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "float32",
            DType::F64 => "float64",
            DType::I64 => "int64",
            DType::U8 => "uint8",
            DType::Bool => "bool",
        }
    }

    /// Whether gradients can flow through it.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64)
    }

    /// PyTorch's categories: bool < integer < floating point.
    fn category(self) -> u8 {
        match self {
            DType::Bool => 0,
            DType::I64 | DType::U8 => 1,
            DType::F32 | DType::F64 => 2,
        }
    }

    fn rank(self) -> u8 {
        match self {
            DType::Bool => 0,
            DType::U8 => 1,
            DType::I64 => 2,
            DType::F32 => 3,
            DType::F64 => 4,
        }
    }

    /// The dtype of an op on two operands, as PyTorch promotes: the higher category wins; within one
    /// category an operand of rank 0 gives way to one that has dimensions.
    pub fn promote(left: DType, left_is_scalar: bool, right: DType, right_is_scalar: bool) -> DType {
        if left.category() != right.category() {
            return if left.category() > right.category() { left } else { right };
        }
        match (left_is_scalar, right_is_scalar) {
            (true, false) => right,
            (false, true) => left,
            _ if left.rank() >= right.rank() => left,
            _ => right,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type that a buffer can hold. `bool` tensors are bytes that are 0 or 1.
pub trait Element: Copy + Send + Sync + Default + PartialEq + PartialOrd + 'static {
    /// Whether a buffer of this dtype holds values of this type.
    fn matches(dtype: DType) -> bool;
    /// Exact for every value that a conversion between our dtypes can meet, but for int64 past 2^53.
    fn to_f64(self) -> f64;
    /// Rounds; saturates for integers.
    fn from_f64(value: f64) -> Self;
}

macro_rules! element {
    ($type:ty, $($dtype:ident)|+) => {
        impl Element for $type {
            #[inline(always)]
            fn matches(dtype: DType) -> bool {
                matches!(dtype, $(DType::$dtype)|+)
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as $type
            }
        }
    };
}
element!(f32, F32);
element!(f64, F64);
element!(i64, I64);
element!(u8, U8 | Bool);

/// Runs the body with `$t` bound to the Rust type of a floating dtype; anything else is a `DType` error.
#[macro_export]
macro_rules! for_float {
    ($op:expr, $dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            $crate::dtype::DType::F32 => {
                type $t = f32;
                $body
            }
            $crate::dtype::DType::F64 => {
                type $t = f64;
                $body
            }
            got => Err($crate::error::Error::DType { op: $op, expected: "float32 or float64", got }),
        }
    };
}

/// Runs the body with `$t` bound to the Rust type of any dtype.
#[macro_export]
macro_rules! for_any {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            $crate::dtype::DType::F32 => {
                type $t = f32;
                $body
            }
            $crate::dtype::DType::F64 => {
                type $t = f64;
                $body
            }
            $crate::dtype::DType::I64 => {
                type $t = i64;
                $body
            }
            $crate::dtype::DType::U8 | $crate::dtype::DType::Bool => {
                type $t = u8;
                $body
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promotion_follows_pytorch() {
        use DType::*;
        assert_eq!(DType::promote(F32, false, F64, false), F64);
        assert_eq!(DType::promote(F32, false, F64, true), F32);
        assert_eq!(DType::promote(I64, false, F32, true), F32);
        assert_eq!(DType::promote(Bool, false, I64, false), I64);
        assert_eq!(DType::promote(U8, false, I64, true), U8);
    }
}
