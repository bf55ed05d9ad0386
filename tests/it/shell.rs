//! The control shell, with OpenSSH's own client.

use serde_json::Value;
use std::{fs, path::PathBuf};
use tidegate_tests::{
    Running, World,
    evidence::{TWO_SECONDS_AND_SLACK, assert_within},
    postgres::binary,
    running::{Output, run},
    secs,
    world::{PATIENCE, Plan},
};

fn json(output: Output) -> Value {
    let output = output.ok();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{}: {e} in {}", output.command, output.out()))
}

/// No byte that could act on a terminal.
#[track_caller]
fn assert_harmless(output: &Output) {
    let text = output.out() + &output.err();
    let acts = |c: char| (c.is_control() && !matches!(c, '\n' | '\r')) || matches!(c, '\u{202a}'..='\u{202e}');
    assert!(!text.contains(acts), "{text:?}");
}

#[test]
fn help_names_every_verb_and_says_more_about_each() {
    let world = World::ssh_only();
    let help = world.control("alice", &["help"]).ok().out();
    assert_eq!(world.control("alice", &[" --help"]).ok().out(), help);
    for verb in [
        "help", "whoami", "targets", "request", "requests", "approve", "deny", "cancel", "review", "grants", "extend",
        "return", "password", "cert", "sessions", "kill", "play", "config",
    ] {
        assert!(help.lines().any(|line| line.starts_with(verb)), "{verb} is not in: {help}");
        let more = world.control("alice", &["help", verb]).ok().out();
        assert!(more.starts_with(verb) && more.lines().count() > 1, "{more}");
    }
    world.control("alice", &["help", "nonsense"]).exited(2).says("no such command");
    world.control("alice", &["revoke 1"]).exited(1).says("no grant has this id");
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_to_type() {
    let world = World::ssh_only();
    for command in [
        "no-such-verb",
        "help a b",
        "whoami alice",
        "whoami --json --json",
        "targets --jso",
        "grants --json=1",
        "password",
        "password orders orders",
        "cert me.csr",
        "sessions all",
        "kill",
        "kill a b",
        "kill nothex",
        "request",
        "request web-1 --for",
        "request web-1 --for soon --reason x",
        "request web-1 --reason",
        "request web/1/2 --reason x",
        "request WEB --reason x",
        "requests all",
        "approve",
        "approve a b",
        "deny",
        "cancel a b",
        "play",
        "play nothex",
        "play 0 --speed",
        "play 0 --speed 0",
        "play 0 --speed NaN",
        "play 0 --idle-limit -1",
        "config nonsense",
        "config ssh postgres",
        "config postgres --home a'b",
        "whoami\t--json",
        "whoami\u{e9}",
        "whoami\nhelp",
    ] {
        let output = world.control("alice", &[command]).exited(2);
        assert!(output.out().is_empty() && output.err().starts_with("tidegate: "), "{command:?}: {}", output.err());
        assert_harmless(&output);
    }
    let long = format!("whoami {}", "x".repeat(5000));
    world.control("alice", &[&long]).exited(2).says("too long");
}

#[test]
fn lists_are_one_json_array_each_and_empty_where_there_is_nothing() {
    let world = World::ssh_only();
    let empty = Value::Array(Vec::new());
    for verb in ["grants", "sessions"] {
        assert_eq!(json(world.control("alice", &[verb, "--json"])), empty, "{verb}");
    }
    assert_eq!(json(world.control("carol", &["targets", "--json"])), empty);
    let grant = world.gateway.grant("alice", "web-1", "shell", "30m");
    world.exec("alice", "true").ok();
    assert_eq!(json(world.control("alice", &["whoami", "--json"]))["name"], "alice");
    assert_eq!(json(world.control("alice", &["targets", "--json"]))[0]["name"], "web-1");
    assert_eq!(json(world.control("alice", &["grants", "--json"]))[0]["id"], grant.as_str());
    let sessions = json(world.control("alice", &["sessions", "--json"]));
    for field in ["id", "identity", "target", "access", "grant", "source", "start", "state"] {
        assert!(sessions[0][field].is_string(), "{field} is missing in {sessions}");
    }
}

#[test]
fn control_characters_in_what_others_wrote_never_reach_a_terminal() {
    let world = World::ssh_only();
    let reason = "\u{1b}]52;c;ZXZpbA==\u{7}\u{1b}[2J\u{9b}31m\u{202e}looks harmless";
    let issue = ["grant", "issue", "--user", "alice", "--target", "web-1", "--entitlement", "shell"];
    let grant = world.gateway.cli(&[&issue[..], &["--for", "30m", "--reason", reason]].concat()).ok().out();
    for command in ["grants", "grants --json", "sessions", "targets", "help"] {
        assert_harmless(&world.control("alice", &[command]).ok());
    }
    assert!(world.control("alice", &["grants"]).out().contains("looks harmless"));
    let session = world.ssh_start("alice", "deploy@web-1", &["echo in; cat"]);
    session.until_stdout("in", PATIENCE);
    let id = json(world.control("alice", &["sessions", "--json"]))[0]["id"].as_str().unwrap().to_owned();
    world.gateway.cli(&["session", "kill", &id, "--reason", reason]).ok();
    let killed = session.end(PATIENCE).exited(1).says("killed by operator").says("looks harmless");
    assert_harmless(&killed);
    assert_harmless(&world.control("alice", &["sessions"]).ok());
    world.gateway.cli(&["grant", "revoke", &grant, "--reason", reason]).ok();
    assert_harmless(&world.exec("alice", "true").exited(77));
}

#[test]
fn one_kills_their_own_live_session_and_it_ends_at_once_with_a_sentence() {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let session = world.ssh_start("alice", "deploy@web-1", &["echo in; cat"]);
    session.until_stdout("in", PATIENCE);
    let own = json(world.control("alice", &["sessions", "--json"]));
    assert_eq!((own.as_array().unwrap().len(), &own[0]["state"]), (1, &Value::from("live")));
    let id = own[0]["id"].as_str().unwrap();
    let suffix = &id[id.len() - 8..];
    let listed = world.control("alice", &["sessions"]).ok().out();
    assert!(listed.contains(suffix) && listed.contains("web-1") && listed.contains("127.0.0.1"), "{listed}");
    world.control("alice", &["kill", suffix]).ok();
    session.end(PATIENCE).exited(1).says("your session was killed by alice");
    let ledger = world.gateway.until_ledger("session.closed", 1, secs(60));
    ledger.assert_order(&["session.opened", "session.killed", "session.cut", "lease.disabled", "session.closed"]);
    let killed = ledger.one("session.killed");
    assert_eq!((&killed["session"], &killed["detail"]["by"]), (&own[0]["id"], &Value::from("alice")));
    assert_within(killed, ledger.one("lease.disabled"), TWO_SECONDS_AND_SLACK);
    world.control("alice", &["kill", suffix]).exited(1).says("is over already");
    assert!(world.control("alice", &["sessions"]).ok().out().contains("killed by alice"));
    // The grant goes on.
    world.exec("alice", "true").ok();
    world.gateway.verify_ledger().ok();
}

#[test]
fn somebody_elses_session_does_not_exist() {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let mut session = world.ssh_start("alice", "deploy@web-1", &["echo in; cat; echo out"]);
    session.until_stdout("in", PATIENCE);
    let id = json(world.control("alice", &["sessions", "--json"]))[0]["id"].as_str().unwrap().to_owned();
    let nobodys = "019aa1b2-0000-7000-8000-0000000000aa";
    for verb in ["kill", "play"] {
        let theirs = world.control("bob", &[verb, &id]).exited(1);
        let unknown = world.control("bob", &[verb, nobodys]).exited(1);
        assert_eq!((theirs.err(), theirs.out()), (unknown.err(), unknown.out()));
    }
    assert_eq!(world.control("bob", &["sessions", "--all", "--json"]).ok().out(), "[]");
    session.close_stdin();
    assert!(session.end(PATIENCE).ok().out().contains("out"), "it was not disturbed");
}

#[test]
fn an_admin_kills_a_session_of_either_kind_and_sees_what_became_of_it() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    let mut psql = world.psql_start("alice");
    psql.send("select 'in';\n");
    psql.until_stdout("in", PATIENCE);
    let id = world.gateway.list(&["session", "list"])[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(world.gateway.cli(&["session", "kill", &id[..18], "--reason", "maintenance"]).ok().out(), id);
    psql.send("select 1;\n");
    psql.finish(PATIENCE).exited(2).says("57P01").says("killed by operator: maintenance");
    world.gateway.until_no_lease(PATIENCE);
    let detail = world.gateway.json(&["session", "show", &id]);
    assert_eq!((&detail["state"], &detail["leases"][0]["state"]), (&Value::from("closed"), &Value::from("closed")));
    assert!(world.gateway.cli(&["session", "show", &id[28..]]).ok().out().contains("killed by operator"));
    world.gateway.cli(&["session", "kill", &id]).exited(1).says("is over already");
    world.gateway.cli(&["session", "kill", "ffffffff"]).exited(1).says("no session has this id");
}

/// `ssh gate` with these lines on its stdin, with a terminal or without.
fn typed(world: &World, more: &[&str], lines: &[u8]) -> Output {
    let mut shell = Running::start(world.ssh_command("alice", more, "alice", &[]));
    shell.send(lines);
    shell.finish(PATIENCE)
}

#[test]
fn lines_from_a_program_are_run_whole_or_not_at_all() {
    let world = World::ssh_only();
    let output = typed(&world, &["-T"], b"whoami\nwhoami --json\r\nno-such-verb\nwhoami").ok();
    assert_eq!(output.out().matches("alice").count(), 3, "{}", output.out());
    output.says("no such command");
    for line in [&b"whoami\0\n"[..], b"who\x7fami\n", b"whoami\x1b[A\n", b"whoami caf\xc3\xa9\n", b"\x03whoami\n"] {
        let output = typed(&world, &["-T"], line).exited(2).says("plain words");
        assert!(output.out().is_empty(), "{line:?}: {}", output.out());
        assert_harmless(&output);
    }
    let spaces = [&b"whoami"[..], &vec![b' '; 4096], b"x\n"].concat();
    typed(&world, &["-T"], &spaces).exited(2).says("too long");
    let longest = [&b"whoami"[..], &vec![b' '; 4090], b"\n"].concat();
    typed(&world, &["-T"], &longest).ok();
}

#[test]
fn a_terminal_has_a_prompt_and_simple_editing() {
    let world = World::ssh_only();
    let mut shell = Running::start(world.ssh_command("alice", &["-tt"], "alice", &[]));
    shell.until_stdout("tidegate> ", PATIENCE);
    assert!(shell.stdout().contains("you are alice"));
    shell.send("whoaxx\x7f\x7fmi\x1b[A\r");
    shell.until_stdout("groups: ", PATIENCE);
    shell.send("help kill\r");
    shell.until_stdout("end one of your live sessions\r\n", PATIENCE);
    shell.send("nonsense\r");
    shell.until_stderr("no such command", PATIENCE);
    shell.send("cert\r");
    shell.until_stderr("in your own shell", PATIENCE);
    shell.send("kill 12\x03");
    shell.until_stdout("^C\r\n", PATIENCE);
    shell.send("whoami\r\x04");
    let output = shell.end(PATIENCE).ok();
    assert!(!output.out().replace("\r\n", "").contains('\n'), "every line starts at the left: {:?}", output.out());
}

/// What `config PART` prints, in a file.
fn config_file(world: &World, name: &str, arguments: &[&str]) -> PathBuf {
    let path = world.dir().join(name);
    let output = world.control("alice", &[&["config"], arguments].concat()).ok();
    assert!(output.err().contains("belong"), "where it goes: {}", output.err());
    fs::write(&path, &output.stdout).unwrap();
    path
}

fn understood(file: &std::path::Path, host: &str) -> String {
    let mut ssh = std::process::Command::new("ssh");
    ssh.arg("-G").arg("-F").arg(file).arg(host);
    run(ssh, PATIENCE).ok().out()
}

#[test]
fn config_is_what_openssh_understands_and_opens_sessions_with() {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let ssh = config_file(&world, "ssh_config", &["ssh"]);
    let port = world.gateway.ssh().port();
    for host in ["deploy@web-1@gate", "deploy@web-1@gate.test"] {
        let understood = understood(&ssh, host);
        for line in ["hostname gate.test", &format!("port {port}"), "hostkeyalias gate.test", "controlmaster auto"] {
            assert!(understood.lines().any(|found| found == line), "{line} is not in: {understood}");
        }
        assert!(
            understood
                .lines()
                .any(|l| l.starts_with("controlpath ") && l.contains("-deploy@web-1") || l.ends_with("-%r")),
            "{understood}"
        );
    }
    assert!(understood(&ssh, "deploy.web-1.gate").lines().any(|line| line == "user deploy@web-1"));
    assert!(!understood(&ssh, "elsewhere.example.com").contains("gate.test"), "other hosts are left alone");
    let whole = config_file(&world, "whole", &[]);
    assert!(understood(&whole, "gate").contains("hostname gate.test"));
    let known = config_file(&world, "known", &["known_hosts"]);
    let line = fs::read_to_string(&known).unwrap();
    let expected = format!("@cert-authority gate.test,[gate.test]:{port} ssh-ed25519 ");
    assert!(line.starts_with(&expected) && line.lines().count() == 1 && !line.contains('*'), "{line}");
    for host in ["deploy@web-1@gate", "deploy.web-1.gate"] {
        let mut command = std::process::Command::new("ssh");
        command.arg("-F").arg(&ssh).arg("-i").arg(world.client_file("alice")).env_remove("SSH_AUTH_SOCK");
        // Only where the name is not resolved, and the files of the machine's own user are not to be written to.
        for option in ["HostName=127.0.0.1", "ControlPath=none", "GlobalKnownHostsFile=none", "BatchMode=yes"] {
            command.args(["-o", option]);
        }
        command.arg("-o").arg(format!("UserKnownHostsFile={}", known.display()));
        command.args([host, "echo through"]);
        assert_eq!(run(command, PATIENCE).ok().out(), "through");
    }
}

#[test]
fn config_is_what_psql_understands_and_opens_sessions_with() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let home = world.dir().join("home");
    fs::create_dir_all(home.join(".postgresql")).unwrap();
    let services = config_file(&world, "pg_service.conf", &["postgres", "--home", home.to_str().unwrap()]);
    let text = fs::read_to_string(&services).unwrap();
    assert!(text.contains("[orders/shop]") && text.contains("sslmode=verify-full"), "{text}");
    fs::copy(config_file(&world, "ca", &["ca"]), home.join(".postgresql/gate-ca.pem")).unwrap();
    let password = world.password("alice", "orders");
    let mut psql = std::process::Command::new(binary("psql"));
    psql.args(["-X", "-At", "service=orders/shop hostaddr=127.0.0.1", "-c", "select count(*) from items"]);
    psql.env("PGSERVICEFILE", &services).env("PGPASSWORD", &password);
    assert_eq!(run(psql, PATIENCE).ok().out(), "100");
    // Who may ask for no database gets no service.
    assert_eq!(world.control("carol", &["config", "postgres"]).ok().out(), "");
    assert!(!world.control("carol", &["config"]).ok().out().contains("orders"));
}

