//! Notifications, to a real web server and a real mail server that fail, hang and come back.

use serde_json::Value;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};
use tidegate_tests::{
    World,
    daemon::{Daemon, Signal, mortal},
    running::run,
    secs, wait_until,
    world::{PATIENCE, Plan},
};

/// Both servers (`fixtures/receiver.py`).
pub(crate) struct Receiver {
    folder: tempfile::TempDir,
    python: PathBuf,
    _daemon: Daemon,
}

const SECRET: &str = "a shared secret of thirty-two bytes or more";

impl Receiver {
    /// `None`: where the mail server could not be had, outside CI.
    pub(crate) fn start(mode: &str) -> Option<Self> {
        let target = env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
        let python =
            env::var_os("TIDEGATE_TEST_PYTHON").map_or_else(|| target.join("clients-venv/bin/python"), PathBuf::from);
        let mut has = Command::new(&python);
        if !python.exists()
            || run(
                {
                    has.args(["-c", "import aiosmtpd"]);
                    has
                },
                PATIENCE,
            )
            .code
                != Some(0)
        {
            assert!(env::var_os("CI").is_none(), "aiosmtpd is missing: ./tests/run installs it");
            eprintln!("SKIPPED: aiosmtpd is missing; ./tests/run installs it");
            return None;
        }
        let folder = tempfile::tempdir_in(tidegate_tests::scratch::base()).unwrap();
        fs::write(folder.path().join("mode"), mode).unwrap();
        let mut command = mortal("KILL", None);
        let script = format!("{}/it/fixtures/receiver.py", env!("CARGO_MANIFEST_DIR"));
        command.arg(&python).args(["-B", &script]).arg(folder.path());
        let daemon = Daemon::spawn("receiver", command, &folder.path().join("log"), Signal::KILL, None);
        let receiver = Self { folder, python, _daemon: daemon };
        wait_until(PATIENCE, "the receiver listens", || receiver.file("ports").exists().then_some(()));
        Some(receiver)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// From now on the web server answers like this.
    fn answers(&self, mode: &str) {
        fs::write(self.file("mode.new"), mode).unwrap();
        fs::rename(self.file("mode.new"), self.file("mode")).unwrap();
    }

    /// The web server's port, and the mail server's.
    pub(crate) fn ports(&self) -> (String, String) {
        let text = fs::read_to_string(self.file("ports")).unwrap();
        let (web, mail) = text.split_once(' ').unwrap();
        (web.to_owned(), mail.to_owned())
    }

    fn received(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.file("received")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    pub(crate) fn until(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        wait_until(secs(90), what, || self.received().into_iter().find(|received| is(received)))
    }

    fn plan(&self) -> Plan {
        let (web, mail) = self.ports();
        Plan::new()
            .only_ssh()
            .file("hook.key", SECRET)
            .block(format!("[smtp]\nserver = \"127.0.0.1:{mail}\"\nfrom = \"tidegate@gate.test\"\ntls = \"none\"\n"))
            .block(format!(
                "[[notify]]\nname = \"hook\"\nkinds = [\"denial\", \"lock\"]\nurl = \"http://127.0.0.1:{web}/in?x=1\"\n\
                 secret_file = \"hook.key\"\n"
            ))
            .block("[[notify]]\nname = \"mail\"\nkinds = [\"lock.added\", \"grant.*\"]\nto = [\"oncall@gate.test\", \"Ann <ann@gate.test>\"]\n")
    }

    /// Whether Python's own HMAC is of the same mind as the signature.
    fn assert_signed(&self, post: &Value) {
        let script = "import hashlib,hmac,sys
t, v1 = (part.split('=', 1)[1] for part in sys.argv[2].split(','))
want = hmac.new(open(sys.argv[1], 'rb').read(), (t + '.' + sys.argv[3]).encode(), hashlib.sha256).hexdigest()
sys.exit(0 if hmac.compare_digest(want, v1) else 1)";
        let key = self.file("key");
        fs::write(&key, SECRET).unwrap();
        let mut python = Command::new(&self.python);
        python.args(["-c", script]).arg(&key);
        python.args([post["headers"]["tidegate-signature"].as_str().unwrap(), post["body"].as_str().unwrap()]);
        run(python, PATIENCE).ok();
    }
}

fn entry(post: &Value) -> Value {
    serde_json::from_str::<Value>(post["body"].as_str().unwrap_or("{}")).unwrap_or_default()["entry"].clone()
}

fn channel(world: &World, name: &str) -> Value {
    let channels = world.gateway.list(&["notify", "list"]);
    channels.into_iter().find(|channel| channel["name"] == name).unwrap()
}

fn lock(world: &World, reason: &str) {
    world.gateway.cli(&["lock", "add", "--user", "bob", "--reason", reason]).ok();
}

fn is_about(post: &Value, reason: &str) -> bool {
    entry(post)["detail"]["reason"] == reason
}

#[test]
fn what_happens_is_told_by_a_signed_post_and_by_mail_and_nothing_else_is() {
    let Some(receiver) = Receiver::start("200") else { return };
    let world = receiver.plan().start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.exec("carol", "true").exited(1);
    lock(&world, "first <!channel>");
    let denied = receiver.until("the denial", |post| entry(post)["kind"] == "session.denied");
    assert_eq!((&denied["path"], &entry(&denied)["identity"]), (&"/in?x=1".into(), &"carol".into()));
    receiver.assert_signed(&denied);
    let locked = receiver.until("the lock", |post| is_about(post, "first <!channel>"));
    assert_eq!(locked["headers"]["tidegate-id"], format!("gate/a/{}", entry(&locked)["seq"]));
    for to in ["oncall@gate.test", "ann@gate.test"] {
        let to = serde_json::json!([to]);
        let theirs =
            |mail: &Value| mail["mail"].as_str().is_some_and(|text| text.contains("lock.added")) && mail["to"] == to;
        receiver.until("a mail of their own", theirs);
    }
    let granted = |mail: &Value| {
        mail["mail"].as_str().is_some_and(|text| text.contains("Subject: gate: grant.issued alice on web-1"))
    };
    receiver.until("the mail of the grant", granted);
    let kinds: Vec<Value> = receiver.received().iter().map(|post| entry(post)["kind"].clone()).collect();
    assert!(!kinds.contains(&"grant.issued".into()), "{kinds:?}");
}

#[test]
fn what_a_receiver_does_not_take_waits_for_it_over_a_sigkill_too_and_nobody_waits_with_it() {
    let Some(receiver) = Receiver::start("503") else { return };
    let mut world = receiver.plan().start();
    lock(&world, "while it is down");
    receiver.until("a try", |post| post["mode"] == "503" && is_about(post, "while it is down"));
    // The mail did not wait for the web server, and no session for either.
    receiver.until("the mail", |mail| mail["mail"].as_str().is_some_and(|text| text.contains("while it is down")));
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.exec("alice", "true").ok();
    wait_until(PATIENCE, "it is shown", || channel(&world, "hook")["failing"].is_string().then_some(()));
    receiver.answers("hang");
    receiver.until("a try that hangs", |post| post["mode"] == "hang");
    lock(&world, "behind it");
    world.gateway.kill9();
    receiver.answers("200");
    world.gateway.start();
    receiver.until("the first", |post| post["mode"] == "200" && is_about(post, "while it is down"));
    receiver.until("the second", |post| post["mode"] == "200" && is_about(post, "behind it"));
    let taken = receiver.received();
    let seqs: Vec<u64> =
        taken.iter().filter(|post| post["mode"] == "200").map(|post| entry(post)["seq"].as_u64().unwrap()).collect();
    assert!(seqs.is_sorted(), "what came first is told first: {seqs:?}");
    wait_until(PATIENCE, "nothing waits", || channel(&world, "hook").get("failing").is_none().then_some(()));
}

#[test]
fn what_is_refused_for_good_is_a_dead_letter_until_somebody_asks_for_another_try() {
    let Some(receiver) = Receiver::start("410") else { return };
    let world = receiver.plan().start();
    lock(&world, "gone");
    let dead = wait_until(PATIENCE, "it is a dead letter", || channel(&world, "hook")["dead"].get(0).cloned());
    assert_eq!(dead["kind"], "lock.added");
    assert!(dead["error"].as_str().unwrap().contains("410"), "{dead}");
    assert_eq!(world.gateway.ledger().one("notify.dead")["detail"]["channel"], "hook");
    receiver.answers("302");
    lock(&world, "redirected");
    wait_until(PATIENCE, "it is one too", || channel(&world, "hook")["dead"].get(1).cloned());
    assert!(receiver.received().iter().all(|post| post["path"] != "/elsewhere"), "it followed a redirect");
    let doctor = world.gateway.cli(&["doctor"]).out();
    assert!(doctor.contains("2 dead letter(s)"), "{doctor}");
    receiver.answers("200");
    assert!(world.gateway.cli(&["notify", "retry", "hook"]).ok().out().contains("2 dead letter(s)"));
    for reason in ["gone", "redirected"] {
        receiver.until(reason, |post| post["mode"] == "200" && is_about(post, reason));
    }
    wait_until(PATIENCE, "none is left", || {
        channel(&world, "hook")["dead"].as_array().unwrap().is_empty().then_some(())
    });
    world.gateway.cli(&["notify", "retry", "nothing"]).exited(1).says("no such [[notify]]");
    world.gateway.verify_ledger().ok();
}

#[test]
fn each_kind_of_chat_gets_what_it_understands_and_a_reload_changes_who_is_told() {
    let Some(receiver) = Receiver::start("200") else { return };
    let mut world = receiver.plan().start();
    let (web, _) = receiver.ports();
    for format in ["slack", "teams", "mattermost"] {
        let block = "[[notify]]\nname = \"NAME\"\nkinds = [\"lock\"]\nurl = \"http://127.0.0.1:PORT/NAME\"\nformat = \"NAME\"\n";
        world.config.block(block.replace("NAME", format).replace("PORT", &web));
    }
    world.gateway.configure(&world.config);
    world.gateway.cli(&["reload"]).ok();
    wait_until(PATIENCE, "the channels are known", || {
        (world.gateway.list(&["notify", "list"]).len() == 5).then_some(())
    });
    lock(&world, "for <all> of `you`");
    let body = |path: &str| {
        let post = receiver.until(path, |post| post["path"] == path);
        serde_json::from_str::<Value>(post["body"].as_str().unwrap()).unwrap()
    };
    assert!(body("/slack")["text"].as_str().unwrap().ends_with(": for &lt;all&gt; of `you`"));
    assert!(body("/mattermost")["text"].as_str().unwrap().ends_with(": for <all> of 'you'`"));
    let card = &body("/teams")["attachments"][0]["content"];
    assert!(card["body"][0]["inlines"][0]["text"].as_str().unwrap().ends_with("for <all> of `you`"), "{card}");
    assert!(Path::new(&world.gateway.state().join("notify/slack.json")).exists());
}

#[test]
fn that_a_grant_ends_soon_is_told_once_over_a_restart_too() {
    let Some(receiver) = Receiver::start("200") else { return };
    let mut world = receiver.plan().change("\"denial\", \"lock\"", "\"expiry\"").start();
    world.gateway.terminate();
    world.gateway.own_clock();
    world.gateway.start();
    world.gateway.grant("alice", "web-1", "shell", "10m");
    world.gateway.grant("bob", "web-1", "shell", "20m");
    let ending =
        |of: &str| receiver.until(of, |post| entry(post)["kind"] == "grant.ending" && entry(post)["identity"] == of);
    world.gateway.shift_clock(6 * 60);
    let told = ending("alice");
    assert!(told["body"].as_str().unwrap().contains("shell ends at "), "{told}");
    world.gateway.kill9();
    world.gateway.start();
    // They are told of bob's by a look at all of them.
    world.gateway.shift_clock(16 * 60);
    ending("bob");
    let ledger = world.gateway.ledger();
    let of_alice = ledger.all("grant.ending").iter().filter(|entry| entry["identity"] == "alice").count();
    assert_eq!((of_alice, ledger.count("grant.ending")), (1, 2));
    world.gateway.verify_ledger().ok();
}

#[test]
fn what_awaits_an_answer_is_told_with_the_link_to_the_page_for_it() {
    let Some(receiver) = Receiver::start("200") else { return };
    let logins = "logins = [\"deploy\"]";
    let world = receiver
        .plan()
        .change(logins, &format!("{logins}\napprovals = [{{ from = [\"sales\"] }}]"))
        .change("\"denial\", \"lock\"", "\"request\"")
        .change("\"lock.added\", \"grant.*\"", "\"request\"")
        .block("[api]\nlisten = \"127.0.0.1:0\"\nurl = \"https://gate.test:8443\"\n")
        .start();
    let id = crate::asking::id(world.control("alice", &["request web-1 --reason see https://evil.example"]));
    let link = format!("https://gate.test:8443/approve/{id}");
    let post = receiver.until("the request", |post| entry(post)["kind"] == "request.opened");
    let body: Value = serde_json::from_str(post["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["link"], link.as_str());
    let answer = format!("Answer, once you have logged in there: {link}");
    // Long lines are folded (RFC 2045 section 6.7).
    let unfolded = |text: &str| text.replace("=\r\n", "").replace("=\n", "");
    receiver.until("its mail", |mail| mail["mail"].as_str().is_some_and(|text| unfolded(text).contains(&answer)));
}
