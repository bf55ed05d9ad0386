//! What to install on a PostgreSQL target, printed by `tidegate target trust`.
//!
//! The functions themselves are in `schema/*.sql`, as psql scripts; here they get the names that this configuration needs.
//! Names come from strict grammars, and are quoted all the same.

use super::PostgresTarget;
use crate::trust::Part;
use std::{collections::BTreeSet, net::IpAddr};
use tidegate_grants::{DatabaseName, Policy, RoleName, Terms};

const CLUSTER: &str = include_str!("schema/cluster.sql");
const DATABASE: &str = include_str!("schema/database.sql");
/// As `tidegate_owner`, in this order: functions in SQL check what they call when they are created.
pub(super) const OWNED: [&str; 3] =
    [include_str!("schema/roles.sql"), include_str!("schema/clean.sql"), include_str!("schema/inspect.sql")];
/// What only a superuser can do.
pub(super) const SUPERUSER: &str = include_str!("schema/superuser.sql");
/// Who may call what.
pub(super) const FINISH: &str = include_str!("schema/finish.sql");
/// On every connection, first: a superuser runs this, and a session may have put a `format` of its own in `public`, which
/// would fit our arguments better than the real one.
const PREAMBLE: &str = "set search_path = pg_catalog, pg_temp;\nset client_min_messages = warning;\n";

/// Parts `ca`, `postgresql_conf`, `pg_hba`, `sql`, for all that entitlements of `policy` reach on this target.
/// `source_addresses` is what the target sees of the gateway, `ca_pem` our X.509 CA.
pub fn trust(target: &PostgresTarget, policy: &Policy, source_addresses: &[String], ca_pem: &str) -> Vec<Part> {
    let reach = Reach::of(target, policy);
    vec![
        Part {
            name: "ca",
            place: "tidegate-ca.pem in the server's data directory (readable by the server)".into(),
            text: ca_pem.to_owned(),
        },
        Part {
            name: "postgresql_conf",
            place: "postgresql.conf (restart the server where max_prepared_transactions changes)".into(),
            text: POSTGRESQL_CONF.into(),
        },
        Part {
            name: "pg_hba",
            place: "pg_hba.conf, before every other line (then: select pg_reload_conf())".into(),
            text: pg_hba(&target.admin_user, &reach.databases, source_addresses),
        },
        Part {
            name: "sql",
            place: "psql -X -f FILE, as a superuser, on the primary; again after each change of entitlements".into(),
            text: sql(&target.admin_user, &reach),
        },
    ]
}

/// What entitlements reach on one target.
#[derive(Debug, Default)]
pub(super) struct Reach {
    pub(super) databases: BTreeSet<DatabaseName>,
    pub(super) groups: BTreeSet<RoleName>,
    pub(super) owners: BTreeSet<RoleName>,
}

impl Reach {
    pub(super) fn of(target: &PostgresTarget, policy: &Policy) -> Self {
        let mut reach = Self::default();
        let Some(target) = policy.targets.get(&target.name) else { return reach };
        for entitlement in policy.entitlements.values().filter(|entitlement| entitlement.reaches(target)) {
            if let Terms::Postgres { databases, roles, owner, .. } = &entitlement.terms {
                reach.databases.extend(databases.iter().cloned());
                reach.groups.extend(roles.iter().cloned());
                reach.owners.extend(owner.clone());
            }
        }
        reach
    }
}

const POSTGRESQL_CONF: &str = "\
# tidegate: the gateway and its sessions log in with certificates of a minute. Passwords and keys of theirs do not exist.
# (ssl_cert_file and ssl_key_file, the server's own certificate, stay yours; the gateway verifies it by tls_ca.)
ssl = on
# Whoever signs for this file signs for every role that pg_hba.conf lets in by cert: keep other authorities out of it.
ssl_ca_file = 'tidegate-ca.pem'
# A session can set a password on its own role. It is worth nothing (pg_hba.conf), but no log shall hold one in the clear.
password_encryption = 'scram-sha-256'
# A prepared transaction outlives its session, and one made under SET ROLE cannot be told from the group's own.
max_prepared_transactions = 0
";

/// The administrator first: while it rolls back a prepared transaction it is a member of `tidegate_sessions` too.
fn pg_hba(admin: &str, databases: &BTreeSet<DatabaseName>, source_addresses: &[String]) -> String {
    let admin = hba_quoted(admin);
    let names: Vec<String> = databases.iter().map(|name| hba_quoted(name.as_str())).collect();
    let names = names.join(",");
    let mut text = String::from(
        "# tidegate: first of all lines, in this order. The first line that matches a connection decides.\n\
         # Databases are named: else a session could leave a large object in template1, for every new database to inherit.\n",
    );
    let sources: Vec<String> = source_addresses.iter().filter_map(|source| network(source)).collect();
    if names.is_empty() || sources.is_empty() {
        text.push_str("# No entitlement reaches this target, or source_addresses is empty: nobody is let in.\n");
    } else {
        text.push_str("# The gateway's own login, which may only call functions; then the roles of its sessions.\n");
        for source in &sources {
            text.push_str(&format!("hostssl {names} {admin} {source} cert\n"));
        }
        for source in &sources {
            text.push_str(&format!("hostssl {names} +tidegate_sessions {source} cert\n"));
        }
    }
    text.push_str(&format!(
        "# Not from elsewhere and not by another method: a role can set its own password, and would else come in past the\n\
         # gateway through a later line.\n\
         host all {admin} all reject\nlocal all {admin} reject\n\
         host all +tidegate_sessions all reject\nlocal all +tidegate_sessions reject\n"
    ));
    text
}

