//! A gateway between throwaway targets, and people with their own clients.

use crate::{
    config::{self, Config, PUBLIC_NAME},
    gateway::Gateway,
    postgres::{Postgres, binary},
    running::{Output, Running, run},
    scratch::Scratch,
    sshd::{LOGIN, Sshd, keygen},
    wait::secs,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// How long a client may take before a test gives up on it. No test is about this.
pub const PATIENCE: Duration = secs(60);

/// Of the role that a managed service gives its customer.
pub const MASTER_PASSWORD: &str = "of-the-master-user";
/// What such a service does: a role that is no superuser, makes roles, and has made those of the application.
const MASTER: &str = "create role master login createrole createdb password 'of-the-master-user';
grant shop_reader, shop_writer, shop_owner to master with admin option;
alter database shop owner to master;
";

/// Everything. Dropped in the order of its fields: the gateway ends first, the folder goes last.
#[derive(Debug)]
pub struct World {
    /// The gateway.
    pub gateway: Gateway,
    /// The SSH target `web-1`.
    pub sshd: Option<Sshd>,
    /// The PostgreSQL target `orders`.
    pub postgres: Option<Postgres>,
    /// The configuration in force.
    pub config: Config,
    clients: PathBuf,
    scratch: Scratch,
}

/// What to build before anything starts.
#[derive(Debug)]
pub struct Plan {
    ssh: bool,
    postgres: bool,
    sshd_config: String,
    postgresql_conf: String,
    postgres_sql: String,
    managed: bool,
    remote: bool,
    change: Vec<(String, String)>,
    blocks: Vec<String>,
    files: Vec<(String, String)>,
    mounts: Option<String>,
    pause_at: Option<String>,
}

impl Plan {
    /// Both targets.
    #[allow(clippy::new_without_default, reason = "a plan is not a default of anything")]
    pub fn new() -> Self {
        Self {
            ssh: true,
            postgres: true,
            sshd_config: String::new(),
            postgresql_conf: String::new(),
            postgres_sql: String::new(),
            managed: false,
            remote: false,
            change: Vec::new(),
            blocks: Vec::new(),
            files: Vec::new(),
            mounts: None,
            pause_at: None,
        }
    }
    /// Only the SSH target is started.
    pub fn only_ssh(mut self) -> Self {
        self.postgres = false;
        self
    }
    /// Only the PostgreSQL target is started.
    pub fn only_postgres(mut self) -> Self {
        self.ssh = false;
        self
    }
    /// More lines for the target's `sshd_config`.
    pub fn sshd_config(mut self, lines: &str) -> Self {
        self.sshd_config = lines.to_owned();
        self
    }
    /// More lines for the target's `postgresql.conf`.
    pub fn postgresql_conf(mut self, lines: &str) -> Self {
        self.postgresql_conf = lines.to_owned();
        self
    }
    /// A psql script for the target's superuser, before our functions are installed.
    pub fn postgres_sql(mut self, script: &str) -> Self {
        self.postgres_sql = script.to_owned();
        self
    }
    /// The PostgreSQL target is logged in to by SCRAM.
    pub fn scram(self) -> Self {
        let user = "admin_user = \"tidegate\"";
        let scram = format!("{user}\nauth = \"scram\"\nadmin_password_file = \"orders.password\"");
        self.change(user, &scram).file("orders.password", "the-gateway-s-own-password\n")
    }
    /// The PostgreSQL target is like a managed service: nobody but a role `master` with CREATEROLE installs anything, and
    /// everybody with a password may log in over TLS.
    pub fn managed(mut self) -> Self {
        self.managed = true;
        self.scram()
    }
    /// The PostgreSQL target is a host of its own, at the end of a cable that can be pulled.
    pub fn remote(mut self) -> Self {
        self.remote = true;
        self
    }
    /// Changes text in the configuration.
    pub fn change(mut self, from: &str, to: &str) -> Self {
        self.change.push((from.to_owned(), to.to_owned()));
        self
    }
    /// Adds a block to the configuration.
    pub fn block(mut self, text: impl Into<String>) -> Self {
        self.blocks.push(text.into());
        self
    }
    /// A file beside the configuration, for root alone.
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }
    /// A shell script in the gateway's own mount namespace, before it starts; `$1` is its folder.
    pub fn mounts(mut self, script: &str) -> Self {
        self.mounts = Some(script.to_owned());
        self
    }
    /// The gateway stops at this pause point.
    pub fn pause_at(mut self, point: &str) -> Self {
        self.pause_at = Some(point.to_owned());
        self
    }

    /// Builds it all, and returns when everything is ready.
    pub fn start(self) -> World {
        let scratch = Scratch::new();
        let clients = scratch.dir("clients");
        for person in ["alice", "bob", "carol", "mallory"] {
            keygen(&clients.join(person));
        }
        let mut gateway = Gateway::init(&scratch.dir("gate"));
        for (name, text) in &self.files {
            let path = gateway.dir().join(name);
            fs::write(&path, text).expect("a file beside the configuration");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
        }
        let sshd = self.ssh.then(|| Sshd::prepare(&scratch.dir("web-1")));
        let postgres = self.postgres.then(|| {
            let prepare = if self.remote { Postgres::prepare_remote } else { Postgres::prepare };
            prepare(&scratch.dir("orders"))
        });
        let config = self.configuration(&gateway, &clients, sshd.as_ref(), postgres.as_ref());
        gateway.configure(&config);
        gateway.write_trust(&clients);
        gateway.how.mounts.clone_from(&self.mounts);
        if let Some(point) = &self.pause_at {
            gateway.pause_at(point);
        }
        let mut world = World { gateway, sshd, postgres, config, clients, scratch };
        world.install(&self);
        world.gateway.start();
        world
    }

    fn configuration(
        &self,
        gateway: &Gateway,
        clients: &Path,
        sshd: Option<&Sshd>,
        postgres: Option<&Postgres>,
    ) -> Config {
        let mut config = Config::new(&gateway.recipients());
        config.user("alice", &["sre", "dba"], Some(&clients.join("alice")));
        config.user("bob", &["sre"], Some(&clients.join("bob")));
        config.user("carol", &["sales"], Some(&clients.join("carol")));
        config.block("[[user]]\nname = \"operator\"\ngroups = [\"platform\"]\nunix_user = \"root\"\n");
        if let Some(sshd) = sshd {
            config.ssh_target("web-1", sshd.port(), sshd.host_key()).block(config::SHELL);
        }
        if let Some(postgres) = postgres {
            config.postgres_target("orders", postgres.port(), &postgres.tls_ca());
            config.block(config::READONLY).block(config::READWRITE).block(config::MIGRATE);
            if let Some(cable) = postgres.cable() {
                config.change(&format!("127.0.0.1:{}", postgres.port()), &format!("{}:{}", cable.far, postgres.port()));
                config
                    .change("source_addresses = [\"127.0.0.1\"]", &format!("source_addresses = [\"{}\"]", cable.near));
            }
        }
        for block in &self.blocks {
            config.block(block.clone());
        }
        for (from, to) in &self.change {
            config.change(from, to);
        }
        config
    }
}

