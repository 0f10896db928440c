//! Data sets: the built-in ones and the registry that opens them by name.

mod cartoonset;
mod csv_table;
mod entries;
mod idx;
mod images;
mod memory;
mod npy;
mod synthetic_faces;
mod toys;

use std::env::consts::DLL_EXTENSION;
use std::path::Path;

use cmf_core::{Error, Result};
use cmf_plugin::Parameters;

pub use cmf_plugin::{DataSet, Shape, Split};

/// A data set with what a model card says of it.
pub struct Opened {
    /// The examples.
    pub data: Box<dyn DataSet>,
    /// SHA-256, in hexadecimal, of the decoded training split: one line `TYPE N AXES...\n` with the type as
    /// stored (`u8`, `f32`, `f64`), such as `u8 60000 28 28 1`, then the values in little-endian order.
    pub sha256: String,
    /// The licence of the data and whom to credit, where known.
    pub licence: Option<String>,
}

pub use entries::DATASETS;
pub use memory::{all_rows, opened};

/// One entry of the registry.
pub struct Builtin {
    /// The name on the command line.
    pub name: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// Whether it reads a file or folder; the others are generated from a seed.
    pub needs_path: bool,
}

/// Opens what lies at a path.
type FromPath = fn(&Path) -> Result<Opened>;

static SYNTHETIC_FACES: Builtin =
    builtin("synthetic-faces", "cartoon faces drawn from a seed, 32x32 RGB; not the Cartoon Set", false);

static FROM_PATH: [(Builtin, FromPath); 5] = [
    (builtin("mnist", "a folder with the four idx files of MNIST, gzipped or not", true), idx::open),
    (builtin("images", "a folder of images of one size, grey or RGB", true), images::open),
    (
        builtin("cartoonset", "Google's Cartoon Set: cartoonset10k.tgz or its folder, 32x32 RGB", true),
        |path| cartoonset::open(path, cartoonset::SIDE),
    ),
    (builtin("npy", "a NumPy array [n, d], [n, h, w] or [n, h, w, c]", true), npy::open),
    (builtin("csv", "a table of numbers, one example a line", true), csv_table::open),
];

const fn builtin(name: &'static str, about: &'static str, needs_path: bool) -> Builtin {
    Builtin { name, about, needs_path }
}

/// The built-in data sets.
pub fn builtins() -> impl Iterator<Item = &'static Builtin> {
    FROM_PATH.iter().map(|(b, _)| b).chain([&SYNTHETIC_FACES]).chain(toys::TOYS.iter().map(|(b, _)| b))
}

/// Opens the data set `name`, from `path` if it reads files, from `seed` if it is generated.
///
/// # Errors
/// An unknown name, a path that is missing or not wanted, and everything that is wrong with a file: the
/// message names the file, what was found, what was expected and what to do.
pub fn open(name: &str, path: Option<&Path>, seed: u64) -> Result<Opened> {
    if let Some((_, open)) = FROM_PATH.iter().find(|(b, _)| b.name == name) {
        let path = path.ok_or_else(|| Error::Invalid(format!("the data set {name} needs a path")))?;
        return open(path);
    }
    if !builtins().any(|b| b.name == name) {
        let known: Vec<&str> = builtins().map(|b| b.name).collect();
        return Err(Error::Invalid(format!(
            "there is no data set {name}; expected one of {}",
            known.join(", ")
        )));
    }
    if let Some(path) = path {
        let path = path.display();
        return Err(Error::Invalid(format!(
            "the data set {name} is generated and takes no path, found {path}"
        )));
    }
    Ok(match toys::TOYS.iter().find(|(b, _)| b.name == name) {
        Some((_, draw)) => toys::open(*draw, seed),
        None => {
            let (rows, side) = (synthetic_faces::ROWS, cartoonset::SIDE);
            synthetic_faces::SyntheticFaces { rows, side, seed }.opened()
        }
    })
}

