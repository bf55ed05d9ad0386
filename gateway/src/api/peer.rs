//! Who is at the other end of the Unix socket, or behind a token, and what they may do. Pure, but for the look-up of the account's name.

use super::problem::Problem;
use axum::http::StatusCode;
use tidegate_grants::{Bearer, Identity, IdentityName, Policy, Sight, TargetName, TokenId, TokenScope};

/// A local process, by the account that it runs as, or a program somewhere, by its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Its name, or its number if it has none; of a token, its id.
    pub(crate) account: String,
    /// The identity that has this `unix_user`, or this token.
    pub(crate) identity: Option<IdentityName>,
    admin: bool,
    /// What they may see as an auditor.
    audits: Sight,
    /// What the identity may do is narrowed by it.
    token: Option<Bearer>,
}

/// What somebody wants of the gateway itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Is it up?
    Status,
    /// Issue or import a grant.
    MakeGrants,
    /// Revoke one.
    RevokeGrants,
    /// End all that somebody holds.
    EndUsers,
    /// Make a token.
    MakeTokens,
    /// List tokens.
    ReadTokens,
    /// Revoke one.
    RevokeTokens,
    /// Give somebody a second factor, or take it away.
    EnrollFactors,
    /// List who has one.
    ReadFactors,
    /// List or show grants.
    ReadGrants,
    /// Register a key of a workload's.
    RegisterKeys,
    /// Ask for a grant, or for more of one, or take that back; hand one back.
    AskRequests,
    /// List or show requests.
    ReadRequests,
    /// Say yes or no to one.
    DecideRequests,
    /// List reviews.
    ReadReviews,
    /// Sign one.
    SignReviews,
    /// List leases.
    ReadLeases,
    /// Wake the reaper.
    RetryLeases,
    /// Close a held one on one's word.
    AcceptLeases,
    /// Look for accounts with our mark and no lease.
    SweepTargets,
    /// Make a lease for one.
    AdoptAccounts,
    /// Try whether sessions to a target work.
    TestTargets,
    /// List or show sessions.
    ReadSessions,
    /// Watch one while it is live.
    WatchSessions,
    /// Review who may what, and who does.
    ReadAccess,
    /// Follow what happens.
    ReadEvents,
    /// Ask why somebody was refused.
    ReadRefusals,
    /// See who was told what.
    ReadNotify,
    /// Have it tried again.
    RetryNotify,
    /// List locks.
    ReadLocks,
    /// Set or remove one.
    SetLocks,
    /// End one.
    KillSessions,
    /// Keep a recording whatever the rules say.
    HoldRecordings,
    /// Say that one was opened.
    NoteRecordings,
    /// Compare a configuration with the one in force, or reload it.
    Configure,
}

impl Action {
    /// How far a token must go for it; `None`: none goes so far.
    fn needs(self) -> Option<TokenScope> {
        match self {
            Self::Status
            | Self::ReadGrants
            | Self::ReadRequests
            | Self::ReadReviews
            | Self::ReadLeases
            | Self::ReadSessions
            | Self::NoteRecordings
            | Self::ReadTokens
            | Self::ReadLocks
            | Self::ReadFactors
            | Self::ReadNotify
            | Self::ReadEvents
            | Self::ReadAccess
            | Self::ReadRefusals => Some(TokenScope::Read),
            Self::MakeGrants | Self::RevokeGrants | Self::AskRequests | Self::RegisterKeys => Some(TokenScope::Grants),
            Self::MakeTokens | Self::EnrollFactors => None,
            Self::EndUsers
            | Self::WatchSessions
            | Self::HoldRecordings
            | Self::DecideRequests
            | Self::SignReviews
            | Self::RevokeTokens
            | Self::RetryLeases
            | Self::AcceptLeases
            | Self::SweepTargets
            | Self::AdoptAccounts
            | Self::TestTargets
            | Self::SetLocks
            | Self::RetryNotify
            | Self::KillSessions
            | Self::Configure => Some(TokenScope::All),
        }
    }
}

