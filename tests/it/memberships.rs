//! What an entitlement says of roles and databases: several groups, INHERIT or not, several databases, several grants, limits.

use std::collections::BTreeSet;
use tidegate_tests::{
    Running, World,
    postgres::binary,
    running::run,
    world::{PATIENCE, Plan},
};

const TWO_GROUPS: &str = "[[entitlement]]\nname = \"accounts\"\ngroups = [\"sre\"]\ntargets = [\"orders\"]\n\
    databases = [\"shop\"]\nroles = [\"shop_reader\", \"payroll_reader\"]\nmax_duration = \"30m\"\n";
const PAYROLL: &str = "create role payroll_reader nologin;\n\\connect shop\n\
    create table payroll (n int); insert into payroll values (7); grant select on payroll to payroll_reader;\n";

/// A world whose entitlement `accounts` has two groups, with more lines in it.
fn two_groups(more: &str) -> World {
    let world = Plan::new().only_postgres().postgres_sql(PAYROLL).block(format!("{TWO_GROUPS}{more}")).start();
    world.gateway.grant("alice", "orders", "accounts", "30m");
    world
}

#[test]
fn a_session_has_the_privileges_of_all_its_groups() {
    let world = two_groups("");
    assert_eq!(world.psql("alice", "select n from payroll, items where id = n").ok().out(), "7");
    // A grant may narrow them.
    let args = ["grant", "issue", "--user", "bob", "--target", "orders", "--entitlement", "accounts"];
    let narrow = ["--role", "shop_reader", "--for", "30m", "--reason", "no payroll"];
    world.gateway.cli(&[&args[..], &narrow[..]].concat()).ok();
    assert_eq!(world.psql("bob", "select count(*) from items").ok().out(), "100");
    world.psql("bob", "select n from payroll").exited(1).says("42501");
    world.gateway.until_no_lease(PATIENCE);
}

#[test]
fn without_inherit_a_session_must_take_a_role_first() {
    let world = two_groups("inherit = false\n");
    assert!(world.gateway.cli(&["check"]).ok().out().contains("after SET ROLE"));
    world.psql("alice", "select n from payroll").exited(1).says("42501");
    let taken = "set role payroll_reader; select n from payroll; set role shop_reader; select count(*) from items; \
                 reset role; select current_user = session_user";
    assert_eq!(world.psql("alice", taken).ok().out(), "SET\n7\nSET\n100\nRESET\nt");
    world.psql("alice", "set role payroll_reader; select * from items").exited(1).says("42501");
    world.psql("alice", "set role shop_writer").exited(1).says("42501");
    world.gateway.until_no_lease(PATIENCE);
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
}

#[test]
fn a_reload_of_psql_goes_to_another_database_that_is_allowed_and_to_no_other() {
    let world = Plan::new()
        .only_postgres()
        .postgres_sql("create database stock;\n\\connect stock\ncreate table parts (n int); grant select on parts to shop_reader;\n")
        .change("databases = [\"shop\"]\nroles = [\"shop_reader\"]", "databases = [\"shop\", \"stock\"]\nroles = [\"shop_reader\"]")
        .start();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let (password, conninfo) = (world.password("alice", "orders"), world.conninfo("alice@orders", "shop"));
    let mut psql = Running::start(world.psql_command(&conninfo, &password, &[]));
    psql.send("select 'in ' || current_database() || session_user;\n\\c stock\n");
    psql.send("select 'in ' || current_database() || session_user;\nselect count(*) from parts;\n");
    // Interactively psql keeps the connection that it had; from a script it gives it up, and says why.
    psql.send("\\c template1\n");
    let output = psql.finish(PATIENCE);
    let text = output.out();
    let roles: BTreeSet<&str> = text.lines().filter(|line| line.starts_with("in ")).collect();
    assert_eq!(roles.len(), 2, "each database has a session and a role of its own: {output:?}");
    assert!(output.out().contains("in shoptg_alice_") && output.out().contains("in stocktg_alice_"), "{output:?}");
    assert!(output.err().contains("template1"), "{}", output.err());
    world.gateway.until_no_lease(PATIENCE);
    assert_eq!(world.gateway.ledger().count("lease.closed"), 2);
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
}

