//! Wrong input at both doors: a clear message in the client, a ledger entry, and a gateway that goes on.

use crate::wire;
use std::io::{Read, Write};
use tidegate_tests::{
    World,
    running::run,
    world::{PATIENCE, Plan},
};

/// The gateway still serves alice.
fn goes_on(world: &mut World) {
    world.gateway.assert_alive();
    if world.postgres.is_some() {
        world.psql("alice", "select 1").ok();
    } else {
        world.exec("alice", "true").ok();
    }
    world.gateway.verify_ledger().ok();
}

fn postgres() -> World {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    world
}

fn ssh() -> World {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world
}

#[test]
fn lengths_of_0_3_and_2_to_the_31_are_refused_before_and_inside_tls() {
    let mut world = postgres();
    let mut refused = 0;
    for length in [0_u32, 3, 4, 7, 1 << 31, u32::MAX, 100_000] {
        let packet = [&length.to_be_bytes()[..], &[0, 3, 0, 0], &[b'x'; 64]].concat();
        let mut plain = wire::connect(&world);
        plain.write_all(&packet).unwrap();
        wire::read_to_close(&mut plain);
        let mut tls = wire::tls(&world);
        tls.write_all(&packet).unwrap();
        wire::read_to_close(&mut tls);
        refused += 2;
    }
    let ledger = world.gateway.until_ledger("door.refused", 1, PATIENCE);
    assert!(ledger.count("door.refused") <= refused, "{}", ledger.story());
    goes_on(&mut world);
}

#[test]
fn message_lengths_of_0_3_and_2_to_the_31_end_a_session_in_good_order() {
    let mut world = postgres();
    for length in [0_u32, 3, 1 << 31, u32::MAX] {
        let mut tls = wire::tls(&world);
        tls.write_all(&wire::startup(&[(b"user", b"alice"), (b"database", b"orders/shop")])).unwrap();
        let mut head = [0; 5];
        tls.read_exact(&mut head).unwrap();
        assert_eq!(head[0], b'R', "the gateway asks for a password");
        let mut rest = vec![0; u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4];
        tls.read_exact(&mut rest).unwrap();
        tls.write_all(&[&b"p"[..], &length.to_be_bytes(), &[b'x'; 32]].concat()).unwrap();
        wire::read_to_close(&mut tls);
    }
    goes_on(&mut world);
}

#[test]
fn bytes_stuffed_behind_the_tls_request_close_the_connection() {
    let mut world = postgres();
    let mut stream = wire::connect(&world);
    let stuffed = wire::startup(&[(b"user", b"alice"), (b"database", b"orders/shop")]);
    stream.write_all(&[&wire::SSL_REQUEST[..], &stuffed].concat()).unwrap();
    let answer = wire::read_to_close(&mut stream);
    assert!(!answer.starts_with(b"S"), "{answer:?}");
    world.gateway.until_ledger("door.refused", 1, PATIENCE);
    goes_on(&mut world);
}

#[test]
fn a_start_up_without_tls_is_told_to_use_it() {
    let mut world = postgres();
    let mut stream = wire::connect(&world);
    stream.write_all(&wire::startup(&[(b"user", b"alice"), (b"database", b"orders/shop")])).unwrap();
    let answer = String::from_utf8_lossy(&wire::read_to_close(&mut stream)).into_owned();
    assert!(answer.starts_with('E') && answer.contains("28000") && answer.contains("TLS"), "{answer:?}");
    world.gateway.until_ledger("door.refused", 1, PATIENCE);
    goes_on(&mut world);
}

/// What the gateway answers inside TLS to a start-up with these settings.
fn answer_to(world: &World, settings: &[(&[u8], &[u8])]) -> String {
    let mut tls = wire::tls(world);
    tls.write_all(&wire::startup(settings)).unwrap();
    let mut head = [0; 5];
    tls.read_exact(&mut head).unwrap();
    let mut rest = vec![0; u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4];
    tls.read_exact(&mut rest).unwrap();
    String::from_utf8_lossy(&[&head[..1], &rest].concat()).into_owned()
}

