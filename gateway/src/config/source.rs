//! The texts that a configuration is made of: `tidegate.toml`, the files that it includes, what inventories list.
//!
//! Each knows how it is called in messages and where its relative paths start, so that whoever reads a value from it
//! needs to know neither which file it stands in nor who wrote it.

use crate::text::plain;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// One text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Source {
    /// As messages name it: a file as it was named on the command line or by an `include`, or `inventory[cloud]`.
    pub(crate) shown: String,
    /// What relative paths in it are relative to.
    pub(crate) folder: PathBuf,
    /// As it was read.
    pub(crate) text: String,
    /// A program wrote it, and not in this form: lines and columns would say nothing to anybody.
    #[serde(default)]
    pub(crate) listed: bool,
}

impl Source {
    /// A file's text.
    pub(crate) fn file(file: &Path, shown: String, text: String) -> Self {
        Self { shown, folder: folder(file), text, listed: false }
    }

    /// Where this byte of it stands.
    pub(super) fn place(&self, at: usize) -> Place {
        if self.listed {
            return Place { file: self.shown.clone(), line: 0, column: 0 };
        }
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |start| start.chars().count()) + 1;
        Place { file: self.shown.clone(), line, column }
    }
}

/// What relative paths in a file are relative to.
pub(super) fn folder(file: &Path) -> PathBuf {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}

/// A place in a text, as `FILE:LINE:COLUMN`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// As it is named.
    pub(crate) file: String,
    /// From 1; 0 where lines say nothing.
    pub(crate) line: usize,
    /// From 1, in characters; 0 where there is no line.
    pub(crate) column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&plain(&self.file))?;
        if self.line > 0 { write!(f, ":{}:{}", self.line, self.column) } else { Ok(()) }
    }
}
