//! The gateway itself: where it keeps its state, what it is called, where it listens, how it records.

use super::{
    certificate::certificate,
    fault::KeyRole,
    keeping::{Keeping, keeping},
    keeps::keeps,
    limits::proxied,
    section::{Section, Spot, TextSpot},
    value::{self, DURATION_FIX, PLAIN_NAME_FIX, SSH_KEY_FIX},
};
use ssh_key::PublicKey;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use tidegate_grants::{Auditor, GroupName, Keeps};
use tidegate_proxy::{
    authenticate::{RevokedKeys, Vouching},
    protocol::proxied::Network,
    tls::CertificateFiles,
};
use tidegate_recorder::Settings;

/// What `[gateway]` says.
pub(super) struct Gateway {
    pub(super) name: String,
    pub(super) node: String,
    pub(super) public_names: Vec<String>,
    pub(super) source_addresses: Vec<String>,
    pub(super) sweep: Duration,
    pub(super) drain: Duration,
}

/// What `[roles]` says.
#[derive(Default)]
pub(super) struct Roles {
    pub(super) admin: BTreeSet<GroupName>,
    pub(super) auditor: BTreeSet<GroupName>,
    /// All `[[auditor]]`.
    pub(super) scoped: Vec<Auditor>,
}

impl Roles {
    /// Each role, with the groups that it is given to.
    pub(super) fn named(&self) -> impl Iterator<Item = (&'static str, &BTreeSet<GroupName>)> {
        let scoped = self.scoped.iter().map(|auditor| ("auditor", &auditor.groups));
        [("admin", &self.admin), ("auditor", &self.auditor)].into_iter().chain(scoped)
    }
}

/// Where it listens.
pub(super) struct Doors {
    pub(super) ssh: Option<SocketAddr>,
    pub(super) postgres: Option<SocketAddr>,
    pub(super) password_window: Duration,
    pub(super) vouching: Vouching,
    pub(super) ssh_proxied: Vec<Network>,
    pub(super) postgres_proxied: Vec<Network>,
    pub(super) postgres_certificate: Option<CertificateFiles>,
}

pub(super) fn version(root: &Section<'_>) -> Option<()> {
    let version = root.need("version", root.integer("version"), "write version = 1")?;
    if version.value == 1 {
        return Some(());
    }
    version.fault("is not a version that this tidegate knows", "write version = 1");
    None
}

pub(super) fn state_dir(root: &Section<'_>) -> Option<PathBuf> {
    let dir = root.need("state_dir", root.text("state_dir"), "write state_dir = \"state\"")?;
    if dir.value.is_empty() || dir.value.contains('\0') {
        dir.fault("is not a path", "name a directory of the gateway's own, like \"state\"");
        return None;
    }
    Some(dir.path())
}

pub(super) fn gateway(root: &Section<'_>) -> Option<Gateway> {
    const NAMES: &str = "list the names that people type, like [\"gate.example.com\"]";
    const ADDRESSES: &str = "list the addresses that targets see, like [\"10.0.0.5\"]";
    let Some(section) = root.section("gateway") else {
        for key in ["gateway.name", "gateway.public_names", "gateway.source_addresses"] {
            if !root.has("gateway") {
                root.fault(key, "is missing", "write a [gateway] section; `tidegate init` shows one");
            }
        }
        return None;
    };
    let name = section.need("name", section.text("name"), "write name = \"gate\"");
    let name = name.and_then(|name| name.parse(value::plain_name, PLAIN_NAME_FIX));
    let node = match section.text("node") {
        Some(node) => node.parse(value::plain_name, PLAIN_NAME_FIX).map(|node| node.value),
        None => Some("a".to_owned()),
    };
    let names = section.need("public_names", section.texts("public_names"), NAMES).and_then(|list| {
        list_of(list.value.clone(), &list.with(""), NAMES, |name| {
            name.parse(value::public_name, NAMES).map(|name| name.value)
        })
    });
    let address = |text: TextSpot<'_>| {
        let parse = |text: &str| text.parse::<IpAddr>().map_err(|_| "is not an IP address");
        text.parse(parse, ADDRESSES).map(|address| address.value.to_string())
    };
    let addresses = section
        .need("source_addresses", section.texts("source_addresses"), ADDRESSES)
        .and_then(|list| list_of(list.value.clone(), &list.with(""), ADDRESSES, address));
    let sweep = match section.text("sweep") {
        Some(sweep) => sweep.parse(value::positive_duration, DURATION_FIX).map(|sweep| sweep.value),
        None => Some(Duration::from_secs(600)),
    };
    let drain = match section.text("drain") {
        Some(drain) => drain.parse(value::duration, DURATION_FIX).map(|drain| drain.value),
        None => Some(Duration::from_secs(30)),
    };
    section.unknown();
    Some(Gateway {
        name: name?.value,
        node: node?,
        public_names: names?,
        source_addresses: addresses?,
        sweep: sweep?,
        drain: drain?,
    })
}

