//! What the gate must not change: whatever a client does on its channels, it sees through the gate what it sees without.
//!
//! A program on the target acts by a plan, and the client by the same one: each waits for the other where the outcome
//! would else depend on who is faster. The plan is played through the gate and directly to the same sshd, and what the
//! client saw is compared: every byte of each stream, every answer, exit status or signal, and the order of the ends.
//!
//! Two things differ, and cannot be helped. A client that has ended its own output gets the target's end of output behind
//! the exit status, not before it (see `channel::Carrier::downwards`). And a request for `TERM` in the environment is
//! answered by the gate, which lets it through; sshd may drop it.

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use russh::{ChannelMsg, Pty, Sig};
use tidegate_tests::{Driver, Lane, Route, World};
use tokio::runtime::Runtime;

/// The program. It waits at each `<n>` for what the client does next.
const PROGRAM: &str = r#"use POSIX; binmode STDIN; binmode STDOUT; my $k = 0;
sub put { my ($h, $d) = @_; while (length $d) { my $n = syswrite $h, $d; next if !defined $n && $!{EINTR};
  POSIX::_exit(99) unless defined $n; substr($d, 0, $n) = "" } }
sub mark { put(*STDOUT, "<" . $k++ . ">") }
sub await { my $g = shift; select undef, undef, undef, 0.02 until $$g }
system "stty raw -echo" if -t STDIN;
for (@ARGV) { my ($w, $a) = split /:/;
  if ($w eq "out") { put(*STDOUT, "o" x $a) }
  elsif ($w eq "err") { put(*STDERR, "e" x $a) }
  elsif ($w eq "echo") { mark(); while ($a) { my $n = sysread STDIN, my $b, $a; next if !defined $n && $!{EINTR};
    last unless $n; put(*STDOUT, $b); $a -= $n } }
  elsif ($w eq "sig") { my $g = 0; $SIG{$a} = sub { $g = 1 }; mark(); await(\$g); put(*STDOUT, "[$a]") }
  elsif ($w eq "size") { my $g = 0; $SIG{WINCH} = sub { $g = 1 }; mark(); await(\$g); put(*STDOUT, `stty size`) }
  elsif ($w eq "eof") { mark(); 1 while sysread STDIN, my $b, 4096; put(*STDOUT, "[eof]") }
  elsif ($w eq "env") { put(*STDOUT, join ";", map { "$_=$ENV{$_}" } grep /^(LANG|LC_|FOO|LD_)/, sort keys %ENV) }
  elsif ($w eq "again") { mark(); sysread STDIN, my $b, 1 }
  elsif ($w eq "linger") { POSIX::close(1); POSIX::close(2); select undef, undef, undef, 0.4 }
  elsif ($w eq "exit") { POSIX::_exit($a) }
  elsif ($w eq "die") { $SIG{$a} = "DEFAULT"; kill $a, $$; sleep 60 } }"#;

/// What is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Exec,
    /// The same command, typed into a shell without a terminal.
    Shell,
    /// After a subsystem that does not exist.
    SecondTry,
}

