//! Rows of the table of second factors. A row that the ledger does not vouch for is no factor.

use super::{Store, StoreError, fail, migrations::has_table, parsed, unreadable, writer::Tx};
use crate::{
    factor::{Factor, Proof},
    ledger::Event,
    name::IdentityName,
    store::writer::agrees,
};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::json;
use std::net::IpAddr;

/// Ledger entries and digests go by this.
pub(crate) const TABLE: &str = "factors";

impl Store {
    /// Writes a new factor, in place of an older one only if `replace`. False: there was one.
    pub async fn add_factor(&self, factor: Factor, replace: bool, now: Timestamp) -> Result<bool, StoreError> {
        self.run(move |writer| {
            writer.transact(now, |tx| {
                if !replace && find(tx.db(), &factor.identity)?.is_some_and(|found| found.seed.is_some()) {
                    return Ok(false);
                }
                let detail =
                    json!({ "by": factor.added_by, "recovery_codes": factor.recovery.len(), "replaced": replace });
                put(tx, &factor, Event::new("mfa.enrolled").detail(detail))?;
                Ok(true)
            })
        })
        .await?
    }

    /// Takes somebody's factor away. False: there was none.
    pub async fn remove_factor(
        &self,
        identity: &IdentityName,
        by: &IdentityName,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (identity, by) = (identity.clone(), by.clone());
        self.run(move |writer| {
            writer.transact(now, |tx| {
                if find(tx.db(), &identity)?.is_none() {
                    return Ok(false);
                }
                let event = Event::new("mfa.removed").identity(&identity).detail(json!({ "by": by }));
                tx.remove((TABLE, identity.as_str()), event, |db| {
                    db.execute("DELETE FROM factors WHERE identity = ?1", [identity.as_str()])
                })?;
                Ok(true)
            })
        })
        .await?
    }

    /// All of them, by name.
    pub async fn factors(&self) -> Result<Vec<Factor>, StoreError> {
        self.read(all).await
    }

    /// Somebody's factor, if the ledger vouches for it.
    pub async fn factor(&self, identity: &IdentityName) -> Result<Option<Factor>, StoreError> {
        let identity = identity.clone();
        self.read(move |db| {
            let snapshot = db.unchecked_transaction().map_err(fail)?;
            let found = find(&snapshot, &identity)?;
            if found.is_some() && !agrees(&snapshot, TABLE, identity.as_str())? {
                return Err(StoreError::Damaged(format!("factors {identity}: the row was changed")));
            }
            Ok(found)
        })
        .await
    }

    /// Takes a proof of this factor, as it was read: false if it was taken already, by whomever, or the factor was replaced since.
    pub async fn take_proof(
        &self,
        factor: &Factor,
        proof: Proof,
        source: IpAddr,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (read, proof) = (factor.clone(), proof);
        self.run(move |writer| {
            writer.transact(now, |tx| {
                tx.trusted()?;
                let Some(found) = find(tx.db(), &read.identity)?.filter(|found| found.seed == read.seed) else {
                    return Ok(false);
                };
                let Some((taken, how)) = spend(found, &proof) else { return Ok(false) };
                let taken = Factor { proven: Some((now, source)), ..taken };
                let detail = json!({ "by": how, "source": source, "recovery_codes": taken.recovery.len() });
                put(tx, &taken, Event::new("mfa.proven").detail(detail))?;
                Ok(true)
            })
        })
        .await?
    }

    /// Somebody has signed with a security key of theirs.
    pub(crate) async fn prove_key(
        &self,
        identity: IdentityName,
        key: String,
        source: IpAddr,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.run(move |writer| {
            writer.transact(now, |tx| {
                tx.trusted()?;
                let found = find(tx.db(), &identity)?.unwrap_or_else(|| Factor::of_key(&identity, now));
                let detail = json!({
                    "by": "security key", "key": key, "source": source, "recovery_codes": found.recovery.len(),
                });
                let proven = Factor { proven: Some((now, source)), ..found };
                put(tx, &proven, Event::new("mfa.proven").detail(detail))
            })
        })
        .await?
    }

