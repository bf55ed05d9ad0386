//! What one configuration file says otherwise than another, key by key: for `config diff`, `reload` and the ledger.
//!
//! Compares what is written, so a secret in a file of its own is compared by the file's name, and never shown.

use crate::text::plain;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt};
use toml::{Table, Value};
use utoipa::ToSchema;

/// One key that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Change {
    /// Where, e.g. `target[web-1].address`. An entry of a list of tables goes by its name.
    pub(crate) key: String,
    /// As TOML. None: it was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) was: Option<String>,
    /// As TOML. None: it is no longer there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) is: Option<String>,
}

/// Longer values are cut.
const LONGEST: usize = 120;
/// What a gateway is built on when it starts: sections, and keys of sections.
const FIXED: [&str; 24] = [
    "anchor",
    "peer",
    "api.listen",
    "api.url",
    "api.tls_cert",
    "api.tls_key",
    "version",
    "state_dir",
    "gateway.name",
    "gateway.node",
    "gateway.public_names",
    "gateway.source_addresses",
    "gateway.sweep",
    "gateway.drain",
    "limits.connections",
    "limits.connections_per_source",
    "limits.handshakes",
    "limits.handshakes_per_source",
    "limits.handshake_timeout",
    "metrics",
    "ssh.proxy_protocol_from",
    "ssh.listen",
    "postgres",
    "recording.replay_window",
];

/// Where a target is, and who is let in there: leases are torn down by these.
const WHERE: [&str; 9] =
    ["address", "admin_address", "admin_user", "auth", "host_ca", "host_key", "host_name", "kind", "tls_ca"];

/// What a configuration says about where a target is, if it names it.
pub(crate) fn whereabouts(written: &Table, target: &str) -> Option<Table> {
    let mut entries = written.get("target")?.as_array()?.iter().filter_map(Value::as_table);
    let mut entry = entries.find(|entry| entry.get("name").and_then(Value::as_str) == Some(target))?.clone();
    entry.retain(|key, _| WHERE.contains(&key));
    Some(entry)
}

impl Change {
    /// The target that comes by this, whole.
    pub(crate) fn brings(&self) -> Option<&str> {
        self.was.is_none().then(|| self.whole_target()).flatten()
    }

    /// The target that goes by this, whole.
    pub(crate) fn takes(&self) -> Option<&str> {
        self.is.is_none().then(|| self.whole_target()).flatten()
    }

    fn whole_target(&self) -> Option<&str> {
        self.key.strip_prefix("target[")?.strip_suffix(']')
    }

    /// The target that is another server by this. One that comes or goes whole is not: teardown knows the former.
    pub(crate) fn moves(&self) -> Option<&str> {
        let (target, key) = self.key.strip_prefix("target[")?.rsplit_once("].")?;
        WHERE.contains(&key).then_some(target)
    }

    /// Whether only a restart brings it about.
    pub(crate) fn needs_restart(&self) -> bool {
        let below =
            |fixed: &str| self.key.strip_prefix(fixed).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        // A section that comes or goes takes its fixed keys along.
        let above = |fixed: &str| fixed.strip_prefix(self.key.as_str()).is_some_and(|rest| rest.starts_with('.'));
        FIXED.iter().any(|fixed| below(fixed) || above(fixed))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = plain(&self.key);
        match (&self.was, &self.is) {
            (Some(was), Some(is)) => write!(f, "{key}: {was} becomes {is}"),
            (None, Some(is)) => write!(f, "{key}: new, {is}"),
            (Some(was), None) => write!(f, "{key}: gone, was {was}"),
            (None, None) => f.write_str(&key),
        }
    }
}

/// All that changes, in the order of the keys.
pub(crate) fn changes(was: &Table, is: &Table) -> Vec<Change> {
    let mut found = Vec::new();
    tables("", was, is, &mut found);
    found
}

fn tables(at: &str, was: &Table, is: &Table, found: &mut Vec<Change>) {
    let keys: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    for key in keys {
        let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        values(at, was.get(key), is.get(key), found);
    }
}

fn values(key: String, was: Option<&Value>, is: Option<&Value>, found: &mut Vec<Change>) {
    match (was, is) {
        (Some(was), Some(is)) if was == is => {}
        (Some(Value::Table(was)), Some(Value::Table(is))) => tables(&key, was, is, found),
        (was, is) => match (entries(was), entries(is)) {
            (Some(was), Some(is)) if !(was.is_empty() && is.is_empty()) => lists(&key, &was, &is, found),
            _ => found.push(Change { key, was: was.map(shown), is: is.map(shown) }),
        },
    }
}

