//! All files of a configuration as one table, as they are written: what [`diff`](super::diff) compares.

use super::source::Source;
use std::{path::Path, sync::Arc};
use toml::{Table, Value};

/// Keys of entries that name files.
const PATHS: [&str; 3] = ["tls_ca", "secret_file", "admin_password_file"];

/// The main file, with the entries of those that it includes.
pub(super) fn merged(main: &Source, included: &[Arc<Source>]) -> Table {
    let mut whole: Table = toml::from_str(&main.text).unwrap_or_default(); // it has been parsed without an error
    whole.remove("include");
    for source in included {
        let part: Table = toml::from_str(&source.text).unwrap_or_default();
        for (key, entries) in part {
            let Value::Array(entries) = entries else { continue };
            let entries = entries.into_iter().map(|entry| seen_from(&main.folder, &source.folder, entry));
            let list = whole.entry(key).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.extend(entries);
            }
        }
    }
    whole
}

/// The same file, however an entry names it: one that moves to another folder and means another file has changed.
fn seen_from(main: &Path, folder: &Path, mut entry: Value) -> Value {
    if let Value::Table(entry) = &mut entry {
        for (_, value) in entry.iter_mut().filter(|(key, _)| PATHS.contains(&key.as_str())) {
            if let Value::String(file) = value {
                let path = folder.join(&*file);
                *file = path.strip_prefix(main).unwrap_or(&path).display().to_string();
            }
        }
    }
    entry
}
