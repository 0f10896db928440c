//! The model file: written whole or not at all, checked before anything runs it.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use prost::Message;
use tract_onnx::pb;

use super::check::{self, MOST_BYTES};
use super::directions::Directions;
use super::graph::{self, DIRECTIONS, FORMS_ALONG, Function, PRODUCER};
use super::metadata::Metadata;
use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::host::{Array, Host};
use crate::icnn::{Architecture, FormsAlong, Icnn, Weights};
use crate::potential::Potential;

/// An ONNX model of a convex potential that has passed the checks: x [batch, d] -> value [batch],
/// gradient [batch, d].
#[derive(Debug, Clone)]
pub struct ModelFile {
    path: PathBuf,
    dim: usize,
    proto: pb::ModelProto,
    metadata: Option<Metadata>,
    /// Whether forms are written along the directions of the head.
    is_along: bool,
}

impl ModelFile {
    /// Reads and checks a file; nothing is run.
    ///
    /// Refused, each with its own message: a missing, empty, truncated, oversized or non-ONNX file,
    /// external data, operators outside the allow-list, unsupported versions, constants that are not
    /// what they claim, other inputs and outputs, and metadata that contradict themselves or the graph.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let bytes = read(&path)?;
        let named = |message: String| Error::file(&path, message);
        let mut proto = check::decode(&bytes).map_err(named)?;
        let dim = check::check(&proto).map_err(named)?;
        let properties = proto.metadata_props.iter().map(|p| (p.key.as_str(), p.value.as_str()));
        let directions = || constant(&proto, DIRECTIONS).and_then(numbers).unwrap_or_default();
        let read = Metadata::from_properties(properties, directions).map_err(|e| named(e.to_string()))?;
        let (metadata, is_along) = read.map_or((None, false), |(metadata, along)| (Some(metadata), along));
        // They are known now, and long as text.
        proto.metadata_props = Vec::new();
        match &metadata {
            None if proto.producer_name == PRODUCER => {
                return Err(named(
                    "the cmf.* properties are missing: the file is cut short or was edited".into(),
                ));
            }
            Some(metadata) if metadata.architecture.dim != dim => {
                return Err(named(format!(
                    "the graph has dimension {dim}, cmf.architecture {}",
                    metadata.architecture.dim
                )));
            }
            _ => {}
        }
        proto.graph.iter_mut().for_each(graph::keep_first_outputs);
        Ok(ModelFile { path, dim, proto, metadata, is_along })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The dimension d.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// What the file says about its model; none for a foreign ONNX model.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    /// The network, from the constants of the graph; none for a foreign ONNX model.
    pub fn network(&self) -> Result<Option<Icnn<f32>>> {
        let Some(metadata) = &self.metadata else { return Ok(None) };
        let arch = metadata.architecture.clone();
        let along = self.along(&arch)?;
        let weights = self.weights(&arch, along.as_ref())?;
        let network = Icnn::new(arch, weights).and_then(|network| match &metadata.mixture {
            Some(mixture) => network.with_mixture(mixture.clone()),
            None => Ok(network),
        });
        let network = network.map(|network| network.with_forms_along(along));
        network.map(Some).map_err(|e| Error::file(&self.path, e))
    }

    pub(super) fn proto(&self) -> &pb::ModelProto {
        &self.proto
    }

    /// The forms in the directions of the head, if the file is of a version that holds these.
    fn along(&self, arch: &Architecture) -> Result<Option<FormsAlong<Array<f32>>>> {
        let Some(k) = arch.head.rank().filter(|_| self.is_along) else { return Ok(None) };
        let forms = self.array(FORMS_ALONG, [(1 + arch.rank) * arch.units(), k])?;
        Ok(Some(FormsAlong { forms, directions: self.array(DIRECTIONS, [k, arch.dim])? }))
    }

    fn weights(
        &self,
        arch: &Architecture,
        along: Option<&FormsAlong<Array<f32>>>,
    ) -> Result<Weights<Array<f32>>> {
        Weights::build(arch, |name, shape| match (name, along) {
            ("x_side", Some(along)) => Ok(along.x_side(&Host::parallel())),
            _ => self.array(name, shape),
        })
    }

