//! A small policy, a store in a temporary folder, and time that stands still: for the tests of this crate.
#![allow(clippy::unwrap_used, reason = "test code")]

use crate::{
    Ask, Authority, Entitlement, ForwardRules, Identity, Kind, Leftovers, Policy, Reference, SessionLimits, Store,
    Target, Terms, TrustedIssuer,
    asking::LevelRule,
    authority::IssueRequest,
    entitlement::Files,
    entitlement::Selector,
    factor::Mfa,
    grant::{Claims, IssuerKey},
    name::Access,
    store::HeadSigner,
};
use ed25519_dalek::SigningKey;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

pub(crate) const SECRET: &[u8] = b"a shared secret of thirty-two b.";

pub(crate) fn now() -> Timestamp {
    "2046-03-01T12:00:00Z".parse().unwrap() // later than what a store writes at its making, by the machine's clock
}

pub(crate) fn after(seconds: u64) -> Timestamp {
    now() + Duration::from_secs(seconds)
}

fn set<T: std::str::FromStr<Err: std::fmt::Debug> + Ord>(names: &[&str]) -> BTreeSet<T> {
    names.iter().map(|n| n.parse().unwrap()).collect()
}

fn named<K: Ord, V>(values: Vec<V>, name: fn(&V) -> K) -> BTreeMap<K, V> {
    values.into_iter().map(|v| (name(&v), v)).collect()
}

fn identity(name: &str, groups: &[&str]) -> Identity {
    Identity { name: name.parse().unwrap(), groups: set(groups), ssh_keys: Vec::new(), unix_user: None }
}

fn target(name: &str, kind: Kind) -> Target {
    Target { name: name.parse().unwrap(), kind, labels: BTreeMap::from([("env".to_owned(), "prod".to_owned())]) }
}

fn postgres(name: &str, roles: &[&str]) -> Entitlement {
    Entitlement {
        name: name.parse().unwrap(),
        groups: set(&["sre"]),
        targets: Selector::Names(set(&["orders"])),
        terms: Terms::Postgres {
            databases: set(&["shop", "stock"]),
            roles: set(roles),
            owner: None,
            leftovers: Leftovers::Quarantine,
            inherit: true,
            max_connections: 2,
            keeps: crate::Keeps::default(),
        },
        max_duration: Duration::from_secs(1800),
        idle_timeout: None,
        asking: None,
        mfa: Mfa::None,
        conditions: crate::Conditions::default(),
    }
}

pub(crate) fn policy() -> Policy {
    let shell = Entitlement {
        name: "shell".parse().unwrap(),
        groups: set(&["sre"]),
        targets: Selector::Labels(BTreeMap::from([("env".to_owned(), "prod".to_owned())])),
        terms: Terms::Ssh { logins: set(&["deploy", "www"]), files: Files::Both, forward: ForwardRules::default() },
        max_duration: Duration::from_secs(3600),
        idle_timeout: None,
        asking: None,
        mfa: Mfa::None,
        conditions: crate::Conditions::default(),
    };
    let issuer = |name: &str, key| TrustedIssuer {
        name: name.to_owned(),
        key,
        entitlements: set(&["readonly"]),
        max_ttl: Duration::from_secs(1200),
        counts_as_approval: false,
    };
    let outside = SigningKey::from_bytes(&[9; 32]).verifying_key().to_bytes();
    Policy {
        gateway: "gate".to_owned(),
        node: "a".to_owned(),
        config: "c0ffee".to_owned(),
        identities: named(
            vec![
                identity("alice", &["sre"]),
                identity("bob", &["sre"]),
                identity("carol", &["platform", "sre"]),
                identity("mallory", &["guests"]),
            ],
            |i| i.name.clone(),
        ),
        targets: named(vec![target("web-1", Kind::Ssh), target("orders", Kind::Postgres)], |t| t.name.clone()),
        entitlements: named(
            vec![shell, postgres("readonly", &["shop_reader"]), postgres("write", &["shop_reader", "shop_writer"])],
            |e| e.name.clone(),
        ),
        issuers: named(
            vec![
                issuer("servicedesk", IssuerKey::Hs256(SECRET.to_vec().into())),
                issuer("ticketing", IssuerKey::EdDsa(outside)),
            ],
            |i| i.name.clone(),
        ),
        admins: set(&["platform"]),
        auditors: BTreeSet::new(),
        scoped_auditors: Vec::new(),
        limits: SessionLimits::default(),
    }
}

pub(crate) fn ledger_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

pub(crate) fn ledger_public() -> [u8; 32] {
    ledger_key().verifying_key().to_bytes()
}

pub(crate) fn open_store(dir: &Path) -> Store {
    let signer: HeadSigner = Arc::new(ledger_key());
    Store::open(dir, "a", "c0ffee", signer, ledger_public()).unwrap()
}

