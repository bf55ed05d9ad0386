//! Lists of revoked keys and certificates, as sshd's `RevokedKeys` takes them: a KRL as `ssh-keygen -k` writes it (OpenSSH
//! `PROTOCOL.krl`), or public keys, one a line.
//!
//! Pure. What always holds: a list that cannot be understood whole is an error and not a shorter list, so that its reader can
//! deny; nothing is allocated by a claimed length, since every length is checked against the bytes that are there. A KRL
//! that carries signatures is an error too: OpenSSH no longer writes or checks them, and we could not either.

use sha1::{Digest as _, Sha1};
use ssh_key::{Certificate, HashAlg, PublicKey, public::KeyData};
use std::collections::HashSet;

/// `SSHKRL\n\0`
const MAGIC: &[u8] = b"SSHKRL\n\0";
/// The only format version that there is.
const VERSION: u32 = 1;

/// Why a list cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevokedError {
    /// A KRL that ends before it should, or has what this version does not know.
    #[error("not a KRL that can be read: {0}")]
    Krl(&'static str),
    /// A line of a list of keys.
    #[error("line {0} is not an OpenSSH public key")]
    Line(usize),
}

/// What is revoked.
#[derive(Debug, Clone, Default)]
pub struct Revoked {
    /// Public keys in wire form.
    keys: HashSet<Vec<u8>>,
    /// SHA-1 of public keys in wire form. Only a name for the key here: it can revoke more than was meant, never less.
    sha1: HashSet<Vec<u8>>,
    sha256: HashSet<Vec<u8>>,
    certificates: Vec<OfAuthority>,
}

/// Certificates of one authority, or of any.
#[derive(Debug, Clone, Default)]
struct OfAuthority {
    /// In wire form; `None`: any.
    authority: Option<Vec<u8>>,
    /// From and to, both inclusive.
    serials: Vec<(u64, u64)>,
    bitmaps: Vec<Bitmap>,
    key_ids: HashSet<Vec<u8>>,
}

/// Serials by a bit each: `offset` is the lowest bit of the last byte.
#[derive(Debug, Clone)]
struct Bitmap {
    offset: u64,
    bits: Vec<u8>,
}

impl Bitmap {
    fn has(&self, serial: u64) -> bool {
        let Some(place) = serial.checked_sub(self.offset) else { return false };
        let (Ok(byte), bit) = (usize::try_from(place / 8), place % 8) else { return false };
        self.bits.iter().rev().nth(byte).is_some_and(|byte| byte >> bit & 1 == 1)
    }
}

impl Revoked {
    /// Reads either form.
    ///
    /// # Errors
    /// [`RevokedError`]: not understood whole.
    pub fn parse(file: &[u8]) -> Result<Self, RevokedError> {
        if file.starts_with(MAGIC) { krl(Bytes(file)) } else { lines(file) }
    }

    /// Whether this key is revoked, by itself or by a fingerprint.
    pub fn has_key(&self, key: &KeyData) -> bool {
        let Ok(blob) = PublicKey::from(key.clone()).to_bytes() else { return true };
        self.keys.contains(&blob)
            || self.sha256.contains(key.fingerprint(HashAlg::Sha256).as_bytes())
            || self.sha1.contains(Sha1::digest(&blob).as_slice())
    }

    /// Whether this certificate is revoked: its key, its authority's key, its serial or its key id.
    pub fn has_certificate(&self, certificate: &Certificate) -> bool {
        let Ok(authority) = PublicKey::from(certificate.signature_key().clone()).to_bytes() else { return true };
        let of_it = |of: &&OfAuthority| of.authority.as_ref().is_none_or(|known| *known == authority);
        self.has_key(certificate.public_key())
            || self.has_key(certificate.signature_key())
            || self.certificates.iter().filter(of_it).any(|of| of.has(certificate.serial(), certificate.key_id()))
    }
}

impl OfAuthority {
    /// Serial 0 means that the authority does not number its certificates.
    fn has(&self, serial: u64, key_id: &str) -> bool {
        let numbered = || {
            self.serials.iter().any(|(from, to)| (*from..=*to).contains(&serial))
                || self.bitmaps.iter().any(|bitmap| bitmap.has(serial))
        };
        self.key_ids.contains(key_id.as_bytes()) || (serial != 0 && numbered())
    }

    fn range(&mut self, from: u64, to: u64) -> Result<(), RevokedError> {
        if from == 0 || from > to {
            return Err(RevokedError::Krl("a range of serials that is none"));
        }
        self.serials.push((from, to));
        Ok(())
    }
}

