//! Seen from outside: metrics, liveness, readiness.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};
use tidegate_tests::{
    World,
    daemon::Signal,
    wait_until,
    world::{PATIENCE, Plan},
};

/// The status and the body.
fn get(at: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer.split_once("\r\n\r\n").expect("a body").1.to_owned())
}

fn metrics(world: &World) -> String {
    let (status, text) = get(world.gateway.metrics(), "/metrics");
    assert_eq!(status, 200, "{text}");
    assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
    text
}

/// The number of this series.
#[track_caller]
fn number(text: &str, series: &str) -> f64 {
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().expect("a number")
}

fn plan() -> Plan {
    Plan::new().block("[metrics]\nlisten = \"127.0.0.1:0\"\n")
}

#[test]
fn metrics_count_sessions_refusals_leases_and_times() {
    let world = plan().start();
    world.exec("alice", "true").exited(77);
    world.exec("carol", "true").exited(1);
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.gateway.grant("alice", "orders", "readonly", "30m");
    world.exec("alice", "true").ok();
    let mut live = world.psql_start("alice");
    live.send("select 'on';\n");
    live.until_stdout("on", PATIENCE);
    wait_until(PATIENCE, "the session over ssh is torn down", || {
        (number(&metrics(&world), "tidegate_teardown_seconds_count{protocol=\"ssh\"}") >= 1.0).then_some(())
    });
    let text = metrics(&world);
    assert_eq!(number(&text, "tidegate_ready"), 1.0);
    assert_eq!(number(&text, "tidegate_sessions_open{protocol=\"postgres\"}"), 1.0);
    assert_eq!(number(&text, "tidegate_sessions_open{protocol=\"ssh\"}"), 0.0);
    assert_eq!(number(&text, "tidegate_sessions_opened_total{protocol=\"ssh\"}"), 1.0);
    assert_eq!(number(&text, "tidegate_refusals_total{check=\"grant\"}"), 1.0);
    assert_eq!(number(&text, "tidegate_refusals_total{check=\"target\"}"), 1.0);
    assert_eq!(number(&text, "tidegate_leases{target=\"orders\",state=\"open\"}"), 1.0);
    assert_eq!(number(&text, "tidegate_connections{protocol=\"postgres\",state=\"known\"}"), 1.0);
    assert_eq!(number(&text, "tidegate_connections{protocol=\"postgres\",state=\"unknown\"}"), 0.0);
    assert!(number(&text, "tidegate_mint_seconds_count{protocol=\"postgres\"}") >= 1.0);
    assert!(number(&text, "tidegate_handshake_seconds_count{protocol=\"ssh\"}") >= 3.0);
    assert!(number(&text, "tidegate_ledger_entries") > 5.0 && number(&text, "tidegate_store_bytes") > 0.0);
    assert!(text.contains("tidegate_build_info{version=\""));
    let ledger = world.gateway.ledger();
    live.finish(PATIENCE).ok();
    world.gateway.until_no_lease(PATIENCE);
    assert!(ledger.entries.len() as f64 >= number(&text, "tidegate_ledger_entries"));
}

#[test]
fn nothing_that_comes_from_the_network_becomes_a_label() {
    let world = plan().only_ssh().start();
    world.ssh("carol", "secret-login@secret-target", &["true"]).exited(1);
    world.ssh("carol", "no;name", &["true"]);
    let text = metrics(&world);
    for label in ["carol", "secret", "no;name", "127.0.0.1"] {
        assert!(!text.contains(label), "{label} in\n{text}");
    }
}

#[test]
fn ready_is_what_the_gateway_is_and_alive_is_that_it_answers() {
    let mut world = plan().only_ssh().change("drain = \"0s\"", "drain = \"10m\"").start();
    let at = world.gateway.metrics();
    assert_eq!(get(at, "/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(get(at, "/healthz").0, 200);
    assert_eq!(get(at, "/nothing").0, 404);
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let session = world.ssh_start("alice", "deploy@web-1", &["echo on; cat"]);
    session.until_stdout("on", PATIENCE);
    world.gateway.signal(Signal::TERM);
    session.until_stderr("is being stopped", PATIENCE);
    let (status, why) = get(at, "/readyz");
    assert_eq!((status, why.as_str()), (503, "the gateway is stopping\n"));
    assert_eq!(get(at, "/healthz").0, 200);
    session.finish(PATIENCE).ok();
    assert_eq!(world.gateway.ended(PATIENCE), Some(0));
}

#[test]
fn a_store_that_somebody_else_wrote_to_is_not_ready() {
    let world = plan().only_ssh().start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let db = rusqlite::Connection::open(world.gateway.state().join("tidegate.db")).expect("the store");
    db.busy_timeout(PATIENCE).expect("patience");
    db.execute("UPDATE grants SET token = token || 'x'", []).expect("tampering");
    let (status, why) = get(world.gateway.metrics(), "/readyz");
    assert_eq!(status, 503, "{why}");
    assert_eq!(number(&metrics(&world), "tidegate_ready"), 0.0);
}
