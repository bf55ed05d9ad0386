//! What a person is told when the answer is no: one sentence, and what to do next.

use crate::issuer::TargetError;
use tidegate_grants::{Denied, Ended, Means, Reference, StoreError, authority::GrantError};
use tidegate_recorder::RecordError;

/// What somebody does whose second factor is a security key.
pub(crate) const SIGN_WITH_KEY: &str = "sign with your security key: \
    `ssh gate mfa --challenge | ssh-keygen -Y sign -n tidegate-mfa -f KEY | ssh gate mfa --signed`, then again";

/// A no, in words for the person. It names nothing that they may not see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// One plain sentence, without a full stop.
    pub sentence: String,
    /// What to do next, as a command or a sentence.
    pub next: Option<String>,
    /// Over SSH: 77 where asking first would help, else 1.
    pub exit: u32,
    /// A limit is reached: it passes by itself, or when the person closes something.
    pub full: bool,
    /// Which check said no, in a word: for the ledger and for metrics.
    pub check: &'static str,
    /// By which the person may ask an admin why (`tidegate why`), once the refusal is in the ledger.
    pub reference: Option<Reference>,
}

impl Refusal {
    /// A sentence without advice.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), next: None, exit: 1, full: false, check: "gateway", reference: None }
    }

    /// With advice.
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// A limit is reached.
    pub fn full(mut self) -> Self {
        self.full = true;
        self.check = "limit";
        self
    }

    /// This check said no.
    pub fn by(mut self, check: &'static str) -> Self {
        self.check = check;
        self
    }

    /// The ledger knows of it under this reference.
    pub fn marked(mut self, reference: impl Into<Option<Reference>>) -> Self {
        self.reference = reference.into();
        self
    }

    /// "Ask first": exit status 77 over SSH.
    pub fn ask_first(mut self) -> Self {
        self.exit = 77;
        self
    }
}

/// How somebody proves themselves once more, or comes to be able to.
fn proving(means: Means) -> &'static str {
    match means {
        Means::None => "ask an admin for one: `tidegate user mfa enroll`, or a security key in your `ssh_keys`",
        Means::Codes => "prove it: `ssh gate mfa`, then again",
        Means::SecurityKey => SIGN_WITH_KEY,
    }
}

impl From<&Denied> for Refusal {
    fn from(denied: &Denied) -> Self {
        let refusal = Self::new(denied.to_string()).by(denied.check());
        match denied {
            Denied::UnknownTarget(_) => refusal.next("`ssh gate targets` lists what you may ask for"),
            Denied::WrongAccess { .. } => refusal.next("`ssh gate targets` lists what you may open there"),
            Denied::NoGrant { target, entitlements, .. } => {
                let entitlement = entitlements.first().map_or("NAME", |e| e.as_str());
                refusal
                    .next(format!(
                        "ask an admin for one: tidegate grant issue --user YOU --target {target} \
                         --entitlement {entitlement} --for 30m --reason WHY"
                    ))
                    .ask_first()
            }
            Denied::Expired { .. } | Denied::Revoked { .. } | Denied::Used { .. } => {
                refusal.next("ask an admin for a new one").ask_first()
            }
            Denied::Ambiguous { entitlements, .. } => {
                let names: Vec<&str> = entitlements.iter().map(|e| e.as_str()).collect();
                refusal.next(format!("one of: {}", names.join(", ")))
            }
            Denied::Killed { .. } => refusal.next("open a new one"),
            Denied::FactorNeeded { means, target, .. } => {
                let mut next = proving(*means).to_owned();
                if *means != Means::None {
                    next.push_str(&format!("; for psql, get a password after that: `ssh gate password {target}`"));
                }
                refusal.next(next).ask_first()
            }
            Denied::Locked(_) => refusal.next("it opens again when an admin removes the lock"),
            Denied::HeldBy { .. } => {
                refusal.next("ask for it, and you are next: `ssh gate request`; or ask them: `ssh gate return`").full()
            }
            Denied::Shut { .. } => refusal.next("come back then, or ask your admin"),
            Denied::Unmet { .. } => refusal.next("come back when it does, or ask your admin"),
            Denied::TooManyUnder { .. } => {
                refusal.next("close one of them first: `ssh gate sessions`, `ssh gate kill ID`").full()
            }
            Denied::TooMany { .. } => refusal
                .next("close one of them first, or open fewer at once (`pg_dump -j`, `pgbench -c`, the size of a pool)")
                .full(),
            Denied::TooManyOfYours { .. } => {
                refusal.next("close one of them first: `ssh gate sessions`, `ssh gate kill ID`").full()
            }
            Denied::TooManyThere { .. } => refusal.next("try again in a while, or tell your admin").full(),
            Denied::Clock | Denied::Untrusted | Denied::Store(_) => refusal.next("tell your admin"),
        }
    }
}

