//! Inpaint: fills the transparent pixels, or a rectangle, of images with what the model makes likely.

use std::ops::ControlFlow;

use cmf_core::gaussian::Gaussian;
use cmf_core::inpaint::{Hole, Langevin, Mode};
use cmf_plugin::{Entry, Error, Host, Input, Law, Parameters, Result, Shape, Task};

use super::check_cancelled;
use super::model::{HostPotential, mixture};
use crate::error::plugin_error;

pub(super) const INPAINT: Entry<dyn Task> = Entry {
    name: "inpaint",
    about: "Fill the hole in images: their transparent pixels, or a rectangle",
    parameters: r#"{"type":"object","properties":{
        "inputs":{"type":"array","description":"Images of the model's size","minItems":1},
        "mask-rect":{"type":"array","description":"Fill this rectangle: left, top, width, height in pixels; else what is transparent","default":[],"minimum":0,"maxItems":4},
        "estimate":{"type":"string","description":"A likely completion, on the way up to the mode, or the average one","enum":["mode","mean"],"default":"mode"},
        "starts":{"type":"integer","description":"Starts of the search for the mode","default":1,"minimum":1,"maximum":10000},
        "draws":{"type":"integer","description":"Chains behind the average","default":8,"minimum":2,"maximum":10000}}}"#,
    create: |p| Ok(Box::new(Inpaint::new(p)?)),
};

struct Inpaint {
    rectangle: Option<[usize; 4]>,
    mean: bool,
    starts: usize,
    draws: usize,
}

impl Inpaint {
    fn new(p: &Parameters) -> Result<Inpaint> {
        let rectangle = match p.numbers("mask-rect")?[..] {
            [] => None,
            [x, y, w, h] if [x, y, w, h].iter().all(|v| v.fract() == 0.0) => {
                Some([x, y, w, h].map(|v| v as usize))
            }
            _ => {
                return Err(Error::invalid(
                    "parameter mask-rect: expected four whole numbers x,y,width,height",
                ));
            }
        };
        Ok(Inpaint {
            rectangle,
            mean: p.text("estimate")? == "mean",
            starts: p.count("starts")?,
            draws: p.count("draws")?,
        })
    }

    /// The hidden coordinates of an image.
    fn hidden(&self, input: &Input, [height, width, channels]: [usize; 3]) -> Result<Vec<usize>> {
        let fail = |text: &str| Error::invalid(format!("{}: {text}", input.name));
        let pixel: Box<dyn Fn(usize) -> bool> = match (self.rectangle, &input.alpha) {
            (Some([x, y, w, h]), _) => {
                if x + w > width || y + h > height {
                    return Err(fail("the rectangle does not lie inside its pixels"));
                }
                Box::new(move |i| (x..x + w).contains(&(i % width)) && (y..y + h).contains(&(i / width)))
            }
            (None, Some(alpha)) => Box::new(move |i| alpha[i] < 0.5),
            (None, None) => {
                return Err(fail("has no hole: no pixel is transparent; give it with --mask-rect"));
            }
        };
        let hidden: Vec<usize> = (0..height * width * channels).filter(|i| pixel(i / channels)).collect();
        match hidden.len() {
            0 => Err(fail("has no hole")),
            n if n == height * width * channels => Err(fail("its hole covers everything")),
            _ => Ok(hidden),
        }
    }
}

impl Task for Inpaint {
    fn run(&self, host: &dyn Host) -> Result<()> {
        let model = host.model()?;
        let Shape::Image { height, width, channels } = model.shape else {
            return Err(Error::invalid("the model is one of points, expected a model of images"));
        };
        let shape = [height, width, channels];
        let w = HostPotential::new(host)?;
        let (mean, covariance) = host.gaussian()?;
        let gaussian = Gaussian { mean, covariance: covariance.into() };
        let mixture = mixture(host, Law::Data, gaussian.dim())?;
        let count = host.input_count();
        for index in 0..count {
            check_cancelled(host)?;
            let input = host.input(index)?;
            if input.shape != shape {
                let (name, found) = (&input.name, &input.shape);
                return Err(Error::invalid(format!(
                    "{name}: is {found:?} (height, width, channels), the model expects {shape:?}"
                )));
            }
            let hidden = self.hidden(&input, shape)?;
            let hole = Hole::new(&gaussian, &input.values, &hidden)
                .and_then(|hole| hole.with_mixture(&gaussian, mixture.as_ref()))
                .map_err(plugin_error)?;
            let mut monitor = |share: f64| {
                host.progress((index as f64 + share) / count as f64);
                if host.cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let (filled, log_density) = if self.mean {
                let langevin = Langevin { draws: self.draws, seed: host.seed(), ..Langevin::default() };
                let run = langevin.draw(&w, &hole, model.sigma, &mut monitor).map_err(plugin_error)?;
                (run.completions.mean, "null".to_string())
            } else {
                let search = Mode { starts: self.starts, seed: host.seed(), ..Mode::default() };
                let mode = search.complete(&w, &hole, &mut monitor).map_err(plugin_error)?;
                let log_z = model.log_z.map_or(0.0, |z| z.0);
                (mode.filled, (mode.starts[mode.best].log_density - log_z).to_string())
            };
            host.write_image(Some(index), "inpainted", shape, &filled)?;
            let name = serde_json::Value::String(input.name);
            let hidden = hole.len();
            host.result(&format!(r#"{{"image":{name},"hidden":{hidden},"log_density":{log_density}}}"#))?;
        }
        Ok(())
    }
}