/// Each item parsed; an empty list is a fault, and so is the same item twice.
fn list_of<'a>(
    items: Vec<TextSpot<'a>>,
    whole: &TextSpot<'a>,
    fix: &str,
    parse: impl Fn(TextSpot<'a>) -> Option<String>,
) -> Option<Vec<String>> {
    if items.is_empty() {
        whole.fault("is empty", fix);
        return None;
    }
    let mut list: Vec<String> = Vec::new();
    for item in items {
        let place = item.with(());
        let parsed = parse(item)?;
        if list.contains(&parsed) {
            place.fault("is listed twice", "take one out");
        }
        list.push(parsed);
    }
    Some(list)
}

pub(super) fn roles(root: &Section<'_>) -> Roles {
    let Some(section) = root.section("roles") else { return Roles::default() };
    let roles = Roles { admin: groups(&section, "admin"), auditor: groups(&section, "auditor"), scoped: Vec::new() };
    section.unknown();
    roles
}

/// A list of group names; absent is empty.
pub(super) fn groups(section: &Section<'_>, key: &'static str) -> BTreeSet<GroupName> {
    let items = section.texts(key).map(|list| list.value).unwrap_or_default();
    let parsed = items.into_iter().filter_map(|item| item.parse(str::parse, "write a group name, like \"sre\""));
    parsed.map(|group| group.value).collect()
}

pub(super) fn doors(root: &Section<'_>) -> Option<Doors> {
    const FIX: &str = "write an IP address and a port, like \"127.0.0.1:2222\" or \"[::1]:0\"";
    fn listen<'a>(section: &Section<'a>) -> Option<Spot<'a, SocketAddr>> {
        section.need("listen", section.text("listen"), FIX).and_then(|at| at.parse(value::listen, FIX))
    }
    let (mut ssh_proxied, mut postgres_proxied) = (Some(Vec::new()), Some(Vec::new()));
    let mut vouching = Vouching { user_ca: Vec::new(), revoked_keys: RevokedKeys::new(None) };
    let ssh = root.section("ssh").and_then(|section| {
        let listen = listen(&section);
        vouching = self::vouching(&section);
        ssh_proxied = proxied(&section);
        section.unknown();
        listen
    });
    let mut password_window = Some(Duration::from_secs(600));
    let mut postgres_certificate = Some(None);
    let postgres = root.section("postgres").and_then(|section| {
        let listen = listen(&section);
        if let Some(window) = section.text("password_window") {
            password_window = window.parse(value::positive_duration, DURATION_FIX).map(|window| window.value);
        }
        postgres_proxied = proxied(&section);
        postgres_certificate = certificate(&section);
        section.unknown();
        listen
    });
    if !root.has("ssh") && !root.has("postgres") {
        root.fault(
            "ssh",
            "is missing, and [postgres] too: there is no door",
            "write [ssh] listen = \"127.0.0.1:2222\"",
        );
        return None;
    }
    if let (Some(ssh), Some(postgres)) = (&ssh, &postgres)
        && ssh.value == postgres.value
        && ssh.value.port() != 0
    {
        postgres.fault("is where [ssh] listens already", "choose another port");
    }
    let sound = ssh.is_some() == root.has("ssh") && postgres.is_some() == root.has("postgres");
    let (ssh, postgres) = (ssh.map(|at| at.value), postgres.map(|at| at.value));
    let (ssh_proxied, postgres_proxied) = (ssh_proxied?, postgres_proxied?);
    let (password_window, postgres_certificate) = (password_window?, postgres_certificate?);
    let doors = Doors { ssh, postgres, password_window, vouching, ssh_proxied, postgres_proxied, postgres_certificate };
    sound.then_some(doors)
}

