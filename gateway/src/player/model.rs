//! What the player is doing, as a value: keys and time go in, and what is to be seen follows from it. It touches no terminal and no
//! file.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::time::Duration;
use tidegate_recorder::{
    outline::{Outline, Row},
    search::Hit,
};

/// So far the arrows go.
const STEP: Duration = Duration::from_secs(5);
/// So far a page goes.
const PAGE: Duration = Duration::from_secs(60);
/// Pauses are cut to this where no limit was asked for.
const IDLE: Duration = Duration::from_secs(2);
/// Going back to a mark while playing: the last one is left behind after this time.
const BEHIND: Duration = Duration::from_secs(1);
const SPEEDS: std::ops::RangeInclusive<f64> = 0.125..=64.0;
/// Characters of a search.
const LONGEST: usize = 200;

/// See the module.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) title: String,
    /// What is seen; always within the recording, once its length is known.
    pub(super) at: Duration,
    pub(super) playing: bool,
    /// 2 is twice as fast.
    pub(super) speed: f64,
    /// No pause is longer.
    pub(super) idle: Option<Duration>,
    /// None while the recording is still read for it.
    pub(super) outline: Option<Outline>,
    /// The statements are shown, not what was told.
    pub(super) table: bool,
    pub(super) selected: usize,
    pub(super) mode: Mode,
    pub(super) hits: Vec<Hit>,
    hit: Option<usize>,
    /// One line for the person, until the next key.
    pub(super) note: String,
}

/// What keys mean now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    Watching,
    /// What to search for is typed.
    Asking(String),
    Help,
    /// A statement whole, from this line on.
    Whole(String, u16),
}

/// What the model cannot do itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    Quit,
    Find(String),
    Copy,
    Whole(Row),
}

impl Model {
    pub(super) fn new(title: String, at: Duration, speed: f64, idle: Option<Duration>, table: bool) -> Self {
        Self {
            title,
            at,
            playing: true,
            speed,
            idle,
            outline: None,
            table,
            selected: 0,
            mode: Mode::Watching,
            hits: Vec::new(),
            hit: None,
            note: String::new(),
        }
    }

    pub(super) fn rows(&self) -> &[Row] {
        self.outline.as_ref().map(|outline| outline.statements.as_slice()).unwrap_or_default()
    }

    pub(super) fn length(&self) -> Option<Duration> {
        self.outline.as_ref().map(|outline| outline.length)
    }

    /// So much time went by. `last`: when what is seen happened; `next`: when the next thing happens, none at the end.
    pub(super) fn pass(&mut self, time: Duration, last: Duration, next: Option<Duration>) {
        if !self.playing {
            return;
        }
        let Some(next) = next else {
            self.playing = false;
            self.go(last);
            return;
        };
        let time = Duration::try_from_secs_f64(time.as_secs_f64() * self.speed).unwrap_or(PAGE);
        let mut at = self.at.saturating_add(time);
        if let Some(idle) = self.idle
            && at < next
            && at > last.saturating_add(idle)
        {
            at = next;
        }
        self.go(at);
    }

    pub(super) fn read(&mut self, outline: Outline) {
        self.table &= !outline.statements.is_empty();
        if outline.more > 0 {
            self.note = format!("{} marks and statements more are not shown here: search finds them", outline.more);
        }
        self.outline = Some(outline);
        self.go(self.at);
    }

    /// These are the places where it was found.
    pub(super) fn found(&mut self, hits: Vec<Hit>) {
        self.note = if hits.is_empty() { "not found".to_owned() } else { String::new() };
        let first = hits.iter().position(|hit| hit.elapsed >= self.at).unwrap_or(0);
        self.hits = hits;
        self.show_hit(first);
    }

    /// This is a statement's whole text.
    pub(super) fn whole(&mut self, text: String) {
        self.mode = Mode::Whole(text, 0);
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Option<Wish> {
        self.note.clear();
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return matches!(key.code, KeyCode::Char('c' | 'd')).then_some(Wish::Quit);
        }
        match &mut self.mode {
            Mode::Watching => self.watching(key.code),
            Mode::Help => {
                self.mode = Mode::Watching;
                None
            }
            Mode::Asking(_) => self.asking(key.code),
            Mode::Whole(_, top) => {
                match key.code {
                    KeyCode::Up => *top = top.saturating_sub(1),
                    KeyCode::Down => *top = top.saturating_add(1),
                    KeyCode::PageUp => *top = top.saturating_sub(20),
                    KeyCode::PageDown => *top = top.saturating_add(20),
                    KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q') => self.mode = Mode::Watching,
                    _ => {}
                }
                None
            }
        }
    }

