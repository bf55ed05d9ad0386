//! `tidegate serve`: puts the parts together, says when it is ready, and stops in order.
//!
//! keys → store (lock, verification) → authority → recorder → gate → listeners → ready → … → signal → drain → exit

use crate::{
    anchor,
    api::{self, Listeners, SOCKET, https, socket},
    config::{self, Config},
    elsewhere::{DeviceLogins, KeyRing, oidc::Provider},
    keeping::{Keeper, Room},
    live::{Live, Opened},
    metrics::{self, Outside},
    notify::Notifier,
    pages, peers, recovered,
    stop::{self, Signals, notify},
    telemetry,
    tickets::TicketSystem,
};
use anyhow::{Context as _, bail, ensure};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use sd_notify::NotifyState;
use std::{
    io::{ErrorKind, Write as _},
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use tidegate_ca::Keys;
use tidegate_grants::{Authority, Event, LeaseKind, Store, store::HeadSigner};
use tidegate_proxy::{
    Gate,
    authenticate::{Factors, Passwords, Sources},
    door::Door,
    drain::Drain,
    meter::Meter,
    places::Places,
    protocol::{
        postgres::{self, Postgres, issuer::PostgresIssuer},
        ssh::{self, Ssh, SshIssuer},
    },
    reaper::{self, Custody, Undertakers},
    sweep::Sweeper,
    tls::{CertificateFiles, Source as Certificate},
    waiting::Waiting,
    watching::Watching,
};
use tidegate_recorder::{Recorder, Window};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet, spawn_blocking},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The disk is probed this often: one that is full, or takes nothing, ends sessions within 2 s.
const PROBE: Duration = Duration::from_secs(1);
/// A disk that answers nothing for so long is dead. A sync waits for what others write, too: on a busy disk that is seconds, and until then
/// what is recorded is only late.
const HANGS: Duration = Duration::from_secs(10);
/// How often it is looked which grants end soon.
const ENDINGS: Duration = Duration::from_secs(10);

/// Runs until a signal, then drains. `credentials`: where the keys are, if not in the state directory.
pub(crate) fn run(file: &Path, credentials: Option<&Path>) -> anyhow::Result<ExitCode> {
    telemetry::start();
    let config = config::load(file)?;
    check_state(&config.state_dir)?;
    // Nothing that the gateway writes is for others; the socket is opened to them on purpose.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let keys = open_keys(&config, credentials)?;
    // Refused only if one is there already, which is then the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    more_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve(file.to_owned(), config, keys));
    // A blocking call that hangs on a dead disk must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

fn open_keys(config: &Config, credentials: Option<&Path>) -> anyhow::Result<Arc<Keys>> {
    let dir = config.state_dir.join("keys");
    let opened = match credentials {
        Some(handed_over) => Keys::handed_over(handed_over),
        None => Keys::complete(&dir, &config.policy.gateway, Timestamp::now()).and_then(|()| Keys::open(&dir)),
    };
    let keys = opened.context("the gateway's keys")?;
    config.no_own_authority(&keys)?;
    Ok(Arc::new(keys))
}

/// As many as the system gives: a session takes up to three, and a door thousands of them.
fn more_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn check_state(dir: &Path) -> anyhow::Result<()> {
    let shown = dir.display();
    let found = match std::fs::metadata(dir) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("the state directory {shown} does not exist: `tidegate init` makes one, or correct state_dir")
        }
        Err(error) => bail!("the state directory {shown} cannot be used: {error}"),
    };
    ensure!(found.is_dir(), "the state directory {shown} is no directory: correct state_dir");
    let mode = found.permissions().mode();
    ensure!(
        mode & 0o022 == 0,
        "others can write to the state directory {shown} (mode {:04o}): chmod 711 it",
        mode & 0o7777
    );
    Ok(())
}

