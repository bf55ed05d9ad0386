//! Who holds no grant may ask for one where they are, and go on once it is given: the same for every protocol.
//!
//! What always holds: nothing of a target is touched before the grant verifies: what comes back from here is a permit of
//! [`Authority::authorize`](tidegate_grants::Authority::authorize) like any other, and whoever decides goes by the ledger alone.
//! A client that goes away leaves its request standing, since a connection is lost by accident too: it can be approved, and the
//! next login goes straight in, or waits on. Only who says so takes it back. A gateway that stops sends those who wait away at
//! once, and their requests stand.

use crate::{asking, gate::Gate, refusal::Refusal, session::Client};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tidegate_grants::{
    Access, Ask, Denied, EntitlementName, IdentityName, Means, Permit, RequestState, RequestView,
    authority::{GrantError, Offer},
    panel::Standing,
    request::Wish,
};
use tokio::time::{Instant, sleep, sleep_until};

/// What time alone changes (who else may approve, the request's end) is looked at this often.
const LOOK: Duration = Duration::from_secs(10);

/// Never sooner than this: a second of the clock may not be over yet.
const SOON: Duration = Duration::from_millis(50);

/// How often the ledger is told which requests are over by time.
const EXPIRY: Duration = Duration::from_secs(60);

/// Connections of one identity that wait at once: more than anybody needs. Each looks at the store when something was decided.
const MOST_WAITING: usize = 20;

/// What somebody says when they ask at the door.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// For which entitlement, where there are several.
    pub entitlement: Option<EntitlementName>,
    /// Why.
    pub reason: Option<String>,
    /// A ticket.
    pub ticket: Option<String>,
    /// For how long from the last approval.
    pub duration: Option<Duration>,
    /// How long they wait for it.
    pub patience: Option<Duration>,
}

/// What a client makes of being asked.
#[derive(Debug)]
pub enum Words {
    /// They ask, and wait.
    Asks(Said),
    /// Nobody is there to be asked, or they did not say that they would wait.
    Silent,
    /// They have left.
    Gone,
}

/// How somebody stops waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves {
    /// They take their request back.
    TakesBack,
    /// They are gone, and it stands.
    Gone,
}

/// Why there is no permit.
pub(crate) enum Without {
    /// To be told.
    Refused(Refusal),
    /// Nobody is there to be told.
    Gone,
}

