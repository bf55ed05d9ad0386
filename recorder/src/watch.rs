//! Watching a session while it is made: what to write into the terminal of who watches. It neither sleeps nor writes.
//!
//! What always holds: what comes out is as inert as a replay; and a session waits for nobody who watches it ([`recent`](crate::recent)).

use crate::{
    LiveRecording,
    replay::{Moment, What},
    sent::Sent,
    shown::Shown,
};
use std::{
    fmt,
    task::{Context, Poll, ready},
};

/// Somebody's view of a live session.
pub struct Watcher {
    view: Option<(u16, u16)>,
    shown: Shown,
    sent: Sent,
    /// What they have not seen begins here.
    next: Option<u64>,
    over: bool,
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Watcher {
    /// `view`: the watcher's terminal, columns and rows; what does not fit is clipped.
    pub fn new(view: Option<(u16, u16)>) -> Self {
        Self { view, shown: Shown::new(view, None), sent: Sent::default(), next: None, over: false }
    }

    /// What to write next, which can be nothing. The first begins with what the session showed last. `None`: the session is over.
    pub fn poll(&mut self, recording: &LiveRecording, context: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let news = ready!(recording.recent.poll_after(self.next, context));
        let mut out = String::new();
        if news.anew {
            out.push_str(&self.shown.leave());
            if self.next.is_some() {
                out.push_str("[skipped: more came than could be shown; this is what came last]\r\n");
            }
            (self.shown, self.sent) = (Shown::new(self.view, None), Sent::default());
        }
        for seen in news.seen {
            let took = self.sent.took(&seen.event, seen.elapsed);
            let moment = Moment { frame: 0, elapsed: seen.elapsed, at: seen.at, took, what: What::Event(seen.event) };
            out.push_str(&self.shown.show(&moment));
        }
        self.next = Some(news.next);
        if news.over {
            self.over = true;
            out.push_str(&self.shown.leave());
            out.push_str("[the session is over]\r\n");
        }
        Poll::Ready(Some(out.into_bytes()))
    }
}
