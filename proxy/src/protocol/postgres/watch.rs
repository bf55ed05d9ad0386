//! What messages mean for the recording: statements, their parameters, COPY, errors, tags, row counts, transactions.
//!
//! Sans-IO: pieces of messages in, events out. What always holds: an event is out before the last byte of its message
//! is released, and a peer cannot act on a message before its last byte. Of what a client has executed every byte is kept,
//! behind however much padding it comes: a statement longer than [`MOST_KEPT`] becomes several events, and of a longer
//! Bind or FunctionCall the rest is kept as it came. Of the target's messages the rest is only counted.

use super::{
    fields::{Fields, bounded, not_kept},
    frame::{Go, Piece, Sender},
};
use std::ops::Range;
use tidegate_recorder::{Event, Stream, event::Parameter};

/// Bytes of one message that are held for one event: with its text and the recorder's copy, what a session's memory is
/// measured by.
pub(super) const MOST_KEPT: usize = 256 * 1024;
/// Bytes of a name or a tag.
const MOST_OF_A_NAME: usize = 1024;
/// Bytes of an error's message.
const MOST_OF_A_MESSAGE: usize = 16 * 1024;
/// Ends and starts the parts of a statement that is cut over several events.
const GOES_ON: [&str; 2] = ["… (goes on)", "(goes on) …"];

/// Makes events of one side's messages.
#[derive(Debug)]
pub(super) struct Watch {
    sender: Sender,
    /// The body of a message that comes in pieces, and how much came behind it.
    pending: Vec<u8>,
    beyond: usize,
    sql: Sql,
    /// DataRow messages since the last tag.
    rows: u64,
    /// Of the last ReadyForQuery.
    transaction: Option<u8>,
    terminated: bool,
    /// What has been found, in order, since its owner last took it.
    pub(super) found: Vec<Found>,
}

/// How far a Query or Parse has been read.
#[derive(Debug, Default)]
struct Sql {
    /// Of Parse.
    name: Option<String>,
    /// The name's NUL has come.
    named: bool,
    /// A part of the text is out.
    begun: bool,
    /// The text's NUL has come.
    ended: bool,
}

/// What a message means.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// This happened.
    Event(Event),
    /// Here in the buffer lies data of COPY.
    Copied(Range<usize>),
    /// Here lies what is too large for an event, and is kept as it came.
    Kept(Range<usize>),
}

impl Watch {
    pub(super) fn new(sender: Sender) -> Self {
        Self {
            sender,
            pending: Vec::new(),
            beyond: 0,
            sql: Sql::default(),
            rows: 0,
            transaction: None,
            terminated: false,
            found: Vec::new(),
        }
    }

    /// Whether the client has said good-bye.
    pub(super) fn terminated(&self) -> bool {
        self.terminated
    }

    /// Which stream COPY's data of this side is.
    pub(super) fn copy_stream(&self) -> Stream {
        match self.sender {
            Sender::Client => Stream::CopyIn,
            Sender::Target | Sender::TargetStarting => Stream::CopyOut,
        }
    }

    /// Looks at the next piece.
    pub(super) fn see(&mut self, piece: Piece<'_>) -> Go {
        if piece.tag == b'd' {
            self.found.push(Found::Copied(piece.at..piece.at + piece.body.len()));
            return Go::On;
        }
        if self.sender == Sender::Target && piece.tag == b'D' {
            self.rows += u64::from(piece.last);
            return Go::On;
        }
        if self.sender == Sender::Client && matches!(piece.tag, b'Q' | b'P') {
            return self.statement(piece);
        }
        if piece.first && piece.last && piece.body.len() <= MOST_KEPT {
            return self.whole(piece.tag, piece.body, 0);
        }
        let room = MOST_KEPT.saturating_sub(self.pending.len());
        let held = piece.body.get(..room).unwrap_or(piece.body);
        self.pending.extend_from_slice(held);
        let beyond = piece.at + held.len()..piece.at + piece.body.len();
        self.beyond += beyond.len();
        if self.sender == Sender::Client && !beyond.is_empty() {
            self.found.push(Found::Kept(beyond));
        }
        if !piece.last {
            return Go::On;
        }
        let (body, beyond) = (std::mem::take(&mut self.pending), std::mem::take(&mut self.beyond));
        self.whole(piece.tag, &body, beyond)
    }

