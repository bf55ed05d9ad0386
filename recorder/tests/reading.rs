//! What auditors see: inert, and complete.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs, reason = "tests")]

mod support;

use proptest::prelude::*;
use std::{path::Path, time::Duration};
use support::{Bench, at, bench, data, terminal};
use tidegate_recorder::{
    Event, FileEvent, Keep, Stream,
    event::Parameter,
    export::{ExportError, Format, export},
    play::{Player, Settings},
    replay,
};

const HOSTILE: &[u8] =
    b"\x1b]52;c;cm0gLXJm\x07\x1b]0;title\x07\x1bP$qm\x1b\\\x1b[c\x1b[6n\x1b[31mred\x1b[0m\xc2\x9b2J\x1b[?1049hvim";

fn exported(bench: &Bench, path: &Path, format: Format) -> Result<String, ExportError> {
    let mut out = Vec::new();
    export(|| replay::open(path, &bench.auditor, true), format, None, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn played(bench: &Bench, path: &Path, settings: Settings) -> Vec<(Duration, String)> {
    let steps = Player::new(replay::open(path, &bench.auditor, false).unwrap(), settings);
    steps.map(|step| step.unwrap()).map(|step| (step.delay, String::from_utf8(step.bytes).unwrap())).collect()
}

fn as_recorded() -> Settings {
    Settings { speed: 1.0, idle_limit: None, view: None, channel: None, from: Duration::ZERO }
}

/// Characters, line breaks, SGR, cursor positions and erasing; nothing else.
fn is_inert(text: &str) -> bool {
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c == '\x1b' {
            let Some(sequence) = rest.strip_prefix('[') else { return false };
            let end = sequence.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
            let Some(last) = end.chars().next().filter(|c| "mHJK".contains(*c)) else { return false };
            rest = &end[last.len_utf8()..];
        } else if c.is_control() && !matches!(c, '\r' | '\n' | '\t') {
            return false;
        }
    }
    true
}

fn sql_session(bench: &Bench) -> std::path::PathBuf {
    bench.sealed(&[
        Event::Opened {
            channel: 0,
            what: "sql".to_owned(),
            command: Some("shop".to_owned()),
            terminal: None,
            environment: [].into(),
            connection: None,
            reached: None,
        },
        Event::Statement {
            text: "SELECT $1\n  AS \x1b[2J a".to_owned(),
            prepared: Some("s1".to_owned()),
            number: None,
            masked: false,
        },
        Event::Bound {
            prepared: "s1".to_owned(),
            portal: String::new(),
            parameters: vec![Parameter::Text("it's\nDROP TABLE t;".to_owned()), Parameter::Null],
            number: None,
            statement: None,
            types: Vec::new(),
        },
        Event::Executed { portal: String::new(), rows: 0, number: None, statement: None },
        Event::Completed { tag: "SELECT 1".to_owned(), rows: 1, of: None, suspended: false },
        Event::Statement { text: "SELEC 1;".to_owned(), prepared: None, number: None, masked: false },
        Event::Reported {
            severity: "ERROR".to_owned(),
            code: "42601".to_owned(),
            message: "syntax error at \"SELEC\"\r\nDELETE FROM t;".to_owned(),
            of: None,
        },
    ])
}

#[test]
fn playing_a_terminal_is_inert_and_shows_what_it_showed() {
    let bench = bench(1024);
    let path = bench.sealed(&[terminal(None), data(Stream::Stdout, Keep::Whole, HOSTILE)]);
    let steps = played(&bench, &path, as_recorded());
    let all: String = steps.iter().map(|(_, text)| text.as_str()).collect();
    assert!(is_inert(&all), "{all:?}");
    assert!(all.contains("vim"));
    assert!(!all.contains("cm0g") && !all.contains("title"));
    let red = bench.start_as("red");
    red.note(terminal(None), at(1)).unwrap();
    red.note(data(Stream::Stdout, Keep::Whole, "\x1b[1;31mréd\x1b[0m".as_bytes()), at(2)).unwrap();
    drop(red);
    let path = tidegate_recorder::storage::find(&bench.recordings(), "red").unwrap().path;
    let all: String = played(&bench, &path, as_recorded()).into_iter().map(|(_, text)| text).collect();
    assert!(all.contains("\x1b[0;1;38;5;1mré\x1b[1;3Hd"), "{all:?}");
    assert!(all.ends_with("TRUNCATED after frame 3: the recording breaks off here\r\n"), "{all:?}");
}

#[test]
fn player_keeps_time_and_cuts_pauses() {
    let bench = bench(1024);
    let live = bench.start();
    live.note(terminal(None), at(0)).unwrap();
    std::thread::sleep(Duration::from_millis(60)); // recordings have a clock of their own
    live.note(data(Stream::Stdout, Keep::Whole, b"x"), at(1)).unwrap();
    live.seal(at(2)).unwrap();
    let path = bench.only_path();
    let delay = |settings| played(&bench, &path, settings)[1].0;
    let real = delay(as_recorded());
    assert!(real >= Duration::from_millis(60));
    assert_eq!(delay(Settings { speed: 0.5, ..as_recorded() }), real * 2);
    // Not `real / 2`: that drops the half of an odd nanosecond, which is rounded here.
    assert_eq!(delay(Settings { speed: 2.0, ..as_recorded() }), real.div_f64(2.0));
    let limit = Some(Duration::from_millis(10));
    assert_eq!(delay(Settings { idle_limit: limit, ..as_recorded() }), Duration::from_millis(10));
    for speed in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(delay(Settings { speed, ..as_recorded() }), real);
    }
}

