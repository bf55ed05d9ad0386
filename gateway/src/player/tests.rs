//! The player's model with keys and time, and what is drawn of it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::{
    draw::draw,
    model::{Mode, Model, Wish, clock},
};
use jiff::Timestamp;
use proptest::{collection::vec, prelude::*, sample::select};
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use regex::Regex;
use std::time::Duration;
use tidegate_recorder::{
    Event, Keep, Stream,
    outline::{Mark, MarkKind, Outline, Row},
    replay::{Moment, What},
    search::{Hit, Kind},
    stage::Stage,
};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn press(model: &mut Model, keys: &str) -> Option<Wish> {
    let keys = keys.chars().map(|c| match c {
        '\n' => KeyCode::Enter,
        '<' => KeyCode::Left,
        '>' => KeyCode::Right,
        '^' => KeyCode::Up,
        'v' => KeyCode::Down,
        c => KeyCode::Char(c),
    });
    keys.filter_map(|code| model.key(KeyEvent::new(code, KeyModifiers::NONE))).last()
}

fn mark(second: u64, kind: MarkKind) -> Mark {
    Mark { elapsed: seconds(second), kind, text: format!("done at {second}") }
}

fn hit(second: u64) -> Hit {
    let line = format!("found at {second}");
    Hit { at: Timestamp::UNIX_EPOCH, elapsed: seconds(second), frame: 1, kind: Kind::Text, line }
}

fn statement(second: u64, text: &str, error: Option<&str>) -> Row {
    Row { elapsed: seconds(second), text: text.to_owned(), error: error.map(str::to_owned), ..Row::default() }
}

/// A hundred seconds, with things done at 10, 20 and 30.
fn model() -> Model {
    let mut model = Model::new("session".to_owned(), Duration::ZERO, 1.0, None, false);
    let marks = vec![mark(10, MarkKind::Command), mark(20, MarkKind::Failure), mark(30, MarkKind::Statement)];
    model.read(Outline { length: seconds(100), marks, ..Outline::default() });
    model
}

fn stage(bytes: &[u8]) -> Stage {
    let mut stage = Stage::new(None);
    let opened = Event::Opened {
        channel: 1,
        what: "shell".to_owned(),
        command: None,
        terminal: Some(("xterm".to_owned(), 10_000, 10_000)),
        environment: [].into(),
        connection: None,
        reached: None,
    };
    let data = bytes.to_vec().into();
    for event in [opened, Event::Data { channel: 1, stream: Stream::Stdout, keep: Keep::Whole, data }] {
        let what = What::Event(event);
        stage.take(&Moment { frame: 1, elapsed: Duration::ZERO, at: Timestamp::UNIX_EPOCH, took: None, what });
    }
    stage
}

fn drawn(model: &Model, stage: &Stage, size: (u16, u16), sought: Option<&Regex>) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal.draw(|frame| draw(frame, model, stage, true, sought)).unwrap();
    let buffer = terminal.backend().buffer();
    let cells = buffer.content();
    assert!(cells.iter().all(|cell| !cell.symbol().contains(char::is_control)), "nothing steers");
    let line = |row: &[ratatui::buffer::Cell]| row.iter().map(|cell| cell.symbol()).collect::<String>();
    cells.chunks(usize::from(size.0).max(1)).map(line).map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn time_passes_at_the_speed_that_was_asked_for_and_pauses_are_cut() {
    let mut model = model();
    model.pass(seconds(1), Duration::ZERO, Some(seconds(50)));
    assert_eq!(model.at, seconds(1));
    press(&mut model, "++");
    model.pass(seconds(1), Duration::ZERO, Some(seconds(50)));
    assert_eq!(model.at, seconds(5));
    press(&mut model, "i");
    model.pass(Duration::from_millis(1), Duration::ZERO, Some(seconds(50)));
    assert_eq!(model.at, seconds(50), "nothing happened for longer than two seconds");
    press(&mut model, " ");
    model.pass(seconds(9), seconds(50), Some(seconds(60)));
    assert_eq!(model.at, seconds(50), "it stands still");
    press(&mut model, " ");
    model.pass(seconds(9), seconds(100), None);
    assert_eq!((model.at, model.playing), (seconds(100), false), "it stops at the end");
}

