//! A replica: sessions work there, and their roles are made and removed at its primary (`admin_address`).
//!
//! What always holds: nobody is sent to a replica that has not heard of their role yet; and nothing of a role is cleaned before
//! the replica has heard that it is disabled and no session of it is left there. What a replica cannot confirm is tried again.

use super::{
    admin::{Lane, Link, read},
    fault::{Fault, Step},
    issuer::PostgresIssuer,
    role::Notes,
};
use crate::issuer::TargetError;
use std::time::Duration;
use tidegate_grants::{Lease, TargetName, lease::Finding};
use tokio::time::{Instant, sleep};
use tokio_postgres::types::Type;

/// So long after its mint a role is waited for.
const ARRIVAL: Duration = Duration::from_secs(5);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// What a replica knows of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Working,
    Disabled,
    Unknown,
}

impl PostgresIssuer {
    fn has_replica(&self, target: &TargetName) -> bool {
        self.admin.known(target).is_ok_and(|target| target.admin_address.is_some())
    }

    /// Waits until the replica, if sessions work on one, has heard of a new role. Roles and their memberships come with one
    /// commit, so it has heard of all.
    pub(super) async fn arrive(&self, lease: &Lease, notes: &Notes) -> Result<(), TargetError> {
        let (Some(oid), true) = (notes.oid, self.has_replica(lease.target())) else { return Ok(()) };
        let blame = |fault: Fault| fault.blame(lease.target(), Step::Mint);
        let by = Instant::now() + ARRIVAL;
        let link = self.replica(lease, notes).await.map_err(blame)?;
        while known(&link, oid).await.map_err(blame)? != Known::Working {
            if Instant::now() > by {
                let late = ARRIVAL.as_secs();
                let cause = format!("its replica lags behind: it had not heard of the new role after {late} s");
                return Err(TargetError::Unreachable { target: lease.target().to_string(), cause });
            }
            sleep(PAUSE).await;
        }
        link.keep();
        Ok(())
    }

    /// Once the role is disabled at the primary: waits until the replica has heard that, and ends the role's sessions there.
    pub(super) async fn sever_on_replica(&self, lease: &Lease, oid: u32, give_up: Instant) -> Result<(), Fault> {
        if !self.has_replica(lease.target()) {
            return Ok(());
        }
        let notes = Notes::of(lease).map_err(Fault::Refused)?;
        let (link, name) = (self.replica(lease, &notes).await?, lease.name());
        let role = [(&name as _, Type::TEXT), (&oid as _, Type::OID)];
        let mut quiet = 0;
        while quiet < 2 {
            if known(&link, oid).await? == Known::Working {
                quiet = 0;
            } else {
                let told: i32 = read(&link.one("select tidegate.sever($1, $2)", &role).await?, 0)?;
                quiet = if told == 0 && sessions(&link, oid).await? == 0 { quiet + 1 } else { 0 };
            }
            if quiet < 2 && Instant::now() > give_up {
                return Err(Fault::Silent(format!("the replica still lets {name} work, or has sessions of it")));
            }
            sleep(PAUSE).await;
        }
        link.keep();
        Ok(())
    }

    /// What the replica says of the role's sessions, for the receipt.
    pub(super) async fn replica_findings(
        &self,
        lease: &Lease,
        notes: &Notes,
        oid: u32,
    ) -> Result<Option<Finding>, Fault> {
        if !self.has_replica(lease.target()) {
            return Ok(None);
        }
        let link = self.replica(lease, notes).await?;
        let found = sessions(&link, oid).await?;
        link.keep();
        let what = "pg_stat_activity of the replica".to_owned();
        Ok(Some(Finding { what, found, items: Vec::new() }))
    }

    async fn replica(&self, lease: &Lease, notes: &Notes) -> Result<Link, Fault> {
        self.admin.link(lease.target(), notes.database.as_str(), Lane::Replica).await
    }
}

async fn known(link: &Link, oid: u32) -> Result<Known, Fault> {
    let rows = link.rows("select rolcanlogin from pg_roles where oid = $1", &[(&oid, Type::OID)]).await?;
    Ok(match rows.first() {
        Some(row) if read(row, 0)? => Known::Working,
        Some(_) => Known::Disabled,
        None => Known::Unknown,
    })
}

async fn sessions(link: &Link, oid: u32) -> Result<u64, Fault> {
    let row = link.one("select count(*) from pg_stat_activity where usesysid = $1", &[(&oid, Type::OID)]).await?;
    Ok(u64::try_from(read::<i64>(&row, 0)?).unwrap_or(u64::MAX))
}
