//! The error function and the normal distribution function, without branches or tables, as all of `math`.
//!
//! Near 0, `erf(u) = u + u P(u^2)`. Further out `erfc(u) = e^(-u^2) R(t) / (1 + 2u)` with `t = (u - k) / (u + k)`:
//! R lies between 1 and 1.13 and bends little. Both polynomials interpolate in Chebyshev nodes; their errors
//! (1e-9 for `f32`, 2e-18 for `f64`) are below half an ulp. The rounding of `u^2` is carried along, since
//! the exponential would magnify it.

use crate::math::Math;

/// Coefficients, highest first.
pub trait Coefficients: Sized + 'static {
    /// P on `[0, 1]`.
    const NEAR: &'static [Self];
    /// R from u = 0.69 on.
    const FAR: &'static [Self];
    /// k
    const CENTRE: Self;
    /// Where `e^(-u^2)` is 0.
    const MAX: Self;
}

impl Coefficients for f32 {
    const NEAR: &'static [f32] = &[
        7.875_875e-5,
        -8.016_864_3e-4,
        5.189_087_2e-3,
        -2.685_421_1e-2,
        1.128_359_4e-1,
        -3.761_262_6e-1,
        1.283_791_7e-1,
    ];
    const FAR: &'static [f32] = &[
        3.031_410_5e-4,
        -3.852_005e-4,
        -1.517_837_9e-3,
        1.261_564_7e-3,
        8.736_142e-3,
        -8.033_805e-3,
        -5.422_123_5e-2,
        1.640_513_1e-1,
        -1.660_303_6e-1,
        -9.276_382_6e-2,
        1.276_978_4,
    ];
    const CENTRE: f32 = 2.0;
    const MAX: f32 = 10.5;
}

impl Coefficients for f64 {
    const NEAR: &'static [f64] = &[
        5.957_176_147_748_911e-11,
        -1.137_284_885_679_167_4e-9,
        1.465_977_527_404_743_6e-8,
        -1.635_031_270_105_469_5e-7,
        1.646_100_048_412_136_8e-6,
        -1.492_559_526_683_118_2e-5,
        1.205_533_111_164_271e-4,
        -8.548_326_980_833_79e-4,
        5.223_977_624_818_014_5e-3,
        -2.686_617_064_507_679_2e-2,
        1.128_379_167_095_487_9e-1,
        -3.761_263_890_318_375e-1,
        1.283_791_670_955_125_6e-1,
    ];
    const FAR: &'static [f64] = &[
        -8.977_657_606_280_597e-9,
        -1.286_336_568_808_493_3e-8,
        1.015_657_962_865_488_1e-7,
        6.864_744_108_977_389e-8,
        -8.177_058_504_998_754e-7,
        2.978_080_051_693_999e-7,
        5.705_429_070_431_517e-6,
        -1.122_368_849_300_677e-5,
        -2.439_767_550_844_335_8e-5,
        1.506_221_193_305_982e-4,
        -1.992_570_506_835_725_7e-4,
        -7.577_733_650_631_994e-4,
        5.031_970_030_244_098e-3,
        -1.619_773_404_956_943_4e-2,
        3.716_751_553_285_542_5e-2,
        -6.633_036_581_273_162e-2,
        9.373_283_499_857_443e-2,
        -1.010_390_660_362_880_7e-1,
        6.809_705_425_468_77e-2,
        1.537_965_210_261_954_5e-2,
        -1.396_211_168_405_624_7e-1,
        1.232_995_118_625_552_6,
    ];
    const CENTRE: f64 = 4.0;
    const MAX: f64 = 27.6;
}

#[inline(always)]
fn horner<T: Math>(coefficients: &[T], x: T) -> T {
    let mut value = coefficients[0];
    for &c in &coefficients[1..] {
        value = value.mul_add(x, c);
    }
    value
}

/// `erfc(u)` for `u >= 0.69`, with `u^2 = high + low`.
#[inline(always)]
fn far<T: Math>(u: T, high: T, low: T) -> T {
    let t = (u - T::CENTRE) / (u + T::CENTRE);
    let e = (-high).exp();
    e.mul_add(-low, e) * horner(T::FAR, t) / (T::ONE + (u + u))
}

/// `x`, at most `limit` from 0.
#[inline(always)]
fn held<T: Math>(x: T, limit: T) -> T {
    let x = if x > limit { limit } else { x };
    if x < -limit { -limit } else { x }
}

#[inline(always)]
pub(crate) fn erf<T: Math>(x: T) -> T {
    let u = held(x, T::MAX).abs();
    let square = u * u;
    let tail = T::ONE - far(u, square, u.mul_add(u, -square));
    let tail = if x < T::ZERO { -tail } else { tail };
    let near = x.mul_add(horner(T::NEAR, square), x);
    if u < T::ONE { near } else { tail }
}

