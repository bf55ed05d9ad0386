//! The public keys of an issuer (RFC 7517), from a file or from its server.
//!
//! What always holds: what a server said is believed for [`END`] and no longer, so that a key that it withdrew is gone by then; a token
//! with a key that is not known makes us ask again, but not more often than [`AGAIN`], whatever is sent; a server that hangs keeps
//! nobody waiting beyond one request's deadline.

use super::{Place, Unproven, unknown};
use crate::text::plain;
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, Jwk, PublicKeyUse},
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    str::FromStr as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// A server is asked again after this.
const FRESH: Duration = Duration::from_secs(10 * 60);
/// What it said is believed so long while it cannot be asked.
const END: Duration = Duration::from_secs(60 * 60);
/// Between two attempts.
const AGAIN: Duration = Duration::from_secs(5);
/// Keys of one issuer.
const MOST: usize = 64;
/// A longer file is none.
const LONGEST: u64 = 256 << 10;

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum KeySource {
    /// Read again at each use.
    File(PathBuf),
    /// Asked, and remembered for a while.
    Server(Place),
}

impl std::fmt::Display for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(file) => f.write_str(&plain(&file.display().to_string())),
            Self::Server(place) => place.uri.fmt(f),
        }
    }
}

/// One public key.
#[derive(Debug, Clone)]
pub(super) struct PublicKey {
    pub(super) kid: Option<String>,
    /// What it alone may be used with, if its issuer says so.
    pub(super) algorithm: Option<Algorithm>,
    pub(super) key: DecodingKey,
}

/// What servers said. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyRing(Arc<Mutex<HashMap<KeySource, Arc<tokio::sync::Mutex<Held>>>>>);

/// What one server said.
#[derive(Debug, Default)]
struct Held {
    keys: Vec<PublicKey>,
    said: Option<Instant>,
    tried: Option<Instant>,
}

impl KeyRing {
    /// The keys that a token may be signed with that names this one, or none.
    pub(super) async fn keys(&self, source: &KeySource, kid: Option<&str>) -> Result<Vec<PublicKey>, Unproven> {
        let keys = match source {
            KeySource::File(file) => {
                let (file, shown) = (file.clone(), source.to_string());
                let read = tokio::task::spawn_blocking(move || read(&file)).await;
                read.unwrap_or_else(|error| Err(error.to_string())).or_else(|why| {
                    tracing::error!(file = shown, why, "an issuer's keys cannot be read");
                    unknown("the keys of its issuer cannot be read: tell your admin")
                })?
            }
            KeySource::Server(place) => self.of_server(source, place, kid).await?,
        };
        Ok(keys.into_iter().filter(|key| fits(key, kid)).collect())
    }

    async fn of_server(
        &self,
        source: &KeySource,
        place: &Place,
        kid: Option<&str>,
    ) -> Result<Vec<PublicKey>, Unproven> {
        let held = {
            let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            ring.entry(source.clone()).or_default().clone()
        };
        let mut held = held.lock().await;
        let since = |moment: Option<Instant>| moment.map_or(Duration::MAX, |moment| moment.elapsed());
        let known = since(held.said) < FRESH && held.keys.iter().any(|key| fits(key, kid));
        if !known && since(held.tried) >= AGAIN {
            let said = place.get().await.and_then(|body| parse(&body));
            held.tried = Some(Instant::now());
            match said {
                Ok(keys) => (held.keys, held.said) = (keys, held.tried),
                Err(fault) => tracing::error!(server = %source, fault, "an issuer's keys cannot be had"),
            }
        }
        if since(held.said) >= END {
            held.keys.clear();
            return unknown("the keys of its issuer cannot be had now: try again in a moment, or tell your admin");
        }
        Ok(held.keys.clone())
    }
}

/// One without a name may be any, where there is no other.
fn fits(key: &PublicKey, kid: Option<&str>) -> bool {
    kid.is_none_or(|kid| key.kid.as_deref() == Some(kid))
}

/// The keys in a file.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(file: &Path) -> Result<(), String> {
    match read(file)?.is_empty() {
        true => Err("has no key that can be used here".to_owned()),
        false => Ok(()),
    }
}

fn read(file: &Path) -> Result<Vec<PublicKey>, String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(|error| format!("cannot be read: {error}"))?;
    opened.take(LONGEST).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    parse(&bytes)
}

/// The keys of a set that are for signatures and of a kind that is known here; the others are not for us.
fn parse(bytes: &[u8]) -> Result<Vec<PublicKey>, String> {
    #[derive(serde::Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(bytes).map_err(|_| "is no JWK set".to_owned())?;
    if set.keys.len() > MOST {
        return Err(format!("has more than {MOST} keys"));
    }
    Ok(set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok()).filter_map(usable).collect())
}

fn usable(jwk: Jwk) -> Option<PublicKey> {
    let signs = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
    // A shared secret that everybody can fetch proves nothing.
    let public = !matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_));
    let algorithm = match jwk.common.key_algorithm {
        Some(named) => Some(Algorithm::from_str(&named.to_string()).ok()?),
        None => None,
    };
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    (signs && public).then_some(PublicKey { kid: jwk.common.key_id, algorithm, key })
}
