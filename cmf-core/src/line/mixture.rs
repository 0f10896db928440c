//! Mixtures of normal laws on the line: the densities of the one-dimensional experiments.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use crate::error::{Error, Result};

/// Σ_i p_i N(m_i, s_i²).
#[derive(Debug, Clone, PartialEq)]
pub struct Mixture {
    /// (weight p_i, mean m_i, standard deviation s_i) of each component; the weights sum to 1.
    pub components: Vec<(f64, f64, f64)>,
}

/// A mixture with a name and a domain.
#[derive(Debug, Clone, Copy)]
pub struct NamedMixture {
    /// What it is called.
    pub name: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// (weight, mean, standard deviation) of each component.
    components: &'static [(f64, f64, f64)],
    /// The domain Ω of w that goes with it.
    pub domain: (f64, f64),
}

/// A narrow law of four components and a wide one of three, as in the experiments of Vesseron, Béthune and
/// Cuturi (2025, appendix B.2), who do not print their parameters; and the wide one with uneven weights.
pub const MIXTURES: [NamedMixture; 3] = [
    NamedMixture {
        name: "four-narrow",
        about: "four components of deviation 0.1, concentrated at 0: variance 0.21",
        components: &[(0.25, -0.6, 0.1), (0.25, -0.2, 0.1), (0.25, 0.2, 0.1), (0.25, 0.6, 0.1)],
        domain: (-3.0, 3.0),
    },
    NamedMixture {
        name: "three-wide",
        about: "three components of deviation 1 at -4, 0 and 4: variance 11.67",
        components: &[(1.0 / 3.0, -4.0, 1.0), (1.0 / 3.0, 0.0, 1.0), (1.0 / 3.0, 4.0, 1.0)],
        domain: (-12.0, 12.0),
    },
    NamedMixture {
        name: "three-uneven",
        about: "the same three with weights 0.2, 0.5 and 0.3: mean 0.4, variance 8.84",
        components: &[(0.2, -4.0, 1.0), (0.5, 0.0, 1.0), (0.3, 4.0, 1.0)],
        domain: (-12.0, 12.0),
    },
];

impl NamedMixture {
    /// The mixture.
    pub fn mixture(&self) -> Mixture {
        Mixture { components: self.components.to_vec() }
    }
}

impl Mixture {
    /// Normalises the weights.
    ///
    /// # Errors
    /// No component, a weight or deviation that is not positive, a number that is not finite.
    pub fn new(components: Vec<(f64, f64, f64)>) -> Result<Mixture> {
        let positive = |v: f64| v.is_finite() && v > 0.0;
        let good = |&(p, m, s): &(f64, f64, f64)| positive(p) && positive(s) && m.is_finite();
        if components.is_empty() || !components.iter().all(good) {
            return Err(Error::Invalid(format!(
                "a mixture needs components of positive weight and deviation, found {components:?}"
            )));
        }
        let total: f64 = components.iter().map(|c| c.0).sum();
        Ok(Mixture { components: components.into_iter().map(|(p, m, s)| (p / total, m, s)).collect() })
    }

    /// The density at x.
    pub fn density(&self, x: f64) -> f64 {
        let normal =
            |m: f64, s: f64| (-0.5 * ((x - m) / s).powi(2)).exp() / (s * (2.0 * std::f64::consts::PI).sqrt());
        self.components.iter().map(|&(p, m, s)| p * normal(m, s)).sum()
    }

    /// The mean Σ p_i m_i.
    pub fn mean(&self) -> f64 {
        self.components.iter().map(|&(p, m, _)| p * m).sum()
    }

    /// The variance Σ p_i (s_i² + m_i²) - mean².
    pub fn variance(&self) -> f64 {
        self.components.iter().map(|&(p, m, s)| p * (s * s + m * m)).sum::<f64>() - self.mean().powi(2)
    }

    /// `n` independent draws.
    pub fn sample(&self, n: usize, seed: u64) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = || {
            let mut at = rng.random::<f64>();
            let mut chosen = self.components[self.components.len() - 1];
            for &component in &self.components {
                at -= component.0;
                if at < 0.0 {
                    chosen = component;
                    break;
                }
            }
            chosen.1 + chosen.2 * rng.sample::<f64, _>(StandardNormal)
        };
        (0..n).map(|_| draw()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn density_moments_and_draws_agree() {
        for named in MIXTURES {
            let mixture = named.mixture();
            let (low, high) = named.domain;
            let h = (high - low) / 4000.0;
            let integral = |f: &dyn Fn(f64) -> f64| -> f64 {
                (0..4000).map(|k| low + (k as f64 + 0.5) * h).map(|x| f(x) * mixture.density(x) * h).sum()
            };
            // The midpoint rule is exact to rounding for smooth functions that vanish at both ends.
            assert!((integral(&|_| 1.0) - 1.0).abs() < 1e-12);
            assert!((integral(&|x| x) - mixture.mean()).abs() < 1e-11);
            let variance = integral(&|x| (x - mixture.mean()).powi(2));
            assert!((variance - mixture.variance()).abs() < 1e-10, "{variance}");
            let draws = mixture.sample(100_000, 3);
            let mean = draws.iter().sum::<f64>() / 1e5;
            let deviation = mixture.variance().sqrt();
            // 4.5 standard errors of the mean; the variance's relative one is below sqrt(3 / n).
            assert!((mean - mixture.mean()).abs() < 4.5 * deviation / 1e5_f64.sqrt());
            let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 1e5;
            assert!((variance / mixture.variance() - 1.0).abs() < 4.5 * (3.0 / 1e5_f64).sqrt());
        }
    }

    #[test]
    fn impossible_components_are_refused() {
        assert!(Mixture::new(vec![]).is_err());
        assert!(Mixture::new(vec![(0.0, 0.0, 1.0)]).is_err());
        assert!(Mixture::new(vec![(1.0, 0.0, -1.0)]).is_err());
        assert!(Mixture::new(vec![(1.0, f64::NAN, 1.0)]).is_err());
        assert_eq!(Mixture::new(vec![(2.0, 0.0, 1.0), (6.0, 1.0, 1.0)]).unwrap().components[1].0, 0.75);
    }
}
