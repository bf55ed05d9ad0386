//! One client connection and its channels, as the tasks behind the door see them.
//!
//! What always holds: dropping the [`Seat`] hangs up, whatever the client is doing; and once the client is gone, every
//! channel's queue ends with [`FromClient::Close`].

use super::{
    flow::{Budget, Hold, Item, Queue, Stalled},
    forward::Forward,
};
use crate::refusal::Refusal;
use bytes::Bytes;
use futures::{StreamExt as _, stream::FuturesUnordered};
use russh::{ChannelId, ChannelWriteHalf, Disconnect, Pty, Sig, server};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// More channels than this at once are refused. (OpenSSH's own MaxSessions is 10.)
pub(super) const MOST_LINES: usize = 64;
/// How long a client may take to open its first channel when all that it will hear is a no.
const TO_HEAR: Duration = Duration::from_secs(10);
/// How long a client may take to hang up by itself once it has been told.
const TO_LEAVE: Duration = Duration::from_secs(2);
/// How long telling one channel may take: its reader may be stalled.
const TO_TELL: Duration = Duration::from_millis(600);
/// How long a client may take to hang up after a disconnect. With [`TO_TELL`] it stays within the second that a session
/// gives to parting.
const TO_DISCONNECT: Duration = Duration::from_millis(250);

/// Past this, what a client asked for in vain is cut.
const LONGEST_DENIAL: usize = 160;

/// A terminal as the client asked for it (RFC 4254 section 6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terminal {
    pub(super) term: String,
    pub(super) columns: u32,
    pub(super) rows: u32,
    pub(super) pixels: (u32, u32),
    pub(super) modes: Vec<(Pty, u32)>,
}

/// What is to run on a channel (RFC 4254 section 6.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    Shell,
    Exec(Bytes),
    Subsystem(String),
}

/// What a client sends on a channel, beside data.
#[derive(Debug)]
pub(super) enum FromClient {
    Terminal(Terminal),
    Environment(String, String),
    /// Something that is not carried was asked for.
    Denied(&'static str),
    Start(Start),
    Resize {
        columns: u32,
        rows: u32,
        pixels: (u32, u32),
    },
    Signal(Sig),
    Eof,
    Close,
}

/// One channel of a client.
#[derive(Debug)]
pub(super) struct Line {
    /// russh's number.
    pub(super) id: ChannelId,
    /// Its number in the recording.
    pub(super) number: u32,
    /// What the client sent.
    pub(super) up: Queue<FromClient>,
    /// The only way out: it keeps to the client's window.
    pub(super) out: ChannelWriteHalf<server::Msg>,
    /// For what the write half cannot say; it goes through the same queue, so the order is kept.
    handle: server::Handle,
    /// The client has closed it or is gone.
    pub(super) closed: CancellationToken,
    /// It is for forwarding, and confirmed only when the target has confirmed its own.
    pub(super) forward: Option<Box<Forward>>,
    terminal: AtomicBool,
    started: AtomicBool,
    /// The start was answered before the target was asked.
    promised: AtomicBool,
}

impl Line {
    /// The program may start only once. False if it has.
    pub(super) fn start(&self) -> bool {
        !self.started.swap(true, Ordering::SeqCst)
    }

    /// It did not: another one may be asked for (RFC 4254 section 6.5: only one may succeed).
    pub(super) fn unstart(&self) {
        self.started.store(false, Ordering::SeqCst);
    }

    /// Whether a program was asked for.
    pub(super) fn started(&self) -> bool {
        self.started.load(Ordering::SeqCst)
    }

    /// The client asked for a terminal.
    pub(super) fn set_terminal(&self) {
        self.terminal.store(true, Ordering::SeqCst);
    }

    /// The start is answered with yes before the target is asked, since its client waits here for something else first.
    pub(super) fn promise(&self) {
        self.promised.store(true, Ordering::SeqCst);
    }

    /// Whether it was: a no comes too late then.
    pub(super) fn promised(&self) -> bool {
        self.promised.load(Ordering::SeqCst)
    }

