//! `when` of an entitlement: a condition in [Cedar](https://www.cedarpolicy.com), over who, where to, from where, when, with which ticket
//! and by which key.
//!
//! What always holds: a condition was validated against `SCHEMA` before anything is judged by it, so a misspelt attribute is a fault of
//! the configuration and no denial at night; and what cannot be evaluated does not hold. Pure: the moment is an argument, and what is not
//! known of it is not there, which only those conditions mind that ask for it.

use crate::{identity::Identity, target::Kind, target::Target};
use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid, Expression, Policy, PolicyId,
    PolicySet, Request, RestrictedExpression, Schema, ValidationMode, Validator,
};
use jiff::Timestamp;
use std::{collections::HashSet, fmt, net::IpAddr, str::FromStr, sync::Arc};

/// What a condition can speak of. `context.time` is in UTC; `getTag` gives a label of the target.
const SCHEMA: &str = r#"
entity Group;
entity Identity in [Group] { name: String };
entity Target { name: String, kind: String } tags String;
action open appliesTo {
    principal: Identity,
    resource: Target,
    context: {
        ip: ipaddr,
        time: datetime,
        ticket?: String,
        device: { key?: String, hardware: Bool, certificate: Bool, password: Bool },
    },
};
"#;
/// Longer is no condition that anybody could read.
const LONGEST: usize = 4096;

/// A condition that was validated.
#[derive(Debug, Clone)]
pub struct When {
    text: Arc<str>,
    policies: Arc<PolicySet>,
}

/// What somebody logged in with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// The fingerprint of their key, `SHA256:…`, if they showed one.
    pub key: Option<String>,
    /// That key is in a security key (FIDO).
    pub hardware: bool,
    /// They showed a certificate.
    pub certificate: bool,
    /// They typed a password.
    pub password: bool,
}

/// What is known of the moment that a condition is judged at.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Who.
    pub identity: &'a Identity,
    /// Where to.
    pub target: &'a Target,
    /// When.
    pub at: Timestamp,
    /// From where.
    pub source: Option<IpAddr>,
    /// With which ticket.
    pub ticket: Option<&'a str>,
    /// By what.
    pub device: Option<&'a Device>,
}

/// Whether a condition holds.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// It does.
    Holds,
    /// It does not.
    Fails,
    /// It asks for something that is not known, or cannot be evaluated: it does not hold. With the reason.
    Unknown(String),
}

/// Why a text is no condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoCondition(String);

fn no(why: impl fmt::Display) -> NoCondition {
    NoCondition(why.to_string())
}

impl When {
    /// A Cedar expression that is true or false for each identity, target and moment.
    ///
    /// # Errors
    /// [`NoCondition`]: it is none, or speaks of what there is not; the sentence says which.
    pub fn new(text: &str) -> Result<Self, NoCondition> {
        if text.len() > LONGEST {
            return Err(no(format!("is longer than {LONGEST} bytes")));
        }
        // One expression and nothing else: what closes the brace and goes on is refused here.
        Expression::from_str(text).map_err(|why| no(format!("is no Cedar expression: {why}")))?;
        let whole = format!("permit(principal, action == Action::\"open\", resource) when {{\n{text}\n}};");
        let policy = Policy::parse(Some(PolicyId::new("when")), whole)
            .map_err(|why| no(format!("is no Cedar condition: {why}")))?;
        let policies = PolicySet::from_policies([policy]).map_err(no)?;
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA).map_err(no)?;
        let result = Validator::new(schema).validate(&policies, ValidationMode::Strict);
        // A warning says that it holds never, or that a text looks like another one.
        let wrong = result.validation_errors().map(ToString::to_string);
        match wrong.chain(result.validation_warnings().map(ToString::to_string)).next() {
            Some(wrong) => Err(no(wrong.replace("for policy `when`, ", ""))),
            None => Ok(Self { text: text.into(), policies: Arc::new(policies) }),
        }
    }

    /// Whether it holds at that moment.
    pub fn judge(&self, facts: &Facts<'_>) -> Judged {
        self.evaluate(facts).unwrap_or_else(Judged::Unknown)
    }

    fn evaluate(&self, facts: &Facts<'_>) -> Result<Judged, String> {
        let (who, there) = (uid("Identity", facts.identity.name.as_str())?, uid("Target", facts.target.name.as_str())?);
        let request = Request::new(who.clone(), uid("Action", "open")?, there.clone(), context(facts)?, None);
        let request = request.map_err(|why| why.to_string())?;
        let entities = Entities::from_entities([person(who, facts.identity)?, target(there, facts.target)?], None);
        let entities = entities.map_err(|why| why.to_string())?;
        let answer = Authorizer::new().is_authorized(&request, &self.policies, &entities);
        if let Some(error) = answer.diagnostics().errors().next() {
            return Err(error.to_string());
        }
        Ok(if answer.decision() == Decision::Allow { Judged::Holds } else { Judged::Fails })
    }

    /// The people, groups and targets that it names, as `(Identity, "alice")`: for a look at whether there are such.
    pub fn names(&self) -> Vec<(String, String)> {
        let literals = self.policies.policies().flat_map(Policy::entity_literals);
        literals.map(|uid| (uid.type_name().to_string(), uid.id().unescaped().to_owned())).collect()
    }
}

