//! `extend` and `return`: more of a grant, and less.

use super::{
    Arguments, Reply, Verb, Visitor,
    factor::prove,
    requests::{asked_for, not_done},
};
use tidegate_grants::{Means, authority::GrantError, duration, request::More};

pub(super) const EXTEND: Verb = Verb {
    name: "extend",
    usage: "GRANT [--for DURATION] [--reason WORDS…] [--ticket ID] [--json]",
    about: "ask for more time, without dropping what runs",
    more: "GRANT is its id (`grants`), or any unique first or last digits of it. The same people are asked as for the grant; with the\n\
           last approval its sessions end later. Once, where the entitlement says extend = \"once\". Reason and ticket are those of\n\
           the grant if you leave them out; --for counts from the last approval.",
    words: 1..=1,
    flags: &["--json"],
    options: &["--for", "--reason", "--ticket"],
};

pub(super) const RETURN: Verb = Verb {
    name: "return",
    usage: "GRANT [--force --reason WORDS…]",
    about: "hand a grant back: its sessions end",
    more: "GRANT is its id (`grants`), or any unique first or last digits of it. Whoever waits for an exclusive one goes on. With\n\
           --force somebody who approves it, or an admin, takes back what somebody else holds, and says why.",
    words: 1..=1,
    flags: &["--force"],
    options: &["--reason"],
};

pub(super) async fn extend(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Reply {
    let (gate, by) = (&visitor.ssh.gate, &visitor.identity.name);
    let id = arguments.word(0).unwrap_or_default();
    let duration = match arguments.value("--for").map(duration::parse).transpose() {
        Ok(duration) => duration,
        Err(why) => return Reply::usage(&format!("--for: {why}")),
    };
    let more = More {
        duration,
        reason: arguments.value("--reason").map(str::to_owned),
        ticket: arguments.value("--ticket").map(str::to_owned),
        from: Some(visitor.source),
        seen: None,
    };
    let mut extended = gate.extend(by, id, more.clone()).await;
    if let Err(GrantError::FactorNeeded { entitlement, means: Means::Codes }) = &extended {
        if let Err(refusal) = prove(visitor, &format!("{entitlement}: ")).await {
            return Reply::refused(&refusal);
        }
        extended = gate.extend(by, id, more).await;
    }
    match extended {
        Ok(view) => asked_for(visitor, arguments, &view),
        Err(error) => not_done(&error, "grants"),
    }
}

pub(super) async fn give_back(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Reply {
    let (gate, by) = (&visitor.ssh.gate, &visitor.identity.name);
    let (id, reason) = (arguments.word(0).unwrap_or_default(), arguments.value("--reason").map(str::to_owned));
    match gate.authority.give_back(by, id, arguments.has("--force"), reason, gate.now()).await {
        Ok(id) => Reply::text(format!("returned {id}\n")),
        Err(error) => not_done(&error, "grants"),
    }
}
