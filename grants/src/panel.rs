//! Who must still say yes to a request: pure, from the policy in force and the approvals that there are.
//!
//! What always holds: nobody says yes to their own request; whoever says yes counts once, on one level; a level is open
//! only when those before it are satisfied; an approval counts only while its approver is still somebody who may give it, with
//! the proof that the level asks for. And no approval is taken that would leave a later level with too few people.

use crate::{
    asking::{Asking, LevelRule, Proof},
    name::{GroupName, IdentityName},
    policy::Policy,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One yes, as far as the decision goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Yes {
    /// Whose.
    pub by: IdentityName,
    /// On which level, from 1.
    pub level: u32,
    /// How it was proven.
    pub proof: Proof,
}

/// Where a request stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Every level is satisfied.
    Satisfied,
    /// This level waits.
    Waiting(Awaited),
    /// Everybody has said yes, and somebody else has it still.
    Queued(Queued),
    /// This level, from 1, can no longer be met: there are too few who may say yes.
    Stuck(u32),
}

/// What a request waits for that everybody has said yes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Queued {
    /// Who has it now, if somebody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<IdentityName>,
    /// Until when, if they do not hand it back before; without it they are leaving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// So many others come first.
    pub ahead: u32,
}

/// Of whom what is awaited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Awaited {
    /// From 1.
    pub level: u32,
    /// So many more.
    pub missing: u32,
    /// Members of any of these.
    pub from: BTreeSet<GroupName>,
    /// How it must be proven.
    pub proof: Proof,
}

/// Why somebody's yes does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoVoice {
    /// It is their own request.
    #[error("nobody approves their own request")]
    Own,
    /// They are on no level.
    #[error("you are not among those who may approve this")]
    Stranger,
    /// They have said yes already.
    #[error("you have approved this already, on level {0}; nobody counts twice")]
    Again(u32),
    /// Their level comes later.
    #[error("level {open} comes first; your approval counts on level {yours}")]
    Early {
        /// The level that waits.
        open: u32,
        /// Theirs.
        yours: u32,
    },
    /// Their level is satisfied.
    #[error("enough have approved on your level already")]
    Late,
    /// Not without a signature.
    #[error("level {0} takes signed approvals only")]
    Unsigned(u32),
    /// Counted here, they would be missing later.
    #[error("your approval is needed on level {0}, where too few others could give it; somebody else must go first")]
    Needed(u32),
    /// There is nothing to say yes to.
    #[error("nobody's approval is missing")]
    Nothing,
}

/// Those who decide about one request.
#[derive(Debug, Clone, Copy)]
pub struct Panel<'a> {
    /// In force now.
    pub policy: &'a Policy,
    /// Of the entitlement.
    pub asking: &'a Asking,
    /// Who asks.
    pub requester: &'a IdentityName,
    /// When they did.
    pub opened: Timestamp,
    /// The time.
    pub now: Timestamp,
}

