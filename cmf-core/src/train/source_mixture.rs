//! The mixture in the source of a run: where it begins, how it follows the network, and what the head's derivative has of
//! it.

use std::borrow::Cow;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::activation::Activates;
use super::config::TrainConfig;
use super::objective::{OfHead, Slope};
use super::parameters::{Parameters, network_of};
use super::trainer::DataRows;
use super::training::ReadRows;
use crate::error::{Error, Result, check_len};
use crate::gaussian::{Gaussian, QuadraticStart};
use crate::head_factor::HeadFactor;
use crate::host::Scalar;
use crate::icnn::{Head, Icnn};
use crate::linalg::{dot, matmul, to_rows, view};
use crate::mixture::{Follower, Mixture, MixtureFit, ROWS_EACH, leading_axes};
use crate::potential::{Potential, rows as row_count};
use crate::symmetric::Symmetric;

/// The share of a run's updates after which its source becomes a mixture: by then data lie in x much as they will.
const FROM: f64 = 0.125;
/// One row of so many is left out of the fit, to judge it by.
const JUDGE: usize = 10;
/// The parts of the axes that are tried in turn: of few rows covariances in many are learned by heart.
const SHARES: [usize; 3] = [1, 2, 4];
/// Rounds of the first fit.
const ROUNDS: usize = 10;
/// Rows that are mapped at a time.
const BLOCK: usize = 4096;

/// A mixture along leading axes of the data, in the place of the head's Gaussian.
#[derive(Clone)]
pub(super) struct SourceMixture {
    /// [k, d].
    axes: Vec<f64>,
    follower: Follower,
}

/// What an update needs of the mixture at x = ∇w(y).
pub(super) struct Pull {
    /// ∂c/∂x of each row, c = log φ(s) - log p(s): [n, d].
    pub along: Vec<f64>,
    /// That of the mean of c in the head.
    pub head: Slope<Vec<f64>>,
}

/// What an update at a Gibbs factor of the head takes from the processor.
pub(super) struct HeadLaw {
    /// What the derivative in the head needs.
    pub of_head: OfHead<Vec<f64>>,
    /// What a mixture adds to ∇V at the data's images: [n, d], or empty without one.
    pub along: Vec<f64>,
}

/// What a run's source has become.
#[derive(Clone, Default)]
pub(super) struct RunSource {
    /// Whether a mixture was tried; it is tried once.
    tried: bool,
    /// The mixture, if one was tried and kept.
    mixture: Option<SourceMixture>,
}

/// The same in a checkpoint: whether a mixture was tried, and its axes and moments.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct SavedSource {
    pub tried: bool,
    pub mixture: Option<[Vec<f64>; 2]>,
}

impl RunSource {
    /// That of a network from which a run starts: with its mixture, if it has one and `components` allows any.
    pub fn of_network<T: Scalar>(network: &Icnn<T>, components: usize) -> Result<Self> {
        let known = network.gibbs().and_then(|head| head.mixture()).filter(|_| components > 1);
        let mixture = known.map(|known| SourceMixture::known(known)).transpose()?;
        Ok(RunSource { tried: mixture.is_some(), mixture })
    }

    /// From a checkpoint, in dimension `d`.
    pub fn load(saved: SavedSource, d: usize) -> Result<Self> {
        let mixture = saved.mixture.map(|numbers| SourceMixture::from_numbers(numbers, d)).transpose()?;
        Ok(RunSource { tried: saved.tried, mixture })
    }

    /// For a checkpoint.
    pub fn save(&self) -> SavedSource {
        SavedSource { tried: self.tried, mixture: self.mixture.as_ref().map(SourceMixture::numbers) }
    }

