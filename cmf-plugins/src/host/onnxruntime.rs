//! ONNX Runtime's library: where it is looked for, and what a file is, before anything starts it.
//!
//! What starts it trusts the file: one that is missing, damaged, of another machine or too old has made
//! programs hang and crash. So here the file is read first, then loaded and asked for its version, and each
//! way in which it does not serve has its own message.

use std::env::consts::{ARCH, DLL_PREFIX, DLL_SUFFIX};
use std::ffi::{CStr, c_char, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cmf_core::{Error, Result};

use super::library::{find_library, load_for_good, reason};
use super::process::output_within;

/// Which library the user wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first that is found: `ORT_DYLIB_PATH`, beside the executable, the system's folders.
    #[default]
    Search,
    /// That of the Python package `onnxruntime`.
    Python,
    /// This file, or the one in this folder.
    Path(PathBuf),
}

/// A library that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The file itself, symbolic links resolved.
    pub path: PathBuf,
    /// What it says its version is.
    pub version: String,
    /// How it came to be found.
    pub origin: &'static str,
}

/// How long a Python may take to say where a package lies.
const PATIENCE: Duration = Duration::from_secs(20);

/// Names the file that the user asked for, or the first that is there, whatever it is.
enum Located {
    File(PathBuf, &'static str),
    /// Nothing, in any of these places.
    Nowhere(Vec<String>),
}

/// The library of `choice`, whose version is at least 1.`oldest`; none if a search finds no file.
///
/// Fails if the file that was found or named does not serve: no other is taken in its place.
pub fn find(choice: &Choice, oldest: u32) -> Result<Option<Found>> {
    match locate(choice, oldest)? {
        Located::Nowhere(_) => Ok(None),
        Located::File(path, origin) => inspect(&path, oldest, origin).map(Some),
    }
}

/// The file that [`find`] would load, which this does not.
pub fn located(choice: &Choice, oldest: u32) -> Result<Option<PathBuf>> {
    match locate(choice, oldest)? {
        Located::Nowhere(_) => Ok(None),
        Located::File(path, _) => Ok(Some(path)),
    }
}

/// As [`find`], where a library must be there: the error says where it was looked for and what to do.
pub fn require(choice: &Choice, oldest: u32) -> Result<Found> {
    match locate(choice, oldest)? {
        Located::File(path, origin) => inspect(&path, oldest, origin),
        Located::Nowhere(places) => Err(Error::Engine {
            engine: "ort",
            message: format!(
                "ONNX Runtime's library {} was not found in: {}. {}",
                library_name(),
                places.join("; "),
                advice(oldest)
            ),
        }),
    }
}

/// What to install.
fn advice(oldest: u32) -> String {
    format!(
        "Install ONNX Runtime 1.{oldest} or later: unpack an archive of https://github.com/microsoft/onnxruntime/releases \
         and name its {} with --ort-lib or ORT_DYLIB_PATH; or `pip install onnxruntime` and use --ort-lib python",
        library_name()
    )
}

fn library_name() -> String {
    format!("{DLL_PREFIX}onnxruntime{DLL_SUFFIX}")
}

fn locate(choice: &Choice, oldest: u32) -> Result<Located> {
    let variable = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty());
    let named = |path: &Path, origin| match path.is_dir() {
        true => library_in(path).map(|file| Located::File(file, origin)).ok_or_else(|| {
            let message = format!("is a folder without {} ({origin}). {}", library_name(), advice(oldest));
            Error::file(path, message)
        }),
        false if path.exists() => Ok(Located::File(path.to_path_buf(), origin)),
        false => {
            let found = format!("there is no such file ({origin}), expected {}", library_name());
            Err(Error::file(path, format!("{found}. {}", advice(oldest))))
        }
    };
    match (choice, variable) {
        (Choice::Path(path), _) => named(path, "--ort-lib"),
        (Choice::Python, _) => Ok(Located::File(of_python()?, "the Python package onnxruntime")),
        (Choice::Search, Some(path)) => named(Path::new(&path), "ORT_DYLIB_PATH"),
        (Choice::Search, None) => Ok(search()),
    }
}

