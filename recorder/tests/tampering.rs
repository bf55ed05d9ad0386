//! Whatever is done to a recording's bytes, a verdict says so, and nothing panics.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs, reason = "tests")]

mod support;

use ed25519_dalek::{SigningKey, VerifyingKey};
use proptest::prelude::*;
use std::fs;
use support::{Bench, at, bench, data};
use tidegate_recorder::{
    Event, Keep, Stream,
    replay::{Replay, What},
    verify::{Fault, Outcome, Verdict, verify, verify_from},
};

/// A small sealed recording with several checkpoints, its bytes, and where its frames begin.
fn small() -> (Bench, Vec<u8>, Vec<usize>) {
    let bench = bench(1024);
    let path = bench.sealed(&[
        data(Stream::Stdin, Keep::Whole, b"ls\r"),
        data(Stream::Stdout, Keep::Whole, b"a b c\r\n"),
        data(Stream::Stdout, Keep::Count, b"counted"),
        Event::Exited { channel: 1, status: Some(0), signal: None },
    ]);
    let bytes = fs::read(path).unwrap();
    let frames = frames(&bytes);
    (bench, bytes, frames)
}

fn frames(bytes: &[u8]) -> Vec<usize> {
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let mut starts = vec![14 + number(10)];
    while *starts.last().unwrap() < bytes.len() {
        let at = *starts.last().unwrap();
        starts.push(at + 4 + number(at));
    }
    starts
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
    use sha2::{Digest, Sha256};
    let bench = bench(1024);
    let live = bench.start();
    live.note(data(Stream::Stdout, Keep::Whole, &[b'x'; 70_000]), at(1)).unwrap(); // frames 2 and 3, a checkpoint
    live.note(Event::Cancelled, at(2)).unwrap();
    live.note(Event::Cancelled, at(3)).unwrap();
    live.seal(at(4)).unwrap();
    let mut bytes = fs::read(bench.only_path()).unwrap();
    let starts = frames(&bytes);
    bytes[starts[3] + 30] ^= 1; // frame 4
    let mut hash: [u8; 32] = bytes[starts[3] - 32..starts[3]].try_into().unwrap();
    for pair in starts.windows(2).skip(3) {
        hash = Sha256::new().chain_update(hash).chain_update(&bytes[pair[0]..pair[1] - 32]).finalize().into();
        bytes[pair[1] - 32..pair[1]].copy_from_slice(&hash);
    }
    let verdict = verify_from(bytes.as_slice(), &bench.key).unwrap();
    let end = starts.len() as u64 - 1;
    assert_eq!(verdict.outcome, Outcome::Bad { frame: end, fault: Fault::Signature });
    assert_eq!(verdict.proven, 3, "{verdict}");
    // An auditor who decrypts finds the frame itself.
    let mut replay = Replay::from_reader(bytes.as_slice(), &bench.auditor, true).unwrap();
    let error = replay.find_map(Result::err).unwrap();
    assert!(error.to_string().starts_with("frame 4"), "{error}");
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
    bytes[frames[1]..frames[1] + 4].copy_from_slice(&u32::MAX.to_be_bytes());
    let verdict = verify_from(bytes.as_slice(), &bench.key).unwrap();
    assert_eq!(bad_frame(&verdict), Some(2));
    bytes[10..14].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(verify_from(bytes.as_slice(), &bench.key).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), tail in any::<bool>()) {
        let key = SigningKey::from_bytes(&[7; 32]).verifying_key();
        let bytes = if tail { [b"tgrec\r\n\x1a\0\x01".as_slice(), &bytes].concat() } else { bytes };
        prop_assert!(!complete(&bytes, &key));
    }
}
