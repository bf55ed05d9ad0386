//! Permits, and the register of those that are alive.

use super::{Ask, Denied};
use crate::{
    entitlement::{Entitlement, Terms},
    grant::{Claims, jws},
    lock::Locked,
    name::{Access, EntitlementName, GrantId, IdentityName, RoleName, SessionId, TargetName},
    policy::Policy,
    reference::Reference,
};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// Why a permit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The grant reached its end.
    Expired {
        /// When.
        at: Timestamp,
    },
    /// The hours of its entitlement did.
    Shut {
        /// When.
        at: Timestamp,
    },
    /// It was revoked.
    Revoked {
        /// By whom.
        by: String,
        /// Why, if said.
        reason: Option<String>,
    },
    /// Somebody ended this session by hand; its grant goes on.
    Killed {
        /// Who.
        by: String,
        /// Why, if said.
        reason: Option<String>,
    },
    /// A lock came down on it.
    Locked(Locked),
    /// The identity, the target or the entitlement is no longer in the configuration.
    Withdrawn,
}

/// What a permit is for, without the right that it carries.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) session: SessionId,
    pub(super) grant: GrantId,
    pub(super) ask: Ask,
    pub(super) token: String,
    pub(super) claims: Claims,
    pub(super) entitlement: Entitlement,
}

/// The in-memory proof, held by one live session, that its grant was verified.
///
/// Its fields are private and it is not `Clone`: one comes from [`Authority::authorize`](super::Authority::authorize)
/// or not at all. While it lives it counts towards `max_connections`; dropping or [vacating](Permit::vacate) it gives the
/// place back.
#[derive(Debug)]
pub struct Permit {
    held: Held,
    expires: Timestamp,
    /// The hours of the entitlement end before the grant does.
    shuts: Option<Timestamp>,
    deadline: Instant,
    ends: watch::Receiver<Option<Ended>>,
    rules: Arc<Rules>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.rules.register().remove(&self.held.session);
    }
}

impl Permit {
    /// The session that this permit is for.
    pub fn session(&self) -> SessionId {
        self.held.session
    }
    /// The grant behind it.
    pub fn grant(&self) -> GrantId {
        self.held.grant
    }
    /// Its claims as verified.
    pub fn claims(&self) -> &Claims {
        &self.held.claims
    }
    /// Who.
    pub fn identity(&self) -> &IdentityName {
        &self.held.ask.identity
    }
    /// Where to.
    pub fn target(&self) -> &TargetName {
        &self.held.ask.target
    }
    /// As what.
    pub fn access(&self) -> &Access {
        &self.held.ask.access
    }
    /// From where.
    pub fn source(&self) -> IpAddr {
        self.held.ask.source
    }
    /// By which its holder may ask later why something was refused.
    pub fn reference(&self) -> Reference {
        self.held.ask.reference
    }
    /// The terms in force when it was given.
    pub fn entitlement(&self) -> &Entitlement {
        &self.held.entitlement
    }
    /// PostgreSQL: the group roles, as the entitlement has them and the grant narrowed them.
    pub fn roles(&self) -> BTreeSet<RoleName> {
        self.held.roles()
    }
    /// The grant's end.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }
    /// Waits until the permit ends: at the grant's end, at its revocation, or when a reload takes it away.
    /// Cancel safe; may be called again.
    pub async fn ended(&self) -> Ended {
        let mut ends = self.ends.clone();
        let expired = || self.over();
        tokio::select! {
            biased;
            Ok(ended) = ends.wait_for(Option::is_some) => ended.clone().unwrap_or_else(expired),
            () = sleep_until(self.deadline) => expired(),
        }
    }

    /// How long it lasts from now on, by the machine's own time, if nothing ends it before.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The client has hung up: its place among `max_connections` is free, though its teardown is still to come. (Programs
    /// close a connection and open the next at once: `pgbench` does before it begins.)
    pub fn vacate(&self) {
        if let Some(seat) = self.rules.register().get_mut(&self.held.session) {
            seat.vacant = true;
        }
    }

    /// What its deadline means.
    fn over(&self) -> Ended {
        self.shuts.map_or(Ended::Expired { at: self.expires }, |at| Ended::Shut { at })
    }

