//! A mixture of Gaussians along a few directions, in the place of the one that a quadratic head has there.

mod condition;
mod fit;
#[cfg(feature = "train")]
mod follow;
#[cfg(test)]
mod tests;

pub(crate) use condition::{Conditional, inverse_of_spread};
#[cfg(feature = "train")]
pub(crate) use fit::ROWS_EACH;
pub use fit::{MixtureFit, leading_axes};
#[cfg(feature = "train")]
pub(crate) use follow::Follower;

use std::sync::OnceLock;

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::BlockStructure;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::error::{Error, Result, check_len};
use crate::gaussian::LN_2PI;
use crate::linalg::{Cholesky, centred, dot, inverse_of_lower, product, products_of_rows, to_rows, view};
use crate::preconditioner::Preconditioner;

/// Most components of a mixture.
pub const MOST_COMPONENTS: usize = 256;
/// Most directions: with as many components a mixture takes some 64 MiB.
const MOST_DIRECTIONS: usize = 128;
/// Rows that one thread evaluates at a time. Fixed, so that rounding does not depend on the threads' number.
const CHUNK: usize = 64;

/// p(s) = Σ_j π_j N(s; μ_j, L_j L_j') of s = F (x - a) in R^k, where F [k, d] is such that s is standard normal under
/// N(a, Q^{-1}): F Q^{-1} F' = I.
///
/// With φ the standard normal density, N(x; a, Q^{-1}) p(s) / φ(s) is the density of a law that has the mixture for its
/// marginal along F and the Gaussian across, so that its integral is 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Mixture {
    /// F: [k, d].
    directions: Vec<f64>,
    components: Vec<Component>,
}

/// One Gaussian of a mixture.
#[derive(Debug, Clone)]
struct Component {
    /// π.
    pub weight: f64,
    /// μ: [k].
    pub mean: Vec<f64>,
    /// L, lower triangular: [k, k].
    pub factor: Vec<f64>,
    /// L^{-1}, once it was asked for: draws do without, and the many of a file take as long as all else in it.
    whitener: OnceLock<Vec<f64>>,
    /// log π - log det L - k/2 ln 2π.
    constant: f64,
}

impl Component {
    /// From π, μ [k] and L [k, k], whose numbers above the diagonal do not matter.
    pub fn new(weight: f64, mean: Vec<f64>, mut factor: Vec<f64>) -> Result<Self> {
        let k = mean.len();
        check_len("the factor of a component", factor.len(), k * k)?;
        (0..k).for_each(|i| factor[i * k + i + 1..(i + 1) * k].fill(0.0));
        let diagonal = || factor.iter().step_by(k + 1);
        if mean.iter().chain(&factor).any(|v| !v.is_finite())
            || !diagonal().all(|&v| v > 0.0)
            || weight.is_nan()
            || weight <= 0.0
        {
            return Err(Error::Invalid(
                "a component of a mixture needs finite numbers, a weight above 0 and a positive diagonal of its factor".into(),
            ));
        }
        let constant = weight.ln() - diagonal().map(|v| v.ln()).sum::<f64>() - 0.5 * k as f64 * LN_2PI;
        Ok(Component { weight, mean, whitener: OnceLock::new(), factor, constant })
    }

    /// From π, μ [k] and a covariance [k, k].
    fn of_covariance(weight: f64, mean: Vec<f64>, covariance: &[f64]) -> Result<Self> {
        let factor = Cholesky::new(covariance, mean.len(), "the covariance of a component")?.lower();
        Component::new(weight, mean, to_rows(factor.as_ref()))
    }

