//! `cmf-cli train`: learns a potential from data or an energy into a run directory, which it can resume.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use cmf_core::energy::{self, Domain};
use cmf_core::gaussian::Gaussian;
use cmf_core::icnn::{Architecture, GibbsFactor, Icnn};
use cmf_core::onnx::ModelFile;
use cmf_core::source::Source;
use cmf_core::train::{Method, Metrics, Trainer};
use cmf_core::{Error, Potential, Result};
use cmf_plugins::data::Split;
use indicatif::ProgressBar;
use serde_json::json;

use crate::data_spec::DataSpec;
use crate::energy_spec::{EnergySpec, OpenedEnergy};
use crate::health::{Health, Seen};
use crate::interrupt;
use crate::plugin_args::parse_setting;
use crate::report::{Outcome, Report};
use crate::run_directory::{Init, Lesson, Run, RunDirectory, gaussian};
use crate::training_device::DeviceArgs;
use crate::training_settings::Settings;

/// Learn a model from data or from an energy and write a run directory.
///
/// The run directory holds run.json (settings and data), metrics.csv, checkpoint.bin, preview pictures of
/// image models, and at the end model.onnx. Training starts from the closed-form solution for the mean and
/// covariance of the data, or of e^-E, and needs no Python and no GPU; --device cuda takes one.
#[derive(Args)]
#[command(after_help = "\
Data sets: mnist:FOLDER (the four idx files, gzipped or not), a folder of images of one size, an
.npy or .csv file, cartoonset:PATH (cartoonset10k.tgz or its folder), synthetic-faces (cartoon faces
drawn here), or a toy: circles, s-curve, checkerboard, scaled-rotated-s-curve,
diagonal-checkerboard, eight-gaussians. Parameters follow a ?, as in cartoonset:faces?side=64;
cmf-cli plugin list names them. Ctrl-C writes a checkpoint and ends; --resume goes on from the last
checkpoint, also after a crash, and ends with the weights of an unbroken run.

--device cuda needs a build with the feature `cuda`, NVIDIA's driver, and the CUDA toolkit, whose
compiler makes the kernels at the first updates. The whole update then stays on the GPU. --devices
cuda:0,cuda:1 shares the rows of every update out over several, each of which has the parameters;
their gradients are averaged, so that the run is that of one GPU to within the tolerance of its
solves. A run may be resumed on other devices than it began on. Energies are learned on the
processor.

An energy E is known up to a constant; the model's density is fitted to e^-E by regression on the
Monge-Ampere equation: E(y) - w(grad w(y)) + log det Hess w(y) must be constant, at --batch points
of the domain and at --particles points of the model itself. Networks of one small hidden layer take
least-squares steps, a few hundred of them, others Adam's. Before that its gradient is compared with
its values and its mass is looked for: a wrong gradient, NaN, or no finite normaliser end the
command with a message.

--method gaussian-icnn learns the baseline: the same network and solvers, but data are the image of
N(0, I), not of a Gibbs factor of the potential.

Examples:
  cmf-cli train --data mnist:data/mnist --out runs/mnist
  cmf-cli train --data photos/ --out runs/photos --sigma 0.05 --widths 512,512
  cmf-cli train --data checkerboard --out runs/checkerboard --updates 2000
  cmf-cli train --data 'synthetic-faces?rows=20000' --out runs/faces --widths 256 --updates 300
  cmf-cli train --data letters/ --init models/mnist.onnx --out runs/letters --learning-rate 1e-3
  cmf-cli train --data checkerboard --method gaussian-icnn --out runs/baseline
  cmf-cli train --energy himmelblau --out runs/himmelblau
  cmf-cli train --energy 'plugin:./libmy_energy.so#well?depth=3' --domain=-4,4 --out runs/well
  cmf-cli train --data mnist:data/mnist --out runs/mnist --device cuda
  cmf-cli train --data mnist:data/mnist --out runs/mnist --batch 512 --devices cuda:0,cuda:1
  cmf-cli train --resume --out runs/mnist")]
