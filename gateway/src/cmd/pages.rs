//! `tidegate completions` and `tidegate man`: what the package installs, made from the command line itself.

use super::print;
use crate::cli::Cli;
use anyhow::Context as _;
use clap::CommandFactory as _;
use std::{fs, path::Path, process::ExitCode};

/// Prints the script that the shell sources.
pub(super) fn completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tidegate", &mut script);
    print(&String::from_utf8(script)?)
}

/// Writes `tidegate.1`, and `tidegate-GROUP-COMMAND.1` for each command.
pub(super) fn man(dir: &Path) -> anyhow::Result<ExitCode> {
    let shown = || dir.display().to_string();
    fs::create_dir_all(dir).with_context(shown)?;
    clap_mangen::generate_to(Cli::command(), dir).with_context(shown)?;
    Ok(ExitCode::SUCCESS)
}
