//! The file: what is written is read back, and what is broken is refused in words that help.

use std::path::Path;
use std::sync::Arc;

use cmf_core::density::exact_log_density;
use cmf_core::gaussian::Gaussian;
use cmf_core::head_factor::HeadFactor;
use cmf_core::icnn::{Architecture, GibbsFactor, Icnn};
use cmf_core::mixture::Mixture;
use cmf_core::onnx::{Data, LogZ, Metadata, ModelFile, Shape, TractModel, export};
use cmf_core::ops::Activation;
use cmf_core::symmetric::Spiked;
use cmf_core::{Error, Potential, SecondOrder, Source};
use prost::Message;
use tract_onnx::pb;

use crate::common::{random_network, random_spiked};
use crate::metadata;

fn network() -> Icnn<f64> {
    random_network(6, &[5, 4], 2, true, Activation::Softplus { beta: 2.0 })
}

fn full_metadata(network: &Icnn<f64>) -> Metadata {
    let mut metadata = metadata(network, &[0.25; 12]);
    metadata.shape = Shape::Image { height: 2, width: 3, channels: 1 };
    metadata.pixel_range = Some([0.0, 1.0]);
    metadata.sigma = 0.1;
    metadata.log_z = Some(LogZ { value: -12.25, standard_error: 0.0625 });
    metadata.recipe = serde_json::json!({"objective": "cmfgen", "steps": 1000, "rate": 1e-3});
    metadata.data = Data { name: "toy".into(), sha256: "ab".repeat(32), licence: "CC0-1.0".into() };
    metadata.licence = "MIT OR Apache-2.0".into();
    metadata.probes[1].log_density = Some(-3.5);
    metadata
}

#[test]
fn weights_and_metadata_come_back_and_the_bytes_are_the_same() {
    come_back(&network(), None);
    // A head and a Gaussian of few directions; the numbers of the Gaussian are stored as f32.
    let spiked = random_spiked(6, &[5, 4], 2, Activation::Softplus { beta: 2.0 });
    let mut vectors = vec![0.0; 12];
    (vectors[0], vectors[1], vectors[8]) = (-1.0, 0.0, 1.0);
    let covariance = Spiked::new(0.5, vec![4.0, 2.0], vectors).unwrap().into();
    come_back(&spiked, Some(Gaussian { mean: vec![0.25; 6], covariance }));
}

fn come_back(network: &Icnn<f64>, gaussian: Option<Gaussian>) {
    let folder = tempfile::tempdir().unwrap();
    let single: Icnn<f32> = network.cast().unwrap();
    let metadata = Metadata { gaussian: gaussian.map(Arc::new), ..full_metadata(network) };
    let (one, two) = (folder.path().join("one.onnx"), folder.path().join("two.onnx"));
    export(&one, &single, &metadata).unwrap();
    let file = ModelFile::open(&one).unwrap();
    assert_eq!(file.metadata(), Some(&metadata));
    let read = file.network().unwrap();
    for ((name, _, a), (_, _, b)) in
        single.weights().named(single.architecture()).iter().zip(read.weights().named(read.architecture()))
    {
        assert_eq!(a.to_vec(), b.to_vec(), "{name}");
    }
    export(&two, read, &metadata).unwrap();
    assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "no temporary file stays: {left:?}");
}

/// Other writers store numbers one by one instead of as bytes.
#[test]
fn numbers_stored_one_by_one_give_the_same_network() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, good()).unwrap();
    let network = |path: &Path| ModelFile::open(path).unwrap().network().unwrap().clone();
    let expected = network(&path);
    let mut model = pb::ModelProto::decode(&good()[..]).unwrap();
    for tensor in &mut graph(&mut model).initializer {
        if tensor.data_type == pb::tensor_proto::DataType::Float as i32 {
            let (numbers, _) = tensor.raw_data.as_chunks::<4>();
            tensor.float_data = numbers.iter().map(|b| f32::from_le_bytes(*b)).collect();
            tensor.raw_data.clear();
        }
    }
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    let found = network(&path);
    let arch = expected.architecture();
    for ((name, _, a), (_, _, b)) in expected.weights().named(arch).iter().zip(found.weights().named(arch)) {
        assert_eq!(a.to_vec(), b.to_vec(), "{name}");
    }
    let engine = TractModel::load(&ModelFile::open(&path).unwrap());
    assert!(engine.is_ok(), "the probes are answered");
}

