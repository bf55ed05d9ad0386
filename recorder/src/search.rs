//! Finding: where in a recording somebody saw, typed a command that ran, sent or moved something.
//!
//! Terminal text is searched as a person saw it: the bytes go into a terminal emulator, and what its screen then shows is
//! matched, line by line with soft wraps undone, after line editing and escape codes. What always holds: a line that stays
//! where it is, or is only scrolled, is found once; a line is found whether it scrolls away at once or is drawn by a program
//! that has the whole screen; what comes out is inert. Memory is a screen per terminal. What is found among all lines is what is
//! found among those of an [`index`](crate::index), because whether a line is new does not depend on what is looked for.

use crate::{
    Event, Stream, inert,
    replay::{Moment, Replay, What},
    screen::bounded,
    sentence::sentence,
    verify::ReadError,
};
use avt::Terminal;
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    io::Read,
    time::Duration,
};

/// Of what kind something is that can be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// What was on a terminal's screen, or what a program wrote where there was none.
    Text,
    /// A statement, its parameters, and what the server reported of it.
    Sql,
    /// The name of a file that was moved or asked for.
    File,
    /// The command line of a channel, or where it was forwarded to.
    Command,
}

/// All of them.
pub const ALL: [Kind; 4] = [Kind::Text, Kind::Sql, Kind::File, Kind::Command];

/// One place where it was found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Hit {
    /// On the wall clock.
    pub at: Timestamp,
    /// Since the recording began: what `play --at` takes.
    #[serde(serialize_with = "seconds")]
    pub elapsed: Duration,
    /// Number of its frame.
    pub frame: u64,
    /// Of what kind.
    pub kind: Kind,
    /// The line, inert.
    pub line: String,
}

fn seconds<S: serde::Serializer>(elapsed: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(elapsed.as_secs_f64())
}

/// Terminals and streams at once; further ones are searched without putting pieces together.
const MOST: usize = 64;
/// A line without an end is searched in pieces of so many bytes.
const LONGEST_LINE: usize = 16 * 1024;
/// So much of a line is shown.
const SHOWN: usize = 300;

/// A line that can be found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Line {
    pub(crate) at: Timestamp,
    #[serde(with = "nanoseconds")]
    pub(crate) elapsed: Duration,
    pub(crate) frame: u64,
    pub(crate) kind: Kind,
    /// What is matched: as it was sent, where that is longer than a line, and last the line that is shown.
    pub(crate) texts: Vec<String>,
}

impl Line {
    pub(crate) fn is_wanted(&self, kinds: &BTreeSet<Kind>, matches: &impl Fn(&str) -> bool) -> bool {
        kinds.contains(&self.kind) && self.texts.iter().any(|text| matches(text))
    }

    pub(crate) fn hit(&self) -> Hit {
        let line = inert::line(self.texts.last().map_or("", |line| line.trim_end()));
        let long = line.chars().count() > SHOWN;
        let line = if long { line.chars().take(SHOWN).chain(['…']).collect() } else { line };
        Hit { at: self.at, elapsed: self.elapsed, frame: self.frame, kind: self.kind, line }
    }
}

/// A duration as one number.
mod nanoseconds {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_nanos)
    }
}

/// An iterator over the hits of one recording. After an error it ends.
pub struct Search<R, M>(Lines<R, M>);

/// An iterator over the lines that match.
pub(crate) struct Lines<R, M> {
    replay: Replay<R>,
    matches: M,
    kinds: BTreeSet<Kind>,
    seen: Seen,
    ready: VecDeque<Line>,
}

/// What channels have shown so far.
#[derive(Default)]
struct Seen {
    terminals: BTreeMap<u32, Shown>,
    /// Lines without an end yet, where there is no terminal.
    lines: BTreeMap<(u32, Stream), String>,
    decoders: BTreeMap<(u32, Stream), inert::Decoder>,
    /// Channels whose bytes other events tell.
    decoded: BTreeSet<u32>,
}

/// A terminal, and how often each matching line is on its screen.
struct Shown {
    terminal: Terminal,
    matching: HashMap<String, usize>,
}

impl<R: Read, M: Fn(&str) -> bool> Search<R, M> {
    /// Searches from the beginning for lines of these kinds that `matches`.
    pub fn new(replay: Replay<R>, kinds: BTreeSet<Kind>, matches: M) -> Self {
        Self(Lines::new(replay, kinds, matches))
    }
}

