//! What is inside a sealed frame: a run of records. Their bytes are described in `FORMAT.md`.
//!
//! Digests are sealed, because the digest of a short secret gives it away; those of stdin are under the keystroke key like
//! its bytes.

use crate::{
    Event, Keep, Stream,
    frame::{Hash, split},
};
use bytes::Bytes;

pub(crate) const EVENT: u8 = 1;
pub(crate) const EVENT_PART: u8 = 2;
pub(crate) const CONTENT: u8 = 3;
pub(crate) const COUNTED: u8 = 4;
pub(crate) const TOTAL: u8 = 5;
/// Bytes of a record before its body.
pub(crate) const PREFIX: usize = 5;
/// Bytes of a content record's body before the content.
pub(crate) const CONTENT_PREFIX: usize = 6;
/// The most that an event's JSON can be.
pub(crate) const MAX_EVENT: usize = 64 * 1024 * 1024;

/// One record, read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Record {
    Event(Event),
    Counted { channel: u32, stream: Stream, bytes: u64, total: u64, digest: Hash },
    Total { channel: u32, stream: Stream, total: u64, kept: u64, digest: Hash },
}

pub(crate) fn stream_code(stream: Stream) -> u8 {
    match stream {
        Stream::Stdin => 0,
        Stream::Stdout => 1,
        Stream::Stderr => 2,
        Stream::CopyIn => 3,
        Stream::CopyOut => 4,
        Stream::FromClient => 5,
        Stream::FromTarget => 6,
    }
}

fn stream_from(code: u8) -> Option<Stream> {
    Some(match code {
        0 => Stream::Stdin,
        1 => Stream::Stdout,
        2 => Stream::Stderr,
        3 => Stream::CopyIn,
        4 => Stream::CopyOut,
        5 => Stream::FromClient,
        6 => Stream::FromTarget,
        _ => return None,
    })
}

pub(crate) fn keep_code(keep: Keep) -> u8 {
    match keep {
        Keep::Whole => 0,
        Keep::UpToLimit => 1,
        Keep::Count => 2,
    }
}

fn keep_from(code: u8) -> Option<Keep> {
    Some(match code {
        0 => Keep::Whole,
        1 => Keep::UpToLimit,
        2 => Keep::Count,
        _ => return None,
    })
}

/// Puts the records of consecutive frames together again.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Of an event that is not whole yet.
    parts: Vec<u8>,
}

impl Reader {
    /// The records of one opened frame, or what is wrong with it.
    pub(crate) fn read(&mut self, payload: Vec<u8>) -> Result<Vec<Record>, &'static str> {
        let payload = Bytes::from(payload);
        let (mut records, mut at) = (Vec::new(), 0);
        while let Some((prefix, rest)) = payload.get(at..).and_then(split::<PREFIX>) {
            let [tag, length @ ..] = prefix;
            let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| "a record is too long")?;
            let body = rest.get(..length).ok_or("a record is longer than its frame")?;
            let start = at + PREFIX;
            if let Some(record) = self.record(tag, body, payload.slice(start..start + length))? {
                records.push(record);
            }
            at = start + length;
        }
        if at == payload.len() { Ok(records) } else { Err("bytes behind the last record") }
    }

    fn record(&mut self, tag: u8, body: &[u8], shared: Bytes) -> Result<Option<Record>, &'static str> {
        const SHORT: &str = "a record is too short";
        if self.parts.len() + body.len() > MAX_EVENT {
            return Err("an event is longer than any");
        }
        Ok(match tag {
            EVENT if self.parts.is_empty() => Some(event(body)?),
            EVENT => {
                self.parts.extend_from_slice(body);
                Some(event(&std::mem::take(&mut self.parts))?)
            }
            EVENT_PART => {
                self.parts.extend_from_slice(body);
                None
            }
            CONTENT => {
                let (channel, stream, rest) = place(body).ok_or(SHORT)?;
                let (keep, _) = rest.split_first().ok_or(SHORT)?;
                let keep = keep_from(*keep).ok_or("an unknown way to keep")?;
                let data = shared.slice(CONTENT_PREFIX..);
                Some(Record::Event(Event::Data { channel, stream, keep, data }))
            }
            COUNTED => {
                let (channel, stream, rest) = place(body).ok_or(SHORT)?;
                let (_, rest) = rest.split_first().ok_or(SHORT)?;
                let (bytes, total, digest) = figures(rest).ok_or(SHORT)?;
                Some(Record::Counted { channel, stream, bytes, total, digest })
            }
            TOTAL => {
                let (channel, stream, rest) = place(body).ok_or(SHORT)?;
                let (total, kept, digest) = figures(rest).ok_or(SHORT)?;
                Some(Record::Total { channel, stream, total, kept, digest })
            }
            _ => return Err("an unknown record"),
        })
    }
}

fn event(json: &[u8]) -> Result<Record, &'static str> {
    serde_json::from_slice(json).map(Record::Event).map_err(|_| "an event that cannot be read")
}

fn place(body: &[u8]) -> Option<(u32, Stream, &[u8])> {
    let (channel, rest) = split::<4>(body)?;
    let (stream, rest) = rest.split_first()?;
    Some((u32::from_be_bytes(channel), stream_from(*stream)?, rest))
}

fn figures(body: &[u8]) -> Option<(u64, u64, Hash)> {
    let (first, rest) = split::<8>(body)?;
    let (second, rest) = split::<8>(rest)?;
    let (digest, rest) = split::<32>(rest)?;
    rest.is_empty().then_some((u64::from_be_bytes(first), u64::from_be_bytes(second), digest))
}
