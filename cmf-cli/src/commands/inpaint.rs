//! `cmf-cli inpaint`: fills the hole in an image, or in each image of a folder.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use cmf_core::inpaint::{Completions, Mode, Outcome as Ascent};
use cmf_core::{Error, Result};
use image::ColorType;
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::json;

use crate::batch::{self, Masks, Names};
use crate::completion::{Estimate, Painter, Request};
use crate::engine::{EngineArgs, signed};
use crate::images::{Picture, read, write_png};
use crate::interrupt;
use crate::mask::{Hidden, Rectangle};
use crate::report::{Outcome, Report};
use crate::workers::in_order;

/// Fill the hole in an image, or in each image of a folder.
///
/// The hole is the white pixels of a mask, a rectangle, or else the transparent pixels of the image. It is
/// filled with what the model's density makes likely given the known pixels, which come out unchanged,
/// byte for byte. The output is a PNG, beside the image (img.inpainted.png) unless -o says otherwise.
#[derive(Args)]
#[command(after_help = "\
Mask values from 128 count as white, alpha below 128 as transparent. Where an image and the model
differ in size, --resize resamples the image to the model's size, fills it, and resamples the
filling back: the output has the image's size and its known pixels.

--estimate mode gives one sharp completion, on the way up to a peak of the density (--evaluations
says how far); mean gives the average completion, which is blurred. --samples K adds K different
completions (img.sample-1.png, ...) and their standard deviation for each pixel (img.std.png, where
white is half of the pixel range).

Examples:
  cmf-cli inpaint --model models/mnist.onnx examples/img.png
  cmf-cli inpaint --model models/mnist.onnx img.png --mask mask.png -o filled.png
  cmf-cli inpaint --model models/mnist.onnx img.png --mask-rect 0,14,28,14 --samples 8 --seed 1
  cmf-cli inpaint --model models/mnist.onnx digits/ --mask masks/ -o filled/ --json
  cmf-cli inpaint --model models/mnist.onnx img.png --engine ort --ort-lib python")]
pub struct Inpaint {
    /// The model file
    #[arg(long, short, value_name = "FILE")]
    model: PathBuf,
    /// Images, or folders of images
    #[arg(required = true, value_name = "IMAGE|FOLDER")]
    inputs: Vec<PathBuf>,
    /// White pixels are repainted; a folder holds one mask for each image, of the same file stem
    #[arg(long, value_name = "FILE|FOLDER", conflicts_with = "mask_rect")]
    mask: Option<PathBuf>,
    /// Repaint this rectangle: left, top, width and height in pixels of the image
    #[arg(long, value_name = "X,Y,W,H")]
    mask_rect: Option<Rectangle>,
    /// Repaint all but the mask or rectangle
    #[arg(long)]
    invert_mask: bool,
    /// The .png to write, or the folder for the outputs of several images
    #[arg(short, long, value_name = "FILE|FOLDER")]
    out: Option<PathBuf>,
    /// Which completion to write
    #[arg(long, value_enum, default_value_t = Estimate::Mode)]
    estimate: Estimate,
    /// Also write this many different completions and their standard deviation
    #[arg(long, value_name = "K", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    samples: u32,
    /// Seed of the random starts and draws; the same seed gives the same pictures
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Starts of the search for the mode; the first is the Gaussian's completion, the others are random. More find
    /// likelier completions, which need not look better, and take longer
    #[arg(long, value_name = "N", default_value_t = Mode::default().starts as u32, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    starts: u32,
    /// Densities that one ascent to the mode may evaluate. The default stops early, where completions look best; with 60
    /// nearly all reach the mode itself, which is likelier and often a worse picture
    #[arg(long, value_name = "N", default_value_t = Mode::default().max_evaluations as u32, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    evaluations: u32,
    /// Accept images of another size than the model's, by resampling
    #[arg(long)]
    resize: bool,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    report: Report,
}

/// What one image adds to the bar of all: a hundred, the rest of it when it is over.
struct Progress<'a> {
    bar: &'a ProgressBar,
    told: Cell<u64>,
}

impl Progress<'_> {
    fn tell(&self, share: f64) {
        let reached = (100.0 * share) as u64;
        self.bar.inc(reached.saturating_sub(self.told.get()));
        self.told.set(reached.max(self.told.get()));
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.tell(1.0);
    }
}

/// What was done for one image.
#[derive(Serialize)]
struct Filled {
    image: PathBuf,
    output: PathBuf,
    hidden_pixels: usize,
    resized: bool,
    estimate: Estimate,
    /// Nats, of the model's point with the mode filled in; normalised where the model has log Z.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_density: Option<f64>,
    /// How the ascent to the mode ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    ascent: Option<&'static str>,
    samples: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    standard_deviation: Option<PathBuf>,
    seconds: f64,
}

