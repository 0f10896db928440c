//! Which engine evaluates a model, and where: `--engine`, `--device`, `--ort-lib`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use cmf_core::onnx::{ModelFile, TractModel};
use cmf_core::{Error, Result, SecondOrder};
use serde::Serialize;
use serde_json::{Value, json};

use crate::report::Report;

/// The options of every command that evaluates a model.
#[derive(Args, Clone, Default)]
pub struct EngineArgs {
    /// What evaluates the model [default: tract; verify and bench take every engine that is present]
    #[arg(long, value_enum, help_heading = "Engine")]
    pub engine: Option<Engine>,
    /// Where: cpu, cuda or cuda:N (with --engine ort), or auto, which takes the GPU if the engine can use it
    /// and says which it took [default: auto]
    #[arg(long, value_name = "DEVICE", help_heading = "Engine")]
    pub device: Option<DeviceChoice>,
    /// ONNX Runtime's library, a folder that holds it, or `python` for that of the installed Python
    /// package; if not given: ORT_DYLIB_PATH, beside the executable, the system's library folders
    #[arg(long, value_name = "PATH|python", help_heading = "Engine")]
    pub ort_lib: Option<PathBuf>,
}

/// An engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Built in; runs on every processor
    Tract,
    /// ONNX Runtime, by a libonnxruntime that is installed; on the processor or a GPU
    Ort,
}

/// What `--device` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The GPU where the engine can use it, or else the processor.
    Auto,
    /// The processor.
    Cpu,
    /// The GPU of this number.
    Cuda(u32),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => {
                let number = text.strip_prefix("cuda:").and_then(|n| n.parse::<u16>().ok());
                number
                    .map(|n| DeviceChoice::Cuda(n.into()))
                    .ok_or("expected auto, cpu, cuda or cuda:N".into())
            }
        }
    }
}

/// Who did the work, for `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Worker {
    /// The engine.
    pub engine: Engine,
    /// cpu or cuda:N.
    pub device: String,
    /// Why, where `auto` chose between devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_why: Option<String>,
    /// Version of ONNX Runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub onnxruntime: Option<String>,
}

/// What a command found, with who did the work, if anybody did.
pub fn signed(worker: Option<&Worker>, mut document: Value) -> Value {
    if let (Value::Object(all), Value::Object(who)) = (&mut document, json!(worker)) {
        all.extend(who);
    }
    document
}

impl std::fmt::Display for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.onnxruntime {
            Some(version) => write!(f, "ort {version} on {}", self.device),
            None => write!(f, "tract on {}", self.device),
        }
    }
}

/// A potential and who evaluates it.
pub struct Loaded {
    /// w.
    pub potential: Box<dyn SecondOrder>,
    /// Who.
    pub worker: Worker,
}

impl EngineArgs {
    /// Makes the file's model ready on the engine and device that the user chose, tract if none.
    pub fn load(&self, file: &ModelFile, report: &Report) -> Result<Loaded> {
        match self.engine.unwrap_or(Engine::Tract) {
            Engine::Tract => self.tract(file, report),
            Engine::Ort => self.ort(file, report),
        }
    }

    /// Starts ONNX Runtime, if it was asked for, while something else is done; what is wrong with it [`load`](Self::load) says.
    pub fn start(&self) {
        #[cfg(feature = "ort")]
        if self.engine == Some(Engine::Ort) {
            let _ = ort::Library::require(&self.choice());
        }
    }

    fn tract(&self, file: &ModelFile, report: &Report) -> Result<Loaded> {
        if let Some(DeviceChoice::Cuda(n)) = self.device {
            return Err(unusable(n, "tract computes on processors only; use --engine ort"));
        }
        if self.ort_lib.is_some() {
            return Err(Error::Invalid(
                "--ort-lib names a library for --engine ort, which was not asked for".into(),
            ));
        }
        let why = (self.device == Some(DeviceChoice::Auto)).then_some("tract computes on processors only");
        if let Some(why) = why {
            report.note(format!("device: cpu ({why})"));
        }
        let device_why = why.map(String::from);
        let worker = Worker { engine: Engine::Tract, device: "cpu".into(), device_why, onnxruntime: None };
        Ok(Loaded { potential: Box::new(TractModel::load(file)?), worker })
    }

    #[cfg(not(feature = "ort"))]
    fn ort(&self, _file: &ModelFile, _report: &Report) -> Result<Loaded> {
        Err(Error::Invalid("this build has no ONNX Runtime engine: build it with the feature `ort`".into()))
    }

