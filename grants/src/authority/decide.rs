//! Yes or no, on the store's thread.

use super::{
    Ask, Denied,
    exclusive::{self, Holder},
    factors, locks,
    met::met,
    permit::{Held, Permit, Rules},
    rows::{self, GrantRow},
};
use crate::{
    entitlement::{Entitlement, Terms},
    grant::{Claims, GrantState, jws},
    ledger::Event,
    name::{Access, EntitlementName, GrantId, IdentityName, SessionId, TargetName},
    policy::{Policy, SessionLimits},
    store::{
        SessionRow, StoreError, sessions,
        writer::{Tx, Writer},
    },
    text::{LINE, line},
};
use jiff::Timestamp;
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};
use tokio::time::Instant;

/// What is asked for; without `access`, anything on that target.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) identity: IdentityName,
    pub(super) target: TargetName,
    pub(super) access: Option<Access>,
    pub(super) entitlement: Option<EntitlementName>,
}

impl From<&Ask> for Wanted {
    fn from(ask: &Ask) -> Self {
        Self {
            identity: ask.identity.clone(),
            target: ask.target.clone(),
            access: Some(ask.access.clone()),
            entitlement: ask.entitlement.clone(),
        }
    }
}

/// An active grant.
pub(super) struct Active {
    pub(super) row: GrantRow,
    pub(super) claims: Claims,
    pub(super) counts_as_approval: bool,
}

impl Active {
    /// When it ends, as far as that is known.
    fn end(&self) -> i64 {
        self.row.end(&self.claims)
    }
}

/// All that speaks for or against, gathered before the decision.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) active: Vec<Active>,
    /// Those that would have fitted, with their end, latest last.
    ended: BTreeMap<(Timestamp, GrantId), Denied>,
    /// Those that do not verify, with the reason: for the ledger, not for the person.
    invalid: Vec<String>,
}

pub(super) fn authorize(
    writer: &mut Writer,
    rules: &Arc<Rules>,
    ask: &Ask,
    now: Timestamp,
    start: Instant,
) -> Result<Permit, Denied> {
    let policy = rules.policy();
    let session = SessionId::new();
    let held = writer.transact(now, |tx| {
        let mut gathered = Gathered::default();
        let chosen = choose(tx, rules, &policy, &Wanted::from(ask), &mut gathered);
        let chosen = chosen.and_then(|(active, entitlement)| {
            met(&policy, &entitlement, ask, active.claims.ticket.as_deref(), now)?;
            factors::proven(tx, rules, ask, &entitlement)?;
            Ok((active, entitlement))
        });
        match chosen {
            Ok((active, entitlement)) => open(tx, session, ask, active, entitlement).map(Ok),
            // Ours, not a decision: nothing is committed (and a full disk gets its second try).
            Err(Denied::Store(error)) => Err(error),
            Err(denied) => {
                deny(tx, ask, None, &denied, &gathered.invalid)?;
                Ok(Err(denied))
            }
        }
    })??;
    Ok(rules.admit(held, &policy, now, start))
}

/// The same grant again, for a further connection.
pub(super) fn recheck(writer: &mut Writer, rules: &Rules, held: &Held, now: Timestamp) -> Result<(), Denied> {
    let policy = rules.policy();
    writer.transact(now, |tx| match still_good(tx, rules, &policy, held) {
        Ok(()) => Ok(Ok(())),
        Err(Denied::Store(error)) => Err(error),
        Err(denied) => {
            deny(tx, &held.ask, Some(held.session), &denied, &[])?;
            Ok(Err(denied))
        }
    })?
}

pub(super) fn foresee(
    writer: &mut Writer,
    rules: &Rules,
    wanted: &Wanted,
    now: Timestamp,
) -> Result<Timestamp, Denied> {
    let policy = rules.policy();
    writer.transact(now, |tx| Ok(longest(tx, rules, &policy, wanted)))?
}