impl Inpaint {
    /// Runs the command.
    pub fn run(self) -> Result<Outcome> {
        if self.invert_mask && self.mask.is_none() && self.mask_rect.is_none() {
            return Err(Error::Invalid("--invert-mask needs --mask or --mask-rect".into()));
        }
        let images = batch::images(&self.inputs)?;
        let masks = self.mask.as_deref().map(Masks::open).transpose()?;
        let folder = self.inputs.iter().any(|input| input.is_dir());
        let names = batch::output_names(&images, self.out.as_deref(), folder)?;
        self.check_inputs_survive(&images, masks.as_ref(), &names)?;
        let painter = Painter::open(&self.model, &self.engine, &self.report)?;
        if let Some(out) = self.out.as_deref().filter(|_| folder || images.len() > 1) {
            batch::ensure_folder(out)?;
        }

        let bar = self.report.progress(100 * images.len(), "inpainting");
        let (mut done, mut failed, mut remaining) = (Vec::new(), Vec::new(), Vec::new());
        let at_once = painter.at_once(self.starts.max(self.samples) as usize);
        let fill = |i: usize| {
            interrupt::check()?;
            let progress = Progress { bar: &bar, told: Cell::new(0) };
            self.fill(&painter, &images[i], masks.as_ref(), &names[i], &progress)
        };
        in_order(images.len(), at_once, fill, |i, filled| {
            match filled {
                Ok(filled) => {
                    bar.suspend(|| self.say(&filled))?;
                    done.push(filled);
                }
                Err(Error::Interrupted) => remaining.push(&images[i]),
                Err(e) => {
                    bar.suspend(|| eprintln!("error: {e}"));
                    failed.push(json!({ "image": images[i], "error": e.to_string() }));
                }
            }
            Ok(())
        })?;
        bar.finish_and_clear();
        self.report.document(&signed(
            Some(&painter.model.worker),
            json!({
                "model": self.model,
                "seed": self.seed,
                "done": done,
                "failed": failed,
                "remaining": remaining,
            }),
        ))?;
        if images.len() > 1 || !remaining.is_empty() {
            self.report.note(format!(
                "{} done, {} failed, {} not done",
                done.len(),
                failed.len(),
                remaining.len()
            ));
        }
        Ok(if remaining.is_empty() { Outcome::of(failed.is_empty()) } else { Outcome::Interrupted })
    }

    fn search(&self) -> Mode {
        Mode {
            starts: self.starts as usize,
            max_evaluations: self.evaluations as usize,
            seed: self.seed,
            ..Mode::default()
        }
    }

    fn check_inputs_survive(&self, images: &[PathBuf], masks: Option<&Masks>, names: &[Names]) -> Result<()> {
        let outputs = names.iter().flat_map(|n| {
            let samples = (1..=self.samples).map(|k| n.beside(&format!("sample-{k}")));
            samples.chain([n.picture.clone(), n.beside("std")])
        });
        let masks = masks.map(Masks::files).unwrap_or_default();
        let inputs = images.iter().map(PathBuf::as_path).chain(masks).chain([self.model.as_path()]);
        batch::check_inputs_survive(outputs, inputs)
    }

    /// One image, from file to files.
    fn fill(
        &self,
        painter: &Painter,
        image: &Path,
        masks: Option<&Masks>,
        names: &Names,
        progress: &Progress,
    ) -> Result<Filled> {
        let begin = Instant::now();
        let picture = read(image)?;
        let hidden = self.hidden(image, &picture, masks)?;
        let resized = painter.grid.check_size(&picture).err();
        if let Some(message) = resized.as_deref().filter(|_| !self.resize) {
            return Err(Error::file(image, format!("{message}: resize it, or use --resize")));
        }
        let problem = painter.grid.problem(&picture, &hidden).map_err(|m| Error::file(image, m))?;
        let request =
            Request { estimate: self.estimate, samples: self.samples as usize, search: self.search() };
        let completed = painter.complete(&problem, request, &|share| {
            progress.tell(share);
            !interrupt::asked()
        })?;

        write_png(&names.picture, &painter.grid.filled(&picture, &hidden, &completed.estimate))?;
        let (mut samples, mut standard_deviation) = (Vec::new(), None);
        if let Some(draws) = completed.draws.filter(|_| self.samples > 0) {
            samples = self.write_samples(painter, &picture, &hidden, &draws, names)?;
            standard_deviation = Some(write_spread(painter, &picture, &hidden, &draws, names)?);
        }
        let log_z = painter.model.metadata.log_z.map_or(0.0, |z| z.value);
        Ok(Filled {
            image: image.to_path_buf(),
            output: names.picture.clone(),
            hidden_pixels: hidden.count(),
            resized: resized.is_some(),
            estimate: self.estimate,
            log_density: completed.mode.map(|start| start.log_density - log_z),
            ascent: completed.mode.map(|start| ascent_in_words(start.outcome)),
            samples,
            standard_deviation,
            seconds: begin.elapsed().as_secs_f64(),
        })
    }

