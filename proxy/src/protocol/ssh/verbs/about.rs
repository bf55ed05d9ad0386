//! `help` and `whoami`.

use super::{Arguments, Reply, VERBS, Verb, Visitor};
use serde_json::json;

pub(super) const HELP: Verb = Verb {
    name: "help",
    usage: "[VERB]",
    about: "this, or more about one of them",
    more: "",
    words: 0..=1,
    flags: &[],
    options: &[],
};

pub(super) const WHOAMI: Verb = Verb {
    name: "whoami",
    usage: "[--json]",
    about: "who you are here, and your groups",
    more: "Your key says who you are; the name before the gateway's means nothing here.",
    words: 0..=0,
    flags: &["--json"],
    options: &[],
};

const DOORS: &str = "\
ssh LOGIN@TARGET@gate              opens a session (also scp, sftp, rsync, git)
ssh LOGIN~ENTITLEMENT@TARGET@gate  the same, where several of your grants fit
ssh gate VERB ...                  does one of these; without VERB, a prompt for them:
";

pub(super) fn help(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Reply {
    let Some(wanted) = arguments.word(0) else {
        let width = VERBS.iter().map(|verb| verb.typed().len()).max().unwrap_or_default();
        let line = |verb: &Verb| format!("{:width$}  {}\n", verb.typed(), verb.about);
        return Reply::text(format!("{DOORS}\n{}", VERBS.iter().map(line).collect::<String>()));
    };
    match VERBS.iter().find(|verb| verb.name == wanted) {
        Some(verb) => {
            let more = if verb.more.is_empty() { String::new() } else { format!("\n{}\n", verb.more) };
            let more = more.replace("{gate}", &visitor.policy.gateway);
            Reply::text(format!("{}\n{}\n{more}", verb.typed(), verb.about))
        }
        None => Reply::usage("there is no such command"),
    }
}

pub(super) fn whoami(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Reply {
    let identity = visitor.identity;
    if arguments.has("--json") {
        return Reply::json(&json!({ "name": identity.name, "groups": identity.groups }));
    }
    let groups: Vec<&str> = identity.groups.iter().map(|group| group.as_str()).collect();
    Reply::text(format!("{}\ngroups: {}\n", identity.name, groups.join(", ")))
}
