//! The report that people review access by: what nobody uses, who holds what, what was refused and forced, and approvals that were too
//! quick to be one.
//!
//! Pure, but for [`gather`]. What always holds: it shows what the store and the policy in force say, and decides nothing.

use crate::api::{Api, Problem};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_grants::{
    EntitlementName, GrantId, GrantState, GrantView, IdentityName, Listing, Policy, RequestId, RequestView, TargetName,
    store::SessionRow,
};
use utoipa::ToSchema;

/// An approval within so much of the request was hardly one.
const STAMP: SignedDuration = SignedDuration::from_secs(10);
/// What counts as refused.
pub(crate) const DENIALS: [&str; 3] = ["session.denied", "door.refused", "request.denied"];

/// `GET /v1/access/report`. (What a target's test found is called a report, too.)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = AccessReport)]
pub(crate) struct Report {
    /// From when on sessions, refusals and approvals are counted.
    pub(crate) since: Timestamp,
    /// Until when.
    pub(crate) at: Timestamp,
    /// Every entitlement of the configuration.
    pub(crate) entitlements: Vec<Use>,
    /// Every grant that opens something now.
    pub(crate) held: Vec<Held>,
    /// Week by week, oldest first.
    pub(crate) weeks: Vec<Week>,
    /// Approvals that came within seconds.
    pub(crate) stamps: Vec<Stamp>,
}

/// How an entitlement is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Use {
    pub(crate) entitlement: EntitlementName,
    /// Sessions under it since then.
    pub(crate) sessions: usize,
    /// The last one there ever was.
    pub(crate) last: Option<Timestamp>,
    /// Who may ask for it.
    pub(crate) may_ask: Vec<IdentityName>,
    /// Of these, who has not used it since then.
    pub(crate) unused_by: Vec<IdentityName>,
}

/// A grant that opens something now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Held {
    pub(crate) identity: IdentityName,
    pub(crate) entitlement: EntitlementName,
    pub(crate) target: TargetName,
    pub(crate) grant: GrantId,
    pub(crate) until: Timestamp,
    /// Who said yes.
    pub(crate) approved_by: Vec<String>,
}

/// What happened in a week (ISO 8601, in UTC).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Week {
    /// Like `2026-W47`.
    pub(crate) week: String,
    pub(crate) sessions: usize,
    /// Who was refused, at whatever door.
    pub(crate) denials: usize,
    /// Grants that were taken by break-glass.
    pub(crate) break_glass: usize,
}

/// An approval that came within seconds of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Stamp {
    pub(crate) request: RequestId,
    pub(crate) by: IdentityName,
    /// Who asked.
    pub(crate) identity: IdentityName,
    pub(crate) entitlement: EntitlementName,
    pub(crate) seconds: i64,
}

/// What a report is made of.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) grants: &'a [GrantView],
    pub(crate) sessions: &'a [SessionRow],
    pub(crate) requests: &'a [RequestView],
    /// When somebody was refused.
    pub(crate) denials: &'a [Timestamp],
    /// When somebody broke the glass.
    pub(crate) break_glass: &'a [Timestamp],
}

/// The report of the last days.
pub(crate) async fn gather(api: &Api, days: u16) -> Result<Report, Problem> {
    let (gate, now) = (&api.gate, api.gate.now());
    let since = now - SignedDuration::from_hours(24 * i64::from(days));
    let policy = gate.authority.policy();
    let grants = gate.authority.grants(Listing::all(), now).await?;
    let requests = gate.authority.requests(None, now).await?;
    let sessions = gate.store.sessions(Listing::all()).await?;
    let denials = gate.store.moments_of(&DENIALS, since).await?;
    let break_glass = gate.store.moments_of(&["review.demanded"], since).await?;
    let facts = Facts {
        policy: &policy,
        grants: &grants,
        sessions: &sessions,
        requests: &requests,
        denials: &denials,
        break_glass: &break_glass,
    };
    Ok(report(&facts, since, now))
}

/// Of these facts.
pub(crate) fn report(facts: &Facts<'_>, since: Timestamp, now: Timestamp) -> Report {
    Report {
        since,
        at: now,
        entitlements: uses(facts, since),
        held: held(facts),
        weeks: weeks(facts, since),
        stamps: stamps(facts, since),
    }
}

fn uses(facts: &Facts<'_>, since: Timestamp) -> Vec<Use> {
    let under: BTreeMap<GrantId, &EntitlementName> =
        facts.grants.iter().map(|grant| (grant.id, &grant.claims.entitlement)).collect();
    let of = |name: &EntitlementName| {
        let sessions = facts.sessions.iter();
        sessions.filter(|session| under.get(&session.grant) == Some(&name)).collect::<Vec<_>>()
    };
    let entitlements = facts.policy.entitlements.values();
    let one = |entitlement: &tidegate_grants::Entitlement| {
        let all = of(&entitlement.name);
        let recent = all.iter().filter(|session| session.start >= since);
        let users: BTreeSet<&IdentityName> = recent.clone().map(|session| &session.identity).collect();
        let people = facts.policy.identities.values().filter(|person| entitlement.is_for(person));
        let may_ask: Vec<_> = people.map(|person| person.name.clone()).collect();
        Use {
            entitlement: entitlement.name.clone(),
            sessions: recent.count(),
            last: all.iter().map(|session| session.start).max(),
            unused_by: may_ask.iter().filter(|name| !users.contains(name)).cloned().collect(),
            may_ask,
        }
    };
    entitlements.map(one).collect()
}

