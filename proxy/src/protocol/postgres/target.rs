//! The gateway's own connection to a target: TLS that verifies the host in full, then a log-in by client certificate.
//!
//! The target is as little trusted as the client: every step has a deadline ([`TARGET_DEADLINE`] for all of them), every
//! message a bound, bytes that came before TLS close the connection (PostgreSQL CVE-2021-23222), and a target that asks
//! for a password is told nothing.

use super::{
    PostgresTarget,
    fault::{no_to_our_certificate, plain},
    fields::Fields,
    frame::{Framer, Go, Sender},
    issuer::RoleCredential,
    proof,
    startup::{CancelKey, Version, cancel_request, ssl_request},
};
use crate::{
    issuer::{TARGET_DEADLINE, TargetError},
    vanish::Watched,
};
use bytes::BytesMut;
use rustls::{ClientConfig, pki_types::ServerName};
use std::{future::Future, io, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// All that a target may say before it is ready.
const MOST_GREETING: usize = 128 * 1024;

/// A logged-in connection.
#[derive(Debug)]
pub(super) struct Link {
    /// The connection.
    pub(super) stream: TlsStream<Watched>,
    /// What it said on the way.
    pub(super) greeting: Greeting,
}

/// What a target said between start-up and its first ReadyForQuery.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    /// ParameterStatus and NoticeResponse, as they came.
    pub(super) messages: Vec<u8>,
    /// It has taken our credential.
    pub(super) authenticated: bool,
    /// Its cancel key, which stays with us.
    pub(super) key: Option<CancelKey>,
    /// ReadyForQuery as it came, and whatever came behind it.
    pub(super) rest: BytesMut,
}

/// Dials, verifies, logs in.
pub(super) async fn connect(
    target: &PostgresTarget,
    credential: &RoleCredential,
    start_packet: &[u8],
) -> Result<Link, TargetError> {
    within_deadline(target, async {
        let mut stream = secured(target, credential.tls.clone()).await?;
        let name = target.name.as_str();
        stream.write_all(start_packet).await.map_err(|error| lost(name, &error))?;
        stream.flush().await.map_err(|error| lost(name, &error))?;
        let mut greeting = Greeting::default();
        if let Some(password) = &credential.password {
            let end_point = proof::end_point(&stream);
            proof::prove(&mut stream, password, end_point, &mut greeting).await.map_err(|away| away.of(name))?;
        }
        let greeting = hear_out(&mut stream, greeting, name).await?;
        Ok(Link { stream, greeting })
    })
    .await
}

/// Tells the target to cancel what the backend with this key does. Without a client certificate: this logs nobody in,
/// and the session's may have ended.
pub(super) async fn cancel(target: &PostgresTarget, key: &CancelKey) -> Result<(), TargetError> {
    within_deadline(target, async {
        let tls = target.tls(None).map_err(|error| TargetError::Ours(error.to_string()))?;
        let mut stream = secured(target, Arc::new(tls)).await?;
        let lost = |error| lost(target.name.as_str(), &error);
        stream.write_all(&cancel_request(key)).await.map_err(lost)?;
        stream.flush().await.map_err(lost)?;
        // The server closes once it has sent the signal.
        let _ = stream.read(&mut [0u8; 1]).await;
        Ok(())
    })
    .await
}

async fn within_deadline<T>(
    target: &PostgresTarget,
    steps: impl Future<Output = Result<T, TargetError>>,
) -> Result<T, TargetError> {
    timeout(TARGET_DEADLINE, Box::pin(steps)).await.unwrap_or_else(|_| {
        let cause = format!("no answer within {} s", TARGET_DEADLINE.as_secs());
        Err(TargetError::Unreachable { target: target.name.to_string(), cause })
    })
}

async fn secured(target: &PostgresTarget, tls: Arc<ClientConfig>) -> Result<TlsStream<Watched>, TargetError> {
    let name = target.name.as_str();
    let impostor = |cause: &str| TargetError::Impostor { target: name.to_owned(), cause: cause.to_owned() };
    let host =
        host(&target.address).ok_or_else(|| TargetError::Ours(format!("{} is not an address", target.address)))?;
    let tcp = TcpStream::connect(&target.address).await.map_err(|error| lost(name, &error))?;
    tcp.set_nodelay(true).map_err(|error| lost(name, &error))?;
    let mut tcp = Watched::new(tcp).map_err(|error| lost(name, &error))?;
    tcp.write_all(&ssl_request()).await.map_err(|error| lost(name, &error))?;
    let answer = tcp.read_u8().await.map_err(|error| lost(name, &error))?;
    if answer != b'S' {
        return Err(impostor("it does not offer TLS"));
    }
    if something_is_buffered(tcp.socket()) {
        return Err(impostor("it sent bytes before TLS began"));
    }
    TlsConnector::from(tls).connect(host, tcp).await.map_err(|error| lost(name, &error))
}

