//! Rights that a session gives on, keeps for later, or takes back from us.

use super::{Attack, SPY};
use tidegate_proxy::issuer::Teardown;

#[tokio::test]
async fn security_definer_routines_planted_as_the_owner_are_shown() {
    let attack = Attack::by("migrate", "").await;
    attack.does("create function app.backdoor(sql text) returns void language plpgsql security definer as 'begin execute sql; end'").await;
    attack
        .is_shown(
            "made or changed while it lived: SECURITY DEFINER routines of roles that it could become",
            "app.backdoor(sql text) of shop_owner",
        )
        .await;
}

#[tokio::test]
async fn a_security_definer_routine_that_was_there_and_is_changed_is_shown() {
    let before = "create function app.total() returns bigint language sql security definer as 'select 1::bigint'; \
                  alter function app.total() owner to shop_writer";
    let attack = Attack::by("write", before).await;
    attack.does("create or replace function app.total() returns bigint language plpgsql security definer as 'begin return 2; end'").await;
    attack
        .is_shown(
            "made or changed while it lived: SECURITY DEFINER routines of roles that it could become",
            "app.total()",
        )
        .await;
}

#[tokio::test]
async fn what_is_made_as_a_group_is_shown() {
    let attack = Attack::by("write", "").await;
    let became = attack.tries("set role shop_writer; create table app.kept (id int); reset role").await;
    assert_eq!(became, attack.version() < 16, "from 16 on a session cannot become its groups");
    if !became {
        return attack.leaves_nothing().await;
    }
    attack.is_shown("made while it lived: objects of group roles", "app.kept of shop_writer").await;
}

#[tokio::test]
async fn what_is_given_to_a_group_is_shown() {
    let attack = Attack::by("write", "").await;
    attack.does(SPY).await.does("alter function app.spy() security definer; create table app.mine (id int)").await;
    if !attack.tries("alter function app.spy() owner to shop_writer; alter table app.mine owner to shop_writer").await {
        return attack.leaves_nothing().await;
    }
    let receipt = attack.gate.tear_down(&attack.lease).await.unwrap();
    assert!(!receipt.clean);
    let shown = format!("{receipt:?}");
    assert!(shown.contains("app.spy() of shop_writer") && shown.contains("app.mine of shop_writer"), "{shown}");
}

#[tokio::test]
async fn prepared_transactions_under_set_role_are_shown() {
    let attack = Attack::by("migrate", "").await;
    attack.does("begin; create table app.later (id int); prepare transaction 'in the owner''s name'").await;
    attack
        .is_shown(
            "prepared transactions of roles that it could become",
            "in the owner''s name' of shop_owner in database shop",
        )
        .await;
    attack.leaves_nothing_now().await;
}

#[tokio::test]
async fn prepared_transactions_of_its_own_are_rolled_back_whatever_their_name() {
    let attack = Attack::by("write", "").await;
    for gid in ["it''s", "a\\b", "; drop table app.orders", "$$"] {
        attack.does(&format!("begin; insert into app.orders values (666); prepare transaction '{gid}'")).await;
    }
    attack.leaves_nothing().await;
    assert_eq!(attack.ask("select count(*) from pg_prepared_xacts"), "0");
    assert_eq!(attack.ask("select count(*) from app.orders where id = 666"), "0");
}

#[tokio::test]
async fn a_prepared_transaction_of_a_group_that_locks_the_role_says_what_to_do() {
    let attack = Attack::by("migrate", "").await;
    attack.does("set role none; begin; alter role current_user password 'x'; set local role shop_owner; prepare transaction 'locks'").await;
    let error = attack.gate.issuer.disable(&attack.lease).await.unwrap_err().to_string();
    assert!(error.contains("rollback prepared 'locks'") && error.contains("database shop"), "{error}");
    assert!(attack.client.simple_query("select 1").await.is_err(), "its session goes on");
    attack.gate.server.script("shop", "rollback prepared 'locks';");
    attack.leaves_nothing().await;
}

#[tokio::test]
async fn default_privileges_for_a_group_role_are_shown() {
    let attack = Attack::by("migrate", "").await;
    attack.does("alter default privileges for role shop_owner grant all on tables to public").await;
    attack.is_shown("changed while it lived: default privileges", "shop_owner").await;
}

#[tokio::test]
async fn default_privileges_that_a_migration_gives_a_group_are_in_the_receipt_and_hold_nothing() {
    let attack = Attack::by("migrate", "").await;
    attack
        .does(
            "alter default privileges grant select on tables to shop_reader;
             alter default privileges in schema app grant usage on sequences to shop_writer;
             alter default privileges revoke execute on functions from public",
        )
        .await;
    let receipt = attack.torn_down().await.unwrap();
    assert!(receipt.clean, "{receipt:#?}");
    let done = receipt.findings.iter().find(|finding| finding.what == "done as the owner: default privileges").unwrap();
    for line in [
        "+ SELECT on r for role shop_owner",
        "+ USAGE on S for role shop_owner in schema app: to shop_writer",
        "- OPEN EXECUTE on f",
    ] {
        assert!(done.items.iter().any(|item| item.starts_with(line)), "{line}: {done:#?}");
    }
}

