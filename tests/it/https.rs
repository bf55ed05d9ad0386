//! The API over HTTPS: who has a token does what its identity may do, as far as its scope goes, and whoever has none learns
//! nothing. Requests are written by hand where a client would not send them.

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    process::Command,
    sync::Arc,
};
use tidegate_tests::{
    Output, World,
    config::PUBLIC_NAME,
    running::run,
    secs,
    world::{PATIENCE, Plan},
};

const API: &str = "[api]\nlisten = \"127.0.0.1:0\"\nmax_token_life = \"30d\"\n";

fn plan() -> Plan {
    let (name, more) = (format!("[\"{PUBLIC_NAME}\"]"), format!("[\"{PUBLIC_NAME}\", \"127.0.0.1\"]"));
    let auditor = "[[user]]\nname = \"audrey\"\ngroups = [\"audit\"]\n";
    let admin = "[[user]]\nname = \"ada\"\ngroups = [\"platform\"]\n";
    Plan::new().only_ssh().change(&name, &more).block(API).block(auditor).block(admin)
}

pub(crate) fn token(world: &World, user: &str, scope: &str) -> String {
    let made = world.gateway.cli(&["token", "issue", "--user", user, "--for", "1d", "--scope", scope, "--label", "ci"]);
    assert!(made.err().contains("it is shown this once"), "{}", made.err());
    made.ok().out()
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// A refusal: a problem in one sentence.
    pub(crate) fn refused(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.head.to_ascii_lowercase().contains("content-type: application/problem+json"), "{self:?}");
        self.json()["detail"].as_str().unwrap().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let of = |line: &'_ str| line.split_once(": ").is_some_and(|(n, _)| n.eq_ignore_ascii_case(name));
        self.head.lines().find(|line| of(line)).and_then(|line| line.split_once(": ")).map(|(_, value)| value)
    }
}

