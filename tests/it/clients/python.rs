//! Libraries of Python programs: Paramiko, AsyncSSH, and libssh by Ansible's binding. Each has a script beside this file,
//! which asserts for itself; here is what the target and the ledger must have seen.

use super::{Clients, DOOR, GATE, LONG};
use std::{env, path::PathBuf, process::Command};
use tidegate_tests::{
    evidence::Ledger,
    running::{Output, run},
};

/// The Python that `tests/run` has put these libraries into. `None` where they could not be had, outside CI.
pub(crate) fn interpreter() -> Option<PathBuf> {
    let target = env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
    let python =
        env::var_os("TIDEGATE_TEST_PYTHON").map_or_else(|| target.join("clients-venv/bin/python"), PathBuf::from);
    if python.exists() {
        return Some(python);
    }
    assert!(env::var_os("CI").is_none(), "{} is missing: ./tests/run makes it", python.display());
    eprintln!("SKIPPED: {} is missing; ./tests/run makes it", python.display());
    None
}

fn script(clients: &Clients, python: PathBuf, name: &str, part: &str, known_hosts: &str) -> Output {
    let path = format!("{}/it/clients/with_{name}.py", env!("CARGO_MANIFEST_DIR"));
    let mut command: Command = clients.command(python);
    command.args(["-B", &path, part]).env("GATE", GATE).env("PORT", clients.port().to_string()).env("DOOR", DOOR);
    command.env("KEY", clients.key()).env("KNOWN_HOSTS", clients.file(known_hosts)).env("WORK", &clients.home);
    run(command, LONG)
}

/// Commands and files of one library, in one world; then a refusal. Each script run is one connection, hence one session.
fn all_of(name: &str, known_hosts: &str) -> Option<Ledger> {
    let python = interpreter()?;
    let clients = Clients::start();
    script(&clients, python.clone(), name, "commands", known_hosts).ok();
    script(&clients, python.clone(), name, "files", known_hosts).ok();
    let grants = clients.world.gateway.list(&["grant", "list"]);
    clients.world.gateway.revoke(grants[0]["id"].as_str().unwrap());
    script(&clients, python, name, "refused", known_hosts).ok();
    Some(clients.world.gateway.until_ledger("session.closed", 2, LONG))
}

#[test]
fn paramiko_runs_commands_moves_files_and_shows_a_refusal() {
    if let Some(ledger) = all_of("paramiko", "by_key") {
        assert_eq!((ledger.count("session.opened"), ledger.count("session.denied")), (2, 1), "{}", ledger.story());
    }
}

#[test]
fn asyncssh_runs_commands_moves_files_and_shows_a_refusal() {
    if let Some(ledger) = all_of("asyncssh", "by_ca") {
        assert_eq!((ledger.count("session.opened"), ledger.count("session.denied")), (2, 1), "{}", ledger.story());
    }
}

#[test]
fn libssh_runs_commands_moves_files_and_shows_a_refusal() {
    if let Some(ledger) = all_of("libssh", "by_key") {
        assert_eq!((ledger.count("session.opened"), ledger.count("session.denied")), (2, 1), "{}", ledger.story());
    }
}
