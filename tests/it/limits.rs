//! Limits: who says nothing, who sends nothing, who opens too much, and who speaks for others.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};
use tidegate_tests::{
    running::run,
    wait_until,
    world::{PATIENCE, Plan},
};

/// A connection from this loopback address, on which nothing is sent.
fn knock(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::from((from, 0)))?;
    connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

/// Many that connect and say nothing, or too little, from several addresses: those that the kernel still takes.
pub(crate) fn crowd(to: SocketAddr, count: u16, word: &[u8]) -> Vec<TcpStream> {
    let from = |nth: u16| Ipv4Addr::new(127, 0, 1, u8::try_from(nth % 50).expect("below 50") + 1);
    (0..count)
        .filter_map(|nth| {
            let mut stream = knock(from(nth), to).ok()?;
            stream.write_all(word).ok()?;
            Some(stream)
        })
        .collect()
}

#[test]
fn logins_go_on_while_five_thousand_say_nothing_and_others_send_a_byte_now_and_then() {
    let world = Plan::new().block("[limits]\nhandshakes = 300\nhandshakes_per_source = 20\n").start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let password = world.password("alice", "orders");
    let (ssh, postgres) = (world.gateway.ssh(), world.gateway.postgres());
    let mut held = crowd(ssh, 2500, b"");
    held.extend(crowd(postgres, 2500, b"\0\0"));
    assert!(held.len() > 4000, "{} connections", held.len());
    let (done, over) = std::sync::mpsc::channel::<()>();
    let loris = std::thread::spawn(move || {
        let mut slow = crowd(ssh, 200, b"SSH-2.0-slow");
        while over
            .recv_timeout(Duration::from_millis(200))
            .is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            slow.retain_mut(|stream| stream.write_all(b"l").is_ok());
        }
    });
    for _ in 0..5 {
        world.exec("alice", "true").ok();
        let conninfo = world.conninfo("alice", "orders/shop");
        run(world.psql_command(&conninfo, &password, &["-c", "select 1"]), PATIENCE).ok();
    }
    drop(done);
    loris.join().expect("the slow ones");
    drop(held);
    world.exec("alice", "true").ok();
}

#[test]
fn past_the_limit_of_known_connections_one_is_told_so_before_anything_else() {
    let world = Plan::new().block("[limits]\nconnections_per_source = 2\n").start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let live: Vec<_> = (0..2)
        .map(|_| {
            let session = world.ssh_start("alice", "deploy@web-1", &["echo on; cat"]);
            session.until_stdout("on", PATIENCE);
            session
        })
        .collect();
    let mut third = TcpStream::connect(world.gateway.ssh()).expect("a connection");
    third.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut told = String::new();
    third.read_to_string(&mut told).expect("a word");
    assert!(told.contains("as many connections from your address"), "{told}");
    // Another address is let in, and so is this one when there is room again.
    drop(knock(Ipv4Addr::new(127, 0, 1, 1), world.gateway.ssh()).expect("a connection"));
    for session in live {
        session.finish(PATIENCE).ok();
    }
    wait_until(PATIENCE, "there is room again", || (world.exec("alice", "true").code == Some(0)).then_some(()));
}

#[test]
fn sessions_of_one_person_and_on_one_target_are_limited_with_a_sentence() {
    let world = Plan::new().block("[limits]\nsessions_per_identity = 2\nsessions_per_target = 3\n").only_ssh().start();
    for person in ["alice", "bob"] {
        world.gateway.grant(person, "web-1", "shell", "30m");
    }
    let open = |person: &str| {
        let session = world.ssh_start(person, "deploy@web-1", &["echo on; cat"]);
        session.until_stdout("on", PATIENCE);
        session
    };
    let alices = [open("alice"), open("alice")];
    world.exec("alice", "true").exited(1).says("2 of your sessions are open already");
    let bobs = open("bob");
    world.exec("bob", "true").exited(1).says("as many sessions are open on web-1 already");
    bobs.finish(PATIENCE).ok();
    for session in alices {
        session.finish(PATIENCE).ok();
    }
    world.exec("alice", "true").ok();
}

