//! What happens, as it happens: server-sent events over HTTPS, by role, resumed where they broke off.

use crate::{
    asking,
    https::{connect, get, send, token},
};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use tidegate_tests::{World, config::PUBLIC_NAME, world::Plan};

const API: &str = "[api]\nlisten = \"127.0.0.1:0\"\n";

fn plan() -> Plan {
    let auditor = "[[user]]\nname = \"audrey\"\ngroups = [\"audit\"]\n";
    asking::plan("[{ from = [\"sales\"] }]").block(API).block(auditor)
}

/// Somebody's stream.
struct Stream(BufReader<rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream>>);

impl Stream {
    fn open(world: &World, path: &str, token: &str, more: &str) -> Self {
        let mut stream = connect(world);
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {PUBLIC_NAME}\r\nAuthorization: Bearer {token}\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut stream = Self(BufReader::new(stream));
        let status = stream.line();
        assert!(status.starts_with("HTTP/1.1 200"), "{status}");
        while !stream.line().is_empty() {}
        stream
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream ended");
        line.trim_end().to_owned()
    }

    /// The next event: its id, its kind, its data.
    fn next(&mut self) -> (u64, String, Value) {
        let (mut id, mut kind, mut data) = (None, None, None);
        loop {
            let line = self.line();
            match line.split_once(": ") {
                Some(("id", value)) => id = value.parse().ok(),
                Some(("event", value)) => kind = Some(value.to_owned()),
                Some(("data", value)) => data = serde_json::from_str(value).ok(),
                _ => {}
            }
            if line.is_empty()
                && let (Some(id), Some(kind), Some(data)) = (id, kind.take(), data.take())
            {
                return (id, kind, data);
            }
        }
    }

    /// The next event of this kind.
    fn until(&mut self, kind: &str) -> (u64, Value) {
        loop {
            let (id, found, data) = self.next();
            if found == kind {
                return (id, data);
            }
        }
    }
}

#[test]
fn an_auditor_follows_all_that_happens_and_people_what_is_their_own() {
    let world = plan().start();
    let (audrey, alice, bob) =
        (token(&world, "audrey", "read"), token(&world, "alice", "read"), token(&world, "bob", "read"));
    let mut all = Stream::open(&world, "/v1/events", &audrey, "");
    let mut own = Stream::open(&world, "/v1/events", &alice, "");
    let mut others = Stream::open(&world, "/v1/events", &bob, "");
    let id = asking::id(world.control("alice", &["request web-1/shell --for 10m --reason fix the disk"]));
    world.control("carol", &[&format!("approve {id}")]).ok();
    let (opened, seen) = all.until("request.opened");
    assert!(seen["detail"].to_string().contains("fix the disk"), "{seen}");
    let (granted, _) = all.until("request.granted");
    assert!(granted > opened);
    let (_, mine) = own.until("request.granted");
    assert_eq!((mine["identity"].as_str(), &mine["detail"]), (Some("alice"), &Value::Null), "{mine}");
    // What bob sees first is his own.
    world.control("bob", &["request web-1/shell --for 10m --reason look"]).ok();
    let (_, kind, data) = others.next();
    assert_eq!((kind.as_str(), data["identity"].as_str()), ("request.opened", Some("bob")));
    // Whoever comes again misses nothing.
    drop(all);
    let mut again = Stream::open(&world, "/v1/events", &audrey, &format!("Last-Event-ID: {opened}\r\n"));
    let first = again.next().0;
    assert!(first > opened && first <= granted, "{opened} {first} {granted}");
    let mut from = Stream::open(&world, &format!("/v1/events?after={opened}"), &audrey, "");
    assert_eq!(from.next().0, first);
    for (path, more) in [("/v1/events", "Last-Event-ID: x\r\n"), ("/v1/events?after=x", ""), ("/v1/events?x=1", "")] {
        assert_eq!(send(&world, "GET", path, Some(&audrey), more, "").status, 400, "{path} {more}");
    }
}

#[test]
fn an_auditor_of_a_part_follows_that_part() {
    let part = "[[auditor]]\nname = \"dba\"\ngroups = [\"part\"]\npeople = [\"dba\"]\n";
    let world = plan().block("[[user]]\nname = \"piet\"\ngroups = [\"part\"]\n").block(part).start();
    let piet = token(&world, "piet", "read");
    let mut seen = Stream::open(&world, "/v1/events", &piet, "");
    world.control("bob", &["request web-1/shell --for 10m --reason not to be seen"]).ok();
    world.gateway.cli(&["lock", "add", "--user", "bob", "--reason", "not to be seen"]).ok();
    world.control("alice", &["request web-1/shell --for 10m --reason to be seen"]).ok();
    // Alice is in dba, and bob is not.
    let (_, kind, data) = seen.next();
    assert_eq!((kind.as_str(), data["identity"].as_str()), ("request.opened", Some("alice")));
    assert!(data["detail"].to_string().contains("to be seen"), "{data}");
    // The same of lists: requests that they may see are those of their people.
    let requests = get(&world, "/v1/requests", &piet).json();
    let whose: Vec<&str> = requests.as_array().unwrap().iter().filter_map(|it| it["identity"].as_str()).collect();
    assert_eq!(whose, ["alice"], "{requests}");
}

#[test]
fn so_many_may_listen_and_no_more_and_a_lock_ends_it() {
    let world = plan().start();
    let audrey = token(&world, "audrey", "read");
    let mut listening: Vec<Stream> = (0..64).map(|_| Stream::open(&world, "/v1/events", &audrey, "")).collect();
    assert!(get(&world, "/v1/events", &audrey).refused(503).contains("too many listen"));
    assert_eq!(get(&world, "/v1/grants", &audrey).status, 200);
    world.gateway.cli(&["lock", "add", "--user", "audrey", "--reason", "left"]).ok();
    for stream in &mut listening {
        let mut rest = String::new();
        while stream.0.read_line(&mut rest).unwrap_or(0) > 0 {}
    }
}
