//! OpenSSH beyond a command: files by all its tools, agents, kinds of keys, ControlMaster, scripts.

use super::{Clients, DOOR, LONG, assert_same};
use std::fs;
use tidegate_tests::{running::run, sshd::keygen};

#[test]
fn scp_copies_trees_up_and_down_in_both_of_its_protocols() {
    let clients = Clients::start();
    clients.make_tree();
    for (protocol, name) in [("-O", "old"), ("-s", "sftp")] {
        // As typed without a configuration: the login and the target are the user, the gate is the host.
        clients
            .shell(&format!(
                "scp -F $config -q {protocol} -rp tree {DOOR}@gate:{name}
                 scp -F $config -q {protocol} -rp {DOOR}@gate:{name} {name}
                 scp -F $config -q {protocol} web-1:{name}/deep/run 'one of {name}'
                 cmp 'one of {name}' tree/deep/run
                 if scp -F $config -q {protocol} web-1:nowhere . 2>err; then exit 9; fi
                 grep -q 'No such file' err"
            ))
            .ok();
        assert_same(&clients.home.join("tree"), &clients.home.join(name));
        assert_same(&clients.home.join("tree"), &clients.remote(name));
    }
    // Over the gate twice: from the target to the target, by way of here.
    clients.shell("scp -F $config -q -3 web-1:old/deep/run web-1:again").ok();
    assert_eq!(fs::read(clients.remote("again")).unwrap(), b"#!/bin/sh\necho ran\n");
}

#[test]
fn sftp_does_what_its_commands_say() {
    let clients = Clients::start();
    clients.make_tree();
    let batch = "mkdir up\nput -Rp tree up/\ncd up/tree\nrename nothing something\nchmod 600 something\nln -s something link\n\
                 ls -l\nput tree/deep/run short\nget -Rp deep back\nrm link\n-rm nowhere\nmkdir gone\nrmdir gone\n\
                 get something half\nreget something half\ndf -h\n";
    fs::write(clients.home.join("batch"), batch).unwrap();
    let output = clients.shell(&format!("sftp -F $config -q -b batch {DOOR}@gate")).ok();
    assert!(output.out().contains("something"), "{}", output.out());
    assert_same(&clients.home.join("tree/deep"), &clients.home.join("back"));
    assert_eq!(fs::read(clients.remote("up/tree/short")).unwrap(), b"#!/bin/sh\necho ran\n");
    let left = clients.shell("sftp -F $config -q -b - web-1 <<<'ls -1 up/tree'").ok().out();
    assert_eq!(
        left.lines().skip(1).map(str::trim).collect::<Vec<_>>().join(" "),
        "up/tree/deep up/tree/empty up/tree/short up/tree/something"
    );
    clients.shell("sftp -F $config -q -b - web-1 <<<'get nowhere'").exited(1).says("not found");
}

#[test]
fn tar_pipes_carry_a_tree_up_and_down() {
    let clients = Clients::start();
    clients.make_tree();
    clients.shell("mkdir back; tar c tree | $ssh web-1 'tar x'; $ssh web-1 'tar cz tree' | tar xz -C back").ok();
    assert_same(&clients.home.join("tree"), &clients.remote("tree"));
    assert_same(&clients.home.join("tree"), &clients.home.join("back/tree"));
}

#[test]
fn a_script_stops_at_the_first_command_that_fails_there() {
    let clients = Clients::start();
    // ssh in a loop would eat the loop's input without -n; a failing one ends the script, in a pipe too.
    let output = clients.shell(
        "printf '1\\n2\\n3\\n' | while read -r n; do $ssh -n web-1 \"echo $n >>seen\"; done
         test \"$($ssh web-1 'tr \"\\n\" , <seen')\" = 1,2,3,
         $ssh web-1 'bash -s -- one two' <<<'set -e; echo $1-$2; cd /'
         ! $ssh web-1 'exit 3' | cat
         $ssh web-1 'set -e; false; echo never'
         echo never",
    );
    assert_eq!(output.exited(1).out(), "one-two");
}

