//! SIGKILL at random moments, with sessions in every state: opening, at work, being torn down. Each time the gateway starts
//! again at once, and must put in order what its lease table says, while new sessions open.
//!
//! `TIDEGATE_TEST_KILLS` says how often; `./tests/run --kills 300` is how to ask for more. `TIDEGATE_TEST_SEED` repeats a run.

use jiff::SignedDuration;
use serde_json::Value;
use std::{
    collections::HashSet,
    env, fmt, fs,
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

/// A session that says without end where it is, to a program that keeps each line on the target and answers.
fn shell(world: &World, name: &str) -> Running {
    let command = "while read -r line; do echo \"$line\" >> took; echo \"took $line\"; done";
    let mut client = world.ssh_start("alice", "deploy@web-1", &[command]);
    let (mut stdin, name) = (client.take_stdin(), name.to_owned());
    thread::spawn(move || {
        for n in 0.. {
            // It is over when its client is.
            if std::io::Write::write_all(&mut stdin, format!("mark_{name}_{n}_'\n").as_bytes()).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(3));
        }
    });
    client
}

/// Every `mark_…_` in a text.
fn marks(text: &str) -> HashSet<String> {
    text.split("mark_").skip(1).filter_map(|rest| rest.split_once("_'")).map(|(mark, _)| mark.to_owned()).collect()
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
    let mut received = HashSet::new();
    for kill in 0..kills {
        // Short ones, so that what is left until too late would be seen.
        world.gateway.grant("alice", "orders", "readwrite", "1m");
        world.gateway.grant("alice", "web-1", "shell", "1m");
        let password = world.password("alice", "orders");
        let mut clients = Vec::new();
        for n in 0..3 {
            clients.push(psql(&world, &password, &format!("{kill}_{n}")));
            clients.push(shell(&world, &format!("s{kill}_{n}")));
            thread::sleep(Duration::from_millis(dice.below(150)));
        }
        // Some leave by themselves: the kill may come while their accounts are torn down.
        thread::sleep(Duration::from_millis(dice.below(LONGEST / 2)));
        let leave = dice.below(3) as usize;
        clients.drain(..leave * 2).for_each(drop);
        thread::sleep(Duration::from_millis(dice.below(LONGEST / 2)));
        world.gateway.kill9();
        for client in clients {
            received.extend(marks(&client.end(PATIENCE).out()));
        }
        world.gateway.start();
    }
    let recordings = assert_in_order(&world);
    for recording in &recordings {
        assert!(["complete", "truncated"].contains(&recording["state"].as_str().unwrap()), "{recording}");
    }
    assert_recorded(&world, &recordings, received);
    world.gateway.grant("alice", "web-1", "shell", "1m");
    world.gateway.grant("alice", "orders", "readonly", "1m");
    world.psql("alice~readonly", "select 1").ok();
    world.ssh("alice", "deploy@web-1", &["true"]).ok();
}

/// Each statement that the server ran, each line that a program on the target read, and each that a client received, is in a recording: it
/// was written there first. And of most of it, what is there is signed.
fn assert_recorded(world: &World, recordings: &[Value], mut received: HashSet<String>) {
    let mut ran = marks(&world.pg().log());
    let mut took = marks(&fs::read_to_string(world.sshd().home().join("took")).unwrap());
    eprintln!("{} recordings, {} statements ran, {} lines were read", recordings.len(), ran.len(), took.len());
    eprintln!("{} lines came back (of sessions that a kill ended)", received.len());
    assert!(!ran.is_empty() && !took.is_empty() && !received.is_empty(), "no session came as far as that");
    for recording in recordings {
        let events = world.gateway.events(recording["session"].as_str().unwrap());
        // A line may have come in pieces.
        let said = |streams: &[&str]| -> String {
            let of = |event: &&Value| event["stream"].as_str().is_some_and(|stream| streams.contains(&stream));
            events.iter().filter(of).filter_map(|event| event["text"].as_str()).collect()
        };
        let statements: String =
            events.iter().filter(|event| event["event"] == "statement").map(ToString::to_string).collect();
        let (statements, up, down) = (marks(&statements), marks(&said(&["stdin"])), marks(&said(&["stdout"])));
        ran.retain(|mark| !statements.contains(mark));
        took.retain(|mark| !up.contains(mark));
        received.retain(|mark| !down.contains(mark));
    }
    assert!(ran.is_empty(), "the server ran what is in no recording: {ran:?}");
    assert!(took.is_empty(), "a program read what is in no recording: {took:?}");
    assert!(received.is_empty(), "a client received what is in no recording: {received:?}");
    let signed = |recording: &&Value| {
        let path = recording["path"].as_str().unwrap();
        world.gateway.cli(&["recording", "recover", path]).out().contains("PROVEN      frames 1 to")
    };
    let proven = recordings.iter().filter(signed).count();
    eprintln!("of {proven} of {} recordings a prefix is proven", recordings.len());
    assert_eq!(proven, recordings.len(), "each begins with a signature");
}
