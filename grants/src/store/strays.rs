//! Leases for accounts that came back, or that nobody had a lease for: so that the reaper removes them like any other.

use super::{
    Store, StoreError,
    leases::{current, put},
};
use crate::{
    lease::{Acceptance, Lease, LeasePlan, LeaseState},
    ledger::Event,
    name::{LeaseId, SessionId, TargetName},
    text::{LINE, line},
};
use jiff::Timestamp;
use serde_json::json;

impl Store {
    /// What a closed lease was about exists again: restored from a backup, or failed over. Not closed: fine.
    pub async fn reopened(&self, lease: &Lease, why: &str, now: Timestamp) -> Result<Lease, StoreError> {
        let (known, why) = (lease.clone(), line(why, LINE));
        self.run(move |writer| {
            writer.transact(now, |tx| {
                let mut lease = current(tx, &known)?;
                if lease.state == LeaseState::Closed {
                    lease.state = LeaseState::Open;
                    lease.last_error = Some(why.clone());
                    put(tx, &lease, Event::new("lease.reopened").detail(json!({ "why": why })))?;
                }
                Ok(lease)
            })
        })
        .await?
    }

    /// A lease for an account that carries our mark and has none, on an admin's word. It belongs to no session of ours: its
    /// session is a new number.
    pub async fn adopted(
        &self,
        target: &TargetName,
        plan: LeasePlan,
        word: Acceptance,
        now: Timestamp,
    ) -> Result<Lease, StoreError> {
        let lease = Lease {
            id: LeaseId::new(),
            session: SessionId::new(),
            target: target.clone(),
            identity: word.by.clone(),
            kind: plan.kind,
            name: plan.name,
            state: LeaseState::Open,
            deadline: now,
            attempts: 0,
            last_error: None,
            detail: plan.detail,
            receipt: None,
        };
        let event = Event::new("lease.adopted").detail(json!({ "by": word.by, "reason": line(&word.reason, LINE) }));
        self.run(move |writer| {
            writer.transact(now, |tx| put(tx, &lease, event.clone()))?;
            Ok(lease)
        })
        .await?
    }
}
