//! What a live session showed last, in memory, for whoever watches it.
//!
//! The gateway cannot read what it wrote, so who watches sees what is recorded beside its sealing. What always holds: an event is
//! here only after its frame was written; what the person typed never is; memory is bounded, whatever a session does; and
//! nobody who records waits for one who watches: who is too slow goes on from what is here, and is told so.

use crate::{
    Event, Keep, Stream,
    entered::{Entered, Line},
    inert,
};
use bytes::Bytes;
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// So many bytes are kept: several screens.
const MOST: usize = 64 * 1024;
/// What an event counts beside its text.
const EACH: usize = 128;
/// Longer texts are cut. (The recording has them whole.)
const LONGEST: usize = 4 * 1024;
/// Parameters of a statement past this are left out.
const MOST_PARAMETERS: usize = 64;
/// Channels whose beginning is remembered, open at once.
const MOST_CHANNELS: usize = 256;
/// So much of the last command is shown in lists.
const SHOWN: usize = 120;

/// Something that happened, for who watches.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) at: Timestamp,
    pub(crate) elapsed: Duration,
    pub(crate) event: Event,
}

/// What somebody who watches has not seen yet.
#[derive(Debug)]
pub(crate) struct News {
    /// More went by than is here: begin anew, from what channels were then.
    pub(crate) anew: bool,
    pub(crate) seen: Vec<Seen>,
    /// What comes after these.
    pub(crate) next: u64,
    /// Nothing more will come.
    pub(crate) over: bool,
}

/// What lists say of a live session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glance {
    /// So long nothing has come or gone.
    pub idle: Duration,
    /// The last statement, command or operation on a file, inert and cut, where there was one; in a terminal the last line on which
    /// Enter was pressed, as it was seen.
    pub last: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Recent {
    began: Instant,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    /// How many events went by that are here no more.
    gone: u64,
    seen: VecDeque<Seen>,
    bytes: usize,
    /// What channels were when the first that is here happened.
    channels: BTreeMap<u32, Vec<Seen>>,
    /// Channels whose bytes other events tell, by now.
    decoded: BTreeSet<u32>,
    moved: Instant,
    /// What was done last, and when.
    last: Option<(Duration, String)>,
    /// The line of the first terminal that is open.
    line: Option<Line>,
    /// What was entered last in one that was closed.
    left: Option<Entered>,
    over: bool,
    waiting: Vec<Waker>,
}

impl Default for Recent {
    fn default() -> Self {
        let began = Instant::now();
        let held = Held {
            gone: 0,
            seen: VecDeque::new(),
            bytes: 0,
            channels: BTreeMap::new(),
            decoded: BTreeSet::new(),
            moved: began,
            last: None,
            line: None,
            left: None,
            over: false,
            waiting: Vec::new(),
        };
        Self { began, held: Mutex::new(held) }
    }
}

impl Recent {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These were recorded; `moved`: and bytes may go on.
    pub(crate) fn take(&self, events: Vec<Event>, at: Timestamp, moved: bool) {
        let (elapsed, mut held) = (self.began.elapsed(), self.lock());
        if moved {
            held.moved = Instant::now();
        }
        for event in events {
            held.follow(&event, elapsed);
            if let Some(event) = held.shown(event, elapsed) {
                held.add(Seen { at, elapsed, event });
            }
        }
        held.wake();
    }

    /// Nothing more will come.
    pub(crate) fn end(&self) {
        let mut held = self.lock();
        held.over = true;
        held.wake();
    }

    pub(crate) fn glance(&self) -> Glance {
        let entered = self.lock().entered();
        // Drawn while nobody waits.
        let entered = entered.as_ref().map(|entered| (entered.elapsed, entered.drawn()));
        let mut held = self.lock();
        if let Some((elapsed, line)) = entered {
            held.did(elapsed, &line);
        }
        Glance { idle: held.moved.elapsed(), last: held.last.as_ref().map(|(_, line)| line.clone()) }
    }

