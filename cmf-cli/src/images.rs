//! Image files in and out: decoding under limits, what is refused and why, PNG written whole or not at all.

use std::io::{Cursor, Read, Write};
use std::path::Path;

use cmf_core::files::write_atomically;
use cmf_core::{Error, Result};
use image::codecs::gif::GifDecoder;
use image::codecs::png::{PngDecoder, PngEncoder};
use image::codecs::webp::WebPDecoder;
use image::{
    AnimationDecoder, ColorType, DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageFormat,
    ImageReader, Limits,
};

use crate::jpeg;

/// Larger files are not read.
const MOST_FILE_BYTES: u64 = 256 << 20;
/// Larger images are refused by their header, before any pixel is decoded.
const LONGEST_SIDE: u32 = 16_384;
/// A decoder may not allocate more than this.
const MOST_DECODED_BYTES: u64 = 512 << 20;

/// An upright image of 8 bits per channel, one, two, three or four channels.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// One of L8, La8, Rgb8 and Rgba8.
    pub color: ColorType,
    /// [height, width, channels].
    pub bytes: Vec<u8>,
    /// The colour profile, carried from input to output.
    pub icc: Option<Vec<u8>>,
}

impl Picture {
    /// Bytes of a pixel.
    pub fn channels(&self) -> usize {
        self.color.channel_count() as usize
    }

    /// Bytes of a pixel without its alpha: 1 or 3.
    pub fn color_channels(&self) -> usize {
        if self.color.has_color() { 3 } else { 1 }
    }

    /// The pixels in rows from the top, each a slice of its channels.
    pub fn pixels(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks_exact(self.channels())
    }

    /// The opacity of each pixel, 255 where the image has no alpha channel.
    pub fn alphas(&self) -> impl Iterator<Item = u8> {
        let opaque = !self.color.has_alpha();
        self.pixels().map(move |p| if opaque { 255 } else { p[p.len() - 1] })
    }
}

/// Reads the image file `path`.
///
/// Refused, each with its reason: what is no image, is damaged, is animated, has more than 8 bits per
/// channel, is CMYK, or is larger than this program takes.
pub fn read(path: &Path) -> Result<Picture> {
    let bytes = read_bounded(path)?;
    decode(&bytes).map_err(|message| Error::file(path, message))
}

fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let fail = |e: std::io::Error| Error::file(path, format!("cannot read: {e}"));
    if path.is_dir() {
        return Err(Error::file(path, "is a folder, expected an image file"));
    }
    let file = std::fs::File::open(path).map_err(fail)?;
    let mut bytes = Vec::new();
    file.take(MOST_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > MOST_FILE_BYTES {
        return Err(Error::file(path, format!("is larger than {} MiB", MOST_FILE_BYTES >> 20)));
    }
    if bytes.is_empty() {
        return Err(Error::file(path, "is empty, expected an image file"));
    }
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<Picture, String> {
    let damaged = |e: image::ImageError| format!("cannot be decoded: {e}");
    let format = image::guess_format(bytes).map_err(|_| {
        "is no image that this program reads (PNG, JPEG, BMP, GIF, PNM, TIFF, WebP)".to_string()
    })?;
    if format == ImageFormat::Jpeg {
        jpeg::check(bytes)?;
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(MOST_DECODED_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    if width.max(height) > LONGEST_SIDE || decoder.total_bytes() > MOST_DECODED_BYTES {
        return Err(format!(
            "is {width}x{height} pixels, larger than this program takes (sides up to {LONGEST_SIDE}, {} MiB decoded)",
            MOST_DECODED_BYTES >> 20
        ));
    }
    if matches!(decoder.original_color_type(), ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16) {
        return Err(jpeg::CMYK.into());
    }
    if is_animated(format, bytes, &limits).map_err(damaged)? {
        return Err("is animated, expected a single picture: extract the frame you mean".into());
    }
    let icc = decoder.icc_profile().map_err(damaged)?;
    let orientation = decoder.orientation().map_err(damaged)?;
    limits.reserve(decoder.total_bytes()).map_err(damaged)?;
    decoder.set_limits(limits).map_err(damaged)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    image.apply_orientation(orientation);
    let (color, width, height) = (image.color(), image.width() as usize, image.height() as usize);
    if width == 0 || height == 0 {
        return Err(format!("is {width}x{height} pixels: there is nothing in it"));
    }
    if !matches!(color, ColorType::L8 | ColorType::La8 | ColorType::Rgb8 | ColorType::Rgba8) {
        let bits = 8 * color.bytes_per_pixel() / color.channel_count();
        return Err(format!(
            "has {bits} bits per channel, expected 8: rounding would change the known pixels, so convert it first"
        ));
    }
    Ok(Picture { width, height, color, bytes: image.into_bytes(), icc })
}

fn is_animated(format: ImageFormat, bytes: &[u8], limits: &Limits) -> image::ImageResult<bool> {
    let bytes = Cursor::new(bytes);
    match format {
        ImageFormat::Png => PngDecoder::with_limits(bytes, limits.clone())?.is_apng(),
        ImageFormat::WebP => Ok(WebPDecoder::new(bytes)?.has_animation()),
        ImageFormat::Gif => {
            let mut decoder = GifDecoder::new(bytes)?;
            decoder.set_limits(limits.clone())?;
            Ok(decoder.into_frames().nth(1).is_some())
        }
        _ => Ok(false),
    }
}

/// Writes `picture` as a PNG, whole or not at all.
pub fn write_png(path: &Path, picture: &Picture) -> Result<()> {
    write_atomically(path, |file| encode_png(file, picture))
}

/// The bytes of `picture` as a PNG file.
pub fn png_bytes(picture: &Picture) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    encode_png(&mut bytes, picture).map_err(|message| Error::Engine { engine: "png", message })?;
    Ok(bytes)
}

fn encode_png(out: impl Write, picture: &Picture) -> Result<(), String> {
    let mut encoder = PngEncoder::new(out);
    if let Some(icc) = &picture.icc {
        encoder.set_icc_profile(icc.clone()).map_err(|e| e.to_string())?;
    }
    let (width, height) = (picture.width as u32, picture.height as u32);
    encoder.write_image(&picture.bytes, width, height, picture.color.into()).map_err(|e| e.to_string())
}
