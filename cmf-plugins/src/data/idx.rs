//! MNIST: the idx files of LeCun, Cortes and Burges, gzipped or not, and other sets in their form.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cmf_core::{Error, Result};
use flate2::read::GzDecoder;

use super::memory::{InMemory, Values};
use super::{Opened, Shape};

/// The magic numbers: two zero bytes, 8 for unsigned bytes, the number of axes.
const IMAGES: u32 = 0x0803;
const LABELS: u32 = 0x0801;
/// No file may claim more decoded bytes than this; MNIST's largest has 47 million.
const MAX_BYTES: u64 = 1 << 32;
/// [`Opened::sha256`] of the 60,000 training digits.
const MNIST_SHA256: &str = "e084c9e4b7a4271ffbd9d552e084323a167af5d18698a965b02332e4235c5a4e";
const MNIST_LICENCE: &str = "CC BY-SA 3.0, MNIST by Yann LeCun, Corinna Cortes and Christopher J. C. Burges";

/// Opens a folder with `{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]`: the training split is `train`,
/// the held-out one `t10k`. Labels are checked against the images and not kept.
///
/// The licence is MNIST's if the training images are, and unknown otherwise (Fashion-MNIST and others use
/// the same names).
pub(super) fn open(folder: &Path) -> Result<Opened> {
    if !folder.is_dir() {
        let found = if folder.exists() { "found a file" } else { "found nothing" };
        return Err(Error::file(
            folder,
            format!("{found}, expected a folder with the four idx files of MNIST"),
        ));
    }
    let mut pixels = Vec::new();
    let (train, shape) = read_part(folder, "train", None, &mut pixels)?;
    let (held_out, _) = read_part(folder, "t10k", Some(shape), &mut pixels)?;
    let [height, width] = shape;
    let set = InMemory {
        shape: Shape::Image { height, width, channels: 1 },
        pixel_range: Some((0.0, 1.0)),
        values: Values::U8(pixels),
        train: (0..train).collect(),
        held_out: (train..train + held_out).collect(),
    };
    let opened = set.opened();
    let licence = (opened.sha256 == MNIST_SHA256).then(|| MNIST_LICENCE.to_string());
    Ok(Opened { licence, ..opened })
}

/// Whether the folder holds the training images.
pub(super) fn is_in(folder: &Path) -> bool {
    find(folder, "train-images-idx3-ubyte").is_ok()
}

/// Appends the images of one part to `pixels`; returns their number and [height, width].
fn read_part(
    folder: &Path,
    part: &str,
    expected: Option<[usize; 2]>,
    pixels: &mut Vec<u8>,
) -> Result<(usize, [usize; 2])> {
    let path = find(folder, &format!("{part}-images-idx3-ubyte"))?;
    let images = read(&path, IMAGES)?;
    let [n, height, width] = images.axes[..] else {
        return Err(Error::file(&path, "expected three axes"));
    };
    if n == 0 || height == 0 || width == 0 {
        return Err(Error::file(&path, format!("is empty: {n} images of {height}x{width}")));
    }
    if let Some([h, w]) = expected
        && [h, w] != [height, width]
    {
        let message = format!("found images of {height}x{width}, expected {h}x{w} as in the train images");
        return Err(Error::file(&path, message));
    }
    let labels_path = find(folder, &format!("{part}-labels-idx1-ubyte"))?;
    let labels = read(&labels_path, LABELS)?;
    if labels.axes != [n] {
        let message = format!(
            "found {} labels, expected {n}, one for each image of {}; they are not of one download",
            labels.values.len(),
            path.display()
        );
        return Err(Error::file(&labels_path, message));
    }
    pixels.extend_from_slice(&images.values);
    Ok((n, [height, width]))
}

fn find(folder: &Path, stem: &str) -> Result<PathBuf> {
    let (plain, gz) = (folder.join(stem), folder.join(format!("{stem}.gz")));
    [plain, gz].into_iter().find(|p| p.is_file()).ok_or_else(|| {
        let mirror = "https://storage.googleapis.com/cvdf-datasets/mnist/";
        Error::file(folder, format!("found neither {stem} nor {stem}.gz; download it from {mirror}"))
    })
}

