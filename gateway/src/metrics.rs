//! `[metrics] listen`: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever routes to the gateway.
//!
//! What always holds: it tells numbers, never names but those of targets and anchors in the configuration; a scrape reads what is
//! counted anyway and looks up the rest, and never keeps a session waiting; strangers cannot hold it up. The format is
//! OpenMetrics 1.0, which Prometheus reads. The names are a promise: `deploy/PRODUCTION.md` lists them.

use crate::{anchor::Standings, health, keeping::Room};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::{MetricType, family::Family, gauge::Gauge, info::Info},
    registry::Registry,
};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tidegate_grants::{Lease, LeaseState};
use tidegate_proxy::{Gate, places::Places};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

/// Connections at once.
const MOST_CONNECTIONS: usize = 64;
/// A connection is hung up on after this, whatever it does.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(15);
/// A request's head must be here by then.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// After a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

/// What is told, and where it comes from.
#[derive(Debug)]
pub(crate) struct Outside {
    gate: Gate,
    state: PathBuf,
    room: Room,
    anchored: Standings,
    peers: Standings,
    registry: Registry,
}

type Labels = Vec<(&'static str, String)>;

impl Outside {
    pub(crate) fn new(
        gate: Gate,
        state: PathBuf,
        doors: Vec<(&'static str, Places)>,
        (room, anchored, peers): (Room, Standings, Standings),
    ) -> Self {
        let mut registry = Registry::with_prefix("tidegate");
        gate.meter.register(&mut registry);
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "This program", build);
        registry.register_collector(Box::new(Doors(doors)));
        Self { gate, state, room, anchored, peers, registry }
    }

    /// Everything, as OpenMetrics. What has to be looked up is looked up now.
    async fn text(&self) -> Result<String, std::fmt::Error> {
        let mut looked_up = Registry::with_prefix("tidegate");
        let ready = Gauge::<i64>::default();
        ready.set(i64::from(health::faults(&self.gate).await.is_empty()));
        looked_up.register("ready", "Whether new sessions are let in", ready);
        if let Ok(leases) = self.gate.store.leases(false).await {
            looked_up.register("leases", "What exists on targets, or may", by_target(&leases, self.gate.now()));
        }
        if let Ok(held) = self.gate.store.locks_held(self.gate.now()).await {
            let locks = Gauge::<i64>::default();
            locks.set(i64::try_from(held).unwrap_or(i64::MAX));
            looked_up.register("locks", "Locks that keep somebody out", locks);
        }
        if let Ok(last) = self.gate.store.tail(1).await {
            let entries = Gauge::<i64>::default();
            entries.set(last.last().and_then(|entry| i64::try_from(entry.seq).ok()).unwrap_or_default());
            looked_up.register("ledger_entries", "Entries in this node's ledger", entries);
        }
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let (bytes, budget) = self.room.figures();
        let recordings = Gauge::<i64>::default();
        recordings.set(number(bytes));
        looked_up.register("recordings_bytes", "Recordings, when they were looked at last", recordings);
        if let Some(budget) = budget {
            let most = Gauge::<i64>::default();
            most.set(number(budget));
            looked_up.register("recordings_budget_bytes", "What recordings may take", most);
        }
        let failing = Family::<Labels, Gauge>::default();
        for (name, fails) in self.anchored.places() {
            failing.get_or_create(&vec![("anchor", name)]).set(i64::from(fails));
        }
        looked_up.register("anchor_failing", "Whether the ledger's newest head was not taken", failing);
        let failing = Family::<Labels, Gauge>::default();
        for (name, fails) in self.peers.places() {
            failing.get_or_create(&vec![("peer", name)]).set(i64::from(fails));
        }
        looked_up.register("peer_failing", "Whether a peer's heads were not taken", failing);
        let (store, free) = (Gauge::<i64>::default(), Gauge::<i64>::default());
        let (bytes, left) = self.sizes();
        store.set(bytes);
        free.set(left);
        looked_up.register("store_bytes", "The store's files", store);
        looked_up.register("state_free_bytes", "Free space in the state directory", free);
        let (mut text, mut more) = (String::new(), String::new());
        encode(&mut text, &self.registry)?;
        encode(&mut more, &looked_up)?;
        let text = text.strip_suffix("# EOF\n").unwrap_or(&text);
        Ok(format!("{text}{more}"))
    }

    fn sizes(&self) -> (i64, i64) {
        let size = |name: &str| std::fs::metadata(self.state.join(name)).map_or(0, |found| found.len());
        let store = ["tidegate.db", "tidegate.db-wal"].map(size).iter().sum::<u64>();
        let free = rustix::fs::statvfs(&self.state).map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize));
        (i64::try_from(store).unwrap_or(i64::MAX), i64::try_from(free).unwrap_or(i64::MAX))
    }
}

/// Open: its session may be live. Overdue: it should be gone. Held: it waits for a human.
fn by_target(leases: &[Lease], now: jiff::Timestamp) -> Family<Labels, Gauge> {
    let family = Family::<Labels, Gauge>::default();
    for lease in leases {
        let state = match lease.state() {
            LeaseState::Held => "held",
            _ if lease.deadline() < now => "overdue",
            _ => "open",
        };
        let labels = vec![("target", lease.target().to_string()), ("state", state.to_owned())];
        family.get_or_create(&labels).inc();
    }
    family
}

/// Connections at each door.
#[derive(Debug)]
struct Doors(Vec<(&'static str, Places)>);

impl Collector for Doors {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let connections = Family::<Labels, Gauge>::default();
        let pushed_out = Family::<Labels, Gauge>::default();
        for (protocol, places) in &self.0 {
            let count = places.count();
            for (state, number) in [("known", count.known), ("unknown", count.unknown)] {
                let labels = vec![("protocol", (*protocol).to_owned()), ("state", state.to_owned())];
                connections.get_or_create(&labels).set(i64::try_from(number).unwrap_or(i64::MAX));
            }
            let labels = vec![("protocol", (*protocol).to_owned())];
            pushed_out.get_or_create(&labels).set(i64::try_from(count.pushed_out).unwrap_or(i64::MAX));
        }
        let help = "Connections, by whether it is known who they are";
        connections.encode(encoder.encode_descriptor("connections", help, None, MetricType::Gauge)?)?;
        let help = "Connections that were hung up on for others while they were unknown, since the start";
        pushed_out.encode(encoder.encode_descriptor("connections_pushed_out", help, None, MetricType::Gauge)?)
    }
}

/// The same on the API's socket.
pub(crate) fn router(outside: Arc<Outside>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .with_state(outside)
}

async fn metrics(State(outside): State<Arc<Outside>>) -> Response {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match outside.text().await {
        Ok(text) => ([(header::CONTENT_TYPE, TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn ready(State(outside): State<Arc<Outside>>) -> Response {
    let faults = health::faults(&outside.gate).await;
    if faults.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, faults.join("\n") + "\n").into_response()
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, outside: Arc<Outside>) {
    let (router, places) = (router(outside), Arc::new(Semaphore::new(MOST_CONNECTIONS)));
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match places.clone().try_acquire_owned() {
                Ok(place) => {
                    let router = router.clone();
                    tokio::spawn(async move {
                        let _ = timeout(CONNECTION_DEADLINE, connection(stream, router)).await;
                        drop(place);
                    });
                }
                Err(_) => tracing::debug!(%peer, "too many connections to the metrics at once"),
            },
            Err(error) => {
                tracing::warn!(%error, "the metrics could not accept");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(16 << 10)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the metrics ended badly");
    }
}
