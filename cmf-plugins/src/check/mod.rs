//! The conformance suite of plugins: what `cmf-cli plugin check` runs, in a process of its own.
//!
//! A plugin under test may crash, hang or write where it should not, so the suite says what it is about to do
//! before it does it, and whoever runs it in a child process can name what went wrong.

mod buffer;
mod dataset;
mod energy;
mod task;

use std::path::Path;

use cmf_plugin::{Parameters, Schema, abi};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::host::{KindOfPlugin, Library, Offer, Offered, inspect};

/// What the suite says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "event")]
pub enum Event {
    /// A check is about to run.
    Begin {
        /// What is checked, `energy NAME: gradient` say.
        check: String,
    },
    /// It passed.
    Passed {
        /// What was checked.
        check: String,
        /// What there is to say about it.
        note: String,
    },
    /// It failed.
    Failed {
        /// What was checked.
        check: String,
        /// What was found and what was expected.
        message: String,
    },
    /// All checks have run.
    End,
}

/// How the suite is run.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Decides every random choice.
    pub seed: u64,
    /// Values for parameters without defaults: (name, word); entries without the parameter do not get it.
    pub set: Vec<(String, String)>,
}

/// Outcome of one check: a note, or what is wrong.
type Check = Result<String, String>;

/// The suite at work on one library.
struct Suite<'a> {
    settings: &'a Settings,
    say: &'a mut dyn FnMut(Event),
    subject: String,
}

impl Suite<'_> {
    /// Runs one check, with random numbers that depend on the seed and its name only.
    fn check(&mut self, name: &str, run: impl FnOnce(&mut ChaCha8Rng) -> Check) -> bool {
        let check = format!("{}{name}", self.subject);
        (self.say)(Event::Begin { check: check.clone() });
        let spread =
            name.bytes().fold(self.settings.seed, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
        let outcome = run(&mut ChaCha8Rng::seed_from_u64(spread));
        let passed = outcome.is_ok();
        (self.say)(match outcome {
            Ok(note) => Event::Passed { check, note },
            Err(message) => Event::Failed { check, message },
        });
        passed
    }

    fn parameters(&self, schema: &Schema) -> Result<Parameters, String> {
        let mut given = serde_json::Map::new();
        for (name, word) in &self.settings.set {
            if let Some(property) = schema.properties.iter().find(|p| &p.name == name) {
                given.insert(name.clone(), property.parse_word(word).map_err(|e| e.text)?);
            }
        }
        let complete = schema.complete(&serde_json::Value::Object(given).to_string());
        complete.map_err(|e| format!("{e}; give what has no default with --set NAME=VALUE"))
    }
}

/// Loads a library and checks all that it offers.
pub fn run(path: &Path, settings: &Settings, say: &mut dyn FnMut(Event)) {
    let mut suite = Suite { settings, say, subject: String::new() };
    let mut loaded = None;
    suite.check("load", |_| {
        let library = inspect(path).and_then(|file| Library::load(&file)).map_err(|e| e.to_string())?;
        let (major, minor) = library.abi();
        loaded = Some(library);
        Ok(format!("{} {}, interface {major}.{minor}", library.name(), library.version()))
    });
    if let Some(library) = loaded {
        suite.check("unknown ids", |_| unknown_ids(&library));
        let kinds = [KindOfPlugin::Energy, KindOfPlugin::DataSet, KindOfPlugin::Task];
        let mut any = false;
        for kind in kinds {
            let mut offers = Vec::new();
            suite.check(&format!("{} entries", kind.word()), |_| {
                offers = library.offers(kind).map_err(|e| e.to_string())?;
                let names: Vec<&str> = offers.iter().map(|o| o.name.as_str()).collect();
                Ok(if names.is_empty() { "none".into() } else { names.join(", ") })
            });
            any |= !offers.is_empty();
            for offer in offers {
                suite.subject = format!("{} {}: ", kind.word(), offer.name);
                match kind {
                    KindOfPlugin::Energy => energy::check(&mut suite, &library, &offer),
                    KindOfPlugin::DataSet => dataset::check(&mut suite, &library, &offer),
                    KindOfPlugin::Task => task::check(&mut suite, &library, &offer),
                }
                suite.subject = String::new();
            }
        }
        suite.check("offers something", |_| match any {
            true => Ok(String::new()),
            false => Err(format!("answers none of {}, {}, {}", abi::ENERGY, abi::DATASET, abi::TASK)),
        });
    }
    say(Event::End);
}

/// An entry with its parameters; the suite says itself which it is.
fn offered<'a>(offer: &'a Offer, parameters: &'a Parameters) -> Offered<'a> {
    Offered { source: "", name: &offer.name, parameters }
}

/// Does the same on eight threads at once; the first failure.
fn eight_threads(work: impl Fn() -> Check + Sync) -> Check {
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(&work)).collect();
        all.into_iter().try_fold(String::new(), |_, t| t.join().unwrap_or(Err("a thread panicked".into())))
    })
}

fn unknown_ids(library: &Library) -> Check {
    for id in ["", "cmf.nonsense/1", "cmf.energy", "cmf.energy/2", "cmf.energy/10"] {
        if library.answers(id) {
            return Err(format!("get_factory answered the id {id:?} that nobody knows, expected NULL"));
        }
    }
    Ok(String::new())
}

/// Found and expected within `tolerance` of each other, or which element is not.
fn close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) -> Result<(), String> {
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let near = f == e || (f.is_nan() && e.is_nan()) || (f - e).abs() <= tolerance * e.abs().max(1.0);
        if !near {
            return Err(format!("{what}: element {i} is {f}, expected {e}"));
        }
    }
    Ok(())
}
