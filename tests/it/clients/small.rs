//! Clients with an SSH of their own: curl (libssh2), rclone (Go), dbclient (dropbear).

use super::{Clients, DOOR, GATE};
use std::fs;

#[test]
fn curl_moves_files_by_sftp_and_scp() {
    let clients = Clients::start();
    clients
        .shell(&format!(
            "head -c 3000000 /dev/urandom >sent
             cp $by_key .ssh/known_hosts
             curl() {{ command curl -sS --key $key --pubkey $key.pub \"$@\"; }}
             curl -u {DOOR}: -T sent sftp://{GATE}:$port/~/got
             curl sftp://deploy%40web-1@{GATE}:$port/~/got | cmp - sent
             curl -u {DOOR}: scp://{GATE}:$port/~/got | cmp - sent
             curl -u {DOOR}: sftp://{GATE}:$port/~/ | grep -q got
             if curl -u {DOOR}: sftp://{GATE}:$port/~/nowhere; then exit 9; fi"
        ))
        .ok();
    assert_eq!(fs::read(clients.remote("got")).unwrap().len(), 3_000_000);
}

#[test]
fn rclone_knows_the_gate_by_its_host_ca_and_mirrors_a_tree() {
    let clients = Clients::start();
    clients.make_tree();
    clients
        .shell(&format!(
            "printf '[web-1]\\ntype = sftp\\nhost = {GATE}\\nport = %s\\nuser = {DOOR}\\nkey_file = %s\\nknown_hosts_file = %s\\n' \
                 $port $key $by_ca >rclone.conf
             rclone() {{ command rclone --config rclone.conf --transfers 4 --checkers 4 \"$@\"; }}
             rclone sync tree web-1:mirror
             rclone check tree web-1:mirror
             rclone copy web-1:mirror back
             diff -r tree/deep back/deep
             test \"$(rclone cat web-1:mirror/deep/run)\" = \"$(cat tree/deep/run)\""
        ))
        .ok();
    assert!(clients.remote("mirror/nothing").exists());
}

#[test]
fn dbclient_runs_commands() {
    let clients = Clients::start();
    let output = clients.shell(&format!(
        "dropbearconvert openssh dropbear $key key.db >/dev/null 2>&1
         cp $by_key .ssh/known_hosts
         dbclient -i key.db -p $port -l {DOOR} {GATE} 'id -un; cat; echo apart >&2; exit 42' <<<and-back"
    ));
    assert_eq!(output.exited(42).says("apart").out(), "deploy\nand-back");
}
