//! Locks: who may set and remove them, and whom they keep out.

use super::{Denied, Ended, GrantError, admin, permit::Rules};
use crate::{
    grant::Revoked,
    lock::{LockMade, LockRequest, LockScope, LockState, LockView, Locked},
    name::{IdentityName, LockId, TargetName},
    pick,
    policy::Policy,
    store::{
        StoreError, fail,
        locks::{self, LockRow, TABLE},
        writer::{Tx, Writer, agrees},
    },
    text::{LINE, line},
};
use jiff::Timestamp;
use rusqlite::Connection;

fn refused<T>(why: impl Into<String>) -> Result<T, GrantError> {
    Err(GrantError::Refused(why.into()))
}

/// Writes it down, then ends the live permits; both before anybody else's turn on this thread. A ledger that cannot be written
/// keeps no session alive.
pub(super) fn add(
    writer: &mut Writer,
    rules: &Rules,
    by: &IdentityName,
    request: &LockRequest,
    now: Timestamp,
) -> Result<LockMade, GrantError> {
    let policy = rules.policy();
    admin::must_be_admin_to(&policy, by, "set locks")?;
    let reason = line(&request.reason, LINE);
    if reason.trim().is_empty() {
        return refused("say why: whoever is kept out is told");
    }
    if request.until.is_some_and(|until| until <= now) {
        return refused("it would be over already: give a time to come, or none");
    }
    if request.scope == LockScope::User(by.clone()) {
        return refused("nobody locks themselves out, since they could not remove it: ask another admin");
    }
    let lock = Locked { id: LockId::new(), scope: request.scope.clone(), reason, by: by.clone(), until: request.until };
    let row = LockRow { lock: lock.clone(), created_at: now, removed: None };
    let written = writer.transact(now, |tx| locks::insert(tx, &row));
    let covered = |identity: &IdentityName, target: &TargetName| lock.scope.covers(identity, target);
    let sessions = rules.end_those(covered, &Ended::Locked(lock.clone()));
    written?;
    Ok(LockMade { id: lock.id, known: names(&policy, &lock.scope), sessions })
}

fn names(policy: &Policy, scope: &LockScope) -> bool {
    match scope {
        LockScope::User(name) => policy.identities.contains_key(name),
        LockScope::Target(name) => policy.targets.contains_key(name),
        LockScope::All => true,
    }
}

