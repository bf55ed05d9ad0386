//! The ledger's signed heads, given to places outside the gateway.
//!
//! Whoever is root on the gateway's host can put an older store back, which agrees with itself. What went elsewhere before says
//! that there was more: `tidegate ledger verify --anchor FILE`. What always holds: a head is counted as anchored only once the
//! place has taken it (a log server over UDP never says so: what was sent is all that is known); one that failed is tried
//! again with the newest head, which vouches for all before it; nothing that a session needs ever waits for an anchor.

use anyhow::{Context as _, ensure};
use http_body_util::{BodyExt as _, Collected, Full, Limited};
use hyper::{Method, Request, Uri, body::Bytes, client::conn::http1, header, http::request::Builder};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::{ClientConfig, crypto::aws_lc_rs, pki_types::ServerName};
use std::{
    collections::BTreeMap,
    error::Error,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tidegate_grants::{Store, ledger::proof::SignedHead};
use tidegate_proxy::gate::Gate;
use tokio::{
    net::{TcpStream, UdpSocket, UnixDatagram},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_rustls::TlsConnector;

/// A place that has not taken a head by then is tried again later.
const DEADLINE: Duration = Duration::from_secs(10);
/// A head that is older is signed anew, though nothing was added.
const HEAD_LIFE: Duration = Duration::from_secs(60);
/// At a stop nobody waits longer than this for all places together.
const LAST: Duration = Duration::from_secs(5);
/// What a server answers is not read any further.
pub(crate) const LONGEST_ANSWER: usize = 64 << 10;
/// Facility "log audit" (13), severity "notice" (5): RFC 5424 section 6.2.1.
const PRIORITY: u8 = 13 * 8 + 5;

/// One `[[anchor]]`.
#[derive(Debug, Clone)]
pub(crate) struct Anchor {
    pub(crate) name: String,
    /// From one head to the next.
    pub(crate) every: Duration,
    pub(crate) to: To,
}

/// Where heads go.
#[derive(Debug, Clone)]
pub(crate) enum To {
    /// A line at the end of this file.
    File(PathBuf),
    /// A POST of JSON; any 2xx says that it was taken.
    Webhook {
        url: Uri,
        /// Who signs its certificate; else the system's authorities.
        ca: Option<PathBuf>,
    },
    /// A log server, over UDP.
    Log(String),
    /// The log of this host.
    LocalLog(PathBuf),
}

impl std::fmt::Display for To {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(file) | Self::LocalLog(file) => file.display().fmt(f),
            Self::Webhook { url, .. } => url.fmt(f),
            Self::Log(address) => write!(f, "syslog at {address}"),
        }
    }
}

/// How it stands with each place, or each peer. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standings(Arc<Mutex<BTreeMap<String, Standing>>>);

/// How it stands with one place.
#[derive(Debug, Clone, Default)]
struct Standing {
    /// When it last took a head.
    last: Option<Timestamp>,
    /// Why it did not take the newest.
    failing: Option<String>,
}

impl Standings {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Standing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a place outside last took a head.
    pub(crate) fn last(&self) -> Option<Timestamp> {
        self.lock().values().filter_map(|standing| standing.last).max()
    }

    /// Places that did not take the newest head, and why.
    pub(crate) fn failing(&self) -> BTreeMap<String, String> {
        let all = self.lock();
        all.iter().filter_map(|(name, standing)| Some((name.clone(), standing.failing.clone()?))).collect()
    }

    /// Each place, and whether it fails.
    pub(crate) fn places(&self) -> Vec<(String, bool)> {
        self.lock().iter().map(|(name, standing)| (name.clone(), standing.failing.is_some())).collect()
    }

    pub(crate) fn note(&self, anchor: &str, outcome: Result<Timestamp, String>) {
        let mut all = self.lock();
        let standing = all.entry(anchor.to_owned()).or_default();
        match outcome {
            Ok(now) => *standing = Standing { last: Some(now), failing: None },
            Err(why) => standing.failing = Some(why),
        }
    }
}

/// Signs the head anew while nothing happens, for ever: who has it knows how long nothing was there to be said.
pub(crate) async fn renew(gate: Gate) {
    let mut tick = interval(HEAD_LIFE / 4);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(error) = gate.store.renew_head(HEAD_LIFE, gate.now()).await {
            tracing::error!(%error, "the ledger's head was not signed anew");
        }
    }
}

