//! What goes in comes out again, and nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "tests"
)]

mod support;

use bytes::Bytes;
use proptest::prelude::*;
use secrecy::{ExposeSecret as _, SecretString};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};
use support::{SESSION, at, bench, data, noise, terminal};
use tidegate_recorder::{
    Audience, Event, FileEvent, Keep, RecordError, Recorder, Settings, Stream,
    event::{Ended, Parameter},
    keys::{Identities, generate_identity},
    replay::{self, What},
    storage::{self, State},
    verify::{Outcome, verify},
};

const STREAMS: [Stream; 7] = [
    Stream::Stdin,
    Stream::Stdout,
    Stream::Stderr,
    Stream::CopyIn,
    Stream::CopyOut,
    Stream::FromClient,
    Stream::FromTarget,
];

fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

#[test]
fn what_was_recorded_is_replayed_in_order_with_its_times() {
    let bench = bench(1024);
    let events = [
        terminal(Some("top")),
        data(Stream::Stdin, Keep::Whole, b"q"),
        data(Stream::Stdout, Keep::Whole, b"\x1b[2Jbye\r\n"),
        Event::Resized { channel: 1, columns: 100, rows: 30 },
        Event::Exited { channel: 1, status: Some(0), signal: None },
    ];
    bench.sealed(&events);
    assert_eq!(bench.events(), events);
    let moments = bench.replay();
    assert_eq!(moments[0].at, at(1));
    assert_eq!(moments.last().unwrap().what, What::End);
}

#[test]
fn bytes_are_released_only_once_they_are_in_the_file() {
    let bench = bench(1024);
    let live = bench.start();
    let before = fs::metadata(bench.only_path()).unwrap().len();
    let bytes = Bytes::from_static(b"secret plans");
    let recorded = live.record(vec![data(Stream::Stdout, Keep::Whole, &bytes)], bytes.clone(), at(1)).unwrap();
    assert!(fs::metadata(bench.only_path()).unwrap().len() > before + bytes.len() as u64);
    assert_eq!(recorded.into_bytes(), bytes);
    drop(live); // killed: nothing is lost
    assert_eq!(bench.events(), [data(Stream::Stdout, Keep::Whole, b"secret plans")]);
}

#[test]
fn file_holds_no_content_in_clear() {
    let bench = bench(1024);
    let path = bench.sealed(&[
        data(Stream::Stdin, Keep::Whole, b"hunter2-in"),
        data(Stream::Stdout, Keep::Whole, b"hunter2-out"),
        Event::Statement { text: "SELECT 'hunter2-sql'".to_owned(), prepared: None, number: None, masked: false },
    ]);
    let file = fs::read(path).unwrap();
    assert!(!file.windows(7).any(|window| window == b"hunter2"));
    let digest = sha256(b"hunter2-in");
    assert!(!file.windows(32).any(|window| window == digest), "a digest of keystrokes gives them away");
}

#[test]
fn keystrokes_are_withheld_unless_asked_for() {
    let bench = bench(1024);
    let path = bench.sealed(&[data(Stream::Stdin, Keep::Whole, b"hunter2"), data(Stream::Stdout, Keep::Whole, b"$ ")]);
    let replay = replay::open(&path, &bench.auditor, false).unwrap();
    let seen: Vec<_> = replay.map(|moment| moment.unwrap().what).collect();
    assert!(matches!(seen[0], What::Withheld { .. }));
    assert_eq!(seen[1], What::Event(data(Stream::Stdout, Keep::Whole, b"$ ")));
    assert!(!format!("{seen:?}").contains("hunter2"));
}

#[test]
fn past_the_limit_content_is_counted_and_digested_to_the_end() {
    let bench = bench(10);
    let live = bench.start();
    let pieces: [&[u8]; 3] = [b"0123456", b"789abcdef", b"ghi"];
    let events = pieces.iter().map(|piece| data(Stream::Stdout, Keep::UpToLimit, piece));
    let _ = live.record(events.clone().take(2).collect(), Bytes::new(), at(1)).unwrap();
    let _ = live.record(events.skip(2).collect(), Bytes::new(), at(2)).unwrap();
    live.note(Event::Closed { channel: 1, up: 0, down: 0 }, at(3)).unwrap();
    live.seal(at(4)).unwrap();
    let what: Vec<_> = bench.replay().into_iter().map(|moment| moment.what).collect();
    let (channel, stream) = (1, Stream::Stdout);
    assert_eq!(
        what,
        [
            What::Event(data(stream, Keep::UpToLimit, b"0123456")),
            What::Event(data(stream, Keep::UpToLimit, b"789")),
            What::Counted { channel, stream, bytes: 6, total: 16, digest: sha256(b"0123456789abcdef") },
            What::Counted { channel, stream, bytes: 3, total: 19, digest: sha256(b"0123456789abcdefghi") },
            What::Event(Event::Closed { channel, up: 0, down: 0 }),
            What::Total { channel, stream, total: 19, kept: 10, digest: sha256(b"0123456789abcdefghi") },
            What::End,
        ]
    );
}

