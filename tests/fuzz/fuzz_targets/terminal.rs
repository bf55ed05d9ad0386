//! Any bytes as what a session printed, of a terminal of any size: played, drawn, searched and exported without a panic, and nothing
//! of it steers the terminal of whoever looks at it.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use std::time::Duration;
use tidegate_fuzz::{header, recorder};
use tidegate_recorder::{
    Event, Keep, Recorder, Stream,
    export::{self, Format},
    film::Film,
    keys::Identities,
    outline::Outline,
    play::{self, Player},
    replay::Reel,
    search::{ALL, Search},
};

struct Bench {
    dir: tempfile::TempDir,
    recorder: Recorder,
    auditor: Identities,
}

/// The auditor's key stays in its thread.
fn make() -> Bench {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
    let (recorder, auditor) = recorder(dir.path(), 1 << 20);
    Bench { dir, recorder, auditor }
}

thread_local! {
    static BENCH: Bench = make();
}

/// Characters, line breaks, tabs, and of the control sequences those for colours, places and erasing.
fn is_inert(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            let csi = chars.next() == Some('[');
            let end = chars.find(|c| !(c.is_ascii_digit() || *c == ';'));
            if !csi || !end.is_some_and(|end| "mHJK".contains(end)) {
                return false;
            }
        } else if c.is_control() && !"\r\n\t".contains(c) {
            return false;
        }
    }
    true
}

fuzz_target!(|data: &[u8]| BENCH.with(|bench| try_one(data, bench)));

fn try_one(data: &[u8], bench: &Bench) {
    let [columns, rows, pieces, rest @ ..] = data else { return };
    let Bench { dir, recorder, auditor } = bench;
    let header = header();
    let start = header.start;
    let live = recorder.start(header).expect("a recording");
    let note = |event| live.note(event, start).expect("it is written");
    // Up to 65,535 columns, as a client may claim.
    let size = (u32::from(*columns).pow(2), u32::from(*rows).pow(2));
    note(Event::Opened {
        channel: 1,
        what: "shell".to_owned(),
        command: None,
        terminal: Some(("xterm".to_owned(), size.0, size.1)),
        environment: [].into(),
        connection: None,
        reached: None,
    });
    for (nth, piece) in rest.chunks(usize::from(*pieces).max(1)).take(64).enumerate() {
        if nth == 3 {
            note(Event::Resized { channel: 1, columns: size.1, rows: size.0 });
        }
        let stream = if nth % 7 == 6 { Stream::Stdin } else { Stream::Stdout };
        let data = Bytes::copy_from_slice(piece);
        note(Event::Data { channel: 1, stream, keep: Keep::Whole, data });
    }
    let path = dir.path().join(live.seal(start).expect("a seal").path);
    let reel = Reel::new(&path, auditor, true).expect("its recording");
    let open = || reel.open();

    let view = Some((80, 24));
    let settings = play::Settings { speed: 1.0, idle_limit: None, view, channel: None, from: Duration::ZERO };
    for step in Player::new(open().expect("it opens"), settings) {
        let bytes = step.expect("it plays").bytes;
        assert!(is_inert(std::str::from_utf8(&bytes).expect("text")), "{bytes:?}");
    }
    for format in [Format::Asciicast, Format::AsciicastV2, Format::Jsonl, Format::Sql, Format::Text] {
        let mut out = Vec::new();
        export::export(open, format, None, &mut out).expect("it is exported");
        if matches!(format, Format::Sql | Format::Text) {
            assert!(is_inert(&String::from_utf8(out).expect("text")), "{format}");
        }
    }
    for hit in Search::new(open().expect("it opens"), ALL.into(), |_: &str| true).take(100) {
        assert!(is_inert(&hit.expect("it is searched").line));
    }
    Outline::read(open().expect("it opens"), None).expect("an outline");
    let mut film = Film::new(reel.clone(), None).expect("a film");
    while !film.towards(Duration::MAX, 1 << 20).expect("it plays") {}
    if film.stage().picture().is_some_and(|picture| picture.columns() * picture.rows().len() < 20_000) {
        export::png(&mut film, Duration::MAX, &mut Vec::new()).expect("a picture");
    }
    std::fs::remove_file(path).expect("it was there");
}
