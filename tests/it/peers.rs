//! Gateways that keep and countersign each other's heads: one that goes back is told by the other, and its ledger is held to what it said.

use std::{
    fs,
    path::{Path, PathBuf},
};
use tidegate_tests::{
    World,
    config::PUBLIC_NAME,
    scratch::Port,
    wait_until,
    world::{PATIENCE, Plan},
};

/// A gateway with an API on this port, for a name that its certificate has.
fn reachable(port: &Port) -> Plan {
    let (name, more) = (format!("[\"{PUBLIC_NAME}\"]"), format!("[\"{PUBLIC_NAME}\", \"127.0.0.1\"]"));
    Plan::new()
        .only_ssh()
        .change(&name, &more)
        .block(format!("[api]\nlisten = \"127.0.0.1:{}\"\nshow_heads = true\n", port.number()))
}

fn ledger_key(world: &World) -> String {
    world.gateway.cli(&["ca", "show", "ledger"]).ok().out()
}

/// The block that makes `other` a peer.
fn peer(name: &str, other: &World, port: &Port) -> String {
    let (ca, key) = (other.client_file("ca.pem"), ledger_key(other));
    format!(
        "[[peer]]\nname = {name:?}\nurl = \"https://127.0.0.1:{}\"\nca = {ca:?}\npublic_key = \"\"\"\n{key}\n\"\"\"\nevery = \"1s\"\n",
        port.number()
    )
}

fn newest(world: &World) -> String {
    world.gateway.ledger().entries.last().unwrap()["hash"].as_str().unwrap().to_owned()
}

fn kept(world: &World, name: &str) -> PathBuf {
    world.gateway.state().join("peers").join(format!("{name}.jsonl"))
}

/// Waits until the file has the other's head as it is now.
fn until_kept(file: &Path, other: &World) {
    wait_until(PATIENCE, "the newest head is kept", || {
        fs::read_to_string(file).ok().filter(|text| text.contains(&newest(other))).map(drop)
    });
}

fn failing(world: &World, name: &str) -> Option<String> {
    world.gateway.json(&["status"])["failing_peers"][name].as_str().map(str::to_owned)
}

#[test]
fn two_gateways_keep_each_others_heads_countersigned() {
    let (port_a, port_b) = (Port::take(), Port::take());
    let (mut one, mut other) = (reachable(&port_a).start(), reachable(&port_b).start());
    let (to_other, to_one) = (peer("gate-b", &other, &port_b), peer("gate-a", &one, &port_a));
    for (world, block) in [(&mut one, to_other), (&mut other, to_one)] {
        world.config.block(block);
        world.restart_gateway();
    }
    other.gateway.grant("alice", "web-1", "shell", "30m");
    until_kept(&kept(&one, "gate-b"), &other);
    until_kept(&kept(&other, "gate-a"), &one);
    wait_until(PATIENCE, "both are well", || {
        (failing(&one, "gate-b").is_none() && failing(&other, "gate-a").is_none()).then_some(())
    });
    assert!(one.gateway.cli(&["check"]).ok().out().contains("its heads are kept and countersigned"));

    // Each one's ledger is held to what the other kept, and the other's word is a signature.
    let (heads, witness) = (one.dir().join("heads.jsonl"), one.dir().join("witness.pub"));
    fs::copy(kept(&one, "gate-b"), &heads).unwrap();
    fs::write(&witness, ledger_key(&one)).unwrap();
    let verify = |key: &Path| {
        let (heads, key) = (heads.to_str().unwrap(), key.to_str().unwrap());
        other.gateway.cli(&["ledger", "verify", "--anchor", heads, "--witness", key])
    };
    verify(&witness).exited(0).shows("heads that went to anchors").shows("(gate) has seen it up to a/");
    let own = one.dir().join("own.pub");
    fs::write(&own, ledger_key(&other)).unwrap();
    verify(&own).exited(1).says("nobody is a witness of their own");
    // One head that no witness saw, among others that it did: whoever has the ledger's key can sign as many as they like.
    let lines = fs::read_to_string(&heads).unwrap();
    let forged = lines.replacen("\"gateway\":\"gate\"", "\"gateway\":\"other\"", 1);
    fs::write(&heads, forged).unwrap();
    verify(&witness).exited(1).shows("no witness has countersigned it");
}

