//! Tells people what the ledger says, by mail and by webhooks.
//!
//! What always holds: the ledger is the queue. Each channel has a cursor in it that is on disk, and moves on only when what is there
//! was taken by its receiver or put among the dead letters; so no decision waits for a delivery, a restart loses nothing, and what was
//! under way when the gateway was killed is told again, under the same id. What comes first is told first: a receiver that is down
//! keeps its own channel waiting, and no other.

mod body;
mod cursor;
mod mail;
mod route;
mod webhook;

pub(crate) use body::Format;
pub(crate) use cursor::Dead;
pub(crate) use mail::{Mail, Smtp, SmtpTls};
pub(crate) use route::Kind;
pub(crate) use webhook::Webhook;

use crate::live::Live;
use body::Letter;
use cursor::{Cursor, Failing};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tidegate_grants::{Event, StoreError, ledger::Entry};
use tidegate_proxy::Gate;
use tokio::{sync::Notify, task::JoinSet, time::timeout};

/// The ledger is looked at so often.
const LOOK: Duration = Duration::from_millis(500);
/// So many entries at once.
const BATCH: u32 = 256;
/// After the first failure; each further one doubles it, up to [`LONGEST`], and half of it is chance.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// A receiver that took nothing for so long is given up for what is first in its queue.
const GIVE_UP: SignedDuration = SignedDuration::from_hours(24);

/// One `[[notify]]`.
#[derive(Debug)]
pub(crate) struct Channel {
    /// Its name.
    pub(crate) name: String,
    /// What it is told of.
    pub(crate) kinds: Vec<Kind>,
    /// How.
    pub(crate) way: Way,
}

/// How a channel is told.
#[derive(Debug)]
pub(crate) enum Way {
    /// By mail.
    Mail(Mail),
    /// By a POST.
    Webhook(Webhook),
}

impl fmt::Display for Way {
    /// A webhook's path may be a secret in itself.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mail(mail) => {
                let to: Vec<String> = mail.to.iter().map(|to| to.email.to_string()).collect();
                write!(f, "mail to {}", to.join(", "))
            }
            Self::Webhook(webhook) => {
                let signed = if webhook.key.is_some() { "a signed" } else { "an unsigned" };
                write!(f, "{signed} POST to {}", webhook.uri.authority().map_or("", |authority| authority.as_str()))
            }
        }
    }
}

/// Why something was not taken.
#[derive(Debug)]
pub(crate) enum NotTaken {
    /// It may be later.
    Later(String),
    /// It never will be.
    Never(String),
}

/// Follows the ledger for every channel.
#[derive(Debug)]
pub(crate) struct Notifier {
    gate: Gate,
    live: Arc<Live>,
    folder: PathBuf,
    cursors: Mutex<BTreeMap<String, Cursor>>,
    /// Somebody asked to try again now.
    again: Notify,
}

/// A channel as `notify list` shows it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct ChannelView {
    /// Its name.
    pub(crate) name: String,
    /// What it is told of.
    pub(crate) kinds: Vec<String>,
    /// The last entry of the ledger that it is done with.
    pub(crate) seq: u64,
    /// Why the one behind that is not taken, if it is being tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failing: Option<String>,
    /// What was given up.
    pub(crate) dead: Vec<Dead>,
}

impl Notifier {
    /// Reads where each channel is when it is first looked at.
    pub(crate) fn new(gate: Gate, live: Arc<Live>) -> Self {
        let folder = live.config().state_dir.join("notify");
        Self { gate, live, folder, cursors: Mutex::default(), again: Notify::new() }
    }

    /// Finds where each channel is, so that one that is new misses nothing from now on.
    pub(crate) async fn begin(&self) {
        for channel in &self.live.config().notify {
            if let Err(error) = self.cursor(&channel.name).await {
                tracing::error!(channel = channel.name, %error, "the notifier cannot begin yet");
            }
        }
    }