#[test]
fn whole_streams_have_no_limit_and_counted_ones_keep_nothing() {
    let bench = bench(4);
    let live = bench.start();
    let big = vec![b'x'; 3_000_000];
    live.note(data(Stream::Stdout, Keep::Whole, &big), at(1)).unwrap();
    live.note(data(Stream::FromTarget, Keep::Count, &big), at(1)).unwrap();
    live.seal(at(2)).unwrap();
    let mut seen = Vec::new();
    for moment in bench.replay() {
        match moment.what {
            What::Event(Event::Data { stream, data, .. }) => {
                assert_eq!(stream, Stream::Stdout);
                seen.extend_from_slice(&data);
            }
            What::Counted { bytes, total, .. } => assert_eq!((bytes, total), (3_000_000, 3_000_000)),
            _ => {}
        }
    }
    assert!(seen == big);
    assert!(verify(&bench.only_path(), &bench.key).unwrap().is_complete());
}

#[test]
fn a_stream_that_begins_again_after_its_end_has_an_account_of_its_own() {
    let bench = bench(4);
    let (copied, eof) = (Stream::CopyIn, Event::Eof { channel: 1, stream: Stream::CopyIn });
    bench.sealed(&[
        data(copied, Keep::UpToLimit, b"first copy"),
        eof.clone(),
        eof.clone(), // of a COPY of nothing
        data(copied, Keep::UpToLimit, b"second"),
        eof,
    ]);
    let totals = bench.replay().into_iter().filter_map(|moment| match moment.what {
        What::Total { total, kept, digest, .. } => Some((total, kept, digest)),
        _ => None,
    });
    let sum = |bytes: &[u8]| (bytes.len() as u64, 4, sha256(bytes));
    assert_eq!(totals.collect::<Vec<_>>(), [sum(b"first copy"), sum(b"second")]);
}

#[test]
fn event_longer_than_a_frame_comes_back_whole() {
    let bench = bench(4);
    let text = "SELECT '".to_owned() + &"é".repeat(1_500_000) + "'";
    let events = [
        Event::Said { text: "before".to_owned() },
        Event::Statement { text, prepared: None, number: Some(1), masked: false },
        Event::Said { text: "after".to_owned() },
    ];
    let live = bench.start();
    let _ = live.record(events.to_vec(), Bytes::new(), at(1)).unwrap();
    live.seal(at(2)).unwrap();
    assert_eq!(bench.events(), events);
}

#[test]
fn recording_is_live_then_complete_and_truncated_without_a_seal() {
    let bench = bench(1024);
    let live = bench.start_as("s-1");
    live.note(Event::Cancelled, at(1)).unwrap();
    let dropped = bench.start_as("s-2");
    dropped.note(Event::Cancelled, at(2)).unwrap();
    drop(dropped);
    let entries = storage::list(&bench.recordings()).unwrap().entries;
    assert_eq!(entries.iter().map(|entry| entry.state).collect::<Vec<_>>(), [State::Live, State::Truncated]);
    assert_eq!((entries[0].end, entries[1].end), (None, Some(at(2))));
    assert_eq!((entries[0].frames, entries[1].frames), (2, 2));
    let seal = live.seal(at(9)).unwrap();
    let entry = storage::find(&bench.recordings(), "s-1").unwrap();
    assert_eq!((entry.state, entry.end, entry.frames), (State::Complete, Some(at(9)), seal.frames));
    assert_eq!(entry.bytes, seal.bytes);
    assert_eq!(entry.path, bench.recordings().join(&seal.path));
    let verdict = verify(&entry.path, &bench.key).unwrap();
    assert!(verdict.is_complete());
    assert_eq!(verdict.head, seal.head);
    assert!(matches!(live.note(Event::Cancelled, at(10)), Err(RecordError::Failed)));
    assert!(matches!(live.seal(at(10)), Err(RecordError::Failed)));
}