    /// The constant of this name, which has to have this shape.
    fn array(&self, name: &str, shape @ [rows, cols]: [usize; 2]) -> Result<Array<f32>> {
        let found = constant(&self.proto, name).ok_or_else(|| {
            Error::file(&self.path, format!("the constant {name:?} of cmf.architecture is missing"))
        })?;
        let fits = found.dims == [rows as i64, cols as i64];
        match numbers(found) {
            Some(numbers) if fits && numbers.len() == rows * cols => Ok(Array::matrix(numbers, rows, cols)),
            _ => Err(Error::file(
                &self.path,
                format!(
                    "the constant {name:?} has the shape {:?}; cmf.architecture needs {shape:?} of float32",
                    found.dims
                ),
            )),
        }
    }
}

fn constant<'a>(proto: &'a pb::ModelProto, name: &str) -> Option<&'a pb::TensorProto> {
    proto.graph.as_ref()?.initializer.iter().find(|t| t.name == name)
}

/// The numbers of a constant of float32.
fn numbers(tensor: &pb::TensorProto) -> Option<Vec<f32>> {
    let float = tensor.data_type == pb::tensor_proto::DataType::Float as i32;
    // Other writers may store numbers one by one; the checks know that there are as many as claimed.
    let (raw, _) = tensor.raw_data.as_chunks::<4>();
    float.then(|| match raw {
        [] => tensor.float_data.clone(),
        raw => raw.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    })
}

/// Writes `network` and what is known of it as one model file; the same input gives the same bytes.
///
/// The file appears whole or not at all. What lies in the span of the directions of a spiked head is written by its coordinates
/// there: forms, and the leading directions of the data and of mixtures.
pub fn export(path: impl AsRef<Path>, network: &Icnn<f32>, metadata: &Metadata) -> Result<()> {
    if metadata.architecture != *network.architecture() {
        return Err(Error::Invalid("the metadata describe another architecture than the network's".into()));
    }
    if metadata.mixture.as_ref() != network.gibbs().and_then(|head| head.mixture()) {
        return Err(Error::Invalid("the metadata describe another mixture than the network's".into()));
    }
    let along = network.clone().through_directions();
    let (network, properties) = match properties_along(&along, metadata) {
        Some(properties) => (along, properties),
        None => (along.with_forms_along(None), metadata.to_properties(None)?),
    };
    let mut proto = graph::of_file(&network)?.into_model();
    proto.metadata_props =
        properties.into_iter().map(|(key, value)| pb::StringStringEntryProto { key, value }).collect();
    write(path.as_ref(), &proto)
}

/// The properties along the directions of a network that goes through these; none where a row leaves their span, and where
/// what is written could not be read.
fn properties_along(network: &Icnn<f32>, metadata: &Metadata) -> Option<Vec<(String, String)>> {
    let FormsAlong { directions, .. } = network.weights().along.as_ref()?;
    let numbers = directions.to_vec();
    let along = Directions::new(&numbers, directions.shape()[0]);
    let properties = metadata.to_properties(Some(&along)).ok()?;
    let written = properties.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    Metadata::from_properties(written, || numbers).ok()?;
    Some(properties)
}

/// Writes one function of `network` as an ONNX model for other programs.
pub fn export_function(path: impl AsRef<Path>, network: &Icnn<f32>, function: Function) -> Result<()> {
    write(path.as_ref(), &graph::model(function, network)?.into_model())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => Error::file(path, "no such file; expected an ONNX model"),
        _ => Error::file(path, format!("cannot be read ({e}); expected an ONNX model")),
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let claimed = file.metadata().map_err(failed)?.len().min(MOST_BYTES);
    // With room for the read that finds the end.
    let mut bytes = Vec::with_capacity(claimed as usize + 1);
    // One byte past the limit tells a file that is too large, whatever its claimed length.
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Error::file(
            path,
            format!("larger than {} MiB, the most that is read", MOST_BYTES >> 20),
        ));
    }
    Ok(bytes)
}

fn write(path: &Path, proto: &pb::ModelProto) -> Result<()> {
    let size = proto.encoded_len() as u64;
    if size > MOST_BYTES {
        return Err(Error::file(
            path,
            format!("the model takes {size} bytes, more than {MOST_BYTES} can be read back"),
        ));
    }
    write_atomically(path, |out| out.write_all(&proto.encode_to_vec()))
}
