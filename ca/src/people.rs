//! Certificates for people: minutes long, for the gateway's own PostgreSQL door, on keys that the people made.
//!
//! What always holds: their CA has a key and a file of its own, so that a person's certificate is nothing to a target, and
//! a session's certificate is nothing at the door. A certificate holds what we write into it: of a request only the
//! public key is taken, and only once its self-signature proved that whoever asks has the private one. A certificate
//! alone opens nothing; it says who somebody is.

use crate::{CaError, x509::X509Authority};
use jiff::Timestamp;
use rcgen::SubjectPublicKeyInfo;
use rustls::{
    CertificateError, DistinguishedName, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, CertificateSigningRequestDer, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use std::{fmt, sync::Arc, time::Duration};
use x509_parser::{
    certification_request::X509CertificationRequest,
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_PKCS1_SHA256WITHRSA,
        OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384,
        OID_SIG_ED25519,
    },
    prelude::{FromDer, X509Certificate},
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo as ParsedKey,
};

/// Longest request that is looked at: one for an RSA key of 8192 bits has some 3 KiB.
pub const LONGEST_REQUEST: usize = 16 << 10;

/// Why a request gets no certificate. The texts are for the person.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Not a PKCS#10 request in PEM (RFC 2986, RFC 7468 section 7).
    #[error("that is no certificate request (PKCS#10, in PEM)")]
    Malformed,
    /// Whoever asks did not show that they have the private key.
    #[error(
        "the request is not signed with its own key by SHA-256 or better (for RSA by PKCS #1 v1.5, which openssl does unless told otherwise)"
    )]
    Signature,
    /// A key that is too weak, or that PostgreSQL's clients cannot use.
    #[error("its key is of no kind that is certified here: P-256, P-384, Ed25519, or RSA of 2048 to 8192 bits")]
    Key,
    /// We could not sign.
    #[error(transparent)]
    Ours(#[from] CaError),
}

/// Why a certificate that a client presented does not say who it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PresentedError {
    /// Not made here. It is nobody's, and no fault: clients send what they have.
    #[error("the certificate is not of this gateway")]
    Foreign,
    /// It has ended.
    #[error("your certificate expired at {0}")]
    Expired(Timestamp),
    /// Made here, and yet not good: e.g. for another purpose.
    #[error("your certificate is not good here: {0}")]
    Unusable(String),
}

/// A certificate that was made for a person.
#[derive(Debug, Clone)]
pub struct PersonCertificate {
    /// PEM.
    pub pem: String,
    /// Serial number, hex, for the ledger.
    pub serial: String,
}

/// Who a presented certificate says that somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The common name: an identity's.
    pub name: String,
    /// Serial number, hex.
    pub serial: String,
}

/// The CA of people's certificates.
pub struct PeopleAuthority {
    authority: X509Authority,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for PeopleAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeopleAuthority").finish_non_exhaustive()
    }
}

impl PeopleAuthority {
    /// When it ends.
    pub fn ends(&self) -> Option<Timestamp> {
        self.authority.ends()
    }