/// Opens the built-in data set `name` with parameters that have passed the schema of its entry in [`DATASETS`].
///
/// # Errors
/// As [`open`], and for parameters that are missing.
pub fn open_with(name: &str, parameters: &Parameters) -> Result<Opened> {
    let get = |e: cmf_plugin::Error| crate::core_error(e);
    match name {
        "cartoonset" => {
            let path = Path::new(parameters.text("path").map_err(get)?);
            cartoonset::open(path, parameters.count("side").map_err(get)?)
        }
        "synthetic-faces" => Ok(entries::synthetic_faces(parameters).map_err(get)?.opened()),
        _ if builtins().any(|b| b.name == name && b.needs_path) => {
            open(name, Some(Path::new(parameters.text("path").map_err(get)?)), 0)
        }
        _ => open(name, None, parameters.seed("seed").map_err(get)?),
    }
}

/// The name of the data set that reads `path`, from what is there: an `.npy`, `.csv` or `.tgz` file, a folder with
/// idx files, with faces of the Cartoon Set, another folder.
pub fn name_of(path: &Path) -> Result<&'static str> {
    let found = path.metadata().map_err(|e| Error::file(path, e))?;
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    match extension.as_str() {
        _ if found.is_dir() && idx::is_in(path) => Ok("mnist"),
        _ if found.is_dir() && cartoonset::is_in(path) => Ok("cartoonset"),
        _ if found.is_dir() => Ok("images"),
        "tgz" => Ok("cartoonset"),
        "npy" => Ok("npy"),
        "csv" => Ok("csv"),
        DLL_EXTENSION => {
            Err(Error::file(path, format!("is a library; for its data set write plugin:{}", path.display())))
        }
        _ => Err(Error::file(path, "expected a folder, a .npy file, a .csv file or cartoonset10k.tgz")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    pub(super) const MNIST_SMALL: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/mnist-small");

    pub(super) const CARTOONSET_SMALL: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/cartoonset-small");

    /// The message of a data set that must not open.
    pub(super) fn error(result: Result<Opened>) -> String {
        match result {
            Ok(_) => panic!("it opened"),
            Err(e) => e.to_string(),
        }
    }

    /// All values of a split.
    pub(super) fn all(data: &dyn DataSet, split: Split) -> Vec<f64> {
        let rows: Vec<usize> = (0..data.rows(split)).collect();
        let mut out = vec![f64::NAN; rows.len() * data.shape().dim()];
        data.read(split, &rows, &mut out).unwrap();
        out
    }

    #[test]
    fn the_registry_says_what_it_knows() {
        let e = error(open("minst", None, 0));
        assert!(
            e.contains("no data set minst")
                && e.contains("mnist, images, cartoonset, npy, csv, synthetic-faces, circles"),
            "{e}"
        );
        let e = error(open("mnist", None, 0));
        assert!(e.contains("mnist needs a path"), "{e}");
        let e = error(open("circles", Some(Path::new("a.npy")), 0));
        assert!(e.contains("circles is generated and takes no path, found a.npy"), "{e}");
    }

    #[test]
    fn every_builtin_that_needs_a_path_names_a_missing_one() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        for builtin in builtins().filter(|b| b.needs_path) {
            let e = error(open(builtin.name, Some(&missing), 0));
            assert!(e.starts_with(&missing.display().to_string()), "{}: {e}", builtin.name);
        }
        assert!(name_of(&missing).is_err());
    }

    #[test]
    fn a_path_has_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| -> PathBuf {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            path
        };
        assert_eq!(name_of(&file("a.NPY")).unwrap(), "npy");
        assert_eq!(name_of(&file("a.csv")).unwrap(), "csv");
        assert_eq!(name_of(&file("cartoonset10k.tgz")).unwrap(), "cartoonset");
        assert_eq!(name_of(folder.path()).unwrap(), "images");
        assert_eq!(name_of(Path::new(MNIST_SMALL)).unwrap(), "mnist");
        assert_eq!(name_of(Path::new(CARTOONSET_SMALL)).unwrap(), "cartoonset");
        let e = name_of(&file("a.txt")).unwrap_err().to_string();
        assert!(e.contains("a.txt: expected a folder"), "{e}");
    }
}
