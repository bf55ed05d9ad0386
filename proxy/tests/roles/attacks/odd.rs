//! What a session makes so odd that it cannot be emptied, moved or dropped like the rest: it stops nothing else, and what is left of it
//! is shown.

use super::{Attack, TRIGGER_SPY};
use crate::gate::is_unreachable;
use tidegate_proxy::issuer::Teardown;

/// What is written if one of its own built-in functions runs.
const LOOT: &str = "select count(*) from pg_largeobject_metadata where oid between 424240 and 424299";

/// Superusers do to views what one does to tables.
const WRITES: &str = "do $$ declare act text; name text; begin
    foreach name in array array['app.v', 'app.w', 'app.x'] loop
      foreach act in array array['select * from %s', 'insert into %s values (1)', 'update %s set a = 2', 'delete from %s'] loop
        begin execute format(act, name); exception when others then null; end;
      end loop;
    end loop;
  end $$";

#[tokio::test]
async fn a_view_of_any_collation_domain_or_type_keeps_nothing_that_runs() {
    let attack =
        Attack::by("write", "create collation app.odd from \"C\"; grant usage on schema app to shop_writer").await;
    attack.does("create domain app.word as varchar(3); create type app.pair as (a int, b text)").await;
    let columns = "lo_create(424240)::text collate \"C\" as c, 'x'::varchar(3) collate app.odd as o, 'n'::name as n, 'c'::\"char\" as h, \
         'b'::char(4) as b, 'abc'::app.word as w, '1s'::interval second(2) as i, 1.5::numeric(7, 2) as m, '101'::varbit(5) as v, \
         row(1, 'a')::app.pair as p, array['a'::varchar(3)] as l, array['x'::app.word] as d, array['t' collate \"C\"] as t, \
         int4range(1, 2) as r, now()::timestamptz(3) as s, 'r'::regclass::oid as \"$1 \"\" {FUNCEXPR x\", null as u";
    attack
        .does(&format!(
            "create view app.v with (security_barrier) as select {}",
            columns.replace("'r'::", "'pg_class'::")
        ))
        .await;
    attack
        .does(
            "create view app.w with (check_option = cascaded) as select * from app.orders where lo_create(424241) > 0",
        )
        .await;
    attack.does("create view app.x as select").await;
    attack.leaves_nothing().await;
    attack.ask("select count(*) from app.v");
    assert_eq!(attack.ask(LOOT), "0");
    let columns = "select string_agg(a.attcollation::regcollation::text, ' ' order by attnum) from pg_attribute a \
                   where attrelid = 'app.v'::regclass and attname in ('c', 'o', 't')";
    assert_eq!(attack.ask(columns), "\"C\" app.odd \"C\"");
}

#[tokio::test]
async fn rules_and_triggers_of_a_view_run_nothing() {
    let attack = Attack::by("write", "").await;
    attack.does(TRIGGER_SPY).await;
    for (view, event) in [("v", "insert"), ("w", "update"), ("x", "delete")] {
        attack.does(&format!("create view app.{view} as select 1 as a")).await;
        attack.does(&format!("create rule r as on {event} to app.{view} do instead select lo_create(424250)")).await;
    }
    attack.does("create view app.y as select 1 as a").await;
    attack.does("create trigger i instead of insert on app.y for each row execute function app.fires()").await;
    attack
        .does("create trigger s before insert on app.y for each statement when (lo_create(424251) > 0) execute function app.fires()")
        .await;
    let receipt = attack.torn_down().await.unwrap();
    assert!(receipt.clean, "{receipt:#?}");
    attack.gate.server.try_ask("shop", WRITES);
    attack.gate.server.try_ask("shop", "insert into app.y values (1)");
    assert_eq!(attack.ask(LOOT), "0");
    let kept = "select count(*) from tidegate_attic.routine where definition like '%lo_create%42425%'";
    assert_eq!(attack.ask(kept), "4");
}

