//! The administrator's connections to a target: TLS verify-full, a client certificate of a minute; or where the target does
//! not take ours, a password by SCRAM, bound to the channel.
//!
//! A connection that worked is kept for the next call, because a TLS handshake costs more than all of a mint. What must be
//! quick (mint, disable) and what may take long (clean) have connections of their own, so that a long cleaning keeps nobody
//! from being locked out. Every wait ends: at a deadline here, and at a `statement_timeout` there, so that what we gave up
//! on does not take effect later.

use super::{Auth, PostgresTarget, budget::Budget, fault::Fault};
use crate::{gate::Clock, issuer::TargetError, targets::Targets};
use jiff::{SignedDuration, Timestamp};
use rustls::ClientConfig;
use secrecy::ExposeSecret as _;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tidegate_ca::{Keys, TlsIdentity};
use tidegate_grants::TargetName;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, timeout, timeout_at},
};
use tokio_postgres::{
    Client, Config, Row, SimpleQueryMessage,
    config::{ChannelBinding, SslMode},
    tls::MakeTlsConnect,
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Version of the functions that this program calls; the schema must say the same.
pub(super) const SCHEMA: i32 = 4;
/// Connect, TLS and login together.
const CONNECT: Duration = Duration::from_secs(5);
/// A kept connection is not used again after this; the server ends it a little later by itself.
const KEPT: Duration = Duration::from_secs(50);
/// A connection unused for longer than this is asked whether it still lives before something depends on it.
const FRESH: Duration = Duration::from_secs(1);
/// So many connections are kept for one target, database and lane.
const MOST_KEPT: usize = 4;
/// A certificate is good for one connection.
const CERTIFICATE: SignedDuration = SignedDuration::from_secs(60);

/// Which of a target's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// For what must not wait: mint, disable, sever, inspect.
    Quick,
    /// For cleaning.
    Slow,
    /// To where sessions are, if that is a replica; the others lead to its primary.
    Replica,
}

impl Lane {
    /// After this the server gives a statement up.
    const fn statement_timeout(self) -> Duration {
        match self {
            Self::Quick | Self::Replica => Duration::from_secs(4),
            Self::Slow => Duration::from_secs(60),
        }
    }
    /// After this we give the server up.
    const fn patience(self) -> Duration {
        self.statement_timeout().saturating_add(Duration::from_secs(1))
    }
    /// Connections to one target at once.
    const fn width(self) -> usize {
        match self {
            Self::Quick | Self::Replica => 8,
            Self::Slow => 4,
        }
    }
    /// `search_path` so that nothing of a session is found; `synchronous_commit` because with its standby gone, `on` hung
    /// past every timeout. The rest because a session may own its database, and so preset it for us: read only, nothing
    /// could be removed any more.
    fn options(self) -> String {
        format!(
            "-c search_path=pg_catalog -c synchronous_commit=local -c client_min_messages=warning -c lock_timeout=3000 \
             -c statement_timeout={} -c idle_session_timeout=60000 -c idle_in_transaction_session_timeout=10000 \
             -c default_transaction_read_only=off -c default_transaction_deferrable=off \
             -c default_transaction_isolation=read\\ committed -c exit_on_error=off -c standard_conforming_strings=on \
             -c TimeZone=UTC -c DateStyle=ISO -c plpgsql.extra_errors=none -c plpgsql.extra_warnings=none \
             -c transform_null_equals=off -c array_nulls=on -c quote_all_identifiers=off",
            self.statement_timeout().as_millis()
        )
    }
}

type Key = (TargetName, String, Lane);

/// Opens and keeps the administrator's connections.
pub(super) struct Admin {
    keys: Arc<Keys>,
    targets: Targets<PostgresTarget>,
    clock: Clock,
    kept: Arc<Mutex<HashMap<Key, Vec<Kept>>>>,
    places: Mutex<HashMap<(TargetName, Lane), Arc<Semaphore>>>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("targets", &self.targets).finish_non_exhaustive()
    }
}

struct Kept {
    line: Line,
    since: Instant,
}

/// A live connection.
struct Line {
    client: Client,
    budget: Budget,
    /// The target's clock at an instant of ours, in seconds since 1970.
    clock: (Instant, f64),
    /// Dropped with the connection: then its task has a moment to say goodbye.
    _gone: oneshot::Sender<()>,
}

/// A connection in use. Unless it is [kept](Link::keep), it ends when this is dropped.
pub(super) struct Link {
    line: Line,
    key: Key,
    kept: Arc<Mutex<HashMap<Key, Vec<Kept>>>>,
    _place: OwnedSemaphorePermit,
}

