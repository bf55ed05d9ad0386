//! The receipt: what the target knows of a role after its teardown, and whether it is the target to ask.
//!
//! What always holds: only the server where a role was made says that nothing of it is left. Another one that goes by its
//! target's name has never heard of it; a promoted standby or a restored backup is the same server, and the receipt says that it
//! was looked for there.

use super::{
    admin::{Lane, Link, read},
    fault::{Fault, plain},
    issuer::PostgresIssuer,
    role::{Mint, Notes},
    teardown::{Whereabouts, blame},
};
use crate::issuer::{TargetError, not_looked};
use std::sync::PoisonError;
use tidegate_grants::{Lease, Receipt, lease::Finding};
use tokio_postgres::types::Type;

/// In the lines about what happened between mint and teardown.
pub(super) const MEANWHILE: &str = "while it lived";
/// Why those lines accuse nobody.
pub(super) const NOBODY_SAYS_WHO: &str =
    "PostgreSQL keeps no record of it, so it may have been somebody else at the same time";
const FAILOVER: &str = "failed over or restored since its mint";

/// Whether this line of a receipt may be more than nothing.
pub(super) fn is_harmless(what: &str) -> bool {
    ["heir", "on tables of others: triggers without effect", "done as the owner: default privileges", FAILOVER]
        .contains(&what)
}

impl PostgresIssuer {
    /// Why this is not the server where the lease's role was made, if so.
    pub(super) async fn elsewhere(
        &self,
        lease: &Lease,
        notes: &Notes,
        link: &Link,
    ) -> Result<Option<String>, TargetError> {
        let row = link.one("select tidegate.server()", &[]).await.map_err(|fault| blame(fault, lease))?;
        let now = plain(read(&row, 0).map_err(|fault| blame(fault, lease))?);
        Ok(elsewhere(lease, notes, &now, self.admin.known(lease.target())?.primary()))
    }

    /// What the target knows of a lease's role now.
    pub(super) async fn look_again(&self, lease: &Lease) -> Result<Receipt, TargetError> {
        let notes = Notes::of(lease).map_err(TargetError::Ours)?;
        // Nobody needs to be reached for what was never made: else a target that is down would pile up leases.
        if notes.mint == Mint::Failed {
            return Ok(never_made(lease, &notes, self.now()));
        }
        let link = self.any_link(lease.target(), Some(&notes.database), Lane::Slow).await?;
        if let Some(why) = self.elsewhere(lease, &notes, &link).await? {
            return Ok(not_looked(self.now(), why));
        }
        let receipt = match self.whereabouts(lease, &notes, &link).await? {
            Whereabouts::Nowhere => never_made(lease, &notes, self.now()),
            Whereabouts::Oid(oid) => {
                let mut findings = findings(&link, lease, &notes, oid).await.map_err(|fault| blame(fault, lease))?;
                let replica = self.replica_findings(lease, &notes, oid).await.map_err(|fault| blame(fault, lease))?;
                findings.extend(replica.map(|finding| (finding, false)));
                let now = findings.iter().find(|(finding, _)| finding.what == "server");
                let later = now.and_then(|(server, _)| failover(&notes, server.items.first()?));
                findings.extend(later.map(|finding| (finding, true)));
                let clean = findings.iter().all(|(finding, harmless)| *harmless || finding.found == 0);
                let findings: Vec<Finding> = findings.into_iter().map(|(finding, _)| finding).collect();
                let unverifiable = unverifiable(&notes, &findings);
                Receipt { at: self.now(), clean, findings, unverifiable, accepted: None }
            }
        };
        link.keep();
        if receipt.clean {
            self.found.lock().unwrap_or_else(PoisonError::into_inner).remove(&lease.id());
        }
        Ok(receipt)
    }
}

/// What the target knows of the OID now; `true` where it may be more than nothing.
async fn findings(link: &Link, lease: &Lease, notes: &Notes, oid: u32) -> Result<Vec<(Finding, bool)>, Fault> {
    let (groups, owner) = (notes.groups(), notes.owner());
    let rows = link
        .rows(
            "select what, found, items, harmless from tidegate.inspect($1, $2, $3, $4, to_timestamp($5), $6::jsonb)",
            &[
                (&lease.name(), Type::TEXT),
                (&oid, Type::OID),
                (&groups, Type::TEXT_ARRAY),
                (&owner, Type::TEXT),
                (&notes.minted, Type::FLOAT8),
                (&notes.before, Type::TEXT),
            ],
        )
        .await?;
    let mut findings = Vec::with_capacity(rows.len());
    for row in &rows {
        let items: Option<Vec<String>> = read(row, 2)?;
        let items = items.unwrap_or_default().iter().take(MOST_ITEMS).map(|item| plain(item)).collect();
        // A count below zero is no answer of ours: it counts as something.
        let found = u64::try_from(read::<i64>(row, 1)?).unwrap_or(u64::MAX);
        findings.push((Finding { what: plain(read(row, 0)?), found, items }, read(row, 3)?));
    }
    // An answer that says nothing about the role itself must not read as "nothing is left".
    let asked =
        ["pg_roles", "pg_shdepend", "pg_stat_activity", "pg_auth_members", "pg_db_role_setting", "pg_prepared_xacts"];
    if asked.iter().any(|what| !findings.iter().any(|(finding, harmless)| finding.what == *what && !harmless)) {
        return Err(Fault::Refused("its answer does not say what is left".into()));
    }
    Ok(findings)
}