    #[cfg(feature = "ort")]
    fn ort(&self, file: &ModelFile, report: &Report) -> Result<Loaded> {
        ort::Library::require(&self.choice())?.load(file, self.device, report)
    }

    /// Which library of ONNX Runtime the user wants.
    #[cfg(feature = "ort")]
    pub fn choice(&self) -> cmf_plugins::host::onnxruntime::Choice {
        use cmf_plugins::host::onnxruntime::Choice;
        match &self.ort_lib {
            None => Choice::Search,
            Some(word) if word.as_os_str() == "python" => Choice::Python,
            Some(path) => Choice::Path(path.clone()),
        }
    }
}

/// An engine by its name, with the model or why it has none.
pub type Present = (&'static str, Result<Loaded>);

/// The engine that the user chose, or else every one that is present: tract, and ONNX Runtime on the processor
/// and, unless --device says otherwise, on the first GPU that it can use. What is absent is said.
pub fn present(engine: &EngineArgs, file: &ModelFile, report: &Report) -> Vec<Present> {
    match engine.engine {
        Some(Engine::Tract) => return vec![("tract", engine.load(file, report))],
        Some(Engine::Ort) => return vec![("ort", engine.load(file, report))],
        None => {}
    }
    let mut all = Vec::new();
    if !matches!(engine.device, Some(DeviceChoice::Cuda(_))) {
        let tract = EngineArgs { engine: Some(Engine::Tract), ..EngineArgs::default() };
        all.push(("tract", tract.load(file, report)));
    }
    #[cfg(feature = "ort")]
    all.extend(ort::present(engine, file, report));
    #[cfg(not(feature = "ort"))]
    report.note("ort: this build has no ONNX Runtime engine");
    all
}

/// The error about a device that was asked for and cannot be had.
pub fn unusable(n: u32, why: impl std::fmt::Display) -> Error {
    Error::Invalid(format!("--device cuda:{n} cannot be used: {why}"))
}

#[cfg(feature = "ort")]
pub mod ort {
    //! The half that exists where ONNX Runtime may be used.

    use cmf_core::gaussian::Gaussian;
    use cmf_core::icnn::{Architecture, GibbsFactor, Head, Icnn, initial_weights};
    use cmf_core::onnx::{Device, Metadata, OnnxRuntime, OrtModel, Probe, export};
    use cmf_core::ops::Activation;
    use cmf_plugins::host::onnxruntime::{self, Choice, Found};

    use super::*;

    /// A library that was found, checked and started.
    pub struct Library {
        /// Which.
        pub found: Found,
        runtime: &'static OnnxRuntime,
    }

    /// The model on every device of ONNX Runtime that is present.
    pub fn present(engine: &EngineArgs, file: &ModelFile, report: &Report) -> Vec<Present> {
        let named = engine.ort_lib.is_some() || matches!(engine.device, Some(DeviceChoice::Cuda(_)));
        let library = match named {
            true => Library::require(&engine.choice()).map(Some),
            false => Library::find(&engine.choice()),
        };
        let library = match library {
            Ok(Some(library)) => library,
            Ok(None) => {
                report
                    .note("ort: no libonnxruntime was found; `cmf-cli doctor` says where it was looked for");
                return Vec::new();
            }
            Err(e) => return vec![("ort", Err(e))],
        };
        if matches!(engine.device, Some(DeviceChoice::Cpu | DeviceChoice::Cuda(_))) {
            return vec![("ort", library.load(file, engine.device, report))];
        }
        let mut all = vec![("ort", library.load_on(file, Device::Cpu))];
        match library.load_on(file, Device::Cuda(0)) {
            Ok(loaded) => all.push(("ort", Ok(loaded))),
            Err(e) => report.note(format!("no GPU: {e}")),
        }
        all
    }

    impl Library {
        /// The library; an error says where it was looked for.
        pub fn require(choice: &Choice) -> Result<Library> {
            Library::start(onnxruntime::require(choice, OnnxRuntime::OLDEST_MINOR)?)
        }

        /// The library, if there is one.
        pub fn find(choice: &Choice) -> Result<Option<Library>> {
            onnxruntime::find(choice, OnnxRuntime::OLDEST_MINOR)?.map(Library::start).transpose()
        }

        fn start(found: Found) -> Result<Library> {
            Ok(Library { runtime: OnnxRuntime::start(&found.path)?, found })
        }

        /// The file that would be loaded, which this does not.
        pub fn located(choice: &Choice) -> Result<Option<PathBuf>> {
            onnxruntime::located(choice, OnnxRuntime::OLDEST_MINOR)
        }

        /// Runs a small model on the processor.
        pub fn try_out(&self) -> Result<()> {
            let d = 2;
            let gaussian = Gaussian { mean: vec![0.0; d], covariance: vec![1.0, 0.0, 0.0, 1.0].into() };
            let activation = Activation::Softplus { beta: 1.0 };
            let (head, gibbs) = (Head::Full, GibbsFactor::Whole);
            let widths = vec![4];
            let arch = Architecture { dim: d, widths, rank: 1, diagonal: false, activation, head, gibbs };
            let weights = initial_weights(&arch, &gaussian.quadratic_start()?, 0)?;
            let network = Icnn::new(arch.clone(), weights)?.cast::<f32>()?;
            let probes = Probe::record(&network.cast::<f64>()?, &[0.5, -0.5])?;
            let folder = tempfile::tempdir().map_err(|e| Error::file("the temporary folder", e))?;
            let path = folder.path().join("small.onnx");
            export(&path, &network, &Metadata { probes, ..Metadata::new(arch) })?;
            // Replays the probe.
            OrtModel::load(&ModelFile::open(&path)?, self.runtime, Device::Cpu).map(|_| ())
        }

        /// Why it has no GPU to offer, as far as is known without trying.
        pub fn cuda_missing(&self) -> Option<&'static str> {
            self.runtime.cuda_missing()
        }

        /// The model on the device of the user's choice, which is said where it is this program's.
        pub fn load(
            &self,
            file: &ModelFile,
            device: Option<DeviceChoice>,
            report: &Report,
        ) -> Result<Loaded> {
            match device.unwrap_or(DeviceChoice::Auto) {
                DeviceChoice::Cpu => self.load_on(file, Device::Cpu),
                DeviceChoice::Cuda(n) => self.load_on(file, Device::Cuda(n)).map_err(|e| unusable(n, e)),
                DeviceChoice::Auto => {
                    let (mut loaded, why) = match self.cuda_missing() {
                        Some(why) => (self.load_on(file, Device::Cpu)?, why.to_string()),
                        None => match self.load_on(file, Device::Cuda(0)) {
                            Ok(loaded) => (loaded, "the first GPU".into()),
                            Err(e) => {
                                (self.load_on(file, Device::Cpu)?, format!("cuda:0 cannot be used: {e}"))
                            }
                        },
                    };
                    report.note(format!("device: {} ({why})", loaded.worker.device));
                    loaded.worker.device_why = Some(why);
                    Ok(loaded)
                }
            }
        }

        /// The model on one device.
        pub fn load_on(&self, file: &ModelFile, device: Device) -> Result<Loaded> {
            let device_missing = match device {
                Device::Cuda(_) => self.cuda_missing(),
                Device::Cpu => None,
            };
            if let Some(why) = device_missing {
                return Err(Error::Engine { engine: "ort", message: why.into() });
            }
            let worker = Worker {
                engine: Engine::Ort,
                device: device.to_string(),
                device_why: None,
                onnxruntime: Some(self.found.version.clone()),
            };
            Ok(Loaded { potential: Box::new(OrtModel::load(file, self.runtime, device)?), worker })
        }
    }
}

