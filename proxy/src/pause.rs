//! Named points at which a fault test stops the gateway, to kill it from outside.
//!
//! With the Cargo feature `pause-points`, a gateway whose environment has `TIDEGATE_PAUSE_AT=NAME` and
//! `TIDEGATE_PAUSED=FILE` writes FILE when it comes to that point, and waits there for ever. Without the feature there is
//! nothing here.

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
