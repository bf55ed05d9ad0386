//! One channel of a session: what the client asks for is asked of the target, then bytes flow until either side closes.
//!
//! What always holds: no data goes on in either direction that is not recorded; what moves files goes on only as far as
//! its decoder has understood it ([`files`](super::files)); and one task writes to the client, so words of our own come
//! between those of the target.
//!
//! Until its program runs ([`start`]) a channel does one thing after the other, and then both directions at once.

mod start;

use super::{
    files::{FileTransfer, Step},
    flow::Item,
    hearing::FromTarget,
    issuer::SshIssuer,
    line::{FromClient, Line, sentence},
    target::TargetConnection,
};
use crate::{
    refusal::Refusal,
    session::{Ending, Way, about},
};
use bytes::Bytes;
use russh::{ChannelWriteHalf, Sig, client::Msg};
use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};
use tidegate_recorder::{Event, Keep, RecordError, Recorded, Stream};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

/// Why a whole session ends because of one channel.
#[derive(Debug)]
pub(super) enum Lost {
    /// It cannot be recorded any more.
    Recording(RecordError),
}

impl Lost {
    pub(super) fn ending(&self) -> Ending {
        match self {
            Self::Recording(error) => Ending::Cut(Refusal::from(error)),
        }
    }
}

impl From<RecordError> for Lost {
    fn from(error: RecordError) -> Self {
        Self::Recording(error)
    }
}

/// How long what a client sent before it closed the channel may take to reach the target.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long the target's end of output is held back, in case its exit status is right behind it.
const BEFORE_EOF: Duration = Duration::from_millis(20);
/// While what the target has sent waits to be passed on, it hears from us this often.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);

/// Words of our own for one client that has not taken them yet: past this, no more is taken from it.
const OWN_WORDS: usize = 64;

/// Words of our own, between those of the target.
enum Own {
    /// To a request that did not go on.
    Answer(Bytes),
    /// For the person.
    Refusal(Refusal),
}

/// Why a channel ended.
pub(super) enum End {
    /// The client closed it.
    Client,
    /// The target closed it, after its program had ended.
    Target,
    /// The target closed it and did not say how its program ended.
    Silent,
    /// We did, and this is to be told.
    Told(Refusal),
}

struct Carrier<'a> {
    line: &'a Line,
    target: &'a TargetConnection,
    write: ChannelWriteHalf<Msg>,
    way: &'a Way<'a, SshIssuer>,
    keep: Keep,
    /// What is understood of files that are moved.
    files: FileTransfer<'a>,
    /// What the target sent before it answered, in order and not settled.
    early: VecDeque<Item<FromTarget>>,
    /// Bytes that went on from the client and to it.
    moved: (AtomicU64, AtomicU64),
    /// The client has said that it will send no more.
    client_done: AtomicBool,
}

/// Carries one channel of the client over a channel of the target, to the end of both. The connection is given back if
/// another channel may use it: the target ended this one by itself, after its program did.
pub(super) async fn carry(
    line: &Line,
    target: TargetConnection,
    write: ChannelWriteHalf<Msg>,
    way: &Way<'_, SshIssuer>,
) -> Result<(End, Option<TargetConnection>), Lost> {
    let (keep, early, client_done) = (Keep::UpToLimit, VecDeque::new(), AtomicBool::new(false));
    let files = FileTransfer::new(line.number, way);
    let moved = <(AtomicU64, AtomicU64)>::default();
    let mut carrier = Carrier { line, target: &target, write, way, keep, files, early, moved, client_done };
    let end = carrier.run().await?;
    carrier.files.finish()?;
    let [up, down] = [&carrier.moved.0, &carrier.moved.1].map(|moved| moved.load(Ordering::Relaxed));
    carrier.note(Event::Closed { channel: line.number, up, down })?;
    if matches!(end, End::Target) {
        drop(carrier);
        return Ok((end, Some(target))); // russh has answered its close
    }
    let closed = timeout(LAST_WORDS, carrier.write.close()).await;
    // A forwarding leaves nothing on the target that could still be at work for it. Programs do.
    if line.forward.is_some() && matches!((&end, closed), (End::Client, Ok(Ok(())))) {
        drop(carrier);
        target.down.discard();
        return Ok((end, Some(target)));
    }
    Ok((end, None))
}

impl End {
    /// Closes the client's channel. If we ended it, its person is told why.
    pub(super) async fn close(self, line: &Line) {
        if let Self::Told(refusal) = self {
            // Its reader may be stalled: it is told if it listens, and closed all the same.
            let _ = timeout(LAST_WORDS, line.tell(&refusal)).await;
        }
        let _ = line.out.close().await;
    }
}

