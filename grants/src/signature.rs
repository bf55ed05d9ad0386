//! An approval that is signed: an SSHSIG (OpenSSH's `PROTOCOL.sshsig`) by one of the approver's own keys.
//!
//! What always holds: the key is one that the configuration has for the approver, the namespace is ours, SHA-1 signs
//! nothing, and a security key says that it was touched.

use crate::{identity::Identity, request::NAMESPACE};
use ssh_key::{Algorithm, LineEnding, PublicKey, SshSig};

/// An armored signature is at most this long.
pub(crate) const LONGEST: usize = 8 * 1024;
/// User presence, in the flags of a security key's signature (OpenSSH's `PROTOCOL.u2f`).
const TOUCHED: u8 = 0x01;
/// Flags and counter, behind such a signature.
const TRAILER: usize = 5;

/// Why a signature is none. One plain sentence each, for whoever sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unsigned {
    #[error("that is no signature as `ssh-keygen -Y sign` prints it")]
    Malformed,
    #[error("the signature is for another purpose: sign with -n tidegate-approval")]
    Namespace,
    #[error("the signature is not by one of your own keys that this gateway knows")]
    Key,
    #[error("the signature is not over this request as it is now")]
    Other,
    #[error("the security key was not touched")]
    Untouched,
    #[error("the signature rests on SHA-1")]
    Weak,
}

/// Whether this is their signature over the line. Returns it as it is kept.
pub(crate) fn check(approver: &Identity, line: &str, armored: &str) -> Result<String, Unsigned> {
    if armored.len() > LONGEST {
        return Err(Unsigned::Malformed);
    }
    let signature = SshSig::from_pem(armored.trim()).map_err(|_| Unsigned::Malformed)?;
    if signature.namespace() != NAMESPACE {
        return Err(Unsigned::Namespace);
    }
    let keys = approver.ssh_keys.iter().filter_map(|key| PublicKey::from_openssh(key).ok());
    let key = keys.into_iter().find(|key| key.key_data() == signature.public_key()).ok_or(Unsigned::Key)?;
    if matches!(signature.signature().algorithm(), Algorithm::Rsa { hash: None }) {
        return Err(Unsigned::Weak);
    }
    // `ssh gate approve | ssh-keygen` signs the end of the line too, `printf %s` does not: it is the same line.
    let lines = [format!("{line}\n"), line.to_owned()];
    if !lines.iter().any(|line| key.verify(NAMESPACE, line.as_bytes(), &signature).is_ok()) {
        return Err(Unsigned::Other);
    }
    if matches!(key.algorithm(), Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256) {
        let bytes = signature.signature_bytes();
        let flags = bytes.len().checked_sub(TRAILER).and_then(|at| bytes.get(at));
        if flags.is_none_or(|flags| flags & TOUCHED == 0) {
            return Err(Unsigned::Untouched);
        }
    }
    signature.to_pem(LineEnding::LF).map_err(|_| Unsigned::Malformed)
}
