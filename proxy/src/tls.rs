//! A listener's certificate: of our own X.509 CA, in memory only, or from files that somebody else renews. One mechanism for
//! every door that speaks TLS.
//!
//! What always holds: a certificate is replaced while the gateway runs, before its end or soon after its files are; one that
//! cannot be replaced serves on, and the log says why.

use jiff::{SignedDuration, Timestamp};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};
use tidegate_ca::{CaError, Keys};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How long a certificate of our own is good.
const LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// It is renewed when this much is left.
const RENEW: SignedDuration = SignedDuration::from_hours(2 * 24);
/// For clients whose clock is behind.
const EARLIER: SignedDuration = SignedDuration::from_mins(10);
/// Files are read again after this: whoever renews them need not tell us. What could not be renewed is tried again after it.
const AGAIN: SignedDuration = SignedDuration::from_secs(20);

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Our CA did not make the certificate.
    #[error(transparent)]
    Certificate(#[from] CaError),
    /// A file cannot be read, or is not PEM, or has no certificate or key.
    #[error("{}: {cause}", .file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        cause: pem::Error,
    },
    /// Clients could not bind their password to it (RFC 5929 section 4.1).
    #[error("its certificate is none that clients can bind to: sign it by RSA or ECDSA, with SHA-256, 384 or 512")]
    Unbound,
    /// It is over.
    #[error("its certificate ended at {0}")]
    Ended(Timestamp),
    /// rustls did not take it, e.g. a key that is not the certificate's.
    #[error(transparent)]
    Configuration(#[from] rustls::Error),
}

/// A certificate and its key that somebody else makes and renews.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate and those between it and its authority, PEM.
    pub chain: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// A chain, the certificate first, and its key.
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl CertificateFiles {
    fn read(&self) -> Result<Identity, TlsError> {
        let wrong = |file: &PathBuf, cause| TlsError::File { file: file.clone(), cause };
        let chain = CertificateDer::pem_file_iter(&self.chain).and_then(Iterator::collect);
        let chain: Vec<_> = chain.map_err(|cause| wrong(&self.chain, cause))?;
        if chain.is_empty() {
            return Err(wrong(&self.chain, pem::Error::NoItemsFound));
        }
        Ok((chain, PrivateKeyDer::from_pem_file(&self.key).map_err(|cause| wrong(&self.key, cause))?))
    }

    /// When the certificate ends, if a listener could serve with it now.
    ///
    /// # Errors
    /// [`TlsError`]: files that cannot be read, a key that is not the certificate's, one that has ended or that PostgreSQL's
    /// clients could not bind to.
    pub fn check(&self, now: Timestamp) -> Result<Timestamp, TlsError> {
        let (chain, key) = self.read()?;
        let end = chain.first().and_then(end);
        Current::new(chain, key, WebPkiClientVerifier::no_client_auth(), b"", now)?;
        match end.ok_or(TlsError::Unbound)? {
            end if end <= now => Err(TlsError::Ended(end)),
            end => Ok(end),
        }
    }
}

fn end(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()
}

/// `tls-server-end-point` of a certificate (RFC 5929 section 4.1). `None` where its signature has no hash of its own, as with
/// Ed25519: there is nothing to bind to then.
pub(crate) fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    match parsed.signature_algorithm.algorithm.to_id_string().as_str() {
        // SHA-1 and MD5 become SHA-256; so are those of RSA and ECDSA with SHA-256.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" => {
            Some(Sha256::digest(certificate).to_vec())
        }
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(Sha384::digest(certificate).to_vec()),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(Sha512::digest(certificate).to_vec()),
        _ => None,
    }
}

/// Where a listener's certificate comes from.
#[derive(Clone)]
pub enum Source {
    /// Our own X.509 CA, for these public names.
    Own(Arc<Keys>, Vec<String>),
    /// Somebody else.
    Files(CertificateFiles),
}

impl Source {
    /// A certificate, and when to look for the next.
    fn identity(&self, now: Timestamp) -> Result<(Identity, Timestamp), TlsError> {
        match self {
            Self::Own(keys, names) => {
                let until = now.saturating_add(LIFE).unwrap_or(now);
                let from = now.saturating_sub(EARLIER).unwrap_or(now);
                let identity = keys.x509.server(names, from, until)?;
                Ok(((identity.chain, identity.key), until.saturating_sub(RENEW).unwrap_or(now)))
            }
            Self::Files(files) => Ok((files.read()?, soon(now))),
        }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own(_, names) => f.debug_tuple("Own").field(names).finish(),
            Self::Files(files) => f.debug_tuple("Files").field(files).finish(),
        }
    }
}

