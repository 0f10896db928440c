//! Figures 4 and 13: five laws in the plane, learned from samples and by the baseline, with Sinkhorn box plots.

use cmf_core::icnn::{Architecture, GibbsFactor, Head};
use cmf_core::ops::Activation;
use cmf_core::train::{Method, TrainConfig};
use cmf_core::{Potential, Result};
use cmf_plugins::data::{self, Split};
use serde_json::json;

use super::gaussians::equal;
use super::learning::Learned;
use super::{Section, Settings, Table, Which, heat};
use crate::compare::{Comparison, Metric, moments};
use crate::plot::{Axes, BLUE, Figure, GREEN, GREY, Layer, ORANGE, Panel, pairs, range_of};
use crate::points::{add_noise, split_rows};
use crate::report::Report;
use crate::training_settings::{default_architecture, default_settings};

/// The laws of figure 4.
const LAWS: [&str; 5] =
    ["circles", "s-curve", "checkerboard", "scaled-rotated-s-curve", "diagonal-checkerboard"];
/// Points drawn in a panel.
const SHOWN: usize = 1500;
/// Standard deviation of the noise that is added to data, learned and measured with it.
const SIGMA: f64 = 0.05;
/// Updates of the quick plan, half of what `train` does: ten networks in ten minutes with all other figures.
const QUICK_UPDATES: usize = 2000;

/// How laws are learned and judged.
struct Plan {
    /// Of the conjugate moment measure; the baseline differs in its source alone.
    config: TrainConfig,
    /// Rows on each side of a Sinkhorn divergence; the full plan's are those of Vesseron and Cuturi (2024), in their code.
    rows: usize,
    /// Batches of samples that are compared with fresh data.
    batches: usize,
    /// Langevin steps of each sample.
    steps: usize,
}

impl Plan {
    /// The full plan has the paper's five hidden layers and ELU, with widths that it does not print and as many updates
    /// as a day allows; the quick one is what `train` does by itself, with half its updates.
    fn new(settings: &Settings) -> Result<Plan> {
        let quick = settings.quick;
        let architecture = match quick {
            true => default_architecture(&Method::Samples, 2)?,
            false => Architecture {
                dim: 2,
                widths: vec![128; 5],
                rank: 1,
                diagonal: true,
                activation: Activation::Elu,
                head: Head::Full,
                gibbs: GibbsFactor::Whole,
            },
        };
        let usual = default_settings(Method::Samples, architecture, SIGMA)?;
        let config = match quick {
            true => TrainConfig { updates: QUICK_UPDATES, seed: settings.seed, ..usual },
            false => {
                TrainConfig { updates: 100_000, batch: 1024, particles: 1024, seed: settings.seed, ..usual }
            }
        };
        let (rows, batches, steps) = if quick { (1024, 20, 300) } else { (2048, 20, 1000) };
        Ok(Plan { config, rows, batches, steps })
    }
}

/// What one method learned of a law.
struct Judged {
    learned: Learned,
    /// Draws of the source: [n, 2].
    source: Vec<f64>,
    /// What they are mapped to, where the solve converged: [m, 2].
    samples: Vec<f64>,
    /// Sinkhorn divergences of samples to data, and of data to data.
    divergences: Vec<f64>,
    floors: Vec<f64>,
    epsilon: f64,
}

/// Makes the section.
pub fn make(settings: &Settings, report: &Report) -> Result<Section> {
    let plan = Plan::new(settings)?;
    let mut pictures = Vec::new();
    let mut table = Table::new(
        format!(
            "Sinkhorn divergences of {} samples to as many data points, both with noise of {SIGMA}: mean and standard \
             deviation over batches. The floor is that of two batches of data.",
            plan.rows
        ),
        &["law", "method", "divergence", "deviation", "floor", "ratio", "epsilon", "left out", "seconds"],
    );
    for law in LAWS {
        let data = noisy_data(law, settings.seed)?;
        let [ours, baseline] = both(law, &plan, &data, settings, report)?;
        for (name, found) in [("conjugate moment measure", &ours), ("gaussian-icnn", &baseline)] {
            let ((mean, deviation), (floor, _)) = (moments(&found.divergences), moments(&found.floors));
            let seconds = found.learned.seconds;
            report.note(format!(
                "{law}, {name}: {seconds:.0} s, Sinkhorn divergence {mean:.4}, floor {floor:.4}"
            ));
            table.rows.push(vec![
                law.into(),
                name.into(),
                format!("{mean:.4}"),
                deviation.map_or("-".into(), |v| format!("{v:.4}")),
                format!("{floor:.4}"),
                format!("{:.2}", mean / floor),
                format!("{:.3}", found.epsilon),
                ((found.source.len() - found.samples.len()) / 2).to_string(),
                format!("{seconds:.0}"),
            ]);
        }
        pictures.push((
            format!("plane-{law}"),
            format!("{law}: data, samples, the Gibbs factor with its draws, and Sinkhorn divergences."),
            Figure {
                title: format!("In the plane: {law}"),
                panels: panels(&data, &ours, &baseline)?,
                columns: 5,
                panel_size: (340, 340),
            },
        ));
    }
    Ok(Section {
        which: Which::Plane,
        title: "Laws in the plane (figures 4 and 13)",
        text: vec![
            "One potential for each law, learned from its samples by maximum likelihood and CMFGen's objective together: as a \
             conjugate moment measure, and with the source N(0, I), the generative input-convex network of the same \
             architecture and settings. The paper learns by CMFGen alone, and for much longer."
                .into(),
            "Box plots show Sinkhorn divergences with cost |x - y|^2 and epsilon = 0.05 E|x - x'|^2. That of data to data \
             is the floor, below which nothing can be told apart."
                .into(),
        ],
        pictures,
        tables: vec![table],
        settings: json!({
            "rows": plan.rows,
            "batches": plan.batches,
            "langevin_steps": plan.steps,
            "training": plan.config,
            "seed": settings.seed,
        }),
    })
}

