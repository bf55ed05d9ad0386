//! `[[issuer]]`: outside approval systems whose signed grants we honour, each with its pinned algorithm and its scope.

use super::{
    entitlements::or_write,
    secret::{Secret, long_enough, secret},
    section::{Section, TextSpot, Whole},
    value::{self, DURATION_FIX, PLAIN_NAME_FIX},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use ed25519_dalek::{VerifyingKey, pkcs8::DecodePublicKey as _};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_grants::{Entitlement, EntitlementName, TrustedIssuer, grant::IssuerKey};

/// All issuers, and the secrets that they make us hold.
#[derive(Default)]
pub(super) struct Issuers {
    pub(super) by_name: BTreeMap<String, TrustedIssuer>,
    pub(super) secrets: Vec<Secret>,
}

/// All issuers. `gateway` is our own name, which is our own issuer's too.
pub(super) fn issuers(
    whole: &Whole<'_>,
    entitlements: &BTreeMap<EntitlementName, Entitlement>,
    gateway: Option<&str>,
) -> Issuers {
    let mut issuers = Issuers::default();
    for section in whole.sections("issuer") {
        let name = section
            .need("name", section.text("name"), "write name = \"servicedesk\", the iss of its grants")
            .and_then(|name| name.parse(value::plain_name, PLAIN_NAME_FIX));
        let key = key(&section, &mut issuers.secrets);
        let scope = scope(&section, entitlements);
        let max_ttl = section
            .need("max_ttl", section.text("max_ttl"), DURATION_FIX)
            .and_then(|ttl| ttl.parse(value::positive_duration, DURATION_FIX));
        let counts = section.boolean("counts_as_approval").is_some_and(|counts| counts.value);
        section.unknown();
        let Some(name) = name else { continue };
        if gateway == Some(name.value.as_str()) {
            name.fault("is the gateway's own name, under which it signs its own grants", "choose another");
        } else if let Some(other) = name.seen("issuer", &name.value) {
            let wrong = format!("is the name of another issuer already ({other})");
            name.fault(wrong, "give each issuer a name of its own");
        } else if let (Some(key), Some(entitlements), Some(max_ttl)) = (key, scope, max_ttl) {
            let name = name.value;
            let issuer = TrustedIssuer {
                name: name.clone(),
                key,
                entitlements,
                max_ttl: max_ttl.value,
                counts_as_approval: counts,
            };
            issuers.by_name.insert(name, issuer);
        }
    }
    issuers
}

/// Where the secret of HS256 is.
const SECRET: [&str; 2] = ["secret_file", "secret_env"];
const SECRET_FIX: &str = "name a file of mode 0600 with the shared secret, of 32 bytes or more (secret_file), or an environment \
                          variable that holds it (secret_env)";

fn key(section: &Section<'_>, secrets: &mut Vec<Secret>) -> Option<IssuerKey> {
    const FIX: &str = "write algorithm = \"HS256\" with secret_file, or algorithm = \"EdDSA\" with public_key";
    let algorithm = section.need("algorithm", section.text("algorithm"), FIX);
    match algorithm.as_ref().map(|algorithm| algorithm.value) {
        Some("HS256") => {
            section.misplaced(
                &["public_key"],
                "belongs to algorithm \"EdDSA\"",
                "take it out, or change the algorithm",
            );
            let why = format!("HS256 secret of the {}", section.name());
            let held = secret(section, SECRET, SECRET_FIX, |bytes| long_enough(bytes, 32))?;
            secrets.push(Secret { place: held.place, why });
            Some(IssuerKey::Hs256(held.value))
        }
        Some("EdDSA") => {
            section.misplaced(&SECRET, "belongs to algorithm \"HS256\"", "take it out, or change the algorithm");
            let fix = "paste its Ed25519 public key: PEM, or the 32 bytes in base64";
            let text = section.need("public_key", section.text("public_key"), fix)?;
            Some(IssuerKey::EdDsa(text.parse(public_key, fix)?.value))
        }
        other => {
            section.pass_over(&["public_key"]);
            section.pass_over(&SECRET);
            if let (Some(algorithm), Some(_)) = (algorithm, other) {
                algorithm.fault("is not an algorithm that is accepted here", FIX);
            }
            None
        }
    }
}

pub(super) fn public_key(text: &str) -> Result<[u8; 32], String> {
    let key = if text.contains("-----BEGIN") {
        VerifyingKey::from_public_key_pem(text.trim()).map_err(|_| "is not an Ed25519 public key in PEM")?
    } else {
        let bytes = BASE64_STANDARD.decode(text.trim()).map_err(|_| "is not base64")?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| "is not 32 bytes long")?;
        VerifyingKey::from_bytes(&bytes).map_err(|_| "is not an Ed25519 public key")?
    };
    if key.is_weak() { Err("is a weak key".to_owned()) } else { Ok(key.to_bytes()) }
}

fn scope(section: &Section<'_>, known: &BTreeMap<EntitlementName, Entitlement>) -> Option<BTreeSet<EntitlementName>> {
    const FIX: &str = "list the entitlements that it may grant, like [\"readonly\"]";
    let list = section.need("entitlements", section.texts("entitlements"), FIX)?;
    if list.value.is_empty() {
        list.fault("is empty: it could grant nothing", FIX);
        return None;
    }
    let mut scope = BTreeSet::new();
    for item in list.value {
        let Some(name) = parsed(item, FIX) else { continue };
        if known.contains_key(&name.value) {
            scope.insert(name.value);
        } else if !name.is_there("entitlement", name.value.as_str()) {
            let near = value::nearest(name.value.as_str(), known.keys().map(EntitlementName::as_str));
            let wrong = format!("there is no entitlement {:?}", name.value.as_str());
            name.fault(wrong, or_write("an [[entitlement]]", near));
        }
    }
    Some(scope)
}

fn parsed<'a>(item: TextSpot<'a>, fix: &str) -> Option<super::section::Spot<'a, EntitlementName>> {
    item.parse(str::parse::<EntitlementName>, fix)
}
