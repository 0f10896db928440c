//! The unpacked Cartoon Set: faces in a folder, or in the folders in it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use cmf_core::{Error, Result};
use rayon::prelude::*;

use super::{Faces, Part, check_memory, check_pairs, face, part_of};

/// A file of a face.
pub(super) struct Listed {
    path: PathBuf,
    /// Where it lies below the folder, with `/`, without its ending.
    stem: String,
    pub part: Part,
}

/// Reads all faces; which files there are is checked before any is decoded.
pub(super) fn read(folder: &Path, side: usize) -> Result<Faces> {
    let (pictures, tables): (Vec<_>, Vec<_>) =
        list(folder)?.into_iter().partition(|file| file.part == Part::Picture);
    let stems = tables.iter().map(|file| file.stem.clone()).collect();
    check_pairs(folder, pictures.iter().map(|file| file.stem.as_str()), &stems)?;
    check_memory(folder, pictures.len(), side)?;
    tables.par_iter().try_for_each(|file| {
        face::check_table(&bytes(&file.path, face::MAX_TABLE)?).map_err(|m| Error::file(&file.path, m))
    })?;
    let decoded = pictures.into_par_iter().map(|file| {
        let pixels = face::picture(&bytes(&file.path, face::MAX_PICTURE)?, side);
        Ok((file.stem, pixels.map_err(|m| Error::file(&file.path, m))?))
    });
    Ok(Faces { pictures: decoded.collect::<Result<_>>()?, tables: stems })
}

/// The files of faces in `folder` and in the folders in it.
pub(super) fn list(folder: &Path) -> Result<Vec<Listed>> {
    let (mut files, below) = list_one(folder, "")?;
    for name in below {
        files.extend(list_one(&folder.join(&name), &format!("{name}/"))?.0);
    }
    Ok(files)
}

/// The files of faces in one folder, and the names of the folders in it.
fn list_one(folder: &Path, prefix: &str) -> Result<(Vec<Listed>, Vec<String>)> {
    let fail = |e: std::io::Error| Error::file(folder, format!("cannot read the folder: {e}"));
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let (path, Ok(name)) = (entry.path(), entry.file_name().into_string()) else { continue };
        if path.is_dir() {
            folders.push(name);
        } else if let Some((stem, part)) = part_of(&name) {
            files.push(Listed { stem: format!("{prefix}{stem}"), part, path });
        }
    }
    Ok((files, folders))
}

/// The bytes of a file of at most `most`.
fn bytes(path: &Path, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| Error::file(path, e))?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(|e| Error::file(path, e))?;
    if bytes.len() as u64 > most {
        return Err(Error::file(path, format!("has more than the {most} bytes that are accepted")));
    }
    Ok(bytes)
}