#[test]
fn no_number_of_the_network_is_stored_twice() {
    let network = random_network(40, &[32, 32], 1, false, Activation::Elu);
    let (folder, single) = (tempfile::tempdir().unwrap(), network.cast::<f32>().unwrap());
    let path = folder.path().join("model.onnx");
    export(&path, &single, &metadata(&network, &[])).unwrap();
    let size = std::fs::metadata(&path).unwrap().len() as usize;
    let weights = 4 * network.architecture().parameter_count();
    // Nodes, names and properties of so small a graph take a few kilobytes.
    assert!((weights..weights + 12_000).contains(&size), "{size} bytes for {weights} of weights");
}

#[test]
fn metadata_that_contradict_themselves_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let network = network();
    let refused = |change: fn(&mut Metadata), expected: &str| {
        let mut metadata = full_metadata(&network);
        change(&mut metadata);
        let message = export(&path, &network.cast().unwrap(), &metadata).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!path.exists());
    };
    refused(|m| m.shape = Shape::Flat { dim: 7 }, "does not have 6 coordinates");
    refused(|m| m.pixel_range = Some([1.0, 1.0]), "not an interval");
    refused(|m| m.sigma = f64::NAN, "not a standard deviation");
    refused(|m| m.log_z = Some(LogZ { value: 0.0, standard_error: -1.0 }), "not an estimate");
    refused(|m| m.probes[0].value = f64::NAN, "not finite");
    refused(|m| m.probes[0].x.truncate(5), "expected 6, found 5");
    refused(|m| m.architecture.dim = 7, "another architecture");
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let message = export("/nonexistent/model.onnx", &network().cast().unwrap(), &metadata(&network(), &[]))
        .unwrap_err()
        .to_string();
    assert!(message.contains("/nonexistent/model.onnx") && message.contains("cannot write"), "{message}");
}

/// Writes `bytes` to a file and returns the message with which it is refused.
#[track_caller]
fn refusal(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, bytes).unwrap();
    refusal_of(&path)
}

#[track_caller]
fn refusal_of(path: &Path) -> String {
    let error = ModelFile::open(path).and_then(|file| TractModel::load(&file).map(|_| ())).unwrap_err();
    assert!(matches!(&error, Error::File { path: named, .. } if named == path), "{error}");
    error.to_string()
}

/// The bytes of a good file, which the tests below break.
fn good() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    export(&path, &network().cast().unwrap(), &full_metadata(&network())).unwrap();
    std::fs::read(path).unwrap()
}

/// The refusal of a good file after `change`.
#[track_caller]
fn changed(change: impl FnOnce(&mut pb::ModelProto)) -> String {
    let mut model = pb::ModelProto::decode(good().as_slice()).unwrap();
    change(&mut model);
    refusal(&model.encode_to_vec())
}

fn graph(model: &mut pb::ModelProto) -> &mut pb::GraphProto {
    model.graph.as_mut().unwrap()
}

#[track_caller]
fn assert_says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }
}

#[test]
fn files_that_are_not_onnx_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert_says(&refusal_of(&folder.path().join("missing.onnx")), &["missing.onnx", "no such file"]);
    assert_says(&refusal_of(folder.path()), &["cannot be read"]);
    assert_says(&refusal(b""), &["empty"]);
    assert_says(&refusal(b"Dear reader, this is a text and not a model.\n"), &["not an ONNX model"]);
    assert_says(&refusal(b"\x89PNG\r\n\x1a\n0000"), &["not an ONNX model"]);
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let good = good();
    for length in (0..good.len()).step_by(97).chain([1, good.len() - 1]) {
        let message = refusal(&good[..length]);
        let known = ["cut short", "empty", "not an ONNX model"].iter().any(|w| message.contains(w));
        assert!(known, "cut to {length}: {message}");
    }
}

