//! The control shell: what `ssh gate` and `ssh gate VERB …` say.
//!
//! What always holds: only what this identity may see exists for it; words are told apart by spaces and nothing else,
//! and nothing is handed to a shell; what other people wrote is shown without control characters.

use super::{
    Ssh,
    flow::Item,
    line::{FromClient, Line, Seat, Start},
    verbs::{self, Reply},
};
use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{sync::Arc, time::Duration};
use tidegate_grants::IdentityName;
use tokio::time::timeout;

/// A shell that nobody types into closes.
const IDLE: Duration = Duration::from_secs(600);
/// Longest line.
const LONGEST: usize = 4096;
const PROMPT: &str = "tidegate> ";

/// Serves the channels of one connection until its client leaves or the gate stops.
pub(super) async fn serve(ssh: Arc<Ssh>, identity: IdentityName, mut seat: Seat) {
    let connection = seat.connection.clone();
    let mut channels: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = ssh.gate.stopping.cancelled() => return,
            Some(()) = channels.next(), if !channels.is_empty() => {}
            line = seat.next() => {
                let Some(line) = line else { return };
                let (ssh, identity, connection) = (&ssh, &identity, &connection);
                channels.push(Box::pin(async move {
                    tokio::select! {
                        () = channel(ssh, identity, &line) => {}
                        () = line.closed.cancelled() => {}
                    }
                    connection.remove(line.id);
                }));
            }
        }
    }
}

/// One channel, from its opening to its exit status.
async fn channel(ssh: &Ssh, identity: &IdentityName, line: &Line) {
    let mut terminal = false;
    let opening = async {
        loop {
            match line.up.pop().await {
                Item::Event(FromClient::Terminal(_)) => terminal = true,
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
            let reply = run(ssh, identity, &command).await;
            let exit = reply.exit;
            show(line, reply, terminal).await;
            exit
        }
        Start::Shell => {
            line.answer(true).await;
            Prompt { ssh, identity, line, terminal, exit: 0 }.run().await
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
async fn run(ssh: &Ssh, identity: &IdentityName, command: &[u8]) -> Reply {
    let Some(identity) = ssh.gate.authority.policy().identities.get(identity).cloned() else {
        return Reply::fault(1, "you are no longer in the gateway's configuration");
    };
    match verbs::words(command) {
        Ok(words) => verbs::run(ssh, &identity, &words).await,
        Err(reply) => reply,
    }
}

async fn show(line: &Line, reply: Reply, terminal: bool) {
    let ends = |text: String| if terminal { text.replace('\n', "\r\n") } else { text };
    if !reply.out.is_empty() {
        let _ = line.out.data_bytes(ends(reply.out).into_bytes()).await;
    }
    if !reply.err.is_empty() {
        line.stderr(ends(reply.err).into_bytes()).await;
    }
}

/// An interactive shell, line by line. On a terminal it echoes, since the client's own terminal is raw.
struct Prompt<'a> {
    ssh: &'a Ssh,
    identity: &'a IdentityName,
    line: &'a Line,
    terminal: bool,
    exit: u32,
}

/// What a byte leads to.
#[derive(Debug, PartialEq, Eq)]
enum Typed {
    Echo(&'static str),
    Char(u8),
    Line(Vec<u8>),
    Leave,
    Nothing,
}

/// The line as typed so far.
#[derive(Debug, Default)]
struct Editor {
    text: Vec<u8>,
    after_return: bool,
}

impl Editor {
    fn take(&mut self, byte: u8) -> Typed {
        let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
        match byte {
            b'\n' if after_return => Typed::Nothing, // the second half of a line's end
            b'\r' | b'\n' => Typed::Line(std::mem::take(&mut self.text)),
            0x03 => {
                self.text.clear();
                Typed::Echo("^C\n")
            }
            0x04 if self.text.is_empty() => Typed::Leave,
            0x15 => {
                let echo = "\n";
                self.text.clear();
                Typed::Echo(echo)
            }
            0x08 | 0x7f => self.text.pop().map_or(Typed::Nothing, |_| Typed::Echo("\u{8} \u{8}")),
            0x20..=0x7e if self.text.len() < LONGEST => {
                self.text.push(byte);
                Typed::Char(byte)
            }
            _ => Typed::Nothing,
        }
    }
}

impl Prompt<'_> {
    async fn run(mut self) -> u32 {
        if self.terminal {
            let hello = format!(
                "This is the gateway {}, and you are {}. `help` says what it does, `exit` leaves.\n{PROMPT}",
                self.ssh.gate.name, self.identity
            );
            self.say(&hello).await;
        }
        let mut editor = Editor::default();
        loop {
            match timeout(IDLE, self.line.up.pop()).await {
                Ok(Item::Data { bytes, .. }) => {
                    let size = bytes.len();
                    let leave = self.typed(&mut editor, &bytes).await;
                    self.line.up.settle(size);
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
                Typed::Char(byte) if self.terminal => self.say(&char::from(byte).to_string()).await,
                Typed::Echo(text) if self.terminal => {
                    self.say(text).await;
                    if text.ends_with('\n') {
                        self.say(PROMPT).await;
                    }
                }
                Typed::Char(_) | Typed::Echo(_) => {}
                Typed::Leave => {
                    if self.terminal {
                        self.say("\n").await;
                    }
                    return true;
                }
                Typed::Line(text) => {
                    if self.terminal {
                        self.say("\n").await;
                    }
                    if matches!(text.trim_ascii(), b"exit" | b"quit" | b"logout") {
                        return true;
                    }
                    self.command(&text).await;
                    if self.terminal {
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
        let reply = run(self.ssh, self.identity, text).await;
        self.exit = reply.exit;
        show(self.line, reply, self.terminal).await;
    }

    async fn say(&self, text: &str) {
        let text = if self.terminal { text.replace('\n', "\r\n") } else { text.to_owned() };
        let _ = self.line.out.data_bytes(text.into_bytes()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut editor = Editor::default();
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
        assert_eq!(Editor::default().take(0x04), Typed::Leave);
    }
}
