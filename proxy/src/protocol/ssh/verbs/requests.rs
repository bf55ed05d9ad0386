//! `request`, `requests`, `approve`, `deny` and `cancel`: asking, and answering who asks.

use super::{Arguments, Reply, Verb, Visitor, factor::prove, reviews::owed};
use crate::{asking, refusal::Refusal, text::table};
use std::time::Duration;
use tidegate_grants::{
    Means, RequestState, RequestView, TargetName,
    authority::GrantError,
    duration,
    panel::{NoVoice, Standing},
    request::{NAMESPACE, Wish},
};

pub(super) const REQUEST: Verb = Verb {
    name: "request",
    usage: "TARGET[/ENTITLEMENT] [--for DURATION] [--reason WORDS…] [--ticket ID] [--login LOGIN] [--database NAME] [--json]",
    about: "ask for a grant",
    more: "`targets` lists what you may ask for. The request's id is on stdout, and who is asked on stderr. The same again is the\n\
           same request; anything else for the same entitlement takes its place, and what was approved of it is void.\n\
           Without --for it is for as long as the entitlement allows. The reason goes on to the next option.",
    words: 1..=1,
    flags: &["--json"],
    options: &["--for", "--reason", "--ticket", "--login", "--database"],
};

pub(super) const REQUESTS: Verb = Verb {
    name: "requests",
    usage: "[--all] [--json]",
    about: "requests: yours, and those that you may approve",
    more: "Newest first: those that are open; with --all, all.",
    words: 0..=0,
    flags: &["--all", "--json"],
    options: &[],
};

pub(super) const APPROVE: Verb = Verb {
    name: "approve",
    usage: "REQUEST [--signed] [--json]",
    about: "say yes to a request",
    more: "REQUEST is its id, or any unique first or last digits of it. Where a signature is asked for, the one line to sign is\n\
           on stdout; with --signed the signature is read from stdin:\n\
           \u{20} ssh gate approve REQUEST | ssh-keygen -Y sign -n tidegate-approval -f KEY | ssh gate approve REQUEST --signed\n\
           Without one your yes is attested: it rests on the gateway's word that you gave it.",
    words: 1..=1,
    flags: &["--signed", "--json"],
    options: &[],
};

pub(super) const DENY: Verb = Verb {
    name: "deny",
    usage: "REQUEST --reason WORDS…",
    about: "say no to a request",
    more: "Who asked is told why. REQUEST is its id, or any unique first or last digits of it.",
    words: 1..=1,
    flags: &[],
    options: &["--reason"],
};

pub(super) const CANCEL: Verb = Verb {
    name: "cancel",
    usage: "REQUEST",
    about: "take back a request of yours",
    more: "REQUEST is its id, or any unique first or last digits of it.",
    words: 1..=1,
    flags: &[],
    options: &[],
};

