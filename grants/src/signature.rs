//! What is signed by a person: an SSHSIG (OpenSSH's `PROTOCOL.sshsig`) by one of their own keys.
//!
//! What always holds: the key is one that the configuration has for them, the namespace is the one for this purpose, SHA-1 signs
//! nothing, and a security key says that it was touched.

use crate::identity::Identity;
use ssh_key::{Algorithm, LineEnding, PublicKey, SshSig, public::KeyData};

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
    #[error("the signature is for another purpose: sign with -n {0}")]
    Namespace(&'static str),
    #[error("the signature is not by one of your own keys in the configuration")]
    Key,
    #[error("the signature is not over the line that is to be signed now")]
    Other,
    #[error("the security key was not touched")]
    Untouched,
    #[error("the signature rests on SHA-1")]
    Weak,
}

/// A signature that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    /// By which of their keys.
    pub(crate) key: PublicKey,
    /// As it is kept.
    pub(crate) armored: String,
}

impl Signed {
    /// By a security key, that is: by one that was touched.
    pub(crate) fn touched(&self) -> bool {
        is_security_key(&self.key)
    }
}

/// By which key this was signed, if it is a signature; whether it holds is another question.
pub fn signed_by(armored: &str) -> Option<KeyData> {
    parsed(armored).ok().map(|signature| signature.public_key().clone())
}

fn parsed(armored: &str) -> Result<SshSig, Unsigned> {
    let bounded = Some(armored).filter(|armored| armored.len() <= LONGEST).ok_or(Unsigned::Malformed)?;
    SshSig::from_pem(bounded.trim()).map_err(|_| Unsigned::Malformed)
}

/// Whether it lives in a security key (FIDO).
pub(crate) fn is_security_key(key: &PublicKey) -> bool {
    matches!(key.algorithm(), Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256)
}

/// Their keys.
pub(crate) fn keys(of: &Identity) -> impl Iterator<Item = PublicKey> {
    of.ssh_keys.iter().filter_map(|key| PublicKey::from_openssh(key).ok())
}

