//! Signing and verifying grants.
//!
//! What always holds: the key and the algorithm come from the configuration's entry for the issuer, never from the
//! token (RFC 8725 sections 3.1, 3.2), and each claim is checked against the policy in force at the moment of use.
//! `jsonwebtoken` does the encoding and the signatures; the checks of claims are all here, because time is an argument
//! and ours are stricter.
//!
//! Stricter than the RFC on purpose: `aud` is one string, times are whole seconds, a header with `crit` is refused.
//! Claims that we do not know are passed over.

use super::{Claims, IssuerKey, WAITS};
use crate::{asking::LevelRule, entitlement::Terms, name::Access, policy::Policy, text};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{SigningKey, pkcs8::EncodePrivateKey};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::ExposeSecret;
use serde::Deserialize;
use std::{collections::HashSet, time::Duration};

/// A token is at most this long.
const MOST_TOKEN: usize = 16 * 1024;
/// The most characters of `iss`, `jti`, `ticket` and an approver's name.
const MOST_NAME: usize = 256;
/// The most approvals in one grant.
const MOST_APPROVALS: usize = 32;
/// How far an issuer's clock may be ahead of ours, in seconds.
const AHEAD: i64 = 60;
/// The last second of the year 9999.
const LAST_SECOND: i64 = 253_402_300_799;

/// Why a token is no grant here, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Invalid(pub(crate) String);

fn invalid<T>(why: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(why.into()))
}

/// A grant whose signature, issuer, audience and terms hold under the policy in force. Time and revocation are not
/// looked at yet.
#[derive(Debug, Clone)]
pub(crate) struct Verified {
    pub(crate) claims: Claims,
    /// Whether it stands for an approval where an entitlement asks for one.
    pub(crate) counts_as_approval: bool,
}

/// Signs one of our own.
pub(crate) fn sign(key: &SigningKey, claims: &Claims) -> Result<String, Invalid> {
    let failed = || Invalid("the grant could not be signed".to_owned());
    let der = key.to_pkcs8_der().map_err(|_| failed())?;
    let key = EncodingKey::from_ed_der(der.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &key).map_err(|_| failed())
}

/// Verifies a token: who signed it, that it is for us, and that it fits what the configuration says now.
pub(crate) fn verify(token: &str, policy: &Policy, own: &[u8; 32]) -> Result<Verified, Invalid> {
    let own = own_key(own);
    let iss = peek::<Issued>(token)?.iss;
    if iss == policy.gateway {
        let claims = check(open(token, &own)?, policy, None)?;
        check_approvals(&claims, policy)?;
        return Ok(Verified { claims, counts_as_approval: true });
    }
    let Some(issuer) = policy.issuers.get(&iss) else {
        return invalid(format!("its issuer {:?} is not in the configuration", text::line(&iss, 64)));
    };
    let claims = check(open(token, &issuer.key)?, policy, Some(issuer.max_ttl))?;
    if !issuer.entitlements.contains(&claims.entitlement) {
        return invalid(format!("{iss} may not grant {}", claims.entitlement));
    }
    if !issuer.counts_as_approval && !levels(&claims, policy).is_empty() {
        return invalid(format!("{} asks for approvals, and a grant of {iss} is none", claims.entitlement));
    }
    Ok(Verified { claims, counts_as_approval: issuer.counts_as_approval })
}

/// What is checked once, when a grant comes in: that it was not issued in the future, and has not ended.
pub(crate) fn fresh(claims: &Claims, now: Timestamp) -> Result<(), Invalid> {
    if claims.iat > now.as_second() + AHEAD {
        return invalid("it was issued in the future: is a clock wrong?");
    }
    if claims.exp <= now.as_second() {
        return invalid(format!("it expired at {}", at(claims.exp)));
    }
    Ok(())
}

/// The claims of a token that nobody vouches for, to show what it says of itself.
pub(crate) fn unverified(token: &str) -> Option<Claims> {
    peek(token).ok()
}

