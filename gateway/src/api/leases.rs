//! Leases over the API: what is on targets, why it is still there, and what a human can do about it.

use super::{
    AcceptBody, AdoptBody, LeaseDetail, LeaseView, LeaseWoken, SweepBody,
    page::{Listed, Order, Part},
    peer::Action,
    problem::Problem,
    routes::{Answer, Api, Id, Query, Shared, Who, body, one},
};
use axum::{
    Extension, Json,
    extract::{Request, State},
    http::StatusCode,
};
use std::sync::Arc;
use tidegate_grants::{Lease, LeaseState, Receipt, Sight};
use tidegate_proxy::{
    issuer::Teardown,
    sweep::{self, NotAdopted, Swept},
};

/// `?all=true`: closed ones too, with their receipts.
#[derive(serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LeaseQuery {
    /// Closed ones too.
    #[serde(default)]
    pub(super) all: bool,
    /// At most so many.
    #[serde(default)]
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Those behind the one with this id.
    #[serde(default)]
    after: Option<uuid::Uuid>,
}

/// Leases that are not closed, oldest first; with `all`, closed ones and their receipts too.
#[utoipa::path(get, path = "/v1/leases", tag = "leases",
    params(LeaseQuery),
    responses((status = 200, body = Vec<LeaseView>, description = "Done.")))]
pub(super) async fn list(
    State(api): Shared,
    Extension(caller): Who,
    Query(LeaseQuery { all, limit, after }): Query<LeaseQuery>,
) -> Result<Listed<LeaseView>, Problem> {
    let _: Sight = caller.may(Action::ReadLeases)?;
    let leases = api.gate.store.leases(all).await?;
    let leases: Vec<LeaseView> = leases.iter().map(|lease| view(lease, all)).collect();
    let address = if all { "/v1/leases?all=true" } else { "/v1/leases" };
    Part { limit, after }.of(leases, Order::OldestFirst, |lease| lease.id.to_string(), address, &caller)
}

pub(super) fn view(lease: &Lease, receipt: bool) -> LeaseView {
    LeaseView {
        id: lease.id(),
        session: lease.session(),
        target: lease.target().clone(),
        kind: lease.kind(),
        name: lease.name().to_owned(),
        state: lease.state(),
        deadline: lease.deadline(),
        attempts: lease.attempts(),
        last_error: lease.last_error().map(str::to_owned),
        receipt: lease.receipt().filter(|_| receipt).cloned(),
    }
}

/// Tries the teardown of all open leases again, now.
#[utoipa::path(post, path = "/v1/leases/{id}/retry", tag = "leases",
    params(("id" = String, Path, description = "The open lease: its id, or what that begins or ends with.")),
    responses((status = 200, body = LeaseWoken, description = "Done.")))]
pub(super) async fn retry(State(api): Shared, Extension(caller): Who, Id(id): Id) -> Answer<LeaseWoken> {
    let _: Sight = caller.may(Action::RetryLeases)?;
    let leases = api.gate.store.leases(false).await?;
    let lease = one("open lease", leases, &id, |lease| lease.id().to_string())?;
    api.gate.custody.retry();
    Ok(Json(LeaseWoken { id: lease.id() }))
}

/// One lease, what its target answers now, and what a human can do.
#[utoipa::path(get, path = "/v1/leases/{id}", tag = "leases",
    params(("id" = String, Path, description = "The lease: its id, or what that begins or ends with.")),
    responses((status = 200, body = LeaseDetail, description = "Done.")))]
pub(super) async fn show(State(api): Shared, Extension(caller): Who, Id(id): Id) -> Answer<LeaseDetail> {
    let _: Sight = caller.may(Action::ReadLeases)?;
    let known = one("lease", api.gate.store.lease_ids().await?, &id, ToString::to_string)?;
    let found = api.gate.store.lease_by_id(known).await?;
    let lease = found.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "the lease cannot be read"))?;
    let undertaker = undertaker(&api, &lease)?;
    let (mut now, mut silent, mut advice) = (None, None, Vec::new());
    if lease.state() != LeaseState::Closed {
        match undertaker.inspect(&lease).await {
            Ok(receipt) => now = Some(receipt),
            Err(error) => silent = Some(error.to_string()),
        }
        advice = undertaker.advice(&lease, now.as_ref());
    }
    let acceptable = (lease.state() == LeaseState::Held || lease.receipt().is_some())
        && now.as_ref().is_some_and(|receipt| !receipt.clean && undertaker.acceptable(&lease, receipt).is_ok());
    Ok(Json(LeaseDetail { lease: view(&lease, true), now, silent, advice, acceptable }))
}