async fn serve(file: PathBuf, config: Config, keys: Arc<Keys>) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let (gate, recordable) = open(&config, &keys).await?;
    let (listeners, mut doors) = bind(&config).await?;
    let watched = listen("metrics.listen", config.metrics).await?;
    let watched_at = watched.as_ref().map(TcpListener::local_addr).transpose()?;
    let (unix, socket_file) = bind_socket(&config.state_dir)?;

    let mut tasks = JoinSet::new();
    tasks.spawn(probe(gate.recorder.clone(), config.state_dir.clone(), recordable));
    tasks.spawn(destroy_replay_keys(gate.clone()));
    host_guests(&gate).await;
    tasks.spawn(see_guests_off(gate.clone()));
    tasks.spawn(tell_endings(gate.clone()));
    let left = recovered::left(config.state_dir.clone()).await;
    gate.tasks.spawn(recovered::note(gate.clone(), config.state_dir.clone(), left, keys.ledger.verifying_key()));
    let (room, anchored, at_peers) = (Room::default(), anchor::Standings::default(), anchor::Standings::default());
    let outside = Outside::new(
        gate.clone(),
        config.state_dir.clone(),
        doors.places(),
        (room.clone(), anchored.clone(), at_peers.clone()),
    );
    let (outside, state) = (Arc::new(outside), config.state_dir.clone());
    let https = doors.api.take();
    let certificate = certificate(config.api.as_ref().and_then(|door| door.certificate.clone()), &config, &keys);
    let factors = Factors::new(gate.store.clone(), keys.clone(), gate.name.clone());
    seal_anew(&factors, &gate).await;
    let places = config.anchors.clone();
    let provider = Provider::default();
    let logins = Arc::new(DeviceLogins::new(gate.clone(), provider.clone(), config.oidc.clone()));
    let (opened, undertakers, sweeper) = start_doors(&mut tasks, &config, (&keys, &factors), &gate, (doors, logins));
    for anchor in places.iter().cloned() {
        tasks.spawn(anchor::keep(anchor, gate.clone(), anchored.clone()));
    }
    tasks.spawn(anchor::renew(gate.clone()));
    for peer in &config.peers {
        tasks.spawn(peers::keep(peer.clone(), gate.clone(), config.state_dir.clone(), at_peers.clone()));
    }
    let trials = api::Trials { ssh: opened.ssh.clone(), postgres: opened.postgres.clone(), keys: keys.clone() };
    let live = Arc::new(Live::new(file, config, keys, gate.clone(), opened));
    live.look_first().await;
    tasks.spawn(live.clone().keep_looking());
    let keeper = Arc::new(Keeper::new(gate.clone(), live.clone(), state, room.clone()));
    tasks.spawn(keeper.clone().run());
    let (gate_, live_) = (gate.clone(), live.clone());
    let notifier = Arc::new(Notifier::new(gate.clone(), live.clone()));
    notifier.begin().await;
    tasks.spawn(notifier.clone().run());
    let listeners_ = listeners.clone();
    let api = api::Api {
        gate: gate_,
        listeners: listeners_,
        live: live_,
        trials,
        factors,
        notifier,
        undertakers,
        sweeper,
        anchored: anchored.clone(),
        peers: at_peers,
        keeper,
        room,
        ring: KeyRing::default(),
        listening: Arc::new(Semaphore::new(api::events::MOST)),
    };
    let api = Arc::new(api);
    if let Some(door) = https {
        let pages = pages::router(api.clone(), provider, url_of(&api));
        tasks.spawn(https::serve(door, api.clone(), pages, certificate));
    }
    tasks.spawn(socket::serve(unix, api, outside.clone()));
    if let Some(listener) = watched {
        tasks.spawn(metrics::serve(listener, outside));
    }
    say_ready(&listeners, watched_at)?;

    let broken = tokio::select! {
        () = signals.stop(&live) => None,
        ended = tasks.join_next() => Some(anyhow::anyhow!("a part of the gateway ended by itself: {ended:?}")),
    };
    let drain = if broken.is_some() { Duration::ZERO } else { live.config().drain };
    let code = stop::drain(&gate, &mut signals, drain).await;
    anchor::keep_last(&places, &gate.store, &gate.name, &anchored).await;
    drop(socket_file);
    broken.map_or(Ok(code), Err)
}

