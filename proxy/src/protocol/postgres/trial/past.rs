//! Ways past the gate, tried from the gateway's own address, as a session could try them with what it has: the password
//! that it sets on its own role, and the certificate of its minute.
//!
//! A way in is hung up on at once. Each try ends at a deadline; the client library refuses more than 100,000 iterations of
//! SCRAM, and the password is a random one of a role that is disabled in the next moment, whatever a server does with it.

use super::super::{
    PostgresTarget,
    admin::host_and_port,
    budget::Budget,
    fault::{Fault, plain},
};
use rustls::ClientConfig;
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::timeout};
use tokio_postgres::{
    Client, Config, NoTls,
    config::SslMode,
    tls::{MakeTlsConnect, TlsConnect},
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Dial, TLS and log-in.
const PATIENCE: Duration = Duration::from_secs(4);

/// A way to log in.
#[derive(Debug)]
pub(super) struct Door<'a> {
    /// The target.
    pub(super) target: &'a PostgresTarget,
    /// The role.
    pub(super) user: &'a str,
    /// The database.
    pub(super) database: &'a str,
    /// TLS with or without a certificate of the role, or none.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// The role's password, if it has one.
    pub(super) password: Option<&'a str>,
    /// `-c name=value` …
    pub(super) options: String,
}

/// What came of a try.
#[derive(Debug)]
pub(super) enum Tried {
    /// It opened.
    Open,
    /// The server said no.
    Shut,
    /// It could not be tried.
    Unknown(String),
}

impl Door<'_> {
    /// Logs in. The connection ends when the client is dropped.
    pub(super) async fn enter(&self) -> Result<Client, Fault> {
        let late = |_| Fault::Silent("no answer in time".into());
        timeout(PATIENCE, self.log_in()).await.map_err(late)?
    }

    /// Tries the door, and goes away again.
    pub(super) async fn attempt(&self) -> Tried {
        match self.enter().await {
            Ok(_) => Tried::Open,
            // Class 28: authorization. 3D000: no such database. 42501: no CONNECT on it.
            Err(Fault::Sql { code, .. }) if code.starts_with("28") || code == "3D000" || code == "42501" => Tried::Shut,
            Err(Fault::Refused(_) | Fault::Outdated(_)) => Tried::Shut,
            Err(Fault::Sql { code, message }) => Tried::Unknown(format!("{message} (SQLSTATE {code})")),
            Err(Fault::Silent(cause) | Fault::Impostor(cause) | Fault::Human(cause)) => Tried::Unknown(cause),
        }
    }

    async fn log_in(&self) -> Result<Client, Fault> {
        let silent = |error: std::io::Error| Fault::Silent(plain(&error.to_string()));
        let (host, port) =
            host_and_port(&self.target.address).ok_or_else(|| Fault::Refused("not host:port".to_owned()))?;
        let stream = TcpStream::connect((host, port)).await.map_err(silent)?;
        let stream = Budget::new().around(stream);
        let mut config = Config::new();
        config.user(self.user).dbname(self.database).options(&self.options);
        if let Some(password) = self.password {
            config.password(password);
        }
        let Some(tls) = &self.tls else {
            config.ssl_mode(SslMode::Disable);
            return logged_in(&config, stream, NoTls).await;
        };
        config.ssl_mode(SslMode::Require);
        let mut tls = MakeRustlsConnect::new(tls.as_ref().clone());
        let tls = MakeTlsConnect::<Budget<TcpStream>>::make_tls_connect(&mut tls, host)
            .map_err(|error| Fault::Refused(error.to_string()))?;
        logged_in(&config, stream, tls).await
    }
}

async fn logged_in<T>(config: &Config, stream: Budget<TcpStream>, tls: T) -> Result<Client, Fault>
where
    T: TlsConnect<Budget<TcpStream>>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config.connect_raw(stream, tls).await.map_err(|error| Fault::of(&error))?;
    tokio::spawn(connection);
    Ok(client)
}
