//! From an accepted connection to a proven client: TLS, start-up packet, names, password or certificate.
//!
//! What always holds: outside TLS nothing is believed but CancelRequest, whose key proves itself; all of it together
//! has one deadline; whoever is turned away is told why in the terms of the protocol, and the ledger hears of it.

use super::{
    Postgres,
    answer::{self, Fatal},
    cancel::Cancels,
    certificate,
    client::{PgClient, last_word},
    login::{self, Claim},
    names::{self, Names},
    pump::Unsent,
    startup::{self, CancelKey, First, Startup, StartupError},
    target::something_is_buffered,
};
use crate::{door::TurnedAway, listener::Visitor, refusal::Refusal, session, tls::ListenerTls};
use rustls::pki_types::CertificateDer;
use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tidegate_grants::{Access, Ask, Device, Reference};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::server::TlsStream;

/// For everything up to the proven password.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// `sslmode=prefer` comes back in plaintext at once after a refusal over TLS: that is the same visit.
const SAME_VISIT: Duration = Duration::from_secs(5);
/// What a client must name that starts TLS at once, and may name otherwise (PostgreSQL chapter 55.2.11).
pub(super) const ALPN: &[u8] = b"postgresql";
/// Sources that are remembered for it.
const MOST_VISITORS: usize = 1024;

/// What the connections of one listener share.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) postgres: Arc<Postgres>,
    pub(super) cancels: Cancels,
    tls: ListenerTls,
    told: Mutex<HashMap<IpAddr, Instant>>,
}

/// Why a connection does not become a session.
#[derive(Debug)]
pub(super) enum Away {
    /// They hung up, or were too slow. Nothing to say, and nobody to say it to.
    Gone,
    /// They are told why.
    Refused {
        /// What they are told.
        fatal: Fatal,
        /// The name that they gave.
        name: Option<String>,
        /// The answer to a guess is held back for so long.
        delay: Duration,
    },
    /// A start-up without TLS.
    Plaintext(Option<String>),
}

impl Away {
    pub(super) fn refused(fatal: Fatal) -> Self {
        Self::Refused { fatal, name: None, delay: Duration::ZERO }
    }
}

impl From<io::Error> for Away {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<StartupError> for Away {
    fn from(error: StartupError) -> Self {
        let refusal =
            Refusal { next: error.next().map(str::to_owned), ..Refusal::new(error.to_string()).by("protocol") };
        Self::refused(Fatal::new(error.code(), refusal))
    }
}

/// What a TLS handshake left behind.
struct Channel<'a> {
    /// The certificate that the client sent, with proof of its key if it is one of ours.
    presented: Option<&'a CertificateDer<'a>>,
    /// The hash of the certificate that the client saw.
    end_point: &'a [u8],
}

/// What a connection turned out to be.
enum Visit {
    /// It asked for TLS, and its handshake comes next.
    Tls,
    /// Its handshake came unasked: `sslnegotiation=direct`, from PostgreSQL 17 on.
    DirectTls,
    /// A request to cancel.
    Cancel(CancelKey),
    /// A session with these names, proven, and settings.
    Session(Names, Box<Startup>, Proven),
}

