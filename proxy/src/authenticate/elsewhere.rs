//! Logging in elsewhere, as the SSH door sees it: somebody else shows them where, and says who came.

use futures::future::BoxFuture;
use jiff::Timestamp;
use std::{fmt, net::IpAddr, sync::Mutex};
use tidegate_grants::IdentityName;

/// Where people log in that no key says anything about yet.
pub trait Elsewhere: fmt::Debug + Send + Sync {
    /// Whether there is such a login now.
    fn is_open(&self) -> bool;

    /// Begins one for somebody at this address; an error is a sentence for them.
    fn invite(&self, source: IpAddr) -> BoxFuture<'_, Result<Invitation, String>>;
}

/// A login that somebody may complete.
pub struct Invitation {
    /// What they are shown: where to go, and what to type there.
    pub text: String,
    /// Who came, in the end; an error is a sentence for them. Bounded in time by itself. (Nobody waits for the lock: it makes it `Sync`.)
    pub arrives: Mutex<BoxFuture<'static, Result<Arrived, String>>>,
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation").finish_non_exhaustive()
    }
}

/// Somebody who has logged in elsewhere, and is known here from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// Who.
    pub identity: IdentityName,
    /// Until when their login is good.
    pub ends: Timestamp,
}
