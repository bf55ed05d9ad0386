//! `tidegate review …`

use super::Json;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum ReviewCommand {
    /// List the reviews that are owed, newest first; admins and auditors see all, others their own
    List {
        /// Those that are signed, too
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        json: Json,
    },
    /// Sign a review of what somebody else did, once it is over
    Sign {
        /// Its id, or any unique prefix or suffix
        id: String,
        /// What you found
        #[arg(long)]
        note: String,
    },
}
