//! Those who did not get as far as a session: bad bytes, plaintext, an unknown name, a wrong password.
//!
//! Each is in the ledger, but the ledger is not theirs to fill: past a few entries a minute from one address, the rest
//! are counted, and the count is written with the next entry.

use jiff::Timestamp;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tidegate_grants::{Event, Reference, Store};

/// Entries that one address gets in a [`WINDOW`].
const MOST_ENTRIES: u32 = 20;
/// Entries that all addresses together get in a [`WINDOW`].
const MOST_ENTRIES_IN_ALL: u32 = 300;
/// Addresses that are told apart in a [`WINDOW`]; past that they share one count.
const MOST_SOURCES: usize = 4096;
const WINDOW: Duration = Duration::from_secs(60);
/// What a peer says of itself is cut to this many bytes.
const LONGEST_NAME: usize = 128;

/// Somebody who was turned away.
#[derive(Debug)]
pub struct TurnedAway<'a> {
    /// `ssh` or `postgres`.
    pub protocol: &'static str,
    /// From where.
    pub source: IpAddr,
    /// The name that they gave, if any.
    pub name: Option<&'a str>,
    /// What they asked for, if it came to that.
    pub asked: Option<&'a str>,
    /// Why, for the ledger.
    pub why: &'a str,
    /// Which check said no, in a word.
    pub check: &'static str,
}

/// Writes `door.refused` entries. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Door {
    store: Arc<Store>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug)]
struct Seen {
    since: Instant,
    entries: u32,
    by_source: HashMap<IpAddr, u32>,
    uncounted: u64,
}

impl Seen {
    fn new(now: Instant) -> Self {
        Self { since: now, entries: 0, by_source: HashMap::new(), uncounted: 0 }
    }

    /// Whether this one is written; if so, with how many that were not since the last.
    fn admit(&mut self, source: IpAddr, now: Instant) -> Option<u64> {
        if now.duration_since(self.since) >= WINDOW {
            *self = Self { uncounted: self.uncounted, ..Self::new(now) };
        }
        let known = self.by_source.len() < MOST_SOURCES || self.by_source.contains_key(&source);
        let mine = known.then(|| {
            let mine = self.by_source.entry(source).or_default();
            *mine = mine.saturating_add(1);
            *mine
        });
        if mine.is_none_or(|mine| mine > MOST_ENTRIES) || self.entries >= MOST_ENTRIES_IN_ALL {
            self.uncounted = self.uncounted.saturating_add(1);
            return None;
        }
        self.entries += 1;
        Some(std::mem::take(&mut self.uncounted))
    }
}

impl Door {
    /// Writing to this ledger.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, seen: Arc::new(Mutex::new(Seen::new(Instant::now()))) }
    }

    /// Writes that somebody was turned away, or counts it in a flood. What was written has a reference, which the person may
    /// be told.
    pub async fn turned_away(&self, refused: TurnedAway<'_>, now: Timestamp) -> Option<Reference> {
        let admitted = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.admit(refused.source, Instant::now())
        };
        let (uncounted, reference) = (admitted?, Reference::new());
        let name = refused.name.map(plain);
        tracing::info!(protocol = refused.protocol, source = %refused.source, name, why = refused.why, "turned away");
        let mut detail = serde_json::json!({
            "protocol": refused.protocol, "source": refused.source, "name": name, "why": refused.why,
            "check": refused.check, "ref": reference, "asked": refused.asked.map(plain),
        });
        if let (true, Some(detail)) = (uncounted > 0, detail.as_object_mut()) {
            detail.insert("not_written".to_owned(), uncounted.into());
        }
        if let Err(error) = self.store.append(Event::new("door.refused").detail(detail), now).await {
            tracing::error!(%reference, %error, "a refusal could not be written");
        }
        Some(reference)
    }
}

/// Cut, and with control characters escaped: a log is read in a terminal.
fn plain(name: &str) -> String {
    let mut end = name.len().min(LONGEST_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or_default().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn flood_is_counted_and_the_count_is_written_later() {
        let start = Instant::now();
        let mut seen = Seen::new(start);
        let flooder = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let other = IpAddr::V4(Ipv4Addr::BROADCAST);
        let written = (0..1000).filter(|_| seen.admit(flooder, start).is_some()).count();
        assert_eq!(written, MOST_ENTRIES as usize);
        assert_eq!(seen.admit(other, start), Some(1000 - u64::from(MOST_ENTRIES)));
        assert_eq!(seen.admit(flooder, start), None);
        assert_eq!(seen.admit(flooder, start + WINDOW), Some(1));
    }

    #[test]
    fn many_addresses_together_are_bounded_too() {
        let start = Instant::now();
        let mut seen = Seen::new(start);
        let addresses = (0..100_000u32).map(|n| IpAddr::V4(Ipv4Addr::from(n)));
        assert_eq!(addresses.filter(|a| seen.admit(*a, start).is_some()).count(), MOST_ENTRIES_IN_ALL as usize);
        assert!(seen.by_source.len() <= MOST_SOURCES);
    }

    #[test]
    fn names_are_cut_at_a_character_and_escaped() {
        assert_eq!(plain("root\n\u{1b}[2J"), r"root\n\u{1b}[2J");
        assert!(plain(&"ä".repeat(100)).len() <= LONGEST_NAME);
    }
}