/// Store, authority, recorder: what sessions share.
async fn open(config: &Config, keys: &Arc<Keys>) -> anyhow::Result<(Gate, watch::Sender<bool>)> {
    let signer: HeadSigner = Arc::new(keys.ledger.clone());
    let (dir, policy, public) = (&config.state_dir, &config.policy, keys.ledger.verifying_key().to_bytes());
    let (dir_, node, hash) = (dir.clone(), policy.node.clone(), policy.config.clone());
    let store = spawn_blocking(move || Store::open(&dir_, &node, &hash, signer, public)).await?;
    let store = Arc::new(store.with_context(|| format!("the state directory {}", dir.display()))?);
    if let Err(error) = store.trusted().await {
        tracing::error!(%error, "NOTHING WILL BE OPENED: run `tidegate ledger verify`; old leases are still torn down");
    }
    let leases = store.leases(false).await?.len();
    tracing::info!(leases, "leases open from before; the reaper takes them up");
    let authority = Arc::new(Authority::new(store.clone(), policy.clone(), keys.grants.clone()));
    let recordings = dir.join(config::RECORDINGS);
    let recorder = Recorder::open(&recordings, config.recording.clone(), Arc::new(keys.ledger.clone()))?;
    let window = Window::open(&dir.join(config::REPLAY), &recordings, config.replay_window);
    let recorder = recorder.keep_keys(window.context("the keys of the replay window")?);
    let (recordable, watched) = watch::channel(true);
    let gate = Gate {
        authority,
        door: Door::new(store.clone()),
        meter: Meter::default(),
        drain: Drain::default(),
        store,
        vouching: Arc::new(ArcSwap::from_pointee(config.vouching.clone())),
        tickets: Arc::new(TicketSystem),
        recorder: Arc::new(recorder),
        recordable: watched,
        custody: Custody::default(),
        waiting: Waiting::default(),
        watching: Watching::default(),
        name: policy.gateway.clone(),
        clock: tidegate_proxy::pause::CLOCK,
        stopping: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    Ok((gate, recordable))
}

#[derive(Debug)]
struct Doors {
    ssh: Option<(TcpListener, Places)>,
    postgres: Option<(TcpListener, Places)>,
    api: Option<(TcpListener, Places)>,
}

impl Doors {
    /// By protocol.
    fn places(&self) -> Vec<(&'static str, Places)> {
        let places = |door: &Option<(TcpListener, Places)>| door.as_ref().map(|(_, places)| places.clone());
        let doors = [("ssh", places(&self.ssh)), ("postgres", places(&self.postgres)), ("api", places(&self.api))];
        doors.into_iter().filter_map(|(protocol, places)| Some((protocol, places?))).collect()
    }
}

async fn bind(config: &Config) -> anyhow::Result<(Listeners, Doors)> {
    let ssh = listen("ssh.listen", config.ssh).await?;
    let postgres = listen("postgres.listen", config.postgres).await?;
    let api = listen("api.listen", config.api.as_ref().map(|door| door.listen)).await?;
    let at = |door: &Option<TcpListener>| door.as_ref().map(TcpListener::local_addr).transpose();
    let listeners = Listeners { ssh: at(&ssh)?, postgres: at(&postgres)?, api: at(&api)? };
    let door = |listener: Option<TcpListener>| listener.map(|it| (it, Places::new(config.limits.door)));
    Ok((listeners, Doors { ssh: door(ssh), postgres: door(postgres), api: door(api) }))
}

async fn listen(key: &str, address: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            bail!("{key}: {address} is taken by another program: stop it, or choose another port")
        }
        Err(error) => bail!("{key}: cannot listen on {address}: {error}"),
    }
}

fn bind_socket(state: &Path) -> anyhow::Result<(tokio::net::UnixListener, socket::SocketFile)> {
    let path = state.join(SOCKET);
    socket::bind(&path).with_context(|| format!("the API socket {}", path.display()))
}

