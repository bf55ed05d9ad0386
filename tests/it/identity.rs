//! Who is at the door: certificates of an authority, revocation, security keys, agents full of keys, and names that change.

use russh::client;
use ssh_key::{Algorithm, EcdsaCurve, PrivateKey, getrandom::SysRng, rand_core::UnwrapErr};
use std::{fs, path::Path, process::Command, sync::Arc};
use tidegate_tests::{
    Output, World,
    agent::{Agent, Held},
    running::run,
    secs,
    sshd::keygen,
    world::{PATIENCE, Plan},
};

fn key(algorithm: Algorithm) -> PrivateKey {
    PrivateKey::random(&mut UnwrapErr(SysRng), algorithm).unwrap()
}

fn ssh_keygen(args: &[&str], file: &Path) {
    let mut command = Command::new("ssh-keygen");
    command.args(args).arg(file);
    run(command, secs(20)).ok();
}

/// A world whose gateway takes user certificates of `clients/user_ca`, and keeps a list of what is revoked.
fn certified_world() -> World {
    let mut world = Plan::new().only_ssh().file("revoked", "").start();
    for name in ["user_ca", "other_ca", "guest"] {
        keygen(&world.client_file(name));
    }
    let authority = fs::read_to_string(world.client_file("user_ca.pub")).unwrap();
    let keys = format!("[ssh]\nuser_ca = [{:?}]\nrevoked_keys = \"revoked\"\n", authority.trim());
    world.config.change("[ssh]\n", &keys);
    world.restart_gateway();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world
}

/// Signs `guest`'s key anew, as an authority would.
fn certify(world: &World, authority: &str, args: &[&str]) {
    let authority = world.client_file(authority).display().to_string();
    let args = [&["-q", "-s", &authority, "-I", "guest of alice"], args].concat();
    ssh_keygen(&args, &world.client_file("guest.pub"));
}

/// Through the gate with `guest`'s key and certificate.
fn as_guest(world: &World, door: &str) -> Output {
    run(world.ssh_command("guest", &[], door, &["id", "-un"]), PATIENCE)
}

#[test]
fn a_user_certificate_is_who_its_one_principal_says() {
    let world = certified_world();
    as_guest(&world, "deploy@web-1").exited(255).says("Permission denied");
    certify(&world, "user_ca", &["-n", "alice,alice@example.com", "-V", "-5m:+1h", "-z", "7"]);
    assert_eq!(as_guest(&world, "deploy@web-1").ok().out(), "deploy");
    let ledger = world.gateway.ledger();
    let entry = ledger.one("door.certificate");
    assert_eq!((&entry["identity"], &entry["detail"]["serial"]), (&"alice".into(), &7.into()), "{entry}");
    assert_eq!(ledger.one("session.opened")["identity"], "alice");
    let refused: [(&str, &[&str], &str); 8] = [
        ("other_ca", &["-n", "alice"], "not in the configuration"),
        ("user_ca", &["-n", "carole"], "none of its principals"),
        ("user_ca", &["-n", "alice,bob"], "several users"),
        ("user_ca", &[], "no principals"),
        ("user_ca", &["-n", "alice", "-O", "force-command=id"], "force-command"),
        ("user_ca", &["-n", "alice", "-O", "source-address=192.0.2.0/24"], "may be used from"),
        ("user_ca", &["-n", "alice", "-V", "-2h:-1h"], "left without a key"), // russh looks at the time first
        ("user_ca", &["-h", "-n", "alice"], ""),                              // which `ssh` does not even show
    ];
    for (nth, (authority, args, why)) in refused.into_iter().enumerate() {
        certify(&world, authority, args);
        as_guest(&world, "deploy@web-1").exited(255).says("Permission denied");
        let ledger = world.gateway.until_ledger("door.refused", nth + 2, secs(20));
        let entry = ledger.last("door.refused").unwrap();
        assert!(entry["detail"]["why"].as_str().unwrap().contains(why), "{args:?}: {entry}");
    }
    certify(&world, "user_ca", &["-n", "alice", "-O", "source-address=127.0.0.0/8,192.0.2.1"]);
    as_guest(&world, "deploy@web-1").ok();
    assert_eq!(world.gateway.ledger().count("session.opened"), 2);
}

