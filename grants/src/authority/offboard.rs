//! `user end`: all that somebody holds ends at once, whatever the configuration says of them.

use super::{Ended, permit::Rules, requests, rows};
use crate::{
    grant::Revoked,
    ledger::Event,
    name::IdentityName,
    store::{StoreError, guests, passwords, tokens, writer::Writer},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

/// What somebody held, and holds no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserEnded {
    /// Who.
    pub user: IdentityName,
    /// Whether the configuration names them, or they held anything.
    pub known: bool,
    /// Grants that were revoked.
    pub grants: usize,
    /// Passwords that were made void.
    pub passwords: usize,
    /// Tokens that were revoked, and logins from elsewhere that ended.
    #[serde(default)]
    pub tokens: usize,
    /// Live sessions that ended.
    pub sessions: usize,
}

/// Revokes, voids, takes back what was asked for, then ends the live permits; all before anybody else's turn on this thread. A ledger that cannot be
/// written keeps no session alive.
pub(super) fn end(
    writer: &mut Writer,
    rules: &Rules,
    by: &IdentityName,
    user: &IdentityName,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<UserEnded, StoreError> {
    let revoked = Revoked::by(by, reason, now);
    let written = writer.transact(now, |tx| {
        let grants = rows::open_of(tx.db(), user, now)?;
        for (id, target) in &grants {
            rows::revoke(tx, *id, Some((user, target)), &revoked)?;
        }
        let passwords = passwords::void_all(tx, user, now)?;
        let tokens = tokens::revoke_all(tx, Some(user), &revoked, now)?;
        let logins = guests::end_all(tx, Some(user), "all that they hold was ended", now)?;
        let requests = requests::cancel_all(tx, user, &revoked)?; // nobody approves them afterwards
        let detail = json!({
            "by": by, "reason": revoked.reason, "grants": grants.len(), "passwords": passwords, "tokens": tokens,
            "requests": requests, "logins": logins,
        });
        tx.append(Event::new("user.ended").identity(user).detail(detail))?;
        Ok((grants.len(), passwords, tokens + logins))
    });
    if let Err(error) = super::guests::put_in_force(writer, rules, now) {
        tracing::error!(%error, "who is a guest could not be read anew");
    }
    rules.requests_changed();
    let sessions = rules.end_identity(user, &Ended::Revoked { by: revoked.by, reason: revoked.reason });
    let named = rules.policy().identities.contains_key(user);
    written.map(|(grants, passwords, tokens)| {
        let known = named || grants + passwords + tokens + sessions > 0;
        UserEnded { user: user.clone(), known, grants, passwords, tokens, sessions }
    })
}
