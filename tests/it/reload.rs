//! A new configuration while the gateway serves: all of it comes into force, or nothing.

use std::fs;
use tidegate_tests::{Running, World, daemon::Signal, wait_until, world::PATIENCE};

/// Writes the configuration as it is now, and asks for it.
fn reload(world: &World) -> tidegate_tests::Output {
    world.gateway.configure(&world.config);
    world.gateway.cli(&["reload"])
}

/// A shell that is in.
fn inside(world: &World) -> Running {
    let shell = world.ssh_start("alice", "deploy@web-1", &["echo in; cat"]);
    shell.until_stdout("in", PATIENCE);
    shell
}

#[test]
fn who_is_added_comes_in_and_who_is_taken_out_is_cut() {
    let mut world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let shell = inside(&world);
    let said = world.control("dora", &["whoami"]);
    assert_ne!(said.code, Some(0), "nobody knows dora yet");

    let key = world.client_file("mallory");
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    world.config.block(format!("[[user]]\nname = \"dora\"\ngroups = [\"sre\"]\nssh_keys = [{:?}]\n", public.trim()));
    let said = reload(&world).ok().out();
    assert!(said.contains("user[dora]: new") && !said.contains("ended"), "{said}");
    assert!(world.control("mallory", &["whoami"]).ok().out().contains("dora"), "the key is dora's now");

    world.config.change("name = \"shell\"", "name = \"other\"");
    let planned = world.config.write(world.dir());
    let planned = world.gateway.cli(&["config", "diff", planned.to_str().unwrap()]).ok().out();
    assert!(
        planned.contains("entitlement[shell]: gone") && planned.contains("1 live session(s) would end"),
        "{planned}"
    );
    let said = reload(&world).ok().out();
    assert!(said.contains("1 live session(s) ended"), "{said}");
    shell.end(PATIENCE).exited(1).says("configuration");
    world.gateway.until_no_lease(PATIENCE);
    let ledger = world.gateway.ledger();
    // The session and the reload each write of it as soon as they can.
    ledger.assert_order(&["config.reloaded", "session.cut", "session.closed"]);
    assert_eq!(ledger.count("config.reloaded"), 2);
    assert_eq!(ledger.last("config.reloaded").unwrap()["detail"]["ends"].as_array().unwrap().len(), 1);
}

#[test]
fn a_faulty_file_and_one_that_needs_a_restart_change_nothing() {
    let mut world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let config = world.gateway.json(&["status"])["config"].clone();
    let before = world.config.clone();
    for (from, to, says) in [
        ("logins = [\"deploy\"]", "logins = [\"deploy\"]\nlogin = \"x\"", "entitlement[shell].login: unknown key"),
        ("name = \"gate\"", "name = \"gate2\"", "gateway.name can only be changed by a restart"),
        (
            "[ssh]\nlisten = \"127.0.0.1:0\"",
            "[ssh]\nlisten = \"127.0.0.2:0\"",
            "ssh.listen can only be changed by a restart",
        ),
        ("[recording]\n", "[recording]\nstream_limits = \"1MiB\"\n", "recording.stream_limits: unknown key"),
        ("recipients = [\"age1", "recipients = [\"age2", "recording.recipients"),
    ] {
        world.config.change(from, to);
        reload(&world).exited(1).says(says);
        assert_eq!(world.gateway.json(&["status"])["config"], config, "{from}");
        assert_eq!(world.exec("alice", "echo still").ok().out(), "still");
        world.config = before.clone();
    }
    assert_eq!(world.gateway.ledger().count("config.refused"), 5);
    world.gateway.configure(&before);
    assert!(world.gateway.cli(&["config", "diff"]).ok().out().contains("a reload would change nothing"));
}

#[test]
fn hangup_reloads_and_a_target_that_moved_is_found_at_its_new_address() {
    let mut world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let address = format!("127.0.0.1:{}", world.sshd().port());
    world.config.change(&address, "127.0.0.1:1");
    world.gateway.configure(&world.config);
    world.gateway.signal(Signal::HUP);
    world.gateway.until_ledger("config.reloaded", 1, PATIENCE);
    world.exec("alice", "echo hi").exited(1).says("web-1");
    world.gateway.until_no_lease(PATIENCE);
    world.config.change("127.0.0.1:1\"", &format!("{address}\""));
    world.gateway.configure(&world.config);
    world.gateway.signal(Signal::HUP);
    world.gateway.until_ledger("config.reloaded", 2, PATIENCE);
    assert_eq!(world.exec("alice", "echo hi").ok().out(), "hi");
    wait_until(PATIENCE, "it serves on", || (world.gateway.cli(&["status"]).code == Some(0)).then_some(()));
}

#[test]
fn what_a_session_leaves_on_a_target_that_is_taken_out_is_removed() {
    let mut world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let shell = inside(&world);
    let target = world.config.clone();
    world.config.without("name = \"web-1\"").without("name = \"shell\"");
    let said = reload(&world).ok().out();
    assert!(said.contains("target[web-1]: gone"), "{said}");
    shell.end(PATIENCE).exited(1);
    world.gateway.until_no_lease(PATIENCE);
    assert_eq!(world.gateway.ledger().count("lease.closed"), 1, "by a receipt of the target that is no longer named");
    world.exec("alice", "true").exited(1);
    world.config = target;
    reload(&world).ok();
    assert_eq!(world.exec("alice", "echo back").ok().out(), "back");
}

