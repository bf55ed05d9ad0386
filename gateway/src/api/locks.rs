//! Locks over the API. Setting one answers once the live sessions that it covers have their end.

use super::{
    LockBody, LockRemoved, ReasonBody,
    page::{Listed, Order},
    peer::Action,
    problem::Problem,
    routes::{Answer, Id, ListQuery, Query, Shared, Who, body},
};
use crate::config;
use axum::{
    Extension, Json,
    extract::{Request, State},
};
use jiff::Timestamp;
use tidegate_grants::{
    LockScope, LockView, Sight,
    lock::{LockMade, LockRequest},
};

/// Locks an identity, a target, or everything: ends the sessions that it covers, and keeps out until it is removed.
#[utoipa::path(post, path = "/v1/locks", tag = "locks",
    request_body = LockBody, responses((status = 200, body = LockMade, description = "Done.")))]
pub(super) async fn add(State(api): Shared, Extension(caller): Who, request: Request) -> Answer<LockMade> {
    let _: Sight = caller.may(Action::SetLocks)?;
    let body: LockBody = body(request).await?;
    let now = api.gate.now();
    let until = end(&body, now)?;
    let scope = match (body.user, body.target, body.all) {
        (Some(user), None, false) => LockScope::User(user),
        (None, Some(target), false) => LockScope::Target(target),
        (None, None, true) => LockScope::All,
        _ => return Err(Problem::refused("lock one of these: a user, a target, or all")),
    };
    let request = LockRequest { scope, reason: body.reason, until };
    Ok(Json(api.gate.authority.lock(caller.known()?, request, now).await?))
}

fn end(body: &LockBody, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
    let Some(length) = &body.duration else { return Ok(body.until) };
    if body.until.is_some() {
        return Err(Problem::refused("a lock has one end: give `until` or `for`, not both"));
    }
    let length =
        config::duration(length).map_err(|wrong| Problem::refused(format!("for: {wrong}; write it like 2h")))?;
    now.checked_add(length).map(Some).map_err(|_| Problem::refused("for: there is no such time"))
}

/// Locks, newest first.
#[utoipa::path(get, path = "/v1/locks", tag = "locks",
    params(ListQuery),
    responses((status = 200, body = Vec<LockView>, description = "Done.")))]
pub(super) async fn list(
    State(api): Shared,
    Extension(caller): Who,
    Query(query): Query<ListQuery>,
) -> Result<Listed<LockView>, Problem> {
    let _: Sight = caller.may(Action::ReadLocks)?;
    let locks = api.gate.authority.locks(api.gate.now()).await?;
    query.part().of(locks, Order::NewestFirst, |lock| lock.id.to_string(), "/v1/locks", &caller)
}

/// Removes a lock.
#[utoipa::path(post, path = "/v1/locks/{id}/remove", tag = "locks",
    params(("id" = String, Path, description = "The lock: its id, or what that begins or ends with.")),
    request_body = ReasonBody, responses((status = 200, body = LockRemoved, description = "Done.")))]
pub(super) async fn remove(
    State(api): Shared,
    Extension(caller): Who,
    Id(id): Id,
    request: Request,
) -> Answer<LockRemoved> {
    let _: Sight = caller.may(Action::SetLocks)?;
    let ReasonBody { reason } = body(request).await?;
    let id = api.gate.authority.unlock(caller.known()?, &id, reason, api.gate.now()).await?;
    Ok(Json(LockRemoved { id }))
}
