//! How an entitlement is asked for: who must say yes, and what the person must say.
//!
//! An entitlement without [`Asking`] opens only by a grant that an admin issues or an outside issuer signs. With no level
//! it is granted at once, which is still a grant: signed, in the ledger, with its end.

use crate::name::GroupName;
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt, str::FromStr, time::Duration};

/// A ticket keeps so many characters.
pub const LONGEST_TICKET: usize = 128;

/// What `approvals`, `escalate`, `reason` and `ticket` of an entitlement say.
#[derive(Debug, Clone, Default)]
pub struct Asking {
    /// In this order; none: granted at once.
    pub levels: Vec<LevelRule>,
    /// Who may say yes too, on every level, once a request has waited.
    pub escalate: Option<Escalation>,
    /// Whether a reason must be given.
    pub reason: Need,
    /// What a ticket must look like; then one must be given.
    pub ticket: Option<TicketRule>,
    /// A grant of it may be extended, once.
    pub extend: bool,
    /// When the time of its grants starts.
    pub clock: Clock,
    /// Nobody is asked: it is for when nobody can be reached, and somebody else looks at what was done with it.
    pub break_glass: bool,
}

/// When the time of a grant that was asked for starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clock {
    /// With the last approval.
    #[default]
    Approval,
    /// With its first session, for which it waits a day.
    FirstUse,
}

/// One level of approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelRule {
    /// Members of any of these groups may say yes.
    pub from: BTreeSet<GroupName>,
    /// So many of them must.
    pub count: u32,
    /// How they prove it.
    pub proof: Proof,
}

/// How an approval is proven. The later one is worth more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// The gateway witnessed it: who was logged in said yes.
    #[default]
    Attested,
    /// By the approver's own key, over the digest of the request.
    Signed,
}

impl Proof {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attested => "attested",
            Self::Signed => "signed",
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No such word.
#[derive(Debug, thiserror::Error)]
#[error("a proof is attested or signed")]
pub struct NoProof;

impl FromStr for Proof {
    type Err = NoProof;
    fn from_str(text: &str) -> Result<Self, NoProof> {
        [Self::Attested, Self::Signed].into_iter().find(|proof| proof.as_str() == text).ok_or(NoProof)
    }
}

/// Who else may say yes once nobody has for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Escalation {
    /// Counted from the request.
    pub after: Duration,
    /// Members of any of these groups.
    pub to: BTreeSet<GroupName>,
}

/// Whether something must be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Need {
    /// It must.
    #[default]
    Required,
    /// It may.
    Optional,
}

/// What a ticket must look like. (`regex` matches in linear time, whatever the pattern.)
#[derive(Debug, Clone)]
pub struct TicketRule {
    pattern: Regex,
    check: Option<String>,
}

impl TicketRule {
    /// Where it matches, the ticket is one. An error says what is wrong with the expression.
    pub fn new(pattern: &str) -> Result<Self, regex::Error> {
        Ok(Self { pattern: Regex::new(pattern)?, check: None })
    }

    /// And only if it is known at this address.
    pub fn known_at(self, url: Option<String>) -> Self {
        Self { check: url, ..self }
    }

    /// As it was written.
    pub fn pattern(&self) -> &str {
        self.pattern.as_str()
    }

    /// Where to ask whether there is such a ticket.
    pub fn check(&self) -> Option<&str> {
        self.check.as_deref()
    }

    /// Whether this is a ticket.
    pub fn fits(&self, ticket: &str) -> bool {
        self.pattern.is_match(ticket)
    }
}

impl PartialEq for TicketRule {
    fn eq(&self, other: &Self) -> bool {
        self.pattern() == other.pattern() && self.check == other.check
    }
}

impl Asking {
    /// What is wrong with what somebody says when they ask, in one sentence.
    pub fn wrong(&self, reason: Option<&str>, ticket: Option<&str>) -> Option<String> {
        if self.reason == Need::Required && reason.is_none_or(|reason| reason.trim().is_empty()) {
            return Some("say why: a reason must be given".to_owned());
        }
        let rule = self.ticket.as_ref()?;
        match ticket {
            None => Some(format!("name a ticket: it must look like {}", rule.pattern())),
            Some(ticket) if !rule.fits(ticket) => Some(format!("the ticket must look like {}", rule.pattern())),
            Some(_) => None,
        }
    }
}
