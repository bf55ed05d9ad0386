//! What a client's messages mean.

use super::{
    super::{
        fields::{Fields, bounded},
        frame::{Go, Piece},
    },
    Found, MOST_KEPT, MOST_OF_A_MESSAGE, MOST_OF_A_NAME, Watch, mask,
    parameters::{formats, parameters, shows, type_names},
    talk::{Asked, Note, Reading, State},
};
use std::sync::Arc;
use tidegate_recorder::{Event, event::Parameter};

/// A target list has no more entries (MaxTupleAttributeNumber).
const MOST_COLUMNS: usize = 1664;

/// Ends and starts the parts of a statement that is cut over several events.
pub(super) const GOES_ON: [&str; 2] = ["… (goes on)", "(goes on) …"];

/// How far a Query or Parse has been read.
#[derive(Debug, Default)]
pub(super) struct Sql {
    /// Of Parse.
    name: Option<Vec<u8>>,
    number: u64,
    /// The name's NUL has come.
    named: bool,
    /// A part of the text is out.
    begun: bool,
    /// Running it may give a name another statement.
    renames: bool,
    /// So many of its words are masked.
    masked: usize,
    /// The text's NUL has come.
    ended: bool,
}

impl Watch {
    /// Query and Parse: an event for each [`MOST_KEPT`] bytes, cut alike however the pieces come.
    pub(super) fn statement(&mut self, piece: Piece<'_>) -> Go {
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
            let Sql { number, masked: named, .. } = std::mem::take(&mut self.sql);
            let mut talk = self.talk.lock();
            if piece.tag == b'Q' {
                talk.defined.opened(number);
            }
            let asked = if piece.tag == b'P' { Asked::Parse(number) } else { Asked::Whole { number, begun: false } };
            let reading = talk.reads().then(|| Arc::new(Reading { named, ..Reading::default() }));
            let note = talk.ask_so(asked, reading);
            drop(talk);
            self.note(note);
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
            self.sql.name.get_or_insert_with(|| name.to_vec());
            if !self.sql.named && !last {
                return;
            }
        }
        if self.sql.ended {
            return; // parameter types
        }
        self.sql.ended = last || body.0.contains(&0);
        if !self.sql.begun {
            self.sql.number = self.talk.lock().number();
        }
        let text = body.text();
        // A word that is cut would not be seen.
        self.sql.renames |= !self.sql.ended || may_rename(text);
        if !self.keeps.masks.is_empty() {
            // Nor what a string is, behind a cut.
            let whole = self.sql.ended && !self.sql.begun;
            self.sql.masked =
                if whole { mask::named(&self.keeps.masks, &String::from_utf8_lossy(text)) } else { usize::MAX };
        }
        if tag == b'P' && self.sql.ended {
            self.define(body, last);
        }
        let cut = if self.sql.ended { text.len() } else { whole_characters(text) };
        let (text, behind) = text.split_at_checked(cut).unwrap_or((text, &[]));
        self.pending.extend_from_slice(behind);
        let [goes_on, went_on] = GOES_ON;
        let before = if self.sql.begun { went_on } else { "" };
        let after = if self.sql.ended { "" } else { goes_on };
        let text = String::from_utf8_lossy(text);
        let masked = self.sql.masked > 0;
        let text = match masked {
            true if self.sql.begun => mask::MASKED.into(),
            true => mask::without_values(&text).into(),
            false => text,
        };
        let text = format!("{before}{text}{after}");
        self.sql.begun = true;
        let prepared = self.sql.name.as_ref().map(|name| bounded(name, MOST_OF_A_NAME));
        self.found.push(Found::Event(Event::Statement { text, prepared, number: Some(self.sql.number), masked }));
    }

    /// Behind a Parse's text come the types of its parameters, if they are here whole.
    fn define(&mut self, mut body: Fields<'_>, whole: bool) {
        let types: Arc<[u32]> = (0..body.u16().filter(|_| whole).unwrap_or(0)).map_while(|_| body.u32()).collect();
        let name = self.sql.name.as_deref().unwrap_or_default();
        self.talk.lock().defined.prepare(name, self.sql.number, types, self.sql.renames, self.sql.masked);
    }

    /// Any other message: beside an event, it is a question that waits for its answer.
    pub(super) fn of_client(&mut self, tag: u8, mut body: Fields<'_>, beyond: usize) {
        let shared = self.talk.clone();
        let mut talk = shared.lock();
        let note = match tag {
            b'B' => self.bound(&mut talk, body, beyond),
            b'E' => self.executed(&mut talk, body),
            b'F' => {
                let number = talk.number();
                talk.defined.opened(number);
                let masked = !talk.keeps.masks.is_empty();
                self.found.extend(called(body, beyond, number, masked).map(Found::Event));
                talk.ask(Asked::Whole { number, begun: false })
            }
            b'D' => {
                let of = body.byte();
                let portal = body.text();
                let name = talk.keeps_names().then(|| talk.defined.name(portal));
                if of == Some(b'S') {
                    talk.ask(Asked::DescribeStatement(name))
                } else {
                    let reading = talk.defined.reading(portal);
                    talk.ask_so(Asked::DescribePortal, reading)
                }
            }
            b'C' => {
                match body.byte() {
                    Some(b'S') => talk.defined.close_statement(body.text()),
                    _ => talk.defined.close_portal(body.text()),
                }
                talk.ask(Asked::Close)
            }
            b'S' => talk.sync(),
            b'c' => {
                self.copy_end();
                talk.ask(Asked::CopyEnd)
            }
            b'f' => {
                let message = if talk.keeps.masks.is_empty() {
                    bounded(body.text(), MOST_OF_A_MESSAGE)
                } else {
                    mask::MASKED.to_owned()
                };
                let (severity, code) = ("COPY FAILED".to_owned(), "57014".to_owned());
                self.found.push(Found::Event(Event::Reported { severity, code, message, of: None }));
                talk.ask(Asked::CopyEnd)
            }
            _ => None,
        };
        self.note(note);
    }

    fn bound(&mut self, talk: &mut State, mut body: Fields<'_>, beyond: usize) -> Note {
        let (portal, statement, number) = (body.text(), body.text(), talk.number());
        let prepared = talk.defined.bind(portal, number, statement);
        // What is not known may have a word in it that must not be seen with its value.
        let known = prepared.number.is_some() && beyond == 0;
        let named = if known { prepared.named } else { usize::MAX };
        let mut parameters = parameters(&mut body, beyond, prepared.types.as_deref());
        for parameter in &mut parameters {
            if talk.hides(named) || !shows(&self.keeps.masks, parameter) {
                *parameter = Parameter::Masked;
            }
        }
        let reading = talk.reads().then(|| {
            let formats = (beyond == 0).then(|| formats(&mut body)).filter(|_| talk.keeps_names());
            Arc::new(Reading { named, formats: formats.map(compact), fields: prepared.fields.clone() })
        });
        if let Some(reading) = &reading {
            talk.defined.read_so(portal, reading.clone());
        }
        self.found.push(Found::Event(Event::Bound {
            prepared: bounded(statement, MOST_OF_A_NAME),
            portal: bounded(portal, MOST_OF_A_NAME),
            parameters,
            number: Some(number),
            statement: prepared.number,
            types: type_names(prepared.types.as_deref()),
        }));
        talk.ask_so(Asked::Bind(number), reading)
    }

    fn executed(&mut self, talk: &mut State, mut body: Fields<'_>) -> Note {
        let (portal, number) = (body.text(), talk.number());
        self.found.push(Found::Event(Event::Executed {
            portal: bounded(portal, MOST_OF_A_NAME),
            rows: body.u32().unwrap_or(0),
            number: Some(number),
            statement: talk.defined.runs(portal),
        }));
        if talk.defined.may_rename(portal) {
            talk.defined.opened(number);
        }
        let unknown = || Arc::new(Reading { named: usize::MAX, ..Reading::default() });
        let reading = talk.reads().then(|| talk.defined.reading(portal).unwrap_or_else(unknown));
        talk.ask_so(Asked::Execute(number), reading)
    }
}