#[test]
fn seeking_stays_within_the_recording() {
    let mut model = model();
    press(&mut model, "<");
    assert_eq!(model.at, Duration::ZERO);
    press(&mut model, ">>>");
    assert_eq!(model.at, seconds(15));
    press(&mut model, "G>");
    assert_eq!(model.at, seconds(100));
    press(&mut model, "g");
    assert_eq!(model.at, Duration::ZERO);
    let mut beyond = Model::new(String::new(), seconds(1000), 1.0, None, false);
    beyond.read(Outline { length: seconds(7), ..Outline::default() });
    assert_eq!(beyond.at, seconds(7));
}

#[test]
fn marks_are_gone_to_in_their_order_both_ways() {
    let mut model = model();
    press(&mut model, " ]");
    assert_eq!(model.at, seconds(10));
    press(&mut model, "]]");
    assert_eq!(model.at, seconds(30));
    press(&mut model, "]");
    assert_eq!((model.at, model.note.as_str()), (seconds(30), "there is no mark further on"));
    press(&mut model, "[");
    assert_eq!(model.at, seconds(20));
}

#[test]
fn what_is_searched_for_is_gone_to_and_wraps_around() {
    let mut model = model();
    assert_eq!(press(&mut model, "n"), None);
    assert!(model.note.contains("/ searches"));
    assert_eq!(press(&mut model, "/rm -rf\n"), Some(Wish::Find("rm -rf".to_owned())));
    assert_eq!(model.mode, Mode::Watching);
    press(&mut model, "]]");
    model.found(vec![hit(5), hit(25), hit(90)]);
    assert_eq!((model.at, model.playing), (seconds(25), false), "the first from here on");
    press(&mut model, "n");
    assert_eq!((model.at, model.note.as_str()), (seconds(90), "3 of 3: found at 90"));
    press(&mut model, "n");
    assert_eq!(model.at, seconds(5));
    press(&mut model, "N");
    assert_eq!(model.at, seconds(90));
    press(&mut model, "/q");
    assert_eq!(model.mode, Mode::Asking("q".to_owned()), "letters are text here");
    model.found(Vec::new());
    assert_eq!(model.note, "not found");
}

#[test]
fn the_table_of_statements_follows_the_time_and_the_time_follows_it() {
    let mut model = Model::new(String::new(), Duration::ZERO, 1.0, None, true);
    let statements = vec![
        statement(1, "select 1", None),
        statement(4, "drop table t", Some("42501 denied")),
        statement(4, "end", None),
    ];
    model.read(Outline { length: seconds(9), statements: statements.clone(), ..Outline::default() });
    model.pass(seconds(3), seconds(1), Some(seconds(4)));
    assert_eq!(model.selected, 0);
    press(&mut model, "v");
    assert_eq!((model.selected, model.at, model.playing), (1, seconds(4), false));
    assert_eq!(press(&mut model, "\n"), Some(Wish::Whole(statements[1].clone())));
    press(&mut model, "vv");
    assert_eq!(model.selected, 2, "of those of one moment each can be chosen");
    let screen = drawn(&model, &Stage::new(None), (100, 10), None);
    assert!(
        screen[3].contains("0:04") && screen[3].contains("42501 denied") && screen[3].contains("drop table t"),
        "{screen:#?}"
    );
    model.whole("drop\n\ttable t".to_owned());
    let screen = drawn(&model, &Stage::new(None), (100, 10), None).join("\n");
    assert!(screen.contains("statement") && screen.contains("    table t"), "{screen}");
    press(&mut model, "\n");
    assert_eq!(model.mode, Mode::Watching);
}

#[test]
fn the_screen_the_timeline_and_what_was_found_are_drawn() {
    let mut model = model();
    press(&mut model, " >");
    let stage = stage("old\x1b]0;title\x07\r\nr\u{e9}d \u{754c} needle\x1b]52;c;eA==\x07".as_bytes());
    let mut terminal = Terminal::new(TestBackend::new(40, 8)).unwrap();
    let sought = Regex::new("needle").unwrap();
    terminal.draw(|frame| draw(frame, &model, &stage, true, Some(&sought))).unwrap();
    let buffer = terminal.backend().buffer();
    let marked = |x: u16| buffer.cell((x, 2)).unwrap().bg == ratatui::style::Color::Yellow;
    assert!(!marked(6) && (7..13).all(marked) && !marked(13), "{buffer:?}");
    let screen = drawn(&model, &stage, (40, 8), None);
    assert_eq!((screen[0].as_str(), screen[1].as_str()), ("session", "old"), "{screen:#?}");
    assert!(screen[2].contains("needle") && !screen.join("").contains("title"), "{screen:#?}");
    assert!(screen[6].contains('•') && screen[6].contains('×') && screen[6].contains('█'), "{screen:#?}");
    assert!(screen[7].starts_with("‖ 0:05 / 1:40  1×"), "{screen:#?}");
    assert!(drawn(&model, &stage, (40, 8), None).join("").contains("help"));
    press(&mut model, "?");
    assert!(drawn(&model, &stage, (100, 20), None).join("").contains("play, pause"));
}