struct Idx {
    axes: Vec<usize>,
    values: Vec<u8>,
}

/// Reads one idx file of unsigned bytes: magic, the axes as big-endian u32, the values.
fn read(path: &Path, magic: u32) -> Result<Idx> {
    let file = io::BufReader::new(File::open(path).map_err(|e| Error::file(path, e))?);
    let gzipped = path.extension().is_some_and(|e| e == "gz");
    let mut reader: Box<dyn Read> = if gzipped { Box::new(GzDecoder::new(file)) } else { Box::new(file) };
    let mut number = || -> Result<u32> {
        let mut bytes = [0; 4];
        reader.read_exact(&mut bytes).map_err(|e| broken(path, e))?;
        Ok(u32::from_be_bytes(bytes))
    };
    let found = number()?;
    if found != magic {
        let message =
            format!("found magic number {found:#010x}, expected {magic:#010x}; it is not this idx file");
        return Err(Error::file(path, message));
    }
    let axes = (0..magic & 0xff).map(|_| number().map(|n| n as usize)).collect::<Result<Vec<_>>>()?;
    let claimed = axes.iter().try_fold(1_u64, |p, &n| p.checked_mul(n as u64)).filter(|&n| n <= MAX_BYTES);
    let Some(claimed) = claimed else {
        let message =
            format!("its header claims {axes:?} bytes, more than the {MAX_BYTES} that are accepted");
        return Err(Error::file(path, message));
    };
    // The buffer grows with what the file holds, not with what its header claims.
    let mut values = Vec::new();
    reader.take(claimed + 1).read_to_end(&mut values).map_err(|e| broken(path, e))?;
    if values.len() as u64 != claimed {
        let found = if values.len() as u64 > claimed { "more" } else { &values.len().to_string() };
        let message = format!("its header claims {claimed} bytes, found {found}; download it again");
        return Err(Error::file(path, message));
    }
    Ok(Idx { axes, values })
}

