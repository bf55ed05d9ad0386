//! Readers that are not ours: one written from FORMAT.md alone, `age`, and a file that an earlier release wrote.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs, reason = "tests")]

mod support;

use base64::{Engine, prelude::BASE64_STANDARD};
use ed25519_dalek::{SigningKey, pkcs8::EncodePublicKey};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};
use support::{at, data, header, terminal};
use tempfile::TempDir;
use tidegate_recorder::{
    Event, Keep, Recorder, Settings, Stream,
    keys::{Identities, generate_identity},
    replay::{self, What},
    verify::verify,
};

/// A sealed recording with some of everything.
fn recorded(dir: &Path, recipients: Vec<String>) -> PathBuf {
    let settings = Settings { recipients, stream_limit: 8, ..Settings::default() };
    let recorder = Recorder::open(dir, settings, Arc::new(SigningKey::from_bytes(&[7; 32]))).unwrap();
    let live = recorder.start(header(support::SESSION)).unwrap();
    for (second, event) in (1..).zip([
        terminal(Some("top")),
        data(Stream::Stdin, Keep::Whole, b"secret\r"),
        data(Stream::Stdout, Keep::Whole, "a b ü\r\n".as_bytes()),
        data(Stream::Stdout, Keep::Whole, &[b'x'; 600_000]),
        data(Stream::Stderr, Keep::UpToLimit, b"kept to here, then counted"),
        Event::Statement { text: "y".repeat(400_000), prepared: None, number: Some(1), masked: false },
        Event::Exited { channel: 1, status: Some(3), signal: None },
        Event::Closed { channel: 1, up: 0, down: 0 },
    ]) {
        live.note(event, at(second)).unwrap();
    }
    dir.join(live.seal(at(60)).unwrap().path)
}

/// What `tests/reader.py` prints, and its exit code; `None` where its packages are not installed.
fn read(file: &Path, key: &Path, identity: Option<&Path>) -> Option<(Vec<Value>, i32)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let python = env::var_os("TIDEGATE_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let there =
        Command::new(&python).args(["-c", "import cryptography, pyrage, zstandard"]).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        assert!(env::var_os("CI").is_none(), "pyrage and zstandard are missing: tests/clients.txt");
        println!("SKIPPED: pyrage and zstandard of tests/clients.txt are not installed");
        return None;
    }
    let mut reader = Command::new(python);
    reader.arg(root.join("tests/reader.py")).arg(file).arg("--key").arg(key);
    if let Some(identity) = identity {
        reader.arg("--identity").arg(identity);
    }
    let output = reader.output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.is_empty(), "{err}");
    let lines = String::from_utf8(output.stdout).unwrap();
    Some((lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), output.status.code().unwrap()))
}

fn public_key(dir: &Path) -> PathBuf {
    let file = dir.join("ledger.pub");
    let key = SigningKey::from_bytes(&[7; 32]).verifying_key();
    fs::write(&file, key.to_public_key_pem(ed25519_dalek::pkcs8::spki::der::pem::LineEnding::LF).unwrap()).unwrap();
    file
}

fn kept(dir: &Path, secret: &SecretString) -> PathBuf {
    let file = dir.join("auditor.key");
    fs::write(&file, secret.expose_secret()).unwrap();
    file
}

#[test]
fn a_reader_written_from_the_specification_alone_verifies_and_prints_a_recording() {
    let dir = TempDir::new().unwrap();
    let (secret, public) = generate_identity();
    let (file, key, identity) = (recorded(dir.path(), vec![public]), public_key(dir.path()), kept(dir.path(), &secret));
    let Some((lines, code)) = read(&file, &key, Some(&identity)) else { return };
    let ours = verify(&file, &SigningKey::from_bytes(&[7; 32]).verifying_key()).unwrap();
    assert_eq!(
        (lines.last().unwrap(), code),
        (&json!({"state": "complete", "frames": ours.frames, "proven": ours.frames}), 0)
    );
    let find = |name: &str, value: &str| lines.iter().filter(|line| line[name] == value).collect::<Vec<_>>();
    assert_eq!(find("stream", "stdin")[0]["text"], "secret\r");
    let shown: String = find("stream", "stdout").iter().filter_map(|line| line["text"].as_str()).collect();
    assert_eq!(shown, format!("a b ü\r\n{}", "x".repeat(600_000)));
    assert_eq!(find("event", "statement")[0]["text"], "y".repeat(400_000));
    assert_eq!(find("event", "total").len(), 3);
    assert_eq!(find("event", "exited")[0]["status"], 3);
}

#[test]
fn that_reader_finds_the_same_damage_as_ours() {
    let dir = TempDir::new().unwrap();
    let (secret, public) = generate_identity();
    let (file, key, identity) = (recorded(dir.path(), vec![public]), public_key(dir.path()), kept(dir.path(), &secret));
    let bytes = fs::read(&file).unwrap();
    let bad = dir.path().join("bad.tgr");
    for at in (0..bytes.len()).step_by(bytes.len() / 12) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        for damaged in [&flipped, &bytes[..at]] {
            fs::write(&bad, damaged).unwrap();
            let Ok(ours) = verify(&bad, &SigningKey::from_bytes(&[7; 32]).verifying_key()) else { continue };
            let Some((lines, code)) = read(&bad, &key, None) else { return };
            let theirs = lines.last().unwrap();
            assert_eq!((&theirs["frames"], &theirs["proven"]), (&json!(ours.frames), &json!(ours.proven)), "byte {at}");
            assert_ne!(code, 0, "byte {at}");
        }
    }
    let Some((_, code)) = read(&file, &key, Some(&identity)) else { return };
    assert_eq!(code, 0);
}

