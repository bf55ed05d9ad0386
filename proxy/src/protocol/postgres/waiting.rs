//! What a client says by its start-up settings when it holds no grant.
//!
//! It waits only if it says so: a driver or a pool that knows nothing of this gets its error at once.

use crate::waiting::{Said, Words};
use std::{collections::BTreeMap, time::Duration};
use tidegate_grants::{RequestView, duration};

/// How long somebody waits who gave a reason and did not say for how long.
const PATIENCE: Duration = Duration::from_secs(600);

/// `tidegate.reason`, `tidegate.ticket`, `tidegate.for`, `tidegate.wait`.
pub(super) fn words(ours: &BTreeMap<String, String>, standing: Option<&RequestView>) -> Words {
    let value = |name: &str| ours.get(name).cloned();
    let time = |name: &str| value(name).map(|text| duration::parse(&text)).transpose();
    let (Ok(length), Ok(patience)) = (time("tidegate.for"), time("tidegate.wait")) else { return Words::Silent };
    let (reason, ticket) = (value("tidegate.reason"), value("tidegate.ticket"));
    let asks = reason.is_some() || ticket.is_some() || (standing.is_some() && patience.is_some());
    if !asks {
        return Words::Silent;
    }
    Words::Asks(Said { entitlement: None, reason, ticket, duration: length, patience: patience.or(Some(PATIENCE)) })
}