pub struct Train {
    /// What to learn from: NAME, NAME:PATH or PATH
    #[arg(long, value_name = "DATA", required_unless_present_any = ["resume", "energy"])]
    data: Option<DataSpec>,
    /// Learn from an energy instead: NAME or plugin:LIBRARY[#NAME], with ?NAME=VALUE&... for its parameters;
    /// `cmf-cli plugin list` shows names
    #[arg(long, value_name = "ENERGY", conflicts_with = "data")]
    energy: Option<EnergySpec>,
    /// A parameter of the energy
    #[arg(long, value_name = "NAME=VALUE", requires = "energy", value_parser = parse_setting)]
    set: Vec<(String, String)>,
    /// Where to learn the energy: LOW,HIGH for every coordinate, or LOW,HIGH of each in turn [default: the
    /// energy's own suggestion]
    #[arg(
        long,
        value_name = "LOW,HIGH",
        requires = "energy",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    domain: Vec<f64>,
    /// The run directory: a new or empty folder, or with --resume that of an earlier run
    #[arg(short, long, value_name = "FOLDER")]
    out: PathBuf,
    /// Go on from the checkpoint in the run directory, with the settings of the run
    #[arg(long, conflicts_with_all = ["data", "energy", "set", "domain", "Settings", "init"])]
    resume: bool,
    /// Start from the weights in this model file, whose network is then that of the run
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["widths", "rank", "diagonal", "activation", "beta", "head", "gibbs"])]
    init: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    device: DeviceArgs,
    /// Updates between two looks at the model: how its samples compare with held-out data or the energy, and a preview
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    look_every: u32,
    /// Seconds between two checkpoints
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    checkpoint_every: u64,
    #[command(flatten)]
    report: Report,
}

impl Train {
    /// Runs the command.
    pub fn run(self) -> Result<Outcome> {
        let mut run = self.start()?;
        let total = run.trainer.config().updates;
        let health = Health::new(&run)?;
        let bar = self.report.progress(total, "training");
        let mut saved = Instant::now();
        let mut last = None;
        while run.trainer.updates_done() < total {
            if interrupt::asked() {
                bar.finish_and_clear();
                run.directory.save(run.trainer.as_ref())?;
                self.report.warn(format!(
                    "stopped after {} of {total} updates; checkpoint written, go on with: cmf-cli train --resume --out {}",
                    run.trainer.updates_done(),
                    self.out.display()
                ));
                return Ok(Outcome::Interrupted);
            }
            let Run { trainer, lesson, .. } = &mut run;
            let metrics = match lesson {
                Lesson::Data(_, opened) => {
                    let rows = opened.data.rows(Split::Train);
                    let read = |indices: &[usize], out: &mut [f64]| {
                        opened.data.read(Split::Train, indices, out).map_err(cmf_plugins::core_error)
                    };
                    let mixed = trainer.mix_source(rows, &read, &mut |_| {
                        bar.set_message("fitting a mixture");
                        !interrupt::asked()
                    });
                    match mixed {
                        Err(Error::Interrupted) => continue,
                        mixed => mixed?,
                    }
                    trainer.step(rows, &read)
                }
                Lesson::Energy(_, opened) => trainer.step_on_energy(&opened.energy),
            }?;
            let done = run.trainer.updates_done();
            let look = done % self.look_every as usize == 0 || done == total;
            let seen = look.then(|| health.look(&run)).transpose()?.flatten();
            last = seen.or(last);
            run.directory.record(&metrics, seen)?;
            say(&bar, &metrics, last);
            if saved.elapsed() > Duration::from_secs(self.checkpoint_every) {
                run.directory.save(run.trainer.as_ref())?;
                saved = Instant::now();
            }
        }
        bar.finish_and_clear();
        run.directory.save(run.trainer.as_ref())?;
        let model = self.out.join("model.onnx");
        crate::commands::export::write_model(&run, &model, "", &self.report)?;
        self.report.text(model.display().to_string())?;
        let (sinkhorn, share) = match last {
            Some(Seen::Sinkhorn(divergence)) => (Some(divergence), None),
            Some(Seen::EffectiveShare(share)) => (None, Some(share)),
            None => (None, None),
        };
        self.report.document(&json!({
            "run": self.out, "model": model, "updates": total, "sinkhorn_divergence": sinkhorn,
            "effective_share": share, "device": run.place.device, "device_why": run.place.why,
        }))?;
        Ok(Outcome::Done)
    }