pub(super) async fn request(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Reply {
    let wish = match wish(visitor, arguments) {
        Ok(wish) => wish,
        Err(sentence) => return Reply::usage(&sentence),
    };
    let gate = &visitor.ssh.gate;
    let mut asked = gate.request(&visitor.identity.name, wish.clone()).await;
    if let Err(GrantError::FactorNeeded { entitlement, means: Means::Codes }) = &asked {
        if let Err(refusal) = prove(visitor, &format!("{entitlement}: ")).await {
            return Reply::refused(&refusal);
        }
        asked = gate.request(&visitor.identity.name, wish).await;
    }
    match asked {
        Ok(view) => asked_for(visitor, arguments, &view),
        Err(error) => not_done(&error, "requests"),
    }
}

/// The request's id, and who is asked.
pub(super) fn asked_for(visitor: &Visitor<'_>, arguments: &Arguments<'_>, view: &RequestView) -> Reply {
    if arguments.has("--json") {
        return Reply::json(view);
    }
    let err = asking::status(view, &visitor.policy).into_iter().map(|line| format!("{line}\n")).collect();
    Reply { out: format!("{}\n", view.wanted.id), err, ..Reply::default() }
}

/// What was typed, as what is asked for. An error is a sentence.
fn wish(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Result<Wish, String> {
    fn named<T: std::str::FromStr<Err: std::fmt::Display>>(text: Option<&str>) -> Result<Option<T>, String> {
        text.map(str::parse).transpose().map_err(|why: T::Err| why.to_string())
    }
    let whole = arguments.word(0).unwrap_or_default();
    let (target, entitlement) = whole.split_once('/').map_or((whole, None), |(target, name)| (target, Some(name)));
    let duration = arguments.value("--for").map(duration::parse).transpose();
    Ok(Wish {
        target: target.parse::<TargetName>().map_err(|why| why.to_string())?,
        entitlement: named(entitlement)?,
        login: named(arguments.value("--login"))?,
        database: named(arguments.value("--database"))?,
        roles: None,
        duration: duration.map_err(|why| format!("--for: {why}"))?,
        reason: arguments.value("--reason").map(str::to_owned),
        ticket: arguments.value("--ticket").map(str::to_owned),
        from: Some(visitor.source),
        extends: None,
        seen: None,
    })
}

/// A no of the policy is one of the ledger too; that there is no such request is not. `what` is a verb that lists what there is.
pub(super) fn not_done(error: &GrantError, what: &str) -> Reply {
    match error {
        GrantError::NotFound(sentence) => Reply::fault(1, &format!("{sentence}; `{what}` lists them")),
        other => Reply::refused(&Refusal::from(other)),
    }
}

pub(super) async fn requests(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Reply {
    let gate = &visitor.ssh.gate;
    let mut all = match gate.authority.requests(Some(&visitor.identity.name), gate.now()).await {
        Ok(all) => all,
        Err(error) => return Reply::refused(&Refusal::from(&error)),
    };
    if !arguments.has("--all") {
        all.retain(|view| view.state == RequestState::Open);
    }
    if arguments.has("--json") {
        return Reply::json(&all);
    }
    let row = |view: &RequestView| {
        let wanted = &view.wanted;
        let awaits = match &view.standing {
            Some(Standing::Waiting(awaited)) => asking::awaited(awaited),
            Some(Standing::Queued(queued)) => asking::queued_behind(queued),
            Some(Standing::Stuck(level)) => format!("level {level} cannot be met any more"),
            Some(Standing::Satisfied) | None => String::new(),
        };
        [
            wanted.id.short(),
            wanted.identity.to_string(),
            wanted.target.to_string(),
            wanted.entitlement.to_string(),
            duration::show(Duration::from_secs(wanted.seconds)),
            view.state.to_string(),
            awaits,
            wanted.ticket.clone().unwrap_or_default(),
            wanted.reason.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let heading = ["ID", "WHO", "TARGET", "ENTITLEMENT", "FOR", "STATE", "AWAITS", "TICKET", "REASON"];
    Reply::text(owed(visitor).await + &table(heading, &rows))
}

pub(super) async fn approve(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Reply {
    let (gate, by) = (&visitor.ssh.gate, &visitor.identity.name);
    let id = arguments.word(0).unwrap_or_default();
    let signature = match arguments.has("--signed") {
        false => None,
        true => match visitor.signature("approve REQUEST --signed").await {
            Ok(signature) => Some(signature),
            Err(wrong) => return wrong,
        },
    };
    let unsigned = signature.is_none();
    match gate.approve(by, id, signature).await {
        Ok(view) if arguments.has("--json") => Reply::json(&view),
        Ok(view) => {
            let said = view.approvals.iter().find(|yes| yes.by == *by);
            let how = said.map(|yes| format!("{}, on level {}", yes.proof, yes.level)).unwrap_or_default();
            let mut out = format!("approved ({how})\n");
            asking::status(&view, &visitor.policy).into_iter().for_each(|line| out.push_str(&format!("{line}\n")));
            Reply::text(out)
        }
        // Not yes yet, so that `&&` behind it does not go on.
        Err(GrantError::Refused(why)) if unsigned && is_unsigned(&why) => match line_to_sign(visitor, id).await {
            Ok(line) => Reply { out: format!("{line}\n"), err: how_to_sign(&why, id), exit: 1, refusal: None },
            Err(error) => not_done(&error, "requests"),
        },
        Err(error) => not_done(&error, "requests"),
    }
}

fn is_unsigned(why: &str) -> bool {
    (1..=16).any(|level| NoVoice::Unsigned(level).to_string() == why)
}

async fn line_to_sign(visitor: &Visitor<'_>, id: &str) -> Result<String, GrantError> {
    let gate = &visitor.ssh.gate;
    let view = gate.authority.request_named(Some(&visitor.identity.name), id, gate.now()).await?;
    Ok(view.line_to_sign())
}

fn how_to_sign(why: &str, id: &str) -> String {
    format!(
        "tidegate: not approved yet: {why}. Sign the line on stdout with a key of yours, and send what comes out:\n\
         ssh gate approve {id} | ssh-keygen -Y sign -n {NAMESPACE} -f KEY | ssh gate approve {id} --signed\n"
    )
}

pub(super) async fn deny(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Reply {
    let gate = &visitor.ssh.gate;
    let (id, reason) = (arguments.word(0).unwrap_or_default(), arguments.value("--reason").unwrap_or_default());
    match gate.authority.deny(&visitor.identity.name, id, reason.to_owned(), gate.now()).await {
        Ok(view) => Reply::text(format!("denied {}\n", view.wanted.id)),
        Err(error) => not_done(&error, "requests"),
    }
}

pub(super) async fn cancel(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Reply {
    let gate = &visitor.ssh.gate;
    let id = arguments.word(0).unwrap_or_default();
    match gate.authority.cancel(&visitor.identity.name, id, gate.now()).await {
        Ok(view) => Reply::text(format!("cancelled {}\n", view.wanted.id)),
        Err(error) => not_done(&error, "requests"),
    }
}
