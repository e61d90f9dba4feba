//! Kernels along the middle dimension of a contiguous `(outer, n, inner)`: running sums, elements picked or
//! added by index, and the order of elements.

/// Sizes of a contiguous array around the dimension that a kernel works along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Around {
    /// Product of the sizes before.
    pub outer: usize,
    /// The size of the dimension.
    pub n: usize,
    /// Product of the sizes after.
    pub inner: usize,
}

impl Around {
    fn len(self) -> usize {
        self.outer * self.n * self.inner
    }
}

/// `out[k] = x[0] + ... + x[k]`, or from the other end; each sum adds one element to the one before.
pub fn cumsum<T: Copy>(reverse: bool, form: Around, x: &[T], out: &mut [T], add: impl Fn(T, T) -> T) {
    assert!(x.len() == form.len() && out.len() == form.len(), "contiguous (outer, n, inner)");
    let Around { n, inner, .. } = form;
    if form.len() == 0 {
        return;
    }
    let row = |k: usize| if reverse { (n - 1 - k) * inner } else { k * inner };
    for (x, out) in x.chunks_exact(n * inner).zip(out.chunks_exact_mut(n * inner)) {
        out[row(0)..][..inner].copy_from_slice(&x[row(0)..][..inner]);
        for k in 1..n {
            let (from, to) = (row(k - 1), row(k));
            for j in 0..inner {
                out[to + j] = add(out[from + j], x[to + j]);
            }
        }
    }
}

/// The first index outside `0..n`, if there is one.
pub fn outside(n: usize, index: &[i64]) -> Option<i64> {
    index.iter().copied().find(|i| !(0..n as i64).contains(i))
}

/// `out[o, j, i] = x[o, index[o, j, i], i]` for `index` of shape `(outer, m, inner)` with entries in `0..n`.
pub fn gather<T: Copy>(form: Around, m: usize, x: &[T], index: &[i64], out: &mut [T]) {
    assert!(x.len() == form.len() && index.len() == out.len(), "contiguous (outer, n, inner)");
    each(form, m, index, |at, from| out[at] = x[from]);
}

/// `out[o, index[o, j, i], i] += x[o, j, i]`, in the order of the index: the order of the sums is fixed.
pub fn scatter_add<T: Copy>(
    form: Around,
    m: usize,
    x: &[T],
    index: &[i64],
    out: &mut [T],
    add: impl Fn(T, T) -> T,
) {
    assert!(out.len() == form.len() && index.len() == x.len(), "contiguous (outer, n, inner)");
    each(form, m, index, |at, to| out[to] = add(out[to], x[at]));
}

/// Calls `body(place in the index, place in (outer, n, inner))` for every entry.
fn each(form: Around, m: usize, index: &[i64], mut body: impl FnMut(usize, usize)) {
    let Around { outer, n, inner } = form;
    assert_eq!(index.len(), outer * m * inner, "an index of shape (outer, m, inner)");
    let mut at = 0;
    for o in 0..outer {
        for _ in 0..m {
            for i in 0..inner {
                body(at, (o * n + index[at] as usize) * inner + i);
                at += 1;
            }
        }
    }
}

/// A value whose order is that of an integer.
pub trait Ordered: Copy {
    /// Larger for larger values; the same for both zeros, the largest for any NaN.
    fn key(self) -> i64;
}

macro_rules! ordered_floats {
    ($($type:ident as $int:ident),*) => {$(
        impl Ordered for $type {
            fn key(self) -> i64 {
                let bits = self.to_bits() as $int;
                // Negative numbers grow towards 0: all bits but the sign turn over.
                let turned = bits ^ ((bits >> ($int::BITS - 1)) & $int::MAX);
                let number = if self == 0.0 { 0 } else { turned };
                if self.is_nan() { i64::MAX } else { number.into() }
            }
        }
    )*};
}
ordered_floats!(f32 as i32, f64 as i64);

impl Ordered for i64 {
    fn key(self) -> i64 {
        self
    }
}

impl Ordered for u8 {
    fn key(self) -> i64 {
        self.into()
    }
}

