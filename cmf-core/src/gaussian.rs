//! The Gaussian solution in closed form: N(m, S) is the conjugate moment measure of a quadratic.
//!
//! w(x) = ½ (x-a)' S^{-1/3} (x-a) with a = (I + S^{1/3})^{-1} m has Gibbs factor N(a, S^{1/3}) and
//! transport map ∇w*(x) = S^{1/3} x + a (Vesseron, Béthune and Cuturi, 2025, Proposition 2).
//!
//! From N(0, I) instead, the map to N(m, S) is ∇w*(x) = S^{1/2} x + m with w(y) = ½ (y-m)' S^{-1/2} (y-m).

use crate::components;
use crate::error::{Error, Result, check_len};
use crate::linalg::{Cholesky, centred, dot};
use crate::potential::rows;
use crate::preconditioner::Preconditioner;
use crate::source::Source;
use crate::symmetric::Symmetric;

/// ln 2π.
pub const LN_2PI: f64 = 1.837_877_066_409_345_5;

/// A normal distribution N(m, S) with what the closed-form start and the baselines need of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Gaussian {
    /// m: [d].
    pub mean: Vec<f64>,
    /// S: [d, d].
    pub covariance: Symmetric,
}

/// The quadratic potential that transports a source to a Gaussian.
#[derive(Debug, Clone)]
pub struct QuadraticStart {
    /// Q: [d, d], the Hessian of w: S^{-1/3}, or S^{-1/2} from N(0, I).
    pub hessian: Symmetric,
    /// [d], the minimiser of w: a = (I + S^{1/3})^{-1} m, or m from N(0, I).
    pub centre: Vec<f64>,
    /// log Z of the source: log ∫ e^{-w} = d/2 ln 2π + ½ log det S^{1/3}, or d/2 ln 2π for N(0, I).
    pub log_z: f64,
    /// The law that is transported.
    pub source: Source,
}

impl QuadraticStart {
    /// Q^{-1} as a preconditioner: the covariance S^{1/3} of the Gibbs factor, or S^{1/2}.
    pub fn inverse_hessian(&self) -> Result<Preconditioner> {
        Preconditioner::of_inverse(&self.hessian, "the Hessian of the start")
    }

    /// The Gaussian that this is the potential of: S = Q^{-3}, m = (I + Q^{-1}) a; from N(0, I) S = Q^{-2}, m = a.
    pub fn gaussian(&self) -> Result<Gaussian> {
        let spectrum = self.hessian.spectrum()?;
        Ok(match self.source {
            Source::Gibbs => Gaussian {
                mean: spectrum.apply(|q| 1.0 + 1.0 / q).times(&self.centre)?,
                covariance: spectrum.apply(|q| q.powi(-3)),
            },
            Source::Gaussian => {
                Gaussian { mean: self.centre.clone(), covariance: spectrum.apply(|q| q.powi(-2)) }
            }
        })
    }
}

impl Gaussian {
    /// Sample mean and covariance of the rows of `y` [n, d] convolved with N(0, noise² I).
    ///
    /// The covariance is divided by n; with `noise` = 0 it must come out positive definite.
    pub fn fit(y: &[f64], d: usize, noise: f64) -> Result<Self> {
        let mean = mean(y, d)?;
        let n = y.len() / d;
        let mut covariance = vec![0.0; d * d];
        // Blocks of rows keep the centred copy small whatever n is.
        for block in y.chunks(d * 4096) {
            let centred = centred(block, &mean);
            let k = centred.len() / d;
            let c = crate::linalg::view(&centred, k, d);
            let product = crate::linalg::to_rows((c.transpose() * c).as_ref());
            for (s, p) in covariance.iter_mut().zip(product) {
                *s += p / n as f64;
            }
        }
        for i in 0..d {
            covariance[i * d + i] += noise * noise;
        }
        if mean.iter().chain(&covariance).any(|v| !v.is_finite()) {
            return Err(Error::NotFinite("the mean or covariance of the data".into()));
        }
        Ok(Gaussian { mean, covariance: covariance.into() })
    }

    /// As [`fit`](Self::fit), with variances of their own along the `k` leading directions alone and one for the rest.
    ///
    /// Memory and time grow with k d, not d². Fails unless 0 < k < d and k <= n.
    pub fn fit_leading(y: &[f64], d: usize, noise: f64, k: usize) -> Result<Self> {
        let mean = mean(y, d)?;
        let covariance = components::leading(y, &mean, noise, k)?.into();
        Ok(Gaussian { mean, covariance })
    }

