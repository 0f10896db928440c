//! Weights to start training from: the Gaussian solution as the head, hidden layers near zero.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::{Architecture, Weights};
use crate::error::{Error, Result, check_len};
use crate::gaussian::QuadraticStart;
use crate::host::Array;
use crate::linalg::{SymmetricEigen, dot, matmul};

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
/// random directions start on a plateau. Mixing weights average.
pub fn initial_weights(
    arch: &Architecture,
    start: &QuadraticStart,
    seed: u64,
) -> Result<Weights<Array<f64>>> {
    around(arch, start, seed, false)
}

/// The same for learning from samples: where units are many, as in the plane, those along random directions
/// bend sharply and in places spread over the data.
///
/// From broad bends that all lie outside the data Adam needs thousands of updates to move them in. Least-squares
/// steps from an energy move them at once, and come to rest at worse fits from sharp ones.
pub fn initial_weights_for_samples(
    arch: &Architecture,
    start: &QuadraticStart,
    seed: u64,
) -> Result<Weights<Array<f64>>> {
    around(arch, start, seed, arch.units() >= MANY * arch.dim)
}

fn around(arch: &Architecture, start: &QuadraticStart, seed: u64, many: bool) -> Result<Weights<Array<f64>>> {
    arch.validate()?;
    let (d, n) = (arch.dim, arch.units());
    check_len("the start's centre", start.centre.len(), d)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..d).collect();
    order.shuffle(&mut rng);
    let mut normal = |len: usize, scale: f64| -> Vec<f64> {
        (0..len).map(|_| scale * Distribution::<f64>::sample(&StandardNormal, &mut rng)).collect()
    };
    let mut linear = normal(n * d, 1.0);
    for (row, &k) in linear.chunks_exact_mut(d).zip(&order) {
        row.fill(0.0);
        row[k] = -1.0;
    }
    let data = start.gaussian()?;
    let along = matmul(&linear, &data.covariance, n, d, d);
    let slope = if many { STEEP } else { SLOPE };
    let mut bias = Vec::with_capacity(n);
    for (i, (row, along)) in linear.chunks_exact_mut(d).zip(along.chunks_exact(d)).enumerate() {
        let scale = slope / dot(row, along).sqrt();
        row.iter_mut().for_each(|v| *v *= scale);
        let bend = if many && i >= d { BEND * (2.0 * spread(i) - 1.0) } else { BEND };
        bias.push(-dot(row, &data.mean) - slope * bend);
    }
    let root = SymmetricEigen::new(&start.hessian, d)?.apply(f64::sqrt);
    let squared = matmul(&normal(n * arch.rank * d, SQUARED), &root, n * arch.rank, d, d);
    let pull = matmul(&start.centre, &start.hessian, 1, d, d);
    Weights::build(arch, |name, [rows, cols]| -> Result<Array<f64>> {
        let data = match name {
            "x_side" => [linear.as_slice(), &squared, &start.hessian].concat(),
            "diagonal" => vec![SQUARED * SQUARED; rows * cols],
            "bias" => bias.clone(),
            "output" => vec![OUTPUT * (SLOPE / slope).powi(2); cols],
            "centre" => start.centre.clone(),
            "pull" => pull.clone(),
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
