//! A table of wrong configurations with what is said about each, and of right ones with what they mean.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use std::os::unix::fs::PermissionsExt as _;
use tidegate_grants::{Leftovers, Terms, grant::IssuerKey};

const ALICE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
const HOST: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILIG2T/B0l0gaqj3puu510tu9N1OkQ4znY3LYuEm5zCF";
const AGE: &str = "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z";

/// One key a line, so that each wrong value can be swapped in by its line.
fn good() -> String {
    format!(
        r#"version = 1
state_dir = "state"
[gateway]
name = "gate"
public_names = ["gate.example.com"]
source_addresses = ["10.0.0.5"]
[roles]
admin = ["platform"]
[ssh]
listen = "127.0.0.1:2222"
[postgres]
listen = "127.0.0.1:6432"
[recording]
recipients = ["{AGE}"]
[[user]]
name = "ada"
groups = ["platform"]
unix_user = "ada"
[[user]]
name = "alice"
groups = ["sre"]
ssh_keys = ["{ALICE}"]
[[target]]
name = "web-1"
kind = "ssh"
address = "10.0.0.11:22"
host_key = "{HOST}"
labels = {{ env = "prod" }}
[[target]]
name = "orders"
kind = "postgres"
address = "db.example.com:5432"
tls_ca = "ca.pem"
admin_user = "tidegate"
[[entitlement]]
name = "shell"
groups = ["sre"]
targets = {{ env = "prod" }}
logins = ["deploy"]
max_duration = "1h"
[[entitlement]]
name = "readonly"
groups = ["sre"]
targets = ["orders"]
databases = ["shop"]
roles = ["shop_reader"]
max_duration = "30m"
[[issuer]]
name = "servicedesk"
algorithm = "HS256"
secret_file = "servicedesk.key"
entitlements = ["readonly"]
max_ttl = "1h"
"#
    )
}

/// The folder with the files that the configuration names.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let keys = tidegate_ca::Keys::create(&dir.path().join("keys"), "gate", jiff::Timestamp::now()).unwrap();
    std::fs::write(dir.path().join("ca.pem"), keys.x509.certificate_pem()).unwrap();
    let secret = |name: &str, text: &str, mode: u32| {
        std::fs::write(dir.path().join(name), text).unwrap();
        std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    secret("servicedesk.key", "0123456789abcdef0123456789abcdef\n", 0o600);
    secret("short.key", "0123456789abcdef0123456789abcde\n", 0o600);
    secret("open.key", "0123456789abcdef0123456789abcdef\n", 0o644);
    secret("no.pem", "nothing", 0o644);
    dir
}

fn check(dir: &Path, text: &str) -> Result<Config, Vec<String>> {
    parse(&dir.join("tidegate.toml"), text).map_err(|faults| {
        let prefix = format!("{}/", dir.display());
        faults.to_string().lines().map(|line| line.replace(&prefix, "")).collect()
    })
}

#[test]
fn a_right_configuration_has_every_default_filled_in() {
    let dir = folder();
    let config = check(dir.path(), &good()).unwrap_or_else(|faults| panic!("{faults:#?}"));
    assert_eq!(config.policy.node, "a");
    assert_eq!(config.password_window.as_secs(), 600);
    assert_eq!((config.recording.stream_limit, config.recording.fsync), (1 << 20, false));
    assert_eq!(config.ssh_targets[&"web-1".parse().unwrap()].principal, "{login}@{target}");
    assert_eq!(config.policy.identities[&"alice".parse().unwrap()].ssh_keys, [ALICE]);
    let Terms::Postgres { leftovers, max_connections, owner, inherit: true, .. } =
        &config.policy.entitlements[&"readonly".parse().unwrap()].terms
    else {
        panic!("not for PostgreSQL")
    };
    assert_eq!((*leftovers, *max_connections, owner), (Leftovers::Quarantine, 10, &None));
    let issuer = &config.policy.issuers["servicedesk"];
    assert!(!issuer.counts_as_approval);
    assert!(
        matches!(&issuer.key, IssuerKey::Hs256(secret) if secrecy::ExposeSecret::expose_secret(secret).len() == 32)
    );
    assert_eq!(config.state_dir, dir.path().canonicalize().unwrap().join("state"));
    assert_eq!(config.notes, Vec::<String>::new());
    assert_eq!(config.policy.config.len(), 64);
}

