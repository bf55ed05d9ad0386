//! `play`: a recording, inert, in the terminal of the one whose session it was.
//!
//! What always holds: the play is in the ledger before its first byte is shown; what is shown was made by the player, never
//! passed through; keystrokes are not in it, because the gateway never had their key.

use super::{Arguments, Reply, Verb, Visitor, sessions};
use crate::{
    protocol::ssh::{flow::Item, line::FromClient},
    refusal::Refusal,
};
use std::{io, time::Duration};
use tidegate_grants::{
    Event, Sight,
    authority::{SessionState, SessionView},
    pick,
};
use tidegate_recorder::{
    play::{Player, Settings, Step},
    replay::Replay,
    verify::ReadError,
    window::ReplayError,
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

pub(super) const PLAY: Verb = Verb {
    name: "play",
    usage: "SESSION [--speed X] [--idle-limit SECONDS]",
    about: "replay the recording of one of your sessions",
    more: "SESSION is its id, or any unique first or last digits of it. In a terminal it plays in time, X times as fast\n\
           and without longer pauses than SECONDS; q or Ctrl-C ends it. Without a terminal it is printed at once. What was\n\
           typed is not shown, only what was seen. It works for as long after the session as the gateway's replay_window\n\
           says; afterwards only an auditor can open the recording.",
    words: 1..=1,
    flags: &[],
    options: &["--speed", "--idle-limit"],
};

/// Steps made ahead of the one that is shown.
const AHEAD: usize = 16;

pub(super) async fn play(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Reply {
    let Some(settings) = settings(visitor, arguments) else {
        return Reply::usage("--speed is a number from 0.01 to 1000, --idle-limit a number of seconds up to 86400");
    };
    let session = match find(visitor, arguments.word(0).unwrap_or_default()).await {
        Ok(session) => session,
        Err(reply) => return reply,
    };
    let (gate, id) = (&visitor.ssh.gate, session.row.id);
    if session.state != SessionState::Closed {
        return Reply::fault(1, &format!("the session {id} is still live; it can be played once it has ended"));
    }
    let turn = visitor.ssh.opening.acquire().await;
    let (recorder, now) = (gate.recorder.clone(), gate.now());
    let opened = spawn_blocking(move || recorder.replay(&id.to_string(), now)).await;
    drop(turn);
    let (replay, verdict) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return not_played(visitor, &session, &error),
        Err(error) => return Reply::fault(1, &error.to_string()),
    };
    let detail = serde_json::json!({ "of": session.row.identity, "source": visitor.source });
    let event = Event::new("recording.played").session(id).identity(&visitor.identity.name).target(&session.row.target);
    if let Err(error) = gate.store.append(event.grant(session.row.grant).detail(detail), gate.now()).await {
        return Reply::refused(&Refusal::from(&error));
    }
    let ends = if visitor.terminal.is_some() { "\r\n" } else { "\n" };
    visitor.line.stderr(format!("{id}: {verdict}{ends}").into_bytes()).await;
    match show(visitor, replay, settings).await {
        Ok(()) => Reply::default(),
        Err(error) => Reply::fault(1, &error.to_string()),
    }
}

fn settings(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Option<Settings> {
    let number = |option: &str, least: f64, most: f64| match arguments.value(option) {
        None => Some(None),
        Some(text) => text.parse::<f64>().ok().filter(|value| (least..=most).contains(value)).map(Some),
    };
    Some(Settings {
        speed: number("--speed", 0.01, 1000.0)?.unwrap_or(1.0),
        idle_limit: number("--idle-limit", 0.0, 86_400.0)?.map(Duration::from_secs_f64),
        view: view(visitor),
        channel: None,
        from: Duration::ZERO,
    })
}

/// Their terminal, if it has a size.
pub(super) fn view(visitor: &Visitor<'_>) -> Option<(u16, u16)> {
    let side = |cells: u32| u16::try_from(cells).unwrap_or(u16::MAX);
    let view = visitor.terminal.filter(|(columns, rows)| *columns > 0 && *rows > 0);
    view.map(|(columns, rows)| (side(columns), side(rows)))
}

/// Their own, and those that they audit.
pub(super) async fn find(visitor: &Visitor<'_>, wanted: &str) -> Result<SessionView, Reply> {
    let seen = Sight::own(&visitor.identity.name).and(visitor.policy.audits(visitor.identity));
    let sessions = sessions::within(visitor, seen).await?;
    pick::one(sessions, wanted, |session| session.row.id.to_string()).map_err(sessions::not_one)
}

fn not_played(visitor: &Visitor<'_>, session: &SessionView, error: &ReplayError) -> Reply {
    let id = session.row.id;
    let auditor = format!("an auditor can play it: tidegate recording play {id} --identity FILE");
    let refusal = match error {
        ReplayError::NoKey => {
            let length = visitor.ssh.gate.recorder.window().map(|window| window.length()).unwrap_or_default();
            Refusal::new(if length.is_zero() {
                "recordings are for auditors here, and the gateway itself has no key to them".to_owned()
            } else {
                let length = jiff::SignedDuration::try_from(length).unwrap_or_default();
                format!("the gateway has no key to this recording: it keeps one for {length:#} after a session")
            })
            .next(auditor)
        }
        ReplayError::Live => Refusal::new(format!("the session {id} is still live")).next("play it once it has ended"),
        ReplayError::Changed(_) | ReplayError::Read(_) => {
            tracing::error!(session = %id, %error, "a recording is not played");
            Refusal::new("this recording cannot be shown, since it does not verify").next("tell your admin")
        }
    };
    Reply::refused(&refusal)
}

/// In time on a terminal; at once otherwise, where nobody is watching.
async fn show(visitor: &Visitor<'_>, replay: Replay, settings: Settings) -> Result<(), ReadError> {
    let mut player = Player::new(replay, settings);
    let mut due = Instant::now();
    loop {
        // A few steps at a time: no thread is held while somebody watches.
        let made = spawn_blocking(move || {
            let steps: Vec<_> = player.by_ref().take(AHEAD).collect();
            (player, steps)
        });
        let (rest, steps) = made.await.map_err(|error| ReadError::Io(io::Error::other(error)))?;
        player = rest;
        if steps.is_empty() {
            return Ok(());
        }
        for step in steps {
            if !take(visitor, step?, &mut due).await {
                return Ok(());
            }
        }
    }
}

/// False if nobody wants to see more.
async fn take(visitor: &Visitor<'_>, step: Step, due: &mut Instant) -> bool {
    if visitor.terminal.is_some() {
        *due = due.checked_add(step.delay).unwrap_or(*due);
        if stopped_before(visitor, *due).await {
            visitor.line.stderr("\r\nstopped\r\n".as_bytes()).await;
            return false;
        }
    }
    visitor.line.out.data_bytes(step.bytes).await.is_ok()
}

/// Waits until then. True if the person does not want to see more.
async fn stopped_before(visitor: &Visitor<'_>, due: Instant) -> bool {
    timeout_at(due, stopped(visitor)).await.is_ok()
}

/// Waits until the person types q, Ctrl-C or Ctrl-D. Cancel safe.
pub(super) async fn stopped(visitor: &Visitor<'_>) {
    loop {
        match visitor.line.up.pop().await {
            Item::Data { bytes, .. } => {
                visitor.line.up.settle(bytes.len());
                if bytes.iter().any(|byte| matches!(byte, b'q' | 0x03 | 0x04)) {
                    return;
                }
            }
            Item::Event(FromClient::Close) | Item::Overrun => return,
            Item::Event(_) => {}
        }
    }
}
