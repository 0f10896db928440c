//! Files of networks whose forms lie in the span of their head's directions: version 6, by coordinates there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cmf_core::gaussian::Gaussian;
use cmf_core::host::Array;
use cmf_core::icnn::{Architecture, GibbsFactor, Icnn, Weights};
use cmf_core::mixture::Mixture;
use cmf_core::onnx::{Metadata, ModelFile, TractModel, export};
use cmf_core::symmetric::{Spiked, Symmetric};
use cmf_core::{Potential, SecondOrder};
use prost::Message;
use tract_onnx::pb;

use crate::common::{random_within, uniform};
use crate::{assert_close, metadata};

const D: usize = 24;
const K: usize = 3;

/// Rows [k, d] of V.
fn directions(w: &Icnn<f64>) -> Vec<f64> {
    let rows = w.weights().x_side.to_vec();
    rows[rows.len() - K * D..].to_vec()
}

/// A network with a mixture, and a covariance of the data, along its directions but in another order.
fn along() -> (Icnn<f64>, Metadata) {
    let w = random_within(D, &[6, 5], K, GibbsFactor::Head);
    let mut axes = directions(&w);
    axes.rotate_left(D);
    axes[..D].iter_mut().for_each(|v| *v = -*v);
    let mut numbers = vec![1.0, 2.0];
    numbers.extend(w.gibbs().unwrap().directions(&axes[..2 * D]).unwrap());
    numbers.extend([1.0, 0.8, 0.3, 1.0, 0.2, 0.9]);
    let mixture = Arc::new(Mixture::from_numbers(&numbers, D).unwrap());
    let covariance = Spiked::new(0.25, vec![4.0, 2.0, 1.0], axes).unwrap().into();
    let plain = metadata(&w, &[0.3; D]);
    let metadata = Metadata {
        gaussian: Some(Arc::new(Gaussian { mean: vec![0.5; D], covariance })),
        mixture: Some(mixture.clone()),
        data_mixture: Some(mixture.clone()),
        ..plain
    };
    (w.with_mixture(mixture).unwrap(), metadata)
}

/// The file of this network in a folder that lives as long.
fn written(w: &Icnn<f64>, metadata: &Metadata) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    export(&path, &w.cast().unwrap(), metadata).unwrap();
    (folder, path)
}

fn proto(path: &Path) -> pb::ModelProto {
    pb::ModelProto::decode(&std::fs::read(path).unwrap()[..]).unwrap()
}

fn constants(proto: &pb::ModelProto) -> Vec<&str> {
    proto.graph.as_ref().unwrap().initializer.iter().map(|t| &t.name[..]).collect()
}

fn version(proto: &pb::ModelProto) -> &str {
    &proto.metadata_props[0].value
}

#[test]
fn what_lies_in_the_span_is_written_by_its_coordinates_and_comes_back() {
    let (w, metadata) = along();
    let (folder, path) = written(&w, &metadata);
    let proto = proto(&path);
    assert_eq!(version(&proto), "6");
    let names = constants(&proto);
    assert!(!names.contains(&"x_side") && names.contains(&"forms_along"), "{names:?}");

    let file = ModelFile::open(&path).unwrap();
    let found = file.metadata().unwrap();
    // Sums of three roundings of f32, of numbers up to 4.
    let rounding = 1e-6;
    let of = |metadata: &Metadata| {
        let Symmetric::Spiked(spiked) = &metadata.gaussian.as_ref().unwrap().covariance else { panic!() };
        let mixtures = [&metadata.mixture, &metadata.data_mixture].map(|m| m.as_ref().unwrap().numbers());
        [vec![spiked.floor()], spiked.values().to_vec(), spiked.vectors().to_vec(), mixtures.concat()]
            .concat()
    };
    assert_close("the gaussian and the mixtures", &of(found), &of(&metadata), rounding);

    let network = file.network().unwrap();
    assert_close("x_side", &network.weights().x_side.to_f64s(), &w.weights().x_side.to_f64s(), rounding);
    let engine = TractModel::load(&file).unwrap();
    let x = uniform(&mut rand::SeedableRng::seed_from_u64(1), 4 * D);
    let answers = |w: &dyn Potential| {
        let (mut value, mut gradient) = (vec![0.0; 4], vec![0.0; 4 * D]);
        w.value_and_gradient(&x, &mut value, &mut gradient).unwrap();
        [value, gradient].concat()
    };
    // Sums of a hundred terms in f32.
    assert_close("answers", &answers(&engine), &answers(&w), 1e-5);

    // What was read is written again, the network as it was.
    let again = folder.path().join("again.onnx");
    export(&again, network, found).unwrap();
    assert_eq!(self::proto(&again).graph, proto.graph);
    let file = ModelFile::open(&again).unwrap();
    assert_close("the gaussian and the mixtures", &of(file.metadata().unwrap()), &of(found), rounding);
}

