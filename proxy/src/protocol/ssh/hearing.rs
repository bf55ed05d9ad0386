//! What a target says, as russh hears it: entries of one queue.
//!
//! What always holds: nothing here waits (see [`flow`](super::flow)); a target that does not prove to be the host that the
//! configuration names ends the handshake, and so does a cipher that lets messages be cut out; a target opens no channel;
//! only what comes on the channel that we opened last is heard; and the last thing heard of a connection is that it is
//! gone.
//!
//! It is apart from [`target`](super::target), where we speak, because russh runs it in a task of its own: the queue is all
//! that the two share. Most of it is to say no where russh's defaults say yes.

use super::{
    flow::Queue,
    host::{HostTrust, Impostor},
};
use jiff::Timestamp;
use russh::{
    Channel, ChannelId, ChannelOpenFailure, Sig, cipher,
    client::{self, ChannelOpenHandle, DisconnectReason, Msg, Session},
    keys::PublicKeyOrCertificate,
};
use std::sync::{Arc, OnceLock};

/// Past this, an error message of a target is cut.
const LONGEST_MESSAGE: usize = 256;

/// What a target sends on its channel, beside data.
#[derive(Debug)]
pub(super) enum FromTarget {
    /// To a request that wanted an answer.
    Answer(bool),
    Eof,
    ExitStatus(u32),
    ExitSignal {
        signal: Sig,
        core: bool,
        message: String,
    },
    /// It closed the channel.
    Close,
    /// The connection is gone.
    Gone,
}

/// russh's handler on this side: it only queues, and never waits.
pub(super) struct Hearing {
    down: Arc<Queue<FromTarget>>,
    /// What the target has to show.
    trust: HostTrust,
    now: Timestamp,
    /// Why what it showed was not it.
    impostor: Arc<OnceLock<Impostor>>,
    /// The channel that we opened last. What comes on any other one is not the session's, and is not heard.
    channel: Option<ChannelId>,
}

impl Hearing {
    /// For a connection that has still to be made. What comes on it goes to `down`; the host is judged as of `now`.
    pub(super) fn new(down: Arc<Queue<FromTarget>>, trust: HostTrust, now: Timestamp) -> Self {
        Self { down, trust, now, impostor: Arc::default(), channel: None }
    }

    /// Where it will say why the host was not the right one, if it was not.
    pub(super) fn impostor(&self) -> Arc<OnceLock<Impostor>> {
        self.impostor.clone()
    }

    fn hear(&self, channel: ChannelId, event: FromTarget) {
        if self.channel == Some(channel) {
            self.down.push(event);
        }
    }

    fn hear_data(&self, channel: ChannelId, extended: Option<u32>, data: &[u8]) {
        if self.channel == Some(channel) {
            self.down.push_data(extended, data);
        }
    }
}

/// We ask a target for no forwarding, so it has no channel to open. (russh's defaults accept every one.)
async fn reject(reply: ChannelOpenHandle) -> Result<(), russh::Error> {
    reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await; // sends to an unbounded queue
    Ok(())
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.down.push(FromTarget::Gone);
    }
}

impl client::Handler for Hearing {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(match self.trust.check(shown, self.now) {
            Ok(()) => true,
            Err(impostor) => {
                let _ = self.impostor.set(impostor); // asked once for each handshake
                false
            }
        })
    }

    async fn kex_done(
        &mut self,
        _secret: Option<&[u8]>,
        names: &russh::Names,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        // CVE-2023-48795: without strict key exchange, ChaCha20-Poly1305 lets messages be cut out.
        if names.cipher == cipher::CHACHA20_POLY1305 && !names.strict_kex() {
            return Err(russh::Error::Kex);
        }
        Ok(())
    }

    async fn channel_open_confirmation(
        &mut self,
        channel: ChannelId,
        _largest_packet: u32,
        _window: u32,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.down.discard(); // what came late for the channel before
        self.channel = Some(channel);
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reject(reply).await
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _host: &str,
        _port: u32,
        _from: &str,
        _from_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reject(reply).await
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reject(reply).await
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _host: &str,
        _port: u32,
        _from: &str,
        _from_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reject(reply).await
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reject(reply).await
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reject(reply).await
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _from: &str,
        _from_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reject(reply).await
    }

    async fn should_accept_unknown_server_channel(&mut self, _: ChannelId, _kind: &str) -> bool {
        false
    }

    async fn channel_success(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), russh::Error> {
        self.hear(channel, FromTarget::Answer(true));
        Ok(())
    }

    async fn channel_failure(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), russh::Error> {
        self.hear(channel, FromTarget::Answer(false));
        Ok(())
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], _: &mut Session) -> Result<(), russh::Error> {
        self.hear_data(channel, None, data);
        Ok(())
    }

    async fn extended_data(
        &mut self,
        channel: ChannelId,
        stream: u32,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.hear_data(channel, Some(stream), data);
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), russh::Error> {
        self.hear(channel, FromTarget::Eof);
        Ok(())
    }

    async fn exit_status(&mut self, channel: ChannelId, status: u32, _: &mut Session) -> Result<(), russh::Error> {
        self.hear(channel, FromTarget::ExitStatus(status));
        Ok(())
    }

    async fn exit_signal(
        &mut self,
        channel: ChannelId,
        signal: Sig,
        core: bool,
        message: &str,
        _language: &str,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        let message = message.chars().take(LONGEST_MESSAGE).collect();
        self.hear(channel, FromTarget::ExitSignal { signal, core, message });
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), russh::Error> {
        self.hear(channel, FromTarget::Close);
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<russh::Error>) -> Result<(), russh::Error> {
        self.down.push(FromTarget::Gone);
        match reason {
            DisconnectReason::ReceivedDisconnect(_) => Ok(()),
            DisconnectReason::Error(error) => Err(error),
        }
    }
}