impl World {
    /// A gateway between both targets.
    pub fn start() -> Self {
        Plan::new().start()
    }

    /// A gateway before the SSH target.
    pub fn ssh_only() -> Self {
        Plan::new().only_ssh().start()
    }

    /// A gateway before the PostgreSQL target.
    pub fn postgres_only() -> Self {
        Plan::new().only_postgres().start()
    }

    fn install(&mut self, plan: &Plan) {
        if let Some(sshd) = &mut self.sshd {
            sshd.install(&self.gateway.ssh_trust("web-1"), &plan.sshd_config);
            sshd.start();
        }
        if let Some(postgres) = &mut self.postgres {
            let mut trust = self.gateway.postgres_trust("orders");
            if plan.managed {
                trust.pg_hba = "hostssl all all all scram-sha-256".to_owned();
            }
            postgres.install(&trust, &plan.postgresql_conf);
            postgres.start();
            postgres.ready();
            postgres.script("postgres", &plan.postgres_sql).ok();
            if plan.managed {
                postgres.script("postgres", MASTER).ok();
                postgres.script_as("master", MASTER_PASSWORD, "postgres", &trust.sql_managed).ok();
            } else {
                postgres.script("postgres", &trust.sql).ok();
            }
        }
        if let Some(sshd) = &mut self.sshd {
            sshd.ready();
        }
    }

    /// The SSH target.
    pub fn sshd(&self) -> &Sshd {
        self.sshd.as_ref().expect("this world has an SSH target")
    }

    /// The SSH target, to be changed.
    pub fn sshd_mut(&mut self) -> &mut Sshd {
        self.sshd.as_mut().expect("this world has an SSH target")
    }

    /// Starts the gateway anew, with the configuration as it is now.
    pub fn restart_gateway(&mut self) {
        self.gateway.configure(&self.config);
        self.gateway.terminate();
        self.gateway.start();
    }

    /// The PostgreSQL target.
    pub fn pg(&self) -> &Postgres {
        self.postgres.as_ref().expect("this world has a PostgreSQL target")
    }

    /// A folder for the test's own files.
    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// A client's file: a key by the person's name, `known_hosts`, `ca.pem`.
    pub fn client_file(&self, name: &str) -> PathBuf {
        self.clients.join(name)
    }

