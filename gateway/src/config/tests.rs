//! What right configurations mean, and what is true of all faults. What is said of wrong ones is in [`wrong`](super::wrong).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use std::os::unix::fs::PermissionsExt as _;
use tidegate_grants::{Leftovers, Terms, grant::IssuerKey};

pub(super) const ALICE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
pub(super) const HOST: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILIG2T/B0l0gaqj3puu510tu9N1OkQ4znY3LYuEm5zCF";
pub(super) const AGE: &str = "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z";

/// One key a line, so that each wrong value can be swapped in by its line.
pub(super) fn good() -> String {
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
pub(super) fn folder() -> tempfile::TempDir {
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
    secret("empty.key", "\n", 0o600);
    secret("blank.key", "correct horse battery staple", 0o600);
    rustix::fs::mknodat(rustix::fs::CWD, dir.path().join("pipe.key"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    secret("no.pem", "nothing", 0o644);
    dir
}

pub(super) fn check(dir: &Path, text: &str) -> Result<Config, Vec<String>> {
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

/// The notes of a configuration, by what they are about.
fn notes(dir: &Path, text: &str) -> Vec<String> {
    let prefix = format!("{}/", dir.display());
    let config = check(dir, text).unwrap_or_else(|faults| panic!("{faults:#?}"));
    config.notes.iter().map(|note| note.replace(&prefix, "")).collect()
}

#[test]
fn what_cannot_be_meant_is_pointed_out_with_its_place() {
    let dir = folder();
    let bob = "[[user]]\nname = \"bob\"\ngroups = [\"sale\"]\n";
    for (right, other, note) in [
        (
            "groups = [\"sre\"]\ntargets = { env",
            "groups = [\"sra\"]\ntargets = { env",
            "tidegate.toml:36:8: entitlement[shell].groups: nobody can get it: no user is in sra; did you mean sre?",
        ),
        (
            "labels = { env = \"prod\" }",
            "labels = { env = \"test\" }",
            "tidegate.toml:36:8: entitlement[shell].targets: it opens nothing: no target of kind \"ssh\" has the labels { env = \"prod\" }",
        ),
        (
            "labels = { env = \"prod\" }",
            "",
            "tidegate.toml:24:8: target[web-1]: no entitlement reaches it, so nobody can ever open it",
        ),
        (
            "admin = [\"platform\"]",
            "admin = [\"platform\", \"platfrom\"]",
            "tidegate.toml:7:2: roles.admin: nobody is in platfrom; did you mean platform?",
        ),
        (
            "admin = [\"platform\"]",
            "admin = [\"platform\"]\nauditor = [\"audit\"]",
            "tidegate.toml:7:2: roles.auditor: nobody is in audit",
        ),
        (
            "[[issuer]]",
            "[[auditor]]\nname = \"part\"\ngroups = [\"sra\"]\ntargets = [\"order\"]\n[[issuer]]",
            "tidegate.toml:49:8: auditor[part].groups: nobody is in sra; did you mean sre?",
        ),
        (
            "[[issuer]]",
            "[[auditor]]\nname = \"part\"\ngroups = [\"sre\"]\ntargets = [\"order\"]\n[[issuer]]",
            "tidegate.toml:49:8: auditor[part].targets: there is no target order now: they see what was done on it, and nothing new",
        ),
        (
            "unix_user = \"ada\"",
            "",
            "tidegate.toml:7:2: roles.admin: no admin has a unix_user, so nobody can use the admin commands",
        ),
        (
            "unix_user = \"ada\"",
            "",
            "tidegate.toml:16:8: user[ada]: has no ssh_keys and no unix_user, and there is no ssh.user_ca: nobody can come in under this name",
        ),
        (
            "[[target]]",
            &format!("{bob}[[target]]"),
            "tidegate.toml:24:8: user[bob].groups: no entitlement and no role names a group of theirs, so nothing can be granted to them",
        ),
        (
            "groups = [\"sre\"]\ntargets = [",
            "groups = [\"dba\"]\ntargets = [",
            "tidegate.toml:49:8: issuer[servicedesk].entitlements: it may grant readonly, which nobody can get: no user is in its groups",
        ),
        (
            "[postgres]\nlisten = \"127.0.0.1:6432\"\n",
            "",
            "tidegate.toml:28:8: target[orders].kind: there is no door to it: write [postgres] with listen",
        ),
    ] {
        assert!(good().contains(right), "{right}");
        let said = notes(dir.path(), &good().replacen(right, other, 1));
        assert!(said.iter().any(|line| line == note), "{other}: wanted\n{note}\nin {said:#?}");
    }
    let vouched = good().replacen("[ssh]\n", &format!("[ssh]\nuser_ca = \"{HOST}\"\n"), 1).replacen(
        "unix_user = \"ada\"\n",
        "",
        1,
    );
    assert!(
        !notes(dir.path(), &vouched).iter().any(|note| note.contains("come in under")),
        "a certificate is a way in"
    );
}

#[test]
fn included_files_are_read_in_whatever_order_and_relative_to_themselves() {
    let dir = folder();
    let text = good();
    let (head, orders) = text.split_once("[[target]]\nname = \"orders\"").unwrap();
    let (orders, tail) = orders.split_once("[[entitlement]]").unwrap();
    std::fs::create_dir_all(dir.path().join("targets.d/ca")).unwrap();
    std::fs::copy(dir.path().join("ca.pem"), dir.path().join("targets.d/ca/orders.pem")).unwrap();
    let target = format!("[[target]]\nname = \"orders\"{}", orders.replace("ca.pem", "ca/orders.pem"));
    std::fs::write(dir.path().join("targets.d/orders.toml"), &target).unwrap();
    std::fs::write(dir.path().join("targets.d/.orders.toml.swp"), "half a fi").unwrap();
    std::fs::write(dir.path().join("targets.d/empty.toml"), "").unwrap();
    let main = |include: &str| format!("include = [{include}]\n{head}[[entitlement]]{tail}");
    let config = check(dir.path(), &main("\"targets.d/*.toml\", \"none.d/*.toml\""))
        .unwrap_or_else(|faults| panic!("{faults:#?}"));
    assert!(config.postgres_targets.contains_key(&"orders".parse().unwrap()));
    assert_eq!(config.notes.len(), 1);
    assert!(
        config.notes[0].ends_with("tidegate.toml:1:32: include: \"none.d/*.toml\" matches no file"),
        "{:?}",
        config.notes
    );

    let other = check(dir.path(), &main("\"targets.d/orders.toml\", \"targets.d/*.toml\"")).unwrap();
    assert_eq!(other.written, config.written, "read once, whatever names it");
    let moved = check(dir.path(), &good()).unwrap();
    let changes = diff::changes(&moved.written, &config.written);
    assert_eq!(
        changes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["target[orders].tls_ca: \"ca.pem\" becomes \"targets.d/ca/orders.pem\""]
    );
    let listing = |name: &str| {
        format!("{}  {name}\n", hex(&Sha256::digest(std::fs::read(dir.path().join(name)).unwrap_or_default())))
    };
    std::fs::write(dir.path().join("tidegate.toml"), main("\"targets.d/*.toml\"")).unwrap();
    let config = load(&dir.path().join("tidegate.toml")).unwrap();
    let listed = ["tidegate.toml", "targets.d/empty.toml", "targets.d/orders.toml"].map(listing).concat();
    // As sha256sum tells it, and then what is in the files that it names.
    let whole = |config: &Config, files: String| {
        let contents = contents::note(&mut config.written.clone(), dir.path()).join("\n");
        hex(&Sha256::digest(format!("{files}\n{contents}\n")))
    };
    assert_eq!(config.policy.config, whole(&config, hex(&Sha256::digest(listed))));
    assert_eq!(moved.policy.config, whole(&moved, hex(&Sha256::digest(good()))));
}

#[test]
fn a_secret_comes_from_a_file_or_from_the_environment_and_check_says_from_where() {
    let dir = folder();
    // What cargo sets for a test, long enough to be one.
    let variable = "CARGO_PKG_DESCRIPTION";
    let long = std::env::var(variable).is_ok_and(|value| value.len() >= 16);
    let text = good().replacen("secret_file = \"servicedesk.key\"", &format!("secret_env = {variable:?}"), 1);
    let fault = check(dir.path(), &text).map(|_| ()).unwrap_err().join("\n");
    assert!(
        long && fault
            .contains(&format!("issuer[servicedesk].secret_env: {variable} holds 25 bytes: too few for a secret")),
        "{fault}"
    );
    assert!(!fault.contains(&std::env::var(variable).unwrap()), "{fault}");
    let scram = |extra: &str| {
        good().replacen(
            "admin_user = \"tidegate\"",
            &format!("admin_user = \"tidegate\"\nauth = \"scram\"\n{extra}"),
            1,
        )
    };
    let path = check(dir.path(), &scram("admin_password_env = \"PATH\"")).unwrap();
    let summary = summary::summary(&path);
    assert!(
        summary.contains("environment variable PATH: password of the gateway's own login on the target[orders]"),
        "{summary}"
    );
    let file = check(dir.path(), &scram("admin_password_file = \"servicedesk.key\"")).unwrap();
    assert!(summary::summary(&file).contains("servicedesk.key: password of"), "a file");
}
