//! Things of kinds that few sessions make, and things in the way of other owners.

use super::{Attack, SPY};

#[tokio::test]
async fn large_objects_in_two_databases_go_to_the_heir() {
    let attack = Attack::by("wide", "").await;
    let there = attack.gate.login_to(&attack.credential, "stock").await.unwrap();
    attack.does("select lo_from_bytea(0, 'a') from generate_series(1, 700)").await;
    there.batch_execute("select lo_from_bytea(0, 'b') from generate_series(1, 700)").await.unwrap();
    attack.leaves_nothing().await;
    for database in ["shop", "stock"] {
        let owners =
            "select count(*), count(*) filter (where lomowner::regrole::text ~ '^tgq_') from pg_largeobject_metadata";
        assert_eq!(attack.gate.server.ask(database, owners), "700|700");
    }
}

#[tokio::test]
async fn a_large_object_in_template1_says_what_to_do() {
    let attack = Attack::by("write", "").await;
    let role = attack.lease.name();
    // It cannot get there: pg_hba.conf names the databases. Somebody put another line first, once.
    attack.gate.server.script("template1", &format!("set session authorization {role}; select lo_create(4711);"));
    attack.waits_for_a_human("database template1").await;
    attack.gate.server.script("template1", "select lo_unlink(4711);");
    attack.leaves_nothing().await;
}

#[tokio::test]
async fn objects_of_every_other_kind_go_to_the_heir() {
    let before = "grant create on database shop to shop_writer; create foreign data wrapper w; grant usage on foreign data wrapper w to shop_writer";
    let attack = Attack::by("write", before).await;
    for made in [
        "create collation app.c from \"C\"",
        "create text search configuration app.tsc (copy = pg_catalog.english)",
        "create text search dictionary app.tsd (template = pg_catalog.simple)",
        "create default conversion app.conv for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8",
        "create type app.e as enum ('a'); create type app.r as range (subtype = float8); create type app.comp as (a int)",
        "create domain app.dom as text",
        "create table app.t (a int, b int, id int generated always as identity); create statistics app.st on a, b from app.t",
        "create table app.p (a int) partition by range (a); create table app.p1 partition of app.p for values from (0) to (9)",
        "create sequence app.s; create table app.owned (id serial)",
        "create publication pub for table app.t",
        "create server srv foreign data wrapper w options (host 'evil'); create user mapping for current_user server srv",
        "create user mapping for shop_reader server srv options (password 'x'); create user mapping for public server srv",
        "create foreign table app.ft (a int) server srv",
        "create schema mine; create operator family mine.f using btree",
        "create extension hstore schema mine",
    ] {
        // Operator families are a superuser's, from the beginning.
        if !made.contains("family") {
            attack.does(made).await;
        } else {
            attack.does("create schema mine").await.cannot("create operator family mine.f using btree").await;
        }
    }
    attack.leaves_nothing().await;
    let foreign = "select count(*) from pg_class where relnamespace in ('app'::regnamespace, 'mine'::regnamespace) and relowner::regrole::text !~ '^(tgq_|shop_owner|postgres)'";
    assert_eq!(attack.ask(foreign), "0");
}

#[tokio::test]
async fn dropped_leftovers_of_every_kind_are_gone() {
    let before = "grant create on database shop to shop_writer; create foreign data wrapper w; grant usage on foreign data wrapper w to shop_writer";
    let attack = Attack::by("scratch", before).await;
    attack.does(SPY).await;
    attack.does("create schema mine; create extension hstore schema mine; create table mine.t (h mine.hstore, n int default app.spy())").await;
    attack.does("create publication pub for table mine.t; create server srv foreign data wrapper w; create text search configuration app.t (copy = english)").await;
    attack.does("select lo_create(0); create view app.v as table mine.t; create type app.e as enum ('a'); create table app.u (e app.e)").await;
    attack.leaves_nothing().await;
    let left = "select count(*) from pg_class c join pg_namespace n on n.oid = relnamespace where nspname in ('app', 'mine') and relname not in ('orders')";
    assert_eq!(attack.ask(left), "0");
    assert_eq!(attack.ask("select count(*) from pg_roles where rolname ~ '^tgq?_'"), "0");
}

#[tokio::test]
async fn foreign_keys_and_children_need_the_other_owner() {
    let attack = Attack::by("write", "alter table app.orders add primary key (id); create table app.parts (a int) partition by list (a); alter table app.parts owner to shop_owner").await;
    attack.does("create table app.ref (id int references app.orders)").await;
    attack.cannot("create table app.child () inherits (app.orders)").await;
    attack.cannot("create table app.part partition of app.parts default").await;
    attack.cannot("create policy p on app.orders using (true)").await;
    attack.cannot("create rule r as on insert to app.orders do also select 1").await;
    attack.cannot("alter table app.orders add check (id > 0)").await;
    attack.cannot("alter table app.orders alter id set default 1").await;
    attack.cannot("alter table app.orders disable trigger all").await;
    attack.leaves_nothing().await;
}

