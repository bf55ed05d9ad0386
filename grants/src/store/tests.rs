#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use super::*;
use crate::{
    Authority, GrantId, Lease, LeaseKind, LeasePlan, LeaseState, Receipt,
    fixture::*,
    ledger::{Verdict, chain::ENTRY_COLUMNS},
};
use rusqlite::types::Value;
use serde_json::json;
use tempfile::TempDir;

fn receipt(clean: bool) -> Receipt {
    Receipt {
        at: after(60),
        clean,
        findings: Vec::new(),
        unverifiable: vec!["a shared login".to_owned()],
        accepted: None,
    }
}

fn foreign(dir: &Path) -> Connection {
    Connection::open(dir.join(FILE)).unwrap()
}

fn check(dir: &Path) -> Verdict {
    verify(dir, ledger_public()).unwrap()
}

fn plan() -> LeasePlan {
    LeasePlan { kind: LeaseKind::PostgresRole, name: "tg_alice_x".to_owned(), detail: json!({ "oid": 4711 }) }
}

/// A store with a row in every table: a revoked grant, a used one, a session, an open lease, a password, a token, a request
/// that somebody has
/// approved, a lock, a second factor, a review, a guest, a lent key, an exchange.
async fn lived_in() -> (TempDir, Authority, Lease) {
    let (dir, authority) = authority();
    let lease = live_in(&authority).await;
    let token = crate::token::TokenRequest {
        user: "alice".parse().unwrap(),
        label: "ci".to_owned(),
        scope: crate::TokenScope::Read,
        life: Duration::from_secs(600),
    };
    authority.issue_token(&"carol".parse().unwrap(), token, Duration::from_secs(600), now()).await.unwrap();
    authority.replace(policy_asking(asking(&[(&["leads"], 2, crate::Proof::Attested)])));
    let request = authority.request(&"alice".parse().unwrap(), wish("web-1"), now()).await.unwrap();
    let id = request.wanted.id.to_string();
    authority.approve(&"dave".parse().unwrap(), &id, None, now()).await.unwrap();
    authority.replace(policy());
    let scope = crate::LockScope::User("mallory".parse().unwrap());
    let lock = crate::lock::LockRequest { scope, reason: "a reason".to_owned(), until: None };
    authority.lock(&"carol".parse().unwrap(), lock, now()).await.unwrap();
    second_factor(&authority).await;
    broken_glass(&authority).await;
    logins_from_elsewhere(&authority).await;
    (dir, authority, lease)
}

/// A guest with a key of theirs, and a token that was exchanged.
async fn logins_from_elsewhere(authority: &Authority) {
    let issuer = "https://login.example.com".to_owned();
    let arrival = crate::guest::Arrival {
        issuer: issuer.clone(),
        subject: "4711".to_owned(),
        identity: "zoe".parse().unwrap(),
        declared: false,
        groups: ["sre".parse().unwrap()].into(),
        ends: after(600),
    };
    authority.welcome(arrival, now()).await.unwrap();
    let (key, how, identity) = ("ssh-ed25519 AAAA".to_owned(), "oidc".to_owned(), "zoe".parse().unwrap());
    let lent = crate::guest::LentKey { key, identity, how, since: now(), ends: after(600) };
    authority.lend_key(lent, now()).await.unwrap();
    let (one_of_a_kind, subject, life) = ("jti".to_owned(), "repo".to_owned(), Duration::from_secs(600));
    let workload = "alice".parse().unwrap();
    let outside = crate::authority::Exchange { workload, issuer, one_of_a_kind, subject, ends: after(60), life };
    authority.exchange(outside, now()).await.unwrap();
}

