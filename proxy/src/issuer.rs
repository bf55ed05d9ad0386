//! What creates a credential on a target, and what removes it again.

use futures::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tidegate_grants::{Lease, LeaseId, LeasePlan, Permit, Receipt, TargetName, lease::Finding};
use tokio::sync::Mutex;
use utoipa::ToSchema;

/// Why a target did not do what we asked.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Nobody there, or not in time. Worth another try.
    #[error("{target} cannot be reached: {cause}")]
    Unreachable {
        /// Its name.
        target: String,
        /// The cause, for the log.
        cause: String,
    },
    /// It is not the host that we were told to expect.
    #[error("{target} did not prove that it is {target}: {cause}")]
    Impostor {
        /// Its name.
        target: String,
        /// The cause, for the log.
        cause: String,
    },
    /// It does not accept our credential, or our functions are not installed as they should be.
    #[error("{target} refused: {cause}")]
    Refused {
        /// Its name.
        target: String,
        /// The cause, for the log.
        cause: String,
    },
    /// It accepted the credential, and then would not serve this session: a setting, a database, no room.
    #[error("{target} answered {code}: {message}")]
    Answered {
        /// Its name.
        target: String,
        /// Its own code, fit for a terminal (PostgreSQL: SQLSTATE).
        code: String,
        /// Its own words, bounded and fit for a terminal: they are for the person.
        message: String,
    },
    /// Something on the target needs a human before the lease can go on. (`lease list` shows it as held.)
    #[error("{target} needs a human: {cause}")]
    Held {
        /// Its name.
        target: String,
        /// What, in words that a DBA can act on.
        cause: String,
    },
    /// The configuration has no such target any more.
    #[error("target {0} is no longer in the configuration")]
    Unknown(String),
    /// Others go before, and take their time. Nothing was tried.
    #[error("{0} has others to answer first")]
    Later(TargetName),
    /// Our own store or CA failed.
    #[error("{0}")]
    Ours(String),
}

/// Longest wait for a target to answer one step, connect and handshake included.
pub const TARGET_DEADLINE: Duration = Duration::from_secs(10);

/// Removes what a lease describes. All three are idempotent, and need nothing but the lease: the reaper calls them after
/// a crash, in a process that never saw the session.
pub trait Teardown: std::fmt::Debug + Send + Sync {
    /// The account cannot log in any more and its connections are gone.
    fn disable<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), TargetError>>;
    /// What the session left behind is kept aside or dropped, and the account is removed.
    fn clean<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), TargetError>>;
    /// Asks the target what is left.
    fn inspect<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Receipt, TargetError>>;

    /// What a human can do about what this receipt says is left, in the target's own language. Pure.
    fn advice(&self, _lease: &Lease, _receipt: Option<&Receipt>) -> Vec<Advice> {
        Vec::new()
    }

    /// Whether a human may accept what this receipt says is left, or why not: never an account that still exists.
    fn acceptable(&self, _lease: &Lease, _receipt: &Receipt) -> Result<(), String> {
        Err("nothing of this kind of lease can be accepted: it closes by itself".to_owned())
    }

    /// The targets that can be asked for accounts with our mark.
    fn swept(&self) -> Vec<TargetName> {
        Vec::new()
    }

    /// Every account with our mark on this target.
    fn sweep<'a>(&'a self, target: &'a TargetName) -> BoxFuture<'a, Result<Sighting, TargetError>> {
        async { Err(TargetError::Unknown(target.to_string())) }.boxed()
    }

    /// Whether the account is the one that this lease is about: a name alone can come back.
    fn is_account_of(&self, _lease: &Lease, _marked: &Marked) -> bool {
        false
    }

    /// A lease for such an account that has none.
    fn adopt(&self, target: &TargetName, _marked: &Marked) -> Result<LeasePlan, TargetError> {
        Err(TargetError::Unknown(target.to_string()))
    }
}

/// In a receipt: whoever goes by the target's name now is not who the session was on, so nothing was looked for. Why is its item.
pub const ELSEWHERE: &str = "another server than the session's: nothing was looked for";

/// The receipt of a look that was not taken.
pub(crate) fn not_looked(at: Timestamp, why: String) -> Receipt {
    let findings = vec![Finding { what: ELSEWHERE.to_owned(), found: 1, items: vec![why] }];
    Receipt { at, clean: false, findings, unverifiable: Vec::new(), accepted: None }
}

/// What a human can do about one thing that is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Advice {
    /// What it is about: a receipt's line, or an error.
    pub about: String,
    /// To look, ready to be run.
    pub look: Vec<String>,
    /// To put in order, ready to be run.
    pub finish: Vec<String>,
}

/// What a sweep of a target saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Which server it is, and where in its history: another answer than before is a restore or a failover.
    pub server: String,
    /// Accounts with our mark.
    pub marked: Vec<Marked>,
}

/// An account with our mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Marked {
    /// Its name.
    pub name: String,
    /// What identifies it beside its name.
    pub id: u32,
    /// What it is for.
    pub part: Part,
    /// Whether it can log in.
    pub works: bool,
    /// The gateway that its mark names.
    pub gateway: Option<String>,
    /// The lease that its mark names.
    pub lease: Option<LeaseId>,
}

/// What an account with our mark is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// A session works as it.
    Session,
    /// It keeps what a session left behind, for a human.
    Heir,
    /// It lends a session's role to the administrator for a moment.
    Lender,
}

/// Mints a protocol's credential.
pub trait Issuer: Teardown {
    /// What a connection to the target needs to log in.
    type Credential: Send;

    /// When so many leases of a target have been disabled and could not be closed, no new session goes there: what piles up is in the way.
    const MOST_LEFT: u32;

    /// What is about to exist on the target. Pure: nothing is created yet.
    fn plan(&self, permit: &Permit) -> Result<LeasePlan, TargetError>;

    /// Creates it. The lease is on disk already; what only the target knows (an OID) is noted in it before this
    /// returns. Bounded by [`TARGET_DEADLINE`]; never dropped half-way where it has an effect on the target.
    fn mint(
        &self,
        permit: &Permit,
        lease: &Mutex<Lease>,
    ) -> impl Future<Output = Result<Self::Credential, TargetError>> + Send;
}
