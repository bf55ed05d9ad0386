//! What a recording says of messages, against those that `postgres-protocol` makes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::cast_possible_truncation)]

use super::{client::GOES_ON, *};
use crate::protocol::postgres::frame::Framer;
use bytes::BytesMut;
use postgres_protocol::{IsNull, message::frontend};
use proptest::prelude::*;
use tidegate_recorder::event::{Ended, Parameter};

/// Events of `stream`, fed in pieces of `size`; COPY's data; whether it said good-bye.
fn watched(sender: Sender, stream: &[u8], size: usize) -> (Vec<Event>, Vec<u8>, bool) {
    let (events, copied, _, terminated) = watched_whole(sender, stream, size);
    (events, copied, terminated)
}

/// The same with what was kept as it came.
fn watched_whole(sender: Sender, stream: &[u8], size: usize) -> (Vec<Event>, Vec<u8>, Vec<u8>, bool) {
    let (mut framer, mut watch) = (Framer::new(sender), Watch::new(sender, Talk::default()));
    let (mut buffer, mut copied, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    let mut events = Vec::new();
    for piece in stream.chunks(size) {
        buffer.extend(piece);
        let walk = framer.walk(&buffer, |piece| watch.see(piece));
        assert_eq!(walk.fault, None);
        for found in std::mem::take(&mut watch.found) {
            match found {
                Found::Copied(range) => copied.extend(&buffer[range]),
                Found::Kept(range) => kept.extend(&buffer[range]),
                Found::Event(event) => events.push(event),
            }
        }
        buffer.drain(..walk.taken);
    }
    (events, copied, kept, watch.terminated())
}

fn of(sender: Sender, stream: &[u8]) -> Vec<Event> {
    watched(sender, stream, stream.len().max(1)).0
}

fn statement(text: &str, prepared: Option<&str>, number: u64) -> Event {
    Event::Statement {
        text: text.to_owned(),
        prepared: prepared.map(str::to_owned),
        number: Some(number),
        masked: false,
    }
}

fn completed(tag: &str, rows: u64, of: Option<u64>) -> Event {
    Event::Completed { tag: tag.to_owned(), rows, of, suspended: false }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    crate::protocol::postgres::answer::message(tag, &[body])
}

/// What a driver sends for one extended query.
fn extended(parameters: &[(i16, Option<&[u8]>)]) -> BytesMut {
    let mut bytes = BytesMut::new();
    frontend::parse("s1", "select $1", [], &mut bytes).unwrap();
    let formats = parameters.iter().map(|(format, _)| *format);
    let write = |(_, value): &(i16, Option<&[u8]>), buffer: &mut BytesMut| match value {
        None => Ok(IsNull::Yes),
        Some(value) => {
            buffer.extend_from_slice(value);
            Ok(IsNull::No)
        }
    };
    assert!(frontend::bind("p1", "s1", formats, parameters, write, [0], &mut bytes).is_ok());
    frontend::execute("p1", 7, &mut bytes).unwrap();
    frontend::sync(&mut bytes);
    bytes
}

#[test]
fn simple_and_extended_queries_are_recorded_with_their_parameters() {
    assert_eq!(of(Sender::Client, &message(b'Q', b"select 1\0")), [statement("select 1", None, 1)]);
    let bytes = extended(&[(0, Some(b"text")), (1, Some(&[0xff, 1])), (0, None)]);
    let parameters = vec![Parameter::Text("text".to_owned()), Parameter::Binary("ff01".to_owned()), Parameter::Null];
    let (prepared, portal) = ("s1".to_owned(), "p1".to_owned());
    let bound = Event::Bound {
        prepared,
        portal: portal.clone(),
        parameters,
        number: Some(2),
        statement: Some(1),
        types: Vec::new(),
    };
    let executed = Event::Executed { portal, rows: 7, number: Some(3), statement: Some(1) };
    assert_eq!(of(Sender::Client, &bytes), [statement("select $1", Some("s1"), 1), bound, executed]);
}

#[test]
fn one_format_serves_all_parameters_and_none_means_text() {
    let bound = |formats: &[u16]| {
        let mut body = b"\0\0".to_vec();
        body.extend((formats.len() as u16).to_be_bytes());
        formats.iter().for_each(|format| body.extend(format.to_be_bytes()));
        body.extend(2u16.to_be_bytes());
        [b"a", b"b"].iter().for_each(|value| body.extend([&1u32.to_be_bytes()[..], *value].concat()));
        match of(Sender::Client, &message(b'B', &body)).pop() {
            Some(Event::Bound { parameters, .. }) => parameters,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(bound(&[]), [Parameter::Text("a".to_owned()), Parameter::Text("b".to_owned())]);
    assert_eq!(bound(&[1]), [Parameter::Binary("61".to_owned()), Parameter::Binary("62".to_owned())]);
}

/// The whole text of a statement that was recorded in parts, all under the same name.
fn joined(events: &[Event], name: Option<&str>) -> String {
    let [goes_on, went_on] = GOES_ON;
    let last = events.len() - 1;
    let part = |(nth, event): (usize, &Event)| {
        let Event::Statement { text, prepared, number: Some(1), masked: false } = event else { panic!("{event:?}") };
        assert_eq!(prepared.as_deref(), name);
        assert!(text.len() < MOST_KEPT + 100);
        let text = if nth > 0 { text.strip_prefix(went_on).unwrap() } else { text };
        if nth < last { text.strip_suffix(goes_on).unwrap() } else { text }.to_owned()
    };
    events.iter().enumerate().map(part).collect()
}

#[test]
fn a_statement_behind_any_padding_is_recorded_whole_in_parts() {
    // Characters of three bytes, so that the bounds fall into them.
    let sql = format!("/*{}*/ update items", "→".repeat(MOST_KEPT));
    for (name, message) in [
        (None, message(b'Q', &[sql.as_bytes(), b"\0"].concat())),
        (Some("s1"), message(b'P', &[b"s1\0", sql.as_bytes(), b"\0\0\x01\0\0\0\x17"].concat())),
    ] {
        let (events, _, kept, _) = watched_whole(Sender::Client, &message, 20_000);
        assert_eq!((joined(&events, name) == sql, events.len(), kept.len()), (true, 4, 0));
        assert!(of(Sender::Client, &message) == events, "at another split");
    }
}

#[test]
fn a_name_or_types_beyond_the_bound_hide_no_statement() {
    let (long, types) = (vec![b'n'; 2 * MOST_KEPT + 5], vec![0; 2 * MOST_KEPT]);
    let behind_a_name = message(b'P', &[&long[..], b"\0drop table x\0\0\0"].concat());
    let (events, ..) = watched(Sender::Client, &behind_a_name, 20_000);
    assert!(matches!(&events[..], [Event::Statement { text, .. }] if text == "drop table x"), "{}", events.len());
    let before_types = [message(b'P', &[b"s\0drop table x\0", &types[..]].concat()), message(b'Q', b"select 1\0")];
    let (events, ..) = watched(Sender::Client, &before_types.concat(), 20_000);
    assert_eq!(events, [statement("drop table x", Some("s"), 1), statement("select 1", None, 2)]);
}

#[test]
fn of_parameters_beyond_the_bound_the_head_is_told_and_the_rest_is_kept_as_it_came() {
    let value = |value: &[u8]| [&(value.len() as u32).to_be_bytes()[..], value].concat();
    let values = [value(&vec![b'x'; 2 * MOST_KEPT]), value(b"behind it")].concat();
    let body = [b"p\0s\0\0\0\0\x02", &values[..], b"\0\0"].concat();
    let (events, _, kept, _) = watched_whole(Sender::Client, &message(b'B', &body), 20_000);
    let [Event::Bound { parameters, .. }] = &events[..] else { panic!("{}", events.len()) };
    let [Parameter::Text(head), Parameter::Text(note)] = &parameters[..] else { panic!("{}", parameters.len()) };
    let missing = 2 * MOST_KEPT - (MOST_KEPT - 12);
    assert!(head.starts_with(&"x".repeat(MOST_KEPT - 12)) && head.ends_with(&format!("… ({missing} bytes more)")));
    assert!(note.contains(&kept.len().to_string()));
    assert_eq!(kept, &body[MOST_KEPT..]);
}

#[test]
fn a_function_call_is_recorded_with_its_arguments() {
    let body = b"\0\0\x03\xbb\0\x01\0\x01\0\x02\0\0\0\x01\x07\xff\xff\xff\xff\0\x01";
    let parameters = vec![Parameter::Binary("07".to_owned()), Parameter::Null];
    let (prepared, portal) = ("FunctionCall 955".to_owned(), String::new());
    let bound = Event::Bound { prepared, portal, parameters, number: None, statement: Some(1), types: Vec::new() };
    let called = statement("-- FunctionCall of the function with OID 955", None, 1);
    assert_eq!(of(Sender::Client, &message(b'F', body)), [called, bound]);
}

/// Both directions of one session.
struct Session {
    client: (Framer, Watch),
    target: (Framer, Watch),
}

impl Session {
    fn new() -> Self {
        let talk = Talk::default();
        let side = |sender| (Framer::new(sender), Watch::new(sender, talk.clone()));
        Self { client: side(Sender::Client), target: side(Sender::Target) }
    }

    fn saw((framer, watch): &mut (Framer, Watch), stream: &[u8]) -> Vec<Event> {
        let walk = framer.walk(stream, |piece| watch.see(piece));
        assert_eq!((walk.taken, walk.fault), (stream.len(), None));
        let event = |found| if let Found::Event(event) = found { Some(event) } else { None };
        std::mem::take(&mut watch.found).into_iter().filter_map(event).collect()
    }

    fn client(&mut self, messages: &[Vec<u8>]) -> Vec<Event> {
        Self::saw(&mut self.client, &messages.concat())
    }

    fn target(&mut self, messages: &[Vec<u8>]) -> Vec<Event> {
        Self::saw(&mut self.target, &messages.concat())
    }
}

fn query(text: &str) -> Vec<u8> {
    message(b'Q', &[text.as_bytes(), b"\0"].concat())
}

fn tag(text: &str) -> Vec<u8> {
    message(b'C', &[text.as_bytes(), b"\0"].concat())
}

fn parse(name: &str, types: &[u32]) -> Vec<u8> {
    let types: Vec<u8> = types.iter().flat_map(|oid| oid.to_be_bytes()).collect();
    message(b'P', &[name.as_bytes(), b"\0select $1\0", &((types.len() / 4) as u16).to_be_bytes(), &types].concat())
}

/// Bind with one binary parameter.
fn bind(portal: &str, name: &str, value: &[u8]) -> Vec<u8> {
    let (length, formats) = ((value.len() as u32).to_be_bytes(), b"\0\x01\0\x01\0\x01");
    message(b'B', &[portal.as_bytes(), b"\0", name.as_bytes(), b"\0", formats, &length, value, b"\0\0"].concat())
}

fn execute(portal: &str, rows: u32) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), b"\0", &rows.to_be_bytes()].concat())
}

