//! Answers find their questions, against a server in small.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use proptest::prelude::*;

/// What a client may send.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sent {
    Query,
    /// A simple COPY FROM STDIN.
    QueryCopy,
    Parse,
    Bind,
    Describe,
    Execute,
    ExecuteCopy,
    Close,
    Sync,
    CopyEnd,
}

/// The target's part of the protocol, as PostgreSQL plays it; it knows for sure which message it answers.
#[derive(Debug, Default)]
struct Server {
    skipping: bool,
    /// The number of the COPY that it reads data for, and whether it came by Execute.
    copying: Option<(u64, bool)>,
    /// It has something to commit at the next Sync.
    worked: bool,
    /// It has hung up.
    gone: bool,
}

/// A message type, and to which number it belongs.
type Answers = Vec<(u8, Option<u64>)>;

impl Server {
    fn take(&mut self, sent: Sent, number: Option<u64>, fails: bool) -> Answers {
        if self.gone {
            return Vec::new();
        }
        if let Some((copy, extended)) = self.copying {
            return self.take_data(sent, copy, extended, fails);
        }
        // A Query commits what came before it, or takes it back (chapter 55.2.2.1): Sync has nothing left of that.
        self.worked &= !matches!(sent, Sent::Query | Sent::QueryCopy) || self.skipping;
        if self.skipping {
            self.skipping = sent != Sent::Sync;
            return if self.skipping { Vec::new() } else { vec![(b'Z', None)] };
        }
        match sent {
            Sent::Sync => {
                let fails = fails && std::mem::take(&mut self.worked);
                if fails { vec![(b'E', None), (b'Z', None)] } else { vec![(b'Z', None)] }
            }
            Sent::CopyEnd => Vec::new(),
            Sent::Query | Sent::QueryCopy if fails => vec![(b'E', number), (b'Z', None)],
            Sent::Query => vec![(b'C', number), (b'C', number), (b'Z', None)],
            _ if fails => {
                self.skipping = true;
                self.worked = false;
                vec![(b'E', number)]
            }
            Sent::Parse => vec![(b'1', number)],
            Sent::Bind => vec![(b'2', number)],
            Sent::Describe => vec![(b't', None), (b'n', None)],
            Sent::Execute => {
                self.worked = true;
                vec![(b'C', number)]
            }
            Sent::Close => vec![(b'3', None)],
            Sent::QueryCopy | Sent::ExecuteCopy => {
                self.copying = number.map(|number| (number, sent == Sent::ExecuteCopy));
                vec![(b'G', number)]
            }
        }
    }

    /// COPY may fail at any time, and hangs up if anything else comes.
    fn take_data(&mut self, sent: Sent, copy: u64, extended: bool, fails: bool) -> Answers {
        if !matches!(sent, Sent::Sync | Sent::CopyEnd) {
            self.gone = true;
            return vec![(b'E', Some(copy))];
        }
        let mut answers = match sent {
            Sent::Sync if !fails => return Vec::new(),
            Sent::CopyEnd if !fails => vec![(b'C', Some(copy))],
            _ => vec![(b'E', Some(copy))],
        };
        self.copying = None;
        let failed = answers.first().is_some_and(|(answer, _)| *answer == b'E');
        self.worked &= !failed; // as after any other failure
        if !extended {
            answers.push((b'Z', None));
        } else if failed {
            self.skipping = true;
            if sent == Sent::Sync {
                answers.extend(self.take(sent, None, false)); // it failed before it came to that
            }
        }
        answers
    }
}

fn ask(state: &mut State, sent: Sent) -> Option<u64> {
    let numbered = |state: &mut State, asked: fn(u64) -> Asked| {
        let number = state.number();
        state.ask(asked(number));
        Some(number)
    };
    match sent {
        Sent::Query | Sent::QueryCopy => numbered(state, |number| Asked::Whole { number, begun: false }),
        Sent::Parse => numbered(state, Asked::Parse),
        Sent::Bind => numbered(state, Asked::Bind),
        Sent::Execute | Sent::ExecuteCopy => numbered(state, Asked::Execute),
        Sent::Describe => {
            state.ask(Asked::DescribeStatement(None));
            None
        }
        Sent::Close => {
            state.ask(Asked::Close);
            None
        }
        Sent::Sync => {
            state.sync();
            None
        }
        Sent::CopyEnd => {
            state.ask(Asked::CopyEnd);
            None
        }
    }
}

