//! `cmf-cli run`: runs a task, built in or from a plugin, with options made from its parameter schema.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Mutex;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Args, Command, FromArgMatches, value_parser};
use cmf_core::{Error, Result};
use cmf_plugins::core_error;
use cmf_plugins::host::{KindOfPlugin, ModelHost, Resolved};
use cmf_plugins::sdk::{Kind, Property};
use serde_json::json;

use crate::engine::{EngineArgs, signed};
use crate::model::Model;
use crate::plugin_args::{PluginArgs, parameters, plugins};
use crate::report::{Outcome, Report};
use crate::task_files::TaskFiles;

/// Run a task, built in or from a plugin.
///
/// TASK is a name that `cmf-cli plugin list` shows, or plugin:LIBRARY[#NAME]. Its own options come after it:
/// `cmf-cli run TASK --help` explains them.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub struct Run {
    /// The task and its arguments
    #[arg(value_name = "TASK", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

const GENERAL: &str = "\
Run a task, built in or from a plugin

Usage: cmf-cli run TASK [OPTIONS] [FILE]...
       cmf-cli run TASK --help

TASK is one of the names below or plugin:LIBRARY[#NAME].

Examples:
  cmf-cli run inpaint --model models/mnist.onnx examples/img.png -o filled.png
  cmf-cli run --plugin ./libdenoise.so denoise --model models/mnist.onnx noisy.png
  cmf-cli run plugin:./libdenoise.so --help
";

impl Run {
    /// Runs the command. `given` are the plugin options before the word `run`.
    pub fn run(self, mut given: PluginArgs) -> Result<Outcome> {
        let words = take_plugin_options(self.words, &mut given)?;
        given.apply();
        let plugins = plugins()?;
        let wants_help = |word: &OsString| word == "--help" || word == "-h";
        let Some(task) = words.first().filter(|word| !wants_help(word)) else {
            let text = format!("{GENERAL}\nTasks: {}", plugins.names(KindOfPlugin::Task).join(", "));
            if words.is_empty() {
                // Prints it on standard error and ends the program, as for any command.
                Command::new("run")
                    .error(ErrorKind::MissingRequiredArgument, format!("TASK is missing\n\n{text}"))
                    .exit();
            }
            println!("{text}");
            return Ok(Outcome::Done);
        };
        let found = plugins.resolve(KindOfPlugin::Task, &task.to_string_lossy())?;
        // Prints help or what is wrong, and ends the program, as for any command.
        let matches = command(&found).get_matches_from(&words);
        let mut set = Vec::new();
        for property in &found.schema.properties {
            let word = match is_flag(property) {
                true => matches.get_flag(&property.name).then(|| "true".to_string()),
                false => matches.get_one::<String>(&property.name).cloned(),
            };
            set.extend(word.map(|word| (property.name.clone(), word)));
        }
        let task = found.task(&parameters(&found.schema, &set)?)?;
        let model_path: Option<&PathBuf> = matches.get_one("model");
        let report = Report { json: matches.get_flag("json"), quiet: matches.get_flag("quiet") };
        let engine = match has_engine_options(&found) {
            true => EngineArgs::from_arg_matches(&matches).map_err(|e| Error::Invalid(e.to_string()))?,
            false => EngineArgs::default(),
        };
        let model = model_path.map(|path| Model::open(path, &engine, &report)).transpose()?;
        if let (Some(model), Some(path)) = (&model, model_path) {
            model.require_gibbs(path, "a task")?;
        }
        let inputs: Vec<PathBuf> = match &found.schema.inputs {
            Some(_) => matches.get_many("FILE").map(|all| all.cloned().collect()).unwrap_or_default(),
            None => Vec::new(),
        };
        let opened = model.as_ref().map(Model::host);
        let files = TaskFiles {
            inputs: &inputs,
            out: matches.get_one::<PathBuf>("out").map(PathBuf::as_path),
            pixel_range: opened.as_ref().and_then(|m| m.info.pixel_range).unwrap_or((0.0, 1.0)),
            report: &report,
            bar: report.progress(1000, &found.offer.name),
            written: Mutex::default(),
            results: Mutex::default(),
        };
        let seed = matches.get_one("seed").copied().unwrap_or(0);
        let outcome = task.run(&ModelHost::new(opened, &files, seed));
        files.bar.finish_and_clear();
        outcome.map_err(core_error)?;
        let written = files.written.into_inner().unwrap_or_default();
        let results = files.results.into_inner().unwrap_or_default();
        let document = json!({
            "task": found.offer.name, "model": model_path, "engine": null, "device": null, "seed": seed,
            "outputs": written, "results": results,
        });
        report.document(&signed(model.as_ref().map(|model| &model.worker), document))?;
        Ok(Outcome::Done)
    }
}

/// Takes `--plugin LIBRARY` and `--no-plugins` out of the words, wherever they stand: they decide which task a
/// name is, and so must be known before the task's own options are.
fn take_plugin_options(words: Vec<OsString>, given: &mut PluginArgs) -> Result<Vec<OsString>> {
    let mut rest = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--") => {
                rest.push(word);
                rest.extend(words);
                break;
            }
            Some("--no-plugins") => given.no_plugins = true,
            Some("--plugin") => {
                let path = words.next().ok_or_else(|| Error::Invalid("--plugin needs a library".into()))?;
                given.plugin.push(path.into());
            }
            Some(text) if text.starts_with("--plugin=") => {
                given.plugin.push(text["--plugin=".len()..].into())
            }
            _ => rest.push(word),
        }
    }
    Ok(rest)
}

