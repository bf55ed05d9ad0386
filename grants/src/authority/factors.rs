//! Second factors: for which sessions one is needed, and whether it was proven.

use super::{
    Ask, Denied, GrantError,
    decide::{self, Gathered, Wanted},
    permit::Rules,
};
use crate::{
    entitlement::Entitlement,
    factor::{Means, Mfa, NAMESPACE},
    name::{EntitlementName, IdentityName},
    policy::Policy,
    signature,
    store::{
        StoreError, factors,
        writer::{Tx, Writer},
    },
};
use jiff::Timestamp;
use ssh_key::HashAlg;
use std::net::IpAddr;

/// Ok if the entitlement asks for nothing more, or its factor was proven: by what they log in with, or from there just now.
pub(super) fn proven(tx: &Tx<'_>, rules: &Rules, ask: &Ask, entitlement: &Entitlement) -> Result<(), Denied> {
    if entitlement.mfa != Mfa::Session
        || ask.factor.is_some()
        || factors::fresh(tx, &ask.identity, ask.source, tx.now())?.is_some()
    {
        return Ok(());
    }
    let means = means(tx, rules, &ask.identity)?;
    Err(Denied::FactorNeeded { target: ask.target.clone(), entitlement: entitlement.name.clone(), means })
}

/// The same for whoever asks for a grant, from where they ask; from nowhere that is known, nothing was proven.
pub(super) fn proven_to_ask(
    tx: &Tx<'_>,
    rules: &Rules,
    by: &IdentityName,
    from: Option<IpAddr>,
    entitlement: &EntitlementName,
) -> Result<(), GrantError> {
    if let Some(from) = from
        && factors::fresh(tx, by, from, tx.now())?.is_some()
    {
        return Ok(());
    }
    let means = means(tx, rules, by)?;
    Err(GrantError::FactorNeeded { entitlement: entitlement.clone(), means })
}

fn means(tx: &Tx<'_>, rules: &Rules, identity: &IdentityName) -> Result<Means, StoreError> {
    if has_codes(tx, identity)? {
        return Ok(Means::Codes);
    }
    let declared = rules.declared(identity);
    let key = declared.is_some_and(|declared| signature::keys(&declared).any(|key| signature::is_security_key(&key)));
    Ok(if key { Means::SecurityKey } else { Means::None })
}

fn has_codes(tx: &Tx<'_>, identity: &IdentityName) -> Result<bool, StoreError> {
    Ok(factors::find(tx.db(), identity)?.is_some_and(|factor| factor.seed.is_some()))
}

/// The security key that this is signed with: one that the configuration gives them, touched, and not the one that they came with.
pub(super) fn signed_with(
    rules: &Rules,
    identity: &IdentityName,
    came_with: Option<&str>,
    line: &str,
    armored: &str,
) -> Result<String, GrantError> {
    let refused = |why: &str| GrantError::Refused(why.to_owned());
    let signed = rules.signed(identity, NAMESPACE, line, armored).map_err(|why| refused(&why.to_string()))?;
    if !signed.touched() {
        return Err(refused("that is no security key: sign with one (`sk-…`)"));
    }
    let key = signed.key.fingerprint(HashAlg::Sha256).to_string();
    if came_with == Some(key.as_str()) {
        return Err(refused("that is the key that you came with: a second factor is another one"));
    }
    Ok(key)
}

/// By the configuration alone, so that nothing is looked up where nothing asks for a factor.
pub(super) fn could_ask(policy: &Policy, wanted: &Wanted) -> bool {
    decide::fitting(policy, wanted).is_ok_and(|fitting| fitting.iter().any(|e| e.mfa == Mfa::Session))
}

/// Whether they are to be asked for a code: a grant of theirs needs a factor, they have codes, and none is fresh.
pub(super) fn wanted(
    writer: &mut Writer,
    rules: &Rules,
    wanted: &Wanted,
    source: IpAddr,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let policy = rules.policy();
    writer.transact(now, |tx| {
        if !has_codes(tx, &wanted.identity)? || factors::fresh(tx, &wanted.identity, source, now)?.is_some() {
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
