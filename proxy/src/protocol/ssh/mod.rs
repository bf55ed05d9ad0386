//! SSH: the person's OpenSSH on one side, the target's sshd on the other.
//!
//! A connection comes in through the [`door`], if [`admission`] knows whose key it is. Its user name ([`name`]) leads to the
//! control [`shell`] or to a session ([`relay`]), whose channels ([`channel`]) each have a connection to the [`target`] to
//! themselves, with a certificate of its own ([`issuer`]) that the [`lease`] notes, [`kept`] for the session's next
//! channel. What the target says comes in through [`hearing`]. What is special about flow control is in [`flow`], and
//! nowhere else.

mod admission;
mod ahead;
mod algorithms;
mod channel;
mod door;
mod files;
mod flow;
mod forward;
mod hearing;
mod host;
mod inspect;
mod issuer;
mod kept;
mod lease;
mod line;
mod name;
mod prompt;
mod relay;
mod server;
mod shell;
mod shown;
mod survey;
mod target;
mod trial;
mod trust;
mod verbs;

pub use host::HostTrust;
pub use issuer::{Minted, SshIssuer};
pub use shown::shown_host_keys;
pub use target::TargetConnection;
pub use trial::{Tested, trial};
pub use trust::trust;

use super::proxied::Network;
use crate::{
    authenticate::{Elsewhere, Factors, Passwords, Sources},
    gate::Gate,
    listener::Doorway,
    places::{Full, Places},
};
use std::sync::Arc;
use tidegate_ca::Keys;
use tidegate_grants::TargetName;
use tokio::{net::TcpListener, sync::Semaphore};

/// An SSH host as the configuration describes it.
#[derive(Debug, Clone)]
pub struct SshTarget {
    /// Its name at the door.
    pub name: TargetName,
    /// `host:port`.
    pub address: String,
    /// How it proves itself. There is no trust on first use.
    pub host: HostTrust,
    /// The certificate's one principal, with `{login}` and `{target}` in it.
    pub principal: String,
}

impl SshTarget {
    /// The principal of this login's certificates.
    fn principal_of(&self, login: &str) -> String {
        self.principal.replace("{login}", login).replace("{target}", self.name.as_str())
    }
}

/// What the SSH side needs beside the gate.
#[derive(Debug)]
pub struct Ssh {
    /// Shared by all sessions.
    pub gate: Gate,
    /// CAs.
    pub keys: Arc<Keys>,
    /// Who has tried keys that fit nobody.
    pub sources: Sources,
    /// For the host certificate and printed configuration.
    pub public_names: Vec<String>,
    /// What targets see of us: bound into every user certificate.
    pub source_addresses: Vec<String>,
    /// Mints certificates, and looks after what they opened: the reaper's too.
    pub issuer: Arc<SshIssuer>,
    /// For `ssh gate password`.
    pub passwords: Passwords,
    /// Where people log in whose key says nothing yet.
    pub elsewhere: Arc<dyn Elsewhere>,
    /// What people prove beside their keys.
    pub factors: Factors,
    /// Recordings that are being verified for `play`, which reads all of each.
    pub opening: Semaphore,
    /// The port that people type for SSH.
    pub port: u16,
    /// Where `password`, `cert` and `config` say that PostgreSQL listens, if it does: host and port.
    pub postgres: Option<(String, u16)>,
}

/// So many recordings are verified at once for `play`: the disk and its threads are for sessions first.
pub const MOST_OPENING: usize = 2;

/// Accepts connections until the gate stops.
pub async fn serve(listener: TcpListener, places: Places, proxied: Vec<Network>, ssh: Arc<Ssh>) {
    server::serve(listener, Doorway { protocol: "ssh", places, proxied, full }, ssh).await;
}

/// Before its own version a server may send other lines (RFC 4253 section 4.2).
fn full(full: Full) -> Vec<u8> {
    format!("tidegate: {full}; try again in a moment\r\n").into_bytes()
}
