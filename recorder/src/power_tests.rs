//! The power goes: of what was written since the last fsync, a disk keeps what it likes.
//!
//! `TIDEGATE_TEST_KILLS` says how often (`./tests/run --kills 500`), `TIDEGATE_TEST_SEED` repeats a run.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use crate::{
    Event, Header, Keep, Stream, frame,
    keys::{Identities, Recipients, generate_identity},
    preamble::Preamble,
    replay::{Moment, Replay, What},
    storage::Disk,
    verify::{Outcome, verify_from},
    writer::{Parts, Writer},
};
use bytes::Bytes;
use jiff::Timestamp;
use std::{
    env, io,
    sync::{Arc, Mutex},
};

/// A block of the disk: it is kept, or it is zeros.
const BLOCK: usize = 4096;

/// All that was written, and how much of it when it was synced last.
#[derive(Clone, Default)]
struct Platter(Arc<Mutex<(Vec<u8>, usize)>>);

impl Disk for Platter {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().0.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.1 = state.0.len();
        Ok(())
    }
}

/// xorshift64*: the same numbers for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % bound.max(1)
    }
}

/// The state of the disk after each call, and all that was recorded.
struct Story {
    /// Bytes written, of which synced, after each call.
    after: Vec<(usize, usize)>,
    bytes: Vec<u8>,
    moments: Vec<Moment>,
    key: ed25519_dalek::VerifyingKey,
    auditor: Identities,
}

impl Story {
    fn told(fsync: bool, dice: &mut Dice) -> Self {
        let (secret, public) = generate_identity();
        let signer = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        let (key, auditor) = (signer.verifying_key(), Identities::parse(&secret).unwrap());
        let recipients = Recipients::parse(&[public]).unwrap();
        let ((main, main_key), (keystrokes, keystroke_key)) =
            (recipients.fresh_key().unwrap(), recipients.fresh_key().unwrap());
        let text = || "s".to_owned();
        let header = Header {
            session: text(),
            identity: text(),
            target: text(),
            access: text(),
            protocol: text(),
            grant: text(),
            gateway: text(),
            start: Timestamp::UNIX_EPOCH,
        };
        let preamble = Preamble {
            header,
            recipients: recipients.names().to_vec(),
            keystroke_recipients: Vec::new(),
            signing_key: frame::hex(key.as_bytes()),
            stream_limit: 64,
            main_key,
            keystroke_key,
            replay_window_s: 0,
        };
        let mut disk = Platter::default();
        let parts = Parts {
            file: Box::new(disk.clone()),
            preamble: preamble.encode().unwrap(),
            session: text(),
            main: main.cipher(),
            keystrokes: keystrokes.cipher(),
            signer: Arc::new(signer),
            stream_limit: 64,
            fsync,
        };
        let mut writer = Writer::begin(parts, Timestamp::UNIX_EPOCH).unwrap();
        disk.sync().unwrap(); // as a file is before it has its name
        let mut after = Vec::new();
        let state = |disk: &Platter| {
            let state = disk.0.lock().unwrap();
            (state.0.len(), state.1)
        };
        after.push(state(&disk));
        for call in 1..60 {
            let size = dice.below(if call % 7 == 0 { 30_000 } else { 300 });
            let data = Bytes::from((0..size).map(|_| dice.below(256) as u8).collect::<Vec<u8>>());
            let stream = if dice.below(4) == 0 { Stream::Stdin } else { Stream::Stdout };
            let events = vec![Event::Data { channel: 1, stream, keep: Keep::Whole, data }, Event::Cancelled];
            writer.append(&events, Timestamp::from_second(call as i64).unwrap()).unwrap();
            after.push(state(&disk));
        }
        writer.end(Timestamp::from_second(60).unwrap()).unwrap();
        after.push(state(&disk));
        let bytes = disk.0.lock().unwrap().0.clone();
        let moments = Replay::from_reader(bytes.as_slice(), &auditor, true).unwrap().map(Result::unwrap).collect();
        Self { after, bytes, moments, key, auditor }
    }

    /// What a disk may hold when the power goes after (or in the midst of) this call, and what of it is certain.
    fn cut(&self, call: usize, dice: &mut Dice) -> (Vec<u8>, usize) {
        let (written, synced) = self.after[call];
        let mut left = self.bytes[..synced + dice.below(written - synced + 1)].to_vec();
        let mut block = synced;
        while block < left.len() {
            let end = (block / BLOCK * BLOCK + BLOCK).min(left.len());
            if dice.below(3) == 0 {
                left[block..end].fill(0);
            }
            block = end;
        }
        (left, synced)
    }

    /// What is left opens, proves a prefix, and tells nothing that did not happen.
    fn holds(&self, left: &[u8], certain: usize) {
        let verdict = verify_from(left, &self.key).unwrap();
        assert_eq!(verdict.outcome == Outcome::Complete, left == self.bytes, "{verdict}");
        let good = verify_from(&self.bytes[..certain], &self.key).unwrap();
        assert!(verdict.frames >= good.frames && verdict.proven >= good.proven, "{verdict}, but {good} was synced");
        assert!(verdict.proven > 0, "{verdict}");
        let told = Replay::from_reader(left, &self.auditor, true).unwrap();
        let told: Vec<Moment> = told.map_while(Result::ok).collect();
        let happened = told.iter().take_while(|moment| !matches!(moment.what, What::Truncated { .. })).count();
        assert_eq!(told[..happened], self.moments[..happened], "something that did not happen so is told");
        let kept = self.moments.iter().filter(|moment| moment.frame <= good.frames).count();
        assert!(happened >= kept, "{happened} of {kept} moments that were synced");
    }
}

#[test]
fn whenever_the_power_goes_what_is_left_proves_a_prefix_and_what_was_synced_is_there() {
    let given = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let cuts = given("TIDEGATE_TEST_KILLS").unwrap_or(60);
    let seed = given("TIDEGATE_TEST_SEED").unwrap_or(0x7469_6465);
    let mut dice = Dice(seed | 1);
    for fsync in [false, true] {
        let story = Story::told(fsync, &mut dice);
        assert!(story.bytes.len() > 4 * BLOCK, "there is more than a block to lose");
        let certain = |(written, synced): &(usize, usize)| written == synced;
        assert_eq!(story.after[1..60].iter().all(certain), fsync, "each call is synced, if so asked");
        for _ in 0..cuts {
            let call = dice.below(story.after.len());
            let (left, synced) = story.cut(call, &mut dice);
            story.holds(&left, synced);
        }
        println!("seed {seed}: power cut {cuts} times with fsync {fsync}, a prefix proven each time");
    }
}
