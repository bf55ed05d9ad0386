//! Whatever is done to a recording's bytes, a verdict says so, and nothing panics.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs,
    reason = "tests"
)]

mod support;

use ed25519_dalek::{SigningKey, VerifyingKey};
use proptest::prelude::*;
use std::fs;
use support::{
    Bench, at, bench, data,
    forge::{chain_anew, laid},
    noise,
};
use tidegate_recorder::{
    Event, Keep, Stream,
    replay::{Replay, What},
    verify::{Fault, Outcome, Verdict, verify, verify_from},
};

/// A small sealed recording with several checkpoints, its bytes, and where its frames begin.
fn small() -> (Bench, Vec<u8>, Vec<usize>) {
    let bench = bench(1024);
    let live = bench.start();
    // The last is so much later that its frame is not short.
    for (second, event) in [1, 1, 1, 2].into_iter().zip([
        data(Stream::Stdin, Keep::Whole, b"ls\r"),
        data(Stream::Stdout, Keep::Whole, b"a b c\r\n"),
        data(Stream::Stdout, Keep::Count, b"counted"),
        Event::Exited { channel: 1, status: Some(0), signal: None },
    ]) {
        live.note(event, at(second)).unwrap();
    }
    live.seal(at(3600)).unwrap();
    let bytes = fs::read(bench.only_path()).unwrap();
    let frames = frames(&bytes);
    (bench, bytes, frames)
}

fn frames(bytes: &[u8]) -> Vec<usize> {
    laid(bytes).iter().map(|frame| frame.start).chain([bytes.len()]).collect()
}

fn complete(bytes: &[u8], key: &VerifyingKey) -> bool {
    verify_from(bytes, key).is_ok_and(|verdict| verdict.is_complete())
}

fn bad_frame(verdict: &Verdict) -> Option<u64> {
    match verdict.outcome {
        Outcome::Bad { frame, .. } => Some(frame),
        _ => None,
    }
}

/// Replaying damaged bytes may fail, but does not panic, and does not look whole if it lost something.
fn replay_quietly(bytes: &[u8], bench: &Bench) {
    if let Ok(replay) = Replay::from_reader(bytes, &bench.auditor, true) {
        let _ = replay.count();
    }
}

#[test]
fn every_flipped_byte_is_found() {
    let (bench, mut bytes, frames) = small();
    assert!(complete(&bytes, &bench.key));
    for at in 0..bytes.len() {
        bytes[at] ^= 1 << (at % 8);
        match verify_from(bytes.as_slice(), &bench.key) {
            Err(_) => assert!(at < frames[0], "byte {at} made the file unreadable"),
            Ok(verdict) => {
                assert!(!verdict.is_complete(), "byte {at}");
                let hit = frames.iter().rposition(|start| *start <= at).map_or(1, |frame| frame as u64 + 1);
                let named = match verdict.outcome {
                    Outcome::Truncated { after, .. } => after + 1, // its length now reaches beyond the file
                    _ => bad_frame(&verdict).unwrap(),
                };
                assert_eq!(named, hit, "byte {at}: {verdict}");
                assert!(verdict.proven < hit);
            }
        }
        replay_quietly(&bytes, &bench);
        bytes[at] ^= 1 << (at % 8);
    }
}

/// A sealed recording of 64 KiB: what a terminal shows, in frames of all sizes.
fn large() -> (Bench, Vec<u8>, Vec<usize>) {
    let bench = bench(1024);
    let (live, mut text) = (bench.start(), noise(128 * 1024));
    for second in 1.. {
        // One is too long for a short frame, and each eighth comes too late for one.
        let rest = text.split_off(if second == 7 { 17_000 } else { (second as usize * 397) % 2000 });
        live.note(data(Stream::Stdout, Keep::Whole, &text), at(second / 8)).unwrap();
        text = rest;
        if fs::metadata(bench.only_path()).unwrap().len() > 64 * 1024 - 500 {
            break;
        }
    }
    live.seal(at(3600)).unwrap();
    let bytes = fs::read(bench.only_path()).unwrap();
    let sealed = laid(&bytes).into_iter().filter(|frame| frame.kind() < 3);
    let (short, long): (Vec<_>, Vec<_>) = sealed.partition(support::forge::Laid::is_short);
    assert!(short.len() > 8 && long.len() > 2, "{} short frames, {} long ones", short.len(), long.len());
    let frames = frames(&bytes);
    (bench, bytes, frames)
}

