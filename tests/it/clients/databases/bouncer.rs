//! PgBouncer between the programs and the gate: its pools are alice's sessions.

use super::{Databases, GATE};
use std::{fs, path::Path};
use tidegate_tests::{
    daemon::{Daemon, Signal, mortal},
    postgres::binary,
    running::{Output, run},
    scratch::Port,
    secs, wait_until,
};

struct Bouncer<'a> {
    databases: &'a Databases,
    port: Port,
    daemon: Daemon,
}

impl<'a> Bouncer<'a> {
    fn start(databases: &'a Databases, mode: &str) -> Self {
        let dir = databases.world.dir().join(format!("bouncer-{mode}"));
        fs::create_dir_all(&dir).unwrap();
        let (port, gate) = (Port::take(), databases.world.gateway.postgres().port());
        fs::copy(databases.world.client_file("ca.pem"), dir.join("ca.pem")).unwrap();
        let config = format!(
            "[databases]\nshop = host={GATE} port={gate} dbname=shop user=alice@orders password={}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n\
             default_pool_size = 4\nserver_tls_sslmode = verify-full\nserver_tls_ca_file = {}/ca.pem\n",
            databases.password,
            port.number(),
            dir.display()
        );
        fs::write(dir.join("bouncer.ini"), config).unwrap();
        chown(&dir);
        let mut command = mortal("INT", Some("postgres"));
        command.arg("pgbouncer").arg(dir.join("bouncer.ini")).current_dir("/");
        let daemon = Daemon::spawn("pgbouncer", command, &dir.join("bouncer.log"), Signal::INT, None);
        let mut bouncer = Self { databases, port, daemon };
        wait_until(secs(60), "PgBouncer answers", || {
            bouncer.daemon.assert_alive();
            (bouncer.program("psql", &["-X", "-At", "-c", "select 1"]).code == Some(0)).then_some(())
        });
        bouncer
    }

    /// A program of PostgreSQL's own, at the bouncer.
    fn program(&self, name: &str, args: &[&str]) -> Output {
        let mut command = self.databases.command(binary(name));
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.port.number().to_string()).env("PGSSLMODE", "disable");
        command.env("PGUSER", "whoever").args(args);
        run(command, super::LONG)
    }

    /// Ends it as its users do: with its connections.
    fn stop(mut self) {
        self.daemon.end(Signal::INT);
    }
}

fn chown(dir: &Path) {
    let mut chown = std::process::Command::new("chown");
    chown.arg("-R").arg("postgres:postgres").arg(dir);
    run(chown, secs(20)).ok();
}

fn pools(mode: &str, protocol: &str) {
    let databases = Databases::start();
    let bouncer = Bouncer::start(&databases, mode);
    bouncer.program("pgbench", &["-i", "-q", "-s", "1"]).ok();
    // More clients than sessions.
    let output = bouncer.program("pgbench", &["-n", "-c", "4", "-j", "2", "-t", "50", "-M", protocol]).ok();
    assert!(output.out().contains("actually processed: 200/200"), "{}", output.out());
    if mode == "transaction" {
        bouncer.program("pgbench", &["-n", "-c", "12", "-j", "2", "-t", "20", "-M", "simple"]).ok();
    }
    let session_user = "select session_user like 'tg\\_alice\\_%', current_user";
    assert_eq!(bouncer.program("psql", &["-X", "-At", "-c", session_user]).ok().out(), "t|shop_owner");
    bouncer.stop();
    databases.assert_nothing_is_left();
    let opened = databases.world.gateway.ledger().count("session.opened");
    assert!(opened <= 4, "{opened} sessions for a pool of 4");
}

#[test]
fn pgbouncer_pools_transactions_on_sessions_of_the_gate() {
    pools("transaction", "extended");
}

#[test]
fn pgbouncer_pools_sessions_and_resets_them_between_its_clients() {
    pools("session", "prepared");
}
