//! Figures 4 and 13: CMFGen on five laws in the plane, with samples, Gibbs factors and Sinkhorn box plots.

use std::time::Instant;

use cmf_core::gibbs_start::GibbsStart;
use cmf_core::icnn::Architecture;
use cmf_core::ops::Activation;
use cmf_core::train::{TrainConfig, Trainer};
use cmf_core::{Potential, Result};
use cmf_plugins::data::{self, Split};
use serde_json::json;

use super::gaussians::equal;
use super::{Section, Settings, Table, Which};
use crate::commands::sample::converged;
use crate::compare::{Comparison, Metric, moments};
use crate::interrupt;
use crate::plot::{Axes, BLUE, Figure, GREY, Layer, ORANGE, Panel, pairs, range_of};
use crate::points::split_rows;
use crate::report::Report;
use crate::run_directory::gaussian;

/// The laws of figure 4.
const LAWS: [&str; 5] =
    ["circles", "s-curve", "checkerboard", "scaled-rotated-s-curve", "diagonal-checkerboard"];
/// Rows on each side of a Sinkhorn divergence (Vesseron and Cuturi, 2024, in their code).
const ROWS: usize = 2048;
/// Points drawn in a panel, and cells of the Gibbs factor's picture along a side.
const SHOWN: usize = 1500;
const CELLS: usize = 120;

/// How one law is learned and judged.
struct Plan {
    config: TrainConfig,
    /// Batches of samples, each compared with fresh data.
    seeds: usize,
    /// Langevin steps of each sample.
    steps: usize,
}

impl Plan {
    /// The paper's five hidden layers, ELU and a million updates, with widths, batches and step sizes that it does not print;
    /// or what two cores learn in a minute.
    fn new(settings: &Settings, law: &str) -> Plan {
        let quick = settings.quick;
        let batch = match (quick, law) {
            (true, _) => 256,
            (false, "checkerboard") => 4096,
            (false, _) => 1024,
        };
        let updates = if quick { 400 } else { 1_000_000 };
        let architecture = Architecture {
            dim: 2,
            widths: if quick { vec![256] } else { vec![128; 5] },
            rank: 1,
            diagonal: !quick,
            activation: if quick { Activation::Softplus { beta: 1.0 } } else { Activation::Elu },
        };
        let config = TrainConfig {
            architecture,
            sigma: 0.0,
            updates,
            conjugate_updates: updates,
            conjugate_weight: 0.0,
            amortise: false,
            batch,
            particles: batch,
            langevin_steps: 3,
            langevin_step: 0.3,
            conjugate_steps: if quick { 10 } else { 100 },
            solve_tolerance: 5e-3,
            solve_steps: 30,
            learning_rate: if quick { 2e-3 } else { 5e-4 },
            learning_rate_positive: if quick { 1e-2 } else { 3e-3 },
            learning_rate_head: if quick { 5e-4 } else { 1e-4 },
            final_rate: 0.02,
            warm_up: 20,
            betas: (0.9, 0.99),
            average: 0.99,
            seed: settings.seed,
        };
        Plan { config, seeds: if quick { 5 } else { 10 }, steps: if quick { 300 } else { 1000 } }
    }
}

/// What was learned of a law.
struct Learned {
    /// Data and samples: [n, 2].
    data: Vec<f64>,
    samples: Vec<f64>,
    /// Gibbs draws.
    gibbs: Vec<f64>,
    /// e^{-w} on a grid over the ranges.
    heat: Vec<f64>,
    heat_range: ((f64, f64), (f64, f64)),
    /// Sinkhorn divergences of samples to data, and of data to data.
    divergences: Vec<f64>,
    floors: Vec<f64>,
    epsilon: f64,
    unconverged: usize,
    seconds: f64,
}

/// Makes the section.
pub fn make(settings: &Settings, report: &Report) -> Result<Section> {
    let mut pictures = Vec::new();
    let mut table = Table::new(
        format!(
            "Sinkhorn divergences of {ROWS} samples to as many fresh data points: mean and standard deviation over seeds. \
             The floor is that of two batches of data."
        ),
        &[
            "law",
            "CMFGen",
            "deviation",
            "floor",
            "deviation",
            "ratio",
            "epsilon",
            "unconverged",
            "seconds of training",
        ],
    );
    for law in LAWS {
        let plan = Plan::new(settings, law);
        let learned = learn(law, &plan, settings, report)?;
        let (mean, deviation) = moments(&learned.divergences);
        let (floor, floor_deviation) = moments(&learned.floors);
        let or_none = |v: Option<f64>| v.map_or("-".into(), |v| format!("{v:.4}"));
        report.note(format!(
            "{law}: learned in {:.0} s, Sinkhorn divergence {mean:.4}, floor {floor:.4}",
            learned.seconds
        ));
        table.rows.push(vec![
            law.into(),
            format!("{mean:.4}"),
            or_none(deviation),
            format!("{floor:.4}"),
            or_none(floor_deviation),
            format!("{:.2}", mean / floor),
            format!("{:.3}", learned.epsilon),
            learned.unconverged.to_string(),
            format!("{:.1}", learned.seconds),
        ]);
        pictures.push((
            format!("plane-{law}"),
            format!(
                "{law}: data, samples, the Gibbs factor with its draws, and Sinkhorn divergences over seeds."
            ),
            Figure {
                title: format!("CMFGen: {law}"),
                panels: panels(&learned),
                columns: 4,
                panel_size: (370, 370),
            },
        ));
    }
    let plans: Vec<_> = LAWS.iter().map(|law| (law, Plan::new(settings, law))).collect();
    Ok(Section {
        which: Which::Plane,
        title: "CMFGen in the plane (figures 4 and 13)",
        text: vec![
            "One potential for each law, learned by CMFGen from its samples. Box plots show the Sinkhorn divergence of \
             independent batches, cost |x - y|^2 and epsilon = 0.05 E|x - x'|^2; the left one is that of data to data, \
             below which nothing can be told apart."
                .into(),
        ],
        pictures,
        tables: vec![table],
        settings: json!({
            "rows": ROWS,
            "seed": settings.seed,
            "laws": plans.iter().map(|(law, plan)| json!({
                "law": law,
                "seeds": plan.seeds,
                "langevin_steps": plan.steps,
                "training": plan.config,
            })).collect::<Vec<_>>(),
        }),
    })
}