    /// Follows the ledger until it is dropped; a reload begins anew with the channels of the new configuration.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let config = self.live.config();
            self.begin().await;
            let mut channels = JoinSet::new();
            for channel in config.notify.iter().cloned() {
                channels.spawn(self.clone().follow(channel));
            }
            while Arc::ptr_eq(&config, &self.live.config()) {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// What each channel of the configuration has behind it.
    pub(crate) async fn list(&self) -> Vec<ChannelView> {
        let mut views = Vec::new();
        for channel in &self.live.config().notify {
            let Ok(cursor) = self.cursor(&channel.name).await else { continue };
            views.push(ChannelView {
                name: channel.name.clone(),
                kinds: channel.kinds.iter().map(ToString::to_string).collect(),
                seq: cursor.seq,
                failing: cursor.failing.map(|failing| failing.error),
                dead: cursor.dead,
            });
        }
        views
    }

    /// Takes the dead letters of this channel, or of all, up again, and tries at once. How many there were.
    pub(crate) async fn retry(&self, name: Option<&str>) -> Result<usize, StoreError> {
        let mut count = 0;
        for channel in &self.live.config().notify {
            if name.is_some_and(|name| name != channel.name) {
                continue;
            }
            self.cursor(&channel.name).await?;
            self.change(&channel.name, |cursor| {
                count += cursor.dead.len();
                cursor.revive();
            })?;
        }
        self.again.notify_waiters();
        Ok(count)
    }

    /// One channel, one entry after the other.
    async fn follow(self: Arc<Self>, channel: Arc<Channel>) {
        loop {
            match self.step(&channel).await {
                Ok(true) => {}
                Ok(false) => self.pause(LOOK).await,
                Err(error) => {
                    tracing::error!(channel = channel.name, %error, "the notifier cannot go on");
                    self.pause(FIRST).await;
                }
            }
        }
    }

    /// False: there is nothing to tell now.
    async fn step(&self, channel: &Channel) -> Result<bool, StoreError> {
        let cursor = self.cursor(&channel.name).await?;
        if let Some(seq) = cursor.again.first().copied() {
            let entry = self.entries(seq.saturating_sub(1), 1).await?.into_iter().find(|entry| entry.seq == seq);
            return match entry {
                Some(entry) => self.tell(channel, &entry).await.map(|()| true),
                None => self.change(&channel.name, |cursor| cursor.done(seq)).map(|()| true),
            };
        }
        let entries = self.entries(cursor.seq, BATCH).await?;
        let Some(last) = entries.last().map(|entry| entry.seq) else { return Ok(false) };
        match entries.into_iter().find(|entry| channel.kinds.iter().any(|kind| kind.includes(&entry.event))) {
            Some(entry) => self.tell(channel, &entry).await?,
            // Nothing in it was for this channel: after a restart it is looked through again, which costs nothing.
            None => self.pass(&channel.name, last),
        }
        Ok(true)
    }

    /// Until it is taken, or given up.
    async fn tell(&self, channel: &Channel, entry: &Entry) -> Result<(), StoreError> {
        let config = self.live.config();
        let url = config.api.as_ref().and_then(|api| api.url.as_deref());
        let letter = Letter { gateway: &self.gate.name, entry, url };
        let outcome = match &channel.way {
            Way::Mail(mail) => mail.send(&letter, &channel.name).await,
            Way::Webhook(webhook) => webhook.post(&letter, self.gate.now()).await,
        };
        let now = self.gate.now();
        match outcome {
            Ok(()) => self.change(&channel.name, |cursor| cursor.done(entry.seq)),
            Err(NotTaken::Never(error)) => self.give_up(channel, entry, error, now).await,
            Err(NotTaken::Later(error)) => {
                let failing = self.cursor(&channel.name).await?.failing.filter(|failing| failing.seq == entry.seq);
                let (since, tries) = failing.map_or((now, 0), |failing| (failing.since, failing.tries));
                if now.duration_since(since) >= GIVE_UP {
                    return self.give_up(channel, entry, error, now).await;
                }
                tracing::warn!(channel = channel.name, error, tries, "somebody is not told yet");
                let failing = Failing { seq: entry.seq, since, tries: tries.saturating_add(1), error };
                self.change(&channel.name, |cursor| cursor.failing = Some(failing.clone()))?;
                self.pause(wait(tries)).await;
                Ok(())
            }
        }
    }

    /// It goes among the dead letters, and the ledger says so.
    async fn give_up(&self, channel: &Channel, entry: &Entry, error: String, now: Timestamp) -> Result<(), StoreError> {
        tracing::error!(channel = channel.name, error, seq = entry.seq, "somebody is not told: it is a dead letter");
        let detail = json!({ "channel": channel.name, "of": entry.seq, "kind": entry.event.kind, "why": error });
        self.gate.store.append(Event::new("notify.dead").detail(detail), now).await?;
        let dead = Dead { seq: entry.seq, kind: entry.event.kind.clone(), at: entry.at, error };
        self.change(&channel.name, |cursor| {
            cursor.done(entry.seq);
            cursor.dead.push(dead.clone());
        })
    }

    async fn entries(&self, behind: u64, most: u32) -> Result<Vec<Entry>, StoreError> {
        self.gate.store.after(&self.gate.authority.policy().node, behind, most).await
    }

    async fn pause(&self, length: Duration) {
        let _ = timeout(length, self.again.notified()).await; // or until somebody asks
    }

    /// Where a channel is. One that is new begins at the ledger's end.
    async fn cursor(&self, name: &str) -> Result<Cursor, StoreError> {
        if let Some(cursor) = self.known().get(name) {
            return Ok(cursor.clone());
        }
        let cursor = match Cursor::read(&self.folder, name) {
            Ok(Some(cursor)) => cursor,
            Ok(None) => {
                let seq = self.gate.store.tail(1).await?.last().map_or(0, |entry| entry.seq);
                let cursor = Cursor::at(seq);
                cursor.write(&self.folder, name).map_err(unwritten)?;
                cursor
            }
            Err(error) => return Err(unwritten(error)),
        };
        Ok(self.known().entry(name.to_owned()).or_insert(cursor).clone())
    }

    /// On disk first.
    fn change(&self, name: &str, change: impl FnOnce(&mut Cursor)) -> Result<(), StoreError> {
        let mut known = self.known();
        let Some(cursor) = known.get_mut(name) else { return Ok(()) };
        let mut changed = cursor.clone();
        change(&mut changed);
        changed.write(&self.folder, name).map_err(unwritten)?;
        *cursor = changed;
        Ok(())
    }

    fn pass(&self, name: &str, seq: u64) {
        if let Some(cursor) = self.known().get_mut(name) {
            cursor.seq = cursor.seq.max(seq);
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Cursor>> {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unwritten(error: std::io::Error) -> StoreError {
    StoreError::Database(format!("the notifier's place in the ledger: {error}"))
}

/// Behind so many tries: twice as long each time, and between half of it and all of it, so that many do not come back at once.
fn wait(tries: u32) -> Duration {
    let most = FIRST.saturating_mul(1 << tries.min(16)).min(LONGEST);
    let mut chance = [0u8; 1];
    let _ = getrandom::fill(&mut chance); // without chance it is the shortest wait
    most.mul_f64(0.5 + f64::from(chance.first().copied().unwrap_or_default()) / 512.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_up_to_twice_as_long_as_the_one_before_and_none_is_endless() {
        for tries in 0..40 {
            let most = FIRST.saturating_mul(1 << tries.min(16)).min(LONGEST);
            let wait = wait(tries);
            assert!(wait >= most / 2 && wait <= most, "{tries}: {wait:?}");
        }
    }
}
