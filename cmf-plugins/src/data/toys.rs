//! The 2D toy distributions, drawn from a seed.
//!
//! Vesseron, Béthune and Cuturi (2025) name six without definitions; these are the nearest public ones.

use std::f64::consts::{FRAC_1_SQRT_2, PI, TAU};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::memory::{InMemory, Values};
use super::{Builtin, Opened, Shape, builtin};

/// Rows of the training split.
pub(super) const TRAIN: usize = 100_000;
/// Rows of the held-out split.
pub(super) const HELD_OUT: usize = 10_000;

/// Draws one point.
pub(super) type Draw = fn(&mut ChaCha8Rng) -> [f64; 2];

pub(super) static TOYS: [(Builtin, Draw); 6] = [
    (builtin("circles", "2D toy: two concentric circles of radius 2 and 4", false), circles),
    (builtin("s-curve", "2D toy: a thin S", false), s_curve),
    (builtin("checkerboard", "2D toy: 8 of 16 squares, uniform", false), checkerboard),
    (builtin("scaled-rotated-s-curve", "2D toy: the S, halved in height and turned", false), turned_s_curve),
    (builtin("diagonal-checkerboard", "2D toy: the checkerboard, turned", false), turned_checkerboard),
    (builtin("eight-gaussians", "2D toy: eight Gaussians on a circle of radius 5", false), eight_gaussians),
];

/// Both splits are independent draws: streams 0 and 1 of ChaCha8 with this seed.
pub(super) fn open(draw: Draw, seed: u64) -> Opened {
    let mut values = Vec::with_capacity(2 * (TRAIN + HELD_OUT));
    for (stream, rows) in [(0, TRAIN), (1, HELD_OUT)] {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        values.extend((0..rows).flat_map(|_| draw(&mut rng)));
    }
    let set = InMemory {
        shape: Shape::Vector { dim: 2 },
        pixel_range: None,
        values: Values::F64(values),
        train: (0..TRAIN).collect(),
        held_out: (TRAIN..TRAIN + HELD_OUT).collect(),
    };
    set.opened()
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    StandardNormal.sample(rng)
}

/// Uniform on [low, high).
fn uniform(rng: &mut ChaCha8Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * rng.random::<f64>()
}

/// R(45°) p.
fn turned([x, y]: [f64; 2]) -> [f64; 2] {
    [FRAC_1_SQRT_2 * (x - y), FRAC_1_SQRT_2 * (x + y)]
}

/// r (cos φ, sin φ) + N(0, 0.2² I), φ uniform, r = 2 or 4 with probability ½: scikit-learn's
/// `make_circles(factor=.5, noise=.05)` times 4, with random instead of equally spaced angles.
fn circles(rng: &mut ChaCha8Rng) -> [f64; 2] {
    let radius = if rng.random::<bool>() { 2.0 } else { 4.0 };
    let angle = uniform(rng, 0.0, TAU);
    [radius * angle.cos() + 0.2 * normal(rng), radius * angle.sin() + 0.2 * normal(rng)]
}

/// 5 (sign(t) (cos t - 1), sin t) + N(0, 0.05² I), t uniform on [-3π/2, 3π/2]: scikit-learn's
/// `make_s_curve(noise=.01)[:, [2, 0]] * 5`, as in the code of Amos (2023).
fn s_curve(rng: &mut ChaCha8Rng) -> [f64; 2] {
    let t = uniform(rng, -1.5 * PI, 1.5 * PI);
    let height = t.signum() * (t.cos() - 1.0);
    [5.0 * height + 0.05 * normal(rng), 5.0 * t.sin() + 0.05 * normal(rng)]
}

/// Uniform on every other of the 16 squares of side 2 of [-4, 4]²: the `checkerboard` in the code of
/// FFJORD (Grathwohl et al., 2019).
fn checkerboard(rng: &mut ChaCha8Rng) -> [f64; 2] {
    let x = uniform(rng, -2.0, 2.0);
    let row = if rng.random::<bool>() { -2.0 } else { 0.0 };
    let y = rng.random::<f64>() + row + x.floor().rem_euclid(2.0);
    [2.0 * x, 2.0 * y]
}

/// R(45°) diag(1, ½) of the S-curve; this project's choice.
fn turned_s_curve(rng: &mut ChaCha8Rng) -> [f64; 2] {
    let [x, y] = s_curve(rng);
    turned([x, 0.5 * y])
}

/// R(45°) of the checkerboard; this project's choice.
fn turned_checkerboard(rng: &mut ChaCha8Rng) -> [f64; 2] {
    turned(checkerboard(rng))
}

