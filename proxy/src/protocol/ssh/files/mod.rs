//! File transfers, told and judged: SFTP, the old scp, and rsync by its command line.
//!
//! A channel that moves files gets a decoder, through which its bytes go both ways before they go on. The decoders know no
//! sockets and no clock: bytes in, and out come what may go on, what the recording says, and answers of our own
//! ([`Step`]). [`FileTransfer`] is the seam for [`channel`](super::channel).
//!
//! What always holds: where an entitlement limits `files`, what it forbids never reaches the target (its own server would
//! do it); a stream that is not understood ends its channel, since whoever could make us and the target's server
//! disagree could hide one file behind another; and memory is bounded, however large the files are.
//!
//! What it does not do: a login with a shell can print a file, and write one. `files` rules the three protocols; `check` and
//! the documentation say so.

mod command;
mod request;
mod scp;
mod sftp;
mod transfer;
mod wire;

use super::{channel::text_of as path_text, issuer::SshIssuer, line::Start};
use crate::{refusal::Refusal, session::Way};
use bytes::{Bytes, BytesMut};
use command::{Does, Understood, understand, unjudged};
use request::Need;
use scp::{Direction, Scp};
use sftp::Sftp;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tidegate_grants::{Files, Terms};
use tidegate_recorder::{Event, FileEvent, RecordError};
use tokio::sync::Notify;

/// What became of a piece of a stream.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// What may go on.
    pub(super) on: Bytes,
    /// What the recording says about it, before it goes on.
    pub(super) events: Vec<FileEvent>,
    /// For the client: answers to requests that did not go on. To be written between two pieces of the target's.
    pub(super) answer: BytesMut,
    /// The first refusal of this step that a person should hear of.
    pub(super) refused: Option<Refusal>,
    /// The rest is kept until the other side has moved: then step again with nothing.
    pub(super) wait: bool,
    /// This was the last: the channel is closed, and says this.
    pub(super) over: Option<Refusal>,
}

/// Which way files may go.
#[derive(Debug, Clone, Copy)]
struct Rule(Files);

impl Rule {
    fn forbids(self, need: Need) -> Option<Refusal> {
        let sentence = match need {
            Need { change: true, .. } if !self.0.upload() => "your grant does not let you upload or change files here",
            Need { content: true, .. } if !self.0.download() => "your grant does not let you download files from here",
            _ => return None,
        };
        Some(Refusal::new(sentence).next("`ssh gate targets` lists what else you may ask for"))
    }

    fn forbids_way(self, direction: Direction) -> Option<Refusal> {
        let content = direction == Direction::Download;
        self.forbids(Need { content, change: !content })
    }

    /// Where files may go one way, what is about to go in that direction must not go in the other one too.
    fn forbids_rsync(self, does: Does) -> Option<Refusal> {
        match does {
            _ if self.0 == Files::Both => None,
            Does::OneWay => None,
            Does::Sums => Some(
                Refusal::new(
                    "your grant does not let you download files from here, and without -W rsync tells checksums of them",
                )
                .next("add -W"),
            ),
            Does::More => Some(
                Refusal::new(
                    "your grant lets files be moved one way only, and this rsync has options that may do more",
                )
                .next("leave them out (--delete and -c too, in an upload), or use sftp or scp"),
            ),
        }
    }

    /// What is a transfer by its words, but could be read in several ways.
    fn forbids_unjudged(self, line: &[u8]) -> Option<Refusal> {
        let program = if self.0 == Files::Both { None } else { unjudged(line) }?;
        let next = match program {
            "scp" => "write the path without $, !, # and the like, or use sftp",
            "rsync" => {
                "write the path without $, !, # and the like, leave out --old-args and --rsync-path, or use sftp"
            }
            _ => "use sftp without -s",
        };
        let sentence =
            format!("your grant limits which way files may go, and what this {program} would do is not plain");
        Some(Refusal::new(sentence).next(next))
    }
}

/// What a channel carries.
#[derive(Debug)]
enum Decoder {
    /// Bytes that are nobody's business here.
    Plain,
    Sftp(Box<Sftp>),
    Scp(Box<Scp>),
}

