//! Clients inside the test's own process, for tests that need thousands of them: over SSH by russh, over PostgreSQL by
//! tokio-postgres. What people's own clients do is tested with those.

use crate::{World, config::PUBLIC_NAME};
use russh::{
    Channel, ChannelMsg,
    client::{self, Handle, Msg},
    keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use ssh_key::PrivateKey;
use std::{path::Path, sync::Arc, time::Duration};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Takes whoever answers: these tests are not about that.
#[derive(Debug)]
pub struct Anyone;

impl client::Handler for Anyone {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

/// How to get to the gateway's SSH door, with whose key.
#[derive(Debug, Clone)]
pub struct Shell {
    door: std::net::SocketAddr,
    key: Arc<PrivateKey>,
}

impl Shell {
    /// As this person.
    ///
    /// # Panics
    ///
    /// They have no key.
    pub fn of(world: &World, person: &str) -> Self {
        let key = PrivateKey::read_openssh_file(world.client_file(person)).expect("their key");
        Self { door: world.gateway.ssh(), key: Arc::new(key) }
    }

    /// Logged in at the door, for `deploy@web-1`; no session is open. The connection lives as long as what this returns.
    ///
    /// # Errors
    ///
    /// The door's.
    pub async fn log_in(&self) -> Result<Handle<Anyone>, russh::Error> {
        let settings = Arc::new(client::Config { inactivity_timeout: None, ..client::Config::default() });
        let mut handle = client::connect(settings, self.door, Anyone).await?;
        let key = PrivateKeyWithHashAlg::new(self.key.clone(), None);
        match handle.authenticate_publickey("deploy@web-1", key).await?.success() {
            true => Ok(handle),
            false => Err(russh::Error::NotAuthenticated),
        }
    }

    /// A session whose command has said its first bytes.
    ///
    /// # Errors
    ///
    /// The door's, or the command said nothing.
    pub async fn open(&self, command: &str) -> Result<(Handle<Anyone>, Channel<Msg>), russh::Error> {
        let handle = self.log_in().await?;
        let mut channel = handle.channel_open_session().await?;
        channel.exec(true, command).await?;
        loop {
            match channel.wait().await {
                Some(ChannelMsg::Data { .. }) => return Ok((handle, channel)),
                None | Some(ChannelMsg::ExitStatus { .. } | ChannelMsg::Close) => return Err(russh::Error::Disconnect),
                Some(_) => {}
            }
        }
    }
}

/// A logged-in session at a database.
#[derive(Debug)]
pub struct Session {
    /// What to ask it by.
    pub client: Client,
    connection: JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl Session {
    /// Says good-bye, and waits until the connection is closed.
    ///
    /// # Panics
    ///
    /// It did not close as it should.
    pub async fn leave(self) {
        drop(self.client);
        self.connection.await.expect("no panic").expect("a good end");
    }
}

/// How to get to a database, and over which TLS.
#[derive(Clone)]
pub struct Database {
    config: Config,
    tls: MakeRustlsConnect,
}

impl Database {
    /// `orders/shop` through the gate, as alice with this entitlement.
    pub fn gate(world: &World, entitlement: &str) -> Self {
        let mut config = Config::new();
        config.host(PUBLIC_NAME).port(world.gateway.postgres().port()).dbname("orders/shop");
        config.user(format!("alice~{entitlement}")).password(world.password("alice", "orders"));
        Self::of(config, &world.client_file("ca.pem"))
    }

    /// The target itself, with a login of its own: what the gate is compared with.
    pub fn direct(world: &World) -> Self {
        world.pg().psql("shop", "create role direct login password 'direct' in role shop_reader").ok();
        let mut config = Config::new();
        config.host("localhost").port(world.pg().port()).dbname("shop").user("direct").password("direct");
        Self::of(config, &world.pg().tls_ca())
    }

    fn of(mut config: Config, ca: &Path) -> Self {
        config.hostaddr([127, 0, 0, 1].into()).ssl_mode(SslMode::Require);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).expect("a certificate")).expect("an authority");
        let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Self { config, tls: MakeRustlsConnect::new(tls) }
    }

    /// Logged in.
    ///
    /// # Errors
    ///
    /// The door's.
    pub async fn log_in(&self) -> Result<Session, tokio_postgres::Error> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        Ok(Session { client, connection: tokio::spawn(connection) })
    }
}

/// Prints the median, the 99 % and the longest of durations.
pub fn print_quantiles(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let Some(last) = took.len().checked_sub(1) else { return };
    let ms = |percent: usize| took.get(last * percent / 100).map_or(0.0, |took| took.as_secs_f64() * 1e3);
    eprintln!("{what}: median {:.1} ms, 99 % within {:.1} ms, longest {:.1} ms", ms(50), ms(99), ms(100));
}
