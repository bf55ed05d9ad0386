//! The windows of a client connection.

use super::{BUSY, LEAST, OPEN, SHARED, TRICKLE, stream::Hold};
use std::sync::Arc;
use tokio::time::Instant;

/// Who is stalled on a connection.
#[derive(Debug, Clone, Copy, Default)]
pub(in super::super) struct Stalled {
    /// The channel that asks for a window.
    pub(in super::super) asker: bool,
    /// Any channel.
    pub(in super::super) anyone: bool,
    /// How many channels are open.
    pub(in super::super) channels: usize,
}

/// The windows of one client connection.
#[derive(Debug)]
pub(in super::super) struct Windows {
    hold: Arc<Hold>,
    held_until: Option<Instant>,
    busy_until: Option<Instant>,
}

impl Windows {
    pub(in super::super) fn new(hold: Arc<Hold>) -> Self {
        Self { hold, held_until: None, busy_until: None }
    }

    /// So many bytes arrived in one packet.
    pub(in super::super) fn seen(&mut self, bytes: usize, now: Instant) {
        if bytes > 64 {
            self.busy_until = Some(now + BUSY);
        }
    }

    /// The answer to `adjust_window`: the window of the whole connection. `granted` is what the channel that asks just got.
    pub(in super::super) fn next(&mut self, granted: u32, stalled: Stalled, now: Instant) -> u32 {
        if !stalled.anyone {
            let channels = u32::try_from(stalled.channels).unwrap_or(u32::MAX).max(1);
            return (SHARED / channels).clamp(LEAST, OPEN);
        }
        let free = |until: Option<Instant>| until.is_none_or(|until| until < now);
        if stalled.asker && granted <= TRICKLE && free(self.held_until) && free(self.busy_until) {
            self.held_until = Some(self.hold.set(now));
        }
        TRICKLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_close_to_a_trickle_while_somebody_is_stalled_and_never_to_nothing() {
        let hold = Arc::new(Hold::default());
        let mut windows = Windows::new(hold.clone());
        let now = Instant::now();
        let [nobody, other, asker] =
            [(false, false), (false, true), (true, true)].map(|(asker, anyone)| Stalled { asker, anyone, channels: 1 });
        assert_eq!(windows.next(OPEN, nobody, now), OPEN);
        assert_eq!(windows.next(OPEN, asker, now), TRICKLE);
        assert!(hold.take_if_over(now).is_none(), "held after a full window");
        assert_eq!(windows.next(TRICKLE, other, now), TRICKLE);
        assert!(hold.take_if_over(now).is_none(), "held for one who is not stalled");
        assert_eq!(windows.next(TRICKLE, asker, now), TRICKLE);
        assert!(hold.take_if_over(now).is_some());
        assert_eq!(windows.next(TRICKLE, nobody, now), OPEN);
    }

    #[test]
    fn many_channels_share_what_one_connection_may_have_on_its_way() {
        let mut windows = Windows::new(Arc::default());
        let mut window = |channels| windows.next(OPEN, Stalled { channels, ..Stalled::default() }, Instant::now());
        assert_eq!([window(0), window(1)], [OPEN; 2]);
        assert_eq!(window(16), SHARED / 16);
        assert_eq!(window(10_000), LEAST);
    }
}