/// Takes away the one with this id, prefix or suffix. Twice is fine.
pub(super) fn remove(
    writer: &mut Writer,
    rules: &Rules,
    by: &IdentityName,
    id: &str,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<LockId, GrantError> {
    admin::must_be_admin_to(&rules.policy(), by, "remove locks")?;
    let removed = Revoked::by(by, reason, now);
    writer.transact(now, |tx| {
        let row = match pick::one(locks::list(tx.db())?, id, |row| row.lock.id.to_string()) {
            Ok(row) => row,
            Err(not_one) => return Ok(Err(GrantError::NotFound(not_one.sentence("lock")))),
        };
        if row.lock.scope == LockScope::User(by.clone()) {
            return Ok(refused("nobody removes a lock on themselves: ask another admin"));
        }
        if row.removed.is_none() {
            locks::remove(tx, &row, &removed)?;
        }
        Ok(Ok(row.lock.id))
    })?
}

pub(super) fn list(db: &Connection, now: Timestamp) -> Result<Vec<LockView>, StoreError> {
    let snapshot = db.unchecked_transaction().map_err(fail)?;
    locks::list(&snapshot)?.into_iter().map(|row| view(&snapshot, row, now)).collect()
}

fn view(db: &Connection, row: LockRow, now: Timestamp) -> Result<LockView, StoreError> {
    let state = match agrees(db, TABLE, &row.lock.id.to_string())? {
        false => LockState::Invalid,
        true if row.removed.is_some() => LockState::Removed,
        true if row.holds(now) => LockState::Active,
        true => LockState::Over,
    };
    let LockRow { lock: Locked { id, scope, reason, by, until }, created_at, removed } = row;
    Ok(LockView { id, scope, reason, created_at, created_by: by, until, state, removed })
}

/// Ok where no lock keeps this identity from this target.
pub(super) fn open(tx: &Tx<'_>, identity: &IdentityName, target: &TargetName) -> Result<(), Denied> {
    match covering(tx.db(), (identity, target), tx.now())? {
        Some(locked) => Err(Denied::Locked(locked)),
        None => Ok(()),
    }
}

/// The lock that keeps this identity from this target, if there is one.
pub(super) fn covering(
    db: &Connection,
    (identity, target): (&IdentityName, &TargetName),
    now: Timestamp,
) -> Result<Option<Locked>, StoreError> {
    first(db, now, |scope| scope.covers(identity, target))
}

/// The lock on this identity itself, if there is one.
pub(super) fn on(db: &Connection, identity: &IdentityName, now: Timestamp) -> Result<Option<Locked>, StoreError> {
    first(db, now, |scope| *scope == LockScope::User(identity.clone()))
}

fn first(db: &Connection, now: Timestamp, covers: impl Fn(&LockScope) -> bool) -> Result<Option<Locked>, StoreError> {
    let holding = locks::holding(db, now)?;
    Ok(holding.into_iter().map(|row| row.lock).find(|lock| covers(&lock.scope)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code")]
mod tests {
    use super::*;
    use crate::{authority::Authority, fixture::*};

    async fn lock(authority: &Authority, scope: LockScope, until: Option<Timestamp>) -> Result<LockMade, GrantError> {
        let request = LockRequest { scope, reason: "enough\u{1b}[2J".to_owned(), until };
        authority.lock(&"carol".parse().unwrap(), request, now()).await
    }

    #[tokio::test]
    async fn each_lock_ends_and_refuses_what_it_covers_and_nothing_else() {
        for (scope, alice, bob) in [
            (LockScope::User("alice".parse().unwrap()), false, true),
            (LockScope::User("nobody".parse().unwrap()), true, true),
            (LockScope::Target("web-1".parse().unwrap()), false, false),
            (LockScope::Target("orders".parse().unwrap()), true, true),
            (LockScope::All, false, false),
        ] {
            let (_dir, authority) = authority();
            let mut permits = Vec::new();
            for who in ["alice", "bob"] {
                let request = request(who, "web-1", "shell");
                authority.issue(&"carol".parse().unwrap(), request, now()).await.unwrap();
                permits.push(authority.authorize(&ssh(who, "deploy", "web-1"), now()).await.unwrap());
            }
            let made = lock(&authority, scope.clone(), None).await.unwrap();
            let ended = [alice, bob].into_iter().filter(|open| !open).count();
            assert_eq!(made.sessions, ended, "{scope}");
            for (permit, (who, open)) in permits.iter().zip([("alice", alice), ("bob", bob)]) {
                assert_eq!(authority.recheck(permit, now()).await.is_ok(), open, "{scope}: a further channel of {who}");
                let again = authority.authorize(&ssh(who, "deploy", "web-1"), now()).await;
                assert_eq!(again.is_ok(), open, "{scope}: {who}");
                if let Err(denied) = again {
                    assert!(denied.to_string().ends_with("locked by carol: enough [2J"), "{denied}");
                }
            }
            authority.unlock(&"carol".parse().unwrap(), &made.id.to_string(), None, now()).await.unwrap();
            authority.authorize(&ssh("alice", "deploy", "web-1"), now()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_lock_is_over_at_its_time_and_another_one_holds_on() {
        let (_dir, authority) = authority();
        authority.issue(&"carol".parse().unwrap(), request("alice", "web-1", "shell"), now()).await.unwrap();
        lock(&authority, LockScope::All, Some(after(60))).await.unwrap();
        lock(&authority, LockScope::Target("web-1".parse().unwrap()), Some(after(90))).await.unwrap();
        let third = lock(&authority, LockScope::User("alice".parse().unwrap()), None).await.unwrap();
        let open = async |seconds| authority.authorize(&ssh("alice", "deploy", "web-1"), after(seconds)).await.is_ok();
        assert!(!open(59).await && !open(60).await);
        assert_eq!(authority.store().locks_held(after(60)).await.unwrap(), 2);
        let states: Vec<_> = authority.locks(after(60)).await.unwrap().into_iter().map(|lock| lock.state).collect();
        assert_eq!(states, [LockState::Active, LockState::Active, LockState::Over]);
        let carol = "carol".parse().unwrap();
        authority.unlock(&carol, &third.id.to_string(), None, after(60)).await.unwrap();
        assert!(!open(89).await);
        assert!(open(90).await);
    }

    #[tokio::test]
    async fn only_admins_lock_and_none_of_them_themselves() {
        let (_dir, authority) = authority();
        let request = |who: &str| LockRequest {
            scope: LockScope::User(who.parse().unwrap()),
            reason: "why".to_owned(),
            until: None,
        };
        for (by, whom, allowed) in
            [("carol", "alice", true), ("carol", "carol", false), ("alice", "bob", false), ("nobody", "alice", false)]
        {
            let made = authority.lock(&by.parse().unwrap(), request(whom), now()).await;
            assert_eq!(made.is_ok(), allowed, "{by} on {whom}: {made:?}");
        }
        let id = authority.locks(now()).await.unwrap().first().unwrap().id.to_string();
        assert!(authority.unlock(&"alice".parse().unwrap(), &id, None, now()).await.is_err());
        assert!(authority.locked_out(&"alice".parse().unwrap(), now()).await.unwrap().is_some());
        assert!(authority.locked_out(&"bob".parse().unwrap(), now()).await.unwrap().is_none());
    }
}
