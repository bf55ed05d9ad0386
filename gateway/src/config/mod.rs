//! `tidegate.toml`: the one truth for people, targets and terms.
//!
//! [`load`] reads the whole file, and those that it includes, and either gives a [`Config`], in which every reference is resolved, every file
//! that it names was read and every default is filled in, or every fault that it found, each with its place, what is
//! wrong and what to do. Nothing else in this program knows the file's keys.
//!
//! Keys that DESIGN's contract has and this version cannot honour fail as "not supported yet": a gateway that ignored
//! `approvals = …` would open what its admin meant to keep shut.

mod anchors;
mod api;
mod asking;
mod auditors;
mod certificate;
mod conditions;
mod contents;
mod contradictions;
pub(crate) mod diff;
pub(crate) mod edit;
mod entitlements;
mod fault;
mod gateway;
mod glass;
mod include;
pub(crate) mod inventory;
mod issuers;
mod keeping;
mod keeps;
mod keys;
mod limits;
mod nested;
mod notify;
mod oidc;
mod peers;
mod people;
mod places;
pub(crate) mod schema;
mod secret;
mod section;
mod source;
pub(crate) mod summary;
mod targets;
#[cfg(test)]
mod tests;
mod value;
mod workloads;
mod written;
#[cfg(test)]
mod wrong;

pub(crate) use api::ApiDoor;
pub(crate) use fault::Faults;
pub(crate) use keeping::Keeping;
pub(crate) use value::{duration, show_duration, ssh_key};

use crate::anchor::Anchor;
use crate::elsewhere::{Workload, oidc::Oidc};
use crate::notify::Channel;
use crate::peers::Peer;
use contradictions::Said;
use fault::Findings;
use gateway::Roles;
use inventory::{Inventory, Listings};
use limits::Limits;
use people::People;
use secret::Secret;
use section::{Section, Whole};
use sha2::{Digest, Sha256};
use source::Source;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tidegate_ca::Keys;
use tidegate_grants::{Policy, TargetName};
use tidegate_proxy::{
    authenticate::Vouching,
    protocol::{
        postgres::PostgresTarget,
        proxied::Network,
        ssh::{HostTrust, SshTarget},
    },
    tls::CertificateFiles,
};
use toml::{Spanned, de::DeTable};

/// A configuration without faults.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Where ledger, leases, recordings and keys are.
    pub(crate) state_dir: PathBuf,
    /// For certificates and printed client configuration.
    pub(crate) public_names: Vec<String>,
    /// What targets see of the gateway.
    pub(crate) source_addresses: Vec<String>,
    /// How often targets are swept for accounts with our mark and no lease.
    pub(crate) sweep: Duration,
    /// How long sessions may go on when the gateway is stopped.
    pub(crate) drain: Duration,
    /// How many may come in.
    pub(crate) limits: Limits,
    /// Where metrics are served, if they are.
    pub(crate) metrics: Option<SocketAddr>,
    /// Balancers before the SSH door.
    pub(crate) ssh_proxied: Vec<Network>,
    /// Balancers before the PostgreSQL door.
    pub(crate) postgres_proxied: Vec<Network>,
    /// Of the PostgreSQL door, from files; else one of our own CA.
    pub(crate) postgres_certificate: Option<CertificateFiles>,
    /// Where SSH listens, if it does.
    pub(crate) ssh: Option<SocketAddr>,
    /// Who vouches for people beside their own keys.
    pub(crate) vouching: Vouching,
    /// Where PostgreSQL listens, if it does.
    pub(crate) postgres: Option<SocketAddr>,
    /// The life of a password of `ssh gate password`.
    pub(crate) password_window: Duration,
    /// The HTTPS API, if there is one.
    pub(crate) api: Option<ApiDoor>,
    /// How recordings are made.
    pub(crate) recording: tidegate_recorder::Settings,
    /// For how long after a session the gateway can show what was seen in it.
    pub(crate) replay_window: Duration,
    /// How long recordings are kept, and in how much room.
    pub(crate) keeping: Keeping,
    /// People, targets, terms.
    pub(crate) policy: Policy,
    /// SSH hosts by name.
    pub(crate) ssh_targets: BTreeMap<TargetName, SshTarget>,
    /// PostgreSQL servers by name.
    pub(crate) postgres_targets: BTreeMap<TargetName, PostgresTarget>,
    /// When the authorities of targets' `tls_ca` end; `None` where that cannot be read.
    pub(crate) tls_ca_ends: BTreeMap<TargetName, Option<jiff::Timestamp>>,
    /// Secrets that the gateway reads beside its own keys: from where, and why.
    pub(crate) secrets: Vec<Secret>,
    /// Who is told what happens.
    pub(crate) notify: Vec<Arc<Channel>>,
    /// Programs that others vouch for.
    pub(crate) workloads: Vec<Arc<Workload>>,
    /// Where people log in.
    pub(crate) oidc: Option<Arc<Oidc>>,
    /// What is allowed and yet may not be what was meant.
    pub(crate) notes: Vec<String>,
    /// Who else lists targets.
    pub(crate) inventories: Vec<Inventory>,
    /// Where the ledger's heads go.
    pub(crate) anchors: Vec<Anchor>,
    /// Gateways whose heads are kept here.
    pub(crate) peers: Vec<Peer>,
    /// What they listed, as far as it is in here.
    pub(crate) listings: Listings,
    /// The files that it is made of.
    texts: Texts,
    /// As it was written, in all its files, to be compared with another.
    pub(crate) written: toml::Table,
}

