//! Rows of guests, lent keys and exchanges. One that the ledger does not vouch for is none.

use super::{StoreError, fail, migrations::has_table, parsed, unreadable, writer::Tx};
use crate::{
    guest::{Arrival, Guest, Guests, LentKey},
    ledger::Event,
    name::{IdentityName, TokenId},
    store::writer::agrees,
};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Value, json};

/// Ledger entries and digests go by these.
pub(crate) const GUESTS: &str = "guests";
pub(crate) const KEYS: &str = "lent_keys";
pub(crate) const EXCHANGES: &str = "exchanges";
/// So many rows that are over go with each that comes: the tables stay as small as what is good.
const SWEPT: i64 = 8;

/// All that the ledger vouches for, over or not.
pub(crate) fn all(db: &Connection) -> Result<Guests, StoreError> {
    let mut guests = Guests::default();
    if !has_table(db, GUESTS).map_err(fail)? {
        return Ok(guests);
    }
    for guest in select(db, "SELECT * FROM guests ORDER BY identity", [], guest_from)? {
        if vouched(db, GUESTS, guest.identity.as_str())? {
            guests.people.push(guest);
        }
    }
    for lent in select(db, "SELECT * FROM lent_keys ORDER BY key", [], key_from)? {
        if vouched(db, KEYS, &lent.key)? {
            guests.keys.push(lent);
        }
    }
    Ok(guests)
}

fn vouched(db: &Connection, table: &'static str, key: &str) -> Result<bool, StoreError> {
    let agrees = agrees(db, table, key)?;
    if !agrees {
        tracing::error!(table, key, "this row is not what the ledger says: it says nothing");
    }
    Ok(agrees)
}

/// Who has this name, if it was ever a guest's.
pub(crate) fn named(db: &Connection, identity: &IdentityName) -> Result<Option<Guest>, StoreError> {
    one(db, "SELECT * FROM guests WHERE identity = ?1", [identity.as_str()], guest_from)
}

/// As whom this person ever came.
pub(crate) fn of_subject(db: &Connection, issuer: &str, subject: &str) -> Result<Option<Guest>, StoreError> {
    one(db, "SELECT * FROM guests WHERE issuer = ?1 AND subject = ?2", [issuer, subject], guest_from)
}

/// A guest has come, or come again.
pub(crate) fn arrive(tx: &mut Tx<'_>, arrival: &Arrival, now: Timestamp) -> Result<(), StoreError> {
    let groups: Vec<&str> = arrival.groups.iter().map(|group| group.as_str()).collect();
    let detail = json!({
        "issuer": arrival.issuer, "subject": arrival.subject, "groups": groups, "ends": arrival.ends,
    });
    let event = Event::new("guest.arrived").identity(&arrival.identity).detail(detail);
    let sql = "INSERT OR REPLACE INTO guests (identity, issuer, subject, groups, since, ends) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let (identity, groups) = (arrival.identity.as_str(), groups.join(" "));
    let (since, ends) = (now.as_second(), arrival.ends.as_second());
    tx.change((GUESTS, identity), event, |db| {
        db.prepare_cached(sql)?.execute(params![identity, arrival.issuer, arrival.subject, groups, since, ends])
    })
}

/// A guest's time is over now. The row stays, and with it whose the name is.
pub(crate) fn end(tx: &mut Tx<'_>, guest: &Guest, why: &str, now: Timestamp) -> Result<(), StoreError> {
    let event = Event::new("guest.ended").identity(&guest.identity).detail(json!({ "why": why }));
    let (identity, ends) = (guest.identity.as_str(), now.as_second());
    tx.change((GUESTS, identity), event, |db| {
        db.prepare_cached("UPDATE guests SET ends = ?2 WHERE identity = ?1")?.execute(params![identity, ends])
    })
}

/// This key is theirs for a while. Some of those whose time is over go.
pub(crate) fn lend(tx: &mut Tx<'_>, lent: &LentKey, detail: Value) -> Result<(), StoreError> {
    let over = "SELECT * FROM lent_keys WHERE ends <= ?1 AND key <> ?2 LIMIT ?3";
    let over = select(tx.db(), over, params![lent.since.as_second(), lent.key, SWEPT], key_from)?;
    over.iter().try_for_each(|gone| take_back(tx, gone, "its time was over"))?;
    let event = Event::new("key.lent").identity(&lent.identity).detail(detail);
    let sql = "INSERT OR REPLACE INTO lent_keys (key, identity, how, since, ends) VALUES (?1, ?2, ?3, ?4, ?5)";
    tx.change((KEYS, &lent.key), event, |db| {
        let (since, ends) = (lent.since.as_second(), lent.ends.as_second());
        db.prepare_cached(sql)?.execute(params![lent.key, lent.identity.as_str(), lent.how, since, ends])
    })
}

