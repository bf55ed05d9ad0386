//! How a session begins, whatever the client: encryption, versions of the protocol, settings; and how it is cancelled.

use crate::{
    raw::{self, Raw, Start, V3_0, V3_2, query, tags},
    wire,
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::Command,
};
use tidegate_tests::{
    Running, World,
    config::PUBLIC_NAME,
    daemon::Signal,
    postgres::{binary, release, version},
    running::run,
    wait_until,
    world::PATIENCE,
};

fn world() -> World {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    world
}

/// What a session that starts like this is told instead of a welcome.
fn refusal(world: &World, start: &Start<'_>) -> raw::Reply {
    match Raw::start(wire::tls(world), start) {
        Ok(session) => panic!("{start:?} was let in: {:?}", session.greeting),
        Err(replies) => replies.last().unwrap_or_else(|| panic!("{start:?} was told nothing")).clone(),
    }
}

#[test]
fn settings_of_the_list_reach_the_target() {
    let world = world();
    let password = world.password("alice", "orders");
    let settings = [
        ("application_name", "a test's own"),
        ("bytea_output", "escape"),
        ("client_encoding", "LATIN1"),
        ("client_min_messages", "error"),
        ("DateStyle", "German, DMY"),
        ("default_transaction_deferrable", "on"),
        ("default_transaction_isolation", "serializable"),
        ("default_transaction_read_only", "on"),
        ("extra_float_digits", "3"),
        ("geqo", "off"),
        ("idle_in_transaction_session_timeout", "41min"),
        ("idle_session_timeout", "42min"),
        ("IntervalStyle", "iso_8601"),
        ("jit", "off"),
        ("lock_timeout", "43s"),
        ("standard_conforming_strings", "off"),
        ("statement_timeout", "44s"),
        ("TimeZone", "Asia/Tokyo"),
    ];
    let mut session = Raw::start(wire::tls(&world), &Start { more: &settings, ..raw::gate(&password) }).unwrap();
    for (name, value) in settings {
        assert_eq!(session.first_column(&format!("show {name}")), [value], "{name}");
    }
    let options = [("options", r"-c geqo=off --statement-timeout=45s -cTimeZone=Europe/Berlin"), ("jit", "off")];
    let mut session = Raw::start(wire::tls(&world), &Start { more: &options, ..raw::gate(&password) }).unwrap();
    for (name, value) in [("geqo", "off"), ("statement_timeout", "45s"), ("TimeZone", "Europe/Berlin"), ("jit", "off")]
    {
        assert_eq!(session.first_column(&format!("show {name}")), [value], "{name}");
    }
}

#[test]
fn settings_outside_the_list_and_duplicates_are_refused_with_words() {
    let world = world();
    let password = world.password("alice", "orders");
    let not_accepted = |name: &str| format!("the start-up parameter \"{name}\" is not accepted here");
    let twice = |name: &str| format!("the start-up parameter \"{name}\" was given twice");
    let options = "start-up options are accepted only as -c NAME=VALUE or --NAME=VALUE".to_owned();
    for (more, says, next) in [
        (&[("replication", "database")][..], not_accepted("replication"), "replication does not go through the gate"),
        (&[("replication", "false")], not_accepted("replication"), "replication does not go through the gate"),
        (&[("search_path", "evil")], not_accepted("search_path"), "use SET"),
        (&[("role", "shop_owner")], not_accepted("role"), "use SET"),
        (&[("options", "-c post_auth_delay=9")], not_accepted("post_auth_delay"), "use SET"),
        (&[("options", "-W 9")], options, "use SET"),
        (&[("user", "bob")], twice("user"), "once"),
        (&[("database", "orders/shop")], twice("database"), "once"),
        (&[("jit", "on"), ("JIT", "off")], twice("jit"), "once"),
        (&[("jit", "on"), ("options", "--jit=off")], twice("jit"), "once"),
    ] {
        let told = refusal(&world, &Start { more, ..raw::gate(&password) });
        assert_eq!((told.field(b'S').as_str(), told.field(b'C').as_str()), ("FATAL", "28000"), "{told:?}");
        assert_eq!(told.field(b'M'), says);
        assert!(told.field(b'H').contains(next), "{more:?}: {told:?}");
    }
}

#[test]
fn what_the_target_says_of_a_setting_or_of_room_reaches_the_person() {
    let world = world();
    let password = world.password("alice", "orders");
    let more = [("DateStyle", "nonsense")];
    let told = refusal(&world, &Start { more: &more, ..raw::gate(&password) });
    assert_eq!(told.field(b'C'), "22023", "{told:?}");
    assert!(told.field(b'M').starts_with("orders says: invalid value for parameter"), "{told:?}");
    world.gateway.until_no_lease(PATIENCE);
}

