//! The data keys of a recording, wrapped with `age` for the auditors, and the auditors' own keys.
//!
//! What always holds: a data key lives in memory only inside a cipher or a zeroized buffer, and leaves it only wrapped.

use crate::{RecordError, verify::ReadError};
use age::{Encryptor, x25519};
use base64::{Engine, prelude::BASE64_STANDARD};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};
use std::{
    fmt, fs,
    io::{Read, Write},
    path::Path,
};
use zeroize::Zeroizing;

/// The most that an identity file can be.
const MAX_IDENTITY_FILE: u64 = 64 * 1024;
/// A wrapped key is some 200 bytes per recipient.
const MAX_WRAPPED: usize = 256 * 1024;

/// A fresh auditor's identity: the `AGE-SECRET-KEY-…` text, and the `age1…` public key.
pub fn generate_identity() -> (SecretString, String) {
    let identity = x25519::Identity::generate();
    (identity.to_string(), identity.to_public().to_string())
}

/// Why an identity file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(String);

/// The key that a part of a recording is sealed under.
pub(crate) struct DataKey(Zeroizing<[u8; 32]>);

impl DataKey {
    fn random() -> Result<Self, RecordError> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(key.as_mut_slice()).map_err(|error| RecordError::Write(error.to_string()))?;
        Ok(Self(key))
    }

    pub(crate) fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new((&*self.0).into())
    }

    /// A key for another purpose, which says nothing about this one.
    pub(crate) fn derive(&self, purpose: &[u8], salt: &[u8]) -> Self {
        let hash = Sha256::new().chain_update(purpose).chain_update(*self.0).chain_update(salt).finalize();
        Self(Zeroizing::new(hash.into()))
    }

    /// For whoever wraps or keeps it.
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<&[u8; 32]> for DataKey {
    fn from(bytes: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*bytes))
    }
}

/// Private keys of an auditor, read from an identity file.
pub struct Identities(Vec<Box<dyn age::Identity>>);

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identities({})", self.0.len())
    }
}

impl Identities {
    /// From a file of `AGE-SECRET-KEY-…` lines, or an unencrypted OpenSSH ed25519 private key.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        let fault = |error: std::io::Error| KeyError(format!("{}: {error}", path.display()));
        let mut text = Zeroizing::new(String::new());
        fs::File::open(path).and_then(|file| file.take(MAX_IDENTITY_FILE).read_to_string(&mut text)).map_err(fault)?;
        Self::parse(&SecretString::from(text.as_str()))
            .map_err(|KeyError(fault)| KeyError(format!("{}: {fault}", path.display())))
    }

    /// The same, from text.
    pub fn parse(text: &SecretString) -> Result<Self, KeyError> {
        let text = text.expose_secret();
        if text.trim_start().starts_with("-----BEGIN") {
            return Self::parse_openssh(text);
        }
        let mut identities: Vec<Box<dyn age::Identity>> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let identity: x25519::Identity =
                line.parse().map_err(|_| KeyError(format!("line {} is no AGE-SECRET-KEY", number + 1)))?;
            identities.push(Box::new(identity));
        }
        if identities.is_empty() {
            return Err(KeyError("no identity in it".to_owned()));
        }
        Ok(Self(identities))
    }

    fn parse_openssh(text: &str) -> Result<Self, KeyError> {
        match age::ssh::Identity::from_buffer(text.trim_start().as_bytes(), None) {
            Ok(identity @ age::ssh::Identity::Unencrypted(_)) => Ok(Self(vec![Box::new(identity)])),
            Ok(age::ssh::Identity::Encrypted(_)) => Err(KeyError(
                "this key has a passphrase: make a copy without one (ssh-keygen -p -f COPY), use it and remove it"
                    .to_owned(),
            )),
            _ => Err(KeyError("not an OpenSSH ed25519 private key".to_owned())),
        }
    }

    /// What was sealed by [`seal_for`], if one of these identities opens it.
    ///
    /// # Errors
    /// [`KeyError`]: it is for others, or not whole.
    pub fn open(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let decryptor = age::Decryptor::new_buffered(sealed).map_err(|_| KeyError("no age file".to_owned()))?;
        let reader = decryptor.decrypt(self.0.iter().map(AsRef::as_ref));
        let mut reader = reader.map_err(|_| KeyError("sealed for other keys than this".to_owned()))?;
        let mut plain = Zeroizing::new(Vec::new());
        reader.read_to_end(&mut plain).map_err(|error| KeyError(error.to_string()))?;
        Ok(plain)
    }

    /// The cipher of a wrapped data key, if one of these identities opens it.
    pub(crate) fn unwrap(&self, wrapped: &str) -> Result<ChaCha20Poly1305, ReadError> {
        self.data_key(wrapped).map(|key| key.cipher())
    }

    /// A wrapped data key, if one of these identities opens it.
    pub(crate) fn data_key(&self, wrapped: &str) -> Result<DataKey, ReadError> {
        if wrapped.len() > MAX_WRAPPED {
            return Err(ReadError::Header("a wrapped key is too long".to_owned()));
        }
        let sealed = BASE64_STANDARD.decode(wrapped).map_err(|error| ReadError::Header(error.to_string()))?;
        let decryptor = age::Decryptor::new_buffered(sealed.as_slice())
            .map_err(|_| ReadError::Header("a wrapped key is no age file".to_owned()))?;
        let reader = decryptor.decrypt(self.0.iter().map(AsRef::as_ref)).map_err(|_| ReadError::NoKey)?;
        let mut key = Zeroizing::new(Vec::with_capacity(32));
        reader.take(33).read_to_end(&mut key).map_err(|_| ReadError::NoKey)?;
        let key: &[u8; 32] = key
            .as_slice()
            .try_into()
            .map_err(|_| ReadError::Header("a wrapped key has the wrong length".to_owned()))?;
        Ok(DataKey::from(key))
    }
}