#[inline(always)]
pub(crate) fn normal_cdf<T: Math>(x: T) -> T {
    let half = T::from_f64(0.5);
    let x = held(x, T::from_f64(std::f64::consts::SQRT_2) * T::MAX);
    let square = x * x;
    let low = x.mul_add(x, -square);
    let u = x.abs() * T::from_f64(std::f64::consts::FRAC_1_SQRT_2);
    let below = half * far(u, half * square, half * low);
    let tail = if x > T::ZERO { T::ONE - below } else { below };
    // erf(x / sqrt 2) / 2
    let scaled = x * T::from_f64(0.5 * std::f64::consts::FRAC_1_SQRT_2);
    let near = half + scaled.mul_add(horner(T::NEAR, half * square), scaled);
    if x.abs() < T::ONE { near } else { tail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa;

    /// Distance in units in the last place of `want` as `f32`.
    fn ulp_f32(got: f32, want: f64) -> f64 {
        let rounded = want as f32;
        if got == rounded {
            return 0.0;
        }
        let exponent = (rounded.abs().to_bits() >> 23).max(1) as i32 - 127 - 23;
        (f64::from(got) - want).abs() / 2f64.powi(exponent)
    }

    /// The normal distribution function in double precision: `erfc` at the rounded `-x / sqrt 2`, and its slope
    /// times what the rounding lost.
    fn reference_cdf(x: f64) -> f64 {
        let (root, root_low) = (std::f64::consts::SQRT_2, -9.667_293_313_452_913e-17);
        let u = -x * std::f64::consts::FRAC_1_SQRT_2;
        let lost = ((-u).mul_add(root, -x) - u * root_low) / root;
        0.5 * (libm::erfc(u) - std::f64::consts::FRAC_2_SQRT_PI * libm::exp(-u * u) * lost)
    }

    fn inputs() -> impl Iterator<Item = f64> {
        (-400_000..400_000).map(|i| f64::from(i) * 1e-4 + 3e-6).chain((1..60).map(|i| 2f64.powi(-i)))
    }

    #[test]
    fn results_stay_within_their_bounds() {
        let mut worst = [(0.0, 0.0); 4];
        for x in inputs() {
            let single = x as f32;
            let wide = f64::from(single);
            let steps = |got: f64, want: f64| got.to_bits().abs_diff(want.to_bits()) as f64;
            let found = [
                ulp_f32(Math::erf(single), libm::erf(wide)),
                ulp_f32(Math::normal_cdf(single), reference_cdf(wide)),
                steps(Math::erf(x), libm::erf(x)),
                // Below the smallest normal number a step is a larger share than the rounding of the exponential.
                if x < -37.5 { 0.0 } else { steps(Math::normal_cdf(x), reference_cdf(x)) },
            ];
            for (worst, ulp) in worst.iter_mut().zip(found) {
                if ulp > worst.0 {
                    *worst = (ulp, x);
                }
            }
        }
        println!("erf f32, cdf f32, erf f64, cdf f64: {worst:?}");
        // The references in f64 are themselves wrong by 1 ulp and more.
        for (worst, bound) in worst.iter().zip([1.5, 4.5, 2.0, 6.0]) {
            assert!(worst.0 <= bound, "{worst:?}");
        }
    }

    fn limits<T: Math>() {
        assert_eq!((T::INFINITY.erf(), (-T::INFINITY).erf()), (T::ONE, -T::ONE));
        assert_eq!((T::INFINITY.normal_cdf(), (-T::INFINITY).normal_cdf()), (T::ONE, T::ZERO));
        assert_eq!(T::ONE / (-T::ZERO).erf(), -T::INFINITY);
        assert_eq!(T::ZERO.normal_cdf(), T::from_f64(0.5));
        assert!(T::NAN.erf().is_nan() && T::NAN.normal_cdf().is_nan());
        for x in inputs().step_by(97).map(T::from_f64) {
            assert!(x.erf() == -(-x).erf() && x.erf().abs() <= T::ONE, "{x:?}");
        }
    }

    #[test]
    fn limits_are_exact() {
        limits::<f32>();
        limits::<f64>();
    }

    #[test]
    fn bits_are_the_same_on_every_level() {
        use crate::elementwise::{Curve, Unary, unary};
        let x: Vec<f64> = inputs().step_by(31).collect();
        let mut want: Option<Vec<u64>> = None;
        isa::on_every_level(|level| {
            let mut out = vec![0.0; x.len()];
            unary(Unary::Curve(Curve::Gelu), &[x.len()], &x, &[1], &mut out);
            let got: Vec<u64> = out.iter().map(|v: &f64| v.to_bits()).collect();
            assert!(*want.get_or_insert_with(|| got.clone()) == got, "{level}");
        });
    }
}
