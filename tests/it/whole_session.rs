//! All of a session: settings, signals, terminals, windows, signs of life, and clients that vanish.

use russh::{ChannelMsg, Sig};
use std::process::Command;
use tidegate_tests::{Driver, Lane, Route, Running, World, daemon::Signal, secs, wait_until, world::Plan};
use tokio::runtime::Runtime;

/// For what takes a while on a busy machine.
const LONG: std::time::Duration = secs(240);

fn world() -> World {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world
}

/// A shell line with `$@` as the client's command line up to the host.
fn shell(world: &World, options: &[&str], line: &str) -> Running {
    let mut command = Command::new("bash");
    let ssh = world.ssh_command("alice", options, "deploy@web-1", &[]);
    let words: Vec<_> = ssh.get_args().map(|w| w.to_string_lossy().into_owned()).collect();
    command.args(["-euo", "pipefail", "-c", line, "bash"]).args(words).env_remove("SSH_AUTH_SOCK");
    Running::start(command)
}

/// The recording has stopped growing, well after its start: whoever reads has stopped.
fn until_stalled(world: &World) {
    let bytes = || world.gateway.recordings().first().and_then(|r| r["bytes"].as_u64()).unwrap_or(0);
    wait_until(secs(60), "the transfer has come to a stop", || {
        let before = bytes();
        let still = || {
            std::thread::sleep(std::time::Duration::from_millis(400));
            bytes() == before
        };
        (before > 50_000 && (0..5).all(|_| still())).then_some(())
    });
}

async fn output(lane: &mut Lane) -> (String, Option<u32>) {
    let (mut out, mut status) = (Vec::new(), None);
    while let Some(message) = lane.next().await {
        match message {
            ChannelMsg::Data { data } => out.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            _ => {}
        }
    }
    (String::from_utf8_lossy(&out).into_owned(), status)
}

#[test]
fn only_settings_that_say_how_text_looks_reach_the_target_even_if_it_would_take_all() {
    let world = Plan::new().only_ssh().sshd_config("AcceptEnv *\nPermitUserEnvironment yes").start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let set = "SetEnv=LC_WORK=yes LANG=C.UTF-8 LD_PRELOAD=/tmp/evil.so FOO=bar BASH_ENV=/tmp/evil PATH=/tmp";
    let ssh = world.ssh_command("alice", &["-o", set], "deploy@web-1", &["env"]);
    let output = Running::start(ssh).finish(secs(60)).ok().out();
    assert!(output.contains("LC_WORK=yes") && output.contains("LANG=C.UTF-8"), "{output}");
    for name in ["LD_PRELOAD", "FOO=", "BASH_ENV", "PATH=/tmp\n"] {
        assert!(!output.contains(name), "{name} in {output}");
    }
    let recordings = world.gateway.recordings();
    let events = world.gateway.events(recordings[0]["session"].as_str().unwrap());
    let opened = events.iter().find(|event| event["event"] == "opened").unwrap();
    assert_eq!(opened["environment"]["LC_WORK"], "yes");
    assert_eq!(opened["environment"].as_object().unwrap().len(), 2, "{opened}");
}

#[test]
fn a_terminal_of_ten_thousand_columns_is_one_and_can_be_resized_before_the_program_runs() {
    let world = world();
    Runtime::new().unwrap().block_on(async {
        let driver = Driver::connect(&world, Route::Gate, 2 << 20).await;
        let mut lane = driver.open().await.unwrap();
        lane.channel.request_pty(true, "xterm", 10_000, 5_000, 0, 0, &[]).await.unwrap();
        let command = "stty size; head -c 200000 /dev/zero | tr '\\0' w; exit 3";
        lane.channel.exec(true, command).await.unwrap();
        let (out, status) = output(&mut lane).await;
        assert!(out.starts_with("5000 10000\r\n"), "{out:.100}");
        assert_eq!((out.matches('w').count(), status), (200_000, Some(3)));

        // Not waiting for an answer: the change of size overtakes the answer, not the terminal.
        let mut lane = driver.open().await.unwrap();
        lane.channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
        lane.channel.exec(true, "until stty size | grep -q '77 333'; do sleep 0.05; done; stty size").await.unwrap();
        lane.channel.window_change(333, 77, 0, 0).await.unwrap();
        let (out, status) = output(&mut lane).await;
        assert_eq!((out.trim(), status), ("77 333", Some(0)));
    });
}

#[test]
fn a_window_of_a_few_bytes_and_one_of_four_gigabytes_both_work() {
    let world = world();
    Runtime::new().unwrap().block_on(async {
        for window in [5, 1000, u32::MAX] {
            let driver = Driver::connect(&world, Route::Gate, window).await;
            let mut lane = driver.open().await.unwrap();
            let bytes = if window < 10 { 3_000 } else { 2_000_000 };
            lane.channel.exec(true, format!("head -c {bytes} /dev/zero | tr '\\0' x; exit 9")).await.unwrap();
            let (out, status) = output(&mut lane).await;
            assert_eq!((out.len(), status), (bytes, Some(9)), "with a window of {window}");
        }
    });
}

