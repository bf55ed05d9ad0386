//! Who holds no grant asks where they are, waits, and goes on: real ssh and psql, approved from a second connection.

use crate::{
    asking::{id, plan},
    certificate::{EC, certified},
    terminal::expect,
};
use tidegate_tests::{
    Running, World,
    daemon::Signal,
    world::{PATIENCE, Plan},
};

const BY_SALES: &str = "[{ from = [\"sales\"] }]";
/// Opens a terminal and answers what is asked there.
const ASKED: &str = "eval spawn -noecho $ssh\nexpect {Why: }\nsend \"fix the disk\\r\"\nexpect {For how long}\n\
    send \"10m\\r\"\nexpect {awaits 1 of sales (level 1): carol}\nexpect {waiting 0:}\nputs stderr WAITS\n";

/// The id of the one request that is open, once there is one.
fn open_request(world: &World) -> String {
    world.gateway.until_ledger("request.opened", 1, PATIENCE);
    let open = world.gateway.list(&["request", "list"]);
    assert_eq!(open.len(), 1, "{open:?}");
    open[0]["id"].as_str().unwrap().to_owned()
}

fn approve(world: &World, id: &str) {
    world.control("carol", &[&format!("approve {id}")]).ok();
}

#[test]
fn somebody_in_a_terminal_is_asked_there_waits_and_goes_straight_on() {
    let world = plan(BY_SALES).start();
    let script = format!(
        "{ASKED}expect {{granted for 10m, approved by carol}}\nexpect {{$ }}\nsend \"stty size; exit 3\\r\"\n\
         expect {{41 97}}\nexpect eof\nexit [lindex [wait] 3]\n"
    );
    let terminal = expect(&world, &script);
    terminal.until_stderr("WAITS", PATIENCE);
    let ledger = world.gateway.ledger();
    assert_eq!((ledger.count("session.opened"), ledger.count("credential.minted")), (0, 0), "{}", ledger.story());
    let request = open_request(&world);
    assert_eq!(world.gateway.list(&["request", "list"])[0]["login"], "deploy", "no more than what was typed");
    approve(&world, &request);
    terminal.finish(PATIENCE).exited(3);
    let ledger = world.gateway.until_ledger("session.closed", 1, PATIENCE);
    assert_eq!(ledger.one("session.opened")["grant"], ledger.one("request.granted")["grant"]);
    world.gateway.verify_ledger().ok();
}

#[test]
fn a_denial_ends_the_waiting_and_says_why() {
    let world = plan(BY_SALES).start();
    let terminal =
        expect(&world, &format!("{ASKED}expect {{denied by carol: not today}}\nexpect eof\nexit [lindex [wait] 3]\n"));
    terminal.until_stderr("WAITS", PATIENCE);
    let request = open_request(&world);
    world.control("carol", &[&format!("deny {request} --reason not today")]).ok();
    terminal.finish(PATIENCE).exited(1);
    assert_eq!(world.gateway.ledger().count("session.opened"), 0);
}

#[test]
fn ctrl_c_takes_the_request_back_and_hanging_up_leaves_it() {
    let world = plan(BY_SALES).start();
    let terminal = expect(&world, &format!("{ASKED}send \"\\003\"\nexpect {{is taken back}}\nexpect eof\n"));
    terminal.finish(PATIENCE).ok();
    assert_eq!(world.gateway.ledger().count("request.cancelled"), 1);
    let ssh = with_reason(&world, &["cat"]);
    ssh.until_stderr("awaits 1 of sales", PATIENCE);
    let open = world.gateway.list(&["request", "list"])[0]["id"].as_str().unwrap().to_owned();
    drop(ssh); // killed
    approve(&world, &open);
    world.exec("alice", "echo in").ok();
}

/// `ssh` without a terminal that says why by a variable.
fn with_reason(world: &World, command: &[&str]) -> Running {
    let set = ["-o", "SetEnv=TIDEGATE_REASON=\"fix the disk\" TIDEGATE_FOR=10m"];
    Running::start(world.ssh_command("alice", &set, "deploy@web-1", command))
}

