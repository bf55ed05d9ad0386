//! `[[user]]`: who may come to the door, and how they prove it.

use super::{
    fault::KeyRole,
    gateway::groups,
    nested::Nested,
    section::{Section, Whole},
    value::{self, SSH_KEY_FIX},
};
use std::collections::BTreeMap;
use tidegate_grants::{Identity, IdentityName};

/// All users, and who they are at the OpenID provider.
#[derive(Default)]
pub(super) struct People {
    pub(super) by_name: BTreeMap<IdentityName, Identity>,
    pub(super) subjects: BTreeMap<String, IdentityName>,
}

/// What was faulty is left out, and has said so.
pub(super) fn people(whole: &Whole<'_>, nested: &Nested) -> People {
    let mut people = People::default();
    for section in whole.sections("user") {
        let name = section
            .need("name", section.text("name"), "write name = \"alice\"")
            .and_then(|name| name.parse(str::parse::<IdentityName>, "choose such a name"));
        let groups = nested.all_of(groups(&section, "groups"));
        let ssh_keys = ssh_keys(&section);
        let unix_user = unix_user(&section);
        let subject = subject(&section, whole);
        section.unknown();
        let Some(name) = name else { continue };
        if let Some(other) = name.seen("user", name.value.as_str()) {
            let wrong = format!("is the name of another user already ({other})");
            name.fault(wrong, "give each user a name of their own");
            continue;
        }
        let identity = Identity { name: name.value.clone(), groups, ssh_keys, unix_user };
        people.subjects.extend(subject.map(|subject| (subject, name.value.clone())));
        people.by_name.insert(name.value, identity);
    }
    people
}

/// A key proves one identity, not two.
fn ssh_keys(section: &Section<'_>) -> Vec<String> {
    let mut keys = Vec::new();
    for item in section.texts("ssh_keys").map(|list| list.value).unwrap_or_default() {
        let Some(key) = item.parse(value::ssh_key, SSH_KEY_FIX) else { continue };
        let Ok(line) = key.value.to_openssh() else {
            key.fault("cannot be written as an OpenSSH public key", SSH_KEY_FIX);
            continue;
        };
        let line = line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        if let Some(other) = key.seen("ssh key", &line) {
            let wrong = format!("is a login key already ({other}): a key must say who it is");
            key.fault(wrong, "give each user a key of their own");
            continue;
        }
        key.plays(KeyRole::Login);
        keys.push(line);
    }
    keys
}

/// Who they are at the OpenID provider is one identity, too.
fn subject(section: &Section<'_>, whole: &Whole<'_>) -> Option<String> {
    let subject = section.text("oidc")?;
    if !whole.main.has("oidc") {
        subject.fault("needs an OpenID provider", "write [oidc] in the main file, or take it out");
    } else if let Some(other) = subject.seen("oidc subject", subject.value) {
        let wrong = format!("is another user already ({other})");
        subject.fault(wrong, "tie each login to one user");
    } else {
        return Some(subject.value.to_owned());
    }
    None
}

/// A local account is one identity, too.
fn unix_user(section: &Section<'_>) -> Option<String> {
    let account = section.text("unix_user")?;
    let odd = |b: u8| b.is_ascii_control() || b.is_ascii_whitespace() || b":/,".contains(&b);
    if account.value.is_empty() || account.value.len() > 64 || account.value.bytes().any(odd) {
        account.fault("is not the name of a local account", "write it as `id -un` prints it");
        return None;
    }
    if let Some(other) = account.seen("account", account.value) {
        let wrong = format!("is the local account of another user already ({other})");
        account.fault(wrong, "map each account to one user");
        return None;
    }
    Some(account.value.to_owned())
}
