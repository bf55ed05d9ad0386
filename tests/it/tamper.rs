//! Somebody with access to the store changes or deletes a row: nothing opens, and `ledger verify` names it.

use rusqlite::Connection;
use std::path::PathBuf;
use tidegate_tests::{World, secs, world::PATIENCE};

/// A world whose every table has rows: grants, sessions, closed leases, a password, a revocation.
fn used() -> World {
    let world = World::start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let revoked = world.gateway.grant("bob", "web-1", "shell", "30m");
    world.gateway.revoke(&revoked);
    world.exec("alice", "true").ok();
    world.psql("alice", "select 1").ok();
    world.gateway.until_no_lease(secs(90));
    world.gateway.until_ledger("session.closed", 2, PATIENCE);
    world.gateway.verify_ledger().ok();
    world
}

fn database(world: &World) -> PathBuf {
    world.gateway.state().join("tidegate.db")
}

/// Tables of state and of the ledger that have rows; what the migrations write about themselves is not state.
fn tables(connection: &Connection) -> Vec<String> {
    let sql = "select name from sqlite_schema where type = 'table' and name not like 'sqlite\\_%' escape '\\'
               and name not like 'refinery%' order by name";
    let mut statement = connection.prepare(sql).unwrap();
    let all: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let rows = |table: &String| {
        connection.query_row(&format!("select count(*) from \"{table}\""), [], |r| r.get::<_, i64>(0)).unwrap() > 0
    };
    all.into_iter().filter(rows).collect()
}

/// Every column of a table that is not a part of its key.
fn columns(connection: &Connection, table: &str) -> Vec<String> {
    let mut statement =
        connection.prepare(&format!("select name from pragma_table_info('{table}') where pk = 0")).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// Changes one column of the first row to something else of the same kind.
fn edit(connection: &Connection, table: &str, column: &str) -> usize {
    let sql = format!(
        "update \"{table}\" set \"{column}\" = case typeof(\"{column}\")
           when 'integer' then \"{column}\" + 1
           when 'blob' then cast(x'00' || substr(\"{column}\", 2) || x'01' as blob)
           when 'null' then 'x' else \"{column}\" || 'x' end
         where rowid = (select min(rowid) from \"{table}\")"
    );
    connection.execute(&sql, []).unwrap_or(0) // a constraint that refuses the change protects it too
}

fn open(world: &World) -> Connection {
    let connection = Connection::open(database(world)).unwrap();
    connection.busy_timeout(secs(20)).unwrap();
    connection.execute_batch("pragma foreign_keys = off").unwrap();
    connection
}

/// What `ledger verify` says now, which must not be that all is well.
fn complaint(world: &World, what: &str) -> String {
    let output = world.gateway.verify_ledger();
    assert_eq!(output.code, Some(1), "{what}: not found by `ledger verify`: {}", output.out());
    output.out() + &output.err()
}

#[test]
fn every_edited_column_of_every_table_is_found_and_named() {
    let mut world = used();
    world.gateway.terminate();
    let path = database(&world);
    Connection::open(&path).unwrap().query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(())).unwrap();
    let backup = std::fs::read(&path).unwrap();
    let names = tables(&open(&world));
    assert!(names.len() >= 5, "grants, sessions, leases, passwords, ledger: {names:?}");
    for table in names {
        let names = columns(&open(&world), &table);
        for column in names {
            let connection = open(&world);
            let changed = edit(&connection, &table, &column);
            drop(connection);
            if changed > 0 {
                let said = complaint(&world, &format!("{table}.{column}"));
                let short = table.trim_end_matches('s');
                assert!(said.to_lowercase().contains(short), "{table}.{column} is not named: {said}");
            }
            restore(&path, &backup);
        }
    }
    world.gateway.verify_ledger().ok();
}

#[test]
fn a_deleted_row_of_every_table_is_found_and_named() {
    let mut world = used();
    world.gateway.terminate();
    let path = database(&world);
    Connection::open(&path).unwrap().query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(())).unwrap();
    let backup = std::fs::read(&path).unwrap();
    let names = tables(&open(&world)); // the connection must be closed before files are put back
    for table in names {
        for which in ["min", "max"] {
            let connection = open(&world);
            let sql = format!("delete from \"{table}\" where rowid = (select {which}(rowid) from \"{table}\")");
            assert_eq!(connection.execute(&sql, []).unwrap(), 1);
            drop(connection);
            let said = complaint(&world, &format!("{which} of {table}"));
            let short = table.trim_end_matches('s');
            assert!(said.to_lowercase().contains(short), "{which} of {table} is not named: {said}");
            restore(&path, &backup);
        }
    }
    world.gateway.verify_ledger().ok();
}

fn restore(path: &std::path::Path, backup: &[u8]) {
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(format!("{}{suffix}", path.display())).ok();
    }
    std::fs::write(path, backup).unwrap();
}

/// Under the running gateway, and again after a restart: nothing opens.
fn nothing_opens_after(sql: &str) {
    let mut world = used();
    world.exec("alice", "echo before").ok();
    world.gateway.until_no_lease(secs(90));
    let password = world.password("alice", "orders");
    assert!(open(&world).execute(sql, []).unwrap() > 0, "{sql}");
    let refused = |world: &World| {
        let output = world.exec("alice", "echo never");
        assert_ne!(output.code, Some(0), "{}", output.out());
        assert!(output.err().contains("ledger verify"), "{}", output.err());
        let command = world.psql_command(&world.conninfo("alice", "orders/shop"), &password, &["-c", "select 'never'"]);
        tidegate_tests::running::run(command, PATIENCE).exited(2);
    };
    refused(&world);
    world.gateway.assert_alive();
    world.gateway.terminate();
    world.gateway.start();
    refused(&world);
    complaint(&world, sql);
}

#[test]
fn nothing_opens_after_a_grant_was_edited() {
    nothing_opens_after("update grants set exp = exp + 1000 where rowid = (select min(rowid) from grants)");
}

#[test]
fn nothing_opens_after_a_grant_was_deleted() {
    nothing_opens_after("delete from grants where rowid = (select min(rowid) from grants)");
}

#[test]
fn nothing_opens_after_a_session_was_deleted() {
    nothing_opens_after("delete from sessions where rowid = (select min(rowid) from sessions)");
}

#[test]
fn nothing_opens_after_the_end_of_the_ledger_was_cut_off() {
    nothing_opens_after("delete from ledger where rowid = (select max(rowid) from ledger)");
}
