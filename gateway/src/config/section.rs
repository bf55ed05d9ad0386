//! Reads one table of the file, key by key, and remembers where each value stands.
//!
//! A derived `Deserialize` stops at the first fault and knows no second one; an admin who edits a file wants all of
//! them at once. So the syntax tree is walked here: each key is asked for once, a key that nobody asked for is unknown,
//! and every value keeps its place in the file so that later checks (an unknown reference, say) can point at it.

use super::{
    fault::{Findings, KeyRole},
    keys::{self, Table, Value},
    source::{Place, Source},
    value,
};
use ssh_key::PublicKey;
use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    sync::Arc,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// A value with its place in the file.
#[derive(Debug, Clone)]
pub(super) struct Spot<'a, T> {
    pub(super) value: T,
    at: usize,
    key: String,
    source: &'a Arc<Source>,
    findings: &'a Findings,
}

impl<'a, T> Spot<'a, T> {
    /// This value is wrong.
    pub(super) fn fault(&self, wrong: impl Into<String>, fix: impl Into<String>) {
        self.findings.add(self.source, self.at, &self.key, wrong, fix);
    }

    /// There may be one `what` of this name: where another was seen before, if one was.
    pub(super) fn seen(&self, what: &'static str, name: &str) -> Option<Place> {
        self.findings.seen(what, name.to_owned(), self.source, self.at)
    }

    /// Whether there is a `what` of this name, be it faulty: then that has been said.
    pub(super) fn is_there(&self, what: &'static str, name: &str) -> bool {
        self.findings.first(what, name).is_some()
    }

    /// Where it stands.
    pub(super) fn place(&self) -> Place {
        self.source.place(self.at)
    }

    /// Another value at the same place.
    pub(super) fn with<U>(&self, value: U) -> Spot<'a, U> {
        Spot { value, at: self.at, key: self.key.clone(), source: self.source, findings: self.findings }
    }

    /// The value made into something else, or a fault.
    pub(super) fn parse<U, E: std::fmt::Display>(
        self,
        parse: impl FnOnce(T) -> Result<U, E>,
        fix: &str,
    ) -> Option<Spot<'a, U>> {
        let place = self.with(());
        match parse(self.value) {
            Ok(value) => Some(place.with(value)),
            Err(wrong) => {
                place.fault(wrong.to_string(), fix);
                None
            }
        }
    }
}

impl Spot<'_, PublicKey> {
    /// This key plays this role, and no other.
    pub(super) fn plays(&self, role: KeyRole) {
        let key = PublicKey::from(self.value.key_data().clone()).to_openssh().unwrap_or_default();
        if let Some(other) = self.findings.key_plays(key, role) {
            self.fault(format!("is {} too", other.words()), "make a key of its own for each role");
        }
    }
}

/// A text value.
pub(super) type TextSpot<'a> = Spot<'a, &'a str>;

impl TextSpot<'_> {
    /// The path that it names, relative to the file that it stands in.
    pub(super) fn path(&self) -> PathBuf {
        self.source.folder.join(self.value)
    }

    /// What a path in it is relative to.
    pub(super) fn folder(&self) -> &Path {
        &self.source.folder
    }
}

/// All texts of a configuration, as one.
#[derive(Debug)]
pub(super) struct Whole<'a> {
    /// The file itself: what there is once stands here.
    pub(super) main: Section<'a>,
    /// What it includes, by name, and what inventories list.
    pub(super) parts: Vec<Section<'a>>,
}

impl<'a> Whole<'a> {
    /// Whether there may be targets that nobody has listed yet.
    pub(super) fn has_inventories(&self) -> bool {
        self.main.has("inventory")
    }

    /// All `[[key]]` of all texts.
    pub(super) fn sections(&self, key: &'static str) -> impl Iterator<Item = Section<'a>> {
        let having = move |text: &&Section<'a>| text.known.key(key).is_some();
        std::iter::once(&self.main).chain(&self.parts).filter(having).flat_map(move |text| text.sections(key))
    }
}

/// A table that is being read.
#[derive(Debug)]
pub(super) struct Section<'a> {
    path: String,
    at: usize,
    table: &'a DeTable<'a>,
    /// What it can have.
    known: &'static Table,
    asked: RefCell<Vec<&'static str>>,
    /// Of these, the ones that are of no use here: not to be suggested.
    later: RefCell<Vec<&'static str>>,
    source: &'a Arc<Source>,
    findings: &'a Findings,
}

