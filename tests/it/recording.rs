//! What auditors do with recordings: verify without a key, replay inertly, export; and what tampering looks like.

use std::{fs, path::PathBuf};
use tidegate_tests::{World, gateway::files, secs, world::PATIENCE};

/// A world with one sealed SSH recording of this command; the recording's id.
pub(crate) fn recorded(command: &str) -> (World, String) {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let mut ssh = world.ssh_start("alice", "deploy@web-1", &[command]);
    ssh.send("typed by alice\n");
    ssh.finish(PATIENCE).ok();
    world.gateway.until_ledger("recording.sealed", 1, PATIENCE);
    let recordings = world.gateway.recordings();
    assert_eq!(recordings[0]["state"], "complete", "{recordings:?}");
    let id = recordings[0]["session"].as_str().unwrap().to_owned();
    (world, id)
}

pub(crate) fn file(world: &World, id: &str) -> PathBuf {
    let recordings = world.gateway.recordings();
    let path = recordings.iter().find(|r| r["session"] == id).unwrap()["path"].as_str().unwrap().to_owned();
    let name = PathBuf::from(&path).file_name().unwrap().to_owned();
    files(&world.gateway.state()).into_iter().find(|f| f.file_name() == Some(&name)).expect("the recording's file")
}

#[test]
fn a_recording_is_sealed_unreadable_on_disk_and_verifies_without_a_key() {
    let (world, id) = recorded("cat; echo a secret answer");
    let bytes = fs::read(file(&world, &id)).unwrap();
    for secret in ["typed by alice", "a secret answer"] {
        assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "{secret:?} can be read on disk");
    }
    world.gateway.cli(&["recording", "verify", &id]).ok();
    world.gateway.cli(&["recording", "verify", file(&world, &id).to_str().unwrap()]).ok();
    let text = world.gateway.export(&id, "text");
    assert!(text.contains("a secret answer"), "{text}");
    let without = world.gateway.cli(&["recording", "export", "--format", "text", &id]);
    assert_eq!(without.code, Some(2), "an identity is needed");
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let (world, id) = recorded("head -c 3000 /dev/urandom | base64; cat");
    let path = file(&world, &id);
    let good = fs::read(&path).unwrap();
    let steps = 60;
    for step in 0..steps {
        let mut bad = good.clone();
        let place = step * (good.len() - 1) / (steps - 1);
        bad[place] ^= 1 << (step % 8);
        fs::write(&path, &bad).unwrap();
        let output = world.gateway.cli(&["recording", "verify", path.to_str().unwrap()]);
        assert_eq!(output.code, Some(1), "byte {place} of {} flipped, not found: {}", good.len(), output.out());
    }
    fs::write(&path, &good).unwrap();
    world.gateway.cli(&["recording", "verify", path.to_str().unwrap()]).ok();
}

#[test]
fn a_cut_tail_is_named_truncated_and_never_complete() {
    let (world, id) = recorded("for n in 1 2 3 4 5 6 7 8 9; do echo line $n; sleep 0.1; done; cat");
    let path = file(&world, &id);
    let good = fs::read(&path).unwrap();
    for keep in [good.len() - 1, good.len() - 40, good.len() * 2 / 3] {
        fs::write(&path, &good[..keep]).unwrap();
        let output = world.gateway.cli(&["recording", "verify", path.to_str().unwrap()]).exited(1);
        let said = output.out() + &output.err();
        assert!(said.contains("TRUNCATED after frame"), "{keep} of {}: {said}", good.len());
    }
    fs::write(&path, [&good[..], b"more"].concat()).unwrap();
    world.gateway.cli(&["recording", "verify", path.to_str().unwrap()]).exited(1);
}

