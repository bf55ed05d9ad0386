//! The channels of one connection: one after the other on one connection to the target, many at once, quick ones, and
//! those that a target would like to open.

use serde_json::Value;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use tidegate_tests::{Driver, Ledger, Master, Route, Running, World, secs, wait_until, world::Plan};
use tokio::runtime::Runtime;

fn world() -> World {
    let world = Plan::new().only_ssh().start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world
}

fn hi(master: &Master<'_>) {
    assert_eq!(Running::start(master.command("echo hi")).finish(secs(60)).ok().out(), "hi");
}

/// How often the target let a session in. (The look around for a receipt is no session.)
fn logins(world: &World) -> usize {
    let log = world.sshd().log();
    log.lines().filter(|l| l.contains("Accepted publickey for deploy") && !l.contains("receipt of lease")).count()
}

/// The serials of certificates, by the ledger and by the channels of the recording.
fn serials(world: &World, ledger: &Ledger) -> (Vec<Value>, Vec<Value>) {
    let minted = ledger.all("credential.minted").iter().map(|entry| entry["detail"]["serial"].clone()).collect();
    let recording = world.gateway.recordings()[0]["session"].as_str().unwrap().to_owned();
    let events = world.gateway.events(&recording);
    let opened = events.iter().filter(|event| event["event"] == "opened");
    (minted, opened.map(|event| event["connection"].clone()).collect())
}

#[test]
fn later_channels_of_a_connection_take_the_connection_of_the_first() {
    let world = world();
    let mut master = Master::start(&world);
    for round in 0..6 {
        let command = format!("echo {round}; echo error {round} >&2; exit {round}");
        let output = Running::start(master.command(&command)).finish(secs(60)).exited(round);
        assert_eq!(output.out(), round.to_string());
        assert!(output.err().contains(&format!("error {round}")), "{}", output.err());
    }
    assert_eq!(logins(&world), 1, "{}", world.sshd().log());
    master.process.close_stdin();
    master.process.signal(tidegate_tests::daemon::Signal::TERM);
    let ledger = world.gateway.until_ledger("session.closed", 1, secs(60));
    let (minted, opened) = serials(&world, &ledger);
    assert_eq!(minted.len(), 1);
    assert!(minted[0].is_number());
    assert_eq!(opened, vec![minted[0].clone(); 6]);
}

#[test]
fn channels_side_by_side_have_a_connection_each_and_later_ones_take_those() {
    let world = world();
    let master = Master::start(&world);
    let start = |n: usize| {
        let ssh = Running::start(master.command("echo up; cat"));
        ssh.until_stdout("up", secs(60));
        (n, ssh)
    };
    for _ in 0..2 {
        let side_by_side: Vec<_> = (0..3).map(start).collect();
        for (n, mut ssh) in side_by_side {
            ssh.send(format!("to {n}"));
            assert_eq!(ssh.finish(secs(60)).ok().out(), format!("up\nto {n}"));
        }
    }
    assert_eq!(logins(&world), 3, "{}", world.sshd().log());
}

#[test]
fn a_connection_that_died_while_it_was_idle_is_replaced_unnoticed() {
    let world = world();
    let master = Master::start(&world);
    // The shell's parent is the target's server process of this connection.
    let command = "nohup setsid sh -c \"sleep 0.3; kill -9 $PPID\" >/dev/null 2>&1 </dev/null & echo hi";
    for round in 1..=3 {
        assert_eq!(Running::start(master.command(command)).finish(secs(60)).ok().out(), "hi");
        assert_eq!(logins(&world), round);
        let gone = || world.sshd().processes().iter().all(|p| !p.contains("sshd")).then_some(());
        wait_until(secs(30), "the target's server process is gone", gone);
    }
    hi(&master);
    assert_eq!(logins(&world), 4);
}

#[test]
fn a_connection_on_which_the_client_gave_up_a_program_is_not_used_again() {
    let world = world();
    let master = Master::start(&world);
    let long = Running::start(master.command("echo on; exec sleep 7654"));
    long.until_stdout("on", secs(60));
    drop(long); // killed: its channel closes, the master stays
    hi(&master);
    assert_eq!(logins(&world), 2);
}

#[test]
fn what_a_channel_left_running_confuses_no_later_one_and_is_in_the_receipt() {
    let world = world();
    let mut master = Master::start(&world);
    let command = "nohup setsid sleep 4567 >/dev/null 2>&1 </dev/null & echo left";
    assert_eq!(Running::start(master.command(command)).finish(secs(60)).ok().out(), "left");
    for _ in 0..3 {
        hi(&master);
    }
    assert_eq!(logins(&world), 1);
    master.process.signal(tidegate_tests::daemon::Signal::TERM);
    master.process.close_stdin();
    let ledger = world.gateway.until_ledger("lease.closed", 1, secs(90));
    let receipt = &ledger.one("lease.closed")["detail"]["receipt"];
    assert!(receipt.to_string().contains("sleep 4567"), "{receipt}");
    let findings = receipt["findings"].as_array().unwrap();
    let closed = findings.iter().find(|f| f["what"].as_str().unwrap().contains("connection closed by the gateway"));
    assert_eq!(closed.unwrap_or_else(|| panic!("{receipt}"))["found"], 0);
}

