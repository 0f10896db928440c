//! The leading principal components of data, by blocked subspace iteration on the rows: no [d, d] matrix is made.

use faer::Mat;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use crate::error::{Error, Result};
use crate::linalg::{SymmetricEigen, centred, matmul, to_rows, view};
use crate::potential::rows;
use crate::symmetric::Spiked;

/// Passes over the data that turn the subspace towards the leading eigenvectors.
///
/// The eigenvalues near the last one kept need not be told apart: whatever subspace is found, its variances are those
/// of the data along it, and images' last components have almost equal variances.
const PASSES: usize = 5;
/// Directions beyond those kept, which speed the iteration up (Halko, Martinsson and Tropp, 2011, section 1.3).
const SPARE: usize = 16;
/// Rows that are centred at a time.
const BLOCK: usize = 1024;

/// The covariance of the rows of `y` [n, d] around `mean`, spiked in their `k` leading directions, plus `noise`² I.
///
/// The eigenvalue across is the mean of the d - k others, which makes the matrix the likeliest of its form for the
/// directions found (Tipping and Bishop, 1999). Fails unless 0 < k < d and k <= n.
pub(crate) fn leading(y: &[f64], mean: &[f64], noise: f64, k: usize) -> Result<Spiked> {
    let d = mean.len();
    let n = rows(y, d)?;
    if k == 0 || k >= d || k > n {
        return Err(Error::Invalid(format!(
            "expected between 1 and {} leading directions of {n} rows of {d} numbers, found {k}",
            n.min(d - 1)
        )));
    }
    let q = (k + SPARE).min(d);
    // Directions are columns: [d, q].
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut basis = Mat::from_fn(d, q, |_, _| rng.sample::<f64, _>(StandardNormal)).qr().compute_thin_Q();
    let mut total = 0.0;
    let mut product = |basis: &Mat<f64>| {
        let mut sum = Mat::<f64>::zeros(d, q);
        total = 0.0;
        for block in y.chunks(BLOCK * d) {
            let centred = centred(block, mean);
            total += centred.iter().map(|v| v * v).sum::<f64>() / n as f64;
            let centred = view(&centred, block.len() / d, d);
            sum += centred.transpose() * (centred * basis) * faer::Scale(1.0 / n as f64);
        }
        sum
    };
    for _ in 0..PASSES {
        basis = product(&basis).qr().compute_thin_Q();
    }
    // Rayleigh-Ritz: the eigenvectors of the covariance within the subspace.
    let within = to_rows((basis.transpose() * product(&basis)).as_ref());
    let eigen = SymmetricEigen::new(&within, q)?;
    let kept: Vec<usize> = (q - k..q).rev().collect();
    let values: Vec<f64> = kept.iter().map(|&i| eigen.values[i].max(0.0)).collect();
    let rotation: Vec<f64> = kept.iter().flat_map(|&i| eigen.vector(i)).collect();
    let vectors = matmul(&rotation, &to_rows(basis.transpose()), k, q, d);
    let floor = ((total - values.iter().sum::<f64>()) / (d - k) as f64).max(0.0);
    let noise = noise * noise;
    Spiked::new(floor + noise, values.into_iter().map(|v| v + noise).collect(), vectors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gaussian::Gaussian;
    use crate::linalg::dot;

    #[test]
    fn the_leading_directions_are_those_of_the_covariance() {
        // Standard deviations 8, 4, 2 and 0.5 for the rest, along random directions.
        let (n, d) = (500, 30);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut normal = |n: usize| -> Vec<f64> { (0..n).map(|_| rng.sample(StandardNormal)).collect() };
        let turn = to_rows(Mat::from_fn(d, d, |_, _| normal(1)[0]).qr().compute_thin_Q().as_ref());
        let mut y = normal(n * d);
        for row in y.chunks_exact_mut(d) {
            row.iter_mut()
                .enumerate()
                .for_each(|(i, v)| *v *= [8.0, 4.0, 2.0].get(i).copied().unwrap_or(0.5));
        }
        let y: Vec<f64> = matmul(&y, &turn, n, d, d).iter().map(|v| v + 1.0).collect();
        let whole = Gaussian::fit(&y, d, 0.1).unwrap();
        let few = Gaussian::fit_leading(&y, d, 0.1, 3).unwrap();
        assert_eq!(few.mean, whole.mean);
        let spectrum = SymmetricEigen::new(&whole.covariance.dense(), d).unwrap();
        let numbers = few.covariance.numbers();
        // The fourth variance is a sixteenth of the third, so that each pass gains a factor of 16 on the vectors and,
        // squared, on the values: 16^-12 after six of them.
        let rest = spectrum.values[..d - 3].iter().sum::<f64>() / (d - 3) as f64;
        let expected = [rest, spectrum.values[d - 1], spectrum.values[d - 2], spectrum.values[d - 3]];
        for (found, expected) in numbers.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9 * expected, "{found} {expected}");
        }
        for (i, u) in numbers[4..].chunks_exact(d).enumerate() {
            assert!((dot(u, &spectrum.vector(d - 1 - i)).abs() - 1.0).abs() < 1e-9);
        }
        for k in [0, d, d + 1] {
            assert!(Gaussian::fit_leading(&y, d, 0.1, k).is_err());
        }
        assert!(Gaussian::fit_leading(&y[..2 * d], d, 0.1, 3).unwrap_err().to_string().contains("of 2 rows"));
    }
}