#[test]
fn a_recording_swapped_for_another_one_is_found() {
    let (world, first) = recorded("cat; echo first");
    world.exec("alice", "echo second").ok();
    world.gateway.until_ledger("recording.sealed", 2, PATIENCE);
    let recordings = world.gateway.recordings();
    let second =
        recordings.iter().find(|r| r["session"] != first.as_str()).unwrap()["session"].as_str().unwrap().to_owned();
    let (a, b) = (file(&world, &first), file(&world, &second));
    let (bytes_a, bytes_b) = (fs::read(&a).unwrap(), fs::read(&b).unwrap());
    fs::write(&a, bytes_b).unwrap();
    fs::write(&b, bytes_a).unwrap();
    world.gateway.cli(&["recording", "verify", "--all"]).exited(1);
}

#[test]
fn play_is_inert_whatever_the_session_printed() {
    // OSC 52 (clipboard), a title, a DCS, and a query that a terminal would answer by typing.
    let (world, id) = recorded(
        r"printf 'visible\033]52;c;ZXZpbA==\007\033]0;title\007\033P+q544e\033\\\033[6n\033]8;;http://x\033\\link'; cat",
    );
    let identity = world.gateway.identity();
    let args = ["recording", "play", "--plain", "--speed", "1000", "--identity", identity.to_str().unwrap(), &id];
    for terminal in [false, true] {
        let output = if terminal {
            let inner = world.gateway.command(&args);
            let line: Vec<String> = std::iter::once(inner.get_program())
                .chain(inner.get_args())
                .map(|a| format!("'{}'", a.to_string_lossy()))
                .collect();
            let mut script = std::process::Command::new("script");
            script.args(["-qec", &line.join(" "), "/dev/null"]);
            script.envs(inner.get_envs().filter_map(|(k, v)| Some((k, v?)))).env("TERM", "xterm");
            tidegate_tests::running::run(script, PATIENCE).ok()
        } else {
            world.gateway.cli(&args).ok()
        };
        let out = output.out();
        assert!(out.contains("visible"), "{out:?}");
        for raw in ["\u{1b}]52", "\u{1b}]0;", "\u{1b}P", "\u{1b}[6n", "\u{1b}]8", "\u{9d}", "\u{90}"] {
            assert!(!out.contains(raw), "{raw:?} reached the terminal: {out:?}");
        }
    }
}

#[test]
fn every_export_format_has_the_session_in_it() {
    let (world, id) = recorded("cat; echo shown to alice");
    for format in ["text", "jsonl"] {
        let text = world.gateway.export(&id, format);
        assert!(text.contains("shown to alice") || format == "jsonl", "{format}: {text}");
        if format != "text" {
            for line in text.lines() {
                serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{format}: {e} in {line}"));
            }
        }
    }
}

#[test]
fn a_database_session_exports_as_sql_with_who_and_when() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    world.psql("alice", "select name from items where id = 5").ok();
    world.gateway.until_ledger("recording.sealed", 1, PATIENCE);
    let recordings = world.gateway.recordings();
    let id = recordings[0]["session"].as_str().unwrap();
    assert_eq!(recordings[0]["protocol"], "postgres");
    let sql = world.gateway.export(id, "sql");
    assert!(sql.contains("select name from items where id = 5") && sql.contains("alice"), "{sql}");
    world.gateway.cli(&["recording", "verify", id]).ok();
}

#[test]
fn a_live_recording_is_listed_as_live_and_can_be_verified_so_far() {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let ssh = world.ssh_start("alice", "deploy@web-1", &["echo so far; sleep 600"]);
    ssh.until_stdout("so far", PATIENCE);
    let recordings = world.gateway.recordings();
    assert_eq!(recordings[0]["state"], "live");
    let text = world.gateway.export(recordings[0]["session"].as_str().unwrap(), "text");
    assert!(text.contains("so far"), "recorded before it was forwarded: {text}");
    drop(ssh);
    world.gateway.until_ledger("recording.sealed", 1, secs(30));
}