#[test]
fn gss_encryption_is_declined_and_tls_goes_on_from_there() {
    const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];
    let world = world();
    let password = world.password("alice", "orders");
    let ask = |stream: &mut TcpStream, request: &[u8]| {
        let mut answer = [0];
        stream.write_all(request).unwrap();
        stream.read_exact(&mut answer).unwrap();
        answer
    };
    let mut stream = wire::connect(&world);
    assert_eq!(ask(&mut stream, &GSS_REQUEST), *b"N");
    assert_eq!(ask(&mut stream, &wire::SSL_REQUEST), *b"S");
    let tls = wire::over(stream, wire::tls_config(&world), PUBLIC_NAME);
    let mut session = Raw::start(tls, &raw::gate(&password)).unwrap();
    assert_eq!(session.first_column("select 'in'"), ["in"]);
    // The other way round, TLS has begun, and this is none.
    let mut stream = wire::connect(&world);
    assert_eq!(ask(&mut stream, &wire::SSL_REQUEST), *b"S");
    stream.write_all(&GSS_REQUEST).unwrap();
    let said = wire::read_to_close(&mut stream);
    assert!(!said.contains(&b'N') && !said.contains(&b'E'), "{said:?}");
    // And after GSS a session in clear is still none.
    let mut stream = wire::connect(&world);
    assert_eq!(ask(&mut stream, &GSS_REQUEST), *b"N");
    stream.write_all(&wire::startup(&[(b"user", b"alice"), (b"database", b"orders/shop")])).unwrap();
    let said = String::from_utf8_lossy(&wire::read_to_close(&mut stream)).into_owned();
    assert!(said.contains("TLS is required here"), "{said}");
}

#[test]
fn each_sslmode_does_what_its_users_expect_and_a_refused_visit_is_told_once() {
    let world = world();
    let password = world.password("alice", "orders");
    let conninfo = world.conninfo("alice", "orders/shop");
    let mut refused = 0;
    // What psql exits with, and how many refusals the ledger hears of, with the right and with a wrong password.
    for (mode, right, wrong) in [
        ("disable", (2, 1), (2, 1)),
        // It says the name in clear first: that is refused, and then it comes over TLS.
        ("allow", (0, 1), (2, 2)),
        ("prefer", (0, 0), (2, 1)),
        ("require", (0, 0), (2, 1)),
        ("verify-ca", (0, 0), (2, 1)),
        ("verify-full", (0, 0), (2, 1)),
    ] {
        let conninfo = conninfo.replace("verify-full", mode);
        for (password, (code, count)) in [(password.as_str(), right), ("wrong", wrong)] {
            let output = run(world.psql_command(&conninfo, password, &["-c", "select 1"]), PATIENCE).exited(code);
            refused += count;
            assert_eq!(world.gateway.ledger().count("door.refused"), refused, "{mode}: {}", output.err());
            if mode == "disable" {
                output.says("TLS is required here").says("sslmode=verify-full");
            }
        }
    }
    // The gate's certificate is for its public names: verify-full looks, verify-ca does not.
    let elsewhere = conninfo.replace(PUBLIC_NAME, "gate.elsewhere.test");
    let try_with = |conninfo: &str| run(world.psql_command(conninfo, &password, &["-c", "select 1"]), PATIENCE);
    try_with(&elsewhere).exited(2).says("does not match host name");
    try_with(&elsewhere.replace("verify-full", "verify-ca")).ok();
}

/// `psql` of this machine, and of each other version that is here.
fn clients() -> Vec<(u32, PathBuf)> {
    let mut clients = vec![(version(), binary("psql"))];
    for number in [14, 15, 16, 17, 18] {
        match release(number) {
            Some(folder) if number != version() => clients.push((number, folder.join("psql"))),
            None if number != version() => eprintln!("SKIPPED: psql {number} is not here; ./tests/run fetches it"),
            _ => {}
        }
    }
    clients
}

/// The same command, with another `psql`.
fn with_program(program: &PathBuf, command: &Command) -> Command {
    let mut other = Command::new(program);
    other.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    other
}

#[test]
fn psql_of_every_version_here_logs_in_in_each_of_its_ways_and_cancels() {
    let world = world();
    let password = world.password("alice", "orders");
    let conninfo = world.conninfo("alice", "orders/shop");
    for (number, program) in clients() {
        let mut ways = vec!["", "channel_binding=require"];
        ways.extend((number >= 17).then_some("sslnegotiation=direct"));
        ways.extend((number >= 18).then_some("min_protocol_version=3.2 max_protocol_version=latest"));
        ways.extend((number >= 18).then_some("max_protocol_version=latest sslnegotiation=direct"));
        for way in ways {
            let command = world.psql_command(&format!("{conninfo} {way}"), &password, &[]);
            let mut psql = Running::start(with_program(&program, &command));
            psql.send("select 'ready ' || pg_backend_pid();\nselect pg_sleep(600);\n");
            psql.until_stdout("\n", PATIENCE);
            let pid = psql.stdout().trim().trim_start_matches("ready ").to_owned();
            until_asleep(&world, &pid);
            psql.signal(Signal::INT);
            psql.until_stderr("57014", PATIENCE);
            psql.close_stdin();
            psql.finish(PATIENCE);
            println!("psql {number} {way}: in, and cancelled");
        }
    }
}

