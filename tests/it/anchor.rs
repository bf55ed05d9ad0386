//! The ledger's heads go to places outside, and an older store that is put back is found by them.

use std::{
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    process::Command,
};
use tidegate_tests::{
    World,
    running::{Running, run},
    wait::wait_until,
    world::{PATIENCE, Plan},
};

fn anchored(to: &str) -> Plan {
    Plan::new().only_ssh().block(format!("[[anchor]]\nname = \"outside\"\nevery = \"1s\"\n{to}\n"))
}

/// Waits until the place has the head of the ledger as it is now.
fn until_newest(world: &World, heads: &Path) {
    let newest = world.gateway.ledger().entries.last().unwrap()["hash"].as_str().unwrap().to_owned();
    wait_until(PATIENCE, "the newest head is anchored", || {
        fs::read_to_string(heads).ok().filter(|text| text.contains(&newest)).map(drop)
    });
}

/// The files of the store, to another folder.
fn copy_store(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in ["tidegate.db", "store.made"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

#[test]
fn an_older_store_that_is_put_back_is_found_by_the_heads_that_went_to_a_file() {
    let mut world = anchored("file = \"heads.jsonl\"").start();
    let heads: PathBuf = world.gateway.dir().join("heads.jsonl");
    until_newest(&world, &heads);
    world.gateway.terminate();
    let (state, older) = (world.gateway.state(), world.dir().join("older"));
    copy_store(&state, &older);
    world.gateway.start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.gateway.terminate(); // the last head goes out before it ends
    let verify = || world.gateway.cli(&["ledger", "verify", "--anchor", heads.to_str().unwrap()]);
    verify().exited(0).shows("heads that went to anchors");
    // Of one that was changed, what is before a head that the anchor has is proven all the same.
    let key = world.dir().join("ledger.pub");
    fs::write(&key, world.gateway.cli(&["ca", "show", "ledger"]).ok().out()).unwrap();
    let changed = world.dir().join("changed.jsonl");
    let text = world.gateway.cli(&["ledger", "export"]).ok().out().replace("grant.issued", "grant.issues");
    fs::write(&changed, text).unwrap();
    let (key_, heads_, changed_) = (key.to_str().unwrap(), heads.to_str().unwrap(), changed.to_str().unwrap());
    let found = world.gateway.cli(&["verify", "--key", key_, "--anchor", heads_, changed_]).exited(1);
    assert!(
        found.out().contains("still proven: ledger a/1 to a/") && found.out().contains("by a head of the anchor"),
        "{}",
        found.out()
    );
    for name in ["tidegate.db-wal", "tidegate.db-shm"] {
        fs::remove_file(state.join(name)).ok();
    }
    copy_store(&older, &state);
    world.gateway.verify_ledger().exited(0).shows("intact");
    verify().exited(1).shows("an older one put back");
    // The same of an export, elsewhere.
    let export = world.dir().join("ledger.jsonl");
    fs::write(&export, world.gateway.cli(&["ledger", "export"]).ok().out()).unwrap();
    let elsewhere = ["verify", "--key", key.to_str().unwrap(), export.to_str().unwrap()];
    world.gateway.cli(&elsewhere).exited(0);
    world.gateway.cli(&[&elsewhere[..], &["--anchor", heads.to_str().unwrap()]].concat()).exited(1).shows("is gone");
    let mut forged = fs::read_to_string(&heads).unwrap();
    forged = forged.replacen("\"seq\":", "\"seq\":1", 1);
    fs::write(&heads, forged).unwrap();
    verify().exited(1).shows("anchor line 1: the signature is not by this key");
}

#[test]
fn while_nothing_happens_the_head_is_signed_anew_and_the_anchor_says_how_long_that_was() {
    let mut world = anchored("file = \"heads.jsonl\"").start();
    world.gateway.terminate();
    world.gateway.own_clock();
    world.gateway.start();
    let heads: PathBuf = world.gateway.dir().join("heads.jsonl");
    until_newest(&world, &heads);
    let last = || -> serde_json::Value {
        let text = fs::read_to_string(&heads).unwrap();
        serde_json::from_str(text.lines().last().unwrap()).unwrap()
    };
    let before = last();
    world.gateway.shift_clock(90);
    let renewed = || (last()["at"] != before["at"]).then(&last);
    let after = wait_until(PATIENCE, "the head is signed anew", renewed);
    assert_eq!((&after["seq"], &after["hash"]), (&before["seq"], &before["hash"]), "though nothing was added");
    world.gateway.verify_ledger().ok();
    let at = after["at"].as_str().unwrap();
    let verify = ["ledger", "verify", "--anchor", heads.to_str().unwrap()];
    world
        .gateway
        .cli(&verify)
        .exited(0)
        .shows(&format!("the newest head of the anchor is a/{}, signed at {at}", after["seq"]));
}

#[test]
fn evidence_that_was_made_with_an_anchor_is_proven_against_it() {
    let world = anchored("file = \"heads.jsonl\"").start();
    let heads: PathBuf = world.gateway.dir().join("heads.jsonl");
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.exec("alice", "echo done").ok();
    let ledger = world.gateway.until_ledger("session.closed", 1, PATIENCE);
    let session = ledger.one("session.closed")["session"].as_str().unwrap().to_owned();
    world.gateway.until_no_lease(PATIENCE);
    until_newest(&world, &heads);
    // What went out until now, elsewhere.
    let (kept, key) = (world.dir().join("kept.jsonl"), world.dir().join("ledger.pub"));
    fs::copy(&heads, &kept).unwrap();
    fs::write(&key, world.gateway.cli(&["ca", "show", "ledger"]).ok().out()).unwrap();
    let file = |name: &str| world.dir().join(name).display().to_string();
    let (kept, key) = (kept.to_str().unwrap(), key.to_str().unwrap());
    let bundle =
        |name: &str, more: &[&str]| world.gateway.cli(&[&["evidence", &session, "-o", &file(name)], more].concat());
    let verify =
        |name: &str, anchor: &str| world.gateway.cli(&["verify", "--key", key, "--anchor", anchor, &file(name)]);
    // That it is made is in the ledger, and newer than the anchor; nothing of the session is.
    bundle("case.tge", &["--anchor", kept]).ok();
    bundle("again.tge", &["--anchor", kept]).ok();
    verify("case.tge", kept)
        .exited(0)
        .shows("ANCHORED  its entries are of the ledger whose root went to the anchor at");
    world.gateway.cli(&["verify", "--key", key, &file("again.tge")]).exited(0);
    bundle("fresh.tge", &[]).ok();
    verify("fresh.tge", kept).exited(1).shows("make the bundle with --anchor");

    // An anchor that ends before, and one of another ledger.
    let first = fs::read_to_string(kept).unwrap().lines().next().unwrap().to_owned();
    fs::write(file("first.jsonl"), format!("{first}\n")).unwrap();
    let early = bundle("early.tge", &["--anchor", &file("first.jsonl")]).exited(1);
    early.says("no head of the anchor is as new as this yet");
    assert!(!Path::new(&file("early.tge")).exists());
    let forged = fs::read_to_string(kept).unwrap().replace("\"root\":\"", "\"root\":\"00");
    fs::write(file("forged.jsonl"), forged).unwrap();
    bundle("none.tge", &["--anchor", &file("forged.jsonl")]).exited(1).says("its root is not signed by this key");
    verify("case.tge", &file("forged.jsonl")).exited(1).shows("its root is not signed by this key");
}

#[test]
fn a_log_server_gets_heads_that_prove_the_ledger() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let world = anchored(&format!("syslog = \"{}\"", server.local_addr().unwrap())).start();
    let mut datagram = [0; 4096];
    let length = server.recv(&mut datagram).expect("a head comes");
    let line = String::from_utf8(datagram[..length].to_vec()).unwrap();
    assert!(line.starts_with("<109>1 20") && line.contains(" gate tidegate - anchor - {"), "{line}");
    let log = world.dir().join("log");
    fs::write(&log, line).unwrap();
    world.gateway.cli(&["ledger", "verify", "--anchor", log.to_str().unwrap()]).exited(0).shows("heads that went");
    let status = world.gateway.json(&["status"]);
    assert!(status["last_anchor"].is_string(), "{status}");
}

#[test]
fn a_place_that_takes_no_heads_is_told_until_it_does() {
    let world = anchored("file = \"missing/heads.jsonl\"").block("[metrics]\nlisten = \"127.0.0.1:0\"\n").start();
    let failing = || world.gateway.json(&["status"])["failing_anchors"]["outside"].as_str().map(str::to_owned);
    let why = wait_until(PATIENCE, "the anchor fails", failing);
    assert!(why.contains("No such file"), "{why}");
    let said = world.gateway.cli(&["doctor"]);
    assert!(said.out().contains("the anchor outside does not take the ledger's heads"), "{}", said.out());
    let metrics = |line: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", &format!("http://{}/metrics", world.gateway.metrics())]);
        run(curl, PATIENCE).ok().out().contains(line).then_some(())
    };
    wait_until(PATIENCE, "it is counted", || metrics("tidegate_anchor_failing{anchor=\"outside\"} 1"));
    fs::create_dir(world.gateway.dir().join("missing")).unwrap();
    wait_until(PATIENCE, "it takes them", || failing().is_none().then_some(()));
    wait_until(PATIENCE, "it is not counted", || metrics("tidegate_anchor_failing{anchor=\"outside\"} 0"));
}