    /// Query and Parse: an event for each [`MOST_KEPT`] bytes, cut alike however the pieces come.
    fn statement(&mut self, piece: Piece<'_>) -> Go {
        let mut rest = piece.body;
        while self.pending.len() + rest.len() > MOST_KEPT {
            let Some((head, tail)) = rest.split_at_checked(MOST_KEPT - self.pending.len()) else { break };
            self.pending.extend_from_slice(head);
            rest = tail;
            self.part(piece.tag, false);
        }
        self.pending.extend_from_slice(rest);
        if piece.last {
            self.part(piece.tag, true);
            self.sql = Sql::default();
        }
        Go::On
    }

    /// The next part of a statement, out of what is pending; `last` if it is all that is left of the message.
    fn part(&mut self, tag: u8, last: bool) {
        let bytes = std::mem::take(&mut self.pending);
        let mut body = Fields(&bytes);
        if tag == b'P' && !self.sql.named {
            self.sql.named = body.0.contains(&0);
            let name = body.text();
            self.sql.name.get_or_insert_with(|| bounded(name, MOST_OF_A_NAME));
            if !self.sql.named && !last {
                return;
            }
        }
        if self.sql.ended {
            return; // parameter types
        }
        self.sql.ended = last || body.0.contains(&0);
        let text = body.text();
        let cut = if self.sql.ended { text.len() } else { whole_characters(text) };
        let (text, behind) = text.split_at_checked(cut).unwrap_or((text, &[]));
        self.pending.extend_from_slice(behind);
        let [goes_on, went_on] = GOES_ON;
        let before = if self.sql.begun { went_on } else { "" };
        let after = if self.sql.ended { "" } else { goes_on };
        let text = format!("{before}{}{after}", String::from_utf8_lossy(text));
        self.sql.begun = true;
        self.found.push(Found::Event(Event::Statement { text, prepared: self.sql.name.clone() }));
    }

    fn whole(&mut self, tag: u8, body: &[u8], beyond: usize) -> Go {
        if self.sender == Sender::Client && tag == b'F' {
            self.found.push(Found::Event(called(Fields(body))));
        }
        let event = match self.sender {
            Sender::Client => from_client(tag, Fields(body), beyond),
            Sender::Target | Sender::TargetStarting => self.of_target(tag, Fields(body)),
        };
        self.found.extend(event.map(Found::Event));
        self.terminated = self.sender == Sender::Client && tag == b'X';
        if self.terminated { Go::Stop } else { Go::On }
    }

    fn of_target(&mut self, tag: u8, mut body: Fields<'_>) -> Option<Event> {
        match tag {
            b'C' => Some(self.completed(bounded(body.text(), MOST_OF_A_NAME))),
            b's' => Some(self.completed("(portal suspended)".to_owned())),
            b'I' => Some(self.completed(String::new())),
            b'E' => {
                self.rows = 0;
                Some(reported(body))
            }
            b'N' => Some(reported(body)),
            b'c' => Some(Event::Eof { channel: 0, stream: Stream::CopyOut }),
            b'Z' => {
                let status = body.byte()?;
                let changed = self.transaction.replace(status) != Some(status);
                changed.then(|| Event::Transaction { status: char::from(status) })
            }
            _ => None,
        }
    }

    fn completed(&mut self, tag: String) -> Event {
        Event::Completed { tag, rows: std::mem::take(&mut self.rows) }
    }
}

