//! What is to be seen of a session at one moment of it: a terminal's screen, or what was told in lines.
//!
//! What always holds: recorded bytes go into a terminal emulator, or are made inert, and nowhere else; memory
//! is one screen and so many lines, whatever the session did.

use crate::{
    Event, Stream, inert,
    picture::Picture,
    replay::{Moment, What},
    screen::bounded,
    sentence::marked_sentence,
};
use avt::{ScreenKind, Terminal};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

/// Lines that are kept: what is above them is to be found by going back.
const MOST_LINES: usize = 2000;
/// A line that has no end is broken after so many bytes.
const LONGEST_LINE: usize = 4096;
/// Open streams that are decoded across pieces.
const MOST_DECODERS: usize = 256;
/// So much of what was typed last is kept.
const MOST_TYPED: usize = 256;
/// Enter is echoed within this time, or the line break is another's.
pub(crate) const ECHO: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Default)]
pub struct Stage {
    /// Which channel's terminal to show; else the first that has one.
    channel: Option<u32>,
    /// The terminal that is shown, and whose it is. It stays when its channel is closed, until there is another.
    terminal: Option<(u32, Terminal)>,
    closed: bool,
    lines: VecDeque<String>,
    /// Whose content the last line is, if it goes on.
    within: Option<(u32, Stream)>,
    decoders: BTreeMap<(u32, Stream), inert::Decoder>,
    /// Channels whose bytes other events tell.
    decoded: BTreeSet<u32>,
    /// When something was typed whose line break is not seen yet.
    awaited: Option<Duration>,
    typed: String,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("lines", &self.lines.len()).finish_non_exhaustive()
    }
}

impl Stage {
    /// Nothing is seen yet. `channel`: whose terminal to show; else the first that has one.
    pub fn new(channel: Option<u32>) -> Self {
        Self { channel, ..Self::default() }
    }

    /// The screen, if the session has a terminal.
    pub fn picture(&self) -> Option<Picture> {
        self.terminal.as_ref().map(|(_, terminal)| Picture::of(terminal))
    }

    /// What was told, the last at the end; without a terminal also what programs wrote, each line begun with `| `.
    pub fn lines(&self) -> &VecDeque<String> {
        &self.lines
    }

    /// What was typed last, on one line; empty where keystrokes were not asked for.
    pub fn typed(&self) -> &str {
        &self.typed
    }

    /// This happened. What comes back is the line on which Enter was pressed, where that was seen.
    pub fn take(&mut self, moment: &Moment) -> Option<String> {
        match &moment.what {
            What::Event(Event::Data { stream: Stream::Stdin, data, .. }) => {
                self.awaited = Some(moment.elapsed);
                self.type_in(data);
            }
            What::Withheld { .. } => self.awaited = Some(moment.elapsed),
            What::Event(Event::Data { channel, stream, data, .. }) => {
                return self.content(*channel, *stream, data, moment.elapsed);
            }
            What::Counted { channel, stream: Stream::Stdin | Stream::Stdout, .. } if self.decoded.contains(channel) => {
            }
            _ => {
                self.follow(&moment.what);
                self.tell(moment);
            }
        }
        None
    }

    /// What becomes of channels.
    fn follow(&mut self, what: &What) {
        match what {
            What::Event(Event::Opened { channel, terminal: Some((_, columns, rows)), .. })
                if (self.terminal.is_none() || self.closed) && self.channel.is_none_or(|wanted| wanted == *channel) =>
            {
                let (columns, rows) = bounded(*columns, *rows);
                self.terminal = Terminal::new(columns, rows).ok().map(|terminal| (*channel, terminal));
                self.closed = false;
            }
            What::Event(Event::Resized { channel, columns, rows }) => {
                if let Some((_, terminal)) = self.terminal.as_mut().filter(|(shown, _)| shown == channel) {
                    let (columns, rows) = bounded(*columns, *rows);
                    terminal.resize(columns, rows);
                }
            }
            What::Event(Event::Decoded { channel, .. }) => drop(self.decoded.insert(*channel)),
            What::Event(Event::Closed { channel, .. }) => {
                self.decoded.remove(channel);
                self.decoders.retain(|(of, _), _| of != channel);
                self.closed |= self.terminal.as_ref().is_some_and(|(shown, _)| shown == channel);
            }
            _ => {}
        }
    }

    fn content(&mut self, channel: u32, stream: Stream, data: &[u8], now: Duration) -> Option<String> {
        if stream == Stream::Stdout && self.decoded.contains(&channel) {
            return None; // told in lines of their own
        }
        if self.decoders.len() >= MOST_DECODERS {
            self.decoders.clear();
        }
        let text = self.decoders.entry((channel, stream)).or_default().decode(data);
        match &mut self.terminal {
            Some((shown, terminal)) if *shown == channel => {
                let awaited = self.awaited.filter(|typed| now.saturating_sub(*typed) <= ECHO);
                let Some((line, rest)) = awaited.and(text.split_once('\n')) else {
                    terminal.feed(text.as_str());
                    return None;
                };
                self.awaited = None;
                terminal.feed(line);
                let entered = (terminal.active_screen_kind() == ScreenKind::Primary).then(|| line_of(terminal));
                terminal.feed("\n");
                terminal.feed(rest);
                entered.filter(|line| !line.is_empty())
            }
            Some(_) => None,
            None => {
                self.write((channel, stream), &inert::lines(&text));
                None
            }
        }
    }

    /// Content without a terminal.
    fn write(&mut self, whose: (u32, Stream), text: &str) {
        for piece in text.split_inclusive('\n') {
            let goes_on = self.within == Some(whose) && self.lines.back().is_some_and(|last| last.len() < LONGEST_LINE);
            if !goes_on {
                self.push(inert::CONTENT.to_owned());
            }
            if let Some(last) = self.lines.back_mut() {
                last.push_str(&piece.trim_end_matches('\n').replace('\t', "    "));
            }
            self.within = (!piece.ends_with('\n')).then_some(whose);
        }
    }

    fn tell(&mut self, moment: &Moment) {
        if let Some(line) = marked_sentence(moment) {
            self.within = None;
            self.push(line.replace('\t', "    "));
        }
    }

    fn push(&mut self, line: String) {
        if self.lines.len() >= MOST_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn type_in(&mut self, data: &[u8]) {
        self.typed.push_str(&inert::line(&String::from_utf8_lossy(data)));
        let over = self.typed.chars().count().saturating_sub(MOST_TYPED);
        self.typed = self.typed.chars().skip(over).collect();
    }
}

/// The line that the cursor is on, soft wraps undone, inert.
pub(crate) fn line_of(terminal: &Terminal) -> String {
    let screen = terminal.screen();
    let wraps = |row: usize| screen.line(row).is_some_and(|line| line.is_wrapped());
    let row = terminal.cursor().row;
    let first = (0..row).rev().take_while(|above| wraps(*above)).last().unwrap_or(row);
    let text: String = (first..=row).filter_map(|row| screen.line(row)).map(|line| line.text()).collect();
    inert::line(text.trim_end())
}
