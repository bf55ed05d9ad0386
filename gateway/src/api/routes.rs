//! What each address of the API does.

use super::{
    GrantMade, ImportBody, IssueBody, LARGEST_BODY, Listeners, ReasonBody, Status, TestBody, access, clock, events,
    factors, leases, live, lives, locks, notify, openapi,
    page::{Listed, Order, Part},
    peer::{Action, Caller},
    problem::Problem,
    recordings, refusals, requests, reviews, sessions, tokens, workloads,
};
use crate::{
    anchor::Standings,
    config::{self, Config},
    elsewhere::KeyRing,
    health,
    keeping::{Keeper, Room},
    live::Live,
    notify::Notifier,
    trust,
};
use axum::{
    Extension, Json, Router,
    extract::{self, DefaultBodyLimit, FromRequest as _, FromRequestParts, Request, State},
    http::{Method, StatusCode, request::Parts},
    middleware::{self, Next},
    response::Response,
};
use serde::de::DeserializeOwned;
use std::{fmt::Display, sync::Arc, time::Duration};
use tidegate_ca::Keys;
use tidegate_grants::{
    GrantView, IdentityName, LeaseState, Listing, Policy, Sight, TargetName,
    authority::{IssueRequest, UserEnded},
    pick,
};
use tidegate_proxy::{
    Gate,
    authenticate::Factors,
    protocol::{
        postgres::{self, issuer::PostgresIssuer},
        ssh::{self, SshIssuer},
    },
    reaper::Undertakers,
    sweep::Sweeper,
    trial::Report,
};
use tokio::sync::Semaphore;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

/// What the routes answer from.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) gate: Gate,
    pub(crate) listeners: Listeners,
    pub(crate) live: Arc<Live>,
    pub(crate) trials: Trials,
    /// Enrols people.
    pub(crate) factors: Factors,
    /// Tells people what happens.
    pub(crate) notifier: Arc<Notifier>,
    /// Who removes what on targets.
    pub(crate) undertakers: Undertakers,
    /// Who looks for accounts without a lease.
    pub(crate) sweeper: Sweeper,
    /// What went to places outside.
    pub(crate) anchored: Standings,
    pub(crate) peers: Standings,
    /// Deletes recordings whose time is over, and holds others.
    pub(crate) keeper: Arc<Keeper>,
    /// What they take.
    pub(crate) room: Room,
    /// Keys of those whom others vouch for.
    pub(crate) ring: KeyRing,
    /// How many may listen to events.
    pub(crate) listening: Arc<Semaphore>,
}

/// What `target test` needs beside the gate.
#[derive(Debug)]
pub(crate) struct Trials {
    pub(crate) ssh: Arc<SshIssuer>,
    pub(crate) postgres: Arc<PostgresIssuer>,
    pub(crate) keys: Arc<Keys>,
}

impl Api {
    fn policy(&self) -> Arc<Policy> {
        self.gate.authority.policy()
    }
}

/// The caller is put into each request by the socket; a route without it answers 500, never yes.
pub(super) type Answer<T> = Result<Json<T>, Problem>;
pub(super) type Shared = State<Arc<Api>>;
pub(super) type Who = Extension<Caller>;

/// A request's body must be here by then.
const BODY_DEADLINE: Duration = Duration::from_secs(5);

/// A JSON body, bounded, whose faults are problems too. A function and no extractor: extractors come before the
/// question whether the caller may do this, and nothing is read from who may not.
pub(super) async fn body<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    match tokio::time::timeout(BODY_DEADLINE, Json::from_request(request, &())).await {
        Ok(Ok(Json(body))) => Ok(body),
        Ok(Err(rejection)) => Err(Problem::new(rejection.status(), rejection.body_text())),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the request's body did not come in time")),
    }
}

/// The id in an address, whose faults are problems too.
pub(super) struct Id(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match extract::Path::from_request_parts(parts, state).await {
            Ok(extract::Path(id)) => Ok(Self(id)),
            Err(rejection) => Err(Problem::new(rejection.status(), rejection.body_text())),
        }
    }
}

/// What comes after the question mark, whose faults are problems too.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match extract::Query::from_request_parts(parts, state).await {
            Ok(extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(Problem::new(rejection.status(), rejection.body_text())),
        }
    }
}

/// What every list takes.
#[derive(Debug, Default, serde::Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// At most so many.
    #[serde(default)]
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Those behind the one with this id.
    #[serde(default)]
    after: Option<uuid::Uuid>,
}