#[test]
fn without_a_terminal_it_waits_only_if_a_variable_says_why_and_its_stdin_stays_the_programs() {
    let world = plan(BY_SALES).start();
    world.exec("alice", "true").exited(77).says("ssh gate request web-1/shell --reason WHY");
    let mut ssh = with_reason(&world, &["cat; env"]);
    ssh.send("typed before anything was granted\n");
    ssh.close_stdin();
    ssh.until_stderr("awaits 1 of sales (level 1): carol", PATIENCE);
    let request = open_request(&world);
    approve(&world, &request);
    let output = ssh.finish(PATIENCE).ok();
    assert!(output.out().starts_with("typed before anything was granted\n"), "{}", output.out());
    assert!(!output.out().contains("TIDEGATE_"), "what is said to the gate is not the target's: {}", output.out());
    assert!(output.err().contains("granted for 10m, approved by carol"), "{}", output.err());
    // A file goes the same way.
    let again = Running::start(world.ssh_command("alice", &[], "deploy@web-1", &["echo again"]));
    again.finish(PATIENCE).ok();
}

#[test]
fn who_waits_for_what_was_edited_meanwhile_waits_no_longer() {
    let world = plan(BY_SALES).start();
    let ssh = with_reason(&world, &["true"]);
    ssh.until_stderr("awaits 1 of sales", PATIENCE);
    let first = open_request(&world);
    let other = id(world.control("alice", &["request web-1 --for 20m --reason something else"]));
    ssh.finish(PATIENCE).exited(1).says("replaced by the request");
    world.control("carol", &[&format!("approve {first}")]).exited(1);
    let ssh = with_reason(&world, &["echo in"]);
    ssh.until_stderr("awaits 1 of sales", PATIENCE);
    approve(&world, &other);
    ssh.finish(PATIENCE).ok();
}

#[test]
fn a_gateway_that_stops_sends_who_waits_away_and_the_request_stands() {
    let mut world = plan(BY_SALES).change("drain = \"0s\"", "drain = \"50s\"").start();
    let ssh = with_reason(&world, &["echo in"]);
    ssh.until_stderr("awaits 1 of sales", PATIENCE);
    let request = open_request(&world);
    world.gateway.signal(Signal::TERM);
    ssh.finish(PATIENCE).exited(1).says("the gateway is being stopped; your request");
    assert_eq!(world.gateway.ended(PATIENCE), Some(0));
    world.gateway.start();
    approve(&world, &request);
    world.exec("alice", "echo in").ok();
}

#[test]
fn without_a_level_to_satisfy_it_is_granted_where_one_stands() {
    let world = plan("[]").start();
    with_reason(&world, &["echo in"]).finish(PATIENCE).ok().says("granted for 10m");
    let ledger = world.gateway.ledger();
    assert_eq!((ledger.count("request.granted"), ledger.count("request.approved")), (1, 0));
}

fn databases() -> World {
    let roles = "roles = [\"shop_reader\"]";
    let world = Plan::new().only_postgres().change(roles, &format!("{roles}\napprovals = {BY_SALES}")).start();
    certified(&world, "alice", EC);
    world
}

/// psql as alice with a certificate: she holds nothing that a password could be for.
fn psql(world: &World, options: &str) -> Running {
    let file = |extension: &str| world.dir().join(format!("alice.{extension}")).display().to_string();
    let conninfo = world.conninfo("alice~readonly", "orders/shop");
    let conninfo = format!("{conninfo} sslcert={} sslkey={}", file("crt"), file("key"));
    let mut command = world.psql_command(&conninfo, "", &["-w", "-c", "select 'in', count(*) from items"]);
    command.env("PGOPTIONS", options);
    Running::start(command)
}

