//! What to install on a PostgreSQL target, printed by `tidegate target trust`.
//!
//! The functions themselves are in `schema/*.sql`, as psql scripts; here they get the names that this configuration needs.
//! Names come from strict grammars, and are quoted all the same.

use super::{
    Auth, PostgresTarget,
    issuer::verifier,
    quoted::{conninfo_value, hba_name, psql_argument, text_array},
};
use crate::trust::Part;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use tidegate_grants::{DatabaseName, Policy, RoleName, TargetName, Terms};

const CLUSTER: &str = include_str!("schema/cluster.sql");
const DATABASE: &str = include_str!("schema/database.sql");
/// As `tidegate_owner`, in this order: functions in SQL check what they call when they are created.
pub(super) const OWNED: [&str; 4] = [
    include_str!("schema/roles.sql"),
    include_str!("schema/clean.sql"),
    include_str!("schema/silence.sql"),
    include_str!("schema/inspect.sql"),
];
/// What only a superuser can do.
pub(super) const SUPERUSER: &str = include_str!("schema/superuser.sql");
/// Who may call what.
pub(super) const FINISH: &str = include_str!("schema/finish.sql");
/// What a superuser would do, as far as a role with CREATEROLE can.
pub(super) const MANAGED: &str = include_str!("schema/managed.sql");
const REMOVE_CHECK: &str = include_str!("schema/remove_check.sql");
const REMOVE_DATABASE: &str = include_str!("schema/remove_database.sql");
const REMOVE_CLUSTER: &str = include_str!("schema/remove_cluster.sql");
/// On every connection, first: a superuser runs this, and a session may have put a `format` of its own in `public`, which
/// would fit our arguments better than the real one.
const PREAMBLE: &str = "set search_path = pg_catalog, pg_temp;\nset client_min_messages = warning;\n";

/// Parts `ca`, `postgresql_conf`, `pg_hba`, `sql`, for all that entitlements of `policy` reach on this target; where passwords
/// are used no `ca`, but `sql_managed`. `source_addresses` is what the target sees of the gateway, `ca_pem` our X.509 CA.
pub fn trust(target: &PostgresTarget, policy: &Policy, source_addresses: &[String], ca_pem: &str) -> Vec<Part> {
    let reach = Reach::of(target, policy);
    let certificate = matches!(target.auth, Auth::Certificate);
    let part = |name, place: &str, text| Part { name, place: place.to_owned(), text };
    let conf = if certificate { CONF_OF_CERTIFICATES } else { "" };
    let mut parts = vec![
        part(
            "postgresql_conf",
            "postgresql.conf (restart the server where max_prepared_transactions changes)",
            format!("{conf}{CONF}"),
        ),
        part(
            "pg_hba",
            "pg_hba.conf, before every other line (then: select pg_reload_conf())",
            pg_hba(target, &reach.databases, source_addresses),
        ),
        part(
            "sql",
            "psql -X -f FILE, as a superuser, on the primary; again after each change of entitlements",
            sql(target, &reach, Installer::Superuser),
        ),
        part(
            "sql_remove",
            "psql -X -f FILE, as whoever installed it, to take all of it away again",
            sql_remove(target, &reach),
        ),
    ];
    if certificate {
        let place = "tidegate-ca.pem in the server's data directory (readable by the server)";
        parts.insert(0, part("ca", place, ca_pem.to_owned()));
    } else {
        let place = "psql -X -f FILE, instead of sql and pg_hba where nobody is a superuser: as the role with CREATEROLE \
                     that the service gave you, on the primary; again after each change of entitlements";
        parts.push(part("sql_managed", place, sql(target, &reach, Installer::Managed)));
    }
    parts
}

/// Who runs the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Installer {
    Superuser,
    /// A role with CREATEROLE, of a managed service.
    Managed,
}

