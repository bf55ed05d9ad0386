//! How often somebody may ask, and how often something is noted. Pure: time is an argument.

use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use tidegate_grants::TokenId;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
/// Between two notes of one kind.
const BETWEEN: SignedDuration = SignedDuration::from_mins(1);

/// Requests of each token within its minute. Only tokens that were verified are counted, and only for a minute: so memory is
/// bounded by the tokens that there are.
#[derive(Debug, Default)]
pub(super) struct Rates(HashMap<TokenId, (Timestamp, u32)>);

impl Rates {
    /// One more request of this token; too many: the seconds until its next minute.
    pub(super) fn take(&mut self, token: TokenId, most: u32, now: Timestamp) -> Result<(), u32> {
        // A clock that was set back does not keep anybody out.
        self.0.retain(|_, (began, _)| (SignedDuration::ZERO..MINUTE).contains(&now.duration_since(*began)));
        let (began, asked) = self.0.entry(token).or_insert((now, 0));
        if *asked >= most {
            let left = MINUTE - now.duration_since(*began);
            return Err(u32::try_from(left.as_secs()).unwrap_or(0) + 1);
        }
        *asked += 1;
        Ok(())
    }
}

/// What comes often is noted now and then, with how often it was not.
#[derive(Debug, Default)]
pub(super) struct NowAndThen {
    last: Option<Timestamp>,
    missed: u64,
}

impl NowAndThen {
    /// To be noted: how many were not since the last note.
    pub(super) fn due(&mut self, now: Timestamp) -> Option<u64> {
        if self.last.is_some_and(|last| (SignedDuration::ZERO..BETWEEN).contains(&now.duration_since(last))) {
            self.missed = self.missed.saturating_add(1);
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.missed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_waits_for_its_next_minute_and_nobody_else_does() {
        let (mut rates, now) = (Rates::default(), Timestamp::UNIX_EPOCH + MINUTE);
        let (busy, other) = (TokenId::new(), TokenId::new());
        assert!((0..3).all(|_| rates.take(busy, 3, now).is_ok()));
        assert_eq!(rates.take(busy, 3, now + SignedDuration::from_secs(20)), Err(41));
        assert_eq!(rates.take(other, 3, now), Ok(()));
        assert_eq!(rates.take(busy, 3, now + MINUTE), Ok(()));
        assert_eq!(rates.take(busy, 1, now - MINUTE), Ok(()), "the clock was set back");
    }

    #[test]
    fn a_flood_is_noted_once_a_minute_and_counted() {
        let (mut notes, now) = (NowAndThen::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(notes.due(now), Some(0));
        assert!((0..7).all(|_| notes.due(now).is_none()));
        assert_eq!(notes.due(now + BETWEEN), Some(7));
    }
}