/// Second factors that an older key sealed. One that no key opens keeps its owner from what needs it, and nobody else from anything.
async fn seal_anew(factors: &Factors, gate: &Gate) {
    match factors.reseal(gate.now()).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "second factors were sealed under the new key"),
        Err(error) => tracing::error!(?error, "second factors could not be sealed under the new key"),
    }
}

/// Also returns who removes what, and who looks for what is left.
fn start_doors(
    tasks: &mut JoinSet<()>,
    config: &Config,
    (keys, factors): (&Arc<Keys>, &Factors),
    gate: &Gate,
    (doors, logins): (Doors, Arc<DeviceLogins>),
) -> (Opened, Undertakers, Sweeper) {
    let passwords = Passwords::new(gate.authority.clone(), keys.salt.clone(), config.password_window);
    let (store, clock) = (&gate.store, gate.clock);
    let targets = config.postgres_targets.clone();
    let reach = postgres::trust::databases(&targets, &config.policy);
    let postgres = Arc::new(PostgresIssuer::new(store.clone(), keys.clone(), targets, clock));
    postgres.reach(reach);
    let (targets, sources) = (config.ssh_targets.clone(), config.source_addresses.clone());
    let ssh = Arc::new(SshIssuer::new(store.clone(), keys.clone(), targets, sources, clock));
    let mut undertakers = Undertakers::new();
    undertakers.insert(LeaseKind::PostgresRole, postgres.clone());
    undertakers.insert(LeaseKind::SshCertificate, ssh.clone());
    tasks.spawn(tidegate_proxy::waiting::tend(gate.clone()));
    tasks.spawn(reaper::run(gate.clone(), undertakers.clone()));
    let sweeper = Sweeper::new(gate.clone(), undertakers.clone());
    tasks.spawn(sweeper.clone().run(config.sweep));
    let mut opened = Opened { ssh, postgres, ssh_door: None, logins: logins.clone() };
    if let Some((listener, places)) = doors.ssh {
        let door = Ssh {
            gate: gate.clone(),
            keys: keys.clone(),
            sources: Sources::default(),
            public_names: config.public_names.clone(),
            source_addresses: config.source_addresses.clone(),
            issuer: opened.ssh.clone(),
            passwords: passwords.clone(),
            factors: factors.clone(),
            elsewhere: logins,
            opening: tokio::sync::Semaphore::new(ssh::MOST_OPENING),
            port: port(&listener),
            postgres: postgres_address(config, doors.postgres.as_ref().map(|(listener, _)| listener)),
        };
        let door = Arc::new(door);
        opened.ssh_door = Some(door.clone());
        tasks.spawn(ssh::serve(listener, places, config.ssh_proxied.clone(), door));
    }
    if let Some((listener, places)) = doors.postgres {
        let door = Postgres {
            gate: gate.clone(),
            keys: keys.clone(),
            certificate: certificate(config.postgres_certificate.clone(), config, keys),
            passwords,
            issuer: opened.postgres.clone(),
        };
        tasks.spawn(postgres::serve(listener, places, config.postgres_proxied.clone(), Arc::new(door)));
    }
    (opened, undertakers, sweeper)
}

/// Of the files that are named, else of our own CA.
fn certificate(files: Option<CertificateFiles>, config: &Config, keys: &Arc<Keys>) -> Certificate {
    files.map_or_else(|| Certificate::Own(keys.clone(), config.public_names.clone()), Certificate::Files)
}

/// What browsers reach the gateway by: what the configuration says, else its first name and the port that is really listened on.
fn url_of(api: &api::Api) -> String {
    let config = api.live.config();
    let port = api.listeners.api.map_or(443, |at| at.port());
    let said = config.api.as_ref().and_then(|door| door.url.clone());
    said.unwrap_or_else(|| {
        format!("https://{}:{port}", config.public_names.first().map_or("localhost", String::as_str))
    })
}

/// What people type to reach PostgreSQL: the first public name and the port that is really listened on.
fn postgres_address(config: &Config, listener: Option<&TcpListener>) -> Option<(String, u16)> {
    Some((config.public_names.first()?.clone(), port(listener?)))
}

