//! The damped fixed-point iterations, and how far from a solution they end.

use super::law::{Law, transport};
use crate::error::{Error, Result};

/// A fixed-point iteration s ← (1 - τ) s + τ T(s) on the slope s of a potential.
///
/// T is an optimal map (see the [module](super)). For N(m, v) the conjugate iteration multiplies an error in
/// the mean by -v^{1/3} and one in the log-variance by -½: undamped it cannot converge once v > 1, and even
/// for symmetric laws rounding grows until it collapses onto the ends of the domain. With 0 < τ < 2 / (1 +
/// v^{1/3}) it converges. The moment iteration multiplies them by 1 and ½ and needs no damping.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FixedPoint {
    /// τ in (0, 1]. `None` is min(½, 1 / (1 + v^{1/3})) for the conjugate potential, v being the law's variance,
    /// which removes an error in the mean at once where v > 1; and 1 for the moment potential.
    pub damping: Option<f64>,
    /// Converged when no node's distribution function under the law mapped from differs by more from that of its
    /// slope under the law mapped to (the Kolmogorov distance of the law and its image, at the nodes). `None` is a
    /// tenth of the mean mass of a cell: below a cell's mass, rounding decides where a map onto a histogram jumps
    /// over its gaps.
    pub tolerance: Option<f64>,
    /// Iterations after which the outcome is returned as not converged.
    pub max_iterations: usize,
}

impl Default for FixedPoint {
    fn default() -> Self {
        FixedPoint { damping: None, tolerance: None, max_iterations: 300 }
    }
}

/// How an iteration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The change met the tolerance.
    Converged,
    /// It did not within the iterations allowed.
    OutOfIterations,
}

/// A potential on the line with its Gibbs factor, and what is known of its quality.
#[derive(Debug, Clone)]
pub struct Solution {
    /// Nodes of an even grid: [cells + 1].
    pub x: Vec<f64>,
    /// The potential there, 0 at its least value: [cells + 1].
    pub potential: Vec<f64>,
    /// Its slope there, nondecreasing: [cells + 1]. ρ to P_w for the conjugate potential, P_u to ρ for the
    /// moment potential.
    pub slope: Vec<f64>,
    /// The Gibbs factor, e^{-potential}/Z on the domain.
    pub gibbs: Law,
    /// log Z.
    pub log_z: f64,
    /// What was subtracted from the data: the mean for the moment potential, which only centred laws have; 0
    /// for the conjugate potential.
    pub shift: f64,
    /// How it ended.
    pub status: Status,
    /// At each iteration the distance that [`FixedPoint::tolerance`] is about.
    pub changes: Vec<f64>,
    /// The damping τ that was used.
    pub damping: f64,
    /// Standard deviation over the bulk of the residual of the Monge-Ampère equation, in nats; infinite if the
    /// slope maps a cell of the bulk to no mass.
    ///
    /// The equation (Vesseron, Béthune and Cuturi, 2025, equations 8 and 9) is integrated over the cells with
    /// mass p_k of the law mapped from: r_k = log(mass of [s(x_k), s(x_{k+1})] under the law mapped to) -
    /// log p_k, which vanishes for a solution whatever the histogram's noise. The bulk is all but 0.1 percent in
    /// each tail.
    pub residual: f64,
}

/// Mass of each tail that is not bulk.
const TAIL: f64 = 1e-3;
/// The moment potential's domain is wide enough when the Gibbs factor's outermost cells have less mass.
const EDGE: f64 = 1e-12;
/// Most times that the domain is doubled for that.
const DOUBLINGS: usize = 12;

impl FixedPoint {
    /// The conjugate moment potential w of `rho`, (w')#ρ = P_w, on the domain of `rho`.
    ///
    /// On a wider domain than the support of ρ this is one solution of several: beyond the support w' is the
    /// end of the domain, and where P_w has mass there it depends on the domain.
    ///
    /// # Errors
    /// Settings out of range.
    pub fn conjugate(&self, rho: &Law) -> Result<Solution> {
        let (mean, variance) = (rho.mean(), rho.variance());
        let root = variance.cbrt();
        let damping = self.check(self.damping.unwrap_or((1.0 / (1.0 + root)).min(0.5)))?;
        let centre = mean / (1.0 + root);
        let slope = rho.nodes().iter().map(|y| (y - centre) / root).collect();
        self.iterate(damping, rho.domain(), slope, &Laws::From(rho))
    }

