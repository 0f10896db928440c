//! The exact log-density and its gradient, one dense Hessian a row.

use std::borrow::Cow;

use faer::MatMut;
use rayon::prelude::*;

use super::{Pushed, Status, finite};
use crate::error::{Error, Result, check_len};
use crate::gaussian::LN_2PI;
use crate::halves;
use crate::linalg::dot;
use crate::potential::{SecondOrder, Subspace, rows};
use crate::source::Source;

/// Exact log-densities of a batch of rows.
#[derive(Debug, Clone)]
pub struct ExactLogDensity {
    /// log ρ(y_i) in nats, -∞ where the status says why: [n].
    pub value: Vec<f64>,
    /// How each row ended: [n].
    pub status: Vec<Status>,
}

/// Bytes that the Hessians in flight and what is kept for their scores may take.
const WORKSPACE_BYTES: usize = 512 << 20;
/// The same up to which a thread has several at once.
const CACHED_BYTES: usize = 1 << 20;
/// Most rows of a thread at once.
const MOST_ROWS: usize = 64;

/// log ρ(y) = -w(G(y)) + log det H(y) - log Z of each row of `y` [n, d], by Cholesky of H, with the head in place of w where
/// [`Potential::gibbs`](crate::Potential::gibbs) gives one.
///
/// `log_z` in nats; with 0 the density is unnormalised. Memory: a [d, d] Hessian, or [k, k] of a potential that bends along k
/// directions ([`SecondOrder::subspace`]), for each thread of rayon's pool or, where they are small, several, within
/// 512 MiB. Errors: shapes, and whatever the potential refuses; a row that has no
/// density has a status instead.
pub fn exact_log_density(w: &dyn SecondOrder, log_z: f64, y: &[f64]) -> Result<ExactLogDensity> {
    evaluate(w, Source::Gibbs, log_z, y, None)
}

/// As [`exact_log_density`], with ∇ log ρ(y_i) written to `score` [n, d].
///
/// ∇ log ρ = -H G(G(y)) + ∇_y log det H; zero in a row without a density.
pub fn exact_log_density_and_score(
    w: &dyn SecondOrder,
    log_z: f64,
    y: &[f64],
    score: &mut [f64],
) -> Result<ExactLogDensity> {
    check_len("score", score.len(), y.len())?;
    evaluate(w, Source::Gibbs, log_z, y, Some(score))
}

/// log ρ(y) = log N(G(y); 0, I) + log det H(y) of each row of `y` [n, d]: the density of (∇w*)#N(0, I).
///
/// Normalised, with no constant to estimate. With `score` [n, d], ∇ log ρ(y_i) = -H G(y) + ∇_y log det H is
/// written there. Memory and errors as [`exact_log_density`].
pub fn exact_log_density_from_gaussian(
    w: &dyn SecondOrder,
    y: &[f64],
    score: Option<&mut [f64]>,
) -> Result<ExactLogDensity> {
    if let Some(score) = &score {
        check_len("score", score.len(), y.len())?;
    }
    evaluate(w, Source::Gaussian, 0.5 * w.dim() as f64 * LN_2PI, y, score)
}

/// The exact log-density under whichever source: [`exact_log_density`], with `score` [`exact_log_density_and_score`],
/// or [`exact_log_density_from_gaussian`], to which `log_z` does not matter.
pub fn exact_log_density_from(
    w: &dyn SecondOrder,
    source: Source,
    log_z: f64,
    y: &[f64],
    score: Option<&mut [f64]>,
) -> Result<ExactLogDensity> {
    match (source, score) {
        (Source::Gaussian, score) => exact_log_density_from_gaussian(w, y, score),
        (Source::Gibbs, Some(score)) => exact_log_density_and_score(w, log_z, y, score),
        (Source::Gibbs, None) => exact_log_density(w, log_z, y),
    }
}

/// y + σ² ∇ log ρ(y), the mean of the clean point given the noisy y [n, d]: [n, d] (Robbins, 1956; Efron, 2011).
///
/// Errors: as [`exact_log_density`]; [`Error::NotFinite`] if a row has no density.
pub fn tweedie(w: &dyn SecondOrder, source: Source, y: &[f64], sigma: f64) -> Result<Vec<f64>> {
    if sigma == 0.0 {
        return Ok(y.to_vec());
    }
    let mut score = vec![0.0; y.len()];
    // The normaliser does not enter the score.
    let rows = evaluate(w, source, 0.0, y, Some(&mut score))?;
    if let Some(i) = rows.status.iter().position(|&s| s != Status::Evaluated) {
        return Err(Error::NotFinite(format!(
            "the gradient of the log-density at row {i}: its noise can be kept, but not removed"
        )));
    }
    Ok(y.iter().zip(score).map(|(y, s)| y + sigma * sigma * s).collect())
}

/// [`tweedie`] or [`without_noise`].
pub type Denoise = fn(&dyn SecondOrder, Source, &[f64], f64) -> Result<Vec<f64>>;

/// [`tweedie`] from y, and once more from there: two steps of mean shift (Fukunaga and Hostetler, 1975), whose limits are
/// the modes of ρ. [n, d] -> [n, d].
///
/// One step takes away noise of deviation σ, but draws of a model have more than the data that it learned had: where their
/// deviation is s in a direction, a share 1 - σ²/s² of it stays, as specks beside the strokes of digits, and of that
/// again only this share after a second step. A third fills the background with grey.
pub fn without_noise(w: &dyn SecondOrder, source: Source, y: &[f64], sigma: f64) -> Result<Vec<f64>> {
    tweedie(w, source, &tweedie(w, source, y, sigma)?, sigma)
}

