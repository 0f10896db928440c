//! The command line: which commands there are and what they have in common.

use clap::{Parser, Subcommand};
use cmf_core::Result;

use crate::commands::{
    bench, doctor, eval, info, inpaint, plugin, reproduce, run, sample, score, solve_1d, verify,
};
use crate::plugin_args::PluginArgs;
use crate::report::Outcome;

/// Learn, sample, score and inpaint with conjugate moment measures: one convex potential, one .onnx file.
#[derive(Parser)]
#[command(name = "cmf-cli", version, after_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    plugins: PluginArgs,
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> Result<Outcome> {
        if let Command::Run(c) = self.command {
            return c.run(self.plugins);
        }
        self.plugins.apply();
        self.command.run()
    }
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed (in whole or for some files), 2 wrong usage, 130 interrupted.
Results go to standard output, progress and messages to standard error.

Example:
  cmf-cli inpaint --model models/mnist.onnx examples/img.png";

/// The commands. What they say of themselves stands at their own types: a comment here would take its place.
#[derive(Subcommand)]
pub enum Command {
    #[cfg(feature = "train")]
    Train(Box<crate::commands::train::Train>),
    #[cfg(feature = "train")]
    Export(crate::commands::export::Export),
    Sample(sample::Sample),
    Score(score::Score),
    Inpaint(inpaint::Inpaint),
    Eval(eval::Eval),
    Reproduce(reproduce::Reproduce),
    #[command(name = "solve-1d")]
    Solve1d(solve_1d::Solve1d),
    Run(run::Run),
    Plugin(plugin::Plugin),
    Info(info::Info),
    Verify(verify::Verify),
    Doctor(doctor::Doctor),
    Bench(bench::Bench),
}

impl Command {
    /// Runs the command.
    pub fn run(self) -> Result<Outcome> {
        match self {
            #[cfg(feature = "train")]
            Command::Train(c) => c.run(),
            #[cfg(feature = "train")]
            Command::Export(c) => c.run(),
            Command::Sample(c) => c.run(),
            Command::Score(c) => c.run(),
            Command::Inpaint(c) => c.run(),
            Command::Eval(c) => c.run(),
            Command::Reproduce(c) => c.run(),
            Command::Solve1d(c) => c.run(),
            Command::Run(c) => c.run(PluginArgs::default()),
            Command::Plugin(c) => c.run(),
            Command::Info(c) => c.run(),
            Command::Verify(c) => c.run(),
            Command::Doctor(c) => c.run(),
            Command::Bench(c) => c.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