    /// Answers the request to start a program.
    pub(super) async fn answer(&self, yes: bool) {
        // An error means that the connection is gone; its queue says so too.
        let _ =
            if yes { self.handle.channel_success(self.id).await } else { self.handle.channel_failure(self.id).await };
    }

    /// Bytes for the client's stderr.
    pub(super) async fn stderr(&self, bytes: impl Into<Bytes>) {
        let _ = self.out.extended_data_bytes(1, bytes.into()).await;
    }

    /// The program was killed by a signal.
    pub(super) async fn exit_signal(&self, signal: Sig, core: bool, message: String) {
        let _ = self.handle.exit_signal_request(self.id, signal, core, message, String::new()).await;
    }

    /// Ends the channel with an exit status.
    pub(super) async fn finish(&self, status: u32) {
        let _ = self.out.exit_status(status).await;
        let _ = self.out.eof().await;
        let _ = self.out.close().await;
    }

    /// Says no, or why it ends, and closes.
    pub(super) async fn tell(&self, refusal: &Refusal) {
        if let Some(forward) = &self.forward {
            forward.refuse(refusal).await;
            let _ = self.out.close().await; // if it was open already; it has no place for a sentence
            return;
        }
        self.answer(true).await;
        self.stderr(sentence(refusal, self.terminal.load(Ordering::SeqCst))).await;
        self.finish(refusal.exit).await;
    }

    /// Says something to whoever runs a program here, which goes on. One whose reader is paused does not hear it.
    pub(super) async fn warn(&self, word: &Refusal) {
        if self.started() && self.forward.is_none() {
            let text = sentence(word, self.terminal.load(Ordering::SeqCst));
            let _ = timeout(TO_TELL, self.stderr(text)).await;
        }
    }

    /// Tells whoever runs a program here that its end is near. Into a terminal nothing is written, since a program may have all of the
    /// screen: its window's title says it.
    pub(super) async fn announce(&self, word: &Refusal) {
        if !self.started() || self.forward.is_some() {
            return;
        }
        let text = match self.terminal.load(Ordering::SeqCst) {
            // OSC 0 (xterm's control sequences): icon and title.
            true => format!("\x1b]0;tidegate: {}\x07", plain(&word.sentence)),
            false => sentence(word, false),
        };
        let _ = timeout(TO_TELL, self.stderr(text)).await;
    }

    /// Says no to a channel that has only just been opened, and closes it whether or not its client listens.
    pub(super) async fn turn_away(&self, refusal: &Refusal) {
        if timeout(TO_HEAR, self.tell_once_started(refusal)).await.is_err() {
            let _ = self.out.close().await;
        }
    }

