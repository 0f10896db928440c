//! This crate's dynamic library gives, through the host, the numbers that its static built-ins give.

use std::path::{Path, PathBuf};

use cmf_plugin::{Schema, Split, Status};
use cmf_plugins::host::{KindOfPlugin, Plugins, Resolved, Search};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The library, which cargo builds beside the tests.
fn library() -> PathBuf {
    let name = format!("{}cmf_plugins{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    let places = [folder.join(&name), folder.join("..").join(&name)];
    places.into_iter().find(|p| p.is_file()).expect("cargo builds the cdylib of this crate")
}

/// A built-in, and the same from the library.
fn both(kind: KindOfPlugin, name: &str) -> [Resolved; 2] {
    let plugins = Plugins::find(Search::default()).unwrap();
    let named = format!("plugin:{}#{name}", library().display());
    [name, named.as_str()].map(|spec| plugins.resolve(kind, spec).unwrap())
}

#[test]
fn energies_have_the_same_values_gradients_and_products() {
    for offer in KindOfPlugin::Energy.builtins() {
        let [one, other] = both(KindOfPlugin::Energy, &offer.name);
        assert!(one.library().is_none() && other.library().is_some());
        assert_eq!(one.offer, other.offer);
        let parameters = one.schema.complete("").unwrap();
        let [one, other] = [one, other].map(|found| found.energy(&parameters).unwrap());
        let (d, (low, high)) = (one.dim(), one.domain());
        assert_eq!((other.dim(), other.domain()), (d, (low.clone(), high.clone())));
        let n = 7;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let x: Vec<f64> =
            (0..n * d).map(|i| low[i % d] + (high[i % d] - low[i % d]) * rng.random::<f64>()).collect();
        let v: Vec<f64> = (0..n * d).map(|_| rng.random::<f64>() - 0.5).collect();
        let [a, b] = [one, other].map(|energy| {
            let (mut value, mut gradient, mut hv) = (vec![0.0; n], vec![0.0; n * d], vec![0.0; n * d]);
            energy.value_and_gradient(&x, &mut value, &mut gradient).unwrap();
            energy.hvp(&x, &v, &mut hv).unwrap();
            // Rows that do not fit are refused on both ways.
            let wrong = energy.value_and_gradient(&x[1..], &mut [0.0; 7], &mut vec![0.0; n * d]);
            assert_eq!(wrong.unwrap_err().status, Status::Invalid);
            [value, gradient, hv]
        });
        // The same code, so not a bit differs.
        assert!(a == b && a[1].iter().any(|g| *g != 0.0), "{}", offer.name);
    }
}

/// What the data sets that read files are given.
fn files(folder: &Path) -> impl Fn(&str) -> Option<PathBuf> {
    let table: String = (0..30).map(|i| format!("{i},{}\n", i * i)).collect();
    std::fs::write(folder.join("a.csv"), table).unwrap();
    // NumPy's format 1.0: magic, version, length of the header, header, numbers.
    let header = format!("{:117}\n", "{'descr': '<f8', 'fortran_order': False, 'shape': (12, 2)}");
    let mut bytes =
        [&b"\x93NUMPY\x01\x00"[..], &(header.len() as u16).to_le_bytes(), header.as_bytes()].concat();
    bytes.extend((0..24).flat_map(|i| f64::from(i).sqrt().to_le_bytes()));
    std::fs::write(folder.join("a.npy"), bytes).unwrap();
    let images = folder.join("images");
    std::fs::create_dir(&images).unwrap();
    for i in 0..12 {
        let image =
            image::RgbImage::from_fn(5, 4, |x, y| image::Rgb([(x * 40) as u8, (y * 50) as u8, i * 20]));
        image.save(images.join(format!("{i:02}.png"))).unwrap();
    }
    let fixture = |name| Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name);
    let (mnist, cartoonset) = (fixture("mnist-small"), fixture("cartoonset-small"));
    let folder = folder.to_path_buf();
    move |name| match name {
        "csv" | "npy" => Some(folder.join(format!("a.{name}"))),
        "images" => Some(images.clone()),
        "mnist" => Some(mnist.clone()),
        "cartoonset" => Some(cartoonset.clone()),
        _ => None,
    }
}

#[test]
fn data_sets_have_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path_of = files(folder.path());
    for offer in KindOfPlugin::DataSet.builtins() {
        let [one, other] = both(KindOfPlugin::DataSet, &offer.name);
        let given = match path_of(&offer.name) {
            Some(path) => serde_json::json!({ "path": path }),
            None => serde_json::json!({ "seed": 3 }),
        };
        let parameters = Schema::parse(&offer.parameters).unwrap().complete(&given.to_string()).unwrap();
        let [one, other] = [one, other].map(|found| found.dataset(&parameters).unwrap());
        assert_eq!(one.shape(), other.shape(), "{}", offer.name);
        assert_eq!(one.pixel_range(), other.pixel_range());
        assert_eq!(one.licence(), other.licence());
        for split in [Split::Train, Split::HeldOut] {
            assert_eq!(one.rows(split), other.rows(split));
            // The last row first: random access.
            let rows: Vec<usize> = (0..one.rows(split).min(50)).rev().collect();
            let [a, b] = [&one, &other].map(|data| {
                let mut out = vec![f64::NAN; rows.len() * data.shape().dim()];
                data.read(split, &rows, &mut out).unwrap();
                let past = data.read(split, &[data.rows(split)], &mut vec![0.0; data.shape().dim()]);
                assert_eq!(past.unwrap_err().status, Status::Invalid);
                out
            });
            assert!(a == b && a.iter().any(|v| *v != 0.0), "{} {split:?}", offer.name);
        }
    }
}