#[test]
fn names_outside_their_grammar_are_refused_and_never_repeated_raw() {
    let mut world = postgres();
    let database = (&b"database"[..], &b"orders/shop"[..]);
    for (what, user) in [
        ("a newline", &b"ali\nce"[..]),
        ("an escape", b"\x1b[31malice"),
        ("a quote", b"alice'--"),
        ("not UTF-8", b"\xff\xfe"),
        ("empty", b""),
        ("two tildes", b"alice~a~b"),
    ] {
        let answer = answer_to(&world, &[(b"user", user), database]);
        let code = if what == "not UTF-8" { "08P01" } else { "28000" };
        assert!(answer.starts_with('E') && answer.contains(code), "{what}: {answer:?}");
        assert!(!answer.contains('\u{1b}') && !answer.trim_end_matches('\n').contains("ali\nce"), "{what}: {answer:?}");
    }
    for database in
        [&b"orders"[..], b"orders/", b"/shop", b"orders/shop/x", b"or\nders/shop", b"orders/sh'op", b"../etc"]
    {
        let answer = answer_to(&world, &[(b"user", b"alice"), (b"database", database)]);
        // Either at once, or after a password that nobody has: never a session.
        assert!(answer.starts_with('E') || answer.starts_with('R'), "{answer:?}");
        assert!(!answer.contains('\u{0}') || !answer.contains("../"), "{answer:?}");
    }
    world.gateway.until_ledger("door.refused", 1, PATIENCE);
    let ledger = world.gateway.cli(&["ledger", "tail", "-n", "50"]).ok();
    assert!(!ledger.out().contains('\u{1b}'), "what a stranger typed reaches no terminal raw");
    goes_on(&mut world);
}

#[test]
fn start_up_settings_outside_the_list_are_refused() {
    let mut world = postgres();
    let who = [(&b"user"[..], &b"alice"[..]), (b"database", b"orders/shop")];
    for (name, value) in [
        (&b"replication"[..], &b"database"[..]),
        (b"options", b"-c role=shop_owner"),
        (b"post_auth_delay", b"60"),
        (b"search_path", b"evil"),
        (b"session_preload_libraries", b"x"),
        (b"user", b"bob"),
    ] {
        let answer = answer_to(&world, &[who[0], who[1], (name, value)]);
        assert!(answer.starts_with('E') && answer.contains("28000"), "{name:?}: {answer:?}");
    }
    goes_on(&mut world);
}

#[test]
fn psql_is_told_clearly_what_is_wrong() {
    let mut world = postgres();
    let password = world.password("alice", "orders");
    let try_as = |user: &str, database: &str, password: &str| {
        run(world.psql_command(&world.conninfo(user, database), password, &["-c", "select 1"]), PATIENCE)
    };
    let wrong_password = try_as("alice", "orders/shop", "wrong").exited(2);
    let unknown_user = try_as("nobody", "orders/shop", "wrong").exited(2);
    let unknown_target = try_as("alice", "payments/shop", "wrong").exited(2);
    // Unknown names look like a wrong password: the door is no oracle.
    let same = |output: &str| {
        let (before, marked) = output.split_once("ref ").expect("a reference, which is another each time");
        let after = marked.get(9..).expect("all of it");
        format!("{before}ref {after}").replace("nobody", "alice").replace("payments", "orders")
    };
    assert_eq!(same(&unknown_user.err()), same(&wrong_password.err()));
    assert_eq!(same(&unknown_target.err()), same(&wrong_password.err()));
    assert!(wrong_password.err().contains("ssh gate password"), "what to do next: {}", wrong_password.err());
    // The right password opens nothing else.
    try_as("alice", "orders/postgres", &password).exited(2).says("you may not open postgres");
    try_as("bob", "orders/shop", &password).exited(2);
    try_as("alice~migrate", "orders/shop", &password).exited(2).says("no grant");
    assert!(world.gateway.ledger().count("door.refused") >= 1);
    assert!(world.gateway.ledger().count("session.denied") >= 1);
    goes_on(&mut world);
}

#[test]
fn a_database_session_without_a_grant_or_after_it_is_refused() {
    let mut world = World::postgres_only();
    world.control("alice", &["password", "orders"]).exited(77).says("you hold no grant");
    let grant = world.gateway.grant("alice", "orders", "readonly", "30m");
    let password = world.password("alice", "orders");
    world.gateway.revoke(&grant);
    let conninfo = world.conninfo("alice", "orders/shop");
    let output = run(world.psql_command(&conninfo, &password, &["-c", "select 1"]), PATIENCE).exited(2);
    assert!(output.err().contains("revoked"), "{}", output.err());
    world.gateway.grant("alice", "orders", "readonly", "30m");
    goes_on(&mut world);
}

#[test]
fn several_fitting_grants_are_ambiguous_until_one_is_named() {
    let world = postgres();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    let password = world.password("alice", "orders");
    let try_as = |user: &str| {
        run(world.psql_command(&world.conninfo(user, "orders/shop"), &password, &["-c", "select 1"]), PATIENCE)
    };
    try_as("alice").exited(2).says("readonly").says("readwrite");
    try_as("alice~readwrite").ok();
    try_as("alice~readonly").ok();
}