#[test]
fn one_master_connection_serves_commands_files_and_terminals() {
    let clients = Clients::start();
    clients.make_tree();
    clients
        .shell(
            "mux() { local program=$1; shift; $program -F $config -o ControlPath=$HOME/mux -o ControlMaster=auto -o ControlPersist=60 \"$@\"; }
             mux ssh web-1 'echo first'
             ssh -F $config -O check -o ControlPath=$HOME/mux web-1
             for n in 1 2 3 4 5 6; do (mux ssh web-1 \"sleep 0.1; echo $n; exit $n\" >out-$n || echo $? >>out-$n) & done; wait
             for n in 1 2 3 4 5 6; do test \"$(tr '\\n' ' ' <out-$n)\" = \"$n $n \"; done
             mux scp -q -rp tree web-1:by-scp
             mux sftp -q -b - web-1 <<<'get -Rp by-scp back'
             mux ssh -tt web-1 'test -t 0 && echo terminal'
             ssh -F $config -O exit -o ControlPath=$HOME/mux web-1",
        )
        .ok();
    assert_same(&clients.home.join("tree"), &clients.home.join("back"));
    // One connection: one session in the ledger, with all of that in it.
    assert_eq!(clients.world.gateway.until_ledger("session.closed", 1, LONG).count("session.opened"), 1);
}

#[test]
fn an_agent_full_of_strange_keys_gets_in_with_the_right_one() {
    let clients = Clients::start();
    for n in 0..12 {
        keygen(&clients.home.join(format!("strange-{n}")));
    }
    let output = clients.shell(
        "eval \"$(ssh-agent -s)\" >/dev/null
         trap 'kill $SSH_AGENT_PID' EXIT
         ssh-add -q strange-? strange-1? $key
         ssh -F none -p $port -o UserKnownHostsFile=$by_ca -o StrictHostKeyChecking=yes -o BatchMode=yes -l deploy@web-1 localhost 'id -un'",
    );
    assert_eq!(output.ok().out(), "deploy");
}

#[test]
fn ed25519_ecdsa_and_rsa_keys_open_the_door_and_no_signature_with_sha1_does() {
    let mut clients = Clients::start();
    let kinds = [("rsa", "3072"), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521")];
    let mut keys = vec![fs::read_to_string(clients.key().with_extension("pub")).unwrap().trim().to_owned()];
    for (kind, bits) in kinds {
        clients.shell(&format!("ssh-keygen -q -t {kind} -b {bits} -N '' -C '' -f {kind}-{bits}")).ok();
        let public = clients.home.join(format!("{kind}-{bits}.pub"));
        keys.push(fs::read_to_string(public).unwrap().trim().to_owned());
    }
    let world = &mut clients.world;
    let (alone, all) = (format!("ssh_keys = [{:?}]", keys[0]), format!("ssh_keys = {keys:?}"));
    world.config.change(&alone, &all);
    world.gateway.configure(&world.config);
    world.gateway.terminate();
    world.gateway.start();
    // The kernel chose another port.
    let ssh = |kind: &str, more: &[&str]| {
        let mut ssh = clients.command("ssh");
        ssh.args(more).args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o"]);
        ssh.arg(format!("UserKnownHostsFile={}", clients.world.client_file("known_hosts").display()));
        ssh.args(["-o", "HostKeyAlias=gate.test", "-p", &clients.port().to_string(), "-i", kind, "-l", DOOR]);
        ssh.args(["127.0.0.1", "id -un"]);
        run(ssh, LONG)
    };
    for (kind, bits) in kinds {
        assert_eq!(ssh(&format!("{kind}-{bits}"), &[]).ok().out(), "deploy", "{kind} {bits}");
    }
    // OpenSSH offers RSA with SHA-1 only if told to. Compression is not agreed upon, and not missed.
    ssh("rsa-3072", &["-o", "PubkeyAcceptedAlgorithms=ssh-rsa"]).exited(255).says("Permission denied");
    assert_eq!(ssh("ecdsa-256", &["-C"]).ok().out(), "deploy");
}

#[test]
fn a_refusal_reads_the_same_in_ssh_scp_and_sftp() {
    let clients = Clients::without_a_grant();
    clients.shell("$ssh web-1 true").exited(77).says("you hold no grant");
    for command in ["scp -F $config $key web-1:", "scp -F $config -O $key web-1:", "sftp -F $config -b /dev/null web-1"]
    {
        let output = clients.shell(command).says("you hold no grant");
        assert_ne!(output.code, Some(0), "{command}");
    }
}
