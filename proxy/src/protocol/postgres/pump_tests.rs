//! Conversations cut at every byte, both ways: what goes on is what came, in whole messages, whatever happens in between.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::cast_possible_truncation)]

use super::*;
use crate::protocol::postgres::{answer::message, frame::HOLD};
use jiff::Timestamp;
use proptest::prelude::*;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tempfile::TempDir;
use tidegate_recorder::{Header, Recorder, Settings, keys::generate_identity};
use tokio::{io::ReadBuf, runtime::Runtime};

/// Hands out `bytes` in pieces of these sizes; between two of them there is nothing to read.
struct Pieces<'a> {
    bytes: &'a [u8],
    sizes: std::iter::Cycle<std::slice::Iter<'a, usize>>,
    waits: bool,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.waits = !self.waits;
        if self.waits {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let size = (*self.sizes.next().unwrap()).min(self.bytes.len()).min(into.remaining());
        let (piece, rest) = self.bytes.split_at(size);
        into.put_slice(piece);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

/// Takes a few bytes at a time, and none at all once it has `room` bytes.
struct Slow {
    taken: Vec<u8>,
    room: usize,
}

impl AsyncWrite for &mut Slow {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = bytes.len().min(4999).min(self.room - self.taken.len());
        if count == 0 {
            return Poll::Pending;
        }
        self.taken.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A runtime, and a recording that goes on from case to case.
struct Bench {
    runtime: Runtime,
    recording: LiveRecording,
    eyes: Eyes,
    _dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let (_, public) = generate_identity();
        let settings = Settings { recipients: vec![public], stream_limit: 1 << 20, ..Settings::default() };
        let signer = Arc::new(ed25519_dalek::SigningKey::from_bytes(&[7; 32]));
        let text = |text: &str| text.to_owned();
        let header = Header {
            session: text("019aa1b2-0000-7000-8000-0000000000aa"),
            identity: text("alice"),
            target: text("orders"),
            access: text("shop"),
            protocol: text("postgres"),
            grant: text("g-1"),
            gateway: text("gate"),
            start: now(),
        };
        let recording = Recorder::open(dir.path(), settings, signer).unwrap().start(header).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, recording, eyes: Eyes::new(false), _dir: dir }
    }

    /// Carries `bytes`, which come in pieces of these sizes; what came out, and why it stopped. With room for all of it.
    fn carry(&self, sender: Sender, bytes: &[u8], sizes: &[usize]) -> (Vec<u8>, Stopped) {
        let (taken, stopped, _) = self.carry_into(sender, bytes, sizes, usize::MAX);
        (taken, stopped.unwrap())
    }

    /// The same where the other side takes only so much. Then the pump is dropped in the middle of a write.
    fn carry_into(
        &self,
        sender: Sender,
        bytes: &[u8],
        sizes: &[usize],
        room: usize,
    ) -> (Vec<u8>, Option<Stopped>, Unsent) {
        let from = Pieces { bytes, sizes: sizes.iter().cycle(), waits: false };
        let (mut to, mut unsent) = (Slow { taken: Vec::new(), room }, Unsent::default());
        let stopped = self.runtime.block_on(async {
            let out = Out { recording: &self.recording, clock: now, eyes: &self.eyes };
            let pump = Pump::new((sender, Talk::default()), from, &mut to, &mut unsent, out);
            tokio::select! {
                biased;
                stopped = pump.run() => Some(stopped),
                () = idle(3 * bytes.len() + 10) => None,
            }
        });
        (to.taken, stopped, unsent)
    }
}

/// Comes back after so many turns of everybody else.
async fn idle(turns: usize) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

/// One of each message that a client sends, and of each that a target sends.
fn conversation(sender: Sender) -> Vec<Vec<u8>> {
    let bodies: &[(u8, &[u8])] = match sender {
        Sender::Client => &[
            (b'Q', b"select 1\0"),
            (b'P', b"s\0select $1\0\0\x01\0\0\0\x17"),
            (b'B', b"p\0s\0\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\x07\0\0"),
            (b'D', b"Pp\0"),
            (b'E', b"p\0\0\0\0\x02"),
            (b'H', b""),
            (b'C', b"Pp\0"),
            (b'F', b"\0\0\0\x07\0\0\0\0\0\0"),
            (b'd', b"1\tone\n"),
            (b'c', b""),
            (b'f', b"never\0"),
            (b'S', b""),
        ],
        _ => &[
            (b'1', b""),
            (b't', b"\0\x01\0\0\0\x17"),
            (b'T', b"\0\x01x\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0"),
            (b'2', b""),
            (b'D', b"\0\x01\0\0\0\x011"),
            (b's', b""),
            (b'C', b"SELECT 1\0"),
            (b'3', b""),
            (b'n', b""),
            (b'I', b""),
            (b'N', b"SNOTICE\0C00000\0Mlook\0\0"),
            (b'E', b"SERROR\0C22012\0Mdivision by zero\0\0"),
            (b'A', b"\0\0\0\x07news\0\0"),
            (b'S', b"TimeZone\0UTC\0"),
            (b'V', b"\0\0\0\x04\0\0\0\x07"),
            (b'G', b"\0\0\x01\0\0"),
            (b'H', b"\0\0\x01\0\0"),
            (b'd', b"1\tone\n"),
            (b'c', b""),
            (b'Z', b"T"),
        ],
    };
    bodies.iter().map(|(tag, body)| message(*tag, &[body])).collect()
}