/// A second as a timestamp; claims are checked to be in range.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
}

fn own_key(public: &[u8; 32]) -> IssuerKey {
    IssuerKey::EdDsa(*public)
}

#[derive(Deserialize)]
struct Issued {
    iss: String,
}

/// The payload, before anything is verified: only to find the key, or to show it.
fn peek<T: serde::de::DeserializeOwned>(token: &str) -> Result<T, Invalid> {
    if token.len() > MOST_TOKEN {
        return invalid("it is longer than 16 KiB");
    }
    let mut parts = token.split('.');
    let (Some(header), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return invalid("it is not a JWT in compact form");
    };
    let json = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Invalid("it is not base64url".to_owned()));
    let header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&json(header)?).map_err(|_| Invalid("its header is not JSON".to_owned()))?;
    if header.contains_key("crit") {
        return invalid("its header asks for an extension (crit) that we do not know");
    }
    let claims = serde_json::from_slice(&json(payload)?).map_err(|_| Invalid("its claims are not JSON".to_owned()))?;
    typed(claims)
}

/// Claims as their type. The error names the claim; serde's would repeat the input.
fn typed<T: serde::de::DeserializeOwned>(claims: serde_json::Map<String, serde_json::Value>) -> Result<T, Invalid> {
    let wrong = wrong_claim(&claims);
    serde_json::from_value(claims.into()).map_err(|_| wrong)
}

/// The first claim that is not what it should be.
fn wrong_claim(claims: &serde_json::Map<String, serde_json::Value>) -> Invalid {
    use serde_json::Value;
    type Fits = fn(&Value) -> bool;
    const NAME: (&str, Fits) = ("a name as in the configuration", |value| value.is_string());
    const TEXT: (&str, Fits) = ("a string", Value::is_string);
    const SECOND: (&str, Fits) = ("a whole number of seconds since 1970", Value::is_i64);
    let must = [
        ("iss", TEXT),
        ("sub", NAME),
        ("aud", ("one string, not a list", Value::is_string)),
        ("jti", TEXT),
        ("iat", SECOND),
        ("nbf", SECOND),
        ("exp", SECOND),
        ("target", NAME),
        ("entitlement", NAME),
    ];
    let may = [
        ("login", NAME),
        ("database", NAME),
        ("roles", ("a list of names", Value::is_array)),
        ("reason", TEXT),
        ("ticket", TEXT),
        ("approvals", ("a list of objects with by, at and level", Value::is_array)),
        ("single_use", ("true or false", Value::is_boolean)),
        ("lasts", ("a whole number of seconds", Value::is_i64)),
    ];
    for (claim, (what, fits)) in must {
        match claims.get(claim) {
            None => return Invalid(format!("its claim {claim} is missing: it must be {what}")),
            Some(value) if !fits(value) => return Invalid(format!("its claim {claim} must be {what}")),
            Some(_) => {}
        }
    }
    let null_or = |claim: &str, value: &Value| value.is_null() && !["approvals", "single_use"].contains(&claim);
    for (claim, (what, fits)) in may {
        if claims.get(claim).is_some_and(|value| !fits(value) && !null_or(claim, value)) {
            return Invalid(format!("its claim {claim} must be {what}"));
        }
    }
    // Of the right kind all of them, so one does not have the form that it should.
    let bad = |claim: &str| match (claim, claims.get(claim)) {
        ("sub", Some(value)) => serde_json::from_value::<crate::name::IdentityName>(value.clone()).is_err(),
        ("target", Some(value)) => serde_json::from_value::<crate::name::TargetName>(value.clone()).is_err(),
        ("entitlement", Some(value)) => serde_json::from_value::<crate::name::EntitlementName>(value.clone()).is_err(),
        ("login", Some(value)) => serde_json::from_value::<Option<crate::name::Login>>(value.clone()).is_err(),
        ("database", Some(value)) => {
            serde_json::from_value::<Option<crate::name::DatabaseName>>(value.clone()).is_err()
        }
        ("approvals", Some(value)) => serde_json::from_value::<Vec<super::Level>>(value.clone()).is_err(),
        _ => false,
    };
    let all = must.iter().chain(&may).find(|(claim, _)| bad(claim));
    let (claim, (what, _)) = all.unwrap_or(&("roles", ("a list of names", Value::is_array)));
    Invalid(format!("its claim {claim} must be {what}"))
}

