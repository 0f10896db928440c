//! Files, results and the terminal for a running task.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cmf_core::Result as CoreResult;
use cmf_plugins::plugin_error;
use cmf_plugins::sdk::{Error, Files, Input, Level, Result};
use indicatif::ProgressBar;
use serde_json::Value;

use crate::grid::Grid;
use crate::images::{read, write_png};
use crate::interrupt;
use crate::report::Report;
use crate::table::write_npy;

/// The files of one run.
pub struct TaskFiles<'a> {
    /// What the user named.
    pub inputs: &'a [PathBuf],
    /// Where outputs go: a folder, or the one file; beside the inputs if not given.
    pub out: Option<&'a Path>,
    /// Black and white in the task's numbers.
    pub pixel_range: (f64, f64),
    /// How to speak.
    pub report: &'a Report,
    /// The share of the work that is done, in thousandths.
    pub bar: ProgressBar,
    /// What was written.
    pub written: Mutex<Vec<PathBuf>>,
    /// Results, in order.
    pub results: Mutex<Vec<Value>>,
}

impl TaskFiles<'_> {
    /// A picture of [height, width, channels] pixels as the task's numbers.
    fn grid(&self, [height, width, channels]: [usize; 3]) -> Result<Grid> {
        if height == 0 || width == 0 || !matches!(channels, 1 | 3) {
            return Err(Error::invalid(format!(
                "an image of {height}x{width} pixels with {channels} channels, expected 1 or 3 channels"
            )));
        }
        Ok(Grid { height, width, channels, low: self.pixel_range.0, high: self.pixel_range.1 })
    }

    /// Where an output goes, once it is no input.
    fn place(&self, input: Option<usize>, label: &str, extension: &str) -> Result<PathBuf> {
        let source = match input {
            Some(i) => {
                Some(self.inputs.get(i).ok_or_else(|| Error::invalid(format!("there is no input {i}")))?)
            }
            None => None,
        };
        let stem = source.map(|path| path.with_extension("")).unwrap_or_else(|| PathBuf::from("task"));
        let suffix = format!("{label}.{extension}");
        let path = match self.out {
            Some(out) if out.extension().is_some_and(|e| e == extension) && !out.is_dir() => {
                out.to_path_buf()
            }
            Some(out) if out.is_dir() => {
                let name = stem.file_name().unwrap_or_default().to_string_lossy();
                out.join(format!("{name}.{suffix}"))
            }
            Some(out) => PathBuf::from(format!("{}.{suffix}", out.with_extension("").display())),
            None => PathBuf::from(format!("{}.{suffix}", stem.display())),
        };
        let same =
            |other: &PathBuf| path.canonicalize().ok().is_some_and(|p| other.canonicalize().ok() == Some(p));
        if self.inputs.iter().any(same) {
            return Err(Error::invalid(format!(
                "{}: is an input and would be overwritten; use -o",
                path.display()
            )));
        }
        let written = self.written.lock().map_err(|_| Error::failed("another thread of the task broke"))?;
        if written.contains(&path) {
            let path = path.display();
            return Err(Error::invalid(format!("{path}: would be written twice; give a folder with -o")));
        }
        Ok(path)
    }

    fn done(&self, path: PathBuf) -> Result<()> {
        self.bar.suspend(|| self.report.text(path.display().to_string())).map_err(plugin_error)?;
        self.written.lock().map_err(|_| Error::failed("another thread of the task broke"))?.push(path);
        Ok(())
    }

    fn read_table(&self, path: &Path, name: &str) -> CoreResult<Input> {
        // Both splits of a table are its rows, and here all of them are wanted, in order.
        let opened = cmf_plugins::data::open(name, Some(path), 0)?;
        let (values, d) =
            cmf_plugins::data::all_rows(opened.data.as_ref()).map_err(cmf_plugins::core_error)?;
        let shape = vec![values.len() / d, d];
        Ok(Input { name: path.display().to_string(), shape, values, alpha: None })
    }
}

impl Files for TaskFiles<'_> {
    fn input_count(&self) -> usize {
        self.inputs.len()
    }

    fn input(&self, index: usize) -> Result<Input> {
        let path = self.inputs.get(index);
        let path = path.ok_or_else(|| Error::invalid(format!("there is no input {index}")))?;
        match path.extension().and_then(|e| e.to_str()) {
            Some("npy") => return self.read_table(path, "npy").map_err(plugin_error),
            Some("csv") => return self.read_table(path, "csv").map_err(plugin_error),
            _ => {}
        }
        let picture = read(path).map_err(plugin_error)?;
        let shape = [picture.height, picture.width, picture.color_channels()];
        let grid = self.grid(shape)?;
        let values = grid.row(&picture).map_err(|m| Error::invalid(format!("{}: {m}", path.display())))?;
        let alpha =
            picture.color.has_alpha().then(|| picture.alphas().map(|a| f64::from(a) / 255.0).collect());
        Ok(Input { name: path.display().to_string(), shape: shape.to_vec(), values, alpha })
    }

    fn write_image(
        &self,
        input: Option<usize>,
        label: &str,
        shape: [usize; 3],
        values: &[f64],
    ) -> Result<()> {
        let grid = self.grid(shape)?;
        let path = self.place(input, label, "png")?;
        write_png(&path, &grid.picture(values)).map_err(plugin_error)?;
        self.done(path)
    }

    fn write_table(&self, input: Option<usize>, label: &str, d: usize, values: &[f64]) -> Result<()> {
        let path = self.place(input, label, "npy")?;
        write_npy(&path, values, d).map_err(plugin_error)?;
        self.done(path)
    }

    fn result(&self, json: &str) -> Result<()> {
        let fail = |e: &dyn std::fmt::Display| {
            Error::invalid(format!("a result: expected a JSON object, found {json:?} ({e})"))
        };
        let value: Value = serde_json::from_str(json).map_err(|e| fail(&e))?;
        let Value::Object(object) = &value else { return Err(fail(&"another type")) };
        let cell = |(name, v): (&String, &Value)| match v {
            Value::String(text) => format!("{name} {text}"),
            other => format!("{name} {other}"),
        };
        let line: Vec<String> = object.iter().map(cell).collect();
        self.bar.suspend(|| self.report.text(line.join("\t"))).map_err(plugin_error)?;
        self.results.lock().map_err(|_| Error::failed("another thread of the task broke"))?.push(value);
        Ok(())
    }

    fn progress(&self, fraction: f64) {
        self.bar.set_position((1000.0 * fraction) as u64);
    }

    fn log(&self, level: Level, text: &str) {
        self.bar.suspend(|| match level {
            Level::Info => self.report.note(text),
            Level::Warning => self.report.warn(text),
        });
    }

    fn cancelled(&self) -> bool {
        interrupt::asked()
    }
}
