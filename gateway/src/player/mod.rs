//! Playing a recording in a terminal of one's own: back and forth, with a timeline, marks and a search.
//!
//! What always holds: what the session printed was drawn by the recorder's terminal emulator, and only its cells are drawn here, so
//! nothing of it reaches the auditor's terminal; what is copied out is plain text; the terminal is put back as it was however the
//! player ends. [`model`] is what keys do, [`draw`] what it looks like; both are pure. This file is the loop around them.

mod draw;
mod model;
mod screen;
#[cfg(test)]
mod tests;

use anyhow::Context as _;
use model::{Model, Wish};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use regex::{Regex, RegexBuilder};
use screen::{Screen, Signals};
use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};
use tidegate_recorder::{
    film::Film,
    outline::Outline,
    replay::Reel,
    search::{ALL, Hit, Search},
    verify::ReadError,
};

/// How to play.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) speed: f64,
    pub(crate) idle_limit: Option<Duration>,
    pub(crate) from: Duration,
    pub(crate) channel: Option<u32>,
    /// Where screens are copied to; else they are printed when the player ends.
    pub(crate) copy: Option<PathBuf>,
}

/// Bytes of a recording that are gone through before keys are looked at again.
const WAY: usize = 1 << 20;
/// While playing, so often something new is drawn.
const FRAME: Duration = Duration::from_millis(40);
/// Otherwise, so often it is looked whether something was found, or a signal came.
const REST: Duration = Duration::from_millis(200);
/// Places that a search shows.
const MOST_HITS: usize = 10_000;
/// A pattern is compiled to at most so many bytes.
const LARGEST_PATTERN: usize = 4 << 20;
/// Screens are kept for the end up to so many bytes.
const MOST_COPIED: usize = 1 << 20;
/// So many characters of a statement are shown.
const LONGEST: usize = 64 * 1024;

/// What readers beside the player found out.
enum News {
    Outline(Result<Outline, ReadError>),
    /// What was searched for, and where it is.
    Found(Regex, Result<Vec<Hit>, ReadError>),
    Whole(Result<String, ReadError>),
}

/// Until the person has seen enough.
pub(crate) fn play(reel: Reel, options: &Options) -> anyhow::Result<ExitCode> {
    let film = Film::new(reel.clone(), options.channel)?;
    let header = film.header();
    let title = format!(
        " {} of {} on {} ({}), {}",
        header.session, header.identity, header.target, header.access, header.start
    );
    let title = crate::text::plain(&title).into_owned();
    let table = header.protocol == "postgres";
    let model = Model::new(title, options.from, options.speed, options.idle_limit, table);
    let (news, heard) = channel();
    let mut player =
        Player { reel, film, model, news, sought: None, copied: String::new(), copy: options.copy.clone() };
    player.read_outline(options.channel);
    let signals = Signals::listen()?;
    let ended = {
        let mut screen = Screen::enter()?;
        player.run(&mut screen, &heard, &signals)
    };
    // The terminal is the person's again.
    crate::cmd::print(&player.copied)?;
    ended
}

struct Player {
    reel: Reel,
    film: Film,
    model: Model,
    news: Sender<News>,
    sought: Option<Regex>,
    /// Screens, for the end.
    copied: String,
    copy: Option<PathBuf>,
}

impl Player {
    fn run(&mut self, screen: &mut Screen, heard: &Receiver<News>, signals: &Signals) -> anyhow::Result<ExitCode> {
        let mut then = Instant::now();
        loop {
            let arrived = self.film.towards(self.model.at, WAY)?;
            screen.draw(|frame| draw::draw(frame, &self.model, self.film.stage(), arrived, self.sought.as_ref()))?;
            let wait = match (arrived, self.model.playing) {
                (false, _) => Duration::ZERO,
                (true, true) => FRAME,
                (true, false) => REST,
            };
            if event::poll(wait)? && self.take(&event::read()?, screen)? {
                return Ok(ExitCode::SUCCESS);
            }
            if let Some(code) = signals.came() {
                return Ok(code);
            }
            heard.try_iter().for_each(|news| self.hear(news));
            let now = Instant::now();
            if arrived {
                self.model.pass(now.saturating_duration_since(then), self.film.at(), self.film.next_at());
            }
            then = now;
        }
    }

