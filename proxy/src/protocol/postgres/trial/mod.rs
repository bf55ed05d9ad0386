//! `tidegate target test` for a PostgreSQL target: a session that nobody sits at, from the permit to the receipt.
//!
//! What always holds: it goes the way of every session (recording, lease before effect, teardown, receipt). What is looked at
//! before the role exists changes nothing there: the gateway's own login reads catalogs. What only a superuser can see is
//! named with the SQL that shows it, and nothing that a server says becomes part of a command that an admin is told to run.

mod functions;
mod look;
mod past;
mod privileges;
mod unable;

use super::{
    Auth, PostgresTarget,
    admin::read,
    client::note_connected,
    fault::{Fault, Step, plain},
    issuer::{PostgresIssuer, RoleCredential, random_password, verifier},
    quoted::ident,
    startup::{Version, start_packet},
    target::{self, Link},
    trust::Reach,
};
use crate::{
    gate::Gate,
    issuer::TargetError,
    refusal::Refusal,
    session::{self, Client, Ending, Way},
    trial::{Notes, Outcome, Report, conclude},
    trust::Part,
};
use past::{Door, Tried};
use secrecy::{ExposeSecret as _, SecretString};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};
use tidegate_grants::{
    Access, Ask, DatabaseName, Device, EntitlementName, IdentityName, Reference, TargetName, authority::GrantError,
};

/// SQLSTATE `read_only_sql_transaction`.
const READ_ONLY: &str = "25006";

/// What to test, and what was to be installed there.
#[derive(Debug)]
pub struct Tested {
    /// Where.
    pub target: TargetName,
    /// Which database.
    pub database: DatabaseName,
    /// On which terms; needed where several entitlements open the database on different ones.
    pub entitlement: Option<EntitlementName>,
    /// What the target sees of the gateway.
    pub source_addresses: Vec<String>,
    /// What `target trust` prints.
    pub parts: Vec<Part>,
}

/// Runs the test on the word of an admin. The report says what was found; an error, that it did not begin.
///
/// # Errors
/// [`GrantError`]: not an admin, no such target, or no such database there.
pub async fn trial(
    gate: &Gate,
    issuer: &PostgresIssuer,
    by: &IdentityName,
    tested: Tested,
) -> Result<Report, GrantError> {
    let (identity, access) = (by.clone(), Access::Database(tested.database.clone()));
    let (name, entitlement) = (tested.target.clone(), tested.entitlement.clone());
    let (source, reference) = (IpAddr::V4(Ipv4Addr::LOCALHOST), Reference::new());
    let (factor, device) = (None, Device::default());
    let ask = Ask { identity, target: name.clone(), access, entitlement, source, factor, device, reference };
    let permit = gate.authority.permit_trial(ask.clone(), gate.now()).await?;
    let target = &*issuer.admin.target(&name).map_err(|error| GrantError::NotFound(error.to_string()))?;
    let (session, notes) = (permit.session(), Notes::new(name, ask.access.clone()));
    notes.session(session);
    notes.ok("permit", format!("on the word of {by}, until {}; it carries nothing of anybody", permit.expires()));
    let reach = Reach::of(target, &gate.authority.policy());
    let tester = Tester { issuer, target, ask, tested, reach, notes: notes.clone() };
    tester.look().await;
    session::hold(gate, issuer, tester, permit).await;
    conclude(gate, session, &notes).await;
    Ok(notes.report())
}

/// The client of that session.
struct Tester<'a> {
    issuer: &'a PostgresIssuer,
    target: &'a PostgresTarget,
    ask: Ask,
    tested: Tested,
    reach: Reach,
    notes: Notes,
}

/// A way past the gate.
struct WayIn {
    said: String,
    /// Whoever takes passwords for sessions cannot shut it.
    inherent: bool,
}

/// What the relay needs of the log-in.
struct LoggedIn {
    link: Link,
    credential: RoleCredential,
}