const ERROR: &[u8] = b"SFEHLER\0VERROR\0C42601\0Msyntax error\0\0";

fn error(of: Option<u64>) -> Event {
    let (severity, code, message) = ("ERROR".to_owned(), "42601".to_owned(), "syntax error".to_owned());
    Event::Reported { severity, code, message, of }
}

fn transaction(status: char, ended: Option<Ended>) -> Event {
    Event::Transaction { status, ended }
}

#[test]
fn results_are_recorded_as_tags_rows_errors_and_transactions() {
    let mut session = Session::new();
    session.client(&[query("select 1; select 2"), query("selec"), query("rollback")]);
    let results = session.target(&[
        message(b'T', b"\0\0"),
        message(b'D', b"\0\0"),
        message(b'D', &[0; 40_000]),
        tag("SELECT 2"),
        message(b'T', b"\0\0"),
        tag("SELECT 0"),
        message(b'Z', b"T"),
        message(b'D', b"\0\0"),
        message(b'E', ERROR),
        message(b'Z', b"E"),
        tag("ROLLBACK"),
        message(b'Z', b"I"),
        message(b'Z', b"I"),
    ]);
    assert_eq!(
        results,
        [
            completed("SELECT 2", 2, Some(1)),
            completed("SELECT 0", 0, Some(1)),
            transaction('T', None),
            error(Some(2)),
            transaction('E', None),
            completed("ROLLBACK", 0, Some(3)),
            transaction('I', Some(Ended::RolledBack)),
        ]
    );
}

