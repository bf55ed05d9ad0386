//! "Why was I refused?": what the ledger says under a reference, and what would change the answer.
//!
//! What always holds: what happened is told as the ledger has it, what would change it by the configuration that is in
//! force now, and where the two do not fit any more (a target has come meanwhile) that is said. Pure: nothing is read
//! here.

use serde::{Deserialize, Serialize};
use tidegate_grants::{
    Entitlement, GrantState, GrantView, Identity, Policy, Reference, Target, Terms, entitlement::Selector,
    ledger::Entry,
};
use utoipa::ToSchema;

/// `GET /v1/refusals/{reference}`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Explanation {
    /// What the person was told.
    #[serde(rename = "ref")]
    pub(crate) reference: Reference,
    /// What was refused on that visit, oldest first.
    pub(crate) refusals: Vec<Refused>,
}

/// One no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Refused {
    /// When.
    pub(crate) at: jiff::Timestamp,
    /// The ledger's entry: `session.denied`, `door.refused`, …
    pub(crate) kind: String,
    /// Which check said no.
    pub(crate) check: String,
    /// Who; at the door, the name that they gave.
    pub(crate) who: Option<String>,
    /// Whether that is proven.
    pub(crate) proven: bool,
    /// From where.
    pub(crate) source: Option<String>,
    /// What was asked for.
    pub(crate) asked: Option<String>,
    /// In which session, if there was one.
    pub(crate) session: Option<String>,
    /// As the person was told, and what only the ledger has.
    pub(crate) why: String,
    /// What that rests on.
    pub(crate) because: Vec<String>,
    /// What would change it, as commands and keys of the configuration.
    pub(crate) next: Vec<String>,
}

/// What the entries under a reference come to.
pub(crate) fn explain(reference: Reference, entries: &[Entry], policy: &Policy, grants: &[GrantView]) -> Explanation {
    let mut refusals: Vec<Refused> = Vec::new();
    for entry in entries {
        let refused = Looked { entry, policy, grants }.refused();
        // The channels of one session are often refused for one reason, one after the other.
        if !refusals.iter().any(|told| (&told.kind, &told.why) == (&refused.kind, &refused.why)) {
            refusals.push(refused);
        }
    }
    Explanation { reference, refusals }
}

struct Looked<'a> {
    entry: &'a Entry,
    policy: &'a Policy,
    grants: &'a [GrantView],
}

/// What a no rests on, and what would change it.
#[derive(Default)]
struct Found {
    because: Vec<String>,
    next: Vec<String>,
}

impl Found {
    fn because(mut self, sentence: impl Into<String>) -> Self {
        self.because.push(sentence.into());
        self
    }
    fn next(mut self, what: impl Into<String>) -> Self {
        self.next.push(what.into());
        self
    }
}