/// Refuses results that no working engine gives: numbers that are not finite, or rows [n, d] that are all the
/// same where chance made them differ.
pub fn check_results(what: &str, rows: &[f64], d: usize) -> Result<()> {
    if let Some(at) = rows.iter().position(|v| !v.is_finite()) {
        return Err(Error::NotFinite(format!("{what} {}", at / d + 1)));
    }
    let (first, rest) = rows.split_at(d.min(rows.len()));
    if !rest.is_empty() && rest.chunks_exact(d).all(|row| row == first) {
        return Err(Error::Invalid(format!(
            "every {what} is the same, which chance does not make: the engine is broken, try `cmf-cli verify`"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named() {
        assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert_eq!("cuda:3".parse(), Ok(DeviceChoice::Cuda(3)));
        assert!("gpu".parse::<DeviceChoice>().is_err() && "cuda:-1".parse::<DeviceChoice>().is_err());
    }

    #[test]
    fn results_that_no_engine_gives_are_refused() {
        assert!(check_results("sample", &[1.0, 2.0, 1.0, 3.0], 2).is_ok());
        assert!(check_results("sample", &[1.0, 2.0], 2).is_ok(), "one row is constant by itself");
        assert!(check_results("sample", &[], 2).is_ok());
        let nan = check_results("sample", &[1.0, 2.0, 1.0, f64::NAN], 2).unwrap_err().to_string();
        assert!(nan.contains("sample 2 is not finite"), "{nan}");
        assert!(check_results("sample", &[1.0, 2.0, 1.0, 2.0], 2).is_err());
    }
}