impl From<Refusal> for Without {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<&GrantError> for Without {
    fn from(error: &GrantError) -> Self {
        Self::Refused(Refusal::from(error))
    }
}

/// Grants what waits for its turn once that has come, and writes down which requests nobody has decided in time, until the gate
/// stops. (They are over without that: this is for the ledger.)
pub async fn tend(gate: Gate) {
    let (mut changes, mut due) = (gate.authority.request_changes(), Instant::now() + EXPIRY);
    loop {
        changes.borrow_and_update();
        let next = gate.authority.pass_on(gate.now()).await.unwrap_or_else(|error| {
            tracing::error!(%error, "what waits for its turn could not be looked at");
            None
        });
        let left = next.and_then(|next| Duration::try_from(next.duration_since(gate.now())).ok());
        let look = Instant::now() + left.map_or(EXPIRY, |left| left.clamp(SOON, EXPIRY));
        tokio::select! {
            () = gate.stopping.cancelled() => return,
            _ = changes.changed() => {}
            () = sleep_until(look.min(due)) => {}
        }
        if Instant::now() < due {
            continue;
        }
        due = Instant::now() + EXPIRY;
        if let Err(error) = gate.authority.expire_requests(gate.now()).await {
            tracing::error!(%error, "the end of requests could not be written");
        }
    }
}

/// Whether asking could help.
fn could_help(denied: &Denied) -> bool {
    matches!(denied, Denied::NoGrant { .. } | Denied::Expired { .. } | Denied::Revoked { .. } | Denied::Used { .. })
}

/// What would open exactly what they came for.
fn wish_of(ask: &Ask) -> Wish {
    let (login, database) = match ask.access.clone() {
        Access::Login(login) => (Some(login), None),
        Access::Database(database) => (None, Some(database)),
    };
    let (target, entitlement) = (ask.target.clone(), ask.entitlement.clone());
    Wish {
        target,
        entitlement,
        login,
        database,
        roles: None,
        duration: None,
        reason: None,
        ticket: None,
        from: Some(ask.source),
        extends: None,
        seen: None,
    }
}

/// How many connections wait for approvals, for each identity.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<Mutex<HashMap<IdentityName, usize>>>);

/// The place of one that waits.
struct Seat {
    waiting: Waiting,
    identity: IdentityName,
}

impl Waiting {
    /// `None`: too many of theirs wait already.
    fn enter(&self, identity: &IdentityName) -> Option<Seat> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = all.entry(identity.clone()).or_default();
        if *mine >= MOST_WAITING {
            return None;
        }
        *mine += 1;
        Some(Seat { waiting: self.clone(), identity: identity.clone() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut all = self.waiting.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mine) = all.get_mut(&self.identity) {
            *mine -= 1;
            if *mine == 0 {
                all.remove(&self.identity);
            }
        }
    }
}

/// Asks for what was denied, waits, and goes on; or says why not.
pub(crate) async fn ask_first<C: Client>(gate: &Gate, client: &mut C, denied: Denied) -> Result<Permit, Without> {
    let (ask, refusal) = (client.ask().clone(), Refusal::from(&denied));
    if let Denied::FactorNeeded { means: Means::Codes, .. } = denied {
        return proven(gate, client, refusal).await;
    }
    let mut wish = wish_of(&ask);
    let offers = if could_help(&denied) { gate.authority.offers(&ask.identity, &wish) } else { Vec::new() };
    if offers.is_empty() {
        return Err(refusal.into());
    }
    let how = how_to_ask(&ask, &offers, C::WAITS);
    let standing = standing(gate, &ask, &offers).await?;
    let said = match client.words(&offers, standing.as_ref()).await {
        Words::Asks(said) => said,
        Words::Silent => return Err(Refusal { next: Some(how), ..refusal }.ask_first().into()),
        Words::Gone => return Err(Without::Gone),
    };
    let patience = said.patience;
    let request = match standing {
        Some(view) => view,
        None => {
            wish.entitlement = said.entitlement.or(wish.entitlement);
            (wish.reason, wish.ticket, wish.duration) = (said.reason, said.ticket, said.duration);
            asked(gate, client, wish).await.map_err(|error| match error {
                GrantError::Refused(_) => Refusal::from(&error).next(how).ask_first(),
                error => Refusal::from(&error),
            })?
        }
    };
    let _seat = gate.waiting.enter(&ask.identity).ok_or_else(|| {
        let id = request.wanted.id.short();
        Refusal::new(format!("{MOST_WAITING} connections of yours wait already; your request {id} stands")).by("limit")
    })?;
    until_decided(gate, client, &request, patience).await?;
    match gate.authority.authorize(&ask, gate.now()).await {
        Err(denied @ Denied::FactorNeeded { means: Means::Codes, .. }) => {
            proven(gate, client, Refusal::from(&denied)).await
        }
        authorized => authorized.map_err(|denied| Refusal::from(&denied).into()),
    }
}

/// The request; whoever must have proven a second factor by then is asked for it, where they can be.
async fn asked<C: Client>(gate: &Gate, client: &mut C, wish: Wish) -> Result<RequestView, GrantError> {
    let identity = client.ask().identity.clone();
    let needed = match gate.request(&identity, wish.clone()).await {
        Err(needed @ GrantError::FactorNeeded { means: Means::Codes, .. }) => needed,
        other => return other,
    };
    match client.prove().await {
        Ok(true) => gate.request(&identity, wish).await,
        Ok(false) => Err(needed),
        Err(refusal) => Err(GrantError::Refused(refusal.sentence)),
    }
}

/// The way in for whom nothing but a second factor is missing: they are asked for it, where they can be.
async fn proven<C: Client>(gate: &Gate, client: &mut C, refusal: Refusal) -> Result<Permit, Without> {
    if !client.prove().await? {
        return Err(refusal.into());
    }
    gate.authority.authorize(client.ask(), gate.now()).await.map_err(|denied| Refusal::from(&denied).into())
}

/// An open request of theirs that would open this: they wait for that one, and need not ask again.
async fn standing(gate: &Gate, ask: &Ask, offers: &[Offer]) -> Result<Option<RequestView>, Without> {
    let own = gate.authority.open_requests(&ask.identity, gate.now()).await;
    let own = own.map_err(|error| Refusal::from(&error))?;
    let opens = |view: &RequestView| {
        let wanted = &view.wanted;
        let this = match &ask.access {
            Access::Login(login) => wanted.login.as_ref().is_none_or(|narrowed| narrowed == login),
            Access::Database(database) => wanted.database.as_ref().is_none_or(|narrowed| narrowed == database),
        };
        this && wanted.extends.is_none()
            && wanted.target == ask.target
            && offers.iter().any(|offer| offer.entitlement == wanted.entitlement)
    };
    Ok(own.into_iter().find(opens))
}

/// The command that asks for it elsewhere.
fn how_to_ask(ask: &Ask, offers: &[Offer], waits: &str) -> String {
    let names: Vec<String> = offers.iter().map(|offer| format!("{}/{}", ask.target, offer.entitlement)).collect();
    let ticket = if offers.iter().any(|offer| offer.asking.ticket.is_some()) { " --ticket ID" } else { "" };
    format!("ask for one: ssh gate request {} --reason WHY{ticket} ({waits})", names.join(" or "))
}

/// Shows the person where it stands until it is decided. Ok: granted.
async fn until_decided<C: Client>(
    gate: &Gate,
    client: &mut C,
    request: &RequestView,
    patience: Option<Duration>,
) -> Result<(), Without> {
    let id = request.wanted.id.to_string();
    let stands = |sentence: String| {
        Refusal::new(format!("{sentence}; your request {} stands", request.wanted.id.short()))
            .next("connect again: you wait on, or go straight in")
            .by("request")
    };
    let end = patience.map(|patience| Instant::now() + patience);
    let mut changes = gate.authority.request_changes();
    let mut shown = Vec::new();
    loop {
        changes.borrow_and_update();
        let view = gate.authority.request_named(Some(&request.wanted.identity), &id, gate.now()).await;
        let view = view.map_err(|error| Without::from(&error))?;
        let lines = asking::status(&view, &gate.authority.policy());
        match (view.state, &view.standing) {
            (RequestState::Granted, _) => {
                client.show(&asking::granted(&view)).await;
                return Ok(());
            }
            (RequestState::Open, Some(Standing::Stuck(_)) | None) => {
                return Err(Refusal::new(lines.join("; ")).by("request").into());
            }
            (RequestState::Open, _) if lines == shown => {}
            (RequestState::Open, _) => {
                client.show(&lines).await;
                shown = lines;
            }
            (over, _) => {
                let why = format!("your request {} was {}", view.wanted.id.short(), asking::ended(&view, over));
                return Err(Refusal::new(why).by("request").into());
            }
        }
        tokio::select! {
            biased; // a decision wins over whoever leaves in that moment
            _ = changes.changed() => {}
            left = client.leaves() => return Err(left_behind(gate, request, left).await),
            _ = gate.drain.begun() => return Err(stands("the gateway is being stopped".to_owned()).into()),
            refusal = gate.closing() => return Err(stands(refusal.sentence).into()),
            () = at(end) => return Err(stands("nobody has decided in time".to_owned()).ask_first().into()),
            () = sleep(LOOK) => {}
        }
    }
}

async fn at(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// Who takes a request back is told that it is; of who is gone it stands.
async fn left_behind(gate: &Gate, request: &RequestView, left: Leaves) -> Without {
    if left == Leaves::Gone {
        return Without::Gone;
    }
    let (by, id) = (&request.wanted.identity, request.wanted.id);
    match gate.authority.cancel(by, &id.to_string(), gate.now()).await {
        Ok(_) => Refusal::new(format!("your request {} is taken back", id.short())).by("request").into(),
        Err(error) => Without::from(&error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn so_many_of_one_identity_wait_and_who_leaves_makes_room() {
        let (waiting, alice, bob) = (Waiting::default(), "alice".parse().unwrap(), "bob".parse().unwrap());
        let mut seats: Vec<_> = (0..MOST_WAITING).map(|_| waiting.enter(&alice).unwrap()).collect();
        assert!(waiting.enter(&alice).is_none() && waiting.enter(&bob).is_some());
        seats.pop();
        seats.push(waiting.enter(&alice).unwrap());
        assert!(waiting.enter(&alice).is_none());
        drop(seats);
        assert!(waiting.0.lock().unwrap().is_empty());
    }
}
