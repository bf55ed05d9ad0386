//! `break_glass`: an entitlement for when nobody who could say yes can be reached. What makes it bearable is not left to whoever writes the
//! file: a reason, a second factor, a short life, somebody who hears of it, and a review.

use super::section::Section;
use std::time::Duration;
use tidegate_grants::{
    Asking, Mfa,
    asking::{Clock, Need},
};

/// Nobody's emergency needs more before somebody else has woken up.
const LONGEST: Duration = Duration::from_secs(4 * 60 * 60);

/// What breaking the glass demands beside the rest of its entitlement. False: it has said why.
pub(super) fn held(section: &Section<'_>, asking: &Asking, mfa: Mfa, longest: Duration) -> bool {
    if !asking.break_glass {
        return true;
    }
    let wrongs = [
        (
            !asking.levels.is_empty(),
            "approvals",
            "asks others, and breaking the glass asks nobody",
            "write approvals = []",
        ),
        (
            asking.extend,
            "extend",
            "has no place where the glass is broken",
            "take it out: who needs more breaks it again",
        ),
        (
            asking.clock != Clock::Approval,
            "clock",
            "must not be \"first-use\" where the glass is broken: who breaks it needs it now",
            "take it out",
        ),
        (asking.reason != Need::Required, "reason", "must be given where the glass is broken", "take it out"),
        (
            mfa == Mfa::None,
            "mfa",
            "must not be \"none\" where the glass is broken",
            "write mfa = \"session\", and enrol those who may",
        ),
        (
            longest > LONGEST,
            "max_duration",
            "is longer than 4h, and what breaks the glass ends soon",
            "write \"1h\": who needs more breaks it again",
        ),
    ];
    let mut right = true;
    for (_, key, wrong, fix) in wrongs.into_iter().filter(|(wrong, ..)| *wrong) {
        section.fault(key, wrong, fix);
        right = false;
    }
    right
}
