//! Roles with our mark on a target, whatever our leases say.

use super::{
    admin::{Lane, read},
    fault::{Fault, Step, plain},
    issuer::PostgresIssuer,
    role::{Mint, Notes},
};
use crate::issuer::{Marked, Part, Sighting, TargetError};
use std::collections::BTreeSet;
use tidegate_grants::{Lease, LeaseId, LeaseKind, LeasePlan, TargetName};

impl PostgresIssuer {
    pub(super) async fn look_around(&self, target: &TargetName) -> Result<Sighting, TargetError> {
        let blame = |fault: Fault| fault.blame(target, Step::Teardown);
        let link = self.any_link(target, None, Lane::Quick).await?;
        let server: String =
            read(&link.one("select tidegate.server()", &[]).await.map_err(blame)?, 0).map_err(blame)?;
        let rows =
            link.rows("select name, role, part, works, mark from tidegate.marked()", &[]).await.map_err(blame)?;
        let mut marked = Vec::with_capacity(rows.len());
        for row in &rows {
            let mut one = || {
                let part = match read(row, 2)? {
                    "session" => Part::Session,
                    "heir" => Part::Heir,
                    _ => Part::Lender,
                };
                let (gateway, lease) = read::<Option<&str>>(row, 4)?.map(mark).unwrap_or_default();
                marked.push(Marked {
                    name: plain(read(row, 0)?),
                    id: read(row, 1)?,
                    part,
                    works: read(row, 3)?,
                    gateway,
                    lease,
                });
                Ok(())
            };
            one().map_err(blame)?;
        }
        // Not kept: the next sweep is minutes away.
        Ok(Sighting { server: plain(&server), marked })
    }

    /// Notes for a role that has no lease: where, and its OID. What it could become is not known.
    pub(super) fn adopted(&self, target: &TargetName, marked: &Marked) -> Result<LeasePlan, TargetError> {
        let Some(database) = self.databases_of(target).into_iter().next() else {
            return Err(TargetError::Unknown(target.to_string()));
        };
        let notes = Notes {
            database,
            groups: BTreeSet::new(),
            owner: None,
            drop_leftovers: false,
            planned: self.now(),
            mint: Mint::Done,
            oid: Some(marked.id),
            minted: None,
            before: None,
            address: self.admin.known(target).ok().map(|target| target.primary().to_owned()),
            server: None,
        };
        Ok(LeasePlan { kind: LeaseKind::PostgresRole, name: marked.name.clone(), detail: notes.to_json() })
    }
}

/// The same role: by its OID, or by the lease in its comment where the OID was never noted.
pub(super) fn is_role_of(lease: &Lease, marked: &Marked) -> bool {
    let oid = Notes::of(lease).ok().and_then(|notes| notes.oid);
    marked.name == lease.name() && oid.map_or(marked.lease == Some(lease.id()), |oid| oid == marked.id)
}

/// Gateway and lease of a role's comment: `tidegate GATEWAY lease LEASE session SESSION`, in an heir's behind what it says
/// itself.
fn mark(comment: &str) -> (Option<String>, Option<LeaseId>) {
    let parsed = comment.split_once("tidegate ").and_then(|(_, mark)| {
        let (gateway, rest) = mark.split_once(" lease ")?;
        Some((plain(gateway), rest.split(' ').next()?.parse().ok()?))
    });
    parsed.unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_names_gateway_and_lease_and_anything_else_names_nobody() {
        let id = "0193b2a4-0000-7000-8000-000000000001";
        let whole = format!("tidegate gate lease {id} session {id}");
        for comment in [whole.clone(), format!("left by tg_alice_aaaaaaaa: {whole}")] {
            assert_eq!(mark(&comment), (Some("gate".to_owned()), id.parse().ok()));
        }
        for other in ["", "tidegate", "tidegate gate lease x session y", "a comment", "lease tidegate "] {
            assert_eq!(mark(other), (None, None), "{other}");
        }
    }
}
