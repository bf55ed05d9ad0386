//! A throwaway PostgreSQL with TLS, a database and our trust installed on it.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tidegate_proxy::trust::Part;

/// PostgreSQL refuses to run as root.
const ACCOUNT: &str = "postgres";

pub(crate) struct Server {
    pub(crate) port: u16,
    process: Option<Child>,
    install: String,
    dir: TempDir,
}

/// Where a server's data comes from.
#[derive(Clone, Copy)]
pub(crate) enum Cluster {
    /// The one of this run of tests, if there is one: making it takes longer than most tests.
    Copied,
    /// Made for it, and so with an identifier of its own.
    Own,
}

/// A free port, bound and given back: none of those that the system gives to connections, which could take it meanwhile.
pub(crate) fn free_port() -> u16 {
    let begin = std::process::id() % 10_000 * 37;
    let ports = (0..10_000).map(|step| u16::try_from(10_000 + (begin + step) % 10_000).unwrap());
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.into_iter().find(free).unwrap()
}

impl Server {
    /// Not started yet: the trust that is installed needs its port.
    pub(crate) fn create(cluster: Cluster, certificate: &str, key: &str) -> Self {
        let base = std::env::var_os("TIDEGATE_TEST_TMP").map(PathBuf::from);
        let dir = base.as_deref().unwrap_or(Path::new("/tmp"));
        let dir = tempfile::Builder::new().prefix("tidegate-roles-").tempdir_in(dir).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("server.pem"), certificate).unwrap();
        fs::write(dir.path().join("server.key"), key).unwrap();
        fs::set_permissions(dir.path().join("server.key"), fs::Permissions::from_mode(0o600)).unwrap();
        let server = Self { port: free_port(), process: None, install: String::new(), dir };
        server.chown();
        match (cluster, &base) {
            (Cluster::Copied, Some(base)) => {
                let mut copy = Command::new("cp");
                copy.args(["-a", "--reflink=auto"]).arg(to_copy(base)).arg(server.data());
                ok(copy.output().unwrap());
            }
            _ => initdb(&server.data()),
        }
        server
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn chown(&self) {
        ok(Command::new("chown").args(["-R", ACCOUNT]).arg(self.dir.path()).output().unwrap());
    }

