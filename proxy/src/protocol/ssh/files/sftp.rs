//! One SFTP connection, both ways: what is asked for is judged and told, and what is forbidden never reaches the target.
//!
//! What always holds:
//!
//! - **Whole packets.** Bytes go on only as packets that were understood to their last byte, so the target's server sees
//!   exactly the requests that were judged; and an answer of ours comes only between two packets of the target.
//! - **Version 3.** A client that offers more is passed on as offering 3, and the target has to agree before anything else
//!   goes on: the same bytes mean other things in other versions.
//! - **Each id once, each handle only while it is open.** An answer belongs to one request, so a path is never credited with
//!   the content of another. A handle is nothing from the moment its CLOSE goes on until the target gives it away again: who
//!   guesses the next one is answered here. And a file is told only when all that was asked of it is answered.
//! - **Bounded.** Requests that wait for an answer, open files, and the names of both.

use super::{
    Rule, Step, path_text,
    request::{About, Act, Need, Request, Ways},
    transfer::{Allowance, Transfer},
    wire::{self, Fields, Malformed, Packets, reason, status},
};
use crate::refusal::Refusal;
use bytes::{Bytes, BytesMut};
use std::collections::{HashMap, VecDeque};
use tidegate_recorder::FileEvent;

/// Requests that wait for their answer, and open files and folders, each.
const MOST: usize = 4096;
/// Bytes of names that both hold.
const MOST_NAMES: usize = 1 << 20;
/// Sizes of files that were asked for and may be read next.
const MOST_SIZES: usize = 32;

const VERSION: u32 = 3;
const PERMISSION_DENIED: u32 = 3;
const FAILURE: u32 = 4;
const UNSUPPORTED: u32 = 8;

/// How far the two have come in agreeing on a version (section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Greeting {
    Nothing,
    Asked,
    Agreed,
}

/// A request on its way.
#[derive(Debug)]
struct Pending {
    /// What the recording says if it fails.
    told: Option<FileEvent>,
    wants: Wants,
    weight: usize,
}

/// What an answer is to be used for. Numbers are those of open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    File(Ways),
    Folder,
    Close(u64),
    Read { file: u64, offset: u64, length: u32 },
    Write { file: u64, bytes: u64 },
    Resize(u64),
    SizeOfOpen(u64),
    SizeOfPath,
    Nothing,
    Whatever,
}

/// A handle that the target has given.
#[derive(Debug)]
struct Open {
    path: String,
    /// Requests that are on their way, and count for what is told of it.
    flying: usize,
    /// It is closed: why not well.
    closed: Option<Option<String>>,
    /// `None`: a folder, or what an unknown extension opened.
    file: Option<File>,
}

impl Wants {
    fn file(self) -> Option<u64> {
        match self {
            Self::Close(file)
            | Self::Read { file, .. }
            | Self::Write { file, .. }
            | Self::Resize(file)
            | Self::SizeOfOpen(file) => Some(file),
            Self::File(_) | Self::Folder | Self::SizeOfPath | Self::Nothing | Self::Whatever => None,
        }
    }
}

#[derive(Debug)]
struct File {
    reads: Transfer,
    writes: Transfer,
    /// It was emptied or newly made.
    emptied: bool,
    /// Its size as our client's own writes left it, if that can be known.
    written: Option<u64>,
    /// Its size as the target said.
    said: Option<u64>,
    /// The first byte at which the target said that there are no more.
    end: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Sftp {
    rule: Rule,
    up: Packets,
    down: Packets,
    greeting: Greeting,
    pending: HashMap<u32, Pending>,
    handles: HashMap<Box<[u8]>, u64>,
    open: HashMap<u64, Open>,
    /// The number of the file that is opened next.
    next: u64,
    /// Bytes of names in `pending` and `open`.
    names: usize,
    /// Of paths that were asked about last.
    sizes: VecDeque<(String, u64)>,
    allowance: Allowance,
}

impl Sftp {
    pub(super) fn new(rule: Rule) -> Self {
        Self {
            rule,
            up: Packets::default(),
            down: Packets::default(),
            greeting: Greeting::Nothing,
            pending: HashMap::new(),
            handles: HashMap::new(),
            open: HashMap::new(),
            next: 0,
            names: 0,
            sizes: VecDeque::new(),
            allowance: Allowance::new(),
        }
    }