/// Alice's, proven, and behind a password of hers.
async fn second_factor(authority: &Authority) {
    let factor = factor();
    let (store, here) = (authority.store(), "192.0.2.7".parse().unwrap());
    assert!(store.add_factor(factor.clone(), false, now()).await.unwrap());
    assert!(store.take_proof(&factor, crate::factor::Proof::Step(7), here, now()).await.unwrap());
    let password = Password {
        identity: "alice".parse().unwrap(),
        target: "reports".parse().unwrap(),
        verifier: "SCRAM-SHA-256$4096:c2FsdA==$a:b".to_owned(),
        expires: after(600),
        source: None,
    };
    store.set_password(password, Some(now()), now()).await.unwrap();
}

/// A grant that nobody approved, and the review that is owed for it.
async fn broken_glass(authority: &Authority) {
    let glass = crate::Asking { break_glass: true, ..asking(&[]) };
    authority.replace(policy_asking(glass));
    let other = crate::request::Wish { duration: Some(Duration::from_secs(300)), ..wish("web-1") };
    let asked = authority.request(&"alice".parse().unwrap(), other, now()).await.unwrap();
    assert_eq!(asked.state, crate::RequestState::Granted);
    authority.replace(policy());
}

/// What has been there since the first format.
pub(super) async fn live_in(authority: &Authority) -> Lease {
    let carol = "carol".parse().unwrap();
    let revoked: GrantId = authority.issue(&carol, request("bob", "web-1", "shell"), now()).await.unwrap();
    authority.revoke(&carol, &revoked.to_string(), Some("a mistake".to_owned()), now()).await.unwrap();
    let once = crate::authority::IssueRequest { single_use: true, ..request("alice", "orders", "readonly") };
    authority.issue(&carol, once, now()).await.unwrap();
    let permit = authority.authorize(&sql("alice", "shop", None), now()).await.unwrap();
    let lease = authority.store().lease(&permit, plan(), now()).await.unwrap();
    let password = Password {
        identity: "alice".parse().unwrap(),
        target: "orders".parse().unwrap(),
        verifier: "SCRAM-SHA-256$4096:c2FsdA==$a:b".to_owned(),
        expires: after(600),
        source: None,
    };
    authority.store().set_password(password.clone(), None, now()).await.unwrap();
    assert!(authority.store().bind_password(&password, "192.0.2.7".parse().unwrap(), now()).await.unwrap());
    lease
}

#[tokio::test]
async fn an_untouched_store_verifies_beside_its_gateway_and_after_it() {
    let (dir, authority, _) = lived_in().await;
    let verdict = check(dir.path());
    assert!(verdict.intact(), "{:?}", verdict.faults);
    let entries = read(dir.path(), None).unwrap();
    assert_eq!(u64::try_from(entries.len()).unwrap(), verdict.entries);
    assert!(entries.iter().all(|e| e.config == "c0ffee" && e.node == "a"));
    assert_eq!(read(dir.path(), Some(2)).unwrap().len(), 2);
    authority.store().trusted().await.unwrap();
    drop(authority);
    assert!(check(dir.path()).intact());
    let store = open_store(dir.path());
    store.trusted().await.unwrap();
    let sessions = store.sessions(crate::Listing::all()).await.unwrap();
    assert_eq!(sessions[0].outcome.as_deref(), Some("interrupted: the gateway stopped"));
    assert_eq!(store.leases(false).await.unwrap().len(), 1);
}

#[tokio::test]
async fn readers_do_not_look_like_writers() {
    let (dir, authority, _) = lived_in().await;
    let version = |w: &mut Writer| w.data_version().unwrap();
    let before = authority.store().run(version).await.unwrap();
    check(dir.path());
    read(dir.path(), None).unwrap();
    authority.store().leases(true).await.unwrap();
    authority.store().append(Event::new("door.refused"), now()).await.unwrap();
    assert_eq!(authority.store().run(version).await.unwrap(), before);
    foreign(dir.path()).execute("UPDATE sessions SET outcome = 'x'", []).unwrap();
    assert_ne!(authority.store().run(version).await.unwrap(), before);
}

