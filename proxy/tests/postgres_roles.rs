//! The ephemeral role on a real PostgreSQL: minted, used, disabled, cleaned, removed, looked for.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "roles/attacks/mod.rs"]
mod attacks;
#[path = "roles/gate.rs"]
mod gate;
#[path = "roles/server.rs"]
mod server;

use gate::{Gate, is_held, is_unreachable, issuer, pass};
use std::time::{Duration, Instant};
use tidegate_grants::{Lease, Receipt};
use tidegate_proxy::issuer::{ELSEWHERE, Issuer, TARGET_DEADLINE, TargetError, Teardown};

async fn torn_down(issuer: &impl Teardown, lease: &Lease) -> Receipt {
    issuer.disable(lease).await.unwrap();
    issuer.clean(lease).await.unwrap();
    issuer.inspect(lease).await.unwrap()
}

fn found(receipt: &Receipt, what: &str) -> u64 {
    receipt.findings.iter().find(|finding| finding.what == what).unwrap_or_else(|| panic!("{receipt:?}")).found
}

#[tokio::test]
async fn a_session_leaves_nothing_but_its_heir() {
    let gate = Gate::open();
    let (lease, credential) = gate.minted("write").await;
    assert!(credential.settings.is_empty());
    let comment =
        gate.server.ask("shop", &format!("select shobj_description('{}'::regrole, 'pg_authid')", lease.name()));
    assert_eq!(comment, format!("tidegate gate lease {} session {}", lease.id(), lease.session()));

    let plain = gate.login(&credential).await.unwrap();
    let other = gate.login(&credential).await.unwrap();
    plain
        .batch_execute("create table app.mine (id serial primary key); insert into app.mine default values")
        .await
        .unwrap();
    plain
        .batch_execute(
            "create function app.boom() returns trigger language plpgsql security definer as 'begin raise exception ''boom''; end'; \
             create trigger boom before insert on app.orders for each row execute function app.boom(); \
             create view app.seen as select * from app.mine; select lo_create(0); grant select on app.mine to public; \
             begin; create table app.prepared (); prepare transaction 'it''s mine'",
        )
        .await
        .unwrap();
    // From 16 on a membership says whether it lets one become the group, and ours does not.
    let became = other.batch_execute("set role shop_writer").await;
    assert_eq!(became.is_ok(), gate.server.version() < 16, "{became:?}");

    gate.issuer.disable(&lease).await.unwrap();
    assert!(plain.simple_query("select 1").await.is_err(), "its session went on");
    assert!(other.simple_query("select 1").await.is_err(), "its session under SET ROLE went on");
    assert!(gate.login(&credential).await.is_err(), "it can still log in");
    gate.issuer.clean(&lease).await.unwrap();
    let receipt = gate.issuer.inspect(&lease).await.unwrap();
    assert!(receipt.clean, "{receipt:?}");

    let heir = lease.name().replacen("tg_", "tgq_", 1);
    assert_eq!(gate.server.ask("shop", "select relowner::regrole from pg_class where relname = 'mine'"), heir);
    assert_eq!(gate.server.ask("shop", "select count(*) from app.mine"), "1");
    assert_eq!(gate.server.ask("shop", "insert into app.orders values (7) returning id"), "7");
    assert_eq!(gate.server.ask("shop", &format!("select rolcanlogin from pg_roles where rolname = '{heir}'")), "f");
    assert_eq!(gate.server.ask("shop", "select count(*) from pg_roles where rolname ~ '^tg_'"), "0");
    assert_eq!(found(&receipt, "heir"), 1);
    // All of it again: nothing changes, nothing fails.
    assert!(torn_down(&gate.issuer, &lease).await.clean);
}

#[tokio::test]
async fn with_an_owner_objects_are_the_owners_and_no_heir_is_needed() {
    let gate = Gate::open();
    let (lease, credential) = gate.minted("migrate").await;
    let client = gate.login(&credential).await.unwrap();
    client.batch_execute("create table app.invoices (id int)").await.unwrap();
    let receipt = torn_down(&gate.issuer, &lease).await;
    assert!(receipt.clean, "{receipt:?}");
    assert_eq!(
        gate.server.ask("shop", "select relowner::regrole from pg_class where relname = 'invoices'"),
        "shop_owner"
    );
    assert_eq!(gate.server.ask("shop", "select count(*) from pg_roles where rolname ~ '^tgq?_'"), "0");
}