/// The file that other runtimes open gives the same answers as the engine that makes a graph of its own.
#[test]
fn the_graph_of_the_file_has_the_answers() {
    use tract_onnx::prelude::*;
    let (w, metadata) = along();
    let (_folder, path) = written(&w, &metadata);
    let mut graph = tract_onnx::onnx().model_for_path(&path).unwrap();
    graph.set_input_fact(0, f32::fact([1, D]).into()).unwrap();
    let x = uniform(&mut rand::SeedableRng::seed_from_u64(2), D);
    let single: Vec<f32> = x.iter().map(|&v| v as f32).collect();
    let input = Tensor::from_shape(&[1, D], &single).unwrap();
    let found = graph.into_optimized().unwrap().into_runnable().unwrap().run(tvec![input.into()]).unwrap();
    let numbers = |i: usize| -> Vec<f64> {
        let found = found[i].try_as_plain_ram().and_then(|a| a.as_slice::<f32>()).unwrap();
        found.iter().map(|&v| f64::from(v)).collect()
    };
    let head = Icnn::new(w.architecture().clone(), w.weights().clone()).unwrap();
    for (i, potential) in [(0, &w as &dyn Potential), (2, head.gibbs().unwrap())] {
        let (mut value, mut gradient) = ([0.0], [0.0; D]);
        potential.value_and_gradient(&x, &mut value, &mut gradient).unwrap();
        assert_close("value", &numbers(i), &value, 1e-5);
        assert_close("gradient", &numbers(i + 1), &gradient, 1e-5);
    }
}

/// A law of `m` directions of the data, by numbers that f32 holds.
fn data_mixture(rows: &[f64], m: usize) -> Option<Arc<Mixture>> {
    let mut numbers = vec![1.0, m as f64];
    numbers.extend(rows.iter().map(|&v| f64::from(v as f32)));
    numbers.push(1.0);
    numbers.extend(vec![0.5; m + m * (m + 1) / 2]);
    Some(Arc::new(Mixture::from_numbers(&numbers, rows.len() / m).unwrap()))
}

/// One row that leaves the span, or more of them than the span has room for, and the file is of an earlier version, which says
/// all of it in all dimensions.
#[test]
fn what_leaves_the_span_is_written_in_full() {
    let (w, metadata) = along();
    let outside: Vec<f64> = (0..D).map(|i| (i as f64).cos()).collect();
    let covariance = Spiked::new(0.25, vec![4.0, 2.0, 1.0], {
        let mut unit = vec![0.0; K * D];
        (0..K).for_each(|i| unit[i * (D + 1)] = 1.0);
        unit
    });
    let gaussian = Gaussian { mean: vec![0.5; D], covariance: covariance.unwrap().into() };
    let dependent = [directions(&w), directions(&w)].concat();
    for full in [
        Metadata { data_mixture: data_mixture(&outside, 1), ..metadata.clone() },
        Metadata { data_mixture: data_mixture(&dependent, 2 * K), ..metadata.clone() },
        Metadata { gaussian: Some(Arc::new(gaussian)), ..metadata.clone() },
    ] {
        let (_folder, path) = written(&w, &full);
        let proto = proto(&path);
        let names = constants(&proto);
        assert!(version(&proto) == "5" && names.contains(&"x_side"), "{names:?}");
        assert!(!names.contains(&"forms_along"), "{names:?}");
        let file = ModelFile::open(&path).unwrap();
        if full.data_mixture != metadata.data_mixture {
            assert_eq!(file.metadata().unwrap().data_mixture, full.data_mixture);
        }
        // What is evaluated goes through the directions all the same.
        assert!(TractModel::load(&file).unwrap().subspace().is_some());
    }
    // A file that says so reads its forms in all dimensions, whatever else it holds.
    let full = Metadata { data_mixture: data_mixture(&outside, 1), ..metadata };
    let (_folder, path) = written(&w, &full);
    let x_side = |path: &Path| {
        let file = ModelFile::open(path).unwrap();
        file.network().unwrap().weights().x_side.to_vec()
    };
    let before = x_side(&path);
    let mut more = proto(&path);
    let graph = more.graph.as_mut().unwrap();
    let zeros = graph.initializer.iter().find(|t| t.name == "x_side").unwrap().clone();
    graph.initializer.push(pb::TensorProto {
        name: "forms_along".into(),
        raw_data: vec![0; 4 * 33 * K],
        dims: vec![33, K as i64],
        ..zeros
    });
    std::fs::write(&path, more.encode_to_vec()).unwrap();
    assert_eq!(x_side(&path), before);
}

