//! What [`Authority`] does with requests.

use super::{Authority, GrantError, requests};
use crate::{
    asking::Asking,
    name::{EntitlementName, IdentityName},
    request::{More, RequestView, Wish},
    store::StoreError,
};
use jiff::Timestamp;
use std::time::Duration;
use tokio::{sync::watch, time::Instant};

/// Something that somebody may ask for.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Its entitlement.
    pub entitlement: EntitlementName,
    /// What must be said, and who is asked.
    pub asking: Asking,
    /// For how long at most.
    pub max_duration: Duration,
}

impl Authority {
    /// Opens a request, or finds the open one that asks for the same; one that asks for something else of the same
    /// entitlement on the same target is cancelled. Without a level to satisfy it is granted at once.
    ///
    /// # Errors
    /// [`GrantError::Refused`]: they may not ask for this, or said too little; the sentence says which.
    pub async fn request(&self, by: &IdentityName, wish: Wish, now: Timestamp) -> Result<RequestView, GrantError> {
        let (at, rules, signer, by) = ((now, Instant::now()), self.rules.clone(), self.signer.clone(), by.clone());
        self.store.run(move |writer| requests::open(writer, &rules, &signer, &by, &wish, at)).await?
    }

    /// Asks for more time under the one grant of theirs with this id, prefix or suffix: by the same levels as the grant itself. With the
    /// last approval its live sessions end later; none of them is dropped.
    ///
    /// # Errors
    /// [`GrantError::NotFound`]: no such grant of theirs. [`GrantError::Refused`]: it is not extended, or was already.
    pub async fn extend(
        &self,
        by: &IdentityName,
        id: &str,
        more: More,
        now: Timestamp,
    ) -> Result<RequestView, GrantError> {
        let (rules, signer, by, id) = (self.rules.clone(), self.signer.clone(), by.clone(), id.to_owned());
        let at = (now, Instant::now());
        self.store.run(move |writer| requests::extend(writer, &rules, &signer, &by, &id, &more, at)).await?
    }

    /// What somebody may ask for, of that which would open what they want. By the policy alone.
    pub fn offers(&self, by: &IdentityName, wish: &Wish) -> Vec<Offer> {
        let policy = self.policy();
        let named = |name: &EntitlementName| wish.entitlement.as_ref().is_none_or(|wanted| wanted == name);
        let could = requests::could_ask(&policy, by, wish).into_iter().filter(|e| named(&e.name));
        let offer = |e: &crate::Entitlement| {
            let asking = e.asking.clone()?;
            Some(Offer { entitlement: e.name.clone(), asking, max_duration: e.max_duration })
        };
        could.filter_map(offer).collect()
    }

    /// Says yes to the one open request with this id, prefix or suffix. `signature`: an SSHSIG by a key of theirs over
    /// [`RequestView::line_to_sign`]. The last yes that was missing makes the grant.
    ///
    /// # Errors
    /// [`GrantError::NotFound`]: none that they may see. [`GrantError::Refused`]: their yes does not count; the sentence says why.
    pub async fn approve(
        &self,
        by: &IdentityName,
        id: &str,
        signature: Option<String>,
        now: Timestamp,
    ) -> Result<RequestView, GrantError> {
        let (rules, signer, by, id) = (self.rules.clone(), self.signer.clone(), by.clone(), id.to_owned());
        let at = (now, Instant::now());
        let approve =
            move |writer: &mut _| requests::approve(writer, &rules, &signer, &by, &id, signature.as_deref(), at);
        self.store.run(approve).await?
    }

    /// Says no, for a reason.
    ///
    /// # Errors
    /// As [`Authority::approve`].
    pub async fn deny(
        &self,
        by: &IdentityName,
        id: &str,
        reason: String,
        now: Timestamp,
    ) -> Result<RequestView, GrantError> {
        let (rules, by, id) = (self.rules.clone(), by.clone(), id.to_owned());
        self.store.run(move |writer| requests::deny(writer, &rules, &by, &id, &reason, now)).await?
    }

    /// Takes a request back: their own, or as an admin anybody's.
    ///
    /// # Errors
    /// As [`Authority::approve`].
    pub async fn cancel(&self, by: &IdentityName, id: &str, now: Timestamp) -> Result<RequestView, GrantError> {
        let (rules, by, id) = (self.rules.clone(), by.clone(), id.to_owned());
        self.store.run(move |writer| requests::cancel(writer, &rules, &by, &id, now)).await?
    }

    /// Grants what has waited for its turn to hold something that one holds at a time. When to look again, if something waits still.
    pub async fn pass_on(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let (rules, signer, at) = (self.rules.clone(), self.signer.clone(), (now, Instant::now()));
        self.store.run(move |writer| requests::pass_on(writer, &rules, &signer, at)).await?
    }

    /// Writes down which requests nobody decided in time; how many.
    pub async fn expire_requests(&self, now: Timestamp) -> Result<usize, StoreError> {
        let rules = self.rules.clone();
        self.store.run(move |writer| requests::expire(writer, &rules, now)).await?
    }

    /// Requests, newest first: all, or those that this identity may see.
    pub async fn requests(&self, by: Option<&IdentityName>, now: Timestamp) -> Result<Vec<RequestView>, StoreError> {
        let (rules, by) = (self.rules.clone(), by.cloned());
        self.store.read(move |db| requests::list(db, &rules, by.as_ref(), now)).await
    }

    /// Those of this identity's that nobody has decided, newest first.
    pub async fn open_requests(&self, by: &IdentityName, now: Timestamp) -> Result<Vec<RequestView>, StoreError> {
        let (rules, by) = (self.rules.clone(), by.clone());
        self.store.read(move |db| requests::open_of(db, &rules, &by, now)).await
    }

    /// The one request with this id, prefix or suffix, of those that this identity may see (`None`: of all).
    ///
    /// # Errors
    /// [`GrantError::NotFound`]: there is none, or several.
    pub async fn request_named(
        &self,
        by: Option<&IdentityName>,
        id: &str,
        now: Timestamp,
    ) -> Result<RequestView, GrantError> {
        let (rules, by, id) = (self.rules.clone(), by.cloned(), id.to_owned());
        self.store.read(move |db| Ok(requests::show(db, &rules, by.as_ref(), &id, now))).await?
    }

    /// Moves whenever something was said about a request, or the policy changed.
    pub fn request_changes(&self) -> watch::Receiver<u64> {
        self.rules.request_changes()
    }
}
