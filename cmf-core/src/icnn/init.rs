//! Weights to start training from: the Gaussian solution as the head, hidden layers near zero.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, StandardNormal};

use super::{Architecture, Weights};
use crate::error::{Error, Result, check_len};
use crate::gaussian::QuadraticStart;
use crate::host::Array;
use crate::linalg::{dot, matmul};
use crate::symmetric::Symmetric;

/// Output weight u of a unit whose form has the slope [`SLOPE`]: small enough to leave the closed form in charge,
/// large enough for gradients to reach the layers below. Steeper units get less, for the same curvature.
const OUTPUT: f64 = 0.05;
/// Slope of a unit's linear form, in standard deviations of the data along it.
const SLOPE: f64 = 3.0;
/// The same where units are many: their bends can be narrow, because others are near.
const STEEP: f64 = 12.0;
/// Units a coordinate from which on they are many.
const MANY: usize = 4;
/// Where along the form a unit bends: this many standard deviations below the mean, or, where units are many,
/// anywhere within as many of it.
const BEND: f64 = 2.0;
/// Size of the squared forms under the Gibbs factor.
const SQUARED: f64 = 0.02;

/// The weights of `arch` around the closed-form potential `start`, from `seed`.
///
/// The head is `start` itself. Each unit looks along one direction, downwards and from two standard
/// deviations below the data's mean: first the d coordinates in random order, then random directions.
/// On images, potentials that bend at a pixel's dark end gain likelihood at once, while units along dense
/// random directions start on a plateau. Beside a spiked head units see the data through its directions alone: a
/// coordinate stands for its projection, which leaves the noise behind, and those that vary more come first, because
/// pixels of a constant background have nothing to tell. There bends lie anywhere among the data, either way round.
/// Mixing weights average.
pub fn initial_weights(
    arch: &Architecture,
    start: &QuadraticStart,
    seed: u64,
) -> Result<Weights<Array<f64>>> {
    around(arch, start, seed, Bends::Below)
}

/// The same for learning from samples. Where units are few for the coordinates, as of images, half of them look along
/// coordinates upwards, from two standard deviations above the mean, and coordinates that vary more come first: pixels
/// are as sure to be white inside of a stroke as they are to be black outside. With 1,152 units instead of downwards
/// alone digits have 512 nats after 1,000 updates instead of 497. Where units are many, as in the plane, those along random
/// directions bend sharply and in places spread over the data.
///
/// From broad bends that all lie outside the data Adam needs thousands of updates to move them in. Least-squares
/// steps from an energy move them at once, and come to rest at worse fits from sharp ones.
pub fn initial_weights_for_samples(
    arch: &Architecture,
    start: &QuadraticStart,
    seed: u64,
) -> Result<Weights<Array<f64>>> {
    let bends = match arch.head.rank() {
        Some(_) => Bends::Below,
        None if arch.units() >= MANY * arch.dim => Bends::Everywhere,
        None => Bends::BothWays,
    };
    around(arch, start, seed, bends)
}

/// Where the units beside a full head bend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bends {
    /// Below the data.
    Below,
    /// Below them and above.
    BothWays,
    /// Sharply, below the data along coordinates and anywhere along random directions.
    Everywhere,
}

