//! `target test`: what it says of a target that is as it should be, and of each way in which it is not.

use crate::hosts::{host_key, move_target, serve};
use russh::{Preferred, keys::Certificate, server};
use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt, path::Path};
use tidegate_tests::{World, secs, world::Plan};

/// The report, and whether it was taken for sound.
fn tested(world: &World) -> (Value, i32) {
    let output = world.gateway.cli(&["target", "test", "web-1", "--json"]);
    let report = serde_json::from_slice(&output.stdout);
    (report.unwrap_or_else(|e| panic!("{e}: {}{}", output.out(), output.err())), output.code.unwrap())
}

#[track_caller]
fn step<'r>(report: &'r Value, name: &str) -> &'r Value {
    let found = report["steps"].as_array().unwrap().iter().find(|step| step["step"] == name);
    found.unwrap_or_else(|| panic!("no step {name} in {report:#}"))
}

#[track_caller]
fn assert_step(report: &Value, name: &str, outcome: &str, said: &str) {
    let step = step(report, name);
    assert_eq!(step["outcome"], outcome, "{report:#}");
    assert!(step.to_string().contains(said), "{said:?} is not in {report:#}");
}

#[test]
fn a_test_goes_the_way_of_a_session_and_is_in_the_ledger() {
    let world = World::ssh_only();
    let output = world.gateway.cli(&["target", "test", "web-1"]).ok();
    for line in ["ok      dial", "ok      host", "ok      login", "ok      teardown", "receipt of", "SHA256:"] {
        assert!(output.out().contains(line), "{line:?} is not in\n{}", output.out());
    }
    let ledger = world.gateway.until_ledger("session.closed", 1, secs(20));
    ledger.assert_order(&[
        "grant.issued",
        "grant.revoked",
        "session.opened",
        "recording.started",
        "lease.opened",
        "credential.minted",
        "target.connected",
        "recording.sealed",
        "lease.closed",
        "session.closed",
    ]);
    assert_eq!(ledger.one("session.opened")["identity"], "operator");
    assert_eq!(world.gateway.leases(), Vec::<Value>::new());
    // Its grant opens nothing for anybody, the admin included.
    assert_eq!(world.gateway.list(&["grant", "list"])[0]["state"], "revoked");
    world.gateway.cli(&["recording", "verify", "--all"]).ok();
    world.gateway.verify_ledger().ok();
}

#[test]
fn only_admins_test_and_only_what_entitlements_open() {
    let world = Plan::new().only_ssh().change("groups = [\"platform\"]", "groups = [\"sre\"]").start();
    world.gateway.cli(&["target", "test", "web-1"]).exited(1).says("not an admin");
    let world = World::ssh_only();
    world.gateway.cli(&["target", "test", "web-9"]).exited(1).says("no such target");
    world.gateway.cli(&["target", "test", "web-1", "--login", "root"]).exited(1).says("no entitlement opens root");
    assert!(!world.sshd().log().contains("Accepted"), "{}", world.sshd().log());
    let mut world = world;
    world.gateway.terminate();
    world.gateway.cli(&["target", "test", "web-1"]).exited(3);
}

/// Changes the target's folder, and has its sshd read it anew.
fn broken(world: &mut World, change: impl FnOnce(&Path)) -> Value {
    change(&world.sshd().etc());
    world.sshd_mut().restart();
    let (report, code) = tested(world);
    assert_eq!((report["sound"].as_bool(), code), (Some(false), 1), "{report:#}");
    report
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from:?} is not in {text}");
    fs::write(file, text.replace(from, to)).unwrap();
}

