//! What an issuer needs beside a server: a store, an authority with grants, keys, a clock that a test can move.

use crate::server::{Cluster, Server};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tidegate_ca::{Keys, TlsIdentity};
use tidegate_grants::{
    Access, Ask, Authority, Device, Entitlement, Identity, Kind, Lease, Leftovers, Permit, Policy, Receipt, Reference,
    SessionLimits, Store, Target, Terms, authority::IssueRequest, entitlement::Selector,
};
use tidegate_proxy::{
    issuer::{Issuer, TargetError, Teardown},
    protocol::postgres::{
        Auth, PostgresTarget,
        issuer::{PostgresIssuer, RoleCredential},
        trust,
    },
};
use tokio::sync::Mutex;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

static AHEAD: AtomicI64 = AtomicI64::new(0);

/// The gateway's clock.
pub(crate) fn now() -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(AHEAD.load(Ordering::Relaxed))
}

/// Time passes for the gateway. (Every test is a process of its own.)
pub(crate) fn pass(seconds: i64) {
    AHEAD.fetch_add(seconds, Ordering::Relaxed);
}

pub(crate) struct Gate {
    pub(crate) server: Server,
    pub(crate) store: Arc<Store>,
    pub(crate) issuer: PostgresIssuer,
    pub(crate) keys: Arc<Keys>,
    pub(crate) target: PostgresTarget,
    authority: Authority,
    _state: TempDir,
}

impl Gate {
    /// A server that trusts a gate.
    pub(crate) fn open() -> Self {
        let state = tempfile::tempdir().unwrap();
        let keys = Arc::new(Keys::create(&state.path().join("keys"), "gate", now()).unwrap());
        let (server, target) = server(Cluster::Copied, &keys);
        let ledger = keys.ledger.clone();
        let public = ledger.verifying_key().to_bytes();
        let store = Arc::new(Store::open(state.path(), "a", "", Arc::new(ledger), public).unwrap());
        let authority = Authority::new(store.clone(), policy(), keys.grants.clone());
        let issuer = issuer(&store, &keys, &target);
        Self { server, store, issuer, keys, target, authority, _state: state }
    }

    /// Another server that trusts this gate, by the same name.
    pub(crate) fn another_server(&self) -> (Server, PostgresTarget) {
        server(Cluster::Own, &self.keys)
    }

    /// Alice's permit for the shop under this entitlement, and its lease, on disk.
    pub(crate) async fn session(&self, entitlement: &str) -> (Permit, Mutex<Lease>) {
        let request = IssueRequest {
            user: "alice".parse().unwrap(),
            target: "orders".parse().unwrap(),
            entitlement: entitlement.parse().unwrap(),
            login: None,
            database: None,
            roles: None,
            duration: Duration::from_secs(600),
            reason: Some("a test".into()),
            ticket: None,
            single_use: false,
            own_voice: true,
        };
        self.authority.issue(&"root".parse().unwrap(), request, now()).await.unwrap();
        let ask = Ask {
            identity: "alice".parse().unwrap(),
            target: "orders".parse().unwrap(),
            access: Access::Database("shop".parse().unwrap()),
            entitlement: Some(entitlement.parse().unwrap()),
            source: "127.0.0.1".parse().unwrap(),
            factor: None,
            device: Device::default(),
            reference: Reference::new(),
        };
        let permit = self.authority.authorize(&ask, now()).await.unwrap();
        let plan = self.issuer.plan(&permit).unwrap();
        let lease = self.store.lease(&permit, plan, now()).await.unwrap();
        (permit, Mutex::new(lease))
    }

    /// A session whose role exists.
    pub(crate) async fn minted(&self, entitlement: &str) -> (Lease, RoleCredential) {
        let (permit, lease) = self.session(entitlement).await;
        let credential = self.issuer.mint(&permit, &lease).await.unwrap();
        (lease.into_inner(), credential)
    }

    /// Logs in at the target with a certificate, as the relay does.
    pub(crate) async fn login(&self, credential: &RoleCredential) -> Result<Client, tokio_postgres::Error> {
        let options: Vec<String> =
            credential.settings.iter().map(|(name, value)| format!("-c {name}={value}")).collect();
        self.connect(&credential.role, "shop", &credential.tls, &options.join(" ")).await
    }

    /// The same, to another database.
    pub(crate) async fn login_to(
        &self,
        credential: &RoleCredential,
        database: &str,
    ) -> Result<Client, tokio_postgres::Error> {
        self.connect(&credential.role, database, &credential.tls, "").await
    }

    /// disable → clean → inspect.
    pub(crate) async fn tear_down(&self, lease: &Lease) -> Result<Receipt, TargetError> {
        self.issuer.disable(lease).await?;
        self.issuer.clean(lease).await?;
        self.issuer.inspect(lease).await
    }

    /// An issuer as a restarted gateway has it.
    pub(crate) fn restarted(&self) -> PostgresIssuer {
        issuer(&self.store, &self.keys, &self.target)
    }

