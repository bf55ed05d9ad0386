//! The control shell: what `ssh gate` and `ssh gate VERB …` say.
//!
//! What always holds: only what this identity may see exists for it; words are told apart by spaces and nothing else,
//! and nothing is handed to a shell; what other people wrote is shown without control characters.

use super::{
    Ssh,
    admission::Admitted,
    flow::Item,
    line::{FromClient, Line, Seat, Start},
    verbs::{self, Reply, Visitor},
};
use crate::{door::TurnedAway, refusal::Refusal};
use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tidegate_grants::{Denied, Device, IdentityName, Reference};
use tokio::time::timeout;

/// A shell that nobody types into closes.
const IDLE: Duration = Duration::from_secs(600);
/// Longest line.
const LONGEST: usize = 4096;
const PROMPT: &str = "tidegate> ";

/// Serves the channels of one connection until its client leaves or the gate stops.
pub(super) async fn serve(ssh: Arc<Ssh>, admitted: Admitted, source: IpAddr, mut seat: Seat) {
    let Admitted { identity, device, .. } = &admitted;
    let here = Here { ssh: &ssh, identity, device, source };
    let connection = seat.connection.clone();
    let mut channels: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = ssh.gate.stopping.cancelled() => return,
            Some(()) = channels.next(), if !channels.is_empty() => {}
            line = seat.next() => {
                let Some(line) = line else { return };
                let (here, connection) = (&here, &connection);
                channels.push(Box::pin(async move {
                    tokio::select! {
                        () = channel(here, &line) => {}
                        () = line.closed.cancelled() => {}
                    }
                    connection.remove(line.id);
                }));
            }
        }
    }
}

/// Who is in the shell, and from where.
#[derive(Clone, Copy)]
struct Here<'a> {
    ssh: &'a Ssh,
    identity: &'a IdentityName,
    device: &'a Device,
    source: IpAddr,
}

/// One channel, from its opening to its exit status.
async fn channel(here: &Here<'_>, line: &Line) {
    let mut terminal = None;
    let opening = async {
        loop {
            match line.up.pop().await {
                Item::Event(FromClient::Terminal(asked)) => terminal = Some((asked.columns, asked.rows)),
                Item::Event(FromClient::Start(start)) => return Some(start),
                Item::Event(FromClient::Close) | Item::Overrun => return None,
                Item::Event(_) => {}
                Item::Data { bytes, .. } => line.up.settle(bytes.len()),
            }
        }
    };
    let Ok(Some(start)) = timeout(IDLE, opening).await else {
        let _ = line.out.close().await;
        return;
    };
    let status = match start {
        Start::Exec(command) => {
            line.answer(true).await;
            let place = Place { line, terminal, own_stdin: true };
            let reply = run(here, &place, &command).await;
            let exit = reply.exit;
            show(&place, reply).await;
            exit
        }
        Start::Shell => {
            line.answer(true).await;
            let place = Place { line, terminal, own_stdin: false };
            Prompt { here, place, exit: 0 }.run().await
        }
        Start::Subsystem(_) => {
            line.answer(false).await;
            let _ = line.out.close().await;
            return;
        }
    };
    line.finish(status).await;
}

/// Who may ask may have changed since the door: the configuration in force decides.
async fn run(here: &Here<'_>, place: &Place<'_>, command: &[u8]) -> Reply {
    let policy = here.ssh.gate.authority.policy();
    let Some(identity) = policy.identities.get(here.identity) else {
        return Reply::fault(1, "you are no longer in the gateway's configuration");
    };
    if let Some(refusal) = locked_out(here).await {
        let reference = note(here, &String::from_utf8_lossy(command), &refusal).await;
        return Reply::refused(&refusal).told(reference);
    }
    let Place { line, terminal, own_stdin } = *place;
    let (ssh, source, policy) = (here.ssh, here.source, policy.clone());
    let device = here.device;
    let visitor = Visitor { ssh, identity, device, policy, source, line, terminal, own_stdin };
    let words = match verbs::words(command) {
        Ok(words) => words,
        Err(reply) => return reply,
    };
    let reply = verbs::run(&visitor, &words).await;
    let reference = match &reply.refusal {
        Some(refusal) => note(here, &words.join(" "), refusal).await,
        None => None,
    };
    reply.told(reference)
}

