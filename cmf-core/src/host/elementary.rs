//! Exponential and logarithm in f32, over the ranges that activations need, as arithmetic without branches.
//!
//! Narrow networks spend half of their training in activations if exp and ln come from the C library, a number at a
//! time; these the compiler turns into vectors. They have no fused multiply-adds, so their bits do not depend on the
//! processor.

use std::f32::consts::LOG2_E;

/// ln 2 in two parts, of which the first times an integer of 8 bits is exact (Cody and Waite, 1980).
const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
/// 1.5 · 2^23: added to a number below 2^22 it leaves the nearest integer in the last bits.
const TO_INTEGER: f32 = 12_582_912.0;
/// Just above ln of the least normal number.
const LEAST: f32 = -87.3;

/// e^x for x <= 0; below -87.3, where f32 has no normal numbers, e^{-87.3}. NaN stays NaN.
///
/// e^x = 2^k e^r with |r| <= ½ ln 2, where the Taylor polynomial of degree 7 is off by r^8/8! < 6e-9 of it.
#[inline(always)]
pub fn exp_of_negative(x: f32) -> f32 {
    let x = if x < LEAST { LEAST } else { x };
    let shifted = x * LOG2_E + TO_INTEGER;
    let k = shifted - TO_INTEGER;
    let r = (x - k * LN_2[0]) - k * LN_2[1];
    let tail = 1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0))));
    let power = 1.0 + (r + r * r * (0.5 + r * tail));
    // k is in the last bits of `shifted`; moved up, and 127 added, it is the exponent of 2^k.
    power * f32::from_bits((shifted.to_bits().wrapping_add(127)) << 23)
}

/// ln(1 + x) for x in [0, 1], to a relative error. NaN stays NaN.
///
/// ln(1 + x) = 2 artanh(s) with s = x / (2 + x) <= 1/3; the series to s^15 is off by 3^{-16}/17 < 2e-9 of it.
#[inline(always)]
pub fn ln_1p_of_share(x: f32) -> f32 {
    let s = x / (2.0 + x);
    let q = s * s;
    let high = 1.0 / 9.0 + q * (1.0 / 11.0 + q * (1.0 / 13.0 + q * (1.0 / 15.0)));
    let tail = 1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * high));
    2.0 * (s + s * q * tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half an ulp each for a rounded sum, product and quotient: bounds of 2 and 3 ulps of 2^-23.
    #[test]
    fn both_are_exact_to_rounding() {
        for i in 0..=870_000 {
            let x = -(i as f32) / 10_000.0;
            let exact = f64::from(x).exp();
            let found = f64::from(exp_of_negative(x));
            assert!(
                (found - exact).abs() <= 2.0 * f64::from(f32::EPSILON) * exact,
                "e^{x}: {found}, {exact}"
            );
        }
        for i in 0..=1_000_000 {
            let x = i as f32 / 1_000_000.0;
            let exact = f64::from(x).ln_1p();
            let found = f64::from(ln_1p_of_share(x));
            assert!(
                (found - exact).abs() <= 3.0 * f64::from(f32::EPSILON) * exact,
                "ln(1 + {x}): {found}, {exact}"
            );
        }
    }

    #[test]
    fn ends_of_their_ranges() {
        assert_eq!(exp_of_negative(0.0), 1.0);
        assert_eq!(exp_of_negative(-0.0), 1.0);
        assert_eq!(ln_1p_of_share(0.0), 0.0);
        for x in [-88.0, -1e6, f32::MIN, f32::NEG_INFINITY] {
            let found = exp_of_negative(x);
            assert!(found > 0.0 && found < 1.3e-38, "e^{x}: {found}");
        }
        assert!(exp_of_negative(f32::NAN).is_nan() && ln_1p_of_share(f32::NAN).is_nan());
    }
}
