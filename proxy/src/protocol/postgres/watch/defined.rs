//! The prepared statements and portals of a session, as far as the recording needs them: which portal runs which statement, and of
//! which types its parameters are.
//!
//! What always holds: memory is bounded, and what finds no place is not known, never mistaken for what had its name before. A statement that
//! could not be prepared is forgotten. A Parse or Bind says what its name means only where nothing can have come between: in the same batch up to
//! Sync (if it fails, what follows is skipped too), or once its answer has come; and not while a Query that may give or take names waits for
//! its answer, nor an Execute of what has PREPARE, DEALLOCATE or DISCARD in its text, or of what is not known. Otherwise it is not known. Names that SQL itself gives (PREPARE) are not known until the target describes them.

use super::{
    rows::{self, Field},
    talk::Reading,
};
use std::{collections::BTreeMap, sync::Arc};

/// Bytes of names and types that a session may hold.
const MOST_HELD: usize = 256 * 1024;
/// PostgreSQL tells names apart by so many bytes (NAMEDATALEN - 1), and cuts the rest off.
const LONGEST_NAME: usize = 63;
/// What an entry costs beside its name and types.
const ENTRY: usize = 96;

/// A statement's or portal's name, as it came.
pub(super) type Name = Arc<[u8]>;

/// A prepared statement.
#[derive(Debug, Clone, Default)]
pub(super) struct Prepared {
    /// Of its Parse.
    pub(super) number: Option<u64>,
    /// OIDs of its parameters' types; 0 where it is not known.
    pub(super) types: Option<Arc<[u32]>>,
    /// In which its Parse was sent.
    batch: u64,
    /// Running it may give a name another statement.
    renames: bool,
    /// So many of its words are masked.
    pub(super) named: usize,
    /// What its results look like, once it was described.
    pub(super) fields: Option<Arc<[Field]>>,
}

#[derive(Debug)]
struct Portal {
    /// Of its Bind.
    number: u64,
    /// Of its statement's Parse.
    statement: Option<u64>,
    /// In which its Bind was sent.
    batch: u64,
    renames: bool,
    reading: Option<Arc<Reading>>,
}

#[derive(Debug, Default)]
pub(super) struct Defined {
    statements: BTreeMap<Name, Prepared>,
    portals: BTreeMap<Name, Portal>,
    held: usize,
    /// How many Syncs have been sent.
    batch: u64,
    /// The last Parse and the last Bind that are done, by number.
    prepared: u64,
    bound: u64,
    /// The last Query or FunctionCall, or Execute that may give or take names, while it waits for its answer.
    open: Option<u64>,
}

/// What PostgreSQL makes of a name.
fn cut(name: &[u8]) -> &[u8] {
    name.get(..LONGEST_NAME).unwrap_or(name)
}

impl Prepared {
    fn cost(&self, name: &[u8]) -> usize {
        let types = self.types.as_ref().map_or(0, |types| 4 * types.len());
        ENTRY + name.len() + types + self.fields.as_ref().map_or(0, |fields| rows::cost(fields))
    }
}

impl Portal {
    fn cost(&self, name: &[u8]) -> usize {
        ENTRY + name.len() + self.reading.as_ref().map_or(0, |reading| reading.cost())
    }
}

impl Defined {
    /// Parse.
    pub(super) fn prepare(&mut self, name: &[u8], number: u64, types: Arc<[u32]>, renames: bool, named: usize) {
        self.put(
            name,
            Prepared { number: Some(number), types: Some(types), batch: self.batch, renames, named, fields: None },
        );
    }

    fn put(&mut self, name: &[u8], prepared: Prepared) {
        let name = cut(name);
        self.close_statement(name);
        let cost = prepared.cost(name);
        if self.held + cost <= MOST_HELD {
            self.held += cost;
            self.statements.insert(name.into(), prepared);
        }
    }

    /// ParameterDescription.
    pub(super) fn describe(&mut self, name: &Name, types: Arc<[u32]>) {
        let known = self.statements.get(name).cloned();
        let known = known.unwrap_or(Prepared { renames: true, named: usize::MAX, ..Prepared::default() });
        // It tells of the one before, if a Parse has taken the name that is not done yet.
        if known.number.is_none_or(|number| number <= self.prepared) {
            self.put(name, Prepared { types: Some(types), ..known });
        }
    }

    /// RowDescription, for a statement.
    pub(super) fn describe_rows(&mut self, name: &Name, fields: Arc<[Field]>) {
        let known =
            self.statements.get(name).filter(|known| known.number.is_some_and(|number| number <= self.prepared));
        if let Some(known) = known.cloned() {
            self.put(name, Prepared { fields: Some(fields), ..known });
        }
    }

    /// Sync.
    pub(super) fn next_batch(&mut self) {
        self.batch += 1;
    }

    /// ParseComplete.
    pub(super) fn parse_done(&mut self, number: u64) {
        self.prepared = number;
    }