/// Public keys, one a line; blank lines and comments are passed over.
fn lines(file: &[u8]) -> Result<Revoked, RevokedError> {
    let mut revoked = Revoked::default();
    for (number, line) in file.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let key = std::str::from_utf8(line).ok().and_then(|line| PublicKey::from_openssh(line).ok());
        let known = key.filter(|key| !matches!(key.key_data(), KeyData::Certificate(_) | KeyData::Other(_)));
        let blob = known.and_then(|key| key.to_bytes().ok()).ok_or(RevokedError::Line(number + 1))?;
        revoked.keys.insert(blob);
    }
    Ok(revoked)
}

/// What is left to read.
#[derive(Debug, Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

const SHORT: RevokedError = RevokedError::Krl("it ends too early");

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], RevokedError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, RevokedError> {
        self.take(1)?.first().copied().ok_or(SHORT)
    }

    fn u32(&mut self) -> Result<u32, RevokedError> {
        self.take(4)?.try_into().map(u32::from_be_bytes).map_err(|_| SHORT)
    }

    fn u64(&mut self) -> Result<u64, RevokedError> {
        self.take(8)?.try_into().map(u64::from_be_bytes).map_err(|_| SHORT)
    }

    /// RFC 4251 section 5: a length of four bytes, and as many bytes.
    fn string(&mut self) -> Result<Bytes<'a>, RevokedError> {
        let length = usize::try_from(self.u32()?).map_err(|_| SHORT)?;
        self.take(length).map(Bytes)
    }

    fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

fn krl(mut file: Bytes<'_>) -> Result<Revoked, RevokedError> {
    let mut revoked = Revoked::default();
    file.take(MAGIC.len())?;
    if file.u32()? != VERSION {
        return Err(RevokedError::Krl("its format version is not 1"));
    }
    let _ = (file.u64()?, file.u64()?, file.u64()?); // version of the list, date, flags
    let _ = (file.string()?, file.string()?); // reserved, comment
    while !file.is_empty() {
        let (kind, mut section) = (file.byte()?, file.string()?);
        match kind {
            1 => revoked.certificates.push(certificates(section)?),
            2 => blobs(&mut section, &mut revoked.keys, None)?,
            3 => blobs(&mut section, &mut revoked.sha1, Some(20))?,
            5 => blobs(&mut section, &mut revoked.sha256, Some(32))?,
            4 => {
                return Err(RevokedError::Krl(
                    "it is signed, and signatures of KRLs are not checked here: write it without",
                ));
            }
            255 => extension(section)?,
            _ => return Err(RevokedError::Krl("a section of an unknown kind")),
        }
    }
    Ok(revoked)
}

/// Strings to the end of a section, each of this length if one is given.
fn blobs(section: &mut Bytes<'_>, into: &mut HashSet<Vec<u8>>, length: Option<usize>) -> Result<(), RevokedError> {
    while !section.is_empty() {
        let blob = section.string()?.0;
        if length.is_some_and(|length| length != blob.len()) || blob.is_empty() {
            return Err(RevokedError::Krl("a key or fingerprint of a wrong length"));
        }
        into.insert(blob.to_vec());
    }
    Ok(())
}

fn certificates(mut section: Bytes<'_>) -> Result<OfAuthority, RevokedError> {
    let authority = section.string()?.0;
    let _reserved = section.string()?;
    let mut of =
        OfAuthority { authority: (!authority.is_empty()).then(|| authority.to_vec()), ..OfAuthority::default() };
    while !section.is_empty() {
        let (kind, mut part) = (section.byte()?, section.string()?);
        match kind {
            0x20 => {
                while !part.is_empty() {
                    let serial = part.u64()?;
                    of.range(serial, serial)?;
                }
            }
            0x21 => of.range(part.u64()?, part.u64()?)?,
            0x22 => of.bitmaps.push(Bitmap { offset: part.u64()?, bits: part.string()?.0.to_vec() }),
            0x23 => blobs(&mut part, &mut of.key_ids, None)?,
            0x39 => {
                extension(part)?;
                continue;
            }
            _ => return Err(RevokedError::Krl("certificates listed in an unknown way")),
        }
        if !part.is_empty() {
            return Err(RevokedError::Krl("more bytes than it should have"));
        }
    }
    Ok(of)
}

/// Passed over, unless it says that it may not be.
fn extension(mut section: Bytes<'_>) -> Result<(), RevokedError> {
    let (_name, critical, _contents) = (section.string()?, section.byte()?, section.string()?);
    if critical != 0 { Err(RevokedError::Krl("an unknown extension that is critical")) } else { Ok(()) }
}

#[cfg(test)]
#[path = "revoked_tests.rs"]
mod tests;
