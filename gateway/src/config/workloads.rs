//! `[[workload]]`: programs that an outside issuer vouches for. Each is an identity like any other, with groups; it says nothing about
//! approvals, and nobody is an approver, an admin or an auditor by it.

use super::{
    gateway::{Roles, groups},
    nested::Nested,
    section::{Section, Spot, TextSpot, Whole},
    value::{self, DURATION_FIX},
};
use crate::{
    elsewhere::{Expected, KeySource, Place, Workload, algorithm, check_keys, is_safe},
    text::plain,
};
use hyper::Uri;
use jsonwebtoken::Algorithm;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tidegate_grants::{Entitlement, EntitlementName, GroupName, Identity, IdentityName};

const ISSUER_FIX: &str = "write issuer = \"https://…\", the iss of its tokens, letter by letter";
const AUDIENCE_FIX: &str = "write audience = \"https://gate.example.com\", which its tokens must name (aud)";
const CLAIMS_FIX: &str = "write what makes it this one, like claims = { sub = \"repo:acme/shop:ref:refs/heads/main\" }";
const KEYS_FIX: &str = "write jwks_url = \"https://…\" or jwks_file = \"…\"";
const ALGORITHMS_FIX: &str = "list some of \"RS256\", \"RS384\", \"RS512\", \"PS256\", \"ES256\", \"ES384\", \"EdDSA\"";
/// What an entry is good for that does not say.
const LIFE: Duration = Duration::from_secs(15 * 60);
const MOST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// All workloads, and who they are.
#[derive(Default)]
pub(super) struct Workloads {
    pub(super) list: Vec<Arc<Workload>>,
    pub(super) identities: Vec<Identity>,
}

/// What was faulty is left out, and has said so.
pub(super) fn workloads(
    whole: &Whole<'_>,
    roles: &Roles,
    entitlements: &BTreeMap<EntitlementName, Entitlement>,
    nested: &Nested,
) -> Workloads {
    let mut found = Workloads::default();
    for section in whole.sections("workload") {
        let name = section
            .need("name", section.text("name"), "write name = \"ci\"")
            .and_then(|name| name.parse(str::parse::<IdentityName>, "choose such a name"));
        let groups = nested.all_of(groups(&section, "groups"));
        let issuer =
            section.need("issuer", section.text("issuer"), ISSUER_FIX).and_then(|text| filled(text, ISSUER_FIX));
        let audience = section.need("audience", section.text("audience"), AUDIENCE_FIX);
        let audience = audience.and_then(|text| filled(text, AUDIENCE_FIX));
        let claims = claims(&section);
        let algorithms = algorithms(&section, &["RS256", "ES256", "EdDSA"]);
        let keys = keys(&section);
        let life = life(&section, "life", LIFE, MOST_LIFE);
        section.unknown();
        let Some(name) = name else { continue };
        if let Some(other) = name.seen("user", name.value.as_str()) {
            name.fault(format!("is the name of another user or workload already ({other})"), "choose another");
            continue;
        }
        powerless(&name, &groups, roles, entitlements);
        let identity = Identity { name: name.value.clone(), groups, ssh_keys: Vec::new(), unix_user: None };
        found.identities.push(identity);
        if let (Some(issuer), Some(audience), Some(claims), Some(algorithms), Some(keys), Some(life)) =
            (issuer, audience, claims, algorithms, keys, life)
        {
            let expected =
                Expected { issuer: issuer.value.to_owned(), audience: audience.value.to_owned(), algorithms, keys };
            found.list.push(Arc::new(Workload { name: name.value, expected, claims, life }));
        }
    }
    found
}

/// A program decides nothing: neither about the gateway, nor about what somebody asks for.
fn powerless(
    name: &Spot<'_, IdentityName>,
    groups: &BTreeSet<GroupName>,
    roles: &Roles,
    entitlements: &BTreeMap<EntitlementName, Entitlement>,
) {
    for (role, members) in roles.named() {
        if let Some(group) = groups.intersection(members).next() {
            name.fault(
                format!("is in {group}, whose members are {role}s: no workload is one"),
                "take it out of that group",
            );
        }
    }
    for entitlement in entitlements.values() {
        let asking = entitlement.asking.iter();
        let approvers = asking.flat_map(|asking| {
            let levels = asking.levels.iter().map(|level| &level.from);
            levels.chain(asking.escalate.as_ref().map(|escalation| &escalation.to))
        });
        if let Some(group) = approvers.flat_map(|from| groups.intersection(from)).next() {
            let wrong = format!("is in {group}, whose members approve {}: no workload does", entitlement.name);
            name.fault(wrong, "take it out of that group");
        }
    }
}