    /// The run to go on with: a new one, or the one in the run directory.
    fn start(&self) -> Result<Run> {
        self.device.check()?;
        if self.resume {
            let run = Run::resume(&self.out, &self.device, &self.report)?;
            run.directory.forget_after(run.trainer.updates_done())?;
            self.report.note(format!("resumed after {} updates", run.trainer.updates_done()));
            return Ok(run);
        }
        let directory = RunDirectory::vacant(&self.out)?;
        let (lesson, config, gaussian, known) = match (&self.data, &self.energy) {
            (Some(spec), _) => {
                let opened = spec.open(self.settings.seed)?;
                let noise = if opened.data.pixel_range().is_some() { 0.1 } else { 0.05 };
                let dim = opened.data.shape().dim();
                let known = self.known(&spec.to_string(), dim)?;
                let noise = known.as_ref().map_or(noise, |known| known.sigma);
                let method = self.settings.method();
                let architecture = self.architecture(&method, dim, known.as_ref());
                let config = self.settings.config(method, architecture, noise);
                let gaussian = gaussian(opened.data.as_ref(), config.sigma, config.architecture.head)?;
                (Lesson::Data(spec.clone(), opened), config, gaussian, known)
            }
            (None, Some(spec)) => {
                let spec = spec.with(&self.set);
                let opened = spec.open()?;
                let dim = opened.energy.dim();
                let domain = self.domain(opened.domain.clone())?;
                let method = Method::Energy { domain: domain.clone(), least_squares: false };
                let known = self.known(&spec.to_string(), dim)?;
                let architecture = self.architecture(&method, dim, known.as_ref());
                let config = self.settings.config(method, architecture, 0.0);
                config.validate()?;
                let gaussian = self.survey(&opened, &domain)?;
                (Lesson::Energy(spec, opened), config, gaussian, known)
            }
            (None, None) => return Err(Error::Invalid("--data or --energy is missing".into())),
        };
        let trainer = match &known {
            Some(known) => Trainer::from_network(config, &gaussian, &known.network)?,
            None => Trainer::new(config, &gaussian)?,
        };
        let (trainer, place) = self.device.place(trainer, &self.report)?;
        let run = Run { directory, lesson, init: known.map(|known| known.file), trainer, place };
        run.begin()?;
        Ok(run)
    }

    /// The network of `--init` for `what`, which has rows of `dim` numbers.
    fn known(&self, what: &str, dim: usize) -> Result<Option<Known>> {
        let Some(path) = &self.init else { return Ok(None) };
        let file = ModelFile::open(path)?;
        let (Some(network), Some(metadata)) = (file.network().cloned(), file.metadata()) else {
            return Err(Error::file(path, "has no cmf.* properties, so its network is not known"));
        };
        let found = network.architecture().dim;
        if found != dim {
            let message = format!("is a model of {found} numbers a row, {what} has {dim}");
            return Err(Error::file(path, message));
        }
        // The baseline has N(0, I) for its source, whatever the file's model has.
        let network = match self.settings.method() {
            Method::GaussianIcnn => {
                let arch = Architecture { gibbs: GibbsFactor::Whole, ..network.architecture().clone() };
                Icnn::new(arch, network.weights().clone())?
            }
            _ => {
                if metadata.source == Source::Gaussian {
                    self.report.warn(format!(
                        "{} is a generative network, of N(0, I): its weights start a conjugate moment measure here; --method \
                         gaussian-icnn goes on with what it is",
                        path.display()
                    ));
                }
                network
            }
        };
        let of_head = network.architecture().gibbs == GibbsFactor::Head;
        if of_head && (self.energy.is_some() || !self.settings.by_likelihood()) {
            return Err(Error::file(
                path,
                "has the Gibbs factor of its quadratic head, which goes with samples and their likelihood alone: expected \
                 neither --energy nor --conjugate-weight nor --conjugate-updates, or a file whose Gibbs factor is of all of w",
            ));
        }
        Ok(Some(Known { sigma: metadata.sigma, network, file: Init::read(path)? }))
    }

