//! Permits, and the register of those that are alive.

use super::{Ask, Denied, met::met, requests::Extended};
use crate::{
    entitlement::{Entitlement, Terms},
    grant::{Claims, jws},
    guest::Guests,
    identity::Identity,
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
    /// The condition of its entitlement no longer holds.
    Unmet,
    /// It was revoked.
    Revoked {
        /// By whom.
        by: String,
        /// Why, if said.
        reason: Option<String>,
    },
    /// Whose it was handed it back.
    Returned,
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
    /// When that grant ends.
    pub(super) until: Timestamp,
    pub(super) entitlement: Entitlement,
    /// Nobody sits at it: what the entitlement says of people is not asked.
    pub(super) trial: bool,
}

/// The in-memory proof, held by one live session, that its grant was verified.
///
/// Its fields are private and it is not `Clone`: one comes from [`Authority::authorize`](super::Authority::authorize)
/// or not at all. While it lives it counts towards `max_connections`; dropping or [vacating](Permit::vacate) it gives the
/// place back.
#[derive(Debug)]
pub struct Permit {
    held: Held,
    life: watch::Receiver<Life>,
    rules: Arc<Rules>,
}

/// Until when a permit lasts. An extension puts another one in its place.
#[derive(Debug)]
pub(super) struct Term {
    /// The grant that it rests on now.
    grant: GrantId,
    token: String,
    claims: Claims,
    expires: Timestamp,
    /// The hours of the entitlement end before the grant does.
    shuts: Option<Timestamp>,
    deadline: Instant,
}

/// Where a permit stands.
#[derive(Debug, Clone)]
struct Life {
    term: Arc<Term>,
    ended: Option<Ended>,
}

/// Tells when the end of a permit has moved.
#[derive(Debug)]
pub struct Moves {
    life: watch::Receiver<Life>,
    term: Arc<Term>,
}

impl Moves {
    /// Waits until it has, since the last time that this was asked. Cancel safe.
    pub async fn next(&mut self) {
        let known = self.term.clone();
        let life = self.life.wait_for(|life| !Arc::ptr_eq(&life.term, &known)).await;
        match life.map(|life| life.term.clone()).ok() {
            Some(term) => self.term = term,
            None => std::future::pending().await, // its seat is gone, so it has ended
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.rules.register().remove(&self.held.session);
        if self.held.entitlement.conditions.exclusive {
            self.rules.requests_changed(); // somebody may be waiting for it
        }
    }
}

impl Permit {
    /// The session that this permit is for.
    pub fn session(&self) -> SessionId {
        self.held.session
    }
    /// The grant that opened it.
    pub fn grant(&self) -> GrantId {
        self.held.grant
    }
    /// The claims of that grant as verified. (An extension has the same, but for its end and who approved it.)
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
    /// The end of the grant that it rests on now.
    pub fn expires(&self) -> Timestamp {
        self.term().expires
    }
    /// Waits until the permit ends: at the grant's end, at its revocation, or when a reload takes it away.
    /// Cancel safe; may be called again.
    pub async fn ended(&self) -> Ended {
        let mut life = self.life.clone();
        loop {
            let Life { term, ended } = life.borrow_and_update().clone();
            if let Some(ended) = ended {
                return ended;
            }
            tokio::select! {
                biased;
                Ok(()) = life.changed() => {}
                () = sleep_until(term.deadline) => return term.over(),
            }
        }
    }

    /// How long it lasts from now on, by the machine's own time, if nothing ends it before.
    pub fn left(&self) -> Duration {
        self.term().deadline.saturating_duration_since(Instant::now())
    }

    /// Tells when its end has moved, from now on.
    pub fn moves(&self) -> Moves {
        Moves { life: self.life.clone(), term: self.term() }
    }

    fn term(&self) -> Arc<Term> {
        self.life.borrow().term.clone()
    }

    /// The client has hung up: its place among `max_connections` is free, though its teardown is still to come. (Programs
    /// close a connection and open the next at once: `pgbench` does before it begins.)
    pub fn vacate(&self) {
        if let Some(seat) = self.rules.register().get_mut(&self.held.session) {
            seat.vacant = true;
        }
    }

    /// With the grant that it rests on now.
    pub(super) fn held(&self) -> Held {
        let term = self.term();
        Held { grant: term.grant, token: term.token.clone(), claims: term.claims.clone(), ..self.held.clone() }
    }

