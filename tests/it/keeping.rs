//! Recordings go when a rule says so, never without a tombstone and never while they are held; and they are told before their room is taken.

use std::fs;
use tidegate_tests::{
    World, wait_until,
    world::{PATIENCE, Plan},
};

/// Whoever is root on the gateway's host is an admin and an auditor.
fn world(recording: &str) -> World {
    let plan = Plan::new().only_ssh().change("[recording]\n", &format!("[recording]\n{recording}\n"));
    let world = plan.change("[\"platform\"]\nunix_user", "[\"platform\", \"audit\"]\nunix_user").start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world
}

/// A session of alice's that is over; its id.
fn session(world: &World, command: &str) -> String {
    let before = world.gateway.ledger().count("session.closed");
    world.exec("alice", command).ok();
    let ledger = world.gateway.until_ledger("session.closed", before + 1, PATIENCE);
    ledger.all("session.closed").last().unwrap()["session"].as_str().unwrap().to_owned()
}

/// The gateway looks at once when it starts.
fn restart(world: &mut World) {
    world.gateway.terminate();
    world.gateway.start();
}

fn until_recordings(world: &World, left: &[&str]) {
    let names =
        || world.gateway.recordings().iter().map(|r| r["session"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    wait_until(PATIENCE, &format!("recordings are {left:?}"), || (names() == left).then_some(()));
}

#[test]
fn what_is_kept_long_enough_goes_with_a_tombstone_and_what_is_held_stays() {
    let mut world = world("keep = \"400d\"");
    let (held, kept) = (session(&world, "echo held"), session(&world, "echo kept"));
    let hold = ["recording", "hold", &held[28..], "--reason", "case 7"];
    assert_eq!(world.gateway.cli(&hold).ok().out(), held);
    world.gateway.cli(&hold).exited(1).says("is held already");
    assert_eq!(world.gateway.list(&["recording", "holds"])[0]["reason"], "case 7");
    let file = world.gateway.recordings()[1]["path"].as_str().unwrap().to_owned();
    let copy = fs::read(&file).unwrap();
    let identity = world.gateway.identity().display().to_string();
    world.gateway.cli(&["recording", "reindex", "--identity", &identity]).ok().shows("2 indexed");
    let index = std::path::Path::new(&file).with_extension("tgi");
    assert!(index.exists());
    restart(&mut world);
    until_recordings(&world, &[&held, &kept]);

    world.config.change("keep = \"400d\"", "keep = \"1s\"");
    world.restart_gateway();
    until_recordings(&world, &[&held]);
    assert!(!index.exists(), "what was seen is not in an index either");
    let ledger = world.gateway.ledger();
    let (tombstone, sealed) = (ledger.one("recording.deleted"), ledger.last("recording.sealed").unwrap());
    assert_eq!((&tombstone["session"], &tombstone["detail"]["keep"]), (&kept.as_str().into(), &"1s".into()));
    assert_eq!(tombstone["detail"]["seal"]["head"], sealed["detail"]["head"]);
    // It is missed by nobody who reads the ledger, and its evidence says what became of it.
    world.gateway.cli(&["recording", "verify", "--all"]).ok();
    world.gateway.verify_ledger().ok();
    let case = world.dir().join("case.tge").display().to_string();
    world.gateway.cli(&["evidence", &kept, "-o", &case]).ok();
    world.gateway.cli(&["verify", &case]).ok().shows("the recording was kept for 1s, and then deleted by that rule");

    // As if the gateway was killed between the two: what has a tombstone goes, and gets no second one.
    fs::create_dir_all(std::path::Path::new(&file).parent().unwrap()).unwrap();
    fs::write(&file, copy).unwrap();
    restart(&mut world);
    until_recordings(&world, &[&held]);
    assert_eq!(world.gateway.ledger().count("recording.deleted"), 1);
    world.gateway.cli(&["recording", "release", &held, "--reason", "case closed"]).ok();
    restart(&mut world);
    until_recordings(&world, &[]);
    assert_eq!(world.gateway.ledger().count("recording.deleted"), 2);
    world.gateway.cli(&["recording", "verify", "--all"]).ok();
}

#[test]
fn an_admin_who_is_no_auditor_holds_and_does_not_release() {
    let world = Plan::new().only_ssh().start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let id = session(&world, "true");
    world.gateway.cli(&["recording", "hold", &id, "--reason", "asked to"]).ok();
    world.gateway.cli(&["recording", "release", &id, "--reason", "rather not"]).exited(1).says("only an auditor");
    world.gateway.cli(&["recording", "hold", "ffffffff", "--reason", "r"]).exited(1).says("there is no recording");
}

#[test]
fn when_recordings_have_taken_their_room_it_is_told_and_no_session_begins() {
    let mut world = world("budget = \"1MiB\"");
    session(&world, "head -c 900000 /dev/urandom");
    restart(&mut world);
    let told = world.gateway.until_ledger("recording.budget", 1, PATIENCE);
    assert_eq!(told.one("recording.budget")["detail"]["full"], false, "at 80 % it is told");
    let doctor = world.gateway.cli(&["doctor"]);
    assert!(doctor.out().contains("of the 1 MiB that they may"), "{}", doctor.out());
    session(&world, "head -c 300000 /dev/urandom"); // and sessions begin all the same
    restart(&mut world);
    let told = world.gateway.until_ledger("recording.budget", 2, PATIENCE);
    assert_eq!(told.last("recording.budget").unwrap()["detail"]["full"], true);
    wait_until(PATIENCE, "no session begins", || (world.exec("alice", "true").code == Some(1)).then_some(()));
    world.exec("alice", "true").exited(1).says("recordings have taken all the room that they may");
    let status = world.gateway.cli(&["status"]).exited(1);
    assert!((status.out() + &status.err()).contains("recording.budget"), "{}", status.out());
    world.config.change("budget = \"1MiB\"", "budget = \"1GiB\"");
    world.restart_gateway();
    world.exec("alice", "true").ok();
}

#[test]
fn what_an_idle_session_has_shown_is_signed_while_it_waits() {
    let world = Plan::new().only_ssh().start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let live = world.ssh_start("alice", "deploy@web-1", &["echo on; cat"]);
    live.until_stdout("on", PATIENCE);
    let file = world.gateway.recordings()[0]["path"].as_str().unwrap().to_owned();
    // Nobody does anything any more: the last frames are signed by the clock alone.
    let proven = || {
        let told = world.gateway.cli(&["recording", "recover", &file]).exited(4).out();
        let first: u64 = told.split("frames 1 to ").nth(1)?.split(',').next()?.parse().ok()?;
        (!told.contains("NOT PROVEN") && first > 2).then_some(())
    };
    wait_until(PATIENCE, "every frame is signed for", proven);
    live.finish(PATIENCE).ok();
}

#[test]
fn what_a_killed_gateway_left_is_told_part_by_part_and_nothing_is_changed() {
    let mut world = Plan::new().only_ssh().start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let live = world.ssh_start("alice", "deploy@web-1", &["echo on; cat"]);
    live.until_stdout("on", PATIENCE);
    world.gateway.kill9();
    drop(live);
    let file = world.gateway.recordings()[0]["path"].as_str().unwrap().to_owned();
    let before = fs::read(&file).unwrap();
    let told = world.gateway.cli(&["recording", "recover", &file]).exited(4);
    let parts: Vec<String> = told.out().lines().map(str::to_owned).collect();
    assert!(parts[0].contains("TRUNCATED after frame") && parts[1].starts_with("PROVEN      frames 1 to"), "{parts:?}");
    assert!(parts[2].starts_with("NOT PROVEN  frames"), "{parts:?}");
    assert_eq!(fs::read(&file).unwrap(), before);
    world.gateway.start();
}

#[test]
fn what_is_opened_from_its_file_is_in_the_ledger_where_a_gateway_runs() {
    let mut world = Plan::new().only_ssh().start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let id = session(&world, "echo seen");
    let identity = world.gateway.identity().display().to_string();
    let play = ["recording", "play", &id, "--identity", &identity];
    assert!(world.gateway.cli(&play).ok().out().contains("seen"));
    world.gateway.cli(&["recording", "export", &id, "--format", "text", "--identity", &identity]).ok();
    world.gateway.cli(&["recording", "search", "see[n]", "--identity", &identity]).ok();
    let ledger = world.gateway.ledger();
    for (kind, session, what) in [
        ("recording.played", Some(id.as_str()), None),
        ("recording.exported", Some(id.as_str()), Some("text")),
        ("recording.searched", None, Some("see[n]")),
    ] {
        let entry = ledger.one(kind);
        assert_eq!((entry["session"].as_str(), entry["detail"]["what"].as_str()), (session, what), "{entry}");
        assert_eq!((&entry["identity"], &entry["detail"]["from"]), (&"operator".into(), &"file".into()));
    }
    world.gateway.terminate();
    assert!(world.gateway.cli(&play).ok().out().contains("seen"), "without one, too");
    world.gateway.start();
    assert_eq!(world.gateway.ledger().count("recording.played"), 1);
}