    /// The public key of this name, as a line of `authorized_keys` without its end.
    pub fn public_key(&self, name: &str) -> String {
        let file = self.client_file(&format!("{name}.pub"));
        fs::read_to_string(file).expect("a public key").trim_end().to_owned()
    }

    /// From now on the configuration has these keys for a person, who had the one by their name.
    pub fn set_keys(&mut self, person: &str, keys: &[&str]) {
        self.config.change(&format!("[{:?}]", self.public_key(person)), &format!("{keys:?}"));
        self.gateway.configure(&self.config);
        self.gateway.cli(&["reload"]).ok();
    }

    /// The arguments that a person's OpenSSH client needs here, host and command apart. `-F none` keeps the machine's
    /// own configuration out.
    pub fn ssh_options(&self, person: &str) -> Vec<String> {
        let file = |name: &str| self.client_file(name).display().to_string();
        let mut options = vec!["-F".to_owned(), "none".to_owned(), "-i".to_owned(), file(person)];
        for option in [
            "BatchMode=yes".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
            "IdentityAgent=none".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            format!("UserKnownHostsFile={}", file("known_hosts")),
            "GlobalKnownHostsFile=none".to_owned(),
            format!("HostKeyAlias={PUBLIC_NAME}"),
            "ConnectTimeout=20".to_owned(),
            format!("Port={}", self.gateway.ssh().port()),
        ] {
            options.extend(["-o".to_owned(), option]);
        }
        options
    }

    /// `ssh [MORE] DOOR@gate ARGS` as this person, not yet run. The door is `deploy@web-1`, or a user name for the
    /// control shell.
    pub fn ssh_command(&self, person: &str, more: &[&str], door: &str, args: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        // OpenSSH takes the first value of an option: what the test says comes first.
        command.args(more).args(self.ssh_options(person)).arg(format!("{door}@127.0.0.1")).args(args);
        command.env_remove("SSH_AUTH_SOCK").env("LC_ALL", "C.UTF-8");
        command
    }

    /// The same, running.
    pub fn ssh_start(&self, person: &str, door: &str, args: &[&str]) -> Running {
        Running::start(self.ssh_command(person, &[], door, args))
    }

    /// `ssh DOOR@gate ARGS` to its end, with nothing on stdin.
    pub fn ssh(&self, person: &str, door: &str, args: &[&str]) -> Output {
        run(self.ssh_command(person, &[], door, args), PATIENCE)
    }

    /// The command on `web-1` as `deploy`.
    pub fn exec(&self, person: &str, command: &str) -> Output {
        self.ssh(person, &format!("{LOGIN}@web-1"), &[command])
    }

    /// `ssh gate VERB …`.
    pub fn control(&self, person: &str, args: &[&str]) -> Output {
        self.ssh(person, person, args)
    }

    /// What `ssh gate password TARGET` prints.
    pub fn password(&self, person: &str, target: &str) -> String {
        self.control(person, &["password", target]).ok().out()
    }

    /// The connection string of `psql` for this user and database at the door, without a password.
    pub fn conninfo(&self, user: &str, database: &str) -> String {
        let port = self.gateway.postgres().port();
        let ca = self.client_file("ca.pem");
        format!(
            "host={PUBLIC_NAME} hostaddr=127.0.0.1 port={port} user={user} dbname={database} sslmode=verify-full \
             sslrootcert={} connect_timeout=20",
            ca.display()
        )
    }

    /// `psql CONNINFO ARGS` with this password, not yet run.
    pub fn psql_command(&self, conninfo: &str, password: &str, args: &[&str]) -> Command {
        let mut command = Command::new(binary("psql"));
        command.args(["-X", "-At", "-v", "VERBOSITY=verbose", "-d", conninfo]).args(args);
        for variable in ["PGHOST", "PGUSER", "PGDATABASE", "PGPORT", "PGSERVICE", "PGOPTIONS", "PGSSLMODE"] {
            command.env_remove(variable);
        }
        command.env("PGPASSWORD", password).env("PGPASSFILE", "/nonexistent").env("LC_ALL", "C.UTF-8");
        command
    }

    /// `psql -c SQL` in database `shop` of `orders`, with a new password.
    pub fn psql(&self, user: &str, sql: &str) -> Output {
        let person = user.split('~').next().expect("a name");
        let password = self.password(person, "orders");
        run(self.psql_command(&self.conninfo(user, "orders/shop"), &password, &["-c", sql]), PATIENCE)
    }

    /// A running `psql` that reads statements from its stdin.
    pub fn psql_start(&self, user: &str) -> Running {
        let person = user.split('~').next().expect("a name");
        let password = self.password(person, "orders");
        Running::start(self.psql_command(&self.conninfo(user, "orders/shop"), &password, &[]))
    }
}
