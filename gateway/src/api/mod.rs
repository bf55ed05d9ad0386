//! The HTTP API on the Unix socket `state/tidegate.sock` and over HTTPS, and the client of it that the commands are.
//!
//! One router serves both: they differ only in who the caller is ([`peer::Caller`]). Over HTTPS a token says it ([`bearer`]).
//! The socket is open to every local account; who may do what is decided by the peer's credentials
//! (`SO_PEERCRED`), mapped to a named identity by `unix_user` and to its roles by `[roles]`. An account that maps to
//! nobody gets `status` only: the socket may be mounted into a container.

mod access;
mod bearer;
pub(crate) mod client;
mod clock;
pub(crate) mod events;
mod factors;
pub(crate) mod https;
mod leases;
mod live;
mod lives;
mod locks;
mod notify;
mod openapi;
mod page;
pub(crate) mod peer;
pub(crate) mod problem;
mod rate;
mod recordings;
mod refusals;
pub(crate) mod remote;
mod requests;
mod reviews;
mod routes;
mod sessions;
pub(crate) mod socket;
mod stay;
mod tokens;
mod workloads;

pub(crate) use https::Source;
pub(crate) use peer::{Action, Caller};
pub(crate) use problem::Problem;
pub(crate) use recordings::{How, OpenedBody, RecordingHeld};
pub(crate) use routes::{Api, Trials};

use crate::live::InventoryView;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};
use tidegate_grants::{
    DatabaseName, EntitlementName, GrantId, IdentityName, LeaseId, LeaseKind, LeaseState, LockId, Login, Receipt,
    RoleName, SessionId, TargetName, TokenId, TokenScope, ledger::proof::SignedHead,
};
use tidegate_proxy::{issuer::Advice, watching::SessionNow};
use utoipa::ToSchema;

/// The socket's name in the state directory.
pub(crate) const SOCKET: &str = "tidegate.sock";

/// `GET /v1/status`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Status {
    /// This program's version.
    pub(crate) version: String,
    /// The gateway's name.
    pub(crate) gateway: String,
    /// The node.
    pub(crate) node: String,
    /// SHA-256 of the configuration in force, hex.
    pub(crate) config: String,
    /// New sessions are let in.
    pub(crate) ready: bool,
    /// Why not, one sentence each.
    pub(crate) faults: Vec<String>,
    /// Where it listens.
    pub(crate) listeners: Listeners,
    /// Live sessions.
    pub(crate) sessions: usize,
    /// Leases that are not closed.
    pub(crate) open_leases: usize,
    /// Those of them that need a human.
    #[serde(default)]
    pub(crate) held_leases: usize,
    /// Locks that keep somebody out now.
    #[serde(default)]
    pub(crate) locks: usize,
    /// Bytes of recordings.
    #[serde(default)]
    pub(crate) recordings_bytes: u64,
    /// What they may take, if that is bounded.
    #[serde(default)]
    pub(crate) recordings_budget: Option<u64>,
    /// Reviews that nobody has signed.
    #[serde(default)]
    pub(crate) reviews: usize,
    /// Accounts with our mark and no lease, as `NAME on TARGET`.
    #[serde(default)]
    pub(crate) orphans: Vec<String>,
    /// Who else lists targets, and what came of the last look.
    #[serde(default)]
    pub(crate) inventories: Vec<InventoryView>,
    /// When an anchor outside last took the ledger's head.
    pub(crate) last_anchor: Option<jiff::Timestamp>,
    /// Anchors that did not take the ledger's newest head, and why. Only for who is known.
    #[serde(default)]
    pub(crate) failing_anchors: BTreeMap<String, String>,
    /// Peers whose heads were not taken, and why. Only for who is known.
    #[serde(default)]
    pub(crate) failing_peers: BTreeMap<String, String>,
    /// The signed heads of the ledger: who keeps them can tell whether it goes back.
    #[serde(default)]
    pub(crate) heads: Vec<SignedHead>,
}

/// Where the gateway listens.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct Listeners {
    /// SSH.
    #[schema(value_type = Option<String>)]
    pub(crate) ssh: Option<SocketAddr>,
    /// PostgreSQL.
    #[schema(value_type = Option<String>)]
    pub(crate) postgres: Option<SocketAddr>,
    /// The API, over HTTPS.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(crate) api: Option<SocketAddr>,
}

