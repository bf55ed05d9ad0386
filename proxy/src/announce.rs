//! The end of a session is told before it comes: five minutes, and one. The same for every protocol; each tells it in its own way.

use crate::refusal::Refusal;
use futures::{Stream, StreamExt as _, stream};
use std::time::Duration;
use tidegate_grants::{Permit, duration};
use tokio::time::sleep;

/// So long before the end, in this order.
const BEFORE: [Duration; 2] = [Duration::from_secs(300), Duration::from_secs(60)];

/// What is to be told, when its time has come. A session that is shorter is told at its beginning nothing that it knows.
pub(crate) fn ends(permit: &Permit) -> impl Stream<Item = Refusal> + Send + '_ {
    let to_come = BEFORE.into_iter().filter(|before| permit.left() > *before);
    stream::iter(to_come).then(move |before| async move {
        sleep(permit.left().saturating_sub(before)).await;
        Refusal::new(format!("this session ends in {}", duration::show(before)))
            .next("finish what you are doing, or ask for more and connect again: `ssh gate request`")
            .by("expired")
    })
}
