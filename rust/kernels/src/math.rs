//! Elementary functions without branches or tables, so that loops over them vectorise and give the
//! same bits on every instruction set. `sin`, `cos` and `pow` are scalar, from the `libm` crate.
//!
//! Bounds in units in the last place (ulp), enforced by the tests below: `exp` 1; `log` 1.5 (`f32`)
//! and 1 (`f64`); `tanh`, `expm1`, `log1p` 3; `sigmoid` 4 (`f32`) and 3 (`f64`). Measured over every `f32`:
//! `exp` 0.81, `expm1` 1.84, `log` 0.83, `log1p` 0.83, `tanh` 2.52, `sigmoid` 2.40.

use crate::erf::{self, Coefficients};
use crate::lanes::Real;

/// Elementary functions of `f32` and `f64`. NaN gives NaN.
pub trait Math: Real + Coefficients {
    /// `e^x`; overflows to infinity and underflows gradually to 0.
    fn exp(self) -> Self;
    /// `e^x - 1` without cancellation near 0.
    fn expm1(self) -> Self;
    /// Natural logarithm; `log(0) = -inf`, `log(x < 0) = NaN`.
    fn log(self) -> Self;
    /// `log(1 + x)` without cancellation near 0.
    fn log1p(self) -> Self;
    /// Hyperbolic tangent: odd to the bit, never beyond 1.
    fn tanh(self) -> Self;
    /// `1 / (1 + e^-x)`, with full relative accuracy for very negative `x`.
    fn sigmoid(self) -> Self;
    /// Error function: odd to the bit, never beyond 1.
    fn erf(self) -> Self;
    /// `(1 + erf(x / sqrt 2)) / 2`, with full relative accuracy for very negative `x`.
    fn normal_cdf(self) -> Self;
    /// Sine; scalar.
    fn sin(self) -> Self;
    /// Cosine; scalar.
    fn cos(self) -> Self;
    /// `self^exponent`; scalar.
    fn pow(self, exponent: Self) -> Self;
    /// The larger value, or NaN where either is NaN.
    #[inline(always)]
    fn maximum(self, other: Self) -> Self {
        if (self > other) | self.is_nan() { self } else { other }
    }
    /// The smaller value, or NaN where either is NaN.
    #[inline(always)]
    fn minimum(self, other: Self) -> Self {
        if (self < other) | self.is_nan() { self } else { other }
    }
}

