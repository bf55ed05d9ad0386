//! Where an entry of the configuration, or a key of it, stands in the texts: for whoever explains a decision by them.

use super::source::{Place, Source};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Of `entitlement[shell].hours` the place of `hours`, or of the entry where it is not written; `None`: there is no such entry.
pub(super) fn find<'a>(sources: impl Iterator<Item = &'a Source>, key: &str) -> Option<Place> {
    let (table, rest) = key.split_once('[')?;
    let (name, rest) = rest.split_once(']')?;
    let inner = rest.strip_prefix('.');
    sources.into_iter().find_map(|source| {
        let (whole, _) = DeTable::parse_recoverable(&source.text);
        let entries = whole.get_ref().get(table)?;
        let DeValue::Array(entries) = entries.get_ref() else { return None };
        let entry = entries.iter().find(|entry| is_named(entry, name))?;
        let DeValue::Table(fields) = entry.get_ref() else { return None };
        let written = inner.and_then(|key| fields.get_key_value(key)).map(|(key, _)| key.span().start);
        Some(source.place(written.unwrap_or(entry.span().start)))
    })
}

fn is_named(entry: &Spanned<DeValue<'_>>, name: &str) -> bool {
    let DeValue::Table(fields) = entry.get_ref() else { return false };
    fields.get("name").and_then(|value| value.get_ref().as_str()) == Some(name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_key_is_found_where_it_is_written_and_one_that_is_not_by_its_entry() {
        let source = |name: &str, text: &str| Source::file(Path::new(name), name.to_owned(), text.to_owned());
        let main =
            source("main.toml", "version = 1\n[[entitlement]]\nname = \"shell\"\n  hours = { days = \"mon\" }\n");
        let part =
            source("more.toml", "\n[[entitlement]]\nname = \"sql\"\n[[entitlement.approvals]]\nfrom = [\"x\"]\n");
        let texts = [main, part];
        let found = |key: &str| find(texts.iter(), key).map(|place| place.to_string());
        assert_eq!(found("entitlement[shell].hours").as_deref(), Some("main.toml:4:3"));
        assert_eq!(found("entitlement[shell].when").as_deref(), Some("main.toml:2:1"));
        assert_eq!(found("entitlement[sql].approvals").as_deref(), Some("more.toml:4:15"));
        assert_eq!(found("entitlement[gone].hours"), None);
        assert_eq!(found("version"), None);
    }
}
