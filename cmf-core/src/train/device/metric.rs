//! The inner loops' metric P = L L' on a device, and the small products that they share.

use burn::prelude::*;

use super::super::objective::rows;
use super::super::ops::{Precise, product};
use crate::error::Result;
use crate::preconditioner::Preconditioner;

/// P = L L' as matrices on a device.
pub(super) struct Metric<B: Backend> {
    /// L: [d, d].
    factor: Tensor<B, 2>,
    /// P: [d, d].
    whole: Tensor<B, 2>,
}

impl<B: Precise> Metric<B> {
    /// Copies the host's to `device`.
    pub fn new(host: &Preconditioner, device: &B::Device) -> Result<Self> {
        let d = host.dim();
        let identity: Vec<f64> = (0..d * d).map(|i| f64::from(i % (d + 1) == 0)).collect();
        // Row i of the coloured identity is column i of L.
        let transposed = host.colour(&identity)?;
        let whole = host.colour(&host.pull_back(&identity)?)?;
        Ok(Metric { factor: rows(&transposed, d, device).transpose(), whole: rows(&whole, d, device) })
    }

    /// L z for each row z: [n, d] -> [n, d].
    pub fn colour(&self, z: Tensor<B, 2>) -> Tensor<B, 2> {
        product(z, self.factor.clone().transpose())
    }

    /// L' g for each row g: [n, d] -> [n, d].
    pub fn pull_back(&self, g: Tensor<B, 2>) -> Tensor<B, 2> {
        product(g, self.factor.clone())
    }

    /// P r for each row r: [n, d] -> [n, d].
    pub fn apply(&self, r: Tensor<B, 2>) -> Tensor<B, 2> {
        product(r, self.whole.clone())
    }
}

/// ⟨a_i, b_i⟩ of the rows: [n, d], [n, d] -> [n, 1].
pub(super) fn dots<B: Backend>(a: &Tensor<B, 2>, b: &Tensor<B, 2>) -> Tensor<B, 2> {
    (a.clone() * b.clone()).sum_dim(1)
}

/// `new` in the rows where `mask` [n, 1] holds, `old` in the others, whatever numbers stand in either.
pub(super) fn choose<B: Backend>(
    mask: &Tensor<B, 2, Bool>,
    new: Tensor<B, 2>,
    old: &Tensor<B, 2>,
) -> Tensor<B, 2> {
    let mask = mask.clone().expand(old.dims());
    old.clone().mask_where(mask, new)
}