fn longest(tx: &Tx<'_>, rules: &Rules, policy: &Policy, wanted: &Wanted) -> Result<Timestamp, Denied> {
    sane(tx)?;
    let fitting = fitting(policy, wanted)?;
    locks::open(tx, &wanted.identity, &wanted.target)?;
    let mut gathered = Gathered::default();
    gather(tx, rules, policy, wanted, &fitting, &mut gathered)?;
    match gathered.active.iter().map(Active::end).max() {
        Some(end) => Ok(jws::at(end)),
        None => Err(none(wanted, &fitting, gathered.ended)),
    }
}

/// Whether anything may be decided at all.
fn sane(tx: &Tx<'_>) -> Result<(), Denied> {
    tx.trusted().map_err(|_| Denied::Untrusted)?;
    if tx.behind().is_some() { Err(Denied::Clock) } else { Ok(()) }
}

fn still_good(tx: &Tx<'_>, rules: &Rules, policy: &Policy, held: &Held) -> Result<(), Denied> {
    tx.trusted().map_err(|_| Denied::Untrusted)?;
    locks::open(tx, &held.ask.identity, &held.ask.target)?;
    let row = rows::by_id(tx.db(), held.grant)?.ok_or(Denied::Untrusted)?;
    if !tx.agrees("grants", &held.grant.to_string())? {
        return Err(Denied::Untrusted);
    }
    if row.token != held.token || !held.fits(policy, rules.own()) {
        return Err(held.no_grant());
    }
    if let Some(entitlement) = policy.entitlements.get(&held.entitlement.name) {
        open_now(entitlement, &held.ask.target, tx.now())?;
        if !held.trial {
            met(policy, entitlement, &held.ask, held.claims.ticket.as_deref(), tx.now())?;
        }
    }
    let target = held.ask.target.clone();
    match row.standing(&held.claims, tx.now()) {
        GrantState::Active => Ok(()),
        GrantState::Used if row.used.is_some_and(|(_, by)| by == held.session) => Ok(()),
        GrantState::Used => Err(Denied::Used { target }),
        GrantState::Expired => Err(Denied::Expired { target, at: jws::at(row.end(&held.claims)) }),
        GrantState::Revoked => Err(Denied::Revoked { target }),
        GrantState::Pending | GrantState::Invalid => Err(held.no_grant()),
    }
}

/// The decision.
fn choose(
    tx: &Tx<'_>,
    rules: &Rules,
    policy: &Policy,
    wanted: &Wanted,
    gathered: &mut Gathered,
) -> Result<(Active, Entitlement), Denied> {
    sane(tx)?;
    // Only of a target that they may see is it said that it is locked.
    let fitting = fitting(policy, wanted)?;
    locks::open(tx, &wanted.identity, &wanted.target)?;
    gather(tx, rules, policy, wanted, &fitting, gathered)?;
    let target = &wanted.target;
    let mut by_entitlement: BTreeMap<EntitlementName, Active> = BTreeMap::new();
    for active in gathered.active.drain(..) {
        // Of two grants of one entitlement the later end serves.
        match by_entitlement.get(&active.claims.entitlement) {
            Some(other) if other.end() >= active.end() => {}
            _ => drop(by_entitlement.insert(active.claims.entitlement.clone(), active)),
        }
    }
    let names: Vec<_> = by_entitlement.keys().cloned().collect();
    let mut actives = by_entitlement.into_values();
    let active = match (actives.next(), actives.next()) {
        (Some(active), None) => active,
        (Some(_), Some(_)) => return Err(Denied::Ambiguous { target: target.clone(), entitlements: names }),
        (None, _) => return Err(none(wanted, &fitting, std::mem::take(&mut gathered.ended))),
    };
    let entitlement = policy.entitlements.get(&active.claims.entitlement);
    let entitlement = entitlement.ok_or_else(|| Denied::UnknownTarget(target.clone()))?;
    if let Terms::Postgres { max_connections: limit, .. } = entitlement.terms
        && rules.taken(&wanted.identity, target, entitlement) >= usize::from(limit)
    {
        return Err(Denied::TooMany { target: target.clone(), limit });
    }
    open_now(entitlement, target, tx.now())?;
    if let Some(Holder { identity: by, until }) =
        exclusive::holder(tx.db(), rules, policy, (entitlement, target), tx.now())?
            .filter(|it| it.identity != wanted.identity)
    {
        return Err(Denied::HeldBy { target: target.clone(), entitlement: entitlement.name.clone(), by, until });
    }
    if let Some(limit) = entitlement.conditions.max_sessions
        && rules.under(&wanted.identity, &entitlement.name) >= usize::from(limit)
    {
        return Err(Denied::TooManyUnder { entitlement: entitlement.name.clone(), limit });
    }
    let SessionLimits { per_identity, per_target } = policy.limits;
    if rules.count(|held| held.ask.identity == wanted.identity) >= reach(per_identity) {
        return Err(Denied::TooManyOfYours { limit: per_identity });
    }
    if rules.count(|held| held.ask.target == *target) >= reach(per_target) {
        return Err(Denied::TooManyThere { target: target.clone(), limit: per_target });
    }
    Ok((active, entitlement.clone()))
}

