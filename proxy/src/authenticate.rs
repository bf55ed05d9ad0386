//! Who is at the door: an SSH key's identity, and the short-lived passwords of `ssh gate password`.

use jiff::Timestamp;
use russh::keys::PublicKey;
use secrecy::{SecretSlice, SecretString};
use std::{sync::Arc, time::Duration};
use tidegate_grants::{Authority, Denied, Identity, IdentityName, Policy, TargetName};

/// The identity that has this key.
pub fn identity_of_key<'p>(policy: &'p Policy, key: &PublicKey) -> Option<&'p Identity> {
    let key = key.to_openssh().ok()?;
    let offered: Vec<&str> = key.split_whitespace().take(2).collect();
    let has = |known: &String| known.split_whitespace().take(2).eq(offered.iter().copied());
    policy.identities.values().find(|identity| identity.ssh_keys.iter().any(has))
}

/// Makes and checks short-lived passwords. They are stored as SCRAM verifiers only.
#[derive(Debug, Clone)]
pub struct Passwords {
    authority: Arc<Authority>,
    salt: Arc<SecretSlice<u8>>,
    window: Duration,
}

impl Passwords {
    /// `salt` is the HMAC key for salts, `window` the life of a password (never beyond the grant).
    pub fn new(authority: Arc<Authority>, salt: SecretSlice<u8>, window: Duration) -> Self {
        Self { authority, salt: Arc::new(salt), window }
    }

    /// A new password for this identity at this target, in place of an older one. Returns it with its expiry.
    pub async fn issue(
        &self,
        identity: &IdentityName,
        target: &TargetName,
        now: Timestamp,
    ) -> Result<(SecretString, Timestamp), Denied> {
        let _ = (identity, target, now, &self.authority, &self.salt, self.window);
        todo!()
    }
}