#[test]
fn a_peer_whose_older_store_was_put_back_is_told() {
    let port = Port::take();
    let mut other = reachable(&port).start();
    let mut world = Plan::new().only_ssh().start();
    let block = peer("gate-b", &other, &port);
    world.config.block(&block);
    world.restart_gateway();
    until_kept(&kept(&world, "gate-b"), &other);

    other.gateway.terminate();
    let (state, older) = (other.gateway.state(), other.dir().join("older"));
    fs::create_dir_all(&older).unwrap();
    let files = ["tidegate.db", "store.made"];
    for name in files {
        fs::copy(state.join(name), older.join(name)).unwrap();
    }
    let refused = || failing(&world, "gate-b").filter(|why| why.contains("refused"));
    wait_until(PATIENCE, "it cannot be asked", refused);
    other.gateway.start();
    for _ in 0..8 {
        other.gateway.grant("alice", "web-1", "shell", "30m");
    }
    until_kept(&kept(&world, "gate-b"), &other);
    wait_until(PATIENCE, "it is well again", || failing(&world, "gate-b").is_none().then_some(()));
    assert_eq!(world.gateway.ledger().count("peer.diverged"), 0);
    // What was kept is known after a restart, too.
    world.restart_gateway();
    other.gateway.terminate();
    for name in files {
        fs::copy(older.join(name), state.join(name)).unwrap();
    }
    for name in ["tidegate.db-wal", "tidegate.db-shm"] {
        fs::remove_file(state.join(name)).ok();
    }
    other.gateway.start();
    other.gateway.verify_ledger().exited(0).shows("intact");
    world.gateway.until_ledger("peer.diverged", 1, PATIENCE);
    // It goes on, past where it was: that heals nothing, nor does a restart here.
    let before = fs::read_to_string(kept(&world, "gate-b")).unwrap();
    for _ in 0..20 {
        other.gateway.grant("alice", "web-1", "shell", "30m");
    }
    world.restart_gateway();
    let why = wait_until(PATIENCE, "it is still told", || failing(&world, "gate-b"));
    assert!(why.contains("an older store was put back") && why.contains("to begin anew"), "{why}");
    assert_eq!(fs::read_to_string(kept(&world, "gate-b")).unwrap(), before, "and nothing of it is kept");
    let ledger = world.gateway.ledger();
    let said = &ledger.one("peer.diverged")["detail"];
    assert!(
        said["peer"] == "gate-b" && said["why"].as_str().unwrap().contains("an older store was put back"),
        "{said}"
    );
    let doctor = world.gateway.cli(&["doctor"]);
    assert!(doctor.out().contains("the heads of the peer gate-b are not taken"), "{}", doctor.out());
    // Its own auditors find it by what was kept here.
    let kept = kept(&world, "gate-b");
    other.gateway.cli(&["ledger", "verify", "--anchor", kept.to_str().unwrap()]).exited(1).shows("NOT intact");
    world.gateway.verify_ledger().ok();
    // Somebody has looked into it.
    for file in [kept.clone(), kept.with_extension("diverged")] {
        fs::rename(&file, world.dir().join(file.file_name().unwrap())).unwrap();
    }
    wait_until(PATIENCE, "its heads are kept again", || {
        (failing(&world, "gate-b").is_none() && kept.exists()).then_some(())
    });

    // Nor is a head taken that another key signed.
    let stranger = block.replace(ledger_key(&other).trim(), ledger_key(&world).trim()).replace("gate-b", "gate-c");
    world.config.block(stranger);
    world.restart_gateway();
    let why = wait_until(PATIENCE, "it is not taken", || failing(&world, "gate-c"));
    assert!(why.contains("is not signed by its key"), "{why}");
    assert!(!self::kept(&world, "gate-c").exists());
}