/// Named in a receipt; the count says how many there are.
const MOST_ITEMS: usize = 50;

fn never_made(lease: &Lease, notes: &Notes, at: jiff::Timestamp) -> Receipt {
    let why = match notes.mint {
        Mint::Failed => "the target refused to make it, or was never asked",
        Mint::Planned | Mint::Done => {
            "asked by name, mark and lease, after the last moment at which the target would make it"
        }
    };
    let what = format!("role {}: {why}", lease.name());
    Receipt {
        at,
        clean: true,
        findings: vec![Finding { what, found: 0, items: Vec::new() }],
        unverifiable: Vec::new(),
        accepted: None,
    }
}

fn unverifiable(notes: &Notes, findings: &[Finding]) -> Vec<String> {
    let mut unverifiable = vec![
        "what the session changed in data and objects of other roles: the recording has its statements".to_owned(),
    ];
    // What `_witness` says where nobody is a superuser.
    if notes.before.as_ref().is_some_and(|before| before.contains("\"passwords\"")) {
        unverifiable.push("changes to passwords of the roles that it could become: no superuser could look".to_owned());
    }
    if notes.before.is_none() {
        unverifiable.push(
            "changes to passwords, memberships, default privileges and settings of the roles that it could become: what \
             they were at its start is not known"
                .to_owned(),
        );
    }
    let meanwhile = |finding: &Finding| finding.found > 0 && finding.what.contains(MEANWHILE);
    if findings.iter().any(meanwhile) {
        unverifiable.push(format!("who did what is listed as {MEANWHILE}: {NOBODY_SAYS_WHO}"));
    }
    if findings.iter().any(|finding| finding.what == FAILOVER) {
        unverifiable.push(
            "whether the server that it was made on still runs beside this one: the role may still be there".to_owned(),
        );
    }
    unverifiable
}

/// Which server, and which branch of its history, as `tidegate.server()` writes it.
fn parts(server: &str) -> (&str, &str) {
    server.split_once(", timeline ").unwrap_or((server, ""))
}

/// Why this is not the server where the lease's role was made, or may have been made: nothing that is looked for here says
/// anything about it. `None`: it is. The same server at another address is the same server.
fn elsewhere(lease: &Lease, notes: &Notes, server: &str, address: &str) -> Option<String> {
    let (name, target) = (lease.name(), lease.target());
    let before = notes.address.as_deref().unwrap_or("its former address");
    let again = format!(
        "name {before} as the address of {target} again, and this lease goes on there; if that server is gone for good, \
         `tidegate lease accept` it"
    );
    match &notes.server {
        Some(made) if parts(made).0 != parts(server).0 => Some(format!(
            "{target} is another server now ({} at {address}) than the one where {name} was made ({} at {before}), and where it may \
             still work: {again}",
            parts(server).0,
            parts(made).0
        )),
        None if notes.oid.is_none() && notes.address.as_deref().is_some_and(|before| before != address) => {
            Some(format!(
                "{target} is at {address} now, and {name} may have been made at {before}, where nobody has looked: {again}"
            ))
        }
        _ => None,
    }
}

/// The same server in a later life: a standby that was promoted, or a backup.
fn failover(notes: &Notes, now: &str) -> Option<Finding> {
    let made = notes.server.as_deref().filter(|made| parts(made).1 != parts(now).1)?;
    let items = vec![format!("made on timeline {}, looked for on timeline {}", parts(made).1, parts(now).1)];
    Some(Finding { what: FAILOVER.to_owned(), found: 1, items })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_told_by_its_identifier_and_its_life_by_the_timeline() {
        assert_eq!(parts("system identifier 7, timeline 2"), ("system identifier 7", "2"));
        assert_eq!(parts("something else"), ("something else", ""));
    }
}
