//! Webhooks: a signed POST to an address that the configuration fixes.
//!
//! What always holds: it goes to that address and nowhere else, since redirects are not followed; TLS proves the receiver; it takes as long
//! as [`DEADLINE`] at most, and of the answer only the status is read.

use super::{
    NotTaken,
    body::{Format, body, id},
};
use crate::api::remote::roots;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http_body_util::Full;
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1,
    header::{self, HeaderName},
};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::{ClientConfig, crypto::aws_lc_rs, pki_types::ServerName};
use secrecy::{ExposeSecret as _, SecretSlice};
use sha2::Sha256;
use std::{path::PathBuf, pin::pin, sync::Arc, time::Duration};
use tidegate_grants::ledger::Entry;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// From the name's look-up to the answer's status.
const DEADLINE: Duration = Duration::from_secs(10);
/// `t=UNIX SECONDS,v1=HEX`, the HMAC-SHA-256 of the time, a dot and the body: a receiver refuses old ones.
const SIGNATURE: HeaderName = HeaderName::from_static("tidegate-signature");
/// The same entry has the same id, however often it comes.
const ID: HeaderName = HeaderName::from_static("tidegate-id");

/// Where a channel posts to.
#[derive(Debug)]
pub(crate) struct Webhook {
    /// https, or http to this host itself.
    pub(crate) uri: Uri,
    /// What its receiver understands.
    pub(crate) format: Format,
    /// What signs, if something does.
    pub(crate) key: Option<Arc<SecretSlice<u8>>>,
    /// Who signs the receiver's certificate, instead of the system's authorities.
    pub(crate) tls_ca: Option<PathBuf>,
}

impl Webhook {
    /// Posts one entry.
    pub(super) async fn post(&self, gateway: &str, entry: &Entry, now: Timestamp) -> Result<(), NotTaken> {
        let request = self.request(gateway, entry, now).map_err(NotTaken::Never)?;
        let late = || NotTaken::Later("it did not answer in time".to_owned());
        let status = timeout(DEADLINE, self.send(request)).await.map_err(|_| late())?;
        judge(status.map_err(NotTaken::Later)?)
    }

    fn request(&self, gateway: &str, entry: &Entry, now: Timestamp) -> Result<Request<Full<Bytes>>, String> {
        let body = body(self.format, gateway, entry).to_string();
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self.uri.authority().map_or("", |authority| authority.as_str());
        let mut request = Request::post(path)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .header(ID, id(gateway, entry));
        if let Some(key) = &self.key {
            request = request.header(SIGNATURE, signature(key, now, &body)?);
        }
        request.body(Full::new(body.into())).map_err(|error| error.to_string())
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<StatusCode, String> {
        let host = self.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = self.uri.scheme_str() != Some("http");
        let port = self.uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|error| error.to_string())?;
        if !tls {
            return answer(stream, request).await;
        }
        let stream = self.connector()?.connect(ServerName::try_from(host).map_err(|error| error.to_string())?, stream);
        answer(stream.await.map_err(|error| error.to_string())?, request).await
    }

    fn connector(&self) -> Result<TlsConnector, String> {
        let roots = roots(self.tls_ca.as_deref()).map_err(|error| format!("{error:#}"))?;
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

async fn answer<S>(stream: S, request: Request<Full<Bytes>>) -> Result<StatusCode, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(16 << 10)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    let mut answered = pin!(sender.send_request(request));
    let answered = tokio::select! {
        biased;
        answered = &mut answered => answered,
        // What came before they hung up is there to be had.
        _ = connection => answered.await,
    };
    answered.map(|answer| answer.status()).map_err(|error| error.to_string())
}

fn judge(status: StatusCode) -> Result<(), NotTaken> {
    match status.as_u16() {
        200..=299 => Ok(()),
        // Too early, too many, too slow, and what is the receiver's own fault: it may be better later.
        408 | 425 | 429 | 500..=599 => Err(NotTaken::Later(format!("it answered {status}"))),
        300..=399 => Err(NotTaken::Never(format!("it answered {status}, and redirects are not followed"))),
        _ => Err(NotTaken::Never(format!("it answered {status}"))),
    }
}

fn signature(key: &SecretSlice<u8>, now: Timestamp, body: &str) -> Result<String, String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret()).map_err(|error| error.to_string())?;
    let second = now.as_second();
    mac.update(format!("{second}.{body}").as_bytes());
    let code = mac.finalize().into_bytes();
    Ok(format!("t={second},v1={}", data_encoding::HEXLOWER.encode(&code)))
}
