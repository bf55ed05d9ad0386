//! `[[inventory]]`: targets that a program lists, or that stand in the files of a directory, read again and again.
//!
//! A program prints one JSON object, `{"targets": [{"name": "web-1", "kind": "ssh", "address": "10.0.0.11:22", …}]}`, with the keys
//! of `[[target]]`; a directory holds TOML files with `[[target]]`. Nothing but targets can come from either.
//!
//! What always holds: a program runs without a shell, with an environment of a few names, until its deadline and no longer, and
//! what it prints is bounded. What was listed last is kept beside the state, so that a restart does not depend on anybody's
//! program.

use super::{
    LARGEST, include,
    section::{Section, Whole},
    source::Source,
    value::{self, DURATION_FIX, PLAIN_NAME_FIX},
};
use crate::text::plain;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    task::spawn_blocking,
    time::timeout,
};

/// Where targets are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inventory {
    pub(crate) name: String,
    /// From one look to the next.
    pub(crate) every: Duration,
    pub(crate) from: Origin,
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Origin {
    /// A program and its arguments.
    Command {
        command: Vec<String>,
        /// Where it runs.
        folder: PathBuf,
        /// What of the gateway's environment it gets, beside `PATH`, `HOME` and `LANG`.
        env: Vec<String>,
        /// Killed after this.
        deadline: Duration,
    },
    /// A directory of TOML files.
    Directory(PathBuf),
}

/// What was listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listing {
    /// When.
    pub(crate) at: Timestamp,
    /// By what: another command's listing says nothing.
    by: Origin,
    /// As TOML.
    pub(super) texts: Vec<Source>,
}

/// By the inventory's name.
pub(crate) type Listings = BTreeMap<String, Listing>;

/// In the state directory.
const KEPT: &str = "inventory";
const FIX: &str = "write command = [\"PROGRAM\", …] or directory = \"…\"";

/// All of them. What was faulty is left out, and has said so.
pub(super) fn inventories(whole: &Whole<'_>) -> Vec<Inventory> {
    whole.main.sections("inventory").iter().filter_map(inventory).collect()
}

fn inventory(section: &Section<'_>) -> Option<Inventory> {
    let name = section.need("name", section.text("name"), "write name = \"cloud\"");
    let name = name.and_then(|name| name.parse(value::plain_name, PLAIN_NAME_FIX));
    let time = |key: &'static str, usual: u64| match section.text(key) {
        Some(time) => time.parse(value::positive_duration, DURATION_FIX).map(|time| time.value),
        None => Some(Duration::from_secs(usual)),
    };
    let (every, deadline) = (time("every", 300), time("deadline", 30));
    let env = section.texts("env").map(|list| list.value).unwrap_or_default();
    let command = section.texts("command");
    let directory = section.text("directory");
    section.unknown();
    let name = name?;
    if let Some(other) = name.seen("inventory", &name.value) {
        name.fault(format!("is the name of another inventory already ({other})"), "give each a name of its own");
    }
    let from = match (command, directory) {
        (Some(command), None) if command.value.first().is_some_and(|program| !program.value.is_empty()) => {
            let words = |list: &[super::section::TextSpot<'_>]| list.iter().map(|word| word.value.to_owned()).collect();
            let folder = section.source().folder.clone();
            Origin::Command { command: words(&command.value), folder, env: words(&env), deadline: deadline? }
        }
        (None, Some(directory)) => {
            section.misplaced(&["env", "deadline"], "is for command: nothing runs to read a directory", "take it out");
            Origin::Directory(directory.path())
        }
        (None, None) if section.has("command") || section.has("directory") => return None,
        (Some(_), Some(directory)) => {
            directory.fault("stands beside command", FIX);
            return None;
        }
        _ => {
            section.fault("command", "is missing, and directory too: there is nothing to look at", FIX);
            return None;
        }
    };
    Some(Inventory { name: name.value, every: every?, from })
}

impl Listing {
    /// The targets that it names.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let tables = self.texts.iter().filter_map(|text| text.text.parse::<toml::Table>().ok());
        let entries = tables.filter_map(|table| Some(table.get("target")?.as_array()?.clone())).flatten();
        entries.filter_map(|entry| Some(entry.get("name")?.as_str()?.to_owned())).collect()
    }

    /// Whether it says the same as another.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.texts == other.texts
    }

    /// It is of this inventory, as the configuration has it now.
    pub(super) fn is_of(&self, inventory: &Inventory) -> bool {
        self.by == inventory.from
    }

    /// Keeps it beside the state, for the next start.
    pub(crate) fn keep(&self, state: &Path, name: &str) -> std::io::Result<()> {
        let folder = state.join(KEPT);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let (new, file) = (folder.join(format!(".{name}.new")), folder.join(format!("{name}.json")));
        let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        out.write_all(serde_json::to_string(self)?.as_bytes())?;
        out.sync_all()?;
        fs::rename(new, file)
    }
}

