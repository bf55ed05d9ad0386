//! Wrong passwords, counted: each makes the next answer slower, and too many make the password void.
//!
//! Pure: time is an argument. What always holds: the wait depends on the name and on the guesses alone, never on
//! whether there is such a password, or the waits would tell. So there are two tallies: one for all names alike, which
//! makes them wait, and one of passwords that exist, which voids them, and which no made-up name can push anything out of.

use jiff::{SignedDuration, Timestamp};
use std::{collections::HashMap, hash::Hash, time::Duration};

/// Wrong proofs within [`MEMORY`] that make a password void.
const MOST: u32 = 10;
/// Guesses older than this are forgotten.
const MEMORY: SignedDuration = SignedDuration::from_mins(15);
/// The wait behind the first wrong guess; each further one doubles it.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(5);
/// So many names are counted at once for their waits; all further ones wait longest.
const NAMES: usize = 4096;

/// What a wrong proof leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The answer waits so long.
    pub(super) delay: Duration,
    /// The password is to be made void.
    pub(super) void: bool,
}

#[derive(Debug, Clone, Copy)]
struct Tally {
    wrong: u32,
    last: Timestamp,
}

/// The tallies of one gateway.
#[derive(Debug)]
pub(super) struct Guesses<K> {
    /// Of all names, for the wait.
    names: HashMap<K, Tally>,
    /// Of passwords that exist, for the void.
    real: HashMap<K, Tally>,
}

impl<K> Default for Guesses<K> {
    fn default() -> Self {
        Self { names: HashMap::new(), real: HashMap::new() }
    }
}

impl<K: Hash + Eq + Clone> Guesses<K> {
    /// A wrong proof for `key`; `real` if it could have opened a password, which decides about the void alone.
    pub(super) fn wrong(&mut self, key: K, real: bool, now: Timestamp) -> Verdict {
        self.names.retain(|_, tally| now.duration_since(tally.last) < MEMORY);
        self.real.retain(|_, tally| now.duration_since(tally.last) < MEMORY);
        let void = real && count(&mut self.real, key.clone(), now) >= MOST;
        if self.names.len() >= NAMES && !self.names.contains_key(&key) {
            return Verdict { delay: LONGEST, void };
        }
        let wrong = count(&mut self.names, key, now);
        Verdict { delay: wait(wrong), void }
    }

    /// How long the next one waits, as things stand.
    pub(super) fn delay(&mut self, key: &K, now: Timestamp) -> Duration {
        self.names.retain(|_, tally| now.duration_since(tally.last) < MEMORY);
        match self.names.get(key) {
            Some(tally) => wait(tally.wrong),
            None if self.names.len() >= NAMES => LONGEST,
            None => Duration::ZERO,
        }
    }

    /// The right password came, or a new one was issued. The wait stays: it is for wrong proofs only, and a wait that
    /// became short would tell a guesser that there is somebody who has the password.
    pub(super) fn forget(&mut self, key: &K) {
        self.real.remove(key);
    }
}

/// Behind so many wrong ones.
fn wait(wrong: u32) -> Duration {
    FIRST.saturating_mul(1 << wrong.saturating_sub(1).min(16)).min(LONGEST)
}

/// One more.
fn count<K: Hash + Eq>(tallies: &mut HashMap<K, Tally>, key: K, now: Timestamp) -> u32 {
    let tally = tallies.entry(key).or_insert(Tally { wrong: 0, last: now });
    *tally = Tally { wrong: tally.wrong.saturating_add(1), last: now };
    tally.wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_guess_waits_longer_and_the_tenth_voids() {
        let (mut guesses, now) = (Guesses::default(), Timestamp::UNIX_EPOCH);
        let verdicts: Vec<Verdict> = (0..10).map(|_| guesses.wrong("alice", true, now)).collect();
        assert!(verdicts.is_sorted_by_key(|v| v.delay));
        assert_eq!(verdicts.iter().map(|v| v.void).collect::<Vec<_>>(), [vec![false; 9], vec![true]].concat());
        assert_eq!(verdicts.last().map(|v| v.delay), Some(LONGEST));
    }

    #[test]
    fn strangers_wait_as_long_but_void_nothing() {
        let (mut guesses, now) = (Guesses::default(), Timestamp::UNIX_EPOCH);
        for _ in 0..30 {
            let (real, stranger) = (guesses.wrong("alice", true, now), guesses.wrong("mallory", false, now));
            assert_eq!((real.delay, stranger.void), (stranger.delay, false));
        }
    }

    #[test]
    fn a_void_password_waits_as_one_that_never_was() {
        let (mut guesses, now) = (Guesses::default(), Timestamp::UNIX_EPOCH);
        for n in 0..30 {
            let real = guesses.wrong("alice", n < 10, now); // void from the tenth on
            assert_eq!(real.delay, guesses.wrong("mallory", false, now).delay, "after {n}");
        }
    }

    #[test]
    fn guesses_are_forgotten_in_time_and_by_the_right_password() {
        let (mut guesses, now) = (Guesses::default(), Timestamp::UNIX_EPOCH);
        let first = guesses.wrong("alice", true, now);
        guesses.wrong("alice", true, now);
        assert_eq!(guesses.wrong("alice", true, now + MEMORY), first);
        for _ in 0..8 {
            guesses.wrong("alice", true, now + MEMORY);
        }
        guesses.forget(&"alice");
        assert_eq!(guesses.wrong("alice", true, now + MEMORY), Verdict { delay: LONGEST, void: false });
    }

    #[test]
    fn a_flood_of_made_up_names_is_bounded_makes_all_wait_and_still_voids() {
        let (mut guesses, now) = (Guesses::default(), Timestamp::UNIX_EPOCH);
        for n in 0..2 * NAMES {
            guesses.wrong(n.to_string(), false, now);
        }
        assert_eq!(guesses.names.len(), NAMES);
        for n in 1..=MOST {
            let real = guesses.wrong("alice".to_owned(), true, now);
            assert_eq!((real.delay, real.void), (LONGEST, n == MOST));
            assert_eq!(guesses.wrong("mallory".to_owned(), false, now).delay, LONGEST);
        }
    }
}
