//! Drivers and what is built on them. Each has a script beside this file, which asserts for itself.

use super::{
    super::{node, python::interpreter},
    Databases,
};

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

#[test]
fn node_postgres_works_with_its_pool() {
    let Some(modules) = node::modules("pg") else { return };
    let databases = Databases::start();
    let mut node = databases.command("node");
    node.arg(format!("{}/it/clients/databases/with_pg.js", env!("CARGO_MANIFEST_DIR"))).env("NODE_PATH", modules);
    tidegate_tests::running::run(node, super::LONG).ok();
    databases.assert_nothing_is_left();
}