/// Every table but SQLite's own, with its columns.
fn columns(db: &Connection) -> Vec<(String, Vec<String>)> {
    let list = |sql: &str| -> Vec<String> {
        let mut statement = db.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let tables = list("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name");
    tables.into_iter().map(|t| (t.clone(), list(&format!("SELECT name FROM pragma_table_info('{t}')")))).collect()
}

/// A fault names the row by its table, and the ledger's by node and number.
fn names(verdict: &Verdict, table: &str) -> bool {
    let prefix = format!("{table} ");
    verdict.faults.iter().any(|fault| fault.starts_with(&prefix))
}

#[tokio::test]
async fn every_edited_column_of_every_table_is_found_and_named() {
    let (dir, authority, _) = lived_in().await;
    drop(authority);
    let db = foreign(dir.path());
    let tables = columns(&db);
    assert_eq!(tables.len(), 2 + crate::ledger::verify::STATE.len(), "{tables:?}");
    assert_eq!(tables.iter().find(|(t, _)| t == "ledger").unwrap().1.len(), ENTRY_COLUMNS + 1);
    for (table, columns) in &tables {
        let rows: Vec<i64> = {
            let mut statement = db.prepare(&format!("SELECT rowid FROM {table}")).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        assert!(!rows.is_empty(), "{table} has no row to edit");
        for column in columns {
            for row in &rows {
                let edit = db.unchecked_transaction().unwrap();
                edit.pragma_update(None, "defer_foreign_keys", "ON").unwrap();
                let old: Value = edit
                    .query_row(&format!("SELECT {column} FROM {table} WHERE rowid = {row}"), [], |r| r.get(0))
                    .unwrap();
                let new = match old {
                    Value::Integer(n) => Value::Integer(n + 1000),
                    Value::Text(text) => Value::Text(format!("{text}x")),
                    Value::Null if column == "row_digest" || column.starts_with("row_") => Value::Text("x".to_owned()),
                    _ => Value::Text("2026-01-01T00:00:00Z".to_owned()),
                };
                let sql = format!("UPDATE {table} SET {column} = ?1 WHERE rowid = {row}");
                match edit.execute(&sql, [new]) {
                    Ok(edited) => assert_eq!(edited, 1),
                    // What the table itself does not take needs no ledger to be found.
                    Err(refused) => {
                        assert_eq!(refused.sqlite_error_code(), Some(rusqlite::ErrorCode::ConstraintViolation));
                        continue;
                    }
                }
                let verdict: Verdict = crate::ledger::verify::inspect(&edit, &ledger_public(), None).into();
                assert!(names(&verdict, table), "{table}.{column} of row {row}: {:?}", verdict.faults);
            }
        }
    }
    assert!(check(dir.path()).intact(), "all edits were rolled back");
}

#[tokio::test]
async fn every_deleted_and_every_added_row_is_found_and_named() {
    let (dir, authority, _) = lived_in().await;
    drop(authority);
    let db = foreign(dir.path());
    for (table, columns) in columns(&db) {
        let rows: i64 = db.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get(0)).unwrap();
        for nth in 0..rows {
            let edit = db.unchecked_transaction().unwrap();
            edit.pragma_update(None, "defer_foreign_keys", "ON").unwrap();
            let sql = format!("DELETE FROM {table} WHERE rowid = (SELECT rowid FROM {table} LIMIT 1 OFFSET {nth})");
            assert_eq!(edit.execute(&sql, []).unwrap(), 1);
            let verdict: Verdict = crate::ledger::verify::inspect(&edit, &ledger_public(), None).into();
            assert!(names(&verdict, table.as_str()), "{table}: {:?}", verdict.faults);
            assert!(verdict.faults.iter().any(|f| f.contains("deleted")), "{:?}", verdict.faults);
        }
        let key = columns[0].clone();
        let edit = db.unchecked_transaction().unwrap();
        let copied = columns.iter().map(|c| match c.as_str() {
            c if c == key => format!("{c} || '9'"),
            "jti" | "node" | "hash" => format!("{c} || '9'"),
            c => c.to_owned(),
        });
        let copied = copied.collect::<Vec<_>>().join(", ");
        let sql = format!("INSERT INTO {table} SELECT {copied} FROM {table} ORDER BY rowid DESC LIMIT 1");
        assert_eq!(edit.execute(&sql, []).unwrap(), 1, "{table}");
        let verdict: Verdict = crate::ledger::verify::inspect(&edit, &ledger_public(), None).into();
        assert!(!verdict.intact(), "{table}: an added row went unseen");
    }
}

#[tokio::test]
async fn a_changed_schema_is_found() {
    let (dir, authority, _) = lived_in().await;
    drop(authority);
    foreign(dir.path()).execute_batch("CREATE TRIGGER t AFTER INSERT ON leases BEGIN DELETE FROM leases; END").unwrap();
    assert!(check(dir.path()).faults.iter().any(|f| f.starts_with("schema")));
    assert!(open_store(dir.path()).trusted().await.is_err());
}

#[tokio::test]
async fn a_deleted_lease_comes_back_and_the_store_stays_untrusted() {
    let (dir, authority, lease) = lived_in().await;
    drop(authority);
    foreign(dir.path()).execute("DELETE FROM leases", []).unwrap();
    for _ in 0..2 {
        let store = open_store(dir.path());
        assert!(matches!(store.trusted().await, Err(StoreError::Damaged(_))), "also after a restart");
        assert_eq!(store.leases(false).await.unwrap(), std::slice::from_ref(&lease));
        assert!(check(dir.path()).faults.iter().any(|f| f.contains(&lease.id().to_string())));
    }
}

#[tokio::test]
async fn a_lease_that_was_edited_to_closed_is_open_again() {
    let (dir, authority, mut lease) = lived_in().await;
    let store = authority.store();
    foreign(dir.path()).execute("UPDATE leases SET state = 'closed', name = 'postgres'", []).unwrap();
    assert!(store.trusted().await.is_err());
    assert_eq!(store.leases(false).await.unwrap(), std::slice::from_ref(&lease));
    foreign(dir.path()).execute("UPDATE leases SET name = 'postgres'", []).unwrap();
    store.disabled(&mut lease, after(1)).await.unwrap();
    assert_eq!((lease.name(), lease.state()), ("tg_alice_x", LeaseState::Disabled));
    store.closed(&mut lease, receipt(true), after(2)).await.unwrap();
    assert!(!check(dir.path()).intact(), "writing on does not heal what was tampered with");
}

#[tokio::test]
async fn a_cut_tail_cannot_be_written_over() {
    let (dir, authority, _) = lived_in().await;
    drop(authority);
    let db = foreign(dir.path());
    let last: i64 = db.query_row("SELECT max(seq) FROM ledger", [], |r| r.get(0)).unwrap();
    db.execute("DELETE FROM ledger WHERE seq = ?1", [last]).unwrap();
    db.execute("DELETE FROM heads", []).unwrap();
    db.execute("UPDATE passwords SET source = NULL", []).unwrap();
    drop(db);
    for _ in 0..2 {
        let store = open_store(dir.path());
        assert!(store.trusted().await.is_err());
        store.append(Event::new("door.refused"), now()).await.unwrap();
    }
    let faults = check(dir.path()).faults;
    assert!(faults.iter().any(|f| f == &format!("ledger a/{last}: the row was deleted")), "{faults:?}");
}

#[tokio::test]
async fn a_lease_goes_its_way_and_only_a_clean_receipt_closes_it() {
    let (dir, authority, mut lease) = lived_in().await;
    let store = authority.store();
    store.note(&mut lease, json!({ "oid": 4712 }), Event::new("lease.noted"), after(1)).await.unwrap();
    store.disabled(&mut lease, after(2)).await.unwrap();
    store.disabled(&mut lease, after(2)).await.unwrap();
    store.cleaning(&mut lease, after(3)).await.unwrap();
    store.held(&mut lease, "objects are left", Some(receipt(false)), after(4)).await.unwrap();
    assert_eq!((lease.state(), lease.last_error()), (LeaseState::Held, Some("objects are left")));
    store.held(&mut lease, "objects are left", Some(receipt(false)), after(5)).await.unwrap();
    let refused = store.closed(&mut lease, receipt(false), after(5)).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    store.cleaning(&mut lease, after(6)).await.unwrap();
    store.closed(&mut lease, receipt(true), after(7)).await.unwrap();
    assert!(store.failed(&mut lease, "late", after(8)).await.is_err(), "a closed lease takes no step");
    assert!(store.leases(false).await.unwrap().is_empty());
    assert_eq!(store.leases(true).await.unwrap(), std::slice::from_ref(&lease));
    let entries = store.tail(100).await.unwrap();
    let kinds: Vec<_> =
        entries.iter().filter(|e| e.event.lease == Some(lease.id())).map(|e| e.event.kind.as_str()).collect();
    let expected = ["opened", "noted", "disabled", "cleaning", "held", "closed"];
    assert_eq!(kinds, expected.map(|kind| format!("lease.{kind}")));
    assert_eq!(entries.last().unwrap().event.detail["receipt"]["clean"], json!(true));
    assert!(check(dir.path()).intact());
}

#[tokio::test]
async fn what_is_left_on_a_target_is_counted_by_what_was_tried_in_vain() {
    let (_dir, authority, mut lease) = lived_in().await;
    let (store, orders) = (authority.store(), "orders".parse().unwrap());
    let left = || async { store.left_on(&orders).await.map(|left| (left.working, left.all)).unwrap() };
    assert_eq!(left().await, (0, 0), "a lease that is in use is nothing left over");
    store.failed(&mut lease, "connection refused", after(1)).await.unwrap();
    assert_eq!(left().await, (1, 1));
    assert_eq!(store.left_on(&"web-1".parse().unwrap()).await.unwrap().all, 0);
    store.disabled(&mut lease, after(2)).await.unwrap();
    assert_eq!(left().await, (0, 1));
    store.closed(&mut lease, receipt(true), after(3)).await.unwrap();
    assert_eq!(left().await, (0, 0));
}

#[tokio::test]
async fn retries_for_ever_do_not_fill_the_ledger() {
    let (dir, authority, mut lease) = lived_in().await;
    let store = authority.store();
    for _ in 0..100 {
        store.failed(&mut lease, "connection refused", after(1)).await.unwrap();
    }
    store.failed(&mut lease, "no route to host", after(2)).await.unwrap();
    assert_eq!(lease.attempts(), 101);
    assert_eq!(store.leases(false).await.unwrap(), std::slice::from_ref(&lease));
    let entries = store.tail(1000).await.unwrap();
    let failed = entries.iter().filter(|e| e.event.kind == "lease.failed").count();
    assert_eq!(failed, 8, "1, 2, 4, 8, 16, 32, 64 and the other error");
    assert!(check(dir.path()).intact());
}

#[tokio::test]
async fn a_password_is_good_for_one_address_and_only_untampered() {
    let (dir, authority, _) = lived_in().await;
    let (store, alice, orders) = (authority.store(), "alice".parse().unwrap(), "orders".parse().unwrap());
    let password = store.password(&alice, &orders, after(1)).await.unwrap().unwrap();
    assert!(store.bind_password(&password, "192.0.2.7".parse().unwrap(), after(1)).await.unwrap());
    assert!(!store.bind_password(&password, "192.0.2.8".parse().unwrap(), after(1)).await.unwrap());
    assert!(store.password(&alice, &orders, after(600)).await.unwrap().is_none(), "expired");
    foreign(dir.path()).execute("UPDATE passwords SET expires = '2027-01-01T00:00:00Z'", []).unwrap();
    assert!(store.password(&alice, &orders, after(1)).await.unwrap().is_none(), "tampered with");
}

#[tokio::test]
async fn two_gateways_on_one_directory_are_refused_and_a_newer_format_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let again = || Store::open(dir.path(), "a", "", Arc::new(ledger_key()), ledger_public());
    assert!(matches!(again(), Err(StoreError::Busy)));
    let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(store);
    let db = foreign(dir.path());
    db.execute("UPDATE ledger SET row_key = '99' WHERE kind = 'store.migrated'", []).unwrap();
    drop(db);
    assert!(matches!(again(), Err(StoreError::TooNew { found: 99, known }) if known == migrations::newest()));
    assert!(matches!(verify(dir.path(), ledger_public()), Err(StoreError::TooNew { .. })));
}