fn evaluate(
    w: &dyn SecondOrder,
    source: Source,
    log_z: f64,
    y: &[f64],
    mut score: Option<&mut [f64]>,
) -> Result<ExactLogDensity> {
    let d = w.dim();
    let n = rows(y, d)?;
    let mut density = ExactLogDensity { value: Vec::with_capacity(n), status: Vec::with_capacity(n) };
    let subspace = w.subspace();
    let bends = subspace.map_or(w, |subspace| subspace.along);
    let mut wave = Wave { w, source, log_z, subspace, bends, hessians: Vec::new() };
    let bytes = (bends.dim().pow(2) + bends.kept()) * size_of::<f64>();
    let affordable = (WORKSPACE_BYTES / bytes).max(1);
    let each = (CACHED_BYTES / bytes).clamp(1, MOST_ROWS);
    let at_once = (rayon::current_num_threads() * each).min(affordable).min(n).max(1);
    for (i, y) in y.chunks(at_once * d).enumerate() {
        let score = score.as_deref_mut().map(|s| &mut s[i * at_once * d..][..y.len()]);
        wave.evaluate(y, score, &mut density)?;
    }
    Ok(density)
}

/// Evaluates waves of rows.
///
/// A wave is one row a thread, or several where their Hessians fit a cache: the potential shares its rows out to the
/// threads as it sees fit, and the factorisations run one to a thread.
struct Wave<'a> {
    w: &'a dyn SecondOrder,
    source: Source,
    log_z: f64,
    subspace: Option<Subspace<'a>>,
    /// w, or f along the subspace.
    bends: &'a dyn SecondOrder,
    hessians: Vec<f64>,
}

/// What factoring one Hessian gave.
type Factored = std::result::Result<f64, Status>;

impl Wave<'_> {
    /// Appends the densities of the rows `y` to `density` and writes their scores.
    fn evaluate(
        &mut self,
        y: &[f64],
        mut score: Option<&mut [f64]>,
        density: &mut ExactLogDensity,
    ) -> Result<()> {
        let (bends, d, k) = (self.bends, self.w.dim(), self.bends.dim());
        let n = y.len() / d;
        let pushed = Pushed::new(self.w, self.source, y)?;
        let along =
            |rows| self.subspace.map_or(Cow::Borrowed(rows), |subspace| subspace.coordinates(rows).into());
        let points = along(y);
        self.hessians.resize(n * k * k, 0.0);
        let hessians = &mut self.hessians[..];
        let factored: Vec<Factored>;
        if let Some(score) = score.as_deref_mut() {
            let log_det_gradient = bends.hessian_to_factor(&points, hessians)?;
            let twice = along(&pushed.twice);
            let outer = hessians.chunks_exact(k * k).zip(twice.chunks_exact(k));
            let curved: Vec<f64> =
                outer.flat_map(|(h, twice)| h.chunks_exact(k).map(|h| dot(h, twice))).collect();
            factored = hessians.par_chunks_exact_mut(k * k).map(|h| log_det(h, k)).collect();
            let mut slopes = vec![0.0; n * k];
            log_det_gradient(hessians, &mut slopes)?;
            slopes.iter_mut().zip(&curved).for_each(|(s, h)| *s -= h);
            match self.subspace {
                None => score.copy_from_slice(&slopes),
                Some(subspace) => {
                    // Across the directions -c ∇V(G); along them that is taken back.
                    let c = subspace.across;
                    slopes.iter_mut().zip(&*twice).for_each(|(s, twice)| *s += c * twice);
                    let rows = subspace.rows(&slopes).into_iter().zip(&pushed.twice);
                    score.iter_mut().zip(rows).for_each(|(s, (along, twice))| *s = along - c * twice);
                }
            }
        } else {
            bends.hessian(&points, hessians)?;
            factored = hessians.par_chunks_exact_mut(k * k).map(|h| log_det(h, k)).collect();
        }
        let across = self.subspace.map_or(0.0, |subspace| (d - k) as f64 * subspace.across.ln());
        for (i, factored) in factored.into_iter().enumerate() {
            let row = i * d..(i + 1) * d;
            let whole = finite(&y[row.clone()])
                && pushed.value[i].is_finite()
                && score.as_deref().is_none_or(|s| finite(&s[row.clone()]));
            let outcome = match factored {
                _ if !whole => Err(Status::NotFinite),
                // Across the directions the Hessian is c.
                Ok(_) if !across.is_finite() => Err(Status::NotPositiveDefinite),
                factored => factored,
            };
            if outcome.is_err()
                && let Some(score) = score.as_deref_mut()
            {
                score[row].fill(0.0);
            }
            density
                .value
                .push(outcome.map_or(f64::NEG_INFINITY, |v| v + across - pushed.value[i] - self.log_z));
            density.status.push(outcome.err().unwrap_or(Status::Evaluated));
        }
        Ok(())
    }
}

/// Replaces H by its Cholesky factor, the lower triangle by columns, and returns log det H; one without leaves the
/// factor of the identity. H is symmetric, so the row-major slice is its own column-major view.
fn log_det(h: &mut [f64], d: usize) -> Factored {
    let factored = match finite(h) {
        true => halves::factor(MatMut::from_column_major_slice_mut(h, d, d))
            .map_err(|_| Status::NotPositiveDefinite)
            .map(|()| 2.0 * (0..d).map(|i| h[i * d + i].ln()).sum::<f64>()),
        false => Err(Status::NotFinite),
    };
    let factored =
        factored.and_then(|v| if v.is_finite() { Ok(v) } else { Err(Status::NotPositiveDefinite) });
    if factored.is_err() {
        h.fill(0.0);
        h.iter_mut().step_by(d + 1).for_each(|v| *v = 1.0);
    }
    factored
}
