//! Leases: what exists on targets and must go.
//!
//! Each change is one ledger entry whose detail holds the whole lease (`lease`, and `receipt` if there is one), so that
//! a lease whose row was edited or deleted is put back from the ledger and its teardown is not forgotten.
//!
//! Failed attempts are tried for ever and must not fill the ledger for ever: the first one, one with another error, and
//! each whose number is a power of two is written, row and entry together; the count in between is kept in memory. So
//! what is in the file always agrees with the ledger; a restart counts on from the last number written.

use super::{
    Store, StoreError, fail,
    writer::{Tx, Writer},
};
use crate::{
    authority::Permit,
    lease::{Lease, LeasePlan, LeaseState, Receipt},
    ledger::Event,
    name::{LeaseId, SessionId, TargetName},
    text::{LINE, line},
};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params, types::Type};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::sync::PoisonError;

/// How many accounts wait on a target for their removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOn {
    /// Those that could not even be disabled.
    pub working: u32,
    /// Those and the disabled ones.
    pub all: u32,
}

impl Store {
    /// The lease, on disk (fsync) when this returns. Deadline: the permit's end.
    pub async fn lease(&self, permit: &Permit, plan: LeasePlan, now: Timestamp) -> Result<Lease, StoreError> {
        let lease = Lease {
            id: LeaseId::new(),
            session: permit.session(),
            target: permit.target().clone(),
            identity: permit.identity().clone(),
            kind: plan.kind,
            name: plan.name,
            state: LeaseState::Open,
            deadline: permit.expires(),
            attempts: 0,
            last_error: None,
            detail: plan.detail,
            receipt: None,
        };
        let grant = permit.grant();
        self.run(move |writer| {
            writer.transact(now, |tx| put(tx, &lease, Event::new("lease.opened").grant(grant)))?;
            Ok(lease)
        })
        .await?
    }

    /// Changes the issuer's notes on a lease and logs `event`; on disk when this returns. The caller's lease is
    /// brought up to date.
    pub async fn note(
        &self,
        lease: &mut Lease,
        detail: serde_json::Value,
        event: Event,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.turn(lease, event, now, move |lease| {
            lease.detail = detail.clone();
            true
        })
        .await
    }

    /// The target confirmed that the account is disabled. Done already: fine.
    pub async fn disabled(&self, lease: &mut Lease, now: Timestamp) -> Result<(), StoreError> {
        self.turn(lease, Event::new("lease.disabled"), now, |lease| {
            let first = lease.state == LeaseState::Open;
            if first {
                lease.state = LeaseState::Disabled;
            }
            first
        })
        .await
    }

    /// Cleaning begins. Begun already: fine. A held lease stays held until it is closed: it is looked at for ever, and
    /// that must not fill the ledger.
    pub async fn cleaning(&self, lease: &mut Lease, now: Timestamp) -> Result<(), StoreError> {
        self.turn(lease, Event::new("lease.cleaning"), now, |lease| {
            let first = matches!(lease.state, LeaseState::Open | LeaseState::Disabled);
            if first {
                lease.state = LeaseState::Cleaning;
            }
            first
        })
        .await
    }

    /// An attempt at teardown failed; it will be tried again. See the module for what of it is written.
    pub async fn failed(&self, lease: &mut Lease, error: &str, now: Timestamp) -> Result<(), StoreError> {
        let (known, error) = (lease.clone(), line(error, LINE));
        *lease = self
            .run(move |writer| {
                let current = writer.transact(now, |tx| current(tx, &known))?;
                if current.state == LeaseState::Closed {
                    return Err(StoreError::Refused("the lease is closed already"));
                }
                let mut next = overlaid(writer, current);
                let news = next.last_error.as_deref() != Some(&error);
                next.attempts = next.attempts.saturating_add(1);
                next.last_error = Some(error.clone());
                if news || next.attempts.is_power_of_two() {
                    let event = Event::new("lease.failed");
                    writer.transact(now, |tx| put(tx, &next, event.clone()))?;
                }
                let mut attempts = writer.attempts.lock().unwrap_or_else(PoisonError::into_inner);
                attempts.insert(next.id, (next.attempts, error));
                Ok::<_, StoreError>(next.clone())
            })
            .await??;
        Ok(())
    }