/// Seals bytes for these public keys (`age1…`, `ssh-ed25519 …`), as an age file.
///
/// # Errors
/// [`RecordError::Recipient`] naming the one that is none.
pub fn seal_for(recipients: &[String], plain: &[u8]) -> Result<Vec<u8>, RecordError> {
    let recipients = Recipients::parse(recipients)?;
    let write = |error: std::io::Error| RecordError::Write(error.to_string());
    let encryptor = Encryptor::with_recipients(recipients.keys.iter().map(Recipient::as_age))
        .map_err(|error| RecordError::Write(error.to_string()))?;
    let mut sealed = Vec::new();
    let mut writer = encryptor.wrap_output(&mut sealed).map_err(write)?;
    writer.write_all(plain).and_then(|()| writer.finish().map(drop)).map_err(write)?;
    Ok(sealed)
}

/// An auditor's public key.
enum Recipient {
    Age(x25519::Recipient),
    Ssh(age::ssh::Recipient),
}

impl Recipient {
    fn as_age(&self) -> &dyn age::Recipient {
        match self {
            Self::Age(recipient) => recipient,
            Self::Ssh(recipient) => recipient,
        }
    }
}

/// Those who will be able to read.
pub(crate) struct Recipients {
    keys: Vec<Recipient>,
    names: Vec<String>,
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.names.fmt(f)
    }
}

impl Recipients {
    /// Each `age1…` or `ssh-ed25519 …`; at least one.
    pub(crate) fn parse(names: &[String]) -> Result<Self, RecordError> {
        let mut keys = Vec::with_capacity(names.len());
        for name in names {
            let refused = || RecordError::Recipient(name.clone());
            let text = name.trim();
            keys.push(if text.starts_with("ssh-ed25519 ") {
                match text.parse() {
                    Ok(recipient @ age::ssh::Recipient::SshEd25519(..)) => Recipient::Ssh(recipient),
                    _ => return Err(refused()),
                }
            } else {
                Recipient::Age(text.parse().map_err(|_| refused())?)
            });
        }
        if keys.is_empty() {
            return Err(RecordError::Recipient(String::new()));
        }
        Ok(Self { keys, names: names.to_vec() })
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// A fresh data key, and the same wrapped for all of them, in base64.
    pub(crate) fn fresh_key(&self) -> Result<(DataKey, String), RecordError> {
        let key = DataKey::random()?;
        let encryptor = Encryptor::with_recipients(self.keys.iter().map(Recipient::as_age))
            .map_err(|error| RecordError::Write(error.to_string()))?;
        let mut wrapped = Vec::new();
        encryptor
            .wrap_output(&mut wrapped)
            .and_then(|mut writer| {
                writer.write_all(key.bytes())?;
                writer.finish()
            })
            .map_err(|error| RecordError::Write(error.to_string()))?;
        Ok((key, BASE64_STANDARD.encode(wrapped)))
    }
}
