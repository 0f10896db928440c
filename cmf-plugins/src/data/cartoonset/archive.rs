//! The Cartoon Set as it is downloaded: a gzipped tar archive, read from front to back and never unpacked.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use cmf_core::{Error, Result};
use flate2::read::GzDecoder;
use rayon::prelude::*;
use tar::Archive;

use super::{Faces, Part, check_memory, face, part_of};

/// Bytes that an archive may decode to; the 100,000 faces have some five thousand million.
const MAX_DECODED: u64 = 1 << 35;
/// Bytes of an entry's header.
const HEADER: u64 = 512;
/// Pictures that are decoded side by side.
const BLOCK: usize = 512;

/// Reads all faces of an archive.
///
/// Entries are taken as they stand (`raw`): the names of the set fit into the header, and what extends a header
/// may claim any size.
pub(super) fn read(path: &Path, side: usize) -> Result<Faces> {
    let file = File::open(path).map_err(|e| Error::file(path, e))?;
    let broken = |e: std::io::Error| {
        let message =
            format!("cannot be read as a gzipped tar archive: {e}; expected cartoonset10k.tgz or its folder");
        Error::file(path, message)
    };
    let mut archive = Archive::new(GzDecoder::new(BufReader::new(file)));
    let mut faces = Faces::default();
    let mut waiting: Vec<(String, Vec<u8>)> = Vec::new();
    let mut left = MAX_DECODED;
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let entry = entry.map_err(broken)?;
        let (name, size) = (String::from_utf8_lossy(&entry.path_bytes()).into_owned(), entry.size());
        // Before what it claims is read or skipped.
        left = left.checked_sub(size.saturating_add(HEADER)).ok_or_else(|| {
            Error::file(path, format!("decodes to more than the {MAX_DECODED} bytes that are accepted"))
        })?;
        let Some((stem, part)) = part_of(&name) else { continue };
        let fail = |message: String| Error::file(path, format!("{name}: {message}"));
        let kind = entry.header().entry_type();
        if !kind.is_file() {
            return Err(fail(format!("found an entry of type {kind:?}, expected a file")));
        }
        let most = match part {
            Part::Picture => face::MAX_PICTURE,
            Part::Table => face::MAX_TABLE,
        };
        if size > most {
            return Err(fail(format!("claims {size} bytes, more than the {most} that are accepted")));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        entry.take(size).read_to_end(&mut bytes).map_err(broken)?;
        if bytes.len() as u64 != size {
            return Err(fail(format!("claims {size} bytes, found {}; download it again", bytes.len())));
        }
        match part {
            Part::Picture => waiting.push((stem.to_string(), bytes)),
            Part::Table => {
                face::check_table(&bytes).map_err(fail)?;
                if !faces.tables.insert(stem.to_string()) {
                    return Err(Error::file(path, format!("holds {name} twice")));
                }
            }
        }
        check_memory(path, faces.pictures.len() + waiting.len(), side)?;
        if waiting.len() == BLOCK {
            decode(path, &mut waiting, side, &mut faces)?;
        }
    }
    decode(path, &mut waiting, side, &mut faces)?;
    Ok(faces)
}

/// Decodes what waits.
fn decode(path: &Path, waiting: &mut Vec<(String, Vec<u8>)>, side: usize, faces: &mut Faces) -> Result<()> {
    let decoded = waiting.par_drain(..).map(|(stem, bytes)| match face::picture(&bytes, side) {
        Ok(pixels) => Ok((stem, pixels)),
        Err(message) => Err(Error::file(path, format!("{stem}.png: {message}"))),
    });
    faces.pictures.extend(decoded.collect::<Result<Vec<_>>>()?);
    Ok(())
}
