//! Code that a session leaves in the way of others.

use super::{Attack, SPY, TRIGGER_SPY};
use crate::gate::Gate;
use tidegate_proxy::issuer::{Issuer, Teardown};

#[tokio::test]
async fn format_in_public_is_nobodys_format() {
    let attack = Attack::by("write", "").await;
    let body = "begin raise log ''CANARY runs as %'', current_user; return ''x''; end";
    for argument in ["text", "name", "regprocedure", "oid", "int"] {
        let planted =
            format!("create function public.format(f text, a {argument}) returns text language plpgsql as '{body}'");
        attack.does(&planted).await;
    }
    attack.does(&format!("create function public.lower(a text) returns text language plpgsql as '{body}'")).await;
    attack.leaves_nothing().await;
    assert_eq!(attack.ask("select count(*) from pg_proc where pronamespace = 'public'::regnamespace"), "0");
}

#[tokio::test]
async fn operators_in_public_are_nobodys_operators() {
    let attack = Attack::by("write", "").await;
    let body = "begin raise log ''CANARY runs as %'', current_user; return true; end";
    for (name, left, right) in
        [("=", "name", "text"), ("<>", "\"char\"", "text"), ("~", "name", "text"), ("=", "oid", "int4")]
    {
        let function = format!("create function public.op({left}, {right}) returns bool language plpgsql as '{body}'");
        let operator =
            format!("create operator public.{name} (leftarg = {left}, rightarg = {right}, function = public.op)");
        attack.tries(&function).await;
        attack.does(&operator).await;
    }
    attack.leaves_nothing().await;
    assert_eq!(attack.ask("select count(*) from pg_operator where oprnamespace = 'public'::regnamespace"), "0");
}

#[tokio::test]
async fn a_trigger_on_somebody_elses_table_fires_without_effect() {
    let attack = Attack::by("write", "").await;
    attack.does(TRIGGER_SPY).await;
    attack.does("alter function app.fires() security definer").await;
    attack
        .does("create trigger a before insert or update on app.orders for each row execute function app.fires()")
        .await;
    attack.does("create constraint trigger z after insert on app.orders deferrable initially deferred for each row execute function app.fires()").await;
    attack.leaves_nothing().await;
    assert_eq!(attack.ask("insert into app.orders values (7) returning id"), "7");
}

#[tokio::test]
async fn triggers_of_tables_and_views_left_behind_do_not_fire() {
    let attack = Attack::by("write", "").await;
    attack.does(TRIGGER_SPY).await.does("create table app.t (id int default 1)").await;
    attack.does("create trigger a before insert or delete on app.t for each row execute function app.fires()").await;
    attack.does("alter table app.t enable always trigger a").await;
    attack.does("insert into app.t values (2); create view app.v as table app.t").await;
    attack
        .does("create trigger a instead of insert or delete on app.v for each row execute function app.fires()")
        .await;
    attack.leaves_nothing().await;
    assert_eq!(attack.ask("select count(*) from app.t where id = 2"), "0", "the bystander deleted what it saw");
}

#[tokio::test]
async fn a_view_that_a_superuser_looks_into_runs_nothing() {
    let attack = Attack::by("write", "").await;
    attack.does(SPY).await.does("create view app.report as select app.spy() as n").await;
    attack.does("create view public.items as select app.spy() as n").await;
    attack.leaves_nothing().await;
    let definition = attack.ask("select definition from tidegate_attic.routine where was like 'app.spy(%'");
    assert!(definition.contains("CANARY"), "what it said is lost: {definition}");
}

#[tokio::test]
async fn a_materialized_view_that_is_refreshed_runs_nothing() {
    let attack = Attack::by("write", "").await;
    attack.does(SPY).await.does("create materialized view app.m as select app.spy() as n").await;
    attack.leaves_nothing().await;
}

#[tokio::test]
async fn an_index_function_is_not_run_by_analyze() {
    let attack = Attack::by("write", "").await;
    let function = "create function app.f(int) returns int immutable language plpgsql as \
                    'begin raise log ''CANARY runs as %'', current_user; return $1; end'";
    attack
        .does(function)
        .await
        .does("create table app.t (id int); insert into app.t select generate_series(1, 500)")
        .await;
    attack.does("create index on app.t (app.f(id)); create index on app.t (id) where app.f(id) > 0").await;
    attack.does("create statistics app.s on (app.f(id)), id from app.t").await;
    attack.leaves_nothing().await;
}

