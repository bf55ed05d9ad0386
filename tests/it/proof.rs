//! What leaves the gateway proves itself elsewhere: with the public key alone, away from its host and its configuration.

use crate::{lives, recording::recorded};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tidegate_tests::{
    World,
    running::{Output, Running, run},
    secs,
    world::PATIENCE,
};

/// An auditor's own machine: a folder with what was handed out, and the program.
struct Elsewhere<'a> {
    world: &'a World,
    dir: PathBuf,
}

impl<'a> Elsewhere<'a> {
    fn new(world: &'a World) -> Self {
        let dir = world.dir().join("elsewhere");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("ledger.pub"), world.gateway.cli(&["ca", "show", "ledger"]).ok().out()).unwrap();
        Self { world, dir }
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn verify(&self, what: &Path, more: &[&str]) -> Output {
        let mut command = Command::new(self.world.gateway.command(&["verify"]).get_program());
        command.env_clear().current_dir(&self.dir).args(["verify", "--key", "ledger.pub"]).args(more).arg(what);
        run(command, PATIENCE)
    }
}

#[test]
fn a_directory_of_recordings_is_proven_with_the_public_key_alone_and_the_exit_code_says_how_far() {
    let (world, id) = recorded("echo one; cat");
    let elsewhere = Elsewhere::new(&world);
    let good = fs::read(crate::recording::file(&world, &id)).unwrap();
    fs::create_dir_all(elsewhere.dir.join("all/below")).unwrap();
    elsewhere.write("all/below/whole.tgr", &good);
    let all = elsewhere.dir.join("all");
    elsewhere.verify(&all, &[]).exited(0).shows("intact: recording").shows(&id);
    elsewhere.write("empty.jsonl", "");
    elsewhere.verify(&all, &["--anchor", "empty.jsonl"]).exited(0).shows("the anchor was not asked");
    let cut = elsewhere.write("all/cut.tgr", &good[..good.len() - 1]);
    elsewhere.verify(&all, &[]).exited(4).shows("NOT whole").shows("TRUNCATED after frame");
    fs::remove_file(cut).unwrap();
    let others = "all/01a20811-2b72-7398-a448-37b267b730c2.tgr";
    let swapped = elsewhere.write(others, &good);
    elsewhere.verify(&all, &[]).exited(1).shows("SWAPPED").shows(&id);
    fs::remove_file(swapped).unwrap();
    let twice = elsewhere.write("all/twice.tgr", &good);
    elsewhere.verify(&all, &[]).exited(1).shows("too");
    fs::remove_file(twice).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    elsewhere.write("all/flipped.tgr", flipped);
    let said = elsewhere.verify(&all, &["--json"]).exited(1).out();
    let proofs: Vec<Value> = serde_json::from_str(&said).unwrap();
    let states: Vec<&str> = proofs.iter().map(|proof| proof["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["intact", "changed"], "{said}");
    let mut openssl = Command::new("sh");
    openssl
        .current_dir(&elsewhere.dir)
        .args(["-c", "openssl genpkey -algorithm ed25519 | openssl pkey -pubout -out ledger.pub"]);
    run(openssl, PATIENCE).ok();
    let another = elsewhere.verify(&elsewhere.dir.join("all/below"), &[]).exited(1).shows("nothing is proven").out();
    assert!(!another.contains(&id), "what nothing proves is not repeated: {another}");
}

#[test]
fn an_export_of_the_ledger_proves_itself_and_whatever_is_done_to_it_is_named() {
    let (world, _) = recorded("cat");
    let elsewhere = Elsewhere::new(&world);
    let text = world.gateway.cli(&["ledger", "export"]).ok().out();
    let lines: Vec<&str> = text.lines().collect();
    let whole = elsewhere.write("ledger.jsonl", &text);
    elsewhere.verify(&whole, &[]).exited(0).shows(&format!("intact: ledger, {} entries", lines.len() - 1));
    elsewhere.write("empty.jsonl", "");
    let anchored = elsewhere.verify(&whole, &["--anchor", "empty.jsonl"]).exited(1);
    anchored.shows("there is no head of a ledger in the anchor");
    let tampered = |name: &str, lines: &[&str], named: &str| {
        let file = elsewhere.write(name, lines.join("\n"));
        elsewhere.verify(&file, &[]).exited(1).shows("NOT intact").shows(named);
    };
    for at in 0..lines.len() - 1 {
        let entry: Value = serde_json::from_str(lines[at]).unwrap();
        let (seq, kind) = (entry["seq"].as_u64().unwrap(), entry["kind"].as_str().unwrap());
        let changed = lines[at].replacen(kind, "grant.issues", 1);
        let mut edited = lines.clone();
        edited[at] = &changed;
        tampered("edited.jsonl", &edited, &format!("ledger a/{seq}: the row was changed"));
        edited.remove(at);
        let last = at == lines.len() - 2;
        if !last {
            // What comes behind it is vouched for by the head at the end all the same.
            let file = elsewhere.write("removed.jsonl", edited.join("\n"));
            let left = format!("still proven: ledger a/{} to a/{}, by the head at its end", seq + 1, lines.len() - 1);
            elsewhere.verify(&file, &[]).exited(1).shows(&left);
        }
        let named = if last { "where the rows do not end".to_owned() } else { format!("ledger a/{seq}") };
        tampered("removed.jsonl", &edited, &named);
    }
    let last = lines.len() - 1;
    tampered("cut.jsonl", &lines[..last - 1], "no signed head");
    tampered("shortened.jsonl", &[&lines[..last - 1], &lines[last..]].concat(), "where the rows do not end");
    // Rows behind the head of their chain, and rows of which each number is there twice.
    tampered("behind.jsonl", &[&lines[..], &lines[last - 1..last]].concat(), "stands behind the head of its chain");
    tampered("heads.jsonl", &[&lines[..], &lines[last..]].concat(), "it is there twice");
    let twice = elsewhere.write("twice.jsonl", [&lines[..last], &lines[..]].concat().join("\n"));
    let found = elsewhere.verify(&twice, &[]).exited(1);
    assert!(found.out().contains("the row is twice there") && !found.out().contains("still proven"), "{}", found.out());
    tampered("none.jsonl", &["{\"a\":1}"], "line 1: neither an entry nor a head");
}

#[test]
fn the_ledger_is_followed_as_it_grows_and_exported_for_a_siem() {
    let world = World::ssh_only();
    let following = Running::start(world.gateway.command(&["ledger", "tail", "-f", "-n", "1"]));
    world.gateway.grant("alice", "web-1", "shell", "30m");
    following.until_stdout("grant.issued", PATIENCE);
    following.signal(tidegate_tests::daemon::Signal::TERM);
    following.end(secs(10));
    let cef = world.gateway.cli(&["ledger", "export", "--format", "cef"]).ok().out();
    let entries = world.gateway.ledger().entries.len();
    assert_eq!(cef.lines().count(), entries);
    assert!(cef.lines().all(|line| line.starts_with("CEF:0|tidegate|tidegate|")), "{cef}");
    let issued = cef.lines().find(|line| line.contains("|grant.issued|")).expect("the grant is in it");
    assert!(issued.contains("suser=alice") && issued.contains("dhost=web-1"), "{issued}");
}

#[test]
fn a_bundle_of_evidence_proves_a_session_elsewhere_and_any_flipped_byte_is_found() {
    let (world, id) = recorded("echo seen; cat");
    world.gateway.until_no_lease(PATIENCE);
    world.gateway.until_ledger("session.closed", 1, PATIENCE);
    let elsewhere = Elsewhere::new(&world);
    let file = elsewhere.dir.join("case.tge");
    world.gateway.cli(&["evidence", &id, "-o", file.to_str().unwrap()]).ok();
    let said = elsewhere.verify(&file, &[]).exited(0).shows("intact: evidence").shows(&id).out();
    for shown in [
        "SIGNED    the recording is in here",
        "entries are in the gateway's ledger",
        "ATTESTED  grant",
        "minted:",
        "the target answered:",
    ] {
        assert!(said.contains(shown), "{shown} is missing: {said}");
    }
    // What a person finds in it, with the tools that everybody has.
    let tar = |args: &[&str]| {
        let mut tar = Command::new("tar");
        tar.current_dir(&elsewhere.dir).args(args);
        run(tar, PATIENCE).ok().out()
    };
    assert_eq!(tar(&["tf", "case.tge"]), "list.json\nREADME\nsummary.html\nevidence.json\nrecording.tgr");
    let page = tar(&["xOf", "case.tge", "summary.html"]);
    assert!(!page.contains("<script") && !page.contains("http") && page.contains("session.opened"), "{page}");
    assert!(tar(&["xOf", "case.tge", "README"]).contains("tidegate verify"));
    tar(&["xf", "case.tge", "recording.tgr"]);
    elsewhere.verify(&elsewhere.dir.join("recording.tgr"), &[]).exited(0);
    let good = fs::read(&file).unwrap();
    let steps = 150;
    for step in 0..steps {
        let mut bad = good.clone();
        let at = step * (good.len() - 1) / (steps - 1);
        bad[at] ^= 1 << (step % 8);
        let bad = elsewhere.write("bad.tge", bad);
        let said = elsewhere.verify(&bad, &[]);
        assert_ne!(said.code, Some(0), "byte {at} of {} was flipped, and not found: {}", good.len(), said.out());
    }
}

#[test]
fn evidence_without_its_recording_still_verifies_and_names_the_seal_of_what_was_left_out() {
    let (world, id) = recorded("echo a-secret-answer; cat");
    world.gateway.until_no_lease(PATIENCE);
    let elsewhere = Elsewhere::new(&world);
    let file = elsewhere.dir.join("redacted.tge");
    world.gateway.cli(&["evidence", &id, "--redact", "-o", file.to_str().unwrap()]).ok();
    let sealed = world.gateway.ledger().entries.into_iter().find(|entry| entry["kind"] == "recording.sealed").unwrap();
    let head = sealed["detail"]["head"].as_str().unwrap();
    elsewhere.verify(&file, &[]).exited(0).shows("which was left out").shows(head);
    let copy = crate::recording::file(&world, &id);
    elsewhere.verify(&copy, &[]).exited(0).shows(head);
    world.gateway.cli(&["evidence", &id, "-o", file.to_str().unwrap()]).exited(1);
}

#[test]
fn a_recording_that_somebody_took_away_is_not_left_out_in_silence() {
    let (world, id) = recorded("echo seen; cat");
    world.gateway.until_no_lease(PATIENCE);
    let recording = crate::recording::file(&world, &id);
    let good = fs::read(&recording).unwrap();
    // Whole once, as the ledger knows.
    fs::write(&recording, &good[..good.len() - 1]).unwrap();
    world
        .gateway
        .cli(&["recording", "verify", &id])
        .exited(1)
        .shows("CUT: the ledger has the seal of the whole recording");
    let identity = world.gateway.identity();
    let search = ["recording", "search", "--identity", identity.to_str().unwrap(), "seen"];
    world.gateway.cli(&search).exited(1).says("not searched: CUT");
    fs::remove_file(&recording).unwrap();
    let file = world.dir().join("case.tge");
    let evidence = ["evidence", &id, "-o", file.to_str().unwrap()];
    world.gateway.cli(&evidence).exited(1).says("no rule deleted it, and it is gone");
    assert!(!file.exists());
    world.gateway.cli(&[&evidence[..], &["--redact"]].concat()).ok();
    world.gateway.cli(&["verify", file.to_str().unwrap()]).exited(0).shows("which was left out");
    let bundled = world.gateway.ledger().entries.into_iter().filter(|entry| entry["kind"] == "recording.bundled");
    assert_eq!(bundled.count(), 2, "that evidence is taken is in the ledger");
}

#[test]
fn evidence_of_a_session_whose_gateway_was_killed_says_how_far_its_recording_is_proven() {
    let mut world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let ssh = world.ssh_start("alice", "deploy@web-1", &["echo before the kill; cat"]);
    ssh.until_stdout("before the kill", PATIENCE);
    world.gateway.kill9();
    ssh.end(PATIENCE);
    world.gateway.start();
    let recovered = world.gateway.until_ledger("recording.recovered", 1, PATIENCE).one("recording.recovered").clone();
    let file = world.dir().join("case.tge");
    world.gateway.cli(&["evidence", recovered["session"].as_str().unwrap(), "-o", file.to_str().unwrap()]).ok();
    let verified = world.gateway.cli(&["verify", file.to_str().unwrap()]).exited(4).shows("its recording breaks off");
    verified.shows("when its gateway came back it had").shows(recovered["detail"]["head"].as_str().unwrap());
}

#[test]
fn evidence_of_a_session_that_was_extended_has_both_grants_with_who_asked_and_who_approved() {
    let world = lives::plan("approvals = [{ from = [\"sales\"] }]\nextend = \"once\"").start();
    let first = lives::granted(&world, "web-1 --for 20m");
    let session = world.ssh_start("alice", "deploy@web-1", &["echo on; cat"]);
    session.until_stdout("on", PATIENCE);
    lives::extend(&world, &first);
    world.gateway.until_ledger("session.extended", 1, PATIENCE);
    session.finish(PATIENCE).ok();
    world.gateway.until_no_lease(PATIENCE);
    let ledger = world.gateway.until_ledger("session.closed", 1, PATIENCE);
    let extended = ledger.one("session.extended");
    let second = extended["grant"].as_str().unwrap();
    let elsewhere = Elsewhere::new(&world);
    let file = elsewhere.dir.join("extended.tge");
    world.gateway.cli(&["evidence", extended["session"].as_str().unwrap(), "-o", file.to_str().unwrap()]).ok();
    let said = elsewhere.verify(&file, &[]).exited(0).shows("intact: evidence").out();
    for shown in [
        format!("grant {first} of gate for alice on web-1"),
        format!("grant {second} of gate for alice on web-1"),
        format!("of grant {first}, rested on grant {second} from then on, until "),
    ] {
        assert!(said.contains(&shown), "{shown} is missing: {said}");
    }
    for (shown, times) in [("the request of alice was opened by alice", 2), ("was approved by carol", 2)] {
        assert_eq!(said.matches(shown).count(), times, "{shown}: {said}");
    }
    let mut tar = Command::new("tar");
    tar.current_dir(&elsewhere.dir).args(["xOf", "extended.tge", "evidence.json"]);
    let evidence: serde_json::Value = serde_json::from_str(&run(tar, PATIENCE).ok().out()).unwrap();
    let keys = |table: &str| {
        let rows = evidence["rows"].as_array().unwrap().iter().filter(|row| row["table"] == table);
        rows.map(|row| row["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((keys("grants"), keys("requests").len()), (vec![first.clone(), second.to_owned()], 2));
}