#[tokio::test]
async fn a_killed_writer_loses_nothing_that_was_confirmed() {
    let (dir, authority, lease) = lived_in().await;
    // What a kill leaves: the files as they are, without the last connection's checkpoint.
    let copy = tempfile::tempdir().unwrap();
    for file in ["tidegate.db", "tidegate.db-wal"] {
        std::fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
    }
    drop(authority);
    let store = open_store(copy.path());
    store.trusted().await.unwrap();
    assert_eq!(store.leases(false).await.unwrap(), [lease]);
}

#[tokio::test]
async fn a_replaced_file_is_noticed() {
    let (dir, authority, _) = lived_in().await;
    let file = dir.path().join(FILE);
    std::fs::copy(&file, dir.path().join("copy")).unwrap();
    std::fs::rename(dir.path().join("copy"), &file).unwrap();
    assert!(matches!(authority.store().trusted().await, Err(StoreError::Damaged(_))));
}

/// What a kill leaves: a copy of the files as they are, made while the gateway runs.
fn killed(from: &Path, files: &[&str]) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in files {
        std::fs::copy(from.join(file), copy.path().join(file)).unwrap();
    }
    copy
}

#[tokio::test]
async fn writing_on_does_not_heal_what_was_noticed_while_running() {
    for edit in [
        "DELETE FROM heads",
        "UPDATE heads SET seq = seq - 1",
        "UPDATE grants SET added_by = 'mallory'",
        "DELETE FROM sessions",
        "UPDATE leases SET name = 'x'",
        "DELETE FROM passwords",
        "DELETE FROM ledger WHERE place = (SELECT max(place) FROM ledger)",
    ] {
        let (dir, authority, _) = lived_in().await;
        foreign(dir.path()).execute(edit, []).unwrap();
        for _ in 0..3 {
            authority.store().append(Event::new("door.refused"), now()).await.unwrap();
        }
        assert!(authority.store().trusted().await.is_err(), "{edit}");
        assert!(!check(dir.path()).intact(), "{edit}");
        drop(authority);
        for _ in 0..3 {
            assert!(open_store(dir.path()).trusted().await.is_err(), "{edit}");
        }
        let entries = read(dir.path(), None).unwrap();
        let noted = entries.iter().filter(|e| e.event.kind == "store.distrusted").count();
        assert!(noted <= 2, "{edit}: noted {noted} times");
    }
}

