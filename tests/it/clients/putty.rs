//! PuTTY's tools: plink, pscp in both protocols, psftp. They check the gate's host certificate.

use super::{Clients, DOOR, GATE, LONG, assert_same};
use std::fs;
use tidegate_tests::running::run;

/// PuTTY's own formats of key and trusted CA, and a saved session `web-1` that wants new keys after each MiB.
fn putty() -> Clients {
    let clients = Clients::start();
    clients.shell("puttygen $key -O private -o key.ppk; mkdir -p .putty/sshhostcas .putty/sessions").ok();
    let ca = clients.world.gateway.cli(&["ca", "show", "ssh-host"]).ok().out();
    let ca = ca.split_whitespace().nth(1).unwrap();
    let trusted = format!("PublicKey={ca}\nValidity={GATE}\nPermitRSASHA1=0\nPermitRSASHA256=1\nPermitRSASHA512=1\n");
    fs::write(clients.home.join(".putty/sshhostcas/tidegate"), trusted).unwrap();
    let session = format!(
        "HostName={GATE}\nPortNumber={}\nProtocol=ssh\nUserName={DOOR}\nPublicKeyFile={}\nRekeyBytes=1M\n",
        clients.port(),
        clients.home.join("key.ppk").display()
    );
    fs::write(clients.home.join(".putty/sessions/web-1"), session).unwrap();
    clients
}

#[test]
fn plink_runs_commands_with_new_keys_in_mid_stream() {
    let clients = putty();
    let output =
        clients.shell(&format!("plink -batch -i key.ppk -P $port -l {DOOR} {GATE} 'id -un; echo apart >&2; exit 42'"));
    let output = output.exited(42).says("apart");
    assert_eq!(output.out(), "deploy");
    // Both names in one word, too; and the terminal that plink asks for.
    let output = clients.shell(&format!("plink -batch -t -i key.ppk -P $port {DOOR}@{GATE} 'test -t 0 && tty'")).ok();
    assert!(output.out().contains("/dev/pts/"), "{}", output.out());
    let line = "head -c 12M /dev/urandom >sent; plink -batch -v -load web-1 cat <sent 2>log | cmp - sent; \
                grep -c 'nitiating key re-exchange' log";
    let rekeyed: u32 = clients.shell(line).ok().out().parse().unwrap();
    assert!(rekeyed >= 8, "only {rekeyed} times");
}

#[test]
fn plink_knows_the_gate_by_its_host_ca_and_refuses_another_name() {
    let clients = putty();
    let output = clients.shell("plink -batch -v -load web-1 true").ok();
    output.says("Certification authority matches 'tidegate'").says("Accepted certificate");
    let output = clients.shell(&format!("plink -batch -i key.ppk -P $port -l {DOOR} 127.0.0.1 true"));
    output.exited(1).says("Cannot confirm a host key");
}

#[test]
fn pscp_and_psftp_copy_trees_up_and_down() {
    let clients = putty();
    clients.shell("mkdir tree; : >tree/nothing; head -c 3000000 /dev/urandom >tree/large; chmod 644 tree/*; touch -d 2001-09-09 tree/*").ok();
    for protocol in ["scp", "sftp"] {
        clients
            .shell(&format!(
                "pscp -q -batch -{protocol} -p -r tree web-1:
                 mkdir {protocol}; pscp -q -batch -{protocol} -p -r web-1:tree {protocol}
                 pscp -q -batch -{protocol} -i key.ppk -P $port tree/large {DOOR}@{GATE}:large-{protocol}"
            ))
            .ok();
        assert_same(&clients.home.join("tree"), &clients.home.join(protocol).join("tree"));
        clients.shell("$ssh web-1 rm -r tree").ok();
        assert_eq!(fs::read(clients.remote(&format!("large-{protocol}"))).unwrap().len(), 3_000_000);
    }
    let batch = "put -r tree\ncd tree\nmv large big\nchmod 600 big\nls\nget big big\nrm big\nquit\n";
    fs::write(clients.home.join("batch"), batch).unwrap();
    clients.shell("psftp -batch -b batch web-1; cmp big tree/large").ok();
    assert!(clients.remote("tree/nothing").exists() && !clients.remote("tree/big").exists());
}

#[test]
fn tools_of_putty_share_one_connection() {
    let clients = putty();
    let first = tidegate_tests::Running::start(clients.shell_command("plink -batch -share -load web-1 'echo up; cat'"));
    first.until_stdout("up", LONG);
    for n in 1..=3 {
        let line = format!("plink -batch -share -v -load web-1 'echo {n}; exit {n}'");
        let output = run(clients.shell_command(&line), LONG).exited(n).says("Reusing a shared connection");
        assert_eq!(output.out(), n.to_string());
    }
    first.finish(LONG).ok();
    assert_eq!(clients.world.gateway.until_ledger("session.closed", 1, LONG).count("session.opened"), 1);
}

#[test]
fn plink_shows_a_refusal_and_exits_with_77() {
    let clients = putty();
    clients.shell("plink -batch -load web-1 true").ok();
    let grants = clients.world.gateway.list(&["grant", "list"]);
    clients.world.gateway.revoke(grants[0]["id"].as_str().unwrap());
    clients.shell("plink -batch -load web-1 'echo never'").exited(77).says("was revoked");
    let output = clients.shell("pscp -batch $key web-1:").says("was revoked");
    assert_ne!(output.code, Some(0));
}