#[test]
fn a_login_that_is_refused_is_explained_as_far_as_the_gateway_can_see() {
    let mut world = World::ssh_only();
    let config = world.sshd().etc().join("sshd_config");
    let sound = fs::read_to_string(&config).unwrap();
    let principals = world.sshd().etc().join("tidegate_principals/deploy");
    // Its CA is not trusted: only root there can see that.
    let report = broken(&mut world, |etc| edit(&etc.join("sshd_config"), "TrustedUserCAKeys", "#TrustedUserCAKeys"));
    assert_step(&report, "login", "failed", "sshd -T -C user=deploy");
    assert_step(&report, "login", "failed", "tidegate_ca.pub");
    assert_step(&report, "teardown", "ok", "closed");
    fs::write(&config, &sound).unwrap();
    // The principals file is gone, then writable by others.
    let text = fs::read(&principals).unwrap();
    let report = broken(&mut world, |_| fs::remove_file(&principals).unwrap());
    assert_step(&report, "login", "failed", "tidegate_principals/deploy");
    fs::write(&principals, text).unwrap();
    fs::set_permissions(&principals, fs::Permissions::from_mode(0o666)).unwrap();
    edit(&config, "StrictModes no", "StrictModes yes");
    let report = broken(&mut world, |_| ());
    assert_step(&report, "login", "failed", "StrictModes");
    fs::set_permissions(&principals, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&config, &sound).unwrap();
    // The login's own name is taken for a principal, because no file says otherwise.
    let report = broken(&mut world, |etc| edit(&etc.join("sshd_config"), "AuthorizedPrincipalsFile", "#Authorized"));
    assert_step(&report, "login", "failed", "no AuthorizedPrincipalsFile is in force");
    fs::write(&config, &sound).unwrap();
    // The gateway comes from elsewhere than it says.
    edit(&principals, "from=\"127.0.0.1\"", "from=\"127.0.0.1,192.0.2.1\"");
    world.config.change("source_addresses = [\"127.0.0.1\"]", "source_addresses = [\"192.0.2.1\"]");
    world.restart_gateway();
    let report = broken(&mut world, |_| ());
    assert_step(&report, "login", "failed", "source_addresses");
    assert_eq!(world.gateway.leases(), Vec::<Value>::new());
}

#[test]
fn a_target_that_breaks_the_login_off_is_not_sound_and_keeps_no_lease_open() {
    let mut world = World::ssh_only();
    // One try, and a certificate that is not trusted: sshd hangs up while others are shown.
    let report = broken(&mut world, |etc| {
        edit(&etc.join("sshd_config"), "TrustedUserCAKeys", "#TrustedUserCAKeys");
        let config = fs::read_to_string(etc.join("sshd_config")).unwrap();
        fs::write(etc.join("sshd_config"), format!("MaxAuthTries 1\n{config}")).unwrap();
    });
    assert_step(&report, "login", "failed", "");
    assert_step(&report, "teardown", "ok", "closed");
    assert_eq!(world.gateway.leases(), Vec::<Value>::new());
    world.gateway.until_ledger("session.closed", 1, secs(20));
}

