//! Asking for a grant, and answering who asks, with OpenSSH's own client and the commands.

use serde_json::Value;
use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    process::Command,
    sync::mpsc,
    thread,
};
use tidegate_tests::{
    Output, World,
    running::Running,
    sshd::keygen,
    world::{PATIENCE, Plan},
};

/// `shell` on `web-1` is asked for like this; carol is in `sales`, bob in `sre` like alice.
pub(crate) fn plan(approvals: &str) -> Plan {
    let logins = "logins = [\"deploy\"]";
    Plan::new().only_ssh().change(logins, &format!("{logins}\napprovals = {approvals}"))
}

/// The one id on stdout.
pub(crate) fn id(output: Output) -> String {
    let id = output.ok().out().trim().to_owned();
    assert_eq!(id.len(), 36, "{id}");
    id
}

fn ask(world: &World) -> String {
    id(world.control("alice", &["request web-1/shell --for 10m --reason fix the disk"]))
}

fn requests(world: &World, person: &str, command: &str) -> Vec<Value> {
    let said = world.control(person, &[command]).ok().out();
    serde_json::from_str::<Value>(&said).unwrap().as_array().unwrap().clone()
}

#[test]
fn who_asks_and_who_approves_need_nothing_but_ssh() {
    let world = plan("[{ from = [\"sales\"] }]").start();
    world.exec("alice", "true").exited(77).says("ssh gate request web-1/shell --reason WHY");
    world.control("alice", &["request web-1"]).exited(1).says("a reason must be given");
    world.control("alice", &["request web-9 --reason x"]).exited(1).says("no target web-9 for you");
    world.control("carol", &["request web-1 --reason x"]).exited(1).says("no target web-1 for you");
    let asked = world.control("alice", &["request web-1/shell --for 10m --reason fix the disk"]);
    assert!(asked.err().contains("awaits 1 of sales (level 1): carol"), "{}", asked.err());
    let id = id(asked);
    assert_eq!(ask(&world), id, "the same again is the same request");
    assert!(requests(&world, "bob", "requests --json").is_empty(), "it is none of bob's business");
    world.control("bob", &[&format!("approve {id}")]).exited(1).says("no request has this id");
    world.control("alice", &[&format!("approve {id}")]).exited(1).says("nobody approves their own request");
    let seen = requests(&world, "carol", "requests --json");
    assert_eq!((seen[0]["id"].as_str(), seen[0]["reason"].as_str()), (Some(id.as_str()), Some("fix the disk")));
    let listed = world.control("carol", &["requests"]).ok().out();
    assert!(listed.contains("1 of sales (level 1)") && listed.contains("10m"), "{listed}");
    let said = world.control("carol", &[&format!("approve {}", &id[28..])]).ok().out();
    assert!(said.contains("approved (attested, on level 1)") && said.contains("is granted for 10m"), "{said}");
    world.exec("alice", "echo in").ok();
    let grant = world.gateway.list(&["grant", "list"]).remove(0);
    assert_eq!(grant["approvals"][0]["by"], "carol");
    assert_eq!(
        (grant["approvals"][0]["proof"].as_str(), grant["reason"].as_str()),
        (Some("attested"), Some("fix the disk"))
    );
    world.control("carol", &[&format!("approve {id}")]).exited(1).says("it is granted");
    assert!(requests(&world, "alice", "requests --json").is_empty());
    assert_eq!(requests(&world, "alice", "requests --all --json")[0]["state"], "granted");
    let ledger = world.gateway.ledger();
    for kind in ["request.opened", "request.approved", "request.granted", "grant.issued"] {
        assert_eq!(ledger.count(kind), 1, "{kind}");
    }
    world.gateway.verify_ledger().ok();
}

