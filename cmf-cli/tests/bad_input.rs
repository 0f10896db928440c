//! Bad input: the exit code is not 0, the message names file, found and expected, nothing is written.
#![allow(missing_docs)]

mod common;

use std::path::Path;

use common::{flat_model, folder, gradient, half_hidden, lower_half, model, names, run};
use image::codecs::gif::GifEncoder;
use image::{DynamicImage, Frame, GrayImage, ImageBuffer, Luma, LumaA, Rgb, RgbImage, RgbaImage};
use prost::Message;
use tract_onnx::pb;

/// Runs `inpaint` on `bytes` as an image, and expects it to fail with `words` and to write nothing.
fn refused(name: &str, bytes: &[u8], words: &[&str]) {
    let folder = folder();
    std::fs::write(folder.path().join(name), bytes).unwrap();
    run(folder.path(), &format!("inpaint --model MODEL {name} --mask-rect 0,4,8,4"))
        .fails_with(&[&[name], words].concat());
    assert_eq!(names(folder.path()), [name]);
}

fn png(image: impl Into<image::DynamicImage>) -> Vec<u8> {
    encoded(image, image::ImageFormat::Png)
}

fn encoded(image: impl Into<image::DynamicImage>, format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A PNG chunk with its checksum.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [&kind[..], data].concat();
    // CRC-32 as the PNG specification defines it, bit by bit.
    let crc = !body.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { 0xEDB8_8320 ^ (c >> 1) } else { c >> 1 })
    });
    [&(data.len() as u32).to_be_bytes()[..], &body, &crc.to_be_bytes()].concat()
}

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

#[test]
fn images_that_are_none_or_damaged() {
    refused("img.png", b"", &["is empty"]);
    refused("img.png", b"hello, world", &["no image that this program reads"]);
    let whole = png(gradient(8));
    refused("img.png", &whole[..whole.len() / 2], &["cannot be decoded"]);
    let mut flipped = whole.clone();
    let at = whole.len() - 20; // Inside the compressed pixels.
    flipped[at] ^= 0xFF;
    refused("img.png", &flipped, &["cannot be decoded"]);
    let jpeg = encoded(gradient(64), image::ImageFormat::Jpeg);
    refused("img.jpg", &jpeg[..jpeg.len() * 2 / 3], &["ends too early"]);
    let folder = folder();
    run(folder.path(), "inpaint --model MODEL none.png").fails_with(&["none.png", "cannot read"]);
    run(folder.path(), "inpaint --model MODEL .").fails_with(&["a folder without images"]);
}

