//! Which host keys a host shows, for an admin who is about to write one into the configuration.
//!
//! What a host shows proves nothing about who it is: a person compares the fingerprint with what they know from elsewhere.
//! So nothing here trusts a key, and every connection ends as soon as the key was shown.

use super::algorithms;
use crate::issuer::TARGET_DEADLINE;
use russh::{
    client,
    keys::{Algorithm, PublicKey, PublicKeyOrCertificate},
};
use std::sync::{Arc, OnceLock};
use tokio::{net::TcpStream, time::timeout};

/// The keys that the host at `host:port` shows, the best first: one of each kind, which it is asked for one after the other.
///
/// # Errors
/// It cannot be reached, or shows none that could be pinned; in words.
pub async fn shown_host_keys(address: &str) -> Result<Vec<PublicKey>, String> {
    let mut keys: Vec<PublicKey> = Vec::new();
    let mut last = "it shows no host key".to_owned();
    for kind in algorithms::signatures_of_hosts() {
        match timeout(TARGET_DEADLINE, shown(address, kind)).await {
            Ok(Ok(key)) if keys.iter().any(|known| known.key_data() == key.key_data()) => {}
            Ok(Ok(key)) => keys.push(key),
            Ok(Err(Unshown::NoneOfThisKind)) => {}
            // Without a connection, the next kind has none either.
            Ok(Err(Unshown::NoConnection(cause))) => return Err(cause),
            Ok(Err(Unshown::Broken(cause))) => last = cause,
            Err(_) => return Err("no answer in time".to_owned()),
        }
    }
    if keys.is_empty() { Err(last) } else { Ok(keys) }
}

enum Unshown {
    NoConnection(String),
    NoneOfThisKind,
    Broken(String),
}

async fn shown(address: &str, kind: Algorithm) -> Result<PublicKey, Unshown> {
    let stream = TcpStream::connect(address).await.map_err(|error| Unshown::NoConnection(error.to_string()))?;
    let config = client::Config { preferred: algorithms::preferred(vec![kind]), ..client::Config::default() };
    let seen = Arc::new(OnceLock::new());
    // It ends in an error either way: the key is refused when it has been seen.
    let ended = client::connect_stream(Arc::new(config), stream, Looking(seen.clone())).await;
    match (seen.get(), ended) {
        (Some(key), _) => Ok(PublicKey::clone(key)),
        (None, Err(russh::Error::NoCommonAlgo { .. })) => Err(Unshown::NoneOfThisKind),
        (None, Err(error)) => Err(Unshown::Broken(error.to_string())),
        (None, Ok(_)) => Err(Unshown::Broken("it shows no host key".to_owned())),
    }
}

/// Looks at the key, and goes.
struct Looking(Arc<OnceLock<PublicKey>>);

impl client::Handler for Looking {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        if let PublicKeyOrCertificate::PublicKey { key, .. } = shown {
            let _ = self.0.set(PublicKey::from(key.key_data().clone())); // asked once for each handshake
        }
        Ok(false)
    }
}