fn broken(path: &Path, e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::UnexpectedEof => Error::file(path, "ends too early; download it again"),
        _ => Error::file(path, format!("cannot read it: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::tests::{MNIST_SMALL, all, error};
    use super::super::{Split, open as open_by_name};
    use super::*;

    #[test]
    fn reads_the_small_mnist() {
        let opened = open_by_name("mnist", Some(Path::new(MNIST_SMALL)), 0).unwrap();
        let data = opened.data.as_ref();
        assert_eq!(data.shape(), Shape::Image { height: 28, width: 28, channels: 1 });
        assert_eq!((data.rows(Split::Train), data.rows(Split::HeldOut)), (256, 128));
        assert_eq!(data.pixel_range(), Some((0.0, 1.0)));
        // Hash and means from another program (Python's hashlib and gzip on the original files).
        assert_eq!(opened.sha256, "f26178475b2794fc933868fca0945736b765297fe0bff29eef72b2becad312e8");
        for (split, want) in [(Split::Train, 0.12826913968712483), (Split::HeldOut, 0.11830986300770309)] {
            let values = all(data, split);
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            // A sum of 200,000 terms in f64.
            assert!((mean - want).abs() < 1e-12, "{mean}");
        }
        // Not the whole of MNIST, so nothing is claimed.
        assert_eq!(opened.licence, None);
    }

    /// Run with the folder of the four original files in CMF_MNIST.
    #[test]
    #[ignore = "needs the whole of MNIST"]
    fn reads_the_whole_mnist() {
        let folder = std::env::var_os("CMF_MNIST").expect("CMF_MNIST names the folder");
        let opened = open(Path::new(&folder)).unwrap();
        assert_eq!((opened.data.rows(Split::Train), opened.data.rows(Split::HeldOut)), (60_000, 10_000));
        assert_eq!(opened.sha256, MNIST_SHA256);
        assert_eq!(opened.licence.as_deref(), Some(MNIST_LICENCE));
    }

    /// An idx file: magic, axes, values.
    fn idx(magic: u32, axes: &[u32], values: &[u8]) -> Vec<u8> {
        let mut bytes = magic.to_be_bytes().to_vec();
        bytes.extend(axes.iter().flat_map(|n| n.to_be_bytes()));
        bytes.extend_from_slice(values);
        bytes
    }

    /// A good folder of 3 + 2 images of 2x2, not gzipped, in which one file is then replaced.
    fn folder(replaced: &str, bytes: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        write("train-images-idx3-ubyte", &idx(IMAGES, &[3, 2, 2], &[7; 12]));
        write("train-labels-idx1-ubyte", &idx(LABELS, &[3], &[1; 3]));
        write("t10k-images-idx3-ubyte", &idx(IMAGES, &[2, 2, 2], &[7; 8]));
        write("t10k-labels-idx1-ubyte", &idx(LABELS, &[2], &[1; 2]));
        write(replaced, bytes);
        folder
    }

    #[test]
    fn reads_files_that_are_not_gzipped() {
        let opened = open(folder("README", b"").path()).unwrap();
        assert_eq!((opened.data.rows(Split::Train), opened.data.rows(Split::HeldOut)), (3, 2));
        assert_eq!(all(opened.data.as_ref(), Split::HeldOut), [7.0 / 255.0; 8]);
    }

    #[test]
    fn broken_files_are_named() {
        let images = "train-images-idx3-ubyte";
        let labels = "t10k-labels-idx1-ubyte";
        for (name, bytes, words) in [
            (images, idx(IMAGES, &[3, 2, 2], &[7; 11]), "header claims 12 bytes, found 11"),
            (images, idx(IMAGES, &[3, 2, 2], &[7; 13]), "header claims 12 bytes, found more"),
            (images, idx(IMAGES, &[u32::MAX; 3], &[7; 12]), "more than the 4294967296 that are accepted"),
            (images, idx(IMAGES, &[1 << 31, 1, 1], &[7; 12]), "header claims 2147483648 bytes, found 12"),
            (images, idx(IMAGES, &[0, 2, 2], &[]), "is empty: 0 images of 2x2"),
            (images, idx(LABELS, &[3], &[7; 3]), "found magic number 0x00000801, expected 0x00000803"),
            (images, vec![0, 0, 8], "ends too early"),
            (images, vec![], "ends too early"),
            (labels, idx(LABELS, &[1], &[1]), "found 1 labels, expected 2"),
            ("t10k-images-idx3-ubyte", idx(IMAGES, &[2, 3, 1], &[7; 6]), "found images of 3x1, expected 2x2"),
        ] {
            let e = error(open(folder(name, &bytes).path()));
            assert!(e.contains(name) && e.contains(words), "{e}");
        }
    }

    #[test]
    fn a_cut_or_damaged_gzip_is_named() {
        let good = std::fs::read(Path::new(MNIST_SMALL).join("train-images-idx3-ubyte.gz")).unwrap();
        let mut damaged = good.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0xff;
        for bytes in [&good[..good.len() / 2], &good[..good.len() - 4], &good[..5], &damaged] {
            let folder = folder("train-images-idx3-ubyte.gz", bytes);
            std::fs::remove_file(folder.path().join("train-images-idx3-ubyte")).unwrap();
            let e = error(open(folder.path()));
            assert!(e.contains("train-images-idx3-ubyte.gz: "), "{e}");
        }
    }

    #[test]
    fn a_small_gzip_that_unpacks_to_much_is_not_unpacked_past_its_claim() {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&idx(IMAGES, &[3, 2, 2], &vec![0; 50_000_000])).unwrap();
        let folder = folder("train-images-idx3-ubyte.gz", &gz.finish().unwrap());
        std::fs::remove_file(folder.path().join("train-images-idx3-ubyte")).unwrap();
        let e = error(open(folder.path()));
        assert!(e.contains("header claims 12 bytes, found more"), "{e}");
    }

    #[test]
    fn a_missing_file_is_named_with_where_to_get_it() {
        let folder = folder("README", b"");
        std::fs::remove_file(folder.path().join("t10k-labels-idx1-ubyte")).unwrap();
        let e = error(open(folder.path()));
        assert!(e.contains("found neither t10k-labels-idx1-ubyte nor") && e.contains("https://"), "{e}");
        let e = error(open(&folder.path().join("README")));
        assert!(e.contains("found a file, expected a folder"), "{e}");
    }
}