/// As a program does whose newest format this is.
pub(crate) fn authority_of_format(dir: &Path, format: u32) -> Authority {
    let signer: HeadSigner = Arc::new(ledger_key());
    let store = Store::open_in(dir, "a", "c0ffee", signer, ledger_public(), format).unwrap();
    Authority::new(Arc::new(store), policy(), SigningKey::from_bytes(&[8; 32]))
}

pub(crate) fn authority_in(dir: &Path) -> Authority {
    Authority::new(Arc::new(open_store(dir)), policy(), SigningKey::from_bytes(&[8; 32]))
}

pub(crate) fn authority() -> (TempDir, Authority) {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority_in(dir.path());
    (dir, authority)
}

pub(crate) fn request(user: &str, target: &str, entitlement: &str) -> IssueRequest {
    IssueRequest {
        user: user.parse().unwrap(),
        target: target.parse().unwrap(),
        entitlement: entitlement.parse().unwrap(),
        login: None,
        database: None,
        roles: None,
        duration: Duration::from_secs(600),
        reason: Some("a reason".to_owned()),
        ticket: None,
        single_use: false,
        own_voice: true,
    }
}

pub(crate) fn ssh(identity: &str, login: &str, target: &str) -> Ask {
    Ask {
        identity: identity.parse().unwrap(),
        target: target.parse().unwrap(),
        access: Access::Login(login.parse().unwrap()),
        entitlement: None,
        source: "192.0.2.7".parse().unwrap(),
        factor: None,
        device: crate::when::Device::default(),
        reference: Reference::new(),
    }
}

pub(crate) fn sql(identity: &str, database: &str, entitlement: Option<&str>) -> Ask {
    Ask {
        identity: identity.parse().unwrap(),
        target: "orders".parse().unwrap(),
        access: Access::Database(database.parse().unwrap()),
        entitlement: entitlement.map(|e| e.parse().unwrap()),
        source: "192.0.2.7".parse().unwrap(),
        factor: None,
        device: crate::when::Device::default(),
        reference: Reference::new(),
    }
}

/// Claims of an outside grant, valid from now for ten minutes.
pub(crate) fn claims(iss: &str, jti: &str) -> Claims {
    let iat = now().as_second();
    Claims {
        iss: iss.to_owned(),
        sub: "alice".parse().unwrap(),
        aud: "gate".to_owned(),
        jti: jti.to_owned(),
        iat,
        nbf: iat,
        exp: iat + 600,
        target: "orders".parse().unwrap(),
        entitlement: "readonly".parse().unwrap(),
        login: None,
        database: None,
        roles: None,
        reason: None,
        ticket: None,
        approvals: Vec::new(),
        single_use: false,
        lasts: None,
    }
}

pub(crate) fn hs256(claims: &impl serde::Serialize) -> String {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET)).unwrap()
}

/// `(groups, count, proof)` for each level.
pub(crate) fn asking(levels: &[(&[&str], u32, crate::Proof)]) -> crate::Asking {
    let level = |(from, count, proof): &(&[&str], u32, crate::Proof)| LevelRule {
        from: set(from),
        count: *count,
        proof: *proof,
    };
    crate::Asking { levels: levels.iter().map(level).collect(), ..crate::Asking::default() }
}

/// The policy with more people, where `shell` is asked for like this.
pub(crate) fn policy_asking(asking: crate::Asking) -> Policy {
    let mut policy = policy();
    let more: [(&str, &[&str]); 5] = [
        ("dave", &["leads"]),
        ("erin", &["leads", "security"]),
        ("frank", &["security"]),
        ("grace", &["security"]),
        ("heidi", &["duty"]),
    ];
    for (name, groups) in more {
        policy.identities.insert(name.parse().unwrap(), identity(name, groups));
    }
    policy.entitlements.get_mut(&"shell".parse().unwrap()).unwrap().asking = Some(asking);
    policy
}

pub(crate) fn wish(target: &str) -> crate::request::Wish {
    crate::request::Wish {
        target: target.parse().unwrap(),
        entitlement: None,
        login: None,
        database: None,
        roles: None,
        duration: Some(Duration::from_secs(600)),
        reason: Some("a reason".to_owned()),
        ticket: None,
        from: Some("192.0.2.7".parse().unwrap()),
        extends: None,
        seen: None,
    }
}

/// Alice's second factor, not proven yet.
pub(crate) fn factor() -> crate::factor::Factor {
    crate::factor::Factor {
        identity: "alice".parse().unwrap(),
        seed: Some("sealed".to_owned()),
        recovery: ["aa".to_owned(), "bb".to_owned()].into(),
        added_at: now(),
        added_by: "carol".parse().unwrap(),
        last_step: 0,
        proven: None,
    }
}
