//! `tidegate access …`

use super::Json;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum AccessCommand {
    /// What nobody uses, who holds what, what was refused and forced, and approvals that took seconds
    Report {
        /// Of the last so many days
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=3660))]
        days: u16,
        /// As a table for other programs
        #[arg(long, conflicts_with = "json")]
        csv: bool,
        #[command(flatten)]
        json: Json,
    },
}
