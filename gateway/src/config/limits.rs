//! `[limits]` and `[metrics]`: how many may come in, and who may watch from outside.

use super::{
    section::{Section, Spot},
    value::{self, DURATION_FIX},
};
use std::{fmt::Write as _, net::SocketAddr, time::Duration};
use tidegate_grants::SessionLimits;
use tidegate_proxy::{places, protocol::proxied::Network};

/// What `[limits]` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Connections of each door.
    pub(crate) door: places::Limits,
    /// Sessions.
    pub(crate) sessions: SessionLimits,
}

/// More descriptors than this no process gets.
const MOST: i64 = 1_000_000;

pub(super) fn limits(root: &Section<'_>) -> Option<Limits> {
    let mut limits = Limits::default();
    let Some(section) = root.section("limits") else {
        return (!root.has("limits")).then_some(limits);
    };
    let (door, sessions) = (&mut limits.door, &mut limits.sessions);
    let mut sound = true;
    for (key, place) in [
        ("connections", &mut door.connections),
        ("connections_per_source", &mut door.connections_per_source),
        ("handshakes", &mut door.handshakes),
        ("handshakes_per_source", &mut door.handshakes_per_source),
    ] {
        sound &= count(&section, key, place);
    }
    for (key, place) in
        [("sessions_per_identity", &mut sessions.per_identity), ("sessions_per_target", &mut sessions.per_target)]
    {
        sound &= count(&section, key, place);
    }
    if let Some(timeout) = section.text("handshake_timeout") {
        let parsed = timeout.parse(value::positive_duration, DURATION_FIX).and_then(short);
        sound &= parsed.is_some();
        door.handshake_timeout = parsed.unwrap_or(door.handshake_timeout);
    }
    section.unknown();
    sound.then_some(limits)
}

fn short(timeout: Spot<'_, Duration>) -> Option<Duration> {
    if timeout.value > Duration::from_secs(300) {
        timeout.fault("is longer than 5 minutes: strangers would hold their places for so long", "write \"20s\"");
        return None;
    }
    Some(timeout.value)
}

/// A count from 1 on, if the key is there. False has said why.
fn count<T: TryFrom<i64>>(section: &Section<'_>, key: &'static str, place: &mut T) -> bool {
    let Some(number) = section.integer(key) else { return !section.has(key) };
    match T::try_from(number.value).ok().filter(|_| (1..=MOST).contains(&number.value)) {
        Some(value) => {
            *place = value;
            true
        }
        None => {
            number.fault("is not between 1 and 1000000", "write how many there may be at once");
            false
        }
    }
}

/// Where metrics are served, if they are. `None` has said why.
pub(super) fn metrics(root: &Section<'_>) -> Option<Option<SocketAddr>> {
    const FIX: &str = "write an IP address and a port, like \"127.0.0.1:9464\"";
    let Some(section) = root.section("metrics") else {
        return (!root.has("metrics")).then_some(None);
    };
    let listen = section.need("listen", section.text("listen"), FIX).and_then(|at| at.parse(value::listen, FIX));
    section.unknown();
    listen.map(|at| Some(at.value))
}

/// `proxy_protocol_from` of a door. `None` has said why.
pub(super) fn proxied(section: &Section<'_>) -> Option<Vec<Network>> {
    const FIX: &str = "list your balancers' addresses or networks, like [\"10.0.0.0/8\"]";
    let Some(list) = section.texts("proxy_protocol_from") else {
        return (!section.has("proxy_protocol_from")).then(Vec::new);
    };
    let networks: Vec<_> = list.value.into_iter().map(|item| item.parse(str::parse::<Network>, FIX)).collect();
    networks.into_iter().map(|network| network.map(|network| network.value)).collect()
}

/// For `check`.
pub(super) fn write_limits(out: &mut String, limits: &Limits, drain: Duration) -> std::fmt::Result {
    let Limits { door, sessions } = limits;
    writeln!(
        out,
        "  limits   {} connections at each door, {} from one address; {} that have not logged in, {} from one address, for {}",
        door.connections,
        door.connections_per_source,
        door.handshakes,
        door.handshakes_per_source,
        value::show_duration(door.handshake_timeout)
    )?;
    writeln!(
        out,
        "           {} sessions of one person, {} on one target; {} to finish when the gateway is stopped",
        sessions.per_identity,
        sessions.per_target,
        value::show_duration(drain)
    )
}
