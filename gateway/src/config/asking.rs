//! How an entitlement is asked for: `approvals`, `break_glass`, `clock`, `escalate`, `reason` and `ticket`.

use super::{
    gateway::groups,
    section::{Section, TextSpot},
    value::{self, DURATION_FIX},
};
use crate::tickets;
use std::collections::BTreeSet;
use tidegate_grants::{
    Asking, GroupName, Proof,
    asking::{Clock, Escalation, LevelRule, Need, TicketRule},
};

/// What has no meaning where nobody can ask.
const BESIDE: [&str; 5] = ["clock", "escalate", "extend", "reason", "ticket"];
const LEVEL_FIX: &str = "write a level like { from = [\"sre-leads\"], count = 1 }, or [] to grant at once";
/// More levels than this nobody waits for.
const MOST_LEVELS: usize = 8;
/// More people than this nobody finds.
const MOST_PEOPLE: i64 = 16;

/// Without `approvals` it cannot be asked for, unless it breaks the glass. The outer `None` has said why.
pub(super) fn asking(section: &Section<'_>) -> Option<Option<Asking>> {
    let levels: Vec<Option<LevelRule>> = section.sections("approvals").iter().map(level).collect();
    let break_glass = section.boolean("break_glass").is_some_and(|glass| glass.value);
    if !section.has("approvals") && !break_glass {
        let wrong = "is for what can be asked for, and this entitlement has no approvals";
        section.misplaced(&BESIDE, wrong, "write approvals = [{ from = [\"sre-leads\"] }], or [] to grant at once");
        return Some(None);
    }
    if levels.len() > MOST_LEVELS {
        section.fault("approvals", format!("has more than {MOST_LEVELS} levels"), "ask fewer people");
        return None;
    }
    let reason = match section.text("reason") {
        None if !section.has("reason") => Some(Need::Required),
        text => need(&text?),
    };
    let ticket = match section.section("ticket") {
        None if !section.has("ticket") => Some(None),
        ticket => ticket_rule(&ticket?).map(Some),
    };
    let escalate = match section.section("escalate") {
        None if !section.has("escalate") => Some(None),
        escalate => escalation(&escalate?).map(Some),
    };
    let extend = match section.text("extend") {
        None if !section.has("extend") => Some(false),
        extend => once(&extend?),
    };
    let clock = match section.text("clock") {
        None if !section.has("clock") => Some(Clock::Approval),
        clock => clock_of(&clock?),
    };
    let levels: Option<Vec<LevelRule>> = levels.into_iter().collect();
    Some(Some(Asking {
        levels: levels?,
        escalate: escalate?,
        reason: reason?,
        ticket: ticket?,
        extend: extend?,
        clock: clock?,
        break_glass,
    }))
}

fn level(section: &Section<'_>) -> Option<LevelRule> {
    let from = people(section, "from");
    let count = match section.integer("count") {
        None if !section.has("count") => Some(1),
        None => None,
        Some(count) => {
            let number = u32::try_from(count.value).ok().filter(|_| (1..=MOST_PEOPLE).contains(&count.value));
            if number.is_none() {
                count.fault(format!("is not between 1 and {MOST_PEOPLE}"), "write how many of them must say yes");
            }
            number
        }
    };
    let proof = match section.text("proof") {
        None if !section.has("proof") => Some(Proof::Attested),
        proof => proof.and_then(|proof| proof.parse(str::parse::<Proof>, "write one of them")).map(|proof| proof.value),
    };
    section.unknown();
    Some(LevelRule { from: from?, count: count?, proof: proof? })
}

/// Groups, at least one.
fn people(section: &Section<'_>, key: &'static str) -> Option<BTreeSet<GroupName>> {
    section.need(key, section.texts(key).map(|_| ()), LEVEL_FIX)?;
    let groups = groups(section, key);
    if groups.is_empty() {
        section.fault(key, "names no group: nobody could ever say yes", LEVEL_FIX);
        return None;
    }
    Some(groups)
}

fn need(text: &TextSpot<'_>) -> Option<Need> {
    match text.value {
        "required" => Some(Need::Required),
        "optional" => Some(Need::Optional),
        _ => {
            text.fault("is neither \"required\" nor \"optional\"", "write one of them");
            None
        }
    }
}

fn once(text: &TextSpot<'_>) -> Option<bool> {
    if text.value != "once" {
        text.fault("is not \"once\"", "write extend = \"once\", or take it out");
        return None;
    }
    Some(true)
}

fn clock_of(text: &TextSpot<'_>) -> Option<Clock> {
    match text.value {
        "approval" => Some(Clock::Approval),
        "first-use" => Some(Clock::FirstUse),
        _ => {
            text.fault("is neither \"approval\" nor \"first-use\"", "write one of them");
            None
        }
    }
}

fn ticket_rule(section: &Section<'_>) -> Option<TicketRule> {
    const FIX: &str = "write what a ticket looks like, as '^(INC|CHG)-[0-9]+$'";
    const CHECK: &str =
        "write it like \"https://tickets.example.com/api/{ticket}\": 2xx says that there is such a ticket";
    let pattern = section.need("pattern", section.text("pattern"), FIX);
    let check = match section.text("check_url") {
        None if !section.has("check_url") => Some(None),
        check => check
            .and_then(|url| url.parse(|text| tickets::uri(text, "INC-1").map(|_| text.to_owned()), CHECK))
            .map(|url| Some(url.value)),
    };
    section.unknown();
    let short = |_| "is no regular expression that can be used here";
    let rule = pattern?.parse(|text| TicketRule::new(text).map_err(short), FIX)?.value;
    Some(rule.known_at(check?))
}

fn escalation(section: &Section<'_>) -> Option<Escalation> {
    let after = section.need("after", section.text("after"), DURATION_FIX);
    let after = after.and_then(|after| after.parse(value::positive_duration, DURATION_FIX));
    let to = people(section, "to");
    section.unknown();
    Some(Escalation { after: after?.value, to: to? })
}
