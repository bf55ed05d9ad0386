//! People who come at a steady rate while strangers hold what they can: every log-in gets in.
//!
//! `./tests/run --rate 100` is how to ask for a hundred log-ins a second, for a minute, beside five thousand strangers. How
//! long they took is printed, and asserted nowhere.

use crate::limits::crowd;
use futures::{StreamExt as _, stream};
use std::{
    future::Future,
    time::{Duration, Instant},
};
use tidegate_tests::{
    World,
    in_process::{Database, Shell, print_quantiles},
    secs,
    world::{PATIENCE, Plan},
};

/// What is measured.
struct Load {
    /// Log-ins at the SSH door in each second.
    rate: u32,
    seconds: u32,
    /// Connections on which nothing, or too little, is said.
    strangers: u16,
}

/// Whole sessions cost the target's own servers more than the door: one for this many log-ins. (An SSH session is two handshakes of
/// the target's: the receipt's own look comes after it.)
const SHARE: u32 = 20;

fn load() -> Load {
    match std::env::var("TIDEGATE_TEST_RATE").ok().and_then(|text| text.parse().ok()) {
        Some(rate) => Load { rate, seconds: 60, strangers: 5000 },
        None => Load { rate: 5, seconds: 2, strangers: 200 },
    }
}

/// Begins so many a second, whether or not those before have ended; how long each took.
async fn at_a_rate<F: Future<Output = ()>>(rate: u32, seconds: u32, one: impl Fn() -> F) -> Vec<Duration> {
    let mut ticks = tokio::time::interval(secs(1) / rate);
    let came = stream::poll_fn(move |context| ticks.poll_tick(context).map(Some));
    let timed = came.take((rate * seconds) as usize).map(async |due| {
        one().await;
        due.elapsed()
    });
    timed.buffer_unordered(usize::MAX).collect().await
}

fn world() -> World {
    let world = Plan::new()
        .sshd_config("MaxStartups 500:30:500\n")
        .postgresql_conf("max_connections = 260")
        .block(
            "[[entitlement]]\nname = \"many\"\ngroups = [\"sre\"]\ntargets = [\"orders\"]\ndatabases = [\"shop\"]\n\
             roles = [\"shop_reader\"]\nmax_connections = 200\nmax_duration = \"1h\"\n",
        )
        // All who log in come from one address, and are one person; the strangers come from fifty.
        .block(
            "[limits]\nhandshakes = 2000\nhandshakes_per_source = 500\nconnections_per_source = 5000\n\
             sessions_per_identity = 2000\nsessions_per_target = 2000\n",
        )
        .start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.gateway.grant("alice", "orders", "many", "1h");
    world
}

#[test]
fn logins_come_at_a_steady_rate_while_strangers_hold_what_they_can() {
    let Load { rate, seconds, strangers } = load();
    let world = world();
    let (shell, gate, direct) = (Shell::of(&world, "alice"), Database::gate(&world, "many"), Database::direct(&world));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let door = async || drop(shell.log_in().await.unwrap());
    let session = async || drop(shell.open("echo here").await.unwrap());
    let through = async || gate.log_in().await.unwrap().leave().await;
    let around = async || direct.log_in().await.unwrap().leave().await;
    let (ssh, postgres) = (world.gateway.ssh(), world.gateway.postgres());
    let few = rate.div_ceil(SHARE);
    let began = Instant::now();
    for held in [0, strangers] {
        let mut crowded = crowd(ssh, held / 2, b"SSH-2.0-slow");
        crowded.extend(crowd(postgres, held / 2, b"\0\0"));
        let beside = format!("a second, beside {} strangers", crowded.len());
        let took = runtime.block_on(at_a_rate(rate, seconds, door));
        print_quantiles(&format!("{rate} SSH log-ins {beside}"), took);
    }
    // On two cores a target's sshd answers fewer receipts in a second than the door lets people in.
    world.gateway.until_no_lease(PATIENCE + secs(6 * u64::from(rate)));
    for held in [0, strangers] {
        let mut crowded = crowd(ssh, held / 2, b"SSH-2.0-slow");
        crowded.extend(crowd(postgres, held / 2, b"\0\0"));
        runtime.block_on(async {
            let beside = format!("a second, beside {} strangers", crowded.len());
            print_quantiles(&format!("{few} SSH sessions {beside}"), at_a_rate(few, seconds, session).await);
            print_quantiles(&format!("{few} PostgreSQL sessions {beside}"), at_a_rate(few, seconds, through).await);
        });
    }
    let around = runtime.block_on(at_a_rate(few, seconds, around));
    print_quantiles(&format!("{few} PostgreSQL sessions a second around the gate"), around);
    eprintln!("all of it took {:.0} s; {} KiB at the peak", began.elapsed().as_secs_f64(), world.gateway.vm_hwm());
    world.gateway.until_no_lease(PATIENCE + secs(120));
    // A session closes in the ledger after its lease does.
    let logins = ((2 * rate + 4 * few) * seconds) as usize;
    let ledger = world.gateway.until_ledger("session.closed", logins, PATIENCE);
    assert_eq!(ledger.count("session.closed"), logins, "each had its session");
    world.gateway.verify_ledger().ok();
}
