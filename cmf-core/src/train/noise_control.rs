//! A control variate for the likelihood's gradient at noisy data.
//!
//! Data are y = c + σ ε, and Gaussian noise has E ε·g(c + σ ε) = σ E div g for any vector field g (Stein, 1981). With
//! g = ∂∇w, whose divergence is tr ∂∇²w, that is a difference of mean 0 between terms of the two kinds that the gradient
//! consists of: g along ∇V(∇w(y)), and tr ∇²w(y)^{-1} ∂∇²w(y), estimated by u' ∂∇²w v. So ε κ/σ may be taken from
//! ∇V(∇w(y)), and κ v from u, for any number κ that does not depend on ε and v.
//!
//! Where data are nothing but noise the closed-form potential has ∇V(∇w(y)) = ε κ/σ + const and u = κ v with κ = σ^{2/3}
//! (from N(0, I) σ), and nothing is left of either. In most of their directions images are little else. The best κ is
//! measured: of a gradient G + κ C with E C = 0 the variance is least at κ = -E⟨G, C⟩ / E|C|². Variances of a batch's
//! gradient in the forms, without the control and with it:
//!
//! | data | updates | κ | without | with |
//! | --- | --- | --- | --- | --- |
//! | MNIST, σ = 0.1 (σ^{2/3} = 0.22) | 300 | 0.22 | 136 | 38 |
//! | MNIST, another run | 1,000 | 0.20 | 117 | 29 |
//! | `synthetic-faces`, 32x32, σ = 0.05, 128 directions | 200 | 0.05 | 822 | 414 |
//! | `scaled-rotated-s-curve`, σ = 0.05 | 200 | 0.03 | 1.01 | 0.69 |
//!
//! In place of the number κ matrices were tried on MNIST: S^{1/3}, parts of it, the mean Hessian's inverse, the inverse at
//! other noise of the same digit. None left less.

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;

use super::activation::Activates;
use super::config::TrainConfig;
use super::inner::MOST_PROBED;
use super::objective::{Batch, Law, Likelihood, OfHead, loss};
use super::ops::{BurnOps, Ranked};
use super::parameters::Parameters;
use crate::icnn::Weights;

/// Updates between two measurements of κ, each of which costs a second pass backwards.
const EVERY: usize = 50;

/// How far κ was above the best: ⟨G, C⟩ / |C|² for the gradients G of the loss and C of the control in the forms.
pub fn correction<B: Backend>(whole: Tensor<B, 2>, control: Tensor<B, 2>) -> Tensor<B, 1> {
    (whole * control.clone()).sum() / (control.clone() * control).sum()
}

/// κ corrected by what [`correction`] says; as it was where that is nothing, or no number because units have no effect.
pub fn corrected(kappa: f64, correction: Option<f64>) -> f64 {
    correction.filter(|c| c.is_finite()).map_or(kappa, |c| (kappa - c).max(0.0))
}

impl<B: Backend> Likelihood<Tensor<B, 2>> {
    /// The same with a gradient of the same mean and another variance; `noise` is ε: [n, d].
    fn controlled(self, noise: Tensor<B, 2>, sigma: f64, kappa: f64) -> Self {
        Likelihood {
            along: self.along - noise * (kappa / sigma),
            solved: self.solved - self.probe.clone() * kappa,
            ..self
        }
    }
}

/// The gradient that an update takes its step against, and what came with it.
pub struct Differentiated<B: AutodiffBackend> {
    /// The loss.
    pub loss: Tensor<B, 1>,
    /// Its gradients.
    pub gradients: B::Gradients,
    /// The control's gradient in the forms, in updates that measure κ.
    pub control: Option<Tensor<B::InnerBackend, 2>>,
}