fn answer(state: &mut State, answer: u8) -> Option<u64> {
    match answer {
        b'Z' => {
            state.ready(true);
            None
        }
        b'E' => state.failed().0,
        other => state.answered(other).0,
    }
}

fn any_sent() -> impl Strategy<Value = (Sent, bool)> {
    let sent = prop::sample::select(vec![
        Sent::Query,
        Sent::QueryCopy,
        Sent::Parse,
        Sent::Bind,
        Sent::Describe,
        Sent::Execute,
        Sent::ExecuteCopy,
        Sent::Close,
        Sent::Sync,
        Sent::Sync,
        Sent::CopyEnd,
        Sent::CopyEnd,
    ]);
    (sent, prop::bool::weighted(0.15))
}

/// Plays a conversation in which the client is ahead as `ahead` says. Whether matching was lost.
fn converse(all: &[(Sent, bool)], ahead: &[usize]) -> Result<bool, TestCaseError> {
    let (mut state, mut server, mut on_the_way) = (State::default(), Server::default(), VecDeque::new());
    let mut ahead = ahead.iter().cycle();
    let mut left = all.iter();
    loop {
        let many = ahead.next().copied().unwrap_or(1);
        for (sent, fails) in left.by_ref().take(many) {
            let number = ask(&mut state, *sent);
            on_the_way.push_back((*sent, number, *fails));
        }
        if on_the_way.is_empty() {
            return Ok(matches!(state.following, Following::Lost { .. }));
        }
        for (sent, number, fails) in on_the_way.drain(..on_the_way.len().min(many.div_ceil(2))) {
            for (kind, of) in server.take(sent, number, fails) {
                let told = answer(&mut state, kind);
                let honest = told == of || told.is_none() && state.following != Following::All;
                prop_assert!(honest, "{} is of {of:?}, told of {told:?}", char::from(kind));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_answer_is_told_of_another_question_however_it_is_asked(
        all in prop::collection::vec(any_sent(), 0..60),
        ahead in prop::collection::vec(1usize..12, 1..8),
    ) {
        converse(&all, &ahead)?;
    }

    #[test]
    fn without_copy_every_answer_finds_its_question(
        all in prop::collection::vec(any_sent().prop_filter("no COPY", |(sent, _)| !matches!(sent, Sent::QueryCopy | Sent::ExecuteCopy)), 0..60),
        ahead in prop::collection::vec(1usize..12, 1..8),
    ) {
        prop_assert!(!converse(&all, &ahead)?);
    }
}

#[test]
fn a_client_that_waits_for_its_answers_never_loses_them_even_if_copy_fails() {
    // As drivers do it: Execute and Sync at once, then the data, then CopyDone or CopyFail and another Sync.
    let copy = [Sent::Parse, Sent::Bind, Sent::ExecuteCopy, Sent::Sync];
    for failing in 0..6 {
        let (mut state, mut server) = (State::default(), Server::default());
        let steps = copy.into_iter().chain([Sent::CopyEnd, Sent::Sync, Sent::Query]);
        let asked: Vec<_> = steps.map(|sent| (sent, ask(&mut state, sent))).collect();
        let told: Vec<_> = asked
            .into_iter()
            .enumerate()
            .flat_map(|(nth, (sent, number))| {
                server
                    .take(sent, number, nth == failing)
                    .into_iter()
                    .map(|(kind, of)| (answer(&mut state, kind), of))
                    .collect::<Vec<_>>()
            })
            .collect();
        let honest = told.iter().all(|(told, of)| told == of || told.is_none());
        assert!(honest, "failing at {failing}: {told:?}");
    }
}

#[test]
fn what_an_uncertain_sync_may_have_skipped_is_told_of_nothing() {
    let asked = [
        (Sent::Query, false),
        (Sent::ExecuteCopy, false),
        (Sent::Sync, true),
        (Sent::Sync, false),
        (Sent::CopyEnd, false),
        (Sent::Describe, true),
        (Sent::Query, false),
    ];
    for ahead in 1..=asked.len() {
        for then in 1..=asked.len() {
            converse(&asked, &[ahead, then]).unwrap();
        }
    }
}

#[test]
fn behind_the_sync_after_a_failed_copy_answers_find_their_questions_again() {
    // The driver hears of the failure before ReadyForQuery, and asks at once.
    let mut state = State::default();
    for sent in [Sent::ExecuteCopy, Sent::Sync] {
        ask(&mut state, sent);
    }
    answer(&mut state, b'G');
    for sent in [Sent::CopyEnd, Sent::Sync] {
        ask(&mut state, sent);
    }
    assert_eq!(answer(&mut state, b'E'), Some(1));
    let next = [Sent::Parse, Sent::Execute, Sent::Sync].map(|sent| ask(&mut state, sent));
    answer(&mut state, b'Z');
    answer(&mut state, b'Z'); // of the first Sync, if that was no data
    assert_eq!([answer(&mut state, b'1'), answer(&mut state, b'C')], [next[0], next[1]]);
}

#[test]
fn what_is_asked_beyond_the_bound_is_not_matched_until_all_is_answered() {
    let mut state = State::default();
    let many = MOST_WAITING as u64 + 5;
    let notes: Vec<_> = (0..many)
        .filter_map(|_| {
            let number = state.number();
            state.ask(Asked::Whole { number, begun: false })
        })
        .collect();
    assert_eq!((notes, state.waiting.len()), (vec![TOO_MANY], MOST_WAITING));
    for nth in 1..=many {
        let told = state.answered(b'C');
        assert_eq!(told, ((nth <= MOST_WAITING as u64).then_some(nth), None));
        state.ready(true);
    }
    assert_eq!(state.following, Following::All);
    assert!(state.waiting.capacity() <= 2 * KEPT_QUEUE);
    let number = ask(&mut state, Sent::Query);
    assert_eq!(answer(&mut state, b'C'), number);
}

#[test]
fn a_half_sent_pipeline_beyond_the_bound_is_not_matched_half() {
    let mut state = State::default();
    for _ in 0..MOST_WAITING {
        ask(&mut state, Sent::Execute);
    }
    ask(&mut state, Sent::Sync);
    ask(&mut state, Sent::Execute);
    for _ in 0..MOST_WAITING {
        assert!(answer(&mut state, b'C').is_some());
    }
    answer(&mut state, b'Z');
    assert_eq!(answer(&mut state, b'C'), None);
    ask(&mut state, Sent::Sync);
    answer(&mut state, b'Z');
    let number = ask(&mut state, Sent::Query);
    assert_eq!(answer(&mut state, b'C'), number);
}

#[test]
fn an_answer_that_fits_nothing_is_said_once_and_no_later_one_is_guessed() {
    let mut state = State::default();
    ask(&mut state, Sent::Query);
    assert_eq!(state.answered(b'1'), (None, Some(LOST)));
    ask(&mut state, Sent::Query);
    assert_eq!((state.answered(b'C'), state.failed()), ((None, None), (None, None)));
    answer(&mut state, b'Z');
    ask(&mut state, Sent::Execute);
    answer(&mut state, b'Z');
    assert_eq!(answer(&mut state, b'C'), None, "an Execute waits for its Sync");
    ask(&mut state, Sent::Sync);
    answer(&mut state, b'Z');
    let number = ask(&mut state, Sent::Query);
    assert_eq!(answer(&mut state, b'C'), number, "all that was asked is answered: certain again");
}

#[test]
fn names_are_kept_for_as_many_answers_as_cost_little() {
    let mut state = State::default();
    for nth in 0..MOST_WAITING {
        let name = state.keeps_names().then(|| state.defined.name(format!("{nth:063}").as_bytes()));
        state.ask(Asked::DescribeStatement(name));
    }
    let named =
        state.waiting.iter().filter(|waiting| matches!(waiting.asked, Asked::DescribeStatement(Some(_)))).count();
    assert_eq!((named, state.waiting.len()), (MOST_NAMED, MOST_WAITING));
}

#[test]
fn more_ready_than_was_asked_for_harms_nothing() {
    let mut state = State::default();
    state.ready(true);
    let number = ask(&mut state, Sent::Query);
    state.ready(true);
    assert_eq!(answer(&mut state, b'C'), number);
}
