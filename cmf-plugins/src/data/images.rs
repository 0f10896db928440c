//! A folder of images of one size, each an example.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use cmf_core::{Error, Result};
use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use rayon::prelude::*;

use super::memory::{InMemory, Values, every_tenth};
use super::{Opened, Shape};

/// The decoded pixels of a folder may take this many bytes.
const MAX_BYTES: u64 = 1 << 32;

/// Opens the images in `folder` (not in folders below), in the order of their names; every tenth is held
/// out. Files whose extension is no image format's are left out.
///
/// Pixels are 8 bits, grey or RGB, and like the first file's; of an animation the first frame counts.
pub(super) fn open(folder: &Path) -> Result<Opened> {
    let files = list(folder)?;
    let [first, _, ..] = &files[..] else {
        let message = format!("found {} images (png, jpeg, ...), expected at least 2", files.len());
        return Err(Error::file(folder, message));
    };
    let shape = shape_of(&decoder(first)?).map_err(|m| Error::file(first, m))?;
    let d = shape.dim();
    let total = (d as u64).saturating_mul(files.len() as u64);
    if total > MAX_BYTES {
        let message = format!(
            "{} images of {} are {total} bytes, more than the {MAX_BYTES} that are accepted; \
             use fewer or smaller images",
            files.len(),
            describe(shape)
        );
        return Err(Error::file(folder, message));
    }
    let mut pixels = vec![0; files.len() * d];
    pixels.par_chunks_exact_mut(d).zip(&files).try_for_each(|(out, file)| read(file, shape, first, out))?;
    let (train, held_out) = every_tenth(files.len());
    let pixel_range = Some((0.0, 1.0));
    Ok(InMemory { shape, pixel_range, values: Values::U8(pixels), train, held_out }.opened())
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let fail = |e: std::io::Error| Error::file(folder, format!("cannot read the folder: {e}"));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let is_image = ImageFormat::from_path(&path).is_ok_and(|f| f.reading_enabled());
        if is_image && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A decoder that has read the header only.
fn decoder(path: &Path) -> Result<impl ImageDecoder + use<>> {
    let file = File::open(path).map_err(|e| Error::file(path, e))?;
    let reader = ImageReader::new(BufReader::new(file)).with_guessed_format();
    let reader = reader.map_err(|e| Error::file(path, e))?;
    reader.into_decoder().map_err(|e| Error::file(path, format!("cannot decode it: {e}")))
}

/// The shape an image has as an example, or why it cannot be one.
fn shape_of(decoder: &impl ImageDecoder) -> Result<Shape, String> {
    let channels = match decoder.color_type() {
        ColorType::L8 | ColorType::La8 => 1,
        ColorType::Rgb8 | ColorType::Rgba8 => 3,
        other => return Err(format!("found {other:?} pixels, expected 8 bits a channel; convert it")),
    };
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(format!("found an image of {width}x{height} pixels"));
    }
    Ok(Shape::Image { height: height as usize, width: width as usize, channels })
}

fn describe(shape: Shape) -> String {
    match shape {
        Shape::Image { height, width, channels: 1 } => format!("{width}x{height} grey pixels"),
        Shape::Image { height, width, .. } => format!("{width}x{height} RGB pixels"),
        Shape::Vector { dim } => format!("{dim} values"),
    }
}

/// Decodes one image into `out`, once its header shows that it fits.
fn read(path: &Path, expected: Shape, first: &Path, out: &mut [u8]) -> Result<()> {
    let decoder = decoder(path)?;
    let found = shape_of(&decoder).map_err(|m| Error::file(path, m))?;
    if found != expected {
        let (found, expected) = (describe(found), describe(expected));
        let message =
            format!("found {found}, expected {expected} as in {}; convert or remove it", first.display());
        return Err(Error::file(path, message));
    }
    let image = DynamicImage::from_decoder(decoder)
        .map_err(|e| Error::file(path, format!("cannot decode it: {e}")))?;
    let pixels = match image {
        DynamicImage::ImageLumaA8(p) => opaque(path, p.as_raw(), 2)?,
        DynamicImage::ImageRgba8(p) => opaque(path, p.as_raw(), 4)?,
        other => other.into_bytes(),
    };
    out.copy_from_slice(&pixels);
    Ok(())
}

