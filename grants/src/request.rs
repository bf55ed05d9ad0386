//! One identity asking for one entitlement on one target, and what was said about it.
//!
//! What always holds: what is asked for never changes. Its [`Terms`](Wanted) are one text, whose SHA-256 every approval names;
//! asking for something else is another request, with another id and no approval.

use crate::{
    asking::Proof,
    grant::Revoked,
    name::{DatabaseName, EntitlementName, GrantId, IdentityName, Login, RequestId, RoleName, TargetName},
    panel::Standing,
};
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeSet, fmt, net::IpAddr, str::FromStr, time::Duration};

/// A request in which nobody decides is over after this.
pub const LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// The namespace of a signed approval, as `ssh-keygen -Y sign -n` takes it.
pub const NAMESPACE: &str = "tidegate-approval";

/// What somebody asks for, before it is a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// On which target.
    pub target: TargetName,
    /// Which entitlement; may be left out where one alone can be asked for there.
    pub entitlement: Option<EntitlementName>,
    /// Narrowed to this login.
    pub login: Option<Login>,
    /// Narrowed to this database.
    pub database: Option<DatabaseName>,
    /// Narrowed to these roles.
    pub roles: Option<BTreeSet<RoleName>>,
    /// For how long from the last approval; left out: as long as the entitlement allows.
    pub duration: Option<Duration>,
    /// Why.
    pub reason: Option<String>,
    /// A ticket.
    pub ticket: Option<String>,
    /// From where they ask, if that is known: where a second factor must have been proven.
    pub from: Option<IpAddr>,
    /// The grant that it is to extend.
    pub extends: Option<GrantId>,
    /// That the ticket system knows the ticket.
    pub seen: Option<TicketSeen>,
}

/// The ticket system's word, from this address, that it knows this ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketSeen {
    /// Where it was asked.
    pub url: String,
    /// For what.
    pub ticket: String,
}

/// What somebody says when they ask for more time. What they leave out is as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct More {
    /// For how long from the last approval; left out: as long as the entitlement allows.
    pub duration: Option<Duration>,
    /// Why.
    pub reason: Option<String>,
    /// A ticket.
    pub ticket: Option<String>,
    /// As in a [`Wish`].
    pub from: Option<IpAddr>,
    /// As in a [`Wish`].
    pub seen: Option<TicketSeen>,
}

/// What is asked for, exactly. Its text is what approvals bind to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Wanted {
    /// The request's id.
    pub id: RequestId,
    /// The gateway that is asked.
    pub gateway: String,
    /// Who asks.
    pub identity: IdentityName,
    /// On which target.
    pub target: TargetName,
    /// Which entitlement.
    pub entitlement: EntitlementName,
    /// Narrowed to this login.
    pub login: Option<Login>,
    /// Narrowed to this database.
    pub database: Option<DatabaseName>,
    /// Narrowed to these roles.
    pub roles: Option<BTreeSet<RoleName>>,
    /// For so many seconds from the last approval.
    pub seconds: u64,
    /// Why.
    pub reason: Option<String>,
    /// A ticket.
    pub ticket: Option<String>,
    /// The grant that it extends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extends: Option<GrantId>,
}

impl Wanted {
    /// Whether both ask for the same, whatever they are called.
    pub fn same(&self, other: &Self) -> bool {
        Self { id: other.id, ..self.clone() } == *other
    }
}

/// SHA-256 of what is asked for, lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct RequestDigest(String);

impl RequestDigest {
    /// Of the text of a [`Wanted`], as it is stored.
    pub fn of(terms: &str) -> Self {
        Self(HEXLOWER.encode(&Sha256::digest(format!("tidegate request v1\n{terms}"))))
    }

    pub(crate) fn stored(text: String) -> Self {
        Self(text)
    }

    /// Lower-case hex.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The one line that a signed approval signs, without its line end.
pub fn line_to_sign(gateway: &str, id: RequestId, digest: &RequestDigest) -> String {
    format!("tidegate approval v1 gateway={gateway} request={id} sha256={}", digest.as_str())
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RequestState {
    /// It waits.
    Open,
    /// Every level said yes; there is a grant.
    Granted,
    /// Somebody said no.
    Denied,
    /// Who asked took it back, or asked for something else in its place.
    Cancelled,
    /// Nobody decided in time.
    Expired,
    /// Its row is not what the ledger says: it opens nothing.
    Invalid,
}

impl RequestState {
    const STORED: [Self; 5] = [Self::Open, Self::Granted, Self::Denied, Self::Cancelled, Self::Expired];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Granted => "granted",
            Self::Denied => "denied",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Invalid => "invalid",
        }
    }
}

impl fmt::Display for RequestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No such state.
#[derive(Debug, thiserror::Error)]
#[error("no state of a request")]
pub struct NoState;

impl FromStr for RequestState {
    type Err = NoState;
    fn from_str(text: &str) -> Result<Self, NoState> {
        Self::STORED.into_iter().find(|state| state.as_str() == text).ok_or(NoState)
    }
}

/// One approver's yes to exactly one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Approval {
    /// Whose.
    pub by: IdentityName,
    /// When.
    pub at: Timestamp,
    /// On which level of the entitlement, from 1.
    pub level: u32,
    /// By their own key, or witnessed by the gateway.
    pub proof: Proof,
    /// Of what.
    pub digest: RequestDigest,
    /// The SSHSIG, armored, if it is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// A request as lists show it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RequestView {
    /// What is asked for.
    #[serde(flatten)]
    pub wanted: Wanted,
    /// What approvals bind to.
    pub digest: RequestDigest,
    /// Since when.
    pub opened: Timestamp,
    /// Undecided until then, it is over.
    pub expires: Timestamp,
    /// At the moment of asking.
    pub state: RequestState,
    /// Of whom what is awaited, while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<Standing>,
    /// Who said yes.
    pub approvals: Vec<Approval>,
    /// Decided when, by whom and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<Revoked>,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantId>,
}

impl RequestView {
    /// The one line that a signed approval of it signs, without its line end.
    pub fn line_to_sign(&self) -> String {
        line_to_sign(&self.wanted.gateway, self.wanted.id, &self.digest)
    }
}