    /// BindComplete.
    pub(super) fn bind_done(&mut self, number: u64) {
        self.bound = number;
    }

    /// Query, FunctionCall, or such an Execute: until it is answered, names given before may mean something else.
    pub(super) fn opened(&mut self, number: u64) {
        self.open = Some(number);
    }

    /// It is over.
    pub(super) fn answered(&mut self, number: u64) {
        self.open = self.open.filter(|open| *open != number);
    }

    /// Whether what was named by this number surely has its name still; `done`: the last one that is.
    fn stands(&self, number: u64, batch: u64, done: u64) -> bool {
        (batch == self.batch || number <= done) && self.open.is_none_or(|open| open < number)
    }

    /// Bind: the statement that the portal will run.
    pub(super) fn bind(&mut self, portal: &[u8], number: u64, statement: &[u8]) -> Prepared {
        let portal = cut(portal);
        // Without a number it is one that SQL has named: of its types nothing is sure while a Query waits.
        let stands = |prepared: &&Prepared| self.stands(prepared.number.unwrap_or(0), prepared.batch, self.prepared);
        let prepared = self.statements.get(cut(statement)).filter(stands).cloned().unwrap_or_default();
        self.close_portal(portal);
        let cost = ENTRY + portal.len();
        if self.held + cost <= MOST_HELD {
            self.held += cost;
            self.portals.insert(
                portal.into(),
                Portal {
                    number,
                    statement: prepared.number,
                    batch: self.batch,
                    renames: prepared.renames,
                    reading: None,
                },
            );
        }
        prepared
    }

    /// Execute: the number of the statement that it runs.
    pub(super) fn runs(&self, portal: &[u8]) -> Option<u64> {
        let portal = self.portals.get(cut(portal))?;
        portal.statement.filter(|_| self.stands(portal.number, portal.batch, self.bound))
    }

    /// How what the portal answers is read.
    pub(super) fn read_so(&mut self, portal: &[u8], reading: Arc<Reading>) {
        let room = MOST_HELD - self.held;
        if let Some(portal) = self.portals.get_mut(cut(portal)).filter(|_| reading.cost() <= room) {
            self.held += reading.cost();
            portal.reading = Some(reading);
        }
    }

    /// Execute or Describe: how it is read, if it is known what it runs.
    pub(super) fn reading(&self, portal: &[u8]) -> Option<Arc<Reading>> {
        self.runs(portal)?;
        self.portals.get(cut(portal))?.reading.clone()
    }

    /// Execute: whether running it may give a name another statement. So may what is not known.
    pub(super) fn may_rename(&self, portal: &[u8]) -> bool {
        self.runs(portal).is_none() || self.portals.get(cut(portal)).is_none_or(|portal| portal.renames)
    }

    /// All that is asked is answered, and what came of it is not known.
    pub(super) fn forget(&mut self, last: u64) {
        self.renamed(last);
        self.end_portals(last);
        self.open = None;
    }

    /// A name to be kept for the answer.
    pub(super) fn name(&self, name: &[u8]) -> Name {
        let known = self.statements.get_key_value(cut(name)).map(|(name, _)| name.clone());
        known.unwrap_or_else(|| cut(name).into())
    }

    /// Close.
    pub(super) fn close_statement(&mut self, name: &[u8]) {
        let name = cut(name);
        if let Some(prepared) = self.statements.remove(name) {
            self.held -= prepared.cost(name);
        }
    }

    /// Close.
    pub(super) fn close_portal(&mut self, name: &[u8]) {
        let name = cut(name);
        if let Some(portal) = self.portals.remove(name) {
            self.held -= portal.cost(name);
        }
    }

    /// What was prepared by these numbers was not: an error came before.
    pub(super) fn undo(&mut self, first: u64, last: u64) {
        self.forget_statements(|number| number.is_some_and(|number| (first..=last).contains(&number)));
        self.forget_portals(|number| (first..=last).contains(&number));
    }

    /// All statements, but those prepared after this number: SQL has given or taken names by itself.
    pub(super) fn renamed(&mut self, upto: u64) {
        self.forget_statements(|number| number.is_none_or(|number| number <= upto));
    }

    /// Portals end with their transaction.
    pub(super) fn end_portals(&mut self, upto: u64) {
        self.forget_portals(|number| number <= upto);
    }

    fn forget_statements(&mut self, which: impl Fn(Option<u64>) -> bool) {
        let held = &mut self.held;
        self.statements.retain(|name, prepared| {
            let goes = which(prepared.number);
            *held -= if goes { prepared.cost(name) } else { 0 };
            !goes
        });
    }

