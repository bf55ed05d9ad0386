//! What every session needs, whatever its protocol.

use crate::{
    authenticate::{Unknown, Vouching},
    door::{Door, TurnedAway},
    drain::Drain,
    meter::Meter,
    reaper::Custody,
    refusal::Refusal,
    waiting::Waiting,
    watching::Watching,
};
use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use jiff::Timestamp;
use russh::keys::ssh_key::public::KeyData;
use std::{net::IpAddr, sync::Arc};
use tidegate_grants::{
    Authority, IdentityName, Reference, RequestView, Store,
    authority::GrantError,
    request::{More, TicketSeen, Wish},
};
use tidegate_recorder::{RecordError, Recorder};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Where the time comes from.
pub type Clock = fn() -> Timestamp;

/// Asks a ticket system whether there is such a ticket.
pub trait Tickets: std::fmt::Debug + Send + Sync {
    /// Ok: there is. Else a sentence for whoever named it; no answer is a no.
    fn check<'a>(&'a self, url: &'a str, ticket: &'a str) -> BoxFuture<'a, Result<(), String>>;
}

/// The parts that sessions share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate {
    /// Says yes or no.
    pub authority: Arc<Authority>,
    /// Leases, ledger.
    pub store: Arc<Store>,
    /// Who vouches for people beside their own keys in the configuration, and what nobody vouches for any more. A reload replaces it.
    pub vouching: Arc<ArcSwap<Vouching>>,
    /// Asks ticket systems.
    pub tickets: Arc<dyn Tickets>,
    /// Starts recordings.
    pub recorder: Arc<Recorder>,
    /// False while the disk does not take recordings: live sessions end, new ones are refused.
    pub recordable: watch::Receiver<bool>,
    /// Who waits for an approval.
    pub waiting: Waiting,
    /// Which leases a live session answers for; the rest are the reaper's.
    pub custody: Custody,
    /// The live sessions, for who may watch them.
    pub watching: Watching,
    /// Who was turned away before a session.
    pub door: Door,
    /// What is counted, for whoever watches from outside.
    pub meter: Meter,
    /// Whether the gateway is about to stop, and who is still in.
    pub drain: Drain,
    /// The gateway's name, in messages and recordings.
    pub name: String,
    /// The time.
    pub clock: Clock,
    /// Cancelled when the gateway stops: sessions end and tear down.
    pub stopping: CancellationToken,
    /// Every session's task, so that a stop can wait for their teardown.
    pub tasks: TaskTracker,
}

impl Gate {
    /// The time now.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// [`Authority::request`], once the ticket system has been asked where it must be.
    pub async fn request(&self, by: &IdentityName, wish: Wish) -> Result<RequestView, GrantError> {
        match self.authority.request(by, wish.clone(), self.now()).await {
            Err(GrantError::TicketUnseen { url, ticket }) => {
                let seen = Some(self.seen(url, ticket).await?);
                self.authority.request(by, Wish { seen, ..wish }, self.now()).await
            }
            other => other,
        }
    }

    /// [`Authority::extend`], likewise.
    pub async fn extend(&self, by: &IdentityName, grant: &str, more: More) -> Result<RequestView, GrantError> {
        match self.authority.extend(by, grant, more.clone(), self.now()).await {
            Err(GrantError::TicketUnseen { url, ticket }) => {
                let seen = Some(self.seen(url, ticket).await?);
                self.authority.extend(by, grant, More { seen, ..more }, self.now()).await
            }
            other => other,
        }
    }

    /// Whether a key opens and signs nothing any more, by the list as it is now.
    pub async fn is_revoked(&self, key: &KeyData) -> Result<bool, Unknown> {
        Ok(self.vouching.load_full().revoked_keys.now().await?.has_key(key))
    }

    /// [`Authority::approve`], unless the key that signed was revoked.
    pub async fn approve(
        &self,
        by: &IdentityName,
        id: &str,
        signature: Option<String>,
    ) -> Result<RequestView, GrantError> {
        if let Some(armored) = &signature {
            self.not_revoked(armored).await?;
        }
        self.authority.approve(by, id, signature, self.now()).await
    }

    /// [`Authority::prove_by_key`], likewise.
    pub async fn prove_by_key(
        &self,
        identity: &IdentityName,
        came_with: Option<&str>,
        (line, armored): (&str, &str),
        source: IpAddr,
    ) -> Result<(), GrantError> {
        self.not_revoked(armored).await?;
        self.authority.prove_by_key(identity, came_with, (line, armored), source, self.now()).await
    }

    /// Whoever verifies what is no signature says so.
    async fn not_revoked(&self, armored: &str) -> Result<(), GrantError> {
        let Some(key) = tidegate_grants::signed_by(armored) else { return Ok(()) };
        match self.is_revoked(&key).await {
            Ok(true) => Err(GrantError::Refused("the key that signed is revoked".to_owned())),
            Ok(false) => Ok(()),
            Err(unknown) => Err(GrantError::Refused(format!("whether the key is revoked is not known: {unknown}"))),
        }
    }

    async fn seen(&self, url: String, ticket: String) -> Result<TicketSeen, GrantError> {
        self.tickets.check(&url, &ticket).await.map_err(GrantError::Refused)?;
        Ok(TicketSeen { url, ticket })
    }

    /// Waits until sessions must end for a reason that is not theirs: the disk, or the gateway stopping.
    pub async fn closing(&self) -> Refusal {
        let mut recordable = self.recordable.clone();
        tokio::select! {
            () = self.stopping.cancelled() => {
                Refusal::new("the gateway is stopping").next("connect again in a moment").by("stopping")
            }
            lost = recordable.wait_for(|ok| !ok) => {
                drop(lost);
                Refusal { sentence: "the session can no longer be recorded".to_owned(), ..Refusal::from(&RecordError::Failed) }
            }
        }
    }

    /// Somebody did not get as far as a session. Returns what they can ask by, if it was written.
    pub async fn turned_away(&self, refused: TurnedAway<'_>) -> Option<Reference> {
        self.meter.refused(refused.check);
        self.door.turned_away(refused, self.now()).await
    }
}
