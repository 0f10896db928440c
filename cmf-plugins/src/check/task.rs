//! Checks of tasks: runs on a small Gaussian model of images, all files in memory.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cmf_core::Source;
use cmf_core::closed_form::Quadratic;
use cmf_core::gaussian::Gaussian;
use cmf_plugin::{Error, Files, Input, Level, ModelInfo, Parameters, Result, Schema, Shape, Status, Task};

use super::{Suite, eight_threads};
use crate::host::{Library, Model, ModelHost, Offer, Offered, PluginTask};

const SIDE: usize = 4;

pub(super) fn check(suite: &mut Suite, library: &Library, offer: &Offer) {
    let Some(factory) = library.tasks() else { return };
    let schema = match Schema::parse(&offer.parameters) {
        Ok(schema) => schema,
        Err(_) => return, // Said when the entries were read.
    };
    let inputs = schema.inputs.as_ref().map_or(0, |p| p.min_items.max(1).min(p.max_items));
    let parameters = suite.parameters(&schema);
    let seed = suite.settings.seed;
    let mut ready = None;
    let good = suite.check("runs on a small model", |_| {
        let parameters = parameters?;
        // Some tasks want a hole in their images, others none.
        let try_with = |hole: bool| {
            let memory = Memory::new(inputs, hole, false);
            run(factory, &offer.name, &parameters, &memory, seed).map(|()| (memory.said(), hole))
        };
        let outcome = try_with(false).or_else(|e| match e.status {
            Status::Panic => Err(e),
            _ => try_with(true).map_err(|_| e),
        });
        let (said, hole) = outcome.map_err(|e| e.text)?;
        ready = Some((parameters, said.clone(), hole));
        match said.iter().find(|line| line.starts_with("bad")) {
            Some(line) => Err(line.clone()),
            None => Ok(format!("{} outputs and results", said.len())),
        }
    });
    let Some((parameters, said, hole)) = ready.filter(|_| good) else { return };
    suite.check("a seed gives the same again", |_| {
        let memory = Memory::new(inputs, hole, false);
        run(factory, &offer.name, &parameters, &memory, seed).map_err(|e| e.text)?;
        match memory.said() == said {
            true => Ok(String::new()),
            false => Err("a second run with the same seed and inputs gave other outputs".into()),
        }
    });
    suite.check("eight runs at once", |_| {
        eight_threads(|| {
            let memory = Memory::new(inputs, hole, false);
            run(factory, &offer.name, &parameters, &memory, seed).map_err(|e| e.text)?;
            match memory.said() == said {
                true => Ok(String::new()),
                false => Err("a run beside others gave other outputs than a run alone".into()),
            }
        })
    });
    if inputs > 0 {
        suite.check("inputs of another size", |_| {
            let memory = Memory { side: SIDE + 1, ..Memory::new(inputs, hole, false) };
            match run(factory, &offer.name, &parameters, &memory, seed) {
                Err(e) if e.status == Status::Panic => Err(e.text),
                Err(e) => Ok(e.text),
                Ok(()) => Ok("accepted".into()),
            }
        });
    }
    suite.check("stops when asked to", |_| {
        let memory = Memory::new(inputs, hole, true);
        match run(factory, &offer.name, &parameters, &memory, seed) {
            Err(e) if e.status == Status::Cancelled => Ok(String::new()),
            Err(e) => Err(format!(
                "the user had asked to stop: answered {:?} ({e}), expected CMF_CANCELLED",
                e.status
            )),
            Ok(()) if memory.asked.load(Ordering::SeqCst) == 0 => {
                Err("never asked whether the user wants to stop; call cancelled now and then".into())
            }
            Ok(()) => {
                Err("went on to the end although the user had asked to stop, expected CMF_CANCELLED".into())
            }
        }
    });
    suite.check("unknown names", |_| {
        let memory = Memory::new(inputs, hole, false);
        match run(factory, "no-such-task", &parameters, &memory, seed) {
            Err(e) if e.status == Status::Invalid => Ok(String::new()),
            Err(e) => Err(format!("answered {:?} ({e}), expected CMF_INVALID", e.status)),
            Ok(()) => Err("ran a task that it does not offer, expected CMF_INVALID".into()),
        }
    });
}

