//! Who is behind a request over HTTPS: `Authorization: Bearer` says it (RFC 6750), and nothing else.
//!
//! What always holds: a request that two programs could read differently is read by neither; one that a browser sends for a
//! page (`Origin`) is refused, and there are no cookies, so no page can make a browser do anything here; without a token there
//! is only whether the gateway is ready, and the exchange of a token that somebody else vouches for; wrong tokens make only
//! themselves wait.

use super::{
    https::Source,
    peer::Caller,
    problem::Problem,
    rate::{NowAndThen, Rates},
    routes::Api,
    workloads,
};
use crate::health;
use axum::{
    Extension, Json, Router,
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, Version, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tidegate_grants::{Bearer, Event, StoreError, token::TokenRefused};
use tidegate_proxy::{authenticate::Sources, listener::Visitor};

/// The answer to who is not let in. (Boxed: it is large, and rare.)
type Refused = Box<Response>;

/// What the requests over HTTPS share.
#[derive(Debug)]
struct Guard {
    api: Arc<Api>,
    /// Who came with a wrong token.
    wrong: Sources,
    rates: Mutex<Rates>,
    /// Refusals of tokens that there are, and of those that there are not: a flood of these must not hide one of those.
    noted: Mutex<[NowAndThen; 2]>,
}

/// The same routes, for whoever has a token.
pub(super) fn guarded(router: Router, api: Arc<Api>) -> Router {
    let guard = Guard { api, wrong: Sources::default(), rates: Mutex::default(), noted: Mutex::default() };
    router.layer(middleware::from_fn_with_state(Arc::new(guard), admit))
}

async fn admit(
    State(guard): State<Arc<Guard>>,
    Extension(Source(source)): Extension<Source>,
    Extension(visitor): Extension<Arc<Visitor>>,
    request: Request,
    next: Next,
) -> Response {
    let (mut head, body) = request.into_parts();
    let mut response = match guard.caller(&head, source).await {
        Ok(Some(_)) if !visitor.known() => {
            let sentence = "too late: this connection's place was given to somebody else; come again";
            last(Problem::new(StatusCode::SERVICE_UNAVAILABLE, sentence).into_response())
        }
        Ok(Some(caller)) => {
            head.extensions.insert(caller);
            next.run(Request::from_parts(head, body)).await
        }
        Ok(None) if workloads::is_exchange(&head.method, head.uri.path()) => {
            head.extensions.insert(Caller::stranger());
            last(guard.throttled(source, next.run(Request::from_parts(head, body))).await)
        }
        Ok(None) => last(guard.readiness().await),
        Err(refused) => *refused,
    };
    // What is for the holder of a token is for no cache.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

impl Guard {
    /// `None`: nobody, who asks whether the gateway is ready, or brings a token of somebody else's.
    async fn caller(&self, request: &Parts, source: IpAddr) -> Result<Option<Caller>, Refused> {
        unambiguous(request).map_err(|problem| Box::new(last(problem.into_response())))?;
        let Some(secret) = secret(request)? else {
            let path = request.uri.path();
            let asks_readiness = request.method == Method::GET && path == "/v1/status";
            return if asks_readiness || workloads::is_exchange(&request.method, path) {
                Ok(None)
            } else {
                Err(unauthorized("this needs a token: Authorization: Bearer …"))
            };
        };
        let now = self.api.gate.now();
        let bearer = match self.api.gate.authority.bearer(secret, now).await {
            Ok(bearer) => bearer,
            Err(TokenRefused::Store(error)) => return Err(unsound(&error)),
            Err(refused) => return Err(self.refused(&refused, source).await),
        };
        self.within_rate(&bearer)?;
        if !request.method.is_safe() {
            self.note_use(&bearer, request, source).await.map_err(|error| unsound(&error))?;
        }
        Ok(Some(Caller::with_token(&self.api.gate.authority.policy(), bearer)))
    }

    /// Whoever asks without a token hears this and no name; where the configuration says so, the ledger's heads too, which have the nodes'.
    async fn readiness(&self) -> Response {
        let ready = health::faults(&self.api.gate).await.is_empty();
        if self.api.live.config().api.as_ref().is_some_and(|door| door.show_heads)
            && let Ok(heads) = self.api.gate.store.heads().await
        {
            return Json(serde_json::json!({ "ready": ready, "heads": heads })).into_response();
        }
        Json(serde_json::json!({ "ready": ready })).into_response()
    }

    /// Who brings what is not believed waits, longer each time.
    async fn throttled(&self, source: IpAddr, answer: impl Future<Output = Response>) -> Response {
        tokio::time::sleep(self.wrong.wait(source, self.api.gate.now())).await;
        let answer = answer.await;
        if answer.status().is_client_error() {
            self.wrong.failed(source, self.api.gate.now());
        }
        answer
    }

    fn within_rate(&self, bearer: &Bearer) -> Result<(), Refused> {
        let most = self.api.live.config().api.as_ref().map_or(u32::MAX, |door| door.requests_per_minute);
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.take(bearer.token, most, self.api.gate.now()).map_err(|wait| {
            let sentence = format!("this token may ask {most} times a minute: come again in {wait} s");
            let mut response = Problem::new(StatusCode::TOO_MANY_REQUESTS, sentence).into_response();
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait));
            Box::new(response)
        })
    }

    /// What a token is used for, before it is done: the entries of the deed itself name only whose token it is.
    async fn note_use(&self, bearer: &Bearer, request: &Parts, source: IpAddr) -> Result<(), StoreError> {
        let detail = serde_json::json!({
            "token": bearer.token, "made_by": bearer.made_by, "source": source,
            "method": request.method.as_str(), "path": request.uri.path(),
        });
        let event = Event::new("token.used").identity(&bearer.identity).detail(detail);
        self.api.gate.store.append(event, self.api.gate.now()).await
    }

    /// Slowly, and in the ledger at most now and then.
    async fn refused(&self, refused: &TokenRefused, source: IpAddr) -> Refused {
        let now = self.api.gate.now();
        let wait = self.wrong.wait(source, now);
        self.wrong.failed(source, now);
        let known = refused.token();
        let missed = {
            let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
            let [unknown, revoked] = &mut *noted;
            if known.is_some() { revoked.due(now) } else { unknown.due(now) }
        };
        if let Some(missed) = missed {
            let detail = serde_json::json!({
                "source": source, "token": known, "why": refused.to_string(), "not_noted_before": missed
            });
            if let Err(error) = self.api.gate.store.append(Event::new("token.refused").detail(detail), now).await {
                tracing::error!(%error, "that a token was refused could not be written");
            }
        }
        tokio::time::sleep(wait).await;
        unauthorized(refused.to_string())
    }
}

