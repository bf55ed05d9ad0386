//! Second factors: for which sessions one is needed, and whether it was proven.

use super::{
    Ask, Denied, GrantError,
    decide::{self, Gathered, Wanted},
    permit::Rules,
};
use crate::{
    entitlement::Entitlement,
    factor::Mfa,
    name::{EntitlementName, IdentityName},
    policy::Policy,
    store::{
        StoreError, factors,
        writer::{Tx, Writer},
    },
};
use jiff::Timestamp;
use std::net::IpAddr;

/// Ok if the entitlement asks for nothing more, or its factor was proven: by what they log in with, or from there just now.
pub(super) fn proven(tx: &Tx<'_>, ask: &Ask, entitlement: &Entitlement) -> Result<(), Denied> {
    if entitlement.mfa != Mfa::Session
        || ask.factor.is_some()
        || factors::fresh(tx, &ask.identity, ask.source, tx.now())?.is_some()
    {
        return Ok(());
    }
    let enrolled = factors::find(tx.db(), &ask.identity)?.is_some();
    Err(Denied::FactorNeeded { target: ask.target.clone(), entitlement: entitlement.name.clone(), enrolled })
}

/// The same for whoever asks for a grant, from where they ask; from nowhere that is known, nothing was proven.
pub(super) fn proven_to_ask(
    tx: &Tx<'_>,
    by: &IdentityName,
    from: Option<IpAddr>,
    entitlement: &EntitlementName,
) -> Result<(), GrantError> {
    if let Some(from) = from
        && factors::fresh(tx, by, from, tx.now())?.is_some()
    {
        return Ok(());
    }
    let enrolled = factors::find(tx.db(), by)?.is_some();
    Err(GrantError::FactorNeeded { entitlement: entitlement.clone(), enrolled })
}

/// By the configuration alone, so that nothing is looked up where nothing asks for a factor.
pub(super) fn could_ask(policy: &Policy, wanted: &Wanted) -> bool {
    decide::fitting(policy, wanted).is_ok_and(|fitting| fitting.iter().any(|e| e.mfa == Mfa::Session))
}

/// Whether they are to be asked: a grant of theirs needs it, they have a factor, and it is not fresh.
pub(super) fn wanted(
    writer: &mut Writer,
    rules: &Rules,
    wanted: &Wanted,
    source: IpAddr,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let policy = rules.policy();
    writer.transact(now, |tx| {
        if factors::find(tx.db(), &wanted.identity)?.is_none()
            || factors::fresh(tx, &wanted.identity, source, now)?.is_some()
        {
            return Ok(false);
        }
        let mut gathered = Gathered::default();
        let Ok(fitting) = decide::fitting(&policy, wanted) else { return Ok(false) };
        match decide::gather(tx, rules, &policy, wanted, &fitting, &mut gathered) {
            Ok(()) => {}
            Err(Denied::Store(error)) => return Err(error),
            Err(_) => return Ok(false), // they are refused anyway, and told why
        }
        let asks = |name| policy.entitlements.get(name).is_some_and(|e| e.mfa == Mfa::Session);
        Ok(gathered.active.iter().any(|active| asks(&active.claims.entitlement)))
    })
}
