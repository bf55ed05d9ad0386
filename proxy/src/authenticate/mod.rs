//! Who is at the door: an SSH key's identity, and the short-lived passwords of `ssh gate password`.

mod guesses;
mod password;
pub mod verifier;

pub use password::{Expected, PasswordError, Passwords};
pub use verifier::Verifier;

use russh::keys::PublicKey;
use tidegate_grants::{Identity, Policy};

/// The identity that has this key.
pub fn identity_of_key<'p>(policy: &'p Policy, key: &PublicKey) -> Option<&'p Identity> {
    let key = key.to_openssh().ok()?;
    let offered: Vec<&str> = key.split_whitespace().take(2).collect();
    let has = |known: &String| known.split_whitespace().take(2).eq(offered.iter().copied());
    policy.identities.values().find(|identity| identity.ssh_keys.iter().any(has))
}
