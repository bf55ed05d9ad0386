//! The machine's clock against the ledger's.
//!
//! What always holds: while it is earlier than something that was written already, nothing new is granted and nobody new is let
//! in, since a grant that had ended could seem good again. What is live goes on and ends when it must: a permit's end is
//! measured by the machine's uptime. A clock that jumps forward lengthens nothing; but what is then written at a wrong time
//! stands, so a human can say that the clock is right now ([`Store::accept_clock`]), which the ledger keeps.

use super::{Store, StoreError};
use crate::{
    ledger::Event,
    name::IdentityName,
    text::{LINE, line},
};
use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;
use serde_json::json;

/// A clock that is corrected by less goes on.
const STEP: SignedDuration = SignedDuration::from_secs(5);
/// The ledger's entry.
const ACCEPTED: &str = "clock.accepted";

/// When the last entry was written, by the latest of their times; of those since the clock was last accepted.
pub(super) fn latest(db: &Connection) -> Timestamp {
    let sql = "SELECT max(at) FROM ledger WHERE place >= \
               coalesce((SELECT max(place) FROM ledger WHERE kind = ?1), 0)";
    let found = db.query_row(sql, [ACCEPTED], |row| row.get::<_, Option<String>>(0)).ok().flatten();
    // A time that cannot be read is for verification to name.
    found.and_then(|at| at.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

pub(super) fn is_behind(now: Timestamp, latest: Timestamp) -> bool {
    latest.duration_since(now) > STEP
}

impl Store {
    /// What the ledger was written at already, if `now` is earlier.
    pub async fn behind(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.run(move |writer| writer.transact(now, |tx| Ok(tx.behind()))).await?
    }

    /// Somebody answers for it that the clock is right now.
    pub async fn accept_clock(&self, by: &IdentityName, reason: &str, now: Timestamp) -> Result<(), StoreError> {
        let detail = json!({ "reason": line(reason, LINE) });
        let event = Event::new(ACCEPTED).identity(by).detail(detail);
        self.run(move |writer| writer.accept_clock(event, now)).await?
    }
}
