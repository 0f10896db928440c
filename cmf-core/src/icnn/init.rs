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

/// Output weights u at the start: small enough to leave the closed form in charge, large enough for
/// gradients to reach the layers below.
const OUTPUT: f64 = 0.05;
/// Slope of a unit's linear form, in standard deviations of the data along it.
const SLOPE: f64 = 3.0;
/// Where along the form a unit bends: this many standard deviations below the mean.
const BEND: f64 = 2.0;
/// Size of the squared forms under the Gibbs factor.
const SQUARED: f64 = 0.02;

/// Spreads the places where the units of [`initial_weights`] bend evenly over four standard deviations.
///
/// Least-squares steps move each of them at once, which needs units that bend where the mass is.
pub fn spread_bends(weights: &mut Weights<Array<f64>>) {
    let mut bias = weights.bias.to_vec();
    let n = bias.len();
    for (k, c) in bias.iter_mut().enumerate() {
        *c += 2.0 * SLOPE * BEND * (k as f64 + 0.5) / n as f64;
    }
    weights.bias = Array::matrix(bias, 1, n);
}

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
    let mut bias = Vec::with_capacity(n);
    for (row, along) in linear.chunks_exact_mut(d).zip(along.chunks_exact(d)) {
        let scale = SLOPE / dot(row, along).sqrt();
        row.iter_mut().for_each(|v| *v *= scale);
        bias.push(-dot(row, &data.mean) - SLOPE * BEND);
    }
    let root = SymmetricEigen::new(&start.hessian, d)?.apply(f64::sqrt);
    let squared = matmul(&normal(n * arch.rank * d, SQUARED), &root, n * arch.rank, d, d);
    let pull = matmul(&start.centre, &start.hessian, 1, d, d);
    Weights::build(arch, |name, [rows, cols]| -> Result<Array<f64>> {
        let data = match name {
            "x_side" => [linear.as_slice(), &squared, &start.hessian].concat(),
            "diagonal" => vec![SQUARED * SQUARED; rows * cols],
            "bias" => bias.clone(),
            "output" => vec![OUTPUT; cols],
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
