//! Google's Cartoon Set as it is downloaded: a folder or a .tgz of faces, each a PNG with a table of attributes.

mod archive;
mod face;
mod folder;

use std::collections::BTreeSet;
use std::path::Path;

use cmf_core::{Error, Result};

use super::memory::{InMemory, Values, every_tenth};
use super::{Opened, Shape};

pub(super) use face::scaled;

/// Pixels along a side where none are asked for.
pub(super) const SIDE: usize = 32;
const LICENCE: &str = "CC BY 4.0, Google, Cartoon Set";
/// The decoded faces may take this many bytes; the 100,000 take 1.2 thousand million at 64 x 64.
const MAX_BYTES: u64 = 1 << 32;

/// The two files of a face.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// `csN.png`
    Picture,
    /// `csN.csv`
    Table,
}

/// What was found in a folder or an archive.
#[derive(Default)]
struct Faces {
    /// Where each picture lies, without `.png`, and its pixels [side, side, 3].
    pictures: Vec<(String, Vec<u8>)>,
    /// Where each table lies, without `.csv`.
    tables: BTreeSet<String>,
}

/// Opens the faces `csN.png` with their `csN.csv` below `path`, a folder or a gzipped tar archive, scaled to
/// [side, side, 3] over white; in the order of their names, every tenth held out.
///
/// Faces may lie in the folder itself or one folder below, as those of the large set do. Tables are checked and not
/// kept. Files of other names are left alone, and nothing is ever unpacked to a disk.
pub(super) fn open(path: &Path, side: usize) -> Result<Opened> {
    let Faces { mut pictures, tables } =
        if path.is_dir() { folder::read(path, side)? } else { archive::read(path, side)? };
    pictures.sort();
    if let Some(twice) = pictures.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(Error::file(path, format!("holds {}.png twice", twice[0].0)));
    }
    check_pairs(path, pictures.iter().map(|(name, _)| name.as_str()), &tables)?;
    let (train, held_out) = every_tenth(pictures.len());
    let set = InMemory {
        shape: Shape::Image { height: side, width: side, channels: 3 },
        pixel_range: Some((0.0, 1.0)),
        values: Values::U8(pictures.into_iter().flat_map(|(_, pixels)| pixels).collect()),
        train,
        held_out,
    };
    Ok(Opened { licence: Some(LICENCE.to_string()), ..set.opened() })
}

/// Whether faces lie in the folder or one below.
pub(super) fn is_in(folder: &Path) -> bool {
    folder::list(folder).is_ok_and(|files| files.iter().any(|f| f.part == Part::Table))
}

/// The name without its ending, and which file of a face it is; none for other names.
fn part_of(path: &str) -> Option<(&str, Part)> {
    let (stem, part) = match path.strip_suffix(".png") {
        Some(stem) => (stem, Part::Picture),
        None => (path.strip_suffix(".csv")?, Part::Table),
    };
    let number = stem.rsplit('/').next()?.strip_prefix("cs")?;
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some((stem, part))
}

/// Fails unless there are at least two pictures, and as many tables of the same names.
fn check_pairs<'a>(
    source: &Path,
    pictures: impl Iterator<Item = &'a str>,
    tables: &BTreeSet<String>,
) -> Result<()> {
    let pictures: BTreeSet<&str> = pictures.collect();
    if let Some(lonely) = pictures.iter().find(|name| !tables.contains(**name)) {
        let message = format!(
            "found {lonely}.png without {lonely}.csv, expected both for each face of the Cartoon Set; \
             unpack the set again, or open pictures alone with the data set images"
        );
        return Err(Error::file(source, message));
    }
    if let Some(lonely) = tables.iter().find(|name| !pictures.contains(name.as_str())) {
        let message = format!("found {lonely}.csv without {lonely}.png, expected both; unpack the set again");
        return Err(Error::file(source, message));
    }
    if pictures.len() < 2 {
        let message = format!(
            "found {} faces, expected at least 2: files csN.png with csN.csv, here or one folder below, as in \
             cartoonset10k.tgz",
            pictures.len()
        );
        return Err(Error::file(source, message));
    }
    Ok(())
}

/// Fails if `faces` faces are more than memory is taken for.
fn check_memory(source: &Path, faces: usize, side: usize) -> Result<()> {
    let bytes = (3 * side * side) as u64 * faces as u64;
    if bytes > MAX_BYTES {
        let message = format!(
            "{faces} faces of {side}x{side} RGB pixels are {bytes} bytes, more than the {MAX_BYTES} that are accepted"
        );
        return Err(Error::file(source, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