    /// Writes the same seeds sealed anew, each only if it is still the one that was read.
    pub async fn reseal_factors(&self, seeds: Vec<(Factor, String)>, now: Timestamp) -> Result<(), StoreError> {
        self.run(move |writer| {
            writer.transact(now, |tx| {
                for (read, sealed) in &seeds {
                    let found = find(tx.db(), &read.identity)?.filter(|found| found.seed == read.seed);
                    let Some(found) = found else { continue };
                    put(tx, &Factor { seed: Some(sealed.clone()), ..found }, Event::new("mfa.resealed"))?;
                }
                Ok(())
            })
        })
        .await?
    }
}

/// Takes away everybody's recovery codes; how many there were.
pub(crate) fn void_recovery(tx: &mut Tx<'_>) -> Result<usize, StoreError> {
    let mut count = 0;
    for factor in all(tx.db())?.into_iter().filter(|factor| !factor.recovery.is_empty()) {
        count += factor.recovery.len();
        put(tx, &Factor { recovery: std::collections::BTreeSet::new(), ..factor }, Event::new("mfa.recovery_voided"))?;
    }
    Ok(count)
}

/// The factor without what the proof spends, and what it was.
fn spend(mut factor: Factor, proof: &Proof) -> Option<(Factor, &'static str)> {
    match proof {
        Proof::Step(step) if *step > factor.last_step => {
            factor.last_step = *step;
            Some((factor, "code"))
        }
        Proof::Step(_) => None,
        Proof::Recovery(hash) => factor.recovery.remove(hash).then_some((factor, "recovery code")),
    }
}

/// When somebody's factor was proven, if that still counts from there. A store of a format without factors has none.
pub(crate) fn fresh(
    tx: &Tx<'_>,
    identity: &IdentityName,
    source: IpAddr,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let Some(fresh) = find(tx.db(), identity)?.and_then(|found| found.fresh(source, now)) else { return Ok(None) };
    if !tx.agrees(TABLE, identity.as_str())? {
        return Err(StoreError::Damaged(format!("factors {identity}: the row was changed")));
    }
    Ok(Some(fresh))
}

pub(crate) fn find(db: &Connection, identity: &IdentityName) -> Result<Option<Factor>, StoreError> {
    if !has_table(db, TABLE).map_err(fail)? {
        return Ok(None);
    }
    let mut statement = db.prepare_cached("SELECT * FROM factors WHERE identity = ?1").map_err(fail)?;
    statement.query_row([identity.as_str()], from_row).optional().map_err(fail)
}

fn all(db: &Connection) -> Result<Vec<Factor>, StoreError> {
    if !has_table(db, TABLE).map_err(fail)? {
        return Ok(Vec::new());
    }
    let mut statement = db.prepare_cached("SELECT * FROM factors ORDER BY identity").map_err(fail)?;
    let rows = statement.query_map([], from_row).map_err(fail)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fail)
}

