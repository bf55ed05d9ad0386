//! Second factors over the API: enrolled on the gateway's own host only, since what is answered is a secret of somebody else's.

use super::{
    FactorBody, FactorGiven, FactorRemoved,
    peer::Action,
    problem::Problem,
    routes::{Answer, Id, Shared, Who, body},
};
use axum::{
    Extension, Json,
    extract::{Request, State},
    http::StatusCode,
};
use secrecy::ExposeSecret as _;
use tidegate_grants::{FactorView, IdentityName, Sight};

/// Enrols somebody's second factor, on the gateway's own host only: the answer is their secret.
#[utoipa::path(post, path = "/v1/users/{id}/mfa", tag = "users",
    params(("id" = String, Path, description = "The identity, by name.")),
    request_body = FactorBody, responses((status = 200, body = FactorGiven, description = "Done.")))]
pub(super) async fn enroll(
    State(api): Shared,
    Extension(caller): Who,
    Id(name): Id,
    request: Request,
) -> Answer<FactorGiven> {
    let _: Sight = caller.may(Action::EnrollFactors)?;
    let FactorBody { replace } = body(request).await?;
    let identity = named(&name)?;
    if !api.gate.authority.policy().identities.contains_key(&identity) {
        return Err(Problem::refused(format!("the configuration names no user {identity}")));
    }
    let enrolled = api.factors.enroll(&identity, caller.known()?, replace, api.gate.now()).await;
    let enrolled = enrolled.map_err(|error| {
        tracing::error!(%error, ?error, "a second factor could not be made");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    })?;
    let taken = || Problem::refused(format!("{identity} has a second factor: --replace makes the old one void"));
    let enrolled = enrolled.ok_or_else(taken)?;
    // The one place where they leave the gateway.
    let recovery = enrolled.recovery.iter().map(|code| code.expose_secret().to_owned()).collect();
    Ok(Json(FactorGiven { uri: enrolled.uri.expose_secret().to_owned(), recovery }))
}

/// Who has a second factor.
#[utoipa::path(get, path = "/v1/mfa", tag = "mfa",
    responses((status = 200, body = Vec<FactorView>, description = "Done.")))]
pub(super) async fn list(State(api): Shared, Extension(caller): Who) -> Answer<Vec<FactorView>> {
    let _: Sight = caller.may(Action::ReadFactors)?;
    Ok(Json(api.gate.store.factors().await?.into_iter().map(FactorView::from).collect()))
}

/// Removes somebody's second factor.
#[utoipa::path(post, path = "/v1/users/{id}/mfa/remove", tag = "users",
    params(("id" = String, Path, description = "The identity, by name.")),
    responses((status = 200, body = FactorRemoved, description = "Done.")))]
pub(super) async fn remove(State(api): Shared, Extension(caller): Who, Id(name): Id) -> Answer<FactorRemoved> {
    let _: Sight = caller.may(Action::EnrollFactors)?;
    let identity = named(&name)?;
    if !api.gate.store.remove_factor(&identity, caller.known()?, api.gate.now()).await? {
        return Err(Problem::new(StatusCode::NOT_FOUND, format!("{identity} has no second factor")));
    }
    Ok(Json(FactorRemoved { identity }))
}

fn named(name: &str) -> Result<IdentityName, Problem> {
    name.parse().map_err(|why| Problem::refused(format!("{name}: {why}")))
}