macro_rules! math {
    (
        $type:ident, $bits:ident, mantissa: $mantissa:literal, bias: $bias:literal,
        round: $round:literal, ln2: ($ln2_hi:literal, $ln2_lo:literal),
        exp_range: ($exp_min:literal, $exp_max:literal), expm1_min: $expm1_min:literal, tanh_max: $tanh_max:literal,
        sqrt_half: $sqrt_half:expr, subnormal: ($subnormal_scale:literal, $subnormal_exponent:literal),
        exp: $exp:expr, log: $log:expr, libm: ($sin:ident, $cos:ident, $pow:ident),
    ) => {
        const _: () = {
            /// `2^k` for `-bias < k <= bias + 1`, where `bias + 1` is infinity.
            #[inline(always)]
            fn power_of_two(biased: $bits) -> $type {
                $type::from_bits(biased << $mantissa)
            }

            /// `x = n ln 2 + r + r_low` with `|r| <= ln(2)/2` (Cody and Waite: the high part of `ln 2`
            /// has trailing zeros, so `n * ln2_hi` is exact). Adding 1.5 * 2^mantissa rounds to an
            /// integer, whose value then sits in the low bits: no conversion instruction is needed.
            #[inline(always)]
            fn reduce(x: $type) -> ($type, $type, $bits) {
                let shifted = x.mul_add(std::$type::consts::LOG2_E, $round);
                let n = shifted - $round;
                let high = n.mul_add(-$ln2_hi, x);
                let r = n.mul_add(-$ln2_lo, high);
                let r_low = n.mul_add(-$ln2_lo, high - r);
                (r, r_low, shifted.to_bits().wrapping_sub(($round as $type).to_bits()))
            }

            /// `(e^r - 1 - r) / r^2` on `|r| <= ln(2)/2`: interpolation in Chebyshev nodes.
            #[inline(always)]
            fn exp_tail(r: $type) -> $type {
                const C: &[$type] = &$exp;
                let mut q = C[0];
                for &c in &C[1..] {
                    q = q.mul_add(r, c);
                }
                q
            }

            /// `log(1 + f) + low + k ln 2` for `1 + f` in `[sqrt(1/2), sqrt(2))`; the scheme and the
            /// coefficients of FreeBSD's msun (`e_log.c`, `e_logf.c`; Sun Microsystems, 1993).
            #[inline(always)]
            fn log_parts(f: $type, k: $type, low: $type) -> $type {
                const C: &[$type] = &$log;
                let s = f / (2.0 + f);
                let z = s * s;
                let mut tail = C[0];
                for &c in &C[1..] {
                    tail = tail.mul_add(z, c);
                }
                let half_square = 0.5 * f * f;
                let correction = s.mul_add(z.mul_add(tail, half_square), k.mul_add($ln2_lo, low));
                k.mul_add($ln2_hi, f - (half_square - correction))
            }

            /// `x = 2^k (1 + f)` for a normal `x > 0`.
            #[inline(always)]
            fn split(x: $type) -> ($type, $type) {
                const ONE: $bits = (1.0 as $type).to_bits();
                const SQRT_HALF: $bits = ($sqrt_half as $type).to_bits();
                let shifted = x.to_bits().wrapping_add(ONE - SQRT_HALF);
                let mantissa = (shifted & ((1 << $mantissa) - 1)) + SQRT_HALF;
                // The integer goes to a float through the low bits of 1.5 * 2^mantissa.
                let biased = (shifted >> $mantissa).wrapping_add(($round as $type).to_bits());
                let k = $type::from_bits(biased) - ($round + $bias as $type);
                (k, $type::from_bits(mantissa) - 1.0)
            }

            impl Math for $type {
                #[inline(always)]
                fn exp(self) -> Self {
                    let x = if self > $exp_max { $exp_max } else { self };
                    let x = if x < $exp_min { $exp_min } else { x };
                    let (r, r_low, n) = reduce(x);
                    // 1 + r is split in two, so the only large rounding is the last.
                    let high = 1.0 + r;
                    let low = (1.0 - high) + r + r_low;
                    let p = high + (r * r).mul_add(exp_tail(r), low);
                    // Two steps: 2^n alone may overflow or be subnormal where the product is not.
                    let half = (n.wrapping_add(2 * ($bias + 1)) >> 1).wrapping_sub($bias + 1);
                    let rest = n.wrapping_sub(half);
                    p * power_of_two(half.wrapping_add($bias)) * power_of_two(rest.wrapping_add($bias))
                }

                #[inline(always)]
                fn expm1(self) -> Self {
                    let x = if self > $exp_max { $exp_max } else { self };
                    let x = if x < $expm1_min { $expm1_min } else { x };
                    let (r, r_low, n) = reduce(x);
                    let p = r + (r * r).mul_add(exp_tail(r), r_low);
                    // 2^n (1 + p) - 1, halved because 2^n may be one beyond the range.
                    let half = power_of_two(n.wrapping_add($bias - 1));
                    let scaled = 2.0 * p.mul_add(half, half - 0.5);
                    // n = 0 also keeps subnormal results, and x = -0 its sign.
                    let unscaled = if x == 0.0 { x } else { p };
                    if n == 0 { unscaled } else { scaled }
                }

                #[inline(always)]
                fn log(self) -> Self {
                    let is_tiny = self < $type::MIN_POSITIVE;
                    let x = if is_tiny { self * $subnormal_scale } else { self };
                    let (k, f) = split(x);
                    let k = if is_tiny { k - $subnormal_exponent } else { k };
                    let finite = log_parts(f, k, 0.0);
                    let positive = if self == $type::INFINITY { self } else { finite };
                    let other = if self == 0.0 { -$type::INFINITY } else { $type::NAN };
                    if self > 0.0 { positive } else { other }
                }

                #[inline(always)]
                fn log1p(self) -> Self {
                    let u = 1.0 + self;
                    let (k, f) = split(u);
                    // What the rounding of 1 + x lost, relative to u.
                    let lost = if u > 2.0 { 1.0 - (u - self) } else { self - (u - 1.0) };
                    let (f, low) = if k == 0.0 { (self, 0.0) } else { (f, lost / u) };
                    let finite = log_parts(f, k, low);
                    // Keeps infinity, and the sign of -0.
                    let inside = if (self == $type::INFINITY) | (self == 0.0) { self } else { finite };
                    let other = if self == -1.0 { -$type::INFINITY } else { $type::NAN };
                    if self > -1.0 { inside } else { other }
                }

                #[inline(always)]
                fn tanh(self) -> Self {
                    let a = self.abs();
                    let a = if a > $tanh_max { $tanh_max } else { a };
                    // tanh a = (e^2a - 1) / (e^2a + 1), at most 1 after rounding too.
                    let e = Math::expm1(2.0 * a);
                    (e / (e + 2.0)).copysign(self)
                }

                #[inline(always)]
                fn sigmoid(self) -> Self {
                    let e = Math::exp(-self.abs());
                    let numerator = if self < 0.0 { e } else { 1.0 };
                    numerator / (1.0 + e)
                }

                #[inline(always)]
                fn erf(self) -> Self {
                    erf::erf(self)
                }

                #[inline(always)]
                fn normal_cdf(self) -> Self {
                    erf::normal_cdf(self)
                }

                #[inline(always)]
                fn sin(self) -> Self {
                    libm::$sin(self)
                }

                #[inline(always)]
                fn cos(self) -> Self {
                    libm::$cos(self)
                }

                #[inline(always)]
                fn pow(self, exponent: Self) -> Self {
                    libm::$pow(self, exponent)
                }
            }
        };
    };
}

