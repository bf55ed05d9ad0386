//! The commands' side of the API: one request per connection, over the Unix socket or to a gateway far off.

use super::{SOCKET, problem::Problem, remote::Remote};
use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    task::JoinHandle,
};

/// Nobody answers: exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("the gateway cannot be reached at {place}: {why}")]
pub(crate) struct Unreachable {
    place: String,
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

/// How the gateway is reached.
#[derive(Debug)]
enum Way {
    Socket(PathBuf),
    Https(Box<Remote>),
}

/// What an answer was.
struct Answered {
    status: StatusCode,
    /// Where the next part of a list is.
    next: Option<String>,
    body: Bytes,
}

/// Speaks to one gateway.
#[derive(Debug)]
pub(crate) struct Client {
    way: Way,
    runtime: tokio::runtime::Runtime,
}

/// Several things are wrong with what the gateway was given.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub(crate) struct Wrong(pub(crate) Vec<String>);

/// Either kind of stream.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Client {
    /// To the gateway of this state directory. Does not connect yet.
    pub(crate) fn new(state: &Path) -> std::io::Result<Self> {
        Self::by(Way::Socket(state.join(SOCKET)))
    }

    /// To a gateway far off. Does not connect yet.
    pub(crate) fn remote(remote: Remote) -> std::io::Result<Self> {
        Self::by(Way::Https(Box::new(remote)))
    }

    fn by(way: Way) -> std::io::Result<Self> {
        Ok(Self { way, runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()? })
    }

    /// `GET` of a whole list, in as many parts as it comes.
    pub(crate) fn list<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<Vec<T>> {
        let (mut all, mut at) = (Vec::new(), Some(path.to_owned()));
        while let Some(path) = at {
            let answered = self.ask(Method::GET, &path, Bytes::new(), DEADLINE)?;
            all.append(&mut understood(&answered.body)?);
            at = answered.next;
        }
        Ok(all)
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
        understood(&self.ask(method, path, body, deadline)?.body)
    }

    /// `GET` of what goes on: each piece as it comes, until it ends or the person presses Ctrl-C.
    pub(crate) fn stream(&self, path: &str, mut take: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let request = self.request(Method::GET, path, Bytes::new())?;
        self.runtime.block_on(async {
            let answered = tokio::time::timeout(DEADLINE, self.begin(request)).await;
            let (response, connection) = answered.map_err(|_| self.unreachable("no answer in time"))??;
            let (status, mut body) = (response.status(), response.into_body());
            if !status.is_success() {
                let body = Limited::new(body, LARGEST_ANSWER).collect().await;
                return Err(problem(status, &body.map_err(|cause| self.unreachable(cause.to_string()))?.to_bytes()));
            }
            loop {
                let frame = tokio::select! {
                    frame = body.frame() => frame,
                    _ = tokio::signal::ctrl_c() => break,
                };
                let Some(frame) = frame else { break };
                let frame = frame.map_err(|cause| self.unreachable(cause.to_string()))?;
                frame.data_ref().map_or(Ok(()), |piece| take(piece))?;
            }
            connection.abort();
            Ok(())
        })
    }

    fn ask(&self, method: Method, path: &str, body: Bytes, deadline: Duration) -> anyhow::Result<Answered> {
        let request = self.request(method, path, body)?;
        let answered = self.runtime.block_on(async { tokio::time::timeout(deadline, self.send(request)).await });
        let late = "no answer in time; what was asked for may be done all the same: look before you ask again";
        let answered = answered.map_err(|_| self.unreachable(late))??;
        if answered.status.is_success() { Ok(answered) } else { Err(problem(answered.status, &answered.body)) }
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
        let (host, authorization) = match &self.way {
            Way::Socket(_) => ("tidegate", None),
            Way::Https(remote) => (remote.authority.as_str(), remote.authorization()?),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        request.headers_mut().extend(authorization.map(|value| (header::AUTHORIZATION, value)));
        Ok(request)
    }

    /// The head of the answer, and the task that brings the rest.
    async fn begin(&self, request: Request<Full<Bytes>>) -> anyhow::Result<(Response<Incoming>, JoinHandle<()>)> {
        let stream = self.connect().await?;
        let lost = |cause: hyper::Error| self.unreachable(cause.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        let connection = tokio::spawn(async { drop(connection.await) }); // what went wrong is in the answer, too
        Ok((sender.send_request(request).await.map_err(lost)?, connection))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Answered> {
        let (response, connection) = self.begin(request).await?;
        let status = response.status();
        let next = response.headers().get(header::LINK).and_then(|link| next_part(link.to_str().ok()?));
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
        let body = body.map_err(|cause| self.unreachable(cause.to_string()))?;
        connection.abort();
        Ok(Answered { status, next, body: body.to_bytes() })
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Stream>> {
        match &self.way {
            Way::Socket(socket) => match connected(socket).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(cause) => Err(self.unreachable(plainly(&cause)).into()),
            },
            Way::Https(remote) => match remote.connect().await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(cause) if cause.is::<std::io::Error>() => Err(self.unreachable(cause.to_string()).into()),
                Err(cause) => Err(cause),
            },
        }
    }

    fn unreachable(&self, why: impl Into<String>) -> Unreachable {
        let place = match &self.way {
            Way::Socket(socket) => socket.display().to_string(),
            Way::Https(remote) => format!("https://{}", remote.authority),
        };
        Unreachable { place, why: why.into() }
    }
}

async fn connected(socket: &Path) -> std::io::Result<UnixStream> {
    use std::io::ErrorKind::{ConnectionRefused, WouldBlock};
    for _ in 1..TRIES {
        match UnixStream::connect(socket).await {
            Err(cause) if matches!(cause.kind(), WouldBlock | ConnectionRefused) => {
                tokio::time::sleep(BETWEEN).await;
            }
            done => return done,
        }
    }
    UnixStream::connect(socket).await
}

/// What the gateway says to what it does not do.
fn problem(status: StatusCode, body: &[u8]) -> anyhow::Error {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) if !problem.faults.is_empty() => Wrong(problem.faults).into(),
        Ok(problem) => anyhow::anyhow!("{}", problem.detail),
        Err(_) => anyhow::anyhow!("the gateway answered {status}"),
    }
}

fn understood<T: DeserializeOwned>(body: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(body).context("the gateway's answer makes no sense: is it another version?")
}

/// The address in `<…>; rel="next"` (RFC 8288), if it is one of the API's own.
fn next_part(link: &str) -> Option<String> {
    let (address, relation) = link.strip_prefix('<')?.split_once('>')?;
    (relation.trim_start_matches([';', ' ']) == "rel=\"next\"" && address.starts_with("/v1/"))
        .then(|| address.to_owned())
}

fn plainly(cause: &std::io::Error) -> String {
    match cause.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            "it is not running (`systemctl start tidegate`, or `tidegate serve`), or --config names another gateway's file".to_owned()
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
        assert_eq!(
            next_part("</v1/grants?limit=2&after=0199>; rel=\"next\"").as_deref(),
            Some("/v1/grants?limit=2&after=0199")
        );
        assert_eq!(next_part("<https://elsewhere/v1/>; rel=\"next\""), None);
        assert_eq!(segment("../x?y#z\n"), "%2E%2E%2Fx%3Fy%23z%0A");
    }
}
