//! How long recording takes on this machine: `cargo run --release -p tidegate-recorder --example throughput`.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a measurement")]

use bytes::Bytes;
use jiff::Timestamp;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tidegate_recorder::{Event, Header, Keep, LiveRecording, Recorder, Settings, Stream, keys::generate_identity};

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

    let statement = || {
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
    println!("a statement and its bytes: {:.0} ns", spent.as_nanos() as f64 / 20_000.0);
    let keystroke = || vec![data(Stream::Stdin, Keep::Whole, Bytes::from_static(b"x"))];
    let spent = timed(&start("keystroke"), 20_000, keystroke);
    println!("a keystroke: {:.0} ns", spent.as_nanos() as f64 / 20_000.0);
    let piece = Bytes::from(vec![0x5a; 32 * 1024]);
    for (name, keep) in [("kept", Keep::Whole), ("counted", Keep::Count)] {
        let spent = timed(&start(name), 4000, || vec![data(Stream::Stdout, keep, piece.clone())]);
        println!("32 KiB pieces, {name}: {:.0} MiB/s", 125.0 / spent.as_secs_f64());
    }
}

fn data(stream: Stream, keep: Keep, data: Bytes) -> Event {
    Event::Data { channel: 0, stream, keep, data }
}

fn timed(live: &LiveRecording, calls: u32, events: impl Fn() -> Vec<Event>) -> Duration {
    let begun = Instant::now();
    for _ in 0..calls {
        let _ = live.record(events(), Bytes::new(), Timestamp::now()).unwrap().into_bytes();
    }
    begun.elapsed()
}
