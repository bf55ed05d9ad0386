//! Second factors, with OpenSSH and psql as they are. Codes come from an RFC 6238 of its own, written with Python's `hmac`.

use serde_json::Value;
use ssh_key::{Algorithm, PrivateKey, getrandom::SysRng, rand_core::UnwrapErr};
use std::{fs, process::Command};
use tidegate_tests::{
    Output, Running, World,
    agent::{Agent, Held},
    running::run,
    secs,
    world::{PATIENCE, Plan},
};

/// What somebody was given.
pub(crate) struct Given {
    secret: String,
    recovery: Vec<String>,
}

pub(crate) fn enroll(world: &World, name: &str) -> Given {
    let given = world.gateway.json(&["user", "mfa", "enroll", name]);
    let uri = given["uri"].as_str().unwrap();
    assert!(uri.starts_with("otpauth://totp/gate:alice?") && uri.contains("issuer=gate"), "{uri}");
    let (_, rest) = uri.split_once("secret=").unwrap();
    let secret = rest.split('&').next().unwrap().to_owned();
    let recovery = given["recovery"].as_array().unwrap().iter().map(|code| code.as_str().unwrap().to_owned()).collect();
    Given { secret, recovery }
}

const TOTP: &str = "import base64,hmac,struct,sys,time
key = base64.b32decode(sys.argv[1] + '=' * (-len(sys.argv[1]) % 8))
mac = hmac.new(key, struct.pack('>Q', int(time.time()) // 30 + int(sys.argv[2])), 'sha1').digest()
at = mac[-1] & 15
print('%06d' % ((struct.unpack('>I', mac[at:at + 4])[0] & 0x7fffffff) % 1000000), end='')
";

impl Given {
    /// The code of the step that comes so many after this one. That of this step and the next are good for 30 s and more.
    pub(crate) fn code(&self, later: i32) -> String {
        let mut python = Command::new("python3");
        python.args(["-c", TOTP, &self.secret, &later.to_string()]);
        run(python, secs(20)).ok().out()
    }

    /// No code of now: one digit is another.
    pub(crate) fn wrong(&self) -> String {
        let near: Vec<String> = (-2..=2).map(|step| self.code(step)).collect();
        (0..10).map(|n| format!("00000{n}")).find(|code| !near.contains(code)).unwrap()
    }
}

/// `ssh gate VERB` with this on stdin.
pub(crate) fn typed(world: &World, verb: &[&str], line: &str) -> Output {
    let mut ssh = Running::start(world.ssh_command("alice", &[], "alice", verb));
    ssh.send(line);
    ssh.finish(PATIENCE)
}

/// `ssh deploy@web-1@gate ARGS` by somebody at a terminal, whom an `expect` script plays.
fn at_a_terminal(world: &World, args: &[&str], script: &str) -> Output {
    let ssh =
        world.ssh_command("alice", &["-o", "BatchMode=no", "-o", "NumberOfPasswordPrompts=3"], "deploy@web-1", args);
    let words: Vec<String> = std::iter::once(ssh.get_program())
        .chain(ssh.get_args())
        .map(|w| format!("{{{}}}", w.to_string_lossy()))
        .collect();
    let head = format!("set timeout 40\neval spawn -noecho {}\n", words.join(" "));
    let otherwise = "expect_before -i $any_spawn_id timeout { puts stderr TIMEOUT; exit 9 }\n";
    let end = "expect eof\nexit [lindex [wait] 3]\n";
    let mut command = Command::new("expect");
    command.args(["-c", &(head + otherwise + script + end)]).env_remove("SSH_AUTH_SOCK").env("TERM", "xterm");
    Running::start(command).finish(PATIENCE)
}

const PROMPT: &str = "expect {Code of your authenticator app}\n";

fn plan() -> Plan {
    Plan::new().change("logins = [\"deploy\"]", "logins = [\"deploy\"]\nmfa = \"session\"")
}

#[test]
fn ssh_asks_for_a_code_after_the_key_and_goes_on_with_the_right_one() {
    let mut world = plan().only_ssh().start();
    let given = enroll(&world, "alice");
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let (wrong, code) = (given.wrong(), given.code(0));
    let script = format!(
        "{PROMPT}send \"{wrong}\\r\"\nexpect {{that code is not right}}\n{PROMPT}send \"{code}\\r\"\nexpect {{opened}}\n"
    );
    at_a_terminal(&world, &["echo opened"], &script).ok();
    let ledger = world.gateway.ledger();
    ledger.assert_order(&["mfa.enrolled", "mfa.proven", "session.opened"]);
    assert_eq!(ledger.one("mfa.proven")["detail"]["by"], "code");
    // Fresh: from the same address a program is not asked.
    world.exec("alice", "echo again").ok();
    // The code is spent, also for the next of us, and after a restart.
    typed(&world, &["mfa"], &format!("{code}\n")).exited(77).says("used already").says("ref ");
    world.gateway.kill9();
    world.gateway.start();
    typed(&world, &["mfa"], &format!("{code}\n")).exited(77).says("used already");
    let recovery = &given.recovery[3];
    typed(&world, &["mfa"], &format!("{}\n", recovery.to_uppercase())).ok();
    typed(&world, &["mfa"], &format!("{recovery}\n")).exited(77).says("not right");
    assert_eq!(world.gateway.list(&["user", "mfa", "list"])[0]["recovery_codes"], 9);
    let state = std::fs::read(world.gateway.state().join("tidegate.db")).unwrap();
    let wal = std::fs::read(world.gateway.state().join("tidegate.db-wal")).unwrap_or_default();
    for secret in [&given.secret, recovery, &given.recovery[0]] {
        let found =
            [&state, &wal].iter().any(|bytes| bytes.windows(secret.len()).any(|part| part == secret.as_bytes()));
        assert!(!found, "a secret is in the store");
    }
    world.gateway.verify_ledger().ok();
}

#[test]
fn who_has_no_terminal_hears_77_and_in_batch_mode_the_key_alone_opens_nothing() {
    let world = plan().only_ssh().start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    // Nobody has a factor yet: there is nothing to ask for.
    world.exec("alice", "true").exited(77).says("opens only with a second factor").says("user mfa enroll");
    let given = enroll(&world, "alice");
    let ssh = world.ssh_command("alice", &["-o", "BatchMode=no"], "deploy@web-1", &["true"]);
    let mut command = Command::new("setsid");
    command.arg("--wait").arg(ssh.get_program()).args(ssh.get_args());
    command
        .env_remove("SSH_AUTH_SOCK")
        .env_remove("DISPLAY")
        .env("SSH_ASKPASS_REQUIRE", "never")
        .env("LC_ALL", "C.UTF-8");
    let refused = Running::start(command).finish(PATIENCE).exited(77).says("opens only with a second factor");
    assert_eq!(
        refused.err().lines().filter(|line| line.starts_with("tidegate:")).count(),
        2,
        "a sentence, and what to do: {}",
        refused.err()
    );
    world.exec("alice", "true").exited(255).says("keyboard-interactive");
    assert_eq!(world.gateway.until_ledger("door.refused", 1, secs(20)).one("door.refused")["detail"]["check"], "mfa");
    assert_eq!(world.gateway.ledger().count("session.opened"), 0);
    typed(&world, &["mfa"], &format!("{}\n", given.code(0))).ok();
    world.exec("alice", "echo open").ok();
}

#[test]
fn a_password_for_psql_is_given_for_a_code_and_carries_it() {
    let world = Plan::new()
        .only_postgres()
        .change("roles = [\"shop_reader\"]", "roles = [\"shop_reader\"]\nmfa = \"session\"")
        .start();
    let given = enroll(&world, "alice");
    world.gateway.grant("alice", "orders", "readonly", "20m");
    world.control("alice", &["password", "orders"]).exited(77).says("a second factor is needed, and no code came");
    typed(&world, &["password", "orders"], &format!("{}\n", given.wrong())).exited(77).says("not right");
    let password = typed(&world, &["password", "orders"], &format!("{}\n", given.code(0))).ok().out();
    let psql = |user: &str| {
        run(world.psql_command(&world.conninfo(user, "orders/shop"), &password, &["-Atc", "select 'open'"]), PATIENCE)
    };
    assert_eq!(psql("alice").ok().out(), "open");
    let ledger = world.gateway.ledger();
    ledger.assert_order(&["mfa.proven", "password.factor", "password.set", "session.opened"]);
    let carried: Vec<&Value> = ledger.all("password.factor");
    assert_eq!(carried.len(), 1);
    world.gateway.until_no_lease(secs(90));
    world.gateway.verify_ledger().ok();
}

#[test]
fn seeds_are_sealed_under_a_key_that_rotates_and_a_factor_that_is_taken_away_opens_nothing() {
    let mut world = plan().only_ssh().start();
    let given = enroll(&world, "alice");
    world.gateway.cli(&["user", "mfa", "enroll", "alice"]).exited(1).says("--replace");
    world.gateway.cli(&["user", "mfa", "enroll", "nobody"]).exited(1).says("names no user nobody");
    assert!(world.gateway.cli(&["check"]).ok().out().contains("mfa.key"));
    world.gateway.cli(&["ca", "rotate", "mfa"]).ok();
    world.gateway.terminate();
    world.gateway.start();
    assert_eq!(world.gateway.ledger().count("mfa.resealed"), 1);
    world.gateway.cli(&["ca", "rotate", "mfa", "--drop-old"]).ok();
    world.gateway.terminate();
    world.gateway.start();
    typed(&world, &["mfa"], &format!("{}\n", given.code(0))).ok();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.exec("alice", "echo fresh").ok();
    world.gateway.cli(&["user", "mfa", "remove", "alice"]).ok();
    world.exec("alice", "true").exited(77).says("user mfa enroll");
    typed(&world, &["mfa"], &format!("{}\n", given.recovery[0])).exited(77).says("you have no codes here");
    world.gateway.verify_ledger().ok();
    world.gateway.cli(&["user", "mfa", "enroll", "alice"]).ok();
    world.gateway.verify_ledger().ok();
}

/// A security key of alice's, in an agent of her own.
struct InAgent {
    folder: tempfile::TempDir,
    agent: Agent,
    public: String,
}

impl InAgent {
    fn holding(held: Held, public: String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("key.pub"), &public).unwrap();
        let agent = Agent::start(folder.path(), vec![held]);
        Self { folder, agent, public }
    }

    fn new(key: &PrivateKey, touched: bool) -> Self {
        let (held, public) = Held::in_security_key(key, touched);
        Self::holding(held, public)
    }

    /// The line that the gate prints, signed by `ssh-keygen`, and what the gate says of that, as one pipeline.
    fn prove(&self, world: &World, namespace: &str) -> Output {
        self.prove_by(&format!("ssh '{}'", world.ssh_options("alice").join("' '")), namespace)
    }

    /// The same, by this way to the gate.
    fn prove_by(&self, ssh: &str, namespace: &str) -> Output {
        let gate = format!("{ssh} alice@127.0.0.1 mfa");
        let key = self.folder.path().join("key.pub").display().to_string();
        let line = format!("{gate} --challenge | ssh-keygen -q -Y sign -n {namespace} -f {key} | {gate} --signed");
        let mut bash = Command::new("bash");
        bash.args(["-c", &line]).env("SSH_AUTH_SOCK", self.agent.socket()).env("LC_ALL", "C.UTF-8");
        run(bash, PATIENCE)
    }
}

#[test]
fn a_security_key_that_was_touched_and_that_nobody_came_with_is_a_second_factor() {
    let mut world = plan().only_ssh().start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let key = || PrivateKey::random(&mut UnwrapErr(SysRng), Algorithm::Ed25519).unwrap();
    let (hers, lent) = (key(), key());
    let (touched, untouched, others) =
        (InAgent::new(&hers, true), InAgent::new(&hers, false), InAgent::new(&lent, true));
    world.exec("alice", "true").exited(77).says("or a security key in your `ssh_keys`");
    let plain = world.public_key("alice");
    world.set_keys("alice", &[&plain, touched.public.trim()]);
    world.exec("alice", "true").exited(77).says("ssh gate mfa --challenge | ssh-keygen -Y sign -n tidegate-mfa");

    untouched.prove(&world, "tidegate-mfa").exited(77).says("the security key was not touched");
    others.prove(&world, "tidegate-mfa").exited(77).says("not by one of your own keys");
    touched.prove(&world, "tidegate-approval").exited(77).says("sign with -n tidegate-mfa");
    let alice = PrivateKey::read_openssh_file(world.client_file("alice")).unwrap();
    let came_with = InAgent::holding(Held::plain(&alice), plain);
    came_with.prove(&world, "tidegate-mfa").exited(77).says("that is no security key");
    world.control("alice", &["mfa --signed"]).exited(77).says("no line to sign was asked for from here");
    world.control("alice", &["mfa --signed --challenge"]).exited(2);
    typed(&world, &["mfa --challenge"], "").ok();
    typed(&world, &["mfa --signed"], "yes\n").exited(77).says("no signature");
    typed(&world, &["mfa --signed"], "yes\n").exited(77).says("no line to sign");
    assert_eq!(world.gateway.ledger().count("mfa.proven"), 0);
    world.exec("alice", "true").exited(77);

    touched.prove(&world, "tidegate-mfa").ok();
    let proven = world.gateway.ledger().one("mfa.proven").clone();
    assert_eq!(proven["detail"]["by"], "security key");
    assert_eq!(world.exec("alice", "echo open").ok().out(), "open");
    // Whoever has both may prove either.
    let codes = enroll(&world, "alice");
    typed(&world, &["mfa"], &format!("{}\n", codes.code(0))).ok();
    world.gateway.cli(&["user", "mfa", "remove", "alice"]).ok();
    world.exec("alice", "true").exited(77).says("sign with your security key");
    world.gateway.verify_ledger().ok();
}

#[test]
fn the_security_key_that_somebody_comes_with_is_one_factor_and_no_second() {
    let mut world = plan().only_ssh().start();
    let key = PrivateKey::random(&mut UnwrapErr(SysRng), Algorithm::Ed25519).unwrap();
    let hers = InAgent::new(&key, true);
    world.set_keys("alice", &[hers.public.trim()]);
    fs::write(world.client_file("alice.pub"), &hers.public).unwrap();
    let (public, agent) = (world.client_file("alice.pub"), hers.agent.socket());
    let options = world.ssh_options("nobody").join("' '");
    let by_it = format!("ssh -i {} -o IdentityAgent={} '{options}'", public.display(), agent.display());
    hers.prove_by(&by_it, "tidegate-mfa").exited(77).says("that is the key that you came with");
    assert_eq!(world.gateway.ledger().count("mfa.proven"), 0);
}

#[test]
fn a_revoked_security_key_proves_nothing() {
    let revoking = "[ssh]\nrevoked_keys = \"revoked\"\n";
    let mut world = plan().only_ssh().change("[ssh]\n", revoking).file("revoked", "").start();
    let hers = InAgent::new(&PrivateKey::random(&mut UnwrapErr(SysRng), Algorithm::Ed25519).unwrap(), true);
    let plain = world.public_key("alice");
    world.set_keys("alice", &[&plain, hers.public.trim()]);
    fs::write(world.gateway.dir().join("revoked"), &hers.public).unwrap();
    hers.prove(&world, "tidegate-mfa").exited(77).says("the key that signed is revoked");
    assert_eq!(world.gateway.ledger().count("mfa.proven"), 0);
    fs::write(world.gateway.dir().join("revoked"), "").unwrap();
    hers.prove(&world, "tidegate-mfa").ok();
}