/// Says no once, then takes each body as a line.
const SERVER: &str = r#"
import http.server, ssl, sys
answers = [503]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = answers.pop() if answers else 204
        if status == 204:
            with open("taken", "ab") as file:
                file.write(body + b"\n")
        self.send_response(status)
        self.end_headers()
    def log_message(self, *args): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
print(f"at {server.server_port}.", flush=True)
server.serve_forever()
"#;

/// `key.pem` and `cert.pem` of a server on loopback, which vouches for itself.
pub(crate) fn certificate(dir: &Path) {
    let mut openssl = Command::new("openssl");
    let extensions = "subjectAltName = IP:127.0.0.1\nbasicConstraints = critical,CA:FALSE\n";
    let config = format!("[req]\ndistinguished_name = dn\nx509_extensions = v3\n[dn]\n[v3]\n{extensions}");
    fs::write(dir.join("openssl.cnf"), config).unwrap();
    openssl.current_dir(dir).args(["req", "-x509", "-newkey", "ed25519", "-nodes", "-config", "openssl.cnf"]);
    openssl.args(["-subj", "/CN=loopback", "-keyout", "key.pem", "-out", "cert.pem"]);
    run(openssl, PATIENCE).ok();
}

#[test]
fn a_server_gets_each_head_over_https_and_is_asked_again_after_it_said_no() {
    let dir = tempfile::TempDir::new().unwrap();
    certificate(dir.path());
    let mut python = Command::new("/usr/bin/python3");
    python.current_dir(dir.path()).args(["-c", SERVER]);
    let server = Running::start(python);
    server.until_stdout(".", PATIENCE);
    let port = server.stdout().trim_start_matches("at ").trim_end().trim_end_matches('.').to_owned();
    let ca = dir.path().join("cert.pem");
    let world = anchored(&format!("url = \"https://127.0.0.1:{port}/heads\"\nca = {ca:?}")).start();
    let taken = dir.path().join("taken");
    until_newest(&world, &taken);
    assert!(world.gateway.log().contains("503"), "the first answer is in the log");
    world.gateway.cli(&["ledger", "verify", "--anchor", taken.to_str().unwrap()]).exited(0).shows("heads that went");
}
