//! `plugin new`: writes a plugin project that stands alone, from the examples of this release.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use cmf_core::files::write_atomically;
use cmf_core::{Error, Result};

use crate::commands::plugin::bad_name;
use crate::report::Outcome;

/// What to write.
#[derive(Args)]
pub struct New {
    /// The plugin's name: lower case letters, digits and hyphens
    name: String,
    /// What it offers
    #[arg(long, value_enum)]
    kind: Offered,
    /// What it is written in
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    lang: Language,
    /// The folder to make [default: the name, here]
    #[arg(long, short, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// What a plugin offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Offered {
    /// A function to be sampled.
    Energy,
    /// Examples to learn from.
    Dataset,
    /// Something done with a model.
    Task,
}

/// What a plugin is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// With the crate cmf-plugin.
    Rust,
    /// With the header cmf_plugin.h.
    C,
}

/// An example: its source, and the names in it that become the user's.
struct Example {
    source: &'static str,
    name: &'static str,
}

const HEADER: &str = include_str!("../../cmf-plugins/include/cmf_plugin.h");

/// The crate that plugins in Rust are written with, copied beside them so that they need nothing else.
const KIT: [(&str, &str); 9] = [
    ("Cargo.toml", include_str!("../../cmf-plugins/sdk/Cargo.toml")),
    ("src/lib.rs", include_str!("../../cmf-plugins/sdk/src/lib.rs")),
    ("src/abi.rs", include_str!("../../cmf-plugins/sdk/src/abi.rs")),
    ("src/error.rs", include_str!("../../cmf-plugins/sdk/src/error.rs")),
    ("src/export.rs", include_str!("../../cmf-plugins/sdk/src/export.rs")),
    ("src/guard.rs", include_str!("../../cmf-plugins/sdk/src/guard.rs")),
    ("src/parameters.rs", include_str!("../../cmf-plugins/sdk/src/parameters.rs")),
    ("src/schema.rs", include_str!("../../cmf-plugins/sdk/src/schema.rs")),
    ("src/table_host.rs", include_str!("../../cmf-plugins/sdk/src/table_host.rs")),
];
const TRAITS: &str = include_str!("../../cmf-plugins/sdk/src/traits.rs");

fn example(kind: Offered, lang: Language) -> Example {
    let (source, name) = match (kind, lang) {
        (Offered::Energy, Language::Rust) => {
            (include_str!("../../examples/plugin-energy-rust/src/lib.rs"), "double-well")
        }
        (Offered::Dataset, Language::Rust) => {
            (include_str!("../../examples/plugin-dataset-rust/src/lib.rs"), "two-moons")
        }
        (Offered::Task, Language::Rust) => {
            (include_str!("../../examples/plugin-task-rust/src/lib.rs"), "denoise")
        }
        (Offered::Energy, Language::C) => {
            (include_str!("../../examples/plugin-energy-c/plugin.c"), "double-well-c")
        }
        (Offered::Dataset, Language::C) => {
            (include_str!("../../examples/plugin-dataset-c/plugin.c"), "spiral-c")
        }
        (Offered::Task, Language::C) => {
            (include_str!("../../examples/plugin-task-c/plugin.c"), "round-trip-c")
        }
    };
    Example { source, name }
}

const CARGO: &str = include_str!("../../examples/plugin-energy-rust/Cargo.toml");

impl New {
    /// Runs the command.
    pub fn run(self) -> Result<Outcome> {
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let first = self.name.starts_with(|c: char| c.is_ascii_lowercase());
        if !first || self.name.len() > 64 || !self.name.chars().all(letter) || self.name.ends_with('-') {
            return Err(bad_name(&self.name));
        }
        let folder = self.out.clone().unwrap_or_else(|| PathBuf::from(&self.name));
        if folder.exists() {
            return Err(Error::file(folder, "is there already; choose another name or --out"));
        }
        let crate_name = self.name.replace('-', "_");
        let example = example(self.kind, self.lang);
        let quoted = |name: &str| format!("\"{name}\"");
        let library = format!("{}{crate_name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        let source = example.source.replace(&quoted(example.name), &quoted(&self.name));
        let (files, build, library) = match self.lang {
            Language::C => {
                let old = format!("lib{}.so", example.name.replace('-', "_"));
                let source = source.replace(&old, &library).replace("-I../../cmf-plugins/include", "-I.");
                let build =
                    source.lines().find_map(|line| line.split_once("Build:")).map_or("", |(_, b)| b.trim());
                let build = build.to_string();
                let files = vec![("plugin.c".into(), source), ("cmf_plugin.h".into(), HEADER.to_string())];
                (files, build, format!("./{library}"))
            }
            Language::Rust => {
                let cargo = CARGO.replace(&quoted("double-well"), &quoted(&self.name));
                let cargo = cargo.replace("../../cmf-plugins/sdk", "cmf-plugin");
                let mut files = vec![("Cargo.toml".into(), cargo), ("src/lib.rs".into(), source)];
                let kit = KIT.into_iter().chain([("src/traits.rs", TRAITS)]);
                files.extend(kit.map(|(name, text)| (format!("cmf-plugin/{name}"), text.to_string())));
                files.push((".gitignore".into(), "/target\n".into()));
                (files, "cargo build --release".to_string(), format!("target/release/{library}"))
            }
        };
        let try_it = match self.kind {
            Offered::Energy => format!("cmf-cli sample --energy plugin:{library} -n 1000 --out samples.png"),
            Offered::Dataset => format!("cmf-cli train --data plugin:{library} --out runs/{}", self.name),
            Offered::Task => format!("cmf-cli run plugin:{library} --model MODEL.onnx IMAGE.png"),
        };
        let steps = format!("cd {}\n{build}\ncmf-cli plugin check {library}\n{try_it}", folder.display());
        let readme = format!(
            "# {}\n\nA plugin for CMF, in {}.\n\n    {}\n\n`cmf-cli plugin check {library} --manifest` writes the manifest that `plugin list` reads. Copy the library and\nits manifest into the folder that `cmf-cli plugin list` prints, and its names are known without a path.\n",
            self.name,
            self.lang,
            steps.lines().skip(1).collect::<Vec<_>>().join("\n    ")
        );
        for (name, text) in files.into_iter().chain([("README.md".into(), readme)]) {
            let path = folder.join(name);
            let parent = path.parent().unwrap_or(&folder);
            std::fs::create_dir_all(parent)
                .map_err(|e| Error::file(parent, format!("cannot make the folder: {e}")))?;
            write_atomically(&path, |file| file.write_all(text.as_bytes()))?;
        }
        println!("{steps}");
        Ok(Outcome::Done)
    }
}
