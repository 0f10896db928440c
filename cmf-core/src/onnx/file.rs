//! The model file: written whole or not at all, checked before anything runs it.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use prost::Message;
use tract_onnx::pb;

use super::check::{self, MOST_BYTES};
use super::graph::{self, Function, PRODUCER};
use super::metadata::Metadata;
use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::host::Array;
use crate::icnn::{Architecture, Icnn, Weights};
use crate::potential::Potential;

/// An ONNX model of a convex potential that has passed the checks: x [batch, d] -> value [batch],
/// gradient [batch, d].
#[derive(Debug, Clone)]
pub struct ModelFile {
    path: PathBuf,
    dim: usize,
    proto: pb::ModelProto,
    metadata: Option<Metadata>,
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
        let metadata = Metadata::from_properties(properties).map_err(|e| named(e.to_string()))?;
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
        Ok(ModelFile { path, dim, proto, metadata })
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
        let weights = self.weights(&arch)?;
        let network = Icnn::new(arch, weights).and_then(|network| match &metadata.mixture {
            Some(mixture) => network.with_mixture(mixture.clone()),
            None => Ok(network),
        });
        network.map(Some).map_err(|e| Error::file(&self.path, e))
    }

    pub(super) fn proto(&self) -> &pb::ModelProto {
        &self.proto
    }

    fn weights(&self, arch: &Architecture) -> Result<Weights<Array<f32>>> {
        let constants = self.proto.graph.as_ref().map_or(&[][..], |g| &g.initializer);
        Weights::build(arch, |name, shape| {
            let found = constants.iter().find(|t| t.name == name).ok_or_else(|| {
                Error::file(&self.path, format!("the constant {name:?} of cmf.architecture is missing"))
            })?;
            let [rows, cols] = shape;
            let float = found.data_type == pb::tensor_proto::DataType::Float as i32;
            // Other writers may store numbers one by one; the checks know that there are as many as claimed.
            let (numbers, _) = found.raw_data.as_chunks::<4>();
            let numbers: Vec<f32> = match numbers {
                [] => found.float_data.clone(),
                raw => raw.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            };
            if !float || found.dims != [rows as i64, cols as i64] || numbers.len() != rows * cols {
                return Err(Error::file(
                    &self.path,
                    format!(
                        "the constant {name:?} has the shape {:?}; cmf.architecture needs {shape:?} of float32",
                        found.dims
                    ),
                ));
            }
            Ok(Array::matrix(numbers, rows, cols))
        })
    }
}

/// Writes `network` and what is known of it as one model file; the same input gives the same bytes.
///
/// The file appears whole or not at all.
pub fn export(path: impl AsRef<Path>, network: &Icnn<f32>, metadata: &Metadata) -> Result<()> {
    if metadata.architecture != *network.architecture() {
        return Err(Error::Invalid("the metadata describe another architecture than the network's".into()));
    }
    if metadata.mixture.as_ref() != network.gibbs().and_then(|head| head.mixture()) {
        return Err(Error::Invalid("the metadata describe another mixture than the network's".into()));
    }
    let mut proto = graph::of_file(network)?;
    proto.metadata_props = metadata
        .to_properties()?
        .into_iter()
        .map(|(key, value)| pb::StringStringEntryProto { key, value })
        .collect();
    write(path.as_ref(), &proto)
}

/// Writes one function of `network` as an ONNX model for other programs.
pub fn export_function(path: impl AsRef<Path>, network: &Icnn<f32>, function: Function) -> Result<()> {
    write(path.as_ref(), &graph::model(function, network)?)
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