    /// From the client.
    pub(super) fn up(&mut self, piece: Bytes) -> Step {
        self.up.add(piece);
        let (mut step, mut on) = (Step::default(), BytesMut::new());
        while !self.up.is_empty() {
            if self.greeting == Greeting::Asked {
                step.wait = true;
                break;
            }
            let packet = match self.up.next() {
                Ok(Some(packet)) => packet,
                Ok(None) => break,
                Err(malformed) => {
                    step.over = Some(over("your client", malformed));
                    break;
                }
            };
            match self.request(packet, &mut step) {
                Ok(Some(packet)) => on.unsplit(packet),
                Ok(None) => {}
                Err(malformed) => {
                    step.over = Some(over("your client", malformed));
                    break;
                }
            }
        }
        Step { on: on.freeze(), ..step }
    }

    /// From the target.
    pub(super) fn down(&mut self, piece: Bytes) -> Step {
        self.down.add(piece);
        let (mut step, mut on) = (Step::default(), BytesMut::new());
        loop {
            let taken = self
                .down
                .next()
                .and_then(|packet| packet.map(|packet| self.answer(&packet, &mut step).map(|()| packet)).transpose());
            match taken {
                Ok(Some(packet)) => on.unsplit(packet),
                Ok(None) => break,
                Err(malformed) => {
                    let refusal = over("the target", malformed);
                    step.over = Some(match self.greeting {
                        Greeting::Agreed => refusal,
                        // What makes OpenSSH's client say "Received message too long".
                        _ => {
                            refusal.next("do the login's start-up files (.bashrc) print something? They must not, here")
                        }
                    });
                    break;
                }
            }
        }
        Step { on: on.freeze(), ..step }
    }

    /// The channel is over: what is left to tell.
    pub(super) fn end(&mut self) -> Vec<FileEvent> {
        let mut events: Vec<FileEvent> = std::mem::take(&mut self.pending)
            .into_values()
            .filter_map(|pending| pending.told)
            .map(|told| FileEvent { fault: Some("unanswered".to_owned()), ..told })
            .collect();
        self.handles.clear();
        for (_, open) in std::mem::take(&mut self.open) {
            events.extend(open.tell(Some("unanswered: the channel ended before the file was closed")));
        }
        events
    }

    // ---- requests

    /// What goes on to the target in the place of this packet, if anything.
    fn request(&mut self, mut packet: BytesMut, step: &mut Step) -> Result<Option<BytesMut>, Malformed> {
        if self.greeting == Greeting::Nothing {
            greet(&mut packet)?;
            self.greeting = Greeting::Asked;
            return Ok(Some(packet));
        }
        let request = Request::read(&packet)?;
        if self.pending.contains_key(&request.id) {
            return Err(Malformed::Id);
        }
        let file = match request.about {
            About::Handle(handle) => self.handles.get(handle).copied(),
            _ => None,
        };
        let told = self.told(&request, file);
        if let Some(no) = self.judge(&request, file) {
            if let Some(forbidden) = no.forbidden {
                step.refused.get_or_insert(forbidden);
            }
            step.events.push(FileEvent { fault: Some(format!("refused: {}", no.sentence)), ..told });
            step.answer.extend_from_slice(&status(request.id, no.code, &no.sentence));
            return Ok(None);
        }
        let told = request.is_told().then_some(told);
        step.events.extend(told.clone());
        self.note(&request, file, told);
        let surplus = request.surplus;
        wire::shorten(&mut packet, surplus)?;
        Ok(Some(packet))
    }

