//! A store of the first format becomes one of the present format: whole, or not at all.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use super::{tests::live_in, *};
use crate::{Authority, Lease, TokenScope, fixture::*, ledger::Verdict, token::TokenRequest};
use std::{fs, process::Command};
use tempfile::TempDir;

/// What the first version wrote: grants, a session, an open lease, a password.
async fn old_store() -> (TempDir, Lease) {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority_of_format(dir.path(), 1);
    let lease = live_in(&authority).await;
    (dir, lease)
}

fn foreign(dir: &Path) -> Connection {
    Connection::open(dir.join(FILE)).unwrap()
}

fn check(dir: &Path) -> Verdict {
    verify(dir, ledger_public()).unwrap()
}

fn format(dir: &Path) -> u32 {
    migrations::format(&foreign(dir)).unwrap().unwrap()
}

async fn make_token(authority: &Authority) -> Result<crate::token::TokenMade, crate::authority::GrantError> {
    let user = "alice".parse().unwrap();
    let life = Duration::from_secs(600);
    let request = TokenRequest { user, label: "ci".to_owned(), scope: TokenScope::Read, life };
    authority.issue_token(&"alice".parse().unwrap(), request, life, now()).await
}

#[tokio::test]
async fn a_store_of_the_first_format_is_upgraded_and_verifies_before_and_after() {
    let (dir, lease) = old_store().await;
    assert_eq!(format(dir.path()), 1);
    let before = check(dir.path());
    assert!(before.intact(), "{:?}", before.faults);
    let entries = read(dir.path(), None).unwrap();
    let authority = authority_in(dir.path());
    authority.store().trusted().await.unwrap();
    assert_eq!(format(dir.path()), migrations::newest());
    assert_eq!(authority.store().leases(false).await.unwrap(), std::slice::from_ref(&lease));
    assert_eq!(authority.store().sessions(crate::Listing::all()).await.unwrap().len(), 1);
    assert!(authority.store().password(lease.identity(), lease.target(), now()).await.unwrap().is_some());
    assert_eq!(authority.grants(crate::Listing::all(), now()).await.unwrap().len(), 2);
    authority
        .bearer(secrecy::ExposeSecret::expose_secret(&make_token(&authority).await.unwrap().secret), now())
        .await
        .unwrap();
    drop(authority);
    let after = check(dir.path());
    assert!(after.intact(), "{:?}", after.faults);
    let now_there = read(dir.path(), None).unwrap();
    assert!(now_there.iter().map(|e| &e.hash).zip(&entries).all(|(hash, e)| *hash == e.hash), "what was there stays");
    let migrated = now_there.iter().filter(|e| e.event.kind == "store.migrated" && e.event.detail["format"] == "2");
    assert_eq!(migrated.count(), 2, "the schema, and the history");
    // And refinery agrees with the history that it did not write itself.
    let history: String = foreign(dir.path())
        .query_row("SELECT group_concat(name || ' ' || checksum) FROM refinery_schema_history", [], |row| row.get(0))
        .unwrap();
    let fresh = tempfile::tempdir().unwrap();
    drop(authority_in(fresh.path()));
    let made_new: String = foreign(fresh.path())
        .query_row("SELECT group_concat(name || ' ' || checksum) FROM refinery_schema_history", [], |row| row.get(0))
        .unwrap();
    assert_eq!(history, made_new);
    authority_in(dir.path()).store().trusted().await.unwrap();
}

#[tokio::test]
async fn an_upgraded_store_has_the_schema_of_a_new_one() {
    let (dir, _) = old_store().await;
    drop(authority_in(dir.path()));
    let fresh = tempfile::tempdir().unwrap();
    drop(authority_in(fresh.path()));
    let digest = |dir: &Path| crate::ledger::verify::schema_digest(&foreign(dir)).unwrap();
    assert_eq!(digest(dir.path()), digest(fresh.path()));
}