#[tokio::test]
async fn a_lock_of_another_session_keeps_a_view_from_being_emptied_for_no_longer_than_it_is_held() {
    let attack = Attack::by("write", "").await;
    attack.does("create view app.v as select lo_create(424260) as a; grant select on app.v to shop_writer").await;
    attack.does("create function app.f() returns int language sql as 'select 1'").await;
    let (other, credential) = attack.gate.minted("write").await;
    let friend = attack.gate.login(&credential).await.unwrap();
    friend.batch_execute("begin; lock table app.v in access share mode").await.unwrap();
    attack.gate.issuer.disable(&attack.lease).await.unwrap();
    let held = attack.gate.issuer.clean(&attack.lease).await;
    assert!(is_unreachable(&held), "it must be tried again: {held:?}");
    assert_eq!(
        attack.ask("select prosrc ~ 'put away' from pg_proc where proowner::regrole::text ~ '^tgq_'"),
        "t",
        "the rest waits for it"
    );
    friend.batch_execute("commit").await.unwrap();
    drop(friend);
    attack.gate.tear_down(&other).await.unwrap();
    attack.leaves_nothing().await;
    attack.ask("select * from app.v");
    assert_eq!(attack.ask(LOOT), "0");
}

#[tokio::test]
async fn odd_routines_are_emptied_like_the_rest() {
    let attack = Attack::by("write", "").await;
    attack.does("create domain app.odd as int; create type app.pair as (a int, b text); create table app.t (a int, gone int)").await;
    attack.does("alter table app.t drop column gone").await;
    let many: Vec<String> = (1..=100).map(|n| format!("a{n} int")).collect();
    for routine in [
        "function app.w() returns int language sql window as 'select 1'",
        "function app.f(a int, out a int) language sql as 'select 1'",
        "function app.f2(a int, out a int, out b int) returns setof record language sql as 'select 1, 2'",
        "function app.f3(a int) returns table (a int) language sql as 'select 1'",
        "function app.f4(\"$2\" int, b int) returns int language sql as 'select 1'",
        "function app.z(int, int) returns int language sql as 'select 1'",
        "procedure app.q(int, inout b int) language sql as 'select 1'",
        "function app.v(variadic int[]) returns int language sql as 'select 1'",
        "function app.n(anyelement default 3, anyarray default '{1}'::int[]) returns anyelement language sql as 'select $1'",
        "function app.r(app.t) returns setof app.t language sql as 'select $1'",
        "function app.d(app.odd, app.pair) returns app.odd language sql as 'select $1'",
        "function app.s() returns int language sql set work_mem from current set search_path = app as 'select 1'",
        "function \"app\".\"Q \"\" ' $$ %I\"(\"%s \"\" '\" int) returns int language sql strict leakproof as 'select 1'",
        "procedure app.atomic(inout a int) begin atomic select 1; end",
        &format!("function app.m({}) returns int language sql as 'select 1'", many.join(", ")),
        "aggregate app.nothing(*) (sfunc = int8inc, stype = int8, initcond = '0')",
        "aggregate app.plain(int) (sfunc = int4larger, stype = int)",
        "aggregate app.several(variadic \"any\") (sfunc = ordered_set_transition_multi, stype = internal, finalfunc = rank_final)",
        "aggregate app.ordered(float8 order by anyelement) (sfunc = ordered_set_transition, stype = internal, finalfunc = percentile_disc_final, finalfunc_extra)",
        "aggregate app.hypothetical(variadic \"any\" order by variadic \"any\") (sfunc = ordered_set_transition_multi, stype = internal, finalfunc = rank_final, hypothetical)",
    ] {
        // Not every version has each of them.
        attack.tries(&format!("create {}", routine.replace(" leakproof", ""))).await;
    }
    attack.tries("create procedure app.p(int, out b int) language sql as 'select 1'").await;
    attack.tries("create procedure app.z(int, out int) language sql as 'select 1'").await;
    attack.does("create function app.last() returns int language sql as 'select 1'").await;
    attack
        .does("create function app.neg(int) returns int language sql as 'select 1'")
        .await
        .does("create operator app.!! (rightarg = int, function = app.neg)")
        .await;
    attack.leaves_nothing().await;
    let left = "select count(*) from pg_proc p join pg_namespace n on n.oid = pronamespace where nspname = 'app'";
    assert_eq!(attack.ask(left), "0");
    let said = "select string_agg(prosrc, ' ') from pg_proc where pronamespace = 'tidegate_attic'::regnamespace and prokind <> 'a' and prosrc !~ 'put away by tidegate'";
    assert_eq!(attack.ask(said), "");
}

