//! The Gibbs factor of a potential's quadratic head alone: a Gaussian, or one with a mixture along few directions.

use std::sync::Arc;

use faer::Mat;
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result, check_len};
use crate::gaussian::LN_2PI;
use crate::linalg::{Cholesky, centred, dot, inverse_of_lower, matmul, plus, to_rows, view};
use crate::mixture::Mixture;
use crate::potential::{Potential, check_hvp, check_value_and_gradient};
use crate::preconditioner::Preconditioner;
use crate::sampler::standard_normals;
use crate::symmetric::{Spiked, Symmetric};

/// V(x) = ½ (x-a)' Q (x-a), so that e^{-V}/Z is N(a, Q^{-1}).
///
/// Or with a [`Mixture`] V(x) = ½ (x-a)' Q (x-a) + log φ(s) - log p(s) at s = F (x-a): the Gaussian's marginal along F is
/// the mixture's instead, and Z is the same. Such a V is not convex; ∇w* carries its law to the data all the same.
#[derive(Debug, Clone)]
pub struct HeadFactor {
    precision: Symmetric,
    centre: Vec<f64>,
    mixture: Option<Arc<Mixture>>,
}

/// c I + W' G W with a G for each of several points.
pub(crate) struct MetricsInParts {
    /// c.
    pub across: f64,
    /// W: [m, d].
    pub rows: Vec<f64>,
    /// G: [m, m].
    pub inner: Vec<Mat<f64>>,
}

impl HeadFactor {
    /// From Q [d, d] and a [d].
    pub fn new(precision: impl Into<Symmetric>, centre: Vec<f64>) -> Result<Self> {
        let precision = precision.into();
        check_len("the centre", centre.len(), precision.dim())?;
        if precision.numbers().iter().chain(&centre).any(|v| !v.is_finite()) {
            return Err(Error::NotFinite("a number of the head".into()));
        }
        Ok(HeadFactor { precision, centre, mixture: None })
    }

    /// From a head's rows in the network, Q [d, d], or with the floor q and the excesses c [k] of a spiked one U [k, d].
    pub(crate) fn of_rows(rows: Vec<f64>, spikes: Option<(f64, Vec<f64>)>, centre: Vec<f64>) -> Result<Self> {
        let precision = match spikes {
            None => Symmetric::Full(rows),
            Some((floor, excess)) => {
                Spiked::new(floor, excess.iter().map(|v| v + floor).collect(), rows)?.into()
            }
        };
        Self::new(precision, centre)
    }

    /// The same with a mixture, whose directions F are those of [`directions`](Self::directions).
    pub fn with_mixture(mut self, mixture: Arc<Mixture>) -> Result<Self> {
        check_len("the directions of the mixture", mixture.dim(), self.dim())?;
        self.mixture = Some(mixture);
        Ok(self)
    }

    /// The mixture, if there is one.
    pub fn mixture(&self) -> Option<&Arc<Mixture>> {
        self.mixture.as_ref()
    }

    /// F [k, d] with F Q^{-1} F' = I, whose rows span those of `axes` [k, d]: R^{-1} V with R R' = V Q^{-1} V'.
    pub fn directions(&self, axes: &[f64]) -> Result<Vec<f64>> {
        Self::directions_within(&self.covariance()?, axes)
    }

    /// The same by Q^{-1}.
    pub(crate) fn directions_within(covariance: &Symmetric, axes: &[f64]) -> Result<Vec<f64>> {
        let d = covariance.dim();
        let k = crate::potential::rows(axes, d)?;
        let spread = covariance.times(axes)?;
        let gram = to_rows((view(axes, k, d) * view(&spread, k, d).transpose()).as_ref());
        let factor = Cholesky::new(&gram, k, "the head along the axes of a mixture")?.lower();
        Ok(matmul(&to_rows(inverse_of_lower(factor.as_ref()).as_ref()), axes, k, k, d))
    }

    /// F (x - a) of each row of `x` [n, d], for directions F [k, d]: [n, k].
    pub fn along(&self, directions: &[f64], x: &[f64]) -> Vec<f64> {
        let (d, n) = (self.dim(), x.len() / self.dim());
        let f = view(directions, directions.len() / d, d);
        to_rows((view(&centred(x, &self.centre), n, d) * f.transpose()).as_ref())
    }

    /// What the mixture adds to the Gaussian's log-density at each row of `x` [n, d], in nats; 0 without one.
    pub fn gain(&self, x: &[f64]) -> Vec<f64> {
        match &self.mixture {
            Some(mixture) => mixture.gain(&mixture.coordinates(&centred(x, &self.centre))),
            None => vec![0.0; x.len() / self.dim()],
        }
    }

    /// The curvature of V at each row of `x` [n, d], but for the part by which the components' shares change, written to
    /// `out` [n, d, d]. Positive definite, and without a mixture Q.
    pub(crate) fn metrics(&self, x: &[f64], out: &mut [f64]) {
        let d = self.dim();
        let precision = self.precision.dense();
        for (x, out) in x.chunks_exact(d).zip(out.chunks_exact_mut(d * d)) {
            out.copy_from_slice(&precision);
            if let Some(mixture) = &self.mixture {
                mixture.add_metric(&centred(x, &self.centre), out);
            }
        }
    }

