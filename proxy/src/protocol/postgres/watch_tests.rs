//! What a recording says of messages, against those that `postgres-protocol` makes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::cast_possible_truncation)]

use super::*;
use crate::protocol::postgres::frame::Framer;
use bytes::BytesMut;
use postgres_protocol::{IsNull, message::frontend};
use proptest::prelude::*;

/// Events of `stream`, fed in pieces of `size`; COPY's data; whether it said good-bye.
fn watched(sender: Sender, stream: &[u8], size: usize) -> (Vec<Event>, Vec<u8>, bool) {
    let (events, copied, _, terminated) = watched_whole(sender, stream, size);
    (events, copied, terminated)
}

/// The same with what was kept as it came.
fn watched_whole(sender: Sender, stream: &[u8], size: usize) -> (Vec<Event>, Vec<u8>, Vec<u8>, bool) {
    let (mut framer, mut watch) = (Framer::new(sender), Watch::new(sender));
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

fn statement(text: &str, prepared: Option<&str>) -> Event {
    Event::Statement { text: text.to_owned(), prepared: prepared.map(str::to_owned) }
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
    assert_eq!(of(Sender::Client, &message(b'Q', b"select 1\0")), [statement("select 1", None)]);
    let bytes = extended(&[(0, Some(b"text")), (1, Some(&[0xff, 1])), (0, None)]);
    let parameters = vec![Parameter::Text("text".to_owned()), Parameter::Binary("ff01".to_owned()), Parameter::Null];
    let bound = Event::Bound { prepared: "s1".to_owned(), portal: "p1".to_owned(), parameters };
    let executed = Event::Executed { portal: "p1".to_owned(), rows: 7 };
    assert_eq!(of(Sender::Client, &bytes), [statement("select $1", Some("s1")), bound, executed]);
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
        let Event::Statement { text, prepared } = event else { panic!("{event:?}") };
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
    assert_eq!(events, [statement("drop table x", Some("s")), statement("select 1", None)]);
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
    let bound = Event::Bound { prepared: "FunctionCall 955".to_owned(), portal: String::new(), parameters };
    let called = statement("-- FunctionCall of the function with OID 955", None);
    assert_eq!(of(Sender::Client, &message(b'F', body)), [called, bound]);
}

#[test]
fn results_are_recorded_as_tags_rows_errors_and_transactions() {
    let stream = [
        message(b'T', b"\0\0"),
        message(b'D', b"\0\0"),
        message(b'D', &[0; 40_000]),
        message(b'C', b"SELECT 2\0"),
        message(b'Z', b"I"),
        message(b'Z', b"I"),
        message(b'D', b"\0\0"),
        message(b'E', b"SFEHLER\0VERROR\0C42601\0Msyntax error\0\0"),
        message(b'Z', b"E"),
        message(b'C', b"ROLLBACK\0"),
    ];
    let completed = |tag: &str, rows| Event::Completed { tag: tag.to_owned(), rows };
    let error =
        Event::Reported { severity: "ERROR".to_owned(), code: "42601".to_owned(), message: "syntax error".to_owned() };
    assert_eq!(
        of(Sender::Target, &stream.concat()),
        [
            completed("SELECT 2", 2),
            Event::Transaction { status: 'I' },
            error,
            Event::Transaction { status: 'E' },
            completed("ROLLBACK", 0),
        ]
    );
}

#[test]
fn nothing_behind_a_good_bye_is_looked_at() {
    let stream = [message(b'X', b""), message(b'Q', b"drop table x\0")].concat();
    let (mut framer, mut watch) = (Framer::new(Sender::Client), Watch::new(Sender::Client));
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
    fn garbage_bodies_never_panic(tag in prop::sample::select(b"QPBEDCSHXFcf".to_vec()), body in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = of(Sender::Client, &message(tag, &body));
        let tag = if tag == b'B' { b'N' } else { b'E' };
        let _ = of(Sender::Target, &message(tag, &body));
    }
}
