//! The report that people review access by.

use super::{
    peer::Action,
    problem::Problem,
    routes::{Answer, Query, Shared, Who},
};
use crate::access::{Report, gather};
use axum::{Extension, Json, extract::State};
use serde::Deserialize;
use tidegate_grants::Sight;
use utoipa::IntoParams;

/// Of which days, where nobody says.
const DAYS: u16 = 90;
const MOST_DAYS: u16 = 3660;

/// Of which days.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Days {
    /// The last so many; left out: 90.
    #[serde(default)]
    #[param(minimum = 1, maximum = 3660)]
    days: Option<u16>,
}

/// What nobody uses, who holds what, what was refused and forced week by week, and approvals that took seconds.
#[utoipa::path(get, path = "/v1/access/report", tag = "access",
    params(Days), responses((status = 200, body = Report, description = "Done.")))]
pub(super) async fn report(
    State(api): Shared,
    Extension(caller): Who,
    Query(Days { days }): Query<Days>,
) -> Answer<Report> {
    let _: Sight = caller.may(Action::ReadAccess)?;
    match days.unwrap_or(DAYS) {
        days @ 1..=MOST_DAYS => Ok(Json(gather(&api, days).await?)),
        _ => Err(Problem::refused(format!("days: write a number from 1 to {MOST_DAYS}"))),
    }
}