impl ListQuery {
    pub(super) fn part(self) -> Part {
        Part { limit: self.limit, after: self.after }
    }
}

/// An account that maps to nobody gets the status, and may bring what somebody else vouches for; nothing else of its request is looked at.
async fn strangers_see_the_status(Extension(caller): Who, request: Request, next: Next) -> Result<Response, Problem> {
    if !asks_the_status(&request) && !workloads::is_exchange(request.method(), request.uri().path()) {
        caller.known()?;
    }
    Ok(next.run(request).await)
}

/// Who is locked gets no more, whatever they are else.
async fn the_locked_see_the_status(
    State(api): Shared,
    Extension(caller): Who,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let asked_by = if asks_the_status(&request) { Vec::new() } else { caller.people() };
    for identity in asked_by {
        if let Some(locked) = api.gate.authority.locked_out(identity, api.gate.now()).await? {
            return Err(Problem::new(StatusCode::FORBIDDEN, format!("{locked}; ask another admin")));
        }
    }
    Ok(next.run(request).await)
}

fn asks_the_status(request: &Request) -> bool {
    request.method() == Method::GET && request.uri().path() == "/v1/status"
}

/// What there is, each with its part of the OpenAPI document.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::default()
        .routes(routes!(status))
        .routes(routes!(list_grants, issue_grant))
        .routes(routes!(import_grant))
        .routes(routes!(show_grant))
        .routes(routes!(revoke_grant))
        .routes(routes!(lives::extend))
        .routes(routes!(lives::give_back))
        .routes(routes!(leases::list))
        .routes(routes!(leases::sweep))
        .routes(routes!(leases::adopt))
        .routes(routes!(leases::show))
        .routes(routes!(leases::retry))
        .routes(routes!(leases::accept))
        .routes(routes!(clock::accept))
        .routes(routes!(locks::list, locks::add))
        .routes(routes!(locks::remove))
        .routes(routes!(refusals::show))
        .routes(routes!(requests::list, requests::open))
        .routes(routes!(requests::show))
        .routes(routes!(requests::approve))
        .routes(routes!(requests::deny))
        .routes(routes!(requests::cancel))
        .routes(routes!(recordings::hold))
        .routes(routes!(recordings::opened))
        .routes(routes!(recordings::release))
        .routes(routes!(reviews::list))
        .routes(routes!(reviews::sign))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::show))
        .routes(routes!(sessions::kill))
        .routes(routes!(sessions::watch))
        .routes(routes!(tokens::list, tokens::issue))
        .routes(routes!(tokens::revoke))
        .routes(routes!(access::report))
        .routes(routes!(events::follow))
        .routes(routes!(workloads::exchange))
        .routes(routes!(workloads::register))
        .routes(routes!(test_target))
        .routes(routes!(end_user))
        .routes(routes!(factors::enroll))
        .routes(routes!(factors::remove))
        .routes(routes!(factors::list))
        .routes(routes!(notify::list))
        .routes(routes!(notify::retry))
        .merge(live::routes())
}

pub(crate) fn router(api: Arc<Api>) -> Router {
    openapi::documented(routes())
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is nothing at this address"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not take this method")
        })
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn_with_state(api.clone(), the_locked_see_the_status))
        .layer(middleware::from_fn(strangers_see_the_status))
        .with_state(api)
}

/// Whether it is up, and what it holds.
#[utoipa::path(get, path = "/v1/status", tag = "status",
    responses((status = 200, body = Status, description = "Done.")))]
async fn status(State(api): Shared, Extension(caller): Who) -> Answer<Status> {
    let _: Sight = caller.may(Action::Status)?;
    let policy = api.policy();
    let faults = health::faults(&api.gate).await;
    let sessions = api.gate.store.sessions_open().await?;
    let leases = api.gate.store.leases(false).await?;
    // Their names are people's.
    let orphans = if caller.may(Action::ReadLeases).is_ok() { api.sweeper.orphans() } else { Vec::new() };
    let (recordings_bytes, recordings_budget) = api.room.figures();
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        gateway: policy.gateway.clone(),
        node: policy.node.clone(),
        config: policy.config.clone(),
        ready: faults.is_empty(),
        faults,
        listeners: api.listeners.clone(),
        sessions,
        held_leases: leases.iter().filter(|lease| lease.state() == LeaseState::Held).count(),
        open_leases: leases.len(),
        recordings_bytes,
        recordings_budget,
        locks: api.gate.store.locks_held(api.gate.now()).await?,
        reviews: api.gate.store.reviews_owed().await?,
        orphans: orphans.iter().map(|(target, marked)| format!("{} on {target}", marked.name)).collect(),
        // What is wrong with one names hosts and programs.
        inventories: caller.known().map(|_| api.live.inventories()).unwrap_or_default(),
        last_anchor: api.anchored.last(),
        failing_anchors: caller.known().map(|_| api.anchored.failing()).unwrap_or_default(),
        failing_peers: caller.known().map(|_| api.peers.failing()).unwrap_or_default(),
        heads: api.gate.store.heads().await?,
    }))
}

