//! MAP denoising under a Gaussian likelihood, as a task plugin for CMF.

use cmf_plugin::{DensityStatus, Entry, Error, Host, Level, Parameters, Result, Task};

/// For each image y: the z that maximises log ρ(z) - |z - y|²/2s², ρ being the model's density.
struct Denoise {
    noise: f64,
    steps: usize,
}

/// Converged when the objective's gradient, root mean square and in units of 1/noise, is below this: where log ρ is
/// concave the image is then off by less than this share of the noise.
const TOLERANCE: f64 = 0.01;

impl Denoise {
    /// One row's objective and the score of the model there; `None` where the model has no density.
    fn objective(&self, host: &dyn Host, z: &[f64], y: &[f64]) -> Result<Option<(f64, Vec<f64>)>> {
        let mut score = vec![0.0; z.len()];
        let row = host.log_density(z, Some(&mut score))?;
        let distance: f64 = z.iter().zip(y).map(|(z, y)| (z - y).powi(2)).sum();
        let good = row[0].status == DensityStatus::Evaluated && score.iter().all(|s| s.is_finite());
        Ok(good.then(|| (row[0].value - distance / (2.0 * self.noise * self.noise), score)))
    }

    /// Proximal gradient ascent: a step up log ρ, then the exact pull towards y; halved until it goes up.
    fn climb(&self, host: &dyn Host, y: &[f64], share: (f64, f64)) -> Result<(Vec<f64>, f64, bool)> {
        let variance = self.noise * self.noise;
        let mut z = y.to_vec();
        let start = self.objective(host, &z, y)?;
        let (mut value, mut score) =
            start.ok_or_else(|| Error::failed("the model has no density at the image"))?;
        let mut step = variance;
        for done in 0..self.steps {
            if host.cancelled() {
                return Err(Error::cancelled());
            }
            host.progress(share.0 + share.1 * done as f64 / self.steps as f64);
            let slope: f64 =
                (z.iter().zip(&score).zip(y)).map(|((z, s), y)| (s + (y - z) / variance).powi(2)).sum();
            if (slope / y.len() as f64).sqrt() * self.noise < TOLERANCE {
                return Ok((z, value, true));
            }
            let pull = step / variance;
            let next: Vec<f64> = (z.iter().zip(&score).zip(y))
                .map(|((z, s), y)| (z + step * s + pull * y) / (1.0 + pull))
                .collect();
            match self.objective(host, &next, y)? {
                Some((better, at)) if better >= value => {
                    (z, value, score) = (next, better, at);
                    step *= 1.5;
                }
                _ => step *= 0.5,
            }
        }
        Ok((z, value, false))
    }
}

impl Task for Denoise {
    fn run(&self, host: &dyn Host) -> Result<()> {
        let d = host.model()?.shape.dim();
        let count = host.input_count();
        for index in 0..count {
            let input = host.input(index)?;
            let (&[height, width, channels], true) = (&input.shape[..], input.values.len() == d) else {
                return Err(Error::invalid(format!(
                    "{}: expected an image of {d} numbers, as the model has",
                    input.name
                )));
            };
            let share = (index as f64 / count as f64, 1.0 / count as f64);
            let (z, value, converged) = self.climb(host, &input.values, share)?;
            if !converged {
                let text =
                    format!("{}: not converged after {} steps; give more --steps", input.name, self.steps);
                host.log(Level::Warning, &text);
            }
            host.write_image(Some(index), "denoised", [height, width, channels], &z)?;
            host.result(&format!(r#"{{"objective":{value},"converged":{converged}}}"#))?;
        }
        Ok(())
    }
}

fn create(parameters: &Parameters) -> Result<Box<dyn Task>> {
    let noise = parameters.number("noise")?;
    if noise <= 0.0 {
        return Err(Error::invalid("parameter noise: expected a number above 0"));
    }
    Ok(Box::new(Denoise { noise, steps: parameters.count("steps")? }))
}

cmf_plugin::export! {
    tasks: [Entry {
        name: "denoise",
        about: "Take Gaussian noise off images: the most likely clean image given the noisy one",
        parameters: r#"{"type":"object","properties":{
            "inputs":{"type":"array","description":"Noisy images of the model's size","minItems":1},
            "noise":{"type":"number","description":"Standard deviation of the noise, in the units of the pixels","default":0.2,"minimum":0},
            "steps":{"type":"integer","description":"Most steps of the ascent","default":200,"minimum":1,"maximum":100000}}}"#,
        create,
    }],
}
