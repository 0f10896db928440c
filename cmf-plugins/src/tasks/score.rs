//! Score: the log-density of images or table rows under a model.

use cmf_core::density::bits_per_dimension;
use cmf_plugin::{DensityStatus, Entry, Error, Host, Level, Parameters, Result, Task};

use super::check_cancelled;

pub(super) const SCORE: Entry<dyn Task> = Entry {
    name: "score",
    about: "Print the log-density of images or table rows under a model",
    parameters: r#"{"type":"object","properties":{
        "inputs":{"type":"array","description":"Images, or tables of rows","minItems":1},
        "add-noise":{"type":"boolean","description":"Add the model's noise to the input first","default":false}}}"#,
    create: |p| Ok(Box::new(Score::new(p)?)),
};

struct Score {
    add_noise: bool,
}

/// Rows between two looks at Ctrl-C.
const BLOCK: usize = 16;

impl Score {
    fn new(p: &Parameters) -> Result<Score> {
        Ok(Score { add_noise: p.flag("add-noise")? })
    }
}

impl Task for Score {
    fn run(&self, host: &dyn Host) -> Result<()> {
        let model = host.model()?;
        let d = model.shape.dim();
        let mut failures = 0;
        for index in 0..host.input_count() {
            let mut input = host.input(index)?;
            if input.values.is_empty() || !input.values.len().is_multiple_of(d) {
                return Err(Error::invalid(format!(
                    "{}: expected rows of {d} numbers, the model's dimension",
                    input.name
                )));
            }
            if input.alpha.is_some_and(|alpha| alpha.iter().any(|&a| a < 1.0)) {
                return Err(Error::invalid(format!(
                    "{}: has transparent pixels; flatten it first",
                    input.name
                )));
            }
            if self.add_noise {
                let mut noise = vec![0.0; input.values.len()];
                host.normal(&mut noise)?;
                input.values.iter_mut().zip(noise).for_each(|(v, n)| *v += model.sigma * n);
            }
            for (k, block) in input.values.chunks(BLOCK * d).enumerate() {
                check_cancelled(host)?;
                for (i, row) in host.log_density(block, None)?.into_iter().enumerate() {
                    let name = format!("{}#{}", input.name, k * BLOCK + i);
                    if !matches!(row.status, DensityStatus::Evaluated | DensityStatus::Unconverged) {
                        failures += 1;
                        host.log(Level::Warning, &format!("{name}: has no log-density ({:?})", row.status));
                        continue;
                    }
                    let range = model.pixel_range.filter(|_| model.log_z.is_some());
                    let bits =
                        range.map_or("null".into(), |r| bits_per_dimension(row.value, d, r).to_string());
                    let name = serde_json::Value::String(name);
                    host.result(&format!(
                        r#"{{"name":{name},"log_density":{},"bits_per_dim":{bits},"standard_error":{}}}"#,
                        row.value, row.standard_error
                    ))?;
                }
            }
            host.progress((index + 1) as f64 / host.input_count() as f64);
        }
        match failures {
            0 => Ok(()),
            n => Err(Error::failed(format!("{n} rows have no log-density"))),
        }
    }
}