#[test]
fn a_listed_recording_has_the_fields_that_programs_rely_on() {
    let (world, _) = recorded("cat");
    let entry = &world.gateway.recordings()[0];
    for field in ["id", "session", "identity", "target", "protocol", "start", "end", "state", "frames", "bytes", "path"]
    {
        assert!(!entry[field].is_null(), "{field} is missing in {entry}");
    }
}

#[test]
fn what_a_killed_gateway_left_of_a_recording_is_in_the_ledger_and_its_unsigned_tail_cannot_be_changed() {
    let mut world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let mut ssh = world.ssh_start("alice", "deploy@web-1", &["cat"]);
    ssh.send("said before the kill\n");
    ssh.until_stdout("said before the kill", PATIENCE);
    world.gateway.kill9();
    ssh.end(PATIENCE);
    world.gateway.start();
    let ledger = world.gateway.until_ledger("recording.recovered", 1, PATIENCE);
    let entry = ledger.entries.iter().find(|entry| entry["kind"] == "recording.recovered").unwrap();
    let id = entry["session"].as_str().unwrap().to_owned();
    assert!(entry["detail"]["found"].as_str().unwrap().starts_with("TRUNCATED after frame"), "{entry}");
    let text = world.gateway.export(&id, "text");
    assert!(text.contains("said before the kill"), "{text}");
    let path = file(&world, &id);
    let verify = || world.gateway.cli(&["recording", "verify", &id]).exited(1).out();
    assert!(verify().contains("TRUNCATED after frame"));
    let good = fs::read(&path).unwrap();
    let length = |at: usize| u32::from_be_bytes(good[at..at + 4].try_into().unwrap()) as usize;
    let (mut at, mut last) = (14 + length(10), 0);
    while at < good.len() {
        let short = usize::from(u16::from_be_bytes(good[at..at + 2].try_into().unwrap()) & 0x3fff);
        (last, at) = (at, at + if good[at] > 127 { 12 + short } else { 4 + length(at) });
    }
    fs::write(&path, &good[..last]).unwrap();
    assert!(verify().contains("changed since its gateway came back"), "a frame that no signature covers is gone");
    fs::write(&path, &good).unwrap();
    world.restart_gateway();
    assert_eq!(world.gateway.ledger().count("recording.recovered"), 1, "it is noted once");
}

#[test]
fn what_was_seen_is_found_over_all_recordings_with_session_moment_and_line() {
    let (world, id) = recorded("echo needle in a haystack; cat");
    world.exec("alice", "echo another").ok();
    world.gateway.until_ledger("recording.sealed", 2, PATIENCE);
    let identity = world.gateway.identity();
    let search = |args: &[&str]| {
        let fixed = ["recording", "search", "--identity", identity.to_str().unwrap()];
        world.gateway.cli(&[&fixed[..], args].concat())
    };
    let found: serde_json::Value = serde_json::from_str(&search(&["--json", "need+le"]).exited(0).out()).unwrap();
    let hits = found.as_array().unwrap();
    assert!(hits.iter().all(|hit| hit["session"] == id.as_str()), "{found}");
    let line = |kind: &str| hits.iter().find(|hit| hit["kind"] == kind).map(|hit| hit["line"].as_str().unwrap());
    assert_eq!(line("text"), Some("needle in a haystack"));
    assert!(line("command").is_some_and(|line| line.contains("echo needle")), "{found}");
    search(&["NEEDLE"]).exited(1);
    search(&["-i", "NEEDLE", "--kind", "text"]).exited(0).shows("alice@web-1");
    for nothing in [["--user", "bob"], ["--target", "orders"], ["--until", "2020-01-01"], ["--kind", "sql"]] {
        search(&[&nothing[..], &["needle"]].concat()).exited(1);
    }
    search(&["--since", "1h", "needle|another"]).exited(0).shows("another");
    search(&["("]).exited(1).says("is no regular expression");
    // What was changed is named, and not searched.
    let path = file(&world, &id);
    let mut bad = fs::read(&path).unwrap();
    let middle = bad.len() * 2 / 3;
    bad[middle] ^= 1;
    fs::write(&path, bad).unwrap();
    search(&["needle"]).exited(1).says("not searched");
}