#[test]
fn ssh_is_told_clearly_what_is_wrong() {
    let mut world = ssh();
    world.ssh("alice", "root@web-1", &["true"]).exited(1).says("you may not open root on web-1");
    world.ssh("alice", "deploy~nothing@web-1", &["true"]).exited(77).says("no grant");
    world.ssh("bob", "deploy@web-1", &["true"]).exited(77).says("you hold no grant");
    world.ssh("alice", "deploy@web-2", &["true"]).exited(1).says("no target web-2 for you here");
    let ledger = world.gateway.ledger();
    assert!(ledger.count("session.denied") >= 4, "{}", ledger.story());
    goes_on(&mut world);
}

#[test]
fn a_stranger_with_an_unknown_key_gets_no_further_and_is_written_down() {
    let mut world = ssh();
    let output = world.ssh("mallory", "deploy@web-1", &["true"]).exited(255);
    assert!(output.err().contains("Permission denied"), "{}", output.err());
    world.gateway.until_ledger("door.refused", 1, PATIENCE);
    goes_on(&mut world);
}

#[test]
fn strange_names_over_ssh_are_refused_and_never_repeated_raw() {
    let mut world = ssh();
    for door in [
        "deploy@web-1@x",
        "deploy@",
        "@web-1",
        "de,ploy@web-1",
        "deploy@WEB-1",
        "deploy@web-1\nroot",
        "\u{1b}[31mdeploy@web-1",
        "deploy~@web-1",
        "deploy@../../etc",
        "-oProxyCommand=x@web-1",
    ] {
        let mut command = world.ssh_command("alice", &["-o", &format!("User={door}")], "x", &["echo never"]);
        // The name is given as an option: as a destination, ssh itself would judge it.
        let args: Vec<std::ffi::OsString> = command.get_args().map(ToOwned::to_owned).collect();
        let args = args.into_iter().map(|a| if a == "x@127.0.0.1" { "127.0.0.1".into() } else { a });
        let args: Vec<_> = args.collect();
        command = std::process::Command::new("ssh");
        command.args(args);
        let output = run(command, PATIENCE);
        assert_ne!(output.code, Some(0), "{door:?}: {}", output.out());
        assert!(!output.out().contains("never"), "{door:?}");
        assert!(!output.err().contains('\u{1b}'), "{door:?}: {:?}", output.err());
    }
    goes_on(&mut world);
}

#[test]
fn garbage_and_silence_at_the_ssh_door_do_no_harm() {
    let mut world = ssh();
    let mut silent: Vec<std::net::TcpStream> =
        (0..20).map(|_| std::net::TcpStream::connect(world.gateway.ssh()).unwrap()).collect();
    for bytes in [&b"GET / HTTP/1.0\r\n\r\n"[..], &[0; 4096], &[0xff; 70_000], b"SSH-2.0-x\r\n\xff\xff\xff\xff\xff"] {
        let mut stream = std::net::TcpStream::connect(world.gateway.ssh()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).ok();
        wire::read_to_close(&mut stream);
    }
    goes_on(&mut world); // while the silent ones still stand at the door
    let deadline = std::time::Instant::now() + tidegate_tests::secs(90);
    for stream in &mut silent {
        stream.set_read_timeout(Some(deadline.saturating_duration_since(std::time::Instant::now()))).unwrap();
        wire::read_to_close(stream); // every handshake has a deadline
    }
}

#[test]
fn silence_at_the_postgres_door_has_a_deadline() {
    let mut world = postgres();
    let mut silent = wire::connect(&world);
    let mut half = wire::connect(&world);
    half.write_all(&wire::SSL_REQUEST).unwrap();
    let mut inside = wire::tls(&world);
    inside.write_all(&[0, 0]).unwrap();
    goes_on(&mut world);
    for stream in [&mut silent, &mut half] {
        stream.set_read_timeout(Some(tidegate_tests::secs(90))).unwrap();
        wire::read_to_close(stream);
    }
    inside.sock.set_read_timeout(Some(tidegate_tests::secs(90))).unwrap();
    wire::read_to_close(&mut inside);
}

#[test]
fn forwarding_and_subsystems_that_nobody_granted_are_refused() {
    let world = ssh();
    for more in [&["-W", "127.0.0.1:22"][..], &["-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22"]] {
        let mut command = world.ssh_command("alice", more, "deploy@web-1", &[]);
        command.stdin(std::process::Stdio::null());
        let output = run(command, PATIENCE);
        assert_ne!(output.code, Some(0), "{more:?}: {} {}", output.out(), output.err());
    }
}

#[test]
fn an_unknown_key_in_the_configuration_is_named_with_file_and_line() {
    let mut world = Plan::new().only_ssh().start();
    world.config.block("[[user]]\nname = \"dave\"\nfavourite_colour = \"blue\"\n");
    world.gateway.configure(&world.config);
    let output = world.gateway.cli(&["check"]).exited(1);
    let said = output.out() + &output.err();
    assert!(said.contains("tidegate.toml:") && said.contains("favourite_colour"), "{said}");
}
