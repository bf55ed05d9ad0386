//! Workloads: a token of their issuer is exchanged for a short one of ours, once, and opens what the entitlement gives.

use super::Outside;
use crate::{
    asking,
    https::{Answer, get, post, send},
};
use serde_json::{Value, json};
use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
};
use tidegate_tests::{
    World, wait_until,
    world::{PATIENCE, Plan},
};

const API: &str = "[api]\nlisten = \"127.0.0.1:0\"\n";
const ISSUER: &str = "https://ci.example.com";

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// What the issuer says of the run that is `ci`.
fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "https://gate.example.com", "sub": "repo:acme/shop:ref:refs/heads/main", "environment": "prod",
        "iat": now(), "exp": now() + 600, "jti": jti(),
    })
}

/// The same, but for this claim; `null`: without it.
fn but(claim: &str, value: Value) -> Value {
    let mut claims = claims();
    let object = claims.as_object_mut().unwrap();
    object.remove(claim);
    if !value.is_null() {
        object.insert(claim.to_owned(), value);
    }
    claims
}

/// Never the same twice.
fn jti() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// `ci` by the issuer's tokens, in `sre`, where `shell` asks for these approvals.
fn plan(outside: &Outside, approvals: &str) -> Plan {
    let workload = |name: &str, keys: &str, environment: &str| {
        format!(
            "[[workload]]\nname = \"{name}\"\ngroups = [\"sre\"]\nissuer = \"{ISSUER}\"\naudience = \"https://gate.example.com\"\n\
             {keys}\nclaims = {{ sub = \"repo:acme/shop:ref:refs/heads/main\", environment = \"{environment}\" }}\nlife = \"10m\"\n"
        )
    };
    let url = format!("jwks_url = \"http://127.0.0.1:{}/keys\"", outside.issuer);
    asking::plan(approvals).block(API).block(workload("ci", &url, "prod")).block(workload("ci-test", &url, "test"))
}

fn exchange(world: &World, token: &str) -> Answer {
    let body = json!({ "token": token }).to_string();
    send(world, "POST", "/v1/workload/token", None, "", &body)
}

/// Our token for it.
fn given(world: &World, token: &str) -> String {
    let answer = exchange(world, token);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["secret"].as_str().unwrap().to_owned()
}

#[test]
fn an_issuers_token_opens_what_the_entitlement_gives_and_nothing_is_stored() {
    let Some(outside) = Outside::start() else { return };
    let world = plan(&outside, "[]").start();
    let jwt = outside.token("es", &claims());
    let token = given(&world, &jwt);
    // It asks for its grant, registers the key that it made, and is in.
    let wish = json!({ "target": "web-1", "entitlement": "shell", "for": "10m", "reason": "deploy 4711" });
    let asked = post(&world, "/v1/requests", &token, &wish);
    assert_eq!((asked.status, asked.json()["state"].as_str()), (200, Some("granted")), "{asked:?}");
    let key = fs::read_to_string(world.client_file("mallory.pub")).unwrap();
    world.exec("mallory", "true").exited(255);
    let registered = post(&world, "/v1/workload/keys", &token, &json!({ "ssh_key": key }));
    assert_eq!((registered.status, registered.json()["identity"].as_str()), (200, Some("ci")), "{registered:?}");
    assert_eq!(world.exec("mallory", "id -un").ok().out(), "deploy");
    assert!(world.control("mallory", &["whoami"]).ok().out().contains("ci"));
    // It is nobody's superior, and sees its own alone.
    let grant = json!({ "user": "alice", "target": "web-1", "entitlement": "shell", "for": "30m", "reason": "x" });
    post(&world, "/v1/grants", &token, &grant).refused(403);
    post(&world, "/v1/tokens", &token, &json!({ "scope": "read", "for": "1d" })).refused(403);
    get(&world, "/v1/leases", &token).refused(403);
    assert_eq!(get(&world, "/v1/grants", &token).json().as_array().unwrap().len(), 1);
    // Somebody else's key is not its own, and a person's token registers none.
    let alices = fs::read_to_string(world.client_file("alice.pub")).unwrap();
    assert!(
        post(&world, "/v1/workload/keys", &token, &json!({ "ssh_key": alices }))
            .refused(422)
            .contains("somebody else's")
    );
    let made =
        world.gateway.cli(&["token", "issue", "--user", "alice", "--for", "1d", "--scope", "all", "--label", "x"]).ok();
    let refused = post(&world, "/v1/workload/keys", &made.out(), &json!({ "ssh_key": key })).refused(403);
    assert!(refused.contains("no workload"), "{refused}");
    // One token, one exchange.
    assert!(exchange(&world, &jwt).refused(422).contains("exchanged already"));
    let ledger = world.gateway.ledger();
    let exchanged = ledger.one("workload.exchanged");
    assert_eq!((exchanged["identity"].as_str(), exchanged["detail"]["issuer"].as_str()), (Some("ci"), Some(ISSUER)));
    assert_eq!(ledger.one("key.lent")["detail"]["how"], "workload");
    world.gateway.until_ledger("session.closed", 1, PATIENCE);
    world.gateway.verify_ledger().ok();
}

