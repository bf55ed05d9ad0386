//! Grants as an outside approval system would sign them, right and wrong.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// The shared secret of the issuer `servicedesk`.
pub(crate) const SECRET: &str = "a shared secret of at least thirty-two bytes";

/// Claims that are in order, for alice to read `orders` for ten minutes.
pub(crate) fn claims() -> Value {
    let now = Timestamp::now().as_second();
    json!({
        "iss": "servicedesk", "sub": "alice", "aud": "gate", "jti": uuid::Uuid::now_v7().to_string(),
        "iat": now, "nbf": now - 5, "exp": now + 600,
        "target": "orders", "entitlement": "readonly", "reason": "ticket 7", "ticket": "OPS-7",
    })
}

/// Claims with one of them changed.
pub(crate) fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

/// Signed with HS256 and the shared secret.
pub(crate) fn hs256(claims: &Value) -> String {
    signed(Algorithm::HS256, claims, &EncodingKey::from_secret(SECRET.as_bytes()))
}

/// Signed with this algorithm and key.
pub(crate) fn signed(algorithm: Algorithm, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, key).unwrap()
}

/// With `alg: none` and no signature.
pub(crate) fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| BASE64.encode(value.to_string());
    format!("{}.{}.", part(&json!({ "alg": "none", "typ": "JWT" })), part(claims))
}

/// An Ed25519 key: to sign with, and in base64 as `public_key` of the configuration wants it.
pub(crate) fn ed25519(dir: &std::path::Path) -> (EncodingKey, String) {
    let path = dir.join("issuer.pem");
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&path);
    tidegate_tests::running::run(openssl, tidegate_tests::secs(20)).ok();
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["pkey", "-pubout", "-outform", "DER", "-in"]).arg(&path);
    let der = tidegate_tests::running::run(openssl, tidegate_tests::secs(20)).ok().stdout;
    let public = base64::engine::general_purpose::STANDARD.encode(&der[der.len() - 32..]);
    (EncodingKey::from_ed_pem(&std::fs::read(&path).unwrap()).unwrap(), public)
}
