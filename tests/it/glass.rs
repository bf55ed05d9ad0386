//! Breaking the glass, and the review that it leaves; second factors for whoever asks, on the connection that they ask on.

use crate::{
    asking::id,
    factors::{enroll, typed},
    notify::Receiver,
    terminal::expect,
};
use serde_json::Value;
use tidegate_tests::{
    World,
    world::{PATIENCE, Plan},
};

/// carol audits; alice may break the glass to get in.
fn plan(keys: &str) -> Plan {
    let logins = "logins = [\"deploy\"]";
    Plan::new()
        .only_ssh()
        .change("groups = [\"sales\"]", "groups = [\"sales\", \"audit\"]")
        .change(logins, &format!("{logins}\n{keys}"))
}

const GLASS: &str = "break_glass = true\nmfa = \"session\"";
/// Opens a terminal and says why.
const ASKED: &str =
    "eval spawn -noecho $ssh\nexpect {Why: }\nsend \"the disk is full\\r\"\nexpect {For how long}\nsend \"10m\\r\"\n";
const CODE: &str = "expect {Code of your authenticator app}\n";

fn owed(world: &World) -> Vec<Value> {
    world.gateway.list(&["review", "list"])
}

#[test]
fn who_breaks_the_glass_in_a_terminal_proves_themselves_there_and_somebody_else_reviews_it() {
    let world = plan(GLASS).start();
    let given = enroll(&world, "alice");
    let script = format!(
        "{ASKED}{CODE}send \"{}\\r\"\nexpect {{not right}}\n{CODE}send \"{}\\r\"\nexpect {{granted for 10m}}\n\
         expect {{$ }}\nputs stderr INSIDE\nexpect {{no more than this}}\nexpect eof\n",
        given.wrong(),
        given.code(0)
    );
    let terminal = expect(&world, &script);
    terminal.until_stderr("INSIDE", PATIENCE);
    let review = owed(&world).remove(0);
    let (review_id, sessions) = (review["id"].as_str().unwrap().to_owned(), review["sessions"].as_array().unwrap());
    assert_eq!((review["reason"].as_str(), sessions.len()), (Some("the disk is full"), 1));
    let ledger = world.gateway.ledger();
    ledger.assert_order(&["mfa.proven", "grant.issued", "review.demanded", "session.opened"]);
    // At the top of every list of whoever sees it, and of nobody else's.
    let line = "! review";
    for (who, list) in [("alice", "requests"), ("alice", "grants"), ("carol", "requests"), ("carol", "sessions")] {
        let said = world.control(who, &[list]).ok().out();
        assert!(said.starts_with(line) && said.contains("alice broke the glass"), "{who} {list}: {said}");
    }
    assert!(!world.control("bob", &["requests"]).ok().out().contains(line));
    for list in [["request", "list"], ["session", "list"], ["grant", "list"]] {
        assert!(world.gateway.cli(&list).ok().out().starts_with(line), "{list:?}");
    }
    assert!(world.gateway.cli(&["status"]).ok().out().contains("reviews owed   1"));
    let doctor = world.gateway.cli(&["doctor"]).out();
    assert!(doctor.contains("1 review(s) are owed"), "{doctor}");
    // Neither by herself, nor by whom it does not concern, nor while it goes on.
    let sign = |who: &str| world.control(who, &[&format!("review {} --note read all of it", &review_id[28..])]);
    sign("alice").exited(1).says("nobody signs the review of what they did themselves");
    sign("bob").exited(1).says("no review has this id");
    sign("carol").exited(1).says("it is not over yet");
    world.gateway.cli(&["grant", "revoke", &review_id, "--reason", "no more than this"]).ok();
    terminal.end(PATIENCE).ok();
    sign("carol").ok();
    sign("carol").exited(1).says("carol has signed it already");
    assert!(owed(&world).is_empty());
    assert_eq!(world.gateway.list(&["review", "list", "--all"])[0]["signed"]["by"], "carol");
    assert!(!world.control("alice", &["requests"]).ok().out().contains(line));
    world.gateway.verify_ledger().ok();
}