/// The databases that have our functions, by target: those that entitlements of `policy` reach.
pub fn databases(
    targets: &BTreeMap<TargetName, PostgresTarget>,
    policy: &Policy,
) -> BTreeMap<TargetName, BTreeSet<DatabaseName>> {
    targets.values().map(|target| (target.name.clone(), Reach::of(target, policy).databases)).collect()
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

const CONF_OF_CERTIFICATES: &str = "\
# tidegate: the gateway and its sessions log in with certificates of a minute. Passwords and keys of theirs do not exist.
# (ssl_cert_file and ssl_key_file, the server's own certificate, stay yours; the gateway verifies it by tls_ca.)
# Whoever signs for this file signs for every role that pg_hba.conf lets in by cert: keep other authorities out of it.
ssl_ca_file = 'tidegate-ca.pem'
";
const CONF: &str = "\
# The gateway connects over TLS alone.
ssl = on
# A session can set a password on its own role: no log shall hold one in the clear.
password_encryption = 'scram-sha-256'
# A prepared transaction outlives its session, and one made under SET ROLE cannot be told from the group's own.
max_prepared_transactions = 0
";

/// The administrator first: while it rolls back a prepared transaction it is a member of `tidegate_sessions` too.
fn pg_hba(target: &PostgresTarget, databases: &BTreeSet<DatabaseName>, source_addresses: &[String]) -> String {
    let admin = hba_name(&target.admin_user);
    let method = match target.auth {
        Auth::Certificate => "cert",
        Auth::Scram(_) => "scram-sha-256",
    };
    let names: Vec<String> = databases.iter().map(|name| hba_name(name.as_str())).collect();
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
            text.push_str(&format!("hostssl {names} {admin} {source} {method}\n"));
        }
        for source in &sources {
            text.push_str(&format!("hostssl {names} +tidegate_sessions {source} {method}\n"));
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

fn sql(target: &PostgresTarget, reach: &Reach, installer: Installer) -> String {
    let (header, harmless) = match installer {
        Installer::Superuser => (FOR_A_SUPERUSER, "nocreatedb noreplication nobypassrls"),
        Installer::Managed => (FOR_A_MASTER, ""),
    };
    let password = match &target.auth {
        Auth::Certificate => "null".to_owned(),
        // Base64, digits and `$:`: nothing in it ends a literal.
        Auth::Scram(password) => format!("'{}'", verifier(password)),
    };
    let mut text = format!("{header}\\set ON_ERROR_STOP on\n\\set QUIET on\n{PREAMBLE}");
    for (name, value) in [
        ("admin", target.admin_user.clone()),
        ("admin_password", password),
        ("harmless", harmless.to_owned()),
        ("groups", text_array(reach.groups.iter().map(RoleName::as_str))),
        ("owners", text_array(reach.owners.iter().map(RoleName::as_str))),
        ("group_query", variable("group_query", reach).unwrap_or_default()),
        ("owner_query", variable("owner_query", reach).unwrap_or_default()),
    ] {
        text.push_str(&format!("\\set {name} {}\n", psql_argument(&value)));
    }
    text.push_str(&format!("\nbegin;\n{CLUSTER}commit;\n"));
    let (joins, leaves, helpers) = match installer {
        Installer::Superuser => ("", "", format!("\nreset role;\n{SUPERUSER}\n")),
        Installer::Managed => (JOIN, LEAVE, format!("{MANAGED}\nreset role;\n")),
    };
    text.push_str(joins);
    for database in &reach.databases {
        let (begun, owned) = (begun_in(database), OWNED.join("\n"));
        text.push_str(&format!("{begun}{DATABASE}\n{owned}\n{helpers}{FINISH}commit;\n"));
    }
    text.push_str(leaves);
    text
}

/// Everything that the other scripts made, in the reverse order; nothing while a session's role or an heir is left.
fn sql_remove(target: &PostgresTarget, reach: &Reach) -> String {
    let mut text = format!(
        "{REMOVAL}\\set ON_ERROR_STOP on\n\\set QUIET on\n{PREAMBLE}\\set admin {}\n\\set databases {}\n\nbegin;\n{REMOVE_CHECK}\
         {SHUT}commit;\n",
        psql_argument(&target.admin_user),
        psql_argument(&text_array(reach.databases.iter().map(DatabaseName::as_str))),
    );
    for (number, database) in reach.databases.iter().enumerate() {
        let again = if number == 0 { REMOVE_CHECK } else { "" };
        text.push_str(&format!("{}{again}{REMOVE_DATABASE}commit;\n", begun_in(database)));
    }
    text.push_str(&format!("\nbegin;\n{REMOVE_CLUSTER}commit;\n\\echo {}\n", psql_argument(REMOVED)));
    text
}

/// The beginning of a transaction in this database.
fn begun_in(database: &DatabaseName) -> String {
    let conninfo = psql_argument(&format!("dbname={}", conninfo_value(database.as_str())));
    format!("\n\\connect -reuse-previous=on {conninfo}\n{PREAMBLE}begin;\n")
}

const REMOVAL: &str = "\
-- tidegate: takes away what `--part sql` (or sql_managed) installed on this server. Run it as whoever installed it. It stops
-- before it changes anything while roles of sessions, or heirs of what sessions left behind, are still there, and names them.
";
/// The gateway's login makes no new role while its functions go.
const SHUT: &str = "\
select format('alter role %I nologin', rolname) from pg_roles where rolname = :'admin'
\\gexec
select pg_terminate_backend(pid) from pg_stat_activity where usename = :'admin' and pg_has_role(usename, 'usage')
\\g /dev/null
-- What tidegate_owner owns, only its members drop. The membership goes with it.
select format('grant tidegate_owner to %I', current_user)
       || case when current_setting('server_version_num')::int >= 160000 then ' with inherit true, set true' else '' end
  from pg_roles where rolname = 'tidegate_owner' and not pg_has_role(oid, 'usage')
\\gexec
";
const REMOVED: &str = "removed. Now take the lines between `# tidegate` and the last `reject` out of pg_hba.conf, ssl_ca_file of ours \
                       out of postgresql.conf, and reload; then the [[target]] out of tidegate.toml.";

const FOR_A_SUPERUSER: &str = "\
-- tidegate: what the gateway needs on this server. For a superuser, with psql; installs, upgrades, and may run again.
";
const FOR_A_MASTER: &str = "\
-- tidegate: what the gateway needs on a managed server, where nobody is a superuser. For the role with CREATEROLE that the
-- service gave you, with psql; installs, upgrades, and may run again. It needs CREATE on each database, and from PostgreSQL 16
-- on ADMIN OPTION on each role that an entitlement names. What is weaker than with a superuser, and shown by `target test`:
--   * Before 16 CREATEROLE reaches every role that is no superuser: tidegate_owner too. Its functions take no other names than
--     those below, but whoever could replace them would have all of that.
--   * pg_hba.conf is the service's: a session can set itself a password and log in past the gate, until its teardown.
--   * What other owners granted to a session's role only they can take back; a changed password of a role that a session could
--     become is not seen. Then the role stays disabled, and the lease is held with the reason.
";
/// The functions belong to `tidegate_owner`, so who installs becomes a member for that long.
const JOIN: &str = "\
select format('grant tidegate_owner to %I', current_user)
       || case when current_setting('server_version_num')::int >= 160000 then ' with inherit true, set true' else '' end
\\gexec
";
const LEAVE: &str = "\
select format('revoke tidegate_owner from %I', current_user)
\\gexec
";

/// A variable that becomes the body of a function.
pub(super) fn variable(name: &str, reach: &Reach) -> Option<String> {
    let names = match name {
        "group_query" => &reach.groups,
        "owner_query" => &reach.owners,
        _ => return None,
    };
    Some(format!("select {}", text_array(names.iter().map(RoleName::as_str))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn target(auth: Auth) -> PostgresTarget {
        PostgresTarget {
            admin_address: None,
            name: "orders".parse().unwrap(),
            address: "127.0.0.1:5432".into(),
            roots: std::sync::Arc::new(rustls::RootCertStore::empty()),
            admin_user: "tidegate".into(),
            auth,
        }
    }

    fn lines(databases: &[&str], sources: &[&str]) -> Vec<String> {
        let databases = databases.iter().map(|name| name.parse().unwrap()).collect();
        let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
        let text = pg_hba(&target(Auth::Certificate), &databases, &sources);
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

    #[test]
    fn every_connection_starts_without_the_search_path_of_anybody_else() {
        let databases = ["shop", "stock"].map(|name| name.parse().unwrap()).into();
        let reach = Reach { databases, ..Reach::default() };
        for installer in [Installer::Superuser, Installer::Managed] {
            let text = sql(&target(Auth::Certificate), &reach, installer);
            for connection in text.split("\\connect ") {
                let first = connection.lines().skip(1).find(|line| !line.starts_with(['-', '\\']));
                assert_eq!(first, Some("set search_path = pg_catalog, pg_temp;"));
            }
        }
    }

    #[test]
    fn a_password_is_printed_as_its_verifier_and_needs_no_authority_of_ours() {
        let secret = "a password of the gateway's own";
        let target = target(Auth::Scram(secret.to_owned().into()));
        let policy = Policy {
            gateway: "gate".into(),
            node: "a".into(),
            config: String::new(),
            identities: Default::default(),
            targets: Default::default(),
            entitlements: Default::default(),
            issuers: Default::default(),
            admins: BTreeSet::new(),
            auditors: BTreeSet::new(),
            scoped_auditors: Vec::new(),
            limits: tidegate_grants::SessionLimits::default(),
        };
        let parts = trust(&target, &policy, &["10.0.0.5".to_owned()], "ca");
        assert!(parts.iter().all(|part| !part.text.contains(secret)));
        let names: Vec<&str> = parts.iter().map(|part| part.name).collect();
        assert_eq!(names, ["postgresql_conf", "pg_hba", "sql", "sql_remove", "sql_managed"]);
        assert!(parts.iter().filter(|part| part.text.contains("SCRAM-SHA-256$4096:")).count() == 2);
        assert!(!parts[0].text.contains("ssl_ca_file"));
        let lines = pg_hba(&target, &BTreeSet::from(["shop".parse().unwrap()]), &["10.0.0.5".to_owned()]);
        assert!(lines.contains("+tidegate_sessions 10.0.0.5/32 scram-sha-256"), "{lines}");
    }

    #[test]
    fn without_a_superuser_the_same_functions_exist() {
        let names = |script: &str| -> BTreeSet<String> {
            let declared = script.split("create function ").skip(1);
            declared.map(|text| text.split(" returns").next().unwrap().to_owned()).collect()
        };
        assert_eq!(names(MANAGED), names(SUPERUSER));
    }
}