/// The places of the first `count` elements in ascending or descending order, as `(outer, count, inner)`. Equal
/// elements keep their order, NaN is the largest.
pub fn argsort<T: Ordered>(descending: bool, form: Around, count: usize, x: &[T], out: &mut [i64]) {
    let Around { outer, n, inner } = form;
    assert!(x.len() == form.len() && count <= n, "contiguous (outer, n, inner)");
    assert_eq!(out.len(), outer * count * inner, "(outer, count, inner)");
    if out.is_empty() {
        return;
    }
    let mut places: Vec<(i64, usize)> = Vec::with_capacity(n);
    for o in 0..outer {
        for i in 0..inner {
            // The place decides last, so no two compare as equal and any sort is stable.
            places.clear();
            places.extend((0..n).map(|k| {
                let key = x[(o * n + k) * inner + i].key();
                (if descending { !key } else { key }, k)
            }));
            if count < n {
                places.select_nth_unstable(count);
                places.truncate(count);
            }
            places.sort_unstable();
            for (k, &(_, place)) in places.iter().enumerate() {
                out[(o * count + k) * inner + i] = place as i64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: Around = Around { outer: 2, n: 3, inner: 2 };
    const X: [f64; 12] = [5.0, 1.0, 2.0, 2.0, 5.0, 0.0, f64::NAN, 4.0, 1.0, 4.0, 7.0, 9.0];

    #[test]
    fn running_sums_go_either_way() {
        let x: Vec<i64> = (1..13).collect();
        let mut out = vec![0; 12];
        cumsum(false, FORM, &x, &mut out, i64::wrapping_add);
        assert_eq!(out, [1, 2, 4, 6, 9, 12, 7, 8, 16, 18, 27, 30]);
        cumsum(true, FORM, &x, &mut out, i64::wrapping_add);
        assert_eq!(out, [9, 12, 8, 10, 5, 6, 27, 30, 20, 22, 11, 12]);
    }

    #[test]
    fn order_is_stable_and_puts_nan_last() {
        let mut out = vec![0; 12];
        argsort(false, FORM, 3, &X, &mut out);
        assert_eq!(out, [1, 2, 0, 0, 2, 1, 1, 0, 2, 1, 0, 2]);
        let mut out = vec![0; 8];
        argsort(true, FORM, 2, &X, &mut out);
        assert_eq!(out, [0, 1, 2, 0, 0, 2, 2, 0]);
    }

    #[test]
    fn keys_grow_with_the_values() {
        let x =
            [f64::NEG_INFINITY, -3e300, -1.5, -1.0, -1e-310, 0.0, 1e-310, 2.0, 3e38, f64::INFINITY, f64::NAN];
        assert!(x.windows(2).all(|pair| pair[0].key() < pair[1].key()));
        let single = x.map(|v| v as f32);
        assert!(single.windows(2).all(|pair| pair[0].key() <= pair[1].key()));
        assert_eq!((-0.0f64).key(), 0.0f64.key());
        assert_eq!((-0.0f32).key(), 0.0f32.key());
        assert_eq!((-f64::NAN).key(), f64::NAN.key());
        assert!((-2i64).key() < 1i64.key() && 3u8.key() < 200u8.key());
    }

    #[test]
    fn a_scatter_is_the_adjoint_of_a_gather() {
        let index = [2, 0, 0, 0, 1, 2, 1, 1];
        let x: Vec<f64> = (0..12).map(|v| f64::from(v) + 0.5).collect();
        let g: Vec<f64> = (0..8).map(|v| f64::from(v * v) - 3.0).collect();
        let (mut picked, mut back) = (vec![0.0; 8], vec![0.0; 12]);
        gather(FORM, 2, &x, &index, &mut picked);
        scatter_add(FORM, 2, &g, &index, &mut back, |a, b| a + b);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        assert_eq!(dot(&picked, &g), dot(&x, &back));
        assert_eq!(picked, [4.5, 1.5, 0.5, 1.5, 8.5, 11.5, 8.5, 9.5]);
        assert_eq!(outside(3, &index), None);
        assert_eq!(outside(2, &index), Some(2));
        assert_eq!(outside(2, &[0, -1]), Some(-1));
    }
}
