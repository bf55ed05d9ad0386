//! Removes an ephemeral role: disable → sever → prepared transactions → hand over or drop → strip → drop role → look again.
//!
//! Needs nothing but the lease, and every step can be repeated: the reaper starts from the top after a crash. A role is ours
//! by OID, name and mark together; where the OID was never noted, by name, mark and the lease in its comment. What fits
//! only in part is not touched: the lease is held, with the reason.

use super::{
    admin::{Lane, Link, read},
    advice,
    fault::{Fault, Step, plain},
    issuer::PostgresIssuer,
    receipt,
    role::{Mint, Notes},
    sweep,
};
use crate::issuer::{Advice, Marked, Sighting, TargetError, Teardown};
use futures::{FutureExt, future::BoxFuture};
use std::{collections::BTreeSet, sync::PoisonError, time::Duration};
use tidegate_grants::{DatabaseName, Lease, LeasePlan, Receipt, TargetName, lease::Finding};
use tokio::time::{Instant, sleep};
use tokio_postgres::types::Type;

/// Between two looks at backends that were told to end.
const SEVER_PAUSE: Duration = Duration::from_millis(25);
/// Before looking a second time where none was seen: one may have been between its log-in and the lock by which it is found.
const QUIET_PAUSE: Duration = Duration::from_millis(5);
/// Backends that have not ended by then are the next attempt's.
const SEVER_PATIENCE: Duration = Duration::from_secs(8);
/// Objects of each kind per call: locks are held until its end, and lock memory is finite.
const BATCH: i32 = 500;
/// So many batches in one attempt; a session that left more is cleaned over several.
const MOST_BATCHES: u32 = 2_000;

/// Where the role of a lease is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// This one, if it still exists.
    Oid(u32),
    /// It was never made, or is gone.
    Nowhere,
}

impl Teardown for PostgresIssuer {
    fn disable<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), TargetError>> {
        self.disable_and_sever(lease).boxed()
    }

    fn clean<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), TargetError>> {
        self.clean_and_remove(lease).boxed()
    }

    fn inspect<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Receipt, TargetError>> {
        self.look_again(lease).boxed()
    }

    fn advice(&self, lease: &Lease, receipt: Option<&Receipt>) -> Vec<Advice> {
        advice::advice(lease, receipt)
    }

    fn acceptable(&self, lease: &Lease, receipt: &Receipt) -> Result<(), String> {
        let own = |finding: &&Finding| {
            finding.found > 0 && !advice::is_of_others(&finding.what) && !receipt::is_harmless(&finding.what)
        };
        match receipt.findings.iter().find(own) {
            None => Ok(()),
            Some(finding) => Err(format!(
                "{} still exists on {} ({} {}): only what is left with others can be accepted",
                lease.name(),
                lease.target(),
                finding.found,
                finding.what
            )),
        }
    }

    fn swept(&self) -> Vec<TargetName> {
        self.databases.load().keys().cloned().collect()
    }

    fn sweep<'a>(&'a self, target: &'a TargetName) -> BoxFuture<'a, Result<Sighting, TargetError>> {
        self.look_around(target).boxed()
    }

    fn is_account_of(&self, lease: &Lease, marked: &Marked) -> bool {
        sweep::is_role_of(lease, marked)
    }

    fn adopt(&self, target: &TargetName, marked: &Marked) -> Result<LeasePlan, TargetError> {
        self.adopted(target, marked)
    }
}

impl PostgresIssuer {
    async fn disable_and_sever(&self, lease: &Lease) -> Result<(), TargetError> {
        let notes = Notes::of(lease).map_err(TargetError::Ours)?;
        if notes.mint == Mint::Failed {
            return Ok(());
        }
        let link = self.teardown_link(lease, &notes, Lane::Quick).await?;
        if let Whereabouts::Oid(oid) = self.whereabouts(lease, &notes, &link).await? {
            self.lock_out(lease, &link, oid, TWICE).await.map_err(|fault| blame(fault, lease))?;
        }
        link.keep();
        Ok(())
    }