#[test]
fn a_denial_says_why_and_a_request_can_be_taken_back_and_what_replaces_it_starts_anew() {
    let world = plan("[{ from = [\"sales\"] }]").start();
    let first = ask(&world);
    world.control("carol", &[&format!("deny {first}")]).exited(1).says("a denial needs a reason");
    world.control("carol", &[&format!("deny {first} --reason not on a Sunday")]).ok();
    let shown = world.gateway.cli(&["request", "show", &first]).ok().out();
    assert!(shown.contains("denied by carol") && shown.contains("not on a Sunday"), "{shown}");
    let second = ask(&world);
    let third = id(world.control("alice", &["request web-1 --for 20m --reason fix the disk"]));
    world.control("carol", &[&format!("approve {second}")]).exited(1).says("it is cancelled");
    world.control("carol", &[&format!("cancel {third}")]).exited(1).says("only who asked");
    world.control("alice", &[&format!("cancel {}", &third[28..])]).ok();
    world.control("carol", &[&format!("approve {third}")]).exited(1).says("it is cancelled");
    world.exec("alice", "true").exited(77);
}

#[test]
fn the_commands_and_the_api_do_the_same_and_an_admin_is_no_approver() {
    let world = plan("[{ from = [\"sales\"] }]").start();
    let id = ask(&world);
    let listed = world.gateway.list(&["request", "list"]);
    assert_eq!((listed[0]["id"].as_str(), listed[0]["state"].as_str()), (Some(id.as_str()), Some("open")));
    world.gateway.cli(&["request", "approve", &id]).exited(1).says("not among those who may approve");
    let issue = ["grant", "issue", "--user", "alice", "--target", "web-1", "--entitlement", "shell", "--for", "5m"];
    world.gateway.cli(&issue).exited(1).says("asks for approvals, and yours does not do");
    world.gateway.cli(&["request", "ask", "web-1", "--reason", "x"]).exited(1).says("no target web-1 for you");
    world.gateway.cli(&["request", "deny", &id, "--reason", "maintenance"]).ok();
    assert_eq!(world.gateway.json(&["request", "show", &id])["decided"]["reason"], "maintenance");
    world.gateway.cli(&["request", "show", "ffffffff"]).exited(1).says("no request has this id");
    world.exec("alice", "true").exited(77);
}

/// `ssh-keygen -Y sign` over the line, with this person's key.
fn signed(world: &World, person: &str, line: &str) -> String {
    let mut command = Command::new("ssh-keygen");
    command.args(["-Y", "sign", "-n", "tidegate-approval", "-f"]).arg(world.client_file(person));
    let mut signing = Running::start(command);
    signing.send(line);
    signing.close_stdin();
    signing.finish(PATIENCE).ok().out()
}

/// `ssh gate approve ID --signed` with this on stdin.
fn send(world: &World, person: &str, id: &str, signature: &str) -> Output {
    let mut sending = world.ssh_start(person, person, &[&format!("approve {id} --signed")]);
    sending.send(signature);
    sending.close_stdin();
    sending.finish(PATIENCE)
}