/// Waits until this backend sleeps in a statement.
fn until_asleep(world: &World, pid: &str) {
    let asleep = format!("select count(*) from pg_stat_activity where pid = {pid} and wait_event = 'PgSleep'");
    wait_until(PATIENCE, "the statement runs", || (world.pg().ask("postgres", &asleep) == "1").then_some(()));
}

#[test]
fn a_key_of_either_length_cancels_by_each_way_in_and_only_whole() {
    let world = world();
    let password = world.password("alice", "orders");
    for (word, length) in [(V3_0, 4), (V3_0 + 1, 4), (V3_2, 32)] {
        let start = Start { version: word, ..raw::gate(&password) };
        let mut session = Raw::start(wire::tls(&world), &start).unwrap();
        assert!(!tags(&session.greeting).contains('v'), "spoken as asked: {:?}", session.greeting);
        let key = session.key().to_vec();
        assert_eq!(key.len(), 4 + length);
        let pid = session.first_column("select pg_backend_pid()::text").remove(0);
        let request = |key: &[u8]| wire::sized(&[&80_877_102u32.to_be_bytes(), key].concat());
        let mut shorter = wire::connect(&world);
        let mut others: [Box<dyn ReadWrite>; 3] = [
            Box::new(wire::connect(&world)),
            Box::new(wire::tls(&world)),
            Box::new(wire::direct_tls(&world, &[b"postgresql"])),
        ];
        session.send(&query("select pg_sleep(600)"));
        until_asleep(&world, &pid);
        shorter.write_all(&request(&key[..key.len() - 1])).unwrap();
        wire::read_to_close(&mut shorter);
        until_asleep(&world, &pid);
        for (nth, other) in others.iter_mut().enumerate() {
            if nth > 0 {
                session.send(&query("select pg_sleep(600)"));
                until_asleep(&world, &pid);
            }
            other.write_all(&request(&key)).unwrap();
            assert_eq!(wire::read_to_close(other), b"", "whoever cancels is told nothing");
            assert_eq!(session.until(b'E').last().unwrap().field(b'C'), "57014");
            session.until(b'Z');
        }
        assert_eq!(session.first_column("select 'goes on'"), ["goes on"]);
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

#[test]
fn a_later_version_and_unknown_options_are_negotiated_and_the_session_works() {
    let world = world();
    let password = world.password("alice", "orders");
    let shiny: &[(&str, &str)] = &[("_pq_.shiny", "1"), ("_pq_.new", "2")];
    let both = b"_pq_.shiny\0_pq_.new\0".to_vec();
    for (asked, more, spoken, options) in [
        (V3_0 + 9999, shiny, V3_2, (2u32, both.clone())),
        (V3_0 + 3, &[], V3_2, (0, vec![])),
        (V3_2, shiny, V3_2, (2, both.clone())),
        (V3_0, shiny, V3_0, (2, both)),
    ] {
        let start = Start { version: asked, more, ..raw::gate(&password) };
        let mut session = Raw::start(wire::tls(&world), &start).unwrap();
        let first = &session.greeting[0];
        let (count, names) = options;
        assert_eq!(first.tag, b'v', "before anything else: {first:?}");
        assert_eq!(first.body, [&spoken.to_be_bytes()[..], &count.to_be_bytes(), &names].concat());
        assert_eq!(session.first_column("select 'works'"), ["works"]);
    }
    let told = refusal(&world, &Start { version: 2 << 16, ..raw::gate(&password) });
    assert_eq!(told.field(b'C'), "0A000", "{told:?}");
    let told = refusal(&world, &Start { version: 4 << 16, ..raw::gate(&password) });
    assert_eq!(told.field(b'C'), "0A000", "{told:?}");
}

#[test]
fn libpq_17_and_18_cancel_inside_tls() {
    let world = world();
    let password = world.password("alice", "orders");
    let conninfo = format!("{} password={password}", world.conninfo("alice", "orders/shop"));
    let (direct, latest) = ("sslnegotiation=direct", "max_protocol_version=latest");
    for (number, way, spoken) in [(17, "", 30000), (17, direct, 30000), (18, "", 30000), (18, latest, 30002)] {
        let Some(folder) = release(number) else {
            eprintln!("SKIPPED: libpq {number} is not here; ./tests/run fetches it");
            continue;
        };
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-c", include_str!("clients/with_libpq.py")]).arg(folder.join("../lib/libpq.so.5"));
        python.arg(format!("{conninfo} {way}"));
        let mut client = Running::start(python);
        client.until_stdout("\n", PATIENCE);
        until_asleep(&world, client.stdout().trim());
        client.send("now\n");
        let output = client.finish(PATIENCE).ok();
        assert!(output.out().ends_with(&format!("57014 {spoken} goes on")), "libpq {number} {way}: {}", output.out());
    }
}
