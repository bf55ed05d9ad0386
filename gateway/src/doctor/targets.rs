//! Whether targets can be reached: all at once, each with its own deadline.

use super::Finding;
use crate::config::Config;
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpStream, sync::Semaphore, task::JoinSet, time::timeout};

/// For the name and the connection.
const DEADLINE: Duration = Duration::from_secs(5);
/// Connected to at once.
const MOST_AT_ONCE: usize = 64;

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let ssh = config.ssh_targets.values().map(|target| (target.name.to_string(), target.address.clone()));
    let postgres = config.postgres_targets.values().flat_map(|target| {
        let primary = target.admin_address.iter().map(|at| (format!("the primary of {}", target.name), at.clone()));
        std::iter::once((target.name.to_string(), target.address.clone())).chain(primary)
    });
    let all: Vec<(String, String)> = ssh.chain(postgres).collect();
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(reach(all)),
        Err(error) => vec![Finding::fail("targets", error.to_string(), "tidegate target test NAME")],
    }
}

async fn reach(all: Vec<(String, String)>) -> Vec<Finding> {
    let (turns, count) = (Arc::new(Semaphore::new(MOST_AT_ONCE)), all.len());
    let mut dialing = JoinSet::new();
    for (name, address) in all {
        let turns = turns.clone();
        dialing.spawn(async move {
            let _turn = turns.acquire().await;
            let why = match timeout(DEADLINE, TcpStream::connect(&address)).await {
                Ok(Ok(_)) => return None,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            Some(Finding::fail(
                "targets",
                format!("{name} at {address}: {why}"),
                format!("tidegate target test {name}"),
            ))
        });
    }
    let mut findings: Vec<Finding> = dialing.join_all().await.into_iter().flatten().collect();
    findings.sort_by(|a, b| a.said.cmp(&b.said));
    if findings.is_empty() {
        findings.push(Finding::ok("targets", format!("all {count} addresses take connections")));
    }
    findings
}