    /// The recording's words for it.
    fn told(&self, request: &Request<'_>, file: Option<u64>) -> FileEvent {
        let path_of = |file: Option<u64>| file.and_then(|file| self.open.get(&file)).map(|open| open.path.clone());
        let path = match request.about {
            About::Path(path) => path_text(path),
            About::Handle(_) => path_of(file).unwrap_or_default(),
            About::Nothing => String::new(),
        };
        let to = match request.act {
            Act::Copy(to) => path_of(self.handles.get(to).copied()),
            _ => request.to.map(path_text),
        };
        FileEvent { op: request.op.to_owned(), path, to, detail: request.detail.clone(), ..FileEvent::default() }
    }

    /// Why it does not go on.
    fn judge(&self, request: &Request<'_>, file: Option<u64>) -> Option<No> {
        if let Some(forbidden) = self.rule.forbids(request.need) {
            let code = if request.act == Act::Unknown { UNSUPPORTED } else { PERMISSION_DENIED };
            // A client tries an extension to see whether it is there: no person has asked for anything.
            let sentence = forbidden.sentence.clone();
            return Some(No { code, sentence, forbidden: (request.act != Act::Unknown).then_some(forbidden) });
        }
        let failure = |sentence: &str| Some(No { code: FAILURE, sentence: sentence.to_owned(), forbidden: None });
        let unknown = |handle: &[u8]| !self.handles.contains_key(handle);
        match (request.about, request.act) {
            (About::Handle(_), _) if file.is_none() => failure("no such handle"),
            (_, Act::Copy(to)) if unknown(to) => failure("no such handle"),
            (_, Act::Close) => None, // it frees something
            _ if self.pending.len() >= MOST => failure("too many requests at once"),
            (_, Act::Open(_) | Act::OpenFolder) if self.open.len() >= MOST => failure("too many open files"),
            _ if self.names >= MOST_NAMES => failure("too many names at once"),
            _ => None,
        }
    }

    /// It goes on: what its answer will be used for.
    fn note(&mut self, request: &Request<'_>, number: Option<u64>, told: Option<FileEvent>) {
        if request.need.change {
            self.sizes.clear();
        }
        if let Act::Copy(to) = request.act
            && let Some(file) = self.handles.get(to).copied().and_then(|to| self.file(to))
        {
            file.writes.scatter();
        }
        let file = number.and_then(|number| self.file(number));
        let wants = match (request.act, number) {
            (Act::Open(ways), _) => Wants::File(ways),
            (Act::OpenFolder, _) => Wants::Folder,
            (Act::Close, Some(number)) => Wants::Close(number),
            (Act::Read { offset, length }, Some(number)) => Wants::Read { file: number, offset, length },
            (Act::Write { offset, data }, Some(number)) => {
                if let Some(file) = file {
                    file.writes.sent(offset, data);
                    let end = offset.saturating_add(data.len() as u64);
                    file.written = file.written.map(|size| size.max(end));
                }
                Wants::Write { file: number, bytes: data.len() as u64 }
            }
            (Act::SetOpen(Some(size)), Some(number)) => {
                if let Some(file) = file {
                    file.writes.resized(size);
                    file.written = Some(size);
                    file.emptied |= size == 0; // so ends an upload of nothing by OpenSSH's scp
                }
                Wants::Resize(number)
            }
            (Act::SizeOfOpen, Some(number)) => Wants::SizeOfOpen(number),
            (Act::SizeOfPath, _) => Wants::SizeOfPath,
            (Act::Unknown, _) => Wants::Whatever,
            _ => Wants::Nothing,
        };
        if let (Act::Close, About::Handle(handle)) = (request.act, request.about) {
            self.handles.remove(handle);
        }
        if let Some(open) = wants.file().and_then(|file| self.open.get_mut(&file)) {
            open.flying += 1;
        }
        let weight = told.as_ref().map_or(0, weight_of);
        self.names = self.names.saturating_add(weight);
        self.pending.insert(request.id, Pending { told, wants, weight });
    }

    fn file(&mut self, number: u64) -> Option<&mut File> {
        self.open.get_mut(&number)?.file.as_mut()
    }

    // ---- answers

