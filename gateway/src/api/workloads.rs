//! Workloads over the API: a token of their issuer becomes a short one of ours, with which they ask for their grant and register the
//! key that they come with.
//!
//! What always holds: this is the one thing that somebody without a token may ask beside whether the gateway is ready; what they
//! get is a token of scope `grants` of an identity that is no admin, no auditor and no approver; a key lasts no longer than the
//! entry says.

use super::{
    KeyBody, KeyGiven, TokenGiven, WorkloadBody,
    https::Source,
    peer::Action,
    problem::Problem,
    routes::{Answer, Shared, Who, body},
};
use crate::{
    config,
    elsewhere::{Unproven, workload::identify},
};
use axum::{
    Extension, Json,
    extract::{Request, State},
    http::{Method, StatusCode},
};
use secrecy::ExposeSecret as _;
use std::net::{IpAddr, Ipv4Addr};
use tidegate_grants::{Sight, guest::LentKey};
use tidegate_proxy::door::TurnedAway;

const EXCHANGE: &str = "/v1/workload/token";

/// Whether this is what somebody without a token may ask.
pub(super) fn is_exchange(method: &Method, path: &str) -> bool {
    method == Method::POST && path == EXCHANGE
}

/// Gives a workload a token for a JWT of its issuer, which is good for one exchange. Needs no other token.
#[utoipa::path(post, path = "/v1/workload/token", tag = "workloads",
    request_body = WorkloadBody, responses((status = 200, body = TokenGiven, description = "Done.")))]
pub(super) async fn exchange(State(api): Shared, request: Request) -> Answer<TokenGiven> {
    let source = request.extensions().get::<Source>().map_or(IpAddr::from(Ipv4Addr::LOCALHOST), |source| source.0);
    let WorkloadBody { token, workload } = body(request).await?;
    let (config, now) = (api.live.config(), api.gate.now());
    let outside = match identify(&config.workloads, &api.ring, token.trim(), workload.as_ref(), now).await {
        Ok(outside) => outside,
        Err(unproven) => {
            let (name, why) = (workload.as_ref().map(|name| name.as_str()), unproven.to_string());
            let refused =
                TurnedAway { protocol: "api", source, name, asked: Some(EXCHANGE), why: &why, check: "workload" };
            api.gate.turned_away(refused).await;
            return Err(refusal(&unproven));
        }
    };
    if let Some(locked) = api.gate.authority.locked_out(&outside.workload, now).await? {
        return Err(Problem::new(StatusCode::FORBIDDEN, locked.to_string()));
    }
    let made = api.gate.authority.exchange(outside, now).await?;
    // The one place where it leaves the gateway.
    Ok(Json(TokenGiven { id: made.id, secret: made.secret.expose_secret().to_owned(), expires: made.expires }))
}

fn refusal(unproven: &Unproven) -> Problem {
    let status = match unproven {
        Unproven::Wrong(_) => StatusCode::FORBIDDEN,
        Unproven::Unknown(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, format!("this token opens nothing here: {unproven}"))
}

/// Registers an SSH key of the workload that asks, for as long as its entry says.
#[utoipa::path(post, path = "/v1/workload/keys", tag = "workloads",
    request_body = KeyBody, responses((status = 200, body = KeyGiven, description = "Done.")))]
pub(super) async fn register(State(api): Shared, Extension(caller): Who, request: Request) -> Answer<KeyGiven> {
    let _: Sight = caller.may(Action::RegisterKeys)?;
    let (identity, config) = (caller.known()?, api.live.config());
    // A token of a person's is for the API, and would open sessions by a key.
    let Some(workload) = config.workloads.iter().find(|workload| workload.name == *identity) else {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!("{identity} is no workload: people's keys are in the configuration"),
        ));
    };
    let KeyBody { ssh_key } = body(request).await?;
    let wrong = |wrong| Problem::refused(format!("ssh_key {wrong}: send the one line of the .pub file"));
    let key = config::ssh_key(&ssh_key).map_err(wrong)?;
    let line = key.to_openssh().map_err(|_| wrong("cannot be written".to_owned()))?;
    let now = api.gate.now();
    let ends = now.checked_add(workload.life).map_err(|_| Problem::refused("no such time"))?;
    let key = line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let lent = LentKey { key, identity: identity.clone(), how: "workload".to_owned(), since: now, ends };
    api.gate.authority.lend_key(lent, now).await?;
    Ok(Json(KeyGiven { identity: identity.clone(), expires: ends }))
}
