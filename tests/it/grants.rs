//! A grant and its end: revocation and expiry cut what is live, and outside issuers are held to their scope.

use crate::tokens;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;
use tidegate_tests::{
    World,
    evidence::{TWO_SECONDS_AND_SLACK, assert_within, at},
    running::run,
    secs,
    world::{PATIENCE, Plan},
};

#[test]
fn revoked_grant_cuts_live_session() {
    let world = World::ssh_only();
    let grant = world.gateway.grant("alice", "web-1", "shell", "30m");
    let ssh = world.ssh_start("alice", "deploy@web-1", &["echo on; sleep 600"]);
    ssh.until_stdout("on", PATIENCE);
    world.gateway.revoke(&grant);
    ssh.end(PATIENCE).exited(1).says("your grant was revoked by operator: enough");
    let ledger = world.gateway.until_ledger("lease.disabled", 1, PATIENCE);
    assert_within(ledger.one("grant.revoked"), ledger.one("session.cut"), TWO_SECONDS_AND_SLACK);
    assert_within(ledger.one("grant.revoked"), ledger.one("lease.disabled"), TWO_SECONDS_AND_SLACK);
    world.exec("alice", "echo never").exited(77).says("revoked");
}

#[test]
fn revoked_grant_cuts_live_statement() {
    let world = World::postgres_only();
    let grant = world.gateway.grant("alice", "orders", "readonly", "30m");
    let mut psql = world.psql_start("alice");
    psql.send("select 'on';\nselect pg_sleep(600);\n");
    psql.until_stdout("on", PATIENCE);
    world.gateway.revoke(&grant);
    let output = psql.end(PATIENCE);
    assert!(output.err().contains("57P01") && output.err().contains("revoked by operator: enough"), "{}", output.err());
    let ledger = world.gateway.until_ledger("lease.closed", 1, PATIENCE);
    assert_within(ledger.one("grant.revoked"), ledger.one("lease.disabled"), TWO_SECONDS_AND_SLACK);
    assert_eq!(world.pg().ask("postgres", "select count(*) from pg_stat_activity where usename like 'tg\\_%'"), "0");
}

#[test]
fn who_is_ended_loses_sessions_grants_and_passwords_at_once() {
    let world = World::start();
    for (target, entitlement) in [("web-1", "shell"), ("orders", "readonly"), ("orders", "readwrite")] {
        world.gateway.grant("alice", target, entitlement, "30m");
    }
    world.gateway.grant("bob", "web-1", "shell", "30m");
    let others = world.ssh_start("bob", "deploy@web-1", &["echo on; cat"]);
    let shell = world.ssh_start("alice", "deploy@web-1", &["echo on; sleep 600"]);
    let mut psql = world.psql_start("alice~readonly");
    psql.send("select 'on';\nselect pg_sleep(600);\n");
    for running in [&others, &shell, &psql] {
        running.until_stdout("on", PATIENCE);
    }
    let password = world.password("alice", "orders");
    let said = world.gateway.cli(&["user", "end", "alice", "--reason", "left the company"]).ok().out();
    assert!(said.contains("2 live session(s) ended, 3 grant(s) revoked, 1 password(s) void"), "{said}");
    shell.end(PATIENCE).exited(1).says("left the company");
    assert!(psql.end(PATIENCE).err().contains("57P01"));
    world.exec("alice", "echo never").exited(77);
    let again = world.psql_command(&world.conninfo("alice", "orders/shop"), &password, &["-c", "select 1"]);
    run(again, PATIENCE).exited(2).says("password");
    let ledger = world.gateway.until_ledger("lease.closed", 2, PATIENCE);
    assert_eq!(ledger.one("user.ended")["detail"]["by"], "operator");
    assert_eq!(ledger.count("grant.revoked"), 3);
    // Nobody else noticed, and it is no error to say it again.
    let said = world.gateway.cli(&["user", "end", "alice"]).ok().out();
    assert!(said.contains("0 live session(s) ended, 0 grant(s) revoked, 0 password(s) void"), "{said}");
    world.gateway.cli(&["user", "end", "Alice!"]).exited(2);
    world.gateway.cli(&["user", "end", "alcie"]).exited(1).says("nobody is called alcie");
    others.finish(PATIENCE).ok();
}

#[test]
fn an_idle_psql_whose_grant_ended_is_told_at_its_next_statement() {
    let world = World::postgres_only();
    let grant = world.gateway.grant("alice", "orders", "readonly", "30m");
    let mut psql = world.psql_start("alice");
    psql.send("select 'on';\n");
    psql.until_stdout("on", PATIENCE);
    world.gateway.revoke(&grant);
    world.gateway.until_ledger("lease.closed", 1, PATIENCE);
    psql.send("select 'never';\n");
    psql.until_stderr("revoked by operator: enough", PATIENCE);
    let output = psql.finish(PATIENCE);
    assert!(output.err().contains("57P01"), "{}", output.err());
    assert!(!output.out().contains("never"), "{}", output.out());
}

