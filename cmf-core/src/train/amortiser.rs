//! A network H that guesses conjugates ∇w*(x) from what the solver found before.
//!
//! H(x) = a + P x + MLP(x - a), where a + P x is the closed-form start's own map, with three hidden layers and
//! the SiLU activation. The MLP begins at zero. Each update takes one Adam step on the mean of |H(x) - x̂|² over
//! the rows whose solve converged, the solver's x̂ held fixed (Amos, 2023; Vesseron, Béthune and Cuturi, 2025).

use burn::module::{Module, Param};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::{Adam, AdamConfig, GradientsParams, Optimizer};
use burn::prelude::Tensor;
use burn::tensor::activation::silu;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion, TensorData};
use rand_chacha::ChaCha8Rng;

use super::inner;
use super::objective::rows;
use crate::error::{Error, Result};
use crate::gibbs_start::GibbsStart;

/// Hidden layers.
const LAYERS: usize = 3;
/// Largest dimension of a small problem, for which the paper takes a smaller network and step.
const SMALL: usize = 16;

/// The layers of the MLP.
#[derive(Module, Debug)]
pub struct Mlp<B: Backend> {
    /// Each [inputs, outputs].
    weights: Vec<Param<Tensor<B, 2>>>,
    /// Each [1, outputs].
    biases: Vec<Param<Tensor<B, 2>>>,
}

/// Adam on the MLP.
pub(super) type MlpOptimiser<B> = OptimizerAdaptor<Adam, Mlp<B>, B>;

impl<B: Backend> Mlp<B> {
    /// Random layers of variance 1 / inputs, the last of zeros.
    pub(super) fn new(d: usize, rng: &mut ChaCha8Rng, device: &B::Device) -> Self {
        let hidden = if d <= SMALL { 128 } else { 256 };
        let sizes = [&[d], &[hidden; LAYERS][..], &[d]].concat();
        let param = |data: Vec<f32>, shape: [usize; 2]| {
            Param::from_tensor(Tensor::from_data(TensorData::new(data, shape), device))
        };
        let mut mlp = Mlp { weights: Vec::new(), biases: Vec::new() };
        for (layer, pair) in sizes.windows(2).enumerate() {
            let (inputs, outputs) = (pair[0], pair[1]);
            let scale = if layer < LAYERS { (inputs as f64).sqrt().recip() } else { 0.0 };
            let data = inner::normal(rng, inputs * outputs).iter().map(|v| (scale * v) as f32).collect();
            mlp.weights.push(param(data, [inputs, outputs]));
            mlp.biases.push(param(vec![0.0; outputs], [1, outputs]));
        }
        mlp
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let layers = self.weights.iter().zip(&self.biases);
        layers.enumerate().fold(x, |x, (layer, (weight, bias))| {
            let x = x.matmul(weight.val()) + bias.val();
            if layer < LAYERS { silu(x) } else { x }
        })
    }
}

pub(super) fn optimiser<B: AutodiffBackend>() -> MlpOptimiser<B> {
    AdamConfig::new().with_epsilon(1e-8).init()
}

/// H with what it learns by.
pub struct Amortiser<B: AutodiffBackend> {
    pub(super) mlp: Mlp<B>,
    pub(super) optimiser: MlpOptimiser<B>,
    start: GibbsStart,
}

impl<B: AutodiffBackend> Amortiser<B> {
    /// From layers that are new or saved.
    pub(super) fn new(mlp: Mlp<B>, optimiser: MlpOptimiser<B>, start: &GibbsStart) -> Self {
        Amortiser { mlp, optimiser, start: start.clone() }
    }

    fn dim(&self) -> usize {
        self.start.centre.len()
    }

    /// H at the rows of `x` [n, d].
    pub fn guess(&self, x: &[f64]) -> Result<Vec<f64>> {
        let correction = self.correction(self.shifted(x)).into_data();
        let correction: Vec<f32> = correction
            .to_vec()
            .map_err(|e| Error::Engine { engine: "burn", message: format!("the amortiser: {e:?}") })?;
        let mut guess = self.start.map(x)?;
        guess.iter_mut().zip(&correction).for_each(|(g, c)| *g += f64::from(*c));
        if guess.iter().all(|g| g.is_finite()) {
            return Ok(guess);
        }
        Err(Error::NotFinite("the amortiser's guess".into()))
    }

    /// Takes one step towards `found` [n, d] at the rows of `x` for which `converged` holds, if there are any.
    pub fn learn(&mut self, x: &[f64], found: &[f64], converged: &[bool]) -> Result<()> {
        let d = self.dim();
        let chosen = |a: &[f64]| -> Vec<f64> {
            a.chunks_exact(d).zip(converged).filter(|(_, c)| **c).flat_map(|(row, _)| row.to_vec()).collect()
        };
        let (x, found) = (chosen(x), chosen(found));
        if x.is_empty() {
            return Ok(());
        }
        let target: Vec<f64> = found.iter().zip(self.start.map(&x)?).map(|(f, c)| f - c).collect();
        let difference = self.correction(self.shifted(&x)) - rows(&target, d, &self.device());
        let loss = difference.powi_scalar(2).sum_dim(1).mean();
        let value: f64 = loss.clone().into_scalar().elem();
        if !value.is_finite() {
            return Err(Error::NotFinite("the amortiser's loss".into()));
        }
        self.descend(loss);
        Ok(())
    }

    /// The MLP at x - a: [n, d] -> [n, d].
    pub(super) fn correction(&self, shifted: Tensor<B, 2>) -> Tensor<B, 2> {
        self.mlp.forward(shifted)
    }

    /// Takes one step down `loss`.
    pub(super) fn descend(&mut self, loss: Tensor<B, 1>) {
        let gradients = GradientsParams::from_grads(loss.backward(), &self.mlp);
        let rate = if self.dim() <= SMALL { 1e-4 } else { 5e-4 };
        self.mlp = self.optimiser.step(rate, self.mlp.clone(), gradients);
    }

    /// x - a.
    fn shifted(&self, x: &[f64]) -> Tensor<B, 2> {
        let shifted: Vec<f64> = x.iter().zip(self.start.centre.iter().cycle()).map(|(x, a)| x - a).collect();
        rows(&shifted, self.dim(), &self.device())
    }

    fn device(&self) -> B::Device {
        self.mlp.biases[0].device()
    }
}