    /// With this key and certificate.
    ///
    /// # Errors
    /// [`CaError::Sign`] if its certificate cannot be trusted for this.
    pub fn new(authority: X509Authority) -> Result<Self, CaError> {
        let sign = |error: &dyn fmt::Display| CaError::Sign(error.to_string());
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().clone()).map_err(|error| sign(&error))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        Ok(Self { authority, verifier: verifier.map_err(|error| sign(&error))? })
    }

    /// Its certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        self.authority.certificate_pem()
    }

    /// The name that a client is told to look for among its certificates.
    pub fn hints(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    /// A certificate for this identity on the key of `request` (PEM); whatever else the request says is not taken over.
    ///
    /// # Errors
    /// [`RequestError`]
    pub fn certify(
        &self,
        request: &[u8],
        identity: &str,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<PersonCertificate, RequestError> {
        let der = Some(request).filter(|request| request.len() <= LONGEST_REQUEST);
        let der = der.and_then(|request| CertificateSigningRequestDer::from_pem_slice(request).ok());
        let der = der.ok_or(RequestError::Malformed)?;
        let (rest, parsed) = X509CertificationRequest::from_der(&der).map_err(|_| RequestError::Malformed)?;
        if !rest.is_empty() {
            return Err(RequestError::Malformed);
        }
        let key = &parsed.certification_request_info.subject_pki;
        if !is_usable(key) {
            return Err(RequestError::Key);
        }
        if !is_strong(&parsed) || parsed.verify_signature().is_err() {
            return Err(RequestError::Signature);
        }
        let key = SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| RequestError::Key)?;
        let (pem, serial) = self.authority.certify(&key, identity, from, until)?;
        Ok(PersonCertificate { pem, serial })
    }

    /// Whether we signed this, whatever it says: only then does it matter who holds its key.
    pub fn made(&self, certificate: &CertificateDer<'_>) -> bool {
        self.parse(certificate).is_some()
    }

    fn parse<'a>(&self, certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
        let (rest, parsed) = X509Certificate::from_der(certificate).ok()?;
        let (_, ours) = X509Certificate::from_der(self.authority.certificate()).ok()?;
        let signed = parsed.issuer().as_raw() == ours.subject().as_raw()
            && parsed.verify_signature(Some(ours.public_key())).is_ok();
        (rest.is_empty() && signed).then_some(parsed)
    }

    /// Who a certificate says that its holder is, now. That they hold its key is for TLS to have proven.
    ///
    /// # Errors
    /// [`PresentedError`]
    pub fn person(&self, certificate: &CertificateDer<'_>, now: Timestamp) -> Result<Person, PresentedError> {
        let parsed = self.parse(certificate).ok_or(PresentedError::Foreign)?;
        let unusable = |why: &dyn fmt::Display| PresentedError::Unusable(why.to_string());
        let since = u64::try_from(now.as_second()).map_err(|error| unusable(&error))?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(since));
        let expired = || {
            let at = Timestamp::from_second(parsed.validity().not_after.timestamp());
            PresentedError::Expired(at.unwrap_or(now))
        };
        self.verifier.verify_client_cert(certificate, &[], at).map_err(|error| match error {
            rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                expired()
            }
            other => unusable(&other),
        })?;
        let mut names = parsed.subject().iter_common_name();
        match (names.next().map(|name| name.as_str()), names.next()) {
            (Some(Ok(name)), None) => {
                let serial = parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
                Ok(Person { name: name.to_owned(), serial })
            }
            _ => Err(unusable(&"it does not name one person")),
        }
    }
}

/// What libpq can log in with, and no weaker than that.
fn is_usable(key: &ParsedKey<'_>) -> bool {
    let algorithm = &key.algorithm;
    let curve = || algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    if algorithm.algorithm == OID_PKCS1_RSAENCRYPTION {
        return matches!(key.parsed(), Ok(PublicKey::RSA(rsa)) if (2048..=8192).contains(&rsa.key_size()));
    }
    if algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        return curve().is_some_and(|curve| curve == OID_EC_P256 || curve == OID_NIST_EC_P384);
    }
    algorithm.algorithm == OID_SIG_ED25519
}