math! {
    f32, u32, mantissa: 23, bias: 127,
    round: 12_582_912.0, ln2: (6.931_381e-1, 9.058_001e-6),
    exp_range: (-104.0, 89.0), expm1_min: -20.0, tanh_max: 10.0,
    sqrt_half: std::f32::consts::FRAC_1_SQRT_2, subnormal: (8_388_608.0, 23.0),
    exp: [1.392_618_2e-3, 8.363_178e-3, 4.166_655_5e-2, 1.666_657_7e-1, 0.5],
    log: [0.242_790_79, 0.284_987_87, 0.400_009_72, 0.666_666_6],
    libm: (sinf, cosf, powf),
}

math! {
    f64, u64, mantissa: 52, bias: 1023,
    round: 6_755_399_441_055_744.0, ln2: (6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10),
    exp_range: (-746.0, 710.0), expm1_min: -40.0, tanh_max: 20.0,
    sqrt_half: std::f64::consts::FRAC_1_SQRT_2, subnormal: (4_503_599_627_370_496.0, 52.0),
    exp: [
        2.091_468_516_141_806_7e-9, 2.510_521_447_475_141_3e-8, 2.755_727_364_745_108_7e-7,
        2.755_725_540_628_504_4e-6, 2.480_158_732_554_432e-5, 1.984_126_987_481_583_4e-4,
        1.388_888_888_888_375e-3, 8.333_333_333_326_136e-3, 4.166_666_666_666_667e-2,
        1.666_666_666_666_666_7e-1, 0.5,
    ],
    log: [
        1.479_819_860_511_658_6e-1, 1.531_383_769_920_937_3e-1, 1.818_357_216_161_805e-1,
        2.222_219_843_214_978_4e-1, 2.857_142_874_366_239e-1, 3.999_999_999_940_942e-1,
        6.666_666_666_666_735e-1,
    ],
    libm: (sin, cos, pow),
}

#[cfg(test)]
mod tests {
    use super::Math;
    use crate::elementwise::{Unary, unary};
    use crate::isa;

    type Case = (Unary, fn(f64) -> f64, f64, f64);

    /// Function, reference, bound in ulp of `f32` and of `f64`.
    const CASES: [Case; 6] = [
        (Unary::Exp, libm::exp, 1.0, 1.0),
        (Unary::Expm1, libm::expm1, 3.0, 3.0),
        (Unary::Log, libm::log, 1.5, 1.0),
        (Unary::Log1p, libm::log1p, 3.0, 3.0),
        (Unary::Tanh, libm::tanh, 3.0, 3.0),
        (Unary::Sigmoid, sigmoid, 4.0, 3.0),
    ];

    fn sigmoid(x: f64) -> f64 {
        if x < 0.0 { libm::exp(x) / (1.0 + libm::exp(x)) } else { 1.0 / (1.0 + libm::exp(-x)) }
    }

