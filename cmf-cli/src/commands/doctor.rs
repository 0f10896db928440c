//! `cmf-cli doctor`: what this machine offers, what of it is used, and why the rest is not.

use std::path::{Path, PathBuf};
#[cfg(feature = "ort")]
use std::process::Command;
#[cfg(feature = "ort")]
use std::time::Duration;

use clap::Args;
use cmf_core::Result;
use cmf_core::onnx::ModelFile;
#[cfg(feature = "ort")]
use cmf_plugins::host::output_within;
use cmf_plugins::host::{Origin, Search, cuda, plugin_folder};
use serde_json::{Value, json};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use crate::engine::EngineArgs;
use crate::report::{Outcome, Report};

/// Print what this machine offers to the program: processor, memory, engines, GPU, plugins, models.
///
/// What is found and does not work is marked with an exclamation mark, and makes the exit code 1.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cmf-cli doctor
  cmf-cli doctor --ort-lib /opt/onnxruntime/lib/libonnxruntime.so
  cmf-cli doctor --json | jq .onnxruntime")]
pub struct Doctor {
    /// ONNX Runtime's library, a folder that holds it, or `python` for that of the installed Python package
    #[arg(long, value_name = "PATH|python")]
    ort_lib: Option<PathBuf>,
    /// Try the library out and end: what doctor starts, since a damaged one may end the program
    #[cfg(feature = "ort")]
    #[arg(long, hide = true)]
    try_onnxruntime: bool,
    #[command(flatten)]
    report: Report,
}

/// What was found of one thing: for people, for programs, and whether it is as it should be.
struct Finding {
    key: &'static str,
    lines: Vec<String>,
    value: Value,
    broken: bool,
    /// The line that says what is broken.
    wrong: usize,
}

impl Finding {
    fn new(key: &'static str, lines: Vec<String>, value: Value) -> Finding {
        Finding { key, lines, value, broken: false, wrong: 0 }
    }

    fn broken(key: &'static str, line: String) -> Finding {
        Finding { key, value: json!({ "error": line }), lines: vec![line], broken: true, wrong: 0 }
    }
}

impl Doctor {
    /// Runs the command.
    pub fn run(self) -> Result<Outcome> {
        let engine = EngineArgs { ort_lib: self.ort_lib.clone(), ..EngineArgs::default() };
        #[cfg(feature = "ort")]
        if self.try_onnxruntime {
            return crate::engine::ort::Library::require(&engine.choice())?.try_out().map(|()| Outcome::Done);
        }
        let onnxruntime = onnxruntime(&engine);
        let mut findings = vec![program(), processor(), memory()];
        findings.push(cuda(&onnxruntime));
        findings.push(onnxruntime);
        findings.push(plugins());
        findings.push(models());
        let mut document = serde_json::Map::new();
        for finding in findings.iter() {
            for (i, line) in finding.lines.iter().enumerate() {
                let key = if i == 0 { finding.key } else { "" };
                let mark = if finding.broken && i == finding.wrong { "!" } else { " " };
                self.report.text(format!("{mark} {key:<13} {line}"))?;
            }
            document.insert(finding.key.replace(' ', "_"), finding.value.clone());
        }
        let healthy = findings.iter().all(|finding| !finding.broken);
        document.insert("healthy".into(), healthy.into());
        self.report.document(&document)?;
        Ok(Outcome::of(healthy))
    }
}

fn program() -> Finding {
    let known = [
        (cfg!(feature = "train"), "train"),
        (cfg!(feature = "ort"), "ort"),
        (cfg!(feature = "cuda"), "cuda"),
    ];
    let features: Vec<&str> = known.iter().filter(|f| f.0).map(|f| f.1).collect();
    let version = env!("CARGO_PKG_VERSION");
    let system = System::long_os_version().unwrap_or_else(|| std::env::consts::OS.into());
    let line = format!("cmf-cli {version} with {} on {system}", features.join(", "));
    Finding::new("program", vec![line], json!({ "version": version, "features": features, "system": system }))
}

fn processor() -> Finding {
    let what = RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing());
    let system = System::new_with_specifics(what);
    let brand = system.cpus().first().map(|cpu| cpu.brand().trim().to_string()).unwrap_or_default();
    let features = cpu_features();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = rayon::current_num_threads();
    let lines = vec![
        format!("{brand} ({}), {cores} cores for this process, {threads} threads", std::env::consts::ARCH),
        format!(
            "vector instructions: {}",
            if features.is_empty() { "none known".into() } else { features.join(", ") }
        ),
    ];
    let value = json!({
        "name": brand, "architecture": std::env::consts::ARCH, "features": features, "cores": cores, "threads": threads,
    });
    Finding::new("processor", lines, value)
}

