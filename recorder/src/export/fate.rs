//! Which statements of a session stayed: what was answered, and what became of its transaction.
//!
//! Follows the target's answers in their order, as PostgreSQL commits (chapter 55.2.2.1 and 55.2.4). A Query is one
//! transaction, and so is all that was executed up to a Sync, unless BEGIN and COMMIT stand in it; an error undoes what
//! of that was not committed. What always holds: [`Fate::Stays`] is said of what is surely committed, and where that is not
//! sure, [`Fate::Unsure`]. Memory is bounded: past [`MOST`] answers nothing is said of the rest.

use super::harmless::parts;
use crate::{
    Event,
    replay::{Moment, What},
};
use std::collections::{BTreeMap, BTreeSet};

/// Answers that are followed.
const MOST: usize = 1 << 20;

/// What became of one statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was committed.
    Stays,
    /// It was answered by an error.
    Failed,
    /// Its transaction was rolled back.
    RolledBack,
    /// It was not run: an error came before it.
    Skipped,
    /// It was answered, as far as the recording goes; its transaction ended with its last statement.
    Answered,
    /// Whether its transaction was committed is not known.
    Unsure,
}

/// By the number of what was sent: of each statement in it that was answered, in order.
#[derive(Debug, Default)]
pub(super) struct Fates {
    told: BTreeMap<u64, Vec<Fate>>,
    count: usize,
    /// Where a transaction of several executions without BEGIN and COMMIT of its own begins, and where it ends.
    begin: BTreeSet<u64>,
    end: BTreeSet<u64>,
    /// Of what waits for its answer, how its ROLLBACKs are meant.
    asked: BTreeMap<u64, Asked>,
    /// The same of prepared statements, if they have any.
    prepared: BTreeMap<u64, Vec<Back>>,
    /// Answered, and not yet committed or undone.
    open: Vec<(u64, usize)>,
    /// Some of that was executed by the extended protocol: up to its Sync.
    batch: bool,
    /// In a transaction that began with BEGIN.
    explicit: bool,
    /// What is open has its own BEGIN.
    began: bool,
    /// Something came of which is not known what it answers.
    lost: bool,
}

#[derive(Debug)]
struct Asked {
    batch: bool,
    /// For each of its statements; empty if none is one.
    backs: Vec<Back>,
}

/// What the tag ROLLBACK stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Back {
    /// The transaction is over.
    Whole,
    /// The same, and the next has begun.
    Chain,
    /// Back to a savepoint: the transaction goes on.
    Savepoint,
    /// It could be any of these.
    Unsure,
}

impl Back {
    /// Of each statement in this text.
    fn of(text: &str) -> Vec<Self> {
        let has = |text: &str, word: &str| {
            text.split(|c: char| !c.is_ascii_alphanumeric()).any(|found| found.eq_ignore_ascii_case(word))
        };
        if !["rollback", "abort", "commit", "end"].iter().any(|word| has(text, word)) {
            return Vec::new();
        }
        let of_one = |part: &str| match part {
            part if has(part, "to") => Self::Savepoint,
            part if has(part, "chain") && !has(part, "no") => Self::Chain,
            _ => Self::Whole,
        };
        parts(text).map_or_else(|| vec![Self::Unsure], |parts| parts.into_iter().map(of_one).collect())
    }
}

impl Fates {
    /// Of a whole recording.
    pub(super) fn of(moments: impl Iterator<Item = Result<Moment, crate::verify::ReadError>>) -> Self {
        let mut fates = Self::default();
        for moment in moments.map_while(Result::ok) {
            fates.take(&moment.what);
        }
        fates.asked.clear();
        fates.prepared.clear();
        fates
    }

    /// What is known of this, statement by statement; none if it was not answered.
    pub(super) fn told(&self, number: Option<u64>) -> &[Fate] {
        number.and_then(|number| self.told.get(&number)).map_or(&[], Vec::as_slice)
    }

    /// Whether a transaction has to begin before this.
    pub(super) fn begins(&self, number: Option<u64>) -> bool {
        number.is_some_and(|number| self.begin.contains(&number))
    }

    /// Whether one has to end behind this.
    pub(super) fn ends(&self, number: Option<u64>) -> bool {
        number.is_some_and(|number| self.end.contains(&number))
    }