fn from_client(tag: u8, mut body: Fields<'_>, beyond: usize) -> Option<Event> {
    match tag {
        b'B' => {
            let portal = bounded(body.text(), MOST_OF_A_NAME);
            let prepared = bounded(body.text(), MOST_OF_A_NAME);
            Some(Event::Bound { prepared, portal, parameters: parameters(body, beyond) })
        }
        // Behind the OID its arguments come as Bind's parameters do.
        b'F' => {
            let prepared = format!("FunctionCall {}", body.u32().unwrap_or(0));
            Some(Event::Bound { prepared, portal: String::new(), parameters: parameters(body, beyond) })
        }
        b'E' => {
            let portal = bounded(body.text(), MOST_OF_A_NAME);
            Some(Event::Executed { portal, rows: body.u32().unwrap_or(0) })
        }
        b'c' => Some(Event::Eof { channel: 0, stream: Stream::CopyIn }),
        b'f' => Some(Event::Reported {
            severity: "COPY FAILED".to_owned(),
            code: "57014".to_owned(),
            message: bounded(body.text(), MOST_OF_A_MESSAGE),
        }),
        _ => None,
    }
}

/// The fast path runs a function without any SQL: for the record, in words.
fn called(mut body: Fields<'_>) -> Event {
    let text = format!("-- FunctionCall of the function with OID {}", body.u32().unwrap_or(0));
    Event::Statement { text, prepared: None }
}

/// How much of `text` comes before a UTF-8 character that is cut at its end.
fn whole_characters(text: &[u8]) -> usize {
    for (back, byte) in (1..=3).zip(text.iter().rev()) {
        let length = match byte {
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xff => 4,
            _ => 1,
        };
        return if length > back { text.len() - back } else { text.len() };
    }
    text.len()
}

/// The parameters of Bind or FunctionCall, up to the first that is not here whole, and that one's head. `beyond`
/// bytes of the message lie behind `body`.
fn parameters(mut body: Fields<'_>, beyond: usize) -> Vec<Parameter> {
    let mut parameters = Vec::new();
    let formats: Vec<u16> = (0..body.u16().unwrap_or(0)).map_while(|_| body.u16()).collect();
    for nth in 0..usize::from(body.u16().unwrap_or(0)) {
        // No format: text. One: for all. Else one each.
        let format = if formats.len() == 1 { formats.first() } else { formats.get(nth) };
        let Some(length) = body.u32() else { break };
        if length == u32::MAX {
            parameters.push(Parameter::Null);
            continue;
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let here = length.min(body.0.len());
        let value = body.bytes(here).unwrap_or_default();
        let binary = format == Some(&1);
        let mut text = if binary { data_encoding::HEXLOWER.encode(value) } else { bounded(value, MOST_KEPT) };
        if here < length {
            text.push_str(&not_kept(length - here));
        }
        parameters.push(if binary { Parameter::Binary(text) } else { Parameter::Text(text) });
        if here < length {
            break;
        }
    }
    if beyond > 0 {
        let note =
            format!("… (the last {beyond} bytes of this message are kept as they came, from-client, before this)");
        parameters.push(Parameter::Text(note));
    }
    parameters
}

/// ErrorResponse or NoticeResponse (chapter 55.8). `V` is the severity untranslated.
fn reported(mut body: Fields<'_>) -> Event {
    let (mut severity, mut code, mut message) = (String::new(), String::new(), String::new());
    while let Some(field) = body.byte().filter(|field| *field != 0) {
        let text = body.text();
        match field {
            b'S' if severity.is_empty() => severity = bounded(text, MOST_OF_A_NAME),
            b'V' => severity = bounded(text, MOST_OF_A_NAME),
            b'C' => code = bounded(text, MOST_OF_A_NAME),
            b'M' => message = bounded(text, MOST_OF_A_MESSAGE),
            _ => {}
        }
    }
    Event::Reported { severity, code, message }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