#[test]
fn a_signal_reaches_the_program_and_the_recording_and_one_that_is_none_goes_nowhere() {
    let world = world();
    Runtime::new().unwrap().block_on(async {
        let driver = Driver::connect(&world, Route::Gate, 2 << 20).await;
        let mut lane = driver.open().await.unwrap();
        let command = "exec perl -e '$|=1; for my $s (qw(HUP INT TERM USR1 USR2)) { $SIG{$s} = sub { print \"$s\\n\"; exit 4 if $s eq \"USR2\" } } print \"up\\n\"; sleep 1 while 1'";
        lane.channel.exec(true, command).await.unwrap();
        let mut heard = String::new();
        let mut expected = vec!["up", "HUP", "INT", "TERM", "USR1", "USR2"].into_iter();
        let mut next = expected.next();
        while let Some(message) = lane.next().await {
            let ChannelMsg::Data { data } = message else { continue };
            heard.push_str(&String::from_utf8_lossy(&data));
            if next.is_some_and(|word| heard.ends_with(&format!("{word}\n"))) {
                next = expected.next();
                if let Some(name) = next {
                    lane.channel.signal(Sig::Custom("EVIL;NAME".to_owned())).await.unwrap();
                    lane.channel.signal(Sig::Custom(name.to_owned())).await.unwrap();
                }
            }
        }
        assert_eq!(heard, "up\nHUP\nINT\nTERM\nUSR1\nUSR2\n");
    });
    world.gateway.until_ledger("session.closed", 1, secs(60));
    let recordings = world.gateway.recordings();
    let events = world.gateway.events(recordings[0]["session"].as_str().unwrap());
    let signals: Vec<_> = events.iter().filter(|e| e["event"] == "signal").map(|e| e["name"].clone()).collect();
    assert_eq!(signals, ["HUP", "INT", "TERM", "USR1", "USR2"]);
}

#[test]
fn heavy_a_client_that_asks_for_signs_of_life_gets_them_while_its_reader_sleeps() {
    let world = world();
    let options = ["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=2"];
    let line = "ssh \"$@\" 'head -c 60M /dev/zero' | (head -c 1000; sleep 9; cat) | wc -c";
    let line = line.replace("ssh \"$@\" 'head", "ssh \"$@\" 'exec head");
    let output = shell(&world, &options, &line).finish(LONG).ok();
    assert_eq!(output.out(), (60 << 20).to_string(), "{}", output.err());
}

#[test]
fn heavy_a_target_that_asks_for_signs_of_life_gets_them_while_the_reader_sleeps() {
    let world = Plan::new().only_ssh().sshd_config("ClientAliveInterval 2\nClientAliveCountMax 3").start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let line = "ssh \"$@\" 'exec head -c 60M /dev/zero' | (head -c 1000; sleep 20; cat) | wc -c";
    let output = shell(&world, &[], line).finish(LONG).ok();
    assert_eq!(output.out(), (60 << 20).to_string(), "{}", output.err());
}

#[test]
fn a_paused_reader_is_told_by_the_disconnect_why_the_session_ended() {
    let world = World::ssh_only();
    let grant = world.gateway.grant("alice", "web-1", "shell", "30m");
    // (Bytes that do not shrink, since it is the recording's size that tells.)
    let mut ssh = shell(&world, &[], "ssh \"$@\" 'exec cat /dev/urandom' | (head -c 1000 >/dev/null; exec sleep 500)");
    until_stalled(&world);
    world.gateway.revoke(&grant);
    ssh.until_stderr("your grant was revoked", secs(30));
    assert!(ssh.ended().is_none(), "the reader is still asleep");
    world.gateway.until_no_lease(secs(90));
}

#[test]
fn a_client_that_is_killed_leaves_no_session_and_no_lease() {
    let world = world();
    let ssh = world.ssh_start("alice", "deploy@web-1", &["echo on; exec cat"]);
    ssh.until_stdout("on", secs(60));
    ssh.signal(Signal::KILL);
    let ledger = world.gateway.until_ledger("session.closed", 1, secs(30));
    assert_eq!(ledger.one("session.closed")["detail"]["outcome"], "closed");
    world.gateway.until_no_lease(secs(90));
    assert_eq!(world.sshd().processes(), Vec::<String>::new());
}

#[test]
fn a_break_is_passed_over_and_harms_nothing() {
    // russh has no hook for it (RFC 4335): the gate answers that it failed, or nothing where no answer is asked for, and
    // OpenSSH's `~B` asks for none.
    let world = world();
    let mut ssh =
        Running::start(world.ssh_command("alice", &["-tt", "-e", "~"], "deploy@web-1", &["stty -echo; echo on; cat"]));
    ssh.until_stdout("on", secs(60));
    ssh.send("\r~B\rstill here\r");
    ssh.until_stdout("still here", secs(60));
}

#[test]
fn start_up_files_that_hang_keep_nobody_from_the_end_of_the_session() {
    let world = world();
    world.exec("alice", "echo 'sleep 600' > .bashrc").ok();
    // The next program never starts; its person gives up, and the look-up hangs in the same file.
    let ssh = world.ssh_start("alice", "deploy@web-1", &["echo never"]);
    let hanging = || world.sshd().processes().iter().any(|p| p.contains("sleep 600")).then_some(());
    wait_until(secs(60), "the start-up file hangs", hanging);
    ssh.signal(Signal::KILL);
    world.gateway.until_ledger("lease.closed", 2, secs(240));
    let ledger = world.gateway.ledger();
    let receipt = ledger.all("lease.closed")[1]["detail"]["receipt"].to_string();
    assert!(receipt.contains("did not answer"), "{receipt}");
    assert!(receipt.contains("connection closed by the gateway"), "{receipt}");
}