/// What the header says that the algorithm is.
fn algorithm_of(token: &str) -> Option<String> {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?;
    let header: serde_json::Value = serde_json::from_slice(&header).ok()?;
    header.get("alg")?.as_str().map(str::to_owned)
}

/// Verifies the signature with the pinned algorithm.
fn open(token: &str, key: &IssuerKey) -> Result<Claims, Invalid> {
    let (algorithm, name, key) = match key {
        IssuerKey::Hs256(secret) => (Algorithm::HS256, "HS256", DecodingKey::from_secret(secret.expose_secret())),
        IssuerKey::EdDsa(public) => (Algorithm::EdDSA, "EdDSA", DecodingKey::from_ed_der(public)),
    };
    // Only to say it plainly: jsonwebtoken accepts none but the pinned one anyway.
    match algorithm_of(token) {
        Some(said) if said == name => {}
        Some(said) => {
            return invalid(format!("its algorithm (alg) is {:?}, its issuer's is {name}", text::line(&said, 16)));
        }
        None => return invalid(format!("its header names no algorithm (alg); its issuer's is {name}")),
    }
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims = HashSet::new();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    match jsonwebtoken::decode::<serde_json::Map<String, serde_json::Value>>(token, &key, &validation) {
        Ok(data) => typed(data.claims),
        Err(error) => invalid(match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => "its signature is not that of its issuer",
            jsonwebtoken::errors::ErrorKind::InvalidAlgorithm => "its algorithm is not the one of its issuer",
            _ => "it is not a JWT that can be read",
        }),
    }
}

/// Every claim against the policy in force.
fn check(claims: Claims, policy: &Policy, max_ttl: Option<Duration>) -> Result<Claims, Invalid> {
    if claims.aud != policy.gateway {
        return invalid(format!("it is for the gateway {:?}, not for this one", text::line(&claims.aud, 64)));
    }
    check_texts(&claims)?;
    let seconds = [claims.iat, claims.nbf, claims.exp];
    if !seconds.iter().all(|s| (0..=LAST_SECOND).contains(s)) || claims.exp <= claims.nbf || claims.exp <= claims.iat {
        return invalid("its times make no sense");
    }
    if claims.lasts.is_some_and(|lasts| lasts <= 0 || lasts > claims.exp - claims.nbf) {
        return invalid("its times make no sense: it would last longer than it is good");
    }
    let identity = policy.identities.get(&claims.sub);
    let Some(identity) = identity else { return invalid(format!("there is no user {}", claims.sub)) };
    let Some(target) = policy.targets.get(&claims.target) else {
        return invalid(format!("there is no target {}", claims.target));
    };
    let Some(entitlement) = policy.entitlements.get(&claims.entitlement) else {
        return invalid(format!("there is no entitlement {}", claims.entitlement));
    };
    if !entitlement.is_for(identity) {
        return invalid(format!("{} is not in the groups of {}", claims.sub, claims.entitlement));
    }
    if !entitlement.reaches(target) {
        return invalid(format!("{} does not reach {}", claims.entitlement, claims.target));
    }
    check_terms(&claims, &entitlement.terms)?;
    let span = claims.exp - claims.iat.min(claims.nbf);
    let most = entitlement.max_duration;
    // What waits for its first session is good for longer, and lasts no longer.
    let (lasts, good) = claims.lasts.map_or((span, most), |lasts| (lasts, most.saturating_add(WAITS)));
    let spans = [
        (span, max_ttl, "max_ttl of its issuer"),
        (lasts, Some(most), "max_duration"),
        (span, Some(good), "max_duration"),
    ];
    for (span, limit, whose) in spans {
        if limit.is_some_and(|limit| i64::try_from(limit.as_secs()).is_ok_and(|limit| span > limit)) {
            return invalid(format!("it lasts longer than {whose} allows"));
        }
    }
    Ok(claims)
}