    /// Starts it with our parts in place; a line that would let anybody in by password stands behind them.
    pub(crate) fn start(&mut self, parts: &[Part]) {
        let part = |name: &str| parts.iter().find(|part| part.name == name).unwrap().text.as_str();
        let dir = self.dir.path().display();
        let conf = format!(
            "{}\nlisten_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{dir}'\nfsync = off\n\
             log_connections = on\nlog_disconnections = on\nlog_line_prefix = '%m [%p] %u@%d '\nmax_prepared_transactions = 10\nshared_buffers = 16MB\nssl_cert_file = '{dir}/server.pem'\n\
             ssl_key_file = '{dir}/server.key'\n",
            part("postgresql_conf"),
            self.port
        );
        let hba = format!(
            "local all {ACCOUNT} trust\n{}host all all 127.0.0.1/32 scram-sha-256\nlocal all all scram-sha-256\n",
            part("pg_hba")
        );
        fs::write(self.data().join("postgresql.conf"), conf).unwrap();
        fs::write(self.data().join("pg_hba.conf"), hba).unwrap();
        fs::write(self.data().join("tidegate-ca.pem"), part("ca")).unwrap();
        self.chown();
        let log = fs::File::create(self.dir.path().join("log")).unwrap();
        // Ends with the test, however that ends.
        let mut postgres = Command::new("setpriv");
        postgres
            .args(["--reuid", ACCOUNT, "--regid", ACCOUNT, "--clear-groups", "--pdeathsig", "QUIT"])
            .current_dir("/");
        postgres.arg(binary("postgres")).arg("-D").arg(self.data());
        if let Some(dir) = std::env::var_os("TIDEGATE_PG_BIN") {
            postgres.env("LD_LIBRARY_PATH", Path::new(&dir).join("../lib")); // dblink wants the libpq of its version
        }
        self.process = Some(postgres.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let start = Instant::now();
        while !self.psql("postgres", "select 1").status.success() {
            assert!(start.elapsed() < Duration::from_secs(30), "{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.script("postgres", include_str!("shop.sql"));
        self.install = part("sql").to_owned();
        self.install();
        self.install(); // twice, as after a change of entitlements
    }

    /// Our functions, as a superuser installs them.
    pub(crate) fn install(&self) {
        self.script("postgres", &self.install);
    }

    /// Kills this backend as a fault would, and waits until the server has recovered.
    pub(crate) fn crash(&self, pid: &str) {
        let ready = || self.log().matches("ready to accept connections").count();
        let before = ready();
        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let start = Instant::now();
        while ready() == before {
            assert!(start.elapsed() < Duration::from_secs(60), "{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// psql on the local socket.
    fn client(&self, database: &str, user: &str) -> Command {
        let mut psql = Command::new(binary("psql"));
        psql.args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", database, "-h"]).arg(self.dir.path());
        psql.args(["-p", &self.port.to_string()]);
        psql
    }

    /// A script of psql as superuser; what it prints.
    pub(crate) fn script(&self, database: &str, sql: &str) -> String {
        let mut psql = self.client(database, ACCOUNT);
        let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // One that stops at an error closes its stdin: what it says counts.
        psql.stdin.take().unwrap().write_all(sql.as_bytes()).ok();
        String::from_utf8(ok(psql.wait_with_output().unwrap()).stdout).unwrap()
    }

    fn psql(&self, database: &str, sql: &str) -> Output {
        self.client(database, ACCOUNT).args(["-c", sql]).output().unwrap()
    }

    /// One statement as superuser; what it says.
    pub(crate) fn ask(&self, database: &str, sql: &str) -> String {
        String::from_utf8(ok(self.psql(database, sql)).stdout).unwrap().trim().to_owned()
    }

    /// Its major version.
    pub(crate) fn version(&self) -> u32 {
        self.ask("postgres", "select current_setting('server_version_num')::int / 10000").parse().unwrap()
    }

    /// The same, which may fail.
    pub(crate) fn try_ask(&self, database: &str, sql: &str) {
        self.psql(database, sql);
    }

    /// Waits until this question is answered with yes.
    pub(crate) async fn until(&self, question: &str) {
        let start = Instant::now();
        while self.ask("shop", question) != "t" {
            assert!(start.elapsed() < Duration::from_secs(60), "{question}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A login past the gate, with a password; what psql says.
    pub(crate) fn direct_login(&self, host: Option<&str>, user: &str, password: &str) -> Output {
        let mut psql = self.client("shop", user);
        psql.env("PGPASSWORD", password).args(["-c", "select 1"]);
        if let Some(host) = host {
            psql.args(["-h", host]);
        }
        psql.output().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let id = i32::try_from(process.id()).unwrap();
        let id = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::QUIT).ok();
        process.wait().ok();
    }
}

/// The cluster of this version, made by the first test that needs it.
fn to_copy(base: &Path) -> PathBuf {
    let version = binary("postgres").to_string_lossy().replace(['/', '.'], "_");
    let data = base.join(format!("roles{version}"));
    let lock = fs::File::create(data.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let done = data.with_extension("done");
    if !done.exists() {
        fs::remove_dir_all(&data).ok();
        fs::create_dir(&data).unwrap();
        ok(Command::new("chown").arg(ACCOUNT).arg(&data).output().unwrap());
        initdb(&data);
        fs::write(done, "").unwrap();
    }
    data
}

fn initdb(data: &Path) {
    let mut initdb = as_account();
    initdb.arg(binary("initdb")).arg("-D").arg(data).args(["-A", "trust", "-U", ACCOUNT, "--no-sync"]);
    ok(initdb.stdout(Stdio::null()).output().unwrap());
}

fn as_account() -> Command {
    let mut command = Command::new("runuser");
    command.args(["-u", ACCOUNT, "--"]).current_dir("/");
    command
}

/// A program of the newest PostgreSQL on this machine, or of `TIDEGATE_PG_BIN`.
fn binary(name: &str) -> PathBuf {
    if let Some(dir) = std::env::var_os("TIDEGATE_PG_BIN") {
        return Path::new(&dir).join(name);
    }
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed").flatten();
    let newest = versions.max_by_key(|v| v.file_name().to_string_lossy().parse::<u32>().unwrap_or(0));
    newest.expect("PostgreSQL's server is installed").path().join("bin").join(name)
}

fn ok(output: Output) -> Output {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}
