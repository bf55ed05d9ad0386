//! Drivers and what is built on them. Each has a script beside this file, which asserts for itself.

use super::{super::python::interpreter, Databases};
use std::{env, path::PathBuf};

/// One script, and how many sessions it must have had at least.
fn works(name: &str, sessions: usize) {
    let Some(python) = interpreter() else { return };
    let databases = Databases::start();
    databases.script(python, name);
    databases.assert_nothing_is_left();
    let opened = databases.world.gateway.ledger().count("session.opened");
    assert!(opened >= sessions, "{opened} sessions");
}

#[test]
fn psycopg_works_in_all_its_ways() {
    works("with_psycopg.py", 5);
}

#[test]
fn asyncpg_works_with_its_pool() {
    works("with_asyncpg.py", 4);
}

#[test]
fn sqlalchemy_works_with_its_pools() {
    works("with_sqlalchemy.py", 4);
}

#[test]
fn django_migrates_there_and_back() {
    works("with_django.py", 5);
}

/// Where `tests/run` has put node's modules. `None` where they could not be had, outside CI.
fn modules() -> Option<PathBuf> {
    let target = env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
    let modules = env::var_os("TIDEGATE_TEST_NODE_MODULES")
        .map_or_else(|| target.join("clients-node/node_modules"), PathBuf::from);
    if modules.join("pg").exists() {
        return Some(modules);
    }
    assert!(env::var_os("CI").is_none(), "{} is missing: ./tests/run makes it", modules.display());
    eprintln!("SKIPPED: {} is missing; ./tests/run makes it", modules.display());
    None
}

#[test]
fn node_postgres_works_with_its_pool() {
    let Some(modules) = modules() else { return };
    let databases = Databases::start();
    let mut node = databases.command("node");
    node.arg(format!("{}/it/clients/databases/with_pg.js", env!("CARGO_MANIFEST_DIR"))).env("NODE_PATH", modules);
    tidegate_tests::running::run(node, super::LONG).ok();
    databases.assert_nothing_is_left();
}
