//! `tidegate backup` and `tidegate restore`.
//!
//! What always holds: a backup is one moment of the store, also while the gateway serves, and was verified against its own ledger
//! before it has its name; keys are in it only when asked for, and then for the auditors' keys alone (`age`). What is
//! restored opens nothing by itself: what was revoked or used after the backup is not known in it, so the first start
//! revokes every grant and voids every password ([`Store::open`](tidegate_grants::Store::open)), and says so in the ledger. Old
//! leases go on being torn down.
//!
//! The file is a tar archive: `manifest.json`, `store/…`, `recordings/…`, `keys.tar.age`.

use crate::config::{Config, RECORDINGS};
use anyhow::{Context as _, bail, ensure};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, lchown},
    path::{Component, Path, PathBuf},
};
use tidegate_ca::Keys;
use tidegate_grants::store::{self, RESTORED};
use tidegate_recorder::{index, keys::Identities};

const MANIFEST: &str = "manifest.json";
const STORE: &str = "store";
const KEYS: &str = "keys";
const SEALED_KEYS: &str = "keys.tar.age";
/// Of this archive.
const FORMAT: u32 = 1;
/// A manifest is some hundred bytes.
const LONGEST_MANIFEST: u64 = 64 << 10;
/// All keys are some ten KiB.
const ROOM_FOR_KEYS: usize = 256 << 10;
const LONGEST_KEYS: u64 = 4 << 20;

/// What the archive says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    tidegate: String,
    gateway: String,
    /// When the store was read.
    pub(crate) at: Timestamp,
    /// Entries in its ledger.
    pub(crate) entries: u64,
    /// Whether the gateway's keys are in it, for the auditors' keys.
    pub(crate) keys: bool,
    /// How many recordings are in it.
    pub(crate) recordings: u64,
}

/// What goes in beside the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct With {
    pub(crate) keys: bool,
    pub(crate) recordings: bool,
}

/// Writes a backup, under another name until it is whole.
pub(crate) fn make(config: &Config, file: &Path, with: With) -> anyhow::Result<Manifest> {
    ensure!(!file.exists(), "{} exists already, and is left as it is", file.display());
    let state = &config.state_dir;
    let keys = Keys::open(&state.join(KEYS)).context("the gateway's keys, to verify the backup with")?;
    let draft = beside(file, "part");
    let copied = tempfile::Builder::new().prefix(".tidegate-backup-").tempdir_in(folder(file))?;
    let at = Timestamp::now();
    store::copy(state, copied.path()).with_context(|| format!("the store in {}", state.display()))?;
    let verdict = store::verify(copied.path(), keys.ledger.verifying_key().to_bytes())?;
    if let Some(fault) = verdict.faults.first() {
        bail!("the store does not agree with its ledger, so this would be no backup: {fault} (tidegate ledger verify)");
    }
    let mut recordings = if with.recordings { below(&state.join(RECORDINGS))? } else { Vec::new() };
    recordings.retain(|path| !index::is_one(path));
    let manifest = Manifest {
        format: FORMAT,
        tidegate: env!("CARGO_PKG_VERSION").to_owned(),
        gateway: config.policy.gateway.clone(),
        at,
        entries: verdict.entries,
        keys: with.keys,
        recordings: u64::try_from(recordings.len()).unwrap_or(u64::MAX),
    };
    let shown = || draft.display().to_string();
    let made =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft).with_context(shown)?;
    let written = archive(&made, config, copied.path(), &recordings, &manifest).and_then(|()| Ok(made.sync_all()?));
    if let Err(error) = written {
        let _ = fs::remove_file(&draft); // half a backup is none
        return Err(error.context(shown()));
    }
    fs::rename(&draft, file).with_context(|| file.display().to_string())?;
    File::open(folder(file))?.sync_all()?;
    Ok(manifest)
}

fn archive(
    made: &File,
    config: &Config,
    store: &Path,
    recordings: &[PathBuf],
    manifest: &Manifest,
) -> anyhow::Result<()> {
    let mut tar = tar::Builder::new(BufWriter::new(made));
    append(&mut tar, Path::new(MANIFEST), &serde_json::to_vec_pretty(manifest)?)?;
    for path in below(store)? {
        tar.append_path_with_name(&path, Path::new(STORE).join(path.strip_prefix(store)?))?;
    }
    if manifest.keys {
        append(&mut tar, Path::new(SEALED_KEYS), &sealed_keys(config)?)?;
    }
    let from = config.state_dir.join(RECORDINGS);
    for path in recordings {
        // A live one grows: what is there when it is opened is what goes in.
        let mut file = File::open(path).with_context(|| path.display().to_string())?;
        let length = file.metadata()?.len();
        let mut header = header(length);
        let name = Path::new(RECORDINGS).join(path.strip_prefix(&from)?);
        tar.append_data(&mut header, name, (&mut file).take(length))?;
    }
    tar.into_inner()?.flush()?;
    Ok(())
}

fn header(length: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(length);
    header.set_mode(0o600);
    header
}

fn append(tar: &mut tar::Builder<BufWriter<&File>>, name: &Path, bytes: &[u8]) -> io::Result<()> {
    tar.append_data(&mut header(u64::try_from(bytes.len()).unwrap_or(u64::MAX)), name, bytes)
}

