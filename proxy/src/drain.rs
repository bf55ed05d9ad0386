//! How the gateway stops: nobody new is let in, who is in is told and may finish, and what is left then is cut.
//!
//! Apart from `Gate::stopping`, which cuts: between the two lies `gateway.drain` of the configuration.

use crate::refusal::Refusal;
use jiff::Timestamp;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

/// Whether it has begun, and who is still in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Drain {
    until: Arc<watch::Sender<Option<Timestamp>>>,
    sessions: TaskTracker,
}

impl Default for Drain {
    fn default() -> Self {
        Self { until: Arc::new(watch::Sender::new(None)), sessions: TaskTracker::new() }
    }
}

impl Drain {
    /// From now on nobody new is let in, and who is in may stay until then.
    pub fn begin(&self, until: Timestamp) {
        self.until.send_replace(Some(until));
        self.sessions.close();
    }

    /// Why nobody new is let in, if it has begun.
    pub fn refusal(&self) -> Option<Refusal> {
        (*self.until.borrow()).map(|_| {
            Refusal::new("the gateway is being stopped, and lets nobody in")
                .next("connect again in a moment")
                .by("stopping")
        })
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.until.borrow().is_some()
    }

    /// Waits until it begins, and returns what those who are in are told then.
    pub async fn begun(&self) -> Refusal {
        let mut until = self.until.subscribe();
        let begun = until.wait_for(Option::is_some).await.ok().and_then(|until| *until);
        let Some(until) = begun else { return std::future::pending().await };
        let at = until.strftime("%H:%M:%S UTC");
        Refusal::new(format!("the gateway is being stopped: this session ends at {at}"))
            .next("finish what you are doing, and connect again in a moment")
            .by("stopping")
    }

    /// Held by a session from before it is let in until its teardown is done.
    pub fn visit(&self) -> TaskTrackerToken {
        self.sessions.token()
    }

    /// How many sessions are in.
    pub fn visits(&self) -> usize {
        self.sessions.len()
    }

    /// Waits until nobody is in. Never, before it has begun.
    pub async fn empty(&self) {
        self.sessions.wait().await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_comes_after_it_has_begun_is_refused_and_who_is_in_is_waited_for() {
        let drain = Drain::default();
        let visit = drain.visit();
        assert!(drain.refusal().is_none());
        drain.begin("2026-11-22T10:00:30Z".parse().unwrap());
        assert_eq!(drain.refusal().unwrap().check, "stopping");
        assert!(drain.begun().await.sentence.ends_with("10:00:30 UTC"));
        let empty = tokio::spawn({
            let drain = drain.clone();
            async move { drain.empty().await }
        });
        assert_eq!(drain.visits(), 1);
        drop(visit);
        empty.await.unwrap();
    }
}