impl<R: Read, M: Fn(&str) -> bool> Lines<R, M> {
    pub(crate) fn new(replay: Replay<R>, kinds: BTreeSet<Kind>, matches: M) -> Self {
        Self { replay, matches, kinds, seen: Seen::default(), ready: VecDeque::new() }
    }

    fn look(&mut self, moment: &Moment) {
        let kind = match &moment.what {
            What::Event(Event::Data { channel, stream, data, .. }) => {
                if self.kinds.contains(&Kind::Text) {
                    for line in self.seen.text(*channel, *stream, data, &self.matches) {
                        self.ready.push_back(found(moment, Kind::Text, vec![line]));
                    }
                }
                return;
            }
            What::Event(Event::Opened { .. }) => Kind::Command,
            What::Event(Event::File(_)) => Kind::File,
            What::Event(Event::Statement { .. } | Event::Bound { .. } | Event::Row { .. } | Event::Reported { .. }) => {
                Kind::Sql
            }
            other => {
                if self.kinds.contains(&Kind::Text) {
                    let left = self.seen.unfinished(other).into_iter().filter(|line| (self.matches)(line));
                    self.ready.extend(left.map(|line| found(moment, Kind::Text, vec![line])));
                }
                return self.seen.note(other);
            }
        };
        self.seen.note(&moment.what);
        let line = found(moment, kind, texts(&moment.what));
        if line.is_wanted(&self.kinds, &self.matches) {
            self.ready.push_back(line);
        }
    }
}

/// As it was sent, where that is longer than a line, and the line.
fn texts(what: &What) -> Vec<String> {
    let raw = match what {
        What::Event(Event::Statement { text, .. }) => Some(text.clone()),
        What::Event(Event::Opened { command, .. }) => command.clone(),
        What::Event(Event::File(file)) => Some(file.path.clone()),
        _ => None,
    };
    raw.into_iter().chain(sentence(what)).collect()
}

fn found(moment: &Moment, kind: Kind, texts: Vec<String>) -> Line {
    Line { at: moment.at, elapsed: moment.elapsed, frame: moment.frame, kind, texts }
}

impl Seen {
    fn note(&mut self, what: &What) {
        match what {
            What::Event(Event::Opened { channel, terminal: Some((_, columns, rows)), .. }) => {
                let (columns, rows) = bounded(*columns, *rows);
                let terminal = Terminal::new(columns, rows).ok().filter(|_| self.terminals.len() < MOST);
                let shown = terminal.map(|terminal| Shown { terminal, matching: HashMap::new() });
                self.terminals.extend(shown.map(|shown| (*channel, shown)));
            }
            What::Event(Event::Resized { channel, columns, rows }) => {
                if let Some(shown) = self.terminals.get_mut(channel) {
                    let (columns, rows) = bounded(*columns, *rows);
                    shown.terminal.resize(columns, rows);
                }
            }
            What::Event(Event::Decoded { channel, .. }) => drop(self.decoded.insert(*channel)),
            What::Event(Event::Closed { channel, .. }) => {
                self.terminals.remove(channel);
                self.decoded.remove(channel);
                self.decoders.retain(|(of, _), _| of != channel);
            }
            _ => {}
        }
    }

    /// The last lines of streams that end here, which no line end came behind.
    fn unfinished(&mut self, what: &What) -> Vec<String> {
        let ends = |(channel, stream): &(u32, Stream)| match what {
            What::Event(Event::Eof { channel: of, stream: which }) => of == channel && which == stream,
            What::Event(Event::Closed { channel: of, .. }) => of == channel,
            _ => false,
        };
        self.lines.extract_if(.., |place, _| ends(place)).map(|(_, line)| line.trim_end().to_owned()).collect()
    }