/// One address as a network of one.
fn network(source: &str) -> Option<String> {
    match source.parse().ok()? {
        IpAddr::V4(address) => Some(format!("{address}/32")),
        IpAddr::V6(address) => Some(format!("{address}/128")),
    }
}

fn sql(admin: &str, reach: &Reach) -> String {
    let mut text = format!(
        "-- tidegate: what the gateway needs on this server. For a superuser, with psql; installs, upgrades, and may run again.\n\
         \\set ON_ERROR_STOP on\n\\set QUIET on\n{PREAMBLE}\
         \\set admin {}\n\\set groups {}\n\\set owners {}\n",
        psql_quoted(admin),
        psql_quoted(&text_array(&reach.groups)),
        psql_quoted(&text_array(&reach.owners)),
    );
    for name in ["group_query", "owner_query"] {
        let query = variable(name, reach).unwrap_or_default();
        text.push_str(&format!("\\set {name} {}\n", psql_quoted(&query)));
    }
    text.push_str(&format!("\nbegin;\n{CLUSTER}commit;\n"));
    for database in &reach.databases {
        let conninfo = psql_quoted(&format!("dbname={}", conninfo_quoted(database.as_str())));
        text.push_str(&format!(
            "\n\\connect -reuse-previous=on {conninfo}\n{PREAMBLE}begin;\n{DATABASE}\n{}\nreset role;\n\
             {SUPERUSER}\n{FINISH}commit;\n",
            OWNED.join("\n")
        ));
    }
    text
}

/// A variable that becomes the body of a function.
pub(super) fn variable(name: &str, reach: &Reach) -> Option<String> {
    let names = match name {
        "group_query" => &reach.groups,
        "owner_query" => &reach.owners,
        _ => return None,
    };
    Some(format!("select {}", text_array(names)))
}

/// An array of literals.
fn text_array(names: &BTreeSet<RoleName>) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("'{}'", name.as_str().replace('\'', "''"))).collect();
    format!("array[{}]::text[]", names.join(", "))
}

/// An argument of a psql command in single quotes: backslashes escape there.
fn psql_quoted(text: &str) -> String {
    let plain = text.chars().filter(|c| !c.is_control()).collect::<String>();
    format!("'{}'", plain.replace('\\', "\\\\").replace('\'', "''"))
}

/// A value of a connection string in single quotes.
fn conninfo_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A name in `pg_hba.conf`: in quotes, `all` and `replication` are names like others.
fn hba_quoted(name: &str) -> String {
    let plain = name.chars().filter(|c| !c.is_control()).collect::<String>();
    format!("\"{}\"", plain.replace('"', "\"\""))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(databases: &[&str], sources: &[&str]) -> Vec<String> {
        let databases = databases.iter().map(|name| name.parse().unwrap()).collect();
        let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
        let text = pg_hba("tidegate", &databases, &sources);
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn everybody_but_the_gateway_is_rejected_after_the_lines_that_let_it_in() {
        assert_eq!(
            lines(&["shop", "all"], &["10.0.0.5", "fd00::5"]),
            [
                "hostssl \"all\",\"shop\" \"tidegate\" 10.0.0.5/32 cert",
                "hostssl \"all\",\"shop\" \"tidegate\" fd00::5/128 cert",
                "hostssl \"all\",\"shop\" +tidegate_sessions 10.0.0.5/32 cert",
                "hostssl \"all\",\"shop\" +tidegate_sessions fd00::5/128 cert",
                "host all \"tidegate\" all reject",
                "local all \"tidegate\" reject",
                "host all +tidegate_sessions all reject",
                "local all +tidegate_sessions reject",
            ]
        );
    }

    #[test]
    fn without_databases_or_addresses_nobody_is_let_in() {
        for lines in [lines(&[], &["10.0.0.5"]), lines(&["shop"], &[]), lines(&["shop"], &["0.0.0.0/0", "all"])] {
            assert!(lines.iter().all(|line| line.ends_with("reject")), "{lines:?}");
        }
    }

    /// As psql reads an argument in single quotes.
    fn psql_reads(quoted: &str) -> Option<String> {
        let mut rest = quoted.strip_prefix('\'')?.chars().peekable();
        let mut value = String::new();
        loop {
            match rest.next()? {
                '\'' if rest.peek() == Some(&'\'') => value.push(rest.next()?),
                '\'' => return rest.next().is_none().then_some(value),
                '\\' => value.push(rest.next()?),
                c => value.push(c),
            }
        }
    }

    #[test]
    fn every_connection_starts_without_the_search_path_of_anybody_else() {
        let databases = ["shop", "stock"].map(|name| name.parse().unwrap()).into();
        let text = sql("tidegate", &Reach { databases, ..Reach::default() });
        for connection in text.split("\\connect ") {
            let first = connection.lines().skip(1).find(|line| !line.starts_with(['-', '\\']));
            assert_eq!(first, Some("set search_path = pg_catalog, pg_temp;"));
        }
    }

    proptest! {
        #[test]
        fn a_quoted_argument_is_one_argument(text in "[ -~]{0,40}") {
            prop_assert_eq!(psql_reads(&psql_quoted(&text)), Some(text));
        }

        #[test]
        fn a_quoted_name_stays_on_its_line_and_in_its_quotes(name in any::<String>()) {
            let quoted = hba_quoted(&name);
            prop_assert!(!quoted.contains('\n') && !quoted.contains('\r'));
            let inside = quoted.strip_prefix('"').and_then(|q| q.strip_suffix('"')).unwrap();
            prop_assert!(!inside.replace("\"\"", "").contains('"'));
        }
    }
}