#[test]
fn sql_session_is_played_as_lines() {
    let bench = bench(1024);
    let path = sql_session(&bench);
    let all: String = played(&bench, &path, as_recorded()).into_iter().map(|(_, text)| text).collect();
    assert!(is_inert(&all) && !all.contains('\x1b'), "{all:?}");
    assert!(all.contains("prepare \"s1\": SELECT $1\\n  AS \\x1b[2J a\r\n"), "{all}");
    assert!(all.contains(" ms | SELECT 1 (1 rows sent)\r\n"), "{all}");
}

#[test]
fn sql_export_holds_statements_and_nothing_recorded_becomes_one() {
    let bench = bench(1024);
    let sql = exported(&bench, &sql_session(&bench), Format::Sql).unwrap();
    let statements: Vec<_> = sql.lines().filter(|line| !line.is_empty() && !line.starts_with("--")).collect();
    assert_eq!(statements, ["SET client_encoding = 'UTF8';"], "{sql}");
    let unnumbered = "--# MISSING: no answer to it is recorded, or it is not known whose that was\n-- SELEC 1;\n";
    assert!(sql.contains(unnumbered) && sql.ends_with("Search for `MISSING`.\n"), "{sql}");
    assert!(sql.contains("\n-- SELECT $1\n--   AS \\x1b[2J a\n"), "what has a backslash is a comment: {sql}");
    assert!(sql.contains("$1 = 'it''s\\nDROP TABLE t;', $2 = NULL"), "{sql}");
    assert!(sql.contains("-- ERROR 42601: syntax error"), "{sql}");
    assert!(sql.contains("-- SELECT 1 (1 rows sent) after "), "{sql}");
    assert!(!sql.contains('\x1b'));
}

#[test]
fn sql_export_runs_the_statement_that_is_known_to_have_run_whatever_has_its_name() {
    let bench = bench(1024);
    let parsed = |text: &str, number| Event::Statement {
        text: text.to_owned(),
        prepared: Some("s".to_owned()),
        number: Some(number),
        masked: false,
    };
    let bound = |portal: &str, statement| Event::Bound {
        prepared: "s".to_owned(),
        portal: portal.to_owned(),
        parameters: Vec::new(),
        number: Some(3),
        statement,
        types: Vec::new(),
    };
    let executed = |portal: &str, number, statement| Event::Executed {
        portal: portal.to_owned(),
        rows: 0,
        number: Some(number),
        statement,
    };
    let done = |of| Event::Completed { tag: "DELETE 1".to_owned(), rows: 0, of: Some(of), suspended: false };
    let path = bench.sealed(&[
        parsed("delete from t", 1),
        parsed("select 'harmless'", 2),
        bound("known", Some(1)),
        executed("known", 4, Some(1)),
        bound("unknown", None),
        executed("unknown", 5, None),
        bound("left-open", Some(2)),
        executed("left-open", 6, None),
        bound("another", Some(2)),
        executed("another", 7, Some(1)),
        bound("unanswered", Some(2)),
        executed("unanswered", 8, Some(2)),
        done(4),
        done(5),
        done(6),
        done(7),
        Event::Transaction { status: 'I', ended: None },
    ]);
    let sql = exported(&bench, &path, Format::Sql).unwrap();
    let statements: Vec<_> = sql.lines().filter(|line| !line.is_empty() && !line.starts_with("--")).collect();
    assert_eq!(statements, ["BEGIN;", "delete from t;", "COMMIT;"], "{sql}");
    assert_eq!(sql.matches("--# MISSING: ").count(), 4, "{sql}");
}