#[test]
fn an_expired_grant_cuts_both_kinds_of_session() {
    let world = World::start();
    world.gateway.grant("alice", "web-1", "shell", "20s");
    let ssh = world.ssh_start("alice", "deploy@web-1", &["echo on; sleep 600"]);
    ssh.until_stdout("on", PATIENCE);
    ssh.end(PATIENCE).exited(1).says("your grant ended at");
    world.gateway.grant("alice", "orders", "readonly", "20s");
    let mut psql = world.psql_start("alice");
    psql.send("select 'on';\nselect pg_sleep(600);\n");
    psql.until_stdout("on", PATIENCE);
    let output = psql.end(PATIENCE);
    assert!(output.err().contains("57P01") && output.err().contains("your grant ended at"), "{}", output.err());
    let ledger = world.gateway.until_ledger("lease.disabled", 2, PATIENCE);
    let grants = world.gateway.list(&["grant", "list"]);
    for disabled in ledger.all("lease.disabled") {
        let own = ledger.of_session(&disabled["session"]);
        let grant = own.one("session.opened")["grant"].clone();
        let end = grants.iter().find(|g| g["id"] == grant).unwrap()["exp"].as_i64().unwrap();
        let late = at(disabled).duration_since(jiff::Timestamp::from_second(end).unwrap());
        assert!(late <= TWO_SECONDS_AND_SLACK, "disabled {late:?} after the grant's end:\n{}", own.story());
    }
    world.exec("alice", "true").exited(77).says("expired");
}

#[test]
fn nobody_issues_a_grant_to_themselves() {
    let world = Plan::new().only_ssh().change("groups = [\"platform\"]", "groups = [\"platform\", \"sre\"]").start();
    let issue = ["grant", "issue", "--user", "operator", "--target", "web-1", "--entitlement", "shell", "--for", "5m"];
    let issue: Vec<&str> = issue.into_iter().chain(["--reason", "mine"]).collect();
    world.gateway.cli(&issue).exited(1);
    assert_eq!(world.gateway.list(&["grant", "list"]).len(), 0);
}

#[test]
fn grants_are_not_issued_beyond_their_entitlement() {
    let world = World::ssh_only();
    for (user, target, entitlement, duration) in [
        ("alice", "web-1", "shell", "2h"),
        ("carol", "web-1", "shell", "5m"),
        ("nobody", "web-1", "shell", "5m"),
        ("alice", "web-2", "shell", "5m"),
        ("alice", "web-1", "nothing", "5m"),
    ] {
        let args = ["grant", "issue", "--user", user, "--target", target, "--entitlement", entitlement];
        let args: Vec<&str> = args.into_iter().chain(["--for", duration, "--reason", "r"]).collect();
        let output = world.gateway.cli(&args).exited(1);
        assert_eq!(output.err().trim().lines().count(), 1, "one plain line: {}", output.err());
    }
    assert_eq!(world.gateway.list(&["grant", "list"]).len(), 0);
}

#[test]
fn a_single_use_grant_opens_once() {
    let world = World::ssh_only();
    let args = ["grant", "issue", "--user", "alice", "--target", "web-1", "--entitlement", "shell", "--for", "5m"];
    let args: Vec<&str> = args.into_iter().chain(["--reason", "once", "--single-use"]).collect();
    world.gateway.cli(&args).ok();
    world.exec("alice", "true").ok();
    world.exec("alice", "true").exited(77).says("good for one session");
}

/// A world with the issuer `servicedesk`, which may grant `readonly` for up to an hour.
fn with_issuer(block: &str) -> World {
    Plan::new()
        .only_postgres()
        .block(format!(
            "[[issuer]]\nname = \"servicedesk\"\nentitlements = [\"readonly\"]\nmax_ttl = \"1h\"\n{block}\n"
        ))
        .file("servicedesk.key", tokens::SECRET)
        .start()
}

const HS256: &str = "algorithm = \"HS256\"\nsecret_file = \"servicedesk.key\"";

#[test]
fn an_imported_grant_opens_and_importing_it_again_changes_nothing() {
    let world = with_issuer(HS256);
    let token = tokens::hs256(&tokens::claims());
    let first = world.gateway.cli_with(&["grant", "import"], &token).ok().out();
    let second = world.gateway.cli_with(&["grant", "import", "-"], &token).ok().out();
    assert_eq!(first, second);
    assert_eq!(world.gateway.list(&["grant", "list"]).len(), 1);
    world.psql("alice", "select 1").ok();
    world.gateway.revoke(&first);
    world.gateway.cli_with(&["grant", "import"], &token);
    world.control("alice", &["password", "orders"]).exited(77);
}

