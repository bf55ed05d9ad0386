//! The door: russh's server handler. It turns what a client sends into entries of queues, and decides what needs no
//! target to decide.
//!
//! What always holds: once somebody is in, nothing here waits (see [`flow`](super::flow)); and a channel
//! or a request that is not known to be carried is refused here, whatever the entitlement says. Who gets in is the matter of
//! [`admission`](super::admission); the name only says where to.

use super::{
    Ssh,
    admission::{Admission, Progress},
    flow::Windows,
    forward::Forward,
    line::{Arrivals, Connection, FromClient, Line, MOST_LINES, Seat, Start, Terminal},
    name::DoorName,
    prompt::VARIABLES,
    relay, shell,
};
use crate::refusal::Refusal;
use bytes::Bytes;
use russh::{
    Channel, ChannelId, ChannelOpenFailure, Disconnect, Pty, Sig,
    keys::Certificate,
    server::{Auth, ChannelOpenHandle, Handle, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey},
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError},
};
use tidegate_grants::{Access, Ask, Reference};
use tokio::time::Instant;

/// Longest `TERM`, environment value or subsystem name that is carried.
const LONGEST_TEXT: usize = 1024;

/// One client connection in russh's hands.
pub(super) struct Door {
    ssh: Arc<Ssh>,
    source: IpAddr,
    connection: Arc<Connection>,
    arrivals: Option<Arrivals>,
    progress: Arc<Progress>,
    windows: Windows,
    admission: Admission,
    to_target: bool,
}

impl Door {
    pub(super) fn new(
        ssh: Arc<Ssh>,
        peer: SocketAddr,
        connection: Arc<Connection>,
        arrivals: Arrivals,
        progress: Arc<Progress>,
    ) -> Self {
        let windows = Windows::new(connection.hold.clone());
        let source = peer.ip().to_canonical();
        let admission = Admission::new(ssh.clone(), source, progress.clone());
        Self { ssh, source, connection, arrivals: Some(arrivals), progress, windows, admission, to_target: false }
    }

    fn line(&self, id: ChannelId) -> Option<Arc<Line>> {
        self.connection.line(id)
    }

    /// A request that only counts before the program starts, answered at once: russh keeps one pending answer per
    /// channel, and clients send the next request without waiting for this one's.
    fn before_start(
        &self,
        id: ChannelId,
        event: Option<FromClient>,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        match (self.line(id), event) {
            (Some(line), Some(event)) if !line.started() => {
                if matches!(event, FromClient::Terminal(_)) {
                    line.set_terminal();
                }
                line.up.push(event);
                session.channel_success(id)
            }
            _ => session.channel_failure(id),
        }
    }

    /// The answer comes from the target, through the task that serves the channel.
    fn start(&self, id: ChannelId, start: Start, session: &mut Session) -> Result<(), russh::Error> {
        match self.line(id) {
            Some(line) if line.start() => {
                line.up.push(FromClient::Start(start));
                Ok(())
            }
            _ => session.channel_failure(id),
        }
    }

    /// What is not carried, whatever the entitlement says. Told on a terminal: OpenSSH is silent about most of it.
    fn deny(&self, id: ChannelId, what: &'static str) {
        self.connection.deny(what);
        if let Some(line) = self.line(id)
            && !line.started()
        {
            line.up.push(FromClient::Denied(what));
        }
    }

    /// Whoever serves the session decides, and answers.
    async fn forward(&self, channel: Channel<Msg>, forward: Forward, handle: Handle) {
        let (read, write) = channel.split();
        drop(read); // its queue would block russh's loop
        if let Err(Some(forward)) = self.connection.add(write, handle, Some(Box::new(forward))) {
            forward.too_many(&Refusal::new(too_many())).await;
        }
    }

    fn push(&self, id: ChannelId, event: FromClient) {
        if let Some(line) = self.line(id) {
            line.up.push(event);
        }
    }

