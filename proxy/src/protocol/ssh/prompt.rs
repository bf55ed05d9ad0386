//! Asking somebody at the door, on the channel that their program will run on: questions, and a line that shows how long they
//! have waited.
//!
//! What always holds: nothing of a target is touched meanwhile; what the client has asked for before its program (a terminal,
//! variables) is put back in its order, as if it had just come; what is typed while waiting goes nowhere. Without a terminal
//! nothing is read: what comes on stdin is the program's.

use super::{
    flow::Item,
    line::{FromClient, Line, Start},
    shell::{Editor, Typed},
    verbs,
};
use crate::{
    authenticate::{FactorError, Factors},
    gate::Clock,
    refusal::Refusal,
    waiting::{Leaves, Said, Words},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tidegate_grants::{Ask, RequestView, asking::Need, authority::Offer, duration};
use tokio::time::{Instant, sleep, timeout};
use zeroize::Zeroizing;

/// All questions must be answered by then.
const TO_ANSWER: Duration = Duration::from_secs(300);
/// An answer that will not do is asked for again so often.
const ATTEMPTS: usize = 3;
/// How long a client without a terminal waits that did not say for how long.
const PATIENCE: Duration = Duration::from_secs(600);
const CTRL_C: u8 = 0x03;
/// Nothing of the answer is shown.
const CODE: &str = "Code of your authenticator app, or a recovery code: ";

/// What a client without a terminal says by variables (`SetEnv`). They go no further.
pub(super) const VARIABLES: [&str; 4] = ["TIDEGATE_REASON", "TIDEGATE_TICKET", "TIDEGATE_FOR", "TIDEGATE_WAIT"];

/// The channel on which somebody is asked.
#[derive(Debug)]
pub(super) struct Prompt {
    pub(super) line: Arc<Line>,
    /// What came before the program, in its order, and the program last.
    early: Vec<FromClient>,
    terminal: bool,
    variables: BTreeMap<String, String>,
    since: Instant,
}

/// Why a question has no answer.
enum NoAnswer {
    /// They will not say.
    Leaves,
    Gone,
}

impl Prompt {
    /// Listens to what a client asks for up to its program. `None`: it went away, or is no program's channel.
    pub(super) async fn hear(line: Arc<Line>) -> Option<Self> {
        if line.forward.is_some() {
            return None;
        }
        let (mut early, mut terminal, mut variables) = (Vec::new(), false, BTreeMap::new());
        loop {
            match line.up.pop().await {
                Item::Event(FromClient::Close) | Item::Overrun => return None,
                Item::Event(FromClient::Environment(name, value)) if VARIABLES.contains(&name.as_str()) => {
                    variables.insert(name, value);
                }
                Item::Event(event) => {
                    terminal |= matches!(event, FromClient::Terminal(_));
                    // A program that talks to a program has nobody to ask, whatever it runs on.
                    let starts = matches!(event, FromClient::Start(_));
                    terminal &= !matches!(event, FromClient::Start(Start::Subsystem(_)));
                    early.push(event);
                    if starts {
                        return Some(Self { line, early, terminal, variables, since: Instant::now() });
                    }
                }
                Item::Data { bytes, .. } => line.up.settle(bytes.len()),
            }
        }
    }

    /// The channel as it was before anything was heard on it, for whoever serves it.
    pub(super) fn into_line(self) -> Arc<Line> {
        self.line.up.restore(self.early);
        self.line
    }

    /// What they say.
    pub(super) async fn words(&mut self, offers: &[Offer], standing: Option<&RequestView>) -> Words {
        let value = |name: &str| self.variables.get(name).cloned();
        let told = self.variables.contains_key("TIDEGATE_REASON") || self.variables.contains_key("TIDEGATE_TICKET");
        let times = [value("TIDEGATE_FOR"), value("TIDEGATE_WAIT")].map(|text| text.map(|text| duration::parse(&text)));
        let [Ok(length), Ok(patience)] = times.map(Option::transpose) else {
            self.promise().await;
            self.say("TIDEGATE_FOR and TIDEGATE_WAIT are durations like 30m").await;
            return Words::Silent;
        };
        if told || (standing.is_some() && patience.is_some()) {
            self.promise().await;
            let patience = patience.or((!self.terminal).then_some(PATIENCE));
            let (reason, ticket) = (value("TIDEGATE_REASON"), value("TIDEGATE_TICKET"));
            return Words::Asks(Said { entitlement: None, reason, ticket, duration: length, patience });
        }
        if !self.terminal {
            return Words::Silent;
        }
        self.promise().await;
        if standing.is_some() {
            return Words::Asks(Said::default());
        }
        match timeout(TO_ANSWER, self.questions(offers)).await {
            Ok(Ok(said)) => Words::Asks(said),
            Ok(Err(NoAnswer::Gone)) => Words::Gone,
            Ok(Err(NoAnswer::Leaves)) | Err(_) => Words::Silent,
        }
    }

    /// Asks for a code of their second factor, and takes it. False: nobody is there to be asked, or nobody answers.
    pub(super) async fn prove(&mut self, factors: &Factors, ask: &Ask, clock: Clock) -> Result<bool, Refusal> {
        if !self.terminal {
            return Ok(false);
        }
        self.promise().await;
        for _ in 0..ATTEMPTS {
            let typed = match timeout(TO_ANSWER, self.question(CODE, Shown::Nothing)).await {
                Ok(Ok(typed)) if !typed.is_empty() => Zeroizing::new(typed),
                Ok(_) | Err(_) => return Ok(false),
            };
            match factors.check(&ask.identity, ask.source, &typed, clock()).await {
                Ok(()) => return Ok(true),
                Err(error @ (FactorError::Wrong | FactorError::Used)) => self.say(&error.to_string()).await,
                Err(error) => return Err(verbs::refused(&error)),
            }
        }
        Ok(false)
    }

    /// The program's start is answered now, once: a client shows nothing before that.
    async fn promise(&self) {
        if !self.line.promised() {
            self.line.promise();
            self.line.answer(true).await;
        }
    }

    async fn questions(&mut self, offers: &[Offer]) -> Result<Said, NoAnswer> {
        self.say("you hold no grant for this, and may ask for one (Ctrl-C leaves)").await;
        let offer = self.which(offers).await?;
        let (asking, most) = (&offer.asking, offer.max_duration);
        for _ in 0..ATTEMPTS {
            let may = if asking.reason == Need::Required { "" } else { " (may be left empty)" };
            let reason = self.question(&format!("Why{may}: "), Shown::Typed).await?;
            let ticket = match &asking.ticket {
                Some(rule) => Some(self.question(&format!("Ticket, like {}: ", rule.pattern()), Shown::Typed).await?),
                None => None,
            };
            let length = self.question(&format!("For how long [{}]: ", duration::show(most)), Shown::Typed).await?;
            let said = |text: String| (!text.is_empty()).then_some(text);
            let (reason, ticket) = (said(reason), ticket.and_then(said));
            let length = said(length).map(|text| duration::parse(&text)).transpose();
            let wrong = match &length {
                Err(wrong) => Some(format!("that {wrong}: write it like 30m")),
                Ok(Some(length)) if *length > most => Some(format!("at most {}", duration::show(most))),
                Ok(_) => asking.wrong(reason.as_deref(), ticket.as_deref()),
            };
            match (wrong, length) {
                (None, Ok(duration)) => {
                    let entitlement = Some(offer.entitlement.clone());
                    return Ok(Said { entitlement, reason, ticket, duration, patience: None });
                }
                (wrong, _) => self.say(&wrong.unwrap_or_default()).await,
            }
        }
        Err(NoAnswer::Leaves)
    }

    /// The entitlement, where there are several.
    async fn which<'o>(&mut self, offers: &'o [Offer]) -> Result<&'o Offer, NoAnswer> {
        let (Some(first), several) = (offers.first(), offers.len() > 1) else { return Err(NoAnswer::Leaves) };
        if !several {
            return Ok(first);
        }
        let names: Vec<&str> = offers.iter().map(|offer| offer.entitlement.as_str()).collect();
        for _ in 0..ATTEMPTS {
            let question = format!("Which of {} [{}]: ", names.join(", "), first.entitlement);
            let typed = self.question(&question, Shown::Typed).await?;
            match offers.iter().find(|offer| offer.entitlement.as_str() == typed) {
                Some(offer) => return Ok(offer),
                None if typed.is_empty() => return Ok(first),
                None => self.say("that is none of them").await,
            }
        }
        Err(NoAnswer::Leaves)
    }

    /// One question, and the line that is typed to it.
    async fn question(&mut self, text: &str, shown: Shown) -> Result<String, NoAnswer> {
        self.write(text.to_owned()).await;
        let mut editor = Editor::of_a_person();
        loop {
            match self.next().await {
                Heard::Bytes(bytes) => {
                    for byte in bytes {
                        match editor.take(byte) {
                            _ if byte == CTRL_C => return Err(NoAnswer::Leaves),
                            Typed::Leave => return Err(NoAnswer::Leaves),
                            Typed::Char(byte) if shown == Shown::Typed => {
                                self.write(char::from(byte).to_string()).await
                            }
                            Typed::Echo(text) if shown == Shown::Typed => self.write(text.replace('\n', "\r\n")).await,
                            Typed::Line(line) => {
                                self.write("\r\n".to_owned()).await;
                                return Ok(String::from_utf8_lossy(&line).trim().to_owned());
                            }
                            Typed::Char(_) | Typed::Echo(_) | Typed::Nothing => {}
                        }
                    }
                }
                Heard::Gone => return Err(NoAnswer::Gone),
            }
        }
    }

    /// The next bytes that are typed; what the terminal's size became is noted on the way. Cancel safe.
    async fn next(&mut self) -> Heard {
        loop {
            match self.line.up.pop().await {
                Item::Data { bytes, .. } => {
                    self.line.up.settle(bytes.len());
                    return Heard::Bytes(bytes.to_vec());
                }
                Item::Event(FromClient::Resize { columns, rows, pixels }) => {
                    for event in &mut self.early {
                        if let FromClient::Terminal(terminal) = event {
                            (terminal.columns, terminal.rows, terminal.pixels) = (columns, rows, pixels);
                        }
                    }
                }
                Item::Event(FromClient::Close | FromClient::Eof) | Item::Overrun => return Heard::Gone,
                Item::Event(_) => {}
            }
        }
    }

    /// Where the request stands.
    pub(super) async fn show(&self, lines: &[String]) {
        let start = if self.terminal { "\r\x1b[K" } else { "" };
        let text: String =
            lines.iter().map(|line| format!("{start}tidegate: {}\r\n", super::line::plain(line))).collect();
        self.line.stderr(text).await;
    }

    /// Until they leave; meanwhile a line shows for how long they have waited. Cancel safe.
    pub(super) async fn leaves(&mut self) -> Leaves {
        if !self.terminal {
            self.line.closed.cancelled().await;
            return Leaves::Gone;
        }
        let closed = self.line.closed.clone();
        loop {
            let waited = self.since.elapsed().as_secs();
            let line = format!("\r\x1b[Kwaiting {}:{:02} (Ctrl-C takes it back)", waited / 60, waited % 60);
            self.write(line).await;
            tokio::select! {
                heard = self.next() => match heard {
                    Heard::Bytes(bytes) if bytes.contains(&CTRL_C) => return Leaves::TakesBack,
                    Heard::Bytes(_) => {}
                    Heard::Gone => return Leaves::Gone,
                },
                () = closed.cancelled() => return Leaves::Gone,
                () = sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    async fn say(&self, sentence: &str) {
        self.line.stderr(format!("tidegate: {}\r\n", super::line::plain(sentence))).await;
    }

    async fn write(&self, text: String) {
        self.line.stderr(text).await;
    }
}

/// What is seen of what is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Typed,
    Nothing,
}

enum Heard {
    Bytes(Vec<u8>),
    Gone,
}
