//! Stepwise expectation-maximisation: a mixture that follows rows as they come.

use rayon::prelude::*;

use super::fit::Moments;
use super::{Component, Look, Mixture, ROWS_EACH};
use crate::error::{Result, check_len};
use crate::linalg::view;

/// A mixture whose moments forget old rows as new ones come (Cappé and Moulines, 2009), so that it follows a law that
/// moves. It stands in the coordinates s; where these lie, F, is its user's.
#[derive(Debug, Clone)]
pub(crate) struct Follower {
    moments: Vec<Moments>,
    /// Theirs, without directions.
    mixture: Mixture,
}

impl Follower {
    /// From a mixture that was fitted to the rows of `s` [n, k].
    pub fn new(fitted: &Mixture, s: &[f64]) -> Result<Self> {
        let (_, shares) = fitted.expect(s);
        let k = fitted.directions();
        let scale = memory(shares.len()) * k as f64 / s.len() as f64;
        let moments = shares.par_iter().map(|shares| Moments::of(s, shares, k).times(scale));
        Self::of(moments.collect())
    }

    /// From a mixture whose rows nobody knows any more.
    pub fn known(mixture: &Mixture) -> Result<Self> {
        let (k, memory) = (mixture.directions(), memory(mixture.len()));
        let of = |c: &Component| {
            let l = view(&c.factor, k, k);
            let second = l * l.transpose();
            let second = (0..k * k).map(|at| second[(at / k, at % k)] + c.mean[at / k] * c.mean[at % k]);
            Moments { total: 1.0, first: c.mean.clone(), second: second.collect() }.times(c.weight * memory)
        };
        Self::of(mixture.components.iter().map(of).collect())
    }

    /// From the numbers of each component's moments: total, first [k], second [k, k].
    pub fn from_numbers(numbers: &[f64], k: usize) -> Result<Self> {
        let each = 1 + k + k * k;
        check_len("the moments of a mixture", numbers.len(), numbers.len() / each * each)?;
        let moments = numbers.chunks_exact(each).map(|numbers| {
            let (first, second) = numbers[1..].split_at(k);
            Moments { total: numbers[0], first: first.to_vec(), second: second.to_vec() }
        });
        Self::of(moments.collect())
    }

    /// What [`from_numbers`](Self::from_numbers) takes.
    pub fn numbers(&self) -> Vec<f64> {
        self.moments.iter().flat_map(|m| [&[m.total], &m.first[..], &m.second].concat()).collect()
    }

    /// The mixture along the directions F [k, d].
    pub fn along(&self, directions: Vec<f64>) -> Result<Mixture> {
        self.mixture.clone().placed(directions)
    }

    /// The same as a file keeps it.
    pub fn exported(&self, directions: Vec<f64>) -> Result<Mixture> {
        self.along(directions)?.single()
    }

    /// Takes in the rows of `s` [n, k]; returns what the mixture said of them before.
    pub fn follow(&mut self, s: &[f64]) -> Result<Look> {
        let look = self.mixture.look(s);
        let kept = (1.0 - look.gain.len() as f64 / memory(self.moments.len())).max(0.0);
        let old = std::mem::take(&mut self.moments).into_par_iter();
        let moments = old.zip(&look.shares).map(|(old, shares)| {
            let k = old.first.len();
            old.times(kept).plus(&Moments::of(s, shares, k))
        });
        *self = Self::of(moments.collect())?;
        Ok(look)
    }

    fn of(moments: Vec<Moments>) -> Result<Self> {
        let rows = moments.iter().map(|m| m.total).sum::<f64>() + moments.len() as f64;
        let components = moments.par_iter().map(|m| m.component(rows)).collect::<Result<_>>()?;
        Ok(Follower { moments, mixture: Mixture::new(Vec::new(), components)? })
    }
}

/// The rows that moments of so many components speak of: of that many the oldest has lost 1 - 1/e of its weight.
fn memory(components: usize) -> f64 {
    (ROWS_EACH * components) as f64
}
