//! What the gateway wrote down, as its own commands print it.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// The ledger, oldest entry first.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// Its entries as `ledger tail --json` prints them.
    pub entries: Vec<Value>,
}

impl Ledger {
    /// Entries of this kind.
    pub fn all(&self, kind: &str) -> Vec<&Value> {
        self.entries.iter().filter(|entry| entry["kind"] == kind).collect()
    }

    /// The last entry of this kind.
    pub fn last(&self, kind: &str) -> Option<&Value> {
        self.all(kind).pop()
    }

    /// The only entry of this kind.
    #[track_caller]
    pub fn one(&self, kind: &str) -> &Value {
        let found = self.all(kind);
        assert_eq!(found.len(), 1, "one entry of kind {kind} in\n{}", self.story());
        found[0]
    }

    /// How many entries of this kind.
    pub fn count(&self, kind: &str) -> usize {
        self.all(kind).len()
    }

    /// The kinds in their order.
    pub fn kinds(&self) -> Vec<&str> {
        self.entries.iter().map(|entry| entry["kind"].as_str().unwrap_or("?")).collect()
    }

    /// Entries of one session.
    pub fn of_session(&self, session: &Value) -> Self {
        let entries = self.entries.iter().filter(|entry| &entry["session"] == session);
        Self { entries: entries.cloned().collect() }
    }

    /// Asserts that these kinds come in this order, others between them.
    #[track_caller]
    pub fn assert_order(&self, kinds: &[&str]) {
        let mut rest = self.entries.iter();
        for kind in kinds {
            assert!(rest.any(|entry| &entry["kind"] == kind), "{kind} is not in its place in\n{}", self.story());
        }
    }

    /// One line for each entry, for messages.
    pub fn story(&self) -> String {
        let line = |e: &Value| format!("{} {} {}", e["at"].as_str().unwrap_or("?"), e["kind"], e["detail"]);
        self.entries.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// When an entry was written.
pub fn at(entry: &Value) -> Timestamp {
    entry["at"].as_str().and_then(|at| at.parse().ok()).unwrap_or_else(|| panic!("no time in {entry}"))
}

/// Asserts that `later` was written at most `within` after `earlier`, by the ledger's own times.
#[track_caller]
pub fn assert_within(earlier: &Value, later: &Value, within: SignedDuration) {
    let took = at(later).duration_since(at(earlier));
    assert!(took <= within, "{took:?} from {earlier} to {later}: more than {within:?}");
}

/// What a promise of 2 seconds may take here: the promise, and as much again for a loaded test machine.
pub const TWO_SECONDS_AND_SLACK: SignedDuration = SignedDuration::from_secs(4);