impl Caller {
    /// By the policy in force. `None`: an account without a name, which maps to nobody.
    pub(crate) fn new(policy: &Policy, uid: u32, account: Option<String>) -> Self {
        let known = account.as_deref();
        let mut people = policy.identities.values();
        let identity = people.find(|person| known.is_some() && person.unix_user.as_deref() == known);
        Self::of(policy, identity, account.unwrap_or_else(|| uid.to_string()), None)
    }

    /// By the policy in force, narrowed by the token.
    pub(crate) fn with_token(policy: &Policy, bearer: Bearer) -> Self {
        Self::of(policy, policy.identities.get(&bearer.identity), bearer.token.to_string(), Some(bearer))
    }

    /// Somebody without a token.
    pub(super) fn stranger() -> Self {
        Self { account: "nobody".to_owned(), identity: None, admin: false, audits: Sight::default(), token: None }
    }

    /// Somebody who has just logged in with a browser.
    pub(crate) fn logged_in(policy: &Policy, who: &IdentityName) -> Self {
        Self::of(policy, policy.identities.get(who), who.to_string(), None)
    }

    fn of(policy: &Policy, identity: Option<&Identity>, account: String, token: Option<Bearer>) -> Self {
        Self {
            admin: identity.is_some_and(|person| !person.groups.is_disjoint(&policy.admins)),
            audits: identity.map(|person| policy.audits(person)).unwrap_or_default(),
            identity: identity.map(|person| person.name.clone()),
            account,
            token,
        }
    }

    /// On the gateway's own host.
    pub(crate) fn is_local(&self) -> bool {
        self.token.is_none()
    }

    /// The token that they came with.
    pub(crate) fn token(&self) -> Option<TokenId> {
        self.token.as_ref().map(|bearer| bearer.token)
    }

    /// Who this is, or may be: whoever made a token knows its secret, whosever it is.
    pub(crate) fn people(&self) -> Vec<&IdentityName> {
        let maker = self.token.as_ref().map(|bearer| &bearer.made_by);
        [self.identity.as_ref(), maker].into_iter().flatten().collect()
    }

    /// Whether this is, or may be, that person.
    pub(crate) fn may_be(&self, person: &IdentityName) -> bool {
        self.people().contains(&person)
    }

    /// Who approves or denies by what this caller says. Nobody does so by a token that somebody else made, and so knows.
    pub(crate) fn own_voice(&self) -> Result<&IdentityName, Problem> {
        let identity = self.known()?;
        match &self.token {
            Some(Bearer { made_by, .. }) if made_by != identity => Err(forbidden(format!(
                "{made_by} made this token, and nobody decides in another's name: \
                 {identity} does it by `ssh gate`, or by a token that {identity} made"
            ))),
            _ => Ok(identity),
        }
    }

    /// What they may see as an auditor, by the configuration in force.
    pub(crate) fn audits(&self) -> &Sight {
        &self.audits
    }

    /// Whether what was done in a session is for them to see.
    pub(crate) fn sees_content(&self, person: &IdentityName, target: &TargetName) -> bool {
        self.audits.sees(person, target) || self.identity.as_ref() == Some(person)
    }

