//! Seals small secrets of people, the seeds of second factors, under keys of their own.
//!
//! What always holds: a seed is in the store only sealed, bound to whose it is, so that it opens nothing in somebody else's row; the
//! first key of the file seals, and each opens what it sealed, so that a new one can take over (`tidegate ca rotate mfa`).

use crate::CaError;
use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit,
    aead::{Aead, Payload},
};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use zeroize::Zeroizing;

/// Bytes of a nonce (RFC 8439 section 2.8). Random: a key seals some thousand seeds in its life.
const NONCE: usize = 12;
/// More keys than anybody needs who rotates.
const MOST_KEYS: usize = 64;

/// The keys, newest first.
pub struct SealKeys(Vec<(String, ChaCha20Poly1305)>);

impl std::fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealKeys({})", self.0.len())
    }
}

/// A line for the file of keys.
pub(crate) fn generate() -> Result<SecretString, CaError> {
    let mut key = Zeroizing::new([0u8; 32]);
    getrandom::fill(key.as_mut()).map_err(|error| CaError::Sign(error.to_string()))?;
    Ok(SecretString::from(format!("{}\n", HEXLOWER.encode(key.as_ref()))))
}

impl SealKeys {
    /// From lines of 64 hexadecimal digits, the newest first. `None`: something else is in it.
    pub(crate) fn parse(text: &SecretString) -> Option<Self> {
        let mut keys = Vec::new();
        for line in text.expose_secret().lines() {
            let bytes = Zeroizing::new(HEXLOWER.decode(line.trim().as_bytes()).ok()?);
            let cipher = ChaCha20Poly1305::new_from_slice(&bytes).ok()?;
            // A name for the key that tells nothing of it: what it makes of nothing.
            let tag = cipher.encrypt(&[0u8; NONCE].into(), b"tidegate seal key".as_slice()).ok()?;
            keys.push((HEXLOWER.encode(tag.get(tag.len().checked_sub(4)?..)?), cipher));
        }
        (1..=MOST_KEYS).contains(&keys.len()).then_some(Self(keys))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Seals a secret of `owner` under the newest key.
    ///
    /// # Errors
    /// [`CaError::Sign`]: the system has no randomness.
    pub fn seal(&self, owner: &str, secret: &SecretSlice<u8>) -> Result<String, CaError> {
        let failed = || CaError::Sign("a secret could not be sealed".to_owned());
        let (id, cipher) = self.0.first().ok_or_else(failed)?;
        let mut nonce = [0u8; NONCE];
        getrandom::fill(&mut nonce).map_err(|error| CaError::Sign(error.to_string()))?;
        let payload = Payload { msg: secret.expose_secret(), aad: owner.as_bytes() };
        let sealed = cipher.encrypt(&nonce.into(), payload).map_err(|_| failed())?;
        Ok(format!("{id}.{}", BASE64URL_NOPAD.encode(&[nonce.as_slice(), &sealed].concat())))
    }

    /// What was sealed for this owner. `None`: by a key that is not here, for somebody else, or changed.
    pub fn open(&self, owner: &str, sealed: &str) -> Option<SecretSlice<u8>> {
        let (id, rest) = sealed.split_once('.')?;
        let (_, cipher) = self.0.iter().find(|(known, _)| known == id)?;
        let bytes = BASE64URL_NOPAD.decode(rest.as_bytes()).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE)?;
        let nonce: [u8; NONCE] = nonce.try_into().ok()?;
        let plain = cipher.decrypt(&nonce.into(), Payload { msg: sealed, aad: owner.as_bytes() }).ok()?;
        Some(plain.into())
    }

    /// Whether the newest key sealed it.
    pub fn is_current(&self, sealed: &str) -> bool {
        self.0.first().is_some_and(|(id, _)| sealed.split_once('.').is_some_and(|(of, _)| of == id))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_for_its_owner_alone_and_under_older_keys_too() {
        let (old, new) = (generate().unwrap(), generate().unwrap());
        let keys = SealKeys::parse(&old).unwrap();
        let sealed = keys.seal("alice", &b"a seed".to_vec().into()).unwrap();
        assert_ne!(sealed, keys.seal("alice", &b"a seed".to_vec().into()).unwrap());
        let both = SecretString::from(format!("{}{}", new.expose_secret(), old.expose_secret()));
        let both = SealKeys::parse(&both).unwrap();
        assert_eq!(both.open("alice", &sealed).unwrap().expose_secret(), b"a seed");
        assert!(both.open("bob", &sealed).is_none() && !both.is_current(&sealed));
        let anew = both.seal("alice", &both.open("alice", &sealed).unwrap()).unwrap();
        assert!(both.is_current(&anew) && keys.open("alice", &anew).is_none());
        assert!(SealKeys::parse(&new).unwrap().open("alice", &anew).is_some());
        for at in 9..sealed.len() {
            let mut bytes = sealed.clone().into_bytes();
            for byte in bytes.iter_mut().skip(at).take(1) {
                *byte = if *byte == b'A' { b'B' } else { b'A' };
            }
            assert!(both.open("alice", &String::from_utf8(bytes).unwrap()).is_none(), "{at}");
        }
        for wrong in ["", "00", "nonsense"] {
            assert!(SealKeys::parse(&SecretString::from(wrong)).is_none(), "{wrong}");
        }
    }
}