#[test]
fn what_a_workload_registered_ends_by_time_and_with_all_that_it_holds() {
    let Some(outside) = Outside::start() else { return };
    let mut world = plan(&outside, "[]").start();
    let register = |world: &World| {
        let token = given(world, &outside.token("rs", &claims()));
        let key = fs::read_to_string(world.client_file("mallory.pub")).unwrap();
        assert_eq!(post(world, "/v1/workload/keys", &token, &json!({ "ssh_key": key })).status, 200);
        token
    };
    let token = register(&world);
    world.restart_gateway();
    world.control("mallory", &["whoami"]).ok();
    world.gateway.cli(&["user", "end", "ci"]).ok();
    world.control("mallory", &["whoami"]).exited(255);
    get(&world, "/v1/grants", &token).refused(401);
    // It may come again: whoever is to be kept out is locked.
    register(&world);
    world.gateway.cli(&["lock", "add", "--user", "ci", "--reason", "leaked"]).ok();
    exchange(&world, &outside.token("rs", &claims())).refused(403);
    world.control("mallory", &["whoami"]).exited(1).says("locked");
    world.gateway.verify_ledger().ok();
}

#[test]
fn approvals_are_asked_of_people_where_the_entitlement_says_so() {
    let Some(outside) = Outside::start() else { return };
    let world = plan(&outside, "[{ from = [\"sales\"] }]").start();
    let token = given(&world, &outside.token("ed", &claims()));
    let wish = json!({ "target": "web-1", "entitlement": "shell", "for": "10m", "reason": "deploy" });
    let asked = post(&world, "/v1/requests", &token, &wish).json();
    assert_eq!(asked["state"], "open", "{asked}");
    let id = asked["id"].as_str().unwrap();
    post(&world, &format!("/v1/requests/{id}/approve"), &token, &json!({})).refused(403);
    world.control("carol", &[&format!("approve {id}")]).ok();
    let granted = get(&world, &format!("/v1/requests/{id}"), &token).json();
    assert_eq!(granted["state"], "granted", "{granted}");
}