    /// Whether this caller may do this, and on what: what they do not see is no different from what is not there. A refusal says who
    /// may.
    pub(crate) fn may(&self, action: Action) -> Result<Sight, Problem> {
        if action == Action::Status {
            return Ok(Sight::all());
        }
        let identity = self.known()?;
        if let Some(bearer) = &self.token
            && action.needs().is_none_or(|needed| bearer.scope < needed)
        {
            let sentence = match action.needs() {
                Some(needed) => format!("this token goes as far as {}, and this needs {needed}", bearer.scope),
                None if action == Action::EnrollFactors => {
                    "no token gives somebody a second factor: use `tidegate user mfa` on the gateway's own host"
                        .to_owned()
                }
                None => "no token makes a token: use `tidegate token issue` on the gateway's own host".to_owned(),
            };
            return Err(forbidden(sentence));
        }
        let own = || Sight::own(identity);
        match action {
            _ if self.admin => Ok(Sight::all()),
            Action::Status => Ok(Sight::all()),
            Action::ReadGrants
            | Action::ReadRequests
            | Action::ReadReviews
            | Action::ReadSessions
            | Action::WatchSessions
            | Action::ReadEvents => Ok(own().and(self.audits.clone())),
            Action::HoldRecordings if !self.audits.is_nothing() => Ok(self.audits.clone()),
            Action::ReadLeases
            | Action::ReadTokens
            | Action::ReadLocks
            | Action::ReadFactors
            | Action::ReadNotify
            | Action::ReadAccess
            | Action::ReadRefusals
                if self.audits.is_all() =>
            {
                Ok(Sight::all())
            }
            Action::RevokeGrants
            | Action::RegisterKeys
            | Action::AskRequests
            | Action::DecideRequests
            | Action::SignReviews
            | Action::NoteRecordings
            | Action::KillSessions
            | Action::MakeTokens
            | Action::ReadTokens
            | Action::RevokeTokens => Ok(own()),
            Action::MakeGrants
            | Action::EndUsers
            | Action::RetryLeases
            | Action::AcceptLeases
            | Action::SweepTargets
            | Action::AdoptAccounts
            | Action::TestTargets
            | Action::SetLocks
            | Action::EnrollFactors
            | Action::RetryNotify
            | Action::Configure => Err(forbidden(format!("{identity} is not an admin of this gateway (roles.admin)"))),
            Action::ReadLeases
            | Action::HoldRecordings
            | Action::ReadLocks
            | Action::ReadFactors
            | Action::ReadNotify
            | Action::ReadAccess
            | Action::ReadRefusals => Err(forbidden(if self.audits.is_nothing() {
                format!("{identity} is neither an admin nor an auditor of this gateway (roles.admin, roles.auditor)")
            } else {
                format!("{identity} is an auditor of a part of this gateway only (roles.auditor sees all of it)")
            })),
        }
    }

    /// The identity that answers for an action; an account that maps to nobody may see the status and nothing else.
    pub(crate) fn known(&self) -> Result<&IdentityName, Problem> {
        self.identity.as_ref().ok_or_else(|| {
            forbidden(format!(
                "the local account {0} is nobody here: give a user of the configuration unix_user = \"{0}\", and \
                 reload (as root: SIGHUP)",
                self.account
            ))
        })
    }
}

fn forbidden(sentence: String) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, sentence)
}