fn uid(kind: &str, name: &str) -> Result<EntityUid, String> {
    let kind = EntityTypeName::from_str(kind).map_err(|why| why.to_string())?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(name)))
}

fn text(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

fn person(uid: EntityUid, identity: &Identity) -> Result<Entity, String> {
    let groups = identity.groups.iter().map(|group| self::uid("Group", group.as_str()));
    let groups = groups.collect::<Result<HashSet<_>, _>>()?;
    let attributes = [("name".to_owned(), text(identity.name.as_str()))];
    Entity::new_with_tags(uid, attributes, groups, []).map_err(|why| why.to_string())
}

fn target(uid: EntityUid, target: &Target) -> Result<Entity, String> {
    let kind = match target.kind {
        Kind::Ssh => "ssh",
        Kind::Postgres => "postgres",
    };
    let attributes = [("name".to_owned(), text(target.name.as_str())), ("kind".to_owned(), text(kind))];
    let labels = target.labels.iter().map(|(key, value)| (key.clone(), text(value)));
    Entity::new_with_tags(uid, attributes, [], labels).map_err(|why| why.to_string())
}

fn context(facts: &Facts<'_>) -> Result<Context, String> {
    let time = facts.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut pairs = vec![("time".to_owned(), RestrictedExpression::new_datetime(time))];
    if let Some(source) = facts.source {
        pairs.push(("ip".to_owned(), RestrictedExpression::new_ip(source.to_canonical().to_string())));
    }
    if let Some(ticket) = facts.ticket {
        pairs.push(("ticket".to_owned(), text(ticket)));
    }
    if let Some(device) = facts.device {
        let flag = |key: &str, is| (key.to_owned(), RestrictedExpression::new_bool(is));
        let flags = [flag("hardware", device.hardware), flag("certificate", device.certificate)];
        let key = device.key.iter().map(|key| ("key".to_owned(), text(key)));
        let fields = flags.into_iter().chain([flag("password", device.password)]).chain(key);
        let device = RestrictedExpression::new_record(fields).map_err(|why| why.to_string())?;
        pairs.push(("device".to_owned(), device));
    }
    Context::from_pairs(pairs).map_err(|why| why.to_string())
}

impl PartialEq for When {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for When {}

impl fmt::Display for When {
    /// In one line, however many it was written in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.text.split_whitespace().collect();
        f.write_str(&words.join(" "))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::fixture::policy;

    fn judged(condition: &str, change: impl FnOnce(&mut Facts<'_>)) -> Judged {
        let policy = policy();
        let (identity, target) =
            (&policy.identities[&"alice".parse().unwrap()], &policy.targets[&"web-1".parse().unwrap()]);
        let at = "2026-11-20T12:30:00Z".parse().unwrap();
        let device = Device { key: Some("SHA256:abc".to_owned()), ..Device::default() };
        let source = Some("10.1.2.3".parse().unwrap());
        let mut facts = Facts { identity, target, at, source, ticket: Some("INC-1"), device: Some(&device) };
        change(&mut facts);
        When::new(condition).unwrap().judge(&facts)
    }

    #[test]
    fn a_condition_speaks_of_people_targets_time_source_ticket_and_device() {
        for (condition, holds) in [
            (r#"context.ip.isInRange(ip("10.0.0.0/8"))"#, true),
            (r#"context.ip.isInRange(ip("192.168.0.0/16"))"#, false),
            (r#"context.ip.isLoopback() || context.ip.isIpv4()"#, true),
            (r#"principal in Group::"sre""#, true),
            (r#"principal in Group::"platform""#, false),
            (r#"principal == Identity::"alice" && principal.name like "al*""#, true),
            (r#"resource == Target::"web-2""#, false),
            (r#"resource.kind == "ssh" && resource.hasTag("env") && resource.getTag("env") == "prod""#, true),
            (r#"resource.hasTag("team")"#, false),
            (r#"context.time.toTime() >= duration("12h") && context.time.toTime() < duration("13h")"#, true),
            (r#"context.time < datetime("2026-11-20")"#, false),
            (r#"context has ticket && context.ticket like "INC-*""#, true),
            (r#"context.device has key && context.device.key == "SHA256:abc""#, true),
            (r#"context.device.hardware || context.device.password"#, false),
        ] {
            let expected = if holds { Judged::Holds } else { Judged::Fails };
            assert_eq!(judged(condition, |_| {}), expected, "{condition}");
        }
        let mapped = |facts: &mut Facts<'_>| facts.source = Some("::ffff:10.0.0.1".parse().unwrap());
        assert_eq!(judged(r#"context.ip.isInRange(ip("10.0.0.0/8"))"#, mapped), Judged::Holds);
    }

    #[test]
    fn what_is_not_known_does_not_hold_and_what_does_not_ask_for_it_does() {
        let nowhere = |facts: &mut Facts<'_>| (facts.source, facts.device) = (None, None);
        let unknown = judged(r#"context.ip.isIpv4()"#, nowhere);
        assert!(matches!(&unknown, Judged::Unknown(why) if why.contains("ip")), "{unknown:?}");
        assert!(matches!(judged(r#"!context.device.password"#, nowhere), Judged::Unknown(_)));
        assert_eq!(judged(r#"principal in Group::"sre""#, nowhere), Judged::Holds);
        // An expression that cannot be computed is no yes either: 2^62 times 4.
        let huge = r#"4611686018427387904 * 4 > 0 || context.ip.isIpv4()"#;
        assert!(matches!(judged(huge, |_| {}), Judged::Unknown(_)));
    }

    #[test]
    fn what_is_no_condition_says_why() {
        for (text, said) in [
            ("", "is no Cedar expression"),
            ("context.ip.", "is no Cedar expression"),
            ("true }; permit(principal, action, resource", "is no Cedar expression"),
            ("true } unless { false", "is no Cedar expression"),
            (r#"context.ipp.isIpv4()"#, "ipp"),
            (r#"context.ip.isInRage(ip("10.0.0.0/8"))"#, "isInRage"),
            (r#"context.ip.isInRange(ip("10.0.0.0/33"))"#, "10.0.0.0/33"),
            (r#"context.ip == "10.0.0.1""#, ""),
            (r#"context.ticket == "INC-1""#, "ticket"),
            (r#"principal in Grup::"sre""#, "Grup"),
            (r#"context.time"#, ""),
            ("1", ""),
            ("false", ""),
        ] {
            let refused = When::new(text).expect_err(text).to_string();
            assert!(refused.contains(said), "{text}: {refused}");
        }
        assert!(When::new(&format!("true && {}", "true && ".repeat(1000))).is_err());
    }

    #[test]
    fn a_condition_names_whom_it_names() {
        let when = When::new(r#"principal in Group::"sre" || resource == Target::"web-9""#).unwrap();
        let mut names = when.names();
        names.retain(|(kind, _)| kind != "Action");
        names.sort();
        assert_eq!(names, [("Group".to_owned(), "sre".to_owned()), ("Target".to_owned(), "web-9".to_owned())]);
    }
}
