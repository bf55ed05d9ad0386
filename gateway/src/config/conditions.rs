//! What must hold while an entitlement is used: `hours`, `when`, `max_sessions`, `exclusive` and `watch`.

use super::section::{Section, Spot};
use tidegate_grants::{Conditions, hours::Hours, when::When};

const WHEN_FIX: &str = "write a Cedar condition over principal, resource and context (ip, time, ticket, device), \
     like 'context.ip.isInRange(ip(\"10.0.0.0/8\"))'";

/// `None` has said why.
pub(super) fn conditions(section: &Section<'_>) -> Option<Conditions> {
    let hours = match section.section("hours") {
        None if !section.has("hours") => Some(None),
        hours => hours_of(&hours?).map(Some),
    };
    let max_sessions = match section.integer("max_sessions") {
        None if !section.has("max_sessions") => Some(None),
        most => number(&most?).map(Some),
    };
    let when = match section.text("when") {
        None if !section.has("when") => Some(None),
        condition => condition.and_then(|it| it.parse(When::new, WHEN_FIX)).map(|when| Some(when.value)),
    };
    let watched = watched(section);
    let exclusive = section.boolean("exclusive").is_some_and(|exclusive| exclusive.value);
    Some(Conditions { hours: hours?, max_sessions: max_sessions?, watched: watched?, exclusive, when: when? })
}

fn watched(section: &Section<'_>) -> Option<bool> {
    let Some(watch) = section.text("watch") else { return Some(false) };
    match watch.value {
        "optional" => Some(false),
        "required" => Some(true),
        _ => {
            watch.fault("is neither \"optional\" nor \"required\"", "write one of them");
            None
        }
    }
}

fn hours_of(section: &Section<'_>) -> Option<Hours> {
    const FIX: &str = "write hours = { days = \"mon-fri\", from = \"08:00\", to = \"18:00\", tz = \"Europe/Berlin\" }";
    let days = section.need("days", section.text("days"), FIX);
    let from = section.need("from", section.text("from"), FIX);
    let to = section.need("to", section.text("to"), FIX);
    let zone = section.need("tz", section.text("tz"), FIX);
    section.unknown();
    let (days, from, to, zone) = (days?, from?, to?, zone?);
    match Hours::new(days.value, from.value, to.value, zone.value) {
        Ok(hours) => Some(hours),
        Err(wrong) => {
            let place = [("days", &days), ("from", &from), ("to", &to)].into_iter().find(|(key, _)| *key == wrong.0);
            place.map_or(&zone, |(_, place)| place).fault(wrong.1, FIX);
            None
        }
    }
}

fn number(most: &Spot<'_, i64>) -> Option<u16> {
    let number = u16::try_from(most.value).ok().filter(|most| (1..=1000).contains(most));
    if number.is_none() {
        most.fault("is not between 1 and 1000", "write how many sessions one person may have open at once");
    }
    number
}