fn put(tx: &mut Tx<'_>, factor: &Factor, event: Event) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO factors \
               (identity, seed, recovery, added_at, added_by, last_step, proven_at, proven_from) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let recovery = factor.recovery.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
    tx.change((TABLE, factor.identity.as_str()), event.identity(&factor.identity), |db| {
        db.prepare_cached(sql)?.execute(params![
            factor.identity.as_str(),
            factor.seed.as_deref().unwrap_or_default(), // the column is of a format that knew no other factor
            recovery,
            factor.added_at.to_string(),
            factor.added_by.as_str(),
            i64::try_from(factor.last_step).unwrap_or(i64::MAX),
            factor.proven.map(|(at, _)| at.to_string()),
            factor.proven.map(|(_, from)| from.to_string()),
        ])
    })
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Factor> {
    let text = |column: &str| row.get::<_, Option<String>>(column);
    let proven = match (text("proven_at")?, text("proven_from")?) {
        (Some(at), Some(from)) => Some((at.parse().map_err(unreadable)?, from.parse().map_err(unreadable)?)),
        _ => None,
    };
    let recovery: String = row.get("recovery")?;
    Ok(Factor {
        identity: parsed(row, "identity")?,
        seed: Some(row.get::<_, String>("seed")?).filter(|seed| !seed.is_empty()),
        recovery: recovery.split_whitespace().map(str::to_owned).collect(),
        added_at: parsed(row, "added_at")?,
        added_by: parsed(row, "added_by")?,
        last_step: u64::try_from(row.get::<_, i64>("last_step")?).unwrap_or(u64::MAX),
        proven,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code")]
mod tests {
    use super::*;
    use crate::{Authority, fixture::*};

    /// How many of fifty at once take the same proof.
    async fn many(authority: &Authority, read: &Factor, proof: Proof) -> usize {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let (store, read, proof) = (authority.store().clone(), read.clone(), proof.clone());
            tasks.spawn(
                async move { store.take_proof(&read, proof, "192.0.2.7".parse().unwrap(), now()).await.unwrap() },
            );
        }
        tasks.join_all().await.into_iter().filter(|taken| *taken).count()
    }

    async fn take_again(authority: &Authority) -> bool {
        let read = authority.store().factor(&factor().identity).await.unwrap().unwrap();
        authority.store().take_proof(&read, Proof::Step(1), "192.0.2.7".parse().unwrap(), now()).await.unwrap()
    }

    #[tokio::test]
    async fn of_many_at_once_one_takes_a_code_and_no_earlier_one_is_taken_after_a_restart_either() {
        let (dir, authority) = authority();
        let (here, there) = ("192.0.2.7".parse().unwrap(), "192.0.2.8".parse().unwrap());
        assert!(authority.store().add_factor(factor(), false, now()).await.unwrap());
        assert!(!authority.store().add_factor(factor(), false, now()).await.unwrap());
        let read = authority.store().factor(&factor().identity).await.unwrap().unwrap();
        let take = |proof: Proof| authority.store().take_proof(&read, proof, here, now());
        let taken = many(&authority, &read, Proof::Step(7)).await;
        assert_eq!(taken, 1);
        assert!(!take(Proof::Step(6)).await.unwrap());
        let taken = many(&authority, &read, Proof::Recovery("aa".to_owned())).await;
        assert_eq!(taken, 1);
        drop(authority);
        let authority = authority_in(dir.path());
        let take = |proof: Proof| authority.store().take_proof(&read, proof, here, now());
        assert!(!take(Proof::Step(7)).await.unwrap() && !take(Proof::Recovery("aa".to_owned())).await.unwrap());
        assert!(take(Proof::Step(8)).await.unwrap() && take(Proof::Recovery("bb".to_owned())).await.unwrap());
        let found = authority.store().factor(&read.identity).await.unwrap().unwrap();
        assert_eq!((found.recovery.len(), found.fresh(here, after(599))), (0, Some(now())));
        assert_eq!((found.fresh(here, after(600)), found.fresh(there, now())), (None, None));
        let replaced = Factor { seed: Some("other".to_owned()), ..factor() };
        assert!(authority.store().add_factor(replaced, true, now()).await.unwrap());
        assert!(!take(Proof::Step(9)).await.unwrap(), "it is another factor now");
        assert!(authority.store().remove_factor(&read.identity, &read.added_by, now()).await.unwrap());
        assert!(authority.store().factor(&read.identity).await.unwrap().is_none());
        drop(authority);
        let authority = authority_in(dir.path());
        assert!(authority.store().trusted().await.is_ok(), "a factor that was taken away is none that is missing");
        assert!(authority.store().add_factor(factor(), false, now()).await.unwrap());
        assert!(take_again(&authority).await, "and there may be another");
        drop(authority);
        assert!(authority_in(dir.path()).store().trusted().await.is_ok());
    }

    #[tokio::test]
    async fn a_factor_that_somebody_wrote_into_the_store_proves_nothing() {
        for edit in ["UPDATE factors SET last_step = 0", "UPDATE factors SET seed = 'mine'"] {
            let (dir, authority) = authority();
            authority.store().add_factor(factor(), false, now()).await.unwrap();
            let read = authority.store().factor(&factor().identity).await.unwrap().unwrap();
            let here = "192.0.2.7".parse().unwrap();
            assert!(authority.store().take_proof(&read, Proof::Step(7), here, now()).await.unwrap());
            rusqlite::Connection::open(dir.path().join("tidegate.db")).unwrap().execute(edit, []).unwrap();
            assert!(authority.store().factor(&read.identity).await.is_err(), "{edit}");
            assert!(authority.store().take_proof(&read, Proof::Step(8), here, now()).await.is_err(), "{edit}");
        }
    }
}