/// A recording that an earlier release wrote: all of it verifies, replays, and is read by the other reader too.
fn of_version(version: u8) -> Vec<What> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let file = fixtures.join(format!("version-{version}.tgr"));
    let identity = file.with_extension("key");
    assert_eq!(fs::read(&file).unwrap()[8..10], [0, version]);
    let verdict = verify(&file, &SigningKey::from_bytes(&[7; 32]).verifying_key()).unwrap();
    assert!(verdict.is_complete(), "{verdict}");
    let moments = replay::open(&file, &Identities::from_file(&identity).unwrap(), true).unwrap();
    let moments: Vec<What> = moments.map(|moment| moment.unwrap().what).collect();
    assert_eq!(moments.last(), Some(&What::End));
    let dir = TempDir::new().unwrap();
    if let Some((lines, code)) = read(&file, &public_key(dir.path()), Some(&identity)) {
        assert_eq!((code, &lines.last().unwrap()["state"]), (0, &json!("complete")));
    }
    moments
}

#[test]
fn a_recording_of_version_1_still_verifies_and_replays() {
    let moments = of_version(1);
    let has = |wanted: &What| moments.contains(wanted);
    assert!(has(&What::Event(data(Stream::Stdin, Keep::Whole, b"ls\r"))));
    assert!(has(&What::Event(data(Stream::Stdout, Keep::Whole, b"a b c\r\n"))));
    assert!(has(&What::Event(Event::Statement {
        text: "x".repeat(300_000),
        prepared: None,
        number: None,
        masked: false
    })));
}

#[test]
fn recordings_of_versions_2_and_3_still_verify_and_replay() {
    for version in [2, 3] {
        let moments = of_version(version);
        let has = |wanted: &What| moments.contains(wanted);
        assert!(has(&What::Event(data(Stream::Stdin, Keep::Whole, b"secret\r"))));
        assert!(has(&What::Event(data(Stream::Stdout, Keep::Whole, "a b ü\r\n".as_bytes()))));
        assert!(has(&What::Event(Event::Statement {
            text: "y".repeat(400_000),
            prepared: None,
            number: Some(1),
            masked: false
        })));
    }
}

#[test]
fn a_session_that_rests_and_goes_on_is_read_by_both() {
    let dir = TempDir::new().unwrap();
    let (secret, public) = generate_identity();
    let settings = Settings { recipients: vec![public], ..Settings::default() };
    let recorder = Recorder::open(dir.path(), settings, Arc::new(SigningKey::from_bytes(&[7; 32]))).unwrap();
    let live = recorder.start(header(support::SESSION)).unwrap();
    let said = |text: &str| Event::Said { text: text.repeat(40) };
    live.note(said("before"), at(1)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(5200));
    live.tick(at(7)).unwrap();
    live.note(said("after"), at(8)).unwrap();
    live.note(said("more"), at(9)).unwrap();
    let file = dir.path().join(live.seal(at(10)).unwrap().path);
    let moments = replay::open(&file, &Identities::parse(&secret).unwrap(), true).unwrap();
    let texts: Vec<Event> = moments
        .filter_map(|moment| match moment.unwrap().what {
            What::Event(event) => Some(event),
            _ => None,
        })
        .collect();
    assert_eq!(texts, [said("before"), said("after"), said("more")]);
    let identity = kept(dir.path(), &secret);
    let Some((lines, code)) = read(&file, &public_key(dir.path()), Some(&identity)) else { return };
    assert_eq!((code, &lines.last().unwrap()["state"]), (0, &json!("complete")));
    assert!(lines.iter().any(|line| line["text"] == "more".repeat(40)), "{lines:?}");
}

/// The data key that is in a recording's preamble, as `age` itself opens it.
fn opened_by_age(file: &Path, identity: &Path) -> Vec<u8> {
    let bytes = fs::read(file).unwrap();
    let length = u32::from_be_bytes(bytes[10..14].try_into().unwrap()) as usize;
    let preamble: Value = serde_json::from_slice(&bytes[14..14 + length]).unwrap();
    let wrapped = file.with_extension("age");
    fs::write(&wrapped, BASE64_STANDARD.decode(preamble["main_key"].as_str().unwrap()).unwrap()).unwrap();
    let output = Command::new("age").arg("--decrypt").arg("--identity").arg(identity).arg(&wrapped).output();
    let output = output.expect("age is installed: tests/run does it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn age_itself_unwraps_the_data_key_with_either_kind_of_an_auditors_key() {
    let dir = TempDir::new().unwrap();
    let (secret, public) = generate_identity();
    let ssh = dir.path().join("ssh");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&ssh).status();
    assert!(made.unwrap().success());
    let public_ssh = fs::read_to_string(ssh.with_extension("pub")).unwrap();
    let file = recorded(dir.path(), vec![public, public_ssh.trim().to_owned()]);
    let one = opened_by_age(&file, &kept(dir.path(), &secret));
    let two = opened_by_age(&file, &ssh);
    assert_eq!((one.len(), &one), (32, &two), "the same key for both");
    let Some((lines, code)) = read(&file, &public_key(dir.path()), Some(&ssh)) else { return };
    assert_eq!((code, &lines.last().unwrap()["state"]), (0, &json!("complete")), "and rage's library reads with it");
}
