//! The end of a session is told before it comes: five minutes, and one; and where an extension moves it, that is told, and the new end
//! like the old one. The same for every protocol; each tells it in its own way.

use crate::refusal::Refusal;
use futures::{Stream, stream};
use std::time::Duration;
use tidegate_grants::{Permit, duration};
use tokio::time::sleep;

/// So long before the end, in this order.
const BEFORE: [Duration; 2] = [Duration::from_secs(300), Duration::from_secs(60)];

/// What is to be told, when its time has come; it has no end. A session that is shorter is told at its beginning nothing that it knows.
pub(crate) fn ends(permit: &Permit) -> impl Stream<Item = Refusal> + Send + '_ {
    stream::unfold((permit.moves(), None), move |(mut moves, told)| async move {
        let to_come = |before: &Duration| told.is_none_or(|told| *before < told) && permit.left() > *before;
        let next = BEFORE.into_iter().find(to_come);
        tokio::select! {
            before = comes(permit, next) => Some((soon(permit, before), (moves, Some(before)))),
            () = moves.next() => Some((moved(permit), (moves, None))),
        }
    })
}

/// When it is so long before the end.
async fn comes(permit: &Permit, before: Option<Duration>) -> Duration {
    let Some(before) = before else { return std::future::pending().await };
    sleep(permit.left().saturating_sub(before)).await;
    before
}

fn soon(permit: &Permit, before: Duration) -> Refusal {
    let more = match permit.entitlement().asking.as_ref().is_some_and(|asking| asking.extend) {
        true => format!("or ask for more: `ssh gate extend {}`", permit.grant().short()),
        false => "or ask for more and connect again: `ssh gate request`".to_owned(),
    };
    let sentence = format!("this session ends in {}", duration::show(before));
    Refusal::new(sentence).next(format!("finish what you are doing, {more}")).by("expired")
}

fn moved(permit: &Permit) -> Refusal {
    let end = permit.expires().strftime("%Y-%m-%dT%H:%M:%SZ");
    Refusal::new(format!("this session was extended and goes on until {end}")).by("extended")
}