/// What is said of changed bytes: nothing good, and the frame that was hit is named.
fn found(bytes: &[u8], key: &VerifyingKey, frames: &[usize], hit: usize, what: &str) {
    let Ok(verdict) = verify_from(bytes, key) else {
        return assert!(hit < frames[0], "{what} made the file unreadable");
    };
    assert!(!verdict.is_complete(), "{what} was not found");
    let number = frames.iter().rposition(|start| *start <= hit).map_or(1, |frame| frame as u64 + 1);
    let named = match verdict.outcome {
        Outcome::Truncated { after, .. } => after + 1, // its length now reaches beyond the file
        _ => bad_frame(&verdict).unwrap(),
    };
    assert_eq!(named, number, "{what}: {verdict}");
    assert!(verdict.proven < number, "{what}: {verdict}");
}

/// Every bit and every cut with `./tests/run --bits`; without it, some of them, each frame's head and end among them.
fn all() -> bool {
    std::env::var_os("TIDEGATE_TEST_BITS").is_some()
}

/// In the head of a frame, or where it begins or ends.
fn near(frames: &[usize], at: usize) -> bool {
    let next = frames.partition_point(|start| *start <= at);
    next.checked_sub(1).is_some_and(|before| at < frames[before] + 29) || at + 4 >= frames[next.min(frames.len() - 1)]
}

#[test]
fn heavy_each_flipped_bit_of_64_kib_is_found_and_its_frame_named() {
    let (bench, bytes, frames) = large();
    assert!((60 * 1024..72 * 1024).contains(&bytes.len()) && frames.len() > 40, "{} bytes", bytes.len());
    let bits = (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit)));
    let flips: Vec<(usize, u32)> =
        bits.filter(|(at, bit)| all() || *at % 8 == *bit as usize && (near(&frames, *at) || at % 16 < 2)).collect();
    std::thread::scope(|scope| {
        for share in flips.chunks(flips.len().div_ceil(2)) {
            let (key, frames, mut bytes) = (&bench.key, &frames, bytes.clone());
            scope.spawn(move || {
                for (at, bit) in share {
                    bytes[*at] ^= 1 << bit;
                    found(&bytes, key, frames, *at, &format!("bit {bit} of byte {at}"));
                    bytes[*at] ^= 1 << bit;
                }
            });
        }
    });
    println!("{} bits of {} bytes flipped, each found and its frame named", flips.len(), bytes.len());
}

#[test]
fn heavy_a_recording_of_64_kib_cut_at_any_byte_is_never_complete() {
    let (bench, bytes, frames) = large();
    let cuts: Vec<usize> = (0..bytes.len()).filter(|at| all() || near(&frames, *at) || at % 31 == 0).collect();
    for length in cuts.iter().copied() {
        let Ok(verdict) = verify_from(&bytes[..length], &bench.key) else {
            assert!(length < frames[0], "cut at {length}");
            continue;
        };
        let whole = frames.iter().filter(|start| **start <= length).count() as u64 - 1;
        assert!(matches!(verdict.outcome, Outcome::Truncated { after, .. } if after == whole), "{length}: {verdict}");
    }
    println!("cut at {} of {} bytes, each time named as truncated", cuts.len(), bytes.len());
}