#[test]
fn a_picture_of_a_moment_is_a_png_of_what_was_seen_then() {
    let (world, id) = recorded("printf 'seen\\n'; cat");
    let (identity, file) = (world.gateway.identity(), world.gateway.dir().join("seen.png"));
    let fixed = ["recording", "export", &id, "--format", "png", "--identity", identity.to_str().unwrap()];
    world.gateway.cli(&fixed).exited(2).says("--at");
    world.gateway.cli(&[&fixed[..], &["--at", "1:00:00", "-o", file.to_str().unwrap()]].concat()).ok();
    let script = "import sys, struct, zlib\n\
        data = open(sys.argv[1], 'rb').read()\n\
        assert data[:8] == b'\\x89PNG\\r\\n\\x1a\\n'\n\
        at, body, kinds = 8, b'', []\n\
        while at < len(data):\n\
        \x20length, kind = struct.unpack('>I4s', data[at:at + 8])\n\
        \x20chunk, (crc,) = data[at + 8:at + 8 + length], struct.unpack('>I', data[at + 8 + length:at + 12 + length])\n\
        \x20assert zlib.crc32(kind + chunk) == crc\n\
        \x20kinds.append(kind)\n\
        \x20body += chunk if kind == b'IDAT' else b''\n\
        \x20if kind == b'IHDR': print(*struct.unpack('>II', chunk[:8]))\n\
        \x20at += 12 + length\n\
        assert kinds[-1] == b'IEND' and b'iTXt' in kinds, kinds\n\
        print(len(set(zlib.decompress(body))) > 2)\n";
    let mut python = std::process::Command::new("python3");
    python.args(["-c", script]).arg(&file);
    let told = tidegate_tests::running::run(python, PATIENCE).ok().out();
    assert_eq!(told, "1584 1200\nTrue", "50 lines of 132 columns, with letters in them");
    let bytes = fs::read(&file).unwrap();
    assert!(
        String::from_utf8_lossy(&bytes).contains(&format!("session {id} of alice on web-1")),
        "it says of what it is"
    );
}

#[test]
fn an_index_answers_for_its_recording_until_that_changes() {
    let (world, id) = recorded("echo needle in a haystack; cat");
    let identity = world.gateway.identity();
    let with = |command: &str, args: &[&str]| {
        let fixed = ["recording", command, "--identity", identity.to_str().unwrap()];
        world.gateway.cli(&[&fixed[..], args].concat())
    };
    let direct = with("search", &["--json", "need.e"]).ok().says("1 recording(s) have no fresh index");
    with("reindex", &[]).ok().shows("1 indexed, 0 had a fresh index");
    with("reindex", &[]).ok().shows("0 indexed, 1 had a fresh index");
    let indexed = with("search", &["--json", "need.e"]).ok();
    assert_eq!((indexed.out(), indexed.err()), (direct.out(), String::new()));
    with("search", &["nowhere"]).exited(1);
    assert!(world.gateway.cli(&["recording", "list"]).ok().err().is_empty(), "an index is no stranger there");
    assert_eq!(world.gateway.ledger().count("recording.indexed"), 2);
    // What comes after it has none yet.
    world.exec("alice", "echo another needle").ok();
    world.gateway.until_ledger("recording.sealed", 2, PATIENCE);
    with("search", &["another needle", "--kind", "text"])
        .ok()
        .shows("another")
        .says("1 recording(s) have no fresh index");
    with("reindex", &[&id]).ok().shows("0 indexed, 1 had");
    // A recording that was changed is not shown, whatever its index has, and gets no new one.
    let path = file(&world, &id);
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::write(&path, &bad).unwrap();
    with("search", &["haystack"]).exited(1).says("not searched");
    bad.pop();
    fs::write(&path, &bad).unwrap();
    with("reindex", &[&id]).exited(1).says("not indexed");
}
