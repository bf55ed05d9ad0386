//! Which part of a list is read. What nobody asked for is neither read nor verified: a list grows with all that ever was.

use crate::name::IdentityName;
use rusqlite::types::Value;
use uuid::Uuid;

/// A part of a list of rows with `id` and `identity`, newest first (ids sort by time).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Whose. `None`: everybody's.
    pub of: Option<IdentityName>,
    /// Older than the one with this id.
    pub behind: Option<Uuid>,
    /// At most so many. `None`: all.
    pub most: Option<usize>,
}

/// What follows `WHERE`, with the parameters of [`Listing::bounds`].
pub(crate) const WITHIN: &str = "(?1 IS NULL OR identity = ?1) AND (?2 IS NULL OR id < ?2) ORDER BY id DESC LIMIT ?3";

impl Listing {
    /// All of this identity's.
    pub fn of(identity: &IdentityName) -> Self {
        Self { of: Some(identity.clone()), ..Self::default() }
    }

    pub(crate) fn bounds(&self) -> [Value; 3] {
        let text = |text: Option<String>| text.map_or(Value::Null, Value::Text);
        let most = self.most.map_or(-1, |most| i64::try_from(most).unwrap_or(i64::MAX));
        let behind = self.behind.map(|id| id.hyphenated().to_string());
        [text(self.of.as_ref().map(ToString::to_string)), text(behind), Value::Integer(most)]
    }
}