/// With INHERIT a member of the owning group may do what the owner may.
const GROUPS_TABLE: &str =
    "create table app.ours (id int); alter table app.ours owner to shop_writer; insert into app.ours values (1)";

#[tokio::test]
async fn a_policy_on_a_groups_table_with_its_function_is_shown() {
    let attack = Attack::by("write", GROUPS_TABLE).await;
    attack
        .does(SPY)
        .await
        .does("create policy p on app.ours using (app.spy() = 1); alter table app.ours enable row level security")
        .await;
    attack.is_shown("on tables of others: uses what the session left", "policy p on table app.ours").await;
}

#[tokio::test]
async fn a_default_and_a_check_of_a_groups_table_with_its_function_are_shown() {
    let attack = Attack::by("write", GROUPS_TABLE).await;
    attack.does(SPY).await.does("alter table app.ours alter id set default app.spy(), add check (app.spy() = 1)").await;
    attack.does("create index on app.ours (id); alter table app.ours add column t app.orders").await;
    attack.is_shown("on tables of others: uses what the session left", "default value").await;
}

#[tokio::test]
async fn a_child_of_a_groups_table_is_shown() {
    let attack = Attack::by("write", GROUPS_TABLE).await;
    attack
        .does(super::TRIGGER_SPY)
        .await
        .does("create table app.child () inherits (app.ours); insert into app.child values (5)")
        .await;
    attack.does("create trigger t before delete on app.child for each row execute function app.fires()").await;
    attack.is_shown("children of tables of others", "app.child of app.ours").await;
}

#[tokio::test]
async fn a_schema_named_like_a_role_is_shown() {
    let attack = Attack::by("write", "grant create on database shop to shop_writer").await;
    attack.does("create schema postgres; create view postgres.orders as select 1 as id").await;
    let body = "begin raise log ''CANARY runs as %'', current_user; return ''x''; end";
    attack
        .does(&format!("create function postgres.format(text, text) returns text language plpgsql as '{body}'"))
        .await;
    attack.is_shown("schemas that come first for the role of their name", "postgres").await;
}

#[tokio::test]
async fn dblink_and_foreign_servers_do_not_lead_past_the_gate() {
    let before = "create extension dblink; create extension postgres_fdw; grant usage on foreign data wrapper postgres_fdw to shop_writer; \
                  alter role shop_writer password 'known'; alter role shop_writer login";
    let attack = Attack::by("write", before).await;
    let (role, port) = (attack.lease.name(), attack.gate.server.port);
    attack.does("alter role current_user password 'mine'").await;
    attack.cannot("select dblink_exec('dbname=shop', 'create role mine')").await;
    attack
        .cannot(&format!(
            "select dblink_connect('hostaddr=127.0.0.1 port={port} dbname=shop user={role} password=mine')"
        ))
        .await;
    attack.does(&format!("create server back foreign data wrapper postgres_fdw options (hostaddr '127.0.0.1', port '{port}', dbname 'shop')")).await;
    attack
        .does(&format!("create user mapping for current_user server back options (user '{role}', password 'mine')"))
        .await;
    attack.does("create foreign table app.orders_there (id int) server back options (schema_name 'app', table_name 'orders')").await;
    attack.cannot("select * from app.orders_there").await;
    attack.cannot("alter user mapping for current_user server back options (add password_required 'false')").await;
    attack.leaves_nothing().await;
}

#[tokio::test]
async fn what_lives_only_with_the_connection_ends_with_it() {
    let attack = Attack::by("write", "").await;
    attack.does(SPY).await;
    attack
        .does("create temp table t (id int default app.spy()) on commit delete rows; create temp table orders (id int)")
        .await;
    attack.does("create function pg_temp.f() returns int language sql as 'select 1'; create temp view v as select app.spy()").await;
    attack
        .does("listen news; notify news, 'hello'; select pg_advisory_lock(1); select pg_advisory_lock_shared(2)")
        .await;
    attack.does("begin; declare held cursor with hold for select app.spy() from generate_series(1, 10); commit").await;
    attack.does("create table app.mine (id int); prepare p as select app.spy(); begin; lock table app.mine in access exclusive mode").await;
    attack.leaves_nothing().await;
    assert_eq!(attack.ask("select count(*) from pg_locks where locktype = 'advisory'"), "0");
    assert_eq!(attack.ask("select count(*) from pg_class where relpersistence = 't'"), "0");
}