#[test]
fn list_names_what_is_no_recording_and_goes_on() {
    let bench = bench(1024);
    let path = bench.sealed(&[Event::Cancelled]);
    let day = path.parent().unwrap();
    fs::write(day.join("foreign.tgr"), b"hello").unwrap();
    fs::write(day.join("empty.tgr"), b"").unwrap();
    fs::write(bench.recordings().join("notes.txt"), b"hello").unwrap();
    fs::write(day.join("cut.tgr"), &fs::read(&path).unwrap()[..100]).unwrap();
    let listing = storage::list(&bench.recordings()).unwrap();
    assert_eq!(listing.entries.len(), 1);
    assert_eq!(listing.warnings.len(), 4, "{:?}", listing.warnings);
}

#[test]
fn files_and_folders_are_the_gateways_alone() {
    let bench = bench(1024);
    let path = bench.sealed(&[]);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    for folder in path.ancestors().skip(1).take(4) {
        assert_eq!(mode(folder), 0o700, "{}", folder.display());
    }
    assert!(path.ends_with(format!("2026/11/18/{SESSION}.tgr")), "{}", path.display());
}

#[test]
fn session_is_recorded_once_and_only_under_a_plain_name() {
    let bench = bench(1024);
    let live = bench.start();
    assert!(bench.recorder.start(support::header(SESSION)).is_err());
    drop(live);
    for name in ["", "../x", "a/b", "a\0b"] {
        assert!(bench.recorder.start(support::header(name)).is_err(), "{name:?}");
    }
    bench.only_path();
}

#[test]
fn tick_signs_an_idle_tail_only_when_it_is_due() {
    let bench = bench(1024);
    let live = bench.start();
    live.note(Event::Cancelled, at(1)).unwrap();
    live.tick(at(2)).unwrap();
    let verdict = verify(&bench.only_path(), &bench.key).unwrap();
    assert_eq!((verdict.frames, verdict.proven, verdict.live), (2, 1, true));
    live.note(data(Stream::Stdout, Keep::Whole, &noise(70_000)), at(3)).unwrap();
    let verdict = verify(&bench.only_path(), &bench.key).unwrap();
    assert_eq!((verdict.frames, verdict.proven), (4, 4), "64 KiB are signed at once");
    drop(live);
    let verdict = verify(&bench.only_path(), &bench.key).unwrap();
    assert_eq!(verdict.outcome, Outcome::Truncated { after: 4, torn: 0 });
}

#[test]
fn ssh_key_and_age_key_both_open_a_recording_and_others_do_not() {
    let (age_secret, age_public) = generate_identity();
    let (stranger, _) = generate_identity();
    let dir = tempfile::TempDir::new().unwrap();
    let ssh_file = dir.path().join("id");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&ssh_file)
        .status()
        .unwrap();
    assert!(made.success());
    let ssh_public = fs::read_to_string(ssh_file.with_extension("pub")).unwrap();
    let settings =
        Settings { recipients: vec![age_public, ssh_public], stream_limit: 1, fsync: true, ..Settings::default() };
    let signer = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    let recorder = Recorder::open(dir.path(), settings, std::sync::Arc::new(signer)).unwrap();
    let live = recorder.start(support::header("s")).unwrap();
    live.note(data(Stream::Stdin, Keep::Whole, b"ls"), at(1)).unwrap();
    let seal = live.seal(at(2)).unwrap();
    let path = dir.path().join(seal.path);
    for auditor in [Identities::parse(&age_secret).unwrap(), Identities::from_file(&ssh_file).unwrap()] {
        let first = replay::open(&path, &auditor, true).unwrap().next().unwrap().unwrap();
        assert_eq!(first.what, What::Event(data(Stream::Stdin, Keep::Whole, b"ls")));
    }
    assert!(replay::open(&path, &Identities::parse(&stranger).unwrap(), true).is_err());
}

