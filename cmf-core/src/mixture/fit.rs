//! Expectation-maximisation.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, Par};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{Component, Mixture, Seen, add_scaled, chosen};
use crate::error::{Error, Result};
use crate::gaussian::Gaussian;
use crate::linalg::view;

/// How a mixture is fitted to coordinates s: expectation-maximisation (Dempster, Laird and Rubin, 1977).
#[derive(Debug, Clone, Copy)]
pub struct MixtureFit {
    /// K.
    pub components: usize,
    /// Most rounds.
    pub rounds: usize,
    /// Seed of the first centres.
    pub seed: u64,
}

/// Leading directions of data along which mixtures are.
///
/// Digits learned with mixtures of 100 along 50 and 100: 564.9 and 565.4 nats (200 others), of which 17.6 and 21.5 the
/// mixture's; a reader sure of 0.83 and 0.85 of 1,200 draws, and of 0.81 where a mixture along 50 came after training.
const DIRECTIONS: usize = 100;
/// Rows that a component needs.
pub(crate) const ROWS_EACH: usize = 500;
/// Rows that count for the identity in each covariance, so that a component of few rows stays wide: the Gaussian that
/// the mixture takes the place of. Of digits 100 rows, or 200, make others less likely, by 0.1 and 1 nats in x and by 3.5
/// and 7 themselves.
const PRIOR_ROWS: f64 = 30.0;
/// Nats a row by which the likelihood must rise for another round.
const LEAST_RISE: f64 = 1e-3;
/// Rounds of Lloyd's algorithm that the first components come from.
const FIRST_ROUNDS: usize = 10;

/// The directions of data with this Gaussian along which mixtures of them are: its leading ones, [k, d].
pub fn leading_axes(gaussian: &Gaussian) -> Result<Vec<f64>> {
    Ok(gaussian.covariance.spectrum()?.leading(DIRECTIONS.min(gaussian.dim() - 1)))
}

impl MixtureFit {
    /// How many of at most `components` Gaussians `rows` rows suffice for; less than 2 where they do not suffice for a
    /// mixture.
    pub fn affordable(components: usize, rows: usize) -> usize {
        components.min(rows / ROWS_EACH)
    }

    /// Fits to the rows of `s` [n, k] along `directions` [k, d]; `hear` is told the share of the rounds that are done and
    /// returns whether to go on.
    ///
    /// Centres begin at rows far from each other (Arthur and Vassilvitskii, 2007) and take some rounds of Lloyd's algorithm.
    /// The same seed gives the same mixture, its numbers rounded to f32 as a file keeps them. Fails for fewer rows than components, with
    /// [`Error::Interrupted`] where `hear` says so.
    pub fn fit(
        &self,
        directions: Vec<f64>,
        s: &[f64],
        k: usize,
        hear: &mut dyn FnMut(f64) -> bool,
    ) -> Result<Mixture> {
        let n = crate::potential::rows(s, k)?;
        if self.components == 0 || n < self.components {
            return Err(Error::Invalid(format!("{n} rows for a mixture of {} components", self.components)));
        }
        let mut centres = self.spread(s, k);
        for _ in 0..FIRST_ROUNDS {
            let nearest = nearest(s, &centres, k);
            centres = means(s, &nearest, centres, k);
        }
        let nearest = nearest(s, &centres, k);
        let shares: Vec<Vec<f64>> =
            (0..self.components).map(|j| nearest.iter().map(|&c| f64::from(c == j)).collect()).collect();
        let mut mixture = self.maximise(&directions, s, k, &shares)?;
        let mut last = f64::NEG_INFINITY;
        for round in 0..self.rounds {
            let (mean, shares) = mixture.expect(s);
            if mean < last + LEAST_RISE {
                break;
            }
            last = mean;
            mixture = self.maximise(&directions, s, k, &shares)?;
            if !hear((round + 1) as f64 / self.rounds as f64) {
                return Err(Error::Interrupted);
            }
        }
        mixture.single()
    }

    /// Rows of `s`, each chosen with a probability in proportion to its squared distance from those before: [K, k].
    fn spread(&self, s: &[f64], k: usize) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let n = s.len() / k;
        let first = rng.random_range(0..n);
        let mut centres = s[first * k..][..k].to_vec();
        let mut far = vec![f64::INFINITY; n];
        while centres.len() < self.components * k {
            let newest = &centres[centres.len() - k..];
            far.par_iter_mut().zip(s.par_chunks(k)).for_each(|(far, s)| *far = far.min(distance(s, newest)));
            // Where all rows are centres already, or by rounding, it is the last.
            let chosen = chosen(far.iter().copied(), rng.random::<f64>() * far.iter().sum::<f64>());
            centres.extend_from_slice(&s[chosen * k..][..k]);
        }
        centres
    }

    /// The components that make shares [K][n] of the rows likeliest.
    fn maximise(&self, directions: &[f64], s: &[f64], k: usize, shares: &[Vec<f64>]) -> Result<Mixture> {
        let rows = (s.len() / k) as f64;
        let component =
            |shares: &Vec<f64>| Moments::of(s, shares, k).component(rows + self.components as f64);
        let components = shares.par_iter().map(component).collect::<Result<_>>()?;
        Mixture::new(directions.to_vec(), components)
    }
}

