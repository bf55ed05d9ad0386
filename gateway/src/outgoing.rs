//! One request to an address that the configuration fixes: a webhook's, or a ticket system's.
//!
//! What always holds: it goes to that address and nowhere else, since redirects are not followed; TLS proves who answers; it takes as long
//! as [`DEADLINE`] at most, and of the answer only the status is read.

use crate::api::remote::roots;
use http_body_util::Full;
use hyper::{Request, StatusCode, Uri, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, crypto::aws_lc_rs, pki_types::ServerName};
use std::{net::IpAddr, path::Path, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// From the name's look-up to the answer's status.
const DEADLINE: Duration = Duration::from_secs(10);

/// An address that may stand in the configuration: https, or http to this host itself.
///
/// # Errors
/// What is wrong with it, to be read behind its key.
pub(crate) fn address(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|_| "is no URL")?;
    let authority =
        uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or("is no URL of a host")?;
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if is_here(authority.host()) => Ok(uri),
        Some("http") => Err("would go over the network in clear".to_owned()),
        _ => Err("is neither https nor http".to_owned()),
    }
}

/// Of this host itself, by its address: a name could lead elsewhere.
pub(crate) fn is_here(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Sends it there. `tls_ca`: who signs the receiver's certificate, instead of the system's authorities.
///
/// # Errors
/// Why there is no answer, for the log.
pub(crate) async fn send(
    uri: &Uri,
    tls_ca: Option<&Path>,
    request: Request<Full<Bytes>>,
) -> Result<StatusCode, String> {
    match timeout(DEADLINE, exchange(uri, tls_ca, request)).await {
        Ok(answered) => answered,
        Err(_) => Err("it did not answer in time".to_owned()),
    }
}

async fn exchange(uri: &Uri, tls_ca: Option<&Path>, request: Request<Full<Bytes>>) -> Result<StatusCode, String> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let tls = uri.scheme_str() != Some("http");
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|error| error.to_string())?;
    if !tls {
        return answer(stream, request).await;
    }
    let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
    let stream = connector(tls_ca)?.connect(name, stream).await.map_err(|error| error.to_string())?;
    answer(stream, request).await
}

fn connector(tls_ca: Option<&Path>) -> Result<TlsConnector, String> {
    let roots = roots(tls_ca).map_err(|error| format!("{error:#}"))?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
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