    fn answer(&mut self, packet: &[u8], step: &mut Step) -> Result<(), Malformed> {
        let mut fields = Fields::of(packet);
        let kind = fields.byte()?;
        if self.greeting != Greeting::Agreed {
            if self.greeting != Greeting::Asked || kind != 2 {
                return Err(Malformed::Kind);
            }
            if fields.u32()? != VERSION {
                return Err(Malformed::Version);
            }
            self.greeting = Greeting::Agreed;
            return Ok(());
        }
        let pending = self.pending.remove(&fields.u32()?).ok_or(Malformed::Unasked)?;
        self.names = self.names.saturating_sub(pending.weight);
        let file = pending.wants.file();
        self.use_answer(kind, pending, fields, step)?;
        if let Some(file) = file {
            self.landed(file, step);
        }
        Ok(())
    }

    /// One of the requests for this file is answered. After the last one it is told, if it is closed.
    fn landed(&mut self, number: u64, step: &mut Step) {
        let Some(open) = self.open.get_mut(&number) else { return };
        open.flying = open.flying.saturating_sub(1);
        if open.flying == 0
            && let Some(fault) = open.closed.take()
            && let Some(open) = self.open.remove(&number)
        {
            self.names = self.names.saturating_sub(open.path.len());
            step.events.extend(open.tell(fault.as_deref()));
        }
    }

    fn use_answer(
        &mut self,
        kind: u8,
        pending: Pending,
        mut fields: Fields<'_>,
        step: &mut Step,
    ) -> Result<(), Malformed> {
        match kind {
            101 => {
                let code = fields.u32()?;
                self.status(pending, code, step)
            }
            102 => self.handle(pending, fields.handle()?),
            103 => self.data(pending.wants, fields.string()?),
            104 | 201 => match pending.wants {
                Wants::Nothing | Wants::Whatever => Ok(()),
                _ => Err(Malformed::Answer),
            },
            105 => self.attributes(pending, &mut fields),
            _ => Err(Malformed::Kind),
        }
    }

    /// `SSH_FXP_STATUS`.
    fn status(&mut self, pending: Pending, code: u32, step: &mut Step) -> Result<(), Malformed> {
        const EOF: u32 = 1;
        let fault = (code != 0).then(|| format!("failed: {}", reason(code)));
        match (pending.wants, &fault) {
            (Wants::File(_) | Wants::Folder, None) => return Err(Malformed::Answer),
            (Wants::Close(number), fault) => {
                if let Some(open) = self.open.get_mut(&number) {
                    open.closed = Some(fault.clone());
                }
            }
            (Wants::Read { file, offset, .. }, _) => {
                let Some(file) = self.file(file) else { return Ok(()) };
                file.reads.begun = true;
                match &fault {
                    Some(_) if code == EOF => file.end = Some(file.end.map_or(offset, |end| end.min(offset))),
                    Some(why) => file.reads.spoiled(why),
                    None => return Err(Malformed::Answer),
                }
            }
            (Wants::Write { file, bytes }, fault) => {
                let Some(file) = self.file(file) else { return Ok(()) };
                match fault {
                    Some(why) => file.writes.failed(why),
                    None => file.writes.confirmed(bytes),
                }
            }
            (Wants::Resize(file), Some(_)) => {
                if let Some(file) = self.file(file) {
                    file.writes.scatter();
                }
            }
            _ => {}
        }
        if let (Some(fault), Some(told)) = (fault, pending.told) {
            step.events.push(FileEvent { fault: Some(fault), ..told });
        }
        Ok(())
    }

    /// `SSH_FXP_HANDLE`.
    fn handle(&mut self, pending: Pending, handle: &[u8]) -> Result<(), Malformed> {
        let path = pending.told.map(|told| told.path).unwrap_or_default();
        let file = match pending.wants {
            Wants::File(ways) => Some(File::new(ways, self.size_of(&path), &self.allowance)),
            Wants::Folder | Wants::Whatever => None,
            _ => return Err(Malformed::Answer),
        };
        if self.handles.contains_key(handle) {
            return Err(Malformed::Answer); // it is another file's, and nobody has closed that
        }
        self.names = self.names.saturating_add(path.len());
        self.next = self.next.wrapping_add(1);
        self.handles.insert(handle.into(), self.next);
        self.open.insert(self.next, Open { path, flying: 0, closed: None, file });
        Ok(())
    }

