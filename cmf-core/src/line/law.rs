//! A law on an interval with a density that is constant on each cell of an even grid.

use crate::error::{Error, Result};

/// A probability law on [low, high], constant on each of its cells.
///
/// The distribution function is kept from both ends, so that both tails keep their relative precision.
#[derive(Debug, Clone, PartialEq)]
pub struct Law {
    low: f64,
    high: f64,
    /// Mass of each cell: [cells], sum 1.
    mass: Vec<f64>,
    /// Mass to the left of each node: [cells + 1].
    below: Vec<f64>,
    /// Mass to the right of each node: [cells + 1].
    above: Vec<f64>,
}

/// Larger grids are refused before they are allocated.
const MOST_CELLS: usize = 100_000_000;

impl Law {
    /// The histogram of `samples` on [low, high].
    ///
    /// # Errors
    /// No samples, one that is not finite or outside of the domain, an empty domain.
    pub fn from_samples(samples: &[f64], domain: (f64, f64), cells: usize) -> Result<Law> {
        check_grid(domain, cells)?;
        let (low, high) = domain;
        if let Some(bad) = samples.iter().find(|v| !v.is_finite()) {
            return Err(Error::NotFinite(format!("a sample, {bad},")));
        }
        if let Some(bad) = samples.iter().find(|&&v| v < low || v > high) {
            return Err(Error::Invalid(format!("the sample {bad} is outside of the domain [{low}, {high}]")));
        }
        let mut mass = vec![0.0; cells];
        let per_cell = cells as f64 / (high - low);
        for v in samples {
            mass[(((v - low) * per_cell) as usize).min(cells - 1)] += 1.0;
        }
        Law::from_mass(domain, mass, "the histogram")
    }

    /// The law whose density is proportional to `density` at the middle of each cell.
    ///
    /// # Errors
    /// A density that is negative, not finite, or zero everywhere; an empty domain.
    pub fn from_density(domain: (f64, f64), cells: usize, density: impl Fn(f64) -> f64) -> Result<Law> {
        check_grid(domain, cells)?;
        let (low, high) = domain;
        let width = (high - low) / cells as f64;
        let mass = (0..cells).map(|k| density(low + (k as f64 + 0.5) * width)).collect();
        Law::from_mass(domain, mass, "the density")
    }

    /// P_w = e^{-w}/Z of a potential given at the nodes [cells + 1], linear between them, and log Z.
    pub(super) fn gibbs(domain: (f64, f64), potential: &[f64]) -> Result<(Law, f64)> {
        let middle: Vec<f64> = potential.windows(2).map(|w| 0.5 * (w[0] + w[1])).collect();
        let least = middle.iter().copied().fold(f64::INFINITY, f64::min);
        let mass: Vec<f64> = middle.iter().map(|w| (least - w).exp()).collect();
        let width = (domain.1 - domain.0) / mass.len() as f64;
        let log_z = (mass.iter().sum::<f64>() * width).ln() - least;
        Ok((Law::from_mass(domain, mass, "the Gibbs factor")?, log_z))
    }

    /// Normalises nonnegative cell masses.
    fn from_mass((low, high): (f64, f64), mut mass: Vec<f64>, what: &str) -> Result<Law> {
        if mass.iter().any(|m| !m.is_finite() || *m < 0.0) {
            return Err(Error::NotFinite(format!("{what}, or it is negative somewhere: it")));
        }
        let total: f64 = mass.iter().sum();
        if !(total.is_finite() && total > 0.0) {
            return Err(Error::Invalid(format!("{what} has no mass on [{low}, {high}]")));
        }
        mass.iter_mut().for_each(|m| *m /= total);
        let sums = |ordered: &mut dyn Iterator<Item = f64>| -> Vec<f64> {
            let mut sum = 0.0;
            let mut out = Vec::with_capacity(mass.len() + 1);
            out.push(0.0);
            out.extend(ordered.map(|m| {
                sum += m;
                sum
            }));
            out
        };
        let below = sums(&mut mass.iter().copied());
        let mut above = sums(&mut mass.iter().rev().copied());
        above.reverse();
        Ok(Law { low, high, mass, below, above })
    }