/// Differentiates the loss of `batch` in update number `update`, its likelihood under control by `kappa`; `noise` makes
/// the ε of its data: [n, d].
///
/// In few dimensions there is no control: there probes leave no noise, and the rest is not worth a pass.
pub fn differentiated<B: AutodiffBackend + Activates>(
    config: &TrainConfig,
    update: usize,
    kappa: f64,
    (parameters, weights): (&Parameters<B>, &Weights<Ranked<B>>),
    mut batch: Batch<B>,
    noise: impl FnOnce() -> Tensor<B, 2>,
) -> Differentiated<B> {
    let (arch, sigma) = (&config.architecture, config.sigma);
    let ops = BurnOps::new(batch.data.device());
    let mut control = None;
    if let Some(parts) = batch.likelihood.take_if(|_| sigma > 0.0 && arch.dim > MOST_PROBED) {
        let noise = noise();
        control = update.is_multiple_of(EVERY).then(|| {
            let nothing = batch.data.zeros_like();
            let probe = parts.probe.clone();
            let alone = Likelihood { image: None, along: nothing.clone(), solved: nothing, probe };
            Batch {
                data: batch.data.clone(),
                source: Law::Head(OfHead { inverse: None, mixture: None }),
                conjugate: None,
                likelihood: Some(alone.controlled(noise.clone(), sigma, 1.0)),
            }
        });
        batch.likelihood = Some(parts.controlled(noise, sigma, kappa));
    }
    let whole = loss(&ops, arch, weights, batch);
    let gradients = whole.backward();
    let control = control.and_then(|control| {
        let control = loss(&ops, arch, &parameters.weights(arch), control).backward();
        parameters.forms.val().grad(&control)
    });
    Differentiated { loss: whole, gradients, control }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::inner;
    use super::super::objective::rows;
    use super::super::tests::{identity, network, one_point, run_on_noise};
    use super::super::trainer::Backend;
    use super::super::{Trainer, Training};
    use super::*;
    use crate::closed_form::Quadratic;
    use crate::gaussian::Gaussian;
    use crate::linalg::{SymmetricEigen, matmul};
    use crate::potential::Potential;
    use crate::source::Source;

    #[test]
    fn of_data_that_are_nothing_but_noise_nothing_is_left() {
        let (d, n, sigma) = (5, 7, 0.3);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (noise, probe) = (inner::normal(&mut rng, n * d), inner::signs(&mut rng, n * d));
        let c = [0.4, -1.0, 0.0, 2.0, 0.7];
        let y: Vec<f64> = noise.iter().enumerate().map(|(i, e)| c[i % d] + sigma * e).collect();
        let covariance: Vec<f64> = identity(d).iter().map(|v| sigma * sigma * v).collect();
        let gaussian = Gaussian { mean: c.to_vec(), covariance: covariance.into() };
        for source in [Source::Gibbs, Source::Gaussian] {
            let start = gaussian.quadratic_start_from(source).unwrap();
            let w = Quadratic::new(start.hessian.dense().into_owned(), start.centre.clone()).unwrap();
            let gradient = |x: &[f64]| {
                let (mut value, mut gradient) = (vec![0.0; n], vec![0.0; n * d]);
                w.value_and_gradient(x, &mut value, &mut gradient).unwrap();
                gradient
            };
            let image = gradient(&y);
            let along = match source {
                Source::Gibbs => gradient(&image),
                Source::Gaussian => image,
            };
            let kappa = match source {
                Source::Gibbs => sigma.powf(2.0 / 3.0),
                Source::Gaussian => sigma,
            };
            let inverse = SymmetricEigen::new(&start.hessian.dense(), d).unwrap().apply(f64::recip);
            let solved = matmul(&probe, &inverse, n, d, d);
            let on_burn = |a: &[f64]| rows::<Flex>(a, d, &Default::default());
            let parts = Likelihood {
                image: None,
                along: on_burn(&along),
                solved: on_burn(&solved),
                probe: on_burn(&probe),
            };
            let left = parts.controlled(on_burn(&noise), sigma, kappa);
            // ∇V(∇w(y)) is ε κ/σ + const: no row differs from the first. Numbers of size 1 in f32.
            let along = left.along.clone() - left.along.narrow(0, 0, 1);
            for left in [along, left.solved] {
                let largest = left.abs().max().into_scalar();
                assert!(largest < 1e-5, "{source:?}: {largest}");
            }
        }
    }

    /// Hidden units make the Hessian larger than the closed form's, and κ smaller: by a tenth at their first size.
    #[test]
    fn of_noise_alone_the_best_is_what_the_closed_form_says() {
        let mut trainer = run_on_noise(&[16, 8]);
        trainer.step(10, &one_point).unwrap();
        let want = 0.1f64.powf(2.0 / 3.0);
        assert!((trainer.kappa / want - 1.0).abs() < 0.2, "{} of {want}", trainer.kappa);
    }

    #[test]
    fn a_resumed_run_knows_its_control() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint");
        let [mut unbroken, mut broken] = [run_on_noise(&[16, 8]), run_on_noise(&[16, 8])];
        for _ in 0..55 {
            unbroken.step(10, &one_point).unwrap();
        }
        for at in 0..55 {
            if at == 3 {
                broken.save(&path).unwrap();
                broken = Trainer::load(&path).unwrap();
            }
            broken.step(10, &one_point).unwrap();
        }
        assert!(broken.kappa > 0.0);
        assert_eq!(broken.kappa.to_bits(), unbroken.kappa.to_bits());
    }

    /// Over 60 batches of 1,600 draws, the mean of what the control takes out of the gradient of each array, along one
    /// direction, is within four standard errors of 0: less than a third of what the trace alone contributes.
    #[test]
    fn the_control_has_mean_zero() {
        let (d, n, batches, sigma) = (4, 1600, 60, 0.5);
        let net = network(d, true);
        let arch = net.architecture().clone();
        let device = Default::default();
        let parameters = Parameters::<Backend>::from_network(&net, &device).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let c: Vec<f64> = (0..d).map(|_| rng.random_range(-1.0..1.0)).collect();
        let on_burn = |a: &[f64]| rows::<Backend>(a, d, &device);
        let kappa = 1.2;
        let projected = |controlled: bool, noise: &[f64], probe: &[f64]| -> [f64; 3] {
            let y: Vec<f64> = noise.iter().enumerate().map(|(i, e)| c[i % d] + sigma * e).collect();
            let zeros = on_burn(&vec![0.0; n * d]);
            let parts = Likelihood {
                image: None,
                along: zeros.clone(),
                // The trace alone: u = κ v in place of a solution.
                solved: if controlled { zeros.clone() } else { on_burn(probe) * kappa },
                probe: on_burn(probe),
            };
            let parts = parts.controlled(on_burn(noise), sigma, if controlled { kappa } else { 0.0 });
            let batch = Batch {
                data: on_burn(&y),
                source: Law::Particles(zeros),
                conjugate: None,
                likelihood: Some(parts),
            };
            let loss = loss(&BurnOps::new(device), &arch, &parameters.weights(&arch), batch);
            let gradients = loss.backward();
            [&parameters.forms, &parameters.output, &parameters.mixing[0]].map(|p| {
                let gradient = p.val().grad(&gradients).unwrap();
                let numbers: Vec<f32> = gradient.into_data().to_vec().unwrap();
                // A fixed direction that no symmetry of the arrays knows.
                numbers.iter().enumerate().map(|(i, g)| f64::from(*g) * ((i * i + 1) as f64).sin()).sum()
            })
        };
        let (mut taken, mut trace) = (Vec::new(), Vec::new());
        for _ in 0..batches {
            let (noise, probe) = (inner::normal(&mut rng, n * d), inner::signs(&mut rng, n * d));
            taken.push(projected(true, &noise, &probe));
            trace.push(projected(false, &noise, &probe));
        }
        for (k, what) in ["forms", "output", "mixing"].into_iter().enumerate() {
            let mean = |all: &[[f64; 3]]| all.iter().map(|g| g[k]).sum::<f64>() / batches as f64;
            let (m, whole) = (mean(&taken), mean(&trace));
            let spread = taken.iter().map(|g| (g[k] - m).powi(2)).sum::<f64>() / (batches - 1) as f64;
            let error = (spread / batches as f64).sqrt();
            assert!(m.abs() < 4.0 * error, "{what}: {m} of {error}");
            assert!(
                whole.abs() > 15.0 * error,
                "{what}: the trace is {whole}, the error {error}: too few draws"
            );
        }
    }
}
