//! Distances of samples to data, each beside the same distance between two samples of the data.

use clap::ValueEnum;
use cmf_core::evaluation::{Mmd, directions, precision_recall, sliced_wasserstein, suggested_bandwidth};
use cmf_core::sinkhorn::{Sinkhorn, suggested_epsilon};
use cmf_core::{Error, Result};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::interrupt;

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// The Sinkhorn divergence, cost |x - y|^2.
    Sinkhorn,
    /// The sliced Wasserstein distance SW_2.
    Sliced,
    /// The squared maximum mean discrepancy, Gaussian kernel, without bias.
    Mmd,
    /// Nearest-neighbour precision and recall.
    PrecisionRecall,
}

/// How to compare.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// What to measure.
    pub metrics: Vec<Metric>,
    /// Rows on each side.
    pub rows: usize,
    /// Times that fresh batches are taken and compared.
    pub repeats: usize,
    /// Directions of the sliced distance.
    pub directions: usize,
    /// Neighbours of precision and recall.
    pub neighbours: usize,
    /// ε of the Sinkhorn divergence, if not 0.05 E|x - x'|² over two batches of the data.
    pub epsilon: Option<f64>,
    /// Seed of batches and directions.
    pub seed: u64,
}

/// A figure over the repeats, beside the floor: the same figure between two batches of the data.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What it is.
    pub name: &'static str,
    /// Its unit or range.
    pub unit: &'static str,
    /// Samples against data, one a repeat.
    pub values: Vec<f64>,
    /// Data against data, one a repeat.
    pub floors: Vec<f64>,
    /// Mean of the values.
    pub mean: f64,
    /// Standard deviation of the values; absent for a single repeat.
    pub deviation: Option<f64>,
    /// Mean of the floors.
    pub floor_mean: f64,
    /// Standard deviation of the floors; absent for a single repeat.
    pub floor_deviation: Option<f64>,
}

/// What a comparison found.
#[derive(Debug, Clone, Serialize)]
pub struct Compared {
    /// The figures.
    pub figures: Vec<Figure>,
    /// Rows on each side.
    pub rows: usize,
    /// Repeats.
    pub repeats: usize,
    /// ε of each Sinkhorn divergence, the mean over the repeats.
    pub epsilon: Option<f64>,
    /// h of each kernel, the mean over the repeats.
    pub bandwidth: Option<f64>,
    /// Sinkhorn problems that did not converge: their values are lower bounds.
    pub unconverged: usize,
}

impl Comparison {
    /// Compares `samples` [n, d] with `data` [m, d]. In each repeat, three batches of equal size are drawn
    /// without replacement: one of the samples, two of the data. Batches of different repeats share rows only where
    /// there are too few for all. `observe` hears how many repeats are done.
    pub fn compare(
        &self,
        samples: &[f64],
        data: &[f64],
        d: usize,
        observe: &dyn Fn(usize),
    ) -> Result<Compared> {
        let (n, m) = (samples.len() / d, data.len() / d);
        let rows = self.rows.min(n).min(m / 2);
        if rows < 2 {
            return Err(Error::Invalid(format!(
                "found {n} samples and {m} rows of data, expected at least 2 and 4: one batch of the samples and two \
                 of the data are compared"
            )));
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut out = Collected::default();
        let (mut samples, mut data) = (Deck::new(samples, d), Deck::new(data, d));
        for repeat in 0..self.repeats {
            let (ours, theirs) = (samples.draw(rows, &mut rng), data.draw(2 * rows, &mut rng));
            let (batch, other) = theirs.split_at(rows * d);
            for &metric in &self.metrics {
                interrupt::check()?;
                self.measure(metric, &ours, batch, other, d, &mut out)?;
            }
            observe(repeat + 1);
        }
        let repeats = self.repeats as f64;
        Ok(Compared {
            figures: out.figures.into_iter().map(Figure::summarised).collect(),
            rows,
            repeats: self.repeats,
            epsilon: (out.epsilon > 0.0).then_some(out.epsilon / repeats),
            bandwidth: (out.bandwidth > 0.0).then_some(out.bandwidth / repeats),
            unconverged: out.unconverged,
        })
    }

    fn measure(
        &self,
        metric: Metric,
        x: &[f64],
        y: &[f64],
        y2: &[f64],
        d: usize,
        out: &mut Collected,
    ) -> Result<()> {
        match metric {
            Metric::Sinkhorn => {
                let epsilon = self.epsilon.map_or_else(|| suggested_epsilon(y, y2, d), Ok)?;
                let solver = Sinkhorn::new(epsilon);
                let (value, floor) = (solver.divergence(x, y, d)?, solver.divergence(y2, y, d)?);
                out.epsilon += epsilon;
                out.unconverged += usize::from(!value.converged) + usize::from(!floor.converged);
                out.add("Sinkhorn divergence", "squared units", value.value, floor.value);
            }
            Metric::Sliced => {
                let along = directions(d, self.directions, self.seed);
                let (value, floor) =
                    (sliced_wasserstein(x, y, d, &along)?, sliced_wasserstein(y2, y, d, &along)?);
                out.add("sliced Wasserstein", "units", value, floor);
            }
            Metric::Mmd => {
                let bandwidth = suggested_bandwidth(y, y2, d)?;
                let mmd = Mmd { bandwidth };
                out.bandwidth += bandwidth;
                out.add("MMD squared", "in [0, 2]", mmd.squared(x, y, d)?, mmd.squared(y2, y, d)?);
            }
            Metric::PrecisionRecall => {
                let value = precision_recall(y, x, d, self.neighbours)?;
                let floor = precision_recall(y, y2, d, self.neighbours)?;
                out.add("precision", "share", value.precision, floor.precision);
                out.add("recall", "share", value.recall, floor.recall);
            }
        }
        Ok(())
    }
}

/// Rows that are drawn without replacement until too few are left, then shuffled anew.
struct Deck<'a> {
    rows: &'a [f64],
    d: usize,
    order: Vec<usize>,
}