#[test]
fn how_a_transaction_ended_is_told_where_it_is_sure() {
    for (before, tags, after, told) in [
        ('I', &["BEGIN"][..], 'T', Some(None)),
        ('T', &["COMMIT"], 'I', Some(Some(Ended::Committed))),
        ('E', &["ROLLBACK"], 'I', Some(Some(Ended::RolledBack))),
        ('T', &["PREPARE TRANSACTION"], 'I', Some(Some(Ended::Prepared))),
        ('I', &["BEGIN", "INSERT 0 1", "COMMIT"], 'I', Some(Some(Ended::Committed))),
        ('T', &["COMMIT"], 'T', Some(Some(Ended::Committed))), // AND CHAIN
        ('T', &["ROLLBACK"], 'T', None),                       // to a savepoint, or AND CHAIN
        ('I', &["COMMIT"], 'I', None),                         // there was none
        ('I', &["SELECT 1"], 'I', None),
    ] {
        let mut session = Session::new();
        session.target(&[message(b'Z', &[before as u8])]);
        session.client(&[query("")]);
        let mut answers: Vec<_> = tags.iter().map(|text| tag(text)).collect();
        answers.push(message(b'Z', &[after as u8]));
        let last = session.target(&answers).into_iter().nth(tags.len());
        assert_eq!(last, told.map(|ended| transaction(after, ended)), "{before} {tags:?} {after}");
    }
}

