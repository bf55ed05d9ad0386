//! The short-lived password of `ssh gate password`.

use tidegate_tests::{
    World,
    running::run,
    world::{PATIENCE, Plan},
};

#[test]
fn a_password_is_alone_on_stdout_with_its_expiry_on_stderr_and_replaces_the_old_one() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let first = world.control("alice", &["password", "orders"]).ok();
    assert_eq!(first.out().lines().count(), 1);
    assert!(first.out().len() >= 16 && !first.out().contains(' '), "{:?}", first.out());
    assert!(first.err().contains('Z'), "its expiry, RFC 3339 in UTC: {}", first.err());
    let second = world.password("alice", "orders");
    let conninfo = world.conninfo("alice", "orders/shop");
    run(world.psql_command(&conninfo, &first.out(), &["-c", "select 1"]), PATIENCE).exited(2);
    run(world.psql_command(&conninfo, &second, &["-c", "select 1"]), PATIENCE).ok();
}

#[test]
fn a_password_serves_many_sessions_within_its_window_and_none_after_it() {
    let mut world = Plan::new().only_postgres().start();
    world.gateway.own_clock();
    world.restart_gateway();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let password = world.password("alice", "orders");
    let conninfo = world.conninfo("alice", "orders/shop");
    run(world.psql_command(&conninfo, &password, &["-c", "select 1"]), PATIENCE).ok();
    run(world.psql_command(&conninfo, &password, &["-c", "select 1"]), PATIENCE).ok();
    world.gateway.shift_clock(601); // a window is of ten minutes
    run(world.psql_command(&conninfo, &password, &["-c", "select 1"]), PATIENCE).exited(2);
}

#[test]
fn no_password_or_private_key_is_in_the_state_directory_or_the_log_in_clear() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let password = world.password("alice", "orders");
    let conninfo = world.conninfo("alice", "orders/shop");
    run(world.psql_command(&conninfo, &password, &["-c", "select 1"]), PATIENCE).ok();
    for file in tidegate_tests::gateway::files(world.gateway.dir()) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        assert!(!bytes.windows(password.len()).any(|w| w == password.as_bytes()), "in {}", file.display());
    }
    assert!(!world.pg().log().contains(&password));
}