    /// Like [`Line::tell`], for one that may not have asked for a program yet: before that, a client does not listen.
    async fn tell_once_started(&self, refusal: &Refusal) {
        while !self.started() {
            match self.up.pop().await {
                Item::Event(FromClient::Start(_)) => break,
                Item::Event(FromClient::Close) | Item::Overrun => return,
                Item::Data { bytes, .. } => self.up.settle(bytes.len()),
                Item::Event(_) => {}
            }
        }
        self.tell(refusal).await;
    }
}

/// What the person reads. On a terminal the line starts at the left, wherever the cursor was.
pub(super) fn sentence(refusal: &Refusal, terminal: bool) -> String {
    let start = if terminal { "\r\n" } else { "" };
    let mut text = format!("{start}tidegate: {}.{}\r\n", plain(&refusal.sentence), marked(refusal));
    if let Some(next) = &refusal.next {
        text.push_str(&format!("tidegate: {}\r\n", plain(next)));
    }
    text
}

/// The same in one line, for a disconnect.
pub(super) fn one_line(refusal: &Refusal) -> String {
    let next = refusal.next.as_ref().map(|next| format!(" {}", plain(next))).unwrap_or_default();
    format!("tidegate: {}.{next}{}", plain(&refusal.sentence), marked(refusal))
}

fn marked(refusal: &Refusal) -> String {
    refusal.reference.map(|reference| format!(" (ref {reference})")).unwrap_or_default()
}

/// Without control characters: reasons and names come from other people.
pub(super) fn plain(text: &str) -> String {
    crate::text::plain(text).into_owned()
}

/// A client connection, shared by its door (in russh's task) and the tasks behind it.
#[derive(Debug)]
pub(super) struct Connection {
    lines: Mutex<HashMap<ChannelId, Arc<Line>>>,
    numbers: AtomicU32,
    arrivals: mpsc::Sender<Arc<Line>>,
    /// For a last word when there is no channel that would take it.
    handle: OnceLock<server::Handle>,
    pub(super) hold: Arc<Hold>,
    /// What the queues of all its channels hold, both ways.
    pub(super) budget: Budget,
    /// What was asked for and is not carried, until it is written down.
    denials: Mutex<VecDeque<String>>,
    denied: Notify,
    /// The client has gone.
    pub(super) gone: CancellationToken,
    /// We hang up.
    pub(super) cut: CancellationToken,
}

/// New channels, in the order of their opening.
pub(super) type Arrivals = mpsc::Receiver<Arc<Line>>;

impl Connection {
    pub(super) fn new() -> (Arc<Self>, Arrivals) {
        let (sender, arrivals) = mpsc::channel(MOST_LINES);
        let connection = Self {
            lines: Mutex::default(),
            numbers: AtomicU32::new(0),
            arrivals: sender,
            handle: OnceLock::new(),
            hold: Arc::default(),
            budget: Budget::default(),
            denials: Mutex::default(),
            denied: Notify::new(),
            gone: CancellationToken::new(),
            cut: CancellationToken::new(),
        };
        (Arc::new(connection), arrivals)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ChannelId, Arc<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody has come in.
    pub(super) fn admit(&self, handle: server::Handle) {
        let _ = self.handle.set(handle);
    }

    /// Ends the connection with a reason, which OpenSSH prints whatever its channels are waiting for.
    async fn disconnect(&self, refusal: &Refusal) {
        let Some(handle) = self.handle.get() else { return };
        let leaving = async {
            // An error means that the connection is gone already.
            let _ = handle.disconnect(Disconnect::ByApplication, one_line(refusal), "en".to_owned()).await;
            self.gone.cancelled().await;
        };
        let _ = timeout(TO_DISCONNECT, leaving).await;
    }

    /// A new channel, unless there are too many: then its forwarding comes back.
    pub(super) fn add(
        &self,
        out: ChannelWriteHalf<server::Msg>,
        handle: server::Handle,
        forward: Option<Box<Forward>>,
    ) -> Result<(), Option<Box<Forward>>> {
        let mut lines = self.lock();
        let place = match self.arrivals.try_reserve() {
            Ok(place) if lines.len() < MOST_LINES => place,
            _ => return Err(forward),
        };
        let started = AtomicBool::new(forward.is_some()); // it has no program to wait for
        let line = Arc::new(Line {
            id: out.id(),
            number: self.numbers.fetch_add(1, Ordering::SeqCst),
            up: Queue::new(&self.budget),
            out,
            handle,
            closed: self.gone.child_token(),
            forward,
            terminal: AtomicBool::new(false),
            started,
            promised: AtomicBool::new(false),
        });
        place.send(line.clone());
        lines.insert(line.id, line);
        Ok(())
    }

    /// Something was asked for that is not carried. A client that asks without end is not listened to.
    pub(super) fn deny(&self, what: &str) {
        let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
        if denials.len() < MOST_LINES {
            denials.push_back(plain(&what.chars().take(LONGEST_DENIAL).collect::<String>()));
            self.denied.notify_one();
        }
    }

    /// The next of these, if there is one now.
    pub(super) fn denial(&self) -> Option<String> {
        self.denials.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// The next of these. Cancel safe. One task at a time.
    pub(super) async fn next_denial(&self) -> String {
        loop {
            if let Some(denial) = self.denial() {
                return denial;
            }
            self.denied.notified().await;
        }
    }

    /// The channel with this number, while it is open.
    pub(super) fn line(&self, id: ChannelId) -> Option<Arc<Line>> {
        self.lock().get(&id).cloned()
    }

    /// The channel is over on our side or on theirs.
    pub(super) fn remove(&self, id: ChannelId) {
        if let Some(line) = self.lock().remove(&id) {
            line.up.push(FromClient::Close);
            line.closed.cancel();
        }
    }

    /// The client is gone.
    pub(super) fn leave(&self) {
        self.gone.cancel();
        let lines: Vec<_> = self.lock().drain().collect();
        for (_, line) in lines {
            line.up.push(FromClient::Close);
        }
    }

    /// Who is so far behind that nobody should be given more.
    pub(super) fn stalled(&self, id: ChannelId) -> Stalled {
        let lines = self.lock();
        let asker = lines.get(&id).is_some_and(|line| line.up.stalled());
        Stalled { asker, anyone: asker || lines.values().any(|line| line.up.stalled()), channels: lines.len() }
    }

    pub(super) fn open(&self) -> Vec<Arc<Line>> {
        self.lock().values().cloned().collect()
    }
}

/// The place behind the door: whoever has it serves the connection, and dropping it hangs up.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) connection: Arc<Connection>,
    pub(super) arrivals: Arrivals,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connection.cut.cancel();
    }
}

impl Seat {
    /// For somebody who has just come, and only hears a no: they get the time to open their channel and hear it there.
    pub(super) async fn farewell(self, refusal: &Refusal) {
        self.part(refusal, TO_HEAR).await;
    }