/// What stands there, what is put in its place, and what is said of it (the column and the fix left out).
const WRONG: &[(&str, &str, &str)] = &[
    ("version = 1", "version = 2", "1: version: is not a version that this tidegate knows"),
    ("version = 1", "version = \"1\"", "1: version: wrong type: this is a text"),
    ("version = 1\n", "", "1: version: is missing"),
    ("state_dir = \"state\"\n", "", "1: state_dir: is missing"),
    ("name = \"gate\"", "name = \"Gate\"", "4: gateway.name: is not a valid name"),
    ("name = \"gate\"", "nmae = \"gate\"", "3: gateway.name: is missing"),
    ("name = \"gate\"", "name = \"gate\"\nnoed = \"b\"", "5: gateway.noed: unknown key"),
    ("[\"gate.example.com\"]", "[\"*.example.com\"]", "5: gateway.public_names: is neither a DNS name nor an address"),
    ("[\"gate.example.com\"]", "[]", "5: gateway.public_names: is empty"),
    ("[\"gate.example.com\"]", "\"gate.example.com\"", "5: gateway.public_names: wrong type: this is a text"),
    ("[\"10.0.0.5\"]", "[\"10.0.0.0/8\"]", "6: gateway.source_addresses: is not an IP address"),
    ("[\"10.0.0.5\"]", "[\"10.0.0.5\", \"10.0.0.5\"]", "6: gateway.source_addresses: is listed twice"),
    ("admin = [\"platform\"]", "admins = [\"platform\"]", "8: roles.admins: unknown key"),
    ("admin = [\"platform\"]", "admin = [7]", "8: roles.admin: wrong type: this is a whole number"),
    ("127.0.0.1:2222", "localhost:2222", "10: ssh.listen: is not an address of this host with a port"),
    ("127.0.0.1:6432", "127.0.0.1:2222", "12: postgres.listen: is where [ssh] listens already"),
    (
        "listen = \"127.0.0.1:6432\"",
        "listen = \"127.0.0.1:6432\"\ntls_cert = \"x\"",
        "13: postgres.tls_cert: is not supported yet",
    ),
    (
        "listen = \"127.0.0.1:6432\"",
        "listen = \"127.0.0.1:6432\"\npassword_window = \"10\"",
        "13: postgres.password_window: is not a duration",
    ),
    ("[recording]", "[api]\nlisten = \"127.0.0.1:8443\"\n[recording]", "13: api: is not supported yet"),
    ("[recording]", "include = [\"x\"]\n[recording]", "13: postgres.include: unknown key"),
    ("recipients = [", "replay_window = \"soon\"\nrecipients = [", "14: recording.replay_window: is not a duration"),
    ("recipients = [", "stream_limit = \"1MB\"\nrecipients = [", "14: recording.stream_limit: is not a size"),
    (
        "recipients = [",
        "durability = \"none\"\nrecipients = [",
        "14: recording.durability: is neither \"kernel\" nor \"disk\"",
    ),
    (AGE, "age1oops", "14: recording.recipients: is neither an age public key (age1…) nor an ssh-ed25519 one"),
    (AGE, "AGE-SECRET-KEY-1X", "14: recording.recipients: is a private key, which the gateway must never have"),
    (
        "name = \"alice\"",
        "name = \"Alice\"",
        "20: user[Alice].name: not a valid identity name: a lower-case letter, then up to 31 of a-z 0-9 _ . -",
    ),
    ("name = \"alice\"", "name = \"ada\"", "20: user[ada].name: is the name of another user already"),
    ("name = \"alice\"\n", "", "19: user[2].name: is missing"),
    (ALICE, "ssh-ed25519 AAAA", "22: user[alice].ssh_keys: is not an OpenSSH public key"),
    (ALICE, "sk-ssh-ed25519@openssh.com AAAA", "22: user[alice].ssh_keys: is not an OpenSSH public key"),
    ("unix_user = \"ada\"", "unix_user = \"a:b\"", "18: user[ada].unix_user: is not the name of a local account"),
    (
        "groups = [\"sre\"]\nssh_keys",
        "unix_user = \"ada\"\nssh_keys",
        "21: user[alice].unix_user: is the local account of another user already",
    ),
    (
        "name = \"web-1\"",
        "name = \"web/1\"",
        "24: target[web/1].name: not a valid target name: a lower-case letter or digit, then up to 62 of a-z 0-9 . -",
    ),
    ("name = \"orders\"", "name = \"web-1\"", "30: target[web-1].name: is the name of another target already"),
    ("kind = \"ssh\"", "kind = \"telnet\"", "25: target[web-1].kind: is not a kind of target"),
    ("10.0.0.11:22", "10.0.0.11", "26: target[web-1].address: has no port"),
    (HOST, "AAAA", "27: target[web-1].host_key: is not an OpenSSH public key"),
    (HOST, "", "27: target[web-1].host_key: is not an OpenSSH public key"),
    (
        "host_key = ",
        "host_name = \"web-1.example.com\"\nhost_key = ",
        "27: target[web-1].host_name: is of no use without host_ca",
    ),
    ("host_key = ", "host_ca = \"x\"\nhost_key = ", "27: target[web-1].host_ca: stands beside host_key"),
    (
        HOST,
        "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gAAAABHNzaDo=",
        "27: target[web-1].host_key: is a security key, which no host has",
    ),
    ("labels = { env = \"prod\" }", "principal = \"root\"", "28: target[web-1].principal: does not contain {login}"),
    (
        "labels = { env = \"prod\" }",
        "principal = \"{login},root\"",
        "28: target[web-1].principal: holds more than {login}, {target} and A-Z a-z 0-9 @ . _ : / + -",
    ),
    (
        "labels = { env = \"prod\" }",
        "tls_ca = \"ca.pem\"",
        "28: target[web-1].tls_ca: belongs to a target of kind \"postgres\"",
    ),
    (
        "tls_ca = \"ca.pem\"",
        "tls_ca = \"gone.pem\"",
        "33: target[orders].tls_ca: gone.pem cannot be read: No such file or directory (os error 2)",
    ),
    ("tls_ca = \"ca.pem\"", "tls_ca = \"no.pem\"", "33: target[orders].tls_ca: no.pem holds no certificate"),
    ("tls_ca = \"ca.pem\"\n", "", "29: target[orders].tls_ca: is missing"),
    (
        "admin_user = \"tidegate\"",
        "admin_user = \"tidegate\"\nauth = \"scram\"",
        "29: target[orders].admin_password_file: is missing",
    ),
    (
        "admin_user = \"tidegate\"",
        "admin_user = \"tidegate\"\nhost_key = \"x\"",
        "35: target[orders].host_key: belongs to a target of kind \"ssh\"",
    ),
    (
        "admin_user = \"tidegate\"",
        "admin_user = \"tidegate\"\nadmin_address = \"x\"",
        "35: target[orders].admin_address: has no port",
    ),
    (
        "targets = [\"orders\"]",
        "targets = [\"order\"]",
        "44: entitlement[readonly].targets: there is no target \"order\"",
    ),
    (
        "targets = [\"orders\"]",
        "targets = [\"web-1\"]",
        "44: entitlement[readonly].targets: web-1 is of the other kind: this entitlement has databases and roles, which are for PostgreSQL",
    ),
    (
        "targets = { env = \"prod\" }",
        "targets = {}",
        "38: entitlement[shell].targets: names no label: that would be every target",
    ),
    (
        "logins = [\"deploy\"]",
        "logins = [\"a,b\"]",
        "39: entitlement[shell].logins: not a valid login: a letter or _, then up to 31 of A-Z a-z 0-9 . _ -",
    ),
    (
        "logins = [\"deploy\"]",
        "logins = [\"deploy\"]\napprovals = []",
        "40: entitlement[shell].approvals: is not supported yet",
    ),
    (
        "logins = [\"deploy\"]\n",
        "",
        "35: entitlement[shell].logins: is missing, and databases with roles too: it opens nothing",
    ),
    (
        "logins = [\"deploy\"]",
        "logins = [\"deploy\"]\nowner = \"x\"",
        "40: entitlement[shell].owner: is for PostgreSQL, and this entitlement has logins, which are for SSH",
    ),
    (
        "logins = [\"deploy\"]",
        "logins = [\"deploy\"]\nforward = [\"localhost:80\", \"db-1\"]",
        "40: entitlement[shell].forward: \"db-1\": is no rule: write HOST:PORT, HOST:PORT-PORT, [IPV6]:PORT or unix:/PATH",
    ),
    (
        "logins = [\"deploy\"]",
        "logins = [\"deploy\"]\nforward = [\"agent\"]",
        "40: entitlement[shell].forward: \"agent\": not supported yet (agent forwarding)",
    ),
    (
        "roles = [\"shop_reader\"]",
        "roles = [\"shop_reader\"]\nforward = [\"localhost:80\"]",
        "47: entitlement[readonly].forward: is for SSH, and this entitlement has databases or roles, which are for PostgreSQL",
    ),
    (
        "max_duration = \"1h\"",
        "max_duration = \"90d\"",
        "40: entitlement[shell].max_duration: is longer than 30 days: that is a standing permission",
    ),
    (
        "max_duration = \"30m\"",
        "max_duration = \"30m\"\nmax_connections = 0",
        "48: entitlement[readonly].max_connections: is not between 1 and 1000",
    ),
    (
        "servicedesk.key",
        "short.key",
        "51: issuer[servicedesk].secret_file: short.key holds 31 bytes: too few for a secret",
    ),
    (
        "servicedesk.key",
        "open.key",
        "51: issuer[servicedesk].secret_file: open.key is open to others (mode 0644): chmod 600 it",
    ),
    (
        "algorithm = \"HS256\"",
        "algorithm = \"none\"",
        "50: issuer[servicedesk].algorithm: is not an algorithm that is accepted here",
    ),
    (
        "entitlements = [\"readonly\"]",
        "entitlements = [\"all\"]",
        "52: issuer[servicedesk].entitlements: there is no sound entitlement \"all\"",
    ),
];

