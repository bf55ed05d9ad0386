//! Sessions over the API: the twins of the control shell's `sessions` and `kill`.
//!
//! Admins see and end all, auditors see all, anybody else sees and ends their own: an id of somebody else's is no
//! different from none.

use super::{
    ReasonBody, SessionDetail, SessionKilled,
    leases::view,
    page::{Listed, Order},
    peer::{Action, Scope},
    problem::Problem,
    routes::{Answer, Api, Id, ListQuery, Query, Shared, Who, body, one},
};
use axum::{
    Extension, Json,
    extract::{Request, State},
};
use tidegate_grants::{Listing, authority::SessionView};

async fn find(api: &Api, scope: Scope, id: &str) -> Result<SessionView, Problem> {
    one(
        "session",
        api.gate.authority.sessions(Listing { of: scope.only(), ..Listing::default() }).await?,
        id,
        |session| session.row.id.to_string(),
    )
}

/// Sessions, newest first.
#[utoipa::path(get, path = "/v1/sessions", tag = "sessions",
    params(ListQuery),
    responses((status = 200, body = Vec<SessionView>, description = "Done.")))]
pub(super) async fn list(
    State(api): Shared,
    Extension(caller): Who,
    Query(query): Query<ListQuery>,
) -> Result<Listed<SessionView>, Problem> {
    let scope = caller.may(Action::ReadSessions)?;
    let part = query.part();
    let sessions = api.gate.authority.sessions(part.listing(scope, &caller)?).await?;
    part.of(sessions, Order::NewestFirst, |session| session.row.id.to_string(), "/v1/sessions", &caller)
}

/// One session, with its leases and their receipts.
#[utoipa::path(get, path = "/v1/sessions/{id}", tag = "sessions",
    params(("id" = String, Path, description = "The session: its id, or what that begins or ends with.")),
    responses((status = 200, body = SessionDetail, description = "Done.")))]
pub(super) async fn show(State(api): Shared, Extension(caller): Who, Id(id): Id) -> Answer<SessionDetail> {
    let scope = caller.may(Action::ReadSessions)?;
    let session = find(&api, scope, &id).await?;
    let leases = api.gate.store.leases_of(session.row.id).await?;
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
