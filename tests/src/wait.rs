//! Waiting for something that can be observed, with a deadline and a name for the failure.

use std::{
    thread,
    time::{Duration, Instant},
};

/// So many seconds.
pub const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Looks again and again until `look` finds something.
///
/// # Panics
/// With `what` in the message, if it is not there at the deadline.
pub fn wait_until<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited {deadline:?} in vain until {what}");
        thread::sleep(Duration::from_millis(40));
    }
}