/// Entries by name, of a list of tables that all have one. No list at all is an empty one.
fn entries(list: Option<&Value>) -> Option<Vec<(&str, &Value)>> {
    let Some(list) = list else { return Some(Vec::new()) };
    list.as_array()?.iter().map(|entry| Some((entry.as_table()?.get("name")?.as_str()?, entry))).collect()
}

fn lists(key: &str, was: &[(&str, &Value)], is: &[(&str, &Value)], found: &mut Vec<Change>) {
    let names: BTreeSet<&str> = was.iter().chain(is).map(|(name, _)| *name).collect();
    for name in names {
        values(format!("{key}[{name}]"), named(was, name), named(is, name), found);
    }
}

fn named<'t>(list: &[(&str, &'t Value)], name: &str) -> Option<&'t Value> {
    list.iter().find(|(other, _)| *other == name).map(|(_, entry)| *entry)
}

/// On one line, cut where it is long.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Table(table) => {
            let pairs: Vec<String> = table.iter().map(|(key, value)| format!("{key} = {}", inline(value))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        other => inline(other),
    };
    let mut text = plain(&text).into_owned();
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
        text.push('…');
    }
    text
}

fn inline(value: &Value) -> String {
    match value {
        Value::Table(_) => shown(value),
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const WAS: &str = "version = 1\n[gateway]\nname = \"gate\"\n[[user]]\nname = \"alice\"\ngroups = [\"sre\"]\n\
        [[user]]\nname = \"bob\"\ngroups = []\n[[target]]\nname = \"web-1\"\naddress = \"10.0.0.11:22\"\nlabels = { env = \"prod\" }\n";

    fn lines(is: &str) -> Vec<String> {
        let (was, is): (Table, Table) = (WAS.parse().unwrap(), is.parse().unwrap());
        changes(&was, &is).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_same_text_in_another_order_changes_nothing() {
        let (head, rest) = WAS.split_once("[[user]]").unwrap();
        let (alice, rest) = rest.split_once("[[user]]").unwrap();
        let (bob, target) = rest.split_once("[[target]]").unwrap();
        let other = format!("# moved\n{head}[[target]]{target}[[user]]{bob}[[user]]{alice}");
        assert_eq!(lines(&other), Vec::<String>::new());
    }

    #[test]
    fn a_change_names_its_entry_and_key() {
        let is = WAS
            .replace("10.0.0.11", "10.0.0.12")
            .replace("\"prod\"", "\"test\"")
            .replace("\"sre\"", "\"sre\", \"dba\"");
        assert_eq!(
            lines(&is),
            [
                "target[web-1].address: \"10.0.0.11:22\" becomes \"10.0.0.12:22\"",
                "target[web-1].labels.env: \"prod\" becomes \"test\"",
                "user[alice].groups: [\"sre\"] becomes [\"sre\", \"dba\"]",
            ]
        );
    }

    #[test]
    fn what_comes_and_what_goes_is_shown_on_one_line() {
        let is =
            WAS.replace("[[user]]\nname = \"bob\"\ngroups = []\n", "") + "[[user]]\nname = \"carol\"\ngroups = []\n";
        assert_eq!(
            lines(&is),
            [
                "user[bob]: gone, was { name = \"bob\", groups = [] }",
                "user[carol]: new, { name = \"carol\", groups = [] }"
            ]
        );
        let none = WAS.split("[[target]]").next().unwrap();
        assert_eq!(lines(none).len(), 1);
    }

    #[test]
    fn what_the_gateway_is_built_on_needs_a_restart() {
        let change = |key: &str| Change { key: key.to_owned(), was: None, is: None }.needs_restart();
        for fixed in
            ["state_dir", "gateway.name", "gateway", "ssh", "ssh.listen", "postgres.password_window", "postgres"]
        {
            assert!(change(fixed), "{fixed}");
        }
        for live in
            ["user[alice].groups", "ssh.user_ca", "recording.recipients", "target[state_dir]", "entitlement[shell]"]
        {
            assert!(!change(live), "{live}");
        }
    }

    #[test]
    fn what_says_where_a_target_is_moves_it() {
        let moved = |key: &str| Change { key: key.to_owned(), was: None, is: None }.moves().map(str::to_owned);
        for key in WHERE {
            assert_eq!(moved(&format!("target[web-1].{key}")).as_deref(), Some("web-1"), "{key}");
        }
        for key in ["target[web-1]", "target[web-1].labels.kind", "target[web-1].principal", "user[kind].auth"] {
            assert_eq!(moved(key), None, "{key}");
        }
    }
}