#[tokio::test]
async fn an_edit_that_was_taken_back_is_not_forgotten() {
    let (dir, authority, _) = lived_in().await;
    let db = foreign(dir.path());
    db.execute("UPDATE grants SET token = token || 'x'", []).unwrap();
    assert!(authority.store().trusted().await.is_err());
    db.execute("UPDATE grants SET token = substr(token, 1, length(token) - 1)", []).unwrap();
    drop((db, authority));
    assert!(open_store(dir.path()).trusted().await.is_err());
    let faults = check(dir.path()).faults;
    assert!(faults.len() == 1 && faults[0].contains("did not agree"), "{faults:?}");
}

#[tokio::test]
async fn a_lost_or_emptied_store_is_not_a_new_one() {
    let (dir, authority, _) = lived_in().await;
    let marker = dir.path().join("store.made");
    assert_eq!(std::fs::metadata(&marker).unwrap().permissions().mode() & 0o777, 0o600);
    let lost_wal = killed(dir.path(), &[FILE, "store.made"]);
    let lost_all = killed(dir.path(), &["store.made"]);
    let emptied = killed(dir.path(), &[FILE, "tidegate.db-wal", "store.made"]);
    drop(authority);
    assert!(check(dir.path()).intact());
    assert!(verify(lost_all.path(), ledger_public()).is_err());
    let db = foreign(emptied.path());
    for (table, _) in columns(&db) {
        db.execute_batch(&format!("PRAGMA foreign_keys = OFF; DELETE FROM {table}")).unwrap();
    }
    drop(db);
    for dir in [lost_wal, lost_all, emptied] {
        for _ in 0..2 {
            let store = open_store(dir.path());
            assert!(matches!(store.trusted().await, Err(StoreError::Damaged(_))));
            store.append(Event::new("door.refused"), now()).await.unwrap();
            let faults = check(dir.path()).faults;
            assert!(faults.iter().any(|fault| fault.contains("store.made")), "{faults:?}");
        }
    }
}

