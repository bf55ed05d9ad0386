//! Permits: what one stands for, until when, and why it ended.

mod rules;

pub(super) use rules::Rules;

use super::{Ask, Denied};
use crate::{
    entitlement::{Entitlement, Terms},
    grant::{Claims, jws},
    lock::Locked,
    name::{Access, GrantId, IdentityName, RoleName, SessionId, TargetName},
    policy::Policy,
    reference::Reference,
};
use jiff::Timestamp;
use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};
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
struct Term {
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
        self.rules.leave(&self.held);
    }
}

impl Permit {
    /// For [`Rules::admit`] alone.
    fn new(held: Held, life: watch::Receiver<Life>, rules: Arc<Rules>) -> Self {
        Self { held, life, rules }
    }

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
        self.rules.vacate(self.held.session);
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
