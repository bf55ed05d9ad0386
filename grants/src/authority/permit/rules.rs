//! The policy in force, and the register of the permits that live under it.
//!
//! What always holds: no permit lives on that the policy in force does not allow. The two locks are taken in one order, the
//! configuration's before the register's, and nobody is admitted between a change of policy and the look at those who live.

use super::{Ended, Held, Life, Permit, Term};
use crate::{
    authority::{met::met, requests::Extended},
    entitlement::Entitlement,
    grant::jws,
    guest::Guests,
    identity::Identity,
    name::{EntitlementName, GrantId, IdentityName, SessionId, TargetName},
    policy::Policy,
    signature::{self, Signed, Unsigned},
};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{sync::watch, time::Instant};

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
pub(in crate::authority) struct Rules {
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
    pub(in crate::authority) fn new(policy: Policy, own: [u8; 32]) -> Self {
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
    pub(in crate::authority) fn declared(&self, identity: &IdentityName) -> Option<Identity> {
        self.hosted().base.identities.get(identity).cloned()
    }

    /// Their signature over the line, by a key that the configuration gives them: one that a login elsewhere lent for a day signs
    /// nothing, for that is the login's word.
    pub(in crate::authority) fn signed(
        &self,
        by: &IdentityName,
        namespace: &'static str,
        line: &str,
        armored: &str,
    ) -> Result<Signed, Unsigned> {
        signature::check(&self.declared(by).ok_or(Unsigned::Key)?, namespace, line, armored)
    }

    /// These guests and lent keys are there from now on.
    pub(in crate::authority) fn host(&self, guests: Guests, now: Timestamp) {
        self.swap(|hosted| (hosted.guests, hosted.at) = (guests, now));
    }

    /// Whoever's time is over is no longer there.
    pub(in crate::authority) fn see_off(&self, now: Timestamp) {
        let ended = {
            let hosted = self.hosted();
            hosted.guests.ended_between(hosted.at, now)
        };
        if ended {
            self.swap(|hosted| hosted.at = now);
        }
    }

    pub(in crate::authority) fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// The public key of our own grants.
    pub(in crate::authority) fn own(&self) -> &[u8; 32] {
        &self.own
    }

    /// Something was said about a request.
    pub(in crate::authority) fn requests_changed(&self) {
        self.requests.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Moves whenever something was said about a request, or the policy changed.
    pub(in crate::authority) fn request_changes(&self) -> watch::Receiver<u64> {
        self.requests.subscribe()
    }

    fn register(&self) -> MutexGuard<'_, HashMap<SessionId, Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another configuration; guests stay.
    pub(in crate::authority) fn replace(&self, policy: Policy) {
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
    pub(in crate::authority) fn end_unmet(&self, now: Timestamp) {
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
    pub(in crate::authority) fn would_end(&self, policy: &Policy, now: Timestamp) -> BTreeSet<SessionId> {
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
    pub(in crate::authority) fn end(&self, grant: GrantId, ended: &Ended) {
        self.register().values().filter(|seat| seat.held.grant == grant || seat.first == grant).for_each(|seat| {
            seat.end(ended);
        });
    }

    /// The sessions that rest on this grant now.
    pub(in crate::authority) fn sessions_of(&self, grant: GrantId) -> Vec<SessionId> {
        let seats = self.register();
        let resting = seats.values().filter(|seat| seat.lives() && seat.held.grant == grant);
        resting.map(|seat| seat.held.session).collect()
    }

    /// Puts an extension in the place of the grant that it extends: permits that rest on it end later. `start`: the moment that
    /// `now` was.
    pub(in crate::authority) fn extend(&self, extended: &Extended, now: Timestamp, start: Instant) {
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
    pub(in crate::authority) fn occupied(
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
    pub(in crate::authority) fn is_live(&self, session: SessionId) -> bool {
        self.register().get(&session).is_some_and(Seat::lives)
    }

    /// Ends the permit of one session. False if there was none that had not ended already.
    pub(in crate::authority) fn end_session(&self, session: SessionId, ended: &Ended) -> bool {
        self.register().get(&session).is_some_and(|seat| seat.end(ended))
    }

    /// Ends every permit of an identity; how many had not ended already.
    pub(in crate::authority) fn end_identity(&self, identity: &IdentityName, ended: &Ended) -> usize {
        self.end_those(|of, _| of == identity, ended)
    }

    /// Ends every permit of whom, and where, it says so; how many had not ended already.
    pub(in crate::authority) fn end_those(
        &self,
        covered: impl Fn(&IdentityName, &TargetName) -> bool,
        ended: &Ended,
    ) -> usize {
        let seats = self.register();
        seats.values().filter(|seat| covered(&seat.held.ask.identity, &seat.held.ask.target) && seat.end(ended)).count()
    }

    /// How many permits of the same identity, target and entitlement live now, and still have their client.
    pub(in crate::authority) fn taken(
        &self,
        identity: &IdentityName,
        target: &TargetName,
        entitlement: &Entitlement,
    ) -> usize {
        let alike = |held: &Held| {
            held.ask.identity == *identity && held.ask.target == *target && held.entitlement.name == entitlement.name
        };
        self.count(alike)
    }

    /// How many permits of this identity live under this entitlement, on all targets, and still have their client.
    pub(in crate::authority) fn under(&self, identity: &IdentityName, entitlement: &EntitlementName) -> usize {
        self.count(|held| held.ask.identity == *identity && held.entitlement.name == *entitlement)
    }

    /// How many permits like this live now, and still have their client.
    pub(in crate::authority) fn count(&self, alike: impl Fn(&Held) -> bool) -> usize {
        self.register().values().filter(|seat| alike(&seat.held) && !seat.vacant).count()
    }

    /// The client of this session is gone.
    pub(in crate::authority) fn vacate(&self, session: SessionId) {
        if let Some(seat) = self.register().get_mut(&session) {
            seat.vacant = true;
        }
    }

    /// This permit is no more.
    pub(in crate::authority) fn leave(&self, held: &Held) {
        self.register().remove(&held.session);
        if held.entitlement.conditions.exclusive {
            self.requests_changed(); // somebody may be waiting for it
        }
    }

    /// Makes the permit, after the commit. `policy` is the one that it was decided by.
    pub(in crate::authority) fn admit(
        self: &Arc<Self>,
        held: Held,
        policy: &Arc<Policy>,
        now: Timestamp,
        start: Instant,
    ) -> Permit {
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
        Permit::new(held, life, self.clone())
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
