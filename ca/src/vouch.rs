//! Whether an SSH certificate that a peer shows was made by an authority that we trust (OpenSSH `PROTOCOL.certkeys`).
//!
//! One mechanism for both kinds: a target's host certificate and a person's user certificate. Pure: time and authorities
//! are arguments. What always holds: an authority is a plain key out of the configuration and never itself a certificate
//! (Teleport CVE-2025-49825); nothing rests on SHA-1; and what the caller must still look at (principals and critical
//! options) is not looked at here, because it differs by kind.

use jiff::Timestamp;
use ssh_key::{Algorithm, Certificate, HashAlg, PublicKey, certificate::CertType, public::KeyData};

/// Shorter RSA keys are refused, in certificates as in the configuration.
const SHORTEST_RSA: usize = 2048;

/// Why nobody vouches for a certificate. The texts are for the ledger and for admins.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unvouched {
    /// A host certificate where a user's is wanted, or the other way round.
    #[error("it is a {found} certificate, not a {wanted} certificate")]
    WrongType {
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// Signed by a key that is not one of ours to trust.
    #[error("its certificate authority {0} is not in the configuration")]
    UnknownAuthority(String),
    /// Its own key, or the signature on it, is of a kind that is not accepted.
    #[error("it rests on {0}, which is not accepted")]
    Weak(String),
    /// The authority's signature does not fit.
    #[error("its authority's signature is wrong")]
    BadSignature,
    /// Before its time.
    #[error("it is not valid before {0}")]
    NotYetValid(String),
    /// Past its time.
    #[error("it was valid until {0}")]
    Expired(String),
}

/// Whether one of `authorities` says, now, that this is a certificate of this kind.
///
/// # Errors
/// [`Unvouched`]: no.
pub fn vouch(
    certificate: &Certificate,
    kind: CertType,
    authorities: &[PublicKey],
    now: Timestamp,
) -> Result<(), Unvouched> {
    if certificate.cert_type() != kind {
        return Err(Unvouched::WrongType { found: word(certificate.cert_type()), wanted: word(kind) });
    }
    let authority = certificate.signature_key();
    if matches!(authority, KeyData::Certificate(_)) || !authorities.iter().any(|known| known.key_data() == authority) {
        return Err(Unvouched::UnknownAuthority(authority.fingerprint(HashAlg::Sha256).to_string()));
    }
    strong(&certificate.signature().algorithm())?;
    sound(certificate.public_key())?;
    certificate.verify_signature().map_err(|_| Unvouched::BadSignature)?;
    // valid after <= now < valid before, in whole seconds since 1970.
    let second = u64::try_from(now.as_second()).unwrap_or(0);
    if second < certificate.valid_after() {
        return Err(Unvouched::NotYetValid(moment(certificate.valid_after())));
    }
    if second >= certificate.valid_before() {
        return Err(Unvouched::Expired(moment(certificate.valid_before())));
    }
    Ok(())
}

/// No SHA-1, no DSA, nothing unknown.
fn strong(algorithm: &Algorithm) -> Result<(), Unvouched> {
    match algorithm {
        Algorithm::Ed25519
        | Algorithm::Ecdsa { .. }
        | Algorithm::Rsa { hash: Some(_) }
        | Algorithm::SkEd25519
        | Algorithm::SkEcdsaSha2NistP256 => Ok(()),
        Algorithm::Rsa { hash: None } => Err(Unvouched::Weak("an ssh-rsa signature (SHA-1)".to_owned())),
        other => Err(Unvouched::Weak(other.to_string())),
    }
}

/// The certified key itself.
fn sound(key: &KeyData) -> Result<(), Unvouched> {
    match key {
        KeyData::Rsa(rsa) => {
            let bits = rsa.n().as_positive_bytes().map_or(0, |n| n.len() * 8);
            if bits < SHORTEST_RSA { Err(Unvouched::Weak(format!("an RSA key of {bits} bits"))) } else { Ok(()) }
        }
        KeyData::Ed25519(_) | KeyData::Ecdsa(_) | KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_) => Ok(()),
        other => Err(Unvouched::Weak(other.algorithm().to_string())),
    }
}

