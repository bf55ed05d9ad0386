//! `tidegate target add` and `tidegate user add`: an entry more in the configuration file.
//!
//! There is no trust on first use: what a host shows is written only when a person at a terminal has said yes to its
//! fingerprint, or when the fingerprint or the key itself was given.

use super::print;
use crate::{
    cli::{AddTarget, AddUser, TargetKind},
    config::edit::Edit,
    text::plain,
};
use anyhow::{Context as _, bail, ensure};
use ssh_key::{HashAlg, PublicKey};
use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
    path::Path,
    process::ExitCode,
};
use tidegate_proxy::protocol::ssh::shown_host_keys;
use toml_edit::{Array, InlineTable, Table, value};

pub(super) fn target(file: &Path, new: &AddTarget) -> anyhow::Result<ExitCode> {
    let mut edit = Edit::open(file)?;
    ensure!(!edit.config.policy.targets.contains_key(&new.name), "there is a target {} already", new.name);
    let (kind, port) = match new.kind {
        TargetKind::Ssh => ("ssh", 22),
        TargetKind::Postgres => ("postgres", 5432),
    };
    let address = with_port(&new.address, port);
    let mut entry = Table::new();
    entry.insert("name", value(new.name.as_str()));
    entry.insert("kind", value(kind));
    entry.insert("address", value(&address));
    match new.kind {
        TargetKind::Ssh => {
            ensure!(new.tls_ca.is_none() && new.admin_user.is_none(), "--tls-ca and --admin-user are for postgres");
            entry.insert("host_key", value(host_key(new, &address)?));
        }
        TargetKind::Postgres => {
            ensure!(new.host_key.is_none() && new.fingerprint.is_none(), "--host-key and --fingerprint are for ssh");
            let ca = new.tls_ca.as_deref().context(
                "--tls-ca FILE is missing: the CA of the server's certificate (PEM); TLS is verify-full, always",
            )?;
            entry.insert("tls_ca", value(edit.path(ca)?));
            entry.insert("admin_user", value(new.admin_user.as_ref().map_or("tidegate", |role| role.as_str())));
        }
    }
    if !new.labels.is_empty() {
        let labels: InlineTable = new.labels.iter().map(|(key, label)| (key.as_str(), label.as_str())).collect();
        entry.insert("labels", value(labels));
    }
    edit.add("target", entry)?;
    done(edit, file, &format!("target {}: then install what `tidegate target trust {0}` prints", new.name))
}

pub(super) fn user(file: &Path, new: &AddUser) -> anyhow::Result<ExitCode> {
    let mut edit = Edit::open(file)?;
    ensure!(!edit.config.policy.identities.contains_key(&new.name), "there is a user {} already", new.name);
    let mut entry = Table::new();
    entry.insert("name", value(new.name.as_str()));
    let groups: Array = new.groups.iter().map(|group| group.as_str()).collect();
    entry.insert("groups", value(groups));
    let mut keys = Array::new();
    for file in &new.ssh_keys {
        public_keys(file)?.iter().for_each(|line| keys.push(line));
    }
    if !keys.is_empty() {
        entry.insert("ssh_keys", value(keys));
    }
    if let Some(account) = &new.unix_user {
        entry.insert("unix_user", value(account));
    }
    edit.add("user", entry)?;
    done(edit, file, &format!("user {}", new.name))
}

fn done(edit: Edit, file: &Path, what: &str) -> anyhow::Result<ExitCode> {
    for note in edit.save()? {
        writeln!(io::stderr(), "note: {}", plain(&note))?;
    }
    print(&format!("{}: added {what}\n`tidegate reload` puts it in force\n", plain(&file.display().to_string())))
}

/// A host without a port gets the usual one.
fn with_port(address: &str, port: u16) -> String {
    let host = address.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<std::net::Ipv6Addr>() {
        Ok(host) => format!("[{host}]:{port}"),
        Err(_) if address.rsplit_once(':').is_none() => format!("{address}:{port}"),
        Err(_) => address.to_owned(),
    }
}

/// The lines of a `.pub` file.
fn public_keys(file: &Path) -> anyhow::Result<Vec<String>> {
    const LARGEST: u64 = 64 << 10;
    let mut text = String::new();
    let shown = || file.display().to_string();
    if file == Path::new("-") {
        io::stdin().take(LARGEST).read_to_string(&mut text).context("stdin")?;
    } else {
        fs::File::open(file).with_context(shown)?.take(LARGEST).read_to_string(&mut text).with_context(shown)?;
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    ensure!(!lines.is_empty(), "{} holds no public key", shown());
    ensure!(!text.contains("PRIVATE KEY"), "{} is a private key: give the .pub file", shown());
    Ok(lines)
}

/// The one that was given, or one that the host shows and that is known by its fingerprint.
fn host_key(new: &AddTarget, address: &str) -> anyhow::Result<String> {
    if let Some(given) = &new.host_key {
        if given.split_whitespace().nth(1).is_some() {
            return Ok(given.clone());
        }
        let lines = public_keys(Path::new(given))?;
        return lines.into_iter().next().context("no host key was given");
    }
    let terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
    ensure!(
        terminal || new.fingerprint.is_some(),
        "nobody is at a terminal to compare the host key: give it with --host-key, or its --fingerprint SHA256:…"
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shown = runtime.block_on(shown_host_keys(address));
    let keys = shown.map_err(|cause| anyhow::anyhow!("{address}: {}", plain(&cause)))?;
    let chosen = match &new.fingerprint {
        Some(known) => with_fingerprint(&keys, known)
            .with_context(|| format!("{address} shows no key of {known}; it shows:\n{}", listed(&keys)))?,
        None => confirmed(&keys, address)?,
    };
    Ok(chosen.to_openssh()?)
}

fn with_fingerprint<'a>(keys: &'a [PublicKey], known: &str) -> Option<&'a PublicKey> {
    keys.iter().find(|key| key.fingerprint(HashAlg::Sha256).to_string() == known.trim())
}

/// As `ssh-keygen -lf` names them.
fn listed(keys: &[PublicKey]) -> String {
    let line = |key: &PublicKey| format!("  {} ({})", key.fingerprint(HashAlg::Sha256), key.algorithm());
    keys.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The first of them, if a person says yes.
fn confirmed<'a>(keys: &'a [PublicKey], address: &str) -> anyhow::Result<&'a PublicKey> {
    let first = keys.first().context("it shows no host key")?;
    let mut err = io::stderr();
    write!(
        err,
        "{} shows:\n{}\n\
         Compare with what the host itself says (`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on its console).\n\
         Is {} its key? Type yes, or the fingerprint: ",
        plain(address),
        listed(keys),
        first.fingerprint(HashAlg::Sha256)
    )?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().lock().take(1024).read_line(&mut answer)?;
    match answer.trim() {
        "yes" => Ok(first),
        other => match with_fingerprint(keys, other) {
            Some(key) => Ok(key),
            None => bail!("not confirmed; nothing was written"),
        },
    }
}
