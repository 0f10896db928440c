//! The network along the directions of its spiked head, where its units look nowhere else.

use std::sync::Arc;

use super::{Architecture, GibbsFactor, Head, Icnn, Weights};
use crate::host::{Array, Scalar};
use crate::linalg::{dot, product_on_one_thread};
use crate::potential::Subspace;

/// How far a form may lie outside of the directions, as a share of its length: f32 rounds sums of a few thousand terms.
const OUTSIDE: f64 = 1e-5;

/// f, V and c of w(x) = f(V x) + ½ c |(I - V'V)(x - a)|².
#[derive(Debug)]
pub(super) struct Along<T> {
    network: Icnn<T>,
    directions: Vec<f64>,
    across: f64,
}

impl<T: Scalar> Along<T> {
    /// None with a full head, with diagonal terms, and where a form leaves the directions.
    ///
    /// On the calling thread alone: others may wait for it.
    pub fn of(network: &Icnn<T>) -> Option<Arc<Self>> {
        let (arch, weights) = (network.architecture(), network.weights());
        let (Head::Spiked { rank: k }, Some(spikes), false) = (arch.head, &weights.spikes, arch.diagonal)
        else {
            return None;
        };
        let (d, n) = (arch.dim, (1 + arch.rank) * arch.units());
        let rows = weights.x_side.to_f64s();
        let (forms, directions) = rows.split_at(n * d);
        let transposed: Vec<f64> = (0..d * k).map(|i| directions[i % k * d + i / k]).collect();
        let mut inside = product_on_one_thread(forms, &transposed, n, d, k);
        let back = product_on_one_thread(&inside, directions, n, k, d);
        let leaves = |(form, back): (&[f64], &[f64])| {
            let off: f64 = form.iter().zip(back).map(|(a, b)| (a - b).powi(2)).sum();
            off.sqrt() > OUTSIDE * dot(form, form).sqrt()
        };
        if forms.chunks_exact(d).zip(back.chunks_exact(d)).any(leaves) {
            return None;
        }
        // The head's rows: diag(q).
        let across = spikes.floor.to_f64s()[0];
        let curvatures: Vec<f64> = spikes.excess.to_f64s().iter().map(|excess| excess + across).collect();
        inside.extend((0..k * k).map(|i| if i % (k + 1) == 0 { curvatures[i / k] } else { 0.0 }));
        let centre = weights.pull.to_f64s();
        let pull: Vec<f64> = centre.iter().zip(&curvatures).map(|(a, q)| a * q).collect();
        let along = Architecture { dim: k, head: Head::Full, gibbs: GibbsFactor::Whole, ..arch.clone() };
        let weights = Weights {
            x_side: Array::from_f64(&inside, n + k, k),
            centre: weights.pull.clone(),
            pull: Array::from_f64(&pull, 1, k),
            spikes: None,
            ..weights.clone()
        };
        let network = Icnn::new(along, weights).ok()?;
        Some(Arc::new(Along { network, directions: directions.to_vec(), across }))
    }

    pub fn subspace(&self) -> Subspace<'_> {
        Subspace { along: &self.network, directions: &self.directions, across: self.across }
    }
}