#[test]
fn pipelined_answers_are_told_of_what_they_answer_and_portals_of_their_statements() {
    let mut session = Session::new();
    let mut asked = session.client(&[
        parse("s", &[23]),             // 1
        bind("p", "s", &[0, 0, 0, 7]), // 2
        execute("p", 1),               // 3
        execute("p", 0),               // 4
        message(b'S', b""),
    ]);
    let parsed = session.target(&[message(b'1', b"")]);
    assert_eq!(parsed, [], "from here on the name is sure, also behind the Sync");
    asked.extend(session.client(&[
        bind("", "s", &[0, 0, 0, 8]), // 5
        execute("", 0),               // 6
        message(b'S', b""),
        query("select 1"), // 7
    ]));
    let executed = |portal: &str, rows, number| Event::Executed {
        portal: portal.to_owned(),
        rows,
        number: Some(number),
        statement: Some(1),
    };
    let typed = |event: &Event| match event {
        Event::Bound { parameters, .. } => parameters.clone(),
        other => panic!("{other:?}"),
    };
    let int4 = |text: &str| vec![Parameter::Typed { kind: "int4".to_owned(), text: text.to_owned() }];
    assert_eq!((typed(&asked[1]), typed(&asked[4])), (int4("7"), int4("8")));
    assert_eq!([&asked[2], &asked[3], &asked[5]], [&executed("p", 1, 3), &executed("p", 0, 4), &executed("", 0, 6)]);
    let answers = session.target(&[
        message(b'2', b""),
        message(b'D', b"\0\0"),
        message(b's', b""),
        message(b'D', b"\0\0"),
        message(b'D', b"\0\0"),
        tag("SELECT 2"),
        message(b'Z', b"I"),
        message(b'2', b""),
        message(b'N', ERROR),
        message(b'E', ERROR),
        message(b'Z', b"I"),
        message(b'I', b""),
        message(b'Z', b"I"),
    ]);
    let suspended = Event::Completed { tag: "(portal suspended)".to_owned(), rows: 1, of: Some(3), suspended: true };
    let of = |event: &Event| if let Event::Reported { of, .. } = event { *of } else { panic!("{event:?}") };
    assert_eq!(answers[..2], [suspended, completed("SELECT 2", 2, Some(4))]);
    assert_eq!((of(&answers[3]), of(&answers[4])), (Some(6), Some(6)));
    assert_eq!(answers[5..], [transaction('I', None), completed("", 0, Some(7))], "and its Sync is told");
}