/// Within the entitlement's hours.
fn open_now(entitlement: &Entitlement, target: &TargetName, now: Timestamp) -> Result<(), Denied> {
    let Some(hours) = entitlement.conditions.hours.as_ref().filter(|hours| hours.until(now).is_none()) else {
        return Ok(());
    };
    Err(Denied::Shut { target: target.clone(), hours: hours.to_string(), next: hours.next(now) })
}

fn reach(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Entitlements of theirs that include what they want.
pub(super) fn fitting<'a>(policy: &'a Policy, wanted: &Wanted) -> Result<Vec<&'a Entitlement>, Denied> {
    let unknown = || Denied::UnknownTarget(wanted.target.clone());
    let identity = policy.identities.get(&wanted.identity).ok_or_else(unknown)?;
    let target = policy.targets.get(&wanted.target).ok_or_else(unknown)?;
    let open: Vec<_> = policy.open_to(identity, target).collect();
    if open.is_empty() {
        return Err(unknown());
    }
    let Some(access) = &wanted.access else { return Ok(open) };
    let including: Vec<_> = open.into_iter().filter(|e| e.includes(access)).collect();
    if including.is_empty() {
        return Err(Denied::WrongAccess { target: wanted.target.clone(), access: access.clone() });
    }
    let named = |e: &&Entitlement| wanted.entitlement.as_ref().is_none_or(|name| *name == e.name);
    let fitting: Vec<_> = including.iter().copied().filter(named).collect();
    if fitting.is_empty() {
        return Err(none(wanted, &including, BTreeMap::new()));
    }
    Ok(fitting)
}

pub(super) fn gather(
    tx: &Tx<'_>,
    rules: &Rules,
    policy: &Policy,
    wanted: &Wanted,
    fitting: &[&Entitlement],
    gathered: &mut Gathered,
) -> Result<(), Denied> {
    for row in rows::candidates(tx.db(), &wanted.identity, &wanted.target, tx.now())? {
        let verified = match jws::verify(&row.token, policy, rules.own()) {
            Ok(verified) => verified,
            Err(why) => {
                gathered.invalid.push(format!("{}: {why}", row.id));
                continue;
            }
        };
        let claims = verified.claims;
        let theirs = claims.sub == wanted.identity && claims.target == wanted.target;
        let fits = fitting.iter().any(|e| e.name == claims.entitlement)
            && wanted.access.as_ref().is_none_or(|access| claims.opens(access));
        if !theirs || !fits {
            continue;
        }
        if !tx.agrees("grants", &row.id.to_string())? {
            tracing::error!(grant = %row.id, "a grant does not agree with the ledger");
            return Err(Denied::Untrusted);
        }
        gathered.place(row, claims, verified.counts_as_approval, tx.now());
    }
    Ok(())
}