    /// Ok while it has not ended.
    pub(super) fn alive(&self) -> Result<(), Denied> {
        let target = self.target().clone();
        let Life { term, ended } = self.life.borrow().clone();
        match ended {
            Some(Ended::Revoked { .. } | Ended::Returned) => Err(Denied::Revoked { target }),
            Some(Ended::Killed { .. }) => Err(Denied::Killed { target }),
            Some(Ended::Expired { at }) => Err(Denied::Expired { target, at }),
            Some(Ended::Shut { at }) => Err(Denied::Expired { target, at }),
            Some(Ended::Locked(locked)) => Err(Denied::Locked(locked)),
            Some(Ended::Unmet | Ended::Withdrawn) => Err(self.held.no_grant()),
            None if Instant::now() >= term.deadline => {
                Err(Denied::Expired { target, at: term.shuts.unwrap_or(term.expires) })
            }
            None => Ok(()),
        }
    }
}

impl Term {
    /// By this grant, under these terms. `start`: the moment that `now` was.
    fn of(held: &Held, now: Timestamp, start: Instant) -> Self {
        let expires = held.until;
        let shuts = held.entitlement.conditions.hours.as_ref().map(|hours| hours.until(now).unwrap_or(now));
        let shuts = shuts.filter(|shuts| *shuts < expires);
        let left = Duration::try_from(shuts.unwrap_or(expires).duration_since(now)).unwrap_or_default();
        let deadline = start.checked_add(left).unwrap_or(start);
        let (grant, token, claims) = (held.grant, held.token.clone(), held.claims.clone());
        Self { grant, token, claims, expires, shuts, deadline }
    }

    /// What its deadline means.
    fn over(&self) -> Ended {
        self.shuts.map_or(Ended::Expired { at: self.expires }, |at| Ended::Shut { at })
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
    /// With the grant that it rests on now.
    held: Held,
    /// The grant that opened it.
    first: GrantId,
    life: watch::Sender<Life>,
    /// Its client is gone.
    vacant: bool,
}

/// The policy in force and the permits that live under it.
#[derive(Debug)]
pub(super) struct Rules {
    /// What is in force: the configuration's, with those who are guests at the moment.
    policy: ArcSwap<Policy>,
    hosted: Mutex<Hosted>,
    own: [u8; 32],
    seats: Mutex<HashMap<SessionId, Seat>>,
    /// Moves whenever something was said about a request, or the policy changed.
    requests: watch::Sender<u64>,
}

/// What the policy in force is made of.
#[derive(Debug)]
struct Hosted {
    base: Arc<Policy>,
    guests: Guests,
    /// The moment at which it was looked who is here.
    at: Timestamp,
}

impl Rules {
    pub(super) fn new(policy: Policy, own: [u8; 32]) -> Self {
        let base = Arc::new(policy);
        Self {
            policy: ArcSwap::new(base.clone()),
            hosted: Mutex::new(Hosted { base, guests: Guests::default(), at: Timestamp::UNIX_EPOCH }),
            own,
            seats: Mutex::default(),
            requests: watch::Sender::new(0),
        }
    }

    fn hosted(&self) -> MutexGuard<'_, Hosted> {
        self.hosted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom the configuration itself names, with the keys that it gives them and no others.
    pub(super) fn declared(&self, identity: &IdentityName) -> Option<Identity> {
        self.hosted().base.identities.get(identity).cloned()
    }

    /// These guests and lent keys are there from now on.
    pub(super) fn host(&self, guests: Guests, now: Timestamp) {
        self.swap(|hosted| (hosted.guests, hosted.at) = (guests, now));
    }

