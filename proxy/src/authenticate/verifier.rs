//! SCRAM verifiers (RFC 5802 section 3, RFC 7677) in PostgreSQL's text form (chapter 53.8, `pg_authid.rolpassword`).
//!
//! A verifier lets its holder check a password and nothing else: neither the password nor what proves it follows
//! from it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use std::fmt;
use subtle::ConstantTimeEq as _;

/// PostgreSQL's default. Our passwords are random, so more rounds would add nothing.
pub const ITERATIONS: u32 = 4096;
/// Length of SHA-256.
pub type Hash = [u8; 32];

/// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`.
#[derive(Clone)]
pub struct Verifier {
    /// Sent to whoever wants to log in.
    pub salt: Vec<u8>,
    /// Likewise.
    pub iterations: u32,
    stored_key: Hash,
    server_key: Hash,
}

/// HMAC-SHA-256.
pub fn hmac(key: &[u8], parts: &[&[u8]]) -> Hash {
    // HMAC takes keys of any length (RFC 2104 section 3), so the error arm hashes nothing and matches nothing.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Hash::default() };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

impl Verifier {
    /// For a password of ASCII alone, which SASLprep (RFC 4013) leaves as it is.
    pub fn new(password: &str, salt: Vec<u8>) -> Self {
        let mut salted = Hash::default();
        pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), &salt, ITERATIONS, &mut salted);
        let stored_key = Sha256::digest(hmac(&salted, &[b"Client Key"])).into();
        let server_key = hmac(&salted, &[b"Server Key"]);
        Self { salt, iterations: ITERATIONS, stored_key, server_key }
    }

    /// One that no password fits, for names that are unknown: `noise` is random.
    pub fn unmatched(salt: Vec<u8>, noise: Hash) -> Self {
        Self { salt, iterations: ITERATIONS, stored_key: noise, server_key: noise }
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Option<Self> {
        let (rounds, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = rounds.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let hash = |text: &str| Hash::try_from(STANDARD.decode(text).ok()?).ok();
        Some(Self {
            salt: STANDARD.decode(salt).ok()?,
            iterations: iterations.parse().ok()?,
            stored_key: hash(stored)?,
            server_key: hash(server)?,
        })
    }

    /// Whether `proof` was made by one who knows the password, for this exchange (RFC 5802 section 3). Takes the same
    /// time whatever the answer.
    pub fn proves(&self, proof: &Hash, exchange: &[&[u8]]) -> bool {
        let signature = hmac(&self.stored_key, exchange);
        let mut client_key = *proof;
        client_key.iter_mut().zip(signature).for_each(|(byte, mask)| *byte ^= mask);
        let stored: Hash = Sha256::digest(client_key).into();
        stored.ct_eq(&self.stored_key).into()
    }

    /// What proves to the client that we hold the verifier.
    pub fn server_signature(&self, exchange: &[&[u8]]) -> Hash {
        hmac(&self.server_key, exchange)
    }

    /// The text form, as it is stored.
    pub fn to_text(&self) -> String {
        let [salt, stored, server] = [&self.salt[..], &self.stored_key, &self.server_key].map(|b| STANDARD.encode(b));
        format!("SCRAM-SHA-256${}:{salt}${stored}:{server}", self.iterations)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn verifier_is_the_one_of_rfc_7677() {
        // RFC 7677 section 3: user, pencil.
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::new("pencil", salt);
        let exchange = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let exchange: &[&[u8]] = &[exchange.as_bytes()];
        let proof = STANDARD.decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=").unwrap();
        assert!(verifier.proves(&proof.try_into().unwrap(), exchange));
        assert!(!verifier.proves(&[0; 32], exchange));
        let signature = STANDARD.encode(verifier.server_signature(exchange));
        assert_eq!(signature, "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn text_form_is_the_one_of_postgresql() {
        let verifier = Verifier::new("secret", vec![7; 16]);
        let read = Verifier::parse(&verifier.to_text()).unwrap();
        assert_eq!(read.to_text(), verifier.to_text());
        assert!(postgres_protocol::password::scram_sha_256(b"x").starts_with("SCRAM-SHA-256$4096:"));
        assert!(Verifier::parse(&postgres_protocol::password::scram_sha_256(b"x")).is_some());
        for wrong in ["", "SCRAM-SHA-256$4096:AA==", "md5abc", "SCRAM-SHA-256$x:AA==$AA==:AA=="] {
            assert!(Verifier::parse(wrong).is_none());
        }
    }
}
