//! `[[user]]`: who may come to the door, and how they prove it.

use super::{
    fault::KeyRole,
    gateway::groups,
    section::Section,
    value::{self, SSH_KEY_FIX},
};
use std::collections::BTreeMap;
use tidegate_grants::{Identity, IdentityName};

/// All users. What was faulty is left out, and has said so.
pub(super) fn people(root: &Section<'_>) -> BTreeMap<IdentityName, Identity> {
    let mut people = BTreeMap::new();
    let mut taken = Taken::default();
    for section in root.sections("user") {
        let name = section
            .need("name", section.text("name"), "write name = \"alice\"")
            .and_then(|name| name.parse(str::parse::<IdentityName>, "choose such a name"));
        let groups = groups(&section, "groups");
        let ssh_keys = ssh_keys(&section, &mut taken);
        let unix_user = unix_user(&section, &mut taken);
        section.not_yet(&["totp", "email", "notify", "tokens"]);
        section.unknown();
        let Some(name) = name else { continue };
        if people.contains_key(&name.value) {
            name.fault("is the name of another user already", "give each user a name of their own");
            continue;
        }
        let identity = Identity { name: name.value.clone(), groups, ssh_keys, unix_user };
        people.insert(name.value, identity);
    }
    people
}

/// A key or a local account proves one identity, not two.
#[derive(Default)]
struct Taken {
    keys: Vec<String>,
    accounts: Vec<String>,
}

fn ssh_keys(section: &Section<'_>, taken: &mut Taken) -> Vec<String> {
    let mut keys = Vec::new();
    for item in section.texts("ssh_keys").map(|list| list.value).unwrap_or_default() {
        let Some(key) = item.parse(value::ssh_key, SSH_KEY_FIX) else { continue };
        let Ok(line) = key.value.to_openssh() else {
            key.fault("cannot be written as an OpenSSH public key", SSH_KEY_FIX);
            continue;
        };
        let line = line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        if taken.keys.contains(&line) {
            key.fault("is listed twice: a key must say who it is", "take one out");
            continue;
        }
        key.plays(KeyRole::Login);
        taken.keys.push(line.clone());
        keys.push(line);
    }
    keys
}

fn unix_user(section: &Section<'_>, taken: &mut Taken) -> Option<String> {
    let account = section.text("unix_user")?;
    let odd = |b: u8| b.is_ascii_control() || b.is_ascii_whitespace() || b":/,".contains(&b);
    if account.value.is_empty() || account.value.len() > 64 || account.value.bytes().any(odd) {
        account.fault("is not the name of a local account", "write it as `id -un` prints it");
        return None;
    }
    if taken.accounts.iter().any(|other| other == account.value) {
        account.fault("is the local account of another user already", "map each account to one user");
        return None;
    }
    taken.accounts.push(account.value.to_owned());
    Some(account.value.to_owned())
}