#[tokio::test]
async fn the_main_file_alone_holds_nearly_everything() {
    let (dir, authority, _) = lived_in().await;
    for _ in 0..200 {
        authority.store().append(Event::new("door.refused"), now()).await.unwrap();
    }
    let alone = killed(dir.path(), &[FILE]);
    let held = check(alone.path()).entries;
    assert!(held > 100, "{held}");
    drop(authority);
    assert!(!dir.path().join("tidegate.db-wal").metadata().is_ok_and(|m| m.len() > 0));
}

#[tokio::test]
async fn a_vanished_or_replaced_wal_is_noticed_for_good() {
    for replaced in [false, true] {
        let (dir, authority, _) = lived_in().await;
        let wal = dir.path().join("tidegate.db-wal");
        std::fs::copy(&wal, dir.path().join("copy")).unwrap();
        std::fs::remove_file(&wal).unwrap();
        if replaced {
            std::fs::rename(dir.path().join("copy"), &wal).unwrap();
        }
        assert!(matches!(authority.store().trusted().await, Err(StoreError::Damaged(why)) if why.contains("-wal")));
        drop(authority);
        assert!(open_store(dir.path()).trusted().await.is_err(), "after a restart");
    }
}

#[tokio::test]
async fn a_single_use_grant_comes_back_from_a_session_that_never_reached_its_target() {
    let (dir, authority) = authority();
    let once = crate::authority::IssueRequest { single_use: true, ..request("alice", "web-1", "shell") };
    authority.issue(&"carol".parse().unwrap(), once, now()).await.unwrap();
    let ask = ssh("alice", "deploy", "web-1");
    let first = authority.authorize(&ask, now()).await.unwrap().session();
    authority.store().session_closed(first, "failed: no route to host", after(1)).await.unwrap();
    let second = authority.authorize(&ask, after(2)).await.unwrap().session();
    authority.store().append(Event::new("target.connected").session(second), after(3)).await.unwrap();
    authority.store().session_closed(second, "failed: it hung up", after(4)).await.unwrap();
    assert!(authority.authorize(&ask, after(5)).await.is_err(), "used up");
    assert!(check(dir.path()).intact());
}

