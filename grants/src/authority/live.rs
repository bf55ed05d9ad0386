//! Sessions as their people see them: which are live, and the ending of one by hand.

use super::{Ended, permit::Rules};
use crate::{
    ledger::Event,
    name::IdentityName,
    store::{SessionRow, StoreError, writer::Writer},
    text::{LINE, line},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SessionState {
    /// Its permit is good.
    Live,
    /// Its permit has ended, or its client has left; it is being torn down.
    Closing,
    /// Its receipt is in, or the reaper has it.
    Closed,
}

impl std::fmt::Display for SessionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Live => "live",
            Self::Closing => "closing",
            Self::Closed => "closed",
        })
    }
}

/// A session with where it stands, as lists show it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SessionView {
    /// What is written down of it.
    #[serde(flatten)]
    pub row: SessionRow,
    /// Where it stands.
    pub state: SessionState,
}

pub(super) fn view(rules: &Rules, row: SessionRow) -> SessionView {
    let state = match (&row.end, rules.is_live(row.id)) {
        (Some(_), _) => SessionState::Closed,
        (None, true) => SessionState::Live,
        (None, false) => SessionState::Closing,
    };
    SessionView { row, state }
}

/// Ends a session's permit and writes down who did it. False if there was nothing left to end. A ledger that cannot be
/// written keeps no session alive.
pub(super) fn kill(
    writer: &mut Writer,
    rules: &Rules,
    by: &IdentityName,
    row: &SessionRow,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    if !rules.is_live(row.id) {
        return Ok(false);
    }
    let reason = reason.map(|reason| line(reason, LINE));
    let event = Event::new("session.killed")
        .session(row.id)
        .identity(&row.identity)
        .target(&row.target)
        .grant(row.grant)
        .detail(json!({ "by": by, "reason": reason }));
    let written = writer.transact(now, |tx| tx.append(event.clone()));
    let ended = rules.end_session(row.id, &Ended::Killed { by: by.to_string(), reason });
    written.map(|()| ended)
}
