//! ArcSight's Common Event Format, revision 25: one line an entry, for a SIEM.

use std::fmt::Write as _;
use tidegate_grants::ledger::Entry;

/// Words of the ledger that say no, or that something is wrong.
const GRAVE: [&str; 7] = ["distrusted", "refused", "denied", "cut", "failed", "killed", "revoked"];

/// One entry.
pub(super) fn line(entry: &Entry) -> String {
    let event = &entry.event;
    let verb = event.kind.rsplit('.').next().unwrap_or_default();
    let severity = match verb {
        "distrusted" => 10,
        verb if GRAVE.contains(&verb) => 6,
        _ => 3,
    };
    let kind = head(&event.kind);
    let mut out = format!("CEF:0|tidegate|tidegate|{}|{kind}|{kind}|{severity}|", head(env!("CARGO_PKG_VERSION")));
    let mut extension = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = write!(out, "{name}={} ", extended(value)); // a String takes everything
        }
    };
    extension("rt", &entry.at.as_millisecond().to_string());
    extension("externalId", &format!("{}/{}", entry.node, entry.seq));
    extension("suser", event.identity.as_deref().unwrap_or_default());
    extension("dhost", &event.target.as_ref().map(ToString::to_string).unwrap_or_default());
    let labelled = [
        ("cs1", "session", event.session.map(|id| id.to_string())),
        ("cs2", "grant", event.grant.map(|id| id.to_string())),
        ("cs3", "lease", event.lease.map(|id| id.to_string())),
        ("cs4", "hash", Some(entry.hash.clone())),
        ("cs5", "config", Some(entry.config.clone())),
    ];
    for (key, label, value) in labelled {
        if let Some(value) = value {
            extension(&format!("{key}Label"), label);
            extension(key, &value);
        }
    }
    let source = ["source", "address", "from"].iter().find_map(|key| event.detail.get(key)?.as_str()?.parse().ok());
    extension("src", &source.map(|address: std::net::IpAddr| address.to_string()).unwrap_or_default());
    if !event.detail.is_null() {
        extension("msg", &event.detail.to_string());
    }
    out.trim_end().to_owned()
}

/// In the head, a bar and a backslash are escaped.
fn head(text: &str) -> String {
    one_line(text).replace('\\', "\\\\").replace('|', "\\|")
}

/// In the extension, an equals sign and a backslash are.
fn extended(text: &str) -> String {
    one_line(text).replace('\\', "\\\\").replace('=', "\\=")
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_somebody_typed_is_no_field_of_its_own() {
        let entry = serde_json::json!({
            "node": "a", "seq": 7, "at": "2026-11-22T10:00:00Z", "config": "c0", "kind": "session|x.denied",
            "identity": "alice", "detail": { "reason": "a=b|c\\\n act=allowed", "source": "10.0.0.9" },
            "prev": "00", "hash": "11",
        });
        let line = line(&serde_json::from_value(entry).unwrap());
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(line.starts_with(&format!(
            r"CEF:0|tidegate|tidegate|{}|session\|x.denied|session\|x.denied|6|rt=1795341600000 externalId=a/7 suser=alice ",
            env!("CARGO_PKG_VERSION")
        )), "{line}");
        assert!(line.contains(" src=10.0.0.9 ") && line.contains(r"a\=b|c\\\\\\n act\=allowed"), "{line}");
    }
}