    /// Starts what serves this connection. It runs on its own: a session's teardown outlives its client.
    fn seat(&mut self) {
        let (Some(admitted), Some(arrivals)) = (self.admission.take(), self.arrivals.take()) else {
            return;
        };
        let seat = Seat { connection: self.connection.clone(), arrivals };
        let (ssh, source) = (self.ssh.clone(), self.source);
        let tasks = self.ssh.gate.tasks.clone();
        match admitted.name {
            Ok(DoorName::Target { login, entitlement, target }) => {
                self.to_target = true;
                let (identity, device) = (admitted.identity, admitted.device);
                let (access, reference) = (Access::Login(login), Reference::new());
                let ask = Ask { identity, target, access, entitlement, source, factor: None, device, reference };
                tasks.spawn(relay::session(ssh, ask, seat));
            }
            Ok(DoorName::Shell) => {
                tasks.spawn(shell::serve(ssh, admitted, source, seat));
            }
            Err(fault) => {
                let name = self.progress.name.lock().unwrap_or_else(PoisonError::into_inner).clone();
                tasks.spawn(relay::malformed(ssh, source, name, fault, seat));
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.connection.leave();
    }
}

/// Only variables that say how text looks, and ours. Anything else could steer a program on the target.
fn carried(name: &str) -> bool {
    name == "LANG"
        || name == "TERM"
        || VARIABLES.contains(&name) // for us, and no further
        || name.strip_prefix("LC_").is_some_and(|rest| {
            !rest.is_empty() && rest.len() <= 32 && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        })
}

fn printable(text: &str) -> bool {
    text.len() <= LONGEST_TEXT && !text.chars().any(char::is_control)
}

fn too_many() -> String {
    format!("one connection has up to {MOST_LINES} channels; close one, or connect anew")
}

/// What a forwarding that is not carried hears.
fn refused(reason: &str) -> ChannelOpenFailure {
    // 1: SSH_OPEN_ADMINISTRATIVELY_PROHIBITED (RFC 4254 section 5.1)
    ChannelOpenFailure::Other { code: 1, reason: format!("tidegate: {reason}") }
}

impl Handler for Door {
    type Error = russh::Error;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, russh::Error> {
        Ok(self.admission.none(user))
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, russh::Error> {
        Ok(self.admission.offered(user, &offer))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        Ok(self.admission.key(user, key.public_key).await)
    }

    async fn auth_openssh_certificate(&mut self, user: &str, certificate: &Certificate) -> Result<Auth, russh::Error> {
        Ok(self.admission.certificate(user, certificate).await)
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        let typed = response.map(|mut answers| answers.next().and_then(|answer| String::from_utf8(answer.into()).ok()));
        Ok(self.admission.code(user, typed).await)
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), russh::Error> {
        self.connection.admit(session.handle());
        self.progress.admitted.cancel();
        self.seat();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let (read, write) = channel.split();
        drop(read); // its queue would block russh's loop
        let handle: Handle = session.handle();
        match self.connection.add(write, handle, None) {
            Ok(()) => reply.accept().await, // sends to an unbounded queue
            // 4: SSH_OPEN_RESOURCE_SHORTAGE (RFC 4254 section 5.1)
            Err(_) => {
                let reason = format!("tidegate: {}", too_many());
                reply.reject(ChannelOpenFailure::Other { code: 4, reason }).await;
            }
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _from: &str,
        _from_port: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        if self.to_target {
            self.forward(channel, Forward::to_port(host, port, reply), session.handle()).await;
            return Ok(());
        }
        // `ssh -J gate` and `ssh -W`: OpenSSH shows the reason of a disconnect, and waits for nothing else.
        let advice = "a jump through the gate would not be recorded; type instead: ssh LOGIN@TARGET@gate";
        reply.reject(refused(advice)).await;
        session.disconnect(Disconnect::ByApplication, &format!("tidegate: {advice}"), "en")
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        if self.to_target {
            self.forward(channel, Forward::to_socket(path, reply), session.handle()).await;
        } else {
            reply.reject(refused("there is nothing to forward to here; type: ssh LOGIN@TARGET@gate")).await;
        }
        Ok(())
    }

    async fn channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _from: &str,
        _from_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.reject(refused("X11 forwarding is not allowed here")).await;
        Ok(())
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host: &str,
        _port: u32,
        _from: &str,
        _from_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.reject(refused("port forwarding is not allowed here")).await;
        Ok(())
    }

    fn adjust_window(&mut self, channel: ChannelId, granted: u32) -> u32 {
        self.windows.next(granted, self.connection.stalled(channel), Instant::now())
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], _session: &mut Session) -> Result<(), russh::Error> {
        self.windows.seen(data.len(), Instant::now());
        if let Some(line) = self.line(channel) {
            line.up.push_data(None, data);
        }
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), russh::Error> {
        self.push(channel, FromClient::Eof);
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), russh::Error> {
        self.connection.remove(channel);
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let terminal = printable(term).then(|| Terminal {
            term: term.to_owned(),
            columns,
            rows,
            pixels: (width, height),
            modes: modes.to_vec(),
        });
        self.before_start(channel, terminal.map(FromClient::Terminal), session)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let event =
            (carried(name) && printable(value)).then(|| FromClient::Environment(name.to_owned(), value.to_owned()));
        self.before_start(channel, event, session)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        self.start(channel, Start::Shell, session)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.start(channel, Start::Exec(Bytes::copy_from_slice(data)), session)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        if !printable(name) {
            return session.channel_failure(channel);
        }
        self.start(channel, Start::Subsystem(name.to_owned()), session)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.deny(channel, "X11 forwarding");
        session.channel_failure(channel)
    }

    async fn agent_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<bool, russh::Error> {
        self.deny(channel, "agent forwarding");
        session.channel_failure(channel)?;
        Ok(false)
    }

    async fn tcpip_forward(&mut self, host: &str, port: &mut u32, _: &mut Session) -> Result<bool, russh::Error> {
        self.connection.deny(&format!("remote forwarding of {host}:{port}"));
        Ok(false)
    }

    async fn streamlocal_forward(&mut self, path: &str, _: &mut Session) -> Result<bool, russh::Error> {
        self.connection.deny(&format!("remote forwarding of unix:{path}"));
        Ok(false)
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.push(channel, FromClient::Resize { columns, rows, pixels: (width, height) });
        Ok(())
    }

    async fn signal(&mut self, channel: ChannelId, signal: Sig, _session: &mut Session) -> Result<(), russh::Error> {
        // Other names would go on as they came. (russh does not know one of RFC 4254 section 6.10.)
        if !matches!(&signal, Sig::Custom(name) if name != "USR2") {
            self.push(channel, FromClient::Signal(signal));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_variables_that_say_how_text_looks_are_carried() {
        assert!(["LANG", "TERM", "LC_ALL", "LC_CTYPE", "TIDEGATE_REASON"].into_iter().all(carried));
        assert!(
            !["", "LC_", "LD_PRELOAD", "PATH", "LANGUAGE", "LC_A=B", "lang", "TIDEGATE_CONFIG"]
                .into_iter()
                .any(carried)
        );
    }
}
