//! The network along the directions of its spiked head, where its units look nowhere else.

use std::sync::Arc;

use super::{Architecture, FormsAlong, GibbsFactor, Head, Icnn, Weights};
use crate::host::{Array, Host, Scalar};
use crate::ops::Ops;
use crate::potential::Subspace;
use crate::symmetric::Spiked;

/// How far a row may lie outside of directions that are taken to hold it, as a share of its length: f32 rounds sums of a few
/// thousand terms.
const OUTSIDE: f64 = 1e-5;

/// Multiply-adds of a look at whether forms lie in the span, and of forms from their coordinates: a second of one core. What
/// asks for more is taken to bend in all directions.
const MOST_WORK: usize = 1 << 36;

/// f, V and c of w(x) = f(V x) + ½ c |(I - V'V)(x - a)|².
#[derive(Debug)]
pub(super) struct Along<T> {
    network: Icnn<T>,
    /// c and V.
    head: Spiked,
}

/// The coordinates [n, k] of the rows `forms` [n, d] in `directions` [k, d], and what lies outside of these: [n, d].
pub(crate) fn in_directions<T: Scalar>(
    forms: &Array<T>,
    directions: &Array<T>,
    host: &Host<T>,
) -> [Array<T>; 2] {
    let inside = host.matmul(forms, &host.transpose(directions));
    let outside = host.sub(forms, &host.matmul(&inside, directions));
    [inside, outside]
}

/// The coordinates [n, k] of `rows` [n, d] in `directions` [k, d]; none where a row leaves their span.
pub(crate) fn coordinates_within<T: Scalar>(
    rows: &Array<T>,
    directions: &Array<T>,
    host: &Host<T>,
) -> Option<Array<T>> {
    let [inside, off] = in_directions(rows, directions, host);
    let length = |row: &[T]| row.iter().map(|v| v.to_f64().powi(2)).sum::<f64>().sqrt();
    let row = |a: &Array<T>, i: usize| length(a.row(0, i).unwrap_or_default());
    let within = (0..rows.shape()[0]).all(|i| row(&off, i) <= OUTSIDE * row(rows, i));
    within.then_some(inside)
}

/// Whether the coordinates of the forms, or the forms from their coordinates, take no more than [`MOST_WORK`].
pub(crate) fn is_affordable(arch: &Architecture) -> bool {
    let forms = (1 + arch.rank) * arch.units();
    arch.head.rank().is_some_and(|k| (forms * arch.dim).saturating_mul(k) <= MOST_WORK)
}

/// The forms of a network in the directions of its spiked head; none with a full head, and where a form leaves the span of the
/// directions.
fn forms_along<T: Scalar>(network: &Icnn<T>, host: &Host<T>) -> Option<FormsAlong<Array<T>>> {
    let (arch, weights) = (network.architecture(), network.weights());
    let Head::Spiked { rank: k } = arch.head else { return None };
    if let Some(along) = &weights.along {
        return Some(along.clone());
    }
    if !is_affordable(arch) {
        return None;
    }
    let n = (1 + arch.rank) * arch.units();
    let [forms, directions] =
        [0..n, n..n + k].map(|rows| host.slice(&weights.x_side, 0, rows.start, rows.end));
    let inside = coordinates_within(&forms, &directions, host)?;
    Some(FormsAlong { forms: inside, directions })
}

impl<T: Scalar> Icnn<T> {
    /// The same network, which goes through the directions of a spiked head where its forms lie in their span: k (d + (1 + r) N)
    /// multiplications a product instead of d (k + (1 + r) N), and the forms rounded once more.
    pub fn through_directions(self) -> Self {
        let along = forms_along(&self, &Host::parallel());
        self.with_forms_along(along)
    }
}

impl<T: Scalar> Along<T> {
    /// None with a full head, with diagonal terms, where a form leaves the directions, and where these are not orthonormal or
    /// curvatures not positive.
    ///
    /// On the calling thread alone: others may wait for it.
    pub fn of(network: &Icnn<T>) -> Option<Arc<Self>> {
        let (arch, weights) = (network.architecture(), network.weights());
        let (Head::Spiked { rank: k }, Some(spikes), false) = (arch.head, &weights.spikes, arch.diagonal)
        else {
            return None;
        };
        let host = Host::sequential();
        let FormsAlong { forms, directions } = forms_along(network, &host)?;
        let floor = spikes.floor.to_f64s()[0];
        let curvatures: Vec<f64> = spikes.excess.to_f64s().iter().map(|excess| excess + floor).collect();
        if floor <= 0.0 || curvatures.iter().any(|&q| q <= 0.0) {
            return None;
        }
        let centre = host.matmul(&weights.centre, &host.transpose(&directions));
        let curvature = Array::from_f64(&curvatures, 1, k);
        let head = Spiked::new(floor, curvatures, directions.to_f64s()).ok()?;
        let along = Architecture { dim: k, head: Head::Full, gibbs: GibbsFactor::Whole, ..arch.clone() };
        let weights = Weights {
            // The head's rows: diag(q).
            x_side: host.concat(&[forms, host.mul(&host.identity(k), &curvature)], 0),
            along: None,
            pull: host.mul(&centre, &curvature),
            centre,
            spikes: None,
            ..weights.clone()
        };
        let network = Icnn::new(along, weights).ok()?;
        Some(Arc::new(Along { network, head }))
    }

    pub fn subspace(&self) -> Subspace<'_> {
        Subspace { along: &self.network, directions: self.head.vectors(), across: self.head.floor() }
    }
}