impl Client for Tester<'_> {
    type Issuer = PostgresIssuer;
    type Target = LoggedIn;
    const PROTOCOL: &'static str = "postgres";

    fn ask(&self) -> &Ask {
        &self.ask
    }

    async fn refuse(self, refusal: Refusal) {
        self.notes.step("permit", Outcome::Failed, refusal.sentence, refusal.next.into_iter().collect());
    }

    async fn connect(
        &self,
        credential: RoleCredential,
        way: &Way<'_, PostgresIssuer>,
    ) -> Result<LoggedIn, TargetError> {
        self.notes.ok("mint", format!("the role {} was made, and is noted in the lease", credential.role));
        let names = [("user", credential.role.as_str()), ("database", self.tested.database.as_str())];
        let settings = credential.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let packet = start_packet(Version::OLDEST, names.into_iter().chain(settings))
            .map_err(|error| TargetError::Ours(error.to_string()))?;
        let link = target::connect(self.target, &credential, &packet).await.inspect_err(|error| {
            let next = vec![self.install("pg_hba"), self.install("ca"), self.as_superuser(&self.log())];
            self.notes.step("login", Outcome::Failed, plain(&error.to_string()), next);
        })?;
        self.notes.ok("login", format!("it is let into {}", self.tested.database));
        note_connected(way, &credential.role, self.target, &link).await?;
        Ok(LoggedIn { link, credential })
    }

    async fn relay(&mut self, LoggedIn { link, credential }: LoggedIn, way: &Way<'_, PostgresIssuer>) -> Ending {
        // The role may be allowed one connection only, and it is wanted for what comes now.
        drop(link);
        match self.within(&credential).await {
            Ok(()) => self.past_the_gate(&credential).await,
            Err(fault) => self.failed("session", fault, Vec::new()),
        }
        self.notes.record(way.recording, way.gate.now());
        Ending::Closed
    }

    async fn part(self, ending: &Ending) {
        match ending {
            Ending::Closed => {}
            // The step that failed has said so, or nobody has yet.
            Ending::Failed(error) => self.notes.unless_failed("mint", plain(&error.to_string())),
            Ending::Cut(refusal) => {
                self.notes.step("session", Outcome::Failed, format!("cut: {}", refusal.sentence), Vec::new());
            }
        }
    }
}