/// The files that a configuration is made of.
#[derive(Debug, Clone)]
struct Texts {
    main: Arc<Source>,
    included: Vec<Arc<Source>>,
}

/// What inventories are taken to list while a configuration is read.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    /// What was kept beside the state.
    Kept,
    /// This.
    Listed(Listings),
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// None was named, and none is where one is looked for.
    #[error(
        "no configuration: neither ./tidegate.toml nor /etc/tidegate/tidegate.toml exists; write one with `tidegate init`, or name it with --config"
    )]
    NotFound,
    /// It cannot be read.
    #[error("{}: cannot be read: {cause}", .file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// It lets a key of the gateway's own vouch for others.
    #[error("{0} is a key of the gateway's own: make a key of its own for each role")]
    OwnKey(String),
    /// It was read, and this is wrong with it.
    #[error(transparent)]
    Faults(#[from] Faults),
}

impl Config {
    /// Refused: an authority of somebody else's that is one of the gateway's own. Whoever it vouches for would be both.
    pub(crate) fn no_own_authority(&self, keys: &Keys) -> Result<(), ConfigError> {
        let own = [keys.ssh_user.public_key().key_data(), keys.ssh_host.public_key().key_data()];
        let is_own = |key: &ssh_key::PublicKey| own.contains(&key.key_data());
        if self.vouching.user_ca.iter().any(is_own) {
            return Err(ConfigError::OwnKey("ssh.user_ca".to_owned()));
        }
        for (name, target) in &self.ssh_targets {
            let (HostTrust::Keys(trusted) | HostTrust::Certificate { authorities: trusted, .. }) = &target.host;
            if trusted.iter().any(is_own) {
                return Err(ConfigError::OwnKey(format!("the host key of target[{name}]")));
            }
        }
        Ok(())
    }
}

/// The directory of recordings in the state directory.
pub(crate) const RECORDINGS: &str = "recordings";
/// The directory of the keys that the gateway keeps to recordings, for the replay window.
pub(crate) const REPLAY: &str = "replay";

/// Larger is no configuration.
const LARGEST: u64 = 16 << 20;

/// The file to use: the named one, else `./tidegate.toml`, else `/etc/tidegate/tidegate.toml`.
pub(crate) fn locate(named: Option<&Path>) -> Result<PathBuf, ConfigError> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let places = ["tidegate.toml", "/etc/tidegate/tidegate.toml"];
    places.iter().map(PathBuf::from).find(|place| place.exists()).ok_or(ConfigError::NotFound)
}

/// Reads and checks all of it, with what inventories listed last. Where that does not fit any more it is left out: what
/// somebody's program printed is no reason not to start.
pub(crate) fn load(file: &Path) -> Result<Config, ConfigError> {
    let text = read(file)?;
    match parse(file, &text) {
        Err(faults) if faults.list.iter().any(|fault| fault.place.line == 0) => {
            let mut config = parse_with(file, &text, &Known::Listed(Listings::new()))?;
            let list = faults.list.iter().filter(|fault| fault.place.line == 0).map(|fault| {
                format!("{}: what it listed last is left out: {}: {}", fault.place, fault.key, fault.wrong)
            });
            config.notes.extend(list);
            Ok(config)
        }
        parsed => Ok(parsed?),
    }
}

