//! Auditors of a part: what is not within it they neither list nor watch nor play nor hold, and no key of theirs opens it.

use crate::https::{get, post, token};
use serde_json::{Value, json};
use tidegate_tests::{
    World, wait_until,
    world::{PATIENCE, Plan},
};

/// `carol` audits a part, and `ssh gate play` works within it. The public key that she logs in with is one that opens recordings, too.
fn world(plan: Plan, part: &str) -> World {
    let auditor = format!("[[auditor]]\nname = \"part\"\ngroups = [\"part-audit\"]\n{part}\n");
    let plan = plan.change("[recording]\n", "[recording]\nreplay_window = \"1h\"\n");
    let mut world = plan.block("[api]\nlisten = \"127.0.0.1:0\"\n").change("[\"sales\"]", "[\"part-audit\"]").start();
    let recipients = format!("recipients = [{:?}]\n", world.public_key("carol"));
    world.config.block(auditor + &recipients);
    world.gateway.configure(&world.config);
    world.gateway.cli(&["check"]).ok().shows("part-audit see").shows("with 1 key(s) to its recordings");
    world.gateway.cli(&["reload"]).ok();
    world
}

fn last_opened(world: &World, count: usize) -> String {
    let ledger = world.gateway.until_ledger("session.opened", count, PATIENCE);
    ledger.all("session.opened").last().unwrap()["session"].as_str().unwrap().to_owned()
}

fn play(world: &World, session: &str, identity: &std::path::Path) -> tidegate_tests::Output {
    let identity = identity.to_str().unwrap();
    world.gateway.cli(&["recording", "play", session, "--identity", identity, "--speed", "1000"])
}

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