    /// Logs in as the administrator, with a certificate of the gateway.
    pub(crate) async fn admin(&self, database: &str) -> Result<Client, tokio_postgres::Error> {
        let TlsIdentity { chain, key, .. } =
            self.keys.x509.client("tidegate", now(), now() + SignedDuration::from_secs(60)).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let tls = builder.with_root_certificates(self.target.roots.clone()).with_client_auth_cert(chain, key).unwrap();
        self.connect("tidegate", database, &tls, "").await
    }

    pub(crate) async fn connect(
        &self,
        user: &str,
        database: &str,
        tls: &rustls::ClientConfig,
        options: &str,
    ) -> Result<Client, tokio_postgres::Error> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.server.port).user(user).dbname(database).options(options);
        config.ssl_mode(tokio_postgres::config::SslMode::Require);
        let (client, connection) = config.connect(MakeRustlsConnect::new(tls.clone())).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

/// A server that trusts these keys. Its certificate comes from an authority of its own, as it would.
fn server(cluster: Cluster, keys: &Keys) -> (Server, PostgresTarget) {
    let dir = tempfile::tempdir().unwrap();
    let theirs = Keys::create(&dir.path().join("theirs"), "dba", now()).unwrap();
    let names = ["127.0.0.1".to_owned()];
    let certificate = theirs.x509.server(&names, now(), now() + SignedDuration::from_hours(1)).unwrap();
    let mut server =
        Server::create(cluster, &pem_chain(&certificate), &pem("PRIVATE KEY", certificate.key.secret_der()));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.chain.last().unwrap().clone()).unwrap();
    let target = PostgresTarget {
        admin_address: None,
        name: "orders".parse().unwrap(),
        address: format!("127.0.0.1:{}", server.port),
        roots: Arc::new(roots),
        admin_user: "tidegate".into(),
        auth: Auth::Certificate,
    };
    server.start(&trust::trust(&target, &policy(), &["127.0.0.1".into()], keys.x509.certificate_pem()));
    (server, target)
}

/// An issuer as a restarted gateway has it.
pub(crate) fn issuer(store: &Arc<Store>, keys: &Arc<Keys>, target: &PostgresTarget) -> PostgresIssuer {
    let targets = BTreeMap::from([(target.name.clone(), target.clone())]);
    let reach = trust::databases(&targets, &policy());
    let issuer = PostgresIssuer::new(store.clone(), keys.clone(), targets, now);
    issuer.reach(reach);
    issuer
}

pub(crate) fn is_unreachable<T>(result: &Result<T, TargetError>) -> bool {
    matches!(result, Err(TargetError::Unreachable { .. }))
}

pub(crate) fn is_held<T>(result: &Result<T, TargetError>) -> bool {
    matches!(result, Err(TargetError::Held { .. }))
}

fn policy() -> Policy {
    let person = |name: &str, group: &str| Identity {
        name: name.parse().unwrap(),
        groups: BTreeSet::from([group.parse().unwrap()]),
        ssh_keys: Vec::new(),
        unix_user: None,
    };
    let entitlement = |name: &str, roles: &[&str], owner: Option<&str>, leftovers| Entitlement {
        name: name.parse().unwrap(),
        groups: BTreeSet::from(["sre".parse().unwrap()]),
        targets: Selector::Names(BTreeSet::from(["orders".parse().unwrap()])),
        terms: Terms::Postgres {
            databases: BTreeSet::from(["shop".parse().unwrap()]),
            roles: roles.iter().map(|role| role.parse().unwrap()).collect(),
            owner: owner.map(|owner| owner.parse().unwrap()),
            leftovers,
            inherit: true,
            max_connections: 10,
            keeps: tidegate_grants::Keeps::default(),
        },
        max_duration: Duration::from_secs(3600),
        idle_timeout: None,
        asking: None,
        mfa: tidegate_grants::Mfa::None,
        conditions: tidegate_grants::Conditions::default(),
    };
    let mut wide = entitlement("wide", &["shop_writer"], None, Leftovers::Quarantine);
    if let Terms::Postgres { databases, .. } = &mut wide.terms {
        databases.insert("stock".parse().unwrap());
    }
    let entitlements = [
        entitlement("write", &["shop_writer"], None, Leftovers::Quarantine),
        entitlement("scratch", &["shop_writer"], None, Leftovers::Drop),
        wide,
        entitlement("migrate", &["shop_reader"], Some("shop_owner"), Leftovers::Quarantine),
    ];
    let target = Target { name: "orders".parse().unwrap(), kind: Kind::Postgres, labels: BTreeMap::new() };
    let people = [person("alice", "sre"), person("root", "platform")];
    Policy {
        gateway: "gate".into(),
        node: "a".into(),
        config: String::new(),
        identities: people.into_iter().map(|person| (person.name.clone(), person)).collect(),
        targets: BTreeMap::from([(target.name.clone(), target)]),
        entitlements: entitlements.into_iter().map(|e| (e.name.clone(), e)).collect(),
        issuers: BTreeMap::new(),
        admins: BTreeSet::from(["platform".parse().unwrap()]),
        auditors: BTreeSet::new(),
        scoped_auditors: Vec::new(),
        limits: SessionLimits::default(),
    }
}

fn pem_chain(identity: &TlsIdentity) -> String {
    identity.chain.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect()
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}