fn search() -> Located {
    let mut places = vec!["ORT_DYLIB_PATH (not set)".to_string()];
    let exe = std::env::current_exe().and_then(|exe| exe.canonicalize()).ok();
    if let Some(folder) = exe.as_deref().and_then(Path::parent) {
        if let Some(file) = library_in(folder) {
            return Located::File(file, "beside the executable");
        }
        places.push(format!("{} (beside the executable)", folder.display()));
    }
    for folder in system_folders() {
        if let Some(file) = library_in(&folder) {
            return Located::File(file, "the system's library folders");
        }
        places.push(folder.display().to_string());
    }
    Located::Nowhere(places)
}

/// The folders that the system's loader looks in, those of its search variable first.
fn system_folders() -> Vec<PathBuf> {
    let (variable, fixed): (&str, Vec<String>) = match std::env::consts::OS {
        "windows" => ("PATH", Vec::new()),
        "macos" => ("DYLD_LIBRARY_PATH", ["/usr/local/lib", "/opt/homebrew/lib"].map(String::from).into()),
        _ => {
            let multi_arch = format!("/usr/lib/{ARCH}-linux-gnu");
            let plain = ["/usr/local/lib", "/usr/local/lib64", &multi_arch, "/usr/lib64", "/usr/lib"];
            ("LD_LIBRARY_PATH", plain.map(String::from).into())
        }
    };
    let variable = std::env::var_os(variable).unwrap_or_default();
    // A relative part would be the working directory, from which nothing is loaded unasked.
    let given = std::env::split_paths(&variable).filter(|folder| folder.is_absolute());
    given.chain(fixed.into_iter().map(PathBuf::from)).collect()
}

/// The library in a folder: by its plain name, or else the highest of those with a version in their name.
fn library_in(folder: &Path) -> Option<PathBuf> {
    let plain = folder.join(library_name());
    if plain.exists() {
        return Some(plain);
    }
    let stem = format!("{DLL_PREFIX}onnxruntime.");
    let version = |path: &PathBuf| -> Option<Vec<u32>> {
        let name = path.file_name()?.to_str()?;
        // libonnxruntime.so.1.22.0 on Linux, libonnxruntime.1.22.0.dylib on macOS.
        let rest = name.strip_prefix(&stem)?.replace(&DLL_SUFFIX[1..], "");
        rest.trim_matches('.').split('.').map(|part| part.parse().ok()).collect()
    };
    let files = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    files.filter(|path| version(path).is_some()).max_by_key(version)
}

/// Asks the Python that the path finds where its package onnxruntime lies; nothing of the package runs.
fn of_python() -> Result<PathBuf> {
    // Python would look in the working directory first.
    const WHERE: &str = "import sys; sys.path = [p for p in sys.path if p]; import importlib.util as u; \
                         s = u.find_spec('onnxruntime'); print(s.submodule_search_locations[0] if s else '')";
    let fail =
        |message: String| Error::Engine { engine: "ort", message: format!("--ort-lib python: {message}") };
    let names = if cfg!(windows) { ["python", "py"] } else { ["python3", "python"] };
    let mut said = Vec::new();
    for name in names {
        match ask(Command::new(name).args(["-c", WHERE])) {
            Ok(folder) if folder.is_empty() => said.push(format!("{name} has no package onnxruntime")),
            Ok(folder) => return library_of_package(Path::new(&folder)).map_err(fail),
            Err(why) => said.push(format!("{name} {why}")),
        }
    }
    Err(fail(format!(
        "{}: pip install onnxruntime, or activate the environment that has it",
        said.join("; ")
    )))
}

