//! The replay window: what the gateway itself can read, and until when.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs, reason = "tests")]

mod support;

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::Duration,
};
use support::{Bench, SESSION, at, bench, data};
use tidegate_recorder::{Event, Keep, Stream, Window, replay::What, window::ReplayError};

/// 3600 s, which is when `sealed` ends; the window is as long again.
const HOUR: Duration = Duration::from_secs(3600);

fn keys(bench: &Bench) -> PathBuf {
    bench.dir.path().join("replay")
}

fn window(bench: &Bench, length: Duration) -> Window {
    Window::open(&keys(bench), &bench.recordings(), length).unwrap()
}

fn with_window(length: Duration) -> Bench {
    let bench = bench(1024);
    let window = window(&bench, length);
    Bench { recorder: bench.recorder.keep_keys(window), ..bench }
}

fn seen() -> [Event; 2] {
    [data(Stream::Stdin, Keep::Whole, b"typed"), data(Stream::Stdout, Keep::Whole, b"seen")]
}

fn files(bench: &Bench) -> Vec<PathBuf> {
    fs::read_dir(keys(bench)).into_iter().flatten().map(|item| item.unwrap().path()).collect()
}

#[test]
fn within_its_window_a_recording_is_shown_without_keystrokes_and_then_no_more() {
    let bench = with_window(HOUR);
    bench.sealed(&seen());
    let (replay, verdict) = bench.recorder.replay(SESSION, at(7199)).unwrap();
    assert!(verdict.is_complete());
    let moments: Vec<What> = replay.map(|moment| moment.unwrap().what).collect();
    assert!(moments.contains(&What::Event(data(Stream::Stdout, Keep::Whole, b"seen"))), "{moments:?}");
    assert!(moments.iter().any(|what| matches!(what, What::Withheld { .. })));
    assert!(!format!("{moments:?}").contains("Stdin, keep"), "{moments:?}");
    // Whether it has been destroyed already or not.
    assert!(matches!(bench.recorder.replay(SESSION, at(7200)), Err(ReplayError::NoKey)));
    // What the auditor reads is as it was.
    assert_eq!(bench.events(), seen());
}

#[test]
fn a_key_is_overwritten_in_its_place_when_it_is_due() {
    let bench = with_window(HOUR);
    bench.sealed(&seen());
    let [file] = &files(&bench)[..] else { panic!("one key") };
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(keys(&bench)).unwrap().permissions().mode() & 0o777, 0o700);
    let mut held = File::open(file).unwrap();
    let key = fs::read(file).unwrap();
    let window = bench.recorder.window().unwrap();
    assert!(window.sweep(at(7199)).is_empty());
    assert_eq!(fs::read(file).unwrap(), key);
    let swept = window.sweep(at(7200));
    assert!(matches!(&swept[..], [(session, Ok(()))] if session == SESSION), "{swept:?}");
    assert!(files(&bench).is_empty());
    let mut left = Vec::new();
    held.read_to_end(&mut left).unwrap();
    assert_eq!(left, vec![0; key.len()]);
    assert!(window.sweep(at(9999)).is_empty());
}

#[test]
fn a_restart_within_the_window_keeps_the_key_and_one_after_it_destroys_it() {
    let bench = with_window(HOUR);
    bench.sealed(&seen());
    let again = window(&bench, HOUR);
    assert!(again.sweep(at(7199)).is_empty());
    let bench = Bench { recorder: bench.recorder.keep_keys(again), ..bench };
    bench.recorder.replay(SESSION, at(7199)).unwrap();
    assert_eq!(window(&bench, HOUR).sweep(at(7200)).len(), 1);
    assert!(files(&bench).is_empty());
}

#[test]
fn a_longer_window_does_not_keep_what_was_promised_for_a_shorter_one() {
    let bench = with_window(HOUR);
    bench.sealed(&seen());
    let longer = window(&bench, 24 * HOUR);
    assert!(longer.sweep(at(7199)).is_empty());
    assert_eq!(longer.sweep(at(7200)).len(), 1);
}

#[test]
fn a_shorter_window_is_in_force_at_once() {
    let bench = with_window(HOUR);
    bench.sealed(&seen());
    assert_eq!(window(&bench, Duration::ZERO).sweep(at(3600)).len(), 1);
    assert!(files(&bench).is_empty());
}

#[test]
fn a_live_session_keeps_its_key_and_one_that_was_killed_counts_from_its_last_frame() {
    let bench = with_window(HOUR);
    let live = bench.start();
    live.note(seen()[1].clone(), at(10)).unwrap();
    let window = bench.recorder.window().unwrap();
    assert!(window.sweep(at(100_000)).is_empty());
    assert!(matches!(bench.recorder.replay(SESSION, at(11)), Err(ReplayError::Live)));
    drop(live); // killed
    bench.recorder.replay(SESSION, at(10 + 3599)).unwrap();
    assert_eq!(window.sweep(at(10 + 3600)).len(), 1);
}

#[test]
fn without_a_window_nothing_is_kept_and_the_header_says_which_it_was() {
    let bench = with_window(Duration::ZERO);
    let path = bench.sealed(&seen());
    assert!(!keys(&bench).exists());
    assert!(matches!(bench.recorder.replay(SESSION, at(3601)), Err(ReplayError::NoKey)));
    let header = |path: PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    assert!(!header(path).contains("replay_window_s"));
    let bench = with_window(HOUR);
    assert!(header(bench.sealed(&seen())).contains("\"replay_window_s\":3600"));
}

#[test]
fn a_changed_or_swapped_recording_is_not_shown() {
    let bench = with_window(HOUR);
    let path = bench.sealed(&seen());
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() - 200;
    bad[middle] ^= 1;
    fs::write(&path, bad).unwrap();
    assert!(matches!(bench.recorder.replay(SESSION, at(3601)), Err(ReplayError::Changed(_))));
    let other = bench.start_as("019aa1b2-0000-7000-8000-0000000000bb");
    other.seal(at(3600)).unwrap();
    let swapped = path.with_file_name("019aa1b2-0000-7000-8000-0000000000bb.tgr");
    fs::copy(swapped, &path).unwrap();
    assert!(matches!(bench.recorder.replay(SESSION, at(3601)), Err(ReplayError::Changed(_))));
    fs::remove_file(&path).unwrap();
    assert!(bench.recorder.replay(SESSION, at(3601)).is_err());
    assert_eq!(bench.recorder.window().unwrap().sweep(at(3601)).len(), 1, "a key to nothing is not kept");
}

#[test]
fn a_torn_key_opens_nothing_and_goes() {
    let bench = with_window(HOUR);
    bench.sealed(&seen());
    let [file] = &files(&bench)[..] else { panic!("one key") };
    fs::write(file, b"short").unwrap();
    assert!(matches!(bench.recorder.replay(SESSION, at(3601)), Err(ReplayError::Read(_))));
    assert_eq!(window(&bench, HOUR).sweep(at(3601)).len(), 1);
    assert!(files(&bench).is_empty());
}
