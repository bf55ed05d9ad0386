//! A recorder in a temporary directory, with an auditor who can read it.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "tests, each using a part")]

pub(crate) mod forge;

use bytes::Bytes;
use ed25519_dalek::{SigningKey, VerifyingKey};
use jiff::Timestamp;
use std::{path::PathBuf, sync::Arc};
use tempfile::TempDir;
use tidegate_recorder::{
    Event, Header, Keep, LiveRecording, Recorder, Settings, Stream,
    keys::{Identities, generate_identity},
    replay::{self, Moment, What},
    storage,
};

pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) recorder: Recorder,
    pub(crate) key: VerifyingKey,
    pub(crate) auditor: Identities,
}

pub(crate) const SESSION: &str = "019aa1b2-0000-7000-8000-0000000000aa";

pub(crate) fn bench(stream_limit: u64) -> Bench {
    let dir = TempDir::new().unwrap();
    let (secret, public) = generate_identity();
    let auditor = Identities::parse(&secret).unwrap();
    let signer = SigningKey::from_bytes(&[7; 32]);
    let key = signer.verifying_key();
    let settings = Settings { recipients: vec![public], stream_limit, ..Settings::default() };
    let recorder = Recorder::open(&dir.path().join("recordings"), settings, Arc::new(signer)).unwrap();
    Bench { dir, recorder, key, auditor }
}

impl Bench {
    pub(crate) fn recordings(&self) -> PathBuf {
        self.dir.path().join("recordings")
    }

    pub(crate) fn start(&self) -> LiveRecording {
        self.start_as(SESSION)
    }

    pub(crate) fn start_as(&self, session: &str) -> LiveRecording {
        self.recorder.start(header(session)).unwrap()
    }

    pub(crate) fn only_path(&self) -> PathBuf {
        let listing = storage::list(&self.recordings()).unwrap();
        assert_eq!(listing.entries.len(), 1, "{listing:?}");
        listing.entries.into_iter().next().unwrap().path
    }

    pub(crate) fn replay(&self) -> Vec<Moment> {
        replay::open(&self.only_path(), &self.auditor, true).unwrap().map(Result::unwrap).collect()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        let event = |moment: Moment| match moment.what {
            What::Event(event) => Some(event),
            _ => None,
        };
        self.replay().into_iter().filter_map(event).collect()
    }

    /// A sealed recording of these events, one call each.
    pub(crate) fn sealed(&self, events: &[Event]) -> PathBuf {
        let live = self.start();
        for (second, event) in (1..).zip(events) {
            live.note(event.clone(), at(second)).unwrap();
        }
        live.seal(at(3600)).unwrap();
        self.only_path()
    }
}

pub(crate) fn header(session: &str) -> Header {
    Header {
        session: session.to_owned(),
        identity: "alice".to_owned(),
        target: "web-1".to_owned(),
        access: "deploy".to_owned(),
        protocol: "ssh".to_owned(),
        grant: "g-1".to_owned(),
        gateway: "gate".to_owned(),
        start: at(0),
    }
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + second).unwrap()
}

pub(crate) fn data(stream: Stream, keep: Keep, bytes: &[u8]) -> Event {
    Event::Data { channel: 1, stream, keep, data: Bytes::copy_from_slice(bytes) }
}

/// Bytes that do not compress.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut byte = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(&mut byte).collect()
}

pub(crate) fn terminal(command: Option<&str>) -> Event {
    Event::Opened {
        channel: 1,
        what: "shell".to_owned(),
        command: command.map(str::to_owned),
        terminal: Some(("xterm-256color".to_owned(), 80, 24)),
        environment: [("LANG".to_owned(), "C.UTF-8".to_owned())].into(),
        connection: None,
        reached: None,
    }
}