#[test]
fn an_auditor_of_one_target_sees_what_is_done_there_and_nothing_else() {
    let mut world = world(Plan::new(), "targets = [\"orders\"]");
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.gateway.grant("alice", "orders", "readonly", "30m");
    world.exec("alice", "echo done-on-web").ok();
    let web = last_opened(&world, 1);
    world.psql("alice", "select 'done-in-shop'").ok();
    let shop = last_opened(&world, 2);
    world.gateway.until_ledger("session.closed", 2, PATIENCE);

    // What is over: by the key, and by the gateway's own within the window.
    let carol = world.client_file("carol");
    play(&world, &shop, &carol).ok().shows("done-in-shop");
    play(&world, &web, &carol).exited(1).says("none of these identities opens this recording");
    play(&world, &web, &world.gateway.identity()).ok().shows("done-on-web");
    world.control("carol", &["play", &shop]).ok().shows("done-in-shop");
    world.control("carol", &["play", &web]).exited(1).says("no session has this id");
    let found = world.gateway.cli(&["recording", "search", "done-", "--identity", carol.to_str().unwrap()]).ok();
    assert!(found.out().contains("done-in-shop") && !found.out().contains("done-on-web"), "{}", found.out());
    assert!(found.err().contains("1 recording(s) were not searched: this key does not open them"), "{}", found.err());

    // Over the API, with a token that goes as far as she does.
    let all = token(&world, "carol", "all");
    assert_eq!(ids(&get(&world, "/v1/sessions", &all).json()), [shop.as_str()]);
    assert_eq!(get(&world, &format!("/v1/sessions/{shop}"), &all).json()["leases"][0]["state"], "closed");
    assert_eq!(get(&world, &format!("/v1/sessions/{web}"), &all).status, 404);
    assert_eq!(get(&world, "/v1/grants", &all).json().as_array().unwrap().len(), 1);
    assert_eq!(get(&world, "/v1/sessions?limit=1", &all).header("link"), None, "there is no more than that for her");
    for path in ["/v1/leases", "/v1/locks", "/v1/mfa"] {
        let refused = get(&world, path, &all).refused(403);
        assert!(refused.contains("carol is an auditor of a part of this gateway only"), "{path}: {refused}");
    }
    let held = |world: &World, id: &str, what: &str| {
        post(world, &format!("/v1/recordings/{id}/{what}"), &all, &json!({"reason": "case"}))
    };
    let refused = held(&world, &web, "hold");
    assert!(refused.body.contains("there is no recording"), "{}", refused.body);
    // What is not hers makes nothing of hers ambiguous, and is no more there by a part of its id.
    let common: String = web.chars().zip(shop.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
    assert!(
        common.len() > 2
            && held(&world, &common, "hold").status == 200
            && held(&world, &common, "release").status == 200
    );
    assert_eq!(held(&world, &shop, "hold").status, 200);
    assert_eq!(held(&world, &shop, "release").status, 200);
    assert_eq!(
        post(&world, &format!("/v1/sessions/{shop}/kill"), &all, &json!({})).status,
        404,
        "an auditor ends nothing"
    );

    // What is live.
    let shell = world.ssh_start("alice", "deploy@web-1", &["echo on; cat"]);
    shell.until_stdout("on", PATIENCE);
    let web = last_opened(&world, 3);
    world.control("carol", &["watch", &web]).exited(1).says("no session has this id");
    assert_eq!(get(&world, &format!("/v1/sessions/{web}/watch"), &all).status, 404);
    let mut psql = world.psql_start("alice");
    psql.send("select 'live-' || 42;\n");
    psql.until_stdout("live-42", PATIENCE);
    let shop = last_opened(&world, 4);
    let watching = world.ssh_start("carol", "carol", &["watch", &shop]);
    watching.until_stdout("live-", PATIENCE);
    let now = get(&world, &format!("/v1/sessions/{shop}"), &all).json();
    assert!(now["last"].as_str().unwrap().contains("select 'live-'"), "{now}");
    // Her part is another one now: what she watches is not within it any more.
    world.config.change("targets = [\"orders\"]\nrecipients", "targets = { env = \"prod\" }\nrecipients");
    world.gateway.configure(&world.config);
    world.gateway.cli(&["reload"]).ok();
    let labelled = world.gateway.cli(&["check"]).ok();
    assert!(labelled.out().contains("part-audit see what anybody does on targets with env=prod"), "{}", labelled.out());
    watching.end(PATIENCE);
    let watched = world.ssh_start("carol", "carol", &["watch", &web]);
    watched.until_stdout("on", PATIENCE);
    shell.finish(PATIENCE).ok();
    watched.end(PATIENCE).ok();
    psql.finish(PATIENCE).ok();

    // Her own she may keep, and not let go.
    world.config.change("groups = [\"part-audit\"]\nssh_keys", "groups = [\"part-audit\", \"sre\"]\nssh_keys");
    world.gateway.configure(&world.config);
    world.gateway.cli(&["reload"]).ok();
    world.gateway.grant("carol", "web-1", "shell", "30m");
    world.exec("carol", "true").ok();
    let own = last_opened(&world, 5);
    world.gateway.until_ledger("session.closed", 5, PATIENCE);
    assert_eq!(held(&world, &own, "hold").status, 200);
    let refused = held(&world, &own, "release");
    assert!(refused.body.contains("nobody releases the recording of their own session"), "{}", refused.body);
    world.gateway.verify_ledger().ok();
}

#[test]
fn an_auditor_of_some_people_sees_what_they_do_wherever_that_is() {
    // Alice is in dba, and bob is not.
    let world = world(Plan::new().only_ssh(), "people = [\"dba\"]");
    for who in ["alice", "bob"] {
        world.gateway.grant(who, "web-1", "shell", "30m");
    }
    world.exec("alice", "echo by-alice").ok();
    let alice = last_opened(&world, 1);
    world.exec("bob", "echo by-bob").ok();
    let bob = last_opened(&world, 2);
    world.gateway.until_ledger("session.closed", 2, PATIENCE);
    let carol = world.client_file("carol");
    play(&world, &alice, &carol).ok().shows("by-alice");
    play(&world, &bob, &carol).exited(1).says("none of these identities opens this recording");
    assert_eq!(ids(&get(&world, "/v1/sessions", &token(&world, "carol", "read")).json()), [alice.as_str()]);
    world.control("carol", &["play", &bob]).exited(1).says("no session has this id");
    // What is written in clear says for whom it is.
    let sealed_for = |session: &str| {
        let recordings = world.gateway.recordings();
        let path = recordings.iter().find(|it| it["session"] == session).unwrap()["path"].as_str().unwrap();
        String::from_utf8_lossy(&std::fs::read(path).unwrap()).contains(&world.public_key("carol"))
    };
    wait_until(PATIENCE, "both are there", || (world.gateway.recordings().len() == 2).then_some(()));
    assert_eq!((sealed_for(&alice), sealed_for(&bob)), (true, false));
}