    /// The moment potential u of `rho` less its mean, (u')#P_u = ρ, translated so that P_u has mean 0.
    ///
    /// Its grid has as many cells as that of `rho` and is wide enough for P_u.
    ///
    /// # Errors
    /// Settings out of range; a law whose Gibbs factor fits no domain.
    pub fn moment(&self, rho: &Law) -> Result<Solution> {
        let damping = self.check(self.damping.unwrap_or(1.0))?;
        let shift = rho.mean();
        let rho = rho.clone().shifted(shift);
        let variance = rho.variance();
        // The slope runs through the support of rho, so P_u falls off like e^{-|x|} on the scale 1/deviation.
        let mut half = 20.0 / variance.sqrt();
        for _ in 0..DOUBLINGS {
            let cells = rho.cells();
            let node = |k: usize| half * (2.0 * k as f64 / cells as f64 - 1.0);
            let slope = (0..=cells).map(|k| variance * node(k)).collect();
            let mut solution = self.iterate(damping, (-half, half), slope, &Laws::To(&rho))?;
            let mass = solution.gibbs.mass();
            if mass[0].max(mass[cells - 1]) <= EDGE {
                let mean = solution.gibbs.mean();
                solution.gibbs = solution.gibbs.shifted(mean);
                solution.x = solution.gibbs.nodes();
                solution.shift = shift;
                return Ok(solution);
            }
            half *= 2.0;
        }
        Err(Error::Invalid(format!(
            "the Gibbs factor of the moment potential fits no domain up to [{:e}, {:e}]",
            -half / 2.0,
            half / 2.0
        )))
    }

    fn check(&self, damping: f64) -> Result<f64> {
        let tolerance = self.tolerance.is_none_or(|t| t.is_finite() && t > 0.0);
        if damping > 0.0 && damping <= 1.0 && tolerance && self.max_iterations > 0 {
            return Ok(damping);
        }
        Err(Error::Invalid(format!(
            "a fixed-point iteration needs 0 < damping <= 1, a positive tolerance and iterations: {self:?}"
        )))
    }

    fn iterate(
        &self,
        damping: f64,
        domain: (f64, f64),
        mut slope: Vec<f64>,
        laws: &Laws,
    ) -> Result<Solution> {
        let tolerance = self.tolerance.unwrap_or(0.1 / (slope.len() - 1) as f64);
        let mut changes = Vec::new();
        let mut status = Status::OutOfIterations;
        while status != Status::Converged && changes.len() < self.max_iterations {
            let (gibbs, _) = Law::gibbs(domain, &integral(&slope, domain))?;
            let (from, to) = laws.ends(&gibbs);
            let map = transport(from, to);
            let change = from.distance_of_image(to, &slope);
            for (s, t) in slope.iter_mut().zip(&map) {
                // Each product and the sum round monotonically, so the slope stays nondecreasing.
                *s = (1.0 - damping) * *s + damping * t;
            }
            changes.push(change);
            if change <= tolerance {
                status = Status::Converged;
            }
        }
        let potential = integral(&slope, domain);
        let (gibbs, log_z) = Law::gibbs(domain, &potential)?;
        let (from, to) = laws.ends(&gibbs);
        let residual = residual(from, to, &slope);
        let x = gibbs.nodes();
        Ok(Solution { x, potential, slope, gibbs, log_z, shift: 0.0, status, changes, damping, residual })
    }
}

/// Which of the two laws is given, the other being the Gibbs factor.
enum Laws<'a> {
    /// ρ is mapped to the Gibbs factor.
    From(&'a Law),
    /// The Gibbs factor is mapped to ρ.
    To(&'a Law),
}

impl Laws<'_> {
    /// The law mapped from and the law mapped to.
    fn ends<'b>(&'b self, gibbs: &'b Law) -> (&'b Law, &'b Law) {
        match self {
            Laws::From(rho) => (rho, gibbs),
            Laws::To(rho) => (gibbs, rho),
        }
    }
}

/// The potential of a slope given at even nodes, by the trapezoidal rule, 0 at its least value.
fn integral(slope: &[f64], (low, high): (f64, f64)) -> Vec<f64> {
    let half_width = 0.5 * (high - low) / (slope.len() - 1) as f64;
    let mut sum = 0.0;
    let mut potential = Vec::with_capacity(slope.len());
    potential.push(0.0);
    potential.extend(slope.windows(2).map(|s| {
        sum += half_width * (s[0] + s[1]);
        sum
    }));
    let least = potential.iter().copied().fold(f64::INFINITY, f64::min);
    potential.iter_mut().for_each(|w| *w -= least);
    potential
}

/// The figure that [`Solution::residual`] describes.
fn residual(from: &Law, to: &Law, slope: &[f64]) -> f64 {
    let cells = from.bulk(TAIL).filter(|&k| from.mass()[k] > 0.0);
    let residuals: Vec<f64> =
        cells.map(|k| (to.between(slope[k], slope[k + 1]) / from.mass()[k]).ln()).collect();
    let n = residuals.len() as f64;
    let mean = residuals.iter().sum::<f64>() / n;
    let variance = residuals.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / n;
    if variance.is_finite() { variance.sqrt() } else { f64::INFINITY }
}