/// Who is locked may look at nothing here either, nor play a recording. What cannot be known is a no.
async fn locked_out(here: &Here<'_>) -> Option<Refusal> {
    let gate = &here.ssh.gate;
    match gate.authority.locked_out(here.identity, gate.now()).await {
        Ok(None) => None,
        Ok(Some(locked)) => Some(Refusal::from(&Denied::Locked(locked))),
        Err(error) => Some(Refusal::from(&error)),
    }
}

/// A no of the control shell, into the ledger.
async fn note(here: &Here<'_>, asked: &str, refusal: &Refusal) -> Option<Reference> {
    let (name, why) = (Some(here.identity.as_str()), refusal.sentence.as_str());
    let (source, asked, check) = (here.source, Some(asked), refusal.check);
    here.ssh.gate.turned_away(TurnedAway { protocol: "ssh", source, name, asked, why, check }).await
}

/// Where answers go.
struct Place<'a> {
    line: &'a Line,
    /// Columns and rows, on a terminal.
    terminal: Option<(u32, u32)>,
    /// See [`Visitor`].
    own_stdin: bool,
}

async fn show(place: &Place<'_>, reply: Reply) {
    let ends = |text: String| if place.terminal.is_some() { text.replace('\n', "\r\n") } else { text };
    if !reply.out.is_empty() {
        let _ = place.line.out.data_bytes(ends(reply.out).into_bytes()).await;
    }
    if !reply.err.is_empty() {
        place.line.stderr(ends(reply.err).into_bytes()).await;
    }
}

/// An interactive shell, line by line. On a terminal it echoes, since the client's own terminal is raw.
struct Prompt<'a> {
    here: &'a Here<'a>,
    place: Place<'a>,
    exit: u32,
}

/// What a byte leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    Echo(&'static str),
    Char(u8),
    Line(Vec<u8>),
    Leave,
    Nothing,
}

/// The line as typed so far.
#[derive(Debug, Default)]
pub(super) struct Editor {
    text: Vec<u8>,
    /// A person types, who can take things back; else a program writes, and each byte counts.
    typing: bool,
    after_return: bool,
    escape: Escape,
}

/// How far an escape sequence has come, as arrow keys send them. There is no history to go to, and nothing to move in.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    Begun,
    Inside,
}

impl Editor {
    /// Of somebody who types into a terminal.
    pub(super) fn of_a_person() -> Self {
        Self { typing: true, ..Self::default() }
    }

    pub(super) fn take(&mut self, byte: u8) -> Typed {
        let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
        match byte {
            b'\n' if after_return => Typed::Nothing, // the second half of a line's end
            b'\r' | b'\n' => {
                self.escape = Escape::None;
                Typed::Line(std::mem::take(&mut self.text))
            }
            byte if self.typing => self.key(byte),
            byte => self.push(byte),
        }
    }

    fn key(&mut self, byte: u8) -> Typed {
        self.escape = match (self.escape, byte) {
            (_, 0x1b) => Escape::Begun,
            (Escape::Begun, b'[' | b'O') => Escape::Inside,
            (Escape::Inside, 0x20..=0x3f) => Escape::Inside,
            (Escape::None, _) => return self.plain_key(byte),
            (Escape::Begun | Escape::Inside, _) => Escape::None,
        };
        Typed::Nothing
    }

    fn plain_key(&mut self, byte: u8) -> Typed {
        match byte {
            0x03 => {
                self.text.clear();
                Typed::Echo("^C\n")
            }
            0x04 if self.text.is_empty() => Typed::Leave,
            0x15 => {
                self.text.clear();
                Typed::Echo("\n")
            }
            0x08 | 0x7f => self.text.pop().map_or(Typed::Nothing, |_| Typed::Echo("\u{8} \u{8}")),
            0x20..=0x7e => self.push(byte),
            _ => Typed::Nothing,
        }
    }

    /// One byte more than a line can have is kept, so that a line that is too long is refused and never run cut short.
    fn push(&mut self, byte: u8) -> Typed {
        if self.text.len() > LONGEST {
            return Typed::Nothing;
        }
        self.text.push(byte);
        Typed::Char(byte)
    }
}

