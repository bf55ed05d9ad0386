//! What the running gateway says of itself: whether it lets people in, and what it has on targets.

use super::Finding;
use crate::api::{
    LeaseView, Status, SweepBody,
    client::{Client, Unreachable},
};
use crate::notify::ChannelView;
use std::{path::Path, time::Duration};
use tidegate_grants::LeaseState;
use tidegate_proxy::sweep::Swept;

/// A sweep asks every target; those that do not answer in this time are told as such by themselves.
const SWEEP: Duration = Duration::from_secs(55);
/// So many leases are named.
const MOST_NAMED: usize = 5;

pub(super) fn examine(state: &Path) -> Vec<Finding> {
    let client = match Client::new(state) {
        Ok(client) => client,
        Err(error) => return vec![Finding::fail("gateway", error.to_string(), "tidegate status")],
    };
    let status: Status = match client.get("/v1/status") {
        Ok(status) => status,
        Err(error) => {
            let next = if error.is::<Unreachable>() {
                "systemctl start tidegate, or tidegate serve"
            } else {
                "tidegate status"
            };
            return vec![Finding::fail("gateway", format!("{error:#}"), next)];
        }
    };
    let mut findings = vec![running(&status)];
    if status.reviews > 0 {
        let said = format!("{} review(s) are owed: somebody broke the glass", status.reviews);
        findings.push(Finding::warn("reviews", said, "tidegate review list; tidegate review sign ID --note WHAT"));
    }
    if status.locks > 0 {
        let said = format!("{} lock(s) keep people out", status.locks);
        findings.push(Finding::warn("locks", said, "tidegate lock list; tidegate lock remove ID"));
    }
    findings.extend(room(&status));
    findings.extend(anchors(&status));
    findings.extend(peers(&status));
    findings.extend(untold(&client));
    findings.extend(leases(&client));
    findings.extend(orphans(&client));
    findings
}

fn running(status: &Status) -> Finding {
    if !status.ready {
        return Finding::fail("gateway", format!("it lets nobody in: {}", status.faults.join("; ")), "tidegate status");
    }
    if status.version != env!("CARGO_PKG_VERSION") {
        let said = format!("it is tidegate {}, and this is {}", status.version, env!("CARGO_PKG_VERSION"));
        return Finding::warn("gateway", said, "restart it, when nobody minds");
    }
    Finding::ok("gateway", format!("it lets people in; {} live session(s)", status.sessions))
}

/// At so many per cent of their room, recordings want a human.
const MUCH: u64 = 80;

fn room(status: &Status) -> Option<Finding> {
    let (bytes, budget) = (status.recordings_bytes, status.recordings_budget?);
    let said = format!("recordings take {} of the {} MiB that they may", bytes >> 20, budget >> 20);
    let next = "raise recording.budget, or keep recordings for less long (recording.keep)";
    Some(match bytes {
        bytes if bytes >= budget => Finding::fail("recordings", said, next),
        bytes if bytes >= budget / 100 * MUCH => Finding::warn("recordings", said, next),
        _ => Finding::ok("recordings", said),
    })
}

fn anchors(status: &Status) -> impl Iterator<Item = Finding> {
    let failing = |(name, why): (&String, &String)| {
        let said = format!("the anchor {name} does not take the ledger's heads: {why}");
        Finding::warn(
            "anchor",
            said,
            "look at that place: what is newer than its last head is not proven against an older store",
        )
    };
    status.failing_anchors.iter().map(failing)
}

fn peers(status: &Status) -> impl Iterator<Item = Finding> {
    let failing = |(name, why): (&String, &String)| {
        let said = format!("the heads of the peer {name} are not taken: {why}");
        Finding::warn("peer", said, "ask its admins: a ledger that went back, or in two, was tampered with or restored")
    };
    status.failing_peers.iter().map(failing)
}

/// Who was to be told something, and was not.
fn untold(client: &Client) -> Vec<Finding> {
    let channels: Vec<ChannelView> = match client.get("/v1/notify") {
        Ok(channels) => channels,
        Err(error) => return vec![Finding::fail("notify", format!("{error:#}"), "tidegate notify list")],
    };
    let mut findings = Vec::new();
    for channel in &channels {
        if let Some(failing) = &channel.failing {
            findings.push(Finding::warn(
                "notify",
                format!("{} is not told now: {failing}", channel.name),
                "tidegate notify list",
            ));
        }
        if !channel.dead.is_empty() {
            let said = format!("{}: {} dead letter(s)", channel.name, channel.dead.len());
            findings.push(Finding::warn("notify", said, "tidegate notify list says why; tidegate notify retry"));
        }
    }
    findings
}

fn leases(client: &Client) -> Vec<Finding> {
    let leases: Vec<LeaseView> = match client.get("/v1/leases") {
        Ok(leases) => leases,
        Err(error) => {
            return vec![Finding::fail("leases", format!("{error:#}"), "run this as an admin of the gateway")];
        }
    };
    let now = jiff::Timestamp::now();
    let named = |wanted: &dyn Fn(&LeaseView) -> bool| -> Vec<String> {
        let found = leases.iter().filter(|lease| wanted(lease));
        found.map(|lease| format!("{} on {}", lease.name, lease.target)).collect()
    };
    let held = named(&|lease| lease.state == LeaseState::Held);
    let overdue = named(&|lease| lease.state != LeaseState::Held && lease.deadline < now);
    let mut findings = Vec::new();
    if !overdue.is_empty() {
        let said = format!("{} should be gone from targets, and is not: {}", overdue.len(), some(&overdue));
        findings.push(Finding::fail("leases", said, "tidegate lease list says why; tidegate lease retry ID"));
    }
    if !held.is_empty() {
        let said = format!("{} wait for a human: {}", held.len(), some(&held));
        findings.push(Finding::warn(
            "leases",
            said,
            "tidegate lease show ID says what is left, with the SQL to finish",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("leases", format!("{} open, none overdue and none held", leases.len())));
    }
    findings
}

fn orphans(client: &Client) -> Vec<Finding> {
    let swept: Vec<Swept> = match client.post_within("/v1/leases/sweep", &SweepBody::default(), SWEEP) {
        Ok(swept) => swept,
        Err(error) => return vec![Finding::fail("orphans", format!("{error:#}"), "tidegate lease sweep")],
    };
    let mut findings = Vec::new();
    for of in &swept {
        let names: Vec<String> = of.orphans.iter().map(|orphan| format!("{} on {}", orphan.name, of.target)).collect();
        if !names.is_empty() {
            let next = "tidegate lease sweep; tidegate lease adopt has one removed";
            findings.push(Finding::fail(
                "orphans",
                format!("accounts with our mark and no lease: {}", some(&names)),
                next,
            ));
        }
        if let Some(error) = &of.error {
            let next = format!("tidegate target test {}", of.target);
            findings.push(Finding::warn("orphans", format!("{} could not be asked: {error}", of.target), next));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok("orphans", format!("none on the {} target(s) that were asked", swept.len())));
    }
    findings
}

fn some(names: &[String]) -> String {
    let shown = names.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > MOST_NAMED { format!("{shown}, …") } else { shown }
}
