#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::{Fate::*, *};

fn of(events: impl IntoIterator<Item = Event>, last: What) -> Fates {
    let mut fates = Fates::default();
    events.into_iter().map(What::Event).chain([last]).for_each(|what| fates.take(&what));
    fates
}

fn query(number: u64, text: &str) -> Event {
    Event::Statement { text: text.to_owned(), prepared: None, number: Some(number), masked: false }
}

fn executed(number: u64) -> Event {
    Event::Executed { portal: String::new(), rows: 0, number: Some(number), statement: Some(1) }
}

fn done(of: u64, tag: &str) -> Event {
    Event::Completed { tag: tag.to_owned(), rows: 0, of: Some(of), suspended: false }
}

fn error(of: Option<u64>) -> Event {
    let (severity, code, message) = ("ERROR".to_owned(), "22012".to_owned(), String::new());
    Event::Reported { severity, code, message, of }
}

fn ready(status: char) -> Event {
    Event::Transaction { status, ended: None }
}

#[test]
fn a_query_stays_unless_it_fails_and_then_all_of_it_goes() {
    let fates = of(
        [
            query(1, "a"),
            done(1, "INSERT 0 1"),
            query(2, "b; c"),
            done(2, "INSERT 0 1"),
            error(Some(2)),
            query(3, "d"),
            done(3, "INSERT 0 1"),
            query(4, "e"),
        ],
        What::End,
    );
    assert_eq!([1, 2, 3, 4].map(|n| fates.told(Some(n))), [&[Stays][..], &[RolledBack, Failed], &[Answered], &[]]);
    assert!(fates.told(None).is_empty());
}

#[test]
fn what_a_query_committed_itself_stays_though_the_rest_of_it_fails() {
    let text = "begin; a; commit; b; x";
    let fates = of(
        [
            query(1, text),
            done(1, "BEGIN"),
            done(1, "INSERT 0 1"),
            done(1, "COMMIT"),
            done(1, "INSERT 0 1"),
            error(Some(1)),
        ],
        What::End,
    );
    assert_eq!(fates.told(Some(1)), [Stays, Stays, Stays, RolledBack, Failed]);
    // BEGIN takes in what stands before it in the same Query.
    let text = "a; begin; b; rollback; c";
    let tags = ["INSERT 0 1", "BEGIN", "INSERT 0 1", "ROLLBACK", "INSERT 0 1"];
    let fates = of([query(1, text)].into_iter().chain(tags.map(|tag| done(1, tag))), What::End);
    assert_eq!(fates.told(Some(1)), [RolledBack, RolledBack, RolledBack, RolledBack, Answered]);
}

#[test]
fn what_is_executed_up_to_a_sync_stays_or_goes_as_one() {
    let fates = of(
        [
            executed(2),
            executed(3),
            executed(4),
            executed(5),
            executed(55),
            done(2, "INSERT 0 1"),
            done(3, "INSERT 0 1"),
            ready('I'),
            done(4, "INSERT 0 1"),
            error(Some(5)),
            ready('I'),
            executed(60),
            done(60, "INSERT 0 1"),
            error(None), // a deferred constraint
            ready('I'),
            executed(70),
            done(70, "INSERT 0 1"),
        ],
        What::End,
    );
    let told = [2, 3, 4, 5, 55, 60, 70].map(|number| fates.told(Some(number))[0]);
    assert_eq!(told, [Stays, Stays, RolledBack, Failed, Skipped, RolledBack, Unsure]);
    let bounds = |number| (fates.begins(Some(number)), fates.ends(Some(number)));
    assert_eq!([2, 3, 4, 60].map(bounds), [(true, false), (false, true), (false, false), (false, false)]);
}

#[test]
fn a_transaction_stays_if_it_was_committed_whatever_was_undone_within_it() {
    for (end, last, fate) in
        [("commit", "COMMIT", Stays), ("commit", "ROLLBACK", RolledBack), ("abort", "ROLLBACK", RolledBack)]
    {
        let fates = of(
            [
                query(1, "begin"),
                done(1, "BEGIN"),
                ready('T'),
                query(2, "savepoint s"),
                done(2, "SAVEPOINT"),
                query(3, "x"),
                error(Some(3)),
                ready('E'),
                query(4, "rollback to s"),
                done(4, "ROLLBACK"),
                ready('T'),
                query(5, end),
                done(5, last),
                ready('I'),
            ],
            What::End,
        );
        assert_eq!([1, 2, 3, 4, 5].map(|n| fates.told(Some(n))[0]), [fate, fate, Failed, fate, fate], "{end}: {last}");
    }
}

#[test]
fn a_transaction_that_nobody_committed_goes_and_of_what_breaks_off_nothing_is_sure() {
    let events = || [query(1, "begin"), done(1, "BEGIN"), ready('T'), query(2, "a"), done(2, "INSERT 0 1")];
    assert_eq!(of(events(), What::End).told(Some(2)), [RolledBack]);
    assert_eq!(of(events(), What::Truncated { after: 1 }).told(Some(2)), [Unsure]);
    let lost = Event::Completed { tag: String::new(), rows: 0, of: None, suspended: false };
    let fates = of([query(1, "a"), done(1, "INSERT 0 1"), lost, query(2, "b"), done(2, "INSERT 0 1")], What::End);
    assert_eq!(fates.told(Some(1)), [Unsure]);
}

#[test]
fn a_chained_transaction_is_two() {
    let events = [
        query(1, "begin"),
        done(1, "BEGIN"),
        query(2, "rollback and chain"),
        done(2, "ROLLBACK"),
        query(3, "a"),
        done(3, "INSERT 0 1"),
        query(4, "commit and no chain"),
        done(4, "COMMIT"),
        ready('I'),
    ];
    let fates = of(events, What::End);
    assert_eq!([1, 2, 3, 4].map(|n| fates.told(Some(n))[0]), [RolledBack, RolledBack, Stays, Stays]);
}