#[tokio::test]
async fn default_privileges_of_the_owner_that_open_its_work_to_more_are_shown() {
    let kept_out = "alter default privileges for role shop_owner revoke execute on functions from public;";
    let boss = "create role boss createrole; create role clerk; grant boss to clerk;";
    let flood = "do $$ begin for i in 1..200 loop execute format('create schema s%s', i); execute format('grant usage on schema s%s to shop_owner', i); \
                 end loop; end $$;";
    for (before, done, item) in [
        ("", "alter default privileges grant select on tables to shop_reader with grant option", "to give on"),
        (boss, "alter default privileges grant select on tables to clerk", "to clerk"),
        (kept_out, "alter default privileges grant execute on functions to public", "OPEN EXECUTE on f"),
        ("", "alter default privileges grant select on tables to tidegate_owner", "to tidegate_owner"),
        (
            flood,
            "do $$ begin for i in 1..200 loop execute format('alter default privileges in schema s%s grant select on tables to public', i); \
             end loop; end $$",
            "digest",
        ),
    ] {
        let attack = Attack::by("migrate", before).await;
        attack.does(done).await;
        let receipt = attack.torn_down().await.unwrap_or_else(|error| panic!("{done}: {error}"));
        let what = "changed while it lived: default privileges";
        let shown = receipt.findings.iter().find(|finding| finding.what == what && finding.found > 0);
        let shown = shown.unwrap_or_else(|| panic!("{done}: {receipt:#?}"));
        assert!(!receipt.clean && shown.items.iter().any(|line| line.contains(item)), "{done}: {shown:#?}");
        assert!(
            receipt.unverifiable.iter().any(|line| line.contains("it may have been somebody else")),
            "{receipt:#?}"
        );
    }
}

#[tokio::test]
async fn default_privileges_of_its_own_go_with_it() {
    let attack = Attack::by("write", "").await;
    attack.does("alter default privileges grant all on tables to public; create table app.t (id int)").await;
    attack.does("alter default privileges in schema app grant execute on functions to shop_reader").await;
    attack.leaves_nothing().await;
    assert_eq!(attack.ask("select count(*) from pg_default_acl"), "0");
}

#[tokio::test]
async fn the_changed_password_of_a_role_that_it_can_become_is_shown() {
    let attack = Attack::by("migrate", "").await;
    attack.does("alter role current_user password 'mine now'").await;
    attack.is_shown("changed while it lived: roles", "shop_owner").await;
}

#[tokio::test]
async fn settings_of_a_role_that_it_can_become_are_shown() {
    let attack = Attack::by("migrate", "").await;
    attack.does("alter role shop_owner set search_path = public").await;
    attack.is_shown("changed while it lived: settings", "search_path=public").await;
}

#[tokio::test]
async fn settings_of_its_own_go_with_it() {
    let attack = Attack::by("write", "").await;
    attack.does("alter role current_user set statement_timeout = 1; alter role current_user in database shop set role = 'shop_writer'").await;
    attack.leaves_nothing().await;
    assert_eq!(
        attack.ask("select count(*) from pg_db_role_setting where setrole not in (select oid from pg_roles)"),
        "0"
    );
}

#[tokio::test]
async fn a_privilege_that_it_gives_on_as_a_group_is_shown() {
    let attack = Attack::by(
        "write",
        "create table app.secret (id int); grant select on app.secret to shop_writer with grant option",
    )
    .await;
    attack.does("grant select on app.secret to public").await;
    attack
        .is_shown(
            "changed while it lived: privileges given on",
            "SELECT on relation app.secret to public, granted by shop_writer",
        )
        .await;
}

#[tokio::test]
async fn a_chain_of_grants_that_begins_with_it_ends_with_it() {
    let before = "create role friend nologin; create table app.secret (id int); grant shop_reader to friend";
    let attack = Attack::by("write", before).await;
    let role = attack.lease.name();
    attack.gate.server.script("shop", &format!("grant select on app.secret to {role} with grant option;"));
    attack.does("grant select on app.secret to friend with grant option").await;
    attack.gate.server.script("shop", "set role friend; grant select on app.secret to shop_reader;");
    attack.leaves_nothing().await;
    assert_eq!(attack.ask("select count(*) from information_schema.role_table_grants where table_name = 'secret' and grantee in ('friend', 'shop_reader')"), "0");
}

#[tokio::test]
async fn privileges_received_from_other_owners_go_with_it() {
    let attack = Attack::by("write", "").await;
    let role = attack.lease.name();
    attack.gate.server.script(
        "shop",
        &format!(
            "set role shop_owner; grant all on app.orders to {role}; grant usage on schema app to {role}; reset role; \
         grant create on database shop to {role}; grant usage on language plpgsql to {role}; \
         create foreign data wrapper w; grant usage on foreign data wrapper w to {role}; \
         alter default privileges for role shop_owner grant select on tables to {role};"
        ),
    );
    attack
        .does("create schema mine; create server s foreign data wrapper w; create user mapping for public server s")
        .await;
    attack.leaves_nothing().await;
}