fn held(facts: &Facts<'_>) -> Vec<Held> {
    let active = facts.grants.iter().filter(|grant| grant.state == GrantState::Active);
    let one = |grant: &GrantView| Held {
        identity: grant.claims.sub.clone(),
        entitlement: grant.claims.entitlement.clone(),
        target: grant.claims.target.clone(),
        grant: grant.id,
        until: grant.ends,
        approved_by: grant.claims.approvals.iter().map(|level| level.by.clone()).collect(),
    };
    let mut held: Vec<_> = active.map(one).collect();
    held.sort_by(|a, b| (&a.identity, &a.entitlement, &a.target).cmp(&(&b.identity, &b.entitlement, &b.target)));
    held
}

fn weeks(facts: &Facts<'_>, since: Timestamp) -> Vec<Week> {
    let mut weeks: BTreeMap<String, Week> = BTreeMap::new();
    let mut count = |moments: &mut dyn Iterator<Item = Timestamp>, add: fn(&mut Week)| {
        for moment in moments.filter(|moment| *moment >= since) {
            let week = week_of(moment);
            let entry = weeks.entry(week.clone());
            add(entry.or_insert_with(|| Week { week, sessions: 0, denials: 0, break_glass: 0 }));
        }
    };
    count(&mut facts.sessions.iter().map(|session| session.start), |week| week.sessions += 1);
    count(&mut facts.denials.iter().copied(), |week| week.denials += 1);
    count(&mut facts.break_glass.iter().copied(), |week| week.break_glass += 1);
    weeks.into_values().collect()
}

fn week_of(moment: Timestamp) -> String {
    let week = moment.to_zoned(TimeZone::UTC).date().iso_week_date();
    format!("{}-W{:02}", week.year(), week.week())
}

fn stamps(facts: &Facts<'_>, since: Timestamp) -> Vec<Stamp> {
    let recent = facts.requests.iter().filter(|request| request.opened >= since);
    let quick = recent.flat_map(|request| {
        request.approvals.iter().filter_map(move |yes| {
            let took = yes.at.duration_since(request.opened);
            (took < STAMP).then(|| Stamp {
                request: request.wanted.id,
                by: yes.by.clone(),
                identity: request.wanted.identity.clone(),
                entitlement: request.wanted.entitlement.clone(),
                seconds: took.as_secs(),
            })
        })
    });
    quick.collect()
}

impl Report {
    /// As a table for other programs (RFC 4180): what it is about, who, which entitlement, where, how many, when, and more.
    pub(crate) fn csv(&self) -> String {
        let mut out = String::from("about,identity,entitlement,target,count,at,more\r\n");
        let mut line = |fields: [&str; 7]| {
            out.push_str(&fields.map(field).join(","));
            out.push_str("\r\n");
        };
        for of in &self.entitlements {
            let (name, last) = (of.entitlement.as_str(), of.last.map(|at| at.to_string()).unwrap_or_default());
            line(["sessions", "", name, "", &of.sessions.to_string(), &last, ""]);
            of.may_ask.iter().for_each(|who| line(["may ask", who.as_str(), name, "", "", "", ""]));
            of.unused_by.iter().for_each(|who| line(["unused", who.as_str(), name, "", "", &last, ""]));
        }
        for held in &self.held {
            let (who, name, target) = (held.identity.as_str(), held.entitlement.as_str(), held.target.as_str());
            line(["held", who, name, target, "", &held.until.to_string(), &held.approved_by.join(" ")]);
        }
        for week in &self.weeks {
            let counts = [("sessions", week.sessions), ("denials", week.denials), ("break-glass", week.break_glass)];
            counts.iter().for_each(|(what, count)| line([what, "", "", "", &count.to_string(), &week.week, ""]));
        }
        for stamp in &self.stamps {
            let (by, name, seconds) = (stamp.by.as_str(), stamp.entitlement.as_str(), stamp.seconds.to_string());
            line(["rubber stamp", by, name, "", &seconds, "", &format!("{} {}", stamp.identity, stamp.request)]);
        }
        out
    }
}

/// Quoted where it must be; and nothing that a spreadsheet takes for a formula.
fn field(text: &str) -> String {
    let text = crate::text::plain(text);
    let formula = text.starts_with(['=', '+', '-', '@']);
    let text = if formula { format!("'{text}") } else { text.into_owned() };
    if text.contains(['"', ',']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weeks_are_those_of_the_calendar_that_people_have() {
        let week = |text: &str| text.parse().map(week_of).ok();
        assert_eq!(week("2026-11-22T23:59:59Z").as_deref(), Some("2026-W47"));
        assert_eq!(week("2027-01-03T00:00:00Z").as_deref(), Some("2026-W53"));
        assert_eq!(week("2027-01-04T00:00:00Z").as_deref(), Some("2027-W01"));
    }

    #[test]
    fn a_field_is_one_field_and_no_formula() {
        for (text, shown) in [
            ("alice", "alice"),
            ("a,b", "\"a,b\""),
            ("a\"b", "\"a\"\"b\""),
            ("=1+1", "'=1+1"),
            ("@x,y", "\"'@x,y\""),
            ("a\nb", "a\\u{a}b"),
        ] {
            assert_eq!(field(text), shown);
        }
    }
}
