//! SSH certificates (OpenSSH PROTOCOL.certkeys).

use crate::CaError;
use jiff::Timestamp;
use ssh_key::{Certificate, PrivateKey, PublicKey};

/// What to sign for one connection to a target.
#[derive(Debug, Clone)]
pub struct UserCertificate<'a> {
    /// The one principal. No comma, no whitespace, not empty.
    pub principal: &'a str,
    /// Names session, identity and grant; ends up in the target's log.
    pub key_id: &'a str,
    /// Not before.
    pub valid_after: Timestamp,
    /// Not after; at most 10 minutes after `valid_after`.
    pub valid_before: Timestamp,
    /// Addresses that may use it; never empty.
    pub source_addresses: &'a [String],
    /// E.g. `permit-pty`. None unless the session needs it.
    pub extensions: &'a [&'a str],
    /// The only command that it can run, if set.
    pub force_command: Option<&'a str>,
}

/// A fresh key with its certificate. Lives in memory only.
#[derive(Debug, Clone)]
pub struct SshCredential {
    /// Ed25519, made for this certificate.
    pub key: PrivateKey,
    /// Signed by us.
    pub certificate: Certificate,
}

/// An SSH certificate authority.
#[derive(Debug)]
pub struct SshAuthority {
    #[allow(dead_code, reason = "skeleton")]
    key: PrivateKey,
}

impl SshAuthority {
    /// From its private key.
    pub fn new(key: PrivateKey) -> Self {
        Self { key }
    }
    /// Its public key.
    pub fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }
    /// A user certificate on a fresh key.
    pub fn issue_user(&self, spec: &UserCertificate<'_>) -> Result<SshCredential, CaError> {
        let _ = spec;
        todo!()
    }
    /// A host certificate for exactly these names.
    pub fn issue_host(
        &self,
        host_key: &PublicKey,
        names: &[String],
        key_id: &str,
        valid_after: Timestamp,
        valid_before: Timestamp,
    ) -> Result<Certificate, CaError> {
        let _ = (host_key, names, key_id, valid_after, valid_before);
        todo!()
    }
}