impl Decoder {
    /// For what is about to be started, or why it may not be.
    fn for_start(start: &Start, terminal: bool, files: Files) -> Result<Self, Refusal> {
        let rule = Rule(files);
        let understood = match start {
            Start::Shell => Understood::Other,
            Start::Subsystem(name) if name == "sftp" => Understood::Sftp,
            Start::Subsystem(_) => Understood::Other,
            Start::Exec(line) => understand(line),
        };
        if terminal && matches!(understood, Understood::Sftp | Understood::Scp { .. }) {
            // A terminal edits what goes through it: the target's server would not read what was judged.
            return Err(Refusal::new("files cannot be moved through a terminal").next("leave out -t"));
        }
        match understood {
            Understood::Sftp => Ok(Self::Sftp(Box::new(Sftp::new(rule)))),
            Understood::Scp { direction, operand } => match rule.forbids_way(direction) {
                Some(refusal) => Err(refusal),
                None => Ok(Self::Scp(Box::new(Scp::new(direction, operand)))),
            },
            Understood::Rsync { direction, does } => {
                match rule.forbids_way(direction).or_else(|| rule.forbids_rsync(does)) {
                    Some(refusal) => Err(refusal),
                    None => Ok(Self::Plain),
                }
            }
            Understood::Other => match start {
                Start::Exec(line) => rule.forbids_unjudged(line).map_or(Ok(Self::Plain), Err),
                _ => Ok(Self::Plain),
            },
        }
    }

    fn protocol(&self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Sftp(_) => Some("sftp"),
            Self::Scp(_) => Some("scp"),
        }
    }

    fn up(&mut self, piece: Bytes) -> Step {
        match self {
            Self::Plain => Step { on: piece, ..Step::default() },
            Self::Sftp(sftp) => sftp.up(piece),
            Self::Scp(scp) => scp.up(piece),
        }
    }

    fn down(&mut self, piece: Bytes) -> Step {
        match self {
            Self::Plain => Step { on: piece, ..Step::default() },
            Self::Sftp(sftp) => sftp.down(piece),
            Self::Scp(scp) => scp.down(piece),
        }
    }

    fn end(&mut self) -> Vec<FileEvent> {
        match self {
            Self::Plain => Vec::new(),
            Self::Sftp(sftp) => sftp.end(),
            Self::Scp(scp) => scp.end(),
        }
    }
}

/// The decoder of one channel, shared by its two directions. However the channel ends, what it had not told by then is
/// in the recording when this is dropped.
pub(super) struct FileTransfer<'a> {
    channel: u32,
    way: &'a Way<'a, SshIssuer>,
    decoder: Mutex<Decoder>,
    moved_up: Notify,
    moved_down: Notify,
}

impl<'a> FileTransfer<'a> {
    /// Before it is known what is to be started.
    pub(super) fn new(channel: u32, way: &'a Way<'a, SshIssuer>) -> Self {
        let decoder = Mutex::new(Decoder::Plain);
        Self { channel, way, decoder, moved_up: Notify::new(), moved_down: Notify::new() }
    }

    /// Takes up what is about to be started, or says why it may not be. Gives what the recording says about it.
    pub(super) fn start(&self, start: &Start, terminal: bool) -> Result<Option<Event>, Refusal> {
        let files = match self.way.permit.entitlement().terms {
            Terms::Ssh { files, .. } => files,
            Terms::Postgres { .. } => Files::None, // no such session comes here
        };
        let decoder = Decoder::for_start(start, terminal, files)?;
        let (channel, protocol) = (self.channel, decoder.protocol());
        *self.lock() = decoder;
        Ok(protocol.map(|protocol| Event::Decoded { channel, protocol: protocol.to_owned() }))
    }

    fn lock(&self) -> MutexGuard<'_, Decoder> {
        self.decoder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A piece from the client.
    pub(super) fn up(&self, piece: Bytes) -> Step {
        let step = self.lock().up(piece);
        self.moved_up.notify_one();
        step
    }

    /// A piece from the target.
    pub(super) fn down(&self, piece: Bytes) -> Step {
        let step = self.lock().down(piece);
        self.moved_down.notify_one();
        step
    }

    /// Until the client has moved, since the last time that this was waited for.
    pub(super) async fn moved_up(&self) {
        self.moved_up.notified().await;
    }

    /// Until the target has.
    pub(super) async fn moved_down(&self) {
        self.moved_down.notified().await;
    }

    /// As the recording has them.
    pub(super) fn events(&self, files: Vec<FileEvent>) -> Vec<Event> {
        files.into_iter().map(|file| Event::File(FileEvent { channel: self.channel, ..file })).collect()
    }
}

impl FileTransfer<'_> {
    /// The channel is over: tells what it had not told yet.
    pub(super) fn finish(&self) -> Result<(), RecordError> {
        let events = self.lock().end();
        self.way.recording.record(self.events(events), Bytes::new(), self.way.gate.now()).map(drop)
    }
}

impl Drop for FileTransfer<'_> {
    fn drop(&mut self) {
        // Where the recording has failed, that is why the session ends.
        let _ = self.finish();
    }
}

#[cfg(test)]
mod tests;
