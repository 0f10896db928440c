//! The network in coordinates that suit who uses it there: chains, in which its quadratic head costs next to nothing, or
//! solves for conjugates, in which its mean Hessian is the identity.

use std::sync::Arc;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{Architecture, GibbsFactor, Head, Icnn, Spikes, Weights};
use crate::error::{Error, Result};
use crate::host::{Array, Scalar};
use crate::linalg::{SymmetricEigen, matmul, plus, to_rows, view};
use crate::potential::Purpose;
use crate::preconditioner::Preconditioner;
use crate::sampler::standard_normals;

/// Directions along which the head is less than this share of P^{-1} keep a curvature of their own: the hidden units have
/// taken over there, and Q says little of the Hessian. Of 1,000 draws of digits the effective sample size was 3,220 with
/// P's coordinates; with shares of 0.25, 0.5, 0.7 and 0.85 it was 2,440, 3,080, 3,150 and 3,200, in the same time.
const LEAST: f64 = 0.7;
/// Nats that the units left out may add to w together, were each as active as any of their layer is at the points given.
const NEGLIGIBLE: f64 = 0.05;
/// The same for conjugates, whose gradients must agree with those of the whole network to a small part of their tolerance: at
/// 0.05 nats a digits' network loses 7e-5 of it in the root mean square, of 1e-4, at 0.01 2e-6 for eleven units more of 848.
const NEGLIGIBLE_IN_SOLVES: f64 = 0.01;
/// Points at which idle units are told from others for chains. Of the 256 last units of a digits' network 113 were idle:
/// they added 6e-4 ± 4e-4 nats together.
const POINTS: usize = 64;
/// Points over which the Hessian of other than flat networks is averaged, whose every point costs.
const HESSIANS: usize = 16;

impl<T: Scalar> Icnn<T> {
    /// The network z ↦ w(L z), without its idle units, and its L; nothing is said of its Gibbs factor. None where nothing is
    /// gained, with a spiked head, where L would cost more than it saves, and with diagonal terms, which are not diagonal in z.
    pub(crate) fn whitened_network(
        &self,
        purpose: Purpose<'_>,
    ) -> Result<Option<(Icnn<T>, Arc<Preconditioner>)>> {
        let arch = self.architecture();
        if arch.head != Head::Full || arch.diagonal {
            return Ok(None);
        }
        let found = match purpose {
            Purpose::Chains(near) => self.for_chains(near)?,
            Purpose::Conjugates(points) => self.for_conjugates(points)?,
        };
        Ok(found.map(|(network, coordinates)| (network, Arc::new(coordinates))))
    }

    /// L with L'HL = I for the mean Hessian H at `points` [n, d]; none where rounding leaves H indefinite.
    ///
    /// Units bend where the data are: in the coordinates of P the Hessian of the digits' network has eigenvalues up to 20
    /// there.
    fn for_conjugates(&self, points: &[f64]) -> Result<Option<(Icnn<T>, Preconditioner)>> {
        let lean = self.without_idle_units(points, NEGLIGIBLE_IN_SOLVES)?;
        let (arch, weights) = (lean.architecture(), lean.weights());
        let d = arch.dim;
        let most = if arch.is_flat() { points.len() } else { HESSIANS * d };
        let mean = lean.mean_hessian(&points[..most.min(points.len())])?;
        let Some(coordinates) = Preconditioner::of_mean_hessian(&mean)? else { return Ok(None) };
        // The head's rows, the last ones, are Q L after this and have L' before them still to come.
        let mut rows = coordinates.pull_back_in(&weights.x_side.to_vec())?;
        let forms = rows.len() - d * d;
        let half = to_rows(view(&rows.split_off(forms), d, d).transpose());
        rows.extend(coordinates.pull_back_in(&half)?);
        let row = |numbers: &[f64]| Array::from_f64(numbers, 1, numbers.len());
        let whitened = Weights {
            x_side: Array::matrix(rows, arch.x_side_rows(), d),
            pull: row(&coordinates.pull_back(&weights.pull.to_f64s())?),
            centre: row(&coordinates.whiten(&weights.centre.to_f64s())?),
            ..weights.clone()
        };
        Ok(Some((in_whitened(arch.clone(), whitened)?, coordinates)))
    }

