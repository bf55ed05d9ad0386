//! X.509 certificates: ECDSA P-256 with SHA-256 throughout, because libpq cannot bind its channel to Ed25519.
//!
//! What always holds: every certificate has its times set (the library's default is 1975 to 4096), one purpose
//! (serverAuth or clientAuth), and no leaf can sign.

use crate::CaError;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use std::time::Duration;

/// A certificate chain with its private key, as rustls takes it.
#[derive(Debug)]
pub struct TlsIdentity {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS#8.
    pub key: PrivateKeyDer<'static>,
    /// Serial number, hex, for the ledger.
    pub serial: String,
}

/// An X.509 certificate authority.
pub struct X509Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
}

impl std::fmt::Debug for X509Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("X509Authority").finish_non_exhaustive()
    }
}

/// Validity of the authority's own certificate. Leaves are bounded by their callers.
const CA_LIFE: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
/// A leaf starts this much earlier, for a peer whose clock is behind.
const CLOCK_SLACK: SignedDuration = SignedDuration::from_secs(30);

/// When a certificate ends (RFC 5280 section 4.1.2.5), in DER. `None`: it cannot be read.
pub fn ends(certificate: &[u8]) -> Option<Timestamp> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

impl X509Authority {
    /// A new key and its self-signed certificate: the private key and the certificate, both PEM.
    ///
    /// # Errors
    /// [`CaError::Sign`] if the library fails.
    pub fn generate(name: &str, now: Timestamp) -> Result<(secrecy::SecretString, String), CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(sign_error)?;
        let (mut params, _) = params(&format!("{name} tidegate CA"), now, now + CA_LIFE)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(sign_error)?;
        Ok((key.serialize_pem().into(), certificate.pem()))
    }

    /// From its private key and its certificate, both PEM.
    ///
    /// # Errors
    /// [`CaError::Sign`] if they are not an ECDSA P-256 key and a certificate.
    pub fn from_pem(key: &str, certificate_pem: &str) -> Result<Self, CaError> {
        let key = KeyPair::from_pkcs8_pem_and_sign_algo(key, &PKCS_ECDSA_P256_SHA256).map_err(sign_error)?;
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| CaError::Sign(format!("not a PEM certificate: {error}")))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(sign_error)?;
        Ok(Self { issuer, certificate, certificate_pem: certificate_pem.to_owned() })
    }

    /// Its certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// When it ends: nothing that it signed is good afterwards.
    pub fn ends(&self) -> Option<Timestamp> {
        ends(&self.certificate)
    }

    /// Its certificate.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// For the gateway's own listener: serverAuth, these DNS names or IP addresses.
    ///
    /// # Errors
    /// [`CaError::Refused`] without a name, [`CaError::Sign`] for one that is neither DNS name nor address.
    pub fn server(&self, names: &[String], from: Timestamp, until: Timestamp) -> Result<TlsIdentity, CaError> {
        let first = names.first().ok_or_else(|| CaError::Refused("a server certificate needs a name".into()))?;
        let (mut params, serial) = params(first, from, until)?;
        let names = CertificateParams::new(names.to_vec()).map_err(sign_error)?;
        params.subject_alt_names = names.subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, serial)
    }

    /// For a login on a PostgreSQL target: clientAuth, this common name.
    ///
    /// # Errors
    /// [`CaError::Refused`] where the name is empty, longer than 63 bytes (PostgreSQL's longest role name) or not plain.
    pub fn client(&self, common_name: &str, from: Timestamp, until: Timestamp) -> Result<TlsIdentity, CaError> {
        let (params, serial) = client_params(common_name, from, until)?;
        self.sign(params, serial)
    }

    /// The same on somebody else's key: the certificate in PEM, and its serial number in hex.
    pub(crate) fn certify(
        &self,
        key: &impl PublicKeyData,
        common_name: &str,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<(String, String), CaError> {
        let (params, serial) = client_params(common_name, from, until)?;
        let certificate = params.signed_by(key, &self.issuer).map_err(sign_error)?;
        Ok((certificate.pem(), serial))
    }

    fn sign(&self, params: CertificateParams, serial: String) -> Result<TlsIdentity, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(sign_error)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(sign_error)?;
        Ok(TlsIdentity {
            chain: vec![certificate.der().clone(), self.certificate.clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            serial,
        })
    }
}