/// 5 (cos kπ/4, sin kπ/4) + N(0, ½² I), k uniform in 0..8: as in the code of Makkuva et al. (2020).
fn eight_gaussians(rng: &mut ChaCha8Rng) -> [f64; 2] {
    let angle = f64::from(rng.random_range(0..8_u8)) * PI / 4.0;
    [5.0 * angle.cos() + 0.5 * normal(rng), 5.0 * angle.sin() + 0.5 * normal(rng)]
}

#[cfg(test)]
mod tests {
    use super::super::tests::all;
    use super::super::{Split, open as open_by_name};
    use super::*;

    fn toy(name: &str, seed: u64) -> Opened {
        open_by_name(name, None, seed).unwrap()
    }

    /// Sample means of (x, y, x², xy, y²) are within 4.5 standard errors of `want`, the standard errors
    /// being those of the sample of 100,000 (a false alarm once in 150,000 figures).
    fn check_moments(name: &str, want: [f64; 5]) {
        let values = all(toy(name, 7).data.as_ref(), Split::Train);
        let n = TRAIN as f64;
        let figures = |p: &[f64]| [p[0], p[1], p[0] * p[0], p[0] * p[1], p[1] * p[1]];
        for (k, want) in want.into_iter().enumerate() {
            let mean = values.chunks_exact(2).map(|p| figures(p)[k]).sum::<f64>() / n;
            let variance = values.chunks_exact(2).map(|p| (figures(p)[k] - mean).powi(2)).sum::<f64>() / n;
            let standard_error = (variance / n).sqrt();
            assert!(
                (mean - want).abs() < 4.5 * standard_error,
                "{name} {k}: {mean} +- {standard_error}, {want}"
            );
        }
    }

    /// Second moments (xx, xy, yy) of R(45°) p from those of p.
    fn turned_moments([xx, xy, yy]: [f64; 3]) -> [f64; 5] {
        [0.0, 0.0, 0.5 * (xx + yy) - xy, 0.5 * (xx - yy), 0.5 * (xx + yy) + xy]
    }

    #[test]
    fn moments_are_the_closed_forms() {
        // Radius² is 4 or 16, half of it in each coordinate.
        check_moments("circles", [0.0, 0.0, 5.04, 0.0, 5.04]);
        // With t on [0, 3π/2]: E cos t = -2/3π, E cos² t = E sin² t = ½, E (cos t - 1) sin t = -1/3π.
        let (xx, xy, yy) = (25.0 * (1.5 + 4.0 / (3.0 * PI)), -25.0 / (3.0 * PI), 12.5);
        let noise = 0.0025;
        check_moments("s-curve", [0.0, 0.0, xx + noise, xy, yy + noise]);
        check_moments("scaled-rotated-s-curve", turned_moments([xx + noise, 0.5 * xy, 0.25 * (yy + noise)]));
        // Both coordinates are uniform on [-4, 4]; the centres of the squares have covariance 1.
        let square = [16.0 / 3.0, 1.0, 16.0 / 3.0];
        check_moments("checkerboard", [0.0, 0.0, square[0], square[1], square[2]]);
        check_moments("diagonal-checkerboard", turned_moments(square));
        check_moments("eight-gaussians", [0.0, 0.0, 12.75, 0.0, 12.75]);
    }

    #[test]
    fn the_checkerboard_has_eight_equal_squares() {
        let values = all(toy("checkerboard", 3).data.as_ref(), Split::Train);
        let mut counts = [[0_usize; 4]; 4];
        for p in values.chunks_exact(2) {
            let cell = |v: f64| (v / 2.0 + 2.0).floor() as usize;
            counts[cell(p[0])][cell(p[1])] += 1;
        }
        for (i, row) in counts.iter().enumerate() {
            for (j, &count) in row.iter().enumerate() {
                // Binomial(n, 1/8): 5 standard deviations are 523 of 12,500.
                let want = if (i + j) % 2 == 0 { 12_500 } else { 0 };
                assert!(count.abs_diff(want) <= if want == 0 { 0 } else { 523 }, "{i} {j}: {count}");
            }
        }
    }

    #[test]
    fn a_seed_gives_the_same_points_and_the_splits_are_different_draws() {
        for name in TOYS.iter().map(|(b, _)| b.name) {
            let (a, b, other) = (toy(name, 1), toy(name, 1), toy(name, 2));
            assert_eq!(a.sha256, b.sha256);
            assert_ne!(a.sha256, other.sha256);
            assert_eq!((a.data.rows(Split::Train), a.data.rows(Split::HeldOut)), (TRAIN, HELD_OUT));
            let held_out = all(a.data.as_ref(), Split::HeldOut);
            assert_eq!(held_out, all(b.data.as_ref(), Split::HeldOut));
            let train = all(a.data.as_ref(), Split::Train);
            assert!(train.iter().chain(&held_out).all(|v| v.is_finite()));
            assert_ne!(held_out[..100], train[..100], "{name}");
        }
    }
}
