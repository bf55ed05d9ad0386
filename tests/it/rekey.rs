//! New keys in the middle of transfers, asked for by either side, hundreds of times.

use std::process::Command;
use tidegate_tests::{Running, World, secs, world::Plan};

/// For a transfer on a busy machine.
const LONG: std::time::Duration = secs(300);
/// Bytes each way in MiB, and after how many KiB new keys are made.
const MIB: usize = 30;
const LIMIT: usize = 128;

/// 30 MiB up and down at once through `cat`, unchanged. What ssh said.
fn through_cat(world: &World, options: &[&str]) -> String {
    let ssh = world.ssh_command("alice", options, "deploy@web-1", &["cat"]);
    let words: Vec<_> = ssh.get_args().map(|w| w.to_string_lossy().into_owned()).collect();
    let mut command = Command::new("bash");
    let line =
        format!("dd if=/dev/urandom bs=1M count={MIB} status=none | tee >(sha256sum >&3) | ssh \"$@\" | sha256sum");
    let line = format!("exec 3>&1; {{ {line}; }} ");
    command.args(["-euo", "pipefail", "-c", &line, "bash"]).args(words).env_remove("SSH_AUTH_SOCK");
    let output = Running::start(command).finish(LONG).ok();
    let sums: Vec<String> = output.out().lines().map(str::to_owned).collect();
    assert_eq!(sums.len(), 2, "{}", output.out());
    assert_eq!(sums[0], sums[1]);
    output.err()
}

#[test]
fn heavy_a_client_makes_new_keys_200_times_in_one_transfer() {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let limit = format!("RekeyLimit={LIMIT}K");
    let said = through_cat(&world, &["-v", "-o", &limit]);
    let times = said.matches("SSH2_MSG_NEWKEYS sent").count();
    assert!(times >= 200, "{times} times");
}

#[test]
fn heavy_a_target_makes_new_keys_200_times_in_one_transfer() {
    let world = Plan::new().only_ssh().sshd_config(&format!("RekeyLimit {LIMIT}K\nLogLevel DEBUG1")).start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    through_cat(&world, &[]);
    let times = world.sshd().log().matches("SSH2_MSG_NEWKEYS sent").count();
    assert!(times >= 200, "{times} times");
}

#[test]
fn heavy_the_gateway_makes_new_keys_on_both_sides_while_all_that_fits_is_on_its_way() {
    let mut world = Plan::new().only_ssh().sshd_config("LogLevel DEBUG1").start();
    world.gateway.new_keys_after(1 << 20); // less than what is on its way at times
    world.restart_gateway();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let said = through_cat(&world, &["-v"]);
    let times = said.matches("SSH2_MSG_NEWKEYS sent").count();
    assert!(times >= MIB / 2, "{times} times");
    let times = world.sshd().log().matches("SSH2_MSG_NEWKEYS sent").count();
    assert!(times >= MIB / 2, "{times} times by the target");
}

#[test]
fn heavy_new_keys_on_both_sides_with_a_reader_that_sleeps_in_between() {
    let world = Plan::new().only_ssh().sshd_config("RekeyLimit 512K").start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let ssh = world.ssh_command("alice", &["-o", "RekeyLimit=512K"], "deploy@web-1", &["head -c 60M /dev/zero"]);
    let words: Vec<_> = ssh.get_args().map(|w| w.to_string_lossy().into_owned()).collect();
    let mut command = Command::new("bash");
    let line = "ssh \"$@\" | (head -c 20000000; sleep 4; head -c 20000000; sleep 4; cat) | sha256sum; \
                head -c 60M /dev/zero | sha256sum";
    command.args(["-euo", "pipefail", "-c", line, "bash"]).args(words).env_remove("SSH_AUTH_SOCK");
    let output = Running::start(command).finish(LONG).ok();
    let sums: Vec<String> = output.out().lines().map(str::to_owned).collect();
    assert_eq!(sums[0], sums[1]);
}
