//! What creates a credential on a target, and what removes it again.

use futures::future::BoxFuture;
use std::time::Duration;
use tidegate_grants::{Lease, LeasePlan, Permit, Receipt};
use tokio::sync::Mutex;

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
    /// Our own store or CA failed.
    #[error("{0}")]
    Ours(String),
}

/// Longest wait for a target to answer one step, connect and handshake included.
pub const TARGET_DEADLINE: Duration = Duration::from_secs(10);

/// Removes what a lease describes. All three are idempotent, and need nothing but the lease: the reaper calls them after
/// a crash, in a process that never saw the session.
pub trait Teardown: Send + Sync {
    /// The account cannot log in any more and its connections are gone.
    fn disable<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), TargetError>>;
    /// What the session left behind is kept aside or dropped, and the account is removed.
    fn clean<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), TargetError>>;
    /// Asks the target what is left.
    fn inspect<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Receipt, TargetError>>;
}

/// Mints a protocol's credential.
pub trait Issuer: Teardown {
    /// What a connection to the target needs to log in.
    type Credential: Send;

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
