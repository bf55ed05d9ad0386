//! Connections to the target between two channels of one session.
//!
//! A connection carries one channel at a time. One whose channel has ended cleanly is kept for the session's next, which
//! then needs no handshake and no certificate: Ansible and a ControlMaster open dozens of channels one after the other.
//! Never for another session: it is dropped with the session's relay, and so closed.

use super::target::TargetConnection;
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// More than this are not kept: what a person runs side by side in one go.
const MOST_KEPT: usize = 4;
/// One that has not been needed for so long is closed.
const KEPT_FOR: Duration = Duration::from_secs(300);

/// A session's idle connections, each with the time since when it is.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Vec<(Instant, TargetConnection)>>);

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, TargetConnection)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps it, or closes it if there is no need of another one.
    pub(super) fn keep(&self, target: TargetConnection) {
        let mut kept = self.lock();
        if kept.len() < MOST_KEPT && target.idle() {
            kept.push((Instant::now(), target));
        }
    }

    /// The one that was used last, if any is still alive as far as we know.
    pub(super) fn take(&self) -> Option<TargetConnection> {
        let mut kept = self.lock();
        kept.retain(|(_, target)| target.idle());
        kept.pop().map(|(_, target)| target)
    }

    /// Closes those that were not needed for long, and those that are dead. Never returns.
    pub(super) async fn age(&self) {
        loop {
            sleep(KEPT_FOR / 10).await;
            let now = Instant::now();
            self.lock().retain(|(since, target)| target.idle() && now.duration_since(*since) < KEPT_FOR);
        }
    }
}