    /// What came after these; waits while there is nothing. `None`: from the beginning of what is here.
    pub(crate) fn poll_after(&self, after: Option<u64>, context: &mut Context<'_>) -> Poll<News> {
        let mut held = self.lock();
        let next = held.gone + held.seen.len() as u64;
        let anew = after.is_none_or(|after| after < held.gone);
        if !anew && !held.over && after == Some(next) {
            if !held.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                held.waiting.push(context.waker().clone());
            }
            return Poll::Pending;
        }
        let known = if anew { 0 } else { after.unwrap_or_default().saturating_sub(held.gone) };
        let rest = held.seen.iter().skip(usize::try_from(known).unwrap_or(usize::MAX)).cloned();
        let seen = if anew { held.channels.values().flatten().cloned().chain(rest).collect() } else { rest.collect() };
        Poll::Ready(News { anew, seen, next, over: held.over })
    }
}

impl Held {
    /// What becomes of the line that is being entered.
    fn follow(&mut self, event: &Event, elapsed: Duration) {
        let line = self.line.as_mut();
        match event {
            Event::Opened { channel, terminal: Some((_, columns, _)), .. } if line.is_none() => {
                self.line = Some(Line::new(*channel, *columns));
            }
            Event::Resized { channel, columns, .. } => {
                line.filter(|line| line.is_of(*channel)).into_iter().for_each(|line| line.resize(*columns));
            }
            Event::Data { channel, stream, data, .. } => {
                let Some(line) = line.filter(|line| line.is_of(*channel)) else { return };
                match stream {
                    Stream::Stdin => line.typed(elapsed),
                    Stream::Stdout => line.seen(data, elapsed),
                    _ => {}
                }
            }
            Event::Closed { channel, .. } if line.is_some_and(|line| line.is_of(*channel)) => {
                self.left = self.entered();
                self.line = None;
            }
            _ => {}
        }
    }

    /// The line that was entered last, if nobody has asked for it yet.
    fn entered(&mut self) -> Option<Entered> {
        let newest = self.line.as_mut().and_then(Line::take);
        newest.or_else(|| self.left.take())
    }

    /// What of it may be seen, with a copy of its bytes: what they are a part of could be much larger.
    fn shown(&mut self, event: Event, elapsed: Duration) -> Option<Event> {
        match event {
            Event::Data { stream: Stream::Stdin, .. } | Event::Data { keep: Keep::Count, .. } => None,
            Event::Columns { .. } | Event::Row { .. } => None,
            Event::Data { channel, stream: Stream::Stdout, .. } if self.decoded.contains(&channel) => None,
            Event::Data { channel, stream, keep, data } => {
                let last = data.get(data.len().saturating_sub(MOST / 2)..).unwrap_or_default();
                Some(Event::Data { channel, stream, keep, data: Bytes::copy_from_slice(last) })
            }
            mut event => {
                shorten(&mut event);
                self.note(&event, elapsed);
                Some(event)
            }
        }
    }

    fn note(&mut self, event: &Event, elapsed: Duration) {
        match event {
            Event::Decoded { channel, .. } => drop(self.decoded.insert(*channel)),
            Event::Closed { channel, .. } => drop(self.decoded.remove(channel)),
            _ => {}
        }
        let last = match event {
            Event::Statement { text, .. } if !text.trim().is_empty() => text.clone(),
            Event::Opened { command: Some(command), what, .. } if what != "sql" => command.clone(),
            Event::File(file) => format!("{} {}", file.op, file.path),
            _ => return,
        };
        self.did(elapsed, &last);
    }

    /// What comes earlier than what is known is not the last.
    fn did(&mut self, elapsed: Duration, what: &str) {
        if what.trim().is_empty() || self.last.as_ref().is_some_and(|(when, _)| *when > elapsed) {
            return;
        }
        let line = inert::line(what.split_whitespace().collect::<Vec<_>>().join(" ").as_str());
        let cut = line.chars().count() > SHOWN;
        let line = if cut { line.chars().take(SHOWN).chain(['…']).collect() } else { line };
        self.last = Some((elapsed, line));
    }

    fn add(&mut self, seen: Seen) {
        self.bytes += weight(&seen.event);
        self.seen.push_back(seen);
        while self.bytes > MOST
            && let Some(first) = self.seen.pop_front()
        {
            self.bytes -= weight(&first.event);
            self.gone += 1;
            self.leave(first);
        }
    }

