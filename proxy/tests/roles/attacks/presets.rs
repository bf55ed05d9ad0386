//! Settings that a session leaves lying for our connections, and backends that come up late.

use super::Attack;
use tidegate_proxy::issuer::Teardown;

/// As owner of its database, which an application's owner often is.
async fn preset(setting: &str) {
    let attack = Attack::by("migrate", "alter database shop owner to shop_owner").await;
    if !attack.tries(&format!("alter database shop set {setting}")).await {
        return attack.leaves_nothing().await; // unknown to this version
    }
    // Not on the connection that mint has kept.
    let restarted = attack.gate.restarted();
    restarted.disable(&attack.lease).await.unwrap();
    restarted.clean(&attack.lease).await.unwrap();
    let receipt = restarted.inspect(&attack.lease).await.unwrap();
    let shown = receipt.findings.iter().any(|f| f.what == "changed while it lived: settings" && f.found == 1);
    assert!(shown && !receipt.clean, "{receipt:#?}");
    assert_eq!(attack.gate.server.ask("postgres", "select count(*) from pg_roles where rolname ~ '^tg_'"), "0");
}

#[tokio::test]
async fn a_database_that_is_preset_to_read_only_is_cleaned_all_the_same() {
    preset("default_transaction_read_only = on").await;
}

#[tokio::test]
async fn a_database_that_is_preset_to_end_transactions_is_cleaned_all_the_same() {
    preset("transaction_timeout = 1").await;
}

#[tokio::test]
async fn a_database_that_is_preset_to_end_statements_is_cleaned_all_the_same() {
    preset("statement_timeout = 1").await;
}

#[tokio::test]
async fn a_database_that_is_preset_to_make_warnings_errors_is_cleaned_all_the_same() {
    preset("plpgsql.extra_errors = 'all'").await;
}

#[tokio::test]
async fn a_database_that_is_preset_to_end_sessions_at_errors_is_cleaned_all_the_same() {
    preset("exit_on_error = on").await;
}

#[tokio::test]
async fn a_database_that_is_preset_to_another_search_path_is_cleaned_all_the_same() {
    preset("search_path = app, public").await;
}

#[tokio::test]
async fn a_database_that_is_preset_to_another_role_is_cleaned_all_the_same() {
    preset("role = shop_owner").await;
}

#[tokio::test]
async fn a_backend_that_starts_slowly_does_not_come_up_after_its_role_was_disabled() {
    let attack = Attack::by("write", "").await;
    let slow = attack.gate.connect(&attack.credential.role, "shop", &attack.credential.tls, "-c post_auth_delay=4");
    let starting = "select exists (select from pg_locks where locktype = 'object' and classid = 'pg_database'::regclass \
                    and pid not in (select pid from pg_stat_activity where usesysid is not null))";
    let (came, ()) = tokio::join!(slow, async {
        attack.gate.server.until(starting).await;
        attack.gate.issuer.disable(&attack.lease).await.unwrap();
    });
    // A signal cuts its delay short: it is told so, or dies right after its greeting.
    if let Ok(client) = came {
        assert!(client.simple_query("select 1").await.is_err(), "it came up");
    }
    attack.leaves_nothing_now().await;
}