    /// L^{-1}, lower triangular: [k, k].
    fn whitener(&self) -> MatRef<'_, f64> {
        let k = self.mean.len();
        let inverse = || to_rows(inverse_of_lower(view(&self.factor, k, k)).as_ref());
        view(self.whitener.get_or_init(inverse), k, k)
    }

    /// u = L^{-1} (s - μ) of each row s [n, k]: [n, k].
    fn whitened(&self, s: &[f64]) -> Vec<f64> {
        product(&centred(s, &self.mean), self.whitener().transpose())
    }

    /// log π N(s; μ, L L') of each row of u = L^{-1} (s - μ).
    fn logs<'a>(&'a self, u: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        u.chunks_exact(self.mean.len()).map(|u| self.constant - 0.5 * dot(u, u))
    }
}

impl PartialEq for Component {
    fn eq(&self, other: &Self) -> bool {
        self.weight == other.weight && self.mean == other.mean && self.factor == other.factor
    }
}

/// What a mixture says of rows s [n, k].
pub(crate) struct Look {
    /// log p(s) - log φ(s): [n].
    gain: Vec<f64>,
    /// ∂c/∂s of c = log φ - log p: [n, k].
    pub(crate) slope: Vec<f64>,
    /// The components' shares in each row, for training: [K][n].
    #[cfg_attr(not(feature = "train"), allow(dead_code))]
    shares: Vec<Vec<f64>>,
}

/// What the components say of some rows.
struct Seen {
    /// log p(s): [n].
    log_density: Vec<f64>,
    /// r_j(s) = π_j N_j(s) / p(s), a vector [n] a component.
    shares: Vec<Vec<f64>>,
    /// L_j^{-1} (s - μ_j), an array [n, k] a component.
    whitened: Vec<Vec<f64>>,
}

impl Mixture {
    /// From F [k, d] and Gaussians in R^k, whose weights are divided by their sum.
    fn new(directions: Vec<f64>, mut components: Vec<Component>) -> Result<Self> {
        let k = components.first().map_or(0, |c| c.mean.len());
        let total: f64 = components.iter().map(|c| c.weight).sum();
        let fits = k > 0
            && k <= MOST_DIRECTIONS
            && components.len() <= MOST_COMPONENTS
            && directions.len().is_multiple_of(k)
            && components.iter().all(|c| c.mean.len() == k);
        if !fits || !total.is_finite() || directions.iter().any(|v| !v.is_finite()) {
            return Err(Error::Invalid(format!(
                "a mixture needs up to {MOST_COMPONENTS} components of one dimension k up to {MOST_DIRECTIONS} and finite directions [k, d]; found \
                 {} components, the first in {k} dimensions, and {} numbers of directions",
                components.len(),
                directions.len()
            )));
        }
        for c in &mut components {
            c.constant -= total.ln();
            c.weight /= total;
        }
        Ok(Mixture { directions, components })
    }

    /// The same along other directions F [k, d].
    #[cfg(any(feature = "train", feature = "onnx"))]
    pub(crate) fn placed(mut self, directions: Vec<f64>) -> Result<Self> {
        let k = self.directions();
        if !directions.len().is_multiple_of(k) || directions.iter().any(|v| !v.is_finite()) {
            let found = directions.len();
            return Err(Error::Invalid(format!(
                "expected finite directions [{k}, d] of a mixture, found {found} numbers"
            )));
        }
        self.directions = directions;
        Ok(self)
    }

    /// The number K of components.
    pub fn len(&self) -> usize {
        self.components.len()
    }

    /// Never: a mixture without components is refused.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The number k of directions.
    pub fn directions(&self) -> usize {
        self.components[0].mean.len()
    }

    /// The dimension d of x.
    pub fn dim(&self) -> usize {
        self.directions.len() / self.directions()
    }

    /// All numbers: K, k, F [k, d], and of each component π, μ [k] and the rows of L up to the diagonal.
    pub fn numbers(&self) -> Vec<f64> {
        let k = self.directions();
        let mut numbers = vec![self.len() as f64, k as f64];
        numbers.extend(&self.directions);
        for c in &self.components {
            numbers.push(c.weight);
            numbers.extend(&c.mean);
            (0..k).for_each(|i| numbers.extend(&c.factor[i * k..][..=i]));
        }
        numbers
    }

