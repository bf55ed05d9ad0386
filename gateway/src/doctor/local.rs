//! What can be seen on the gateway's own host.

use super::Finding;
use crate::config::Config;
use jiff::{SignedDuration, Timestamp};
use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};
use tidegate_ca::Keys;
use tidegate_grants::store;

/// Below this much free space, recordings of a busy day may not fit.
const LITTLE: u64 = 1 << 30;
/// Below this much, the reserve for the ledger is not made anew.
const TOO_LITTLE: u64 = 64 << 20;
/// So long before its end, a certificate wants a human.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);
/// A clock that is behind the ledger by less is nothing.
const STEP: SignedDuration = SignedDuration::from_secs(5);

pub(super) fn configuration(file: &Path, config: &Config) -> Finding {
    let (users, targets) = (config.policy.identities.len(), config.policy.targets.len());
    Finding::ok("configuration", format!("{} has no faults: {users} user(s), {targets} target(s)", file.display()))
}

/// The directory and what lies in it: whose, and open to whom.
pub(super) fn state(dir: &Path) -> Vec<Finding> {
    let shown = dir.display();
    let found = match fs::metadata(dir) {
        Ok(found) => found,
        Err(error) => {
            let next = "tidegate init makes one; a lost one comes back by tidegate restore";
            return vec![Finding::fail("state", format!("{shown}: {error}"), next)];
        }
    };
    let mut findings = Vec::new();
    if found.permissions().mode() & 0o022 != 0 {
        findings.push(Finding::fail("state", format!("others can write to {shown}"), format!("chmod 711 {shown}")));
    }
    let open = |entry: &fs::DirEntry| {
        let mode = entry.metadata().map_or(0, |found| if found.is_symlink() { 0 } else { found.permissions().mode() });
        mode & 0o077 != 0 && entry.file_name() != crate::api::SOCKET
    };
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries.filter(open) {
        let path = entry.path();
        let said = format!("{} is open to other accounts", path.display());
        findings.push(Finding::fail("state", said, format!("chmod go= {}", path.display())));
    }
    let owner = found.uid();
    let foreign = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .find(|entry| entry.file_name() != "keys" && entry.metadata().is_ok_and(|found| found.uid() != owner));
    if let Some(entry) = foreign {
        let path = entry.path();
        let said = format!("{} belongs to another account than {shown}", path.display());
        findings.push(Finding::warn("state", said, "chown it to the account that the gateway runs as"));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("state", format!("{shown} is the gateway's alone")));
    }
    findings
}

pub(super) fn disk(dir: &Path) -> Finding {
    let found = match rustix::fs::statvfs(dir) {
        Ok(found) => found,
        Err(error) => return Finding::fail("disk", format!("{}: {error}", dir.display()), "mount it"),
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let said = format!("{} MiB free for the state directory", free >> 20);
    let next = "make room: recordings that were sealed and copied elsewhere can go";
    if found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Finding::fail(
            "disk",
            "the state directory is mounted read-only",
            "look at the kernel's log, and mount it again",
        );
    }
    if found.f_files > 0 && found.f_favail == 0 {
        return Finding::fail("disk", "no inode is free for the state directory", next);
    }
    match free {
        free if free < TOO_LITTLE => Finding::fail("disk", said, next),
        free if free < LITTLE => Finding::warn("disk", said, next),
        _ => Finding::ok("disk", said),
    }
}

/// A session takes three, and both doors have as many connections as `[limits]` says.
pub(super) fn descriptors(config: &Config) -> Finding {
    let doors = usize::from(config.ssh.is_some()) + usize::from(config.postgres.is_some());
    let needed = u64::try_from(config.limits.door.connections * doors * 3 + 256).unwrap_or(u64::MAX);
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    match most.filter(|most| *most < needed) {
        Some(most) => Finding::warn(
            "descriptors",
            format!("this account may open {most} files, and limits.connections may need {needed}"),
            "raise LimitNOFILE of the unit, or lower limits.connections",
        ),
        None => Finding::ok("descriptors", format!("enough for limits.connections ({needed})")),
    }
}

/// Those of the gateway's own authorities, and those that targets must show.
pub(super) fn certificates(config: &Config, keys: &Keys) -> Vec<Finding> {
    let now = Timestamp::now();
    let mut findings = Vec::new();
    for (name, end) in [("x509 authority", keys.x509.ends()), ("authority for people", keys.people.ends())] {
        findings.push(ending(
            name,
            end,
            now,
            "there is no command for a new one yet: PRODUCTION.md says how (\"A new X.509 authority\")",
        ));
    }
    for (name, end) in &config.tls_ca_ends {
        findings.push(ending(
            &format!("tls_ca of {name}"),
            *end,
            now,
            "put the target's new CA into the file of tls_ca",
        ));
    }
    let doors = [
        ("postgres", &config.postgres_certificate),
        ("api", &config.api.as_ref().and_then(|door| door.certificate.clone())),
    ];
    for (door, files) in doors {
        let Some(files) = files else { continue };
        findings.push(match files.check(now) {
            Ok(end) => ending(
                &format!("{door}.tls_cert"),
                Some(end),
                now,
                "renew it: the gateway reads it again within a minute",
            ),
            Err(error) => Finding::fail("certificates", format!("{door}.tls_cert: {error}"), "put a good one there"),
        });
    }
    findings
}

fn ending(what: &str, end: Option<Timestamp>, now: Timestamp, next: &str) -> Finding {
    match end {
        None => Finding::warn("certificates", format!("the end of the {what} could not be read"), next),
        Some(end) if end <= now => Finding::fail("certificates", format!("the {what} has ended at {end}"), next),
        Some(end) if end.duration_since(now) < SOON => {
            Finding::warn("certificates", format!("the {what} ends at {end}"), next)
        }
        Some(end) => Finding::ok("certificates", format!("the {what} is good until {end}")),
    }
}

/// Whether the clock is behind what was written, and whether all that was written agrees.
pub(super) fn ledger(state: &Path, keys: &Keys) -> Vec<Finding> {
    let mut findings = Vec::new();
    match store::read(state, Some(1)) {
        Ok(last) => {
            let now = Timestamp::now();
            findings.push(match last.last() {
                Some(entry) if entry.at.duration_since(now) > STEP => Finding::fail(
                    "clock",
                    format!("it is {now} here, and the ledger was written at {} already", entry.at),
                    "set the clock right (chrony, systemd-timesyncd); if the ledger's time was the wrong one: tidegate clock accept",
                ),
                _ => Finding::ok("clock", format!("{now}, not behind the ledger")),
            });
        }
        Err(error) => findings.push(Finding::fail("ledger", error.to_string(), "tidegate ledger verify")),
    }
    findings.push(match store::verify(state, keys.ledger.verifying_key().to_bytes()) {
        Ok(verdict) if verdict.intact() => {
            Finding::ok("ledger", format!("{} entries, each record agrees with them", verdict.entries))
        }
        Ok(verdict) => {
            let said =
                format!("{} fault(s): {}", verdict.faults.len(), verdict.faults.first().cloned().unwrap_or_default());
            Finding::fail(
                "ledger",
                said,
                "tidegate ledger verify names them all; nothing opens until somebody has looked",
            )
        }
        Err(error) => Finding::fail("ledger", error.to_string(), "tidegate ledger verify"),
    });
    findings
}
