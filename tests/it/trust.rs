//! A real sshd of each release that is there, set up from nothing but what `target trust` printed.

use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt};
use tidegate_tests::{
    World, secs,
    sshd::{LOGIN, release},
    world::Plan,
};

/// A world whose sshd has, beside what any sshd needs, the printed parts and nothing else; modes as an installer would set
/// them, `StrictModes` on.
fn world_of(root: Option<&std::path::Path>, principal: &str) -> World {
    let sound = format!("principal = \"{principal}\"\nlabels = {{ env = \"prod\" }}");
    let mut world = Plan::new().only_ssh().change("labels = { env = \"prod\" }", &sound).start();
    let trust = world.gateway.ssh_trust("web-1");
    let etc = world.sshd().etc();
    let port = world.sshd().port();
    let minimum = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey /etc/ssh/host_key\nUsePAM no\nLogLevel VERBOSE\n\
         Subsystem sftp internal-sftp\n"
    );
    let with_penalties = root.is_some_and(|root| root.join("usr/lib/openssh/sshd-session").exists());
    let penalties = if with_penalties { trust.penalties.as_str() } else { "" };
    fs::write(etc.join("sshd_config"), [penalties, &trust.sshd_config, &minimum].concat()).unwrap();
    fs::set_permissions(&etc, fs::Permissions::from_mode(0o755)).unwrap();
    if let Some(root) = root {
        world.sshd_mut().use_release(root);
    }
    world.sshd_mut().restart();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world
}

/// Sessions work, `target test` finds nothing wrong, and what is not ours stays out.
fn holds(world: &World) {
    assert_eq!(world.exec("alice", "id -un").ok().out(), LOGIN);
    let report = world.gateway.cli(&["target", "test", "web-1", "--json"]).ok();
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["sound"], true, "{report:#}");
    for step in ["permit", "dial", "host", "mint", "ways around", "login", "command", "clock", "terminal", "teardown"] {
        let found = report["steps"].as_array().unwrap().iter().find(|s| s["step"] == step);
        assert_eq!(found.unwrap_or(&Value::Null)["outcome"], "ok", "{step} in {report:#}");
    }
    let settings = report["steps"].as_array().unwrap().iter().find(|s| s["step"] == "configuration").unwrap();
    assert_eq!(settings["outcome"], "ok", "{report:#}");
    // A key that somebody adds opens nothing.
    let ssh = world.sshd().home().join(".ssh");
    fs::create_dir_all(&ssh).unwrap();
    fs::copy(world.client_file("mallory.pub"), ssh.join("authorized_keys")).unwrap();
    let port = format!("Port={}", world.sshd().port());
    let around = ["-o", &port, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"];
    let output = tidegate_tests::running::run(world.ssh_command("mallory", &around, LOGIN, &["true"]), secs(60));
    output.exited(255).says("Permission denied (publickey)");
    world.gateway.until_no_lease(secs(90));
}

/// The sshd of this Debian release, or a line that says that it was not tried.
fn of_release(name: &str) {
    let Some(root) = release(name) else {
        return eprintln!("SKIPPED: the sshd of Debian {name} is not here; ./tests/openssh fetches it");
    };
    for principal in ["{login}@{target}", "{login}"] {
        holds(&world_of(Some(&root), principal));
    }
}

#[test]
fn what_is_printed_is_enough_for_the_sshd_of_this_machine() {
    for principal in ["{login}@{target}", "{login}"] {
        holds(&world_of(None, principal));
    }
}

#[test]
fn what_is_printed_is_enough_for_openssh_8() {
    of_release("bullseye");
}

#[test]
fn what_is_printed_is_enough_for_openssh_10() {
    of_release("trixie");
}

#[test]
fn what_is_printed_is_enough_for_the_newest_openssh() {
    of_release("sid");
}

#[test]
fn a_certificate_for_one_target_opens_no_other_one() {
    // The sshd is set up as `web-1`; the gateway calls it `web-2`, whose certificates name web-2.
    let mut world = world_of(None, "{login}@{target}");
    world.config.change("name = \"web-1\"", "name = \"web-2\"");
    world.restart_gateway();
    world.gateway.grant("alice", "web-2", "shell", "30m");
    world.ssh("alice", "deploy@web-2", &["true"]).exited(1).says("did not accept the session");
    assert!(world.sshd().log().contains("authorized principal"), "{}", world.sshd().log());
}
