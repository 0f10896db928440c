//! Builds plugins and runs the binary where no plugin of the machine's own can interfere.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::common::{Finished, binary};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Compiles a C plugin against the header in `include` (from the root of the repository).
pub fn cc(source: &Path, include: &str, defines: &[&str], out: &Path) {
    let compiler = std::env::var("CC").unwrap_or("cc".into());
    let mut command = Command::new(compiler);
    command.args(["-std=c11", "-Wall", "-Wextra", "-O1", "-fPIC", "-shared", "-fvisibility=hidden"]);
    command.args(defines).arg("-I").arg(root().join(include)).arg("-o").arg(out).arg(source).arg("-lm");
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Builds a plugin crate and gives its library. All share one target folder, so that what they depend on is
/// compiled once.
pub fn cargo(project: &Path, name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin-builds");
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--release", "--offline", "--quiet"]).current_dir(project);
    command.env("CARGO_TARGET_DIR", &target).env_remove("RUSTFLAGS");
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let library = format!("{}{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    target.join("release").join(library)
}

/// An example plugin in Rust, built once; a copy, so that building leaves no lock file in the sources.
pub fn example(kind: &str) -> PathBuf {
    static TASK: OnceLock<PathBuf> = OnceLock::new();
    static DATASET: OnceLock<PathBuf> = OnceLock::new();
    static ENERGY: OnceLock<PathBuf> = OnceLock::new();
    let (place, name) = match kind {
        "task" => (&TASK, "denoise"),
        "dataset" => (&DATASET, "two_moons"),
        _ => (&ENERGY, "double_well"),
    };
    place.get_or_init(|| copied(&format!("examples/plugin-{kind}-rust"), name)).clone()
}

/// The plugin that panics, built once.
pub fn panics() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| copied("tests/plugins/panics", "panics")).clone()
}

fn copied(project: &str, name: &str) -> PathBuf {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("src")).unwrap();
    let manifest = std::fs::read_to_string(root().join(project).join("Cargo.toml")).unwrap();
    let kit = format!("path = {:?}", root().join("cmf-plugins/sdk"));
    let path = manifest.find("path = \"").unwrap();
    let end = path + 8 + manifest[path + 8..].find('"').unwrap() + 1;
    let manifest = [&manifest[..path], &kit, &manifest[end..]].concat();
    std::fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
    std::fs::copy(root().join(project).join("src/lib.rs"), folder.path().join("src/lib.rs")).unwrap();
    cargo(folder.path(), name)
}

/// This project's own plugin library, which cargo builds beside the tests.
pub fn own() -> PathBuf {
    let name = format!("{}cmf_plugins{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    let places = [folder.join(&name), folder.join("..").join(&name)];
    places.into_iter().find(|p| p.is_file()).expect("cargo builds the cdylib of cmf-plugins")
}

/// The binary in `folder`, which is also its home; no plugin path is set.
pub fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = binary();
    command.current_dir(folder).args(args).env("HOME", folder).env_remove("CMF_PLUGIN_PATH");
    command.env("XDG_DATA_HOME", folder.join("data")).env("XDG_CONFIG_HOME", folder.join("config"));
    command
}

pub fn cli(folder: &Path, args: &[&str]) -> Finished {
    command(folder, args).output().unwrap().into()
}
