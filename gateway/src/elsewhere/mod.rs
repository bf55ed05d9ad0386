//! What others vouch for: workloads by their tokens, people by a login at an OpenID provider.
//!
//! What always holds: who signed something is known by keys that the configuration leads to, never by what the token says of
//! itself; every look outside is bounded in time and size, follows no redirect, and one that fails lets nobody in; what is
//! gained is an identity, never a grant.

mod device;
mod fetch;
mod jwks;
mod jwt;
pub(crate) mod oidc;
pub(crate) mod workload;

pub(crate) use device::DeviceLogins;
pub(crate) use fetch::{Place, is_safe};
pub(crate) use jwks::{KeyRing, KeySource, check as check_keys};
#[cfg(test)]
pub(crate) use jwt::ALGORITHMS;
pub(crate) use jwt::{Expected, algorithm};
pub(crate) use workload::Workload;

/// Why somebody is not believed. Each is one sentence, and repeats nothing that was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unproven {
    /// What they brought is at fault.
    #[error("{0}")]
    Wrong(String),
    /// Whoever could say so cannot be asked.
    #[error("{0}")]
    Unknown(String),
}

fn wrong<T>(why: impl Into<String>) -> Result<T, Unproven> {
    Err(Unproven::Wrong(why.into()))
}

fn unknown<T>(why: impl Into<String>) -> Result<T, Unproven> {
    Err(Unproven::Unknown(why.into()))
}