impl<'a> Deck<'a> {
    fn new(rows: &'a [f64], d: usize) -> Self {
        Deck { rows, d, order: vec![] }
    }

    /// `count` different rows, of which there are as many: [count, d].
    fn draw(&mut self, count: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
        if self.order.len() < count {
            self.order = (0..self.rows.len() / self.d).collect();
            self.order.shuffle(rng);
        }
        let drawn = self.order.split_off(self.order.len() - count);
        drawn.into_iter().flat_map(|i| &self.rows[i * self.d..][..self.d]).copied().collect()
    }
}

/// Figures while they are collected.
#[derive(Default)]
struct Collected {
    figures: Vec<Figure>,
    epsilon: f64,
    bandwidth: f64,
    unconverged: usize,
}

impl Collected {
    fn add(&mut self, name: &'static str, unit: &'static str, value: f64, floor: f64) {
        let at = self.figures.iter().position(|f| f.name == name).unwrap_or_else(|| {
            self.figures.push(Figure {
                name,
                unit,
                values: Vec::new(),
                floors: Vec::new(),
                mean: 0.0,
                deviation: None,
                floor_mean: 0.0,
                floor_deviation: None,
            });
            self.figures.len() - 1
        });
        self.figures[at].values.push(value);
        self.figures[at].floors.push(floor);
    }
}

impl Figure {
    fn summarised(self) -> Figure {
        let ((mean, deviation), (floor_mean, floor_deviation)) =
            (moments(&self.values), moments(&self.floors));
        Figure { mean, deviation, floor_mean, floor_deviation, ..self }
    }
}

/// Mean and standard deviation (n - 1), the latter of at least two values.
pub fn moments(values: &[f64]) -> (f64, Option<f64>) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (values.len() > 1).then_some(variance.sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison() -> Comparison {
        Comparison {
            metrics: vec![Metric::Sinkhorn, Metric::Sliced, Metric::Mmd, Metric::PrecisionRecall],
            rows: 200,
            repeats: 4,
            directions: 20,
            neighbours: 3,
            epsilon: None,
            seed: 1,
        }
    }

    /// Points of an even spiral, moved right by `shift`: no randomness of its own.
    fn points(n: usize, shift: f64) -> Vec<f64> {
        let at = |k: usize| (k as f64 * 2.399_963, (k as f64 / n as f64).sqrt());
        (0..n).map(at).flat_map(|(angle, r)| [shift + r * angle.cos(), r * angle.sin()]).collect()
    }

    #[test]
    fn batches_share_no_row_until_all_are_used() {
        let rows: Vec<f64> = (0..20).map(f64::from).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut deck = Deck::new(&rows, 2);
        // Ten rows make three batches of three; the fourth is of a new shuffle.
        let mut seen: Vec<f64> = (0..3).flat_map(|_| deck.draw(3, &mut rng)).collect();
        assert!(seen.chunks_exact(2).all(|row| row[1] == row[0] + 1.0), "{seen:?}");
        seen.sort_by(f64::total_cmp);
        seen.dedup();
        assert_eq!(seen.len(), 18);
        assert_eq!(deck.draw(3, &mut rng).len(), 6);
    }

    #[test]
    fn equal_laws_lie_at_the_floor_and_others_above() {
        let same = comparison().compare(&points(500, 0.0), &points(900, 0.0), 2, &|_| ()).unwrap();
        let moved = comparison().compare(&points(500, 0.5), &points(900, 0.0), 2, &|_| ()).unwrap();
        assert_eq!((same.rows, same.repeats, same.unconverged), (200, 4, 0));
        for (same, moved) in same.figures.iter().zip(&moved.figures) {
            assert_eq!((same.values.len(), same.floors.len()), (4, 4));
            if same.unit == "share" {
                assert!(same.mean > 0.9 && moved.mean < same.mean - 0.1, "{same:?} {moved:?}");
            } else {
                // Squared figures fall off faster than lengths.
                let factor = if same.unit == "units" { 3.0 } else { 5.0 };
                assert!(
                    moved.mean > factor * same.mean.abs().max(moved.floor_mean.abs()),
                    "{same:?} {moved:?}"
                );
            }
        }
    }

    #[test]
    fn batches_shrink_to_what_there_is() {
        let found = comparison().compare(&points(50, 0.0), &points(70, 0.0), 2, &|_| ()).unwrap();
        assert_eq!(found.rows, 35);
        assert!(comparison().compare(&points(50, 0.0), &points(3, 0.0), 2, &|_| ()).is_err());
    }
}
