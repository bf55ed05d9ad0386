//! Webhooks: a signed POST to an address that the configuration fixes.
//!
//! How it goes there is [`outgoing`](crate::outgoing)'s.

use super::{
    NotTaken,
    body::{Format, Letter, body},
};
use crate::outgoing::send;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http_body_util::Full;
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    header::{self, HeaderName},
};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretSlice};
use sha2::Sha256;
use std::{path::PathBuf, sync::Arc};

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
    pub(super) async fn post(&self, letter: &Letter<'_>, now: Timestamp) -> Result<(), NotTaken> {
        let request = self.request(letter, now).map_err(NotTaken::Never)?;
        judge(send(&self.uri, self.tls_ca.as_deref(), request).await.map_err(NotTaken::Later)?)
    }

    fn request(&self, letter: &Letter<'_>, now: Timestamp) -> Result<Request<Full<Bytes>>, String> {
        let body = body(self.format, letter).to_string();
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self.uri.authority().map_or("", |authority| authority.as_str());
        let mut request = Request::post(path)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .header(ID, letter.id());
        if let Some(key) = &self.key {
            request = request.header(SIGNATURE, signature(key, now, &body)?);
        }
        request.body(Full::new(body.into())).map_err(|error| error.to_string())
    }
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
