//! `[[anchor]]`: where the ledger's heads go, outside the gateway.

use super::{
    section::{Section, TextSpot, Whole},
    value::{self, DURATION_FIX, PLAIN_NAME_FIX},
};
use crate::anchor::{Anchor, To};
use hyper::Uri;
use std::time::Duration;

const FIX: &str = "write file = \"/mnt/other/heads.jsonl\", url = \"https://…\" or syslog = \"logs.example.com:514\"";
pub(super) const URL_FIX: &str = "write it like \"https://anchors.example.com/tidegate\"";
const SYSLOG_FIX: &str =
    "write a host and a port, like \"logs.example.com:514\" (UDP), or the path of a socket, like \"/dev/log\"";
/// Heads are the evidence against an older store that is put back: not kept more seldom than this, they are little.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// All of them. What was faulty is left out, and has said so.
pub(super) fn anchors(whole: &Whole<'_>) -> Vec<Anchor> {
    whole.main.sections("anchor").iter().filter_map(anchor).collect()
}

fn anchor(section: &Section<'_>) -> Option<Anchor> {
    let name = section.need("name", section.text("name"), "write name = \"offsite\"");
    let name = name.and_then(|name| name.parse(value::plain_name, PLAIN_NAME_FIX));
    let every = every(section);
    let (file, url, syslog) = (section.text("file"), section.text("url"), section.text("syslog"));
    let ca = section.text("ca").map(|ca| ca.path());
    section.unknown();
    let name = name?;
    if let Some(other) = name.seen("anchor", &name.value) {
        name.fault(format!("is the name of another anchor already ({other})"), "give each a name of its own");
    }
    if url.is_none() {
        section.misplaced(&["ca"], "is for url: nothing else is asked for a certificate", "take it out");
    }
    let to = match (file, url, syslog) {
        (Some(file), None, None) => To::File(file.path()),
        (None, Some(url), None) => To::Webhook { url: url.parse(address, URL_FIX)?.value, ca },
        (None, None, Some(syslog)) => log(&syslog)?,
        (None, None, None) => {
            if !["file", "url", "syslog"].into_iter().any(|key| section.has(key)) {
                section.fault("file", "is missing, and url and syslog too: there is nowhere to go", FIX);
            }
            return None;
        }
        (file, url, syslog) => {
            if let Some(second) = [file, url, syslog].into_iter().flatten().nth(1) {
                second.fault("stands beside another place", FIX);
            }
            return None;
        }
    };
    Some(Anchor { name: name.value, every: every?, to })
}

/// From one look to the next, or one head to the next.
pub(super) fn every(section: &Section<'_>) -> Option<Duration> {
    let Some(every) = section.text("every") else { return Some(Duration::from_secs(60)) };
    let every = every.parse(value::positive_duration, DURATION_FIX)?;
    if every.value > LONGEST {
        every.fault("is longer than a day", "write \"1m\"");
        return None;
    }
    Some(every.value)
}

pub(super) fn address(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|_| "is not a URL")?;
    let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if uri.scheme_str() == Some("https") && plain {
        Ok(uri)
    } else {
        Err("is not the address of an HTTPS server".to_owned())
    }
}

fn log(spot: &TextSpot<'_>) -> Option<To> {
    if spot.value.starts_with('/') {
        return Some(To::LocalLog(spot.path()));
    }
    let port = spot.value.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse().ok());
    if port.is_none_or(|port: u16| port == 0) {
        spot.fault("is neither a host with its port nor the path of a socket", SYSLOG_FIX);
        return None;
    }
    Some(To::Log(spot.value.to_owned()))
}