/// Clients ask for one format for all, if they ask for any; more than any result has columns mean nothing.
fn compact(mut formats: Vec<u16>) -> Vec<u16> {
    if formats.len() > MOST_COLUMNS || formats.iter().all(|format| Some(format) == formats.first()) {
        formats.truncate(1);
    }
    formats.shrink_to_fit();
    formats
}

/// Whether running this may give or take names of prepared statements by itself.
fn may_rename(text: &[u8]) -> bool {
    let words = text.split(|byte| !byte.is_ascii_alphabetic());
    let gives_or_takes =
        |word: &[u8]| [&b"prepare"[..], b"deallocate", b"discard"].iter().any(|w| word.eq_ignore_ascii_case(w));
    words.into_iter().any(gives_or_takes)
}

/// The fast path runs a function without any SQL: for the record, in words. Behind its OID its arguments come as Bind's parameters
/// do; of which types is not said.
fn called(mut body: Fields<'_>, beyond: usize, number: u64, masked: bool) -> [Event; 2] {
    let oid = body.u32().unwrap_or(0);
    let text = format!("-- FunctionCall of the function with OID {oid}");
    let mut parameters = parameters(&mut body, beyond, None);
    if masked {
        parameters.fill(Parameter::Masked);
    }
    let (prepared, portal) = (format!("FunctionCall {oid}"), String::new());
    [
        Event::Statement { text, prepared: None, number: Some(number), masked: false },
        Event::Bound { prepared, portal, parameters, number: None, statement: Some(number), types: Vec::new() },
    ]
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