#[test]
fn a_tiny_png_that_claims_to_be_huge_is_refused_by_its_header() {
    let header = [&100_000_u32.to_be_bytes()[..], &100_000_u32.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    let bytes =
        [SIGNATURE, &chunk(b"IHDR", &header), &chunk(b"IDAT", &[0x78, 0x9c]), &chunk(b"IEND", &[])].concat();
    refused("huge.png", &bytes, &["100000x100000", "16384"]);
}

#[test]
fn animations() {
    let mut gif = Vec::new();
    let frame = || Frame::new(RgbaImage::from_pixel(8, 8, image::Rgba([9, 9, 9, 255])));
    GifEncoder::new(&mut gif).encode_frames([frame(), frame()]).unwrap();
    refused("img.gif", &gif, &["is animated"]);
    // A PNG becomes an animated one by its acTL chunk: number of frames, number of plays.
    let still = png(gradient(8));
    let ihdr_end = SIGNATURE.len() + 25;
    let control = chunk(b"acTL", &[0, 0, 0, 2, 0, 0, 0, 0]);
    let animated = [&still[..ihdr_end], &control, &still[ihdr_end..]].concat();
    refused("img.png", &animated, &["is animated", "expected a single picture"]);
    // A WebP says so by a bit of its VP8X chunk: flags, reserved, width - 1 and height - 1 in 24 bits each.
    let still = encoded(DynamicImage::from(gradient(8)).to_rgb8(), image::ImageFormat::WebP);
    let frame = [&[0; 6][..], &[7, 0, 0, 7, 0, 0], &[100, 0, 0, 0], &still[12..]].concat();
    let riff = |kind: &[u8; 4], data: &[u8]| [kind, &(data.len() as u32).to_le_bytes()[..], data].concat();
    let chunks = [
        &b"WEBP"[..],
        &riff(b"VP8X", &[0b10, 0, 0, 0, 7, 0, 0, 7, 0, 0]),
        &riff(b"ANIM", &[0; 6]),
        &riff(b"ANMF", &frame),
        &riff(b"ANMF", &frame),
    ];
    refused("img.webp", &riff(b"RIFF", &chunks.concat()), &["is animated", "expected a single picture"]);
}

#[test]
fn a_still_gif_is_fine() {
    let folder = folder();
    let image = RgbaImage::from_fn(8, 8, |_, y| image::Rgba([90, 90, 90, if y < 4 { 255 } else { 0 }]));
    image.save(folder.path().join("img.gif")).unwrap();
    run(folder.path(), "inpaint --model MODEL img.gif").ok();
}

#[test]
fn sixteen_bits_and_cmyk() {
    let deep = ImageBuffer::from_fn(8, 8, |x, y| Luma([(4000 * x + y) as u16]));
    refused("img.png", &png(deep), &["16 bits", "expected 8"]);
    let deep = ImageBuffer::from_fn(8, 8, |x, y| image::Rgba([x as u16, y as u16, 9, 65_535]));
    refused("img.png", &png(deep.clone()), &["16 bits", "expected 8"]);
    refused("img.tiff", &encoded(deep, image::ImageFormat::Tiff), &["16 bits", "expected 8"]);
    // A JPEG's frame header says how many components there are; CMYK has four.
    let mut jpeg = encoded(gradient(8), image::ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    let length = u16::from_be_bytes([jpeg[frame + 2], jpeg[frame + 3]]) as usize;
    let components: Vec<u8> = (1..=4).flat_map(|id| [id, 0x11, 0]).collect();
    let header = [&[0xFF, 0xC0, 0, 20], &jpeg[frame + 4..frame + 9], &[4], &components[..]].concat();
    jpeg.splice(frame..frame + 2 + length, header);
    refused("img.jpg", &jpeg, &["CMYK"]);
    // A TIFF names its colours in tag 262, one short: 2 is RGB, 5 is CMYK.
    let four = RgbaImage::from_pixel(8, 8, image::Rgba([9, 8, 7, 6]));
    let mut tiff = encoded(four, image::ImageFormat::Tiff);
    let at = tiff.windows(10).position(|w| w == [6, 1, 3, 0, 1, 0, 0, 0, 2, 0]).unwrap();
    tiff[at + 8] = 5;
    refused("img.tiff", &tiff, &["CMYK"]);
}

#[test]
fn digit_files_without_digits() {
    let folder = folder();
    let data = folder.path().join("digits");
    std::fs::create_dir(&data).unwrap();
    for split in ["train", "t10k"] {
        let header = [[0, 0, 8, 3], [0; 4], 28_u32.to_be_bytes(), 28_u32.to_be_bytes()].concat();
        std::fs::write(data.join(format!("{split}-images-idx3-ubyte")), header).unwrap();
        std::fs::write(data.join(format!("{split}-labels-idx1-ubyte")), [0, 0, 8, 1, 0, 0, 0, 0]).unwrap();
    }
    run(folder.path(), "train --data mnist:digits --out run")
        .fails_with(&["train-images-idx3-ubyte", "is empty: 0 images"]);
    assert_eq!(names(folder.path()), ["digits"]);
}

#[test]
fn holes_that_are_none_or_everything() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    gradient(8).save(path("opaque.png")).unwrap();
    ImageBuffer::from_pixel(8, 8, LumaA([0_u8, 0])).save(path("clear.png")).unwrap();
    // A glyph drawn with opacity alone.
    ImageBuffer::from_fn(8, 8, |x, _| LumaA([0_u8, (x * 36) as u8])).save(path("alpha-only.png")).unwrap();
    let before = names(folder.path());
    let inpaint = |line: &str| run(folder.path(), &format!("inpaint --model MODEL {line}"));
    inpaint("opaque.png").fails_with(&["opaque.png", "no hole", "--mask"]);
    inpaint("clear.png").fails_with(&["clear.png", "covers everything"]);
    inpaint("alpha-only.png").fails_with(&["alpha-only.png", "alpha channel alone"]);
    inpaint("opaque.png --mask-rect 0,0,8,8").fails_with(&["opaque.png", "covers everything"]);
    inpaint("opaque.png --mask-rect 0,4,8,5").fails_with(&["opaque.png", "0,4,8,5", "8x8"]);
    inpaint("opaque.png --mask-rect 0,0,8,8 --invert-mask").fails_with(&["opaque.png", "no hole"]);
    inpaint("opaque.png --invert-mask").fails_with(&["--invert-mask needs"]);
    assert_eq!(names(folder.path()), before);
}

#[test]
fn masks_that_do_not_fit() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    half_hidden(8).save(path("img.png")).unwrap();
    lower_half(10).save(path("large.png")).unwrap();
    std::fs::create_dir(path("masks")).unwrap();
    lower_half(8).save(path("masks/other.png")).unwrap();
    let before = names(folder.path());
    let inpaint = |line: &str| run(folder.path(), &format!("inpaint --model MODEL {line}"));
    inpaint("img.png --mask large.png").fails_with(&["large.png", "10x10", "8x8", "img.png"]);
    inpaint("img.png --mask none.png").fails_with(&["none.png", "cannot read"]);
    inpaint("img.png --mask masks").fails_with(&["img.png", "no mask", "masks"]);
    assert_eq!(names(folder.path()), before);
}