fn run(
    factory: &'static cmf_plugin::abi::CmfTaskFactory,
    name: &str,
    parameters: &Parameters,
    memory: &Memory,
    seed: u64,
) -> Result<()> {
    let d = SIDE * SIDE;
    let covariance: Vec<f64> =
        (0..d * d).map(|ij| 0.04 * (-((ij / d).abs_diff(ij % d) as f64) / 3.0).exp()).collect();
    let gaussian = Gaussian { mean: vec![0.5; d], covariance: covariance.into() };
    let start = gaussian.quadratic_start().map_err(crate::plugin_error)?;
    let w = Quadratic::new(start.hessian, start.centre).map_err(crate::plugin_error)?;
    let info = ModelInfo {
        shape: Shape::Image { height: SIDE, width: SIDE, channels: 1 },
        pixel_range: Some((0.0, 1.0)),
        sigma: 0.1,
        log_z: Some((start.log_z, 0.0)),
        has_hessian: true,
    };
    let host = ModelHost::new(
        Some(Model { w: &w, source: Source::Gibbs, gaussian: &gaussian, data_mixture: None, info }),
        memory,
        seed,
    );
    PluginTask::new(factory, Offered { source: "", name, parameters })?.run(&host)
}

/// Files in memory, and what was written to them.
struct Memory {
    inputs: usize,
    /// Of the images, in pixels.
    side: usize,
    hole: bool,
    cancel: bool,
    asked: AtomicUsize,
    said: Mutex<Vec<String>>,
}

impl Memory {
    fn new(inputs: usize, hole: bool, cancel: bool) -> Memory {
        Memory { inputs, side: SIDE, hole, cancel, asked: 0.into(), said: Mutex::default() }
    }

    fn said(&self) -> Vec<String> {
        self.said.lock().map(|said| said.clone()).unwrap_or_default()
    }

    fn say(&self, line: String) {
        if let Ok(mut said) = self.said.lock() {
            said.push(line);
        }
    }
}

impl Files for Memory {
    fn input_count(&self) -> usize {
        self.inputs
    }

    fn input(&self, index: usize) -> Result<Input> {
        if index >= self.inputs {
            return Err(Error::invalid(format!("input {index} of {}", self.inputs)));
        }
        let side = self.side;
        let pixel = |i: usize| ((i * 7 + index * 3) % 11) as f64 / 10.0;
        let alpha =
            self.hole.then(|| (0..side * side).map(|i| if i % side == 0 { 0.0 } else { 1.0 }).collect());
        Ok(Input {
            name: format!("input-{index}.png"),
            shape: vec![side, side, 1],
            values: (0..side * side).map(pixel).collect(),
            alpha,
        })
    }

    fn write_image(
        &self,
        input: Option<usize>,
        label: &str,
        shape: [usize; 3],
        values: &[f64],
    ) -> Result<()> {
        self.say(format!("image {input:?} {label} {shape:?} {values:?}"));
        Ok(())
    }

    fn write_table(&self, input: Option<usize>, label: &str, d: usize, values: &[f64]) -> Result<()> {
        self.say(format!("table {input:?} {label} {d} {values:?}"));
        Ok(())
    }

    fn result(&self, json: &str) -> Result<()> {
        match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(json) {
            Ok(_) => self.say(format!("result {json}")),
            Err(e) => self.say(format!("bad result, expected a JSON object, found {json:?}: {e}")),
        }
        Ok(())
    }

    fn progress(&self, _fraction: f64) {}

    fn log(&self, _level: Level, _text: &str) {}

    fn cancelled(&self) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.cancel
    }
}
