//! Logging in with a browser: authorization code with PKCE (RFC 6749 section 4.1, RFC 7636, RFC 9700).

use super::{Pages, answer, html, once::secret, said};
use crate::{
    api::Caller,
    elsewhere::{
        Unproven,
        oidc::{BrowserLogin, Oidc},
    },
};
use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse as _, Response},
};
use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tidegate_grants::{guest::Arrival, token::TokenScope};

/// Ties a login's end to the browser that began it, and opens nothing. A browser keeps it to this host, and to TLS.
const COOKIE: &str = "__Host-tidegate-login";
/// A token that a login gives is good so long.
const TOKEN_LIFE: Duration = Duration::from_secs(8 * 60 * 60);

/// A login that a browser has begun.
#[derive(Debug)]
pub(super) struct Begun {
    /// What its cookie has.
    browser: String,
    nonce: String,
    verifier: String,
    /// The request that it came for.
    request: Option<String>,
}

/// Sends the browser to the provider.
pub(super) async fn begin(State(pages): State<Arc<Pages>>, RawQuery(query): RawQuery) -> Response {
    let Some(oidc) = pages.api.live.config().oidc.clone() else {
        return said(StatusCode::NOT_FOUND, "There is no login by a browser here: use a token of your own.");
    };
    let request = parsed(query).remove("request").filter(|id| id.len() <= 64);
    let made = (|| Ok::<_, getrandom::Error>([secret()?, secret()?, secret()?, secret()?]))();
    let Ok([state, browser, nonce, verifier]) = made else { return ours() };
    let challenge = BASE64URL_NOPAD.encode(&Sha256::digest(&verifier));
    let redirect = pages.redirect();
    let login = BrowserLogin { redirect: &redirect, state: &state, nonce: &nonce, challenge: &challenge };
    let to = match pages.provider.authorize_at(&oidc, &login).await {
        Ok(to) => to,
        Err(why) => return unproven(&why),
    };
    let cookie = format!("{COOKIE}={browser}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600");
    pages.begun.hold(state, Begun { browser, nonce, verifier, request }, Instant::now());
    let (Ok(to), Ok(cookie)) = (HeaderValue::try_from(to), HeaderValue::try_from(cookie)) else { return ours() };
    (StatusCode::SEE_OTHER, [(header::LOCATION, to), (header::SET_COOKIE, cookie)]).into_response()
}

/// The browser comes back from the provider.
pub(super) async fn end(State(pages): State<Arc<Pages>>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let Some(oidc) = pages.api.live.config().oidc.clone() else {
        return said(StatusCode::NOT_FOUND, "There is no login by a browser here: use a token of your own.");
    };
    let query = parsed(query);
    let said_of = |key: &str| query.get(key).map(String::as_str);
    let begun = said_of("state").and_then(|state| pages.begun.take(state, Instant::now()));
    let Some(begun) = begun.filter(|begun| cookie(&headers) == Some(begun.browser.as_str())) else {
        return said(
            StatusCode::FORBIDDEN,
            "This login was not begun in this browser, or is over: open the link again.",
        );
    };
    // RFC 9207: an answer of another provider is not taken for ours.
    if said_of("iss").is_some_and(|iss| iss != oidc.issuer) {
        return said(StatusCode::FORBIDDEN, "This login is of another provider.");
    }
    let Some(code) = said_of("code") else {
        return said(StatusCode::FORBIDDEN, "You were not logged in there.");
    };
    match arrive(&pages, &oidc, code, &begun).await {
        Ok(arrival) => shown(&pages, arrival, begun.request).await,
        Err(refused) => refused,
    }
}

/// Who they are, and from now on here.
async fn arrive(pages: &Pages, oidc: &Oidc, code: &str, begun: &Begun) -> Result<Arrival, Response> {
    let (gate, redirect) = (&pages.api.gate, pages.redirect());
    let token = pages.provider.redeem(oidc, code, &redirect, &begun.verifier).await.map_err(|why| unproven(&why))?;
    let arrival =
        pages.provider.who(oidc, &token, Some(&begun.nonce), gate.now()).await.map_err(|why| unproven(&why))?;
    let welcomed = gate.authority.welcome(arrival.clone(), gate.now()).await;
    welcomed.map_err(|why| said(StatusCode::FORBIDDEN, &why.to_string()))?;
    Ok(arrival)
}

/// The request that they came for; else a token for programs.
async fn shown(pages: &Pages, arrival: Arrival, request: Option<String>) -> Response {
    let (gate, who) = (&pages.api.gate, &arrival.identity);
    if let Some(request) = request {
        return answer::show(pages, Caller::logged_in(&gate.authority.policy(), who), &request).await;
    }
    let (label, scope, life) = ("a login with a browser".to_owned(), TokenScope::Grants, TOKEN_LIFE);
    let wanted = tidegate_grants::token::TokenRequest { user: who.clone(), label, scope, life };
    match gate.authority.issue_token(who, wanted, TOKEN_LIFE, gate.now()).await {
        Ok(made) => {
            use secrecy::ExposeSecret as _;
            let body = format!(
                "<h1>You are {}</h1><p>A token for programs, shown this once, good until {}:</p><p><code>{}</code></p>",
                html::text(who.as_str()),
                html::text(&made.expires.to_string()),
                html::text(made.secret.expose_secret())
            );
            Html(html::page("Logged in", &body)).into_response()
        }
        Err(why) => said(StatusCode::FORBIDDEN, &why.to_string()),
    }
}

impl Pages {
    fn redirect(&self) -> String {
        format!("{}/login/callback", self.url)
    }
}

/// Two of one name are none.
fn parsed(query: Option<String>) -> HashMap<String, String> {
    let mut found: HashMap<String, String> = HashMap::new();
    let mut twice = Vec::new();
    for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned() {
        if found.insert(key.clone(), value).is_some() {
            twice.push(key);
        }
    }
    found.retain(|key, _| !twice.contains(key));
    found
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut ours = all
        .flat_map(|line| line.split("; "))
        .filter_map(|pair| pair.split_once('='))
        .filter_map(|(name, value)| (name == COOKIE).then_some(value));
    ours.next().filter(|_| ours.next().is_none())
}

fn unproven(why: &Unproven) -> Response {
    let status = match why {
        Unproven::Wrong(_) => StatusCode::FORBIDDEN,
        Unproven::Unknown(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    said(status, &format!("You are not logged in: {why}."))
}

fn ours() -> Response {
    said(StatusCode::INTERNAL_SERVER_ERROR, "The gateway could not do this: tell your admin.")
}