fn word(kind: CertType) -> &'static str {
    match kind {
        CertType::User => "user",
        CertType::Host => "host",
    }
}

fn moment(second: u64) -> String {
    let at = i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok());
    at.map_or_else(|| "the end of time".to_owned(), |at| at.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use ssh_key::{PrivateKey, certificate::Builder, getrandom::SysRng, private::RsaKeypair, rand_core::UnwrapErr};

    const NOW: i64 = 1_800_000_000;

    fn key() -> PrivateKey {
        PrivateKey::random(&mut UnwrapErr(SysRng), Algorithm::Ed25519).unwrap()
    }

    fn signed(subject: &PublicKey, kind: CertType, authority: &PrivateKey) -> Certificate {
        let (from, until) = (NOW.unsigned_abs() - 60, NOW.unsigned_abs() + 60);
        let mut builder = Builder::new_with_random_nonce(&mut UnwrapErr(SysRng), subject, from, until).unwrap();
        builder.cert_type(kind).unwrap();
        builder.valid_principal("alice").unwrap();
        builder.sign(authority).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_certificate_is_vouched_for_by_its_own_authority_in_its_own_time_and_kind() {
        let (authority, other) = (key(), key());
        let certificate = signed(key().public_key(), CertType::User, &authority);
        let ours = [other.public_key().clone(), authority.public_key().clone()];
        let ask = |kind, authorities: &[PublicKey], second| vouch(&certificate, kind, authorities, at(second));
        assert_eq!(ask(CertType::User, &ours, NOW), Ok(()));
        assert_eq!(ask(CertType::User, &ours, NOW - 60), Ok(()));
        assert!(matches!(ask(CertType::User, &ours, NOW - 61), Err(Unvouched::NotYetValid(_))));
        assert!(matches!(ask(CertType::User, &ours, NOW + 60), Err(Unvouched::Expired(_))));
        assert!(matches!(ask(CertType::Host, &ours, NOW), Err(Unvouched::WrongType { .. })));
        assert!(matches!(ask(CertType::User, &[], NOW), Err(Unvouched::UnknownAuthority(_))));
        let stranger = [other.public_key().clone()];
        assert!(matches!(ask(CertType::User, &stranger, NOW), Err(Unvouched::UnknownAuthority(_))));
    }

    #[test]
    fn a_key_that_an_authority_certified_is_no_authority() {
        let (authority, middle) = (key(), key());
        let _middle_certificate = signed(middle.public_key(), CertType::User, &authority);
        let leaf = signed(key().public_key(), CertType::User, &middle);
        let verdict = vouch(&leaf, CertType::User, &[authority.public_key().clone()], at(NOW));
        assert!(matches!(verdict, Err(Unvouched::UnknownAuthority(_))), "{verdict:?}");
    }

    #[test]
    fn every_flipped_byte_of_a_certificate_is_refused() {
        let authority = key();
        let whole = signed(key().public_key(), CertType::User, &authority).to_bytes().unwrap();
        let ours = [authority.public_key().clone()];
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 1;
            }
            let taken =
                Certificate::from_bytes(&bytes).is_ok_and(|c| vouch(&c, CertType::User, &ours, at(NOW)).is_ok());
            assert!(!taken, "byte {place}");
        }
    }

    #[test]
    fn an_rsa_authority_signs_with_sha2_and_short_rsa_keys_are_refused() {
        let rsa = PrivateKey::from(RsaKeypair::random(&mut UnwrapErr(SysRng), 2048).unwrap());
        let certificate = signed(key().public_key(), CertType::User, &rsa);
        assert_eq!(vouch(&certificate, CertType::User, &[rsa.public_key().clone()], at(NOW)), Ok(()));
        assert!(strong(&Algorithm::Rsa { hash: None }).is_err() && strong(&Algorithm::Dsa).is_err());
        let authority = key();
        let short = PrivateKey::from(RsaKeypair::random(&mut UnwrapErr(SysRng), 1024).unwrap());
        let certificate = signed(short.public_key(), CertType::User, &authority);
        let verdict = vouch(&certificate, CertType::User, &[authority.public_key().clone()], at(NOW));
        assert!(matches!(verdict, Err(Unvouched::Weak(_))), "{verdict:?}");
    }
}