/// The file as it is now, with these listings.
pub(crate) fn load_with(file: &Path, listings: Listings) -> Result<Config, ConfigError> {
    let text = read(file)?;
    Ok(parse_with(file, &text, &Known::Listed(listings))?)
}

/// Only who else lists targets, as the file has it now, whatever is wrong with the rest.
pub(crate) fn inventories(file: &Path) -> Result<Vec<Inventory>, ConfigError> {
    let main = Arc::new(Source::file(file, file.display().to_string(), read(file)?));
    let findings = Findings::new(&main);
    let table = table_of(&main, &findings);
    let section = table.as_ref().map(|table| Section::whole(&main, &keys::ROOT, table.get_ref(), &findings));
    Ok(section.map(|main| inventory::inventories(&Whole { main, parts: Vec::new() })).unwrap_or_default())
}

impl Config {
    /// The same files, as they were read, with other listings.
    pub(crate) fn listing(&self, listings: Listings) -> Result<Config, Faults> {
        parse_texts(&self.texts.main, Some(&self.texts.included), &Known::Listed(listings))
    }
}

impl Config {
    /// Where an entry or a key like `entitlement[shell].hours` stands, as `FILE:LINE:COLUMN`.
    pub(crate) fn place_of(&self, key: &str) -> Option<String> {
        let included = self.texts.included.iter().map(Arc::as_ref);
        let listed = self.listings.values().flat_map(|listing| &listing.texts);
        let texts = std::iter::once(self.texts.main.as_ref()).chain(included).chain(listed);
        places::find(texts, key).map(|place| place.to_string())
    }
}

/// Only where the state is, for commands that work beside a running gateway whatever else the file says by now.
pub(crate) fn state_dir(file: &Path) -> Result<PathBuf, ConfigError> {
    let main = Arc::new(Source::file(file, file.display().to_string(), read(file)?));
    let findings = Findings::new(&main);
    let (table, errors) = DeTable::parse_recoverable(&main.text);
    syntax(&main, &findings, &errors);
    let found = gateway::state_dir(&Section::whole(&main, &keys::ROOT, table.get_ref(), &findings));
    findings.into_result()?;
    found.ok_or(ConfigError::NotFound)
}

/// A configuration file's text.
fn read(file: &Path) -> Result<String, ConfigError> {
    let unreadable = |cause| ConfigError::Unreadable { file: file.to_owned(), cause };
    let size = std::fs::metadata(file).map_err(unreadable)?.len();
    if size > LARGEST {
        return Err(unreadable(std::io::Error::other("larger than 16 MiB")));
    }
    let bytes = std::fs::read(file).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|_| unreadable(std::io::Error::other("not UTF-8 text")))
}

/// Checks a file's text, with the files that it includes and what inventories listed last. `file` names it in messages and
/// is what relative paths start from.
pub(crate) fn parse(file: &Path, text: &str) -> Result<Config, Faults> {
    parse_with(file, text, &Known::Kept)
}

/// The same, with what is known of inventories.
pub(crate) fn parse_with(file: &Path, text: &str, known: &Known) -> Result<Config, Faults> {
    let main = Arc::new(Source::file(file, file.display().to_string(), text.to_owned()));
    parse_texts(&main, None, known)
}

fn parse_texts(main: &Arc<Source>, included: Option<&[Arc<Source>]>, known: &Known) -> Result<Config, Faults> {
    let findings = Findings::new(main);
    let config = read_all(main, included, known, &findings);
    if config.is_none() && !findings.any() {
        // A value that could not be made has said why; if one ever has not, that is a fault of ours, and still no yes.
        findings.add(main, 0, "", "this file could not be understood", "report this as a bug");
    }
    findings.into_result()?;
    config.ok_or_else(|| Faults { list: Vec::new() })
}