    /// The dimension d.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// The closed-form conjugate moment potential of this Gaussian.
    pub fn quadratic_start(&self) -> Result<QuadraticStart> {
        self.quadratic_start_from(Source::Gibbs)
    }

    /// The closed-form potential that transports `source` to this Gaussian.
    pub fn quadratic_start_from(&self, source: Source) -> Result<QuadraticStart> {
        let spectrum = self.covariance.spectrum()?;
        let (smallest, largest) = spectrum.ends();
        if smallest.is_nan() || smallest <= 1e-12 * largest {
            return Err(Error::NotPositiveDefinite(format!(
                "the data covariance (eigenvalues from {smallest:.3e} to {largest:.3e}; add noise with --sigma)"
            )));
        }
        let log_z = 0.5 * self.dim() as f64 * LN_2PI;
        Ok(match source {
            Source::Gibbs => QuadraticStart {
                hessian: spectrum.apply(|s| 1.0 / s.cbrt()),
                centre: spectrum.apply(|s| 1.0 / (1.0 + s.cbrt())).times(&self.mean)?,
                log_z: log_z + spectrum.sum(|s| s.ln() / 6.0),
                source,
            },
            Source::Gaussian => QuadraticStart {
                hessian: spectrum.apply(|s| 1.0 / s.sqrt()),
                centre: self.mean.clone(),
                log_z,
                source,
            },
        })
    }

    /// log N(y_i; m, S) of each row of `y` [n, d], in nats.
    pub fn log_density(&self, y: &[f64]) -> Result<Vec<f64>> {
        let d = self.dim();
        rows(y, d)?;
        let centred = centred(y, &self.mean);
        let (log_det, forms) = self.covariance.log_det_and_inverse_forms(&centred, "the covariance")?;
        let constant = -0.5 * (d as f64 * LN_2PI + log_det);
        Ok(forms.into_iter().map(|form| constant - 0.5 * form).collect())
    }

    /// The conditional law of the coordinates in `hidden` given the others of `y` [d].
    ///
    /// Returns a Gaussian on the hidden coordinates, in the order of `hidden`:
    /// N(m_h + S_hk S_kk^{-1} (y_k - m_k), S_hh - S_hk S_kk^{-1} S_kh).
    pub fn conditional(&self, y: &[f64], hidden: &[usize]) -> Result<Gaussian> {
        let d = self.dim();
        check_len("y", y.len(), d)?;
        let mut is_hidden = vec![false; d];
        for &i in hidden {
            *is_hidden.get_mut(i).ok_or_else(|| Error::Invalid(format!("coordinate {i} of {d}")))? = true;
        }
        let known: Vec<usize> = (0..d).filter(|&i| !is_hidden[i]).collect();
        let (h, k) = (hidden.len(), known.len());
        let mut mean: Vec<f64> = hidden.iter().map(|&i| self.mean[i]).collect();
        let mut covariance = self.covariance.block(hidden, hidden);
        if k > 0 {
            let within = self.covariance.block(&known, &known);
            let factor = Cholesky::new(&within, k, "the covariance of the known coordinates")?;
            let cross = self.covariance.block(hidden, &known);
            // Rows of `gain` are S_kk^{-1} S_kh's columns: gain = S_hk S_kk^{-1}.
            let mut gain = cross.clone();
            factor.solve_rows(&mut gain)?;
            let residual: Vec<f64> = known.iter().map(|&i| y[i] - self.mean[i]).collect();
            for (i, m) in mean.iter_mut().enumerate() {
                *m += dot(&gain[i * k..][..k], &residual);
            }
            let explained = crate::linalg::to_rows(
                (crate::linalg::view(&gain, h, k) * crate::linalg::view(&cross, h, k).transpose()).as_ref(),
            );
            for (c, e) in covariance.iter_mut().zip(explained) {
                *c -= e;
            }
        }
        Ok(Gaussian { mean, covariance: covariance.into() })
    }
}

/// The mean of the rows of `y` [n, d]: [d].
pub(crate) fn mean(y: &[f64], d: usize) -> Result<Vec<f64>> {
    let n = rows(y, d)?;
    if n == 0 {
        return Err(Error::Invalid("cannot fit a Gaussian to an empty data set".into()));
    }
    let mut mean = vec![0.0; d];
    for row in y.chunks_exact(d) {
        mean.iter_mut().zip(row).for_each(|(m, v)| *m += v / n as f64);
    }
    Ok(mean)
}