/// `POST /v1/grants`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IssueBody {
    pub(crate) user: IdentityName,
    pub(crate) target: TargetName,
    pub(crate) entitlement: EntitlementName,
    /// Like `30m`.
    #[serde(rename = "for")]
    pub(crate) duration: String,
    #[serde(default)]
    pub(crate) reason: Option<String>,
    #[serde(default)]
    pub(crate) ticket: Option<String>,
    #[serde(default)]
    pub(crate) login: Option<Login>,
    #[serde(default)]
    pub(crate) database: Option<DatabaseName>,
    #[serde(default)]
    pub(crate) roles: Option<BTreeSet<RoleName>>,
    #[serde(default)]
    pub(crate) single_use: bool,
}

/// `POST /v1/requests`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequestBody {
    pub(crate) target: TargetName,
    /// May be left out where one alone can be asked for there.
    #[serde(default)]
    pub(crate) entitlement: Option<EntitlementName>,
    /// Like `30m`; left out: as long as the entitlement allows.
    #[serde(rename = "for", default)]
    pub(crate) duration: Option<String>,
    #[serde(default)]
    pub(crate) reason: Option<String>,
    #[serde(default)]
    pub(crate) ticket: Option<String>,
    #[serde(default)]
    pub(crate) login: Option<Login>,
    #[serde(default)]
    pub(crate) database: Option<DatabaseName>,
    #[serde(default)]
    pub(crate) roles: Option<BTreeSet<RoleName>>,
}

/// `POST /v1/requests/{id}/approve`
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApproveBody {
    /// An SSHSIG over the request's line, armored.
    #[serde(default)]
    pub(crate) signature: Option<String>,
}

/// `POST /v1/requests/{id}/deny`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DenyBody {
    /// Who asked is told.
    pub(crate) reason: String,
}

/// `POST /v1/grants/{id}/extend`
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExtendBody {
    /// Like `30m`, from the last approval on; left out: as long as the entitlement allows.
    #[serde(rename = "for", default)]
    pub(crate) duration: Option<String>,
    /// Left out: as it was.
    #[serde(default)]
    pub(crate) reason: Option<String>,
    /// Left out: as it was.
    #[serde(default)]
    pub(crate) ticket: Option<String>,
}

/// `POST /v1/grants/{id}/return`
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReturnBody {
    /// Somebody else's.
    #[serde(default)]
    pub(crate) force: bool,
    /// Whose it is is told; needed with `force`.
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

/// `POST /v1/reviews/{id}/sign`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReviewBody {
    /// What was found.
    pub(crate) note: String,
}

/// `POST /v1/grants/import`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportBody {
    /// JWS compact.
    pub(crate) token: String,
}

/// `POST /v1/grants/{id}/revoke`, `/v1/sessions/{id}/kill` and `/v1/users/{name}/end`: what ends something live
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReasonBody {
    /// The person is told.
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

/// `POST /v1/tokens`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenBody {
    /// Whose it will be; left out: of whoever asks.
    #[serde(default)]
    pub(crate) user: Option<IdentityName>,
    /// What it is for.
    #[serde(default)]
    pub(crate) label: String,
    pub(crate) scope: TokenScope,
    /// Like `30d`.
    #[serde(rename = "for")]
    pub(crate) duration: String,
}

/// What it answers, once.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct TokenGiven {
    pub(crate) id: TokenId,
    /// For `Authorization: Bearer`.
    pub(crate) secret: String,
    pub(crate) expires: jiff::Timestamp,
}

/// `POST /v1/workload/token`
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkloadBody {
    /// A JWT of its issuer, JWS compact.
    pub(crate) token: String,
    /// Which workload it is; may be left out where one alone fits.
    #[serde(default)]
    pub(crate) workload: Option<IdentityName>,
}

/// `POST /v1/workload/keys`
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyBody {
    /// As in a `.pub` file.
    pub(crate) ssh_key: String,
}

/// What it answers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct KeyGiven {
    /// Whose it is now.
    pub(crate) identity: IdentityName,
    /// Not at or after.
    pub(crate) expires: jiff::Timestamp,
}

