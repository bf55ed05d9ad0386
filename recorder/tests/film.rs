//! Going back and forth in a recording shows what was seen then, and an outline says what was done in it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs, reason = "tests")]

mod support;

use std::time::Duration;
use support::{Bench, at, bench, data, terminal};
use tidegate_recorder::{
    Event, Keep, Stream,
    event::Parameter,
    film::{End, Film},
    outline::{MarkKind, Outline},
    replay::Reel,
};

fn shown(bytes: &[u8]) -> Event {
    data(Stream::Stdout, Keep::Whole, bytes)
}

fn typed(bytes: &[u8]) -> Event {
    data(Stream::Stdin, Keep::Whole, bytes)
}

/// A recording with a moment of its own for each event.
fn recorded(bench: &Bench, events: &[Event]) -> Reel {
    let live = bench.start();
    for (second, event) in (1..).zip(events) {
        std::thread::sleep(Duration::from_millis(2)); // the recording's own clock, which cannot be set
        live.note(event.clone(), at(second)).unwrap();
    }
    live.seal(at(3600)).unwrap();
    Reel::new(&bench.only_path(), &bench.auditor, false).unwrap()
}

fn outline(reel: &Reel) -> Outline {
    Outline::read(reel.open().unwrap(), None).unwrap()
}

fn go(film: &mut Film, to: Duration) -> String {
    while !film.towards(to, 1).unwrap() {}
    film.stage().picture().map(|picture| picture.text()).unwrap_or_default()
}

#[test]
fn back_and_forth_the_screen_is_what_it_was_then() {
    let bench = bench(1 << 20);
    let pieces: Vec<Event> =
        (0..30).map(|n| shown(format!("\x1b[2J\x1b[Hscreen {n}\x1b]0;title\x07").as_bytes())).collect();
    let reel = recorded(&bench, &[vec![terminal(None)], pieces].concat());
    let mut film = Film::new(reel, None).unwrap();
    let mut times = Vec::new();
    while let Some(next) = film.next_at() {
        let text = go(&mut film, next);
        times.push((film.at(), text));
    }
    assert_eq!(film.end(), Some(End::Whole));
    assert!(times.len() >= 32, "opened, what was shown, and the end: {times:?}");
    for (at, text) in times.iter().rev().chain(&times) {
        assert_eq!((&go(&mut film, *at), film.at()), (text, *at));
    }
    assert!(times.iter().any(|(_, text)| text == "screen 17"), "{times:?}");
}

#[test]
fn what_has_no_screen_is_told_in_marked_lines_and_what_was_typed_only_to_who_asked() {
    let bench = bench(1 << 20);
    let said = Event::Said { text: "cut\x1b[2J".to_owned() };
    recorded(&bench, &[typed(b"secret\r"), shown(b"one\ntw"), shown(b"o\x1b]52;c;eA==\x07\n"), said]);
    for (keystrokes, expected) in [(false, ""), (true, "secret\\r")] {
        let reel = Reel::new(&bench.only_path(), &bench.auditor, keystrokes).unwrap();
        let mut film = Film::new(reel, None).unwrap();
        go(&mut film, Duration::MAX);
        let lines: Vec<&str> = film.stage().lines().iter().map(String::as_str).collect();
        assert_eq!(lines[..3], ["| one", "| two\\x1b]52;c;eA==\\x07", "gateway: cut\\x1b[2J"], "{lines:?}");
        assert!(film.stage().picture().is_none());
        assert_eq!(film.stage().typed(), expected);
    }
}

#[test]
fn the_line_on_which_enter_was_pressed_is_a_mark_and_other_lines_are_none() {
    let bench = bench(1 << 20);
    let events = [
        terminal(None),
        shown(b"$ "),
        typed(b"l"),
        shown(b"l"),
        typed(b"z\x7fs\r"),
        shown(b"z\x08 \x08s\r\nfile\r\n$ "),
        shown(b"a program goes on\r\nby itself\r\n"),
        shown(b"\x1b[?1049h"),
        typed(b"\r"),
        shown(b"in vim\r\n"),
    ];
    let outline = outline(&recorded(&bench, &events));
    let commands: Vec<&str> = outline.marks.iter().map(|mark| mark.text.as_str()).collect();
    assert_eq!(commands.len(), 2, "{commands:?}");
    assert!(commands[0].starts_with("channel 1: shell") && commands[1] == "$ ls", "{commands:?}");
}

