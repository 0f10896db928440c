//! The mixtures of a trained model: in its Gibbs factor, and of the data, where completions start.

use std::sync::Arc;

use cmf_core::Result;
use cmf_core::gaussian::Gaussian;
use cmf_core::head_factor::HeadFactor;
use cmf_core::mixture::{Mixture, MixtureFit};
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

/// The mixture of up to `components` Gaussians of the run's settings that takes the place of `law` along the leading
/// directions of the data, for noisy rows that went through `map`; `what` names these.
///
/// None where there are too few rows for two components, or none held out, or where it makes those less likely.
pub fn fitted(
    run: &Run,
    what: &str,
    law: &HeadFactor,
    map: Map,
    report: &Report,
) -> Result<Option<Arc<Mixture>>> {
    let Some(data) = run.lesson.data() else { return Ok(None) };
    let config = run.trainer.config();
    let components = config.components.min(data.rows(Split::Train) / ROWS_EACH);
    if components < 2 {
        return Ok(None);
    }
    let covariance = run.trainer.start().gaussian()?.covariance;
    let d = covariance.dim();
    let directions = law.directions(&covariance.spectrum()?.leading(DIRECTIONS.min(d - 1)))?;
    let k = directions.len() / d;
    let bar = report.progress(1000, what);
    let along = |split| coordinates(run, data, split, map, |x| law.along(&directions, x));
    let fit = MixtureFit { components, rounds: ROUNDS, seed: config.seed };
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

/// The data's Gaussian as the law that a mixture takes a part of.
pub fn law_of(data: &Gaussian) -> Result<HeadFactor> {
    HeadFactor::new(data.covariance.inverse("the data covariance")?, data.mean.clone())
}

/// `along` of the noisy rows of a split, each block through `map`: [n, k].
fn coordinates(
    run: &Run,
    data: &dyn DataSet,
    split: Split,
    map: Map,
    along: impl Fn(&[f64]) -> Vec<f64>,
) -> Result<Vec<f64>> {
    let (n, d) = (data.rows(split), data.shape().dim());
    let config = run.trainer.config();
    let rows: Vec<usize> = (0..n).step_by(n.div_ceil(MOST_ROWS).max(1)).collect();
    let mut all = Vec::new();
    for (block, rows) in rows.chunks(BLOCK).enumerate() {
        let mut y = vec![0.0; rows.len() * d];
        data.read(split, rows, &mut y).map_err(cmf_plugins::core_error)?;
        add_noise(&mut y, config.sigma, config.seed.wrapping_add((block * BLOCK) as u64));
        all.extend(along(&map(y)?));
    }
    Ok(all)
}