    /// The mixture of these [`numbers`](Self::numbers) for points of dimension `d`.
    pub fn from_numbers(numbers: &[f64], d: usize) -> Result<Self> {
        let whole = |v: f64, most: usize| v.fract() == 0.0 && (1.0..=most as f64).contains(&v);
        let sizes = numbers
            .first_chunk::<2>()
            .filter(|[count, k]| whole(*count, MOST_COMPONENTS) && whole(*k, MOST_DIRECTIONS));
        let Some(&[count, k]) = sizes else {
            return Err(Error::Invalid(format!(
                "a mixture begins with its components, from 1 to {MOST_COMPONENTS}, and its directions, from 1 to \
                 {MOST_DIRECTIONS}"
            )));
        };
        let (count, k) = (count as usize, k as usize);
        let each = 1 + k + k * (k + 1) / 2;
        check_len("the numbers of a mixture", numbers.len(), 2 + k * d + count * each)?;
        let (directions, rest) = numbers[2..].split_at(k * d);
        let component = |numbers: &[f64]| {
            let (mean, lower) = numbers[1..].split_at(k);
            let mut factor = vec![0.0; k * k];
            let mut lower = lower.iter();
            (0..k).for_each(|i| factor[i * k..][..=i].iter_mut().zip(&mut lower).for_each(|(f, v)| *f = *v));
            Component::new(numbers[0], mean.to_vec(), factor)
        };
        let components = rest.chunks_exact(each).map(component).collect::<Result<_>>()?;
        Mixture::new(directions.to_vec(), components)
    }

    /// The same with its numbers rounded to f32, as a file keeps them.
    fn single(&self) -> Result<Mixture> {
        let numbers: Vec<f64> = self.numbers().iter().map(|&v| f64::from(v as f32)).collect();
        Mixture::from_numbers(&numbers, self.dim())
    }

    /// s = F r of rows r = x - a [n, d]: [n, k].
    pub(crate) fn coordinates(&self, r: &[f64]) -> Vec<f64> {
        product(r, view(&self.directions, self.directions(), self.dim()).transpose())
    }

    /// F' g of rows g [n, k]: [n, d].
    fn back(&self, g: &[f64]) -> Vec<f64> {
        product(g, view(&self.directions, self.directions(), self.dim()))
    }

    /// log p(s) - log φ(s) of each row of `s` [n, k], in nats: what the mixture adds to the Gaussian's log-density.
    pub fn gain(&self, s: &[f64]) -> Vec<f64> {
        let k = self.directions();
        s.par_chunks(CHUNK * k)
            .flat_map_iter(|s| {
                let logs = self.see(s).log_density;
                logs.into_iter().zip(s.chunks_exact(k)).map(|(log, s)| log - normal(s)).collect::<Vec<_>>()
            })
            .collect()
    }

    fn see(&self, s: &[f64]) -> Seen {
        let n = s.len() / self.directions();
        let whitened: Vec<Vec<f64>> = self.components.iter().map(|c| c.whitened(s)).collect();
        let mut shares: Vec<Vec<f64>> =
            self.components.iter().zip(&whitened).map(|(c, u)| c.logs(u).collect()).collect();
        let log_density = (0..n)
            .map(|i| {
                let top = shares.iter().fold(f64::NEG_INFINITY, |top, row| top.max(row[i]));
                let sum: f64 = shares.iter().map(|row| (row[i] - top).exp()).sum();
                let log = top + sum.ln();
                shares.iter_mut().for_each(|row| row[i] = (row[i] - log).exp());
                log
            })
            .collect();
        Seen { log_density, shares, whitened }
    }

