//! A throwaway PostgreSQL server with a database `shop`, set up from what `tidegate target trust` prints.
//!
//! `initdb` is slow, so one cluster is made per test run and copied for each server.

use crate::{
    cable::Cable,
    daemon::{Daemon, Signal, mortal},
    running::{Output, Running, run},
    scratch::{Lock, Port, base},
    wait::{secs, wait_until},
};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const ACCOUNT: &str = "postgres";

/// What `tidegate target trust` printed, by part.
#[derive(Debug, Clone)]
pub struct PostgresTrust {
    /// The CA of client certificates.
    pub ca: String,
    /// Lines for `postgresql.conf`.
    pub postgresql_conf: String,
    /// Lines to put first into `pg_hba.conf`.
    pub pg_hba: String,
    /// A psql script for a superuser.
    pub sql: String,
    /// The same for a role with CREATEROLE, where nobody is a superuser; else empty.
    pub sql_managed: String,
}

/// One server, before or after its start.
#[derive(Debug)]
pub struct Postgres {
    daemon: Option<Daemon>,
    dir: PathBuf,
    port: Port,
    cable: Option<Cable>,
}

/// Roles and data of the database `shop`: a reader, a writer who may also create, and an owner; none of them logs in.
const CLUSTER: &str = "create role shop_reader nologin;
create role shop_writer nologin;
create role shop_owner nologin;
create database shop;
";
const SHOP: &str = "create table items (id int primary key, name text not null);
insert into items select n, 'item ' || n from generate_series(1, 100) n;
alter table items owner to shop_owner;
grant select on items to shop_reader;
grant select, insert, update, delete on items to shop_writer;
grant create on schema public to shop_writer, shop_owner;
";

impl Postgres {
    /// Copies the cluster of this test run.
    pub fn prepare(dir: &Path) -> Self {
        let template = template();
        let mut copy = Command::new("cp");
        copy.args(["-a", "--reflink=auto"]).arg(template.join("data")).arg(dir.join("data"));
        run(copy, secs(60)).ok();
        chown(dir);
        Self { daemon: None, dir: dir.to_owned(), port: Port::take(), cable: None }
    }

    /// The same on a host of its own, at the end of a cable.
    pub fn prepare_remote(dir: &Path) -> Self {
        let mut postgres = Self::prepare(dir);
        let cable = Cable::lay(dir);
        certify(dir, &cable.far);
        postgres.cable = Some(cable);
        postgres
    }

