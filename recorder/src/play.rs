//! Playing a recording in a terminal: what to write, and how long to wait before it. Pure: it neither sleeps nor writes.
//!
//! What always holds: every byte of a [`Step`] was made here or in the drawing of screens, none is passed through from
//! the recording. Sessions with a terminal are drawn; whatever else happened is told in lines.

use crate::{
    Event, Stream, inert,
    replay::{Moment, Replay, What},
    screen::Screen,
    sentence::marked_sentence,
    verify::ReadError,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::File,
    io::BufReader,
    io::Read,
    time::Duration,
};

/// How to play.
#[derive(Debug, Clone)]
pub struct Settings {
    /// 2.0 is twice as fast. What is no positive number counts as 1.
    pub speed: f64,
    /// No pause is longer than this (before `speed`).
    pub idle_limit: Option<Duration>,
    /// The auditor's terminal, columns and rows; what does not fit is clipped.
    pub view: Option<(u16, u16)>,
    /// Which channel's terminal to draw; default: the first that has one.
    pub channel: Option<u32>,
    /// What happened before is not played; a screen is drawn as it was then.
    pub from: Duration,
}

/// Wait so long, then write these bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Since the step before.
    pub delay: Duration,
    /// Characters, SGR, cursor positions, erasing and line breaks; nothing else.
    pub bytes: Vec<u8>,
}

/// Open streams that are not drawn: more are told without decoding across pieces.
const MOST_DECODERS: usize = 1024;

/// An iterator over the steps of a recording.
pub struct Player<R = BufReader<File>> {
    replay: Replay<R>,
    settings: Settings,
    /// The recording's time at the last step.
    shown: Duration,
    /// The channel that is drawn now, with its screen.
    drawn: Option<(u32, Screen)>,
    decoders: BTreeMap<(u32, Stream), inert::Decoder>,
    /// Channels whose bytes other events tell.
    decoded: BTreeSet<u32>,
    /// Whose content was told last, if its line is not at an end.
    within: Option<(u32, Stream)>,
    /// The moment to play from has come.
    arrived: bool,
}

impl<R> fmt::Debug for Player<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Player").field("replay", &self.replay).field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<R: Read> Player<R> {
    /// Plays from the beginning.
    pub fn new(replay: Replay<R>, settings: Settings) -> Self {
        Self {
            replay,
            settings,
            shown: Duration::ZERO,
            drawn: None,
            decoders: BTreeMap::new(),
            decoded: BTreeSet::new(),
            within: None,
            arrived: false,
        }
    }

    /// What is to be seen first, when playing begins in the midst of a recording.
    fn arrive(&mut self, shown: String, elapsed: Duration) -> String {
        self.arrived = true;
        if self.settings.from.is_zero() {
            return shown;
        }
        self.shown = elapsed;
        self.drawn.as_ref().map_or(shown, |(_, screen)| screen.whole())
    }

    fn show(&mut self, moment: &Moment) -> String {
        let what = &moment.what;
        match what {
            What::Event(Event::Decoded { channel, .. }) => {
                self.decoded.insert(*channel);
            }
            What::Event(Event::Closed { channel }) => {
                self.decoded.remove(channel);
            }
            _ => {}
        }
        match what {
            What::Event(Event::Opened { channel, terminal: Some((_, columns, rows)), .. })
                if self.drawn.is_none() && self.settings.channel.is_none_or(|wanted| wanted == *channel) =>
            {
                let Some(mut screen) = Screen::new(*columns, *rows, self.settings.view) else { return String::new() };
                let first = screen.resize(*columns, *rows);
                self.drawn = Some((*channel, screen));
                self.within = None;
                first
            }
            What::Event(Event::Data { channel, stream, data, .. }) => self.show_data(*channel, *stream, data),
            What::Event(Event::Resized { channel, columns, rows }) => match &mut self.drawn {
                Some((drawn, screen)) if drawn == channel => screen.resize(*columns, *rows),
                _ => String::new(),
            },
            What::Event(Event::Closed { channel }) if self.is_drawn(*channel) => self.leave() + &self.tell(moment),
            What::End | What::Truncated { .. } => self.leave() + &self.tell(moment),
            // What the person must not miss comes below the screen; the rest would disturb it.
            What::Event(Event::Said { .. }) if self.drawn.is_some() => self.leave() + &self.tell(moment),
            What::Counted { channel, stream: Stream::Stdin | Stream::Stdout, .. } if self.decoded.contains(channel) => {
                String::new()
            }
            _ if self.drawn.is_some() => String::new(),
            _ => self.tell(moment),
        }
    }

    fn show_data(&mut self, channel: u32, stream: Stream, data: &[u8]) -> String {
        if stream == Stream::Stdin {
            return String::new(); // the terminal echoes what is meant to be seen
        }
        if stream == Stream::Stdout && self.decoded.contains(&channel) {
            return String::new(); // told in lines of their own
        }
        if self.decoders.len() >= MOST_DECODERS {
            self.decoders.clear();
        }
        let text = self.decoders.entry((channel, stream)).or_default().decode(data);
        match &mut self.drawn {
            Some((drawn, screen)) if *drawn == channel => screen.feed(&text),
            Some(_) => String::new(),
            None => self.show_content((channel, stream), &inert::lines(&text)),
        }
    }

    /// Content without a screen, marked: lines of ours come between it.
    fn show_content(&mut self, whose: (u32, Stream), text: &str) -> String {
        if text.is_empty() {
            return String::new();
        }
        let goes_on = self.within == Some(whose);
        let mut out = if goes_on { String::new() } else { self.line_start().to_owned() };
        out.push_str(&inert::marked(text, !goes_on).replace('\n', "\r\n"));
        self.within = (!text.ends_with('\n')).then_some(whose);
        out
    }

    fn line_start(&mut self) -> &'static str {
        if self.within.take().is_some() { "\r\n" } else { "" }
    }

    fn is_drawn(&self, channel: u32) -> bool {
        self.drawn.as_ref().is_some_and(|(drawn, _)| *drawn == channel)
    }

    fn leave(&mut self) -> String {
        self.drawn.take().map(|(_, screen)| screen.leave()).unwrap_or_default()
    }

    fn tell(&mut self, moment: &Moment) -> String {
        marked_sentence(moment).map(|line| format!("{}{line}\r\n", self.line_start())).unwrap_or_default()
    }

    fn delay(&mut self, elapsed: Duration) -> Duration {
        let pause = elapsed.saturating_sub(self.shown);
        self.shown = self.shown.max(elapsed);
        let pause = self.settings.idle_limit.map_or(pause, |limit| pause.min(limit));
        let speed =
            if self.settings.speed.is_normal() && self.settings.speed > 0.0 { self.settings.speed } else { 1.0 };
        Duration::try_from_secs_f64(pause.as_secs_f64() / speed).unwrap_or(pause)
    }
}

impl<R: Read> Iterator for Player<R> {
    type Item = Result<Step, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let moment = match self.replay.next()? {
                Ok(moment) => moment,
                Err(error) => return Some(Err(error)),
            };
            let mut shown = self.show(&moment);
            let last = matches!(moment.what, What::End | What::Truncated { .. });
            if moment.elapsed < self.settings.from && !last {
                self.within = None;
                continue;
            }
            if !self.arrived {
                shown = self.arrive(shown, moment.elapsed);
            }
            if !shown.is_empty() {
                return Some(Ok(Step { delay: self.delay(moment.elapsed), bytes: shown.into_bytes() }));
            }
        }
    }
}