/// Those that are lent to this identity, over or not.
pub(crate) fn keys_of(db: &Connection, identity: &IdentityName) -> Result<Vec<LentKey>, StoreError> {
    select(db, "SELECT * FROM lent_keys WHERE identity = ?1", [identity.as_str()], key_from)
}

fn take_back(tx: &mut Tx<'_>, lent: &LentKey, why: &str) -> Result<(), StoreError> {
    let event = Event::new("key.returned").identity(&lent.identity).detail(json!({ "key": lent.key, "why": why }));
    tx.remove((KEYS, &lent.key), event, |db| {
        db.prepare_cached("DELETE FROM lent_keys WHERE key = ?1")?.execute([&lent.key])
    })
}

/// All that logins elsewhere gave ends, of this identity or of all. A store of a format without has none.
pub(crate) fn end_all(
    tx: &mut Tx<'_>,
    of: Option<&IdentityName>,
    why: &str,
    now: Timestamp,
) -> Result<usize, StoreError> {
    if !has_table(tx.db(), GUESTS).map_err(fail)? {
        return Ok(0);
    }
    let mine = |name: &IdentityName| of.is_none_or(|of| of == name);
    let people = select(tx.db(), "SELECT * FROM guests WHERE ends > ?1", [now.as_second()], guest_from)?;
    let people: Vec<_> = people.into_iter().filter(|guest| mine(&guest.identity)).collect();
    let keys = select(tx.db(), "SELECT * FROM lent_keys", [], key_from)?;
    let keys: Vec<_> = keys.into_iter().filter(|lent| mine(&lent.identity)).collect();
    people.iter().try_for_each(|guest| end(tx, guest, why, now))?;
    keys.iter().try_for_each(|lent| take_back(tx, lent, why))?;
    Ok(people.len() + keys.len())
}

/// Notes that this outside token was exchanged. False: it was already. Some of those that are over go, and their tokens.
pub(crate) fn exchange(
    tx: &mut Tx<'_>,
    digest: &str,
    token: TokenId,
    event: Event,
    ends: Timestamp,
) -> Result<bool, StoreError> {
    let now = tx.now();
    let known = "SELECT count(*) FROM exchanges WHERE digest = ?1";
    let known: i64 = tx.db().query_row(known, [digest], |row| row.get(0)).map_err(fail)?;
    if known > 0 {
        return Ok(false);
    }
    let over = "SELECT digest, token FROM exchanges WHERE ends <= ?1 LIMIT ?2";
    let over = select(tx.db(), over, params![now.as_second(), SWEPT], |row| {
        Ok((row.get::<_, String>(0)?, parsed::<TokenId>(row, "token")?))
    })?;
    for (digest, token) in over {
        let event = Event::new("exchange.forgotten").detail(json!({ "token": token }));
        tx.remove((EXCHANGES, &digest), event, |db| {
            db.prepare_cached("DELETE FROM exchanges WHERE digest = ?1")?.execute([&digest])
        })?;
        super::tokens::forget(tx, token)?;
    }
    let sql = "INSERT INTO exchanges (digest, token, ends) VALUES (?1, ?2, ?3)";
    tx.change((EXCHANGES, digest), event, |db| {
        db.prepare_cached(sql)?.execute(params![digest, token.to_string(), ends.as_second()])
    })?;
    Ok(true)
}

fn one<T>(
    db: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, StoreError> {
    db.prepare_cached(sql).map_err(fail)?.query_row(params, read).optional().map_err(fail)
}

fn select<T>(
    db: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = db.prepare_cached(sql).map_err(fail)?;
    let rows = statement.query_map(params, read).map_err(fail)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fail)
}

fn second(row: &Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    Timestamp::from_second(row.get(column)?).map_err(unreadable)
}

fn guest_from(row: &Row<'_>) -> rusqlite::Result<Guest> {
    let groups: String = row.get("groups")?;
    let groups = groups.split_whitespace().map(str::parse).collect::<Result<_, _>>().map_err(unreadable)?;
    Ok(Guest {
        identity: parsed(row, "identity")?,
        issuer: row.get("issuer")?,
        subject: row.get("subject")?,
        groups,
        since: second(row, "since")?,
        ends: second(row, "ends")?,
    })
}

fn key_from(row: &Row<'_>) -> rusqlite::Result<LentKey> {
    Ok(LentKey {
        key: row.get("key")?,
        identity: parsed(row, "identity")?,
        how: row.get("how")?,
        since: second(row, "since")?,
        ends: second(row, "ends")?,
    })
}
