//! One direction of the relay: read, frame, record, forward.
//!
//! What always holds: the one call that writes to a peer takes [`Recorded`], so nothing goes on that was not accounted
//! for; memory is one buffer, since nothing is read while what was read before has not gone on; and what goes on ends
//! between two messages (but for those larger than [`HOLD`](super::frame::HOLD)), also when the relay is dropped in the
//! middle of a write: the unsent rest is kept outside, in [`Unsent`].

use super::{
    answer::{self, Fatal},
    frame::{FrameError, Framer, Sender},
    watch::{Found, Talk, Watch},
};
use crate::{gate::Clock, refusal::Refusal, vanish::unreachable, watching::Eyes};
use bytes::{Buf as _, Bytes, BytesMut};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};
use tidegate_recorder::{Event, Keep, LiveRecording, RecordError, Recorded, Stream};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};
use tokio_util::io::poll_read_buf;

/// What is read at once, and all that one direction holds beside a message that comes in pieces.
const BUFFER: usize = 32 * 1024;
/// A buffer with less room than this is replaced.
const LEAST_ROOM: usize = 16 * 1024;

/// How long the target may take to hear that the client hung up.
const HANG_UP: Duration = Duration::from_secs(2);

/// What was recorded for a peer and has not gone on yet.
#[derive(Debug)]
pub(super) struct Unsent {
    bytes: Bytes,
    /// Whether the peer stands between two messages once it has these bytes.
    between_messages: bool,
}

impl Default for Unsent {
    fn default() -> Self {
        Self { bytes: Bytes::new(), between_messages: true }
    }
}

impl Unsent {
    /// Takes what was recorded. Whatever was there before has gone on.
    pub(super) fn put(&mut self, recorded: Recorded, between_messages: bool) {
        *self = Self { bytes: recorded.into_bytes(), between_messages };
    }

    /// Sends it. May be dropped and called again.
    pub(super) async fn send<W: AsyncWrite + Unpin>(&mut self, to: &mut W) -> io::Result<()> {
        while self.bytes.has_remaining() {
            let sent = to.write(&self.bytes).await?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.bytes.advance(sent);
        }
        self.bytes = Bytes::new(); // so that the buffer behind it can be used again
        to.flush().await
    }

    /// Whether a message of ours may follow.
    pub(super) fn between_messages(&self) -> bool {
        self.between_messages && self.bytes.is_empty()
    }
}

/// Why a pump stopped.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The side that it reads from is done: hung up, or said good-bye.
    Done,
    /// The side that it reads from can no longer be reached.
    Vanished,
    /// The side that it writes to is gone.
    Lost,
    /// The side that it reads from broke the protocol.
    Violation(FrameError),
    /// It could not be recorded.
    Unrecorded(RecordError),
}

/// What stands between what was read and what goes on.
pub(super) struct Out<'a> {
    pub(super) recording: &'a LiveRecording,
    pub(super) clock: Clock,
    /// Who watch, where somebody must.
    pub(super) eyes: &'a Eyes,
}

/// One direction.
pub(super) struct Pump<'a, R, W> {
    from: R,
    to: W,
    unsent: &'a mut Unsent,
    framer: Framer,
    watch: Watch,
    plain: Stream,
    buffer: BytesMut,
    out: Out<'a>,
    /// What the target says of itself after a login has not gone on yet.
    greeting: bool,
    words: BoxStream<'a, Refusal>,
}

impl<'a, R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Pump<'a, R, W> {
    pub(super) fn new((sender, talk): (Sender, Talk), from: R, to: W, unsent: &'a mut Unsent, out: Out<'a>) -> Self {
        let plain = if sender == Sender::Client { Stream::FromClient } else { Stream::FromTarget };
        let (framer, watch, buffer) = (Framer::new(sender), Watch::new(sender, talk), BytesMut::new());
        let words = stream::pending().boxed();
        Self { from, to, unsent, framer, watch, plain, buffer, out, greeting: false, words }
    }