impl Looked<'_> {
    fn text(&self, key: &str) -> Option<String> {
        self.entry.event.detail.get(key).and_then(|value| value.as_str()).map(str::to_owned)
    }

    /// The login or database.
    fn access(&self) -> Option<String> {
        let access = self.entry.event.detail.get("access")?.as_object()?;
        access.values().next().and_then(|name| name.as_str()).map(str::to_owned)
    }

    fn who(&self) -> Option<&str> {
        self.entry.event.identity.as_deref()
    }

    fn target(&self) -> &str {
        self.entry.event.target.as_ref().map_or("", |target| target.as_str())
    }

    fn refused(&self) -> Refused {
        let event = &self.entry.event;
        let check = self.text("check").unwrap_or_else(|| "gateway".to_owned());
        let asked = match (self.access(), &event.target) {
            (Some(access), Some(target)) => Some(format!("{access} on {target}")),
            (None, Some(target)) => Some(target.to_string()),
            (_, None) => self.text("asked"),
        };
        let destination = self.text("destination").map(|to| format!(", forwarding to {to}")).unwrap_or_default();
        let Found { mut because, next } = self.found(&check);
        let invalid = event.detail.get("invalid").and_then(|list| list.as_array());
        because.extend(
            invalid.into_iter().flatten().filter_map(|why| Some(format!("does not verify: {}", why.as_str()?))),
        );
        Refused {
            at: self.entry.at,
            kind: event.kind.clone(),
            who: event.identity.clone().or_else(|| self.text("name")),
            proven: event.identity.is_some() || self.is_of_the_shell(),
            source: self.text("source"),
            asked: asked.map(|asked| asked + &destination),
            session: event.session.map(|session| session.to_string()),
            why: self.text("why").unwrap_or_default(),
            check,
            because,
            next,
        }
    }

    /// Refused inside the control shell: whose key it was is known there.
    fn is_of_the_shell(&self) -> bool {
        self.entry.event.detail.get("asked").is_some_and(|asked| asked.is_string())
    }

    fn found(&self, check: &str) -> Found {
        match check {
            "target" | "access" => self.not_reached(),
            "grant" => self.no_grant(),
            "expired" | "revoked" | "used" => self.ended(check),
            "ambiguous" => Found::default()
                .because("grants of several entitlements fit, and `~` named none of them")
                .next(format!("they name one, like `LOGIN~ENTITLEMENT@{}@gate`", self.target())),
            "limit" => self.limit(),
            "killed" => Found::default().because("somebody ended this session; its grant goes on"),
            "mfa" => Found::default()
                .because(
                    "the entitlement asks for a second factor (mfa = \"session\"), which this login had not proven",
                )
                .next("they prove it: `ssh gate help mfa`; who has none gets one: tidegate user mfa enroll NAME"),
            "locked" => Found::default()
                .because("a lock keeps them out, whatever grants say")
                .next("tidegate lock list; tidegate lock remove ID"),
            "configuration" => Found::default()
                .because("a reload took away what the grant was for (`config.reloaded` in the ledger)")
                .next("tidegate ledger tail"),
            "ledger" => Found::default()
                .because("the store does not agree with its ledger, so nothing opens for anybody")
                .next("tidegate ledger verify"),
            "store" | "recording" => Found::default()
                .because("the gateway's disk took no ledger entry or no recording at that moment")
                .next("tidegate doctor"),
            "stopping" => Found::default().because("the gateway was being stopped"),
            "target-side" => Found::default()
                .because("the grant was good; what failed is between the gateway and the target")
                .next(format!("tidegate target test {}", self.target())),
            "forward" => self.terms("forward"),
            "files" => self.terms("files"),
            "idle" => self.terms("idle_timeout"),
            "hours" => self.terms("hours"),
            "when" => self.terms("when"),
            "held" => Found::default()
                .because("one person holds it at a time, and somebody else did")
                .next("tidegate grant list; tidegate grant return ID --force --reason WHY"),
            "returned" => Found::default().because("they handed the grant back themselves"),
            "request" => Found::default()
                .because("they asked, and it was refused, taken back or not decided")
                .next("tidegate request list --all"),
            "clock" => Found::default()
                .because("the gateway's clock had gone back behind its own ledger")
                .next("set the clock right, then `tidegate doctor`"),
            _ => self.at_the_door(check),
        }
    }

    /// What those who came no further than the door did wrong.
    fn at_the_door(&self, check: &str) -> Found {
        match check {
            "key" => Found::default()
                .because("no key or certificate that it showed belongs to anybody in the configuration")
                .next("user[NAME].ssh_keys: add the public key; or [ssh] user_ca, if they come with certificates"),
            "password" => Found::default()
                .because("the password was wrong, over, replaced by a newer one, or used from another address")
                .next("they get a new one: `ssh gate password TARGET`"),
            "certificate" => Found::default().next("they get a new one: `ssh gate cert < request.csr`"),
            "name" => Found::default()
                .because("what they typed before the @ is no name here")
                .next("LOGIN@TARGET@gate for ssh; dbname=TARGET/DATABASE user=NAME for psql"),
            "tls" => Found::default()
                .because("the client did not speak TLS as it must here")
                .next("sslmode=verify-full, with `ssh gate config ca` as sslrootcert"),
            "protocol" => Found::default().because("the client asked for something that is not taken through the gate"),
            _ => Found::default(),
        }
    }

    fn identity(&self) -> Option<&Identity> {
        let who = self.who()?;
        self.policy.identities.values().find(|identity| identity.name.as_str() == who)
    }

    fn no_such_user(&self) -> Found {
        let who = self.who().unwrap_or("this identity");
        Found::default().because(format!("{who} is not in the configuration now")).next(format!("add [[user]] {who}"))
    }

    /// No entitlement of theirs leads there.
    fn not_reached(&self) -> Found {
        let name = self.target();
        let Some(identity) = self.identity() else { return self.no_such_user() };
        let Some(target) = self.policy.targets.values().find(|target| target.name.as_str() == name) else {
            return Found::default()
                .because(format!("there is no target {name} in the configuration"))
                .next(format!("add [[target]] {name}, or tell them the right name (`ssh gate targets`)"));
        };
        let access = self.access();
        let mut found = Found::default().because(format!("{} is in the groups {}", identity.name, groups(identity)));
        let reaching = self.policy.entitlements.values().filter(|entitlement| entitlement.reaches(target));
        let mut any = false;
        for entitlement in reaching {
            any = true;
            found = self.short_of(found, identity, entitlement, access.as_deref());
        }
        if any { found } else { self.no_entitlement(found, target) }
    }

    fn no_entitlement(&self, found: Found, target: &Target) -> Found {
        let near = self.policy.entitlements.values().filter(|e| e.terms.kind() == target.kind);
        let labels = near.filter_map(|e| match &e.targets {
            Selector::Names(_) => None,
            Selector::Labels(labels) => {
                let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key} = {value:?}")).collect();
                Some(format!("entitlement[{}].targets = {{ {} }}", e.name, labels.join(", ")))
            }
        });
        let labels: Vec<String> = labels.collect();
        let found = found.because(format!("no entitlement reaches {}", target.name));
        let found = found.next(format!("name {} in `targets` of an entitlement", target.name));
        if labels.is_empty() {
            return found;
        }
        found.next(format!("or give target[{}].labels what one of these asks for: {}", target.name, labels.join("; ")))
    }

    /// What keeps this entitlement, which reaches the target, from opening what was asked for.
    fn short_of(&self, found: Found, identity: &Identity, entitlement: &Entitlement, access: Option<&str>) -> Found {
        let name = &entitlement.name;
        let (key, opens) = openings(&entitlement.terms);
        let opens_it = access.is_none_or(|access| opens.contains(&access));
        let theirs = entitlement.is_for(identity);
        let asked_for = access.unwrap_or_default();
        match (theirs, opens_it) {
            (true, true) => found
                .because(format!("entitlement[{name}] opens it now: the configuration has changed since"))
                .next(issue(identity, self.target(), entitlement)),
            (true, false) => found
                .because(format!("entitlement[{name}] opens {key} {} there, and not {asked_for}", opens.join(", ")))
                .next(format!("entitlement[{name}].{key}: add {asked_for:?}")),
            (false, true) => found
                .because(format!("entitlement[{name}] opens it, for the groups {}", names(&entitlement.groups)))
                .next(format!("user[{}].groups: add one of {}", identity.name, names(&entitlement.groups))),
            (false, false) => found,
        }
    }

    fn no_grant(&self) -> Found {
        let name = self.target();
        let Some(identity) = self.identity() else { return self.no_such_user() };
        let target = self.policy.targets.values().find(|target| target.name.as_str() == name);
        let open = target.map(|target| self.policy.open_to(identity, target).collect::<Vec<_>>()).unwrap_or_default();
        let access = self.access();
        let fits = |e: &&&Entitlement| access.as_deref().is_none_or(|access| openings(&e.terms).1.contains(&access));
        let mut found =
            Found::default().because(format!("{} may ask for it, and held no grant that was good", identity.name));
        for entitlement in open.iter().filter(fits) {
            found = found.next(issue(identity, name, entitlement));
        }
        if found.next.is_empty() { self.not_reached() } else { found }
    }

    fn ended(&self, check: &str) -> Found {
        let state = match check {
            "expired" => GrantState::Expired,
            "revoked" => GrantState::Revoked,
            _ => GrantState::Used,
        };
        let mut found = Found::default();
        let named = self.entry.event.grant;
        let theirs = self.grants.iter().filter(|grant| match named {
            Some(id) => grant.id == id,
            None => {
                let claims = &grant.claims;
                Some(claims.sub.as_str()) == self.who()
                    && claims.target.as_str() == self.target()
                    && grant.state == state
            }
        });
        for grant in theirs.take(3) {
            let end = grant.ends;
            let how = match &grant.revoked {
                Some(revoked) => format!(
                    "revoked by {} at {}{}",
                    revoked.by,
                    revoked.at,
                    revoked.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default()
                ),
                None if grant.state == GrantState::Used => "good for one session, and used".to_owned(),
                None => format!("good until {end}"),
            };
            found = found.because(format!("grant {} of entitlement[{}]: {how}", grant.id, grant.claims.entitlement));
        }
        let again = self.no_grant();
        Found { next: again.next, ..found }
    }

    fn limit(&self) -> Found {
        let mut found = Found::default().because("as many were open at that moment as may be");
        if let Some(target) = self.policy.targets.values().find(|target| target.name.as_str() == self.target())
            && let Some(identity) = self.identity()
        {
            for entitlement in self.policy.open_to(identity, target) {
                if let Terms::Postgres { max_connections, .. } = entitlement.terms {
                    found = found.next(format!(
                        "entitlement[{}].max_connections is {max_connections}: raise it, or they open fewer",
                        entitlement.name
                    ));
                }
            }
        }
        found.next("tidegate session list")
    }

    /// A key of the entitlement that the session was under.
    fn terms(&self, key: &str) -> Found {
        let grant = self.entry.event.grant.and_then(|id| self.grants.iter().find(|grant| grant.id == id));
        match grant {
            Some(grant) => Found::default()
                .because(format!("the session was under entitlement[{}]", grant.claims.entitlement))
                .next(format!("entitlement[{}].{key} would have to allow it", grant.claims.entitlement)),
            None => Found::default().next(format!("the entitlement's `{key}` would have to allow it")),
        }
    }
}

fn groups(identity: &Identity) -> String {
    names(&identity.groups)
}

fn names<'a>(names: impl IntoIterator<Item = &'a tidegate_grants::GroupName>) -> String {
    let names: Vec<&str> = names.into_iter().map(|name| name.as_str()).collect();
    if names.is_empty() { "(none)".to_owned() } else { names.join(", ") }
}

/// The key, and what it lists.
fn openings(terms: &Terms) -> (&'static str, Vec<&str>) {
    match terms {
        Terms::Ssh { logins, .. } => ("logins", logins.iter().map(|login| login.as_str()).collect()),
        Terms::Postgres { databases, .. } => ("databases", databases.iter().map(|name| name.as_str()).collect()),
    }
}

fn issue(identity: &Identity, target: &str, entitlement: &Entitlement) -> String {
    let most = crate::config::show_duration(entitlement.max_duration);
    format!(
        "tidegate grant issue --user {} --target {target} --entitlement {} --for {most} --reason WHY",
        identity.name, entitlement.name
    )
}