/// Whether bytes lie in the socket already, where the peer should be waiting for us.
pub(super) fn something_is_buffered(tcp: &TcpStream) -> bool {
    matches!(tcp.try_read(&mut [0u8; 1]), Ok(count) if count > 0)
}

/// The name that the certificate must carry.
fn host(address: &str) -> Option<ServerName<'static>> {
    let (host, _port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(host.to_owned()).ok()
}

/// Who is to blame for a connection that failed.
fn lost(target: &str, error: &io::Error) -> TargetError {
    let (target, cause) = (target.to_owned(), error.to_string());
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => {
            TargetError::Refused { target, cause: no_to_our_certificate(*alert) }
        }
        Some(_) => TargetError::Impostor { target, cause },
        None => TargetError::Unreachable { target, cause },
    }
}

/// Reads up to the first ReadyForQuery.
async fn hear_out<S>(stream: &mut S, mut greeting: Greeting, target: &str) -> Result<Greeting, TargetError>
where
    S: AsyncRead + Unpin,
{
    let mut framer = Framer::new(Sender::TargetStarting);
    let mut buffer = BytesMut::with_capacity(8 * 1024);
    let mut said = 0usize;
    loop {
        let count = stream.read_buf(&mut buffer).await.map_err(|error| lost(target, &error))?;
        said = said.saturating_add(count);
        if count == 0 || said > MOST_GREETING {
            let cause = if count == 0 { "it hung up" } else { "it talks without end before it is ready" };
            return Err(TargetError::Refused { target: target.to_owned(), cause: cause.to_owned() });
        }
        let refused = |cause: String| TargetError::Refused { target: target.to_owned(), cause };
        let mut ready = Ok(None);
        let walk = framer.walk(&buffer, |piece| match greeting.hear(piece.tag, piece.body) {
            Ok(false) => Go::On,
            Ok(true) => {
                ready = Ok(Some(piece.at - 5)); // ReadyForQuery goes on to the client as it came
                Go::Stop
            }
            Err(no) => {
                ready = Err(no);
                Go::Stop
            }
        });
        if let Some(at) = ready.map_err(|no: No| no.of(target))? {
            greeting.rest = buffer.split_off(at);
            return Ok(greeting);
        }
        if let Some(fault) = walk.fault {
            return Err(refused(fault.to_string()));
        }
        let _ = buffer.split_to(walk.taken);
    }
}

/// Why a target will never be ready.
pub(super) enum No {
    /// The connection broke.
    Lost(io::Error),
    /// It does not take our credential, or is no PostgreSQL.
    Refused(String),
    /// What it said once it had taken it, which is about the session: a setting, the database, room for it.
    Answered { code: String, message: String },
}

impl No {
    pub(super) fn of(self, target: &str) -> TargetError {
        let target = target.to_owned();
        match self {
            Self::Lost(error) => lost(&target, &error),
            Self::Refused(cause) => TargetError::Refused { target, cause },
            Self::Answered { code, message } => TargetError::Answered { target, code, message },
        }
    }
}

impl Greeting {
    /// Takes the next message. True when the target is ready; an error says why it never will be.
    pub(super) fn hear(&mut self, tag: u8, body: &[u8]) -> Result<bool, No> {
        let refused = |cause: &str| Err(No::Refused(cause.to_owned()));
        match tag {
            b'R' if Fields(body).u32() == Some(0) => {
                self.authenticated = true;
                Ok(false)
            }
            b'R' => refused("it asked for what our credential is not: see its pg_hba.conf, and `auth` of the target"),
            b'K' => {
                self.key = CancelKey::read(body);
                Ok(false)
            }
            // NegotiateProtocolVersion: before 18 it speaks 3.0. Options, which it could decline, we asked for none.
            b'v' => match Fields(body).u32() {
                Some(version) if (Version::OLDEST.word()..=Version::NEWEST.word()).contains(&version) => Ok(false),
                _ => refused("it does not speak version 3 of the protocol"),
            },
            b'S' | b'N' => {
                self.messages.extend(super::answer::message(tag, &[body]));
                Ok(false)
            }
            b'E' => {
                let (code, message) = error_text(body);
                // Out of room, or shutting down: said before it looks at a credential.
                let about_the_session = self.authenticated || ["53", "57"].iter().any(|class| code.starts_with(class));
                Err(match about_the_session {
                    true => No::Answered { code, message },
                    false => No::Refused(format!("{code} {message}")),
                })
            }
            _ => Ok(true),
        }
    }
}

/// Code and message of an ErrorResponse, fit for a terminal.
fn error_text(body: &[u8]) -> (String, String) {
    let (mut fields, mut code, mut message) = (Fields(body), String::new(), String::new());
    while let Some(field) = fields.byte().filter(|field| *field != 0) {
        let text = plain(&super::fields::bounded(fields.text(), 1024));
        match field {
            b'C' => code = text,
            b'M' => message = text,
            _ => {}
        }
    }
    // A code that is none would be no SQLSTATE for the client either.
    let known = code.len() == 5 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (if known { code } else { "XX000".to_owned() }, message)
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
