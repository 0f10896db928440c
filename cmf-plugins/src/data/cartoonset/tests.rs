use std::fs;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::super::tests::{CARTOONSET_SMALL, all, error};
use super::super::{Split, name_of};
use super::*;

const FIRST: &str = "cs100214067654451312";

/// Names and bytes of the fixture's files.
fn fixture() -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(CARTOONSET_SMALL).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> = files
        .map(|f| (f.file_name().into_string().unwrap(), fs::read(f.path()).unwrap()))
        .filter(|(name, _)| part_of(name).is_some())
        .collect();
    files.sort();
    assert_eq!(files.len(), 8);
    files
}

/// A folder with copies of the fixture's files.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in fixture() {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

/// Writes a .tgz with the fixture's files, in reverse, and what `add` adds.
fn archive(add: impl FnOnce(&mut Builder<GzEncoder<fs::File>>)) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cartoonset10k.tgz");
    let mut tar = Builder::new(GzEncoder::new(fs::File::create(&path).unwrap(), Compression::fast()));
    for (name, bytes) in fixture().into_iter().rev() {
        entry(&mut tar, EntryType::Regular, &format!("cartoonset10k/{name}"), &bytes);
    }
    add(&mut tar);
    tar.into_inner().unwrap().finish().unwrap();
    (folder, path)
}

/// Appends an entry with any name and type.
fn entry(tar: &mut Builder<GzEncoder<fs::File>>, kind: EntryType, name: &str, bytes: &[u8]) {
    tar.append(&header(kind, name, bytes.len() as u64), bytes).unwrap();
}