#[test]
fn what_is_revoked_opens_nothing_from_that_moment_on() {
    let world = certified_world();
    let (list, authority) = (world.gateway.dir().join("revoked"), world.client_file("user_ca.pub"));
    let revoke = |spec: &str| {
        let spec_file = world.dir().join("spec");
        fs::write(&spec_file, spec).unwrap();
        let (list, authority) = (list.display().to_string(), authority.display().to_string());
        ssh_keygen(&["-q", "-k", "-f", &list, "-s", &authority], &spec_file);
    };
    certify(&world, "user_ca", &["-n", "alice", "-z", "41"]);
    revoke("serial: 40\n");
    as_guest(&world, "deploy@web-1").ok();
    revoke("serial: 40-42\n");
    as_guest(&world, "deploy@web-1").exited(255);
    revoke("id: guest of alice\n");
    as_guest(&world, "deploy@web-1").exited(255);
    fs::copy(world.client_file("alice.pub"), &list).unwrap(); // a plain list, with a key of the configuration
    as_guest(&world, "deploy@web-1").ok();
    world.exec("alice", "true").exited(255).says("Permission denied");
    fs::write(&list, "no list at all\n").unwrap();
    as_guest(&world, "deploy@web-1").exited(255);
    world.exec("alice", "true").exited(255);
    let ledger = world.gateway.until_ledger("door.refused", 5, secs(20));
    let why = ledger.last("door.refused").unwrap()["detail"]["why"].to_string();
    assert!(why.contains("revoked") && why.contains("line 1"), "{why}");
    world.gateway.cli(&["check"]).exited(1).says("revoked_keys");
    fs::write(&list, "").unwrap();
    as_guest(&world, "deploy@web-1").ok();
    world.exec("alice", "true").ok();
}

/// `ssh` with an agent alone, as a stock client uses it.
fn with_agent(world: &World, agent: &Agent, door: &str, args: &[&str]) -> Output {
    let stock = ["-o", "IdentitiesOnly=no", "-o", &agent.option()];
    run(world.ssh_command("no-file", &stock, door, args), PATIENCE)
}

#[test]
fn an_agent_with_40_wrong_keys_and_the_right_one_last_gets_in() {
    let mut world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let alice = PrivateKey::read_openssh_file(world.client_file("alice")).unwrap();
    let mut held: Vec<Held> = (0..40).map(|_| Held::plain(&key(Algorithm::Ed25519))).collect();
    let wrong = Agent::start(world.dir(), held.clone());
    held.push(Held::plain(&alice));
    let agent = Agent::start(world.dir(), held);
    for _ in 0..3 {
        assert_eq!(with_agent(&world, &agent, "deploy@web-1", &["id", "-un"]).ok().out(), "deploy");
    }
    with_agent(&world, &wrong, "deploy@web-1", &["true"]).exited(255).says("Permission denied");
    // The same where every key may sign, because it could be certified.
    keygen(&world.client_file("user_ca"));
    let authority = fs::read_to_string(world.client_file("user_ca.pub")).unwrap();
    world.config.change("[ssh]\n", &format!("[ssh]\nuser_ca = {:?}\n", authority.trim()));
    world.restart_gateway();
    assert_eq!(with_agent(&world, &agent, "deploy@web-1", &["id", "-un"]).ok().out(), "deploy");
    with_agent(&world, &wrong, "deploy@web-1", &["true"]).exited(255).says("Permission denied");
}