    /// Distance in units in the last place of `want` rounded to `f32`; infinite where only one is NaN or infinite.
    fn ulp_f32(got: f32, want: f64) -> f64 {
        let rounded = want as f32;
        if got == rounded || (got.is_nan() && want.is_nan()) {
            // Equal after rounding: the distance is at most 1/2 and of no interest.
            return 0.0;
        }
        if !got.is_finite() || !want.is_finite() {
            return f64::INFINITY;
        }
        let exponent = (rounded.abs().to_bits() >> 23).max(1) as i32 - 127 - 23;
        (got as f64 - want).abs() / 2f64.powi(exponent)
    }

    fn ulp_f64(got: f64, want: f64) -> f64 {
        if got == want || (got.is_nan() && want.is_nan()) {
            return 0.0;
        }
        if !got.is_finite() || !want.is_finite() {
            return f64::INFINITY;
        }
        got.to_bits().abs_diff(want.to_bits()) as f64
    }

    fn xorshift(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    fn edges() -> Vec<f64> {
        let mut x =
            vec![0.0, 1e-300, 1e-40, 1e-10, 1e-4, 0.17, 0.3465, 0.3467, 0.5, 0.707, 0.75, 1.0, 1.414, 2.0];
        x.extend([
            8.9, 9.1, 16.7, 18.5, 19.1, 87.3, 88.72, 88.73, 103.9, 104.1, 708.4, 709.7, 709.8, 745.1, 745.2,
        ]);
        x.extend([
            1e10,
            f64::MIN_POSITIVE,
            f32::MIN_POSITIVE as f64,
            f64::MAX,
            f32::MAX as f64,
            f64::INFINITY,
        ]);
        let negative: Vec<f64> = x.iter().map(|v| -v).collect();
        x.extend(negative);
        x.push(f64::NAN);
        x
    }

    /// The worst distance of `f32` results over `inputs`, and where it is.
    fn worst_f32((op, reference, ..): Case, inputs: &[f32], out: &mut [f32]) -> (f64, f32) {
        unary(op, &[inputs.len()], inputs, &[1], out);
        let mut worst = (0.0, 0.0);
        for (&x, &got) in inputs.iter().zip(&*out) {
            let ulp = ulp_f32(got, reference(x as f64));
            if ulp > worst.0 {
                worst = (ulp, x);
            }
        }
        worst
    }

    #[test]
    fn single_precision_stays_in_its_bounds() {
        let mut state = 0x9e37_79b9_7f4a_7c15;
        let mut x: Vec<f32> = edges().iter().map(|&v| v as f32).collect();
        // All bit patterns, then the range where the functions bend.
        x.extend((0..600_000).map(|_| f32::from_bits(xorshift(&mut state) as u32)));
        x.extend((0..400_000).map(|_| (xorshift(&mut state) as i32 as f32) * 2f32.powi(-25)));
        let mut out = vec![0.0; x.len()];
        for case in CASES {
            let (ulp, at) = worst_f32(case, &x, &mut out);
            println!("{:?}: {ulp} ulp at {at:e}", case.0);
            assert!(ulp <= case.2, "{:?}: {ulp} ulp at {at:e}", case.0);
        }
    }

    #[test]
    #[ignore = "minutes: every f32"]
    fn single_precision_stays_in_its_bounds_on_every_value() {
        let mut out = vec![0.0; 1 << 16];
        let mut x = vec![0.0; 1 << 16];
        for case in CASES {
            let mut worst = (0.0, 0.0);
            for high in 0..1u32 << 16 {
                for (low, x) in x.iter_mut().enumerate() {
                    *x = f32::from_bits(high << 16 | low as u32);
                }
                let found = worst_f32(case, &x, &mut out);
                if found.0 > worst.0 {
                    worst = found;
                }
            }
            println!("{:?}: {} ulp at {:e}", case.0, worst.0, worst.1);
            assert!(worst.0 <= case.2, "{:?}: {} ulp at {:e}", case.0, worst.0, worst.1);
        }
    }

    #[test]
    fn double_precision_stays_in_its_bounds() {
        let mut state = 0x2545_f491_4f6c_dd1d;
        let mut x = edges();
        x.extend((0..200_000).map(|_| f64::from_bits(xorshift(&mut state))));
        x.extend((0..200_000).map(|_| (xorshift(&mut state) as i64 as f64) * 2f64.powi(-54)));
        x.extend((0..200_000).map(|_| (xorshift(&mut state) as i64 as f64) * 2f64.powi(-62)));
        let mut out = vec![0.0; x.len()];
        for (op, reference, _, bound) in CASES {
            unary(op, &[x.len()], &x, &[1], &mut out);
            let mut worst = (0.0, 0.0);
            for (&x, &got) in x.iter().zip(&out) {
                let ulp = ulp_f64(got, reference(x));
                if ulp > worst.0 {
                    worst = (ulp, x);
                }
            }
            println!("{op:?}: {} steps at {:e}", worst.0, worst.1);
            // The reference is itself wrong by up to 1 ulp (sigmoid: 3), and both results are rounded.
            let slack = if op == Unary::Sigmoid { 2.0 } else { 1.0 };
            assert!(worst.0 <= bound + slack, "{op:?}: {} steps at {:e}", worst.0, worst.1);
        }
    }

    fn limits<T: Math>() {
        let (zero, one, inf) = (T::ZERO, T::ONE, T::INFINITY);
        assert_eq!(zero.exp(), one);
        assert_eq!((-inf).exp(), zero);
        assert_eq!(inf.exp(), inf);
        assert_eq!(zero.log(), -inf);
        assert_eq!((-zero).log(), -inf);
        assert_eq!(inf.log(), inf);
        assert_eq!(one.log(), zero);
        assert!((-one).log().is_nan() && (-inf).log().is_nan());
        assert_eq!((-one).log1p(), -inf);
        assert_eq!(inf.log1p(), inf);
        assert!(T::from_f64(-1.5).log1p().is_nan() && (-inf).log1p().is_nan());
        assert_eq!((-inf).expm1(), -one);
        assert_eq!(inf.expm1(), inf);
        assert_eq!(inf.tanh(), one);
        assert_eq!((-inf).tanh(), -one);
        assert_eq!(inf.sigmoid(), one);
        assert_eq!((-inf).sigmoid(), zero);
        for f in [T::tanh, T::expm1, T::log1p] {
            assert_eq!(one / f(-zero), -inf, "-0 stays -0");
        }
        for f in [T::exp, T::expm1, T::log, T::log1p, T::tanh, T::sigmoid, T::sin, T::cos] {
            assert!(f(T::NAN).is_nan());
        }
        assert!(T::NAN.maximum(one).is_nan() && one.maximum(T::NAN).is_nan());
        assert!(T::NAN.minimum(one).is_nan() && one.minimum(T::NAN).is_nan());
    }

    #[test]
    fn limits_are_exact() {
        limits::<f32>();
        limits::<f64>();
        assert_eq!(Math::exp(88.73f32), f32::INFINITY);
        assert_eq!(Math::exp(-103.98f32), 0.0);
        assert_eq!(Math::exp(-103.9f32), f32::from_bits(1));
        // e^-100, far below what 1 - 1 / (1 + e^-100) could tell from 0.
        assert_eq!(Math::sigmoid(-100f32), Math::exp(-100f32));
    }

    #[test]
    fn tanh_is_odd_and_within_one() {
        let mut state = 88_172_645_463_325_252;
        for _ in 0..200_000 {
            let x = f32::from_bits(xorshift(&mut state) as u32);
            let y = Math::tanh(x);
            assert!(x.is_nan() || (y.abs() <= 1.0 && Math::tanh(-x).to_bits() == (-y).to_bits()), "{x:e}");
            let s = Math::sigmoid(x);
            assert!(x.is_nan() || (0.0..=1.0).contains(&s), "{x:e}");
        }
    }

    #[test]
    fn bits_are_the_same_on_every_level() {
        let mut state = 1;
        let x: Vec<f32> = (0..20_000).map(|_| f32::from_bits(xorshift(&mut state) as u32)).collect();
        let x64: Vec<f64> =
            (0..20_000).map(|_| (xorshift(&mut state) as i64 as f64) * 2f64.powi(-55)).collect();
        for (op, ..) in CASES {
            let mut want = None;
            isa::on_every_level(|level| {
                let (mut out, mut out64) = (vec![0.0; x.len()], vec![0.0; x.len()]);
                unary(op, &[x.len()], &x, &[1], &mut out);
                unary(op, &[x.len()], &x64, &[1], &mut out64);
                // NaN payloads are not specified.
                let bits: Vec<u32> = out.iter().map(|v| if v.is_nan() { 0 } else { v.to_bits() }).collect();
                let bits64: Vec<u64> =
                    out64.iter().map(|v| if v.is_nan() { 0 } else { v.to_bits() }).collect();
                let got = (bits, bits64);
                assert!(*want.get_or_insert_with(|| got.clone()) == got, "{op:?} {level}");
            });
        }
    }
}