    /// Something needs a human: the receipt says what, `why` becomes the lease's last error. Held already for the same
    /// reason: nothing is written.
    /// A working account is not held: it stays open, and counts as working.
    pub async fn held(
        &self,
        lease: &mut Lease,
        why: &str,
        receipt: Option<Receipt>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let why = line(why, LINE);
        let event = Event::new("lease.held").detail(json!({ "why": why }));
        self.turn(lease, event, now, move |lease| {
            let state = if lease.state == LeaseState::Open { LeaseState::Open } else { LeaseState::Held };
            let news = lease.state != state || lease.last_error.as_deref() != Some(&why);
            if news {
                lease.state = state;
                lease.attempts = lease.attempts.saturating_add(1);
                lease.last_error = Some(why.clone());
                lease.receipt = receipt.clone().or(lease.receipt.take());
            }
            news
        })
        .await
    }

    /// Closes a lease by what is left and somebody's word that it may stay: `receipt.accepted` says whose.
    pub async fn accepted(&self, lease: &mut Lease, receipt: Receipt, now: Timestamp) -> Result<(), StoreError> {
        let Some(acceptance) = &receipt.accepted else {
            return Err(StoreError::Refused("nobody accepts what is left"));
        };
        let event = Event::new("lease.accepted").detail(json!({ "by": acceptance.by, "reason": acceptance.reason }));
        self.turn(lease, event, now, move |lease| {
            lease.state = LeaseState::Closed;
            lease.last_error = None;
            lease.receipt = Some(receipt.clone());
            true
        })
        .await
    }

    /// Closes a lease by its receipt. Refused unless `receipt.clean`.
    pub async fn closed(&self, lease: &mut Lease, receipt: Receipt, now: Timestamp) -> Result<(), StoreError> {
        if !receipt.clean {
            return Err(StoreError::Refused("a lease is closed only by a clean receipt"));
        }
        self.turn(lease, Event::new("lease.closed"), now, move |lease| {
            lease.state = LeaseState::Closed;
            lease.last_error = None;
            lease.receipt = Some(receipt.clone());
            true
        })
        .await
    }

    /// Leases that are not closed, oldest first; with `all`, the closed ones too: as many as there ever were.
    pub async fn leases(&self, all: bool) -> Result<Vec<Lease>, StoreError> {
        let sql = if all {
            "SELECT * FROM leases ORDER BY id"
        } else {
            "SELECT * FROM leases WHERE state <> 'closed' ORDER BY id"
        };
        self.look_up(sql, Vec::new()).await
    }

    /// The leases of a session, closed ones too.
    pub async fn leases_of(&self, session: SessionId) -> Result<Vec<Lease>, StoreError> {
        self.look_up("SELECT * FROM leases WHERE session = ?1 ORDER BY id", vec![session.to_string()]).await
    }

    /// One lease, closed or not.
    pub async fn lease_by_id(&self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        Ok(self.look_up("SELECT * FROM leases WHERE id = ?1", vec![id.to_string()]).await?.pop())
    }

    /// On a target, oldest first: the leases that are not closed, and of the closed ones those of accounts with one of
    /// these names, and these.
    pub async fn leases_about(
        &self,
        target: &TargetName,
        names: &[&str],
        ids: &[LeaseId],
    ) -> Result<Vec<Lease>, StoreError> {
        let sql = "SELECT * FROM leases WHERE target = ?1 AND (state <> 'closed' \
                   OR name IN (SELECT value FROM json_each(?2)) OR id IN (SELECT value FROM json_each(?3))) ORDER BY id";
        self.look_up(sql, vec![target.to_string(), json!(names).to_string(), json!(ids).to_string()]).await
    }

    /// The number of every lease that there ever was.
    pub async fn lease_ids(&self) -> Result<Vec<LeaseId>, StoreError> {
        self.read(|db| {
            let mut statement = db.prepare_cached("SELECT id FROM leases ORDER BY id").map_err(fail)?;
            let ids = statement.query_map([], |row| parsed(row, "id")).map_err(fail)?;
            ids.collect::<rusqlite::Result<_>>().map_err(fail)
        })
        .await
    }

    /// What the newest receipt of a target that has this finding found.
    pub async fn last_found(&self, target: &TargetName, what: &'static str) -> Result<Vec<String>, StoreError> {
        let target = target.to_string();
        self.read(move |db| {
            let sql = "SELECT receipt FROM leases WHERE target = ?1 AND receipt IS NOT NULL ORDER BY id DESC";
            let mut statement = db.prepare_cached(sql).map_err(fail)?;
            let mut rows = statement.query([&target]).map_err(fail)?;
            // One at a time: there may be very many, and the first will do.
            while let Some(row) = rows.next().map_err(fail)? {
                let text: String = row.get(0).map_err(fail)?;
                // One that was edited must not hide the others.
                let Ok(receipt) = from_json::<Receipt>(&text) else { continue };
                if let Some(finding) = receipt.findings.into_iter().find(|finding| finding.what == what) {
                    return Ok(finding.items);
                }
            }
            Ok(Vec::new())
        })
        .await
    }

