//! `include = ["targets.d/*.toml"]`: people, targets, entitlements and issuers from other files.
//!
//! Which files there are is told by their names alone, in sorted order, so that neither the order of the patterns nor that
//! of the directory means anything. A pattern may match nothing (a directory that is filled later), a plain name may not.

use super::{
    LARGEST,
    section::{Section, TextSpot},
    source::Source,
};
use glob::{MatchOptions, Pattern};
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// More are no configuration.
const MOST: usize = 10_000;

/// Hidden files are backups and half-written ones of editors.
const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// The files that the main one includes, by name, and what `check` says about it. What cannot be read has said so.
pub(super) fn included(main: &Section<'_>) -> (Vec<Arc<Source>>, Vec<String>) {
    const FIX: &str = "name files, like \"people.toml\" or \"targets.d/*.toml\"";
    let (mut files, mut sources, mut notes) = (BTreeSet::new(), Vec::new(), Vec::new());
    for pattern in main.texts("include").map(|list| list.value).unwrap_or_default() {
        let found = match matching(&pattern) {
            Ok(found) => found,
            Err(wrong) => {
                pattern.fault(wrong, FIX);
                continue;
            }
        };
        if found.is_empty() {
            notes.push(format!("{}: include: {:?} matches no file", pattern.place(), pattern.value));
        }
        for file in found {
            if !files.insert(file.clone()) {
                continue;
            }
            match read(main.source(), &file) {
                Ok(source) => sources.push(Arc::new(source)),
                Err(wrong) => pattern.fault(wrong, FIX),
            }
        }
    }
    if files.len() > MOST {
        main.fault("include", format!("matches more than {MOST} files"), "write more into each");
    }
    sources.sort_by(|a, b| a.shown.cmp(&b.shown));
    (sources, notes)
}

/// The files of a pattern; a plain name is its only match, whether it exists or not.
fn matching(pattern: &TextSpot<'_>) -> Result<BTreeSet<PathBuf>, String> {
    if pattern.value.is_empty() || pattern.value.contains('\0') {
        return Err("is not the name of a file".to_owned());
    }
    if !pattern.value.contains(['*', '?', '[']) {
        return Ok(BTreeSet::from([pattern.path()]));
    }
    Pattern::new(pattern.value).map_err(|error| format!("is not a pattern: {}", error.msg))?;
    // Only what was written is a pattern, not the folder that it is relative to.
    let absolute = Path::new(pattern.value).is_absolute();
    let folder = if absolute { PathBuf::new() } else { pattern.folder().to_owned() };
    let folder = folder.to_str().ok_or("stands in a folder whose name is not UTF-8")?;
    let whole =
        if absolute { pattern.value.to_owned() } else { format!("{}/{}", Pattern::escape(folder), pattern.value) };
    let paths = glob::glob_with(&whole, MATCHING).map_err(|error| format!("is not a pattern: {}", error.msg))?;
    let found: Result<BTreeSet<PathBuf>, glob::GlobError> = paths.take(MOST + 1).collect();
    found.map_err(|error| format!("{} cannot be read: {}", error.path().display(), error.error()))
}

fn read(main: &Source, file: &Path) -> Result<Source, String> {
    // As the main file was named, so that a fault can be opened from where the command was run.
    let shown = match file.strip_prefix(&main.folder) {
        Ok(below) => Path::new(&main.shown).parent().unwrap_or(Path::new("")).join(below),
        Err(_) => file.to_owned(),
    };
    let shown = shown.to_str().ok_or("matches a file whose name is not UTF-8")?.to_owned();
    if file
        .canonicalize()
        .is_ok_and(|file| file == main.folder.join(Path::new(&main.shown).file_name().unwrap_or_default()))
    {
        return Err("matches this file itself: give those that it includes a folder of their own".to_owned());
    }
    match text(file) {
        Ok(text) => Ok(Source::file(file, shown, text)),
        Err(error) => Err(format!("{shown} cannot be read: {error}")),
    }
}

/// The TOML files of a directory, by name.
pub(super) fn directory(folder: &Path) -> Result<Vec<Source>, String> {
    let unreadable = |error: io::Error| format!("{} cannot be read: {error}", folder.display());
    let entries = fs::read_dir(folder).map_err(unreadable)?.take(MOST).collect::<io::Result<Vec<_>>>();
    let mut sources = Vec::new();
    for file in entries.map_err(unreadable)?.into_iter().map(|entry| entry.path()) {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with('.') || !name.ends_with(".toml") {
            continue;
        }
        let shown = file.display().to_string();
        let text = text(&file).map_err(|error| format!("{shown} cannot be read: {error}"))?;
        sources.push(Source::file(&file, shown, text));
    }
    sources.sort_by(|a, b| a.shown.cmp(&b.shown));
    Ok(sources)
}

/// A configuration file's text: a file's (nothing waits for a pipe), UTF-8, and not endless.
fn text(file: &Path) -> io::Result<String> {
    let found = fs::metadata(file)?;
    if !found.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    if found.len() > LARGEST {
        return Err(io::Error::other("larger than 16 MiB"));
    }
    String::from_utf8(fs::read(file)?).map_err(|_| io::Error::other("not UTF-8 text"))
}
