//! Which image goes with which mask and which output file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use cmf_core::{Error, Result};

const EXTENSIONS: [&str; 13] =
    ["png", "jpg", "jpeg", "bmp", "gif", "pbm", "pgm", "ppm", "pnm", "pam", "tif", "tiff", "webp"];

/// The images among `inputs`: files as they are, folders by their image files in order of name.
///
/// What `inpaint` wrote into a folder on an earlier run is not an input of the next.
pub fn images(inputs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for input in inputs {
        if !input.is_dir() {
            all.push(input.clone());
            continue;
        }
        let found: Vec<PathBuf> =
            image_files(input)?.into_iter().filter(|path| !is_own_output(path)).collect();
        if found.is_empty() {
            return Err(Error::file(
                input,
                format!("is a folder without images ({})", EXTENSIONS.join(", ")),
            ));
        }
        all.extend(found);
    }
    Ok(all)
}

fn image_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let fail = |e: std::io::Error| Error::file(folder, format!("cannot read: {e}"));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        if EXTENSIONS.contains(&extension.as_str()) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn is_own_output(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let Some((_, last)) = stem.rsplit_once('.') else { return false };
    let sample = last.strip_prefix("sample-").is_some_and(|k| k.parse::<usize>().is_ok());
    sample || last == "inpainted" || last == "std"
}

/// Where the masks come from.
pub enum Masks {
    /// One file for every image.
    One(PathBuf),
    /// A folder's files, matched by file stem.
    ByStem(PathBuf, BTreeMap<OsString, Vec<PathBuf>>),
}

impl Masks {
    /// From a file or a folder.
    pub fn open(path: &Path) -> Result<Masks> {
        if !path.is_dir() {
            return Ok(Masks::One(path.to_path_buf()));
        }
        let mut by_stem: BTreeMap<OsString, Vec<PathBuf>> = BTreeMap::new();
        for file in image_files(path)? {
            by_stem.entry(stem(&file)).or_default().push(file);
        }
        Ok(Masks::ByStem(path.to_path_buf(), by_stem))
    }

    /// The mask of `image`.
    pub fn of(&self, image: &Path) -> Result<&Path> {
        let (folder, by_stem) = match self {
            Masks::One(path) => return Ok(path),
            Masks::ByStem(folder, by_stem) => (folder, by_stem),
        };
        let name = stem(image);
        match by_stem.get(&name).map(Vec::as_slice) {
            Some([mask]) => Ok(mask),
            Some(several) => {
                let names: Vec<String> = several.iter().map(|p| p.display().to_string()).collect();
                Err(Error::file(image, format!("has several masks: {}", names.join(", "))))
            }
            None => {
                let name = name.to_string_lossy();
                Err(Error::file(
                    image,
                    format!("has no mask: expected {name}.png or the like in {}", folder.display()),
                ))
            }
        }
    }

    /// Every mask file.
    pub fn files(&self) -> Vec<&Path> {
        match self {
            Masks::One(path) => vec![path],
            Masks::ByStem(_, by_stem) => by_stem.values().flatten().map(PathBuf::as_path).collect(),
        }
    }
}

fn stem(path: &Path) -> OsString {
    path.file_stem().unwrap_or_default().to_os_string()
}

/// The names of what is written for one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Names {
    /// The completed picture.
    pub picture: PathBuf,
    /// The path that `.sample-1.png` and `.std.png` are appended to.
    base: PathBuf,
}

impl Names {
    /// A picture beside the completed one: `base.what.png`.
    pub fn beside(&self, what: &str) -> PathBuf {
        let mut name = self.base.clone().into_os_string();
        name.push(format!(".{what}.png"));
        name.into()
    }

    /// Beside the image: `img.inpainted.png`.
    fn default_for(image: &Path) -> Names {
        let mut names = Names { picture: PathBuf::new(), base: image.with_extension("") };
        names.picture = names.beside("inpainted");
        names
    }