/// The port that is really listened on.
fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().map_or(0, |address| address.port())
}

/// Asks the disk each second whether it takes a recording, and tells the sessions.
async fn probe(recorder: Arc<Recorder>, state: PathBuf, recordable: watch::Sender<bool>) {
    let mut tick = tokio::time::interval(PROBE);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut hanging: Option<JoinHandle<Option<String>>> = None;
    loop {
        tick.tick().await;
        // One that hangs is awaited further, not joined by others.
        let (asking, state) = (recorder.clone(), state.clone());
        let mut asked = hanging.take().unwrap_or_else(|| spawn_blocking(move || takes_recordings(&asking, &state)));
        let fault = match tokio::time::timeout(HANGS, &mut asked).await {
            Ok(Ok(fault)) => fault,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => {
                hanging = Some(asked);
                Some("the disk does not answer".to_owned())
            }
        };
        let sound = fault.is_none();
        recordable.send_if_modified(|before| {
            let changed = *before != sound;
            if changed && sound {
                tracing::info!("the disk takes recordings again");
            } else if changed {
                tracing::error!(
                    fault = fault.as_deref(),
                    "the disk does not take recordings: sessions end, none begin"
                );
            }
            *before = sound;
            changed
        });
    }
}

/// Who has logged in elsewhere is there after a restart, too.
async fn host_guests(gate: &Gate) {
    if let Err(error) = gate.authority.host_guests(gate.now()).await {
        tracing::error!(%error, "nobody who logged in elsewhere is let in: they must log in anew");
    }
}

/// Logins elsewhere end by the gate's own clock, and so do sessions whose condition no longer holds.
async fn see_guests_off(gate: Gate) {
    let mut tick = tokio::time::interval(PROBE);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        gate.authority.see_guests_off(gate.now());
        gate.authority.end_unmet(gate.now());
    }
}

/// Says in the ledger which grants end soon.
async fn tell_endings(gate: Gate) {
    let mut tick = tokio::time::interval(ENDINGS);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(error) = gate.authority.tell_endings(gate.now()).await {
            tracing::error!(%error, "which grants end soon could not be written");
        }
    }
}

/// Destroys the keys of the replay window when their time has come, and says so in the ledger.
async fn destroy_replay_keys(gate: Gate) {
    let mut tick = tokio::time::interval(PROBE);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let (recorder, now) = (gate.recorder.clone(), gate.now());
        let swept = spawn_blocking(move || recorder.window().map(|window| window.sweep(now)).unwrap_or_default()).await;
        for (session, destroyed) in swept.unwrap_or_default() {
            if let Err(error) = destroyed {
                tracing::error!(session, %error, "a replay key could not be destroyed; it is not used, and tried again");
                continue;
            }
            let event = Event { session: session.parse().ok(), ..Event::new("recording.key_destroyed") };
            if let Err(error) = gate.store.append(event, gate.now()).await {
                tracing::error!(session, %error, "that a replay key was destroyed could not be written");
            }
        }
    }
}

/// Why the disk takes no recordings, if so. While the ledger lives on its reserve, what is free belongs to the ledger.
fn takes_recordings(recorder: &Recorder, state: &Path) -> Option<String> {
    if !tidegate_grants::store::reserve_is_held(state) {
        return Some("the space set aside for the ledger is in use, or there is no room to set it aside".to_owned());
    }
    recorder.probe().err().map(|error| error.to_string())
}

/// The one line on stdout.
fn say_ready(listeners: &Listeners, metrics: Option<SocketAddr>) -> anyhow::Result<()> {
    let mut line = "ready".to_owned();
    let doors =
        [("ssh", listeners.ssh), ("postgres", listeners.postgres), ("api", listeners.api), ("metrics", metrics)];
    for (name, address) in doors {
        if let Some(address) = address {
            line.push_str(&format!(" {name}={address}"));
        }
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "{line}");
    if !tidegate_recorder::RECORDS {
        tracing::warn!("this program records nothing of what happens: it is for measurements only");
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("stdout")?;
    notify(&[NotifyState::Ready]);
    Ok(())
}
