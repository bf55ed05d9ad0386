//! `tidegate user mfa …`

use super::Json;
use clap::Subcommand;
use tidegate_grants::IdentityName;

#[derive(Debug, Subcommand)]
pub(crate) enum MfaCommand {
    /// Give somebody a second factor; prints the address for their authenticator app and recovery codes, this once
    Enroll {
        /// Who
        name: IdentityName,
        /// In place of the one that they have, which is void then
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        json: Json,
    },
    /// List who has one, since when, and how many recovery codes are left
    List {
        #[command(flatten)]
        json: Json,
    },
    /// Take it away: what needs one opens for them no more
    Remove {
        /// Whose
        name: IdentityName,
    },
}