#[tokio::test]
async fn what_a_session_changed_of_a_role_that_it_could_become_holds_the_lease() {
    let gate = Gate::open();
    let (lease, credential) = gate.minted("migrate").await;
    let client = gate.login(&credential).await.unwrap();
    client.batch_execute("alter default privileges grant select on tables to public").await.unwrap();
    client.batch_execute("begin; create table app.later (); prepare transaction 'later'").await.unwrap();
    let receipt = torn_down(&gate.issuer, &lease).await;
    assert!(!receipt.clean);
    assert_eq!(found(&receipt, "changed while it lived: default privileges"), 1);
    assert_eq!(found(&receipt, "prepared transactions of roles that it could become"), 1);
    // A human undoes it, and the next look closes the lease.
    gate.server.script("shop", "rollback prepared 'later';");
    gate.server.script("shop", "alter default privileges for role shop_owner revoke select on tables from public;");
    let receipt = gate.issuer.inspect(&lease).await.unwrap();
    assert!(receipt.clean, "{receipt:?}");
}

#[tokio::test]
async fn another_server_by_the_targets_name_says_nothing_of_a_role() {
    let gate = Gate::open();
    let (lease, credential) = gate.minted("write").await;
    let (_other, target) = gate.another_server();
    let moved = gate::issuer(&gate.store, &gate.keys, &target);
    for held in [moved.disable(&lease).await, moved.clean(&lease).await] {
        let Err(TargetError::Held { cause, .. }) = held else { panic!("{held:?}") };
        for part in ["is another server now", &gate.target.address, &target.address, "again, and this lease goes on"] {
            assert!(cause.contains(part), "{part}: {cause}");
        }
    }
    let receipt = moved.inspect(&lease).await.unwrap();
    assert!(!receipt.clean, "{receipt:?}");
    assert_eq!(found(&receipt, ELSEWHERE), 1);
    assert_eq!(moved.acceptable(&lease, &receipt), Ok(()), "or a lease on a server that is gone stays for ever");
    assert!(gate.login(&credential).await.is_ok(), "nothing was done to it meanwhile");
    assert!(torn_down(&gate.restarted(), &lease).await.clean);
}

#[tokio::test]
async fn a_role_that_may_have_been_made_is_not_looked_for_at_another_address() {
    let gate = Gate::open();
    let (_permit, lease) = gate.session("write").await;
    let lease = lease.into_inner();
    let (_other, target) = gate.another_server();
    pass(11);
    let moved = gate::issuer(&gate.store, &gate.keys, &target);
    let receipt = moved.inspect(&lease).await.unwrap();
    let finding = receipt.findings.iter().find(|finding| finding.what == ELSEWHERE).unwrap();
    assert!(finding.items[0].contains(&format!("may have been made at {}", gate.target.address)), "{finding:?}");
    assert!(!receipt.clean && gate.restarted().inspect(&lease).await.unwrap().clean);
}

#[tokio::test]
async fn a_role_whose_oid_was_never_noted_is_found_and_removed() {
    let gate = Gate::open();
    let (permit, lease) = gate.session("write").await;
    let before = lease.lock().await.clone();
    gate.issuer.mint(&permit, &lease).await.unwrap();
    // The gateway was killed before the OID was on disk.
    let restarted = issuer(&gate.store, &gate.keys, &gate.target);
    let receipt = torn_down(&restarted, &before).await;
    assert!(receipt.clean, "{receipt:?}");
    assert_eq!(gate.server.ask("shop", "select count(*) from pg_roles where rolname ~ '^tg_'"), "0");
}

#[tokio::test]
async fn a_lease_without_a_role_is_closed_only_after_a_mint_can_no_longer_happen() {
    let gate = Gate::open();
    let (permit, lease) = gate.session("write").await;
    let planned = lease.lock().await.clone();
    assert!(is_unreachable(&gate.issuer.disable(&planned).await));
    assert!(is_unreachable(&gate.issuer.inspect(&planned).await));
    pass(11);
    assert!(torn_down(&gate.issuer, &planned).await.clean);
    let late = gate.issuer.mint(&permit, &lease).await;
    assert!(is_unreachable(&late), "the target made a role after its lease was given up: {late:?}");
    assert_eq!(gate.server.ask("shop", "select count(*) from pg_roles where rolname ~ '^tg_'"), "0");
}

#[tokio::test]
async fn a_role_of_that_name_that_is_not_ours_is_never_touched() {
    let gate = Gate::open();
    let (permit, lease) = gate.session("write").await;
    let unknown = lease.lock().await.clone();
    let name = unknown.name().to_owned();
    gate.server.script("shop", &format!("create role {name} login password 'x' in role tidegate_sessions;"));
    assert!(matches!(gate.issuer.mint(&permit, &lease).await, Err(TargetError::Refused { .. })));
    // This gateway heard the refusal; another one, after a crash, would not know.
    assert!(torn_down(&gate.issuer, &*lease.lock().await).await.clean);
    pass(11);
    assert!(is_held(&gate.issuer.disable(&unknown).await));
    assert!(is_held(&gate.issuer.clean(&unknown).await));
    assert_eq!(gate.server.ask("shop", &format!("select rolcanlogin from pg_roles where rolname = '{name}'")), "t");
}