#[test]
fn psql_logs_in_first_is_told_who_is_asked_and_is_ready_with_the_last_approval() {
    let world = databases();
    let waiting = psql(&world, "-c tidegate.reason=fix\\ the\\ index -c tidegate.wait=10m");
    waiting.until_stderr("NOTICE", PATIENCE);
    waiting.until_stderr("awaits 1 of sales (level 1): carol", PATIENCE);
    let request = open_request(&world);
    assert_eq!(world.gateway.list(&["request", "list"])[0]["reason"], "fix the index");
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
    approve(&world, &request);
    let output = waiting.finish(PATIENCE).ok();
    assert_eq!(output.out(), "in|100");
    assert!(output.err().contains("granted for 30m, approved by carol"), "{}", output.err());
    world.gateway.until_no_lease(PATIENCE);
}

#[test]
fn a_driver_that_says_nothing_gets_its_error_at_once_and_one_that_waits_is_told_of_a_denial() {
    let world = databases();
    let refused = psql(&world, "").finish(PATIENCE).exited(2);
    for said in ["FATAL", "you hold no grant", "ssh gate request orders/readonly --reason WHY", "tidegate.wait"] {
        assert!(refused.err().contains(said), "{}", refused.err());
    }
    let waiting = psql(&world, "-c tidegate.reason=x");
    waiting.until_stderr("awaits 1 of sales", PATIENCE);
    let request = open_request(&world);
    let second = psql(&world, "-c tidegate.wait=10m");
    second.until_stderr("awaits 1 of sales", PATIENCE);
    drop(second); // killed: the request stands, and the other goes on waiting
    world.control("carol", &[&format!("deny {request} --reason not now")]).ok();
    waiting.finish(PATIENCE).exited(2).says("denied by carol: not now");
    psql(&world, "-c tidegate.reason=x -c tidegate.wait=1s")
        .finish(PATIENCE)
        .exited(2)
        .says("nobody has decided in time");
}

/// The number behind this word on stderr.
fn number(said: &str, word: &str) -> i64 {
    let behind = said.split(word).nth(1).unwrap_or_else(|| panic!("no {word} in {said}"));
    behind.split_whitespace().next().unwrap().parse().unwrap()
}

/// How long it takes is printed, and asserted nowhere: the machine has other things to do.
#[test]
fn from_the_last_approval_to_the_prompt_it_is_measured_and_so_is_a_login_with_a_grant() {
    let world = plan(BY_SALES).start();
    let (mut waited, mut logins) = (Vec::new(), Vec::new());
    for round in 1..=5 {
        let script = format!(
            "{ASKED}expect {{$ }}\nputs stderr \"PROMPT [clock milliseconds]\"\nsend \"exit\\r\"\nexpect eof\n"
        );
        let terminal = expect(&world, &script);
        terminal.until_stderr("WAITS", PATIENCE);
        world.gateway.until_ledger("request.opened", round, PATIENCE);
        let open = world.gateway.list(&["request", "list"]).remove(0);
        approve(&world, open["id"].as_str().unwrap());
        let prompt = number(&terminal.finish(PATIENCE).ok().err(), "PROMPT ");
        let ledger = world.gateway.ledger();
        let granted =
            ledger.last("request.granted").unwrap()["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        waited.push(prompt - granted.as_millisecond());
        // The same with a grant, from the start of `ssh`.
        let script = "set start [clock milliseconds]\neval spawn -noecho $ssh\nexpect {$ }\n\
                      puts stderr \"LOGIN [expr {[clock milliseconds] - $start}]\"\nsend \"exit\\r\"\nexpect eof\n";
        logins.push(number(&expect(&world, script).finish(PATIENCE).ok().err(), "LOGIN "));
        let grant = world.gateway.list(&["grant", "list"]).remove(0);
        world.control("alice", &[&format!("return {}", grant["id"].as_str().unwrap())]).ok();
    }
    assert!(waited.iter().all(|took| *took >= 0), "no prompt before the approval: {waited:?}");
    for (what, took) in
        [("the last approval to the prompt", &mut waited), ("`ssh` with a grant to the prompt", &mut logins)]
    {
        took.sort_unstable();
        println!("MEASURED from {what}: {} ms (median of {took:?})", took[took.len() / 2]);
    }
}