/// Closes a held lease on an admin's word, by what the target answers at this moment.
#[utoipa::path(post, path = "/v1/leases/{id}/accept", tag = "leases",
    params(("id" = String, Path, description = "The held lease: its id, or what that begins or ends with.")),
    request_body = AcceptBody, responses((status = 200, body = LeaseView, description = "Done.")))]
pub(super) async fn accept(
    State(api): Shared,
    Extension(caller): Who,
    Id(id): Id,
    request: Request,
) -> Answer<LeaseView> {
    let _: Sight = caller.may(Action::AcceptLeases)?;
    let AcceptBody { reason } = body(request).await?;
    let word = sweep::word(caller.known()?, &reason).map_err(Problem::refused)?;
    let leases = api.gate.store.leases(false).await?;
    let mut lease = one("open lease", leases, &id, |lease| lease.id().to_string())?;
    // One whose account could not even be disabled stays open; its receipt says what a human must look at.
    if lease.state() != LeaseState::Held && lease.receipt().is_none() {
        return Err(Problem::refused(format!(
            "the lease {} is not held: it is still being worked on, and closes by itself",
            lease.id()
        )));
    }
    let undertaker = undertaker(&api, &lease)?;
    let receipt = undertaker.inspect(&lease).await.map_err(|error| Problem::refused(error.to_string()))?;
    undertaker.acceptable(&lease, &receipt).map_err(Problem::refused)?;
    if receipt.clean {
        api.gate.store.closed(&mut lease, receipt, api.gate.now()).await?;
    } else {
        let receipt = Receipt { accepted: Some(word), ..receipt };
        api.gate.store.accepted(&mut lease, receipt, api.gate.now()).await?;
    }
    Ok(Json(view(&lease, true)))
}

/// Asks targets for accounts with our mark.
#[utoipa::path(post, path = "/v1/leases/sweep", tag = "leases",
    request_body = SweepBody, responses((status = 200, body = Vec<Swept>, description = "Done.")))]
pub(super) async fn sweep(State(api): Shared, Extension(caller): Who, request: Request) -> Answer<Vec<Swept>> {
    let _: Sight = caller.may(Action::SweepTargets)?;
    let SweepBody { target } = body(request).await?;
    let swept = api.sweeper.sweep(target.as_ref()).await;
    match target {
        Some(target) if swept.is_empty() => Err(Problem::refused(format!("{target} is no target that can be swept"))),
        _ => Ok(Json(swept)),
    }
}

/// Makes a lease for an account with our mark that has none, so that it is removed.
#[utoipa::path(post, path = "/v1/leases/adopt", tag = "leases",
    request_body = AdoptBody, responses((status = 200, body = LeaseWoken, description = "Done.")))]
pub(super) async fn adopt(State(api): Shared, Extension(caller): Who, request: Request) -> Answer<LeaseWoken> {
    let _: Sight = caller.may(Action::AdoptAccounts)?;
    let AdoptBody { target, name, reason } = body(request).await?;
    let word = sweep::word(caller.known()?, &reason).map_err(Problem::refused)?;
    match api.sweeper.adopt(&target, &name, word).await {
        Ok(lease) => Ok(Json(LeaseWoken { id: lease.id() })),
        Err(NotAdopted::Store(error)) => Err(error.into()),
        Err(error) => Err(Problem::refused(error.to_string())),
    }
}

fn undertaker(api: &Api, lease: &Lease) -> Result<Arc<dyn Teardown>, Problem> {
    let found = api.undertakers.get(&lease.kind()).cloned();
    found.ok_or_else(|| Problem::refused("nothing here tears down this kind of lease"))
}