#[test]
fn asciicasts_are_what_players_expect() {
    let bench = bench(1024);
    let path = bench.sealed(&[
        terminal(None),
        data(Stream::Stdin, Keep::Whole, b"q"),
        data(Stream::Stdout, Keep::Whole, "h\u{e9}".as_bytes().split_last().unwrap().1),
        data(Stream::Stdout, Keep::Whole, b"\xa9\x1b[1m\r\n"),
        Event::Resized { channel: 1, columns: 100, rows: u32::MAX },
        Event::Exited { channel: 1, status: Some(3), signal: None },
    ]);
    let lines = |format| -> Vec<serde_json::Value> {
        exported(&bench, &path, format).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let v3 = lines(Format::Asciicast);
    assert_eq!(v3[0]["version"], 3);
    assert_eq!(v3[0]["term"], serde_json::json!({ "cols": 80, "rows": 24, "type": "xterm-256color" }));
    let events: Vec<_> = v3[1..].iter().map(|line| (line[1].as_str().unwrap(), line[2].as_str().unwrap())).collect();
    assert_eq!(events, [("i", "q"), ("o", "h"), ("o", "é\x1b[1m\r\n"), ("r", "100x500"), ("x", "3")]);
    let v2 = lines(Format::AsciicastV2);
    assert_eq!((&v2[0]["version"], &v2[0]["width"]), (&2.into(), &80.into()));
    let times: Vec<_> = v2[1..].iter().map(|line| line[0].as_f64().unwrap()).collect();
    assert!(times.is_sorted(), "version 2 counts from the start");
    let sql = bench.start_as("no-terminal");
    sql.note(Event::Cancelled, at(1)).unwrap();
    drop(sql);
    let path = tidegate_recorder::storage::find(&bench.recordings(), "no-terminal").unwrap().path;
    assert!(matches!(exported(&bench, &path, Format::Asciicast), Err(ExportError::NoTerminal)));
}

#[test]
fn jsonl_has_every_event_with_its_content() {
    let bench = bench(4);
    let path = bench.sealed(&[
        terminal(Some("x")),
        data(Stream::Stdout, Keep::Whole, "a\u{9b}".as_bytes()),
        data(Stream::Stdin, Keep::Whole, b"\xff"),
        data(Stream::Stderr, Keep::UpToLimit, b"12345678"),
    ]);
    let text = exported(&bench, &path, Format::Jsonl).unwrap();
    assert!(!text.contains('\u{9b}'));
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    let totals = ["total", "total", "total"];
    assert_eq!(kinds[..6], ["recording", "opened", "data", "data", "data", "counted"]);
    assert_eq!(kinds[6..9], totals);
    assert_eq!(kinds[9..], ["end"]);
    assert_eq!(lines[0]["identity"], "alice");
    assert_eq!(lines[2]["text"], "a\u{9b}");
    assert_eq!(lines[3]["base64"], "/w==");
    assert_eq!((&lines[5]["bytes"], &lines[5]["total"]), (&4.into(), &8.into()));
}

#[test]
fn transcript_reads_the_terminal_and_is_inert() {
    let bench = bench(1024);
    let path = bench.sealed(&[
        terminal(None),
        data(Stream::Stdin, Keep::Whole, b"ls\r"),
        data(Stream::Stdout, Keep::Whole, b"$ lx\x08s\r\n\x1b[32ma.txt\x1b[0m\r\n"),
        data(Stream::Stdout, Keep::Whole, HOSTILE),
        Event::Closed { channel: 1, up: 0, down: 0 },
        Event::Opened {
            channel: 2,
            what: "exec".to_owned(),
            command: Some("cat\x1b[2J".to_owned()),
            terminal: None,
            environment: [].into(),
            connection: None,
            reached: None,
        },
        Event::Data { channel: 2, stream: Stream::Stdout, keep: Keep::Whole, data: "one\ntwo\x07".into() },
        Event::Exited { channel: 2, status: Some(0), signal: None },
    ]);
    let text = exported(&bench, &path, Format::Text).unwrap();
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    for part in [
        "\n| $ ls\n| a.txt\n| red",
        "typed: ls\\r\n",
        "exec cat\\x1b[2J\n",
        "\n| one\n| two\\x07\n[",
        "exit status 0\n",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}

#[test]
fn what_was_done_to_files_is_told_in_inert_lines_instead_of_their_bytes() {
    let bench = bench(8);
    let raw =
        |stream, bytes: &[u8]| Event::Data { channel: 1, stream, keep: Keep::UpToLimit, data: bytes.to_vec().into() };
    let file = |op: &str, path: &str| FileEvent {
        channel: 1,
        op: op.to_owned(),
        path: path.to_owned(),
        ..FileEvent::default()
    };
    let path = bench.sealed(&[
        Event::Decoded { channel: 1, protocol: "sftp".to_owned() },
        raw(Stream::Stdin, b"raw bytes up"),
        raw(Stream::Stdout, b"raw bytes down"),
        Event::File(FileEvent { to: Some("b\n".to_owned()), ..file("rename", "a\" to \"x\x1b[2J") }),
        Event::File(FileEvent {
            bytes: Some(3),
            size: Some(3),
            sha256: Some("ba78".to_owned()),
            ..file("upload", "/tmp/\u{202e}f")
        }),
        Event::File(FileEvent {
            bytes: Some(20),
            size: Some(30),
            ranges: Some(vec![(0, 10), (20, 30)]),
            fault: Some("failed: no space".to_owned()),
            ..file("download", "g")
        }),
        raw(Stream::Stderr, b"to be seen"),
        Event::Closed { channel: 1, up: 0, down: 0 },
        raw(Stream::Stdout, b"another"),
    ]);
    let text = exported(&bench, &path, Format::Text).unwrap();
    for part in [
        "channel 1: understood as sftp\n",
        r#"channel 1: rename "a\" to \"x\u{1b}[2J" to "b\n""#,
        r#"channel 1: upload "/tmp/\u{202e}f": 3 bytes, SHA-256 ba78"#,
        r#"channel 1: download "g": 20 bytes of 30, from 0 to 10, 20 to 30: failed: no space"#,
        "to be s", // the limit
        "another",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert!(!text.contains("raw byte") && !text.contains("not kept, 12 so far"), "{text}");
    let all: String = played(&bench, &path, as_recorded()).into_iter().map(|(_, text)| text).collect();
    assert!(is_inert(&all) && !all.contains("raw byte") && all.contains("SHA-256 ba78"), "{all}");
    let lines = exported(&bench, &path, Format::Jsonl).unwrap();
    let told = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let uploaded: Vec<_> = told.filter(|told| told["op"] == "upload").collect();
    assert_eq!(uploaded.len(), 1, "{lines}");
    assert_eq!((&uploaded[0]["event"], &uploaded[0]["bytes"]), (&"file".into(), &3.into()), "{lines}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_was_printed_playing_and_transcripts_are_inert(
        pieces in proptest::collection::vec(proptest::collection::vec(prop_oneof![
            Just(0x1bu8), Just(b'['), Just(b']'), Just(b'P'), Just(b';'), Just(0x9b), Just(0xc2), b'0'..=b'9', any::<u8>(),
        ], 0..80), 1..6),
        size in (1..200u32, 1..60u32),
        resize in (any::<u32>(), any::<u32>()),
    ) {
        let bench = bench(1024);
        let mut events = vec![Event::Opened {
            channel: 1, what: "shell".to_owned(), command: None,
            terminal: Some(("x\x1b".to_owned(), size.0, size.1)), environment: [].into(),
            connection: None, reached: None,
        }];
        events.extend(pieces.iter().map(|piece| data(Stream::Stdout, Keep::Whole, piece)));
        events.insert(2, Event::Resized { channel: 1, columns: resize.0 % 300, rows: resize.1 % 100 });
        let path = bench.sealed(&events);
        let all: String = played(&bench, &path, as_recorded()).into_iter().map(|(_, text)| text).collect();
        prop_assert!(is_inert(&all), "{:?}", all);
        let text = exported(&bench, &path, Format::Text).unwrap();
        prop_assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{:?}", text);
    }
}