/// `POST /v1/locks`: exactly one of `user`, `target` and `all`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LockBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<IdentityName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<TargetName>,
    #[serde(default)]
    pub(crate) all: bool,
    /// Whoever is kept out is told.
    pub(crate) reason: String,
    /// Like `2h`; over by itself then.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub(crate) duration: Option<String>,
    /// The same as a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<jiff::Timestamp>,
}

/// `POST /v1/users/{name}/mfa`
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FactorBody {
    /// In place of the one that they have.
    #[serde(default)]
    pub(crate) replace: bool,
}

/// What it answers, once.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct FactorGiven {
    /// `otpauth://…`
    pub(crate) uri: String,
    /// Each good once.
    pub(crate) recovery: Vec<String>,
}

/// What `POST /v1/users/{name}/mfa/remove` answers.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct FactorRemoved {
    pub(crate) identity: IdentityName,
}

/// `POST /v1/notify/retry`
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NotifyRetry {
    /// Only this one.
    #[serde(default)]
    pub(crate) channel: Option<String>,
}

/// What it answers.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct NotifyRetried {
    /// Dead letters that are tried again.
    pub(crate) letters: usize,
}

/// What `POST /v1/locks/{id}/remove` answers.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct LockRemoved {
    pub(crate) id: LockId,
}

/// What `POST /v1/tokens/{id}/revoke` answers.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct TokenRevoked {
    pub(crate) id: TokenId,
}

/// `POST /v1/targets/{name}/test`
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestBody {
    /// As whom; may be left out where there is one login.
    #[serde(default)]
    pub(crate) login: Option<Login>,
    /// PostgreSQL: which database; may be left out where entitlements open one.
    #[serde(default)]
    pub(crate) database: Option<DatabaseName>,
    /// PostgreSQL: on which terms.
    #[serde(default)]
    pub(crate) entitlement: Option<EntitlementName>,
}

/// `POST /v1/config/diff`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiffBody {
    /// A configuration file's text.
    pub(crate) text: String,
    /// What it is called in messages.
    #[serde(default)]
    pub(crate) name: Option<String>,
}

/// What `POST` on grants answers.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct GrantMade {
    pub(crate) id: GrantId,
}

/// `POST /v1/leases/{id}/accept`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcceptBody {
    /// Why what is left may stay.
    pub(crate) reason: String,
}

/// `POST /v1/leases/adopt`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdoptBody {
    pub(crate) target: TargetName,
    /// The account's name there.
    pub(crate) name: String,
    pub(crate) reason: String,
}

/// `POST /v1/leases/sweep`
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SweepBody {
    /// Only this one.
    #[serde(default)]
    pub(crate) target: Option<TargetName>,
}

/// `GET /v1/leases/{id}`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct LeaseDetail {
    /// With the last receipt.
    #[serde(flatten)]
    pub(crate) lease: LeaseView,
    /// What the target says now, if it could be asked.
    pub(crate) now: Option<Receipt>,
    /// Why it could not.
    pub(crate) silent: Option<String>,
    /// What a human can do.
    pub(crate) advice: Vec<Advice>,
    /// Whether `lease accept` would close it, as it is now.
    pub(crate) acceptable: bool,
}

/// What `POST /v1/leases/{id}/retry` answers.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct LeaseWoken {
    pub(crate) id: LeaseId,
}

/// A lease as `lease list --json` prints it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct LeaseView {
    pub(crate) id: LeaseId,
    pub(crate) session: SessionId,
    pub(crate) target: TargetName,
    pub(crate) kind: LeaseKind,
    pub(crate) name: String,
    pub(crate) state: LeaseState,
    pub(crate) deadline: jiff::Timestamp,
    pub(crate) attempts: u32,
    pub(crate) last_error: Option<String>,
    /// With `--all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) receipt: Option<Receipt>,
}

/// What `POST /v1/sessions/{id}/kill` answers.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct SessionKilled {
    pub(crate) id: SessionId,
}

/// `GET /v1/sessions/{id}`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct SessionDetail {
    #[serde(flatten)]
    pub(crate) session: SessionNow,
    /// With receipts.
    pub(crate) leases: Vec<LeaseView>,
}

/// A longer configuration is compared by nobody.
pub(crate) const LARGEST_CONFIG: usize = 16 << 20;
/// Longer bodies of other requests are refused.
pub(crate) const LARGEST_BODY: usize = 64 << 10;
