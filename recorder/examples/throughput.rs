//! What a recording costs on this machine, alone: one call makes one frame (and, when it is due, a signed checkpoint).
//! `deploy/bench` prints it as rows of a table.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a measurement")]

use bytes::Bytes;
use jiff::Timestamp;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tidegate_recorder::{Event, Header, Keep, LiveRecording, Recorder, Settings, Stream, keys::generate_identity};

const PIECE: usize = 32 * 1024;
/// Different ones: more than a compressor remembers.
const PIECES: usize = 256;

fn main() {
    let dir = tempfile::TempDir::new().unwrap();
    let settings = Settings { recipients: vec![generate_identity().1], stream_limit: 1 << 20, ..Settings::default() };
    let signer = Arc::new(ed25519_dalek::SigningKey::from_bytes(&[7; 32]));
    let recorder = Recorder::open(dir.path(), settings, signer).unwrap();
    let start = |name: &str| {
        let text = name.to_owned();
        recorder
            .start(Header {
                session: text.clone(),
                identity: text.clone(),
                target: text.clone(),
                access: text.clone(),
                protocol: text.clone(),
                grant: text.clone(),
                gateway: text,
                start: Timestamp::now(),
            })
            .unwrap()
    };

    let statement = |_| {
        vec![
            Event::Statement {
                text: "SELECT abalance FROM accounts WHERE aid = 4711".to_owned(),
                prepared: None,
                number: None,
                masked: false,
            },
            data(Stream::FromClient, Keep::Count, Bytes::from_static(&[0; 64])),
        ]
    };
    let spent = timed(&start("statement"), 20_000, statement);
    row("a statement and its 64 bytes", each(spent, 20_000));
    let keystroke = |_| vec![data(Stream::Stdin, Keep::Whole, Bytes::from_static(b"x"))];
    let spent = timed(&start("keystroke"), 20_000, keystroke);
    row("a keystroke", each(spent, 20_000));
    let text = Bytes::from(listing(PIECES * PIECE));
    let piece = |n: usize| text.slice(n % PIECES * PIECE..).slice(..PIECE);
    for (name, what, keep) in
        [("kept", "32 KiB of a listing, kept", Keep::Whole), ("counted", "32 KiB, counted and digested", Keep::Count)]
    {
        let spent = timed(&start(name), 4000, |n| vec![data(Stream::Stdout, keep, piece(n))]);
        row(what, format!("{}, {:.0} MiB/s", each(spent, 4000), 125.0 / spent.as_secs_f64()));
    }
}

/// What a terminal shows, roughly: lines of which a quarter is always new.
fn listing(length: usize) -> Vec<u8> {
    let line = |n: u32| {
        let (size, name) = (n.wrapping_mul(2_654_435_761), n.wrapping_mul(40_503));
        format!("-rw-r--r-- 1 root root {size:>10} Nov 23 10:01 \x1b[01;34m{name:08x}.so.{}\x1b[0m\r\n", n % 7)
    };
    (0..).flat_map(|n| line(n).into_bytes()).take(length).collect()
}

fn data(stream: Stream, keep: Keep, data: Bytes) -> Event {
    Event::Data { channel: 0, stream, keep, data }
}

fn timed(live: &LiveRecording, calls: usize, events: impl Fn(usize) -> Vec<Event>) -> Duration {
    let begun = Instant::now();
    for n in 0..calls {
        let _ = live.record(events(n), Bytes::new(), Timestamp::now()).unwrap().into_bytes();
    }
    begun.elapsed()
}

fn each(spent: Duration, calls: usize) -> String {
    format!("{:.1} µs", spent.as_nanos() as f64 / 1000.0 / calls as f64)
}

fn row(what: &str, cost: String) {
    println!("| {what} | {cost} |");
}
