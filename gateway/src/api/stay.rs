//! Connections that last: somebody watches a session over them.

use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Whether a connection is one. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Stay(CancellationToken);

impl Stay {
    /// It is from now on.
    pub(super) fn on(&self) {
        self.0.cancel();
    }

    /// Waits for the deadline of a connection, which one that lasts has not got.
    pub(super) async fn past(&self, deadline: Duration) {
        sleep(deadline).await;
        if self.0.is_cancelled() {
            std::future::pending::<()>().await;
        }
    }
}