/// Brings what is new to this place, for ever.
pub(crate) async fn keep(anchor: Anchor, gate: Gate, anchored: Standings) {
    let (store, gateway) = (&gate.store, &gate.name);
    let mut tick = interval(anchor.every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut taken = Vec::new();
    loop {
        tick.tick().await;
        bring(&anchor, store, gateway, &mut taken, &anchored).await;
    }
}

/// The last heads, to all places, before the gateway ends.
pub(crate) async fn keep_last(anchors: &[Anchor], store: &Store, gateway: &str, anchored: &Standings) {
    let all = async {
        for anchor in anchors {
            bring(anchor, store, gateway, &mut Vec::new(), anchored).await;
        }
    };
    if timeout(LAST, all).await.is_err() {
        tracing::warn!("the ledger's last head has not reached every anchor");
    }
}

async fn bring(anchor: &Anchor, store: &Store, gateway: &str, taken: &mut Vec<SignedHead>, anchored: &Standings) {
    let heads = match store.heads().await {
        Ok(heads) => heads,
        Err(error) => return tracing::error!(%error, "the ledger's heads cannot be read for the anchors"),
    };
    for head in heads.iter().filter(|head| !taken.contains(head)) {
        // With the root over all entries, so that single ones can be proven against it; without, where there is none to be had.
        let rooted = store
            .rooted(head.clone())
            .await
            .inspect_err(|error| tracing::error!(%error, "a head goes out without its root"));
        let sent = timeout(DEADLINE, anchor.to.take(&rooted.unwrap_or_else(|_| head.clone()), gateway)).await;
        match sent.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {DEADLINE:?}"))) {
            Ok(()) => anchored.note(&anchor.name, Ok(Timestamp::now())),
            Err(error) => {
                anchored.note(&anchor.name, Err(format!("{error:#}")));
                tracing::error!(anchor = anchor.name, to = %anchor.to, error = format!("{error:#}"), "a head of the ledger was not anchored; it is tried again");
                return;
            }
        }
    }
    *taken = heads;
}

impl To {
    async fn take(&self, head: &SignedHead, gateway: &str) -> anyhow::Result<()> {
        let mut object = serde_json::to_value(head)?;
        if let Some(object) = object.as_object_mut() {
            object.insert("gateway".to_owned(), gateway.into());
        }
        let line = object.to_string();
        match self {
            Self::File(file) => {
                let file = file.clone();
                spawn_blocking(move || append(&file, &line)).await?
            }
            Self::Webhook { url, ca } => post(url, ca.as_deref(), line).await,
            Self::Log(address) => {
                let peer = tokio::net::lookup_host(address).await?.next().context("its name has no address")?;
                let ours: std::net::SocketAddr = if peer.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
                let socket = UdpSocket::bind(ours).await?;
                // RFC 5424 section 6; structured data would have to be escaped, and anchors are read as lines.
                let text = format!("<{PRIORITY}>1 {} {gateway} tidegate - anchor - {line}", head.at);
                socket.send_to(text.as_bytes(), peer).await?;
                Ok(())
            }
            Self::LocalLog(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.send_to(format!("<{PRIORITY}>tidegate: {line}").as_bytes(), path).await?;
                Ok(())
            }
        }
    }
}

/// At the end, in one write, and on its disk.
fn append(file: &Path, line: &str) -> anyhow::Result<()> {
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(file)?;
    file.write_all(format!("{line}\n").as_bytes())?;
    Ok(file.sync_data()?)
}

async fn post(url: &Uri, ca: Option<&Path>, line: String) -> anyhow::Result<()> {
    let request = Request::builder().method(Method::POST).header(header::CONTENT_TYPE, "application/json");
    // What it says beside is not needed, nor read to its end.
    ask(url, ca, request, line).await.map(drop)
}

/// What an HTTPS server answers, as far as [`LONGEST_ANSWER`].
pub(crate) async fn get(url: &Uri, ca: Option<&Path>) -> anyhow::Result<Bytes> {
    let answer = ask(url, ca, Request::builder(), String::new()).await?;
    answer.map_err(|error| anyhow::anyhow!("its answer could not be read: {error}"))
}

/// What it answered with yes, and that as far as it could be read.
async fn ask(
    url: &Uri,
    ca: Option<&Path>,
    request: Builder,
    body: String,
) -> anyhow::Result<Result<Bytes, Box<dyn Error + Send + Sync>>> {
    let authority = url.authority().context("no host in its address")?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let roots = crate::api::remote::roots(ca)?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect((host.as_str(), authority.port_u16().unwrap_or(443))).await?;
    let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(host)?, stream).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = request.uri(path).header(header::HOST, authority.as_str()).body(Full::new(Bytes::from(body)))?;
    let connection = tokio::spawn(connection);
    let answered = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
        ensure!(status.is_success(), "it answered {status}");
        Ok(answer.map(Collected::to_bytes))
    };
    let result = answered.await;
    connection.abort();
    result
}
