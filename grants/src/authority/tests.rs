#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use super::*;
use crate::{
    LeaseKind, LeasePlan, Terms,
    fixture::*,
    grant::{Claims, GrantState, jws},
};
use ed25519_dalek::SigningKey;
use jiff::SignedDuration;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeSet;

fn name(text: &str) -> IdentityName {
    text.parse().unwrap()
}

async fn issue(authority: &Authority, request: IssueRequest) -> GrantId {
    authority.issue(&name("carol"), request, now()).await.unwrap()
}

#[tokio::test]
async fn no_grant_opens_nothing_and_each_refusal_says_why() {
    let (_dir, authority) = authority();
    let refused = async |ask: Ask| authority.authorize(&ask, now()).await.unwrap_err();
    assert!(matches!(refused(ssh("alice", "deploy", "nowhere")).await, Denied::UnknownTarget(_)));
    assert!(matches!(refused(ssh("mallory", "deploy", "web-1")).await, Denied::UnknownTarget(_)));
    assert!(matches!(refused(ssh("stranger", "deploy", "web-1")).await, Denied::UnknownTarget(_)));
    assert!(matches!(refused(ssh("alice", "root", "web-1")).await, Denied::WrongAccess { .. }));
    let denied = refused(ssh("alice", "deploy", "web-1")).await;
    assert!(matches!(&denied, Denied::NoGrant { entitlements, .. } if entitlements.len() == 1), "{denied}");
    let written = authority.store().tail(5).await.unwrap();
    assert!(written.iter().all(|entry| entry.event.kind == "session.denied"), "{written:?}");
}

#[tokio::test]
async fn a_grant_opens_exactly_what_it_is_for() {
    let (_dir, authority) = authority();
    let narrowed = IssueRequest { login: Some("www".parse().unwrap()), ..request("alice", "web-1", "shell") };
    let id = issue(&authority, narrowed).await;
    let permit = authority.authorize(&ssh("alice", "www", "web-1"), now()).await.unwrap();
    assert_eq!((permit.grant(), permit.expires()), (id, after(600)));
    authority.recheck(&permit, after(1)).await.unwrap();
    let denied = authority.authorize(&ssh("alice", "deploy", "web-1"), now()).await.unwrap_err();
    assert!(matches!(denied, Denied::NoGrant { .. }), "{denied}");
    let denied = authority.authorize(&ssh("bob", "www", "web-1"), now()).await.unwrap_err();
    assert!(matches!(denied, Denied::NoGrant { .. }), "someone else's grant: {denied}");
    let denied = authority.authorize(&ssh("alice", "www", "web-1"), after(600)).await.unwrap_err();
    assert!(matches!(denied, Denied::Expired { at, .. } if at == after(600)), "{denied}");
    let rows = authority.store().sessions(crate::Listing::all()).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].id, rows[0].access.as_str()), (permit.session(), "www"));
}

#[tokio::test]
async fn several_entitlements_must_be_named_and_the_later_end_serves() {
    let (_dir, authority) = authority();
    issue(&authority, request("alice", "orders", "readonly")).await;
    let longer = IssueRequest { duration: Duration::from_secs(900), ..request("alice", "orders", "readonly") };
    let longer = issue(&authority, longer).await;
    issue(&authority, request("alice", "orders", "write")).await;
    let denied = authority.authorize(&sql("alice", "shop", None), now()).await.unwrap_err();
    assert!(matches!(&denied, Denied::Ambiguous { entitlements, .. } if entitlements.len() == 2), "{denied}");
    let permit = authority.authorize(&sql("alice", "shop", Some("readonly")), now()).await.unwrap();
    assert_eq!(permit.grant(), longer);
    assert_eq!(permit.roles(), BTreeSet::from(["shop_reader".parse().unwrap()]));
    let seen = authority.foresee(&name("alice"), &"orders".parse().unwrap(), now()).await.unwrap();
    assert_eq!(seen, after(900));
    let denied = authority.foresee(&name("bob"), &"orders".parse().unwrap(), now()).await.unwrap_err();
    assert!(matches!(denied, Denied::NoGrant { .. }), "{denied}");
}

