//! Verifying a JWT that somebody else signed (RFC 7519, RFC 8725).
//!
//! What always holds: the algorithm is one of a list that the configuration makes, of public keys only, and the one of the key where the
//! key says which; the key is one of the issuer's that the configuration names; issuer, audience and times are held against what
//! is expected, and time is an argument.

use super::{KeyRing, KeySource, Unproven, wrong};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Validation};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// A longer token is none.
const LONGEST: usize = 16 << 10;
/// How far the issuer's clock may be ahead of ours, in seconds.
const AHEAD: i64 = 60;
/// A token that is good for longer would be a stored secret, in seconds.
const LONGEST_LIFE: i64 = 24 * 60 * 60;

/// What may be listed. Never one of a shared secret, and never `none`.
pub(crate) const ALGORITHMS: [&str; 7] = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"];

/// One of [`ALGORITHMS`] by its name.
pub(crate) fn algorithm(name: &str) -> Result<Algorithm, &'static str> {
    let known = ALGORITHMS.contains(&name).then(|| name.parse::<Algorithm>().ok()).flatten();
    known.ok_or("is not an algorithm that is accepted here")
}

/// What a token must be.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// `iss`
    pub(crate) issuer: String,
    /// One of `aud`.
    pub(crate) audience: String,
    /// Of its signature.
    pub(crate) algorithms: Vec<Algorithm>,
    /// Of its issuer.
    pub(crate) keys: KeySource,
}

/// The claims of a token that was verified.
#[derive(Debug, Clone)]
pub(crate) struct Claims {
    pub(crate) all: Map<String, Value>,
    pub(crate) ends: Timestamp,
    /// What was signed: header and claims as they came.
    pub(crate) signed: String,
}

impl Claims {
    /// A claim that is a text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.all.get(name).and_then(Value::as_str)
    }
}

/// What a token says of itself before anybody vouches for it: only to find who must.
#[derive(Debug)]
pub(super) struct Said {
    algorithm: String,
    kid: Option<String>,
    pub(super) claims: Map<String, Value>,
}

/// Takes a token apart.
pub(super) fn peek(token: &str) -> Result<Said, Unproven> {
    if token.len() > LONGEST {
        return wrong("it is longer than 16 KiB");
    }
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return wrong("it is not a JWT in compact form");
    };
    let (header, claims) = (object(header)?, object(claims)?);
    if header.contains_key("crit") {
        return wrong("its header asks for an extension (crit) that is not known here");
    }
    let Some(algorithm) = header.get("alg").and_then(Value::as_str) else { return wrong("its header names no alg") };
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) if kid.len() <= 256 => Some(kid.clone()),
        Some(_) => return wrong("its kid is not a text"),
    };
    Ok(Said { algorithm: algorithm.to_owned(), kid, claims })
}

fn object(part: &str) -> Result<Map<String, Value>, Unproven> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| Unproven::Wrong("it is not base64url".to_owned()))?;
    serde_json::from_slice(&bytes).map_err(|_| Unproven::Wrong("it is not JSON".to_owned()))
}

/// Verifies a token: who signed it, for whom, and that it is good now.
pub(super) async fn verify(
    token: &str,
    expected: &Expected,
    ring: &KeyRing,
    now: Timestamp,
) -> Result<Claims, Unproven> {
    let said = peek(token)?;
    let listed = algorithm(&said.algorithm).ok().filter(|algorithm| expected.algorithms.contains(algorithm));
    let Some(algorithm) = listed else {
        return wrong("its algorithm (alg) is none of those that are accepted of its issuer");
    };
    if said.claims.get("iss").and_then(Value::as_str) != Some(expected.issuer.as_str()) {
        return wrong("its issuer (iss) is another one");
    }
    let keys = ring.keys(&expected.keys, said.kid.as_deref()).await?;
    let keys: Vec<_> = keys
        .into_iter()
        .filter(|key| key.algorithm.is_none_or(|own| own == algorithm) && key.key.family() == algorithm.family())
        .collect();
    let [key] = keys.as_slice() else {
        return wrong(match (keys.is_empty(), said.kid) {
            (true, Some(_)) => "its issuer has no key of its kid for its algorithm",
            (true, None) => "its issuer has no key for its algorithm",
            (false, _) => "its issuer has several such keys, and it does not say which (kid)",
        });
    };
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims = HashSet::new();
    (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
    let Ok(data) = jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &validation) else {
        return wrong("its signature is not that of its issuer");
    };
    if !is_for(data.claims.get("aud"), &expected.audience) {
        return wrong("it is for somebody else (aud)");
    }
    let ends = times(&data.claims, now.as_second())?;
    let signed = token.rsplit_once('.').map(|(signed, _)| signed.to_owned()).unwrap_or_default();
    Ok(Claims { all: data.claims, ends, signed })
}

/// One text, or a list of them.
fn is_for(aud: Option<&Value>, audience: &str) -> bool {
    match aud {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(audience)),
        _ => false,
    }
}

/// `exp` and `iat` must be there, `nbf` may (RFC 7519 section 4.1). Returns the end.
fn times(claims: &Map<String, Value>, now: i64) -> Result<Timestamp, Unproven> {
    // NumericDate may have a fraction (section 2).
    let second = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Ok(Some(whole)),
            #[allow(clippy::cast_possible_truncation, reason = "it saturates, and is checked to be a time")]
            (None, Some(fraction)) => Ok(Some(fraction.floor() as i64)),
            _ => wrong(format!("its {name} is no time")),
        },
        Some(_) => wrong(format!("its {name} is no time")),
    };
    let (Some(exp), Some(iat)) = (second("exp")?, second("iat")?) else {
        return wrong("it does not say when it was made and when it ends (iat, exp)");
    };
    if exp <= now {
        return wrong("it has ended (exp)");
    }
    if iat > now + AHEAD || second("nbf")?.is_some_and(|nbf| nbf > now + AHEAD) {
        return wrong("it is not good yet (iat, nbf): is a clock wrong?");
    }
    if exp.saturating_sub(iat) > LONGEST_LIFE {
        return wrong("it is good for more than a day, which is a stored secret: have it made shorter");
    }
    Timestamp::from_second(exp).map_err(|_| Unproven::Wrong("its exp is no time".to_owned()))
}
