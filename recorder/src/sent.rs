//! When what waits for its result was sent.
//!
//! What always holds: a result is timed from what it answers by number, and where the recording says that this is not known, not
//! at all. Recordings of before there were numbers are timed from what was sent last. Memory is bounded: of very many
//! that wait, the oldest are forgotten, and their results are not timed.

use crate::Event;
use std::{collections::BTreeMap, time::Duration};

/// As many as the gateway itself follows.
const MOST: usize = 32 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Sent {
    at: BTreeMap<u64, Duration>,
    last: Option<Duration>,
}

impl Sent {
    /// Notes what was sent `now`, or says how long ago what this event answers was.
    pub(crate) fn took(&mut self, event: &Event, now: Duration) -> Option<Duration> {
        let sent = match event {
            Event::Statement { number, .. } | Event::Executed { number, .. } => {
                self.note(*number, now);
                self.last = Some(now);
                return None;
            }
            Event::Bound { number, .. } => {
                self.note(*number, now);
                return None;
            }
            Event::Completed { of: Some(number), .. } | Event::Reported { of: Some(number), .. } => {
                self.at.get(number).copied()
            }
            Event::Completed { of: None, .. } | Event::Reported { of: None, .. } => {
                self.last.filter(|_| self.at.is_empty())
            }
            Event::Cancelled => self.last,
            _ => None,
        };
        sent.map(|sent| now.saturating_sub(sent))
    }

    fn note(&mut self, number: Option<u64>, now: Duration) {
        self.at.extend(number.map(|number| (number, now)));
        if self.at.len() > MOST {
            self.at.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn executed(number: Option<u64>) -> Event {
        Event::Executed { portal: String::new(), rows: 0, number, statement: None }
    }

    fn completed(of: Option<u64>) -> Event {
        Event::Completed { tag: String::new(), rows: 0, of, suspended: false }
    }

    #[test]
    fn each_result_is_timed_from_what_it_answers() {
        let (mut sent, ms) = (Sent::default(), Duration::from_millis);
        sent.took(&executed(Some(1)), ms(0));
        sent.took(&executed(Some(2)), ms(5));
        assert_eq!(sent.took(&completed(Some(1)), ms(7)), Some(ms(7)));
        assert_eq!(sent.took(&completed(Some(2)), ms(8)), Some(ms(3)));
        assert_eq!(sent.took(&completed(Some(3)), ms(9)), None);
        assert_eq!(sent.took(&completed(None), ms(9)), None, "not known to whom");
    }

    #[test]
    fn without_numbers_the_time_runs_from_what_was_sent_last() {
        let (mut sent, ms) = (Sent::default(), Duration::from_millis);
        assert_eq!(sent.took(&completed(None), ms(1)), None);
        sent.took(&executed(None), ms(2));
        assert_eq!(sent.took(&completed(None), ms(5)), Some(ms(3)));
    }

    #[test]
    fn very_many_that_wait_cost_no_more_memory() {
        let mut sent = Sent::default();
        for number in 0..100_000 {
            sent.took(&executed(Some(number)), Duration::ZERO);
        }
        assert_eq!(sent.at.len(), MOST);
        assert_eq!(sent.took(&completed(Some(5)), Duration::ZERO), None);
        assert_eq!(sent.took(&completed(Some(99_999)), Duration::ZERO), Some(Duration::ZERO));
    }
}
