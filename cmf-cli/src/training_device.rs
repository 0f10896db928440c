//! Where training computes: `train --device` and `--devices`.

use clap::Args;
use cmf_core::train::{Trainer, Training};
use cmf_core::{Error, Result};
#[cfg(feature = "cuda")]
use cmf_plugins::host::cuda;
use serde::{Deserialize, Serialize};

use crate::engine::{DeviceChoice, unusable};
use crate::report::Report;

/// Where a run computes, for run.json and `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// cpu or cuda:N, or several GPUs with commas between.
    pub device: String,
    /// Why, where `auto` chose.
    #[serde(rename = "device_why", skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Default for Place {
    fn default() -> Self {
        Place { device: "cpu".into(), why: None }
    }
}

/// Where the user wants a run to compute.
#[derive(Args)]
pub struct DeviceArgs {
    /// Where to compute: cpu, cuda or cuda:N, or auto, which takes the first GPU if it can be used and says which
    /// it took; with --resume too [default: cpu]
    #[arg(long, value_name = "DEVICE", conflicts_with = "devices")]
    device: Option<DeviceChoice>,
    /// Compute on several GPUs, which share the rows of every update: cuda:0,cuda:1 and so on. The batch and the
    /// particles must be multiples of their number; not with --amortise
    #[arg(long, value_name = "GPUS", value_delimiter = ',', value_parser = gpu)]
    devices: Vec<u32>,
}

/// The number of a GPU.
fn gpu(text: &str) -> std::result::Result<u32, String> {
    match text.parse() {
        Ok(DeviceChoice::Cuda(n)) => Ok(n),
        _ => Err("expected cuda or cuda:N: updates are shared out over GPUs alone".into()),
    }
}

impl DeviceArgs {
    /// What `--device` alone says.
    pub fn one(device: Option<DeviceChoice>) -> Self {
        DeviceArgs { device, devices: Vec::new() }
    }

    /// The GPUs that were asked for.
    fn gpus(&self) -> Vec<u32> {
        match self.device {
            Some(DeviceChoice::Cuda(n)) => vec![n],
            _ => self.devices.clone(),
        }
    }

    /// Fails if a GPU that was asked for cannot be had, before anything else is done.
    pub fn check(&self) -> Result<()> {
        let gpus = self.gpus();
        for (i, &n) in gpus.iter().enumerate() {
            if gpus[..i].contains(&n) {
                return Err(Error::Invalid(format!(
                    "--devices names cuda:{n} twice; expected different GPUs"
                )));
            }
            missing(n).map_or(Ok(()), |why| Err(unusable(n, why)))?;
        }
        Ok(())
    }

    /// The run on the device of the user's choice, the processor if none; a choice of this program is said.
    pub fn place(&self, trainer: Trainer, report: &Report) -> Result<(Box<dyn Training>, Place)> {
        let on_cpu = |trainer, why| -> (Box<dyn Training>, Place) {
            (Box::new(trainer), Place { why, ..Place::default() })
        };
        let gpus = self.gpus();
        if !gpus.is_empty() {
            self.check()?;
            let device = gpus.iter().map(|n| format!("cuda:{n}")).collect::<Vec<_>>().join(",");
            let moved = on_cuda(&trainer, &gpus).map_err(|e| match gpus[..] {
                [n] => unusable(n, e),
                _ => Error::Invalid(format!("--devices {device} cannot be used: {e}")),
            })?;
            return Ok((moved, Place { device, why: None }));
        }
        if self.device != Some(DeviceChoice::Auto) {
            return Ok(on_cpu(trainer, None));
        }
        let tried = missing(0).map_or_else(|| on_cuda(&trainer, &[0]).map_err(|e| e.to_string()), Err);
        let (trainer, place) = match tried {
            Ok(moved) => (moved, Place { device: "cuda:0".into(), why: Some("the first GPU".into()) }),
            Err(why) => on_cpu(trainer, Some(format!("cuda:0 cannot be used: {why}"))),
        };
        report.note(format!("device: {} ({})", place.device, place.why.as_deref().unwrap_or_default()));
        Ok((trainer, place))
    }
}

/// Why the GPU of number `n` cannot train, as far as is known without trying.
#[cfg(feature = "cuda")]
pub fn missing(n: u32) -> Option<String> {
    match cuda::driver() {
        Err(why) => Some(why),
        Ok(driver) if n as usize >= driver.devices.len() => Some(format!(
            "NVIDIA's driver finds {} GPUs: {}",
            driver.devices.len(),
            driver.devices.join(", ")
        )),
        Ok(_) => cuda::compiler().err(),
    }
}

/// Why the GPU of number `n` cannot train, as far as is known without trying.
#[cfg(not(feature = "cuda"))]
pub fn missing(_: u32) -> Option<String> {
    Some(WITHOUT_CUDA.into())
}

#[cfg(not(feature = "cuda"))]
const WITHOUT_CUDA: &str = "this build cannot train on GPUs: build it with the feature `cuda`";

#[cfg(feature = "cuda")]
fn on_cuda(trainer: &Trainer, gpus: &[u32]) -> Result<Box<dyn Training>> {
    trainer.on_cuda(gpus)
}

#[cfg(not(feature = "cuda"))]
fn on_cuda(_: &Trainer, _: &[u32]) -> Result<Box<dyn Training>> {
    Err(Error::Invalid(WITHOUT_CUDA.into()))
}