/// Directions that are orthonormal to 4e-6 times two, and taken for it: what is read back by coordinates would be so to 2.4e-5.
#[test]
fn what_could_not_be_read_back_is_written_in_full() {
    let w = random_within(D, &[6, 5], K, GibbsFactor::Whole);
    let stretched: Vec<f64> = directions(&w).iter().map(|v| v * (1.0 + 4e-6)).collect();
    let mut rows = w.weights().x_side.to_vec();
    let forms = rows.len() - K * D;
    rows[forms..].copy_from_slice(&stretched);
    let arch = w.architecture().clone();
    let x_side = Array::matrix(rows, arch.x_side_rows(), D);
    let w = Icnn::new(arch, Weights { x_side, ..w.weights().clone() }).unwrap();
    let covariance = Spiked::new(0.25, vec![4.0, 2.0, 1.0], stretched).unwrap().into();
    let gaussian = Some(Arc::new(Gaussian { mean: vec![0.5; D], covariance }));
    let (_folder, path) = written(&w, &Metadata { gaussian, ..metadata(&w, &[0.3; D]) });
    assert_eq!(version(&proto(&path)), "3");
    assert!(ModelFile::open(&path).is_ok());
}

#[test]
fn metadata_of_other_dimensions_are_refused_before_anything_is_written() {
    let (w, metadata) = along();
    let other: Vec<f64> = (0..2 * (D + 1)).map(|i| (i as f64).sin()).collect();
    let wrong = Metadata { data_mixture: data_mixture(&other, 2), ..metadata };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let message = export(&path, &w.cast().unwrap(), &wrong).unwrap_err().to_string();
    assert!(message.contains("cmf.data_mixture") && !path.exists(), "{message}");
}

/// Diagonal terms bend across the directions; forms are written along them all the same.
#[test]
fn diagonal_terms_do_not_matter() {
    let w = random_within(D, &[6, 5], K, GibbsFactor::Whole);
    let arch = Architecture { diagonal: true, ..w.architecture().clone() };
    let numbers = uniform(&mut rand::SeedableRng::seed_from_u64(3), 11 * D);
    let diagonal = Some(Array::matrix(numbers.iter().map(|v| v.abs()).collect(), 11, D));
    let w = Icnn::new(arch, Weights { diagonal, ..w.weights().clone() }).unwrap();
    let (_folder, path) = written(&w, &metadata(&w, &[0.3; D]));
    assert_eq!(version(&proto(&path)), "6");
    // Its probe is answered.
    assert!(TractModel::load(&ModelFile::open(&path).unwrap()).unwrap().subspace().is_none());
}

fn refusal(edit: impl FnOnce(&mut pb::ModelProto)) -> String {
    let (w, metadata) = along();
    let (_folder, path) = written(&w, &metadata);
    let mut edited = proto(&path);
    edit(&mut edited);
    std::fs::write(&path, edited.encode_to_vec()).unwrap();
    let opened = ModelFile::open(&path).and_then(|file| TractModel::load(&file).map(|_| ()));
    opened.unwrap_err().to_string()
}

fn constant<'a>(proto: &'a mut pb::ModelProto, name: &str) -> &'a mut pb::TensorProto {
    proto.graph.as_mut().unwrap().initializer.iter_mut().find(|t| t.name == name).unwrap()
}

