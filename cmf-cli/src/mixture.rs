//! The mixture of the data of a trained model, where completions start.

use std::sync::Arc;

use cmf_core::gaussian::Gaussian;
use cmf_core::head_factor::HeadFactor;
use cmf_core::icnn::Icnn;
use cmf_core::mixture::{Mixture, MixtureFit, leading_axes};
use cmf_core::{Potential, Result};
use cmf_plugins::data::{DataSet, Split};

use crate::interrupt;
use crate::points::add_noise;
use crate::report::Report;
use crate::run_directory::Run;

/// Most rounds of expectation-maximisation.
const ROUNDS: usize = 40;
/// Most rows of a split that are looked at, evenly spread: with 100 components along 100 directions some 250 MB.
const MOST_ROWS: usize = 100_000;
/// Rows that are read and mapped at a time.
const BLOCK: usize = 4096;

/// The mixture of the data of `run`, whose Gaussian is `gaussian`, for completions of `network` to start from, if its source
/// has one, along as many directions; says what each adds to the log-density of held-out rows.
///
/// None where rows are too few, or none are held out, or where a mixture makes those less likely.
pub fn mixture_of_data(
    run: &Run,
    network: &Icnn<f32>,
    gaussian: &Gaussian,
    report: &Report,
) -> Result<Option<Arc<Mixture>>> {
    let (Some(data), Some(head)) = (run.lesson.data(), network.gibbs()) else { return Ok(None) };
    let components = MixtureFit::affordable(run.trainer.config().components, data.rows(Split::Train));
    let Some(of_source) = head.mixture() else {
        if components > 1 {
            report.note(
                "source: one Gaussian; no mixture was tried yet, or it made others than the rows of its fit less likely",
            );
        }
        return Ok(None);
    };
    if data.rows(Split::HeldOut) == 0 {
        report.note("data: no rows are held out to try a mixture on, so completions start from one Gaussian");
        return Ok(None);
    }
    let rows = Rows { run, data };
    let gains = rows.each(Split::HeldOut, &|y| {
        let mut x = vec![0.0; y.len()];
        network.value_and_gradient(y, &mut vec![0.0; y.len() / network.dim()], &mut x)?;
        Ok(head.gain(&x))
    });
    if note_gain(report, "source", of_source, &gains?) <= 0.0 {
        report.warn("the mixture in the source makes held-out rows less likely; fewer --components may not");
    }
    // Few rows go on with the mixture of an --init file.
    if components < 2 {
        report.note("data: too few rows for a mixture of them, so completions start from one Gaussian");
        return Ok(None);
    }

    // The data's Gaussian as the law that a mixture takes a part of.
    let law = HeadFactor::new(gaussian.covariance.inverse("the data covariance")?, gaussian.mean.clone())?;
    let mut axes = leading_axes(gaussian)?;
    axes.truncate(of_source.directions() * law.dim());
    let k = axes.len() / law.dim();
    let directions = law.directions(&axes)?;
    let s = rows.each(Split::Train, &|y| Ok(law.along(&directions, y)))?;
    let bar = report.progress(1000, "mixture");
    let fit = MixtureFit { components, rounds: ROUNDS, seed: run.trainer.config().seed };
    let mixture = fit.fit(directions, &s, k, &mut |share| {
        bar.set_position((1000.0 * share) as u64);
        !interrupt::asked()
    })?;
    bar.finish_and_clear();
    let mixture = Arc::new(mixture);
    let law = law.with_mixture(mixture.clone())?;
    let gain = note_gain(report, "data", &mixture, &rows.each(Split::HeldOut, &|y| Ok(law.gain(y)))?);
    if gain > 0.0 {
        return Ok(Some(mixture));
    }
    report.note("data: so completions start from one Gaussian");
    Ok(None)
}

/// Says what `mixture` adds to the log-densities of held-out rows, and returns its mean, in nats.
fn note_gain(report: &Report, what: &str, mixture: &Mixture, gains: &[f64]) -> f64 {
    let (count, k) = (mixture.len(), mixture.directions());
    let mean = gains.iter().sum::<f64>() / gains.len() as f64;
    report.note(format!(
        "{what}: a mixture of {count} Gaussians along {k} directions gives a held-out row {mean:+.2} nats"
    ));
    mean
}

/// The rows of a run's data.
struct Rows<'a> {
    run: &'a Run,
    data: &'a dyn DataSet,
}

impl Rows<'_> {
    /// What `map` makes of the noisy rows of a split, [n, d] a block at a time, one after the other.
    fn each(&self, split: Split, map: &dyn Fn(&[f64]) -> Result<Vec<f64>>) -> Result<Vec<f64>> {
        let (n, d) = (self.data.rows(split), self.data.shape().dim());
        let config = self.run.trainer.config();
        let rows: Vec<usize> = (0..n).step_by(n.div_ceil(MOST_ROWS).max(1)).collect();
        let mut all = Vec::new();
        for (block, rows) in rows.chunks(BLOCK).enumerate() {
            let mut y = vec![0.0; rows.len() * d];
            self.data.read(split, rows, &mut y).map_err(cmf_plugins::core_error)?;
            add_noise(&mut y, config.sigma, config.seed.wrapping_add((block * BLOCK) as u64));
            all.extend(map(&y)?);
        }
        Ok(all)
    }
}
