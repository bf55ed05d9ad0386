//! The ephemeral role as the gateway knows it: its name, and the notes in its lease from which a process that never saw
//! the session can remove it.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tidegate_grants::{DatabaseName, IdentityName, Lease, RoleName};

/// A role can come into being until this long after its lease was planned. The target itself refuses later requests, so a
/// request that waited in a dead network does nothing.
pub(super) const MINT_WINDOW: SignedDuration = SignedDuration::from_secs(5);
/// By then a mint has happened or never will: [`MINT_WINDOW`], the 4 s that the server gives the statement, and a second.
pub(super) const SETTLED: SignedDuration = SignedDuration::from_secs(10);
/// Longest part of the identity in a role's name, so that the whole has 30 bytes and is never truncated.
const IDENTITY_PART: usize = 18;

/// How a mint went, as far as this gateway knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mint {
    /// Not known: it may be under way, or the gateway died.
    Planned,
    /// The target said yes.
    Done,
    /// The target said no: there is nothing to remove.
    Failed,
}

/// The notes in a lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Notes {
    /// Where the session works, and where our functions are called.
    pub(super) database: DatabaseName,
    /// What the role is a member of.
    pub(super) groups: BTreeSet<RoleName>,
    /// Whom its objects belong to, if not itself.
    pub(super) owner: Option<RoleName>,
    /// What it leaves behind is dropped, not kept aside.
    pub(super) drop_leftovers: bool,
    /// When the lease was planned, by our clock.
    pub(super) planned: Timestamp,
    /// Whether the role was made.
    pub(super) mint: Mint,
    /// Its OID. Names can come back, OIDs identify.
    #[serde(default)]
    pub(super) oid: Option<u32>,
    /// When it was made, by the target's clock, in seconds since 1970.
    #[serde(default)]
    pub(super) minted: Option<f64>,
    /// What mint saw of the roles that the session could become.
    #[serde(default)]
    pub(super) before: Option<String>,
    /// Where roles were made at this target: a configuration can give its name to another server.
    #[serde(default)]
    pub(super) address: Option<String>,
    /// Which server it was that made this one, and where in its history (`tidegate.server()`).
    #[serde(default)]
    pub(super) server: Option<String>,
}

impl Notes {
    /// Of this lease.
    pub(super) fn of(lease: &Lease) -> Result<Self, String> {
        Self::deserialize(lease.detail())
            .map_err(|error| format!("the notes of lease {} are damaged: {error}", lease.id()))
    }

    /// As they go into the lease.
    pub(super) fn to_json(&self) -> serde_json::Value {
        serde_json::json!(self)
    }

    /// The groups, for a call.
    pub(super) fn groups(&self) -> Vec<&str> {
        self.groups.iter().map(RoleName::as_str).collect()
    }

    /// The owner, for a call.
    pub(super) fn owner(&self) -> Option<&str> {
        self.owner.as_ref().map(RoleName::as_str)
    }

    /// Whether a mint of unknown outcome may still take effect. (A clock that went back far counts as settled.)
    pub(super) fn is_settled(&self, now: Timestamp) -> bool {
        now.duration_since(self.planned).abs() >= SETTLED
    }
}

/// `tg_<identity>_<8 random base32>`: at most 30 bytes of `[a-z0-9_]`.
pub(super) fn role_name(identity: &IdentityName, random: [u8; 5]) -> String {
    let fits = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' };
    let identity: String = identity.as_str().chars().take(IDENTITY_PART).map(fits).collect();
    format!("tg_{identity}_{}", data_encoding::BASE32_NOPAD.encode(&random).to_ascii_lowercase())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_role_name_is_short_and_plain_whatever_the_identity() {
        let name = role_name(&"alice".parse().unwrap(), [0; 5]);
        assert_eq!(name, "tg_alice_aaaaaaaa");
        let name = role_name(&"a.very-long_identity.of.32-bytes".parse().unwrap(), [255; 5]);
        assert_eq!(name, "tg_a_very_long_identi_77777777");
        assert_eq!(name.len(), 30);
        assert!(name.parse::<RoleName>().is_ok());
    }

    #[test]
    fn a_mint_is_settled_ten_seconds_after_its_plan() {
        let planned: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let notes = Notes {
            database: "shop".parse().unwrap(),
            groups: BTreeSet::new(),
            owner: None,
            drop_leftovers: false,
            planned,
            mint: Mint::Planned,
            oid: None,
            minted: None,
            before: None,
            address: None,
            server: None,
        };
        assert!(!notes.is_settled(planned + SignedDuration::from_secs(9)));
        assert!(notes.is_settled(planned + SETTLED));
        assert!(!notes.is_settled(planned - SignedDuration::from_secs(1)));
        assert!(notes.is_settled(planned - SignedDuration::from_hours(1)));
        assert_eq!(Notes::deserialize(notes.to_json()).unwrap(), notes);
    }
}
