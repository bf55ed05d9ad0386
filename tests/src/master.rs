//! OpenSSH's ControlMaster: one connection, and many clients that open their channels on it.

use crate::{
    running::{Running, run},
    wait::{secs, wait_until},
    world::World,
};
use std::process::Command;

/// A ControlMaster to `deploy@web-1`, as alice, that ends with its owner.
#[derive(Debug)]
pub struct Master<'w> {
    world: &'w World,
    socket: String,
    /// The master itself.
    pub process: Running,
}

impl<'w> Master<'w> {
    /// Starts it, and waits until it takes clients.
    pub fn start(world: &'w World) -> Self {
        Self::with(world, &[])
    }

    /// The same, with more options for its own command line.
    pub fn with(world: &'w World, options: &[&str]) -> Self {
        let socket = world.dir().join("master").display().to_string();
        let more = [&["-N", "-o", "ControlMaster=yes", "-S", &socket], options].concat();
        let process = Running::start(world.ssh_command("alice", &more, "deploy@web-1", &[]));
        let master = Self { world, socket, process };
        wait_until(secs(60), "the ControlMaster is up", || {
            let mut check = Command::new("ssh");
            check.args(["-F", "none", "-S", &master.socket, "-O", "check", "deploy@web-1@127.0.0.1"]);
            (run(check, secs(20)).code == Some(0)).then_some(())
        });
        master
    }

    /// A client of it, not yet run.
    pub fn command(&self, command: &str) -> Command {
        self.with_options(&[], command)
    }

    /// The same, with more options.
    pub fn with_options(&self, options: &[&str], command: &str) -> Command {
        let options = [&["-S", &self.socket], options].concat();
        self.world.ssh_command("alice", &options, "deploy@web-1", &[command])
    }
}
