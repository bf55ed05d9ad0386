//! What an identity may ask for, on which targets, and on which terms.

use crate::{
    asking::Asking,
    factor::Mfa,
    forward::ForwardRules,
    hours::Hours,
    identity::Identity,
    keeps::Keeps,
    name::{Access, DatabaseName, EntitlementName, GroupName, Login, RoleName, TargetName},
    target::{Kind, Target},
    when::When,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// One `[[entitlement]]`.
#[derive(Debug, Clone)]
pub struct Entitlement {
    /// Its name, after `~` at the door.
    pub name: EntitlementName,
    /// Who may ask.
    pub groups: BTreeSet<GroupName>,
    /// On which targets.
    pub targets: Selector,
    /// As what.
    pub terms: Terms,
    /// No grant of this entitlement lasts longer.
    pub max_duration: Duration,
    /// A session in which nothing moves for so long ends.
    pub idle_timeout: Option<Duration>,
    /// How it is asked for; `None`: it opens only by a grant that an admin issues or an outside issuer signs.
    pub asking: Option<Asking>,
    /// What else a login must have proven.
    pub mfa: Mfa,
    /// When, and how much of it at once.
    pub conditions: Conditions,
}

/// What must hold while an entitlement is used, grant or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Only then; sessions end with them.
    pub hours: Option<Hours>,
    /// So many sessions of one identity under it, on all targets together.
    pub max_sessions: Option<u16>,
    /// A session stands still while nobody watches it.
    pub watched: bool,
    /// On each target one identity has it at a time.
    pub exclusive: bool,
    /// Only while this holds; sessions end with it.
    pub when: Option<When>,
}

/// Which targets something is about.
#[derive(Debug, Clone)]
pub enum Selector {
    /// By name.
    Names(BTreeSet<TargetName>),
    /// All of these labels.
    Labels(BTreeMap<String, String>),
}

impl Selector {
    /// Whether this is one of them.
    pub fn selects(&self, target: &Target) -> bool {
        match self {
            Self::Names(names) => names.contains(&target.name),
            Self::Labels(labels) => labels.iter().all(|(key, value)| target.labels.get(key) == Some(value)),
        }
    }
}

/// What a session of this entitlement can be.
#[derive(Debug, Clone)]
pub enum Terms {
    /// An account on an SSH target.
    Ssh {
        /// The one principal of the certificate is one of these.
        logins: BTreeSet<Login>,
        /// Which way files may go over SFTP and scp.
        files: Files,
        /// What of the target's network it may reach.
        forward: ForwardRules,
    },
    /// An ephemeral role on a PostgreSQL target.
    Postgres {
        /// Databases that may be opened.
        databases: BTreeSet<DatabaseName>,
        /// What the ephemeral role is made a member of.
        roles: BTreeSet<RoleName>,
        /// Whether it has their privileges at once, or must `SET ROLE` to one of them first.
        inherit: bool,
        /// Objects made in the session belong to this NOLOGIN role, if set.
        owner: Option<RoleName>,
        /// What becomes of objects that the session leaves behind.
        leftovers: Leftovers,
        /// How many connections one login may open at once.
        max_connections: u16,
        /// What its recordings keep of results, and what never.
        keeps: Keeps,
    },
}

/// Which way files may go over SFTP and scp. It rules those protocols: a login with a shell can print a file all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Files {
    /// Neither way: folders can be listed, and no content moves.
    None,
    /// From the target.
    Download,
    /// To the target.
    Upload,
    /// Both ways.
    #[default]
    Both,
}

impl Files {
    /// Whether content may leave the target.
    pub fn download(self) -> bool {
        matches!(self, Self::Download | Self::Both)
    }

    /// Whether the target may be written to: content, and names, modes and folders as well.
    pub fn upload(self) -> bool {
        matches!(self, Self::Upload | Self::Both)
    }

    /// Whether all that `other` allows is allowed.
    pub fn covers(self, other: Self) -> bool {
        (self.download() || !other.download()) && (self.upload() || !other.upload())
    }
}

/// What becomes of objects that a session leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    /// Kept aside, owned by a NOLOGIN role of that lease alone, until a human looks.
    Quarantine,
    /// Dropped with the role.
    Drop,
}

impl Terms {
    /// The protocol that they are for.
    pub fn kind(&self) -> Kind {
        match self {
            Terms::Ssh { .. } => Kind::Ssh,
            Terms::Postgres { .. } => Kind::Postgres,
        }
    }

    /// Something that they include, to name in a message.
    pub(crate) fn any(&self) -> Option<Access> {
        match self {
            Terms::Ssh { logins, .. } => logins.first().cloned().map(Access::Login),
            Terms::Postgres { databases, .. } => databases.first().cloned().map(Access::Database),
        }
    }
}

impl Entitlement {
    /// Whether this identity may ask for it at all.
    pub fn is_for(&self, identity: &Identity) -> bool {
        !self.groups.is_disjoint(&identity.groups)
    }

    /// Whether it is for when nobody who could say yes can be reached.
    pub fn breaks_glass(&self) -> bool {
        self.asking.as_ref().is_some_and(|asking| asking.break_glass)
    }

    /// Whether whoever asks for it must have proven a second factor by then.
    pub fn asks_with_a_factor(&self) -> bool {
        self.mfa == Mfa::Request || self.breaks_glass()
    }

    /// Whether it reaches this target: selected, and of the protocol that its terms are for.
    pub fn reaches(&self, target: &Target) -> bool {
        if self.terms.kind() != target.kind {
            return false;
        }
        self.targets.selects(target)
    }

    /// Whether its terms include this login or database.
    pub fn includes(&self, access: &Access) -> bool {
        match (&self.terms, access) {
            (Terms::Ssh { logins, .. }, Access::Login(login)) => logins.contains(login),
            (Terms::Postgres { databases, .. }, Access::Database(database)) => databases.contains(database),
            _ => false,
        }
    }
}