#[tokio::test]
async fn a_session_cannot_come_in_past_the_gate() {
    let gate = Gate::open();
    let (lease, credential) = gate.minted("write").await;
    let client = gate.login(&credential).await.unwrap();
    client.batch_execute(&format!("alter role {} password 'mine'", lease.name())).await.unwrap();
    for host in [None, Some("127.0.0.1")] {
        let direct = gate.server.direct_login(host, lease.name(), "mine");
        let said = String::from_utf8_lossy(&direct.stderr).into_owned();
        assert!(!direct.status.success(), "it came in");
        assert!(said.contains("rejects connection") || said.contains("valid client certificate"), "{said}");
    }
    assert!(torn_down(&gate.issuer, &lease).await.clean);
}

#[tokio::test]
async fn the_gateways_login_can_do_nothing_but_call_our_functions() {
    let gate = Gate::open();
    let (lease, _) = gate.minted("write").await;
    let admin = gate.admin("shop").await.unwrap();
    let oid = gate.server.ask("shop", &format!("select '{}'::regrole::oid", lease.name()));
    let (name, id) = (lease.name(), lease.id());
    for denied in [
        "create role x login",
        "select * from app.orders",
        "create table public.x ()",
        "create schema x",
        "grant shop_writer to tidegate",
        "set role tidegate_owner",
        "set role shop_owner",
        "alter role shop_owner login password 'x'",
        "create function tidegate.x() returns int language sql as 'select 1'",
        "select tidegate._witness(array['shop_owner'], null)",
        "select pg_read_file('PG_VERSION')",
        &format!("set role {name}"),
        &format!("drop role {name}"),
        &format!("select tidegate._strip('{name}', {oid})"),
        // Our own functions, for what is not ours or not now.
        "select tidegate.disable('shop_owner', 'shop_owner'::regrole)",
        "select tidegate.disable('tg_x', 'shop_owner'::regrole)",
        "select tidegate.disable(null, null)",
        &format!("select tidegate.disable('{name}', 'shop_owner'::regrole)"),
        &format!("select tidegate.remove('{name}', {oid})"),
        &format!("select * from tidegate.clean('{name}', {oid}, 1)"),
        &mint("shop_owner", "null", "now() + '1h'", "now() + '1s'"),
        &mint("pg_read_all_data", "null", "now() + '1h'", "now() + '1s'"),
        &mint("shop_writer", "'postgres'", "now() + '1h'", "now() + '1s'"),
        &mint("shop_writer", "null", "now() + '1h'", "now() - '1s'::interval"),
        &mint("shop_writer", "null", "now() + '1h'", "null"),
        &mint("shop_writer", "null", "null", "now() + '1s'"),
        &mint("shop_writer", "null", "'infinity'", "now() + '1s'"),
    ] {
        // Before 15 everybody may create in `public` until somebody revokes it.
        let public = denied.contains("public.x") && gate.server.version() < 15;
        assert!(public || admin.simple_query(denied).await.is_err(), "{denied}");
    }
    assert!(gate.admin("postgres").await.is_err(), "it gets into a database that no entitlement names");
    assert_eq!(
        gate.server.ask("shop", &format!("select rolcanlogin from pg_roles where rolname = '{name}'")),
        "t",
        "{id}"
    );
    assert!(torn_down(&gate.issuer, &lease).await.clean);
}

fn mint(group: &str, owner: &str, until: &str, by: &str) -> String {
    let until = until.replace("'1h'", "'1h'::interval");
    let by = by.replace("+ '1s'", "+ '1s'::interval");
    format!(
        "select * from tidegate.mint('tg_x_aaaaaaaa', array['{group}'], true, {owner}, {until}, 1, null, {by}, 'g', \
         '018f0000-0000-7000-8000-000000000001', '018f0000-0000-7000-8000-000000000001')"
    )
}