    pub(super) fn held(&self) -> Held {
        self.held.clone()
    }

    /// Ok while it has not ended.
    pub(super) fn alive(&self) -> Result<(), Denied> {
        let target = self.target().clone();
        match self.ends.borrow().clone() {
            Some(Ended::Revoked { .. }) => Err(Denied::Revoked { target }),
            Some(Ended::Killed { .. }) => Err(Denied::Killed { target }),
            Some(Ended::Expired { at }) => Err(Denied::Expired { target, at }),
            Some(Ended::Shut { at }) => Err(Denied::Expired { target, at }),
            Some(Ended::Locked(locked)) => Err(Denied::Locked(locked)),
            Some(Ended::Withdrawn) => Err(self.held.no_grant()),
            None if Instant::now() >= self.deadline => {
                Err(Denied::Expired { target, at: self.shuts.unwrap_or(self.expires) })
            }
            None => Ok(()),
        }
    }
}

impl Held {
    pub(super) fn no_grant(&self) -> Denied {
        Denied::NoGrant { target: self.ask.target.clone(), access: self.ask.access.clone(), entitlements: Vec::new() }
    }

    fn roles(&self) -> BTreeSet<RoleName> {
        match (&self.entitlement.terms, &self.claims.roles) {
            (Terms::Ssh { .. }, _) => BTreeSet::new(),
            (Terms::Postgres { roles, .. }, None) => roles.clone(),
            (Terms::Postgres { roles, .. }, Some(narrow)) => roles.intersection(narrow).cloned().collect(),
        }
    }

    /// Whether a policy still allows all that the permit stands for.
    pub(super) fn fits(&self, policy: &Policy, own: &[u8; 32]) -> bool {
        let verified = jws::verify(&self.token, policy, own).is_ok_and(|v| v.claims == self.claims);
        let Some(entitlement) = policy.entitlements.get(&self.entitlement.name) else { return false };
        let same_terms = match (&self.entitlement.terms, &entitlement.terms) {
            (Terms::Ssh { files: had, forward: reached, .. }, Terms::Ssh { files, forward, .. }) => {
                files.covers(*had) && forward.covers(reached)
            }
            (Terms::Postgres { owner: was, inherit: inherited, .. }, Terms::Postgres { roles, owner, inherit, .. }) => {
                was == owner && inherited == inherit && self.roles().is_subset(roles)
            }
            _ => false,
        };
        // Its deadline was set by the hours of then.
        let same_hours = self.entitlement.conditions.hours == entitlement.conditions.hours;
        verified && same_terms && same_hours && entitlement.includes(&self.ask.access)
    }
}

/// A live permit as the register knows it.
#[derive(Debug)]
struct Seat {
    held: Held,
    ends: watch::Sender<Option<Ended>>,
    /// Its client is gone.
    vacant: bool,
}

/// The policy in force and the permits that live under it.
#[derive(Debug)]
pub(super) struct Rules {
    policy: ArcSwap<Policy>,
    own: [u8; 32],
    seats: Mutex<HashMap<SessionId, Seat>>,
    /// Moves whenever something was said about a request, or the policy changed.
    requests: watch::Sender<u64>,
}

impl Rules {
    pub(super) fn new(policy: Policy, own: [u8; 32]) -> Self {
        Self { policy: ArcSwap::from_pointee(policy), own, seats: Mutex::default(), requests: watch::Sender::new(0) }
    }

    pub(super) fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// The public key of our own grants.
    pub(super) fn own(&self) -> &[u8; 32] {
        &self.own
    }

