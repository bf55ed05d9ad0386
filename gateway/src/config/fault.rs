//! What is wrong with a configuration: where, which key, what, and what to do.

use super::source::{Place, Source};
use crate::text::plain;
use std::{cell::RefCell, collections::HashMap, fmt, sync::Arc};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Where.
    pub(crate) place: Place,
    /// Dotted, e.g. `target[web-1].host_key`. Empty for a fault of the file itself.
    pub(crate) key: String,
    /// What is wrong.
    pub(crate) wrong: String,
    /// What to do.
    pub(crate) fix: String,
}

/// Everything that was found wrong, file by file in the order of their names, the main one first. Never empty.
#[derive(Debug)]
pub(crate) struct Faults {
    /// By file and line.
    pub(crate) list: Vec<Fault>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, fault) in self.list.iter().enumerate() {
            if nth > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}: ", fault.place)?;
            if !fault.key.is_empty() {
                write!(f, "{}: ", plain(&fault.key))?;
            }
            write!(f, "{}; {}", plain(&fault.wrong), plain(&fault.fix))?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

impl Faults {
    /// Those of a file that stood in the place of another, by its own name.
    pub(crate) fn renamed(mut self, from: &str, to: &str) -> Self {
        self.list
            .iter_mut()
            .filter(|fault| fault.place.file == from)
            .for_each(|fault| to.clone_into(&mut fault.place.file));
        self
    }
}

/// Where faults are gathered while a configuration is read, and what must be there only once.
#[derive(Debug)]
pub(super) struct Findings {
    /// The main file, whose faults come first.
    main: String,
    list: RefCell<Vec<Fault>>,
    /// What each key is for.
    keys: RefCell<HashMap<String, KeyRole>>,
    /// Where each thing of which there may be one was first seen.
    firsts: RefCell<HashMap<(&'static str, String), First>>,
}

/// A byte of a text.
type First = (Arc<Source>, usize);

/// What a public key in the configuration is for. A key has one role: whoever holds it would else be more than they were made.
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

impl Findings {
    /// None yet, of a configuration with this main file.
    pub(super) fn new(main: &Source) -> Self {
        let main = main.shown.clone();
        Self { main, list: RefCell::default(), keys: RefCell::default(), firsts: RefCell::default() }
    }

    /// Adds one, at this byte of the text.
    pub(super) fn add(&self, source: &Source, at: usize, key: &str, wrong: impl Into<String>, fix: impl Into<String>) {
        let fault = Fault { place: source.place(at), key: key.to_owned(), wrong: wrong.into(), fix: fix.into() };
        self.list.borrow_mut().push(fault);
    }

    /// Whether there is one.
    pub(super) fn any(&self) -> bool {
        !self.list.borrow().is_empty()
    }

    /// This key plays this role. The one that it plays already, if there is another.
    pub(super) fn key_plays(&self, key: String, role: KeyRole) -> Option<KeyRole> {
        let played = *self.keys.borrow_mut().entry(key).or_insert(role);
        (played != role).then_some(played)
    }

    /// There may be one of this: where another was seen before, if one was.
    pub(super) fn seen(&self, what: &'static str, name: String, source: &Arc<Source>, at: usize) -> Option<Place> {
        let mut firsts = self.firsts.borrow_mut();
        match firsts.entry((what, name)) {
            std::collections::hash_map::Entry::Occupied(first) => {
                let (source, at) = first.get();
                Some(source.place(*at))
            }
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert((source.clone(), at));
                None
            }
        }
    }

    /// Where the one `what` of this name stands.
    pub(super) fn first(&self, what: &'static str, name: &str) -> Option<Place> {
        let firsts = self.firsts.borrow();
        firsts.get(&(what, name.to_owned())).map(|(source, at)| source.place(*at))
    }

    /// Nothing, or all of them by file and line.
    pub(super) fn into_result(self) -> Result<(), Faults> {
        let (mut list, main) = (self.list.into_inner(), self.main);
        if list.is_empty() {
            return Ok(());
        }
        list.sort_by(|a, b| (a.place.file != main, &a.place).cmp(&(b.place.file != main, &b.place)));
        Err(Faults { list })
    }
}
