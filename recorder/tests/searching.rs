//! What a person saw is found, as they saw it, once, and at its moment.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs, reason = "tests")]

mod support;

use std::{collections::BTreeSet, time::Duration};
use support::{bench, data, terminal};
use tidegate_recorder::{
    Event, FileEvent, Keep, Stream,
    play::{Player, Settings},
    replay,
    search::{Hit, Kind, Search},
};

fn shown(bytes: &[u8]) -> Event {
    data(Stream::Stdout, Keep::Whole, bytes)
}

fn found(events: &[Event], kinds: &[Kind], wanted: &str) -> Vec<Hit> {
    let bench = bench(1 << 20);
    let path = bench.sealed(events);
    let replay = replay::open(&path, &bench.auditor, true).unwrap();
    let kinds: BTreeSet<Kind> = kinds.iter().copied().collect();
    Search::new(replay, kinds, |line: &str| line.contains(wanted)).map(Result::unwrap).collect()
}

fn lines(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.line.as_str()).collect()
}

#[test]
fn a_command_that_was_edited_while_it_was_typed_is_found_as_it_stood_in_the_end() {
    let typed: Vec<Event> =
        ["$ rm -fr /ol", "\x08\x08\x1b[K", "data", "\r\n", "$ "].map(|piece| shown(piece.as_bytes())).into();
    let events = [vec![terminal(None)], typed].concat();
    let hits = found(&events, &[Kind::Text], "rm -fr /data");
    assert_eq!(lines(&hits), ["$ rm -fr /data"]);
    assert_eq!(hits[0].frame, 5, "when its last letter was there");
    assert!(found(&events, &[Kind::Text], "rm -fr /oldata").is_empty(), "nobody saw that");
}

#[test]
fn a_line_is_found_once_though_it_stays_scrolls_and_wraps_and_again_when_it_comes_again() {
    let long = format!("{}needle{}", "a".repeat(77), "b".repeat(50));
    let mut events = vec![terminal(None), shown(format!("{long}\r\n").as_bytes())];
    events.extend((0..30).map(|n| shown(format!("line {n}\r\n").as_bytes())));
    assert_eq!(lines(&found(&events, &[Kind::Text], "needle")), [&long]);
    events.push(shown(format!("{long}\r\n").as_bytes()));
    assert_eq!(found(&events, &[Kind::Text], "needle").len(), 2);
}

#[test]
fn what_scrolls_away_within_one_piece_is_found() {
    let many: String = (0..500).map(|n| format!("row {n}\r\n")).collect();
    let hits = found(&[terminal(None), shown(many.as_bytes())], &[Kind::Text], "row 123");
    assert_eq!(lines(&hits), ["row 123"]);
}

#[test]
fn a_program_that_has_the_whole_screen_is_searched_too_and_nothing_found_steers() {
    let drawn = b"\x1b[?1049h\x1b[5;10Hsecret\x1b[7m plan\x1b]0;needle in a title\x07";
    let hits = found(&[terminal(None), shown(drawn)], &[Kind::Text], "secret plan");
    assert_eq!(lines(&hits), ["         secret plan"]);
    assert!(found(&[terminal(None), shown(drawn)], &[Kind::Text], "needle").is_empty(), "nobody saw that");
    let sql =
        Event::Statement { text: "drop\ntable \x1b]52;x\x07t".to_owned(), prepared: None, number: None, masked: false };
    let hits = found(&[sql], &[Kind::Sql], "drop\ntable");
    assert!(hits.len() == 1 && !hits[0].line.contains(['\x1b', '\n', '\x07']), "{hits:?}");
}

#[test]
fn each_kind_is_found_by_its_name_and_not_by_another() {
    let file = FileEvent { channel: 1, op: "open".to_owned(), path: "/etc/needle".to_owned(), ..FileEvent::default() };
    let events = [
        terminal(Some("run needle")),
        Event::File(file),
        Event::Statement { text: "select needle".to_owned(), prepared: None, number: None, masked: false },
        shown(b"needle\r\n"),
    ];
    for (kind, number) in [(Kind::Command, 2), (Kind::File, 3), (Kind::Sql, 4), (Kind::Text, 5)] {
        let hits = found(&events, &[kind], "needle");
        assert_eq!((hits.len(), hits[0].kind, hits[0].frame), (1, kind, number), "{hits:?}");
    }
}

#[test]
fn playing_from_a_moment_shows_the_screen_as_it_was_then_and_waits_only_from_there() {
    let bench = bench(1 << 20);
    let live = bench.start();
    let note = |event, second| live.note(event, support::at(second)).unwrap();
    note(terminal(None), 1);
    note(shown(b"early\r\n"), 2);
    std::thread::sleep(Duration::from_millis(30)); // the recording's own clock, which cannot be set
    note(shown(b"late"), 3);
    live.seal(support::at(4)).unwrap();
    let path = bench.only_path();
    let last = replay::open(&path, &bench.auditor, false).unwrap().map(Result::unwrap).last().unwrap();
    let settings = |from| Settings { speed: 1.0, idle_limit: None, view: None, channel: None, from };
    let steps =
        |from| Player::new(replay::open(&path, &bench.auditor, false).unwrap(), settings(from)).map(Result::unwrap);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all: Vec<_> = steps(Duration::ZERO).collect();
    let some: Vec<_> = steps(Duration::from_millis(25)).collect();
    assert!(some.len() < all.len());
    assert!(text(&some[0].bytes).contains("early") && text(&some[0].bytes).contains("late"), "{some:?}");
    assert_eq!(some[0].delay, Duration::ZERO);
    assert!(steps(last.elapsed + Duration::from_secs(1)).count() <= 1, "beyond its end there is only the end");
}

#[test]
fn a_last_line_without_an_end_is_found_and_so_is_what_scrolls_away_within_its_own_line() {
    for end in [Event::Eof { channel: 1, stream: Stream::Stdout }, Event::Closed { channel: 1, up: 0, down: 0 }] {
        let hits = found(&[shown(b"one\nneedle"), end], &[Kind::Text], "needle");
        assert_eq!(lines(&hits), ["needle"]);
    }
    let longer_than_the_screen = format!("needle{}", "x".repeat(5000));
    let down = format!("needle{}", "\x0brow".repeat(100));
    for text in [longer_than_the_screen, down] {
        assert!(!found(&[terminal(None), shown(text.as_bytes())], &[Kind::Text], "needle").is_empty(), "{text}");
    }
}