    /// The network to learn: that of `--init`, or what the settings ask for.
    fn architecture(&self, method: &Method, dim: usize, known: Option<&Known>) -> Architecture {
        match known {
            Some(known) => known.network.architecture().clone(),
            None => self.settings.architecture(method, dim),
        }
    }

    /// The domain that was asked for, or the energy's own.
    fn domain(&self, suggested: Domain) -> Result<Domain> {
        let d = suggested.dim();
        let ends = match self.domain.len() {
            0 => return Ok(suggested),
            2 => self.domain.repeat(d),
            n if n == 2 * d => self.domain.clone(),
            n => {
                return Err(Error::Invalid(format!(
                    "--domain: expected 2 or {} numbers for an energy of {d} coordinates, found {n}",
                    2 * d
                )));
            }
        };
        let end = |first: usize| ends.iter().skip(first).step_by(2).copied().collect();
        let domain = Domain { low: end(0), high: end(1) };
        domain.validate(d)?;
        Ok(domain)
    }

    /// Looks at an energy before anything is learned from it; returns the mean and covariance of e^{-E}.
    fn survey(&self, opened: &OpenedEnergy, domain: &Domain) -> Result<Gaussian> {
        energy::check_gradient(&opened.energy, domain, self.settings.seed)?;
        let bar = self.report.progress(1000, "looking for the mass");
        let survey = energy::survey(&opened.energy, domain, self.settings.seed, &mut |share| {
            bar.set_position((1000.0 * share) as u64);
            !interrupt::asked()
        });
        bar.finish_and_clear();
        let survey = survey?;
        if survey.inside < MOST_INSIDE {
            self.report.warn(format!(
                "only {:.1} percent of the mass of e^-E lies in the domain; a larger --domain may be needed",
                100.0 * survey.inside
            ));
        }
        Ok(survey.gaussian)
    }
}

/// The network in a model file, the noise that it was trained with, and which file that is.
struct Known {
    network: Icnn<f32>,
    sigma: f64,
    file: Init,
}

/// Share of the mass of e^{-E} that a domain should hold.
const MOST_INSIDE: f64 = 0.99;

/// The health figures in the progress bar.
fn say(bar: &ProgressBar, metrics: &Metrics, seen: Option<Seen>) {
    bar.set_position(metrics.update as u64);
    let seen = match seen {
        Some(Seen::Sinkhorn(divergence)) => format!(", Sinkhorn {divergence:.3}"),
        Some(Seen::EffectiveShare(share)) => format!(", effective share {share:.3}"),
        None => String::new(),
    };
    let figures = match metrics.deviation {
        Some(deviation) => format!("deviation {deviation:.2} nats"),
        None => format!("residual {:.1e}", metrics.residual),
    };
    // 1 is what a Gaussian source has, which takes no steps.
    let accepted = match metrics.acceptance < 1.0 {
        true => format!(", accepted {:.2}", metrics.acceptance),
        false => String::new(),
    };
    bar.set_message(format!(
        "update {}, {figures}, lambda max {:.1}{accepted}{seen}",
        metrics.update, metrics.lambda_max
    ));
}