    /// Tries a mixture if that is due before update number `update`, with the network of `parameters` and so many rows of
    /// data: [`Training::mix_source`](super::Training::mix_source).
    pub fn mix<B: Activates>(
        &mut self,
        (config, update): (&TrainConfig, usize),
        start: &QuadraticStart,
        parameters: &Option<Parameters<B>>,
        (of, read): (usize, &ReadRows<'_>),
        hear: &mut dyn FnMut(f64) -> bool,
    ) -> Result<()> {
        let arch = &config.architecture;
        let due = !self.tried
            && update >= (FROM * config.updates as f64) as usize
            && arch.dim > 1
            && MixtureFit::affordable(config.components, of) > 1;
        if let Some(parameters) = parameters.as_ref().filter(|_| due) {
            let network = network_of(arch, &parameters.weights(arch))?;
            self.mixture = SourceMixture::begin(config, &start.gaussian()?, &network, (of, read), hear)?;
            self.tried = true;
        }
        Ok(())
    }

    /// `network` with the mixture, if there is one, in its source.
    pub fn placed_in<T: Scalar>(&self, network: Icnn<T>) -> Result<Icnn<T>> {
        match &self.mixture {
            Some(mixture) => mixture.placed_in(network),
            None => Ok(network),
        }
    }

    /// What an update takes from the processor for a head of this form, with a mixture at its `image` [n, d].
    pub fn law_of_head<'a>(
        &mut self,
        form: Head,
        head: impl FnOnce() -> Result<Cow<'a, HeadFactor>>,
        image: impl FnOnce() -> Result<Vec<f64>>,
    ) -> Result<HeadLaw> {
        if form != Head::Full && self.mixture.is_none() {
            return Ok(HeadLaw { of_head: OfHead { inverse: None, mixture: None }, along: Vec::new() });
        }
        let head = head()?;
        let covariance = head.covariance()?;
        let pull =
            self.mixture.as_mut().map(|mixture| mixture.pull(&head, &covariance, &image()?)).transpose()?;
        let (along, mixture) = pull.map(|pull| (pull.along, pull.head)).unzip();
        let inverse = match covariance {
            Symmetric::Full(inverse) => Some(inverse),
            Symmetric::Spiked(_) => None,
        };
        Ok(HeadLaw { of_head: OfHead { inverse, mixture }, along: along.unwrap_or_default() })
    }
}

/// The first `few` numbers of each row of `s` [n, k].
fn leading(s: &[f64], k: usize, few: usize) -> Vec<f64> {
    s.chunks_exact(k).flat_map(|s| &s[..few]).copied().collect()
}

