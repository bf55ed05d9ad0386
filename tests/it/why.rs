//! "Why was I refused?": a person reads out a reference, and an admin learns what would change the answer.

use serde_json::Value;
use tidegate_tests::{
    Output, World,
    running::run,
    world::{PATIENCE, Plan},
};

/// The reference in what somebody was told.
fn reference(told: &str) -> String {
    let at = told.find("ref ").unwrap_or_else(|| panic!("no reference in {told:?}"));
    told[at + 4..].chars().take(9).collect()
}

fn why(world: &World, told: &str) -> Value {
    world.gateway.json(&["why", &reference(told)])
}

fn first(world: &World, told: &str) -> Value {
    why(world, told)["refusals"][0].clone()
}

fn texts(refused: &Value, key: &str) -> String {
    let list = refused[key].as_array().expect("a list");
    list.iter().map(|text| text.as_str().expect("text")).collect::<Vec<_>>().join("\n")
}

#[test]
fn over_ssh_a_refusal_has_a_reference_and_what_why_says_to_do_opens_the_session() {
    let world = World::ssh_only();
    let refused = world.exec("alice", "true").exited(77);
    let found = first(&world, &refused.err());
    assert_eq!(found["check"], "grant");
    assert_eq!(found["who"], "alice");
    assert_eq!(found["proven"], true);
    assert_eq!(found["source"], "127.0.0.1");
    assert_eq!(found["asked"], "deploy on web-1");
    let next = texts(&found, "next").replace("WHY", "INC-7");
    let command: Vec<&str> = next.lines().next().expect("a command").split(' ').skip(1).collect();
    world.gateway.cli(&command).ok();
    world.exec("alice", "echo in").ok();

    // As a person reads it out.
    let typed = reference(&refused.err()).to_lowercase().replace('-', "");
    let shown = world.gateway.cli(&["why", &typed]).ok().out();
    assert!(shown.contains("alice") && shown.contains("next     tidegate grant issue --user alice"), "{shown}");
}

#[test]
fn of_a_revoked_grant_why_names_the_grant_and_who_revoked_it() {
    let world = World::ssh_only();
    let grant = world.gateway.grant("alice", "web-1", "shell", "10m");
    world.gateway.cli(&["grant", "revoke", &grant, "--reason", "enough"]).ok();
    let found = first(&world, &world.exec("alice", "true").exited(77).err());
    assert_eq!(found["check"], "revoked");
    let because = texts(&found, "because");
    assert!(because.contains(&grant) && because.contains("operator") && because.contains("enough"), "{because}");
}

#[test]
fn unknown_and_forbidden_targets_look_alike_to_the_person_and_not_to_the_admin() {
    let world = World::ssh_only();
    let forbidden = world.exec("carol", "true").exited(1);
    let unknown = world.ssh("carol", "deploy@web-9", &["true"]).exited(1);
    let plain = |said: &Output| said.err().replace(&reference(&said.err()), "").replace("web-9", "web-1");
    assert_eq!(plain(&forbidden), plain(&unknown));
    let found = first(&world, &forbidden.err());
    assert!(texts(&found, "next").contains("user[carol].groups: add one of sre"), "{found}");
    let found = first(&world, &unknown.err());
    assert!(texts(&found, "because").contains("there is no target web-9"), "{found}");
}

#[test]
fn psql_shows_the_reference_as_a_detail_of_its_error() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "10m");
    let password = world.password("alice", "orders");
    let psql = |user: &str, password: &str| {
        run(world.psql_command(&world.conninfo(user, "orders/shop"), password, &["-c", "select 1"]), PATIENCE)
    };
    let wrong = psql("alice", "nonsense").exited(2).says("DETAIL:");
    let found = first(&world, &wrong.err());
    assert_eq!(
        (&found["check"], &found["who"], &found["proven"]),
        (&"password".into(), &"alice".into(), &false.into())
    );

    let nameless = psql("alice~migrate", &password).exited(2).says("DETAIL:");
    let found = first(&world, &nameless.err());
    assert_eq!(found["check"], "grant");
    assert_eq!(found["asked"], "shop on orders");
    assert!(texts(&found, "next").contains("tidegate grant issue --user alice --target orders"), "{found}");
}

#[test]
fn the_control_shell_gives_references_too() {
    let world = World::postgres_only();
    let refused = world.control("bob", &["password", "orders"]).exited(77);
    let found = first(&world, &refused.err());
    assert_eq!(found["check"], "grant");
    assert_eq!(found["who"], "bob");
    assert_eq!(found["asked"], "password orders");
}

#[test]
fn a_cut_session_can_be_asked_about_and_so_can_what_it_was_refused_on_its_way() {
    let world = Plan::new().only_ssh().start();
    world.gateway.grant("alice", "web-1", "shell", "10m");
    let mut session = world.ssh_start("alice", "deploy@web-1", &["echo in; cat"]);
    session.until_stdout("in", PATIENCE);
    let live = world.gateway.list(&["session", "list"]);
    let id = live[0]["id"].as_str().expect("an id").to_owned();
    world.gateway.cli(&["session", "kill", &id, "--reason", "lunch"]).ok();
    session.take_stdin();
    let cut = session.end(PATIENCE);
    let found = first(&world, &cut.err());
    assert_eq!((&found["check"], &found["session"]), (&"killed".into(), &id.into()));
    assert!(found["why"].as_str().expect("why").contains("lunch"));
}

#[test]
fn of_an_unknown_reference_why_says_so_and_the_one_told_is_the_ledgers() {
    let world = World::ssh_only();
    world.gateway.cli(&["why", "0000-0000"]).exited(1).says("knows of no refusal 0000-0000");
    world.gateway.cli(&["why", "ref 7K3F"]).exited(1).says("not a valid reference");
    let refused = world.exec("alice", "true").exited(77);
    let ledger = world.gateway.ledger();
    let denied = ledger.one("session.denied");
    assert_eq!(denied["detail"]["ref"], reference(&refused.err()));
}
