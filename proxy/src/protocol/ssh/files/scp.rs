//! One run of the old scp protocol (`scp -t` or `-f` on the target), both ways.
//!
//! It has no specification: one side sends records (`C` a file with its size and then its bytes, `D` and `E` into and out
//! of a folder, `T` times, `\1` and `\2` errors), each on a line; the other one answers each with `\0`, or `\1` or `\2` and
//! a line. OpenSSH's `scp.c` (`source`, `sink`, `response`) is the reference.
//!
//! What always holds: the two take turns. Whether the bytes behind a `C` are content or further records depends on the
//! receiver's answer, which only the receiver knows; so what a sender sends before the answer has come waits here. Whatever
//! goes on was understood, and moves content in the one direction that the command has.

use super::{Step, path_text, transfer::hex};
use crate::refusal::Refusal;
use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tidegate_recorder::FileEvent;

/// The longest record or error. (OpenSSH takes 2 KiB and 16 KiB.)
const LONGEST_LINE: usize = 16 << 10;
/// The deepest folder.
const DEEPEST: usize = 256;

/// Which way content goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// `-f`: from the target.
    Download,
    /// `-t`: to the target.
    Upload,
}

impl Direction {
    pub(super) fn op(self) -> &'static str {
        match self {
            Self::Download => "download",
            Self::Upload => "upload",
        }
    }
}

/// What arrived is not scp as we understand it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Malformed {
    #[error("a line of scp is longer than any")]
    Line,
    #[error("a record of scp is not whole, or of an unknown kind")]
    Record,
    #[error("a name of scp is empty, has a slash in it, or leads upwards")]
    Name,
    #[error("folders of scp are nested too deep")]
    Depth,
    #[error("an answer of scp is neither yes nor an error")]
    Answer,
    #[error("the other side had ended it with an error")]
    Over,
}

/// Whose turn it is.
#[derive(Debug)]
enum Turn {
    /// The receiver's: it begins with a yes.
    Begin,
    /// The sender's: the next record.
    Record,
    /// The receiver's: to a record.
    Answer(Record),
    /// The sender's: content.
    Content(Content),
    /// The sender's: whether it could read all of it.
    Verdict(Content),
    /// The receiver's: whether it could write all of it.
    Receipt(Content, Option<String>),
    /// The sender's [`Turn::Verdict`], for which the receiver has not waited: PuTTY's pscp gives its receipt first.
    Overtaken(Content, Option<String>),
    /// One of them has given up.
    Over,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Record {
    Times,
    File { name: String, size: u64, mode: String },
    Folder { name: String, mode: String },
    Leave,
}

#[derive(Debug)]
struct Content {
    path: String,
    size: u64,
    left: u64,
    digest: Sha256,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Scp {
    direction: Direction,
    /// What the command names, for the recording.
    operand: String,
    turn: Turn,
    /// The sender's bytes that have not gone on.
    sent: BytesMut,
    /// The same of the receiver: the beginning of an error.
    answered: BytesMut,
    folders: Vec<String>,
}

impl Scp {
    pub(super) fn new(direction: Direction, operand: String) -> Self {
        let (sent, answered) = (BytesMut::new(), BytesMut::new());
        Self { direction, operand, turn: Turn::Begin, sent, answered, folders: Vec::new() }
    }

    /// From the client.
    pub(super) fn up(&mut self, piece: Bytes) -> Step {
        match self.direction {
            Direction::Upload => self.sender(piece, "your client"),
            Direction::Download => self.receiver(piece, "your client"),
        }
    }

    /// From the target.
    pub(super) fn down(&mut self, piece: Bytes) -> Step {
        match self.direction {
            Direction::Download => self.sender(piece, "the target"),
            Direction::Upload => self.receiver(piece, "the target"),
        }
    }

    /// The channel is over: what is left to tell.
    pub(super) fn end(&mut self) -> Vec<FileEvent> {
        let unanswered = Some("unanswered: the channel ended before the file was complete".to_owned());
        match std::mem::replace(&mut self.turn, Turn::Over) {
            Turn::Content(content)
            | Turn::Verdict(content)
            | Turn::Receipt(content, _)
            | Turn::Overtaken(content, _) => {
                vec![self.sum(content, unanswered)]
            }
            _ => Vec::new(),
        }
    }

    fn sender(&mut self, piece: Bytes, who: &str) -> Step {
        add(&mut self.sent, piece);
        let (mut step, mut on) = (Step::default(), BytesMut::new());
        while !self.sent.is_empty() {
            match self.send(&mut step) {
                Ok(Some(bytes)) => on.unsplit(bytes),
                Ok(None) => break,
                Err(malformed) => {
                    step.over = Some(over(who, malformed));
                    break;
                }
            }
        }
        Step { on: on.freeze(), ..step }
    }

