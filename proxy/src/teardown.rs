//! disable → clean, drop → receipt: the same steps for a session that ends and for the reaper.
//!
//! Disabling comes first and on its own, because a failed cleaning must never leave a working account (Teleport issue
//! 36708). A lease is closed only by a clean receipt.

use crate::{
    gate::Gate,
    issuer::{ELSEWHERE, TargetError, Teardown},
    pause,
};
use tidegate_grants::{Lease, LeaseState};

/// Disables the account. True if the target confirmed it, even if that could not be written down: cleaning may go on
/// then. Else the lease stays for the reaper.
pub async fn disable(gate: &Gate, issuer: &dyn Teardown, lease: &mut Lease) -> bool {
    if lease.state() != LeaseState::Open {
        return true;
    }
    pause::at("during-disable").await;
    match issuer.disable(lease).await {
        Ok(()) => {
            written(lease.id(), gate.store.disabled(lease, gate.now()).await);
            true
        }
        Err(error) => {
            give_up(gate, issuer, lease, &error).await;
            false
        }
    }
}

/// Cleans, drops, asks the target what is left, and closes the lease by that answer. True if it is closed.
pub async fn finish(gate: &Gate, issuer: &dyn Teardown, lease: &mut Lease) -> bool {
    // Every step can be repeated: a disk that takes no entry must not keep an account on the target.
    written(lease.id(), gate.store.cleaning(lease, gate.now()).await);
    pause::at("during-clean").await;
    if let Err(error) = issuer.clean(lease).await {
        give_up(gate, issuer, lease, &error).await;
        return false;
    }
    pause::at("before-receipt").await;
    match issuer.inspect(lease).await {
        Ok(receipt) if receipt.clean => written(lease.id(), gate.store.closed(lease, receipt, gate.now()).await),
        Ok(receipt) => {
            let why = left(&receipt);
            tracing::error!(lease = %lease.id(), target = %lease.target(), why, "lease held");
            written(lease.id(), gate.store.held(lease, &why, Some(receipt), gate.now()).await);
            false
        }
        Err(error) => {
            give_up(gate, issuer, lease, &error).await;
            false
        }
    }
}

fn left(receipt: &tidegate_grants::Receipt) -> String {
    if let Some(elsewhere) = receipt.findings.iter().find(|finding| finding.what == ELSEWHERE) {
        return elsewhere.items.join(", ");
    }
    let found = receipt.findings.iter().filter(|f| f.found > 0).map(|f| format!("{} {}", f.found, f.what));
    format!("the target still knows of it: {}", found.collect::<Vec<_>>().join(", "))
}

async fn give_up(gate: &Gate, issuer: &dyn Teardown, lease: &mut Lease, error: &TargetError) {
    if let TargetError::Later(target) = error {
        return tracing::debug!(lease = %lease.id(), %target, "left to the reaper: others go before");
    }
    let (now, why) = (gate.now(), error.to_string());
    let said = if let TargetError::Held { .. } = error {
        tracing::error!(lease = %lease.id(), target = %lease.target(), why, "lease held: see `tidegate lease show`");
        // What a human is to decide on, even where nothing could be disabled.
        let receipt = issuer.inspect(lease).await.ok();
        gate.store.held(lease, &why, receipt, now).await
    } else {
        tracing::warn!(lease = %lease.id(), target = %lease.target(), why, "teardown will be tried again");
        gate.store.failed(lease, &why, now).await
    };
    written(lease.id(), said);
}

fn written(lease: tidegate_grants::LeaseId, result: Result<(), tidegate_grants::StoreError>) -> bool {
    result.inspect_err(|error| tracing::error!(%lease, %error, "the lease could not be written")).is_ok()
}