/// Issues a grant, which counts as the approval of who asks. With `Idempotency-Key` (1 to 128 visible characters) the same request is answered with the same grant.
#[utoipa::path(post, path = "/v1/grants", tag = "grants",
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 128, description = "1 to 128 visible characters.")),
    request_body = IssueBody, responses((status = 200, body = GrantMade, description = "Done.")))]
async fn issue_grant(State(api): Shared, Extension(caller): Who, request: Request) -> Answer<GrantMade> {
    let _: Sight = caller.may(Action::MakeGrants)?;
    let once = idempotency_key(&request)?;
    let body: IssueBody = body(request).await?;
    if caller.may_be(&body.user) {
        return Err(Problem::refused("nobody issues a grant to themselves: ask another admin"));
    }
    let duration = config::duration(&body.duration)
        .map_err(|wrong| Problem::refused(format!("for: {wrong}; write it like 30m")))?;
    let request = IssueRequest {
        user: body.user,
        target: body.target,
        entitlement: body.entitlement,
        login: body.login,
        database: body.database,
        roles: body.roles,
        duration,
        reason: body.reason,
        ticket: body.ticket,
        single_use: body.single_use,
        own_voice: caller.own_voice().is_ok(),
    };
    let (by, now) = (caller.known()?, api.gate.now());
    let id = match once {
        Some(key) => api.gate.authority.issue_once(by, &key, request, now).await?,
        None => api.gate.authority.issue(by, request, now).await?,
    };
    Ok(Json(GrantMade { id }))
}

/// `Idempotency-Key`: the same request under the same key is the same request. Two keys are none.
fn idempotency_key(request: &Request) -> Result<Option<String>, Problem> {
    let mut sent = request.headers().get_all("idempotency-key").iter();
    let Some(first) = sent.next() else { return Ok(None) };
    let visible = |key: &&str| (1..=128).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    let key = first.to_str().ok().filter(visible).filter(|_| sent.next().is_none());
    let wrong = || Problem::new(StatusCode::BAD_REQUEST, "Idempotency-Key: write one, of 1 to 128 visible characters");
    key.map(|key| Some(key.to_owned())).ok_or_else(wrong)
}

/// Takes in a grant that an `[[issuer]]` signed. Taking it in again changes nothing.
#[utoipa::path(post, path = "/v1/grants/import", tag = "grants",
    request_body = ImportBody, responses((status = 200, body = GrantMade, description = "Done.")))]
async fn import_grant(State(api): Shared, Extension(caller): Who, request: Request) -> Answer<GrantMade> {
    let _: Sight = caller.may(Action::MakeGrants)?;
    let body: ImportBody = body(request).await?;
    let id = api.gate.authority.import(caller.known()?, body.token.trim(), api.gate.now()).await?;
    Ok(Json(GrantMade { id }))
}

/// Grants, newest first.
#[utoipa::path(get, path = "/v1/grants", tag = "grants",
    params(ListQuery),
    responses((status = 200, body = Vec<GrantView>, description = "Done.")))]
async fn list_grants(
    State(api): Shared,
    Extension(caller): Who,
    Query(query): Query<ListQuery>,
) -> Result<Listed<GrantView>, Problem> {
    let scope = caller.may(Action::ReadGrants)?;
    let part = query.part();
    let grants = api.gate.authority.grants(part.listing(scope, &caller)?, api.gate.now()).await?;
    part.of(grants, Order::NewestFirst, |grant| grant.id.to_string(), "/v1/grants", &caller)
}

/// One grant.
#[utoipa::path(get, path = "/v1/grants/{id}", tag = "grants",
    params(("id" = String, Path, description = "The grant: its id, or what that begins or ends with.")),
    responses((status = 200, body = GrantView, description = "Done.")))]