    /// Each component with its shares [n] and its g_j = (L_j L_j')^{-1} (s - μ_j) [n, k].
    fn pulls<'a>(&'a self, seen: &'a Seen) -> impl Iterator<Item = (&'a Component, &'a [f64], Vec<f64>)> {
        let parts = self.components.iter().zip(seen.shares.iter().zip(&seen.whitened));
        parts.map(move |(c, (shares, u))| (c, &shares[..], product(u, c.whitener())))
    }

    /// What the mixture says of the rows of `s` [n, k].
    #[cfg(feature = "train")]
    pub(crate) fn look(&self, s: &[f64]) -> Look {
        let pieces: Vec<Look> = s.par_chunks(CHUNK * self.directions()).map(|s| self.look_at(s)).collect();
        let mut whole = Look { gain: vec![], slope: vec![], shares: vec![vec![]; self.len()] };
        for piece in pieces {
            whole.gain.extend(piece.gain);
            whole.slope.extend(piece.slope);
            whole.shares.iter_mut().zip(piece.shares).for_each(|(all, more)| all.extend(more));
        }
        whole
    }

    /// The same on one thread.
    fn look_at(&self, s: &[f64]) -> Look {
        let k = self.directions();
        let seen = self.see(s);
        let mut slope: Vec<f64> = s.iter().map(|s| -s).collect();
        self.pulls(&seen).for_each(|(_, shares, pulls)| add_shares(&mut slope, shares, &pulls));
        let gain = seen.log_density.iter().zip(s.chunks_exact(k)).map(|(log, s)| log - normal(s)).collect();
        Look { gain, slope, shares: seen.shares }
    }

    /// Adds c(s) = log φ(s) - log p(s) at s = F r to `value` [n] and its gradient in r to `gradient` [n, d]. `r`: [n, d].
    pub(crate) fn add_to(&self, r: &[f64], value: &mut [f64], gradient: &mut [f64]) {
        let d = self.dim();
        let pieces = value.par_chunks_mut(CHUNK).zip(gradient.par_chunks_mut(CHUNK * d));
        r.par_chunks(CHUNK * d).zip(pieces).for_each(|(r, (value, gradient))| {
            let look = self.look_at(&self.coordinates(r));
            value.iter_mut().zip(&look.gain).for_each(|(value, gain)| *value -= gain);
            gradient.iter_mut().zip(self.back(&look.slope)).for_each(|(g, add)| *g += add);
        });
    }

    /// Adds ∇²c v, in r = x - a, to `hv` [n, d]. `r`, `v`: [n, d].
    ///
    /// ∇²c = Σ r_j P_j - I - Σ r_j g_j g_j' + ḡ ḡ' with P_j = (L_j L_j')^{-1}, g_j = P_j (s - μ_j) and ḡ = Σ r_j g_j.
    pub(crate) fn add_hvp(&self, r: &[f64], v: &[f64], hv: &mut [f64]) {
        let (k, d) = (self.directions(), self.dim());
        let pieces = r.par_chunks(CHUNK * d).zip(v.par_chunks(CHUNK * d));
        pieces.zip(hv.par_chunks_mut(CHUNK * d)).for_each(|((r, v), hv)| {
            let (seen, v) = (self.see(&self.coordinates(r)), self.coordinates(v));
            let mut out: Vec<f64> = v.iter().map(|v| -v).collect();
            let mut mean = vec![0.0; out.len()];
            for (c, shares, pulls) in self.pulls(&seen) {
                let whitener = c.whitener();
                add_shares(&mut out, shares, &product(&product(&v, whitener.transpose()), whitener));
                add_shares(&mut mean, shares, &pulls);
                subtract_squares(&mut out, shares, &pulls, &v, k);
            }
            subtract_squares(&mut out, &vec![-1.0; v.len() / k], &mean, &v, k);
            hv.iter_mut().zip(self.back(&out)).for_each(|(h, add)| *h += add);
        });
    }

    /// Σ r_j P_j - I at r [d]: [k, k]. F' of it F is the curvature of c there without the part by which the components'
    /// shares change: never less than that of all of c, and above -F'F.
    pub(crate) fn metric(&self, r: &[f64]) -> Mat<f64> {
        let k = self.directions();
        let seen = self.see(&self.coordinates(r));
        let mut inner = Mat::from_fn(k, k, |i, j| -f64::from(i == j));
        for (c, share) in self.components.iter().zip(&seen.shares) {
            let whitener = c.whitener();
            matmul(inner.as_mut(), Accum::Add, whitener.transpose(), whitener, share[0], Par::Seq);
        }
        inner
    }

    /// F: [k, d].
    pub(crate) fn rows(&self) -> &[f64] {
        &self.directions
    }

    /// Adds F' [`metric`](Self::metric) F to `matrix` [d, d].
    pub(crate) fn add_metric(&self, r: &[f64], matrix: &mut [f64]) {
        let (k, d) = (self.directions(), self.dim());
        let directions = view(&self.directions, k, d);
        let half = self.metric(r) * directions;
        let target = MatMut::from_row_major_slice_mut(matrix, d, d);
        matmul(target, Accum::Add, directions.transpose(), half.as_ref(), 1.0, Par::Seq);
    }

    /// Moves draws r = x - a [n, d] of N(0, Q^{-1}) to draws of the law with the mixture, by a component for each row from
    /// `rng`. `covariance`: Q^{-1}.
    ///
    /// With η = F r, standard normal and independent of what r is across, r + Q^{-1} F' (μ_j + L_j η - η).
    pub(crate) fn redraw(
        &self,
        r: Vec<f64>,
        covariance: &Preconditioner,
        rng: &mut ChaCha8Rng,
    ) -> Result<Vec<f64>> {
        let (k, all) = (self.directions(), BlockStructure::Rectangular);
        let directions = view(&self.directions, k, self.dim());
        let mut eta = products_of_rows(&r, directions.transpose(), all);
        let choice = |_| &self.components[chosen(self.components.iter().map(|c| c.weight), rng.random())];
        let chosen: Vec<&Component> = (0..eta.len() / k).map(choice).collect();
        eta.par_chunks_exact_mut(k).zip(chosen).for_each(|(eta, c)| {
            let s = product(eta, view(&c.factor, k, k).transpose());
            eta.iter_mut().zip(s.iter().zip(&c.mean)).for_each(|(eta, (s, mean))| *eta = mean + s - *eta);
        });
        let spread = covariance.colour(&covariance.pull_back(&self.directions)?)?;
        let moves = products_of_rows(&eta, view(&spread, k, self.dim()), all);
        Ok(r.into_iter().zip(moves).map(|(r, by)| r + by).collect())
    }
}

