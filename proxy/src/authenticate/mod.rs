//! Who is at the door: the identity of an SSH key or certificate, and the short-lived passwords of `ssh gate password`.

mod certificate;
mod elsewhere;
mod factors;
mod guesses;
mod password;
mod revoked_keys;
mod sources;
pub mod verifier;

pub use certificate::{NotAdmitted, identity_of_certificate};
pub use elsewhere::{Arrived, Elsewhere, Invitation};
pub use factors::{Enrolled, FactorError, Factors};
pub use password::{Expected, PasswordError, Passwords};
pub use revoked_keys::{RevokedKeys, Unknown};
pub use sources::Sources;
pub use verifier::Verifier;

use russh::keys::PublicKey;
use tidegate_grants::{Identity, Policy};

/// What certificates people may come with, and which of those and of their keys open nothing any more.
#[derive(Debug, Clone)]
pub struct Vouching {
    /// Authorities whose user certificates say who somebody is.
    pub user_ca: Vec<PublicKey>,
    /// Keys and certificates that open nothing any more.
    pub revoked_keys: RevokedKeys,
}

/// The identity that has this key.
pub fn identity_of_key<'p>(policy: &'p Policy, key: &PublicKey) -> Option<&'p Identity> {
    let key = key.to_openssh().ok()?;
    let offered: Vec<&str> = key.split_whitespace().take(2).collect();
    let has = |known: &String| known.split_whitespace().take(2).eq(offered.iter().copied());
    policy.identities.values().find(|identity| identity.ssh_keys.iter().any(has))
}