/// `user_ca` and `revoked_keys` of `[ssh]`. A faulty one has said so.
fn vouching(section: &Section<'_>) -> Vouching {
    let authorities = section.text_or_texts("user_ca").map(|list| list.value).unwrap_or_default();
    let parsed = authorities.into_iter().filter_map(|key| key.parse(value::ssh_key, SSH_KEY_FIX));
    let mut user_ca: Vec<PublicKey> = Vec::new();
    for key in parsed {
        key.plays(KeyRole::UserAuthority);
        if user_ca.iter().any(|known| known.key_data() == key.value.key_data()) {
            key.fault("is listed twice", "take one out");
        }
        user_ca.push(key.value);
    }
    let Some(file) = section.text("revoked_keys") else {
        return Vouching { user_ca, revoked_keys: RevokedKeys::new(None) };
    };
    let revoked_keys = RevokedKeys::new(Some(file.path()));
    if let Err(unknown) = revoked_keys.read() {
        file.fault(
            format!("is no list of revoked keys: {unknown}"),
            "name a KRL as `ssh-keygen -k` writes it, or a file of public keys, one a line; an empty file is a list too",
        );
    }
    Vouching { user_ca, revoked_keys }
}

/// `[recording]`.
pub(super) struct Recording {
    /// How recordings are made.
    pub(super) settings: Settings,
    /// For how long after a session the gateway can read its own.
    pub(super) replay_window: Duration,
    /// How long they are kept.
    pub(super) keeping: Keeping,
    /// What they have of results, where an entitlement does not say.
    pub(super) keeps: Keeps,
}

const RECIPIENTS: &str = "list the auditors' public keys, like [\"age1…\"]; `tidegate init` makes one";

/// Keys that recordings are sealed for; none where the section names none. `None` has said why.
pub(super) fn recipients(section: &Section<'_>, key: &'static str) -> Option<Vec<String>> {
    let parse = |key: TextSpot<'_>| key.parse(value::recipient, RECIPIENTS).map(|key| key.value);
    let list = |list: Spot<'_, Vec<TextSpot<'_>>>| list_of(list.value.clone(), &list.with(""), RECIPIENTS, parse);
    section.texts(key).map_or(Some(Vec::new()), list)
}

/// How recordings are made.
pub(super) fn recording(root: &Section<'_>) -> Option<Recording> {
    let Some(section) = root.section("recording") else {
        if !root.has("recording") {
            root.fault("recording.recipients", "is missing", RECIPIENTS);
        }
        return None;
    };
    let list = section.need("recipients", section.texts("recipients").map(drop), RECIPIENTS);
    let recipients = list.and_then(|()| self::recipients(&section, "recipients"));
    let keystroke_recipients = self::recipients(&section, "keystroke_recipients");
    let stream_limit = match section.text("stream_limit") {
        Some(limit) => limit.parse(value::size, "write it like \"1MiB\", \"64KiB\" or \"0B\"").map(|limit| limit.value),
        None => Some(1 << 20),
    };
    let fsync = section.text("durability").map_or(Some(false), |durability| match durability.value {
        "kernel" => Some(false),
        "disk" => Some(true),
        _ => {
            durability
                .fault("is neither \"kernel\" nor \"disk\"", "write \"kernel\", or \"disk\" for an fsync per write");
            None
        }
    });
    let replay_window = match section.text("replay_window") {
        Some(window) => window.parse(value::duration, DURATION_FIX).map(|window| window.value),
        None => Some(Duration::ZERO),
    };
    let (keeping, keeps) = (keeping(&section), keeps(&section, &Keeps::default()));
    section.unknown();
    let settings = Settings {
        recipients: recipients?,
        keystroke_recipients: keystroke_recipients?,
        stream_limit: stream_limit?,
        fsync: fsync?,
    };
    Some(Recording { settings, replay_window: replay_window?, keeping: keeping?, keeps: keeps? })
}
