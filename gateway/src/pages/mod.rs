//! The few pages for people with a browser: logging in at the OpenID provider, and answering the request that a mail or a chat linked to.
//!
//! What always holds: a link opens nothing: whoever follows it says first who they are, by a login or a token of their own, and sees
//! before that not even whether there is such a request. No page needs a script, none may be framed, and nothing of another
//! site is loaded. The one cookie ties a login's end to the browser that began it; what a page may do stands in the page, is
//! good once and for minutes, and is for one person and one request.

mod answer;
mod html;
mod login;
mod once;

use crate::{
    api::{Api, Source},
    elsewhere::oidc::Provider,
};
use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse as _, Response},
    routing::get,
};
use http_body_util::{BodyExt as _, Limited};
use once::Once;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tidegate_proxy::authenticate::Sources;

/// A longer form is none.
const LONGEST_FORM: usize = 16 << 10;
/// A form must be here by then.
const FORM_DEADLINE: Duration = Duration::from_secs(5);
/// A browser shows no other page of ours in a frame, and loads nothing for this one but its style.
const FRAMES: &str = "frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

/// What the pages work with.
#[derive(Debug)]
pub(crate) struct Pages {
    api: Arc<Api>,
    provider: Provider,
    /// What browsers reach the gateway by.
    url: String,
    /// Logins that browsers have begun, by their state.
    begun: Once<login::Begun>,
    /// Who was shown what to answer, by what stands in the page.
    shown: Once<answer::Shown>,
    /// Who came with a wrong token.
    wrong: Sources,
}

/// The pages' addresses.
pub(crate) fn router(api: Arc<Api>, provider: Provider, url: String) -> Router {
    let (begun, shown) = (Once::default(), Once::default());
    let pages = Arc::new(Pages { api, provider, url, begun, shown, wrong: Sources::default() });
    Router::new()
        .route("/login", get(login::begin))
        .route("/login/callback", get(login::end))
        .route("/approve/{id}", get(answer::ask).post(answer::answer))
        .layer(middleware::from_fn(dressed))
        .with_state(pages)
}

/// What every answer of a page carries.
async fn dressed(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let policy = format!("default-src 'none'; style-src '{}'; {FRAMES}", html::style_hash());
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Less, and browsers would not say from where a form comes.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CONTENT_SECURITY_POLICY, policy.as_str()),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// A page that says this and nothing else.
fn said(status: StatusCode, sentence: &str) -> Response {
    (status, Html(html::page("tidegate", &format!("<p>{}</p>", html::text(sentence))))).into_response()
}

/// A form that a page of ours has sent: from nowhere else, and bounded.
async fn form(request: Request, url: &str) -> Result<HashMap<String, String>, Response> {
    let (head, body) = request.into_parts();
    if !is_from(&head.headers, url) {
        return Err(said(StatusCode::FORBIDDEN, "This form was sent by another site. Open the link again."));
    }
    let read = tokio::time::timeout(FORM_DEADLINE, Limited::new(body, LONGEST_FORM).collect()).await;
    let Ok(Ok(bytes)) = read else { return Err(said(StatusCode::BAD_REQUEST, "This form cannot be read.")) };
    Ok(form_urlencoded::parse(&bytes.to_bytes()).into_owned().collect())
}

/// Browsers say with each form where its page came from (Fetch, section 3.2).
fn is_from(headers: &HeaderMap, url: &str) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    matches!((origins.next(), origins.next()), (Some(origin), None) if origin.as_bytes() == url.as_bytes())
}

/// From where a request comes.
fn source(request: &Request) -> std::net::IpAddr {
    request.extensions().get::<Source>().map_or(std::net::Ipv4Addr::LOCALHOST.into(), Source::address)
}