#[test]
fn images_that_do_not_fit_the_model() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    RgbImage::from_fn(8, 8, |x, _| Rgb([x as u8, 9, 9])).save(path("red.png")).unwrap();
    GrayImage::new(9, 8).save(path("wide.png")).unwrap();
    half_hidden(8).save(path("alpha.png")).unwrap();
    let before = names(folder.path());
    run(folder.path(), "inpaint --model MODEL red.png --mask-rect 0,0,2,2").fails_with(&[
        "red.png",
        "in colour",
        "grey",
    ]);
    run(folder.path(), "inpaint --model MODEL wide.png --mask-rect 0,0,2,2")
        .fails_with(&["wide.png", "9x8", "8x8"]);
    run(folder.path(), "score --model MODEL wide.png").fails_with(&["wide.png", "9x8", "8x8"]);
    run(folder.path(), "score --model MODEL alpha.png").fails_with(&["alpha.png", "transparent"]);
    let flat = flat_model().display().to_string();
    run(folder.path(), &format!("inpaint --model {flat} alpha.png")).fails_with(&[
        &flat,
        "2 coordinates",
        "images",
    ]);
    assert_eq!(names(folder.path()), before);
}

#[test]
fn numbers_that_are_none() {
    let folder = folder();
    let npy = |values: [f64; 4]| {
        let header = format!("{:<117}\n", "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2), }");
        let length = (header.len() as u16).to_le_bytes();
        [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), &values.map(f64::to_le_bytes).concat()]
            .concat()
    };
    let flat = flat_model().display().to_string();
    for (name, bad) in [("nan", f64::NAN), ("infinite", f64::INFINITY)] {
        std::fs::write(folder.path().join(format!("{name}.npy")), npy([1.0, 2.0, bad, 0.5])).unwrap();
        let word = if name == "nan" { "NaN" } else { "inf" };
        run(folder.path(), &format!("score --model {flat} --data {name}.npy"))
            .fails_with(&[&format!("{name}.npy"), word]);
    }
    let cut = &npy([1.0; 4])[..140];
    std::fs::write(folder.path().join("cut.npy"), cut).unwrap();
    run(folder.path(), &format!("score --model {flat} --data cut.npy")).fails_with(&["cut.npy"]);
}

