//! A real recording with changed bytes, or any bytes at all, as a recording: it verifies, or says what is wrong, and what it shows is a
//! prefix of what was recorded. Nothing panics.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::{header, recorder, signer};
use tidegate_recorder::{
    Event, Keep, Stream,
    keys::Identities,
    replay::{Replay, What},
    verify::{Outcome, verify_from},
};

struct Made {
    bytes: Vec<u8>,
    auditor: Identities,
    key: ed25519_dalek::VerifyingKey,
    seen: Vec<What>,
}

/// The auditor's key stays in its thread.
fn make() -> Made {
    let dir = tempfile::tempdir().expect("a folder");
    let (recorder, auditor) = recorder(dir.path(), 64);
    let header = header();
    let start = header.start;
    let live = recorder.start(header).expect("a recording");
    for nth in 0..40_u8 {
        let stream = if nth % 3 == 0 { Stream::Stdin } else { Stream::Stdout };
        let data = Bytes::from(vec![nth; usize::from(nth) * 9]);
        live.note(Event::Data { channel: 0, stream, keep: Keep::UpToLimit, data }, start).expect("it is written");
    }
    let path = dir.path().join(live.seal(start).expect("a seal").path);
    let bytes = std::fs::read(path).expect("a file");
    let seen = shown(&bytes, &auditor);
    Made { bytes, auditor, key: signer().verifying_key(), seen }
}

thread_local! {
    static MADE: Made = make();
}

/// All that is shown before the first fault.
fn shown(bytes: &[u8], auditor: &Identities) -> Vec<What> {
    let Ok(replay) = Replay::from_reader(bytes, auditor, true) else { return Vec::new() };
    replay.map_while(Result::ok).map(|moment| moment.what).collect()
}

fuzz_target!(|data: &[u8]| MADE.with(|made| try_one(data, made)));

fn try_one(data: &[u8], made: &Made) {
    let Some((how, rest)) = data.split_first() else { return };
    let bytes = match how % 4 {
        0 => rest.to_vec(),
        // Its preamble, and anything behind.
        1 => [made.bytes.get(..made.bytes.len() / 2).unwrap_or_default(), rest].concat(),
        // Some bytes are others: a place and a byte, again and again.
        _ => {
            let mut bytes = made.bytes.clone();
            for change in rest.chunks_exact(3) {
                let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % bytes.len();
                bytes[at] ^= change[2];
            }
            bytes
        }
    };
    let intact = verify_from(&bytes[..], &made.key).is_ok_and(|verdict| verdict.outcome == Outcome::Complete);
    assert!(!intact || bytes == made.bytes, "a changed recording is taken for whole");
    let seen = shown(&bytes, &made.auditor);
    let known = seen.iter().take_while(|what| !matches!(what, What::Truncated { .. }));
    assert!(known.zip(&made.seen).all(|(one, other)| one == other), "what is shown was not recorded");
}