/// Whether this is their signature over the line, for this purpose.
pub(crate) fn check(person: &Identity, namespace: &'static str, line: &str, armored: &str) -> Result<Signed, Unsigned> {
    let signature = parsed(armored)?;
    if signature.namespace() != namespace {
        return Err(Unsigned::Namespace(namespace));
    }
    let key = keys(person).find(|key| key.key_data() == signature.public_key()).ok_or(Unsigned::Key)?;
    if matches!(signature.signature().algorithm(), Algorithm::Rsa { hash: None }) {
        return Err(Unsigned::Weak);
    }
    // `ssh gate approve | ssh-keygen` signs the end of the line too, `printf %s` does not: it is the same line.
    let lines = [format!("{line}\n"), line.to_owned()];
    if !lines.iter().any(|line| key.verify(namespace, line.as_bytes(), &signature).is_ok()) {
        return Err(Unsigned::Other);
    }
    if is_security_key(&key) {
        let bytes = signature.signature_bytes();
        let flags = bytes.len().checked_sub(TRAILER).and_then(|at| bytes.get(at));
        if flags.is_none_or(|flags| flags & TOUCHED == 0) {
            return Err(Unsigned::Untouched);
        }
    }
    let armored = signature.to_pem(LineEnding::LF).map_err(|_| Unsigned::Malformed)?;
    Ok(Signed { key, armored })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::request::NAMESPACE;
    use base64::{Engine, engine::general_purpose::STANDARD};
    use sha2::{Digest, Sha256};
    use signature::Signer as _;
    use ssh_key::{EcdsaCurve, HashAlg, PrivateKey, Signature, getrandom::SysRng, rand_core::UnwrapErr};
    use std::collections::BTreeSet;

    const APPLICATION: &[u8] = b"ssh:";

    /// RFC 4251 section 5.
    fn string(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    /// A security key made of software: what one signs is in OpenSSH's `PROTOCOL.u2f`.
    struct Token {
        algorithm: Algorithm,
        inner: PrivateKey,
    }

    impl Token {
        fn new(algorithm: Algorithm) -> Self {
            let inner = match algorithm {
                Algorithm::SkEd25519 => Algorithm::Ed25519,
                _ => Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
            };
            Self { algorithm, inner: PrivateKey::random(&mut UnwrapErr(SysRng), inner).unwrap() }
        }

        /// Whose key it is.
        fn holder(&self) -> Identity {
            let inner = self.inner.public_key().to_bytes().unwrap();
            // Another name of the algorithm before it, and the application behind it.
            let name = 4 + usize::try_from(u32::from_be_bytes(inner[..4].try_into().unwrap())).unwrap();
            let kind = self.algorithm.as_str();
            let public = [string(kind.as_bytes()), inner[name..].to_vec(), string(APPLICATION)].concat();
            let ssh_keys = vec![format!("{kind} {}", STANDARD.encode(public))];
            Identity { name: "dave".parse().unwrap(), groups: BTreeSet::new(), ssh_keys, unix_user: None }
        }

        /// As `ssh-keygen -Y sign` has it, over these flags and said to be with those.
        fn sign(&self, line: &str, flags: u8, said: u8) -> String {
            let counter = 7u32.to_be_bytes();
            let message = SshSig::signed_data(NAMESPACE, HashAlg::Sha256, line.as_bytes()).unwrap();
            let (application, message) = (Sha256::digest(APPLICATION), Sha256::digest(&message));
            let signed = [application.as_slice(), &[flags], &counter, message.as_slice()].concat();
            let inner: Signature = self.inner.try_sign(&signed).unwrap();
            let data = [inner.as_bytes(), &[said], &counter].concat();
            let signature = Signature::new(self.algorithm.clone(), data).unwrap();
            let public = PublicKey::from_openssh(&self.holder().ssh_keys[0]).unwrap();
            let whole = SshSig::new(public.key_data().clone(), NAMESPACE, HashAlg::Sha256, signature).unwrap();
            whole.to_pem(LineEnding::LF).unwrap()
        }
    }

    #[test]
    fn a_security_key_counts_only_if_it_was_touched_and_says_so_itself() {
        /// Verified by a PIN or a finger, too.
        const VERIFIED: u8 = 0x04;
        for algorithm in [Algorithm::SkEd25519, Algorithm::SkEcdsaSha2NistP256] {
            let token = Token::new(algorithm.clone());
            let dave = token.holder();
            for flags in [TOUCHED, TOUCHED | VERIFIED] {
                let signed = token.sign("a line\n", flags, flags);
                assert!(check(&dave, NAMESPACE, "a line", &signed).is_ok(), "{algorithm} {flags}");
                assert_eq!(check(&dave, NAMESPACE, "another line", &signed), Err(Unsigned::Other), "{algorithm}");
            }
            for flags in [0, VERIFIED] {
                let untouched = token.sign("a line", flags, flags);
                assert_eq!(check(&dave, NAMESPACE, "a line", &untouched), Err(Unsigned::Untouched), "{algorithm}");
            }
            let touched = token.sign("a line", TOUCHED, TOUCHED);
            assert!(check(&dave, NAMESPACE, "a line", &touched).unwrap().touched());
            let elsewhere = check(&dave, "tidegate-mfa", "a line", &touched);
            assert_eq!(elsewhere, Err(Unsigned::Namespace("tidegate-mfa")), "{algorithm}");
            let forged = token.sign("a line", 0, TOUCHED);
            assert_eq!(
                check(&dave, NAMESPACE, "a line", &forged),
                Err(Unsigned::Other),
                "{algorithm}: it was not touched"
            );
            let others = Token::new(algorithm.clone()).holder();
            let signed = token.sign("a line", TOUCHED, TOUCHED);
            assert_eq!(check(&others, NAMESPACE, "a line", &signed), Err(Unsigned::Key), "{algorithm}");
        }
    }
}