    /// The cable to its host, if that is not this one.
    pub fn cable(&self) -> Option<&Cable> {
        self.cable.as_ref()
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The folder of its local socket, where its superuser logs in.
    pub fn socket(&self) -> &Path {
        &self.dir
    }

    /// What signed its certificate, in PEM.
    pub fn tls_ca(&self) -> PathBuf {
        template().join("ca.pem")
    }

    /// Installs what was printed, beside the little that a throwaway server needs: its superuser on the local socket
    /// stands before our lines, and a password line that would let anybody else in stands behind them.
    pub fn install(&self, trust: &PostgresTrust, more: &str) {
        let data = self.dir.join("data");
        let (port, dir, certs) = (self.port(), self.dir.display(), template());
        let authority =
            if trust.ca.is_empty() { String::new() } else { format!("ssl_ca_file = '{dir}/client-ca.pem'\n") };
        let more = match &self.cable {
            Some(cable) => {
                format!("listen_addresses = '{}'\nssl_cert_file = '{dir}/server.pem'\n{more}", cable.far)
            }
            None => more.to_owned(),
        };
        let conf = format!(
            "{}\n# the throwaway server's own; the last line of a setting counts\nlisten_addresses = '127.0.0.1'\n\
             port = {port}\nunix_socket_directories = '{dir}'\nfsync = off\nfull_page_writes = off\n\
             shared_buffers = 16MB\nmax_connections = 60\nssl = on\nssl_cert_file = '{certs}/server.pem'\n\
             ssl_key_file = '{dir}/server.key'\n{authority}log_connections = on\n\
             log_line_prefix = '%m [%p] %u@%d '\n{more}\n",
            trust.postgresql_conf,
            certs = certs.display(),
        );
        let hba = format!(
            "local all {ACCOUNT} trust\n{}\nlocal all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n",
            trust.pg_hba
        );
        fs::write(data.join("postgresql.conf"), conf).expect("postgresql.conf");
        fs::write(data.join("pg_hba.conf"), hba).expect("pg_hba.conf");
        fs::write(self.dir.join("client-ca.pem"), &trust.ca).expect("the client CA");
        fs::copy(certs.join("server.key"), self.dir.join("server.key")).expect("the server's key");
        chown(&self.dir);
    }

    /// A server that follows this one, serving what reads; it is started here.
    pub fn replica(&self, dir: &Path) -> Self {
        let hba = self.dir.join("data/pg_hba.conf");
        let lines = fs::read_to_string(&hba).expect("pg_hba.conf");
        fs::write(&hba, format!("local replication {ACCOUNT} trust\n{lines}")).expect("pg_hba.conf");
        self.psql("postgres", "select pg_reload_conf()").ok();
        fs::create_dir_all(dir).expect("the replica's folder");
        let mut replica = Self { daemon: None, dir: dir.to_owned(), port: Port::take(), cable: None };
        let mut backup = Command::new(binary("pg_basebackup"));
        backup.args(["-R", "-X", "stream", "-c", "fast", "-U", ACCOUNT, "-p", &self.port().to_string(), "-h"]);
        backup.arg(&self.dir).arg("-D").arg(dir.join("data"));
        run(backup, secs(60)).ok();
        let conf = dir.join("data/postgresql.conf");
        let text = fs::read_to_string(&conf).expect("postgresql.conf");
        let own = format!("port = {}\nunix_socket_directories = '{}'\n", replica.port(), dir.display());
        fs::write(&conf, text + &own).expect("postgresql.conf");
        chown(dir);
        replica.start();
        replica.ready();
        replica
    }

    /// Starts it; [`Postgres::ready`] waits.
    pub fn start(&mut self) {
        let mut command = mortal("QUIT", Some(ACCOUNT));
        command.arg(binary("postgres")).arg("-D").arg(self.dir.join("data")).current_dir("/");
        if let Some(cable) = &self.cable {
            command = cable.on_it(&command);
        }
        // QUIT ends it at once, and it still gives its shared memory back.
        self.daemon = Some(Daemon::spawn("postgres", command, &self.dir.join("postgres.log"), Signal::QUIT, None));
    }

    /// Waits until it answers.
    pub fn ready(&mut self) {
        wait_until(secs(30), "PostgreSQL answers", || {
            self.daemon.as_mut().expect("it was started").assert_alive();
            (self.psql("postgres", "select 1").code == Some(0)).then_some(())
        });
    }

    /// Stops it, e.g. to be unreachable; [`Postgres::start`] brings it back. (Its "fast shutdown".)
    pub fn stop(&mut self) {
        self.stop_by(Signal::INT);
    }

    /// The same, without any care ("immediate shutdown"): it recovers when it starts again.
    pub fn stop_at_once(&mut self) {
        self.stop_by(Signal::QUIT);
    }

    fn stop_by(&mut self, signal: Signal) {
        if let Some(daemon) = &mut self.daemon {
            daemon.end(signal);
        }
        self.daemon = None;
    }

    /// Puts another server in its place, at the same address and with the same certificate and settings: nothing that was in the
    /// databases is there any more.
    pub fn replace(&mut self) {
        self.stop();
        let data = self.dir.join("data");
        let kept = ["postgresql.conf", "pg_hba.conf"].map(|name| (name, fs::read(data.join(name)).expect(name)));
        fs::remove_dir_all(&data).expect("its data");
        initialize(&data);
        for (name, text) in kept {
            fs::write(data.join(name), text).expect(name);
        }
        chown(&self.dir);
        self.start();
        self.ready();
    }

    /// Runs a psql script as superuser.
    pub fn script(&self, database: &str, sql: &str) -> Output {
        let mut command = Command::new(binary("psql"));
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", ACCOUNT, "-d", database, "-h"]);
        command.arg(&self.dir).args(["-p", &self.port().to_string(), "-At", "-f", "-"]);
        let mut psql = crate::Running::start(command);
        psql.send(sql);
        psql.finish(secs(60))
    }

    /// Runs a psql script as this role, by password over TLS.
    pub fn script_as(&self, user: &str, password: &str, database: &str, sql: &str) -> Output {
        let mut command = Command::new(binary("psql"));
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", database, "-h", "127.0.0.1"]);
        command.args(["-p", &self.port().to_string(), "-At", "-f", "-"]);
        command.env("PGPASSWORD", password).env("PGSSLMODE", "require").env_remove("PGOPTIONS");
        let mut psql = crate::Running::start(command);
        psql.send(sql);
        psql.finish(secs(60))
    }

    /// Runs one statement as superuser, past the gate.
    pub fn psql(&self, database: &str, sql: &str) -> Output {
        let mut command = Command::new(binary("psql"));
        command.args(["-X", "-q", "-U", ACCOUNT, "-d", database, "-h"]).arg(&self.dir);
        command.args(["-p", &self.port().to_string(), "-At", "-c", sql]);
        run(command, secs(60))
    }

    /// A running `psql` of the superuser, past the gate, that reads statements from its stdin.
    pub fn psql_start(&self, database: &str) -> Running {
        let mut command = Command::new(binary("psql"));
        command.args(["-X", "-q", "-U", ACCOUNT, "-d", database, "-h"]).arg(&self.dir);
        command.args(["-p", &self.port().to_string(), "-At"]);
        Running::start(command)
    }

    /// What one statement returns to the superuser, past the gate; fields split by `|`.
    pub fn ask(&self, database: &str, sql: &str) -> String {
        self.psql(database, sql).ok().out()
    }

    /// Login roles that carry our mark.
    pub fn ephemeral_roles(&self) -> Vec<String> {
        let sql = "select rolname from pg_roles where rolname like 'tg\\_%' and rolcanlogin";
        self.ask("postgres", sql).lines().map(str::to_owned).collect()
    }

    /// Heirs of what sessions left behind.
    pub fn heirs(&self) -> Vec<String> {
        let sql = "select rolname from pg_roles where rolname like 'tgq\\_%'";
        self.ask("postgres", sql).lines().map(str::to_owned).collect()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join("postgres.log")).unwrap_or_default()).into_owned()
    }
}