#[tokio::test]
async fn a_routine_that_cannot_be_emptied_holds_the_lease_and_stops_nothing_else() {
    let attack = Attack::by(
        "write",
        "create schema theirs; create type theirs.t as enum ('a'); grant usage on schema theirs to shop_writer",
    )
    .await;
    attack.does("create function app.mine(theirs.t) returns int language sql security definer as 'select lo_create(424270)::int'").await;
    attack.does("create function app.a() returns int language sql as 'select 1'; create view app.v as select lo_create(424271) as a").await;
    attack.does("create function app.z() returns int language sql as 'select 1'").await;
    // Its name cannot be said any more.
    attack.gate.server.script("shop", "revoke usage on schema theirs from shop_writer;");
    attack.is_shown("left with the heir: code that could not be taken off", "(theirs.t)").await;
    let put_away = "select pronamespace::regnamespace, prosecdef, proacl::text !~ ',' from pg_proc where pg_get_function_identity_arguments(oid) = 'theirs.t'";
    assert_eq!(attack.ask(put_away), "tidegate_attic|f|t");
    assert_eq!(
        attack.ask("select count(*) from pg_proc where prosrc ~ 'put away by tidegate' and pronamespace = 'tidegate_attic'::regnamespace"),
        "3",
        "and what the human did"
    );
    assert_eq!(attack.ask(LOOT), "0");
}

#[tokio::test]
async fn temporary_things_of_every_kind_of_a_crashed_backend_are_dropped() {
    for entitlement in ["write", "scratch"] {
        let attack = Attack::by(entitlement, "grant create on database shop to shop_writer").await;
        attack.does("create table app.t (a int, b int); create schema mine; create extension hstore schema mine").await;
        for made in [
            "statistics pg_temp.s on a, b from app.t",
            "table pg_temp.identity (id int generated always as identity, n serial)",
            "table pg_temp.parent (a int) partition by list (a); create table pg_temp.child partition of parent default",
            "sequence pg_temp.q",
            "view pg_temp.v as select 1 as a",
            "domain pg_temp.d as int; create type pg_temp.e as enum ('a'); create type pg_temp.c as (a int); create type pg_temp.r as range (subtype = float8)",
            "function pg_temp.f(pg_temp.d) returns int language sql as 'select 1'",
            "procedure pg_temp.p(inout a int) language sql as 'select 1'",
            "aggregate pg_temp.nothing(*) (sfunc = int8inc, stype = int8, initcond = '0')",
            "aggregate pg_temp.o(float8 order by anyelement) (sfunc = ordered_set_transition, stype = internal, finalfunc = percentile_disc_final, finalfunc_extra)",
            "operator pg_temp.+ (leftarg = pg_temp.e, rightarg = pg_temp.e, function = enum_larger)",
            "operator pg_temp.!! (rightarg = int4, function = int4um)",
            "collation pg_temp.l from \"C\"",
            "conversion pg_temp.conv for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8",
            "text search configuration pg_temp.tsc (copy = pg_catalog.english)",
            "text search dictionary pg_temp.tsd (template = pg_catalog.simple)",
            "cast (pg_temp.d as text) with inout",
            "table pg_temp.\"x\"\"; drop table app.t; --\" (a int)",
        ] {
            attack.tries(&format!("create {made}")).await;
        }
        attack.does("create table pg_temp.member (a int); alter extension hstore add table pg_temp.member").await;
        let left = "select count(*) from pg_shdepend s, pg_identify_object(s.classid, s.objid, 0) i \
                    where s.deptype = 'o' and s.dbid <> 0 and i.schema ~ '^pg_temp_'";
        assert!(attack.ask(left).parse::<u32>().unwrap() >= 18, "or nothing is tried here");
        attack.gate.server.crash(&attack.ask("select pid from pg_stat_activity where usename ~ '^tg_'"));
        // A connection of the gateway that it kept may have ended with the server.
        attack.gate.issuer.disable(&attack.lease).await.ok();
        attack.leaves_nothing().await;
        assert_eq!(attack.ask(left), "0");
        assert_eq!(
            attack.ask("select count(*) from pg_class where relname = 't'"),
            if entitlement == "write" { "1" } else { "0" }
        );
    }
}

