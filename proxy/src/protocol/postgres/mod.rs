//! PostgreSQL: `psql` and drivers on one side, the target's server on the other.
//!
//! A connection's way: [`door`] (TLS, start-up packet, SCRAM) → [`session::run`](crate::session::run) on a
//! [`client`] → [`target`] (the target's log-in) → [`relay`] with two [`pump`]s. Bytes are interpreted in [`startup`],
//! [`frame`], [`fields`], [`scram`] and [`watch`], which touch no socket.

mod admin;
mod advice;
mod answer;
mod budget;
mod cancel;
mod certificate;
mod client;
mod door;
mod fault;
mod fields;
mod frame;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod issuer;
mod login;
mod names;
mod proof;
mod pump;
mod quoted;
mod receipt;
mod relay;
mod replica;
mod role;
mod scram;
mod startup;
mod sweep;
mod target;
mod teardown;
mod trial;
pub mod trust;
mod waiting;
mod watch;

pub use trial::{Tested, trial};

use super::proxied::Network;
use crate::{
    authenticate::Passwords,
    gate::Gate,
    listener::{self, Doorway},
    places::{Full, Places},
    refusal::Refusal,
    tls,
};
use answer::Fatal;
use door::Door;
use issuer::PostgresIssuer;
use rustls::{ClientConfig, client::Resumption, crypto::aws_lc_rs};
use secrecy::SecretString;
use std::sync::Arc;
use tidegate_ca::{Keys, TlsIdentity};
use tidegate_grants::TargetName;
use tokio::net::TcpListener;

/// A PostgreSQL server as the configuration describes it.
#[derive(Debug, Clone)]
pub struct PostgresTarget {
    /// Its name at the door.
    pub name: TargetName,
    /// `host:port`. TLS is verify-full against this host, always.
    pub address: String,
    /// Where roles are made and removed, if `address` is a replica: its primary.
    pub admin_address: Option<String>,
    /// What its certificate must chain to.
    pub roots: Arc<rustls::RootCertStore>,
    /// The gateway's login there, which may only call our functions.
    pub admin_user: String,
    /// How the gateway and its sessions log in.
    pub auth: Auth,
}

impl PostgresTarget {
    /// Where roles are made and removed.
    pub(crate) fn primary(&self) -> &str {
        self.admin_address.as_deref().unwrap_or(&self.address)
    }

    /// TLS that verifies the target in full, and shows it this certificate, or none.
    fn tls(&self, shown: Option<TlsIdentity>) -> Result<ClientConfig, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots.clone());
        let mut config = match shown {
            Some(TlsIdentity { chain, key, .. }) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![door::ALPN.to_vec()];
        // A resumed session would outlive the certificate's minute.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// How a target is logged in to.
#[derive(Debug, Clone)]
pub enum Auth {
    /// By certificates of a minute: there is no standing secret.
    Certificate,
    /// By SCRAM-SHA-256, where the client CA or `pg_hba.conf` is not ours to set. This is the password of the gateway's own
    /// login; each session has a random one of its own.
    Scram(SecretString),
}

/// What the PostgreSQL side needs beside the gate.
#[derive(Debug)]
pub struct Postgres {
    /// Shared by all sessions.
    pub gate: Gate,
    /// CAs.
    pub keys: Arc<Keys>,
    /// Of the listener.
    pub certificate: tls::Source,
    /// Short-lived passwords.
    pub passwords: Passwords,
    /// Mints and removes ephemeral roles.
    pub issuer: Arc<PostgresIssuer>,
}

/// Accepts connections until the gate stops.
pub async fn serve(listener: TcpListener, places: Places, proxied: Vec<Network>, postgres: Arc<Postgres>) {
    let gate = postgres.gate.clone();
    let door = Arc::new(Door::new(postgres));
    let doorway = Doorway { protocol: "postgres", places, proxied, full };
    listener::accept(listener, &gate, doorway, move |stream, visitor| door::welcome(door.clone(), stream, visitor))
        .await;
}

/// PostgreSQL itself says so before TLS, when it cannot even start a process for somebody.
fn full(full: Full) -> Vec<u8> {
    Fatal::new(answer::FULL, Refusal::new(full.to_string()).next("try again in a moment").full()).to_bytes()
}