const BOTH: [Sender; 2] = [Sender::Client, Sender::Target];

#[test]
fn a_conversation_cut_at_every_byte_goes_on_unchanged_both_ways() {
    let bench = Bench::new();
    for sender in BOTH {
        let stream = conversation(sender).concat();
        for cut in 1..stream.len() {
            for sizes in [&[cut, stream.len()][..], &[cut]] {
                let (taken, stopped) = bench.carry(sender, &stream, sizes);
                assert!(taken == stream && matches!(stopped, Stopped::Done), "{sender:?} cut at {cut}: {stopped:?}");
            }
        }
    }
}

#[test]
fn what_breaks_the_protocol_stops_behind_the_last_right_message_wherever_it_is_cut() {
    let bench = Bench::new();
    let wrong: [&[u8]; 6] = [
        b"Q\0\0\0\x03leak",
        b"D\x7f\xff\xff\xffleak",
        b"d\0\0\0\0leak",
        b"?\0\0\0\x08leak",
        b"p\0\0\0\x08leak",
        b"\x16\x03\x01\0\x08leak",
    ];
    for sender in BOTH {
        let right = conversation(sender).concat();
        for wrong in wrong {
            let stream = [&right, wrong].concat();
            for size in [1, 2, 7, 64, stream.len()] {
                let (taken, stopped) = bench.carry(sender, &stream, &[size]);
                assert!(taken == right, "{sender:?}: {}", taken.escape_ascii());
                assert!(matches!(stopped, Stopped::Violation(_)), "{stopped:?}");
            }
        }
    }
}

#[test]
fn a_relay_that_is_dropped_in_the_middle_of_a_write_leaves_what_completes_the_last_message() {
    let bench = Bench::new();
    for sender in BOTH {
        let messages = conversation(sender);
        let stream = messages.concat();
        let mut end = 0;
        let ends: Vec<usize> = messages.iter().map(|message| (end += message.len(), end).1).collect();
        for room in 0..stream.len() {
            let (mut taken, stopped, mut unsent) = bench.carry_into(sender, &stream, &[11], room);
            assert!(stopped.is_none() && taken.len() == room, "{stopped:?}");
            let mut rest = Slow { taken: Vec::new(), room: usize::MAX };
            bench.runtime.block_on(unsent.send(&mut &mut rest)).unwrap();
            taken.extend(rest.taken);
            assert!(unsent.between_messages() && stream.starts_with(&taken));
            assert!(taken.is_empty() || ends.contains(&taken.len()), "{}", taken.escape_ascii());
        }
    }
}

fn any_messages(sender: Sender) -> impl Strategy<Value = Vec<u8>> {
    let tags = if sender == Sender::Client { b"QPBEDCSHdcfF".to_vec() } else { b"DdENATtVCSGH123Insc".to_vec() };
    let large = if sender == Sender::Client { b"QPBFd".to_vec() } else { b"DdENATtVCS".to_vec() };
    let body = |sizes| prop::collection::vec(any::<u8>(), sizes);
    let small = (prop::sample::select(tags), body(0..300));
    let large = (prop::sample::select(large), body(HOLD - 10..HOLD * 3));
    let one = prop_oneof![6 => small.boxed(), 1 => large.boxed()].prop_map(|(tag, body)| message(tag, &[&body]));
    prop::collection::vec(one, 0..12).prop_map(|messages| messages.concat())
}

fn split_anywhere(sender: Sender) {
    let bench = Bench::new();
    let cases = (any_messages(sender), prop::collection::vec(1usize..9000, 1..20));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        cases: 100,
        ..ProptestConfig::default()
    });
    let result = runner.run(&cases, |(stream, sizes)| {
        let (taken, stopped) = bench.carry(sender, &stream, &sizes);
        prop_assert!(matches!(stopped, Stopped::Done), "{stopped:?}");
        prop_assert!(taken == stream, "{} bytes became {}", stream.len(), taken.len());
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn any_messages_of_a_client_go_on_unchanged_in_any_pieces() {
    split_anywhere(Sender::Client);
}

#[test]
fn any_messages_of_a_target_go_on_unchanged_in_any_pieces() {
    split_anywhere(Sender::Target);
}
