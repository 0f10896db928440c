//! Figures 3 and 12: densities learned from energies in the plane, beside the true ones.

use std::time::Instant;

use cmf_core::density::exact_log_density;
use cmf_core::draws;
use cmf_core::energy::{self, Domain};
use cmf_core::icnn::{Architecture, GibbsFactor, Head};
use cmf_core::normaliser::AnnealedImportance;
use cmf_core::ops::Activation;
use cmf_core::train::{Method, TrainConfig, Trainer, Training};
use cmf_core::{Error, Potential, Result, Source};
use serde_json::json;

use super::{Section, Settings, Table, Which, heat};
use crate::energy_spec::EnergySpec;
use crate::interrupt;
use crate::plot::{Axes, Figure, Layer, ORANGE, Panel, pairs};
use crate::report::Report;
use crate::training_settings::default_settings;

/// The paper names its three energies no further than as benchmarks of optimisation in the plane; these are ours.
const ENERGIES: [&str; 3] = ["himmelblau", "three-hump-camel", "styblinski-tang"];
/// Share of the mass in which densities are compared: the smallest region that holds it.
const BULK: f64 = 0.95;
/// Samples drawn in a panel.
const SHOWN: usize = 1000;
/// Langevin steps of each.
const STEPS: usize = 300;

/// What was learned of an energy.
struct Learned {
    around: heat::Ranges,
    /// Densities at the cells of the picture.
    truth: Vec<f64>,
    model: Vec<f64>,
    samples: Vec<f64>,
    /// Mean of |log ρ_w - log ρ| over the bulk, in nats.
    error: f64,
    seconds: f64,
}

/// Makes the section.
pub fn make(settings: &Settings, report: &Report) -> Result<Section> {
    let architecture = Architecture {
        dim: 2,
        widths: vec![if settings.quick { 64 } else { 128 }],
        rank: 1,
        diagonal: false,
        activation: Activation::Softplus { beta: 1.0 },
        head: Head::Full,
        gibbs: GibbsFactor::Whole,
    };
    let updates = if settings.quick { 300 } else { 1500 };
    let mut pictures = Vec::new();
    let mut table = Table::new(
        format!(
            "Mean absolute error of the log-density, normaliser included, over the cells of the smallest region that holds \
             {BULK} of the mass; the truth is normalised by the midpoint rule on the picture's cells."
        ),
        &["energy", "error, nats", "seconds"],
    );
    for name in ENERGIES {
        let learned = learn(name, &architecture, updates, settings, report)?;
        report.note(format!("{name}: {:.0} s, {:.4} nats", learned.seconds, learned.error));
        table.rows.push(vec![
            name.into(),
            format!("{:.4}", learned.error),
            format!("{:.0}", learned.seconds),
        ]);
        let axes = |title: &str, layers| {
            let (x, y) = learned.around;
            let labels = (String::new(), String::new());
            Panel::Axes(Axes { title: title.into(), labels, x, y, categories: vec![], layers })
        };
        pictures.push((
            format!("energy-{name}"),
            format!("{name}: the true density, the learned one, and samples of the latter."),
            Figure {
                title: format!("From an energy: {name}"),
                panels: vec![
                    axes("true density", vec![heat::layer(learned.truth.clone())]),
                    axes("learned density", vec![heat::layer(learned.model.clone())]),
                    axes("samples", vec![Layer::Dots(pairs(&learned.samples), ORANGE, None)]),
                ],
                columns: 3,
                panel_size: (370, 370),
            },
        ));
    }
    Ok(Section {
        which: Which::Energies,
        title: "Densities from energies (figures 3 and 12)",
        text: vec![
            "Each potential is learned from an energy alone, by regression on the Monge-Ampère equation (CMFMA). The paper \
             does not print its energies."
                .into(),
        ],
        pictures,
        tables: vec![table],
        settings: json!({
            "energies": ENERGIES,
            "architecture": architecture,
            "updates": updates,
            "langevin_steps": STEPS,
            "seed": settings.seed,
        }),
    })
}

fn learn(
    name: &str,
    architecture: &Architecture,
    updates: usize,
    settings: &Settings,
    report: &Report,
) -> Result<Learned> {
    let opened = name.parse::<EnergySpec>().map_err(Error::Invalid)?.open()?;
    let (target, domain) = (&opened.energy, &opened.domain);
    let clock = Instant::now();
    let survey = energy::survey(target, domain, settings.seed, &mut |_| !interrupt::asked())?;
    let method = Method::Energy { domain: domain.clone(), least_squares: true };
    let usual = default_settings(method, architecture.clone(), 0.0)?;
    let config = TrainConfig { updates, seed: settings.seed, ..usual };
    let mut trainer = Trainer::new(config, &survey.gaussian)?;
    let bar = report.progress(updates, name);
    while trainer.updates_done() < updates {
        interrupt::check()?;
        trainer.step_on_energy(target)?;
        bar.set_position(trainer.updates_done() as u64);
    }
    bar.finish_and_clear();
    let seconds = clock.elapsed().as_secs_f64();

    let w = trainer.network()?;
    let sampler = AnnealedImportance { seed: settings.seed, ..AnnealedImportance::default() };
    let log_z = sampler.log_z(&w, trainer.start(), &mut |_| !interrupt::asked())?.value;
    let around = ranges(domain);
    let points = heat::points(around);
    let model = exact_log_density(&w.cast::<f64>()?, log_z, &points)?.value;
    let mut truth = vec![0.0; model.len()];
    target.value_and_gradient(&points, &mut truth, &mut vec![0.0; points.len()])?;
    let log_cell = heat::cell(around).ln();
    let log_mass = truth.iter().map(|e| (log_cell - e).exp()).sum::<f64>().ln();
    truth.iter_mut().for_each(|e| *e = -*e - log_mass);

    let go_on = &mut |_| !interrupt::asked();
    let draws = draws::samples(&w, &survey.gaussian, Source::Gibbs, SHOWN, STEPS, settings.seed, go_on)?;
    let samples = draws.solution.converged();
    let error = bulk_error(&truth, &model, log_cell);
    let density = |log: Vec<f64>| log.into_iter().map(f64::exp).collect();
    Ok(Learned { around, truth: density(truth), model: density(model), samples, error, seconds })
}

fn ranges(domain: &Domain) -> heat::Ranges {
    ((domain.low[0], domain.high[0]), (domain.low[1], domain.high[1]))
}

/// The mean of |model - truth| over the cells of highest true density that hold the bulk.
fn bulk_error(truth: &[f64], model: &[f64], log_cell: f64) -> f64 {
    let mut order: Vec<usize> = (0..truth.len()).collect();
    order.sort_by(|&a, &b| truth[b].total_cmp(&truth[a]));
    let (mut mass, mut sum, mut cells) = (0.0, 0.0, 0.0);
    for i in order {
        mass += (truth[i] + log_cell).exp();
        sum += (model[i] - truth[i]).abs();
        cells += 1.0;
        if mass >= BULK {
            break;
        }
    }
    sum / cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bulk_leaves_out_the_tail() {
        // Two cells of mass 0.48 each, and a tail of 0.04 that the model misses.
        let truth = [0.48f64.ln(), 0.04f64.ln(), 0.48f64.ln()];
        let model = [truth[0] + 0.1, -50.0, truth[2] - 0.3];
        assert!((bulk_error(&truth, &model, 0.0) - 0.2).abs() < 1e-12);
    }
}