fn is_strong(request: &X509CertificationRequest<'_>) -> bool {
    let strong = [
        OID_PKCS1_SHA256WITHRSA,
        OID_PKCS1_SHA384WITHRSA,
        OID_PKCS1_SHA512WITHRSA,
        OID_SIG_ECDSA_WITH_SHA256,
        OID_SIG_ECDSA_WITH_SHA384,
        OID_SIG_ED25519,
    ];
    strong.contains(&request.signature_algorithm.algorithm)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
        PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256, SignatureAlgorithm,
    };
    use secrecy::ExposeSecret as _;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn after(seconds: i64) -> Timestamp {
        now() + SignedDuration::from_secs(seconds)
    }

    fn authority(name: &str) -> X509Authority {
        let (key, certificate) = X509Authority::generate(name, now()).unwrap();
        X509Authority::from_pem(key.expose_secret(), &certificate).unwrap()
    }

    fn people() -> PeopleAuthority {
        PeopleAuthority::new(authority("gate people")).unwrap()
    }

    fn request(algorithm: &'static SignatureAlgorithm) -> String {
        CertificateParams::default()
            .serialize_request(&KeyPair::generate_for(algorithm).unwrap())
            .unwrap()
            .pem()
            .unwrap()
    }

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    #[test]
    fn a_person_is_known_by_their_certificate_until_it_ends() {
        let people = people();
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519, &PKCS_RSA_SHA256] {
            let made = people.certify(request(algorithm).as_bytes(), "alice", now(), after(600)).unwrap();
            let person = people.person(&der(&made.pem), after(599)).unwrap();
            assert_eq!((person.name.as_str(), person.serial), ("alice", made.serial));
            assert_eq!(people.person(&der(&made.pem), after(601)), Err(PresentedError::Expired(after(600))));
            assert!(matches!(people.person(&der(&made.pem), after(-3600)), Err(PresentedError::Unusable(_))));
        }
    }

    #[test]
    fn of_a_request_only_its_key_is_taken() {
        let mut params = CertificateParams::new(vec!["gate.example.com".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.distinguished_name.push(rcgen::DnType::CommonName, "root");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let made = people().certify(request.as_bytes(), "alice", now(), after(600)).unwrap();
        let made = der(&made.pem);
        let (_, leaf) = X509Certificate::from_der(&made).unwrap();
        assert_eq!(leaf.subject().to_string(), "CN=alice");
        assert!(!leaf.is_ca() && leaf.subject_alternative_name().unwrap().is_none());
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert_eq!(leaf.public_key().subject_public_key.data, key.public_key_raw());
    }

    #[test]
    fn requests_that_prove_nothing_or_hold_another_key_are_refused() {
        let people = people();
        let certify = |pem: &str| people.certify(pem.as_bytes(), "alice", now(), after(600));
        assert!(matches!(certify(&request(&PKCS_ECDSA_P521_SHA512)), Err(RequestError::Key)));
        let good = request(&PKCS_ECDSA_P256_SHA256);
        let whole = CertificateSigningRequestDer::from_pem_slice(good.as_bytes()).unwrap().to_vec();
        // What is signed (RFC 2986, section 4.2: the first element) and the last bytes of the signature. Between them there are an
        // algorithm's name, lengths and a count of bits, which say nothing: some readers are lenient about their tags.
        let [0x30, 0x81, _, 0x30, 0x81, signed, ..] = whole[..] else { unreachable!("another length") };
        for place in (0..6 + usize::from(signed)).chain(whole.len() - 60..whole.len()) {
            let mut bad = whole.clone();
            bad[place] ^= 1;
            let base64: String = base64_of(&bad);
            let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{base64}\n-----END CERTIFICATE REQUEST-----\n");
            assert!(certify(&pem).is_err(), "byte {place} flipped, and certified");
        }
        let long = format!("{}{good}", " ".repeat(LONGEST_REQUEST));
        for wrong in ["", "-----BEGIN CERTIFICATE REQUEST-----", people.certificate_pem(), &long] {
            assert!(matches!(certify(wrong), Err(RequestError::Malformed)));
        }
    }

    fn base64_of(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digit = |n: u32| char::from(DIGITS[(n & 63) as usize]);
        let mut text = String::new();
        for three in bytes.chunks(3) {
            let n = (0..3).fold(0, |n, i| n << 8 | u32::from(*three.get(i).unwrap_or(&0)));
            let four = [digit(n >> 18), digit(n >> 12), digit(n >> 6), digit(n)];
            text.extend(four.iter().take(three.len() + 1));
            text.extend(std::iter::repeat_n('=', 3 - three.len()));
        }
        text
    }

    #[test]
    fn a_certificate_with_any_bit_changed_is_nobodys() {
        let people = people();
        let made = people.certify(request(&PKCS_ECDSA_P256_SHA256).as_bytes(), "alice", now(), after(600)).unwrap();
        let whole = der(&made.pem).to_vec();
        for (place, bit) in (0..whole.len()).flat_map(|place| [0, 3, 7].map(|bit| (place, bit))) {
            let mut bad = whole.clone();
            bad[place] ^= 1 << bit;
            assert!(people.person(&CertificateDer::from(bad), after(1)).is_err(), "bit {bit} of byte {place}");
        }
        for length in 0..whole.len() {
            assert!(people.person(&CertificateDer::from(whole[..length].to_vec()), after(1)).is_err());
        }
    }

    #[test]
    fn what_another_authority_made_is_foreign_even_under_the_same_name() {
        let people = people();
        let targets = authority("gate").client("alice", now(), after(600)).unwrap();
        let [leaf, ca] = targets.chain.as_slice() else { unreachable!() };
        let twin = PeopleAuthority::new(authority("gate people")).unwrap();
        let forged = twin.certify(request(&PKCS_ED25519).as_bytes(), "alice", now(), after(600)).unwrap();
        for foreign in [leaf.clone(), ca.clone(), der(&forged.pem), CertificateDer::from(vec![0x30, 3, 1, 2, 3])] {
            assert!(!people.made(&foreign));
            assert_eq!(people.person(&foreign, after(1)), Err(PresentedError::Foreign));
        }
        // Its own certificate is self-signed with the same key, and still nobody.
        assert!(matches!(people.person(&der(people.certificate_pem()), after(1)), Err(PresentedError::Unusable(_))));
    }
}
