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
    /// List who has codes or has proven a security key, since when, and how many recovery codes are left
    List {
        #[command(flatten)]
        json: Json,
    },
    /// Take their codes away (a security key goes out of their `ssh_keys`)
    Remove {
        /// Whose
        name: IdentityName,
    },
}