impl Admin {
    pub(super) fn new(keys: Arc<Keys>, targets: BTreeMap<TargetName, PostgresTarget>, clock: Clock) -> Self {
        Self { keys, targets: Targets::new(targets), clock, kept: Arc::default(), places: Mutex::default() }
    }

    /// For a session.
    pub(super) fn target(&self, name: &TargetName) -> Result<Arc<PostgresTarget>, TargetError> {
        self.targets.named(name)
    }

    /// For a teardown.
    pub(super) fn known(&self, name: &TargetName) -> Result<Arc<PostgresTarget>, TargetError> {
        self.targets.known(name)
    }

    /// Puts other targets in their place. What was kept open may lead to where a target was before.
    pub(super) fn replace(&self, targets: BTreeMap<TargetName, PostgresTarget>) {
        self.targets.replace(targets);
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Ends what is kept of connections to a target: the next ones log in.
    pub(super) fn forget(&self, target: &TargetName) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, _, _), _| of != target);
    }

    /// Bounds the connections to one target.
    fn places(&self, target: &TargetName, lane: Lane) -> Arc<Semaphore> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.entry((target.clone(), lane)).or_insert_with(|| Arc::new(Semaphore::new(lane.width()))).clone()
    }

    /// TLS to a target, where it takes certificates with one of a minute for this login; also that one's serial number.
    pub(super) fn tls(&self, target: &PostgresTarget, login: &str) -> Result<(ClientConfig, Option<String>), String> {
        let shown = match &target.auth {
            Auth::Certificate => Some(self.certificate(login)?),
            Auth::Scram(_) => None,
        };
        let serial = shown.as_ref().map(|identity| identity.serial.clone());
        Ok((target.tls(shown).map_err(|error| error.to_string())?, serial))
    }

    /// A certificate of a minute for this login, or for who is none.
    pub(super) fn certificate(&self, login: &str) -> Result<TlsIdentity, String> {
        let now = (self.clock)();
        self.keys.x509.client(login, now, now + CERTIFICATE).map_err(|error| error.to_string())
    }

    /// A connection to this database: a kept one, or a new one.
    pub(super) async fn link(&self, target: &TargetName, database: &str, lane: Lane) -> Result<Link, Fault> {
        let by = Instant::now() + CONNECT;
        let late = |_| Fault::Silent("no answer to a connection in time".into());
        let busy = |_| Fault::Silent("too many calls are waiting for it".into());
        let known = self.known(target).map_err(|_| Fault::Refused("no such target".into()))?;
        let place = self.places(target, lane).acquire_owned();
        let place = timeout_at(by, place).await.map_err(busy)?.map_err(|_| Fault::Refused("no such target".into()))?;
        let key = (target.clone(), database.to_owned(), lane);
        let line = match self.kept_line(&key).await {
            Some(line) => line,
            None => timeout_at(by, self.connect(&known, database, lane)).await.map_err(late)??,
        };
        line.budget.renew();
        Ok(Link { line, key, kept: self.kept.clone(), _place: place })
    }

    /// A kept connection that still lives.
    async fn kept_line(&self, key: &Key) -> Option<Line> {
        loop {
            let Kept { line, since } =
                self.kept.lock().unwrap_or_else(PoisonError::into_inner).get_mut(key).and_then(Vec::pop)?;
            if line.client.is_closed() || since.elapsed() > KEPT {
                continue;
            }
            line.budget.renew();
            if since.elapsed() <= FRESH || matches!(timeout(FRESH, line.client.simple_query("")).await, Ok(Ok(_))) {
                return Some(line);
            }
        }
    }

    async fn connect(&self, target: &PostgresTarget, database: &str, lane: Lane) -> Result<Line, Fault> {
        let address = if lane == Lane::Replica { &target.address } else { target.primary() };
        let (host, port) =
            host_and_port(address).ok_or_else(|| Fault::Refused(format!("{address} is not host:port")))?;
        let (tls, _) = self.tls(target, &target.admin_user).map_err(Fault::Refused)?;
        let tls = MakeTlsConnect::<Budget<TcpStream>>::make_tls_connect(&mut MakeRustlsConnect::new(tls), host)
            .map_err(|error| Fault::Refused(error.to_string()))?;
        let stream = TcpStream::connect((host, port)).await.map_err(|error| Fault::Silent(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| Fault::Silent(error.to_string()))?;
        let budget = Budget::new();
        let mut config = Config::new();
        config.user(&target.admin_user).dbname(database).application_name("tidegate");
        config.options(lane.options()).ssl_mode(SslMode::Require);
        if let Auth::Scram(password) = &target.auth {
            // Bound to the certificate that was verified: a server that asks for it in the clear, or as MD5, gets nothing.
            config.password(password.expose_secret()).channel_binding(ChannelBinding::Require);
        }
        let (client, connection) =
            config.connect_raw(budget.around(stream), tls).await.map_err(|error| Fault::of(&error))?;
        let (gone, dropped) = oneshot::channel();
        tokio::spawn(async move {
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                _ = &mut connection => {}
                _ = dropped => { timeout(FRESH, connection).await.ok(); }
            }
        });
        let mut line = Line { client, budget, clock: (Instant::now(), 0.0), _gone: gone };
        let row = line.one("select version, clock from tidegate.version()", &[], lane).await?;
        let version: i32 = read(&row, 0)?;
        if version != SCHEMA {
            return Err(Fault::Outdated(version));
        }
        line.clock = (Instant::now(), read(&row, 1)?);
        Ok(line)
    }
}

