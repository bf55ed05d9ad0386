//! A replica: sessions work there, and their roles are made and removed at its primary (`admin_address`).
//!
//! What always holds: nobody is sent to a replica that has not heard of their role yet; and nothing of a role is cleaned before
//! the replica has heard that it is disabled and no session of it is left there. What a replica cannot confirm is tried again.

use super::{
    admin::{Lane, Link, read},
    fault::{Fault, Step},
    issuer::PostgresIssuer,
    role::Notes,
    teardown::{TWICE, Watch, sever},
};
use crate::issuer::TargetError;
use std::time::Duration;
use tidegate_grants::{Lease, TargetName, lease::Finding};
use tokio::time::{Instant, sleep};
use tokio_postgres::types::Type;

/// So long after its mint a role is waited for.
const ARRIVAL: Duration = Duration::from_secs(5);
/// Between two looks whether it has arrived.
const PAUSE: Duration = Duration::from_millis(20);

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
        while !works(&link, oid).await.map_err(blame)? {
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
        let mut watch = Watch::until(give_up, TWICE);
        while watch.goes_on(still_there(&link, name, oid).await?).await {}
        if !watch.is_quiet() {
            return Err(Fault::Silent(format!("the replica still lets {name} work, or has sessions of it")));
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

/// Whether the role can log in there, as far as the replica has heard.
async fn works(link: &Link, oid: u32) -> Result<bool, Fault> {
    let rows = link.rows("select rolcanlogin from pg_roles where oid = $1", &[(&oid, Type::OID)]).await?;
    rows.first().map_or(Ok(false), |row| read(row, 0))
}

/// Whether the role still works there, or has sessions; these are told to end.
async fn still_there(link: &Link, name: &str, oid: u32) -> Result<bool, Fault> {
    Ok(works(link, oid).await? || sever(link, name, oid).await? > 0 || sessions(link, oid).await? > 0)
}

async fn sessions(link: &Link, oid: u32) -> Result<u64, Fault> {
    let row = link.one("select count(*) from pg_stat_activity where usesysid = $1", &[(&oid, Type::OID)]).await?;
    Ok(u64::try_from(read::<i64>(&row, 0)?).unwrap_or(u64::MAX))
}