/// The account of this uid, by the system's own databases. Blocks; an error is no account.
pub(crate) fn account(uid: u32) -> Option<String> {
    nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten().map(|user| user.name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tidegate_grants::Identity;

    pub(in crate::api) fn policy() -> Policy {
        let person = |name: &str, group: &str, unix_user: Option<&str>| {
            let name: IdentityName = name.parse().unwrap();
            let identity = Identity {
                name: name.clone(),
                groups: [group.parse().unwrap()].into(),
                ssh_keys: Vec::new(),
                unix_user: unix_user.map(str::to_owned),
            };
            (name, identity)
        };
        Policy {
            gateway: "gate".to_owned(),
            node: "a".to_owned(),
            config: String::new(),
            identities: [
                person("ada", "platform", Some("ada")),
                person("audrey", "audit", Some("audrey")),
                person("eve", "sre", Some("eve")),
                person("piet", "part", Some("piet")),
                person("remote", "platform", None),
            ]
            .into(),
            targets: BTreeMap::new(),
            entitlements: BTreeMap::new(),
            issuers: BTreeMap::new(),
            admins: ["platform".parse().unwrap()].into(),
            auditors: ["audit".parse().unwrap()].into(),
            scoped_auditors: vec![tidegate_grants::Auditor {
                name: "part".to_owned(),
                groups: ["part".parse().unwrap()].into(),
                targets: None,
                people: Some(["sre".parse().unwrap()].into()),
                recipients: Vec::new(),
                keystroke_recipients: Vec::new(),
            }],
            limits: tidegate_grants::SessionLimits::default(),
        }
    }

    /// `all`, `part`, `own` or `no` for each action.
    fn row(caller: &Caller) -> Vec<&'static str> {
        let actions = [
            Action::Status,
            Action::MakeGrants,
            Action::RevokeGrants,
            Action::ReadGrants,
            Action::ReadLeases,
            Action::RetryLeases,
            Action::ReadSessions,
            Action::KillSessions,
            Action::Configure,
            Action::ReadRefusals,
        ];
        let word = |action| match caller.may(action) {
            Ok(sight) if sight.is_all() => "all",
            Ok(sight) if Some(&sight) == caller.identity.as_ref().map(Sight::own).as_ref() => "own",
            Ok(_) => "part",
            Err(problem) => {
                assert_eq!(problem.status, 403);
                "no"
            }
        };
        actions.into_iter().map(word).collect()
    }

    #[test]
    fn account_decides_what_its_identity_may_do() {
        let policy = policy();
        let caller = |account: &str| Caller::new(&policy, 1000, Some(account.to_owned()));
        // status, make, revoke, read grants, read leases, retry leases, read sessions, kill sessions, configure
        assert_eq!(row(&caller("ada")), ["all", "all", "all", "all", "all", "all", "all", "all", "all", "all"]);
        assert_eq!(row(&caller("audrey")), ["all", "no", "own", "all", "all", "no", "all", "own", "no", "all"]);
        assert_eq!(row(&caller("piet")), ["all", "no", "own", "part", "no", "no", "part", "own", "no", "no"]);
        assert_eq!(row(&caller("eve")), ["all", "no", "own", "own", "no", "no", "own", "own", "no", "no"]);
        assert_eq!(row(&caller("mallory")), ["all", "no", "no", "no", "no", "no", "no", "no", "no", "no"]);
    }

    #[test]
    fn a_token_narrows_what_its_identity_may_do_and_never_widens_it() {
        let policy = policy();
        let caller = |identity: &str, scope| {
            let (identity, made_by) = (identity.parse().unwrap(), "remote".parse().unwrap());
            Caller::with_token(&policy, Bearer { token: tidegate_grants::TokenId::new(), identity, scope, made_by })
        };
        // status, make, revoke, read grants, read leases, retry leases, read sessions, kill sessions, configure, read refusals
        let read = row(&caller("ada", TokenScope::Read));
        assert_eq!(read, ["all", "no", "no", "all", "all", "no", "all", "no", "no", "all"]);
        let grants = row(&caller("ada", TokenScope::Grants));
        assert_eq!(grants, ["all", "all", "all", "all", "all", "no", "all", "no", "no", "all"]);
        for name in ["ada", "audrey", "eve"] {
            let whole = caller(name, TokenScope::All);
            assert_eq!(row(&whole), row(&Caller::new(&policy, 1000, Some(name.to_owned()))), "{name}");
            assert!(whole.may(Action::MakeTokens).is_err() && whole.may_be(&"remote".parse().unwrap()), "{name}");
        }
        let gone = caller("nobody", TokenScope::All);
        assert!(gone.known().is_err() && row(&gone).iter().skip(1).all(|word| *word == "no"));
    }

    #[test]
    fn root_and_nameless_accounts_are_nobody_unless_mapped() {
        let policy = policy();
        let nobody = ["all", "no", "no", "no", "no", "no", "no", "no", "no", "no"];
        assert_eq!(row(&Caller::new(&policy, 0, Some("root".to_owned()))), nobody);
        // `remote` is an admin without a unix_user: an account without a name is not them.
        assert_eq!(row(&Caller::new(&policy, 4242, None)), nobody);
        assert_eq!(row(&Caller::new(&policy, 4242, Some("remote".to_owned()))), nobody);
    }

    #[test]
    fn a_plain_user_sees_their_own_grants_and_sessions_only() {
        let policy = policy();
        let eve = Caller::new(&policy, 1000, Some("eve".to_owned()));
        for action in [Action::ReadGrants, Action::ReadSessions, Action::KillSessions] {
            assert_eq!(eve.may(action), Ok(Sight::own(&"eve".parse().unwrap())));
        }
    }
}