    /// One that goes: what it says of its channel stays.
    fn leave(&mut self, seen: Seen) {
        match &seen.event {
            Event::Opened { channel, .. } if self.channels.len() < MOST_CHANNELS => {
                self.channels.insert(*channel, vec![seen]);
            }
            Event::Decoded { channel, .. } => {
                if let Some(known) = self.channels.get_mut(channel).filter(|known| known.len() == 1) {
                    known.push(seen);
                }
            }
            Event::Resized { channel, columns, rows } => {
                let opened = self.channels.get_mut(channel).and_then(|known| known.first_mut());
                if let Some(Event::Opened { terminal: Some((_, width, height)), .. }) =
                    opened.map(|opened| &mut opened.event)
                {
                    (*width, *height) = (*columns, *rows);
                }
            }
            Event::Closed { channel, .. } => drop(self.channels.remove(channel)),
            _ => {}
        }
    }

    fn wake(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

fn weight(event: &Event) -> usize {
    EACH + match event {
        Event::Data { data, .. } => data.len(),
        Event::Statement { text, .. } | Event::Said { text } => text.len(),
        Event::Bound { parameters, .. } => parameters.len() * LONGEST / 8,
        Event::Reported { message, .. } => message.len(),
        Event::Notified { payload, .. } => payload.len(),
        Event::Opened { command, .. } => command.as_ref().map_or(0, String::len),
        Event::File(file) => file.path.len() + file.to.as_ref().map_or(0, String::len),
        _ => 0,
    }
}

/// Texts as long as a person reads them.
fn shorten(event: &mut Event) {
    match event {
        Event::Statement { text, prepared, .. } => {
            cut(text, LONGEST);
            prepared.iter_mut().for_each(|name| cut(name, EACH));
        }
        Event::Said { text } => cut(text, LONGEST),
        Event::Bound { parameters, types, prepared, portal, .. } => {
            parameters.truncate(MOST_PARAMETERS);
            types.truncate(MOST_PARAMETERS);
            parameters
                .iter_mut()
                .for_each(|value| value.text_mut().into_iter().for_each(|text| cut(text, LONGEST / 8)));
            [prepared, portal].into_iter().for_each(|name| cut(name, EACH));
        }
        Event::Executed { portal, .. } => cut(portal, EACH),
        Event::Completed { tag, .. } => cut(tag, EACH),
        Event::Reported { message, severity, code, .. } => {
            cut(message, LONGEST);
            [severity, code].into_iter().for_each(|text| cut(text, EACH));
        }
        Event::Notified { name, payload, .. } => {
            cut(payload, LONGEST);
            cut(name, EACH);
        }
        Event::Opened { command, environment, .. } => {
            environment.clear();
            command.iter_mut().for_each(|command| cut(command, LONGEST));
        }
        Event::File(file) => {
            cut(&mut file.path, LONGEST);
            file.to.iter_mut().for_each(|path| cut(path, LONGEST));
            file.ranges = None;
        }
        _ => {}
    }
}

/// At the end of a character, and so that it shows.
fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;
    use crate::event::Parameter;
    use proptest::prelude::*;

    fn data(text: &[u8]) -> Event {
        let data = Bytes::copy_from_slice(text);
        Event::Data { channel: 1, stream: Stream::Stdout, keep: Keep::Whole, data }
    }

    fn opened(columns: u32) -> Event {
        Event::Opened {
            channel: 1,
            what: "shell".to_owned(),
            command: None,
            terminal: Some(("xterm".to_owned(), columns, 24)),
            environment: BTreeMap::new(),
            connection: None,
            reached: None,
        }
    }

    fn news(recent: &Recent, after: Option<u64>) -> Option<News> {
        match recent.poll_after(after, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(news) => Some(news),
            Poll::Pending => None,
        }
    }

    #[test]
    fn who_is_too_slow_begins_anew_with_the_channel_as_it_was_then() {
        let recent = Recent::default();
        let now = Timestamp::UNIX_EPOCH;
        recent.take(vec![opened(80), Event::Resized { channel: 1, columns: 132, rows: 24 }], now, false);
        let first = news(&recent, None).unwrap();
        assert_eq!((first.anew, first.seen.len(), first.next), (true, 2, 2));
        assert!(news(&recent, Some(2)).is_none(), "nothing is new, and that is waited for");
        recent.take(vec![data(b"a")], now, true);
        let second = news(&recent, Some(2)).unwrap();
        assert_eq!((second.anew, second.seen.len(), second.next), (false, 1, 3));
        for _ in 0..100 {
            recent.take(vec![data(&[b'x'; 4096])], now, true);
        }
        let late = news(&recent, Some(3)).unwrap();
        assert!(late.anew && late.seen.len() < 20 && late.next == 103, "{}", late.seen.len());
        assert_eq!(late.seen.first().unwrap().event, opened(132));
        recent.take(vec![Event::Closed { channel: 1, up: 0, down: 0 }], now, false);
        recent.end();
        assert!(news(&recent, Some(104)).unwrap().over);
    }

    #[test]
    fn what_was_typed_is_never_here_and_lists_show_the_last_statement() {
        let recent = Recent::default();
        let typed =
            Event::Data { channel: 1, stream: Stream::Stdin, keep: Keep::Whole, data: Bytes::from_static(b"secret") };
        let sql = |text: &str| Event::Statement { text: text.to_owned(), prepared: None, number: None, masked: false };
        recent.take(vec![typed, sql("select\n  1\x1b[2J")], Timestamp::UNIX_EPOCH, true);
        assert_eq!(news(&recent, None).unwrap().seen.len(), 1);
        assert_eq!(recent.glance().last.as_deref(), Some("select 1\\x1b[2J"));
    }

    #[test]
    fn of_a_shell_lists_show_the_line_that_was_entered_last_also_when_much_came_since() {
        let (recent, now) = (Recent::default(), Timestamp::UNIX_EPOCH);
        let typed = |text: &'static str| {
            let data = Bytes::from_static(text.as_bytes());
            Event::Data { channel: 1, stream: Stream::Stdin, keep: Keep::Whole, data }
        };
        recent.take(vec![opened(80), data(b"$ ")], now, true);
        assert_eq!(recent.glance().last, None);
        recent.take(vec![typed("make\r"), data(b"make\r\n")], now, true);
        for _ in 0..100 {
            recent.take(vec![data(&[b'x'; 4096])], now, true);
        }
        assert_eq!(recent.glance().last.as_deref(), Some("$ make"));
        let sql = Event::Statement { text: "select 1".to_owned(), prepared: None, number: None, masked: false };
        recent.take(vec![sql], now, true);
        assert_eq!(recent.glance().last.as_deref(), Some("select 1"));
        recent.take(vec![data(b"\r\n$ "), typed("exit\r"), data(b"exit\r\n")], now, true);
        recent.take(vec![Event::Closed { channel: 1, up: 0, down: 0 }], now, false);
        assert_eq!(recent.glance().last.as_deref(), Some("$ exit"), "also when its terminal is closed");
    }

    proptest! {
        #[test]
        fn whatever_a_session_does_its_tail_is_bounded(sizes in proptest::collection::vec(0..200_000_usize, 0..60)) {
            let recent = Recent::default();
            for (nth, size) in sizes.iter().enumerate() {
                let text = "é".repeat(*size / 2);
                let value = Parameter::Text(text.clone());
                let event = match nth % 4 {
                    0 => data(&vec![b'a'; *size]),
                    1 => Event::Statement { text, prepared: None, number: None, masked: false },
                    2 => Event::Reported { severity: text.clone(), code: text.clone(), message: text, of: None },
                    _ => Event::Bound {
                        prepared: text.clone(), portal: text, parameters: vec![value; *size / 64], number: None,
                        statement: None, types: Vec::new(),
                    },
                };
                recent.take(vec![event], Timestamp::UNIX_EPOCH, true);
            }
            let held = recent.lock();
            prop_assert!(held.bytes <= MOST && held.seen.len() <= MOST / EACH);
            let json: usize = held.seen.iter().map(|seen| match &seen.event {
                Event::Data { data, .. } => data.len(),
                event => serde_json::to_string(event).unwrap().len(),
            }).sum();
            prop_assert!(json <= 4 * MOST, "{json}");
        }
    }
}
