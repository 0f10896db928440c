//! What engines evaluate of a model file: its graph, or a smaller one with the same answers.

use std::borrow::Cow;

use tract_onnx::pb;

use super::file::ModelFile;
use super::graph::{self, Function};
use crate::error::Result;
use crate::icnn::Icnn;

/// Share of the largest value at the probes that the units left out may add together, were each as active as any of their
/// layer: the tolerance of `cmf-cli verify` for values. Of the digits' 1,152 units 229 go, a sixth of all products; values
/// change by 4e-7 of the largest, about as much as f32 rounds them, and gradients by 3e-6.
const HIDDEN: f64 = 1e-5;

/// What an engine evaluates of a model file.
pub(super) struct Evaluated<'a> {
    /// The graph of the value and gradient.
    pub graph: Cow<'a, pb::ModelProto>,
    /// Whether the graph was written here. Another may ask for any memory.
    pub own: bool,
    /// The network of the graph, for its other functions; none of a foreign ONNX model.
    pub network: Option<Icnn<f32>>,
}

impl<'a> Evaluated<'a> {
    /// Takes the file's graph as it is, unless it is the one that is written here for its network.
    pub fn of(file: &'a ModelFile) -> Result<Self> {
        let graph = Cow::Borrowed(file.proto());
        let (Some(network), Some(metadata)) = (file.network()?, file.metadata()) else {
            return Ok(Evaluated { graph, own: false, network: None });
        };
        let mut written = graph::of_file(&network)?;
        written.graph.iter_mut().for_each(graph::keep_first_outputs);
        if written.graph != file.proto().graph {
            return Ok(Evaluated { graph, own: false, network: Some(network) });
        }
        let points: Vec<f64> = metadata.probes.iter().flat_map(|p| &p.x).map(|&v| f64::from(v)).collect();
        let largest = metadata.probes.iter().fold(0.0f64, |largest, p| largest.max(p.value.abs()));
        let lean = network.without_idle_units(&points, HIDDEN * largest)?;
        let graph = Cow::Owned(graph::to_run(Function::ValueAndGradient, &lean)?);
        Ok(Evaluated { graph, own: true, network: Some(lean) })
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::gaussian::Gaussian;
    use crate::host::Array;
    use crate::icnn::{Architecture, GibbsFactor, Head, initial_weights};
    use crate::onnx::{Metadata, Probe, TractModel, export};
    use crate::ops::Activation;
    use crate::potential::Potential;

    const D: usize = 6;

    /// The file of a network whose units have these output weights, as `edit` leaves its graph.
    fn file(
        folder: &tempfile::TempDir,
        outputs: &[f64],
        probes: usize,
        edit: impl Fn(&mut pb::GraphProto),
    ) -> (Icnn<f64>, ModelFile) {
        let x: Vec<f64> = (0..40 * D).map(|i| (i * 7919 % 1009) as f64 / 1009.0 - 0.5).collect();
        let start = Gaussian::fit(&x, D, 0.3).unwrap().quadratic_start().unwrap();
        let arch = Architecture {
            dim: D,
            widths: vec![outputs.len()],
            rank: 1,
            diagonal: false,
            activation: Activation::Softplus { beta: 1.0 },
            head: Head::Full,
            gibbs: GibbsFactor::Head,
        };
        let mut weights = initial_weights(&arch, &start, 1).unwrap();
        weights.output = Array::matrix(outputs.to_vec(), 1, outputs.len());
        let network = Icnn::<f64>::new(arch.clone(), weights).unwrap().cast::<f32>().unwrap();
        let reference = network.cast::<f64>().unwrap();
        let probes = Probe::record(&reference, &x[..probes * D]).unwrap();
        let path = folder.path().join("model.onnx");
        export(&path, &network, &Metadata { probes, ..Metadata::new(arch) }).unwrap();
        let mut proto = pb::ModelProto::decode(&std::fs::read(&path).unwrap()[..]).unwrap();
        edit(proto.graph.as_mut().unwrap());
        std::fs::write(&path, proto.encode_to_vec()).unwrap();
        (reference, ModelFile::open(&path).unwrap())
    }

    const OUTPUTS: [f64; 5] = [0.3, 1e-9, 0.2, 1e-10, 0.5];

    fn units(evaluated: &Evaluated<'_>) -> usize {
        evaluated.network.as_ref().map_or(0, |w| w.architecture().units())
    }

    #[test]
    fn engines_go_without_idle_units_and_give_the_files_answers() {
        let folder = tempfile::tempdir().unwrap();
        let (reference, file) = file(&folder, &OUTPUTS, 4, |_| ());
        let evaluated = Evaluated::of(&file).unwrap();
        assert!(evaluated.own && matches!(evaluated.graph, Cow::Owned(_)));
        assert_eq!((units(&evaluated), file.network().unwrap().unwrap().architecture().units()), (3, 5));
        let x: Vec<f64> = (0..3 * D).map(|i| (i as f64).sin()).collect();
        let answers = |w: &dyn Potential| {
            let (mut value, mut gradient) = (vec![0.0; 3], vec![0.0; 3 * D]);
            w.value_and_gradient(&x, &mut value, &mut gradient).unwrap();
            [value, gradient]
        };
        let [found, expected] = [answers(&TractModel::load(&file).unwrap()), answers(&reference)];
        for (a, b) in found.iter().zip(&expected).flat_map(|(a, b)| a.iter().zip(b)) {
            // f32 rounds numbers of this size to 1e-6; the idle units add 1e-8.
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }

    #[test]
    fn a_graph_to_run_has_no_part_of_a_constant_to_cut() {
        let folder = tempfile::tempdir().unwrap();
        let (_, file) = file(&folder, &OUTPUTS, 4, |_| ());
        let cuts = |proto: &pb::ModelProto| {
            let graph = proto.graph.as_ref().unwrap();
            let constant = |name: &str| graph.initializer.iter().any(|t| t.name == name);
            let cuts = graph.node.iter().filter(|n| ["Slice", "Transpose"].contains(&&*n.op_type));
            cuts.filter(|n| constant(&n.input[0])).count()
        };
        assert_eq!((cuts(file.proto()) > 0, cuts(&Evaluated::of(&file).unwrap().graph)), (true, 0));
    }

    #[test]
    fn without_probes_nothing_is_left_out_and_anothers_graph_stays_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (_, unprobed) = file(&folder, &OUTPUTS, 0, |_| ());
        assert_eq!(units(&Evaluated::of(&unprobed).unwrap()), 5);
        let (_, edited) = file(&folder, &OUTPUTS, 4, |graph| graph.name = "edited".into());
        let evaluated = Evaluated::of(&edited).unwrap();
        assert!(!evaluated.own && matches!(evaluated.graph, Cow::Borrowed(_)));
        assert_eq!(units(&evaluated), 5);
    }
}
