//! `tidegate policy …`

use super::Json;
use clap::Subcommand;
use std::{net::IpAddr, path::PathBuf};
use tidegate_grants::{EntitlementName, IdentityName, TargetName};

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Say what the configuration says to somebody, by which key and in which line; needs no gateway
    Explain {
        /// Who
        #[arg(long)]
        user: IdentityName,
        /// On which target
        #[arg(long)]
        target: TargetName,
        /// Of which entitlement
        #[arg(long)]
        entitlement: EntitlementName,
        /// When, in RFC 3339 [default: now]
        #[arg(long, value_name = "TIME")]
        at: Option<jiff::Timestamp>,
        /// From which address, where a condition asks for it
        #[arg(long, value_name = "IP")]
        from: Option<IpAddr>,
        /// With which ticket, where a condition asks for it
        #[arg(long)]
        ticket: Option<String>,
        /// By which SSH key, as SHA256:…, where a condition asks for it
        #[arg(long, value_name = "FINGERPRINT")]
        key: Option<String>,
        #[command(flatten)]
        json: Json,
    },
    /// Hold the configuration against your own table of cases; exit 1 if one comes out otherwise
    Test {
        /// TOML: tables `case` with user, target, entitlement, expect = "allow", "ask" or "deny", and at, from, ticket and key, where they matter
        file: PathBuf,
    },
}