/// What each command that opens a model says of `bytes` as a model.
fn model_refused(bytes: &[u8], words: &[&str]) {
    let folder = folder();
    half_hidden(8).save(folder.path().join("img.png")).unwrap();
    std::fs::write(folder.path().join("m.onnx"), bytes).unwrap();
    for line in [
        "info m.onnx",
        "verify m.onnx",
        "inpaint --model m.onnx img.png",
        "sample --model m.onnx -n 2 -o out.npy",
        "score --model m.onnx img.png",
    ] {
        run(folder.path(), line).fails_with(&[&["m.onnx"], words].concat());
    }
    assert_eq!(names(folder.path()), ["img.png", "m.onnx"]);
}

/// `bytes` with each `from` replaced by as many bytes of `to`.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut out = bytes.to_vec();
    let places: Vec<usize> =
        (0..=out.len() - from.len()).filter(|&i| &bytes[i..i + from.len()] == from).collect();
    assert!(!places.is_empty(), "nothing to replace");
    places.iter().for_each(|&i| out[i..i + to.len()].copy_from_slice(to));
    out
}

#[test]
fn models_that_are_none() {
    model_refused(b"", &["empty"]);
    model_refused(b"this is a letter, not a model", &["ONNX"]);
    model_refused(&png(gradient(8)), &["ONNX"]);
    let whole = std::fs::read(model(8)).unwrap();
    model_refused(&whole[..whole.len() / 2], &[]);
    model_refused(&whole[..whole.len() - 1], &[]);
    let folder = folder();
    run(folder.path(), "info none.onnx").fails_with(&["none.onnx", "no such file"]);
    run(folder.path(), "info .").fails_with(&["."]);
}

#[test]
fn models_with_constants_in_other_files() {
    // The same model, its largest constant moved to a file beside it, as ONNX's own tools do for large models.
    let whole = std::fs::read(model(8)).unwrap();
    let mut proto = pb::ModelProto::decode(&whole[..]).unwrap();
    let constant = &mut proto.graph.as_mut().unwrap().initializer[0];
    let (name, numbers) = (constant.name.clone(), std::mem::take(&mut constant.raw_data));
    constant.data_location = Some(pb::tensor_proto::DataLocation::External as i32);
    constant.external_data =
        vec![pb::StringStringEntryProto { key: "location".into(), value: "m.data".into() }];
    let folder = folder();
    std::fs::write(folder.path().join("m.data"), numbers).unwrap();
    std::fs::write(folder.path().join("m.onnx"), proto.encode_to_vec()).unwrap();
    half_hidden(8).save(folder.path().join("img.png")).unwrap();
    for line in
        ["info m.onnx", "verify m.onnx", "inpaint --model m.onnx img.png", "score --model m.onnx img.png"]
    {
        run(folder.path(), line).fails_with(&["m.onnx", &name, "external data", "as one file"]);
    }
    assert_eq!(names(folder.path()), ["img.png", "m.data", "m.onnx"]);
}

#[test]
fn models_of_another_version_or_with_other_operators() {
    let whole = std::fs::read(model(8)).unwrap();
    let mut proto = pb::ModelProto::decode(&whole[..]).unwrap();
    proto.opset_import[0].version = 99;
    model_refused(&proto.encode_to_vec(), &["operator set 99", "expected 13 to 18"]);
    let mut proto = pb::ModelProto::decode(&whole[..]).unwrap();
    proto.ir_version = 99;
    model_refused(&proto.encode_to_vec(), &["version 99", "expected 4 to 13"]);
    model_refused(
        &replaced(&whole, b"cmf.format_version\x12\x011", b"cmf.format_version\x12\x019"),
        &["version", "9"],
    );
    model_refused(&replaced(&whole, b"\"\x06MatMul", b"\"\x06MatNul"), &["MatNul"]);
}