impl Carrier<'_> {
    async fn run(&mut self) -> Result<End, Lost> {
        let line = self.line;
        // Nothing is asked for on a forwarding: it runs from the moment that it is open.
        if line.forward.is_none() {
            let prepared = tokio::select! {
                end = self.prepare() => end?,
                () = line.closed.cancelled() => Some(End::Client),
            };
            if let Some(end) = prepared {
                return Ok(end);
            }
        }
        let early = std::mem::take(&mut self.early);
        let (own, own_words) = mpsc::channel(OWN_WORDS);
        tokio::select! {
            end = self.upwards(own) => end,
            end = self.downwards(early, own_words) => end,
            () = line.up.overrun() => Ok(too_much("your client sent more than it may")),
            () = self.target.down.overrun() => Ok(too_much("the target sent more than it may")),
            () = async { line.closed.cancelled().await; sleep(LAST_WORDS).await } => Ok(End::Client),
            () = self.show_life() => Ok(End::Target),
        }
    }

    /// A target whose reader sleeps is not heard, and may end the session for want of an answer (`ClientAliveInterval`).
    /// What we say serves it as well as an answer. Never returns.
    async fn show_life(&self) {
        loop {
            sleep(SIGN_OF_LIFE).await;
            if self.target.down.held() > 0 {
                self.target.sign_of_life().await;
            }
        }
    }

    fn note(&self, event: Event) -> Result<(), RecordError> {
        self.way.recording.note(event, self.way.gate.now())
    }

    async fn record(&self, stream: Stream, data: Bytes) -> Result<Recorded, RecordError> {
        self.record_with(Vec::new(), stream, data).await
    }

    /// Events that say what the bytes mean come first.
    async fn record_with(&self, mut events: Vec<Event>, stream: Stream, data: Bytes) -> Result<Recorded, RecordError> {
        if !data.is_empty() {
            events.push(Event::Data { channel: self.line.number, stream, keep: self.keep, data: data.clone() });
        }
        let size = data.len() as u64;
        let recorded = self.way.record(events, data).await?;
        let moved = if stream == Stream::Stdin { &self.moved.0 } else { &self.moved.1 };
        moved.fetch_add(size, Ordering::Relaxed);
        Ok(recorded)
    }

    /// An entitlement's no to a transfer of files: in the recording and in the ledger.
    async fn forbidden(&self, refusal: &Refusal) -> Result<(), Lost> {
        self.note(Event::Said { text: refusal.sentence.clone() })?;
        let (permit, gate) = (self.way.permit, self.way.gate);
        let event = about("files.refused", permit).detail(serde_json::json!({
            "channel": self.line.number, "why": refusal.sentence, "check": "files", "ref": permit.reference(),
            "access": permit.access(), "source": permit.source(),
        }));
        if let Err(error) = gate.store.append(event, gate.now()).await {
            tracing::error!(session = %permit.session(), %error, "a refusal could not be written");
        }
        Ok(())
    }

    /// Passes on what came from the client, as far as it may go on. `Some`: the channel ends.
    async fn pass_up(&self, mut bytes: Bytes, own: &mpsc::Sender<Own>) -> Result<Option<End>, Lost> {
        loop {
            let Step { on, events, answer, refused, wait, over } = self.files.up(bytes);
            let recorded = self.record_with(self.files.events(events), Stream::Stdin, on).await?.into_bytes();
            let gone = !recorded.is_empty() && self.write.data_bytes(recorded).await.is_err();
            if !answer.is_empty() {
                let _ = own.send(Own::Answer(answer.freeze())).await; // its receiver lives as long as we do
            }
            if let Some(refusal) = refused {
                let _ = own.send(Own::Refusal(refusal)).await;
            }
            if let Some(refusal) = over {
                self.note(Event::Said { text: refusal.sentence.clone() })?;
                return Ok(Some(End::Told(refusal)));
            }
            if gone {
                // What the target still said is on its way down, and its end comes last.
                std::future::pending::<()>().await;
            }
            if !wait {
                return Ok(None);
            }
            self.files.moved_down().await;
            bytes = Bytes::new();
        }
    }

    /// The same for what came from the target.
    async fn pass_down(&self, mut bytes: Bytes) -> Result<Option<End>, Lost> {
        loop {
            let Step { on, events, wait, over, .. } = self.files.down(bytes);
            let recorded = self.record_with(self.files.events(events), Stream::Stdout, on).await?.into_bytes();
            if !recorded.is_empty() {
                let _ = self.line.out.data_bytes(recorded).await;
            }
            if let Some(refusal) = over {
                self.note(Event::Said { text: refusal.sentence.clone() })?;
                return Ok(Some(End::Told(refusal)));
            }
            if !wait {
                return Ok(None);
            }
            self.files.moved_up().await;
            bytes = Bytes::new();
        }
    }

    /// Says something of our own to the client. The person hears only the first refusal: the next ones are like it.
    async fn say(&self, own: Own, told: &mut bool) -> Result<(), Lost> {
        match own {
            Own::Answer(bytes) => {
                let recorded = self.record(Stream::Stdout, bytes).await?.into_bytes();
                let _ = self.line.out.data_bytes(recorded).await;
            }
            Own::Refusal(refusal) if !std::mem::replace(told, true) => {
                self.forbidden(&refusal).await?;
                self.line.stderr(sentence(&refusal.marked(self.way.permit.reference()), false)).await;
            }
            Own::Refusal(_) => {}
        }
        Ok(())
    }

    /// From the client to the target.
    async fn upwards(&self, own: mpsc::Sender<Own>) -> Result<End, Lost> {
        let (channel, up) = (self.line.number, &self.line.up);
        loop {
            let sent = match up.pop().await {
                Item::Data { bytes, .. } => {
                    let size = bytes.len();
                    let end = self.pass_up(bytes, &own).await?;
                    up.settle(size);
                    match end {
                        Some(end) => return Ok(end),
                        None => Ok(()),
                    }
                }
                Item::Event(FromClient::Eof) => {
                    self.note(Event::Eof { channel, stream: Stream::Stdin })?;
                    self.client_done.store(true, Ordering::Relaxed);
                    self.write.eof().await
                }
                Item::Event(FromClient::Resize { columns, rows, pixels: (width, height) }) => {
                    self.note(Event::Resized { channel, columns, rows })?;
                    self.write.window_change(columns, rows, width, height).await
                }
                Item::Event(FromClient::Signal(signal)) => {
                    self.note(Event::Signal { channel, name: signal_name(&signal).to_owned() })?;
                    self.write.signal(signal).await
                }
                Item::Event(FromClient::Close) => return Ok(End::Client),
                Item::Event(_) => Ok(()), // too late; the door has said so
                Item::Overrun => return Ok(too_much("your client sent more than it may")),
            };
            if sent.is_err() {
                // The target is gone. What it still said is on its way down, and its end comes last.
                std::future::pending::<()>().await;
            }
        }
    }

    /// From the target to the client, `early` first.
    ///
    /// The target's end of output is held back for a moment, and for good where the client has ended its own: a client
    /// that has both closes the channel, russh answers that by itself, and an exit status that comes after is lost.
    async fn downwards(
        &self,
        mut early: VecDeque<Item<FromTarget>>,
        mut own: mpsc::Receiver<Own>,
    ) -> Result<End, Lost> {
        let (channel, down, out) = (self.line.number, &self.target.down, &self.line.out);
        // A forwarding has no program whose end would have to come first.
        let (mut exited, mut ended, mut told) = (self.line.forward.is_some(), false, false);
        loop {
            let item = match early.pop_front() {
                Some(item) => item,
                None if ended && (exited || !self.client_done.load(Ordering::Relaxed)) => {
                    let grace = if exited { Duration::ZERO } else { BEFORE_EOF };
                    let Ok(item) = timeout(grace, down.pop()).await else {
                        ended = false;
                        let _ = out.eof().await;
                        continue;
                    };
                    item
                }
                None => tokio::select! {
                    item = down.pop() => item,
                    Some(own) = own.recv() => {
                        self.say(own, &mut told).await?;
                        continue;
                    }
                },
            };
            match item {
                Item::Data { extended: None, bytes } => {
                    let size = bytes.len();
                    let end = self.pass_down(bytes).await?;
                    down.settle(size);
                    if let Some(end) = end {
                        return Ok(end);
                    }
                }
                Item::Data { extended: Some(stream), bytes } => {
                    let size = bytes.len();
                    let recorded = self.record(Stream::Stderr, bytes).await?.into_bytes();
                    let _ = out.extended_data_bytes(stream, recorded).await;
                    down.settle(size);
                }
                Item::Event(FromTarget::Eof) => {
                    self.note(Event::Eof { channel, stream: Stream::Stdout })?;
                    ended = true;
                }
                Item::Event(FromTarget::ExitStatus(status)) => {
                    exited = true;
                    self.note(Event::Exited { channel, status: Some(status), signal: None })?;
                    let _ = out.exit_status(status).await;
                }
                Item::Event(FromTarget::ExitSignal { signal, core, message }) => {
                    exited = true;
                    let name = super::line::plain(signal_name(&signal));
                    self.note(Event::Exited { channel, status: None, signal: Some(name) })?;
                    self.line.exit_signal(signal, core, message).await;
                }
                Item::Event(FromTarget::Close) => {
                    if ended {
                        let _ = out.eof().await;
                    }
                    // Some that are no Unix hosts never say how a program ended: their clients know.
                    return Ok(if exited { End::Target } else { End::Silent });
                }
                Item::Event(FromTarget::Gone) => {
                    return Ok(End::Told(Refusal::new("the target closed the connection")));
                }
                Item::Event(FromTarget::Answer(_)) => {}
                Item::Overrun => return Ok(too_much("the target sent more than it may")),
            }
        }
    }
}

fn too_much(sentence: &str) -> End {
    End::Told(Refusal::new(format!("this channel was closed: {sentence}")))
}

/// A command or a path as it was sent, without loss: text as it is, other bytes escaped (a backslash too).
pub(super) fn text_of(command: &[u8]) -> String {
    match std::str::from_utf8(command) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("(not UTF-8) {}", command.escape_ascii()),
    }
}

/// As RFC 4254 section 6.10 has it.
fn signal_name(signal: &Sig) -> &str {
    match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_recorded_without_loss() {
        assert_eq!(text_of("echo 'grüße' \\".as_bytes()), "echo 'grüße' \\");
        assert_eq!(text_of(b"cat \xff\\xfe"), r"(not UTF-8) cat \xff\\xfe");
        assert_ne!(text_of(b"\xff"), text_of(b"\xfe"));
    }
}
