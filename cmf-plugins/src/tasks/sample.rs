//! Sample: draws of the Gibbs factor, moved to the data by the conjugate's gradient.

use cmf_core::Source;
use cmf_core::density::{Denoise, tweedie, without_noise};
use cmf_plugin::{Entry, Error, Host, Level, Parameters, Result, RowStatus, Shape, Task};

use super::check_cancelled;
use super::model::HostPotential;
use crate::error::plugin_error;

pub(super) const SAMPLE: Entry<dyn Task> = Entry {
    name: "sample",
    about: "Draw samples from a model",
    parameters: r#"{"type":"object","properties":{
        "number":{"type":"integer","description":"How many samples","default":64,"minimum":1,"maximum":1000000},
        "steps":{"type":"integer","description":"Langevin steps, where the source is not a Gaussian; the first half tunes","default":1000,"minimum":8,"maximum":1000000},
        "noise":{"type":"string","description":"What to do with the noise that the model learned: mean takes the mean of the clean point given the noisy one, remove that step twice, and so does auto for images","enum":["auto","keep","mean","remove"],"default":"auto"}}}"#,
    create: |p| Ok(Box::new(Sample::new(p)?)),
};

struct Sample {
    number: usize,
    steps: usize,
    noise: String,
}

impl Sample {
    fn new(p: &Parameters) -> Result<Sample> {
        Ok(Sample {
            number: p.count("number")?,
            steps: p.count("steps")?,
            noise: p.text("noise")?.to_string(),
        })
    }
}

impl Task for Sample {
    fn run(&self, host: &dyn Host) -> Result<()> {
        let model = host.model()?;
        let d = model.shape.dim();
        let mut x = vec![0.0; self.number * d];
        let report = host.gibbs(self.steps, &mut x)?;
        let mut y = vec![0.0; x.len()];
        let rows = host.conjugate(&x, &mut y)?;
        let good = rows.iter().map(|row| row.status == RowStatus::Converged);
        let kept: Vec<f64> =
            y.chunks_exact(d).zip(good).filter(|(_, good)| *good).flat_map(|(row, _)| row.to_vec()).collect();
        let failed = self.number - kept.len() / d;
        if failed > 0 {
            let text = format!(
                "{failed} of {} samples are left out: their transport solve did not converge",
                self.number
            );
            host.log(Level::Warning, &text);
        }
        if kept.is_empty() {
            return Err(Error::failed("no sample's transport solve converged"));
        }
        let image = matches!(model.shape, Shape::Image { .. });
        let mut y = kept;
        let denoise: Option<Denoise> = match (&self.noise[..], image) {
            ("mean", _) => Some(tweedie),
            ("remove", _) | ("auto", true) => Some(without_noise),
            _ => None,
        };
        if let Some(denoise) = denoise {
            let w = HostPotential::new(host)?;
            let mut clean = Vec::with_capacity(y.len());
            // Blocks, so that a long run can be stopped.
            for block in y.chunks(64 * d) {
                check_cancelled(host)?;
                clean.extend(denoise(&w, Source::Gibbs, block, model.sigma).map_err(plugin_error)?);
            }
            y = clean;
        }
        host.write_table(None, "samples", d, &y)?;
        if let Shape::Image { height, width, channels } = model.shape {
            let grid = grid(&y, [height, width, channels]);
            host.write_image(None, "samples", grid.0, &grid.1)?;
        }
        let or_null = |v: Option<f64>| v.map_or("null".to_string(), |v| v.to_string());
        host.result(&format!(
            r#"{{"written":{},"unconverged":{failed},"acceptance":{},"r_hat":{},"effective_sample_size":{}}}"#,
            y.len() / d,
            report.acceptance,
            or_null(report.r_hat),
            or_null(report.effective_sample_size)
        ))
    }
}

/// The rows of `y` as one image, side by side in about a square; empty places hold the last row's last value.
fn grid(y: &[f64], [height, width, channels]: [usize; 3]) -> ([usize; 3], Vec<f64>) {
    let line = width * channels;
    let n = y.len() / (height * line);
    let columns = (n as f64).sqrt().ceil() as usize;
    let rows = n.div_ceil(columns);
    let mut out = vec![y[y.len() - 1]; rows * columns * height * line];
    for (i, image) in y.chunks_exact(height * line).enumerate() {
        for (k, pixels) in image.chunks_exact(line).enumerate() {
            let at = ((i / columns * height + k) * columns + i % columns) * line;
            out[at..at + line].copy_from_slice(pixels);
        }
    }
    ([rows * height, columns * width, channels], out)
}