/// A program of the newest PostgreSQL on this machine, or of `TIDEGATE_PG_BIN`.
pub fn binary(name: &str) -> PathBuf {
    if let Some(dir) = std::env::var_os("TIDEGATE_PG_BIN") {
        return PathBuf::from(dir).join(name);
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.max_by_key(|entry| entry.file_name().to_string_lossy().parse::<u32>().unwrap_or(0));
    newest.expect("PostgreSQL's server is installed (tests/run does it)").path().join("bin").join(name)
}

/// The major version of those programs.
pub fn version() -> u32 {
    let mut psql = Command::new(binary("psql"));
    psql.arg("--version");
    let said = run(psql, secs(60)).ok().out(); // psql (PostgreSQL) 18.6
    let number = said.split_whitespace().nth(2).and_then(|version| version.split(['.', 'b', 'r']).next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no version in {said:?}"))
}

/// The programs of another major version, where `tests/run` put them, if it did.
pub fn release(version: u32) -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("TIDEGATE_POSTGRES")?).join(version.to_string()).join("bin");
    Some(folder).filter(|folder| folder.join("postgres").exists())
}

fn chown(dir: &Path) {
    let mut command = Command::new("chown");
    command.args(["-R", &format!("{ACCOUNT}:{ACCOUNT}")]).arg(dir);
    run(command, secs(60)).ok();
}

/// The cluster that is copied, with the CA and the certificate of its servers. Made by the first test that needs it.
fn template() -> PathBuf {
    let name = binary("postgres").to_string_lossy().replace(['/', '.'], "_");
    let dir = base().join(format!("template{name}"));
    let _lock = Lock::wait("template");
    if !dir.join("done").exists() {
        fs::remove_dir_all(&dir).ok();
        fs::create_dir_all(&dir).expect("the template's folder");
        certificates(&dir);
        chown(&dir);
        initialize(&dir.join("data"));
        fs::write(dir.join("done"), "").expect("the template's mark");
    }
    dir
}

/// A cluster with an identifier of its own.
fn initialize(data: &Path) {
    let mut initdb = mortal("KILL", Some(ACCOUNT));
    initdb.arg(binary("initdb")).arg("-D").arg(data).current_dir("/");
    initdb.args(["-U", ACCOUNT, "--no-sync", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8"]);
    run(initdb, secs(120)).ok();
    single_user(data, "postgres", CLUSTER);
    single_user(data, "shop", SHOP);
}

/// PostgreSQL without a server: one statement a line.
fn single_user(data: &Path, database: &str, sql: &str) {
    let mut command = mortal("KILL", Some(ACCOUNT));
    command.arg(binary("postgres")).args(["--single", "-j", "-D"]).arg(data).arg(database).current_dir("/");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("postgres --single");
    let statements = sql.replace(";\n", ";\n\n"); // -j: a statement ends at semicolon, newline, newline
    child.stdin.take().expect("its stdin").write_all(statements.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success(), "postgres --single failed");
}

/// A certificate for a server at this address, by the CA of all.
fn certify(dir: &Path, address: &str) {
    let script = r#"
cd "$1"
printf 'subjectAltName=IP:%s\nextendedKeyUsage=serverAuth\n' "$3" > server.ext
openssl x509 -req -in "$2/server.csr" -CA "$2/ca.pem" -CAkey "$2/ca.key" -set_serial "0x$(openssl rand -hex 16)" -days 3650 \
  -extfile server.ext -out server.pem
"#;
    let mut command = Command::new("sh");
    command.args(["-euc", script, "certify"]).arg(dir).arg(template()).arg(address);
    run(command, secs(60)).ok();
}

/// A CA of its own and a server certificate for loopback, by the `openssl` program.
fn certificates(dir: &Path) {
    let script = r#"
cd "$1"
key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
openssl req -x509 $key -days 3650 -subj "/CN=throwaway CA" -keyout ca.key -out ca.pem \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
openssl req $key -subj "/CN=localhost" -keyout server.key -out server.csr
printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' > server.ext
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -extfile server.ext -out server.pem
chmod 600 server.key
"#;
    let mut command = Command::new("sh");
    command.args(["-euc", script, "certificates"]).arg(dir);
    run(command, secs(60)).ok();
}