#[tokio::test]
async fn defaults_checks_generated_columns_and_domains_run_nothing() {
    let attack = Attack::by("write", "").await;
    attack.does(SPY).await;
    let immutable = "create function app.pure(int) returns int immutable language plpgsql as \
                     'begin raise log ''CANARY runs as %'', current_user; return $1; end'";
    attack.does(immutable).await;
    attack.does("create table app.d (id int default app.spy(), check (app.pure(id) > 0))").await;
    attack.does("create table app.g (id int default 1, twice int generated always as (app.pure(id) * 2) stored)").await;
    attack.does("create domain app.word as int default app.spy() check (app.pure(value) > 0)").await;
    attack
        .does("create table app.w (word app.word); insert into app.d default values; insert into app.g default values")
        .await;
    attack.leaves_nothing().await;
}

#[tokio::test]
async fn rules_and_policies_of_what_it_left_run_nothing() {
    let attack = Attack::by("write", "").await;
    attack.does(SPY).await.does("create table app.t (id int default 1); create table app.u (id int default 1)").await;
    attack.does("create rule r as on insert to app.t do also select app.spy()").await;
    attack.does("create rule s as on delete to app.t do instead select app.spy()").await;
    attack.does("alter table app.u enable row level security; alter table app.u force row level security").await;
    attack.does("create policy p on app.u using (app.spy() = 1)").await;
    attack.leaves_nothing().await;
    assert_eq!(attack.ask("select count(*) from pg_rewrite w join pg_class c on c.oid = ev_class where rulename in ('r', 's') and ev_enabled <> 'D'"), "0");
}

#[tokio::test]
async fn casts_between_its_own_types_run_nothing() {
    let attack = Attack::by("write", "").await;
    attack.does("create type app.coin as enum ('a', 'b'); create table app.purse (c app.coin default 'a')").await;
    let cast = "create function app.as_text(app.coin) returns text language plpgsql as \
                'begin raise log ''CANARY runs as %'', current_user; return ''x''; end'";
    attack
        .does(cast)
        .await
        .does("create cast (app.coin as text) with function app.as_text(app.coin) as implicit")
        .await;
    attack.does("create view app.v as select c::text || 'x'::text as t from app.purse").await;
    attack.does("insert into app.purse default values").await;
    attack.cannot("create cast (int4 as text) with function lower(text)").await;
    attack.leaves_nothing().await;
}

#[tokio::test]
async fn aggregates_and_ranges_run_nothing() {
    let attack = Attack::by("write", "").await;
    let step = "create function app.step(int, int) returns int language plpgsql as \
                'begin raise log ''CANARY runs as %'', current_user; return $1; end'";
    attack.does(step).await.does("create aggregate app.sum(int) (sfunc = app.step, stype = int, initcond = '0')").await;
    let differ = "create function app.differ(int, int) returns float8 immutable language plpgsql as \
                  'begin raise log ''CANARY runs as %'', current_user; return 1; end'";
    attack.does(differ).await.does("create type app.span as range (subtype = int, subtype_diff = app.differ)").await;
    attack.does("create table app.spans (s app.span); create index on app.spans using gist (s)").await;
    attack.does("insert into app.spans select app.span(n, n + 2) from generate_series(1, 900) n").await;
    attack.does("create view app.v as select app.sum(id) from app.orders").await;
    attack.leaves_nothing().await;
}