impl<'a> Panel<'a> {
    /// Who may say yes on a level, but for the requester.
    pub fn members(&self, rule: &LevelRule) -> BTreeSet<&'a IdentityName> {
        let more = self.escalated();
        let may = |groups: &BTreeSet<GroupName>| {
            !groups.is_disjoint(&rule.from) || more.is_some_and(|more| !groups.is_disjoint(more))
        };
        let people = self.policy.identities.values();
        people.filter(|p| p.name != *self.requester && may(&p.groups)).map(|p| &p.name).collect()
    }

    /// Who may say yes everywhere by now, because nobody has.
    fn escalated(&self) -> Option<&'a BTreeSet<GroupName>> {
        let escalation = self.asking.escalate.as_ref()?;
        let waited = self.now.duration_since(self.opened);
        let due = SignedDuration::try_from(escalation.after).is_ok_and(|after| waited >= after);
        due.then_some(&escalation.to)
    }

    /// Everybody who may say something about it: yes on some level, now or once it has waited, or no.
    pub fn hears(&self, who: &IdentityName) -> bool {
        let Some(person) = self.policy.identities.get(who).filter(|_| who != self.requester) else { return false };
        let later = self.asking.escalate.iter().map(|escalation| &escalation.to);
        self.asking.levels.iter().map(|rule| &rule.from).chain(later).any(|groups| !groups.is_disjoint(&person.groups))
    }

    /// The approvals that count, by level.
    fn counted<'y>(&self, yeses: &'y [Yes]) -> Vec<BTreeSet<&'y IdentityName>> {
        let mut seen = BTreeSet::new();
        let mut levels = vec![BTreeSet::new(); self.asking.levels.len()];
        for yes in yeses {
            let Some((rule, counted)) =
                index(yes.level).and_then(|at| self.asking.levels.get(at).zip(levels.get_mut(at)))
            else {
                continue;
            };
            let room = counted.len() < limit(rule);
            if room && yes.proof >= rule.proof && self.members(rule).contains(&yes.by) && seen.insert(&yes.by) {
                counted.insert(&yes.by);
            }
        }
        levels
    }

    /// Where it stands with these approvals.
    pub fn standing(&self, yeses: &[Yes]) -> Standing {
        let counted = self.counted(yeses);
        let unmet = |(rule, counted): &(&LevelRule, &BTreeSet<_>)| counted.len() < limit(rule);
        let open = self.asking.levels.iter().zip(&counted).enumerate().find(|(_, level)| unmet(level));
        let Some((at, (rule, so_far))) = open else { return Standing::Satisfied };
        if let Some(short) = self.short_of(&counted) {
            return Standing::Stuck(short);
        }
        let missing = rule.count.saturating_sub(u32::try_from(so_far.len()).unwrap_or(u32::MAX));
        let from = rule.from.iter().chain(self.escalated().into_iter().flatten()).cloned().collect();
        Standing::Waiting(Awaited { level: number(at), missing, from, proof: rule.proof })
    }

    /// On which level this person's yes counts now, if it does.
    pub fn place(&self, by: &IdentityName, proof: Proof, yeses: &[Yes]) -> Result<u32, NoVoice> {
        if by == self.requester {
            return Err(NoVoice::Own);
        }
        let counted = self.counted(yeses);
        if let Some(at) = counted.iter().position(|level| level.contains(by)) {
            return Err(NoVoice::Again(number(at)));
        }
        let theirs = |rule: &LevelRule| self.members(rule).contains(by);
        if !self.asking.levels.iter().any(theirs) {
            return Err(if self.asking.levels.is_empty() { NoVoice::Nothing } else { NoVoice::Stranger });
        }
        let mut levels = self.asking.levels.iter().zip(&counted).enumerate();
        let Some((at, (rule, _))) = levels.find(|(_, (rule, counted))| counted.len() < limit(rule)) else {
            return Err(NoVoice::Nothing);
        };
        let open = number(at);
        if !theirs(rule) {
            let later = self.asking.levels.iter().enumerate().skip(at).find(|(_, rule)| theirs(rule));
            return Err(later.map_or(NoVoice::Late, |(later, _)| NoVoice::Early { open, yours: number(later) }));
        }
        if proof < rule.proof {
            return Err(NoVoice::Unsigned(open));
        }
        let mut with = counted.clone();
        with.get_mut(at).map(|level| level.insert(by));
        match self.short_of(&with) {
            // It could not be met before either: that is said of the request, not of this person.
            Some(short) if self.short_of(&counted).is_none() => Err(NoVoice::Needed(short)),
            _ => Ok(open),
        }
    }

    /// The first level that the people who are left cannot satisfy: each counts once, so this is a matching of people to the
    /// places that are still free.
    fn short_of(&self, counted: &[BTreeSet<&IdentityName>]) -> Option<u32> {
        let spent: BTreeSet<&IdentityName> = counted.iter().flatten().copied().collect();
        let mut seats: Vec<BTreeSet<&IdentityName>> = Vec::new();
        let mut taken: BTreeMap<&IdentityName, usize> = BTreeMap::new();
        for (at, (rule, counted)) in self.asking.levels.iter().zip(counted).enumerate() {
            let left: BTreeSet<_> = self.members(rule).into_iter().filter(|who| !spent.contains(*who)).collect();
            for _ in counted.len()..limit(rule) {
                seats.push(left.clone());
                if !seat(seats.len() - 1, &seats, &mut taken, &mut BTreeSet::new()) {
                    return Some(number(at));
                }
            }
        }
        None
    }
}

/// Finds somebody for a place, moving others to another one where that helps (an augmenting path).
fn seat<'a>(
    at: usize,
    seats: &[BTreeSet<&'a IdentityName>],
    taken: &mut BTreeMap<&'a IdentityName, usize>,
    tried: &mut BTreeSet<&'a IdentityName>,
) -> bool {
    for who in seats.get(at).into_iter().flatten() {
        if !tried.insert(who) {
            continue;
        }
        let free = match taken.get(who).copied() {
            None => true,
            Some(other) => seat(other, seats, taken, tried),
        };
        if free {
            taken.insert(who, at);
            return true;
        }
    }
    false
}

fn limit(rule: &LevelRule) -> usize {
    usize::try_from(rule.count).unwrap_or(usize::MAX)
}

/// Levels count from 1.
fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX).saturating_add(1)
}

fn index(level: u32) -> Option<usize> {
    usize::try_from(level.checked_sub(1)?).ok()
}