#[test]
fn a_token_that_is_not_exactly_what_is_expected_opens_nothing() {
    let Some(outside) = Outside::start() else { return };
    let mut world = plan(&outside, "[]").start();
    let unsigned = |alg: &str| outside.issuer("/test/unsigned", &json!({ "claims": claims(), "alg": alg }));
    let confused = |kid: &str| outside.issuer("/test/confused", &json!({ "claims": claims(), "kid": kid }));
    let text = |answer: Value| answer["token"].as_str().unwrap().to_owned();
    let header = |header: Value| {
        text(outside.issuer("/test/sign", &json!({ "kid": "es", "claims": claims(), "header": header })))
    };
    let good = outside.token("es", &claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let other = outside.token("es", &but("sub", json!("repo:evil/shop:ref:refs/heads/main")));
    let hostile: Vec<(&str, String, &str)> = vec![
        ("alg none", text(unsigned("none")), "algorithm"),
        ("alg None", text(unsigned("None")), "algorithm"),
        ("HS256 with the public key", text(confused("es")), "algorithm"),
        ("HS256 with the RSA key", text(confused("rs")), "algorithm"),
        ("no signature", format!("{signed}."), "signature"),
        ("another's signature", format!("{signed}.{}", other.rsplit_once('.').unwrap().1), "signature"),
        ("other claims", format!("{}.{signature}", other.rsplit_once('.').unwrap().0), "claims"),
        ("another algorithm than the key's", header(json!({ "kid": "rs" })), "no key of its kid"),
        ("an unknown kid", header(json!({ "kid": "gone" })), "no key of its kid"),
        ("a key that is not the issuer's", outside.token("stranger", &claims()), "no key of its kid"),
        (
            "another's key under the issuer's kid",
            text(
                outside
                    .issuer("/test/sign", &json!({ "kid": "stranger", "claims": claims(), "header": { "kid": "es" } })),
            ),
            "signature",
        ),
        ("crit", header(json!({ "b64": true, "crit": ["b64"] })), "crit"),
        ("another audience", outside.token("es", &but("aud", json!("https://other.example.com"))), "somebody else"),
        (
            "a part of the audience",
            outside.token("es", &but("aud", json!("https://gate.example.com.evil"))),
            "somebody else",
        ),
        ("no audience", outside.token("es", &but("aud", Value::Null)), "somebody else"),
        ("another issuer", outside.token("es", &but("iss", json!("https://evil.example.com"))), "no workload"),
        ("no issuer", outside.token("es", &but("iss", Value::Null)), "no workload"),
        ("ended", outside.token("es", &but("exp", json!(now() - 1))), "ended"),
        ("no end", outside.token("es", &but("exp", Value::Null)), "when it ends"),
        ("an end that is a text", outside.token("es", &but("exp", json!("soon"))), "no time"),
        ("not yet", outside.token("es", &but("nbf", json!(now() + 300))), "not good yet"),
        ("made in the future", outside.token("es", &but("iat", json!(now() + 300))), "not good yet"),
        ("good for a year", outside.token("es", &but("exp", json!(now() + 31_536_000))), "stored secret"),
        ("another repository", other.clone(), "claims"),
        (
            "a repository that begins alike",
            outside.token("es", &but("sub", json!("repo:acme/shop:ref:refs/heads/main2"))),
            "claims",
        ),
        ("a list in place of a text", outside.token("es", &but("environment", json!(["prod"]))), "claims"),
        ("a claim that is missing", outside.token("es", &but("environment", Value::Null)), "claims"),
        ("huge", outside.token("es", &but("more", json!("x".repeat(20_000)))), "longer than 16 KiB"),
        ("no token", "tdg_x".to_owned(), "not a JWT"),
        ("nothing", String::new(), "not a JWT"),
        ("dots", "..".to_owned(), "JSON"),
    ];
    for (number, (what, token, why)) in hostile.iter().enumerate() {
        if number % 5 == 4 {
            world.restart_gateway(); // who brings what is not believed waits longer each time
        }
        let refused = exchange(&world, token).refused(403);
        assert!(refused.contains(why), "{what}: {refused}");
    }
    let ledger = world.gateway.ledger();
    assert_eq!(ledger.count("workload.exchanged"), 0);
    assert!(ledger.count("door.refused") > 0, "{}", ledger.story());
    // Which workload it is must be said right, where it is said; and larger bodies are not read.
    let named = |name: &str, token: &str| {
        send(&world, "POST", "/v1/workload/token", None, "", &json!({ "token": token, "workload": name }).to_string())
    };
    named("ci-test", &good).refused(403);
    named("alice", &good).refused(403);
    named("ci", &"x".repeat(100_000)).refused(413);
    assert_eq!(named("ci", &good).status, 200);
    send(&world, "GET", "/v1/workload/token", None, "", "").refused(401);
    send(&world, "POST", "/v1/requests", None, "", "{}").refused(401);
}

#[test]
fn keys_rotate_and_a_server_of_keys_that_misbehaves_lets_nobody_in_and_keeps_nobody_out() {
    let Some(outside) = Outside::start() else { return };
    const MODES: [&str; 5] = ["hang", "huge", "redirect", "nonsense", "500"];
    let faulty = |mode: &&str| {
        format!(
            "[[workload]]\nname = \"ci-{mode}\"\ngroups = [\"sre\"]\nissuer = \"{ISSUER}\"\naudience = \"https://gate.example.com\"\n\
             jwks_url = \"http://127.0.0.1:{}/keys/{mode}\"\nclaims = {{ environment = \"{mode}\" }}\n",
            outside.issuer
        )
    };
    let world = MODES.iter().map(faulty).fold(plan(&outside, "[]"), Plan::block).start();
    let named = |mode: &str| {
        let body =
            json!({ "token": outside.token("es", &but("environment", json!(mode))), "workload": format!("ci-{mode}") });
        send(&world, "POST", "/v1/workload/token", None, "", &body.to_string()).refused(503)
    };
    for mode in MODES {
        let refused = named(mode);
        assert!(refused.contains("keys of its issuer cannot be had"), "{mode}: {refused}");
        // Others are served meanwhile.
        world.control("alice", &["whoami"]).ok();
    }
    let asked = outside.issuer("/test/mode", &json!({ "mode": "ok" }))["asked"].as_u64().unwrap();
    for _ in 0..20 {
        named("500");
    }
    let again = outside.issuer("/test/mode", &json!({ "mode": "ok" }))["asked"].as_u64().unwrap() - asked;
    assert!(again < 20, "the server was asked {again} times for 20 knocks");
    let until = |token: &str, status: u16| {
        wait_until(PATIENCE, "the keys are asked for again", || {
            (exchange(&world, token).status == status).then_some(())
        });
    };
    until(&outside.token("es", &claims()), 200);
    // A new key is found by its name.
    outside.issuer("/test/key", &json!({ "alg": "ES256", "kid": "new" }));
    until(&outside.token("new", &claims()), 200);
    // While the server is away, what it said holds on for a while.
    outside.issuer("/test/mode", &json!({ "mode": "500" }));
    assert_eq!(exchange(&world, &outside.token("rs", &claims())).status, 200);
    // A key that it withdrew is gone with the next look.
    outside.issuer("/test/withdraw", &json!({ "kid": "es" }));
    outside.issuer("/test/mode", &json!({ "mode": "ok" }));
    outside.issuer("/test/key", &json!({ "alg": "ES256", "kid": "newer" }));
    until(&outside.token("newer", &claims()), 200);
    exchange(&world, &outside.token("es", &claims())).refused(403);
}

#[test]
fn keys_come_over_https_from_a_server_that_the_named_ca_vouches_for_and_from_no_other() {
    let Some(outside) = Outside::start() else { return };
    let port = outside.issuer("/test/secure", &json!({}))["port"].as_u64().unwrap();
    let plain = format!("http://127.0.0.1:{}/keys", outside.issuer);
    let ca = outside.folder.path().join("cert.pem");
    let secure = format!("https://127.0.0.1:{port}/keys\"\ntls_ca = {ca:?}\n# \"");
    let world = plan(&outside, "[]").change(&plain, &secure).start();
    given(&world, &outside.token("es", &claims()));
    // Keys of its own vouch for nobody else, nor do those of the system.
    let other = tempfile::tempdir_in(tidegate_tests::scratch::base()).unwrap();
    crate::anchor::certificate(other.path());
    for ca in [format!("\"\ntls_ca = {:?}\n# \"", other.path().join("cert.pem")), String::new()] {
        let secure = format!("https://127.0.0.1:{port}/keys{ca}");
        let world = plan(&outside, "[]").change(&plain, &secure).start();
        let answer = exchange(&world, &outside.token("es", &claims()));
        assert!(answer.status >= 400, "{answer:?}");
        assert!(world.gateway.log().to_lowercase().contains("certificate"), "{}", world.gateway.log());
    }
}