#[test]
fn a_jump_through_the_gate_is_refused_with_what_to_type_instead() {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let advice = "type instead: ssh LOGIN@TARGET@gate";
    let wanted = format!("127.0.0.1:{}", world.sshd().port());
    run(world.ssh_command("alice", &["-W", &wanted], "alice", &[]), PATIENCE).exited(255).says(advice);
    // The jump is an ssh of its own, which reads the same configuration.
    let jump = world.dir().join("jump");
    let options = world.ssh_options("alice");
    let lines = options.chunks(2).filter(|pair| pair[0] == "-o").map(|pair| format!("{}\n", pair[1]));
    let own = format!("HostName 127.0.0.1\nIdentityFile {}\n", world.client_file("alice").display());
    fs::write(&jump, own + &lines.collect::<String>()).unwrap();
    let mut ssh = std::process::Command::new("ssh");
    ssh.arg("-F").arg(&jump).args(["-J", "alice@gate", "deploy@web-1", "echo never"]).env_remove("SSH_AUTH_SOCK");
    run(ssh, PATIENCE).exited(255).says(advice);
    assert!(!world.sshd().log().contains("Accepted"), "{}", world.sshd().log());
}

#[test]
fn who_is_no_longer_configured_is_told_so() {
    let mut world = Plan::new().only_ssh().start();
    let shell = world.ssh_command("alice", &["-T"], "alice", &[]);
    let mut shell = Running::start(shell);
    shell.send("whoami\n");
    shell.until_stdout("alice", PATIENCE);
    drop(shell);
    world.config.without("name = \"alice\"");
    world.gateway.configure(&world.config);
    world.gateway.terminate();
    world.gateway.start();
    world.control("alice", &["whoami"]).exited(255);
}