    /// What the gateway itself has to say to the client, between two messages of the target.
    pub(super) fn saying(mut self, words: impl futures::Stream<Item = Refusal> + Send + 'a) -> Self {
        self.words = words.boxed();
        self
    }

    /// Starts with bytes that were read before, at the end of a login.
    pub(super) fn with(mut self, read: &[u8]) -> Self {
        self.greeting = true;
        self.buffer.extend_from_slice(read);
        self
    }

    /// Carries until it has to stop.
    pub(super) async fn run(mut self) -> Stopped {
        loop {
            if let Err(stopped) = self.until_watched().await {
                return stopped;
            }
            if let Err(stopped) = self.carry().await {
                return stopped;
            }
            let room = self.buffer.capacity();
            if room > 0 && room - self.buffer.len() < LEAST_ROOM {
                self.buffer.reserve(BUFFER); // takes the same memory again where it can
            }
            let may_say = self.framer.between_messages();
            let filled = tokio::select! {
                Some(word) = self.words.next(), if may_say => {
                    match self.say(word).await {
                        Ok(()) => continue,
                        Err(stopped) => return stopped,
                    }
                }
                filled = fill(&mut self.from, &mut self.buffer) => filled,
            };
            match filled {
                Err(error) if unreachable(&error) => return Stopped::Vanished,
                Ok(0) | Err(_) => return self.hung_up().await,
                Ok(_) => {}
            }
        }
    }

    async fn hung_up(&mut self) -> Stopped {
        if self.plain == Stream::FromClient {
            // The target finishes as it would if the client had hung up on it.
            let _ = timeout(HANG_UP, self.to.shutdown()).await;
        }
        Stopped::Done
    }

    /// Waits while somebody must watch and nobody does. The client is told, and a client that hangs up meanwhile is gone: what it
    /// had sent is not done behind its back. (The end of a login goes on: it is awaited under a client's own deadline, and nothing has
    /// been asked for yet.)
    async fn until_watched(&mut self) -> Result<(), Stopped> {
        if self.buffer.is_empty() || std::mem::take(&mut self.greeting) {
            return Ok(());
        }
        while self.out.eyes.are_shut() {
            let may_say = self.framer.between_messages();
            let room = self.plain == Stream::FromClient && self.buffer.capacity() > self.buffer.len();
            tokio::select! {
                biased;
                () = self.out.eyes.open() => {}
                Some(word) = self.words.next(), if may_say => self.say(word).await?,
                filled = fill(&mut self.from, &mut self.buffer), if room => {
                    if !matches!(filled, Ok(count) if count > 0) {
                        return Err(self.hung_up().await);
                    }
                }
            }
        }
        Ok(())
    }

    /// Records and forwards what is whole in the buffer.
    async fn carry(&mut self) -> Result<(), Stopped> {
        let walk = self.framer.walk(&self.buffer, |piece| self.watch.see(piece));
        if walk.taken > 0 {
            let found = std::mem::take(&mut self.watch.found);
            let chunk = self.buffer.split_to(walk.taken).freeze();
            let events = self.account(&chunk, found);
            let recorded = self.out.recording.record(events, chunk, (self.out.clock)()).map_err(Stopped::Unrecorded)?;
            self.unsent.put(recorded, self.framer.between_messages());
            self.unsent.send(&mut self.to).await.map_err(|_| Stopped::Lost)?;
            if self.watch.terminated() {
                return Err(self.until_gone().await);
            }
        }
        walk.fault.map_or(Ok(()), |fault| Err(Stopped::Violation(fault)))
    }

