//! SSH: the person's OpenSSH on one side, the target's sshd on the other.

use crate::{authenticate::Passwords, gate::Gate, trust::Part};
use russh::keys::PublicKey;
use std::{collections::BTreeMap, sync::Arc};
use tidegate_ca::Keys;
use tidegate_grants::{Login, TargetName};
use tokio::net::TcpListener;

/// An SSH host as the configuration describes it.
#[derive(Debug, Clone)]
pub struct SshTarget {
    /// Its name at the door.
    pub name: TargetName,
    /// `host:port`.
    pub address: String,
    /// The only key that it may prove itself with. There is no trust on first use.
    pub host_key: PublicKey,
    /// The certificate's one principal, with `{login}` and `{target}` in it.
    pub principal: String,
}

/// What the SSH side needs beside the gate.
#[derive(Debug)]
pub struct Ssh {
    /// Shared by all sessions.
    pub gate: Gate,
    /// CAs.
    pub keys: Arc<Keys>,
    /// By name.
    pub targets: BTreeMap<TargetName, SshTarget>,
    /// For the host certificate and printed configuration.
    pub public_names: Vec<String>,
    /// What targets see of us: bound into every user certificate.
    pub source_addresses: Vec<String>,
    /// For `ssh gate password`.
    pub passwords: Passwords,
    /// Where `ssh gate password` and `config` say that PostgreSQL listens (`host:port`), if it does.
    pub postgres: Option<String>,
}

/// Accepts connections until the gate stops.
pub async fn serve(listener: TcpListener, ssh: Arc<Ssh>) {
    let _ = (listener, ssh);
    todo!()
}

/// What to install on the target: parts `ca`, `sshd_config`, `principals`.
pub fn trust(ssh: &Ssh, target: &SshTarget, logins: &[Login]) -> Vec<Part> {
    let _ = (ssh, target, logins);
    todo!()
}
