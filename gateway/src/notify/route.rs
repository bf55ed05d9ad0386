//! Which entries of the ledger a channel is told of.

use std::{fmt, str::FromStr};
use tidegate_grants::Event;

/// One of the `kinds` of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A word for several kinds.
    Group(Group),
    /// One kind of the ledger.
    Exactly(String),
    /// All that begin with this.
    Below(String),
}

/// Words for what people want to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// Somebody let themselves in, in an emergency; and the review of it.
    BreakGlass,
    /// Somebody who is known was not let in. (Strangers at the door are `door.refused`: anybody can cause these without end, and
    /// a channel tells one entry after the other.)
    Denial,
    /// Something is left on a target.
    Teardown,
    /// Something of ours is on a target without a lease.
    Orphan,
    /// A session was ended or refused since it could not be recorded, or recordings have hardly any room left.
    Recording,
    /// Somebody asked for a grant, or was answered.
    Request,
    /// Somebody's grant ends within minutes.
    Expiry,
    /// Locks.
    Lock,
    /// Somebody was given a second factor, or it was taken away.
    Mfa,
    /// The store does not agree with its ledger, or was restored.
    Store,
}

const GROUPS: [(&str, Group); 10] = [
    ("break_glass", Group::BreakGlass),
    ("denial", Group::Denial),
    ("teardown", Group::Teardown),
    ("orphan", Group::Orphan),
    ("recording", Group::Recording),
    ("request", Group::Request),
    ("expiry", Group::Expiry),
    ("lock", Group::Lock),
    ("mfa", Group::Mfa),
    ("store", Group::Store),
];

/// Ours: telling of these could go round in circles.
const OWN: &str = "notify.";

impl Kind {
    /// Whether the channel is told of it.
    pub(crate) fn includes(&self, event: &Event) -> bool {
        let kind = event.kind.as_str();
        if kind.starts_with(OWN) {
            return false;
        }
        match self {
            Self::Exactly(exactly) => kind == exactly,
            Self::Below(prefix) => kind.starts_with(prefix.as_str()),
            Self::Group(group) => group.includes(kind, event),
        }
    }
}

impl Group {
    fn includes(self, kind: &str, event: &Event) -> bool {
        let unrecorded = || event.detail.get("check").is_some_and(|check| check == "recording");
        match self {
            Self::BreakGlass => matches!(kind, "review.demanded" | "review.signed"),
            Self::Denial => kind == "session.denied",
            Self::Teardown => matches!(kind, "lease.failed" | "lease.held"),
            Self::Orphan => kind == "orphan.found",
            Self::Recording => {
                kind == "recording.budget" || matches!(kind, "session.denied" | "session.cut") && unrecorded()
            }
            Self::Request => kind.starts_with("request."),
            Self::Expiry => kind == "grant.ending",
            Self::Lock => matches!(kind, "lock.added" | "lock.removed"),
            Self::Mfa => matches!(kind, "mfa.enrolled" | "mfa.removed"),
            Self::Store => matches!(kind, "store.distrusted" | "store.restored" | "peer.diverged"),
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, group)) = GROUPS.iter().find(|(name, _)| *name == text) {
            return Ok(Self::Group(*group));
        }
        let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        match text.split_once('.') {
            Some((subject, "*")) if word(subject) => Ok(Self::Below(format!("{subject}."))),
            Some((subject, what)) if word(subject) && word(what) => Ok(Self::Exactly(text.to_owned())),
            _ => Err("is no kind".to_owned()),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(group) => {
                let name = GROUPS.iter().find(|(_, known)| known == group).map_or("", |(name, _)| name);
                f.write_str(name)
            }
            Self::Exactly(kind) => f.write_str(kind),
            Self::Below(prefix) => write!(f, "{prefix}*"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_say_what_a_channel_is_told_of() {
        let cut = Event::new("session.cut").detail(json!({ "check": "recording" }));
        for (kind, event, included) in [
            ("break_glass", Event::new("review.demanded"), true),
            ("break_glass", Event::new("request.granted"), false),
            ("denial", Event::new("session.denied"), true),
            ("denial", Event::new("session.opened"), false),
            ("denial", Event::new("door.refused"), false),
            ("door.refused", Event::new("door.refused"), true),
            ("recording", cut.clone(), true),
            ("recording", Event::new("session.cut").detail(json!({ "check": "expired" })), false),
            ("session.cut", cut, true),
            ("request", Event::new("request.opened"), true),
            ("expiry", Event::new("grant.ending"), true),
            ("expiry", Event::new("grant.issued"), false),
            ("lease.*", Event::new("lease.held"), true),
            ("lease.*", Event::new("leases.held"), false),
            ("notify.*", Event::new("notify.dead"), false),
        ] {
            let parsed: Kind = kind.parse().unwrap();
            assert_eq!(parsed.includes(&event), included, "{kind} of {}", event.kind);
            assert_eq!(parsed.to_string(), kind);
        }
        for wrong in ["", "*", "denials", ".x", "lease.", "lease.*.x", "Lease.held", "lease held"] {
            assert!(wrong.parse::<Kind>().is_err(), "{wrong}");
        }
    }
}