/// Of a client's leaf: clientAuth, one plain common name.
fn client_params(common_name: &str, from: Timestamp, until: Timestamp) -> Result<(CertificateParams, String), CaError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.$-".contains(&b);
    if common_name.is_empty() || common_name.len() > 63 || !common_name.bytes().all(plain) {
        return Err(CaError::Refused("a client's certificate names 1 to 63 of A-Z a-z 0-9 _ . $ -".into()));
    }
    let (mut params, serial) = params(common_name, from, until)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok((params, serial))
}

/// Parameters of a leaf, with its serial number in hex.
fn params(common_name: &str, from: Timestamp, until: Timestamp) -> Result<(CertificateParams, String), CaError> {
    let mut serial = [0u8; 16];
    getrandom::fill(&mut serial).map_err(|error| CaError::Sign(error.to_string()))?;
    // RFC 5280 section 4.1.2.2: positive, so the top bit is clear.
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.use_authority_key_identifier_extension = true;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + seconds(from - CLOCK_SLACK)?;
    params.not_after = epoch + seconds(until)?;
    Ok((params, serial.iter().map(|b| format!("{b:02x}")).collect()))
}

/// Since 1970.
fn seconds(at: Timestamp) -> Result<Duration, CaError> {
    let seconds = u64::try_from(at.as_second());
    seconds.map(Duration::from_secs).map_err(|_| CaError::Refused("a certificate cannot be valid before 1970".into()))
}

fn sign_error(error: rcgen::Error) -> CaError {
    CaError::Sign(error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use x509_parser::prelude::*;

    fn authority(now: Timestamp) -> X509Authority {
        use secrecy::ExposeSecret;
        let (key, certificate) = X509Authority::generate("gate", now).unwrap();
        X509Authority::from_pem(key.expose_secret(), &certificate).unwrap()
    }

    #[test]
    fn client_certificate_is_short_bound_to_one_role_and_cannot_sign() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let made = authority(now).client("tg_alice_abcdefgh", now, now + SignedDuration::from_secs(60)).unwrap();
        let (_, leaf) = X509Certificate::from_der(&made.chain[0]).unwrap();
        assert_eq!(leaf.subject().to_string(), "CN=tg_alice_abcdefgh");
        assert_eq!(leaf.validity().not_before.timestamp(), 1_800_000_000 - 30);
        assert_eq!(leaf.validity().not_after.timestamp(), 1_800_000_060);
        assert!(!leaf.is_ca());
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert_eq!(leaf.signature_algorithm.algorithm.to_id_string(), "1.2.840.10045.4.3.2"); // ecdsa-with-SHA256
        assert_eq!(leaf.raw_serial_as_string().replace(':', ""), made.serial);
        let (_, ca) = X509Certificate::from_der(&made.chain[1]).unwrap();
        assert!(ca.is_ca());
        assert_eq!(leaf.issuer(), ca.subject());
    }

    #[test]
    fn name_that_is_no_role_is_refused() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let authority = authority(now);
        for name in ["", "a b", "a\0b", "a,b", "ä", &"a".repeat(64)] {
            assert!(matches!(authority.client(name, now, now), Err(CaError::Refused(_))), "{name:?}");
        }
        assert!(matches!(authority.server(&[], now, now), Err(CaError::Refused(_))));
    }

    #[test]
    fn server_certificate_names_hosts_and_addresses() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let names = ["gate.example.com".to_owned(), "127.0.0.1".to_owned()];
        let made = authority(now).server(&names, now, now + SignedDuration::from_hours(1)).unwrap();
        let (_, leaf) = X509Certificate::from_der(&made.chain[0]).unwrap();
        let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(names[0], GeneralName::DNSName("gate.example.com"));
        assert_eq!(names[1], GeneralName::IPAddress(&[127, 0, 0, 1]));
    }
}