#[tokio::test]
async fn a_store_that_was_tampered_with_stays_in_its_format_and_opens_for_teardown() {
    let edits = [
        "UPDATE passwords SET source = NULL",
        "DELETE FROM sessions",
        "UPDATE ledger SET detail = '{}' WHERE seq = 3",
        "CREATE TABLE tokens (id TEXT)",
        "UPDATE refinery_schema_history SET version = 2",
    ];
    for edit in edits {
        let (dir, lease) = old_store().await;
        foreign(dir.path()).execute_batch(&format!("PRAGMA foreign_keys = OFF; {edit}")).unwrap();
        assert!(!check(dir.path()).intact(), "{edit}");
        let authority = authority_in(dir.path());
        assert!(matches!(authority.store().trusted().await, Err(StoreError::Damaged(_))), "{edit}");
        assert_eq!(format(dir.path()), 1, "{edit}");
        let mut leases = authority.store().leases(false).await.unwrap();
        assert_eq!(leases, std::slice::from_ref(&lease), "{edit}");
        authority.store().disabled(&mut leases[0], now()).await.unwrap();
        assert!(make_token(&authority).await.is_err(), "{edit}: a store of the first format has no tokens");
        if !edit.contains("tokens") {
            let ended = authority.end_user(&"carol".parse().unwrap(), lease.identity(), None, now()).await.unwrap();
            assert_eq!((ended.grants, ended.tokens), (1, 0), "{edit}");
        }
    }
}

/// The states that a crash can leave: SQLite writes the WAL in order, and a transaction counts from its last frame on.
#[tokio::test]
async fn cut_off_after_any_frame_the_store_is_the_old_one_or_the_new_one() {
    let (dir, _) = old_store().await;
    let keep = tempfile::tempdir().unwrap();
    for name in [FILE, "store.made"] {
        fs::copy(dir.path().join(name), keep.path().join(name)).unwrap();
    }
    let authority = authority_in(dir.path());
    let wal = fs::read(dir.path().join(format!("{FILE}-wal"))).unwrap();
    drop(authority);
    let (head, frame) = (32, 24 + 4096);
    assert!(wal.len() > head + frame, "the upgrade is in the WAL");
    let mut formats = Vec::new();
    let ends = (0..=(wal.len() - head) / frame).flat_map(|n| [head + n * frame, head + n * frame + 100]);
    for end in ends.filter(|end| *end <= wal.len()) {
        let cut = tempfile::tempdir().unwrap();
        for name in [FILE, "store.made"] {
            fs::copy(keep.path().join(name), cut.path().join(name)).unwrap();
        }
        fs::write(cut.path().join(format!("{FILE}-wal")), &wal[..end]).unwrap();
        let verdict = check(cut.path());
        assert!(verdict.intact(), "cut after {end} bytes: {:?}", verdict.faults);
        formats.push(format(cut.path()));
        authority_in(cut.path()).store().trusted().await.unwrap();
        assert_eq!(format(cut.path()), migrations::newest());
    }
    assert!(
        formats.is_sorted() && formats.first() == Some(&1) && formats.last() == Some(&migrations::newest()),
        "{formats:?}"
    );
}

/// Set for the child of the next test: the directory of the store that it opens.
const CHILD: &str = "TIDEGATE_TEST_UPGRADES";

#[test]
fn the_child_that_upgrades() {
    let Some(dir) = std::env::var_os(CHILD) else { return }; // run by itself it has nothing to do
    fs::write(Path::new(&dir).join("begun"), "").unwrap();
    drop(authority_in(Path::new(&dir)));
}

#[tokio::test]
async fn killed_at_any_moment_of_the_upgrade_the_store_is_whole() {
    let (dir, lease) = old_store().await;
    for round in 0..16u32 {
        let copy = tempfile::tempdir().unwrap();
        for name in [FILE, "store.made"] {
            fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
        }
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "store::upgrade_tests::the_child_that_upgrades"]).env(CHILD, copy.path());
        let mut child = child.stdout(std::process::Stdio::null()).spawn().unwrap();
        while !copy.path().join("begun").exists() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        // Any moment is a right one: they only have to differ.
        std::thread::sleep(Duration::from_micros(u64::from(round) * 900));
        child.kill().unwrap();
        child.wait().unwrap();
        let verdict = check(copy.path());
        assert!(verdict.intact(), "round {round}: {:?}", verdict.faults);
        let authority = authority_in(copy.path());
        authority.store().trusted().await.unwrap();
        assert_eq!(authority.store().leases(false).await.unwrap(), std::slice::from_ref(&lease));
        assert_eq!(format(copy.path()), migrations::newest());
    }
}
