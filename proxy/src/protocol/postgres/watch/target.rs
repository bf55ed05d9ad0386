//! What the target's messages mean.

use super::{
    super::fields::{Fields, bounded},
    Found, MOST_OF_A_MESSAGE, MOST_OF_A_NAME, Watch, mask, rows,
};
use tidegate_grants::Results;
use tidegate_recorder::{Event, event::Ended};

/// What the target's tags and its ReadyForQuery say of transactions.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// Of the last ReadyForQuery.
    status: Option<u8>,
    /// One began since then,
    began: bool,
    /// and one ended so.
    ended: Option<Ended>,
    /// The extended protocol has been answered since then: what was executed up to the Sync is over.
    batch: bool,
}

impl Transaction {
    fn tagged(&mut self, tag: &str) {
        match tag {
            "BEGIN" | "START TRANSACTION" => (self.began, self.ended) = (true, None),
            "COMMIT" => self.ended = Some(Ended::Committed),
            // Also back to a savepoint: then there is still one at ReadyForQuery.
            "ROLLBACK" => self.ended = Some(Ended::RolledBack),
            "PREPARE TRANSACTION" => self.ended = Some(Ended::Prepared),
            _ => {}
        }
    }

    /// ReadyForQuery: what has changed.
    fn ready(&mut self, status: u8) -> Option<Event> {
        let before = self.status.replace(status);
        let began = std::mem::take(&mut self.began);
        let was = began || matches!(before, Some(b'T' | b'E'));
        let over = |ended: &Ended| was && (status == b'I' || *ended != Ended::RolledBack);
        let ended = self.ended.take().filter(over);
        let batch = std::mem::take(&mut self.batch);
        (before != Some(status) || ended.is_some() || batch)
            .then(|| Event::Transaction { status: char::from(status), ended })
    }
}

impl Watch {
    pub(super) fn of_target(&mut self, tag: u8, mut body: Fields<'_>) {
        match tag {
            b'C' => {
                let tag = bounded(body.text(), MOST_OF_A_NAME);
                self.transaction.tagged(&tag);
                self.completed(b'C', tag);
            }
            b's' => {
                let rows = self.rows_now.take();
                self.completed(tag, "(portal suspended)".to_owned());
                self.suspended = rows;
            }
            b'I' => self.completed(tag, String::new()),
            b'V' => self.completed(tag, "(the function has returned)".to_owned()),
            b'1' | b'2' | b'3' | b'T' | b'n' | b'G' | b'H' => {
                self.transaction.batch |= tag == b'2';
                let mut talk = self.talk.lock();
                if tag == b'T' && self.keeps.results != Results::None {
                    let fields = rows::fields(body);
                    self.described = talk.describes_rows(&fields).then_some(fields);
                    self.rows_now = None;
                }
                let (_, note) = talk.answered(tag);
                drop(talk);
                self.note(note);
            }
            b't' => {
                let types = (0..body.u16().unwrap_or(0)).map_while(|_| body.u32()).collect();
                let mut talk = self.talk.lock();
                talk.described(types);
                let (_, note) = talk.answered(tag);
                drop(talk);
                self.note(note);
            }
            b'E' => {
                self.rows = 0;
                (self.rows_now, self.described) = (None, None);
                let mut talk = self.talk.lock();
                let hidden = talk.hides_current();
                let (of, note) = talk.failed();
                drop(talk);
                self.note(note);
                self.found.push(Found::Event(reported(body, of, hidden)));
            }
            b'N' => {
                let mut talk = self.talk.lock();
                let (of, hidden) = (talk.current(), talk.hides_current());
                drop(talk);
                self.found.push(Found::Event(reported(body, of, hidden)));
            }
            b'A' => {
                let hidden = !self.keeps.masks.is_empty();
                self.found.push(Found::Event(notified(body, hidden)));
            }
            b'c' => self.copy_end(),
            b'Z' => {
                let Some(status) = body.byte() else { return };
                (self.rows_now, self.described) = (None, None);
                self.talk.lock().ready(status == b'I');
                self.found.extend(self.transaction.ready(status).map(Found::Event));
            }
            _ => {}
        }
    }

    fn completed(&mut self, answer: u8, tag: String) {
        let mut talk = self.talk.lock();
        let (of, note) = talk.answered(answer);
        // A name that SQL gives or takes back is not seen in the protocol.
        let upto = of.unwrap_or(u64::MAX);
        match tag.as_str() {
            "PREPARE" | "DEALLOCATE ALL" | "DISCARD ALL" => talk.defined.renamed(upto),
            "DECLARE CURSOR" => talk.defined.end_portals(upto),
            _ => {}
        }
        drop(talk);
        self.note(note);
        (self.rows_now, self.described) = (None, None);
        let (rows, suspended) = (std::mem::take(&mut self.rows), answer == b's');
        self.found.push(Found::Event(Event::Completed { tag, rows, of, suspended }));
    }
}

/// ErrorResponse or NoticeResponse (chapter 55.8). `V` is the severity untranslated.
fn reported(mut body: Fields<'_>, of: Option<u64>, hidden: bool) -> Event {
    let (mut severity, mut code, mut message) = (String::new(), String::new(), String::new());
    while let Some(field) = body.byte().filter(|field| *field != 0) {
        let text = body.text();
        match field {
            b'S' if severity.is_empty() => severity = bounded(text, MOST_OF_A_NAME),
            b'V' => severity = bounded(text, MOST_OF_A_NAME),
            b'C' => code = bounded(text, MOST_OF_A_NAME),
            b'M' => message = bounded(text, MOST_OF_A_MESSAGE),
            _ => {}
        }
    }
    if hidden {
        message = mask::MASKED.to_owned();
    }
    Event::Reported { severity, code, message, of }
}

/// NotificationResponse (chapter 55.7).
fn notified(mut body: Fields<'_>, hidden: bool) -> Event {
    let process = body.u32().unwrap_or(0);
    let (name, payload) = (bounded(body.text(), MOST_OF_A_NAME), bounded(body.text(), MOST_OF_A_MESSAGE));
    let payload = if hidden { mask::MASKED.to_owned() } else { payload };
    Event::Notified { name, payload, process }
}
