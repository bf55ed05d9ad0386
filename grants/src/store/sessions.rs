//! Sessions: one row each, from the permit to the receipt.

use super::{
    SessionRow, Store, StoreError, fail, parsed,
    writer::{Tx, Writer},
};
use crate::{
    ledger::Event,
    listing::{Listing, WITHIN},
    name::SessionId,
    text::{LINE, line},
};
use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};
use serde_json::json;

impl Store {
    /// The session is over. Closed already: fine, the first outcome stays.
    pub async fn session_closed(&self, session: SessionId, outcome: &str, now: Timestamp) -> Result<(), StoreError> {
        let outcome = line(outcome, LINE);
        self.run(move |writer| writer.transact(now, |tx| close(tx, session, &outcome))).await?
    }

    /// Sessions, newest first. A row that cannot be read hides none of the others.
    pub async fn sessions(&self, listing: Listing) -> Result<Vec<SessionRow>, StoreError> {
        self.read(move |db| {
            let mut statement = db.prepare_cached(&format!("SELECT * FROM sessions WHERE {WITHIN}")).map_err(fail)?;
            let rows = statement.query_map(listing.bounds(), from_row).map_err(fail)?;
            Ok(listing.part(rows, |row| Some((&row.identity, &row.target))))
        })
        .await
    }

    /// How many have not ended: asked often, and of all that there ever were only these are read.
    pub async fn sessions_open(&self) -> Result<usize, StoreError> {
        self.read(|db| {
            let sql = "SELECT count(*) FROM sessions WHERE finish IS NULL";
            let mut counting = db.prepare_cached(sql).map_err(fail)?;
            let count: i64 = counting.query_row([], |row| row.get(0)).map_err(fail)?;
            Ok(usize::try_from(count).unwrap_or_default())
        })
        .await
    }
}

/// Enters a session that just got its permit.
pub(crate) fn open(tx: &mut Tx<'_>, row: &SessionRow, event: Event) -> Result<(), StoreError> {
    let (id, node) = (row.id.to_string(), tx.node().to_owned());
    let sql = "INSERT INTO sessions (id, node, identity, target, access, grant_id, source, start) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    tx.change(("sessions", &id), event, |db| {
        db.prepare_cached(sql)?.execute(params![
            id,
            node,
            row.identity.as_str(),
            row.target.as_str(),
            row.access,
            row.grant.to_string(),
            row.source.to_string(),
            row.start.to_string(),
        ])
    })
}

fn close(tx: &mut Tx<'_>, session: SessionId, outcome: &str) -> Result<(), StoreError> {
    let (id, at) = (session.to_string(), tx.now().to_string());
    let row = tx.db().query_row("SELECT * FROM sessions WHERE id = ?1", [&id], from_row).optional();
    // A row that was tampered away or made unreadable must not keep the end out of the ledger.
    let row = row.ok().flatten();
    if row.as_ref().is_some_and(|row| row.end.is_some()) {
        return Ok(());
    }
    let mut event = Event::new("session.closed").session(session).detail(json!({ "outcome": outcome }));
    if let Some(row) = &row {
        event = event.identity(&row.identity).target(&row.target).grant(row.grant);
    }
    let sql = "UPDATE sessions SET finish = ?2, outcome = ?3 WHERE id = ?1";
    tx.change(("sessions", &id), event, |db| db.prepare_cached(sql)?.execute(params![id, at, outcome]))?;
    if outcome.starts_with("failed") || outcome.starts_with("refused") {
        give_back(tx, session)?;
    }
    Ok(())
}

/// A grant that is good for one session is not used up by one that never reached its target.
fn give_back(tx: &mut Tx<'_>, session: SessionId) -> Result<(), StoreError> {
    let id = session.to_string();
    let sql = "SELECT id FROM grants WHERE used_by = ?1";
    let used: Option<String> = tx.db().query_row(sql, [&id], |row| row.get(0)).optional().map_err(fail)?;
    let Some(grant) = used else { return Ok(()) };
    let sql = "SELECT count(*) FROM ledger WHERE session = ?1 AND kind = 'target.connected'";
    let reached: i64 = tx.db().query_row(sql, [&id], |row| row.get(0)).map_err(fail)?;
    // Another session may have begun since, where the time of the grant starts with the first.
    let sql = "SELECT count(*) FROM sessions WHERE grant_id = ?1 AND id <> ?2";
    let others: i64 = tx.db().query_row(sql, [&grant, &id], |row| row.get(0)).map_err(fail)?;
    if reached > 0 || others > 0 {
        return Ok(());
    }
    let mut event = Event::new("grant.returned").session(session);
    event.grant = grant.parse().ok();
    let sql = "UPDATE grants SET used_at = NULL, used_by = NULL WHERE id = ?1";
    tx.change(("grants", &grant), event, |db| db.prepare_cached(sql)?.execute([&grant]))
}

/// Closes what a killed gateway left open: what it left on targets is the reaper's now.
pub(crate) fn close_interrupted(writer: &mut Writer) -> Result<(), StoreError> {
    let outcome = "interrupted: the gateway stopped";
    writer.transact(Timestamp::now(), |tx| {
        let open: Vec<SessionId> = {
            let mut statement = tx.db().prepare("SELECT id FROM sessions WHERE finish IS NULL").map_err(fail)?;
            let rows = statement.query_map([], |row| parsed(row, "id")).map_err(fail)?;
            rows.filter_map(Result::ok).collect()
        };
        open.into_iter().try_for_each(|session| close(tx, session, outcome))
    })
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    let finish: Option<String> = row.get("finish")?;
    Ok(SessionRow {
        id: parsed(row, "id")?,
        identity: parsed(row, "identity")?,
        target: parsed(row, "target")?,
        access: row.get("access")?,
        grant: parsed(row, "grant_id")?,
        source: parsed(row, "source")?,
        start: parsed(row, "start")?,
        end: finish.map(|text| text.parse().map_err(super::unreadable)).transpose()?,
        outcome: row.get("outcome")?,
    })
}