impl Line {
    async fn one(&self, sql: &str, params: &[(&(dyn ToSql + Sync), Type)], lane: Lane) -> Result<Row, Fault> {
        let rows = self.rows(sql, params, lane).await?;
        rows.into_iter().next().ok_or_else(|| Fault::Refused("it answered without a row".into()))
    }

    async fn rows(&self, sql: &str, params: &[(&(dyn ToSql + Sync), Type)], lane: Lane) -> Result<Vec<Row>, Fault> {
        let answer = timeout(lane.patience(), self.client.query_typed(sql, params)).await;
        answer.map_err(|_| Fault::Silent("no answer in time".into()))?.map_err(|error| Fault::of(&error))
    }
}

impl Link {
    /// Calls a function; its rows.
    pub(super) async fn rows(&self, sql: &str, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, Fault> {
        self.line.rows(sql, params, self.key.2).await
    }

    /// Calls a function that answers with one row.
    pub(super) async fn one(&self, sql: &str, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<Row, Fault> {
        self.line.one(sql, params, self.key.2).await
    }

    /// A statement that cannot have parameters.
    pub(super) async fn simple(&self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Fault> {
        let answer = timeout(self.key.2.patience(), self.line.client.simple_query(sql)).await;
        answer.map_err(|_| Fault::Silent("no answer in time".into()))?.map_err(|error| Fault::of(&error))
    }

    /// The target's clock in `ahead` from now, in seconds since 1970.
    pub(super) fn target_clock(&self, ahead: SignedDuration) -> f64 {
        let (at, then) = self.line.clock;
        then + at.elapsed().as_secs_f64() + ahead.as_secs_f64()
    }

    /// Keeps the connection for the next call: only after every answer was read, and nothing was changed in it.
    pub(super) fn keep(self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = kept.entry(self.key).or_default();
        lines.retain(|kept| !kept.line.client.is_closed());
        if lines.len() < MOST_KEPT {
            lines.push(Kept { line: self.line, since: Instant::now() });
        }
    }
}

/// A column of the type that our function declares. A server that answers otherwise is not what we installed.
pub(super) fn read<'r, T: tokio_postgres::types::FromSql<'r>>(row: &'r Row, column: usize) -> Result<T, Fault> {
    row.try_get(column).map_err(|error| Fault::Refused(super::fault::plain(&error.to_string())))
}

/// `host:port`, the host of an IPv6 address without its brackets.
pub(super) fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then_some(())?;
    Some((host, port.parse().ok()?))
}

/// Seconds since 1970, for `to_timestamp`.
#[allow(clippy::cast_precision_loss, reason = "exact to the microsecond until the year 2255")]
pub(super) fn epoch(at: Timestamp) -> f64 {
    at.as_microsecond() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        assert_eq!(host_and_port("db.example.com:5432"), Some(("db.example.com", 5432)));
        assert_eq!(host_and_port("[::1]:5432"), Some(("::1", 5432)));
        for wrong in ["db", "db:", ":5432", "db:70000", "db:x"] {
            assert_eq!(host_and_port(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_server_gives_up_before_we_do() {
        for lane in [Lane::Quick, Lane::Slow] {
            assert!(lane.statement_timeout() < lane.patience());
        }
        assert!(CONNECT + Lane::Quick.patience() <= crate::issuer::TARGET_DEADLINE);
    }
}