    async fn look_up(&self, sql: &'static str, with: Vec<String>) -> Result<Vec<Lease>, StoreError> {
        let attempts = self.attempts.clone();
        self.read(move |db| {
            let mut statement = db.prepare_cached(sql).map_err(fail)?;
            let rows = statement.query_map(rusqlite::params_from_iter(with), from_row).map_err(fail)?;
            // One unreadable row (somebody edited it) must not stop the teardown of all others.
            let readable = |row: rusqlite::Result<Lease>| {
                row.inspect_err(|error| tracing::error!(%error, "a lease cannot be read")).ok()
            };
            let mut leases: Vec<_> = rows.filter_map(readable).collect();
            let attempts = attempts.lock().unwrap_or_else(PoisonError::into_inner);
            for lease in &mut leases {
                let unwritten = attempts.get(&lease.id);
                overlay(lease, unwritten);
            }
            Ok(leases)
        })
        .await
    }

    /// What is on a target although its removal was tried. (A first failed attempt is always written, so rows know.)
    pub async fn left_on(&self, target: &TargetName) -> Result<LeftOn, StoreError> {
        let target = target.to_string();
        self.read(move |db| {
            let sql = "SELECT count(*) FILTER (WHERE state = 'open'), count(*) FROM leases \
                       WHERE state <> 'closed' AND target = ?1 AND attempts > 0";
            let counts = |row: &Row<'_>| Ok(LeftOn { working: row.get(0)?, all: row.get(1)? });
            db.prepare_cached(sql).and_then(|mut counting| counting.query_row([&target], counts)).map_err(fail)
        })
        .await
    }

    /// One step of a lease. `step` says whether there is anything to write; a closed lease takes no step any more.
    async fn turn(
        &self,
        lease: &mut Lease,
        event: Event,
        now: Timestamp,
        step: impl Fn(&mut Lease) -> bool + Send + 'static,
    ) -> Result<(), StoreError> {
        let known = lease.clone();
        *lease = self
            .run(move |writer| {
                let current = writer.transact(now, |tx| current(tx, &known))?;
                if current.state == LeaseState::Closed {
                    return Err(StoreError::Refused("the lease is closed already"));
                }
                let mut next = overlaid(writer, current);
                if step(&mut next) {
                    writer.transact(now, |tx| put(tx, &next, event.clone()))?;
                }
                if next.state == LeaseState::Closed {
                    writer.attempts.lock().unwrap_or_else(PoisonError::into_inner).remove(&next.id);
                }
                Ok(next)
            })
            .await??;
        Ok(())
    }
}

/// The lease as it stands: by its row if the ledger agrees with that, else as the caller remembers it.
pub(super) fn current(tx: &mut Tx<'_>, known: &Lease) -> Result<Lease, StoreError> {
    let key = known.id.to_string();
    if !tx.agrees("leases", &key)? {
        return Ok(known.clone());
    }
    let row = tx.db().query_row("SELECT * FROM leases WHERE id = ?1", [&key], from_row).optional().map_err(fail)?;
    Ok(row.unwrap_or_else(|| known.clone()))
}

fn overlaid(writer: &Writer, mut lease: Lease) -> Lease {
    let attempts = writer.attempts.lock().unwrap_or_else(PoisonError::into_inner);
    let unwritten = attempts.get(&lease.id);
    overlay(&mut lease, unwritten);
    drop(attempts);
    lease
}

/// Attempts that are only counted, not written.
fn overlay(lease: &mut Lease, unwritten: Option<&(u32, String)>) {
    if let Some((attempts, error)) = unwritten.filter(|(n, _)| *n > lease.attempts) {
        lease.attempts = *attempts;
        lease.last_error = Some(error.clone());
    }
}

/// The session that answers for them ends later than was planned.
pub(crate) fn extend(tx: &mut Tx<'_>, session: SessionId, deadline: Timestamp) -> Result<(), StoreError> {
    let open: Vec<Lease> = {
        let sql = "SELECT * FROM leases WHERE session = ?1 AND state = 'open' ORDER BY id";
        let mut statement = tx.db().prepare_cached(sql).map_err(fail)?;
        let rows = statement.query_map([session.to_string()], from_row).map_err(fail)?;
        rows.collect::<rusqlite::Result<_>>().map_err(fail)?
    };
    for lease in open {
        put(tx, &Lease { deadline, ..lease }, Event::new("lease.extended"))?;
    }
    Ok(())
}