/// One step of the program and the client.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Act {
    Out(usize),
    Err(usize),
    Echo(usize),
    Signal(&'static str),
    Resize(u32, u32),
    Environment,
    /// A second program and a late setting are asked for, which must be refused.
    Again,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Last {
    Exit(u8),
    Killed(&'static str),
    /// It closes its output first, and exits a good while later.
    Lingers(u8),
}

#[derive(Debug, Clone)]
struct Play {
    what: What,
    environment: Vec<(String, String)>,
    terminal: Option<(u32, u32)>,
    acts: Vec<Act>,
    /// The client ends its output, and the program waits for that.
    eof: bool,
    last: Last,
}

impl Play {
    fn command(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        for act in &self.acts {
            words.push(match act {
                Act::Out(n) => format!("out:{n}"),
                Act::Err(n) => format!("err:{n}"),
                Act::Echo(n) => format!("echo:{n}"),
                Act::Signal(name) => format!("sig:{name}"),
                Act::Resize(..) => "size".to_owned(),
                Act::Environment => "env".to_owned(),
                Act::Again => "again".to_owned(),
            });
        }
        words.extend(self.eof.then(|| "eof".to_owned()));
        match self.last {
            Last::Exit(status) => words.push(format!("exit:{status}")),
            Last::Killed(name) => words.push(format!("die:{name}")),
            Last::Lingers(status) => words.extend(["linger".to_owned(), format!("exit:{status}")]),
        }
        format!("exec perl -e '{PROGRAM}' {}", words.join(" "))
    }
}

/// What a client saw of a channel.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// To its requests, in order.
    answers: Vec<bool>,
    out: Vec<u8>,
    err: Vec<u8>,
    /// End of output, exit, close, in order.
    ends: Vec<String>,
    /// Bytes that came before the program was said to run, or after the end of output.
    misplaced: usize,
}

impl Seen {
    fn take(&mut self, message: ChannelMsg) {
        match message {
            ChannelMsg::Data { data } => {
                self.out.extend_from_slice(&data);
                self.misplaced += usize::from(self.answers.is_empty() || self.ends.iter().any(|end| end == "eof"));
            }
            ChannelMsg::ExtendedData { data, ext } => {
                assert_eq!(ext, 1);
                self.err.extend_from_slice(&data);
                self.misplaced += usize::from(self.answers.is_empty() || self.ends.iter().any(|end| end == "eof"));
            }
            ChannelMsg::Success => self.answers.push(true),
            ChannelMsg::Failure => self.answers.push(false),
            ChannelMsg::Eof => self.ends.push("eof".to_owned()),
            ChannelMsg::ExitStatus { exit_status } => self.ends.push(format!("exit {exit_status}")),
            ChannelMsg::ExitSignal { signal_name, core_dumped, error_message, .. } => {
                self.ends.push(format!("killed by {signal_name:?} {core_dumped} {error_message}"));
            }
            ChannelMsg::Close => self.ends.push("close".to_owned()),
            other => panic!("{other:?}"),
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Where the order is the target's to choose, each time anew, it is not compared.
    fn comparable(mut self, play: &Play) -> Self {
        // (A terminal stays open until its program has ended.)
        if play.eof || play.terminal.is_some() || !matches!(play.last, Last::Lingers(_)) {
            let close = self.ends.iter().position(|end| end == "close").unwrap_or(self.ends.len());
            self.ends[..close].sort();
        }
        self
    }
}

async fn until(lane: &mut Lane, seen: &mut Seen, what: impl Fn(&Seen) -> bool) {
    while !what(seen) {
        let message = lane.next().await.unwrap_or_else(|| panic!("the channel is gone: {seen:?}"));
        seen.take(message);
    }
}

fn answered(count: usize) -> impl Fn(&Seen) -> bool {
    move |seen| seen.answers.len() >= count
}

/// Plays it on one channel.
async fn play(driver: &Driver, play: &Play) -> Seen {
    let mut lane = driver.open().await.expect("a channel");
    let mut seen = Seen::default();
    let mut asked = 0;
    for (name, value) in &play.environment {
        lane.channel.set_env(true, name.as_str(), value.as_str()).await.unwrap();
        asked += 1;
        until(&mut lane, &mut seen, answered(asked)).await;
    }
    if let Some((columns, rows)) = play.terminal {
        let modes = [(Pty::ECHO, 1), (Pty::TTY_OP_ISPEED, 38400), (Pty::TTY_OP_OSPEED, 38400)];
        lane.channel.request_pty(true, "xterm", columns, rows, 0, 0, &modes).await.unwrap();
        asked += 1;
        until(&mut lane, &mut seen, answered(asked)).await;
    }
    if play.what == What::SecondTry {
        lane.channel.request_subsystem(true, "there-is-none").await.unwrap();
        asked += 1;
        until(&mut lane, &mut seen, answered(asked)).await;
    }
    if play.what == What::Shell {
        lane.channel.request_shell(true).await.unwrap();
        lane.channel.data_bytes(format!("{}\n", play.command()).into_bytes()).await.unwrap();
    } else {
        lane.channel.exec(true, play.command()).await.unwrap();
    }
    asked += 1;
    until(&mut lane, &mut seen, answered(asked)).await;
    let acts = play.acts.iter().filter(|a| !matches!(a, Act::Out(_) | Act::Err(_) | Act::Environment));
    let mut mark = 0;
    for act in acts {
        let text = format!("<{mark}>");
        until(&mut lane, &mut seen, |seen| seen.text().contains(&text)).await;
        mark += 1;
        act_out(act, &mut lane, &mut seen, &mut asked).await;
    }
    if play.eof {
        let text = format!("<{mark}>");
        until(&mut lane, &mut seen, |seen| seen.text().contains(&text)).await;
        lane.channel.eof().await.unwrap();
    }
    until(&mut lane, &mut seen, |seen| seen.ends.iter().any(|end| end == "close")).await;
    seen.comparable(play)
}

async fn act_out(act: &Act, lane: &mut Lane, seen: &mut Seen, asked: &mut usize) {
    match act {
        Act::Echo(count) => {
            let bytes: Vec<u8> = (0..*count).map(|n| b'a' + (n % 23) as u8).collect();
            for piece in bytes.chunks(1 + count / 3) {
                lane.channel.data_bytes(piece.to_vec()).await.unwrap();
            }
        }
        Act::Signal(name) => {
            let signal = match *name {
                "HUP" => Sig::HUP,
                "INT" => Sig::INT,
                "QUIT" => Sig::QUIT,
                "TERM" => Sig::TERM,
                "USR1" => Sig::USR1,
                other => Sig::Custom(other.to_owned()),
            };
            lane.channel.signal(signal).await.unwrap();
        }
        Act::Resize(columns, rows) => lane.channel.window_change(*columns, *rows, 0, 0).await.unwrap(),
        Act::Again => {
            lane.channel.exec(true, "echo never").await.unwrap();
            *asked += 1;
            until(lane, seen, answered(*asked)).await;
            lane.channel.set_env(true, "LC_LATE", "x").await.unwrap();
            *asked += 1;
            until(lane, seen, answered(*asked)).await;
            lane.channel.data_bytes("!").await.unwrap();
        }
        Act::Out(_) | Act::Err(_) | Act::Environment => {}
    }
}

fn acts(terminal: bool) -> impl Strategy<Value = Vec<Act>> {
    let size = prop_oneof![Just(0_usize), 1..200_usize, 30_000..200_000_usize];
    let signal = prop::sample::select(vec!["HUP", "INT", "QUIT", "TERM", "USR1", "USR2"]).prop_map(Act::Signal);
    let mut choices = vec![
        size.clone().prop_map(Act::Out).boxed(),
        size.clone().prop_map(Act::Err).boxed(),
        size.prop_map(Act::Echo).boxed(),
        signal.boxed(),
        Just(Act::Environment).boxed(),
        Just(Act::Again).boxed(),
    ];
    if terminal {
        // A change to the same size is no change, and no signal.
        choices.push((201..10_001_u32, 101..5_000_u32).prop_map(|(c, r)| Act::Resize(c, r)).boxed());
    }
    prop::collection::vec(prop::strategy::Union::new(choices), 0..6).prop_map(|mut acts| {
        acts.dedup(); // two equal changes of size in a row are one
        acts
    })
}

fn plays() -> impl Strategy<Value = Play> {
    let names = prop::sample::select(vec!["LANG", "LC_ALL", "LC_WORK", "FOO", "LD_PRELOAD"]);
    let environment = prop::collection::vec((names.prop_map(str::to_owned), "[a-zA-Z0-9_.=-]{0,20}"), 0..4);
    let terminal = prop::option::weighted(0.3, (1..200_u32, 1..100_u32));
    let last = prop_oneof![
        any::<u8>().prop_map(Last::Exit),
        prop::sample::select(vec!["TERM", "KILL", "HUP", "SEGV", "ABRT", "USR1"]).prop_map(Last::Killed),
        any::<u8>().prop_map(Last::Lingers),
    ];
    let what = prop::sample::select(vec![What::Exec, What::Exec, What::Shell, What::SecondTry]);
    (environment, terminal, what, any::<bool>(), last).prop_flat_map(|(environment, terminal, what, eof, last)| {
        acts(terminal.is_some()).prop_map(move |acts| {
            // With a terminal, a shell shows its prompt, and an end of input is a key.
            let (what, eof) = match terminal {
                Some(_) => (What::Exec, false),
                None => (what, eof),
            };
            Play { what, environment: environment.clone(), terminal, acts, eof, last: last.clone() }
        })
    })
}

/// `TIDEGATE_TEST_CASES` plays more of them, and `TIDEGATE_TEST_SEED` others.
fn setting(name: &str, or: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or)
}

async fn both(world: &World, plays: &[Play]) -> (Vec<Seen>, Vec<Seen>) {
    let mut seen = Vec::new();
    for route in [Route::Direct, Route::Gate] {
        let driver = Driver::connect(world, route, 200_000).await;
        seen.push(futures::future::join_all(plays.iter().map(|one| play(&driver, one))).await);
    }
    let through = seen.pop().unwrap();
    (seen.pop().unwrap(), through)
}

#[test]
fn whatever_a_client_does_it_sees_the_same_through_the_gate_as_without() {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let runtime = Runtime::new().unwrap();
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&setting("TIDEGATE_TEST_SEED", 1).to_le_bytes());
    let config = Config { cases: setting("TIDEGATE_TEST_CASES", 12), max_shrink_iters: 60, ..Config::default() };
    let config = Config { failure_persistence: None, ..config };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let result = runner.run(&prop::collection::vec(plays(), 1..5), |plays| {
        let (directly, through) = runtime.block_on(both(&world, &plays));
        for ((direct, gate), play) in directly.iter().zip(&through).zip(&plays) {
            prop_assert!(direct == gate, "{play:?}\ndirectly: {}\nthrough the gate: {}", brief(direct), brief(gate));
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

/// Writes into a file what it notices of its client's end.
const WITNESS: &str = r#"open my $f, ">", $ARGV[0]; my $note = sub { syswrite $f, "$_[0] " };
$SIG{HUP} = sub { $note->("hup") }; $SIG{PIPE} = sub { $note->("pipe") };
syswrite STDOUT, "up\n"; 1 while sysread STDIN, my $b, 4096; $note->("eof");
for (1..60) { last unless syswrite STDOUT, "x"; select undef, undef, undef, 0.05 } $note->("end")"#;

/// What the program noticed, in no order: a hang-up and the end of input come together.
async fn noticed(world: &World, route: Route, terminal: bool, closes: bool) -> Vec<String> {
    let driver = Driver::connect(world, route, 200_000).await;
    let mut lane = driver.open().await.unwrap();
    if terminal {
        lane.channel.request_pty(false, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    }
    let name = format!("{route:?}-{terminal}-{closes}");
    lane.channel.exec(false, format!("exec perl -e '{WITNESS}' {name}")).await.unwrap();
    let mut seen = Seen { answers: vec![true], ..Seen::default() };
    until(&mut lane, &mut seen, |seen| seen.text().contains("up")).await;
    if closes {
        lane.channel.close().await.unwrap();
    } else {
        drop((lane, driver)); // and with them the connection
    }
    let what = format!("the program notices ({name})");
    let file = world.sshd().home().join(name);
    let done = || std::fs::read_to_string(&file).ok().filter(|text| text.contains("end"));
    let text = tidegate_tests::wait_until(tidegate_tests::secs(30), &what, done);
    let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    words.sort();
    words.dedup();
    words
}

#[test]
fn a_program_notices_the_same_when_its_client_closes_the_channel_or_is_gone() {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let runtime = Runtime::new().unwrap();
    for terminal in [false, true] {
        for closes in [false, true] {
            let directly = runtime.block_on(noticed(&world, Route::Direct, terminal, closes));
            let through = runtime.block_on(noticed(&world, Route::Gate, terminal, closes));
            assert_eq!(directly, through, "terminal: {terminal}, closes: {closes}");
            assert!(directly.contains(&"eof".to_owned()), "{directly:?}");
        }
    }
}

/// The first packet of SFTP (draft-ietf-secsh-filexfer-02, section 4): version 3.
const INIT: &[u8] = &[0, 0, 0, 5, 1, 0, 0, 0, 3];

async fn greeted(world: &World, route: Route) -> Seen {
    let driver = Driver::connect(world, route, 200_000).await;
    let mut lane = driver.open().await.unwrap();
    let mut seen = Seen::default();
    lane.channel.request_subsystem(true, "sftp").await.unwrap();
    lane.channel.data_bytes(INIT).await.unwrap(); // not waiting for the answer
    until(&mut lane, &mut seen, |seen| seen.out.len() > 8).await;
    lane.channel.eof().await.unwrap();
    until(&mut lane, &mut seen, |seen| seen.ends.iter().any(|end| end == "close")).await;
    let close = seen.ends.len() - 1;
    seen.ends[..close].sort();
    seen
}

#[test]
fn a_subsystem_that_is_spoken_to_before_it_answers_hears_every_byte() {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let runtime = Runtime::new().unwrap();
    let directly = runtime.block_on(greeted(&world, Route::Direct));
    let through = runtime.block_on(greeted(&world, Route::Gate));
    assert_eq!(directly, through);
    assert!(directly.ends.contains(&"exit 0".to_owned()), "{directly:?}");
}

fn brief(seen: &Seen) -> String {
    let clip = |bytes: &[u8]| {
        let text: String = String::from_utf8_lossy(bytes).chars().take(300).collect();
        format!("{} bytes {text:?}", bytes.len())
    };
    format!(
        "answers {:?}, out {}, err {}, ends {:?}, misplaced {}",
        seen.answers,
        clip(&seen.out),
        clip(&seen.err),
        seen.ends,
        seen.misplaced
    )
}
