//! The model file: written whole or not at all, checked before anything runs it.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use prost::Message;
use tract_onnx::pb;

use super::check::{self, MOST_BYTES};
use super::constants;
use super::directions::Directions;
use super::graph::{self, DIRECTIONS, Function, PRODUCER};
use super::metadata::Metadata;
use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::icnn::{FormsAlong, Icnn};
use crate::potential::Potential;

/// An ONNX model of a convex potential that has passed the checks: x [batch, d] -> value [batch],
/// gradient [batch, d].
#[derive(Debug, Clone)]
pub struct ModelFile {
    path: PathBuf,
    dim: usize,
    proto: pb::ModelProto,
    metadata: Option<Metadata>,
    network: Option<Icnn<f32>>,
    is_written_here: bool,
}

impl ModelFile {
    /// Reads and checks a file; nothing is run.
    ///
    /// Refused, each with its own message: a missing, empty, truncated, oversized or non-ONNX file,
    /// external data, operators outside the allow-list, unsupported versions, constants that are not
    /// what they claim, other inputs and outputs, metadata that contradict themselves or the graph, and networks that are
    /// not convex.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let named = |message: String| Error::file(&path, message);
        // The bytes go before anything else takes memory.
        let mut proto = read(&path).and_then(|bytes| check::decode(&bytes).map_err(named))?;
        let dim = check::check(&proto).map_err(named)?;
        let properties = proto.metadata_props.iter().map(|p| (p.key.as_str(), p.value.as_str()));
        let directions = || {
            proto.graph.as_ref().and_then(|graph| constants::numbers(graph, DIRECTIONS)).unwrap_or_default()
        };
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
        let Some(graph) = &mut proto.graph else { return Err(named("the ONNX model has no graph".into())) };
        graph::keep_first_outputs(graph);
        let network =
            metadata.as_ref().map(|metadata| constants::network(graph, metadata, is_along)).transpose();
        let network = network.map_err(|e| named(e.to_string()))?;
        let is_written_here = match &network {
            Some(network) => graph::is_of(network, graph)?,
            None => false,
        };
        if is_written_here {
            graph.initializer = Vec::new();
        }
        Ok(ModelFile { path, dim, proto, metadata, network, is_written_here })
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

    /// The network of the graph; none of a foreign ONNX model.
    pub fn network(&self) -> Option<&Icnn<f32>> {
        self.network.as_ref()
    }

    /// Whether the graph is the one that is written here for its network, which does without its constants then. Another
    /// may ask for any memory.
    pub(super) fn is_written_here(&self) -> bool {
        self.is_written_here
    }

    pub(super) fn proto(&self) -> &pb::ModelProto {
        &self.proto
    }
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