    /// The lines that match now and did not before.
    fn text(&mut self, channel: u32, stream: Stream, data: &[u8], matches: &impl Fn(&str) -> bool) -> Vec<String> {
        let told = stream == Stream::Stdout && self.decoded.contains(&channel);
        let has_terminal = self.terminals.contains_key(&channel);
        // What is typed in a terminal is searched as it was echoed, and an upload not at all.
        if told || stream == Stream::Stdin || matches!(stream, Stream::FromClient | Stream::FromTarget) {
            return Vec::new();
        }
        if self.decoders.len() >= MOST {
            self.decoders.clear();
            self.lines.clear();
        }
        let text = self.decoders.entry((channel, stream)).or_default().decode(data);
        match self.terminals.get_mut(&channel) {
            Some(shown) if has_terminal => shown.feed(&text, matches),
            _ => lines(self.lines.entry((channel, stream)).or_default(), &text, matches),
        }
    }
}

/// Of a stream without a terminal: each line once it is whole.
fn lines(rest: &mut String, text: &str, matches: &impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for piece in text.split_inclusive('\n') {
        rest.push_str(piece);
        if piece.ends_with('\n') || rest.len() > LONGEST_LINE {
            let line = std::mem::take(rest);
            let line = line.trim_end();
            found.extend(matches(line).then(|| line.to_owned()));
        }
    }
    found
}

/// What goes to the next line: line feed, and what terminals take for one (ECMA-48, 8.3.161 and 8.3.51).
const ENDS: [char; 3] = ['\n', '\x0b', '\x0c'];

impl Shown {
    /// Line by line, so that what scrolls away within one piece was looked at.
    fn feed(&mut self, text: &str, matches: &impl Fn(&str) -> bool) -> Vec<String> {
        let mut found = Vec::new();
        let (columns, rows) = self.terminal.size();
        let half = (columns * rows / 2).max(1);
        for piece in text.split_inclusive(ENDS) {
            let (mut line, end) = piece.split_at(piece.trim_end_matches(ENDS).len());
            // What is longer than the screen is gone at its end.
            while let Some((at, _)) = line.char_indices().nth(half) {
                let (part, rest) = line.split_at(at);
                self.terminal.feed(part);
                self.leave_line(matches, &mut found);
                line = rest;
            }
            self.terminal.feed(line);
            if !end.is_empty() {
                self.leave_line(matches, &mut found);
                self.terminal.feed(end);
            }
        }
        let mut now: HashMap<String, usize> = HashMap::new();
        for line in self.on_screen().into_iter().filter(|line| matches(line)) {
            *now.entry(line).or_default() += 1;
        }
        for (line, count) in &now {
            if *count > self.matching.get(line).copied().unwrap_or_default() {
                found.push(line.clone());
            }
        }
        self.matching = now;
        found
    }

    /// The line that the cursor is about to leave may be gone at once.
    fn leave_line(&mut self, matches: &impl Fn(&str) -> bool, found: &mut Vec<String>) {
        let line = self.row(self.terminal.cursor().row);
        if !matches(&line) {
            return;
        }
        let count = self.on_screen().iter().filter(|other| **other == line).count();
        let known = self.matching.entry(line.clone()).or_default();
        if count > *known {
            *known = count;
            found.push(line);
        }
    }

    /// The line, soft wraps undone, that this row is part of.
    fn row(&self, row: usize) -> String {
        let wraps = |row: usize| self.terminal.screen().line(row).is_some_and(|line| line.is_wrapped());
        let first = (0..row).rev().take_while(|above| wraps(*above)).last().unwrap_or(row);
        self.joined(first).0
    }

    /// From this row on to the end of its line, and the row after it.
    fn joined(&self, first: usize) -> (String, usize) {
        let (mut text, mut row) = (String::new(), first);
        while let Some(line) = self.terminal.screen().line(row) {
            text.push_str(&line.text());
            row += 1;
            if !line.is_wrapped() {
                break;
            }
        }
        (text.trim_end().to_owned(), row)
    }

    fn on_screen(&self) -> Vec<String> {
        let (mut lines, mut row) = (Vec::new(), 0);
        while row < self.terminal.size().1 {
            let (line, next) = self.joined(row);
            lines.push(line);
            row = next.max(row + 1);
        }
        lines
    }
}

impl<R: Read, M: Fn(&str) -> bool> Iterator for Search<R, M> {
    type Item = Result<Hit, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|line| line.map(|line| line.hit()))
    }
}

impl<R: Read, M: Fn(&str) -> bool> Iterator for Lines<R, M> {
    type Item = Result<Line, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(Ok(line));
            }
            match self.replay.next()? {
                Ok(moment) => self.look(&moment),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