    /// A notice of the gateway's own: recorded like all that the client is sent.
    async fn say(&mut self, word: Refusal) -> Result<(), Stopped> {
        let said = Event::Said { text: word.sentence.clone() };
        let notice = Bytes::from(Fatal::new(answer::WARNING, word).to_notice());
        let data = Event::Data { channel: 0, stream: self.plain, keep: Keep::Count, data: notice.clone() };
        let recorded =
            self.out.recording.record(vec![said, data], notice, (self.out.clock)()).map_err(Stopped::Unrecorded)?;
        self.unsent.put(recorded, true);
        self.unsent.send(&mut self.to).await.map_err(|_| Stopped::Lost)
    }

    /// After the good-bye nothing more counts, but what was asked for before it may take its time: only when the client
    /// hangs up as well is nobody waiting.
    async fn until_gone(&mut self) -> Stopped {
        let mut ignored = [0; 512];
        while matches!(self.from.read(&mut ignored).await, Ok(count) if count > 0) {}
        Stopped::Done
    }

    /// Events that account for every byte of `chunk`: COPY's data as such, all else as protocol bytes, which are counted
    /// unless they are kept for want of an event that says what they mean.
    fn account(&self, chunk: &Bytes, found: Vec<Found>) -> Vec<Event> {
        let data = |stream, keep, data| Event::Data { channel: 0, stream, keep, data };
        let (mut events, mut copied, mut other) =
            (Vec::with_capacity(found.len() + 1), BytesMut::new(), BytesMut::new());
        let copied_event = |copied: &mut BytesMut| {
            let run = (!copied.is_empty()).then(|| copied.split().freeze());
            run.map(|run| data(self.watch.copy_stream(), self.watch.copied(), run))
        };
        let mut at = 0;
        for found in found {
            match found {
                Found::Copied(range) => {
                    other.extend_from_slice(chunk.get(at..range.start).unwrap_or_default());
                    at = range.end;
                    copied.extend_from_slice(chunk.get(range).unwrap_or_default());
                }
                Found::Kept(range) => {
                    // In the order of the stream, which is the order of its digest.
                    other.extend_from_slice(chunk.get(at..range.start).unwrap_or_default());
                    at = range.end;
                    events.extend(copied_event(&mut copied));
                    events.extend((!other.is_empty()).then(|| data(self.plain, Keep::Count, other.split().freeze())));
                    let kept = Bytes::copy_from_slice(chunk.get(range).unwrap_or_default());
                    events.push(data(self.plain, Keep::Whole, kept));
                }
                Found::Event(event) => {
                    events.extend(copied_event(&mut copied));
                    events.push(event);
                }
            }
        }
        events.extend(copied_event(&mut copied));
        let rest = if at == 0 {
            chunk.clone()
        } else {
            other.extend_from_slice(chunk.get(at..).unwrap_or_default());
            other.freeze()
        };
        if !rest.is_empty() {
            events.push(data(self.plain, Keep::Count, rest));
        }
        events
    }
}

/// Waits for bytes, then takes all that are there, up to the buffer's room: TLS hands out one record at a time.
/// Zero means that no more will come. While nothing waits in it, the buffer holds no memory.
async fn fill<R: AsyncRead + Unpin>(from: &mut R, buffer: &mut BytesMut) -> io::Result<usize> {
    let count = poll_fn(|context| {
        if buffer.capacity() == 0 {
            buffer.reserve(BUFFER);
        }
        let polled = poll_read_buf(Pin::new(&mut *from), context, buffer);
        if polled.is_pending() && buffer.is_empty() {
            *buffer = BytesMut::new();
        }
        polled
    })
    .await?;
    let mut more = count;
    while more > 0 && buffer.capacity() > buffer.len() {
        // An end or an error behind bytes that count comes again at the next call.
        more = poll_fn(|context| match pin!(from.read_buf(buffer)).poll(context) {
            Poll::Ready(Ok(more)) => Poll::Ready(more),
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Ready(0),
        })
        .await;
    }
    Ok(count)
}

#[cfg(test)]
#[path = "pump_tests.rs"]
mod tests;