#[tokio::test]
async fn a_limit_of_connections_counts_live_permits() {
    let (_dir, authority) = authority();
    issue(&authority, request("alice", "orders", "readonly")).await;
    let ask = sql("alice", "shop", None);
    let first = authority.authorize(&ask, now()).await.unwrap();
    let _second = authority.authorize(&ask, now()).await.unwrap();
    let denied = authority.authorize(&ask, now()).await.unwrap_err();
    assert!(matches!(denied, Denied::TooMany { limit: 2, .. }), "{denied}");
    drop(first);
    let third = authority.authorize(&ask, now()).await.unwrap();
    // Its client is gone, its teardown is not done: the place is free.
    third.vacate();
    let _fourth = authority.authorize(&ask, now()).await.unwrap();
    let denied = authority.authorize(&ask, now()).await.unwrap_err();
    assert!(matches!(denied, Denied::TooMany { .. }), "{denied}");
}

#[tokio::test]
async fn a_single_use_grant_lets_exactly_one_of_ten_thousand_in() {
    // Each refusal is in the ledger, and a disk takes its time for ten thousand of them.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let authority = authority_in(dir.path());
    issue(&authority, IssueRequest { single_use: true, ..request("alice", "web-1", "shell") }).await;
    let authority = Arc::new(authority);
    let mut attempts = tokio::task::JoinSet::new();
    for _ in 0..10_000 {
        let authority = authority.clone();
        attempts.spawn(async move { authority.authorize(&ssh("alice", "deploy", "web-1"), now()).await });
    }
    let (open, refused): (Vec<_>, Vec<_>) = attempts.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(open.len(), 1);
    assert!(refused.iter().all(|r| matches!(r, Err(Denied::Used { .. }))), "{refused:?}");
    let permit = open.into_iter().next().unwrap().unwrap();
    authority.recheck(&permit, after(1)).await.unwrap();
    assert_eq!(authority.grants(crate::Listing::all(), now()).await.unwrap()[0].state, GrantState::Used);
}

#[tokio::test]
async fn revocation_ends_the_live_permit_at_once() {
    let (_dir, authority) = authority();
    let id = issue(&authority, request("alice", "web-1", "shell")).await;
    let permit = authority.authorize(&ssh("alice", "deploy", "web-1"), now()).await.unwrap();
    let denied = authority.revoke(&name("bob"), &id.short(), None, now()).await.unwrap_err();
    assert!(matches!(denied, GrantError::Refused(_)), "bob is no admin");
    let reason = Some("over\u{1b}[31m".to_owned());
    assert_eq!(authority.revoke(&name("carol"), &id.short(), reason, after(5)).await.unwrap(), id);
    assert_eq!(permit.ended().await, Ended::Revoked { by: "carol".to_owned(), reason: Some("over [31m".to_owned()) });
    let denied = authority.recheck(&permit, after(6)).await.unwrap_err();
    assert!(matches!(denied, Denied::Revoked { .. }), "{denied}");
    let denied = authority.authorize(&ssh("alice", "deploy", "web-1"), after(6)).await.unwrap_err();
    assert!(matches!(denied, Denied::Revoked { .. }), "{denied}");
    authority.revoke(&name("carol"), &id.to_string(), None, after(7)).await.unwrap();
    let view = authority.grant(&id.short(), after(7)).await.unwrap();
    assert_eq!((view.state, view.revoked.unwrap().at), (GrantState::Revoked, after(5)));
}

#[tokio::test]
async fn a_permit_ends_with_its_grant() {
    let (_dir, authority) = authority();
    issue(&authority, request("alice", "web-1", "shell")).await;
    let permit = authority.authorize(&ssh("alice", "deploy", "web-1"), after(599)).await.unwrap();
    let before = Instant::now();
    assert_eq!(permit.ended().await, Ended::Expired { at: after(600) });
    assert!(before.elapsed() >= Duration::from_millis(900), "ended before its time");
    assert_eq!(permit.ended().await, Ended::Expired { at: after(600) }, "may be asked again");
}