/// The secret, if one is sent. Two are none.
fn secret(request: &Parts) -> Result<Option<&str>, Refused> {
    let mut sent = request.headers.get_all(header::AUTHORIZATION).iter();
    let Some(first) = sent.next() else { return Ok(None) };
    let bearer = first.to_str().ok().and_then(|text| text.split_once(' '));
    match bearer.filter(|(scheme, _)| sent.next().is_none() && scheme.eq_ignore_ascii_case("bearer")) {
        Some((_, secret)) => Ok(Some(secret.trim())),
        None => Err(unauthorized("only one Authorization is taken, and it is: Bearer TOKEN")),
    }
}

/// Refused: what a program in front of us could read otherwise than we do (RFC 9112 sections 3.2 and 6.1), and what comes
/// from a page in a browser (Fetch, section 3.2).
fn unambiguous(request: &Parts) -> Result<(), Problem> {
    let headers = &request.headers;
    if headers.contains_key(header::ORIGIN) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "this is not for pages in a browser: leave Origin out"));
    }
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Problem::new(
            StatusCode::LENGTH_REQUIRED,
            "say how long the body is: Content-Length, and no Transfer-Encoding",
        ));
    }
    let hosts = headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version == Version::HTTP_11) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "a request has one Host"));
    }
    Ok(())
}

/// What follows on the connection is not read.
fn last(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn unauthorized(sentence: impl Into<String>) -> Refused {
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, sentence).into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    Box::new(response)
}

/// While store and ledger disagree nobody comes in from afar.
fn unsound(error: &StoreError) -> Refused {
    tracing::error!(%error, "no token can be verified");
    let sentence = "the gateway cannot verify tokens now: an admin must run `tidegate ledger verify` on its host";
    Box::new(Problem::new(StatusCode::SERVICE_UNAVAILABLE, sentence).into_response())
}