async fn show_grant(State(api): Shared, Extension(caller): Who, Id(id): Id) -> Answer<GrantView> {
    let sight = caller.may(Action::ReadGrants)?;
    if sight.is_all() {
        return Ok(Json(api.gate.authority.grant(&id, api.gate.now()).await?));
    }
    // Looked for among what they see, so that an id of somebody else's is no different from none.
    let grants = api.gate.authority.grants(Listing::within(sight), api.gate.now()).await?;
    one("grant", grants, &id, |grant| grant.id.to_string()).map(Json)
}

/// Revokes a grant, and ends its sessions: an admin any, others their own.
#[utoipa::path(post, path = "/v1/grants/{id}/revoke", tag = "grants",
    params(("id" = String, Path, description = "The grant: its id, or what that begins or ends with.")),
    request_body = ReasonBody, responses((status = 200, body = GrantMade, description = "Done.")))]
async fn revoke_grant(State(api): Shared, Extension(caller): Who, Id(id): Id, request: Request) -> Answer<GrantMade> {
    let all = caller.may(Action::RevokeGrants)?.is_all();
    let body: ReasonBody = body(request).await?;
    let (authority, by, now) = (&api.gate.authority, caller.known()?, api.gate.now());
    let id = match all {
        true => authority.revoke(by, &id, body.reason, now).await?,
        false => authority.revoke_own(by, &id, body.reason, now).await?,
    };
    Ok(Json(GrantMade { id }))
}

/// Ends all that an identity holds: sessions, grants, passwords, tokens.
#[utoipa::path(post, path = "/v1/users/{id}/end", tag = "users",
    params(("id" = String, Path, description = "The identity, by name.")),
    request_body = ReasonBody, responses((status = 200, body = UserEnded, description = "Done.")))]
async fn end_user(State(api): Shared, Extension(caller): Who, Id(name): Id, request: Request) -> Answer<UserEnded> {
    let _: Sight = caller.may(Action::EndUsers)?;
    let body: ReasonBody = body(request).await?;
    let user = name.parse::<IdentityName>().map_err(|why| Problem::refused(format!("{name}: {why}")))?;
    Ok(Json(api.gate.authority.end_user(caller.known()?, &user, body.reason, api.gate.now()).await?))
}

/// A test that takes longer goes on by itself, and nobody waits for it.
const TRIAL: Duration = Duration::from_secs(50);

/// A session that carries nothing, to see whether sessions would work.
#[utoipa::path(post, path = "/v1/targets/{id}/test", tag = "targets",
    params(("id" = String, Path, description = "The target, by name.")),
    request_body = TestBody, responses((status = 200, body = Report, description = "Done.")))]
async fn test_target(State(api): Shared, Extension(caller): Who, Id(name): Id, request: Request) -> Answer<Report> {
    let _: Sight = caller.may(Action::TestTargets)?;
    let body: TestBody = body(request).await?;
    let tested = tested(&api.live.config(), &api.trials.keys, &name, body)?;
    let (by, running) = (caller.known()?.clone(), api.clone());
    // On its own: whoever asked may hang up, and the teardown is done all the same.
    let trial = async move {
        match tested {
            Tested::Ssh(tested) => ssh::trial(&running.gate, &running.trials.ssh, &by, tested).await,
            Tested::Postgres(tested) => postgres::trial(&running.gate, &running.trials.postgres, &by, tested).await,
        }
    };
    let late = || Problem::new(StatusCode::GATEWAY_TIMEOUT, "the test has not ended yet: see `tidegate lease list`");
    match tokio::time::timeout(TRIAL, api.gate.tasks.spawn(trial)).await {
        Ok(Ok(report)) => Ok(Json(report?)),
        Ok(Err(fault)) => {
            tracing::error!(%fault, "the test of a target failed by a fault of ours");
            let sentence = "the test failed by a fault of the gateway's own: see its log, and `tidegate lease list`";
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, sentence))
        }
        Err(_) => Err(late()),
    }
}

/// What to test, by its protocol.
enum Tested {
    Ssh(ssh::Tested),
    Postgres(postgres::Tested),
}