#[tokio::test]
async fn where_leftovers_are_dropped_nothing_of_anybody_else_goes_with_them() {
    let gate = Gate::open();
    let (lease, credential) = gate.minted("scratch").await;
    let client = gate.login(&credential).await.unwrap();
    client
        .batch_execute("create table app.scratch (id int primary key); create view app.v as table app.scratch")
        .await
        .unwrap();
    gate.server.script("shop", "create table app.theirs (id int references app.scratch);");
    gate.issuer.disable(&lease).await.unwrap();
    assert!(is_held(&gate.issuer.clean(&lease).await));
    assert_eq!(gate.server.ask("shop", "select count(*) from app.theirs"), "0");
    // A human decides; the next attempt does the rest.
    gate.server.script("shop", "drop table app.theirs;");
    let receipt = torn_down(&gate.issuer, &lease).await;
    assert!(receipt.clean, "{receipt:?}");
    assert_eq!(gate.server.ask("shop", "select count(*) from pg_class where relname in ('scratch', 'v')"), "0");
    assert_eq!(gate.server.ask("shop", "select count(*) from pg_roles where rolname ~ '^tgq?_'"), "0");
}

#[tokio::test]
async fn many_objects_are_handed_over_in_batches() {
    let gate = Gate::open();
    let (lease, credential) = gate.minted("write").await;
    let client = gate.login(&credential).await.unwrap();
    let many = "do $$ begin for i in 1..1200 loop execute format('create view app.v%s as select 1 as a', i); \
                execute format('create function app.f%s() returns int language sql as ''select 1''', i); end loop; end $$";
    client.batch_execute(many).await.unwrap();
    let receipt = torn_down(&gate.issuer, &lease).await;
    assert!(receipt.clean, "{receipt:?}");
    assert_eq!(
        gate.server.ask("shop", "select count(*) from pg_proc where pronamespace = 'tidegate_attic'::regnamespace"),
        "1200"
    );
}

#[tokio::test]
async fn a_target_that_never_answers_is_given_up_in_time() {
    let gate = Gate::open();
    let (lease, _) = gate.minted("write").await;
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut target = gate.target.clone();
    target.address = deaf.local_addr().unwrap().to_string();
    let deaf_issuer = issuer(&gate.store, &gate.keys, &target);
    let start = Instant::now();
    assert!(is_unreachable(&deaf_issuer.disable(&lease).await));
    assert!(start.elapsed() < TARGET_DEADLINE + Duration::from_secs(2));
    assert!(torn_down(&gate.issuer, &lease).await.clean);
}

#[tokio::test]
async fn many_sessions_mint_and_leave_at_once() {
    let gate = Gate::open();
    let sessions = (0..10).map(|_| async {
        let (lease, credential) = gate.minted("write").await;
        gate.login(&credential).await.unwrap().batch_execute("create temp table t (id int)").await.unwrap();
        torn_down(&gate.issuer, &lease).await
    });
    for receipt in futures::future::join_all(sessions).await {
        assert!(receipt.clean, "{receipt:?}");
    }
    assert_eq!(gate.server.ask("shop", "select count(*) from pg_roles where rolname ~ '^tgq?_'"), "0");
}

#[tokio::test]
async fn a_second_mint_of_a_lease_makes_no_second_role() {
    let gate = Gate::open();
    let (permit, lease) = gate.session("write").await;
    let first = gate.issuer.mint(&permit, &lease).await.unwrap();
    let again = gate.issuer.mint(&permit, &lease).await.unwrap();
    assert_eq!(first.role, again.role);
    gate.login(&again).await.unwrap();
    let events = gate.store.tail(100).await.unwrap();
    assert_eq!(events.iter().filter(|entry| entry.event.kind == "credential.minted").count(), 1);
    assert!(torn_down(&gate.issuer, &lease.into_inner()).await.clean);
}

#[tokio::test]
async fn what_a_session_put_in_public_is_not_run_by_who_installs_again() {
    let gate = Gate::open();
    let (lease, credential) = gate.minted("write").await;
    let client = gate.login(&credential).await.unwrap();
    let body = "begin execute ''alter role shop_writer superuser''; return pg_catalog.format(f, a); end";
    for argument in ["regprocedure", "name", "text", "\"any\""] {
        let planted =
            format!("create function public.format(f text, a {argument}) returns text language plpgsql as '{body}'");
        // Not every argument is allowed: one that is suffices.
        client.batch_execute(&planted).await.ok();
    }
    assert_eq!(
        gate.server.ask(
            "shop",
            "select count(*) > 2 from pg_proc where proname = 'format' and pronamespace = 'public'::regnamespace"
        ),
        "t"
    );
    gate.server.install();
    assert_eq!(gate.server.ask("shop", "select rolsuper from pg_roles where rolname = 'shop_writer'"), "f");
    assert!(torn_down(&gate.issuer, &lease).await.clean);
}