/// What was listed last, if it was kept and is of this inventory.
pub(super) fn kept(state: &Path, inventory: &Inventory) -> Option<Listing> {
    let text = fs::read(state.join(KEPT).join(format!("{}.json", inventory.name))).ok()?;
    serde_json::from_slice::<Listing>(&text).ok().filter(|listing| listing.is_of(inventory))
}

/// Looks now.
///
/// # Errors
/// In words: nothing is known by this look.
pub(crate) async fn look(inventory: &Inventory, now: Timestamp) -> Result<Listing, String> {
    let texts = match &inventory.from {
        Origin::Command { command, folder, env, deadline } => {
            let printed = timeout(*deadline, Running::start(command, folder, env)?.end()).await;
            let late = || format!("{} did not end within {}", shown(command), value::show_duration(*deadline));
            let printed = printed.map_err(|_| late())?.map_err(|wrong| format!("{} {wrong}", shown(command)))?;
            vec![listed(&inventory.name, folder, &printed).map_err(|wrong| format!("{} {wrong}", shown(command)))?]
        }
        Origin::Directory(folder) => {
            let folder = folder.clone();
            let read = spawn_blocking(move || include::directory(&folder)).await;
            read.map_err(|error| error.to_string())??
        }
    };
    Ok(Listing { at: now, by: inventory.from.clone(), texts })
}

fn shown(command: &[String]) -> String {
    plain(command.first().map_or("", String::as_str)).into_owned()
}

/// What a program prints.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Printed {
    targets: Vec<toml::Table>,
}

fn listed(name: &str, folder: &Path, printed: &[u8]) -> Result<Source, String> {
    let read = serde_json::from_slice::<Printed>(printed);
    let Printed { targets } = read.map_err(|error| format!("printed no inventory: {error}"))?;
    let targets = targets.into_iter().map(toml::Value::Table).collect();
    let table = toml::Table::from_iter([("target".to_owned(), toml::Value::Array(targets))]);
    let text = toml::to_string(&table).map_err(|error| format!("printed no inventory: {error}"))?;
    Ok(Source { shown: format!("inventory[{name}]"), folder: folder.to_owned(), text, listed: true })
}

/// A program that runs. One that is given up is killed with all that it has started.
struct Running {
    child: Child,
}

impl Running {
    fn start(command: &[String], folder: &Path, env: &[String]) -> Result<Self, String> {
        let (program, arguments) = command.split_first().ok_or("there is no command")?;
        // A name is looked for in PATH; anything with a slash is relative to the file, as every path in it is.
        let program = if program.contains('/') { folder.join(program) } else { PathBuf::from(program) };
        let names = ["PATH", "HOME", "LANG"].into_iter().chain(env.iter().map(String::as_str));
        let known = names.filter_map(|name| Some((name, std::env::var_os(name)?)));
        let mut command = Command::new(&program);
        command.args(arguments).current_dir(folder).env_clear().envs(known);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.process_group(0).kill_on_drop(true).spawn();
        let child = child.map_err(|error| format!("{} cannot be run: {error}", program.display()))?;
        Ok(Self { child })
    }

    /// What it printed, if it ended well.
    async fn end(mut self) -> Result<Vec<u8>, String> {
        let (Some(out), Some(err)) = (self.child.stdout.take(), self.child.stderr.take()) else {
            return Err("has no output".to_owned());
        };
        let (printed, said) = tokio::join!(bounded(out, LARGEST), complained(err));
        let printed = printed?;
        let status = self.child.wait().await.map_err(|error| error.to_string())?;
        if status.success() {
            return Ok(printed);
        }
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        Err(format!("ended with {status}: {}", plain(last)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only while it has not been waited for is the number its own.
        let group = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
        if let Some(group) = group {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// All of it, unless it is too much.
async fn bounded(mut from: impl AsyncRead + Unpin, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = (&mut from).take(most + 1).read_to_end(&mut bytes).await;
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > most { Err("printed more than 16 MiB".to_owned()) } else { Ok(bytes) }
}

/// The beginning of it; the rest is read and forgotten, so that nobody waits.
async fn complained(mut from: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    let read = (&mut from).take(8 << 10).read_to_end(&mut bytes).await;
    if read.is_ok() {
        let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