    /// L such that the head costs next to nothing and Hessians are about as close to the identity as in the coordinates of
    /// P = `near`.
    ///
    /// With P = K K' and K'QK = V diag(μ) V', L = K V diag(λ)^{-1/2} where λ is μ, or 1 where μ is small: then L'QL is the
    /// identity but for those few directions, a [`Head::Spiked`], and most of the head's product with x, a quarter of all
    /// products of the digits' network, is gone; so are a sampler's products with L. None where most directions are left.
    fn for_chains(&self, near: &Preconditioner) -> Result<Option<(Icnn<T>, Preconditioner)>> {
        let lean = self.without_idle_units(&self.typical_points(near)?, NEGLIGIBLE)?;
        let (arch, weights) = (lean.architecture(), lean.weights());
        let d = arch.dim;
        let rows = weights.x_side.to_f64s();
        let (forms, head) = rows.split_at(rows.len() - d * d);
        let transposed = |a: &[f64]| to_rows(view(a, d, d).transpose());
        // K'QK, from the rows of Q K, transposed: those of K'Q.
        let relative = near.pull_back(&transposed(&near.pull_back(head)?))?;
        let eigen = SymmetricEigen::new(&relative, d)?;
        // Ascending, so that the spikes come first.
        let spikes = eigen.values.iter().filter(|&&v| v < LEAST).count().max(1);
        if 2 * spikes > d {
            return Ok(None);
        }
        let scale = |i: usize| if i < spikes { 1.0 } else { eigen.values[i].sqrt().recip() };
        // Columns of V diag(λ)^{-1/2}, as rows.
        let axes: Vec<f64> =
            (0..d).flat_map(|i| eigen.vector(i).into_iter().map(move |v| v * scale(i))).collect();
        let coordinates = Preconditioner::of_factor(&transposed(&near.colour(&axes)?), d)?;
        let forms = matmul(&near.pull_back(forms)?, &transposed(&axes), forms.len() / d, d, d);
        let directions = (0..spikes * d).map(|i| f64::from(i % d == i / d));
        let x_side: Vec<f64> = forms.into_iter().chain(directions).collect();
        let centre = coordinates.whiten(&weights.centre.to_f64s())?;
        let arch = Architecture { head: Head::Spiked { rank: spikes }, ..arch.clone() };
        let row = |numbers: &[f64]| Array::from_f64(numbers, 1, numbers.len());
        let excess: Vec<f64> = eigen.values[..spikes].iter().map(|v| v - 1.0).collect();
        let whitened = Weights {
            x_side: Array::from_f64(&x_side, arch.x_side_rows(), d),
            along: None,
            diagonal: None,
            mixing: weights.mixing.clone(),
            bias: weights.bias.clone(),
            output: weights.output.clone(),
            pull: row(&centre[..spikes]),
            centre: row(&centre),
            spikes: Some(Spikes { floor: row(&[1.0]), excess: row(&excess) }),
            constant: weights.constant.clone(),
        };
        Ok(Some((in_whitened(arch, whitened)?, coordinates)))
    }

    /// Draws of N(a, P), which are like those of the Gibbs factor: [`POINTS`, d].
    fn typical_points(&self, near: &Preconditioner) -> Result<Vec<f64>> {
        let centre = self.weights().centre.to_f64s();
        let noise = standard_normals(&mut ChaCha8Rng::seed_from_u64(0), POINTS * centre.len());
        Ok(plus(near.colour(&noise)?, &centre))
    }
}

/// The network of these weights, where the coordinates themselves are what may have spoilt them; of its Gibbs factor nothing
/// is said.
fn in_whitened<T: Scalar>(arch: Architecture, weights: Weights<Array<T>>) -> Result<Icnn<T>> {
    Icnn::new(Architecture { gibbs: GibbsFactor::Whole, ..arch }, weights)
        .map_err(|e| Error::Invalid(format!("in whitened coordinates: {e}")))
}
