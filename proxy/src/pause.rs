//! Named points at which a fault test stops the gateway, to kill it from outside.
//!
//! With the Cargo feature `pause-points`, a gateway whose environment has `TIDEGATE_PAUSE_AT=NAME` and
//! `TIDEGATE_PAUSED=FILE` writes FILE when it comes to that point, and waits there for ever. Without the feature there is
//! nothing here.
//!
//! The same twin program has a clock that a test can set: `TIDEGATE_CLOCK_OFFSET=FILE` names a file with seconds that are added;
//! and new keys of SSH are asked for after `TIDEGATE_NEW_KEYS_AFTER` bytes.

use crate::gate::Clock;
use jiff::Timestamp;

/// The machine's time.
#[cfg(not(feature = "pause-points"))]
pub const CLOCK: Clock = Timestamp::now;

/// The machine's time, and what a test adds to it.
#[cfg(feature = "pause-points")]
pub const CLOCK: Clock = || {
    let file = std::env::var("TIDEGATE_CLOCK_OFFSET").ok();
    let added = file.and_then(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok()).unwrap_or(0);
    Timestamp::now() + jiff::SignedDuration::from_secs(added)
};

/// After how many bytes a test wants new keys of SSH.
#[cfg(not(feature = "pause-points"))]
pub const fn new_keys_after() -> Option<usize> {
    None
}

/// After how many bytes a test wants new keys of SSH.
#[cfg(feature = "pause-points")]
pub fn new_keys_after() -> Option<usize> {
    std::env::var("TIDEGATE_NEW_KEYS_AFTER").ok()?.parse().ok()
}

/// Stops here if a test asked for it.
#[cfg(not(feature = "pause-points"))]
#[inline]
pub async fn at(_point: &str) {}

/// Stops here if a test asked for it.
#[cfg(feature = "pause-points")]
pub async fn at(point: &str) {
    if std::env::var("TIDEGATE_PAUSE_AT").is_ok_and(|wanted| wanted == point) {
        if let Ok(file) = std::env::var("TIDEGATE_PAUSED") {
            std::fs::write(file, point).ok();
        }
        std::future::pending::<()>().await;
    }
}