#[test]
fn heavy_sixty_four_channels_work_at_once_and_the_next_one_is_refused() {
    let world = world();
    Runtime::new().unwrap().block_on(async {
        let mut driver = Driver::connect(&world, Route::Gate, 2 << 20).await;
        let mut lanes = Vec::new();
        for _ in 0..64 {
            let lane = driver.open().await.unwrap();
            lane.channel.exec(true, "cat; exit 5").await.unwrap();
            lanes.push(lane);
        }
        for lane in &mut lanes {
            assert!(matches!(lane.next().await, Some(russh::ChannelMsg::Success)));
        }
        let refused = driver.open().await;
        assert!(matches!(refused, Err(russh::Error::ChannelOpenFailure(_))), "{refused:?}");
        let why = driver.refusals.recv().await.unwrap();
        assert!(why.contains("up to 64 channels; close one, or connect anew"), "{why}");
        for (n, lane) in lanes.iter().enumerate() {
            lane.channel.data_bytes(vec![n as u8; 100_000]).await.unwrap();
            lane.channel.eof().await.unwrap();
        }
        for (n, lane) in lanes.iter_mut().enumerate() {
            let (mut out, mut status) = (Vec::new(), None);
            while let Some(message) = lane.next().await {
                match message {
                    russh::ChannelMsg::Data { data } => out.extend_from_slice(&data),
                    russh::ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                    _ => {}
                }
            }
            assert!(out.len() == 100_000 && out.iter().all(|byte| *byte == n as u8), "channel {n}");
            assert_eq!(status, Some(5), "channel {n}");
        }
    });
    eprintln!("64 channels: {} KiB at the peak", world.gateway.vm_hwm());
    assert!(world.gateway.vm_hwm() < 160 * 1024, "{} KiB", world.gateway.vm_hwm());
}

#[test]
fn heavy_sixty_three_stalled_uploads_lose_nothing_cost_little_and_leave_room_for_one_more() {
    let world = world();
    Runtime::new().unwrap().block_on(async {
        let driver = Driver::connect(&world, Route::Gate, 2 << 20).await;
        let taken = Arc::new(AtomicUsize::new(0));
        let mut readers = Vec::new();
        for _ in 0..63 {
            let lane = driver.open().await.unwrap();
            lane.channel.exec(false, "exec sleep 600").await.unwrap();
            let (read, write) = lane.split();
            let taken = taken.clone();
            tokio::spawn(async move {
                while write.data_bytes(vec![0; 32 << 10]).await.is_ok() {
                    taken.fetch_add(32 << 10, Ordering::SeqCst);
                }
            });
            readers.push(read);
        }
        let mut before = 0;
        loop {
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            let now = taken.load(Ordering::SeqCst);
            if now == before && now > 0 {
                break;
            }
            before = now;
        }
        let mut lane = driver.open().await.unwrap();
        lane.channel.exec(true, "echo still here").await.unwrap();
        let mut out = Vec::new();
        while let Some(message) = lane.next().await {
            if let russh::ChannelMsg::Data { data } = message {
                out.extend_from_slice(&data);
            }
        }
        assert_eq!(String::from_utf8_lossy(&out).trim(), "still here");
        for read in &mut readers {
            let soon = std::time::Duration::from_millis(1);
            while let Ok(message) = tokio::time::timeout(soon, read.wait()).await {
                assert!(matches!(message, Some(russh::ChannelMsg::WindowAdjusted { .. })), "{message:?}");
            }
        }
        eprintln!("{} KiB taken, {} KiB at the peak", before >> 10, world.gateway.vm_hwm());
    });
    assert!(world.gateway.vm_hwm() < 160 * 1024, "{} KiB", world.gateway.vm_hwm());
}

#[test]
fn channels_that_come_and_go_quickly_pile_up_nothing() {
    let world = world();
    Runtime::new().unwrap().block_on(async {
        let driver = Driver::connect(&world, Route::Gate, 2 << 20).await;
        for round in 0..300 {
            // One that the gate turns away for being too many is as good: it must only go on working.
            let Ok(lane) = driver.open().await else { continue };
            if round % 3 > 0 {
                lane.channel.exec(true, "echo quick").await.unwrap();
            }
            if round % 3 > 1 {
                lane.channel.eof().await.unwrap();
            }
            lane.channel.close().await.unwrap();
        }
        let mut lane = loop {
            match driver.open().await {
                Ok(lane) => break lane,
                // The gate still works off those that went.
                Err(russh::Error::ChannelOpenFailure(_)) => {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await
                }
                Err(error) => panic!("{error}"),
            }
        };
        lane.channel.exec(true, "echo still here").await.unwrap();
        let mut out = Vec::new();
        while let Some(message) = lane.next().await {
            if let russh::ChannelMsg::Data { data } = message {
                out.extend_from_slice(&data);
            }
        }
        assert_eq!(String::from_utf8_lossy(&out).trim(), "still here");
        let processes = || {
            let count = world.sshd().processes().len();
            (count <= 12).then_some(())
        };
        wait_until(secs(60), "the target's processes of this session are few", processes);
        let log = world.sshd().log();
        let given_up = |line: &str| line.starts_with("Connection ") && line.ends_with("[preauth]");
        assert!(!log.lines().any(given_up), "a login was given up half-way, which sshd punishes:\n{log}");
        assert!(logins(&world) <= 60, "{} logins", logins(&world));
    });
    world.gateway.until_no_lease(secs(90));
    world.gateway.verify_ledger().ok();
}

#[test]
fn clients_of_a_master_all_at_once_each_get_their_own() {
    let world = world();
    let master = Master::start(&world);
    thread::scope(|scope| {
        for n in 0..12 {
            let command = master.command(&format!("echo {n}; sleep 0.1; exit {n}"));
            scope.spawn(move || {
                let output = Running::start(command).finish(secs(120)).exited(n);
                assert_eq!(output.out(), n.to_string());
            });
        }
    });
}
