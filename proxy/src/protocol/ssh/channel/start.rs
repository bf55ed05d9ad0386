//! Up to a program's start: the client's wishes are asked of the target one by one, and then the program.
//!
//! What always holds: one request is with the target at a time, so the next answer is this one's; a program is in the
//! recording before the target hears of it; with a terminal, all that is shown is kept; and what a quick program sends before
//! the answer is set aside in order, up to a bound.
//!
//! It is apart from the rest of the channel because only here something is waited for: once the program runs, bytes flow
//! both ways and no request has an answer. A forwarding never comes through here.

use super::{Carrier, End, Lost, text_of, too_much};
use crate::{
    protocol::ssh::{
        flow::Item,
        hearing::FromTarget,
        line::{FromClient, Start, Terminal},
        prompt::VARIABLES,
    },
    refusal::Refusal,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tidegate_recorder::{Event, Keep};
use tokio::time::timeout;

/// How long a target may take to answer a request for a terminal or a program.
const TO_ANSWER: Duration = Duration::from_secs(30);
/// Settings of the environment past this are ignored.
const MOST_SETTINGS: usize = 64;
/// A target that sends more than this before it answers is not waited for. (Its bytes meet the queue's cap.)
const MOST_EARLY: usize = 1024;

/// What came of a request to start a program.
enum Started {
    /// It runs.
    Yes,
    /// The target said no. Another one may be asked for.
    No,
    /// There is nobody to ask any more.
    Gone(End),
}

/// What was asked for before the program started.
#[derive(Default)]
struct Wishes {
    terminal: Option<Terminal>,
    environment: BTreeMap<String, String>,
    /// What it will not get.
    denied: BTreeSet<&'static str>,
}

impl Carrier<'_> {
    /// Up to the program's start. `None`: it runs.
    pub(super) async fn prepare(&mut self) -> Result<Option<End>, Lost> {
        let mut wishes = Wishes::default();
        loop {
            match self.line.up.pop().await {
                Item::Event(FromClient::Terminal(terminal)) => {
                    let (width, height) = terminal.pixels;
                    let asked = self.write.request_pty(
                        true,
                        &terminal.term,
                        terminal.columns,
                        terminal.rows,
                        width,
                        height,
                        &terminal.modes,
                    );
                    if asked.await.is_err() || self.answered().await != Some(true) {
                        self.line.stderr("tidegate: the target gave no terminal\r\n").await;
                    } else {
                        wishes.terminal = Some(terminal);
                    }
                }
                // They were for us.
                Item::Event(FromClient::Environment(name, _)) if VARIABLES.contains(&name.as_str()) => {}
                Item::Event(FromClient::Environment(name, value)) => {
                    if wishes.environment.len() < MOST_SETTINGS {
                        let _ = self.write.set_env(false, name.clone(), value.clone()).await;
                        wishes.environment.insert(name, value);
                    }
                }
                Item::Event(FromClient::Denied(what)) => drop(wishes.denied.insert(what)),
                Item::Event(FromClient::Start(start)) => match self.start(start, &wishes).await? {
                    Started::Yes => {
                        // Only where a person reads it: in a script, what is on stderr can count as a failure.
                        for what in wishes.denied.iter().filter(|_| wishes.terminal.is_some()) {
                            self.line.stderr(format!("tidegate: {what} is not supported yet: it stays off.\r\n")).await;
                        }
                        return Ok(None);
                    }
                    Started::No if self.line.promised() => {
                        return Ok(Some(End::Told(Refusal::new("the target did not start what you asked for"))));
                    }
                    Started::No => {
                        self.line.unstart();
                        self.line.answer(false).await;
                    }
                    Started::Gone(end) => return Ok(Some(end)),
                },
                Item::Event(FromClient::Close) => return Ok(Some(End::Client)),
                Item::Event(_) => {}
                Item::Data { bytes, .. } => self.line.up.settle(bytes.len()),
                Item::Overrun => return Ok(Some(too_much("your client sent more than it may"))),
            }
        }
    }

    async fn start(&mut self, start: Start, wishes: &Wishes) -> Result<Started, Lost> {
        if wishes.terminal.is_some() {
            self.keep = Keep::Whole;
        }
        if let Some(word) = self.way.eyes.standing() {
            self.line.warn(&word).await;
            self.way.eyes.open().await;
        }
        let terminal = wishes.terminal.is_some();
        self.note(opened(self.line.number, self.target.serial, &start, wishes))?;
        let decoded = match self.files.start(&start, terminal) {
            Ok(decoded) => decoded,
            Err(refusal) => {
                return self
                    .forbidden(&refusal)
                    .await
                    .map(|()| Started::Gone(End::Told(refusal.marked(self.way.permit.reference()))));
            }
        };
        let asked = match start {
            Start::Shell => self.write.request_shell(true).await,
            Start::Exec(command) => self.write.exec(true, command).await,
            Start::Subsystem(name) => self.write.request_subsystem(true, name).await,
        };
        if asked.is_err() {
            return Ok(Started::Gone(End::Told(Refusal::new("the target closed the connection"))));
        }
        match self.answered().await {
            Some(true) => {
                decoded.map_or(Ok(()), |event| self.note(event))?;
                self.line.answer(true).await;
                Ok(Started::Yes)
            }
            Some(false) => {
                let text = format!("the target did not start what channel {} asked for", self.line.number);
                self.note(Event::Said { text })?;
                Ok(Started::No)
            }
            None => Ok(Started::Gone(End::Told(Refusal::new("the target did not answer")))),
        }
    }

    /// The target's answer to the request that was just made. A quick program's output may come before it: that is set
    /// aside for [`Carrier::downwards`]. `None`: there is none, and will be none.
    async fn answered(&mut self) -> Option<bool> {
        let (down, early) = (&self.target.down, &mut self.early);
        let answer = async {
            loop {
                match down.pop().await {
                    Item::Event(FromTarget::Answer(yes)) => return Some(yes),
                    Item::Event(FromTarget::Close | FromTarget::Gone) | Item::Overrun => return None,
                    _ if early.len() >= MOST_EARLY => return None,
                    item => early.push_back(item),
                }
            }
        };
        timeout(TO_ANSWER, answer).await.ok().flatten()
    }
}

fn opened(channel: u32, connection: u64, start: &Start, wishes: &Wishes) -> Event {
    let (what, command) = match start {
        Start::Shell => ("shell", None),
        Start::Exec(command) => ("exec", Some(text_of(command))),
        Start::Subsystem(name) => ("subsystem", Some(name.clone())),
    };
    Event::Opened {
        channel,
        what: what.to_owned(),
        command,
        terminal: wishes.terminal.as_ref().map(|t| (t.term.clone(), t.columns, t.rows)),
        environment: wishes.environment.clone(),
        connection: Some(connection),
        reached: None,
    }
}
