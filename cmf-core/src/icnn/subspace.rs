//! The network along the directions of its spiked head, where its units look nowhere else.

use std::sync::Arc;

use super::{Architecture, GibbsFactor, Head, Icnn, Weights};
use crate::host::{Array, Host, Scalar};
use crate::ops::Ops;
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

/// The forms [(1 + r) N, d] of a network in the directions of its spiked head: [(1 + r) N, k]; none with a full head, and
/// where a form leaves the span of the directions.
fn forms_along<T: Scalar>(network: &Icnn<T>, host: &Host<T>) -> Option<Array<T>> {
    let (arch, weights) = (network.architecture(), network.weights());
    let Head::Spiked { rank: k } = arch.head else { return None };
    if let Some(forms) = &weights.forms_along {
        return Some(forms.clone());
    }
    let n = (1 + arch.rank) * arch.units();
    let [forms, directions] =
        [0..n, n..n + k].map(|rows| host.slice(&weights.x_side, 0, rows.start, rows.end));
    let inside = host.matmul(&forms, &host.transpose(&directions));
    let off = host.sub(&forms, &host.matmul(&inside, &directions));
    let square = |a: &Array<T>| host.inner(a, a, 1).to_f64s();
    let within =
        square(&off).iter().zip(square(&forms)).all(|(off, form)| off.sqrt() <= OUTSIDE * form.sqrt());
    within.then_some(inside)
}

impl<T: Scalar> Icnn<T> {
    /// The same network, which goes through the directions of a spiked head where its forms lie in their span: k (d + (1 + r) N)
    /// multiplications a product instead of d (k + (1 + r) N), and the forms rounded once more.
    pub fn through_directions(self) -> Self {
        let forms = forms_along(&self, &Host::parallel());
        self.with_forms_along(forms)
    }
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
        let host = Host::sequential();
        let forms = forms_along(network, &host)?;
        let n = forms.shape()[0];
        // The head's rows: diag(q).
        let across = spikes.floor.to_f64s()[0];
        let curvatures: Vec<f64> = spikes.excess.to_f64s().iter().map(|excess| excess + across).collect();
        let head = (0..k * k).map(|i| if i % (k + 1) == 0 { curvatures[i / k] } else { 0.0 });
        let head = Array::from_f64(&head.collect::<Vec<_>>(), k, k);
        let along = Architecture { dim: k, head: Head::Full, gibbs: GibbsFactor::Whole, ..arch.clone() };
        let weights = Weights {
            x_side: host.concat(&[forms, head.clone()], 0),
            forms_along: None,
            centre: weights.pull.clone(),
            pull: host.matmul(&weights.pull, &head),
            spikes: None,
            ..weights.clone()
        };
        let directions = host.slice(&network.weights().x_side, 0, n, n + k).to_f64s();
        let network = Icnn::new(along, weights).ok()?;
        Some(Arc::new(Along { network, directions, across }))
    }

    pub fn subspace(&self) -> Subspace<'_> {
        Subspace { along: &self.network, directions: &self.directions, across: self.across }
    }
}