impl SourceMixture {
    /// Fits a mixture to where `network` takes noisy rows, of which there are `of`; along fewer axes where it makes others
    /// less likely, and none if it still does.
    pub fn begin(
        config: &TrainConfig,
        gaussian: &Gaussian,
        network: &Icnn<f32>,
        (of, read): (usize, &ReadRows<'_>),
        hear: &mut dyn FnMut(f64) -> bool,
    ) -> Result<Option<Self>> {
        let Some(head) = network.gibbs() else { return Ok(None) };
        let axes = leading_axes(gaussian)?;
        let directions = head.directions(&axes)?;
        let k = directions.len() / head.dim();
        let components = MixtureFit::affordable(config.components, of);
        let rows: Vec<usize> = (0..of).step_by((of / (ROWS_EACH * components)).max(1)).collect();
        // A stream of its own: updates draw what they would without.
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        rng.set_stream(2);
        let (mut fitted, mut judged) = (Vec::new(), Vec::new());
        for rows in rows.chunks(BLOCK) {
            let y = DataRows::new(rows.to_vec(), head.dim(), &mut rng).read(config.sigma, read)?;
            let s = head.along(&directions, &super::inner::gradient(network, &y)?);
            for (i, s) in s.chunks_exact(k).enumerate() {
                if i % JUDGE == 0 { judged.extend(s) } else { fitted.extend(s) }
            }
        }
        let fit = MixtureFit { components, rounds: ROUNDS, seed: config.seed };
        // A triangle makes directions of axes, so that the first of them are those of the first axes.
        for few in SHARES.map(|share| k / share).into_iter().filter(|&few| few > 0) {
            let [s, judged] = [&fitted, &judged].map(|s| leading(s, k, few));
            let mixture = fit.fit(directions[..few * head.dim()].to_vec(), &s, few, hear)?;
            if mixture.gain(&judged).iter().sum::<f64>() > 0.0 {
                let (axes, follower) = (axes[..few * head.dim()].to_vec(), Follower::new(&mixture, &s)?);
                return Ok(Some(SourceMixture { axes, follower }));
            }
        }
        Ok(None)
    }

    /// From [`numbers`](Self::numbers), in dimension `d`.
    pub fn from_numbers([axes, moments]: [Vec<f64>; 2], d: usize) -> Result<Self> {
        let k = row_count(&axes, d)?;
        if k == 0 || k >= d {
            return Err(Error::Invalid(format!("the mixture of the source is along {k} of {d} directions")));
        }
        let follower = Follower::from_numbers(&moments, k)?;
        // Checks their numbers.
        follower.along(axes.clone())?;
        Ok(SourceMixture { axes, follower })
    }

    /// One that a network has.
    fn known(mixture: &Mixture) -> Result<Self> {
        let (axes, follower) = (mixture.rows().to_vec(), Follower::known(mixture)?);
        Ok(SourceMixture { axes, follower })
    }

    /// Axes and moments.
    pub fn numbers(&self) -> [Vec<f64>; 2] {
        [self.axes.clone(), self.follower.numbers()]
    }

    /// `network` with the mixture in its source.
    fn placed_in<T: Scalar>(&self, network: Icnn<T>) -> Result<Icnn<T>> {
        let Some(head) = network.gibbs() else { return Ok(network) };
        let mixture = self.follower.exported(head.directions(&self.axes)?)?;
        network.with_mixture(mixture.into())
    }

    /// What the mixture adds to V at x = ∇w(y) [n, d] and to its derivative in the head, whose Q^{-1} is `covariance`; the
    /// mixture then takes these rows in.
    ///
    /// With F = R^{-1} A, R R' = A Q^{-1} A', W = F Q^{-1} and Φ(B) the lower triangle of B with half its diagonal,
    /// ds = Φ(W dQ W') s - F da: so the derivative of a mean of c is W' Φ(mean ∂c/∂s s') W in Q and -F' mean ∂c/∂s in a.
    pub fn pull(&mut self, head: &HeadFactor, covariance: &Symmetric, image: &[f64]) -> Result<Pull> {
        let d = head.dim();
        check_len("the covariance of the head", covariance.dim(), d)?;
        let directions = HeadFactor::directions_within(covariance, &self.axes)?;
        let (k, n) = (directions.len() / d, image.len() / d);
        let s = head.along(&directions, image);
        let look = self.follower.follow(&s)?;
        let along = matmul(&look.slope, &directions, n, k, d);
        let cross = view(&look.slope, n, k).transpose() * view(&s, n, k);
        let triangle: Vec<f64> = (0..k * k)
            .map(|at| match (at / k, at % k) {
                (i, j) if i < j => 0.0,
                (i, j) => cross[(i, j)] / n as f64 * if i == j { 0.5 } else { 1.0 },
            })
            .collect();
        let reach = covariance.times(&directions)?;
        let half = matmul(&triangle, &reach, k, k, d);
        let columns = [&reach, &half].map(|a| view(a, k, d).transpose());
        let precision = match head.precision() {
            Symmetric::Full(_) => to_rows((columns[0] * view(&half, k, d)).as_ref()),
            Symmetric::Spiked(spiked) => {
                // Of Q = q I + U' diag(c) U: u' G u for each direction u, and the trace of G.
                let vectors = view(spiked.vectors(), spiked.values().len(), d);
                let [a, b] = columns.map(|columns| vectors * columns);
                let forms = (0..a.nrows()).map(|i| (0..k).map(|j| a[(i, j)] * b[(i, j)]).sum::<f64>());
                forms.chain([dot(&reach, &half)]).collect()
            }
        };
        let mut centre = vec![0.0; d];
        for along in along.chunks_exact(d) {
            centre.iter_mut().zip(along).for_each(|(c, a)| *c -= a / n as f64);
        }
        Ok(Pull { along, head: Slope { precision, centre } })
    }
}