    /// [`metrics`](Self::metrics) at each row of `x` as c I + W' G W, where Q is spiked: c, W [m, d], and G [m, m] of each.
    pub(crate) fn metrics_in_parts(&self, x: &[f64]) -> Option<MetricsInParts> {
        let Symmetric::Spiked(spiked) = &self.precision else { return None };
        let k = spiked.values().len();
        let mut rows = spiked.vectors().to_vec();
        rows.extend(self.mixture.iter().flat_map(|mixture| mixture.rows()));
        let m = rows.len() / self.dim();
        let inner = x.chunks_exact(self.dim()).map(|x| {
            let bends = self.mixture.as_ref().map(|mixture| mixture.metric(&centred(x, &self.centre)));
            Mat::from_fn(m, m, |i, j| match &bends {
                Some(bends) if i >= k && j >= k => bends[(i - k, j - k)],
                _ if i == j => spiked.values()[i] - spiked.floor(),
                _ => 0.0,
            })
        });
        Some(MetricsInParts { across: spiked.floor(), inner: inner.collect(), rows })
    }

    /// Q.
    pub fn precision(&self) -> &Symmetric {
        &self.precision
    }

    /// a: [d].
    pub fn centre(&self) -> &[f64] {
        &self.centre
    }

    /// Q^{-1}, without a mixture the covariance; fails where Q is not positive definite.
    pub fn covariance(&self) -> Result<Symmetric> {
        self.precision.inverse("the head")
    }

    /// log Z = log ∫ e^{-V} = d/2 ln 2π - ½ log det Q, exactly; in nats.
    pub fn log_z(&self) -> Result<f64> {
        let (log_det, _) = self.precision.log_det_and_inverse_forms(&[], "the head")?;
        Ok(0.5 * (self.dim() as f64 * LN_2PI - log_det))
    }

    /// `n` exact draws: a + L ξ with L L' = Q^{-1} and standard normal numbers ξ, moved to the mixture if there is one.
    /// [n, d].
    pub fn draw(&self, n: usize, rng: &mut ChaCha8Rng) -> Result<Vec<f64>> {
        let covariance = Preconditioner::of_inverse(&self.precision, "the head")?;
        let mut x = covariance.colour(&standard_normals(rng, n * self.dim()))?;
        if let Some(mixture) = &self.mixture {
            x = mixture.redraw(x, &covariance, rng)?;
        }
        Ok(plus(x, &self.centre))
    }
}

impl Potential for HeadFactor {
    fn dim(&self) -> usize {
        self.centre.len()
    }

    fn value_and_gradient(&self, x: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        let d = self.dim();
        check_value_and_gradient(d, x, value, gradient)?;
        let centred = centred(x, &self.centre);
        gradient.copy_from_slice(&self.precision.times(&centred)?);
        let rows = centred.chunks_exact(d).zip(gradient.chunks_exact(d));
        value.iter_mut().zip(rows).for_each(|(value, (r, g))| *value = 0.5 * dot(r, g));
        if let Some(mixture) = &self.mixture {
            mixture.add_to(&centred, value, gradient);
        }
        Ok(())
    }

    fn hvp(&self, x: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        check_hvp(self.dim(), x, v, hv)?;
        hv.copy_from_slice(&self.precision.times(v)?);
        if let Some(mixture) = &self.mixture {
            mixture.add_hvp(&centred(x, &self.centre), v, hv);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn factors() -> [HeadFactor; 2] {
        let spiked = Spiked::new(2.0, vec![0.5], vec![0.6, 0.8]).unwrap();
        [
            HeadFactor::new(vec![2.0, 0.5, 0.5, 1.0], vec![1.0, -2.0]).unwrap(),
            HeadFactor::new(Symmetric::from(spiked), vec![0.0, 3.0]).unwrap(),
        ]
    }

    /// Sums over a grid that reaches 10 standard deviations: for e^{-V} of an analytic V the trapezoidal rule is exact to
    /// rounding.
    #[test]
    fn log_z_is_that_of_the_quadrature() {
        for factor in factors() {
            let (h, reach) = (0.1, 150);
            let mut points = Vec::new();
            for i in -reach..=reach {
                for j in -reach..=reach {
                    points.extend([factor.centre[0] + h * f64::from(i), factor.centre[1] + h * f64::from(j)]);
                }
            }
            let (mut value, mut gradient) = (vec![0.0; points.len() / 2], vec![0.0; points.len()]);
            factor.value_and_gradient(&points, &mut value, &mut gradient).unwrap();
            let sum = value.iter().map(|v| (-v).exp()).sum::<f64>() * h * h;
            assert!((sum.ln() - factor.log_z().unwrap()).abs() < 1e-10, "{} {:?}", sum.ln(), factor.log_z());
        }
    }

    /// Means and covariances of 40,000 draws, whose standard errors are 0.005 and 0.007 of a variance: bounds of 5.
    #[test]
    fn draws_have_the_moments() {
        let n = 40_000;
        for factor in factors() {
            let x = factor.draw(n, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
            let want = factor.covariance().unwrap().dense().into_owned();
            let mean = |f: &dyn Fn(&[f64]) -> f64| x.chunks_exact(2).map(f).sum::<f64>() / n as f64;
            for i in 0..2 {
                let off = mean(&|x| x[i] - factor.centre[i]);
                assert!(off.abs() < 0.025 * want[3 * i].sqrt(), "{off}");
                for j in 0..2 {
                    let found = mean(&|x| (x[i] - factor.centre[i]) * (x[j] - factor.centre[j]));
                    let scale = (want[3 * i] * want[3 * j]).sqrt();
                    assert!((found - want[2 * i + j]).abs() < 0.035 * scale, "{found} {}", want[2 * i + j]);
                }
            }
        }
    }
}