/// Serves one connection to its end.
pub(super) async fn welcome(door: Arc<Door>, mut tcp: TcpStream, visitor: Visitor) {
    let in_all = HANDSHAKE.min(visitor.handshake_timeout());
    let (source, deadline) = (visitor.peer.ip().to_canonical(), Instant::now() + in_all);
    let direct = match in_time(deadline, plain(&mut tcp)).await {
        Ok(Visit::Cancel(key)) => return door.cancels.cancel(&key).await,
        Ok(visit) => matches!(visit, Visit::DirectTls),
        Err(away) => return door.turn_away(tcp, source, away).await,
    };
    let current = match door.tls.current(door.postgres.gate.now()) {
        Ok(current) => current,
        Err(error) => return tracing::error!(%error, "no certificate for the PostgreSQL listener"),
    };
    let mut tls = match timeout_at(deadline, current.acceptor.accept(tcp)).await {
        Ok(Ok(tls)) => Box::new(tls),
        Ok(Err(error)) => return door.no_tls(source, &error).await,
        Err(_) => return,
    };
    if direct && tls.get_ref().1.alpn_protocol() != Some(ALPN) {
        let refusal = Refusal::new("TLS that begins at once must name the protocol postgresql (ALPN)")
            .by("tls")
            .next("connect with sslnegotiation=direct, or =postgres, of libpq 17 or later");
        return door.turn_away(*tls, source, Away::refused(Fatal::new(answer::VIOLATION, refusal))).await;
    }
    let presented = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
    let channel = Channel { presented: presented.as_ref(), end_point: &current.end_point };
    match in_time(deadline, door.inside(&mut tls, source, &channel)).await {
        Ok(Visit::Session(names, startup, proven)) if visitor.known() => {
            let came = Came { source, proven };
            let client = PgClient::new(door.clone(), *tls, names, *startup, came);
            let postgres = &door.postgres;
            Box::pin(session::run(&postgres.gate, &*postgres.issuer, client)).await; // it lives as long as they stay
        }
        Ok(Visit::Cancel(key)) => {
            door.cancels.cancel(&key).await;
            last_word(*tls, None).await; // for libpq from 17 on, an end that TLS does not announce is a failure
        }
        Ok(Visit::Session(..) | Visit::Tls | Visit::DirectTls) => {}
        Err(away) => door.turn_away(*tls, source, away).await,
    }
}

async fn in_time<T>(deadline: Instant, steps: impl Future<Output = Result<T, Away>>) -> Result<T, Away> {
    timeout_at(deadline, steps).await.unwrap_or(Err(Away::Gone))
}

/// Whether the connection begins with a TLS record. No length word of a first packet starts with this byte.
async fn starts_tls(tcp: &TcpStream) -> Result<bool, Away> {
    const HANDSHAKE_RECORD: u8 = 0x16; // RFC 8446 section 5.1
    let mut first = [0u8; 1];
    if tcp.peek(&mut first).await? == 0 {
        return Err(Away::Gone);
    }
    Ok(first == [HANDSHAKE_RECORD])
}

/// Reads one first packet and not a byte more.
async fn first<S: AsyncRead + Unpin>(stream: &mut S) -> Result<First, Away> {
    let mut word = [0u8; 4];
    stream.read_exact(&mut word).await?;
    let mut body = vec![0u8; startup::body_length(word)?];
    stream.read_exact(&mut body).await?;
    Ok(startup::parse(&body)?)
}

/// Before TLS.
async fn plain(tcp: &mut TcpStream) -> Result<Visit, Away> {
    if starts_tls(tcp).await? {
        return Ok(Visit::DirectTls);
    }
    let mut visits = 0;
    loop {
        let request = first(tcp).await?;
        let answer = match request {
            First::Cancel(key) => return Ok(Visit::Cancel(key)),
            First::Start(start) => return Err(Away::Plaintext(Some(start.user))),
            First::Ssl => b'S',
            First::GssEnc => b'N',
        };
        visits += 1;
        if something_is_buffered(tcp) || visits > 2 {
            let refusal = Refusal::new("bytes came in clear behind the request for encryption")
                .by("tls")
                .next("somebody may be between you and the gateway; tell your admin");
            return Err(Away::refused(Fatal::new(answer::VIOLATION, refusal)));
        }
        tcp.write_all(&[answer]).await?;
        if answer == b'S' {
            return Ok(Visit::Tls);
        }
    }
}

impl Door {
    pub(super) fn new(postgres: Arc<Postgres>) -> Self {
        let asking = Arc::new(certificate::Asking::new(postgres.keys.clone()));
        let tls = ListenerTls::new(postgres.certificate.clone(), ALPN).asking(asking);
        Self { postgres, cancels: Cancels::default(), tls, told: Mutex::default() }
    }