#[tokio::test]
async fn a_reload_ends_what_it_takes_away_and_nothing_else() {
    let (_dir, authority) = authority();
    issue(&authority, request("alice", "web-1", "shell")).await;
    issue(&authority, request("bob", "web-1", "shell")).await;
    let alice = authority.authorize(&ssh("alice", "deploy", "web-1"), now()).await.unwrap();
    let bob = authority.authorize(&ssh("bob", "deploy", "web-1"), now()).await.unwrap();
    let mut smaller = policy();
    smaller.identities.remove(&name("alice"));
    authority.replace(smaller);
    assert_eq!(alice.ended().await, Ended::Withdrawn);
    authority.recheck(&bob, after(1)).await.unwrap();
    assert!(authority.recheck(&alice, after(1)).await.is_err());
    let mut without = policy();
    if let Terms::Ssh { logins, .. } = &mut without.entitlements.get_mut(&"shell".parse().unwrap()).unwrap().terms {
        logins.remove(&"deploy".parse().unwrap());
    }
    authority.replace(without);
    assert_eq!(bob.ended().await, Ended::Withdrawn);
}

#[tokio::test]
async fn issuing_follows_the_rules() {
    let (_dir, authority) = authority();
    let refused = async |by: &str, request: IssueRequest| {
        let Err(GrantError::Refused(why)) = authority.issue(&name(by), request, now()).await else {
            panic!("was not refused")
        };
        why
    };
    assert!(refused("alice", request("bob", "web-1", "shell")).await.contains("admins"));
    assert!(refused("carol", request("carol", "web-1", "shell")).await.contains("themselves"));
    assert!(refused("carol", request("nobody", "web-1", "shell")).await.contains("no user"));
    assert!(refused("carol", request("alice", "nowhere", "shell")).await.contains("no target"));
    assert!(refused("carol", request("alice", "web-1", "none")).await.contains("no entitlement"));
    assert!(refused("carol", request("alice", "orders", "shell")).await.contains("does not reach"));
    assert!(refused("carol", request("mallory", "web-1", "shell")).await.contains("groups"));
    let long = IssueRequest { duration: Duration::from_secs(3601), ..request("alice", "web-1", "shell") };
    assert_eq!(refused("carol", long).await, "shell lasts at most 1h");
    let none = IssueRequest { duration: Duration::ZERO, ..request("alice", "web-1", "shell") };
    assert!(refused("carol", none).await.contains("second"));
    let wide = IssueRequest { login: Some("root".parse().unwrap()), ..request("alice", "web-1", "shell") };
    assert!(refused("carol", wide).await.contains("no login root"));
    assert!(authority.grants(crate::Listing::all(), now()).await.unwrap().is_empty());
}

