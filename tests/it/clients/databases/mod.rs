//! The PostgreSQL clients that people have, each doing what its users do: what works through the gate. README has the table.
//!
//! All against one kind of world: alice may work as the owner of two databases, and the gate is known as `localhost` by its CA,
//! verify-full. What libpq's programs and the drivers read from the environment is all that they are told. Afterwards no
//! role may be left.

mod bouncer;
mod dumps;
mod libraries;
mod with_sqlx;

use super::{GATE, LONG};
use std::process::Command;
use tidegate_tests::{
    World,
    config::PUBLIC_NAME,
    postgres::binary,
    running::{Output, run},
    world::{PATIENCE, Plan},
};

/// An owner of two databases, with room for pools.
const WHOLE: &str = "[[entitlement]]\nname = \"whole\"\ngroups = [\"dba\"]\ntargets = [\"orders\"]\n\
    databases = [\"shop\", \"copy\"]\nroles = [\"shop_writer\"]\nowner = \"shop_owner\"\nmax_connections = 30\n\
    max_duration = \"1h\"\n";
const SECOND: &str = "create database copy;\ngrant create on database shop, copy to shop_owner;\n\
    \\connect copy\ngrant create on schema public to shop_owner;\n";

/// A world with alice's grant and password in it.
struct Databases {
    world: World,
    password: String,
}

impl Databases {
    fn start() -> Self {
        Self::with_room(30)
    }

    /// The same, where alice may have so many sessions at once.
    fn with_room(sessions: usize) -> Self {
        let most = format!("max_connections = {sessions}");
        let whole = WHOLE.replace("max_connections = 30", &most);
        let names = format!("public_names = [\"{PUBLIC_NAME}\", \"{GATE}\"]");
        let plan = Plan::new().only_postgres().change(&format!("public_names = [\"{PUBLIC_NAME}\"]"), &names);
        let world = plan.postgres_sql(SECOND).block(whole).start();
        world.gateway.grant("alice", "orders", "whole", "30m");
        let password = world.password("alice", "orders");
        Self { world, password }
    }

    /// A program of alice's that is told by its environment where the gate is and who she is, in a folder of its own.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let work = self.world.dir().join("work");
        std::fs::create_dir_all(&work).unwrap();
        let mut command = Command::new(program);
        command.current_dir(&work).env("HOME", &work).env("LC_ALL", "C.UTF-8").env("PGPASSFILE", "/nonexistent");
        command.env("PGHOST", GATE).env("PGPORT", self.world.gateway.postgres().port().to_string());
        command.env("PGUSER", "alice@orders").env("PGPASSWORD", &self.password).env("PGDATABASE", "shop");
        command.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", self.world.client_file("ca.pem"));
        command.env("PGCONNECT_TIMEOUT", "20").env_remove("PGOPTIONS").env_remove("PGSERVICE");
        command
    }

    /// A program of PostgreSQL's own, run to its end.
    fn program(&self, name: &str, args: &[&str]) -> Output {
        let mut command = self.command(binary(name));
        command.args(args);
        run(command, LONG)
    }

    /// A script that asserts for itself, run to its end.
    fn script(&self, program: impl AsRef<std::ffi::OsStr>, name: &str) {
        let mut command = self.command(program);
        command.arg(format!("{}/it/clients/databases/{name}", env!("CARGO_MANIFEST_DIR")));
        run(command, LONG).ok();
    }

    /// All sessions are over, and nothing of them is left: neither roles nor leases, and every recording is whole.
    fn assert_nothing_is_left(&self) {
        self.world.gateway.until_no_lease(PATIENCE);
        let none: [String; 0] = [];
        assert_eq!((self.world.pg().ephemeral_roles(), self.world.pg().heirs()), (none.to_vec(), none.to_vec()));
        let recordings = self.world.gateway.recordings();
        assert!(recordings.iter().all(|recording| recording["state"] == "complete"), "{recordings:?}");
    }
}
