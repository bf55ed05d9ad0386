//! Both directions between a client and its target, and the cancel requests that come for it by other connections.
//!
//! All of it is one task: a message passes from one socket to the other without changing threads.

use super::{
    PostgresTarget, answer,
    cancel::Cancellable,
    client::PgClient,
    frame::Sender,
    issuer::PostgresIssuer,
    pump::{Out, Pump, Stopped, Unsent},
    startup::CancelKey,
    target::{self, Link},
    watch::Talk,
};
use crate::{
    announce,
    issuer::TargetError,
    pause,
    refusal::Refusal,
    session::{Ending, Way, about},
};
use bytes::Bytes;
use futures::stream;
use std::{pin::pin, time::Duration};
use tidegate_grants::{Entitlement, Keeps, Terms};
use tidegate_recorder::{Event, Keep, RecordError, Stream};
use tokio::{
    io::{AsyncWriteExt as _, split},
    time::timeout,
};

/// After one side has hung up, how long the other may take to finish what it was sent.
const LINGER: Duration = Duration::from_secs(5);

/// Greets the client in the target's words, then carries until either side is done.
pub(super) async fn carry(client: &mut PgClient, link: Link, way: &Way<'_, PostgresIssuer>) -> Ending {
    let Some(cancellable) = client.door.cancels.register(client.version) else {
        return Ending::Failed(TargetError::Ours("the system gives no randomness".to_owned()));
    };
    let Link { stream: mut to_target, greeting } = link;
    let greeted = greet(client, &greeting.messages, &cancellable, way);
    if let Err(error) = greeted {
        return Ending::Cut(Refusal::from(&error));
    }
    if client.unsent.send(&mut client.stream).await.is_err() {
        return Ending::Closed;
    }
    let target = match client.target() {
        Ok(target) => target,
        Err(error) => return Ending::Failed(error),
    };
    let mut behind = Unsent::default();
    let stopped = {
        let (target_reads, target_writes) = split(&mut to_target);
        let (client_reads, client_writes) = split(&mut client.stream);
        let out = || Out { recording: way.recording, clock: way.gate.clock, eyes: way.eyes };
        let talk = Talk::new(keeps(way.permit.entitlement()));
        let up = Pump::new((Sender::Client, talk.clone()), client_reads, target_writes, &mut behind, out());
        let down = Pump::new((Sender::Target, talk), target_reads, client_writes, &mut client.unsent, out());
        let words = stream::select(stream::once(way.gate.drain.begun()), announce::ends(way.permit));
        let words = stream::select(words, way.eyes.words(true));
        let cancels = pass_on(cancellable, &target, greeting.key, way);
        both(up.run(), down.with(&greeting.rest).saying(words).run(), cancels).await
    };
    let _ = timeout(LINGER, to_target.shutdown()).await;
    ending(client, stopped)
}

/// What its recording has of results, and what never.
fn keeps(entitlement: &Entitlement) -> Keeps {
    match &entitlement.terms {
        Terms::Postgres { keeps, .. } => keeps.clone(),
        Terms::Ssh { .. } => Keeps::default(), // no such session comes here
    }
}

/// Which side stopped, and why.
enum Side {
    Client(Stopped),
    Target(Stopped),
}

/// Runs both directions until one stops, and lets the other finish where that makes sense.
async fn both(
    up: impl Future<Output = Stopped>,
    down: impl Future<Output = Stopped>,
    cancels: impl Future<Output = RecordError>,
) -> Side {
    let (mut up, mut down, mut cancels) = (pin!(up), pin!(down), pin!(cancels));
    let first = tokio::select! {
        stopped = &mut up => Side::Client(stopped),
        stopped = &mut down => Side::Target(stopped),
        error = &mut cancels => Side::Client(Stopped::Unrecorded(error)),
    };
    // The client has hung up, or the target takes nothing more: what the target still says belongs to the client.
    let Side::Client(Stopped::Done | Stopped::Vanished | Stopped::Lost) = first else { return first };
    match timeout(LINGER, &mut down).await {
        Ok(stopped) => Side::Target(stopped),
        Err(_) => first,
    }
}

/// How that ends the session. The client is told by [`part`](crate::session::Client::part).
fn ending(client: &mut PgClient, stopped: Side) -> Ending {
    let target = &client.ask.target;
    let refusal = match stopped {
        Side::Client(Stopped::Done | Stopped::Vanished | Stopped::Lost)
        | Side::Target(Stopped::Done | Stopped::Lost) => return Ending::Closed,
        Side::Target(Stopped::Vanished) => {
            client.code = Some(answer::UNREACHABLE);
            let refusal = Refusal::new(format!("{target} does not answer any more"));
            return Ending::Cut(refusal.next(
                "what you sent last may have been done or not: look, once it can be reached, before you send it again",
            ));
        }
        Side::Client(Stopped::Unrecorded(error)) | Side::Target(Stopped::Unrecorded(error)) => {
            return Ending::Cut(Refusal::from(&error));
        }
        Side::Client(Stopped::Violation(fault)) => Refusal::new(format!("your client broke the protocol: {fault}")),
        Side::Target(Stopped::Violation(fault)) => {
            Refusal::new(format!("{target} broke the protocol: {fault}")).next("tell your admin")
        }
    };
    client.code = Some(answer::VIOLATION);
    Ending::Cut(refusal)
}

/// AuthenticationOk, what the target said of itself, and our cancel key; all but the target's ReadyForQuery, which
/// comes with what it says next.
fn greet(
    client: &mut PgClient,
    said: &[u8],
    cancellable: &Cancellable,
    way: &Way<'_, PostgresIssuer>,
) -> Result<(), RecordError> {
    let welcome = if client.welcomed { Vec::new() } else { answer::authentication_ok() };
    let greeting = [&welcome, said, &answer::backend_key(&cancellable.key)].concat();
    let greeting = Bytes::from(greeting);
    let opened = Event::Opened {
        channel: 0,
        what: "sql".to_owned(),
        command: Some(client.database.to_string()),
        terminal: None,
        environment: client.settings.clone(),
        connection: None,
        reached: None,
    };
    let data = Event::Data { channel: 0, stream: Stream::FromTarget, keep: Keep::Count, data: greeting.clone() };
    let recorded = way.recording.record(vec![opened, data], greeting, way.gate.now())?;
    client.unsent.put(recorded, true);
    Ok(())
}

/// Passes cancel requests on, each recorded first. Returns only if that fails.
async fn pass_on(
    mut cancellable: Cancellable,
    target: &PostgresTarget,
    key: Option<CancelKey>,
    way: &Way<'_, PostgresIssuer>,
) -> RecordError {
    pause::at("during-relay").await;
    while let Some(wish) = cancellable.wishes.recv().await {
        if let Err(error) = way.recording.note(Event::Cancelled, way.gate.now()) {
            return error;
        }
        let told = match &key {
            Some(key) => target::cancel(target, key).await,
            None => Ok(()),
        };
        drop(wish);
        if let Err(error) = told {
            tracing::warn!(session = %way.permit.session(), %error, "the cancel request did not reach the target");
        }
        let event = about("statement.cancelled", way.permit);
        if let Err(error) = way.gate.store.append(event, way.gate.now()).await {
            tracing::error!(session = %way.permit.session(), %error, "the cancel request could not be written");
        }
    }
    std::future::pending().await
}
