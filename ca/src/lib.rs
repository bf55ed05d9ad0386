//! Keys and certificates. Knows no grants and no sockets.
//!
//! Six signing keys, each in a file of its own (SSH user, SSH host, X.509 for targets and the listener, X.509 for people,
//! grants, ledger), one secret for salts, and keys that seal second factors. Certificates that this crate makes live for seconds (sessions), minutes
//! (people) or days (the gateway's own listeners), and each names exactly one principal.

pub mod people;
pub mod revoked;
pub mod seal;
pub mod signer;
pub mod ssh;
pub mod vouch;
pub mod x509;

pub use people::PeopleAuthority;
pub use revoked::{Revoked, RevokedError};
pub use seal::SealKeys;
pub use signer::{Keys, Part};
pub use ssh::{SshAuthority, SshCredential, UserCertificate};
pub use vouch::{Unvouched, vouch};
pub use x509::{TlsIdentity, X509Authority};

/// Why a key could not be read or a certificate not made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A key file is missing, unreadable, too open or not a key. Names the file and what to do.
    #[error("{path}: {fault}")]
    KeyFile {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong, and the fix.
        fault: String,
    },
    /// The request breaks a rule of ours: e.g. a principal with a comma, or an empty one.
    #[error("refused to sign: {0}")]
    Refused(String),
    /// The library could not encode or sign.
    #[error("could not sign: {0}")]
    Sign(String),
}