#[test]
fn outputs_that_cannot_be_written() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    half_hidden(8).save(path("img.png")).unwrap();
    half_hidden(8).save(path("other.png")).unwrap();
    let before = names(folder.path());
    let inpaint = |line: &str| run(folder.path(), &format!("inpaint --model MODEL {line}"));
    inpaint("img.png -o missing/out.png").fails_with(&["missing/out.png", "does not exist"]);
    inpaint("img.png -o out.jpg").fails_with(&["out.jpg", ".png"]);
    inpaint("img.png -o img.png").fails_with(&["img.png", "is an input"]);
    inpaint("img.png -o ./other.png other.png").fails_with(&["several images need a folder"]);
    inpaint("img.png other.png -o img.png/out").fails_with(&["img.png/out"]);
    inpaint("img.png other.png -o .").fails_with(&["is an input"]);
    run(folder.path(), "sample --model MODEL -n 2 -o missing/out.npy").fails_with(&["missing/out.npy"]);
    run(folder.path(), "sample --model MODEL -n 2 -o out.gif").fails_with(&["out.gif", ".npy"]);
    assert_eq!(names(folder.path()), before);
}

#[cfg(target_os = "linux")]
#[test]
fn a_read_only_folder_and_a_device() {
    let folder = folder();
    half_hidden(8).save(folder.path().join("img.png")).unwrap();
    // Not even root can create files in sysfs.
    run(folder.path(), "inpaint --model MODEL img.png -o /sys/out.png")
        .fails_with(&["/sys/out.png", "cannot write"]);
    run(folder.path(), "sample --model MODEL -n 2 -o /sys/out.npy")
        .fails_with(&["/sys/out.npy", "cannot write"]);
    assert_eq!(names(folder.path()), ["img.png"]);
}

/// A write that fails half-way, as on a full disk: the limit on file sizes does it without privileges.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing_behind() {
    let folder = folder();
    half_hidden(8).save(folder.path().join("img.png")).unwrap();
    let limited = |line: &str| common::limited(folder.path(), 0, line);
    limited("inpaint --model MODEL img.png").fails_with(&["img.inpainted.png", "cannot write"]);
    limited("inpaint --model MODEL img.png --samples 2").fails_with(&["cannot write"]);
    limited("sample --model MODEL -n 2 -o out.npy").fails_with(&["out.npy", "cannot write"]);
    limited("sample --model MODEL -n 2 -o out.png").fails_with(&["out.png", "cannot write"]);
    assert_eq!(names(folder.path()), ["img.png"]);
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    let usage = |line: &str| {
        let done = run(Path::new("."), line);
        assert_eq!(done.code, Some(2), "{line}: {}", done.stderr);
        done.stderr
    };
    usage("");
    usage("paint");
    usage("inpaint img.png");
    usage("inpaint --model MODEL");
    usage("sample --model MODEL");
    assert!(usage("inpaint --model MODEL a.png --mask-rect 1,2,3").contains("x,y,width,height"));
    assert!(usage("inpaint --model MODEL a.png --mask-rect 1,2,0,3").contains("at least 1"));
    assert!(usage("inpaint --model MODEL a.png --mask m.png --mask-rect 1,2,3,4").contains("--mask-rect"));
    // What plugins offer is known once all arguments are read, so this is no wrong usage.
    run(Path::new("."), "score --model MODEL --data nonsense")
        .fails_with(&["there is no data set nonsense", "mnist"]);
    assert!(usage("sample --model MODEL -n 0 -o a.png").contains("1.."));
}
