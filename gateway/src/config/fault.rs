//! What is wrong with a configuration file: where, which key, what, and what to do.

use crate::text::plain;
use std::{cell::RefCell, collections::HashMap, fmt, path::Path};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// From 1.
    pub(crate) line: usize,
    /// From 1, in characters.
    pub(crate) column: usize,
    /// Dotted, e.g. `target[web-1].host_key`. Empty for a fault of the file itself.
    pub(crate) key: String,
    /// What is wrong.
    pub(crate) wrong: String,
    /// What to do.
    pub(crate) fix: String,
}

/// Everything that was found wrong with one file, in its order. Never empty.
#[derive(Debug)]
pub(crate) struct Faults {
    /// The file as it was named.
    pub(crate) file: String,
    /// By line.
    pub(crate) list: Vec<Fault>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, fault) in self.list.iter().enumerate() {
            if nth > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:{}:{}: ", plain(&self.file), fault.line, fault.column)?;
            if !fault.key.is_empty() {
                write!(f, "{}: ", plain(&fault.key))?;
            }
            write!(f, "{}; {}", plain(&fault.wrong), plain(&fault.fix))?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// Where faults are gathered while a file is read, and what turns byte offsets into lines.
#[derive(Debug)]
pub(super) struct Findings<'a> {
    text: &'a str,
    list: RefCell<Vec<Fault>>,
    /// What each key of the file is for.
    keys: RefCell<HashMap<String, KeyRole>>,
}

/// What a public key in the file is for. A key has one role: whoever holds it would else be more than they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyRole {
    /// `[[user]] ssh_keys`
    Login,
    /// `[ssh] user_ca`
    UserAuthority,
    /// `[[target]] host_ca`
    HostAuthority,
}

impl KeyRole {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Login => "the login key of a user",
            Self::UserAuthority => "an authority for users (user_ca)",
            Self::HostAuthority => "an authority for hosts (host_ca)",
        }
    }
}

impl<'a> Findings<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, list: RefCell::default(), keys: RefCell::default() }
    }

    /// Adds one, at this byte offset of the file.
    pub(super) fn add(&self, at: usize, key: &str, wrong: impl Into<String>, fix: impl Into<String>) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |start| start.chars().count()) + 1;
        let fault = Fault { line, column, key: key.to_owned(), wrong: wrong.into(), fix: fix.into() };
        self.list.borrow_mut().push(fault);
    }

    /// This key plays this role. The one that it plays already, if there is another.
    pub(super) fn key_plays(&self, key: String, role: KeyRole) -> Option<KeyRole> {
        let played = *self.keys.borrow_mut().entry(key).or_insert(role);
        (played != role).then_some(played)
    }

    /// Nothing, or all of them by line.
    pub(super) fn into_result(self, file: &Path) -> Result<(), Faults> {
        let mut list = self.list.into_inner();
        if list.is_empty() {
            return Ok(());
        }
        list.sort_by_key(|fault| (fault.line, fault.column));
        Err(Faults { file: file.display().to_string(), list })
    }
}
