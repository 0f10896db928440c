//! `cmf-cli info`: what a model file is, read without running it.

use std::path::PathBuf;

use clap::Args;
use cmf_core::icnn::GibbsFactor;
use cmf_core::onnx::{Metadata, ModelFile, Shape};
use cmf_core::{Result, Source};
use serde_json::{Value, json};

use crate::report::{Outcome, Report};

/// Print what a model file is.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cmf-cli info models/mnist.onnx
  cmf-cli info models/mnist.onnx --json | jq .log_z")]
pub struct Info {
    /// The model file
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    #[command(flatten)]
    report: Report,
}

impl Info {
    /// Runs the command.
    pub fn run(self) -> Result<Outcome> {
        let file = ModelFile::open(&self.model)?;
        let lines = match file.metadata() {
            Some(metadata) => lines(metadata),
            None => vec![
                ("dimension", file.dim().to_string()),
                ("origin", "a foreign ONNX file without cmf.* properties".into()),
            ],
        };
        let text: Vec<String> = lines.iter().map(|(name, value)| format!("{name:<14}{value}")).collect();
        self.report.text(format!("{:<14}{}\n{}", "file", self.model.display(), text.join("\n")))?;
        self.report.document(&document(&file))?;
        Ok(Outcome::Done)
    }
}

fn lines(metadata: &Metadata) -> Vec<(&'static str, String)> {
    let arch = &metadata.architecture;
    let unless_empty = |s: &str| if s.is_empty() { "not stated".to_string() } else { s.to_string() };
    let shape = match metadata.shape {
        Shape::Image { height, width, channels } => {
            let colours = if channels == 1 { "grey".to_string() } else { format!("{channels} channels") };
            format!("images of {width}x{height} pixels, {colours}")
        }
        Shape::Flat { dim } => format!("points with {dim} coordinates"),
    };
    let widths: Vec<String> = arch.widths.iter().map(usize::to_string).collect();
    let mut lines = vec![
        ("about", shape),
        ("dimension", arch.dim.to_string()),
        (
            "network",
            format!(
                "hidden layers {}, rank {}{}, {:?}, {} parameters",
                widths.join("-"),
                arch.rank,
                if arch.diagonal { " plus diagonal" } else { "" },
                arch.activation,
                arch.parameter_count()
            ),
        ),
    ];
    lines.push((
        "source",
        match metadata.source {
            Source::Gibbs => match arch.gibbs {
                GibbsFactor::Whole => "the Gibbs factor e^-w/Z: a conjugate moment measure".into(),
                GibbsFactor::Head => match &metadata.mixture {
                    Some(m) => format!(
                        "the Gibbs factor of the potential's quadratic head, with a mixture of {} Gaussians along {} directions",
                        m.len(),
                        m.directions()
                    ),
                    None => "the Gibbs factor of the potential's quadratic head: a Gaussian".into(),
                },
            },
            Source::Gaussian => "N(0, I): a generative input-convex network".into(),
        },
    ));
    if let Some([low, high]) = metadata.pixel_range {
        lines.push(("pixel range", format!("{low} to {high}")));
    }
    lines.push(("noise", format!("standard deviation {} was added to the data", metadata.sigma)));
    lines.push((
        "log Z",
        match metadata.log_z {
            Some(z) => z.to_string(),
            None => "not estimated: log-densities lack their constant".into(),
        },
    ));
    lines.push(("data", unless_empty(&metadata.data.name)));
    lines.push(("data sha256", unless_empty(&metadata.data.sha256)));
    lines.push(("data licence", unless_empty(&metadata.data.licence)));
    lines.push(("licence", unless_empty(&metadata.licence)));
    lines.push(("recipe", metadata.recipe.to_string()));
    lines.push(("probes", metadata.probes.len().to_string()));
    lines
}

fn document(file: &ModelFile) -> Value {
    let Some(m) = file.metadata() else {
        return json!({ "file": file.path(), "dimension": file.dim(), "foreign": true });
    };
    json!({
        "file": file.path(),
        "dimension": file.dim(),
        "foreign": false,
        "source": m.source,
        "source_components": m.mixture.as_ref().map_or(1, |m| m.len()),
        "data_components": m.data_mixture.as_ref().map_or(1, |m| m.len()),
        "shape": m.shape,
        "architecture": m.architecture,
        "parameters": m.architecture.parameter_count(),
        "pixel_range": m.pixel_range,
        "sigma": m.sigma,
        "log_z": m.log_z,
        "data": m.data,
        "licence": m.licence,
        "recipe": m.recipe,
        "probes": m.probes.len(),
    })
}