#[test]
fn types_come_from_the_targets_description_and_go_with_the_statement() {
    let mut session = Session::new();
    let bound = |session: &mut Session, name: &str| match session.client(&[bind("", name, &[0, 7])]).pop() {
        Some(Event::Bound { parameters, .. }) => parameters,
        other => panic!("{other:?}"),
    };
    let unknown = || vec![Parameter::Binary("0007".to_owned())];
    session.client(&[parse("s", &[]), message(b'D', b"Ss\0"), message(b'S', b"")]);
    assert_eq!(bound(&mut session, "s"), unknown(), "not described yet");
    let int2 = message(b't', b"\0\x01\0\0\0\x15");
    session.target(&[message(b'1', b""), int2, message(b'n', b""), message(b'Z', b"I")]);
    let int2 = || vec![Parameter::Typed { kind: "int2".to_owned(), text: "7".to_owned() }];
    assert_eq!(bound(&mut session, "s"), int2());
    // Two Binds and this Parse, which fails: the name is taken.
    session.client(&[parse("s", &[17]), message(b'S', b"")]);
    session.target(&[message(b'2', b""), message(b'2', b""), message(b'E', ERROR), message(b'Z', b"I")]);
    assert_eq!(bound(&mut session, "s"), unknown(), "which of both it is is not known");
    session.client(&[message(b'S', b""), parse("t", &[1_000_000]), message(b'C', b"Ss\0")]);
    let raw = vec![Parameter::Raw { oid: 1_000_000, hex: "0007".to_owned() }];
    assert_eq!((bound(&mut session, "t"), bound(&mut session, "s")), (raw, unknown()));
}

#[test]
fn a_name_that_sql_gives_anew_is_not_mistaken_for_the_one_before() {
    let mut session = Session::new();
    session.client(&[
        parse("s", &[23]),
        message(b'S', b""),
        query("deallocate s"),
        query("prepare s(text) as select $1"),
    ]);
    session.target(&[message(b'1', b""), message(b'Z', b"I")]);
    session.target(&[tag("DEALLOCATE"), message(b'Z', b"I"), tag("PREPARE"), message(b'Z', b"I")]);
    let bound = session.client(&[bind("", "s", b"abcd")]).pop();
    let parameters = vec![Parameter::Binary("61626364".to_owned())];
    let (prepared, portal) = ("s".to_owned(), String::new());
    assert_eq!(
        bound,
        Some(Event::Bound { prepared, portal, parameters, number: Some(4), statement: None, types: Vec::new() })
    );
}