impl<'a> Section<'a> {
    /// A whole file, of which these keys are known.
    pub(super) fn whole(
        source: &'a Arc<Source>,
        known: &'static Table,
        table: &'a DeTable<'a>,
        findings: &'a Findings,
    ) -> Self {
        let (asked, later) = (RefCell::default(), RefCell::default());
        Self { path: String::new(), at: 0, table, known, asked, later, source, findings }
    }

    fn part(&self, path: String, at: usize, key: &'static str, table: &'a DeTable<'a>) -> Self {
        let known = match self.known.key(key).map(|key| key.value) {
            Some(Value::Table(known) | Value::Tables(known)) => known,
            _ => &keys::NONE,
        };
        Self { path, at, ..Section::whole(self.source, known, table, self.findings) }
    }

    /// The text that it stands in.
    pub(super) fn source(&self) -> &'a Arc<Source> {
        self.source
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn value(&self, key: &'static str) -> Option<(String, &'a Spanned<DeValue<'a>>)> {
        debug_assert!(self.known.key(key).is_some(), "{} is not in config::keys", self.key(key));
        self.asked.borrow_mut().push(key);
        self.table.get(key).map(|value| (self.key(key), value))
    }

    /// What this table is called in messages.
    pub(super) fn name(&self) -> &str {
        &self.path
    }

    /// The key is there, whatever its value. Does not make it known.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where a key stands, if it is there. Does not make it known.
    pub(super) fn place_of(&self, key: &str) -> Option<Place> {
        self.has(key).then(|| self.source.place(self.key_at(key)))
    }

    /// A key that must be there is not, or something is wrong with the table as a whole.
    pub(super) fn fault(&self, key: &str, wrong: impl Into<String>, fix: impl Into<String>) {
        self.findings.add(self.source, self.at, &self.key(key), wrong, fix);
    }

    /// The key is required.
    pub(super) fn need<T>(&self, key: &'static str, value: Option<T>, fix: &str) -> Option<T> {
        if value.is_none() && !self.has(key) {
            self.fault(key, "is missing", fix);
        }
        value
    }