#[test]
fn every_cut_tail_is_found() {
    let (bench, bytes, frames) = small();
    for length in 0..bytes.len() {
        let cut = &bytes[..length];
        match verify_from(cut, &bench.key) {
            Err(_) => assert!(length < frames[0]),
            Ok(verdict) => {
                let whole = frames.iter().filter(|start| **start <= length).count() as u64 - 1;
                assert!(matches!(verdict.outcome, Outcome::Truncated { after, .. } if after == whole), "{verdict}");
                let last = Replay::from_reader(cut, &bench.auditor, true).unwrap().last().unwrap().unwrap();
                assert_eq!(last.what, What::Truncated { after: whole });
            }
        }
    }
}

#[test]
fn missing_swapped_doubled_and_appended_frames_are_named() {
    let (bench, bytes, frames) = small();
    let frame = |n: usize| &bytes[frames[n - 1]..frames[n]];
    let last = frames.len() - 1;
    let build = |order: &[usize]| {
        let mut built = bytes[..frames[0]].to_vec();
        order.iter().for_each(|n| built.extend_from_slice(frame(*n)));
        verify_from(built.as_slice(), &bench.key).unwrap()
    };
    let all: Vec<usize> = (1..=last).collect();
    assert!(build(&all).is_complete());
    for n in 1..last {
        let missing: Vec<_> = all.iter().copied().filter(|m| *m != n).collect();
        assert_eq!(bad_frame(&build(&missing)), Some(n as u64), "frame {n} missing");
        let mut swapped = all.clone();
        swapped.swap(n - 1, n);
        assert_eq!(bad_frame(&build(&swapped)), Some(n as u64), "frame {n} swapped with the next");
        let mut doubled = all.clone();
        doubled.insert(n, n);
        assert_eq!(bad_frame(&build(&doubled)), Some(n as u64 + 1), "frame {n} doubled");
    }
    let mut appended = all.clone();
    appended.push(last);
    let verdict = build(&appended);
    assert_eq!(verdict.outcome, Outcome::Bad { frame: last as u64 + 1, fault: Fault::AfterEnd });
    let mut trailing = bytes.clone();
    trailing.push(0);
    assert!(!complete(&trailing, &bench.key));
}

#[test]
fn frames_and_headers_of_another_session_do_not_fit() {
    let (bench, bytes, at_frames) = small();
    let other = bench.start_as("other");
    other.note(data(Stream::Stdin, Keep::Whole, b"ls\r"), at(1)).unwrap();
    other.seal(at(2)).unwrap();
    let path = tidegate_recorder::storage::find(&bench.recordings(), "other").unwrap().path;
    let foreign = fs::read(path).unwrap();
    let foreign_frames = frames(&foreign);
    let spliced = [&bytes[..at_frames[1]], &foreign[foreign_frames[1]..]].concat();
    assert_eq!(bad_frame(&verify_from(spliced.as_slice(), &bench.key).unwrap()), Some(2));
    let beheaded = [&foreign[..foreign_frames[0]], &bytes[at_frames[0]..]].concat();
    let verdict = verify_from(beheaded.as_slice(), &bench.key).unwrap();
    assert_eq!((bad_frame(&verdict), verdict.proven), (Some(1), 0));
}

/// Somebody with the file but not the signing key changes a frame and repairs all hashes behind it.
#[test]
fn forged_chain_fails_at_the_next_signature() {
    let bench = bench(1024);
    let live = bench.start();
    live.note(data(Stream::Stdout, Keep::Whole, &noise(70_000)), at(1)).unwrap(); // frames 2 and 3, a checkpoint
    live.note(Event::Cancelled, at(2)).unwrap();
    live.note(Event::Cancelled, at(3)).unwrap();
    live.seal(at(4)).unwrap();
    let mut bytes = fs::read(bench.only_path()).unwrap();
    let starts = frames(&bytes);
    let changed = laid(&bytes).swap_remove(3).payload.start; // in frame 4
    bytes[changed] ^= 1;
    chain_anew(&mut bytes, 3, None);
    let verdict = verify_from(bytes.as_slice(), &bench.key).unwrap();
    let end = starts.len() as u64 - 1;
    assert_eq!(verdict.outcome, Outcome::Bad { frame: end, fault: Fault::Signature });
    assert_eq!(verdict.proven, 3, "{verdict}");
    // An auditor who decrypts finds the frame itself.
    let mut replay = Replay::from_reader(bytes.as_slice(), &bench.auditor, true).unwrap();
    let error = replay.find_map(Result::err).unwrap();
    assert!(error.to_string().starts_with("frame 4"), "{error}");
}

