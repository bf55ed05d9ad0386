//! Requests over the API: the twins of the control shell's `request`, `requests`, `approve`, `deny` and `cancel`.
//!
//! Who sees and says what is the authority's to judge, by the identity behind the caller. Only one thing is known here alone: who
//! else may have a token's secret. Whoever may be the one who asked says no yes to it.

use super::{
    ApproveBody, DenyBody, RequestBody,
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
use tidegate_grants::{RequestView, Sight, request::Wish};

/// Asks for a grant.
#[utoipa::path(post, path = "/v1/requests", tag = "requests",
    request_body = RequestBody, responses((status = 200, body = RequestView, description = "Done.")))]
pub(super) async fn open(State(api): Shared, Extension(caller): Who, request: Request) -> Answer<RequestView> {
    let _: Sight = caller.may(Action::AskRequests)?;
    let RequestBody { target, entitlement, duration, reason, ticket, login, database, roles } = body(request).await?;
    let wrong = |wrong| Problem::refused(format!("for: {wrong}; write it like 30m"));
    let duration = duration.as_deref().map(config::duration).transpose().map_err(wrong)?;
    let wish = Wish {
        target,
        entitlement,
        login,
        database,
        roles,
        duration,
        reason,
        ticket,
        from: None,
        extends: None,
        seen: None,
    };
    Ok(Json(api.gate.request(caller.known()?, wish).await?))
}

/// Requests, newest first.
#[utoipa::path(get, path = "/v1/requests", tag = "requests",
    params(ListQuery),
    responses((status = 200, body = Vec<RequestView>, description = "Done.")))]
pub(super) async fn list(
    State(api): Shared,
    Extension(caller): Who,
    Query(query): Query<ListQuery>,
) -> Result<Listed<RequestView>, Problem> {
    let _: Sight = caller.may(Action::ReadRequests)?; // beside it they see what they may approve
    let requests = api.gate.authority.requests(Some(caller.known()?), api.gate.now()).await?;
    query.part().of(requests, Order::NewestFirst, |view| view.wanted.id.to_string(), "/v1/requests", &caller)
}

/// One request.
#[utoipa::path(get, path = "/v1/requests/{id}", tag = "requests",
    params(("id" = String, Path, description = "The request: its id, or what that begins or ends with.")),
    responses((status = 200, body = RequestView, description = "Done.")))]
pub(super) async fn show(State(api): Shared, Extension(caller): Who, Id(id): Id) -> Answer<RequestView> {
    let _: Sight = caller.may(Action::ReadRequests)?;
    Ok(Json(api.gate.authority.request_named(Some(caller.known()?), &id, api.gate.now()).await?))
}

/// Says yes to exactly this request.
#[utoipa::path(post, path = "/v1/requests/{id}/approve", tag = "requests",
    params(("id" = String, Path, description = "The request: its id, or what that begins or ends with.")),
    request_body = ApproveBody, responses((status = 200, body = RequestView, description = "Done.")))]
pub(super) async fn approve(
    State(api): Shared,
    Extension(caller): Who,
    Id(id): Id,
    request: Request,
) -> Answer<RequestView> {
    let _: Sight = caller.may(Action::DecideRequests)?;
    let ApproveBody { signature } = body(request).await?;
    Ok(Json(api.gate.approve(caller.own_voice()?, &id, signature).await?))
}

/// Says no, and why.
#[utoipa::path(post, path = "/v1/requests/{id}/deny", tag = "requests",
    params(("id" = String, Path, description = "The request: its id, or what that begins or ends with.")),
    request_body = DenyBody, responses((status = 200, body = RequestView, description = "Done.")))]
pub(super) async fn deny(
    State(api): Shared,
    Extension(caller): Who,
    Id(id): Id,
    request: Request,
) -> Answer<RequestView> {
    let _: Sight = caller.may(Action::DecideRequests)?;
    let DenyBody { reason } = body(request).await?;
    Ok(Json(api.gate.authority.deny(caller.own_voice()?, &id, reason, api.gate.now()).await?))
}

/// Takes a request of one's own back.
#[utoipa::path(post, path = "/v1/requests/{id}/cancel", tag = "requests",
    params(("id" = String, Path, description = "The request: its id, or what that begins or ends with.")),
    responses((status = 200, body = RequestView, description = "Done.")))]
pub(super) async fn cancel(State(api): Shared, Extension(caller): Who, Id(id): Id) -> Answer<RequestView> {
    let _: Sight = caller.may(Action::AskRequests)?;
    Ok(Json(api.gate.authority.cancel(caller.known()?, &id, api.gate.now()).await?))
}