#[tokio::test]
async fn importing_is_idempotent_and_bound_to_its_issuer() {
    let (_dir, authority) = authority();
    let carol = name("carol");
    let token = hs256(&claims("servicedesk", "T-1"));
    let id = authority.import(&carol, &token, now()).await.unwrap();
    assert_eq!(authority.import(&carol, &format!("{token}\n"), after(700)).await.unwrap(), id);
    let other = Claims { exp: now().as_second() + 601, ..claims("servicedesk", "T-1") };
    assert!(authority.import(&carol, &hs256(&other), now()).await.is_err(), "another grant with the same jti");
    assert!(authority.import(&name("alice"), &token, now()).await.is_err(), "only admins import");
    let permit = authority.authorize(&sql("alice", "shop", None), now()).await.unwrap();
    assert_eq!(permit.grant(), id);

    let refused = async |claims: serde_json::Value| {
        let error = authority.import(&carol, &hs256(&claims), now()).await.unwrap_err();
        assert!(matches!(error, GrantError::Refused(_)), "{error}");
    };
    let iat = now().as_second();
    for (claim, value) in [
        ("iss", json!("gate")),
        ("iss", json!("ticketing")),
        ("iss", json!("unheard-of")),
        ("aud", json!("othergate")),
        ("aud", json!(["gate"])),
        ("sub", json!("bo,b")),
        ("jti", json!("")),
        ("jti", json!("a\nb")),
        ("exp", json!(iat)),
        ("exp", json!(iat + 1201)),
        ("exp", json!(iat as f64 + 10.5)),
        ("exp", json!(i64::MAX)),
        ("iat", json!(iat + 300)),
        ("nbf", json!(iat - 900)),
        ("iat", json!(-1)),
        ("entitlement", json!("write")),
        ("entitlement", json!("shell")),
        ("target", json!("web-1")),
        ("login", json!("deploy")),
        ("database", json!("secrets")),
        ("roles", json!(["shop_writer"])),
        ("reason", json!("x".repeat(501))),
    ] {
        let mut changed = serde_json::to_value(base()).unwrap();
        changed[claim] = value;
        refused(changed).await;
    }
    for (claim, value, said) in [
        ("nbf", serde_json::Value::Null, "nbf must be a whole number"),
        ("exp", json!("1800000000"), "exp must be a whole number"),
        ("exp", json!(iat as f64 + 0.5), "exp must be a whole number"),
        ("aud", json!(["gate"]), "aud must be one string"),
        ("sub", json!("bo,b"), "sub must be a name"),
        ("roles", json!("shop_reader"), "roles must be a list"),
        ("single_use", json!(1), "single_use must be true or false"),
    ] {
        let mut changed = serde_json::to_value(base()).unwrap();
        changed[claim] = value;
        let error = authority.import(&carol, &hs256(&changed), now()).await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let mut without = serde_json::to_value(base()).unwrap();
    without.as_object_mut().unwrap().remove("nbf");
    let error = authority.import(&carol, &hs256(&without), now()).await.unwrap_err().to_string();
    assert!(error.contains("nbf is missing"), "{error}");
    let mut extra = serde_json::to_value(base()).unwrap();
    extra["some_other_claim"] = json!({ "a": 1 });
    authority.import(&carol, &hs256(&extra), now()).await.unwrap();
}

fn base() -> Claims {
    claims("servicedesk", "T-2")
}

#[tokio::test]
async fn the_algorithm_is_the_configured_one_whatever_the_token_says() {
    let (_dir, authority) = authority();
    let carol = name("carol");
    let public = SigningKey::from_bytes(&[9; 32]).verifying_key().to_bytes();
    // The classic: HMAC with the public key as its secret.
    let confused = jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims("ticketing", "T-3"),
        &EncodingKey::from_secret(&public),
    )
    .unwrap();
    assert!(authority.import(&carol, &confused, now()).await.is_err());
    let encode = |text: &str| {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    };
    let payload = encode(&serde_json::to_string(&claims("servicedesk", "T-4")).unwrap());
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"HS512"}"#, r#"{"typ":"JWT"}"#] {
        let error = authority.import(&carol, &format!("{}.{payload}.", encode(header)), now()).await.unwrap_err();
        assert!(error.to_string().contains("alg"), "{error}");
    }
    let mut critical = Header::new(Algorithm::HS256);
    critical.crit = Some(vec!["b64".to_owned()]);
    let critical =
        jsonwebtoken::encode(&critical, &claims("servicedesk", "T-5"), &EncodingKey::from_secret(SECRET)).unwrap();
    assert!(authority.import(&carol, &critical, now()).await.is_err());
    let good = jws::sign(&SigningKey::from_bytes(&[9; 32]), &claims("ticketing", "T-6")).unwrap();
    authority.import(&carol, &good, now()).await.unwrap();
}