#[test]
fn a_session_in_which_nothing_moves_ends_with_a_sentence_and_one_in_use_does_not() {
    let idle = |entitlement: &str| {
        (format!("name = \"{entitlement}\""), format!("name = \"{entitlement}\"\nidle_timeout = \"2s\""))
    };
    let ((shell, idle_shell), (readonly, idle_readonly)) = (idle("shell"), idle("readonly"));
    let world = Plan::new().change(&shell, &idle_shell).change(&readonly, &idle_readonly).start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.gateway.grant("alice", "orders", "readonly", "30m");
    // Output alone is use; the client's keep-alives are not.
    let busy = world.ssh_start("alice", "deploy@web-1", &["for i in 1 2 3 4 5 6 7 8 9; do echo $i; sleep 0.6; done"]);
    let alive = ["-o", "ServerAliveInterval=1"];
    let silent =
        tidegate_tests::Running::start(world.ssh_command("alice", &alive, "deploy@web-1", &["echo on; sleep 600"]));
    silent.until_stdout("on", PATIENCE);
    let mut sql = world.psql_start("alice");
    sql.send("select 'on';\n");
    sql.until_stdout("on", PATIENCE);
    silent.end(PATIENCE).exited(1).says("nothing came or went for 2s");
    busy.end(PATIENCE).ok();
    let cut = world.gateway.until_ledger("session.cut", 2, PATIENCE);
    assert!(cut.all("session.cut").iter().all(|entry| entry["detail"]["check"] == "idle"), "{}", cut.story());
    sql.send("select 1;\n");
    sql.finish(PATIENCE).says("nothing came or went for 2s");
    world.gateway.until_no_lease(PATIENCE);
}

/// A PROXY header, version 2, for a connection from there.
fn header(source: Ipv4Addr) -> Vec<u8> {
    let addresses = [&source.octets()[..], &[127, 0, 0, 1], &[0x30, 0x39], &[0, 22]].concat();
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &addresses].concat()
}

/// What the door says to this, up to its end or to the first words of SSH.
fn answer(to: SocketAddr, from: Ipv4Addr, bytes: &[u8]) -> String {
    let mut stream = knock(from, to).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(bytes).expect("it takes them");
    let mut said = Vec::new();
    let mut byte = [0];
    while !said.ends_with(b"tidegate\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        said.push(byte[0]);
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn a_balancer_says_where_a_connection_comes_from_and_must() {
    let world = Plan::new()
        .change("[ssh]\n", "[ssh]\nproxy_protocol_from = [\"127.0.0.1\"]\n")
        .change("[postgres]\n", "[postgres]\nproxy_protocol_from = [\"127.0.0.0/24\"]\n")
        .start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let through = format!(
        "ProxyCommand=python3 -c \"import os,socket,sys,threading\ns=socket.create_connection(('127.0.0.1',{}))\n\
         s.sendall(bytes.fromhex('{}'))\ndef up():\n while True:\n  b=os.read(0,65536)\n  if not b:\n   s.shutdown(1)\n   return\n  s.sendall(b)\n\
         threading.Thread(target=up,daemon=True).start()\nwhile True:\n b=s.recv(65536)\n if not b: break\n os.write(1,b)\"",
        world.gateway.ssh().port(),
        header(Ipv4Addr::new(192, 0, 2, 7)).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    );
    let command = world.ssh_command("alice", &["-o", &through], "deploy@web-1", &["echo through"]);
    assert_eq!(run(command, PATIENCE).ok().out(), "through");
    assert_eq!(world.gateway.ledger().one("session.opened")["detail"]["source"], "192.0.2.7");

    // One that is named and says nothing of it; a check of its own; one that is not named and does.
    let ssh = world.gateway.ssh();
    assert_eq!(answer(ssh, Ipv4Addr::LOCALHOST, b"SSH-2.0-OpenSSH_9.2\r\n"), "");
    let refused = world.gateway.until_ledger("door.refused", 1, PATIENCE);
    assert_eq!(refused.one("door.refused")["detail"]["check"], "proxy");
    assert!(answer(ssh, Ipv4Addr::LOCALHOST, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0").contains("SSH-2.0-tidegate"));
    let mut stranger = knock(Ipv4Addr::new(127, 0, 1, 9), ssh).expect("a connection");
    stranger.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stranger.write_all(&[&header(Ipv4Addr::new(192, 0, 2, 8))[..], b"SSH-2.0-OpenSSH_9.2\r\n"].concat()).expect("sent");
    let mut said = Vec::new();
    let _ = stranger.read_to_end(&mut said); // it is hung up on
    assert!(said.len() < 100, "{}", String::from_utf8_lossy(&said));

    let mut ssl = header(Ipv4Addr::new(192, 0, 2, 9));
    ssl.extend([0, 0, 0, 8, 4, 210, 22, 47]); // SSLRequest
    let mut balanced = knock(Ipv4Addr::LOCALHOST, world.gateway.postgres()).expect("a connection");
    balanced.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    balanced.write_all(&ssl).expect("sent");
    let mut yes = [0];
    balanced.read_exact(&mut yes).expect("an answer");
    assert_eq!(yes, *b"S");
    let from_stranger = answer(world.gateway.postgres(), Ipv4Addr::new(127, 0, 1, 9), &ssl);
    assert!(!from_stranger.starts_with('S'), "{from_stranger}");
}