    /// The pixels to repaint: some, but not all.
    fn hidden(&self, image: &Path, picture: &Picture, masks: Option<&Masks>) -> Result<Hidden> {
        let fail = |message: String| Error::file(image, message);
        let (width, height) = (picture.width, picture.height);
        let given = match (masks, self.mask_rect) {
            (Some(masks), _) => {
                let path = masks.of(image)?;
                let mask = read(path)?;
                if (mask.width, mask.height) != (width, height) {
                    return Err(Error::file(
                        path,
                        format!(
                            "the mask is {}x{} pixels, expected {width}x{height} as {} has",
                            mask.width,
                            mask.height,
                            image.display()
                        ),
                    ));
                }
                Some(Hidden::from_mask(&mask))
            }
            (None, Some(rectangle)) => Some(Hidden::from_rectangle(rectangle, width, height).map_err(fail)?),
            (None, None) => None,
        };
        let hidden = match given {
            Some(hidden) if self.invert_mask => hidden.inverted(),
            Some(hidden) => hidden,
            None => Hidden::from_alpha(picture).map_err(fail)?,
        };
        if hidden.count() == 0 {
            return Err(fail(match masks {
                Some(_) => "has no hole: its mask has no white pixel".into(),
                None => {
                    "has no hole: no pixel is transparent; give the hole with --mask or --mask-rect".into()
                }
            }));
        }
        if hidden.count() == width * height {
            return Err(fail("its hole covers everything, so no known pixel is left to go by".into()));
        }
        let unseen =
            picture.alphas().zip(&hidden.0).filter(|&(alpha, &hidden)| !hidden && alpha < 255).count();
        if unseen > 0 {
            self.report.warn(format!(
                "{}: {unseen} known pixels are partly transparent; their stored colours count as known",
                image.display()
            ));
        }
        Ok(hidden)
    }

    fn write_samples(
        &self,
        painter: &Painter,
        picture: &Picture,
        hidden: &Hidden,
        completions: &Completions,
        names: &Names,
    ) -> Result<Vec<PathBuf>> {
        let draws = completions.denoised.chunks_exact(painter.model.dim()).take(self.samples as usize);
        draws
            .enumerate()
            .map(|(k, row)| {
                let path = names.beside(&format!("sample-{}", k + 1));
                write_png(&path, &painter.grid.filled(picture, hidden, row))?;
                Ok(path)
            })
            .collect()
    }

    fn say(&self, filled: &Filled) -> Result<()> {
        if filled.resized {
            self.report.note(format!(
                "{}: resampled to the model's size with a triangle filter, and the filling back",
                filled.image.display()
            ));
        }
        // An ascent that is to stop early, and does, is no news.
        let stops_early = self.search().max_evaluations <= Mode::default().broad;
        let no_news = |ascent: &str| {
            ascent == ascent_in_words(Ascent::Converged)
                || stops_early && ascent == ascent_in_words(Ascent::OutOfEvaluations)
        };
        if let Some(ascent) = filled.ascent.filter(|a| !no_news(a)) {
            self.report.note(format!("{}: the ascent to the mode ended {ascent}", filled.image.display()));
        }
        let paths = [&filled.output].into_iter().chain(&filled.samples).chain(&filled.standard_deviation);
        let paths: Vec<String> = paths.map(|path| path.display().to_string()).collect();
        self.report.text(paths.join("\n"))
    }
}

/// Writes the standard deviation of each pixel: black where known, white at half of the pixel range.
fn write_spread(
    painter: &Painter,
    picture: &Picture,
    hidden: &Hidden,
    completions: &Completions,
    names: &Names,
) -> Result<PathBuf> {
    let grid = &painter.grid;
    let brightness: Vec<f64> = completions.standard_deviation.iter().map(|s| grid.low + 2.0 * s).collect();
    let black = Picture {
        color: ColorType::L8,
        bytes: vec![0; picture.width * picture.height],
        icc: None,
        ..*picture
    };
    let path = names.beside("std");
    write_png(&path, &grid.filled(&black, hidden, &brightness))?;
    Ok(path)
}

fn ascent_in_words(outcome: Ascent) -> &'static str {
    match outcome {
        Ascent::Converged => "converged",
        Ascent::OutOfEvaluations => "out of evaluations",
        Ascent::Stalled => "stalled",
        Ascent::NoDensity => "without a density",
        Ascent::Dropped => "dropped",
    }
}