/// `None` has said why. Some may have said that something is wrong, too.
fn read_all(
    main: &Arc<Source>,
    included: Option<&[Arc<Source>]>,
    known: &Known,
    findings: &Findings,
) -> Option<Config> {
    let table = table_of(main, findings)?;
    let section = Section::whole(main, &keys::ROOT, table.get_ref(), findings);
    let (included, notes) = match included {
        Some(read_before) => {
            section.pass_over(&["include"]);
            (read_before.to_vec(), Vec::new())
        }
        None => include::included(&section),
    };
    let state_dir = gateway::state_dir(&section);
    let mut whole = Whole { main: section, parts: Vec::new() };
    let inventories = inventory::inventories(&whole);
    let listings = listings(state_dir.as_deref(), &inventories, known);
    let listed: Vec<Arc<Source>> =
        listings.values().flat_map(|listing| listing.texts.iter().cloned().map(Arc::new)).collect();
    let all: Vec<(&'static keys::Table, &Arc<Source>)> = included
        .iter()
        .map(|source| (&keys::INCLUDED, source))
        .chain(listed.iter().map(|source| (&keys::LISTED, source)))
        .collect();
    let tables: Vec<_> = all.iter().map(|(_, source)| table_of(source, findings)).collect();
    let tables: Vec<Spanned<DeTable<'_>>> = tables.into_iter().collect::<Option<_>>()?;
    let part = |((known, source), table)| Section::whole(source, known, Spanned::get_ref(table), findings);
    whole.parts = all.iter().copied().zip(&tables).map(part).collect();
    let sources: Vec<Arc<Source>> = included.iter().chain(&listed).cloned().collect();
    let texts = Texts { main: main.clone(), included: included.clone() };
    let mut written = written::merged(main, &sources);
    let contents = contents::note(&mut written, &main.folder);
    let mut config = assemble(&whole, findings, hash(main, &sources, &contents), written, texts, state_dir)?;
    config.notes.splice(0..0, notes);
    for unknown in inventories.iter().filter(|inventory| !listings.contains_key(&inventory.name)) {
        config.notes.push(format!(
            "inventory[{}]: what it lists is not known here (`tidegate check --inventory` looks)",
            unknown.name
        ));
    }
    (config.inventories, config.listings) = (inventories, listings);
    Some(config)
}

/// What is known, and of these inventories.
fn listings(state: Option<&Path>, inventories: &[Inventory], known: &Known) -> Listings {
    let of = |inventory: &Inventory| match known {
        Known::Kept => inventory::kept(state?, inventory),
        Known::Listed(listings) => listings.get(&inventory.name).filter(|listing| listing.is_of(inventory)).cloned(),
    };
    inventories.iter().filter_map(|inventory| Some((inventory.name.clone(), of(inventory)?))).collect()
}

/// The syntax tree of a text, if it has no fault.
fn table_of<'a>(source: &'a Source, findings: &Findings) -> Option<Spanned<DeTable<'a>>> {
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    syntax(source, findings, &errors);
    errors.is_empty().then_some(table)
}

fn syntax(source: &Source, findings: &Findings, errors: &[toml::de::Error]) {
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        let wrong = format!("not TOML: {}", error.message());
        findings.add(source, at, "", wrong, "see https://toml.io for how to write it");
    }
}

/// What the ledger knows a configuration by: the SHA-256 of the file. With files that it includes, that of what
/// `sha256sum` prints of it and of them, in its folder and in the order of their names:
/// `sha256sum tidegate.toml targets.d/*.toml | sha256sum`. Where it names files (CAs, secrets), that of this and of what is in them.
fn hash(main: &Source, included: &[Arc<Source>], contents: &[String]) -> String {
    let of_files = hash_of_files(main, included);
    if contents.is_empty() {
        return of_files;
    }
    hex(&Sha256::digest(format!("{of_files}\n{}\n", contents.join("\n")).as_bytes()))
}