    async fn clean_and_remove(&self, lease: &Lease) -> Result<(), TargetError> {
        let notes = Notes::of(lease).map_err(TargetError::Ours)?;
        if notes.mint == Mint::Failed {
            return Ok(());
        }
        let link = self.teardown_link(lease, &notes, Lane::Slow).await?;
        if let Whereabouts::Oid(oid) = self.whereabouts(lease, &notes, &link).await? {
            // Again, and first: the caller may know only that an earlier attempt succeeded. That one looked twice.
            self.lock_out(lease, &link, oid, 1).await.map_err(|fault| blame(fault, lease))?;
            self.roll_back_prepared(lease, &link, oid).await.map_err(|fault| blame(fault, lease))?;
            self.clean_everywhere(lease, &notes, link, oid).await?;
        }
        Ok(())
    }

    /// To the server where the lease's role was made, and to no other that goes by its name now.
    pub(super) async fn teardown_link(&self, lease: &Lease, notes: &Notes, lane: Lane) -> Result<Link, TargetError> {
        let link = self.any_link(lease.target(), Some(&notes.database), lane).await?;
        match self.elsewhere(lease, notes, &link).await? {
            None => Ok(link),
            Some(cause) => Err(TargetError::Held { target: lease.target().to_string(), cause }),
        }
    }

    /// To this database, or if that is gone or does not let us in, to any other that has our functions: roles are the whole
    /// server's.
    pub(super) async fn any_link(
        &self,
        target: &TargetName,
        first: Option<&DatabaseName>,
        lane: Lane,
    ) -> Result<Link, TargetError> {
        self.admin.known(target)?;
        let others = self.databases_of(target).into_iter().filter(|other| Some(other) != first);
        let mut outcome = None;
        for database in first.cloned().into_iter().chain(others) {
            match self.admin.link(target, database.as_str(), lane).await {
                Ok(link) => return Ok(link),
                Err(fault) if fault.is_about_the_database() => outcome = outcome.or(Some(fault)),
                Err(fault) => return Err(fault.blame(target, Step::Teardown)),
            }
        }
        let fault = outcome.unwrap_or_else(|| Fault::Refused("no entitlement names a database there".to_owned()));
        Err(fault.blame(target, Step::Teardown))
    }

    pub(super) async fn whereabouts(
        &self,
        lease: &Lease,
        notes: &Notes,
        link: &Link,
    ) -> Result<Whereabouts, TargetError> {
        let found_before = self.found.lock().unwrap_or_else(PoisonError::into_inner).get(&lease.id()).copied();
        if let Some(oid) = notes.oid.or(found_before) {
            return Ok(Whereabouts::Oid(oid));
        }
        let (id, name) = (lease.id().to_string(), lease.name());
        let found = link
            .rows("select role, ours from tidegate.find($1, $2::uuid)", &[(&name, Type::TEXT), (&id, Type::TEXT)])
            .await
            .map_err(|fault| blame(fault, lease))?;
        let Some(row) = found.first() else {
            if notes.is_settled(self.now()) {
                return Ok(Whereabouts::Nowhere);
            }
            let cause = "its mint may still be under way; looking again soon".to_owned();
            return Err(TargetError::Unreachable { target: lease.target().to_string(), cause });
        };
        let (oid, ours) = read(row, 0).and_then(|oid| Ok((oid, read(row, 1)?))).map_err(|fault| blame(fault, lease))?;
        if ours {
            self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(lease.id(), oid);
            return Ok(Whereabouts::Oid(oid));
        }
        let cause = format!("there is a role {name} that does not carry this lease: it is not ours to touch");
        Err(TargetError::Held { target: lease.target().to_string(), cause })
    }

    /// No login any more, and no session.
    ///
    /// A session, or a transaction that it prepared, can hold its role's row locked: those end first then, so that what a
    /// session holds puts its end off by no more than a moment.
    ///
    /// So many times running none of its backends may be seen.
    async fn lock_out(&self, lease: &Lease, link: &Link, oid: u32, quiet: u8) -> Result<(), Fault> {
        let name = lease.name();
        let role = [(&name as _, Type::TEXT), (&oid as _, Type::OID)];
        let give_up = Instant::now() + SEVER_PATIENCE;
        loop {
            match link.one("select tidegate.disable($1, $2)", &role).await {
                Ok(row) if read(&row, 0)? => break,
                Ok(_) => return self.sever_on_replica(lease, oid, give_up).await,
                Err(fault) if fault.is_locked() && Instant::now() < give_up => {
                    sever(link, name, oid).await?;
                    self.roll_back_prepared(lease, link, oid).await?;
                }
                Err(fault) if fault.is_locked() => return Err(prepared_by_groups(link, lease).await?.unwrap_or(fault)),
                Err(fault) => return Err(fault),
            }
        }
        let mut watch = Watch::until(give_up, quiet);
        while watch.goes_on(sever(link, name, oid).await? > 0).await {}
        if !watch.is_quiet() {
            return Err(Fault::Silent(format!("backends of {name} were told to end and have not")));
        }
        self.sever_on_replica(lease, oid, give_up).await
    }

