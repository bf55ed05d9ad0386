//! Where the private keys are: one file each, mode 0600, in `state_dir/keys`.

use crate::{CaError, ssh::SshAuthority, x509::X509Authority};
use secrecy::SecretSlice;
use std::path::Path;

/// A public part for `ca show`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// OpenSSH public key line of the SSH user CA.
    SshUser,
    /// OpenSSH public key line of the SSH host CA.
    SshHost,
    /// PEM certificate of the X.509 CA.
    X509,
    /// Verification key of ledger and recordings (PEM, SubjectPublicKeyInfo).
    Ledger,
}

/// All keys of a gateway.
#[derive(Debug)]
pub struct Keys {
    /// Signs user certificates for SSH targets.
    pub ssh_user: SshAuthority,
    /// Signs the gateway's own SSH host certificate.
    pub ssh_host: SshAuthority,
    /// Signs TLS certificates: the gateway's listener, its admin login and session roles on PostgreSQL targets.
    pub x509: X509Authority,
    /// Signs our own grants.
    pub grants: ed25519_dalek::SigningKey,
    /// Signs ledger heads and recordings.
    pub ledger: ed25519_dalek::SigningKey,
    /// HMAC key for SCRAM salts.
    pub salt: SecretSlice<u8>,
}

impl Keys {
    /// Makes what is missing in `dir` (0700) and leaves what is there. `name` goes into the CA's subject.
    pub fn create(dir: &Path, name: &str) -> Result<Self, CaError> {
        let _ = (dir, name);
        todo!()
    }

    /// Reads all; a missing, too open (any bit of group or others) or damaged file is named with its fix.
    pub fn open(dir: &Path) -> Result<Self, CaError> {
        let _ = dir;
        todo!()
    }

    /// One public part, ready to redirect into a file.
    pub fn show(&self, part: Part) -> String {
        let _ = part;
        todo!()
    }
}