#[test]
fn grants_of_one_person_are_used_side_by_side_each_with_a_role_of_its_own() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    world.gateway.grant("alice", "orders", "migrate", "30m");
    let password = world.password("alice", "orders");
    // Which of them is meant must be said.
    let ambiguous = world.psql_command(&world.conninfo("alice", "orders/shop"), &password, &["-c", "select 1"]);
    run(ambiguous, PATIENCE).exited(2).says("name one with ~").says("migrate, readonly");
    let start = |user: &str| {
        let mut psql = Running::start(world.psql_command(&world.conninfo(user, "orders/shop"), &password, &[]));
        psql.send("select session_user, current_user, 'ready';\n");
        psql.until_stdout("ready", PATIENCE);
        psql
    };
    let (mut reading, mut migrating) = (start("alice~readonly"), start("alice~migrate"));
    migrating.send("create table invoices (n int);\nselect 'made';\n");
    migrating.until_stdout("made", PATIENCE);
    reading.send("create table mine (n int);\nselect 'refused';\n");
    reading.until_stdout("refused", PATIENCE);
    assert_eq!(world.pg().ephemeral_roles().len(), 2);
    let (reading, migrating) = (reading.finish(PATIENCE).ok(), migrating.finish(PATIENCE).ok());
    assert!(reading.err().contains("42501"), "{}", reading.err());
    let first = |out: &str| out.split('|').take(2).map(str::to_owned).collect::<Vec<_>>();
    let (reader, migrator) = (first(&reading.out()), first(&migrating.out()));
    assert!(
        reader[0] == reader[1] && migrator[1] == "shop_owner" && reader[0] != migrator[0],
        "{reader:?} {migrator:?}"
    );
    world.gateway.until_no_lease(PATIENCE);
}

/// `pgbench` or `pg_dump` through the gate.
fn program(world: &World, password: &str, name: &str, args: &[&str]) -> tidegate_tests::Output {
    let mut command = std::process::Command::new(binary(name));
    command.args(args).env("PGPASSWORD", password).env("LC_ALL", "C.UTF-8").env("PGPASSFILE", "/nonexistent");
    command.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", world.client_file("ca.pem"));
    command.env("PGHOST", tidegate_tests::config::PUBLIC_NAME).env("PGHOSTADDR", "127.0.0.1");
    command.env("PGPORT", world.gateway.postgres().port().to_string()).env("PGUSER", "alice@orders");
    command.env("PGDATABASE", "shop");
    run(command, PATIENCE)
}

#[test]
fn past_the_limit_programs_are_told_what_the_limit_is_and_each_person_has_their_own() {
    let world = Plan::new().only_postgres().change("max_connections = 10", "max_connections = 3").start();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    world.gateway.grant("bob", "orders", "readonly", "30m");
    let password = world.password("alice", "orders");
    let script = world.dir().join("read.sql");
    std::fs::write(&script, "select count(*) from items;\n").unwrap();
    let script = script.to_str().unwrap();
    let bench = |clients: &str| {
        program(&world, &password, "pgbench", &["-n", "-f", script, "-c", clients, "-j", "3", "-t", "5", "shop"])
    };
    bench("3").ok();
    world.gateway.until_ledger("session.closed", 3, PATIENCE);
    let said = bench("4");
    assert_ne!(said.code, Some(0));
    assert!(said.err().contains("3 of your connections to orders are open already"), "{}", said.err());
    assert!(said.err().contains("pgbench -c"), "{}", said.err());
    world.gateway.until_no_lease(PATIENCE);
    let dump = |jobs: &str| {
        let folder = world.dir().join(format!("dump-{jobs}"));
        program(&world, &password, "pg_dump", &["-Fd", "-t", "items", "-j", jobs, "-f", folder.to_str().unwrap()])
    };
    dump("2").ok(); // and its leader
    world.gateway.until_no_lease(PATIENCE);
    dump("3").exited(1).says("which is the limit");
    world.gateway.until_no_lease(PATIENCE);

    let conninfo = world.conninfo("alice", "orders/shop");
    let mut open: Vec<Running> =
        (0..3).map(|_| Running::start(world.psql_command(&conninfo, &password, &[]))).collect();
    for psql in &mut open {
        psql.send("select 'in';\n");
        psql.until_stdout("in", PATIENCE);
    }
    // psql shows no SQLSTATE of a connection that failed; a driver does.
    assert_eq!(refused_with(&world, &password), "53300");
    assert_eq!(world.psql("bob", "select 1").ok().out(), "1");
    for psql in open {
        psql.finish(PATIENCE).ok();
    }
    world.gateway.until_no_lease(PATIENCE);
}

/// SQLSTATE of a connection that is refused.
fn refused_with(world: &World, password: &str) -> String {
    let mut config = tokio_postgres::Config::new();
    config.host(tidegate_tests::config::PUBLIC_NAME).hostaddr("127.0.0.1".parse().unwrap());
    config.port(world.gateway.postgres().port()).user("alice").password(password).dbname("orders/shop");
    config.ssl_mode(tokio_postgres::config::SslMode::Require);
    let tls = tokio_postgres_rustls::MakeRustlsConnect::new(crate::wire::tls_config(world));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(config.connect(tls)).err().unwrap();
    error.code().unwrap().code().to_owned()
}