/// Writes the whole row and the whole lease into the ledger.
pub(super) fn put(tx: &mut Tx<'_>, lease: &Lease, event: Event) -> Result<(), StoreError> {
    let mut whole = serde_json::to_value(lease).map_err(|error| StoreError::Database(error.to_string()))?;
    let receipt = whole.as_object_mut().and_then(|w| w.remove("receipt")).filter(|r| !r.is_null());
    let mut detail = match event.detail {
        Value::Object(detail) => detail,
        Value::Null => serde_json::Map::new(),
        other => serde_json::Map::from_iter([("note".to_owned(), other)]),
    };
    detail.insert("lease".to_owned(), whole);
    detail.extend(receipt.map(|receipt| ("receipt".to_owned(), receipt)));
    let event = Event { detail: Value::Object(detail), ..event };
    let event = event.session(lease.session).identity(&lease.identity).target(&lease.target).lease(lease.id);
    let (id, node) = (lease.id.to_string(), tx.node().to_owned());
    tx.change(("leases", &id), event, |db| write(db, &node, lease))
}

fn write(db: &Connection, node: &str, lease: &Lease) -> rusqlite::Result<usize> {
    let sql = "INSERT OR REPLACE INTO leases (id, node, session, target, identity, kind, name, state, deadline, attempts, \
               last_error, detail, receipt) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    let receipt = lease.receipt.as_ref().map(json_text).transpose()?;
    db.prepare_cached(sql)?.execute(params![
        lease.id.to_string(),
        node,
        lease.session.to_string(),
        lease.target.as_str(),
        lease.identity.as_str(),
        word(&lease.kind)?,
        lease.name,
        word(&lease.state)?,
        lease.deadline.to_string(),
        lease.attempts,
        lease.last_error,
        json_text(&lease.detail)?,
        receipt,
    ])
}

/// Puts back a lease whose row was edited or deleted, as the entry at `place` has it. The entry was verified.
pub(crate) fn restore(tx: &mut Tx<'_>, id: &str, place: i64) -> Result<(), StoreError> {
    let sql = "SELECT detail FROM ledger WHERE place = ?1";
    let detail: String = tx.db().query_row(sql, [place], |row| row.get(0)).map_err(fail)?;
    let detail: Value = serde_json::from_str(&detail).map_err(|error| StoreError::Database(error.to_string()))?;
    let mut whole = detail.get("lease").cloned().unwrap_or_default();
    if let (Some(whole), Some(receipt)) = (whole.as_object_mut(), detail.get("receipt")) {
        whole.insert("receipt".to_owned(), receipt.clone());
    }
    match serde_json::from_value::<Lease>(whole) {
        Ok(lease) if lease.id.to_string() == id => put(tx, &lease, Event::new("lease.restored")),
        _ => {
            tracing::error!(lease = id, "a lease was tampered with and cannot be put back");
            Ok(())
        }
    }
}

pub(crate) fn from_row(row: &Row<'_>) -> rusqlite::Result<Lease> {
    let receipt: Option<String> = row.get("receipt")?;
    Ok(Lease {
        id: parsed(row, "id")?,
        session: parsed(row, "session")?,
        target: parsed(row, "target")?,
        identity: parsed(row, "identity")?,
        kind: worded(row, "kind")?,
        name: row.get("name")?,
        state: worded(row, "state")?,
        deadline: parsed(row, "deadline")?,
        attempts: row.get("attempts")?,
        last_error: row.get("last_error")?,
        detail: from_json(&row.get::<_, String>("detail")?)?,
        receipt: receipt.as_deref().map(from_json).transpose()?,
    })
}

/// A text column as a value of its type.
pub(crate) fn parsed<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    row.get::<_, String>(column)?.parse().map_err(unreadable)
}

fn worded<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    serde_json::from_value(Value::String(row.get(column)?)).map_err(unreadable)
}

fn word(value: &impl Serialize) -> rusqlite::Result<String> {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => Ok(word),
        _ => Err(rusqlite::Error::InvalidQuery),
    }
}

fn json_text(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn from_json<T: DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(unreadable)
}

/// A column that does not hold what it should.
pub(crate) fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error))
}