    /// Rolled back as their owner, which the administrator becomes for that moment, on connections of their own.
    async fn roll_back_prepared(&self, lease: &Lease, link: &Link, oid: u32) -> Result<(), Fault> {
        let role = [(&lease.name() as _, Type::TEXT), (&oid as _, Type::OID)];
        let prepared = link.rows("select gid, database from tidegate.lend($1, $2)", &role).await?;
        if prepared.is_empty() {
            return Ok(());
        }
        let mut outcome = Ok(());
        for row in &prepared {
            let (gid, database): (&str, &str) = (read(row, 0)?, read(row, 1)?);
            outcome = outcome.and(self.roll_back(lease, gid, database).await);
        }
        link.rows("select tidegate.unlend($1, $2)", &role).await?;
        outcome
    }

    /// `gid` is a literal that the target quoted.
    async fn roll_back(&self, lease: &Lease, gid: &str, database: &str) -> Result<(), Fault> {
        let link = self.admin.link(lease.target(), database, Lane::Quick).await?;
        // The name is of [a-z0-9_] alone: mint refused any other.
        link.simple(&format!("set role \"{}\"", lease.name().replace('"', ""))).await?;
        link.simple(&format!("rollback prepared {gid}")).await?;
        Ok(()) // and the connection, which is somebody else now, is not kept
    }

    async fn clean_everywhere(&self, lease: &Lease, notes: &Notes, link: Link, oid: u32) -> Result<(), TargetError> {
        let blame = |fault| blame(fault, lease);
        let rows = link.rows("select tidegate.places($1)", &[(&oid, Type::OID)]).await.map_err(blame)?;
        let mut places = BTreeSet::new();
        for row in &rows {
            places.insert(read::<String>(row, 0).map_err(blame)?);
        }
        // Our own database always: privileges on shared objects are taken back there.
        places.insert(notes.database.to_string());
        // One connection at a time: two cleanings that each waited for a second one would both give up.
        link.keep();
        for place in places {
            let there = self.admin.link(lease.target(), &place, Lane::Slow).await;
            if matches!(&there, Err(fault) if fault.is_gone()) {
                continue; // dropped, and what the role had in it
            }
            let there = there.map_err(|fault| blame(shut_out(fault, lease.name(), &place)))?;
            clean_here(&there, lease, notes, oid).await.map_err(blame)?;
            there.keep();
        }
        let link = self.teardown_link(lease, notes, Lane::Slow).await?;
        let role = [(&lease.name() as _, Type::TEXT), (&oid as _, Type::OID)];
        link.rows("select tidegate.remove($1, $2)", &role).await.map_err(blame)?;
        link.keep();
        Ok(())
    }
}

/// What may hold the role's row locked after every session of it has ended: a transaction that it prepared as a role that it
/// could become. It is not ours to roll back.
async fn prepared_by_groups(link: &Link, lease: &Lease) -> Result<Option<Fault>, Fault> {
    let notes = Notes::of(lease).map_err(Fault::Refused)?;
    let (groups, owner) = (notes.groups(), notes.owner());
    let named = [(&groups as _, Type::TEXT_ARRAY), (&owner as _, Type::TEXT), (&notes.minted as _, Type::FLOAT8)];
    let sql = "select gid, database, owner from tidegate.prepared($1, $2, to_timestamp($3))";
    let mut todo = Vec::new();
    for row in &link.rows(sql, &named).await? {
        let (gid, database, owner): (&str, &str, &str) = (read(row, 0)?, read(row, 1)?, read(row, 2)?);
        todo.push(format!(
            "in database {}: rollback prepared {} (it is {}'s)",
            plain(database),
            plain(gid),
            plain(owner)
        ));
    }
    let why = format!(
        "{} is locked and so not disabled yet; what may lock it, for a superuser: {}",
        lease.name(),
        todo.join("; ")
    );
    Ok((!todo.is_empty()).then_some(Fault::Human(why)))
}