    /// `SSH_FXP_DATA`.
    fn data(&mut self, wants: Wants, data: &[u8]) -> Result<(), Malformed> {
        match wants {
            Wants::Read { file, offset, length } if u32::try_from(data.len()).is_ok_and(|got| got <= length) => {
                if let Some(file) = self.file(file) {
                    file.reads.arrived(offset, data);
                }
                Ok(())
            }
            Wants::Whatever => Ok(()),
            _ => Err(Malformed::Answer),
        }
    }

    /// `SSH_FXP_ATTRS`.
    fn attributes(&mut self, pending: Pending, fields: &mut Fields<'_>) -> Result<(), Malformed> {
        let size = fields.size()?;
        match (pending.wants, size) {
            (Wants::SizeOfOpen(file), size) => {
                if let Some(file) = self.file(file) {
                    file.said = size.or(file.said);
                }
            }
            (Wants::SizeOfPath, Some(size)) => {
                if self.sizes.len() >= MOST_SIZES {
                    self.sizes.pop_front();
                }
                let path = pending.told.map(|told| told.path).unwrap_or_default();
                if path.len() <= 4096 {
                    self.sizes.push_back((path, size));
                }
            }
            (Wants::SizeOfPath | Wants::Nothing | Wants::Whatever, _) => {}
            _ => return Err(Malformed::Answer),
        }
        Ok(())
    }

    fn size_of(&self, path: &str) -> Option<u64> {
        self.sizes.iter().rev().find(|(asked, _)| asked == path).map(|(_, size)| *size)
    }
}

/// `SSH_FXP_INIT`: goes on as offering no more than version 3.
fn greet(packet: &mut BytesMut) -> Result<(), Malformed> {
    const INIT: u8 = 1;
    let mut fields = Fields::of(packet);
    if fields.byte()? != INIT {
        return Err(Malformed::Kind);
    }
    if fields.u32()? > VERSION {
        packet.get_mut(5..9).ok_or(Malformed::Short)?.copy_from_slice(&VERSION.to_be_bytes());
    }
    Ok(())
}

/// A request that is answered here.
struct No {
    code: u32,
    sentence: String,
    /// Where it is the entitlement's no: what the person is told.
    forbidden: Option<Refusal>,
}

fn weight_of(told: &FileEvent) -> usize {
    told.path.len() + told.to.as_ref().map_or(0, String::len) + told.detail.as_ref().map_or(0, String::len)
}

fn over(who: &str, malformed: Malformed) -> Refusal {
    Refusal::new(format!("this channel was closed: {who} sent what is not understood as SFTP ({malformed})"))
}

impl File {
    fn new(ways: Ways, said: Option<u64>, of: &Allowance) -> Self {
        let Need { change, .. } = ways.need();
        let mut writes = Transfer::new(of);
        if ways.appends() {
            writes.scatter();
        }
        let emptied = change && ways.starts_empty();
        let written = emptied.then_some(0);
        Self { reads: Transfer::new(of), writes, emptied, written, said, end: None }
    }
}

impl Open {
    /// What was moved. `fault`: it was not closed as it should be.
    fn tell(self, fault: Option<&str>) -> Vec<FileEvent> {
        let Some(mut file) = self.file else { return Vec::new() };
        let event = |op: &str| FileEvent { op: op.to_owned(), path: self.path.clone(), ..FileEvent::default() };
        let mut events = Vec::new();
        if file.reads.begun {
            // The last byte, and that there is none behind it, prove the size. Else it is what the target said before.
            let size = file.end.filter(|end| file.reads.reaches(*end)).or(file.said);
            events.push(file.reads.tell(size, event("download")));
        }
        if file.writes.begun || file.emptied {
            if let Some(fault) = fault {
                file.writes.spoiled(fault);
            }
            events.push(file.writes.tell(file.written, event("upload")));
        }
        events
    }
}