fn hash_of_files(main: &Source, included: &[Arc<Source>]) -> String {
    let of_main = hex(&Sha256::digest(main.text.as_bytes()));
    if included.is_empty() {
        return of_main;
    }
    let folder = Path::new(&main.shown).parent().unwrap_or(Path::new(""));
    let mut list = String::new();
    for source in std::iter::once(main).chain(included.iter().map(Arc::as_ref)) {
        let name = Path::new(&source.shown).strip_prefix(folder).unwrap_or(Path::new(&source.shown));
        list.push_str(&format!("{}  {}\n", hex(&Sha256::digest(source.text.as_bytes())), name.display()));
    }
    hex(&Sha256::digest(list.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Every section is read whatever the others came to, so that all faults are found at once.
fn assemble(
    whole: &Whole<'_>,
    findings: &Findings,
    hash: String,
    written: toml::Table,
    texts: Texts,
    state_dir: Option<PathBuf>,
) -> Option<Config> {
    let root = &whole.main;
    let version = gateway::version(root);
    let gateway = gateway::gateway(root);
    let roles = Roles { scoped: auditors::auditors(whole), ..gateway::roles(root) };
    let doors = gateway::doors(root);
    let taken: Vec<SocketAddr> = doors.iter().flat_map(|doors| [doors.ssh, doors.postgres]).flatten().collect();
    let api = api::api(root, &taken);
    let recording = gateway::recording(root);
    let nested = nested::nested(whole);
    let People { by_name: mut people, subjects } = people::people(whole, &nested);
    let oidc = oidc::oidc(root, subjects, &nested);
    let targets = targets::targets(whole);
    let keeps = recording.as_ref().map(|recording| recording.keeps.clone()).unwrap_or_default();
    let entitlements = entitlements::entitlements(whole, &targets, &keeps);
    let workloads = workloads::workloads(whole, &roles, &entitlements, &nested);
    people.extend(workloads.identities.into_iter().map(|identity| (identity.name.clone(), identity)));
    let issuers = issuers::issuers(whole, &entitlements, gateway.as_ref().map(|g| g.name.as_str()));
    let (limits, metrics) = (limits::limits(root), limits::metrics(root));
    let notify = notify::notify(root);
    let anchors = anchors::anchors(whole);
    let peers = peers::peers(whole);
    let retention = keeping::rules(whole);
    root.unknown();
    whole.parts.iter().for_each(Section::unknown);
    let (doors_, targets_, issuers_) = (doors.as_ref(), &targets.by_name, &issuers.by_name);
    let provider = oidc.as_ref().and_then(|(oidc, _)| oidc.as_deref());
    let said = Said {
        people: &people,
        roles: &roles,
        doors: doors_,
        targets: targets_,
        entitlements: &entitlements,
        issuers: issuers_,
        notify: &notify.channels,
        workloads: &workloads.list,
        guests: provider.map(|oidc| oidc.groups.values().flatten().cloned().collect()).unwrap_or_default(),
        tied: provider.map(|oidc| oidc.declared.values().cloned().collect()).unwrap_or_default(),
    };
    let notes = contradictions::notes(&said, whole, findings);

    version?;
    let (gateway, doors, recording) = (gateway?, doors?, recording?);
    let gateway::Recording { settings: recording, replay_window, keeping, keeps: _ } = recording;
    let (limits, api) = (limits?, api?);
    let listeners =
        [("postgres", &doors.postgres_certificate), ("api", &api.as_ref().and_then(|it| it.certificate.clone()))]
            .into_iter()
            .filter_map(|(door, files)| Some(certificate::secret(files.as_ref()?, door)))
            .collect();
    let (oidc, oidc_secret) = oidc?;
    Some(Config {
        state_dir: state_dir?,
        public_names: gateway.public_names,
        source_addresses: gateway.source_addresses,
        sweep: gateway.sweep,
        drain: gateway.drain,
        limits,
        metrics: metrics?,
        ssh_proxied: doors.ssh_proxied,
        postgres_proxied: doors.postgres_proxied,
        ssh: doors.ssh,
        vouching: doors.vouching,
        postgres: doors.postgres,
        password_window: doors.password_window,
        api,
        postgres_certificate: doors.postgres_certificate,
        recording,
        replay_window,
        keeping: Keeping { rules: retention, ..keeping },
        policy: Policy {
            gateway: gateway.name,
            node: gateway.node,
            config: hash,
            identities: people,
            targets: targets.by_name,
            entitlements,
            issuers: issuers.by_name,
            admins: roles.admin,
            auditors: roles.auditor,
            scoped_auditors: roles.scoped,
            limits: limits.sessions,
        },
        ssh_targets: targets.ssh,
        postgres_targets: targets.postgres,
        tls_ca_ends: targets.ends,
        secrets: [issuers.secrets, targets.secrets, notify.secrets, listeners, oidc_secret.into_iter().collect()]
            .concat(),
        notify: notify.channels,
        workloads: workloads.list,
        oidc,
        notes,
        inventories: Vec::new(),
        anchors,
        peers,
        listings: Listings::new(),
        texts,
        written,
    })
}
