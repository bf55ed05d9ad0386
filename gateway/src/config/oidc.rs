//! `[oidc]`: where people log in, and who they are here.

use super::{
    nested::Nested,
    secret::{Held, Secret, secret},
    section::{Section, TextSpot},
    workloads::{algorithms, filled, life, safe_url},
};
use crate::elsewhere::oidc::Oidc;
use secrecy::SecretString;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tidegate_grants::{GroupName, IdentityName};

const ISSUER_FIX: &str = "write issuer = \"https://login.example.com\", as the provider calls itself";
const CLIENT_FIX: &str = "write client_id = \"tidegate\", as it is registered there";
const GROUPS_FIX: &str = "write which groups there are which here, like groups = { \"Site Reliability\" = \"sre\" }";
const SECRET: [&str; 2] = ["client_secret_file", "client_secret_env"];
const LIFE: Duration = Duration::from_secs(24 * 60 * 60);
const MOST_LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The provider, if there is one, and the secret that it makes us hold. `declared`: whom the configuration names, by their subject.
pub(super) fn oidc(
    root: &Section<'_>,
    declared: BTreeMap<String, IdentityName>,
    nested: &Nested,
) -> Option<(Option<Arc<Oidc>>, Option<Secret>)> {
    let Some(section) = root.section("oidc") else { return (!root.has("oidc")).then_some((None, None)) };
    let issuer = section.need("issuer", section.text("issuer"), ISSUER_FIX);
    let issuer = issuer.and_then(|text| text.parse(|text| safe_url(text).map(|_| text), ISSUER_FIX));
    let client = section.need("client_id", section.text("client_id"), CLIENT_FIX);
    let client = client.and_then(|text| filled(text, CLIENT_FIX));
    let held = client_secret(&section);
    let tls_ca = section.text("tls_ca").map(|file| file.path());
    let word = |key: &'static str, default: &str| match section.text(key) {
        Some(text) => filled(text, "write the name of a claim").map(|text| text.value.to_owned()),
        None => (!section.has(key)).then(|| default.to_owned()),
    };
    let (identity, groups_claim) = (word("identity", "preferred_username"), word("groups_claim", "groups"));
    let suffix = section.text("suffix").map_or(String::new(), |text| text.value.to_owned());
    let groups = groups(&section, nested);
    let scopes = match section.texts("scopes") {
        Some(list) => list.value.iter().map(|scope| scope.value.to_owned()).collect(),
        None => vec!["profile".to_owned()],
    };
    let algorithms = algorithms(&section, &["RS256", "ES256", "EdDSA"]);
    let life = life(&section, "life", LIFE, MOST_LIFE);
    section.unknown();
    let (held, secret) = match held? {
        Some(held) => {
            (Some(held.value), Some(Secret { place: held.place, why: "logs in to the OpenID provider".to_owned() }))
        }
        None => (None, None),
    };
    let oidc = Oidc {
        issuer: issuer?.value.to_owned(),
        tls_ca,
        client_id: client?.value.to_owned(),
        secret: held.map(Arc::new),
        identity: identity?,
        suffix,
        groups_claim: groups_claim?,
        groups: groups?,
        scopes,
        algorithms: algorithms?,
        life: life?,
        declared,
    };
    Some((Some(Arc::new(oidc)), secret))
}

/// `None` has said why. A client without a secret is a public one.
fn client_secret(section: &Section<'_>) -> Option<Option<Held<SecretString>>> {
    if !section.has(SECRET[0]) && !section.has(SECRET[1]) {
        section.pass_over(&SECRET);
        return Some(None);
    }
    let text = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).map_err(|_| "is not text".to_owned())?.trim();
        if text.is_empty() { Err("is empty".to_owned()) } else { Ok(SecretString::from(text.to_owned())) }
    };
    secret(section, SECRET, "name what holds the client's secret", text).map(Some)
}

fn groups(section: &Section<'_>, nested: &Nested) -> Option<BTreeMap<String, BTreeSet<GroupName>>> {
    let pairs = section.need("groups", section.pairs("groups"), GROUPS_FIX)?;
    if pairs.value.is_empty() {
        pairs.fault("is empty: nobody would be let in", GROUPS_FIX);
        return None;
    }
    let pair = |(there, here): (&str, TextSpot<'_>)| {
        let here = here.parse(str::parse::<GroupName>, GROUPS_FIX)?.value;
        Some((there.to_owned(), nested.all_of(BTreeSet::from([here]))))
    };
    pairs.value.into_iter().map(pair).collect()
}