/// The levels that the entitlement asks for.
fn levels<'a>(claims: &Claims, policy: &'a Policy) -> &'a [LevelRule] {
    let asking = policy.entitlements.get(&claims.entitlement).and_then(|entitlement| entitlement.asking.as_ref());
    asking.map_or(&[], |asking| &asking.levels)
}

/// As many others as each level asks for have said yes, each on one level, with the proof that it asks for. (Who was in which group
/// was looked at when they did: people leave.)
fn check_approvals(claims: &Claims, policy: &Policy) -> Result<(), Invalid> {
    let mut spent: HashSet<&str> = HashSet::from([claims.sub.as_str()]);
    for (number, rule) in (1..).zip(levels(claims, policy)) {
        let said = claims.approvals.iter().filter(|yes| yes.level == number && yes.proof >= rule.proof);
        let counted = said.filter(|yes| spent.insert(&yes.by)).count();
        if u32::try_from(counted).unwrap_or(u32::MAX) < rule.count {
            return invalid(format!("{} asks for more approvals on level {number} than it has", claims.entitlement));
        }
    }
    Ok(())
}

/// A grant may only narrow its entitlement.
fn check_terms(claims: &Claims, terms: &Terms) -> Result<(), Invalid> {
    let entitlement = &claims.entitlement;
    match terms {
        Terms::Ssh { logins, .. } => {
            if claims.database.is_some() || claims.roles.is_some() {
                return invalid(format!("{entitlement} is for SSH: it has no database and no roles"));
            }
            match &claims.login {
                Some(login) if !logins.contains(login) => invalid(format!("{entitlement} has no login {login}")),
                _ => Ok(()),
            }
        }
        Terms::Postgres { databases, roles, .. } => {
            if claims.login.is_some() {
                return invalid(format!("{entitlement} is for PostgreSQL: it has no logins"));
            }
            if let Some(database) = claims.database.as_ref().filter(|d| !databases.contains(d)) {
                return invalid(format!("{entitlement} has no database {database}"));
            }
            match claims.roles.as_ref().and_then(|narrow| narrow.iter().find(|role| !roles.contains(role))) {
                Some(role) => invalid(format!("{entitlement} has no role {role}")),
                None => Ok(()),
            }
        }
    }
}

fn check_texts(claims: &Claims) -> Result<(), Invalid> {
    let names = [Some(&claims.iss), Some(&claims.jti), claims.ticket.as_ref()];
    let approvers = claims.approvals.iter().map(|level| &level.by);
    if claims.jti.is_empty() || !names.into_iter().flatten().chain(approvers).all(|t| text::is_line(t, MOST_NAME)) {
        return invalid("a text in it is empty, too long or has control characters");
    }
    let reason = claims.reason.as_deref().unwrap_or_default();
    if reason.chars().count() > text::LINE || !text::is_line(reason, 4 * text::LINE) {
        return invalid("its reason is too long or has control characters");
    }
    if claims.approvals.len() > MOST_APPROVALS {
        return invalid("it has too many approvals");
    }
    Ok(())
}

impl Claims {
    /// Whether it opens this login or database, as far as it narrows its entitlement.
    pub(crate) fn opens(&self, access: &Access) -> bool {
        match access {
            Access::Login(login) => self.login.as_ref().is_none_or(|only| only == login),
            Access::Database(database) => self.database.as_ref().is_none_or(|only| only == database),
        }
    }
}