#[tokio::test]
async fn a_head_is_signed_anew_when_it_is_old_and_never_over_what_does_not_verify() {
    let (dir, authority, _) = lived_in().await;
    let store = authority.store();
    let (before, minute) = (store.heads().await.unwrap().remove(0), Duration::from_secs(60));
    let signed: Timestamp = before.at.parse().unwrap();
    store.renew_head(minute, signed + Duration::from_secs(59)).await.unwrap();
    assert_eq!(store.heads().await.unwrap().first(), Some(&before), "not yet");
    store.renew_head(minute, signed - Duration::from_secs(3600)).await.unwrap();
    assert_eq!(store.heads().await.unwrap().first(), Some(&before), "nor while the clock is behind");
    store.renew_head(minute, signed + minute).await.unwrap();
    let after = store.heads().await.unwrap().remove(0);
    assert_eq!((after.seq, &after.hash), (before.seq, &before.hash));
    assert!(after.at != before.at && after.holds(&ledger_public()) && check(dir.path()).intact());
    foreign(dir.path()).execute("UPDATE passwords SET source = NULL", []).unwrap();
    assert!(matches!(store.renew_head(minute, signed + 2 * minute).await, Err(StoreError::Damaged(_))));
    // What was found was entered, and that alone was signed.
    assert!(store.heads().await.unwrap()[0].seq > before.seq && !check(dir.path()).intact());
}

