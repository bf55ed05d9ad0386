//! Every key that a configuration can have, once: what it takes and what it is for.
//!
//! The parser asks for no key that is not here (a debug build says so), what is not here is an unknown key, and the JSON
//! Schema for editors is made from the same tables. So the three cannot drift apart. What a value must be like beyond its
//! shape (that a file exists, that a name is somebody's) only the parser knows.

mod access;
mod people;
mod server;

use access::{ENTITLEMENT, INVENTORY, TARGET};
use people::{GROUP, ISSUER, OIDC, USER, WORKLOAD};
use server::{
    ANCHOR, API, AUDITOR, GATEWAY, LIMITS, METRICS, NOTIFY, PEER, POSTGRES, RECORDING, RETENTION, ROLES, SMTP, SSH,
};

/// The keys of one table.
#[derive(Debug)]
pub(super) struct Table {
    /// What stands in it.
    pub(super) about: &'static str,
    /// In the order that they are best written in.
    pub(super) keys: &'static [Key],
}

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) value: Value,
    /// It must be there, whatever else is.
    pub(super) required: bool,
    pub(super) about: &'static str,
}

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value {
    /// Any text.
    Text,
    /// A text of this regular expression, which both Rust's and JavaScript's dialect understand.
    Like(&'static str),
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A whole number from … to ….
    Number(i64, i64),
    Boolean,
    /// A list of at least so many.
    List(&'static Value, usize),
    /// One, or a list of at least one.
    OneOrList(&'static Value),
    /// `{ env = "prod" }`
    Labels,
    /// Labels, or a list of names.
    Selector,
    /// `[name]`
    Table(&'static Table),
    /// `[[name]]`
    Tables(&'static Table),
    /// Of the contract, and not there yet.
    Later,
}

impl Table {
    /// The key of this name.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// A table of which nothing is known.
pub(super) static NONE: Table = Table { about: "", keys: &[] };

/// Where a key that is not one of this table belongs, if another table has it.
pub(super) fn elsewhere(table: &'static Table, name: &str) -> Option<String> {
    if std::ptr::eq(table, &raw const ROOT) {
        let mut sections = ROOT.keys.iter().filter_map(|key| match key.value {
            Value::Table(section) => section.key(name).map(|_| key.name),
            _ => None,
        });
        return sections.next().map(|section| format!("write it under [{section}]"));
    }
    ROOT.key(name)?;
    if std::ptr::eq(table, &raw const LISTED) {
        return Some("take it out: an inventory lists targets and nothing else".to_owned());
    }
    Some(match std::ptr::eq(table, &raw const INCLUDED) {
        true => "write it into the main file: one that is included has [[user]], [[group]], [[target]], [[entitlement]] and [[issuer]]",
        false => "write it at the top of the file, above the first [section]",
    }
    .to_owned())
}

const fn must(name: &'static str, value: Value, about: &'static str) -> Key {
    Key { name, value, required: true, about }
}

const fn may(name: &'static str, value: Value, about: &'static str) -> Key {
    Key { name, value, required: false, about }
}

const fn later(name: &'static str) -> Key {
    Key { name, value: Value::Later, required: false, about: "Not supported yet." }
}

const IDENTITY: Value = Value::Like("^[a-z][a-z0-9_.-]{0,31}$");
const PLAIN: Value = Value::Like("^[a-z0-9][a-z0-9._-]{0,31}$");
const TARGET_NAME: Value = Value::Like("^[a-z0-9][a-z0-9.-]{0,62}$");
const ENTITLEMENT_NAME: Value = Value::Like("^[a-z0-9][a-z0-9._-]{0,62}$");
const LOGIN: Value = Value::Like("^[A-Za-z_][A-Za-z0-9._-]{0,31}$");
const DATABASE: Value = Value::Like("^[!#-&(-.0-?A-\\[\\]-}][ !#-&(-.0-?A-\\[\\]-}]{0,62}$");
const ROLE: Value = Value::Like("^[A-Za-z_][A-Za-z0-9_$.-]{0,62}$");
const DURATION: Value = Value::Like("^([0-9]+[smhd])+$");
/// The same, and not zero.
const POSITIVE: Value = Value::Like("^(?=.*[1-9])([0-9]+[smhd])+$");
const SIZE: Value = Value::Like("^[0-9]+(B|KiB|MiB|GiB)$");
/// A host and a port.
const ADDRESS: Value = Value::Like("^(\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9.-]+):[0-9]{1,5}$");
/// An IP address and a port.
const LISTEN: Value = Value::Like("^(\\[[0-9A-Fa-f:.]+\\]|[0-9.]+):[0-9]{1,5}$");
const PUBLIC_KEY: Value = Value::Like("^(ssh-|ecdsa-sha2-|sk-)[a-z0-9@.-]+ +[A-Za-z0-9+/]{40,}=*( .*)?$");
const HOST_KEY: Value = Value::Like("^(ssh-|ecdsa-sha2-)[a-z0-9@.-]+ +[A-Za-z0-9+/]{40,}=*( .*)?$");
const RECIPIENT: Value = Value::Like("^(age1[a-z0-9]{58}|ssh-ed25519 +[A-Za-z0-9+/]{40,}=*( .*)?)$");
const RESULTS: Value = Value::OneOf(&["none", "head", "all"]);
const MASK: Value = Value::Like("^[A-Za-z0-9_*]*[A-Za-z0-9_][A-Za-z0-9_*]*$");
const PUBLIC_NAME: Value = Value::Like("^[A-Za-z0-9:][A-Za-z0-9.:-]*$");
const IP: Value = Value::Like("^[0-9A-Fa-f.:]+$");
const PRINCIPAL: Value = Value::Like("^[A-Za-z0-9@._:/+{}-]*\\{login\\}[A-Za-z0-9@._:/+{}-]*$");
const VARIABLE: Value = Value::Like("^[A-Za-z_][A-Za-z0-9_]*$");

/// One mailbox, with a name before it or without.
const MAILBOX: Value = Value::Like("^[^@<>]*<?[^@<> ]+@[^@<> ]+>?$");

/// Of connections and sessions.
const COUNT: Value = Value::Number(1, 1_000_000);

const NETWORK: Value = Value::Like("^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$");
const PROXIES: Value = Value::List(&NETWORK, 0);
const PROXIED: &str = "Balancers that say, by the PROXY protocol version 2, where a connection comes from, and must.";

const TLS_CERT: &str = "The certificate with its chain, a PEM file. Default: one of the gateway's own CA.";
const TLS_KEY: &str = "Its key, a PEM file of mode 0600.";

/// Of this host itself in clear, else over TLS.
const URL: Value = Value::Like("^https?://[^@/]+(/.*)?$");
const ALGORITHMS: Value =
    Value::List(&Value::OneOf(&["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]), 1);

/// The file itself.
pub(super) static ROOT: Table = Table {
    about: "tidegate: who may open what, for how long, on whose word. Relative paths start from the file that names them.",
    keys: &[
        must("version", Value::Number(1, 1), "Of this format: 1."),
        must("state_dir", Value::Text, "Where ledger, leases, recordings and keys are."),
        may(
            "include",
            Value::List(&Value::Text, 0),
            "More files with [[user]], [[group]], [[target]], [[entitlement]] and [[issuer]], like [\"targets.d/*.toml\"].",
        ),
        must("gateway", Value::Table(&GATEWAY), "The gateway itself."),
        may("roles", Value::Table(&ROLES), "Which groups may do what to the gateway itself."),
        may("auditor", Value::Tables(&AUDITOR), "Who may see what some people do on some targets."),
        may("ssh", Value::Table(&SSH), "The door for SSH."),
        may("postgres", Value::Table(&POSTGRES), "The door for PostgreSQL; TLS always."),
        may("api", Value::Table(&API), "The door for programs: the HTTPS API."),
        must("recording", Value::Table(&RECORDING), "How sessions are recorded."),
        may("user", Value::Tables(&USER), "Who may come to the door, and how they prove it."),
        may("group", Value::Tables(&GROUP), "A group whose members are members of others, too."),
        may("target", Value::Tables(&TARGET), "An SSH host or a database server."),
        may("entitlement", Value::Tables(&ENTITLEMENT), "What groups may ask for, where, and on which terms."),
        may("issuer", Value::Tables(&ISSUER), "An outside approval system whose signed grants are honoured."),
        may("metrics", Value::Table(&METRICS), "Who may watch the gateway from outside, without a login."),
        may("limits", Value::Table(&LIMITS), "How many may come in at once."),
        may(
            "inventory",
            Value::Tables(&INVENTORY),
            "Targets that a program or a directory lists, read again and again.",
        ),
        may("smtp", Value::Table(&SMTP), "The server that sends mail for [[notify]]."),
        may("notify", Value::Tables(&NOTIFY), "Who is told what happens, by mail or by a webhook."),
        may("workload", Value::Tables(&WORKLOAD), "A program that an outside issuer vouches for."),
        may("oidc", Value::Table(&OIDC), "Where people log in whom no key says anything about yet."),
        may("anchor", Value::Tables(&ANCHOR), "Where the ledger's signed heads go, outside the gateway."),
        may("peer", Value::Tables(&PEER), "Other gateways whose ledgers' heads this one keeps and countersigns."),
        may("retention", Value::Tables(&RETENTION), "How long recordings of some targets are kept."),
    ],
};

/// A file that another includes.
pub(super) static INCLUDED: Table = Table {
    about: "A part of a tidegate configuration, which another file includes.",
    keys: &[
        may("user", Value::Tables(&USER), "Who may come to the door, and how they prove it."),
        may("group", Value::Tables(&GROUP), "A group whose members are members of others, too."),
        may("target", Value::Tables(&TARGET), "An SSH host or a database server."),
        may("entitlement", Value::Tables(&ENTITLEMENT), "What groups may ask for, where, and on which terms."),
        may("issuer", Value::Tables(&ISSUER), "An outside approval system whose signed grants are honoured."),
    ],
};

/// What an inventory lists.
pub(super) static LISTED: Table = Table {
    about: "What an inventory lists.",
    keys: &[may("target", Value::Tables(&TARGET), "An SSH host or a database server.")],
};