#[test]
fn a_recipient_that_is_added_can_read_the_next_recording() {
    let mut world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let key = world.client_file("carol");
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    let words: Vec<&str> = public.split_whitespace().take(2).collect();
    world.config.change("recipients = [", &format!("recipients = [\"{}\", ", words.join(" ")));
    world.exec("alice", "echo before").ok();
    reload(&world).ok();
    world.exec("alice", "echo after").ok();
    world.gateway.until_no_lease(PATIENCE);
    let sessions: Vec<String> =
        world.gateway.recordings().iter().map(|r| r["session"].as_str().unwrap().to_owned()).collect();
    let export = |session: &str| {
        let key = key.to_str().unwrap();
        world.gateway.cli(&["recording", "export", "--format", "text", "--identity", key, session])
    };
    assert_ne!(export(&sessions[0]).code, Some(0), "it was sealed before");
    assert!(export(&sessions[1]).ok().out().contains("after"));
}

#[test]
fn the_role_of_a_session_on_a_database_that_is_taken_out_is_removed() {
    let mut world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let mut psql = world.psql_start("alice");
    psql.send("select 'in';\n");
    psql.until_stdout("in", PATIENCE);
    assert_eq!(world.pg().ephemeral_roles().len(), 1);
    for name in ["orders", "readonly", "readwrite", "migrate"] {
        world.config.without(&format!("name = \"{name}\""));
    }
    let said = reload(&world).ok().out();
    assert!(said.contains("target[orders]: gone") && said.contains("1 live session(s) ended"), "{said}");
    world.gateway.until_no_lease(PATIENCE);
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
    assert_eq!(world.gateway.ledger().count("lease.closed"), 1);
    psql.send("select 2;\n");
    psql.finish(PATIENCE).says("57P01");
}

#[test]
fn a_target_does_not_become_another_server_while_a_lease_is_open_on_it() {
    let mut world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let mut psql = world.psql_start("alice");
    psql.send("select 'in';\n");
    psql.until_stdout("in", PATIENCE);
    let before = world.config.clone();
    world.config.change("admin_user = \"tidegate\"", "admin_user = \"tidegate2\"");
    let planned = world.config.write(world.dir());
    let says = "target[orders].admin_user cannot change while 1 lease(s) are open on orders";
    let said = world.gateway.cli(&["config", "diff", planned.to_str().unwrap()]).exited(1);
    assert!(said.out().contains(says), "{}", said.out());
    reload(&world).exited(1).says(says);
    world.gateway.configure(&before);
    psql.send("select 'still';\n");
    psql.until_stdout("still", PATIENCE);
    assert_eq!(world.pg().ephemeral_roles().len(), 1);
    psql.send("\\q\n");
    psql.finish(PATIENCE);
    world.gateway.until_no_lease(PATIENCE);
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new(), "at the server that it was made on");
}

#[test]
fn what_is_in_a_file_that_the_configuration_names_is_part_of_it() {
    let mut world = World::postgres_only();
    let (theirs, own) = (world.pg().tls_ca(), world.gateway.dir().join("orders-ca.pem"));
    let pem = fs::read_to_string(&theirs).unwrap();
    fs::write(&own, &pem).unwrap();
    world.config.change(&format!("{theirs:?}"), "\"orders-ca.pem\"");
    reload(&world).ok();
    let config = world.gateway.json(&["status"])["config"].clone();
    assert!(world.gateway.cli(&["config", "diff"]).ok().out().contains("a reload would change nothing"));
    fs::write(&own, format!("{pem}{}", fs::read_to_string(world.client_file("ca.pem")).unwrap())).unwrap();
    let said = world.gateway.cli(&["config", "diff"]).ok().out();
    assert!(said.contains("target[orders].tls_ca (contents): \"sha256 "), "{said}");
    assert!(reload(&world).ok().out().contains("tls_ca (contents)"));
    assert_ne!(world.gateway.json(&["status"])["config"], config);
    assert!(
        world.gateway.ledger().last("config.reloaded").unwrap()["detail"].to_string().contains("tls_ca (contents)")
    );
}

#[test]
fn faults_come_one_a_line_by_the_name_of_the_file_that_was_asked_about() {
    let mut world = World::ssh_only();
    let before = world.config.clone();
    world.config.change("logins = [", "loginz = [").change("[recording]\n", "[recording]\nstream_limits = \"1MiB\"\n");
    let other = world.dir().join("other");
    fs::create_dir_all(&other).unwrap();
    let other = world.config.write(&other);
    let said = world.gateway.cli(&["config", "diff", other.to_str().unwrap()]).exited(1).err();
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines.len() >= 2 && lines.iter().all(|line| line.starts_with(&format!("{}:", other.display()))), "{said}");
    let said = reload(&world).exited(1).err();
    assert!(said.lines().count() >= 2 && !said.contains("u{a}") && said.contains("loginz"), "{said}");
    world.gateway.configure(&before);
    // The last admin that can reach the socket: said, and done if that is meant.
    world.config = before;
    world.config.change("unix_user", "#unix_user");
    let changed = world.config.write(other.parent().unwrap());
    let said = world.gateway.cli(&["config", "diff", changed.to_str().unwrap()]).ok().out();
    assert!(said.contains("warning: ") && said.contains("nobody can use the admin commands"), "{said}");
}
