//! The player of recordings, in a real terminal: what an auditor sees, and how their terminal is afterwards.

use crate::{
    clients::node,
    terminal::{self, OPEN},
};
use serde_json::{Value, json};
use std::process::Command;
use tidegate_tests::{Running, World, daemon::Signal, running::run, wait_until, world::PATIENCE};

/// What a session may print to get at the terminal of whoever looks at it: clipboard, title, device query, link.
const HOSTILE: &str = r"\033]52;c;ZXZpbA==\007\033]0;title\007\033P+q544e\033\\\033[6n\033]8;;http://x\033\\link";
/// As they would reach a terminal.
const RAW: [&str; 7] = ["\u{1b}]52", "\u{1b}]0;", "\u{1b}P", "\u{1b}[6n", "\u{1b}]8", "\u{9d}", "\u{90}"];

/// `tidegate recording play` in a terminal of this size; around it, the terminal's settings are printed.
struct Played {
    running: Running,
    size: (usize, usize),
}

impl Played {
    fn start(world: &World, size: (usize, usize), args: &[&str]) -> Self {
        let identity = world.gateway.identity();
        let fixed = ["recording", "play", "--identity", identity.to_str().unwrap()];
        let inner = world.gateway.command(&[&fixed[..], args].concat());
        let line: Vec<String> = std::iter::once(inner.get_program())
            .chain(inner.get_args())
            .map(|word| format!("'{}'", word.to_string_lossy()))
            .collect();
        let line = format!(
            "stty cols {} rows {}; echo before=$(stty -g).; sh -c \"echo pid=\\$\\$.; exec {}\"; echo code=$?.; echo after=$(stty -g).",
            size.0,
            size.1,
            line.join(" ")
        );
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]);
        script.envs(inner.get_envs().filter_map(|(k, v)| Some((k, v?)))).env("TERM", "xterm").env("SHELL", "/bin/sh");
        Self { running: Running::start(script), size }
    }

    /// What stands on the screen now.
    fn screen(&self) -> String {
        let mut terminal = avt::Terminal::new(self.size.0, self.size.1).unwrap();
        terminal.feed(self.running.stdout().as_str());
        terminal.screen().text().join("\n")
    }

    #[track_caller]
    fn until(&self, shown: &str) {
        let seen = || self.screen().contains(shown).then_some(());
        wait_until(PATIENCE, &format!("{shown:?} is on the screen:\n{}", self.screen()), seen);
    }

    /// What the terminal was told after `name=`, up to a full stop.
    fn told(&self, name: &str) -> String {
        let all = self.running.stdout();
        let found = all.split_once(&format!("{name}=")).and_then(|(_, rest)| rest.split_once('.'));
        found.unwrap_or_else(|| panic!("{name} is not in {all:?}")).0.to_owned()
    }

    /// Ends as it does by itself, with the terminal as it was; all that it was sent.
    #[track_caller]
    fn left(mut self, code: &str) -> String {
        wait_until(PATIENCE, "the player has ended", || self.running.stdout().contains("after=").then_some(()));
        wait_until(PATIENCE, "its terminal has ended", || self.running.ended());
        assert_eq!((self.told("code").as_str(), self.told("before")), (code, self.told("after")));
        let all = self.running.stdout();
        let (_, rest) = all.rsplit_once("\u{1b}[?1049l").expect("it left the alternate screen");
        assert!(rest.contains("code="), "nothing of the player comes after it: {rest:?}");
        for raw in RAW {
            assert!(!all.contains(raw), "{raw:?} reached the terminal: {all:?}");
        }
        all
    }
}

/// A session in a shell, and its id.
fn shell(commands: &str) -> (World, String) {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    terminal::expect(&world, &format!("{OPEN}{commands}send \"exit\\r\"\nexpect eof\n")).finish(PATIENCE).ok();
    world.gateway.until_ledger("recording.sealed", 1, PATIENCE);
    let id = world.gateway.recordings()[0]["session"].as_str().unwrap().to_owned();
    (world, id)
}

#[test]
fn a_session_is_played_searched_and_copied_from_and_the_terminal_is_as_it_was() {
    let script = format!(
        "send {{echo fir''st; printf 'visible{HOSTILE}\\n'}}\nsend \"\\r\"\nexpect visible\nexpect ready:\n\
         send {{clear; echo sec''ond}}\nsend \"\\r\"\nexpect second\nexpect ready:\n"
    );
    let (world, id) = shell(&script);
    let mut played = Played::start(&world, (100, 45), &["--speed", "64", &id]);
    played.until("‖ ");
    played.until("second");
    assert!(!played.screen().contains("visible"), "{}", played.screen());
    played.running.send("/VIS|visiblelink\r");
    played.until("1 of ");
    played.until("visible");
    let screen = played.screen();
    assert!(screen.contains("first") && screen.contains("alice on web-1") && screen.contains('•'), "{screen}");
    played.running.send("c");
    played.until("printed when the player ends");
    played.running.send("?");
    played.until("play, pause");
    played.running.send(" G");
    played.until("second");
    played.running.send("q");
    let all = played.left("0");
    let (_, after) = all.rsplit_once("\u{1b}[?1049l").unwrap();
    assert!(after.contains("--- 0:") && after.contains("visiblelink"), "{after:?}");
    // From a moment on, and into a file.
    let copy = world.gateway.dir().join("copied");
    let mut played =
        Played::start(&world, (80, 20), &["--at", "0", "--speed", "0.01", "--copy", copy.to_str().unwrap(), &id]);
    played.until("▶ 0:0");
    played.running.send("G");
    played.until("second");
    played.running.send("c");
    played.until("into the file");
    played.running.send("\u{3}");
    played.left("0");
    assert!(std::fs::read_to_string(&copy).unwrap().contains("second"));
}

