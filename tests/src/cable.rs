//! A server's own host on the network, at the end of a cable that can be pulled: a network namespace and a pair of veth.
//!
//! It goes away with its holder, which the kernel ends when the test process dies.

use crate::{
    daemon::{Daemon, Signal, mortal},
    running::run,
    scratch::Port,
    wait::{secs, wait_until},
};
use std::{fs, path::Path, process::Command};

/// The cable, and the host at its other end.
#[derive(Debug)]
pub struct Cable {
    /// The address of this end, by which the machine comes to the host.
    pub near: String,
    /// The host's own.
    pub far: String,
    plug: String,
    holder: Daemon,
    /// Its number is nobody else's: the network and the plugs get it too.
    _number: Port,
}

impl Cable {
    /// A host with a loopback and the far end, which answers. Its holder's log is in this folder.
    pub fn lay(dir: &Path) -> Self {
        let number = Port::take();
        let n = number.number() - 20_000;
        let (near, far) =
            (format!("10.{}.{}.1", 200 + n / 256, n % 256), format!("10.{}.{}.2", 200 + n / 256, n % 256));
        let (outer, plug) = (format!("tg{n}"), format!("tgp{n}"));
        let mut command = mortal("KILL", None);
        command.args(["unshare", "--net", "sleep", "infinity"]);
        let holder = Daemon::spawn("a host", command, &dir.join("host.log"), Signal::KILL, None);
        // `unshare` execs: this process is the one in the new namespace, once it is.
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let cable = Self { near, far, plug, holder, _number: number };
        let namespace = cable.namespace();
        wait_until(secs(60), "the namespace is there", || (fs::read_link(&namespace).ok()? != own).then_some(()));
        let pid = cable.holder.pid().to_string();
        ip(&["link", "add", &outer, "type", "veth", "peer", "name", &cable.plug, "netns", &pid]);
        ip(&["addr", "add", &format!("{}/30", cable.near), "dev", &outer]);
        ip(&["link", "set", &outer, "up"]);
        cable.there(&["ip", "addr", "add", &format!("{}/30", cable.far), "dev", &cable.plug]);
        cable.there(&["ip", "link", "set", "lo", "up"]);
        cable.plug_in();
        cable
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.pid())
    }

    /// The same command, on the host.
    pub fn on_it(&self, command: &Command) -> Command {
        let mut there = Command::new("nsenter");
        there.arg(format!("--net={}", self.namespace())).arg("--").arg(command.get_program()).args(command.get_args());
        if let Some(dir) = command.get_current_dir() {
            there.current_dir(dir);
        }
        there
    }

    fn there(&self, command: &[&str]) {
        let mut here = Command::new(command[0]);
        here.args(&command[1..]);
        run(self.on_it(&here), secs(20)).ok();
    }

    /// From now on what is sent gets lost, either way; nobody is told.
    pub fn pull(&self) {
        self.there(&["ip", "link", "set", &self.plug, "down"]);
    }

    /// It works, again.
    pub fn plug_in(&self) {
        self.there(&["ip", "link", "set", &self.plug, "up"]);
    }
}

fn ip(args: &[&str]) {
    let mut command = Command::new("ip");
    command.args(args);
    run(command, secs(20)).ok();
}