fn soon(now: Timestamp) -> Timestamp {
    now.saturating_add(AGAIN).unwrap_or(now)
}

/// A certificate in use.
#[derive(Clone)]
pub struct Current {
    /// Accepts with it.
    pub acceptor: TlsAcceptor,
    /// See [`end_point`].
    pub(crate) end_point: Arc<[u8]>,
    renew: Timestamp,
}

impl Current {
    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        clients: Arc<dyn ClientCertVerifier>,
        protocol: &[u8],
        renew: Timestamp,
    ) -> Result<Self, TlsError> {
        let end_point = chain.first().and_then(end_point).ok_or(TlsError::Unbound)?.into();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)?;
        // Each session proves itself anew; tickets would only cost.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), end_point, renew })
    }
}

/// The listener's certificate.
pub struct ListenerTls {
    source: Source,
    protocol: &'static [u8],
    clients: Arc<dyn ClientCertVerifier>,
    current: Mutex<Option<Current>>,
}

impl ListenerTls {
    /// For this protocol (ALPN, RFC 7301), asking no client for a certificate.
    pub fn new(source: Source, protocol: &'static [u8]) -> Self {
        Self { source, protocol, clients: WebPkiClientVerifier::no_client_auth(), current: Mutex::new(None) }
    }

    /// The same, with certificates of clients judged by this.
    pub(crate) fn asking(self, clients: Arc<dyn ClientCertVerifier>) -> Self {
        Self { clients, ..self }
    }

    /// The certificate for a connection that comes now.
    ///
    /// # Errors
    /// [`TlsError`]: our own fault, never the peer's.
    pub fn current(&self, now: Timestamp) -> Result<Current, TlsError> {
        let mut slot = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) = slot.as_ref().filter(|current| now < current.renew) {
            return Ok(current.clone());
        }
        match (self.renewed(now), slot.as_mut()) {
            (Ok(new), _) => Ok(slot.insert(new).clone()),
            (Err(error), None) => Err(error),
            (Err(error), Some(old)) => {
                tracing::error!(%error, "the listener's certificate could not be renewed; the old one serves on");
                old.renew = soon(now);
                Ok(old.clone())
            }
        }
    }

    fn renewed(&self, now: Timestamp) -> Result<Current, TlsError> {
        let ((chain, key), renew) = self.source.identity(now)?;
        Current::new(chain, key, self.clients.clone(), self.protocol, renew)
    }
}

impl std::fmt::Debug for ListenerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerTls").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn write(files: &CertificateFiles, algorithm: &'static rcgen::SignatureAlgorithm, until: i32) -> Vec<u8> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let mut params = rcgen::CertificateParams::new(["gate.example.com".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(&files.chain, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        certificate.der().to_vec()
    }

    fn files(dir: &tempfile::TempDir) -> CertificateFiles {
        CertificateFiles { chain: dir.path().join("chain.pem"), key: dir.path().join("key.pem") }
    }

    #[test]
    fn renewed_files_are_served_within_a_minute_and_broken_ones_never() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(&dir);
        let first = write(&files, &rcgen::PKCS_ECDSA_P256_SHA256, 2100);
        let listener = ListenerTls::new(Source::Files(files.clone()), b"x");
        let now = Timestamp::now();
        let at = |minutes| listener.current(now + SignedDuration::from_mins(minutes)).unwrap().end_point.to_vec();
        assert_eq!(at(0), Sha256::digest(&first).to_vec());
        let second = write(&files, &rcgen::PKCS_ECDSA_P384_SHA384, 2100);
        assert_eq!(at(1), Sha384::digest(&second).to_vec());
        std::fs::write(&files.chain, "no certificate").unwrap();
        assert_eq!(at(2), Sha384::digest(&second).to_vec());
        let third = write(&files, &rcgen::PKCS_ECDSA_P256_SHA256, 2100);
        assert_eq!(at(3), Sha256::digest(&third).to_vec());
    }

    #[test]
    fn files_that_nobody_could_use_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (files, now) = (files(&dir), Timestamp::now());
        assert!(files.check(now).unwrap_err().to_string().contains("chain.pem"));
        write(&files, &rcgen::PKCS_ED25519, 2100);
        assert!(matches!(files.check(now), Err(TlsError::Unbound)));
        write(&files, &rcgen::PKCS_ECDSA_P256_SHA256, 2020);
        assert!(matches!(files.check(now), Err(TlsError::Ended(_))));
        write(&files, &rcgen::PKCS_ECDSA_P256_SHA256, 2100);
        assert!(files.check(now).unwrap() > now);
        let other = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&files.key, other.serialize_pem()).unwrap();
        assert!(matches!(files.check(now), Err(TlsError::Configuration(_))));
    }
}
