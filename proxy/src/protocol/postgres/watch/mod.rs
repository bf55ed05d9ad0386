//! What messages mean for the recording: statements, their parameters, portals, COPY, errors, tags, row counts, transactions,
//! notifications.
//!
//! Sans-IO: pieces of messages in, events out. Each direction has a [`Watch`]; what an answer answers they know by the [`Talk`]
//! that they share. What always holds: an event is out before the last byte of its message is released, and a peer cannot act
//! on a message before its last byte. Of what a client has executed every byte is kept, behind however much padding it
//! comes: a statement longer than [`MOST_KEPT`] becomes several events, and of a longer Bind or FunctionCall the rest is kept
//! as it came. Of the target's messages the rest is only counted.
//!
//! Binary parameters are told as text where their type is known: from Parse, or from the target's ParameterDescription once it was asked
//! for. Who sets out to can give a name another statement inside a DO block, unseen: the recording then names the type
//! that it took, from which the bytes follow again.

mod arrays;
mod client;
mod defined;
mod mask;
mod parameters;
mod rows;
mod talk;
mod target;
mod values;

pub(super) use talk::Talk;

use super::{
    fields::Fields,
    frame::{Go, Piece, Sender},
};
use client::Sql;
use rows::{Field, Rows};
use std::{ops::Range, sync::Arc};
use talk::Note;
use target::Transaction;
use tidegate_grants::Keeps;
use tidegate_recorder::{Event, Keep, Stream};

/// Bytes of one message that are held for one event: with its text and the recorder's copy, what a session's memory is
/// measured by.
pub(super) const MOST_KEPT: usize = 256 * 1024;
/// Bytes of a name or a tag.
const MOST_OF_A_NAME: usize = 1024;
/// Bytes of an error's message.
const MOST_OF_A_MESSAGE: usize = 16 * 1024;

/// Makes events of one side's messages.
#[derive(Debug)]
pub(super) struct Watch {
    sender: Sender,
    talk: Talk,
    /// The body of a message that comes in pieces, and how much came behind it.
    pending: Vec<u8>,
    beyond: usize,
    sql: Sql,
    /// What is kept of results, and what never.
    keeps: Keeps,
    /// DataRow messages since the last tag.
    rows: u64,
    /// The result that they are of,
    rows_now: Option<Rows>,
    /// what a Query's RowDescription said of it,
    described: Option<Arc<[Field]>>,
    /// and the one that stopped at the most rows that were asked for, since its portal may be executed on.
    suspended: Option<Rows>,
    transaction: Transaction,
    /// Data of COPY have come, and no end of them.
    copying: bool,
    terminated: bool,
    /// What has been found, in order, since its owner last took it.
    pub(super) found: Vec<Found>,
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
    pub(super) fn new(sender: Sender, talk: Talk) -> Self {
        let keeps = talk.lock().keeps.clone();
        Self {
            sender,
            keeps,
            talk,
            pending: Vec::new(),
            beyond: 0,
            sql: Sql::default(),
            rows: 0,
            rows_now: None,
            described: None,
            suspended: None,
            transaction: Transaction::default(),
            copying: false,
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

    /// How much of COPY's data is kept: which columns they are of is not told.
    pub(super) fn copied(&self) -> Keep {
        if self.keeps.masks.is_empty() { Keep::UpToLimit } else { Keep::Count }
    }

    /// Looks at the next piece.
    pub(super) fn see(&mut self, piece: Piece<'_>) -> Go {
        if piece.tag == b'd' {
            self.copying = true;
            self.found.push(Found::Copied(piece.at..piece.at + piece.body.len()));
            return Go::On;
        }
        if self.sender == Sender::Target && piece.tag == b'D' {
            self.rows += u64::from(piece.last);
            return self.row(piece);
        }
        if piece.first && self.copying {
            self.copy_over(piece.tag);
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
        if self.sender == Sender::Client && !beyond.is_empty() && self.keeps.masks.is_empty() {
            self.found.push(Found::Kept(beyond));
        }
        if !piece.last {
            return Go::On;
        }
        let (body, beyond) = (std::mem::take(&mut self.pending), std::mem::take(&mut self.beyond));
        self.whole(piece.tag, &body, beyond)
    }

    /// COPY has ended without its CopyDone, if another message than these comes.
    fn copy_over(&mut self, tag: u8) {
        let goes_on: &[u8] = if self.sender == Sender::Client { b"cHS" } else { b"cNAS" };
        if !goes_on.contains(&tag) {
            self.copy_end();
        }
    }

    fn copy_end(&mut self) {
        self.copying = false;
        let stream = self.copy_stream();
        self.found.push(Found::Event(Event::Eof { channel: 0, stream }));
    }

    fn note(&mut self, note: Note) {
        self.found.extend(note.map(|text| Found::Event(Event::Said { text: text.to_owned() })));
    }

    fn whole(&mut self, tag: u8, body: &[u8], beyond: usize) -> Go {
        match self.sender {
            Sender::Client => self.of_client(tag, Fields(body), beyond),
            Sender::Target | Sender::TargetStarting => self.of_target(tag, Fields(body)),
        }
        self.terminated = self.sender == Sender::Client && tag == b'X';
        if self.terminated { Go::Stop } else { Go::On }
    }
}

#[cfg(test)]
mod tests;
