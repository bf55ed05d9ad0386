//! Short-lived passwords, as verifiers. A row that the ledger does not vouch for is no password.

use super::{
    Password, Store, StoreError, fail,
    migrations::has_table,
    parsed,
    writer::{Tx, agrees},
};
use crate::{
    ledger::Event,
    name::{IdentityName, TargetName},
};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Value, json};
use std::net::IpAddr;

/// Ledger entries and digests of which passwords carry a second factor go by this.
const CARRIED: &str = "password_factors";

impl Store {
    /// Replaces the password of this identity at this target. `factor`: when its owner had just proven a second factor.
    pub async fn set_password(
        &self,
        password: Password,
        factor: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.run(move |writer| {
            writer.transact(now, |tx| {
                if let Some(proven) = factor {
                    carry(tx, &password, proven)?;
                }
                let event = Event::new("password.set")
                    .identity(&password.identity)
                    .target(&password.target)
                    .detail(json!({ "expires": password.expires }));
                tx.change(("passwords", &key(&password.identity, &password.target)), event, |db| write(db, &password))
            })
        })
        .await?
    }

    /// The password of this identity at this target, if its row agrees with the ledger and it has not expired.
    pub async fn password(
        &self,
        identity: &IdentityName,
        target: &TargetName,
        now: Timestamp,
    ) -> Result<Option<Password>, StoreError> {
        let (identity, target) = (identity.clone(), target.clone());
        self.read(move |db| {
            let snapshot = db.unchecked_transaction().map_err(fail)?;
            let found = find(&snapshot, &identity, &target)?.filter(|password| now < password.expires);
            if found.is_some() && !agrees(&snapshot, "passwords", &key(&identity, &target))? {
                tracing::error!(%identity, %target, "a password does not agree with the ledger");
                return Ok(None);
            }
            Ok(found)
        })
        .await
    }

    /// When the owner of this password had proven a second factor as they got it, if they had.
    pub async fn factor_of(&self, password: &Password) -> Result<Option<Timestamp>, StoreError> {
        let password = password.clone();
        self.read(move |db| carried(db, &password)).await
    }

    /// Binds a password to the first address that used it. False if another one came first, or if it was replaced.
    pub async fn bind_password(&self, password: &Password, source: IpAddr, now: Timestamp) -> Result<bool, StoreError> {
        let password = password.clone();
        self.run(move |writer| {
            writer.transact(now, |tx| {
                let key = key(&password.identity, &password.target);
                let Some(found) = still(tx, &password, now)? else { return Ok(false) };
                if let Some(bound) = found.source {
                    return Ok(bound == source);
                }
                let event = Event::new("password.bound")
                    .identity(&password.identity)
                    .target(&password.target)
                    .detail(json!({ "source": source }));
                let bound = Password { source: Some(source), ..found };
                tx.change(("passwords", &key), event, |db| write(db, &bound))?;
                Ok(true)
            })
        })
        .await?
    }

    /// Makes a password void after too many wrong proofs from `source`, which it is bound to. False, and nothing changes, if
    /// it was replaced since it was read, or is bound to another address or to none.
    pub async fn void_password(&self, password: &Password, source: IpAddr, now: Timestamp) -> Result<bool, StoreError> {
        let password = password.clone();
        self.run(move |writer| {
            writer.transact(now, |tx| {
                let Some(found) = still(tx, &password, now)? else { return Ok(false) };
                if found.source != Some(source) {
                    return Ok(false);
                }
                void(tx, found, json!({ "source": source }), now)?;
                Ok(true)
            })
        })
        .await?
    }
}

/// Makes every password of this identity void; how many were good.
pub(crate) fn void_all(tx: &mut Tx<'_>, identity: &IdentityName, now: Timestamp) -> Result<usize, StoreError> {
    let good: Vec<Password> = all_of(tx.db(), identity)?.into_iter().filter(|found| now < found.expires).collect();
    let count = good.len();
    for found in good {
        void(tx, found, Value::Null, now)?;
    }
    Ok(count)
}

fn void(tx: &mut Tx<'_>, password: Password, detail: Value, now: Timestamp) -> Result<(), StoreError> {
    let voided = Password { expires: now, ..password };
    let event = Event::new("password.voided").identity(&voided.identity).target(&voided.target).detail(detail);
    tx.change(("passwords", &key(&voided.identity, &voided.target)), event, |db| write(db, &voided))
}

/// Another verifier in the row than the password's: it was an earlier one's.
fn carry(tx: &mut Tx<'_>, password: &Password, proven: Timestamp) -> Result<(), StoreError> {
    let key = key(&password.identity, &password.target);
    let event = Event::new("password.factor").identity(&password.identity).target(&password.target);
    let sql = "INSERT OR REPLACE INTO password_factors (password, verifier, proven_at) VALUES (?1, ?2, ?3)";
    tx.change((CARRIED, &key), event.detail(json!({ "proven_at": proven })), |db| {
        db.prepare_cached(sql)?.execute(params![key, password.verifier, proven.to_string()])
    })
}