fn sealed_keys(config: &Config) -> anyhow::Result<Vec<u8>> {
    let dir = config.state_dir.join(KEYS);
    // With room for all of it: a buffer that grows leaves what was in it behind.
    let mut plain = zeroize::Zeroizing::new(Vec::with_capacity(ROOM_FOR_KEYS));
    let mut tar = tar::Builder::new(&mut *plain);
    for path in below(&dir)? {
        tar.append_path_with_name(&path, path.strip_prefix(&dir)?)?;
    }
    tar.into_inner()?;
    Ok(tidegate_recorder::keys::seal_for(&config.recording.recipients, &plain)?)
}

/// Puts a backup into a new state directory.
pub(crate) fn restore(file: &Path, into: &Path, identity: Option<&Path>) -> anyhow::Result<Manifest> {
    let empty = match fs::read_dir(into) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => bail!("{}: {error}", into.display()),
    };
    ensure!(empty, "{} is not empty: name a new directory, and move what is there away", into.display());
    let identity = identity.map(Identities::from_file).transpose()?;
    let opened = File::open(file).with_context(|| file.display().to_string())?;
    let mut tar = tar::Archive::new(BufReader::new(opened));
    let mut entries = tar.entries()?;
    let manifest = match entries.next() {
        Some(first) => manifest(first?).with_context(|| format!("{} is no backup of tidegate's", file.display()))?,
        None => bail!("{} is no backup of tidegate's", file.display()),
    };
    // The marker comes first: a state that is only half there opens nothing either.
    DirBuilder::new().recursive(true).mode(0o711).create(into).with_context(|| into.display().to_string())?;
    fs::set_permissions(into, std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
    write(&into.join(RESTORED), serde_json::to_string(&manifest)?.as_bytes())?;
    for entry in entries {
        let entry = entry?;
        put(entry, into, identity.as_ref())?;
    }
    give_to_owner(into)?;
    File::open(into)?.sync_all()?;
    Ok(manifest)
}

/// What root puts into somebody's directory is theirs, so that the gateway's account can use it. The keys stay root's where they
/// are: systemd hands them over (`LoadCredential`), and the account alone may not read them.
fn give_to_owner(into: &Path) -> anyhow::Result<()> {
    let owner = fs::metadata(into)?;
    if !rustix::process::geteuid().is_root() || owner.uid() == 0 {
        return Ok(());
    }
    let keys = into.join(KEYS);
    for file in below(into)?.into_iter().filter(|file| !file.starts_with(&keys)) {
        for path in file.ancestors().take_while(|path| *path != into) {
            lchown(path, Some(owner.uid()), Some(owner.gid())).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

fn manifest(entry: tar::Entry<'_, impl Read>) -> anyhow::Result<Manifest> {
    ensure!(entry.path()? == Path::new(MANIFEST), "it does not begin with {MANIFEST}");
    let manifest: Manifest = serde_json::from_reader(entry.take(LONGEST_MANIFEST))?;
    ensure!(manifest.format == FORMAT, "its format is {}, and this program knows {FORMAT}", manifest.format);
    Ok(manifest)
}

/// One file, to where it belongs and nowhere else.
fn put(mut entry: tar::Entry<'_, impl Read>, into: &Path, identity: Option<&Identities>) -> anyhow::Result<()> {
    let name = entry.path()?.into_owned();
    ensure!(entry.header().entry_type().is_file(), "{} is no file", name.display());
    let parts: Vec<&str> = name
        .components()
        .filter_map(|part| if let Component::Normal(part) = part { part.to_str() } else { None })
        .collect();
    ensure!(parts.len() == name.components().count(), "{} leads elsewhere", name.display());
    let path = match parts.as_slice() {
        [SEALED_KEYS] => return put_keys(entry, into, identity),
        [STORE, file] => into.join(file),
        [RECORDINGS, ..] => into.join(&name),
        _ => bail!("{} is nothing of a backup", name.display()),
    };
    let dir = folder(&path);
    DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| path.display().to_string())?;
    io::copy(&mut entry, &mut file).with_context(|| path.display().to_string())?;
    file.sync_all()?;
    Ok(())
}

fn put_keys(entry: tar::Entry<'_, impl Read>, into: &Path, identity: Option<&Identities>) -> anyhow::Result<()> {
    let Some(identity) = identity else { return Ok(()) }; // the caller says so
    let mut sealed = Vec::new();
    entry.take(LONGEST_KEYS).read_to_end(&mut sealed)?;
    let plain = identity.open(&sealed).context("the keys in the backup")?;
    let dir = into.join(KEYS);
    DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
    for entry in tar::Archive::new(plain.as_slice()).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        ensure!(
            matches!(name.components().collect::<Vec<_>>().as_slice(), [Component::Normal(_)]),
            "{} is no key",
            name.display()
        );
        let mut bytes = zeroize::Zeroizing::new(Vec::new());
        entry.read_to_end(&mut bytes)?;
        write(&dir.join(name), &bytes)?;
    }
    Ok(File::open(&dir)?.sync_all()?)
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let shown = || path.display().to_string();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).with_context(shown)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(shown)
}

fn folder(file: &Path) -> PathBuf {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{ending}"));
    file.with_file_name(name)
}

/// All files below a directory; none if it is not there.
fn below(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => bail!("{}: {error}", dir.display()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found.extend(below(&entry.path())?);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
