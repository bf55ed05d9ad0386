//! `tidegate notify …`

use super::Json;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum NotifyCommand {
    /// Say where each channel of notifications is: what it waits for, and its dead letters
    List {
        #[command(flatten)]
        json: Json,
    },
    /// Try at once, dead letters too
    Retry {
        /// Only this one
        channel: Option<String>,
    },
}