proptest! {
    #[test]
    fn any_flipped_bit_of_a_token_denies(at in any::<prop::sample::Index>(), bit in 0_u8..8, outside in any::<bool>()) {
        let policy = policy();
        let key = SigningKey::from_bytes(&[8; 32]);
        let token = if outside {
            hs256(&claims("servicedesk", "T-7"))
        } else {
            let ours = Claims { iss: "gate".to_owned(), ..claims("gate", "T-8") };
            jws::sign(&key, &ours).unwrap()
        };
        let own = key.verifying_key().to_bytes();
        prop_assert!(jws::verify(&token, &policy, &own).is_ok());
        let mut bytes = token.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(flipped) = String::from_utf8(bytes) {
            prop_assert!(jws::verify(&flipped, &policy, &own).is_err());
        }
    }

    #[test]
    fn no_text_makes_verification_panic(token in ".{0,200}", parts in prop::collection::vec("[A-Za-z0-9_-]{0,60}", 3)) {
        let own = [1; 32];
        prop_assert!(jws::verify(&token, &policy(), &own).is_err());
        prop_assert!(jws::verify(&parts.join("."), &policy(), &own).is_err());
    }
}

#[tokio::test]
async fn an_edited_grant_opens_nothing_but_teardown_goes_on() {
    let (dir, authority) = authority();
    issue(&authority, request("alice", "web-1", "shell")).await;
    let permit = authority.authorize(&ssh("alice", "deploy", "web-1"), now()).await.unwrap();
    let plan = LeasePlan { kind: LeaseKind::SshCertificate, name: "deploy".to_owned(), detail: json!({}) };
    let mut lease = authority.store().lease(&permit, plan, now()).await.unwrap();

    let other = rusqlite::Connection::open(dir.path().join("tidegate.db")).unwrap();
    other.execute("UPDATE grants SET added_by = 'mallory'", []).unwrap();
    let denied = authority.authorize(&ssh("alice", "deploy", "web-1"), now()).await.unwrap_err();
    assert!(matches!(denied, Denied::Untrusted), "{denied}");
    let denied = authority.recheck(&permit, now()).await.unwrap_err();
    assert!(matches!(denied, Denied::Untrusted), "{denied}");
    other.execute("UPDATE grants SET added_by = 'carol'", []).unwrap();
    let denied = authority.authorize(&ssh("alice", "deploy", "web-1"), now()).await.unwrap_err();
    assert!(matches!(denied, Denied::Untrusted), "once distrusted, it stays so: {denied}");
    authority.store().disabled(&mut lease, after(1)).await.unwrap();
    assert_eq!(lease.state(), crate::LeaseState::Disabled);
}

#[tokio::test]
async fn a_session_ends_with_the_hours_of_its_entitlement() {
    let (_dir, authority) = authority();
    let mut policy = policy();
    let hours = crate::hours::Hours::new("mon-sun", "00:00", "12:00", "UTC").unwrap();
    policy.entitlements.get_mut(&"shell".parse().unwrap()).unwrap().conditions.hours = Some(hours);
    authority.replace(policy.clone());
    // What is now in these tests is noon, when they end.
    let before = now() - Duration::from_secs(1);
    authority.issue(&name("carol"), request("alice", "web-1", "shell"), before).await.unwrap();
    let ask = ssh("alice", "deploy", "web-1");
    let permit = authority.authorize(&ask, before).await.unwrap();
    let other = authority.authorize(&ask, before).await.unwrap();
    let refused = authority.authorize(&ask, now()).await;
    assert!(matches!(&refused, Err(Denied::Shut { next: Some(next), .. }) if *next == after(12 * 3600)), "{refused:?}");
    assert!(matches!(authority.recheck(&permit, now()).await, Err(Denied::Shut { .. } | Denied::Expired { .. })));
    assert_eq!(permit.ended().await, Ended::Shut { at: now() });
    drop((permit, other));
    // A reload that changes them ends what was let in under the old ones.
    let permit = authority.authorize(&ask, before).await.unwrap();
    let hours = crate::hours::Hours::new("mon-sun", "00:00", "11:00", "UTC").unwrap();
    policy.entitlements.get_mut(&"shell".parse().unwrap()).unwrap().conditions.hours = Some(hours);
    authority.replace(policy);
    assert_eq!(permit.ended().await, Ended::Withdrawn);
}

