//! A logged-in person or program at the PostgreSQL door, as [`session::run`](crate::session::run) sees it.

use super::{
    Door, PostgresTarget,
    answer::{self, Fatal},
    issuer::{PostgresIssuer, RoleCredential},
    pump::Unsent,
    relay,
    startup::{Version, start_packet},
    target::{self, Link},
    waiting,
};
use crate::{
    issuer::TargetError,
    pause,
    refusal::Refusal,
    session::{Client, Ending, Way, about},
    waiting::{Leaves, Words},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tidegate_grants::{Ask, DatabaseName, RequestView, authority::Offer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::server::TlsStream;

/// How long a peer may take to read a last word before the connection is closed under it.
const LAST_WORD: Duration = Duration::from_millis(500);
/// How long we read on, so that what the peer still sends does not turn our close into a reset that swallows the word.
const DRAIN: Duration = Duration::from_millis(200);

/// One connection that has proven who it is.
pub(super) struct PgClient {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) ask: Ask,
    pub(super) database: DatabaseName,
    pub(super) settings: BTreeMap<String, String>,
    /// Settings named `tidegate.*`, for us.
    pub(super) ours: BTreeMap<String, String>,
    /// Of the protocol.
    pub(super) version: Version,
    pub(super) door: Arc<Door>,
    /// Recorded, and not yet sent.
    pub(super) unsent: Unsent,
    /// SQLSTATE of the end, where it is not "cut".
    pub(super) code: Option<&'static str>,
    /// AuthenticationOk was sent already: they wait for a grant.
    pub(super) welcomed: bool,
}

impl PgClient {
    pub(super) fn target(&self) -> Result<Arc<PostgresTarget>, TargetError> {
        self.door.postgres.issuer.admin.target(&self.ask.target)
    }

    /// The start-up packet for the target: our role, their settings. What the issuer sets wins. The client's version is
    /// asked for and no later one, since not everything that stands before a server knows how to decline.
    fn start_packet(&self, credential: &RoleCredential) -> Result<Vec<u8>, TargetError> {
        let theirs = self.settings.iter().filter(|(name, _)| !credential.settings.contains_key(*name));
        let settings = theirs.chain(&credential.settings).map(|(name, value)| (name.as_str(), value.as_str()));
        let names = [("user", credential.role.as_str()), ("database", self.database.as_str())];
        start_packet(self.version, names.into_iter().chain(settings))
            .map_err(|error| TargetError::Ours(error.to_string()))
    }
}

impl Client for PgClient {
    type Issuer = PostgresIssuer;
    type Target = Link;

    const PROTOCOL: &'static str = "postgres";
    const WAITS: &'static str = "or here: PGOPTIONS='-c tidegate.reason=WHY -c tidegate.wait=10m'";

    fn ask(&self) -> &Ask {
        &self.ask
    }

    async fn words(&mut self, _: &[Offer], standing: Option<&RequestView>) -> Words {
        waiting::words(&self.ours, standing)
    }

    async fn show(&mut self, lines: &[String]) {
        // What cannot be sent is noticed by `leaves`. libpq breaks on a notice before AuthenticationOk, and prints it at once after it.
        let welcome = if self.welcomed { Vec::new() } else { answer::authentication_ok() };
        self.welcomed = true;
        let notices = lines.iter().flat_map(|line| answer::notice(line));
        let bytes: Vec<u8> = welcome.into_iter().chain(notices).collect();
        let _ = timeout(LAST_WORD, async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        })
        .await;
    }

    /// A client has nothing to say before ReadyForQuery: what comes is Terminate, or its end.
    async fn leaves(&mut self) -> Leaves {
        let _ = self.stream.read(&mut [0u8; 1]).await;
        Leaves::Gone
    }

    async fn refuse(self, refusal: Refusal) {
        self.door.told(self.ask.source);
        let code = if refusal.full { answer::FULL } else { answer::REFUSED };
        last_word(self.stream, Some(&Fatal::new(code, refusal))).await;
    }

    async fn connect(&self, credential: RoleCredential, way: &Way<'_, PostgresIssuer>) -> Result<Link, TargetError> {
        let target = &*self.target()?;
        let packet = self.start_packet(&credential)?;
        pause::at("during-connect").await;
        let link = target::connect(target, &credential, &packet).await?;
        note_connected(way, &credential.role, target, &link).await?;
        Ok(link)
    }

    async fn relay(&mut self, link: Link, way: &Way<'_, PostgresIssuer>) -> Ending {
        Box::pin(relay::carry(self, link, way)).await
    }

    async fn part(mut self, ending: &Ending) {
        let reference = self.ask.reference;
        let mut fatal = match ending {
            Ending::Closed => None,
            Ending::Failed(error) => Some(Fatal::of_target(error)),
            Ending::Cut(refusal) => Some(Fatal::new(self.code.unwrap_or(answer::CUT), refusal.clone())),
        };
        if let Some(fatal) = &mut fatal {
            fatal.refusal.reference = Some(reference);
            self.door.told(self.ask.source);
        }
        // What was recorded may go on; what was not may not.
        let sent = timeout(LAST_WORD, self.unsent.send(&mut self.stream)).await;
        let fits = matches!(sent, Ok(Ok(()))) && self.unsent.between_messages();
        last_word(self.stream, fatal.as_ref().filter(|_| fits)).await;
    }
}

/// Into the ledger: from here on something may happen on the target.
pub(super) async fn note_connected(
    way: &Way<'_, PostgresIssuer>,
    role: &str,
    target: &PostgresTarget,
    link: &Link,
) -> Result<(), TargetError> {
    let lease = way.lease.lock().await.id();
    let connected = about("target.connected", way.permit).lease(lease).detail(serde_json::json!({
        "role": role,
        "address": target.address,
        "backend": link.greeting.key.as_ref().map(|key| key.process),
    }));
    let written = way.gate.store.append(connected, way.gate.now()).await;
    written.map_err(|error| TargetError::Ours(error.to_string()))
}

/// Says why, closes, and lets the peer read it.
pub(super) async fn last_word<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, fatal: Option<&Fatal>) {
    let said = timeout(LAST_WORD, async {
        if let Some(fatal) = fatal {
            stream.write_all(&fatal.to_bytes()).await?;
        }
        stream.shutdown().await
    });
    if !matches!(said.await, Ok(Ok(()))) || fatal.is_none() {
        return;
    }
    let mut rest = [0u8; 4096];
    let drained = timeout(DRAIN, async { while matches!(stream.read(&mut rest).await, Ok(count) if count > 0) {} });
    let _ = drained.await;
}
