//! One request to a server that the configuration names, and its answer: in time, of a bounded size, without redirects.

use crate::api::remote::roots;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1,
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, crypto::aws_lc_rs, pki_types::ServerName};
use secrecy::{ExposeSecret as _, SecretString};
use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

/// From the name's look-up to the answer's end.
const DEADLINE: Duration = Duration::from_secs(10);
/// A longer answer is none.
const LONGEST: usize = 256 << 10;

/// Something at a server, and who signs the server's certificate, instead of the system's authorities.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) uri: Uri,
    pub(crate) tls_ca: Option<PathBuf>,
}

/// TLS, or this host itself by its address: a name could lead elsewhere.
pub(crate) fn is_safe(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let here = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    plain && (uri.scheme_str() == Some("https") || (uri.scheme_str() == Some("http") && here))
}

impl Place {
    /// What is there, if the server says that it is.
    ///
    /// # Errors
    /// A sentence: it did not answer so, or not in time.
    pub(super) async fn get(&self) -> Result<Bytes, String> {
        let (status, body) = self.ask(self.request("GET", &[], None)?).await?;
        if status == StatusCode::OK { Ok(body) } else { Err(format!("it answered {status}")) }
    }

    /// What is answered to this form. `basic`: the client that asks, and its secret (RFC 6749 section 2.3.1).
    ///
    /// # Errors
    /// A sentence: there was no answer, or not in time.
    pub(super) async fn post(
        &self,
        form: &[(&str, &str)],
        basic: Option<(&str, &SecretString)>,
    ) -> Result<(StatusCode, Bytes), String> {
        self.ask(self.request("POST", form, basic)?).await
    }

    fn request(
        &self,
        method: &str,
        form: &[(&str, &str)],
        basic: Option<(&str, &SecretString)>,
    ) -> Result<Request<Full<Bytes>>, String> {
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form);
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::builder();
        if let Some((client, secret)) = basic {
            let part = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let pair = Zeroizing::new(format!("{}:{}", part(client), part(secret.expose_secret())));
            let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes())))
                .map_err(|error| error.to_string())?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        request
            .method(method)
            .uri(path)
            .header(header::HOST, self.uri.authority().map_or("", |authority| authority.as_str()))
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(body.finish())))
            .map_err(|error| error.to_string())
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), String> {
        if !is_safe(&self.uri) {
            return Err("it would be asked over the network in clear".to_owned());
        }
        let late = |_| format!("it did not answer within {DEADLINE:?}");
        timeout(DEADLINE, self.connect_and_ask(request)).await.map_err(late)?
    }

    async fn connect_and_ask(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), String> {
        let host = self.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = self.uri.scheme_str() != Some("http");
        let port = self.uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|error| error.to_string())?;
        if !tls {
            return exchange(stream, request).await;
        }
        let roots = roots(self.tls_ca.as_deref()).map_err(|error| format!("{error:#}"))?;
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream);
        exchange(stream.await.map_err(|error| error.to_string())?, request).await
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http1::Builder::new().max_buf_size(64 << 10).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await.map_err(|error| error.to_string())?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(answered);
    tokio::select! {
        biased;
        answered = &mut answered => answered,
        // What came before they hung up is there to be had.
        _ = connection => answered.await,
    }
}