#[test]
fn an_imported_eddsa_grant_opens() {
    let scratch = tidegate_tests::scratch::Scratch::new();
    let (key, public) = tokens::ed25519(scratch.path());
    let world = with_issuer(&format!("algorithm = \"EdDSA\"\npublic_key = \"{public}\""));
    let token = tokens::signed(Algorithm::EdDSA, &tokens::claims(), &key);
    world.gateway.cli_with(&["grant", "import"], &token).ok();
    world.psql("alice", "select 1").ok();
    // The public key as a shared secret: the classic confusion of algorithms.
    let confused = EncodingKey::from_secret(public.as_bytes());
    let token = tokens::signed(Algorithm::HS256, &tokens::claims(), &confused);
    world.gateway.cli_with(&["grant", "import"], &token).exited(1);
}

#[test]
fn a_wrong_imported_grant_is_refused_in_one_plain_line() {
    let world = with_issuer(HS256);
    let now = jiff::Timestamp::now().as_second();
    let scratch = tidegate_tests::scratch::Scratch::new();
    let (ed25519, _) = tokens::ed25519(scratch.path());
    let secret = EncodingKey::from_secret(tokens::SECRET.as_bytes());
    let claims = tokens::claims();
    let mut tampered = tokens::hs256(&claims);
    let middle = tampered.find('.').unwrap() + 20;
    let flipped = if tampered.as_bytes()[middle] == b'A' { "B" } else { "A" };
    tampered.replace_range(middle..=middle, flipped);
    let wrong = [
        ("another algorithm of the same key", tokens::signed(Algorithm::HS384, &claims, &secret)),
        ("EdDSA where HS256 is pinned", tokens::signed(Algorithm::EdDSA, &claims, &ed25519)),
        ("no signature", tokens::unsigned(&claims)),
        (
            "another key",
            tokens::signed(Algorithm::HS256, &claims, &EncodingKey::from_secret(b"another secret entirely")),
        ),
        ("tampered", tampered),
        ("another issuer", tokens::hs256(&tokens::claims_with("iss", json!("unknown")))),
        ("our own name as the issuer", tokens::hs256(&tokens::claims_with("iss", json!("gate")))),
        ("another audience", tokens::hs256(&tokens::claims_with("aud", json!("other")))),
        ("outside its scope", tokens::hs256(&tokens::claims_with("entitlement", json!("readwrite")))),
        ("expired", tokens::hs256(&tokens::claims_with("exp", json!(now - 60)))),
        ("too long", tokens::hs256(&tokens::claims_with("exp", json!(now + 7200)))),
        ("an unknown person", tokens::hs256(&tokens::claims_with("sub", json!("nobody")))),
        ("a person without the entitlement", tokens::hs256(&tokens::claims_with("sub", json!("carol")))),
        ("a target outside the entitlement", tokens::hs256(&tokens::claims_with("target", json!("web-1")))),
        ("more roles than the entitlement has", tokens::hs256(&tokens::claims_with("roles", json!(["shop_writer"])))),
        ("a database outside the entitlement", tokens::hs256(&tokens::claims_with("database", json!("postgres")))),
        ("not a token", "hello\u{1b}[31m".to_owned()),
        ("nothing", String::new()),
    ];
    for (what, token) in wrong {
        let output = world.gateway.cli_with(&["grant", "import"], &token);
        assert_eq!(output.code, Some(1), "{what} was taken: {}", output.out());
        assert_eq!(output.err().trim().lines().count(), 1, "{what}: {}", output.err());
        assert!(!output.err().contains('\u{1b}'), "{what}");
    }
    assert_eq!(world.gateway.list(&["grant", "list"]).len(), 0);
    world.gateway.verify_ledger().ok();
}

#[test]
fn a_grant_narrowed_to_a_role_gives_no_other_role() {
    let world = Plan::new()
        .only_postgres()
        .change("roles = [\"shop_reader\"]", "roles = [\"shop_reader\", \"shop_writer\"]")
        .start();
    let issue = ["grant", "issue", "--user", "alice", "--target", "orders", "--entitlement", "readonly", "--for", "5m"];
    let issue: Vec<&str> = issue.into_iter().chain(["--reason", "r", "--role", "shop_reader"]).collect();
    world.gateway.cli(&issue).ok();
    world.psql("alice", "select count(*) from items").ok();
    world.psql("alice", "delete from items").exited(1).says("42501");
}

#[test]
fn a_restart_keeps_grants_and_revocations() {
    let mut world = World::ssh_only();
    let revoked = world.gateway.grant("bob", "web-1", "shell", "30m");
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.gateway.revoke(&revoked);
    world.gateway.kill9();
    world.gateway.start();
    world.exec("alice", "true").ok();
    world.exec("bob", "true").exited(77).says("revoked");
    world.gateway.until_no_lease(secs(90));
}