#[test]
fn what_is_left_open_or_does_not_work_is_named() {
    let mut world = World::ssh_only();
    let config = world.sshd().etc().join("sshd_config");
    let sound = fs::read_to_string(&config).unwrap();
    let (report, code) = tested(&world);
    assert_eq!((report["sound"].as_bool(), code), (Some(true), 0), "{report:#}");
    let table = [
        (
            "AuthorizedKeysFile none",
            "AuthorizedKeysFile .ssh/authorized_keys",
            "configuration",
            "AuthorizedKeysFile is",
        ),
        ("MaxStartups 100:30:200", "MaxStartups 10", "configuration", "MaxStartups is"),
        ("X11Forwarding no", "X11Forwarding yes", "configuration", "X11Forwarding is yes"),
        ("AllowAgentForwarding no", "AllowAgentForwarding yes", "configuration", "AllowAgentForwarding is yes"),
        (
            "PasswordAuthentication no\n    KbdInteractiveAuthentication no\n    HostbasedAuthentication no\n    \
             PubkeyAuthentication yes\n    AuthenticationMethods publickey",
            "PasswordAuthentication yes",
            "ways around",
            "password",
        ),
    ];
    for (from, to, name, said) in table {
        let report = broken(&mut world, |etc| edit(&etc.join("sshd_config"), from, to));
        assert_step(&report, name, "open", said);
        assert_step(&report, "login", "ok", "let in");
        fs::write(&config, &sound).unwrap();
    }
    let report = broken(&mut world, |etc| {
        edit(&etc.join("sshd_config"), "Match User deploy", "Match User deploy\nPermitTTY no")
    });
    assert_step(&report, "terminal", "failed", "PermitTTY");
    fs::write(&config, &sound).unwrap();
    let report = broken(&mut world, |etc| {
        edit(&etc.join("sshd_config"), "Match User deploy", "Match User deploy\nForceCommand echo go away")
    });
    assert_step(&report, "command", "failed", "go away");
    fs::write(&config, &sound).unwrap();
    // A clock as far off as a number goes.
    let lie = "printf 'tidegate-answers\\n%s\\ndeploy\\ntidegate-settings\\n' \
               $((-9223372036854775807 - 1 + $(date +%s)))";
    edit(&config, "Match User deploy", &format!("Match User deploy\nForceCommand {lie}"));
    world.sshd_mut().restart();
    let (report, _) = tested(&world);
    assert_step(&report, "command", "ok", "deploy");
    assert_step(&report, "teardown", "ok", "closed");
    fs::write(&config, &sound).unwrap();
    // Its files are not for the login to read: only root can say how it is set up.
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    world.sshd_mut().restart();
    let (report, code) = tested(&world);
    assert_eq!(code, 0, "{report:#}");
    assert_step(&report, "configuration", "unseen", "as root there: sshd -T -C user=deploy");
}

#[test]
fn a_wrong_host_and_one_that_is_not_there_are_told_apart() {
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIXkfbl9vFYkCDtXbJ5eEr2tdDr3nfxeXqUUHy1cO8sK";
    let mut world = World::ssh_only();
    let key = world.sshd().host_key().to_owned();
    let print =
        |line: &str| line.parse::<ssh_key::PublicKey>().unwrap().fingerprint(ssh_key::HashAlg::Sha256).to_string();
    world.config.change(&key, other);
    world.restart_gateway();
    let (report, code) = tested(&world);
    assert_eq!(code, 1);
    assert_step(&report, "host", "failed", &print(&key));
    assert_step(&report, "host", "failed", &print(other));
    world.sshd_mut().stop();
    let (report, _) = tested(&world);
    assert_step(&report, "dial", "failed", "is sshd running there");
    world.gateway.until_no_lease(secs(90));
}

/// A server whose clock is off by so many seconds, and which is right in everything else.
#[derive(Clone)]
struct Skewed(i64);

impl server::Handler for Skewed {
    type Error = russh::Error;

    async fn auth_openssh_certificate(
        &mut self,
        _: &str,
        certificate: &Certificate,
    ) -> Result<server::Auth, russh::Error> {
        let now = jiff::Timestamp::now().as_second().saturating_add(self.0).unsigned_abs();
        let valid = (certificate.valid_after()..certificate.valid_before()).contains(&now);
        Ok(if valid { server::Auth::Accept } else { server::Auth::reject() })
    }
}

#[test]
fn a_clock_that_is_far_off_is_found_though_the_target_does_not_say_so() {
    let mut world = World::ssh_only();
    let (key, line) = host_key();
    let pinned = world.sshd().host_key().to_owned();
    world.config.change(&pinned, line.trim());
    for (skew, said) in [(-300, "clock is behind"), (300, "clock is ahead"), (3600, "does not say why")] {
        let port = serve(key.clone(), Preferred::DEFAULT, Skewed(skew));
        move_target(&mut world, port);
        let (report, code) = tested(&world);
        assert_eq!(code, 1);
        assert_step(&report, "login", "failed", said);
        assert_step(&report, "teardown", "ok", "closed");
    }
    assert_eq!(world.gateway.leases(), Vec::<Value>::new());
    let longest = world.gateway.ledger();
    let minted = longest.all("credential.minted");
    assert!(minted.len() > 6, "{}", longest.story());
}
