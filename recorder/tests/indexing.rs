//! An index finds what its recording would, and answers for no other.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs, reason = "tests")]

mod support;

use proptest::prelude::*;
use std::{fs, path::Path};
use support::{Bench, at, bench, data, terminal};
use tidegate_recorder::{
    Event, FileEvent, Keep, Stream,
    index::{self, IndexError},
    keys::{Identities, generate_identity},
    replay,
    search::{ALL, Hit, Search},
};

fn shown(bytes: &[u8]) -> Event {
    data(Stream::Stdout, Keep::Whole, bytes)
}

fn statement(text: &str) -> Event {
    Event::Statement { text: text.to_owned(), prepared: None, number: None, masked: false }
}

/// In an order of their own: of one moment there may be several.
fn sorted(mut hits: Vec<Hit>) -> Vec<Hit> {
    hits.sort_by(|a, b| (a.frame, a.kind, &a.line).cmp(&(b.frame, b.kind, &b.line)));
    hits
}

fn read(bench: &Bench, path: &Path, wanted: &str) -> Vec<Hit> {
    let replay = replay::open(path, &bench.auditor, false).unwrap();
    sorted(Search::new(replay, ALL.into(), |line: &str| line.contains(wanted)).map(Result::unwrap).collect())
}

fn indexed(path: &Path, auditor: &Identities, wanted: &str) -> Result<Vec<Hit>, IndexError> {
    let parts = [wanted.to_owned()];
    index::search(path, auditor, &ALL.into(), Some(&parts), &|line: &str| line.contains(wanted)).map(sorted)
}

fn session(bench: &Bench) -> std::path::PathBuf {
    let file = FileEvent { channel: 1, op: "open".to_owned(), path: "/etc/needle".to_owned(), ..FileEvent::default() };
    bench.sealed(&[
        terminal(Some("run needle")),
        Event::File(file),
        statement("select\nneedle from\u{e9} haystack"),
        shown(b"$ rm -fr /ol\x08\x08\x1b[K"),
        shown(b"data\r\nneedle in a haystack\r\n"),
        shown(b"\x1b[2J\x1b[5;5Hneedle\x1b]0;hidden needle\x07"),
    ])
}

#[test]
fn whatever_is_looked_for_an_index_finds_what_the_recording_has() {
    let bench = bench(1 << 20);
    let path = session(&bench);
    assert!(!index::is_fresh(&path));
    assert!(index::make(&path, &bench.auditor).unwrap() > 5);
    assert!(index::is_fresh(&path));
    for wanted in ["needle", "rm -fr /data", "rm -fr /ol", "hidden", "select\nneedle", "\u{e9} hay", "e", "", "nowhere"]
    {
        let (read, indexed) = (read(&bench, &path, wanted), indexed(&path, &bench.auditor, wanted).unwrap());
        assert_eq!(read, indexed, "{wanted:?}");
        assert_eq!(read.is_empty(), ["rm -fr /ol", "hidden", "nowhere"].contains(&wanted), "{wanted:?}: {read:?}");
    }
}

#[test]
fn an_index_is_sealed_for_those_who_can_open_its_recording() {
    let bench = bench(1 << 20);
    let path = session(&bench);
    index::make(&path, &bench.auditor).unwrap();
    let bytes = fs::read(index::path_of(&path)).unwrap();
    for secret in [&b"needle"[..], b"haystack"] {
        assert!(!bytes.windows(secret.len()).any(|part| part == secret));
    }
    let other = Identities::parse(&generate_identity().0).unwrap();
    assert!(matches!(indexed(&path, &other, "needle"), Err(IndexError::Read(_))));
    assert!(matches!(index::make(&path, &other), Err(IndexError::Read(_))));
    assert_eq!(indexed(&path, &bench.auditor, "needle").unwrap().len(), 5, "which changed nothing");
}

#[test]
fn an_index_that_was_changed_in_any_bit_or_cut_anywhere_is_none() {
    let bench = bench(1 << 20);
    let path = session(&bench);
    index::make(&path, &bench.auditor).unwrap();
    let file = index::path_of(&path);
    let good = fs::read(&file).unwrap();
    for place in 0..good.len() {
        let mut bad = good.clone();
        bad[place] ^= 1 << (place % 8);
        fs::write(&file, &bad).unwrap();
        assert!(indexed(&path, &bench.auditor, "needle").is_err(), "byte {place} of {} flipped", good.len());
        fs::write(&file, &good[..place]).unwrap();
        assert!(indexed(&path, &bench.auditor, "needle").is_err(), "cut at byte {place} of {}", good.len());
    }
    fs::write(&file, &good).unwrap();
    indexed(&path, &bench.auditor, "needle").unwrap();
}

#[test]
fn an_index_answers_only_for_its_recording_as_it_is_now() {
    let bench = bench(1 << 20);
    let path = session(&bench);
    let live = bench.start_as("other");
    live.note(statement("select 1"), at(1)).unwrap();
    let other = tidegate_recorder::storage::find(&bench.recordings(), "other").unwrap().path;
    assert!(matches!(index::make(&other, &bench.auditor), Err(IndexError::Live)));
    drop(live);
    assert!(matches!(indexed(&other, &bench.auditor, "select"), Err(IndexError::Missing)));
    index::make(&path, &bench.auditor).unwrap();
    fs::copy(index::path_of(&path), index::path_of(&other)).unwrap();
    assert!(matches!(indexed(&other, &bench.auditor, "needle"), Err(IndexError::Stale)));
    // One that broke off has an index as well, until it is another.
    assert_eq!(index::make(&other, &bench.auditor).unwrap(), 1);
    assert_eq!(indexed(&other, &bench.auditor, "select").unwrap().len(), 1);
    let bytes = fs::read(&other).unwrap();
    fs::write(&other, &bytes[..bytes.len() - 1]).unwrap();
    assert!(!index::is_fresh(&other));
    assert!(matches!(indexed(&other, &bench.auditor, "select"), Err(IndexError::Stale)));
}

#[test]
fn very_much_is_indexed_in_blocks_and_each_is_found_in_its_own() {
    let bench = bench(64 << 20);
    let live = bench.start();
    for part in 0..40_u32 {
        let lines: String = (0..500).map(|n| format!("part {part} line {n} {}\n", "x".repeat(120))).collect();
        live.note(data(Stream::Stdout, Keep::UpToLimit, lines.as_bytes()), at(1)).unwrap();
    }
    live.seal(at(2)).unwrap();
    let path = bench.only_path();
    assert_eq!(index::make(&path, &bench.auditor).unwrap(), 20_000);
    let hits = indexed(&path, &bench.auditor, "part 31 line 77 ").unwrap();
    assert_eq!((hits.len(), &hits), (1, &read(&bench, &path, "part 31 line 77 ")));
    let bytes = fs::metadata(index::path_of(&path)).unwrap().len();
    assert!(bytes < 600_000, "{bytes} for some 3 MB of lines");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn screens_of_any_kind_are_indexed_as_they_are_searched(
        pieces in proptest::collection::vec("[ab \\r\\n\\x08\\x1b\\[2JHK;5]{1,30}", 1..12),
        wanted in "[ab]{1,4}",
    ) {
        let bench = bench(1 << 20);
        let events: Vec<Event> = std::iter::once(terminal(None)).chain(pieces.iter().map(|piece| shown(piece.as_bytes()))).collect();
        let path = bench.sealed(&events);
        index::make(&path, &bench.auditor).unwrap();
        prop_assert_eq!(read(&bench, &path, &wanted), indexed(&path, &bench.auditor, &wanted).unwrap());
    }
}
