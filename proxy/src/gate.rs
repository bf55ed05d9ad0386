//! What every session needs, whatever its protocol.

use crate::{
    door::{Door, TurnedAway},
    drain::Drain,
    meter::Meter,
    reaper::Custody,
    refusal::Refusal,
    watching::Watching,
};
use jiff::Timestamp;
use std::sync::Arc;
use tidegate_grants::{Authority, Reference, Store};
use tidegate_recorder::{RecordError, Recorder};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Where the time comes from.
pub type Clock = fn() -> Timestamp;

/// The parts that sessions share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate {
    /// Says yes or no.
    pub authority: Arc<Authority>,
    /// Leases, ledger.
    pub store: Arc<Store>,
    /// Starts recordings.
    pub recorder: Arc<Recorder>,
    /// False while the disk does not take recordings: live sessions end, new ones are refused.
    pub recordable: watch::Receiver<bool>,
    /// Which leases a live session answers for; the rest are the reaper's.
    pub custody: Custody,
    /// The live sessions, for who may watch them.
    pub watching: Watching,
    /// Who was turned away before a session.
    pub door: Door,
    /// What is counted, for whoever watches from outside.
    pub meter: Meter,
    /// Whether the gateway is about to stop, and who is still in.
    pub drain: Drain,
    /// The gateway's name, in messages and recordings.
    pub name: String,
    /// The time.
    pub clock: Clock,
    /// Cancelled when the gateway stops: sessions end and tear down.
    pub stopping: CancellationToken,
    /// Every session's task, so that a stop can wait for their teardown.
    pub tasks: TaskTracker,
}

impl Gate {
    /// The time now.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Waits until sessions must end for a reason that is not theirs: the disk, or the gateway stopping.
    pub async fn closing(&self) -> Refusal {
        let mut recordable = self.recordable.clone();
        tokio::select! {
            () = self.stopping.cancelled() => {
                Refusal::new("the gateway is stopping").next("connect again in a moment").by("stopping")
            }
            lost = recordable.wait_for(|ok| !ok) => {
                drop(lost);
                Refusal { sentence: "the session can no longer be recorded".to_owned(), ..Refusal::from(&RecordError::Failed) }
            }
        }
    }

    /// Somebody did not get as far as a session. Returns what they can ask by, if it was written.
    pub async fn turned_away(&self, refused: TurnedAway<'_>) -> Option<Reference> {
        self.meter.refused(refused.check);
        self.door.turned_away(refused, self.now()).await
    }
}