#[test]
fn what_was_typed_may_be_for_other_auditors_alone() {
    let dir = tempfile::TempDir::new().unwrap();
    let ((secret, public), (others_secret, others)) = (generate_identity(), generate_identity());
    let settings = Settings { recipients: vec![public], keystroke_recipients: vec![others], ..Settings::default() };
    let signer = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    let recorder = Recorder::open(dir.path(), settings, std::sync::Arc::new(signer)).unwrap();
    let live = recorder.start(support::header("s")).unwrap();
    live.note(data(Stream::Stdin, Keep::Whole, b"secret"), at(1)).unwrap();
    live.note(data(Stream::Stdout, Keep::Whole, b"seen"), at(1)).unwrap();
    let path = dir.path().join(live.seal(at(2)).unwrap().path);
    let seen = |identities: &SecretString| -> Result<Vec<What>, _> {
        let replay = replay::open(&path, &Identities::parse(identities).unwrap(), true)?;
        Ok::<_, tidegate_recorder::verify::ReadError>(replay.map(|moment| moment.unwrap().what).collect())
    };
    let (typed, told) = (data(Stream::Stdin, Keep::Whole, b"secret"), data(Stream::Stdout, Keep::Whole, b"seen"));
    let auditor = seen(&secret).unwrap();
    assert!(auditor.contains(&What::Event(told.clone())) && !auditor.contains(&What::Event(typed.clone())));
    assert!(auditor.iter().any(|what| matches!(what, What::Withheld { .. })), "{auditor:?}");
    let both = seen(&[secret.expose_secret(), others_secret.expose_secret()].join("\n").into()).unwrap();
    assert!(both.contains(&What::Event(told)) && both.contains(&What::Event(typed)));
    assert!(seen(&others_secret).is_err(), "they need the other key as well");
}

#[test]
fn a_recording_may_be_for_more_auditors_than_others_and_they_open_that_one_alone() {
    let dir = tempfile::TempDir::new().unwrap();
    let ((secret, public), (more_secret, more)) = (generate_identity(), generate_identity());
    let ((typed_secret, typed), signer) = (generate_identity(), ed25519_dalek::SigningKey::from_bytes(&[9; 32]));
    let settings = Settings {
        recipients: vec![public.clone()],
        keystroke_recipients: vec![public.clone()],
        ..Settings::default()
    };
    let recorder = Recorder::open(dir.path(), settings, std::sync::Arc::new(signer)).unwrap();
    let recorded = |session: &str, audience: Audience| {
        let live = recorder.start_for(support::header(session), audience).unwrap();
        live.note(data(Stream::Stdin, Keep::Whole, b"typed"), at(1)).unwrap();
        dir.path().join(live.seal(at(2)).unwrap().path)
    };
    let theirs = recorded("theirs", Audience { recipients: vec![more, public], keystroke_recipients: vec![typed] });
    let others = recorded("others", Audience::default());
    let seen = |path: &Path, identities: &str| {
        let replay = replay::open(path, &Identities::parse(&identities.to_owned().into()).unwrap(), true)?;
        let withheld = |what: &What| matches!(what, What::Withheld { .. });
        let any = replay.map(|moment| moment.unwrap().what).any(|what| withheld(&what));
        Ok::<_, tidegate_recorder::verify::ReadError>(!any)
    };
    let (secret, more) = (secret.expose_secret(), more_secret.expose_secret());
    assert!(seen(&theirs, secret).unwrap() && seen(&others, secret).unwrap(), "all of both");
    assert!(!seen(&theirs, more).unwrap(), "without what was typed");
    assert!(seen(&theirs, &[more, typed_secret.expose_secret()].join("\n")).unwrap(), "with it");
    assert!(seen(&others, more).is_err());
    let nobody = Audience { recipients: vec!["age1nobody".to_owned()], ..Audience::default() };
    assert!(recorder.start_for(support::header("no"), nobody).is_err());
}

#[test]
fn recipients_that_cannot_be_wrapped_for_are_refused() {
    let dir = tempfile::TempDir::new().unwrap();
    for recipients in [vec![], vec!["age1nonsense".to_owned()], vec!["ssh-rsa AAAA".to_owned()], vec![String::new()]] {
        let settings = Settings { recipients, stream_limit: 1, ..Settings::default() };
        let signer = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
        let opened = Recorder::open(dir.path(), settings, std::sync::Arc::new(signer));
        assert!(matches!(opened, Err(RecordError::Recipient(_))));
    }
}

#[test]
fn probe_leaves_nothing_and_fails_where_nothing_can_be_written() {
    let bench = bench(1);
    bench.recorder.probe().unwrap();
    assert_eq!(fs::read_dir(bench.recordings()).unwrap().count(), 0);
    fs::remove_dir(bench.recordings()).unwrap();
    assert!(matches!(bench.recorder.probe(), Err(RecordError::Write(_))));
}