/// What to test, from what was typed.
fn tested(config: &Config, keys: &Keys, name: &str, body: TestBody) -> Result<Tested, Problem> {
    let TestBody { login, database, entitlement } = body;
    let known = name.parse::<TargetName>().ok().filter(|name| config.policy.targets.contains_key(name));
    let Some(target) = known else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "there is no such target in the configuration"));
    };
    let parts = trust::parts(config, keys, &target).map_err(|e| Problem::refused(e.to_string()))?;
    if config.postgres_targets.contains_key(&target) {
        if login.is_some() {
            return Err(Problem::refused(format!("{target} is a PostgreSQL server: name a --database, not a --login")));
        }
        let reached = postgres::trust::databases(&config.postgres_targets, &config.policy).remove(&target);
        let all = reached.into_iter().flatten().collect();
        let database = the_one(database, all, &target, "database", "--database")?;
        let source_addresses = config.source_addresses.clone();
        return Ok(Tested::Postgres(postgres::Tested { target, database, entitlement, source_addresses, parts }));
    }
    if database.is_some() || entitlement.is_some() {
        return Err(Problem::refused(format!(
            "{target} is an SSH host: name a --login, not a --database or --entitlement"
        )));
    }
    let all = trust::logins(config, &target).into_keys().collect();
    let login = the_one(login, all, &target, "login", "--login")?;
    Ok(Tested::Ssh(ssh::Tested { target, login, parts }))
}

/// The one that was named, or the only one that there is.
fn the_one<T: Clone + Display>(
    named: Option<T>,
    all: Vec<T>,
    target: &TargetName,
    what: &str,
    option: &str,
) -> Result<T, Problem> {
    match (named, all.as_slice()) {
        (Some(named), _) => Ok(named),
        (None, [only]) => Ok(only.clone()),
        (None, []) => Err(Problem::refused(format!("no entitlement opens any {what} on {target}"))),
        (None, _) => {
            let names = all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            Err(Problem::refused(format!("{target} has several {what}s, name one with {option}: {names}")))
        }
    }
}

/// The one thing whose id is, begins or ends with this.
pub(super) fn one<T>(what: &str, all: Vec<T>, wanted: &str, id: impl Fn(&T) -> String) -> Result<T, Problem> {
    pick::one(all, wanted, id).map_err(|why| Problem::new(StatusCode::NOT_FOUND, why.sentence(what)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use axum::{
        body::Body,
        routing::{get, post},
    };
    use hyper::{
        body::{Bytes, Frame},
        service::Service as _,
    };
    use hyper_util::service::TowerToHyperService;
    use std::{
        convert::Infallible,
        pin::Pin,
        task::{Context, Poll},
    };

    /// A body that never comes.
    struct Dawdling;

    impl hyper::body::Body for Dawdling {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    /// What a router with the same extractors answers: status and content type.
    async fn answered(account: &str, method: Method, uri: &str, body: Body) -> (u16, String) {
        let caller = Caller::new(&super::super::peer::tests::policy(), 1000, Some(account.to_owned()));
        let router: Router = Router::new()
            .route("/v1/status", get(async || "up"))
            .route("/v1/leases", get(async |Query(query): Query<leases::LeaseQuery>| query.all.to_string()))
            .route("/v1/grants/{id}", get(async |Id(id): Id| id))
            .route(
                "/v1/grants",
                post(async |request: Request| super::body::<ReasonBody>(request).await.map(|_| "made")),
            )
            .layer(middleware::from_fn(strangers_see_the_status))
            .layer(Extension(caller));
        let request = Request::builder().method(method).uri(uri).header("content-type", "application/json");
        let answer = TowerToHyperService::new(router).call(request.body(body).unwrap());
        let response = tokio::time::timeout(BODY_DEADLINE * 2, answer).await.unwrap().unwrap();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        (response.status().as_u16(), kind)
    }

    #[tokio::test]
    async fn faults_of_an_address_are_problems() {
        let problem = |status: u16| (status, "application/problem+json".to_owned());
        let ask = |uri| answered("ada", Method::GET, uri, Body::empty());
        assert_eq!(ask("/v1/leases?all=true").await.0, 200);
        assert_eq!(ask("/v1/leases?foo=1").await, problem(400));
        assert_eq!(ask("/v1/grants/%ff").await, problem(400));
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for_and_a_strangers_is_not_read() {
        let problem = |status: u16| (status, "application/problem+json".to_owned());
        let before = tokio::time::Instant::now();
        assert_eq!(answered("mallory", Method::POST, "/v1/grants", Body::new(Dawdling)).await, problem(403));
        assert_eq!(answered("mallory", Method::GET, "/v1/status", Body::new(Dawdling)).await.0, 200);
        assert!(before.elapsed() < BODY_DEADLINE / 2);
        assert_eq!(answered("ada", Method::POST, "/v1/grants", Body::new(Dawdling)).await, problem(408));
    }
}