#[tokio::test]
async fn an_operator_that_calls_itself_put_away_is_put_away() {
    let attack = Attack::by("write", "").await;
    attack.does("create operator public.@!@ (leftarg = int4, rightarg = int8, function = pg_catalog.int48pl)").await;
    attack.does("comment on operator public.@!@ (int4, int8) is 'put away'").await;
    attack.leaves_nothing().await;
    assert_eq!(attack.ask("select count(*) from pg_operator where oprnamespace = 'public'::regnamespace"), "0");
}

#[tokio::test]
async fn casts_and_members_of_extensions_keep_no_leftovers_from_being_dropped() {
    let before =
        "grant create on database shop to shop_writer; create extension hstore; create table app.log (h hstore)";
    let attack = Attack::by("scratch", before).await;
    attack.does("create type app.e as enum ('a'); create domain app.d as text; create type app.c as (a int)").await;
    attack.does("create function app.f(app.c) returns int language sql as 'select 1'").await;
    attack.does("create cast (app.e as int) with inout; create cast (app.c as int) with function app.f(app.c)").await;
    attack.does("create cast (int8 as app.e) with inout as assignment").await;
    attack.does("create schema mine; create extension citext schema mine; create table app.t (a int); alter extension citext add table app.t").await;
    attack.leaves_nothing().await;
    assert_eq!(
        attack.ask(
            "select count(*) from pg_type where typname in ('e', 'd', 'c') and typnamespace = 'app'::regnamespace"
        ),
        "0"
    );
}

/// With INHERIT a member of the owning group may do what the owner may.
const GROUPS: &str = "create function app.guard() returns trigger language plpgsql as 'begin return new; end'; \
    alter function app.guard() owner to shop_writer; create trigger guard before insert on app.orders for each row execute function app.guard(); \
    create domain app.amount as int; alter domain app.amount owner to shop_writer; create type app.state as enum ('a'); alter type app.state owner to shop_writer";

#[tokio::test]
async fn a_groups_routine_that_says_something_else_now_is_shown() {
    let attack = Attack::by("write", GROUPS).await;
    attack.does("create or replace function app.guard() returns trigger language plpgsql as 'begin perform lo_create(424280); return new; end'").await;
    attack.is_shown("made or changed while it lived: routines of group roles", "app.guard()").await;
}

#[tokio::test]
async fn code_on_a_groups_domain_or_between_its_types_is_shown() {
    for (done, item) in [
        ("alter domain app.amount add constraint c check (lo_create(424281) > 0)", "constraint c"),
        ("alter domain app.amount set default lo_create(424282)", "type app.amount"),
        ("create cast (app.state as bytea) with inout as implicit", "cast from app.state to bytea"),
    ] {
        let attack = Attack::by("write", GROUPS).await;
        attack.does(done).await;
        attack.is_shown("made while it lived: code on tables of others", item).await;
    }
}

#[tokio::test]
async fn user_mappings_of_a_server_that_it_left_lead_nowhere() {
    let attack = Attack::by(
        "write",
        "create extension postgres_fdw; grant usage on foreign data wrapper postgres_fdw to shop_writer",
    )
    .await;
    let socket = attack.ask("show unix_socket_directories");
    let port = attack.gate.server.port;
    attack.does(&format!("create server back foreign data wrapper postgres_fdw options (host '{socket}', port '{port}', dbname 'shop')")).await;
    attack.does("create user mapping for public server back options (user 'postgres')").await;
    attack
        .does("create foreign table app.there (id int) server back options (schema_name 'app', table_name 'orders')")
        .await;
    attack.cannot("select * from app.there").await;
    assert_eq!(attack.ask("select count(*) from app.there"), "0", "a superuser gets there, as a superuser");
    attack.leaves_nothing().await;
    assert_eq!(attack.ask("select count(*) from pg_user_mapping"), "0");
}
