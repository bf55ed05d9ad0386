//! `watch`: a live session of somebody else, in an auditor's terminal, as it is recorded.
//!
//! What always holds: it is what [`watching`] lets through and nothing else; nothing that is typed here reaches
//! the session.

use super::{
    Arguments, Reply, Verb, Visitor,
    play::{find, stopped, view},
};
use crate::watching;

pub(super) const WATCH: Verb = Verb {
    name: "watch",
    usage: "SESSION",
    about: "watch a live session (auditors)",
    more: "SESSION is its id, or any unique first or last digits of it. What is seen in it is seen here too; what is typed\n\
           is not, and nothing that you type reaches it: q or Ctrl-C ends the watching. It is in the ledger. A session of an\n\
           entitlement with watch = \"required\" stands still while nobody watches it.",
    words: 1..=1,
    flags: &[],
    options: &[],
};

pub(super) async fn watch(visitor: &Visitor<'_>, arguments: &Arguments<'_>) -> Reply {
    let session = match find(visitor, arguments.word(0).unwrap_or_default()).await {
        Ok(session) => session.row,
        Err(reply) => return reply,
    };
    let (gate, by) = (&visitor.ssh.gate, &visitor.identity.name);
    let mut watch = match watching::watch(gate, by, (None, Some(visitor.source)), session, view(visitor)).await {
        Ok(watch) => watch,
        Err(refusal) => return Reply::refused(&refusal),
    };
    loop {
        let shown = tokio::select! {
            biased;
            () = stopped(visitor) => return Reply { err: "\nstopped\n".to_owned(), ..Reply::default() },
            shown = watch.next() => shown,
        };
        let Some(shown) = shown else { return Reply::default() };
        tokio::select! {
            biased; // so that it ends for who has paused the terminal, too
            () = stopped(visitor) => return Reply::default(),
            written = visitor.line.out.data_bytes(shown) => if written.is_err() { return Reply::default() },
        }
    }
}