pub(super) fn filled<'a>(text: TextSpot<'a>, fix: &str) -> Option<TextSpot<'a>> {
    text.parse(|text| if text.is_empty() { Err("is empty") } else { Ok(text) }, fix)
}

/// A token that nothing is asked of would be anybody's of its issuer.
fn claims(section: &Section<'_>) -> Option<BTreeMap<String, String>> {
    let pairs = section.need("claims", section.pairs("claims"), CLAIMS_FIX)?;
    if pairs.value.is_empty() {
        pairs.fault("is empty: any token of its issuer would do", CLAIMS_FIX);
        return None;
    }
    let pair =
        |(name, value): (&str, TextSpot<'_>)| Some((name.to_owned(), filled(value, CLAIMS_FIX)?.value.to_owned()));
    pairs.value.into_iter().map(pair).collect()
}

pub(super) fn algorithms(section: &Section<'_>, default: &[&str]) -> Option<Vec<Algorithm>> {
    let Some(list) = section.texts("algorithms") else {
        let has = section.has("algorithms");
        return (!has).then(|| default.iter().filter_map(|name| algorithm(name).ok()).collect());
    };
    if list.value.is_empty() {
        list.fault("is empty: no token would do", ALGORITHMS_FIX);
        return None;
    }
    let parsed: Vec<_> =
        list.value.into_iter().map(|name| Some(name.parse(algorithm, ALGORITHMS_FIX)?.value)).collect();
    parsed.into_iter().collect()
}

fn keys(section: &Section<'_>) -> Option<KeySource> {
    let tls_ca = section.text("tls_ca").map(|file| file.path());
    match (section.text("jwks_url"), section.text("jwks_file")) {
        (Some(url), None) => Some(KeySource::Server(Place { uri: url.parse(safe_url, KEYS_FIX)?.value, tls_ca })),
        (None, Some(file)) => {
            section.misplaced(&["tls_ca"], "belongs to jwks_url", "take it out");
            let path = file.path();
            let shown = plain(&path.display().to_string()).into_owned();
            file.parse(|_| check_keys(&path).map_err(|wrong| format!("{shown} {wrong}")), "name a JWK set (RFC 7517)")?;
            Some(KeySource::File(path))
        }
        (Some(_), Some(file)) => {
            file.fault("stands beside jwks_url", "write one of them");
            None
        }
        (None, None) => {
            if !section.has("jwks_url") && !section.has("jwks_file") {
                section.fault("jwks_url", "is missing, and jwks_file too", KEYS_FIX);
            }
            None
        }
    }
}

/// Where the gateway may ask something.
pub(super) fn safe_url(text: &str) -> Result<Uri, &'static str> {
    let uri: Uri = text.parse().map_err(|_| "is no URL")?;
    if is_safe(&uri) { Ok(uri) } else { Err("is no https:// URL (http:// only to this host itself, by its address)") }
}

pub(super) fn life(section: &Section<'_>, key: &'static str, default: Duration, most: Duration) -> Option<Duration> {
    let Some(life) = section.text(key) else { return (!section.has(key)).then_some(default) };
    let within = |text: &str| match value::positive_duration(text)? {
        life if life <= most => Ok(life),
        _ => Err(format!("is more than {}", value::show_duration(most))),
    };
    Some(life.parse(within, DURATION_FIX)?.value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elsewhere::ALGORITHMS;

    #[test]
    fn every_algorithm_that_may_be_listed_is_one_of_public_keys() {
        let parsed: Vec<_> = ALGORITHMS.iter().map(|name| algorithm(name)).collect();
        assert!(parsed.iter().all(Result::is_ok), "{parsed:?}");
        assert!(["none", "HS256", "HS384", "HS512", "rs256", ""].iter().all(|name| algorithm(name).is_err()));
    }

    #[test]
    fn only_what_nobody_can_listen_to_is_asked() {
        let safe = |text: &str| safe_url(text).is_ok();
        assert!(safe("https://login.example.com/keys") && safe("http://127.0.0.1:8000/") && safe("http://[::1]/"));
        assert!(!safe("http://login.example.com/") && !safe("http://localhost/") && !safe("ftp://127.0.0.1/"));
        assert!(!safe("https://u@login.example.com/") && !safe("login.example.com") && !safe(""));
    }
}