#[tokio::test]
async fn max_sessions_counts_the_sessions_of_one_identity_under_the_entitlement() {
    let (_dir, authority) = authority();
    let mut policy = policy();
    policy.entitlements.get_mut(&"shell".parse().unwrap()).unwrap().conditions.max_sessions = Some(2);
    authority.replace(policy);
    for who in ["alice", "bob"] {
        issue(&authority, request(who, "web-1", "shell")).await;
    }
    let ask = ssh("alice", "deploy", "web-1");
    let first = authority.authorize(&ask, now()).await.unwrap();
    let _second = authority.authorize(&ask, now()).await.unwrap();
    assert!(matches!(authority.authorize(&ask, now()).await, Err(Denied::TooManyUnder { limit: 2, .. })));
    authority.authorize(&ssh("bob", "deploy", "web-1"), now()).await.unwrap();
    drop(first);
    authority.authorize(&ask, now()).await.unwrap();
}

#[tokio::test]
async fn a_session_ends_when_the_condition_of_its_entitlement_no_longer_holds() {
    let (_dir, authority) = authority();
    let mut policy = policy();
    let until_one = r#"context.time < datetime("TIME") && context.ip.isInRange(ip("192.0.2.0/24"))"#;
    let until_one = until_one.replace("TIME", &after(60).strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let when = crate::when::When::new(&until_one).unwrap();
    policy.entitlements.get_mut(&"shell".parse().unwrap()).unwrap().conditions.when = Some(when);
    authority.replace(policy);
    issue(&authority, request("alice", "web-1", "shell")).await;
    let ask = ssh("alice", "deploy", "web-1");
    let elsewhere = Ask { source: "198.51.100.7".parse().unwrap(), ..ask.clone() };
    let refused = authority.authorize(&elsewhere, now()).await;
    assert!(matches!(&refused, Err(Denied::Unmet { .. })), "{refused:?}");
    let permit = authority.authorize(&ask, now()).await.unwrap();
    authority.end_unmet(after(59));
    authority.recheck(&permit, after(59)).await.unwrap();
    let refused = authority.recheck(&permit, after(60)).await;
    assert!(matches!(&refused, Err(Denied::Unmet { .. })), "{refused:?}");
    authority.end_unmet(after(60));
    assert_eq!(permit.ended().await, Ended::Unmet);
    assert!(matches!(authority.authorize(&ask, after(60)).await, Err(Denied::Unmet { .. })));
}

#[tokio::test]
async fn that_a_grant_ends_soon_is_said_once_and_never_of_what_is_short_or_over() {
    let (dir, authority) = authority();
    let long = issue(&authority, request("alice", "web-1", "shell")).await;
    let short = IssueRequest { duration: Duration::from_secs(300), ..request("bob", "web-1", "shell") };
    authority.issue(&name("carol"), short, now()).await.unwrap();
    let revoked = issue(&authority, request("bob", "web-1", "shell")).await;
    authority.revoke(&name("carol"), &revoked.to_string(), None, now()).await.unwrap();
    let end = authority.grant(&long.to_string(), now()).await.unwrap().ends;
    let soon = end - SignedDuration::from_secs(299);
    assert_eq!(authority.tell_endings(soon - SignedDuration::from_secs(2)).await.unwrap(), 0);
    assert_eq!(authority.tell_endings(soon).await.unwrap(), 1);
    assert_eq!(authority.tell_endings(soon).await.unwrap(), 0);
    let entries = authority.store().tail(1).await.unwrap();
    assert_eq!((entries[0].event.kind.as_str(), entries[0].event.grant), ("grant.ending", Some(long)));
    authority.authorize(&ssh("alice", "deploy", "web-1"), soon).await.unwrap();
    drop(authority);
    let again = authority_in(dir.path());
    assert_eq!(again.tell_endings(soon).await.unwrap(), 0, "nor after a restart");
}
