//! The gateway's own login on a target: why it does not come in, and whether anybody else could come in as it.

use super::{
    super::{
        Auth,
        admin::SCHEMA,
        fault::{Fault, plain},
        issuer::random_password,
    },
    Tester,
    past::{Door, Tried},
};
use crate::trial::Outcome;
use secrecy::ExposeSecret as _;
use std::sync::Arc;
use tidegate_grants::DatabaseName;

/// A name that no role has: nobody may come in by a certificate of it.
const NOBODY: &str = "tidegate_nobody";

impl Tester<'_> {
    /// Says why the gateway's own login could do nothing in this database.
    pub(super) fn unable(&self, fault: Fault, database: &DatabaseName) {
        let (step, next) = self.remedy(&fault, database);
        let said = match &fault {
            Fault::Sql { code, .. } if code == "3F000" => {
                format!(
                    "there is no schema tidegate in database {database}: our functions were not installed there, or dropped"
                )
            }
            Fault::Sql { code, message } if code == "42883" => {
                format!("the functions in database {database} are not those of this gateway: {}", plain(message))
            }
            Fault::Outdated(version) => {
                format!(
                    "the functions in database {database} are of version {version}, and this gateway calls version {SCHEMA}"
                )
            }
            Fault::Sql { code, .. } if code == "3D000" => {
                format!("there is no database {database}, which an entitlement names")
            }
            Fault::Refused(cause) => format!("{} refused the gateway's own login: {cause}", self.target.name),
            Fault::Sql { code, message } if code.starts_with("28") => {
                format!("{} refused the gateway's own login: {} (SQLSTATE {code})", self.target.name, plain(message))
            }
            _ => return self.failed(step, fault, next),
        };
        self.notes.step(step, Outcome::Failed, said, next);
    }

    fn remedy(&self, fault: &Fault, database: &DatabaseName) -> (&'static str, Vec<String>) {
        match fault {
            Fault::Impostor(_) => (
                "host",
                vec![
                    format!(
                        "tls_ca of target {} must hold the CA of the server's certificate, and the certificate must name the host of its address",
                        self.target.name
                    ),
                    "if neither was changed: somebody may stand between; nothing was sent".to_owned(),
                ],
            ),
            Fault::Outdated(_) => ("functions", vec![self.install("sql")]),
            Fault::Sql { code, .. } if ["3F000", "42883", "42501"].contains(&code.as_str()) => {
                ("functions", vec![self.install("sql")])
            }
            Fault::Sql { code, .. } if code == "3D000" => (
                "functions",
                vec![
                    format!("create it and {}, or correct the entitlement", self.install("sql")),
                    format!("databases = [… without {database}]"),
                ],
            ),
            Fault::Sql { code, .. } if code.starts_with("28") => {
                ("administrator", vec![self.install("pg_hba"), self.install("sql"), self.as_superuser(&self.log())])
            }
            Fault::Refused(_) => {
                ("administrator", vec![self.install("pg_hba"), self.install("ca"), self.as_superuser(&self.log())])
            }
            Fault::Silent(_) | Fault::Human(_) | Fault::Sql { .. } => {
                ("administrator", vec![self.as_superuser(&self.log())])
            }
        }
    }

    /// Tries to come in as the gateway's own login with what the gateway itself would never show.
    pub(super) async fn own_doors(&self) {
        let (mut shut, mut unknown, admin) = (0u32, Vec::new(), self.target.admin_user.as_str());
        let Ok(password) = random_password() else { return };
        let database = self.tested.database.as_str();
        let door = |tls| {
            let password = Some(password.expose_secret());
            Door { target: self.target, user: admin, database, tls, password, options: String::new() }
        };
        let mut doors = vec![("without TLS, by any password", door(None))];
        if let Ok(tls) = self.target.tls(None) {
            doors.push(("without a certificate, by any password", door(Some(Arc::new(tls)))));
        }
        let wrong = self.issuer.admin.certificate(NOBODY).ok().and_then(|shown| self.target.tls(Some(shown)).ok());
        if let (Some(tls), Auth::Certificate) = (wrong, &self.target.auth) {
            doors.push(("with a certificate of another name", door(Some(Arc::new(tls)))));
        }
        for (way, door) in doors {
            match door.attempt().await {
                Tried::Open => self.own_door_is_open(way),
                Tried::Shut => shut += 1,
                Tried::Unknown(cause) => unknown.push(format!("{way}: {cause}")),
            }
        }
        if !unknown.is_empty() {
            self.notes.step(
                "own door",
                Outcome::Unseen,
                format!("not every way in as {admin} could be tried"),
                unknown,
            );
        } else if shut > 0 && !self.notes.has("own door") {
            self.notes
                .ok("own door", format!("nobody comes in as {admin} in any of the {shut} other ways that were tried"));
        }
    }

    fn own_door_is_open(&self, way: &str) {
        let (admin, database) = (&self.target.admin_user, &self.tested.database);
        let said = format!("whoever reaches {} comes in as {admin} {way}", self.target.name);
        let first = self.hba().find(|line| line.contains(&format!("\"{admin}\""))).unwrap_or_default();
        let next = vec![
            format!("a line of its pg_hba.conf that lets in without proof (trust, as a rule) stands before this one: {first}"),
            self.as_superuser(&format!(
                "select line_number, type, database, user_name, address, auth_method, options from pg_hba_file_rules where \
                 auth_method not in ('cert', 'reject', 'scram-sha-256') order by 1;   -- what lets {admin} into {database}"
            )),
            self.install("pg_hba"),
        ];
        self.notes.step("own door", Outcome::Open, said, next);
    }

    /// The lines that should be first in `pg_hba.conf`.
    pub(super) fn hba(&self) -> impl Iterator<Item = &str> {
        let lines = self.tested.parts.iter().filter(|part| part.name == "pg_hba").flat_map(|part| part.text.lines());
        lines.filter(|line| !line.starts_with('#'))
    }
}
