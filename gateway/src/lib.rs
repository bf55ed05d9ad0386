//! The one program, `tidegate`: command line, configuration, the Unix socket's API, and what puts all parts together.
//!
//! Architecture invariant: HTTP, clap and configuration files exist only in this crate; wire bytes are interpreted
//! nowhere in it. It is a library so that the program and its twin for the fault tests share one build.

mod access;
mod anchor;
mod api;
mod backup;
mod cli;
mod cmd;
mod config;
mod doctor;
mod elsewhere;
mod evidence;
mod health;
mod init;
mod keeping;
mod live;
mod metrics;
mod notify;
mod outgoing;
mod pages;
mod peers;
mod player;
mod recovered;
mod serve;
mod stop;
mod telemetry;
mod tickets;
mod trust;
mod why;

use clap::Parser as _;
use std::process::ExitCode;
use tidegate_proxy::text;

/// What a crowd needed is given back when it has left: the system's own allocator keeps most of it.
/// How soon is in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Parses the command line, runs the command, and turns its outcome into an exit code: 0 done, 1 refused or failed (one
/// plain line on stderr), 2 wrong usage, 3 gateway unreachable.
pub fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match cmd::run(cli) {
        Ok(code) => code,
        Err(error) => cmd::complain(&error),
    }
}
