//! X.509 certificates: ECDSA P-256 with SHA-256 throughout, because libpq cannot bind its channel to Ed25519.

use crate::CaError;
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

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
#[derive(Debug)]
pub struct X509Authority {
    // key and self-signed certificate
}

impl X509Authority {
    /// Its certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        todo!()
    }
    /// For the gateway's own listener: serverAuth, these DNS names or IP addresses.
    pub fn server(&self, names: &[String], from: Timestamp, until: Timestamp) -> Result<TlsIdentity, CaError> {
        let _ = (names, from, until);
        todo!()
    }
    /// For a login on a PostgreSQL target: clientAuth, this common name (at most 64 bytes).
    pub fn client(&self, common_name: &str, from: Timestamp, until: Timestamp) -> Result<TlsIdentity, CaError> {
        let _ = (common_name, from, until);
        todo!()
    }
}
