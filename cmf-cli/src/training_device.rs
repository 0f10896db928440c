//! Where training computes: `train --device`.

#[cfg(not(feature = "cuda"))]
use cmf_core::Error;
use cmf_core::Result;
use cmf_core::train::{Trainer, Training};
#[cfg(feature = "cuda")]
use cmf_plugins::host::cuda;
use serde::{Deserialize, Serialize};

use crate::engine::{DeviceChoice, unusable};
use crate::report::Report;

/// Where a run computes, for run.json and `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// cpu or cuda:N.
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

/// Fails if `device` names a GPU that cannot be had, before anything else is done.
pub fn check(device: Option<DeviceChoice>) -> Result<()> {
    match device {
        Some(DeviceChoice::Cuda(n)) => missing(n).map_or(Ok(()), |why| Err(unusable(n, why))),
        _ => Ok(()),
    }
}

/// The run on the device of the user's choice, the processor if none; a choice of this program is said.
pub fn place(
    trainer: Trainer,
    device: Option<DeviceChoice>,
    report: &Report,
) -> Result<(Box<dyn Training>, Place)> {
    let on_cpu = |trainer, why| -> (Box<dyn Training>, Place) {
        (Box::new(trainer), Place { why, ..Place::default() })
    };
    match device.unwrap_or(DeviceChoice::Cpu) {
        DeviceChoice::Cpu => Ok(on_cpu(trainer, None)),
        DeviceChoice::Cuda(n) => {
            check(device)?;
            let moved = on_cuda(&trainer, n).map_err(|e| unusable(n, e))?;
            Ok((moved, Place { device: format!("cuda:{n}"), why: None }))
        }
        DeviceChoice::Auto => {
            let tried = missing(0).map_or_else(|| on_cuda(&trainer, 0).map_err(|e| e.to_string()), Err);
            let (trainer, place) = match tried {
                Ok(moved) => (moved, Place { device: "cuda:0".into(), why: Some("the first GPU".into()) }),
                Err(why) => on_cpu(trainer, Some(format!("cuda:0 cannot be used: {why}"))),
            };
            report.note(format!("device: {} ({})", place.device, place.why.as_deref().unwrap_or_default()));
            Ok((trainer, place))
        }
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
fn on_cuda(trainer: &Trainer, n: u32) -> Result<Box<dyn Training>> {
    trainer.on_cuda(n)
}

#[cfg(not(feature = "cuda"))]
fn on_cuda(_: &Trainer, _: u32) -> Result<Box<dyn Training>> {
    Err(Error::Invalid(WITHOUT_CUDA.into()))
}