#[tokio::test]
async fn routines_of_every_signature_are_emptied_and_can_be_had_again() {
    let attack = Attack::by("write", "").await;
    attack.does("create type app.pair as (a int, b text); create domain app.odd as int check (value % 2 = 1)").await;
    for routine in [
        "function app.a(int, b text default 'it''s', variadic c int[] default '{}') returns table (x int, y app.pair)",
        "function app.b(inout x anyelement, out y anyarray)",
        "function app.c(\"Q\"\"uoted\" app.pair) returns setof app.odd",
        "function app.d() returns record",
        "function app.e() returns void",
        "function \"app\".\"a b'; drop table app.orders; --\"(app.odd[]) returns app.pair[]",
    ] {
        attack
            .does(&format!(
                "create {routine} language plpgsql as 'begin raise log ''CANARY runs as %'', current_user; end'"
            ))
            .await;
    }
    attack.does("create procedure app.p(inout a int default 3) language sql as 'select 1'").await;
    attack.does("create function app.atomic(int) returns int language sql return $1 + 1").await;
    attack.does("create function app.later(int default app.atomic(1)) returns int language sql as 'select $1' security definer").await;
    attack.leaves_nothing().await;
    assert_eq!(attack.ask("select count(*) from tidegate_attic.routine where definition ~ '^CREATE OR REPLACE'"), "9");
    let said = "select count(*) from pg_proc where pronamespace = 'tidegate_attic'::regnamespace and prosrc !~ 'put away by tidegate'";
    assert_eq!(attack.ask(said), "0");
}

#[tokio::test]
async fn names_that_are_statements_are_names() {
    let attack = Attack::by("write", "grant create on database shop to shop_writer").await;
    let evil = "\"x'; alter role shop_writer superuser; --\"";
    attack.does(&format!("create schema {evil}; create table {evil}.{evil} ({evil} int)")).await;
    attack.does(&format!("create view {evil}.\"%I %s $$ \\\" as table {evil}.{evil}")).await;
    attack.does(&format!("create function {evil}.{evil}({evil} int) returns int language sql as 'select 1'")).await;
    attack
        .does(&format!("create type {evil}.\"t'\"\"\" as enum ('a'); create collation {evil}.{evil} from \"C\""))
        .await;
    attack.does(&format!("create text search configuration {evil}.{evil} (copy = pg_catalog.english)")).await;
    attack.leaves_nothing().await;
}

#[tokio::test]
async fn event_triggers_are_a_superusers() {
    let attack = Attack::by("migrate", "").await;
    attack.does("create function app.ddl() returns event_trigger language plpgsql as 'begin raise log ''CANARY runs as %'', current_user; end'").await;
    attack.cannot("create event trigger mine on ddl_command_start execute function app.ddl()").await;
    attack.leaves_nothing().await;
}

/// Installed by a superuser, with a function that the application's owner may change.
const TRAP: &str = "create function app.ddl() returns event_trigger language plpgsql as 'begin end'; \
                    create event trigger trap on ddl_command_start execute function app.ddl(); \
                    alter event trigger trap enable always";

#[tokio::test]
async fn an_event_trigger_that_a_session_could_change_keeps_sessions_out() {
    let gate = Gate::open();
    gate.server.script("shop", &format!("{TRAP}; alter function app.ddl() owner to shop_owner;"));
    let (permit, lease) = gate.session("migrate").await;
    let refused = gate.issuer.mint(&permit, &lease).await.unwrap_err().to_string();
    assert!(refused.contains("event trigger trap runs app.ddl()"), "{refused}");
}

#[tokio::test]
async fn an_event_trigger_that_became_a_trap_meanwhile_is_not_stepped_into() {
    let attack = Attack::by("migrate", TRAP).await;
    attack.does("set role none; create function pg_temp.mine() returns int language sql as 'select 1'; set role shop_owner; create function app.mine() returns int language sql as 'select 1'").await;
    attack.gate.server.script("shop", "alter function app.ddl() owner to shop_owner;");
    attack.does("set role shop_owner").await;
    attack.does("create or replace function app.ddl() returns event_trigger language plpgsql as 'begin raise log ''CANARY runs as %'', current_user; end'").await;
    // The superuser's own DDL would run it. Ours does not.
    attack.gate.issuer.disable(&attack.lease).await.unwrap();
    let heard = attack.gate.server.log().len();
    let error = attack.gate.issuer.clean(&attack.lease).await.unwrap_err().to_string();
    assert!(error.contains("event trigger trap runs app.ddl()") && error.contains("disable the trigger"), "{error}");
    assert!(!attack.gate.server.log().split_off(heard).contains("CANARY runs as"), "it ran");
    attack.gate.server.script("shop", "alter event trigger trap disable;");
    attack.leaves_nothing().await;
}
