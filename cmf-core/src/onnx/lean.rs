//! What engines evaluate of a model file: its graph, or a smaller one with the same answers.

use std::borrow::Cow;

use tract_onnx::pb;

use super::file::ModelFile;
use super::graph::{self, Function};
use super::metadata::Probe;
use super::recording::Recording;
use crate::error::Result;
use crate::icnn::Icnn;
use crate::linalg::largest;
use crate::potential::Potential;

/// Share of the largest value at the probes that units may add together to be left out, were each as active as any of their
/// layer. Of the digits' 1,152 units 282 go, a fifth of all products.
const IDLE: f64 = 1e-5;
/// Largest changes of values and gradients at the probes by what is left out, relative to 1 + the largest of them: a tenth
/// of what `cmf-cli verify` allows engines. Those of the digits are 5e-7 and 3e-6, as much as f32 rounds them.
const HIDDEN: [f64; 2] = [1e-6, 1e-5];

/// What an engine evaluates of a model file.
pub(super) struct Evaluated<'a> {
    /// The graph of the value and gradient.
    pub graph: Graph<'a>,
    /// The network of the graph, for its other functions; none of a foreign ONNX model.
    pub network: Option<Icnn<f32>>,
}

/// The graph of the value and gradient.
pub(super) enum Graph<'a> {
    /// One that was written here.
    Own(Box<Recording>),
    /// The file's, which another wrote or edited. It may ask for any memory.
    Strange(&'a pb::ModelProto),
}

impl<'a> Graph<'a> {
    /// The whole model.
    pub fn into_model(self) -> Cow<'a, pb::ModelProto> {
        match self {
            Graph::Own(recording) => Cow::Owned(recording.into_model()),
            Graph::Strange(model) => Cow::Borrowed(model),
        }
    }
}

impl<'a> Evaluated<'a> {
    /// Takes the file's graph as it is, unless it is the one that is written here for its network.
    pub fn of(file: &'a ModelFile) -> Result<Self> {
        let network = file.network().cloned();
        let (true, Some(network), Some(metadata)) = (file.is_written_here(), &network, file.metadata())
        else {
            return Ok(Evaluated { graph: Graph::Strange(file.proto()), network });
        };
        let network = lean(network, &metadata.probes)?.through_directions();
        let recording = graph::to_run(Function::ValueAndGradient, &network)?;
        Ok(Evaluated { graph: Graph::Own(Box::new(recording)), network: Some(network) })
    }
}

/// The network without idle units, if rounding hides them at the probes.
fn lean(network: &Icnn<f32>, probes: &[Probe]) -> Result<Icnn<f32>> {
    let x = Probe::points(probes);
    let values: Vec<f64> = probes.iter().map(|p| p.value).collect();
    let lean = network.without_idle_units(&x, IDLE * largest(&values))?;
    if lean.architecture() == network.architecture() {
        return Ok(network.clone());
    }
    let at_probes = |w: &Icnn<f32>| {
        let [mut value, mut gradient] = [vec![0.0; probes.len()], vec![0.0; x.len()]];
        w.value_and_gradient(&x, &mut value, &mut gradient).map(|()| [value, gradient])
    };
    let pairs = at_probes(network)?.into_iter().zip(at_probes(&lean)?);
    let hidden = pairs.zip(HIDDEN).all(|((whole, lean), share)| {
        let allowed = share * (1.0 + largest(&whole));
        whole.iter().zip(&lean).all(|(a, b)| (a - b).abs() <= allowed)
    });
    Ok(if hidden { lean } else { network.clone() })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use prost::Message;

    use super::*;
    use crate::icnn::{Architecture, GibbsFactor, Head};
    use crate::onnx::{Metadata, TractModel, export, fixture};
    use crate::ops::Activation;

    const D: usize = 6;

    /// The file of a network whose units have these output weights, as `edit` leaves its graph.
    fn file(
        folder: &tempfile::TempDir,
        outputs: &[f64],
        probes: usize,
        edit: impl Fn(&mut pb::GraphProto),
    ) -> (Icnn<f64>, ModelFile) {
        let arch = Architecture {
            dim: D,
            widths: vec![outputs.len()],
            rank: 1,
            diagonal: false,
            activation: Activation::Softplus { beta: 1.0 },
            head: Head::Full,
            gibbs: GibbsFactor::Head,
        };
        let network = fixture::network(arch.clone(), outputs.to_vec()).cast::<f32>().unwrap();
        let reference = network.cast::<f64>().unwrap();
        let probes = Probe::record(&reference, &fixture::points(probes, D)).unwrap();
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
        assert!(matches!(evaluated.graph, Graph::Own(_)));
        assert_eq!((units(&evaluated), file.network().unwrap().architecture().units()), (3, 5));
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

    /// A unit goes or stays by what it might add to the largest value, |w| < 10 and act(s) < 10 here, or by what it changes.
    #[test]
    fn units_that_rounding_does_not_hide_stay() {
        let folder = tempfile::tempdir().unwrap();
        for (small, left) in [(1e-8, 3), (4e-4, 4)] {
            let (_, file) = file(&folder, &[0.3, small, 0.2, 0.5], 4, |_| ());
            assert_eq!(units(&Evaluated::of(&file).unwrap()), left, "{small}");
        }
    }

    #[test]
    fn a_graph_to_run_has_no_matrix_to_turn_or_to_cut() {
        let folder = tempfile::tempdir().unwrap();
        let (_, file) = file(&folder, &OUTPUTS, 4, |_| ());
        let cuts = |proto: &pb::ModelProto| {
            let graph = proto.graph.as_ref().unwrap();
            let matrix = |name: &str| graph.initializer.iter().any(|t| t.name == name && t.dims[0] > 1);
            let cuts = graph.node.iter().filter(|n| ["Slice", "Transpose"].contains(&&*n.op_type));
            cuts.filter(|n| matrix(&n.input[0])).count()
        };
        let written = graph::of_file(file.network().unwrap()).unwrap().into_model();
        let run = Evaluated::of(&file).unwrap().graph.into_model();
        assert_eq!((cuts(&written) > 0, cuts(&run)), (true, 0));
    }

    /// An older writer's graph would be a stranger's: sound, but neither folded nor lean.
    #[test]
    fn shipped_models_are_written_here() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
        for (name, left, mixture) in
            [("mnist", 870, true), ("faces", 512, true), ("eight-gaussians", 128, false)]
        {
            let file = ModelFile::open(models.join(format!("{name}.onnx"))).unwrap();
            let evaluated = Evaluated::of(&file).unwrap();
            assert!(matches!(evaluated.graph, Graph::Own(_)), "{name}");
            assert_eq!(units(&evaluated), left, "{name}");
            let gibbs = evaluated.network.as_ref().unwrap().gibbs();
            assert_eq!(gibbs.is_some_and(|head| head.mixture().is_some()), mixture, "{name}");
        }
    }

    #[test]
    fn without_probes_nothing_is_left_out_and_anothers_graph_stays_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (_, unprobed) = file(&folder, &OUTPUTS, 0, |_| ());
        assert_eq!(units(&Evaluated::of(&unprobed).unwrap()), 5);
        let (_, edited) = file(&folder, &OUTPUTS, 4, |graph| graph.name = "edited".into());
        let evaluated = Evaluated::of(&edited).unwrap();
        assert!(matches!(evaluated.graph, Graph::Strange(_)));
        assert_eq!(units(&evaluated), 5);
    }
}
