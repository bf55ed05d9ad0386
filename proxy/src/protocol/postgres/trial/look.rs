//! What the gateway's own login sees of a target before anything is made there: it reads, and changes nothing.

use super::{
    super::{
        Auth,
        admin::{Lane, Link, epoch, read},
        fault::{Fault, plain},
    },
    Tester, functions, privileges,
};
use crate::trial::Outcome;
use std::time::Duration;
use tidegate_grants::DatabaseName;
use tokio::{net::TcpStream, time::timeout};

/// Major versions that the functions were proven on.
const VERSIONS: std::ops::RangeInclusive<i32> = 14..=18;
/// As far as a clock may be off: certificates are good for a minute from now.
const MOST_SKEW: f64 = 3.0;
/// To connect, without TLS or log-in.
const DIAL: Duration = Duration::from_secs(5);

impl Tester<'_> {
    /// What the gateway's own login sees, before anything is made.
    pub(super) async fn look(&self) {
        match timeout(DIAL, TcpStream::connect(&self.target.address)).await {
            Ok(Ok(stream)) => {
                let from = stream.local_addr().map_or_else(|_| "?".to_owned(), |local| local.ip().to_string());
                self.notes.ok("dial", format!("{} answers; it is reached from {from}", self.target.address));
            }
            Ok(Err(error)) => return self.nobody_there(&error.to_string()),
            Err(_) => return self.nobody_there("no answer in time"),
        }
        // A connection from before would come in where nobody comes in any more.
        self.issuer.admin.forget(&self.target.name);
        let link = match self.link(self.tested.database.as_str()).await {
            Ok(link) => link,
            Err(fault) => return self.unable(fault, &self.tested.database),
        };
        self.notes.ok("host", "it proved itself by its certificate (verify-full)");
        self.notes.ok("administrator", format!("{} logs in", self.target.admin_user));
        if let Err(fault) = self.server(&link).await {
            self.failed("server", fault, Vec::new());
        }
        link.keep();
        for database in &self.reach.databases {
            if let Err(fault) = self.look_into(database).await {
                self.unable(fault, database);
            }
        }
        self.own_doors().await;
        self.unseen();
    }

    async fn link(&self, database: &str) -> Result<Link, Fault> {
        self.issuer.admin.link(&self.target.name, database, Lane::Slow).await
    }

    fn nobody_there(&self, cause: &str) {
        let next = format!(
            "is {} the right address, is PostgreSQL running there with listen_addresses set, and may the gateway reach it?",
            self.target.address
        );
        self.notes.step(
            "dial",
            Outcome::Failed,
            format!("{} cannot be reached: {}", self.target.name, plain(cause)),
            vec![next],
        );
    }

    /// Version, standby, settings, clock.
    async fn server(&self, link: &Link) -> Result<(), Fault> {
        let row = link.one(SERVER, &[]).await?;
        let (version, prepared): (i32, i32) = (read(&row, 0)?, read(&row, 1)?);
        let (major, minor) = (version / 10_000, version % 10_000);
        if VERSIONS.contains(&major) {
            self.notes.ok("version", format!("PostgreSQL {major}.{minor}"));
        } else {
            let said =
                format!("it is PostgreSQL {major}.{minor}: {} to {} are supported", VERSIONS.start(), VERSIONS.end());
            self.notes.step("version", Outcome::Open, said, vec!["use a version that is supported".to_owned()]);
        }
        if read::<bool>(&row, 3)? {
            let next = "name its primary in the configuration: admin_address = \"HOST:PORT\"".to_owned();
            self.notes.step("primary", Outcome::Failed, "it is a standby, where no role can be made", vec![next]);
        }
        let mut sound = true;
        let mut open = |said: String, next: String| {
            sound = false;
            self.notes.step("settings", Outcome::Open, said, vec![next, self.install("postgresql_conf")]);
        };
        if prepared > 0 {
            open(
                format!("max_prepared_transactions is {prepared}: a prepared transaction outlives its session"),
                self.as_superuser("alter system set max_prepared_transactions = 0;   -- and restart the server"),
            );
        }
        let encryption: String = read(&row, 2)?;
        if encryption != "scram-sha-256" {
            open(
                format!(
                    "password_encryption is {}: a password that a session sets is kept as that",
                    plain(&encryption)
                ),
                self.as_superuser("alter system set password_encryption = 'scram-sha-256'; select pg_reload_conf();"),
            );
        }
        if sound {
            self.notes.ok("settings", "max_prepared_transactions and password_encryption are as `target trust` says");
        }
        self.clock(read(&row, 4)?);
        Ok(())
    }

    fn clock(&self, theirs: f64) {
        let skew = theirs - epoch(self.issuer.now());
        if skew.abs() <= MOST_SKEW {
            return self.notes.ok("clock", format!("its clock is within {MOST_SKEW} s of the gateway's"));
        }
        let said = format!(
            "its clock differs from the gateway's by {skew:.0} s: certificates of a minute may not be valid there"
        );
        self.notes.step("clock", Outcome::Open, said, vec!["set both clocks by NTP".to_owned()]);
    }

    /// Functions and privileges of one database.
    async fn look_into(&self, database: &DatabaseName) -> Result<(), Fault> {
        let (link, admin) = (self.link(database.as_str()).await?, self.target.admin_user.as_str());
        let differences = functions::differences(&link, self.target, &self.reach).await?;
        for said in &differences {
            let said = format!("{said} (database {database})");
            self.notes.step("functions", Outcome::Open, said, vec![self.install("sql")]);
        }
        if differences.is_empty() {
            self.notes
                .ok("functions", format!("in {database} they are what was installed, and nobody else may call them"));
        }
        let surplus = privileges::surplus(&link, admin, &self.reach, database.as_str()).await?;
        let sound = surplus.is_empty();
        for surplus in surplus {
            self.notes.step("privileges", surplus.outcome, surplus.said, vec![surplus.next]);
        }
        if sound {
            self.notes.ok(
                "privileges",
                format!("in {database} {admin} can do nothing but call them, and the roles are as they were made"),
            );
        }
        link.keep();
        Ok(())
    }

    /// What only a superuser can see, or nobody.
    fn unseen(&self) {
        if matches!(self.target.auth, Auth::Scram(_)) {
            let said = "where nobody is a superuser, pg_hba.conf is the service's, and a changed password of a role that a session \
                        could become is not seen";
            let next = "where you do have one, install --part sql and --part pg_hba".to_owned();
            self.notes.step("service", Outcome::Unseen, said, vec![next]);
        }
        let mut next = vec![
            self.as_superuser("select line_number, type, database, user_name, address, auth_method, error from pg_hba_file_rules order by 1;"),
            "  its first lines must be:".to_owned(),
        ];
        next.extend(self.hba().map(|line| format!("  {line}")));
        if matches!(self.target.auth, Auth::Certificate) {
            next.push(format!(
                "the file that ssl_ca_file names must hold this and no other: `tidegate target trust {} --part ca`",
                self.target.name
            ));
        }
        let said = "the order of pg_hba.conf, and whose certificates the server takes, is for a superuser alone to see";
        self.notes.step("pg_hba", Outcome::Unseen, said, next);
    }
}

const SERVER: &str = "select current_setting('server_version_num')::int, current_setting('max_prepared_transactions')::int, \
    current_setting('password_encryption'), pg_is_in_recovery(), extract(epoch from clock_timestamp())::float8";
