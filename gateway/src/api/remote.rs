//! The way to a gateway far off: `--gateway URL`, with a token, over TLS that proves the gateway.

use anyhow::{Context as _, bail, ensure};
use hyper::{Uri, header::HeaderValue};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use secrecy::{ExposeSecret as _, SecretString};
use std::{fs, io::Read as _, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Longer is no token.
const LONGEST_TOKEN: u64 = 4096;
/// Where a token is looked for that no file is named for.
const VARIABLE: &str = "TIDEGATE_TOKEN";

/// A gateway that is reached over HTTPS.
pub(crate) struct Remote {
    /// As it is shown, and sent as `Host`.
    pub(super) authority: String,
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: TlsConnector,
    token: Option<SecretString>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("authority", &self.authority).finish_non_exhaustive()
    }
}

/// The gateway did not prove to be itself.
#[derive(Debug, thiserror::Error)]
#[error(
    "{authority} does not prove to be the gateway: {cause}; name its CA with --ca (`tidegate ca show x509` on its host prints it), and the gateway by one of its public_names"
)]
pub(super) struct Impostor {
    authority: String,
    cause: rustls::Error,
}

impl Remote {
    /// Does not connect yet.
    ///
    /// # Errors
    /// The URL, the token's file or the CA's file is not one.
    pub(crate) fn new(url: &str, token_file: Option<&Path>, ca: Option<&Path>) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("--gateway {url}"))?;
        let plain = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let (Some("https"), Some(authority), true) = (uri.scheme_str(), authority, plain) else {
            bail!("--gateway: write it like https://gate.example.com:8443");
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).with_context(|| format!("--gateway {url}"))?;
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(ca)?)
            .with_no_client_auth();
        Ok(Self {
            authority: authority.to_string(),
            host,
            port: authority.port_u16().unwrap_or(443),
            name,
            tls: TlsConnector::from(Arc::new(config)),
            token: token(token_file)?,
        })
    }

    pub(super) async fn connect(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        self.tls.connect(self.name.clone(), stream).await.map_err(|error| self.judged(error))
    }

    fn judged(&self, error: std::io::Error) -> anyhow::Error {
        let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match cause {
            Some(cause @ rustls::Error::InvalidCertificate(_)) => {
                Impostor { authority: self.authority.clone(), cause: cause.clone() }.into()
            }
            _ => error.into(),
        }
    }

    /// `Authorization`, if there is a token. Not shown by `Debug`.
    pub(super) fn authorization(&self) -> anyhow::Result<Option<HeaderValue>> {
        let Some(token) = &self.token else { return Ok(None) };
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret())).context("the token")?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// From the file, else from the environment. A file that others can read is refused, as `ssh` does it with keys.
fn token(file: Option<&Path>) -> anyhow::Result<Option<SecretString>> {
    let Some(file) = file else {
        return Ok(std::env::var(VARIABLE).ok().filter(|token| !token.is_empty()).map(SecretString::from));
    };
    let shown = file.display();
    let opened = fs::File::open(file).with_context(|| format!("--token-file {shown}"))?;
    let mode = opened.metadata()?.permissions().mode();
    ensure!(mode & 0o077 == 0, "--token-file {shown} is open to others (mode {:04o}): chmod 600 it", mode & 0o7777);
    let mut text = String::new();
    opened.take(LONGEST_TOKEN).read_to_string(&mut text).with_context(|| format!("--token-file {shown}"))?;
    ensure!(!text.trim().is_empty(), "--token-file {shown}: empty");
    Ok(Some(SecretString::from(text.trim().to_owned())))
}

/// Of the named file alone, else the system's.
pub(crate) fn roots(ca: Option<&Path>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(file) => {
            let shown = file.display();
            let certificates = CertificateDer::pem_file_iter(file).with_context(|| format!("--ca {shown}"))?;
            for certificate in certificates {
                roots.add(certificate.with_context(|| format!("--ca {shown}"))?)?;
            }
            ensure!(!roots.is_empty(), "--ca {shown}: no certificate in PEM is in it");
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(roots)
}