#[test]
fn damaged_weights_are_noticed_on_opening() {
    let message = changed(|m| {
        let weights = graph(m).initializer.iter_mut().find(|t| t.name == "x_side").unwrap();
        // Every number's sign bit.
        weights.raw_data.iter_mut().skip(3).step_by(4).for_each(|b| *b ^= 0x80);
    });
    assert_says(&message, &["probe", "expected"]);
    let message = changed(|m| {
        let weights = graph(m).initializer.iter_mut().find(|t| t.name == "bias").unwrap();
        weights.raw_data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert_says(&message, &["bias", "not finite"]);
}

#[test]
fn a_file_says_a_source_that_is_not_the_gibbs_factor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let network = network();
    for (source, version) in [(Source::Gibbs, "1"), (Source::Gaussian, "2")] {
        let metadata = Metadata { source, ..full_metadata(&network) };
        export(&path, &network.cast().unwrap(), &metadata).unwrap();
        assert_eq!(ModelFile::open(&path).unwrap().metadata(), Some(&metadata));
        // Programs that know no source read files of version 1 alone.
        let proto = pb::ModelProto::decode(&std::fs::read(&path).unwrap()[..]).unwrap();
        assert_eq!(proto.metadata_props[0].value, version);
    }
}

/// Files of such a model are of version 4 and hold V for other programs, which the engines take from the weights.
#[test]
fn a_file_holds_the_gibbs_factor_of_the_head() {
    use tract_onnx::prelude::*;
    let activation = Activation::Softplus { beta: 2.0 };
    for network in [network(), random_spiked(6, &[5, 4], 2, activation)] {
        let arch = Architecture { gibbs: GibbsFactor::Head, ..network.architecture().clone() };
        let network: Icnn<f64> = Icnn::new(arch, network.weights().clone()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.onnx");
        let metadata = full_metadata(&network);
        export(&path, &network.cast().unwrap(), &metadata).unwrap();
        let file = ModelFile::open(&path).unwrap();
        assert_eq!(file.metadata(), Some(&metadata));
        let proto = pb::ModelProto::decode(&std::fs::read(&path).unwrap()[..]).unwrap();
        assert_eq!(proto.metadata_props[0].value, "4");

        let (d, x) = (6, [0.3, -0.2, 0.9, 0.0, -1.1, 0.4]);
        let gradient_of = |head: &HeadFactor| {
            let (mut value, mut gradient) = ([0.0], [0.0; 6]);
            head.value_and_gradient(&x, &mut value, &mut gradient).unwrap();
            [value.to_vec(), gradient.to_vec()]
        };
        let want = gradient_of(network.gibbs().unwrap());
        let engine = TractModel::load(&file).unwrap();
        let of_engine = gradient_of(engine.gibbs().unwrap());
        let mut graph = tract_onnx::onnx().model_for_path(&path).unwrap();
        graph.set_input_fact(0, f32::fact([1, d]).into()).unwrap();
        let input = Tensor::from_shape(&[1, d], &x.map(|v| v as f32)).unwrap();
        let found =
            graph.into_optimized().unwrap().into_runnable().unwrap().run(tvec![input.into()]).unwrap();
        for (i, (want, of_engine)) in want.iter().zip(of_engine).enumerate() {
            let of_file = found[2 + i].try_as_plain_ram().and_then(|a| a.as_slice::<f32>()).unwrap();
            for ((want, engine), file) in want.iter().zip(of_engine).zip(of_file) {
                // The rounding of f32, of numbers of about 1.
                let near = |found: f64| (found - want).abs() < 1e-5 * (1.0 + want.abs());
                assert!(near(engine) && near(f64::from(*file)), "{want} {engine} {file}");
            }
        }
    }
}

/// Files with a mixture are of version 5, and what reads them has the mixture's density.
#[test]
fn a_file_holds_the_mixture() {
    let network = network();
    let arch = Architecture { gibbs: GibbsFactor::Head, ..network.architecture().clone() };
    let network: Icnn<f64> = Icnn::new(arch, network.weights().clone()).unwrap();
    // Numbers that f32 holds.
    let mut numbers = vec![2.0, 1.0];
    let axis = [1.0, 0.5, -0.25, 0.0, 2.0, 0.0];
    numbers.extend(network.gibbs().unwrap().directions(&axis).unwrap().iter().map(|&v| f64::from(v as f32)));
    numbers.extend([0.75, -0.5, 0.5, 0.25, 1.5, 0.75]);
    let mixture = Arc::new(Mixture::from_numbers(&numbers, 6).unwrap());
    let mixed = network.clone().with_mixture(mixture.clone()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let plain = full_metadata(&network);
    let metadata =
        Metadata { mixture: Some(mixture.clone()), data_mixture: Some(mixture.clone()), ..plain.clone() };
    assert!(export(&path, &network.cast().unwrap(), &metadata).is_err());
    assert!(export(&path, &mixed.cast().unwrap(), &plain).is_err());
    export(&path, &mixed.cast().unwrap(), &metadata).unwrap();
    let file = ModelFile::open(&path).unwrap();
    assert_eq!(file.metadata(), Some(&metadata));
    let mut proto = pb::ModelProto::decode(&std::fs::read(&path).unwrap()[..]).unwrap();
    assert_eq!(proto.metadata_props[0].value, "5");
    let outputs: Vec<&str> = proto.graph.as_ref().unwrap().output.iter().map(|o| &o.name[..]).collect();
    assert_eq!(outputs, ["value", "gradient", "head_value", "head_gradient"]);

    let x = [0.3, -0.2, 0.9, 0.0, -1.1, 0.4];
    let density = |w: &dyn SecondOrder| exact_log_density(w, 0.0, &x).unwrap().value[0];
    let want = density(&mixed);
    assert!((want - density(&network)).abs() > 1e-2);
    // Roundings of f32 in numbers of about 10.
    let found = density(&TractModel::load(&file).unwrap());
    assert!((found - want).abs() < 1e-4, "{found} {want}");

    for (key, text, words) in [
        ("cmf.mixture", "AAAA", "cmf.mixture cannot be read"),
        ("cmf.data_mixture", "no base64!", "cmf.data_mixture cannot be read"),
    ] {
        let property = proto.metadata_props.iter_mut().find(|p| p.key == key).unwrap();
        let kept = std::mem::replace(&mut property.value, text.into());
        std::fs::write(&path, proto.encode_to_vec()).unwrap();
        let message = ModelFile::open(&path).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
        proto.metadata_props.iter_mut().find(|p| p.key == key).unwrap().value = kept;
    }
    let architecture = Architecture { gibbs: GibbsFactor::Whole, ..metadata.architecture.clone() };
    let refused = Metadata { architecture, ..metadata }.validate().unwrap_err().to_string();
    assert!(refused.contains("goes with the Gibbs factor of the head"), "{refused}");
}

#[test]
fn versions_out_of_range_are_refused() {
    assert_says(&changed(|m| m.opset_import[0].version = 99), &["operator set 99", "13 to 18"]);
    assert_says(&changed(|m| m.ir_version = 100), &["version 100", "4 to 13"]);
    let message = changed(|m| m.metadata_props[0].value = "7".into());
    assert_says(&message, &["cmf.format_version is 7", "reads 1 to 6"]);
    // A file of version 2 says its source.
    let message = changed(|m| m.metadata_props[0].value = "2".into());
    assert_says(&message, &["cmf.source", "missing"]);
}

#[test]
fn operators_outside_the_allow_list_are_refused() {
    assert_says(&changed(|m| graph(m).node[0].op_type = "RandomNormal".into()), &["ai.onnx:RandomNormal"]);
    let foreign = changed(|m| graph(m).node[0].domain = "com.example".into());
    assert_says(&foreign, &["com.example:", "allowed"]);
    assert_says(&changed(|m| m.functions.push(pb::FunctionProto::default())), &["functions"]);
    let nested = changed(|m| {
        graph(m).node[0].attribute.push(pb::AttributeProto {
            name: "body".into(),
            g: Some(pb::GraphProto::default()),
            ..Default::default()
        });
    });
    assert_says(&nested, &["holds a graph"]);
}

#[test]
fn constants_that_are_not_what_they_claim_are_refused() {
    let external = changed(|m| {
        graph(m).initializer[0].data_location = Some(pb::tensor_proto::DataLocation::External as i32);
    });
    assert_says(&external, &["x_side", "external data"]);
    let oversized = changed(|m| graph(m).initializer[0].dims = vec![1 << 40, 1 << 40]);
    assert_says(&oversized, &["x_side", "not possible"]);
    let negative = changed(|m| graph(m).initializer[0].dims = vec![-1, 4]);
    assert_says(&negative, &["x_side", "not possible"]);
    let large = changed(|m| graph(m).initializer[0].dims = vec![1 << 20, 1 << 8]);
    assert_says(&large, &["x_side", "268435456 numbers"]);
    let strings = changed(|m| graph(m).initializer[0].data_type = pb::tensor_proto::DataType::String as i32);
    assert_says(&strings, &["x_side", "element type 8"]);
}

#[test]
fn graphs_that_do_not_hang_together_are_refused() {
    assert_says(&changed(|m| graph(m).node[3].input[0] = "nobody".into()), &["nobody"]);
    assert_says(&changed(|m| graph(m).node.reverse()), &["before"]);
    assert_says(&changed(|m| graph(m).node.clear()), &["value"]);
    assert_says(
        &changed(|m| {
            let double = graph(m).node[0].clone();
            graph(m).node.push(double);
        }),
        &["twice"],
    );
}

#[test]
fn other_inputs_and_outputs_are_refused() {
    let expected = "expected one input [batch, d] and the outputs value [batch] and gradient [batch, d]";
    assert_says(&changed(|m| graph(m).output[0].name = "energy".into()), &["energy", expected]);
    assert_says(&changed(|m| drop(graph(m).output.pop())), &["the outputs: value", expected]);
    let second = changed(|m| {
        let mut more = graph(m).input[0].clone();
        more.name = "y".into();
        graph(m).input.push(more);
    });
    assert_says(&second, &["x [batch, 6], y [batch, 6]", expected]);
    let fixed = changed(|m| axis(m, 0, pb::tensor_shape_proto::dimension::Value::DimValue(1)));
    assert_says(&fixed, &["x [1, 6]", "dynamic batch"]);
    let other = changed(|m| axis(m, 1, pb::tensor_shape_proto::dimension::Value::DimValue(5)));
    assert_says(&other, &["[batch, 5]", expected]);
}

/// Replaces one axis of the input.
fn axis(model: &mut pb::ModelProto, at: usize, value: pb::tensor_shape_proto::dimension::Value) {
    let kind = graph(model).input[0].r#type.as_mut().unwrap().value.as_mut().unwrap();
    let pb::type_proto::Value::TensorType(tensor) = kind;
    tensor.shape.as_mut().unwrap().dim[at].value = Some(value);
}

#[test]
fn metadata_that_do_not_fit_the_graph_are_refused() {
    let key = |m: &mut pb::ModelProto, key: &str, value: &str| {
        m.metadata_props.iter_mut().find(|p| p.key == key).unwrap().value = value.into();
    };
    assert_says(&changed(|m| key(m, "cmf.sigma", "loud")), &["cmf.sigma", "cannot be read"]);
    assert_says(&changed(|m| drop(m.metadata_props.pop())), &["cmf.probes is missing"]);
    assert_says(&changed(|m| m.metadata_props.clear()), &["cmf.* properties are missing"]);
    let wider = network().architecture().clone();
    let wider = cmf_core::icnn::Architecture { widths: vec![5, 5], ..wider };
    let wider = serde_json::to_string(&wider).unwrap();
    assert_says(&changed(|m| key(m, "cmf.architecture", &wider)), &["cmf.architecture needs"]);
}