impl Tester<'_> {
    /// As the role: that it is what it should be, and a password that it sets on itself.
    async fn within(&self, credential: &RoleCredential) -> Result<(), Fault> {
        let client = self.enter(credential).await?;
        let row = client.query_typed(WITHIN, &[]).await.map_err(|error| Fault::of(&error))?;
        let row = row.first().ok_or_else(|| Fault::Refused("it answered without a row".into()))?;
        let (session, current): (String, String) = (read(row, 0)?, read(row, 1)?);
        let expected = credential.settings.get("role").unwrap_or(&credential.role);
        if session != credential.role || current != *expected {
            let said = format!(
                "the session works as {} (logged in as {}), not as {expected}",
                plain(&current),
                plain(&session)
            );
            self.notes.step("session", Outcome::Failed, said, vec![self.install("sql")]);
        } else {
            self.notes.ok("session", format!("it works as {current}, over TLS"));
        }
        let seen: String = read(row, 2)?;
        if !self.tested.source_addresses.contains(&seen) {
            let said = format!("it sees the gateway come from {}, which is not among source_addresses", plain(&seen));
            let next = format!("correct gateway.source_addresses, and {}", self.install("pg_hba"));
            self.notes.step("session", Outcome::Open, said, vec![next]);
        }
        Ok(())
    }

    /// A connection as the role. What was dropped a moment ago may still count against its limit.
    async fn enter(&self, credential: &RoleCredential) -> Result<tokio_postgres::Client, Fault> {
        let settings: Vec<String> =
            credential.settings.iter().map(|(name, value)| format!("-c {name}={value}")).collect();
        let door = Door {
            target: self.target,
            user: &credential.role,
            database: self.tested.database.as_str(),
            tls: Some(credential.tls.clone()),
            password: credential.password.as_ref().map(|password| password.expose_secret()),
            options: settings.join(" "),
        };
        for _ in 0..20 {
            match door.enter().await {
                Err(Fault::Sql { code, .. }) if code == "53300" => tokio::time::sleep(Duration::from_millis(100)).await,
                other => return other,
            }
        }
        door.enter().await
    }

    /// Sets a password as a session can, and tries every way in with it.
    async fn past_the_gate(&self, credential: &RoleCredential) {
        let password = match self.own_password(credential).await {
            Ok(password) => password,
            Err(fault) => return self.failed("past the gate", fault, Vec::new()),
        };
        let (mut shut, mut unknown) = (0u32, Vec::new());
        let before = self.notes.report().steps.len();
        for (way, door) in self.doors(credential, password.expose_secret()) {
            match door.attempt().await {
                Tried::Open => self.open(way),
                Tried::Shut => shut += 1,
                Tried::Unknown(cause) => unknown.push(format!("{}: {cause}", way.said)),
            }
        }
        if !unknown.is_empty() {
            self.notes.step("past the gate", Outcome::Unseen, "not every way could be tried", unknown);
        }
        if self.notes.report().steps.len() == before {
            let said = format!(
                "{shut} ways were tried with a password that the role set itself and with its certificate, and all refused"
            );
            self.notes.ok("past the gate", said);
        }
    }

    /// A random password, set as any role may set its own; as a verifier, so that no log holds it.
    async fn own_password(&self, credential: &RoleCredential) -> Result<SecretString, Fault> {
        let password = random_password().map_err(|error| Fault::Refused(error.to_string()))?;
        let client = self.enter(credential).await?;
        let set = format!("set role none; alter role {} password '{}'", ident(&credential.role), verifier(&password));
        match client.batch_execute(&set).await.map_err(|error| Fault::of(&error)) {
            // A replica: nobody sets a password there. The ways in are tried all the same.
            Err(Fault::Sql { code, .. }) if code == READ_ONLY => Ok(password),
            set => set.map(|()| password),
        }
    }

    /// A session came in past the gate.
    fn open(&self, way: WayIn) {
        let said = format!("a session can log in past the gate: {}", way.said);
        let (outcome, next) = match (&self.target.auth, way.inherent) {
            (Auth::Scram(_), true) => (
                Outcome::Weak,
                vec!["auth = \"scram\" cannot shut this; its teardown takes password and role. auth = \"cert\" does".to_owned()],
            ),
            _ => (
                Outcome::Open,
                vec![
                    "those lines must stand before every other line of pg_hba.conf".to_owned(),
                    self.install("pg_hba"),
                    "where pg_hba.conf is a service's: have it take TLS alone, and revoke CONNECT on that database from PUBLIC".to_owned(),
                ],
            ),
        };
        let next =
            if matches!(self.target.auth, Auth::Certificate) { next.into_iter().take(2).collect() } else { next };
        self.notes.step("past the gate", outcome, said, next);
    }

    /// Ways in that a session could try.
    fn doors<'d>(&'d self, credential: &'d RoleCredential, password: &'d str) -> Vec<(WayIn, Door<'d>)> {
        let door = |database, tls| Door {
            target: self.target,
            user: &credential.role,
            database,
            tls,
            password: Some(password),
            options: String::new(),
        };
        let (here, mut doors) = (self.tested.database.as_str(), Vec::new());
        let way = |said: String, inherent| WayIn { said, inherent };
        if let Ok(tls) = self.target.tls(None) {
            doors.push((way(format!("by password over TLS, into {here}"), true), door(here, Some(Arc::new(tls)))));
        }
        doors.push((way(format!("by password without TLS, into {here}"), false), door(here, None)));
        for other in ["postgres", "template1"] {
            if self.reach.databases.iter().all(|database| database.as_str() != other) {
                let said = format!("with its certificate or password, into {other}, which no entitlement names");
                doors.push((way(said, false), door(other, Some(credential.tls.clone()))));
            }
        }
        doors
    }

    fn failed(&self, step: &str, fault: Fault, next: Vec<String>) {
        let said = fault.blame(&self.target.name, Step::Mint).to_string();
        self.notes.step(step, Outcome::Failed, plain(&said), next);
    }

    fn install(&self, part: &str) -> String {
        format!("install `tidegate target trust {} --part {part}` there", self.target.name)
    }

    fn as_superuser(&self, sql: &str) -> String {
        format!("as a superuser there: {sql}")
    }

    fn log(&self) -> String {
        "select pg_current_logfile();   -- the server's log says why it refused".to_owned()
    }
}

const WITHIN: &str = "select session_user::text, current_user::text, coalesce(host(inet_client_addr()), '')";
