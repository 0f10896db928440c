//! A network for the tests of this module.

use crate::gaussian::Gaussian;
use crate::host::Array;
use crate::icnn::{Architecture, Head, Icnn, initial_weights};

/// `n` points of `d` coordinates between -1/2 and 1/2: [n, d].
pub fn points(n: usize, d: usize) -> Vec<f64> {
    (0..n * d).map(|i| (i * 7919 % 1009) as f64 / 1009.0 - 0.5).collect()
}

/// The start of training on such points, with output weights that let its units speak: as many as the units.
pub fn network(arch: Architecture, output: Vec<f64>) -> Icnn<f64> {
    let (d, data) = (arch.dim, points(40, arch.dim));
    let gaussian = match arch.head {
        Head::Full => Gaussian::fit(&data, d, 0.3),
        Head::Spiked { rank } => Gaussian::fit_leading(&data, d, 0.3, rank),
    };
    let mut weights = initial_weights(&arch, &gaussian.unwrap().quadratic_start().unwrap(), 1).unwrap();
    weights.output = Array::matrix(output, 1, arch.units());
    Icnn::new(arch, weights).unwrap()
}