    /// True: enough was seen.
    fn take(&mut self, event: &Event, screen: &mut Screen) -> anyhow::Result<bool> {
        match event {
            Event::Resize(..) => screen.fit()?,
            Event::Key(key) if key.kind != KeyEventKind::Release => match self.model.key(*key) {
                Some(Wish::Quit) => return Ok(true),
                Some(Wish::Find(pattern)) => self.find(&pattern),
                Some(Wish::Whole(row)) => {
                    let reel = self.reel.clone();
                    self.aside(move || News::Whole(reel.open().and_then(|replay| Outline::whole(replay, &row))));
                }
                Some(Wish::Copy) => self.copy_out(),
                None => {}
            },
            _ => {}
        }
        Ok(false)
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Outline(Ok(outline)) => self.model.read(outline),
            News::Found(pattern, Ok(hits)) => {
                self.sought = Some(pattern);
                self.model.found(hits);
            }
            News::Whole(Ok(text)) => self.model.whole(text.chars().take(LONGEST).collect()),
            News::Outline(Err(error)) | News::Found(_, Err(error)) | News::Whole(Err(error)) => {
                self.model.note = crate::text::plain(&error.to_string()).into_owned();
            }
        }
    }

    /// Reads beside the player, which goes on.
    fn aside(&self, read: impl FnOnce() -> News + Send + 'static) {
        let news = self.news.clone();
        // Nobody hears it any more once the player has ended.
        thread::spawn(move || drop(news.send(read())));
    }

    fn read_outline(&self, channel: Option<u32>) {
        let reel = self.reel.clone();
        self.aside(move || News::Outline(reel.open().and_then(|replay| Outline::read(replay, channel))));
    }

    /// Small letters find large ones, too, unless there is a large one among them.
    fn find(&mut self, pattern: &str) {
        let small = !pattern.chars().any(char::is_uppercase);
        match RegexBuilder::new(pattern).case_insensitive(small).size_limit(LARGEST_PATTERN).build() {
            Ok(pattern) => {
                let reel = self.reel.clone();
                self.aside(move || {
                    let matches = |line: &str| pattern.is_match(line);
                    let hits = reel
                        .open()
                        .and_then(|replay| Search::new(replay, ALL.into(), matches).take(MOST_HITS).collect());
                    News::Found(pattern, hits)
                });
            }
            Err(_) => self.model.note = "that is no regular expression".to_owned(),
        }
    }

    fn copy_out(&mut self) {
        let stage = self.film.stage();
        let text = stage.picture().map(|picture| picture.text());
        let text = text.unwrap_or_else(|| stage.lines().iter().cloned().collect::<Vec<_>>().join("\n"));
        let copy = format!("--- {}\n{text}\n", model::clock(self.film.at()));
        self.model.note = match &self.copy {
            Some(file) => match append(file, &copy) {
                Ok(()) => "the screen was copied into the file".to_owned(),
                Err(error) => format!("the screen was not copied: {error:#}"),
            },
            None if self.copied.len() + copy.len() > MOST_COPIED => {
                "too much was copied already: name a file with --copy".to_owned()
            }
            None => {
                self.copied.push_str(&copy);
                "the screen is printed when the player ends".to_owned()
            }
        };
    }
}

/// What was in a session is not for everybody on this host.
fn append(file: &Path, text: &str) -> anyhow::Result<()> {
    let options = OpenOptions::new().append(true).create(true).mode(0o600).to_owned();
    let mut out = options.open(file).with_context(|| file.display().to_string())?;
    Ok(out.write_all(text.as_bytes())?)
}
