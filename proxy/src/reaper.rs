//! Removes what a killed or disappointed gateway left on targets.
//!
//! One task per target and step, so that one that hangs keeps no other waiting, and a cleaning no disabling. Leases are
//! tried for ever, with back-off and jitter; a lease that a live session answers for is not touched.

use crate::{gate::Gate, issuer::Teardown, teardown};
use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tidegate_grants::{Lease, LeaseKind, LeaseState, SessionId, TargetName};
use tokio::{
    sync::Notify,
    task::{self, JoinSet},
    time::Instant,
};

/// Which sessions are alive, and answer for their leases themselves.
#[derive(Debug, Clone, Default)]
pub struct Custody {
    held: Arc<Mutex<HashSet<SessionId>>>,
    released: Arc<Notify>,
    impatient: Arc<AtomicBool>,
}

/// Held by a session from before its lease exists. Dropping it, in whatever way, hands the lease to the reaper.
#[derive(Debug)]
#[must_use = "dropping it hands the lease to the reaper"]
pub struct InCustody {
    custody: Custody,
    session: SessionId,
}

impl Custody {
    /// This session answers for its lease. Taken before the lease is in the store, or the reaper could be quicker.
    pub fn take(&self, session: SessionId) -> InCustody {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(session);
        InCustody { custody: self.clone(), session }
    }

    /// Looks at the leases now, whatever the back-off says (`lease retry`).
    pub fn retry(&self) {
        self.impatient.store(true, Ordering::Relaxed);
        self.released.notify_one();
    }

    fn sessions(&self) -> HashSet<SessionId> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for InCustody {
    fn drop(&mut self) {
        self.custody.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.session);
        self.custody.released.notify_one();
    }
}

/// How each kind of lease is torn down.
pub type Undertakers = HashMap<LeaseKind, Arc<dyn Teardown>>;

/// The reaper looks this often even if nobody woke it.
const ROUND: Duration = Duration::from_secs(5);
/// First wait after a failure; doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait between two attempts to disable what still works on one target.
const LONGEST_WAIT_OPEN: Duration = Duration::from_secs(5);
/// Longest wait between two attempts to clean what is disabled on one target.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// When a target's leases may be tried again.
#[derive(Debug)]
struct Backoff {
    wait: Duration,
    not_before: Instant,
}

/// What is done in one round: disabling never waits for a cleaning that hangs, nor for its back-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Disable,
    Clean,
}

impl Step {
    fn of(lease: &Lease) -> Self {
        if lease.state() == LeaseState::Open { Self::Disable } else { Self::Clean }
    }

    fn longest_wait(self) -> Duration {
        match self {
            Self::Disable => LONGEST_WAIT_OPEN,
            Self::Clean => LONGEST_WAIT,
        }
    }
}

/// One target, one step: there is one round of these at a time.
type Turn = (TargetName, Step);

/// Runs until the gate stops.
pub async fn run(gate: Gate, undertakers: Undertakers) {
    let undertakers = Arc::new(undertakers);
    let mut backoffs: HashMap<Turn, Backoff> = HashMap::new();
    let mut busy: HashMap<task::Id, Turn> = HashMap::new();
    let mut rounds: JoinSet<bool> = JoinSet::new();
    loop {
        for (turn, leases) in due(&gate, &backoffs, &busy).await {
            let round = rounds.spawn(round(gate.clone(), undertakers.clone(), turn.clone(), leases));
            busy.insert(round.id(), turn);
        }
        tokio::select! {
            () = gate.stopping.cancelled() => return,
            () = gate.custody.released.notified() => {
                if gate.custody.impatient.swap(false, Ordering::Relaxed) {
                    backoffs.clear();
                }
            }
            Some(ended) = rounds.join_next_with_id() => {
                let (round, done) = match ended {
                    Ok(ended) => ended,
                    // A panic in a teardown: its target is tried again like after any other failure.
                    Err(error) => {
                        tracing::error!(%error, "a round of the reaper failed");
                        (error.id(), false)
                    }
                };
                let Some(turn) = busy.remove(&round) else { continue };
                if done { backoffs.remove(&turn); } else { back_off(backoffs.entry(turn)); }
            },
            () = tokio::time::sleep(ROUND.min(next(&backoffs))) => {}
        }
    }
}

/// The leases that nobody answers for, by target and step, where these may be tried now.
async fn due(
    gate: &Gate,
    backoffs: &HashMap<Turn, Backoff>,
    busy: &HashMap<task::Id, Turn>,
) -> HashMap<Turn, Vec<Lease>> {
    // Both before and after reading: who let go before has written its last word, who began since is alive.
    let before = gate.custody.sessions();
    let open = gate.store.leases(false).await.unwrap_or_else(|error| {
        tracing::error!(%error, "the reaper cannot read the leases");
        Vec::new()
    });
    let after = gate.custody.sessions();
    let alive = |session: SessionId| before.contains(&session) || after.contains(&session);
    let now = Instant::now();
    let mut due: HashMap<Turn, Vec<Lease>> = HashMap::new();
    for lease in open {
        let turn = (lease.target().clone(), Step::of(&lease));
        let waits = backoffs.get(&turn).is_some_and(|b| b.not_before > now);
        if !alive(lease.session()) && !waits && !busy.values().any(|taken| *taken == turn) {
            due.entry(turn).or_default().push(lease);
        }
    }
    due
}

/// One step for all of a target's leases that need it. True if it succeeded for all.
async fn round(gate: Gate, undertakers: Arc<Undertakers>, turn: Turn, leases: Vec<Lease>) -> bool {
    let mut all_done = true;
    for mut lease in leases {
        let Some(undertaker) = undertakers.get(&lease.kind()) else {
            tracing::error!(lease = %lease.id(), "nothing here tears down this kind of lease");
            all_done = false;
            continue;
        };
        all_done &= match turn.1 {
            // One that could not be written down would else be tried again at once, for ever.
            Step::Disable => {
                teardown::disable(&gate, undertaker.as_ref(), &mut lease).await && Step::of(&lease) == Step::Clean
            }
            Step::Clean => teardown::finish(&gate, undertaker.as_ref(), &mut lease).await,
        };
    }
    all_done
}

fn back_off(entry: Entry<'_, Turn, Backoff>) {
    let longest = entry.key().1.longest_wait();
    let backoff = entry.or_insert(Backoff { wait: FIRST_WAIT / 2, not_before: Instant::now() });
    backoff.wait = (backoff.wait * 2).min(longest);
    // Jitter, so that many gateways do not come back to one target together.
    let jitter = backoff.wait.mul_f64(f64::from(getrandom::u32().unwrap_or(0) % 256) / 1024.0);
    backoff.not_before = Instant::now() + backoff.wait + jitter;
}

/// Until the first target may be tried again.
fn next(backoffs: &HashMap<Turn, Backoff>) -> Duration {
    let first = backoffs.values().map(|b| b.not_before).min();
    first.map_or(ROUND, |at| at.saturating_duration_since(Instant::now()).max(Duration::from_millis(50)))
}