/// The vector instructions that the engines have products for.
fn cpu_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let known = [
        (std::is_x86_feature_detected!("sse4.2"), "sse4.2"),
        (std::is_x86_feature_detected!("avx"), "avx"),
        (std::is_x86_feature_detected!("avx2"), "avx2"),
        (std::is_x86_feature_detected!("fma"), "fma"),
        (std::is_x86_feature_detected!("avx512f"), "avx512f"),
    ];
    #[cfg(target_arch = "aarch64")]
    let known = [
        (std::arch::is_aarch64_feature_detected!("neon"), "neon"),
        (std::arch::is_aarch64_feature_detected!("fp16"), "fp16"),
        (std::arch::is_aarch64_feature_detected!("sve"), "sve"),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let known: [(bool, &str); 0] = [];
    known.iter().filter(|f| f.0).map(|f| f.1).collect()
}

fn memory() -> Finding {
    let system =
        System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::everything()));
    let (total, available) = (system.total_memory(), system.available_memory());
    let gib = |bytes: u64| bytes as f64 / (1 << 30) as f64;
    let line = format!("{:.1} GiB, {:.1} GiB available", gib(total), gib(available));
    Finding::new("memory", vec![line], json!({ "total_bytes": total, "available_bytes": available }))
}

#[cfg(not(feature = "ort"))]
fn onnxruntime(_engine: &EngineArgs) -> Finding {
    let line = "this build has no ONNX Runtime engine: build it with the feature `ort`".to_string();
    Finding::new("onnxruntime", vec![line.clone()], json!({ "found": false, "why": line, "cuda": false }))
}

/// The library, whether it serves, and whether it could use a GPU.
#[cfg(feature = "ort")]
fn onnxruntime(engine: &EngineArgs) -> Finding {
    use crate::engine::ort::Library;
    let choice = engine.choice();
    let located = Library::located(&choice).ok().flatten();
    let said = match located.map(|path| try_out(&path)).transpose() {
        Ok(said) => said.flatten(),
        Err(why) => return Finding::broken("onnxruntime", why),
    };
    match (Library::find(&choice), said) {
        (Ok(Some(_)), Some(said)) => Finding::broken("onnxruntime", said),
        (Ok(Some(library)), None) => {
            let found = &library.found;
            let cuda = library.cuda_missing().is_none();
            let providers = if cuda { vec!["cpu", "cuda"] } else { vec!["cpu"] };
            let lines = vec![
                format!("{} at {} (found: {})", found.version, found.path.display(), found.origin),
                format!("computes on: {}", providers.join(", ")),
            ];
            let value = json!({
                "found": true, "version": found.version, "path": found.path, "origin": found.origin,
                "providers": providers, "cuda": cuda,
            });
            Finding::new("onnxruntime", lines, value)
        }
        (Ok(None), _) => match Library::require(&choice).err() {
            Some(why) => {
                let value = json!({ "found": false, "why": why.to_string(), "cuda": false });
                Finding::new("onnxruntime", vec![format!("not found; tract serves without it. {why}")], value)
            }
            None => Finding::broken("onnxruntime", "appeared just now; ask again".into()),
        },
        (Err(e), _) => Finding::broken("onnxruntime", e.to_string()),
    }
}

/// How long a library may take to run a small model.
#[cfg(feature = "ort")]
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a small model by the library in a process of its own, which a damaged one may end: what it says where that fails in
/// words, and an error where it does not.
#[cfg(feature = "ort")]
fn try_out(path: &Path) -> Result<Option<String>, String> {
    let program = std::env::current_exe().map_err(|e| format!("this program is not found: {e}"))?;
    let mut command = Command::new(program);
    command.args(["doctor", "--try-onnxruntime", "--ort-lib"]).arg(path);
    let output = output_within(&mut command, PATIENCE)
        .map_err(|e| format!("{}: cannot be tried out: {e}", path.display()))?;
    let output = output.ok_or_else(|| {
        format!("{}: has run no small model in {} seconds", path.display(), PATIENCE.as_secs())
    })?;
    match output.status.code() {
        Some(0) => Ok(None),
        Some(1) => Ok(Some(String::from_utf8_lossy(&output.stderr).trim().replacen("error: ", "", 1))),
        _ => Err(format!(
            "{}: ends a program that loads it and runs a small model ({}): it is damaged, install ONNX Runtime again",
            path.display(),
            output.status
        )),
    }
}