fn around(
    arch: &Architecture,
    start: &QuadraticStart,
    seed: u64,
    places: Bends,
) -> Result<Weights<Array<f64>>> {
    arch.validate()?;
    let (d, n) = (arch.dim, arch.units());
    check_len("the start's centre", start.centre.len(), d)?;
    if start.hessian.rank() != arch.head.rank() {
        return Err(Error::Invalid(format!(
            "the head is {:?}, but the Gaussian to start from has {} leading directions: fit one like the head",
            arch.head,
            start.hessian.rank().map_or("all".into(), |k| k.to_string())
        )));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let data = start.gaussian()?;
    let mut order: Vec<usize> = (0..d).collect();
    order.shuffle(&mut rng);
    if start.hessian.rank().is_some() || places == Bends::BothWays {
        prefer_spread(&mut order, &data.covariance.diagonal(), &mut rng);
    }
    let mut normal = |len: usize, scale: f64| -> Vec<f64> {
        (0..len).map(|_| scale * Distribution::<f64>::sample(&StandardNormal, &mut rng)).collect()
    };
    let mut linear = normal(n * d, 1.0);
    let (downwards, upwards) = match places {
        Bends::BothWays => (n.div_ceil(2).min(d), d),
        Bends::Below | Bends::Everywhere => (d, 0),
    };
    let looks =
        order[..downwards].iter().map(|&k| (k, -1.0)).chain(order[..upwards].iter().map(|&k| (k, 1.0)));
    for (row, (k, way)) in linear.chunks_exact_mut(d).zip(looks) {
        row.fill(0.0);
        row[k] = way;
    }
    if let Symmetric::Spiked(q) = &start.hessian {
        linear = q.projection().times(&linear)?;
    }
    let along = data.covariance.times(&linear)?;
    let slope = if places == Bends::Everywhere { STEEP } else { SLOPE };
    let bends: Vec<f64> = match start.hessian {
        Symmetric::Full(_) if places == Bends::Everywhere => {
            (0..n).map(|i| if i < d { BEND } else { BEND * (2.0 * spread(i) - 1.0) }).collect()
        }
        Symmetric::Full(_) => vec![BEND; n],
        Symmetric::Spiked(_) => normal(n, 1.0),
    };
    let mut bias = Vec::with_capacity(n);
    for ((i, row), along) in linear.chunks_exact_mut(d).enumerate().zip(along.chunks_exact(d)) {
        let turned = start.hessian.rank().is_some() && i % 2 == 1;
        let scale = if turned { -slope } else { slope } / dot(row, along).sqrt();
        row.iter_mut().for_each(|v| *v *= scale);
        bias.push(-dot(row, &data.mean) - slope * bends[i]);
    }
    let root = start.hessian.spectrum()?.apply(f64::sqrt);
    let mut squared = root.times(&normal(n * arch.rank * d, SQUARED))?;
    if let Symmetric::Spiked(q) = &start.hessian {
        squared = q.projection().times(&squared)?;
    }
    let (head, pull, floor, excess) = match &start.hessian {
        Symmetric::Full(q) => (q.as_slice(), start.hessian.times(&start.centre)?, 0.0, vec![]),
        Symmetric::Spiked(q) => {
            let excess = q.values().iter().map(|v| v - q.floor()).collect();
            (q.vectors(), matmul(q.vectors(), &start.centre, q.values().len(), d, 1), q.floor(), excess)
        }
    };
    Weights::build(arch, |name, [rows, cols]| -> Result<Array<f64>> {
        let data = match name {
            "x_side" => [linear.as_slice(), &squared, head].concat(),
            "diagonal" => vec![SQUARED * SQUARED; rows * cols],
            "bias" => bias.clone(),
            "output" => vec![OUTPUT * (SLOPE / slope).powi(2); cols],
            "centre" => start.centre.clone(),
            "pull" => pull.clone(),
            "head_floor" => vec![floor],
            "head_excess" => excess.clone(),
            "constant" => vec![0.0],
            mixing if mixing.starts_with("mixing_") => {
                // Positive, of mean 1 / fan-in.
                normal(rows * cols, 1.0).iter().map(|v| (0.5 * v - 0.125).exp() / rows as f64).collect()
            }
            other => return Err(Error::Invalid(format!("no start is known for the array {other}"))),
        };
        Ok(Array::matrix(data, rows, cols))
    })
}

/// Numbers in [0, 1) that fill it evenly however many are taken: multiples of the golden ratio.
fn spread(i: usize) -> f64 {
    (i as f64 * 0.618_033_988_749_895).fract()
}

/// Orders coordinates at random, each drawn from the rest with a probability in proportion to its variance above the
/// least one (Efraimidis and Spirakis, 2006: by exponential clocks).
fn prefer_spread(order: &mut [usize], variances: &[f64], rng: &mut ChaCha8Rng) {
    let least = variances.iter().copied().fold(f64::INFINITY, f64::min);
    let most = variances.iter().copied().fold(least, f64::max);
    // Where all vary alike, or some not at all, no clock stands still.
    let rate = |v: f64| (v - least) + 1e-6 * most;
    let rings: Vec<f64> =
        variances.iter().map(|&v| Distribution::<f64>::sample(&Exp1, rng) / rate(v)).collect();
    order.sort_by(|&a, &b| rings[a].total_cmp(&rings[b]));
}

#[cfg(test)]
mod tests {
    use super::super::{GibbsFactor, Head};
    use super::*;
    use crate::gaussian::Gaussian;
    use crate::ops::Activation;

    #[test]
    fn few_units_look_along_coordinates_both_ways() {
        let (mean, variances) = ([0.5, -1.0, 0.0, 2.0], [1.0, 0.01, 4.0, 0.25]);
        let d = mean.len();
        let covariance: Vec<f64> =
            (0..d * d).map(|i| if i % (d + 1) == 0 { variances[i / d] } else { 0.0 }).collect();
        let gaussian = Gaussian { mean: mean.to_vec(), covariance: covariance.into() };
        let start = gaussian.quadratic_start().unwrap();
        let arch = Architecture {
            dim: d,
            widths: vec![4, 3],
            rank: 1,
            diagonal: false,
            activation: Activation::Softplus { beta: 1.0 },
            head: Head::Full,
            gibbs: GibbsFactor::Whole,
        };
        let weights = initial_weights_for_samples(&arch, &start, 3).unwrap();
        let (forms, bias) = (weights.x_side.to_vec(), weights.bias.to_vec());
        let seen: Vec<(usize, f64)> = forms
            .chunks_exact(d)
            .zip(&bias)
            .take(arch.units())
            .map(|(row, bias)| {
                let of: Vec<usize> = (0..d).filter(|&k| row[k] != 0.0).collect();
                assert_eq!(of.len(), 1, "{row:?}");
                let k = of[0];
                // Where the form is 0, in standard deviations from the mean: outside the data, which it falls towards.
                let bend = (-bias / row[k] - mean[k]) / variances[k].sqrt();
                assert!((bend.abs() - BEND).abs() < 1e-9 && bend * row[k] > 0.0, "{bend} {row:?}");
                (k, bend.signum())
            })
            .collect();
        // Four of seven downwards, once along each coordinate, then three upwards in the same order.
        let (down, up) = seen.split_at(4);
        assert!(down.iter().all(|s| s.1 < 0.0) && up.iter().all(|s| s.1 > 0.0), "{seen:?}");
        assert!(up.iter().zip(down).all(|(up, down)| up.0 == down.0), "{seen:?}");
        let mut coordinates: Vec<usize> = down.iter().map(|s| s.0).collect();
        coordinates.sort_unstable();
        assert_eq!(coordinates, [0, 1, 2, 3]);
    }
}
