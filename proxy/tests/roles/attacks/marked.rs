//! The mark that every session's role carries, code that needs no function, and what is too much to compare.

use super::Attack;

#[tokio::test]
async fn the_mark_is_no_role_to_work_as_or_shows_that_somebody_did() {
    for (done, what, item) in [
        ("select lo_from_bytea(777002, 'loot')", "made while it lived: objects of group roles", "777002"),
        (
            "alter default privileges grant all on tables to public",
            "changed while it lived: default privileges",
            "tidegate_sessions",
        ),
        ("alter role tidegate_sessions set work_mem = '1MB'", "changed while it lived: settings", "tidegate_sessions"),
    ] {
        let attack = Attack::by("write", "").await;
        if attack.version() >= 16 {
            attack.cannot("set role tidegate_sessions").await;
            attack.leaves_nothing().await;
        } else {
            attack.does(&format!("set role tidegate_sessions; {done}; reset role")).await;
            attack.is_shown(what, item).await;
        }
    }
}

#[tokio::test]
async fn a_trigger_whose_condition_runs_what_is_built_in_is_shown() {
    let attack = Attack::by("write", "grant trigger on app.orders to shop_writer").await;
    attack
        .does("create trigger leak before update on app.orders for each row when (pg_notify('leak', new::text) is null) execute function suppress_redundant_updates_trigger()")
        .await;
    attack.is_shown("made while it lived: code on tables of others", "trigger leak").await;
}

#[tokio::test]
async fn a_trigger_of_an_emptied_function_is_shown_if_its_condition_still_runs() {
    let attack = Attack::by("write", "grant trigger on app.orders to shop_writer").await;
    attack.does("create function app.nop() returns trigger language plpgsql as 'begin return new; end'").await;
    attack
        .does("create trigger leak before update on app.orders for each row when (pg_notify('leak', new::text) is null) execute function app.nop()")
        .await;
    attack.is_shown("made while it lived: code on tables of others", "trigger leak").await;
}

#[tokio::test]
async fn a_view_keeps_its_columns_and_nothing_that_runs() {
    let attack = Attack::by("write", "").await;
    attack.does("create view app.report as select i as n, pg_notify('leak', 'x')::text as said, array['a'::varchar(3)] as l from generate_series(1, 2) i").await;
    attack.leaves_nothing().await;
    assert_eq!(attack.ask("select n is null and said is null and l is null from app.report"), "t");
    let kept = "select definition like '%pg_notify%' from tidegate_attic.routine where was like '%report'";
    assert_eq!(attack.ask(kept), "t");
}

#[tokio::test]
async fn a_default_a_check_or_a_policy_keeps_nothing_that_runs() {
    let attack = Attack::by("write", "").await;
    attack
        .does(
            "create domain app.word as int default lo_create(424242) check (value is null or lo_create(424243) > 0);
             create table app.bait (id serial, kept int default 7 check (kept > 0 and length(kept::text) < 9), at timestamptz default now(),
               said oid default lo_create(424244), w app.word, check (lo_create(424245) is not null));
             create table app.parts (n int default lo_create(424246), check (lo_create(424247) > 0)) partition by list (n);
             create table app.part partition of app.parts default;
             create view app.shown as select id, kept from app.bait; alter view app.shown alter kept set default lo_create(424248);
             alter table app.bait enable row level security; create policy p on app.bait using (lo_create(424249) > 0)",
        )
        .await;
    // Superusers write to each of them in the meantime.
    attack.leaves_nothing().await;
    assert_eq!(attack.ask("select count(*) from pg_largeobject_metadata where oid between 424240 and 424260"), "0");
    assert!(attack.ask("insert into app.bait default values returning id > 0, kept, at = now()").starts_with("t|7|t"));
    assert!(
        attack
            .ask("select string_agg(conname, ' ') from pg_constraint where conrelid = 'app.bait'::regclass")
            .contains("bait_kept_check")
    );
    let texts =
        "select count(*) from tidegate_attic.routine where is_now = 'taken off' and definition like '%lo_create%'";
    assert_eq!(attack.ask(texts), "9", "the partition has its own copy of a default");
}

#[tokio::test]
async fn code_that_the_heir_cannot_take_off_is_shown() {
    let attack = Attack::by("write", "").await;
    attack.does("create table app.mine (n int, constraint c check (lo_create(424250) > 0)); create table app.child () inherits (app.mine)").await;
    // Somebody else's by now: what their parent says cannot be changed without them.
    attack.gate.server.script("shop", "alter table app.child owner to shop_owner;");
    attack.is_shown("left with the heir: code that could not be taken off", "check c of app.mine").await;
}

#[tokio::test]
async fn a_type_that_nobody_may_use_keeps_no_routine_from_being_emptied() {
    let attack = Attack::by("write", "").await;
    attack.does("create type app.tt as enum ('a'); create function app.ff(app.tt) returns int language sql as 'select 1'; revoke usage on type app.tt from public, current_user").await;
    attack.leaves_nothing().await;
}

#[tokio::test]
async fn however_much_there_is_to_compare_a_change_is_shown() {
    let many = "select format('create role \"%s\" nologin', n || repeat('\"\"', 20)) from generate_series(1, 60) n \\gexec\n\
                select format('alter default privileges for role shop_writer grant all on tables to \"%s\"', n || repeat('\"\"', 20)) from generate_series(1, 60) n \\gexec\n";
    let attack = Attack::by("write", many).await;
    if attack.version() >= 16 {
        attack.cannot("set role shop_writer").await;
        return attack.leaves_nothing().await;
    }
    attack.does("set role shop_writer; alter default privileges grant all on tables to public; reset role").await;
    let receipt = attack.torn_down().await.unwrap();
    let shown = |finding: &tidegate_grants::lease::Finding| {
        finding.what == "changed while it lived: default privileges"
            && finding.items.iter().any(|line| line.contains("digest"))
    };
    assert!(!receipt.clean && receipt.findings.iter().any(shown), "{receipt:#?}");
}
