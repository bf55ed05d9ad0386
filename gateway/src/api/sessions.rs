//! Sessions over the API: the twins of the control shell's `sessions`, `kill` and `watch`.
//!
//! Admins see and end all, auditors see and watch what they audit, anybody else sees and ends their own: an id that they do not see is
//! no different from none. What was done in one is for its own person and for its auditors.

use super::{
    ReasonBody, SessionDetail, SessionKilled,
    https::Source,
    leases::view,
    page::{Listed, Order},
    peer::{Action, Caller},
    problem::Problem,
    routes::{Answer, Api, Id, ListQuery, Query, Shared, Who, body, one},
    stay::Stay,
};
use axum::{
    Extension, Json,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures::stream;
use std::convert::Infallible;
use tidegate_grants::{Listing, Sight, authority::SessionView};
use tidegate_proxy::{
    Refusal,
    watching::{self, SessionNow},
};
use utoipa::IntoParams;

async fn find(api: &Api, of: Sight, id: &str) -> Result<SessionView, Problem> {
    one("session", api.gate.authority.sessions(Listing::within(of)).await?, id, |session| session.row.id.to_string())
}

fn now(api: &Api, caller: &Caller, session: SessionView) -> SessionNow {
    let content = caller.sees_content(&session.row.identity, &session.row.target);
    SessionNow::of(&api.gate, session, content)
}

/// Sessions, newest first. Of live ones, how long nothing has moved in them, what was done last, and who watch.
#[utoipa::path(get, path = "/v1/sessions", tag = "sessions",
    params(ListQuery),
    responses((status = 200, body = Vec<SessionNow>, description = "Done.")))]
pub(super) async fn list(
    State(api): Shared,
    Extension(caller): Who,
    Query(query): Query<ListQuery>,
) -> Result<Listed<SessionNow>, Problem> {
    let scope = caller.may(Action::ReadSessions)?;
    let part = query.part();
    let sessions = api.gate.authority.sessions(part.listing(scope, &caller)?).await?;
    let sessions = sessions.into_iter().map(|session| now(&api, &caller, session)).collect();
    let id = |now: &SessionNow| now.session.row.id.to_string();
    part.of(sessions, Order::NewestFirst, id, "/v1/sessions", &caller)
}

/// One session, with its leases and their receipts.
#[utoipa::path(get, path = "/v1/sessions/{id}", tag = "sessions",
    params(("id" = String, Path, description = "The session: its id, or what that begins or ends with.")),
    responses((status = 200, body = SessionDetail, description = "Done.")))]
pub(super) async fn show(State(api): Shared, Extension(caller): Who, Id(id): Id) -> Answer<SessionDetail> {
    let scope = caller.may(Action::ReadSessions)?;
    let session = find(&api, scope, &id).await?;
    let leases = api.gate.store.leases_of(session.row.id).await?;
    let session = now(&api, &caller, session);
    Ok(Json(SessionDetail { session, leases: leases.iter().map(|lease| view(lease, true)).collect() }))
}

/// Ends a live session.
#[utoipa::path(post, path = "/v1/sessions/{id}/kill", tag = "sessions",
    params(("id" = String, Path, description = "The session: its id, or what that begins or ends with.")),
    request_body = ReasonBody, responses((status = 200, body = SessionKilled, description = "Done.")))]
pub(super) async fn kill(
    State(api): Shared,
    Extension(caller): Who,
    Id(id): Id,
    request: Request,
) -> Answer<SessionKilled> {
    let scope = caller.may(Action::KillSessions)?;
    let by = caller.known()?;
    let ReasonBody { reason } = body(request).await?;
    let session = find(&api, scope, &id).await?.row;
    match api.gate.authority.kill(by, &session, reason, api.gate.now()).await? {
        true => Ok(Json(SessionKilled { id: session.id })),
        false => Err(Problem::refused(format!("the session {} is over already", session.id))),
    }
}

/// What the watcher's terminal is like.
#[derive(Debug, Default, serde::Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WatchQuery {
    /// How wide; what does not fit is clipped.
    #[serde(default)]
    #[param(minimum = 1)]
    columns: Option<u16>,
    /// How high.
    #[serde(default)]
    #[param(minimum = 1)]
    rows: Option<u16>,
}

/// Shows a live session, for as long as it is live and the answer is read: what a terminal is to write, which is inert. Auditors only,
/// and nobody their own. Who reads too slowly misses what came meanwhile.
#[utoipa::path(get, path = "/v1/sessions/{id}/watch", tag = "sessions",
    params(("id" = String, Path, description = "The session: its id, or what that begins or ends with."), WatchQuery),
    responses((status = 200, body = String, content_type = "application/octet-stream", description = "It goes on until the session ends.")))]
pub(super) async fn watch(
    State(api): Shared,
    Extension(caller): Who,
    Extension(stay): Extension<Stay>,
    source: Option<Extension<Source>>,
    Id(id): Id,
    Query(query): Query<WatchQuery>,
) -> Result<Response, Problem> {
    let scope = caller.may(Action::WatchSessions)?;
    let session = find(&api, scope, &id).await?.row;
    if caller.may_be(&session.identity) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "nobody watches their own session: ask another auditor"));
    }
    let view = query.columns.zip(query.rows).filter(|(columns, rows)| *columns > 0 && *rows > 0);
    let source = source.map(|Extension(Source(address))| address);
    let watch =
        watching::watch(&api.gate, caller.known()?, (caller.token(), source), session, view).await.map_err(refused)?;
    stay.on();
    let shown = stream::unfold(watch, |mut watch| async move {
        let shown = watch.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(shown)), watch))
    });
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(shown)).into_response())
}

fn refused(refusal: Refusal) -> Problem {
    let next = refusal.next.map(|next| format!(": {next}")).unwrap_or_default();
    Problem::new(StatusCode::FORBIDDEN, format!("{}{next}", refusal.sentence))
}
