//! The report that people review access by.

use crate::{
    asking,
    https::{get, token},
};
use serde_json::Value;
use tidegate_tests::world::PATIENCE;

#[test]
fn the_report_says_what_nobody_uses_who_holds_what_and_which_approvals_took_seconds() {
    let auditor = "[[user]]\nname = \"audrey\"\ngroups = [\"audit\"]\n";
    let never = "[[entitlement]]\nname = \"unused\"\ngroups = [\"dba\"]\ntargets = { env = \"prod\" }\nlogins = [\"deploy\"]\n\
                 max_duration = \"1h\"\n";
    let plan = asking::plan("[{ from = [\"sales\"] }]").block("[api]\nlisten = \"127.0.0.1:0\"\n");
    let world = plan.block(auditor).block(never).start();
    world.exec("alice", "true").exited(77);
    let id = asking::id(world.control("alice", &["request web-1/shell --for 10m --reason fix the disk"]));
    world.control("carol", &[&format!("approve {id}")]).ok();
    world.exec("alice", "true").ok();
    world.gateway.until_ledger("session.closed", 1, PATIENCE);
    let report = world.gateway.json(&["access", "report", "--days", "30"]);
    let of = |name: &str| -> Value {
        let all = report["entitlements"].as_array().unwrap();
        all.iter().find(|of| of["entitlement"] == name).unwrap().clone()
    };
    let (shell, unused) = (of("shell"), of("unused"));
    assert_eq!((shell["sessions"].as_u64(), shell["unused_by"].to_string()), (Some(1), "[\"bob\"]".to_owned()));
    assert_eq!((unused["sessions"].as_u64(), unused["last"].is_null()), (Some(0), true), "{unused}");
    assert_eq!(unused["may_ask"].to_string(), "[\"alice\"]");
    let held = &report["held"][0];
    assert_eq!(
        (held["identity"].as_str(), held["approved_by"][0].as_str()),
        (Some("alice"), Some("carol")),
        "{report}"
    );
    let weeks = report["weeks"].as_array().unwrap();
    let count = |key: &str| weeks.iter().map(|week| week[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!((count("sessions"), count("denials")), (1, 1), "{report}");
    let stamp = &report["stamps"][0];
    assert_eq!((stamp["by"].as_str(), stamp["request"].as_str()), (Some("carol"), Some(id.as_str())), "{report}");
    let csv = world.gateway.cli(&["access", "report", "--csv"]).ok().out();
    let lines: Vec<&str> = csv.lines().map(str::trim_end).collect();
    assert_eq!(lines[0], "about,identity,entitlement,target,count,at,more");
    assert!(lines.contains(&"unused,alice,unused,,,,") && csv.contains("rubber stamp,carol,shell,"), "{csv}");
    let shown = world.gateway.cli(&["access", "report"]).ok().out();
    assert!(shown.contains("never") && shown.contains("carol approved shell for alice after"), "{shown}");
    // For those who review, and nobody else.
    let (audrey, alice) = (token(&world, "audrey", "read"), token(&world, "alice", "all"));
    assert_eq!(get(&world, "/v1/access/report?days=30", &audrey).json()["held"], report["held"]);
    get(&world, "/v1/access/report", &alice).refused(403);
    get(&world, "/v1/access/report?days=0", &audrey).refused(422);
}

#[test]
fn people_give_their_own_grants_back_and_nobody_elses() {
    let world = tidegate_tests::World::ssh_only();
    let (own, bobs) =
        (world.gateway.grant("alice", "web-1", "shell", "30m"), world.gateway.grant("bob", "web-1", "shell", "30m"));
    let ssh = world.ssh_start("alice", "deploy@web-1", &["echo in; cat"]);
    ssh.until_stdout("in", PATIENCE);
    world.control("alice", &[&format!("revoke {bobs}")]).exited(1).says("no grant has this id");
    let said = world.control("alice", &[&format!("revoke {} --reason done with it", &own[28..])]).ok().out();
    assert!(said.contains(&own), "{said}");
    ssh.end(PATIENCE).exited(1).says("done with it");
    world.exec("alice", "true").exited(77);
    world.exec("bob", "true").ok();
    world.control("alice", &[&format!("revoke {own}")]).ok();
    assert_eq!(world.gateway.ledger().one("grant.revoked")["detail"]["by"], "alice");
}
