//! Playing a recording in a terminal: what to write, and how long to wait before it. Pure: it neither sleeps nor writes.
//!
//! What a [`Step`] writes was made in [`shown`](crate::shown), none of it is passed through from the recording.

use crate::{
    replay::{Replay, What},
    shown::Shown,
    verify::ReadError,
};
use std::{fmt, fs::File, io::BufReader, io::Read, time::Duration};

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

/// An iterator over the steps of a recording.
pub struct Player<R = BufReader<File>> {
    replay: Replay<R>,
    settings: Settings,
    /// The recording's time at the last step.
    shown: Duration,
    screen: Shown,
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
        let screen = Shown::new(settings.view, settings.channel);
        Self { replay, settings, shown: Duration::ZERO, screen, arrived: false }
    }

    /// What is to be seen first, when playing begins in the midst of a recording.
    fn arrive(&mut self, shown: String, elapsed: Duration) -> String {
        self.arrived = true;
        if self.settings.from.is_zero() {
            return shown;
        }
        self.shown = elapsed;
        self.screen.whole().unwrap_or(shown)
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
            let mut shown = self.screen.show(&moment);
            let last = matches!(moment.what, What::End | What::Truncated { .. });
            if moment.elapsed < self.settings.from && !last {
                self.screen.forget_line();
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