impl Gathered {
    fn place(&mut self, row: GrantRow, claims: Claims, counts_as_approval: bool, now: Timestamp) {
        let (target, id) = (claims.target.clone(), row.id);
        let (end, denied) = match row.standing(&claims, now) {
            GrantState::Active => return self.active.push(Active { row, claims, counts_as_approval }),
            GrantState::Expired => {
                let at = jws::at(row.end(&claims));
                (at, Denied::Expired { target, at })
            }
            GrantState::Revoked => (row.revoked.map_or(now, |r| r.at), Denied::Revoked { target }),
            GrantState::Used => (row.used.map_or(now, |(at, _)| at), Denied::Used { target }),
            GrantState::Pending | GrantState::Invalid => return,
        };
        self.ended.insert((end, id), denied);
    }
}

/// Why there is none: the latest that ended, else that there was never one.
fn none(wanted: &Wanted, could_ask: &[&Entitlement], mut ended: BTreeMap<(Timestamp, GrantId), Denied>) -> Denied {
    if let Some((_, denied)) = ended.pop_last() {
        return denied;
    }
    let target = wanted.target.clone();
    let any = || could_ask.iter().find_map(|e| e.terms.any());
    match wanted.access.clone().or_else(any) {
        Some(access) => {
            Denied::NoGrant { target, access, entitlements: could_ask.iter().map(|e| e.name.clone()).collect() }
        }
        None => Denied::UnknownTarget(target),
    }
}

/// Opens the session in the ledger.
pub(super) fn open(
    tx: &mut Tx<'_>,
    session: SessionId,
    ask: &Ask,
    active: Active,
    entitlement: Entitlement,
) -> Result<Held, StoreError> {
    let Active { mut row, claims, counts_as_approval } = active;
    let about = |kind| Event::new(kind).session(session).identity(&ask.identity).target(&ask.target).grant(row.id);
    if claims.single_use {
        rows::mark_used(tx, row.id, session, about("grant.used"))?;
    } else if claims.lasts.is_some() && row.used.is_none() {
        row.used = Some((tx.now(), session));
        let detail = json!({ "ends": jws::at(row.end(&claims)) });
        rows::mark_used(tx, row.id, session, about("grant.started").detail(detail))?;
    }
    let until = jws::at(row.end(&claims));
    let record = SessionRow {
        id: session,
        identity: ask.identity.clone(),
        target: ask.target.clone(),
        access: ask.access.to_string(),
        grant: row.id,
        source: ask.source,
        start: tx.now(),
        end: None,
        outcome: None,
    };
    let detail = json!({
        "access": ask.access,
        "entitlement": claims.entitlement,
        "source": ask.source,
        "iss": claims.iss,
        "jti": claims.jti,
        "expires": until,
        "counts_as_approval": counts_as_approval,
    });
    sessions::open(tx, &record, about("session.opened").detail(detail))?;
    Ok(Held { session, grant: row.id, ask: ask.clone(), token: row.token, claims, until, entitlement, trial: false })
}

/// The most reasons why grants did not verify that one denial writes down.
const MOST_INVALID: usize = 8;

fn deny(
    tx: &mut Tx<'_>,
    ask: &Ask,
    session: Option<SessionId>,
    denied: &Denied,
    invalid: &[String],
) -> Result<(), StoreError> {
    let invalid: Vec<_> = invalid.iter().take(MOST_INVALID).map(|why| line(why, LINE)).collect();
    let mut detail = json!({
        "why": line(&denied.to_string(), LINE),
        "check": denied.check(),
        "ref": ask.reference,
        "access": ask.access,
        "entitlement": ask.entitlement,
        "source": ask.source,
    });
    if let Some(detail) = detail.as_object_mut().filter(|_| !invalid.is_empty()) {
        detail.insert("invalid".to_owned(), json!(invalid));
    }
    let event = Event::new("session.denied").identity(&ask.identity).target(&ask.target).detail(detail);
    tx.append(Event { session, ..event })
}