/// The command line of a task.
fn command(found: &Resolved) -> Command {
    let usage_name = format!("cmf-cli run {}", found.offer.name);
    let source = found.library().map_or("Built in.".to_string(), |library| {
        format!("From the plugin {} {}, {}.", library.name(), library.version(), library.path().display())
    });
    let mut command = Command::new(found.offer.name.clone())
        .bin_name(usage_name)
        .about(found.offer.about.clone())
        .after_help(source)
        .arg(option("model", "FILE", "The model file").short('m').value_parser(value_parser!(PathBuf)))
        .arg(
            option("out", "FILE|FOLDER", "Where to write; beside the input if not given")
                .short('o')
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print one JSON document instead of text"),
        )
        .arg(
            Arg::new("quiet")
                .long("quiet")
                .short('q')
                .action(ArgAction::SetTrue)
                .help("No progress and no remarks on standard error"),
        );
    if found.schema.properties.iter().all(|p| p.name != "seed") {
        command = command.arg(
            option("seed", "N", "Seed of the random numbers [default: 0]").value_parser(value_parser!(u64)),
        );
    }
    if has_engine_options(found) {
        command = EngineArgs::augment_args(command);
    }
    for property in &found.schema.properties {
        command = command.arg(argument(property));
    }
    if let Some(inputs) = &found.schema.inputs {
        let most = inputs.max_items.max(1);
        command = command.arg(
            Arg::new("FILE")
                .help(inputs.description.clone())
                .required(inputs.min_items > 0)
                .num_args(inputs.min_items.min(most)..=most)
                .value_parser(value_parser!(PathBuf)),
        );
    }
    command
}

/// Whether the options that choose an engine are there: a task's own of the same name go first.
fn has_engine_options(found: &Resolved) -> bool {
    let names = ["engine", "device", "ort-lib", "ort_lib"];
    found.schema.properties.iter().all(|p| !names.contains(&p.name.as_str()))
}

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

/// Whether a parameter is given by its name alone; what is on by default needs the word false.
fn is_flag(property: &Property) -> bool {
    property.kind == Kind::Boolean && property.default == Some(false.into())
}

/// The option of one parameter.
fn argument(property: &Property) -> Arg {
    let mut help = property.description.clone();
    let default = property.default.as_ref().map(|value| match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(items) => {
            items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    });
    if let Some(default) = default.filter(|d| !d.is_empty() && property.kind != Kind::Boolean) {
        help += &format!(" [default: {default}]");
    }
    let arg = Arg::new(property.name.clone()).long(property.name.clone());
    if is_flag(property) {
        return arg.action(ArgAction::SetTrue).help(help);
    }
    help += &format!(" ({})", property.expected());
    let check = property.clone();
    arg.help(help)
        .value_name(property.name.to_uppercase())
        .allow_hyphen_values(true)
        .required(property.default.is_none())
        .value_parser(move |word: &str| check.parse_word(word).map(|_| word.to_string()).map_err(|e| e.text))
}