#[test]
fn every_wrong_configuration_is_named_with_line_and_key() {
    let dir = folder();
    let mut failures = Vec::new();
    for (right, wrong, said) in WRONG {
        let text = good();
        assert!(text.contains(right), "the table is out of date: {right}");
        let faults = match check(dir.path(), &text.replacen(right, wrong, 1)) {
            Ok(_) => vec!["no fault".to_owned()],
            Err(faults) => faults,
        };
        // FILE:LINE:COLUMN: KEY: WHAT; FIX
        let fits = |fault: &String| {
            let rest = fault.strip_prefix("tidegate.toml:")?;
            let (line, rest) = rest.split_once(':')?;
            let (_column, rest) = rest.split_once(": ")?;
            let place = format!("{line}: {rest}");
            place.strip_prefix(said)?.strip_prefix("; ").filter(|fix| !fix.is_empty()).map(|_| ())
        };
        if !faults.iter().any(|fault| fits(fault).is_some()) {
            failures.push(format!("{wrong}\n  wanted {said}\n  got    {}", faults.join("\n         ")));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn forwarding_rules_are_shown_and_dangerous_ones_are_pointed_out() {
    let dir = folder();
    let rules = "logins = [\"deploy\"]\nforward = [\"db-1:5432\", \"169.254.169.254:80\", \"localhost:1-65535\"]";
    let config = check(dir.path(), &good().replacen("logins = [\"deploy\"]", rules, 1)).unwrap();
    let Terms::Ssh { forward, .. } = &config.policy.entitlements[&"shell".parse().unwrap()].terms else {
        panic!("SSH")
    };
    assert_eq!(forward.to_string(), "localhost:1-65535, 169.254.169.254:80, db-1:5432");
    assert!(summary::summary(&config).contains("with connections from the target to localhost:1-65535, "));
    let notes = config.notes.join("\n");
    for note in [
        "[shell].forward: 169.254.169.254:80 is where clouds keep their metadata",
        "opens 65535 ports",
        "opens port 22",
    ] {
        assert!(notes.contains(note), "{note} is not in {notes}");
    }
}

#[test]
fn all_faults_are_found_at_once() {
    let dir = folder();
    let text = good()
        .replace("version = 1", "version = 3")
        .replace("kind = \"ssh\"", "kind = \"rdp\"")
        .replace("max_ttl = \"1h\"", "max_ttl = 3600")
        .replace("admin = [", "admni = [");
    let lines: Vec<String> = check(dir.path(), &text).unwrap_err();
    let keys: Vec<&str> = lines.iter().filter_map(|line| line.split(": ").nth(1)).collect();
    assert_eq!(keys, ["version", "roles.admni", "target[web-1].kind", "issuer[servicedesk].max_ttl"], "{lines:#?}");
}

#[test]
fn a_key_has_one_role() {
    let dir = folder();
    let with_user_ca = |keys: &str| good().replace("[ssh]\n", &format!("[ssh]\nuser_ca = [{keys}]\n"));
    let faults = |text: &str| check(dir.path(), text).unwrap_err().join("\n");
    let login = faults(&with_user_ca(&format!("\"{ALICE}\"")));
    assert!(login.contains("ssh_keys: is an authority for users (user_ca) too"), "{login}");
    let twice = faults(&with_user_ca(&format!("\"{HOST}\", \"{HOST} again\"")));
    assert!(twice.contains("ssh.user_ca: is listed twice"), "{twice}");
    let both = with_user_ca(&format!("\"{HOST}\"")).replace("host_key = ", "host_ca = ");
    assert!(faults(&both).contains("host_ca: is an authority for users (user_ca) too"), "{}", faults(&both));
    let keys = tidegate_ca::Keys::open(&dir.path().join("keys")).unwrap();
    let own = keys.ssh_user.public_key().to_openssh().unwrap();
    let config = check(dir.path(), &with_user_ca(&format!("{own:?}"))).unwrap();
    assert!(config.no_own_authority(&keys).unwrap_err().to_string().contains("ssh.user_ca"));
    check(dir.path(), &with_user_ca(&format!("\"{HOST}\""))).unwrap().no_own_authority(&keys).unwrap();
}

#[test]
fn syntax_faults_have_a_place_too() {
    let dir = folder();
    for (text, line) in [("version = \n", "1:"), ("version = 1\n[gateway\n", "2:"), ("a = 1\na = 2\n", "2:")] {
        let faults = check(dir.path(), text).unwrap_err();
        let prefix = format!("tidegate.toml:{line}");
        assert!(faults.iter().any(|fault| fault.starts_with(&prefix) && fault.contains("not TOML")), "{faults:?}");
    }
}

#[test]
fn a_fault_cannot_act_on_the_terminal() {
    let dir = folder();
    let faults = check(dir.path(), "\"\\u001b[2J\" = 1\n").unwrap_err().join("\n");
    assert!(faults.contains("\\u{1b}[2J: unknown key"), "{faults}");
    assert!(!faults.contains('\u{1b}'));
}

#[test]
fn eddsa_issuers_are_read_from_pem_and_base64() {
    let dir = folder();
    let keys = tidegate_ca::Keys::open(&dir.path().join("keys")).unwrap();
    let raw = keys.ledger.verifying_key().to_bytes();
    let base64 = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, raw);
    let pem = keys.show(tidegate_ca::Part::Ledger).unwrap();
    for key in [format!("\"{base64}\""), format!("\"\"\"\n{pem}\"\"\"")] {
        let text = good()
            .replace("algorithm = \"HS256\"", "algorithm = \"EdDSA\"")
            .replace("secret_file = \"servicedesk.key\"", &format!("public_key = {key}"));
        let config = check(dir.path(), &text).unwrap_or_else(|faults| panic!("{faults:#?}"));
        assert!(matches!(&config.policy.issuers["servicedesk"].key, IssuerKey::EdDsa(found) if *found == raw));
        assert!(config.secrets.is_empty());
    }
}

#[test]
fn the_summary_names_keys_and_says_what_an_owner_grants() {
    let dir = folder();
    let text = good().replace("roles = [\"shop_reader\"]", "roles = [\"shop_reader\"]\nowner = \"shop_owner\"");
    let summary = summary::summary(&check(dir.path(), &text).unwrap());
    assert!(summary.contains("this grants all its privileges"), "{summary}");
    assert!(!summary.contains("  files "), "no limit needs no words: {summary}");
    let limited = text.replacen("logins = [\"deploy\"]", "logins = [\"deploy\"]\nfiles = \"download\"", 1);
    let limited = summary::summary(&check(dir.path(), &limited).unwrap());
    assert!(limited.contains("a shell or a command of the login can still print and write them"), "{limited}");
    for (file, _) in tidegate_ca::signer::FILES {
        assert!(summary.contains(file), "{file}: {summary}");
    }
    assert!(summary.contains("servicedesk.key: HS256 secret of the issuer[servicedesk]"), "{summary}");
}

#[test]
fn the_examples_that_are_shipped_have_no_faults() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples"));
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let examples: Vec<_> = files.filter(|file| file.extension().is_some_and(|end| end == "toml")).collect();
    assert!(examples.len() >= 2, "{examples:?}");
    for file in examples {
        let config = load(&file).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.notes, Vec::<String>::new(), "{}", file.display());
    }
}