    /// Whoever's time is over is no longer there.
    pub(super) fn see_off(&self, now: Timestamp) {
        let ended = {
            let hosted = self.hosted();
            hosted.guests.ended_between(hosted.at, now)
        };
        if ended {
            self.swap(|hosted| hosted.at = now);
        }
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

    /// Another configuration; guests stay.
    pub(super) fn replace(&self, policy: Policy) {
        self.swap(|hosted| hosted.base = Arc::new(policy));
    }

    /// Under the register's lock, so that no permit is given between the swap and the look at those that live.
    fn swap(&self, change: impl FnOnce(&mut Hosted)) {
        let mut hosted = self.hosted();
        change(&mut hosted);
        let seats = self.register();
        let policy = hosted.guests.join(&hosted.base, hosted.at);
        self.policy.store(policy.clone());
        for seat in seats.values().filter(|seat| !seat.held.fits(&policy, &self.own)) {
            seat.end(&Ended::Withdrawn);
        }
        drop((seats, hosted));
        self.requests_changed();
    }

    /// Ends every permit whose entitlement's condition does not hold now, as the policy in force has both.
    pub(super) fn end_unmet(&self, now: Timestamp) {
        for session in self.unmet(&self.policy(), now) {
            self.end_session(session, &Ended::Unmet);
        }
    }

    /// The sessions whose entitlement's condition, as this policy has both, does not hold now.
    fn unmet(&self, policy: &Policy, now: Timestamp) -> Vec<SessionId> {
        let when = |held: &Held| {
            let entitlement = policy.entitlements.get(&held.entitlement.name)?;
            entitlement.conditions.when.as_ref().filter(|_| !held.trial).map(|_| entitlement)
        };
        // Judged without the register's lock: nobody at the door waits for it.
        let conditional = |seat: &Seat| Some((when(&seat.held)?, seat.held.clone())).filter(|_| seat.lives());
        let mut conditional: Vec<_> = self.register().values().filter_map(conditional).collect();
        conditional.retain(|(entitlement, held)| {
            met(policy, entitlement, &held.ask, held.claims.ticket.as_deref(), now).is_err()
        });
        conditional.into_iter().map(|(_, held)| held.session).collect()
    }

    /// The sessions whose permits would end under this policy, if it came into force now.
    pub(super) fn would_end(&self, policy: &Policy, now: Timestamp) -> BTreeSet<SessionId> {
        let policy = {
            let hosted = self.hosted();
            hosted.guests.join(&Arc::new(policy.clone()), hosted.at)
        };
        let unmet = self.unmet(&policy, now);
        let seats = self.register();
        let fallen = seats.values().filter(|seat| seat.lives() && !seat.held.fits(&policy, &self.own));
        fallen.map(|seat| seat.held.session).chain(unmet).collect()
    }

    /// Ends every permit of a grant, those too that rest on an extension of it by now.
    pub(super) fn end(&self, grant: GrantId, ended: &Ended) {
        self.register().values().filter(|seat| seat.held.grant == grant || seat.first == grant).for_each(|seat| {
            seat.end(ended);
        });
    }

    /// The sessions that rest on this grant now.
    pub(super) fn sessions_of(&self, grant: GrantId) -> Vec<SessionId> {
        let seats = self.register();
        let resting = seats.values().filter(|seat| seat.lives() && seat.held.grant == grant);
        resting.map(|seat| seat.held.session).collect()
    }

    /// Puts an extension in the place of the grant that it extends: permits that rest on it end later. `start`: the moment that
    /// `now` was.
    pub(super) fn extend(&self, extended: &Extended, now: Timestamp, start: Instant) {
        let Extended { of, id, claims, token } = extended;
        let until = jws::at(claims.exp);
        let mut seats = self.register();
        let resting = seats.values_mut().filter(|seat| seat.held.grant == *of && seat.held.until < until);
        for seat in resting {
            (seat.held.grant, seat.held.token, seat.held.claims) = (*id, token.clone(), claims.clone());
            seat.held.until = until;
            let term = Arc::new(Term::of(&seat.held, now, start));
            seat.life.send_modify(|life| life.term = term);
        }
    }

    /// Whether somebody else still has a session there under this entitlement, be it on its way out.
    pub(super) fn occupied(
        &self,
        by: &IdentityName,
        target: &TargetName,
        entitlement: &EntitlementName,
    ) -> Option<IdentityName> {
        let seats = self.register();
        let theirs = |held: &Held| {
            held.ask.identity != *by && held.ask.target == *target && held.entitlement.name == *entitlement
        };
        seats.values().find(|seat| theirs(&seat.held)).map(|seat| seat.held.ask.identity.clone())
    }

    /// Whether this session has a permit that has not ended.
    pub(super) fn is_live(&self, session: SessionId) -> bool {
        self.register().get(&session).is_some_and(Seat::lives)
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
        let term = Arc::new(Term::of(&held, now, start));
        let (sender, life) = watch::channel(Life { term, ended: None });
        let seat = Seat { first: held.grant, held: held.clone(), life: sender, vacant: false };
        let mut seats = self.register();
        let current = self.policy();
        if !Arc::ptr_eq(&current, policy) && !held.fits(&current, &self.own) {
            seat.end(&Ended::Withdrawn); // a reload came between the decision and now
        }
        seats.insert(held.session, seat);
        drop(seats);
        Permit { held, life, rules: self.clone() }
    }
}

impl Seat {
    /// Its permit has not ended.
    fn lives(&self) -> bool {
        self.life.borrow().ended.is_none()
    }

    /// The first reason stays. True if this was it.
    fn end(&self, ended: &Ended) -> bool {
        self.life.send_if_modified(|life| {
            let first = life.ended.is_none();
            if first {
                life.ended = Some(ended.clone());
            }
            first
        })
    }
}
