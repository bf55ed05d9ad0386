//! Too much of something, or something while it is torn down.

use super::{Attack, SPY};

#[tokio::test]
async fn thirty_thousand_objects_are_handed_over() {
    let attack = Attack::by("write", "").await;
    many(&attack, "view app.v% as select 1 as a", 10_000).await;
    many(&attack, "type app.e% as enum (''a'')", 10_000).await;
    many(&attack, "function app.f%() returns int language sql as ''select 1''", 10_000).await;
    attack.leaves_nothing().await;
    assert_eq!(attack.ask("select count(*) from pg_proc where pronamespace = 'tidegate_attic'::regnamespace"), "10000");
}

#[tokio::test]
async fn thirty_thousand_objects_are_dropped() {
    let attack = Attack::by("scratch", "").await;
    many(&attack, "type app.e% as enum (''a'')", 10_000).await;
    many(&attack, "table app.t% (a int, b app.e%)", 10_000).await;
    many(&attack, "view app.v% as table app.t%", 10_000).await;
    attack.leaves_nothing().await;
    assert_eq!(attack.ask("select count(*) from pg_shdepend where refobjid not in (select oid from pg_authid)"), "0");
    assert_eq!(attack.ask("select count(*) from pg_class where relnamespace = 'app'::regnamespace"), "1");
}

#[tokio::test]
async fn thousands_of_temporary_functions_of_a_crashed_backend_are_dropped() {
    for entitlement in ["write", "scratch"] {
        let attack = Attack::by(entitlement, "").await;
        many(&attack, "function pg_temp.f%() returns int language sql as ''select 1''", 10_000).await;
        attack.gate.server.crash(&attack.ask("select pid from pg_stat_activity where usename ~ '^tg_'"));
        let left =
            "select count(*) from pg_proc p join pg_namespace n on n.oid = pronamespace where nspname ~ '^pg_temp_'";
        assert_eq!(attack.ask(left), "10000", "or nothing is tried here");
        // This thread waited all the while: the issuer hears only now that the connections that it kept are gone.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        attack.leaves_nothing().await;
        assert_eq!(attack.ask(left), "0");
    }
}

/// Some at a time, because a statement of the session runs out of lock memory just as ours would.
async fn many(attack: &Attack, what: &str, count: u32) {
    for from in (1..=count).step_by(1_000) {
        let (what, to) = (what.replace('%', "%1$s"), from + 999);
        attack
            .does(&format!(
                "do $$ begin for i in {from}..{to} loop execute format('create {what}', i); end loop; end $$"
            ))
            .await;
    }
}

#[tokio::test]
async fn a_session_that_makes_objects_all_the_while_is_ended_and_cleaned() {
    let attack = Attack::by("write", "").await;
    attack.does(SPY).await;
    let busy = attack.gate.login(&attack.credential).await.unwrap();
    let making = tokio::spawn(async move {
        let mut made = 0_u64;
        while busy
            .batch_execute(&format!("create table app.x{made} (id int default app.spy()); select lo_create(0)"))
            .await
            .is_ok()
        {
            made += 1;
        }
        made
    });
    attack.gate.server.until("select count(*) > 20 from pg_class where relname ~ '^x[0-9]+$'").await;
    attack.leaves_nothing().await;
    assert!(making.await.unwrap() > 20);
    assert_eq!(
        attack.ask("select count(*) from pg_class where relname ~ '^x[0-9]+$' and relowner::regrole::text !~ '^tgq_'"),
        "0"
    );
}

#[tokio::test]
async fn a_session_that_sleeps_computes_or_talks_without_end_is_ended() {
    let attack = Attack::by("write", "").await;
    let stubborn = [
        "select pg_sleep(3600)",
        "do $$ begin loop begin perform pg_sleep(3600); exception when others then null; end; end loop; end $$",
        "do $$ begin loop raise notice 'flood'; end loop; end $$",
        "select count(*) from generate_series(1, 1000000000) a, generate_series(1, 1000000000) b",
        "begin; select pg_advisory_lock(1); select pg_sleep(3600)",
        "select repeat('x', 100000000) ~ '(x+x+)+y'",
    ];
    let mut ends = Vec::new();
    for sql in stubborn {
        let client = attack.gate.login(&attack.credential).await.unwrap();
        ends.push(tokio::spawn(async move { client.simple_query(sql).await.is_err() }));
    }
    attack
        .gate
        .server
        .until("select count(*) = 6 from pg_stat_activity where usename ~ '^tg_' and state = 'active'")
        .await;
    attack.leaves_nothing().await;
    for end in ends {
        assert!(end.await.unwrap(), "it came to an end of its own");
    }
}
