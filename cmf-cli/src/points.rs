//! Points to compare: rows of a data set, with noise.

use cmf_core::Result;
use cmf_plugins::data::{DataSet, Split};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// All rows of a split: [n, d].
pub fn split_rows(data: &dyn DataSet, split: Split) -> Result<Vec<f64>> {
    let n = data.rows(split);
    let mut rows = vec![0.0; n * data.shape().dim()];
    data.read(split, &(0..n).collect::<Vec<_>>(), &mut rows).map_err(cmf_plugins::core_error)?;
    Ok(rows)
}

/// Adds N(0, sigma² I).
pub fn add_noise(rows: &mut [f64], sigma: f64, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rows.iter_mut().for_each(|v| *v += sigma * rng.sample::<f64, _>(StandardNormal));
}