    /// For somebody in the middle of something: they hear it within a second, or never.
    pub(super) async fn cut_off(self, refusal: &Refusal) {
        self.part(refusal, TO_TELL).await;
    }

    /// Tells every open channel and every one that still comes, lets the client hang up by itself, and hangs up. Where one does
    /// not take the message (no program was asked for there, or its reader is paused, as in `ssh … | less`), a disconnect
    /// carries it.
    async fn part(mut self, refusal: &Refusal, patience: Duration) {
        let connection = self.connection.clone();
        let tell = |line: Arc<Line>| async move {
            let patience = if line.started() { patience.min(TO_TELL) } else { patience };
            // The end of a forwarding says nothing, and OpenSSH stays when its forwardings close.
            let told = timeout(patience, line.tell_once_started(refusal)).await.is_ok() && line.forward.is_none();
            (line, told)
        };
        let open = connection.open();
        let mut known: HashSet<ChannelId> = open.iter().map(|line| line.id).collect();
        let mut telling: FuturesUnordered<_> = open.into_iter().map(tell).collect();
        let (mut anyone, mut everyone) = (false, true);
        let mut end = Instant::now() + patience;
        while everyone || !telling.is_empty() {
            tokio::select! {
                Some((line, told)) = telling.next() => {
                    if told {
                        connection.remove(line.id);
                        // A client hangs up when its last channel has closed. Disconnecting first would hide the exit status.
                        end = Instant::now() + TO_LEAVE;
                    }
                    (anyone, everyone) = (anyone || told, everyone && told);
                }
                line = self.next() => match line {
                    Some(line) if known.insert(line.id) => telling.push(tell(line)),
                    Some(_) => {}
                    None => return,
                },
                () = sleep_until(end) => break,
            }
        }
        if !anyone || !everyone || !telling.is_empty() {
            connection.disconnect(refusal).await;
        }
    }

    /// The next channel; `None` once the client is gone. Channels that closed while they waited are passed over.
    pub(super) async fn next(&mut self) -> Option<Arc<Line>> {
        loop {
            let line = tokio::select! {
                biased;
                () = self.connection.gone.cancelled() => return None,
                line = self.arrivals.recv() => line?,
            };
            if !line.closed.is_cancelled() {
                return Some(line);
            }
        }
    }
}
