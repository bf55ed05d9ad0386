//! Which answer belongs to which question.
//!
//! The target answers in the order in which it was asked, and a client may ask ahead (PostgreSQL chapter 55.2.4, "Pipelining"). So
//! what waits for its answer stands in a queue that both directions of a session share. What always holds: an answer is given to what
//! it answers, or the recording says that it is not known whose it is; it is never guessed. The queue is bounded: what a
//! client asks beyond [`MOST_WAITING`] is counted by its ReadyForQuery, and so is all where an answer fits nothing; matching begins
//! again once each that was asked for has come: then nothing waits, whatever it was.
//! What is asked and answered is recorded in any case: only who belongs to whom is lost.

use super::{
    defined::{Defined, Name},
    parameters::format,
    rows::{Field, Rows},
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tidegate_grants::Keeps;

/// Questions that wait for their answers.
pub(super) const MOST_WAITING: usize = 32 * 1024;
/// Of so many that wait, names are kept for the answer.
const MOST_NAMED: usize = 1024;
/// A queue that grew beyond this is given back once it is empty.
const KEPT_QUEUE: usize = 1024;

/// What both directions of a session know.
#[derive(Debug, Clone, Default)]
pub(in crate::protocol::postgres) struct Talk(Arc<Mutex<State>>);

impl Talk {
    /// Of a session whose recording keeps this.
    pub(in crate::protocol::postgres) fn new(keeps: Keeps) -> Self {
        let talk = Self::default();
        talk.lock().keeps = keeps;
        talk
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the answers to a question are read, where it matters.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Reading {
    /// So many words of its statement are masked; `usize::MAX` where that is not known.
    pub(super) named: usize,
    /// As Bind asked for its results: `None` if they say themselves how they come.
    pub(super) formats: Option<Vec<u16>>,
    /// What its results look like, if its statement was described before.
    pub(super) fields: Option<Arc<[Field]>>,
}

impl Reading {
    /// Of this column.
    pub(super) fn format(&self, nth: usize) -> Option<u16> {
        self.formats.as_ref().map(|formats| format(formats, nth))
    }

    /// Bytes, but for what it shares with its statement.
    pub(super) fn cost(&self) -> usize {
        size_of::<Self>() + self.formats.as_ref().map_or(0, |formats| 2 * formats.len())
    }
}

/// A question in the queue.
#[derive(Debug)]
struct Waiting {
    asked: Asked,
    reading: Option<Arc<Reading>>,
}

/// One message of the client.
#[derive(Debug, PartialEq)]
pub(super) enum Asked {
    /// Query or FunctionCall: ends with a ReadyForQuery of its own.
    Whole {
        /// Of the statement.
        number: u64,
        /// Something of its answer has come.
        begun: bool,
    },
    /// Parse.
    Parse(u64),
    /// Bind.
    Bind(u64),
    /// Execute.
    Execute(u64),
    /// Describe of a statement, by its name if that is followed.
    DescribeStatement(Option<Name>),
    /// Describe of a portal.
    DescribePortal,
    /// Close.
    Close,
    /// Sync, and the last number that was given before it.
    Sync(u64),
    /// CopyDone or CopyFail: nothing, unless data of COPY are read.
    CopyEnd,
}

impl Asked {
    fn number(&self) -> Option<u64> {
        match self {
            Self::Whole { number, .. } | Self::Parse(number) | Self::Bind(number) | Self::Execute(number) => {
                Some(*number)
            }
            _ => None,
        }
    }

    /// Whether a ReadyForQuery ends it.
    fn ends(&self) -> bool {
        matches!(self, Self::Whole { .. } | Self::Sync(_))
    }

    /// Whether a message of this type can answer it.
    fn takes(&self, answer: u8) -> bool {
        match self {
            Self::Whole { .. } => b"CIVTGH".contains(&answer),
            Self::Parse(_) => answer == b'1',
            Self::Bind(_) => answer == b'2',
            Self::Execute(_) => b"CIsGH".contains(&answer),
            Self::DescribeStatement(_) => b"tTn".contains(&answer),
            Self::DescribePortal => b"Tn".contains(&answer),
            Self::Close => answer == b'3',
            Self::Sync(_) | Self::CopyEnd => false,
        }
    }
}

/// How well answers can be matched.
#[derive(Debug, Default, PartialEq)]
enum Following {
    #[default]
    All,
    /// Too much was asked. So many ReadyForQuery are owed for what did not find place; `open`: more behind the last of them.
    Beyond { ready: u64, open: bool },
    /// Something came that answers nothing. At most so many ReadyForQuery are owed; `open`: more was asked behind the last of them.
    Lost { ready: u64, open: bool },
}

/// COPY FROM STDIN. Up to CopyDone or CopyFail the target takes what comes for data.
#[derive(Debug)]
struct Copying {
    /// Neither has come yet.
    open: bool,
    /// So many Syncs were taken for data.
    took: u64,
}

/// What is to be said once, in the recording.
pub(super) type Note = Option<&'static str>;

const TOO_MANY: &str = "more messages of the client wait for their answers than are followed: until all are answered, results do \
                        not say what they answer";
const LOST: &str = "what the target answers does not fit what it was asked: until all that was asked is surely answered, results do \
                    not say what they answer";

#[derive(Debug, Default)]
pub(super) struct State {
    /// The last number given.
    last: u64,
    waiting: VecDeque<Waiting>,
    following: Following,
    /// After an error the target reads on to the next Sync.
    skipping: bool,
    /// The front of the queue reads data of COPY.
    copying: Option<Copying>,
    /// COPY has failed, and whether the Sync behind it was taken for data is not known: the target may skip what comes up to the
    /// next Sync, or do it. Behind that Sync it is known again: a ReadyForQuery too many answers nothing.
    doubt: bool,
    /// Syncs that may have been taken for data of a COPY that failed: their ReadyForQuery may come, or not.
    perhaps: u64,
    pub(super) defined: Defined,
    pub(super) keeps: Keeps,
    /// The portal that was described last.
    described: Option<(Arc<Reading>, Arc<[Field]>)>,
    /// What must not be seen was asked for since nothing was under way last.
    secret: bool,
}

impl State {
    /// The next number.
    pub(super) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Whether anything is to be known of how answers are read.
    pub(super) fn reads(&self) -> bool {
        self.keeps != Keeps::default()
    }

    /// Whether what is asked by this must not be seen.
    pub(super) fn hides(&self, named: usize) -> bool {
        named > 0 && !self.keeps.masks.is_empty()
    }

    /// Whether what the target says may be about that. An error can come as late as at the end of a transaction, and
    /// a line of its log behind what it is about.
    pub(super) fn hides_current(&self) -> bool {
        self.secret
    }

    /// RowDescription: whether it belongs to a Query, whose rows come now.
    pub(super) fn describes_rows(&mut self, fields: &Arc<[Field]>) -> bool {
        self.drop_ends();
        match self.waiting.front() {
            Some(Waiting { asked: Asked::Whole { .. }, .. }) => return true,
            Some(Waiting { asked: Asked::DescribeStatement(Some(name)), .. }) => {
                self.defined.describe_rows(name, fields.clone());
            }
            Some(Waiting { asked: Asked::DescribePortal, reading: Some(reading) }) => {
                self.described = Some((reading.clone(), fields.clone()));
            }
            _ => {}
        }
        false
    }

    /// The rows that come now. `described`: what was said of them right before, for a Query.
    pub(super) fn rows(&self, described: Option<&Arc<[Field]>>) -> Rows {
        let (of, reading, fields) = match self.waiting.front() {
            Some(Waiting { asked: Asked::Whole { number, .. }, reading }) => {
                (Some(*number), reading.clone(), described)
            }
            Some(Waiting { asked: Asked::Execute(number), reading: Some(reading) }) => {
                let last = self.described.as_ref().filter(|(of, _)| Arc::ptr_eq(of, reading)).map(|(_, fields)| fields);
                (Some(*number), Some(reading.clone()), last.or(reading.fields.as_ref()))
            }
            _ => (None, None, None),
        };
        Rows::new(of, reading, fields, &self.keeps.masks)
    }

    /// The client has sent this.
    pub(super) fn ask(&mut self, asked: Asked) -> Note {
        self.ask_so(asked, None)
    }

    /// The same, with how what comes is read.
    pub(super) fn ask_so(&mut self, asked: Asked, reading: Option<Arc<Reading>>) -> Note {
        self.secret |= reading.as_ref().is_some_and(|reading| self.hides(reading.named));
        let open = self.copying.as_mut().filter(|copying| copying.open);
        match (&asked, open) {
            // COPY FROM STDIN reads over it (chapter 55.2.6).
            (Asked::Sync(_), Some(copying)) => {
                copying.took += 1;
                return None;
            }
            (Asked::CopyEnd, Some(copying)) => {
                copying.open = false;
                return None;
            }
            (Asked::Sync(_), None) => self.doubt = false,
            (Asked::CopyEnd, None) => {}
            (_, Some(_)) => return Some(self.lose_asking(&asked)), // the end of a session, for PostgreSQL
            (_, None) if self.doubt => return Some(self.lose_asking(&asked)),
            (_, None) => {}
        }
        let ends = asked.ends();
        match &mut self.following {
            Following::Lost { .. } | Following::Beyond { .. } if asked == Asked::CopyEnd => None,
            Following::Lost { ready, open } | Following::Beyond { ready, open } => {
                *ready += u64::from(ends);
                *open = !ends;
                None
            }
            Following::All if self.waiting.len() >= MOST_WAITING => {
                self.following = Following::Beyond { ready: ends.into(), open: !ends };
                Some(TOO_MANY)
            }
            Following::All => {
                self.waiting.push_back(Waiting { asked, reading });
                None
            }
        }
    }

    /// The last number given, for Sync.
    pub(super) fn sync(&mut self) -> Note {
        let last = self.last;
        self.defined.next_batch();
        self.ask(Asked::Sync(last))
    }

    /// The target has sent an answer of this type: to what, by its number.
    pub(super) fn answered(&mut self, answer: u8) -> (Option<u64>, Note) {
        match self.fit(answer) {
            Ok(true) => {}
            Ok(false) => return (None, None),
            Err(note) => return (None, Some(note)),
        }
        let Some(Waiting { asked: front, .. }) = self.waiting.front_mut() else { return (None, None) };
        let number = front.number();
        let over = match front {
            Asked::Parse(number) => {
                self.defined.parse_done(*number);
                true
            }
            Asked::Bind(number) => {
                self.defined.bind_done(*number);
                true
            }
            Asked::Whole { begun, .. } => {
                *begun = true;
                false
            }
            Asked::Execute(number) => {
                let over = !b"GH".contains(&answer);
                if over {
                    self.defined.answered(*number);
                }
                over
            }
            Asked::DescribeStatement(_) => answer != b't',
            _ => true,
        };
        if over {
            self.pop();
        }
        let fits = answer != b'G' || self.copy_in();
        (number, (!fits).then(|| self.lose()))
    }

    /// Whether the front of the queue takes this answer.
    fn fit(&mut self, answer: u8) -> Result<bool, &'static str> {
        self.drop_ends();
        match self.waiting.front() {
            Some(front) if front.asked.takes(answer) => Ok(true),
            None if self.following != Following::All => Ok(false),
            _ => Err(self.lose()),
        }
    }

    /// Nothing is known of what waits but how many ReadyForQuery it can bring at most.
    fn lose(&mut self) -> &'static str {
        let took = self.copying.as_ref().map_or(0, |copying| copying.took);
        let (owed, behind) = match self.following {
            Following::All => (0, false),
            Following::Beyond { ready, open } | Following::Lost { ready, open } => (ready, open),
        };
        let ready =
            self.waiting.iter().filter(|waiting| waiting.asked.ends()).count() as u64 + took + self.perhaps + owed;
        let open = behind || self.waiting.back().is_some_and(|waiting| !waiting.asked.ends());
        (self.following, self.waiting) = (Following::Lost { ready, open }, VecDeque::new());
        (self.skipping, self.doubt, self.copying, self.perhaps) = (false, false, None, 0);
        LOST
    }

    /// The same when the client asks for this.
    fn lose_asking(&mut self, asked: &Asked) -> &'static str {
        let told = self.lose();
        if let Following::Lost { ready, open } = &mut self.following {
            *ready += u64::from(asked.ends());
            *open = !asked.ends();
        }
        told
    }

    /// Whether a name is kept for the answer to what is asked next: they are longer than all else that waits.
    pub(super) fn keeps_names(&self) -> bool {
        self.waiting.len() < MOST_NAMED
    }

    /// CopyInResponse: what the client has sent behind it is read as data, up to CopyDone or CopyFail. Whether that can be.
    fn copy_in(&mut self) -> bool {
        let (mut nth, mut open, mut took, mut fits) = (0, true, 0, true);
        self.waiting.retain(|waiting| {
            nth += 1;
            match &waiting.asked {
                _ if nth == 1 || !open => return true,
                Asked::Sync(_) => took += 1,
                Asked::CopyEnd => open = false,
                _ => {
                    fits = false;
                    return true; // it counts
                }
            }
            false
        });
        self.copying = Some(Copying { open, took });
        fits
    }

    /// ParameterDescription.
    pub(super) fn described(&mut self, types: Arc<[u32]>) {
        if let Some(Waiting { asked: Asked::DescribeStatement(Some(name)), .. }) = self.waiting.front() {
            self.defined.describe(name, types);
        }
    }

    /// ErrorResponse: to what, by its number.
    pub(super) fn failed(&mut self) -> (Option<u64>, Note) {
        let copying = self.copying.take();
        self.drop_ends();
        let Some(Waiting { asked: front, .. }) = self.waiting.front_mut() else { return (None, None) };
        let number = front.number();
        match front {
            Asked::Whole { begun, .. } => *begun = true,
            Asked::Sync(_) => {} // the commit failed
            _ => self.skipping = true,
        }
        let took = copying.map_or(0, |copying| copying.took);
        // Whichever of them came behind the failure, each brings a ReadyForQuery of its own.
        self.perhaps += took;
        if !self.skipping || took == 0 {
            return (number, None);
        }
        let mut behind =
            self.waiting.iter().skip(1).map(|waiting| &waiting.asked).skip_while(|asked| **asked == Asked::CopyEnd);
        let next = behind.next();
        self.doubt = next.is_none();
        let more = next.is_some_and(|asked| !matches!(asked, Asked::Sync(_)));
        (number, more.then(|| self.lose()))
    }

    /// NoticeResponse: during what, by its number.
    pub(super) fn current(&mut self) -> Option<u64> {
        self.drop_ends();
        self.waiting.front().and_then(|front| front.asked.number())
    }

    /// ReadyForQuery; `idle`: outside a transaction, where no portal outlives it.
    pub(super) fn ready(&mut self, idle: bool) {
        (self.copying, self.doubt) = (None, false);
        self.drop_ends();
        let upto = match self.waiting.front().map(|front| &front.asked) {
            _ if self.skipping => self.skip(),
            Some(Asked::Whole { number, begun: true } | Asked::Sync(number)) => {
                let number = *number;
                self.pop();
                self.defined.answered(number);
                Some(number)
            }
            None => {
                self.answered_beyond();
                None
            }
            // The one of the start-up, or one whose Sync was not taken for data of COPY after all.
            Some(_) => None,
        };
        if idle && self.waiting.is_empty() && self.following == Following::All {
            self.secret = false;
        }
        if let Some(upto) = upto.filter(|_| idle) {
            self.defined.end_portals(upto);
        }
    }

    /// After an error: all up to the Sync has not been done.
    fn skip(&mut self) -> Option<u64> {
        self.skipping = false;
        let (mut first, mut last) = (u64::MAX, 0);
        while let Some(Waiting { asked, .. }) = self.waiting.pop_front() {
            if let Asked::Sync(upto) = asked {
                self.defined.undo(first, last);
                return Some(upto);
            }
            if let Some(number) = asked.number() {
                self.defined.answered(number);
                (first, last) = (first.min(number), last.max(number));
            }
        }
        self.defined.undo(first, last);
        self.answered_beyond();
        None
    }

    /// A ReadyForQuery that nothing in the queue waits for.
    fn answered_beyond(&mut self) {
        if let Following::Beyond { ready, open } | Following::Lost { ready, open } = &mut self.following {
            *ready = ready.saturating_sub(1);
            if *ready == 0 && !*open {
                self.following = Following::All;
                // Which of them failed is not known.
                self.defined.forget(self.last);
            }
        }
    }

    /// CopyDone and CopyFail at the front, which the target reads over: COPY was over already.
    fn drop_ends(&mut self) {
        while self.waiting.front().is_some_and(|front| front.asked == Asked::CopyEnd) {
            self.waiting.pop_front();
        }
    }

    fn pop(&mut self) {
        self.waiting.pop_front();
        self.copying = None;
        if self.waiting.is_empty() && self.waiting.capacity() > KEPT_QUEUE {
            self.waiting.shrink_to(KEPT_QUEUE);
        }
    }
}

#[cfg(test)]
#[path = "talk_tests.rs"]
mod tests;
