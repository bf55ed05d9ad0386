//! Secrets that the configuration makes the gateway hold. It names where each is, and never holds one itself.
//!
//! `STEM_file` names a file that nobody else may read, `STEM_env` an environment variable: exactly one of them. The value
//! is in no message, whatever is wrong with it.

use super::section::{Section, TextSpot};
use crate::text::plain;
use secrecy::SecretSlice;
use std::{
    fmt, fs,
    io::Read as _,
    os::unix::{
        ffi::OsStringExt as _,
        fs::{OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// A secret that is held.
#[derive(Debug, Clone)]
pub(crate) struct Secret {
    /// Where it is read from.
    pub(crate) place: SecretPlace,
    /// Why.
    pub(crate) why: String,
}

/// Where a secret is read from.
#[derive(Debug, Clone)]
pub(crate) enum SecretPlace {
    /// A file of mode 0600 or less.
    File(PathBuf),
    /// An environment variable of the gateway.
    Variable(String),
}

impl fmt::Display for SecretPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => f.write_str(&plain(&file.display().to_string())),
            Self::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// A secret with its place.
pub(super) struct Held<T> {
    pub(super) place: SecretPlace,
    pub(super) value: T,
}

/// Longer is no secret that somebody shares.
const LONGEST: u64 = 64 << 10;

/// What one of the two keys, `STEM_file` and `STEM_env`, leads to. `None` has said why.
pub(super) fn secret<T>(
    section: &Section<'_>,
    [file, variable]: [&'static str; 2],
    fix: &str,
    parse: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Option<Held<T>> {
    match (section.text(file), section.text(variable)) {
        (Some(_), Some(second)) => {
            second.fault(format!("stands beside {file}"), "write one of them");
            None
        }
        (Some(named), None) => {
            let path = named.path();
            let shown = plain(&path.display().to_string()).into_owned();
            let value = named.parse(
                |_| of_file(&path).and_then(|bytes| parse(&bytes)).map_err(|wrong| format!("{shown} {wrong}")),
                fix,
            )?;
            Some(Held { place: SecretPlace::File(path), value: value.value })
        }
        (None, Some(named)) => of_variable(named, fix, parse),
        (None, None) => {
            if !section.has(file) && !section.has(variable) {
                section.fault(file, format!("is missing, and {variable} too"), fix);
            }
            None
        }
    }
}

fn of_variable<T>(named: TextSpot<'_>, fix: &str, parse: impl FnOnce(&[u8]) -> Result<T, String>) -> Option<Held<T>> {
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let name = named.value.to_owned();
    if !name.bytes().next().is_some_and(letter) || !name.bytes().all(|b| letter(b) || b.is_ascii_digit()) {
        named.fault("is not the name of an environment variable", "use letters, digits and _");
        return None;
    }
    let read = |name: &str| {
        let value = std::env::var_os(name).ok_or("is not set in this environment")?;
        Ok::<_, String>(Zeroizing::new(value.into_vec()))
    };
    let parse = |name: &str| read(name).and_then(|bytes| parse(&bytes)).map_err(|wrong| format!("{name} {wrong}"));
    let value = named.parse(parse, fix)?.value;
    Some(Held { place: SecretPlace::Variable(name), value })
}

/// A file's bytes. A text file's last newline is no part of the secret.
pub(super) fn of_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let unreadable = |cause: std::io::Error| format!("cannot be read: {cause}");
    // What is looked at is what is read; and nothing waits for the other end of a pipe.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().try_into().unwrap_or_default();
    let file = fs::OpenOptions::new().read(true).custom_flags(nonblock).open(path).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() {
        return Err("is no file".to_owned());
    }
    let mode = found.permissions().mode();
    // A copy that systemd made for this process alone: an access list gives it to the account, which shows as the group's bit.
    let handed_over = std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|folder| path.starts_with(folder));
    if mode & if handed_over { 0o037 } else { 0o077 } != 0 {
        return Err(format!("is open to others (mode {:04o}): chmod 600 it", mode & 0o7777));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let text = bytes.strip_suffix(b"\n").filter(|line| line.iter().all(|b| (b' '..=b'~').contains(b) || *b == b'\r'));
    if let Some(line) = text {
        let length = line.strip_suffix(b"\r").unwrap_or(line).len();
        bytes.truncate(length);
    }
    Ok(bytes)
}

/// At least so many bytes.
pub(super) fn long_enough(bytes: &[u8], least: usize) -> Result<SecretSlice<u8>, String> {
    match bytes.len() {
        0 => Err("is empty".to_owned()),
        length if length < least => Err(format!("holds {length} bytes: too few for a secret")),
        length if length as u64 > LONGEST => Err("holds more than 64 KiB: too many for a secret".to_owned()),
        _ => Ok(SecretSlice::from(bytes.to_vec())),
    }
}
