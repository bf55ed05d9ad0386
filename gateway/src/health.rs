//! Whether new sessions are let in, and if not, why: for `status`, `/readyz`, `/healthz` and `doctor`.
//!
//! What always holds: ready is what the parts themselves say at the moment of asking, and a part that does not answer is not
//! ready.

use std::time::Duration;
use tidegate_grants::StoreError;
use tidegate_proxy::Gate;
use tokio::time::timeout;

/// The store's thread must answer by then.
const ANSWER: Duration = Duration::from_secs(3);

/// Why nobody new is let in, one sentence each. Empty: ready.
pub(crate) async fn faults(gate: &Gate) -> Vec<String> {
    let mut faults = Vec::new();
    if !*gate.recordable.borrow() {
        faults.push("the disk does not take recordings".to_owned());
    }
    if gate.recorder.is_full() {
        faults.push("recordings have taken all the room that they may (recording.budget)".to_owned());
    }
    match timeout(ANSWER, gate.store.trusted()).await {
        Ok(Ok(())) => {}
        // Which row it is names people: `tidegate ledger verify` tells it to who may know.
        Ok(Err(StoreError::Damaged(_))) => {
            faults.push("the store does not agree with its ledger: run `tidegate ledger verify`".to_owned());
        }
        Ok(Err(error)) => faults.push(error.to_string()),
        Err(_) => faults.push("the store does not answer".to_owned()),
    }
    match timeout(ANSWER, gate.store.behind(gate.now())).await {
        Ok(Ok(None)) => {}
        Ok(Ok(Some(latest))) => faults.push(format!(
            "the clock has gone back: it is {} here, and the ledger was written at {latest} already",
            gate.now()
        )),
        Ok(Err(_)) | Err(_) => faults.push("the store does not say how late it is".to_owned()),
    }
    if gate.drain.has_begun() || gate.stopping.is_cancelled() {
        faults.push("the gateway is stopping".to_owned());
    }
    faults
}