/// Why no GPU trains.
#[cfg(feature = "train")]
fn no_training() -> Option<String> {
    crate::training_device::missing(0)
}

/// Why no GPU trains.
#[cfg(not(feature = "train"))]
fn no_training() -> Option<String> {
    Some("this build does not train: build it with the features `train` and `cuda`".into())
}

fn cuda(onnxruntime: &Finding) -> Finding {
    let (driver, why) = match cuda::driver() {
        Err(why) => (None, Some(why)),
        Ok(driver) => {
            let why = match (&onnxruntime.value["found"], &onnxruntime.value["cuda"]) {
                (_, Value::Bool(true)) => None,
                (Value::Bool(true), _) => Some("the libonnxruntime below was built without CUDA".to_string()),
                _ => Some("tract computes on processors only, and no libonnxruntime serves".to_string()),
            };
            (Some(driver), why)
        }
    };
    let mut lines = Vec::new();
    if let Some(driver) = &driver {
        lines.push(format!("driver for CUDA {}, GPUs: {}", driver.cuda, driver.devices.join(", ")));
    }
    lines.push(match &why {
        Some(why) => format!("not used: {why}"),
        None => "used by --engine ort --device cuda".into(),
    });
    let no_training = no_training();
    lines.push(match &no_training {
        Some(why) => format!("not used in training: {why}"),
        None => "used by train --device cuda".into(),
    });
    let value = json!({
        "driver": driver.as_ref().map(|d| &d.cuda), "devices": driver.map_or(Vec::new(), |d| d.devices), "not_used": why,
        "not_used_in_training": no_training,
    });
    Finding::new("cuda", lines, value)
}

fn plugins() -> Finding {
    let found = match Search::default().find() {
        Ok(found) => found,
        Err(e) => return Finding::broken("plugins", e.to_string()),
    };
    let folder = plugin_folder();
    let count = |origin: Origin| found.iter().filter(|f| f.origin == origin).count();
    let mut lines = vec![match &folder {
        Some(folder) if folder.is_dir() => {
            format!("{}: {} libraries", folder.display(), count(Origin::Folder))
        }
        Some(folder) => format!("{}: no such folder", folder.display()),
        None => "no home folder to keep them in".into(),
    }];
    lines.push(match std::env::var("CMF_PLUGIN_PATH") {
        Ok(path) if !path.is_empty() => format!("CMF_PLUGIN_PATH {path}: {} libraries", count(Origin::Path)),
        _ => "CMF_PLUGIN_PATH is not set".into(),
    });
    let libraries: Vec<&Path> = found.iter().map(|f| f.path.as_path()).collect();
    Finding::new("plugins", lines, json!({ "folder": folder, "libraries": libraries }))
}

/// The model files in `models` of the working directory and of the executable's folder.
fn models() -> Finding {
    let exe = std::env::current_exe().ok();
    let beside = exe.as_deref().and_then(Path::parent).map(|folder| folder.join("models"));
    let mut folders = vec![PathBuf::from("models")];
    folders.extend(beside);
    let (mut lines, mut all, mut wrong) = (Vec::new(), Vec::new(), None);
    for folder in &folders {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> =
            entries.map(|e| e.path()).filter(|path| path.extension().is_some_and(|e| e == "onnx")).collect();
        files.sort();
        for path in files {
            let opened = ModelFile::open(&path).map(|file| file.dim());
            if opened.is_err() {
                wrong = wrong.or(Some(lines.len()));
            }
            lines.push(match &opened {
                Ok(d) => format!("{}: {d} dimensions", path.display()),
                Err(e) => e.to_string(),
            });
            let error = opened.as_ref().err().map(ToString::to_string);
            all.push(json!({ "file": path, "dimension": opened.ok(), "error": error }));
        }
    }
    if lines.is_empty() {
        let names: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
        lines.push(format!("none in {}", names.join(" or ")));
    }
    let (broken, wrong) = (wrong.is_some(), wrong.unwrap_or_default());
    Finding { key: "models", lines, value: json!(all), broken, wrong }
}