#[test]
fn security_keys_are_one_factor_and_so_are_certificates_over_them() {
    let mut world = certified_world();
    let (ed25519, line) = Held::in_security_key(&key(Algorithm::Ed25519), true);
    let (ecdsa, other_line) = Held::in_security_key(&key(Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }), false);
    let (stranger, stranger_line) = Held::in_security_key(&key(Algorithm::Ed25519), true);
    world
        .config
        .block(format!("[[user]]\nname = \"dave\"\ngroups = [\"sre\"]\nssh_keys = [{line:?}, {other_line:?}]\n"));
    world.restart_gateway();
    world.gateway.grant("dave", "web-1", "shell", "30m");
    for held in [&ed25519, &ecdsa] {
        let folder = tempfile::tempdir().unwrap();
        let agent = Agent::start(folder.path(), vec![held.clone()]);
        assert_eq!(with_agent(&world, &agent, "deploy@web-1", &["id", "-un"]).ok().out(), "deploy");
    }
    // The public key of a security key, and the signature of another one.
    let forged = Held { signer: key(Algorithm::Ed25519), ..ed25519.clone() };
    // A security key's signature without what the security key adds to it.
    let bare = Held { security_key: None, ..ed25519 };
    for held in [forged, bare, stranger.clone()] {
        let folder = tempfile::tempdir().unwrap();
        let agent = Agent::start(folder.path(), vec![held]);
        with_agent(&world, &agent, "deploy@web-1", &["true"]).exited(255);
    }
    fs::write(world.client_file("guest.pub"), stranger_line).unwrap();
    certify(&world, "user_ca", &["-n", "alice"]);
    let text = fs::read_to_string(world.client_file("guest-cert.pub")).unwrap();
    let certificate = ssh_key::Certificate::from_openssh(&text).unwrap().to_bytes().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(folder.path(), vec![Held { shown: certificate, ..stranger }]);
    assert_eq!(with_agent(&world, &agent, "deploy@web-1", &["id", "-un"]).ok().out(), "deploy");
    assert_eq!(world.gateway.ledger().last("session.opened").unwrap()["identity"], "alice");
}

#[test]
fn no_answer_before_the_key_depends_on_the_name() {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let doors = ["deploy@web-1", "root@web-1", "deploy@web-9", "alice", "nobody-at-all", "a b c"];
    let said = |door: &str| {
        let output = run(world.ssh_command("mallory", &[], door, &["true"]), PATIENCE).exited(255);
        output.err().replace(door, "NAME")
    };
    let first = said(doors[0]);
    assert!(first.contains("Permission denied (publickey)"), "{first}");
    for door in doors {
        assert_eq!(said(door), first, "{door}");
    }
}

#[test]
fn whoever_may_not_ask_hears_the_same_of_every_target_and_login() {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let said = |door: &str, target: &str| {
        let output = world.ssh("carol", door, &["true"]).exited(1);
        // The reference is random: it tells nobody but the admin anything.
        let (before, after) = output.err().split_once("(ref ").map(|(a, b)| (a.to_owned(), b[9..].to_owned())).unwrap();
        (output.out(), (before + &after).replace(target, "TARGET"))
    };
    let first = said("deploy@web-1", "web-1");
    for (door, target) in [("root@web-1", "web-1"), ("deploy@web-9", "web-9"), ("deploy~shell@web-1", "web-1")] {
        assert_eq!(said(door, target), first, "{door}");
    }
}

/// A client in our hands; it takes any host key, because it tests the gate and not itself.
struct Hand;

impl client::Handler for Hand {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &russh::keys::PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

#[test]
fn nothing_of_an_attempt_under_another_name_is_left() {
    let world = World::ssh_only();
    world.gateway.grant("bob", "web-1", "shell", "30m");
    let read = |name: &str| Arc::new(PrivateKey::read_openssh_file(world.client_file(name)).unwrap());
    let (bob, mallory) = (read("bob"), read("mallory"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let out = runtime.block_on(async {
        let mut handle = client::connect(Arc::default(), world.gateway.ssh(), Hand).await.unwrap();
        let with = |key: &Arc<PrivateKey>| russh::keys::PrivateKeyWithHashAlg::new(key.clone(), None);
        for (name, key) in [("deploy@web-9", &mallory), ("carol", &mallory), ("deploy@web-1", &mallory)] {
            assert!(!handle.authenticate_publickey(name, with(key)).await.unwrap().success(), "{name}");
        }
        assert!(!handle.authenticate_none("carol").await.unwrap().success());
        assert!(handle.authenticate_publickey("deploy@web-1", with(&bob)).await.unwrap().success());
        let mut channel = handle.channel_open_session().await.unwrap();
        channel.exec(true, "id -un").await.unwrap();
        let mut out = Vec::new();
        while let Some(message) = channel.wait().await {
            if let russh::ChannelMsg::Data { data } = message {
                out.extend_from_slice(&data);
            }
        }
        String::from_utf8(out).unwrap()
    });
    assert_eq!(out.trim(), "deploy");
    let ledger = world.gateway.ledger();
    let opened = ledger.one("session.opened");
    assert_eq!((opened["identity"].as_str(), opened["target"].as_str()), (Some("bob"), Some("web-1")));
}
