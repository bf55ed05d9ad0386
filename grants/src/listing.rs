//! Which part of a list is read. What nobody asked for is not verified: a list grows with all that ever was.

use crate::{
    name::{IdentityName, TargetName},
    sight::Sight,
};
use rusqlite::types::Value;
use uuid::Uuid;

/// A part of a list of rows with `id`, `identity` and `target`, newest first (ids sort by time).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// What is within it.
    pub of: Sight,
    /// Older than the one with this id.
    pub behind: Option<Uuid>,
    /// At most so many. `None`: all.
    pub most: Option<usize>,
}

/// What follows `WHERE`, with the parameters of [`Listing::bounds`].
pub(crate) const WITHIN: &str = "(?1 IS NULL OR identity = ?1) AND (?2 IS NULL OR id < ?2) ORDER BY id DESC";

impl Listing {
    /// Everything.
    pub fn all() -> Self {
        Self::within(Sight::all())
    }

    /// All of this identity's.
    pub fn of(identity: &IdentityName) -> Self {
        Self::within(Sight::own(identity))
    }

    /// All that this sees.
    pub fn within(of: Sight) -> Self {
        Self { of, behind: None, most: None }
    }

    pub(crate) fn bounds(&self) -> [Value; 2] {
        let text = |text: Option<String>| text.map_or(Value::Null, Value::Text);
        let behind = self.behind.map(|id| id.hyphenated().to_string());
        [text(self.of.only().map(ToString::to_string)), text(behind)]
    }

    /// Of rows that are read one after the other, those of this part. One that cannot be read hides none of the others.
    pub(crate) fn part<R>(
        &self,
        rows: impl Iterator<Item = rusqlite::Result<R>>,
        about: impl Fn(&R) -> Option<(&IdentityName, &TargetName)>,
    ) -> Vec<R> {
        let readable =
            rows.filter_map(|row| row.inspect_err(|error| tracing::error!(%error, "a row cannot be read")).ok());
        let within = readable.filter(|row| {
            let within = || about(row).is_some_and(|(identity, target)| self.of.sees(identity, target));
            self.of.is_all() || within()
        });
        within.take(self.most.unwrap_or(usize::MAX)).collect()
    }
}
