//! A recording in which one can go back and forth.
//!
//! A recording is read from its beginning, so going back is reading it again. What always holds: that takes no more memory than
//! playing does; and nobody waits for it, because [`Film::towards`] goes a bounded way at a time.

use crate::{
    Event, Header,
    replay::{Moment, Reel, Replay, What},
    stage::Stage,
    verify::ReadError,
};
use std::{fmt, time::Duration};

/// What a moment counts beside its bytes, on the way.
const EACH: usize = 256;

/// See the module.
pub struct Film {
    reel: Reel,
    replay: Replay,
    channel: Option<u32>,
    stage: Stage,
    /// Read, and not seen yet.
    next: Option<Moment>,
    /// Of what was seen, the latest.
    at: Duration,
    end: Option<End>,
}

/// How a recording ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is whole.
    Whole,
    /// It breaks off after this frame.
    Truncated(u64),
}

impl fmt::Debug for Film {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Film").field("at", &self.at).field("end", &self.end).finish_non_exhaustive()
    }
}

impl Film {
    /// At its beginning. `channel`: whose terminal to show; else the first that has one.
    pub fn new(reel: Reel, channel: Option<u32>) -> Result<Self, ReadError> {
        let replay = reel.open()?;
        let stage = Stage::new(channel);
        let mut film = Self { reel, replay, channel, stage, next: None, at: Duration::ZERO, end: None };
        film.read()?;
        Ok(film)
    }

    /// What the recording says about itself.
    pub fn header(&self) -> &Header {
        self.replay.header()
    }

    /// What is to be seen.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// When what is seen happened, since the beginning.
    pub fn at(&self) -> Duration {
        self.at
    }

    /// When the next thing happens; none at the end.
    pub fn next_at(&self) -> Option<Duration> {
        self.next.as_ref().map(|moment| moment.elapsed)
    }

    /// How it ends, once that was seen.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Goes on to this moment, or back to it, past so many bytes at most. True: everything up to it was seen, and no more.
    pub fn towards(&mut self, moment: Duration, most: usize) -> Result<bool, ReadError> {
        if moment < self.at {
            *self = Self::new(self.reel.clone(), self.channel)?;
        }
        let mut passed = 0;
        while self.next.as_ref().is_some_and(|next| next.elapsed <= moment) {
            if passed >= most {
                return Ok(false);
            }
            if let Some(next) = self.next.take() {
                passed += EACH + if let What::Event(Event::Data { data, .. }) = &next.what { data.len() } else { 0 };
                self.see(&next);
            }
            self.read()?;
        }
        Ok(true)
    }

    fn see(&mut self, moment: &Moment) {
        self.at = self.at.max(moment.elapsed);
        match moment.what {
            What::End => self.end = Some(End::Whole),
            What::Truncated { after } => self.end = Some(End::Truncated(after)),
            _ => {}
        }
        self.stage.take(moment);
    }

    fn read(&mut self) -> Result<(), ReadError> {
        self.next = self.replay.next().transpose()?;
        Ok(())
    }
}