pub(crate) fn connect(world: &World) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(world.client_file("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(PUBLIC_NAME).unwrap();
    let stream = TcpStream::connect(world.gateway.api()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
}

/// These bytes, and all that comes back until the gateway hangs up.
pub(crate) fn raw(world: &World, bytes: &[u8]) -> Answer {
    let mut stream = connect(world);
    let _ = stream.write_all(bytes).and_then(|()| stream.flush()); // it may have answered and hung up before the end
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    let all = String::from_utf8_lossy(&all).into_owned();
    let (head, body) = all.split_once("\r\n\r\n").unwrap_or((&all, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

pub(crate) fn send(world: &World, method: &str, path: &str, token: Option<&str>, more: &str, body: &str) -> Answer {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {PUBLIC_NAME}\r\nConnection: close\r\n{token}{more}Content-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    raw(world, request.as_bytes())
}

pub(crate) fn get(world: &World, path: &str, token: &str) -> Answer {
    send(world, "GET", path, Some(token), "", "")
}

pub(crate) fn post(world: &World, path: &str, token: &str, body: &Value) -> Answer {
    send(world, "POST", path, Some(token), "", &body.to_string())
}

/// `tidegate ARGS` somewhere else, without a configuration.
fn from_afar(world: &World, token: &str, args: &[&str]) -> Output {
    let mut command: Command = world.gateway.command(args);
    let url = format!("https://127.0.0.1:{}", world.gateway.api().port());
    command.env("TIDEGATE_CONFIG", "/nonexistent").env("TIDEGATE_GATEWAY", url);
    command.env("TIDEGATE_CA", world.client_file("ca.pem")).env("TIDEGATE_TOKEN", token);
    run(command, PATIENCE)
}

fn wish(user: &str) -> Value {
    json!({ "user": user, "target": "web-1", "entitlement": "shell", "for": "30m", "reason": "a test" })
}

#[test]
fn what_goes_over_the_socket_goes_over_https_with_a_token() {
    let world = plan().start();
    let all = token(&world, "ada", "all");
    from_afar(&world, &all, &["status"]).ok();
    let issued = ["grant", "issue", "--user", "alice", "--target", "web-1", "--entitlement", "shell", "--for", "30m"];
    let grant = from_afar(&world, &all, &[&issued[..], &["--reason", "r"]].concat()).ok().out();
    assert_eq!(world.exec("alice", "id -un").ok().out(), "deploy");
    world.gateway.until_ledger("session.closed", 1, secs(60));
    for list in [["grant", "list"], ["session", "list"], ["lease", "list"], ["token", "list"]] {
        let there = from_afar(&world, &all, &[&list[..], &["--json"]].concat()).ok().out();
        assert_eq!(there, world.gateway.cli(&[&list[..], &["--json"]].concat()).ok().out(), "{list:?}");
    }
    from_afar(&world, &all, &["grant", "revoke", &grant]).ok();
    world.exec("alice", "true").exited(77);
    assert_eq!(world.gateway.ledger().one("grant.issued")["detail"]["by"], "ada");
    // Without a token: whether it is ready, and nothing else.
    assert_eq!(from_afar(&world, "", &["status"]).ok().out(), "ready");
    from_afar(&world, "", &["grant", "list"]).exited(1).says("needs a token");
    world.gateway.verify_ledger().ok();
}

#[test]
fn a_gateway_that_does_not_prove_itself_and_one_that_does_not_answer_are_told_apart() {
    let world = plan().start();
    let all = token(&world, "ada", "all");
    let url = format!("https://127.0.0.1:{}", world.gateway.api().port());
    let ask = |args: &[&str]| {
        let mut command = world.gateway.command(&[&["status"], args].concat());
        command.env("TIDEGATE_CONFIG", "/nonexistent").env("TIDEGATE_TOKEN", &all);
        run(command, PATIENCE)
    };
    let ca = world.client_file("ca.pem").display().to_string();
    ask(&["--gateway", &url, "--ca", &ca]).ok();
    ask(&["--gateway", &url]).exited(1).says("does not prove to be the gateway");
    let by_name = url.replace("127.0.0.1", "localhost"); // not one of its names
    ask(&["--gateway", &by_name, "--ca", &ca]).exited(1).says("does not prove to be the gateway");
    ask(&["--gateway", "https://127.0.0.1:1", "--ca", &ca]).exited(3).says("cannot be reached at https://127.0.0.1:1");
    for wrong in ["http://127.0.0.1:1", "127.0.0.1:1", "https://u@127.0.0.1:1", "https://127.0.0.1:1/v1"] {
        ask(&["--gateway", wrong]).exited(1).says("https://gate.example.com:8443");
    }
    let file = world.dir().join("token");
    fs::write(&file, format!("{all}\n")).unwrap();
    let named = file.display().to_string();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    ask(&["--gateway", &url, "--ca", &ca, "--token-file", &named]).exited(1).says("chmod 600");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(ask(&["--gateway", &url, "--ca", &ca, "--token-file", &named]).ok().out().contains("gateway gate"));
}

#[test]
fn a_token_goes_as_far_as_its_scope_and_its_identity() {
    let mut world = plan().start();
    let secret = |user: &str, scope: &str| token(&world, user, scope);
    let (read, grants, all) = (secret("ada", "read"), secret("ada", "grants"), secret("ada", "all"));
    let (alice, audrey) = (secret("alice", "all"), secret("audrey", "all"));
    let made = |token: &str| post(&world, "/v1/grants", token, &wish("alice"));
    assert!(made(&read).refused(403).contains("goes as far as read"));
    assert!(made(&alice).refused(403).contains("not an admin"));
    let grant = made(&grants).json()["id"].as_str().unwrap().to_owned();
    // Who made a token may know it, so it does not grant them anything; and nobody grants to themselves.
    let operator = world.gateway.cli(&["token", "list", "--json"]).ok().out();
    assert!(operator.contains("\"created_by\": \"operator\""), "{operator}");
    for user in ["ada", "operator"] {
        assert!(post(&world, "/v1/grants", &all, &wish(user)).refused(422).contains("to themselves"), "{user}");
    }
    // No token makes a token, however far it goes.
    let body = json!({ "label": "x", "scope": "read", "for": "1d" });
    assert!(post(&world, "/v1/tokens", &all, &body).refused(403).contains("no token makes a token"));
    assert!(post(&world, "/v1/users/alice/end", &grants, &json!({})).refused(403).contains("needs all"));
    assert!(post(&world, "/v1/config/reload", &grants, &json!({})).refused(403).contains("needs all"));
    // What is somebody else's is no different from what is not.
    let none = get(&world, "/v1/grants/0199ffff-0000-7000-8000-000000000000", &audrey).refused(404);
    let bobs = post(&world, "/v1/grants", &all, &wish("bob")).json()["id"].as_str().unwrap().to_owned();
    assert_eq!(get(&world, &format!("/v1/grants/{bobs}"), &alice).refused(404), none);
    assert_eq!(get(&world, &format!("/v1/grants/{grant}"), &alice).json()["id"], grant);
    assert_eq!(get(&world, "/v1/grants", &alice).json().as_array().unwrap().len(), 1);
    assert_eq!(get(&world, "/v1/grants", &audrey).json().as_array().unwrap().len(), 2);
    assert_eq!(get(&world, "/v1/leases", &alice).status, 403);
    assert_eq!(get(&world, "/v1/leases", &audrey).status, 200);
    assert_eq!(get(&world, "/v1/tokens", &alice).json().as_array().unwrap().len(), 1);
    let id = get(&world, "/v1/tokens", &all).json()[0]["id"].as_str().unwrap().to_owned(); // audrey's
    assert_eq!(post(&world, &format!("/v1/tokens/{id}/revoke"), &alice, &json!({})).status, 404);
    // Whoever leaves the configuration has no rights, and their token says so.
    world.config.without("name = \"audrey\"");
    world.gateway.configure(&world.config);
    world.gateway.cli(&["reload"]).ok();
    assert!(get(&world, "/v1/grants", &audrey).refused(401).contains("no longer in the gateway's configuration"));
    // Ended: all tokens at once.
    world.gateway.cli(&["user", "end", "ada"]).ok();
    for token in [&read, &grants, &all] {
        assert!(get(&world, "/v1/status", token).refused(401).contains("revoked"));
    }
    world.gateway.until_ledger("token.refused", 1, secs(20));
    world.gateway.verify_ledger().ok();
}

#[test]
fn no_request_however_wrong_is_answered_with_a_fault_of_ours_or_a_name() {
    let world = plan().start();
    let all = token(&world, "ada", "all");
    let plain = format!("Host: {PUBLIC_NAME}\r\nConnection: close\r\nAuthorization: Bearer {all}\r\n");
    let nobody = format!("Host: {PUBLIC_NAME}\r\nConnection: close\r\n");
    let whole =
        |line: &str, headers: &str, body: &str| raw(&world, format!("{line}\r\n{headers}\r\n{body}").as_bytes());
    // Without a token.
    assert_eq!(whole("GET /v1/status HTTP/1.1", &nobody, "").json(), json!({ "ready": true }));
    for path in ["/v1/grants", "/v1/nothing", "/", "/v1/status/", "/v1/status?x=1/../grants", "//v1/status"] {
        let answer = whole(&format!("GET {path} HTTP/1.1"), &nobody, "");
        if path.starts_with("/v1/status?") {
            assert_eq!(answer.json(), json!({ "ready": true }));
            continue;
        }
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{answer:?}");
        answer.refused(401);
    }
    for wrong in
        ["Bearer", "Bearer x", "Basic YTpi", "bearer tdg_AAAA", &format!("Bearer {all}x"), &format!("Token {all}")]
    {
        let answer = whole("GET /v1/grants HTTP/1.1", &format!("{nobody}Authorization: {wrong}\r\n"), "");
        assert!(!answer.refused(401).contains("ada"), "{answer:?}");
    }
    let query = whole(&format!("GET /v1/grants?access_token={all} HTTP/1.1"), &nobody, "");
    query.refused(401);
    whole("GET /v1/grants HTTP/1.1", &format!("{plain}Authorization: Bearer {all}\r\n"), "").refused(401);
    // Pages, and what could be read in two ways.
    whole("GET /v1/grants HTTP/1.1", &format!("{plain}Origin: https://evil.example\r\n"), "").refused(403);
    whole("GET /v1/grants HTTP/1.1", &format!("{plain}Host: other\r\n"), "").refused(400);
    let both = "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n";
    for smuggling in [both, "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "Transfer-Encoding: chunked\r\n"] {
        let inner = format!("0\r\n\r\nGET /v1/grants HTTP/1.1\r\n{plain}\r\n");
        let answer = whole("POST /v1/grants HTTP/1.1", &format!("{plain}{smuggling}"), &inner);
        assert!([400, 411].contains(&answer.status), "{smuggling}: {answer:?}");
        assert!(!answer.body.contains("HTTP/1.1 200"), "a second answer: {answer:?}");
    }
    // Methods and forms of addresses.
    for line in
        ["TRACE /v1/grants HTTP/1.1", "DELETE /v1/grants HTTP/1.1", "OPTIONS * HTTP/1.1", "CONNECT web-1:22 HTTP/1.1"]
    {
        let answer = whole(line, &plain, "");
        assert!((400..500).contains(&answer.status), "{line}: {answer:?}");
        assert!(!answer.body.contains(&all), "{line}: it comes back: {answer:?}");
    }
    let absolute = whole("GET https://elsewhere.example/v1/grants HTTP/1.1", &plain, "");
    assert_eq!((absolute.status, absolute.body.as_str()), (200, "[]"), "RFC 9112 section 3.2.2");
    // Bodies.
    for (path, body) in [
        ("/v1/grants", "{"),
        ("/v1/grants", "[]"),
        ("/v1/grants", "{\"user\": 7}"),
        ("/v1/grants", "{\"user\": \"../..\", \"target\": \"web-1\", \"entitlement\": \"shell\", \"for\": \"30m\"}"),
        ("/v1/grants", "{\"user\": \"bob\", \"target\": \"web-1\", \"entitlement\": \"shell\", \"for\": \"-1\"}"),
        (
            "/v1/grants",
            "{\"user\": \"bob\", \"target\": \"web-1\", \"entitlement\": \"shell\", \"for\": \"99999999999d\"}",
        ),
        ("/v1/grants/import", "{\"token\": \"a.b.c\"}"),
        ("/v1/grants/%00/revoke", "{}"),
        ("/v1/sessions/'--/kill", "{}"),
        ("/v1/leases/zz/retry", "{}"),
        ("/v1/targets/nowhere/test", "{}"),
        ("/v1/users/%20/end", "{}"),
        ("/v1/tokens/x/revoke", "{\"unknown\": 1}"),
    ] {
        let answer = send(&world, "POST", path, Some(&all), "", body);
        assert!((400..500).contains(&answer.status), "{path} {body}: {answer:?}");
    }
    let large = "x".repeat(70 << 10);
    assert_eq!(send(&world, "POST", "/v1/grants", Some(&all), "", &large).status, 413);
    let long = whole("GET /v1/grants HTTP/1.1", &format!("{plain}X: {}\r\n", "y".repeat(100 << 10)), "");
    assert!([431, 0].contains(&long.status), "{long:?}");
    for query in ["limit=0", "limit=1001", "limit=x", "limit=1&limit=2", "after=zz", "what=1", "limit=-1"] {
        let answer = get(&world, &format!("/v1/grants?{query}"), &all);
        assert!([400, 422].contains(&answer.status), "{query}: {answer:?}");
    }
    let answer = get(&world, "/v1/grants", &all);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.header("set-cookie").is_none() && answer.header("access-control-allow-origin").is_none());
    assert!(!world.gateway.log().contains(&all));
    let refused = world.gateway.until_ledger("token.refused", 1, secs(20));
    assert_eq!(refused.last("token.refused").unwrap()["detail"]["source"], "127.0.0.1");
}

#[test]
fn a_list_comes_in_parts_that_make_the_whole() {
    let world = plan().start();
    let all = token(&world, "ada", "all");
    let mut made: Vec<String> = (0..5).map(|_| world.gateway.grant("alice", "web-1", "shell", "30m")).collect();
    made.reverse();
    let (mut seen, mut at) = (Vec::new(), Some("/v1/grants?limit=2".to_owned()));
    let mut parts = 0;
    while let Some(path) = at {
        let part = get(&world, &path, &all);
        assert_eq!(part.status, 200, "{part:?}");
        seen.extend(part.json().as_array().unwrap().iter().map(|grant| grant["id"].as_str().unwrap().to_owned()));
        at = part.header("link").map(|link| link.split(['<', '>']).nth(1).unwrap().to_owned());
        parts += 1;
    }
    assert_eq!((seen, parts), (made, 3));
}

#[test]
fn the_same_key_grants_once_also_after_a_restart() {
    let mut world = plan().start();
    let all = token(&world, "ada", "grants");
    let issue = |world: &World, key: &str, body: &Value| {
        send(world, "POST", "/v1/grants", Some(&all), &format!("Idempotency-Key: {key}\r\n"), &body.to_string())
    };
    let first = issue(&world, "k1", &wish("alice")).json();
    assert_eq!(issue(&world, "k1", &wish("alice")).json(), first);
    world.restart_gateway();
    assert_eq!(issue(&world, "k1", &wish("alice")).json(), first);
    assert_ne!(issue(&world, "k2", &wish("alice")).json(), first);
    assert!(issue(&world, "k1", &wish("bob")).refused(422).contains("take a new key"));
    for wrong in ["", "a b", &"x".repeat(129), "k1\r\nIdempotency-Key: k2"] {
        issue(&world, wrong, &wish("alice")).refused(400);
    }
    assert_eq!(world.gateway.ledger().count("grant.issued"), 2);
}

#[test]
fn who_asks_too_often_is_told_when_to_come_again_and_nobody_else_waits() {
    let world = plan().change("max_token_life = \"30d\"", "requests_per_minute = 3").start();
    let (busy, other) = (token(&world, "ada", "read"), token(&world, "ada", "read"));
    let answers: Vec<Answer> = (0..5).map(|_| get(&world, "/v1/grants", &busy)).collect();
    let turned_away = answers.iter().find(|answer| answer.status == 429).expect("more than three within a minute");
    assert!((1..=60).contains(&turned_away.header("retry-after").unwrap().parse::<u32>().unwrap()));
    assert_eq!(get(&world, "/v1/grants", &other).status, 200);
}

#[test]
fn who_takes_all_the_places_of_a_source_or_says_nothing_keeps_the_gateway_from_nothing() {
    let world = plan().start();
    let all = token(&world, "ada", "all");
    let silent: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(world.gateway.api()).unwrap()).collect();
    // The socket does not share their places, and the other doors do not either.
    world.gateway.cli(&["status"]).ok();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.exec("alice", "true").ok();
    drop(silent);
    tidegate_tests::wait_until(secs(60), "a place is free again", || {
        (get(&world, "/v1/status", &all).status == 200).then_some(())
    });
}

#[test]
fn a_request_is_decided_by_whoever_may_and_never_by_a_token_that_another_made() {
    let approvals = "logins = [\"deploy\"]\napprovals = [{ from = [\"sales\"] }]";
    let plan = plan().change("logins = [\"deploy\"]", approvals);
    let world =
        plan.change("groups = [\"platform\"]\nunix_user", "groups = [\"platform\", \"sales\"]\nunix_user").start();
    let (alice, carol, bob) =
        (token(&world, "alice", "grants"), token(&world, "carol", "all"), token(&world, "bob", "all"));
    let reads = token(&world, "carol", "read");
    let own = token(&world, "operator", "all");
    let wish = json!({ "target": "web-1", "for": "10m", "reason": "fix the disk" });
    let ask = |token: &str, body: &Value| post(&world, "/v1/requests", token, body);
    ask(&reads, &wish).refused(403);
    ask(&alice, &json!({ "target": "web-1" })).refused(422);
    ask(&alice, &json!({ "target": "web-1", "reason": 7 })).refused(422);
    ask(&alice, &json!({ "target": "../x", "reason": "x" })).refused(422);
    assert!(ask(&carol, &wish).refused(422).contains("no target web-1 for you"));
    let id = ask(&alice, &wish).json()["id"].as_str().unwrap().to_owned();
    let at = |id: &str, verb: &str| format!("/v1/requests/{id}{verb}");
    let none = get(&world, &at("0199ffff-0000-7000-8000-000000000000", ""), &bob).refused(404);
    assert_eq!(get(&world, &at(&id, ""), &bob).refused(404), none, "somebody else's is no different from none");
    post(&world, &at(&id, "/approve"), &bob, &json!({})).refused(403);
    assert_eq!(get(&world, &at(&id, ""), &reads).json()["reason"], "fix the disk");
    post(&world, &at(&id, "/approve"), &reads, &json!({})).refused(403);
    assert!(post(&world, &at(&id, "/approve"), &alice, &json!({})).refused(403).contains("needs all"));
    assert!(post(&world, &at(&id, "/deny"), &own, &json!({ "reason": " " })).refused(422).contains("needs a reason"));
    // The operator made carol's token, and so may know it: it has no voice, neither hers nor in a grant that is issued.
    for verb in ["/approve", "/deny"] {
        let body = if verb == "/deny" { json!({ "reason": "no" }) } else { json!({}) };
        assert!(post(&world, &at(&id, verb), &carol, &body).refused(403).contains("nobody decides in another's name"));
    }
    let issue = json!({ "user": "bob", "target": "web-1", "entitlement": "shell", "for": "10m" });
    let ada = token(&world, "ada", "all");
    assert!(post(&world, "/v1/grants", &ada, &issue).refused(422).contains("a token that somebody else made"));
    let granted = post(&world, &at(&id, "/approve"), &own, &json!({})).json();
    assert_eq!(
        (granted["state"].as_str(), granted["approvals"][0]["by"].as_str()),
        (Some("granted"), Some("operator"))
    );
    post(&world, &at(&id, "/approve"), &own, &json!({})).refused(422);
    world.exec("alice", "true").ok();
    let used = world.gateway.ledger();
    let by = |who: &str| {
        let of = |used: &&&Value| used["detail"]["path"] == at(&id, "/approve") && used["identity"] == who;
        used.all("token.used").iter().find(of).is_some_and(|used| used["detail"]["made_by"] == "operator")
    };
    assert!(by("carol") && by("bob") && by("operator") && !by("dave"));
}

#[test]
fn a_certificate_of_another_authority_is_served_at_both_doors_and_replaced_while_the_gateway_runs() {
    let key = "tls_cert = \"own.pem\"\ntls_key = \"own.key\"\n";
    let names = (format!("[\"{PUBLIC_NAME}\"]"), format!("[\"{PUBLIC_NAME}\", \"127.0.0.1\"]"));
    let mut world = Plan::new().only_postgres().change(&names.0, &names.1).block(API).start();
    let all = token(&world, "operator", "all");
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let make = |world: &World, name: &str| {
        let line = format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-384 -sha384 -nodes -days 30 -subj /CN={name} \
             -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:{PUBLIC_NAME},IP:127.0.0.1 \
             -keyout own.key -out own.pem 2>&1 && chmod 600 own.key"
        );
        let mut shell = Command::new("sh");
        shell.args(["-ec", &line]).current_dir(world.gateway.dir());
        run(shell, secs(20)).ok();
        fs::copy(world.gateway.dir().join("own.pem"), world.client_file("ca.pem")).unwrap();
    };
    // Whoever trusts this certificate alone gets in, with the password bound to it (SHA-384).
    let gets_in = |world: &World| {
        let password = world.password("alice", "orders");
        let conninfo = format!("{} channel_binding=require", world.conninfo("alice", "orders/shop"));
        run(world.psql_command(&conninfo, &password, &["-c", "select 1"]), secs(60)).ok();
        assert_eq!(get(world, "/v1/status", &all).json()["ready"], true);
    };
    make(&world, "first");
    for section in ["[postgres]\n", "[api]\n"] {
        world.config.change(section, &format!("{section}{key}"));
    }
    world.gateway.own_clock();
    world.restart_gateway();
    gets_in(&world);
    let listed = world.gateway.cli(&["check"]).ok().out();
    assert!(listed.contains("api.tls_key") && listed.contains("postgres.tls_key"), "{listed}");
    make(&world, "second");
    world.gateway.shift_clock(25); // they are read again by then, and a target still takes our certificates
    gets_in(&world);
    fs::set_permissions(world.gateway.dir().join("own.key"), fs::Permissions::from_mode(0o644)).unwrap();
    world.gateway.cli(&["check"]).exited(1).says("chmod 600");
}

/// What a fuzzer of others makes of the document: every operation, with what fits its schema and what does not.
#[test]
fn a_fuzzer_that_knows_the_api_by_its_own_document_finds_no_fault_of_ours() {
    let Some(python) = super::clients::python::interpreter() else { return };
    let world =
        plan().change("max_token_life = \"30d\"", "max_token_life = \"30d\"\nrequests_per_minute = 100000").start();
    let fuzz = |user: &str, more: &[&str]| {
        let mut command = Command::new(python.with_file_name("schemathesis"));
        let url = format!("https://{}/v1/openapi.json", world.gateway.api());
        command.current_dir(world.gateway.dir()).args(["run", &url, "--tls-verify"]).arg(world.client_file("ca.pem"));
        command.args(["--header", &format!("Authorization: Bearer {}", token(&world, user, "all"))]);
        command.args(["--generation-deterministic", "--max-examples", "6", "--phases", "coverage,fuzzing"]);
        // Policy refuses what fits the schema; a token is who asks, so no other way to log in is accepted or refused here.
        command.args(["--exclude-checks", "positive_data_acceptance,negative_data_rejection,ignored_auth"]);
        command.args(["--generation-with-security-parameters", "false"]);
        // (A gateway with all its places taken lets go of who has said nothing yet.)
        command.args(["--request-retries", "3"]);
        command.args(["--no-color", "--warnings", "off", "--continue-on-failure"]).args(more);
        run(command, secs(400)).ok().out()
    };
    // (A token whose id begins with a digit that was tried would be revoked, and all that follows be 401. Each test of a target
    // is a session.)
    let none = ["--exclude-operation-id", "tokens_revoke"];
    let said = fuzz("ada", &[&none[..], &["--exclude-operation-id", "targets_test_target"]].concat());
    assert!(said.contains("No issues found"), "{said}");
    fuzz("audrey", &none);
    world.gateway.verify_ledger().ok();
}