#[test]
fn a_database_session_is_a_table_of_statements_and_each_is_there_whole() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let long = format!("select name\nfrom items\nwhere id = 5 -- {}", "long ".repeat(60));
    world.psql("alice", &format!("{long}the end")).ok();
    world.psql("alice", "select nothing from nowhere");
    world.gateway.until_ledger("recording.sealed", 2, PATIENCE);
    let ids: Vec<String> =
        world.gateway.recordings().iter().map(|entry| entry["session"].as_str().unwrap().to_owned()).collect();
    let mut played = Played::start(&world, (120, 30), &["--speed", "64", &ids[0]]);
    played.until("STATEMENT");
    played.until("select name from items where id = 5");
    assert!(!played.screen().contains("the end"), "it is cut: {}", played.screen());
    played.until("SELECT 1");
    played.running.send("G");
    played.until("‖ ");
    played.running.send("\r");
    played.until("the end");
    played.running.send("\rt");
    played.until("channel 0: sql");
    played.running.send("q");
    played.left("0");
    let mut failed = Played::start(&world, (120, 30), &["--speed", "64", &ids[1]]);
    failed.until("42P01");
    failed.running.send("q");
    failed.left("0");
}

#[test]
fn a_signal_ends_the_player_and_the_terminal_is_as_it_was_however_large_it_is() {
    let resized =
        "exec stty rows 10000 columns 10000 < $spawn_out(slave,name)\nsend \"stty size\\r\"\nexpect {10000 10000}\n";
    let (world, id) = shell(resized);
    for (size, signal, code) in [((10_000, 50), Signal::TERM, "143"), ((1, 1), Signal::HUP, "129")] {
        let played = Played::start(&world, size, &["--speed", "0.01", &id]);
        wait_until(PATIENCE, "it has the terminal", || {
            let all = played.running.stdout();
            all.split_once("\u{1b}[?1049h").is_some_and(|(_, drawn)| drawn.len() > 20).then_some(())
        });
        let pid: i32 = played.told("pid").parse().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
        played.left(code);
    }
}

#[test]
fn a_player_whose_terminal_is_gone_ends() {
    let (world, id) = shell("send {echo seen}\nsend \"\\r\"\nexpect seen\n");
    let played = Played::start(&world, (80, 20), &["--speed", "0.01", &id]);
    played.until("▶ 0:0");
    let pid = played.told("pid").parse().unwrap();
    played.running.signal(Signal::KILL);
    let player = rustix::process::Pid::from_raw(pid).unwrap();
    wait_until(PATIENCE, "the player has ended", || rustix::process::test_kill_process(player).is_err().then_some(()));
}

#[test]
fn without_a_terminal_or_when_told_so_it_plays_from_beginning_to_end() {
    let (world, id) = crate::recording::recorded("echo seen; cat >/dev/null");
    let identity = world.gateway.identity();
    let play = |more: &[&str]| {
        let fixed = ["recording", "play", "--identity", identity.to_str().unwrap(), &id];
        world.gateway.cli(&[&fixed[..], more].concat())
    };
    play(&[]).ok().shows("seen");
    play(&["--plain"]).ok().shows("end of the recording");
    play(&["--keystrokes"]).exited(1).says("need a terminal");
    play(&["--plain", "--keystrokes"]).exited(2);
    let mut played = Played::start(&world, (80, 24), &[&id]);
    played.until("| seen");
    assert!(!played.screen().contains("typed by alice"), "{}", played.screen());
    played.running.send("q");
    played.left("0");
    let mut played = Played::start(&world, (80, 24), &["--keystrokes", &id]);
    played.until("typed: typed by alice\\n");
    played.running.send("q");
    played.left("0");
}

#[test]
fn asciinema_plays_an_export() {
    let Some(python) = crate::clients::python::interpreter() else { return };
    let (Some(modules), Some(chromium)) = (node::modules("asciinema-player"), node::browser()) else { return };
    let (world, id) = shell("send {echo fir''st}\nsend \"\\r\"\nexpect first\nexpect ready:\n");
    for format in ["asciicast", "asciicast-v2"] {
        let cast = world.gateway.dir().join(format);
        std::fs::write(&cast, world.gateway.export(&id, format)).unwrap();
        let mut player = node::script("fixtures/asciinema.js", &modules);
        player.arg(&cast).arg(chromium).arg(world.gateway.dir().join("browser")).env("HOME", world.gateway.dir());
        let said: Value = serde_json::from_str(&run(player, 2 * PATIENCE).ok().out()).unwrap();
        assert!(said["text"].as_str().unwrap().contains("first"), "{format}: {said:#}");
        assert_eq!(said["complaints"], json!([]), "{format}");
    }
    let mut play = Command::new(python); // of version 2, which reads no other
    play.args(["-m", "asciinema", "cat"]).arg(world.gateway.dir().join("asciicast-v2"));
    run(play, PATIENCE).ok().shows("first");
}