/// Held-out points with the noise that is learned: [n, 2].
fn noisy_data(law: &str, seed: u64) -> Result<Vec<f64>> {
    let fresh = data::open(law, None, seed.wrapping_add(1))?;
    let mut rows = split_rows(fresh.data.as_ref(), Split::Train)?;
    add_noise(&mut rows, SIGMA, seed.wrapping_add(2));
    Ok(rows)
}

/// The conjugate moment measure and the baseline, learned side by side: networks this small leave cores idle.
fn both(law: &str, plan: &Plan, fresh: &[f64], settings: &Settings, report: &Report) -> Result<[Judged; 2]> {
    let opened = data::open(law, None, settings.seed)?;
    let data = opened.data.as_ref();
    let bar = report.progress(2 * plan.config.updates, law);
    let judged = |method| -> Result<Judged> {
        let learned = Learned::from(data, TrainConfig { method, ..plan.config.clone() }, &bar)?;
        // Each batch has samples of its own: what batches share does not show in their spread.
        let (source, samples) = learned.draw(plan.rows * plan.batches, plan.steps, settings.seed)?;
        let comparison = Comparison {
            metrics: vec![Metric::Sinkhorn],
            rows: plan.rows,
            repeats: plan.batches,
            directions: 1,
            neighbours: 1,
            epsilon: None,
            seed: settings.seed,
        };
        let found = comparison.compare(&samples, fresh, 2, &|_| ())?;
        let (divergences, floors) = (found.figures[0].values.clone(), found.figures[0].floors.clone());
        let epsilon = found.epsilon.unwrap_or(0.0);
        Ok(Judged { learned, source, samples, divergences, floors, epsilon })
    };
    let (ours, baseline) = rayon::join(|| judged(Method::Samples), || judged(Method::GaussianIcnn));
    bar.finish_and_clear();
    Ok([ours?, baseline?])
}

fn panels(data: &[f64], ours: &Judged, baseline: &Judged) -> Result<Vec<Panel>> {
    let range = |x: &[f64]| {
        let ends = |k: usize| range_of(x.iter().skip(k).step_by(2).copied());
        equal(ends(0), ends(1), 1.0)
    };
    let axes = |title: &str, (x, y), layers| {
        let labels = (String::new(), String::new());
        Panel::Axes(Axes { title: title.into(), labels, x, y, categories: vec![], layers })
    };
    let dots = |p: &[f64], color, most: usize| Layer::Dots(pairs(&p[..p.len().min(2 * most)]), color, None);
    let (around, gibbs) = (range(data), range(&ours.source));
    let values = ours.divergences.iter().chain(&baseline.divergences).chain(&ours.floors).copied();
    let boxes = Axes {
        title: "Sinkhorn divergence".into(),
        labels: (String::new(), String::new()),
        x: (-0.5, 2.5),
        y: (0.0, range_of(values).1),
        categories: vec!["data".into(), "cmf".into(), "baseline".into()],
        layers: vec![
            Layer::Box(0.0, ours.floors.clone(), GREY),
            Layer::Box(1.0, ours.divergences.clone(), BLUE),
            Layer::Box(2.0, baseline.divergences.clone(), GREEN),
        ],
    };
    // e^{-w}, 1 where it is largest.
    let points = heat::points(gibbs);
    let mut density = vec![0.0; points.len() / 2];
    ours.learned.w.value_and_gradient(&points, &mut density, &mut vec![0.0; points.len()])?;
    let least = density.iter().copied().fold(f64::INFINITY, f64::min);
    density.iter_mut().for_each(|v| *v = (least - *v).exp());
    Ok(vec![
        axes("data", around, vec![dots(data, GREY, SHOWN)]),
        axes("samples", around, vec![dots(&ours.samples, BLUE, SHOWN)]),
        axes("baseline, from N(0, I)", around, vec![dots(&baseline.samples, GREEN, SHOWN)]),
        axes("Gibbs factor", gibbs, vec![heat::layer(density), dots(&ours.source, ORANGE, SHOWN / 5)]),
        Panel::Axes(boxes),
    ])
}
