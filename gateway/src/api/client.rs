//! The commands' side of the API: one request per connection over the Unix socket.

use super::{SOCKET, problem::Problem};
use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::net::UnixStream;

/// Nobody answers on the socket: exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("the gateway cannot be reached at {}: {why}", .socket.display())]
pub(crate) struct Unreachable {
    socket: PathBuf,
    why: String,
}

/// The gateway must have answered by then.
const DEADLINE: Duration = Duration::from_secs(30);
/// The gateway may be starting (ECONNREFUSED), or its queue full for a moment (EAGAIN): it is tried so often, with
/// this between.
const TRIES: u32 = 10;
const BETWEEN: Duration = Duration::from_millis(100);
/// Longer answers are not read: a list of a hundred thousand leases fits.
const LARGEST_ANSWER: usize = 256 << 20;

/// Speaks to the gateway of one state directory.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
    runtime: tokio::runtime::Runtime,
}

/// Several things are wrong with what the gateway was given.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub(crate) struct Wrong(pub(crate) Vec<String>);

impl Client {
    /// Does not connect yet.
    pub(crate) fn new(state: &Path) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { socket: state.join(SOCKET), runtime })
    }

    /// `GET`
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.call(Method::GET, path, Bytes::new(), DEADLINE)
    }

    /// `POST`, as JSON
    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        self.post_within(path, body, DEADLINE)
    }

    /// `POST`, as JSON, of what takes the gateway longer
    pub(crate) fn post_within<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        deadline: Duration,
    ) -> anyhow::Result<T> {
        self.call(Method::POST, path, serde_json::to_vec(body)?.into(), deadline)
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        deadline: Duration,
    ) -> anyhow::Result<T> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "tidegate")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let answered = self.runtime.block_on(async { tokio::time::timeout(deadline, self.send(request)).await });
        let (status, answer) = answered.map_err(|_| self.unreachable("no answer in time"))??;
        if status.is_success() {
            return serde_json::from_slice(&answer)
                .context("the gateway's answer makes no sense: is it another version?");
        }
        match serde_json::from_slice::<Problem>(&answer) {
            Ok(problem) if !problem.faults.is_empty() => Err(Wrong(problem.faults).into()),
            Ok(problem) => anyhow::bail!("{}", problem.detail),
            Err(_) => anyhow::bail!("the gateway answered {status}"),
        }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)> {
        let stream = self.connect().await.map_err(|cause| self.unreachable(plainly(&cause)))?;
        let lost = |cause: hyper::Error| self.unreachable(cause.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        let connection = tokio::spawn(connection);
        let response: Response<_> = sender.send_request(request).await.map_err(lost)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
        let body = body.map_err(|cause| self.unreachable(cause.to_string()))?;
        connection.abort();
        Ok((status, body.to_bytes()))
    }

    async fn connect(&self) -> std::io::Result<UnixStream> {
        use std::io::ErrorKind::{ConnectionRefused, WouldBlock};
        for _ in 1..TRIES {
            match UnixStream::connect(&self.socket).await {
                Err(cause) if matches!(cause.kind(), WouldBlock | ConnectionRefused) => {
                    tokio::time::sleep(BETWEEN).await;
                }
                done => return done,
            }
        }
        UnixStream::connect(&self.socket).await
    }

    fn unreachable(&self, why: impl Into<String>) -> Unreachable {
        Unreachable { socket: self.socket.clone(), why: why.into() }
    }
}

fn plainly(cause: &std::io::Error) -> String {
    match cause.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            "it is not running (`tidegate serve` starts it)".to_owned()
        }
        _ => cause.to_string(),
    }
}

/// One segment of a path, percent-encoded (RFC 3986 section 2.1).
pub(crate) fn segment(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_leave_its_segment() {
        assert_eq!(segment("0199-ab"), "0199-ab");
        assert_eq!(segment("../x?y#z\n"), "%2E%2E%2Fx%3Fy%23z%0A");
    }
}