#[test]
fn whatever_size_the_terminal_has_and_whatever_the_session_printed_it_is_drawn() {
    let hostile = b"\x1b[10000;10000Hx\x1b]52;c;eA==\x07\x1bPq#0\x1b\\\x1b[999999999999m\xff\xfe\xe7\x95\x8c\x1b[?1049h\x1b[6n\xf3\xa0\x80\x81";
    let anything = Regex::new("").unwrap();
    for size in [(0, 0), (1, 1), (2, 1), (1, 9), (3, 4), (80, 24), (1000, 500)] {
        let stage = stage(hostile);
        let mut model = model();
        drawn(&model, &stage, size, Some(&anything));
        model.table = true;
        drawn(&model, &stage, size, None);
        press(&mut model, "?");
        drawn(&model, &stage, size, None);
        model.whole("x".repeat(3000));
        drawn(&model, &stage, size, None);
        drawn(&Model::new(String::new(), seconds(3), 1.0, None, false), &Stage::new(None), size, None);
    }
}

/// Letters that mean something here, and any other; and keys that are none.
fn any_key() -> impl Strategy<Value = KeyCode> {
    let letters = "q?/c +-=itnN[]ghjkGs0123456789x界\u{300}".chars().collect::<Vec<_>>();
    let named = [
        KeyCode::Enter,
        KeyCode::Esc,
        KeyCode::Backspace,
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::Left,
        KeyCode::Right,
        KeyCode::PageUp,
        KeyCode::PageDown,
        KeyCode::Home,
        KeyCode::End,
        KeyCode::Tab,
        KeyCode::F(1),
        KeyCode::Null,
    ];
    prop_oneof![select(letters).prop_map(KeyCode::Char), select(named.to_vec()), any::<char>().prop_map(KeyCode::Char)]
}

proptest! {
    #[test]
    fn whatever_a_session_printed_and_whatever_is_pressed_it_is_drawn_inert(
        printed in vec(prop_oneof![any::<u8>(), select(b"\x1b[];:?0123456789mHJKhlr\r\n\x07P".to_vec())], 0..600),
        sql in vec(("\\PC{0,40}", any::<Option<u64>>(), 0..200_u64), 0..12),
        keys in vec((any_key(), 0..40_u64, 0..120_u16, 0..40_u16), 0..30),
    ) {
        let (stage, mut model) = (stage(&printed), model());
        let statements: Vec<Row> = sql.iter().map(|(text, rows, second)| Row { rows: *rows, ..statement(*second, text, None) }).collect();
        let marks = vec![mark(3, MarkKind::Command)];
        model.read(Outline { length: seconds(200), marks, statements, more: 3 });
        model.found(sql.iter().map(|(.., second)| hit(*second)).collect());
        let sought = Regex::new("[0-9a-f]+|").unwrap();
        for (code, passed, columns, rows) in keys {
            match model.key(KeyEvent::new(code, KeyModifiers::NONE)) {
                Some(Wish::Find(_)) => model.found(vec![hit(7)]),
                Some(Wish::Copy) => model.whole("copied\nlines".to_owned()),
                _ => {}
            }
            model.pass(seconds(passed), model.at, Some(seconds(150)));
            prop_assert!(model.at <= seconds(200), "{:?}", model.at);
            drawn(&model, &stage, (columns, rows), Some(&sought));
        }
    }
}

#[test]
fn what_cannot_be_done_is_a_wish() {
    let mut model = model();
    assert_eq!(press(&mut model, "c"), Some(Wish::Copy));
    assert_eq!(press(&mut model, "q"), Some(Wish::Quit));
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    press(&mut model, "/");
    assert_eq!(model.key(interrupt), Some(Wish::Quit), "whatever is typed");
}

#[test]
fn times_are_said_as_people_say_them() {
    assert_eq!([0, 7, 65, 3723].map(|time| clock(seconds(time))), ["0:00", "0:07", "1:05", "1:02:03"]);
}