/// Which statement an answer's last execution is told to run.
fn runs(events: &[Event]) -> Option<u64> {
    match events.last() {
        Some(Event::Executed { statement, .. }) => *statement,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_name_whose_parse_may_have_failed_names_no_statement() {
    let sync = || message(b'S', b"");
    for burst in [
        vec![parse("s", &[]), sync(), parse("s", &[]), sync(), bind("", "s", b""), execute("", 0)],
        vec![parse("", &[]), sync(), parse("bad", &[]), parse("", &[]), sync(), bind("", "", b""), execute("", 0)],
        vec![parse("f", &[]), sync(), query("deallocate f; prepare f as evil"), bind("", "f", b""), execute("", 0)],
        vec![parse("f", &[]), message(b'F', b"\0\0\0\x01"), bind("", "f", b""), execute("", 0)],
        vec![parse("s", &[]), bind("p", "s", b""), sync(), execute("p", 0)],
    ] {
        assert_eq!(runs(&Session::new().client(&burst)), None);
    }
    let mut session = Session::new();
    session.client(&[parse("s", &[]), sync()]);
    session.target(&[message(b'1', b""), message(b'Z', b"I")]);
    assert_eq!(runs(&session.client(&[bind("", "s", b""), execute("", 0)])), Some(1));
}

#[test]
fn each_copy_ends_with_its_own_end_also_where_it_fails() {
    let mut session = Session::new();
    let eof = |stream| Event::Eof { channel: 0, stream };
    let none: [Event; 0] = [];
    session.client(&[query("copy t from stdin")]);
    session.target(&[message(b'G', b"\0\0\0")]);
    assert_eq!(session.client(&[message(b'd', b"1\n"), message(b'S', b"")]), none, "a Sync is read over");
    assert_eq!(session.client(&[message(b'c', b"")]), [eof(Stream::CopyIn)]);
    assert_eq!(session.target(&[tag("COPY 1")]), [completed("COPY 1", 0, Some(1))]);
    session.target(&[message(b'Z', b"I")]);
    session.client(&[query("copy t from stdin"), message(b'd', b"x")]);
    session.target(&[message(b'G', b"\0\0\0"), message(b'E', ERROR), message(b'Z', b"I")]);
    assert_eq!(session.client(&[query("select 1")]), [eof(Stream::CopyIn), statement("select 1", None, 3)]);
    assert_eq!(session.target(&[tag("SELECT 1")]), [completed("SELECT 1", 0, Some(3))]);
    session.target(&[message(b'Z', b"I")]);
    session.client(&[query("copy t to stdout")]);
    let failed = session.target(&[message(b'H', b"\0\0\0"), message(b'd', b"1\n"), message(b'E', ERROR)]);
    assert_eq!(failed, [eof(Stream::CopyOut), error(Some(4))]);
}

#[test]
fn notifications_are_told_whenever_they_come() {
    let mut session = Session::new();
    let told = session.target(&[message(b'A', b"\0\0\0\x07jobs\0done\0")]);
    assert_eq!(told, [Event::Notified { name: "jobs".to_owned(), payload: "done".to_owned(), process: 7 }]);
}

#[test]
fn nothing_behind_a_good_bye_is_looked_at() {
    let stream = [message(b'X', b""), message(b'Q', b"drop table x\0")].concat();
    let (mut framer, mut watch) = (Framer::new(Sender::Client), Watch::new(Sender::Client, Talk::default()));
    let walk = framer.walk(&stream, |piece| watch.see(piece));
    assert_eq!((walk.taken, watch.terminated(), watch.found.len()), (5, true, 0));
}

proptest! {
    #[test]
    fn events_and_copied_bytes_are_the_same_at_every_split(
        data in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30_000), 0..4),
        sql in "[a-z ]{0,30000}",
        size in 1usize..9000,
    ) {
        let mut stream = extended(&[(1, Some(sql.as_bytes()))]).to_vec();
        stream.extend(message(b'Q', &[sql.as_bytes(), b"\0"].concat()));
        data.iter().for_each(|data| stream.extend(message(b'd', data)));
        stream.extend(message(b'c', b""));
        stream.extend(message(b'X', b""));
        let whole = watched(Sender::Client, &stream, stream.len());
        prop_assert_eq!(&whole.1, &data.concat());
        prop_assert!(whole.2);
        prop_assert_eq!(watched(Sender::Client, &stream, size), whole);
    }

    #[test]
    fn garbage_bodies_never_panic(tag in prop::sample::select(b"QPBEDCSHXFcf".to_vec()), answer in prop::sample::select(b"12CIsVTntGHENZAcDS3".to_vec()), body in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut session = Session::new();
        session.client(&[message(tag, &body)]);
        session.target(&[message(answer, &body)]);
        if tag != b'X' {
            session.client(&[message(tag, &body)]);
        }
        session.target(&[message(answer, &body)]);
    }
}

/// What looking costs: `cargo nextest run -p tidegate-proxy --run-ignored only --no-capture what_looking_costs`.
#[test]
#[ignore = "a measurement"]
fn what_looking_costs() {
    let mut simple = Vec::new();
    let (mut many, mut rows) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        simple.extend(message(b'Q', b"SELECT abalance FROM pgbench_accounts WHERE aid = 4711;\0"));
        many.extend(extended(&[(0, Some(b"4711")), (1, Some(&[0, 0, 18, 103])), (0, None)]));
    }
    for _ in 0..2000 {
        rows.extend(message(b'D', b"\0\x01\0\0\0\x044711"));
    }
    for (what, sender, stream, count) in [
        ("a simple query", Sender::Client, &simple[..], 200),
        ("Parse, Bind, Execute, Sync", Sender::Client, &many[..], 200),
        ("a row", Sender::Target, &rows[..], 2000),
    ] {
        let begun = std::time::Instant::now();
        let rounds = 500;
        for _ in 0..rounds {
            std::hint::black_box(watched(sender, stream, 32 * 1024));
        }
        println!("{what}: {:.0} ns", begun.elapsed().as_nanos() as f64 / f64::from(rounds) / f64::from(count));
    }
}