    /// The interval that the law lives on.
    pub fn domain(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    /// The number of cells.
    pub fn cells(&self) -> usize {
        self.mass.len()
    }

    /// The width of a cell.
    pub fn cell_width(&self) -> f64 {
        (self.high - self.low) / self.mass.len() as f64
    }

    /// Where cell k begins and cell k - 1 ends.
    pub fn node(&self, k: usize) -> f64 {
        self.low + (self.high - self.low) * (k as f64 / self.mass.len() as f64)
    }

    /// All nodes: [cells + 1].
    pub fn nodes(&self) -> Vec<f64> {
        (0..=self.mass.len()).map(|k| self.node(k)).collect()
    }

    /// Mass of each cell: [cells].
    pub fn mass(&self) -> &[f64] {
        &self.mass
    }

    /// The mean, with the mass of each cell spread evenly over it.
    pub fn mean(&self) -> f64 {
        self.moment(|x| x)
    }

    /// The variance, with the mass of each cell spread evenly over it.
    pub fn variance(&self) -> f64 {
        let mean = self.mean();
        self.moment(|x| (x - mean).powi(2)) + self.cell_width().powi(2) / 12.0
    }

    fn moment(&self, f: impl Fn(f64) -> f64) -> f64 {
        let width = self.cell_width();
        self.mass.iter().enumerate().map(|(k, m)| m * f(self.low + (k as f64 + 0.5) * width)).sum()
    }

    /// The smallest interval of whole cells that holds all of the mass.
    pub fn support(&self) -> (f64, f64) {
        let first = self.mass.iter().position(|&m| m > 0.0).unwrap_or(0);
        let last = self.mass.iter().rposition(|&m| m > 0.0).unwrap_or(self.mass.len() - 1);
        (self.node(first), self.node(last + 1))
    }

    /// The mass of [a, b].
    pub fn between(&self, a: f64, b: f64) -> f64 {
        // Differences are taken in the nearer tail, where they lose no digits.
        let mid = 0.5 * (a + b);
        let side = if self.at(&self.below, mid) <= 0.5 { &self.below } else { &self.above };
        (self.at(side, b) - self.at(side, a)).abs()
    }

    /// Linear interpolation of node values `f` at x, constant outside of the domain.
    fn at(&self, f: &[f64], x: f64) -> f64 {
        let position = ((x - self.low) / self.cell_width()).clamp(0.0, self.mass.len() as f64);
        let k = (position as usize).min(self.mass.len() - 1);
        f[k] + (f[k + 1] - f[k]) * (position - k as f64)
    }

    /// max_k |F(x_k) - G(s_k)| with F of this law at its nodes and G of `to` at the slopes `s` [cells + 1].
    pub(super) fn distance_of_image(&self, to: &Law, s: &[f64]) -> f64 {
        self.below.iter().zip(s).map(|(f, &s)| (f - to.at(&to.below, s)).abs()).fold(0.0, f64::max)
    }

    /// The cells between the quantiles `tail` and 1 - `tail`.
    pub fn bulk(&self, tail: f64) -> std::ops::Range<usize> {
        let first = self.below.partition_point(|&p| p <= tail).saturating_sub(1);
        let last = self.above.partition_point(|&p| p > tail).min(self.mass.len());
        first..last.max(first + 1)
    }

    /// The law of X - c.
    pub fn shifted(self, c: f64) -> Law {
        Law { low: self.low - c, high: self.high - c, ..self }
    }
}

fn check_grid((low, high): (f64, f64), cells: usize) -> Result<()> {
    if !(low.is_finite() && high.is_finite() && low < high && (high - low).is_finite()) {
        return Err(Error::Invalid(format!("the domain [{low}, {high}] is no interval")));
    }
    if !(2..=MOST_CELLS).contains(&cells) {
        return Err(Error::Invalid(format!("a grid of {cells} cells, expected 2 to {MOST_CELLS}")));
    }
    Ok(())
}

/// The optimal map T = Q_to ∘ F_from at the nodes of `from` [cells + 1], nondecreasing.
///
/// Q is the pseudo-inverse of the distribution function; where `from` has no mass to one side, T is the end of
/// the support of `to`.
pub fn transport(from: &Law, to: &Law) -> Vec<f64> {
    let (first, last) = to.support();
    let n = from.cells();
    let width = to.cell_width();
    let mut map = vec![0.0; n + 1];
    // Each half goes by the mass of its own tail.
    let half = from.below.partition_point(|&p| p <= 0.5);
    let (left, right) = map.split_at_mut(half);
    let mut j = 0;
    for (t, &p) in left.iter_mut().zip(&from.below) {
        while j + 1 < to.cells() && to.below[j + 1] < p {
            j += 1;
        }
        *t = if p == 0.0 || to.mass[j] == 0.0 {
            first
        } else {
            to.node(j) + width * ((p - to.below[j]) / to.mass[j]).clamp(0.0, 1.0)
        };
    }
    let mut j = to.cells();
    for (t, &p) in right.iter_mut().zip(&from.above[half..]).rev() {
        while j > 1 && to.above[j - 1] < p {
            j -= 1;
        }
        *t = if p == 0.0 || to.mass[j - 1] == 0.0 {
            last
        } else {
            to.node(j) - width * ((p - to.above[j]) / to.mass[j - 1]).clamp(0.0, 1.0)
        };
    }
    // Where the halves meet, rounding may cross them.
    for k in 1..=n {
        map[k] = map[k].max(map[k - 1]);
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_masses_of_a_uniform_law() {
        let law = Law::from_density((-1.0, 3.0), 7, |_| 5.0).unwrap();
        assert!((law.mean() - 1.0).abs() < 1e-14);
        // Of a uniform law of width 4: 16/12, exact because the cells' own spread counts.
        assert!((law.variance() - 4.0 / 3.0).abs() < 1e-14);
        assert!((law.between(0.0, 1.0) - 0.25).abs() < 1e-14);
        assert!((law.between(-9.0, 9.0) - 1.0).abs() < 1e-14);
        assert_eq!(law.support(), (-1.0, 3.0));
    }

    #[test]
    fn a_histogram_counts_and_keeps_the_ends() {
        let law = Law::from_samples(&[0.0, 0.1, 0.6, 1.0], (0.0, 1.0), 4).unwrap();
        assert_eq!(law.mass(), [0.5, 0.0, 0.25, 0.25]);
        let e = Law::from_samples(&[0.5, 1.1], (0.0, 1.0), 4).unwrap_err().to_string();
        assert!(e.contains("1.1 is outside"), "{e}");
        let e = Law::from_samples(&[f64::NAN], (0.0, 1.0), 4).unwrap_err().to_string();
        assert!(e.contains("NaN") && e.contains("not finite"), "{e}");
        assert!(Law::from_samples(&[], (0.0, 1.0), 4).is_err());
        assert!(Law::from_samples(&[0.5], (1.0, 1.0), 4).is_err());
        assert!(Law::from_density((0.0, 1.0), 4, |_| -1.0).is_err());
        assert!(Law::from_density((0.0, 1.0), usize::MAX, |_| 1.0).is_err());
    }

    #[test]
    fn transport_is_the_quantile_of_the_distribution_function() {
        // From U[0, 1] to the law of density 2x on [0, 1]: T(p) = sqrt(p), linear only inside the cells.
        let uniform = Law::from_density((0.0, 1.0), 100, |_| 1.0).unwrap();
        let triangle = Law::from_density((0.0, 1.0), 10_000, |x| x).unwrap();
        for (k, t) in transport(&uniform, &triangle).into_iter().enumerate() {
            let want = (k as f64 / 100.0).sqrt();
            // Inside a cell F is off by at most width²/4, and T' = 1/(2 sqrt p) near p = 0.01 is 5.
            assert!((t - want).abs() < 1e-7, "{k}: {t} {want}");
        }
        // A law onto itself stays where it is.
        for (k, t) in transport(&triangle, &triangle).into_iter().enumerate() {
            assert!((t - triangle.node(k)).abs() < 1e-12, "{k}: {t}");
        }
    }

    #[test]
    fn both_tails_keep_their_precision() {
        // Far out in the tails of N(0, 1), masses are about 1e-190 and F is 1 in f64.
        let normal = Law::from_density((-30.0, 30.0), 60_000, |x| (-0.5 * x * x).exp()).unwrap();
        let wide = Law::from_density((-60.0, 60.0), 60_000, |x| (-0.125 * x * x).exp()).unwrap();
        for (k, t) in transport(&normal, &wide).into_iter().enumerate() {
            // N(0, 1) to N(0, 4) on grids that are scaled copies: T(x) = 2x.
            assert!((t - 2.0 * normal.node(k)).abs() < 1e-9, "{}: {t}", normal.node(k));
        }
    }

    #[test]
    fn gaps_are_jumped() {
        let uniform = Law::from_density((0.0, 1.0), 8, |_| 1.0).unwrap();
        let gap = Law::from_density((-2.0, 2.0), 4, |x| if x.abs() > 1.0 { 1.0 } else { 0.0 }).unwrap();
        let map = transport(&uniform, &gap);
        assert_eq!(map[0], -2.0);
        assert_eq!(map[4], -1.0);
        assert!(map[5] > 1.0);
        assert_eq!(map[8], 2.0);
    }
}