    /// A text, if it is there.
    pub(super) fn text(&self, key: &'static str) -> Option<TextSpot<'a>> {
        let (path, value) = self.value(key)?;
        self.as_text(path, value)
    }

    fn as_text(&self, path: String, value: &'a Spanned<DeValue<'a>>) -> Option<TextSpot<'a>> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_type(&path, value, "a text in quotes");
        }
        text.map(|text| self.spot(path, value, text))
    }

    /// A whole number, if it is there.
    pub(super) fn integer(&self, key: &'static str) -> Option<Spot<'a, i64>> {
        let (path, value) = self.value(key)?;
        let number =
            value.get_ref().as_integer().and_then(|number| i64::from_str_radix(number.as_str(), number.radix()).ok());
        if number.is_none() {
            self.wrong_type(&path, value, "a whole number");
        }
        number.map(|number| self.spot(path, value, number))
    }

    /// true or false, if it is there.
    pub(super) fn boolean(&self, key: &'static str) -> Option<Spot<'a, bool>> {
        let (path, value) = self.value(key)?;
        let truth = value.get_ref().as_bool();
        if truth.is_none() {
            self.wrong_type(&path, value, "true or false");
        }
        truth.map(|truth| self.spot(path, value, truth))
    }

    /// A list of texts, if it is there. Items of another type are faults.
    pub(super) fn texts(&self, key: &'static str) -> Option<Spot<'a, Vec<TextSpot<'a>>>> {
        let (path, value) = self.value(key)?;
        let Some(items) = value.get_ref().as_array() else {
            self.wrong_type(&path, value, "a list of texts, like [\"a\", \"b\"]");
            return None;
        };
        let items = items.iter().filter_map(|item| self.as_text(path.clone(), item)).collect();
        Some(self.spot(path, value, items))
    }

    /// A text, or a list of texts, if it is there.
    pub(super) fn text_or_texts(&self, key: &'static str) -> Option<Spot<'a, Vec<TextSpot<'a>>>> {
        if self.table.get(key).is_some_and(|value| value.get_ref().is_array()) {
            return self.texts(key);
        }
        self.text(key).map(|text| text.with(vec![text.clone()]))
    }

    /// A table of texts (`{ env = "prod" }`), if it is there.
    pub(super) fn pairs(&self, key: &'static str) -> Option<Spot<'a, Vec<(&'a str, TextSpot<'a>)>>> {
        let (path, value) = self.value(key)?;
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(&path, value, "a table, like { env = \"prod\" }");
            return None;
        };
        let pair = |(name, item): (&'a Spanned<std::borrow::Cow<'a, str>>, &'a Spanned<DeValue<'a>>)| {
            let name = name.get_ref().as_ref();
            Some((name, self.as_text(format!("{path}.{name}"), item)?))
        };
        let pairs = table.iter().filter_map(pair).collect();
        Some(self.spot(path.clone(), value, pairs))
    }

    /// Whether this key holds a table rather than a list.
    pub(super) fn is_table(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|value| value.get_ref().is_table())
    }

    /// A `[key]`, if it is there.
    pub(super) fn section(&self, key: &'static str) -> Option<Section<'a>> {
        let (path, value) = self.value(key)?;
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(&path, value, &format!("a table: [{path}]"));
            return None;
        };
        Some(self.part(path, self.key_at(key), key, table))
    }

    /// All `[[key]]`, each named by its `name` in messages, else by its number from 1.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Section<'a>> {
        let Some((path, value)) = self.value(key) else { return Vec::new() };
        let Some(items) = value.get_ref().as_array() else {
            self.wrong_type(&path, value, &format!("tables: [[{path}]] once for each"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (nth, item) in items.iter().enumerate() {
            match item.get_ref().as_table() {
                Some(table) => {
                    let name = table.get("name").and_then(|name| name.get_ref().as_str());
                    let path = name.map_or_else(|| format!("{path}[{}]", nth + 1), |name| format!("{path}[{name}]"));
                    sections.push(self.part(path, item.span().start, key, table));
                }
                None => self.wrong_type(&path, item, &format!("tables: [[{path}]] once for each")),
            }
        }
        sections
    }

    /// Keys that belong to something else than this.
    pub(super) fn misplaced(&self, keys: &[&'static str], wrong: &str, fix: &str) {
        self.later.borrow_mut().extend(keys);
        for key in keys {
            if self.value(key).is_some() {
                self.findings.add(self.source, self.key_at(key), &self.key(key), wrong, fix);
            }
        }
    }

    /// Keys that are known, and not looked at.
    pub(super) fn pass_over(&self, keys: &[&'static str]) {
        self.asked.borrow_mut().extend(keys);
    }

    /// To be called when all was asked for that is known: every other key is a fault.
    pub(super) fn unknown(&self) {
        let asked = self.asked.borrow();
        for (key, _) in self.table.iter() {
            let name = key.get_ref().as_ref();
            let (wrong, fix) = match self.known.key(name).map(|known| known.value) {
                Some(Value::Later) => ("is not supported yet", "take it out".to_owned()),
                Some(_) => continue,
                None => ("unknown key", self.instead(name)),
            };
            self.findings.add(self.source, key.span().start, &self.key(name), wrong, fix);
        }
        // A key that is known and ignored would open what it was written to keep shut.
        let mut overlooked = self.known.keys.iter().filter(|key| !matches!(key.value, Value::Later));
        debug_assert!(
            self.findings.any() || overlooked.all(|key| asked.contains(&key.name)),
            "{} {asked:?}",
            self.path
        );
    }

    /// What to do about a key that is not known here.
    fn instead(&self, name: &str) -> String {
        if let Some(place) = keys::elsewhere(self.known, name) {
            return place;
        }
        let later = self.later.borrow();
        let usable = |key: &&keys::Key| !matches!(key.value, Value::Later) && !later.contains(&key.name);
        let again = |key: &keys::Key| matches!(key.value, Value::Tables(_));
        let usable: Vec<&keys::Key> = self.known.keys.iter().filter(usable).collect();
        let free = |key: &&&keys::Key| again(key) || !self.has(key.name);
        let free: Vec<&str> = usable.iter().filter(free).map(|key| key.name).collect();
        match value::nearest(name, usable.iter().map(|key| key.name)) {
            Some(near) if free.contains(&near) => format!("did you mean {near}?"),
            Some(near) => format!("take it out: {near} is there already"),
            None if free.is_empty() => "take it out".to_owned(),
            None => format!("take it out, or write what you meant: {}", free.join(", ")),
        }
    }

    fn key_at(&self, key: &str) -> usize {
        self.table.get_key_value(key).map_or(self.at, |(key, _)| key.span().start)
    }

    fn spot<T>(&self, key: String, place: &Spanned<DeValue<'_>>, value: T) -> Spot<'a, T> {
        Spot { value, at: place.span().start, key, source: self.source, findings: self.findings }
    }

    fn wrong_type(&self, path: &str, value: &Spanned<DeValue<'_>>, wanted: &str) {
        let found = match value.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let (wrong, fix) = (format!("wrong type: this is {found}"), format!("write {wanted}"));
        self.findings.add(self.source, value.span().start, path, wrong, fix);
    }
}