fn carried(db: &Connection, password: &Password) -> Result<Option<Timestamp>, StoreError> {
    if !has_table(db, CARRIED).map_err(fail)? {
        return Ok(None);
    }
    let (snapshot, key) = (db.unchecked_transaction().map_err(fail)?, key(&password.identity, &password.target));
    let sql = "SELECT proven_at FROM password_factors WHERE password = ?1 AND verifier = ?2";
    let found = snapshot
        .query_row(sql, [&key, &password.verifier], |row| parsed::<Timestamp>(row, "proven_at"))
        .optional()
        .map_err(fail)?;
    if found.is_some() && !agrees(&snapshot, CARRIED, &key)? {
        return Err(StoreError::Damaged(format!("password_factors {key}: the row was changed")));
    }
    Ok(found)
}

/// The row as it is now, if it is still this password, good, and vouched for by the ledger.
fn still(tx: &Tx<'_>, password: &Password, now: Timestamp) -> Result<Option<Password>, StoreError> {
    let found = find(tx.db(), &password.identity, &password.target)?;
    let found = found.filter(|found| found.verifier == password.verifier && now < found.expires);
    if found.is_some() && !tx.agrees("passwords", &key(&password.identity, &password.target))? {
        return Ok(None);
    }
    Ok(found)
}

fn key(identity: &IdentityName, target: &TargetName) -> String {
    format!("{identity}@{target}")
}

fn write(db: &Connection, password: &Password) -> rusqlite::Result<usize> {
    let sql = "INSERT OR REPLACE INTO passwords (identity, target, verifier, expires, source) \
               VALUES (?1, ?2, ?3, ?4, ?5)";
    db.prepare_cached(sql)?.execute(params![
        password.identity.as_str(),
        password.target.as_str(),
        password.verifier,
        password.expires.to_string(),
        password.source.map(|source| source.to_string()),
    ])
}

fn find(db: &Connection, identity: &IdentityName, target: &TargetName) -> Result<Option<Password>, StoreError> {
    let sql = "SELECT * FROM passwords WHERE identity = ?1 AND target = ?2";
    let mut statement = db.prepare_cached(sql).map_err(fail)?;
    statement.query_row([identity.as_str(), target.as_str()], from_row).optional().map_err(fail)
}

fn all_of(db: &Connection, identity: &IdentityName) -> Result<Vec<Password>, StoreError> {
    let mut statement = db.prepare_cached("SELECT * FROM passwords WHERE identity = ?1").map_err(fail)?;
    let rows = statement.query_map([identity.as_str()], from_row).map_err(fail)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fail)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Password> {
    let source: Option<String> = row.get("source")?;
    Ok(Password {
        identity: parsed(row, "identity")?,
        target: parsed(row, "target")?,
        verifier: row.get("verifier")?,
        expires: parsed(row, "expires")?,
        source: source.map(|text| text.parse().map_err(super::unreadable)).transpose()?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code")]
mod tests {
    use super::*;
    use crate::fixture::*;

    #[tokio::test]
    async fn what_was_replaced_or_bound_elsewhere_is_not_voided() {
        let (_dir, authority) = authority();
        let (store, near, far) = (authority.store(), "192.0.2.7".parse().unwrap(), "192.0.2.8".parse().unwrap());
        let old = Password {
            identity: "alice".parse().unwrap(),
            target: "orders".parse().unwrap(),
            verifier: "SCRAM-SHA-256$4096:c2FsdA==$a:b".to_owned(),
            expires: after(600),
            source: None,
        };
        let new = Password { verifier: "SCRAM-SHA-256$4096:c2FsdA==$c:d".to_owned(), ..old.clone() };
        store.set_password(old.clone(), None, now()).await.unwrap();
        store.set_password(new.clone(), None, now()).await.unwrap();
        assert!(!store.void_password(&old, near, now()).await.unwrap(), "it was replaced");
        assert!(store.bind_password(&new, near, now()).await.unwrap());
        assert!(!store.void_password(&new, far, now()).await.unwrap(), "it is bound to another address");
        let kept = store.password(&new.identity, &new.target, now()).await.unwrap();
        assert_eq!(kept.unwrap().source, Some(near));
        assert!(store.void_password(&new, near, now()).await.unwrap());
        assert!(store.password(&new.identity, &new.target, now()).await.unwrap().is_none());
        assert!(!store.void_password(&new, near, now()).await.unwrap(), "it is void already");
    }
}