    fn in_folder(folder: &Path, image: &Path) -> Names {
        let base = folder.join(stem(image));
        let mut picture = base.clone().into_os_string();
        picture.push(".png");
        Names { picture: picture.into(), base }
    }
}

/// The output names of `images`: beside each, or in the folder `out`, or, for one image, the file `out`.
///
/// Two images with one output name are refused. `folder` says that `out` must be a folder because an
/// input was one.
pub fn output_names(images: &[PathBuf], out: Option<&Path>, folder: bool) -> Result<Vec<Names>> {
    let is_png = |path: &Path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"));
    let names: Vec<Names> = match out {
        None => images.iter().map(|image| Names::default_for(image)).collect(),
        Some(out) if !folder && images.len() == 1 && !out.is_dir() => {
            if !is_png(out) {
                let message = "expected a name that ends in .png (known pixels must stay as they are) or a folder that exists";
                return Err(Error::file(out, message));
            }
            vec![Names { picture: out.to_path_buf(), base: out.with_extension("") }]
        }
        Some(out) if is_png(out) && !out.is_dir() => {
            return Err(Error::file(out, "several images need a folder to be written to, not one .png file"));
        }
        Some(out) => images.iter().map(|image| Names::in_folder(out, image)).collect(),
    };
    let mut taken: BTreeMap<&Path, &Path> = BTreeMap::new();
    for (names, image) in names.iter().zip(images) {
        if let Some(other) = taken.insert(&names.picture, image) {
            let message = format!("would be written for both {} and {}", other.display(), image.display());
            return Err(Error::file(&names.picture, message));
        }
    }
    Ok(names)
}

/// Makes the output folder `path` if it is not there; its parent must be.
pub fn ensure_folder(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir(path).map_err(|e| Error::file(path, format!("cannot make the output folder: {e}")))
}

/// Fails if an output is one of the input files, by whatever path.
pub fn check_inputs_survive<'a>(
    outputs: impl IntoIterator<Item = PathBuf>,
    inputs: impl IntoIterator<Item = &'a Path>,
) -> Result<()> {
    let inputs: Vec<PathBuf> = inputs.into_iter().filter_map(|path| path.canonicalize().ok()).collect();
    for output in outputs {
        if let Ok(real) = output.canonicalize()
            && inputs.contains(&real)
        {
            return Err(Error::file(
                output,
                "is an input and would be overwritten: choose another output with -o",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beside_in_a_folder_and_given() {
        let image = [PathBuf::from("in/a.b.jpg")];
        let beside = &output_names(&image, None, false).unwrap()[0];
        assert_eq!(beside.picture, Path::new("in/a.b.inpainted.png"));
        assert_eq!(beside.beside("std"), Path::new("in/a.b.std.png"));
        let given = &output_names(&image, Some(Path::new("out/x.png")), false).unwrap()[0];
        assert_eq!(given.picture, Path::new("out/x.png"));
        assert_eq!(given.beside("sample-2"), Path::new("out/x.sample-2.png"));
        let folder = &output_names(&image, Some(Path::new("out")), true).unwrap()[0];
        assert_eq!(folder.picture, Path::new("out/a.b.png"));
    }

    #[test]
    fn one_name_for_two_images_is_refused() {
        let images = [PathBuf::from("in/a.jpg"), PathBuf::from("in/a.png")];
        let e = output_names(&images, Some(Path::new("out")), true).unwrap_err().to_string();
        assert!(e.contains("in/a.jpg") && e.contains("in/a.png"), "{e}");
        assert!(output_names(&images[..1], Some(Path::new("x.jpg")), false).is_err());
        assert!(output_names(&images, Some(Path::new("x.png")), false).is_err());
    }

    #[test]
    fn own_outputs_are_known_by_name() {
        for name in ["a.inpainted.png", "a.sample-12.png", "a.std.png"] {
            assert!(is_own_output(Path::new(name)), "{name}");
        }
        for name in ["inpainted.png", "a.sample-x.png", "std.png", "a.png"] {
            assert!(!is_own_output(Path::new(name)), "{name}");
        }
    }
}