fn any_event() -> impl Strategy<Value = Event> {
    let text = ".{0,40}";
    prop_oneof![
        (any::<u32>(), text, proptest::option::of(text)).prop_map(|(channel, what, command)| Event::Opened {
            channel,
            what,
            command,
            terminal: None,
            environment: [("LC_ALL".to_owned(), "C".to_owned())].into(),
            connection: Some(7),
            reached: None,
        }),
        (any::<u32>(), 0..7usize, proptest::collection::vec(any::<u8>(), 1..300)).prop_map(
            |(channel, stream, data)| {
                Event::Data { channel, stream: STREAMS[stream], keep: Keep::Whole, data: data.into() }
            }
        ),
        (text, proptest::option::of(text)).prop_map(|(text, prepared)| Event::Statement {
            text,
            prepared,
            number: None,
            masked: false
        }),
        (text, text).prop_map(|(prepared, value)| Event::Bound {
            prepared,
            portal: String::new(),
            parameters: vec![
                Parameter::Null,
                Parameter::Text(value.clone()),
                Parameter::Binary("00ff".to_owned()),
                Parameter::Typed { kind: "text".to_owned(), text: value },
                Parameter::Raw { oid: 16_500, hex: "00".to_owned() },
            ],
            number: Some(2),
            statement: Some(1),
            types: Vec::new()
        }),
        (text, any::<u64>(), proptest::option::of(any::<u64>())).prop_map(|(tag, rows, of)| Event::Completed {
            tag,
            rows,
            of,
            suspended: rows % 2 == 0
        }),
        (text, text).prop_map(|(name, payload)| Event::Notified { name, payload, process: 7 }),
        (any::<u32>(), proptest::option::of(any::<u32>()), proptest::option::of(text))
            .prop_map(|(channel, status, signal)| Event::Exited { channel, status, signal }),
        (any::<u32>(), text, proptest::option::of(text), proptest::option::of((any::<u64>(), any::<u64>()))).prop_map(
            |(channel, path, fault, range)| Event::File(FileEvent {
                channel,
                op: "download".to_owned(),
                path,
                bytes: range.map(|(from, _)| from),
                ranges: range.map(|range| vec![range]),
                fault,
                ..FileEvent::default()
            })
        ),
        any::<char>().prop_map(|status| Event::Transaction { status, ended: None }),
        Just(Event::Transaction { status: 'I', ended: Some(Ended::RolledBack) }),
        Just(Event::Cancelled),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_events_come_back_as_they_were(calls in proptest::collection::vec(proptest::collection::vec(any_event(), 0..6), 0..8)) {
        let bench = bench(1024);
        let live = bench.start();
        for events in &calls {
            let _ = live.record(events.clone(), Bytes::new(), at(1)).unwrap();
        }
        live.seal(at(2)).unwrap();
        prop_assert_eq!(bench.events(), calls.concat());
        prop_assert!(verify(&bench.only_path(), &bench.key).unwrap().is_complete());
    }
}

/// Prints what ordinary terminal text takes on disk, in the pieces that people's and programs' output comes in.
#[test]
fn terminal_text_takes_a_fraction_of_its_size_on_disk() {
    let listing = std::process::Command::new("ls").args(["-laR", "--color=always", "/usr/bin", "/usr/lib"]).output();
    let mut raw = String::from_utf8_lossy(&listing.unwrap().stdout).replace('\n', "\r\n").into_bytes();
    raw.truncate(1 << 20);
    assert!(raw.len() > 50_000, "there is something to list: {} bytes", raw.len());
    let size = |piece: usize| {
        let bench = bench(0);
        let live = bench.start();
        let begun = std::time::Instant::now();
        for bytes in raw.chunks(piece) {
            live.note(data(Stream::Stdout, Keep::Whole, bytes), at(1)).unwrap();
        }
        let (spent, frames) = (begun.elapsed().as_secs_f64() * 1e6, raw.len().div_ceil(piece));
        live.seal(at(2)).unwrap();
        let share = fs::metadata(bench.only_path()).unwrap().len() as f64 / raw.len() as f64;
        let each = spent / frames as f64;
        println!("pieces of {piece} bytes: {:.1} % of {} bytes, {each:.1} us for each", 100.0 * share, raw.len());
        share
    };
    let [small, _, large] = [200, 2000, 32 * 1024].map(size);
    assert!(small < 0.45 && large < 0.2, "{small} {large}");
}
