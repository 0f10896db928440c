//! Networks that learn digits for figure 5: both methods with the same settings.

use cmf_core::density::without_noise;
use cmf_core::icnn::{Architecture, GibbsFactor, Head};
use cmf_core::ops::Activation;
use cmf_core::train::{Method, TrainConfig};
use cmf_core::{Potential, Result};
use cmf_plugins::data;

use super::Settings;
use super::digits::Other;
use super::learning::Learned;
use crate::report::Report;
use crate::training_settings::default_settings;

/// How they learn, but for the method.
pub fn config(settings: &Settings) -> Result<TrainConfig> {
    let architecture = Architecture {
        dim: 28 * 28,
        widths: if settings.quick { vec![256] } else { vec![768, 256] },
        rank: 1,
        diagonal: false,
        activation: Activation::Softplus { beta: 1.0 },
        head: Head::Full,
        gibbs: GibbsFactor::Whole,
    };
    let usual = default_settings(Method::Samples, architecture, 0.1)?;
    Ok(TrainConfig { updates: if settings.quick { 200 } else { 5000 }, seed: settings.seed, ..usual })
}

/// Samples of both, with the learned noise removed.
pub fn learned(settings: &Settings, number: usize, steps: usize, report: &Report) -> Result<Vec<Other>> {
    let opened = data::open("mnist", Some(&settings.mnist), 0)?;
    let config = config(settings)?;
    let methods = [(Method::Samples, "conjugate moment measure"), (Method::GaussianIcnn, "gaussian-icnn")];
    let bar = report.progress(methods.len() * config.updates, "learning");
    let mut others = Vec::new();
    for (method, name) in methods {
        let source = method.source();
        let learned = Learned::from(opened.data.as_ref(), TrainConfig { method, ..config.clone() }, &bar)?;
        let (_, noisy) = learned.draw(number, steps, settings.seed)?;
        let samples = without_noise(&learned.w, source, &noisy, config.sigma)?;
        others.push(Other {
            name: format!("{name}, {} updates, {:.0} s", config.updates, learned.seconds),
            unconverged: number - samples.len() / learned.w.dim(),
            samples,
        });
    }
    bar.finish_and_clear();
    Ok(others)
}
