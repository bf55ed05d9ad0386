//! Reads one table of the file, key by key, and remembers where each value stands.
//!
//! A derived `Deserialize` stops at the first fault and knows no second one; an admin who edits a file wants all of
//! them at once. So the syntax tree is walked here: each key is asked for once, a key that nobody asked for is unknown,
//! and every value keeps its place in the file so that later checks (an unknown reference, say) can point at it.

use super::fault::{Findings, KeyRole};
use ssh_key::PublicKey;
use std::cell::RefCell;
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
    findings: &'a Findings<'a>,
}

impl<'a, T> Spot<'a, T> {
    /// This value is wrong.
    pub(super) fn fault(&self, wrong: impl Into<String>, fix: impl Into<String>) {
        self.findings.add(self.at, &self.key, wrong, fix);
    }

    /// Another value at the same place.
    pub(super) fn with<U>(&self, value: U) -> Spot<'a, U> {
        Spot { value, at: self.at, key: self.key.clone(), findings: self.findings }
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

/// A table that is being read.
#[derive(Debug)]
pub(super) struct Section<'a> {
    path: String,
    at: usize,
    table: &'a DeTable<'a>,
    asked: RefCell<Vec<&'static str>>,
    /// Of these, the ones that are of no use here: not to be suggested.
    later: RefCell<Vec<&'static str>>,
    findings: &'a Findings<'a>,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(table: &'a DeTable<'a>, findings: &'a Findings<'a>) -> Self {
        Self::new(String::new(), 0, table, findings)
    }

    fn new(path: String, at: usize, table: &'a DeTable<'a>, findings: &'a Findings<'a>) -> Self {
        Self { path, at, table, asked: RefCell::default(), later: RefCell::default(), findings }
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn value(&self, key: &'static str) -> Option<(String, &'a Spanned<DeValue<'a>>)> {
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

    /// A key that must be there is not, or something is wrong with the table as a whole.
    pub(super) fn fault(&self, key: &str, wrong: impl Into<String>, fix: impl Into<String>) {
        self.findings.add(self.at, &self.key(key), wrong, fix);
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
        Some(Section::new(path, self.key_at(key), table, self.findings))
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
                    sections.push(Section::new(path, item.span().start, table, self.findings));
                }
                None => self.wrong_type(&path, item, &format!("tables: [[{path}]] once for each")),
            }
        }
        sections
    }

    /// Keys that this tidegate knows of but cannot do yet.
    pub(super) fn not_yet(&self, keys: &[&'static str]) {
        self.later.borrow_mut().extend(keys);
        for key in keys {
            if self.value(key).is_some() {
                self.findings.add(self.key_at(key), &self.key(key), "is not supported yet", "take it out");
            }
        }
    }

    /// Keys that belong to something else than this.
    pub(super) fn misplaced(&self, keys: &[&'static str], wrong: &str, fix: &str) {
        self.later.borrow_mut().extend(keys);
        for key in keys {
            if self.value(key).is_some() {
                self.findings.add(self.key_at(key), &self.key(key), wrong, fix);
            }
        }
    }

    /// Keys that are known, and not looked at.
    pub(super) fn pass_over(&self, keys: &[&'static str]) {
        self.asked.borrow_mut().extend(keys);
    }

    /// What nobody asked for is unknown.
    pub(super) fn unknown(&self) {
        let asked = self.asked.borrow();
        for (key, _) in self.table.iter() {
            if !asked.contains(&key.get_ref().as_ref()) {
                let free =
                    asked.iter().copied().filter(|known| !self.has(known) && !self.later.borrow().contains(known));
                let known: Vec<&str> = free.collect();
                let fix = if known.is_empty() {
                    "take it out".to_owned()
                } else {
                    format!("take it out, or write what you meant: {}", known.join(", "))
                };
                self.findings.add(key.span().start, &self.key(key.get_ref()), "unknown key", fix);
            }
        }
    }

    fn key_at(&self, key: &str) -> usize {
        self.table.get_key_value(key).map_or(self.at, |(key, _)| key.span().start)
    }

    fn spot<T>(&self, key: String, place: &Spanned<DeValue<'_>>, value: T) -> Spot<'a, T> {
        Spot { value, at: place.span().start, key, findings: self.findings }
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
        self.findings.add(value.span().start, path, format!("wrong type: this is {found}"), format!("write {wanted}"));
    }
}
