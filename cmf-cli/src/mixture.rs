//! The mixtures of a trained model: in its Gibbs factor, and of the data, where completions start.

use std::sync::Arc;

use cmf_core::gaussian::Gaussian;
use cmf_core::head_factor::HeadFactor;
use cmf_core::icnn::Icnn;
use cmf_core::mixture::{Mixture, MixtureFit};
use cmf_core::{Potential, Result};
use cmf_plugins::data::{DataSet, Split};

use crate::interrupt;
use crate::points::add_noise;
use crate::report::Report;
use crate::run_directory::Run;

/// Leading directions of the data along which a mixture is.
///
/// Of digits' x = ∇w(y), 60,000 rows, mixtures of 40 along 20, 50 and 100 directions add 4, 9.4 and 9.8 nats to 10,000
/// others'.
const DIRECTIONS: usize = 50;
/// Training rows that a component needs.
const ROWS_EACH: usize = 500;
/// Most rounds of expectation-maximisation.
const ROUNDS: usize = 40;
/// Most rows of a split that are looked at, evenly spread: with 100 components some 150 MB.
const MOST_ROWS: usize = 100_000;
/// Rows that are read and mapped at a time.
const BLOCK: usize = 4096;

/// What is done to rows [n, d] before a mixture is fitted to them.
type Map<'a> = &'a dyn Fn(Vec<f64>) -> Result<Vec<f64>>;

/// `network` with a mixture in the Gibbs factor of its head, if it has one and a mixture fits better, and then with it one of
/// the data, whose Gaussian is `gaussian`.
///
/// None where there are too few rows for two components, or none held out, or where a mixture makes those less likely.
pub fn with_mixtures(
    run: &Run,
    network: Icnn<f32>,
    gaussian: &Gaussian,
    report: &Report,
) -> Result<(Icnn<f32>, Option<Arc<Mixture>>)> {
    let (Some(data), Some(head)) = (run.lesson.data(), network.gibbs()) else { return Ok((network, None)) };
    let components = run.trainer.config().components.min(data.rows(Split::Train) / ROWS_EACH);
    if components < 2 {
        return Ok((network, None));
    }
    let axes = gaussian.covariance.spectrum()?.leading(DIRECTIONS.min(network.dim() - 1));
    let fitting = Fitting { run, data, components, axes, report };
    let map = |y: Vec<f64>| {
        let mut x = vec![0.0; y.len()];
        network.value_and_gradient(&y, &mut vec![0.0; y.len() / network.dim()], &mut x)?;
        Ok(x)
    };
    let Some(of_source) = fitting.fitted("source", head, &map)? else { return Ok((network, None)) };
    // The data's Gaussian as the law that a mixture takes a part of.
    let precision = gaussian.covariance.inverse("the data covariance")?;
    let of_data = fitting.fitted("data", &HeadFactor::new(precision, gaussian.mean.clone())?, &Ok)?;
    Ok((network.with_mixture(of_source)?, of_data))
}

/// What both mixtures are fitted with.
struct Fitting<'a> {
    run: &'a Run,
    data: &'a dyn DataSet,
    components: usize,
    /// Leading directions of the data: [k, d].
    axes: Vec<f64>,
    report: &'a Report,
}

impl Fitting<'_> {
    /// The mixture that takes the place of `law` along the axes, for noisy rows that went through `map`; `what` names these.
    fn fitted(&self, what: &str, law: &HeadFactor, map: Map) -> Result<Option<Arc<Mixture>>> {
        let Fitting { components, report, .. } = self;
        let directions = law.directions(&self.axes)?;
        let k = directions.len() / law.dim();
        let bar = report.progress(1000, what);
        let along = |split| self.coordinates(split, map, |x| law.along(&directions, x));
        let seed = self.run.trainer.config().seed;
        let fit = MixtureFit { components: *components, rounds: ROUNDS, seed };
        let mixture = fit.fit(directions.clone(), &along(Split::Train)?, k, &mut |share| {
            bar.set_position((1000.0 * share) as u64);
            !interrupt::asked()
        })?;
        bar.finish_and_clear();
        let gains = mixture.gain(&along(Split::HeldOut)?);
        if gains.is_empty() {
            report.note(format!("{what}: no held-out rows to try a mixture on, so it stays one Gaussian"));
            return Ok(None);
        }
        let gain = gains.iter().sum::<f64>() / gains.len() as f64;
        report.note(format!(
            "{what}: a mixture of {components} Gaussians along {k} directions gives a held-out row {gain:+.2} nats{}",
            if gain > 0.0 { "" } else { ", so it stays one Gaussian" }
        ));
        Ok((gain > 0.0).then(|| Arc::new(mixture)))
    }

    /// `along` of the noisy rows of a split, each block through `map`: [n, k].
    fn coordinates(&self, split: Split, map: Map, along: impl Fn(&[f64]) -> Vec<f64>) -> Result<Vec<f64>> {
        let (n, d) = (self.data.rows(split), self.data.shape().dim());
        let config = self.run.trainer.config();
        let rows: Vec<usize> = (0..n).step_by(n.div_ceil(MOST_ROWS).max(1)).collect();
        let mut all = Vec::new();
        for (block, rows) in rows.chunks(BLOCK).enumerate() {
            let mut y = vec![0.0; rows.len() * d];
            self.data.read(split, rows, &mut y).map_err(cmf_plugins::core_error)?;
            add_noise(&mut y, config.sigma, config.seed.wrapping_add((block * BLOCK) as u64));
            all.extend(along(&map(y)?));
        }
        Ok(all)
    }
}
