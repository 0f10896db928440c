//! Figures 5, 7 and 16: what the MNIST model generates, and how it completes half digits.

use cmf_core::Result;
use cmf_core::conjugate::ConjugateSolver;
use cmf_core::gibbs_start::GibbsStart;
use cmf_core::inpaint::Mode;
use cmf_plugins::data::{self, Split};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

#[cfg(feature = "train")]
use super::digit_methods;
use super::{Section, Settings, Table, Which};
use crate::compare::{Comparison, Metric};
use crate::completion::{Estimate, Painter, Request};
use crate::drawing::{Drawing, Noise};
use crate::grid::Problem;
use crate::interrupt;
use crate::model::Model;
use crate::pictures::grid_of;
use crate::plot::{Figure, Panel};
use crate::points::split_rows;
use crate::report::Report;

/// Digits in a row of a grid.
const COLUMNS: usize = 8;

fn held_out(settings: &Settings) -> Result<Vec<f64>> {
    let opened = data::open("mnist", Some(&settings.mnist), 0)?;
    split_rows(opened.data.as_ref(), Split::HeldOut)
}

/// What generates digits in the figure beside the model.
pub struct Other {
    pub name: String,
    /// [n, d].
    pub samples: Vec<f64>,
    /// How many transport solves did not converge.
    pub unconverged: usize,
}

/// Samples beside data, beside the baseline and a conjugate moment measure learned as long as that, and beside the
/// Gaussian of the same mean and covariance.
pub fn samples(settings: &Settings, report: &Report) -> Result<Section> {
    let model = Model::open(&settings.model, &settings.engine, report)?;
    let grid = model.require_grid(&settings.model)?;
    let d = model.dim();
    let data = held_out(settings)?;
    let (number, steps) = if settings.quick { (64, 600) } else { (1000, 2000) };
    let drawing = Drawing { number, steps, noise: Noise::Remove, seed: settings.seed };
    let drawn = drawing.draw(&model, report)?;
    let mut others = Vec::new();
    #[cfg(feature = "train")]
    others.extend(digit_methods::learned(settings, number, steps, report)?);
    others.push({
        let start = GibbsStart::new(&model.gaussian.quadratic_start()?)?;
        let draws = start.draws(number, &mut ChaCha8Rng::seed_from_u64(settings.seed))?;
        Other { name: "Gaussian".into(), samples: start.map(&draws)?, unconverged: 0 }
    });
    let shown = COLUMNS * COLUMNS * d;
    let cut = |x: &[f64]| grid_of(&grid, &x[..x.len().min(shown)], Some(COLUMNS));
    let comparison = Comparison {
        metrics: vec![Metric::Sinkhorn, Metric::PrecisionRecall],
        rows: number,
        repeats: if settings.quick { 3 } else { 10 },
        directions: 1,
        neighbours: 3,
        epsilon: None,
        seed: settings.seed,
    };
    let mut table = Table::new(
        "Distances to held-out digits: mean over repeats. The floor is that of two batches of held-out digits. The \
         Gaussian has the mean and covariance of the model's data.",
        &["samples of", "figure", "mean", "floor", "rows", "repeats", "left out"],
    );
    let rows_of = |name: &str, samples: &[f64], left_out: usize| -> Result<Vec<Vec<String>>> {
        let found = comparison.compare(samples, &data, d, &|_| ())?;
        let row = |f: &crate::compare::Figure| {
            vec![
                name.into(),
                f.name.into(),
                format!("{:.3}", f.mean),
                format!("{:.3}", f.floor_mean),
                found.rows.to_string(),
                found.repeats.to_string(),
                left_out.to_string(),
            ]
        };
        Ok(found.figures.iter().map(row).collect())
    };
    table.rows = rows_of("the model", &drawn.y, drawn.unconverged)?;
    for other in &others {
        table.rows.extend(rows_of(&other.name, &other.samples, other.unconverged)?);
    }
    let mut panels = vec![
        Panel::Picture("held-out digits".into(), cut(&data)),
        Panel::Picture("samples of the model".into(), cut(&drawn.y)),
    ];
    panels.extend(others.iter().map(|o| Panel::Picture(o.name.clone(), cut(&o.samples))));
    #[cfg_attr(not(feature = "train"), expect(unused_mut))]
    let mut about = json!({
        "model": settings.model,
        "mnist": settings.mnist,
        "samples": number,
        "langevin_steps": drawn.chains.as_ref().map(|_| steps),
        "transport_tolerance": ConjugateSolver::default().tolerance,
        "seed": settings.seed,
    });
    #[cfg(feature = "train")]
    {
        about["comparison"] = json!(digit_methods::config(settings)?);
    }
    Ok(Section {
        which: Which::Digits,
        title: "MNIST samples (figure 5)",
        text: vec![
            format!(
                "Draws of the source, mapped by the convex solve, with the learned noise of {} removed; {} of {number} \
                 solves did not converge and are left out. The source: {}.",
                model.metadata.sigma,
                drawn.unconverged,
                drawn.how()
            ),
            "The model file was learned for longer. To compare methods, a conjugate moment measure and the baseline, whose \
             source is N(0, I), are learned here with the same settings by maximum likelihood, from the training digits of \
             --mnist. The Gaussian is where training starts."
                .into(),
        ],
        pictures: vec![(
            "digits".into(),
            "Held-out digits, samples of the model, of networks learned for the comparison, and of the Gaussian.".into(),
            Figure {
                title: "MNIST".into(),
                panels,
                columns: 3,
                panel_size: (500, 530),
            },
        )],
        tables: vec![table],
        settings: about,
    })
}