#[test]
fn a_signed_approval_is_by_ones_own_key_over_exactly_this_request() {
    let revoking = "[ssh]\nrevoked_keys = \"revoked\"\n";
    let mut world =
        plan("[{ from = [\"sales\"], proof = \"signed\" }]").change("[ssh]\n", revoking).file("revoked", "").start();
    keygen(&world.client_file("lost"));
    let (carols, lost) = (world.public_key("carol"), world.public_key("lost"));
    world.set_keys("carol", &[&carols, &lost]);
    let first = ask(&world);
    let unsigned = world.control("carol", &[&format!("approve {first}")]).exited(1).says("takes signed approvals only");
    let line = unsigned.out() + "\n";
    assert!(line.starts_with("tidegate approval v1 gateway=gate request="), "{line:?}");
    assert_eq!(world.gateway.cli(&["request", "show", &first, "--line"]).ok().stdout, line.as_bytes());
    send(&world, "carol", &first, "nonsense").exited(1).says("no signature");
    send(&world, "carol", &first, &signed(&world, "mallory", &line)).exited(1).says("not by one of your own keys");
    let of_the_first = signed(&world, "carol", &line);
    let edited = id(world.control("alice", &["request web-1 --for 20m --reason fix the disk"]));
    send(&world, "carol", &edited, &of_the_first).exited(1).says("not over the line that is to be signed now");
    send(&world, "carol", &first, &of_the_first).exited(1).says("it is cancelled");
    world.exec("alice", "true").exited(77);
    let line = world.control("carol", &[&format!("approve {edited}")]).exited(1).out() + "\n";
    // A second key of hers, which she has lost: good until it is on the list.
    fs::write(world.gateway.dir().join("revoked"), format!("{lost}\n")).unwrap();
    send(&world, "carol", &edited, &signed(&world, "lost", &line)).exited(1).says("the key that signed is revoked");
    let said = send(&world, "carol", &edited, &signed(&world, "carol", &line)).ok().out();
    assert!(said.contains("approved (signed, on level 1)"), "{said}");
    world.exec("alice", "true").ok();
    let session = world.gateway.until_ledger("session.closed", 1, PATIENCE).one("session.closed")["session"].clone();
    world.gateway.until_no_lease(PATIENCE);
    let bundle = world.dir().join("case.tge");
    world.gateway.cli(&["evidence", session.as_str().unwrap(), "-o", bundle.to_str().unwrap()]).ok();
    let proven = world.gateway.cli(&["verify", bundle.to_str().unwrap()]).exited(0).out();
    let claim = proven.lines().find(|line| line.contains("the request of alice was approved by carol")).unwrap();
    assert!(claim.contains("SIGNED") && claim.contains("fix the disk"), "by hers, over what was asked for: {claim}");
    // What was signed stands by itself: OpenSSH verifies it without us.
    let view = world.gateway.json(&["request", "show", &edited]);
    let (signature, signers) = (world.dir().join("yes.sig"), world.dir().join("signers"));
    fs::write(&signature, view["approvals"][0]["signature"].as_str().unwrap()).unwrap();
    fs::write(&signers, format!("carol {carols}\n")).unwrap();
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-Y", "verify", "-n", "tidegate-approval", "-I", "carol", "-f"])
        .arg(&signers)
        .arg("-s")
        .arg(&signature);
    let mut verifying = Running::start(command);
    verifying.send(&line);
    verifying.close_stdin();
    verifying.finish(PATIENCE).ok();
}

/// A ticket system that knows INC-1 and INC-2, sends who asks for INC-7 elsewhere, and hangs up on everybody else but INC-404.
/// What it was asked comes out of the other end.
fn ticket_system() -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, (asked, received)) = (listener.local_addr().unwrap().port(), mpsc::channel());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            let answer = match path.rsplit('/').next().unwrap_or_default() {
                "INC-1" | "INC-2" => "HTTP/1.1 204 No Content\r\n\r\n",
                "INC-404" => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
                "INC-7" => "HTTP/1.1 302 Found\r\nlocation: /INC-1\r\ncontent-length: 0\r\n\r\n",
                _ => "",
            };
            let _ = stream.write_all(answer.as_bytes());
            if asked.send(path).is_err() {
                return; // the test is over
            }
        }
    });
    (port, received)
}

#[test]
fn a_ticket_that_the_ticket_system_does_not_know_or_does_not_answer_for_asks_for_nothing() {
    let (port, asked) = ticket_system();
    let ticket = format!("ticket = {{ pattern = \"^INC-\", check_url = \"http://127.0.0.1:{port}/of/{{ticket}}\" }}");
    let world = plan(&format!("[{{ from = [\"sales\"] }}]\n{ticket}")).start();
    let ask = |ticket: &str| world.control("alice", &[&format!("request web-1 --reason x --ticket {ticket}")]);
    ask("INC-404").exited(1).says("knows no such ticket");
    for down in ["INC-7", "INC-9"] {
        ask(down).exited(1).says("the ticket system does not answer, so nothing is asked for");
    }
    ask("XYZ-1").exited(1).says("must look like ^INC-");
    assert!(world.gateway.list(&["request", "list"]).is_empty());
    let first = id(ask("INC-1"));
    assert_eq!(world.gateway.json(&["request", "show", &first])["ticket"], "INC-1");
    ask("INC-1/../x").exited(1);
    let asked: Vec<String> = asked.try_iter().collect();
    assert_eq!(asked, ["/of/INC-404", "/of/INC-7", "/of/INC-9", "/of/INC-1", "/of/INC-1%2F..%2Fx"]);
}