/// Somebody with a signing key of their own writes everything from some frame on anew, signatures included.
#[test]
fn a_tail_that_was_chained_and_signed_anew_under_another_key_is_found_wherever_it_begins() {
    let (bench, bytes, _) = large();
    let (stranger, frames) = (SigningKey::from_bytes(&[8; 32]), laid(&bytes));
    let mut tried = 0;
    for (from, frame) in frames.iter().enumerate().skip(1) {
        let mut forged = bytes.clone();
        // Its content, or its time if that is a signature.
        forged[if frame.kind() < 3 { frame.payload.start } else { frame.start + 28 }] ^= 1;
        chain_anew(&mut forged, from, Some(&stranger));
        let verdict = verify_from(forged.as_slice(), &bench.key).unwrap();
        let signed = frames.iter().skip(from).position(|frame| frame.kind() >= 3).unwrap();
        let frame = (from + signed) as u64 + 1;
        assert_eq!(verdict.outcome, Outcome::Bad { frame, fault: Fault::Signature }, "from frame {}", from + 1);
        assert!(verdict.proven <= from as u64);
        assert_eq!(verify_from(forged.as_slice(), &stranger.verifying_key()).unwrap().proven, 0, "nor under theirs");
        tried += 1;
    }
    println!("{tried} tails chained and signed anew, each found at its first signature");
}

/// Every frame of one recording in the place of every frame of another of the same session's format.
#[test]
fn no_frame_of_another_recording_fits_anywhere() {
    let (bench, bytes, ours) = large();
    let other = bench.start_as("other");
    for second in 1..30 {
        other.note(data(Stream::Stdout, Keep::Whole, b"ls\r"), at(second)).unwrap();
    }
    other.seal(at(40)).unwrap();
    let path = tidegate_recorder::storage::find(&bench.recordings(), "other").unwrap().path;
    let foreign = fs::read(path).unwrap();
    let theirs = frames(&foreign);
    let mut spliced = 0;
    for (n, place) in ours.windows(2).enumerate() {
        for frame in theirs.windows(2) {
            let inside = [&bytes[..place[0]], &foreign[frame[0]..frame[1]], &bytes[place[1]..]].concat();
            let verdict = verify_from(inside.as_slice(), &bench.key).unwrap();
            assert_eq!(bad_frame(&verdict), Some(n as u64 + 1), "{verdict}");
            spliced += 1;
        }
    }
    println!("{spliced} frames of another recording put in the place of one, each found and named");
}

#[test]
fn other_key_proves_nothing() {
    let (bench, ..) = small();
    let stranger = SigningKey::from_bytes(&[8; 32]).verifying_key();
    let verdict = verify(&bench.only_path(), &stranger).unwrap();
    assert_eq!(verdict.outcome, Outcome::Bad { frame: 1, fault: Fault::Signature });
    assert_eq!(verdict.proven, 0);
}

#[test]
fn lengths_that_claim_too_much_are_refused_before_they_are_believed() {
    let (bench, mut bytes, frames) = small();
    bytes[frames[0]..frames[0] + 4].copy_from_slice(&i32::MAX.to_be_bytes());
    let verdict = verify_from(bytes.as_slice(), &bench.key).unwrap();
    assert_eq!(bad_frame(&verdict), Some(1));
    bytes[10..14].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(verify_from(bytes.as_slice(), &bench.key).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), tail in any::<bool>()) {
        let key = SigningKey::from_bytes(&[7; 32]).verifying_key();
        let bytes = if tail { [b"tgrec\r\n\x1a\0\x03".as_slice(), &bytes].concat() } else { bytes };
        prop_assert!(!complete(&bytes, &key));
    }
}