/// log φ(s), of the standard normal density.
fn normal(s: &[f64]) -> f64 {
    -0.5 * dot(s, s) - 0.5 * s.len() as f64 * LN_2PI
}

/// In whose part of the line from 0 the number u lies, where each has its weight for a length; beyond all, the last.
fn chosen(weights: impl Iterator<Item = f64>, mut u: f64) -> usize {
    let mut last = 0;
    for (j, weight) in weights.enumerate() {
        u -= weight;
        if u < 0.0 {
            return j;
        }
        last = j;
    }
    last
}

/// Adds the rows of `a` [n, k], each times its share, to those of `to`.
fn add_shares(to: &mut [f64], shares: &[f64], a: &[f64]) {
    let k = a.len() / shares.len();
    for ((to, a), &share) in to.chunks_exact_mut(k).zip(a.chunks_exact(k)).zip(shares) {
        add_scaled(to, share, a);
    }
}

/// Subtracts (g g') v, each row times its share, from the rows of `to`. `g`, `v`: [n, k].
fn subtract_squares(to: &mut [f64], shares: &[f64], g: &[f64], v: &[f64], k: usize) {
    let pairs = g.chunks_exact(k).zip(v.chunks_exact(k));
    for ((to, (g, v)), &share) in to.chunks_exact_mut(k).zip(pairs).zip(shares) {
        add_scaled(to, -share * dot(g, v), g);
    }
}

fn add_scaled(to: &mut [f64], scale: f64, a: &[f64]) {
    to.iter_mut().zip(a).for_each(|(to, a)| *to += scale * a);
}