#[test]
fn statements_are_listed_with_what_came_of_each_and_are_there_whole() {
    let bench = bench(1 << 20);
    let long = format!("select\n\t'{}'\x1b[2J", "x".repeat(300));
    let error = |of| Event::Reported {
        severity: "ERROR".to_owned(),
        code: "42P01".to_owned(),
        message: "no\ntable".to_owned(),
        of,
    };
    let completed = |tag: &str, rows, of| Event::Completed { tag: tag.to_owned(), rows, of, suspended: false };
    let prepared = Some("s".to_owned());
    let events = [
        Event::Statement { text: long.clone(), prepared: None, number: Some(1), masked: false },
        completed("SELECT 2", 2, Some(1)),
        Event::Statement {
            text: "insert into t values ($1)".to_owned(),
            prepared: prepared.clone(),
            number: Some(2),
            masked: false,
        },
        Event::Bound {
            prepared: "s".to_owned(),
            portal: "p".to_owned(),
            parameters: vec![Parameter::Text("it's".to_owned())],
            number: Some(3),
            statement: Some(2),
            types: Vec::new(),
        },
        Event::Executed { portal: "p".to_owned(), rows: 0, number: Some(4), statement: Some(2) },
        error(Some(4)),
        Event::Statement { text: "selec".to_owned(), prepared, number: Some(5), masked: false },
        error(Some(5)),
    ];
    let reel = recorded(&bench, &events);
    let outline = outline(&reel);
    let rows = &outline.statements;
    assert_eq!(rows.len(), 3, "{rows:#?}");
    assert!(rows[0].text.ends_with('…') && rows[0].text.chars().count() == 161, "{:?}", rows[0].text);
    assert_eq!((rows[0].rows, rows[0].tag.as_deref(), rows[0].error.as_deref()), (Some(2), Some("SELECT 2"), None));
    assert!(rows[0].took.is_some_and(|took| took > Duration::ZERO));
    assert_eq!(
        (rows[1].text.as_str(), rows[1].error.as_deref()),
        ("insert into t values ($1)", Some("42P01 no table"))
    );
    assert_eq!((rows[2].text.as_str(), rows[2].error.is_some()), ("selec", true));
    let whole = |row| Outline::whole(reel.open().unwrap(), row).unwrap();
    assert_eq!(whole(&rows[0]), long.replace('\x1b', "\\x1b"));
    assert!(whole(&rows[1]).starts_with("insert into t values ($1)\n\n") && whole(&rows[1]).contains("$1 = 'it''s'"));
    assert_eq!(outline.marks.iter().filter(|mark| mark.kind == MarkKind::Failure).count(), 2);
}

#[test]
fn statements_of_recordings_without_numbers_have_their_results_too() {
    let bench = bench(1 << 20);
    let statement =
        |text: &str| Event::Statement { text: text.to_owned(), prepared: None, number: None, masked: false };
    let completed = Event::Completed { tag: "SELECT 1".to_owned(), rows: 1, of: None, suspended: false };
    let reel = recorded(&bench, &[statement("select 1"), completed, statement("select 2")]);
    let rows = outline(&reel).statements;
    assert_eq!((rows[0].rows, rows[1].rows), (Some(1), None));
    assert_eq!(Outline::whole(reel.open().unwrap(), &rows[1]).unwrap(), "select 2");
}

#[test]
fn very_many_statements_are_cut_and_counted() {
    let bench = bench(1 << 20);
    let live = bench.start();
    let many = (1..=100_500).map(|n| Event::Statement {
        text: "select 1".to_owned(),
        prepared: None,
        number: Some(n),
        masked: false,
    });
    drop(live.record(many.collect(), bytes::Bytes::new(), at(1)).unwrap());
    live.seal(at(2)).unwrap();
    let outline = outline(&Reel::new(&bench.only_path(), &bench.auditor, false).unwrap());
    assert_eq!((outline.statements.len(), outline.marks.len(), outline.more), (100_000, 100_000, 1000));
}