impl Prompt<'_> {
    fn on_terminal(&self) -> bool {
        self.place.terminal.is_some()
    }

    async fn run(mut self) -> u32 {
        if self.on_terminal() {
            let hello = format!(
                "This is the gateway {}, and you are {}. `help` says what it does, `exit` leaves.\n{PROMPT}",
                self.here.ssh.gate.name, self.here.identity
            );
            self.say(&hello).await;
        }
        let mut editor = Editor { typing: self.on_terminal(), ..Editor::default() };
        loop {
            match timeout(IDLE, self.place.line.up.pop()).await {
                Ok(Item::Data { bytes, .. }) => {
                    let size = bytes.len();
                    let leave = self.typed(&mut editor, &bytes).await;
                    self.place.line.up.settle(size);
                    if leave {
                        return self.exit;
                    }
                }
                Ok(Item::Event(FromClient::Eof)) => {
                    let last = std::mem::take(&mut editor.text);
                    self.command(&last).await;
                    return self.exit;
                }
                Ok(Item::Event(FromClient::Close) | Item::Overrun) | Err(_) => return self.exit,
                Ok(Item::Event(_)) => {}
            }
        }
    }

    /// True if the person wants to leave.
    async fn typed(&mut self, editor: &mut Editor, bytes: &Bytes) -> bool {
        for byte in bytes.iter().copied() {
            match editor.take(byte) {
                Typed::Nothing => {}
                Typed::Char(byte) if self.on_terminal() => self.say(&char::from(byte).to_string()).await,
                Typed::Echo(text) if self.on_terminal() => {
                    self.say(text).await;
                    if text.ends_with('\n') {
                        self.say(PROMPT).await;
                    }
                }
                Typed::Char(_) | Typed::Echo(_) => {}
                Typed::Leave => {
                    if self.on_terminal() {
                        self.say("\n").await;
                    }
                    return true;
                }
                Typed::Line(text) => {
                    if self.on_terminal() {
                        self.say("\n").await;
                    }
                    if matches!(text.trim_ascii(), b"exit" | b"quit" | b"logout") {
                        return true;
                    }
                    self.command(&text).await;
                    if self.on_terminal() {
                        self.say(PROMPT).await;
                    }
                }
            }
        }
        false
    }

    async fn command(&mut self, text: &[u8]) {
        if text.trim_ascii().is_empty() {
            return;
        }
        let reply = run(self.here, &self.place, text).await;
        self.exit = reply.exit;
        show(&self.place, reply).await;
    }

    async fn say(&self, text: &str) {
        let text = if self.on_terminal() { text.replace('\n', "\r\n") } else { text.to_owned() };
        let _ = self.place.line.out.data_bytes(text.into_bytes()).await;
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn person() -> Editor {
        Editor { typing: true, ..Editor::default() }
    }

    fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
        lines_of(person(), bytes)
    }

    fn lines_of(mut editor: Editor, bytes: &[u8]) -> Vec<Vec<u8>> {
        let typed = bytes.iter().map(|byte| editor.take(*byte)).collect::<Vec<_>>();
        typed.into_iter().filter_map(|t| if let Typed::Line(text) = t { Some(text) } else { None }).collect()
    }

    #[test]
    fn a_line_ends_once_however_its_end_is_written() {
        assert_eq!(lines(b"help\r\nwhoami\rgrants\n"), [&b"help"[..], b"whoami", b"grants"]);
    }

    #[test]
    fn typing_can_be_taken_back() {
        assert_eq!(lines(b"hepl\x7f\x7flp\rxx\x03targets\ryy\x15ls\x1b\r"), [&b"help"[..], b"targets", b"ls"]);
        assert_eq!(person().take(0x04), Typed::Leave);
    }

    #[test]
    fn arrow_and_function_keys_type_nothing() {
        assert_eq!(lines(b"he\x1b[A\x1b[1;5Dlp\x1bOP\x1b[15~\r"), [&b"help"[..]]);
        assert_eq!(lines(b"\x1b\rwhoami\x1b[\rhelp\r"), [&b""[..], b"whoami", b"help"]);
    }

    #[test]
    fn a_programs_line_is_taken_as_it_is_and_a_long_one_is_not_cut_short() {
        let line = b"kill 12\x0034\x7f\x03\x1b[A";
        assert_eq!(lines_of(Editor::default(), &[line, &b"\n"[..]].concat()), [line.to_vec()]);
        for editor in [Editor::default(), person()] {
            let lines = lines_of(editor, &[&vec![b'a'; 3 * LONGEST][..], b"\nhelp\n"].concat());
            assert_eq!((lines[0].len(), lines[1].as_slice()), (LONGEST + 1, &b"help"[..]));
        }
    }
}