    fn asking(&mut self, code: KeyCode) -> Option<Wish> {
        let Mode::Asking(text) = &mut self.mode else { return None };
        match code {
            KeyCode::Char(c) if text.chars().count() < LONGEST => text.push(c),
            KeyCode::Backspace => drop(text.pop()),
            KeyCode::Esc => self.mode = Mode::Watching,
            KeyCode::Enter => {
                let wanted = std::mem::take(text);
                self.mode = Mode::Watching;
                if !wanted.is_empty() {
                    self.note = "searching …".to_owned();
                    return Some(Wish::Find(wanted));
                }
            }
            _ => {}
        }
        None
    }

    fn watching(&mut self, code: KeyCode) -> Option<Wish> {
        match code {
            KeyCode::Char('q') => return Some(Wish::Quit),
            KeyCode::Char('?') => self.mode = Mode::Help,
            KeyCode::Char('/') => self.mode = Mode::Asking(String::new()),
            KeyCode::Char('c') => return Some(Wish::Copy),
            KeyCode::Char(' ') => self.playing = !self.playing,
            KeyCode::Char('+' | '=') => self.speed = (self.speed * 2.0).min(*SPEEDS.end()),
            KeyCode::Char('-') => self.speed = (self.speed / 2.0).max(*SPEEDS.start()),
            KeyCode::Char('i') => self.idle = if self.idle.is_some() { None } else { Some(IDLE) },
            KeyCode::Char('t') if !self.rows().is_empty() => self.table = !self.table,
            KeyCode::Char('n') => self.next_hit(true),
            KeyCode::Char('N') => self.next_hit(false),
            KeyCode::Char(']') => self.next_mark(),
            KeyCode::Char('[') => self.last_mark(),
            KeyCode::Right => self.go(self.at.saturating_add(STEP)),
            KeyCode::Left => self.go(self.at.saturating_sub(STEP)),
            KeyCode::Home | KeyCode::Char('g') => self.go(Duration::ZERO),
            KeyCode::End | KeyCode::Char('G') => self.go(self.length().unwrap_or(self.at)),
            KeyCode::Up if self.table => self.select(self.selected.saturating_sub(1)),
            KeyCode::Down if self.table => self.select(self.selected.saturating_add(1)),
            KeyCode::PageUp if self.table => self.select(self.selected.saturating_sub(10)),
            KeyCode::PageDown if self.table => self.select(self.selected.saturating_add(10)),
            KeyCode::PageUp => self.go(self.at.saturating_sub(PAGE)),
            KeyCode::PageDown => self.go(self.at.saturating_add(PAGE)),
            KeyCode::Enter if self.table => return self.rows().get(self.selected).cloned().map(Wish::Whole),
            _ => {}
        }
        None
    }

    /// To this moment, or to the end if that is before it.
    fn go(&mut self, to: Duration) {
        self.at = self.length().map_or(to, |length| to.min(length));
        let at = self.at;
        if self.rows().get(self.selected).is_none_or(|row| row.elapsed != at) {
            self.selected = self.rows().partition_point(|row| row.elapsed <= at).saturating_sub(1);
        }
    }

    fn select(&mut self, row: usize) {
        let row = row.min(self.rows().len().saturating_sub(1));
        self.playing = false;
        self.selected = row;
        if let Some(elapsed) = self.rows().get(row).map(|row| row.elapsed) {
            self.at = elapsed;
        }
    }

    fn next_mark(&mut self) {
        let marks = self.outline.iter().flat_map(|outline| &outline.marks);
        let next = marks.map(|mark| mark.elapsed).find(|elapsed| *elapsed > self.at);
        self.go_to_mark(next);
    }

    fn last_mark(&mut self) {
        let from = if self.playing { self.at.saturating_sub(BEHIND) } else { self.at };
        let marks = self.outline.iter().flat_map(|outline| outline.marks.iter().rev());
        let last = marks.map(|mark| mark.elapsed).find(|elapsed| *elapsed < from);
        self.go_to_mark(last);
    }

    fn go_to_mark(&mut self, mark: Option<Duration>) {
        match mark {
            Some(elapsed) => self.go(elapsed),
            None if self.outline.is_none() => self.note = "the recording is still read for its marks".to_owned(),
            None => self.note = "there is no mark further on".to_owned(),
        }
    }

    fn next_hit(&mut self, forward: bool) {
        let Some(last) = self.hits.len().checked_sub(1) else {
            self.note = "nothing is found yet: / searches".to_owned();
            return;
        };
        let next = match (self.hit, forward) {
            (Some(hit), true) if hit < last => hit + 1,
            (Some(hit), false) if hit > 0 => hit - 1,
            (Some(_), false) => last,
            _ => 0,
        };
        self.show_hit(next);
    }

    /// Goes there, and waits there.
    fn show_hit(&mut self, number: usize) {
        let Some(hit) = self.hits.get(number) else { return };
        let (elapsed, all) = (hit.elapsed, self.hits.len());
        self.note = format!("{} of {all}: {}", number + 1, hit.line);
        self.hit = Some(number);
        self.playing = false;
        self.go(elapsed);
    }
}

/// `1:02:03`, or `0:07`.
pub(super) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}