    fn forget_portals(&mut self, which: impl Fn(u64) -> bool) {
        let held = &mut self.held;
        self.portals.retain(|name, portal| {
            let goes = which(portal.number);
            *held -= if goes { portal.cost(name) } else { 0 };
            !goes
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn types(count: usize) -> Arc<[u32]> {
        vec![23; count].into()
    }

    #[test]
    fn a_portal_runs_the_statement_that_it_was_bound_to() {
        let mut defined = Defined::default();
        defined.prepare(b"s", 1, types(1), false, 0);
        assert_eq!(defined.bind(b"p", 2, b"s").types, Some(types(1)));
        defined.prepare(b"s", 3, types(2), false, 0);
        assert_eq!((defined.runs(b"p"), defined.runs(b"q")), (Some(1), None));
        assert_eq!(defined.bind(b"p", 4, b"s").number, Some(3));
        defined.close_statement(b"s");
        assert_eq!(defined.runs(b"p"), Some(3), "a portal outlives its statement's name");
        defined.end_portals(4);
        assert_eq!((defined.runs(b"p"), defined.held), (None, 0));
    }

    #[test]
    fn what_finds_no_place_is_not_known_and_never_what_was_there_before() {
        let mut defined = Defined::default();
        defined.prepare(b"s", 1, types(1), false, 0);
        defined.prepare(b"s", 2, types(MOST_HELD), false, 0);
        assert_eq!(defined.bind(b"", 3, b"s").number, None);
    }

    #[test]
    fn names_that_postgresql_cuts_to_the_same_63_bytes_are_the_same() {
        let mut defined = Defined::default();
        let [one, other] = [b'a', b'b'].map(|last| [&[b'n'; 63][..], &[last]].concat());
        defined.prepare(&one, 1, types(1), false, 0);
        assert_eq!(defined.bind(&one, 2, &other).number, Some(1));
        assert_eq!((defined.runs(&other), defined.name(&other)), (Some(1), defined.name(&one)));
        defined.close_portal(&other);
        defined.prepare(&other, 3, types(2), false, 0);
        assert_eq!((defined.runs(&one), defined.bind(b"", 4, &one).number), (None, Some(3)));
        defined.close_statement(&one);
        assert_eq!(defined.bind(b"", 5, &other).number, None);
    }

    #[test]
    fn a_name_means_what_was_sent_in_its_batch_or_is_done_and_no_query_may_have_changed() {
        let mut defined = Defined::default();
        defined.prepare(b"s", 1, types(1), false, 0);
        defined.bind(b"p", 2, b"s");
        assert_eq!(defined.runs(b"p"), Some(1), "in the same batch");
        defined.next_batch();
        assert_eq!((defined.bind(b"", 3, b"s").number, defined.runs(b"p")), (None, None), "neither is done");
        defined.parse_done(1);
        defined.bind_done(2);
        assert_eq!((defined.bind(b"", 4, b"s").number, defined.runs(b"p")), (Some(1), Some(1)));
        defined.opened(5);
        assert_eq!((defined.bind(b"", 6, b"s").number, defined.runs(b"p")), (None, None), "a Query waits");
        defined.answered(5);
        assert_eq!((defined.bind(b"", 7, b"s").number, defined.runs(b"p")), (Some(1), Some(1)));
    }

    #[test]
    fn an_execution_that_may_give_or_take_names_leaves_open_what_they_mean_until_it_is_answered() {
        let mut defined = Defined::default();
        defined.prepare(b"s", 1, types(1), false, 0);
        defined.prepare(b"plain", 2, types(0), false, 0);
        defined.prepare(b"renames", 3, types(0), true, 0);
        defined.bind(b"a", 4, b"plain");
        defined.bind(b"b", 5, b"renames");
        assert_eq!([b"a", b"b", b"c"].map(|portal| defined.may_rename(portal)), [false, true, true]);
        defined.opened(6); // its Execute
        assert_eq!((defined.bind(b"", 7, b"s").number, defined.runs(b"a")), (None, None));
        defined.prepare(b"s", 8, types(2), false, 0);
        assert_eq!(defined.bind(b"", 9, b"s").number, Some(8), "what is named behind it is known");
        defined.answered(6);
        assert_eq!(defined.runs(b"a"), Some(2));
    }

    proptest! {
        #[test]
        fn the_account_is_right_and_bounded_whatever_happens(steps in prop::collection::vec((0u8..8, "[a-c]{0,2}", 0usize..30_000), 0..200)) {
            let mut defined = Defined::default();
            for (number, (what, name, count)) in (1..).zip(steps) {
                let name = name.as_bytes();
                match what {
                    0 | 1 => defined.prepare(name, number, types(count), false, 0),
                    2 => { defined.bind(name, number, b"a"); }
                    3 => defined.describe(&name.into(), types(count)),
                    4 => defined.close_statement(name),
                    5 => defined.close_portal(name),
                    6 => defined.undo(number / 2, number),
                    _ => defined.end_portals(number / 2),
                }
                let statements = defined.statements.iter().map(|(name, s)| s.cost(name)).sum::<usize>();
                let portals = defined.portals.iter().map(|(name, portal)| portal.cost(name)).sum::<usize>();
                prop_assert_eq!(defined.held, statements + portals);
                prop_assert!(defined.held <= MOST_HELD);
            }
        }
    }
}
