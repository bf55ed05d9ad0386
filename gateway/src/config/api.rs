//! `[api]`: the HTTPS door for programs.

use super::{
    certificate::certificate,
    section::Section,
    value::{self, DURATION_FIX},
};
use std::{net::SocketAddr, time::Duration};
use tidegate_proxy::tls::CertificateFiles;

/// What `[api]` says.
#[derive(Debug, Clone)]
pub(crate) struct ApiDoor {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// What browsers reach it by, without a slash at its end.
    pub(crate) url: Option<String>,
    /// For how long a token may be made.
    pub(crate) max_token_life: Duration,
    /// Of one token.
    pub(crate) requests_per_minute: u32,
    /// Whoever asks sees the ledger's signed heads.
    pub(crate) show_heads: bool,
    /// From files; else one of our own CA.
    pub(crate) certificate: Option<CertificateFiles>,
}

impl ApiDoor {
    /// For how long a token may be made where there is no `[api]` yet.
    pub(crate) const MAX_TOKEN_LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);
    const REQUESTS_PER_MINUTE: u32 = 300;
}

/// `None` inside: there is no such door. `None`: it has faults, and has said so. `others` are taken.
pub(super) fn api(root: &Section<'_>, others: &[SocketAddr]) -> Option<Option<ApiDoor>> {
    const FIX: &str = "write an IP address and a port, like \"127.0.0.1:8443\" or \"[::1]:0\"";
    let Some(section) = root.section("api") else { return (!root.has("api")).then_some(None) };
    let listen = section.need("listen", section.text("listen"), FIX).and_then(|at| at.parse(value::listen, FIX));
    if let Some(at) = listen.as_ref().filter(|at| at.value.port() != 0 && others.contains(&at.value)) {
        at.fault("is where [ssh] or [postgres] listens already", "choose another port");
    }
    let max_token_life = match section.text("max_token_life") {
        Some(life) => life.parse(value::positive_duration, DURATION_FIX).map(|life| life.value),
        None => Some(ApiDoor::MAX_TOKEN_LIFE),
    };
    let requests_per_minute = match section.integer("requests_per_minute") {
        Some(most) => {
            let parse =
                |most: i64| u32::try_from(most).ok().filter(|n| (1..=100_000).contains(n)).ok_or("is out of range");
            most.parse(parse, "write a number from 1 to 100000").map(|most| most.value)
        }
        None => Some(ApiDoor::REQUESTS_PER_MINUTE),
    };
    let certificate = certificate(&section);
    let url = match section.text("url") {
        Some(url) => url.parse(origin, URL_FIX).map(|url| Some(url.value)),
        None => (!section.has("url")).then_some(None),
    };
    let show_heads = section.boolean("show_heads").is_some_and(|show| show.value);
    section.unknown();
    Some(Some(ApiDoor {
        listen: listen?.value,
        url: url?,
        max_token_life: max_token_life?,
        requests_per_minute: requests_per_minute?,
        show_heads,
        certificate: certificate?,
    }))
}

const URL_FIX: &str = "write it like \"https://gate.example.com:8443\", without a path";

/// As browsers write an origin.
fn origin(text: &str) -> Result<String, &'static str> {
    let uri: hyper::Uri = text.parse().map_err(|_| "is no URL")?;
    let host = text.strip_prefix("https://").ok_or("is no https:// URL")?;
    let plain = uri.authority().is_some_and(|authority| authority.as_str() == host && !host.contains('@'));
    let lower = !text.bytes().any(|b| b.is_ascii_uppercase()) && !host.ends_with(":443");
    if plain && lower {
        Ok(text.to_owned())
    } else {
        Err("is more than a name and a port, or not in lower case, or names port 443")
    }
}