    /// The next of the sender's bytes that may go on; `None`: not yet.
    fn send(&mut self, step: &mut Step) -> Result<Option<BytesMut>, Malformed> {
        match &mut self.turn {
            Turn::Begin | Turn::Answer(_) | Turn::Receipt(..) => {
                step.wait = true;
                Ok(None)
            }
            Turn::Record => {
                let Some(line) = line(&mut self.sent)? else { return Ok(None) };
                self.record(&line, step)?;
                Ok(Some(line))
            }
            Turn::Content(content) => {
                let count = usize::try_from(content.left).unwrap_or(usize::MAX).min(self.sent.len());
                let bytes = self.sent.split_to(count);
                content.digest.update(&bytes);
                content.left = content.left.saturating_sub(count as u64);
                if content.left == 0 {
                    self.advance(|turn| if let Turn::Content(content) = turn { Turn::Verdict(content) } else { turn });
                }
                Ok(Some(bytes))
            }
            Turn::Verdict(_) | Turn::Overtaken(..) => {
                let Some((said, unread)) = answer(&mut self.sent)? else { return Ok(None) };
                self.turn = match std::mem::replace(&mut self.turn, Turn::Over) {
                    Turn::Verdict(content) => Turn::Receipt(content, unread),
                    Turn::Overtaken(content, unwritten) => {
                        step.events.push(self.sum(content, unread.or(unwritten)));
                        Turn::Record
                    }
                    turn => turn,
                };
                Ok(Some(said))
            }
            Turn::Over => Err(Malformed::Over),
        }
    }

    fn advance(&mut self, to: impl FnOnce(Turn) -> Turn) {
        self.turn = to(std::mem::replace(&mut self.turn, Turn::Over));
    }

    fn record(&mut self, line: &[u8], step: &mut Step) -> Result<(), Malformed> {
        let event = |op: &str, path: String, detail: String| {
            let to = (self.direction == Direction::Upload).then(|| self.operand.clone());
            FileEvent { op: op.to_owned(), path, to, detail: Some(detail), ..FileEvent::default() }
        };
        if let Some((1 | 2, text)) = line.split_first() {
            let fault = Some(format!("failed: {}", path_text(text.strip_suffix(b"\n").unwrap_or(text))));
            let (op, path) = (self.direction.op().to_owned(), self.operand.clone());
            step.events.push(FileEvent { op, path, fault, ..FileEvent::default() });
            if line.first() == Some(&2) {
                self.turn = Turn::Over;
            }
            return Ok(()); // not answered
        }
        let record = parse(line).ok_or(Malformed::Record)?;
        match &record {
            Record::File { name, size, mode } => {
                let how = if self.direction == Direction::Upload { "write" } else { "read" };
                step.events.push(event("open", self.path(name)?, format!("{how}, size {size}, mode {mode}")));
            }
            Record::Folder { name, mode } => {
                if self.folders.len() >= DEEPEST {
                    return Err(Malformed::Depth);
                }
                let op = if self.direction == Direction::Upload { "make-folder" } else { "list" };
                step.events.push(event(op, self.path(name)?, format!("mode {mode}")));
            }
            Record::Leave if self.folders.is_empty() => return Err(Malformed::Depth),
            Record::Leave | Record::Times => {}
        }
        self.turn = Turn::Answer(record);
        Ok(())
    }

    /// Where a name is, below the operand.
    fn path(&self, name: &str) -> Result<String, Malformed> {
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            return Err(Malformed::Name);
        }
        Ok(self.folders.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join("/"))
    }

    fn receiver(&mut self, piece: Bytes, who: &str) -> Step {
        add(&mut self.answered, piece);
        let (mut step, mut on) = (Step::default(), BytesMut::new());
        while !self.answered.is_empty() {
            match answer(&mut self.answered) {
                Ok(Some((said, fault))) => {
                    self.answered(fault, said.first() == Some(&2), &mut step);
                    on.unsplit(said);
                }
                Ok(None) => break,
                Err(malformed) => {
                    step.over = Some(over(who, malformed));
                    break;
                }
            }
        }
        Step { on: on.freeze(), ..step }
    }