#[tokio::test]
async fn a_session_that_locks_its_own_role_is_ended_all_the_same() {
    let gate = Gate::open();
    let (lease, credential) = gate.minted("write").await;
    let client = gate.login(&credential).await.unwrap();
    client.batch_execute("begin; alter role current_user password 'x'").await.unwrap();
    let going_on = tokio::spawn(async move {
        client.batch_execute("select pg_sleep(3); insert into app.orders values (666); commit").await
    });
    gate.issuer.disable(&lease).await.unwrap();
    assert!(going_on.await.unwrap().is_err(), "its session went on");
    assert_eq!(gate.server.ask("shop", "select count(*) from app.orders"), "0");
    assert!(torn_down(&gate.issuer, &lease).await.clean);
}

#[tokio::test]
async fn a_prepared_transaction_that_locks_the_role_is_rolled_back() {
    let gate = Gate::open();
    let (lease, credential) = gate.minted("write").await;
    let client = gate.login(&credential).await.unwrap();
    let prepare = "begin; alter role current_user password 'x'; prepare transaction 'locked'";
    client.batch_execute(prepare).await.unwrap();
    gate.issuer.disable(&lease).await.unwrap();
    assert!(client.simple_query("select 1").await.is_err(), "its session went on");
    assert!(torn_down(&gate.issuer, &lease).await.clean);
    assert_eq!(gate.server.ask("shop", "select count(*) from pg_prepared_xacts"), "0");
    assert_eq!(gate.server.ask("shop", "select count(*) from pg_roles where rolname ~ '^tg[lq]?_'"), "0");
}

#[tokio::test]
async fn leftovers_of_every_ordinary_kind_are_put_away() {
    let gate = Gate::open();
    gate.server.script("shop", "grant create on database shop to shop_writer;");
    for turn in 1..=2 {
        let (lease, credential) = gate.minted("write").await;
        let client = gate.login(&credential).await.unwrap();
        client
            .batch_execute(&format!(
                "create schema s{turn}; create table s{turn}.t (id int); create view s{turn}.v as table s{turn}.t; \
                 create rule r as on insert to s{turn}.v do instead nothing; create view s{turn}.w as table s{turn}.t; \
                 create rule r as on insert to s{turn}.t do also nothing; \
                 create function s{turn}.f() returns trigger language plpgsql as 'begin return new; end'; \
                 create trigger f instead of insert on s{turn}.w for each row execute function s{turn}.f(); \
                 create function s{turn}.plus(text, text) returns text language sql as 'select $1'; \
                 create operator s{turn}.+ (leftarg = text, rightarg = text, function = s{turn}.plus); \
                 create extension hstore schema s{turn}; \
                 create function s{turn}.evil() returns text language sql security definer as 'select 1::text'; \
                 alter extension hstore add function s{turn}.evil(); \
                 revoke all on schema s{turn} from current_user"
            ))
            .await
            .unwrap();
        let receipt = torn_down(&gate.issuer, &lease).await;
        assert!(receipt.clean, "{receipt:?}");
        assert_eq!(gate.server.ask("shop", "select count(*) from pg_proc where proname = 'evil' or prosecdef and proowner in (select member from pg_auth_members where roleid = 'tidegate_quarantine'::regrole and member <> 'tidegate_owner'::regrole)"), "0");
        gate.server.script("shop", "drop extension hstore cascade;");
    }
}

#[tokio::test]
async fn what_a_session_granted_in_its_own_name_goes_with_it() {
    let gate = Gate::open();
    let (lease, credential) = gate.minted("migrate").await;
    let client = gate.login(&credential).await.unwrap();
    let name = lease.name();
    client
        .batch_execute(&format!(
            "create table app.a (id int); create table app.b (id int); grant select on app.a to {name} with grant option; \
             set role none; grant select on app.a to public; create table app.c (id int); grant select on app.c to public; \
             alter table app.c owner to shop_owner"
        ))
        .await
        .unwrap();
    let receipt = torn_down(&gate.issuer, &lease).await;
    assert!(receipt.clean, "{receipt:?}");
}

#[tokio::test]
async fn a_database_that_was_dropped_keeps_no_lease_open() {
    let gate = Gate::open();
    let (lease, credential) = gate.minted("wide").await;
    let client = gate.login(&credential).await.unwrap();
    client.batch_execute("create table app.mine (id int)").await.unwrap();
    drop(client);
    gate.server.script("postgres", "drop database shop with (force);");
    let receipt = torn_down(&gate.restarted(), &lease).await;
    assert!(receipt.clean, "{receipt:?}");
    assert_eq!(gate.server.ask("postgres", "select count(*) from pg_roles where rolname ~ '^tgq?_'"), "0");
}