fn header(kind: EntryType, name: &str, size: u64) -> Header {
    let mut header = Header::new_ustar();
    // As it stands: `set_path` refuses what a stranger's archive may hold.
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

#[test]
fn reads_the_folder_in_the_order_of_names() {
    let opened = open(Path::new(CARTOONSET_SMALL), 32).unwrap();
    let data = opened.data.as_ref();
    assert_eq!(data.shape(), Shape::Image { height: 32, width: 32, channels: 3 });
    assert_eq!(data.pixel_range(), Some((0.0, 1.0)));
    assert_eq!((data.rows(Split::Train), data.rows(Split::HeldOut)), (3, 1));
    assert_eq!(opened.licence.as_deref(), Some("CC BY 4.0, Google, Cartoon Set"));
    let train = all(data, Split::Train);
    assert!(train.iter().all(|v| (0.0..=1.0).contains(v)));
    // The transparent border is white.
    assert_eq!(train[..3], [1.0; 3]);
    assert_eq!(opened.sha256, open(Path::new(CARTOONSET_SMALL), 32).unwrap().sha256);
    let large = open(Path::new(CARTOONSET_SMALL), 64).unwrap();
    assert_eq!(large.data.shape().dim(), 3 * 64 * 64);
}

#[test]
fn pixels_are_those_of_another_implementation() {
    let opened = open(Path::new(CARTOONSET_SMALL), 32).unwrap();
    let first = all(opened.data.as_ref(), Split::Train);
    // Pillow 13: alpha_composite over white, resize((32, 32), BILINEAR).
    let theirs = [
        (0, 0, [255, 255, 255]),
        (16, 9, [228, 132, 73]),
        (16, 13, [217, 161, 110]),
        (13, 16, [87, 89, 84]),
        (18, 17, [177, 165, 147]),
        (16, 21, [168, 150, 133]),
        (9, 18, [179, 148, 121]),
        (16, 24, [195, 147, 103]),
        (21, 14, [221, 167, 132]),
    ];
    for (x, y, rgb) in theirs {
        for (c, want) in rgb.into_iter().enumerate() {
            let got = 255.0 * first[3 * (32 * y + x) + c];
            // Two roundings each: over white, and after the first of the two passes of the filter.
            assert!((got - f64::from(want)).abs() <= 2.0, "at {x}, {y}: {got}, {want}");
        }
    }
}

#[test]
fn an_archive_holds_what_its_folder_holds() {
    let (_folder, path) = archive(|tar| {
        // None of these is a face: folders, others' files, macOS' shadows, links of other names, a header extension
        // that claims another name for what follows.
        entry(tar, EntryType::Directory, "cartoonset10k/", b"");
        entry(tar, EntryType::Regular, "../../etc/passwd", b"root");
        entry(tar, EntryType::Regular, "cartoonset10k/._cs1.png", b"shadow");
        entry(tar, EntryType::Regular, "cartoonset10k/cs1.png.bak", b"");
        entry(tar, EntryType::Symlink, "cartoonset10k/latest", b"");
        entry(tar, EntryType::XHeader, "pax", b"29 path=cartoonset10k/cs1.png\n");
        entry(tar, EntryType::Regular, "notes", b"not a face");
        entry(tar, EntryType::Regular, "\u{e4}\u{f6}/\u{fffd}.png", b"");
    });
    assert_eq!(name_of(&path).unwrap(), "cartoonset");
    let (from_folder, from_archive) =
        (open(Path::new(CARTOONSET_SMALL), 32).unwrap(), open(&path, 32).unwrap());
    assert_eq!(from_folder.sha256, from_archive.sha256);
    for split in [Split::Train, Split::HeldOut] {
        assert_eq!(all(from_folder.data.as_ref(), split), all(from_archive.data.as_ref(), split));
    }
}

#[test]
fn faces_may_lie_one_folder_below() {
    let folder = tempfile::tempdir().unwrap();
    for (i, (name, bytes)) in fixture().into_iter().enumerate() {
        // Both files of a face into one of the folders 0 and 1, in the order of their names.
        let below = folder.path().join((i / 4).to_string());
        fs::create_dir_all(&below).unwrap();
        fs::write(below.join(name), bytes).unwrap();
    }
    assert_eq!(name_of(folder.path()).unwrap(), "cartoonset");
    let opened = open(folder.path(), 32).unwrap();
    assert_eq!(opened.sha256, open(Path::new(CARTOONSET_SMALL), 32).unwrap().sha256);
}

#[test]
fn a_folder_that_is_not_the_set_is_named_with_what_is_missing() {
    let fails = |change: &dyn Fn(&Path), words: &[&str]| {
        let folder = folder();
        change(folder.path());
        let e = error(open(folder.path(), 32));
        assert!(words.iter().all(|w| e.contains(w)), "{e}");
    };
    let png = format!("{FIRST}.png");
    let csv = format!("{FIRST}.csv");
    let picture = fs::read(Path::new(CARTOONSET_SMALL).join(&png)).unwrap();
    fails(
        &|f| fs::remove_file(f.join(&csv)).unwrap(),
        &[&format!("found {png} without {csv}"), "data set images"],
    );
    fails(&|f| fs::remove_file(f.join(&png)).unwrap(), &[&format!("found {csv} without {png}")]);
    fails(&|f| fs::write(f.join(&png), &picture[..20_000]).unwrap(), &[&png, "cannot be decoded"]);
    fails(&|f| fs::write(f.join(&png), b"GIF89a").unwrap(), &[&png, "cannot be decoded"]);
    fails(
        &|f| image::RgbaImage::new(499, 500).save(f.join(&png)).unwrap(),
        &[&png, "found 499x500 pixels, expected 500x500"],
    );
    fails(
        &|f| image::GrayImage::new(500, 500).save(f.join(&png)).unwrap(),
        &[&png, "found L8 pixels, expected RGBA"],
    );
    fails(&|f| fs::write(f.join(&png), vec![0; (4 << 20) + 1]).unwrap(), &[&png, "more than the 4194304"]);
    fails(&|f| fs::write(f.join(&csv), "").unwrap(), &[&csv, "found no attributes"]);
    for line in
        ["\"hair\", 3, 3", "\"hair\", -1, 3", "hair, 0, 3", "\"hair\", 0", "\"hair\", 0, 3, 4", "\"\", 0, 3"]
    {
        fails(
            &|f| fs::write(f.join(&csv), format!("\"eyes\", 0, 1\n{line}\n")).unwrap(),
            &[&csv, "line 2: expected", line],
        );
    }
    let empty = tempfile::tempdir().unwrap();
    let e = error(open(empty.path(), 32));
    assert!(e.contains("found 0 faces, expected at least 2"), "{e}");
}

#[test]
fn a_huge_picture_is_refused_by_its_header() {
    let folder = folder();
    // A PNG's signature and header: 100,000 x 100,000, 8 bits, grey, with its checksum.
    let header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\x01\x86\xa0\0\x01\x86\xa0\x08\0\0\0\0\x8d\x39\x54\x14";
    let image = [&header[..], b"\0\0\0\0IDAT\x35\xaf\x06\x1e"].concat();
    fs::write(folder.path().join(format!("{FIRST}.png")), image).unwrap();
    let e = error(open(folder.path(), 32));
    assert!(e.contains("found 100000x100000 pixels, expected 500x500"), "{e}");
}

#[test]
fn an_archive_that_is_not_the_set_is_refused() {
    let fails = |add: &dyn Fn(&mut Builder<GzEncoder<fs::File>>), words: &str| {
        let (_folder, path) = archive(add);
        let e = error(open(&path, 32));
        assert!(e.starts_with(&path.display().to_string()) && e.contains(words), "{e}");
    };
    fails(&|tar| entry(tar, EntryType::Symlink, "cs1.png", b""), "cs1.png: found an entry of type Symlink");
    fails(&|tar| entry(tar, EntryType::Regular, "cs1.png", b"text"), "cs1.png: cannot be decoded");
    fails(
        &|tar| entry(tar, EntryType::Regular, "cs1.csv", b"\"hair\", 0, 2"),
        "found cs1.csv without cs1.png",
    );
    fails(&|tar| entry(tar, EntryType::Regular, "cs1.csv", b"?"), "cs1.csv: line 1: expected");
    fails(
        &|tar| entry(tar, EntryType::Regular, "cs1.png", &vec![0; (4 << 20) + 1]),
        "cs1.png: claims 4194305 bytes, more than the 4194304",
    );
    let (again, bytes) = fixture().swap_remove(1);
    assert!(again.ends_with(".png"));
    fails(
        &|tar| entry(tar, EntryType::Regular, &format!("cartoonset10k/{again}"), &bytes),
        "holds cartoonset10k/cs100214067654451312.png twice",
    );
    // What claims more than there is, whether it would be read or left out.
    fails(
        &|tar| tar.append(&header(EntryType::Regular, "film", 1 << 36), &b""[..]).unwrap(),
        "decodes to more than",
    );
    fails(&|tar| tar.append(&header(EntryType::Regular, "cs1.png", 5000), &b"short"[..]).unwrap(), "cs1.png");
}

#[test]
fn an_archive_that_is_cut_short_or_none_is_refused() {
    let (folder, path) = archive(|_| ());
    let bytes = fs::read(&path).unwrap();
    let cut = folder.path().join("cut.tgz");
    for at in [0, 5, 1000, bytes.len() / 2, bytes.len() - 200] {
        fs::write(&cut, &bytes[..at]).unwrap();
        let e = error(open(&cut, 32));
        assert!(e.starts_with(&cut.display().to_string()), "{at}: {e}");
    }
    fs::write(&cut, "no archive").unwrap();
    let e = error(open(&cut, 32));
    assert!(e.contains("cannot be read as a gzipped tar archive") && e.contains("cartoonset10k.tgz"), "{e}");
}
