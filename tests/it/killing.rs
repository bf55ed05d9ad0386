//! SIGKILL at random moments, with sessions in every state: opening, at work, being torn down. Each time the gateway starts
//! again at once, and must put in order what its lease table says, while new sessions open.
//!
//! `TIDEGATE_TEST_KILLS` says how often; `./tests/run --kills 300` is how to ask for more. `TIDEGATE_TEST_SEED` repeats a run.

use jiff::SignedDuration;
use serde_json::Value;
use std::{
    collections::HashSet,
    env, fmt,
    str::FromStr,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tidegate_tests::{
    Running, World,
    evidence::at,
    secs, wait_until,
    world::{PATIENCE, Plan},
};

/// After the last kill: certificates of a minute have to end, and the reaper backs off when it must.
const REAPED: Duration = secs(180);
/// DESIGN, promise 4: so long after its grant has ended nothing may be left.
const GRACE: SignedDuration = SignedDuration::from_secs(60);
/// No moment of a session's life is later than this, but for its being idle, in a debug build on a busy machine.
const LONGEST: u64 = 1500;
/// Statements of one session: it does not come to its end by itself.
const STATEMENTS: usize = 1500;

fn given<T: FromStr>(variable: &str) -> Option<T>
where
    T::Err: fmt::Debug,
{
    env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// xorshift64: moments need no better.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A session that makes a table, and then says without end where it is.
fn psql(world: &World, password: &str, name: &str) -> Running {
    let conninfo = world.conninfo("alice~readwrite", "orders/shop");
    let mut client = Running::start(world.psql_command(&conninfo, password, &["-Atq"]));
    let mut script = format!("create table t_{name} (n int);\n");
    for n in 0..STATEMENTS {
        script.push_str(&format!("select 'mark_{name}_{n}_';\n"));
    }
    // On a thread: a pipe holds less, and the client may be dead before it has read all.
    let mut stdin = client.take_stdin();
    thread::spawn(move || std::io::Write::write_all(&mut stdin, script.as_bytes()));
    client
}

/// Every `mark_…_` in a text.
fn marks(text: &str) -> HashSet<&str> {
    text.split("mark_").skip(1).filter_map(|rest| rest.split_once("_'")).map(|(mark, _)| mark).collect()
}

/// Nothing is on the targets, the ledger is intact, and each recording can be read to its last frame.
fn assert_in_order(world: &World) -> Vec<Value> {
    world.gateway.until_no_lease(REAPED);
    world.gateway.verify_ledger().ok();
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
    let sshd = world.sshd.as_ref().unwrap();
    wait_until(secs(30), "the sessions' processes are gone", || sshd.processes().is_empty().then_some(()));
    let ledger = world.gateway.ledger();
    for closed in ledger.all("lease.closed") {
        let opened = ledger.all("lease.opened").into_iter().find(|opened| opened["lease"] == closed["lease"]).unwrap();
        let deadline = opened["detail"]["lease"]["deadline"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        assert!(at(closed).duration_since(deadline) <= GRACE, "{closed} was closed too late: {opened}");
    }
    world.gateway.recordings()
}

#[test]
fn however_often_and_whenever_it_is_killed_nothing_is_left_and_nothing_is_missing() {
    let kills: usize = given("TIDEGATE_TEST_KILLS").unwrap_or(6);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = given("TIDEGATE_TEST_SEED").unwrap_or(now | 1);
    eprintln!("TIDEGATE_TEST_SEED={seed}");
    let mut dice = Dice(seed);
    let mut world = Plan::new().postgresql_conf("log_statement = 'all'").start();
    for kill in 0..kills {
        // Short ones, so that what is left until too late would be seen.
        world.gateway.grant("alice", "orders", "readwrite", "1m");
        world.gateway.grant("alice", "web-1", "shell", "1m");
        let password = world.password("alice", "orders");
        let mut clients = Vec::new();
        for n in 0..3 {
            clients.push(psql(&world, &password, &format!("{kill}_{n}")));
            let command = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.02; done";
            clients.push(world.ssh_start("alice", "deploy@web-1", &[command]));
            thread::sleep(Duration::from_millis(dice.below(150)));
        }
        // Some leave by themselves: the kill may come while their accounts are torn down.
        thread::sleep(Duration::from_millis(dice.below(LONGEST / 2)));
        let leave = dice.below(3) as usize;
        clients.drain(..leave * 2).for_each(drop);
        thread::sleep(Duration::from_millis(dice.below(LONGEST / 2)));
        world.gateway.kill9();
        clients.into_iter().for_each(|client| drop(client.finish(PATIENCE)));
        world.gateway.start();
    }
    let recordings = assert_in_order(&world);
    for recording in &recordings {
        assert!(["complete", "truncated"].contains(&recording["state"].as_str().unwrap()), "{recording}");
    }
    assert_recorded(&world, &recordings);
    world.gateway.grant("alice", "web-1", "shell", "1m");
    world.gateway.grant("alice", "orders", "readonly", "1m");
    world.psql("alice~readonly", "select 1").ok();
    world.ssh("alice", "deploy@web-1", &["true"]).ok();
}

/// Each statement that the server ran is in a recording: it was written there first.
fn assert_recorded(world: &World, recordings: &[Value]) {
    let log = world.pg().log();
    let mut ran = marks(&log);
    eprintln!("{} recordings, {} statements ran", recordings.len(), ran.len());
    assert!(!ran.is_empty(), "no session came as far as its statements");
    for recording in recordings {
        let events = world.gateway.events(recording["session"].as_str().unwrap());
        let text = events.iter().map(ToString::to_string).collect::<String>();
        let recorded = marks(&text);
        ran.retain(|mark| !recorded.contains(mark));
    }
    assert!(ran.is_empty(), "the server ran what is in no recording: {ran:?}");
}