fn property<'a>(proto: &'a mut pb::ModelProto, key: &str) -> &'a mut String {
    &mut proto.metadata_props.iter_mut().find(|p| p.key == key).unwrap().value
}

/// Multiplies the numbers of a constant.
fn times(proto: &mut pb::ModelProto, name: &str, factor: f32) {
    let numbers = constant(proto, name).raw_data.as_chunks_mut::<4>().0;
    numbers.iter_mut().for_each(|b| *b = (factor * f32::from_le_bytes(*b)).to_le_bytes());
}

#[test]
fn files_whose_parts_do_not_go_together_are_refused() {
    let shape = |rows: i64, name: &'static str| {
        refusal(move |m| {
            let tensor = constant(m, name);
            tensor.raw_data.truncate(4 * (rows * tensor.dims[1]) as usize);
            tensor.dims[0] = rows;
        })
    };
    for (message, words) in [
        (shape(K as i64 - 1, "directions"), "48 numbers of \"directions\""),
        (shape(4, "forms_along"), "needs [33, 3] of float32"),
        (refusal(|m| *property(m, "cmf.format_version") = "5".into()), "cmf.gaussian cannot be read"),
        (refusal(|m| property(m, "cmf.mixture").truncate(16)), "cmf.mixture cannot be read"),
        (
            refusal(|m| {
                let architecture = property(m, "cmf.architecture");
                *architecture = architecture.replace(r#","head":{"kind":"spiked","rank":3}"#, "");
            }),
            "needs a spiked head",
        ),
        (refusal(|m| times(m, "directions", 2.0)), "cmf.gaussian cannot be read"),
        // Nothing but the head says that they are.
        (
            refusal(|m| {
                times(m, "directions", 2.0);
                m.metadata_props.retain(|p| p.key != "cmf.gaussian");
            }),
            "not orthonormal",
        ),
        (refusal(|m| times(m, "directions", f32::NAN)), "not finite"),
        (refusal(|m| times(m, "forms_along", f32::NAN)), "not finite"),
        // A component along four directions of three.
        (
            refusal(|m| {
                let mut numbers = vec![1.0f32, 4.0];
                numbers.extend([0.5; 4 * K]);
                numbers.push(1.0);
                numbers.extend([0.5; 4 + 10]);
                let bytes: Vec<u8> = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
                *property(m, "cmf.data_mixture") = STANDARD.encode(bytes);
            }),
            "4 directions in the span of 3",
        ),
    ] {
        assert!(message.contains(words), "{words}: {message}");
    }
}

/// Few numbers may stand for many, but not for more than a file could hold.
#[test]
fn small_files_of_huge_networks_are_refused_before_they_take_memory() {
    const HUGE: usize = 1 << 20;
    let message = refusal(|m| {
        let graph = m.graph.as_mut().unwrap();
        for value in graph.input.iter_mut().chain(&mut graph.output) {
            let pb::type_proto::Value::TensorType(tensor) =
                value.r#type.as_mut().unwrap().value.as_mut().unwrap();
            for axis in &mut tensor.shape.as_mut().unwrap().dim {
                use pb::tensor_shape_proto::dimension::Value;
                if axis.value == Some(Value::DimValue(D as i64)) {
                    axis.value = Some(Value::DimValue(HUGE as i64));
                }
            }
        }
        let directions = constant(m, "directions");
        (directions.dims, directions.raw_data) = (vec![1, HUGE as i64], vec![0; 4 * HUGE]);
        let architecture = property(m, "cmf.architecture");
        *architecture = architecture
            .replace("\"dim\":24", &format!("\"dim\":{HUGE}"))
            .replace("[6,5]", "[64]")
            .replace(r#""rank":3}"#, r#""rank":1}"#);
        *property(m, "cmf.shape") = format!("{{\"kind\":\"flat\",\"dim\":{HUGE}}}");
        *property(m, "cmf.probes") = "[]".into();
        m.metadata_props.retain(|p| !["cmf.gaussian", "cmf.mixture", "cmf.data_mixture"].contains(&&*p.key));
    });
    assert!(message.contains("193 rows in 1048576 dimensions, more than a file may hold"), "{message}");
}