/// How often running nothing must be seen by who has only just disabled a role: a backend may have been starting up at the first look.
pub(super) const TWICE: u8 = 2;

/// Looks again and again, until nothing was seen so many times running, or until it is too late.
pub(super) struct Watch {
    quiet: u8,
    enough: u8,
    give_up: Instant,
}

impl Watch {
    /// Not beyond this moment while something is seen.
    pub(super) fn until(give_up: Instant, enough: u8) -> Self {
        Self { quiet: 0, enough, give_up }
    }

    /// After a look that saw something, or nothing: whether to look again, once a moment has passed.
    pub(super) async fn goes_on(&mut self, seen: bool) -> bool {
        self.quiet = if seen { 0 } else { self.quiet + 1 };
        let over = self.is_quiet() || seen && Instant::now() > self.give_up;
        if !over {
            sleep(if seen { SEVER_PAUSE } else { QUIET_PAUSE }).await;
        }
        !over
    }

    /// Whether nothing was seen often enough.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet >= self.enough
    }
}

/// Tells its backends to end; how many were still seen.
pub(super) async fn sever(link: &Link, name: &str, oid: u32) -> Result<i32, Fault> {
    let role = [(&name as _, Type::TEXT), (&oid as _, Type::OID)];
    read(&link.one("select tidegate.sever($1, $2)", &role).await?, 0)
}

/// In the database of this connection.
async fn clean_here(link: &Link, lease: &Lease, notes: &Notes, oid: u32) -> Result<(), Fault> {
    let name = lease.name();
    let batch = [(&name as _, Type::TEXT), (&oid as _, Type::OID), (&BATCH as _, Type::INT4)];
    if notes.drop_leftovers {
        for _ in 0..MOST_BATCHES {
            let dropped: i32 = read(&link.one("select tidegate.discard($1, $2, $3)", &batch).await?, 0)?;
            if dropped == 0 {
                return Ok(());
            }
            tracing::info!(lease = %lease.id(), role = name, dropped, "leftovers dropped");
        }
        return Err(too_much(name));
    }
    for _ in 0..MOST_BATCHES {
        let moved: i32 = read(&link.one("select tidegate.handover($1, $2, $3)", &batch).await?, 0)?;
        if moved == 0 {
            break;
        }
        tracing::info!(lease = %lease.id(), role = name, moved, "leftovers handed to the heir");
    }
    for _ in 0..MOST_BATCHES {
        let rows = link.rows("select what, item from tidegate.clean($1, $2, $3)", &batch).await?;
        let mut more = false;
        for row in &rows {
            let (what, item): (&str, &str) = (read(row, 0)?, read(row, 1)?);
            let (what, item) = (plain(what), plain(item));
            tracing::info!(lease = %lease.id(), role = name, what, item, "leftover silenced");
            match what.as_str() {
                "more" => more = true,
                // What was silenced stays so: these are answers, not errors.
                "locked" => return Err(locked(name, &item)),
                "held" => return Err(Fault::Human(format!("{name} has what cannot be handed over: {item}"))),
                _ => {}
            }
        }
        if !more {
            return Ok(());
        }
    }
    Err(too_much(name))
}

/// It owns something in a database where we do not come in.
fn shut_out(fault: Fault, name: &str, place: &str) -> Fault {
    if !fault.is_shut_out() {
        return fault;
    }
    Fault::Human(format!(
        "{name} has something in database {}, where the gateway is not let in; for a superuser, there: drop owned by {name} \
         (look first: select pg_describe_object(classid, objid, objsubid) from pg_shdepend where refobjid = '{name}'::regrole)",
        plain(place)
    ))
}

/// Another session holds a lock on it, and is not ours to end.
fn locked(name: &str, item: &str) -> Fault {
    Fault::Silent(format!(
        "what {name} left is locked by somebody; the rest is silenced, going on at the next attempt: {item}"
    ))
}

fn too_much(name: &str) -> Fault {
    Fault::Silent(format!("{name} left very much behind; going on at the next attempt"))
}

pub(super) fn blame(fault: Fault, lease: &Lease) -> TargetError {
    fault.blame(lease.target(), Step::Teardown)
}
