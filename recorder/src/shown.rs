//! What a recording looks like in a terminal, moment by moment: for who plays it, and for who watches while it is made.
//!
//! What always holds: every byte that comes out was made here or in the drawing of screens, none is passed through.
//! Sessions with a terminal are drawn; whatever else happened is told in lines.

use crate::{
    Event, Stream, inert,
    replay::{Moment, What},
    screen::Screen,
    sentence::marked_sentence,
};
use std::collections::{BTreeMap, BTreeSet};

/// Open streams that are not drawn: more are told without decoding across pieces.
const MOST_DECODERS: usize = 1024;

/// See the module.
pub(crate) struct Shown {
    /// The auditor's terminal, columns and rows; what does not fit is clipped.
    view: Option<(u16, u16)>,
    /// Which channel's terminal to draw; else the first that has one.
    channel: Option<u32>,
    /// The channel that is drawn now, with its screen.
    drawn: Option<(u32, Screen)>,
    /// Something was told since that screen was drawn last.
    covered: bool,
    decoders: BTreeMap<(u32, Stream), inert::Decoder>,
    /// Channels whose bytes other events tell.
    decoded: BTreeSet<u32>,
    /// Whose content was told last, if its line is not at an end.
    within: Option<(u32, Stream)>,
}

impl Shown {
    pub(crate) fn new(view: Option<(u16, u16)>, channel: Option<u32>) -> Self {
        Self {
            view,
            channel,
            drawn: None,
            covered: false,
            decoders: BTreeMap::new(),
            decoded: BTreeSet::new(),
            within: None,
        }
    }

    /// Drawn anew, where there is a screen.
    pub(crate) fn whole(&self) -> Option<String> {
        self.drawn.as_ref().map(|(_, screen)| screen.whole())
    }

    /// What comes next begins a line of its own.
    pub(crate) fn forget_line(&mut self) {
        self.within = None;
    }

    /// What is to be written now that this happened.
    pub(crate) fn show(&mut self, moment: &Moment) -> String {
        let what = &moment.what;
        match what {
            What::Event(Event::Decoded { channel, .. }) => {
                self.decoded.insert(*channel);
            }
            What::Event(Event::Closed { channel, .. }) => {
                self.decoded.remove(channel);
            }
            _ => {}
        }
        match what {
            What::Event(Event::Opened { channel, terminal: Some((_, columns, rows)), .. })
                if self.drawn.is_none() && self.channel.is_none_or(|wanted| wanted == *channel) =>
            {
                let Some(mut screen) = Screen::new(*columns, *rows, self.view) else { return String::new() };
                let first = screen.resize(*columns, *rows);
                self.drawn = Some((*channel, screen));
                self.within = None;
                first
            }
            What::Event(Event::Data { channel, stream, data, .. }) => self.show_data(*channel, *stream, data),
            What::Event(Event::Resized { channel, columns, rows }) => match &mut self.drawn {
                Some((drawn, screen)) if drawn == channel => {
                    self.covered = false;
                    screen.resize(*columns, *rows)
                }
                _ => String::new(),
            },
            What::Event(Event::Closed { channel, .. }) if self.is_drawn(*channel) => self.leave() + &self.tell(moment),
            What::End | What::Truncated { .. } => self.leave() + &self.tell(moment),
            // What the person must not miss comes below the screen, which is drawn again with what it shows next; the rest
            // would disturb it.
            What::Event(Event::Said { .. }) if self.drawn.is_some() => self.cover() + &self.tell(moment),
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
            Some((drawn, screen)) if *drawn == channel => {
                let changed = screen.feed(&text);
                if std::mem::take(&mut self.covered) { screen.whole() } else { changed }
            }
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

    /// To the line below the screen, which is over.
    pub(crate) fn leave(&mut self) -> String {
        let below = self.cover();
        self.drawn = None;
        self.covered = false;
        below
    }

    /// To the line below the screen.
    fn cover(&mut self) -> String {
        let Some((_, screen)) = &self.drawn else { return String::new() };
        if std::mem::replace(&mut self.covered, true) { String::new() } else { screen.leave() }
    }

    fn tell(&mut self, moment: &Moment) -> String {
        marked_sentence(moment).map(|line| format!("{}{line}\r\n", self.line_start())).unwrap_or_default()
    }
}