#[test]
fn without_a_terminal_the_glass_is_broken_by_whoever_has_just_proven_themselves() {
    let world = plan(GLASS).start();
    let ask = "request web-1 --for 5m --reason it burns";
    world.control("alice", &[ask]).exited(77).says("asked for with a second factor only").says("mfa enroll");
    let given = enroll(&world, "alice");
    let silent = ["-o", "SetEnv=TIDEGATE_REASON=\"it burns\""];
    let ssh = |args: &[&str]| {
        tidegate_tests::running::run(world.ssh_command("alice", &silent, "deploy@web-1", args), PATIENCE)
    };
    ssh(&["true"]).exited(77).says("ssh gate mfa");
    typed(&world, &["request", "web-1", "--for", "5m"], &format!("{}\n", given.code(0)))
        .exited(1)
        .says("a reason must");
    let asked = id(typed(&world, &[ask], &format!("{}\n", given.code(0))));
    let request = world.gateway.json(&["request", "show", &asked]);
    assert_eq!((request["state"].as_str(), request["seconds"].as_u64()), (Some("granted"), Some(300)));
    ssh(&["echo in"]).ok();
    assert_eq!(owed(&world).len(), 1);
    world.gateway.cli(&["review", "sign", &owed(&world)[0]["id"].as_str().unwrap()[28..], "--note", "x"]).exited(1);
}

#[test]
fn what_must_be_asked_for_with_a_second_factor_is_asked_once_and_waited_for_on_the_same_connection() {
    for mfa in ["request", "session"] {
        let world = plan(&format!("approvals = [{{ from = [\"sales\"] }}]\nmfa = \"{mfa}\"")).start();
        let given = enroll(&world, "alice");
        let code = format!("{CODE}send \"{}\\r\"\n", given.code(0));
        let wait = "expect {awaits 1 of sales (level 1): carol}\nputs stderr WAITS\nexpect {approved by carol}\n";
        let (before, after) = if mfa == "request" { (code.as_str(), "") } else { ("", code.as_str()) };
        let script = format!(
            "{ASKED}{before}{wait}{after}expect {{$ }}\nsend \"exit 3\\r\"\nexpect eof\nexit [lindex [wait] 3]\n"
        );
        let terminal = expect(&world, &script);
        terminal.until_stderr("WAITS", PATIENCE);
        let open = world.gateway.list(&["request", "list"]).remove(0);
        world.control("carol", &[&format!("approve {}", open["id"].as_str().unwrap())]).ok();
        terminal.finish(PATIENCE).exited(3);
        assert_eq!(world.gateway.ledger().count("mfa.proven"), 1, "{mfa}");
    }
}

#[test]
fn whoever_is_named_is_told_at_once_and_as_urgent() {
    let Some(receiver) = Receiver::start("200") else { return };
    let (web, mail) = receiver.ports();
    let hook = format!("[[notify]]\nname = \"hook\"\nkinds = [\"break_glass\"]\nurl = \"http://127.0.0.1:{web}/in\"\n");
    let smtp = format!("[smtp]\nserver = \"127.0.0.1:{mail}\"\nfrom = \"gate@gate.test\"\ntls = \"none\"\n");
    let post = "[[notify]]\nname = \"mail\"\nkinds = [\"break_glass\"]\nto = [\"oncall@gate.test\"]\n";
    let world = plan(GLASS).block(hook).block(smtp).block(post).start();
    assert!(!world.gateway.cli(&["check"]).ok().err().contains("nobody is told"));
    let given = enroll(&world, "alice");
    typed(&world, &["request web-1 --reason it burns"], &format!("{}\n", given.code(0))).ok();
    let told = receiver.until("the post", |post| post["path"] == "/in");
    let body: Value = serde_json::from_str(told["body"].as_str().unwrap()).unwrap();
    assert_eq!((&body["priority"], &body["entry"]["kind"]), (&"high".into(), &"review.demanded".into()));
    let text = body["text"].as_str().unwrap();
    assert!(text.starts_with("URGENT") && text.ends_with("alice on web-1: it burns"), "{text}");
    let urgent = |mail: &Value| mail["mail"].as_str().is_some_and(|text| text.contains("Importance: high"));
    receiver.until("the mail", urgent);
}