/// A half that is hidden.
struct Half {
    name: &'static str,
    stem: &'static str,
    hides: fn(row: usize, column: usize) -> bool,
}

const HALVES: [Half; 2] = [
    Half { name: "lower half hidden", stem: "lower", hides: |row, _| row >= 14 },
    Half { name: "left half hidden", stem: "left", hides: |_, column| column < 14 },
];

/// Half digits completed, beside the conditional Gaussian mean.
pub fn completions(settings: &Settings, report: &Report) -> Result<Section> {
    let painter = Painter::open(&settings.model, &settings.engine, report)?;
    let (grid, d) = (painter.grid.clone(), painter.model.dim());
    let data = held_out(settings)?;
    let number = (if settings.quick { COLUMNS } else { 4 * COLUMNS }).min(data.len() / d);
    let mut pictures = Vec::new();
    let mut table = Table::new(
        "Mean squared error in the hidden half, pixels in [0, 1].",
        &["hole", "digits", "model, mode", "conditional Gaussian mean"],
    );
    let bar = report.progress(HALVES.len() * number, "completing");
    for half in HALVES {
        let hidden: Vec<usize> = (0..d).filter(|i| (half.hides)(i / grid.width, i % grid.width)).collect();
        let mut rows: [Vec<f64>; 4] = Default::default();
        let mut errors = [0.0; 2];
        for (k, digit) in data.chunks_exact(d).take(number).enumerate() {
            interrupt::check()?;
            let problem = Problem { row: digit.to_vec(), hidden: hidden.clone() };
            let request = Request {
                estimate: Estimate::Mode,
                samples: 0,
                search: Mode { seed: settings.seed.wrapping_add(k as u64), ..Mode::default() },
            };
            let completed = painter.complete(&problem, request, &|_| !interrupt::asked())?;
            let conditional = painter.model.gaussian.conditional(digit, &hidden)?.mean;
            let (mut seen, mut mode, mut mean) = (digit.to_vec(), digit.to_vec(), digit.to_vec());
            for (j, &i) in hidden.iter().enumerate() {
                seen[i] = grid.low + 0.35 * (grid.high - grid.low);
                mode[i] = completed.estimate[i].clamp(grid.low, grid.high);
                mean[i] = conditional[j].clamp(grid.low, grid.high);
                let weight = 1.0 / (number * hidden.len()) as f64;
                errors[0] += weight * (mode[i] - digit[i]).powi(2);
                errors[1] += weight * (mean[i] - digit[i]).powi(2);
            }
            for (all, row) in rows.iter_mut().zip([seen, mode, mean, digit.to_vec()]) {
                all.extend(row);
            }
            bar.inc(1);
        }
        table.rows.push(vec![
            half.name.into(),
            number.to_string(),
            format!("{:.4}", errors[0]),
            format!("{:.4}", errors[1]),
        ]);
        let titles = ["given", "completed by the model", "conditional Gaussian mean", "the digit"];
        let panel = |(title, row): (&str, &Vec<f64>)| {
            Panel::Picture(title.into(), grid_of(&grid, row, Some(COLUMNS)))
        };
        // Three pixels a pixel.
        let tall = 44 + 3 * (30 * number.div_ceil(COLUMNS) as u32 + 2);
        pictures.push((
            format!("completions-{}", half.stem),
            format!("MNIST test digits, {}.", half.name),
            Figure {
                title: format!("Completions: {}", half.name),
                panels: titles.into_iter().zip(&rows).map(panel).collect(),
                columns: 1,
                panel_size: (740, tall),
            },
        ));
    }
    bar.finish_and_clear();
    Ok(Section {
        which: Which::Completions,
        title: "Half digits completed (figures 7 and 16)",
        text: vec![
            "The mode of log rho over the hidden pixels, log-determinant included, from one start. It \
             is sharp and is not the estimate of least squared error, which the table measures."
                .into(),
        ],
        pictures,
        tables: vec![table],
        settings: json!({
            "model": settings.model,
            "mnist": settings.mnist,
            "digits": number,
            "starts": 1,
            "seed": settings.seed,
        }),
    })
}
