//! An SSH client that a test drives step by step: it says what OpenSSH's client says only when it likes, or never.

use crate::{
    running::run,
    wait::secs,
    world::{PATIENCE, World},
};
use russh::{
    Channel, ChannelId, ChannelMsg, ChannelOpenFailure, ChannelWriteHalf, Preferred,
    client::{self, AuthResult, Handle, Msg, Session},
    compression,
    keys::{PublicKeyOrCertificate, load_openssh_certificate, load_secret_key},
};
use std::{borrow::Cow, future::Future, net::SocketAddr, path::Path, process::Command, sync::Arc};
use tokio::{sync::mpsc, time::timeout};

/// Where a driver goes: to the gate, or around it to the same server, to see what that does by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Through the gate, as alice.
    Gate,
    /// To the target's own port, with a certificate like the gate's.
    Direct,
}

/// Believes every host: who it talks to is not what its tests are about. Passes on why a channel was refused.
#[derive(Debug)]
pub struct Anybody {
    refusals: mpsc::UnboundedSender<String>,
}

impl client::Handler for Anybody {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }

    async fn channel_open_failure(
        &mut self,
        _: ChannelId,
        _: ChannelOpenFailure,
        description: &str,
        _: &str,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.refusals.send(description.to_owned()).ok();
        Ok(())
    }
}

/// A connection.
pub struct Driver {
    handle: Handle<Anybody>,
    /// Why channels were refused.
    pub refusals: mpsc::UnboundedReceiver<String>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

/// Waits, but not for ever.
pub async fn patiently<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

impl Driver {
    /// Connects and logs in as `deploy` on `web-1`. `window` is what each channel offers.
    pub async fn connect(world: &World, route: Route, window: u32) -> Self {
        let none: &[compression::Name] = &[compression::NONE];
        let config = client::Config {
            window_size: window,
            preferred: Preferred { compression: Cow::Borrowed(none), ..Preferred::DEFAULT },
            ..client::Config::default()
        };
        let (config, key) = (Arc::new(config), world.client_file("alice"));
        let secret = Arc::new(load_secret_key(&key, None).expect("alice's key"));
        let (sender, refusals) = mpsc::unbounded_channel();
        let anybody = Anybody { refusals: sender };
        let connect = |address: SocketAddr| patiently("the handshake", client::connect(config, address, anybody));
        let (handle, login) = match route {
            Route::Gate => {
                let mut handle = connect(world.gateway.ssh()).await.expect("the gate");
                let key = russh::keys::PrivateKeyWithHashAlg::new(secret, None);
                let login = patiently("the login", handle.authenticate_publickey("deploy@web-1", key)).await;
                (handle, login)
            }
            Route::Direct => {
                let certificate = load_openssh_certificate(certified(world, &key)).expect("a certificate");
                let mut handle = connect(([127, 0, 0, 1], world.sshd().port()).into()).await.expect("the target");
                let login = handle.authenticate_openssh_cert("deploy", secret, certificate);
                let login = patiently("the login", login).await;
                (handle, login)
            }
        };
        assert!(matches!(login, Ok(AuthResult::Success)), "{route:?}: {login:?}");
        Self { handle, refusals }
    }

    /// A new session channel.
    pub async fn open(&self) -> Result<Lane, russh::Error> {
        patiently("a channel", self.handle.channel_open_session()).await.map(|channel| Lane { channel })
    }

    /// russh's own handle.
    pub fn handle(&self) -> &Handle<Anybody> {
        &self.handle
    }
}

/// A certificate for a key as the gate would sign it; its file.
fn certified(world: &World, key: &Path) -> std::path::PathBuf {
    let mut sign = Command::new("ssh-keygen");
    sign.arg("-q").arg("-s").arg(world.gateway.state().join("keys/ssh_user_ca"));
    sign.args(["-I", "a test, around the gate", "-n", "deploy@web-1", "-V", "-1m:+1h", "-O", "clear"]);
    sign.args(["-O", "permit-pty"]).arg(key.with_extension("pub"));
    run(sign, secs(20)).ok();
    key.with_file_name(format!("{}-cert.pub", key.file_name().and_then(|n| n.to_str()).expect("a name")))
}

/// One channel of a [`Driver`].
#[derive(Debug)]
pub struct Lane {
    /// russh's own.
    pub channel: Channel<Msg>,
}

impl Lane {
    /// Its number.
    pub fn id(&self) -> ChannelId {
        self.channel.id()
    }

    /// The two halves.
    pub fn split(self) -> (russh::ChannelReadHalf, ChannelWriteHalf<Msg>) {
        self.channel.split()
    }

    /// The next thing that comes, window adjustments apart; `None` once the channel is gone.
    pub async fn next(&mut self) -> Option<ChannelMsg> {
        loop {
            match patiently("word from the other side", self.channel.wait()).await {
                Some(ChannelMsg::WindowAdjusted { .. }) => {}
                other => return other,
            }
        }
    }
}
