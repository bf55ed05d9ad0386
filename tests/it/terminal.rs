//! Sessions in a terminal, driven by `expect` as a person would.

use std::process::Command;
use tidegate_tests::{Running, World, secs, world::PATIENCE};

/// Runs an `expect` script; `$ssh` in it is the command line that opens a shell on `web-1` as alice.
pub(crate) fn expect(world: &World, script: &str) -> Running {
    let ssh = world.ssh_command("alice", &["-tt"], "deploy@web-1", &[]);
    let words: Vec<String> = std::iter::once(ssh.get_program())
        .chain(ssh.get_args())
        .map(|word| format!("{{{}}}", word.to_string_lossy()))
        .collect();
    let head = format!("set timeout 40\nset stty_init \"rows 41 columns 97\"\nset ssh [list {}]\n", words.join(" "));
    let otherwise = "expect_before -i $any_spawn_id timeout { puts stderr TIMEOUT; exit 9 }\n";
    let mut command = Command::new("expect");
    command.args(["-c", &(head + otherwise + script)]).env_remove("SSH_AUTH_SOCK").env("TERM", "xterm");
    Running::start(command)
}

/// Opens the shell, and waits for its prompt, `ready:`.
pub(crate) const OPEN: &str =
    "eval spawn -noecho $ssh\nset shell $spawn_id\nexpect {$ }\nsend \"PS1=ready:\\r\"\nexpect {ready:}\n";

#[test]
fn a_shell_has_a_terminal_of_the_clients_size_and_follows_its_changes() {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let script = r#"
send "stty size; echo term=\$TERM\r"
expect "41 97"
expect "term=xterm"
exec stty rows 20 columns 60 < $spawn_out(slave,name)
send "stty size\r"
expect "20 60"
send "exit 5\r"
expect eof
exit [lindex [wait] 3]
"#;
    expect(&world, &format!("{OPEN}{script}")).finish(PATIENCE).exited(5);
    let recordings = world.gateway.recordings();
    let cast = world.gateway.export(recordings[0]["session"].as_str().unwrap(), "asciicast");
    let header: serde_json::Value = serde_json::from_str(cast.lines().next().unwrap()).unwrap();
    let size = header.to_string();
    assert!(size.contains("97") && size.contains("41"), "{size}");
    assert!(cast.contains("60x20"), "the change of size is in the recording:\n{cast}");
}

#[test]
fn ctrl_c_reaches_the_program_in_the_terminal() {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let script = r#"
send "sh -c 'echo sta''rted; exec sleep 500'\r"
expect "started"
send "\003"
expect "ready:"
send "echo status=\$?\r"
expect "status=130"
send "exit\r"
expect eof
"#;
    // What is typed is echoed: only the program itself writes the word in one piece.
    expect(&world, &format!("{OPEN}{script}")).finish(PATIENCE).ok();
}

#[test]
fn a_revoked_grant_says_why_in_the_persons_terminal() {
    let world = World::ssh_only();
    let grant = world.gateway.grant("alice", "web-1", "shell", "30m");
    let script = "expect {revoked by operator: enough}\nexpect eof\nexit [lindex [wait] 3]\n";
    let terminal = expect(&world, &format!("{OPEN}{script}"));
    terminal.until_stdout("ready:", PATIENCE);
    world.gateway.revoke(&grant);
    terminal.end(PATIENCE).exited(1);
    world.gateway.until_ledger("session.cut", 1, secs(20));
}