    /// Inside TLS: what they want, and whether they are who they say.
    async fn inside<S>(&self, stream: &mut S, source: IpAddr, channel: &Channel<'_>) -> Result<Visit, Away>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let startup = match first(stream).await? {
            First::Start(startup) => startup,
            First::Cancel(key) => return Ok(Visit::Cancel(key)),
            First::Ssl | First::GssEnc => return Err(StartupError::Malformed.into()),
        };
        if let Some(unknown) = &startup.negotiate {
            stream.write_all(&answer::negotiate(startup.version, unknown)).await?;
        }
        let names = names::parse(&startup.user, startup.database.as_deref()).map_err(|error| Away::Refused {
            fatal: Fatal::new(answer::REFUSED, Refusal::new(error.to_string()).by("name").next(error.next())),
            name: Some(startup.user.clone()),
            delay: Duration::ZERO,
        })?;
        let certificate = self.knows(channel.presented, &names, source).await?;
        let mut factor = None;
        if !certificate {
            let claim = Claim { names: &names, source, end_point: channel.end_point, clock: self.postgres.gate.clock };
            factor = login::prove(stream, &self.postgres.passwords, &claim).await?;
        }
        let device = Device { certificate, password: !certificate, ..Device::default() };
        Ok(Visit::Session(names, Box::new(startup), Proven { factor, device }))
    }

    /// Whether their certificate says who they are; else their password must.
    async fn knows(&self, presented: Option<&CertificateDer<'_>>, names: &Names, source: IpAddr) -> Result<bool, Away> {
        match presented {
            Some(certificate) => {
                certificate::identify(&self.postgres.gate, &self.postgres.keys, certificate, names, source).await
            }
            None => Ok(false),
        }
    }

    /// Tells them why, and the ledger too.
    async fn turn_away<S>(&self, stream: S, source: IpAddr, away: Away)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut fatal, name, counted) = match away {
            Away::Gone => return,
            Away::Refused { fatal, name, delay } => {
                self.told(source);
                tokio::time::sleep(delay).await;
                (fatal, name, true)
            }
            Away::Plaintext(name) => (self.tls_required(), name, !self.was_told(source)),
        };
        if counted {
            let Refusal { sentence: why, check, .. } = &fatal.refusal;
            let refused = TurnedAway { protocol: "postgres", source, name: name.as_deref(), asked: None, why, check };
            fatal.refusal.reference = self.postgres.gate.turned_away(refused).await;
        }
        last_word(stream, Some(&fatal)).await;
    }

    /// The handshake failed: there is no channel to say it on.
    async fn no_tls(&self, source: IpAddr, error: &io::Error) {
        if error.get_ref().is_none_or(|inner| !inner.is::<rustls::Error>()) {
            return; // they hung up, e.g. to look at our certificate
        }
        self.told(source);
        let why = format!("the TLS handshake failed: {error}");
        self.postgres
            .gate
            .turned_away(TurnedAway { protocol: "postgres", source, name: None, asked: None, why: &why, check: "tls" })
            .await;
    }

    fn tls_required(&self) -> Fatal {
        let refusal = Refusal::new("TLS is required here").by("tls").next(
            "connect with sslmode=verify-full sslrootcert=FILE, where FILE has the gateway's CA certificate \
             (`tidegate ca show x509` prints it)",
        );
        Fatal::new(answer::REFUSED, refusal)
    }

    /// Remembers that somebody from there has just been refused over TLS.
    pub(super) fn told(&self, source: IpAddr) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| at.elapsed() < SAME_VISIT);
        if told.len() < MOST_VISITORS {
            told.insert(source, Instant::now());
        }
    }

    fn was_told(&self, source: IpAddr) -> bool {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(&source).is_some_and(|at| at.elapsed() < SAME_VISIT)
    }
}

/// How somebody came in.
struct Came {
    source: IpAddr,
    proven: Proven,
}

/// How somebody proved who they are.
struct Proven {
    /// When the second factor was proven that their password carries.
    factor: Option<jiff::Timestamp>,
    device: Device,
}

impl PgClient {
    fn new(door: Arc<Door>, stream: TlsStream<TcpStream>, names: Names, startup: Startup, came: Came) -> Self {
        let Names { identity, target, database, entitlement } = names;
        let (access, reference) = (Access::Database(database.clone()), Reference::new());
        let Came { source, proven: Proven { factor, device } } = came;
        let ask = Ask { identity, target, access, entitlement, source, factor, device, reference };
        let Startup { settings, ours, version, .. } = startup;
        let (unsent, code, welcomed) = (Unsent::default(), None, false);
        Self { stream, ask, database, settings, ours, version, door, unsent, code, welcomed }
    }
}
