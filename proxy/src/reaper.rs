//! Removes what a killed or disappointed gateway left on targets.
//!
//! One task per target, so that one that hangs keeps no other waiting. Leases are tried for ever, with back-off and
//! jitter; a lease that a live session answers for is not touched.

use crate::{gate::Gate, issuer::Teardown, teardown};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tidegate_grants::{Lease, LeaseId, LeaseKind, LeaseState, TargetName};
use tokio::{sync::Notify, task::JoinSet, time::Instant};

/// Which leases live sessions answer for.
#[derive(Debug, Clone, Default)]
pub struct Custody {
    held: Arc<Mutex<HashSet<LeaseId>>>,
    released: Arc<Notify>,
}

/// Held by a session while it answers for its lease. Dropping it, in whatever way, hands the lease to the reaper.
#[derive(Debug)]
#[must_use = "dropping it hands the lease to the reaper"]
pub struct InCustody {
    custody: Custody,
    lease: LeaseId,
}

impl Custody {
    /// This session answers for this lease.
    pub fn take(&self, lease: LeaseId) -> InCustody {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(lease);
        InCustody { custody: self.clone(), lease }
    }

    /// Looks at the leases now, e.g. for `lease retry`.
    pub fn wake(&self) {
        self.released.notify_one();
    }

    fn has(&self, lease: LeaseId) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).contains(&lease)
    }
}

impl Drop for InCustody {
    fn drop(&mut self) {
        self.custody.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.lease);
        self.custody.released.notify_one();
    }
}

/// How each kind of lease is torn down.
pub type Undertakers = HashMap<LeaseKind, Arc<dyn Teardown>>;

/// The reaper looks this often even if nobody woke it.
const ROUND: Duration = Duration::from_secs(5);
/// First wait after a failure; doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait between two attempts at one target.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Runs until the gate stops.
pub async fn run(gate: Gate, undertakers: Undertakers) {
    let _ = (gate, undertakers);
    todo!()
}