fn learn(law: &str, plan: &Plan, settings: &Settings, report: &Report) -> Result<Learned> {
    let opened = data::open(law, None, settings.seed)?;
    let data = opened.data.as_ref();
    let mut trainer = Trainer::new(plan.config.clone(), &gaussian(data, plan.config.sigma)?)?;
    let rows = data.rows(Split::Train);
    let bar = report.progress(plan.config.updates, law);
    let clock = Instant::now();
    while trainer.updates_done() < plan.config.updates {
        interrupt::check()?;
        trainer.step(rows, |indices, out| {
            data.read(Split::Train, indices, out).map_err(cmf_plugins::core_error)
        })?;
        bar.set_position(trainer.updates_done() as u64);
    }
    let seconds = clock.elapsed().as_secs_f64();
    bar.finish_and_clear();

    let w = trainer.network()?;
    let start = GibbsStart::new(trainer.start())?;
    let number = plan.seeds * ROWS;
    let x = start.gibbs(&w, number, plan.steps, settings.seed, &mut |_, _| !interrupt::asked())?.state.x;
    let (samples, unconverged) = converged(&start.conjugate(&w, &x)?, 2);
    let comparison = Comparison {
        metrics: vec![Metric::Sinkhorn],
        rows: ROWS,
        repeats: 1,
        directions: 1,
        neighbours: 1,
        epsilon: None,
        seed: settings.seed,
    };
    let (mut divergences, mut floors, mut epsilon) = (Vec::new(), Vec::new(), 0.0);
    let mut shown = Vec::new();
    // A little less than ROWS where solves were left out.
    let batch = samples.len() / 2 / plan.seeds;
    for (k, batch) in samples.chunks_exact(2 * batch.max(1)).take(plan.seeds).enumerate() {
        let fresh = data::open(law, None, settings.seed.wrapping_add(1 + k as u64))?;
        shown = split_rows(fresh.data.as_ref(), Split::HeldOut)?;
        let found = comparison.compare(batch, &shown, 2, &|_| ())?;
        divergences.extend(&found.figures[0].values);
        floors.extend(&found.figures[0].floors);
        epsilon += found.epsilon.unwrap_or(0.0) / plan.seeds as f64;
    }
    let (first, second) =
        (|x: &[f64]| pairs(x).into_iter().map(|p| p.0), |x: &[f64]| pairs(x).into_iter().map(|p| p.1));
    let heat_range = equal(range_of(first(&x)), range_of(second(&x)), 1.0);
    Ok(Learned {
        data: shown,
        heat: heat(&w, heat_range)?,
        heat_range,
        gibbs: x,
        samples,
        divergences,
        floors,
        epsilon,
        unconverged,
        seconds,
    })
}

/// e^{-w}, 1 where it is largest, at the centres of a grid: [CELLS, CELLS].
fn heat(w: &dyn Potential, ((left, right), (low, high)): ((f64, f64), (f64, f64))) -> Result<Vec<f64>> {
    let at = |k: usize, (from, to): (f64, f64)| from + (to - from) * (k as f64 + 0.5) / CELLS as f64;
    let points: Vec<f64> =
        (0..CELLS * CELLS).flat_map(|i| [at(i % CELLS, (left, right)), at(i / CELLS, (low, high))]).collect();
    let (mut value, mut gradient) = (vec![0.0; CELLS * CELLS], vec![0.0; 2 * CELLS * CELLS]);
    w.value_and_gradient(&points, &mut value, &mut gradient)?;
    let least = value.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(value.into_iter().map(|v| (least - v).exp()).collect())
}

fn panels(l: &Learned) -> Vec<Panel> {
    let both = || pairs(&l.data).into_iter().chain(pairs(&l.samples));
    let (x, y) = equal(range_of(both().map(|p| p.0)), range_of(both().map(|p| p.1)), 1.0);
    let axes = |title: &str, x, y, layers| {
        Panel::Axes(Axes {
            title: title.into(),
            labels: (String::new(), String::new()),
            x,
            y,
            categories: vec![],
            layers,
        })
    };
    let dots = |p: &[f64], color, most: usize| Layer::Dots(pairs(&p[..p.len().min(2 * most)]), color, None);
    let values = || l.divergences.iter().chain(&l.floors).copied();
    let boxes = Axes {
        title: "Sinkhorn divergence".into(),
        labels: (String::new(), String::new()),
        x: (-0.5, 1.5),
        y: (0.0, range_of(values()).1),
        categories: vec!["data".into(), "CMFGen".into()],
        layers: vec![Layer::Box(0.0, l.floors.clone(), GREY), Layer::Box(1.0, l.divergences.clone(), BLUE)],
    };
    vec![
        axes("data", x, y, vec![dots(&l.data, GREY, SHOWN)]),
        axes("samples", x, y, vec![dots(&l.samples, BLUE, SHOWN)]),
        axes(
            "Gibbs factor",
            l.heat_range.0,
            l.heat_range.1,
            vec![Layer::Heat { columns: CELLS, values: l.heat.clone() }, dots(&l.gibbs, ORANGE, SHOWN / 5)],
        ),
        Panel::Axes(boxes),
    ]
}