    fn take(&mut self, what: &What) {
        match what {
            What::Event(Event::Statement { text, prepared, number: Some(number), .. }) => match prepared {
                Some(_) => {
                    let backs = Back::of(text);
                    if !backs.is_empty() && self.prepared.len() < MOST {
                        self.prepared.insert(*number, backs);
                    }
                }
                None => self.ask(*number, false, Back::of(text)),
            },
            What::Event(Event::Executed { number: Some(number), statement, .. }) => {
                let known = |statement: &u64| self.prepared.get(statement).cloned().unwrap_or_default();
                let backs = statement.as_ref().map_or_else(|| vec![Back::Unsure], known);
                self.ask(*number, true, backs);
            }
            What::Event(Event::Completed { tag, of: Some(number), suspended, .. }) => {
                self.completed(*number, tag, *suspended);
            }
            What::Event(Event::Completed { of: None, .. }) => self.lost = true,
            What::Event(Event::Reported { severity, of, .. })
                if ["ERROR", "FATAL", "PANIC"].contains(&severity.as_str()) =>
            {
                self.failed(*of, severity != "ERROR");
            }
            What::Event(Event::Transaction { status, .. }) => self.ready(*status),
            What::End | What::Truncated { .. } => self.over(matches!(what, What::End)),
            _ => {}
        }
    }

    fn ask(&mut self, number: u64, batch: bool, backs: Vec<Back>) {
        if self.asked.len() < MOST {
            self.asked.insert(number, Asked { batch, backs });
        }
    }

    /// The next answer is of this number: a Query before it is over, and without a word about an error that is committed.
    fn turn_to(&mut self, number: u64) {
        if !self.explicit && !self.batch && self.open.last().is_some_and(|(last, _)| *last != number) {
            self.decide(Fate::Stays);
        }
        let now = self.asked.split_off(&number);
        for (number, asked) in std::mem::replace(&mut self.asked, now) {
            if asked.batch && !self.lost && !self.told.contains_key(&number) {
                self.tell(number, 0, Fate::Skipped);
            }
        }
        self.batch |= self.asked.get(&number).is_none_or(|asked| asked.batch);
    }

    fn completed(&mut self, number: u64, tag: &str, suspended: bool) {
        self.turn_to(number);
        let nth = self.told.get(&number).map_or(0, Vec::len);
        let Some(nth) = self.tell(number, nth, Fate::Unsure) else { return };
        self.open.push((number, nth));
        if suspended {
            return;
        }
        let back = || {
            let backs = self.asked.get(&number).map_or(&[][..], |asked| &asked.backs);
            backs.get(nth).or(backs.first().filter(|back| **back == Back::Unsure)).copied().unwrap_or(Back::Whole)
        };
        match tag {
            "BEGIN" | "START TRANSACTION" => (self.explicit, self.began) = (true, true),
            "COMMIT" | "PREPARE TRANSACTION" => {
                self.explicit = back() == Back::Chain;
                self.decide(Fate::Stays);
            }
            "ROLLBACK" => match back() {
                Back::Savepoint => {}
                Back::Unsure => self.lost = true,
                whole => {
                    self.explicit = whole == Back::Chain;
                    self.decide(Fate::RolledBack);
                }
            },
            _ => {}
        }
    }

    /// An error; without a number, that of a commit at Sync.
    fn failed(&mut self, of: Option<u64>, fatal: bool) {
        if let Some(number) = of {
            self.turn_to(number);
            let nth = self.told.get(&number).map_or(0, Vec::len);
            self.tell(number, nth, Fate::Failed);
        }
        if fatal || !self.explicit {
            self.explicit = false;
            self.decide(Fate::RolledBack);
        }
    }

    /// ReadyForQuery.
    fn ready(&mut self, status: char) {
        if status == 'I' {
            // One that ended without our seeing how: nothing is sure of it.
            self.lost |= std::mem::take(&mut self.explicit);
            self.decide(Fate::Stays);
            self.lost = false;
        }
        self.explicit = status != 'I';
        self.batch = false;
    }

    fn over(&mut self, whole: bool) {
        let fate = match (self.explicit, self.batch) {
            (true, _) if whole => Fate::RolledBack,
            (false, false) => Fate::Answered,
            _ => Fate::Unsure,
        };
        self.decide(fate);
    }

    fn decide(&mut self, fate: Fate) {
        let fate = if self.lost { Fate::Unsure } else { fate };
        if let (Fate::Stays, true, false, [(first, _), .., (last, _)]) =
            (fate, self.batch, self.began, self.open.as_slice())
        {
            self.begin.insert(*first);
            self.end.insert(*last);
        }
        for (number, nth) in std::mem::take(&mut self.open) {
            if let Some(told) = self.told.get_mut(&number).and_then(|told| told.get_mut(nth)) {
                *told = fate;
            }
        }
        (self.batch, self.began) = (false, self.explicit);
    }

    fn tell(&mut self, number: u64, nth: usize, fate: Fate) -> Option<usize> {
        self.count += 1;
        if self.count > MOST {
            self.lost = true;
            return None;
        }
        self.told.entry(number).or_default().push(fate);
        Some(nth)
    }
}

#[cfg(test)]
#[path = "fate_tests.rs"]
mod tests;