    fn answered(&mut self, fault: Option<String>, fatal: bool, step: &mut Step) {
        let turn = std::mem::replace(&mut self.turn, Turn::Over);
        self.turn = match (turn, &fault) {
            (Turn::Begin, None) => Turn::Record,
            (Turn::Answer(Record::File { name, size, .. }), None) => {
                let path = self.path(&name).unwrap_or(name);
                let content = Content { path, size, left: size, digest: Sha256::new() };
                if size == 0 { Turn::Verdict(content) } else { Turn::Content(content) }
            }
            (Turn::Answer(Record::Folder { name, .. }), None) => {
                self.folders.push(name);
                Turn::Record
            }
            (Turn::Answer(record), fault) => {
                match record {
                    Record::Leave => self.folders.truncate(self.folders.len().saturating_sub(1)),
                    Record::File { name, .. } | Record::Folder { name, .. } => {
                        let path = self.path(&name).unwrap_or(name);
                        let (op, fault) = (self.direction.op().to_owned(), fault.clone());
                        step.events.push(FileEvent { op, path, fault, ..FileEvent::default() });
                    }
                    Record::Times => {}
                }
                Turn::Record
            }
            (Turn::Receipt(content, unread), unwritten) => {
                let fault = unread.or_else(|| unwritten.clone());
                step.events.push(self.sum(content, fault));
                Turn::Record
            }
            (Turn::Verdict(content), unwritten) => Turn::Overtaken(content, unwritten.clone()),
            // Not asked for. From here on the two do not agree on whose turn it is, so nothing more is sent.
            (Turn::Content(content) | Turn::Overtaken(content, _), fault) => {
                step.events.push(self.sum(content, fault.clone().or_else(|| Some("failed: cut off".to_owned()))));
                Turn::Over
            }
            (Turn::Begin | Turn::Record | Turn::Over, fault) => {
                let (op, path) = (self.direction.op().to_owned(), self.operand.clone());
                let fault = fault.clone().or_else(|| Some("failed: an answer that nobody waited for".to_owned()));
                step.events.push(FileEvent { op, path, fault, ..FileEvent::default() });
                Turn::Over
            }
        };
        if fatal {
            self.turn = Turn::Over;
        }
    }

    fn sum(&self, content: Content, fault: Option<String>) -> FileEvent {
        let Content { path, size, left, digest } = content;
        let sha256 = (left == 0 && fault.is_none()).then(|| hex(&digest.finalize()));
        let to = (self.direction == Direction::Upload).then(|| self.operand.clone());
        let (op, bytes) = (self.direction.op().to_owned(), Some(size.saturating_sub(left)));
        FileEvent { op, path, to, bytes, size: Some(size), sha256, fault, ..FileEvent::default() }
    }
}

fn add(to: &mut BytesMut, piece: Bytes) {
    if to.is_empty() {
        *to = piece.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
    } else {
        to.extend_from_slice(&piece);
    }
}

/// A whole line, its end included.
fn line(from: &mut BytesMut) -> Result<Option<BytesMut>, Malformed> {
    match from.iter().take(LONGEST_LINE).position(|byte| *byte == b'\n') {
        Some(end) => Ok(Some(from.split_to(end + 1))),
        None if from.len() >= LONGEST_LINE => Err(Malformed::Line),
        None => Ok(None),
    }
}

/// A whole answer as it was sent, and what is wrong if it is an error.
fn answer(from: &mut BytesMut) -> Result<Option<(BytesMut, Option<String>)>, Malformed> {
    match from.first() {
        None => Ok(None),
        Some(0) => Ok(Some((from.split_to(1), None))),
        Some(1 | 2) => Ok(line(from)?.map(|line| {
            let text = line.get(1..line.len() - 1).unwrap_or_default();
            let fault = format!("failed: {}", path_text(text));
            (line, Some(fault))
        })),
        Some(_) => Err(Malformed::Answer),
    }
}

/// A record that is no error.
fn parse(line: &[u8]) -> Option<Record> {
    let (kind, rest) = line.strip_suffix(b"\n")?.split_first()?;
    if *kind == b'E' {
        return rest.is_empty().then_some(Record::Leave);
    }
    let digits = |field: &[u8]| !field.is_empty() && field.iter().all(u8::is_ascii_digit);
    if *kind == b'T' {
        let fields: Vec<&[u8]> = rest.split(|byte| *byte == b' ').collect();
        return (fields.len() == 4 && fields.into_iter().all(digits)).then_some(Record::Times);
    }
    let mut fields = rest.splitn(3, |byte| *byte == b' ');
    let (mode, size, name) = (fields.next()?, fields.next()?, fields.next()?);
    if mode.len() != 4 || !mode.iter().all(|byte| (b'0'..=b'7').contains(byte)) || !digits(size) || name.contains(&0) {
        return None;
    }
    let mode = std::str::from_utf8(mode).ok()?.trim_start_matches('0').to_owned();
    let size: u64 = std::str::from_utf8(size).ok()?.parse().ok()?;
    let name = path_text(name);
    match kind {
        b'C' => Some(Record::File { name, size, mode }),
        b'D' => Some(Record::Folder { name, mode }),
        _ => None,
    }
}

fn over(who: &str, malformed: Malformed) -> Refusal {
    Refusal::new(format!("this channel was closed: {who} sent what is not understood as scp ({malformed})"))
}