impl From<&GrantError> for Refusal {
    fn from(error: &GrantError) -> Self {
        match error {
            GrantError::Store(error) => Self::from(error),
            GrantError::FactorNeeded { means, .. } => {
                Self::new(error.to_string()).next(proving(*means)).by("mfa").ask_first()
            }
            GrantError::Refused(_) | GrantError::NotFound(_) | GrantError::TicketUnseen { .. } => {
                Self::new(error.to_string()).by("request")
            }
        }
    }
}

impl From<&Ended> for Refusal {
    fn from(ended: &Ended) -> Self {
        let check = match ended {
            Ended::Expired { .. } => "expired",
            Ended::Shut { .. } => "hours",
            Ended::Unmet => "when",
            Ended::Revoked { .. } => "revoked",
            Ended::Returned => "returned",
            Ended::Killed { .. } => "killed",
            Ended::Locked(_) => "locked",
            Ended::Withdrawn => "configuration",
        };
        let refusal = match ended {
            Ended::Expired { at } => Self::new(format!("your grant ended at {at}")),
            Ended::Shut { at } => Self::new(format!("the hours in which this may be used ended at {at}")),
            Ended::Unmet => Self::new("the condition under which this may be used no longer holds"),
            Ended::Revoked { by, reason: Some(reason) } => {
                Self::new(format!("your grant was revoked by {by}: {reason}"))
            }
            Ended::Revoked { by, reason: None } => Self::new(format!("your grant was revoked by {by}")),
            Ended::Returned => Self::new("you handed your grant back"),
            Ended::Killed { by, reason: Some(reason) } => {
                Self::new(format!("your session was killed by {by}: {reason}"))
            }
            Ended::Killed { by, reason: None } => Self::new(format!("your session was killed by {by}")),
            Ended::Locked(locked) => Self::new(locked.to_string()),
            Ended::Withdrawn => Self::new("what your grant was for is no longer in the gateway's configuration"),
        };
        refusal.by(check)
    }
}

impl From<&TargetError> for Refusal {
    fn from(error: &TargetError) -> Self {
        // The person may see this target: its name is theirs to know, the cause is for the log.
        let refusal = match error {
            TargetError::Unreachable { target, .. } => {
                Self::new(format!("{target} cannot be reached")).next("try again, or tell your admin")
            }
            TargetError::Later(target) => Self::new(format!("{target} is busy")).next("try again, or tell your admin"),
            TargetError::Impostor { target, .. } => Self::new(format!("{target} did not prove that it is {target}"))
                .next("do not go around the gate; tell your admin"),
            TargetError::Refused { target, .. } | TargetError::Held { target, .. } => {
                Self::new(format!("{target} did not accept the session"))
                    .next("tell your admin: `tidegate target trust` may not be installed there")
            }
            TargetError::Answered { target, message, .. } => Self::new(format!("{target} says: {message}")),
            TargetError::Unknown(target) => Self::new(format!("no target {target} for you here")),
            TargetError::Ours(_) => Self::new("the gateway could not prepare the session").next("tell your admin"),
        };
        refusal.by("target-side")
    }
}

impl From<&RecordError> for Refusal {
    fn from(error: &RecordError) -> Self {
        let next = match error {
            RecordError::Full => "tell your admin: recordings have taken all the room that they may",
            _ => "tell your admin: the gateway's disk does not take recordings",
        };
        Self::new("the session cannot be recorded").next(next).by("recording")
    }
}

impl From<&StoreError> for Refusal {
    fn from(_: &StoreError) -> Self {
        Self::new("the gateway cannot write its records").next("tell your admin").by("store")
    }
}