#[tokio::test]
async fn a_root_grows_with_the_chain_and_entries_are_proven_by_the_one_that_went_out() {
    let (dir, authority, _) = lived_in().await;
    let (store, signer): (_, HeadSigner) = (authority.store(), Arc::new(ledger_key()));
    let public = ledger_public();
    let mut line = String::new();
    for n in 0..3 {
        store.append(crate::Event::new("test.said"), after(n)).await.unwrap();
        let head = store.rooted(store.heads().await.unwrap().remove(0)).await.unwrap();
        let tree = head.tree(&public).unwrap();
        let (included, whole) = prove(dir.path(), &signer, after(n), None, |_| false, |_| true).unwrap();
        assert_eq!((&tree.root, tree.seq), (&whole[0].root, included.len() as u64), "as if made at once");
        line = serde_json::to_string(&head).unwrap();
    }
    let anchors = crate::ledger::proof::Anchors::read(&line, &public);
    assert!(anchors.faults.is_empty(), "{:?}", anchors.faults);
    let said = |exported: &crate::ledger::proof::Exported| exported.entry.event.kind.starts_with("test.");
    let (included, trees) = prove(dir.path(), &signer, after(9), Some(&anchors), |_| false, said).unwrap();
    assert_eq!((included.len(), anchors.has_tree(&trees[0]).is_ok()), (3, true));
    let of = |it: &Included| trees[0].includes(it.exported.entry.seq, &it.exported.entry.hash, &it.path);
    assert!(included.iter().all(of));

    store.append(crate::Event::new("test.late"), after(10)).await.unwrap();
    let late = |entry: &crate::ledger::Entry| entry.event.kind == "test.late";
    assert_eq!(prove(dir.path(), &signer, after(11), Some(&anchors), late, said).unwrap().0.len(), 3);
    let refused = prove(dir.path(), &signer, after(11), Some(&anchors), |_| false, said);
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");

    // Another ledger of the same key.
    let (elsewhere, other, _) = lived_in().await;
    for n in 0..4 {
        other.store().append(crate::Event::new("test.said"), after(n)).await.unwrap();
    }
    let refused = prove(elsewhere.path(), &signer, after(11), Some(&anchors), |_| true, said);
    assert!(matches!(refused, Err(StoreError::Damaged(_))), "{refused:?}");
    let foreign_head = other.store().heads().await.unwrap().remove(0);
    assert!(store.rooted(foreign_head).await.is_err(), "a head of other entries has no root here");
    let mut head = store.rooted(store.heads().await.unwrap().remove(0)).await.unwrap();
    head.tree.as_mut().unwrap().root.replace_range(..1, "x");
    assert!(head.holds(&public) && head.tree(&public).is_none(), "a root that was changed is none");
}