/// Drops the last of `channels` channels, alpha, which must say opaque everywhere.
fn opaque(path: &Path, pixels: &[u8], channels: usize) -> Result<Vec<u8>> {
    if pixels.chunks_exact(channels).any(|p| p[channels - 1] != u8::MAX) {
        let message = "has transparent pixels; put it on a background first";
        return Err(Error::file(path, message));
    }
    Ok(pixels.chunks_exact(channels).flat_map(|p| &p[..channels - 1]).copied().collect())
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, ImageBuffer, Luma, Rgb, RgbImage, Rgba, RgbaImage};

    use super::super::Split;
    use super::super::tests::{all, error};
    use super::*;

    /// A folder with n grey images of 3 x 2 pixels of value 10 i, and a file that is no image.
    fn folder(n: u8) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for i in 0..n {
            let image = GrayImage::from_pixel(3, 2, Luma([10 * i]));
            image.save(folder.path().join(format!("{i}.{}", ["png", "pgm"][usize::from(i) % 2]))).unwrap();
        }
        std::fs::write(folder.path().join("labels.txt"), "1").unwrap();
        folder
    }

    #[test]
    fn reads_grey_images_in_the_order_of_their_names() {
        let folder = folder(4);
        // Alpha that is opaque everywhere is dropped.
        let path = folder.path().join("4.png");
        ImageBuffer::from_pixel(3, 2, image::LumaA([40_u8, 255])).save(path).unwrap();
        let opened = open(folder.path()).unwrap();
        let data = opened.data.as_ref();
        assert_eq!(data.shape(), Shape::Image { height: 2, width: 3, channels: 1 });
        let train: Vec<f64> = (0..4).flat_map(|i| [f64::from(10 * i) / 255.0; 6]).collect();
        assert_eq!(all(data, Split::Train), train);
        assert_eq!(all(data, Split::HeldOut), [40.0 / 255.0; 6]);
    }

    #[test]
    fn reads_rgb_with_channels_last() {
        let folder = tempfile::tempdir().unwrap();
        let image = RgbImage::from_fn(2, 1, |x, _| Rgb([x as u8, 51, 255]));
        image.save(folder.path().join("a.png")).unwrap();
        RgbaImage::from_pixel(2, 1, Rgba([0, 0, 0, 255])).save(folder.path().join("b.png")).unwrap();
        let opened = open(folder.path()).unwrap();
        assert_eq!(opened.data.shape(), Shape::Image { height: 1, width: 2, channels: 3 });
        assert_eq!(all(opened.data.as_ref(), Split::Train), [0.0, 0.2, 1.0, 1.0 / 255.0, 0.2, 1.0]);
    }

    #[test]
    fn an_image_that_does_not_fit_is_named_with_found_and_expected() {
        let save = |save: &dyn Fn(PathBuf), words: &str| {
            let folder = folder(3);
            save(folder.path().join("odd.png"));
            let e = error(open(folder.path()));
            assert!(e.contains("odd.png: ") && e.contains(words), "{e}");
        };
        save(&|p| GrayImage::new(2, 2).save(p).unwrap(), "found 2x2 grey pixels, expected 3x2 grey pixels");
        save(&|p| RgbImage::new(3, 2).save(p).unwrap(), "found 3x2 RGB pixels, expected 3x2 grey pixels");
        save(
            &|p| ImageBuffer::from_pixel(3, 2, Luma([1_u16])).save(p).unwrap(),
            "found L16 pixels, expected 8 bits",
        );
        save(&|p| ImageBuffer::from_pixel(3, 2, image::LumaA([1_u8, 0])).save(p).unwrap(), "transparent");
        save(&|p| std::fs::write(p, b"\x89PNG\r\n\x1a\n").unwrap(), "cannot decode");
        save(&|p| std::fs::write(p, "text").unwrap(), "cannot decode");
    }

    #[test]
    fn a_huge_claim_is_refused_before_memory_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.png", "b.png"] {
            // A PNG's signature and header: 100,000 x 100,000, 8 bits, grey, with its checksum.
            let header =
                b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\x01\x86\xa0\0\x01\x86\xa0\x08\0\0\0\0\x8d\x39\x54\x14";
            let image = [&header[..], b"\0\0\0\0IDAT\x35\xaf\x06\x1e"].concat();
            std::fs::write(folder.path().join(name), image).unwrap();
        }
        let e = error(open(folder.path()));
        assert!(e.contains("20000000000 bytes, more than the 4294967296 that are accepted"), "{e}");
    }

    #[test]
    fn too_few_images_is_an_error() {
        for n in [0, 1] {
            let e = error(open(folder(n).path()));
            assert!(e.contains(&format!("found {n} images")), "{e}");
        }
    }
}
