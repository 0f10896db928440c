//! Weights to start training from: the Gaussian solution as the head, hidden layers near zero.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::{Architecture, Weights};
use crate::error::{Error, Result, check_len};
use crate::gaussian::QuadraticStart;
use crate::host::Array;
use crate::linalg::{dot, matmul};

/// Output weights u at the start: small enough to leave the closed form in charge, large enough for
/// gradients to reach the layers below.
const OUTPUT: f64 = 0.01;

/// The weights of `arch` around the closed-form potential `start`, from `seed`.
///
/// The head is `start` itself. Hidden rows b are random directions whitened by the head's Hessian, so
/// that b·(x-a) has variance 1 under the Gibbs factor; biases centre them; mixing weights average.
/// Squared forms start at a tenth of that size.
pub fn initial_weights(
    arch: &Architecture,
    start: &QuadraticStart,
    seed: u64,
) -> Result<Weights<Array<f64>>> {
    arch.validate()?;
    let (d, n) = (arch.dim, arch.units());
    check_len("the start's centre", start.centre.len(), d)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut normal = |len: usize, scale: f64| -> Vec<f64> {
        (0..len).map(|_| scale * Distribution::<f64>::sample(&StandardNormal, &mut rng)).collect()
    };
    // Var(b·x) = b' H^{-1} b; with b = g R' for R R' = H and g of unit length it is about 1.
    let root = crate::linalg::SymmetricEigen::new(&start.hessian, d)?.apply(|v| v.max(0.0).sqrt());
    let unit = 1.0 / (d as f64).sqrt();
    let linear = matmul(&normal(n * d, unit), &root, n, d, d);
    let squared = matmul(&normal(n * arch.rank * d, 0.1 * unit), &root, n * arch.rank, d, d);
    let spread = normal(n, 0.5);
    let bias: Vec<f64> = (0..n).map(|i| spread[i] - dot(&linear[i * d..][..d], &start.centre)).collect();
    let pull = matmul(&start.centre, &start.hessian, 1, d, d);
    Weights::build(arch, |name, [rows, cols]| -> Result<Array<f64>> {
        let data = match name {
            "x_side" => [linear.as_slice(), &squared, &start.hessian].concat(),
            "diagonal" => vec![0.1 / d as f64; rows * cols],
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