#[tokio::test]
async fn members_that_it_gives_its_role_to_lose_it_at_once() {
    let attack = Attack::by("write", "create role friend login").await;
    let role = attack.lease.name();
    let given = attack.tries(&format!("grant {role} to friend")).await;
    assert_eq!(given, attack.version() < 15, "from 15 on nobody administers their own role");
    attack.gate.issuer.disable(&attack.lease).await.unwrap();
    let members = format!(
        "select coalesce(string_agg(distinct m.member::regrole::text, ' '), '') from pg_auth_members m where roleid = '{role}'::regrole and member::regrole::text <> 'postgres'"
    );
    assert_eq!(attack.ask(&members), "tidegate_owner");
    attack.leaves_nothing().await;
}

#[tokio::test]
async fn memberships_that_it_can_administer_are_shown() {
    let attack = Attack::by(
        "write",
        "create role vault nologin; create role friend login; grant vault to shop_writer with admin option",
    )
    .await;
    let role = if attack.version() < 16 { "set role shop_writer;" } else { "" };
    if !attack.tries(&format!("{role} grant vault to friend")).await {
        return attack.leaves_nothing().await;
    }
    attack.is_shown("changed while it lived: memberships", "friend in vault").await;
}

#[tokio::test]
async fn options_of_memberships_that_it_changes_are_shown() {
    let before = "create role vault nologin; create role friend login; grant vault to shop_writer with admin option";
    let attack = Attack::by("write", before).await;
    // As the group, before it has the session: the membership was there, and the session turns it into more.
    attack.gate.server.script("shop", "set role shop_writer; grant vault to friend;");
    let (lease, credential) = attack.gate.minted("write").await;
    let client = attack.gate.login(&credential).await.unwrap();
    let role = if attack.version() < 16 { "set role shop_writer;" } else { "" };
    client.batch_execute(&format!("{role} grant vault to friend with admin option")).await.unwrap();
    let receipt = attack.gate.tear_down(&lease).await.unwrap();
    let shown = receipt.findings.iter().find(|finding| finding.what == "changed while it lived: memberships").unwrap();
    assert!(!receipt.clean);
    assert!(
        shown.items.iter().any(|item| item.starts_with("+ friend in vault") && item.contains("with admin_option")),
        "{shown:?}"
    );
}

#[tokio::test]
async fn a_privilege_on_a_parameter_that_it_gives_on_as_a_group_is_shown() {
    let attack = Attack::by(
        "write",
        "create role friend login; do $$ begin if current_setting('server_version_num')::int >= 150000 then
           execute 'grant set on parameter log_statement to shop_writer with grant option'; end if; end $$",
    )
    .await;
    if attack.version() < 15 {
        return attack.leaves_nothing().await; // there are no such privileges
    }
    attack.does("grant set on parameter log_statement to friend").await;
    attack
        .is_shown(
            "changed while it lived: privileges on parameters, given on",
            "SET on parameter log_statement to friend, granted by shop_writer",
        )
        .await;
}

#[tokio::test]
async fn its_own_password_opens_nothing() {
    let attack = Attack::by("write", "").await;
    let role = attack.lease.name().to_owned();
    attack.does(&format!("alter role {role} password 'mine'")).await;
    for host in [None, Some("127.0.0.1")] {
        assert!(!attack.gate.server.direct_login(host, &role, "mine").status.success(), "it came in past the gate");
    }
    attack.leaves_nothing().await;
    assert!(!attack.gate.server.direct_login(Some("127.0.0.1"), &role, "mine").status.success());
}

#[tokio::test]
async fn it_cannot_take_our_mark_or_our_parts() {
    let attack = Attack::by("migrate", "").await;
    let role = attack.lease.name();
    for refused in [
        &format!("revoke tidegate_sessions from {role}"),
        &format!("alter role {role} rename to x"),
        &format!("alter role {role} superuser"),
        &format!("comment on role {role} is 'nobody'"),
        "drop schema tidegate cascade",
        "create function tidegate.disable(text, oid) returns boolean language sql as 'select true'",
        "create function tidegate_attic.x() returns int language sql as 'select 1'",
        "select * from tidegate_attic.routine",
        "select tidegate.disable('x', 1)",
        "lock table pg_catalog.pg_authid",
        "select * from pg_authid for update",
        "update pg_authid set rolsuper = true",
        "create language plpython3u",
        "create access method mine type index handler bthandler",
        "create operator class app.c default for type int using btree as operator 1 <",
        "create function app.c() returns int language c as 'libc', 'getpid'",
        "security label on role shop_owner is 'x'",
        "create subscription s connection 'host=127.0.0.1' publication p",
        "create publication everything for all tables",
        "create tablespace t location '/tmp'",
        "alter system set log_statement = 'all'",
        "create table app.child () inherits (pg_catalog.pg_class)",
        "copy app.orders to program 'id'",
        "select pg_read_file('PG_VERSION')",
        "select lo_export(1, '/tmp/x')",
    ] {
        attack.cannot(refused).await;
    }
    attack.leaves_nothing().await;
}