/// What a program prints, if it ends well and soon.
fn ask(command: &mut Command) -> Result<String, String> {
    let output = output_within(command, PATIENCE).map_err(|e| format!("cannot be run ({e})"))?;
    let output = output.ok_or_else(|| format!("gave no answer in {} seconds", PATIENCE.as_secs()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_string());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
    Err(format!("failed ({}{}{said})", output.status, if said.is_empty() { "" } else { ": " }))
}

/// The library in the folder of the Python package.
fn library_of_package(folder: &Path) -> Result<PathBuf, String> {
    let folder = folder.join("capi");
    library_in(&folder).ok_or_else(|| {
        format!(
            "{} holds no {}, which newer packages do: pip install --upgrade onnxruntime",
            folder.display(),
            library_name()
        )
    })
}

/// Reads a file, then loads it and asks for its version.
fn inspect(path: &Path, oldest: u32, origin: &'static str) -> Result<Found> {
    let refused =
        |message: String| Error::file(path, format!("{message} (found: {origin}). {}", advice(oldest)));
    let without = "so it is not ONNX Runtime's library";
    let real = find_library(path, "OrtGetApiBase", without).map_err(|e| match e {
        Error::File { message, .. } => refused(message),
        other => other,
    })?;
    let version = version(&real, oldest).map_err(refused)?;
    Ok(Found { path: real, version, origin })
}

/// The start of ONNX Runtime's `OrtApiBase`, the same in each of its releases.
#[repr(C)]
struct ApiBase {
    get_api: Option<unsafe extern "system" fn(version: u32) -> *const c_void>,
    get_version_string: Option<unsafe extern "system" fn() -> *const c_char>,
}

/// Loads the library and asks for its version, which must be 1.`oldest` or a later 1.
fn version(path: &Path, oldest: u32) -> Result<String, String> {
    // SAFETY: running a library's code is as safe as the library, which the user named or installed; the file was
    // read before and is a whole library of this machine. What starts it next gets the same one.
    let library = unsafe { load_for_good(path) }?;
    // SAFETY: by ONNX Runtime's header this symbol is a function without arguments that returns such a pointer.
    let get = unsafe { library.get::<unsafe extern "system" fn() -> *const ApiBase>("OrtGetApiBase") }
        .map_err(|e| format!("lacks the symbol OrtGetApiBase: {}", reason(&e)))?;
    // SAFETY: as above; a pointer that is not NULL lives as long as the library.
    let base = unsafe { get().as_ref() }.ok_or("its OrtGetApiBase leads nowhere")?;
    let (Some(get_api), Some(get_version)) = (base.get_api, base.get_version_string) else {
        return Err("its OrtApiBase has empty entries".into());
    };
    // SAFETY: by the header, text that ends in NUL and lives as long as the library, if it is not NULL.
    let text = unsafe {
        let text = get_version();
        (!text.is_null()).then(|| CStr::from_ptr(text))
    };
    let version = text.and_then(|t| t.to_str().ok()).ok_or("its version is no text")?.to_string();
    check_version(&version, oldest)?;
    // SAFETY: by the header, asking for any version is allowed; NULL says that it is not supported.
    if unsafe { get_api(oldest) }.is_null() {
        return Err(format!("is version {version}, yet does not offer the interface of 1.{oldest}"));
    }
    Ok(version)
}

fn check_version(version: &str, oldest: u32) -> Result<(), String> {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(1), Some(minor)) if minor >= oldest => Ok(()),
        (Some(0 | 1), _) => {
            Err(format!("is version {version}, which is too old: expected 1.{oldest} or a later 1"))
        }
        (Some(_), _) => {
            Err(format!("is version {version}, which is too new: expected 1.{oldest} or a later 1"))
        }
        (None, _) => Err(format!("says that its version is {version:?}, expected 1.{oldest} or a later 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_from_the_oldest_to_the_end_of_1_serve() {
        for (version, words) in [
            ("1.17.0", ""),
            ("1.32.0", ""),
            ("1.100.1-dev", ""),
            ("1.16.3", "too old"),
            ("0.5.0", "too old"),
            ("2.0.0", "too new"),
            ("", "says that its version is"),
            ("nightly", "says that its version is"),
        ] {
            match check_version(version, 17) {
                Ok(()) => assert!(words.is_empty(), "{version}"),
                Err(e) => assert!(!words.is_empty() && e.contains(words), "{version}: {e}"),
            }
        }
    }

    #[test]
    fn the_plain_name_goes_first_and_then_the_highest_version() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(library_in(folder.path()), None);
        let versioned = |v: &str| match DLL_SUFFIX {
            ".dylib" => format!("{DLL_PREFIX}onnxruntime.{v}.dylib"),
            suffix => format!("{DLL_PREFIX}onnxruntime{suffix}.{v}"),
        };
        for name in [versioned("1.9.0"), versioned("1.22.0"), "libonnxruntime_providers_shared.so".into()] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        if cfg!(not(windows)) {
            assert_eq!(library_in(folder.path()), Some(folder.path().join(versioned("1.22.0"))));
        }
        std::fs::write(folder.path().join(library_name()), "").unwrap();
        assert_eq!(library_in(folder.path()), Some(folder.path().join(library_name())));
    }
}