/// Sums over rows s of which a component has the shares r.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Moments {
    /// Σ r.
    pub total: f64,
    /// Σ r s: [k].
    pub first: Vec<f64>,
    /// Σ r s s': [k, k].
    pub second: Vec<f64>,
}

impl Moments {
    /// Of the rows `s` [n, k].
    pub fn of(s: &[f64], shares: &[f64], k: usize) -> Self {
        const BLOCK: usize = 1024;
        let (mut first, mut second) = (vec![0.0; k], vec![0.0; k * k]);
        for (s, shares) in s.chunks(BLOCK * k).zip(shares.chunks(BLOCK)) {
            let mut weighted = s.to_vec();
            for (row, share) in weighted.chunks_exact_mut(k).zip(shares) {
                row.iter_mut().for_each(|v| *v *= share);
                first.iter_mut().zip(&*row).for_each(|(m, v)| *m += v);
            }
            let (weighted, s) = (view(&weighted, shares.len(), k), view(s, shares.len(), k));
            let target = MatMut::from_row_major_slice_mut(&mut second, k, k);
            matmul(target, Accum::Add, weighted.transpose(), s, 1.0, Par::Seq);
        }
        Moments { total: shares.iter().sum(), first, second }
    }

    /// Of rows that each count so many times.
    #[cfg(feature = "train")]
    pub fn times(mut self, by: f64) -> Self {
        self.total *= by;
        self.first.iter_mut().chain(&mut self.second).for_each(|v| *v *= by);
        self
    }

    /// Of these rows and the other's.
    #[cfg(feature = "train")]
    pub fn plus(mut self, other: &Moments) -> Self {
        self.total += other.total;
        add_scaled(&mut self.first, 1.0, &other.first);
        add_scaled(&mut self.second, 1.0, &other.second);
        self
    }

    /// The likeliest component under the prior, its weight 1 row more of `rows`.
    pub fn component(&self, rows: f64) -> Result<Component> {
        let (k, total) = (self.first.len(), self.total);
        // A component that has lost all its rows is the prior about 0.
        let mean: Vec<f64> = self.first.iter().map(|m| m / total.max(f64::MIN_POSITIVE)).collect();
        let covariance: Vec<f64> = (0..k * k)
            .map(|at| {
                let (i, j) = (at / k, at % k);
                let scatter = self.second[at] - total * mean[i] * mean[j];
                (scatter + PRIOR_ROWS * f64::from(i == j)) / (total + PRIOR_ROWS)
            })
            .collect();
        // No weight is 0: a component may win rows back.
        Component::of_covariance((total + 1.0) / rows, mean, &covariance)
    }
}

impl Mixture {
    /// The mean of log p over the rows of `s` [n, k], and the components' shares in each: [K][n].
    pub(super) fn expect(&self, s: &[f64]) -> (f64, Vec<Vec<f64>>) {
        const BLOCK: usize = 1024;
        let k = self.directions();
        let blocks: Vec<Seen> =
            s.par_chunks(BLOCK * k).map(|s| Seen { whitened: vec![], ..self.see(s) }).collect();
        let n = (s.len() / k) as f64;
        let mean = blocks.iter().flat_map(|seen| &seen.log_density).sum::<f64>() / n;
        let shares = (0..self.len())
            .map(|j| blocks.iter().flat_map(|seen| &seen.shares[j]).copied().collect())
            .collect();
        (mean, shares)
    }
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
}

/// The nearest of `centres` [K, k] to each row of `s` [n, k].
fn nearest(s: &[f64], centres: &[f64], k: usize) -> Vec<usize> {
    let of = |s: &[f64]| {
        let to = centres.chunks_exact(k).map(|c| distance(s, c)).enumerate();
        to.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(j, _)| j)
    };
    s.par_chunks(k).map(of).collect()
}

/// The means of the rows of each centre; one that has none stays.
fn means(s: &[f64], nearest: &[usize], centres: Vec<f64>, k: usize) -> Vec<f64> {
    let (mut sums, mut counts) = (vec![0.0; centres.len()], vec![0.0; centres.len() / k]);
    for (s, &j) in s.chunks_exact(k).zip(nearest) {
        add_scaled(&mut sums[j * k..][..k], 1.0, s);
        counts[j] += 1.0;
    }
    for ((sum, centre), count) in sums.chunks_exact_mut(k).zip(centres.chunks_exact(k)).zip(counts) {
        match count {
            0.0 => sum.copy_from_slice(centre),
            _ => sum.iter_mut().for_each(|v| *v /= count),
        }
    }
    sums
}