    /// Something was said about a request.
    pub(super) fn requests_changed(&self) {
        self.requests.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Moves whenever something was said about a request, or the policy changed.
    pub(super) fn request_changes(&self) -> watch::Receiver<u64> {
        self.requests.subscribe()
    }

    fn register(&self) -> MutexGuard<'_, HashMap<SessionId, Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under the register's lock, so that no permit is given between the swap and the look at those that live.
    pub(super) fn replace(&self, policy: Policy) {
        let seats = self.register();
        let policy = Arc::new(policy);
        self.policy.store(policy.clone());
        for seat in seats.values().filter(|seat| !seat.held.fits(&policy, &self.own)) {
            seat.end(&Ended::Withdrawn);
        }
        drop(seats);
        self.requests_changed();
    }

    /// The sessions whose permits would end under this policy.
    pub(super) fn would_end(&self, policy: &Policy) -> Vec<SessionId> {
        let seats = self.register();
        let fallen = seats.values().filter(|seat| seat.ends.borrow().is_none() && !seat.held.fits(policy, &self.own));
        let mut sessions: Vec<_> = fallen.map(|seat| seat.held.session).collect();
        sessions.sort_unstable();
        sessions
    }

    /// Ends every permit of a grant.
    pub(super) fn end(&self, grant: GrantId, ended: &Ended) {
        self.register().values().filter(|seat| seat.held.grant == grant).for_each(|seat| {
            seat.end(ended);
        });
    }

    /// Whether this session has a permit that has not ended.
    pub(super) fn is_live(&self, session: SessionId) -> bool {
        self.register().get(&session).is_some_and(|seat| seat.ends.borrow().is_none())
    }

    /// Ends the permit of one session. False if there was none that had not ended already.
    pub(super) fn end_session(&self, session: SessionId, ended: &Ended) -> bool {
        self.register().get(&session).is_some_and(|seat| seat.end(ended))
    }

    /// Ends every permit of an identity; how many had not ended already.
    pub(super) fn end_identity(&self, identity: &IdentityName, ended: &Ended) -> usize {
        self.end_those(|of, _| of == identity, ended)
    }

    /// Ends every permit of whom, and where, it says so; how many had not ended already.
    pub(super) fn end_those(&self, covered: impl Fn(&IdentityName, &TargetName) -> bool, ended: &Ended) -> usize {
        let seats = self.register();
        seats.values().filter(|seat| covered(&seat.held.ask.identity, &seat.held.ask.target) && seat.end(ended)).count()
    }

    /// How many permits of the same identity, target and entitlement live now, and still have their client.
    pub(super) fn taken(&self, identity: &IdentityName, target: &TargetName, entitlement: &Entitlement) -> usize {
        let alike = |held: &Held| {
            held.ask.identity == *identity && held.ask.target == *target && held.entitlement.name == entitlement.name
        };
        self.count(alike)
    }

    /// How many permits of this identity live under this entitlement, on all targets, and still have their client.
    pub(super) fn under(&self, identity: &IdentityName, entitlement: &EntitlementName) -> usize {
        self.count(|held| held.ask.identity == *identity && held.entitlement.name == *entitlement)
    }

    /// How many permits like this live now, and still have their client.
    pub(super) fn count(&self, alike: impl Fn(&Held) -> bool) -> usize {
        self.register().values().filter(|seat| alike(&seat.held) && !seat.vacant).count()
    }

    /// Makes the permit, after the commit. `policy` is the one that it was decided by.
    pub(super) fn admit(self: &Arc<Self>, held: Held, policy: &Arc<Policy>, now: Timestamp, start: Instant) -> Permit {
        let (sender, ends) = watch::channel(None);
        let expires = jws::at(held.claims.exp);
        let shuts = held.entitlement.conditions.hours.as_ref().map(|hours| hours.until(now).unwrap_or(now));
        let shuts = shuts.filter(|shuts| *shuts < expires);
        let end = shuts.unwrap_or(expires);
        let left = Duration::try_from(end.duration_since(now)).unwrap_or_default();
        let deadline = start.checked_add(left).unwrap_or(start);
        let seat = Seat { held: held.clone(), ends: sender, vacant: false };
        let mut seats = self.register();
        let current = self.policy();
        if !Arc::ptr_eq(&current, policy) && !held.fits(&current, &self.own) {
            seat.end(&Ended::Withdrawn); // a reload came between the decision and now
        }
        seats.insert(held.session, seat);
        drop(seats);
        Permit { held, expires, shuts, deadline, ends, rules: self.clone() }
    }
}

impl Seat {
    /// The first reason stays. True if this was it.
    fn end(&self, ended: &Ended) -> bool {
        self.ends.send_if_modified(|state| {
            let first = state.is_none();
            if first {
                *state = Some(ended.clone());
            }
            first
        })
    }
}
