//! The exponential moving average of a network's effective weights.

use crate::error::Result;
use crate::host::Array;
use crate::icnn::{Architecture, Icnn, Weights};
use crate::linalg::matmul;

/// Averaged effective weights; averages of convex networks of one architecture are convex.
pub struct Average {
    arch: Architecture,
    /// The arrays in the order of [`Weights::named`].
    pub arrays: Vec<Vec<f32>>,
}

impl Average {
    /// Starts at `network`.
    pub fn new(network: &Icnn<f32>) -> Self {
        let arch = network.architecture().clone();
        let arrays = network.weights().named(&arch).iter().map(|(.., a)| a.to_vec()).collect();
        Average { arch, arrays }
    }

    /// From saved arrays.
    pub fn from_arrays(arch: Architecture, arrays: Vec<Vec<f32>>) -> Self {
        Average { arch, arrays }
    }

    /// average ← decay · average + (1 - decay) · network.
    pub fn update(&mut self, network: &Icnn<f32>, decay: f64) {
        let new = (1.0 - decay) as f32;
        for (mean, (.., array)) in self.arrays.iter_mut().zip(network.weights().named(&self.arch)) {
            for (m, v) in mean.iter_mut().zip(array.to_vec()) {
                *m += new * (v - *m);
            }
        }
    }

    /// The averaged network.
    pub fn network(&self) -> Result<Icnn<f32>> {
        let mut arrays = self.arrays.iter();
        let mut weights = Weights::build(&self.arch, |name, [rows, cols]| match arrays.next() {
            Some(a) if a.len() == rows * cols => Ok(Array::matrix(a.clone(), rows, cols)),
            found => Err(crate::Error::Shape {
                what: "averaged weights",
                expected: format!("{} numbers of {name}", rows * cols),
                found: format!("{:?}", found.map(Vec::len)),
            }),
        })?;
        // The product Q a does not average; it follows from the averages of Q and a (as V a would anyway).
        let (d, rows) = (self.arch.dim, self.arch.head_rows());
        let wide = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<f64>>();
        let x_side = wide(weights.x_side.to_vec());
        let head = &x_side[(self.arch.x_side_rows() - rows) * d..];
        let pull = matmul(head, &wide(weights.centre.to_vec()), rows, d, 1);
        weights.pull = Array::from_f64(&pull, 1, rows);
        Icnn::new(self.arch.clone(), weights)
    }
}
