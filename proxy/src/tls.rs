//! A listener's own certificate: from our X.509 CA, in memory only, renewed before it ends. One mechanism for every door that
//! speaks TLS.

use jiff::{SignedDuration, Timestamp};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use sha2::{Digest as _, Sha256};
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_ca::{CaError, Keys};
use tokio_rustls::TlsAcceptor;

/// How long a certificate is good.
const LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// It is renewed when this much is left.
const RENEW: SignedDuration = SignedDuration::from_hours(2 * 24);
/// For clients whose clock is behind.
const EARLIER: SignedDuration = SignedDuration::from_mins(10);

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Our CA did not make the certificate.
    #[error(transparent)]
    Certificate(#[from] CaError),
    /// rustls did not take it.
    #[error(transparent)]
    Configuration(#[from] rustls::Error),
}

/// A certificate in use.
#[derive(Clone)]
pub struct Current {
    /// Accepts with it.
    pub acceptor: TlsAcceptor,
    /// `tls-server-end-point` (RFC 5929 section 4.1): SHA-256, since our certificates are signed with SHA-256.
    pub(crate) end_point: [u8; 32],
    renew: Timestamp,
}

/// The listener's certificate.
pub struct ListenerTls {
    keys: Arc<Keys>,
    names: Vec<String>,
    protocol: &'static [u8],
    clients: Arc<dyn ClientCertVerifier>,
    current: Mutex<Option<Current>>,
}

impl ListenerTls {
    /// For these public names and this protocol (ALPN, RFC 7301), asking no client for a certificate.
    pub fn new(keys: Arc<Keys>, names: Vec<String>, protocol: &'static [u8]) -> Self {
        Self { keys, names, protocol, clients: WebPkiClientVerifier::no_client_auth(), current: Mutex::new(None) }
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
        match slot.as_ref().filter(|current| now < current.renew) {
            Some(current) => Ok(current.clone()),
            None => Ok(slot.insert(self.renewed(now)?).clone()),
        }
    }

    fn renewed(&self, now: Timestamp) -> Result<Current, TlsError> {
        let until = now.saturating_add(LIFE).unwrap_or(now);
        let from = now.saturating_sub(EARLIER).unwrap_or(now);
        let identity = self.keys.x509.server(&self.names, from, until)?;
        let end_point = identity.chain.first().map(Sha256::digest).unwrap_or_default().into();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(self.clients.clone())
            .with_single_cert(identity.chain, identity.key)?;
        // Each session proves itself anew; tickets would only cost.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![self.protocol.to_vec()];
        let renew = until.saturating_sub(RENEW).unwrap_or(now);
        Ok(Current { acceptor: TlsAcceptor::from(Arc::new(config)), end_point, renew })
    }
}

impl std::fmt::Debug for ListenerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerTls").field("names", &self.names).finish_non_exhaustive()
    }
}
